//! Chunks and hash of long content, in bytes per second.
//!
//! The limit is BLAKE3 alone over the same bytes in one go: each byte is hashed once, and cutting comes
//! on top. It hashes many 1 KiB leaves at once, which a chunk of 64 KiB has as well. Text and noise must
//! not differ much, since the cut looks at every position.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use shared::chunk::Chunker;
use shared::hash::{ContentHash, PLAIN_BYTES_MAX};

const LONG_BYTES: usize = 64 * 1024 * 1024;
/// Content arrives from the disk in pieces of this length.
const PIECE_BYTES: usize = 256 * 1024;
const KINDS: [&str; 2] = ["text", "noise"];
const WORDS: [&str; 16] = [
    "the ",
    "tree ",
    "is ",
    "kept ",
    "equal ",
    "on ",
    "two ",
    "machines, ",
    "and ",
    "what ",
    "was ",
    "replaced ",
    "stays.\n",
    "# ",
    "- ",
    "notes/plan.md ",
];

/// Returns the same content for the same kind each time.
fn content(kind: &str, bytes: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        // xorshift64: Marsaglia, 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut content = Vec::with_capacity(bytes + 16);
    while content.len() < bytes {
        match kind {
            "text" => content.extend(WORDS[(next() >> 60) as usize].bytes()),
            _ => content.extend(next().to_le_bytes()),
        }
    }
    content.truncate(bytes);
    content
}

#[divan::bench(args = KINDS, sample_count = 10, sample_size = 1)]
fn chunk_and_hash_64_mib(bencher: Bencher<'_, '_>, kind: &str) {
    let content = content(kind, LONG_BYTES);
    bencher
        .counter(BytesCount::of_slice(&content))
        .bench_local(|| {
            let mut chunker = Chunker::default();
            black_box(&content)
                .chunks(PIECE_BYTES)
                .for_each(|piece| chunker.push(piece));
            chunker.finish().content()
        });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn limit_blake3_64_mib(bencher: Bencher<'_, '_>) {
    let content = content("noise", LONG_BYTES);
    bencher
        .counter(BytesCount::of_slice(&content))
        .bench_local(|| blake3::hash(black_box(&content)));
}

/// A note, and the longest content that is hashed as plain bytes.
#[divan::bench(args = [5 * 1024, PLAIN_BYTES_MAX as usize])]
fn hash_small(bencher: Bencher<'_, '_>, bytes: usize) {
    let content = content("text", bytes);
    bencher
        .counter(BytesCount::of_slice(&content))
        .bench_local(|| ContentHash::of_bytes(black_box(&content)));
}
