use std::fs::{self, File};
use std::io::Write;

use super::*;
use crate::tests::{Bench, file, op, path};

const SECOND: u64 = 1000;

/// Replaces `notes/a.md` while a program has it open for appending; returns the program's handle.
fn replaced_while_open(bench: &mut Bench) -> File {
    bench.write("notes/a.md", "one\n");
    let old = std::time::SystemTime::now() - Duration::from_secs(60);
    let append = File::options().append(true).open(bench.at("notes/a.md"));
    let append = append.expect("opened");
    append.set_modified(old).expect("set");
    bench.look();
    let ops = vec![op("notes/a.md", file("one\n"), file("two\n"))];
    assert_eq!(bench.apply(ops, &[b"two\n"]), [Outcome::Done]);
    bench.observed();
    append
}

/// Moves on to the next check, and returns the copies that it made.
fn check(bench: &Bench) -> Vec<RelPath> {
    let due = bench.replica.next_displaced_check().expect("watched");
    bench.replica.check_displaced(due).expect("checked")
}

fn is_copy(copy: &RelPath) -> bool {
    copy.as_str().starts_with("notes/a (conflict here 20") && copy.as_str().ends_with(").md")
}

#[test]
fn a_displaced_file_that_rests_is_checked_three_times() {
    let mut bench = Bench::new();
    assert_eq!(bench.replica.next_displaced_check(), None);
    let before = utc_now();
    drop(replaced_while_open(&mut bench));
    let mut due = Vec::new();
    while let Some(next) = bench.replica.next_displaced_check() {
        due.push((next.0 - before.0) / SECOND);
        assert_eq!(
            bench.replica.check_displaced(UtcMs(next.0 - 1)).ok(),
            Some(vec![])
        );
        assert_eq!(bench.replica.next_displaced_check(), Some(next), "not yet");
        assert_eq!(check(&bench), []);
    }
    assert_eq!(due, [5, 60, 600]);
    assert_eq!(bench.observed(), [""; 0]);
}

#[test]
fn what_a_program_writes_to_a_replaced_file_comes_back() {
    let mut bench = Bench::new();
    let mut program = replaced_while_open(&mut bench);
    program.write_all(b"more\n").expect("written");
    let copies = check(&bench);
    let [copy] = &*copies else {
        panic!("{copies:?}")
    };
    assert!(is_copy(copy), "{copy}");
    assert_eq!(bench.read(copy.as_str()), "one\nmore\n");
    assert_eq!(bench.read("notes/a.md"), "two\n");
    assert_eq!(bench.observed(), [format!("{copy} file 9")]);
    let versions = bench.replica.versions(&path("notes/a.md")).expect("listed");
    assert_eq!(versions[0].why, "written after it was replaced");
    assert_eq!((versions[0].len, versions.len()), (9, 1));

    // It grows on, and the copy follows it.
    program.write_all(b"yet more\n").expect("written");
    assert_eq!(check(&bench), std::slice::from_ref(copy));
    assert_eq!(bench.read(copy.as_str()), "one\nmore\nyet more\n");
    // Somebody works on the copy: that stays, and there is another one.
    bench.write(copy.as_str(), "mine");
    program.write_all(b"!").expect("written");
    // What stood at the copy's path was displaced as well, and is checked in between.
    let others = std::iter::repeat_with(|| check(&bench)).find(|copies| !copies.is_empty());
    let others = others.expect("endless");
    assert!(others.len() == 1 && is_copy(&others[0]) && others[0] != *copy);
    assert_eq!(bench.read(copy.as_str()), "mine");
    assert_eq!(bench.read(others[0].as_str()), "one\nmore\nyet more\n!");
    // It is watched until it rests.
    while bench.replica.next_displaced_check().is_some() {
        assert_eq!(check(&bench), []);
    }
    let base = bench.reopen().base();
    assert_eq!(base.len(), 1, "the base did not move");
}

#[test]
fn what_a_program_writes_to_a_deleted_file_comes_back_with_its_directory() {
    let mut bench = Bench::new();
    bench.write("notes/a.md", "one\n");
    let mut program = File::options()
        .append(true)
        .open(bench.at("notes/a.md"))
        .expect("opened");
    bench.look();
    let ops = vec![
        op("notes/a.md", file("one\n"), None),
        op("notes", Some(Entry::Dir), None),
    ];
    assert_eq!(bench.apply(ops, &[]), [Outcome::Done, Outcome::Done]);
    bench.observed();
    program.write_all(b"more\n").expect("written");
    let copies = check(&bench);
    assert!(copies.len() == 1 && is_copy(&copies[0]), "{copies:?}");
    let told = ["notes dir".to_owned(), format!("{} file 9", copies[0])];
    assert_eq!(bench.observed(), told);
}

#[test]
fn a_touch_is_no_writing() {
    let mut bench = Bench::new();
    let program = replaced_while_open(&mut bench);
    program
        .set_modified(std::time::SystemTime::now())
        .expect("set");
    assert_eq!(check(&bench), []);
    assert_eq!(bench.observed(), [""; 0]);
    assert_eq!(bench.private("stage"), [""; 0]);
}

#[test]
fn the_watch_survives_a_restart() {
    for grows in [false, true] {
        let mut bench = Bench::new();
        let mut program = replaced_while_open(&mut bench);
        let bench = bench.reopen_after(|| {
            if grows {
                program.write_all(b"more\n").expect("written");
            }
        });
        assert_eq!(check(&bench).len(), usize::from(grows));
        assert_eq!(bench.observed().len(), usize::from(grows));
    }
    // What was displaced long ago is left alone.
    let mut bench = Bench::new();
    drop(replaced_while_open(&mut bench));
    let catalogue = bench.at(".layer-sync/kept/catalogue.jsonl");
    let bench = bench.reopen_after(|| {
        let text = fs::read_to_string(&catalogue).expect("read");
        let now = utc_now().0;
        let at = text.split_once("\"at\":").expect("a time").1;
        let at: u64 = at
            .split(',')
            .next()
            .and_then(|at| at.parse().ok())
            .expect("a number");
        assert!(now - at < 60 * SECOND);
        let old = text.replace(&at.to_string(), &(now - 601 * SECOND).to_string());
        fs::write(&catalogue, old).expect("written");
    });
    assert_eq!(bench.replica.next_displaced_check(), None);
}
