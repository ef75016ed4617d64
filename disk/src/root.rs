//! The root and its private folder `.layer-sync/`.
//!
//! The folder lies in the root, so it is on the same volume, which renames need:
//!
//! | Name | Holds |
//! | --- | --- |
//! | `marker` | which replica this is, and how far it has come ([`marker`]). Without it, or with another's, or an older one, nothing is ever synced |
//! | `lock` | held by the process that has the root; the kernel releases it when the process dies |
//! | `stage/` | content on its way into the tree |
//! | `kept/` | content that was displaced from it |
//! | `snapshots/` | committed states of databases in use, for the givers; emptied at every start |

pub(crate) mod marker;

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Mutex;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Stat, fstat, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use shared::ignore::PRIVATE_DIR;

use crate::error::{LookError, OpenRefused};
use crate::{fingerprint, handle};
use marker::MARKER;

const LOCK: &str = "lock";
pub(crate) const STAGE: &str = "stage";
pub(crate) const KEPT: &str = "kept";
pub(crate) const SNAPSHOTS: &str = "snapshots";

/// The identity of a replica: chosen when a root is opened for the first time, and written into its
/// marker.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplicaId(pub [u8; 16]);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ReplicaId {
    type Err = NotAReplicaId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut id = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return Err(NotAReplicaId);
        }
        for (index, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16)
                .map_err(|_| NotAReplicaId)?;
        }
        Ok(Self(id))
    }
}

/// A text that is not the 32 hexadecimal digits of a [`ReplicaId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a replica's id is 32 hexadecimal digits")]
pub struct NotAReplicaId;

/// An open root, locked for this process.
pub(crate) struct Root {
    /// Where it is, links resolved.
    pub(crate) path: PathBuf,
    pub(crate) id: ReplicaId,
    /// The device that it lies on.
    pub(crate) device: u64,
    /// The mode that a new file gets here.
    pub(crate) file_mode: u32,
    /// Whether the volume takes names for one that differ in case or normalization alone.
    pub(crate) folds: bool,
    pub(crate) stage: OwnedFd,
    pub(crate) kept: OwnedFd,
    pub(crate) snapshots: OwnedFd,
    dir: OwnedFd,
    pub(crate) private: OwnedFd,
    marker: Mutex<Held>,
    _lock: OwnedFd,
}

/// The marker as this process read or wrote it last.
#[derive(Clone, Copy)]
struct Held {
    stamp: u64,
    print: marker::Print,
}

impl Root {
    /// Opens a root. `expected` is the replica that it must be; without it, it becomes a new one.
    pub(crate) fn open(path: &Path, expected: Option<ReplicaId>) -> Result<Self, OpenRefused> {
        let not_a_directory = |source| OpenRefused::NotADirectory {
            root: path.to_owned(),
            source,
        };
        let path = path.canonicalize().map_err(not_a_directory)?;
        refuse_nested(&path)?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|error| not_a_directory(error.into()))?;
        let device = fingerprint::device(&fstat(&dir).map_err(|e| not_a_directory(e.into()))?);
        let private_path = path.join(PRIVATE_DIR);
        let not_writable = |source: Errno| OpenRefused::NotWritable {
            path: private_path.clone(),
            source: source.into(),
        };

        if expected.is_some() && !matches!(handle::stat_at(&dir, PRIVATE_DIR), Ok(Some(_))) {
            return Err(OpenRefused::MarkerMissing { root: path });
        }
        let private = make_dir(&dir, PRIVATE_DIR).map_err(not_writable)?;
        let lock = lock(&private, &path).map_err(|error| match error {
            Errno::WOULDBLOCK => OpenRefused::InUse { path: path.clone() },
            other => not_writable(other),
        })?;
        let (id, held) = match expected {
            Some(expected) => (expected, expect_marker(&private, expected, &path)?),
            None => new_marker(&private).map_err(|source| OpenRefused::NotWritable {
                path: private_path.join(MARKER),
                source,
            })?,
        };
        let stage = make_dir(&private, STAGE).map_err(not_writable)?;
        let kept = make_dir(&private, KEPT).map_err(not_writable)?;
        let snapshots = make_dir(&private, SNAPSHOTS).map_err(not_writable)?;
        let file_mode = mode_of_new_files(&stage).map_err(not_writable)?;
        let folds = volume_folds(&stage).map_err(not_writable)?;
        Ok(Self {
            path,
            id,
            device,
            file_mode,
            folds,
            stage,
            kept,
            snapshots,
            dir,
            private,
            marker: Mutex::new(held),
            _lock: lock,
        })
    }

    /// Makes sure that the root's path still leads to the directory that was opened, and that its
    /// marker still is the one that was read or written last. If not, nothing that is seen or absent
    /// there means anything.
    pub(crate) fn check(&self) -> Result<(), LookError> {
        let root = || self.path.clone();
        let missing = |what: &str| LookError::Missing {
            root: root(),
            what: what.to_owned(),
        };
        let replaced = |what: &str| LookError::Replaced {
            root: root(),
            what: what.to_owned(),
        };
        let same = |there: &Stat, opened: &OwnedFd| {
            fstat(opened).is_ok_and(|opened| {
                fingerprint::inode(there) == fingerprint::inode(&opened)
                    && fingerprint::device(there) == fingerprint::device(&opened)
            })
        };
        match rustix::fs::stat(&self.path) {
            Ok(there) if same(&there, &self.dir) => {}
            Ok(_) => return Err(replaced("it was moved, replaced or unmounted")),
            Err(error) => return Err(missing(&format!("it is not there ({error})"))),
        }
        match handle::stat_at(&self.dir, PRIVATE_DIR) {
            Ok(Some(there)) if same(&there, &self.private) => {}
            Ok(Some(_)) => return Err(replaced("its folder .layer-sync was replaced")),
            Ok(None) => return Err(missing("its folder .layer-sync was removed")),
            Err(error) => {
                let what = format!("its folder .layer-sync cannot be looked at ({error})");
                return Err(missing(&what));
            }
        }
        let mut held = crate::lock(&self.marker);
        if matches!(marker::print(&self.private), Ok(Some(print)) if print == held.print) {
            return Ok(());
        }
        // Somebody wrote it: a backup that is put back over the folder, for one.
        match marker::read(&self.private) {
            Ok(None) => Err(missing("its marker .layer-sync/marker was removed")),
            Ok(Some(found)) if found.replica != self.id.to_string() => Err(LookError::Foreign {
                root: root(),
                found: found.replica,
            }),
            Ok(Some(found)) if found.stamp < held.stamp => Err(LookError::Older {
                root: root(),
                found: found.stamp,
                last: held.stamp,
            }),
            Ok(Some(found)) if found.stamp > held.stamp => {
                Err(replaced("somebody else wrote its marker"))
            }
            Ok(Some(found)) => {
                held.print = found.print;
                Ok(())
            }
            Err(error) => Err(LookError::Foreign {
                root: root(),
                found: format!("a marker that cannot be read: {error}"),
            }),
        }
    }

    /// Returns the stamp in the marker.
    pub(crate) fn stamp(&self) -> u64 {
        crate::lock(&self.marker).stamp
    }

    /// Writes a higher stamp into the marker, durably. The caller has checked the root, so that this
    /// does not cover an older marker that somebody put back.
    pub(crate) fn raise_stamp(&self, stamp: u64) -> io::Result<()> {
        let mut held = crate::lock(&self.marker);
        let print = marker::write(&self.private, self.id, stamp)?;
        *held = Held { stamp, print };
        Ok(())
    }

    /// Returns where the private folder's part is, for messages.
    pub(crate) fn private_path(&self, part: &str) -> PathBuf {
        self.path.join(PRIVATE_DIR).join(part)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Says whether a directory of the tree, given by its handle, is the root of another tree.
pub(crate) fn is_root(dir: impl AsFd) -> bool {
    handle::open_dir(dir, PRIVATE_DIR)
        .is_ok_and(|private| matches!(handle::stat_at(private, MARKER), Ok(Some(_))))
}

pub(crate) fn refuse_nested(root: &Path) -> Result<(), OpenRefused> {
    let outer = root
        .ancestors()
        .skip(1)
        .find(|above| above.join(PRIVATE_DIR).join(MARKER).exists());
    match outer {
        Some(outer) => Err(OpenRefused::InsideAnotherRoot {
            root: root.to_owned(),
            outer: outer.to_owned(),
        }),
        None => Ok(()),
    }
}

fn make_dir(at: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    match mkdirat(&at, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    handle::open_dir(at, name)
}

fn lock(private: &OwnedFd, root: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = openat(private, LOCK, flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    tracing::debug!(root = %root.display(), "root locked");
    Ok(lock)
}

fn expect_marker(private: &OwnedFd, expected: ReplicaId, root: &Path) -> Result<Held, OpenRefused> {
    let root = root.to_owned();
    match marker::read(private) {
        Ok(None) => Err(OpenRefused::MarkerMissing { root }),
        Ok(Some(found)) if found.replica == expected.to_string() => Ok(Held {
            stamp: found.stamp,
            print: found.print,
        }),
        Ok(Some(found)) => Err(OpenRefused::ForeignMarker {
            root,
            found: found.replica,
        }),
        Err(error) => Err(OpenRefused::ForeignMarker {
            root,
            found: error.to_string(),
        }),
    }
}

/// Writes a marker with a new id. A marker that was there belongs to a sync of the past: its base is
/// not at hand, so nothing can be taken for deleted.
fn new_marker(private: &OwnedFd) -> io::Result<(ReplicaId, Held)> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let id = ReplicaId(id);
    let print = marker::write(private, id, 0)?;
    Ok((id, Held { stamp: 0, print }))
}

/// Writes a whole file of the private folder: the old text or the new one, also after a power cut.
/// Returns what the new file is.
pub(crate) fn replace_private(dir: impl AsFd, name: &str, text: &[u8]) -> io::Result<Stat> {
    let beside = format!("{name}.new");
    match unlinkat(&dir, &beside, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let mut file: File = handle::create_file(&dir, &beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    let stat = fstat(&file)?;
    rustix::fs::renameat(&dir, &beside, &dir, name)?;
    rustix::fs::fsync(dir)?;
    Ok(stat)
}

/// Asks the volume whether it folds names, by making some. Guessing from its type would be wrong: both
/// kinds of APFS exist, and folders of ext4 that fold.
fn volume_folds(stage: &OwnedFd) -> Result<bool, Errno> {
    // The same name in capitals, and an accent of its own in the place of a composed letter.
    let pairs = [("folds-a", "FOLDS-A"), ("folds-\u{e9}", "folds-e\u{301}")];
    let mut folds = false;
    for (name, other) in pairs {
        match unlinkat(stage, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        drop(handle::create_file(stage, name)?);
        folds |= handle::stat_at(stage, other)?.is_some();
        unlinkat(stage, name, AtFlags::empty())?;
    }
    Ok(folds)
}

/// Returns the mode that a new file gets, by making one: the process's mask cannot be read without
/// changing it.
fn mode_of_new_files(stage: &OwnedFd) -> Result<u32, Errno> {
    const PROBE: &str = "probe";
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match unlinkat(stage, PROBE, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    let probe = openat(stage, PROBE, flags, Mode::from_raw_mode(0o666))?;
    let stat = fstat(&probe)?;
    unlinkat(stage, PROBE, AtFlags::empty())?;
    Ok(fingerprint::mode(&stat) & 0o666)
}

#[cfg(test)]
mod tests;
