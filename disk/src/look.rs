//! Look: compares the tree with what was seen before, and reports the differences.
//!
//! [`crate::scan`] walks and finds; this module decides what a finding means and writes it down. The
//! rules that keep a look from inventing deletions:
//!
//! * the root is checked before anything is written down; a root that is gone says nothing;
//! * what an apply touched while the look was under way is looked at again instead of believed;
//! * absences are told last, so that the new place of something renamed is known before;
//! * below something blocked nothing is known: its rows go, after it was told to be blocked;
//! * a directory that is no longer blocked is told after everything in it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::chunk::Manifest;
use shared::ignore::{PRIVATE_DIR, Rules, is_litter};
use shared::path::RelPath;
use shared::tree::{Obstacle, Sight};

use crate::error::LookError;
use crate::fingerprint::SeenRow;
use crate::index::Changes;
use crate::scan::Pass;
use crate::seen::{Seen, Slot};
use crate::{Replica, Report, lock};

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// The whole tree.
    All,
    /// What lies at these paths: hints, of which each is worth a look and none is believed.
    Paths(Vec<RelPath>),
}

/// What became of a look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Looked {
    /// Paths that could not be judged, because they kept changing: worth another look soon.
    pub again: Vec<RelPath>,
    /// How many files were looked at.
    pub files: u64,
    /// How many bytes were read.
    pub bytes_hashed: u64,
    /// Whether everything that was asked for was looked at. False when it was stopped.
    pub complete: bool,
}

/// What a walk found at a path.
pub(crate) struct Finding {
    pub(crate) path: RelPath,
    /// What was known when the walk came by.
    pub(crate) before: Option<Slot>,
    pub(crate) found: Found,
}

/// See [`Finding`].
pub(crate) enum Found {
    Row(SeenRow, Option<Manifest>),
    Absent,
    Blocked {
        obstacle: Obstacle,
        lost_mount: bool,
    },
    /// A file that changed each time it was read.
    Unstable,
}

/// Paths that a look has to leave open.
#[derive(Default)]
pub(crate) struct Open {
    /// Worth another look.
    pub(crate) again: BTreeSet<RelPath>,
    /// Those of them about which nothing at all was told.
    pub(crate) unknown: BTreeSet<RelPath>,
}

impl Open {
    pub(crate) fn unknown(&mut self, path: RelPath) {
        self.again.insert(path.clone());
        self.unknown.insert(path);
    }

    fn is_unknown_within(&self, dir: &RelPath) -> bool {
        self.unknown
            .range(dir..)
            .next()
            .is_some_and(|path| path == dir || path.is_below(dir))
    }
}

impl Replica {
    /// Looks at the tree, or at a part of it, and reports what is not as it was seen before. What is
    /// equal costs one `stat`.
    ///
    /// Setting `stop` ends it early; what was found until then is reported.
    ///
    /// # Errors
    /// [`LookError`] when the root as a whole cannot be trusted. No absence was reported then.
    pub fn look(&self, what: &Look, stop: &AtomicBool) -> Result<Looked, LookError> {
        self.root.check()?;
        let (rules, are_new) = self.rules();
        let _counted = CountedLook::begin(self);
        let pass = Pass::new(self, rules.clone(), are_new, stop);
        match what {
            Look::All => self.pool.scope(|scope| pass.whole(scope)),
            Look::Paths(paths) => {
                let targets = self.targets(paths, &rules);
                self.pool.scope(|scope| pass.some(scope, targets));
            }
        }
        let outcome = pass.finish()?;
        let complete = !stop.load(Ordering::Relaxed);
        let mut open = outcome.open;
        if complete {
            self.tell_unblocked(outcome.unblocked, &mut open)?;
        }
        if complete && *what == Look::All {
            self.tell_unseen(&mut open)?;
            // What is left open was not judged by them yet.
            if open.unknown.is_empty() {
                self.rules_applied(&rules);
            }
        }
        let again = open.again.len();
        tracing::debug!(
            files = outcome.files,
            bytes = outcome.bytes,
            again,
            "looked"
        );
        Ok(Looked {
            again: open.again.into_iter().collect(),
            files: outcome.files,
            bytes_hashed: outcome.bytes,
            complete,
        })
    }

    /// Turns hints into what is worth a look: the path itself, or whatever above it is not known to be
    /// a directory, or is ignored.
    fn targets(&self, hints: &[RelPath], rules: &Arc<Rules>) -> BTreeSet<RelPath> {
        let seen = lock(&self.seen);
        let worth = |path: &&RelPath| {
            !path
                .components()
                .any(|name| name == PRIVATE_DIR || is_litter(name))
        };
        let target = |path: &RelPath| {
            let ignored = path
                .ancestors()
                .filter(|above| rules.ignores(above, true))
                .last();
            ignored
                .or_else(|| seen.topmost_unknown(path))
                .unwrap_or_else(|| path.clone())
        };
        hints.iter().filter(worth).map(target).collect()
    }

    /// Writes down what was found, and reports it.
    ///
    /// # Errors
    /// When the root is not what it was; then nothing is believed.
    pub(crate) fn observe(&self, findings: Vec<Finding>, open: &mut Open) -> Result<(), LookError> {
        let mut seen = lock(&self.seen);
        self.root.check()?;
        let mut told = Told::default();
        for finding in findings {
            let path = &finding.path;
            if seen.is_doubtful(path) || seen.get(path) != finding.before.as_ref() {
                open.unknown(finding.path);
                continue;
            }
            match finding.found {
                Found::Row(row, manifest) => {
                    told.manifests.extend(manifest);
                    told.row(&mut seen, finding.path, row);
                }
                Found::Absent => told.absent(&mut seen, path, open),
                Found::Blocked {
                    obstacle,
                    lost_mount,
                } => {
                    told.blocked(&mut seen, path, obstacle, lost_mount);
                }
                Found::Unstable => {
                    open.again.insert(path.clone());
                    // Silence would be taken for absence where nothing is known about the path.
                    if seen.get(path).is_none() && must_speak(&seen, path) {
                        told.blocked(&mut seen, path, Obstacle::Unstable, false);
                    }
                }
            }
        }
        self.tell(told);
        Ok(())
    }

    /// Tells that directories are no longer blocked, each of which was walked as a whole.
    fn tell_unblocked(&self, dirs: Vec<Finding>, open: &mut Open) -> Result<(), LookError> {
        let (unclear, clear): (Vec<_>, Vec<_>) = dirs
            .into_iter()
            .partition(|finding| open.is_unknown_within(&finding.path));
        for finding in unclear {
            open.again.insert(finding.path);
        }
        if clear.is_empty() {
            Ok(())
        } else {
            self.observe(clear, open)
        }
    }

    /// Tells what became of the rows of the base that were not in the index as seen: the whole tree
    /// was walked, and they are not there.
    fn tell_unseen(&self, open: &mut Open) -> Result<(), LookError> {
        let mut seen = lock(&self.seen);
        self.root.check()?;
        let mut told = Told::default();
        for path in seen.take_unseen() {
            let unclear = std::iter::once(path.clone())
                .chain(path.ancestors())
                .any(|above| open.unknown.contains(&above) || seen.is_doubtful(&above));
            if unclear {
                seen.put_back_unseen(path);
            } else {
                told.sights.push((path, Sight::Absent));
            }
        }
        self.tell(told);
        Ok(())
    }

    /// Stores and reports what was told, with the lock of `seen` still held by the caller.
    pub(crate) fn tell(&self, told: Told) {
        if !told.rows.is_empty() || !told.manifests.is_empty() {
            let changes = Changes {
                seen: &told.rows,
                manifests: &told.manifests,
                ..Changes::default()
            };
            if let Err(error) = self.index.write(&changes, false) {
                // Only a cache: after a restart the files are read again.
                tracing::warn!(%error, "what was seen could not be stored");
            }
        }
        if !told.sights.is_empty() {
            (self.sink)(Report::Observed(told.sights));
        }
    }
}

/// Says whether silence about a path that was never seen would mislead: the base has it, or all that
/// lies below a blocked directory was told absent.
fn must_speak(seen: &Seen, path: &RelPath) -> bool {
    seen.is_unseen(path)
        || path
            .ancestors()
            .any(|above| matches!(seen.get(&above), Some(Slot::Blocked { .. })))
}

/// What follows from findings: for the index, and for the sink.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) sights: Vec<(RelPath, Sight)>,
    pub(crate) rows: Vec<(RelPath, Option<SeenRow>)>,
    manifests: Vec<Manifest>,
}

impl Told {
    /// Something that can be synced is there.
    pub(crate) fn row(&mut self, seen: &mut Seen, path: RelPath, row: SeenRow) {
        if !row.entry.is_dir() {
            self.drop_below(seen, &path);
        }
        if seen.row(&path).map(|before| &before.entry) != Some(&row.entry) {
            self.sights
                .push((path.clone(), Sight::Is(row.entry.clone())));
        }
        self.rows.push((path.clone(), Some(row.clone())));
        seen.insert(path, Slot::Is(row));
    }

    fn absent(&mut self, seen: &mut Seen, path: &RelPath, open: &mut Open) {
        for gone in std::iter::once(path.clone()).chain(seen.below(path)) {
            if seen.is_doubtful(&gone) {
                open.unknown(gone);
            } else {
                self.forget(seen, gone);
            }
        }
    }

    fn blocked(&mut self, seen: &mut Seen, path: &RelPath, obstacle: Obstacle, lost_mount: bool) {
        let slot = Slot::Blocked {
            obstacle,
            lost_mount,
        };
        if seen.get(path) != Some(&slot) {
            self.sights.push((path.clone(), Sight::Blocked(obstacle)));
            if !lost_mount {
                // The stored row of a lost mount stays: it alone knows, after a restart, that a
                // volume was there.
                self.rows.push((path.clone(), None));
            }
            seen.insert(path.clone(), slot);
        }
        self.drop_below(seen, path);
    }

    fn drop_below(&mut self, seen: &mut Seen, path: &RelPath) {
        for gone in seen.below(path) {
            self.forget(seen, gone);
        }
    }

    fn forget(&mut self, seen: &mut Seen, path: RelPath) {
        if seen.remove(&path).is_some() {
            self.rows.push((path.clone(), None));
            self.sights.push((path, Sight::Absent));
        }
    }
}

/// While one exists, what applies touch is remembered.
struct CountedLook<'a>(&'a Replica);

impl<'a> CountedLook<'a> {
    fn begin(replica: &'a Replica) -> Self {
        lock(&replica.seen).begin_look();
        Self(replica)
    }
}

impl Drop for CountedLook<'_> {
    fn drop(&mut self) {
        lock(&self.0.seen).end_look();
    }
}

#[cfg(test)]
mod tests;
