//! What a pair with a bot costs while nothing happens.

use std::fs;
use std::time::Duration;

use crate::harness::{Node, SOON, Talk, wait_until, wish, write};

/// Shorter than this, and what is measured is how it came to rest.
const MEASURE_MIN: u64 = 60;
/// The promises: processor time in percent of one core, and memory in bytes, each a node.
const CPU_PCT_MAX: f64 = 0.5;
const RSS_BYTES_MAX: u64 = 60 << 20;
/// On the wire, in a minute: the link and what goes to the Bot API.
const WIRE_BYTES_MAX: u64 = 20 * 1000;

/// Returns the processor time of a node, in seconds.
fn cpu(node: &Node) -> f64 {
    let pid = node.pid().as_raw_nonzero();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Returns what went over the loopback device since it is there: all of it is ours in a network namespace of our own.
fn wire() -> u64 {
    let devices = fs::read_to_string("/proc/net/dev").unwrap();
    let lo = devices
        .lines()
        .find_map(|line| line.trim().strip_prefix("lo:"))
        .unwrap();
    lo.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_pair_with_a_bot_at_rest() {
    let seconds = wish("IDLE_SECONDS").unwrap_or(3);
    let talk = Talk::begin();
    for number in 0..200 {
        write(
            &talk.pair.pusher.root,
            &format!("notes/{number}.md"),
            format!("note {number}"),
        );
    }
    talk.pair.flush();
    if wish("IDLE_RECEIVER").is_some() {
        talk.ask("/promote mac");
        talk.is_at_work(&talk.pair.receiver);
    }
    talk.ask("/status");
    wait_until("it rests", SOON, || {
        let at_rest = |node: &Node| node.status()["bot"]["outbox"] == 0;
        talk.pair.nodes().into_iter().all(at_rest)
    });
    let nodes = talk.pair.nodes();
    let (before, calls, bytes) = (nodes.map(cpu), talk.api.effects().len(), wire());
    std::thread::sleep(Duration::from_secs(seconds));
    let minutes = seconds as f64 / 60.0;
    let bytes = (wire() - bytes) as f64 / minutes;
    let calls = (talk.api.effects().len() - calls) as f64 / minutes;
    for (node, before) in nodes.into_iter().zip(before) {
        let used = (cpu(node) - before) / seconds as f64 * 100.0;
        let rss = node.status()["self"]["rss_bytes"].as_u64().unwrap();
        println!(
            "{}: {used:.3} % of a core, {:.1} MiB",
            node.side.name(),
            rss as f64 / f64::from(1 << 20)
        );
        if seconds >= MEASURE_MIN {
            assert!(
                used < CPU_PCT_MAX && rss < RSS_BYTES_MAX,
                "{used} %, {rss} B"
            );
        }
    }
    println!(
        "{bytes:.0} B a minute on the loopback device, {calls:.1} calls a minute of the Bot API, in {seconds} s"
    );
    // The loopback device counts each packet once; alone in a namespace that is the wire.
    if seconds >= MEASURE_MIN && std::env::var_os("LAYER_SYNC_E2E_OWN_NET").is_some() {
        assert!(bytes < WIRE_BYTES_MAX as f64, "{bytes} B a minute");
    }
}
