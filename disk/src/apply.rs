//! Apply: makes staged content real.
//!
//! Order, for a batch: the catalogue names what may be displaced; that and the staged content become
//! durable; each operation is carried out in the order of the plan ([`steps`], [`carry`]); the
//! directories become durable; one transaction records base and seen; then it is reported. A crash
//! between any two leaves the old file or the new one, never a mixture, and [`recover`] finds what was
//! displaced. Never here: deciding what to change.
//!
//! A file is replaced by *exchange, then verify*: the staged one and the target swap names in one
//! step, and what came out is compared with what the plan saw. If somebody saved in that very moment,
//! it is swapped back. So there is no window between check and replacement, and no moment at which
//! the path does not exist.

mod carry;
pub(crate) mod intent;
mod merge;
mod recover;
mod steps;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::PoisonError;

use rustix::io::Errno;
use shared::chunk::Manifest;
use shared::path::RelPath;
use shared::transfer::{Batch, Op, Outcome, Source};
use shared::tree::{BaseRow, Entry, Gen, Obstacle, Sight};
use shared::wire::AgreedRow;

use crate::displaced::Rested;
use crate::error::DiskError;
use crate::fingerprint::{Fingerprint, SeenRow};
use crate::index::{Changes, Notes};
use crate::kept::{Line, What};
use crate::seen::{Seen, Slot};
use crate::sqlite::guard::Guard;
use crate::sqlite::locks::TreeFile;
use crate::stage::{Ready, Staged, StagedState, discard, ready_name};
use crate::trouble::trouble;
use crate::{Replica, Report, handle, lock, read, utc_now, volume};

pub(crate) use carry::Work;
use carry::moved::{Moved, standing};
use merge::Merged;
pub(crate) use merge::Prepared;
pub(crate) use recover::recover;
pub(crate) use steps::Step;
use steps::{displaces, needs_staged};

/// A test's say before each step.
#[cfg(test)]
pub(crate) type Hook = Box<dyn FnMut(Step) -> std::ops::ControlFlow<()> + Send>;

/// An operation with what is staged for it.
pub(crate) struct Job<'a> {
    pub(crate) op: &'a Op,
    /// Its name in the stage and in the kept store.
    pub(crate) id: String,
    pub(crate) staged: StagedState,
    /// Why what it displaces is kept.
    pub(crate) why: &'static str,
    /// If it is a move: all paths of it, the topmost first.
    pub(crate) moved: Vec<Moved>,
}

/// What became of an operation.
pub(crate) struct Carried {
    pub(crate) outcome: Outcome,
    /// What it put there, when it is done, and whether somebody changed that again already.
    pub(crate) row: Option<(SeenRow, bool)>,
    /// What was displaced, as it was then, when it is done and that was a file.
    pub(crate) displaced: Option<Rested>,
    /// If it was a move, and is done: what stands where now.
    pub(crate) moved: Vec<Moved>,
}

impl Carried {
    fn ended(outcome: Outcome) -> Self {
        Self {
            outcome,
            row: None,
            displaced: None,
            moved: Vec::new(),
        }
    }
}

impl Replica {
    /// Carries out a batch, and reports it as [`Report::Applied`] before this returns. What is
    /// [`Outcome::Done`] is durable then, with the base rows of the operations on which both sides agree
    /// thereby.
    ///
    /// `resolved` says up to which batch both sides have stored the rows; tombstones up to it go.
    ///
    /// # Errors
    /// [`DiskError`] when the batch as a whole could not be made durable or recorded: nothing is
    /// reported then, and the tree has to be looked at. What hinders a single operation is its outcome.
    pub fn apply(&self, batch: &Batch, staged: Staged, resolved: Gen) -> Result<(), DiskError> {
        let _alone = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = staged.batch == batch.number && staged.places.len() == batch.ops.len();
        debug_assert!(fits, "staged for another batch");
        let job = |(op, (id, staged))| Job {
            op,
            id,
            staged,
            why: why(op),
            moved: Vec::new(),
        };
        let (mut places, manifests) = staged.into_parts();
        let (_touched, moves) = self.touch(batch);
        let (ops, merges) = self.merge_all(batch, &mut places);
        let mut jobs: Vec<Job<'_>> = ops.iter().zip(places).map(job).collect();
        for (job, moved) in jobs.iter_mut().zip(moves) {
            match moved {
                Some(moved) => job.moved = moved,
                None => job.staged = StagedState::Stale,
            }
        }
        let mut carried = self.carry_out(&jobs, Some(batch.number))?;
        carried.resize_with(batch.ops.len(), || Carried::ended(Outcome::Gone));
        let batch = Batch {
            number: batch.number,
            settles: batch.settles,
            ops,
        };
        self.record(&batch, carried, &merges, &manifests, resolved)
    }

    /// Has looks not believe what they see at the paths of a batch. Returns, for each operation that is a
    /// move, what it moves; `None` where that is not what was seen.
    fn touch(&self, batch: &Batch) -> (Touched<'_>, Vec<Option<Vec<Moved>>>) {
        let mut seen = lock(&self.seen);
        let of = |(at, op): (usize, &Op)| match op.moves() {
            Some(_) => standing(&seen, &batch.ops[..at], op),
            None => Some(Vec::new()),
        };
        let moves: Vec<Option<Vec<Moved>>> = batch.ops.iter().enumerate().map(of).collect();
        let within = moves.iter().flatten().flatten();
        let within = within.flat_map(|moved| [moved.from.clone(), moved.to.clone()]);
        let paths = batch.ops.iter().map(|op| op.path.clone());
        seen.begin_apply(paths.chain(within));
        (Touched(self), moves)
    }

    /// Turns merges into operations that make the result. Returns all operations, and what is to be said
    /// of those that were merges when they are done.
    fn merge_all(
        &self,
        batch: &Batch,
        places: &mut [(String, StagedState)],
    ) -> (Vec<Op>, BTreeMap<usize, Outcome>) {
        let mut ops = batch.ops.clone();
        let mut merges = BTreeMap::new();
        for (index, (op, (id, staged))) in ops.iter_mut().zip(places).enumerate() {
            let (Source::Merge { .. }, StagedState::Ready(ready)) = (&op.from, &*staged) else {
                continue;
            };
            match self.merge(op, id, *ready) {
                Merged::As(plain, state) => {
                    let made = plain.make.clone().map_or(Outcome::Gone, Outcome::Merged);
                    merges.insert(index, made);
                    (*op, *staged) = (plain, state);
                }
                Merged::Not => {
                    merges.insert(index, Outcome::Unmerged);
                    let standing = op.expect.clone();
                    op.make = standing;
                    op.from = Source::Nothing;
                    *staged = StagedState::Nothing;
                }
            }
        }
        (ops, merges)
    }

    /// Carries operations out, up to the point where they are durable. `batch` is what they agree on
    /// things for, if they do.
    pub(crate) fn carry_out(
        &self,
        jobs: &[Job<'_>],
        batch: Option<Gen>,
    ) -> Result<Vec<Carried>, DiskError> {
        self.root.check()?;
        self.before(Step::Announce)?;
        let announced = self.with_room(0, || self.announce(jobs).map_err(|e| read::errno(&e)));
        self.before(Step::Barrier)?;
        let barrier = || self.barrier(jobs, batch).map_err(|e| read::errno(&e));
        if let Err(error) = announced.and_then(|()| self.with_room(0, barrier)) {
            tracing::warn!(%error, "a batch could not be made durable before it was applied");
            return Ok(jobs.iter().map(|job| self.give_up(job, error)).collect());
        }
        let mut dirs = Dirs::default();
        let mut carried = Vec::with_capacity(jobs.len());
        for job in jobs {
            let ended = if stays_inside(job, jobs, &carried) {
                Carried::ended(Outcome::Stale)
            } else {
                self.carry_one(job, &mut dirs)?
            };
            if let Some(rested) = ended.displaced {
                lock(&self.displaced).watch(job.id.clone(), rested, utc_now());
            }
            carried.push(ended);
        }
        self.before(Step::SyncDirs)?;
        dirs.sync(self)?;
        Ok(carried)
    }

    /// Writes down what may be displaced.
    fn announce(&self, jobs: &[Job<'_>]) -> io::Result<()> {
        let now = utc_now();
        let line = |job: &Job<'_>| {
            let expect = job.op.expect.as_ref().filter(|_| displaces(job.op))?;
            Some(Line {
                id: job.id.clone(),
                at: now,
                path: job.op.path.clone(),
                what: What::from(expect),
                why: job.why.to_owned(),
                node: self.kept.node.clone(),
                staged: job.ready().map(|ready| ready.inode),
            })
        };
        let lines: Vec<Line> = jobs.iter().filter_map(line).collect();
        if lines.is_empty() {
            Ok(())
        } else {
            self.kept.append(&lines)
        }
    }

    /// Makes durable what was written down, and what is staged.
    fn barrier(&self, jobs: &[Job<'_>], batch: Option<Gen>) -> io::Result<()> {
        let mut open: Vec<TreeFile> = Vec::new();
        if let Some(batch) = batch {
            open.push(intent::write(&self.root, batch, jobs)?.into());
            open.push(File::from(self.root.private.try_clone()?).into());
        }
        let mut more = false;
        for job in jobs {
            if let Some((from, _)) = job.op.moves() {
                // Both sides are about to agree on it, and nobody says that whoever made it has made it durable.
                match job.op.make {
                    Some(Entry::File { .. }) => {
                        let there = handle::open_tree_file(self.root.as_fd(), from);
                        open.extend(there.map(|(file, _)| file));
                    }
                    _ => more = true,
                }
                continue;
            }
            let Some(Ready {
                mtime_ns: Some(_), ..
            }) = job.ready()
            else {
                continue;
            };
            if volume::worth_holding(open.len()) {
                let staged = handle::open_file(&self.root.stage, ready_name(&job.id));
                open.extend(staged.map(|(file, _)| file));
            } else {
                more = true;
            }
        }
        if jobs.iter().any(|job| displaces(job.op)) {
            self.kept.sync()?;
        }
        self.flushed.all(self.root.as_fd(), &open, more)
    }

    fn give_up(&self, job: &Job<'_>, error: Errno) -> Carried {
        if job.ready().is_some() {
            discard(&self.root, &ready_name(&job.id));
        }
        Carried::ended(Outcome::Held(trouble(&job.op.path, "prepared", error)))
    }

    fn carry_one(&self, job: &Job<'_>, dirs: &mut Dirs) -> Result<Carried, DiskError> {
        let ended = Carried::ended;
        let ready = match (&job.staged, needs_staged(job.op)) {
            (StagedState::Held(trouble), _) => return Ok(ended(Outcome::Held(trouble.clone()))),
            (StagedState::Stale, _) => return Ok(ended(Outcome::Stale)),
            (StagedState::Gone, _) | (StagedState::Nothing, true) => {
                return Ok(ended(Outcome::Gone));
            }
            (StagedState::Ready(ready), _) => Some(*ready),
            (StagedState::Nothing, false) => None,
        };
        if job.op.moves().is_some() {
            return self.carry_move(job, dirs);
        }
        let parent = match handle::open_parent(self.root.as_fd(), &job.op.path) {
            Ok(parent) => parent,
            Err(error) => {
                discard(&self.root, &ready_name(&job.id));
                return Ok(ended(Work::ended_by(job.op, error)));
            }
        };
        let staged_name = ready_name(&job.id);
        let staged = ready.map(|_| (&self.root.stage, &*staged_name));
        // Held until the operation is over: a program that begins to use the database has to wait.
        let guard = match Guard::take(job.op, &parent, staged) {
            Ok(guard) => guard,
            Err(trouble) => {
                discard(&self.root, &staged_name);
                return Ok(ended(Outcome::Held(trouble)));
            }
        };
        guard.clear(job.op, &parent);
        let mut work = Work::new(self, job, ready, &parent);
        let outcome = work.run()?;
        let carried = if outcome == Outcome::Done {
            Carried {
                outcome,
                row: work.row(),
                displaced: work.displaced(),
                moved: Vec::new(),
            }
        } else {
            Carried::ended(outcome)
        };
        if let Some(file) = work.changed.take() {
            dirs.changed(file);
        }
        dirs.touched(job.op.path.parent(), parent);
        Ok(carried)
    }

    /// Records what was carried out, and reports it.
    fn record(
        &self,
        batch: &Batch,
        carried: Vec<Carried>,
        merges: &BTreeMap<usize, Outcome>,
        manifests: &[Manifest],
        resolved: Gen,
    ) -> Result<(), DiskError> {
        let mut outcomes = Vec::with_capacity(carried.len());
        let mut base: Vec<AgreedRow> = Vec::new();
        let mut changed: Vec<RelPath> = Vec::new();
        let mut moved_dirs: Vec<RelPath> = Vec::new();
        let mut rows: Vec<(RelPath, Option<SeenRow>)> = Vec::new();
        for (index, (op, carried)) in batch.ops.iter().zip(carried).enumerate() {
            let Carried {
                mut outcome,
                row,
                moved,
                ..
            } = carried;
            let agreed = |entry| BaseRow {
                entry,
                batch: batch.number,
            };
            if outcome == Outcome::Done && op.moves().is_some() {
                if op.make.as_ref().is_some_and(Entry::is_dir) {
                    moved_dirs.push(op.path.clone());
                }
                for Moved { from, to, row } in moved {
                    if !row.entry.is_dir() && row.print == Fingerprint::UNKNOWN {
                        changed.push(to.clone());
                    }
                    base.push((to.clone(), agreed(Some(row.entry.clone()))));
                    base.push((from.clone(), agreed(None)));
                    rows.push((to, Some(row)));
                    rows.push((from, None));
                }
            } else if outcome == Outcome::Done {
                if op.agrees {
                    base.push((op.path.clone(), agreed(op.make.clone())));
                }
                if row.as_ref().is_some_and(|(_, changed)| *changed) {
                    changed.push(op.path.clone());
                }
                rows.push((op.path.clone(), row.map(|(row, _)| row)));
                if let Some(merged) = merges.get(&index) {
                    outcome = merged.clone();
                }
            }
            outcomes.push(outcome);
        }
        let stamp = self.raised_stamp()?;
        let mut seen = lock(&self.seen);
        let orphans = orphans(&seen, &rows);
        rows.extend(orphans.iter().map(|path| (path.clone(), None)));
        let stored = self.index.notes();
        let notes = Notes {
            resolved: stored.resolved.max(resolved),
            last_batch: stored.last_batch.max(batch.number),
            ..stored
        };
        let changes = Changes {
            seen: &rows,
            manifests,
            base: &base,
            notes: Some(notes),
            stamp,
            ..Changes::default()
        };
        self.write_index(&changes, true)?;
        if let Err(error) = intent::clear(&self.root) {
            tracing::warn!(%error, "the intent of a recorded batch stays; its rows are in the base");
        }
        // Looks ask the rules only about what is new to them. What came under rules that are younger
        // than its plan has to be told here, or this side would never say that it is ignored.
        let (rules, _) = self.rules();
        let mut ignored: Vec<(RelPath, Sight)> = Vec::new();
        for (path, row) in rows {
            let Some(row) = row else {
                seen.remove(&path);
                continue;
            };
            if rules.ignores(&path, row.entry.is_dir()) {
                let slot = Slot::Blocked {
                    obstacle: Obstacle::Ignored,
                    lost_mount: false,
                };
                seen.insert(path.clone(), slot);
                ignored.push((path, Sight::Blocked(Obstacle::Ignored)));
            } else if rules.ignores_within(&path, row.entry.is_dir()) {
                seen.remove(&path);
                ignored.push((path, Sight::Absent));
            } else {
                seen.insert(path, Slot::Is(row));
            }
        }
        // Until the watcher knows the new names, it tells of what happens in there under the old ones.
        for path in &moved_dirs {
            seen.look_whole(path.clone());
        }
        // Before anybody is told that this is over: whoever waits for hints to be looked at waits for these, too.
        let deferred = seen.end_apply();
        for path in changed.into_iter().chain(moved_dirs).chain(deferred) {
            (self.sink)(Report::Moved(path));
        }
        if !orphans.is_empty() {
            let absent = orphans.into_iter().map(|path| (path, Sight::Absent));
            (self.sink)(Report::Observed(absent.collect()));
        }
        (self.sink)(Report::Applied {
            batch: batch.number,
            outcomes,
        });
        if !ignored.is_empty() {
            (self.sink)(Report::Observed(ignored));
        }
        Ok(())
    }

    /// Writes to the index, between two steps at which a test can stop.
    pub(crate) fn write_index(
        &self,
        changes: &Changes<'_>,
        durable: bool,
    ) -> Result<(), DiskError> {
        self.before(Step::Index)?;
        self.index.write(changes, durable)?;
        self.note_moved(changes);
        self.before(Step::Indexed)
    }

    /// Asks a test whether to go on.
    #[cfg(test)]
    pub(crate) fn before(&self, step: Step) -> Result<(), DiskError> {
        match lock(&self.hook).as_mut().map(|hook| hook(step)) {
            Some(std::ops::ControlFlow::Break(())) => Err(DiskError::Stopped),
            _ => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "tests stop here"
    )]
    pub(crate) fn before(&self, _step: Step) -> Result<(), DiskError> {
        Ok(())
    }
}

/// Returns what was seen below directories that are gone now. They were empty, or they would not be
/// gone; and no look would come by there any more.
fn orphans(seen: &Seen, done: &[(RelPath, Option<SeenRow>)]) -> Vec<RelPath> {
    let is_dir = |row: &Option<SeenRow>| row.as_ref().is_some_and(|row| row.entry.is_dir());
    let gone = done.iter().filter(|(_, row)| !is_dir(row));
    let mut below: BTreeSet<RelPath> = gone.flat_map(|(path, _)| seen.below(path)).collect();
    for (path, _) in done {
        below.remove(path);
    }
    below.into_iter().collect()
}

/// Says whether something that was to leave a directory before it is moved is still in it.
fn stays_inside(job: &Job<'_>, jobs: &[Job<'_>], carried: &[Carried]) -> bool {
    let Some((from, _)) = job.op.moves() else {
        return false;
    };
    let stays = |(job, carried): (&Job<'_>, &Carried)| {
        job.op.path.is_below(from) && carried.outcome != Outcome::Done
    };
    jobs.iter().zip(carried).any(stays)
}

impl Job<'_> {
    fn ready(&self) -> Option<Ready> {
        if let StagedState::Ready(ready) = self.staged {
            Some(ready)
        } else {
            None
        }
    }
}

fn why(op: &Op) -> &'static str {
    if op.make.is_some() {
        "replaced"
    } else {
        "deleted"
    }
}

/// The directories whose entries changed, and the files whose exec bit did.
#[derive(Default)]
struct Dirs {
    open: HashMap<Option<RelPath>, OwnedFd>,
    files: Vec<TreeFile>,
    more: bool,
}

impl Dirs {
    fn touched(&mut self, path: Option<RelPath>, dir: OwnedFd) {
        if volume::worth_holding(self.open.len()) {
            self.open.insert(path, dir);
        } else if !self.open.contains_key(&path) {
            self.more = true;
        }
    }

    fn changed(&mut self, file: TreeFile) {
        if volume::worth_holding(self.files.len()) {
            self.files.push(file);
        } else {
            self.more = true;
        }
    }

    fn sync(self, replica: &Replica) -> Result<(), DiskError> {
        let mut open: Vec<_> = self.open.values().map(AsFd::as_fd).collect();
        open.extend(self.files.iter().map(AsFd::as_fd));
        open.push(replica.root.kept.as_fd());
        let root = replica.root.as_fd();
        let synced = replica.flushed.all(root, &open, self.more);
        synced.map_err(DiskError::io(
            "making directories durable",
            &replica.root.path,
        ))
    }
}

/// While one exists, looks do not believe what they see at these paths.
pub(crate) struct Touched<'a>(&'a Replica);

impl<'a> Touched<'a> {
    pub(crate) fn begin(replica: &'a Replica, paths: impl Iterator<Item = RelPath>) -> Self {
        lock(&replica.seen).begin_apply(paths);
        Self(replica)
    }
}

impl Drop for Touched<'_> {
    fn drop(&mut self) {
        let mut seen = lock(&self.0.seen);
        for path in seen.end_apply() {
            (self.0.sink)(Report::Moved(path));
        }
    }
}

#[cfg(test)]
mod tests;
