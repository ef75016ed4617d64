//! Real trees and a real folder; who agrees with whom on what is played by the test.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use disk::mirrored::Here;
use disk::{Durable, KeptLimits, Look, Notes, Places, Replica, Report};
use shared::control::NodeSide;
use shared::ignore::Rules;
use shared::mirror::Trail;
use shared::path::RelPath;
use shared::reconcile::{ConflictRules, Mode};
use shared::safety::{Cause, Limits};
use shared::tree::{BaseRow, Gen};
use shared::utc::UtcMs;
use shared::wire::IndexId;

use super::{Done, Mirror, Purpose, Setup};
use crate::folder::{Folder, PRIVATE};
use crate::store::Store;
use crate::target::Target;

const ROAD: Purpose = Purpose {
    is_road: true,
    is_primary: true,
};
const AGREED: Purpose = Purpose {
    is_road: false,
    is_primary: true,
};

/// A machine with a tree.
pub(super) struct Node<T: Target = Folder> {
    dir: tempfile::TempDir,
    pub(super) replica: Arc<Replica>,
    pub(super) mirror: Mirror<T, Arc<Replica>>,
    batch: u64,
    /// What the tree came through.
    pub(super) trails: Arc<Mutex<BTreeMap<RelPath, Trail>>>,
}

/// Limits that let everything pass.
pub(super) fn unguarded() -> Limits {
    Limits {
        delete_percent: 100,
        rewrite_percent: 100,
        ..Limits::default()
    }
}

pub(super) fn path(text: &str) -> RelPath {
    RelPath::parse(text).expect("a path")
}

impl Node {
    fn new(name: &str, at: &Path) -> Self {
        let target = Folder::new(at.to_owned(), name, None);
        Self::made(name, target, Limits::default())
    }
}

impl<T: Target> Node<T> {
    pub(super) fn made(name: &str, target: T, limits: Limits) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("root")).expect("the root");
        let places = Places {
            root: dir.path().join("root"),
            state: dir.path().join("state"),
        };
        let kept = KeptLimits {
            age: std::time::Duration::from_secs(1000),
            bytes_min: 1 << 30,
            tree_percent: 10,
            age_min: std::time::Duration::from_secs(1000),
        };
        let trails: Arc<Mutex<BTreeMap<RelPath, Trail>>> = Arc::default();
        let heard = Arc::clone(&trails);
        let sink = Box::new(move |report| {
            if let Report::Passed(rows) = report {
                let rows = rows.into_iter().map(|(path, _, trail)| (path, trail));
                heard.lock().expect("nobody panicked").extend(rows);
            }
        });
        let (replica, _) =
            Replica::open(&places, None, Rules::default(), name, kept, sink).expect("a replica");
        let replica = Arc::new(replica);
        replica.follow(Box::new(|| {}));
        let side = match name {
            "vm" => NodeSide::Pusher,
            _ => NodeSide::Receiver,
        };
        let setup = Setup {
            node: name.to_owned(),
            side,
            pair: 7,
            mode: Mode::TwoWaySafe,
            conflicts: ConflictRules::default(),
            limits,
        };
        let store = Store::in_memory(name).expect("a store");
        let seed = name.len() as u64;
        let mirror = Mirror::new(target, Arc::clone(&replica), store, setup, seed);
        Self {
            dir,
            replica,
            mirror,
            batch: 0,
            trails,
        }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn write(&self, at: &str, text: &str) {
        write(&self.root().join(at), text);
    }

    pub(super) fn look(&self) {
        let stop = AtomicBool::new(false);
        self.replica.look(&Look::Deep, &stop).expect("a look");
    }

    /// Takes it that the pair has agreed on all that stands here now.
    fn agree(&mut self) {
        self.look();
        self.batch += 1;
        let batch = Gen(self.batch);
        let mut rows = Vec::new();
        let visit = &mut |path, here: Here| {
            let entry = here.sight.entry().cloned();
            if here.base.as_ref().and_then(|row| row.entry.as_ref()) != entry.as_ref() {
                rows.push((path, BaseRow { entry, batch }));
            }
        };
        self.replica.each_here(visit).expect("visited");
        let notes = Notes {
            last_batch: batch,
            base_of: Some(IndexId([1; 16])),
            ..self.replica.notes()
        };
        self.replica
            .commit(&rows, notes, batch, Durable::Nothing)
            .expect("recorded");
    }

    fn round(&self, purpose: Purpose) -> Done {
        self.look();
        run(self.mirror.round(purpose, UtcMs(1_000_000), Instant::now())).expect("a round")
    }

    /// Rounds until nothing happens any more.
    fn rest(&self, purpose: Purpose) {
        for _ in 0..10 {
            let done = self.round(purpose);
            if done == Done::default() {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.mirror.waits());
    }

    fn read(&self, at: &str) -> String {
        fs::read_to_string(self.root().join(at)).unwrap_or_else(|_| "-".to_owned())
    }
}

pub(super) fn write(at: &Path, text: &str) {
    fs::create_dir_all(at.parent().expect("a folder")).expect("made");
    fs::write(at, text).expect("written");
}

pub(super) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work)
}

/// Lists what a person sees in a folder: path, and text or kind.
pub(super) fn listed(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).expect("a listing") {
            let path = entry.expect("an entry").path();
            let name = path
                .strip_prefix(root)
                .expect("below")
                .display()
                .to_string();
            if name == ".layer-sync" || name == PRIVATE {
                continue;
            }
            let metadata = path.symlink_metadata().expect("it is there");
            if metadata.is_dir() {
                left.push(path.clone());
                found.push((name, "/".to_owned()));
            } else if metadata.is_symlink() {
                let to = fs::read_link(&path).expect("a link");
                found.push((name, format!("-> {}", to.display())));
            } else {
                let text = fs::read_to_string(&path).expect("text");
                found.push((name, text));
            }
        }
    }
    found.sort();
    found
}

fn at() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn a_tree_is_mirrored_and_then_only_what_changes() {
    let at = at();
    let mut vm = Node::new("vm", at.path());
    vm.write("a.md", "one");
    vm.write("d/run.sh", "#!/bin/sh");
    fs::set_permissions(
        vm.root().join("d/run.sh"),
        fs::Permissions::from_mode(0o755),
    )
    .expect("set");
    fs::create_dir(vm.root().join("empty")).expect("made");
    symlink("../a.md", vm.root().join("d/link")).expect("a link");
    vm.write(".env", "SECRET=1");
    vm.agree();
    let done = vm.round(AGREED);
    assert_eq!(
        (done.pushed, done.changed, done.left),
        (3, 2, 0),
        "{:?}",
        vm.mirror.waits()
    );
    let mut seen = listed(at.path());
    let link = seen
        .iter_mut()
        .find(|(name, _)| name == "d/link")
        .expect("it is there");
    assert_eq!(
        std::mem::replace(&mut link.1, "-> ../a.md".to_owned()),
        "../a.md"
    );
    let mut ours = listed(&vm.root());
    ours.retain(|(name, _)| name != ".env");
    assert_eq!(seen, ours);
    assert_eq!(vm.round(AGREED), Done::default());
    vm.write("a.md", "two");
    fs::rename(vm.root().join("d"), vm.root().join("moved")).expect("renamed");
    fs::remove_dir(vm.root().join("empty")).expect("removed");
    vm.agree();
    let done = vm.round(AGREED);
    assert_eq!(
        (done.pushed, done.bytes, done.changed),
        (1, 3, 2),
        "a move moves"
    );
    vm.rest(AGREED);
    let names: Vec<String> = listed(at.path())
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["a.md", "moved", "moved/link", "moved/run.sh"]);
}

#[test]
fn what_the_pair_has_not_agreed_on_is_not_mirrored_unless_it_is_the_road() {
    let at = at();
    let mut vm = Node::new("vm", at.path());
    vm.write("a", "one");
    vm.agree();
    vm.rest(AGREED);
    vm.write("a", "two");
    vm.write("b", "new");
    vm.rest(AGREED);
    assert_eq!(listed(at.path()), [("a".to_owned(), "one".to_owned())]);
    vm.mirror.compare_all();
    vm.rest(ROAD);
    let expected = [
        ("a".to_owned(), "two".to_owned()),
        ("b".to_owned(), "new".to_owned()),
    ];
    assert_eq!(listed(at.path()), expected);
}

#[test]
fn what_a_person_does_there_comes_back() {
    let at = at();
    let mut vm = Node::new("vm", at.path());
    for name in ["edited", "renamed", "removed", "d/inside"] {
        vm.write(name, "one");
    }
    vm.agree();
    vm.rest(AGREED);
    write(&at.path().join("edited"), "two, by hand");
    write(&at.path().join("new/file"), "new, by hand");
    fs::rename(at.path().join("renamed"), at.path().join("other name")).expect("renamed");
    fs::remove_file(at.path().join("removed")).expect("removed");
    fs::rename(at.path().join("d"), at.path().join("e")).expect("renamed");
    let done = vm.round(AGREED);
    assert!(done.taken > 0);
    vm.agree();
    vm.rest(AGREED);
    assert_eq!(listed(at.path()), listed(&vm.root()));
    assert_eq!(vm.read("edited"), "two, by hand");
    assert_eq!(vm.read("new/file"), "new, by hand");
    assert_eq!(vm.read("other name"), "one");
    assert_eq!(vm.read("removed"), "-");
    assert_eq!(vm.read("e/inside"), "one");
    let kept = vm.replica.versions(&path("removed")).expect("a list");
    assert_eq!(kept.len(), 1, "what it displaced here can be restored");
    // What a person made has a mark now: another machine knows what it is without reading it.
    let mac = Node::new("mac", at.path());
    mac.rest(ROAD);
    assert_eq!(listed(&mac.root()), listed(&vm.root()));
}

#[test]
fn two_that_cannot_meet_exchange_what_they_change() {
    let at = at();
    let (mut vm, mut mac) = (Node::new("vm", at.path()), Node::new("mac", at.path()));
    for node in [&mut vm, &mut mac] {
        node.write("a", "one");
        node.write("gone", "one");
        node.write("d/x", "one");
        node.agree();
    }
    vm.rest(AGREED);
    // The link is cut.
    for turn in 0..4 {
        vm.write("a", &format!("vm {turn}"));
        vm.write(&format!("new {turn}"), "from vm");
        vm.rest(ROAD);
        mac.rest(ROAD);
        assert_eq!(mac.read("a"), format!("vm {turn}"));
        mac.write("a", &format!("mac {turn}"));
        mac.write("d/x", &format!("{turn}"));
        mac.rest(ROAD);
        vm.rest(ROAD);
        assert_eq!(vm.read("a"), format!("mac {turn}"));
    }
    fs::remove_file(vm.root().join("gone")).expect("removed");
    fs::remove_dir_all(mac.root().join("d")).expect("removed");
    for _ in 0..3 {
        vm.rest(ROAD);
        mac.rest(ROAD);
    }
    assert_eq!(listed(&vm.root()), listed(&mac.root()));
    assert_eq!(listed(at.path()), listed(&mac.root()));
    let names: Vec<String> = listed(at.path())
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        names,
        ["a", "new 0", "new 1", "new 2", "new 3"],
        "no conflict, nothing resurrected"
    );
}

#[test]
fn both_versions_of_a_conflict_live_on_and_the_primary_keeps_the_path() {
    for primary in ["vm", "mac"] {
        let at = at();
        let (mut vm, mut mac) = (Node::new("vm", at.path()), Node::new("mac", at.path()));
        for node in [&mut vm, &mut mac] {
            node.write("a.md", "one");
            node.agree();
        }
        vm.write("a.md", "of vm");
        mac.write("a.md", "of mac");
        let purpose = |node: &str| Purpose {
            is_road: true,
            is_primary: node == primary,
        };
        for _ in 0..4 {
            vm.round(purpose("vm"));
            mac.round(purpose("mac"));
        }
        vm.rest(purpose("vm"));
        mac.rest(purpose("mac"));
        let seen = listed(&vm.root());
        assert_eq!(seen, listed(&mac.root()));
        assert_eq!(seen, listed(at.path()));
        assert_eq!(seen.len(), 2, "{seen:?}");
        let (won, lost) = match primary {
            "vm" => ("of vm", "of mac"),
            _ => ("of mac", "of vm"),
        };
        let copy = seen
            .iter()
            .find(|(name, _)| name != "a.md")
            .expect("a copy");
        assert_eq!(vm.read("a.md"), won);
        assert_eq!(copy.1, lost);
        let by = lost.strip_prefix("of ").expect("a name");
        assert!(
            copy.0.starts_with(&format!("a (conflict {by} ")),
            "{}",
            copy.0
        );
    }
}

#[test]
fn a_mirror_that_is_behind_rolls_nothing_back() {
    let at = at();
    let (mut vm, mut mac) = (Node::new("vm", at.path()), Node::new("mac", at.path()));
    for node in [&mut vm, &mut mac] {
        node.write("edited", "1");
        node.write("deleted", "1");
        node.write("d/inside", "1");
        node.agree();
    }
    vm.rest(AGREED);
    // Three edits and a deletion go by the direct link, while the mirror cannot be reached.
    for edit in 2..5 {
        for node in [&mut vm, &mut mac] {
            node.write("edited", &edit.to_string());
            node.agree();
        }
    }
    for node in [&mut vm, &mut mac] {
        fs::remove_file(node.root().join("deleted")).expect("removed");
        fs::remove_dir_all(node.root().join("d")).expect("removed");
        node.agree();
        node.mirror.note_moved().expect("noted");
    }
    // The link is cut, and the one that never looked at the mirror is the first to.
    let behind = mac.round(ROAD);
    assert_eq!(behind.taken, 0);
    mac.rest(ROAD);
    vm.rest(ROAD);
    for node in [&vm, &mac] {
        assert_eq!(
            listed(&node.root()),
            [("edited".to_owned(), "4".to_owned())]
        );
    }
    assert_eq!(listed(at.path()), listed(&vm.root()));
}

#[test]
fn a_mirror_that_was_emptied_empties_nothing() {
    let at = at();
    let mut vm = Node::new("vm", at.path());
    for number in 0..60 {
        vm.write(&format!("{number}"), "x");
    }
    vm.agree();
    vm.rest(AGREED);
    for number in 0..60 {
        fs::remove_file(at.path().join(number.to_string())).expect("removed");
    }
    vm.round(AGREED);
    let (is_here, alarm) = vm.mirror.alarm().expect("it waits for a person");
    assert!(is_here);
    assert_eq!((alarm.cause, alarm.deletes), (Cause::Emptied, 60));
    assert_eq!(listed(&vm.root()).len(), 60);
    assert!(!vm.mirror.confirm("another"));
    assert!(vm.mirror.confirm(&alarm.batch()));
    vm.round(AGREED);
    assert_eq!(listed(&vm.root()), []);
}

#[test]
fn a_disk_that_is_not_mounted_is_no_empty_mirror() {
    let at = at();
    let away = tempfile::tempdir().expect("a folder");
    let mut vm = Node::new("vm", at.path());
    vm.write("a", "x");
    vm.agree();
    vm.rest(AGREED);
    let id = fs::read_to_string(at.path().join(PRIVATE).join("id")).expect("it has one");
    let elsewhere = Folder::new(away.path().to_owned(), "vm", Some(id));
    let refused = run(Target::root(&elsewhere)).expect_err("it is not there");
    assert!(matches!(refused, crate::target::Wrong::NoRoot(_)));
    assert_eq!(fs::read_dir(away.path()).expect("a folder").count(), 0);
}

#[test]
fn two_of_one_name_that_both_made_become_one() {
    let at = at();
    let (vm, mac) = (Node::new("vm", at.path()), Node::new("mac", at.path()));
    vm.write("same", "equal");
    mac.write("same", "equal");
    vm.write("d/vm", "x");
    mac.write("d/mac", "x");
    for _ in 0..3 {
        vm.round(ROAD);
        mac.round(ROAD);
    }
    assert_eq!(listed(&vm.root()), listed(&mac.root()));
    assert_eq!(listed(&vm.root()), listed(at.path()));
    assert_eq!(listed(at.path()).len(), 4);
}

#[test]
fn secrets_and_what_is_ignored_stay_where_they_are() {
    let at = at();
    let mut vm = Node::new("vm", at.path());
    vm.write(".env", "SECRET=1");
    vm.write("keys/id_ed25519", "PRIVATE");
    vm.write("seen", "x");
    vm.write("later", "x");
    vm.agree();
    vm.rest(ROAD);
    assert!(!at.path().join(".env").exists());
    assert!(!at.path().join("keys/id_ed25519").exists());
    // A rule that comes later removes nothing anywhere.
    vm.replica
        .set_rules(Rules::parse("later\n").expect("rules"));
    vm.write("later", "not for the mirror");
    vm.rest(ROAD);
    let text = fs::read_to_string(at.path().join("later")).expect("it stays");
    assert_eq!(text, "x");
    // What a person puts there is not taken either.
    write(&at.path().join("x/.env"), "OTHER=1");
    vm.rest(ROAD);
    assert!(!vm.root().join("x/.env").exists());
}

#[test]
fn a_one_way_mode_takes_nothing_from_the_mirror() {
    let at = at();
    let mut vm = Node::new("vm", at.path());
    vm.mirror.setup.mode = Mode::OneWayReplica;
    vm.write("a", "one");
    vm.agree();
    vm.rest(AGREED);
    write(&at.path().join("a"), "by hand");
    write(&at.path().join("b"), "by hand");
    vm.rest(AGREED);
    assert_eq!(vm.read("a"), "one");
    assert_eq!(vm.read("b"), "-");
    assert_eq!(listed(at.path()), [("a".to_owned(), "one".to_owned())]);
    let trash = at.path().join(PRIVATE).join("trash");
    let days = fs::read_dir(trash).expect("a folder").count();
    assert_eq!(days, 1, "what was there can be brought back");
}

#[test]
fn a_database_that_both_changed_waits_for_a_person() {
    let at = at();
    let (mut vm, mut mac) = (Node::new("vm", at.path()), Node::new("mac", at.path()));
    for node in [&mut vm, &mut mac] {
        node.write("a.db", "one");
        node.agree();
    }
    vm.write("a.db", "of vm");
    mac.write("a.db", "of mac");
    vm.rest(ROAD);
    mac.round(ROAD);
    let waits = mac.mirror.waits();
    assert_eq!(waits.len(), 1);
    assert_eq!(waits[0].1.code, "held.mirror_held");
    assert_eq!(mac.read("a.db"), "of mac");
    assert_eq!(
        fs::read_to_string(at.path().join("a.db")).expect("it is there"),
        "of vm"
    );
}
