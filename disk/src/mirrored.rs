//! What a mirror needs of a replica: what moved, what stands here, its content, and a way for what comes back.
//!
//! A mirror is no side of the pair. What it brings is an edit of this side's tree, like one of a person's hands: it is carried out
//! with every check of any other change, what it displaces is kept, and the pair agrees on it afterwards, or finds a conflict.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError};

use rustix::fs::fstat;
use shared::merge::How;
use shared::mirror::Step;
use shared::path::RelPath;
use shared::transfer::{Op, Outcome, Source};
use shared::tree::{BaseRow, Entry, Gen, Obstacle, Sight};
use shared::wire::AgreedRow;

use crate::apply::Prepared;
use crate::edit::Edit;
use crate::error::DiskError;
use crate::fingerprint::{self, Fingerprint};
use crate::index::Changes;
use crate::kept::new_id;
use crate::seen::Slot;
use crate::sqlite::locks::TreeFile;
use crate::stage::{Ready, StagedState, copy_here, discard, ready_name, stage_dir, stage_link};
use crate::trouble::trouble;
use crate::{Replica, handle, lock, read, utc_now};

/// Paths that are remembered one by one. Beyond it everything counts as moved.
const MOVED_MAX: usize = 100_000;
/// Paths that are visited under one hold of the lock.
const PAGE: usize = 1000;

/// What moved since it was asked the last time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Moved {
    /// Whether it may be anything, and not just `paths`.
    pub all: bool,
    /// Paths at which something else was seen, or agreed on.
    pub paths: BTreeSet<RelPath>,
    /// Of these, where the pair agreed that nothing is there any more, and in which batch. A row that says so is dropped soon.
    pub gone: BTreeMap<RelPath, Gen>,
}

/// Collects what moves for the one who follows.
pub(crate) struct Follower {
    moved: Moved,
    wake: Box<dyn Fn() + Send>,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// What was seen there last.
    pub sight: Sight,
    /// What the pair agreed on last.
    pub base: Option<BaseRow>,
}

/// The content of a file of the tree, or of the snapshot of a database in use, to be copied.
pub struct Original {
    file: TreeFile,
    print: Fingerprint,
    device: u64,
    len: u64,
    mtime_ns: i64,
}

/// Content that has arrived and is staged.
pub struct Arrived {
    replica: Arc<Replica>,
    id: String,
    ready: Option<Ready>,
    entry: Entry,
}

/// Content that is arriving.
pub struct Arriving {
    replica: Arc<Replica>,
    id: String,
    file: Option<File>,
}

/// Where the content for an edit is.
pub enum Content {
    /// None is needed: a directory, a link, a removal, an exec bit.
    Nothing,
    /// It has arrived.
    Arrived(Arrived),
    /// It stands at this path of the tree.
    CopyOf(RelPath),
    /// It has arrived, and is to be merged into what stands there.
    Merged {
        /// What arrived.
        arrived: Arrived,
        /// What both come from.
        base: Option<Entry>,
        /// How.
        how: How,
    },
}

/// A change of the tree.
pub struct TreeEdit {
    /// Where.
    pub path: RelPath,
    /// What was seen there; anything else makes it [`Outcome::Stale`].
    pub expect: Option<Entry>,
    /// What shall stand there; `None` removes.
    pub make: Option<Entry>,
    /// Its content.
    pub content: Content,
    /// The copy of the mirror that the tree is equal to then.
    pub step: Option<Step>,
}

impl Replica {
    /// Begins to remember what moves, for one who asks with [`Replica::moved`], and says so each time with `wake`, which must not
    /// block. At first everything counts as moved.
    pub fn follow(&self, wake: Box<dyn Fn() + Send>) {
        let moved = Moved {
            all: true,
            ..Moved::default()
        };
        *lock(&self.follower) = Some(Follower { moved, wake });
    }

    /// Returns what moved since the last time.
    pub fn moved(&self) -> Moved {
        let mut follower = lock(&self.follower);
        follower
            .as_mut()
            .map(|follower| std::mem::take(&mut follower.moved))
            .unwrap_or_default()
    }

    /// Takes it that something is written to the index.
    pub(crate) fn note_moved(&self, changes: &Changes<'_>) {
        let mut follower = lock(&self.follower);
        let Some(follower) = follower.as_mut() else {
            return;
        };
        if changes.seen.is_empty() && changes.base.is_empty() && !changes.forget_base {
            return;
        }
        let moved = &mut follower.moved;
        let gone = |(path, row): &AgreedRow| row.entry.is_none().then(|| (path.clone(), row.batch));
        moved.gone.extend(changes.base.iter().filter_map(gone));
        if changes.forget_base || moved.paths.len() > MOVED_MAX {
            moved.all = true;
        }
        if !moved.all {
            let seen = changes.seen.iter().map(|(path, _)| path);
            let base = changes.base.iter().map(|(path, _)| path);
            moved.paths.extend(seen.chain(base).cloned());
        }
        (follower.wake)();
    }

    /// Says whether the whole tree was looked at since this was opened. Before, what was there last time counts as standing here, and
    /// what came since as absent.
    pub fn is_known(&self) -> bool {
        lock(&self.left_open).is_some()
    }

    fn is_left_open(&self, path: &RelPath) -> bool {
        let open = lock(&self.left_open);
        open.as_ref().is_some_and(|open| {
            !open.is_empty()
                && (open.contains(path) || path.ancestors().any(|above| open.contains(&above)))
        })
    }

    /// Returns what stands at a path.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn here(&self, path: &RelPath) -> Result<Here, DiskError> {
        let seen = sight(lock(&self.seen).get(path));
        // A look that could not tell has not seen that nothing is there.
        let sight = match seen {
            Sight::Absent if self.is_left_open(path) => Sight::Blocked(Obstacle::Unstable),
            seen => seen,
        };
        let base = self.index.base_row(path)?;
        Ok(Here { sight, base })
    }

    /// Returns the paths below `top` at which something stands, or the pair has agreed on something, in order.
    ///
    /// # Errors
    /// As [`Replica::here`].
    pub fn below(&self, top: &RelPath) -> Result<Vec<RelPath>, DiskError> {
        let mut found: BTreeSet<RelPath> = lock(&self.seen).below(top).into_iter().collect();
        found.extend(self.index.base_below(top)?);
        Ok(found.into_iter().collect())
    }

    /// Returns the paths in the directory of `path` at which something stands.
    pub fn beside(&self, path: &RelPath) -> Vec<RelPath> {
        let children = lock(&self.seen).children(path.parent().as_ref());
        children.direct.into_iter().map(|(path, _)| path).collect()
    }

    /// Visits all paths at which something stands, or the pair has agreed on something, those of one kind in order.
    ///
    /// # Errors
    /// As [`Replica::here`].
    pub fn each_here(&self, visit: &mut dyn FnMut(RelPath, Here)) -> Result<(), DiskError> {
        let mut after: Option<RelPath> = None;
        loop {
            let page: Vec<(RelPath, Sight)> = {
                let seen = lock(&self.seen);
                let slots = seen.slots_after(after.as_ref());
                let page = slots.take(PAGE);
                page.map(|(path, slot)| (path.clone(), sight(Some(slot))))
                    .collect()
            };
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (path, sight) in page {
                let base = self.index.base_row(&path)?;
                visit(path, Here { sight, base });
            }
        }
        let mut after: Option<String> = None;
        loop {
            let page = self.index.base_after(after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(last.as_str().to_owned());
            for (path, row) in page {
                let here = sight(lock(&self.seen).get(&path));
                if here == Sight::Absent {
                    let base = Some(row);
                    visit(path, Here { sight: here, base });
                }
            }
        }
    }

    /// Returns how many files stand here.
    pub fn file_count(&self) -> u64 {
        lock(&self.seen).files(None).count() as u64
    }

    /// Says whether the rules leave a path alone, or a directory above it.
    pub fn ignores(&self, path: &RelPath, is_dir: bool) -> bool {
        self.rules().0.ignores_within(path, is_dir)
    }

    /// Opens what stands at a path, if it is what it should be: the whole of it is read once to see that. `None` when it is not.
    ///
    /// # Errors
    /// What the system says while it is read.
    pub fn original(&self, path: &RelPath, entry: &Entry) -> io::Result<Option<Original>> {
        let Entry::File { content, len, .. } = entry else {
            return Ok(None);
        };
        let Ok(mut opened) = self.open_content(path, entry) else {
            return Ok(None);
        };
        let before = Fingerprint::of(&opened.stat, self.root.device);
        let read = read::content_of(&mut opened.file)?;
        let original = Original {
            print: before,
            device: self.root.device,
            len: *len,
            mtime_ns: fingerprint::mtime_ns(&opened.stat),
            file: opened.file,
        };
        let is_it = read.hash == *content && read.len == *len && original.rests()?;
        Ok(is_it.then_some(original))
    }

    /// Begins to stage content that arrives.
    ///
    /// # Errors
    /// What the system says.
    pub fn arriving(self: &Arc<Self>) -> io::Result<Arriving> {
        let id = new_id(utc_now());
        let name = ready_name(&id);
        let file = self.with_room(0, || handle::create_file(&self.root.stage, &name))?;
        Ok(Arriving {
            replica: Arc::clone(self),
            id,
            file: Some(file),
        })
    }

    /// Changes the tree, as a person would; what is [`Outcome::Done`] is durable. In the order that is given, durable together.
    ///
    /// # Errors
    /// [`DiskError`] when nothing could be made durable; what hinders a single edit is its outcome.
    pub fn edit(&self, edits: Vec<TreeEdit>) -> Result<Vec<Outcome>, DiskError> {
        let _alone = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unmerged = BTreeSet::new();
        let mut prepared = Vec::with_capacity(edits.len());
        for (index, edit) in edits.into_iter().enumerate() {
            let (edit, is_merged) = self.prepare(edit);
            if !is_merged {
                unmerged.insert(index);
            }
            prepared.push(edit);
        }
        let made: Vec<Option<Entry>> = prepared.iter().map(|edit| edit.make.clone()).collect();
        let outcomes = self.make_edits(prepared)?;
        let outcomes = outcomes.into_iter().zip(made).enumerate();
        let told = outcomes.map(|(index, (outcome, made))| match (outcome, made) {
            (Outcome::Done, _) if unmerged.contains(&index) => Outcome::Unmerged,
            (outcome, _) => outcome,
        });
        Ok(told.collect())
    }

    /// Stages what an edit needs, and says whether what was to be merged could be.
    fn prepare(&self, edit: TreeEdit) -> (Edit, bool) {
        let TreeEdit {
            path,
            expect,
            make,
            content,
            step,
        } = edit;
        let why = match make {
            Some(_) => "replaced by what came by the mirror",
            None => "deleted by what came by the mirror",
        };
        let edit = |id, make, staged| Edit {
            id,
            path: path.clone(),
            expect: expect.clone(),
            make,
            staged,
            why,
            step: step.clone(),
        };
        match content {
            Content::Arrived(arrived) => {
                let (id, ready) = arrived.into_staged();
                (edit(id, make, StagedState::Ready(ready)), true)
            }
            Content::Merged { arrived, base, how } => {
                let (id, ready) = arrived.into_staged();
                let op = Op {
                    path: path.clone(),
                    expect: expect.clone(),
                    make,
                    from: Source::Merge { base, how },
                    agrees: false,
                };
                match self.prepare_merge(&op, &id, ready) {
                    Prepared::Makes(make, staged) => (edit(id, Some(make), staged), true),
                    // What stands there stays, and the caller hears that it does.
                    Prepared::Not => (edit(id, expect.clone(), StagedState::Nothing), false),
                }
            }
            Content::CopyOf(from) => {
                let id = new_id(utc_now());
                let len = make.as_ref().map_or(0, Entry::len);
                let copy = || match &make {
                    Some(entry) => copy_here(self, &id, &from, entry),
                    None => Ok(None),
                };
                let staged = match self.with_room(len, copy) {
                    Ok(Some(ready)) => StagedState::Ready(ready),
                    Ok(None) => StagedState::Gone,
                    Err(error) => StagedState::Held(trouble(&path, "staged", error)),
                };
                (edit(id, make, staged), true)
            }
            Content::Nothing => {
                let id = new_id(utc_now());
                let root = &self.root;
                let stage = || match (&make, &expect) {
                    (Some(Entry::Symlink { target }), _) => stage_link(root, &id, target).map(Some),
                    (Some(Entry::Dir), Some(expect)) if !expect.is_dir() => {
                        stage_dir(root, &id).map(Some)
                    }
                    _ => Ok(None),
                };
                let staged = match self.with_room(0, stage) {
                    Ok(Some(ready)) => StagedState::Ready(ready),
                    Ok(None) => StagedState::Nothing,
                    Err(error) => StagedState::Held(trouble(&path, "staged", error)),
                };
                (edit(id, make, staged), true)
            }
        }
    }
}

pub(crate) fn sight(slot: Option<&Slot>) -> Sight {
    match slot {
        None => Sight::Absent,
        Some(Slot::Is(row)) => Sight::Is(row.entry.clone()),
        Some(Slot::Blocked { obstacle, .. }) => Sight::Blocked(*obstacle),
        Some(Slot::Rotten(_)) => Sight::Blocked(Obstacle::Rotten),
    }
}

impl Original {
    /// Returns its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Says whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns when it was modified, in nanoseconds since 1970.
    pub fn mtime_ns(&self) -> i64 {
        self.mtime_ns
    }

    /// Reads at an offset until the buffer is full or the content ends; returns how much that was.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Says whether nobody has written to it since it was opened. Ask before the last of it is used.
    ///
    /// # Errors
    /// What the system says.
    pub fn rests(&self) -> io::Result<bool> {
        let now = Fingerprint::of(&fstat(&self.file)?, self.device);
        // Its name may have gone, which changes the time of its inode and nothing in it.
        Ok(now.is_renamed(&self.print))
    }
}

impl Arriving {
    /// Takes more of it.
    ///
    /// # Errors
    /// What the system says. The disk may be full.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let mut left = bytes;
        let wrote = self.replica.with_room(bytes.len() as u64, || {
            while !left.is_empty() {
                let wrote = file.write(left).map_err(|error| read::errno(&error))?;
                left = &left[wrote..];
            }
            Ok(())
        });
        Ok(wrote?)
    }

    /// Takes it that all of it is there, and says what it is. `exec` and `mtime_ns` are what it will have.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(mut self, exec: bool, mtime_ns: i64) -> io::Result<Arrived> {
        let Some(file) = self.file.take() else {
            return Err(io::ErrorKind::Other.into());
        };
        let arrived = || -> io::Result<(Entry, Ready)> {
            let (mut file, stat) =
                handle::open_file(&self.replica.root.stage, ready_name(&self.id))?;
            let content = read::content_of(&mut file)?;
            let entry = Entry::File {
                content: content.hash,
                len: content.len,
                exec,
            };
            let ready = Ready {
                inode: fingerprint::inode(&stat),
                mtime_ns: Some(mtime_ns),
                dressed: None,
            };
            Ok((entry, ready))
        };
        let (entry, ready) = arrived().inspect_err(|_| {
            discard(&self.replica.root, &ready_name(&self.id));
        })?;
        drop(file);
        Ok(Arrived {
            replica: Arc::clone(&self.replica),
            id: std::mem::take(&mut self.id),
            ready: Some(ready),
            entry,
        })
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if self.file.is_some() {
            discard(&self.replica.root, &ready_name(&self.id));
        }
    }
}

impl Arrived {
    /// Returns what it is.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    fn into_staged(mut self) -> (String, Ready) {
        let ready = self.ready.take().unwrap_or(Ready {
            inode: 0,
            mtime_ns: None,
            dressed: None,
        });
        (std::mem::take(&mut self.id), ready)
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        if self.ready.is_some() {
            discard(&self.replica.root, &ready_name(&self.id));
        }
    }
}

#[cfg(test)]
mod tests;
