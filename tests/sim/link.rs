//! The simulated link: a control stream in each direction, in order, and streams of content that are
//! independent of it and of each other. A cut loses all that was on its way.

use std::collections::VecDeque;

use shared::hash::ContentHash;
use shared::transfer::Batch;
use shared::tree::{Gen, Side};
use shared::wire::Frame;

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) number: u64,
    /// Whether it still carries anything.
    pub(crate) alive: bool,
    /// Whether one side has asked for its end.
    pub(crate) closing: bool,
    /// Frames on their way to each side.
    pub(crate) frames: [VecDeque<Frame>; 2],
    pub(crate) streams: Vec<Stream>,
    /// Whether a side has given it up.
    pub(crate) given_up: [bool; 2],
}

/// A stream of content.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u64,
    pub(crate) to: Side,
    /// Its first frame, until it has arrived.
    pub(crate) head: Option<Head>,
    /// The batch that takes what arrives, once the head was handled.
    pub(crate) taker: Option<Gen>,
    pub(crate) pieces: VecDeque<Piece>,
}

/// The first frame of a stream.
#[derive(Debug)]
pub(crate) enum Head {
    Batch(Batch, Option<u64>),
    Contents(Gen),
    Chunks(Gen),
}

/// What arrives on a stream.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A whole small content for an operation.
    Content(u32, ContentHash, u64),
    /// The list of a long content's chunks.
    Listed(u32),
    /// What the taker moves stands there.
    Stands(u32),
    /// The giver does not have it.
    Gone(u32),
    /// All chunks of a long content.
    Chunks(u32, ContentHash, u64),
    /// No more parts.
    End,
    /// No more chunks for this operation.
    ChunksEnd(u32),
}

impl Link {
    pub(crate) fn new(number: u64) -> Self {
        Self {
            number,
            alive: true,
            closing: false,
            frames: [VecDeque::new(), VecDeque::new()],
            streams: Vec::new(),
            given_up: [false; 2],
        }
    }

    /// Ends it: what is on its way is lost.
    pub(crate) fn cut(&mut self) {
        self.alive = false;
        self.frames = [VecDeque::new(), VecDeque::new()];
        self.streams.clear();
    }
}
