//! The duty: round after round, when something moved here, when it is time to look there, when somebody asks.
//!
//! | The link | This node | What it does |
//! | --- | --- | --- |
//! | up | primary | what the pair has agreed on goes there; what a person did there comes here |
//! | up | standby | nothing, except that it remembers what the pair agreed to delete |
//! | down for `after` | either | the mirror is the road: all that stands here goes there, all that is there comes here |
//! | never paired | – | as when it is down |
//!
//! Everything runs on one thread; the disk is waited for.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shared::control::{Health, MirrorState, MirrorStatus, MirrorVerified, Mirrored, Problem, Road};
use shared::safety::Cause;
use shared::utc::UtcMs;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::patient::Patient;
use crate::round::{Done, Mirror, Purpose};
use crate::target::{Target, Wrong};
use crate::tree::Tree;

/// How long nothing has to move, so that what belongs together goes together: a rename is told in two parts.
const GATHER: Duration = Duration::from_secs(1);
/// How long something that moves on and on is waited for.
const GATHER_MAX: Duration = Duration::from_secs(5);
/// How much seldomer the mirror is looked at while it is no road.
const SELDOM: u32 = 10;
/// Longest wait after a failed round.
const FAILED_WAIT_MAX: Duration = Duration::from_secs(600);
/// How long what could not be done in a round waits for the next one, at most.
const LEFT_WAIT_MAX: Duration = Duration::from_secs(300);
/// Rounds that one request to bring the mirror up to date may take.
const PUSH_ROUNDS_MAX: usize = 10;

/// When the mirror is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long the link is down before the mirror is the road.
    pub after: Duration,
    /// How often the mirror is looked at while it is.
    pub poll: Duration,
}

/// What the node knows that decides what a mirror is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Whether the other node was ever met.
    pub is_paired: bool,
    /// Whether there is a link to it.
    pub is_linked: bool,
    /// Whether this node is primary.
    pub is_primary: bool,
}

/// What somebody asks.
pub enum Ask {
    /// Bring it up to date.
    Push(oneshot::Sender<Result<Mirrored, Wrong>>),
    /// Compare every file.
    Verify(oneshot::Sender<Result<MirrorVerified, Wrong>>),
    /// Let a batch pass that waits for a person; says whether there is one of that name.
    Confirm(String, oneshot::Sender<bool>),
}

/// The state of a mirror, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// The numbers.
    pub status: MirrorStatus,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

impl Told {
    /// Says why there is no mirror yet.
    pub fn say(&mut self, wrong: &Wrong) {
        self.status.state = match wrong {
            Wrong::NoConsent(_) => MirrorState::NoConsent,
            Wrong::NoRoot(_) => MirrorState::NoFolder,
            _ => MirrorState::Unreachable,
        };
        self.status.why = Some(wrong.to_string());
        self.problems = problem(self.status.state, Some(wrong))
            .into_iter()
            .collect();
    }
}

/// What the duty works with.
pub struct Parts {
    /// When it looks.
    pub times: Times,
    /// What the node knows.
    pub standing: watch::Receiver<Standing>,
    /// Is told that something moved here.
    pub moved: Arc<Notify>,
    /// What is asked.
    pub asks: mpsc::Receiver<Ask>,
    /// Where the state is told.
    pub told: watch::Sender<Told>,
    /// Says when to stop.
    pub stop: watch::Receiver<bool>,
}

/// Mirrors until it is told to stop.
pub async fn run<T: Target, L: Tree>(mirror: Mirror<Patient<T>, L>, parts: Parts) {
    let Parts {
        times,
        mut standing,
        moved,
        mut asks,
        told,
        mut stop,
    } = parts;
    let mut duty = Duty {
        mirror,
        times,
        told,
        unlinked: Some(Instant::now()),
        was_road: None,
        failures: 0,
        fruitless: 0,
        moved: None,
        gathers: None,
        // The tree is looked at when the node starts, and tells what it finds.
        next: Instant::now() + GATHER,
        is_for_moved: true,
        wrong: None,
        totals: Done::default(),
        last_push: None,
        last_look: None,
    };
    loop {
        let now_ = *standing.borrow_and_update();
        duty.stands(now_);
        let wait = match duty.purpose(now_) {
            Some(_) => duty.next.saturating_duration_since(Instant::now()),
            // Only to see whether the link has been down for long enough.
            None => duty.until_road(now_),
        };
        let asked = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = standing.changed() => continue,
            () = moved.notified() => {
                duty.has_moved(now_);
                continue;
            }
            Some(ask) = asks.recv() => Some(ask),
            () = tokio::time::sleep(wait) => None,
        };
        let Some(purpose) = duty.purpose(now_) else {
            match asked {
                Some(ask) => duty.refuse(ask),
                None => duty.tell(now_),
            }
            continue;
        };
        // A round may take long; whoever stops the node does not wait for it. What was done counts.
        let work = async {
            match asked {
                None => drop(duty.round(purpose, now_).await),
                Some(ask) => duty.answer(ask, purpose, now_).await,
            }
        };
        tokio::select! {
            () = work => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

struct Duty<T: Target, L: Tree> {
    mirror: Mirror<Patient<T>, L>,
    times: Times,
    told: watch::Sender<Told>,
    /// Since when there is no link.
    unlinked: Option<Instant>,
    /// Whether the mirror was the road in the last round.
    was_road: Option<bool>,
    /// Rounds in a row that failed.
    failures: u32,
    /// Rounds in a row that left something and did nothing.
    fruitless: u32,
    /// Since when something waits that moved.
    moved: Option<Instant>,
    /// Since when what moves is gathered for the next round.
    gathers: Option<Instant>,
    next: Instant,
    /// Whether that is because something moved.
    is_for_moved: bool,
    wrong: Option<Wrong>,
    totals: Done,
    last_push: Option<UtcMs>,
    last_look: Option<UtcMs>,
}

impl<T: Target, L: Tree> Duty<T, L> {
    /// Takes what the node knows now.
    fn stands(&mut self, standing: Standing) {
        match (standing.is_linked, self.unlinked) {
            (true, _) => self.unlinked = None,
            (false, None) => self.unlinked = Some(Instant::now()),
            (false, Some(_)) => {}
        }
        let is_road = self.purpose(standing).map(|purpose| purpose.is_road);
        if is_road != self.was_road {
            // What counts as what stands here is another matter now.
            self.mirror.compare_all();
            let is_first = self.was_road.is_none();
            self.was_road = is_road;
            if !is_first {
                self.next = Instant::now();
            }
            if is_road == Some(true) && standing.is_paired {
                info!("the link is down; the mirror is the road now");
            }
            self.tell(standing);
        }
    }

    /// Says what a round would be for; `None` when it is the other node's.
    fn purpose(&self, standing: Standing) -> Option<Purpose> {
        let down = self.unlinked.map(|since| since.elapsed());
        let is_road = !standing.is_paired || down.is_some_and(|down| down >= self.times.after);
        let is_primary = standing.is_primary || !standing.is_paired;
        (is_road || is_primary).then_some(Purpose {
            is_road,
            is_primary,
        })
    }

    fn until_road(&self, standing: Standing) -> Duration {
        match self.unlinked {
            Some(since) if standing.is_paired => {
                self.times.after.saturating_sub(since.elapsed()) + Duration::from_millis(10)
            }
            _ => Duration::from_secs(3600),
        }
    }

    /// Takes it that something moved here.
    fn has_moved(&mut self, standing: Standing) {
        if let Err(wrong) = self.mirror.note_moved() {
            warn!(%wrong, "what moved is not noted for the mirror");
        }
        if self.purpose(standing).is_some() && self.mirror.due() > 0 {
            let now_ = Instant::now();
            self.moved.get_or_insert(now_);
            let since = *self.gathers.get_or_insert(now_);
            if self.failures == 0 {
                let gathered = (now_ + GATHER).min(since + GATHER_MAX);
                // What is still moving puts off a round that was due for it, and no other one before that.
                self.next = match self.next > gathered || self.is_for_moved {
                    true => gathered,
                    false => self.next,
                };
                self.is_for_moved = true;
            }
        }
    }

    async fn round(&mut self, purpose: Purpose, standing: Standing) -> Result<Done, Wrong> {
        self.is_for_moved = false;
        // What moves from now on is gathered anew.
        self.gathers = None;
        if self.last_look.is_none() {
            self.tell(standing);
        }
        let done = self.mirror.round(purpose, utc_now(), Instant::now()).await;
        let poll = match purpose.is_road {
            true => self.times.poll,
            false => self.times.poll * SELDOM,
        };
        match &done {
            Ok(done) => {
                self.failures = 0;
                self.wrong = None;
                self.last_look = Some(utc_now());
                self.totals.pushed += done.pushed;
                self.totals.bytes += done.bytes;
                self.totals.taken += done.taken;
                let did = done.pushed + done.changed + done.taken > 0;
                if did {
                    info!(
                        pushed = done.pushed,
                        bytes = done.bytes,
                        changed = done.changed,
                        taken = done.taken,
                        left = done.left,
                        "mirrored"
                    );
                }
                self.fruitless = if did { 0 } else { self.fruitless + 1 };
                if done.left == 0 {
                    self.fruitless = 0;
                    self.moved = None;
                    self.last_push = Some(utc_now());
                    self.next = Instant::now() + poll;
                } else {
                    let wait = GATHER * 2u32.saturating_pow(self.fruitless.min(16));
                    self.next = Instant::now() + wait.min(poll).min(LEFT_WAIT_MAX);
                }
            }
            Err(wrong) => {
                warn!(%wrong, "the mirror is not up to date");
                self.failures += 1;
                let wait = self.times.poll * 2u32.saturating_pow(self.failures.min(16) - 1);
                self.next = Instant::now() + wait.min(FAILED_WAIT_MAX.max(self.times.poll));
                self.wrong = Some(wrong.clone());
            }
        }
        self.tell(standing);
        done
    }

    async fn answer(&mut self, ask: Ask, purpose: Purpose, standing: Standing) {
        match ask {
            Ask::Push(answer) => {
                // What is moving just now is still being looked at.
                if self.is_for_moved {
                    tokio::time::sleep_until(self.next.into()).await;
                }
                let mut all = Mirrored::default();
                for _ in 0..PUSH_ROUNDS_MAX {
                    match self.round(purpose, standing).await {
                        Ok(done) => {
                            all.pushed += done.pushed;
                            all.bytes += done.bytes;
                            all.changed += done.changed;
                            all.taken += done.taken;
                            all.left = done.left;
                            if done.left == 0 || done.pushed + done.changed + done.taken == 0 {
                                break;
                            }
                        }
                        Err(wrong) => {
                            let _ = answer.send(Err(wrong));
                            return;
                        }
                    }
                }
                let _ = answer.send(Ok(all));
            }
            Ask::Verify(answer) => {
                let _ = answer.send(self.mirror.verify().await);
            }
            Ask::Confirm(batch, answer) => {
                let is_it = self.mirror.confirm(&batch);
                let _ = answer.send(is_it);
                if is_it {
                    drop(self.round(purpose, standing).await);
                }
            }
        }
    }

    /// Says that the other node sees to the mirror.
    fn refuse(&self, ask: Ask) {
        let text = "the other node is primary and sees to the mirror";
        match ask {
            Ask::Push(answer) => drop(answer.send(Err(Wrong::Refused(text.to_owned())))),
            Ask::Verify(answer) => drop(answer.send(Err(Wrong::Refused(text.to_owned())))),
            Ask::Confirm(_, answer) => drop(answer.send(false)),
        }
    }

    fn tell(&self, standing: Standing) {
        let is_busy = self.purpose(standing).is_some();
        let alarm = self.mirror.alarm();
        let waits = self.mirror.waits();
        let state = match &self.wrong {
            _ if !is_busy => MirrorState::Standby,
            Some(Wrong::NoConsent(_)) => MirrorState::NoConsent,
            Some(Wrong::NoRoot(_)) => MirrorState::NoFolder,
            Some(Wrong::Full(_)) => MirrorState::Full,
            Some(Wrong::Disk(_)) => MirrorState::Broken,
            Some(_) => MirrorState::Unreachable,
            None if alarm.is_some() => MirrorState::Halted,
            None if self.mirror.is_full() => MirrorState::Full,
            None if self.last_look.is_none() => MirrorState::Starting,
            None => MirrorState::Ok,
        };
        let is_road = self.was_road == Some(true) && standing.is_paired;
        let road = match standing.is_linked {
            true => Road::Direct,
            false if is_road && self.wrong.is_none() && self.last_look.is_some() => Road::Mirror,
            false => Road::None,
        };
        let lag = self.moved.map(|since| since.elapsed());
        let mut problems: Vec<Problem> = Vec::new();
        if is_busy {
            problems.extend(problem(state, self.wrong.as_ref()));
            if let Some((is_here, alarm)) = &alarm {
                problems.push(halted(*is_here, alarm));
            }
            problems.extend(waits.iter().map(|(path, waits)| Problem {
                code: waits.code.to_owned(),
                severity: Health::Held,
                path: Some(path.clone()),
                text: waits.text.clone(),
                fix: waits.fix.clone(),
            }));
        }
        self.told.send_if_modified(|told| {
            let fresh = Told {
                status: MirrorStatus {
                    target: told.status.target.clone(),
                    place: told.status.place.clone(),
                    state,
                    road,
                    last_push: self.last_push,
                    last_look: self.last_look,
                    waiting: if is_busy { self.mirror.due() } else { 0 },
                    lag_ms: lag.map_or(0, |lag| u64::try_from(lag.as_millis()).unwrap_or(0)),
                    held: waits.len() as u64,
                    pushed: self.totals.pushed,
                    pushed_bytes: self.totals.bytes,
                    taken: self.totals.taken,
                    why: self
                        .wrong
                        .as_ref()
                        .filter(|_| is_busy)
                        .map(ToString::to_string),
                },
                problems,
            };
            let changed = *told != fresh;
            *told = fresh;
            changed
        });
    }
}

/// What is wrong with a mirror as a whole, and what helps.
fn problem(state: MirrorState, wrong: Option<&Wrong>) -> Option<Problem> {
    let why = wrong.map(ToString::to_string).unwrap_or_default();
    let (code, text, fix) = match state {
        MirrorState::Standby | MirrorState::Starting | MirrorState::Ok | MirrorState::Halted => {
            return None;
        }
        MirrorState::Unreachable => (
            "degraded.mirror_unreachable",
            format!("the mirror is not up to date: {why}; it is tried again"),
            "look at the network of this machine, or whether the disk is mounted",
        ),
        MirrorState::NoConsent => (
            "degraded.mirror_consent",
            format!("Google does not let this node in: {why}; nothing is mirrored until it does"),
            "layer-sync mirror auth",
        ),
        MirrorState::Full => (
            "degraded.mirror_full",
            "the mirror has no room for some files; what it has stays, and the rest is tried again"
                .to_owned(),
            "empty its trash, or get more room there; a service account has none of its own and needs a shared_drive in [mirror]",
        ),
        MirrorState::NoFolder => (
            "degraded.mirror_folder",
            format!("{why}; nothing is mirrored, and nothing here is touched"),
            "bring the folder back (from the trash of Drive, or by mounting the disk), or choose another one in [mirror]",
        ),
        MirrorState::Broken => (
            "degraded.mirror_disk",
            format!("the mirror is not up to date: {why}"),
            "free some space on this machine; `layer-sync duty restart mirror` tries at once",
        ),
    };
    Some(Problem {
        code: code.to_owned(),
        severity: Health::Degraded,
        path: None,
        text,
        fix: fix.to_owned(),
    })
}

fn halted(is_here: bool, alarm: &shared::safety::Alarm) -> Problem {
    let batch = alarm.batch();
    let (from, to) = match is_here {
        true => ("the mirror", "this machine"),
        false => ("this machine", "the mirror"),
    };
    let what = match alarm.cause {
        Cause::Emptied => format!("{from} has no file left; {to} would lose {}", alarm.deletes),
        Cause::Deletes => format!(
            "{} of {} files would be deleted on {to}",
            alarm.deletes, alarm.files
        ),
        Cause::Rewrites => format!(
            "{} of {} files would be rewritten on {to}",
            alarm.rewrites, alarm.files
        ),
    };
    Problem {
        code: "degraded.mirror_halted".to_owned(),
        severity: Health::Degraded,
        path: None,
        text: format!("the mirror waits for you: {what}; nothing was changed"),
        fix: format!(
            "if that is right, `layer-sync confirm {batch}`; if not, bring the files back on {from}"
        ),
    }
}

fn utc_now() -> UtcMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UtcMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
