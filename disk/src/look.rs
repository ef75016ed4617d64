//! Look: compares the tree with what was seen before, and reports the differences.
//!
//! [`crate::scan`] walks and finds; this module decides what a finding means and writes it down. The
//! rules that keep a look from inventing deletions:
//!
//! * the root is checked before anything is written down; a root that is gone says nothing;
//! * what an apply touched while the look was under way is looked at again instead of believed;
//! * absences are told last, so that the new place of something renamed is known before;
//! * nothing is absent because a listing left it out: the system has to say so about its name;
//! * below something blocked nothing is known: its rows go, after it was told to be blocked;
//! * a directory that is no longer blocked is told after everything in it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use shared::chunk::Manifest;
use shared::ignore::{PRIVATE_DIR, Rules, is_litter};
use shared::path::RelPath;
use shared::tree::{Obstacle, Sight};

use crate::error::LookError;
use crate::fingerprint::{SeenRow, now_ns};
use crate::index::Changes;
use crate::reread::{is_rot, known};
use crate::scan::Pass;
use crate::seen::{Began, Seen, Slot};
use crate::sqlite::beside;
use crate::{Replica, Report, handle, lock};

/// From this many hinted neighbours on, it is worth listing their directory.
const NEIGHBOURS_MIN: usize = 8;
/// How many names of a directory may be listed for each of them.
const LISTED_PER_HINT: usize = 8;

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// The whole tree.
    All,
    /// What lies at these paths: hints, of which each is worth a look and none is believed.
    Paths(Vec<RelPath>),
    /// Files that were read so soon after they had been written that they may have changed since without
    /// a trace. Until they are read again, nothing of what is known about them can be relied on: that
    /// they are what was renamed, or what is about to be replaced.
    Racy(Vec<RelPath>),
    /// The next files of which nothing says that they changed, as many as are due `span` after the last
    /// time, when the whole tree is read once a day.
    Reread {
        /// The time since the last time; what exceeds a day does not count.
        span: Duration,
    },
    /// The whole tree, and every file in it is read.
    Deep,
}

impl Look {
    /// Says whether the whole tree is looked at.
    pub fn is_sweep(&self) -> bool {
        matches!(self, Self::All | Self::Deep)
    }
}

/// What became of a look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Looked {
    /// Paths that could not be judged, because they kept changing: worth another look soon.
    pub again: Vec<RelPath>,
    /// Files that were read too soon after they had been written: worth a [`Look::Racy`].
    pub racy: Vec<RelPath>,
    /// How many files were looked at.
    pub files: u64,
    /// How many bytes were read.
    pub bytes_hashed: u64,
    /// Whether everything that was asked for was looked at. False when it was stopped.
    pub complete: bool,
    /// How many files were read although nothing said that they had changed.
    pub reread_files: u64,
    /// The bytes in them.
    pub reread_bytes: u64,
    /// Those of them that have another content than before. Until they are written anew, or read as
    /// before, they are reported as [`Obstacle::Rotten`].
    pub rotten: Vec<RelPath>,
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
    /// A file that changed each time it was read, or a database that could not be read just now.
    Unstable,
}

/// A test's way to leave names out of a listing.
#[cfg(test)]
pub(crate) type Forgetful = Box<dyn FnMut(&mut Vec<Box<[u8]>>) + Send>;

/// Paths that a look has to leave open.
#[derive(Default)]
pub(crate) struct Open {
    /// Worth another look.
    pub(crate) again: BTreeSet<RelPath>,
    /// Files that were read so soon after they had been written that they have to be read again.
    pub(crate) racy: Vec<RelPath>,
    /// Those of them about which nothing at all was told.
    pub(crate) unknown: BTreeSet<RelPath>,
    /// Files that rot.
    pub(crate) rotten: BTreeSet<RelPath>,
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
        let counted = CountedLook::begin(self);
        let deep = matches!(what, Look::Reread { .. } | Look::Deep);
        let pass = Pass::new(self, rules.clone(), are_new, counted.began, stop).deep(deep);
        let pass = match what {
            Look::All => {
                let has_seen = !lock(&self.seen).is_empty();
                pass.expect_renames(has_seen)
            }
            Look::Paths(paths) | Look::Racy(paths) => {
                let seen = lock(&self.seen);
                pass.expect_renames(paths.iter().any(|path| seen.row(path).is_some()))
            }
            Look::Reread { .. } | Look::Deep => pass,
        };
        match what {
            Look::All | Look::Deep => self.pool.scope(|scope| pass.whole(scope)),
            Look::Reread { span } => {
                let Ok(mut round) = self.round.try_lock() else {
                    // The last time is not over: a long file, on a slow disk.
                    return Ok(Looked::default());
                };
                let chosen = round.next(&lock(&self.seen), *span);
                for path in chosen {
                    // One at a time, so that a thread is left for what changed.
                    let one = BTreeSet::from([path]);
                    self.pool.scope(|scope| pass.some(scope, one));
                }
            }
            Look::Paths(paths) | Look::Racy(paths) => {
                let targets = self.targets(paths, &rules);
                self.pool.scope(|scope| pass.some(scope, targets));
            }
        }
        pass.tell_new(&self.pool);
        let outcome = pass.finish()?;
        let complete = !stop.load(Ordering::Relaxed);
        let mut open = outcome.open;
        if complete {
            self.tell_unblocked(outcome.unblocked, &rules, counted.began, &mut open)?;
        }
        if complete && what.is_sweep() {
            self.tell_unseen(&mut open)?;
            for path in lock(&self.seen).doubtful() {
                open.unknown(path);
            }
            // What is left open was not judged by them yet.
            if open.unknown.is_empty() {
                self.rules_applied(&rules);
            }
        }
        self.leave_open(what, complete, &open.again);
        self.snapshots.prune(&self.root, Instant::now());
        let again = open.again.len();
        tracing::debug!(
            files = outcome.files,
            bytes = outcome.bytes,
            again,
            "looked"
        );
        Ok(Looked {
            again: open.again.into_iter().collect(),
            racy: open.racy,
            files: outcome.files,
            bytes_hashed: outcome.bytes,
            complete,
            reread_files: outcome.reread_files,
            reread_bytes: outcome.reread_bytes,
            rotten: open.rotten.into_iter().collect(),
        })
    }

    /// Notes what this look was to tell and could not.
    fn leave_open(&self, what: &Look, complete: bool, again: &BTreeSet<RelPath>) {
        let mut left_open = lock(&self.left_open);
        match (what, left_open.as_mut()) {
            (Look::All | Look::Deep, _) if complete => *left_open = Some(again.clone()),
            (Look::Paths(paths), Some(open)) if complete => {
                for path in paths {
                    open.remove(path);
                }
                open.extend(again.iter().cloned());
            }
            (_, Some(open)) => open.extend(again.iter().cloned()),
            (_, None) => {}
        }
    }

    /// Turns hints into what is worth a look: the path itself, or whatever above it is not known to be
    /// a directory, or is ignored. Where an apply is at work, they wait for its end.
    fn targets(&self, hints: &[RelPath], rules: &Arc<Rules>) -> BTreeSet<RelPath> {
        let mut seen = lock(&self.seen);
        let worth = |path: &&RelPath| {
            !path
                .components()
                .any(|name| name == PRIVATE_DIR || is_litter(name))
        };
        let target = |path: RelPath| {
            let ignored = path
                .ancestors()
                .filter(|above| rules.ignores(above, true))
                .last();
            let target = ignored
                .or_else(|| seen.topmost_unknown(&path))
                .unwrap_or_else(|| path.clone());
            (!seen.defers(&path, &target)).then_some(target)
        };
        // What moves beside a database moves the database.
        let owner = |path: &RelPath| {
            let name = beside::owner(path.name())?;
            let place = path.as_str().strip_suffix(path.name())?;
            RelPath::parse(&format!("{place}{name}")).ok()
        };
        let with_owner = |path: &RelPath| [Some(path.clone()), owner(path)].into_iter().flatten();
        let targets = hints
            .iter()
            .filter(worth)
            .flat_map(with_owner)
            .filter_map(target)
            .collect();
        gathered(&seen, targets)
    }

    /// Writes down what was found, and reports it.
    ///
    /// # Errors
    /// When the root is not what it was; then nothing is believed.
    pub(crate) fn observe(
        &self,
        findings: Vec<Finding>,
        rules: &Arc<Rules>,
        began: Began,
        open: &mut Open,
    ) -> Result<(), LookError> {
        let mut seen = lock(&self.seen);
        self.root.check()?;
        let (current, _) = self.rules();
        let other_rules = (!Arc::ptr_eq(&current, rules)).then_some(current);
        let overlaps = seen.overlaps(began);
        let now = now_ns();
        let mut told = Told::default();
        for finding in findings {
            let path = &finding.path;
            if seen.is_doubtful(path) || seen.get(path) != finding.before.as_ref() {
                open.unknown(finding.path);
                continue;
            }
            // The look that goes by the new rules may have been here already.
            if let Some(rules) = &other_rules
                && !is_judged_so(rules, path, &finding.found)
            {
                open.unknown(finding.path);
                continue;
            }
            if matches!(&finding.found, Found::Row(row, _) if row.racy) {
                open.racy.push(path.clone());
            }
            match finding.found {
                // It was read again, and is as it was.
                Found::Row(row, _) if seen.row(path) == Some(&row) => {}
                Found::Row(row, _)
                    if known(seen.get(path)).is_some_and(|known| is_rot(known, &row, now)) =>
                {
                    open.rotten.insert(path.clone());
                    told.rotten(&mut seen, path);
                }
                Found::Row(row, manifest) => {
                    if overlaps && finding.before.is_none() {
                        open.again.insert(path.clone());
                    }
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
    fn tell_unblocked(
        &self,
        dirs: Vec<Finding>,
        rules: &Arc<Rules>,
        began: Began,
        open: &mut Open,
    ) -> Result<(), LookError> {
        let (unclear, clear): (Vec<_>, Vec<_>) = dirs
            .into_iter()
            .partition(|finding| open.is_unknown_within(&finding.path));
        for finding in unclear {
            open.again.insert(finding.path);
        }
        if clear.is_empty() {
            Ok(())
        } else {
            self.observe(clear, rules, began, open)
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
            if !unclear && seen.get(&path).is_some_and(Slot::is_rotten) {
                told.sights.push((path, Sight::Blocked(Obstacle::Rotten)));
            } else if !unclear && self.is_absent(&seen, &path) {
                told.sights.push((path, Sight::Absent));
            } else {
                // By name it is found even if no listing shows it.
                open.again.insert(path.clone());
                seen.put_back_unseen(path);
            }
        }
        self.tell(told);
        Ok(())
    }

    /// Asks for a path by its name: is nothing there, or is it below something blocked?
    fn is_absent(&self, seen: &Seen, path: &RelPath) -> bool {
        let there = handle::open_parent(self.root.as_fd(), path)
            .and_then(|parent| handle::stat_at(&parent, path.name()));
        match there {
            Ok(there) => there.is_none(),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => true,
            Err(_) => is_below_blocked(seen, path),
        }
    }

    /// Lists a directory of the tree.
    pub(crate) fn list(&self, dir: &OwnedFd) -> Result<Vec<Box<[u8]>>, Errno> {
        #[cfg_attr(not(test), expect(unused_mut, reason = "tests leave names out"))]
        let mut names = handle::list(dir)?;
        #[cfg(test)]
        if let Some(forget) = &mut *lock(&self.forgetful) {
            forget(&mut names);
        }
        Ok(names)
    }

    /// Stores and reports what was told, with the lock of `seen` still held by the caller.
    pub(crate) fn tell(&self, told: Told) {
        if !told.rows.is_empty() || !told.manifests.is_empty() || !told.rotten.is_empty() {
            let changes = Changes {
                seen: &told.rows,
                rotten: &told.rotten,
                manifests: &told.manifests,
                ..Changes::default()
            };
            if let Err(error) = self.write_index(&changes, false) {
                // Only a cache: after a restart the files are read again.
                tracing::warn!(%error, "what was seen could not be stored");
            }
        }
        if !told.sights.is_empty() {
            (self.sink)(Report::Observed(told.sights));
        }
    }
}

/// Replaces many neighbours by the directory that holds them: listing it once costs less than the way to
/// each of them.
fn gathered(seen: &Seen, mut targets: BTreeSet<RelPath>) -> BTreeSet<RelPath> {
    let is_dir = |path: &RelPath| seen.get(path).is_some_and(Slot::is_dir);
    let mut together: BTreeMap<RelPath, usize> = BTreeMap::new();
    for path in targets.iter().filter(|path| !is_dir(path)) {
        if let Some(parent) = path.parent() {
            *together.entry(parent).or_default() += 1;
        }
    }
    together.retain(|dir, hinted| {
        *hinted >= NEIGHBOURS_MIN
            && is_dir(dir)
            && !seen.has_more_children(dir, *hinted * LISTED_PER_HINT)
    });
    // What a known directory holds is its own matter, also when the one above it is listed.
    let is_together = |path: &RelPath| {
        !is_dir(path) && path.parent().is_some_and(|dir| together.contains_key(&dir))
    };
    targets.retain(|path| !is_together(path));
    targets.extend(together.into_keys());
    targets
}

/// Says whether these rules say about a path what a look by others has found.
fn is_judged_so(rules: &Rules, path: &RelPath, found: &Found) -> bool {
    let is_ignored = |is_dir| rules.ignores_within(path, is_dir);
    match found {
        Found::Row(row, _) => !is_ignored(row.entry.is_dir()),
        Found::Blocked {
            obstacle: Obstacle::Ignored,
            ..
        } => is_ignored(true) && is_ignored(false),
        _ => true,
    }
}

/// Says whether silence about a path that was never seen would mislead: the base has it, or all that
/// lies below a blocked directory was told absent.
fn must_speak(seen: &Seen, path: &RelPath) -> bool {
    seen.is_unseen(path) || is_below_blocked(seen, path)
}

fn is_below_blocked(seen: &Seen, path: &RelPath) -> bool {
    path.ancestors()
        .any(|above| matches!(seen.get(&above), Some(Slot::Blocked { .. })))
}

/// What follows from findings: for the index, and for the sink.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) sights: Vec<(RelPath, Sight)>,
    pub(crate) rows: Vec<(RelPath, Option<SeenRow>)>,
    manifests: Vec<Manifest>,
    rotten: Vec<RelPath>,
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

    /// A file reads differently although nothing wrote to it. Its row stays, to know it by when it is
    /// mended.
    fn rotten(&mut self, seen: &mut Seen, path: &RelPath) {
        if let Some(Slot::Is(row)) = seen.get(path).cloned() {
            tracing::warn!(%path, "the content changed although nothing wrote to the file");
            self.sights
                .push((path.clone(), Sight::Blocked(Obstacle::Rotten)));
            self.rotten.push(path.clone());
            seen.insert(path.clone(), Slot::Rotten(row));
        }
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

    /// Nothing is there any more.
    pub(crate) fn forget(&mut self, seen: &mut Seen, path: RelPath) {
        if seen.remove(&path).is_some() {
            self.rows.push((path.clone(), None));
            self.sights.push((path, Sight::Absent));
        }
    }
}

/// While one exists, what applies touch is remembered.
struct CountedLook<'a> {
    replica: &'a Replica,
    began: Began,
}

impl<'a> CountedLook<'a> {
    fn begin(replica: &'a Replica) -> Self {
        let began = lock(&replica.seen).begin_look();
        Self { replica, began }
    }
}

impl Drop for CountedLook<'_> {
    fn drop(&mut self) {
        lock(&self.replica.seen).end_look();
    }
}

#[cfg(test)]
mod tests;
