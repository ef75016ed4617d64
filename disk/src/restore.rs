//! Restore: puts a kept version back.
//!
//! It is an edit made here, like any other: what stands at the path is displaced into the kept store,
//! the result is seen and reported, and the base does not move. The kept version stays where it is;
//! a copy of it is placed.

use std::os::fd::AsFd;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use shared::control::{Pick, Restored};
use shared::path::RelPath;
use shared::transfer::{Op, Outcome, Source};
use shared::tree::Entry;

use crate::apply::{Carried, Job, Touched};
use crate::error::RestoreError;
use crate::kept::{Line, What, new_id};
use crate::look::Told;
use crate::read::{Reader, Reading};
use crate::stage::{Ready, StagedState, discard, ready_name, stage_copy, stage_link};
use crate::trouble::trouble;
use crate::{Replica, fingerprint, handle, lock, read, utc_now};

/// How often a path that changes meanwhile is tried.
const TRIES: usize = 3;
/// Most versions that an error lists.
const LISTED_MAX: usize = 5;

impl Replica {
    /// Puts an earlier version of a path back, and reports it as observed. Directories above it are
    /// made when they are missing.
    ///
    /// [`Pick::At`] is what stood there at that time: the first version that was displaced after it.
    ///
    /// # Errors
    /// [`RestoreError`]; then what stands at the path is untouched.
    pub fn restore(&self, path: &RelPath, pick: &Pick) -> Result<Restored, RestoreError> {
        let _alone = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = self
            .kept
            .of_path(path)
            .map_err(|source| RestoreError::Kept {
                path: path.clone(),
                source,
            })?;
        let line = picked(&versions, pick).ok_or_else(|| RestoreError::NoVersion {
            path: path.clone(),
            there: listed(&versions),
        })?;
        for _ in 0..TRIES {
            if let Some(restored) = self.place_version(path, line)? {
                return Ok(restored);
            }
        }
        Err(RestoreError::Busy { path: path.clone() })
    }

    /// Places a copy of a version; `None` when the path changed meanwhile.
    fn place_version(&self, path: &RelPath, line: &Line) -> Result<Option<Restored>, RestoreError> {
        let Some(expect) = self.standing(path)? else {
            return Ok(None);
        };
        let id = new_id(utc_now());
        let (entry, ready) =
            self.stage_version(&id, line)
                .map_err(|source| RestoreError::Kept {
                    path: path.clone(),
                    source: source.into(),
                })?;
        let mut above: Vec<RelPath> = path.ancestors().collect();
        above.reverse();
        let op = |path: RelPath, expect, make| Op {
            path,
            expect,
            make: Some(make),
            from: Source::Nothing,
            agrees: false,
        };
        let mut ops: Vec<Op> = above
            .into_iter()
            .map(|dir| op(dir, None, Entry::Dir))
            .collect();
        let is_same = expect.as_ref() == Some(&entry);
        ops.push(op(path.clone(), expect.clone(), entry));
        let job = |op| Job {
            op,
            id: id.clone(),
            staged: StagedState::Nothing,
            why: "replaced by restore",
        };
        let mut jobs: Vec<Job<'_>> = ops.iter().map(job).collect();
        if let Some(version) = jobs.last_mut() {
            version.staged = StagedState::Ready(ready);
        }
        let _touched = Touched::begin(self, ops.iter().map(|op| op.path.clone()));
        let carried = self.carry_out(&jobs, None)?;
        // The first that is not done says why: without its directory a file cannot be placed either.
        let hindrance = carried
            .iter()
            .map(|carried| &carried.outcome)
            .find(|o| **o != Outcome::Done)
            .cloned();
        self.tell_restored(&ops, carried);
        match hindrance {
            None => Ok(Some(Restored {
                path: path.clone(),
                version: line.version(),
                displaced: (expect.is_some() && !is_same).then_some(id),
            })),
            Some(Outcome::Held(trouble)) => Err(RestoreError::Held(trouble)),
            Some(_) => Ok(None),
        }
    }

    /// Reports what a restore made.
    fn tell_restored(&self, ops: &[Op], carried: Vec<Carried>) {
        let mut seen = lock(&self.seen);
        let mut told = Told::default();
        for (op, carried) in ops.iter().zip(carried) {
            if let Some(row) = carried.row {
                told.row(&mut seen, op.path.clone(), row);
            }
        }
        self.tell(told);
    }

    /// Returns what stands at the path now; `None` when it does not rest.
    fn standing(&self, path: &RelPath) -> Result<Option<Option<Entry>>, RestoreError> {
        let held = |error| RestoreError::Held(trouble(path, "restored", error));
        let parent = match handle::open_parent(self.root.as_fd(), path) {
            Ok(parent) => parent,
            Err(Errno::NOENT) => return Ok(Some(None)),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(self.not_under_directory(path)),
            Err(error) => return Err(held(error)),
        };
        let Some(stat) = handle::stat_at(&parent, path.name()).map_err(held)? else {
            return Ok(Some(None));
        };
        match fingerprint::kind(&stat) {
            FileType::Directory => Err(RestoreError::IsDirectory { path: path.clone() }),
            FileType::Symlink => {
                let target = handle::read_link(&parent, path.name()).map_err(held)?;
                let target = String::from_utf8(target).map_err(|_| held(Errno::ILSEQ))?;
                Ok(Some(Some(Entry::Symlink {
                    target: target.into(),
                })))
            }
            FileType::RegularFile => {
                let never = AtomicBool::new(false);
                let device = self.root.device;
                match Reader::default()
                    .see(&parent, path.name(), device, &never)
                    .map_err(held)?
                {
                    Reading::Read(row, _) => Ok(Some(Some(row.entry))),
                    Reading::Live | Reading::Refused => {
                        Err(RestoreError::Busy { path: path.clone() })
                    }
                    Reading::Unstable | Reading::Stopped => Ok(None),
                }
            }
            _ => Err(held(Errno::EXIST)),
        }
    }

    fn not_under_directory(&self, path: &RelPath) -> RestoreError {
        let is_dir =
            |above: &RelPath| handle::open_tree_dir(self.root.as_fd(), Some(above)).is_ok();
        let above = path.ancestors().take_while(|above| !is_dir(above)).last();
        RestoreError::NotUnderDirectory {
            above: above.unwrap_or_else(|| path.clone()),
            path: path.clone(),
        }
    }

    /// Stages a copy of a version, and says what it is now: somebody may have written to the kept file
    /// through a handle from before it was displaced.
    fn stage_version(&self, id: &str, line: &Line) -> Result<(Entry, Ready), Errno> {
        let root = &self.root;
        if let What::Link { target } = &line.what {
            return Ok((
                Entry::Symlink {
                    target: target.clone(),
                },
                stage_link(root, id, target)?,
            ));
        }
        let (mut kept, stat) = handle::open_file(&root.kept, line.id.as_str())?;
        let name = ready_name(id);
        let staged = stage_copy(root, &name, &mut kept).and_then(|mut copy| {
            let content = read::content_of(&mut copy)?;
            Ok((content, fstat(&copy)?))
        });
        let (content, copy) = staged.map_err(|error| {
            discard(root, &name);
            read::errno(&error)
        })?;
        let exec = fingerprint::is_exec(&stat);
        let entry = Entry::File {
            content: content.hash,
            len: content.len,
            exec,
        };
        let mtime_ns = Some(fingerprint::mtime_ns(&stat));
        Ok((
            entry,
            Ready {
                inode: fingerprint::inode(&copy),
                mtime_ns,
            },
        ))
    }
}

/// Returns the version that is meant. `versions` has the latest first.
fn picked<'a>(versions: &'a [Line], pick: &Pick) -> Option<&'a Line> {
    match pick {
        Pick::Latest => versions.first(),
        Pick::At(time) => versions.iter().rev().find(|line| line.at > *time),
        Pick::Version(id) => versions.iter().find(|line| line.id == *id),
    }
}

fn listed(versions: &[Line]) -> String {
    if versions.is_empty() {
        return "no version of it is kept here; ask on the other machine as well".to_owned();
    }
    let shown = |line: &Line| format!("{} ({})", line.id, line.at);
    let list: Vec<String> = versions.iter().take(LISTED_MAX).map(shown).collect();
    format!("kept here: {}", list.join(", "))
}

#[cfg(test)]
mod tests;
