use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use link::Connection;
use link::memory::{MemoryLink, pair};
use tokio::time::{advance, sleep};

use super::*;

/// Makes the two ends of a control stream.
async fn linked() -> ([Connection; 2], [(Sender, Receiver); 2]) {
    let (dialer, listener, _) = pair(MemoryLink::default());
    let (mut out, back) = dialer.open_control().await.unwrap();
    // A stream reaches the other side with its first message.
    out.send(&Frame::Start.encode()).await.unwrap();
    let other = listener.accept_control().await.unwrap();
    ([dialer, listener], [(out, back), other])
}

#[tokio::test(start_paused = true)]
async fn a_partner_that_does_not_read_loses_the_connection() {
    let (_connections, [(sender, receiver), _deaf]) = linked().await;
    let (outbox, control) = control(sender, receiver, |_, _| {});
    let running = tokio::spawn(control);
    // The window takes the first of them. They do not become much shorter on their way.
    let mut noise: u64 = 1;
    let text = std::iter::repeat_with(|| {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(b' ' + (noise >> 58) as u8)
    });
    let frame = Frame::Answer(1, text.take(1 << 20).collect());
    for _ in 0..100 {
        outbox.send(&frame);
    }
    advance(WRITE_STALL_MAX / 2).await;
    assert!(!running.is_finished(), "it may still begin to read");
    let reason = running.await.unwrap();
    assert_eq!(reason, "the other machine does not read what it is sent");
}

#[tokio::test]
async fn what_waits_to_be_sent_has_a_limit() {
    let (_connections, [(sender, receiver), _deaf]) = linked().await;
    let (outbox, control) = control(sender, receiver, |_, _| {});
    let frame = Frame::Answer(1, "x".repeat(4 << 20));
    for _ in 0..OUTBOX_BYTES_MAX / (4 << 20) + 1 {
        outbox.send(&frame);
    }
    let reason = control.await;
    assert_eq!(reason, "the other machine does not read what it is sent");
}

#[tokio::test(start_paused = true)]
async fn nothing_more_is_read_while_too_much_waits_to_be_handled() {
    let (_connections, [(mut flood, _back), (sender, receiver)]) = linked().await;
    let waiting = Arc::new(Mutex::new(Vec::new()));
    let arrived = {
        let waiting = Arc::clone(&waiting);
        move |frame: Frame, room| waiting.lock().unwrap().push((frame.encode().len(), room))
    };
    let (_outbox, control) = control(sender, receiver, arrived);
    let running = tokio::spawn(control);
    let sent = Arc::<AtomicU64>::default();
    let count = Arc::clone(&sent);
    tokio::spawn(async move {
        let frame = Frame::Refuse("x".repeat(4000)).encode();
        while flood.send(&frame).await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    // Time moves only when nothing else can: then the flood is held back.
    sleep(Duration::from_secs(1)).await;
    let held = waiting
        .lock()
        .unwrap()
        .iter()
        .map(|(len, _)| len)
        .sum::<usize>();
    assert!(
        (ARRIVED_BYTES_MAX / 2..=ARRIVED_BYTES_MAX).contains(&held),
        "{held}"
    );
    let before = sent.load(Ordering::Relaxed);
    waiting.lock().unwrap().clear();
    sleep(Duration::from_secs(1)).await;
    assert!(
        sent.load(Ordering::Relaxed) > before,
        "what was handled makes room"
    );
    assert!(!running.is_finished());
}

#[tokio::test]
async fn the_first_reason_is_the_one_that_is_told() {
    let (_connections, [(sender, receiver), _other]) = linked().await;
    let (outbox, control) = control(sender, receiver, |_, _| {});
    outbox.end("a lie".into());
    outbox.end("another lie".into());
    assert_eq!(control.await, "a lie");
}
