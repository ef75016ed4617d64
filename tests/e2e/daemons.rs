//! Two daemons: their life, and whether what they say is true.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Node, Pair, SOON, Side, assert_equal, wait, wait_until, write};
use crate::up::real_tree;

/// How long a daemon may take to stop.
const STOP_MAX: Duration = Duration::from_secs(2);

#[test]
fn edits_on_both_sides_arrive() {
    let pair = Pair::running();
    write(&pair.pusher.root, "from/pusher.md", "1");
    write(&pair.receiver.root, "from/receiver.md", "1");
    pair.arrives(Side::Receiver, "from/pusher.md", "1");
    pair.arrives(Side::Pusher, "from/receiver.md", "1");
    for side in [Side::Pusher, Side::Receiver] {
        write(&pair.pusher.root, "from/pusher.md", side.name());
        write(&pair.receiver.root, "from/receiver.md", side.name());
        pair.flush_from(side);
    }
    let hashes = pair.nodes().map(|node| {
        wait_until("the node knows that both are equal", SOON, || {
            node.in_sync()
        });
        let status = node.status();
        assert_eq!(
            (
                &status["schema"],
                &status["state"],
                &status["sync"]["state"]
            ),
            (&1.into(), &"healthy".into(), &"up_to_date".into())
        );
        assert_eq!(
            (&status["sync"]["files"], &status["sync"]["pending_files"]),
            (&2.into(), &0.into()),
            "{status}"
        );
        node.ask(["status", "--check"]).exits(0);
        status["sync"]["set_hash"].clone()
    });
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn without_a_link_nobody_says_in_sync() {
    let mut pair = Pair::running();
    write(&pair.pusher.root, "a", "1");
    pair.flush();
    pair.pusher.ask(["status", "--check"]).exits(0);
    pair.receiver.stop();
    wait_until("the pusher notices", SOON, || !pair.pusher.in_sync());
    write(&pair.pusher.root, "a", "2");
    assert_eq!(
        pair.pusher.problem("degraded.unlinked")["severity"],
        "degraded"
    );
    assert_eq!(pair.pusher.status()["sync"]["state"], "offline");
    pair.pusher.ask(["status", "--check"]).exits(4);
    pair.pusher
        .ask(["flush", "--timeout", "1s"])
        .exits(1)
        .says(&["Not everything was durable", "Next:"]);

    pair.receiver.start();
    pair.flush();
    wait_until("both are in sync", SOON, || {
        pair.nodes().iter().all(|node| node.in_sync())
    });
    pair.pusher.stop();
    wait_until("the receiver notices", SOON, || !pair.receiver.in_sync());
    assert_eq!(
        pair.receiver.problem("degraded.unlinked")["severity"],
        "degraded"
    );
    pair.receiver.ask(["status", "--check"]).exits(4);
    pair.receiver.ask(["flush", "--timeout", "1s"]).exits(1);
}

#[test]
fn while_a_change_is_pending_nobody_says_in_sync() {
    let pair = Pair::running();
    pair.flush();
    let incoming = pair.receiver.root.join("large.bin");
    let noise: Vec<u8> = (0..24_000_000_u64)
        .flat_map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32).to_le_bytes()[..2].to_vec())
        .collect();
    fs::write(pair.scratch().join("large.bin"), noise).unwrap();
    fs::rename(
        pair.scratch().join("large.bin"),
        pair.pusher.root.join("large.bin"),
    )
    .unwrap();
    wait_until("the pusher notices", SOON, || {
        incoming.exists() || pair.pusher.status()["sync"]["pending_files"] != 0
    });
    let mut samples = 0;
    let end = Instant::now() + SOON;
    while !incoming.exists() && Instant::now() < end {
        let said = pair.nodes().map(|node| node.status());
        if !incoming.exists() {
            samples += 1;
            // The receiver may hear of a change with its first bytes only, so only the pusher must know.
            assert_eq!(said[0]["sync"]["in_sync"], false, "{}", said[0]);
            assert_ne!(said[0]["sync"]["state"], "up_to_date", "{}", said[0]);
        }
    }
    println!("{samples} looks while 48 MB were on their way");
    pair.flush();
}

#[test]
fn asked_while_nobody_runs() {
    let mut pair = Pair::joined();
    pair.pusher.kill();
    for args in [
        &["status"][..],
        &["status", "--check"],
        &["flush"],
        &["plan"],
        &["why", "a"],
        &["conflicts"],
        &["versions", "a"],
        &["restore", "a"],
        &["pause"],
        &["resume"],
        &["verify"],
        &["events"],
        &["pair"],
    ] {
        // Its socket is still there: the daemon was killed.
        let answer = pair.pusher.ask(args).exits(3).says(&["Next:"]);
        assert!(answer.stdout.is_empty(), "{args:?}: {answer:#?}");
        pair.receiver.ask(args).exits(3).says(&["Next:"]);
    }
}

#[test]
fn one_daemon_a_home_and_a_root() {
    let mut pair = Pair::running();
    let mut twin = Node::new(
        Side::Pusher,
        pair.pusher.home.clone(),
        pair.pusher.root.clone(),
    );
    twin.launch(&[]);
    // Its log is the first one's too.
    assert_eq!(twin.ended().code, 64);
    pair.pusher
        .ask(["pusher"])
        .exits(64)
        .says(&["another layer-sync is running", "Next:"]);

    let other = Node::new(
        Side::Pusher,
        pair.scratch().join("other"),
        pair.pusher.root.clone(),
    );
    let root = other.root.to_str().unwrap();
    other
        .ask(["init", "pusher", "--listen", "127.0.0.1:0", "--root", root])
        .exits(0);
    other
        .ask(["pusher"])
        .exits(64)
        .says(&["already runs", root]);

    // Neither try disturbed the one that runs; and when it is killed, nothing stands in the way.
    write(&pair.pusher.root, "a", "1");
    pair.flush();
    for side in [Side::Pusher, Side::Receiver] {
        let started = Instant::now();
        pair.node_mut(side).kill();
        pair.node_mut(side).start();
        pair.meet();
        println!(
            "{} killed, started and linked again in {:?}",
            side.name(),
            started.elapsed()
        );
    }
    write(&pair.receiver.root, "a", "2");
    pair.flush();
}

#[test]
fn a_daemon_stops_at_once_whatever_it_does() {
    let mut pair = Pair::joined();
    real_tree(&pair.pusher.root);
    fs::write(pair.pusher.root.join("large.bin"), vec![7; 64 << 20]).unwrap();
    pair.pusher.stop();
    let mut slowest = Duration::ZERO;
    for wait_ms in [0, 40, 120, 300, 600, 900, 1300] {
        // From the first moment on: a daemon that does not answer yet can be stopped, too.
        pair.pusher.launch(&[]);
        pair.receiver.launch(&[]);
        thread::sleep(Duration::from_millis(wait_ms));
        for node in [&mut pair.receiver, &mut pair.pusher] {
            let (status, took) = node.terminate();
            assert!(
                status.code() == Some(0) || wait_ms == 0,
                "after {wait_ms} ms: {status}\n{}",
                node.log()
            );
            assert!(
                took < STOP_MAX,
                "after {wait_ms} ms the {} took {took:?}",
                node.side.name()
            );
            slowest = slowest.max(took);
        }
    }
    println!("the slowest stop took {slowest:?}");
    pair.pusher.start();
    pair.receiver.start();
    pair.flush();
}

#[test]
fn a_first_sync_unites_two_trees_and_deletes_nothing() {
    let mut pair = Pair::joined();
    let trees = pair.roots();
    write(&trees[0], "both/same.md", "1");
    write(&trees[1], "both/same.md", "1");
    write(&trees[0], "pusher/a.md", "1");
    write(&trees[1], "receiver/b.md", "1");
    pair.receiver.start();
    pair.flush();
    // The index of one side is lost: again nothing is deleted.
    fs::remove_file(trees[0].join("pusher/a.md")).unwrap();
    pair.flush();
    pair.receiver.stop();
    fs::remove_file(trees[1].join("receiver/b.md")).unwrap();
    let state = pair.receiver.home.join("state");
    let index = fs::read_dir(&state)
        .unwrap()
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().contains("index"));
    fs::remove_file(index.unwrap().path()).unwrap();
    pair.receiver.start();
    pair.flush();
    let there = wait("the file is back", SOON, || {
        fs::read_to_string(trees[1].join("receiver/b.md")).ok()
    });
    assert_eq!(there, "1");
    assert_equal(&trees[0], &trees[1]);
}
