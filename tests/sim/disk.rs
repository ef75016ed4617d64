//! One side's simulated disk: the volume and the index, which survive, and what a process keeps in
//! memory about them. Opening is `disk::Replica::open`, with what it mends after a crash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use disk::mirrored::Moved;
use disk::{Report, Stored};
use shared::hash::ContentHash;
use shared::ignore::{RULES_FILE, Rules};
use shared::path::RelPath;
use shared::tree::{Base, BaseRow, Entry, Sight};
use shared::wire::{AgreedRow, IndexId};

use crate::defect::Defect;
use crate::index::{Index, SeenChange};
use crate::seen::{Seen, Slot};
use crate::volume::{Dir, IntentRow, Line, Place, Volume};

/// A disk.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) volume: Volume,
    pub(crate) index: Index,
    pub(crate) index_is_new: bool,
    pub(crate) defect: Option<Defect>,
    /// What was ever put in place here by a batch.
    pub(crate) placed: BTreeSet<(RelPath, ContentHash)>,
    /// Everything below lives as long as the process.
    pub(crate) seen: Seen,
    pub(crate) rules: Rules,
    pub(crate) rules_are_new: bool,
    /// How often they were set: the same text once more is other rules.
    pub(crate) rules_set: u64,
    /// Who applies now.
    pub(crate) applying: bool,
    pub(crate) reports: VecDeque<Report>,
    /// What the sync renamed since the oracle last asked: from where to where.
    pub(crate) renamed: Vec<(RelPath, RelPath, ContentHash)>,
    /// What looks were to tell and could not; `None` before the whole tree was looked at since the start.
    pub(crate) left_open: Option<BTreeSet<RelPath>>,
    /// What moved, for a mirror that follows (`disk::mirrored`).
    pub(crate) follower: Option<Moved>,
}

impl Disk {
    /// Makes an empty disk.
    pub(crate) fn new(id: IndexId, defect: Option<Defect>) -> Self {
        Self {
            volume: Volume::default(),
            index: Index::new(id),
            index_is_new: true,
            defect,
            placed: BTreeSet::new(),
            seen: Seen::default(),
            rules: Rules::default(),
            rules_are_new: true,
            rules_set: 0,
            applying: false,
            reports: VecDeque::new(),
            renamed: Vec::new(),
            left_open: None,
            follower: None,
        }
    }

    pub(crate) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// Opens it after a start: ends what a crash left half done, and loads the index.
    pub(crate) fn open(&mut self) -> Stored {
        self.index.crash();
        let is_new = std::mem::replace(&mut self.index_is_new, false);
        if !is_new {
            self.recover_intent();
        }
        self.recover_stage();
        self.drop_orphans();
        self.seen = Seen::new(&self.index.seen, &self.index.base);
        self.seen.believes_all = self.has(Defect::LookBelievesAll);
        self.rules = Rules::parse(&self.index.notes.ignore).unwrap_or_default();
        self.rules_are_new = true;
        self.applying = false;
        self.left_open = None;
        self.reports.clear();
        Stored {
            base: self.index.base.clone(),
            seen_known: self
                .index
                .seen
                .iter()
                .map(|(path, row)| (path.clone(), row.entry.clone()))
                .collect(),
            trails: self
                .index
                .trails
                .iter()
                .map(|(path, trail)| (path.clone(), trail.clone()))
                .collect(),
            index: self.index.id,
            index_is_new: is_new,
            notes: self.index.notes.clone(),
        }
    }

    /// Renames something in the tree, with all that is in it.
    pub(crate) fn rename(&mut self, from: &RelPath, to: &RelPath) {
        for path in std::iter::once(from.clone()).chain(self.volume.below(from)) {
            let content = self.volume.entry(&path).and_then(crate::volume::content);
            if let (Some(content), Ok(moved)) = (content, path.rebase(from, to)) {
                self.renamed.push((path, moved, content));
            }
        }
        self.volume
            .rename(&Place::Tree(from.clone()), &Place::Tree(to.clone()));
    }

    /// Takes out stored rows that lie in no stored directory.
    fn drop_orphans(&mut self) {
        let dirs: BTreeSet<RelPath> = self
            .index
            .seen
            .iter()
            .filter(|(_, row)| row.entry.is_dir())
            .map(|(path, _)| path.clone())
            .collect();
        self.index
            .seen
            .retain(|path, _| path.ancestors().all(|above| dirs.contains(&above)));
    }

    /// Records what the last batch before a crash put in place (`disk::apply::intent`).
    fn recover_intent(&mut self) {
        let Some(intent) = self.volume.intent().cloned() else {
            return;
        };
        if intent.batch <= self.index.notes.resolved {
            return;
        }
        let unrecorded: Vec<AgreedRow> = intent
            .rows
            .iter()
            .filter(|row| {
                let recorded = self
                    .index
                    .base
                    .get(&row.path)
                    .is_some_and(|known| known.batch >= intent.batch);
                !recorded && self.is_in_place(row)
            })
            .map(|row| {
                let agreed = BaseRow {
                    entry: row.make.clone(),
                    batch: intent.batch,
                };
                (row.path.clone(), agreed)
            })
            .collect();
        if unrecorded.is_empty() {
            return;
        }
        // The crash came before the directories were durable.
        self.volume.sync_all();
        let mut notes = self.index.notes.clone();
        notes.last_batch = notes.last_batch.max(intent.batch);
        let forget = self.has(Defect::TombstonesEarly);
        // What was seen there is what stood there before.
        let unseen = unrecorded.iter().map(|(path, _)| (path.clone(), None));
        self.index
            .write(unseen.collect(), &unrecorded, notes, forget);
    }

    fn is_in_place(&self, row: &IntentRow) -> bool {
        match (&row.make, self.volume.node(&row.path)) {
            (None, None) => true,
            (Some(Entry::Dir), Some((_, inode))) => inode.entry.is_dir(),
            (Some(Entry::File { exec, .. }), Some((ino, inode))) if row.changes_bit.is_some() => {
                let has_bit = matches!(inode.entry, Entry::File { exec: now, .. } if now == *exec);
                row.changes_bit == Some((ino, inode.mtime)) && has_bit
            }
            (Some(_), Some((ino, _))) => row.staged == Some(ino),
            _ => false,
        }
    }

    /// Clears the stage; what was displaced and not yet kept is kept now (`disk::apply::recover`).
    fn recover_stage(&mut self) {
        for (id, ino) in self.volume.staged() {
            let place = Place::Stage(id);
            let displaced = self
                .volume
                .line(id)
                .is_some_and(|line| line.staged != Some(ino));
            if !displaced || self.has(Defect::StageEmptied) {
                self.volume.remove(place);
                continue;
            }
            let kept = if self.volume.at(&Place::Kept(id)).is_none() {
                id
            } else {
                self.volume.new_id()
            };
            self.volume.append([Line {
                id: kept,
                staged: None,
            }]);
            self.volume.sync_lines();
            self.volume.rename(&place, &Place::Kept(kept));
            self.volume.sync_dirs(&[Dir::Kept]);
        }
    }

    /// Makes durable what stands, or no longer stands, at these paths (`disk::durable`).
    pub(crate) fn sync_rows(&mut self, rows: &[AgreedRow]) {
        let mut dirs = Vec::new();
        for (path, row) in rows {
            if let Some(Entry::File { .. }) = row.entry
                && let Some((ino, inode)) = self.volume.node(path)
                && matches!(inode.entry, Entry::File { .. })
                && !inode.shut
            {
                self.volume.sync_file(ino);
                dirs.push(Dir::Inode(ino));
            }
            // Where the directory is gone as well, its own name has to be durably gone.
            let is_dir = |dir: &RelPath| self.volume.entry(dir).is_some_and(Entry::is_dir);
            let mut dir = path.parent();
            while dir.as_ref().is_some_and(|dir| !is_dir(dir)) {
                dir = dir.and_then(|dir| dir.parent());
            }
            dirs.push(Dir::Tree(dir));
        }
        self.volume.sync_dirs(&dirs);
    }

    /// Makes base rows durable (`disk::Replica::commit`).
    pub(crate) fn commit(&mut self, rows: &[AgreedRow], notes: disk::Notes) {
        let stored = &self.index.notes;
        let notes = disk::Notes {
            resolved: notes.resolved.max(stored.resolved),
            last_batch: notes.last_batch.max(stored.last_batch),
            ..notes
        };
        let forget = self.has(Defect::TombstonesEarly);
        self.note_moved(&[], rows);
        self.index.write(Vec::new(), rows, notes, forget);
    }

    /// Takes it that something is written to the index (`disk::Replica::note_moved`).
    pub(crate) fn note_moved(&mut self, seen: &[SeenChange], base: &[AgreedRow]) {
        let Some(moved) = &mut self.follower else {
            return;
        };
        let gone = |(path, row): &AgreedRow| row.entry.is_none().then(|| (path.clone(), row.batch));
        moved.gone.extend(base.iter().filter_map(gone));
        if !moved.all {
            let seen = seen.iter().map(|(path, _)| path);
            let base = base.iter().map(|(path, _)| path);
            moved.paths.extend(seen.chain(base).cloned());
        }
    }

    /// Stores and reports what was told.
    pub(crate) fn tell(&mut self, rows: Vec<SeenChange>, sights: Vec<(RelPath, Sight)>) {
        self.note_moved(&rows, &[]);
        self.index.write_seen(rows);
        if !sights.is_empty() {
            self.reports.push_back(Report::Observed(sights));
        }
    }

    /// Reads the rules' file: its content's hash with its text, as far as it is one of `texts`.
    pub(crate) fn rules_file(&self, texts: &[&str]) -> Option<disk::RulesFile> {
        let path = RelPath::parse(RULES_FILE).ok()?;
        let (_, inode) = self.volume.node(&path)?;
        let Entry::File { content, .. } = &inode.entry else {
            return None;
        };
        let text = texts
            .iter()
            .find(|text| ContentHash::of_bytes(text.as_bytes()) == *content);
        Some(disk::RulesFile {
            content: *content,
            // Any other content is the mark of a torn file, and that is empty.
            text: Ok((*text.unwrap_or(&"")).to_owned()),
        })
    }

    /// Returns the tree as it was last seen.
    pub(crate) fn seen_tree(&self) -> BTreeMap<RelPath, Entry> {
        self.seen
            .entries()
            .map(|(path, entry)| (path.clone(), entry.clone()))
            .collect()
    }

    /// Returns what the index says that both sides agreed on.
    pub(crate) fn agreed(&self) -> BTreeMap<RelPath, Entry> {
        entries(&self.index.base)
    }

    pub(crate) fn see(&mut self, path: RelPath, slot: Option<Slot>) {
        match slot {
            Some(slot) => self.seen.insert(path, slot),
            None => drop(self.seen.remove(&path)),
        }
    }
}

fn entries(base: &Base) -> BTreeMap<RelPath, Entry> {
    base.iter()
        .filter_map(|(path, row)| Some((path.clone(), row.entry.clone()?)))
        .collect()
}
