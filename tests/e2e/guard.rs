//! Mass changes: they halt, change nothing over there, say what to do, and go on after the right command.

use std::fs;
use std::path::Path;

use crate::harness::{
    Answer, Node, Pair, SOON, Side, Volume, assert_equal, names, read, run, snapshot, wait_until,
    write,
};

const FOLDERS: usize = 5;
const FILES: usize = 60;

/// A pair in sync, with a tree of some size.
#[track_caller]
fn filled() -> Pair {
    let mut pair = Pair::joined();
    // What no event tells is found by the next sweep.
    pair.pusher.stop();
    for node in pair.nodes() {
        node.set("interval = \"30s\"", "interval = \"2s\"");
    }
    pair.pusher.start();
    pair.receiver.start();
    pair.meet();
    for folder in 0..FOLDERS {
        for file in 0..FILES {
            let path = format!("folder {folder}/{file}.md");
            write(&pair.pusher.root, &path, format!("text {folder} {file}"));
        }
    }
    pair.flush();
    pair
}

/// Makes a mass change on one side, checks that it halts and that the other side keeps all that it
/// had; returns the batch.
#[track_caller]
fn halts(pair: &Pair, here: Side, code: &str, change: impl FnOnce(&Path)) -> String {
    let there = other(here);
    let before = snapshot(&pair.node(there).root);
    change(&pair.node(here).root);
    let problem = pair.node(here).problem(code);
    for node in pair.nodes() {
        let problem = node.problem(code);
        assert_eq!(problem["severity"], "halted");
        node.ask(["status", "--check"]).exits(5);
        assert!(!node.in_sync());
    }
    assert_eq!(
        snapshot(&pair.node(there).root),
        before,
        "nothing was touched"
    );
    pair.node(here).ask(["flush"]).exits(5);
    assert_eq!(
        snapshot(&pair.node(there).root),
        before,
        "nothing was touched"
    );
    let fix = problem["fix"].as_str().unwrap();
    let batch = fix.split("confirm ").nth(1).unwrap();
    batch.split('`').next().unwrap().to_owned()
}

fn other(side: Side) -> Side {
    match side {
        Side::Pusher => Side::Receiver,
        Side::Receiver => Side::Pusher,
    }
}

fn confirm(node: &Node, batch: &str) -> Answer {
    node.ask(["confirm", batch]).exits(0)
}

fn empty(root: &Path) {
    for folder in 0..FOLDERS {
        fs::remove_dir_all(root.join(format!("folder {folder}"))).unwrap();
    }
}

#[test]
fn an_emptied_folder() {
    for here in [Side::Pusher, Side::Receiver] {
        let pair = filled();
        let batch = halts(&pair, here, "halted.emptied", empty);
        pair.node(here).ask(["confirm", "00000000"]).exits(1);
        // Asked for on the other machine, it works as well.
        confirm(pair.node(other(here)), &batch);
        pair.flush();
        assert!(!pair.pusher.root.join("folder 0").exists());
    }
}

#[test]
fn all_but_one_folder_deleted_and_brought_back() {
    for here in [Side::Pusher, Side::Receiver] {
        let pair = filled();
        let whole = snapshot(&pair.pusher.root);
        let batch = halts(&pair, here, "halted.mass_delete", |root| {
            for folder in 1..FOLDERS {
                fs::remove_dir_all(root.join(format!("folder {folder}"))).unwrap();
            }
        });
        pair.node(here).ask(["confirm", &batch, "--undo"]).exits(0);
        pair.flush();
        assert_eq!(snapshot(&pair.node(here).root), whole);
    }
}

#[test]
fn deleted_while_nobody_looked() {
    let mut pair = filled();
    let before = snapshot(&pair.receiver.root);
    pair.pusher.stop();
    for folder in 1..FOLDERS {
        fs::remove_dir_all(pair.pusher.root.join(format!("folder {folder}"))).unwrap();
    }
    pair.pusher.start();
    let problem = pair.pusher.problem("halted.mass_delete");
    assert!(
        problem["text"]
            .as_str()
            .unwrap()
            .contains("240 of 300 files"),
        "{problem}"
    );
    assert_eq!(snapshot(&pair.receiver.root), before);
    // A restart of either side forgets nothing.
    pair.receiver.stop();
    pair.receiver.start();
    pair.meet();
    assert_eq!(
        pair.receiver.problem("halted.mass_delete")["fix"],
        problem["fix"]
    );
    // Somebody brings the files back.
    for folder in 1..FOLDERS {
        for file in 0..FILES {
            let path = format!("folder {folder}/{file}.md");
            write(&pair.pusher.root, &path, format!("text {folder} {file}"));
        }
    }
    pair.flush();
    assert_eq!(snapshot(&pair.receiver.root), before);
}

#[test]
fn most_files_rewritten() {
    for here in [Side::Pusher, Side::Receiver] {
        let pair = filled();
        let batch = halts(&pair, here, "halted.mass_rewrite", |root| {
            for number in 0..FOLDERS * FILES * 9 / 10 {
                let path = format!("folder {}/{}.md", number / FILES, number % FILES);
                write(root, &path, "9f8a7b6c5d4e encrypted by somebody");
            }
        });
        confirm(pair.node(here), &batch);
        pair.flush();
        // What it was can be had back.
        let node = pair.node(other(here));
        let file = node.root.join("folder 0/0.md");
        node.ask(["restore", file.to_str().unwrap()]).exits(0);
        assert_eq!(
            read(&node.root, "folder 0/0.md").as_deref(),
            Some("text 0 0")
        );
    }
}

#[test]
fn everyday_work_is_not_stopped() {
    let pair = filled();
    for file in 0..45 {
        fs::remove_file(pair.pusher.root.join(format!("folder 0/{file}.md"))).unwrap();
    }
    pair.flush();
    // Moving a folder is no deletion.
    fs::rename(
        pair.receiver.root.join("folder 1"),
        pair.receiver.root.join("moved 1"),
    )
    .unwrap();
    fs::rename(
        pair.receiver.root.join("folder 2"),
        pair.receiver.root.join("moved 2"),
    )
    .unwrap();
    pair.flush();
    assert!(pair.pusher.root.join("moved 2/0.md").exists());
    assert!(pair.pusher.problems().is_empty());
}

#[test]
fn a_folder_that_was_replaced_by_another_one() {
    for here in [Side::Pusher, Side::Receiver] {
        let mut pair = filled();
        let there = other(here);
        let before = snapshot(&pair.node(there).root);
        let root = pair.node(here).root.clone();
        let aside = pair.scratch().join("aside");
        fs::rename(&root, &aside).unwrap();
        fs::create_dir(&root).unwrap();
        write(&root, "another.md", "another tree");
        let problem = pair.node(here).problem("halted.root");
        assert!(
            problem["fix"].as_str().unwrap().contains("confirm root"),
            "{problem}"
        );
        pair.node(here).ask(["status", "--check"]).exits(5);
        assert_eq!(snapshot(&pair.node(there).root), before);
        // The other machine has nothing to accept.
        pair.node(there).ask(["confirm", "root"]).exits(1);
        // A daemon that is started on it says the same.
        pair.node_mut(here).stop();
        pair.node_mut(here).launch(&[]);
        let ended = pair.node_mut(here).ended();
        assert_eq!(ended.code, 64, "{}", ended.stderr);
        assert!(ended.stderr.contains("confirm root"), "{}", ended.stderr);
        pair.node(here).ask(["confirm", "root"]).exits(0);
        pair.node_mut(here).start();
        pair.flush();
        // United: what was on either side is there.
        assert_eq!(read(&root, "another.md").as_deref(), Some("another tree"));
        assert_eq!(read(&root, "folder 4/59.md").as_deref(), Some("text 4 59"));
    }
}

#[test]
fn another_folder_is_accepted_while_the_daemon_runs() {
    for here in [Side::Pusher, Side::Receiver] {
        let pair = filled();
        let root = pair.node(here).root.clone();
        fs::rename(&root, pair.scratch().join("aside")).unwrap();
        fs::create_dir(&root).unwrap();
        write(&root, "another.md", "another tree");
        pair.node(here).problem("halted.root");
        pair.node(here).ask(["confirm", "root"]).exits(0);
        wait_until("the trees are united", SOON, || {
            read(&root, "folder 4/59.md").is_some()
                && read(&pair.node(other(here)).root, "another.md").is_some()
        });
        pair.meet();
        pair.flush();
    }
}

#[test]
fn a_folder_that_comes_back_needs_no_command() {
    let pair = filled();
    let aside = pair.scratch().join("aside");
    fs::rename(&pair.receiver.root, &aside).unwrap();
    pair.receiver.problem("halted.root");
    write(&pair.pusher.root, "meanwhile.md", "new");
    fs::rename(&aside, &pair.receiver.root).unwrap();
    pair.arrives(Side::Receiver, "meanwhile.md", "new");
    pair.flush();
    assert_equal(&pair.pusher.root, &pair.receiver.root);
}

/// Puts an older copy of a folder back over it, with its marker, as a backup does. The marker comes first:
/// what comes before it cannot be told from somebody's edits, and may cross.
#[track_caller]
fn put_back(backup: &Path, root: &Path) {
    fs::create_dir_all(root).unwrap();
    for part in [".layer-sync", "."] {
        let both = [backup.join(part), root.to_owned()];
        let both = both.map(|path| path.to_str().unwrap().to_owned());
        let copied = run("cp", ["-a", "--remove-destination", &both[0], &both[1]]);
        assert_eq!(copied.code, 0, "{copied:#?}");
    }
}

#[test]
fn last_weeks_copy_with_its_marker() {
    for here in [Side::Pusher, Side::Receiver] {
        let mut pair = filled();
        let root = pair.node(here).root.clone();
        let backup = pair.scratch().join("backup");
        pair.node_mut(here).stop();
        put_back(&root, &backup);
        pair.node_mut(here).start();
        pair.meet();
        write(&root, "folder 0/0.md", "of this week");
        fs::remove_file(root.join("folder 0/1.md")).unwrap();
        pair.flush();
        let before = snapshot(&pair.node(other(here)).root);

        // While the daemon runs.
        put_back(&backup, &root);
        let problem = pair.node(here).problem("halted.root");
        assert!(
            problem["text"].as_str().unwrap().contains("older"),
            "{problem}"
        );
        assert_eq!(snapshot(&pair.node(other(here)).root), before);
        // At its start.
        pair.node_mut(here).stop();
        pair.node_mut(here).launch(&[]);
        let ended = pair.node_mut(here).ended();
        assert_eq!(ended.code, 64, "{}", ended.stderr);
        assert!(ended.stderr.contains("confirm root"), "{}", ended.stderr);
        assert_eq!(snapshot(&pair.node(other(here)).root), before);

        pair.node(here).ask(["confirm", "root"]).exits(0);
        pair.node_mut(here).start();
        pair.meet();
        pair.flush();
        // United without a deletion: this week's text is there, and what it replaced as well.
        let texts: Vec<String> = names(&root.join("folder 0"))
            .into_iter()
            .filter(|name| name == "0.md" || name.starts_with("0 (conflict"))
            .filter_map(|name| read(&root.join("folder 0"), &name))
            .collect();
        assert!(texts.contains(&"of this week".to_owned()), "{texts:?}");
        assert!(texts.contains(&"text 0 0".to_owned()), "{texts:?}");
        assert_eq!(read(&root, "folder 0/1.md").as_deref(), Some("text 0 1"));
    }
}

#[test]
fn a_volume_that_is_unmounted_and_comes_back() {
    let mut pair = Pair::strangers();
    let (image, at) = (pair.scratch().join("image"), pair.scratch().join("volume"));
    fs::create_dir(&at).unwrap();
    let Some(volume) = Volume::mount(&image, 16 * 1024 * 1024, &at) else {
        return;
    };
    pair.pusher.root = at.clone();
    pair.pair();
    for number in 0..20 {
        write(&at, &format!("{number}.md"), format!("text {number}"));
    }
    pair.flush();
    let before = snapshot(&pair.receiver.root);
    volume.unmount_lazily();
    pair.pusher.problem("halted.root");
    write(&at, "stray.md", "written into the empty mount point");
    pair.pusher.ask(["flush", "--timeout", "2s"]);
    assert_eq!(snapshot(&pair.receiver.root), before);
    fs::remove_file(at.join("stray.md")).unwrap();
    // The daemon still holds the volume that nobody sees any more.
    pair.pusher.stop();
    volume.mount_again(&image);
    pair.pusher.start();
    pair.meet();
    write(&at, "after.md", "1");
    pair.arrives(Side::Receiver, "after.md", "1");
    assert_eq!(read(&pair.receiver.root, "0.md").as_deref(), Some("text 0"));
}
