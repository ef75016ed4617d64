//! Databases that programs use while they are synced.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rusqlite::{Connection, OpenFlags};

use crate::harness::{Pair, SOON, Side, assert_equal, names, wait, wait_until, wish};

const NAME: &str = "ledger.db";
const COMMITS_PER_SECOND: u64 = 50;
const SECONDS: u64 = 8;
/// Longest time that a commit may take while snapshots are made.
const COMMIT_MAX: Duration = Duration::from_secs(2);

/// A ledger in which every commit makes a state that can be told from all others, and be checked
/// without knowing what was written: the sums and the number of the commit are in it.
struct Ledger(Connection);

fn amount(number: u64) -> i64 {
    (number * 7919 % 2003) as i64 - 1000
}

fn note(number: u64) -> String {
    format!("{number:08}").repeat(1 + number as usize % 40)
}

impl Ledger {
    /// Opens it, or makes it with nothing in it.
    fn open(at: &Path, journal: &str) -> Self {
        let database = Connection::open(at).unwrap();
        database.busy_timeout(SOON).unwrap();
        database
            .execute_batch(&format!(
                "PRAGMA journal_mode = {journal};
                 BEGIN;
                 CREATE TABLE IF NOT EXISTS entry (n INTEGER PRIMARY KEY, amount INTEGER, note TEXT);
                 CREATE INDEX IF NOT EXISTS by_note ON entry (note);
                 CREATE TABLE IF NOT EXISTS state (commits INTEGER, total INTEGER);
                 INSERT INTO state SELECT 0, 0 WHERE NOT EXISTS (SELECT * FROM state);
                 COMMIT;"
            ))
            .unwrap();
        Self(database)
    }

    /// Makes one commit, in several statements.
    fn commit(&mut self, number: u64) {
        let change = self.0.transaction().unwrap();
        change
            .execute(
                "INSERT INTO entry VALUES (?1, ?2, ?3)",
                (number as i64, amount(number), note(number)),
            )
            .unwrap();
        // An old row as well, so that pages all over the file change.
        let old = 1 + number * 31 % number;
        change
            .execute(
                "UPDATE entry SET note = note || '.' WHERE n = ?1",
                [old as i64],
            )
            .unwrap();
        change
            .execute(
                "UPDATE state SET commits = ?1, total = total + ?2",
                (number as i64, amount(number)),
            )
            .unwrap();
        change.commit().unwrap();
    }
}

/// Opens a copy of the database, checks that it is whole and that it is a committed state, and returns
/// the number of its last commit.
#[track_caller]
fn check(copy: &Path) -> u64 {
    let database = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let one = |sql: &str| -> i64 { database.query_row(sql, [], |row| row.get(0)).unwrap() };
    let found: String = database
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(found, "ok");
    if one("SELECT count(*) FROM sqlite_schema") == 0 {
        // Before its tables, which came in one commit.
        return 0;
    }
    let commits = one("SELECT commits FROM state") as u64;
    let total: i64 = (1..=commits).map(amount).sum();
    assert_eq!(
        (
            one("SELECT total FROM state"),
            one("SELECT ifnull(sum(amount), 0) FROM entry"),
            one("SELECT count(*) FROM entry") as u64,
            one("SELECT ifnull(max(n), 0) FROM entry") as u64,
        ),
        (total, total, commits, commits),
        "commit {commits} is not whole"
    );
    // Every commit put one point behind a note.
    let points =
        one("SELECT ifnull(sum(length(note) - length(replace(note, '.', ''))), 0) FROM entry");
    assert_eq!(points as u64, commits);
    commits
}

/// Copies each version that stands at a path, and returns how many there were and the last commit.
struct Versions {
    at: std::path::PathBuf,
    scratch: std::path::PathBuf,
    last: Option<(u64, i64, i64)>,
    seen: BTreeMap<u64, Instant>,
}

impl Versions {
    fn of(at: std::path::PathBuf, scratch: &Path) -> Self {
        Self {
            at,
            scratch: scratch.join("version.db"),
            last: None,
            seen: BTreeMap::new(),
        }
    }

    /// Looks whether there is a new version, and checks it.
    fn poll(&mut self) {
        let Ok(mut file) = fs::File::open(&self.at) else {
            assert!(self.last.is_none(), "it is there at every moment");
            return;
        };
        let stat = file.metadata().unwrap();
        let version = (stat.ino(), stat.mtime(), stat.mtime_nsec());
        if self.last == Some(version) {
            return;
        }
        self.last = Some(version);
        let mut copy = fs::File::create(&self.scratch).unwrap();
        std::io::copy(&mut file, &mut copy).unwrap();
        let number = check(&self.scratch);
        let latest = self.seen.last_key_value().map(|(number, _)| *number);
        assert!(latest <= Some(number), "after {latest:?} came {number}");
        self.seen.entry(number).or_insert_with(Instant::now);
    }
}

fn seconds() -> u64 {
    wish("SQLITE_SECONDS").unwrap_or(SECONDS)
}

/// Writes at a steady rate until the time is over; returns the slowest commit.
fn write_steadily(
    ledger: &mut Ledger,
    done: &AtomicU64,
    made: &mut BTreeMap<u64, Instant>,
) -> Duration {
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    for number in 1..=seconds() * COMMITS_PER_SECOND {
        let due = begun + Duration::from_secs(1) * number as u32 / COMMITS_PER_SECOND as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let started = Instant::now();
        ledger.commit(number);
        slowest = slowest.max(started.elapsed());
        made.insert(number, Instant::now());
        done.store(number, Ordering::Relaxed);
    }
    slowest
}

fn is_steady(writes: Side, journal: &str) {
    let pair = Pair::running();
    let [mut source, mut replica] = pair.roots();
    if writes == Side::Receiver {
        std::mem::swap(&mut source, &mut replica);
    }
    let mut ledger = Ledger::open(&source.join(NAME), journal);
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let last = seconds() * COMMITS_PER_SECOND;
    let begun = Instant::now();
    let mut made = BTreeMap::new();
    let (slowest, versions) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut versions = Versions::of(replica.join(NAME), pair.scratch());
            while !stop.load(Ordering::Relaxed) {
                versions.poll();
                assert!(
                    names(&replica).iter().all(|name| name == NAME),
                    "{:?}",
                    names(&replica)
                );
                if versions.seen.contains_key(&last) {
                    break;
                }
                thread::sleep(Duration::from_millis(2));
            }
            versions
        });
        let slowest = write_steadily(&mut ledger, &done, &mut made);
        // The program still has it open: what it committed last arrives all the same.
        let end = Instant::now() + SOON;
        while !reader.is_finished() && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        (slowest, reader.join().unwrap())
    });
    let arrived = versions.seen.keys().next_back().copied();
    assert_eq!(
        arrived,
        Some(last),
        "the last state arrives; {} were made",
        made.len()
    );
    assert!(slowest < COMMIT_MAX, "a commit took {slowest:?}");
    let count = versions.seen.len() as u64;
    assert!(
        (2..=seconds() + 10).contains(&count),
        "{count} versions in {} s: bounded, and more than none",
        seconds()
    );
    let lags: Vec<Duration> = versions
        .seen
        .iter()
        .filter_map(|(number, seen)| Some(seen.saturating_duration_since(*made.get(number)?)))
        .collect();
    let len = fs::metadata(replica.join(NAME)).unwrap().len();
    let cpu_pct = pair.node(writes).status()["self"]["cpu_pct"].clone();
    println!(
        "{journal}: {last} commits in {:?}, the slowest in {slowest:?}; {count} versions seen, each whole and \
         committed, at most {:?} after their commit; {len} bytes in the end; \
         {cpu_pct} % of a core where it is written",
        begun.elapsed(),
        lags.iter().max().unwrap(),
    );
    // Nothing is held or waits while the program merely has it open.
    for node in pair.nodes() {
        wait_until("all is in sync", SOON, || {
            node.in_sync() && node.problems().is_empty()
        });
    }
    drop(ledger);
    is_at_rest(&source);
    wait_until("both are the same file", SOON, || {
        pair.pusher.ask(["flush"]).code == 0
            && fs::read(source.join(NAME)).unwrap() == fs::read(replica.join(NAME)).unwrap()
    });
    assert_equal(&source, &replica);
}

/// Waits until nothing lies beside the closed database, also if it was being read when it was closed.
#[track_caller]
fn is_at_rest(root: &Path) {
    wait_until("its log is gone", SOON, || names(root) == [NAME]);
}

#[test]
fn a_database_that_is_written_all_the_time_arrives_in_committed_states() {
    is_steady(Side::Pusher, "wal");
}

#[test]
fn also_one_without_a_write_ahead_log() {
    is_steady(Side::Receiver, "delete");
}

#[test]
fn a_database_open_on_the_other_side_is_held_until_it_is_closed() {
    let pair = Pair::running();
    let [source, replica] = pair.roots();
    let mut ledger = Ledger::open(&source.join(NAME), "wal");
    ledger.commit(1);
    drop(ledger);
    is_at_rest(&source);
    pair.flush();

    // Somebody reads it over there.
    let reader = Connection::open(replica.join(NAME)).unwrap();
    let commits = || -> i64 {
        reader
            .query_row("SELECT commits FROM state", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(commits(), 1);
    let mut ledger = Ledger::open(&source.join(NAME), "wal");
    ledger.commit(2);
    drop(ledger);
    is_at_rest(&source);
    let file = fs::metadata(replica.join(NAME)).unwrap().ino();
    for node in pair.nodes() {
        let problem = wait("it is held", SOON, || {
            let status = node.status();
            let problems = status["problems"].as_array().unwrap();
            problems
                .iter()
                .find(|problem| problem["path"] == NAME)
                .cloned()
        });
        assert_eq!(problem["code"], "held.database_open", "{problem}");
        let (text, fix) = (
            problem["text"].as_str().unwrap(),
            problem["fix"].as_str().unwrap(),
        );
        assert!(
            text.contains("receiver") && text.contains("open"),
            "{problem}"
        );
        assert!(fix.contains("close the program"), "{problem}");
    }
    pair.pusher.ask(["status", "--check"]).exits(4);
    // Other files go on, and the reader is not disturbed.
    crate::harness::write(&source, "note.md", "1");
    pair.arrives(Side::Receiver, "note.md", "1");
    assert_eq!(commits(), 1);
    assert_eq!(fs::metadata(replica.join(NAME)).unwrap().ino(), file);

    reader.close().unwrap();
    wait_until("it arrives when it is closed", SOON, || {
        fs::metadata(replica.join(NAME)).unwrap().ino() != file
    });
    assert_eq!(check(&replica.join(NAME)), 2);
    wait_until("nothing is held any more", SOON, || {
        pair.nodes().iter().all(|node| node.problems().is_empty())
    });
    pair.flush();
}
