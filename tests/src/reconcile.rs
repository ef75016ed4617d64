//! Histories of two trees: what people do, plans, plans that come late.
//!
//! Bytes are a history: the first one says mode and primary, then each three are one act (side and
//! kind, path, detail). So every input means something, and a mutation changes one act.

use std::collections::{BTreeMap, BTreeSet};

use shared::hash::{ContentHash, SetHash};
use shared::path::RelPath;
use shared::reconcile::{
    ConflictRules, Decisions, Mode, Naming, Plan, Policy, reconcile as plan_of, with_moves,
};
use shared::transfer::{Op, Source, moved_ops};
use shared::tree::{BaseRow, Entry, Gen, Side, Trees};
use shared::utc::UtcMs;

const SIDES: [Side; 2] = [Side::Alpha, Side::Beta];
const NAMES: [&str; 16] = [
    "a", "a/a", "a/a/a", "a/a/b", "a/b", "a/b/a", "a/c", "a-b", "a.x", "b", "b/a", "b/b", "b.md",
    "c", "..x", "e (1.2)",
];
const ACTS_MAX: usize = 64;
/// Most plans until nothing is left to do.
const ROUNDS_MAX: usize = 6;

type Tree = BTreeMap<RelPath, Entry>;

/// Plays a history and plans until nothing is left: the plans can be carried out step by step, the
/// trees converge, and the set hashes are those of the trees.
pub fn reconcile(data: &[u8]) {
    let Some((first, acts)) = data.split_first() else {
        return;
    };
    let policy = Policy {
        mode: Mode::ALL[usize::from(first & 3)],
        primary: SIDES[usize::from(first >> 2 & 1)],
        naming: Naming {
            alpha: "vm".into(),
            beta: "mac".into(),
            now: UtcMs(1_795_382_045_000),
        },
        conflicts: &ConflictRules::default(),
        decisions: &Decisions::default(),
        folds: [false; 2],
    };
    let mut world = World::default();
    let mut late: Option<Plan> = None;
    for act in acts.chunks_exact(3).take(ACTS_MAX) {
        let &[what, at, detail] = act else { continue };
        let side = SIDES[usize::from(what & 1)];
        match what >> 1 & 7 {
            6 => {
                let scope = world.unsettled().into_iter().enumerate();
                let some = scope
                    .filter(|(index, _)| detail >> (index % 8) & 1 == 0)
                    .map(|(_, path)| path)
                    .collect();
                let plan = world.plan(&some, &policy);
                world.carry_out(&plan, true);
            }
            7 => {
                if let Some(plan) = late.take() {
                    world.carry_out(&plan, false);
                }
                late = Some(world.plan(&world.unsettled(), &policy));
            }
            kind => world.act(side, kind, &name(at), detail),
        }
    }
    if let Some(plan) = late {
        world.carry_out(&plan, false);
    }
    world.settle(&policy);
    world.check(policy.mode);
}

fn name(byte: u8) -> RelPath {
    RelPath::parse(NAMES[usize::from(byte) % NAMES.len()]).expect("a path")
}

fn file(text: u8, exec: bool) -> Entry {
    Entry::File {
        content: ContentHash::of_bytes(&[text]),
        len: 1,
        exec,
    }
}

#[derive(Default)]
struct World {
    trees: Trees,
    alpha: Tree,
    beta: Tree,
}

impl World {
    fn disk(&self, side: Side) -> &Tree {
        match side {
            Side::Alpha => &self.alpha,
            Side::Beta => &self.beta,
        }
    }

    fn disk_mut(&mut self, side: Side) -> &mut Tree {
        match side {
            Side::Alpha => &mut self.alpha,
            Side::Beta => &mut self.beta,
        }
    }

    /// Does what a person does, where a file system would let it be done.
    fn act(&mut self, side: Side, kind: u8, path: &RelPath, detail: u8) {
        let tree = self.disk_mut(side);
        match kind {
            0 | 1 => put(tree, path, file(detail >> 1 & 3, detail & 1 == 1)),
            2 => put(
                tree,
                path,
                Entry::Symlink {
                    target: (detail & 3).to_string().into(),
                },
            ),
            3 if tree.get(path) != Some(&Entry::Dir) => put(tree, path, Entry::Dir),
            4 => remove(tree, path),
            5 => rename(tree, path, &name(detail)),
            _ => {}
        }
        self.look(side);
    }

    /// Observes everything on a side, as a whole look does.
    fn look(&mut self, side: Side) {
        let known = self
            .trees
            .base()
            .keys()
            .chain(self.trees.view(side).apart().keys());
        let paths: BTreeSet<RelPath> = known.chain(self.disk(side).keys()).cloned().collect();
        for path in paths {
            let sight = self.disk(side).get(&path).cloned().into();
            self.trees.observe(side, path, sight);
        }
    }

    fn unsettled(&self) -> BTreeSet<RelPath> {
        SIDES
            .iter()
            .flat_map(|side| self.trees.view(*side).apart().keys().cloned())
            .collect()
    }

    fn plan(&self, scope: &BTreeSet<RelPath>, policy: &Policy<'_>) -> Plan {
        let plan = || {
            let mut plan = plan_of(&self.trees, scope, &|_| false, policy);
            with_moves(&self.trees, &mut plan, &|_| false);
            plan
        };
        assert_eq!(plan(), plan(), "same inputs, same plan");
        plan()
    }

    /// Breaks a move into what it changes. One that finds something else is left as it is.
    fn broken_up(&self, side: Side, op: &Op) -> Vec<Op> {
        let whole = || vec![op.clone()];
        let Some((from, _)) = op.moves() else {
            return whole();
        };
        let disk = self.disk(side);
        if disk.contains_key(&op.path) || !parent_is_there(disk, &op.path) {
            return whole();
        }
        let standing: Vec<_> = disk
            .iter()
            .filter(|(path, _)| *path == from || path.is_below(from))
            .map(|(path, entry)| (path.clone(), entry.clone()))
            .collect();
        moved_ops(op, &standing).unwrap_or_else(whole)
    }

    /// Carries a plan out as the two disks would. When it is `fresh`, nothing was changed since it was
    /// made, and every step has to fit; else what does not fit is left undone, as on a disk.
    fn carry_out(&mut self, plan: &Plan, fresh: bool) {
        let before = SIDES.map(|side| (side, self.disk(side).clone()));
        for (path, entry) in &plan.agree {
            self.trees.agree(
                path.clone(),
                BaseRow {
                    entry: entry.clone(),
                    batch: Gen(1),
                },
            );
        }
        for (side, whole) in &plan.ops {
            for op in self.broken_up(*side, whole) {
                let [there, here] = [side.other(), *side].map(|on| {
                    let tree = before.iter().find(|(of, _)| *of == on);
                    move |path| tree.and_then(|(_, tree)| tree.get(path))
                });
                let source = match &op.from {
                    Source::Nothing | Source::Merge { .. } | Source::Moved { .. } => None,
                    Source::There(path) => there(path),
                    Source::Here(path) => here(path),
                };
                let wanted = op.make.as_ref().map(Entry::identity);
                let at_hand = op.from == Source::Nothing || source.map(Entry::identity) == wanted;
                if at_hand && fits(self.disk(*side), &op) {
                    self.carry_out_op(*side, &op);
                } else {
                    assert!(
                        !fresh,
                        "it cannot be carried out on {side:?}: {op:?}, content at hand: {at_hand}"
                    );
                }
            }
        }
    }

    fn carry_out_op(&mut self, side: Side, op: &Op) {
        let disk = self.disk_mut(side);
        match &op.make {
            Some(entry) => drop(disk.insert(op.path.clone(), entry.clone())),
            None => drop(disk.remove(&op.path)),
        }
        self.trees
            .observe(side, op.path.clone(), op.make.clone().into());
        if op.agrees || self.disk(side.other()).get(&op.path) == op.make.as_ref() {
            self.trees.agree(
                op.path.clone(),
                BaseRow {
                    entry: op.make.clone(),
                    batch: Gen(1),
                },
            );
        }
    }

    fn settle(&mut self, policy: &Policy<'_>) {
        for _ in 0..ROUNDS_MAX {
            let plan = self.plan(&self.unsettled(), policy);
            if plan.is_quiet() {
                return;
            }
            self.carry_out(&plan, true);
        }
        panic!(
            "still not quiet: {:#?}",
            self.plan(&self.unsettled(), policy)
        );
    }

    fn check(&self, mode: Mode) {
        for side in SIDES {
            let (view, disk) = (self.trees.view(side), self.disk(side));
            let mut hash = SetHash::default();
            disk.iter().for_each(|(path, entry)| hash.add(path, entry));
            assert_eq!(view.hash(), hash, "the set hash of {side:?}");
            assert_eq!(view.bytes(), disk.values().map(Entry::len).sum::<u64>());
        }
        // One-way-safe leaves alone what the receiver made.
        if mode != Mode::OneWaySafe {
            assert_eq!(self.alpha, self.beta, "both trees are equal");
            assert!(self.unsettled().is_empty());
        }
    }
}

fn parent_is_there(tree: &Tree, path: &RelPath) -> bool {
    path.parent()
        .is_none_or(|parent| tree.get(&parent) == Some(&Entry::Dir))
}

/// Says whether a disk would carry the operation out.
fn fits(tree: &Tree, op: &Op) -> bool {
    let as_expected = tree.get(&op.path) == op.expect.as_ref();
    let leaves_a_full_dir = op.expect.as_ref().is_some_and(Entry::is_dir)
        && tree.keys().any(|path| path.is_below(&op.path));
    as_expected && !leaves_a_full_dir && (op.make.is_none() || parent_is_there(tree, &op.path))
}

fn remove(tree: &mut Tree, path: &RelPath) {
    tree.retain(|other, _| other != path && !other.is_below(path));
}

fn put(tree: &mut Tree, path: &RelPath, entry: Entry) {
    if parent_is_there(tree, path) {
        remove(tree, path);
        tree.insert(path.clone(), entry);
    }
}

fn rename(tree: &mut Tree, from: &RelPath, to: &RelPath) {
    let nested = from == to || from.is_below(to) || to.is_below(from);
    if nested || !parent_is_there(tree, to) || !tree.contains_key(from) {
        return;
    }
    let inside = tree
        .iter()
        .filter(|(path, _)| *path == from || path.is_below(from));
    let moved: Tree = inside
        .filter_map(|(path, entry)| Some((path.rebase(from, to).ok()?, entry.clone())))
        .collect();
    remove(tree, from);
    remove(tree, to);
    tree.extend(moved);
}
