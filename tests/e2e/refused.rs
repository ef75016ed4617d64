//! What is refused: one clear sentence, the right exit code, and nothing touched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{
    Node, Pair, SOON, Side, assert_equal, listing, names, read, run, wait_until, write,
};

#[test]
fn settings_that_are_wrong() {
    let pair = Pair::strangers();
    pair.init();
    let file = pair.pusher.home.join("config.toml");
    let good = fs::read_to_string(&file).unwrap();
    let root = pair.pusher.root.to_str().unwrap();
    let missing = pair.scratch().join("missing");
    let plain = pair.scratch().join("plain");
    fs::write(&plain, "").unwrap();
    let before = listing(pair.scratch());
    let check = |from: &str, to: &str, code: i32, words: &[&str]| {
        assert!(good.contains(from), "{good}");
        fs::write(&file, good.replace(from, to)).unwrap();
        pair.pusher.ask(["pusher"]).exits(code).says(words);
        fs::write(&file, &good).unwrap();
        assert_eq!(names(&pair.pusher.root), [""; 0]);
        assert!(
            !pair.pusher.root.join(".layer-sync").exists(),
            "the root is as it was"
        );
    };
    check(
        "interval = \"30s\"",
        "intervall = \"30s\"",
        78,
        &[
            "config.toml:",
            "intervall",
            "interval",
            "Next: correct line",
        ],
    );
    check(
        "interval = \"30s\"",
        "interval = \"30\"",
        78,
        &["config.toml:", "interval"],
    );
    check(
        "version = 1",
        "version = 2",
        78,
        &["config.toml:", "version"],
    );
    check("[link]", "[lnik]", 78, &["config.toml:", "lnik", "link"]);
    // Ports of the tests begin with a 2; that of the dashboard is 0.
    let (listens, dials) = ("listen = \"127.0.0.1:2", "peer = \"127.0.0.1:2");
    check(listens, dials, 64, &["receiver", "Next: "]);
    check(
        root,
        missing.to_str().unwrap(),
        64,
        &["missing", "create it"],
    );
    check(
        root,
        plain.to_str().unwrap(),
        64,
        &["plain", "not a directory"],
    );
    fs::remove_file(&file).unwrap();
    pair.pusher
        .ask(["pusher"])
        .exits(78)
        .says(&["no settings", "Next: "]);
    fs::write(&file, &good).unwrap();
    // What a start leaves in its own home does not count.
    let outside = |lines: Vec<String>| {
        lines
            .into_iter()
            .filter(|line| !line.starts_with("pusher/") && !line.starts_with(' '))
            .collect::<Vec<_>>()
    };
    assert_eq!(outside(listing(pair.scratch())), outside(before));
}

#[test]
fn homes_that_are_wrong() {
    let pair = Pair::strangers();
    let root = pair.pusher.root.to_str().unwrap();
    pair.pusher
        .ask(["pusher"])
        .exits(78)
        .says(&["no home", "Next: "]);
    pair.pusher
        .ask(["init", "pusher", "--root", "nowhere-at-all"])
        .exits(1)
        .says(&["nowhere-at-all", "Next: "]);
    pair.pusher
        .ask(["init", "pusher", "--root", root, "--listen", "somewhere"])
        .exits(2)
        .says(&["somewhere", "Next: "]);
    pair.pusher
        .ask(["init", "pusher", "--root", root, "--name", "a/b"])
        .code
        .ne(&0)
        .then_some(())
        .unwrap();
    assert!(!pair.pusher.home.exists(), "nothing was made");
    pair.init();
    pair.pusher
        .ask(["init", "pusher", "--root", root])
        .exits(1)
        .says(&["settings already"]);
    pair.pusher
        .ask(["receiver"])
        .exits(64)
        .says(&["home of a pusher", "Next: "]);

    let rights =
        |mode| fs::set_permissions(&pair.pusher.home, fs::Permissions::from_mode(mode)).unwrap();
    rights(0o777);
    pair.pusher
        .ask(["pusher"])
        .exits(77)
        .says(&["open to other users", "Next: run `chmod 700"]);
    rights(0o700);
    write(&pair.pusher.home, ".env", "KEY=value\n");
    fs::set_permissions(
        pair.pusher.home.join(".env"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    pair.pusher
        .ask(["pusher"])
        .exits(77)
        .says(&[".env", "Next: "]);
    assert!(
        !pair.pusher.root.join(".layer-sync").exists(),
        "the root is as it was"
    );
}

#[test]
fn a_root_inside_another_one() {
    let pair = Pair::running();
    let inner = pair.pusher.root.join("inner");
    write(&inner, "file", "1");
    pair.flush();
    let node = Node::new(Side::Pusher, pair.scratch().join("other"), inner.clone());
    node.ask([
        "init",
        "pusher",
        "--listen",
        "127.0.0.1:0",
        "--root",
        inner.to_str().unwrap(),
    ]);
    node.ask(["pusher"])
        .exits(64)
        .says(&["inside another synced folder", inner.to_str().unwrap()]);
    assert_eq!(names(&inner), ["file"]);
    assert!(!inner.join(".layer-sync").exists());
    pair.flush();
}

#[test]
fn pairing_codes_that_are_wrong() {
    let mut pair = Pair::strangers();
    pair.init();
    pair.pusher.start();
    let code = pair.code();
    let untouched = |root: &Path, home: &Path| {
        assert!(!root.join(".layer-sync").exists());
        assert!(
            !home.join("config.toml").exists(),
            "no settings are left of a node that is none"
        );
    };
    // A code with any one character changed says so itself, before anything is sent.
    let third = pair.third();
    for at in [0, code.len() / 2, code.len() - 1] {
        let other = if code.as_bytes()[at] == b'A' {
            "B"
        } else {
            "A"
        };
        let damaged = format!("{}{other}{}", &code[..at], &code[at + 1..]);
        pair.join(&third, &damaged)
            .exits(1)
            .says(&["Next: copy the whole code"]);
    }
    for damaged in [
        "",
        "LS1",
        "hello",
        &code[..code.len() / 2],
        &format!("{code}{code}"),
    ] {
        pair.join(&third, damaged)
            .exits(1)
            .says(&["Next: copy the whole code"]);
    }
    untouched(&third.root, &third.home);

    pair.join(&pair.receiver, &code).exits(0);
    pair.join(&third, &code)
        .exits(1)
        .says(&["Next: `layer-sync pair` on the pusher"]);
    untouched(&third.root, &third.home);
    // It did not disturb those who are paired.
    pair.receiver.start();
    pair.meet();
    write(&pair.pusher.root, "a", "1");
    pair.flush();
    // A newer code makes the one before it worthless.
    let (old, _new) = (pair.code(), pair.code());
    pair.join(&third, &old).exits(1);
    // Nobody answers.
    let code = pair.code();
    pair.pusher.stop();
    pair.join(&third, &code).exits(1).says(&["Next: "]);
    untouched(&third.root, &third.home);
}

#[test]
fn a_receiver_without_a_partner() {
    let mut pair = Pair::joined();
    fs::remove_file(pair.receiver.home.join("state/partner.json")).unwrap();
    pair.receiver
        .ask(["receiver"])
        .exits(64)
        .says(&["never paired", "Next: run `layer-sync pair`"]);
    assert_eq!(names(&pair.receiver.root), [""; 0]);
    // A pusher without one runs, and says so.
    pair.pusher.stop();
    let mut lone = Pair::strangers();
    lone.init();
    lone.pusher.start();
    lone.pusher.problem("degraded.unpaired");
    assert_eq!(lone.pusher.status()["peer"]["state"], "unpaired");
    assert!(!lone.pusher.in_sync());
}

#[test]
fn a_receiver_that_was_replaced() {
    let mut pair = Pair::running();
    write(&pair.pusher.root, "a", "1");
    pair.flush();
    pair.receiver.stop();
    let code = pair.code();
    let mut third = pair.third();
    pair.join(&third, &code).exits(0);
    // The old one is refused, says so, and goes on without doing harm.
    write(&pair.receiver.root, "a", "from a stranger");
    pair.receiver.start();
    let refused = || {
        pair.receiver.problem("degraded.unlinked")["text"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    wait_until("the old receiver says that it is refused", SOON, || {
        let text = refused();
        text.contains("pair") || text.contains("key") || text.contains("refuse")
    });
    println!("{}", refused());
    assert!(!pair.receiver.in_sync());
    pair.receiver.ask(["status", "--check"]).exits(4);
    third.start();
    wait_until("the new one is linked", SOON, || {
        third.status()["peer"]["state"] == "linked"
    });
    pair.pusher.ask(["flush"]).exits(0);
    assert_equal(&pair.pusher.root, &third.root);
    assert_eq!(read(&third.root, "a").as_deref(), Some("1"));
    assert_eq!(names(&third.root), ["a"]);
}

#[test]
fn a_root_that_was_emptied_or_replaced() {
    let mut pair = Pair::running();
    (0..20).for_each(|i| write(&pair.pusher.root, &format!("{i}"), "1"));
    pair.flush();
    pair.receiver.stop();
    // Everything is gone, with the private folder: another folder than the one that was synced.
    fs::rename(&pair.receiver.root, pair.scratch().join("aside")).unwrap();
    pair.receiver
        .ask(["receiver"])
        .exits(64)
        .says(&["not a directory"]);
    fs::create_dir(&pair.receiver.root).unwrap();
    pair.receiver
        .ask(["receiver"])
        .exits(64)
        .says(&["no longer carries its marker"]);
    // A copy of the other replica.
    fs::remove_dir(&pair.receiver.root).unwrap();
    run(
        "cp",
        [
            "-a",
            pair.pusher.root.to_str().unwrap(),
            pair.receiver.root.to_str().unwrap(),
        ],
    )
    .exits(0);
    pair.receiver
        .ask(["receiver"])
        .exits(64)
        .says(&["marker of another replica"]);
    assert_eq!(
        names(&pair.pusher.root).len(),
        20,
        "nothing was taken for deleted"
    );

    fs::remove_dir_all(&pair.receiver.root).unwrap();
    fs::rename(pair.scratch().join("aside"), &pair.receiver.root).unwrap();
    pair.receiver.start();
    pair.flush();
    // The same while it runs.
    fs::rename(&pair.receiver.root, pair.scratch().join("aside")).unwrap();
    pair.pusher.ask(["flush", "--timeout", "3s"]);
    pair.receiver.problem("halted.root");
    pair.receiver.ask(["status", "--check"]).exits(5);
    assert_eq!(
        names(&pair.pusher.root).len(),
        20,
        "nothing was taken for deleted"
    );
    fs::rename(pair.scratch().join("aside"), &pair.receiver.root).unwrap();
    pair.flush();
    wait_until("it goes on by itself", SOON, || {
        pair.receiver.ask(["status", "--check"]).code == 0
    });
}
