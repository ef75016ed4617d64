//! What stays on its own machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Pair, SOON, Side, difference, names, read, wait_until, write};

const SECRETS: [&str; 10] = [
    ".env",
    ".env.local",
    "sub/.env",
    "id_rsa",
    "id_ed25519",
    "tls-key.pem",
    "store.p12",
    ".note.md.swp",
    ".DS_Store",
    "._note.md",
];

#[test]
fn secrets_and_litter_never_travel() {
    let pair = Pair::running();
    for (node, text) in [
        (&pair.pusher, "the pusher's"),
        (&pair.receiver, "the receiver's"),
    ] {
        SECRETS
            .iter()
            .for_each(|path| write(&node.root, path, text));
        write(&node.root, &format!("sub/{}.md", node.side.name()), text);
    }
    pair.pusher.ask(["flush"]).exits(0);
    pair.pusher.ask(["verify"]).exits(0);
    for (node, text) in [
        (&pair.pusher, "the pusher's"),
        (&pair.receiver, "the receiver's"),
    ] {
        SECRETS
            .iter()
            .for_each(|path| assert_eq!(read(&node.root, path).as_deref(), Some(text), "{path}"));
        assert_eq!(
            names(&node.root.join("sub")),
            [".env", "pusher.md", "receiver.md"]
        );
    }
    // Deleted on one side, it stays on the other.
    fs::remove_file(pair.pusher.root.join(".env")).unwrap();
    pair.pusher.ask(["flush"]).exits(0);
    assert_eq!(
        read(&pair.receiver.root, ".env").as_deref(),
        Some("the receiver's")
    );
    assert!(!pair.pusher.root.join(".env").exists());
}

#[test]
fn rules_from_one_side_hold_on_both_and_delete_nothing() {
    for by in [Side::Pusher, Side::Receiver] {
        let pair = Pair::running();
        for path in [
            "build/out.o",
            "build/deep/out.o",
            "notes/a.tmp",
            "notes/keep.tmp",
            "notes/a.md",
        ] {
            write(&pair.pusher.root, path, "1");
        }
        pair.flush();
        write(
            &pair.node(by).root,
            ".layerignore",
            "build/\n*.tmp\n!keep.tmp\n",
        );
        pair.flush();
        // Nothing was deleted anywhere, and from now on each side has its own.
        let [pusher, receiver] = pair.roots();
        write(&pusher, "build/out.o", "the pusher's");
        write(&receiver, "build/out.o", "the receiver's");
        write(&receiver, "build/new.o", "1");
        write(&receiver, "notes/keep.tmp", "2");
        write(&pusher, "notes/a.md", "2");
        fs::remove_file(pusher.join("notes/a.tmp")).unwrap();
        pair.pusher.ask(["flush"]).exits(0);
        pair.receiver.ask(["verify"]).exits(0);
        assert_eq!(
            read(&pusher, "build/out.o").as_deref(),
            Some("the pusher's")
        );
        assert_eq!(
            read(&receiver, "build/out.o").as_deref(),
            Some("the receiver's")
        );
        assert_eq!(names(&pusher.join("build")), ["deep", "out.o"]);
        assert_eq!(names(&receiver.join("build")), ["deep", "new.o", "out.o"]);
        assert_eq!(
            names(&receiver.join("notes")),
            ["a.md", "a.tmp", "keep.tmp"]
        );
        assert_eq!(read(&pusher, "notes/keep.tmp").as_deref(), Some("2"));
        assert_eq!(read(&receiver, "notes/a.md").as_deref(), Some("2"));
        assert_eq!(
            pair.receiver
                .ask(["why", "build/out.o", "--json"])
                .exits(0)
                .json()["state"],
            "ignored"
        );

        // Without the rules everything is of interest again, and again nothing is deleted.
        fs::remove_file(pair.node(by).root.join(".layerignore")).unwrap();
        let lists = || {
            names(&pusher.join("build"))
                .iter()
                .filter(|name| !name.contains("conflict"))
                .cloned()
                .collect::<Vec<_>>()
        };
        wait_until("the trees are equal again", SOON, || {
            pair.pusher.ask(["flush"]).exits(0);
            difference(&pusher, &receiver).is_none()
        });
        assert_eq!(lists(), ["deep", "new.o", "out.o"]);
        assert!(read(&pusher, "notes/a.tmp").is_none_or(|text| text == "1"));
    }
}

#[test]
fn broken_rules_change_nothing() {
    let pair = Pair::running();
    write(&pair.pusher.root, ".layerignore", "*.tmp\n");
    pair.flush();
    write(&pair.pusher.root, ".layerignore", "*.tmp\na[z-a]\n");
    pair.flush();
    let problem = pair.pusher.problem("degraded.ignore");
    assert!(
        problem["text"].as_str().unwrap().contains("line 2"),
        "{problem}"
    );
    write(&pair.pusher.root, "a.tmp", "1");
    write(&pair.pusher.root, "a.md", "1");
    pair.pusher.ask(["flush"]).exits(0);
    assert_eq!(names(&pair.receiver.root), [".layerignore", "a.md"]);
    // Right again, and marked as a program, which is nothing to the rules.
    write(&pair.pusher.root, ".layerignore", "*.bak\n");
    fs::set_permissions(
        pair.pusher.root.join(".layerignore"),
        Permissions::from_mode(0o755),
    )
    .unwrap();
    wait_until("the rules are right again", SOON, || {
        pair.pusher.ask(["flush"]).exits(0);
        names(&pair.receiver.root) == [".layerignore", "a.md", "a.tmp"]
            && pair.pusher.problems().is_empty()
    });
}
