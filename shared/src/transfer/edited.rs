//! Edits of long files: what is sent of a list of chunks, and of a chunk, that the taker has nearly.
//!
//! Both sides know the chunks of what the file was, so a list travels as the difference to that list
//! ([`Piece`]). For a chunk that changed, the taker names the *blocks* of about 1 KiB of what it has in its
//! place ([`Old`]); the giver cuts the new bytes the same way, and sends only the blocks that the taker does
//! not have. One changed byte in 1 GiB costs one block.
//!
//! Names of blocks are 8 bytes of BLAKE3, and cuts depend on the content (MinCDC), as in rsync with its rolling
//! sum and in Mutagen. What is made of them is checked by the hash of the chunk.

use std::collections::{BTreeMap, VecDeque};

use mincdc::{MinCdcHash4, SliceChunker};
use serde::{Deserialize, Serialize};

use crate::chunk::{Chunk, Manifest};
use crate::hash::ContentHash;
use crate::limit;

/// Shortest block, in bytes; only the last one of a region may be shorter.
const BLOCK_BYTES_MIN: usize = 512;
/// Longest block, in bytes.
const BLOCK_BYTES_MAX: usize = 1536;
/// Most chunks in a run for which blocks are named.
pub const EDITED_CHUNKS_MAX: u32 = 4;
/// Longest region of which blocks are named, in bytes.
pub const REGION_BYTES_MAX: u64 = 512 * 1024;
/// Most blocks that are named for one run: those of [`REGION_BYTES_MAX`].
pub const BLOCKS_MAX: usize = 1 + REGION_BYTES_MAX as usize / BLOCK_BYTES_MIN;
/// Most runs of one file for which blocks are named: 128 KiB of names, as a rule.
pub const OLDS_MAX: usize = 256;

/// A part of a list of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// A chunk that the base does not have.
    New(Chunk),
    /// Consecutive chunks of the base.
    Kept {
        /// The number of the first.
        first: u32,
        /// How many.
        count: u32,
    },
}

/// Returns a list of chunks as the difference to the one of the base.
pub fn pieces(list: &Manifest, base: &Manifest) -> Vec<Piece> {
    let mut places: BTreeMap<ContentHash, u32> = BTreeMap::new();
    for (number, chunk) in (0..).zip(&base.chunks) {
        places.entry(chunk.hash).or_insert(number);
    }
    let mut pieces: Vec<Piece> = Vec::new();
    for chunk in &list.chunks {
        if let Some(Piece::Kept { first, count }) = pieces.last_mut() {
            let next = base.chunks.get((*first + *count) as usize);
            if next.is_some_and(|next| next.hash == chunk.hash) {
                *count += 1;
                continue;
            }
        }
        pieces.push(match places.get(&chunk.hash) {
            Some(first) => Piece::Kept {
                first: *first,
                count: 1,
            },
            None => Piece::New(*chunk),
        });
    }
    pieces
}

/// Returns the list of chunks that pieces make of that of the base; `None` when they name chunks that it
/// does not have, or more than `max` in all.
pub fn list_of(pieces: &[Piece], base: &Manifest, max: usize) -> Option<Vec<Chunk>> {
    let mut list = Vec::new();
    for piece in pieces {
        match piece {
            Piece::New(chunk) => list.push(*chunk),
            Piece::Kept { first, count } => {
                let end = first.checked_add(*count)?;
                list.extend_from_slice(base.chunks.get(*first as usize..end as usize)?);
            }
        }
        if list.len() > max {
            return None;
        }
    }
    Some(list)
}

/// What a taker has in the place of a run of chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Old {
    /// The number of the first chunk of the run.
    pub first: u32,
    /// The names of its blocks, in order.
    #[serde(deserialize_with = "limit::list::<_, _, BLOCKS_MAX>")]
    pub blocks: Vec<BlockName>,
}

/// The beginning of the hash of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockName([u8; 8]);

/// Cuts a region into blocks.
pub fn blocks(region: &[u8]) -> impl Iterator<Item = &[u8]> {
    let hash = MinCdcHash4::new();
    SliceChunker::new(region, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX, hash)
        .map(|block| &region[block.offset()..block.offset() + block.len()])
}

/// Returns the name of a block.
pub fn name_of(block: &[u8]) -> BlockName {
    let mut name = [0; 8];
    name.copy_from_slice(&ContentHash::of_bytes(block).as_bytes()[..8]);
    BlockName(name)
}

/// Consecutive blocks of what the taker has, and what stands before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockCopy {
    /// How many of the bytes that were sent stand before them.
    pub sent: u32,
    /// The number of the first block.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Returns the blocks of `old` that are in `new`, and the rest of `new`.
pub fn weave(old: &[BlockName], new: &[u8]) -> (Vec<BlockCopy>, Vec<u8>) {
    let mut places: BTreeMap<BlockName, VecDeque<u32>> = BTreeMap::new();
    for (number, name) in (0..).zip(old) {
        places.entry(*name).or_default().push_back(number);
    }
    let (mut copies, mut rest): (Vec<BlockCopy>, Vec<u8>) = (Vec::new(), Vec::new());
    let mut sent = 0;
    for block in blocks(new) {
        let name = name_of(block);
        if let Some(BlockCopy { first, count, .. }) = copies.last_mut()
            && sent == 0
            && old.get((*first + *count) as usize) == Some(&name)
        {
            *count += 1;
            continue;
        }
        match places.get(&name).and_then(VecDeque::front) {
            Some(first) => {
                let (first, count) = (*first, 1);
                copies.push(BlockCopy { sent, first, count });
                sent = 0;
            }
            None => {
                rest.extend_from_slice(block);
                sent += block.len() as u32;
            }
        }
    }
    (copies, rest)
}

/// Puts a region together again. `block` returns a block of what the taker has. `None` when it does not
/// come to `len` bytes.
pub fn unweave<'a>(
    copies: &[BlockCopy],
    sent: &[u8],
    len: usize,
    block: impl Fn(u32) -> Option<&'a [u8]>,
) -> Option<Vec<u8>> {
    let mut region = Vec::with_capacity(len);
    let mut at = 0;
    for copy in copies {
        let end = at + copy.sent as usize;
        region.extend_from_slice(sent.get(at..end)?);
        at = end;
        for number in copy.first..copy.first.checked_add(copy.count)? {
            region.extend_from_slice(block(number)?);
            if region.len() > len {
                return None;
            }
        }
    }
    region.extend_from_slice(&sent[at..]);
    (region.len() == len).then_some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    fn manifest(names: &str) -> Manifest {
        let chunk = |name: u8| Chunk {
            hash: ContentHash::of_bytes(&[name]),
            len: u32::from(name),
        };
        Manifest {
            chunks: names.bytes().map(chunk).collect(),
        }
    }

    #[test]
    fn a_list_is_its_difference_to_another_one() {
        let check = |base: &str, list: &str, expected: usize| {
            let (base, list) = (manifest(base), manifest(list));
            let pieces = pieces(&list, &base);
            assert_eq!(pieces.len(), expected, "{pieces:?}");
            assert_eq!(list_of(&pieces, &base, 99), Some(list.chunks.clone()));
            if !list.is_empty() {
                assert_eq!(list_of(&pieces, &base, list.chunks.len() - 1), None);
            }
        };
        check("abcdef", "abcdef", 1);
        check("abcdef", "abXdef", 3);
        check("abcdef", "Xabcdef", 2);
        check("abcdef", "defabc", 2);
        check("abcdef", "XYZ", 3);
        check("aaaa", "aaaaaa", 2);
        check("", "ab", 2);
        check("abc", "", 0);
    }

    #[test]
    fn pieces_that_name_what_is_not_there_make_nothing() {
        for (first, count) in [(3, 1), (0, 4), (u32::MAX, 1), (1, u32::MAX)] {
            let pieces = [Piece::Kept { first, count }];
            assert_eq!(list_of(&pieces, &manifest("abc"), 99), None);
        }
    }

    fn woven(old: &[u8], new: &[u8]) -> (usize, usize) {
        let cut: Vec<&[u8]> = blocks(old).collect();
        let names: Vec<BlockName> = cut.iter().map(|block| name_of(block)).collect();
        let (copies, sent) = weave(&names, new);
        let block = |number: u32| cut.get(number as usize).copied();
        let made = unweave(&copies, &sent, new.len(), block);
        assert_eq!(made.as_deref(), Some(new));
        (copies.len(), sent.len())
    }

    #[test]
    fn of_an_edit_few_blocks_are_sent() {
        let old = noise(64 * 1024);
        let mut changed = old.clone();
        changed[30_000] ^= 1;
        let (copies, sent) = woven(&old, &changed);
        assert!(
            copies == 2 && sent <= 2 * BLOCK_BYTES_MAX,
            "{copies} {sent}"
        );
        let longer = [&noise(100)[..], &old].concat();
        let (copies, sent) = woven(&old, &longer);
        assert!(
            copies <= 2 && sent <= 3 * BLOCK_BYTES_MAX,
            "{copies} {sent}"
        );
        assert_eq!(woven(&old, &old), (1, 0));
        assert_eq!(woven(&old, b""), (0, 0));
        assert_eq!(woven(b"", &old), (0, old.len()));
        woven(&[7; 20_000], &[7; 30_000]);
    }

    #[test]
    fn copies_that_do_not_add_up_make_nothing() {
        let block = |number: u32| (number < 3).then_some(b"block".as_slice());
        let copy = |sent, first, count| BlockCopy { sent, first, count };
        for (copies, len) in [
            (vec![copy(0, 3, 1)], 5),
            (vec![copy(0, 0, u32::MAX)], 5),
            (vec![copy(0, u32::MAX, 2)], 5),
            (vec![copy(9, 0, 1)], 14),
            (vec![copy(0, 0, 2)], 5),
            (vec![copy(0, 0, 1)], 99),
        ] {
            assert_eq!(unweave(&copies, b"", len, block), None, "{copies:?}");
        }
    }
}
