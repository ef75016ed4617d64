//! Restore: puts kept versions back, of one path or of a folder.
//!
//! It is an edit made here, like any other: what stands at the path is displaced into the kept store,
//! the result is seen and reported, and the base does not move. The kept version stays where it is;
//! a copy of it is placed. Nothing is ever removed: a file that is newer than the time to which a folder
//! is restored stays.

use std::os::fd::AsFd;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use shared::control::{Pick, Restored, RestoredBelow};
use shared::path::RelPath;
use shared::transfer::Outcome;
use shared::tree::Entry;

use crate::edit::Edit;
use crate::error::{DiskError, RestoreError};
use crate::kept::{Line, What, new_id};
use crate::read::{Reader, Reading};
use crate::stage::{Ready, StagedState, discard, ready_name, stage_copy, stage_link};
use crate::trouble::trouble;
use crate::{Replica, fingerprint, handle, read, utc_now};

/// How often a path that changes meanwhile is tried.
const TRIES: usize = 3;
/// Most versions that an error lists.
const LISTED_MAX: usize = 5;
/// Versions that are put back in one go: durable together, and no apply waits long.
const GROUP: usize = 200;

/// What became of a version that was to be put back.
enum Placed {
    /// It stands there; this is the name of what it displaced.
    Done(Option<String>),
    /// It stood there already.
    Same,
    /// The path changed meanwhile.
    Again,
    Failed(RestoreError),
}

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
        let restored = |displaced| Restored {
            path: path.clone(),
            version: line.version(path),
            displaced,
        };
        for _ in 0..TRIES {
            match self.place(&[line])?.pop() {
                Some(Placed::Done(displaced)) => return Ok(restored(displaced)),
                Some(Placed::Same) => return Ok(restored(None)),
                Some(Placed::Failed(error)) => return Err(error),
                Some(Placed::Again) | None => {}
            }
        }
        Err(RestoreError::Busy { path: path.clone() })
    }

    /// Puts versions back, each at its own path below a folder, and reports them as observed. What
    /// hinders one of them is in the answer, and does not hinder the others.
    ///
    /// # Errors
    /// [`RestoreError::Disk`] and [`RestoreError::Kept`]; then some may be in place already, and what
    /// stands at the other paths is untouched.
    pub fn restore_each(
        &self,
        folder: &RelPath,
        names: &[String],
    ) -> Result<RestoredBelow, RestoreError> {
        let mut done = RestoredBelow::default();
        let lines = self
            .kept
            .named(folder, names)
            .map_err(|source| RestoreError::Kept {
                path: folder.clone(),
                source,
            })?;
        for _ in lines.len()..names.len() {
            done.fail("a version is no longer kept".to_owned());
        }
        for group in lines.chunks(GROUP) {
            let _alone = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
            let mut left: Vec<&Line> = group.iter().collect();
            for _ in 0..TRIES {
                let mut again = Vec::new();
                for (line, placed) in left.iter().zip(self.place(&left)?) {
                    match placed {
                        Placed::Done(displaced) => {
                            done.restored += 1;
                            done.displaced += u64::from(displaced.is_some());
                        }
                        Placed::Same => done.unchanged += 1,
                        Placed::Again => again.push(*line),
                        Placed::Failed(error) => done.fail(error.to_string()),
                    }
                }
                left = again;
                if left.is_empty() {
                    break;
                }
            }
            for line in left {
                let path = line.path.clone();
                done.fail(RestoreError::Busy { path }.to_string());
            }
        }
        Ok(done)
    }

    /// Places copies of versions.
    fn place(&self, lines: &[&Line]) -> Result<Vec<Placed>, DiskError> {
        let mut edits = Vec::with_capacity(lines.len());
        let mut edited = Vec::with_capacity(lines.len());
        let mut placed: Vec<Placed> = Vec::with_capacity(lines.len());
        for (index, line) in lines.iter().enumerate() {
            placed.push(match self.prepared(line) {
                Ok(Some(edit)) if edit.expect == edit.make => {
                    discard(&self.root, &ready_name(&edit.id));
                    Placed::Same
                }
                Ok(Some(edit)) => {
                    edited.push((index, edit.expect.is_some().then(|| edit.id.clone())));
                    edits.push(edit);
                    Placed::Again
                }
                Ok(None) => Placed::Again,
                Err(error) => Placed::Failed(error),
            });
        }
        if edits.is_empty() {
            return Ok(placed);
        }
        let outcomes = self.make_edits(edits)?;
        for ((index, displaced), outcome) in edited.into_iter().zip(outcomes) {
            placed[index] = match outcome {
                Outcome::Done => Placed::Done(displaced),
                Outcome::Held(trouble) => Placed::Failed(RestoreError::Held(trouble)),
                _ => Placed::Again,
            };
        }
        Ok(placed)
    }

    /// Stages a version; `None` when what stands at its path does not rest.
    fn prepared(&self, line: &Line) -> Result<Option<Edit>, RestoreError> {
        let Some(expect) = self.standing(&line.path)? else {
            return Ok(None);
        };
        let id = new_id(utc_now());
        let staged = self.with_room(line.len(), || self.stage_version(&id, line));
        let (make, ready) = staged.map_err(|source| RestoreError::Kept {
            path: line.path.clone(),
            source: source.into(),
        })?;
        Ok(Some(Edit {
            id,
            path: line.path.clone(),
            expect,
            make: Some(make),
            staged: StagedState::Ready(ready),
            why: "replaced by restore",
            step: None,
        }))
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
    pub(crate) fn stage_version(&self, id: &str, line: &Line) -> Result<(Entry, Ready), Errno> {
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
                dressed: None,
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
        Pick::Each(ids) => versions.iter().find(|line| ids.contains(&line.id)),
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
