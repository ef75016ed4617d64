use super::*;
use crate::reconcile::{Conflict, Plan};
use crate::transfer::Source;
use crate::tree::{Base, BaseRow, Gen};

#[expect(
    clippy::disallowed_methods,
    reason = "any time will do; there is no other way to make one"
)]
fn some_time() -> Instant {
    Instant::now()
}

fn path(number: u64) -> RelPath {
    RelPath::parse(&format!("f{number}")).unwrap()
}

fn file(number: u64) -> Entry {
    Entry::File {
        content: ContentHash::of_bytes(&number.to_le_bytes()),
        len: 8,
        exec: false,
    }
}

/// Two equal trees of `count` different files.
fn trees(count: u64) -> Trees {
    let row = |number| {
        let row = BaseRow {
            entry: Some(file(number)),
            batch: Gen(1),
        };
        (path(number), row)
    };
    Trees::new((0..count).map(row).collect::<Base>())
}

fn op(number: u64, expect: Option<Entry>, make: Option<Entry>) -> (Side, Op) {
    let op = Op {
        path: path(number),
        expect,
        make,
        from: Source::Nothing,
        agrees: true,
    };
    (Side::Beta, op)
}

fn deletes(numbers: std::ops::Range<u64>) -> Plan {
    Plan {
        ops: numbers
            .map(|number| op(number, Some(file(number)), None))
            .collect(),
        ..Plan::default()
    }
}

fn rewrites(numbers: std::ops::Range<u64>) -> Plan {
    let rewrite = |number| op(number, Some(file(number)), Some(file(number + 1_000_000)));
    Plan {
        ops: numbers.map(rewrite).collect(),
        ..Plan::default()
    }
}

fn verdict(count: u64, plan: &Plan) -> Result<(), Cause> {
    let mut guard = Guard::default();
    let judged = guard.judge(&trees(count), plan, some_time());
    judged.map_err(|alarm| alarm.cause)
}

#[test]
fn both_the_share_and_the_floor_count() {
    assert_eq!(verdict(100, &deletes(0..49)), Ok(()));
    assert_eq!(verdict(100, &deletes(0..50)), Err(Cause::Deletes));
    assert_eq!(verdict(1000, &deletes(0..300)), Ok(()));
    assert_eq!(verdict(1000, &deletes(0..301)), Err(Cause::Deletes));
    assert_eq!(verdict(300, &rewrites(0..199)), Ok(()));
    assert_eq!(verdict(300, &rewrites(0..200)), Err(Cause::Rewrites));
    assert_eq!(verdict(1000, &rewrites(0..500)), Ok(()));
    assert_eq!(verdict(1000, &rewrites(0..501)), Err(Cause::Rewrites));
}

#[test]
fn what_went_lately_is_not_there_to_be_rewritten() {
    let (mut guard, now) = (Guard::default(), some_time());
    let gone = deletes(300..420);
    assert_eq!(guard.judge(&trees(420), &gone, now), Ok(()));
    guard.passed(&gone, now);
    let alarm = guard.judge(&trees(300), &rewrites(0..200), now);
    let alarm = alarm.expect_err("two thirds");
    assert_eq!((alarm.cause, alarm.files), (Cause::Rewrites, 300));
}

#[test]
fn what_was_rewritten_and_then_deleted_does_not_count_as_rewritten() {
    let (mut guard, now) = (Guard::default(), some_time());
    guard.passed(&rewrites(0..199), now);
    guard.passed(&deletes(1..199), now);
    assert_eq!(guard.judge(&trees(3), &rewrites(0..1), now), Ok(()));
    guard.passed(&rewrites(1000..1198), now);
    let alarm = guard.judge(&trees(300), &rewrites(2000..2002), now);
    assert_eq!(alarm.expect_err("two thirds").before, 199);
}

#[test]
fn small_steps_add_up_for_ten_minutes() {
    let (trees, start) = (trees(100), some_time());
    let step = |guard: &mut Guard, plan: &Plan, at: Instant| {
        let judged = guard.judge(&trees, plan, at);
        if judged.is_ok() {
            guard.passed(plan, at);
        }
        judged.map_err(|alarm| (alarm.deletes, alarm.before))
    };
    let mut guard = Guard::default();
    assert_eq!(step(&mut guard, &deletes(0..30), start), Ok(()));
    assert_eq!(
        step(&mut guard, &deletes(30..55), start + WINDOW / 2),
        Err((25, 30))
    );
    // The first ones are long ago.
    assert_eq!(
        step(&mut guard, &deletes(30..55), start + WINDOW * 2),
        Ok(())
    );
}

#[test]
fn writing_the_same_files_again_and_again_is_everyday_work() {
    let (trees, start) = (trees(1000), some_time());
    let mut guard = Guard::default();
    for round in 0..500 {
        let at = start + Duration::from_secs(round);
        guard.judge(&trees, &rewrites(0..100), at).unwrap();
        guard.passed(&rewrites(0..100), at);
    }
}

#[test]
fn a_rename_is_no_delete() {
    let mut renames = deletes(0..90);
    renames
        .ops
        .extend((0..90).map(|number| op(number + 5000, None, Some(file(number)))));
    assert_eq!(verdict(100, &renames), Ok(()));
    // Also when the new places came in an earlier plan.
    let (trees, now) = (trees(100), some_time());
    let mut guard = Guard::default();
    let (made, gone): (Vec<_>, Vec<_>) = renames
        .ops
        .into_iter()
        .partition(|(_, op)| op.expect.is_none());
    let plan = |ops| Plan {
        ops,
        ..Plan::default()
    };
    guard.judge(&trees, &plan(made.clone()), now).unwrap();
    guard.passed(&plan(made), now);
    guard.judge(&trees, &plan(gone), now).unwrap();
}

#[test]
fn what_was_made_a_moment_ago_is_deleted_like_anything_else() {
    let (trees, now) = (trees(100), some_time());
    let mut guard = Guard::default();
    let made = Plan {
        ops: (0..100)
            .map(|number| op(number, None, Some(file(number))))
            .collect(),
        ..Plan::default()
    };
    guard.judge(&trees, &made, now).unwrap();
    guard.passed(&made, now);
    assert!(guard.judge(&trees, &deletes(0..60), now).is_err());
}

#[test]
fn an_emptied_tree_is_never_believed() {
    let mut trees = trees(3);
    for number in 0..3 {
        trees.observe(Side::Alpha, path(number), crate::tree::Sight::Absent);
    }
    let alarm = Guard::default()
        .judge(&trees, &deletes(0..3), some_time())
        .unwrap_err();
    assert_eq!(
        (alarm.cause, alarm.deletes, alarm.side),
        (Cause::Emptied, 3, Side::Beta)
    );
}

#[test]
fn what_lost_a_conflict_is_not_counted() {
    let mut plan = rewrites(0..250);
    plan.conflicts = (0..250)
        .map(|number| Conflict {
            path: path(number),
            copy: path(number + 5000),
            lost: Side::Beta,
        })
        .collect();
    assert_eq!(verdict(300, &plan), Ok(()));
}

#[test]
fn a_confirmed_batch_passes_once_and_nothing_else_does() {
    let (trees, now) = (trees(200), some_time());
    let mut guard = Guard::default();
    let alarm = guard.judge(&trees, &deletes(0..100), now).unwrap_err();
    assert_eq!(alarm.batch().len(), 8);
    assert_ne!(
        alarm.batch(),
        guard
            .judge(&trees, &deletes(0..101), now)
            .unwrap_err()
            .batch()
    );
    guard.confirm(&alarm);
    // A little more beside it is everyday work; as much again is not.
    guard.judge(&trees, &deletes(0..110), now).unwrap();
    assert!(guard.judge(&trees, &deletes(0..190), now).is_err());
    guard.passed(&deletes(0..100), now);
    assert!(guard.judge(&trees, &deletes(0..100), now).is_err());
}

#[test]
fn a_journal_that_grows_is_no_other_batch() {
    let journal = |lines: u64| {
        let (side, op) = op(0, Some(file(lines)), Some(file(lines + 1)));
        let path = RelPath::parse("knowledge/.journal/vm/1-1.jsonl").unwrap();
        (side, Op { path, ..op })
    };
    let batch = |lines: u64| {
        let mut plan = deletes(0..60);
        plan.ops.push(journal(lines));
        let alarm = Guard::default()
            .judge(&trees(60), &plan, some_time())
            .unwrap_err();
        assert_eq!(alarm.paths().count(), 60);
        alarm.batch()
    };
    assert_eq!(batch(1), batch(2));
    let alone = Plan {
        ops: vec![journal(1)],
        ..Plan::default()
    };
    let mut guard = Guard::default();
    assert_eq!(guard.toll(&alone), 0);
    guard.passed(&alone, some_time());
    assert_eq!(guard.judge(&trees(60), &alone, some_time()), Ok(()));
}
