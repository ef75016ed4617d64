//! The bucket by itself, with a time that the tests move.

use super::*;

const MIB: u64 = 1 << 20;

/// Takes pieces as early as it may for `time`, each wait ending `late`; returns the bytes.
fn taken_in(bytes_per_second: u64, time: Duration, late: Duration) -> u64 {
    let start = Instant::now();
    let limit = RateLimit::new(bytes_per_second, start);
    let mut shared = limit.lock();
    let (mut now, mut bytes) = (start, 0);
    while now < start + time {
        match shared.take(now, Priority::Bulk, limit.piece_bytes()) {
            Ok(()) => bytes += limit.piece_bytes() as u64,
            Err(later) => now = later + late,
        }
    }
    bytes
}

#[test]
fn the_limit_is_met_also_by_late_clocks() {
    let check = |bytes_per_second: u64, late_ms: u64| {
        let bytes = taken_in(
            bytes_per_second,
            Duration::from_secs(4),
            Duration::from_millis(late_ms),
        );
        let share = bytes as f64 / 4.0 / bytes_per_second as f64;
        assert!((0.95..1.05).contains(&share), "{bytes_per_second}: {share}");
    };
    check(64 << 10, 0);
    check(64 << 10, 15);
    check(2 * MIB, 1);
    check(2 * MIB, 15);
    check(100 * MIB, 1);
    check(1 << 40, 1);
}

#[test]
fn silence_earns_a_burst_and_no_more() {
    let start = Instant::now();
    let mut bucket = Bucket {
        bytes_per_second: MIB,
        earned_at: start,
    };
    let later = start + Duration::from_secs(3600);
    let mut bytes = 0;
    while bucket.take(later, 1024).is_ok() {
        bytes += 1024;
    }
    let burst = MIB as f64 * BURST.as_secs_f64();
    assert!((bytes as f64) < 1.1 * burst, "{bytes}");
}

#[test]
fn a_small_batch_goes_first() {
    let now = Instant::now();
    let limit = RateLimit::new(MIB, now);
    let waiting = SmallWaiting::new(&limit);
    let asked = limit.lock().take(now, Priority::Bulk, 1);
    assert!(asked.is_err_and(|later| later > now));
    assert_eq!(limit.lock().take(now, Priority::Small, 1), Ok(()));
    drop(waiting);
    assert_eq!(limit.lock().take(now, Priority::Bulk, 1), Ok(()));
}

#[test]
fn pieces_are_short() {
    let piece = |bytes_per_second| RateLimit::new(bytes_per_second, Instant::now()).piece_bytes();
    assert_eq!(piece(0), 1 << 10);
    assert_eq!(piece(MIB), 20_971);
    assert_eq!(piece(1 << 40), 64 << 10);
}
