//! Both sides change the same file while they cannot talk.

use std::fs;
use std::path::Path;

use crate::harness::{Pair, SOON, Side, names, read, run, wait_until, write};

/// Times that the same conflict is met.
const AGAIN: usize = 20;

/// Changes the same path on both sides while one of them does not run.
#[track_caller]
fn apart(pair: &mut Pair, away: Side, path: &str, pusher: &str, receiver: &str) {
    pair.node_mut(away).stop();
    write(&pair.pusher.root, path, pusher);
    write(&pair.receiver.root, path, receiver);
    pair.node_mut(away).start();
    pair.flush();
}

/// Says whether a name is that of a conflict copy: `plan (conflict mac 2026-11-22 211405 1a2b3c4d).md`.
fn is_copy(name: &str, stem: &str, node: &str, ext: &str) -> bool {
    let inner = name
        .strip_prefix(&format!("{stem} (conflict {node} "))
        .and_then(|rest| rest.strip_suffix(&format!("){ext}")));
    let shape = inner.map(|inner| {
        inner
            .chars()
            .map(|c| if c.is_ascii_hexdigit() { '0' } else { c })
            .collect::<String>()
    });
    shape.as_deref() == Some("0000-00-00 000000 00000000")
}

#[test]
fn both_versions_live_on_in_one_copy() {
    for away in [Side::Receiver, Side::Pusher] {
        let mut pair = Pair::running();
        write(&pair.pusher.root, "notes/plan.md", "agreed");
        pair.flush();
        apart(
            &mut pair,
            away,
            "notes/plan.md",
            "the pusher's",
            "the receiver's",
        );
        for root in pair.roots() {
            let notes = root.join("notes");
            let found = names(&notes);
            assert_eq!(found.len(), 2, "{found:?}");
            assert!(is_copy(&found[0], "plan", "mac", ".md"), "{found:?}");
            assert_eq!(read(&notes, "plan.md").as_deref(), Some("the pusher's"));
            assert_eq!(read(&notes, &found[0]).as_deref(), Some("the receiver's"));
        }
        let copy = format!("notes/{}", names(&pair.pusher.root.join("notes"))[0]);
        for node in pair.nodes() {
            let listed = node.ask(["conflicts", "--json"]).exits(0).json();
            let listed = listed.as_array().unwrap();
            assert_eq!(listed.len(), 1, "{listed:?}");
            assert_eq!(
                (&listed[0]["path"], &listed[0]["copy"], &listed[0]["lost"]),
                (
                    &"notes/plan.md".into(),
                    &copy.as_str().into(),
                    &"mac".into()
                )
            );
            node.ask(["status", "--check"]).exits(4);
            wait_until("equal with a conflict is in sync", SOON, || node.in_sync());
            let sync = &node.status()["sync"];
            assert_eq!(
                (&sync["conflicts"], &sync["held"]),
                (&1.into(), &0.into()),
                "{sync}"
            );
        }
        // Resolved: by deleting the copy.
        fs::remove_file(pair.receiver.root.join(&copy)).unwrap();
        pair.flush();
        for node in pair.nodes() {
            assert_eq!(
                node.ask(["conflicts", "--json"]).exits(0).json(),
                serde_json::json!([])
            );
            wait_until("nothing is wrong any more", SOON, || {
                node.ask(["status", "--check"]).code == 0
            });
        }
    }
}

#[test]
fn the_same_conflict_again_adds_nothing() {
    let mut pair = Pair::running();
    for round in 0..AGAIN {
        write(
            &pair.pusher.root,
            "plan.md",
            format!("agreed, time {round}"),
        );
        pair.flush();
        let away = if round % 2 == 0 {
            Side::Receiver
        } else {
            Side::Pusher
        };
        apart(&mut pair, away, "plan.md", "the pusher's", "the receiver's");
        let found = names(&pair.receiver.root);
        assert_eq!(found.len(), 2, "time {round}: {found:?}");
        assert!(is_copy(&found[0], "plan", "mac", ".md"), "{found:?}");
    }
    let contents = names(&pair.pusher.root)
        .into_iter()
        .map(|name| read(&pair.pusher.root, &name).unwrap());
    assert_eq!(
        contents.collect::<Vec<_>>(),
        ["the receiver's", "the pusher's"]
    );
}

#[test]
fn every_kind_of_conflict_converges_and_loses_nothing() {
    // What the two sides do, and the contents that must be somewhere in both trees afterwards.
    let check = |name: &str, pusher: fn(&Path), receiver: fn(&Path), contents: &[&str]| {
        let mut pair = Pair::running();
        write(&pair.pusher.root, "x/file.md", "agreed");
        write(&pair.pusher.root, "x/dir/inside.md", "inside");
        pair.flush();
        pair.receiver.stop();
        pusher(&pair.pusher.root.join("x"));
        receiver(&pair.receiver.root.join("x"));
        pair.receiver.start();
        pair.flush();
        let found = run(
            "grep",
            [
                "-rhs",
                "--exclude-dir=.layer-sync",
                "",
                pair.receiver.root.to_str().unwrap(),
            ],
        );
        let mut found: Vec<_> = found.stdout.lines().collect();
        found.sort_unstable();
        assert_eq!(found, contents, "{name}");
    };
    let edit = |at: &Path| write(at, "file.md", "mine");
    let edit_inside = |at: &Path| write(at, "dir/inside.md", "mine");
    let delete = |at: &Path| fs::remove_file(at.join("file.md")).unwrap();
    let delete_dir = |at: &Path| fs::remove_dir_all(at.join("dir")).unwrap();
    let file_for_dir = |at: &Path| {
        fs::remove_dir_all(at.join("dir")).unwrap();
        write(at, "dir", "a file");
    };
    let dir_for_file = |at: &Path| {
        fs::remove_file(at.join("file.md")).unwrap();
        write(at, "file.md/below", "below");
    };
    let create_one = |at: &Path| write(at, "new.md", "one");
    let create_two = |at: &Path| write(at, "new.md", "two");
    type Act = fn(&Path);
    #[rustfmt::skip]
    let cases: [(&str, Act, Act, &[&str]); 11] = [
        // name                   pusher        receiver      contents
        ("same edit",             edit,         edit,         &["inside", "mine"]),
        ("edit, delete",          edit,         delete,       &["inside", "mine"]),
        ("delete, edit",          delete,       edit,         &["inside", "mine"]),
        ("both delete",           delete,       delete,       &["inside"]),
        ("create, create",        create_one,   create_two,      &["agreed", "inside", "one", "two"]),
        ("edit inside, delete",   edit_inside,  delete_dir,   &["agreed", "mine"]),
        ("delete, edit inside",   delete_dir,   edit_inside,  &["agreed", "mine"]),
        ("file for dir, inside",  file_for_dir, edit_inside,  &["a file", "agreed", "mine"]),
        ("inside, file for dir",  edit_inside,  file_for_dir, &["a file", "agreed", "mine"]),
        ("edit, dir for file",    edit,         dir_for_file, &["below", "inside", "mine"]),
        ("dir for file, edit",    dir_for_file, edit,         &["below", "inside", "mine"]),
    ];
    for (name, pusher, receiver, contents) in cases {
        check(name, pusher, receiver, contents);
    }
}
