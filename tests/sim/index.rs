//! The simulated index: rows as they are on the disk, and those that the next durable transaction
//! brings there (`disk::index`).

use std::collections::BTreeMap;

use disk::Notes;
use shared::mirror::Trail;
use shared::path::RelPath;
use shared::tree::{Base, BaseRow, Entry, Gen};
use shared::wire::{AgreedRow, IndexId};

use crate::volume::Print;

/// What was seen at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenRow {
    pub(crate) entry: Entry,
    /// `None` is a fingerprint that no file has.
    pub(crate) print: Option<Print>,
}

/// A change of what was seen; `None` takes the row out.
pub(crate) type SeenChange = (RelPath, Option<SeenRow>);

/// What a transaction changes.
type Stored = (Base, BTreeMap<RelPath, SeenRow>, Notes);

/// The index.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) id: IndexId,
    pub(crate) base: Base,
    pub(crate) seen: BTreeMap<RelPath, SeenRow>,
    pub(crate) notes: Notes,
    pub(crate) trails: BTreeMap<RelPath, Trail>,
    /// Written without waiting for the disk.
    pending: Vec<SeenChange>,
    /// A whole transaction that was not made durable, for the defect that skips it.
    before_lazy: Option<Box<Stored>>,
}

impl Index {
    /// Starts an empty one.
    pub(crate) fn new(id: IndexId) -> Self {
        Self {
            id,
            base: Base::new(),
            seen: BTreeMap::new(),
            notes: Notes::default(),
            trails: BTreeMap::new(),
            pending: Vec::new(),
            before_lazy: None,
        }
    }

    /// Writes rows of the cache; they become durable with the next transaction.
    pub(crate) fn write_seen(&mut self, rows: Vec<SeenChange>) {
        self.pending.extend(rows);
    }

    /// Writes one durable transaction. Tombstones of batches up to `notes.resolved` go.
    pub(crate) fn write(
        &mut self,
        seen: Vec<SeenChange>,
        base: &[AgreedRow],
        notes: Notes,
        forget_early: bool,
    ) {
        self.before_lazy = None;
        self.pending.extend(seen);
        for (path, row) in self.pending.drain(..) {
            match row {
                Some(row) => self.seen.insert(path, row),
                None => self.seen.remove(&path),
            };
        }
        for (path, row) in base {
            if self
                .trails
                .get(path)
                .is_some_and(|trail| trail.batch < row.batch)
            {
                self.trails.remove(path);
            }
            let is_older = |stored: &BaseRow| stored.batch > row.batch;
            if !self.base.get(path).is_some_and(is_older) {
                self.base.insert(path.clone(), row.clone());
            }
        }
        let resolved = if forget_early {
            Gen(u64::MAX)
        } else {
            notes.resolved
        };
        self.base
            .retain(|_, row: &mut BaseRow| row.entry.is_some() || row.batch > resolved);
        self.notes = notes;
    }

    /// As [`Index::write`], but a power cut or the death of the process takes it back.
    pub(crate) fn write_lazily(&mut self, seen: Vec<SeenChange>, base: &[AgreedRow], notes: Notes) {
        let before = self.before_lazy.take().unwrap_or_else(|| {
            Box::new((self.base.clone(), self.seen.clone(), self.notes.clone()))
        });
        self.write(seen, base, notes, false);
        self.before_lazy = Some(before);
    }

    /// Loses what was not durable.
    pub(crate) fn crash(&mut self) {
        self.pending.clear();
        if let Some(before) = self.before_lazy.take() {
            (self.base, self.seen, self.notes) = *before;
        }
    }
}
