//! Moves: what disappears at one path of a side and is to appear at another is moved there.
//!
//! A plan says what becomes of each path, so a rename on one side is a deletion and a creation for the
//! other. [`with_moves`] finds the pairs and makes one operation of them, which needs no content, and
//! for a directory no operation for what is in it.
//!
//! A directory counts as moved when at least half of its files are planned for the same places in
//! another one. What differs was edited, made or removed beside the rename, and keeps its own operation: what
//! has no place in the new directory goes before the move, and what was not in the old one comes after it.
//! So nothing ever stands at a path where nobody has put it.

use std::collections::{BTreeMap, BTreeSet};

use super::Plan;
use crate::hash::ContentHash;
use crate::path::{RelPath, below};
use crate::transfer::{Op, Source, move_of, moved_ops};
use crate::tree::{Entry, Side, Sight, Trees};

/// So many deletions with one content are looked at for each creation with it.
const SAME_CONTENT_MAX: usize = 4;

/// Replaces creations and deletions that together are a rename by one operation each. `except` says which
/// paths nothing is to be moved to.
pub fn with_moves(trees: &Trees, plan: &mut Plan, except: &dyn Fn(&RelPath) -> bool) {
    for side in [Side::Alpha, Side::Beta] {
        let mut moves = Moves::of(trees, side, plan);
        if moves.goes.is_empty() || moves.comes.is_empty() {
            continue;
        }
        moves.find_directories(except);
        moves.find_files(except);
        let Moves {
            found,
            replaced,
            mut before,
            ..
        } = moves;
        if found.is_empty() {
            continue;
        }
        let mut ops = Vec::with_capacity(plan.ops.len());
        for (on, op) in std::mem::take(&mut plan.ops) {
            if on != side || !replaced.contains(&op.path) {
                ops.push((on, op));
            } else if let Some(found) = found.get(&op.path) {
                let first = before.remove(&op.path).unwrap_or_default();
                ops.extend(first.into_iter().map(|op| (side, op)));
                ops.push((side, found.op.clone()));
            }
        }
        plan.ops = ops;
        let changes = found.into_iter().map(|(to, found)| (to, found.changes));
        plan.moved.extend(changes);
    }
}

/// A move that was found.
struct Found {
    op: Op,
    /// The changes of single paths that it is.
    changes: Vec<Op>,
}

type Identity = (ContentHash, u64, bool);

fn identity(entry: &Entry) -> Option<Identity> {
    match entry {
        Entry::File { content, len, exec } if *len > 0 => Some((*content, *len, *exec)),
        _ => None,
    }
}

/// The search on one side.
struct Moves<'a> {
    trees: &'a Trees,
    side: Side,
    /// What goes from this side, and may go anywhere.
    goes: BTreeMap<RelPath, Entry>,
    /// What comes to this side.
    comes: BTreeMap<RelPath, Entry>,
    /// What a conflict copy is still to be made of.
    copied: BTreeSet<RelPath>,
    /// The moves, by their targets.
    found: BTreeMap<RelPath, Found>,
    /// Paths whose operation is part of a move, or has another place in the order.
    replaced: BTreeSet<RelPath>,
    /// The deletions that have to come before a move, by its target.
    before: BTreeMap<RelPath, Vec<Op>>,
}

impl<'a> Moves<'a> {
    fn of(trees: &'a Trees, side: Side, plan: &Plan) -> Self {
        let mut moves = Self {
            trees,
            side,
            goes: BTreeMap::new(),
            comes: BTreeMap::new(),
            copied: BTreeSet::new(),
            found: BTreeMap::new(),
            replaced: BTreeSet::new(),
            before: BTreeMap::new(),
        };
        let mut cleared = Vec::new();
        let (mut once, mut often) = (BTreeSet::new(), Vec::new());
        for (_, op) in plan.ops.iter().filter(|(on, _)| *on == side) {
            if !once.insert(&op.path) {
                often.push(&op.path);
            }
            match (&op.expect, &op.make, &op.from) {
                (None, Some(_), Source::Here(from)) => drop(moves.copied.insert(from.clone())),
                (Some(was), None, _) if op.agrees => {
                    moves.goes.insert(op.path.clone(), was.clone());
                }
                (None, Some(entry), from) if op.agrees => {
                    let is_plain = match from {
                        Source::There(path) => *path == op.path,
                        Source::Nothing => true,
                        _ => false,
                    };
                    if is_plain {
                        moves.comes.insert(op.path.clone(), entry.clone());
                    }
                }
                // What is in it has to leave before it is replaced.
                (Some(Entry::Dir), Some(_), _) => cleared.push(op.path.clone()),
                _ => {}
            }
        }
        // What a conflict copy is made of, for one, has a part in more than one operation.
        for path in often {
            moves.goes.remove(path);
            moves.comes.remove(path);
        }
        for dir in cleared {
            let gone: Vec<RelPath> = below(&moves.goes, &dir)
                .map(|(path, _)| path.clone())
                .collect();
            for path in gone {
                moves.goes.remove(&path);
            }
        }
        moves
    }

    fn find_directories(&mut self, except: &dyn Fn(&RelPath) -> bool) {
        let mut counts: BTreeMap<(RelPath, RelPath), usize> = BTreeMap::new();
        for (from, to) in self.same_contents() {
            if let Some(pair) = self.top_of(&from, &to) {
                *counts.entry(pair).or_default() += 1;
            }
        }
        let mut pairs: Vec<_> = counts.into_iter().collect();
        pairs.sort_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.cmp(b)));
        for ((from, to), same) in pairs {
            let files = below(&self.goes, &from)
                .filter(|(_, entry)| identity(entry).is_some())
                .count();
            if 2 * same >= files && !except(&to) {
                self.move_directory(&from, &to);
            }
        }
    }

    /// Returns files that go together with files of the same content that come.
    fn same_contents(&self) -> Vec<(RelPath, RelPath)> {
        let mut going: BTreeMap<Identity, Vec<&RelPath>> = BTreeMap::new();
        for (path, entry) in &self.goes {
            if let Some(identity) = identity(entry) {
                let paths = going.entry(identity).or_default();
                if paths.len() < SAME_CONTENT_MAX {
                    paths.push(path);
                }
            }
        }
        let pairs = self.comes.iter().flat_map(|(to, entry)| {
            let from = identity(entry).and_then(|identity| going.get(&identity));
            from.into_iter()
                .flatten()
                .map(|from| ((*from).clone(), to.clone()))
        });
        pairs.collect()
    }

    /// Returns the topmost directories of which one goes and one comes and in which the two files have the
    /// same place.
    fn top_of(&self, from: &RelPath, to: &RelPath) -> Option<(RelPath, RelPath)> {
        let is_dir = |map: &BTreeMap<RelPath, Entry>, path: &RelPath| {
            map.get(path).is_some_and(Entry::is_dir)
        };
        let (mut below_from, mut below_to) = (from.clone(), to.clone());
        let mut top = None;
        while below_from.name() == below_to.name()
            && let (Some(from), Some(to)) = (below_from.parent(), below_to.parent())
            && is_dir(&self.goes, &from)
            && is_dir(&self.comes, &to)
        {
            (below_from, below_to) = (from.clone(), to.clone());
            top = Some((from, to));
        }
        top
    }

    fn move_directory(&mut self, from: &RelPath, to: &RelPath) {
        let overlaps = |path: &RelPath| {
            let one_of = |map: &BTreeSet<RelPath>| {
                map.contains(path) || map.range(path..).next().is_some_and(|it| it.is_below(path))
            };
            one_of(&self.replaced)
        };
        let is_copied = |path: &RelPath| {
            self.copied
                .range(path..)
                .next()
                .is_some_and(|it| it == path || it.is_below(path))
        };
        let apart = self.trees.view(self.side).apart();
        let is_blocked = below(apart, from).any(|(_, sight)| matches!(sight, Sight::Blocked(_)));
        let standing = self.trees.entries_from(self.side, from);
        let all_go = standing
            .iter()
            .all(|(path, entry)| self.goes.get(path) == Some(entry));
        if overlaps(from) || overlaps(to) || is_copied(from) || is_blocked || !all_go {
            return;
        }
        let comes = |(path, entry): &(RelPath, Entry)| {
            let place = path.rebase(from, to).ok();
            place.is_some_and(|place| self.comes.get(&place) == Some(entry))
        };
        let (moved, left): (Vec<_>, Vec<_>) = standing.into_iter().partition(comes);
        let Some(found) = found(from, to, &moved) else {
            return;
        };
        // The content before its directory.
        let removals = left.iter().rev().map(|(path, entry)| Op {
            path: path.clone(),
            expect: Some(entry.clone()),
            make: None,
            from: Source::Nothing,
            agrees: true,
        });
        self.before.insert(to.clone(), removals.collect());
        let changed = found.changes.iter().map(|op| op.path.clone());
        self.replaced.extend(changed);
        self.replaced.extend(left.into_iter().map(|(path, _)| path));
        self.found.insert(to.clone(), found);
    }

    fn find_files(&mut self, except: &dyn Fn(&RelPath) -> bool) {
        let mut pairs = self.same_contents();
        // Whoever sorts files into folders keeps their names.
        pairs.sort_by_key(|(from, to)| from.name() != to.name());
        for (from, to) in pairs {
            let is_free = |path: &RelPath| !self.replaced.contains(path);
            if !is_free(&from) || !is_free(&to) || self.copied.contains(&from) || except(&to) {
                continue;
            }
            let standing: Vec<(RelPath, Entry)> = self
                .goes
                .get_key_value(&from)
                .map(|(path, entry)| (path.clone(), entry.clone()))
                .into_iter()
                .collect();
            if let Some(found) = found(&from, &to, &standing) {
                self.replaced.extend([from, to.clone()]);
                self.found.insert(to, found);
            }
        }
    }
}

fn found(from: &RelPath, to: &RelPath, moved: &[(RelPath, Entry)]) -> Option<Found> {
    let op = move_of(from, to, moved)?;
    let changes = moved_ops(&op, moved)?;
    Some(Found { op, changes })
}
