use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::durable::Durable;
use shared::transfer::Outcome;
use shared::tree::Gen;

use crate::error::DiskError;
use crate::tests::{Bench, file, op};
use crate::{Look, Notes, lock};

fn marker(bench: &Bench) -> PathBuf {
    bench.at(".layer-sync/marker")
}

/// Records something, a minute after the last time.
fn record(bench: &mut Bench, name: &str) {
    *lock(&bench.replica.stamped) = None;
    let outcome = bench.apply(vec![op(name, None, file("1"))], &[b"1"]);
    assert_eq!(outcome, [Outcome::Done]);
}

fn stamps(bench: &Bench) -> (u64, u64) {
    (bench.replica.root.stamp(), bench.replica.index.stamp())
}

#[test]
fn the_stamp_grows_with_what_is_recorded_at_most_once_a_minute() {
    let mut bench = Bench::new();
    assert_eq!(stamps(&bench), (0, 0));
    bench.write("a", "1");
    bench.look();
    assert_eq!(stamps(&bench), (0, 0), "a look records nothing");
    for name in ["b", "c"] {
        bench.apply(vec![op(name, None, file("1"))], &[b"1"]);
        assert_eq!(stamps(&bench), (1, 1));
    }
    *lock(&bench.replica.stamped) = None;
    let commit = |bench: &Bench| {
        bench
            .replica
            .commit(&[], Notes::default(), Gen(0), Durable::Rows)
            .expect("recorded");
    };
    commit(&bench);
    commit(&bench);
    assert_eq!(stamps(&bench), (2, 2));
    let bench = bench.reopen();
    assert_eq!(stamps(&bench), (2, 2));
    commit(&bench);
    assert_eq!(stamps(&bench), (3, 3), "at the first change after opening");
}

#[test]
fn a_marker_of_the_first_version_has_stamp_0() {
    let bench = Bench::new();
    let text = format!("{{\"version\":1,\"replica\":\"{}\"}}", bench.replica.id());
    let at = marker(&bench);
    let mut bench = bench.reopen_after(|| fs::write(at, text).expect("written"));
    assert_eq!(stamps(&bench), (0, 0));
    assert!(!bench.stored.index_is_new);
    record(&mut bench, "a");
    assert_eq!(stamps(&bench.reopen()), (1, 1));
}

#[test]
fn a_marker_of_a_later_version_is_not_understood() {
    let bench = Bench::new();
    let text = format!(
        "{{\"version\":3,\"replica\":\"{}\",\"stamp\":0}}",
        bench.replica.id()
    );
    let at = marker(&bench);
    let refused = bench.refused_after(|| fs::write(at, text).expect("written"));
    assert_eq!(refused.code(), "foreign");
}

#[test]
fn an_older_copy_of_the_root_is_refused() {
    let mut bench = Bench::new();
    record(&mut bench, "a");
    let backup = fs::read(marker(&bench)).expect("there");
    record(&mut bench, "b");
    let at = marker(&bench);
    let refused = bench.refused_after(|| fs::write(at, backup).expect("written"));
    assert_eq!(refused.code(), "older");
    assert!(refused.to_string().contains("older copy of itself"));
}

#[test]
fn an_older_index_counts_as_lost() {
    let mut bench = Bench::new();
    record(&mut bench, "a");
    let (state, id) = (bench.dir.path().join("state"), bench.stored.index);
    let (index, backup) = (state.join("index.redb"), state.join("backup"));
    let mut bench = bench.reopen_after(|| {
        fs::copy(&index, &backup).expect("copied");
    });
    record(&mut bench, "b");
    record(&mut bench, "c");
    assert_eq!(stamps(&bench), (3, 3));
    let bench = bench.reopen_after(|| {
        fs::copy(&backup, &index).expect("copied");
    });
    assert!(bench.stored.index_is_new && bench.stored.index != id);
    assert!(bench.stored.base.is_empty() && bench.stored.seen_known.is_empty());
    assert_eq!(stamps(&bench), (3, 3));
    assert!(!bench.reopen().stored.index_is_new, "only once");
}

#[test]
fn a_crash_between_marker_and_index_is_no_copy() {
    let mut bench = Bench::new();
    record(&mut bench, "a");
    for stamp in [2, 3] {
        bench.replica.root.raise_stamp(stamp).expect("written");
        bench = bench.reopen();
        assert!(!bench.stored.index_is_new);
        assert_eq!(stamps(&bench), (stamp, stamp));
    }
}

#[test]
fn a_marker_that_is_replaced_in_place_is_noticed() {
    let check = |code: &str, change: &dyn Fn(&Bench)| {
        let mut bench = Bench::new();
        record(&mut bench, "a");
        fs::copy(marker(&bench), bench.dir.path().join("backup")).expect("copied");
        record(&mut bench, "b");
        bench.observed();
        fs::remove_file(bench.at("a")).expect("gone");
        change(&bench);
        let looked = bench.replica.look(&Look::All, &AtomicBool::new(false));
        assert_eq!(looked.err().map(|error| error.code()), Some(code));
        let batch = bench.batch(vec![op("c", None, file("1"))]);
        let staged = bench.staged(&batch, &[b"1"]);
        let error = bench.replica.apply(&batch, staged, Gen(0)).err();
        assert!(
            matches!(&error, Some(DiskError::Root(root)) if root.code() == code),
            "{error:?}"
        );
        *lock(&bench.replica.stamped) = None;
        let committed = bench
            .replica
            .commit(&[], Notes::default(), Gen(0), Durable::Rows);
        assert!(committed.is_err(), "the older marker is not covered");
        assert!(!bench.at("c").exists());
        assert_eq!(bench.observed(), [""; 0]);
    };
    let backup = |bench: &Bench| bench.dir.path().join("backup");
    // As `cp` does, and as `rsync` does.
    check("older", &|bench| {
        fs::copy(backup(bench), marker(bench)).expect("copied");
    });
    check("older", &|bench| {
        fs::rename(backup(bench), marker(bench)).expect("renamed");
    });
    check("foreign", &|bench| {
        let other = Bench::new();
        fs::copy(marker(&other), marker(bench)).expect("copied");
    });
    check("foreign", &|bench| {
        fs::write(marker(bench), "{").expect("written");
    });
    check("replaced", &|bench| {
        let text = fs::read_to_string(marker(bench)).expect("there");
        let newer = text.replace("\"stamp\":2", "\"stamp\":20");
        fs::write(marker(bench), newer).expect("written");
    });
    check("missing", &|bench| {
        fs::remove_file(marker(bench)).expect("gone");
    });
    check("missing", &|bench| {
        fs::remove_dir_all(bench.root()).expect("gone");
    });
    check("replaced", &|bench| {
        fs::rename(bench.root(), bench.dir.path().join("away")).expect("moved");
        fs::create_dir(bench.root()).expect("made");
    });
}

#[test]
fn a_marker_that_is_written_again_as_it_was_is_the_same() {
    let mut bench = Bench::new();
    record(&mut bench, "a");
    let text = fs::read(marker(&bench)).expect("there");
    let beside = bench.dir.path().join("beside");
    fs::write(&beside, text).expect("written");
    fs::rename(beside, marker(&bench)).expect("renamed");
    bench.look();
    record(&mut bench, "b");
    assert_eq!(stamps(&bench), (2, 2));
}
