//! How content travels: what a batch asks of a side, and the parts in which content arrives.
//!
//! A *batch* is a list of operations for one side. The side that lacks content is the *taker*, the
//! other one the *giver*. The giver sends small content at once, many files in one [`Part::Pack`];
//! for long content it sends the list of chunks, and the taker answers with a [`Need`] for those
//! that it does not hold. What replaces something known travels as a delta ([`Form`]) where that is shorter.
//! Nothing is used before its hash is checked.

mod edited;
mod moved;
mod sent;

pub use edited::{
    BLOCKS_MAX, BlockCopy, BlockName, EDITED_CHUNKS_MAX, OLDS_MAX, Old, Piece, REGION_BYTES_MAX,
    blocks, list_of, name_of, pieces, unweave, weave,
};
pub use moved::{move_of, moved_ops};
pub use sent::SentBatch;

use serde::{Deserialize, Deserializer, Serialize};

use crate::chunk::{Chunk, Manifest};
use crate::delta::Form;
use crate::hash::{ContentHash, SetHash};
use crate::limit;
use crate::merge::How;
use crate::path::RelPath;
use crate::tree::{Entry, Gen};

/// Most operations in a batch.
pub const BATCH_OPS_MAX: usize = 4000;
/// Most bytes of small content in a batch; long files are counted as their chunk lists.
pub const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most chunks in one [`Part::Manifest`]; a longer list comes in several.
pub const MANIFEST_CHUNKS_MAX: usize = 32 * 1024;
/// Most bytes of content in one [`Part::Pack`] or [`ChunkRun`], compressed or not. A giver ends a part
/// at 1 MiB; a last small file may go beyond. A taker has some parts of each stream in memory, so
/// this is what bounds it.
pub const PART_BYTES_MAX: usize = 1024 * 1024 + 128 * 1024;
/// Longest file that travels, in bytes. A longer one is held on the side that would take it, since the
/// list of its chunks has to fit into memory.
pub const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024 * 1024;
/// Most chunks in the lists of long files that a side is taking at one time, over all batches: 45 bytes
/// each in memory. A file of [`FILE_BYTES_MAX`] has two thirds of them. What does not fit is
/// [`Outcome::Gone`], and is planned again.
pub const CHUNKS_LISTED_MAX: usize = 3 * 1024 * 1024;
/// Most runs in one [`Need`]. A file that lacks more is asked for in several goes.
pub const RUNS_MAX: usize = 256 * 1024;
/// Most batches that a side takes at one time. A planner has at most eight on their way to each side.
pub const TAKING_MAX: usize = 16;
/// Longest [`Trouble::text`] and text of a problem, in bytes: a few paths and the words around them.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Where the content for an operation comes from, seen from the side that carries it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// No content is needed: a directory, a link, a deletion, a change of the exec bit.
    Nothing,
    /// The other side has it at this path.
    There(RelPath),
    /// This side has it at this path.
    Here(RelPath),
    /// The other side has `make` at the path of the operation, and it is merged into what stands here.
    /// What comes of it is told as [`Outcome::Merged`] or [`Outcome::Unmerged`].
    Merge {
        /// What both agreed on last.
        base: Option<Entry>,
        /// How to merge.
        how: How,
    },
    /// This side has it at `from`, with all that lies in it, and it goes from there to the path of the
    /// operation in one step. [`moved_ops`] says which changes of single paths that is.
    Moved {
        /// Where it stands.
        from: RelPath,
        /// The set hash of all that stands there, at the paths at which it will stand. Anything else makes
        /// the operation [`Outcome::Stale`].
        tree: SetHash,
    },
}

/// One change that a side carries out on its tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// The path that changes.
    pub path: RelPath,
    /// What the plan saw there; anything else makes the operation [`Outcome::Stale`].
    pub expect: Option<Entry>,
    /// What shall stand there; `None` deletes.
    pub make: Option<Entry>,
    /// Where the content comes from.
    pub from: Source,
    /// Whether both sides agree on `make` once this operation is durable. False when the other
    /// side has to change too: then the base moves when both have.
    pub agrees: bool,
}

impl Op {
    /// Returns the file's content hash and length, when this operation needs content from the other
    /// side.
    pub fn wants(&self) -> Option<(&RelPath, &Entry)> {
        match (&self.from, &self.make) {
            (Source::There(path), Some(entry @ Entry::File { .. })) => Some((path, entry)),
            (Source::Merge { .. }, Some(entry @ Entry::File { .. })) => Some((&self.path, entry)),
            _ => None,
        }
    }

    /// Says whether it changes the exec bit of a file, and nothing else.
    pub fn only_turns_bit(&self) -> bool {
        let is_file = |entry: &&Entry| matches!(entry, Entry::File { .. });
        match (self.expect.as_ref().filter(is_file), &self.make) {
            (Some(old), Some(new @ Entry::File { .. })) => {
                old != new && old.identity() == new.identity()
            }
            _ => false,
        }
    }

    /// Returns from where this operation moves what it makes, and the hash of that.
    pub fn moves(&self) -> Option<(&RelPath, SetHash)> {
        match &self.from {
            Source::Moved { from, tree } => Some((from, *tree)),
            _ => None,
        }
    }
}

/// What one side carries out in one go, with one durability barrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its number.
    pub number: Gen,
    /// In the order in which they take effect; at most [`BATCH_OPS_MAX`].
    pub ops: Vec<Op>,
    /// The beginning of the set hash that both trees have when all of this is done, if nothing is left then:
    /// the proof that they are equal, told in advance.
    pub settles: Option<u64>,
}

/// What became of one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is done and durable.
    Done,
    /// The path was not as the plan saw it. Nothing was changed.
    Stale,
    /// The giver no longer has the content. Nothing was changed.
    Gone,
    /// It cannot be done now. Nothing was changed.
    Held(Trouble),
    /// What stands here now has all that the other side wrote in it; it is durable.
    Merged(Entry),
    /// The two cannot be merged without a guess. Nothing was changed.
    Unmerged,
}

/// Why an operation cannot be carried out on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The kind, for programs.
    pub kind: TroubleKind,
    /// One sentence for a person.
    #[serde(deserialize_with = "limit::text::<_, TEXT_BYTES_MAX>")]
    pub text: String,
}

/// The kinds of [`Trouble`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TroubleKind {
    /// No space or quota left.
    DiskFull,
    /// The volume is read-only.
    ReadOnly,
    /// Permission denied, or an immutable flag.
    Permission,
    /// The volume cannot hold such a name.
    Name,
    /// Something unexpected is inside a directory that should go.
    NotEmpty,
    /// Content arrived that does not have the announced hash, twice.
    Corrupt,
    /// Any other error of the file system.
    Io,
    /// A program has the database open, or left work in it that is not finished.
    DatabaseOpen,
}

impl TroubleKind {
    /// Returns the name that stands in problem codes.
    pub fn code(self) -> &'static str {
        match self {
            Self::DiskFull => "disk_full",
            Self::ReadOnly => "read_only",
            Self::Permission => "permission",
            Self::Name => "name",
            Self::NotEmpty => "not_empty",
            Self::Corrupt => "corrupt",
            Self::Io => "io",
            Self::DatabaseOpen => "database_open",
        }
    }

    /// Returns what a person can do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::DiskFull => "free some space; it is tried again by itself",
            Self::ReadOnly => "make the volume writable; it is tried again by itself",
            Self::Permission => "correct the rights of the path; it is tried again by itself",
            Self::Name => "rename it on the other side",
            Self::NotEmpty => {
                "move or delete what is left in the directory, or recreate it on the other side"
            }
            Self::Corrupt => {
                "check the disk and the memory of the other machine, then `layer-sync verify`"
            }
            Self::Io => "check the disk; it is tried again by itself",
            Self::DatabaseOpen => {
                "close the program that uses the database; it is tried again by itself"
            }
        }
    }
}

/// One file that a giver shall send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The number of the operation in its batch.
    pub index: u32,
    /// Where the giver has it.
    pub path: RelPath,
    /// What it must be there; a giver that finds something else answers [`Part::Gone`].
    pub entry: Entry,
    /// What the taker has where it goes, if that can be the base of a delta.
    pub base: Option<DeltaBase>,
}

/// The content of a file that the taker has. One that is what the item wants is being moved there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaBase {
    /// Its hash.
    pub content: ContentHash,
    /// Its length in bytes.
    pub len: u64,
}

impl DeltaBase {
    /// Returns what an operation displaces, if that can be the base of a delta, or what it moves.
    pub fn of(op: &Op) -> Option<Self> {
        let moved = op.make.as_ref().filter(|_| op.moves().is_some());
        match (&op.expect, &op.from) {
            _ if let Some(Entry::File { content, len, .. }) = moved => Some(Self {
                content: *content,
                len: *len,
            }),
            (Some(Entry::File { content, len, .. }), Source::There(_)) if *len > 0 => Some(Self {
                content: *content,
                len: *len,
            }),
            _ => None,
        }
    }
}

impl Item {
    /// Returns what a giver has to send for the operation with this number in its batch, if anything. Of what
    /// is moved it says only that it stands there, durably.
    pub fn of(index: u32, op: &Op) -> Option<Self> {
        let moved = op.make.as_ref().filter(|_| op.moves().is_some());
        let moved = moved.map(|entry| (&op.path, entry));
        let (path, entry) = op.wants().or(moved)?;
        Some(Self {
            index,
            path: path.clone(),
            entry: entry.clone(),
            base: DeltaBase::of(op),
        })
    }

    /// Says whether nothing of it has to travel, because the taker moves there what it has.
    pub fn is_moved(&self) -> bool {
        match &self.entry {
            Entry::File { content, .. } => self.base.is_some_and(|base| base.content == *content),
            Entry::Dir | Entry::Symlink { .. } => true,
        }
    }
}

/// A piece of what a giver sends for a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Small files, one after another, each in its form, compressed together when that is shorter.
    Pack {
        /// The files in `bytes`, in order; at most one for each operation.
        #[serde(deserialize_with = "limit::list::<_, _, BATCH_OPS_MAX>")]
        files: Vec<PackedFile>,
        /// Whether `bytes` is a zstd frame.
        zstd: bool,
        /// The contents; at most [`PART_BYTES_MAX`].
        #[serde(serialize_with = "limit::as_bytes")]
        #[serde(deserialize_with = "limit::bytes::<_, PART_BYTES_MAX>")]
        bytes: Vec<u8>,
    },
    /// The chunks of one long file.
    Manifest {
        /// The operation.
        index: u32,
        /// Modification time, nanoseconds since 1970 UTC.
        mtime_ns: i64,
        /// The chunks, or the next of them; at most [`MANIFEST_CHUNKS_MAX`].
        #[serde(deserialize_with = "piece_of_manifest")]
        manifest: Manifest,
        /// Whether more chunks of this file follow in another part.
        more: bool,
    },
    /// The giver no longer has what was asked for.
    Gone {
        /// The operation.
        index: u32,
    },
    /// The chunks of one long file of which the taker has most: the difference to those of the base.
    Edited {
        /// The operation.
        index: u32,
        /// Modification time, nanoseconds since 1970 UTC.
        mtime_ns: i64,
        /// What makes the list; at most [`MANIFEST_CHUNKS_MAX`].
        #[serde(deserialize_with = "limit::list::<_, _, MANIFEST_CHUNKS_MAX>")]
        pieces: Vec<Piece>,
    },
    /// What the taker moves stands at the giver's, and is durable there.
    Stands {
        /// The operation.
        index: u32,
    },
}

/// A file inside a [`Part::Pack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedFile {
    /// The operation.
    pub index: u32,
    /// Length in the pack, in bytes: of the content, or of what it is made from.
    pub len: u32,
    /// Modification time, nanoseconds since 1970 UTC.
    pub mtime_ns: i64,
    /// How the content is made from it.
    pub form: Form,
}

/// What the taker asks for: the chunks of a long file that it does not hold, or, without runs, the whole
/// of a file of which no delta could be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// The batch.
    pub batch: Gen,
    /// The file.
    pub item: Item,
    /// Chunk numbers as (first, count), ascending; at most [`RUNS_MAX`].
    #[serde(deserialize_with = "limit::list::<_, _, RUNS_MAX>")]
    pub runs: Vec<(u32, u32)>,
    /// What the taker has in the place of some of these runs; at most [`OLDS_MAX`].
    #[serde(deserialize_with = "limit::list::<_, _, OLDS_MAX>")]
    pub olds: Vec<Old>,
}

/// Consecutive chunks of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRun {
    /// The number of the first chunk.
    pub first: u32,
    /// How many there are.
    pub count: u32,
    /// The blocks of what the taker has in their place that stand among `bytes`; at most [`BLOCKS_MAX`].
    #[serde(deserialize_with = "limit::list::<_, _, BLOCKS_MAX>")]
    pub copies: Vec<BlockCopy>,
    /// Whether `bytes` is a zstd frame.
    pub zstd: bool,
    /// The chunks, one after another, without those blocks; at most [`PART_BYTES_MAX`].
    #[serde(serialize_with = "limit::as_bytes")]
    #[serde(deserialize_with = "limit::bytes::<_, PART_BYTES_MAX>")]
    pub bytes: Vec<u8>,
}

/// Decodes a list of chunks. A stored one may be longer than one that travels, so the limit is here.
fn piece_of_manifest<'de, D: Deserializer<'de>>(from: D) -> Result<Manifest, D::Error> {
    limit::list::<_, _, MANIFEST_CHUNKS_MAX>(from).map(|chunks| Manifest { chunks })
}

/// Returns the runs of chunks for which `held` says false.
pub fn missing_runs(
    chunks: &[Chunk],
    mut held: impl FnMut(usize, &Chunk) -> bool,
) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        if held(index, chunk) {
            continue;
        }
        let index = index as u32;
        match runs.last_mut() {
            Some((first, count)) if *first + *count == index => *count += 1,
            _ => runs.push((index, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_just_what_is_missing() {
        let chunk = Chunk {
            hash: ContentHash::of_bytes(b""),
            len: 1,
        };
        let check = |held: &str, expected: &[(u32, u32)]| {
            let chunks = vec![chunk; held.len()];
            let runs = missing_runs(&chunks, |i, _| held.as_bytes()[i] == b'x');
            assert_eq!(runs, expected, "{held}");
        };
        check("", &[]);
        check("xxx", &[]);
        check("...", &[(0, 3)]);
        check(".xx.", &[(0, 1), (3, 1)]);
        check("x..x.", &[(1, 2), (4, 1)]);
    }
}
