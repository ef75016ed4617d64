//! The lease: which of the two machines is *primary*, so that at most one acts at any instant.
//!
//! The pusher is the only [`Authority`]; the receiver can be a [`Holder`], and never promotes itself.
//!
//! * The authority grants the role for [`HELD`], counted by the holder from *sending* what was granted.
//!   It takes the role back [`TAKE_OVER`] after *receiving* that, so no two clocks are ever compared: what
//!   was sent was sent before it was received, and the ratio of the two spans allows one clock to run
//!   nearly twice as fast as the other. Both are read on a clock that counts sleep ([`Moment`]).
//! * Who changes the role makes its [`Record`] durable first, and answers and acts afterwards. The epoch in
//!   it grows with every holder and with every start of one, so whatever carries an older one is
//!   recognised.
//! * Nothing outside happens without a [`Permit`]. Only the two state machines here make one, each for
//!   one effect with a time-out, and only if the effect is over, with a [`MARGIN`], before the lease is. A
//!   planned change of the role waits for the permits that are out.
//! * The authority that starts and was not the holder waits [`BOOT_HOLD`]: it does not know what it granted
//!   last.
//!
//! Not held by this rule: what has left the process and waits in the system's buffers while the machine
//! sleeps, and a promotion that a person forces ([`Holder::force`]) while the authority lives out of reach.
//!
//! The shape is that of the leases of Gray and Cheriton (SOSP 1989) with one grantor; the spans are those
//! that DESIGN gives.
//!
//! Messages travel in the order in which they were sent, those of an older connection before those of a
//! newer one, and may be lost only with their connection.

mod authority;
mod holder;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::NodeSide;

pub use authority::{Authority, Order, Prefer};
pub use holder::{Holder, Report};

/// How often a holder renews.
pub const RENEW: Duration = Duration::from_secs(5);
/// How long a grant is valid, from the moment when the holder sent the renewal that it answers.
pub const HELD: Duration = Duration::from_secs(15);
/// How long after receiving the last renewal the authority takes the role back.
pub const TAKE_OVER: Duration = Duration::from_secs(30);
/// How long an authority waits after its start, if it was not the holder.
pub const BOOT_HOLD: Duration = TAKE_OVER;
/// How long an authority that was the holder waits after its start for what its partner knows. Nobody else
/// can hold the role, unless a person forced it; then the partner, which dials at least every 5 s, says so.
pub const GREETING_WAIT: Duration = Duration::from_secs(6);
/// What is left of the lease when the time-out of an effect ends: time to abandon it.
pub const MARGIN: Duration = Duration::from_secs(1);
/// How much further the clock that counts sleep may get than the one that does not, until a machine has
/// slept.
pub const SLEPT: Duration = Duration::from_secs(2);
/// How long both sides must have been fit before the role goes to the preferred one by itself.
pub const PREFER_AFTER: Duration = Duration::from_secs(60);
/// How far a forced epoch is ahead of the last one that was known, so that none in between is taken twice.
pub const FORCED_EPOCHS: u64 = 1000;

/// A moment on one machine's clock that counts sleep and that nobody sets. Moments of two machines, or of
/// two starts of one, have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub Duration);

impl Moment {
    /// Returns the moment that is `span` later.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// Returns how long it is from `now` until this moment; zero when it has passed.
    pub fn left(self, now: Self) -> Duration {
        self.0.saturating_sub(now.0)
    }
}

/// The number of a lease. It only grows.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl Epoch {
    fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who has the role. Durable on the side that changes it before anybody is told or acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// The number of the lease.
    pub epoch: Epoch,
    /// Who has it.
    pub holder: NodeSide,
    /// Whether the receiver took it without the authority, because a person said so.
    pub forced: bool,
}

/// What the receiver says of itself, every [`RENEW`] while it has the role or wants it, and at once when
/// it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Renewal {
    /// Counts up; an answer names it.
    pub number: u64,
    /// The highest epoch that the receiver has heard of.
    pub seen: Epoch,
    /// How it stands to the role.
    pub stance: Stance,
}

/// How the receiver stands to the role. With all but the first it has none, and no permit is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stance {
    /// It has the lease of this epoch and wants to keep it.
    Holds(Epoch),
    /// It had the lease and would go on, if nobody else has it.
    Resumes,
    /// A person wants it to have the role, or the authority asked it to take it.
    Asks,
    /// It can take the role, and could be preferred: it has been awake for a while.
    Fit,
    /// It can take the role if somebody says so.
    Able,
    /// It cannot: it has just woken, is in safe mode, or stops.
    Unable,
}

/// What the authority says to the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// The receiver has the lease of this epoch, for [`HELD`] from when it sent this renewal.
    Granted {
        /// [`Renewal::number`].
        renewal: u64,
        /// The number of the lease.
        epoch: Epoch,
    },
    /// The receiver does not have it; this is how it stands.
    Stands(Record),
    /// This side should have the role: the receiver lets go of it, or asks for it.
    Change(NodeSide),
}

/// Leave for one effect outside: a request with a time-out to somebody who does not know of leases.
///
/// It comes from [`Authority::permit`] or [`Holder::permit`] alone, cannot be copied, and goes back when
/// the effect is over. An effect that is not over at [`Permit::until`] has to be abandoned.
#[derive(Debug, PartialEq, Eq, Hash)]
#[must_use = "a permit that is dropped holds up a change of the role until it ends by itself"]
pub struct Permit {
    serial: u64,
    epoch: Epoch,
    until: Moment,
}

impl Permit {
    /// Returns the number of the lease under which it was given. What the effect leaves behind carries it.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns when the effect has to be over.
    pub fn until(&self) -> Moment {
        self.until
    }
}

/// The permits that are out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Permits {
    given: u64,
    out: std::collections::BTreeMap<u64, Moment>,
}

impl Permits {
    fn give(&mut self, epoch: Epoch, until: Moment) -> Permit {
        self.given += 1;
        self.out.insert(self.given, until);
        Permit {
            serial: self.given,
            epoch,
            until,
        }
    }

    // It is taken by value: who has given it back does not have it any more.
    #[expect(clippy::needless_pass_by_value)]
    fn take_back(&mut self, permit: Permit) {
        self.out.remove(&permit.serial);
    }

    /// Returns when the last one is over by itself, or `None` if none is out.
    fn over_at(&self) -> Option<Moment> {
        self.out.values().max().map(|until| until.after(MARGIN))
    }

    /// Forgets those that are over, and returns whether none is left.
    fn over(&mut self, now: Moment) -> bool {
        self.out.retain(|_, until| until.after(MARGIN) > now);
        self.out.is_empty()
    }
}
