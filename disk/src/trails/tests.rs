use shared::mirror::Trail;
use shared::tree::{Entry, Gen, Sight};
use shared::wire::IndexId;

use super::*;
use crate::mirrored::{Content, TreeEdit};
use crate::tests::{Bench, path};
use crate::{Durable, Notes};

/// A pair that has agreed on what stands here in batch 5.
fn paired() -> Bench {
    let bench = Bench::new();
    bench.write("a", "0");
    bench.look();
    let rows = vec![agreed(&bench, "a", 5)];
    commit(&bench, &rows, 5);
    bench.reports();
    bench
}

fn here(bench: &Bench, name: &str) -> Option<Entry> {
    let here = bench.replica.here(&path(name)).expect("a row");
    here.sight.entry().cloned()
}

fn agreed(bench: &Bench, name: &str, batch: u64) -> AgreedRow {
    let (entry, batch) = (here(bench, name), Gen(batch));
    (path(name), BaseRow { entry, batch })
}

fn commit(bench: &Bench, rows: &[AgreedRow], batch: u64) {
    let notes = Notes {
        base_of: Some(IndexId([2; 16])),
        last_batch: Gen(batch),
        ..bench.replica.notes()
    };
    let committed = bench
        .replica
        .commit(rows, notes, Gen(batch), Durable::Nothing);
    committed.expect("recorded");
}

fn passes(bench: &Bench, name: &str, writing: u64, over: Option<u64>) {
    let entry = here(bench, name);
    let row = Passed {
        path: path(name),
        step: Step { writing, entry },
        over: over.map(Step::gone),
    };
    bench.replica.passed(&[row]).expect("noted");
}

/// Shows the trails that were told, one line each: the path, what stood there, the batch, the numbers of the writings.
fn told(bench: &Bench) -> Vec<String> {
    let mut lines = Vec::new();
    for report in bench.reports() {
        if let Report::Passed(rows) = report {
            lines.extend(rows.iter().map(|(path, sight, trail)| {
                let stands = if *sight == Sight::Absent { '-' } else { '+' };
                format!("{path}{stands} {}", shown(trail))
            }));
        }
    }
    lines
}

fn shown(trail: &Trail) -> String {
    let writings: Vec<u64> = trail.steps.iter().map(|step| step.writing).collect();
    format!("@{} {writings:?}", trail.batch.0)
}

fn stored(bench: &Bench) -> Vec<String> {
    let trails = bench.stored.trails.iter();
    trails
        .map(|(path, trail)| format!("{path} {}", shown(trail)))
        .collect()
}

#[test]
fn a_trail_grows_is_told_and_survives() {
    let bench = paired();
    passes(&bench, "a", 3, None);
    assert_eq!(told(&bench), [""; 0], "that was agreed on");
    bench.write("a", "1");
    bench.write("new", "1");
    bench.look();
    passes(&bench, "a", 7, None);
    passes(&bench, "a", 7, None);
    passes(&bench, "new", 8, None);
    assert_eq!(told(&bench), ["a+ @5 [7]", "new+ @5 [8]"]);
    bench.write("a", "0");
    bench.look();
    passes(&bench, "a", 9, None);
    assert_eq!(told(&bench), ["a+ @5 [9, 7]"], "back, but not unseen");
    let bench = bench.crash();
    assert_eq!(stored(&bench), ["a @5 [9, 7]", "new @5 [8]"]);
}

#[test]
fn a_trail_ends_where_the_pair_agrees() {
    let bench = paired();
    bench.write("a", "1");
    bench.write("b", "1");
    bench.look();
    passes(&bench, "a", 7, None);
    passes(&bench, "b", 8, None);
    // What was agreed on before comes again.
    let old = (
        path("a"),
        BaseRow {
            entry: None,
            batch: Gen(5),
        },
    );
    commit(&bench, &[old], 5);
    commit(&bench, &[agreed(&bench, "b", 6)], 6);
    bench.reports();
    bench.write("b", "2");
    bench.look();
    passes(&bench, "b", 9, None);
    assert_eq!(told(&bench), ["b+ @6 [9]"]);
    let bench = bench.crash();
    assert_eq!(stored(&bench), ["a @5 [7]", "b @6 [9]"]);
    let notes = bench.replica.notes();
    bench.replica.forget_base(notes).expect("forgotten");
    assert_eq!(stored(&bench.crash()), [""; 0]);
}

#[test]
fn what_was_agreed_on_before_and_told_later_ends_no_trail() {
    let bench = paired();
    // The other side may have agreed on something up to 9.
    commit(&bench, &[], 9);
    bench.write("a", "1");
    bench.look();
    passes(&bench, "a", 7, None);
    let row = |batch| {
        let (entry, batch) = (None, Gen(batch));
        (path("a"), BaseRow { entry, batch })
    };
    commit(&bench, &[row(8)], 8);
    let bench = bench.crash();
    assert_eq!(stored(&bench), ["a @9 [7]"]);
    bench.look();
    commit(&bench, &[], 11);
    bench.write("a", "2");
    bench.look();
    passes(&bench, "a", 8, None);
    commit(&bench, &[row(10)], 10);
    let bench = bench.crash();
    assert_eq!(stored(&bench), ["a @11 [8, 7]"]);
    commit(&bench, &[row(12)], 12);
    assert_eq!(stored(&bench.crash()), [""; 0]);
}

#[test]
fn an_edit_tells_with_what_stands_there_what_it_was() {
    let bench = paired();
    let mut arriving = bench.replica.arriving().expect("a place");
    arriving.write(b"1").expect("written");
    let arrived = arriving.finish(false, 1).expect("all of it");
    let entry = Some(arrived.entry().clone());
    let edit = TreeEdit {
        path: path("a"),
        expect: here(&bench, "a"),
        make: entry.clone(),
        content: Content::Arrived(arrived),
        step: Some(Step { writing: 7, entry }),
    };
    let stale = TreeEdit {
        path: path("b"),
        expect: here(&bench, "a"),
        make: None,
        content: Content::Nothing,
        step: Some(Step::gone(6)),
    };
    bench.replica.edit(vec![edit, stale]).expect("durable");
    let reports = bench.reports();
    let Some(Report::Passed(rows)) = reports.first() else {
        panic!("what it was comes before that it is: {reports:?}");
    };
    assert_eq!(rows.len(), 1, "what was not made was not passed");
    assert_eq!(rows[0].1, Sight::from(here(&bench, "a")));
    assert_eq!(stored(&bench.crash()), ["a @5 [7]"]);
}

#[test]
fn who_was_never_paired_has_no_trail() {
    let bench = Bench::new();
    bench.write("a", "1");
    bench.look();
    bench.reports();
    passes(&bench, "a", 7, None);
    assert_eq!(told(&bench), [""; 0]);
}
