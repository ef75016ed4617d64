//! Renamed: what is new to a walk may be what it misses somewhere else.
//!
//! A file keeps its inode, its length and its time of modification when it, or a directory above it, is
//! renamed. So a walk that may find a rename does not read at once what is new to it. When it knows what
//! is gone, it takes over the content of a file that was known under another name, and reads the rest.
//! Both halves of a rename are told together, or the other side would copy what it could move.
//!
//! Somebody who writes into a file, sets its time back and renames it, all before a look, is not noticed
//! here. The files are read once a day all the same ([`crate::reread`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rayon::ThreadPool;
use shared::path::RelPath;
use shared::tree::Entry;

use super::Pass;
use crate::fingerprint::{Fingerprint, SeenRow, now_ns};
use crate::look::{Finding, Found};
use crate::{handle, lock};

/// So much may wait for the end of a walk. Beyond it, what is new is read as it comes.
const HELD_MAX: usize = 200_000;

/// What is new to a walk.
#[derive(Default)]
pub(super) struct Held {
    /// What needs no reading: directories, links, what cannot be synced.
    findings: Vec<Finding>,
    /// Files that were not read.
    files: Vec<(RelPath, Fingerprint)>,
}

impl Held {
    fn is_full(&self) -> bool {
        self.findings.len() + self.files.len() >= HELD_MAX
    }
}

/// What is new, by what it turned out to be.
#[derive(Default)]
struct Sorted {
    /// Belongs to a rename: it is told with what is gone.
    together: Vec<Finding>,
    read_together: Vec<RelPath>,
    /// Does not.
    alone: Vec<Finding>,
    read_alone: Vec<RelPath>,
}

impl<'a> Pass<'a> {
    /// Has what is new wait for the end of the walk, if it may be part of a rename.
    pub(crate) fn expect_renames(self, expects: bool) -> Self {
        *lock(&self.held) = expects.then(Held::default);
        self
    }

    /// Takes a new file that may have another name only; says whether it waits.
    pub(super) fn hold_file(&self, path: &RelPath, print: Fingerprint) -> bool {
        match &mut *lock(&self.held) {
            Some(held) if !held.is_full() => {
                held.files.push((path.clone(), print));
                true
            }
            _ => false,
        }
    }

    /// Takes what was found where nothing was known; gives back what is to be told at once.
    pub(super) fn hold(&self, finding: Finding) -> Vec<Finding> {
        match &mut *lock(&self.held) {
            Some(held) if finding.before.is_none() => {
                held.findings.push(finding);
                if held.is_full() {
                    // Directories before what is in them.
                    std::mem::take(&mut held.findings)
                } else {
                    Vec::new()
                }
            }
            _ => vec![finding],
        }
    }

    /// Finds the renames, and reads what is new and was not renamed.
    pub(crate) fn tell_new(&self, pool: &ThreadPool) {
        let Some(held) = lock(&self.held).take() else {
            return;
        };
        let sorted = self.sort(held);
        for finding in sorted.alone {
            self.push(finding);
        }
        self.read_new(pool, sorted.read_alone);
        self.flush();
        lock(&self.together).replace(sorted.together);
        self.read_new(pool, sorted.read_together);
    }

    fn sort(&self, held: Held) -> Sorted {
        let Held {
            mut findings,
            files,
        } = held;
        findings.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let known = self.known_of_the_gone();
        let now = now_ns();
        let was = |print: &Fingerprint| {
            let row = known.get(&print.inode())?;
            row.print.is_renamed(print).then(|| SeenRow {
                entry: row.entry.clone(),
                print: *print,
                racy: print.is_racy(now),
            })
        };
        let new_dirs: BTreeSet<RelPath> = findings
            .iter()
            .filter(|finding| matches!(&finding.found, Found::Row(row, _) if row.entry.is_dir()))
            .map(|finding| finding.path.clone())
            .collect();
        // The topmost new directory of a path decides for all that is in it.
        let top = |path: &RelPath| {
            let above = std::iter::once(path.clone()).chain(path.ancestors());
            above.filter(|dir| new_dirs.contains(dir)).last()
        };
        let mut sorted = Sorted::default();
        let mut tops: BTreeSet<RelPath> = BTreeSet::new();
        let mut unread: Vec<(Option<RelPath>, RelPath)> = Vec::new();
        for (path, print) in files {
            let Some(row) = was(&print) else {
                unread.push((top(&path), path));
                continue;
            };
            tops.extend(top(&path));
            sorted.together.push(Finding {
                path,
                before: None,
                found: Found::Row(row, None),
            });
        }
        for finding in findings {
            match top(&finding.path) {
                Some(top) if tops.contains(&top) => sorted.together.push(finding),
                _ => sorted.alone.push(finding),
            }
        }
        for (top, path) in unread {
            match top {
                Some(top) if tops.contains(&top) => sorted.read_together.push(path),
                _ => sorted.read_alone.push(path),
            }
        }
        if !sorted.together.is_empty() {
            tracing::debug!(files = sorted.together.len(), "renamed");
        }
        sorted
    }

    /// Returns the files that are gone from where they were known, by their inodes.
    fn known_of_the_gone(&self) -> HashMap<u64, SeenRow> {
        let absent = lock(&self.absent);
        let seen = lock(&self.replica.seen);
        let mut known = HashMap::new();
        for finding in absent.iter() {
            let paths = std::iter::once(finding.path.clone()).chain(seen.below(&finding.path));
            let rows = paths.filter_map(|path| seen.row(&path).cloned());
            let files = rows.filter(|row| matches!(row.entry, Entry::File { .. }) && !row.racy);
            known.extend(files.map(|row| (row.print.inode(), row)));
        }
        known
    }

    fn read_new(&self, pool: &ThreadPool, paths: Vec<RelPath>) {
        let mut by_dir: BTreeMap<Option<RelPath>, Vec<RelPath>> = BTreeMap::new();
        for path in paths {
            by_dir.entry(path.parent()).or_default().push(path);
        }
        pool.scope(|scope| {
            for (dir, paths) in by_dir {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                match handle::open_tree_dir(self.replica.root.as_fd(), dir.as_ref()) {
                    Ok(dir) => {
                        let unread = paths.into_iter().map(|path| (path, None)).collect();
                        self.spawn_reads(scope, &Arc::new(dir), unread);
                    }
                    // It was just there.
                    Err(_) => paths.into_iter().for_each(|path| self.unknown(path)),
                }
            }
        });
    }
}

#[cfg(test)]
mod tests;
