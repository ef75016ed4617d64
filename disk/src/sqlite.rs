//! SQLite databases, while programs use them.
//!
//! The file of a database that is in use is no content: what was committed may lie in its write-ahead log,
//! and what lies in the file may have to be rolled back. So such a database is read through SQLite, into
//! a private *snapshot* of one committed state, and the snapshot is what is hashed, planned and given. A
//! database *at rest*, which nobody changes and which has nothing beside it, is an ordinary file.
//!
//! * [`beside`] tells the files that SQLite puts beside a database, which are never synced;
//! * [`locks`] keeps SQLite's locks from being dropped by handles of our own;
//! * [`snapshot`] copies one committed state; [`store`] decides when, and keeps the copies for the givers;
//! * [`guard`] keeps an apply from replacing a database that is in use.
//!
//! Nothing here changes a database, its log or its journal. SQLite itself may make an empty `-shm` beside
//! one whose program died; it is derived from the log, and the next program uses or rebuilds it.

pub(crate) mod beside;
pub(crate) mod guard;
pub(crate) mod locks;
mod snapshot;
pub(crate) mod store;

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::Stat;
use rustix::io::Errno;
use shared::chunk::{DatabaseHeader, HEADER_BYTES};

use crate::fingerprint;
use beside::Beside;
use locks::TreeFile;

/// SQLite's shortest page, in bytes. Every database is a multiple of it.
const PAGE_BYTES_MIN: u64 = 512;
/// A file whose time of modification is further back than this is not being written: clocks of file
/// systems are coarse, by a few milliseconds.
const SETTLED_NS: u64 = 20_000_000;
/// The same where the file system counts whole seconds.
const SETTLED_COARSE_NS: u64 = 2_100_000_000;

/// How a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// The file alone is the database, and rests.
    AtRest,
    /// It takes SQLite to read it.
    Live,
    /// It was written a moment ago, and nothing lies beside it: it comes to rest by itself.
    Settling,
}

/// Reads the first bytes of an open file, if they are those of a database.
pub(crate) fn header_bytes(file: &TreeFile, stat: &Stat) -> Option<[u8; HEADER_BYTES]> {
    let len = fingerprint::len(stat);
    if len < PAGE_BYTES_MIN || !len.is_multiple_of(PAGE_BYTES_MIN) {
        return None;
    }
    let mut start = [0; HEADER_BYTES];
    file.read_exact_at(&mut start, 0).ok()?;
    DatabaseHeader::parse(&start).map(|_| start)
}

/// Reads the header of an open file; `None` when it is no database.
pub(crate) fn header(file: &TreeFile, stat: &Stat) -> Option<DatabaseHeader> {
    DatabaseHeader::parse(&header_bytes(file, stat)?)
}

/// Tells how a database is that was found to be `stat` after `now_ns`.
///
/// # Errors
/// Those of looking at the files beside it.
pub(crate) fn activity(
    dir: impl AsFd,
    name: &str,
    header: DatabaseHeader,
    stat: &Stat,
    now_ns: i64,
) -> Result<Activity, Errno> {
    let beside = Beside::of(dir, name)?;
    let mtime_ns = fingerprint::mtime_ns(stat);
    let coarse = mtime_ns % 1_000_000_000 == 0;
    let settled = if coarse {
        SETTLED_COARSE_NS
    } else {
        SETTLED_NS
    };
    Ok(if beside.has_changes() {
        Activity::Live
    } else if mtime_ns.abs_diff(now_ns) > settled {
        Activity::AtRest
    } else if header.has_wal {
        // SQLite would make a log and a `-shm` beside it to read it, and leave them there.
        Activity::Settling
    } else {
        Activity::Live
    })
}

#[cfg(test)]
mod tests;
