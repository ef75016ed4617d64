//! How long to wait before the next try. Pure: chance comes in, a duration comes out.

use std::time::Duration;

/// The wait after the first failure, before jitter.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// The longest wait, before jitter. Short enough that a partner that is back is found at once.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A wait is shortened or lengthened by up to this part of it, so that many do not call at once.
const JITTER_PERCENT: u64 = 20;

/// Waits that double from [`BACKOFF_FIRST`] to [`BACKOFF_MAX`], each with jitter.
#[derive(Debug, Clone)]
pub struct Backoff {
    wait: Duration,
}

impl Backoff {
    /// Starts at the shortest wait.
    pub fn new() -> Self {
        Self {
            wait: BACKOFF_FIRST,
        }
    }

    /// Returns how long to wait now. `chance` is a random number; each value of it is as good.
    pub fn next(&mut self, chance: u32) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(BACKOFF_MAX);
        jittered(wait, chance)
    }

    /// Starts over. Call when a connection stands, or when the network changed.
    pub fn reset(&mut self) {
        *self = Self::new();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

/// Maps `chance` linearly to a factor between 80 % and 120 %.
fn jittered(wait: Duration, chance: u32) -> Duration {
    let micros = wait.as_micros() as u64;
    let span = micros * 2 * JITTER_PERCENT / 100;
    let shortest = micros - span / 2;
    Duration::from_micros(shortest + span * u64::from(chance) / u64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
