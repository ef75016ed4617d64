//! Planning, in paths per second.
//!
//! There is no outer limit to compare with: read it against the file system, which does some 100,000
//! `stat` calls in a tenth of a second and makes a few thousand small files durable in a second. A plan
//! has to be far below either. One edit has to cost the same in a tree of any size: compare the lines of
//! `one_edit` with each other.

use std::collections::BTreeSet;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use shared::hash::ContentHash;
use shared::path::RelPath;
use shared::reconcile::{ConflictRules, Decisions, Mode, Naming, Policy, reconcile};
use shared::tree::{Base, BaseRow, Entry, Gen, Side, Sight, Trees};
use shared::utc::UtcMs;

const DIRTY_PATHS: u32 = 100_000;
const FILES_PER_DIR: u32 = 40;

fn dir(number: u32) -> RelPath {
    RelPath::parse(&format!("knowledge/{number:05}")).expect("a path")
}

fn file(number: u32) -> RelPath {
    let name = format!(
        "knowledge/{:05}/note-{number:06}.md",
        number / FILES_PER_DIR
    );
    RelPath::parse(&name).expect("a path")
}

fn entry(text: &str) -> Entry {
    Entry::File {
        content: ContentHash::of_bytes(text.as_bytes()),
        len: text.len() as u64,
        exec: false,
    }
}

/// Returns the entries of a tree with so many files, directories first.
fn entries(files: u32) -> Vec<(RelPath, Entry)> {
    let top = RelPath::parse("knowledge").expect("a path");
    let dirs = (0..files.div_ceil(FILES_PER_DIR)).map(|number| (dir(number), Entry::Dir));
    let files = (0..files).map(|number| (file(number), entry(&format!("before {number}"))));
    [(top, Entry::Dir)]
        .into_iter()
        .chain(dirs)
        .chain(files)
        .collect()
}

/// Returns trees that agree on so many files.
fn agreed(files: u32) -> Trees {
    let row = |entry| BaseRow {
        entry: Some(entry),
        batch: Gen(1),
    };
    let base: Base = entries(files)
        .into_iter()
        .map(|(path, entry)| (path, row(entry)))
        .collect();
    Trees::new(base)
}

/// Returns the paths at which a side is apart, as the scope of a plan.
fn unsettled(trees: &Trees, side: Side) -> BTreeSet<RelPath> {
    trees.view(side).apart().keys().cloned().collect()
}

/// Measures one plan of all unsettled paths, and checks that it has an operation for each.
fn plan(bencher: Bencher<'_, '_>, trees: &Trees) {
    let (rules, decisions) = (ConflictRules::default(), Decisions::default());
    let policy = Policy {
        mode: Mode::default(),
        primary: Side::Alpha,
        naming: Naming {
            alpha: "vm".into(),
            beta: "mac".into(),
            now: UtcMs(1_795_382_045_000),
        },
        conflicts: &rules,
        decisions: &decisions,
        folds: [false; 2],
    };
    let scope = unsettled(trees, Side::Alpha);
    let plan = || reconcile(black_box(trees), &scope, &|_| false, &policy);
    assert_eq!(plan().ops.len(), scope.len());
    bencher
        .counter(ItemsCount::new(scope.len()))
        .bench_local(plan);
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn edits_of_100_000_files(bencher: Bencher<'_, '_>) {
    let mut trees = agreed(DIRTY_PATHS);
    for number in 0..DIRTY_PATHS {
        let now = Sight::Is(entry(&format!("after {number}")));
        trees.observe(Side::Alpha, file(number), now);
    }
    plan(bencher, &trees);
}

/// The first sync: nothing is agreed, one side has everything.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn first_sync_of_100_000_files(bencher: Bencher<'_, '_>) {
    let mut trees = Trees::default();
    for (path, entry) in entries(DIRTY_PATHS) {
        trees.observe(Side::Alpha, path, Sight::Is(entry));
    }
    plan(bencher, &trees);
}

/// The pusher's work between an observation and its plan.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn observe_100_000_files(bencher: Bencher<'_, '_>) {
    let trees = agreed(DIRTY_PATHS);
    let sights: Vec<_> = (0..DIRTY_PATHS)
        .map(|number| (file(number), Sight::Is(entry(&format!("after {number}")))))
        .collect();
    bencher
        .counter(ItemsCount::new(sights.len()))
        .with_inputs(|| (trees.clone(), sights.clone()))
        .bench_local_values(|(mut trees, sights)| {
            for (path, sight) in sights {
                trees.observe(Side::Alpha, path, sight);
            }
            trees
        });
}

#[divan::bench(args = [1_000, 10_000, 100_000])]
fn one_edit(bencher: Bencher<'_, '_>, files: u32) {
    let mut trees = agreed(files);
    trees.observe(Side::Alpha, file(files / 2), Sight::Is(entry("after")));
    plan(bencher, &trees);
}
