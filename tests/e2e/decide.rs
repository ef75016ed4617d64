//! Conflicts that the settings answer otherwise than with a copy, and how people decide them.

use crate::harness::{Pair, Side, names, read, write};

/// A pair whose pusher has these patterns.
#[track_caller]
fn with(key: &str, patterns: &str) -> Pair {
    let mut pair = Pair::joined();
    pair.pusher.stop();
    pair.pusher
        .set(&format!("\n{key} = []"), &format!("\n{key} = {patterns}"));
    pair.pusher.start();
    pair.receiver.start();
    pair.meet();
    pair
}

/// Changes a path on both sides while they cannot talk.
#[track_caller]
fn apart(pair: &mut Pair, path: &str, pusher: &str, receiver: &str) {
    pair.receiver.stop();
    write(&pair.pusher.root, path, pusher);
    write(&pair.receiver.root, path, receiver);
    pair.receiver.start();
    pair.meet();
}

#[test]
fn appended_lines_are_united() {
    let mut pair = with("merge", r#"["*.jsonl"]"#);
    let base = "{\"n\":0}\n{\"n\":1}\n";
    write(&pair.pusher.root, "chat.jsonl", base);
    pair.flush();
    let (ours, theirs) = ("{\"vm\":1}\n{\"vm\":2}\n", "{\"mac\":1}\n");
    apart(
        &mut pair,
        "chat.jsonl",
        &format!("{base}{ours}"),
        &format!("{base}{theirs}"),
    );
    pair.flush();
    for root in pair.roots() {
        assert_eq!(names(&root), ["chat.jsonl"]);
        let merged = read(&root, "chat.jsonl").unwrap();
        assert_eq!(merged, format!("{base}{ours}{theirs}"));
    }
    // What each side had before can still be had.
    for node in pair.nodes() {
        let file = node.root.join("chat.jsonl");
        let versions = node
            .ask(["versions", "--json", file.to_str().unwrap()])
            .exits(0)
            .json();
        assert_eq!(versions.as_array().unwrap().len(), 2, "{versions}");
    }
}

#[test]
fn the_same_appended_lines_stay_apart_where_nobody_allows_a_merge() {
    let mut pair = Pair::running();
    write(&pair.pusher.root, "chat.jsonl", "0\n");
    pair.flush();
    apart(&mut pair, "chat.jsonl", "0\nvm\n", "0\nmac\n");
    pair.flush();
    for root in pair.roots() {
        let contents: Vec<_> = names(&root)
            .iter()
            .map(|name| read(&root, name).unwrap())
            .collect();
        assert_eq!(contents, ["0\nmac\n", "0\nvm\n"]);
    }
}

#[test]
fn text_is_merged_by_line_and_overlaps_are_not() {
    let mut pair = with("merge", r#"["*.md"]"#);
    let base = "one\ntwo\nthree\nfour\nfive\nsix\n";
    write(&pair.pusher.root, "a.md", base);
    write(&pair.pusher.root, "b.md", base);
    pair.flush();
    pair.receiver.stop();
    write(&pair.pusher.root, "a.md", base.replace("one", "ONE"));
    write(&pair.receiver.root, "a.md", base.replace("six", "SIX"));
    write(&pair.pusher.root, "b.md", base.replace("two", "deux"));
    write(&pair.receiver.root, "b.md", base.replace("two", "zwei"));
    pair.receiver.start();
    pair.meet();
    pair.flush();
    for root in pair.roots() {
        let both = base.replace("one", "ONE").replace("six", "SIX");
        assert_eq!(read(&root, "a.md").unwrap(), both);
        assert_eq!(read(&root, "b.md").unwrap(), base.replace("two", "deux"));
        assert_eq!(names(&root).len(), 3, "one copy beside them");
    }
}

#[test]
fn a_held_conflict_waits_for_a_word() {
    for (asked, keep, expected) in [
        (Side::Pusher, "mine", "the pusher's"),
        (Side::Pusher, "theirs", "the receiver's"),
        (Side::Receiver, "mine", "the receiver's"),
        (Side::Receiver, "both", "the pusher's"),
    ] {
        let mut pair = with("hold", r#"["*.key"]"#);
        write(&pair.pusher.root, "one.key", "agreed");
        pair.flush();
        apart(&mut pair, "one.key", "the pusher's", "the receiver's");
        let node = pair.node(asked);
        let problem = node.problem("held.undecided");
        assert!(
            problem["fix"].as_str().unwrap().contains("resolve"),
            "{problem}"
        );
        node.ask(["status", "--check"]).exits(4);
        assert_eq!(read(&pair.pusher.root, "one.key").unwrap(), "the pusher's");
        assert_eq!(
            read(&pair.receiver.root, "one.key").unwrap(),
            "the receiver's"
        );
        let listed = node.ask(["conflicts", "--json"]).exits(0).json();
        assert_eq!(listed[0]["held"], true, "{listed}");
        let file = node.root.join("one.key");
        node.ask(["resolve", file.to_str().unwrap(), "--keep", keep])
            .exits(0);
        pair.flush();
        assert_eq!(read(&pair.pusher.root, "one.key").unwrap(), expected);
        let files = if keep == "both" { 2 } else { 1 };
        assert_eq!(names(&pair.receiver.root).len(), files);
    }
}

#[test]
fn a_copy_is_decided_in_either_way() {
    for (asked, keep, expected) in [
        (Side::Pusher, "mine", &["the pusher's"][..]),
        (Side::Pusher, "theirs", &["the receiver's"]),
        (Side::Receiver, "mine", &["the receiver's"]),
        (Side::Receiver, "theirs", &["the pusher's"]),
        (Side::Receiver, "both", &["the receiver's", "the pusher's"]),
    ] {
        let mut pair = Pair::running();
        write(&pair.pusher.root, "plan.md", "agreed");
        pair.flush();
        apart(&mut pair, "plan.md", "the pusher's", "the receiver's");
        pair.flush();
        let node = pair.node(asked);
        let file = node.root.join("plan.md");
        node.ask(["resolve", file.to_str().unwrap(), "--keep", keep])
            .exits(0);
        pair.flush();
        for root in pair.roots() {
            let contents: Vec<_> = names(&root)
                .iter()
                .map(|name| read(&root, name).unwrap())
                .collect();
            assert_eq!(contents, expected, "{asked:?} {keep}");
        }
        let listed = node.ask(["conflicts", "--json"]).exits(0).json();
        assert_eq!(listed, serde_json::json!([]));
        node.ask(["resolve", file.to_str().unwrap(), "--keep", keep])
            .exits(1);
    }
}
