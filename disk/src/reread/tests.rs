use std::fs;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use shared::transfer::Outcome;
use shared::tree::Base;

use super::*;
use crate::index::Changes;
use crate::tests::{Bench, file, op, path};
use crate::{Look, Looked, lock};

const MINUTE: Duration = Duration::from_secs(60);

/// Writes a file that counts as written long ago.
fn write_old(bench: &Bench, name: &str, content: &str) {
    bench.write(name, content);
    let old = SystemTime::now() - 10 * MAPPED_WRITES;
    let file = fs::File::options().write(true).open(bench.at(name));
    file.and_then(|file| file.set_modified(old)).expect("set");
}

/// Makes the replica believe that a file had this content when it was read last, with the fingerprint
/// that it has: what is on the disk now is what the medium made of it.
fn had(bench: &Bench, name: &str, content: &str) {
    let mut seen = lock(&bench.replica.seen);
    let slot = seen.get(&path(name)).cloned().expect("seen");
    let mut row = known(Some(&slot)).cloned().expect("a file");
    row.entry = file(content).expect("an entry");
    if slot.is_rotten() {
        seen.insert(path(name), Slot::Rotten(row));
        return;
    }
    let rows = [(path(name), Some(row.clone()))];
    let changes = Changes {
        seen: &rows,
        ..Changes::default()
    };
    bench.replica.index.write(&changes, true).expect("written");
    seen.insert(path(name), Slot::Is(row));
}

fn look(bench: &Bench, what: &Look) -> Looked {
    bench
        .replica
        .look(what, &AtomicBool::new(false))
        .expect("a look")
}

fn rotten(looked: &Looked) -> Vec<&str> {
    looked.rotten.iter().map(RelPath::as_str).collect()
}

#[test]
fn rot_is_no_edit_and_stays_until_it_is_mended() {
    let bench = Bench::new();
    write_old(&bench, "a", "rot!");
    write_old(&bench, "b", "fine");
    bench.look();
    bench.observed();
    had(&bench, "a", "good");
    bench.look();
    assert_eq!(bench.observed(), [""; 0], "its fingerprint is the same");
    let looked = look(&bench, &Look::Deep);
    assert_eq!(bench.observed(), ["a Rotten"]);
    assert_eq!(rotten(&looked), ["a"]);
    assert_eq!((looked.reread_files, looked.reread_bytes), (2, 8));
    assert_eq!(looked.bytes_hashed, 8);
    // It is told once, and every deep look lists it.
    bench.look();
    assert_eq!(rotten(&look(&bench, &Look::Deep)), ["a"]);
    assert_eq!(bench.observed(), [""; 0]);

    let mut bench = bench.reopen();
    let known: Vec<_> = bench
        .stored
        .seen_known
        .iter()
        .map(|(p, _)| p.as_str())
        .collect();
    assert_eq!(known, ["b"], "nothing is claimed of it");
    bench.look();
    assert_eq!(bench.observed(), ["a Rotten"], "also after a restart");
    // No batch goes over it: the plan never saw what is there.
    let outcome = bench.apply(vec![op("a", file("good"), file("new!"))], &[b"new!"]);
    assert_eq!(outcome, [Outcome::Stale]);
    assert_eq!(bench.read("a"), "rot!");

    // The medium gives the good bytes again.
    had(&bench, "a", "rot!");
    let looked = look(&bench, &Look::Deep);
    assert_eq!(bench.observed(), ["a file 4"]);
    assert_eq!(rotten(&looked), [""; 0]);
    let bench = bench.reopen();
    bench.look();
    assert_eq!(bench.observed(), [""; 0], "the mark is gone");
}

#[test]
fn whatever_is_written_over_rot_is_an_edit() {
    let check = |change: &dyn Fn(&Bench), expected: &str| {
        let bench = Bench::new();
        write_old(&bench, "a", "rot!");
        bench.look();
        had(&bench, "a", "good");
        look(&bench, &Look::Deep);
        bench.observed();
        change(&bench);
        bench.look();
        assert_eq!(bench.observed(), [expected]);
        let bench = bench.reopen();
        bench.look();
        assert_eq!(bench.observed(), [""; 0], "the mark is gone");
    };
    check(&|bench| bench.write("a", "longer"), "a file 6");
    // `touch`: a person says that it is right as it is.
    check(
        &|bench| {
            let file = fs::File::options().write(true).open(bench.at("a"));
            file.and_then(|file| file.set_modified(SystemTime::now()))
                .expect("set");
        },
        "a file 4",
    );
    check(
        &|bench| fs::remove_file(bench.at("a")).expect("gone"),
        "a -",
    );
}

#[test]
fn a_mapped_write_to_a_young_file_is_an_edit() {
    let bench = Bench::new();
    bench.write("a", "new!");
    let young = SystemTime::now() - Duration::from_secs(30);
    let file = fs::File::options().write(true).open(bench.at("a"));
    file.and_then(|file| file.set_modified(young)).expect("set");
    bench.look();
    bench.observed();
    had(&bench, "a", "old!");
    let looked = look(&bench, &Look::Deep);
    assert_eq!(bench.observed(), ["a file 4"]);
    assert_eq!(rotten(&looked), [""; 0]);
}

#[test]
fn a_day_of_reading_again_reads_each_file() {
    let bench = Bench::new();
    for number in 0..40 {
        write_old(&bench, &format!("d{}/{number}", number % 7), "fine");
    }
    bench.write("long", vec![7; 100_000]);
    bench.look();
    bench.observed();
    had(&bench, "d3/10", "good");
    let mut files = 0;
    let mut found = Vec::new();
    for _ in 0..24 * 4 {
        let span = 15 * MINUTE;
        let looked = look(&bench, &Look::Reread { span });
        files += looked.reread_files;
        found.extend(looked.rotten);
    }
    assert_eq!(found, [path("d3/10")], "once in a day");
    assert_eq!(bench.observed(), ["d3/10 Rotten"]);
    // The last one may have to wait for the first minute of the next day; the new one is racy.
    assert!((38..=41).contains(&files), "{files}");
    let none = look(
        &bench,
        &Look::Reread {
            span: Duration::ZERO,
        },
    );
    assert_eq!(none.reread_files, 0);
}

#[test]
fn the_round_is_paced_by_bytes_and_ends_where_it_began() {
    let bench = Bench::new();
    for (name, len) in [("a", 1000), ("b", 4096), ("c", 40960), ("d", 0)] {
        bench.write(name, vec![1; len]);
    }
    bench.look();
    let seen = lock(&bench.replica.seen);
    let mut round = Round::default();
    let mut next = |hours: u32| -> Vec<String> {
        let chosen = round.next(&seen, hours * 60 * MINUTE);
        chosen.iter().map(ToString::to_string).collect()
    };
    // 13 pieces of 4 KiB in 24 hours; the long one counts as ten of them.
    assert_eq!(next(2), ["a", "b"]);
    assert_eq!(next(2), ["c"]);
    assert_eq!(next(12), [""; 0], "a debt is paid by waiting");
    assert_eq!(next(8), ["d"]);
    assert_eq!(next(24), ["a", "b", "c", "d"], "a round, and not more");
    assert_eq!(next(24 * 30), ["a", "b", "c", "d"]);
    drop(seen);
    let empty = Seen::new(Vec::new(), &std::collections::HashSet::new(), &Base::new());
    assert_eq!(Round::default().next(&empty, MINUTE), []);
}
