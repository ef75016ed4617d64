//! What only the link in memory can do: paused time, loss by count, and a cut.

use std::time::Duration;

use tokio::time::Instant;

use super::in_time;
use crate::memory::{MemoryLink, pair};
use crate::{Connection, Fingerprint, LinkError, Priority};

const DELAY: Duration = Duration::from_millis(40);
/// Tokio's clock ticks in milliseconds.
const TICK: Duration = Duration::from_millis(1);

fn delayed() -> MemoryLink {
    MemoryLink {
        delay: DELAY,
        ..MemoryLink::default()
    }
}

fn assert_took(begin: Instant, expected: Duration) {
    let took = begin.elapsed();
    assert!(
        took >= expected && took <= expected + TICK,
        "{took:?}, expected {expected:?}"
    );
}

/// Sends `count` messages on one stream and returns when each arrived.
async fn arrivals(dialer: &Connection, listener: &Connection, count: u32) -> Vec<Duration> {
    let begin = Instant::now();
    let mut sender = dialer.open_stream(Priority::Small).await.expect("a stream");
    for _ in 0..count {
        sender.send(b"message").await.expect("sent");
    }
    let mut receiver = listener.accept_stream().await.expect("a stream");
    let mut arrivals = Vec::new();
    for _ in 0..count {
        receiver.recv().await.expect("received");
        arrivals.push(begin.elapsed());
    }
    arrivals
}

#[tokio::test(start_paused = true)]
async fn each_end_sees_the_key_of_the_other() {
    let (key_of_dialer, key_of_listener) = (Fingerprint([7; 32]), Fingerprint([8; 32]));
    let link = MemoryLink {
        dialer: key_of_dialer,
        listener: key_of_listener,
        ..delayed()
    };
    let (dialer, listener, _cut) = pair(link);
    assert_eq!(
        (dialer.peer(), listener.peer()),
        (key_of_listener, key_of_dialer)
    );
    assert_eq!((dialer.rtt(), dialer.remote_addr()), (2 * DELAY, None));
}

#[tokio::test(start_paused = true)]
async fn a_message_takes_the_delay_and_no_more() {
    let (dialer, listener, _cut) = pair(delayed());
    let arrivals = in_time(arrivals(&dialer, &listener, 3)).await;
    assert!(
        arrivals
            .iter()
            .all(|took| *took >= DELAY && *took <= DELAY + TICK),
        "{arrivals:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_loss_delays_the_rest_of_its_stream_only() {
    let (dialer, listener, _cut) = pair(MemoryLink {
        loss_every: Some(3),
        ..delayed()
    });
    let times = in_time(arrivals(&dialer, &listener, 4)).await;
    let repeated = 3 * DELAY;
    assert!(times[1] <= DELAY + TICK, "{times:?}");
    assert!(times[2] >= repeated && times[2] < 4 * DELAY, "{times:?}");
    assert_eq!(times[3], times[2], "what follows waits");

    // The sixth packet is the next that is lost: this stream has the fifth, and is on time.
    let times = in_time(arrivals(&dialer, &listener, 1)).await;
    assert!(times[0] <= DELAY + TICK, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_close_takes_the_delay() {
    let (dialer, listener, _cut) = pair(delayed());
    let begin = Instant::now();
    dialer.close("enough");
    assert_eq!(dialer.closed().await, "closed by this machine");
    assert_took(begin, Duration::ZERO);
    assert_eq!(in_time(listener.closed()).await, "enough");
    assert_took(begin, DELAY);
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_seen_at_once_and_loses_what_is_in_flight() {
    let (dialer, listener, cut) = pair(delayed());
    let mut sender = dialer.open_stream(Priority::Small).await.expect("a stream");
    sender.send(b"arrives").await.expect("sent");
    let mut receiver = in_time(listener.accept_stream()).await.expect("a stream");
    receiver.recv().await.expect("received");

    sender.send(b"in flight").await.expect("sent");
    let begin = Instant::now();
    cut.cut();
    assert_eq!(in_time(dialer.closed()).await, "the link was cut");
    assert_eq!(in_time(listener.closed()).await, "the link was cut");
    assert_took(begin, Duration::ZERO);
    tokio::time::sleep(2 * DELAY).await;
    let error = in_time(receiver.recv()).await.expect_err("lost");
    assert!(matches!(error, LinkError::Closed { .. }), "{error}");
    let error = sender.send(b"late").await.expect_err("cut");
    assert!(matches!(error, LinkError::Closed { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_arrived_before_a_close_can_be_read_after_it() {
    let (dialer, listener, _cut) = pair(delayed());
    let mut sender = dialer.open_stream(Priority::Small).await.expect("a stream");
    sender.send(b"before").await.expect("sent");
    dialer.close("enough");
    in_time(listener.closed()).await;
    let mut receiver = in_time(listener.accept_stream()).await.expect("a stream");
    assert_eq!(
        receiver.recv().await.expect("received").as_deref(),
        Some(&b"before"[..])
    );
    receiver.recv().await.expect_err("closed");
}
