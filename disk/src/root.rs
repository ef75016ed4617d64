//! The root and its private folder `.layer-sync/`.
//!
//! The folder lies in the root, so it is on the same volume, which renames need:
//!
//! | Name | Holds |
//! | --- | --- |
//! | `marker` | which replica this is. Without it, or with another's, nothing is ever synced |
//! | `lock` | held by the process that has the root; the kernel releases it when the process dies |
//! | `stage/` | content on its way into the tree |
//! | `kept/` | content that was displaced from it |
//! | `snapshots/` | committed states of databases in use, for the givers; emptied at every start |

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, fstat, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use shared::ignore::PRIVATE_DIR;

use crate::error::{LookError, OpenRefused};
use crate::{fingerprint, handle};

const MARKER: &str = "marker";
const LOCK: &str = "lock";
const STAGE: &str = "stage";
const KEPT: &str = "kept";
pub(crate) const SNAPSHOTS: &str = "snapshots";
const MARKER_VERSION: u32 = 1;
/// A marker is a line; whatever is longer is none.
const MARKER_BYTES_MAX: u64 = 4096;

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

#[derive(Serialize, Deserialize)]
struct Marker {
    version: u32,
    replica: String,
}

/// An open root, locked for this process.
pub(crate) struct Root {
    /// Where it is, links resolved.
    pub(crate) path: PathBuf,
    pub(crate) id: ReplicaId,
    /// The device that it lies on.
    pub(crate) device: u64,
    /// The mode that a new file gets here.
    pub(crate) file_mode: u32,
    pub(crate) stage: OwnedFd,
    pub(crate) kept: OwnedFd,
    pub(crate) snapshots: OwnedFd,
    dir: OwnedFd,
    pub(crate) private: OwnedFd,
    _lock: OwnedFd,
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
        let id = match expected {
            Some(expected) => expect_marker(&private, expected, &path)?,
            None => new_marker(&private).map_err(|source| OpenRefused::NotWritable {
                path: private_path.join(MARKER),
                source,
            })?,
        };
        let stage = make_dir(&private, STAGE).map_err(not_writable)?;
        let kept = make_dir(&private, KEPT).map_err(not_writable)?;
        let snapshots = make_dir(&private, SNAPSHOTS).map_err(not_writable)?;
        let file_mode = mode_of_new_files(&stage).map_err(not_writable)?;
        Ok(Self {
            path,
            id,
            device,
            file_mode,
            stage,
            kept,
            snapshots,
            dir,
            private,
            _lock: lock,
        })
    }

    /// Makes sure that the root's path still leads to the directory that was opened, and that its
    /// marker still is this replica's. If not, nothing that is seen or absent there means anything.
    pub(crate) fn check(&self) -> Result<(), LookError> {
        let gone = |what: &str| LookError::RootGone {
            root: self.path.clone(),
            what: what.to_owned(),
        };
        let same = |there: Option<rustix::fs::Stat>, opened: &OwnedFd| match (there, fstat(opened))
        {
            (Some(a), Ok(b)) => {
                fingerprint::inode(&a) == fingerprint::inode(&b)
                    && fingerprint::device(&a) == fingerprint::device(&b)
            }
            _ => false,
        };
        if !same(rustix::fs::stat(&self.path).ok(), &self.dir) {
            return Err(gone("it was moved, replaced or unmounted"));
        }
        if !same(
            handle::stat_at(&self.dir, PRIVATE_DIR).ok().flatten(),
            &self.private,
        ) {
            return Err(gone("its folder .layer-sync was removed or replaced"));
        }
        match read_marker(&self.private) {
            Ok(Some(found)) if found == self.id.to_string() => Ok(()),
            Ok(Some(_)) => Err(gone("it carries the marker of another replica")),
            Ok(None) => Err(gone("its marker .layer-sync/marker was removed")),
            Err(error) => Err(gone(&format!("its marker cannot be read ({error})"))),
        }
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

fn refuse_nested(root: &Path) -> Result<(), OpenRefused> {
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

fn expect_marker(
    private: &OwnedFd,
    expected: ReplicaId,
    root: &Path,
) -> Result<ReplicaId, OpenRefused> {
    let root = root.to_owned();
    match read_marker(private) {
        Ok(None) => Err(OpenRefused::MarkerMissing { root }),
        Ok(Some(found)) if found == expected.to_string() => Ok(expected),
        Ok(Some(found)) => Err(OpenRefused::ForeignMarker { root, found }),
        Err(error) => Err(OpenRefused::ForeignMarker {
            root,
            found: error.to_string(),
        }),
    }
}

/// Reads the replica's id as text; `None` without a marker.
fn read_marker(private: &OwnedFd) -> io::Result<Option<String>> {
    let file = match handle::open_file(private, MARKER) {
        Ok((file, _)) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut text = Vec::new();
    file.take(MARKER_BYTES_MAX).read_to_end(&mut text)?;
    let marker: Marker = serde_json::from_slice(&text)?;
    if marker.version != MARKER_VERSION {
        return Err(io::Error::other(format!(
            "a marker of version {}",
            marker.version
        )));
    }
    Ok(Some(marker.replica))
}

/// Writes a marker with a new id. A marker that was there belongs to a sync of the past: its base is
/// not at hand, so nothing can be taken for deleted.
fn new_marker(private: &OwnedFd) -> io::Result<ReplicaId> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let id = ReplicaId(id);
    let marker = Marker {
        version: MARKER_VERSION,
        replica: id.to_string(),
    };
    replace_private(private, MARKER, &serde_json::to_vec(&marker)?)?;
    Ok(id)
}

/// Writes a whole file of the private folder: the old text or the new one, also after a power cut.
pub(crate) fn replace_private(dir: impl AsFd, name: &str, text: &[u8]) -> io::Result<()> {
    let beside = format!("{name}.new");
    match unlinkat(&dir, &beside, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let mut file: File = handle::create_file(&dir, &beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    rustix::fs::renameat(&dir, &beside, &dir, name)?;
    Ok(rustix::fs::fsync(dir)?)
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
