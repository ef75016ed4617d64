//! `up --once`: two folders of one machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::{
    Answer, SOON, assert_equal, command, layer_sync, listing, names, read, run, wait, wait_until,
    write,
};

/// Sources of crates that this workspace is built from, so that they are on every machine that built
/// it. A folder of our own stands in where the registry's is not at hand.
const CRATES: [&str; 4] = ["redb-", "quinn-proto-", "serde_json-", "rustix-"];

struct Folders {
    scratch: TempDir,
    source: PathBuf,
    replica: PathBuf,
}

impl Folders {
    fn new() -> Self {
        let scratch = TempDir::with_prefix("ls-e2e-").unwrap();
        let [source, replica] = ["source", "replica"].map(|name| scratch.path().join(name));
        fs::create_dir(&source).unwrap();
        Self {
            scratch,
            source,
            replica,
        }
    }

    fn home(&self) -> PathBuf {
        self.scratch.path().join("home")
    }

    fn up(&self, args: &[&str]) -> Answer {
        self.up_between(&self.source, &self.replica, args)
    }

    fn up_between(&self, source: &Path, replica: &Path, args: &[&str]) -> Answer {
        let folders = [source, replica].map(|folder| folder.to_str().unwrap());
        layer_sync(
            &self.home(),
            ["up", "--once"].iter().chain(&folders).chain(args),
        )
    }
}

/// Copies a real tree to `to`.
pub(crate) fn real_tree(to: &Path) {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let registries = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let crates = registries
        .into_iter()
        .flatten()
        .flatten()
        .flat_map(|registry| fs::read_dir(registry.path()).unwrap().flatten());
    let wanted = crates.filter(|entry| {
        CRATES
            .iter()
            .any(|name| entry.file_name().to_string_lossy().starts_with(name))
    });
    let mut sources: Vec<_> = wanted.map(|entry| entry.path()).collect();
    if sources.is_empty() {
        sources.push(Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("shared"));
    }
    for source in sources {
        run("cp", ["-a".as_ref(), source.as_os_str(), to.as_os_str()]).exits(0);
    }
}

/// Returns the inode of every file: a file that is written anew has another one.
fn inodes(root: &Path) -> BTreeMap<String, String> {
    let found = run(
        "find",
        [root.to_str().unwrap(), "-type", "f", "-printf", "%P %i\\n"],
    )
    .exits(0);
    let lines = found
        .stdout
        .lines()
        .map(|line| line.rsplit_once(' ').unwrap());
    let ours = lines.filter(|(path, _)| !path.starts_with(".layer-sync"));
    ours.map(|(path, inode)| (path.to_owned(), inode.to_owned()))
        .collect()
}

#[test]
fn a_real_tree_becomes_equal_and_stays_cheap() {
    let folders = Folders::new();
    real_tree(&folders.source);
    let before = listing(&folders.source);
    let first = folders.up(&[]).exits(0);
    assert!(first.stdout.starts_with("up to date: "), "{first:#?}");
    assert_equal(&folders.source, &folders.replica);
    assert_eq!(listing(&folders.source), before, "the source is as it was");

    let there = inodes(&folders.replica);
    folders.up(&[]).exits(0);
    assert_eq!(
        inodes(&folders.replica),
        there,
        "nothing is written a second time"
    );

    write(&folders.source, "new/note.md", "new");
    let changed = there.keys().find(|path| path.ends_with(".rs")).unwrap();
    write(&folders.source, changed, "changed");
    let deleted = there.keys().find(|path| path.ends_with(".md")).unwrap();
    fs::remove_file(folders.source.join(deleted)).unwrap();
    folders.up(&[]).exits(0);
    assert_equal(&folders.source, &folders.replica);
    let mut now = inodes(&folders.replica);
    now.remove("new/note.md").unwrap();
    assert_ne!(
        now.insert(changed.clone(), there[changed].clone()),
        Some(there[changed].clone())
    );
    now.insert(deleted.clone(), there[deleted].clone());
    assert_eq!(now, there, "only what changed is written");
}

#[test]
fn modes() {
    // Agreed before: a=1 b=1 d=1. Then a=2, no b and c=1 on the replica, and d changed on both.
    let check = |mode: &str, code: i32, source: &str, replica: &str| {
        let folders = Folders::new();
        let (up, state) = (
            || folders.up(&["--mode", mode]),
            |root: &Path| {
                let files =
                    names(root)
                        .into_iter()
                        .map(|name| match name.split_once(" (conflict ") {
                            None => format!("{name}={}", read(root, &name).unwrap()),
                            Some((stem, _)) => format!("{stem}?={}", read(root, &name).unwrap()),
                        });
                files.collect::<Vec<_>>().join(" ")
            },
        );
        ["a", "b", "d"]
            .iter()
            .for_each(|name| write(&folders.source, name, "1"));
        up().exits(0);
        write(&folders.source, "d", "2");
        write(&folders.replica, "d", "3");
        write(&folders.replica, "a", "2");
        write(&folders.replica, "c", "1");
        fs::remove_file(folders.replica.join("b")).unwrap();
        let answer = up();
        let found = (answer.code, state(&folders.source), state(&folders.replica));
        assert_eq!(
            found,
            (code, source.to_owned(), replica.to_owned()),
            "{mode}: {answer:#?}"
        );
    };
    #[rustfmt::skip]
    let cases = [
        // mode               exit  source                replica
        ("two-way-safe",      0,    "a=2 c=1 d=2 d?=3",   "a=2 c=1 d=2 d?=3"),
        ("two-way-resolved",  0,    "a=2 c=1 d=2",        "a=2 c=1 d=2"),
        ("one-way-safe",      4,    "a=1 b=1 d=2",        "a=2 b=1 c=1 d=3"),
        ("one-way-replica",   0,    "a=1 b=1 d=2",        "a=1 b=1 d=2"),
    ];
    for (mode, code, source, replica) in cases {
        check(mode, code, source, replica);
    }
}

#[test]
fn folders_that_cannot_be_a_pair_are_refused_and_left_alone() {
    let folders = Folders::new();
    write(&folders.source, "a/file", "1");
    write(folders.scratch.path(), "plain", "1");
    let before = listing(folders.scratch.path());
    let at = |path: &str| folders.scratch.path().join(path);
    let check = |source: &str, replica: &str, code: i32, words: &[&str]| {
        folders
            .up_between(&at(source), &at(replica), &[])
            .exits(code)
            .says(words);
        drop(fs::remove_dir_all(folders.home()));
        assert_eq!(
            listing(folders.scratch.path()),
            before,
            "{source} and {replica}"
        );
    };
    check("source", "source", 2, &["both source and replica"]);
    check("source/a", "source", 2, &["inside the other"]);
    check("source", "source/a", 2, &["inside the other"]);
    check("source", "source/none", 2, &["inside the other"]);
    check("none", "replica", 1, &["none", "cannot be opened"]);
    check("plain", "replica", 1, &["plain", "not a directory"]);
    check("source", "plain", 1, &["plain", "not a directory"]);
    folders.up(&["--mode", "sideways"]).exits(2);
}

#[test]
fn without_once_it_goes_on_until_it_is_told_to_stop() {
    let folders = Folders::new();
    write(&folders.source, "a", "1");
    let said = folders.scratch.path().join("said");
    let mut up = command(&folders.home());
    up.args([
        "up".as_ref(),
        folders.source.as_os_str(),
        folders.replica.as_os_str(),
    ]);
    let mut up = up.stdout(fs::File::create(&said).unwrap()).spawn().unwrap();
    let said = || fs::read_to_string(&said).unwrap();
    wait_until("both are equal", SOON, || {
        said().contains("up to date: 1 file")
    });
    write(&folders.source, "note.md", "there");
    write(&folders.replica, "answer.md", "back");
    wait_until("both changes are told", SOON, || {
        said().contains("note.md") && said().contains("answer.md")
    });
    kill_process(Pid::from_child(&up), Signal::TERM).unwrap();
    let status = wait("it stops", Duration::from_secs(5), || {
        up.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(0), "{}", said());
    assert_equal(&folders.source, &folders.replica);
}
