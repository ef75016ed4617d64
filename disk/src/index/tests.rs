use std::fs;

use crate::lock;
use crate::tests::{Bench, file, noise, op, path};

#[test]
fn a_damaged_index_is_moved_aside_and_made_anew() {
    for damage in [&b"not an index at all"[..], &[0; 100_000], b""] {
        let mut bench = Bench::new();
        bench.apply(vec![op("a", None, file("1"))], &[b"1"]);
        let (before, dir) = (bench.stored.index, bench.dir.path().join("state"));
        let index = dir.join("index.redb");
        let bench = bench.reopen_after(|| fs::write(&index, damage).expect("written"));
        assert!(bench.stored.index_is_new);
        assert_ne!(bench.stored.index, before);
        assert!(bench.stored.base.is_empty() && bench.stored.seen_known.is_empty());
        let aside = fs::read_dir(&dir).expect("listed").count() - 1;
        assert_eq!(
            aside,
            usize::from(!damage.is_empty()),
            "nothing is thrown away"
        );
        bench.look();
        assert_eq!(bench.observed(), ["a file 1"]);
    }
}

#[test]
fn a_lost_index_is_a_new_one() {
    let mut bench = Bench::new();
    bench.apply(vec![op("a", None, file("1"))], &[b"1"]);
    let state = bench.dir.path().join("state");
    let bench = bench.reopen_after(|| fs::remove_dir_all(state).expect("gone"));
    assert!(bench.stored.index_is_new && bench.stored.base.is_empty());
}

#[test]
fn chunk_lists_that_nobody_needs_are_dropped() {
    let bench = Bench::new();
    bench.write("a", noise(200_000, 1));
    bench.write("b", noise(200_000, 2));
    bench.look();
    let content = |bench: &Bench, name: &str| {
        let seen = lock(&bench.replica.seen);
        seen.row(&path(name)).expect("seen").entry.identity()
    };
    let (a, b) = (content(&bench, "a"), content(&bench, "b"));
    fs::remove_file(bench.at("a")).expect("gone");
    bench.look();
    assert!(bench.replica.index.manifest(a).is_some());
    let bench = bench.reopen();
    assert!(bench.replica.index.manifest(a).is_none());
    assert_eq!(
        bench
            .replica
            .index
            .manifest(b)
            .map(|manifest| manifest.len()),
        Some(200_000)
    );
}

/// Flips one byte after another over the whole file: what is opened then is all that there was, or
/// nothing, and never something else.
#[test]
fn one_flipped_byte_is_noticed_or_does_no_harm() {
    let mut bench = Bench::new();
    let names: Vec<String> = (0..40).map(|number| format!("file {number}")).collect();
    for name in &names {
        bench.apply(vec![op(name, None, file("1"))], &[b"1"]);
    }
    let index = bench.dir.path().join("state/index.redb");
    let mut bench = bench.reopen();
    let base = bench.stored.base.clone();
    assert_eq!(base.len(), names.len());
    let whole = fs::read(&index).expect("read");
    let mut noticed = 0;
    let step = (whole.len() / 120).max(1) | 1;
    for at in (0..whole.len()).step_by(step) {
        bench = bench.reopen_after(|| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            fs::write(&index, bytes).expect("written");
        });
        if bench.stored.index_is_new {
            noticed += 1;
            assert!(bench.stored.base.is_empty(), "byte {at}");
        } else {
            assert_eq!(bench.stored.base, base, "byte {at}");
        }
    }
    assert!(noticed > 0, "no byte of {} mattered", whole.len());
}
