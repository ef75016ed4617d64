//! The tree as it was seen, in memory: `disk::seen` for simulated files.

use std::collections::{BTreeMap, BTreeSet};

use shared::path::{RelPath, below};
use shared::tree::{Base, Entry, Obstacle};

use crate::index::SeenRow;

/// What is known about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Slot {
    /// This was there.
    Is(SeenRow),
    /// Something was there that cannot be synced.
    Blocked(Obstacle),
}

impl Slot {
    pub(crate) fn row(&self) -> Option<&SeenRow> {
        match self {
            Self::Is(row) => Some(row),
            Self::Blocked(_) => None,
        }
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.row().is_some_and(|row| row.entry.is_dir())
    }
}

/// The moment at which a look began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Began {
    number: u64,
    alone: bool,
}

/// The map.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    slots: BTreeMap<RelPath, Slot>,
    unseen: BTreeSet<RelPath>,
    whole: BTreeSet<RelPath>,
    applying: BTreeSet<RelPath>,
    touched: BTreeSet<RelPath>,
    /// Hints that wait for the end of an apply.
    deferred: BTreeSet<RelPath>,
    looks: usize,
    begun: u64,
    /// Whether what an apply touches is believed all the same.
    pub(crate) believes_all: bool,
}

impl Seen {
    /// Starts from what was stored.
    pub(crate) fn new(rows: &BTreeMap<RelPath, SeenRow>, base: &Base) -> Self {
        let unseen = base
            .iter()
            .filter(|(path, row)| row.entry.is_some() && !rows.contains_key(*path))
            .map(|(path, _)| path.clone())
            .collect();
        let slots = rows
            .iter()
            .map(|(path, row)| (path.clone(), Slot::Is(row.clone())))
            .collect();
        Self {
            slots,
            unseen,
            ..Self::default()
        }
    }

    pub(crate) fn get(&self, path: &RelPath) -> Option<&Slot> {
        self.slots.get(path)
    }

    pub(crate) fn row(&self, path: &RelPath) -> Option<&SeenRow> {
        self.get(path).and_then(Slot::row)
    }

    pub(crate) fn insert(&mut self, path: RelPath, slot: Slot) {
        self.unseen.remove(&path);
        self.slots.insert(path, slot);
    }

    pub(crate) fn remove(&mut self, path: &RelPath) -> Option<Slot> {
        self.slots.remove(path)
    }

    pub(crate) fn below(&self, top: &RelPath) -> Vec<RelPath> {
        below(&self.slots, top)
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Returns the topmost path above `path` that was not seen as a directory.
    pub(crate) fn topmost_unknown(&self, path: &RelPath) -> Option<RelPath> {
        let above: Vec<_> = path.ancestors().collect();
        above
            .into_iter()
            .rev()
            .find(|dir| !self.get(dir).is_some_and(Slot::is_dir))
    }

    /// Returns what is known directly in a directory; `None` is the root.
    pub(crate) fn children(&self, dir: Option<&RelPath>) -> Vec<(RelPath, Slot)> {
        let direct = |(path, _): &(&RelPath, &Slot)| path.parent().as_ref() == dir;
        let owned = |(path, slot): (&RelPath, &Slot)| (path.clone(), slot.clone());
        match dir {
            Some(dir) => below(&self.slots, dir).filter(direct).map(owned).collect(),
            None => self.slots.iter().filter(direct).map(owned).collect(),
        }
    }

    /// Returns what is known below a directory and in no known directory.
    pub(crate) fn strays(&self, dir: Option<&RelPath>) -> Vec<(RelPath, Slot)> {
        let is_stray = |(path, _): &(&RelPath, &Slot)| {
            let parent = path.parent();
            parent.as_ref() != dir
                && parent.is_some_and(|parent| !self.get(&parent).is_some_and(Slot::is_dir))
        };
        let owned = |(path, slot): (&RelPath, &Slot)| (path.clone(), slot.clone());
        match dir {
            Some(dir) => below(&self.slots, dir)
                .filter(is_stray)
                .map(owned)
                .collect(),
            None => self.slots.iter().filter(is_stray).map(owned).collect(),
        }
    }

    /// Has the next look at a directory take in all that lies in it.
    pub(crate) fn look_whole(&mut self, dir: RelPath) {
        self.whole.insert(dir);
    }

    /// Says whether a look takes in all that lies in a directory.
    pub(crate) fn looks_whole(&mut self, dir: &RelPath) -> bool {
        self.whole.remove(dir)
    }

    pub(crate) fn take_unseen(&mut self) -> BTreeSet<RelPath> {
        std::mem::take(&mut self.unseen)
    }

    pub(crate) fn put_back_unseen(&mut self, path: RelPath) {
        self.unseen.insert(path);
    }

    pub(crate) fn is_unseen(&self, path: &RelPath) -> bool {
        self.unseen.contains(path)
    }

    pub(crate) fn begin_look(&mut self) -> Began {
        self.looks += 1;
        self.begun += 1;
        Began {
            number: self.begun,
            alone: self.looks == 1,
        }
    }

    /// Says whether another look was under way at any time since this one began.
    pub(crate) fn overlaps(&self, began: Began) -> bool {
        !began.alone || self.begun != began.number
    }

    pub(crate) fn end_look(&mut self) {
        self.looks -= 1;
        if self.looks == 0 {
            self.touched.clear();
        }
    }

    pub(crate) fn begin_apply(&mut self, paths: impl Iterator<Item = RelPath>) {
        self.applying.extend(paths);
    }

    pub(crate) fn end_apply(&mut self) -> BTreeSet<RelPath> {
        let applied = std::mem::take(&mut self.applying);
        if self.looks > 0 {
            self.touched.extend(applied);
        }
        std::mem::take(&mut self.deferred)
    }

    /// Says whether a hint waits for the end of an apply.
    pub(crate) fn defers(&mut self, path: &RelPath, target: &RelPath) -> bool {
        let defers = !self.believes_all && self.applying.contains(target);
        if defers {
            self.deferred.insert(path.clone());
        }
        defers
    }

    /// Returns the paths that an apply worked on while a look was under way.
    pub(crate) fn doubtful(&self) -> Vec<RelPath> {
        let both = self.applying.union(&self.touched);
        both.filter(|_| !self.believes_all).cloned().collect()
    }

    /// Says whether an apply worked on this path while a look was under way.
    pub(crate) fn is_doubtful(&self, path: &RelPath) -> bool {
        !self.believes_all && (self.applying.contains(path) || self.touched.contains(path))
    }

    /// Returns all that is known, in order.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (&RelPath, &Slot)> {
        self.slots.iter()
    }

    /// Returns the tree as it was seen.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&RelPath, &Entry)> {
        self.slots
            .iter()
            .filter_map(|(path, slot)| Some((path, &slot.row()?.entry)))
    }
}
