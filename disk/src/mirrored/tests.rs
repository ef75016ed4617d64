use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use shared::tree::BaseRow;

use super::*;
use crate::durable::Durable;
use crate::tests::{Bench, path};
use crate::{Look, Report};

fn arrived(bench: &Bench, bytes: &[u8]) -> Arrived {
    let mut arriving = bench.replica.arriving().expect("a place");
    arriving.write(bytes).expect("written");
    arriving.finish(false, 1_000_000_000).expect("all of it")
}

fn look(bench: &Bench) {
    bench
        .replica
        .look(&Look::All, &std::sync::atomic::AtomicBool::new(false))
        .expect("a look");
}

#[test]
fn what_arrives_is_an_edit_of_this_side() {
    let bench = Bench::new();
    let root = bench.replica.root().to_owned();
    fs::write(root.join("gone"), "old").expect("written");
    fs::write(root.join("changed"), "old").expect("written");
    look(&bench);
    let old = |name: &str| bench.replica.here(&path(name)).expect("a row").sight;
    let (gone, changed) = (old("gone"), old("changed"));
    let (new, again) = (arrived(&bench, b"new"), arrived(&bench, b"again"));
    let edit = |at: &str, expect: &Sight, make: Option<Entry>, content| TreeEdit {
        path: path(at),
        expect: expect.entry().cloned(),
        make,
        content,
        step: None,
    };
    let new_entry = new.entry().clone();
    let edits = vec![
        edit(
            "a/b",
            &Sight::Absent,
            Some(new_entry.clone()),
            Content::Arrived(new),
        ),
        edit(
            "changed",
            &changed,
            Some(again.entry().clone()),
            Content::Arrived(again),
        ),
        edit(
            "copy",
            &Sight::Absent,
            Some(new_entry),
            Content::CopyOf(path("a/b")),
        ),
        edit("gone", &gone, None, Content::Nothing),
    ];
    let outcomes = bench.replica.edit(edits).expect("durable");
    assert_eq!(outcomes[0], Outcome::Done);
    assert_eq!(outcomes[1], Outcome::Done);
    assert_eq!(
        outcomes[2],
        Outcome::Gone,
        "what is to be copied was not there when it was prepared"
    );
    assert_eq!(outcomes[3], Outcome::Done);
    assert_eq!(
        fs::read_to_string(root.join("a/b")).expect("it is there"),
        "new"
    );
    assert_eq!(
        fs::read_to_string(root.join("changed")).expect("it is there"),
        "again"
    );
    assert!(!root.join("gone").exists());
    assert_eq!(old("gone"), Sight::Absent);
    // What it displaced is kept.
    let versions = bench.replica.versions(&path("gone")).expect("a list");
    assert_eq!(versions.len(), 1);
    // Nothing of it was agreed on, and all of it was reported.
    assert_eq!(bench.replica.here(&path("a/b")).expect("a row").base, None);
    let told = bench.reports().into_iter().any(|report| {
        matches!(report, Report::Observed(sights) if sights.contains(&(path("gone"), Sight::Absent)))
    });
    assert!(told);
    assert_eq!(
        fs::read_dir(root.join(".layer-sync/stage"))
            .expect("a stage")
            .count(),
        0
    );
}

#[test]
fn what_somebody_changed_meanwhile_stays() {
    let bench = Bench::new();
    let root = bench.replica.root().to_owned();
    fs::write(root.join("a"), "old").expect("written");
    look(&bench);
    let seen = bench.replica.here(&path("a")).expect("a row").sight;
    fs::write(root.join("a"), "mine").expect("written");
    let new = arrived(&bench, b"theirs");
    let edit = TreeEdit {
        path: path("a"),
        expect: seen.entry().cloned(),
        make: Some(new.entry().clone()),
        content: Content::Arrived(new),
        step: None,
    };
    let removal = TreeEdit {
        path: path("a"),
        expect: seen.entry().cloned(),
        make: None,
        content: Content::Nothing,
        step: None,
    };
    let outcomes = bench
        .replica
        .edit(vec![edit, removal])
        .expect("carried out");
    assert_eq!(outcomes, [Outcome::Stale, Outcome::Stale]);
    assert_eq!(
        fs::read_to_string(root.join("a")).expect("it is there"),
        "mine"
    );
}

#[test]
fn an_original_is_what_it_is_said_to_be_and_tells_when_it_moves() {
    let bench = Bench::new();
    let root = bench.replica.root().to_owned();
    let bytes = vec![7; 200_000];
    fs::write(root.join("a"), &bytes).expect("written");
    look(&bench);
    let here = bench.replica.here(&path("a")).expect("a row");
    let entry = here.sight.entry().expect("a file").clone();
    let original = bench
        .replica
        .original(&path("a"), &entry)
        .expect("readable")
        .expect("it is it");
    let mut read = vec![0; 300_000];
    assert_eq!(original.read_at(0, &mut read).expect("read"), 200_000);
    assert_eq!(read[..200_000], bytes);
    fs::rename(root.join("a"), root.join("b")).expect("renamed");
    assert!(original.rests().expect("asked"), "a name is not content");
    fs::write(root.join("b"), "other").expect("written");
    assert!(!original.rests().expect("asked"));
    fs::write(root.join("a"), "other").expect("written");
    assert!(
        bench
            .replica
            .original(&path("a"), &entry)
            .expect("readable")
            .is_none()
    );
}

#[test]
fn whoever_follows_hears_what_moves_and_what_is_agreed_to_be_gone() {
    let bench = Bench::new();
    let root = bench.replica.root().to_owned();
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    bench.replica.follow(Box::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    assert!(
        bench.replica.moved().all,
        "at first anything may have moved"
    );
    assert_eq!(bench.replica.moved(), Moved::default());
    fs::write(root.join("a"), "1").expect("written");
    look(&bench);
    assert_eq!(bench.replica.moved().paths, BTreeSet::from([path("a")]));
    assert!(woken.load(Ordering::Relaxed) > 0);
    let row = |entry, batch| {
        (
            path("a"),
            BaseRow {
                entry,
                batch: Gen(batch),
            },
        )
    };
    let notes = bench.replica.notes();
    bench
        .replica
        .commit(&[row(None, 4)], notes, Gen(0), Durable::Nothing)
        .expect("recorded");
    let moved = bench.replica.moved();
    assert_eq!(moved.gone, BTreeMap::from([(path("a"), Gen(4))]));
    assert_eq!(moved.paths, BTreeSet::from([path("a")]));
}

#[test]
fn everything_that_stands_or_was_agreed_on_is_visited_once() {
    let bench = Bench::new();
    let root = bench.replica.root().to_owned();
    fs::create_dir(root.join("d")).expect("made");
    for number in 0..1500 {
        fs::write(root.join(format!("d/{number}")), "x").expect("written");
    }
    fs::set_permissions(root.join("d/7"), fs::Permissions::from_mode(0o755)).expect("set");
    look(&bench);
    let row = |at: &str, batch| {
        (
            path(at),
            BaseRow {
                entry: Some(Entry::Dir),
                batch: Gen(batch),
            },
        )
    };
    let rows = [row("d", 1), row("gone", 2), row("gone/inside", 2)];
    let notes = bench.replica.notes();
    bench
        .replica
        .commit(&rows, notes, Gen(0), Durable::Nothing)
        .expect("recorded");
    let mut visited = Vec::new();
    bench
        .replica
        .each_here(&mut |path, here| visited.push((path, here)))
        .expect("visited");
    assert_eq!(visited.len(), 1503);
    let paths: BTreeSet<&RelPath> = visited.iter().map(|(path, _)| path).collect();
    assert_eq!(paths.len(), 1503);
    assert_eq!(visited[0].1.base.as_ref().expect("a row").batch, Gen(1));
    assert_eq!(visited[1502].1.sight, Sight::Absent);
    assert_eq!(
        bench.replica.below(&path("gone")).expect("read"),
        [path("gone/inside")]
    );
    assert_eq!(bench.replica.below(&path("d")).expect("read").len(), 1500);
    assert_eq!(bench.replica.beside(&path("d/new")).len(), 1500);
    assert_eq!(bench.replica.file_count(), 1500);
}
