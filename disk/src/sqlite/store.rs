//! The store: when a live database is copied, and how long its snapshots are kept for the givers.
//!
//! A snapshot lies in the private folder under the hash of its content. While a database's [`Print`] is the
//! same, so is its committed state, and nothing is copied. A program that writes all the time gets a
//! snapshot at a bounded rate ([`pause`]). Snapshots serve the givers, which come back for chunks of what they
//! announced; whatever nobody asked for lately goes, and is made again when it is asked for. After a
//! restart there are none.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, Stat, Timespec, Timestamps, fchmod, futimens, renameat, unlinkat};
use rustix::io::Errno;
use shared::chunk::{DatabaseHeader, HEADER_BYTES, Manifest};
use shared::hash::ContentHash;
use shared::path::RelPath;
use shared::tree::Entry;

use super::beside::{Beside, Trace, log_is_open, wal_index, wal_index_of, wal_of};
use super::locks::{InUse, TreeFile};
use super::snapshot::{NoSnapshot, copy, finish_close};
use super::{Activity, activity, header_bytes};
use crate::fingerprint::{self, Fingerprint, SeenRow, now_ns};
use crate::kept::new_id;
use crate::read::{Reader, Reading};
use crate::root::Root;
use crate::{Replica, handle, lock, utc_now};

/// How long a database may refuse to be read before that is told.
const HOLD_AFTER: Duration = Duration::from_secs(10);
/// Pause between two snapshots of a database: at first, when its program goes on writing all the time, and
/// at most. A large one is copied, sent and kept less often. The longest is the promise of the interval.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_STEADY: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(30);
const PAUSE_BYTES_PER_SECOND: u64 = 4 * 1024 * 1024;
/// How long a snapshot is kept after it was made or given, if it is not the latest.
const GIVEN_FOR: Duration = Duration::from_secs(60);
/// How long the latest one is.
const LATEST_FOR: Duration = Duration::from_secs(600);
/// Most snapshots of one database.
const SNAPSHOTS_MAX: usize = 3;

/// What tells without SQLite that the committed state of a live database is as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Print {
    file: Fingerprint,
    header: [u8; HEADER_BYTES],
    wal: Option<Trace>,
    journal: Option<Trace>,
    /// Exact where the times of files are too coarse: every commit to the log changes it, as every
    /// other changes the header.
    wal_index: Option<[u8; 48]>,
}

/// The live databases of a replica, and the snapshots that were made of them.
#[derive(Default)]
pub(crate) struct Snapshots {
    state: Mutex<State>,
    /// What a test does while a database is being read.
    #[cfg(test)]
    pub(super) meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

#[derive(Default)]
struct State {
    databases: HashMap<RelPath, Database>,
    files: HashMap<ContentHash, Snapshot>,
}

#[derive(Default)]
struct Database {
    /// What was read last, and the print that it had.
    read: Option<(Print, SeenRow)>,
    /// When it may be copied again, and how long that is after the last copy.
    next: Option<(Instant, Duration)>,
    /// Since when it cannot be read.
    refusing: Option<Instant>,
}

struct Snapshot {
    path: RelPath,
    used: Instant,
    given: bool,
}

impl Snapshots {
    /// Removes what another process left.
    pub(crate) fn clear(root: &Root) -> io::Result<()> {
        for name in handle::list(&root.snapshots)? {
            unlinkat(&root.snapshots, &*name, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Called when a database was copied, and is still open.
    #[cfg(test)]
    fn copied(&self) {
        if let Some(act) = lock(&self.meanwhile).take() {
            act();
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests act here")]
    fn copied(&self) {}

    /// Takes it that a database is at rest.
    pub(crate) fn rests(&self, path: &RelPath) {
        lock(&self.state).databases.remove(path);
    }

    /// Opens the snapshot with this content, if there is one, and keeps it for those who come back.
    pub(crate) fn open(&self, root: &Root, content: ContentHash) -> Option<(TreeFile, Stat)> {
        let mut state = lock(&self.state);
        let snapshot = state.files.get_mut(&content)?;
        snapshot.used = Instant::now();
        snapshot.given = true;
        handle::open_file(&root.snapshots, content.to_string()).ok()
    }

    /// Removes the snapshots that nobody needs.
    pub(crate) fn prune(&self, root: &Root, now: Instant) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let latest: HashMap<&RelPath, ContentHash> = state
            .databases
            .iter()
            .filter_map(|(path, database)| Some((path, database.read.as_ref()?.1.entry.identity())))
            .collect();
        let mut of_path: HashMap<&RelPath, Vec<(bool, bool, Instant, ContentHash)>> =
            HashMap::new();
        for (content, snapshot) in &state.files {
            let is_latest = latest.get(&snapshot.path) == Some(content);
            of_path.entry(&snapshot.path).or_default().push((
                is_latest,
                snapshot.given,
                snapshot.used,
                *content,
            ));
        }
        let mut unneeded = Vec::new();
        for mut snapshots in of_path.into_values() {
            // The latest, then those that were given, then by time.
            snapshots.sort_unstable_by(|a, b| b.cmp(a));
            for (rank, (is_latest, _, used, content)) in snapshots.into_iter().enumerate() {
                let age_max = if is_latest { LATEST_FOR } else { GIVEN_FOR };
                if rank >= SNAPSHOTS_MAX || now.saturating_duration_since(used) > age_max {
                    unneeded.push(content);
                }
            }
        }
        for content in unneeded {
            state.files.remove(&content);
            discard(root, &content.to_string());
        }
    }
}

#[cfg(test)]
impl Snapshots {
    /// Lets a database be copied again at once.
    pub(super) fn end_pause(&self, path: &RelPath) {
        if let Some(database) = lock(&self.state).databases.get_mut(path) {
            database.next = None;
        }
    }

    /// Lets a database that refuses to be read have done so for a while.
    pub(super) fn refused_long_ago(&self, path: &RelPath) {
        if let Some(database) = lock(&self.state).databases.get_mut(path) {
            database.refusing = Instant::now().checked_sub(HOLD_AFTER);
        }
    }
}

/// Returns how long after a snapshot the next one of the same database may be made. `begun` is when this
/// one was, and `before` what was said the last time.
fn pause(
    begun: Instant,
    took: Duration,
    len: u64,
    before: Option<(Instant, Duration)>,
) -> Duration {
    let steady = before.filter(|(next, _)| begun.saturating_duration_since(*next) < PAUSE_STEADY);
    let by_habit = steady.map_or(PAUSE_MIN, |(_, pause)| (pause * 2).min(PAUSE_STEADY));
    let by_len = Duration::from_secs(len / PAUSE_BYTES_PER_SECOND);
    by_habit.max(by_len).max(took * 9).min(PAUSE_MAX)
}

impl Replica {
    /// Looks at a file that is a database and does not rest: returns what its committed state is.
    ///
    /// # Errors
    /// Those of looking at the file. A database that cannot be read is [`Reading::Unstable`], and after a
    /// while [`Reading::Refused`].
    pub(crate) fn see_database(
        &self,
        dir: impl AsFd,
        path: &RelPath,
        stop: &AtomicBool,
    ) -> Result<Reading, Errno> {
        self.read_database(dir, path, stop, true)
    }

    /// Makes the snapshot of a path again that somebody asks for. Whether it has the content that is
    /// asked for, [`Snapshots::open`] tells.
    pub(crate) fn renew_snapshot(&self, path: &RelPath) {
        let Ok(dir) = handle::open_parent(self.root.as_fd(), path) else {
            return;
        };
        let never = AtomicBool::new(false);
        if let Err(error) = self.read_database(&dir, path, &never, false) {
            tracing::debug!(%path, %error, "a snapshot that was asked for could not be made");
        }
    }

    fn read_database(
        &self,
        dir: impl AsFd,
        path: &RelPath,
        stop: &AtomicBool,
        is_look: bool,
    ) -> Result<Reading, Errno> {
        let (now, begun) = (now_ns(), Instant::now());
        let (file, stat) = handle::open_file(&dir, path.name())?;
        let Some(header) = header_bytes(&file, &stat) else {
            return Ok(Reading::Unstable);
        };
        drop(file);
        let parsed = DatabaseHeader::parse(&header).ok_or(Errno::INVAL)?;
        if activity(&dir, path.name(), parsed, &stat, now)? != Activity::Live {
            return Ok(Reading::Unstable);
        }
        // From here on, since even a look at the index of the log drops the locks on it.
        let Some(mut in_use) = InUse::claim(&stat) else {
            return Ok(Reading::Unstable);
        };
        if let Some(index) = handle::stat_at(&dir, wal_index_of(path.name()))? {
            in_use.claim_also(&index);
        }
        let beside = Beside::of(&dir, path.name())?;
        let print = Print {
            file: Fingerprint::of(&stat, self.root.device),
            header,
            wal: beside.wal,
            journal: beside.journal,
            wal_index: wal_index(&dir, path.name()),
        };
        if is_look {
            let state = lock(&self.snapshots.state);
            let known = state.databases.get(path);
            match known.and_then(|database| database.read.as_ref()) {
                Some((before, row)) if *before == print => {
                    return Ok(Reading::Read(row.clone(), None));
                }
                _ => {}
            }
            if known
                .and_then(|database| database.next)
                .is_some_and(|(next, _)| begun < next)
            {
                return Ok(Reading::Unstable);
            }
        }
        let made = self.make_snapshot(&dir, path, &stat, stop);
        drop(in_use);
        let mut state = lock(&self.snapshots.state);
        let database = state.databases.entry(path.clone()).or_default();
        let (row, manifest) = match made {
            Ok((entry, manifest)) => {
                let print = print.file;
                // The fingerprint of the file alone says nothing about a live database.
                let racy = true;
                (SeenRow { entry, print, racy }, manifest)
            }
            Err(NoSnapshot::Stopped) => return Ok(Reading::Stopped),
            Err(reason) => {
                let since = *database.refusing.get_or_insert(begun);
                if begun.duration_since(since) < HOLD_AFTER {
                    tracing::debug!(%path, %reason, "a database cannot be read now");
                    return Ok(Reading::Unstable);
                }
                tracing::warn!(%path, %reason, "a database cannot be read");
                return Ok(Reading::Refused);
            }
        };
        let (end, len) = (Instant::now(), row.entry.len());
        database.refusing = None;
        let pause = pause(begun, end - begun, len, database.next);
        database.next = Some((end + pause, pause));
        database.read = Some((print, row.clone()));
        let snapshot = Snapshot {
            path: path.clone(),
            used: end,
            given: !is_look,
        };
        state.files.insert(row.entry.identity(), snapshot);
        drop(state);
        self.snapshots.prune(&self.root, end);
        tracing::debug!(%path, len, took = ?(end - begun), "snapshot of a live database");
        Ok(Reading::Read(row, manifest))
    }

    /// Copies a committed state into the store, under the hash of its content.
    pub(super) fn make_snapshot(
        &self,
        dir: impl AsFd,
        path: &RelPath,
        stat: &Stat,
        stop: &AtomicBool,
    ) -> Result<(Entry, Option<Manifest>), NoSnapshot> {
        let folder = &self.root.snapshots;
        let name = format!("{}.new", new_id(utc_now()));
        let mut file = handle::create_file(folder, &name).map_err(io::Error::from)?;
        let made = (|| {
            let from = self.root.path.join(path.as_str());
            let to = self.root.private_path(crate::root::SNAPSHOTS).join(&name);
            let log = || handle::stat_at(&dir, wal_of(path.name())).ok().flatten();
            let (was_open, had_log) = (log_is_open(&dir, path.name()), log().is_some());
            copy(&from, &to, &file, stop, || self.snapshots.copied())?;
            if !is_still_there(dir.as_fd(), path.name(), &from, stat) {
                return Err(NoSnapshot::Locked);
            }
            // An empty one is there because the last program closed it just before it was opened here; one that
            // was not there before, because a program opened it and closed it meanwhile.
            let is_left =
                log().is_some_and(|wal| was_open || !had_log || fingerprint::len(&wal) == 0);
            if is_left && !log_is_open(&dir, path.name()) {
                finish_close(&from)?;
            }
            io::Seek::rewind(&mut file)?;
            let content = Reader::default()
                .content(&mut file, u64::MAX, Some(stop))?
                .ok_or(NoSnapshot::Stopped)?;
            self.dress_snapshot(&file, &dir, path.name(), stat)
                .map_err(io::Error::from)?;
            renameat(folder, &name, folder, content.hash.to_string()).map_err(io::Error::from)?;
            let entry = Entry::File {
                content: content.hash,
                len: content.len,
                exec: fingerprint::is_exec(stat),
            };
            Ok((entry, content.manifest))
        })();
        if made.is_err() {
            discard(&self.root, &name);
        }
        made
    }

    /// Gives a snapshot the exec bit of its database and the time of the last change to it.
    fn dress_snapshot(
        &self,
        file: &File,
        dir: impl AsFd,
        name: &str,
        stat: &Stat,
    ) -> Result<(), Errno> {
        let mode = fingerprint::with_exec(0o600, fingerprint::is_exec(stat));
        fchmod(file, Mode::from_raw_mode(mode as _))?;
        let wal = handle::stat_at(dir, wal_of(name))?;
        let changed = wal.as_ref().map_or(0, fingerprint::mtime_ns);
        let mtime_ns = fingerprint::mtime_ns(stat).max(changed);
        let time = Timespec {
            tv_sec: mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: mtime_ns.rem_euclid(1_000_000_000) as _,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        futimens(file, &times)
    }
}

/// Says whether the path that SQLite went still leads to the file that was reached by handles.
fn is_still_there(dir: impl AsFd, name: &str, path: &Path, stat: &Stat) -> bool {
    let is_it = |found: &Stat| {
        fingerprint::inode(found) == fingerprint::inode(stat)
            && fingerprint::device(found) == fingerprint::device(stat)
    };
    handle::stat_at(dir, name).is_ok_and(|found| found.as_ref().is_some_and(is_it))
        && rustix::fs::lstat(path).as_ref().is_ok_and(is_it)
}

fn discard(root: &Root, name: &str) {
    if let Err(error) = unlinkat(&root.snapshots, name, AtFlags::empty()) {
        tracing::warn!(name, %error, "a snapshot could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_all_the_time_is_read_less_often() {
        let begun = Instant::now() + Duration::from_secs(1000);
        let check = |took_ms, len: u64, before: Option<(u64, u64)>, seconds: u64| {
            let before = before
                .map(|(ago, pause)| (begun - Duration::from_secs(ago), Duration::from_secs(pause)));
            let found = pause(begun, Duration::from_millis(took_ms), len, before);
            assert_eq!(
                found,
                Duration::from_secs(seconds),
                "{took_ms} {len} {before:?}"
            );
        };
        check(5, 100_000, None, 1);
        check(5, 100_000, Some((0, 1)), 2);
        check(5, 100_000, Some((1, 4)), 8);
        check(5, 100_000, Some((1, 8)), 10);
        check(5, 100_000, Some((1, 10)), 10);
        // It rested for a while.
        check(5, 100_000, Some((10, 10)), 1);
        check(1000, 100_000, None, 9);
        check(5, 64 << 20, None, 16);
        check(5, 1 << 30, None, 30);
        check(60_000, 1 << 30, Some((0, 30)), 30);
    }
}
