//! What both trees came through by the mirror counts as agreed on.

use super::*;
use crate::mirror::{Step, Trail};

/// Makes a trail of copies, the latest first: the number of the writing, and what it was at `a`; `-` for nothing.
fn trail(batch: u64, steps: &[(u64, &str)]) -> Trail {
    let step = |(writing, content): &(u64, &str)| Step {
        writing: *writing,
        entry: (*content != "-").then(|| file(content, false)),
    };
    Trail {
        batch: Gen(batch),
        steps: steps.iter().map(step).collect(),
    }
}

fn came_through(trees: &mut Trees, alpha: Trail, beta: Trail) {
    trees.came_through(Side::Alpha, path("a"), alpha);
    trees.came_through(Side::Beta, path("a"), beta);
}

#[test]
fn the_later_of_two_versions_is_found() {
    let check = |base, sides: [&str; 2], alpha: &[(u64, &str)], beta: &[(u64, &str)], expected| {
        let mut trees = trees(base, sides[0], sides[1]);
        came_through(&mut trees, trail(9, alpha), trail(9, beta));
        let shown = show(&plan_of(&trees, Side::Alpha));
        assert_eq!(shown, expected, "{base} | {sides:?}");
    };
    // An edit of an edit that had crossed.
    check("a:5", ["a:2", "a:1"], &[(1, "1")], &[(1, "1")], ">a:2");
    check("a:5", ["a:1", "a:2"], &[(1, "1")], &[(1, "1")], "<a:2");
    check(
        "a:5",
        ["a:3", "a:1"],
        &[(2, "2"), (1, "1")],
        &[(1, "1")],
        ">a:3",
    );
    // Both edited it since.
    check(
        "a:5",
        ["a:2", "a:3"],
        &[(1, "1")],
        &[(1, "1")],
        "<a~:3 >a~:3 >a:2 !a",
    );
    // Made, crossed, and removed again; and edited elsewhere meanwhile.
    check(".", [".", "a:1"], &[(2, "-"), (1, "1")], &[(1, "1")], ">-a");
    check(".", ["a:1", "."], &[(1, "1")], &[(1, "1")], "<-a");
    check(
        ".",
        [".", "a:3"],
        &[(2, "-"), (1, "1")],
        &[(1, "1")],
        "<a:3",
    );
    // Back to what was agreed on.
    check("a:5", ["a:5", "a:1"], &[(1, "1")], &[(1, "1")], ">a:5");
    check(
        "a:5",
        ["a:5", "."],
        &[(2, "-"), (1, "1")],
        &[(2, "-")],
        ">a:5",
    );
    // They never met.
    check(
        "a:5",
        ["a:2", "a:1"],
        &[(2, "2")],
        &[(1, "1")],
        "<a~:1 >a~:1 >a:2 !a",
    );
    // A bit and a content, each changed since.
    check(
        "a:5",
        ["a:1*", "a:2"],
        &[(1, "1")],
        &[(1, "1")],
        "<a:2* >a:2*",
    );
}

#[test]
fn a_bit_that_is_turned_settles_what_crossed() {
    let mut trees = trees(".", "a:1*", "a:1");
    came_through(&mut trees, trail(1, &[(1, "1")]), trail(1, &[(1, "1")]));
    let plan = plan_of(&trees, Side::Alpha);
    assert_eq!(show(&plan), ">a:1*");
    assert!(plan.ops[0].1.agrees, "its content is durable on both sides");
}

#[test]
fn a_folder_with_what_crossed_makes_way_and_one_with_more_does_not() {
    let plan = |beta: &str| {
        let mut trees = trees(".", "a:2", beta);
        for at in ["a", "a/b"] {
            let step = Step {
                writing: 1,
                entry: Some(if at == "a" {
                    Entry::Dir
                } else {
                    file("1", false)
                }),
            };
            for side in [Side::Alpha, Side::Beta] {
                let steps = vec![step.clone()];
                let batch = Gen(1);
                trees.came_through(side, path(at), Trail { batch, steps });
            }
        }
        show(&plan_of(&trees, Side::Alpha))
    };
    assert_eq!(plan("a/ a/b:1"), ">-a/b >a:2");
    let kept = "<a~/ >a~/ <a~/b:1 >a~/b:1 <a~/c:3 >a~/c:3 >-a/c >-a/b >a:2 !a";
    assert_eq!(plan("a/ a/b:1 a/c:3"), kept);
}

#[test]
fn what_is_equal_is_agreed_on_and_ends_the_trail() {
    let check = |base, sides, alpha: &[(u64, &str)], beta: &[(u64, &str)], expected| {
        let mut trees = trees(base, sides, sides);
        came_through(&mut trees, trail(1, alpha), trail(1, beta));
        let scope = BTreeSet::from([path("a")]);
        let planned = reconcile(
            &trees,
            &scope,
            &|_| false,
            &policy(Mode::TwoWaySafe, Side::Alpha),
        );
        assert_eq!(show(&planned), expected);
        let entry = trees.sight(Side::Alpha, &path("a")).entry().cloned();
        let batch = Gen(2);
        trees.agree(path("a"), BaseRow { entry, batch });
        let again = reconcile(
            &trees,
            &scope,
            &|_| false,
            &policy(Mode::TwoWaySafe, Side::Alpha),
        );
        assert_eq!(show(&again), "nothing");
    };
    check("a:5", "a:1", &[(1, "1")], &[(1, "1")], "=a:1");
    // Both are back at what was agreed on, or at nothing.
    check("a:5", "a:5", &[(2, "5"), (1, "1")], &[(1, "1")], "=a:5");
    check(".", ".", &[(2, "-"), (1, "1")], &[(1, "1")], "=-a");
}

#[test]
fn a_trail_ends_where_the_pair_agrees() {
    let start = || {
        let mut trees = trees("a:5", "a:2", "a:1");
        came_through(&mut trees, trail(1, &[(1, "1")]), trail(1, &[(1, "1")]));
        trees
    };
    let row = |batch| BaseRow {
        entry: Some(file("5", false)),
        batch: Gen(batch),
    };
    let conflict = "<a~:1 >a~:1 >a:2 !a";
    let mut trees = start();
    trees.agree(path("a"), row(1));
    assert_eq!(show(&plan_of(&trees, Side::Alpha)), ">a:2", "told again");
    trees.agree(path("a"), row(2));
    assert_eq!(show(&plan_of(&trees, Side::Alpha)), conflict);
    came_through(&mut trees, trail(1, &[(1, "1")]), trail(1, &[(1, "1")]));
    assert_eq!(show(&plan_of(&trees, Side::Alpha)), conflict, "it is over");
    let mut trees = start();
    trees.forget_side(Side::Beta);
    assert_eq!(trees.ancestor(&path("a")), Some(&file("5", false)));
}
