//! The clocks: of the lease, one that counts sleep and one that does not; and the time of day.
//!
//! The first two are never set. `Instant` stands still while the machine sleeps, on Linux and on macOS.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shared::lease::{Moment, SLEPT};
use shared::utc::UtcMs;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "linux")]
use linux::{awake, counting_sleep};
#[cfg(target_os = "macos")]
use macos::{awake, counting_sleep};

/// Returns now, on the clock that counts sleep.
pub(crate) fn now() -> Moment {
    Moment(counting_sleep())
}

/// Returns the time of day, for people.
pub(crate) fn utc_now() -> UtcMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UtcMs(since.as_millis() as u64)
}

/// Notices that the machine has slept.
#[derive(Debug)]
pub(crate) struct Wakes {
    /// How far the clock that counts sleep is ahead of the other.
    ahead: Duration,
}

impl Wakes {
    pub(crate) fn start() -> Self {
        Self::from(read())
    }

    fn from((counting, awake): (Duration, Duration)) -> Self {
        Self {
            ahead: counting.saturating_sub(awake),
        }
    }

    /// Returns whether the machine has slept since the last call.
    pub(crate) fn slept(&mut self) -> bool {
        self.slept_until(read())
    }

    fn slept_until(&mut self, clocks: (Duration, Duration)) -> bool {
        let before = std::mem::replace(self, Self::from(clocks)).ahead;
        self.ahead.saturating_sub(before) > SLEPT
    }
}

/// Reads both clocks, the one that counts sleep last: a pause between the two makes no sleep unnoticed.
fn read() -> (Duration, Duration) {
    let awake = awake();
    (counting_sleep(), awake)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(counting: u64, awake: u64) -> (Duration, Duration) {
        (Duration::from_secs(counting), Duration::from_secs(awake))
    }

    #[test]
    fn sleep_is_what_one_clock_counts_and_the_other_does_not() {
        let mut wakes = Wakes::from(seconds(1000, 400));
        assert!(!wakes.slept_until(seconds(1060, 460)));
        assert!(!wakes.slept_until(seconds(1072, 470)));
        assert!(wakes.slept_until(seconds(1082, 477)));
        assert!(!wakes.slept_until(seconds(1083, 478)));
    }

    #[test]
    fn both_clocks_run() {
        let (first, awake_first) = read();
        let (second, awake_second) = read();
        assert!(second >= first && awake_second >= awake_first);
        assert!(first >= awake_first, "what counts sleep is never behind");
    }
}
