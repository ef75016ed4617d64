//! The two state machines behind one face: what happens to either, and what either wants done.

use std::time::{Duration, Instant};

use disk::Durable;
use disk::looks::Looks;
use disk::quiet::Quiet;
use disk::watch::Hint;
use disk::{Look, Notes, RulesFile, Stored};
use pusher::state as alpha;
use receiver::state as beta;
use shared::control::{Event as Told, Request, Response};
use shared::ignore::Rules;
use shared::path::RelPath;
use shared::reconcile::Mode;
use shared::safety::Limits;
use shared::transfer::{Batch, Item, Need, Outcome};
use shared::tree::{Gen, Side, Sight};
use shared::utc::UtcMs;
use shared::wire::{AgreedRow, Frame, PairId, TrailRow};

/// The cycle of both sides.
const INTERVAL: Duration = Duration::from_secs(30);
const PAIR: PairId = PairId([7; 16]);
/// What the guard of a guarded history lets pass: a tree has a handful of files.
pub(crate) const GUARDED: Limits = Limits {
    delete_percent: 40,
    delete_min: 2,
    rewrite_percent: 60,
    rewrite_min: 3,
};
/// What it lets pass in the others: everything.
pub(crate) const UNGUARDED: Limits = Limits {
    delete_percent: 100,
    rewrite_percent: 100,
    ..GUARDED
};

/// A state machine.
pub(crate) enum Machine {
    Alpha(Box<alpha::Pusher>),
    Beta(Box<beta::Receiver>),
}

/// What happens to a side.
#[derive(Debug)]
pub(crate) enum Happens {
    Observed(Vec<(RelPath, Sight)>),
    Passed(Vec<TrailRow>),
    Applied(Gen, Vec<Outcome>),
    Looked(bool, Vec<RelPath>),
    Committed(Gen),
    Hint(Hint),
    Linked,
    Frame(Frame),
    Batch(Batch),
    Unlinked(String),
    RulesRead(Option<RulesFile>),
    Asked(u64, Request),
    Tick,
}

/// What a side wants done.
#[derive(Debug)]
pub(crate) enum Does {
    Look(Look),
    Send(Frame),
    Push(Batch, Option<u64>),
    Take(Batch, Option<u64>, Gen),
    Give(Gen, Vec<Item>),
    GiveChunks(Need),
    Commit {
        batch: Gen,
        rows: Vec<AgreedRow>,
        notes: Notes,
        first: Durable,
    },
    SetRules(Rules),
    ReadRules,
    /// For a client of this machine.
    Answer(u64, Response),
    /// For a client of the other one.
    AnswerFar(u64, Response),
    Tell(Told),
    Unlink,
}

impl Machine {
    /// Starts a side from what its disk had stored.
    pub(crate) fn start(
        side: Side,
        (mode, limits): (Mode, Limits),
        stored: Stored,
        now: Instant,
        utc: UtcMs,
    ) -> Self {
        let looks = Looks::new(Quiet::new(None), INTERVAL, now);
        match side {
            Side::Alpha => {
                let setup = alpha::Setup {
                    folds: false,
                    limits,
                    conflicts: shared::reconcile::ConflictRules::default(),
                    node: "vm".into(),
                    root: "tree".into(),
                    version: "0".into(),
                    pair: Some(PAIR),
                    peer: "mac".into(),
                    mode,
                    interval: INTERVAL,
                };
                Self::Alpha(Box::new(alpha::Pusher::new(setup, stored, looks, now, utc)))
            }
            Side::Beta => {
                let setup = beta::Setup {
                    node: "mac".into(),
                    root: "tree".into(),
                    version: "0".into(),
                    pair: PAIR,
                    peer: "vm".into(),
                    folds: false,
                    peer_address: "vm:1".into(),
                    interval: INTERVAL,
                };
                Self::Beta(Box::new(beta::Receiver::new(
                    setup, stored, looks, now, utc,
                )))
            }
        }
    }

    /// Lets it decide.
    pub(crate) fn apply(&mut self, event: Happens, now: Instant, utc: UtcMs) -> Vec<Does> {
        match self {
            Self::Alpha(pusher) => {
                let Some(event) = alpha_event(event) else {
                    return Vec::new();
                };
                let actions = pusher.apply(event, now, utc);
                actions.into_iter().filter_map(of_alpha).collect()
            }
            Self::Beta(receiver) => {
                let actions = receiver.apply(beta_event(event), now, utc);
                actions.into_iter().filter_map(of_beta).collect()
            }
        }
    }

    /// Returns when time has to be told to it at the latest.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        match self {
            Self::Alpha(pusher) => pusher.next_tick(),
            Self::Beta(receiver) => receiver.next_tick(),
        }
    }

    /// Says whether the other side is to be dialled.
    pub(crate) fn wants_link(&self) -> bool {
        match self {
            Self::Alpha(_) => false,
            Self::Beta(receiver) => receiver.wants_link(),
        }
    }

    /// Returns the batch up to which all rows are stored on both sides, as the receiver knows it.
    pub(crate) fn resolved(&self) -> Gen {
        match self {
            Self::Alpha(_) => Gen(0),
            Self::Beta(receiver) => receiver.resolved(),
        }
    }
}

fn alpha_event(event: Happens) -> Option<alpha::Event> {
    use alpha::Event;
    Some(match event {
        Happens::Observed(rows) => Event::Observed(rows),
        Happens::Passed(rows) => Event::Passed(rows),
        Happens::Applied(batch, outcomes) => Event::Applied(batch, outcomes),
        Happens::Looked(sweep, again) => Event::Looked {
            sweep,
            result: Ok(again),
        },
        Happens::Committed(batch) => Event::Committed(batch),
        Happens::Hint(hint) => Event::Hint(hint),
        Happens::Linked => Event::Linked,
        Happens::Frame(frame) => Event::Frame(frame),
        // Only the receiver is sent batches.
        Happens::Batch(_) => return None,
        Happens::Unlinked(reason) => Event::Unlinked(reason),
        Happens::RulesRead(file) => Event::RulesRead(file),
        Happens::Asked(id, request) => Event::Asked(alpha::Client::Local(id), request),
        Happens::Tick => Event::Tick,
    })
}

fn of_alpha(action: alpha::Action) -> Option<Does> {
    use alpha::{Action, Client};
    Some(match action {
        // Nothing rots here.
        Action::Look(Look::Reread { .. } | Look::Racy(_)) => return None,
        Action::Look(look) => Does::Look(look),
        Action::Send(frame) => Does::Send(frame),
        Action::Push(batch, place) => Does::Push(batch, place),
        Action::Take(batch, place, resolved) => Does::Take(batch, place, resolved),
        Action::GiveChunks(need) => Does::GiveChunks(need),
        Action::Commit {
            batch,
            rows,
            notes,
            first,
        } => Does::Commit {
            batch,
            rows,
            notes,
            first,
        },
        Action::SetRules(rules) => Does::SetRules(rules),
        Action::ReadRules => Does::ReadRules,
        Action::Answer(Client::Local(id), response) => Does::Answer(id, response),
        Action::Answer(Client::Remote(id), response) => Does::AnswerFar(id, response),
        // Nobody in a simulated history asks for a version, or has a folder that is not what it was.
        Action::Serve(..) | Action::KeepBase(..) | Action::AcceptRoot => return None,
        Action::Tell(told) => Does::Tell(told),
        Action::Unlink(_) => Does::Unlink,
    })
}

fn beta_event(event: Happens) -> beta::Event {
    use beta::Event;
    match event {
        Happens::Observed(rows) => Event::Observed(rows),
        Happens::Passed(rows) => Event::Passed(rows),
        Happens::Applied(batch, outcomes) => Event::Applied(batch, outcomes),
        Happens::Looked(sweep, again) => Event::Looked {
            sweep,
            result: Ok(again),
        },
        Happens::Committed(batch) => Event::Committed(batch),
        Happens::Hint(hint) => Event::Hint(hint),
        Happens::Linked => Event::Linked,
        Happens::Frame(frame) => Event::Frame(frame),
        Happens::Batch(batch) => Event::Batch(batch),
        Happens::Unlinked(reason) => Event::Unlinked(reason),
        Happens::RulesRead(file) => Event::RulesRead(file),
        Happens::Asked(id, request) => Event::Asked(beta::Client::Local(id), request),
        Happens::Tick => Event::Tick,
    }
}

fn of_beta(action: beta::Action) -> Option<Does> {
    use beta::{Action, Client};
    Some(match action {
        Action::Look(Look::Reread { .. } | Look::Racy(_)) => return None,
        Action::Look(look) => Does::Look(look),
        Action::Send(frame) => Does::Send(frame),
        Action::Give(batch, items) => Does::Give(batch, items),
        Action::GiveChunks(need) => Does::GiveChunks(need),
        Action::Commit { batch, rows, notes } => Does::Commit {
            batch,
            rows,
            notes,
            first: Durable::Rows,
        },
        Action::SetRules(rules) => Does::SetRules(rules),
        Action::ReadRules => Does::ReadRules,
        Action::Answer(Client::Local(id), response) => Does::Answer(id, response),
        Action::Answer(Client::Remote(id), response) => Does::AnswerFar(id, response),
        Action::Serve(..) | Action::AcceptRoot => return None,
        Action::Tell(told) => Does::Tell(told),
        Action::Unlink(_) => Does::Unlink,
    })
}
