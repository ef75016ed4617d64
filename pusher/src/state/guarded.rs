//! The guard's part: a burst of changes is judged as a whole, and too much of it waits for a person.
//!
//! A folder is not emptied in one step: its files go one by one, and the first of them is seen while
//! the others still go. So a plan that displaces something waits [`AGAIN`], and while more is moving
//! a little longer: a moment when it is little, up to two seconds when it is much. What only makes new
//! files does not wait.

use std::time::{Duration, Instant};

use shared::control::{Happening, Health, Problem};
use shared::reconcile::{Decision, Keep, Plan};
use shared::safety::{Alarm, Cause};
use shared::tree::Side;

use super::{Pusher, side_name};

/// Shortest wait of a plan that displaces something, and how often it is looked at again while files
/// keep moving. A program that rewrites a tree touches hundreds of files in that time.
const AGAIN: Duration = Duration::from_millis(20);
/// Longest wait of a plan that displaces less than [`MUCH`].
const WAIT_LITTLE: Duration = Duration::from_millis(100);
/// Longest wait of one that displaces more.
const WAIT_MUCH: Duration = Duration::from_secs(2);
const MUCH: u64 = 10;

/// A plan that waits until the tree it comes from has come to rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gathering {
    since: Instant,
    pub(super) again: Instant,
    /// When it is planned, whatever moves.
    until: Instant,
}

/// A plan that waits for a person, with what is said about it.
#[derive(Debug)]
pub(super) struct Halted {
    alarm: Alarm,
    pub(super) problem: Problem,
}

impl Pusher {
    /// Says whether either tree is moving, so that more of the same may be about to come.
    fn is_stirring(&self) -> bool {
        !self.looks.is_idle() || self.beta_moves
    }

    /// Says whether a plan is only to be made later. While more is moving none is made to see that: a plan of ten
    /// thousand deletions costs as much time as it waits.
    pub(super) fn gathers(&mut self) -> bool {
        let stirs = self.is_stirring();
        let Some(gathering) = &mut self.gathering else {
            return false;
        };
        if self.now >= gathering.again && stirs {
            gathering.again = (self.now + AGAIN).min(gathering.until);
        }
        self.now < gathering.again
    }

    /// Lets a plan through, has it wait for more of the same, or halts.
    pub(super) fn pass(&mut self, plan: &Plan) -> bool {
        let toll = self.guard.toll(plan);
        if toll > 0 && (self.gathering.is_none() || self.is_stirring()) {
            let since = self.gathering.map_or(self.now, |gathering| gathering.since);
            let until = since + if toll < MUCH { WAIT_LITTLE } else { WAIT_MUCH };
            if self.now < until {
                let again = (self.now + AGAIN).min(until);
                self.gathering = Some(Gathering {
                    since,
                    again,
                    until,
                });
                return false;
            }
        }
        self.gathering = None;
        match self.guard.judge(&self.trees, plan, self.now) {
            Ok(()) => {
                self.guard.passed(plan, self.now);
                true
            }
            Err(alarm) => {
                self.alarmed(alarm);
                false
            }
        }
    }

    fn alarmed(&mut self, alarm: Alarm) {
        let problem = self.problem_of(&alarm);
        self.tell(Happening::Halted(problem.clone()));
        self.alarm = Some(Halted { alarm, problem });
    }

    /// Looks at a halted plan again when the trees have changed: somebody may have brought the files
    /// back.
    pub(super) fn reconsider(&mut self) {
        if self.alarm.is_none() || self.due.is_empty() || self.is_stirring() {
            return;
        }
        let plan = self.whole_plan();
        self.due.clear();
        match self.guard.judge(&self.trees, &plan, self.now) {
            Ok(()) => self.lift(),
            Err(alarm) => {
                let known = self.alarm.as_ref().map(|halted| halted.alarm.batch());
                if known != Some(alarm.batch()) {
                    self.alarmed(alarm);
                }
            }
        }
    }

    fn lift(&mut self) {
        self.alarm = None;
        self.due = self.unsettled();
    }

    /// Lets a halted batch pass, or undoes it; returns what is going to happen.
    pub(super) fn confirm(&mut self, batch: &str, undo: bool) -> Result<String, String> {
        let Some(halted) = &self.alarm else {
            return Err("nothing waits for a confirmation".into());
        };
        let (waiting, count) = (halted.alarm.batch(), halted.alarm.paths().count());
        if waiting != batch {
            return Err(format!(
                "the batch that waits is {waiting}, not \"{batch}\"; it has changed since, look at it again"
            ));
        }
        let alarm = halted.alarm.clone();
        if undo {
            for (side, path) in alarm.paths() {
                let decision = Decision {
                    alpha: self.trees.sight(Side::Alpha, path),
                    beta: self.trees.sight(Side::Beta, path),
                    keep: Keep::Side(side),
                };
                self.decisions.decide(path.clone(), decision);
            }
        } else {
            self.guard.confirm(&alarm);
        }
        self.lift();
        Ok(if undo {
            format!(
                "{count} files come back from the {}",
                side_name(alarm.side).name()
            )
        } else {
            format!(
                "{count} files change on the {}; what they were is kept there",
                side_name(alarm.side).name()
            )
        })
    }

    fn problem_of(&self, alarm: &Alarm) -> Problem {
        let (loses, other) = (
            side_name(alarm.side).name(),
            side_name(alarm.side.other()).name(),
        );
        let batch = alarm.batch();
        let before = match alarm.before {
            0 => String::new(),
            before => format!(", after {before} in the last ten minutes"),
        };
        let (code, text) = match alarm.cause {
            Cause::Emptied => (
                "halted.emptied",
                format!(
                    "the {other}'s folder has no file left; all {} files of the {loses} would be deleted. \
                     Nothing was changed there",
                    alarm.files
                ),
            ),
            Cause::Deletes => (
                "halted.mass_delete",
                format!(
                    "{} of {} files of the {loses} would be deleted, because they are gone on the {other}{before}. \
                     None of them was touched",
                    alarm.deletes, alarm.files
                ),
            ),
            Cause::Rewrites => (
                "halted.mass_rewrite",
                format!(
                    "{} of {} files of the {loses} would be rewritten, because they changed on the {other}{before}. \
                     None of them was touched",
                    alarm.rewrites, alarm.files
                ),
            ),
        };
        Problem {
            code: code.into(),
            severity: Health::Halted,
            path: None,
            text,
            fix: format!(
                "if this is meant: `layer-sync confirm {batch}`; to bring back what the {loses} has: \
                 `layer-sync confirm {batch} --undo`"
            ),
        }
    }
}
