//! What the other verbs say.

use std::fs::{self, File};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{Node, Pair, SOON, Side, command, difference, read, wait_until, write};

#[test]
fn while_paused_neither_tree_changes() {
    let mut pair = Pair::running();
    write(&pair.pusher.root, "a", "1");
    pair.flush();
    for by in [Side::Pusher, Side::Receiver] {
        assert_eq!(
            pair.node(by).ask(["pause", "--json"]).exits(0).json(),
            json!({"paused": true})
        );
        for node in pair.nodes() {
            wait_until("the node says paused", SOON, || {
                node.status()["sync"]["state"] == "paused"
            });
            assert!(!node.in_sync());
        }
        write(&pair.pusher.root, "a", by.name());
        write(&pair.receiver.root, "b", by.name());
        // The plan knows both changes.
        let plan = || pair.pusher.ask(["plan", "--json"]).exits(0).json();
        wait_until("both changes are planned", SOON, || plan()["total"] == 2);
        let lines = plan()["lines"].clone();
        let change = if by == Side::Pusher {
            "create"
        } else {
            "replace"
        };
        let line = |on, change, path| json!({"on": on, "change": change, "path": path, "len": by.name().len()});
        assert_eq!(
            lines,
            json!([
                line("receiver", "replace", "a"),
                line("pusher", change, "b")
            ])
        );
        assert_eq!(
            pair.receiver.ask(["plan", "--json"]).exits(0).json()["total"],
            2
        );
        let why = pair.pusher.ask(["why", "a", "--json"]).exits(0).json();
        assert_eq!(
            (&why["state"], &why["fix"]),
            (&"pending".into(), &"layer-sync resume".into()),
            "{why}"
        );
        pair.pusher
            .ask(["flush", "--timeout", "500ms"])
            .exits(1)
            .says(&["paused"]);
        pair.pusher.ask(["verify"]).exits(4);
        // Also after a restart.
        pair.pusher.stop();
        pair.pusher.start();
        pair.meet();
        assert_eq!(pair.pusher.status()["sync"]["state"], "paused");
        assert_ne!(read(&pair.receiver.root, "a").as_deref(), Some(by.name()));
        assert_ne!(read(&pair.pusher.root, "b").as_deref(), Some(by.name()));

        assert_eq!(
            pair.node(by).ask(["resume", "--json"]).exits(0).json(),
            json!({"paused": false})
        );
        pair.flush();
        assert_eq!(read(&pair.receiver.root, "a").as_deref(), Some(by.name()));
        assert_eq!(read(&pair.pusher.root, "b").as_deref(), Some(by.name()));
        assert!(
            pair.pusher
                .ask(["plan"])
                .exits(0)
                .stdout
                .contains("nothing to do")
        );
    }
}

#[test]
fn why_knows_every_state() {
    let mut pair = Pair::running();
    write(&pair.pusher.root, "a/note.md", "1");
    pair.flush();
    write(&pair.receiver.root, "a/note.md", "22");
    pair.flush();
    write(&pair.pusher.root, "secret/.env", "key");
    pair.pusher.ask(["flush"]).exits(0);
    let state = |node: &Node, path: &str| {
        let why = node.ask(["why", path, "--json"]).exits(0).json();
        assert!(!why["reason"].as_str().unwrap().is_empty(), "{why}");
        why["state"].as_str().unwrap().to_owned()
    };
    for node in pair.nodes() {
        assert_eq!(state(node, "a/note.md"), "in sync");
        assert_eq!(state(node, "a"), "in sync");
        assert_eq!(state(node, "secret/.env"), "ignored");
        assert_eq!(state(node, "never.md"), "absent");
        let why = node.ask(["why", "a/note.md", "--json"]).exits(0).json();
        assert_eq!(why["history"].as_array().map(Vec::len), Some(1), "{why}");
        assert_eq!(
            (&why["base"], &why["base"]),
            (&why["pusher"], &why["receiver"])
        );
        // As a person reads it, from inside the root and by the absolute path.
        let text = node
            .ask(["why", node.root.join("a/note.md").to_str().unwrap()])
            .exits(0)
            .stdout;
        assert!(text.starts_with("a/note.md: in sync\n"), "{text}");
        node.ask(["why", "/etc/passwd"])
            .exits(2)
            .says(&["outside the root"]);
        node.ask(["why", node.root.to_str().unwrap()])
            .exits(2)
            .says(&["root itself"]);
    }
    pair.receiver.stop();
    write(&pair.pusher.root, "a/note.md", "333");
    wait_until("the change is pending", SOON, || {
        state(&pair.pusher, "a/note.md") == "pending"
    });
}

#[test]
fn events_tell_what_happens() {
    let mut pair = Pair::running();
    write(&pair.pusher.root, "first", "1");
    pair.flush();
    // Everything is equal, so there is nothing to wait for.
    pair.pusher.ask(["events"]).exits(0);
    let said = pair.scratch().join("said");
    let mut follow = command(&pair.pusher.home);
    follow
        .args(["events", "--follow", "--json"])
        .stdout(File::create(&said).unwrap())
        .stderr(Stdio::null());
    let mut follow = follow.spawn().unwrap();
    let told = |wanted: &Value| {
        let text = fs::read_to_string(&said).unwrap();
        let events = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.into_iter().any(|event| event["what"] == *wanted)
    };
    // Nothing tells when it has begun to listen, so the first change is repeated until it is told.
    let mut round = 0;
    wait_until("the listener hears", SOON, || {
        round += 1;
        write(&pair.pusher.root, "first", format!("{round}"));
        pair.flush();
        fs::read_to_string(&said).unwrap().contains("first")
    });
    let expect = |what: Value| wait_until(&what.to_string(), SOON, || told(&what));
    let changed = |on, change, path, len| json!({"changed": {"on": on, "change": change, "path": path, "len": len}});
    write(&pair.pusher.root, "a", "12345");
    expect(changed("receiver", "create", "a", 5));
    write(&pair.receiver.root, "a", "123456");
    expect(changed("pusher", "replace", "a", 6));
    fs::remove_file(pair.receiver.root.join("a")).unwrap();
    expect(changed("pusher", "delete", "a", 0));
    pair.pusher.ask(["pause"]).exits(0);
    expect(json!({"paused": true}));
    pair.pusher.ask(["resume"]).exits(0);
    expect(json!({"paused": false}));
    pair.receiver.stop();
    wait_until("the end of the link is told", SOON, || {
        fs::read_to_string(&said).unwrap().contains("unlinked")
    });
    pair.receiver.start();
    expect(json!({"linked": {"peer": "mac"}}));
    // When the daemon ends, so does it.
    pair.pusher.stop();
    let mut code = None;
    wait_until("the listener ends", SOON, || {
        code = follow.try_wait().unwrap();
        code.is_some()
    });
    assert_ne!(code.unwrap().code(), Some(0));
}

#[test]
fn verify_looks_at_both_trees() {
    let pair = Pair::running();
    write(&pair.pusher.root, "a/b", "1");
    let verified = pair.receiver.ask(["verify", "--json"]).exits(0).json();
    assert_eq!(
        (&verified["equal"], &verified["files"], &verified["alpha"]),
        (&true.into(), &1.into(), &verified["beta"]),
        "{verified}"
    );
    assert!(
        pair.pusher
            .ask(["verify"])
            .exits(0)
            .stdout
            .starts_with("equal: 1 file")
    );
    // Content that changed behind the back of its times is found.
    let file = pair.receiver.root.join("a/b");
    assert!(difference(&pair.pusher.root, &pair.receiver.root).is_none());
    let made = rustix::fs::mkfifoat(
        rustix::fs::CWD,
        pair.receiver.root.join("pipe"),
        rustix::fs::Mode::RWXU,
    );
    made.unwrap();
    let answer = pair.pusher.ask(["verify"]).exits(4);
    assert!(answer.stdout.contains("pipe"), "{answer:#?}");
    assert_eq!(fs::read_to_string(file).unwrap(), "1");
}

#[test]
fn pages_for_people() {
    let pair = Pair::running();
    write(&pair.pusher.root, "a", "1");
    pair.flush();
    for node in pair.nodes() {
        wait_until("in sync", SOON, || node.in_sync());
        let block = node.ask(["status"]).exits(0).stdout;
        let lines: Vec<_> = block
            .lines()
            .map(|line| line.split(' ').next().unwrap())
            .collect();
        assert_eq!(
            lines,
            ["97LAYER", "Role", "Peer", "Sync", "Self"],
            "{block}"
        );
        assert!(
            block.contains("healthy") && block.contains("up to date") && block.contains("1 file"),
            "{block}"
        );
        let short = node.ask(["status", "--short"]).exits(0).stdout;
        assert!(
            short.starts_with("healthy: up to date, 1 file") && short.lines().count() == 1,
            "{short}"
        );
        assert_eq!(node.ask(["conflicts"]).exits(0).stdout, "no conflicts\n");
        assert!(
            node.ask(["versions", "a"])
                .exits(0)
                .stdout
                .contains("no earlier version")
        );
        assert!(
            node.ask(["flush"])
                .exits(0)
                .stdout
                .starts_with("equal: 1 file")
        );
        let flushed = node.ask(["flush", "--json"]).exits(0).json();
        assert_eq!(
            (&flushed["equal"], &flushed["alpha"]),
            (&true.into(), &flushed["beta"])
        );
    }
    pair.receiver
        .ask(["pair"])
        .exits(2)
        .says(&["codes are made by the pusher"]);
    pair.pusher.ask(["--version"]).exits(0);
    pair.pusher.ask(["sing"]).exits(2);
}
