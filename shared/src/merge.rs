//! Merging what both sides wrote into one file, where a person allowed it.
//!
//! Two ways, chosen by name: append-only *lines* (JSONL and logs), and *text*, three-way by line. Either
//! gives up instead of guessing; then both versions stay, as in any conflict. Merging again what was
//! merged already changes nothing, so a crash between the two sides does no harm.

use crate::chunk::Chunker;
use crate::hash::{ContentHash, PLAIN_BYTES_MAX};
use crate::path::RelPath;
use crate::tree::Entry;
use serde::{Deserialize, Serialize};

/// Longest file that is merged, in bytes. Longer ones are conflicts.
pub const MERGE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How a file is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// Both sides only appended whole lines.
    Lines,
    /// Both sides changed lines, at different places.
    Text,
}

impl How {
    /// Returns how a file of this name is merged.
    pub fn of(path: &RelPath) -> Self {
        let lines = [".jsonl", ".ndjson", ".log"];
        if lines.iter().any(|end| path.name().ends_with(end)) {
            Self::Lines
        } else {
            Self::Text
        }
    }
}

/// Returns base + what α appended + what β appended, without β's lines that α has appended as well.
///
/// `None` when one of them did more than append, or when the base ends within a line.
pub fn append(base: Option<&Entry>, alpha: &[u8], beta: &[u8]) -> Option<Vec<u8>> {
    let (content, len) = match base {
        None => (ContentHash::of_bytes(b""), 0),
        Some(Entry::File { content, len, .. }) => (*content, usize::try_from(*len).ok()?),
        Some(_) => return None,
    };
    let begins_with_base = |bytes: &[u8]| {
        bytes
            .get(..len)
            .is_some_and(|head| content_of(head) == content)
    };
    if !begins_with_base(alpha) || !begins_with_base(beta) {
        return None;
    }
    if len > 0 && alpha[len - 1] != b'\n' {
        return None;
    }
    let mut merged = alpha.to_vec();
    let ours: std::collections::BTreeSet<&[u8]> = lines(&alpha[len..]).collect();
    for line in lines(&beta[len..]).filter(|line| !ours.contains(line)) {
        if merged.last().is_some_and(|last| *last != b'\n') {
            merged.push(b'\n');
        }
        merged.extend_from_slice(line);
        merged.push(b'\n');
    }
    Some(merged)
}

/// Merges by line what α and β made of `base`. `None` when they changed the same lines, or when one of
/// the three is not text.
pub fn text(base: &[u8], alpha: &[u8], beta: &[u8]) -> Option<Vec<u8>> {
    let [base, alpha, beta] = [base, alpha, beta].map(|bytes| std::str::from_utf8(bytes).ok());
    let (base, alpha, beta) = (base?, alpha?, beta?);
    diffy::merge(base, alpha, beta).ok().map(String::into_bytes)
}

/// Returns the hash of content that is in memory.
pub fn content_of(bytes: &[u8]) -> ContentHash {
    if bytes.len() as u64 <= PLAIN_BYTES_MAX {
        return ContentHash::of_bytes(bytes);
    }
    let mut chunker = Chunker::default();
    chunker.push(bytes);
    chunker.finish().content()
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests;
