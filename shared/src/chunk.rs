//! Content-defined chunks: where long content is cut.
//!
//! Both machines must cut alike, so the parameters are constants and golden cut points in
//! `chunk/tests.rs` pin them. The cutting itself is MinCDC (crate `mincdc`): the cut falls where a
//! hash of the last four bytes is smallest between the two bounds.

use mincdc::{MinCdcHash4, SliceChunker};
use serde::{Deserialize, Serialize};

use crate::hash::ContentHash;

/// Shortest chunk, in bytes; only the last one of a file may be shorter.
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

/// Returns the length of the first chunk of `ahead`, or `None` when more bytes are needed to know.
///
/// `ahead` holds the content that is not cut yet, as far as it is read; `last` says that nothing
/// follows. With [`CHUNK_BYTES_MAX`] bytes at hand the answer is always known.
pub fn first_cut(ahead: &[u8], last: bool) -> Option<usize> {
    if ahead.is_empty() || (ahead.len() < CHUNK_BYTES_MAX && !last) {
        return None;
    }
    let window = &ahead[..ahead.len().min(CHUNK_BYTES_MAX)];
    SliceChunker::new(window, CHUNK_BYTES_MIN, CHUNK_BYTES_MAX, MinCdcHash4::new())
        .next()
        .map(|chunk| chunk.len())
}

/// Cuts content that is read piece by piece.
#[derive(Debug, Default)]
pub struct Chunker {
    ahead: Vec<u8>,
    manifest: Manifest,
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
        let mut start = 0;
        while let Some(len) = first_cut(&self.ahead[start..], last) {
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
