//! macOS: `CLOCK_MONOTONIC_RAW`, which is the continuous clock and counts sleep, and `CLOCK_UPTIME_RAW`, which
//! does not. Neither is slewed.

#![allow(
    unsafe_code,
    reason = "rustix does not know these clocks; one call that fills a value of ours"
)]

use std::time::Duration;

pub(super) fn counting_sleep() -> Duration {
    read(libc::CLOCK_MONOTONIC_RAW)
}

pub(super) fn awake() -> Duration {
    read(libc::CLOCK_UPTIME_RAW)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the value outlives the call. Clocks that the system knows never fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
