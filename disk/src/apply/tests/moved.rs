//! Moves: one rename, whatever is in it.

use std::time::{Duration, SystemTime};

use shared::transfer::move_of;

use super::*;
use crate::look::Look;
use crate::tests::noise;

/// Returns the move of what was seen at `from`.
fn moving(bench: &Bench, from: &str, to: &str) -> Op {
    let seen = lock(&bench.replica.seen);
    let from = path(from);
    let standing: Vec<(RelPath, Entry)> = std::iter::once(from.clone())
        .chain(seen.below(&from))
        .filter_map(|path| Some((path.clone(), seen.row(&path)?.entry.clone())))
        .collect();
    move_of(&from, &path(to), &standing).expect("something was seen there")
}

/// Writes a file that has rested for long.
fn put(bench: &Bench, name: &str, content: impl AsRef<[u8]>) {
    bench.write(name, content);
    rest(bench, name);
}

fn rest(bench: &Bench, name: &str) {
    let long_ago = SystemTime::now() - Duration::from_secs(60);
    let file = File::options().write(true).open(bench.at(name));
    file.expect("open").set_modified(long_ago).expect("set");
}

fn tree() -> Bench {
    let bench = Bench::in_memory();
    put(&bench, "d/a", "one");
    put(&bench, "d/s/b", "two");
    symlink("a", bench.at("d/link")).expect("a link");
    put(&bench, "k", "three");
    bench.look();
    bench.observed();
    bench
}

fn base_of(bench: &Bench) -> Vec<String> {
    let row = |(path, row): (RelPath, BaseRow)| match row.entry {
        Some(_) => format!("+{path}"),
        None => format!("-{path}"),
    };
    bench.base().into_iter().map(row).collect()
}

#[test]
fn a_directory_with_all_that_is_in_it() {
    let mut bench = tree();
    let inode = |bench: &Bench, name: &str| fs::metadata(bench.at(name)).expect("there").ino();
    let before = inode(&bench, "d/s/b");
    bench.write("d/.DS_Store", "litter goes along");
    let op = moving(&bench, "d", "e");
    assert_eq!(bench.apply(vec![op], &[]), [Outcome::Done]);
    assert_eq!(inode(&bench, "e/s/b"), before);
    assert_eq!(standing_at(&bench, "d"), "-");
    assert_eq!(standing_at(&bench, "e/link"), "-> a");
    assert_eq!(bench.read("e/.DS_Store"), "litter goes along");
    let kept: [&str; 0] = [];
    assert_eq!(bench.kept(), kept);
    let looked = bench.look();
    assert_eq!((looked.bytes_hashed, bench.observed()), (0, vec![]));
    let bench = bench.reopen();
    let rows = [
        "-d", "-d/a", "-d/link", "-d/s", "-d/s/b", "+e", "+e/a", "+e/link", "+e/s", "+e/s/b",
    ];
    assert_eq!(base_of(&bench), rows);
}

#[test]
fn a_file_and_a_link() {
    let mut bench = tree();
    let ops = vec![
        op("new", None, Some(Entry::Dir)),
        moving(&bench, "d/a", "new/a"),
        moving(&bench, "d/link", "l"),
    ];
    assert_eq!(
        bench.apply(ops, &[]),
        [Outcome::Done, Outcome::Done, Outcome::Done]
    );
    assert_eq!(bench.read("new/a"), "one");
    assert_eq!(standing_at(&bench, "l"), "-> a");
    let looked = bench.look();
    assert_eq!(bench.observed(), [""; 0]);
    assert_eq!(looked.again, []);
    let rows = ["-d/a", "-d/link", "+l", "+new", "+new/a"];
    assert_eq!(base_of(&bench.reopen()), rows);
}

#[test]
fn what_is_not_as_it_was_seen_stays() {
    type Change = fn(&Bench);
    let check = |what: &str, from: &str, to: &str, change: Change, look: bool| {
        let mut bench = tree();
        let op = moving(&bench, from, to);
        change(&bench);
        if look {
            bench.look();
            bench.observed();
        }
        assert_eq!(bench.apply(vec![op], &[]), [Outcome::Stale], "{what}");
        assert_ne!(standing_at(&bench, from), "-", "{what}");
        assert_eq!(base_of(&bench.reopen()), [""; 0], "{what}");
    };
    let edit: Change = |bench| bench.write("d/a", "other");
    check("a file that was written", "d/a", "z", edit, false);
    check("a directory in which one was", "d", "z", edit, true);
    let add: Change = |bench| bench.write("d/s/new", "x");
    check("a directory with something new", "d", "z", add, true);
    let taken: Change = |bench| bench.write("z", "x");
    check("a name that is taken", "d", "z", taken, false);
    check("a name that is taken", "d/a", "z", taken, true);
    let other: Change = |bench| {
        fs::remove_dir_all(bench.at("d")).expect("removed");
        bench.write("d", "a file now");
    };
    check("another kind", "d", "z", other, false);
    let nothing: Change = |_| {};
    check("a place that is not there", "d", "no/where", nothing, false);
    check("into itself", "d", "d/s/d", nothing, false);
}

#[test]
fn what_is_written_into_a_directory_that_moves_goes_along() {
    let mut bench = tree();
    let op = moving(&bench, "d", "e");
    let at = bench.at("");
    bench.hook(move |step| {
        if step == Step::Move {
            fs::write(at.join("d/a"), "an edit").expect("written");
            fs::write(at.join("d/s/new"), "a new one").expect("written");
        }
        ControlFlow::Continue(())
    });
    assert_eq!(bench.apply(vec![op], &[]), [Outcome::Done]);
    // The look that is asked for takes in all of the directory.
    let looked = bench
        .replica
        .look(&Look::Paths(vec![path("e")]), &AtomicBool::new(false));
    assert!(looked.expect("a look").complete);
    assert_eq!(bench.observed(), ["e/a file 7", "e/s/new file 9"]);
}

#[test]
fn a_file_that_was_swapped_in_goes_back() {
    let mut bench = tree();
    let op = moving(&bench, "d/a", "z");
    let at = bench.at("");
    bench.hook(move |step| {
        if step == Step::Move {
            fs::remove_file(at.join("d/a")).expect("removed");
            fs::write(at.join("d/a"), "somebody else's").expect("written");
        }
        ControlFlow::Continue(())
    });
    assert_eq!(bench.apply(vec![op], &[]), [Outcome::Stale]);
    assert_eq!(bench.read("d/a"), "somebody else's");
    assert_eq!(standing_at(&bench, "z"), "-");
}

#[test]
fn a_database_in_use_stays() {
    let mut bench = Bench::new();
    let at = bench.at("notes.db");
    let program = rusqlite::Connection::open(&at).expect("opened");
    program
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(x); INSERT INTO t VALUES (1)")
        .expect("a database");
    bench.look();
    let op = moving(&bench, "notes.db", "old.db");
    let held = |outcome: &Outcome| matches!(outcome, Outcome::Held(trouble) if trouble.kind == TroubleKind::DatabaseOpen);
    let outcomes = bench.apply(vec![op.clone()], &[]);
    assert!(outcomes.iter().all(held), "{outcomes:?}");
    assert!(at.exists());
    drop(program);
    rest(&bench, "notes.db");
    bench.look();
    let op = moving(&bench, "notes.db", "old.db");
    assert_eq!(bench.apply(vec![op], &[]), [Outcome::Done]);
    let names = fs::read_dir(bench.root()).expect("listed");
    let names: Vec<_> = names
        .map(|entry| entry.expect("an entry").file_name().into_string())
        .filter(|name| name.as_deref() != Ok(".layer-sync"))
        .collect();
    assert_eq!(names, [Ok("old.db".to_owned())]);
}

#[test]
fn the_process_dies_before_any_step() {
    for steps in 0.. {
        let mut bench = tree();
        let ops = vec![moving(&bench, "d", "e"), moving(&bench, "k", "l")];
        let batch = bench.batch(ops);
        let staged = bench.staged(&batch, &[]);
        bench.stop_after(steps);
        let ended = bench.replica.apply(&batch, staged, Gen(0)).is_ok();
        let bench = bench.crash().crash();
        let base = base_of(&bench);
        for (from, to, inside) in [("d", "e", "/s/b"), ("k", "l", "")] {
            let (there, here) = (format!("{from}{inside}"), format!("{to}{inside}"));
            let moved = standing_at(&bench, &here) != "-";
            assert_ne!(
                moved,
                standing_at(&bench, &there) != "-",
                "{steps}: in one place"
            );
            assert_eq!(
                moved,
                base.contains(&format!("+{here}")),
                "{steps}: {base:?}"
            );
            assert_eq!(
                moved,
                base.contains(&format!("-{there}")),
                "{steps}: {base:?}"
            );
        }
        if ended {
            assert!(steps > 8, "it was over after {steps} steps");
            return;
        }
    }
}

#[test]
fn a_long_file_is_not_read() {
    let mut bench = Bench::in_memory();
    let content = noise(3_000_000, 1);
    put(&bench, "long", &content);
    bench.look();
    let op = moving(&bench, "long", "there");
    assert_eq!(bench.apply(vec![op], &[]), [Outcome::Done]);
    assert_eq!(bench.look().bytes_hashed, 0);
    assert!(fs::read(bench.at("there")).expect("there") == content);
}
