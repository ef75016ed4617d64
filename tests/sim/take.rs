//! A batch under way on the side that changes: staged, applied step by step, recorded. It is
//! `carry::content` with `disk::stage` and `disk::apply` for simulated files; what a single operation
//! does is in `operation.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use disk::Report;
use shared::path::RelPath;
use shared::transfer::{Batch, Item, Need, Op, Outcome, Source, moved_ops};
use shared::tree::{BaseRow, Entry, Gen, Obstacle, Sight};
use shared::wire::AgreedRow;

use crate::defect::Defect;
use crate::disk::Disk;
use crate::index::{SeenChange, SeenRow};
use crate::link::Piece;
use crate::node::Lane;
use crate::operation::{Operation, Progress, displaces, only_exec};
use crate::seen::Slot;
use crate::volume::{Dir, Ino, Intent, IntentRow, Line, Place, content};

/// A batch that is being taken.
#[derive(Debug)]
pub(crate) struct TakeJob {
    pub(crate) batch: Batch,
    /// Its place in a lane, and the number of that lane.
    pub(crate) place: Option<u64>,
    pub(crate) lane: u64,
    resolved: Gen,
    /// The connection that content comes over, until that is given up.
    pub(crate) link: Option<u64>,
    /// What has arrived.
    inbox: VecDeque<Piece>,
    parts_end: bool,
    needed: BTreeSet<u32>,
    staged: Vec<Staged>,
    phase: Phase,
    operation: Option<Operation>,
    outcomes: Vec<(Outcome, Option<SeenRow>)>,
    /// What the moves of the batch move, by their places in it; `None` when that is not what was seen.
    moved: BTreeMap<usize, Option<Vec<Moved>>>,
    dirs: Vec<Dir>,
}

/// A path of a move, with what was seen there.
#[derive(Debug, Clone)]
struct Moved {
    from: RelPath,
    to: RelPath,
    row: SeenRow,
}

/// What is staged for an operation.
#[derive(Debug, Clone)]
pub(crate) struct Staged {
    pub(crate) id: u64,
    pub(crate) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing is expected from the other side.
    Own,
    Wanted,
    /// Chunks were asked for.
    Growing,
    Ready(Ino),
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Staging,
    Own,
    Turn,
    Announce,
    Barrier,
    Carry(usize),
    SyncDirs,
    Record,
}

/// What a step of a batch led to.
#[derive(Debug)]
pub(crate) enum Taken {
    /// More steps follow.
    Going,
    /// Chunks are needed.
    Need(Need),
    /// It is over, and was reported.
    Done,
    /// It is over without having been applied.
    GivenUp(Vec<Outcome>),
}

impl TakeJob {
    /// Begins to stage a batch.
    pub(crate) fn new(
        disk: &mut Disk,
        batch: Batch,
        (place, lane): (Option<u64>, u64),
        resolved: Gen,
        link: Option<u64>,
    ) -> Self {
        let staged = batch
            .ops
            .iter()
            .map(|op| Staged {
                id: disk.volume.new_id(),
                state: if op.wants().is_some() || op.moves().is_some() {
                    State::Wanted
                } else {
                    State::Own
                },
            })
            .collect();
        Self {
            batch,
            place,
            lane,
            resolved,
            link,
            inbox: VecDeque::new(),
            parts_end: false,
            needed: BTreeSet::new(),
            staged,
            phase: Phase::Staging,
            operation: None,
            outcomes: Vec::new(),
            moved: BTreeMap::new(),
            dirs: Vec::new(),
        }
    }

    /// Takes what arrived.
    pub(crate) fn arrive(&mut self, piece: Piece) {
        self.inbox.push_back(piece);
    }

    /// Says whether it can take a step. `locked` says that another batch is being applied.
    pub(crate) fn is_ready(&self, lane: Lane, locked: bool) -> bool {
        match self.phase {
            Phase::Staging => !self.inbox.is_empty() || self.ends_staging(),
            Phase::Turn if self.is_its_turn(lane) => !locked,
            Phase::Turn => lane.closed,
            _ => true,
        }
    }

    fn is_its_turn(&self, lane: Lane) -> bool {
        self.place.is_none_or(|place| lane.next >= place)
    }

    fn missing(&self) -> bool {
        self.staged
            .iter()
            .any(|staged| matches!(staged.state, State::Wanted | State::Growing))
    }

    fn ends_staging(&self) -> bool {
        !self.missing() || self.link.is_none() || self.parts_end && self.needed.is_empty()
    }

    /// Takes one step.
    pub(crate) fn step(&mut self, disk: &mut Disk, lane: Lane) -> Taken {
        match self.phase {
            Phase::Turn if !self.is_its_turn(lane) => {
                for ready in &self.staged {
                    if matches!(ready.state, State::Ready(_)) {
                        disk.volume.remove(Place::Stage(ready.id));
                    }
                }
                return Taken::GivenUp(vec![Outcome::Gone; self.batch.ops.len()]);
            }
            Phase::Staging => return self.stage(disk),
            Phase::Own => {
                self.stage_own(disk);
                self.phase = Phase::Turn;
            }
            Phase::Turn => {
                disk.applying = true;
                let ops = &self.batch.ops;
                self.moved = (0..ops.len())
                    .filter(|at| ops[*at].moves().is_some())
                    .map(|at| (at, standing(disk, &ops[..at], &ops[at])))
                    .collect();
                let within = self.moved.values().flatten().flatten();
                let within = within.flat_map(|moved| [moved.from.clone(), moved.to.clone()]);
                let paths = self.batch.ops.iter().map(|op| op.path.clone());
                disk.seen.begin_apply(paths.chain(within));
                self.phase = Phase::Announce;
            }
            Phase::Announce => {
                self.announce(disk);
                self.phase = Phase::Barrier;
            }
            Phase::Barrier => {
                self.barrier(disk);
                self.phase = Phase::Carry(0);
            }
            Phase::Carry(at) if at < self.batch.ops.len() => self.carry(disk, at),
            Phase::Carry(_) => self.phase = Phase::SyncDirs,
            Phase::SyncDirs => {
                self.dirs.push(Dir::Kept);
                if !disk.has(Defect::DirectoriesNotSynced) && !disk.has(Defect::AckBeforeDurable) {
                    disk.volume.sync_dirs(&self.dirs);
                }
                self.phase = Phase::Record;
            }
            Phase::Record => {
                self.record(disk);
                return Taken::Done;
            }
        }
        Taken::Going
    }

    // Staging

    fn stage(&mut self, disk: &mut Disk) -> Taken {
        let Some(piece) = self.inbox.pop_front().filter(|_| self.missing()) else {
            self.phase = Phase::Own;
            return Taken::Going;
        };
        match piece {
            Piece::Content(index, content, len) => self.complete(disk, index, (content, len)),
            Piece::Listed(index) => return self.listed(index),
            Piece::Gone(index) => self.gone(index),
            Piece::Stands(index) => {
                if let Some(staged) = self.staged.get_mut(index as usize) {
                    staged.state = State::Own;
                }
            }
            Piece::Chunks(index, content, len) => self.complete(disk, index, (content, len)),
            Piece::End => self.parts_end = true,
            Piece::ChunksEnd(index) => {
                self.needed.remove(&index);
            }
        }
        Taken::Going
    }

    fn op(&self, index: u32) -> Option<&Op> {
        self.batch.ops.get(index as usize)
    }

    fn listed(&mut self, index: u32) -> Taken {
        let wants = self
            .op(index)
            .and_then(Op::wants)
            .map(|(path, entry)| (path.clone(), entry.clone()));
        let Some((path, entry)) = wants else {
            return Taken::Going;
        };
        self.staged[index as usize].state = State::Growing;
        self.needed.insert(index);
        Taken::Need(Need {
            batch: self.batch.number,
            item: Item {
                index,
                path,
                entry,
                base: None,
            },
            runs: vec![(0, 1)],
            olds: Vec::new(),
        })
    }

    fn complete(&mut self, disk: &mut Disk, index: u32, found: (shared::hash::ContentHash, u64)) {
        let Some(Entry::File { content, len, .. }) = self.op(index).and_then(|op| op.make.as_ref())
        else {
            return;
        };
        let fits = (*content, *len) == found;
        if !fits && !disk.has(Defect::UnverifiedContent) {
            return self.gone(index);
        }
        let staged = &mut self.staged[index as usize];
        if matches!(staged.state, State::Wanted | State::Growing) {
            let entry = Entry::File {
                content: found.0,
                len: found.1,
                exec: false,
            };
            let ino = disk.volume.create(Place::Stage(staged.id), entry);
            staged.state = State::Ready(ino);
        }
    }

    fn gone(&mut self, index: u32) {
        if let Some(staged) = self.staged.get_mut(index as usize)
            && matches!(staged.state, State::Wanted | State::Growing)
        {
            staged.state = State::Gone;
        }
    }

    /// Stages what needs nothing from the other side.
    fn stage_own(&mut self, disk: &mut Disk) {
        for (op, staged) in self.batch.ops.iter().zip(&mut self.staged) {
            if staged.state != State::Own {
                if matches!(staged.state, State::Wanted | State::Growing) {
                    staged.state = State::Gone;
                }
                continue;
            }
            let entry = match (&op.make, &op.expect, &op.from) {
                (Some(link @ Entry::Symlink { .. }), _, _) => link.clone(),
                (Some(Entry::Dir), Some(expect), _) if !expect.is_dir() => Entry::Dir,
                (Some(make @ Entry::File { .. }), _, Source::Here(from)) => {
                    let there = disk
                        .volume
                        .node(from)
                        .filter(|(_, inode)| !inode.shut && !disk.volume.is_shut_above(from));
                    match there.map(|(_, inode)| &inode.entry) {
                        Some(Entry::File { content, len, .. })
                            if *content == make.identity() && *len == make.len() =>
                        {
                            Entry::File {
                                content: *content,
                                len: *len,
                                exec: false,
                            }
                        }
                        _ => {
                            staged.state = State::Gone;
                            continue;
                        }
                    }
                }
                _ => continue,
            };
            let ino = disk.volume.create(Place::Stage(staged.id), entry);
            staged.state = State::Ready(ino);
        }
    }

    // Applying

    fn ready(staged: &Staged) -> Option<Ino> {
        match staged.state {
            State::Ready(ino) => Some(ino),
            _ => None,
        }
    }

    fn announce(&self, disk: &mut Disk) {
        let lines = self
            .batch
            .ops
            .iter()
            .zip(&self.staged)
            .filter(|(op, _)| displaces(op))
            .map(|(_, staged)| Line {
                id: staged.id,
                staged: Self::ready(staged),
            });
        disk.volume.append(lines);
    }

    fn barrier(&self, disk: &mut Disk) {
        let row = |(op, staged): (&Op, &Staged)| IntentRow {
            path: op.path.clone(),
            make: op.make.clone(),
            staged: Self::ready(staged),
            changes_bit: changes_bit(disk, op),
        };
        let agreeing = |(op, _): &(&Op, &Staged)| op.agrees && op.moves().is_none();
        let ops = self.batch.ops.iter().zip(&self.staged);
        let mut rows: Vec<IntentRow> = ops.filter(agreeing).map(row).collect();
        for moved in self.moved.values().flatten().flatten() {
            rows.push(IntentRow {
                path: moved.to.clone(),
                make: Some(moved.row.entry.clone()),
                staged: moved.row.print.map(|print| print.ino),
                changes_bit: None,
            });
            rows.push(IntentRow {
                path: moved.from.clone(),
                make: None,
                staged: None,
                changes_bit: None,
            });
        }
        if !disk.has(Defect::NoIntent) {
            disk.volume.write_intent(Some(Intent {
                batch: self.batch.number,
                rows,
            }));
            disk.volume.sync_intent();
        }
        if !disk.has(Defect::BaseBeforeData) {
            for ino in self.staged.iter().filter_map(Self::ready) {
                disk.volume.sync_file(ino);
            }
            for moved in self.moved.values().flatten().filter_map(|all| all.first()) {
                match disk
                    .volume
                    .node(&moved.from)
                    .map(|(ino, inode)| (ino, inode.entry.is_dir()))
                {
                    Some((ino, false)) => disk.volume.sync_file(ino),
                    Some((_, true)) => disk.volume.sync_all(),
                    None => {}
                }
            }
        }
        disk.volume.sync_lines();
    }

    fn carry(&mut self, disk: &mut Disk, at: usize) {
        let op = &self.batch.ops[at];
        if self.operation.is_none() {
            let is_seen = self.moved.get(&at).is_none_or(Option::is_some);
            let stays = |(inside, (outcome, _)): (&Op, &(Outcome, Option<SeenRow>))| {
                op.moves()
                    .is_some_and(|(from, _)| inside.path.is_below(from))
                    && *outcome != Outcome::Done
            };
            let stays = self.batch.ops.iter().zip(&self.outcomes).any(stays);
            let begun = (is_seen && !stays).then(|| Operation::begin(disk, op, &self.staged[at]));
            match begun.unwrap_or(Err(Outcome::Stale)) {
                Ok(operation) => {
                    self.dirs.extend(operation.touches());
                    self.operation = Some(operation);
                }
                Err(outcome) => {
                    self.outcomes.push((outcome, None));
                    self.phase = Phase::Carry(at + 1);
                }
            }
            return;
        }
        if let Some(operation) = &mut self.operation
            && let Progress::Ended(outcome) = operation.step(disk, op)
        {
            let row = (outcome == Outcome::Done)
                .then(|| operation.row(disk, op))
                .flatten();
            self.outcomes.push((outcome, row));
            self.operation = None;
            self.phase = Phase::Carry(at + 1);
        }
    }

    /// Records what was carried out, and reports it.
    fn record(&mut self, disk: &mut Disk) {
        let number = self.batch.number;
        let mut base: Vec<AgreedRow> = Vec::new();
        let mut rows: Vec<SeenChange> = Vec::new();
        let mut outcomes = Vec::new();
        let mut moved_dirs = Vec::new();
        for (at, (op, (outcome, row))) in
            (0..).zip(self.batch.ops.iter().zip(self.outcomes.drain(..)))
        {
            if outcome == Outcome::Done && op.moves().is_some() {
                if op.make.as_ref().is_some_and(Entry::is_dir) {
                    moved_dirs.push(op.path.clone());
                }
                for Moved { from, to, row } in
                    self.moved.remove(&at).flatten().into_iter().flatten()
                {
                    let agreed = |entry| BaseRow {
                        entry,
                        batch: number,
                    };
                    base.push((to.clone(), agreed(Some(row.entry.clone()))));
                    base.push((from.clone(), agreed(None)));
                    if let Some(content) = content(&row.entry) {
                        disk.placed.insert((to.clone(), content));
                    }
                    // A rename changes the fingerprint of what is renamed itself.
                    let print = if to == op.path {
                        let print = disk.volume.print(&Place::Tree(to.clone()));
                        print.filter(|now| {
                            let was = row.print.map(|print| (print.ino, print.mtime));
                            let exec =
                                |entry: &Entry| matches!(entry, Entry::File { exec: true, .. });
                            let same_mode =
                                disk.volume.entry(&to).map(exec) == Some(exec(&row.entry));
                            was == Some((now.ino, now.mtime)) && same_mode
                        })
                    } else {
                        row.print
                    };
                    rows.push((to, Some(SeenRow { print, ..row })));
                    rows.push((from, None));
                }
            } else if outcome == Outcome::Done {
                if op.agrees {
                    let agreed = BaseRow {
                        entry: op.make.clone(),
                        batch: number,
                    };
                    base.push((op.path.clone(), agreed));
                }
                if let Some(content) = op.make.as_ref().and_then(content) {
                    disk.placed.insert((op.path.clone(), content));
                }
                rows.push((op.path.clone(), row));
            }
            outcomes.push(outcome);
        }
        let is_moved = |path: &RelPath, row: &SeenRow| match &row.entry {
            Entry::Dir => !disk.volume.entry(path).is_some_and(Entry::is_dir),
            _ => row.print.is_none(),
        };
        let changed = rows
            .iter()
            .filter(|(path, row)| row.as_ref().is_some_and(|row| is_moved(path, row)))
            .map(|(path, _)| path);
        let moved: Vec<Report> = changed
            .chain(&moved_dirs)
            .map(|path| Report::Moved(path.clone()))
            .collect();
        for dir in moved_dirs {
            disk.seen.look_whole(dir);
        }
        let orphans = orphans(disk, &rows);
        rows.extend(orphans.iter().map(|path| (path.clone(), None)));
        let stored = disk.index.notes.clone();
        let notes = disk::Notes {
            resolved: stored.resolved.max(self.resolved),
            last_batch: stored.last_batch.max(number),
            ..stored
        };
        disk.note_moved(&rows, &base);
        if disk.has(Defect::AckBeforeDurable) {
            disk.index.write_lazily(rows.clone(), &base, notes);
        } else {
            let forget = disk.has(Defect::TombstonesEarly);
            disk.index.write(rows.clone(), &base, notes, forget);
        }
        disk.volume.write_intent(None);
        let has_rules = !disk.rules.text().is_empty();
        let mut ignored = Vec::new();
        for (path, row) in rows {
            let is_dir = row.as_ref().is_some_and(|row| row.entry.is_dir());
            if row.is_none() || !has_rules || !disk.rules.ignores_within(&path, is_dir) {
                disk.see(path, row.map(Slot::Is));
            } else if disk.rules.ignores(&path, is_dir) {
                disk.see(path.clone(), Some(Slot::Blocked(Obstacle::Ignored)));
                ignored.push((path, Sight::Blocked(Obstacle::Ignored)));
            } else {
                disk.see(path.clone(), None);
                ignored.push((path, Sight::Absent));
            }
        }
        if !disk.has(Defect::LookBelievesAll) {
            disk.reports.extend(moved);
        }
        let deferred = disk.seen.end_apply();
        disk.reports.extend(deferred.into_iter().map(Report::Moved));
        if !orphans.is_empty() {
            let absent = orphans.into_iter().map(|path| (path, Sight::Absent));
            disk.reports.push_back(Report::Observed(absent.collect()));
        }
        disk.reports.push_back(Report::Applied {
            batch: number,
            outcomes,
        });
        if !ignored.is_empty() {
            disk.reports.push_back(Report::Observed(ignored));
        }
        disk.applying = false;
    }
}

/// Returns what was seen below directories that are gone now.
fn orphans(disk: &Disk, done: &[SeenChange]) -> Vec<RelPath> {
    let is_dir = |row: &Option<SeenRow>| row.as_ref().is_some_and(|row| row.entry.is_dir());
    let gone = done.iter().filter(|(_, row)| !is_dir(row));
    let below: BTreeSet<RelPath> = gone.flat_map(|(path, _)| disk.seen.below(path)).collect();
    let is_done = |path: &RelPath| done.iter().any(|(other, _)| other == path);
    below.into_iter().filter(|path| !is_done(path)).collect()
}

/// Returns what a move is about; `None` when something else was seen than what it wants to move.
fn standing(disk: &Disk, before: &[Op], op: &Op) -> Option<Vec<Moved>> {
    let (from, _) = op.moves()?;
    let goes = |path: &RelPath| {
        before
            .iter()
            .any(|op| op.make.is_none() && op.path == *path)
    };
    let mut rows: Vec<(RelPath, SeenRow)> = Vec::new();
    let there = std::iter::once(from.clone()).chain(disk.seen.below(from));
    for path in there.filter(|path| !goes(path)) {
        rows.push((path.clone(), disk.seen.row(&path)?.clone()));
    }
    let entries: Vec<(RelPath, Entry)> = rows
        .iter()
        .map(|(path, row)| (path.clone(), row.entry.clone()))
        .collect();
    moved_ops(op, &entries)?;
    let moved = rows.into_iter().map(|(path, row)| {
        let to = path.rebase(from, &op.path).ok()?;
        Some(Moved {
            from: path,
            to,
            row,
        })
    });
    moved.collect()
}

/// Returns what an operation that changes only the exec bit works on.
fn changes_bit(disk: &Disk, op: &Op) -> Option<(Ino, u64)> {
    if !only_exec(op) {
        return None;
    }
    let (ino, inode) = disk.volume.node(&op.path)?;
    Some((ino, inode.mtime))
}

/// Returns the directory of a path, for making it durable.
pub(crate) fn dir_of(path: &RelPath) -> Dir {
    Dir::Tree(path.parent())
}
