//! What SQLite puts beside a database: `-wal`, `-shm` and `-journal`.
//!
//! They belong to the database, not to the tree: they are never looked at, synced or told. A file that
//! merely is called so, without a database of that name beside it, is an ordinary file.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, fcntl_lock, openat, unlinkat};
use rustix::io::Errno;

use super::header;
use crate::{fingerprint, handle};

const WAL: &str = "-wal";
const SHM: &str = "-shm";
const JOURNAL: &str = "-journal";

/// What the files begin with that SQLite makes before the database has its first page.
const JOURNAL_MAGIC: [u8; 4] = [0xd9, 0xd5, 0x05, 0xf9];
const WAL_MAGIC: [u8; 3] = [0x37, 0x7f, 0x06];

/// The files beside a database, as far as they hold something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beside {
    pub(crate) wal: Option<Trace>,
    pub(crate) journal: Option<Trace>,
    /// Whether the journal, as SQLite sees it, has a change in it to roll back.
    journal_is_hot: bool,
}

/// What tells that a file beside a database is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    len: u64,
    mtime_ns: i64,
    inode: u64,
}

impl Beside {
    /// Looks at the files beside a database.
    pub(crate) fn of(dir: impl AsFd, name: &str) -> Result<Self, Errno> {
        let trace = |suffix: &str| {
            let stat = handle::stat_at(&dir, format!("{name}{suffix}"))?;
            Ok(stat
                .map(|stat| Trace {
                    len: fingerprint::len(&stat),
                    mtime_ns: fingerprint::mtime_ns(&stat),
                    inode: fingerprint::inode(&stat),
                })
                .filter(|trace| trace.len > 0))
        };
        let (wal, journal) = (trace(WAL)?, trace(JOURNAL)?);
        let journal_is_hot = journal.is_some() && {
            // One that was ended by clearing its first bytes is kept for the next change.
            let start = first_bytes(&dir, &format!("{name}{JOURNAL}"));
            start.is_none_or(|start| start[0] != 0)
        };
        Ok(Self {
            wal,
            journal,
            journal_is_hot,
        })
    }

    /// Says whether the database is more, or less, than its file.
    pub(crate) fn has_changes(&self) -> bool {
        self.wal.is_some() || self.journal_is_hot
    }

    /// Returns the ending of the file that holds the changes.
    pub(crate) fn of_changes(&self) -> &'static str {
        if self.wal.is_some() { WAL } else { JOURNAL }
    }
}

/// Returns the name of the log of a database.
pub(crate) fn wal_of(name: &str) -> String {
    format!("{name}{WAL}")
}

/// Returns the name of the index of a database's log.
pub(crate) fn wal_index_of(name: &str) -> String {
    format!("{name}{SHM}")
}

/// Returns the first 48 bytes of the index of a database's log: they change with every commit. `None`
/// without one.
pub(crate) fn wal_index(dir: impl AsFd, name: &str) -> Option<[u8; 48]> {
    let (file, _) = handle::open_file(dir, wal_index_of(name)).ok()?;
    let mut start = [0; 48];
    file.read_exact_at(&mut start, 0).ok()?;
    Some(start)
}

/// Says whether a program has the log of a database open: each one has a lock on the index of the log.
/// It must not be asked while this process itself has it open.
pub(crate) fn log_is_open(dir: impl AsFd, name: &str) -> bool {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(dir, wal_index_of(name), flags, Mode::empty()).is_ok_and(|index| {
        let locked = fcntl_lock(&index, FlockOperation::NonBlockingLockExclusive);
        matches!(locked, Err(Errno::AGAIN | Errno::ACCESS))
    })
}

/// Returns the name of the database that a file of this name would belong to.
pub(crate) fn owner(name: &str) -> Option<&str> {
    let mut owners = [WAL, SHM, JOURNAL]
        .iter()
        .filter_map(|suffix| name.strip_suffix(suffix));
    owners.next().filter(|owner| !owner.is_empty())
}

/// Says whether the file at a name belongs to a database beside it.
pub(crate) fn belongs(dir: impl AsFd, name: &str) -> bool {
    let Some(owner) = owner(name) else {
        return false;
    };
    if !is_file_or_nothing(&dir, name) {
        return false;
    }
    let Ok((file, stat)) = handle::open_file(&dir, owner) else {
        return false;
    };
    if fingerprint::len(&stat) == 0 {
        // A new database is empty until its first change is committed.
        return begins_as_made(&dir, name);
    }
    header(&file, &stat).is_some()
}

fn is_file_or_nothing(dir: impl AsFd, name: &str) -> bool {
    match handle::stat_at(dir, name) {
        Ok(stat) => stat.is_none_or(|stat| fingerprint::kind(&stat) == FileType::RegularFile),
        Err(_) => false,
    }
}

/// Says whether a file beside an empty one was made by SQLite, going by how it begins. One that is empty as
/// well, or not there, may be anybody's.
fn begins_as_made(dir: impl AsFd, name: &str) -> bool {
    match first_bytes(dir, name) {
        None => false,
        Some(start) if name.ends_with(JOURNAL) => start == JOURNAL_MAGIC || start == [0; 4],
        Some(start) if name.ends_with(WAL) => start.starts_with(&WAL_MAGIC),
        Some(start) => u32::from_ne_bytes(start) == 3_007_000,
    }
}

/// Returns how a file begins; `None` when it is shorter, or cannot be read.
fn first_bytes(dir: impl AsFd, name: &str) -> Option<[u8; 4]> {
    let (file, _) = handle::open_file(dir, name).ok()?;
    let mut start = [0; 4];
    file.read_exact_at(&mut start, 0).ok()?;
    Some(start)
}

/// The databases in a directory that have something beside them.
#[derive(Default)]
pub(crate) struct Listed {
    databases: HashSet<String>,
    belonging: HashSet<String>,
}

impl Listed {
    /// Takes the names that belong to databases out of a directory's.
    pub(crate) fn take_from(dir: impl AsFd, names: &mut Vec<Box<[u8]>>) -> Self {
        let candidates: Vec<String> = names
            .iter()
            .filter_map(|name| std::str::from_utf8(name).ok())
            .filter(|name| owner(name).is_some())
            .map(str::to_owned)
            .collect();
        let mut listed = Self::default();
        for name in candidates {
            let Some(owner) = owner(&name).map(str::to_owned) else {
                continue;
            };
            if belongs(&dir, &name) {
                listed.databases.insert(owner);
                listed.belonging.insert(name);
            }
        }
        if !listed.belonging.is_empty() {
            let belongs = |raw: &[u8]| {
                std::str::from_utf8(raw).is_ok_and(|name| listed.belonging.contains(name))
            };
            names.retain(|raw| !belongs(raw));
        }
        listed
    }

    /// Says whether a name was taken out.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.belonging.contains(name)
    }

    /// Says whether something lies beside this database.
    pub(crate) fn is_database(&self, name: &str) -> bool {
        self.databases.contains(name)
    }
}

/// Removes what lies beside a database at rest: an empty log, an ended journal, and the index of no log.
/// Nobody may have the database open.
pub(crate) fn remove_spent(dir: impl AsFd, name: &str) {
    for suffix in [SHM, WAL, JOURNAL] {
        // What is not there, or stays, is at worst taken for an ordinary file.
        unlinkat(&dir, format!("{name}{suffix}"), AtFlags::empty()).ok();
    }
}
