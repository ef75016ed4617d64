//! What the doctor may do by itself: things that are ours, and cannot be wrong.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use config::Home;

use super::{Check, chmod};
use crate::open;

/// Something that can be mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mend {
    /// A file or folder of ours has too many rights, or too few.
    Rights {
        /// The file or folder.
        path: PathBuf,
        /// The mode that it should have.
        mode: u32,
    },
    /// A daemon that ended left its socket.
    DeadSocket,
    /// Folders inside of the root's private folder are missing.
    PrivateParts {
        /// The root.
        root: PathBuf,
    },
}

/// Mends what can be mended, and says what was done, a sentence each. What fails says so and stays as it is.
pub fn mend(home: &Home, checks: &[Check]) -> Vec<String> {
    let all = checks.iter().filter_map(|check| check.mend.as_ref());
    all.map(|mend| match mend.carry_out(home) {
        Ok(done) => done,
        Err(error) => format!("not mended: {}: {error}", mend.what()),
    })
    .collect()
}

impl Mend {
    fn what(&self) -> String {
        match self {
            Self::Rights { path, mode } => chmod(*mode, path),
            Self::DeadSocket => "the socket that the last daemon left".into(),
            Self::PrivateParts { root } => {
                format!(
                    "the missing parts of {}",
                    root.join(".layer-sync").display()
                )
            }
        }
    }

    fn carry_out(&self, home: &Home) -> io::Result<String> {
        match self {
            Self::Rights { path, mode } => {
                // Rights of what a link leads to are not ours to set.
                if fs::symlink_metadata(path)?.is_symlink() {
                    return Err(io::Error::other("it is a link"));
                }
                fs::set_permissions(path, fs::Permissions::from_mode(*mode))?;
                Ok(format!("did {}", self.what()))
            }
            Self::DeadSocket => {
                // Whoever holds the lock is alone: no daemon is about to listen there.
                let _lock = open::lock(home).map_err(|failure| io::Error::other(failure.text))?;
                match fs::remove_file(home.socket()) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(format!("removed {}", self.what())),
                }
            }
            Self::PrivateParts { root } => {
                disk::examine::make_private_parts(root)?;
                Ok(format!("made {}", self.what()))
            }
        }
    }
}
