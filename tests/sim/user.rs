//! The people at both machines: what they do to their trees, and what they are owed for it.

use std::collections::HashMap;
use std::sync::LazyLock;

use shared::hash::ContentHash;
use shared::ignore::RULES_FILE;
use shared::path::RelPath;
use shared::tree::{Entry, Side};

use crate::oracle::Oracle;
use crate::volume::{Place, Volume, content};

/// The names that people use: few and nested, so that they collide.
pub(crate) const NAMES: [&str; 10] = [
    "a", "a/a", "a/a/a", "a/b", "a/b/c", "b", "b/a", "b/c", "c", "d.md",
];
/// What stands in `.layerignore`, if that is there.
pub(crate) const RULES: [&str; 3] = ["b/c\n", "*.md\n", ""];
/// Contents from this number on are new with each save.
pub(crate) const CONTENTS: usize = 400;

static PATHS: LazyLock<Vec<RelPath>> = LazyLock::new(|| {
    let parse = |name: &&str| RelPath::parse(name).ok();
    NAMES.iter().filter_map(parse).collect()
});
static TEXTS: LazyLock<Vec<(ContentHash, u64)>> = LazyLock::new(|| {
    let text = |number: u64| (ContentHash::of_bytes(&number.to_le_bytes()), len_of(number));
    (0..CONTENTS as u64).map(text).collect()
});

/// Most are small; some are long and come in chunks, and some of those travel outside of the lane.
fn len_of(number: u64) -> u64 {
    match number % 13 {
        5 => 100_000 + number,
        11 => 5_000_000 + number,
        _ => 1 + number,
    }
}

static LENS: LazyLock<HashMap<ContentHash, u64>> =
    LazyLock::new(|| TEXTS.iter().copied().collect());

/// Returns the length of a content that somebody may save.
pub(crate) fn len_of_content(content: &ContentHash) -> Option<u64> {
    LENS.get(content).copied()
}

/// Returns the content of a number.
pub(crate) fn text(number: u16) -> (ContentHash, u64) {
    TEXTS[usize::from(number) % CONTENTS]
}

/// Returns the path of a number.
pub(crate) fn path(number: u8) -> &'static RelPath {
    &PATHS[usize::from(number) % PATHS.len()]
}

/// What somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Saves as an editor does: a new file over the old one.
    Save(u8, u16),
    /// Writes into the file in place.
    Write(u8, u16),
    /// Removes, with all that is in it.
    Remove(u8),
    /// Makes a directory, in place of a file that is there.
    MakeDir(u8),
    /// Makes a file of what was a directory, or something else.
    MakeFile(u8, u16),
    Rename(u8, u8),
    Link(u8, u8),
    /// Turns the exec bit.
    Turn(u8),
    /// Removes a file and makes the same one anew.
    Again(u8),
    /// Forbids reading.
    Shut(u8),
    /// Allows reading everything again.
    OpenAll,
    /// Changes or removes `.layerignore`.
    Rules(u8),
}

/// Does it, where a file system would let it be done.
pub(crate) fn act(volume: &mut Volume, side: Side, edit: Edit, oracle: &mut Oracle) {
    let mut hand = Hand {
        volume,
        side,
        oracle,
    };
    match edit {
        Edit::Save(at, text) => hand.save(at, text),
        Edit::Write(at, text) => hand.write(at, text),
        Edit::Remove(at) => {
            if let Some(path) = hand.existing(at) {
                hand.remove(&path);
            }
        }
        Edit::MakeDir(at) => hand.make_dir(at),
        Edit::MakeFile(at, text) => {
            if let Some(path) = hand.reach(at) {
                hand.remove(&path);
                hand.create(&path, text);
            }
        }
        Edit::Rename(from, to) => hand.rename(from, to),
        Edit::Link(at, to) => {
            if let Some(path) = hand.reach(at).filter(|path| !hand.is_dir(path)) {
                hand.remove(&path);
                let target = format!("to-{}", to % 3).into();
                hand.put(&path, Entry::Symlink { target });
            }
        }
        Edit::Turn(at) => hand.turn(at),
        Edit::Again(at) => {
            if let Some(path) = hand.existing(at)
                && let Some(entry @ Entry::File { .. }) = hand.volume.entry(&path).cloned()
            {
                hand.remove(&path);
                hand.put(&path, entry);
            }
        }
        Edit::Shut(at) => {
            if let Some(path) = hand.existing(at) {
                hand.volume.shut(&path, true);
            }
        }
        Edit::OpenAll => hand.volume.open_all(),
        Edit::Rules(which) => hand.rules(which),
    }
}

struct Hand<'a> {
    volume: &'a mut Volume,
    side: Side,
    oracle: &'a mut Oracle,
}

impl Hand<'_> {
    fn is_dir(&self, path: &RelPath) -> bool {
        self.volume.entry(path).is_some_and(Entry::is_dir)
    }

    /// Returns the path, or what of it can be made: the first name whose directory is there.
    fn reach(&self, at: u8) -> Option<RelPath> {
        let mut path = PATHS[usize::from(at) % PATHS.len()].clone();
        while let Some(parent) = path.parent() {
            if self.is_dir(&parent) {
                break;
            }
            path = parent;
        }
        (!self.volume.is_shut_above(&path)).then_some(path)
    }

    /// Returns a path that is there, near the one that was asked for.
    fn existing(&self, at: u8) -> Option<RelPath> {
        let path = self.reach(at)?;
        if self.volume.entry(&path).is_some() {
            return Some(path);
        }
        let count = self.volume.paths().count();
        let path = self.volume.paths().nth(usize::from(at) % count.max(1))?;
        (!self.volume.is_shut_above(path)).then(|| path.clone())
    }

    fn put(&mut self, path: &RelPath, entry: Entry) {
        self.oracle.touches(self.side, path);
        if let Some(content) = content(&entry) {
            self.oracle.saves(self.side, path, content);
        }
        self.volume.create(Place::Tree(path.clone()), entry);
    }

    fn create(&mut self, path: &RelPath, text: u16) {
        let (content, len) = TEXTS[usize::from(text) % CONTENTS];
        let exec = false;
        self.put(path, Entry::File { content, len, exec });
    }

    /// Tells that what is at a path is given up by its owner.
    fn gives_up(&mut self, path: &RelPath) {
        if let Some(content) = self.volume.entry(path).and_then(content) {
            self.oracle.gives_up(self.side, path, content);
        }
        self.oracle.touches(self.side, path);
    }

    fn remove(&mut self, path: &RelPath) {
        let below = self.volume.below(path);
        for path in below.iter().rev().chain([path]) {
            if self.volume.entry(path).is_some() {
                self.gives_up(path);
                self.volume.remove(Place::Tree(path.clone()));
            }
        }
    }

    fn save(&mut self, at: u8, text: u16) {
        let Some(path) = self.reach(at).filter(|path| !self.is_dir(path)) else {
            return;
        };
        if self.volume.entry(&path).is_some() {
            self.gives_up(&path);
        }
        self.create(&path, text);
    }

    fn write(&mut self, at: u8, text: u16) {
        let Some(path) = self.reach(at) else { return };
        match self.volume.entry(&path) {
            None => self.create(&path, text),
            Some(Entry::File { .. }) => {
                self.gives_up(&path);
                let (content, len) = TEXTS[usize::from(text) % CONTENTS];
                self.oracle.saves(self.side, &path, content);
                self.volume.write(&path, (content, len));
            }
            Some(_) => {}
        }
    }

    fn make_dir(&mut self, at: u8) {
        let Some(path) = self.reach(at).filter(|path| !self.is_dir(path)) else {
            return;
        };
        self.remove(&path);
        self.put(&path, Entry::Dir);
    }

    fn rename(&mut self, from: u8, to: u8) {
        let (Some(from), Some(to)) = (self.existing(from), self.reach(to)) else {
            return;
        };
        let is_dir = self.is_dir(&from);
        let fits = match self.volume.entry(&to) {
            None => true,
            // As `rename` has it: a directory only over an empty one, a file over anything else.
            Some(Entry::Dir) => is_dir && self.volume.below(&to).is_empty(),
            Some(_) => !is_dir,
        };
        if !fits || from == to || to.is_below(&from) || from.is_below(&to) {
            return;
        }
        if self.volume.entry(&to).is_some() {
            self.gives_up(&to);
        }
        let moving: Vec<RelPath> = self
            .volume
            .below(&from)
            .into_iter()
            .chain([from.clone()])
            .collect();
        for path in moving {
            let Ok(moved) = path.rebase(&from, &to) else {
                continue;
            };
            self.oracle.touches(self.side, &path);
            self.oracle.touches(self.side, &moved);
            if let Some(content) = self.volume.entry(&path).and_then(content) {
                self.oracle.moves(self.side, &path, &moved, content);
            }
        }
        self.volume.rename(&Place::Tree(from), &Place::Tree(to));
    }

    fn turn(&mut self, at: u8) {
        let Some(path) = self.existing(at) else {
            return;
        };
        if let Some((ino, inode)) = self.volume.node(&path)
            && let Entry::File { exec, .. } = inode.entry
        {
            self.volume.set_exec(ino, !exec);
            self.oracle.touches(self.side, &path);
        }
    }

    fn rules(&mut self, which: u8) {
        let Ok(path) = RelPath::parse(RULES_FILE) else {
            return;
        };
        self.oracle.rules_changed = true;
        self.remove(&path);
        if let Some(text) = RULES.get(usize::from(which) % (RULES.len() + 1)) {
            let content = ContentHash::of_bytes(text.as_bytes());
            let len = text.len() as u64;
            let exec = false;
            self.put(&path, Entry::File { content, len, exec });
        }
    }
}
