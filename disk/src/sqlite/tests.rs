//! Real databases, written by another process: SQLite's locks are between processes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rusqlite::{Connection, OpenFlags};
use shared::transfer::{Op, Outcome, TroubleKind};
use shared::tree::Entry;

use crate::lock;
use crate::tests::{Bench, carry, file, noise, op, path};

/// Names the database that this process works on, when it is the other one.
const DATABASE: &str = "LAYER_SYNC_TEST_DATABASE";
const WAL: &str = "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;";
const TABLE: &str = "CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT);";

/// A program that has a database open.
struct Program {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts one, which opens the database at a name.
    fn open(bench: &Bench, name: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "sqlite::tests::another_program",
                "--ignored",
                "--nocapture",
            ])
            .env(DATABASE, bench.at(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().expect("its output"));
        Self {
            process,
            input,
            output,
        }
    }

    /// Has it carry out statements, and waits until it has.
    #[track_caller]
    fn does(&mut self, sql: &str) {
        writeln!(self.input.as_mut().expect("it runs"), "{sql}").expect("it listens");
        assert_eq!(self.answer(), "done", "{sql}");
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(
                self.output.read_line(&mut line).expect("its answer"),
                0,
                "it ended"
            );
            // The test runner talks as well.
            if let Some(answer) = line.trim().strip_prefix("answer: ") {
                return answer.to_owned();
            }
        }
    }

    /// Ends it as a program ends.
    fn close(mut self) {
        self.input = None;
        assert!(self.process.wait().expect("it ends").success());
    }

    /// Ends it as a crash does.
    fn kill(mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("it ends");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
#[ignore = "the other tests run it, as a second process"]
fn another_program() {
    let Some(name) = std::env::var_os(DATABASE) else {
        return;
    };
    let database = Connection::open(name).expect("it opens");
    database
        .busy_timeout(std::time::Duration::from_millis(50))
        .expect("set");
    for line in std::io::stdin().lines() {
        let done = database.execute_batch(&line.expect("a line"));
        let answer = done.map_or_else(|error| error.to_string(), |()| "done".to_owned());
        println!("\nanswer: {answer}");
    }
}

/// Returns what was seen at a path.
fn seen(bench: &Bench, name: &str) -> Entry {
    let seen = lock(&bench.replica.seen);
    seen.row(&path(name)).expect("it was seen").entry.clone()
}

/// Has the content of a path given, and returns it.
fn given(bench: &Bench, name: &str) -> Vec<u8> {
    let mut other = Bench::new();
    let entry = seen(bench, name);
    let batch = other.batch(vec![op(name, None, Some(entry))]);
    let mut taking = other.replica.take(&batch);
    carry(&bench.replica, &mut taking, &batch);
    other
        .replica
        .apply(&batch, taking.finish(), shared::tree::Gen(0))
        .expect("recorded");
    assert_eq!(other.outcomes(), [Outcome::Done]);
    fs::read(other.at(name)).expect("it is there")
}

/// Opens a content as a database, checks that it is whole, and returns the rows of its table.
#[track_caller]
fn rows(content: &[u8]) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path().join("x");
    fs::write(&at, content).expect("written");
    let database =
        Connection::open_with_flags(&at, OpenFlags::SQLITE_OPEN_READ_WRITE).expect("it opens");
    let check: String = database
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("checked");
    assert_eq!(check, "ok");
    let mut select = database
        .prepare("SELECT text FROM t ORDER BY n")
        .expect("a table");
    let rows = select.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

/// Lets the pause between two snapshots be over.
fn rested(bench: &Bench, name: &str) {
    bench.replica.snapshots.end_pause(&path(name));
}

fn observe(bench: &Bench) -> Vec<String> {
    bench.look();
    bench.observed()
}

#[test]
fn commits_in_the_log_are_seen_and_given() {
    let bench = Bench::new();
    let mut program = Program::open(&bench, "x");
    program.does(&format!("{WAL} {TABLE} INSERT INTO t VALUES (1, 'one')"));
    assert_eq!(
        observe(&bench).len(),
        1,
        "the database, and nothing beside it"
    );
    assert_eq!(rows(&given(&bench, "x")), ["one"]);

    let file_before = fs::read(bench.at("x")).expect("read");
    program.does("INSERT INTO t VALUES (2, 'two')");
    assert_eq!(
        fs::read(bench.at("x")).expect("read"),
        file_before,
        "only the log changed"
    );
    rested(&bench, "x");
    assert_eq!(observe(&bench).len(), 1);
    assert_eq!(rows(&given(&bench, "x")), ["one", "two"]);

    // What is not committed is not there.
    program.does("BEGIN; INSERT INTO t VALUES (3, 'three')");
    rested(&bench, "x");
    assert_eq!(observe(&bench), [""; 0]);
    assert_eq!(rows(&given(&bench, "x")), ["one", "two"]);
    program.does("COMMIT");
    rested(&bench, "x");
    assert_eq!(observe(&bench).len(), 1);
    assert_eq!(rows(&given(&bench, "x")), ["one", "two", "three"]);
    assert_eq!(bench.kept(), [""; 0]);
}

#[test]
fn an_unchanged_database_costs_no_snapshot() {
    let bench = Bench::new();
    let mut program = Program::open(&bench, "x");
    program.does(&format!("{WAL} {TABLE} INSERT INTO t VALUES (1, 'one')"));
    bench.look();
    let before = bench.private("snapshots");
    assert_eq!(before.len(), 1);
    let inode = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        let at = bench.at(".layer-sync/snapshots").join(name);
        fs::metadata(at).expect("there").ino()
    };
    let made = inode(&before[0]);
    for _ in 0..3 {
        rested(&bench, "x");
        bench.look();
        bench.look_at(&["x-wal", "x", "x-shm"]);
    }
    assert_eq!(
        (bench.private("snapshots"), inode(&before[0])),
        (before, made)
    );
}

#[test]
fn the_same_state_is_the_same_bytes_live_and_at_rest() {
    for mode in [
        WAL,
        "PRAGMA journal_mode = DELETE;",
        "PRAGMA journal_mode = PERSIST;",
    ] {
        let bench = Bench::new();
        let mut program = Program::open(&bench, "x");
        program.does(&format!("{mode} {TABLE} PRAGMA user_version = 7;"));
        for n in 0..20 {
            program.does(&format!(
                "INSERT INTO t VALUES ({n}, hex(randomblob(2000)))"
            ));
        }
        bench.look();
        let live = given(&bench, "x");
        assert_eq!(live.len() as u64, seen(&bench, "x").len());
        program.close();
        bench.observed();
        assert!(!bench.at("x-wal").exists(), "the program took its log away");
        settle();
        assert_eq!(observe(&bench), [""; 0], "{mode}");
        assert_eq!(fs::read(bench.at("x")).expect("read"), live, "{mode}");
    }
}

/// Waits until what was written before counts as settled.
fn settle() {
    std::thread::sleep(std::time::Duration::from_nanos(2 * super::SETTLED_NS));
}

#[test]
fn reading_leaves_everything_as_it_is() {
    let bench = Bench::new();
    let mut program = Program::open(&bench, "x");
    program.does(&format!("{WAL} {TABLE} INSERT INTO t VALUES (1, 'one')"));
    program.kill();
    let state = || ["x", "x-wal"].map(|name| fs::read(bench.at(name)).expect("it is there"));
    // Nobody else has it open, so the last to close it would be us.
    fs::remove_file(bench.at("x-shm")).expect("removed");
    let before = state();
    bench.look();
    assert_eq!(rows(&given(&bench, "x")), ["one"]);
    assert_eq!(state(), before);
    rested(&bench, "x");
    bench.look();
    assert_eq!(state(), before);
    // And its program finds all that it left.
    let mut program = Program::open(&bench, "x");
    program.does("INSERT INTO t VALUES (2, 'two')");
    program.close();
    assert_eq!(
        rows(&fs::read(bench.at("x")).expect("read")),
        ["one", "two"]
    );
}

#[test]
fn other_looks_drop_no_lock_of_the_one_that_reads() {
    let bench = Bench::new();
    let mut program = Program::open(&bench, "x");
    program.does(&format!("{WAL} {TABLE} INSERT INTO t VALUES (1, 'one')"));
    let replica = bench.replica.clone();
    let (wal, truncated) = (
        bench.at("x-wal"),
        std::sync::Arc::new(std::sync::Mutex::new(None)),
    );
    let told = truncated.clone();
    *lock(&bench.replica.snapshots.meanwhile) = Some(Box::new(move || {
        let names = ["x", "x-wal", "x-shm"].map(path).to_vec();
        for what in [crate::Look::All, crate::Look::Paths(names)] {
            replica
                .look(&what, &std::sync::atomic::AtomicBool::new(false))
                .expect("a look");
        }
        // It waits for readers, in vain: taking the log away would take their state away.
        program.does("PRAGMA wal_checkpoint(TRUNCATE)");
        *lock(&told) = Some(fs::metadata(&wal).expect("the log").len() == 0);
        program.close();
    }));
    bench.look();
    assert_eq!(*lock(&truncated), Some(false));
    assert_eq!(rows(&given(&bench, "x")), ["one"]);
}

#[test]
fn a_program_that_closes_it_meanwhile_leaves_no_log() {
    let bench = Bench::new();
    let mut program = Program::open(&bench, "x");
    program.does(&format!("{WAL} {TABLE} INSERT INTO t VALUES (1, 'one')"));
    *lock(&bench.replica.snapshots.meanwhile) = Some(Box::new(|| program.close()));
    bench.look();
    assert!(
        lock(&bench.replica.snapshots.meanwhile).is_none(),
        "it was closed"
    );
    let live = given(&bench, "x");
    assert!(!bench.at("x-wal").exists() && !bench.at("x-shm").exists());
    assert_eq!(fs::read(bench.at("x")).expect("read"), live);
    bench.observed();
    settle();
    assert_eq!(observe(&bench), [""; 0], "at rest it is what it was");
}

#[test]
fn a_program_that_opens_and_closes_it_meanwhile_leaves_no_log() {
    let bench = Bench::new();
    let mut program = Program::open(&bench, "x");
    program.does(&format!("{WAL} {TABLE} INSERT INTO t VALUES (1, 'one')"));
    program.close();
    assert!(!bench.at("x-wal").exists());
    let mut program = Program::open(&bench, "x");
    *lock(&bench.replica.snapshots.meanwhile) = Some(Box::new(move || {
        program.does("INSERT INTO t VALUES (2, 'two')");
        program.close();
    }));
    let dir = &bench.replica.root;
    let stat = crate::handle::stat_at(dir, "x").expect("it can be asked");
    bench
        .replica
        .make_snapshot(dir, &path("x"), &stat.expect("it is there"), &false.into())
        .expect("a snapshot");
    assert!(!bench.at("x-wal").exists() && !bench.at("x-shm").exists());
    assert_eq!(
        rows(&fs::read(bench.at("x")).expect("read")),
        ["one", "two"]
    );
}

#[test]
fn a_writer_that_rolls_back_is_read_between_its_transactions() {
    let bench = Bench::new();
    let mut program = Program::open(&bench, "x");
    program.does(&format!(
        "PRAGMA cache_size = 5; {TABLE} INSERT INTO t VALUES (1, 'one')"
    ));
    // A transaction so large that it spills into the file: nobody else may read then.
    program.does("BEGIN; CREATE TABLE big AS WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 500) SELECT n, randomblob(1000) b FROM c");
    let looked = bench.look();
    assert_eq!((looked.again, bench.observed()), (vec![path("x")], vec![]));
    program.does("ROLLBACK");
    bench.look();
    assert_eq!(rows(&given(&bench, "x")), ["one"]);
}

#[test]
fn an_interrupted_change_is_held_and_never_read() {
    let bench = Bench::new();
    let mut program = Program::open(&bench, "x");
    program.does(&format!(
        "PRAGMA cache_size = 5; {TABLE} INSERT INTO t VALUES (1, 'one')"
    ));
    settle();
    bench.look();
    bench.observed();
    program.does("BEGIN; CREATE TABLE big AS WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 500) SELECT n, randomblob(1000) b FROM c");
    program.kill();
    let state = || ["x", "x-journal"].map(|name| fs::read(bench.at(name)).expect("it is there"));
    let before = state();
    let looked = bench.look();
    assert_eq!((looked.again, bench.observed()), (vec![path("x")], vec![]));
    bench.replica.snapshots.refused_long_ago(&path("x"));
    bench.look();
    assert_eq!(bench.observed(), ["x Database"]);
    assert_eq!(state(), before, "rolling back is for its program");
    let mut program = Program::open(&bench, "x");
    program.does("SELECT count(*) FROM t");
    program.close();
    settle();
    bench.look();
    assert_eq!(
        bench.observed(),
        [format!(
            "x file {}",
            fs::metadata(bench.at("x")).expect("there").len()
        )]
    );
    assert_eq!(rows(&given(&bench, "x")), ["one"]);
}

#[test]
fn what_lies_beside_a_database_is_not_of_the_tree() {
    let bench = Bench::new();
    let mut program = Program::open(&bench, "x");
    program.does(&format!("{WAL} {TABLE}"));
    for ordinary in [
        "y-wal",
        "y-shm",
        "y-journal",
        "-wal",
        "empty",
        "empty-journal",
        "text",
        "text-journal",
    ] {
        bench.write(
            ordinary,
            if ordinary == "empty" {
                ""
            } else {
                "an ordinary file"
            },
        );
    }
    let mut other = Bench::new();
    let ops = ["empty", "empty-journal"].map(|name| {
        let content = fs::read(bench.at(name)).expect("read");
        op(name, None, file(content))
    });
    assert_eq!(
        other.apply(ops.to_vec(), &[b"", b"an ordinary file"]),
        [Outcome::Done, Outcome::Done]
    );
    let told: Vec<String> = observe(&bench)
        .iter()
        .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        told,
        [
            "-wal",
            "empty",
            "empty-journal",
            "text",
            "text-journal",
            "x",
            "y-journal",
            "y-shm",
            "y-wal"
        ]
    );
    // A database that is made where ordinary files of such names are: they stay, and are not taken for
    // deleted.
    let mut program = Program::open(&bench, "y");
    fs::remove_file(bench.at("y-wal")).expect("removed");
    fs::remove_file(bench.at("y-shm")).expect("removed");
    program.does(&format!("{WAL} {TABLE}"));
    let told = observe(&bench);
    assert!(
        told.contains(&"y-wal Ignored".to_owned()) && told.contains(&"y-shm Ignored".to_owned()),
        "{told:?}"
    );
}

#[test]
fn snapshots_do_not_pile_up() {
    let bench = Bench::new();
    let mut program = Program::open(&bench, "x");
    program.does(&format!("{WAL} {TABLE}"));
    for n in 0..10 {
        program.does(&format!("INSERT INTO t VALUES ({n}, 'text')"));
        rested(&bench, "x");
        bench.look();
        given(&bench, "x");
        assert!(
            bench.private("snapshots").len() <= 3,
            "{:?}",
            bench.private("snapshots")
        );
    }
    // One that was announced is still there for the chunks when the next has been made.
    let announced = seen(&bench, "x");
    program.does("INSERT INTO t VALUES (100, 'text')");
    rested(&bench, "x");
    bench.look();
    assert!(
        bench
            .replica
            .snapshots
            .open(&bench.replica.root, announced.identity())
            .is_some()
    );
    let bench = bench.reopen();
    assert_eq!(bench.private("snapshots"), [""; 0]);
    // Asked for again, it is made again.
    let entry = seen(&bench, "x");
    assert_eq!(given(&bench, "x").len() as u64, entry.len());
}

#[test]
fn a_steady_writer_is_read_at_a_bounded_rate() {
    let bench = Bench::new();
    let mut program = Program::open(&bench, "x");
    program.does(&format!("{WAL} {TABLE}"));
    bench.look();
    bench.observed();
    program.does("INSERT INTO t VALUES (1, 'one')");
    let looked = bench.look_at(&["x-wal"]);
    assert_eq!((looked.again, bench.observed()), (vec![path("x")], vec![]));
    rested(&bench, "x");
    bench.look_at(&["x-wal"]);
    assert_eq!(bench.observed().len(), 1);
}

/// Makes a database at rest and returns its content.
fn at_rest(bench: &Bench, name: &str, text: &str) -> Vec<u8> {
    let database = Connection::open(bench.at(name)).expect("it opens");
    database
        .execute_batch(&format!("{WAL} {TABLE} INSERT INTO t VALUES (1, '{text}')"))
        .expect("written");
    database.close().expect("closed");
    settle();
    fs::read(bench.at(name)).expect("read")
}

fn replaces(old: &[u8], new: Option<&[u8]>) -> Op {
    op("x", file(old), new.and_then(file))
}

#[track_caller]
fn held(outcomes: &[Outcome]) -> &str {
    match outcomes {
        [Outcome::Held(trouble)] if trouble.kind == TroubleKind::DatabaseOpen => &trouble.text,
        other => panic!("not held: {other:?}"),
    }
}

#[test]
fn a_database_in_use_is_not_replaced_until_it_is_closed() {
    for (mode, change) in [
        (WAL, ""),
        (WAL, "INSERT INTO t VALUES (2, 'two')"),
        ("PRAGMA journal_mode = DELETE;", "BEGIN; SELECT * FROM t"),
    ] {
        let mut bench = Bench::new();
        let new = at_rest(&bench, "y", "new");
        let old = at_rest(&bench, "x", "old");
        let mut program = Program::open(&bench, "x");
        program.does(&format!("{mode} SELECT * FROM t"));
        program.does("PRAGMA user_version = 1");
        settle();
        bench.look();
        // Also if the plan knows of all that was committed.
        let expect = Some(seen(&bench, "x"));
        program.does(&format!("{change}; SELECT 1"));
        for make in [file(&new), file("no database"), None] {
            let outcomes =
                bench.apply(vec![op("x", expect.clone(), make)], &[&new, b"no database"]);
            let text = held(&outcomes);
            assert!(
                text.contains("\"x\"") && text.contains("close the program"),
                "{text}"
            );
        }
        assert_eq!(bench.private("stage"), [""; 0]);
        assert_eq!(bench.kept(), [""; 0]);
        program.does("INSERT INTO t VALUES (3, 'three')");
        if change.starts_with("BEGIN") {
            program.does("COMMIT");
        }
        program.close();
        settle();
        bench.look();
        let now = fs::read(bench.at("x")).expect("read");
        assert_ne!(now, old);
        assert_eq!(
            bench.apply(vec![replaces(&now, Some(&new))], &[&new]),
            [Outcome::Done]
        );
        assert_eq!(rows(&fs::read(bench.at("x")).expect("read")), ["new"]);
    }
}

#[test]
fn a_database_whose_program_died_is_held() {
    let mut bench = Bench::new();
    let new = at_rest(&bench, "y", "new");
    let mut program = Program::open(&bench, "x");
    program.does(&format!("{WAL} {TABLE} INSERT INTO t VALUES (1, 'one')"));
    program.kill();
    bench.look();
    let expect = Some(seen(&bench, "x"));
    let outcomes = bench.apply(vec![op("x", expect, file(&new))], &[&new]);
    assert!(held(&outcomes).contains("\"x-wal\""), "{outcomes:?}");
}

#[test]
fn what_was_left_beside_never_meets_another_database() {
    let mut bench = Bench::new();
    let new = at_rest(&bench, "y", "new");
    // A log without its database is an ordinary file; beside a new database it would be its log.
    let mut program = Program::open(&bench, "x");
    program.does(&format!("{WAL} {TABLE} INSERT INTO t VALUES (1, 'one')"));
    program.kill();
    fs::remove_file(bench.at("x")).expect("removed");
    fs::remove_file(bench.at("x-shm")).expect("removed");
    bench.look();
    let outcomes = bench.apply(vec![op("x", None, file(&new))], &[&new]);
    assert!(held(&outcomes).contains("\"x-wal\""), "{outcomes:?}");
    fs::rename(bench.at("x-wal"), bench.at("elsewhere")).expect("moved");
    assert_eq!(
        bench.apply(vec![op("x", None, file(&new))], &[&new]),
        [Outcome::Done]
    );
    // And the other way round.
    let outcomes = bench.apply(vec![op("x-wal", None, file("a log"))], &[b"a log"]);
    assert!(
        held(&outcomes).contains("belongs to the database \"x\""),
        "{outcomes:?}"
    );
    assert_eq!(rows(&fs::read(bench.at("x")).expect("read")), ["new"]);
}

#[test]
fn a_deleted_database_takes_what_was_beside_it_along() {
    let mut bench = Bench::new();
    let old = at_rest(&bench, "x", "old");
    for spent in ["x-wal", "x-shm", "x-journal"] {
        bench.write(spent, "");
    }
    bench.look();
    bench.observed();
    assert_eq!(
        bench.apply(vec![replaces(&old, None)], &[]),
        [Outcome::Done]
    );
    assert_eq!(observe(&bench), [""; 0]);
    let names: Vec<_> = fs::read_dir(bench.root()).expect("listed").collect();
    assert_eq!(names.len(), 1, "only the private folder: {names:?}");
    assert_eq!(bench.private("kept").len(), 1);
}

#[test]
fn no_program_can_begin_to_use_it_while_it_is_exchanged() {
    let mut bench = Bench::new();
    let (old, new) = (at_rest(&bench, "x", "old"), at_rest(&bench, "y", "new"));
    bench.look();
    let at = bench.at("x");
    let answers = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = answers.clone();
    let mut other = Program::open(&bench, "x");
    bench.hook(move |step| {
        if step == crate::apply::Step::Exchange || step == crate::apply::Step::CameOut {
            // A reader in this process must not drop the lock by closing its handle.
            let dir = crate::handle::open_dir(rustix::fs::CWD, at.parent().expect("a folder"));
            drop(crate::handle::open_file(dir.expect("open"), "x").expect("open"));
        }
        if step == crate::apply::Step::Exchange {
            let input = other.input.as_mut().expect("it runs");
            writeln!(input, "INSERT INTO t VALUES (2, 'two')").expect("it listens");
            lock(&told).push(other.answer());
        }
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(
        bench.apply(vec![replaces(&old, Some(&new))], &[&new]),
        [Outcome::Done]
    );
    bench.unhook();
    assert_eq!(*lock(&answers), ["database is locked"]);
    assert_eq!(rows(&fs::read(bench.at("x")).expect("read")), ["new"]);
}

#[test]
fn a_handle_that_is_closed_drops_no_lock_of_ours() {
    use rustix::fs::{FlockOperation, fcntl_lock};
    let bench = Bench::new();
    bench.write("x", "text");
    let dir = crate::handle::open_dir(rustix::fs::CWD, bench.root()).expect("open");
    let (reader, stat) = crate::handle::open_file(&dir, "x").expect("open");
    let in_use = super::locks::InUse::claim(&stat).expect("nobody has it");
    assert!(super::locks::InUse::claim(&stat).is_none());
    let locked = fs::File::options()
        .write(true)
        .open(bench.at("x"))
        .expect("open");
    fcntl_lock(&locked, FlockOperation::NonBlockingLockExclusive).expect("locked");
    drop(reader);
    let held_in = |pid: u32| {
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let of_file = format!(":{} ", crate::fingerprint::inode(&stat));
        locks
            .lines()
            .any(|line| line.contains(&of_file) && line.contains(&format!(" {pid} ")))
    };
    if cfg!(target_os = "linux") {
        assert!(held_in(std::process::id()), "the lock is there");
    }
    drop(in_use);
    if cfg!(target_os = "linux") {
        assert!(!held_in(std::process::id()), "the handle is closed now");
    }
}

/// Carries what stands at "x" to another replica and puts it there; returns the frames' bytes: of the
/// lists of chunks, and of the chunks.
fn moves(giver: &Bench, taker: &mut Bench) -> (usize, usize) {
    use shared::transfer::{Item, Part};
    use shared::wire::Frame;
    let there = {
        let seen = lock(&taker.replica.seen);
        seen.row(&path("x")).map(|row| row.entry.clone())
    };
    let entry = seen(giver, "x");
    let batch = taker.batch(vec![op("x", there, Some(entry.clone()))]);
    let item = Item {
        index: 0,
        path: path("x"),
        entry,
        base: None,
    };
    let mut taking = taker.replica.take(&batch);
    let (mut lists, mut chunks, mut parts) = (0, 0, Vec::<Part>::new());
    let mut give = |part| {
        parts.push(part);
        Ok(())
    };
    giver.replica.give(&[item], &mut give).expect("given");
    for part in parts {
        lists += Frame::Part(part.clone()).encode().len();
        for need in taking.part(part).expect("an honest part") {
            let mut take = |run: Option<shared::transfer::ChunkRun>| {
                let run = run.expect("it is there");
                chunks += Frame::ChunkRun(run.clone()).encode().len();
                taking.chunks(0, run).expect("an honest run");
                Ok(())
            };
            giver
                .replica
                .give_chunks(&need.item, &need.runs, &need.olds, &mut take)
                .expect("given");
        }
    }
    taker
        .replica
        .apply(&batch, taking.finish(), shared::tree::Gen(0))
        .expect("recorded");
    assert_eq!(taker.outcomes(), [Outcome::Done]);
    (lists, chunks)
}

#[test]
fn one_changed_row_in_64_mib() {
    let (bench, mut other) = (Bench::new(), Bench::new());
    let mut program = Program::open(&bench, "x");
    program.does(&format!("{WAL} {TABLE} INSERT INTO t WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 65500) SELECT n, hex(randomblob(500)) FROM c"));
    bench.look();
    let whole = moves(&bench, &mut other);
    program.does("UPDATE t SET text = hex(randomblob(500)) WHERE n = 30000");
    rested(&bench, "x");
    bench.look();
    let (lists, chunks) = moves(&bench, &mut other);
    let len = seen(&bench, "x").len();
    println!(
        "of {len} bytes: {whole:?} bytes of lists and chunks at first, {lists} and {chunks} for one row"
    );
    assert!(
        len > 64 << 20 && chunks <= 2 * (16 * 1024 + 64),
        "{chunks} bytes of {len}"
    );
    assert_eq!(fs::read(other.at("x")).expect("read").len() as u64, len);
}

#[test]
fn one_changed_row_moves_one_chunk() {
    let bench = Bench::new();
    let mut program = Program::open(&bench, "x");
    program.does(&format!("{WAL} {TABLE} INSERT INTO t WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 4000) SELECT n, hex(randomblob(500)) FROM c"));
    bench.look();
    let (before, old) = (seen(&bench, "x"), given(&bench, "x"));
    program.does("UPDATE t SET text = hex(randomblob(500)) WHERE n = 2000");
    rested(&bench, "x");
    bench.look();
    let after = seen(&bench, "x");
    let chunks = |entry: &Entry| {
        bench
            .replica
            .index
            .manifest(entry.identity())
            .expect("a list")
            .chunks
    };
    let (was, is) = (chunks(&before), chunks(&after));
    let changed = was.iter().zip(&is).filter(|(a, b)| a != b).count();
    assert_eq!(
        (was.len(), changed),
        (is.len(), 1),
        "of {} bytes",
        old.len()
    );
}

#[test]
fn a_file_that_only_begins_like_a_database_is_an_ordinary_one() {
    let mut bench = Bench::new();
    let mut content = b"SQLite format 3\0".to_vec();
    content.extend(noise(4080, 1));
    bench.write("x", &content);
    bench.write("x-wal", "text");
    assert_eq!(observe(&bench), ["x file 4096", "x-wal file 4"]);
    assert_eq!(
        bench.apply(vec![replaces(&content, Some(b"new"))], &[b"new"]),
        [Outcome::Done]
    );
}
