//! Volumes that behave strangely: a folder, seen through a file system in user space that folds names or
//! fails when told to.
//!
//! ```ignore
//! let Some(mount) = Folding::mount(pair.scratch()) else { return };      // says why, and that it skips
//! pair.receiver.root = mount.root().to_owned();
//! mount.behind();                                                        // the folder itself
//! let Some(mount) = Strange::mount(pair.scratch()) else { return };
//! mount.set(Fault::Forgetful { dir: "notes".into(), show: 1 });          // lists one entry and no error
//! mount.heal();
//! ```
//!
//! It needs root and `/dev/fuse`. Events (inotify) of changes that are made through the mount arrive as on
//! any volume; a change made [`Mount::behind`] its back is only found by a sweep.

mod inodes;
mod passthrough;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fuser::{BackgroundSession, Config, MountOption, SessionACL};

use super::run;
use passthrough::Passthrough;

/// What a volume does wrong. Paths are relative to the root of the mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Listing this directory gives its first `show` entries, and no error.
    Forgetful { dir: PathBuf, show: usize },
    /// Listing this directory gives its first `show` entries, then fails with this error number.
    Breaks {
        dir: PathBuf,
        show: usize,
        error: i32,
    },
    /// Looking at this path, or below it, fails with this error number.
    Refuses { path: PathBuf, error: i32 },
    /// Reading a file at this path, or below it, fails with this error number.
    Unreadable { path: PathBuf, error: i32 },
    /// Writing and making anything fails with this error number.
    NoWrites { error: i32 },
}

/// Faults that are switched on and off while the volume is in use.
pub(crate) type Faults = Arc<Mutex<Vec<Fault>>>;

/// A volume that folds case and normalization when it looks a name up, and keeps the spelling of what is
/// made: as APFS does by default.
pub(crate) struct Folding;

/// A volume that passes everything through, until it is told to misbehave.
pub(crate) struct Strange;

impl Folding {
    /// Mounts one with its folders in `dir`. `None`, with a printed reason, where that is not possible.
    pub(crate) fn mount(dir: &Path) -> Option<Mount> {
        Mount::new(dir, "folding", true)
    }
}

impl Strange {
    /// As [`Folding::mount`].
    pub(crate) fn mount(dir: &Path) -> Option<Mount> {
        Mount::new(dir, "strange", false)
    }
}

/// A mounted volume. It is unmounted when dropped, so it has to outlive the daemon on it.
pub(crate) struct Mount {
    root: PathBuf,
    behind: PathBuf,
    faults: Faults,
    session: Option<BackgroundSession>,
}

impl Mount {
    fn new(dir: &Path, name: &str, folds: bool) -> Option<Self> {
        let [root, behind] = ["mounted", "behind"].map(|what| dir.join(format!("{name}-{what}")));
        for made in [&root, &behind] {
            fs::create_dir(made).unwrap();
        }
        let faults = Faults::default();
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("layer-sync-test".to_owned()),
            MountOption::DefaultPermissions,
        ];
        config.acl = SessionACL::All;
        let files = Passthrough::new(&behind, folds, faults.clone());
        match files.and_then(|files| fuser::spawn_mount(files, &root, &config)) {
            Ok(session) => Some(Self {
                root,
                behind,
                faults,
                session: Some(session),
            }),
            Err(error) => {
                println!("skipped: no file system in user space can be mounted: {error}");
                None
            }
        }
    }

    /// Returns where it is mounted.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder that is seen through it.
    pub(crate) fn behind(&self) -> &Path {
        &self.behind
    }

    /// Lets it misbehave, from the next operation on.
    pub(crate) fn set(&self, fault: Fault) {
        self.faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(fault);
    }

    /// Lets it behave again.
    pub(crate) fn heal(&self) {
        self.faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Also when a test failed and something still runs on it.
        run("umount", ["-l", self.root.to_str().unwrap()]);
        if let Some(session) = self.session.take() {
            drop(session.umount_and_join());
        }
    }
}
