use std::fs;

use shared::transfer::Outcome;
use shared::utc::UtcMs;

use super::*;
use crate::tests::{Bench, file, link, op, path};

/// A path of which three versions are kept, displaced at different times.
fn versions(bench: &mut Bench) -> Vec<shared::control::Version> {
    bench.write("dir/a", "one");
    bench.look();
    let step = |bench: &mut Bench, from: &str, to: Option<Entry>, content: &[u8]| {
        // Times in the catalogue are in milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(3));
        let outcome = bench.apply(vec![op("dir/a", file(from), to)], &[content]);
        assert_eq!(outcome, [Outcome::Done]);
    };
    step(bench, "one", file("two!"), b"two!");
    step(bench, "two!", file("three"), b"three");
    step(bench, "three", None, b"");
    bench.replica.versions(&path("dir/a")).expect("listed")
}

#[test]
fn latest_by_time_and_by_name() {
    let mut bench = Bench::new();
    let versions = versions(&mut bench);
    assert_eq!(
        versions
            .iter()
            .map(|version| version.len)
            .collect::<Vec<_>>(),
        [5, 4, 3]
    );
    let check = |pick: Pick, expected: &str| {
        bench.observed();
        let restored = bench
            .replica
            .restore(&path("dir/a"), &pick)
            .expect("restored");
        assert_eq!(bench.read("dir/a"), expected, "{pick:?}");
        assert_eq!(restored.version.len, expected.len() as u64);
        assert_eq!(bench.observed(), [format!("dir/a file {}", expected.len())]);
        restored
    };
    let restored = check(Pick::Latest, "three");
    assert_eq!(restored.displaced, None);
    assert_eq!(bench.kept().len(), 3, "a version stays where it is");
    let restored = check(Pick::Version(versions[2].version.clone()), "one");
    let displaced = restored.displaced.expect("something stood there");
    check(Pick::Version(displaced), "three");
    check(Pick::At(UtcMs(versions[1].at.0 - 1)), "two!");
    check(Pick::At(UtcMs(0)), "one");
    bench.look();
    assert_eq!(
        bench.observed(),
        [""; 0],
        "nothing is news to the next look"
    );
}

#[test]
fn missing_directories_are_made_again() {
    let mut bench = Bench::new();
    versions(&mut bench);
    bench.look();
    assert_eq!(
        bench.apply(vec![op("dir", Some(Entry::Dir), None)], &[]),
        [Outcome::Done]
    );
    bench
        .replica
        .restore(&path("dir/a"), &Pick::Latest)
        .expect("restored");
    assert_eq!(bench.observed(), ["dir dir", "dir/a file 5"]);
    assert_eq!(bench.reopen().base().len(), 2, "the base did not move");
}

#[test]
fn links_come_back_as_links() {
    let mut bench = Bench::new();
    std::os::unix::fs::symlink("here", bench.at("l")).expect("linked");
    bench.look();
    bench.apply(vec![op("l", link("here"), None)], &[]);
    bench
        .replica
        .restore(&path("l"), &Pick::Latest)
        .expect("restored");
    assert_eq!(
        fs::read_link(bench.at("l")).expect("a link").to_str(),
        Some("here")
    );
}

#[test]
fn what_cannot_be_restored_says_why() {
    let mut bench = Bench::new();
    let versions = versions(&mut bench);
    let check = |name: &str, pick: &Pick, expected: &str| {
        let error = bench
            .replica
            .restore(&path(name), pick)
            .expect_err(name)
            .to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("never", &Pick::Latest, "no version of it is kept here");
    check(
        "dir/a",
        &Pick::Version("x".to_owned()),
        &versions[0].version,
    );
    check("dir/a", &Pick::At(UtcMs(u64::MAX)), "no such version");
    fs::create_dir(bench.at("dir/a")).expect("made");
    check("dir/a", &Pick::Latest, "is a directory now");
    fs::remove_dir_all(bench.at("dir")).expect("gone");
    bench.write("dir", "a file");
    check("dir/a", &Pick::Latest, "because \"dir\" is not a directory");
    assert_eq!(bench.read("dir"), "a file");
}
