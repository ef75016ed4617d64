//! A simulated volume: names, inodes, and what a power cut leaves of them.
//!
//! Durability is that of a journaling file system at its worst. Changes of names and modes reach the
//! disk in the order in which they were made, so that a power cut takes back some of the last of them;
//! making a directory durable covers the last change in it and all before. Content reaches the disk
//! by itself or when its file is made durable; until then a power cut may leave the file empty, or as
//! it was when it was last durable. A process that dies takes nothing with it.

use std::collections::{BTreeMap, BTreeSet};

use shared::hash::ContentHash;
use shared::path::{RelPath, below};
use shared::tree::{Entry, Gen};

use crate::chance::Chance;

/// The number of an inode. Never used twice.
pub(crate) type Ino = u64;

/// Where a name is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In the tree that is synced.
    Tree(RelPath),
    /// In the stage.
    Stage(u64),
    /// In the kept store.
    Kept(u64),
    /// In a directory that is not in the tree.
    Inside(Ino, RelPath),
}

/// A directory, as far as durability asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dir {
    /// In the tree; `None` is the root.
    Tree(Option<RelPath>),
    /// The kept store.
    Kept,
    /// Not a directory: the inode of a file itself.
    Inode(Ino),
}

/// A file, directory or link.
#[derive(Debug, Clone)]
pub(crate) struct Inode {
    /// What it is.
    pub(crate) entry: Entry,
    /// Grows with each change of the content.
    pub(crate) mtime: u64,
    /// Grows with each change at all.
    pub(crate) ctime: u64,
    /// Whether nobody may read it.
    pub(crate) shut: bool,
    /// The content that a power cut cannot take: `None` while there is none.
    safe: Option<(ContentHash, u64)>,
}

/// What tells without reading that a file is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Print {
    pub(crate) ino: Ino,
    pub(crate) mtime: u64,
    pub(crate) ctime: u64,
}

/// What a batch is about to agree on (`disk::apply::intent`).
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    pub(crate) batch: Gen,
    pub(crate) rows: Vec<IntentRow>,
}

/// A path of an [`Intent`].
#[derive(Debug, Clone)]
pub(crate) struct IntentRow {
    pub(crate) path: RelPath,
    pub(crate) make: Option<Entry>,
    pub(crate) staged: Option<Ino>,
    pub(crate) changes_bit: Option<(Ino, u64)>,
}

/// A line of the kept store's catalogue.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) id: u64,
    pub(crate) staged: Option<Ino>,
}

/// A change that a power cut may take back: what was before.
#[derive(Debug)]
enum Change {
    Names(Vec<(Place, Option<Ino>)>),
    Exec(Ino, bool),
}

/// A volume.
#[derive(Debug, Default)]
pub(crate) struct Volume {
    names: BTreeMap<RelPath, Ino>,
    stage: BTreeMap<u64, Ino>,
    kept: BTreeMap<u64, Ino>,
    inside: BTreeMap<(Ino, RelPath), Ino>,
    inodes: BTreeMap<Ino, Inode>,
    /// The catalogue, and how much of it is durable.
    lines: Vec<Line>,
    lines_safe: usize,
    intent: Option<Intent>,
    intent_safe: Option<Intent>,
    /// Changes that are not durable yet, the oldest first.
    journal: Vec<Change>,
    last_ino: Ino,
    clock: u64,
    last_id: u64,
    /// Paths at which something moved since the watcher last asked.
    moved: Vec<RelPath>,
}

impl Volume {
    // What is there

    /// Returns the tree.
    pub(crate) fn tree(&self) -> BTreeMap<RelPath, Entry> {
        let entry = |ino: &Ino| self.inodes[ino].entry.clone();
        self.names
            .iter()
            .map(|(path, ino)| (path.clone(), entry(ino)))
            .collect()
    }

    /// Returns the paths of the tree, in order.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.names.keys()
    }

    /// Returns the inode at a name.
    pub(crate) fn ino(&self, place: &Place) -> Option<Ino> {
        match place {
            Place::Tree(path) => self.names.get(path),
            Place::Stage(id) => self.stage.get(id),
            Place::Kept(id) => self.kept.get(id),
            Place::Inside(dir, path) => self.inside.get(&(*dir, path.clone())),
        }
        .copied()
    }

    /// Returns what is at a name.
    pub(crate) fn at(&self, place: &Place) -> Option<(Ino, &Inode)> {
        let ino = self.ino(place)?;
        Some((ino, &self.inodes[&ino]))
    }

    /// Returns what is at a path of the tree.
    pub(crate) fn node(&self, path: &RelPath) -> Option<(Ino, &Inode)> {
        let ino = *self.names.get(path)?;
        Some((ino, &self.inodes[&ino]))
    }

    /// Returns an inode, whether a name leads to it or not.
    pub(crate) fn inode(&self, ino: Ino) -> Option<&Inode> {
        self.inodes.get(&ino)
    }

    /// Returns an entry of the tree.
    pub(crate) fn entry(&self, path: &RelPath) -> Option<&Entry> {
        self.node(path).map(|(_, inode)| &inode.entry)
    }

    /// Returns the fingerprint of what is at a name.
    pub(crate) fn print(&self, place: &Place) -> Option<Print> {
        let (ino, inode) = self.at(place)?;
        Some(Print {
            ino,
            mtime: inode.mtime,
            ctime: inode.ctime,
        })
    }

    /// Says whether a directory of the tree, or one above it, cannot be entered.
    pub(crate) fn is_shut_above(&self, path: &RelPath) -> bool {
        path.ancestors()
            .any(|above| self.node(&above).is_some_and(|(_, inode)| inode.shut))
    }

    /// Returns the paths directly in a directory of the tree.
    pub(crate) fn children(&self, dir: Option<&RelPath>) -> Vec<RelPath> {
        let direct = |path: &&RelPath| path.parent().as_ref() == dir;
        match dir {
            Some(dir) => below(&self.names, dir)
                .map(|(path, _)| path)
                .filter(direct)
                .cloned()
                .collect(),
            None => self.names.keys().filter(direct).cloned().collect(),
        }
    }

    /// Returns all paths below one of the tree.
    pub(crate) fn below(&self, top: &RelPath) -> Vec<RelPath> {
        below(&self.names, top)
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Returns where a directory of the tree is now; `None` when it is in the tree no more.
    pub(crate) fn path_of(&self, ino: Ino) -> Option<&RelPath> {
        self.names
            .iter()
            .find(|(_, other)| **other == ino)
            .map(|(path, _)| path)
    }

    /// Says whether a directory that is not in the tree is empty.
    pub(crate) fn is_empty_outside(&self, dir: Ino) -> bool {
        !self.inside.keys().any(|(of, _)| *of == dir)
    }

    /// Returns every content of this volume that a person can get at: in the tree, or in the kept
    /// store with a line in its catalogue. What a batch is displacing just now counts unless `at_rest`:
    /// the next start would find it.
    pub(crate) fn contents(&self, at_rest: bool) -> BTreeSet<ContentHash> {
        let listed: BTreeSet<u64> = self.lines.iter().map(|line| line.id).collect();
        let kept = self
            .kept
            .iter()
            .filter(|(id, _)| listed.contains(id))
            .map(|(_, ino)| ino);
        let displaced = self.stage.iter().filter(|(id, ino)| {
            let line = self.line(**id);
            !at_rest && line.is_some_and(|line| line.staged != Some(**ino))
        });
        let away: BTreeSet<&Ino> = kept.chain(displaced.map(|(_, ino)| ino)).collect();
        let inside = self.inside.iter().filter(|((of, _), _)| away.contains(of));
        self.names
            .values()
            .chain(away.iter().copied())
            .chain(inside.map(|(_, ino)| ino))
            .filter_map(|ino| content(&self.inodes[ino].entry))
            .collect()
    }

    /// Returns every content in the kept store.
    pub(crate) fn kept_contents(&self) -> BTreeSet<ContentHash> {
        let kept = self.kept.values();
        kept.filter_map(|ino| content(&self.inodes[ino].entry))
            .collect()
    }

    /// Returns every content on this volume, wherever it lies.
    pub(crate) fn all_contents(&self) -> BTreeSet<ContentHash> {
        self.names
            .values()
            .chain(self.stage.values())
            .chain(self.kept.values())
            .chain(self.inside.values())
            .filter_map(|ino| content(&self.inodes[ino].entry))
            .collect()
    }

    /// Takes the paths at which something moved since the last call.
    pub(crate) fn take_moved(&mut self) -> Vec<RelPath> {
        std::mem::take(&mut self.moved)
    }

    /// Returns a number for something staged or kept.
    pub(crate) fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Returns what lies in the stage.
    pub(crate) fn staged(&self) -> Vec<(u64, Ino)> {
        self.stage.iter().map(|(id, ino)| (*id, *ino)).collect()
    }

    // Changes

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn set(&mut self, place: &Place, ino: Option<Ino>) -> Option<Ino> {
        let map_id = |map: &mut BTreeMap<u64, Ino>, id: u64| match ino {
            Some(ino) => map.insert(id, ino),
            None => map.remove(&id),
        };
        match place {
            Place::Tree(path) => {
                self.moved.push(path.clone());
                match ino {
                    Some(ino) => self.names.insert(path.clone(), ino),
                    None => self.names.remove(path),
                }
            }
            Place::Stage(id) => map_id(&mut self.stage, *id),
            Place::Kept(id) => map_id(&mut self.kept, *id),
            Place::Inside(dir, path) => {
                let key = (*dir, path.clone());
                match ino {
                    Some(ino) => self.inside.insert(key, ino),
                    None => self.inside.remove(&key),
                }
            }
        }
    }

    /// Changes some names in one step.
    fn change(&mut self, changes: Vec<(Place, Option<Ino>)>) {
        let clock = self.tick();
        let mut before = Vec::with_capacity(changes.len());
        for (place, ino) in changes {
            if let Some(inode) = ino.and_then(|ino| self.inodes.get_mut(&ino)) {
                inode.ctime = clock;
            }
            let old = self.set(&place, ino);
            before.push((place, old));
        }
        // Backwards, so that a name which was changed twice gets its oldest state back.
        before.reverse();
        self.journal.push(Change::Names(before));
    }

    fn new_inode(&mut self, entry: Entry) -> Ino {
        self.last_ino += 1;
        let clock = self.tick();
        let inode = Inode {
            entry,
            mtime: clock,
            ctime: clock,
            shut: false,
            safe: None,
        };
        self.inodes.insert(self.last_ino, inode);
        self.last_ino
    }

    /// Makes something new at a name, in place of what is there. Returns its inode.
    pub(crate) fn create(&mut self, place: Place, entry: Entry) -> Ino {
        let ino = self.new_inode(entry);
        self.change(vec![(place, Some(ino))]);
        ino
    }

    /// Removes a name.
    pub(crate) fn remove(&mut self, place: Place) {
        self.change(vec![(place, None)]);
    }

    /// Moves a name over another one, with all that is below it.
    pub(crate) fn rename(&mut self, from: &Place, to: &Place) {
        let mut changes = vec![(from.clone(), None)];
        self.moves(from, to, &mut changes);
        self.change_ordered(changes);
    }

    /// Swaps two names in one step, with all that is below them.
    pub(crate) fn exchange(&mut self, a: &Place, b: &Place) {
        let mut changes = Vec::new();
        self.moves(a, b, &mut changes);
        self.moves(b, a, &mut changes);
        self.change_ordered(changes);
    }

    /// Adds the changes by which what is at one place comes to another.
    fn moves(&self, from: &Place, to: &Place, changes: &mut Vec<(Place, Option<Ino>)>) {
        let Some(ino) = self.ino(from) else { return };
        changes.push((to.clone(), Some(ino)));
        if !self.inodes[&ino].entry.is_dir() {
            return;
        }
        let inside: Vec<(Place, RelPath, Ino)> = match from {
            Place::Tree(dir) => below(&self.names, dir)
                .filter_map(|(path, child)| {
                    let suffix = RelPath::parse(&path.as_str()[dir.as_str().len() + 1..]).ok()?;
                    Some((Place::Tree(path.clone()), suffix, *child))
                })
                .collect(),
            _ => self
                .inside
                .iter()
                .filter(|((dir, _), _)| *dir == ino)
                .map(|((dir, path), child)| {
                    (Place::Inside(*dir, path.clone()), path.clone(), *child)
                })
                .collect(),
        };
        for (old, suffix, child) in inside {
            let new = match to {
                Place::Tree(dir) => match RelPath::parse(&format!("{dir}/{suffix}")) {
                    Ok(path) => Place::Tree(path),
                    Err(_) => continue,
                },
                _ => Place::Inside(ino, suffix),
            };
            changes.push((old, None));
            changes.push((new, Some(child)));
        }
    }

    fn change_ordered(&mut self, mut changes: Vec<(Place, Option<Ino>)>) {
        // What leaves goes first, so that a name is not taken from what comes.
        changes.sort_by_key(|(_, ino)| ino.is_some());
        self.change(changes);
    }

    /// Writes new content into a file of the tree.
    pub(crate) fn write(&mut self, path: &RelPath, content: (ContentHash, u64)) {
        let clock = self.tick();
        let Some(ino) = self.names.get(path) else {
            return;
        };
        if let Some(inode) = self.inodes.get_mut(ino)
            && let Entry::File {
                content: old, len, ..
            } = &mut inode.entry
        {
            (*old, *len) = content;
            (inode.mtime, inode.ctime) = (clock, clock);
            self.moved.push(path.clone());
        }
    }

    /// Sets the exec bit of a file.
    pub(crate) fn set_exec(&mut self, ino: Ino, exec: bool) {
        let clock = self.tick();
        if let Some(inode) = self.inodes.get_mut(&ino)
            && let Entry::File { exec: old, .. } = &mut inode.entry
            && *old != exec
        {
            self.journal.push(Change::Exec(ino, *old));
            *old = exec;
            inode.ctime = clock;
            self.moved.extend(
                self.names
                    .iter()
                    .find(|(_, at)| **at == ino)
                    .map(|(path, _)| path.clone()),
            );
        }
    }

    /// Forbids or allows reading something in the tree.
    pub(crate) fn shut(&mut self, path: &RelPath, shut: bool) {
        let clock = self.tick();
        if let Some(ino) = self.names.get(path)
            && let Some(inode) = self.inodes.get_mut(ino)
        {
            (inode.shut, inode.ctime) = (shut, clock);
            self.moved.push(path.clone());
        }
    }

    /// Allows reading everything.
    pub(crate) fn open_all(&mut self) {
        let shut: Vec<RelPath> = self
            .names
            .iter()
            .filter(|(_, ino)| self.inodes[ino].shut)
            .map(|(path, _)| path.clone())
            .collect();
        for path in shut {
            self.shut(&path, false);
        }
        // What an operation has swapped out may come back.
        for inode in self.inodes.values_mut() {
            inode.shut = false;
        }
    }

    // The private folder

    /// Adds lines to the catalogue.
    pub(crate) fn append(&mut self, lines: impl IntoIterator<Item = Line>) {
        self.lines.extend(lines);
    }

    /// Returns the catalogue's last line for a number.
    pub(crate) fn line(&self, id: u64) -> Option<&Line> {
        self.lines.iter().rev().find(|line| line.id == id)
    }

    /// Makes the catalogue durable.
    pub(crate) fn sync_lines(&mut self) {
        self.lines_safe = self.lines.len();
    }

    /// Writes the intent; it is not durable yet.
    pub(crate) fn write_intent(&mut self, intent: Option<Intent>) {
        self.intent = intent;
    }

    /// Makes the intent durable.
    pub(crate) fn sync_intent(&mut self) {
        self.intent_safe.clone_from(&self.intent);
    }

    /// Returns the intent.
    pub(crate) fn intent(&self) -> Option<&Intent> {
        self.intent.as_ref()
    }

    // Durability

    /// Makes the content of a file durable.
    pub(crate) fn sync_file(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.sync();
        }
    }

    /// Makes the last change in any of some directories durable, and all before it.
    pub(crate) fn sync_dirs(&mut self, dirs: &[Dir]) {
        let touches = |place: &Place| match place {
            Place::Tree(path) => dirs.contains(&Dir::Tree(path.parent())),
            Place::Kept(_) => dirs.contains(&Dir::Kept),
            Place::Stage(_) | Place::Inside(..) => false,
        };
        let last = self.journal.iter().rposition(|change| match change {
            Change::Names(before) => before.iter().any(|(place, _)| touches(place)),
            Change::Exec(ino, _) => dirs.contains(&Dir::Inode(*ino)),
        });
        if let Some(last) = last {
            self.journal.drain(..=last);
        }
    }

    /// Makes everything durable.
    pub(crate) fn sync_all(&mut self) {
        self.journal.clear();
        self.lines_safe = self.lines.len();
        self.intent_safe.clone_from(&self.intent);
        let Self {
            inodes,
            names,
            stage,
            kept,
            inside,
            ..
        } = self;
        // What no name leads to any more is gone.
        let live: BTreeSet<Ino> = names
            .values()
            .chain(stage.values())
            .chain(kept.values())
            .chain(inside.values())
            .copied()
            .collect();
        inodes.retain(|ino, _| live.contains(ino));
        for inode in inodes.values_mut() {
            inode.sync();
        }
    }

    /// Takes away what was not durable, as chance decides.
    pub(crate) fn cut_power(&mut self, chance: &mut Chance) {
        let staying = chance.below(self.journal.len() + 1);
        for change in self.journal.split_off(staying).into_iter().rev() {
            match change {
                Change::Names(before) => {
                    for (place, ino) in before {
                        self.set(&place, ino);
                    }
                }
                Change::Exec(ino, exec) => {
                    let clock = self.tick();
                    if let Some(Inode {
                        entry: Entry::File { exec: now, .. },
                        ctime,
                        ..
                    }) = self.inodes.get_mut(&ino)
                    {
                        (*now, *ctime) = (exec, clock);
                    }
                }
            }
        }
        let clock = self.tick();
        for inode in self.inodes.values_mut() {
            inode.lose_power(chance, clock);
        }
        let lines = self.lines_safe + chance.below(self.lines.len() - self.lines_safe + 1);
        self.lines.truncate(lines);
        match chance.below(3) {
            0 => self.intent.clone_from(&self.intent_safe),
            1 if self.intent_safe.is_none() => self.intent = None,
            _ => {}
        }
        // After a restart everything that is there is on the disk.
        self.sync_all();
        self.moved.clear();
    }
}

impl Inode {
    fn sync(&mut self) {
        if let Entry::File { content, len, .. } = &self.entry {
            self.safe = Some((*content, *len));
        }
    }

    fn lose_power(&mut self, chance: &mut Chance, clock: u64) {
        let Entry::File { content, len, .. } = &mut self.entry else {
            return;
        };
        if self.safe == Some((*content, *len)) {
            return;
        }
        match (chance.below(3), self.safe) {
            (0, _) => {}
            (1, Some((old, old_len))) => (*content, *len) = (old, old_len),
            _ => (*content, *len) = (ContentHash::of_bytes(b""), 0),
        }
        (self.mtime, self.ctime) = (clock, clock);
    }
}

/// Returns what a person would miss if an entry was gone: the content of a file.
pub(crate) fn content(entry: &Entry) -> Option<ContentHash> {
    match entry {
        Entry::File { content, len, .. } if *len > 0 => Some(*content),
        _ => None,
    }
}
