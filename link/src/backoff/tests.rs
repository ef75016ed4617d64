use super::{BACKOFF_FIRST, BACKOFF_MAX, Backoff};
use std::time::Duration;

const MIDDLE: u32 = u32::MAX / 2 + 1;

#[test]
fn doubles_up_to_the_longest_wait_and_starts_over() {
    let mut backoff = Backoff::new();
    let waits: Vec<u128> = (0..8).map(|_| backoff.next(MIDDLE).as_millis()).collect();
    assert_eq!(waits, [200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    backoff.reset();
    assert_eq!(backoff.next(MIDDLE).as_millis(), 200);
}

#[test]
fn jitter_is_a_fifth_to_both_sides() {
    assert_eq!(Backoff::new().next(0), Duration::from_millis(160));
    assert_eq!(Backoff::new().next(u32::MAX), Duration::from_millis(240));
}

proptest::proptest! {
    #[test]
    fn stays_within_its_bounds(chances: Vec<u32>) {
        let mut backoff = Backoff::new();
        for chance in chances {
            let wait = backoff.next(chance);
            proptest::prop_assert!(wait >= BACKOFF_FIRST * 8 / 10 && wait <= BACKOFF_MAX * 12 / 10);
        }
    }
}
