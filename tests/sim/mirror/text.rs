//! Bytes for contents that have none: a content of the simulator is a hash and a length, and what lies
//! in the cloud is a short text that says both. So sums are real. A round is told that short length; the
//! tree keeps the long one.

use shared::hash::ContentHash;
use shared::tree::Entry;

use crate::user::len_of_content;

/// Length of the text of any content that is not empty.
const TEXT_BYTES: usize = 40;

/// Returns the bytes of a content.
pub(super) fn text_of(content: ContentHash, len: u64) -> Vec<u8> {
    if len == 0 {
        return Vec::new();
    }
    let mut text = content.as_bytes().to_vec();
    text.extend_from_slice(&len.to_le_bytes());
    text
}

/// Returns the content that bytes stand for.
pub(super) fn content_of(text: &[u8]) -> (ContentHash, u64) {
    match text.split_first_chunk::<32>() {
        Some((hash, len)) if text.len() == TEXT_BYTES => {
            let len = len.try_into().map_or(0, u64::from_le_bytes);
            (ContentHash::from_bytes(*hash), len)
        }
        // Nothing, or what somebody has made of the target of a link.
        _ => (ContentHash::of_bytes(text), text.len() as u64),
    }
}

/// Returns an entry as a round is told it.
pub(super) fn as_told(entry: &Entry) -> Entry {
    match entry {
        Entry::File { content, len, exec } if len_of_content(content) == Some(*len) => {
            Entry::File {
                content: *content,
                len: TEXT_BYTES as u64,
                exec: *exec,
            }
        }
        other => other.clone(),
    }
}

/// Returns an entry that a round was told as it stands in the tree.
pub(super) fn as_it_stands(entry: &Entry) -> Entry {
    match entry {
        Entry::File { content, len, exec } => Entry::File {
            content: *content,
            len: len_of_content(content).unwrap_or(*len),
            exec: *exec,
        },
        other => other.clone(),
    }
}
