//! When to look: hints that have come to rest, sweeps that are due, paths that were still moving.
//!
//! Pure: the time is an argument. A sweep and looks at single paths may run side by side, so a note
//! does not wait for a large file that is being hashed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use shared::path::RelPath;

use crate::fingerprint::RACY_WAIT;
use crate::look::Look;
use crate::quiet::Quiet;

/// Most looks at single paths that run at once.
const PATH_LOOKS_MAX: usize = 3;
/// Wait before a path is looked at again that changed while it was looked at, and before it is once more.
const AGAIN_FIRST: Duration = Duration::from_millis(50);
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Most files that are remembered because they were read too soon.
const RACY_MAX: usize = 5_000;
/// Pause between two looks at such files.
const RACY_PAUSE: Duration = Duration::from_secs(1);
/// Wait before a sweep that failed is tried again when somebody waits for it.
const FAILED_WAIT: Duration = Duration::from_secs(1);
/// The share of one core that sweeps may take while the event stream is whole, as 1/n.
const SWEEP_SHARE: u32 = 330;
/// Longest stretch of the interval between two sweeps.
const STRETCH_MAX: u32 = 20;

/// The number of a look; a sweep that was asked for is known by it.
pub type LookId = u64;

/// Decides when to look at what.
#[derive(Debug)]
pub struct Looks {
    quiet: Quiet,
    interval: Duration,
    /// Whether events may be missing: then sweeps are never stretched.
    degraded: bool,
    again: BTreeMap<RelPath, Instant>,
    /// Those of them that are being looked at again.
    retried: BTreeSet<RelPath>,
    /// When the first of them is due, or earlier.
    again_next: Option<Instant>,
    next_sweep: Instant,
    /// Sweeps that somebody waits for and that have not started.
    asked: Vec<LookId>,
    /// Whether one of them has to read every file.
    deep: bool,
    /// After a sweep that failed, the next one waits, even if somebody asks for it.
    not_before: Option<Instant>,
    sweeping: Option<Sweeping>,
    /// When files that did not change were read again last, or the start.
    reread: Instant,
    /// Whether that may go on.
    reread_due: bool,
    /// Files that were read too soon, and when they can be read for good.
    racy: BTreeMap<RelPath, Instant>,
    /// When the next of them are read.
    racy_next: Option<Instant>,
    path_looks: usize,
    last_id: LookId,
    swept: bool,
}

#[derive(Debug)]
struct Sweeping {
    since: Instant,
    deep: bool,
    answers: Vec<LookId>,
}

impl Looks {
    /// Starts with a sweep that is due at once, then one each `interval`.
    pub fn new(quiet: Quiet, interval: Duration, now: Instant) -> Self {
        Self {
            quiet,
            interval,
            degraded: false,
            again: BTreeMap::new(),
            retried: BTreeSet::new(),
            again_next: None,
            next_sweep: now,
            asked: Vec::new(),
            deep: false,
            not_before: None,
            sweeping: None,
            reread: now,
            reread_due: false,
            racy: BTreeMap::new(),
            racy_next: None,
            path_looks: 0,
            last_id: 0,
            swept: false,
        }
    }

    /// Takes a hint that something moved near `path`.
    pub fn hint(&mut self, path: RelPath, closed: bool, now: Instant) {
        self.quiet.hint(path, closed, now);
    }

    /// Says that events may be missing from now on.
    pub fn degrade(&mut self, now: Instant) {
        self.degraded = true;
        self.next_sweep = self.next_sweep.min(now);
    }

    /// Asks for a sweep that starts after this call and that nobody waits for: something may have been
    /// missed. Until it is done, nothing is idle.
    pub fn sweep(&mut self) {
        if self.asked.is_empty() {
            self.ask_sweep();
        }
    }

    /// Asks for a sweep that starts after this call; [`Looks::swept`] returns the number when it is
    /// done.
    pub fn ask_sweep(&mut self) -> LookId {
        self.last_id += 1;
        self.asked.push(self.last_id);
        self.last_id
    }

    /// As [`Looks::ask_sweep`], for one that reads every file.
    pub fn ask_deep(&mut self) -> LookId {
        self.deep = true;
        self.ask_sweep()
    }

    /// Takes files that were read too soon after they were written. Nothing waits for them, and more than a
    /// few thousand are left to the next sweep.
    pub fn racy(&mut self, paths: Vec<RelPath>, now: Instant) {
        let due = now + RACY_WAIT;
        for path in paths {
            if self.racy.len() < RACY_MAX || self.racy.contains_key(&path) {
                self.racy.insert(path, due);
                self.racy_next.get_or_insert(due);
            }
        }
    }

    /// Returns the next look to start. The end of a [`Look::Reread`] or a [`Look::Racy`] is told to nobody.
    /// Call until it returns `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Look> {
        if self.quiet.overflowed() {
            self.sweep();
        }
        let may_sweep = self.sweeping.is_none() && self.not_before.is_none_or(|at| now >= at);
        if may_sweep && (!self.asked.is_empty() || now >= self.next_sweep) {
            self.not_before = None;
            let deep = std::mem::take(&mut self.deep);
            self.sweeping = Some(Sweeping {
                since: now,
                deep,
                answers: std::mem::take(&mut self.asked),
            });
            return Some(if deep { Look::Deep } else { Look::All });
        }
        if self.reread_due && self.sweeping.is_none() && self.is_idle() {
            self.reread_due = false;
            let span = now.saturating_duration_since(self.reread);
            self.reread = now;
            return Some(Look::Reread { span });
        }
        if self.path_looks >= PATH_LOOKS_MAX {
            return None;
        }
        let mut paths = self.quiet.ready(now);
        if self.again_next.is_some_and(|due| due <= now) {
            let due = self.again.extract_if(.., |_, due| *due <= now);
            let due: Vec<RelPath> = due.map(|(path, _)| path).collect();
            self.retried.extend(due.iter().cloned());
            paths.extend(due);
            self.again_next = self.again.values().min().copied();
        }
        if paths.is_empty() {
            return self.poll_racy(now);
        }
        self.path_looks += 1;
        Some(Look::Paths(paths))
    }

    fn poll_racy(&mut self, now: Instant) -> Option<Look> {
        self.racy_next.take_if(|next| *next <= now)?;
        let due = self.racy.extract_if(.., |_, due| *due <= now);
        let due: Vec<RelPath> = due.map(|(path, _)| path).collect();
        let next = self.racy.values().min().copied();
        self.racy_next = next.map(|next| next.max(now + RACY_PAUSE));
        (!due.is_empty()).then_some(Look::Racy(due))
    }

    /// Takes the end of a look at single paths.
    pub fn looked(&mut self, again: Vec<RelPath>, now: Instant) {
        self.path_looks = self.path_looks.saturating_sub(1);
        self.later(again, now);
        if self.path_looks == 0 {
            self.retried.clear();
        }
    }

    /// Takes the end of a sweep and returns the numbers of those who waited for it.
    pub fn swept(&mut self, again: Vec<RelPath>, now: Instant) -> Vec<LookId> {
        self.later(again, now);
        self.swept = true;
        // With the sweeps, so that it wakes nothing that is asleep.
        self.reread_due = now.saturating_duration_since(self.reread) >= self.interval;
        let Some(sweep) = self.sweeping.take() else {
            return Vec::new();
        };
        let took = now.saturating_duration_since(sweep.since);
        let stretched = if self.degraded {
            self.interval
        } else {
            (took * SWEEP_SHARE).min(self.interval * STRETCH_MAX)
        };
        self.next_sweep = now + self.interval.max(stretched);
        sweep.answers
    }

    /// Takes a sweep that failed. Whoever waited for it goes on waiting for the next.
    pub fn sweep_failed(&mut self, now: Instant) {
        if let Some(sweep) = self.sweeping.take() {
            self.asked.extend(sweep.answers);
            self.deep |= sweep.deep;
        }
        self.next_sweep = now + self.interval;
        self.not_before = Some(now + FAILED_WAIT.min(self.interval));
    }

    /// Returns when [`Looks::poll`] wants to be called at the latest.
    pub fn next(&self) -> Option<Instant> {
        let asked = self.not_before.filter(|_| !self.asked.is_empty());
        let sweep = self
            .sweeping
            .is_none()
            .then(|| asked.map_or(self.next_sweep, |at| at.min(self.next_sweep)));
        let paths = if self.path_looks < PATH_LOOKS_MAX {
            [self.quiet.next(), self.again_next, self.racy_next]
                .into_iter()
                .flatten()
                .min()
        } else {
            None
        };
        [sweep, paths].into_iter().flatten().min()
    }

    /// Says whether a whole sweep has been completed since the start.
    pub fn has_swept(&self) -> bool {
        self.swept
    }

    /// Says whether events may be missing.
    pub fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// Says whether nothing is hinted at, put off or being looked at, sweeps that are merely due by
    /// the clock aside.
    pub fn is_idle(&self) -> bool {
        let asked = self
            .sweeping
            .as_ref()
            .map_or(&self.asked, |sweep| &sweep.answers);
        self.quiet.next().is_none()
            && self.again.is_empty()
            && self.path_looks == 0
            && self.asked.is_empty()
            && asked.is_empty()
    }

    fn later(&mut self, again: Vec<RelPath>, now: Instant) {
        for path in again {
            let wait = if self.retried.remove(&path) {
                AGAIN_AFTER
            } else {
                AGAIN_FIRST
            };
            let due = now + wait;
            self.again_next = Some(self.again_next.map_or(due, |next| next.min(due)));
            self.again.insert(path, due);
        }
    }
}

#[cfg(test)]
mod tests;
