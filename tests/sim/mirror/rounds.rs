//! When a round runs, and for what: `mirror::duty`, with one step for each poll of a round.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use disk::mirrored::Moved;
use mirror::round::{Done, Mirror, Purpose, Setup};
use mirror::target::Wrong;
use shared::control::NodeSide;
use shared::reconcile::ConflictRules;
use shared::tree::Side;
use shared::utc::UtcMs;
use shared::wire::IndexId;

use super::reach::Reach;
use super::tree::Ground;
use super::{PRIMARY, Third, name_of, open};
use crate::chance::Chance;
use crate::disk::Disk;
use crate::machine::UNGUARDED;
use crate::world::{SIDES, World};

const AFTER: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_secs(30);
const SELDOM: u32 = 10;
const GATHER: Duration = Duration::from_secs(1);
const GATHER_MAX: Duration = Duration::from_secs(5);
const FAILED_WAIT_MAX: Duration = Duration::from_secs(600);
const LEFT_WAIT_MAX: Duration = Duration::from_secs(300);

type Running = Pin<Box<dyn Future<Output = Result<Done, Wrong>>>>;

/// The rounds of a process.
pub(crate) struct Rounds {
    mirror: Rc<Mirror<Reach, Ground>>,
    /// Where the node's disk lies while a round is polled.
    cell: Rc<RefCell<Disk>>,
    running: Option<(Running, Purpose)>,
    /// How much had changed in the mirror when the running one began.
    began: usize,
    /// Since when there is no link.
    unlinked: Option<Duration>,
    was_road: Option<bool>,
    failures: u32,
    fruitless: u32,
    moved: Option<Duration>,
    next: Duration,
    is_for_moved: bool,
    /// How much had changed in the mirror when a round found nothing to do, if nothing moved here since.
    idle: Option<usize>,
}

impl Rounds {
    fn is_idle(&self, cloud_changed: usize) -> bool {
        self.running.is_none() && self.idle == Some(cloud_changed)
    }

    /// Says what a round would be for; `None` when it is the other node's.
    fn purpose(&self, side: Side, now: Duration) -> Option<Purpose> {
        let is_road = self.unlinked.is_some_and(|since| now - since >= AFTER);
        let is_primary = side == PRIMARY;
        (is_road || is_primary).then_some(Purpose {
            is_road,
            is_primary,
        })
    }

    /// Takes what the node knows now.
    fn stands(&mut self, side: Side, is_linked: bool, now: Duration) {
        match (is_linked, self.unlinked) {
            (true, _) => self.unlinked = None,
            (false, None) => self.unlinked = Some(now),
            (false, Some(_)) => {}
        }
        let is_road = self.purpose(side, now).map(|purpose| purpose.is_road);
        if is_road != self.was_road {
            self.mirror.compare_all();
            self.idle = None;
            if self.was_road.is_some() {
                self.next = now;
            }
            self.was_road = is_road;
        }
    }

    fn has_moved(&mut self, now: Duration, does: bool) {
        if !does || self.mirror.due() == 0 {
            return;
        }
        self.idle = None;
        let since = *self.moved.get_or_insert(now);
        if self.failures == 0 {
            let gathered = (now + GATHER).min(since + GATHER_MAX);
            if self.next > gathered || self.is_for_moved {
                self.next = gathered;
            }
            self.is_for_moved = true;
        }
    }

    fn ended(&mut self, purpose: Purpose, ended: &Result<Done, Wrong>, now: Duration) {
        let poll = if purpose.is_road { POLL } else { POLL * SELDOM };
        let Ok(done) = ended else {
            self.failures += 1;
            let wait = POLL * 2u32.saturating_pow(self.failures.min(16) - 1);
            self.next = now + wait.min(FAILED_WAIT_MAX);
            return;
        };
        self.failures = 0;
        let did = done.pushed + done.changed + done.taken > 0;
        self.fruitless = if did { 0 } else { self.fruitless + 1 };
        if done.left > 0 {
            let wait = GATHER * 2u32.saturating_pow(self.fruitless.min(16));
            self.next = now + wait.min(poll).min(LEFT_WAIT_MAX);
            return;
        }
        self.fruitless = 0;
        self.moved = None;
        self.next = now + poll;
        if !did && self.was_road == Some(purpose.is_road) {
            self.idle = Some(self.began);
        }
    }
}

/// What can happen next because there is a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// What moved is noted.
    Note,
    /// A round begins.
    Begin,
    /// A round goes on.
    Poll,
}

impl World {
    /// Starts the rounds of a process that has just been started.
    pub(crate) fn start_rounds(&mut self, side: Side) {
        let Some(third) = &self.third else { return };
        let node = &mut self.nodes[side as usize];
        node.disk.follower = Some(Moved {
            all: true,
            ..Moved::default()
        });
        let cell = Rc::new(RefCell::new(Disk::new(IndexId([0; 16]), None)));
        let ground = Ground {
            disk: Rc::clone(&cell),
            cloud: Rc::clone(&third.cloud),
        };
        let setup = Setup {
            node: name_of(side).to_owned(),
            side: match side {
                Side::Alpha => NodeSide::Pusher,
                Side::Beta => NodeSide::Receiver,
            },
            pair: 7,
            mode: self.mode,
            conflicts: ConflictRules::default(),
            limits: UNGUARDED,
        };
        let reach = Reach::new(Rc::clone(&third.cloud), third.defect);
        let store = open(&third.stores[side as usize]);
        let seed = self.chance.next();
        let rounds = Rounds {
            mirror: Rc::new(Mirror::new(reach, ground, store, setup, seed)),
            cell,
            running: None,
            began: 0,
            unlinked: Some(node.mono),
            was_road: None,
            failures: 0,
            fruitless: 0,
            moved: None,
            next: node.mono + GATHER,
            is_for_moved: true,
            idle: None,
        };
        if let Some(process) = &mut node.process {
            process.rounds = Some(Box::new(rounds));
        }
    }

    /// Tells the rounds how the nodes stand.
    pub(crate) fn rounds_stand(&mut self) {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process
                && let Some(rounds) = &mut process.rounds
            {
                let is_linked = process.linked.is_some() && process.opened;
                rounds.stands(node.side, is_linked, node.mono);
            }
        }
    }

    /// Returns what the rounds of a side can do next.
    pub(crate) fn turn_of(&self, side: Side) -> Option<Turn> {
        let node = &self.nodes[side as usize];
        let rounds = node.process.as_ref()?.rounds.as_ref()?;
        if rounds.running.is_some() {
            // An edit waits for whoever applies.
            return (!node.disk.applying).then_some(Turn::Poll);
        }
        if node.disk.follower.as_ref().is_some_and(is_some) {
            return Some(Turn::Note);
        }
        let is_due = rounds.next <= node.mono && rounds.purpose(side, node.mono).is_some();
        is_due.then_some(Turn::Begin)
    }

    /// Returns when the rounds of a side want to do something.
    pub(crate) fn rounds_wait(&self, side: Side) -> Option<Duration> {
        let node = &self.nodes[side as usize];
        let rounds = node.process.as_ref()?.rounds.as_ref()?;
        let road = rounds.unlinked.map(|since| since + AFTER);
        let road = road.filter(|at| *at > node.mono);
        let next = rounds.purpose(side, node.mono).map(|_| rounds.next);
        [road, next].into_iter().flatten().min()
    }

    pub(crate) fn take_turn(&mut self, side: Side, turn: Turn) {
        match turn {
            Turn::Note => {
                let now = self.nodes[side as usize].mono;
                let noted = self.with_ground(side, |rounds| rounds.mirror.note_moved());
                if let Some(Err(wrong)) = noted {
                    self.oracle
                        .fail(format!("what moved is not noted on {side:?}: {wrong}"));
                }
                self.with_ground(side, |rounds| {
                    let does = rounds.purpose(side, now).is_some();
                    rounds.has_moved(now, does);
                });
            }
            Turn::Begin => {
                self.begin_round(side);
                self.poll_round(side);
            }
            Turn::Poll => self.poll_round(side),
        }
    }

    /// Lets the rounds of a side work on its disk.
    fn with_ground<R>(&mut self, side: Side, work: impl FnOnce(&mut Rounds) -> R) -> Option<R> {
        let node = &mut self.nodes[side as usize];
        let rounds = node.process.as_mut()?.rounds.as_mut()?;
        let cell = Rc::clone(&rounds.cell);
        std::mem::swap(&mut node.disk, &mut *cell.borrow_mut());
        let done = work(rounds);
        std::mem::swap(&mut node.disk, &mut *cell.borrow_mut());
        Some(done)
    }

    fn begin_round(&mut self, side: Side) {
        let Some(third) = &mut self.third else { return };
        let node = &mut self.nodes[side as usize];
        let (now, instant) = (UtcMs(node.wall_ms), self.epoch + node.mono);
        let Some(rounds) = node.process.as_mut().and_then(|it| it.rounds.as_mut()) else {
            return;
        };
        let Some(purpose) = rounds.purpose(side, node.mono) else {
            return;
        };
        rounds.is_for_moved = false;
        rounds.moved = None;
        rounds.idle = None;
        rounds.began = third.cloud.borrow().changed();
        let is_road = purpose.is_road;
        let mirror = Rc::clone(&rounds.mirror);
        let round = async move { mirror.round(purpose, now, instant).await };
        rounds.running = Some((Box::pin(round), purpose));
        if is_road {
            let [alpha, beta] = &self.nodes;
            self.oracle.road_begins([&alpha.disk, &beta.disk]);
        }
    }

    fn poll_round(&mut self, side: Side) {
        let Some(third) = &self.third else { return };
        let cloud = Rc::clone(&third.cloud);
        {
            let mut cloud = cloud.borrow_mut();
            cloud.chance = Chance::new(self.chance.next());
            cloud.fails_one_in = if self.mending { 0 } else { third.fails_one_in };
        }
        let node = &self.nodes[side as usize];
        let (now, store) = (node.mono, &third.anchors[side as usize]);
        self.oracle
            .round_goes_on(&node.disk, &cloud.borrow(), store);
        let node = &self.nodes[side as usize];
        if node.disk.follower.as_ref().is_some_and(is_some) {
            self.take_turn(side, Turn::Note);
        }
        let ended = self.with_ground(side, |rounds| {
            let (running, purpose) = rounds.running.as_mut()?;
            let purpose = *purpose;
            let mut context = Context::from_waker(Waker::noop());
            let Poll::Ready(ended) = running.as_mut().poll(&mut context) else {
                return None;
            };
            rounds.running = None;
            rounds.ended(purpose, &ended, now);
            Some((purpose, ended))
        });
        if self.loud
            && let Some(Some((purpose, ended))) = &ended
        {
            println!("      {side:?} round for {purpose:?}: {ended:?}");
        }
        if let Some(Some((_, Err(wrong)))) = &ended
            && !matches!(
                wrong,
                Wrong::Busy { .. } | Wrong::Unreachable(_) | Wrong::CursorLost
            )
        {
            self.oracle
                .fail(format!("a round of {side:?} went wrong: {wrong}"));
        }
        if ended.flatten().is_some() {
            self.answer_the_guard(side);
        }
        let did = std::mem::take(&mut cloud.borrow_mut().did);
        for did in did {
            if self.loud {
                println!("      {side:?} {did:?}");
            }
            self.work += 1;
            self.oracle.round_did(side, did);
        }
    }

    /// A round that would take all away waits for a person, who lets it pass.
    fn answer_the_guard(&mut self, side: Side) {
        let now = self.nodes[side as usize].mono;
        let is_seen = self.mending || self.chance.one_in(3);
        self.with_ground(side, |rounds| {
            if let Some((_, alarm)) = rounds.mirror.alarm().filter(|_| is_seen) {
                rounds.mirror.confirm(&alarm.batch());
                rounds.next = now;
            }
        });
    }

    /// Says whether the two can reach each other.
    pub(crate) fn road_is_open(&self) -> bool {
        self.third.as_ref().is_none_or(|third| third.is_open)
    }

    /// Says whether the mirror has come to rest while it is no road.
    pub(crate) fn mirror_rests(&self) -> bool {
        let Some(third) = &self.third else {
            return true;
        };
        let changed = third.cloud.borrow().changed();
        let node = &self.nodes[PRIMARY as usize];
        let rounds = node.process.as_ref().and_then(|it| it.rounds.as_ref());
        let moves = node.disk.follower.as_ref().is_some_and(is_some);
        let are_agreed = self
            .nodes
            .iter()
            .all(|node| node.disk.index.trails.is_empty());
        are_agreed
            && rounds.is_some_and(|it| it.was_road == Some(false) && it.is_idle(changed))
            && !moves
    }

    /// Has the rounds look at the mirror now.
    pub(crate) fn look_there(&mut self) {
        for side in SIDES {
            let now = self.nodes[side as usize].mono;
            self.with_ground(side, |rounds| {
                rounds.failures = 0;
                rounds.next = now;
            });
        }
    }
}

fn is_some(moved: &Moved) -> bool {
    moved.all || !moved.paths.is_empty() || !moved.gone.is_empty()
}

impl Third {
    /// Returns how often changes were asked for, and how often anything else was asked.
    pub(crate) fn calls(&self) -> [u64; 2] {
        self.cloud.borrow().calls
    }
}
