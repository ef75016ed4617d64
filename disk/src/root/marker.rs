//! The marker: which replica a root is, and how far it has come.
//!
//! The *stamp* is a number that grows while things are recorded. It stands in the marker, which lies in
//! the root, and in the index, which lies in the home. A copy of either that is put back later (a
//! backup, a snapshot) has an older stamp than the other one, so it is noticed:
//!
//! | Stamps | What happened | What follows |
//! | --- | --- | --- |
//! | marker = index | nothing | – |
//! | marker = index + 1 | a crash between the two | the index takes the marker's |
//! | marker < index | the folder is an older copy of itself | the root is refused |
//! | marker > index + 1 | the home is an older copy of itself | the index counts as lost |
//!
//! The marker is durable before the index records its stamp, and both move at most once a minute. A copy
//! that is put back within the same minute is not noticed by this.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::Stat;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{ReplicaId, replace_private};
use crate::{fingerprint, handle};

pub(crate) const MARKER: &str = "marker";
/// Version 1 had no stamp.
const VERSION: u32 = 2;
/// A marker is a line; whatever is longer is none.
const BYTES_MAX: u64 = 4096;

#[derive(Serialize, Deserialize)]
struct Text {
    version: u32,
    replica: String,
    #[serde(default)]
    stamp: u64,
}

/// What a marker says.
pub(crate) struct Marker {
    /// The replica's id as text.
    pub(crate) replica: String,
    pub(crate) stamp: u64,
    pub(crate) print: Print,
}

/// What tells without reading that a marker is the one that was read or written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Print {
    inode: u64,
    len: u64,
    mtime_ns: i64,
}

impl Print {
    fn of(stat: &Stat) -> Self {
        Self {
            inode: fingerprint::inode(stat),
            len: fingerprint::len(stat),
            mtime_ns: fingerprint::mtime_ns(stat),
        }
    }
}

/// Reads a marker; `None` when there is none.
pub(crate) fn read(private: &OwnedFd) -> io::Result<Option<Marker>> {
    let (file, stat) = match handle::open_file(private, MARKER) {
        Ok(opened) => opened,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    let text: Text = serde_json::from_slice(&bytes)?;
    if !(1..=VERSION).contains(&text.version) {
        return Err(io::Error::other(format!(
            "a marker of version {}",
            text.version
        )));
    }
    Ok(Some(Marker {
        replica: text.replica,
        stamp: text.stamp,
        print: Print::of(&stat),
    }))
}

/// Looks at a marker without reading it; `None` when there is none.
pub(crate) fn print(private: &OwnedFd) -> Result<Option<Print>, Errno> {
    let stat = handle::stat_at(private, MARKER)?;
    Ok(stat.map(|stat| Print::of(&stat)))
}

/// Writes a marker, durably.
pub(crate) fn write(private: &OwnedFd, replica: ReplicaId, stamp: u64) -> io::Result<Print> {
    let text = Text {
        version: VERSION,
        replica: replica.to_string(),
        stamp,
    };
    let stat = replace_private(private, MARKER, &serde_json::to_vec(&text)?)?;
    Ok(Print::of(&stat))
}
