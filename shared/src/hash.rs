//! Content hashes, and the set hash that proves two trees equal.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::path::RelPath;
use crate::tree::Entry;

/// Largest content that is hashed as plain bytes, so that `b3sum` agrees. Longer content is hashed
/// as a list of chunks.
pub const PLAIN_BYTES_MAX: u64 = 64 * 1024;

/// Key context of the chunk-list hash. It names the chunker's parameters: other cut points give
/// another hash, so a change of the chunker must change this text.
const CHUNKED_CONTEXT: &str =
    "layer-sync 2026-11 content v2: mincdc-hash4 32768..98304, sqlite 16384 or 65536";
const SET_CONTEXT: &str = "layer-sync 2026-11 tree set hash v1";

/// BLAKE3 of a file's content.
///
/// Up to [`PLAIN_BYTES_MAX`] it is the hash of the bytes. Above, it is the hash of the length and
/// of the hashes of the chunks ([`crate::chunk`]) under a key of its own, so that one pass over the
/// content gives both the chunks and the hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// Hashes content of at most [`PLAIN_BYTES_MAX`] bytes, or a single chunk of longer content.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Hashes content that is longer than [`PLAIN_BYTES_MAX`], from its chunks in order.
    pub fn of_chunks<'a>(len: u64, chunks: impl IntoIterator<Item = &'a ContentHash>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CHUNKED_CONTEXT);
        hasher.update(&len.to_le_bytes());
        for chunk in chunks {
            hasher.update(&chunk.0);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// Returns the hash as bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes a hash that was stored as bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the first eight hexadecimal digits, as they stand in names and logs.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for ContentHash {
    type Err = blake3::HexError;

    fn from_str(hex: &str) -> Result<Self, Self::Err> {
        blake3::Hash::from_hex(hex).map(|hash| Self(*hash.as_bytes()))
    }
}

/// An order-independent hash of a set of (path, entry): equal trees have equal set hashes, and one
/// change costs one addition whatever the size of the tree.
///
/// It is the sum, modulo 2^256, of the BLAKE3 hashes of the members (MSet-Add-Hash: Clarke,
/// Devadas, van Dijk, Gassend, Suh, ASIACRYPT 2003). It proves equality between two honest
/// machines; it is no defence against one that searches for a collision.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SetHash([u64; 4]);

impl SetHash {
    /// Adds a member that was not in the set.
    pub fn add(&mut self, path: &RelPath, entry: &Entry) {
        let mut carry = false;
        for (sum, word) in self.0.iter_mut().zip(member(path, entry)) {
            let (partial, over_a) = sum.overflowing_add(word);
            let (total, over_b) = partial.overflowing_add(u64::from(carry));
            (*sum, carry) = (total, over_a || over_b);
        }
    }

    /// Takes out a member that was in the set.
    pub fn remove(&mut self, path: &RelPath, entry: &Entry) {
        let mut borrow = false;
        for (sum, word) in self.0.iter_mut().zip(member(path, entry)) {
            let (partial, under_a) = sum.overflowing_sub(word);
            let (total, under_b) = partial.overflowing_sub(u64::from(borrow));
            (*sum, borrow) = (total, under_a || under_b);
        }
    }

    /// Returns enough of it to tell what is at hand from what is not.
    pub fn beginning(&self) -> u64 {
        self.0[0]
    }
}

fn member(path: &RelPath, entry: &Entry) -> [u64; 4] {
    let mut hasher = blake3::Hasher::new_derive_key(SET_CONTEXT);
    hasher.update(&(path.as_str().len() as u64).to_le_bytes());
    hasher.update(path.as_str().as_bytes());
    match entry {
        Entry::Dir => hasher.update(b"d"),
        Entry::File { content, len, exec } => hasher
            .update(if *exec { b"x" } else { b"f" })
            .update(&len.to_le_bytes())
            .update(content.as_bytes()),
        Entry::Symlink { target } => hasher.update(b"l").update(target.as_bytes()),
    };
    let hash = hasher.finalize();
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    }
    words
}

impl fmt::Display for SetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .rev()
            .try_for_each(|word| write!(f, "{word:016x}"))
    }
}

impl fmt::Debug for SetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetHash({self})")
    }
}

impl FromStr for SetHash {
    type Err = blake3::HexError;

    fn from_str(hex: &str) -> Result<Self, Self::Err> {
        let bytes = *blake3::Hash::from_hex(hex)?.as_bytes();
        let word = |index: usize| {
            bytes[index * 8..][..8]
                .iter()
                .fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        // The last word is written first.
        Ok(Self([word(3), word(2), word(1), word(0)]))
    }
}

/// People and their programs read hexadecimal digits; the wire and the index hold plain bytes.
macro_rules! hex_for_people {
    ($hash:ty, $plain:ty) => {
        impl Serialize for $hash {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() {
                    to.collect_str(self)
                } else {
                    self.0.serialize(to)
                }
            }
        }

        impl<'de> Deserialize<'de> for $hash {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    let hex = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                    hex.parse()
                        .map_err(|error| de::Error::custom(format!("hash {hex:?}: {error}")))
                } else {
                    <$plain>::deserialize(from).map(Self)
                }
            }
        }
    };
}

hex_for_people!(ContentHash, [u8; 32]);
hex_for_people!(SetHash, [u64; 4]);

#[cfg(test)]
mod tests;
