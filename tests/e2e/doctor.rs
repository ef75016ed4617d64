//! What the doctor finds, with a daemon and without one, and what it mends.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use serde_json::Value;

use crate::harness::{Node, Pair, SOON, Volume, listing, wait_until, write};

/// Examines a node, expects the exit code, and returns what it says.
#[track_caller]
fn examine(node: &Node, code: i32) -> Value {
    let answer = node.ask(["doctor", "--json"]).exits(code).json();
    assert_eq!(answer["schema"], 1);
    answer
}

#[track_caller]
fn check<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let checks = answer["checks"].as_array().unwrap();
    checks
        .iter()
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("{name} is not in {answer:#}"))
}

/// Checks how one thing is, and that both texts have these words.
#[track_caller]
fn expect(answer: &Value, name: &str, state: &str, text: &str, fix: &str) {
    let found = check(answer, name);
    assert_eq!(found["state"], state, "{found:#}");
    assert!(found["text"].as_str().unwrap().contains(text), "{found:#}");
    assert!(found["fix"].as_str().unwrap().contains(fix), "{found:#}");
}

/// Returns the names of what is not well.
fn troubles(answer: &Value) -> Vec<&str> {
    let checks = answer["checks"].as_array().unwrap().iter();
    checks
        .filter(|check| check["state"] != "ok")
        .map(|check| check["name"].as_str().unwrap())
        .collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_healthy_pair() {
    let mut pair = Pair::running();
    write(&pair.pusher.root, "a/note.md", "1");
    pair.flush();
    for node in pair.nodes() {
        let answer = examine(node, 0);
        assert_eq!(troubles(&answer), [""; 0], "{answer:#}");
        expect(&answer, "link", "ok", "is connected", "");
        expect(&answer, "peer", "ok", "as well", "");
        expect(&answer, "clock", "ok", "ms apart", "");
        expect(&answer, "sync", "ok", "equal, 1 files", "");
        // Each thing has its sentence, and what is well needs no mending.
        for check in answer["checks"].as_array().unwrap() {
            assert!(check["text"].as_str().unwrap().ends_with('.'), "{check:#}");
            assert_eq!(check["fix"], "", "{check:#}");
        }
        let page = node.ask(["doctor"]).exits(0).stdout;
        assert!(page.lines().all(|line| line.starts_with("ok ")), "{page}");
    }

    // The other machine sleeps: nothing is wrong here, but nothing travels.
    pair.receiver.stop();
    wait_until("the receiver is gone", SOON, || {
        pair.pusher.status()["peer"]["state"] == "unlinked"
    });
    let answer = examine(&pair.pusher, 4);
    expect(
        &answer,
        "link",
        "warning",
        "not connected",
        "layer-sync receiver",
    );

    // Without a daemon the index is read and the pusher is called.
    let answer = examine(&pair.receiver, 4);
    assert_eq!(troubles(&answer), ["daemon"], "{answer:#}");
    expect(&answer, "daemon", "warning", "No daemon", " receiver");
    expect(&answer, "index", "ok", "whole, with 2 agreed paths", "");
    expect(&answer, "link", "ok", "vm answers at 127.0.0.1", "");
    // It was no start: the pusher still waits, and the receiver is welcome.
    pair.receiver.start();
    pair.meet();
    pair.flush();
}

#[test]
fn a_receiver_whose_pusher_cannot_be_reached() {
    let mut pair = Pair::running();
    pair.pusher.stop();
    wait_until("the pusher is gone", SOON, || {
        pair.receiver.status()["peer"]["state"] == "unlinked"
    });
    let answer = examine(&pair.receiver, 5);
    assert_eq!(troubles(&answer), ["link"], "{answer:#}");
    expect(
        &answer,
        "link",
        "wrong",
        "is not connected",
        "layer-sync pusher",
    );
    pair.receiver.stop();
    let answer = examine(&pair.receiver, 5);
    assert_eq!(troubles(&answer), ["daemon", "link"], "{answer:#}");
    expect(&answer, "link", "wrong", "127.0.0.1", "layer-sync pusher");
}

#[test]
fn what_is_safe_to_mend_is_mended() {
    let mut pair = Pair::running();
    write(&pair.pusher.root, "a", "1");
    pair.flush();
    let node = &mut pair.pusher;
    node.kill();
    let (home, private) = (node.home.clone(), node.root.join(".layer-sync"));
    let socket = home.join("control.sock");
    fs::write(home.join(".env"), "KEY=1\n").unwrap();
    let open = [
        (home.clone(), 0o777, "home", "wrong"),
        (home.join(".env"), 0o644, "secrets", "wrong"),
        (home.join("keys/identity.key"), 0o644, "identity", "wrong"),
        (home.join("config.toml"), 0o666, "settings", "warning"),
        (private.clone(), 0o755, "private", "warning"),
    ];
    for (path, open, ..) in &open {
        set_mode(path, *open);
    }
    set_mode(&node.root.join("a"), 0o666);
    let tree = listing(&node.root);
    assert!(socket.exists());

    let answer = examine(node, 5);
    for (path, _, name, state) in &open {
        let command = format!("chmod {} ", if path.is_dir() { 700 } else { 600 });
        expect(&answer, name, state, "mode", &command);
        assert!(
            check(&answer, name)["fix"]
                .as_str()
                .unwrap()
                .ends_with(path.to_str().unwrap())
        );
    }
    expect(&answer, "daemon", "warning", "left its socket", " pusher");
    let page = node.ask(["doctor"]).exits(5).stdout;
    assert!(page.contains("doctor --fix`"), "{page}");
    for (path, open, ..) in &open {
        assert_eq!(mode(path), *open, "looking changes nothing");
    }

    let answer = node.ask(["doctor", "--fix", "--json"]).exits(4).json();
    assert_eq!(troubles(&answer), ["daemon"], "{answer:#}");
    assert_eq!(
        answer["mended"].as_array().map(Vec::len),
        Some(6),
        "{answer:#}"
    );
    for (path, ..) in &open {
        assert_eq!(mode(path) & 0o077, 0, "{}", path.display());
    }
    assert!(!socket.exists());
    assert_eq!(listing(&node.root), tree, "the tree is not touched");
    assert_eq!(mode(&node.root.join("a")), 0o666);

    // Missing parts of the private folder, and nothing to say about them twice.
    fs::remove_dir_all(private.join("stage")).unwrap();
    let answer = examine(node, 4);
    expect(&answer, "private", "warning", "lacks stage", "doctor --fix");
    let answer = node.ask(["doctor", "--fix", "--json"]).exits(4).json();
    assert_eq!(answer["mended"].as_array().map(Vec::len), Some(1));
    assert_eq!(troubles(&answer), ["daemon"], "{answer:#}");
    assert!(private.join("stage").is_dir());

    node.start();
    pair.meet();
    pair.flush();
    assert_eq!(examine(&pair.pusher, 0)["mended"], Value::Array(vec![]));
}

#[test]
fn a_folder_that_is_not_the_one() {
    let mut pair = Pair::running();
    write(&pair.pusher.root, "a", "1");
    pair.flush();
    let (root, away) = (pair.pusher.root.clone(), pair.scratch().join("away"));
    fs::rename(&root, &away).unwrap();
    fs::create_dir(&root).unwrap();
    // What happens in the folder that is gone is a hint, so that the next sweep need not be waited for.
    write(&away, "b", "2");
    pair.pusher.problem("halted.root");
    let answer = examine(&pair.pusher, 5);
    expect(&answer, "marker", "wrong", "no marker", "confirm root`");
    expect(
        &answer,
        "sync",
        "wrong",
        "no longer the folder",
        "confirm root",
    );
    // Mending does not touch it: only a person knows which folder is meant.
    let answer = pair
        .pusher
        .ask(["doctor", "--fix", "--json"])
        .exits(5)
        .json();
    assert_eq!(answer["mended"], Value::Array(vec![]));
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);

    pair.pusher.stop();
    expect(
        &examine(&pair.pusher, 5),
        "marker",
        "wrong",
        "no marker",
        "confirm root`",
    );
    // That of another replica.
    fs::remove_dir(&root).unwrap();
    fs::create_dir(&root).unwrap();
    fs::create_dir(root.join(".layer-sync")).unwrap();
    fs::copy(
        pair.receiver.root.join(".layer-sync/marker"),
        root.join(".layer-sync/marker"),
    )
    .unwrap();
    expect(
        &examine(&pair.pusher, 5),
        "marker",
        "wrong",
        "another replica",
        "confirm root`",
    );
    // None at all.
    fs::remove_dir_all(&root).unwrap();
    let answer = examine(&pair.pusher, 5);
    expect(
        &answer,
        "root",
        "wrong",
        "cannot be opened",
        "bring the folder back",
    );
    // The one that was there.
    fs::rename(&away, &root).unwrap();
    let answer = examine(&pair.pusher, 4);
    assert_eq!(troubles(&answer), ["daemon"], "{answer:#}");
    pair.pusher.start();
    pair.meet();
    pair.flush();
}

#[test]
fn a_damaged_index() {
    let mut pair = Pair::running();
    for number in 0..300 {
        write(&pair.pusher.root, &format!("note-{number}.md"), "1");
    }
    pair.flush();
    let node = &mut pair.pusher;
    node.stop();
    let index = node.home.join("state/index.redb");
    let sound = fs::read(&index).unwrap();
    expect(&examine(node, 4), "index", "ok", "whole", "");

    // One bit of the name of a file.
    let places = (0..sound.len() - 8).filter(|&at| sound[at..].starts_with(b"note-1"));
    let (mut found, mut tried) = (0, 0);
    for at in places.step_by(97) {
        fs::write(&index, &sound).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&index).unwrap();
        file.write_all_at(&[sound[at + 5] ^ 1], at as u64 + 5)
            .unwrap();
        let flipped = fs::read(&index).unwrap();
        let answer = node.ask(["doctor", "--json"]).json();
        let damaged = check(&answer, "index")["state"] == "wrong";
        // What is no part of any page in use may be what it likes.
        found += usize::from(damaged);
        tried += 1;
        assert_eq!(fs::read(&index).unwrap(), flipped, "it is only read");
        if damaged {
            expect(&answer, "index", "wrong", "damaged", "mv ");
        }
    }
    assert!(found > 0, "not one of {tried} flipped bits was found");

    fs::write(&index, b"no index at all").unwrap();
    let answer = examine(node, 5);
    expect(&answer, "index", "wrong", "damaged", ".damaged");
    // What it says mends it, and loses nothing.
    let command = check(&answer, "index")["fix"].as_str().unwrap().to_owned();
    let words: Vec<&str> = command.split(' ').collect();
    crate::harness::run(words[0], &words[1..]).exits(0);
    expect(&examine(node, 4), "index", "warning", "There is none", "");
    node.start();
    pair.meet();
    pair.flush();
    assert_eq!(examine(&pair.pusher, 0)["schema"], 1);
}

#[test]
fn a_volume_that_is_full() {
    let mut pair = Pair::strangers();
    let image = pair.scratch().join("image");
    let Some(_volume) = Volume::mount(&image, 8 << 20, &pair.receiver.root) else {
        return;
    };
    pair.pair();
    pair.flush();
    assert_eq!(troubles(&examine(&pair.receiver, 0)), [""; 0]);
    pair.receiver.stop();
    let filler = pair.receiver.root.join(".layer-sync/filler");
    let free = || {
        let answer = crate::harness::run(
            "df",
            [
                "--output=avail",
                "-B1",
                pair.receiver.root.to_str().unwrap(),
            ],
        );
        answer
            .stdout
            .lines()
            .nth(1)
            .unwrap()
            .trim()
            .parse::<u64>()
            .unwrap()
    };
    let fill = |left: u64| fs::write(&filler, vec![1; (free() - left) as usize]).unwrap();
    fill(400 << 10);
    expect(
        &examine(&pair.receiver, 4),
        "space",
        "warning",
        "nearly full",
        "free some space",
    );
    fs::remove_file(&filler).unwrap();
    fill(32 << 10);
    expect(
        &examine(&pair.receiver, 5),
        "space",
        "wrong",
        "is full",
        "free some space",
    );
    fs::remove_file(&filler).unwrap();
    assert_eq!(troubles(&examine(&pair.receiver, 4)), ["daemon"]);
}

#[test]
fn a_home_that_is_none_and_settings_that_are_wrong() {
    let pair = Pair::joined();
    let third = pair.third();
    let answer = examine(&third, 5);
    assert_eq!(troubles(&answer), ["home"], "{answer:#}");
    expect(&answer, "home", "wrong", "no home", "init pusher");

    // A pusher without a partner waits for one.
    let receiver = &pair.receiver;
    receiver.set("[sync]", "[sync]\nintervall = \"30s\"");
    let answer = examine(receiver, 5);
    expect(&answer, "settings", "wrong", "intervall", "correct line");
    assert_eq!(troubles(&answer), ["settings", "daemon"], "{answer:#}");
    receiver.set("\nintervall = \"30s\"", "");
    // The key by which the pusher knows it.
    fs::remove_file(receiver.home.join("keys/identity.key")).unwrap();
    let answer = examine(receiver, 5);
    expect(&answer, "identity", "wrong", "gone", "pair anew");
    assert!(
        !receiver.home.join("keys/identity.key").exists(),
        "it makes none"
    );
    // The port of a pusher that runs, and one that is taken.
    let answer = examine(&pair.pusher, 4);
    expect(&answer, "link", "warning", "not connected", "");
}
