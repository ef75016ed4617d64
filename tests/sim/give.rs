//! Content on its way out: `disk::give` and `carry::content`, one file a step.

use shared::hash::PLAIN_BYTES_MAX;
use shared::transfer::{Item, Need};
use shared::tree::Entry;

use crate::defect::Defect;
use crate::disk::Disk;
use crate::link::Piece;
use crate::take::dir_of;
use crate::volume::{Dir, Ino};

/// Items that are being given on a stream.
#[derive(Debug)]
pub(crate) struct GiveJob {
    pub(crate) link: u64,
    pub(crate) stream: u64,
    items: Vec<Item>,
    next: usize,
    pack: Vec<Piece>,
    given: Vec<Ino>,
    /// Whether a directory is among them, with all that is in it.
    moves_dirs: bool,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Read,
    Sync,
    Flush,
    End,
}

/// Chunks that are being given.
#[derive(Debug)]
pub(crate) struct ChunksJob {
    pub(crate) link: u64,
    pub(crate) stream: u64,
    pub(crate) need: Need,
}

impl GiveJob {
    pub(crate) fn new(link: u64, stream: u64, items: Vec<Item>) -> Self {
        Self {
            link,
            stream,
            items,
            next: 0,
            pack: Vec::new(),
            given: Vec::new(),
            moves_dirs: false,
            phase: Phase::Read,
        }
    }

    /// Takes one step; returns what goes out, and whether that was the last.
    pub(crate) fn step(&mut self, disk: &mut Disk) -> (Vec<Piece>, bool) {
        match self.phase {
            Phase::Read => {
                let Some(item) = self.items.get(self.next) else {
                    self.phase = Phase::Sync;
                    return (Vec::new(), false);
                };
                self.next += 1;
                match readable(disk, item) {
                    None => (vec![Piece::Gone(item.index)], false),
                    Some((ino, _)) if item.is_moved() => {
                        self.given.push(ino);
                        self.moves_dirs |= item.entry.is_dir();
                        self.pack.push(Piece::Stands(item.index));
                        (Vec::new(), false)
                    }
                    Some((ino, Entry::File { content, len, .. })) => {
                        self.given.push(ino);
                        if len <= PLAIN_BYTES_MAX {
                            self.pack.push(Piece::Content(item.index, content, len));
                        } else {
                            self.pack.push(Piece::Listed(item.index));
                        }
                        (Vec::new(), false)
                    }
                    Some(_) => (vec![Piece::Gone(item.index)], false),
                }
            }
            Phase::Sync => {
                if !disk.has(Defect::GivenBeforeDurable) {
                    self.make_durable(disk);
                }
                self.phase = Phase::Flush;
                (Vec::new(), false)
            }
            Phase::Flush => {
                self.phase = Phase::End;
                (std::mem::take(&mut self.pack), false)
            }
            Phase::End => (vec![Piece::End], true),
        }
    }

    fn make_durable(&mut self, disk: &mut Disk) {
        if self.moves_dirs {
            return disk.volume.sync_all();
        }
        for ino in self.given.drain(..) {
            disk.volume.sync_file(ino);
        }
        let dirs: Vec<Dir> = self.items.iter().map(|item| dir_of(&item.path)).collect();
        disk.volume.sync_dirs(&dirs);
    }
}

impl ChunksJob {
    /// Reads the chunks.
    pub(crate) fn step(&self, disk: &Disk) -> Vec<Piece> {
        let index = self.need.item.index;
        let first = match readable(disk, &self.need.item) {
            Some((_, Entry::File { content, len, .. })) => Piece::Chunks(index, content, len),
            _ => Piece::Gone(index),
        };
        vec![first, Piece::ChunksEnd(index)]
    }
}

/// Returns a file that still is what the item says.
fn readable(disk: &Disk, item: &Item) -> Option<(Ino, Entry)> {
    let (ino, inode) = disk.volume.node(&item.path)?;
    let can_read = !inode.shut && !disk.volume.is_shut_above(&item.path);
    let is_it = inode.entry == item.entry
        || disk.has(Defect::UnverifiedContent) && inode.entry.same_kind(&item.entry);
    (can_read && is_it).then(|| (ino, inode.entry.clone()))
}
