//! The receiver's part: it has the role for as long as the authority grants it, and not a moment longer.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{
    Answer, Epoch, FORCED_EPOCHS, HELD, MARGIN, Moment, Permit, Permits, RENEW, Record, Renewal,
    Stance,
};
use crate::control::NodeSide;

/// What the holder wants done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Report {
    /// Make this durable; then call [`Holder::stored`].
    Store(Record),
    /// Send this to the authority.
    Send(Renewal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Hold {
    /// Nothing.
    None,
    /// The lease of this epoch. Effects start only once the epoch is durable here.
    Until { epoch: Epoch, until: Moment },
    /// The role without a lease, because a person said so while the authority was out of reach.
    Forced { epoch: Epoch },
}

/// What this side would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Want {
    Nothing,
    /// To go on with what it had.
    Resume,
    /// The role, because somebody said so.
    Ask,
}

/// The state machine of the side that is granted the role.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    hold: Hold,
    want: Want,
    /// Whether it starts nothing more, and lets go of the role when the permits that are out are over.
    leaving: bool,
    /// What is durable.
    record: Option<Record>,
    /// What will be.
    storing: Option<Record>,
    permits: Permits,
    able: bool,
    fit: bool,
    linked: bool,
    /// The number of the last renewal.
    number: u64,
    /// When the renewals were sent that an answer would still count for.
    pub(super) sent: BTreeMap<u64, Moment>,
    /// What was said last on this connection, and when.
    said: Option<(Stance, Moment)>,
    renewed: Option<Moment>,
    reports: VecDeque<Report>,
}

impl Holder {
    /// Starts with the record that is durable here. Whatever was granted to an earlier run is not known
    /// any more; a forced promotion is.
    pub fn start(record: Option<Record>) -> Self {
        let held = record.filter(|record| record.holder == NodeSide::Receiver);
        Self {
            hold: match held {
                Some(record) if record.forced => Hold::Forced {
                    epoch: record.epoch,
                },
                _ => Hold::None,
            },
            want: held.map_or(Want::Nothing, |_| Want::Resume),
            leaving: false,
            record,
            storing: None,
            permits: Permits::default(),
            able: true,
            fit: false,
            linked: false,
            number: 0,
            sent: BTreeMap::new(),
            said: None,
            renewed: None,
            reports: VecDeque::new(),
        }
    }

    // What happens

    /// There is a connection to the authority.
    pub fn linked(&mut self, now: Moment) {
        self.linked = true;
        self.sent.clear();
        self.said = None;
        self.tick(now);
    }

    /// There is none any more. What is held is held on until it ends.
    pub fn unlinked(&mut self) {
        self.linked = false;
        self.sent.clear();
        self.said = None;
        if self.want == Want::Ask {
            self.want = Want::Nothing;
        }
    }

    /// The authority has answered.
    pub fn answered(&mut self, answer: Answer, now: Moment) {
        match answer {
            Answer::Granted { renewal, epoch } => {
                if let Some(sent) = self.sent.get(&renewal).copied() {
                    self.sent.retain(|number, _| *number > renewal);
                    self.granted(epoch, sent.after(HELD), now);
                }
            }
            Answer::Stands(record) => self.stands(record),
            Answer::Change(NodeSide::Pusher) => self.leaving = self.epoch().is_some(),
            Answer::Change(NodeSide::Receiver) if self.able => self.want = Want::Ask,
            Answer::Change(NodeSide::Receiver) => {}
        }
        self.tick(now);
    }

    fn granted(&mut self, epoch: Epoch, until: Moment, now: Moment) {
        self.renewed = Some(now);
        if self.epoch() != Some(epoch) {
            self.leaving = false;
        }
        self.want = Want::Nothing;
        self.hold = Hold::Until { epoch, until };
        self.store(Record {
            epoch,
            holder: NodeSide::Receiver,
            forced: false,
        });
    }

    /// This side does not have the role, unless a person forced it here after that was written.
    fn stands(&mut self, record: Record) {
        if self.epoch().is_some_and(|epoch| record.epoch < epoch) {
            return;
        }
        let elsewhere = record.holder == NodeSide::Pusher;
        // What was begun is waited for before it is said that nothing is held.
        self.leaving |= self.epoch().is_some();
        if elsewhere && self.want == Want::Resume {
            self.want = Want::Nothing;
        }
        self.store(record);
    }

    /// The machine has slept. Nothing that was granted or asked for before counts any more; only a forced
    /// role goes on.
    pub fn slept(&mut self, now: Moment) {
        self.leaving |= matches!(self.hold, Hold::Until { .. });
        self.want = Want::Nothing;
        self.sent.clear();
        self.tick(now);
    }

    /// Whether this side can have the role, and whether it could be preferred, has changed. If it cannot, it
    /// lets go.
    pub fn set_fitness(&mut self, able: bool, fit: bool, now: Moment) {
        (self.able, self.fit) = (able, able && fit);
        if !able {
            self.want = Want::Nothing;
            self.leaving = self.epoch().is_some();
        }
        self.tick(now);
    }

    /// A person wants this side to let go of the role, or to ask for it.
    ///
    /// # Errors
    /// One sentence why that is not possible now.
    pub fn promote(&mut self, to: NodeSide, now: Moment) -> Result<(), &'static str> {
        let holds = self.epoch().is_some();
        match to {
            NodeSide::Receiver if holds && !self.leaving => {}
            NodeSide::Pusher if self.is_elsewhere() => self.want = Want::Nothing,
            NodeSide::Receiver if !self.able => {
                return Err("the receiver cannot take the role now");
            }
            _ if !self.linked => return Err("the pusher cannot be reached"),
            NodeSide::Receiver => self.want = Want::Ask,
            NodeSide::Pusher => {
                self.want = Want::Nothing;
                self.leaving = holds;
            }
        }
        self.tick(now);
        Ok(())
    }

    /// A person takes the role without the authority, and answers for it that the pusher does not act.
    ///
    /// # Errors
    /// One sentence why that is not possible now.
    pub fn force(&mut self) -> Result<(), &'static str> {
        if self.linked {
            return Err("the pusher can be reached, so it decides");
        }
        if !self.able {
            return Err("the receiver cannot take the role now");
        }
        let seen = self.seen();
        let epoch = Epoch(seen.0.saturating_add(FORCED_EPOCHS));
        self.hold = Hold::Forced { epoch };
        self.want = Want::Nothing;
        self.leaving = false;
        self.store(Record {
            epoch,
            holder: NodeSide::Receiver,
            forced: true,
        });
        Ok(())
    }

    /// This is durable.
    pub fn stored(&mut self, record: Record, now: Moment) {
        self.record = Some(record);
        if self.storing == Some(record) {
            self.storing = None;
        }
        self.tick(now);
    }

    /// An effect is over.
    pub fn take_back(&mut self, permit: Permit, now: Moment) {
        self.permits.take_back(permit);
        self.tick(now);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Moment) {
        if let Hold::Until { until, .. } = self.hold
            && now >= until
        {
            self.drop_lease();
            if self.able {
                self.want = Want::Resume;
            }
        }
        if self.leaving && self.epoch().is_some() && self.permits.over(now) {
            self.drop_lease();
        }
        self.say(now);
    }

    /// Ends what is held. Every effect was to be over before that by itself, or has been waited for.
    fn drop_lease(&mut self) {
        self.hold = Hold::None;
        self.leaving = false;
        self.sent.clear();
    }

    fn say(&mut self, now: Moment) {
        if !self.linked {
            return;
        }
        let stance = self.stance();
        let again = matches!(stance, Stance::Holds(_) | Stance::Resumes | Stance::Asks);
        let due = match self.said {
            Some((said, at)) => said != stance || (again && now >= at.after(RENEW)),
            None => true,
        };
        if !due {
            return;
        }
        self.number += 1;
        self.said = Some((stance, now));
        if again {
            self.sent.retain(|_, sent| sent.after(HELD) > now);
            self.sent.insert(self.number, now);
        } else {
            // From here on the authority takes it that nothing is held, so a grant on its way is void.
            self.sent.clear();
        }
        self.reports.push_back(Report::Send(Renewal {
            number: self.number,
            seen: self.seen(),
            stance,
        }));
    }

    fn stance(&self) -> Stance {
        match (self.hold, self.want) {
            (Hold::Until { epoch, .. } | Hold::Forced { epoch }, _) => Stance::Holds(epoch),
            _ if !self.able => Stance::Unable,
            (Hold::None, Want::Resume) => Stance::Resumes,
            (Hold::None, Want::Ask) => Stance::Asks,
            (Hold::None, Want::Nothing) if self.fit => Stance::Fit,
            (Hold::None, Want::Nothing) => Stance::Able,
        }
    }

    fn store(&mut self, record: Record) {
        if self.storing.or(self.record) != Some(record) {
            self.storing = Some(record);
            self.reports.push_back(Report::Store(record));
        }
    }

    fn is_elsewhere(&self) -> bool {
        let record = self.storing.or(self.record);
        record.is_some_and(|record| record.holder == NodeSide::Pusher)
    }

    fn seen(&self) -> Epoch {
        let records = [self.storing, self.record];
        let epochs = records.into_iter().flatten().map(|record| record.epoch);
        epochs.max().unwrap_or_default()
    }

    // What follows

    /// Returns what is to be done next, until there is nothing.
    pub fn poll(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// Returns when [`Holder::tick`] wants to be called.
    pub fn next_tick(&self) -> Option<Moment> {
        let lapse = match self.hold {
            Hold::Until { until, .. } => Some(until),
            _ => None,
        };
        let renew = match self.said {
            Some((Stance::Holds(_) | Stance::Resumes | Stance::Asks, at)) => Some(at.after(RENEW)),
            _ => None,
        };
        let drained = self.permits.over_at().filter(|_| self.leaving);
        lapse.into_iter().chain(renew).chain(drained).min()
    }

    /// Returns leave for one effect that is over after `timeout`, or `None` when the lease does not last for
    /// it and [`MARGIN`] more.
    pub fn permit(&mut self, timeout: Duration, now: Moment) -> Option<Permit> {
        let epoch = self.acts(now)?;
        if let Hold::Until { until, .. } = self.hold
            && until.left(now) < timeout + MARGIN
        {
            return None;
        }
        Some(self.permits.give(epoch, now.after(timeout)))
    }

    /// Returns the epoch under which this side acts at `now`, if it does.
    pub fn acts(&self, now: Moment) -> Option<Epoch> {
        let epoch = self.epoch().filter(|_| !self.leaving)?;
        let durable = self.record.is_some_and(|record| record.epoch == epoch);
        let valid = self.until().is_none_or(|until| now < until);
        (durable && valid).then_some(epoch)
    }

    /// Returns the epoch of what this side has at `now`, also while it brings its effects to their end.
    pub fn holds(&self, now: Moment) -> Option<Epoch> {
        let epoch = self.epoch()?;
        self.until()
            .is_none_or(|until| now < until)
            .then_some(epoch)
    }

    /// Returns the epoch of what is held.
    fn epoch(&self) -> Option<Epoch> {
        match self.hold {
            Hold::Until { epoch, .. } | Hold::Forced { epoch } => Some(epoch),
            Hold::None => None,
        }
    }

    /// Returns when the lease ends, if one is held that ends.
    pub fn until(&self) -> Option<Moment> {
        match self.hold {
            Hold::Until { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Returns when the last grant arrived.
    pub fn renewed(&self) -> Option<Moment> {
        self.renewed
    }

    /// Returns what is durable.
    pub fn record(&self) -> Option<Record> {
        self.record
    }

    /// Returns whether this side would have the role as soon as it is granted.
    pub fn wants(&self) -> bool {
        self.want != Want::Nothing
    }

    /// Returns whether this side is letting its effects come to their end.
    pub fn is_draining(&self) -> bool {
        self.leaving
    }
}
