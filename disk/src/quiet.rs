//! Quiet: when a path that moved has come to rest and is worth a look.
//!
//! Pure: the time is an argument. A path is due when nothing was heard about it for
//! [`QUIET`], at once when it was closed after writing, and [`LATEST`] after its first hint even if it
//! never rests.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use shared::path::RelPath;

/// How long a path must be quiet.
pub const QUIET: Duration = Duration::from_millis(50);
/// How long after its first hint a path is looked at, although it never is quiet.
pub const LATEST: Duration = Duration::from_secs(2);
/// A path that is due so shortly after another one is looked at with it: the two halves of a rename, which
/// look like a deletion and a creation when they are seen apart.
const TOGETHER: Duration = Duration::from_millis(2);
/// Most paths that wait at once. More, and the whole tree is looked at instead.
pub const WAITING_MAX: usize = 10_000;

/// The paths that wait for rest.
#[derive(Debug)]
pub struct Quiet {
    quiet: Duration,
    at_once: bool,
    waiting: HashMap<RelPath, Waiting>,
    order: BTreeSet<(Instant, RelPath)>,
    overflowed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: Instant,
    due: Instant,
}

impl Quiet {
    /// Starts with nothing waiting. `debounce` replaces [`QUIET`] and switches off "at once": changes
    /// are then taken in strict batches.
    pub fn new(debounce: Option<Duration>) -> Self {
        Self {
            quiet: debounce.unwrap_or(QUIET),
            at_once: debounce.is_none(),
            waiting: HashMap::new(),
            order: BTreeSet::new(),
            overflowed: false,
        }
    }

    /// Takes a hint about `path` that arrived at `now`. `closed` says that whoever wrote it has closed
    /// it.
    pub fn hint(&mut self, path: RelPath, closed: bool, now: Instant) {
        let before = self.waiting.get(&path).copied();
        if before.is_none() && self.waiting.len() >= WAITING_MAX {
            self.waiting.clear();
            self.order.clear();
            self.overflowed = true;
            return;
        }
        let since = before.map_or(now, |before| before.since);
        let rest = if closed && self.at_once {
            Duration::ZERO
        } else {
            self.quiet
        };
        let due = (now + rest).min(since + LATEST.max(self.quiet));
        if let Some(before) = before {
            self.order.remove(&(before.due, path.clone()));
        }
        self.order.insert((due, path.clone()));
        self.waiting.insert(path, Waiting { since, due });
    }

    /// Takes the paths that are due at `now`, in order.
    pub fn ready(&mut self, now: Instant) -> Vec<RelPath> {
        let mut ready = BTreeSet::new();
        if self.order.first().is_none_or(|(due, _)| *due > now) {
            return Vec::new();
        }
        let until = now + TOGETHER;
        while self.order.first().is_some_and(|(due, _)| *due <= until) {
            if let Some((_, path)) = self.order.pop_first() {
                self.waiting.remove(&path);
                ready.insert(path);
            }
        }
        ready.into_iter().collect()
    }

    /// Returns when the next path is due.
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Says, once, that more than [`WAITING_MAX`] paths came: they are forgotten, and the whole tree
    /// has to be looked at.
    pub fn overflowed(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    /// Says whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests;
