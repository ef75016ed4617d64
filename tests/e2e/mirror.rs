//! The third copy: in a folder, and in a Drive; as the road when the link is down; and as what a tree is made of again.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    Call, DriveApi, Node, Pair, Relay, SHARED_DRIVE, SOON, layer_sync, oauth, read, service,
    snapshot, wait_until, wish, write,
};

/// How long the link is down before the mirror is the road, and how often it is looked at then.
const SOON_ROAD: &str = "after = \"2s\"\npoll = \"1s\"";

/// Writes a section of settings.
fn section(node: &Node, lines: &str) {
    let file = node.home.join("config.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once("[mirror]\n").unwrap();
    let (_, after) = rest.split_once("\n[").unwrap();
    fs::write(file, format!("{before}[mirror]\n{lines}\n\n[{after}")).unwrap();
}

fn to_folder(node: &Node, folder: &Path) {
    let lines = format!("target = \"folder\"\nfolder = {:?}\n{SOON_ROAD}", folder);
    section(node, &lines);
}

/// Has a node mirror to Drive, as after `mirror auth`.
fn to_drive(node: &Node, api: &DriveApi, all: bool) {
    let lines = format!(
        "target = \"drive\"\nname = \"knowledge\"\nbudget = 60000\napi = \"{}\"\n{SOON_ROAD}",
        api.url()
    );
    section(node, &lines);
    consent(&node.home, api, all);
}

fn consent(home: &Path, api: &DriveApi, all: bool) {
    let url = api.url();
    let scope = match all {
        true => "https://www.googleapis.com/auth/drive",
        false => "https://www.googleapis.com/auth/drive.file",
    };
    let client = json!({
        "id": oauth::CLIENT_ID, "secret": oauth::CLIENT_SECRET, "token_uri": format!("{url}/token"),
        "auth_uri": format!("{url}/o/oauth2/auth"), "device_uri": format!("{url}/device/code"),
    });
    let person =
        json!({ "client": client, "refresh_token": api.refresh_token(all), "scope": scope });
    let stored = json!({ "api": url, "credentials": { "person": person } });
    fs::create_dir_all(home.join("keys")).unwrap();
    fs::write(home.join("keys/drive.json"), stored.to_string()).unwrap();
}

/// A pusher that was never paired, with a mirror in Drive.
fn alone(api: &DriveApi) -> Pair {
    let pair = Pair::strangers();
    pair.init();
    to_drive(&pair.pusher, api, true);
    pair
}

fn mirror(node: &Node) -> Value {
    node.status()["mirror"].clone()
}

/// Brings the mirror of a node up to date.
#[track_caller]
fn push(node: &Node) -> Value {
    node.ask(["mirror", "push", "--json"]).exits(0).json()
}

/// Has a node not wait until it would have tried again.
fn tries_now(node: &Node) {
    wait_until("it is the one that pushes", SOON, || {
        node.ask(["mirror", "push", "--json"]).code == 0
    });
}

/// Returns what a person sees in Drive, with the bytes of files.
fn in_drive(api: &DriveApi) -> Vec<(String, Option<String>)> {
    let Some(folder) = api.folder("knowledge") else {
        return Vec::new();
    };
    let seen = api.seen(&folder).into_iter();
    let text = |bytes: Option<hyper::body::Bytes>| {
        bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    seen.map(|seen| (seen.path, text(seen.bytes))).collect()
}

fn count(calls: &[Call], kind: &str) -> usize {
    calls.iter().filter(|call| call.kind == kind).count()
}

fn sent(calls: &[Call]) -> u64 {
    calls.iter().map(|call| call.sent).sum()
}

#[test]
fn a_folder_is_mirrored_in_one_command_and_restored_elsewhere() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let (source, home) = (at("source"), at("home"));
    write(&source, "notes/a.md", "one");
    write(&source, "run.sh", "#!/bin/sh\n");
    let exec = fs::Permissions::from_mode(0o755);
    fs::set_permissions(source.join("run.sh"), exec).unwrap();
    symlink("notes/a.md", source.join("link")).unwrap();
    fs::create_dir(source.join("empty")).unwrap();
    write(&source, ".env", "SECRET=1");
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let ask = |all: &[&str]| layer_sync(&home, words(all));
    let (from, to, back) = (
        source.to_str().unwrap(),
        at("mirror").display().to_string(),
        at("back").display().to_string(),
    );
    let said = ask(&["mirror", "push", from, &to]).exits(0).stdout;
    assert!(said.contains("3 files written"), "{said}");
    let said = ask(&["mirror", "push", from, &to]).exits(0).stdout;
    assert!(said.contains("nothing to do"), "{said}");
    let said = ask(&["mirror", "restore", &back, "--from", &to])
        .exits(0)
        .stdout;
    assert!(said.contains("restored and verified: 3 files"), "{said}");
    fs::remove_file(source.join(".env")).unwrap();
    assert_eq!(snapshot(&source), snapshot(Path::new(&back)));
    // Again, it finds all of it; what is something else by now stays.
    let said = ask(&["mirror", "restore", &back, "--from", &to])
        .exits(0)
        .stdout;
    assert!(said.contains("3 of them stood there already"), "{said}");
    write(Path::new(&back), "notes/a.md", "mine");
    let said = ask(&["mirror", "restore", &back, "--from", &to])
        .exits(4)
        .stdout;
    assert!(
        said.contains("something else stands there already"),
        "{said}"
    );
    assert_eq!(
        read(Path::new(&back), "notes/a.md").as_deref(),
        Some("mine")
    );
    // What is no mirror is none, and a tree of a node has its own settings.
    let nothing = ask(&[
        "mirror",
        "restore",
        &at("x").display().to_string(),
        "--from",
        from,
    ]);
    assert!(nothing.exits(1).stderr.contains("holds no mirror"));
    let inside = ask(&["mirror", "push", from, &format!("{from}/inside")]);
    assert!(inside.exits(2).stderr.contains("lies inside the other"));
}

#[test]
fn calls_and_bytes_follow_the_change() {
    let files = wish("MIRROR_FILES").unwrap_or(300);
    let api = DriveApi::start();
    let mut pair = alone(&api);
    let root = pair.pusher.root.clone();
    let text = |number: u64, edit: &str| format!("note {number}, {edit}\n").repeat(20);
    for number in 0..files {
        let name = format!("d{}/n{number}.md", number % 20);
        write(&root, &name, text(number, "first"));
    }
    pair.pusher.start();
    push(&pair.pusher);
    let first = api.take_calls();
    assert_eq!(count(&first, "upload.whole"), files as usize);
    println!(
        "first: {} calls, {} bytes for {files} files",
        first.len(),
        sent(&first)
    );

    // 2 % change, 1 % move, 0.4 % go.
    let (changed, moved, gone) = (files / 50, files / 100, files / 250);
    pair.pusher.stop();
    for number in 0..changed {
        let name = format!("d{}/n{number}.md", number % 20);
        write(&root, &name, text(number, "second"));
    }
    fs::create_dir(root.join("moved")).unwrap();
    for number in changed..changed + moved {
        let name = format!("d{}/n{number}.md", number % 20);
        fs::rename(root.join(&name), root.join(format!("moved/n{number}.md"))).unwrap();
    }
    for number in changed + moved..changed + moved + gone {
        fs::remove_file(root.join(format!("d{}/n{number}.md", number % 20))).unwrap();
    }
    api.take_calls();
    pair.pusher.start();
    push(&pair.pusher);
    let second = api.take_calls();
    println!(
        "second: {changed} change, {moved} move, {gone} go: {} calls, {} bytes",
        second.len(),
        sent(&second)
    );
    let work = (changed + moved + gone) as usize;
    // Each is looked at before it is changed; the rest is the token, the root, the changes, the new folder.
    assert!(
        second.len() <= 2 * work + 20,
        "{} calls for {work}",
        second.len()
    );
    assert_eq!(
        count(&second, "upload.whole"),
        changed as usize,
        "a move sends no bytes"
    );
    assert!(
        sent(&second) <= 4000 * work as u64 + 4000,
        "{} bytes",
        sent(&second)
    );

    // A third time there is nothing to do, and one call says so.
    push(&pair.pusher);
    let third: Vec<&str> = api.take_calls().iter().map(|call| call.kind).collect();
    assert_eq!(third, ["changes.list"]);
}

#[test]
fn an_upload_that_is_cut_off_goes_on() {
    let len = wish("MIRROR_BYTES").unwrap_or(40 << 20);
    let api = DriveApi::start();
    let mut pair = alone(&api);
    let bytes: Vec<u8> = (0..len).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    write(&pair.pusher.root, "long.bin", &bytes);
    api.throttle(Some(len / 4));
    pair.pusher.start();
    for _ in 0..2 {
        let before = api.uploading();
        wait_until("some of it has come", SOON, || {
            api.uploading() >= before + len / 4
        });
        pair.pusher.kill();
        pair.pusher.start();
    }
    api.throttle(None);
    wait_until("all of it has come", SOON, || in_drive(&api).len() == 1);
    let folder = api.folder("knowledge").unwrap();
    assert!(api.bytes(&folder, "long.bin").unwrap() == bytes);
    let calls = api.calls();
    let share = sent(&calls) as f64 / len as f64;
    println!("killed twice: {share:.3} times the {len} bytes were sent");
    assert_eq!(count(&calls, "upload.begin"), 1, "it is one upload");
    assert!(share < 1.2, "{share}");
}

#[test]
fn a_cut_link_leaves_the_mirror_and_its_return_undoes_nothing() {
    let api = DriveApi::start();
    let relay = std::cell::OnceCell::new();
    let mut pair = Pair::joined_through(|pusher| {
        let made = Relay::start(pusher);
        let address = made.addr();
        relay.set(made).ok();
        address
    });
    let relay = relay.get().unwrap();
    for node in [&pair.pusher, &pair.receiver] {
        to_drive(node, &api, false);
    }
    pair.pusher.stop();
    pair.pusher.start();
    pair.receiver.start();
    for name in ["both.md", "edited", "gone here", "gone there", "kept"] {
        write(&pair.pusher.root, name, "1");
    }
    pair.flush();
    wait_until("somebody is primary and mirrors", SOON, || {
        in_drive(&api).len() == 5
    });
    assert_eq!(mirror(&pair.pusher)["road"], "direct");

    // Three edits and a deletion that the mirror does not hear of.
    api.cut(true);
    for edit in 2..5 {
        write(&pair.pusher.root, "edited", edit.to_string());
        pair.flush();
    }
    fs::remove_file(pair.receiver.root.join("kept")).unwrap();
    pair.flush();
    relay.cut();
    wait_until("the link is down", SOON, || {
        let state = |node: &Node| node.status()["peer"]["state"].clone();
        state(&pair.pusher) == "unlinked" && state(&pair.receiver) == "unlinked"
    });
    write(&pair.receiver.root, "from there", "mac");
    write(&pair.pusher.root, "from here", "vm");
    fs::remove_file(pair.pusher.root.join("gone here")).unwrap();
    fs::remove_file(pair.receiver.root.join("gone there")).unwrap();
    api.cut(false);
    pair.nodes().into_iter().for_each(tries_now);
    let both = |pair: &Pair| [snapshot(&pair.pusher.root), snapshot(&pair.receiver.root)];
    wait_until("they cross by the mirror", SOON, || {
        let [here, there] = both(&pair);
        here == there && read(&pair.receiver.root, "from here").is_some()
    });
    let road = mirror(&pair.pusher);
    assert_eq!(road["road"], "mirror", "{road}");
    // To and fro, many times.
    let turns = wish("MIRROR_TURNS").unwrap_or(5);
    let mut slowest = Duration::ZERO;
    for turn in 0..turns {
        for (from, to) in [
            (&pair.pusher, &pair.receiver),
            (&pair.receiver, &pair.pusher),
        ] {
            let text = format!("{turn} of the {}", from.side.name());
            let wrote = Instant::now();
            write(&from.root, "both.md", &text);
            wait_until("it crosses", SOON, || {
                read(&to.root, "both.md").as_deref() == Some(&text)
            });
            slowest = slowest.max(wrote.elapsed());
        }
    }
    println!("{turns} times to and fro, the slowest in {slowest:?}");
    // The link comes back in the midst of it: what crossed was edited, and removed, and that has not crossed.
    write(&pair.pusher.root, "made", "1");
    wait_until("it crosses", SOON, || {
        read(&pair.receiver.root, "made").is_some()
    });
    api.cut(true);
    write(&pair.pusher.root, "both.md", "an edit of an edit");
    write(
        &pair.receiver.root,
        "from here",
        "an edit there of what came",
    );
    fs::remove_file(pair.pusher.root.join("made")).unwrap();
    relay.mend();
    pair.meet();
    pair.flush();
    api.cut(false);
    tries_now(&pair.pusher);
    let [here, there] = both(&pair);
    assert_eq!(here, there);
    let names: Vec<String> = fs::read_dir(&pair.pusher.root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".layer-sync")
        .collect();
    let mut names = names;
    names.sort();
    assert_eq!(
        names,
        ["both.md", "edited", "from here", "from there"],
        "nothing resurrected, no copy of a conflict"
    );
    for (name, text) in [
        ("edited", "4"),
        ("both.md", "an edit of an edit"),
        ("from here", "an edit there of what came"),
    ] {
        assert_eq!(read(&pair.receiver.root, name).as_deref(), Some(text));
    }
    wait_until("the mirror has the same", SOON, || {
        let seen = in_drive(&api);
        seen.len() == 4
            && seen
                .iter()
                .all(|(name, text)| read(&pair.pusher.root, name) == *text)
    });
    wait_until("the road is direct", SOON, || {
        mirror(&pair.pusher)["road"] == "direct"
    });
}

#[test]
fn a_tree_comes_back_when_both_machines_are_gone() {
    let api = DriveApi::start();
    let mut pair = alone(&api);
    let root = pair.pusher.root.clone();
    write(&root, "notes/a.md", "one");
    write(&root, "long.bin", vec![7; 9_000_000]);
    write(&root, "run.sh", "#!/bin/sh\n");
    let exec = fs::Permissions::from_mode(0o755);
    fs::set_permissions(root.join("run.sh"), exec).unwrap();
    symlink("../elsewhere", root.join("notes/link")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    pair.pusher.start();
    push(&pair.pusher);
    let before = snapshot(&root);
    let verified = pair
        .pusher
        .ask(["mirror", "verify", "--json"])
        .exits(0)
        .json();
    assert_eq!(
        (&verified["equal"], &verified["differences"]),
        (&json!(4), &json!(0))
    );
    pair.pusher.stop();

    // An empty home, and a consent.
    let mut fresh = Pair::strangers();
    let home = fresh.pusher.home.clone();
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    consent(&home, &api, false);
    let dir = fresh.pusher.root.clone();
    let words = [
        "mirror",
        "restore",
        dir.to_str().unwrap(),
        "--from",
        "drive:knowledge",
    ];
    // It is cut short, and goes on.
    api.refuse_next("files.download", 404, "notFound", 1);
    layer_sync(&home, words).exits(4);
    let said = layer_sync(&home, words).exits(0).stdout;
    assert!(said.contains("restored and verified: 4 files"), "{said}");
    assert_eq!(snapshot(&dir), before);
    // It is a node again, and a second machine joins it.
    fresh.pair();
    fresh.flush();
    assert_eq!(snapshot(&fresh.receiver.root), before);
    // The mirror is the same one, and has nothing to send.
    to_drive(&fresh.pusher, &api, false);
    fresh.pusher.stop();
    api.take_calls();
    fresh.pusher.start();
    wait_until("it sees to the mirror", SOON, || {
        let mirror = mirror(&fresh.pusher);
        mirror["state"] == "ok" && mirror["waiting"] == 0
    });
    let calls = api.take_calls();
    let writes = |call: &&Call| call.kind.starts_with("upload") || call.kind == "files.create";
    assert_eq!(calls.iter().filter(writes).count(), 0, "{calls:?}");
    let none = layer_sync(
        &home,
        ["mirror", "restore", "/nowhere/x", "--from", "drive:other"],
    );
    assert_ne!(none.code, 0);
}

#[test]
fn secrets_and_what_is_ignored_are_never_sent() {
    let api = DriveApi::start();
    let mut pair = alone(&api);
    let root = pair.pusher.root.clone();
    let secrets = [
        (".env", "TOPSECRET-1"),
        ("deep/.env.local", "TOPSECRET-2"),
        ("keys/id_ed25519", "TOPSECRET-3"),
        ("keys/server-key.pem", "TOPSECRET-4"),
        ("private/notes.md", "TOPSECRET-5"),
        ("a.log", "TOPSECRET-6"),
    ];
    write(&root, ".layerignore", "/private/\n*.log\n");
    write(&root, "seen.md", "PUBLIC-TEXT");
    for (name, text) in secrets {
        write(&root, name, format!("{text}\n").repeat(300));
    }
    pair.pusher.start();
    push(&pair.pusher);
    for (name, text) in secrets {
        write(&root, name, format!("{text} again\n").repeat(300));
    }
    write(&root, "seen.md", "PUBLIC-TEXT again");
    wait_until("the rest has gone", SOON, || {
        in_drive(&api).contains(&("seen.md".to_owned(), Some("PUBLIC-TEXT again".to_owned())))
    });
    push(&pair.pusher);
    assert!(api.saw("PUBLIC-TEXT"));
    for (name, text) in secrets {
        assert!(!api.saw(text), "the content of {name} was sent");
        assert!(
            !api.saw(name.rsplit('/').next().unwrap()),
            "the name of {name} was sent"
        );
    }
    // Nor does what a person puts there come here.
    let folder = api.folder("knowledge").unwrap();
    api.person_makes(&folder, ".env", b"OTHER=1");
    push(&pair.pusher);
    assert!(read(&root, ".env").unwrap().starts_with("TOPSECRET-1"));
}

#[test]
fn what_a_person_does_in_drive_comes_back() {
    let api = DriveApi::start();
    let mut pair = alone(&api);
    let root = pair.pusher.root.clone();
    for name in [
        "edited.md",
        "renamed.md",
        "removed.md",
        "d/inside.md",
        "both.md",
    ] {
        write(&root, name, "one");
    }
    pair.pusher.start();
    push(&pair.pusher);
    let folder = api.folder("knowledge").unwrap();
    let id = |path: &str| api.id(&folder, path);
    api.person_edits(&id("edited.md"), b"two, by hand");
    api.person_renames(&id("renamed.md"), "other name.md");
    api.person_trashes(&id("removed.md"), true);
    api.person_renames(&id("d"), "e");
    let new = api.person_makes_kind(&folder, "new", "folder");
    api.person_makes(&new, "file.md", b"new, by hand");
    // Both changed one: the primary's keeps the path.
    api.person_edits(&id("both.md"), b"by hand");
    write(&root, "both.md", "here");
    push(&pair.pusher);
    wait_until("it has come", SOON, || read(&root, "new/file.md").is_some());
    push(&pair.pusher);
    assert_eq!(read(&root, "edited.md").as_deref(), Some("two, by hand"));
    assert_eq!(read(&root, "renamed.md"), None);
    assert_eq!(read(&root, "other name.md").as_deref(), Some("one"));
    assert_eq!(read(&root, "removed.md"), None);
    assert_eq!(read(&root, "e/inside.md").as_deref(), Some("one"));
    assert_eq!(read(&root, "both.md").as_deref(), Some("here"));
    let copy = fs::read_dir(&root).unwrap().find_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.starts_with("both (conflict ").then_some(name)
    });
    let copy = copy.expect("a copy of what was written by hand");
    assert_eq!(read(&root, &copy).as_deref(), Some("by hand"));
    // What it displaced here can be restored.
    pair.pusher.ask(["restore", "removed.md"]).exits(0);
    assert_eq!(read(&root, "removed.md").as_deref(), Some("one"));
    // A folder that goes to the trash, and comes back.
    api.person_trashes(&id("e"), true);
    push(&pair.pusher);
    wait_until("it goes", SOON, || read(&root, "e/inside.md").is_none());
}

#[test]
fn each_trouble_has_a_state_a_reason_and_a_remedy() {
    let api = DriveApi::start();
    let mut pair = alone(&api);
    let root = pair.pusher.root.clone();
    write(&root, "a.md", "one");
    pair.pusher.start();
    push(&pair.pusher);
    let folder = api.folder("knowledge").unwrap();
    let node = &pair.pusher;
    let told = |code: &str| {
        let problem = node.problem(code);
        for key in ["text", "fix"] {
            assert!(!problem[key].as_str().unwrap().is_empty(), "{problem}");
        }
        problem
    };
    let is_over = |code: &str| {
        wait_until("it is over", SOON, || {
            !node.problems().contains(&code.to_owned())
        });
    };

    // Names and kinds that no file has; two of one name.
    let slash = api.person_makes(&folder, "a/b", b"x");
    let document = api.person_makes_kind(&folder, "Plan", "document");
    api.person_makes(&folder, "dot.", b"dot");
    let (one, two) = (
        api.person_makes(&folder, "twin", b"1"),
        api.person_makes(&folder, "twin", b"2"),
    );
    node.ask(["mirror", "push"]);
    assert!(
        told("held.mirror_name")["text"]
            .as_str()
            .unwrap()
            .contains("a/b")
    );
    assert!(
        told("held.mirror_foreign")["text"]
            .as_str()
            .unwrap()
            .contains("a document of Google")
    );
    told("held.mirror_same_name");
    assert_eq!(read(&root, "dot.").as_deref(), Some("dot"));
    let first = read(&root, "twin").expect("one of them counts");
    assert!(first == "1" || first == "2");
    let status = node.ask(["mirror", "status"]);
    assert_eq!(status.code, 4, "{}", status.stdout);
    api.person_renames(&slash, "a-b");
    api.person_trashes(&document, true);
    let other = if first == "1" { two } else { one };
    api.person_renames(&other, "another");
    for code in ["held.mirror_foreign", "held.mirror_same_name"] {
        node.ask(["mirror", "push"]);
        is_over(code);
    }
    wait_until("all has come", SOON, || {
        read(&root, "another").is_some() && read(&root, "a-b").is_some()
    });

    // No room.
    api.quota(Some(100));
    write(&root, "large.bin", vec![1; 10_000]);
    told("degraded.mirror_full");
    fs::remove_file(root.join("a.md")).unwrap();
    wait_until("what needs no room goes on", SOON, || {
        !in_drive(&api).iter().any(|(name, _)| name == "a.md")
    });
    api.quota(None);
    node.ask(["mirror", "push"]);
    is_over("degraded.mirror_full");

    // Out of reach.
    api.cut(true);
    write(&root, "later.md", "x");
    told("degraded.mirror_unreachable");
    api.cut(false);
    wait_until("it goes on by itself", SOON, || {
        in_drive(&api).iter().any(|(name, _)| name == "later.md")
    });
    is_over("degraded.mirror_unreachable");

    // What was known is forgotten there, and a token ends in the middle.
    api.forget_changes();
    api.expire_tokens();
    write(&root, "after.md", "x");
    push(node);
    assert!(in_drive(&api).iter().any(|(name, _)| name == "after.md"));

    // Consent is withdrawn, and given again.
    api.revoke();
    write(&root, "more.md", "x");
    let problem = told("degraded.mirror_consent");
    assert_eq!(problem["fix"], "layer-sync mirror auth");
    consent(&node.home, &api, true);
    node.ask(["duty", "restart", "mirror"]).exits(0);
    is_over("degraded.mirror_consent");
    wait_until("it goes on", SOON, || {
        in_drive(&api).iter().any(|(name, _)| name == "more.md")
    });

    // The folder goes to the trash: nothing here does.
    let here = snapshot(&root);
    api.person_trashes(&folder, true);
    node.ask(["mirror", "push"]);
    told("degraded.mirror_folder");
    assert_eq!(snapshot(&root), here);
    api.person_trashes(&folder, false);
    node.ask(["mirror", "push"]);
    is_over("degraded.mirror_folder");
    push(node);
    assert_eq!(snapshot(&root), here);
}

#[test]
fn a_mirror_that_is_emptied_empties_nothing_by_itself() {
    let scratch = tempfile::tempdir().unwrap();
    let mut pair = Pair::strangers();
    pair.init();
    to_folder(&pair.pusher, scratch.path());
    for number in 0..60 {
        write(&pair.pusher.root, &format!("{number}.md"), "x");
    }
    pair.pusher.start();
    push(&pair.pusher);
    for number in 0..60 {
        fs::remove_file(scratch.path().join(format!("{number}.md"))).unwrap();
    }
    pair.pusher.ask(["mirror", "push"]);
    let problem = pair.pusher.problem("degraded.mirror_halted");
    assert!(
        problem["text"]
            .as_str()
            .unwrap()
            .contains("has no file left"),
        "{problem}"
    );
    assert!(pair.pusher.root.join("7.md").exists());
    let fix = problem["fix"].as_str().unwrap();
    let batch = fix
        .split("confirm ")
        .nth(1)
        .unwrap()
        .split('`')
        .next()
        .unwrap();
    pair.pusher.ask(["confirm", batch]).exits(0);
    wait_until("it is done", SOON, || {
        !pair.pusher.root.join("7.md").exists()
    });
    // A disk that is not mounted is no empty mirror.
    fs::remove_dir_all(scratch.path().join(".layer-sync-mirror")).unwrap();
    write(&pair.pusher.root, "new.md", "x");
    pair.pusher.problem("degraded.mirror_folder");
    assert!(!scratch.path().join("new.md").exists());
}

#[test]
fn consent_is_given_in_a_browser_or_with_a_code() {
    use std::io::{BufRead, BufReader, Read, Write};
    let api = DriveApi::start();
    let pair = Pair::strangers();
    pair.init();
    let node = &pair.pusher;
    let url = api.url();
    let missing = node.ask(["mirror", "auth", "--api", &url]).exits(1).stderr;
    assert!(missing.contains("DRIVE_CLIENT_ID"), "{missing}");
    let secrets = format!(
        "DRIVE_CLIENT_ID={}\nDRIVE_CLIENT_SECRET={}\n",
        oauth::CLIENT_ID,
        oauth::CLIENT_SECRET
    );
    let file = node.home.join(".env");
    fs::write(&file, secrets).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let stored = node.home.join("keys/drive.json");
    let begin = |more: &[&str]| {
        let mut command = crate::harness::command(&node.home);
        command.args(["mirror", "auth", "--api", &url]).args(more);
        command.stderr(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        (child, lines.lines().map(Result::unwrap))
    };

    // A browser opens the address and is sent back to this machine.
    let (mut child, mut lines) = begin(&["--all"]);
    let address = lines
        .by_ref()
        .find(|line| line.starts_with("http"))
        .unwrap();
    let get = |address: &str| {
        let rest = address.strip_prefix("http://").unwrap();
        let (host, path) = rest.split_once('/').unwrap();
        let host = host.replace("localhost", "127.0.0.1");
        let mut stream = std::net::TcpStream::connect(&host).unwrap();
        write!(
            stream,
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = get(&address);
    let back = answer
        .lines()
        .find_map(|line| line.strip_prefix("location: "))
        .unwrap();
    get(&back.replacen("?", "/?", 1));
    assert!(child.wait().unwrap().success());
    let text = fs::read_to_string(&stored).unwrap();
    assert!(
        text.contains("auth/drive\"") && text.contains("refresh-"),
        "{text}"
    );
    let mode = fs::metadata(&stored).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::remove_file(&stored).unwrap();

    // A code is typed on another device.
    let (mut child, mut lines) = begin(&["--device"]);
    let told = lines.by_ref().find(|line| line.contains("ABCD-EFGH"));
    assert!(told.is_some());
    api.person_consents(true);
    assert!(child.wait().unwrap().success());
    assert!(fs::read_to_string(&stored).unwrap().contains("drive.file"));
    node.ask(["mirror", "auth", "--device", "--all"]).exits(2);
}

#[test]
fn without_a_mirror_the_verbs_say_so() {
    let mut pair = Pair::strangers();
    pair.init();
    pair.pusher.start();
    for verb in ["status", "push", "verify"] {
        let said = pair.pusher.ask(["mirror", verb]).exits(1).stderr;
        assert!(said.contains("no mirror"), "{said}");
    }
    assert_eq!(mirror(&pair.pusher), Value::Null);
}

#[test]
fn a_service_account_mirrors_into_a_shared_drive() {
    let api = DriveApi::start();
    let pair = Pair::strangers();
    pair.init();
    let node = &pair.pusher;
    let url = api.url();
    write(&node.root, "notes/a.md", "of the studio");
    let auth = |file: &Path| {
        let file = file.to_str().unwrap();
        node.ask([
            "mirror",
            "auth",
            "--all",
            "--api",
            &url,
            "--service-account",
            file,
        ])
    };
    let key = node.home.join("account.json");
    fs::write(&key, "{}").unwrap();
    let refused = auth(&key).exits(1).stderr;
    assert!(
        refused.contains("is no key of a service account"),
        "{refused}"
    );
    fs::write(&key, service::key_file(&url).to_string()).unwrap();
    auth(&key).exits(0);
    let stored = node.home.join("keys/drive.json");
    let mode = fs::metadata(&stored).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Its key is stored for the node; the file is not needed any more.
    fs::remove_file(&key).unwrap();

    // It has no storage of its own.
    let settings = |more: &str| {
        format!(
            "target = \"drive\"\nname = \"knowledge\"\nbudget = 60000\napi = \"{url}\"\n{more}{SOON_ROAD}"
        )
    };
    let text = fs::read_to_string(node.home.join("config.toml")).unwrap();
    section(node, &settings(""));
    let mut pair = pair;
    pair.pusher.start();
    wait_until("it says that there is no room", SOON, || {
        pair.pusher
            .problems()
            .contains(&"degraded.mirror_full".to_owned())
    });
    pair.pusher.stop();
    fs::write(pair.pusher.home.join("config.toml"), text).unwrap();
    section(
        &pair.pusher,
        &settings(&format!("shared_drive = \"{SHARED_DRIVE}\"\n")),
    );
    pair.pusher.start();
    push(&pair.pusher);
    let root = api.id(SHARED_DRIVE, "knowledge");
    let seen = api.seen(&root);
    let file = seen.iter().find(|seen| seen.path == "notes/a.md");
    assert_eq!(file.unwrap().bytes.as_deref(), Some(&b"of the studio"[..]));
    let verified = pair.pusher.ask(["mirror", "verify", "--json"]);
    assert_eq!(verified.exits(0).json()["equal"], 1);
    // What another member of the drive does comes here, and tokens that are over are asked for again.
    api.expire_tokens();
    let id = api.id(&api.id(&root, "notes"), "a.md");
    api.person_edits(&id, b"by a member");
    push(&pair.pusher);
    assert_eq!(
        read(&pair.pusher.root, "notes/a.md").as_deref(),
        Some("by a member")
    );
    let signed = api
        .calls()
        .iter()
        .filter(|call| call.kind == "token" && call.answer == 200)
        .count();
    assert!(signed >= 3, "one for each start, and one since: {signed}");
}
