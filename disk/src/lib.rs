//! Everything that touches the files of one root. Never here: another machine, a plan.
//!
//! A [`Replica`] is one root with its private folder and its index. It does five things, each in a
//! module of its own, in the order of a changed file's way:
//!
//! * [`watch`] and [`quiet`] say where something moved (a hint) and when it has come to rest;
//! * [`Replica::look`] compares the tree with what was *seen* before, and reports the differences;
//! * [`Replica::give`] reads content for the other side;
//! * [`Replica::take`] stages content beside the tree, verified;
//! * [`Replica::apply`] swaps it in, keeps what was displaced, and records the new *base*.
//!
//! All of it is synchronous and may be called by several threads at once. What becomes true on the
//! disk is told through one [`Sink`], in the order in which it became true.

pub mod examine;
pub mod looks;
pub mod quiet;
pub mod watch;

mod apply;
mod background;
mod bases;
mod delta;
mod displaced;
mod durable;
mod edit;
mod error;
mod fingerprint;
mod give;
mod handle;
mod index;
mod kept;
mod look;
pub mod mirrored;
mod read;
mod reread;
mod restore;
mod root;
mod rules;
mod scan;
mod seen;
mod sqlite;
mod stage;
pub mod trails;
pub mod tree_files;
mod trouble;
mod volume;

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use shared::hash::ContentHash;
use shared::ignore::Rules;
use shared::mirror::Trail;
use shared::path::RelPath;
use shared::transfer::Outcome;
use shared::tree::{Base, Entry, Gen, Sight};
use shared::utc::UtcMs;
use shared::wire::{AgreedRow, IndexId, TrailRow};

pub use durable::Durable;
pub use error::{DiskError, IndexError, LookError, OpenRefused, RestoreError};
pub use index::Notes;
pub use kept::{KeptLimits, Pruned};
pub use look::{Look, Looked};
pub use root::{NotAReplicaId, ReplicaId};
pub use rules::RulesFile;
pub use stage::{Staged, Taking};

use bases::Bases;
use displaced::Watch;
use durable::Flushed;
use fingerprint::now_ns;
use index::{Changes, Index};
use kept::Kept;
use reread::Round;
use root::Root;
use seen::Seen;
use sqlite::store::Snapshots;

/// Threads that walk and hash.
const LOOK_THREADS: usize = 2;
/// The stamp in marker and index is raised at most this often.
const STAMP_INTERVAL: Duration = Duration::from_secs(60);

/// Where a replica is.
#[derive(Debug, Clone)]
pub struct Places {
    /// The folder that is kept equal.
    pub root: PathBuf,
    /// The state folder in the node's home: the index lives there.
    pub state: PathBuf,
}

/// What became true on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A look, or a restore, found this.
    Observed(Vec<(RelPath, Sight)>),
    /// A batch was carried out; what is [`Outcome::Done`] is durable.
    Applied {
        /// The batch.
        batch: Gen,
        /// One for each of its operations.
        outcomes: Vec<Outcome>,
    },
    /// Somebody changed this again before the batch that has put it there was recorded: it has to be
    /// looked at. It comes before the end of the batch is reported.
    Moved(RelPath),
    /// This is what stands there, and which copies of the mirror it came through; durable.
    Passed(Vec<TrailRow>),
}

/// Takes the reports, in the order in which they became true. It is called with a lock of the replica
/// held: it must neither block nor call the replica.
pub type Sink = Box<dyn Fn(Report) + Send + Sync>;

/// What was stored when the replica was opened.
#[derive(Debug)]
pub struct Stored {
    /// What both sides agreed on.
    pub base: Base,
    /// What was seen last time, in order: to be taken as observed until the first look of the whole tree has
    /// corrected it. That look also says what became of the rows of `base` that are not in here.
    pub seen_known: Vec<(RelPath, Entry)>,
    /// What the tree came through by the mirror since it was agreed on.
    pub trails: Vec<(RelPath, Trail)>,
    /// The identity of the index.
    pub index: IndexId,
    /// Whether the index was made just now, because there was none, or a damaged or foreign one.
    pub index_is_new: bool,
    /// What the sides noted.
    pub notes: Notes,
}

/// One root with its private folder and its index.
pub struct Replica {
    root: Arc<Root>,
    index: Index,
    seen: Mutex<Seen>,
    rules: RwLock<CurrentRules>,
    /// Where reading the tree again has come to. Held by whoever does it.
    round: Mutex<Round>,
    kept: Kept,
    bases: Bases,
    /// What was displaced lately, and may still be written to.
    displaced: Mutex<Watch>,
    /// What live databases hold.
    snapshots: Snapshots,
    sink: Sink,
    /// Contents that are being staged resumably now.
    staging: Arc<Mutex<HashSet<ContentHash>>>,
    /// Chunks in the lists of long files that are being taken now.
    listed: Arc<AtomicUsize>,
    /// Held by whoever changes the tree.
    applying: Mutex<()>,
    flushed: Flushed,
    /// When the stamp was raised; not yet since this was opened.
    stamped: Mutex<Option<Instant>>,
    /// Whether the volume cannot exchange two names.
    weaker: AtomicBool,
    mismatches: Arc<AtomicU64>,
    /// What the looks left open since the whole tree was looked at; `None` before.
    left_open: Mutex<Option<BTreeSet<RelPath>>>,
    /// Who follows what moves, if somebody does.
    follower: Mutex<Option<mirrored::Follower>>,
    pool: rayon::ThreadPool,
    #[cfg(test)]
    hook: Mutex<Option<apply::Hook>>,
    #[cfg(test)]
    forgetful: Mutex<Option<look::Forgetful>>,
}

struct CurrentRules {
    rules: Arc<Rules>,
    /// Whether paths that were seen before have to be checked against them at the next full look.
    are_new: bool,
}

/// A root that is locked, and has its private folder, but is not loaded yet: it can be watched meanwhile.
pub struct Locked(Root);

impl Locked {
    /// Locks a root and checks its marker.
    ///
    /// `expected` is the replica that the root must be. `None` makes it a new one with an empty index;
    /// a marker of the past is replaced, since without its base nothing can be taken for deleted.
    ///
    /// # Errors
    /// [`OpenRefused`]; then nothing was changed in the tree.
    pub fn lock(root: &Path, expected: Option<ReplicaId>) -> Result<Self, OpenRefused> {
        Root::open(root, expected).map(Self)
    }

    /// Returns where the root is, links resolved.
    pub fn root(&self) -> &Path {
        &self.0.path
    }
}

impl Replica {
    /// [`Locked::lock`] and [`Replica::load`] in one.
    ///
    /// # Errors
    /// Theirs.
    pub fn open(
        places: &Places,
        expected: Option<ReplicaId>,
        rules: Rules,
        node: &str,
        limits: KeptLimits,
        sink: Sink,
    ) -> Result<(Self, Stored), OpenRefused> {
        let locked = Locked::lock(&places.root, expected)?;
        Self::load(locked, &places.state, rules, node, limits, sink)
    }

    /// Ends what a crash left half done in a root, and loads its index from `state`.
    ///
    /// `node` is the name under which versions are kept here.
    ///
    /// # Errors
    /// [`OpenRefused`]; then nothing was changed in the tree.
    pub fn load(
        locked: Locked,
        state: &Path,
        rules: Rules,
        node: &str,
        limits: KeptLimits,
        sink: Sink,
    ) -> Result<(Self, Stored), OpenRefused> {
        let root = Arc::new(locked.0);
        let (index, mut loaded) = Index::open(state, &root)?;
        let not_writable = |path: PathBuf| move |source| OpenRefused::NotWritable { path, source };
        let kept =
            Kept::open(&root, node, limits).map_err(not_writable(root.private_path("kept")))?;
        // An index that is new has forgotten with whom anything was agreed.
        let unrecorded = if loaded.is_new {
            Vec::new()
        } else {
            apply::intent::recover(&root, &loaded.base, loaded.notes.resolved)
                .map_err(not_writable(root.private_path("intent")))?
        };
        if let Some(batch) = unrecorded.iter().map(|(_, row)| row.batch).max() {
            // The crash came before the directories were durable.
            volume::sync_volume(std::os::fd::AsFd::as_fd(&*root))
                .map_err(not_writable(root.path.clone()))?;
            loaded.notes.last_batch = loaded.notes.last_batch.max(batch);
            let notes = Some(loaded.notes.clone());
            // What was seen there is what stood there before.
            let placed: HashSet<&RelPath> = unrecorded.iter().map(|(path, _)| path).collect();
            loaded.seen.retain(|(path, _)| !placed.contains(path));
            let unseen: Vec<_> = placed.iter().map(|path| ((*path).clone(), None)).collect();
            let changes = Changes {
                base: &unrecorded,
                seen: &unseen,
                notes,
                ..Changes::default()
            };
            index.write(&changes, true)?;
            tracing::info!(
                rows = unrecorded.len(),
                batch = batch.0,
                "recorded what a crash had left unrecorded"
            );
            loaded.base.extend(unrecorded);
        }
        apply::recover(&root, &kept).map_err(not_writable(root.private_path("stage")))?;
        let displaced = Watch::resumed(&root, &kept, utc_now())
            .map_err(not_writable(root.private_path("kept")))?;
        Snapshots::clear(&root).map_err(not_writable(root.private_path(root::SNAPSHOTS)))?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(LOOK_THREADS)
            .thread_name(|number| format!("look-{number}"))
            .build()
            .map_err(std::io::Error::other)
            .map_err(not_writable(root.path.clone()))?;

        seen::drop_orphans(&mut loaded.seen);
        let seen_known = loaded
            .seen
            .iter()
            .filter(|(path, _)| !loaded.rotten.contains(path))
            .map(|(path, row)| (path.clone(), row.entry.clone()))
            .collect();
        let stored = Stored {
            seen_known,
            index: loaded.id,
            index_is_new: loaded.is_new,
            notes: loaded.notes,
            trails: loaded.trails,
            base: loaded.base,
        };
        let replica = Self {
            seen: Mutex::new(Seen::new(loaded.seen, &loaded.rotten, &stored.base)),
            root,
            index,
            rules: RwLock::new(CurrentRules {
                rules: Arc::new(rules),
                are_new: true,
            }),
            round: Mutex::default(),
            displaced: Mutex::new(displaced),
            kept,
            bases: Bases::default(),
            snapshots: Snapshots::default(),
            sink,
            staging: Arc::default(),
            listed: Arc::default(),
            applying: Mutex::new(()),
            flushed: Flushed::default(),
            stamped: Mutex::default(),
            weaker: AtomicBool::new(false),
            mismatches: Arc::default(),
            left_open: Mutex::default(),
            follower: Mutex::default(),
            pool,
            #[cfg(test)]
            hook: Mutex::new(None),
            #[cfg(test)]
            forgetful: Mutex::new(None),
        };
        Ok((replica, stored))
    }

    /// Returns the identity in the root's marker.
    pub fn id(&self) -> ReplicaId {
        self.root.id
    }

    /// Has what is known of the tree take less memory, after it has changed much. Looks and applies wait
    /// meanwhile: 0.1 s for 500,000 files.
    pub fn pack(&self) {
        lock(&self.seen).pack();
    }

    /// Returns where the root is, links resolved.
    pub fn root(&self) -> &Path {
        &self.root.path
    }

    /// Returns the notes as they are stored.
    pub fn notes(&self) -> Notes {
        self.index.notes()
    }

    /// Says whether the volume takes names for one that differ in case or normalization alone.
    pub fn folds(&self) -> bool {
        self.root.folds
    }

    /// Says whether the volume turned out not to exchange two names in one step, so that a file that
    /// is saved in the very moment of a replacement is found in the kept store instead of in place.
    pub fn weaker(&self) -> bool {
        self.weaker.load(Ordering::Relaxed)
    }

    /// Returns how many contents arrived with a wrong hash since this was opened.
    pub fn mismatches(&self) -> u64 {
        self.mismatches.load(Ordering::Relaxed)
    }

    /// Replaces the ignore rules. The next look of the whole tree applies them to paths that were seen
    /// before.
    pub fn set_rules(&self, rules: Rules) {
        let mut current = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        *current = CurrentRules {
            rules: Arc::new(rules),
            are_new: true,
        };
    }

    /// Records what both sides agreed on without a change here. When it returns, the rows are durable.
    ///
    /// The notes replace those that are stored, except that `resolved` and `last_batch` never go back.
    /// Tombstones of batches up to `resolved` are forgotten. What the rows speak of is made durable first:
    /// a power cut must not take what counts as agreed.
    ///
    /// # Errors
    /// [`DiskError`]; then none of it counts as recorded.
    pub fn commit(
        &self,
        rows: &[AgreedRow],
        notes: Notes,
        resolved: Gen,
        first: Durable,
    ) -> Result<(), DiskError> {
        let failed = DiskError::io("making the tree durable", &self.root.path);
        match first {
            Durable::Tree => {
                self.before(apply::Step::SyncTree)?;
                let root = std::os::fd::AsFd::as_fd(&*self.root);
                self.flushed.volume(root).map_err(failed)?;
            }
            Durable::Rows if !rows.is_empty() => {
                self.before(apply::Step::SyncTree)?;
                self.sync_rows(rows).map_err(failed)?;
            }
            Durable::Rows | Durable::Nothing => {}
        }
        let stored = self.index.notes();
        let notes = Notes {
            resolved: notes.resolved.max(resolved).max(stored.resolved),
            last_batch: notes.last_batch.max(stored.last_batch),
            ..notes
        };
        let changes = Changes {
            base: rows,
            notes: Some(notes),
            stamp: self.raised_stamp()?,
            ..Changes::default()
        };
        self.write_index(&changes, true)
    }

    /// Forgets the base, durably: the trees are going to be united without a deletion.
    ///
    /// # Errors
    /// [`DiskError`]; then the base stands.
    pub fn forget_base(&self, notes: Notes) -> Result<(), DiskError> {
        let changes = Changes {
            forget_base: true,
            notes: Some(notes),
            stamp: self.raised_stamp()?,
            ..Changes::default()
        };
        self.write_index(&changes, true)
    }

    /// Raises the stamp in the marker if that is due, because something is about to be recorded, and
    /// returns it, to be recorded as well.
    ///
    /// # Errors
    /// When the root is not what it was; then nothing may be recorded about it.
    pub(crate) fn raised_stamp(&self) -> Result<Option<u64>, DiskError> {
        let mut stamped = lock(&self.stamped);
        if stamped.is_some_and(|at| at.elapsed() < STAMP_INTERVAL) {
            return Ok(None);
        }
        self.root.check()?;
        // From what the index has, so that the marker is never ahead by more than one.
        let stamp = self.index.stamp() + 1;
        match self.root.raise_stamp(stamp) {
            Ok(()) => {
                *stamped = Some(Instant::now());
                Ok(Some(stamp))
            }
            Err(error) => {
                // A full disk, most likely. What is recorded meanwhile has an older stamp; that is all.
                tracing::warn!(%error, "the stamp in the root's marker could not be raised");
                Ok(None)
            }
        }
    }

    fn rules(&self) -> (Arc<Rules>, bool) {
        let current = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        (current.rules.clone(), current.are_new)
    }

    /// Notes that a whole look went by these rules, unless others came meanwhile.
    fn rules_applied(&self, rules: &Arc<Rules>) {
        let mut current = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current.rules, rules) {
            current.are_new = false;
        }
    }
}

/// Makes all of a volume durable that was written to it.
///
/// # Errors
/// What the system says.
pub fn sync_volume(on: impl std::os::fd::AsFd) -> std::io::Result<()> {
    volume::sync_volume(on.as_fd())
}

/// Locks, also after another thread panicked while it held the lock: each holder leaves the data whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn utc_now() -> UtcMs {
    UtcMs(u64::try_from(now_ns() / 1_000_000).unwrap_or(0))
}

#[cfg(test)]
mod tests;
