//! Edits of a node's own tree: `disk::edit`, with the steps of `operation.rs`.

use std::collections::{BTreeMap, BTreeSet};

use disk::Report;
use disk::trails::Passed;
use shared::mirror::Step;
use shared::path::RelPath;
use shared::transfer::{Op, Outcome, Source};
use shared::tree::Entry;

use super::trails;
use crate::disk::Disk;
use crate::index::SeenRow;
use crate::look::Told;
use crate::operation::{Operation, Progress, displaces};
use crate::take::{Staged, State};
use crate::volume::{Dir, Line, Place, content};

pub(super) use crate::operation::discard;

/// An edit with what is staged for it.
pub(super) struct Prepared {
    pub(super) path: RelPath,
    pub(super) expect: Option<Entry>,
    pub(super) make: Option<Entry>,
    /// The copy of the mirror that the tree is equal to then.
    pub(super) step: Option<Step>,
    pub(super) staged: Staged,
}

/// Staging what does not come from the mirror.
pub(super) mod stage {
    use super::{Disk, Entry, Place, RelPath, Staged, State};

    fn placed(disk: &mut Disk, entry: Option<Entry>, or: State) -> Staged {
        let id = disk.volume.new_id();
        let state = match entry {
            Some(entry) => State::Ready(disk.volume.create(Place::Stage(id), entry)),
            None => or,
        };
        Staged { id, state }
    }

    /// Copies what stands at another path, if it is what it should be.
    pub(in super::super) fn copy(disk: &mut Disk, from: &RelPath, make: &Option<Entry>) -> Staged {
        let there = disk.volume.node(from);
        let there = there.filter(|(_, inode)| !inode.shut && !disk.volume.is_shut_above(from));
        let entry = match (there.map(|(_, inode)| &inode.entry), make) {
            (Some(Entry::File { content, len, .. }), Some(make))
                if *content == make.identity() && *len == make.len() =>
            {
                Some(Entry::File {
                    content: *content,
                    len: *len,
                    exec: false,
                })
            }
            _ => None,
        };
        placed(disk, entry, State::Gone)
    }

    /// Stages what has no content.
    pub(in super::super) fn own(
        disk: &mut Disk,
        expect: &Option<Entry>,
        make: &Option<Entry>,
    ) -> Staged {
        let entry = match (make, expect) {
            (Some(link @ Entry::Symlink { .. }), _) => Some(link.clone()),
            (Some(Entry::Dir), Some(expect)) if !expect.is_dir() => Some(Entry::Dir),
            _ => None,
        };
        placed(disk, entry, State::Own)
    }
}

/// Makes edits. Directories above them are made when they are missing; an edit without its directory
/// has the outcome of that.
pub(super) fn make_edits(disk: &mut Disk, edits: Vec<Prepared>) -> Vec<Outcome> {
    let dirs: BTreeSet<RelPath> = edits
        .iter()
        .filter(|edit| edit.make.is_some())
        .flat_map(|edit| edit.path.ancestors())
        .collect();
    let op = |path, expect, make| Op {
        path,
        expect,
        make,
        from: Source::Nothing,
        agrees: false,
    };
    let nothing = Staged {
        id: 0,
        state: State::Own,
    };
    let mut jobs: Vec<(Op, Staged)> = dirs
        .iter()
        .map(|dir| (op(dir.clone(), None, Some(Entry::Dir)), nothing.clone()))
        .collect();
    let mut steps: Vec<Option<Step>> = vec![None; dirs.len()];
    steps.extend(edits.iter().map(|edit| edit.step.clone()));
    let edits = edits.into_iter();
    jobs.extend(edits.map(|edit| (op(edit.path, edit.expect, edit.make), edit.staged)));

    disk.seen
        .begin_apply(jobs.iter().map(|(op, _)| op.path.clone()));
    let carried = carry_out(disk, &jobs);
    let done = jobs.iter().zip(steps).zip(&carried);
    let done = done.filter(|(_, (outcome, _))| *outcome == Outcome::Done);
    let passed = done.filter_map(|(((op, _), step), _)| {
        let (path, over) = (op.path.clone(), None);
        step.map(|step| Passed { path, step, over })
    });
    let grown = trails::after(disk, &passed.collect::<Vec<_>>());
    trails::store(disk, &grown);
    let mut told = Told::default();
    let mut outcomes = Vec::with_capacity(carried.len());
    for ((op, _), (outcome, row)) in jobs.iter().zip(carried) {
        if let Some(row) = row {
            if row.entry.is_dir() && disk.seen.row(&op.path) == Some(&row) {
                // A directory above that stands anyway: nothing has moved.
                outcomes.push(outcome);
                continue;
            }
            if is_moved(disk, &op.path, &row) {
                disk.reports.push_back(Report::Moved(op.path.clone()));
            }
            if let Some(content) = content(&row.entry) {
                disk.placed.insert((op.path.clone(), content));
            }
            told.row(&mut disk.seen, op.path.clone(), row);
        } else if outcome == Outcome::Done && op.make.is_none() {
            told.forget(&mut disk.seen, op.path.clone());
        }
        outcomes.push(outcome);
    }
    trails::tell(disk, grown);
    disk.tell(told.rows, told.sights);
    let deferred = disk.seen.end_apply();
    disk.reports.extend(deferred.into_iter().map(Report::Moved));

    let edited = outcomes.split_off(dirs.len());
    let hindered: BTreeMap<RelPath, Outcome> = dirs
        .into_iter()
        .zip(outcomes)
        .filter(|(_, outcome)| *outcome != Outcome::Done)
        .collect();
    let first = jobs.len() - edited.len();
    let above = |op: &Op| op.path.ancestors().find_map(|dir| hindered.get(&dir));
    let edited = jobs[first..].iter().zip(edited);
    edited
        .map(|((op, _), outcome)| above(op).cloned().unwrap_or(outcome))
        .collect()
}

fn ready(staged: &Staged) -> Option<crate::volume::Ino> {
    match staged.state {
        State::Ready(ino) => Some(ino),
        _ => None,
    }
}

/// What is done is durable afterwards.
fn carry_out(disk: &mut Disk, jobs: &[(Op, Staged)]) -> Vec<(Outcome, Option<SeenRow>)> {
    let displacing = jobs.iter().filter(|(op, _)| displaces(op));
    let line = |(_, staged): &(Op, Staged)| Line {
        id: staged.id,
        staged: ready(staged),
    };
    disk.volume.append(displacing.map(line));
    for ino in jobs.iter().filter_map(|(_, staged)| ready(staged)) {
        disk.volume.sync_file(ino);
    }
    disk.volume.sync_lines();
    let mut dirs = vec![Dir::Kept];
    let mut carried = Vec::with_capacity(jobs.len());
    for (op, staged) in jobs {
        carried.push(match Operation::begin(disk, op, staged) {
            Err(outcome) => (outcome, None),
            Ok(mut operation) => {
                dirs.extend(operation.touches());
                let outcome = loop {
                    if let Progress::Ended(outcome) = operation.step(disk, op) {
                        break outcome;
                    }
                };
                let is_done = outcome == Outcome::Done;
                let row = is_done.then(|| operation.row(disk, op)).flatten();
                (outcome, row)
            }
        });
    }
    disk.volume.sync_dirs(&dirs);
    carried
}

/// Says whether somebody has changed again what was put there.
fn is_moved(disk: &Disk, path: &RelPath, row: &SeenRow) -> bool {
    match &row.entry {
        Entry::Dir => !disk.volume.entry(path).is_some_and(Entry::is_dir),
        _ => row.print.is_none(),
    }
}
