//! Moves: a rename is one operation, and many changes of single paths.
//!
//! What is renamed keeps its content, so neither side reads it or sends it; it is the names that
//! change. The base knows no renames, only what stands at each path. So both sides break a move into
//! the same changes of single paths, from what they know to stand there, and the set hash in the
//! operation makes sure that they know the same.

use super::{Op, Source};
use crate::hash::SetHash;
use crate::path::RelPath;
use crate::tree::Entry;

/// Returns the operation that moves what stands at `from`, and below it, to `to`, where nothing stands.
/// `None` when there is nothing at `from`, or when a path would become too long.
pub fn move_of(from: &RelPath, to: &RelPath, standing: &[(RelPath, Entry)]) -> Option<Op> {
    let (_, top) = standing.iter().find(|(path, _)| path == from)?;
    Some(Op {
        path: to.clone(),
        expect: None,
        make: Some(top.clone()),
        from: Source::Moved {
            from: from.clone(),
            tree: hash_there(from, to, standing)?,
        },
        agrees: true,
    })
}

/// Breaks a move into changes of single paths: what appears, a directory before its content, and what
/// goes, the content before its directory. `standing` is what is known at the place that it moves from, and
/// below it, in the order of paths.
///
/// Returns `None` when that is not what the operation is about, or when it is no move.
pub fn moved_ops(op: &Op, standing: &[(RelPath, Entry)]) -> Option<Vec<Op>> {
    let (from, tree) = op.moves()?;
    let to = &op.path;
    let is_sound = op.expect.is_none() && op.agrees && from != to;
    let is_outside = !to.is_below(from) && !from.is_below(to);
    let is_top = |(path, entry): &(RelPath, Entry)| path == from && Some(entry) == op.make.as_ref();
    if !is_sound
        || !is_outside
        || !standing.iter().any(is_top)
        || hash_there(from, to, standing)? != tree
    {
        return None;
    }
    let change = |path: RelPath, expect: Option<&Entry>, make: Option<&Entry>| Op {
        path,
        expect: expect.cloned(),
        make: make.cloned(),
        from: Source::Nothing,
        agrees: true,
    };
    let mut ops = Vec::with_capacity(2 * standing.len());
    for (path, entry) in standing {
        ops.push(change(path.rebase(from, to).ok()?, None, Some(entry)));
    }
    for (path, entry) in standing.iter().rev() {
        ops.push(change(path.clone(), Some(entry), None));
    }
    Some(ops)
}

fn hash_there(from: &RelPath, to: &RelPath, standing: &[(RelPath, Entry)]) -> Option<SetHash> {
    let mut hash = SetHash::default();
    for (path, entry) in standing {
        if path != from && !path.is_below(from) {
            return None;
        }
        hash.add(&path.rebase(from, to).ok()?, entry);
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::ContentHash;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a path")
    }

    fn file(text: &str) -> Entry {
        Entry::File {
            content: ContentHash::of_bytes(text.as_bytes()),
            len: text.len() as u64,
            exec: false,
        }
    }

    fn standing() -> Vec<(RelPath, Entry)> {
        vec![
            (path("a"), Entry::Dir),
            (path("a/1"), file("one")),
            (path("a/2"), file("two")),
        ]
    }

    #[test]
    fn a_move_is_creations_and_deletions() {
        let op = move_of(&path("a"), &path("b/c"), &standing()).expect("a move");
        assert_eq!((&op.expect, &op.make), (&None, &Some(Entry::Dir)));
        let ops = moved_ops(&op, &standing()).expect("the same tree");
        let shown: Vec<String> = ops
            .iter()
            .map(|op| format!("{}{}", if op.make.is_some() { '+' } else { '-' }, op.path))
            .collect();
        assert_eq!(shown, ["+b/c", "+b/c/1", "+b/c/2", "-a/2", "-a/1", "-a"]);
    }

    #[test]
    fn another_tree_is_not_moved() {
        let op = move_of(&path("a"), &path("b"), &standing()).expect("a move");
        let mut edited = standing();
        edited[1].1 = file("ONE");
        assert_eq!(moved_ops(&op, &edited), None);
        assert_eq!(moved_ops(&op, &standing()[..2]), None);
        assert_eq!(moved_ops(&op, &[]), None);
        assert_eq!(move_of(&path("x"), &path("b"), &standing()), None);
    }

    #[test]
    fn nothing_is_moved_into_itself() {
        for to in ["a", "a/b"] {
            let op = move_of(&path("a"), &path(to), &standing()).expect("a move");
            assert_eq!(moved_ops(&op, &standing()), None, "{to}");
        }
        let inside = [(path("a/b"), Entry::Dir)];
        let op = move_of(&path("a/b"), &path("a"), &inside).expect("a move");
        assert_eq!(moved_ops(&op, &inside), None);
    }

    #[test]
    fn a_path_that_gets_too_long_is_no_move() {
        let deep = |name: &str| path(&[name; 16].join("/"));
        let long = deep(&"x".repeat(200));
        let standing = [
            (path("a"), Entry::Dir),
            (path(&format!("a/{long}")), file("1")),
        ];
        assert_eq!(
            move_of(&path("a"), &deep(&"y".repeat(100)), &standing),
            None
        );
    }
}
