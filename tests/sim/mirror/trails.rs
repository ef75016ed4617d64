//! Which copies of the mirror a tree was equal to: `disk::trails`.

use disk::Report;
use disk::trails::Passed;
use shared::mirror::Trail;
use shared::path::RelPath;
use shared::tree::{BaseRow, Sight};
use shared::wire::AgreedRow;

use crate::defect::Defect;
use crate::disk::Disk;
use crate::seen::Slot;

/// Notes which copies the tree is equal to. What stands there is made durable first.
pub(super) fn passed(disk: &mut Disk, rows: &[Passed]) {
    let trails = after(disk, rows);
    if trails.is_empty() {
        return;
    }
    let speaks_of = |(path, trail): &(RelPath, Trail)| {
        let entry = trail.steps.first().and_then(|step| step.entry.clone());
        let batch = trail.batch;
        (path.clone(), BaseRow { entry, batch })
    };
    let speaks_of: Vec<AgreedRow> = trails.iter().map(speaks_of).collect();
    disk.sync_rows(&speaks_of);
    store(disk, &trails);
    tell(disk, trails);
}

/// Returns the trail of a path, if it is not over.
pub(super) fn of(disk: &Disk, path: &RelPath) -> Option<Trail> {
    let trail = disk.index.trails.get(path)?;
    let agreed = disk.index.base.get(path);
    let is_going = agreed.is_none_or(|row| row.batch <= trail.batch);
    is_going.then(|| trail.clone())
}

/// Makes trails durable, with what was written before.
pub(super) fn store(disk: &mut Disk, trails: &[(RelPath, Trail)]) {
    if trails.is_empty() {
        return;
    }
    disk.index.trails.extend(trails.iter().cloned());
    let notes = disk.index.notes.clone();
    disk.index.write(Vec::new(), &[], notes, false);
}

/// Tells its own side, with what stands there now.
pub(super) fn tell(disk: &mut Disk, trails: Vec<(RelPath, Trail)>) {
    if trails.is_empty() {
        return;
    }
    let told = trails.into_iter().map(|(path, trail)| {
        let sight = match disk.seen.get(&path) {
            None => Sight::Absent,
            Some(Slot::Is(row)) => Sight::Is(row.entry.clone()),
            Some(Slot::Blocked(obstacle)) => Sight::Blocked(*obstacle),
        };
        (path, sight, trail)
    });
    let told = Report::Passed(told.collect());
    disk.reports.push_back(told);
}

/// Returns the trails that grow by this.
pub(super) fn after(disk: &Disk, rows: &[Passed]) -> Vec<(RelPath, Trail)> {
    let mut grown: Vec<(RelPath, Trail)> = Vec::new();
    if disk.index.notes.base_of.is_none() || disk.has(Defect::TrailsNotNoted) {
        return grown;
    }
    for Passed { path, step, over } in rows {
        let agreed = disk.index.base.get(path);
        let batch = agreed.map(|row| row.batch).unwrap_or_default();
        let known = disk.index.trails.get(path);
        let known = known.filter(|trail| trail.batch >= batch).cloned();
        let is_agreed = agreed.and_then(|row| row.entry.as_ref()) == step.entry.as_ref();
        if known.is_none() && is_agreed {
            continue;
        }
        let mut trail = known.unwrap_or_default();
        trail.batch = batch.max(disk.index.notes.last_batch).max(trail.batch);
        if trail.step(step.clone(), over.clone()) {
            grown.push((path.clone(), trail));
        }
    }
    grown
}
