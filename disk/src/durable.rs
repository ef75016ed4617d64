//! What counts as agreed is durable first.
//!
//! Content that was given is durable already ([`Replica::give`]). The rest of what somebody does to a tree
//! has no content that is given: a directory, a link, an exec bit, a deletion, a name. If the power took
//! one of them after its row was recorded, the next look would find that it was undone here, and undo it
//! on the other side as well.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::fs::Stat;
use shared::path::RelPath;
use shared::tree::Entry;
use shared::wire::AgreedRow;

use crate::fingerprint::{ctime_ns, now_ns};
use crate::{Replica, handle, lock, volume};

/// Time stamps of file systems lag behind the clock by some milliseconds; a time of change this close to
/// the beginning of a barrier may be one after it.
const STAMP_LAG_NS: i64 = 500_000_000;
/// A clock that moved by more than this against the monotonic one was set, or the machine slept.
const CLOCK_SET: Duration = Duration::from_millis(250);

/// What a commit makes durable before it records its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// Everything that was written on the root's volume before: for rows that were found equal on both
    /// sides, which are many at a first sync.
    Tree,
    /// What the rows speak of.
    Rows,
    /// Nothing: it is durable.
    Nothing,
}

/// Up to when everything on the volume is durable. Of what was changed last before that, nothing has to
/// be made durable again: at a first sync, one barrier covers all that is given.
#[derive(Debug, Default)]
pub(crate) struct Flushed(Mutex<Option<Moment>>);

#[derive(Debug, Clone, Copy)]
struct Moment {
    at: Instant,
    wall_ns: i64,
}

impl Moment {
    fn now() -> Self {
        Self {
            at: Instant::now(),
            wall_ns: now_ns(),
        }
    }

    /// Says whether the clock that gives the files their times went on evenly since.
    fn is_comparable(self, now: Self) -> bool {
        let wall = u64::try_from(now.wall_ns - self.wall_ns).map(Duration::from_nanos);
        let even = now.at.saturating_duration_since(self.at);
        wall.is_ok_and(|wall| wall.abs_diff(even) <= CLOCK_SET)
    }
}

impl Flushed {
    /// Makes everything durable that was written on the volume of `root` before this call.
    pub(crate) fn volume(&self, root: BorrowedFd<'_>) -> io::Result<()> {
        let began = Moment::now();
        volume::sync_volume(root)?;
        *lock(&self.0) = Some(began);
        Ok(())
    }

    /// Makes the content of these files, or the entries of these directories, durable. `more` says that there
    /// are others that nobody holds open.
    pub(crate) fn all<T: AsFd>(
        &self,
        root: BorrowedFd<'_>,
        open: &[T],
        more: bool,
    ) -> io::Result<()> {
        if more || !volume::is_few(open.len()) {
            return self.volume(root);
        }
        volume::sync_each(&open.iter().map(AsFd::as_fd).collect::<Vec<_>>())
    }

    /// Says whether the thing is durable as it is here, its name aside when it was moved with a directory.
    pub(crate) fn covers(&self, stat: &Stat) -> bool {
        let changed = ctime_ns(stat);
        let moment = *lock(&self.0);
        moment.is_some_and(|moment| {
            changed < moment.wall_ns - STAMP_LAG_NS && moment.is_comparable(Moment::now())
        })
    }
}

impl Replica {
    /// Makes durable what stands, or no longer stands, at these paths.
    pub(crate) fn sync_rows(&self, rows: &[AgreedRow]) -> io::Result<()> {
        let (mut files, mut open_dirs) = (Vec::new(), Vec::new());
        let mut dirs: BTreeSet<Option<RelPath>> = BTreeSet::new();
        for (path, row) in rows {
            if !volume::worth_holding(files.len() + open_dirs.len()) {
                return self.flushed.volume(self.root.as_fd());
            }
            if let Some(Entry::File { .. }) = row.entry
                && let Ok((file, _)) = handle::open_tree_file(self.root.as_fd(), path)
            {
                files.push(file);
            }
            // Where the directory is gone as well, its own name has to be durably gone.
            let mut dir = path.parent();
            while dirs.insert(dir.clone()) {
                match handle::open_tree_dir(self.root.as_fd(), dir.as_ref()) {
                    Ok(handle) => {
                        open_dirs.push(handle);
                        break;
                    }
                    Err(_) => dir = dir.and_then(|dir| dir.parent()),
                }
            }
        }
        let mut open: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        open.extend(open_dirs.iter().map(AsFd::as_fd));
        self.flushed.all(self.root.as_fd(), &open, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_proves_nothing() {
        let start = Moment::now();
        let check = |even_ms: u64, wall_ms: i64, expected| {
            let later = Moment {
                at: start.at + Duration::from_millis(even_ms),
                wall_ns: start.wall_ns + wall_ms * 1_000_000,
            };
            assert_eq!(start.is_comparable(later), expected, "{even_ms} {wall_ms}");
        };
        check(0, 0, true);
        check(60_000, 60_000, true);
        check(60_000, 60_200, true);
        check(60_000, 59_000, false);
        check(60_000, 3_660_000, false);
        check(1_000, -1, false);
    }

    #[test]
    fn a_barrier_covers_what_was_changed_before_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("file");
        std::fs::write(&file, "x").expect("written");
        let root = std::fs::File::open(dir.path()).expect("open");
        let stat = || rustix::fs::stat(&file).expect("there");
        let flushed = Flushed::default();
        assert!(!flushed.covers(&stat()), "no barrier yet");
        flushed.volume(root.as_fd()).expect("durable");
        assert!(!flushed.covers(&stat()), "too close to be told apart");
        let mut old = stat();
        old.st_ctime -= 10;
        assert!(flushed.covers(&old));
    }
}
