//! The supervisor: keeps the duties of a node running, one for one, and never gives the node up.
//!
//! A duty that crashes (ends with an error, or panics) is started again after a wait that grows from 0.2 to 4 s.
//! One that crashes [`CRASHES_MAX`] times within [`WINDOW`] is *parked*: it would only do so again. Then the
//! node is in safe mode: the other machine gets the role if it can have it, and this one stays up and says why, so
//! that it can be mended from afar. The rule is that of Erlang's supervisors (`one_for_one`, restart intensity), except for the
//! last step: they end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::control::{DutyAct, DutyState, DutyStatus};
use shared::lease::Moment;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tracing::{error, info, warn};

use crate::{Failure, clock};

/// So many crashes within [`WINDOW`] park a duty.
const CRASHES_MAX: usize = 5;
/// How long a crash counts.
const WINDOW: Duration = Duration::from_secs(120);
/// How long a duty is down after its first crash, its second, and so on.
const WAITS: [Duration; CRASHES_MAX - 1] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// What follows a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Again(Duration),
    Park,
}

/// The crashes of one duty that still count.
#[derive(Debug, Default)]
struct Crashes(VecDeque<Moment>);

impl Crashes {
    fn crashed(&mut self, now: Moment) -> Next {
        self.0.push_back(now);
        self.0.retain(|at| at.after(WINDOW) > now);
        match WAITS.get(self.0.len() - 1) {
            Some(wait) => Next::Again(*wait),
            None => Next::Park,
        }
    }
}

/// The duties of a node, as they are. Clones are the same ones.
#[derive(Clone, Default)]
pub(crate) struct Duties(Arc<Shared>);

#[derive(Default)]
struct Shared {
    duties: Mutex<BTreeMap<&'static str, Duty>>,
    /// Counts the changes.
    changes: watch::Sender<u64>,
}

struct Duty {
    state: DutyState,
    restarts: u64,
    why: Option<String>,
    acts: mpsc::UnboundedSender<DutyAct>,
}

impl Duties {
    /// Returns how each of them is.
    pub(crate) fn status(&self) -> Vec<DutyStatus> {
        let duties = self.lock();
        let status = duties.iter().map(|(name, duty)| DutyStatus {
            name: (*name).to_owned(),
            state: duty.state,
            restarts: duty.restarts,
            why: duty.why.clone(),
        });
        status.collect()
    }

    /// Does something to a duty; returns whether there is one of that name.
    pub(crate) fn act(&self, name: &str, act: DutyAct) -> bool {
        let duties = self.lock();
        let duty = duties.get(name);
        duty.is_some_and(|duty| duty.acts.send(act).is_ok())
    }

    /// Is told when one of them changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn set(&self, name: &str, state: DutyState, why: Option<String>) {
        if let Some(duty) = self.lock().get_mut(name) {
            duty.restarts += u64::from(state == DutyState::Running);
            duty.state = state;
            duty.why = why;
        }
        self.0.changes.send_modify(|changes| *changes += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Duty>> {
        self.0.duties.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a duty running until it ends by itself or `stop` says so. `first` is its first run; `again` starts the
/// next one. `parked` is told when the duty is parked, and when it is not any more.
pub(crate) async fn supervise(
    name: &'static str,
    duties: Duties,
    parked: impl Fn(bool),
    mut stop: watch::Receiver<bool>,
    first: JoinHandle<Result<(), Failure>>,
    mut again: impl FnMut() -> JoinHandle<Result<(), Failure>>,
) -> Result<(), Failure> {
    let (sender, mut acts) = mpsc::unbounded_channel();
    let duty = Duty {
        state: DutyState::Running,
        restarts: 0,
        why: None,
        acts: sender,
    };
    duties.lock().insert(name, duty);
    let mut crashes = Crashes::default();
    let mut run = Run(first);
    loop {
        let (why, counts) = tokio::select! {
            ended = &mut run.0 => match ended {
                Ok(Ok(())) => return Ok(()),
                ended => (crash_text(ended), true),
            },
            Some(act) = acts.recv() => match act {
                DutyAct::Crash => ("it was told to crash".to_owned(), true),
                DutyAct::Restart => ("it was told to start again".to_owned(), false),
            },
        };
        drop(run);
        let next = match counts {
            true => crashes.crashed(clock::now()),
            false => Next::Again(Duration::ZERO),
        };
        match next {
            Next::Again(wait) => {
                warn!(duty = name, %why, ?wait, "a duty is started again");
                duties.set(name, DutyState::Waiting, Some(why));
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = stop.wait_for(|stop| *stop) => return Ok(()),
                }
            }
            Next::Park => {
                error!(duty = name, %why, "a duty crashed again and again; safe mode");
                duties.set(name, DutyState::Parked, Some(why));
                parked(true);
                loop {
                    tokio::select! {
                        Some(act) = acts.recv() => if act == DutyAct::Restart { break },
                        _ = stop.wait_for(|stop| *stop) => return Ok(()),
                    }
                }
                info!(duty = name, "a parked duty is started again");
                crashes = Crashes::default();
                parked(false);
            }
        }
        run = Run(again());
        duties.set(name, DutyState::Running, None);
    }
}

/// A run of a duty, which ends when it is not wanted any more.
struct Run(JoinHandle<Result<(), Failure>>);

impl Drop for Run {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn crash_text(ended: Result<Result<(), Failure>, JoinError>) -> String {
    match ended {
        Ok(Ok(())) => "it ended".to_owned(),
        Ok(Err(failure)) => failure.text,
        Err(error) if error.is_panic() => {
            let panic = error.into_panic();
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            format!("it panicked: {}", text.unwrap_or_default())
        }
        Err(_) => "it was cut off".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn five_crashes_in_two_minutes_park_a_duty() {
        let mut crashes = Crashes::default();
        let next: Vec<Next> = [0, 10, 20, 30, 119]
            .map(|second| crashes.crashed(at(second)))
            .into();
        let again = |millis| Next::Again(Duration::from_millis(millis));
        assert_eq!(
            next,
            [again(200), again(500), again(2000), again(4000), Next::Park]
        );
    }

    #[test]
    fn a_crash_now_and_then_is_only_a_restart() {
        let mut crashes = Crashes::default();
        for second in (0..10_000).step_by(31) {
            let next = crashes.crashed(at(second));
            assert!(matches!(next, Next::Again(wait) if wait < Duration::from_secs(5)));
        }
    }
}
