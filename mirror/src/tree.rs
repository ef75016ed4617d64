//! The tree that is mirrored, as a mirror sees it: what stands there, its content, and a way to edit it.

use std::io;
use std::sync::Arc;

use disk::Replica;
use disk::mirrored::{self, Here, Moved};
use disk::trails::Passed;
use shared::merge::How;
use shared::mirror::{Step, Trail};
use shared::path::RelPath;
use shared::transfer::Outcome;
use shared::tree::{Entry, Gen};

use crate::target::{Bytes, Wrong};

/// Content that is being received.
pub trait Receives {
    /// What it is in the end.
    type Arrived;

    /// Takes more of it.
    ///
    /// # Errors
    /// What the system says.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Takes it that all of it is there.
    ///
    /// # Errors
    /// What the system says.
    fn finish(self, exec: bool, mtime_ns: i64) -> io::Result<Self::Arrived>;
}

/// Where the content for an edit is.
pub enum Content<A> {
    /// None is needed.
    Nothing,
    /// It has arrived.
    Arrived(A),
    /// It stands at this path of the tree.
    CopyOf(RelPath),
    /// It has arrived, and is to be merged into what stands there.
    Merged {
        /// What arrived.
        arrived: A,
        /// What both come from.
        base: Option<Entry>,
        /// How.
        how: How,
    },
}

/// A change of the tree.
pub struct Edit<A> {
    /// Where.
    pub path: RelPath,
    /// What was seen there.
    pub expect: Option<Entry>,
    /// What shall stand there; `None` removes.
    pub make: Option<Entry>,
    /// Its content.
    pub content: Content<A>,
    /// The copy of the mirror that the tree is equal to then.
    pub step: Option<Step>,
}

/// A tree that is mirrored. [`Arc<Replica>`] is one.
pub trait Tree {
    /// The content of a file.
    type Original: Bytes + 'static;
    /// Content that is being received.
    type Arriving: Receives<Arrived = Self::Arrived>;
    /// Content that has arrived.
    type Arrived;

    /// Says whether the whole tree was looked at since the start. Before, nothing can be taken for deleted.
    fn is_known(&self) -> bool;

    /// Returns the last batch of the pair that is known here.
    fn last_batch(&self) -> Gen;

    /// Returns what moved since the last time.
    fn moved(&self) -> Moved;

    /// Returns what stands at a path.
    ///
    /// # Errors
    /// When that cannot be read.
    fn here(&self, path: &RelPath) -> Result<Here, Wrong>;

    /// Returns the paths below one at which something stands or was agreed on.
    ///
    /// # Errors
    /// When that cannot be read.
    fn below(&self, top: &RelPath) -> Result<Vec<RelPath>, Wrong>;

    /// Returns the paths in the directory of one.
    fn beside(&self, path: &RelPath) -> Vec<RelPath>;

    /// Visits all paths at which something stands or was agreed on.
    ///
    /// # Errors
    /// When that cannot be read.
    fn each_here(&self, visit: &mut dyn FnMut(RelPath, Here)) -> Result<(), Wrong>;

    /// Returns how many files there are.
    fn file_count(&self) -> u64;

    /// Says whether the rules leave a path alone.
    fn ignores(&self, path: &RelPath, is_dir: bool) -> bool;

    /// Says whether names that differ in case or normalization alone are one.
    fn folds(&self) -> bool;

    /// Opens the content of a file, with the time of its modification in nanoseconds since 1970. `None` when it is not what it
    /// should be.
    ///
    /// # Errors
    /// What the system says.
    fn original(&self, path: &RelPath, entry: &Entry) -> io::Result<Option<(Self::Original, i64)>>;

    /// Begins to receive content.
    ///
    /// # Errors
    /// What the system says.
    fn arriving(&self) -> io::Result<Self::Arriving>;

    /// Notes which copies of the mirror the tree is equal to, or is about to send there.
    ///
    /// # Errors
    /// When that could not be made durable.
    fn passed(&self, rows: &[Passed]) -> Result<(), Wrong>;

    /// Returns what the tree came through at a path.
    ///
    /// # Errors
    /// When that cannot be read.
    fn trail(&self, path: &RelPath) -> Result<Option<Trail>, Wrong>;

    /// Says what has arrived.
    fn entry_of(arrived: &Self::Arrived) -> &Entry;

    /// Changes the tree, as a person would.
    ///
    /// # Errors
    /// When nothing could be made durable.
    fn edit(&self, edits: Vec<Edit<Self::Arrived>>) -> Result<Vec<Outcome>, Wrong>;
}

impl Bytes for mirrored::Original {
    fn len(&self) -> u64 {
        Self::len(self)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Self::read_at(self, offset, buffer)
    }

    fn rests(&self) -> io::Result<bool> {
        Self::rests(self)
    }
}

impl Receives for mirrored::Arriving {
    type Arrived = mirrored::Arrived;

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        Self::write(self, bytes)
    }

    fn finish(self, exec: bool, mtime_ns: i64) -> io::Result<mirrored::Arrived> {
        Self::finish(self, exec, mtime_ns)
    }
}

fn on_disk(error: &dyn std::fmt::Display) -> Wrong {
    Wrong::Disk(error.to_string())
}

impl Tree for Arc<Replica> {
    type Original = mirrored::Original;
    type Arriving = mirrored::Arriving;
    type Arrived = mirrored::Arrived;

    fn is_known(&self) -> bool {
        Replica::is_known(self)
    }

    fn last_batch(&self) -> Gen {
        Replica::notes(self).last_batch
    }

    fn moved(&self) -> Moved {
        Replica::moved(self)
    }

    fn here(&self, path: &RelPath) -> Result<Here, Wrong> {
        Replica::here(self, path).map_err(|error| on_disk(&error))
    }

    fn below(&self, top: &RelPath) -> Result<Vec<RelPath>, Wrong> {
        Replica::below(self, top).map_err(|error| on_disk(&error))
    }

    fn beside(&self, path: &RelPath) -> Vec<RelPath> {
        Replica::beside(self, path)
    }

    fn each_here(&self, visit: &mut dyn FnMut(RelPath, Here)) -> Result<(), Wrong> {
        Replica::each_here(self, visit).map_err(|error| on_disk(&error))
    }

    fn file_count(&self) -> u64 {
        Replica::file_count(self)
    }

    fn ignores(&self, path: &RelPath, is_dir: bool) -> bool {
        Replica::ignores(self, path, is_dir)
    }

    fn folds(&self) -> bool {
        Replica::folds(self)
    }

    fn original(
        &self,
        path: &RelPath,
        entry: &Entry,
    ) -> io::Result<Option<(mirrored::Original, i64)>> {
        let original = Replica::original(self, path, entry)?;
        Ok(original.map(|original| {
            let mtime_ns = original.mtime_ns();
            (original, mtime_ns)
        }))
    }

    fn arriving(&self) -> io::Result<mirrored::Arriving> {
        Replica::arriving(self)
    }

    fn passed(&self, rows: &[Passed]) -> Result<(), Wrong> {
        Replica::passed(self, rows).map_err(|error| on_disk(&error))
    }

    fn trail(&self, path: &RelPath) -> Result<Option<Trail>, Wrong> {
        Replica::trail(self, path).map_err(|error| on_disk(&error))
    }

    fn entry_of(arrived: &mirrored::Arrived) -> &Entry {
        arrived.entry()
    }

    fn edit(&self, edits: Vec<Edit<mirrored::Arrived>>) -> Result<Vec<Outcome>, Wrong> {
        let edits = edits.into_iter().map(|edit| mirrored::TreeEdit {
            path: edit.path,
            expect: edit.expect,
            make: edit.make,
            step: edit.step,
            content: match edit.content {
                Content::Nothing => mirrored::Content::Nothing,
                Content::Arrived(arrived) => mirrored::Content::Arrived(arrived),
                Content::CopyOf(from) => mirrored::Content::CopyOf(from),
                Content::Merged { arrived, base, how } => {
                    mirrored::Content::Merged { arrived, base, how }
                }
            },
        });
        Replica::edit(self, edits.collect()).map_err(|error| on_disk(&error))
    }
}
