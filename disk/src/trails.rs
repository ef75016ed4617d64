//! Trails: which copies of the mirror this tree was equal to since the pair agreed ([`shared::mirror::Trail`]).
//!
//! What a trail says is never taken back by a power cut: what stands at the path is durable before, and the trail itself before whoever
//! asked for it goes on. A trail that is lost costs a conflict copy; one that speaks of what the tree never was would cost an edit.

use shared::mirror::{Step, Trail};
use shared::path::RelPath;
use shared::tree::BaseRow;
use shared::wire::{AgreedRow, TrailRow};

use crate::error::DiskError;
use crate::index::Changes;
use crate::mirrored::sight;
use crate::{Replica, Report, lock};

/// A copy of the mirror that the tree is equal to at a path, or was when it was to be sent there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Where.
    pub path: RelPath,
    /// The copy.
    pub step: Step,
    /// What it replaces there.
    pub over: Option<Step>,
}

impl Replica {
    /// Notes which copies the tree is equal to. What stands there is made durable first. Nothing is noted where the pair has agreed on
    /// just that, and by a node that was never paired.
    ///
    /// # Errors
    /// [`DiskError`]; then none of it is noted.
    pub fn passed(&self, rows: &[Passed]) -> Result<(), DiskError> {
        let trails = self.trails_after(rows)?;
        if trails.is_empty() {
            return Ok(());
        }
        let speaks_of: Vec<AgreedRow> = trails
            .iter()
            .map(|(path, trail)| {
                let entry = trail.steps.first().and_then(|step| step.entry.clone());
                let batch = trail.batch;
                (path.clone(), BaseRow { entry, batch })
            })
            .collect();
        self.sync_rows(&speaks_of)
            .map_err(DiskError::io("making the tree durable", &self.root.path))?;
        self.store_trails(&trails)?;
        let seen = lock(&self.seen);
        let told: Vec<TrailRow> = trails
            .into_iter()
            .map(|(path, trail)| (path.clone(), sight(seen.get(&path)), trail))
            .collect();
        (self.sink)(Report::Passed(told));
        drop(seen);
        Ok(())
    }

    /// Returns the trail of a path, if it is not over.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn trail(&self, path: &RelPath) -> Result<Option<Trail>, DiskError> {
        let Some(trail) = self.index.trail(path) else {
            return Ok(None);
        };
        let agreed = self.index.base_row(path)?;
        Ok(Some(trail).filter(|trail| agreed.is_none_or(|row| row.batch <= trail.batch)))
    }

    pub(crate) fn store_trails(&self, trails: &[(RelPath, Trail)]) -> Result<(), DiskError> {
        let changes = Changes {
            trails,
            ..Changes::default()
        };
        self.write_index(&changes, true)
    }

    /// Returns the trails that grow by this.
    pub(crate) fn trails_after(&self, rows: &[Passed]) -> Result<Vec<(RelPath, Trail)>, DiskError> {
        let mut grown: Vec<(RelPath, Trail)> = Vec::new();
        let notes = self.index.notes();
        if notes.base_of.is_none() {
            return Ok(grown);
        }
        for Passed { path, step, over } in rows {
            let agreed = self.index.base_row(path)?;
            let batch = agreed.as_ref().map(|row| row.batch).unwrap_or_default();
            let known = self.index.trail(path).filter(|trail| trail.batch >= batch);
            let is_agreed = agreed.and_then(|row| row.entry) == step.entry;
            if known.is_none() && is_agreed {
                continue;
            }
            // What the other side tells of later, and agreed on before this step, does not end it.
            let mut trail = known.unwrap_or_default();
            trail.batch = batch.max(notes.last_batch).max(trail.batch);
            if trail.step(step.clone(), over.clone()) {
                grown.push((path.clone(), trail));
            }
        }
        Ok(grown)
    }
}

#[cfg(test)]
mod tests;
