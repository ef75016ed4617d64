//! Two nodes, the link between them, their clocks and their disks, in memory; and the judge, who knows the
//! true time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::super::authority::State;
use super::super::{
    Answer, Authority, Epoch, Holder, Moment, Order, Permit, Prefer, Record, Renewal, Report,
};
use crate::control::NodeSide::{self, Pusher, Receiver};

/// What is wrong with the rule in a test that has to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Broken {
    Nothing,
    /// The holder counts from when the grant arrived.
    CountsFromReceipt,
    /// The holder's clock stands still while it sleeps.
    ClockStopsInSleep,
    /// The authority does not wait after its start.
    NoBootHold,
    /// The authority hands over without waiting for what it has begun.
    NoDrain,
}

/// A clock that runs at its own rate, in thousandths of the true one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Clock {
    per_mille: u64,
    /// What it missed while it stood still, in true milliseconds.
    missed: u64,
}

impl Clock {
    fn read(self, now: u64) -> Moment {
        // Some time before the start, so that no moment is the first one.
        Moment(Duration::from_micros(
            (100_000 + now - self.missed) * self.per_mille,
        ))
    }

    /// Returns the true time at which it shows `moment`.
    fn true_time(self, moment: Moment) -> u64 {
        (moment.0.as_micros() as u64).div_ceil(self.per_mille) - 100_000 + self.missed
    }
}

/// An effect that is on its way.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Effect {
    side: NodeSide,
    permit: Permit,
    /// True time at which it is over by itself.
    until: u64,
}

/// A world is copied with all that is in it; a permit by itself cannot be.
impl Clone for Effect {
    fn clone(&self) -> Self {
        Self {
            permit: Permit { ..self.permit },
            ..*self
        }
    }
}

/// What the judge has seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) effects: BTreeMap<&'static str, u64>,
    pub(super) violation: Option<String>,
}

/// Everything. Times are true milliseconds.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) now: u64,
    pub(super) authority: Option<Authority>,
    pub(super) holder: Option<Holder>,
    disks: [Option<Record>; 2],
    /// Records on their way to a disk.
    storing: [VecDeque<(u64, Record)>; 2],
    clocks: [Clock; 2],
    /// Since when a node does nothing.
    stopped: [Option<u64>; 2],
    /// The connection as each side knows it.
    connection: [Option<u64>; 2],
    connections: u64,
    /// The last connection that the pusher has seen end.
    ended: u64,
    to_pusher: VecDeque<(u64, u64, Renewal)>,
    to_receiver: VecDeque<(u64, u64, Answer)>,
    effects: Vec<Effect>,
    /// The highest epoch under which anything happened, and where.
    last: Option<(Epoch, NodeSide)>,
    pub(super) prefer: Prefer,
    pub(super) broken: Broken,
    /// Whether a person has forced the role, so that two sides may act until that has healed.
    pub(super) forced: bool,
    pub(super) seen: Seen,
}

fn index(side: NodeSide) -> usize {
    match side {
        Pusher => 0,
        Receiver => 1,
    }
}

impl World {
    pub(super) fn new(per_mille: [u64; 2], prefer: Prefer, broken: Broken) -> Self {
        let clock = |per_mille| Clock {
            per_mille,
            missed: 0,
        };
        let mut this = Self {
            now: 0,
            authority: None,
            holder: None,
            disks: [None; 2],
            storing: [VecDeque::new(), VecDeque::new()],
            clocks: per_mille.map(clock),
            stopped: [None; 2],
            connection: [None; 2],
            connections: 0,
            ended: 0,
            to_pusher: VecDeque::new(),
            to_receiver: VecDeque::new(),
            effects: Vec::new(),
            last: None,
            prefer,
            broken,
            forced: false,
            seen: Seen::default(),
        };
        this.start(Pusher);
        this.start(Receiver);
        this
    }

    /// What there is to know about the state, for whoever looks for states that were not met yet.
    pub(super) fn key(&self) -> impl std::hash::Hash + '_ {
        (
            (
                self.now,
                &self.authority,
                &self.holder,
                self.disks,
                &self.storing,
            ),
            (
                self.clocks,
                self.stopped,
                self.connection,
                self.ended,
                &self.to_pusher,
                &self.to_receiver,
            ),
            (&self.effects, self.last),
        )
    }

    // What can happen

    pub(super) fn start(&mut self, side: NodeSide) {
        let now = self.clock(side);
        let record = self.disks[index(side)];
        match side {
            Pusher => {
                let mut authority = Authority::start(record, false, self.prefer, now);
                if self.broken == Broken::NoBootHold {
                    authority.state = State::Theirs { free_at: now };
                    authority.tick(now);
                }
                self.authority = Some(authority);
            }
            Receiver => self.holder = Some(Holder::start(record)),
        }
    }

    pub(super) fn crash(&mut self, side: NodeSide) {
        match side {
            Pusher => self.authority = None,
            Receiver => self.holder = None,
        }
        self.storing[index(side)].clear();
        self.stopped[index(side)] = None;
        self.cut(side);
        // What it had begun dies with it.
        self.effects.retain(|effect| effect.side != side);
    }

    pub(super) fn runs(&self, side: NodeSide) -> bool {
        match side {
            Pusher => self.authority.is_some(),
            Receiver => self.holder.is_some(),
        }
    }

    pub(super) fn is_stopped(&self, side: NodeSide) -> bool {
        self.stopped[index(side)].is_some()
    }

    pub(super) fn stop(&mut self, side: NodeSide) {
        self.stopped[index(side)].get_or_insert(self.now);
    }

    /// Goes on after a stop. A machine that slept notices that, a process that was stopped does not.
    pub(super) fn go_on(&mut self, side: NodeSide, notices: bool) {
        let Some(since) = self.stopped[index(side)].take() else {
            return;
        };
        if side == Receiver && self.broken == Broken::ClockStopsInSleep {
            self.clocks[1].missed += self.now - since;
            return;
        }
        let now = self.clock(side);
        if let (Receiver, true, Some(holder)) = (side, notices, &mut self.holder) {
            holder.slept(now);
        }
    }

    /// The connection ends, and this side notices.
    pub(super) fn cut(&mut self, side: NodeSide) {
        let Some(connection) = self.connection[index(side)].take() else {
            return;
        };
        if side == Pusher {
            self.ended = connection;
        }
        let now = self.clock(side);
        match (side, &mut self.authority, &mut self.holder) {
            (Pusher, Some(authority), _) => authority.unlinked(now),
            (Receiver, _, Some(holder)) => holder.unlinked(),
            _ => {}
        }
    }

    /// The receiver has a connection again.
    pub(super) fn link(&mut self) {
        if !self.runs(Receiver) || self.is_stopped(Receiver) || self.authority.is_none() {
            return;
        }
        self.cut(Receiver);
        self.connections += 1;
        self.connection[1] = Some(self.connections);
        let now = self.clock(Receiver);
        if let Some(holder) = &mut self.holder {
            holder.linked(now);
        }
    }

    pub(super) fn is_linked(&self) -> bool {
        self.connection[0].is_some() && self.connection[0] == self.connection[1]
    }

    pub(super) fn is_dialled(&self) -> bool {
        self.connection[1].is_some()
    }

    pub(super) fn promote(&mut self, on: NodeSide, to: NodeSide) {
        let now = self.clock(on);
        if self.is_stopped(on) {
            return;
        }
        match (on, &mut self.authority, &mut self.holder) {
            (Pusher, Some(authority), _) => drop(authority.promote(to, now)),
            (Receiver, _, Some(holder)) => drop(holder.promote(to, now)),
            _ => {}
        }
    }

    /// A person takes the role to the receiver, if that cannot ask.
    pub(super) fn force(&mut self) {
        if let (false, Some(holder)) = (self.is_stopped(Receiver), &mut self.holder) {
            self.forced |= holder.force().is_ok();
        }
    }

    /// From now on two sides may not act any more.
    pub(super) fn healed(&mut self) {
        self.forced = false;
        self.last = None;
    }

    /// Returns the epochs that are durable on both sides.
    pub(super) fn epochs(&self) -> [Option<Epoch>; 2] {
        self.disks.map(|record| record.map(|record| record.epoch))
    }

    pub(super) fn set_fitness(&mut self, side: NodeSide, able: bool, fit: bool) {
        let now = self.clock(side);
        if self.is_stopped(side) {
            return;
        }
        match (side, &mut self.authority, &mut self.holder) {
            (Pusher, Some(authority), _) => authority.set_fitness(able, fit, now),
            (Receiver, _, Some(holder)) => holder.set_fitness(able, fit, now),
            _ => {}
        }
    }

    /// A node begins an effect, if it may.
    pub(super) fn act(&mut self, side: NodeSide, timeout: Duration) {
        if self.is_stopped(side) {
            return;
        }
        let now = self.clock(side);
        let permit = match (side, &mut self.authority, &mut self.holder) {
            (Pusher, Some(authority), _) => authority.permit(timeout, now),
            (Receiver, _, Some(holder)) => holder.permit(timeout, now),
            _ => None,
        };
        let Some(permit) = permit else { return };
        *self.seen.effects.entry(side.name()).or_default() += 1;
        let other = self.effects.iter().find(|effect| effect.side != side);
        if let (Some(other), false) = (other, self.forced) {
            self.seen.violation.get_or_insert(format!(
                "at {} ms the {} acts (epoch {}) while an effect of the {} (epoch {}) lasts until {} ms",
                self.now,
                side.name(),
                permit.epoch(),
                other.side.name(),
                other.permit.epoch(),
                other.until,
            ));
        }
        if let (Some((epoch, last)), false) = (self.last, self.forced)
            && (permit.epoch() < epoch || (permit.epoch() == epoch && last != side))
        {
            self.seen.violation.get_or_insert(format!(
                "at {} ms the {} acts under epoch {} after epoch {epoch} of the {}",
                self.now,
                side.name(),
                permit.epoch(),
                last.name(),
            ));
        }
        self.last = Some((permit.epoch(), side));
        let until = self.clocks[index(side)].true_time(permit.until());
        self.effects.push(Effect {
            side,
            permit,
            until,
        });
    }

    /// An effect of this node is over before its time.
    pub(super) fn end_effect(&mut self, side: NodeSide) {
        if self.is_stopped(side) {
            return;
        }
        let Some(at) = self.effects.iter().position(|effect| effect.side == side) else {
            return;
        };
        let permit = self.effects.remove(at).permit;
        let now = self.clock(side);
        match (side, &mut self.authority, &mut self.holder) {
            (Pusher, Some(authority), _) => authority.take_back(permit, now),
            (Receiver, _, Some(holder)) => holder.take_back(permit, now),
            _ => {}
        }
    }

    /// Time passes. `delay` gives how long what is sent and stored from now on takes.
    pub(super) fn pass(&mut self, span: u64, delay: &mut dyn FnMut(Way) -> u64) {
        self.now += span;
        let now = self.now;
        if let (Broken::NoDrain, Some(authority)) = (self.broken, &mut self.authority) {
            authority.permits.out.clear();
        }
        self.effects.retain(|effect| effect.until > now);
        loop {
            self.collect(delay);
            if !(self.store_one() || self.deliver_one()) {
                break;
            }
        }
        for side in [Pusher, Receiver] {
            if self.is_stopped(side) {
                continue;
            }
            let now = self.clock(side);
            match (side, &mut self.authority, &mut self.holder) {
                (Pusher, Some(authority), _)
                    if authority.next_tick().is_some_and(|at| at <= now) =>
                {
                    authority.tick(now);
                }
                (Receiver, _, Some(holder)) if holder.next_tick().is_some_and(|at| at <= now) => {
                    holder.tick(now);
                }
                _ => {}
            }
        }
        self.collect(delay);
    }

    /// Returns the side that acts, if one does.
    pub(super) fn acting(&self) -> Option<NodeSide> {
        let theirs = self
            .holder
            .as_ref()
            .and_then(|holder| holder.acts(self.clock(Receiver)));
        let ours = self.authority.as_ref().and_then(Authority::acts);
        match (ours, theirs) {
            (Some(_), _) => Some(Pusher),
            (None, Some(_)) => Some(Receiver),
            (None, None) => None,
        }
    }

    fn clock(&self, side: NodeSide) -> Moment {
        self.clocks[index(side)].read(self.now)
    }

    // The way of what is sent and stored

    fn collect(&mut self, delay: &mut dyn FnMut(Way) -> u64) {
        let now = self.now;
        while let Some(order) = self.authority.as_mut().and_then(Authority::poll) {
            match order {
                Order::Store(record) => {
                    self.storing[0].push_back((now + delay(Way::Disk), record));
                }
                Order::Send(answer) => {
                    if let Some(connection) = self.connection[0] {
                        let at = now + delay(Way::ToReceiver);
                        self.to_receiver.push_back((at, connection, answer));
                    }
                }
            }
        }
        while let Some(report) = self.holder.as_mut().and_then(Holder::poll) {
            match report {
                Report::Store(record) => {
                    self.storing[1].push_back((now + delay(Way::Disk), record));
                }
                Report::Send(renewal) => {
                    if let Some(connection) = self.connection[1] {
                        let at = now + delay(Way::ToPusher);
                        self.to_pusher.push_back((at, connection, renewal));
                    }
                }
            }
        }
    }

    fn store_one(&mut self) -> bool {
        for side in [Pusher, Receiver] {
            let queue = &mut self.storing[index(side)];
            if self.stopped[index(side)].is_some()
                || queue.front().is_none_or(|(at, _)| *at > self.now)
            {
                continue;
            }
            let Some((_, record)) = queue.pop_front() else {
                continue;
            };
            self.disks[index(side)] = Some(record);
            let now = self.clock(side);
            match (side, &mut self.authority, &mut self.holder) {
                (Pusher, Some(authority), _) => authority.stored(record, now),
                (Receiver, _, Some(holder)) => holder.stored(record, now),
                _ => {}
            }
            return true;
        }
        false
    }

    /// Delivers in the order of sending; what belongs to a connection that its taker has left is lost.
    fn deliver_one(&mut self) -> bool {
        let now = self.now;
        let due = |front: Option<u64>| front.is_some_and(|at| at <= now);
        if due(self.to_pusher.front().map(|(at, ..)| *at))
            && self.authority.is_some()
            && !self.is_stopped(Pusher)
            && let Some((_, connection, renewal)) = self.to_pusher.pop_front()
        {
            if connection > self.connection[0].unwrap_or(self.ended) {
                self.cut(Pusher);
                self.connection[0] = Some(connection);
            }
            let at = self.clock(Pusher);
            if let (true, Some(authority)) =
                (self.connection[0] == Some(connection), &mut self.authority)
            {
                authority.renewed(renewal, at);
            }
            return true;
        }
        if due(self.to_receiver.front().map(|(at, ..)| *at))
            && self.holder.is_some()
            && !self.is_stopped(Receiver)
            && let Some((_, connection, answer)) = self.to_receiver.pop_front()
        {
            let at = self.clock(Receiver);
            if let (true, Some(holder)) = (self.connection[1] == Some(connection), &mut self.holder)
            {
                if let (Broken::CountsFromReceipt, Answer::Granted { renewal, .. }) =
                    (self.broken, answer)
                {
                    holder.sent.insert(renewal, at);
                }
                holder.answered(answer, at);
            }
            return true;
        }
        false
    }
}

/// What takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ToPusher,
    ToReceiver,
    Disk,
}
