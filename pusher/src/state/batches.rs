//! What is on its way: queued operations, batches in flight, rows that are being made durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use disk::Durable;
use shared::control::{Change, Happening};
use shared::path::{RelPath, below};
use shared::transfer::{BATCH_BYTES_MAX, BATCH_OPS_MAX, Batch, Op, Outcome, Source};
use shared::tree::{BaseRow, Entry, Gen, Side};
use shared::wire::{AgreedRow, Frame, PAGE_BYTES_MAX, Row};

use super::{Action, Pusher, holds, items, side_name};

/// Most batches of small changes in flight for each side. They are applied in order.
const LANE_BATCHES_MAX: usize = 4;
/// Most long files in flight for each side.
const BULK_MAX: usize = 4;
/// A file above this travels alone, outside the lane, so that small changes overtake it.
const BULK_BYTES_MIN: u64 = BATCH_BYTES_MAX;
/// Most operations in a batch of which it is told in advance that it makes the trees equal.
const SETTLING_OPS_MAX: usize = 32;
/// Operations that may be planned ahead; beyond it, planning waits.
const PLANNED_OPS_MAX: usize = 400_000;

/// Queued and running work.
#[derive(Debug, Default)]
pub(super) struct Batches {
    busy: BTreeMap<RelPath, Busy>,
    alpha: Queue,
    beta: Queue,
    flying: BTreeMap<Gen, Flying>,
    committing: BTreeMap<Gen, Committing>,
    /// For each batch of `committing` the lowest one that it leaves open.
    open_from: BTreeMap<Gen, Gen>,
    /// Batches whose rows the receiver has not confirmed, with the frames that it still has to confirm.
    unnoted: BTreeMap<Gen, usize>,
    /// Rows that are stored here when the receiver has confirmed them. Their paths are busy until then.
    awaited: BTreeMap<Gen, Vec<AgreedRow>>,
    /// What the moves that are queued or on their way change, by their targets.
    moved: BTreeMap<RelPath, Vec<Op>>,
    /// Targets of moves that could not be carried out. What was to go there goes as content instead.
    not_moved: BTreeSet<RelPath>,
    lane: [u64; 2],
}

/// A path that is being changed.
#[derive(Debug, Default)]
struct Busy {
    /// Operations that are not finished.
    left: usize,
    /// Whether one of them failed.
    failed: bool,
}

#[derive(Debug, Default)]
struct Queue {
    small: VecDeque<Op>,
    bulk: VecDeque<Op>,
    /// Operations that would displace what a conflict copy is still to be made of.
    after_copy: Vec<Op>,
    /// What conflict copies on this side are still to be made of.
    copying: BTreeMap<RelPath, usize>,
}

#[derive(Debug)]
struct Flying {
    side: Side,
    in_lane: bool,
    ops: Vec<Op>,
    /// What the receiver knows by itself when all of it is done.
    settles: Option<u64>,
}

/// Rows that are being made durable here.
#[derive(Debug, Default)]
pub(super) struct Committing {
    /// All of them.
    pub(super) rows: Vec<AgreedRow>,
    /// Those that the receiver has to be told of.
    pub(super) announce: Vec<AgreedRow>,
    /// Those that were found equal on both sides. They are stored here when the receiver has them.
    pub(super) found: Vec<AgreedRow>,
}

impl Committing {
    /// Returns the lowest batch that is not stored before these rows are: the receiver may tell of rows
    /// that are older than the batch that stores them here.
    fn lowest(&self, batch: Gen) -> Gen {
        let rows = self.rows.iter().map(|(_, row)| row.batch);
        rows.min().map_or(batch, |lowest| lowest.min(batch))
    }
}

impl Queue {
    fn push(&mut self, op: Op) {
        if op.make.as_ref().map_or(0, Entry::len) > BULK_BYTES_MIN
            && !matches!(op.from, Source::Nothing | Source::Moved { .. })
        {
            self.bulk.push_back(op);
        } else {
            self.small.push_back(op);
        }
    }

    fn len(&self) -> usize {
        self.small.len() + self.bulk.len() + self.after_copy.len()
    }

    fn drain(&mut self) -> Vec<Op> {
        self.copying.clear();
        self.small
            .drain(..)
            .chain(self.bulk.drain(..))
            .chain(self.after_copy.drain(..))
            .collect()
    }
}

impl Batches {
    fn queue(&mut self, side: Side) -> &mut Queue {
        match side {
            Side::Alpha => &mut self.alpha,
            Side::Beta => &mut self.beta,
        }
    }

    fn queued(&self, side: Side) -> &Queue {
        match side {
            Side::Alpha => &self.alpha,
            Side::Beta => &self.beta,
        }
    }

    pub(super) fn is_busy(&self, path: &RelPath) -> bool {
        self.busy.contains_key(path)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.busy.is_empty() && self.committing.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.alpha.len() + self.beta.len() > PLANNED_OPS_MAX
    }

    /// Takes the operations of a plan, in their order, and what the moves among them change.
    pub(super) fn enqueue(&mut self, ops: Vec<(Side, Op)>, mut moved: BTreeMap<RelPath, Vec<Op>>) {
        for (side, op) in ops {
            if op.moves().is_some() {
                let singles = moved.remove(&op.path).unwrap_or_default();
                for single in &singles {
                    self.busy.entry(single.path.clone()).or_default().left += 1;
                }
                self.moved.insert(op.path.clone(), singles);
                self.queue(side).push(op);
                continue;
            }
            self.busy.entry(op.path.clone()).or_default().left += 1;
            let queue = self.queue(side);
            if let Source::Here(from) = &op.from {
                *queue.copying.entry(from.clone()).or_default() += 1;
            }
            let displaces_source = queue.copying.contains_key(&op.path)
                || queue.copying.keys().any(|from| from.is_below(&op.path));
            if displaces_source && op.expect.is_some() {
                queue.after_copy.push(op);
            } else {
                queue.push(op);
            }
        }
    }

    /// Says whether something was to be moved to a path, and could not be.
    pub(super) fn has_failed_to_move(&self, to: &RelPath) -> bool {
        self.not_moved.contains(to)
    }

    /// Breaks an operation that has ended into the changes of single paths that it was.
    fn single_ops(&mut self, op: Op, done: bool) -> Vec<Op> {
        if done {
            self.not_moved.remove(&op.path);
        }
        if op.moves().is_none() {
            return vec![op];
        }
        if !done {
            self.not_moved.insert(op.path.clone());
        }
        self.moved.remove(&op.path).unwrap_or_default()
    }

    /// Takes the next batch for a side, if its share of the line is not used up.
    fn next(&mut self, side: Side) -> Option<(Vec<Op>, bool)> {
        let flying = |in_lane| {
            self.flying
                .values()
                .filter(|f| f.side == side && f.in_lane == in_lane)
                .count()
        };
        let (lane, bulk) = (flying(true), flying(false));
        if lane < LANE_BATCHES_MAX {
            let queue = self.queue(side);
            let (mut ops, mut bytes, mut frame_bytes) = (Vec::new(), 0, 0);
            while let Some(op) = queue.small.front() {
                let len = if op.wants().is_some() {
                    op.make.as_ref().map_or(0, Entry::len)
                } else {
                    0
                };
                let is_full = bytes + len > BATCH_BYTES_MAX || frame_bytes > PAGE_BYTES_MAX;
                if ops.len() == BATCH_OPS_MAX || !ops.is_empty() && is_full {
                    break;
                }
                bytes += len;
                frame_bytes += op.bytes_max();
                ops.extend(queue.small.pop_front());
            }
            if queue.small.is_empty() {
                // A first sync makes it long, and nothing after that does.
                queue.small.shrink_to_fit();
            }
            if !ops.is_empty() {
                return Some((ops, true));
            }
        }
        if bulk < BULK_MAX {
            // A long file waits for its directory, and for what has to leave its path.
            let ready = |op: &Op| self.is_unhindered(op);
            let mut at = self.queued(side).bulk.iter().position(ready);
            if at.is_none() && self.is_stuck() {
                at = Some(0);
            }
            return Some((vec![self.queue(side).bulk.remove(at?)?], false));
        }
        None
    }

    fn is_unhindered(&self, op: &Op) -> bool {
        !op.path
            .ancestors()
            .any(|above| self.busy.contains_key(&above))
            && below(&self.busy, &op.path).next().is_none()
    }

    /// Says whether all that is left are long files that wait for each other: the trees have changed since they
    /// were planned. Whichever goes first, what no longer fits is planned again.
    fn is_stuck(&self) -> bool {
        let queues = [&self.alpha, &self.beta];
        self.flying.is_empty()
            && self.committing.is_empty()
            && self.awaited.is_empty()
            && queues.iter().all(|queue| queue.small.is_empty())
            && !queues
                .iter()
                .flat_map(|queue| &queue.bulk)
                .any(|op| self.is_unhindered(op))
    }

    /// Takes rows that are about to be made durable. Their paths are busy until they are.
    pub(super) fn committing(&mut self, batch: Gen, rows: Committing) {
        for (path, _) in rows.rows.iter().chain(&rows.found) {
            self.busy.entry(path.clone()).or_default();
        }
        self.open_from.insert(batch, rows.lowest(batch));
        self.committing.insert(batch, rows);
    }

    pub(super) fn committed(&mut self, batch: Gen) -> Option<Committing> {
        let committed = self.committing.remove(&batch)?;
        self.open_from.remove(&batch);
        self.abandon(&committed.rows);
        Some(committed)
    }

    /// Takes it that what is being made durable is not agreed on any more; returns the paths of it.
    pub(super) fn forget_committing(&mut self) -> BTreeSet<RelPath> {
        let mut paths = BTreeSet::new();
        for committing in self.committing.values_mut() {
            let Committing { rows, found, .. } = std::mem::take(committing);
            paths.extend(rows.into_iter().chain(found).map(|(path, _)| path));
        }
        for path in &paths {
            self.free(path);
        }
        paths
    }

    /// Holds rows until the receiver has confirmed them.
    pub(super) fn await_noted(&mut self, batch: Gen, rows: Vec<AgreedRow>) {
        if !rows.is_empty() {
            self.awaited.insert(batch, rows);
        }
    }

    /// Lets go of the paths of some rows.
    pub(super) fn abandon(&mut self, rows: &[AgreedRow]) {
        for (path, _) in rows {
            self.free(path);
        }
    }

    fn free(&mut self, path: &RelPath) {
        if self.busy.get(path).is_some_and(|busy| busy.left == 0) {
            self.busy.remove(path);
        }
    }

    /// Takes it that the receiver was told some rows of a batch, in one frame.
    pub(super) fn announced(&mut self, batch: Gen) {
        *self.unnoted.entry(batch).or_default() += 1;
    }

    /// Takes it that the receiver has stored the rows of one such frame; returns those that can be stored
    /// here now.
    pub(super) fn noted(&mut self, batch: Gen) -> Vec<AgreedRow> {
        let Some(frames) = self.unnoted.get_mut(&batch) else {
            return Vec::new();
        };
        *frames -= 1;
        if *frames > 0 {
            return Vec::new();
        }
        self.unnoted.remove(&batch);
        self.awaited.remove(&batch).unwrap_or_default()
    }

    /// Returns the lowest batch that is not known to be stored on both sides.
    pub(super) fn first_open(&self) -> Option<Gen> {
        [
            self.flying.keys().next(),
            self.open_from.values().min(),
            self.unnoted.keys().next(),
        ]
        .into_iter()
        .flatten()
        .min()
        .copied()
    }

    /// Forgets what is queued or on its way to the receiver, because the link is gone. Batches that
    /// this side is taking end by themselves. Says whether anything was on its way.
    pub(super) fn unlink(&mut self) -> bool {
        let mut dropped: Vec<Op> = self.alpha.drain();
        dropped.extend(self.beta.drain());
        let lost: Vec<Gen> = self
            .flying
            .iter()
            .filter(|(_, f)| f.side == Side::Beta)
            .map(|(batch, _)| *batch)
            .collect();
        let has_lost = !lost.is_empty();
        for batch in lost {
            dropped.extend(
                self.flying
                    .remove(&batch)
                    .map(|f| f.ops)
                    .unwrap_or_default(),
            );
        }
        for op in dropped {
            for single in self.single_ops(op, false) {
                self.end(&single, false);
            }
        }
        // Nothing was wrong with them.
        self.not_moved.clear();
        self.unnoted.clear();
        // Of those that it has stored, it tells when it comes back.
        for rows in std::mem::take(&mut self.awaited).into_values() {
            self.abandon(&rows);
        }
        self.lane[Side::Beta as usize] = 0;
        has_lost
    }

    /// Ends an operation; returns whether it was the last one of its path and none failed.
    fn end(&mut self, op: &Op, done: bool) -> bool {
        let Some(busy) = self.busy.get_mut(&op.path) else {
            return false;
        };
        busy.left -= 1;
        busy.failed |= !done;
        let (left, failed) = (busy.left, busy.failed);
        if left == 0 {
            self.busy.remove(&op.path);
        }
        left == 0 && !failed
    }

    /// Lets go what waited for a conflict copy made of `from`.
    fn copied(&mut self, side: Side, from: &RelPath, done: bool) -> Vec<Op> {
        let queue = self.queue(side);
        if let Some(count) = queue.copying.get_mut(from) {
            *count -= 1;
            if *count == 0 {
                queue.copying.remove(from);
            }
        }
        let waits = |op: &Op, queue: &Queue| {
            queue.copying.contains_key(&op.path)
                || queue.copying.keys().any(|from| from.is_below(&op.path))
        };
        let mut cancelled = Vec::new();
        for op in std::mem::take(&mut queue.after_copy) {
            if !done && (op.path == *from || from.is_below(&op.path)) {
                cancelled.push(op);
            } else if waits(&op, queue) {
                queue.after_copy.push(op);
            } else {
                queue.push(op);
            }
        }
        cancelled
    }
}

impl Pusher {
    /// Hands out queued work.
    pub(super) fn dispatch(&mut self) {
        for side in [Side::Beta, Side::Alpha] {
            while let Some((ops, in_lane)) = self.batches.next(side) {
                let number = self.next_batch();
                let settles = self.settles(side, &ops);
                let batch = Batch {
                    number,
                    ops: ops.clone(),
                    settles,
                };
                let flying = Flying {
                    side,
                    in_lane,
                    ops,
                    settles,
                };
                self.batches.flying.insert(number, flying);
                let place = in_lane.then(|| {
                    let lane = &mut self.batches.lane[side as usize];
                    *lane += 1;
                    *lane - 1
                });
                match side {
                    Side::Beta => self.actions.push(Action::Push(batch, place)),
                    Side::Alpha => {
                        let items = items(&batch);
                        self.resolve();
                        self.actions
                            .push(Action::Take(batch, place, self.notes.resolved));
                        if !items.is_empty() {
                            self.actions.push(Action::Send(Frame::Fetch(number, items)));
                        }
                    }
                }
            }
        }
    }

    /// Returns the beginning of the set hash of both trees if a batch is all that keeps them from being equal.
    fn settles(&self, side: Side, ops: &[Op]) -> Option<u64> {
        let batches = &self.batches;
        let is_last = side == Side::Beta
            && ops.len() <= SETTLING_OPS_MAX
            && ops.iter().all(|op| op.agrees && !Self::is_merge(op))
            && batches.alpha.len() + batches.beta.len() == 0
            && batches.flying.is_empty()
            && batches.committing.is_empty()
            && batches.awaited.is_empty()
            && self.due.is_empty()
            && self.undecided.is_empty()
            && self.holds.len() == 0
            && self.looks.is_idle();
        let is_settled_by = |path: &RelPath| ops.iter().any(|op| op.path == *path);
        let is_all = || {
            [Side::Alpha, Side::Beta].iter().all(|side| {
                let apart = self.trees.view(*side).apart();
                apart.len() <= ops.len() && apart.keys().all(is_settled_by)
            })
        };
        let told = self.last_proof.as_ref();
        let is_told_settled = told.is_some_and(|(proof, _)| proof.settled);
        (is_last && is_told_settled && is_all())
            .then(|| self.trees.view(Side::Alpha).hash().beginning())
    }

    /// Takes what became of a batch on one side.
    pub(super) fn applied(&mut self, side: Side, batch: Gen, outcomes: Vec<Outcome>) {
        // What became of a batch for this side is not for the receiver to say.
        let is_its_own = |flying: &Flying| flying.side == side;
        if !self.batches.flying.get(&batch).is_some_and(is_its_own) {
            return;
        }
        let Some(flying) = self.batches.flying.remove(&batch) else {
            return;
        };
        self.foretold = flying
            .settles
            .filter(|_| outcomes.iter().all(|outcome| *outcome == Outcome::Done));
        let mut outcomes = outcomes.into_iter();
        let mut commit = Committing::default();
        let mut stored: Vec<AgreedRow> = Vec::new();
        let mut singles: Vec<(Op, Outcome)> = Vec::with_capacity(flying.ops.len());
        for op in flying.ops {
            // A missing outcome is no proof that it was done.
            let outcome = outcomes.next().unwrap_or(Outcome::Stale);
            let done = outcome == Outcome::Done;
            if done {
                self.tell(Happening::Changed {
                    on: side_name(side),
                    change: Change::of(&op),
                    path: op.path.clone(),
                    from: op.moves().map(|(from, _)| from.clone()),
                    len: op.make.as_ref().map_or(0, Entry::len),
                });
            }
            // What is in the way of a move is told when its files go one by one.
            let outcome = match outcome {
                Outcome::Held(_) if op.moves().is_some() => Outcome::Stale,
                outcome => outcome,
            };
            let of = self.batches.single_ops(op, done);
            singles.extend(of.into_iter().map(|op| (op, outcome.clone())));
        }
        for (op, outcome) in singles {
            let done = outcome == Outcome::Done;
            let last_and_all_done = self.batches.end(&op, done);
            if done {
                self.trees
                    .observe(side, op.path.clone(), op.make.clone().into());
                let makes_dir = op.make.as_ref().is_some_and(Entry::is_dir);
                if makes_dir && op.expect.as_ref().is_some_and(|was| !was.is_dir()) {
                    self.plan_below(&op.path);
                }
            }
            let row = (
                op.path.clone(),
                BaseRow {
                    entry: op.make.clone(),
                    batch,
                },
            );
            match (op.agrees, side) {
                // Applying it made the row durable here, and the receiver has to store it.
                (true, Side::Alpha) if done => stored.push(row),
                // Applying it made the row durable there.
                (true, Side::Beta) if done => commit.rows.push(row),
                // Both have it now, and nobody has made the content durable: that comes when it is found equal.
                (false, _) if last_and_all_done && op.only_turns_bit() => {
                    self.due.insert(op.path.clone());
                }
                (false, _) if last_and_all_done => {
                    commit.announce.push(row.clone());
                    commit.rows.push(row);
                }
                // The other side's half of it failed before, and that retry may have come while this
                // half was on its way.
                (false, _) if done && !self.batches.is_busy(&op.path) => {
                    self.holds.retry(op.path.clone(), self.now);
                }
                _ => {}
            }
            if let Source::Here(from) = &op.from {
                for cancelled in self.batches.copied(side, from, done) {
                    self.batches.end(&cancelled, false);
                    self.holds.retry(cancelled.path, self.now);
                }
            }
            match outcome {
                Outcome::Done => {}
                Outcome::Merged(entry) if Self::is_merge(&op) => self.merged(&op, entry),
                Outcome::Unmerged if Self::is_merge(&op) => self.unmerged(&op),
                other => self.failed(side, &op, other),
            }
        }
        self.due.extend(self.undecided.drain(..));
        for (path, row) in &stored {
            self.settle(path, row.clone());
        }
        self.announce(batch, &stored);
        if !commit.rows.is_empty() {
            self.commit(batch, commit, Durable::Rows);
        }
    }

    fn failed(&mut self, side: Side, op: &Op, outcome: Outcome) {
        self.guard.not_done(side, op);
        match outcome {
            Outcome::Held(trouble) => {
                let problem = holds::problem_of_trouble(side_name(side), &op.path, &trouble);
                if self
                    .holds
                    .hold(op.path.clone(), problem.clone(), self.now, self.utc)
                {
                    self.tell(Happening::Held(problem));
                }
                self.waited_for(&op.path);
            }
            // A merge that nobody asked for is no better than a stale operation.
            Outcome::Stale
            | Outcome::Gone
            | Outcome::Done
            | Outcome::Merged(_)
            | Outcome::Unmerged => {
                self.holds.retry(op.path.clone(), self.now);
            }
        }
    }

    /// Returns the batch up to which all rows are stored on both sides.
    fn resolved(&self) -> Gen {
        if !self.peer.is_ready() {
            return self.notes.resolved;
        }
        let open = self
            .batches
            .first_open()
            .map_or(self.notes.last_batch, |open| Gen(open.0 - 1));
        open.max(self.notes.resolved)
    }

    /// Notes up to where all rows are stored on both sides.
    pub(super) fn resolve(&mut self) {
        self.notes.resolved = self.resolved();
        self.trees.forget_tombstones(self.notes.resolved);
    }
}
