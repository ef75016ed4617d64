//! Renames in plans.

use super::*;
use crate::transfer::moved_ops;

/// What a side gets: `from=>to` for a move, `+path` and `-path` for the rest; then what comes later.
fn shown(base: &str, alpha: &str, beta: &str) -> String {
    let trees = trees(base, alpha, beta);
    let mut plan = plan_of(&trees, Side::Alpha);
    with_moves(&trees, &mut plan, &|_| false);
    let word = |(_, op): &(Side, Op)| match (op.moves(), &op.make) {
        (Some((from, _)), _) => format!("{from}=>{}", op.path),
        (None, Some(_)) => format!("+{}", op.path),
        (None, None) => format!("-{}", op.path),
    };
    let later = plan.undecided.iter().map(|path| format!("({path})"));
    let words: Vec<String> = plan.ops.iter().map(word).chain(later).collect();
    words.join(" ")
}

#[test]
fn a_directory_is_one_operation() {
    let check = |alpha, plan| {
        let base = "d/a:1 d/b:2 d/s/c:3 k:4";
        assert_eq!(shown(base, alpha, base), plan, "{alpha}");
    };
    check("e/a:1 e/b:2 e/s/c:3 k:4", "d=>e");
    check("e/f/a:1 e/f/b:2 e/f/s/c:3 k:4", "+e d=>e/f");
    // Edited, added and deleted beside it.
    check("e/a:1 e/b:5 e/s/c:3 k:4", "-d/b d=>e +e/b");
    check("e/a:1 e/b:2 e/n:5 e/s/c:3 k:4", "d=>e +e/n");
    check("e/a:1 e/b:2 k:4", "-d/s/c -d/s d=>e");
    // Something else goes into it.
    check("e/a:1 e/b:2 e/s/c:3 e/k:4", "d=>e k=>e/k");
    // Only a directory in it, or a file.
    check("d/a:1 d/b:2 e/c:3 k:4", "d/s=>e");
    check("d/b:2 d/s/c:3 k:4 z:1", "d/a=>z");
    // Most of it went elsewhere.
    check("e/a:1 k:4", "+e d/a=>e/a -d/s/c -d/s -d/b -d");
    check("x/a:1 y/b:2 y/s/c:3 k:4", "+x +x/a -d/a d=>y");
}

#[test]
fn what_the_other_side_did_is_not_moved_away() {
    let base = "d/a:1 d/b:2";
    let check = |beta, plan| assert_eq!(shown(base, "e/a:1 e/b:2", beta), plan, "{beta}");
    check("d/a:1 d/b:2", "d=>e");
    // Something new, changed or unreadable in it: the directory stays there, and its files go.
    check("d/a:1 d/b:2 d/n:3", "+d +d/n +e d/a=>e/a d/b=>e/b");
    check("d/a:1 d/b:5", "+d +d/b +e d/a=>e/a +e/b");
    check("d/a:1 d/b:2 ?d/x", "+e +e/a +e/b");
    check("d/a:1 d/b:2 ~d/x", "+e +e/a +e/b");
}

#[test]
fn files_are_moved_by_what_is_in_them() {
    let check = |base, alpha, plan| assert_eq!(shown(base, alpha, base), plan, "{base} | {alpha}");
    check("a:1", "b:1", "a=>b");
    check("a:1", "b:2", "+b -a");
    // An empty file, a link: there is nothing to send.
    check("a:", "b:", "+b -a");
    check("a>x", "b>x", "+b -a");
    check("a:1", "b:1*", "+b -a");
    // A copy is made of what stays.
    check("a:1", "a:1 b:1", "+b");
    // Names are kept where one can choose, and each goes to one place only.
    check("a:1 b:1", "s/b:1 s/a:1", "+s a=>s/a b=>s/b");
    check("a:1", "b:1 c:1", "a=>b +c");
    check("a:1 b:1", "c:1", "a=>c -b");
    // It has to leave before its directory becomes a file.
    check("d/a:1", "d:2 e:1", "-d/a +d +e");
}

#[test]
fn a_move_is_left_out_where_it_failed() {
    let trees = trees("a:1 b:2", "c:1 d:2", "a:1 b:2");
    let mut plan = plan_of(&trees, Side::Alpha);
    with_moves(&trees, &mut plan, &|to| *to == path("c"));
    let moves: Vec<_> = plan.ops.iter().filter_map(|(_, op)| op.moves()).collect();
    assert_eq!(moves.len(), 1);
    assert_eq!(*moves[0].0, path("b"));
}

#[test]
fn a_move_says_what_stands_there() {
    let trees = trees("d/a:1 d/b:2", "e/a:1 e/b:2", "d/a:1 d/b:2");
    let mut plan = plan_of(&trees, Side::Alpha);
    with_moves(&trees, &mut plan, &|_| false);
    let (side, op) = &plan.ops[0];
    let standing = trees.entries_from(*side, &path("d"));
    assert_eq!(moved_ops(op, &standing).map(|ops| ops.len()), Some(6));
}
