//! Delta choice: in which form the content of a small file travels.
//!
//! A pure function of what the giver knows. The *base* of a delta is always what stands at the taker's
//! path, which the plan knows; the taker reads it from its tree, and checks it, so a delta costs no
//! question. Long files travel as chunks instead (`transfer`).

use serde::{Deserialize, Serialize};

use crate::hash::PLAIN_BYTES_MAX;

/// Longest content that is made from a base, and longest base, in bytes. Compression with a base as
/// prefix is at its best up to 256 KiB, and finds little in a base of several MiB.
pub const DELTA_BYTES_MAX: u64 = 1024 * 1024;

/// The form of one content in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// All of it.
    Whole,
    /// What follows the base, with which it begins.
    Tail,
    /// A zstd frame without its magic number, with the base as prefix.
    Patch,
}

/// What a giver knows about a content and its base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Length of the content, in bytes.
    pub len: u64,
    /// Length of the base, in bytes; `None` when the taker has no file there.
    pub base_len: Option<u64>,
    /// Whether the content begins with the base.
    pub is_append: bool,
    /// Whether the giver has the bytes of the base.
    pub has_base: bool,
}

/// Chooses the form of a content; `None` when it has to travel as chunks.
pub fn choose(known: Known) -> Option<Form> {
    let short = |len: u64| len <= DELTA_BYTES_MAX;
    match known
        .base_len
        .filter(|base| short(*base) && short(known.len))
    {
        Some(1..) if known.is_append => Some(Form::Tail),
        Some(1..) if known.has_base => Some(Form::Patch),
        _ => (known.len <= PLAIN_BYTES_MAX).then_some(Form::Whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case() {
        let small = PLAIN_BYTES_MAX;
        let check = |len, base_len, is_append, has_base, expected| {
            let known = Known {
                len,
                base_len,
                is_append,
                has_base,
            };
            assert_eq!(choose(known), expected, "{known:?}");
        };
        check(0, None, false, false, Some(Form::Whole));
        check(small, None, false, false, Some(Form::Whole));
        check(small + 1, None, false, false, None);
        check(5000, Some(4999), false, false, Some(Form::Whole));
        check(5000, Some(4999), false, true, Some(Form::Patch));
        check(5000, Some(4999), true, false, Some(Form::Tail));
        check(5000, Some(4999), true, true, Some(Form::Tail));
        // Everything begins with nothing.
        check(5000, Some(0), true, true, Some(Form::Whole));
        check(
            DELTA_BYTES_MAX,
            Some(DELTA_BYTES_MAX),
            false,
            true,
            Some(Form::Patch),
        );
        check(DELTA_BYTES_MAX + 1, Some(10), true, true, None);
        check(small + 1, Some(DELTA_BYTES_MAX + 1), true, true, None);
        check(
            small,
            Some(DELTA_BYTES_MAX + 1),
            true,
            true,
            Some(Form::Whole),
        );
        check(small + 1, Some(10), false, false, None);
    }
}
