//! A round: hear what changed there, see what changed here, plan, carry it out.
//!
//! The plan is made by [`shared::reconcile`], of what this machine has, what the target has, and what [`shared::mirror::ancestor`] says
//! that both come from. Nothing about it is stored but what both were seen to have ([`crate::store`]), so a crash at any point
//! costs a look.

mod known;
mod learn;
mod passed;
mod plan;
mod work;

pub(crate) use learn::CURSOR;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use shared::control::NodeSide;
use shared::path::RelPath;
use shared::reconcile::{ConflictRules, Decisions, Mode};
use shared::safety::{Alarm, Guard, Limits};
use shared::tree::Side;
use shared::utc::UtcMs;

use crate::store::Store;
use crate::target::{Target, Wrong};
use crate::tree::Tree;

/// Paths that are planned in one go.
const PLANNED_MAX: usize = 50_000;

/// Who mirrors.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The name of this node.
    pub node: String,
    /// Its side.
    pub side: NodeSide,
    /// The pair, as marks name it.
    pub pair: u64,
    /// Which changes travel, and who wins.
    pub mode: Mode,
    /// What becomes of a conflict, by name.
    pub conflicts: ConflictRules,
    /// From where on a round waits for a person.
    pub limits: Limits,
}

/// What a round is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose {
    /// Whether the mirror is the road to the other node: then all that stands here goes there, else only what the pair has agreed on.
    pub is_road: bool,
    /// Whether this node is primary: in a conflict its version keeps the path.
    pub is_primary: bool,
}

/// What a round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Files and links that were written there.
    pub pushed: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Moves, marks, folders and removals there.
    pub changed: u64,
    /// Changes that were made here.
    pub taken: u64,
    /// Paths that are left to do.
    pub left: u64,
}

/// Why a path waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// Its code.
    pub code: &'static str,
    /// Why.
    pub text: String,
    /// What helps.
    pub fix: String,
}

/// What changes from round to round.
#[derive(Default)]
pub(crate) struct State {
    /// Paths that have to be planned.
    due: BTreeSet<RelPath>,
    /// Paths of this tree that cannot be read, and below which nothing was planned.
    blocked: BTreeSet<RelPath>,
    /// Paths that wait, by what they are called.
    waits: BTreeMap<String, Waits>,
    decisions: Decisions,
    guard: Guard,
    /// What waits for a person, and whether it would change this machine's tree.
    alarm: Option<(bool, Alarm)>,
    /// Whether everything was compared since the start.
    is_compared: bool,
    /// Whether the target said that it has no room.
    is_full: bool,
    /// Numbers by chance, for what is written.
    chance: u64,
    /// Those that were chosen for what is being sent.
    writings: BTreeMap<RelPath, u64>,
}

/// A tree and its mirror.
pub struct Mirror<T: Target, L: Tree> {
    pub(crate) target: T,
    pub(crate) tree: L,
    pub(crate) store: Store,
    pub(crate) setup: Setup,
    pub(crate) state: RefCell<State>,
    /// Files and bytes that were written since the start.
    written: Cell<(u64, u64)>,
}

/// Content that arrived before it was planned with, by its path.
type Early<L> = HashMap<RelPath, <L as Tree>::Arrived>;

impl<T: Target, L: Tree> Mirror<T, L> {
    /// Begins with a seed for the numbers that tell writings apart.
    pub fn new(target: T, tree: L, store: Store, setup: Setup, seed: u64) -> Self {
        let state = State {
            guard: Guard::new(setup.limits),
            chance: seed,
            ..State::default()
        };
        Self {
            target,
            tree,
            store,
            setup,
            state: RefCell::new(state),
            written: Cell::default(),
        }
    }

    /// Returns the target.
    pub fn target(&self) -> &T {
        &self.target
    }

    /// Returns how many files, and bytes in them, were written there since the start.
    pub fn progress(&self) -> (u64, u64) {
        self.written.get()
    }

    /// Has the next round compare everything that both have, as after a start.
    pub fn compare_all(&self) {
        self.state.borrow_mut().is_compared = false;
    }

    /// Takes note of what moved here, without asking the target: deletions that the pair has agreed on are remembered.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub fn note_moved(&self) -> Result<(), Wrong> {
        let moved = self.tree.moved();
        self.store.together(|store| {
            for (path, batch) in &moved.gone {
                store.set_gone(path, *batch)?;
            }
            Ok(())
        })?;
        if moved.gone.len() > 1000 {
            self.store.trim_gone()?;
        }
        self.note_agreed(&moved.paths)?;
        let mut state = self.state.borrow_mut();
        if moved.all {
            state.is_compared = false;
        }
        state.due.extend(moved.paths);
        Ok(())
    }

    /// Takes note of where the pair has agreed on just what this machine and the target had already: then what becomes of it there is news.
    fn note_agreed(&self, paths: &BTreeSet<RelPath>) -> Result<(), Wrong> {
        for path in paths {
            let Some(mut known) = self.store.met(path)? else {
                continue;
            };
            let here = self.tree.here(path)?;
            let Some(row) = here.base.filter(|row| row.batch > known.met.batch) else {
                continue;
            };
            // Unless it was gone meanwhile, and is another one of the same content.
            let was_gone = self.store.gone(path)?;
            let is_the_same = row.entry.as_ref() == Some(&known.met.entry)
                && here.sight.entry() == row.entry.as_ref()
                && was_gone.is_none_or(|batch| batch <= known.met.batch);
            if is_the_same {
                known.met.batch = row.batch;
                self.store.set_met(path, &known)?;
            }
        }
        Ok(())
    }

    /// Says how many paths are to be planned, as far as it is known.
    pub fn due(&self) -> u64 {
        self.state.borrow().due.len() as u64
    }

    /// Returns the paths that wait, and why.
    pub fn waits(&self) -> Vec<(String, Waits)> {
        let state = self.state.borrow();
        let waits = state.waits.iter();
        waits
            .map(|(path, waits)| (path.clone(), waits.clone()))
            .collect()
    }

    /// Says whether the target had no room for something.
    pub fn is_full(&self) -> bool {
        self.state.borrow().is_full
    }

    /// Returns what waits for a person because it would displace so much: whether it would here, and the batch.
    pub fn alarm(&self) -> Option<(bool, Alarm)> {
        self.state.borrow().alarm.clone()
    }

    /// Lets what waits for a person pass, if it is this batch.
    pub fn confirm(&self, batch: &str) -> bool {
        let mut state = self.state.borrow_mut();
        match state.alarm.take() {
            Some((_, alarm)) if alarm.batch() == batch => {
                state.guard.confirm(&alarm);
                true
            }
            alarm => {
                state.alarm = alarm;
                false
            }
        }
    }

    /// Does one round. Before the tree was looked at since the start, nothing is done and something is left.
    ///
    /// # Errors
    /// Why it ended early. What was done until then counts, and the next one goes on.
    pub async fn round(
        &self,
        purpose: Purpose,
        now: UtcMs,
        instant: Instant,
    ) -> Result<Done, Wrong> {
        self.note_moved()?;
        if !self.tree.is_known() {
            return Ok(Done {
                left: self.due().max(1),
                ..Done::default()
            });
        }
        self.learn().await?;
        if !self.state.borrow().is_compared {
            self.compare()?;
            self.state.borrow_mut().is_compared = true;
        }
        let mut done = Done::default();
        self.state.borrow_mut().is_full = false;
        let due = std::mem::take(&mut self.state.borrow_mut().due);
        let mut left: Vec<RelPath> = due.into_iter().collect();
        while !left.is_empty() {
            let rest = left.split_off(left.len().min(PLANNED_MAX));
            let scope: BTreeSet<RelPath> = left.into_iter().collect();
            left = rest;
            let ended = self.go(&scope, purpose, now, instant, &mut done).await;
            if let Err(wrong) = ended {
                let mut state = self.state.borrow_mut();
                state.due.extend(scope);
                state.due.extend(left);
                return Err(wrong);
            }
        }
        if done.pushed + done.changed > 0 {
            self.target.flush().await?;
        }
        done.left = self.due();
        Ok(done)
    }

    async fn go(
        &self,
        scope: &BTreeSet<RelPath>,
        purpose: Purpose,
        now: UtcMs,
        instant: Instant,
        done: &mut Done,
    ) -> Result<(), Wrong> {
        let mut early = Early::<L>::new();
        self.identify(scope, &mut early).await?;
        let plan = self.plan(scope, purpose, now)?;
        let own = self.own_side(purpose);
        let mut files = [self.tree.file_count(), self.store.file_count()?];
        if own == Side::Beta {
            files.reverse();
        }
        {
            let mut state = self.state.borrow_mut();
            match state.guard.judge_of(files, &plan, instant) {
                Ok(()) => state.alarm = None,
                Err(alarm) => {
                    state.alarm = Some((alarm.side == own, alarm));
                    state.due.extend(scope.iter().cloned());
                    return Ok(());
                }
            }
            state.guard.passed(&plan, instant);
        }
        self.carry_out(plan, own, early, done).await
    }

    pub(crate) fn wait(&self, path: &str, waits: Waits) {
        let mut state = self.state.borrow_mut();
        state.waits.insert(path.to_owned(), waits);
    }

    pub(crate) fn due_again(&self, path: RelPath) {
        self.state.borrow_mut().due.insert(path);
    }

    /// Returns the next number that tells a writing apart; never 0. (SplitMix64: Steele, Lea, Flood, OOPSLA 2014.)
    pub(crate) fn next_writing(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.chance = state.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).max(1)
    }
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;
