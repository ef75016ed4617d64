//! The index: what must survive a restart, in one file in the node's home.
//!
//! | Table | Holds | When it is lost |
//! | --- | --- | --- |
//! | `seen` | path → entry and fingerprint: a cache | the tree is read again |
//! | `base` | path → what both sides agreed on | the trees are united without a deletion |
//! | `rotten` | paths whose content changed though nothing wrote to them | they are found again within a day |
//! | `trails` | path → what it came through by the mirror since it was agreed on | an edit of an edit counts as a conflict |
//! | `manifests` | content → chunks of long files: a cache | they are cut again |
//! | `notes` | the identity of this index, its stamp, and the notes of the sides | as the base |
//!
//! What looks find is written without waiting for the disk; it becomes durable with the next base
//! rows. A file that cannot be read is moved aside, never repaired or deleted.

pub(crate) mod examine;
mod table;

use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use redb::{Database, Durability};
use serde::{Deserialize, Serialize};
use shared::chunk::Manifest;
use shared::hash::ContentHash;
use shared::mirror::Trail;
use shared::path::RelPath;
use shared::tree::{Base, BaseRow, Gen};
use shared::wire::{AgreedRow, IndexId};

use crate::error::{IndexError, OpenRefused};
use crate::fingerprint::SeenRow;
use crate::root::{ReplicaId, Root};
use crate::{lock, utc_now};

const FILE: &str = "index.redb";
/// The store's own cache. The tree as seen is in memory anyway, and the system caches the file.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Most rows of the cache that wait for a durable transaction: the store frees no space before one.
const PENDING_ROWS_MAX: usize = 10_000;

/// Small facts that the sides keep in the same transaction as the base.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Notes {
    /// Rows up to this batch are stored on both sides.
    pub resolved: Gen,
    /// The last batch that was recorded here.
    pub last_batch: Gen,
    /// The other side's index that the base was agreed with; `None` while there is no base.
    pub base_of: Option<IndexId>,
    /// The agreed text of `.layerignore`.
    pub ignore: String,
    /// Whether a person paused the pair.
    pub paused: bool,
}

/// What is written in one transaction.
#[derive(Default)]
pub(crate) struct Changes<'a> {
    /// Rows as seen; `None` takes one out.
    pub(crate) seen: &'a [(RelPath, Option<SeenRow>)],
    pub(crate) manifests: &'a [Manifest],
    pub(crate) base: &'a [AgreedRow],
    pub(crate) notes: Option<Notes>,
    /// Whether all rows of the base go first.
    pub(crate) forget_base: bool,
    /// Files that turned out to rot. Each row of `seen` that is written takes the mark off its path.
    pub(crate) rotten: &'a [RelPath],
    /// Trails as they are now. A later row of `base` ends that of its path.
    pub(crate) trails: &'a [(RelPath, Trail)],
    /// The stamp that the root's marker has by now, if it was raised.
    pub(crate) stamp: Option<u64>,
}

/// What an index holds when it is opened.
pub(crate) struct Loaded {
    pub(crate) id: IndexId,
    pub(crate) is_new: bool,
    pub(crate) base: Base,
    pub(crate) seen: Vec<(RelPath, SeenRow)>,
    /// Those of `seen` that rotted.
    pub(crate) rotten: HashSet<RelPath>,
    pub(crate) trails: Vec<(RelPath, Trail)>,
    pub(crate) notes: Notes,
    pub(crate) stamp: u64,
}

/// An open index.
pub(crate) struct Index {
    path: PathBuf,
    store: Database,
    state: Mutex<State>,
}

struct State {
    notes: Notes,
    stamp: u64,
    /// Rows that were written since the last durable transaction.
    pending: usize,
    /// The rows of the base without an entry, by batch, so that purging costs what is purged.
    tombstones: Tombstones,
    trails: BTreeMap<RelPath, Trail>,
}

type Tombstones = BTreeMap<Gen, Vec<RelPath>>;

impl Index {
    /// Opens the index of a root, or starts a new one when there is none that is of use: an index that
    /// is older than the tree would undo what was agreed since.
    ///
    /// # Errors
    /// [`OpenRefused::Older`] when the root is older than the index.
    pub(crate) fn open(dir: &Path, root: &Root) -> Result<(Self, Loaded), OpenRefused> {
        let path = dir.join(FILE);
        let (replica, marker) = (root.id, root.stamp());
        let failed = |reason: String| IndexError {
            path: path.clone(),
            reason,
        };
        std::fs::create_dir_all(dir).map_err(|error| failed(error.to_string()))?;
        let (store, loaded) = match open_checked(&path) {
            Ok(store) => match table::load(&store, replica) {
                Ok(Some(loaded)) if marker < loaded.stamp => {
                    return Err(OpenRefused::Older {
                        root: root.path.clone(),
                        found: marker,
                        last: loaded.stamp,
                    });
                }
                Ok(Some(loaded)) if marker > loaded.stamp + 1 => {
                    tracing::warn!(
                        stamp = loaded.stamp,
                        marker,
                        "the index is older than the tree (a restored home); a new one is made"
                    );
                    start_new(store, replica, marker).map_err(failed)?
                }
                Ok(Some(loaded)) => (store, loaded),
                // It is empty, or it belongs to another root.
                Ok(None) => start_new(store, replica, marker).map_err(failed)?,
                Err(damage) => {
                    drop(store);
                    replace_damaged(&path, &damage, replica, marker).map_err(failed)?
                }
            },
            Err(NoStore::InUse) => return Err(OpenRefused::InUse { path }),
            Err(NoStore::System(reason)) => return Err(failed(reason).into()),
            Err(NoStore::Damaged(damage)) => {
                replace_damaged(&path, &damage, replica, marker).map_err(failed)?
            }
        };
        let tombstones = tombstones(&loaded.base);
        let state = Mutex::new(State {
            notes: loaded.notes.clone(),
            stamp: loaded.stamp,
            pending: 0,
            tombstones,
            trails: loaded.trails.iter().cloned().collect(),
        });
        let index = Self { path, store, state };
        if marker != loaded.stamp {
            // A crash came between the marker and the index.
            let changes = Changes {
                stamp: Some(marker),
                ..Changes::default()
            };
            index.write(&changes, true)?;
        }
        Ok((index, loaded))
    }

    /// Returns the stamp that was recorded last.
    pub(crate) fn stamp(&self) -> u64 {
        lock(&self.state).stamp
    }

    /// Returns the notes as they are stored.
    pub(crate) fn notes(&self) -> Notes {
        lock(&self.state).notes.clone()
    }

    /// Writes some changes in one transaction. Those of the base and the notes are durable when this
    /// returns, those of the cache with the next durable ones.
    pub(crate) fn write(&self, changes: &Changes<'_>, durable: bool) -> Result<(), IndexError> {
        let mut state = lock(&self.state);
        let resolved = changes
            .notes
            .as_ref()
            .map_or(state.notes.resolved, |notes| notes.resolved);
        let mut purged = tombstones(changes.base.iter().map(|(path, row)| (path, row)));
        if !changes.forget_base {
            for (batch, paths) in &state.tombstones {
                purged
                    .entry(*batch)
                    .or_default()
                    .extend(paths.iter().cloned());
            }
        }
        let kept = purged.split_off(&resolved.next());
        let pending = state.pending + changes.seen.len();
        let durable = durable || pending > PENDING_ROWS_MAX;
        let durability = if durable {
            Durability::Immediate
        } else {
            Durability::None
        };
        let over = match changes.forget_base {
            true => state.trails.keys().cloned().collect(),
            false => ended(&state.trails, changes.base),
        };
        table::write(&self.store, changes, &purged, &over, durability).map_err(|reason| {
            IndexError {
                path: self.path.clone(),
                reason,
            }
        })?;
        state.pending = if durable { 0 } else { pending };
        state.tombstones = kept;
        for path in over {
            state.trails.remove(&path);
        }
        state.trails.extend(changes.trails.iter().cloned());
        if let Some(notes) = &changes.notes {
            state.notes = notes.clone();
        }
        state.stamp = changes.stamp.unwrap_or(state.stamp);
        Ok(())
    }

    /// Returns the trail of a path.
    pub(crate) fn trail(&self, path: &RelPath) -> Option<Trail> {
        lock(&self.state).trails.get(path).cloned()
    }

    /// Returns the row of the base at a path.
    pub(crate) fn base_row(&self, path: &RelPath) -> Result<Option<BaseRow>, IndexError> {
        table::base_row(&self.store, path).map_err(self.unreadable())
    }

    /// Returns the paths of the base below a path, in the order of their texts.
    pub(crate) fn base_below(&self, top: &RelPath) -> Result<Vec<RelPath>, IndexError> {
        table::base_below(&self.store, top).map_err(self.unreadable())
    }

    /// Returns some rows of the base after a text, in the order of the texts of their paths.
    pub(crate) fn base_after(
        &self,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<(RelPath, BaseRow)>, IndexError> {
        table::base_after(&self.store, after, most).map_err(self.unreadable())
    }

    fn unreadable(&self) -> impl FnOnce(String) -> IndexError {
        let path = self.path.clone();
        move |reason| IndexError { path, reason }
    }

    /// Returns the chunks of a long content, when they are known.
    pub(crate) fn manifest(&self, content: ContentHash) -> Option<Manifest> {
        table::manifest(&self.store, content)
            .inspect_err(|reason| tracing::warn!(%reason, "a chunk list could not be read"))
            .ok()
            .flatten()
    }
}

/// Returns the paths whose trails are over, because the pair agrees on something later.
fn ended(trails: &BTreeMap<RelPath, Trail>, agreed: &[AgreedRow]) -> Vec<RelPath> {
    let is_over = |(path, row): &&AgreedRow| {
        trails
            .get(path)
            .is_some_and(|trail| trail.batch < row.batch)
    };
    let over = agreed.iter().filter(is_over);
    over.map(|(path, _)| path.clone()).collect()
}

fn tombstones<'a>(rows: impl IntoIterator<Item = (&'a RelPath, &'a BaseRow)>) -> Tombstones {
    let mut found = Tombstones::new();
    for (path, row) in rows {
        if row.entry.is_none() {
            found.entry(row.batch).or_default().push(path.clone());
        }
    }
    found
}

/// Why there is no open store.
enum NoStore {
    InUse,
    Damaged(String),
    System(String),
}

fn open_store(path: &Path) -> Result<Database, NoStore> {
    use redb::{DatabaseError, StorageError};
    Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(path)
        .map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => NoStore::InUse,
            // What is no store of ours, or of no version that we read, is reported as invalid data.
            DatabaseError::Storage(StorageError::Io(io)) if io.kind() != ErrorKind::InvalidData => {
                NoStore::System(io.to_string())
            }
            other => NoStore::Damaged(other.to_string()),
        })
}

/// Opens the store of an index and checks it. redb panics on some damage instead of telling it; that must
/// not keep a node from starting for ever.
fn open_checked(path: &Path) -> Result<Database, NoStore> {
    let open = || open_store(path).and_then(checked);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(NoStore::Damaged("the store is malformed".to_owned())))
}

/// Compares every page with its checksum. A base that lost a bit could take a file for deleted.
fn checked(mut store: Database) -> Result<Database, NoStore> {
    match store.check_integrity() {
        Ok(true) => Ok(store),
        Ok(false) => Err(NoStore::Damaged("a checksum does not fit".to_owned())),
        Err(error) => Err(NoStore::Damaged(error.to_string())),
    }
}

fn replace_damaged(
    path: &Path,
    damage: &str,
    replica: ReplicaId,
    stamp: u64,
) -> Result<(Database, Loaded), String> {
    let aside = path.with_file_name(format!("{FILE}.damaged-{}", utc_now().0));
    tracing::warn!(%damage, aside = %aside.display(), "the index is damaged; a new one is made");
    std::fs::rename(path, &aside).map_err(|error| error.to_string())?;
    match open_store(path) {
        Ok(store) => start_new(store, replica, stamp),
        Err(NoStore::System(reason) | NoStore::Damaged(reason)) => Err(reason),
        Err(NoStore::InUse) => Err("another process has it".to_owned()),
    }
}

fn start_new(
    store: Database,
    replica: ReplicaId,
    stamp: u64,
) -> Result<(Database, Loaded), String> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| error.to_string())?;
    let id = IndexId(id);
    table::begin(&store, id, replica, stamp)?;
    let loaded = Loaded {
        id,
        is_new: true,
        base: Base::new(),
        seen: Vec::new(),
        rotten: HashSet::new(),
        trails: Vec::new(),
        notes: Notes::default(),
        stamp,
    };
    Ok((store, loaded))
}

#[cfg(test)]
mod tests;
