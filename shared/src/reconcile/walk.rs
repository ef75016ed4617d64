//! The walk over the unsettled paths: rules R0 to R4, and what directories add to the table.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::conflict;
use super::table::{Mode, Verdict, leaf_verdict};
use super::{Answer, Hold, Keep, Plan, Policy};
use crate::merge::{How, MERGE_BYTES_MAX};
use crate::path::{RelPath, below};
use crate::transfer::{Op, Source};
use crate::tree::{Entry, Obstacle, Side, Sight, Trees};

/// Returns the changes that make both sides equal at the paths of `scope`. Same inputs, same plan.
///
/// Unsettled paths above and below those of `scope` are planned with them. `busy` says that a path
/// is being changed by an earlier plan: it is left out, and nothing is decided that depends on it.
pub fn reconcile(
    trees: &Trees,
    scope: &BTreeSet<RelPath>,
    busy: &dyn Fn(&RelPath) -> bool,
    policy: &Policy<'_>,
) -> Plan {
    let paths = close(trees, scope);
    let mut walk = Walk {
        trees,
        busy,
        policy,
        paths,
        plan: Plan::default(),
        steps: Steps::default(),
        coming: BTreeSet::new(),
        twins: BTreeMap::new(),
    };
    walk.visit(0..walk.paths.len());
    let Walk {
        mut plan, steps, ..
    } = walk;
    plan.ops = steps.in_order();
    plan
}

/// Adds the unsettled paths above and below those of `scope`. What lies below an unsettled ancestor
/// is added when the ancestor is absent somewhere: whether it can go depends on all of it.
fn close(trees: &Trees, scope: &BTreeSet<RelPath>) -> Vec<RelPath> {
    let views = [
        trees.view(Side::Alpha).apart(),
        trees.view(Side::Beta).apart(),
    ];
    let mut closed: BTreeSet<RelPath> = BTreeSet::new();
    let mut tops: BTreeSet<RelPath> = BTreeSet::new();
    for path in scope {
        closed.insert(path.clone());
        tops.insert(path.clone());
        for above in path.ancestors() {
            if closed.contains(&above) {
                break;
            }
            if views.iter().any(|apart| apart.contains_key(&above)) {
                if [Side::Alpha, Side::Beta]
                    .iter()
                    .any(|side| trees.sight(*side, &above) == Sight::Absent)
                {
                    tops.insert(above.clone());
                }
                closed.insert(above);
            }
        }
    }
    let mut expanded: Option<RelPath> = None;
    for top in tops {
        if expanded.as_ref().is_some_and(|done| top.is_below(done)) {
            continue;
        }
        for side in [Side::Alpha, Side::Beta] {
            let view = trees.view(side);
            let apart = below(view.apart(), &top).map(|(path, _)| path);
            let passed = below(view.trails(), &top).map(|(path, _)| path);
            closed.extend(apart.chain(passed).cloned());
        }
        expanded = Some(top);
    }
    closed.into_iter().collect()
}

/// What is left at and below some paths when the plan is carried out.
#[derive(Clone, Copy, Default)]
struct Left {
    /// Something certainly stays on the pusher's side.
    alpha: bool,
    /// Something certainly stays on the receiver's side.
    beta: bool,
    /// It is not known yet, because a path is busy.
    unknown: bool,
}

impl Left {
    const BOTH: Self = Self {
        alpha: true,
        beta: true,
        unknown: false,
    };
    const UNKNOWN: Self = Self {
        alpha: false,
        beta: false,
        unknown: true,
    };

    fn on(self, side: Side) -> bool {
        match side {
            Side::Alpha => self.alpha,
            Side::Beta => self.beta,
        }
    }

    fn only(side: Side) -> Self {
        Self {
            alpha: side == Side::Alpha,
            beta: side == Side::Beta,
            unknown: false,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            alpha: self.alpha || other.alpha,
            beta: self.beta || other.beta,
            unknown: self.unknown || other.unknown,
        }
    }
}

/// The changes of a plan, by when they may take effect.
#[derive(Default)]
pub(super) struct Steps {
    /// Conflict copies: before anything that displaces what they copy.
    pub(super) copies: Vec<(Side, Op)>,
    /// What has to leave a directory before the directory is replaced: the deepest first.
    pub(super) clear: Vec<(Side, Op)>,
    /// What appears or changes: a directory before its content.
    pub(super) make: Vec<(Side, Op)>,
    /// What goes: the content before its directory. Last, so that a moved file is never nowhere.
    pub(super) delete: Vec<(Side, Op)>,
}

impl Steps {
    fn in_order(mut self) -> Vec<(Side, Op)> {
        let ascending =
            |ops: &mut Vec<(Side, Op)>| ops.sort_by(|(_, a), (_, b)| a.path.cmp(&b.path));
        let descending =
            |ops: &mut Vec<(Side, Op)>| ops.sort_by(|(_, a), (_, b)| b.path.cmp(&a.path));
        ascending(&mut self.copies);
        descending(&mut self.clear);
        ascending(&mut self.make);
        descending(&mut self.delete);
        [self.copies, self.clear, self.make, self.delete].concat()
    }
}

pub(super) struct Walk<'a> {
    pub(super) trees: &'a Trees,
    busy: &'a dyn Fn(&RelPath) -> bool,
    pub(super) policy: &'a Policy<'a>,
    /// In the order of a tree walk.
    paths: Vec<RelPath>,
    pub(super) plan: Plan,
    pub(super) steps: Steps,
    /// Directories that this plan makes, or makes if something in them stays.
    coming: BTreeSet<(Side, RelPath)>,
    /// Names that this plan makes and that have a twin on the other side, by their folded keys.
    twins: BTreeMap<(Side, String), RelPath>,
}

impl Walk<'_> {
    /// Plans the paths of a range, which holds whole subtrees.
    fn visit(&mut self, range: Range<usize>) -> Left {
        let mut left = Left::default();
        let mut index = range.start;
        while index < range.end {
            let path = self.paths[index].clone();
            let inside = index + 1
                ..self.paths[index + 1..range.end]
                    .iter()
                    .position(|other| !other.is_below(&path))
                    .map_or(range.end, |offset| index + 1 + offset);
            index = inside.end;
            left = left.and(self.plan_path(&path, inside));
        }
        left
    }

    fn plan_path(&mut self, path: &RelPath, inside: Range<usize>) -> Left {
        if (self.busy)(path) {
            let sights = [Side::Alpha, Side::Beta].map(|side| self.trees.sight(side, path));
            let is_file = |sight: &Sight| sight.entry().is_some_and(|entry| !entry.is_dir());
            if sights.iter().any(is_file) {
                // Whether there will be a directory for what lies below is being settled.
                self.plan.undecided.extend_from_slice(&self.paths[inside]);
                return Left::UNKNOWN;
            }
            return Left::UNKNOWN.and(self.visit(inside));
        }
        let (alpha, beta) = (
            self.trees.sight(Side::Alpha, path),
            self.trees.sight(Side::Beta, path),
        );
        if let Some(left) = self.plan_blocked(path, &alpha, &beta) {
            return left;
        }
        let (alpha, beta) = (alpha.entry(), beta.entry());
        if alpha == beta {
            // R1 and R2: nothing travels, at most the base moves. Agreeing once more ends a trail, which would else tell of
            // what was common before this for ever.
            if self.trees.agreed(path) != alpha || self.trees.has_trail(path) {
                self.plan.agree.push((path.clone(), alpha.cloned()));
            }
            let here = if alpha.is_some() {
                Left::BOTH
            } else {
                Left::default()
            };
            return here.and(self.visit(inside));
        }
        match self.policy.decisions.keep(path, alpha, beta) {
            Some(Keep::Side(side)) => return self.plan_copy(path, inside, side.other()),
            Some(Keep::Both) => return self.plan_conflict(path, inside),
            None => {}
        }
        let base = self.trees.ancestor(path);
        match self.verdict(path, base, alpha, beta) {
            Verdict::Copy { to } => self.plan_copy(path, inside, to),
            Verdict::Merge { content, exec } => self.plan_merge(path, content, exec),
            Verdict::Conflict => match self.policy.conflicts.answer(path) {
                Answer::Copy => self.plan_conflict(path, inside),
                Answer::Hold => {
                    self.hold(path, Hold::Undecided);
                    Left::BOTH
                }
                // What was agreed on was kept for this; what both had by the mirror later need not be.
                Answer::Merge => {
                    match merge_op(path, self.trees.agreed(path).or(base), alpha, beta) {
                        Some(op) => {
                            self.steps.make.push((Side::Alpha, op));
                            Left::BOTH
                        }
                        None => self.plan_conflict(path, inside),
                    }
                }
            },
            Verdict::Hold => {
                self.hold(path, Hold::Conflict);
                Left::BOTH
            }
            Verdict::Leave => {
                self.leave(path);
                Left::only(Side::Beta).and(self.visit(inside))
            }
        }
    }

    /// R0: plans a path that a side cannot sync. Nothing below it moves.
    fn plan_blocked(&mut self, path: &RelPath, alpha: &Sight, beta: &Sight) -> Option<Left> {
        let obstacle = |sight: &Sight| match sight {
            Sight::Blocked(obstacle) => Some(*obstacle),
            _ => None,
        };
        let (on_alpha, on_beta) = (obstacle(alpha), obstacle(beta));
        on_alpha.or(on_beta)?;
        let unsyncable =
            |sight: &Sight| matches!(sight, Sight::Absent | Sight::Blocked(Obstacle::Ignored));
        if unsyncable(alpha) && unsyncable(beta) {
            // Ignored from now on: both sides keep what they have, and nobody remembers it.
            let gone: Vec<_> = std::iter::once(path)
                .filter(|path| self.trees.base().contains_key(*path))
                .chain(below(self.trees.base(), path).map(|(path, _)| path))
                .filter(|path| self.trees.agreed(path).is_some())
                .cloned()
                .collect();
            self.plan
                .agree
                .extend(gone.into_iter().map(|path| (path, None)));
            return Some(Left::BOTH);
        }
        let hold = match (on_alpha, on_beta) {
            // The other side is about to apply the same rules.
            (Some(Obstacle::Ignored), None) | (None, Some(Obstacle::Ignored)) => {
                return Some(Left {
                    unknown: true,
                    ..Left::BOTH
                });
            }
            (Some(obstacle), _) if obstacle != Obstacle::Ignored => {
                Hold::Obstacle(Side::Alpha, obstacle)
            }
            (_, Some(obstacle)) => Hold::Obstacle(Side::Beta, obstacle),
            (Some(obstacle), None) => Hold::Obstacle(Side::Alpha, obstacle),
            (None, None) => return None,
        };
        self.hold(path, hold);
        Some(Left::BOTH)
    }

    /// Returns what the table says, where a directory counts as changed when something in it was
    /// created or changed.
    fn verdict(
        &self,
        path: &RelPath,
        base: Option<&Entry>,
        alpha: Option<&Entry>,
        beta: Option<&Entry>,
    ) -> Verdict {
        let verdict = leaf_verdict(self.policy.mode, base, alpha, beta);
        let Some(Entry::Dir) = base else {
            return verdict;
        };
        let (dir_side, other) = match (alpha, beta) {
            (Some(Entry::Dir), Some(other)) => (Side::Alpha, other),
            (Some(other), Some(Entry::Dir)) => (Side::Beta, other),
            _ => return verdict,
        };
        let is_new = |(path, sight): (&RelPath, &Sight)| {
            let entry = sight.entry();
            entry.is_some() && entry != self.trees.ancestor(path)
        };
        let touched = below(self.trees.view(dir_side).apart(), path).any(is_new);
        if other.is_dir() || !touched {
            return verdict;
        }
        match self.policy.mode {
            Mode::TwoWaySafe => Verdict::Conflict,
            Mode::OneWaySafe => Verdict::Hold,
            Mode::TwoWayResolved | Mode::OneWayReplica => Verdict::Copy { to: Side::Beta },
        }
    }

    /// Plans that `side` gets what the other side has.
    fn plan_copy(&mut self, path: &RelPath, inside: Range<usize>, side: Side) -> Left {
        let old = self.trees.sight(side, path).entry().cloned();
        let new = self.trees.sight(side.other(), path).entry().cloned();
        let was_dir = old.as_ref().is_some_and(Entry::is_dir);
        match new {
            None if was_dir => self.plan_dir_removal(path, inside, side),
            None => {
                self.steps
                    .delete
                    .push((side, op(path, old, None, Source::Nothing)));
                self.visit(inside)
            }
            Some(leaf) if was_dir => self.plan_subtree_replacement(path, side, leaf),
            Some(new) => {
                if old.is_none()
                    && let Some(left) = self.plan_twin(side, path)
                {
                    return left;
                }
                if old.is_none() && !self.parent_is_there(side, path) {
                    // Planned again when the directory above has been made.
                    self.plan.undecided.push(path.clone());
                    return Left {
                        unknown: true,
                        ..Left::only(side.other())
                    };
                }
                if new.is_dir() {
                    self.coming.insert((side, path.clone()));
                }
                let from = content_source(path, &new);
                self.steps.make.push((side, op(path, old, Some(new), from)));
                Left::BOTH.and(self.visit(inside))
            }
        }
    }

    /// Says what becomes of a name that `side` would not tell from another one: it waits until the other
    /// one has gone, or for a person. The name that is there already keeps its place.
    fn plan_twin(&mut self, side: Side, path: &RelPath) -> Option<Left> {
        if !self.policy.folds[side as usize] {
            return None;
        }
        let unknown = Left {
            unknown: true,
            ..Left::only(side.other())
        };
        if let Some(twin) = self.trees.twin(side, path) {
            let agreed = self.trees.agreed(&twin).cloned();
            let goes = agreed.is_some()
                && self.trees.sight(side, &twin) == Sight::from(agreed)
                && self.trees.sight(side.other(), &twin) == Sight::Absent;
            if goes || (self.busy)(&twin) {
                self.plan.undecided.push(path.clone());
                return Some(unknown);
            }
            self.hold(path, Hold::Twin(side, twin));
            return Some(Left::BOTH);
        }
        if let Some(twin) = self.trees.twin(side.other(), path) {
            if (self.busy)(&twin) {
                self.plan.undecided.push(path.clone());
                return Some(unknown);
            }
            if let Some(first) = self.twins.get(&(side, path.folded_key())).cloned() {
                self.hold(path, Hold::Twin(side, first));
                return Some(Left::BOTH);
            }
            self.twins.insert((side, path.folded_key()), path.clone());
        }
        None
    }

    /// Plans a directory that one side deleted: it goes when nothing in it stays.
    fn plan_dir_removal(&mut self, path: &RelPath, inside: Range<usize>, side: Side) -> Left {
        if let Some(left) = self.hold_for_obstacle_below(path, side) {
            return left;
        }
        let other = side.other();
        self.coming.insert((other, path.clone()));
        let left = self.visit(inside);
        if left.on(side) {
            if self.policy.mode.is_two_way() {
                self.steps
                    .make
                    .push((other, op(path, None, Some(Entry::Dir), Source::Nothing)));
                return Left::BOTH;
            }
            self.leave(path);
            return left;
        }
        if left.unknown {
            self.plan.undecided.push(path.clone());
        } else {
            self.steps
                .delete
                .push((side, op(path, Some(Entry::Dir), None, Source::Nothing)));
        }
        left
    }

    /// Plans that a directory with all that is in it makes way for a file or a link.
    fn plan_subtree_replacement(&mut self, path: &RelPath, side: Side, leaf: Entry) -> Left {
        if let Some(left) = self.hold_for_obstacle_below(path, side) {
            return left;
        }
        let inner = self.trees.entries_below(side, path);
        if inner.iter().any(|(path, _)| (self.busy)(path)) {
            self.plan.undecided.push(path.clone());
            return Left {
                unknown: true,
                ..Left::BOTH
            };
        }
        self.clear_subtree(side, inner);
        let from = content_source(path, &leaf);
        self.steps
            .make
            .push((side, op(path, Some(Entry::Dir), Some(leaf), from)));
        Left::BOTH
    }

    pub(super) fn clear_subtree(&mut self, side: Side, inner: Vec<(RelPath, Entry)>) {
        for (path, entry) in inner {
            self.steps
                .clear
                .push((side, op(&path, Some(entry), None, Source::Nothing)));
        }
    }

    fn plan_merge(&mut self, path: &RelPath, content_side: Side, exec: Option<bool>) -> Left {
        let mut changes = Vec::new();
        for side in [Side::Alpha, Side::Beta] {
            let Some(old) = self.trees.sight(side, path).entry().cloned() else {
                continue;
            };
            let mut new = self
                .trees
                .sight(content_side, path)
                .entry()
                .cloned()
                .unwrap_or(Entry::Dir);
            if let (Entry::File { exec: new_exec, .. }, Entry::File { exec: own, .. }) =
                (&mut new, &old)
            {
                *new_exec = exec.unwrap_or(*own);
            }
            if new != old {
                let same_content = old.identity() == new.identity();
                let from = if same_content {
                    Source::Nothing
                } else {
                    Source::There(path.clone())
                };
                changes.push((side, op(path, Some(old), Some(new), from)));
            }
        }
        // Each side keeps its own bit: they never become equal, so no change settles the path. And a bit that
        // is turned settles nothing about a content that was never agreed on: who wrote it has not made it durable.
        let settles = |op: &Op| !op.only_turns_bit() || is_agreed(self.trees, op);
        let agrees = exec.is_some() && matches!(&changes[..], [(_, op)] if settles(op));
        if exec.is_none() {
            self.plan.untracked.push(path.clone());
            let pushers = self.trees.sight(Side::Alpha, path).entry().cloned();
            if changes.is_empty() && self.trees.agreed(path) != pushers.as_ref() {
                self.plan.agree.push((path.clone(), pushers));
            }
        }
        self.steps.make.extend(
            changes
                .into_iter()
                .map(|(side, op)| (side, Op { agrees, ..op })),
        );
        Left::BOTH
    }

    fn plan_conflict(&mut self, path: &RelPath, inside: Range<usize>) -> Left {
        let winner = self.policy.primary;
        let loser = winner.other();
        let inner = self.trees.entries_below(loser, path);
        if inner.iter().any(|(path, _)| (self.busy)(path)) {
            self.plan.undecided.push(path.clone());
            return Left {
                unknown: true,
                ..Left::BOTH
            };
        }
        if let Some(left) = self.hold_for_obstacle_below(path, loser) {
            return left;
        }
        if let Err(hold) = conflict::plan(self, path, winner, inner) {
            self.hold(path, hold);
            return Left::BOTH;
        }
        if self
            .trees
            .sight(winner, path)
            .entry()
            .is_some_and(Entry::is_dir)
        {
            self.coming.insert((loser, path.clone()));
            return Left::BOTH.and(self.visit(inside));
        }
        Left::BOTH
    }

    /// R4: holds a path when its removal on `side` would take something with it that cannot be
    /// synced.
    fn hold_for_obstacle_below(&mut self, path: &RelPath, side: Side) -> Option<Left> {
        let (found, obstacle) =
            below(self.trees.view(side).apart(), path).find_map(|(path, sight)| match sight {
                Sight::Blocked(obstacle) => Some((path.clone(), *obstacle)),
                _ => None,
            })?;
        self.hold(path, Hold::InTheWay(side, found, obstacle));
        Some(Left::BOTH)
    }

    fn parent_is_there(&self, side: Side, path: &RelPath) -> bool {
        path.parent().is_none_or(|parent| {
            self.trees
                .sight(side, &parent)
                .entry()
                .is_some_and(Entry::is_dir)
                || self.coming.contains(&(side, parent.clone()))
                || (self.busy)(&parent)
        })
    }

    fn leave(&mut self, path: &RelPath) {
        self.plan.untracked.push(path.clone());
        if self.trees.agreed(path).is_some() {
            self.plan.agree.push((path.clone(), None));
        }
    }

    fn hold(&mut self, path: &RelPath, hold: Hold) {
        self.plan.held.push((path.clone(), hold));
    }
}

/// Makes the operation that merges what both sides made of a file, on the pusher's side. What comes
/// out of it is planned next ([`super::Decisions`]).
fn merge_op(
    path: &RelPath,
    base: Option<&Entry>,
    alpha: Option<&Entry>,
    beta: Option<&Entry>,
) -> Option<Op> {
    let (Some(alpha @ Entry::File { .. }), Some(beta @ Entry::File { .. })) = (alpha, beta) else {
        return None;
    };
    if alpha.len().max(beta.len()) > MERGE_BYTES_MAX {
        return None;
    }
    let from = Source::Merge {
        base: base.cloned(),
        how: How::of(path),
    };
    Some(Op {
        agrees: false,
        ..op(path, Some(alpha.clone()), Some(beta.clone()), from)
    })
}

/// Says whether the content that an operation leaves is the one that was agreed on, or that crossed by the mirror: it is durable on
/// both sides.
fn is_agreed(trees: &Trees, op: &Op) -> bool {
    let agreed = trees.ancestor(&op.path).map(Entry::identity);
    agreed.is_some() && agreed == op.make.as_ref().map(Entry::identity)
}

/// Makes an operation after which both sides agree.
pub(super) fn op(path: &RelPath, expect: Option<Entry>, make: Option<Entry>, from: Source) -> Op {
    Op {
        path: path.clone(),
        expect,
        make,
        from,
        agrees: true,
    }
}

/// Returns where the content of a new entry comes from, when the other side has it at `path`.
pub(super) fn content_source(path: &RelPath, new: &Entry) -> Source {
    match new {
        Entry::File { .. } => Source::There(path.clone()),
        Entry::Dir | Entry::Symlink { .. } => Source::Nothing,
    }
}
