//! What is measured on: a replica in a temporary folder, and trees of small files in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use disk::{KeptLimits, Look, Looked, Places, Replica, Report};
use shared::hash::ContentHash;
use shared::ignore::Rules;
use shared::path::RelPath;
use shared::transfer::Outcome;
use shared::tree::Entry;

pub(crate) const FILES_PER_DIR: usize = 40;

/// A root in a temporary folder, which may be opened again and again.
pub(crate) struct Folder {
    dir: tempfile::TempDir,
    opened: usize,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("root")).expect("the root");
        Self { dir, opened: 0 }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Opens the root as a new replica, with an empty index. The one before has to be closed.
    pub(crate) fn open(&mut self) -> Arc<Replica> {
        self.opened += 1;
        let places = Places {
            root: self.root(),
            state: self.dir.path().join(format!("state-{}", self.opened)),
        };
        let sink = |report| {
            if let Report::Applied { outcomes, .. } = report {
                let done = outcomes.iter().all(|outcome| *outcome == Outcome::Done);
                assert!(done, "an operation was not done");
            }
        };
        let opened = Replica::open(
            &places,
            None,
            Rules::default(),
            "here",
            KeptLimits::default(),
            Box::new(sink),
        );
        Arc::new(opened.expect("it opens").0)
    }
}

pub(crate) fn path(name: &str) -> RelPath {
    RelPath::parse(name).expect("a path")
}

pub(crate) fn dir_name(number: usize) -> String {
    format!("d{:05}", number / FILES_PER_DIR)
}

pub(crate) fn name(number: usize) -> String {
    format!("{}/note-{number:06}.md", dir_name(number))
}

/// Returns a note of 200 to 4,000 bytes. The same number and version give the same one.
pub(crate) fn note(number: usize, version: usize) -> Vec<u8> {
    let len = 200 + number * 7919 % 3800;
    let line = format!("{number} {version}: the tree is kept equal on two machines\n");
    line.bytes().cycle().take(len).collect()
}

pub(crate) fn entry(content: &[u8]) -> Entry {
    Entry::File {
        content: ContentHash::of_bytes(content),
        len: content.len() as u64,
        exec: false,
    }
}

/// Writes so many notes.
pub(crate) fn write_notes(root: &Path, files: usize, version: usize) {
    for number in 0..files {
        if number % FILES_PER_DIR == 0 {
            fs::create_dir_all(root.join(dir_name(number))).expect("a directory");
        }
        fs::write(root.join(name(number)), note(number, version)).expect("a file");
    }
}

/// Looks at the whole tree.
pub(crate) fn look(replica: &Replica) -> Looked {
    let looked = replica.look(&Look::All, &AtomicBool::new(false));
    let looked = looked.expect("a look");
    assert!(looked.complete && looked.again.is_empty());
    looked
}

/// Makes all that was written on the volume of a folder durable: GNU `sync -f`. Starting that program takes
/// about a millisecond. Elsewhere it waits for all volumes.
pub(crate) fn sync_volume(folder: &Path) {
    let synced = Command::new("sync").arg("-f").arg(folder).status();
    assert!(synced.expect("a program `sync`").success());
}
