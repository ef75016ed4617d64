//! The desk where pairing codes are given out and handed in: one code at a time, for ten minutes,
//! for one use, with five tries.
//!
//! [`Desk`] is the rule, with the time as an argument. [`PairingDesk`] is the same desk shared by
//! the command that opens it, the listener that lets strangers in while it is open, and the
//! pairing conversations.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::code::{CodeError, PairingCode, SECRET_BYTES};
use crate::fingerprint::Fingerprint;

/// How long a code may be used.
pub const CODE_LIFE: Duration = Duration::from_secs(10 * 60);
/// Wrong proofs after which a code is worth nothing.
pub const CODE_TRIES: u8 = 5;

/// What became of the last code that was given out.
#[derive(Clone, Default)]
pub enum Desk {
    /// No code was given out, or it was withdrawn.
    #[default]
    Closed,
    /// A code waits for its use.
    Open {
        /// What the code holds and the other side must prove.
        secret: [u8; SECRET_BYTES],
        /// From here on the code is worth nothing.
        until: Instant,
        /// Wrong proofs that may still be given.
        tries_left: u8,
    },
    /// The code has made a pair.
    Used,
    /// The code was tried too often.
    Exhausted,
}

/// What the desk says to one proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The proof is right; the code is used up.
    Accepted,
    /// The proof is wrong. At zero the code is worth nothing any more.
    Wrong {
        /// Wrong proofs that may still be given.
        tries_left: u8,
    },
    /// The code is too old.
    Expired,
    /// The code has made a pair before.
    Used,
    /// The code was tried too often before.
    Exhausted,
    /// There is no code.
    Closed,
}

impl Desk {
    /// Gives out a code for `secret`. The code before it is worth nothing any more.
    pub fn open(&mut self, now: Instant, secret: [u8; SECRET_BYTES]) {
        *self = Self::Open {
            secret,
            until: now + CODE_LIFE,
            tries_left: CODE_TRIES,
        };
    }

    /// Withdraws the code.
    pub fn close(&mut self) {
        *self = Self::Closed;
    }

    /// Returns whether a code can be used at `now`.
    pub fn is_open(&self, now: Instant) -> bool {
        matches!(self, Self::Open { until, .. } if now < *until)
    }

    /// Judges one proof. `is_right` is asked about the secret only while the code counts.
    pub fn check(
        &mut self,
        now: Instant,
        is_right: impl FnOnce(&[u8; SECRET_BYTES]) -> bool,
    ) -> Verdict {
        match self {
            Self::Closed => Verdict::Closed,
            Self::Used => Verdict::Used,
            Self::Exhausted => Verdict::Exhausted,
            Self::Open { until, .. } if now >= *until => Verdict::Expired,
            Self::Open {
                secret, tries_left, ..
            } => {
                if is_right(secret) {
                    *self = Self::Used;
                    return Verdict::Accepted;
                }
                let left = tries_left.saturating_sub(1);
                *tries_left = left;
                if left == 0 {
                    *self = Self::Exhausted;
                }
                Verdict::Wrong { tries_left: left }
            }
        }
    }
}

/// Shows the state, never the secret.
impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => write!(f, "Closed"),
            Self::Open { tries_left, .. } => write!(f, "Open({tries_left} tries left)"),
            Self::Used => write!(f, "Used"),
            Self::Exhausted => write!(f, "Exhausted"),
        }
    }
}

/// The desk of one listener. Clones are the same desk.
#[derive(Debug, Clone)]
pub struct PairingDesk {
    fingerprint: Fingerprint,
    desk: Arc<Mutex<Desk>>,
}

impl PairingDesk {
    pub(crate) fn new(fingerprint: Fingerprint) -> Self {
        Self {
            fingerprint,
            desk: Arc::default(),
        }
    }

    /// Gives out a code. `address` is where the receiver is to call, as `host:port`; `chance` is
    /// 16 random bytes and becomes the secret.
    ///
    /// # Errors
    /// [`CodeError::Address`]; the desk stays as it was.
    pub fn open(
        &self,
        address: &str,
        now: Instant,
        chance: [u8; SECRET_BYTES],
    ) -> Result<PairingCode, CodeError> {
        let code = PairingCode::new(address, self.fingerprint, chance)?;
        self.lock().open(now, chance);
        Ok(code)
    }

    /// Withdraws the code.
    pub fn close(&self) {
        self.lock().close();
    }

    /// Returns whether a code can be used at `now`.
    pub fn is_open(&self, now: Instant) -> bool {
        self.lock().is_open(now)
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn check(
        &self,
        now: Instant,
        is_right: impl FnOnce(&[u8; SECRET_BYTES]) -> bool,
    ) -> Verdict {
        self.lock().check(now, is_right)
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
