//! Edit: a change that this side makes to its own tree, as a person would.
//!
//! What stands at the path is displaced into the kept store, the result is seen and reported, and the
//! base does not move. A restore is one, so is a conflict copy that is made here, and what comes by a mirror.

use std::collections::{BTreeSet, HashMap};

use shared::mirror::Step;
use shared::path::RelPath;
use shared::transfer::{Op, Outcome, Source};
use shared::tree::Entry;

use crate::apply::{Job, Touched};
use crate::error::DiskError;
use crate::look::Told;
use crate::mirrored::sight;
use crate::stage::StagedState;
use crate::trails::Passed;
use crate::{Replica, Report, lock};

/// Something staged that is to stand at a path.
pub(crate) struct Edit {
    /// Its name in the stage, and that of what it displaces in the kept store.
    pub(crate) id: String,
    pub(crate) path: RelPath,
    /// What stands there now.
    pub(crate) expect: Option<Entry>,
    /// What shall stand there; `None` removes.
    pub(crate) make: Option<Entry>,
    pub(crate) staged: StagedState,
    /// Why what it displaces is kept.
    pub(crate) why: &'static str,
    /// The copy of the mirror that the tree is equal to then.
    pub(crate) step: Option<Step>,
}

impl Replica {
    /// Makes edits, under the lock of whoever applies. Directories above them are made when they are
    /// missing; an edit without its directory has the outcome of that.
    pub(crate) fn make_edits(&self, edits: Vec<Edit>) -> Result<Vec<Outcome>, DiskError> {
        // Sorted: each directory comes after those above it.
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
        let mut places = Vec::with_capacity(edits.len());
        let mut ops: Vec<Op> = Vec::with_capacity(dirs.len() + edits.len());
        ops.extend(
            dirs.iter()
                .map(|dir| op(dir.clone(), None, Some(Entry::Dir))),
        );
        let mut steps: Vec<Option<Step>> = vec![None; dirs.len()];
        for edit in edits {
            steps.push(edit.step);
            places.push((edit.id, edit.staged, edit.why));
            ops.push(op(edit.path, edit.expect, edit.make));
        }
        let made = dirs
            .iter()
            .map(|_| (String::new(), StagedState::Nothing, ""));
        let job = |(op, (id, staged, why))| Job {
            op,
            id,
            staged,
            why,
            moved: Vec::new(),
        };
        let jobs: Vec<Job<'_>> = ops.iter().zip(made.chain(places)).map(job).collect();
        let _touched = Touched::begin(self, ops.iter().map(|op| op.path.clone()));
        let carried = self.carry_out(&jobs, None)?;

        let done = ops.iter().zip(steps).zip(&carried);
        let done = done.filter(|(_, carried)| carried.outcome == Outcome::Done);
        let passed = done.filter_map(|((op, step), _)| {
            let (path, over) = (op.path.clone(), None);
            step.map(|step| Passed { path, step, over })
        });
        let trails = self.trails_after(&passed.collect::<Vec<_>>())?;
        if !trails.is_empty() {
            self.store_trails(&trails)?;
        }

        let mut outcomes = Vec::with_capacity(carried.len());
        let mut seen = lock(&self.seen);
        let mut told = Told::default();
        for (op, carried) in ops.iter().zip(carried) {
            if let Some((row, moved)) = carried.row {
                if row.entry.is_dir() && seen.row(&op.path) == Some(&row) {
                    // A directory above that stands anyway: nothing has moved.
                    outcomes.push(carried.outcome);
                    continue;
                }
                told.row(&mut seen, op.path.clone(), row);
                if moved {
                    (self.sink)(Report::Moved(op.path.clone()));
                }
            } else if carried.outcome == Outcome::Done && op.make.is_none() {
                told.forget(&mut seen, op.path.clone());
            }
            outcomes.push(carried.outcome);
        }
        if !trails.is_empty() {
            // With what stands there now: whoever plans knows both at once.
            let told = trails.into_iter().map(|(path, trail)| {
                let sight = sight(seen.get(&path));
                (path, sight, trail)
            });
            (self.sink)(Report::Passed(told.collect()));
        }
        self.tell(told);
        drop(seen);
        let edited = outcomes.split_off(dirs.len());
        let hindered: HashMap<RelPath, Outcome> = dirs
            .into_iter()
            .zip(outcomes)
            .filter(|(_, outcome)| *outcome != Outcome::Done)
            .collect();
        let outcome = |(op, outcome): (&Op, Outcome)| {
            let above = op.path.ancestors().find_map(|dir| hindered.get(&dir));
            above.cloned().unwrap_or(outcome)
        };
        let first = ops.len() - edited.len();
        Ok(ops[first..].iter().zip(edited).map(outcome).collect())
    }
}
