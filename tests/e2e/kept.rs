//! What was replaced or deleted comes back with one command.

use std::fs;
use std::io::Write;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::harness::{Node, Pair, SOON, Side, read, wait_until, write};

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
        save(&pair, from, "stays.md", "no tree is emptied here");
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
    let before = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
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

/// Says a time in the past as the command takes it.
fn ago(time: SystemTime) -> String {
    format!("{}ms", time.elapsed().unwrap().as_millis())
}

#[test]
fn a_folder_as_it_was_from_what_both_machines_keep() {
    let pair = Pair::running();
    for (path, content) in [
        ("notes/a.md", "a1"),
        ("notes/sub/b.md", "b1"),
        ("notes/c.md", "c1"),
        ("notes/same.md", "same"),
        ("other.md", "o1"),
    ] {
        save(&pair, &pair.pusher, path, content);
    }
    pair.flush();
    std::thread::sleep(Duration::from_millis(20));
    let then = SystemTime::now();
    std::thread::sleep(Duration::from_millis(20));
    // These are kept on the receiver, where they were displaced ...
    for content in ["a2", "a3"] {
        save(&pair, &pair.pusher, "notes/a.md", content);
        pair.flush();
    }
    fs::remove_dir_all(pair.pusher.root.join("notes/sub")).unwrap();
    save(&pair, &pair.pusher, "other.md", "o2");
    pair.flush();
    // ... and this one on the pusher.
    save(&pair, &pair.receiver, "notes/c.md", "c2");
    save(&pair, &pair.receiver, "notes/new.md", "new");
    pair.flush();

    for node in pair.nodes() {
        let listed = versions(node, "notes");
        let mut paths: Vec<_> = listed
            .iter()
            .map(|version| version["path"].as_str().unwrap())
            .collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            ["notes/a.md", "notes/a.md", "notes/c.md", "notes/sub/b.md"]
        );
        let shown = node.ask(["versions", "notes"]).exits(0).stdout;
        assert!(
            shown.contains("notes/sub/b.md") && shown.contains("PATH"),
            "{shown}"
        );
    }
    let said = pair
        .receiver
        .ask(["restore", "notes", "--at", &ago(then), "--json"])
        .exits(0)
        .json();
    assert_eq!(
        (&said["restored"], &said["failures"], &said["incomplete"]),
        (&3.into(), &0.into(), &false.into()),
        "{said}"
    );
    pair.flush();
    for node in pair.nodes() {
        for (path, content) in [
            ("notes/a.md", "a1"),
            ("notes/sub/b.md", "b1"),
            ("notes/c.md", "c1"),
            ("notes/same.md", "same"),
            // What is newer stays, and so does what lies elsewhere.
            ("notes/new.md", "new"),
            ("other.md", "o2"),
        ] {
            assert_eq!(read(&node.root, path).as_deref(), Some(content), "{path}");
        }
    }
    // Nothing that stood there before is lost.
    version_of(&pair.receiver, "notes/a.md", "a3");
}

#[test]
fn a_deleted_folder_comes_back_with_all_that_went_with_it() {
    for (here, there) in [
        (Side::Pusher, Side::Receiver),
        (Side::Receiver, Side::Pusher),
    ] {
        let pair = Pair::running();
        let (from, to) = (pair.node(here), pair.node(there));
        save(&pair, from, "stays.md", "no tree is emptied here");
        let names: Vec<String> = (0..30)
            .map(|number| format!("notes/{}/{number}.md", number % 3))
            .collect();
        for name in &names {
            save(&pair, from, name, name);
        }
        pair.flush();
        fs::remove_dir_all(from.root.join("notes")).unwrap();
        pair.flush();
        assert!(!to.root.join("notes").exists());
        // From the machine that keeps none of it.
        let shown = from.ask(["restore", "notes"]).exits(0).stdout;
        assert_eq!(shown, "restored: 30 files below notes\n");
        pair.flush();
        for (node, name) in pair
            .nodes()
            .into_iter()
            .flat_map(|node| names.iter().map(move |n| (node, n)))
        {
            assert_eq!(read(&node.root, name).as_deref(), Some(name.as_str()));
        }
        from.ask(["restore", "notes"])
            .exits(1)
            .says(&["nothing that is kept of \"notes\"", "--at"]);
    }
}

#[test]
fn what_a_program_writes_to_a_replaced_file_comes_back_on_both_sides() {
    let pair = Pair::running();
    save(&pair, &pair.pusher, "chat.log", "one\n");
    pair.flush();
    // A program on the receiver's machine has it open when another version arrives.
    let mut program = fs::File::options()
        .append(true)
        .open(pair.receiver.root.join("chat.log"))
        .unwrap();
    save(&pair, &pair.pusher, "chat.log", "other\n");
    pair.flush();
    program.write_all(b"two\n").unwrap();
    let copy = |node: &Node| {
        let names = fs::read_dir(&node.root).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let copy = names
            .into_iter()
            .find(|name| name.starts_with("chat (conflict mac "))?;
        read(&node.root, &copy)
    };
    for node in pair.nodes() {
        wait_until("the copy", SOON, || {
            copy(node).as_deref() == Some("one\ntwo\n")
        });
        assert_eq!(read(&node.root, "chat.log").as_deref(), Some("other\n"));
    }
    let listed = versions(&pair.receiver, "chat.log");
    assert_eq!(listed[0]["why"], "written after it was replaced");
    pair.flush();
}
