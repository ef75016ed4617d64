//! The window on a simulated line: a rate, a delay, a drop-tail queue, and loss from a seed.

mod line;

use std::time::{Duration, Instant};

use super::{INITIAL_BYTES, WINDOW_BYTES_MAX, Window};
use line::{FlowReport, Line, MTU, Report, run};

const KIB: u64 = 1 << 10;
/// 100 Mbit/s in bytes a second.
const FAST: f64 = 12_500_000.0;
/// 20 Mbit/s.
const SLOW: f64 = 2_500_000.0;
/// The line's own share of what it carries is the rest.
const CONTENT_SHARE: f64 = MTU as f64 / (MTU + 46) as f64;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Returns which part of `rate` arrived between two times, in tenths of a second.
fn part_of(rate: f64, flow: &FlowReport, from: usize, until: usize) -> f64 {
    let until = until.min(flow.tenths.len());
    let arrived: u64 = flow.tenths[from..until].iter().sum();
    arrived as f64 / ((until - from) as f64 / 10.0) / (rate * CONTENT_SHARE)
}

fn lost_share(flow: &FlowReport) -> f64 {
    (flow.lost_by_chance + flow.lost_by_overflow) as f64 / flow.sent as f64
}

/// Checks what ten seconds alone on a line give: at least `part` of it used, in all and in the
/// first second, and at most `lost` of the datagrams lost, by chance and by overflow.
fn check(line: &Line, part: f64, part_first: f64, lost: f64) {
    let Report { flows, .. } = run(line, &[0], seconds(10));
    let flow = &flows[0];
    let used = part_of(line.rate, flow, 0, 100);
    let used_first = part_of(line.rate, flow, 0, 10);
    let share = lost_share(flow);
    let what = format!(
        "{:.0} Mbit/s, {:?}, {} KiB, {} %: used {used:.3} ({used_first:.3}), lost {share:.4}",
        line.rate * 8e-6,
        2 * line.delay,
        line.queue_bytes / KIB,
        line.loss * 100.0
    );
    assert!(
        used >= part && used_first >= part_first && share <= lost,
        "{what}"
    );
}

#[test]
fn chance_does_not_slow_it() {
    let line = |queue, loss| Line {
        queue_bytes: queue * KIB,
        loss,
        ..Line::default()
    };
    //          queue loss          part first lost
    check(&line(128, 0.0), 0.95, 0.85, 0.010);
    check(&line(512, 0.0), 0.95, 0.85, 0.001);
    check(&line(128, 0.005), 0.95, 0.85, 0.012);
    check(&line(512, 0.005), 0.95, 0.85, 0.007);
    check(&line(128, 0.01), 0.93, 0.80, 0.020);
    check(&line(512, 0.01), 0.93, 0.80, 0.015);
    // More than this is no chance any more, and it gives way.
    check(&line(512, 0.02), 0.50, 0.50, 0.025);
    // A queue too short to be seen.
    check(&line(32, 0.0), 0.85, 0.50, 0.045);
    check(&line(32, 0.005), 0.80, 0.50, 0.050);
}

#[test]
fn other_lines() {
    let line = |rate, rtt_ms, loss| Line {
        rate,
        delay: millis(rtt_ms) / 2,
        queue_bytes: 256 * KIB,
        loss,
        ..Line::default()
    };
    //          rate         rtt  loss            part first lost
    check(&line(FAST / 100.0, 50, 0.0), 0.85, 0.85, 0.001);
    check(&line(FAST / 10.0, 20, 0.0), 0.95, 0.90, 0.001);
    check(&line(FAST / 10.0, 40, 0.005), 0.90, 0.85, 0.010);
    check(&line(SLOW, 200, 0.005), 0.85, 0.40, 0.010);
    check(&line(2.0 * FAST, 2, 0.0), 0.90, 0.85, 0.010);
    let jitter = Line {
        jitter: millis(10),
        ..line(FAST, 40, 0.005)
    };
    check(&jitter, 0.85, 0.50, 0.010);
}

#[test]
fn pauses_do_not_look_like_a_slow_line() {
    for (every, loss) in [(150, 0.0), (150, 0.005), (500, 0.005), (1000, 0.01)] {
        let line = Line {
            batches: Some(millis(every)),
            queue_bytes: 512 * KIB,
            loss,
            ..Line::default()
        };
        let flow = &run(&line, &[0], seconds(10)).flows[0];
        // There is something to send half of the time.
        let used = part_of(FAST, flow, 20, 100);
        assert!(used > 0.45, "{every} ms, {loss}: {used}");
        assert!(lost_share(flow) < 0.012);
    }
}

#[test]
fn two_share() {
    for (queue, loss) in [
        (64, 0.0),
        (128, 0.0),
        (256, 0.0),
        (512, 0.0),
        (128, 0.005),
        (512, 0.005),
    ] {
        let line = Line {
            queue_bytes: queue * KIB,
            loss,
            ..Line::default()
        };
        let flows = run(&line, &[0, 2], seconds(60)).flows;
        let first = part_of(FAST, &flows[0], 100, 600);
        let second = part_of(FAST, &flows[1], 100, 600);
        assert!(first + second > 0.93, "{first} and {second}");
        assert!(first.min(second) > 0.3, "{first} and {second}");
        assert!(lost_share(&flows[0]) < 0.02 && lost_share(&flows[1]) < 0.02);
    }
}

#[test]
fn it_gives_way_when_the_line_slows_down() {
    for (queue, loss) in [(128, 0.0), (512, 0.0), (128, 0.005)] {
        let line = Line {
            rate_later: Some((seconds(3), SLOW)),
            queue_bytes: queue * KIB,
            loss,
            ..Line::default()
        };
        let flow = &run(&line, &[0], seconds(10)).flows[0];
        let after = part_of(SLOW, flow, 40, 100);
        let window = flow.windows[40..].iter().max().copied();
        let share = lost_share(flow);
        assert!(after > 0.85, "{after}");
        assert!(share < 0.05, "{share}");
        // What the line holds, and what waits before it.
        let holds = (SLOW * 0.04) as u64 + queue * KIB;
        assert!(window < Some(holds * 5 / 4), "{window:?}");
    }
}

#[test]
fn it_follows_a_line_that_gets_faster() {
    let line = Line {
        rate: SLOW,
        rate_later: Some((seconds(3), FAST)),
        loss: 0.005,
        ..Line::default()
    };
    let flow = &run(&line, &[0], seconds(10)).flows[0];
    let after = part_of(FAST, flow, 50, 100);
    assert!(after > 0.85, "{after}");
}

#[test]
fn it_finds_a_longer_way_and_a_shorter_one() {
    for (from, to) in [(20, 60), (60, 20)] {
        let line = Line {
            delay: millis(from),
            delay_later: Some((seconds(3), millis(to))),
            queue_bytes: 512 * KIB,
            loss: 0.005,
            ..Line::default()
        };
        let flow = &run(&line, &[0], seconds(20)).flows[0];
        let after = part_of(FAST, flow, 150, 200);
        assert!(after > 0.85, "{after}");
    }
}

#[test]
fn a_burst_after_silence_is_bounded() {
    for (until, queue) in [(8, 128), (80, 128)] {
        let line = Line {
            silent: Some((seconds(3), seconds(until))),
            queue_bytes: queue * KIB,
            ..Line::default()
        };
        let end = seconds(until + 2);
        let flow = &run(&line, &[0], end).flows[0];
        assert!(lost_share(flow) < 0.02, "{}", flow.lost_by_overflow);
        let windows = &flow.windows[(until * 10) as usize..];
        assert!(windows.iter().all(|bytes| *bytes < 2 * 512 * KIB));
    }
}

/// A window that has seen `rounds` round trips of 40 ms, each of ten datagrams.
fn after_rounds(rounds: u32, idle: bool) -> (Window, Instant) {
    let start = Instant::now();
    let mut window = Window::new(start, MTU as u16);
    let mut now = start;
    for _ in 0..rounds {
        let sent = now;
        window.handle_sent(sent);
        now += millis(40);
        for _ in 0..10 {
            window.handle_acked(now, sent, MTU, idle);
        }
        window.handle_acks_end(now);
    }
    (window, now)
}

#[test]
fn it_grows_only_where_it_was_the_limit() {
    assert_eq!(after_rounds(100, true).0.bytes(), INITIAL_BYTES);
    assert!(after_rounds(10, false).0.bytes() > INITIAL_BYTES);
    assert_eq!(after_rounds(100_000, false).0.bytes(), WINDOW_BYTES_MAX);
}

#[test]
fn what_was_not_used_for_long_begins_anew() {
    let (mut window, now) = after_rounds(100, false);
    let before = window.bytes();
    window.handle_sent(now + seconds(59));
    assert_eq!(window.bytes(), before);
    window.handle_sent(now + seconds(61));
    assert_eq!(window.bytes(), INITIAL_BYTES);
}

#[test]
fn loss_counts_from_three_in_a_hundred_on() {
    let (window, now) = after_rounds(10, false);
    let lose = |percent: u64| {
        let mut window = window.clone();
        window.handle_lost(now, now, window.bytes() * percent / 100);
        window.bytes()
    };
    assert_eq!(lose(2), window.bytes());
    assert!(lose(5) < window.bytes());
    // One round is answered once.
    let mut window = window.clone();
    window.handle_lost(now, now, window.bytes());
    let cut = window.bytes();
    window.handle_lost(now, now, window.bytes());
    assert_eq!(window.bytes(), cut);
    // A router's mark is always meant.
    window.handle_lost(now + millis(40), now + millis(1), 0);
    assert!(window.bytes() < cut);
}

#[test]
fn silence_leaves_two_datagrams() {
    let (mut window, now) = after_rounds(100, false);
    window.handle_silence(now);
    assert_eq!(window.bytes(), 2 * MTU);
    window.handle_datagram_bytes(9000);
    assert_eq!(window.bytes(), 18_000);
}
