//! The tree as it was seen: one row for each path, in memory.
//!
//! Looks and applies both write here, and both report under the lock of this map, so reports come in
//! the order in which things became true. A look reads the disk without the lock; what an apply
//! touched in the meantime is not believed but looked at again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

use shared::hash::ContentHash;
use shared::path::{RelPath, below};
use shared::tree::{Base, Entry, Obstacle};

use crate::fingerprint::SeenRow;
use crate::reread::known;

/// What is known about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Slot {
    /// This was there.
    Is(SeenRow),
    /// Something was there that cannot be synced.
    Blocked {
        /// Why not.
        obstacle: Obstacle,
        /// Whether it is a directory on which a volume was mounted that is gone now.
        lost_mount: bool,
    },
    /// A file of this row was there, and reads differently now although nothing wrote to it.
    Rotten(SeenRow),
}

impl Slot {
    pub(crate) fn row(&self) -> Option<&SeenRow> {
        if let Self::Is(row) = self {
            Some(row)
        } else {
            None
        }
    }

    pub(crate) fn is_rotten(&self) -> bool {
        matches!(self, Self::Rotten(_))
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.row().is_some_and(|row| row.entry.is_dir())
    }
}

/// The map, behind one lock.
#[derive(Default)]
pub(crate) struct Seen {
    slots: BTreeMap<RelPath, Slot>,
    /// Paths of the base that are not in `slots`, and files that rotted before the start: a look of the
    /// whole tree has to say what is there, since nothing else will.
    unseen: BTreeSet<RelPath>,
    /// Directories of which the next look takes in all that lies in them, although they are known.
    whole: HashSet<RelPath>,
    /// Paths that an apply works on now.
    applying: HashSet<RelPath>,
    /// Paths that an apply worked on while a look was under way.
    touched: HashSet<RelPath>,
    /// Hints that wait for the end of an apply.
    deferred: BTreeSet<RelPath>,
    looks: usize,
    /// How many looks have ever begun.
    begun: u64,
    /// How many slots were written since the map was packed.
    unpacked: usize,
}

/// So many slots make it worth to pack the map.
const PACK_MIN: usize = 50_000;

impl Seen {
    /// Starts from what was stored.
    pub(crate) fn new(
        rows: Vec<(RelPath, SeenRow)>,
        rotten: &HashSet<RelPath>,
        base: &Base,
    ) -> Self {
        let slot = |(path, row)| {
            if rotten.contains(&path) {
                (path, Slot::Rotten(row))
            } else {
                (path, Slot::Is(row))
            }
        };
        let slots: BTreeMap<_, _> = rows.into_iter().map(slot).collect();
        let mut standing = slots.keys().peekable();
        let mut is_seen = |path: &RelPath| {
            while standing.next_if(|other| *other < path).is_some() {}
            standing.next_if_eq(&path).is_some()
        };
        let unseen = base
            .iter()
            .filter(|(path, row)| !is_seen(path) && row.entry.is_some())
            .map(|(path, _)| path.clone())
            .chain(rotten.iter().cloned())
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
        self.slots.get(path).and_then(Slot::row)
    }

    pub(crate) fn insert(&mut self, path: RelPath, slot: Slot) {
        self.unseen.remove(&path);
        self.slots.insert(path, slot);
        self.unpacked += 1;
    }

    /// Packs the map, if that is worth it, as `shared::tree::Trees::pack`.
    pub(crate) fn pack(&mut self) {
        if self.unpacked >= PACK_MIN {
            self.unpacked = 0;
            self.slots = std::mem::take(&mut self.slots).into_iter().collect();
        }
    }

    pub(crate) fn remove(&mut self, path: &RelPath) -> Option<Slot> {
        self.slots.remove(path)
    }

    /// Says whether nothing was ever seen.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the paths below `top`, in order.
    pub(crate) fn below(&self, top: &RelPath) -> Vec<RelPath> {
        below(&self.slots, top)
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Says whether anything below `top` is known.
    pub(crate) fn has_below(&self, top: &RelPath) -> bool {
        below(&self.slots, top).next().is_some()
    }

    /// Returns the topmost path above `path` that was not seen as a directory.
    pub(crate) fn topmost_unknown(&self, path: &RelPath) -> Option<RelPath> {
        let mut above: Vec<_> = path.ancestors().collect();
        above.reverse();
        above
            .into_iter()
            .find(|dir| !self.get(dir).is_some_and(Slot::is_dir))
    }

    /// Returns what is known directly in a directory, in order, and what is known below it in no known
    /// directory; `None` is the root.
    pub(crate) fn children(&self, dir: Option<&RelPath>) -> Children {
        let mut found = Children::default();
        let mut range = match dir {
            Some(dir) => self.slots.range::<RelPath, _>((Excluded(dir), Unbounded)),
            None => self.slots.range::<RelPath, _>(..),
        };
        while let Some((path, slot)) = range.next() {
            if dir.is_some_and(|dir| !path.is_below(dir)) {
                break;
            }
            let known = (path.clone(), slot.clone());
            if path.parent().as_ref() == dir {
                found.direct.push(known);
            } else {
                found.strays.push(known);
            }
            // Whatever lies below a directory comes right after it; go past it in one step.
            if slot.is_dir()
                && let Some(next) = first_after(path)
            {
                range = self.slots.range::<RelPath, _>((Included(&next), Unbounded));
            }
        }
        found
    }

    /// Says whether more than `most` names are known directly in a directory.
    pub(crate) fn has_more_children(&self, dir: &RelPath, most: usize) -> bool {
        let mut range = self.slots.range::<RelPath, _>((Excluded(dir), Unbounded));
        let mut count = 0;
        while let Some((path, slot)) = range.next() {
            if !path.is_below(dir) {
                return false;
            }
            count += 1;
            if count > most {
                return true;
            }
            if slot.is_dir()
                && let Some(next) = first_after(path)
            {
                range = self.slots.range::<RelPath, _>((Included(&next), Unbounded));
            }
        }
        false
    }

    /// Returns a file with this content, if one was seen.
    pub(crate) fn with_content(&self, wanted: ContentHash) -> Option<RelPath> {
        let has =
            |row: &SeenRow| matches!(row.entry, Entry::File { content, .. } if content == wanted);
        self.slots
            .iter()
            .find(|(_, slot)| slot.row().is_some_and(has))
            .map(|(path, _)| path.clone())
    }

    /// Returns the files after a path, in order, those that rot as well; `None` begins at the root.
    pub(crate) fn files(
        &self,
        after: Option<&RelPath>,
    ) -> impl Iterator<Item = (&RelPath, &SeenRow)> {
        let from = after.map_or(Unbounded, Excluded);
        self.slots
            .range::<RelPath, _>((from, Unbounded))
            .filter_map(|(path, slot)| Some((path, known(Some(slot))?)))
            .filter(|(_, row)| matches!(row.entry, Entry::File { .. }))
    }

    /// Returns what is known after a path, in order; `None` begins at the root.
    pub(crate) fn slots_after(
        &self,
        after: Option<&RelPath>,
    ) -> impl Iterator<Item = (&RelPath, &Slot)> {
        let from = after.map_or(Unbounded, Excluded);
        self.slots.range::<RelPath, _>((from, Unbounded))
    }

    /// Returns the bytes in all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.slots
            .values()
            .filter_map(Slot::row)
            .map(|row| row.entry.len())
            .sum()
    }

    /// Takes the paths of the base that nothing was ever seen at.
    pub(crate) fn take_unseen(&mut self) -> BTreeSet<RelPath> {
        std::mem::take(&mut self.unseen)
    }

    /// Leaves a path for the next look of the whole tree.
    pub(crate) fn put_back_unseen(&mut self, path: RelPath) {
        self.unseen.insert(path);
    }

    /// Says whether the base has something here that was not seen in this process.
    pub(crate) fn is_unseen(&self, path: &RelPath) -> bool {
        self.unseen.contains(path)
    }

    /// Has the next look at a directory take in all that lies in it.
    pub(crate) fn look_whole(&mut self, dir: RelPath) {
        self.whole.insert(dir);
    }

    /// Says whether a look takes in all that lies in a directory, and takes note that it does.
    pub(crate) fn looks_whole(&mut self, dir: &RelPath) -> bool {
        self.whole.remove(dir)
    }

    /// Takes it that a look begins; returns when that is, for [`Seen::overlaps`].
    pub(crate) fn begin_look(&mut self) -> Began {
        self.looks += 1;
        self.begun += 1;
        Began {
            number: self.begun,
            alone: self.looks == 1,
        }
    }

    /// Says whether another look was under way at any time since this one began. That one may have passed
    /// by a path before this one tells of it, and after it was gone again.
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

    /// Takes it that an apply ends; returns the hints that waited for it.
    pub(crate) fn end_apply(&mut self) -> BTreeSet<RelPath> {
        let applied = std::mem::take(&mut self.applying);
        if self.looks > 0 {
            self.touched.extend(applied);
        }
        std::mem::take(&mut self.deferred)
    }

    /// Says whether a hint about `path`, for which `target` would be looked at, waits for the end of an
    /// apply: most such hints tell of what the apply does itself, and a look would not be believed before.
    pub(crate) fn defers(&mut self, path: &RelPath, target: &RelPath) -> bool {
        let defers = self.applying.contains(target);
        if defers {
            self.deferred.insert(path.clone());
        }
        defers
    }

    /// Returns the paths that an apply worked on while a look was under way. A walk that did not meet
    /// them, because the apply had not told of them yet, has no finding that could be doubted.
    pub(crate) fn doubtful(&self) -> Vec<RelPath> {
        self.applying.union(&self.touched).cloned().collect()
    }

    /// Says whether an apply worked on this path while a look, which may have read the disk before or
    /// in the middle of it, was under way.
    pub(crate) fn is_doubtful(&self, path: &RelPath) -> bool {
        self.applying.contains(path) || self.touched.contains(path)
    }
}

/// The moment at which a look began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Began {
    number: u64,
    alone: bool,
}

/// What is known below a directory, without what is known below directories in it.
#[derive(Debug, Default)]
pub(crate) struct Children {
    pub(crate) direct: Vec<(RelPath, Slot)>,
    /// What lies in no known directory: an apply told of it after a look had found its directory gone.
    pub(crate) strays: Vec<(RelPath, Slot)>,
}

/// Takes out stored rows that lie in no stored directory, as a crash may leave them: no look would
/// come by there. `rows` are in order.
pub(crate) fn drop_orphans(rows: &mut Vec<(RelPath, SeenRow)>) {
    // The stored directories that the row lies in, from the top.
    let mut dirs: Vec<RelPath> = Vec::new();
    rows.retain(|(path, row)| {
        while dirs.pop_if(|dir| !path.is_below(dir)).is_some() {}
        let parent = path.as_str().rsplit_once('/').map(|(parent, _)| parent);
        let stays = parent == dirs.last().map(RelPath::as_str);
        if stays && row.entry.is_dir() {
            dirs.push(path.clone());
        }
        stays
    });
}

/// Returns the smallest path that sorts after all that lies below `dir`, or `None` when that is no
/// valid path.
fn first_after(dir: &RelPath) -> Option<RelPath> {
    RelPath::parse(&format!("{dir}\u{1}")).ok()
}
