//! What was replaced or deleted comes back with one command.

use std::fs;

use serde_json::Value;

use crate::harness::{Node, Pair, Side, read, write};

/// Saves as an editor does, by a rename: an empty file on the way would be a version, too.
#[track_caller]
fn save(pair: &Pair, node: &Node, path: &str, content: &str) {
    write(pair.scratch(), "fresh", content);
    let file = node.root.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::rename(pair.scratch().join("fresh"), file).unwrap();
}

#[track_caller]
fn versions(node: &Node, path: &str) -> Vec<Value> {
    node.ask(["versions", path, "--json"])
        .exits(0)
        .json()
        .as_array()
        .unwrap()
        .clone()
}

/// Returns the version that has a length, and checks that it is listed with all that it should have.
#[track_caller]
fn version_of(node: &Node, path: &str, content: &str) -> String {
    let versions = versions(node, path);
    let found = versions
        .iter()
        .find(|version| version["len"] == content.len());
    let found = found.unwrap_or_else(|| panic!("no {} bytes in {versions:#?}", content.len()));
    let complete = ["version", "at", "content", "why", "node"]
        .iter()
        .all(|key| !found[key].is_null());
    assert!(complete, "{found}");
    found["version"].as_str().unwrap().to_owned()
}

#[test]
fn what_the_other_side_replaced_or_deleted_is_restored() {
    for (here, there) in [
        (Side::Pusher, Side::Receiver),
        (Side::Receiver, Side::Pusher),
    ] {
        let pair = Pair::running();
        let (from, to) = (pair.node(here), pair.node(there));
        for content in ["1", "22", "333"] {
            save(&pair, from, "notes/plan.md", content);
            save(&pair, from, "notes/gone.md", content);
            pair.flush();
        }
        fs::remove_file(from.root.join("notes/gone.md")).unwrap();
        pair.flush();
        // Displaced on the side where the changes arrived: newest first.
        let lens: Vec<_> = versions(to, "notes/plan.md")
            .iter()
            .map(|version| version["len"].clone())
            .collect();
        assert_eq!(lens, [2, 1]);
        let lens: Vec<_> = versions(to, "notes/gone.md")
            .iter()
            .map(|version| version["len"].clone())
            .collect();
        assert_eq!(lens, [3, 2, 1]);
        // The other side lists them too, though it keeps none of them itself.
        assert_eq!(versions(from, "notes/gone.md").len(), 3);

        // Where it is kept, and from the other machine; the latest, and one by its name.
        to.ask(["restore", "notes/plan.md"]).exits(0);
        assert_eq!(
            read(&to.root, "notes/plan.md").as_deref(),
            Some("22"),
            "it is there when the command returns"
        );
        pair.flush();
        let oldest = version_of(from, "notes/plan.md", "1");
        let said = from
            .ask(["restore", "notes/plan.md", "--version", &oldest, "--json"])
            .exits(0)
            .json();
        assert_eq!(
            (&said["path"], &said["version"]["len"]),
            (&"notes/plan.md".into(), &1.into()),
            "{said}"
        );
        pair.flush();
        assert_eq!(read(&from.root, "notes/plan.md").as_deref(), Some("1"));
        // Nothing that stood there on the way is lost.
        version_of(to, "notes/plan.md", "333");
        version_of(to, "notes/plan.md", "22");

        // What was deleted, by either machine.
        from.ask(["restore", "notes/gone.md"]).exits(0);
        pair.flush();
        assert_eq!(read(&from.root, "notes/gone.md").as_deref(), Some("333"));
        fs::remove_dir_all(from.root.join("notes")).unwrap();
        pair.flush();
        let oldest = version_of(to, "notes/gone.md", "1");
        to.ask(["restore", "notes/gone.md", "--version", &oldest])
            .exits(0);
        pair.flush();
        assert_eq!(
            read(&from.root, "notes/gone.md").as_deref(),
            Some("1"),
            "with its directory"
        );
    }
}

#[test]
fn restore_by_time() {
    let pair = Pair::running();
    for content in ["1", "22", "333"] {
        save(&pair, &pair.pusher, "plan.md", content);
        pair.flush();
    }
    let first = versions(&pair.receiver, "plan.md").last().unwrap()["at"]
        .as_u64()
        .unwrap();
    let before = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
        - first
        + 500;
    pair.receiver
        .ask(["restore", "plan.md", "--at", &format!("{before}ms")])
        .exits(0);
    assert_eq!(read(&pair.receiver.root, "plan.md").as_deref(), Some("1"));
    pair.flush();
}

#[test]
fn what_cannot_be_restored() {
    let pair = Pair::running();
    save(&pair, &pair.pusher, "plan.md", "1");
    pair.flush();
    save(&pair, &pair.pusher, "plan.md", "22");
    pair.flush();
    for node in pair.nodes() {
        node.ask(["restore", "never.md"])
            .exits(1)
            .says(&["never.md", "no such version"]);
        node.ask(["restore", "plan.md", "--version", "nonsense"])
            .exits(1)
            .says(&["plan.md", "no such version"]);
        node.ask(["restore", "../outside"])
            .exits(2)
            .says(&["outside the root"]);
        node.ask(["restore", "plan.md", "--at", "tomorrow-ish"])
            .exits(2)
            .says(&["no time"]);
        assert_eq!(
            node.ask(["versions", "never.md", "--json"]).exits(0).json(),
            serde_json::json!([])
        );
        assert_eq!(read(&node.root, "plan.md").as_deref(), Some("22"));
    }
}
