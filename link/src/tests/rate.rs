//! The rate limit over real sockets.

use std::time::{Duration, Instant};

use super::{Machines, in_time};
use crate::{Connection, Priority};

const MIB: usize = 1 << 20;

/// Sends `bytes` from one end to the other on one stream, and returns how many arrived in a second.
async fn rate_of(from: &Connection, to: &Connection, priority: Priority, bytes: usize) -> f64 {
    let began = Instant::now();
    let send = async {
        let message = vec![7; MIB / 4];
        let mut stream = from.open_stream(priority).await.expect("a stream");
        for _ in 0..bytes / message.len() {
            stream.send(&message).await.expect("sent");
        }
        stream.finish().expect("finished");
    };
    let receive = async {
        let mut stream = to.accept_stream().await.expect("a stream");
        let mut arrived = 0;
        while let Some(message) = stream.recv().await.expect("a message") {
            arrived += message.len();
        }
        arrived
    };
    let ((), arrived) = tokio::join!(send, receive);
    assert_eq!(arrived, bytes);
    arrived as f64 / began.elapsed().as_secs_f64()
}

#[tokio::test]
async fn content_keeps_to_the_limit_on_both_sides_and_control_is_free() {
    let limit = 4 * MIB;
    let mut machines = Machines::paired();
    machines.dialer = machines.dialer.with_rate_limit(limit as u64);
    machines.listener = machines.listener.with_rate_limit(2 * limit as u64);
    let (dialer, listener) = machines.connect().await;
    in_time(async {
        let (up, down, control) = tokio::join!(
            rate_of(&dialer, &listener, Priority::Bulk, 8 * MIB),
            rate_of(&listener, &dialer, Priority::Small, 16 * MIB),
            async {
                let began = Instant::now();
                let (mut sender, _back) = dialer.open_control().await.expect("a stream");
                sender.send(&vec![7; 2 * MIB]).await.expect("sent");
                let (_back, mut receiver) = listener.accept_control().await.expect("a stream");
                receiver.recv().await.expect("a message");
                began.elapsed()
            }
        );
        let share = up / limit as f64;
        assert!((0.9..1.1).contains(&share), "up: {share}");
        let share = down / (2 * limit) as f64;
        assert!((0.9..1.1).contains(&share), "down: {share}");
        assert!(control < Duration::from_millis(400), "{control:?}");
    })
    .await;
}

#[tokio::test]
async fn a_note_overtakes_a_video_under_the_limit() {
    let mut machines = Machines::paired();
    machines.dialer = machines.dialer.with_rate_limit(MIB as u64);
    let (dialer, listener) = machines.connect().await;
    let video = async {
        let mut stream = dialer.open_stream(Priority::Bulk).await.expect("a stream");
        stream.send(&vec![7; MIB]).await.expect("sent");
        stream.finish().expect("finished");
    };
    let note = async {
        // The video is on its way when its stream has reached the other side.
        let mut big = listener.accept_stream().await.expect("a stream");
        let began = Instant::now();
        let mut stream = dialer.open_stream(Priority::Small).await.expect("a stream");
        stream.send(&[7; 64 << 10]).await.expect("sent");
        let mut small = listener.accept_stream().await.expect("a stream");
        tokio::select! {
            biased;
            _ = big.recv() => panic!("the video came first"),
            message = small.recv() => {
                assert_eq!(message.expect("a message").map(|it| it.len()), Some(64 << 10));
            }
        }
        let noted = began.elapsed();
        big.recv().await.expect("a message").expect("the video");
        (noted, began.elapsed())
    };
    let ((), (noted, all)) = in_time(async { tokio::join!(video, note) }).await;
    // It has the whole limit for itself: a sixteenth of a second.
    assert!(noted < Duration::from_millis(300), "{noted:?}");
    assert!(all > Duration::from_millis(850), "{all:?}");
}
