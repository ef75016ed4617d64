//! The pusher's part: it decides who has the role, and has it itself while nobody else does.

use std::collections::VecDeque;

use std::time::Duration;

use super::{
    Answer, BOOT_HOLD, Epoch, GREETING_WAIT, Moment, PREFER_AFTER, Permit, Permits, Record,
    Renewal, Stance, TAKE_OVER,
};
use crate::control::NodeSide;

/// Where the role goes by itself when both sides have been fit for [`PREFER_AFTER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Prefer {
    /// It stays where it is.
    #[default]
    None,
    /// To this side.
    Side(NodeSide),
}

impl Prefer {
    /// All of them.
    pub const ALL: [Self; 3] = [
        Self::None,
        Self::Side(NodeSide::Pusher),
        Self::Side(NodeSide::Receiver),
    ];

    /// Returns its name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Side(side) => side.name(),
        }
    }
}

/// What the authority wants done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// Make this durable; then call [`Authority::stored`].
    Store(Record),
    /// Send this to the receiver.
    Send(Answer),
}

/// A renewal that waits for the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    /// Its number; `None` when its connection has ended. Another connection may have the same number.
    renewal: Option<u64>,
    received: Moment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// The receiver acts, or may. Nothing starts here before that moment.
    Theirs { free_at: Moment },
    /// This side acts.
    Ours,
    /// This side starts nothing more. When the permits that are out are over, the role goes to who asked.
    Draining { asked: Option<Asked> },
    /// Nobody acts, because this side cannot and the other has not asked yet.
    Vacant,
    /// Nobody starts anything until this is durable. It goes to the receiver that asked, or comes here.
    Storing {
        record: Record,
        asked: Option<Asked>,
    },
}

/// The state machine of the side that decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    pub(super) state: State,
    /// What is durable.
    record: Option<Record>,
    /// The highest epoch that anybody has spoken of.
    seen: Epoch,
    pub(super) permits: Permits,
    /// What the receiver said last on this connection.
    peer: Option<Stance>,
    able: bool,
    fit: bool,
    prefer: Prefer,
    /// Whether a person wanted it otherwise. That counts until the receiver is away or unable.
    overruled: bool,
    /// Since when the preferred side could have the role.
    preferred_since: Option<Moment>,
    /// Whether the receiver was asked to change the role, since it last said anything else.
    change_sent: bool,
    orders: VecDeque<Order>,
}

impl Authority {
    /// Starts with the record that is durable here. `alone` says that there is no partner that could have
    /// been granted anything.
    pub fn start(record: Option<Record>, alone: bool, prefer: Prefer, now: Moment) -> Self {
        let was_holder = record.is_some_and(|record| record.holder == NodeSide::Pusher);
        let wait = match () {
            () if alone => Duration::ZERO,
            () if was_holder => GREETING_WAIT,
            () => BOOT_HOLD,
        };
        let mut this = Self {
            state: State::Theirs {
                free_at: now.after(wait),
            },
            record,
            seen: record.map_or(Epoch::default(), |record| record.epoch),
            permits: Permits::default(),
            peer: None,
            able: true,
            fit: false,
            prefer,
            overruled: false,
            preferred_since: None,
            change_sent: false,
            orders: VecDeque::new(),
        };
        this.tick(now);
        this
    }

    // What happens

    /// The receiver has said how it stands.
    pub fn renewed(&mut self, renewal: Renewal, now: Moment) {
        let asked = Asked {
            renewal: Some(renewal.number),
            received: now,
        };
        self.seen = self.seen.max(renewal.seen);
        if self.peer.replace(renewal.stance) != Some(renewal.stance) {
            self.change_sent = false;
        }
        self.overruled &= renewal.stance != Stance::Unable;
        match (renewal.stance, self.state) {
            // Under a lower epoch when the answer with the next one was lost.
            (Stance::Holds(epoch), State::Theirs { .. })
                if let Some(record) = self.record
                    && record.holder == NodeSide::Receiver
                    && epoch <= record.epoch =>
            {
                self.grant(asked, record.epoch);
            }
            // A person forced it, or what was durable here is lost. The higher epoch is the true one, and
            // whoever acts under a lower one stops.
            (Stance::Holds(epoch), _) if self.record.is_none_or(|record| epoch > record.epoch) => {
                self.store(NodeSide::Receiver, epoch, Some(asked));
            }
            (Stance::Resumes | Stance::Asks, State::Theirs { .. } | State::Vacant) => {
                self.store(NodeSide::Receiver, self.seen.next(), Some(asked));
            }
            (Stance::Asks, State::Ours | State::Draining { .. }) => {
                self.state = State::Draining { asked: Some(asked) };
            }
            // It holds nothing, so there is nothing to wait for.
            (Stance::Fit | Stance::Able | Stance::Unable, State::Theirs { .. }) => self.take(),
            (Stance::Fit | Stance::Able | Stance::Unable, State::Draining { asked: Some(_) }) => {
                self.state = State::Draining { asked: None };
                self.tell();
            }
            // It will be told when that is durable.
            (_, State::Storing { .. }) => {}
            _ => self.tell(),
        }
        self.tick(now);
    }

    /// The connection to the receiver has ended.
    pub fn unlinked(&mut self, now: Moment) {
        self.peer = None;
        self.change_sent = false;
        self.overruled = false;
        match &mut self.state {
            State::Draining { asked } => *asked = None,
            // What is being stored may be durable already.
            State::Storing {
                asked: Some(asked), ..
            } => asked.renewal = None,
            _ => {}
        }
        self.tick(now);
    }

    /// This is durable.
    pub fn stored(&mut self, record: Record, now: Moment) {
        self.record = Some(record);
        let State::Storing {
            record: awaited,
            asked,
        } = self.state
        else {
            return;
        };
        if awaited != record {
            return;
        }
        let gone = matches!(self.peer, Some(Stance::Fit | Stance::Able | Stance::Unable));
        match asked {
            // It has changed its mind, and nothing was granted.
            Some(_) if gone => self.take(),
            Some(asked) => self.grant(asked, record.epoch),
            None => {
                self.state = State::Ours;
                self.tell();
            }
        }
        self.tick(now);
    }

    /// Whether this side can have the role has changed, or whether the trees are equal, which a preference
    /// waits for.
    pub fn set_fitness(&mut self, able: bool, fit: bool, now: Moment) {
        (self.able, self.fit) = (able, able && fit);
        self.tick(now);
    }

    /// An effect is over.
    pub fn take_back(&mut self, permit: Permit, now: Moment) {
        self.permits.take_back(permit);
        self.tick(now);
    }

    /// A person wants the role to go to `to`. It goes when the side that has it has come to rest.
    ///
    /// # Errors
    /// One sentence why it cannot go there now.
    pub fn promote(&mut self, to: NodeSide, now: Moment) -> Result<(), &'static str> {
        self.overruled = true;
        match (to, self.state) {
            (_, State::Storing { record, .. }) if record.holder != to => {
                Err("the role is just changing")
            }
            (NodeSide::Pusher, _) if !self.able => Err("the pusher cannot take the role now"),
            (NodeSide::Pusher, State::Theirs { .. }) if self.peer.is_none() => {
                Err("the receiver may have the role and cannot be reached")
            }
            (NodeSide::Pusher, State::Draining { .. }) => {
                self.state = State::Draining { asked: None };
                self.tick(now);
                Ok(())
            }
            (NodeSide::Receiver, State::Ours | State::Vacant | State::Draining { .. })
                if self.peer.is_none() =>
            {
                Err("the receiver cannot be reached")
            }
            (NodeSide::Receiver, State::Ours | State::Vacant | State::Draining { .. })
                if self.peer == Some(Stance::Unable) =>
            {
                Err("the receiver cannot take the role now")
            }
            (NodeSide::Pusher, State::Theirs { .. })
            | (NodeSide::Receiver, State::Ours | State::Vacant | State::Draining { .. }) => {
                self.change_sent = false;
                self.change(to);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Moment) {
        match self.state {
            State::Theirs { free_at } if now >= free_at => self.take(),
            State::Ours if !self.able => self.state = State::Draining { asked: None },
            // Somebody who was not asked about lives under a higher epoch: what is done here must not look
            // older than that.
            State::Ours if self.record.is_some_and(|record| record.epoch < self.seen) => {
                self.take();
            }
            State::Vacant if self.able => self.take(),
            _ => {}
        }
        if let State::Draining { asked } = self.state {
            let over = self.permits.over(now);
            match asked {
                Some(asked) if over => {
                    self.store(NodeSide::Receiver, self.seen.next(), Some(asked));
                }
                None if self.able => self.state = State::Ours,
                None if over => self.state = State::Vacant,
                _ => {}
            }
        }
        let can_take = matches!(self.peer, Some(Stance::Able | Stance::Fit));
        if !self.able && can_take && matches!(self.state, State::Draining { .. } | State::Vacant) {
            self.change(NodeSide::Receiver);
        }
        self.prefer(now);
    }

    /// Lets the role go to where it belongs, when that has been possible for a while.
    fn prefer(&mut self, now: Moment) {
        let Prefer::Side(side) = self.prefer else {
            return;
        };
        let possible = matches!(
            (side, self.state, self.peer),
            (NodeSide::Receiver, State::Ours, Some(Stance::Fit))
                | (
                    NodeSide::Pusher,
                    State::Theirs { .. },
                    Some(Stance::Holds(_))
                )
        );
        if !possible || !self.fit || self.overruled {
            self.preferred_since = None;
            return;
        }
        let since = *self.preferred_since.get_or_insert(now);
        if now >= since.after(PREFER_AFTER) {
            self.preferred_since = Some(now);
            self.change(side);
        }
    }

    fn take(&mut self) {
        if self.able {
            self.store(NodeSide::Pusher, self.seen.next(), None);
        } else {
            self.state = State::Vacant;
        }
    }

    fn store(&mut self, holder: NodeSide, epoch: Epoch, asked: Option<Asked>) {
        self.seen = self.seen.max(epoch);
        let record = Record {
            epoch,
            holder,
            forced: false,
        };
        self.state = State::Storing { record, asked };
        self.orders.push_back(Order::Store(record));
    }

    fn grant(&mut self, asked: Asked, epoch: Epoch) {
        self.state = State::Theirs {
            free_at: asked.received.after(TAKE_OVER),
        };
        if let Some(renewal) = asked.renewal {
            let answer = Answer::Granted { renewal, epoch };
            self.orders.push_back(Order::Send(answer));
        }
    }

    fn tell(&mut self) {
        if let (Some(record), Some(_)) = (self.record, self.peer) {
            self.orders.push_back(Order::Send(Answer::Stands(record)));
        }
    }

    /// Asks the receiver to let go of the role, or to ask for it; once, until it has said something else.
    fn change(&mut self, to: NodeSide) {
        if !std::mem::replace(&mut self.change_sent, true) {
            self.orders.push_back(Order::Send(Answer::Change(to)));
        }
    }

    // What follows

    /// Returns what is to be done next, until there is nothing.
    pub fn poll(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// Returns when [`Authority::tick`] wants to be called.
    pub fn next_tick(&self) -> Option<Moment> {
        let state = match self.state {
            State::Theirs { free_at } => Some(free_at),
            State::Draining { .. } => self.permits.over_at(),
            _ => None,
        };
        let prefer = self.preferred_since.map(|since| since.after(PREFER_AFTER));
        state.into_iter().chain(prefer).min()
    }

    /// Returns leave for one effect that is over after `timeout`, or `None` while this side does not have
    /// the role.
    pub fn permit(&mut self, timeout: Duration, now: Moment) -> Option<Permit> {
        let record = self.record.filter(|_| self.state == State::Ours)?;
        // Nobody takes the role from here, so nothing has to end before something else. That an effect ends
        // at all bounds how long a planned change takes.
        Some(self.permits.give(record.epoch, now.after(timeout)))
    }

    /// Returns the epoch under which this side acts, if it does.
    pub fn acts(&self) -> Option<Epoch> {
        let record = self.record.filter(|_| self.state == State::Ours)?;
        Some(record.epoch)
    }

    /// Returns the epoch of what this side has, also while it brings its effects to their end.
    pub fn holds(&self) -> Option<Epoch> {
        let has = matches!(self.state, State::Ours | State::Draining { .. });
        Some(self.record.filter(|_| has)?.epoch)
    }

    /// Returns what is durable.
    pub fn record(&self) -> Option<Record> {
        self.record
    }

    /// Returns whether this side is letting its effects come to their end.
    pub fn is_draining(&self) -> bool {
        matches!(self.state, State::Draining { .. })
    }

    /// Returns when the role can be taken back from the receiver, while it may have it.
    pub fn free_at(&self) -> Option<Moment> {
        match self.state {
            State::Theirs { free_at } => Some(free_at),
            _ => None,
        }
    }
}
