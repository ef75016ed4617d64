//! Random histories: a tree, random operations on each side, a plan, the plan carried out in
//! memory. What must hold is named in the tests.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{file, path, policy, unsettled};
use crate::path::RelPath;
use crate::reconcile::{Mode, Plan, Policy, reconcile, with_moves};
use crate::transfer::{Op, Source, moved_ops};
use crate::tree::{Base, BaseRow, Entry, Gen, Side, Sight, Trees};

type Tree = BTreeMap<RelPath, Entry>;

/// What a person does on one side.
#[derive(Debug, Clone)]
enum Act {
    Write(RelPath, u8, bool),
    Link(RelPath, u8),
    Mkdir(RelPath),
    Remove(RelPath),
    Rename(RelPath, RelPath),
}

fn some_path() -> impl Strategy<Value = RelPath> {
    prop::sample::select(vec![
        "a", "b", "c", "a/a", "a/b", "a/c", "b/a", "b/b", "a/a/a", "a/a/b", "a/b/a", "a.x", "b.md",
    ])
    .prop_map(path)
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (some_path(), 0u8..4, any::<bool>()).prop_map(|(p, c, x)| Act::Write(p, c, x)),
        1 => (some_path(), 0u8..3).prop_map(|(p, t)| Act::Link(p, t)),
        1 => some_path().prop_map(Act::Mkdir),
        2 => some_path().prop_map(Act::Remove),
        1 => (some_path(), some_path()).prop_map(|(p, q)| Act::Rename(p, q)),
    ]
}

/// Carries out an act as a file system would: an act that makes no sense does nothing.
fn perform(tree: &mut Tree, act: &Act) {
    let parent_ok = |tree: &Tree, p: &RelPath| {
        p.parent()
            .is_none_or(|parent| tree.get(&parent) == Some(&Entry::Dir))
    };
    let remove = |tree: &mut Tree, p: &RelPath| tree.retain(|q, _| q != p && !q.is_below(p));
    let put = |tree: &mut Tree, p: &RelPath, entry: Entry| {
        if parent_ok(tree, p) {
            remove(tree, p);
            tree.insert(p.clone(), entry);
        }
    };
    match act {
        Act::Write(p, content, exec) => put(tree, p, file(&content.to_string(), *exec)),
        Act::Link(p, target) => put(
            tree,
            p,
            Entry::Symlink {
                target: target.to_string().into(),
            },
        ),
        Act::Mkdir(p) => {
            if tree.get(p) != Some(&Entry::Dir) {
                put(tree, p, Entry::Dir);
            }
        }
        Act::Remove(p) => remove(tree, p),
        Act::Rename(p, q) => {
            if q == p
                || q.is_below(p)
                || p.is_below(q)
                || !parent_ok(tree, q)
                || !tree.contains_key(p)
            {
                return;
            }
            let moved: Vec<_> = tree
                .iter()
                .filter(|(r, _)| *r == p || r.is_below(p))
                .map(|(r, entry)| (r.rebase(p, q).unwrap(), entry.clone()))
                .collect();
            remove(tree, p);
            remove(tree, q);
            tree.extend(moved);
        }
    }
}

/// Both machines in memory.
#[derive(Clone)]
struct World {
    trees: Trees,
    disks: BTreeMap<Side, Tree>,
    kept: BTreeMap<Side, Vec<Entry>>,
    /// Whether renames are looked for in plans.
    moves: bool,
}

impl World {
    fn new(start: &[Act], alpha: &[Act], beta: &[Act]) -> Self {
        let mut disk = Tree::new();
        start.iter().for_each(|act| perform(&mut disk, act));
        let base: Base = disk
            .iter()
            .map(|(p, e)| {
                (
                    p.clone(),
                    BaseRow {
                        entry: Some(e.clone()),
                        batch: Gen(1),
                    },
                )
            })
            .collect();
        let mut world = Self {
            trees: Trees::new(base),
            disks: [(Side::Alpha, disk.clone()), (Side::Beta, disk)].into(),
            kept: [(Side::Alpha, vec![]), (Side::Beta, vec![])].into(),
            moves: false,
        };
        world.act(Side::Alpha, alpha);
        world.act(Side::Beta, beta);
        world
    }

    fn act(&mut self, side: Side, acts: &[Act]) {
        acts.iter()
            .for_each(|act| perform(self.disks.get_mut(&side).unwrap(), act));
        let paths: BTreeSet<RelPath> = self
            .trees
            .base()
            .keys()
            .chain(unsettled(&self.trees).iter())
            .chain(self.disks[&side].keys())
            .cloned()
            .collect();
        for p in paths {
            let entry = self.disks[&side].get(&p).cloned();
            self.trees.observe(side, p, entry.into());
        }
    }

    fn plan(&self, scope: &BTreeSet<RelPath>, policy: &Policy) -> Plan {
        let mut plan = reconcile(&self.trees, scope, &|_| false, policy);
        if self.moves {
            with_moves(&self.trees, &mut plan, &|_| false);
        }
        plan
    }

    /// Breaks the moves of a plan into what they do, to what stands there when it is their turn.
    fn broken_up(&self, plan: &Plan) -> Vec<(Side, Op)> {
        let mut disks = self.disks.clone();
        let mut broken_up = Vec::new();
        for (side, op) in &plan.ops {
            let disk = disks.get_mut(side).unwrap();
            let ops = match op.moves() {
                None => vec![op.clone()],
                Some((from, _)) => {
                    let standing: Vec<_> = disk
                        .iter()
                        .filter(|(path, _)| *path == from || path.is_below(from))
                        .map(|(path, entry)| (path.clone(), entry.clone()))
                        .collect();
                    moved_ops(op, &standing).expect("what stands there is what is moved")
                }
            };
            for op in ops {
                match &op.make {
                    Some(entry) => drop(disk.insert(op.path.clone(), entry.clone())),
                    None => drop(disk.remove(&op.path)),
                }
                broken_up.push((*side, op));
            }
        }
        broken_up
    }

    /// Carries out a plan as the two disks would, and checks each step as they would.
    fn apply(&mut self, plan: &Plan) {
        let before = self.disks.clone();
        let ops = self.broken_up(plan);
        let mut left: BTreeMap<&RelPath, usize> = BTreeMap::new();
        ops.iter()
            .for_each(|(_, op)| *left.entry(&op.path).or_default() += 1);
        for (side, op) in &ops {
            self.check_source(&before, *side, op);
            let disk = self.disks.get_mut(side).unwrap();
            assert_eq!(disk.get(&op.path), op.expect.as_ref(), "stale: {op:?}");
            if let Some(old) = &op.expect {
                let inside = disk.keys().any(|q| q.is_below(&op.path));
                assert!(!(old.is_dir() && inside), "not empty: {op:?}");
                self.kept.get_mut(side).unwrap().push(old.clone());
            }
            match &op.make {
                Some(new) => {
                    let parent = op.path.parent();
                    assert!(
                        parent.is_none_or(|p| disk.get(&p) == Some(&Entry::Dir)),
                        "no parent: {op:?}"
                    );
                    disk.insert(op.path.clone(), new.clone());
                }
                None => drop(disk.remove(&op.path)),
            }
            self.trees
                .observe(*side, op.path.clone(), op.make.clone().into());
            *left.get_mut(&op.path).unwrap() -= 1;
            assert!(
                !op.agrees || left[&op.path] == 0,
                "the base would be ahead: {op:?}"
            );
            if left[&op.path] == 0
                && (op.agrees
                    || self.disks[&Side::Alpha].get(&op.path)
                        == self.disks[&Side::Beta].get(&op.path))
            {
                self.trees.agree(
                    op.path.clone(),
                    BaseRow {
                        entry: op.make.clone(),
                        batch: Gen(2),
                    },
                );
            }
        }
        for (p, entry) in &plan.agree {
            self.trees.agree(
                p.clone(),
                BaseRow {
                    entry: entry.clone(),
                    batch: Gen(2),
                },
            );
        }
    }

    fn check_source(&self, before: &BTreeMap<Side, Tree>, side: Side, op: &Op) {
        let (from, at) = match &op.from {
            Source::Nothing => return,
            Source::There(at) => (side.other(), at),
            Source::Merge { .. } => (side.other(), &op.path),
            Source::Here(at) => (side, at),
            Source::Moved { .. } => unreachable!("broken up"),
        };
        let there = before[&from].get(at).expect("the source is there");
        assert_eq!(
            there.identity(),
            op.make.as_ref().unwrap().identity(),
            "wrong content: {op:?}"
        );
    }

    fn settle(&mut self, policy: &Policy) {
        for _ in 0..if self.moves { 6 } else { 4 } {
            let plan = self.plan(&unsettled(&self.trees), policy);
            if plan.is_quiet() {
                return;
            }
            self.apply(&plan);
        }
        panic!(
            "not quiet after four rounds: {:?}",
            self.plan(&unsettled(&self.trees), policy)
        );
    }

    fn contents(&self, side: Side) -> BTreeSet<String> {
        let disk = self.disks[&side].values();
        disk.chain(&self.kept[&side])
            .filter(|e| !e.is_dir())
            .map(|e| format!("{:?}", e.identity()))
            .collect()
    }
}

fn history() -> impl Strategy<Value = (Vec<Act>, Vec<Act>, Vec<Act>)> {
    let acts = || prop::collection::vec(act(), 0..8);
    (prop::collection::vec(act(), 0..14), acts(), acts())
}

fn mode() -> impl Strategy<Value = Mode> {
    prop::sample::select(Mode::ALL.to_vec())
}

/// What was edited in a renamed directory goes before the move, so the rest is what is moved.
#[test]
fn a_directory_is_renamed_and_a_bit_in_it_turned() {
    let start = [
        Act::Mkdir(path("a")),
        Act::Write(path("a/a"), 0, false),
        Act::Write(path("a/b"), 0, false),
    ];
    let beta = [
        Act::Write(path("a/a"), 0, true),
        Act::Rename(path("a"), path("b")),
    ];
    let mut world = World {
        moves: true,
        ..World::new(&start, &[], &beta)
    };
    world.settle(&policy(Mode::TwoWaySafe, Side::Alpha));
    assert_eq!(world.disks[&Side::Alpha], world.disks[&Side::Beta]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Two-way modes and the replica converge; every mode falls quiet and leaves the set hashes right.
    #[test]
    fn converged_and_quiet((start, alpha, beta) in history(), mode in mode(), primary in prop::sample::select(vec![Side::Alpha, Side::Beta])) {
        let mut world = World::new(&start, &alpha, &beta);
        let policy = policy(mode, primary);
        let plan = world.plan(&unsettled(&world.trees), &policy);
        prop_assert_eq!(&plan, &world.plan(&unsettled(&world.trees), &policy), "same inputs, same plan");
        world.settle(&policy);
        if mode != Mode::OneWaySafe {
            prop_assert_eq!(&world.disks[&Side::Alpha], &world.disks[&Side::Beta]);
            prop_assert_eq!(world.trees.view(Side::Alpha).hash(), world.trees.view(Side::Beta).hash());
            prop_assert!(unsettled(&world.trees).is_empty());
        }
        for side in [Side::Alpha, Side::Beta] {
            let mut hash = crate::hash::SetHash::default();
            world.disks[&side].iter().for_each(|(p, e)| hash.add(p, e));
            prop_assert_eq!(world.trees.view(side).hash(), hash);
        }
    }

    /// Whatever was on a side before is on a disk or in that side's kept store afterwards.
    #[test]
    fn nothing_is_lost((start, alpha, beta) in history(), mode in mode()) {
        let mut world = World::new(&start, &alpha, &beta);
        let before = [Side::Alpha, Side::Beta].map(|side| world.contents(side));
        world.settle(&policy(mode, Side::Alpha));
        for (side, before) in [Side::Alpha, Side::Beta].into_iter().zip(before) {
            let after = world.contents(side);
            prop_assert!(before.is_subset(&after), "lost {:?}", before.difference(&after).collect::<Vec<_>>());
        }
    }

    /// With and without renames, the trees become the same, and nothing is lost.
    #[test]
    fn moves_change_the_way_and_not_the_end((start, alpha, beta) in history(), mode in mode()) {
        let policy = policy(mode, Side::Alpha);
        let mut plain = World::new(&start, &alpha, &beta);
        let mut moving = World { moves: true, ..plain.clone() };
        let before = [Side::Alpha, Side::Beta].map(|side| plain.contents(side));
        plain.settle(&policy);
        moving.settle(&policy);
        prop_assert_eq!(&plain.disks, &moving.disks);
        for (side, before) in [Side::Alpha, Side::Beta].into_iter().zip(before) {
            prop_assert!(before.is_subset(&moving.contents(side)));
        }
    }

    /// One-way modes never write the pusher's tree.
    #[test]
    fn one_way_is_one_way((start, alpha, beta) in history(), safe in any::<bool>()) {
        let mut world = World::new(&start, &alpha, &beta);
        let before = world.disks[&Side::Alpha].clone();
        world.settle(&policy(if safe { Mode::OneWaySafe } else { Mode::OneWayReplica }, Side::Alpha));
        prop_assert_eq!(&world.disks[&Side::Alpha], &before);
    }

    /// One-way-safe never changes what the receiver made or changed itself.
    #[test]
    fn one_way_safe_keeps_the_receivers_work((start, alpha, beta) in history()) {
        let mut world = World::new(&start, &alpha, &beta);
        let own: Vec<_> = world.disks[&Side::Beta]
            .iter()
            .filter(|(p, e)| !e.is_dir() && world.trees.agreed(p).is_none_or(|base| base.identity() != e.identity()))
            .map(|(p, e)| (p.clone(), e.identity()))
            .collect();
        world.settle(&policy(Mode::OneWaySafe, Side::Alpha));
        for (p, identity) in own {
            prop_assert_eq!(world.disks[&Side::Beta].get(&p).map(Entry::identity), Some(identity), "{}", p);
        }
    }

    /// The result does not depend on which paths were due first.
    #[test]
    fn order_does_not_matter((start, alpha, beta) in history(), mode in mode(), pick in any::<u64>()) {
        let policy = policy(mode, Side::Alpha);
        let mut at_once = World::new(&start, &alpha, &beta);
        let mut in_parts = at_once.clone();
        at_once.settle(&policy);
        let some: BTreeSet<_> = unsettled(&in_parts.trees)
            .into_iter()
            .enumerate()
            .filter(|(index, _)| pick >> (index % 64) & 1 == 1)
            .map(|(_, p)| p)
            .collect();
        let plan = in_parts.plan(&some, &policy);
        in_parts.apply(&plan);
        in_parts.settle(&policy);
        prop_assert_eq!(at_once.disks, in_parts.disks);
    }

    /// Two-way-safe does not care which side is which, the names of conflict copies aside.
    #[test]
    fn two_way_safe_is_symmetric((start, alpha, beta) in history()) {
        let mut world = World::new(&start, &alpha, &beta);
        let mut mirrored = World::new(&start, &beta, &alpha);
        world.settle(&policy(Mode::TwoWaySafe, Side::Alpha));
        let mut swapped = policy(Mode::TwoWaySafe, Side::Beta);
        std::mem::swap(&mut swapped.naming.alpha, &mut swapped.naming.beta);
        mirrored.settle(&swapped);
        prop_assert_eq!(&world.disks[&Side::Alpha], &mirrored.disks[&Side::Beta]);
    }

    /// What could not be read is never touched, and nothing is inferred from it.
    #[test]
    fn the_unreadable_is_left_alone((start, alpha, beta) in history(), pick in any::<prop::sample::Index>(), side in prop::sample::select(vec![Side::Alpha, Side::Beta]), mode in mode()) {
        let mut world = World::new(&start, &alpha, &beta);
        let there: Vec<_> = world.disks[&side].keys().cloned().collect();
        if there.is_empty() {
            return Ok(());
        }
        let blocked = pick.get(&there).clone();
        let below: Vec<_> = there.into_iter().filter(|p| *p == blocked || p.is_below(&blocked)).collect();
        for p in &below {
            world.trees.observe(side, p.clone(), Sight::Absent);
        }
        world.trees.observe(side, blocked.clone(), Sight::Blocked(crate::tree::Obstacle::Unreadable));
        let plan = world.plan(&unsettled(&world.trees), &policy(mode, Side::Alpha));
        for (on, op) in &plan.ops {
            prop_assert!(op.path != blocked && !op.path.is_below(&blocked), "{on:?} {op:?}");
            let takes_along = *on == side && blocked.is_below(&op.path) && op.expect.is_some() && op.make != Some(Entry::Dir);
            prop_assert!(!takes_along, "{on:?} {op:?}");
        }
    }
}
