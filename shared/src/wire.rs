//! The frames that the two machines exchange.
//!
//! A frame is its kind (one byte), then the fields in postcard. `link` carries frames as messages
//! with a length in front. There is one control stream in each connection, one stream each way for the
//! lease, so that it waits for nothing else, and one stream for each batch; [`Frame`]'s variants say which goes
//! where.
//!
//! # Versions
//! 1. The first.
//!
//! Golden bytes of every frame are in `tests/fixtures/frames`. A frame of an unknown kind is
//! refused, except that kinds from [`OPTIONAL_FROM`] on may be skipped by whoever does not know them.

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize};

use crate::control;
use crate::hash::SetHash;
use crate::ignore::RULES_BYTES_MAX;
use crate::lease;
use crate::limit::{self, List, Text};
use crate::mirror::Trail;
use crate::path::RelPath;
use crate::transfer::{
    BATCH_OPS_MAX, ChunkRun, Item, Need, Op, Outcome, PART_BYTES_MAX, Part, SentBatch,
};
use crate::tree::{BaseRow, Entry, Gen, Sight};

/// The version of this protocol.
pub const PROTOCOL_VERSION: u32 = 1;
/// Largest frame, in bytes: a long answer to a client. A longer one ends the connection.
pub const FRAME_BYTES_MAX: usize = 5 * 1024 * 1024;
/// Largest [`Frame::Batch`], in bytes: a page of operations and a last one that goes beyond.
pub const BATCH_FRAME_BYTES_MAX: usize = PAGE_BYTES_MAX + 64 * 1024;
/// Largest frame on a stream of content, in bytes: a part with the list of its files. Many streams
/// arrive at one time, so that this times their number is memory.
pub const PART_FRAME_BYTES_MAX: usize = PART_BYTES_MAX + 128 * 1024;
/// Most rows in one frame; longer lists come in several frames ([`pages`]).
pub const ROWS_MAX: usize = 2000;
/// Most bytes of rows in one frame, save for a last row that goes beyond.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Longest name of a node, in bytes.
pub const NODE_BYTES_MAX: usize = 64;
/// Longest text of [`Frame::Refuse`], in bytes.
pub const REASON_BYTES_MAX: usize = 4096;
/// Longest text of [`Frame::Ask`], in bytes: a request names at most one path.
pub const ASK_BYTES_MAX: usize = 64 * 1024;
/// Longest text of [`Frame::Answer`], in bytes.
pub const ANSWER_BYTES_MAX: usize = FRAME_BYTES_MAX - 1024;
/// Kinds from this one on may be skipped by a receiver of the frame that does not know them.
pub const OPTIONAL_FROM: u8 = 128;

/// The identity of a pair, chosen when it was paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PairId(pub [u8; 16]);

/// The identity of an index: chosen when the index is made, so a lost index shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IndexId(pub [u8; 16]);

/// First frame on the control stream, from the receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the receiver.
    pub version: u32,
    /// The pair that it belongs to.
    pub pair: PairId,
    /// Its name, for people; at most [`NODE_BYTES_MAX`].
    #[serde(deserialize_with = "node_name")]
    pub node: String,
    /// Its index.
    pub index: IndexId,
    /// The pusher's index that its base was agreed with.
    pub base_of: Option<IndexId>,
    /// The highest batch number in its base.
    pub last_batch: Gen,
}

/// The answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`PROTOCOL_VERSION`] of the pusher.
    pub version: u32,
    /// Its name, for people; at most [`NODE_BYTES_MAX`].
    #[serde(deserialize_with = "node_name")]
    pub node: String,
    /// Its index.
    pub index: IndexId,
    /// Whether the two bases belong together. If not, both are forgotten: the trees are united
    /// without a single deletion.
    pub base_kept: bool,
    /// Rows up to this batch are stored on both sides.
    pub resolved: Gen,
    /// The agreed text of `.layerignore`.
    #[serde(deserialize_with = "limit::text::<_, RULES_BYTES_MAX>")]
    pub ignore: String,
}

/// Decodes the name of a node. It is shown to people and stands in names of conflict copies.
fn node_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = limit::text::<_, NODE_BYTES_MAX>(from)?;
    if name.contains(|c: char| c == '/' || c.is_control()) {
        return Err(de::Error::custom(
            "the name of a node has a slash or a control character",
        ));
    }
    Ok(name)
}

/// A row of the base with its path.
pub type AgreedRow = (RelPath, BaseRow);
/// What is at a path.
pub type SeenRow = (RelPath, Sight);
/// What is at a path, and what it came through by the mirror since the pair agreed on it.
pub type TrailRow = (RelPath, Sight, Trail);

/// What the pusher knows about the equality of the two trees.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Proof {
    /// Set hash of the pusher's tree.
    pub alpha: SetHash,
    /// Set hash of the receiver's tree, as the pusher knows it; `None` when it is the same.
    pub beta: Option<SetHash>,
    /// Whether nothing waits: no change is pending, held or in flight.
    pub settled: bool,
    /// Rows up to this batch are stored on both sides.
    pub resolved: Gen,
    /// Whether the pair is paused.
    pub paused: bool,
    /// What both statuses show.
    pub sync: control::SyncCounts,
    /// Paths that wait for something, the first [`control::PROBLEMS_MAX`] of them.
    #[serde(deserialize_with = "limit::list::<_, _, { control::PROBLEMS_MAX }>")]
    pub problems: Vec<control::Problem>,
}

impl Proof {
    /// Returns the set hash of the receiver's tree, as the pusher knows it.
    pub fn beta(&self) -> SetHash {
        self.beta.unwrap_or(self.alpha)
    }
}

/// What one machine tells the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Control stream, receiver to pusher, first.
    Hello(Hello),
    /// Control stream, pusher to receiver, second. After it come the base rows that the receiver may
    /// lack, as [`Frame::Agreed`], and then [`Frame::Start`].
    Welcome(Welcome),
    /// Either way, last: one sentence why the connection ends.
    Refuse(String),
    /// Control stream, pusher to receiver: all missing base rows were sent.
    Start,
    /// Control stream, receiver to pusher, after [`Frame::Start`]: base rows above `resolved`.
    Bases(Vec<AgreedRow>),
    /// Control stream, receiver to pusher: what changed on its disk. At the start of a connection:
    /// all that is apart from its base.
    Seen(Vec<SeenRow>),
    /// Control stream, receiver to pusher: the start is complete; the set hash of its tree.
    Ready(SetHash),
    /// Control stream, pusher to receiver: the set hashes do not agree; send every entry.
    TellAll,
    /// Control stream, pusher to receiver: both sides are equal here, the base moves.
    Agreed(Gen, Vec<AgreedRow>),
    /// Control stream, receiver to pusher: the base rows of one [`Frame::Agreed`] of this batch are
    /// stored.
    Noted(Gen),
    /// Control stream, pusher to receiver: look at the whole tree.
    Sweep(u64),
    /// Control stream, receiver to pusher: the whole tree was looked at; its set hash.
    Swept(u64, SetHash),
    /// Control stream, pusher to receiver: send the content of these.
    Fetch(Gen, Vec<Item>),
    /// Control stream, receiver to pusher: what became of each operation of a batch.
    Applied(Gen, Vec<Outcome>),
    /// Control stream, either way: send these chunks.
    Need(Need),
    /// Control stream, pusher to receiver.
    Proof(Proof),
    /// Control stream, either way: a [`control::Request`] of a client on the sender's machine, as the
    /// JSON that stands on the control socket.
    Ask(u64, String),
    /// Control stream, either way: the [`control::Response`] to [`Frame::Ask`], as JSON.
    Answer(u64, String),
    /// Batch stream, pusher to receiver, first: carry this out. Its parts follow. Batches with a
    /// place in the lane are applied in that order.
    Batch(SentBatch, Option<u64>),
    /// Batch stream, receiver to pusher, first: the parts for [`Frame::Fetch`] follow.
    Contents(Gen),
    /// Batch stream: a piece of content.
    Part(Part),
    /// Chunk stream, first: the answer to a [`Need`] for this operation of this batch.
    Chunks(Gen, u32),
    /// Chunk stream: some chunks, in the order of the need.
    ChunkRun(ChunkRun),
    /// Chunk stream: the file has changed, the rest cannot be sent.
    ChunksGone,
    /// Control stream, receiver to pusher: whether more changes than those told are being looked at
    /// right now. Plans that displace something wait for that a moment (`pusher::state::guarded`).
    Moving(bool),
    /// Control stream, receiver to pusher, in the greeting: whether its volume folds case or
    /// normalization. Without it, it does not.
    Folds(bool),
    /// Control stream, pusher to receiver: read the whole tree, and answer as to [`Frame::Sweep`].
    SweepDeep(u64),
    /// Control stream, receiver to pusher: so many of the next [`Frame::Seen`] were seen together. A plan
    /// between them would take one half of a rename for a creation.
    Together(u32),
    /// Control stream, receiver to pusher: what its tree came through by the mirror. At the start of a connection, after
    /// [`Frame::Seen`]: all of it.
    Trails(Vec<TrailRow>),
    /// Lease stream, receiver to pusher.
    Renew(lease::Renewal),
    /// Lease stream, pusher to receiver.
    Lease(lease::Answer),
    /// A kind that this version does not know and may skip.
    Unknown(u8),
}

/// Cuts a list of rows into pieces that fit into frames.
pub fn pages<T: Row>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |row: &&T| {
            let before = bytes;
            bytes += row.bytes_max();
            before < PAGE_BYTES_MAX
        };
        let count = rows.iter().take(ROWS_MAX).take_while(fits).count();
        let (page, rest) = rows.split_at(count);
        rows = rest;
        (count > 0).then_some(page)
    })
}

/// A row of a list that may be longer than a frame.
pub trait Row {
    /// Returns a bound on its bytes in a frame.
    fn bytes_max(&self) -> usize;
}

/// What a row takes besides its texts, in bytes.
const ROW_BYTES: usize = 64;

fn entry_bytes(entry: Option<&Entry>) -> usize {
    match entry {
        Some(Entry::Symlink { target }) => target.len(),
        _ => 0,
    }
}

impl Row for AgreedRow {
    fn bytes_max(&self) -> usize {
        ROW_BYTES + self.0.as_str().len() + entry_bytes(self.1.entry.as_ref())
    }
}

impl Row for SeenRow {
    fn bytes_max(&self) -> usize {
        ROW_BYTES + self.0.as_str().len() + entry_bytes(self.1.entry())
    }
}

impl Row for TrailRow {
    fn bytes_max(&self) -> usize {
        let steps = self.2.steps.iter();
        let steps = steps.map(|step| ROW_BYTES + entry_bytes(step.entry.as_ref()));
        ROW_BYTES + self.0.as_str().len() + entry_bytes(self.1.entry()) + steps.sum::<usize>()
    }
}

impl Row for Op {
    fn bytes_max(&self) -> usize {
        let entries = entry_bytes(self.expect.as_ref()) + entry_bytes(self.make.as_ref());
        let from = self.moves().map_or(0, |(from, _)| from.as_str().len());
        // The path stands here twice when content is to be fetched, and once more in the outcome.
        2 * ROW_BYTES + 3 * self.path.as_str().len() + from + entries
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameRefused {
    /// No bytes at all.
    #[error("the other machine sent an empty frame")]
    Empty,
    /// More than [`FRAME_BYTES_MAX`].
    #[error("the other machine sent a frame of {0} bytes; the limit is {FRAME_BYTES_MAX}")]
    TooLong(usize),
    /// A kind that must be understood and is not.
    #[error(
        "the other machine sent a frame of kind {0}, which this version does not know; update layer-sync on this machine"
    )]
    UnknownKind(u8),
    /// Fields that do not decode.
    #[error("the other machine sent a malformed {0} frame: {1}")]
    Malformed(&'static str, String),
}

macro_rules! frames {
    ($( $kind:literal $name:literal $variant:ident ( $($field:ident : $type:ty),* ) ),* $(,)?) => {
        impl Frame {
            /// Returns the name of this kind of frame, for logs.
            pub fn name(&self) -> &'static str {
                match self { $( Self::$variant { .. } => $name, )* Self::Unknown(_) => "unknown" }
            }

            /// Returns the bytes of this frame.
            pub fn encode(&self) -> Vec<u8> {
                match self {
                    $( frames!(@pattern $variant $($field)*) => frames!(@encode $kind $($field)*), )*
                    Self::Unknown(kind) => vec![*kind],
                }
            }

            /// Reads a frame.
            ///
            /// # Errors
            /// When the bytes are not one whole frame within the limits.
            pub fn decode(bytes: &[u8]) -> Result<Self, FrameRefused> {
                if bytes.len() > FRAME_BYTES_MAX {
                    return Err(FrameRefused::TooLong(bytes.len()));
                }
                let (&kind, fields) = bytes.split_first().ok_or(FrameRefused::Empty)?;
                match kind {
                    $( $kind => {
                        let ($($field,)*): ($($type,)*) = read_fields($name, fields)?;
                        Ok(frames!(@build $variant $($field)*))
                    } )*
                    kind if kind >= OPTIONAL_FROM => Ok(Self::Unknown(kind)),
                    kind => Err(FrameRefused::UnknownKind(kind)),
                }
            }
        }
    };
    (@pattern $variant:ident) => { Self::$variant };
    (@pattern $variant:ident $($field:ident)+) => { Self::$variant($($field),+) };
    (@build $variant:ident) => { Self::$variant };
    (@build $variant:ident $($field:ident)+) => { Self::$variant($($field.into()),+) };
    (@encode $kind:literal $($field:ident)*) => { write_fields($kind, &($($field,)*)) };
}

frames! {
    1 "hello" Hello(hello: Hello),
    2 "welcome" Welcome(welcome: Welcome),
    3 "refuse" Refuse(reason: Text<REASON_BYTES_MAX>),
    4 "start" Start(),
    5 "bases" Bases(rows: List<AgreedRow, ROWS_MAX>),
    6 "seen" Seen(rows: List<SeenRow, ROWS_MAX>),
    7 "ready" Ready(hash: SetHash),
    8 "tell-all" TellAll(),
    9 "agreed" Agreed(batch: Gen, rows: List<AgreedRow, ROWS_MAX>),
    10 "noted" Noted(batch: Gen),
    11 "sweep" Sweep(id: u64),
    12 "swept" Swept(id: u64, hash: SetHash),
    13 "fetch" Fetch(batch: Gen, items: List<Item, BATCH_OPS_MAX>),
    14 "applied" Applied(batch: Gen, outcomes: List<Outcome, BATCH_OPS_MAX>),
    15 "need" Need(need: Need),
    16 "proof" Proof(proof: Proof),
    17 "ask" Ask(id: u64, request: Text<ASK_BYTES_MAX>),
    18 "answer" Answer(id: u64, response: Text<ANSWER_BYTES_MAX>),
    19 "batch" Batch(batch: SentBatch, lane: Option<u64>),
    20 "contents" Contents(batch: Gen),
    21 "part" Part(part: Part),
    22 "chunks" Chunks(batch: Gen, index: u32),
    23 "chunk-run" ChunkRun(run: ChunkRun),
    24 "chunks-gone" ChunksGone(),
    25 "moving" Moving(moves: bool),
    26 "folds" Folds(folds: bool),
    27 "sweep-deep" SweepDeep(id: u64),
    28 "together" Together(pages: u32),
    29 "renew" Renew(renewal: lease::Renewal),
    30 "lease" Lease(answer: lease::Answer),
    31 "trails" Trails(rows: List<TrailRow, ROWS_MAX>),
}

fn write_fields<T: Serialize>(kind: u8, fields: &T) -> Vec<u8> {
    // Serializing into a growing vector fails only for a type that postcard cannot express, which
    // the golden bytes of each kind rule out.
    postcard::to_extend(fields, vec![kind]).unwrap_or_else(|_| vec![kind])
}

fn read_fields<T: DeserializeOwned>(name: &'static str, bytes: &[u8]) -> Result<T, FrameRefused> {
    match postcard::take_from_bytes(bytes) {
        Ok((fields, [])) => Ok(fields),
        Ok((_, rest)) => Err(FrameRefused::Malformed(
            name,
            format!("{} bytes too many", rest.len()),
        )),
        // postcard drops what a type says about its refusal.
        Err(postcard::Error::SerdeDeCustom) => Err(FrameRefused::Malformed(
            name,
            "a value in it is not allowed, or longer than its limit".into(),
        )),
        Err(error) => Err(FrameRefused::Malformed(name, error.to_string())),
    }
}

#[cfg(test)]
mod tests;
