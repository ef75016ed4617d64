use std::fs;

use shared::control::{Below, RestoredBelow};
use shared::transfer::{Op, Outcome};
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

/// Restores a folder as a node does that has no partner at hand.
fn restore_folder(bench: &Bench, folder: &str, pick: Pick) -> RestoredBelow {
    let pick = Below { pick, after: None };
    let mut meant = bench
        .replica
        .versions_below(&path(folder), &pick)
        .expect("listed");
    if pick.pick == Pick::Latest {
        meant = shared::history::displaced_together(meant);
    }
    let names: Vec<String> = meant.into_iter().map(|version| version.version).collect();
    let restored = bench.replica.restore_each(&path(folder), &names);
    restored.expect("restored")
}

fn counts(restored: &RestoredBelow) -> (u64, u64, u64, u64) {
    (
        restored.restored,
        restored.unchanged,
        restored.displaced,
        restored.failures,
    )
}

/// A folder: `d/a` is replaced twice, `d/sub/b` deleted, `d/c` never touched; returns the times before
/// each change and after the last.
fn folder(bench: &mut Bench) -> Vec<UtcMs> {
    for (name, content) in [("d/a", "a1"), ("d/sub/b", "b1"), ("d/c", "c1"), ("e", "e1")] {
        bench.write(name, content);
    }
    bench.look();
    let mut times = Vec::new();
    let mut step = |bench: &mut Bench, ops: Vec<Op>, content: &[u8]| {
        times.push(utc_now());
        // Times in the catalogue are in milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(3));
        let outcomes = bench.apply(ops, &[content]);
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done));
        std::thread::sleep(std::time::Duration::from_millis(3));
    };
    step(bench, vec![op("d/a", file("a1"), file("a2"))], b"a2");
    step(bench, vec![op("d/sub/b", file("b1"), None)], b"");
    step(bench, vec![op("d/a", file("a2"), file("a3"))], b"a3");
    step(bench, vec![op("e", file("e1"), file("e2"))], b"e2");
    times
}

#[test]
fn a_folder_as_it_was_at_a_time() {
    let mut bench = Bench::new();
    let times = folder(&mut bench);
    bench.write("d/new", "newer");
    bench.look();
    bench.observed();
    let versions = bench.replica.versions(&path("d")).expect("listed");
    let shown: Vec<_> = versions
        .iter()
        .map(|version| version.path.as_ref().map_or("-", RelPath::as_str))
        .collect();
    assert_eq!(shown, ["d/a", "d/sub/b", "d/a"], "the latest first");

    let restored = restore_folder(&bench, "d", Pick::At(times[0]));
    assert_eq!(counts(&restored), (2, 0, 1, 0));
    assert_eq!(
        bench.observed(),
        ["d/a file 2", "d/sub/b file 2"],
        "all else is as it was"
    );
    let read = |name| bench.read(name);
    assert_eq!((read("d/a"), read("d/sub/b")), ("a1".into(), "b1".into()));
    assert_eq!((read("d/new"), read("e")), ("newer".into(), "e2".into()));
    // Once more, from there: what stands so already is left as it is.
    let restored = restore_folder(&bench, "d", Pick::At(times[1]));
    assert_eq!(counts(&restored), (1, 1, 1, 0));
    assert_eq!(read("d/a"), "a2");
    let after = UtcMs(utc_now().0 + 1);
    assert_eq!(
        counts(&restore_folder(&bench, "d", Pick::At(after))),
        (0, 0, 0, 0)
    );
    // What a restore displaced is kept, too.
    let kept = bench.kept();
    assert_eq!(kept, ["a1", "a1", "a2", "a3", "b1", "e1"]);
    bench.look();
    assert_eq!(bench.observed(), ["d/a file 2"]);
}

#[test]
fn a_deleted_folder_with_all_that_went_with_it() {
    let mut bench = Bench::new();
    folder(&mut bench);
    std::os::unix::fs::symlink("c", bench.at("d/link")).expect("linked");
    bench.look();
    let ops = vec![
        op("d/a", file("a3"), None),
        op("d/c", file("c1"), None),
        op("d/link", link("c"), None),
        op("d/sub", Some(Entry::Dir), None),
        op("d", Some(Entry::Dir), None),
    ];
    let outcomes = bench.apply(ops, &[]);
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done));
    assert!(!bench.at("d").exists());
    bench.observed();
    let restored = restore_folder(&bench, "d", Pick::Latest);
    // `d/sub/b` went seconds before; that is together.
    assert_eq!(counts(&restored), (4, 0, 0, 0));
    let told = [
        "d dir",
        "d/sub dir",
        "d/a file 2",
        "d/c file 2",
        "d/link -> c",
        "d/sub/b file 2",
    ];
    assert_eq!(bench.observed(), told);
    assert_eq!(
        (bench.read("d/a"), bench.read("d/c")),
        ("a3".into(), "c1".into())
    );
    // Nothing that stands there is touched by it.
    assert_eq!(
        counts(&restore_folder(&bench, "d", Pick::Latest)),
        (0, 0, 0, 0)
    );
}

#[test]
fn what_hinders_one_path_does_not_hinder_the_others() {
    let mut bench = Bench::new();
    let times = folder(&mut bench);
    fs::remove_dir(bench.at("d/sub")).expect("gone");
    bench.write("d/sub", "a file");
    let restored = restore_folder(&bench, "d", Pick::At(times[0]));
    assert_eq!(counts(&restored), (1, 0, 1, 1));
    assert!(
        restored.failed[0].contains("\"d/sub\" is not a directory"),
        "{restored:?}"
    );
    assert_eq!(
        (bench.read("d/a"), bench.read("d/sub")),
        ("a1".into(), "a file".into())
    );
    // A version of another folder, and one that is gone.
    let other = bench.replica.versions(&path("e")).expect("listed");
    let names = [other[0].version.clone(), "gone".to_owned()];
    let restored = bench.replica.restore_each(&path("d"), &names);
    assert_eq!(counts(&restored.expect("answered")), (0, 0, 0, 2));
    assert_eq!(bench.read("e"), "e2");
}

#[test]
fn a_large_folder_comes_in_pages_and_comes_back_in_groups() {
    const FILES: usize = 1200;
    let mut bench = Bench::new();
    for number in 0..FILES {
        bench.write(
            &format!("d/{:02}/{number}", number % 50),
            number.to_string(),
        );
    }
    bench.look();
    let ops = (0..FILES).map(|number| {
        let name = format!("d/{:02}/{number}", number % 50);
        op(&name, file(number.to_string()), None)
    });
    let ops: Vec<Op> = ops.collect();
    for ops in ops.chunks(1000) {
        let outcomes = bench.apply(ops.to_vec(), &[]);
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done));
    }
    let restored = restore_folder(&bench, "d", Pick::Latest);
    assert_eq!(counts(&restored), (FILES as u64, 0, 0, 0));
    assert_eq!(bench.read("d/49/1199"), "1199");
    let half = Some(path("d/25"));
    let below = Below {
        pick: Pick::At(UtcMs(0)),
        after: half,
    };
    let page = bench.replica.versions_below(&path("d"), &below);
    assert_eq!(page.expect("listed").len(), FILES / 2);
}
