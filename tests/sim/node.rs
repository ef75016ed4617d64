//! One node: its disk, its clocks, its process while that runs, and what is under way in it. The
//! order in which a process handles what comes is that of the real event loops.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use disk::Durable;
use disk::watch::Hint;
use disk::{Notes, Report};
use shared::path::RelPath;
use shared::reconcile::Mode;
use shared::safety::Limits;
use shared::transfer::Batch;
use shared::tree::{Gen, Side};
use shared::utc::UtcMs;
use shared::wire::{AgreedRow, Frame};

use crate::defect::Defect;
use crate::disk::Disk;
use crate::give::{ChunksJob, GiveJob};
use crate::look::LookJob;
use crate::machine::{Happens, Machine};
use crate::mirror::Rounds;
use crate::take::TakeJob;

/// Longest wait between two ticks, as in the event loops.
const TICK_MAX: Duration = Duration::from_secs(30);

/// A node.
pub(crate) struct Node {
    pub(crate) side: Side,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    /// Its monotonic clock, since the start of the history.
    pub(crate) mono: Duration,
    /// Its wall clock.
    pub(crate) wall_ms: u64,
    /// When the receiver dials again.
    pub(crate) redial_at: Duration,
    /// What moved and was not told by the watcher yet.
    pub(crate) unheard: Vec<RelPath>,
    /// Whether the watcher hears nothing at the moment.
    pub(crate) deaf: bool,
    /// Sweeps that have ended since the start of the history.
    pub(crate) sweeps: u64,
}

/// A running process.
pub(crate) struct Process {
    pub(crate) machine: Machine,
    pub(crate) inputs: VecDeque<Input>,
    pub(crate) hints: VecDeque<Hint>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) commits: VecDeque<Commit>,
    /// The lanes, by their numbers.
    pub(crate) lanes: BTreeMap<u64, Lane>,
    pub(crate) linked: Option<u64>,
    /// Whether the control stream of that connection is open.
    pub(crate) opened: bool,
    /// Whether a connection was made and not handled yet.
    pub(crate) dialling: bool,
    last_tick: Duration,
    /// Its rounds with the mirror, if there is one.
    pub(crate) rounds: Option<Box<Rounds>>,
}

/// The order in which small batches are applied (`carry::Lane`).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lane {
    /// The next place.
    pub(crate) next: u64,
    /// Whether its connection is gone.
    pub(crate) closed: bool,
}

/// What the loop waits for, besides reports and hints.
#[derive(Debug)]
pub(crate) enum Input {
    Happens(Happens),
    /// A connection was made.
    Connected(u64),
    /// Its control stream is open.
    Opened(u64),
    Frame(u64, Frame),
    /// A batch on a connection, with its place and its stream.
    Batch(u64, Batch, Option<u64>, u64),
    Ended(u64),
}

/// Work outside of the loop.
#[derive(Debug)]
pub(crate) enum Job {
    Look(LookJob),
    Take(Box<TakeJob>),
    Give(GiveJob),
    Chunks(ChunksJob),
    ReadRules,
}

/// Rows on their way to the index.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) batch: Gen,
    pub(crate) rows: Vec<AgreedRow>,
    pub(crate) notes: Notes,
    /// What still has to be made durable before.
    pub(crate) first: Durable,
}

/// What the loop of a process handles next.
pub(crate) enum Next {
    Happens(Happens),
    Input(Input),
}

impl Node {
    pub(crate) fn new(side: Side, defect: Option<Defect>) -> Self {
        let id = shared::wire::IndexId([side as u8 + 1; 16]);
        Self {
            side,
            disk: Disk::new(id, defect),
            process: None,
            mono: Duration::from_secs(1),
            wall_ms: 1_795_382_045_000,
            redial_at: Duration::ZERO,
            unheard: Vec::new(),
            deaf: false,
            sweeps: 0,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Starts the process.
    pub(crate) fn start(&mut self, epoch: Instant, policy: (Mode, Limits)) {
        let stored = self.disk.open();
        // A watcher that starts hears nothing of what was before.
        self.unheard.clear();
        drop(self.disk.volume.take_moved());
        self.redial_at = self.mono;
        let (now, utc) = (epoch + self.mono, UtcMs(self.wall_ms));
        self.process = Some(Process {
            machine: Machine::start(self.side, policy, stored, now, utc),
            inputs: VecDeque::from([Input::Happens(Happens::Tick)]),
            hints: VecDeque::new(),
            jobs: Vec::new(),
            commits: VecDeque::new(),
            lanes: BTreeMap::new(),
            linked: None,
            opened: false,
            dialling: false,
            last_tick: self.mono,
            rounds: None,
        });
    }

    /// Ends the process at once: what it had in memory is lost.
    pub(crate) fn kill(&mut self) {
        self.process = None;
        self.disk.index.crash();
    }

    /// Returns when the process wants to be told the time at the latest.
    pub(crate) fn next_tick(&self, epoch: Instant) -> Option<Duration> {
        let process = self.process.as_ref()?;
        let wanted = process
            .machine
            .next_tick()
            .map(|at| at.saturating_duration_since(epoch));
        let latest = process.last_tick + TICK_MAX;
        Some(wanted.map_or(latest, |at| at.min(latest)))
    }

    /// Says whether the loop has something to handle.
    pub(crate) fn has_input(&self) -> bool {
        self.process.as_ref().is_some_and(|process| {
            !self.disk.reports.is_empty() || !process.inputs.is_empty() || !process.hints.is_empty()
        })
    }

    /// Returns what the loop handles next. Reports of the disk come before its other answers.
    pub(crate) fn next(&mut self) -> Option<Next> {
        let process = self.process.as_mut()?;
        process.last_tick = self.mono;
        if let Some(report) = self.disk.reports.pop_front() {
            return Some(Next::Happens(match report {
                Report::Observed(rows) => Happens::Observed(rows),
                Report::Applied { batch, outcomes } => Happens::Applied(batch, outcomes),
                Report::Passed(rows) => Happens::Passed(rows),
                Report::Moved(path) => Happens::Hint(Hint::Path(path)),
            }));
        }
        if let Some(input) = process.inputs.pop_front() {
            return Some(Next::Input(input));
        }
        let hint = process.hints.pop_front()?;
        Some(Next::Happens(Happens::Hint(hint)))
    }

    pub(crate) fn ticked(&mut self) {
        if let Some(process) = &mut self.process {
            process.last_tick = self.mono;
        }
    }
}

impl Process {
    /// Returns the batch that takes what arrives for `number`, while it still takes anything.
    pub(crate) fn taker(&mut self, number: Gen) -> Option<&mut TakeJob> {
        self.jobs.iter_mut().find_map(|job| match job {
            Job::Take(take) if take.batch.number == number && take.link.is_some() => {
                Some(&mut **take)
            }
            _ => None,
        })
    }

    /// Ends what still waits for content from a connection.
    pub(crate) fn hang_up(&mut self, link: u64) {
        for job in &mut self.jobs {
            if let Job::Take(take) = job
                && take.link == Some(link)
            {
                take.link = None;
            }
        }
        // The pusher's lane, which has no connection's number, outlives them all.
        self.lanes.entry(link).or_default().closed = true;
    }

    /// Says whether a job can take a step.
    pub(crate) fn is_ready(&self, job: &Job, locked: bool) -> bool {
        match job {
            Job::Take(take) => {
                let lane = self.lanes.get(&take.lane).copied().unwrap_or_default();
                take.is_ready(lane, locked)
            }
            _ => true,
        }
    }
}
