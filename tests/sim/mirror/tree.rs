//! A simulated disk as a round sees it: `disk::mirrored`.
//!
//! The node owns its disk. The round has a cell, and the disk lies in it just while the round is
//! polled; a poll is one step, so nobody else misses it.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;

use disk::mirrored::{Here, Moved};
use disk::trails::Passed;
use mirror::target::{Bytes, Wrong};
use mirror::tree::{Content, Edit, Receives, Tree};
use shared::mirror::{Step, Trail};
use shared::path::{RelPath, below};
use shared::transfer::Outcome;
use shared::tree::{BaseRow, Entry, Gen, Obstacle, Sight};

use super::cloud::{Cloud, Did};
use super::edit::{Prepared, discard, make_edits, stage};
use super::text::{as_it_stands, as_told, content_of, text_of};
use super::trails;
use crate::defect::Defect;
use crate::disk::Disk;
use crate::seen::Slot;
use crate::take::{Staged, State};
use crate::volume::{Ino, Place};

/// A disk that a round works on.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(super) disk: Rc<RefCell<Disk>>,
    pub(super) cloud: Rc<RefCell<Cloud>>,
}

/// The content of a file, opened.
pub(crate) struct Original {
    disk: Rc<RefCell<Disk>>,
    ino: Ino,
    mtime: u64,
    /// What it was, in case no name leads to it any more.
    text: Vec<u8>,
}

/// Content that is arriving.
pub(crate) struct Arriving {
    disk: Rc<RefCell<Disk>>,
    text: Vec<u8>,
}

/// Content that has arrived and is staged.
pub(crate) struct Arrived {
    disk: Rc<RefCell<Disk>>,
    staged: Option<Staged>,
    entry: Entry,
}

fn sight(slot: Option<&Slot>) -> Sight {
    match slot {
        None => Sight::Absent,
        Some(Slot::Is(row)) => Sight::Is(as_told(&row.entry)),
        Some(Slot::Blocked(obstacle)) => Sight::Blocked(*obstacle),
    }
}

fn row(row: &BaseRow) -> BaseRow {
    BaseRow {
        entry: row.entry.as_ref().map(as_told),
        batch: row.batch,
    }
}

/// Has a step say what stands in the tree, and not what a round is told.
fn stand(step: &mut Step) {
    step.entry = step.entry.as_ref().map(as_it_stands);
}

impl Ground {
    fn disk(&self) -> Ref<'_, Disk> {
        self.disk.borrow()
    }

    fn disk_mut(&self) -> RefMut<'_, Disk> {
        self.disk.borrow_mut()
    }
}

impl Tree for Ground {
    type Original = Original;
    type Arriving = Arriving;
    type Arrived = Arrived;

    fn is_known(&self) -> bool {
        let disk = self.disk();
        disk.left_open.is_some() || disk.has(Defect::AbsenceBeforeSweep)
    }

    fn last_batch(&self) -> Gen {
        self.disk().index.notes.last_batch
    }

    fn passed(&self, rows: &[Passed]) -> Result<(), Wrong> {
        let mut rows = rows.to_vec();
        for row in &mut rows {
            stand(&mut row.step);
            row.over.iter_mut().for_each(stand);
        }
        trails::passed(&mut self.disk_mut(), &rows);
        Ok(())
    }

    fn trail(&self, path: &RelPath) -> Result<Option<Trail>, Wrong> {
        let mut trail = trails::of(&self.disk(), path);
        for step in trail.iter_mut().flat_map(|trail| &mut trail.steps) {
            step.entry = step.entry.as_ref().map(as_told);
        }
        Ok(trail)
    }

    fn moved(&self) -> Moved {
        let mut disk = self.disk_mut();
        let follower = disk.follower.as_mut();
        follower.map(std::mem::take).unwrap_or_default()
    }

    fn here(&self, path: &RelPath) -> Result<Here, Wrong> {
        let disk = self.disk();
        let is_open = |open: &BTreeSet<RelPath>| {
            open.contains(path) || path.ancestors().any(|above| open.contains(&above))
        };
        let sight = match sight(disk.seen.get(path)) {
            Sight::Absent if disk.left_open.as_ref().is_some_and(is_open) => {
                Sight::Blocked(Obstacle::Unstable)
            }
            seen => seen,
        };
        Ok(Here {
            sight,
            base: disk.index.base.get(path).map(row),
        })
    }

    fn below(&self, top: &RelPath) -> Result<Vec<RelPath>, Wrong> {
        let disk = self.disk();
        let mut found: BTreeSet<RelPath> = disk.seen.below(top).into_iter().collect();
        found.extend(below(&disk.index.base, top).map(|(path, _)| path.clone()));
        Ok(found.into_iter().collect())
    }

    fn beside(&self, path: &RelPath) -> Vec<RelPath> {
        let children = self.disk().seen.children(path.parent().as_ref());
        children.into_iter().map(|(path, _)| path).collect()
    }

    fn each_here(&self, visit: &mut dyn FnMut(RelPath, Here)) -> Result<(), Wrong> {
        let paths: BTreeSet<RelPath> = {
            let disk = self.disk();
            let seen = disk.seen.slots().map(|(path, _)| path);
            seen.chain(disk.index.base.keys()).cloned().collect()
        };
        for path in paths {
            let here = self.here(&path)?;
            visit(path, here);
        }
        Ok(())
    }

    fn file_count(&self) -> u64 {
        let is_file = |(_, entry): &(&RelPath, &Entry)| matches!(entry, Entry::File { .. });
        self.disk().seen.entries().filter(is_file).count() as u64
    }

    fn ignores(&self, path: &RelPath, is_dir: bool) -> bool {
        self.disk().rules.ignores_within(path, is_dir)
    }

    fn folds(&self) -> bool {
        false
    }

    fn original(&self, path: &RelPath, entry: &Entry) -> io::Result<Option<(Original, i64)>> {
        let disk = self.disk();
        let Some((ino, inode)) = disk.volume.node(path) else {
            return Ok(None);
        };
        let (
            Entry::File { content, len, .. },
            Entry::File {
                content: wanted, ..
            },
        ) = (&inode.entry, entry)
        else {
            return Ok(None);
        };
        if inode.shut || disk.volume.is_shut_above(path) || content != wanted {
            return Ok(None);
        }
        let original = Original {
            disk: Rc::clone(&self.disk),
            ino,
            mtime: inode.mtime,
            text: text_of(*content, *len),
        };
        Ok(Some((original, 1)))
    }

    fn arriving(&self) -> io::Result<Arriving> {
        Ok(Arriving {
            disk: Rc::clone(&self.disk),
            text: Vec::new(),
        })
    }

    fn entry_of(arrived: &Arrived) -> &Entry {
        &arrived.entry
    }

    fn edit(&self, edits: Vec<Edit<Arrived>>) -> Result<Vec<Outcome>, Wrong> {
        let mut prepared = Vec::with_capacity(edits.len());
        for edit in edits {
            let Edit {
                path,
                expect,
                make,
                content,
                mut step,
            } = edit;
            step.iter_mut().for_each(stand);
            let expect = expect.as_ref().map(as_it_stands);
            let make = make.as_ref().map(as_it_stands);
            let staged = match content {
                Content::Arrived(mut arrived) => arrived.staged.take(),
                Content::CopyOf(from) => Some(stage::copy(&mut self.disk_mut(), &from, &make)),
                Content::Nothing => Some(stage::own(&mut self.disk_mut(), &expect, &make)),
                // No setting asks for a merge here.
                Content::Merged { .. } => None,
            };
            prepared.push(Prepared {
                path,
                expect,
                make,
                step,
                staged: staged.unwrap_or(Staged {
                    id: 0,
                    state: State::Gone,
                }),
            });
        }
        let places: Vec<(RelPath, bool)> = prepared
            .iter()
            .map(|edit| (edit.path.clone(), edit.make.is_some()))
            .collect();
        let outcomes = make_edits(&mut self.disk_mut(), prepared);
        let mut cloud = self.cloud.borrow_mut();
        let there = cloud.tree();
        for ((path, makes), outcome) in places.into_iter().zip(&outcomes) {
            if *outcome == Outcome::Done {
                let was_there = there.contains_key(&path);
                cloud.did.push(Did::Edited {
                    path,
                    makes,
                    was_there,
                });
            }
        }
        Ok(outcomes)
    }
}

impl Bytes for Original {
    fn len(&self) -> u64 {
        self.text.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let disk = self.disk.borrow();
        let now = disk.volume.inode(self.ino).map(|inode| &inode.entry);
        let text = match now {
            Some(Entry::File { content, len, .. }) => text_of(*content, *len),
            _ => self.text.clone(),
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = text.get(from..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn rests(&self) -> io::Result<bool> {
        let disk = self.disk.borrow();
        let now = disk.volume.inode(self.ino);
        Ok(now.is_none_or(|inode| inode.mtime == self.mtime))
    }
}

impl Receives for Arriving {
    type Arrived = Arrived;

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.text.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self, exec: bool, _: i64) -> io::Result<Arrived> {
        let (content, len) = content_of(&self.text);
        let file = |exec| Entry::File { content, len, exec };
        let staged = {
            let volume = &mut self.disk.borrow_mut().volume;
            let id = volume.new_id();
            let ino = volume.create(Place::Stage(id), file(false));
            let state = State::Ready(ino);
            Staged { id, state }
        };
        Ok(Arrived {
            entry: as_told(&file(exec)),
            disk: self.disk,
            staged: Some(staged),
        })
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        // A process that ends leaves it where it is: then the disk is not in the cell any more.
        if let (Some(staged), Ok(mut disk)) = (self.staged.take(), self.disk.try_borrow_mut()) {
            discard(&mut disk, staged.id);
        }
    }
}
