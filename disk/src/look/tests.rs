use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant, SystemTime};

use shared::transfer::{Item, Part};
use shared::tree::Entry;

use super::*;
use crate::tests::{Bench, file, op, path};

/// Lets a file look as if it had rested for long.
fn rest(at: &std::path::Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(60);
    File::options()
        .write(true)
        .open(at)
        .expect("open")
        .set_modified(long_ago)
        .expect("set");
}

/// No call makes one on all systems.
fn make_fifo(at: &std::path::Path) {
    let made = std::process::Command::new("mkfifo")
        .arg(at)
        .status()
        .expect("mkfifo runs");
    assert!(made.success());
}

#[test]
fn every_kind_of_thing() {
    let bench = Bench::new();
    let long = "n".repeat(255);
    bench.write("a", "content");
    bench.write("dir/한국어 노트.md", "안녕");
    bench.write(&format!("dir/{long}"), "");
    bench.write("-rf", "dash");
    bench.write("new\nline", "x");
    bench.write("tool", "#!");
    fs::set_permissions(bench.at("tool"), fs::Permissions::from_mode(0o755)).expect("set");
    symlink("../anywhere", bench.at("link")).expect("a link");
    symlink(OsStr::from_bytes(b"\xff"), bench.at("odd link")).expect("a link");
    bench.write("build/x.DS_Store", "x");
    bench.write("build/.DS_Store", "litter");
    bench.write("._a", "litter");
    bench.write(".env", "secret");
    let fifo = bench.at("fifo");
    make_fifo(&fifo);
    let _socket = UnixListener::bind(bench.at("socket")).expect("a socket");
    fs::write(bench.root().join(OsStr::from_bytes(b"bad\xffname")), "x").expect("written");
    bench.write("other/.layer-sync/marker", "");
    bench.write("other/inside", "x");

    let looked = bench.look();
    assert!(looked.complete && looked.again.is_empty());
    let mut observed = bench.observed();
    observed.sort();
    let stand_in = observed
        .iter()
        .find(|line| line.ends_with("NotUtf8") && line.starts_with("bad"));
    assert!(
        stand_in.is_some_and(|line| line.contains("(not UTF-8 ")),
        "{observed:?}"
    );
    let stand_in = stand_in.expect("checked").clone();
    let mut expected = vec![
        "-rf file 4".to_owned(),
        ".env Ignored".to_owned(),
        "a file 7".to_owned(),
        stand_in,
        "build dir".to_owned(),
        "build/x.DS_Store file 1".to_owned(),
        "dir dir".to_owned(),
        format!("dir/{long} file 0"),
        "dir/한국어 노트.md file 6".to_owned(),
        "fifo Special".to_owned(),
        "link -> ../anywhere".to_owned(),
        "new\nline file 1".to_owned(),
        "odd link NotUtf8".to_owned(),
        "other OtherRoot".to_owned(),
        "socket Special".to_owned(),
        "tool file 2 x".to_owned(),
    ];
    expected.sort();
    assert_eq!(observed, expected);

    bench.look();
    assert_eq!(bench.observed(), [""; 0], "a second look tells nothing");
}

#[test]
fn only_differences_are_told_and_only_changes_are_read() {
    let bench = Bench::new();
    for name in ["a", "b", "dir/c", "dir/deep/d"] {
        bench.write(name, "12345678");
        rest(&bench.at(name));
    }
    assert_eq!(bench.look().bytes_hashed, 32);
    bench.observed();
    assert_eq!(bench.look().bytes_hashed, 0);

    bench.write("b", "other");
    fs::remove_dir_all(bench.at("dir/deep")).expect("gone");
    fs::rename(bench.at("dir/c"), bench.at("c")).expect("renamed");
    bench.look();
    assert_eq!(
        bench.observed(),
        [
            "b file 5",
            "c file 8",
            "dir/c -",
            "dir/deep -",
            "dir/deep/d -"
        ],
        "new places come before absences"
    );
    File::options()
        .write(true)
        .open(bench.at("a"))
        .expect("open")
        .set_modified(SystemTime::now())
        .expect("set");
    assert_eq!(
        bench.look().bytes_hashed,
        8 + 5,
        "a touched file and a racy one are read"
    );
    assert_eq!(
        bench.observed(),
        [""; 0],
        "and not told, since they are equal"
    );
}

#[test]
fn kinds_change_in_one_report() {
    let bench = Bench::new();
    bench.write("p/x", "1");
    bench.write("q", "2");
    bench.look();
    bench.observed();
    fs::remove_dir_all(bench.at("p")).expect("gone");
    bench.write("p", "file now");
    fs::remove_file(bench.at("q")).expect("gone");
    bench.write("q/y", "dir now");
    bench.look();
    assert_eq!(
        bench.observed(),
        ["p/x -", "p file 8", "q dir", "q/y file 7"]
    );
}

#[test]
fn a_racily_clean_file_is_read_again() {
    let bench = Bench::new();
    bench.write("a", "old!");
    bench.look();
    bench.observed();
    // The same length, the same time: no fingerprint tells it from the file that was read, if the
    // clock of the file system did not move on in between.
    let seen = lock(&bench.replica.seen)
        .row(&path("a"))
        .cloned()
        .expect("seen");
    assert!(seen.racy);
    let looked = bench.look();
    assert_eq!(looked.bytes_hashed, 4, "a fresh file is read again");
    assert_eq!(looked.racy, [path("a")], "and has to be once more");
    rest(&bench.at("a"));
    let racy = Look::Racy(looked.racy);
    let looked = bench.replica.look(&racy, &AtomicBool::new(false));
    let looked = looked.expect("a look");
    assert_eq!((looked.bytes_hashed, looked.racy), (4, vec![]));
    assert_eq!(bench.look().bytes_hashed, 0, "a file at rest is not");
}

#[test]
fn hints_look_at_no_more_than_they_must() {
    let bench = Bench::new();
    bench.write("dir/old/x", "1");
    bench.write("dir/a", "2");
    bench.look();
    bench.observed();
    let check = |names: &[&str], expected: &[&str]| {
        bench.look_at(names);
        assert_eq!(bench.observed(), expected, "{names:?}");
    };
    bench.write("dir/a", "22");
    bench.write("dir/old/x", "11");
    check(&["dir/a"], &["dir/a file 2"]);
    check(&["dir"], &[]);
    check(&["dir/old"], &["dir/old/x file 2"]);
    bench.write("new/deep/y", "3");
    check(
        &["new/deep/y"],
        &["new dir", "new/deep dir", "new/deep/y file 1"],
    );
    bench.write("dir/moved/in/z", "4");
    check(
        &["dir"],
        &["dir/moved dir", "dir/moved/in dir", "dir/moved/in/z file 1"],
    );
    fs::remove_dir_all(bench.at("new")).expect("gone");
    check(&["new/deep/y"], &["new -", "new/deep -", "new/deep/y -"]);
    fs::remove_dir_all(bench.at("dir/old")).expect("gone");
    bench.write("dir/old", "a file");
    check(&["dir/old/x"], &["dir/old/x -", "dir/old file 6"]);
    check(
        &["nothing/there", ".layer-sync/stage/x", "dir/.DS_Store"],
        &[],
    );
    bench.write(".env.d/secret", "5");
    check(&[".env.d/secret"], &[".env.d Ignored"]);
}

#[test]
fn new_rules_delete_nothing_and_old_ones_come_back() {
    let bench = Bench::new();
    bench.write("build/out", "1");
    bench.write("a.tmp", "2");
    bench.write("b", "3");
    bench.look();
    bench.observed();
    bench
        .replica
        .set_rules(Rules::parse("build/\n*.tmp\n").expect("rules"));
    bench.look();
    assert_eq!(
        bench.observed(),
        ["a.tmp Ignored", "build Ignored", "build/out -"]
    );
    bench.look();
    assert_eq!(bench.observed(), [""; 0]);
    fs::remove_file(bench.at("a.tmp")).expect("gone");
    bench.look();
    assert_eq!(bench.observed(), ["a.tmp -"]);
    bench.replica.set_rules(Rules::default());
    bench.look();
    assert_eq!(
        bench.observed(),
        ["build/out file 1", "build dir"],
        "the directory is told after everything in it"
    );
}

#[test]
fn an_unreadable_directory_is_blocked_and_comes_back() {
    let bench = Bench::new();
    bench.write("dir/a", "1");
    bench.look();
    bench.observed();
    let closed = fs::Permissions::from_mode(0o000);
    fs::set_permissions(bench.at("dir"), closed).expect("set");
    if fs::read_dir(bench.at("dir")).is_ok() {
        eprintln!("skipped: this user may read everything");
        return;
    }
    bench.look();
    assert_eq!(bench.observed(), ["dir Unreadable", "dir/a -"]);
    fs::set_permissions(bench.at("dir"), fs::Permissions::from_mode(0o755)).expect("set");
    bench.look();
    assert_eq!(bench.observed(), ["dir/a file 1", "dir dir"]);
}

#[test]
fn what_a_blocked_directory_means() {
    // The same as above without the help of the system: root may read everything.
    let bench = Bench::new();
    bench.write("dir/a", "1");
    bench.write("dir/sub/b", "2");
    bench.look();
    bench.observed();
    let before = lock(&bench.replica.seen).get(&path("dir")).cloned();
    let found = Found::Blocked {
        obstacle: Obstacle::Unreadable,
        lost_mount: false,
    };
    let finding = Finding {
        path: path("dir"),
        before,
        found,
    };
    let began = lock(&bench.replica.seen).begin_look();
    bench
        .replica
        .observe(
            vec![finding],
            &bench.replica.rules().0,
            began,
            &mut Open::default(),
        )
        .expect("observed");
    assert_eq!(
        bench.observed(),
        ["dir Unreadable", "dir/a -", "dir/sub -", "dir/sub/b -"]
    );
    bench.look();
    assert_eq!(
        bench.observed(),
        ["dir/a file 1", "dir/sub dir", "dir/sub/b file 1", "dir dir"]
    );
}

#[test]
fn a_lost_mount_is_blocked_until_something_is_there_again() {
    let bench = Bench::new();
    bench.write("disk/a", "1");
    bench.look();
    {
        // As if a volume had been mounted here when it was looked at.
        let mut seen = lock(&bench.replica.seen);
        seen.insert(path("disk"), Slot::Is(SeenRow::dir(true)));
        let rows = [(path("disk"), Some(SeenRow::dir(true)))];
        let changes = Changes {
            seen: &rows,
            ..Changes::default()
        };
        bench.replica.index.write(&changes, true).expect("written");
    }
    bench.observed();
    fs::remove_file(bench.at("disk/a")).expect("gone");
    bench.look();
    assert_eq!(bench.observed(), ["disk Unreadable", "disk/a -"]);
    bench.look();
    assert_eq!(bench.observed(), [""; 0]);
    let bench = bench.reopen();
    bench.look();
    assert_eq!(
        bench.observed(),
        ["disk Unreadable"],
        "also after a restart"
    );
    bench.write("disk/b", "1");
    bench.look();
    assert_eq!(bench.observed(), ["disk/b file 1", "disk dir"]);
}

#[test]
fn a_root_that_is_gone_says_nothing() {
    let check = |change: &dyn Fn(&Bench)| {
        let bench = Bench::new();
        bench.write("a", "1");
        bench.look();
        bench.observed();
        change(&bench);
        let error = bench
            .replica
            .look(&Look::All, &AtomicBool::new(false))
            .err();
        assert!(error.is_some());
        assert_eq!(bench.observed(), [""; 0]);
    };
    check(&|bench| fs::rename(bench.root(), bench.dir.path().join("away")).expect("moved"));
    check(&|bench| {
        fs::rename(bench.root(), bench.dir.path().join("away")).expect("moved");
        fs::create_dir(bench.root()).expect("made");
    });
    check(&|bench| fs::remove_file(bench.at(".layer-sync/marker")).expect("gone"));
    check(&|bench| fs::remove_dir_all(bench.at(".layer-sync")).expect("gone"));
    check(&|bench| fs::write(bench.at(".layer-sync/marker"), "?").expect("written"));
    check(&|bench| fs::remove_dir_all(bench.root()).expect("gone"));
}

#[test]
fn a_look_does_not_believe_what_an_apply_touched() {
    let bench = Bench::new();
    bench.write("a", "1");
    lock(&bench.replica.seen).begin_apply([path("a")].into_iter());
    let looked = bench.look();
    assert_eq!((looked.again, bench.observed()), (vec![path("a")], vec![]));
    lock(&bench.replica.seen).end_apply();
    assert!(bench.look().again.is_empty());
    assert_eq!(bench.observed(), ["a file 1"]);
}

#[test]
fn what_was_agreed_and_never_seen_is_told_by_the_first_whole_look() {
    let mut bench = Bench::new();
    let dir = op("d", None, Some(Entry::Dir));
    let ops = vec![op("a", None, file("a")), dir, op("d/b", None, file("b"))];
    bench.apply(ops, &[b"a", b"b"]);
    let rows: Vec<_> = ["a", "d/b"].iter().map(|name| (path(name), None)).collect();
    let changes = Changes {
        seen: &rows,
        ..Changes::default()
    };
    bench.replica.index.write(&changes, true).expect("written");
    fs::remove_file(bench.at("a")).expect("gone");
    let bench = bench.reopen();
    bench.look_at(&["a"]);
    assert_eq!(bench.observed(), [""; 0]);
    bench.look();
    assert_eq!(bench.observed(), ["d/b file 1", "a -"]);
    bench.look();
    assert_eq!(bench.observed(), [""; 0]);
}

/// Leaves names out of every listing from now on, without any error.
fn forget(bench: &Bench, forgotten: &'static [&'static str]) {
    let forgetful: Forgetful = Box::new(move |names| {
        names.retain(|name| !forgotten.iter().any(|lost| lost.as_bytes() == &**name));
    });
    *lock(&bench.replica.forgetful) = Some(forgetful);
}

#[test]
fn what_a_listing_leaves_out_is_asked_for_by_name() {
    let bench = Bench::new();
    for name in ["a", "b", "dir/c", "dir/sub/d", "gone"] {
        bench.write(name, "1");
    }
    symlink("x", bench.at("link")).expect("linked");
    bench.look();
    bench.observed();
    forget(&bench, &["a", "dir", "link", "sub", "gone"]);
    bench.look();
    assert_eq!(bench.observed(), [""; 0], "everything still answers");
    bench.write("a", "changed");
    bench.write("dir/sub/d", "changed");
    fs::remove_file(bench.at("gone")).expect("gone");
    bench.look();
    assert_eq!(
        bench.observed(),
        ["a file 7", "dir/sub/d file 7", "gone -"],
        "and is looked at like everything else"
    );
    bench.look_at(&["dir/sub"]);
    assert_eq!(bench.observed(), [""; 0]);
    fs::remove_dir_all(bench.at("dir")).expect("gone");
    bench.look();
    assert_eq!(
        bench.observed(),
        ["dir -", "dir/c -", "dir/sub -", "dir/sub/d -"]
    );
}

#[test]
fn what_was_agreed_and_is_not_listed_is_asked_for_by_name() {
    let mut bench = Bench::new();
    bench.apply(
        vec![op("a", None, file("a")), op("b", None, file("b"))],
        &[b"a", b"b"],
    );
    let rows = [(path("a"), None), (path("b"), None)];
    let changes = Changes {
        seen: &rows,
        ..Changes::default()
    };
    bench.replica.index.write(&changes, true).expect("written");
    fs::remove_file(bench.at("b")).expect("gone");
    let bench = bench.reopen();
    forget(&bench, &["a"]);
    assert_eq!(bench.look().again, [path("a")]);
    assert_eq!(bench.observed(), ["b -"]);
    bench.look_at(&["a"]);
    assert_eq!(bench.observed(), ["a file 1"]);
}

/// A volume that folds answers to the old name of a file that was only spelled anew.
#[test]
fn an_old_spelling_that_still_answers_is_absent() {
    let bench = Bench::new();
    bench.write("note.md", "1");
    bench.look();
    bench.observed();
    // Two names of one file, of which only the new one is listed: what such a volume looks like.
    fs::hard_link(bench.at("note.md"), bench.at("Note.md")).expect("linked");
    forget(&bench, &["note.md"]);
    bench.look();
    assert_eq!(bench.observed(), ["Note.md file 1", "note.md -"]);
    // Names that do not fold into one another are two files, whatever else they share.
    fs::hard_link(bench.at("Note.md"), bench.at("other.md")).expect("linked");
    bench.look();
    bench.observed();
    forget(&bench, &["note.md", "other.md"]);
    bench.look();
    assert_eq!(bench.observed(), [""; 0]);
}

#[test]
fn what_is_swapped_in_is_neither_followed_nor_waited_for() {
    let bench = Bench::new();
    bench.write("dir/a", "inside");
    bench.write("b", "b");
    bench.look();
    let outside = tempfile::tempdir().expect("a folder");
    fs::write(outside.path().join("a"), "outside").expect("written");
    fs::remove_dir_all(bench.at("dir")).expect("gone");
    symlink(outside.path(), bench.at("dir")).expect("linked");
    fs::remove_file(bench.at("b")).expect("gone");
    make_fifo(&bench.at("b"));
    let file = |name: &str, content: &str| Item {
        index: 0,
        path: path(name),
        entry: file(content).expect("a file"),
        base: None,
    };
    let mut parts = Vec::new();
    let items = [file("dir/a", "outside"), file("b", "b")];
    let mut sink = |part| {
        parts.push(part);
        Ok(())
    };
    bench.replica.give(&items, &mut sink).expect("given");
    assert_eq!(parts, [Part::Gone { index: 0 }, Part::Gone { index: 0 }]);
    bench.observed();
    bench.look_at(&["dir/a", "b"]);
    let mut observed = bench.observed();
    assert_eq!(
        observed.pop().as_deref(),
        Some(&*format!("dir -> {}", outside.path().display()))
    );
    assert_eq!(observed, ["b Special", "dir/a -"]);
}

#[test]
fn a_stopped_look_infers_nothing() {
    let bench = Bench::new();
    bench.write("a", "1");
    bench.look();
    bench.observed();
    fs::remove_file(bench.at("a")).expect("gone");
    let looked = bench
        .replica
        .look(&Look::All, &AtomicBool::new(true))
        .expect("a look");
    assert!(!looked.complete);
    assert_eq!(bench.observed(), [""; 0]);
}

#[test]
fn a_file_that_never_rests_is_left_for_later() {
    let bench = Bench::new();
    bench.write("log", vec![b'x'; 5_000_000]);
    bench.look();
    bench.observed();
    let at = bench.at("log");
    let done = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let done = done.clone();
        move || {
            use std::io::Write;
            let mut log = File::options().append(true).open(at).expect("open");
            while !done.load(Ordering::Relaxed) {
                log.write_all(b"more").expect("written");
            }
        }
    });
    let end = Instant::now() + Duration::from_secs(30);
    let mut left = false;
    while !left && Instant::now() < end {
        left = bench.look().again == [path("log")];
    }
    done.store(true, Ordering::Relaxed);
    writer.join().expect("it ends");
    assert!(left, "it was being written all the time");
    bench.observed();
    bench.look();
    assert_eq!(bench.observed().len(), 1, "at rest it is told");
}

#[test]
fn what_is_known_below_a_file_is_asked_for() {
    for whole in [true, false] {
        let bench = Bench::new();
        bench.write("dir", "a file by now");
        bench.write("other/file", "stays");
        bench.look();
        bench.observed();
        let row = Slot::Is(SeenRow::dir(false));
        for stray in ["dir/a", "dir/a/b", "gone/c"] {
            lock(&bench.replica.seen).insert(path(stray), row.clone());
        }
        if whole {
            bench.look();
            assert_eq!(bench.observed(), ["dir/a -", "dir/a/b -", "gone/c -"]);
        } else {
            bench.look_at(&["dir/a"]);
            assert_eq!(bench.observed(), ["dir/a -", "dir/a/b -"]);
        }
    }
}

#[test]
fn many_neighbours_are_looked_at_together() {
    let bench = Bench::new();
    for n in 0..12 {
        bench.write(&format!("dir/{n:02}"), "old");
    }
    bench.write("dir/sub/inside", "old");
    bench.write("aside", "old");
    bench.look();
    bench.observed();

    let hinted: Vec<RelPath> = (0..12).map(|n| path(&format!("dir/{n:02}"))).collect();
    let all: BTreeSet<RelPath> = hinted.iter().cloned().collect();
    let seen = lock(&bench.replica.seen);
    assert_eq!(
        gathered(&seen, all.clone()),
        BTreeSet::from([path("dir")]),
        "one listing instead of twelve ways"
    );
    let few: BTreeSet<RelPath> = hinted.iter().take(7).cloned().collect();
    assert_eq!(gathered(&seen, few.clone()), few);
    let with_dir: BTreeSet<RelPath> = all.iter().cloned().chain([path("dir/sub")]).collect();
    assert_eq!(
        gathered(&seen, with_dir),
        BTreeSet::from([path("dir"), path("dir/sub")]),
        "what a directory holds is not found by listing the one above it"
    );
    drop(seen);

    for n in 0..6 {
        bench.write(&format!("dir/{n:02}"), "newer");
    }
    fs::remove_file(bench.at("dir/11")).expect("gone");
    bench.write("dir/new", "new");
    bench.write("dir/sub/inside", "not hinted at");
    let names: Vec<&str> = hinted.iter().map(RelPath::as_str).collect();
    bench.look_at(&names);
    let observed: BTreeMap<RelPath, Sight> = bench.sights().into_iter().collect();
    let mut expected: BTreeMap<RelPath, Sight> = (0..6)
        .map(|n| (path(&format!("dir/{n:02}")), file("newer").into()))
        .collect();
    expected.insert(path("dir/11"), Sight::Absent);
    expected.insert(path("dir/new"), file("new").into());
    assert_eq!(observed, expected);
}

#[test]
fn a_look_by_old_rules_is_not_believed_about_what_the_new_ones_say() {
    let check = |before: &str, after: &str, found: Found, shown: &[&str]| {
        let bench = Bench::in_memory();
        let set = |text: &str| {
            let rules = Rules::parse(text).expect("rules");
            bench.replica.set_rules(rules);
        };
        bench.write("f", "x");
        set(before);
        let rules = bench.replica.rules().0;
        let began = lock(&bench.replica.seen).begin_look();
        set(after);
        bench.look();
        let before = lock(&bench.replica.seen).get(&path("f")).cloned();
        let finding = Finding {
            path: path("f"),
            before,
            found,
        };
        let mut open = Open::default();
        let told = bench
            .replica
            .observe(vec![finding], &rules, began, &mut open);
        told.expect("the root is there");
        assert_eq!(bench.observed(), shown, "{after:?}");
        assert!(open.again.contains(&path("f")), "{after:?}");
    };
    let bench = Bench::in_memory();
    bench.write("f", "x");
    bench.look();
    let row = lock(&bench.replica.seen).row(&path("f")).cloned();
    let row = row.expect("it was seen");
    check("", "f\n", Found::Row(row, None), &["f Ignored"]);
    let blocked = Found::Blocked {
        obstacle: Obstacle::Ignored,
        lost_mount: false,
    };
    check("f\n", "", blocked, &["f file 1"]);
}

#[test]
fn hints_about_what_an_apply_works_on_wait_for_its_end() {
    let bench = Bench::in_memory();
    bench.write("known/a", "1");
    bench.look();
    bench.observed();
    bench.write("known/a", "2");
    bench.write("made/b", "1");
    bench.write("other", "1");
    let touched = ["known/a", "made", "made/b"].map(path);
    lock(&bench.replica.seen).begin_apply(touched.into_iter());
    let hints = ["known/a", "made/b", "other"].map(path);
    let never = AtomicBool::new(false);
    let looked = bench.replica.look(&Look::Paths(hints.to_vec()), &never);
    assert_eq!(looked.expect("looked").again, []);
    assert_eq!(bench.observed(), ["other file 1"]);
    let deferred = lock(&bench.replica.seen).end_apply();
    assert_eq!(deferred.into_iter().collect::<Vec<_>>(), hints[..2]);
}

#[test]
fn what_an_apply_works_on_is_not_read() {
    let bench = Bench::in_memory();
    bench.write("dir/a", "1");
    bench.write("dir/b", "2");
    lock(&bench.replica.seen).begin_apply([path("dir/b")].into_iter());
    let looked = bench.look();
    assert_eq!((looked.files, looked.bytes_hashed), (2, 1));
    assert_eq!(looked.again, [path("dir/b")]);
}
