//! Reread: reads files again whose fingerprint says that nothing wrote to them.
//!
//! A disk can lose a bit, and a program can write without a trace in the times. So the whole tree is
//! read again once a day, a piece after each sweep, one file at a time. What has other bytes than it had,
//! with the same fingerprint, is *rot*: no edit, so it must not travel. It is reported as blocked
//! until the file is written anew or reads as before; its row, with the hash of the good content, stays.

use std::time::Duration;

use shared::path::RelPath;
use shared::tree::Entry;

use crate::fingerprint::{Fingerprint, SeenRow};
use crate::seen::{Seen, Slot};

/// In this time the whole tree is read.
const ROUND: Duration = Duration::from_secs(24 * 60 * 60);
/// What reading the shortest file counts as, in bytes: opening costs something, too.
const FILE_BYTES_MIN: u64 = 4096;
/// A file that was modified since may still be written through a memory mapping, which shows in its
/// times only when the system gets to it. What differs in it is taken for an edit.
const MAPPED_WRITES: Duration = Duration::from_secs(600);

/// Where the round is.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// The last path that was read; `None` at the beginning.
    after: Option<RelPath>,
    /// Bytes that may be read now. A long file is read as a whole, and the debt is paid by waiting.
    allowance: i128,
}

impl Round {
    /// Returns what to read next when `span` has passed since the last time.
    pub(crate) fn next(&mut self, seen: &Seen, span: Duration) -> Vec<RelPath> {
        let cost = |row: &SeenRow| i128::from(row.entry.len().max(FILE_BYTES_MIN));
        let whole: i128 = seen.files(None).map(|(_, row)| cost(row)).sum();
        let share = span.min(ROUND).as_millis() as i128;
        self.allowance += whole * share / ROUND.as_millis() as i128;
        // No path is read twice in one go.
        self.allowance = self.allowance.min(whole);
        let mut chosen = Vec::new();
        let start = self.after.clone();
        let rest = seen.files(start.as_ref());
        let again = seen.files(None).take_while(|(path, _)| {
            start
                .as_ref()
                .is_some_and(|start| path.as_str() <= start.as_str())
        });
        for (path, row) in rest.chain(again) {
            if self.allowance <= 0 {
                break;
            }
            self.allowance -= cost(row);
            chosen.push(path.clone());
        }
        self.after = chosen.last().cloned().or(start);
        chosen
    }
}

/// Says whether a reading shows rot: another content, although nothing wrote to the file since the row
/// was made.
pub(crate) fn is_rot(known: &SeenRow, read: &SeenRow, now_ns: i64) -> bool {
    let contents = match (&known.entry, &read.entry) {
        (Entry::File { content: was, .. }, Entry::File { content: is, .. }) => (was, is),
        _ => return false,
    };
    contents.0 != contents.1
        && is_unchanged(known, &read.print)
        && !read.print.is_modified_within(MAPPED_WRITES, now_ns)
}

/// Says whether a fingerprint says that the file was not written to since the row was made.
pub(crate) fn is_unchanged(known: &SeenRow, print: &Fingerprint) -> bool {
    matches!(known.entry, Entry::File { .. }) && known.print == *print && !known.racy
}

/// Returns the row of what is known about a path, also of a file that rots.
pub(crate) fn known(slot: Option<&Slot>) -> Option<&SeenRow> {
    match slot {
        Some(Slot::Is(row) | Slot::Rotten(row)) => Some(row),
        Some(Slot::Blocked { .. }) | None => None,
    }
}

#[cfg(test)]
mod tests;
