use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use crate::Report;
use crate::tests::{Bench, shown};

/// A file that has rested for long.
fn put(bench: &Bench, name: &str, content: &str) {
    bench.write(name, content);
    let long_ago = SystemTime::now() - Duration::from_secs(60);
    let file = File::options().write(true).open(bench.at(name));
    file.expect("open").set_modified(long_ago).expect("set");
}

fn tree() -> Bench {
    let bench = Bench::in_memory();
    put(&bench, "d/a", "one");
    put(&bench, "d/s/b", "two");
    put(&bench, "k", "three");
    bench.look();
    bench.observed();
    bench
}

fn rename(bench: &Bench, from: &str, to: &str) {
    fs::rename(bench.at(from), bench.at(to)).expect("renamed");
}

/// Returns what each report had.
fn reports(bench: &Bench) -> Vec<Vec<String>> {
    let lines = |report| match report {
        Report::Observed(sights) => sights
            .iter()
            .map(|(path, sight)| shown(path, sight))
            .collect(),
        other => vec![format!("{other:?}")],
    };
    bench.reports().into_iter().map(lines).collect()
}

#[test]
fn a_directory_is_told_in_one_report_and_not_read() {
    for sweep in [true, false] {
        let bench = tree();
        rename(&bench, "d", "e");
        let looked = if sweep {
            bench.look()
        } else {
            bench.look_at(&["d", "e"])
        };
        assert_eq!(looked.bytes_hashed, 0);
        let told = [
            "d -",
            "d/a -",
            "d/s -",
            "d/s/b -",
            "e dir",
            "e/a file 3",
            "e/s dir",
            "e/s/b file 3",
        ];
        assert_eq!(reports(&bench), [told], "sweep {sweep}");
        assert_eq!(bench.look().bytes_hashed, 0, "its fingerprints are known");
        assert_eq!(reports(&bench), [[""; 0]; 0]);
    }
}

#[test]
fn a_file_in_a_known_directory() {
    let bench = tree();
    rename(&bench, "k", "d/s/k");
    assert_eq!(bench.look_at(&["k", "d/s/k"]).bytes_hashed, 0);
    assert_eq!(reports(&bench), [["d/s/k file 5", "k -"]]);
}

#[test]
fn what_is_new_beside_a_rename_is_read_and_told_before_or_with_it() {
    let bench = tree();
    rename(&bench, "d", "e");
    bench.write("e/s/new", "in the renamed one");
    bench.write("n/other", "elsewhere");
    let looked = bench.look();
    assert_eq!(looked.bytes_hashed, 18 + 9);
    let told = reports(&bench);
    assert_eq!(told[0], ["n dir", "n/other file 9"]);
    assert_eq!(told.len(), 2);
    assert!(told[1].contains(&"e/s/new file 18".to_owned()), "{told:?}");
    assert!(told[1].contains(&"d/s/b -".to_owned()), "{told:?}");
}

#[test]
fn another_file_is_read() {
    let check = |what: &str, change: &dyn Fn(&Bench), read: u64| {
        let bench = tree();
        change(&bench);
        assert_eq!(bench.look_at(&["k", "l"]).bytes_hashed, read, "{what}");
        let shown: Vec<String> = reports(&bench).concat();
        assert!(shown.contains(&"k -".to_owned()), "{what}: {shown:?}");
    };
    check("renamed", &|bench| rename(bench, "k", "l"), 0);
    check(
        "renamed and written",
        &|bench| {
            rename(bench, "k", "l");
            bench.write("l", "THREE");
        },
        5,
    );
    check(
        "copied and removed",
        &|bench| {
            put(bench, "l", "three");
            fs::remove_file(bench.at("k")).expect("removed");
        },
        5,
    );
}

#[test]
fn a_file_that_was_just_written_is_read() {
    let bench = tree();
    bench.write("k", "racy");
    bench.look();
    rename(&bench, "k", "l");
    assert_eq!(bench.look_at(&["k", "l"]).bytes_hashed, 4);
}
