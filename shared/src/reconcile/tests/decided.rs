//! What settings and people decide about conflicts.

use super::*;

fn plan_with(trees: &Trees, rules: &ConflictRules, decisions: &Decisions) -> Plan {
    let policy = Policy {
        conflicts: rules,
        decisions,
        ..policy(Mode::TwoWaySafe, Side::Alpha)
    };
    reconcile(trees, &unsettled(trees), &|_| false, &policy)
}

#[test]
fn the_answer_goes_by_the_name() {
    let rules = ConflictRules::new(
        &["copied.db", "logs/old/"],
        &["*.key", "/vault/"],
        &["*.jsonl", "notes/**/*.md"],
    )
    .unwrap();
    let check = |raw: &str, answer| assert_eq!(rules.answer(&path(raw)), answer, "{raw}");
    check("a.txt", Answer::Copy);
    check("a.jsonl", Answer::Merge);
    check("logs/old/a.jsonl", Answer::Copy);
    check("notes/x/a.md", Answer::Merge);
    check("a.md", Answer::Copy);
    check("deep/a.key", Answer::Hold);
    check("vault/x/y", Answer::Hold);
    check("x/vault/y", Answer::Copy);
    check("any.sqlite", Answer::Hold);
    check("copied.db", Answer::Copy);
    assert!(ConflictRules::new(&["a{b"], &[], &[]).is_err());
}

#[test]
fn a_held_conflict_moves_nothing_until_somebody_decides() {
    let trees = trees("a.db:1", "a.db:2", "a.db:3");
    let mut decisions = Decisions::default();
    let rules = ConflictRules::default();
    let plan = plan_with(&trees, &rules, &decisions);
    assert_eq!(show(&plan), "?a.db");
    assert_eq!(plan.held[0].1, Hold::Undecided);
    let at = path("a.db");
    let mut check = |keep, expected: &str| {
        let decision = Decision {
            alpha: trees.sight(Side::Alpha, &at),
            beta: trees.sight(Side::Beta, &at),
            keep,
        };
        decisions.decide(at.clone(), decision);
        assert_eq!(show(&plan_with(&trees, &rules, &decisions)), expected);
    };
    check(Keep::Side(Side::Alpha), ">a.db:2");
    check(Keep::Side(Side::Beta), "<a.db:3");
    check(Keep::Both, "<a~.db:3 >a~.db:3 >a.db:2 !a.db");
}

#[test]
fn a_decision_counts_for_what_was_there_then() {
    let mut trees = trees("a.db:1", "a.db:2", "a.db:3");
    let at = path("a.db");
    let mut decisions = Decisions::default();
    let decision = Decision {
        alpha: trees.sight(Side::Alpha, &at),
        beta: trees.sight(Side::Beta, &at),
        keep: Keep::Side(Side::Alpha),
    };
    decisions.decide(at.clone(), decision);
    trees.observe(Side::Beta, at, Sight::Is(file("4", false)));
    let plan = plan_with(&trees, &ConflictRules::default(), &decisions);
    assert_eq!(show(&plan), "?a.db");
}

#[test]
fn deletions_can_be_undone_with_their_directories() {
    let trees = trees("d/x:1 d/y:2 e:1", "e:1", "d/x:1 d/y:2 e:1");
    let mut decisions = Decisions::default();
    for raw in ["d/x", "d/y"] {
        let decision = Decision {
            alpha: trees.sight(Side::Alpha, &path(raw)),
            beta: trees.sight(Side::Beta, &path(raw)),
            keep: Keep::Side(Side::Beta),
        };
        decisions.decide(path(raw), decision);
    }
    let plan = plan_with(&trees, &ConflictRules::default(), &decisions);
    assert_eq!(show(&plan), "<d/ <d/x:1 <d/y:2");
}

#[test]
fn a_merge_is_one_operation_of_the_pusher() {
    let rules = ConflictRules::new(&[], &[], &["*.jsonl", "*.md"]).unwrap();
    let decisions = Decisions::default();
    let merges = |base: &str, alpha: &str, beta: &str| {
        let trees = trees(base, alpha, beta);
        let plan = plan_with(&trees, &rules, &decisions);
        let merge = plan.ops.iter().find_map(|(side, op)| match &op.from {
            Source::Merge { base, how } => {
                assert_eq!((*side, op.agrees), (Side::Alpha, false));
                assert_eq!(op.wants().unwrap().0, &op.path);
                Some((base.is_some(), *how))
            }
            _ => None,
        });
        (merge, plan.conflicts.len())
    };
    use crate::merge::How;
    assert_eq!(
        merges("a.jsonl:1", "a.jsonl:2", "a.jsonl:3"),
        (Some((true, How::Lines)), 0)
    );
    assert_eq!(
        merges(".", "a.md:2", "a.md:3"),
        (Some((false, How::Text)), 0)
    );
    // A link is nothing to merge.
    assert_eq!(merges("a.md:1", "a.md>2", "a.md:3"), (None, 1));
}

#[test]
fn a_copy_is_resolved_on_both_sides() {
    let copy = "a (conflict mac 2026-11-22 101010 00000000).md";
    let at = path(copy);
    let mut trees = trees("a.md:1", "a.md:1", "a.md:1");
    let row = BaseRow {
        entry: Some(file("2", false)),
        batch: Gen(1),
    };
    trees.agree(at.clone(), row);
    for side in [Side::Alpha, Side::Beta] {
        trees.observe(side, at.clone(), Sight::Is(file("2", false)));
    }
    let shown = |use_copy| {
        let ops = resolve_copy(&trees, &at, use_copy).unwrap();
        assert!(ops.iter().all(|(_, op)| !op.agrees));
        show(&Plan {
            ops,
            ..Plan::default()
        })
    };
    assert_eq!(shown(false), "<-a~.md >-a~.md");
    assert_eq!(shown(true), "<a.md:2 >a.md:2 <-a~.md >-a~.md");
    let refused = |path: &RelPath| resolve_copy(&trees, path, true).unwrap_err();
    assert_eq!(refused(&path("a.md")), ResolveRefused::NoCopy);
    let mut moving = trees.clone();
    moving.observe(Side::Beta, at.clone(), Sight::Is(file("3", false)));
    assert_eq!(
        resolve_copy(&moving, &at, true).unwrap_err(),
        ResolveRefused::Unsettled
    );
}

#[test]
fn the_copy_of_a_directory_takes_its_place() {
    let copy = "d (conflict mac 2026-11-22 101010 00000000)";
    let mut trees = trees(
        "d/x:1 d/y:1 d/s/z:1",
        "d/x:1 d/y:1 d/s/z:1",
        "d/x:1 d/y:1 d/s/z:1",
    );
    let inner = [
        ("", Entry::Dir),
        ("/x", file("2", false)),
        ("/new", file("3", false)),
    ];
    for (below, entry) in inner {
        let at = path(&format!("{copy}{below}"));
        let row = BaseRow {
            entry: Some(entry.clone()),
            batch: Gen(1),
        };
        trees.agree(at.clone(), row);
        for side in [Side::Alpha, Side::Beta] {
            trees.observe(side, at.clone(), Sight::Is(entry.clone()));
        }
    }
    let ops = resolve_copy(&trees, &path(copy), true).unwrap();
    let beta = Plan {
        ops: ops
            .into_iter()
            .filter(|(side, _)| *side == Side::Beta)
            .collect(),
        ..Plan::default()
    };
    assert_eq!(
        show(&beta),
        ">-d/y >-d/s/z >-d/s >d/new:3 >d/x:2 >-d~/x >-d~/new >-d~"
    );
}

/// A plan for a receiver, or a pusher, whose volume folds names.
fn plan_folding(trees: &mut Trees, folds: [bool; 2]) -> String {
    trees.mind_twins();
    let policy = Policy {
        folds,
        ..policy(Mode::TwoWaySafe, Side::Alpha)
    };
    show(&reconcile(trees, &unsettled(trees), &|_| false, &policy))
}

#[test]
fn names_that_a_volume_does_not_tell_apart_are_held() {
    let to_beta = [false, true];
    let check = |base: &str, alpha: &str, beta: &str, folds, expected: &str| {
        let mut trees = trees(base, alpha, beta);
        assert_eq!(
            plan_folding(&mut trees, folds),
            expected,
            "{base} | {alpha} | {beta}"
        );
    };
    // Who is there already keeps the name; of two new ones the first.
    check("A.md:1", "A.md:1 a.md:2", "A.md:1", to_beta, "?a.md");
    check("a.md:1", "A.md:2 a.md:1", "a.md:1", to_beta, "?A.md");
    check(".", "A.md:1 a.md:2 b:3", ".", to_beta, ">A.md:1 >b:3 ?a.md");
    check(
        "A.md:1",
        "A.md:1 a.md:2",
        "A.md:1",
        [false, false],
        ">a.md:2",
    );
    // Composed and decomposed.
    check(
        "\u{e9}:1",
        "e\u{301}:2 \u{e9}:1",
        "\u{e9}:1",
        to_beta,
        "?e\u{301}",
    );
    // A directory is held with all that is in it.
    check("D/x:1", "D/x:1 d/y:2", "D/x:1", to_beta, "?d");
    // The other way round.
    check("A:1", "A:1", "A:1 a:2", [true, false], "?a");
    // What is held here is a name elsewhere.
    check("A/x:1", "A/x:1 b/X:2", "A/x:1", to_beta, ">b/ >b/X:2");
}

#[test]
fn a_rename_that_changes_only_case_first_makes_way() {
    let mut first = trees("A.md:1", "a.md:1", "A.md:1");
    assert_eq!(plan_folding(&mut first, [false, true]), ">-A.md");
    let mut then = trees(".", "a.md:1", ".");
    assert_eq!(plan_folding(&mut then, [false, true]), ">a.md:1");
}
