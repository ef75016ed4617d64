//! Chunks: where long content is cut.
//!
//! Both machines must cut alike, so the parameters are constants and golden cut points in
//! `chunk/tests.rs` pin them. The cutting itself is MinCDC (crate `mincdc`): the cut falls where a
//! hash of the last four bytes is smallest between the two bounds. A SQLite database is cut at fixed
//! places instead ([`DatabaseHeader`]).

mod database;

pub use database::{DATABASE_CHUNK_BYTES, DATABASE_LONG_CHUNK_BYTES, DatabaseHeader, HEADER_BYTES};

use mincdc::{MinCdcHash4, SliceChunker};
use serde::{Deserialize, Serialize};

use crate::hash::ContentHash;

/// Shortest chunk that is cut by content, in bytes; only the last one of a file may be shorter.
pub const CHUNK_BYTES_MIN: usize = 32 * 1024;
/// Longest chunk, in bytes.
pub const CHUNK_BYTES_MAX: usize = 96 * 1024;

/// One chunk of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Hash of the chunk's bytes.
    pub hash: ContentHash,
    /// Length in bytes, 1 to [`CHUNK_BYTES_MAX`].
    pub len: u32,
}

/// The chunks of one content, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// In the order of the content.
    pub chunks: Vec<Chunk>,
}

impl Manifest {
    /// Returns the length of the content, in bytes.
    pub fn len(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.len)).sum()
    }

    /// Says whether there is no chunk.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Says whether an honest chunker may have cut these chunks. `is_begun` says that it is only the
    /// beginning of a list, which more chunks follow.
    ///
    /// It bounds what a list from the other machine may ask for, in chunks for a length. Whether the
    /// chunks make up the content, only [`Manifest::content`] and the bytes tell.
    pub fn is_plausible(chunks: &[Chunk], is_begun: bool) -> bool {
        let Some((last, others)) = chunks.split_last() else {
            return false;
        };
        let cut_by_content = CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX;
        let fixed = [DATABASE_CHUNK_BYTES, DATABASE_LONG_CHUNK_BYTES].map(|bytes| bytes..=bytes);
        [cut_by_content].into_iter().chain(fixed).any(|lens| {
            let first_of_last = if is_begun { *lens.start() } else { 1 };
            others
                .iter()
                .all(|chunk| lens.contains(&(chunk.len as usize)))
                && (first_of_last..=*lens.end()).contains(&(last.len as usize))
        })
    }

    /// Returns the hash of the content that these chunks make up.
    pub fn content(&self) -> ContentHash {
        ContentHash::of_chunks(self.len(), self.chunks.iter().map(|chunk| &chunk.hash))
    }

    /// Returns each chunk with the offset at which it starts.
    pub fn with_offsets(&self) -> impl Iterator<Item = (u64, &Chunk)> {
        self.chunks.iter().scan(0, |end, chunk| {
            let start = *end;
            *end += u64::from(chunk.len);
            Some((start, chunk))
        })
    }
}

/// Cuts content that is read piece by piece.
#[derive(Debug, Default)]
pub struct Chunker {
    ahead: Vec<u8>,
    cuts: Option<Cuts>,
    manifest: Manifest,
}

/// Where a content is cut.
#[derive(Debug, Clone, Copy)]
enum Cuts {
    ByContent,
    /// Every so many bytes.
    Fixed(usize),
}

impl Cuts {
    /// Decides from the beginning of the content.
    fn of(start: &[u8]) -> Self {
        match DatabaseHeader::parse(start) {
            Some(header) => Self::Fixed(header.chunk_bytes()),
            None => Self::ByContent,
        }
    }

    /// Returns the length of the first chunk of `ahead`, or `None` when more bytes are needed to know.
    fn first(self, ahead: &[u8], last: bool) -> Option<usize> {
        let longest = match self {
            Self::ByContent => CHUNK_BYTES_MAX,
            Self::Fixed(bytes) => bytes,
        };
        if ahead.is_empty() || (ahead.len() < longest && !last) {
            return None;
        }
        let window = &ahead[..ahead.len().min(longest)];
        match self {
            Self::Fixed(_) => Some(window.len()),
            Self::ByContent => {
                let hash = MinCdcHash4::new();
                SliceChunker::new(window, CHUNK_BYTES_MIN, CHUNK_BYTES_MAX, hash)
                    .next()
                    .map(|chunk| chunk.len())
            }
        }
    }
}

impl Chunker {
    /// Takes the next piece of the content.
    pub fn push(&mut self, piece: &[u8]) {
        self.ahead.extend_from_slice(piece);
        self.cut(false);
    }

    /// Ends the content and returns its chunks.
    pub fn finish(mut self) -> Manifest {
        self.cut(true);
        self.manifest
    }

    fn cut(&mut self, last: bool) {
        if self.ahead.len() < HEADER_BYTES && !last {
            return;
        }
        let cuts = *self.cuts.get_or_insert_with(|| Cuts::of(&self.ahead));
        let mut start = 0;
        while let Some(len) = cuts.first(&self.ahead[start..], last) {
            let bytes = &self.ahead[start..start + len];
            // A chunk is at most 96 KiB, so its length fits.
            self.manifest.chunks.push(Chunk {
                hash: ContentHash::of_bytes(bytes),
                len: len as u32,
            });
            start += len;
        }
        self.ahead.drain(..start);
    }
}

#[cfg(test)]
mod tests;
