//! What can be said about a root and its index without opening them: for the doctor.
//!
//! Nothing here takes a lock or writes, so it may run beside a daemon, and beside whatever is wrong. The
//! one exception is [`make_private_parts`], which makes again what an opening would make.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, mkdirat, statvfs};
use rustix::io::Errno;
use shared::ignore::PRIVATE_DIR;

use crate::root::{KEPT, ReplicaId, SNAPSHOTS, STAGE, marker, refuse_nested};
use crate::{handle, index};

/// The folders inside of the private folder.
pub const PRIVATE_PARTS: [&str; 3] = [STAGE, KEPT, SNAPSHOTS];

/// The room on a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// The floor: below it kept versions go early. In bytes.
    pub floor_bytes: u64,
    /// Whether no new file can be made for want of inodes.
    pub no_inodes: bool,
}

/// Returns the room on the volume of `path`.
///
/// # Errors
/// What the system says.
pub fn space(path: &Path) -> io::Result<Space> {
    let space = statvfs(path)?;
    let total = space.f_blocks.saturating_mul(space.f_frsize);
    Ok(Space {
        free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        floor_bytes: crate::kept::room::floor(total),
        // Volumes that make inodes as they need them say that they have none at all.
        no_inodes: space.f_files > 0 && space.f_favail == 0,
    })
}

/// What the marker of a root says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkerFound {
    /// The replica, as text: a damaged marker may hold anything.
    pub replica: String,
    /// How far the root has come.
    pub stamp: u64,
}

/// Reads the marker of a root; `None` when there is none.
///
/// # Errors
/// A marker that cannot be read or understood.
pub fn marker(root: &Path) -> io::Result<Option<MarkerFound>> {
    let Some(private) = private(root)? else {
        return Ok(None);
    };
    let found = marker::read(&private)?;
    Ok(found.map(|found| MarkerFound {
        replica: found.replica,
        stamp: found.stamp,
    }))
}

/// Returns the root around `root`, if there is one: then it cannot be a root itself.
pub fn outer_root(root: &Path) -> Option<PathBuf> {
    match refuse_nested(root) {
        Err(crate::OpenRefused::InsideAnotherRoot { outer, .. }) => Some(outer),
        _ => None,
    }
}

/// What an index turned out to be.
#[derive(Debug)]
pub enum IndexFound {
    /// There is none. The next start makes one, and the trees are united without a deletion.
    Absent,
    /// Every page is what was written.
    Sound {
        /// The stamp that was recorded last.
        stamp: u64,
        /// How many rows the base has.
        rows: usize,
    },
    /// It belongs to another replica. The next start makes a new one.
    Foreign,
    /// Somebody wrote to it meanwhile, so that nothing can be said.
    Changing,
    /// It is not what was written. The next start moves it aside and makes a new one.
    Damaged(String),
    /// The system refuses.
    Unreadable(io::Error),
}

/// Reads the whole index in the state folder of a home. It costs as much as reading the file once.
pub fn index(state: &Path, replica: ReplicaId) -> IndexFound {
    index::examine::examine(state, replica)
}

/// Returns the parts of the private folder of `root` that are missing.
///
/// # Errors
/// What the system says; a private folder that is missing altogether is no error and has no parts.
pub fn missing_private_parts(root: &Path) -> io::Result<Vec<&'static str>> {
    let Some(private) = private(root)? else {
        return Ok(Vec::new());
    };
    let mut missing = Vec::new();
    for part in PRIVATE_PARTS {
        if handle::stat_at(&private, part)?.is_none() {
            missing.push(part);
        }
    }
    Ok(missing)
}

/// Makes the missing parts of the private folder of `root`; the folder itself, with its marker, is never
/// made up.
///
/// # Errors
/// What the system says.
pub fn make_private_parts(root: &Path) -> io::Result<()> {
    let Some(private) = private(root)? else {
        return Err(io::ErrorKind::NotFound.into());
    };
    for part in PRIVATE_PARTS {
        match mkdirat(&private, part, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn private(root: &Path) -> io::Result<Option<std::os::fd::OwnedFd>> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(root, flags, Mode::empty())?;
    match handle::open_dir(&dir, PRIVATE_DIR) {
        Ok(private) => Ok(Some(private)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
