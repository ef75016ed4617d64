//! One suite over both carriers: what holds for a message on one must hold on the other.

use std::time::{Duration, Instant};

use super::{Machines, in_time};
use crate::memory::{MemoryLink, pair};
use crate::{Connection, LinkError, MESSAGE_BYTES_MAX, Priority, Receiver, Sender};

/// Two ends, and what must live as long as they do.
struct Ends {
    dialer: Connection,
    listener: Connection,
    _machines: Option<Machines>,
}

async fn over_quic() -> Ends {
    let machines = Machines::paired();
    let (dialer, listener) = machines.connect().await;
    Ends {
        dialer,
        listener,
        _machines: Some(machines),
    }
}

fn in_memory(link: MemoryLink) -> Ends {
    let (dialer, listener, _) = pair(link);
    Ends {
        dialer,
        listener,
        _machines: None,
    }
}

/// Runs one test over QUIC, in memory at once, and in memory with delay and loss.
macro_rules! over_both {
    ($($test:ident)*) => {
        mod quic { $(
            #[tokio::test]
            async fn $test() { super::in_time(super::$test(super::over_quic().await)).await }
        )* }
        mod memory { $(
            #[tokio::test]
            async fn $test() {
                super::in_time(super::$test(super::in_memory(super::MemoryLink::default()))).await
            }
        )* }
        mod slow_memory { $(
            #[tokio::test(start_paused = true)]
            async fn $test() {
                let delay = std::time::Duration::from_millis(20);
                let link = super::MemoryLink { delay, loss_every: Some(3), ..Default::default() };
                super::in_time(super::$test(super::in_memory(link))).await
            }
        )* }
    };
}

over_both! {
    control_goes_both_ways
    lists_are_packed
    what_is_not_packed_as_it_says_is_refused
    streams_go_both_ways
    a_message_may_wait_for_the_next_one
    the_longest_message_passes
    an_oversized_announcement_is_refused
    the_receiver_can_lower_the_limit
    a_message_cut_short_is_an_error
    a_dropped_sender_is_no_clean_end
    a_dropped_receiver_stops_the_sender
    a_cancelled_receive_loses_nothing
    a_cancelled_send_tears_the_stream
    a_close_tells_the_reason
    dropping_everything_closes
    too_many_streams_wait
    both_export_the_same_secret
    traffic_is_counted
    a_slow_reader_gets_everything
}

fn message(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

/// A stream with `first` on it, and what arrived of that.
async fn stream(from: &Connection, to: &Connection, first: &[u8]) -> (Sender, Receiver) {
    let mut sender = from.open_stream(Priority::Small).await.expect("a stream");
    sender.send(first).await.expect("sent");
    let mut receiver = to.accept_stream().await.expect("a stream");
    assert_eq!(
        receiver.recv().await.expect("received").as_deref(),
        Some(first)
    );
    (sender, receiver)
}

async fn control_goes_both_ways(ends: Ends) {
    let (mut to_listener, mut from_listener) = ends.dialer.open_control().await.expect("control");
    to_listener.send(b"hello").await.expect("sent");
    let (mut to_dialer, mut from_dialer) = ends.listener.accept_control().await.expect("control");
    assert_eq!(
        from_dialer.recv().await.expect("received").as_deref(),
        Some(&b"hello"[..])
    );
    for bytes in [0, 1, 3, 4, 5, 16 << 10, (16 << 10) + 1, 1 << 20] {
        let message = message(bytes);
        let (sent, received) = tokio::join!(to_dialer.send(&message), from_listener.recv());
        sent.expect("sent");
        assert_eq!(received.expect("received").as_ref(), Some(&message));
        let (sent, received) = tokio::join!(to_listener.send(&message), from_dialer.recv());
        sent.expect("sent");
        assert_eq!(received.expect("received").as_ref(), Some(&message));
    }
    to_listener.finish().expect("finished");
    to_dialer.finish().expect("finished");
    assert_eq!(from_dialer.recv().await.expect("the end"), None);
    assert_eq!(from_listener.recv().await.expect("the end"), None);
    assert_eq!(from_listener.recv().await.expect("still the end"), None);
}

async fn streams_go_both_ways(ends: Ends) {
    for (from, to) in [
        (&ends.dialer, &ends.listener),
        (&ends.listener, &ends.dialer),
    ] {
        for priority in [Priority::Control, Priority::Small, Priority::Bulk] {
            let mut sender = from.open_stream(priority).await.expect("a stream");
            for number in 0..100_u32 {
                sender.send(&number.to_le_bytes()).await.expect("sent");
            }
            sender.finish().expect("finished");
            let mut receiver = to.accept_stream().await.expect("a stream");
            for number in 0..100_u32 {
                let message = receiver.recv().await.expect("received");
                assert_eq!(message.as_deref(), Some(&number.to_le_bytes()[..]));
            }
            assert_eq!(receiver.recv().await.expect("the end"), None);
        }
    }
}

async fn a_message_may_wait_for_the_next_one(ends: Ends) {
    let (mut sender, mut receiver) = stream(&ends.dialer, &ends.listener, b"first").await;
    for message in [message(3), message(0), message(100_000), message(5)] {
        sender.send_with_next(&message).await.expect("taken");
    }
    sender.send(&message(7)).await.expect("sent");
    sender.send_with_next(&message(9)).await.expect("taken");
    sender.flush().await.expect("sent");
    sender.flush().await.expect("nothing waits");
    for bytes in [3, 0, 100_000, 5, 7, 9] {
        let received = receiver.recv().await.expect("received");
        assert_eq!(received, Some(message(bytes)), "{bytes}");
    }
    sender.send_with_next(&message(1)).await.expect("taken");
    assert!(
        matches!(sender.finish(), Err(LinkError::Torn)),
        "what waits is not forgotten in silence"
    );
}

async fn the_longest_message_passes(ends: Ends) {
    let (mut sender, mut receiver) = stream(&ends.dialer, &ends.listener, b"first").await;
    let longest = message(MESSAGE_BYTES_MAX);
    let (sent, received) = tokio::join!(sender.send(&longest), receiver.recv());
    sent.expect("sent");
    assert!(received.expect("received").as_ref() == Some(&longest));

    let refused = sender
        .send(&message(MESSAGE_BYTES_MAX + 1))
        .await
        .expect_err("too long");
    assert!(matches!(
        refused,
        LinkError::MessageTooLong {
            limit: MESSAGE_BYTES_MAX,
            ..
        }
    ));
    sender
        .send(b"after")
        .await
        .expect("a refused message leaves the stream whole");
    assert_eq!(
        receiver.recv().await.expect("received").as_deref(),
        Some(&b"after"[..])
    );
}

async fn an_oversized_announcement_is_refused(ends: Ends) {
    for announced in [MESSAGE_BYTES_MAX as u32 + 1, u32::MAX >> 1] {
        let (mut sender, mut receiver) = stream(&ends.dialer, &ends.listener, b"first").await;
        sender
            .write_raw(&announced.to_le_bytes())
            .await
            .expect("written");
        for _ in 0..2 {
            let refused = receiver.recv().await.expect_err("too long");
            let LinkError::MessageTooLong {
                announced: seen,
                limit,
            } = refused
            else {
                panic!("{refused}");
            };
            assert_eq!((seen, limit), (u64::from(announced), MESSAGE_BYTES_MAX));
        }
    }
    stream(&ends.dialer, &ends.listener, b"the connection stands").await;
}

async fn the_receiver_can_lower_the_limit(ends: Ends) {
    let (mut sender, receiver) = stream(&ends.dialer, &ends.listener, b"first").await;
    let mut receiver = receiver.with_limit(10);
    sender.send(&[7; 10]).await.expect("sent");
    sender.send(&[7; 11]).await.expect("sent");
    assert_eq!(receiver.recv().await.expect("received"), Some(vec![7; 10]));
    let refused = receiver.recv().await.expect_err("too long");
    assert!(matches!(
        refused,
        LinkError::MessageTooLong {
            announced: 11,
            limit: 10
        }
    ));
}

async fn lists_are_packed(ends: Ends) {
    let (mut sender, receiver) = stream(&ends.dialer, &ends.listener, b"first").await;
    let mut receiver = receiver.with_limit(40_000);
    let before = ends.dialer.bytes().sent;
    let list = vec![7; 40_000];
    for message in [&list[..], b"short", &list, b""] {
        sender.send_packed(message).await.expect("sent");
        assert_eq!(
            receiver.recv().await.expect("received").as_deref(),
            Some(message)
        );
    }
    assert!(ends.dialer.bytes().sent - before < 10_000);
    // What fits packed may be too long when it is unpacked.
    sender.send_packed(&[7; 40_001]).await.expect("sent");
    let refused = receiver.recv().await.expect_err("too long");
    assert!(matches!(
        refused,
        LinkError::MessageTooLong {
            announced: 40_001,
            limit: 40_000
        }
    ));
}

async fn what_is_not_packed_as_it_says_is_refused(ends: Ends) {
    for body in [&[][..], &[9, 0, 0], &[1, 0, 0, 0, b'x']] {
        let (mut sender, mut receiver) = stream(&ends.dialer, &ends.listener, b"first").await;
        let header = (body.len() as u32 | 1 << 31).to_le_bytes();
        let message = [&header[..], body].concat();
        sender.write_raw(&message).await.expect("written");
        let refused = receiver.recv().await.expect_err("not packed");
        assert!(matches!(refused, LinkError::NotUnpacked), "{refused}");
    }
}

async fn a_message_cut_short_is_an_error(ends: Ends) {
    for part in [
        &[5][..],
        &[5, 0, 0],
        &[5, 0, 0, 0],
        &[5, 0, 0, 0, 1, 2, 3, 4],
    ] {
        let (mut sender, mut receiver) = stream(&ends.dialer, &ends.listener, b"first").await;
        sender.write_raw(part).await.expect("written");
        sender.finish().expect("finished");
        let error = receiver.recv().await.expect_err("cut short");
        assert!(matches!(error, LinkError::Truncated), "{part:?}: {error}");
    }
}

async fn a_dropped_sender_is_no_clean_end(ends: Ends) {
    let (sender, mut receiver) = stream(&ends.dialer, &ends.listener, b"first").await;
    drop(sender);
    let error = receiver.recv().await.expect_err("abandoned");
    assert!(matches!(error, LinkError::StreamAbandoned), "{error}");
}

async fn a_dropped_receiver_stops_the_sender(ends: Ends) {
    let (mut sender, receiver) = stream(&ends.dialer, &ends.listener, b"first").await;
    drop(receiver);
    let error = loop {
        if let Err(error) = sender.send(&[0; 1000]).await {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert!(matches!(error, LinkError::StreamRefused), "{error}");
}

async fn a_cancelled_receive_loses_nothing(ends: Ends) {
    let (mut sender, mut receiver) = stream(&ends.dialer, &ends.listener, b"first").await;
    let long = message(300 << 10);
    let send = async {
        for part in [
            &(long.len() as u32).to_le_bytes()[..],
            &long[..1000],
            &long[1000..],
        ] {
            sender.write_raw(part).await.expect("written");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let receive = async {
        loop {
            // Cancels each wait that is not over at once.
            tokio::select! {
                biased;
                message = receiver.recv() => return message.expect("received"),
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
    };
    let ((), received) = tokio::join!(send, receive);
    assert!(received.as_ref() == Some(&long));
}

async fn a_cancelled_send_tears_the_stream(ends: Ends) {
    let (mut sender, mut receiver) = stream(&ends.dialer, &ends.listener, b"first").await;
    // Nobody reads, and this is more than the window.
    let longest = message(MESSAGE_BYTES_MAX);
    let send = sender.send(&longest);
    tokio::time::timeout(Duration::from_millis(50), send)
        .await
        .expect_err("the window is full");
    let error = sender.send(b"after").await.expect_err("torn");
    assert!(matches!(error, LinkError::Torn), "{error}");
    let error = sender.finish().expect_err("torn");
    assert!(matches!(error, LinkError::Torn), "{error}");
    let error = receiver.recv().await.expect_err("abandoned");
    assert!(matches!(error, LinkError::StreamAbandoned), "{error}");
}

async fn a_close_tells_the_reason(ends: Ends) {
    let (mut sender, mut receiver) = stream(&ends.dialer, &ends.listener, b"first").await;
    let begin = Instant::now();
    ends.listener.close("for a reason");
    assert_eq!(ends.dialer.closed().await, "for a reason");
    assert_eq!(ends.listener.closed().await, "closed by this machine");
    assert!(
        begin.elapsed() < Duration::from_millis(500),
        "{:?}",
        begin.elapsed()
    );

    let errors = [
        sender.send(b"late").await.expect_err("closed"),
        receiver.recv().await.expect_err("closed"),
        ends.dialer
            .open_stream(Priority::Bulk)
            .await
            .expect_err("closed"),
        ends.dialer.accept_stream().await.expect_err("closed"),
        ends.listener.open_control().await.expect_err("closed"),
        ends.listener.accept_control().await.expect_err("closed"),
    ];
    for error in errors {
        assert!(matches!(error, LinkError::Closed { .. }), "{error}");
    }
}

async fn dropping_everything_closes(ends: Ends) {
    let (sender, _receiver) = stream(&ends.dialer, &ends.listener, b"first").await;
    let unread = ends
        .listener
        .open_stream(Priority::Bulk)
        .await
        .expect("a stream");
    drop(unread);
    drop(sender);
    drop(ends.dialer);
    assert_eq!(ends.listener.closed().await, "closed by the other machine");
}

async fn too_many_streams_wait(ends: Ends) {
    let mut senders = Vec::new();
    for _ in 0..crate::transport::STREAMS_MAX {
        let mut sender = ends
            .dialer
            .open_stream(Priority::Bulk)
            .await
            .expect("a stream");
        sender.send(b"one").await.expect("sent");
        senders.push(sender);
    }
    let one_more = ends.dialer.open_stream(Priority::Bulk);
    tokio::pin!(one_more);
    tokio::time::timeout(Duration::from_millis(50), &mut one_more)
        .await
        .expect_err("it waits");

    // QUIC gives room back some streams at a time.
    for sender in senders.drain(..16) {
        sender.finish().expect("finished");
        let mut receiver = ends.listener.accept_stream().await.expect("a stream");
        while receiver.recv().await.expect("received").is_some() {}
    }
    one_more.await.expect("now there is room");
}

async fn both_export_the_same_secret(ends: Ends) {
    let exported = |connection: &Connection, label: &[u8], context: &[u8]| {
        connection
            .export_keying_material(label, context)
            .expect("exported")
    };
    let secret = exported(&ends.dialer, b"EXPORTER-one", b"");
    assert_eq!(secret, exported(&ends.listener, b"EXPORTER-one", b""));
    assert_ne!(secret, exported(&ends.listener, b"EXPORTER-two", b""));
    assert_ne!(
        secret,
        exported(&ends.listener, b"EXPORTER-one", b"context")
    );
}

async fn traffic_is_counted(ends: Ends) {
    let before = ends.dialer.bytes();
    stream(&ends.dialer, &ends.listener, &message(100_000)).await;
    assert!(ends.dialer.bytes().sent >= before.sent + 100_000);
    assert!(ends.listener.bytes().received >= 100_000);
}

/// More than all windows together, read with pauses, from several streams.
async fn a_slow_reader_gets_everything(ends: Ends) {
    const MESSAGES: usize = 8;
    let piece = message(1 << 20);
    let send = async |at: usize| {
        let mut sender = ends
            .dialer
            .open_stream(Priority::Bulk)
            .await
            .expect("a stream");
        sender.send(&[at as u8]).await.expect("sent");
        for _ in 0..MESSAGES {
            sender.send(&piece).await.expect("sent");
        }
        sender.finish().expect("finished");
    };
    let read = async || {
        let mut receiver = ends.listener.accept_stream().await.expect("a stream");
        assert_eq!(
            receiver
                .recv()
                .await
                .expect("received")
                .map(|first| first.len()),
            Some(1)
        );
        for _ in 0..MESSAGES {
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(receiver.recv().await.expect("received").as_ref() == Some(&piece));
        }
        assert_eq!(receiver.recv().await.expect("the end"), None);
    };
    // All at once, as a node does: what nobody reads of one stream takes room from the others, and together
    // they are longer than that.
    tokio::join!(send(0), send(1), send(2), read(), read(), read());
}
