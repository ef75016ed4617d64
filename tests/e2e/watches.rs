//! A machine that has no file watches left.

use std::time::{Duration, Instant};

use crate::harness::{Pair, Side, run, wait_until, wish, write};

/// Starts a program in a user namespace of its own, in which there are no watches to be had.
const WITHOUT_WATCHES: [&str; 6] = [
    "unshare",
    "--user",
    "--map-root-user",
    "sh",
    "-c",
    "echo 0 > /proc/sys/user/max_inotify_watches && exec \"$0\" \"$@\"",
];

/// The shortest interval that the settings take, and the one that is shipped.
const INTERVAL: Duration = Duration::from_secs(1);
const SHIPPED: Duration = Duration::from_secs(30);
/// What a change may take beyond the interval.
const MARGIN: Duration = Duration::from_secs(5);

#[test]
fn without_watches_changes_arrive_within_the_interval() {
    let tried = run(
        WITHOUT_WATCHES[0],
        WITHOUT_WATCHES[1..].iter().chain(&["true"]),
    );
    if tried.code != 0 {
        println!(
            "skipped: this machine gives no user namespaces: {}",
            tried.stderr
        );
        return;
    }
    let real = wish("REAL_INTERVAL").is_some();
    let interval = if real { SHIPPED } else { INTERVAL };
    let mut pair = Pair::joined();
    pair.pusher.stop();
    for node in [&mut pair.pusher, &mut pair.receiver] {
        node.set(
            "interval = \"30s\"",
            &format!("interval = \"{}s\"", interval.as_secs()),
        );
        write(&node.root, "a/b/c", "1");
        node.start_under(&WITHOUT_WATCHES);
    }
    pair.meet();
    pair.flush();
    for node in pair.nodes() {
        let problem = node.problem("degraded.watch");
        assert!(
            problem["text"].as_str().unwrap().contains("watch")
                && !problem["fix"].as_str().unwrap().is_empty(),
            "{problem}"
        );
        node.ask(["status", "--check"]).exits(4);
        assert_eq!(node.status()["state"], "degraded");
    }
    let rounds = if real { 2 } else { 6 };
    for round in 0..rounds {
        let (from, to) = if round % 2 == 0 {
            (Side::Pusher, Side::Receiver)
        } else {
            (Side::Receiver, Side::Pusher)
        };
        let content = format!("round {round}");
        write(&pair.node(from).root, "a/b/c", &content);
        let written = Instant::now();
        let there = pair.node(to).root.join("a/b/c");
        wait_until("the edit arrives", interval + MARGIN, || {
            std::fs::read_to_string(&there).unwrap() == content
        });
        println!(
            "without watches, interval {interval:?}: from the {} in {:?}",
            from.name(),
            written.elapsed()
        );
    }
    pair.flush();
}
