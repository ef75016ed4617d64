//! One line of the journal: what happened, who wrote it, and a check that it is whole.
//!
//! A line is a JSON object. Its last field is `check`, the first eight digits of the BLAKE3 hash of the object without it: a line
//! without an end, or with another check, is a write that was cut off, and does not count. Kinds that are not known are passed over, so
//! that a node of an older version reads what a newer one wrote.

use serde::{Deserialize, Serialize};
use shared::control::Person;
use shared::hash::ContentHash;
use shared::utc::UtcMs;

use crate::heard::Heard;
use crate::say::Say;

/// The version of the line.
const VERSION: u8 = 1;
/// Longest line that is read, in bytes. A longer one is none of ours.
pub(crate) const LINE_BYTES_MAX: usize = 256 * 1024;
/// Digits of the check.
const CHECK_DIGITS: usize = 8;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    v: u8,
    /// The lease under which it was written, or the last one that was known.
    pub(crate) epoch: u64,
    /// Counts up in each node.
    pub(crate) seq: u64,
    /// On the clock of the node that wrote it.
    pub(crate) at: UtcMs,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum What {
    /// A node begins to act. It says who may speak, so that older files can go.
    Began {
        /// Who begins.
        node: String,
        /// Who may speak with the bot, and since which line.
        people: Vec<Known>,
    },
    /// Somebody wrote, or pressed a button.
    Received(Heard),
    /// What was asked changes something, and that begins now. It is not begun twice.
    Begun {
        /// [`Heard::key`].
        key: String,
    },
    /// It is done; this is to be said.
    Answered {
        /// [`Heard::key`].
        key: String,
        /// May be nothing.
        says: Vec<Say>,
    },
    /// Something is to be said that nobody asked for.
    Pushed {
        /// What it is about, so that it is said once; nothing for what is said each time.
        about: Vec<String>,
        /// The words.
        say: Say,
    },
    /// What it was about is over, so it may be said again.
    Cleared {
        /// As in [`What::Pushed`].
        about: String,
    },
    /// These are being sent now, as one message.
    Claimed {
        /// [`Say::id`].
        ids: Vec<String>,
        /// From 1.
        attempt: u32,
    },
    /// They were not sent, for certain, and will be.
    Returned {
        /// [`Say::id`].
        ids: Vec<String>,
    },
    /// They were sent.
    Sent {
        /// [`Say::id`].
        ids: Vec<String>,
        /// Number of the message in its chat.
        message: i64,
    },
    /// They will not be sent.
    Failed {
        /// [`Say::id`].
        ids: Vec<String>,
        /// One sentence.
        why: String,
    },
    /// Who may speak with the bot has changed.
    Allowed {
        /// Who.
        person: Person,
    },
    /// Somebody may not any more.
    Denied {
        /// Their number.
        user: i64,
    },
    /// A pairing code was made.
    Offered {
        /// Hash of the code.
        hash: String,
        /// When it ends.
        until: UtcMs,
    },
    /// Somebody tried a code that is not it.
    Missed {
        /// Hash of the code that was offered.
        hash: String,
    },
    /// A stranger was told so.
    Refused {
        /// Their number.
        user: i64,
    },
    /// An update could not be read.
    Quarantined {
        /// Its number.
        update: i64,
        /// Why.
        why: String,
        /// The beginning of it.
        raw: String,
    },
    /// A kind of a later version.
    #[serde(other)]
    Unknown,
}

/// Somebody who may or may not speak, and the line that says so: the later one counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) person: Person,
    pub(crate) allowed: bool,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
}

impl Record {
    pub(crate) fn new(epoch: u64, seq: u64, at: UtcMs, what: What) -> Self {
        Self {
            v: VERSION,
            epoch,
            seq,
            at,
            what,
        }
    }

    /// Writes the line, with its end.
    pub(crate) fn line(&self) -> String {
        let mut line = shared::control::to_json(self);
        let check = check(&line);
        line.truncate(line.len() - 1);
        line + &format!(",\"check\":\"{check}\"}}\n")
    }

    /// Reads a line without its end; `None` when it is not whole.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let (body, tail) = line.rsplit_once(",\"check\":\"")?;
        let body = format!("{body}}}");
        let found = tail.strip_suffix("\"}")?;
        (found == check(&body)).then(|| serde_json::from_str(&body).ok())?
    }
}

fn check(body: &str) -> String {
    let mut digits = ContentHash::of_bytes(body.as_bytes()).to_string();
    digits.truncate(CHECK_DIGITS);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let key = "7:m:1:2:0".to_owned();
        Record::new(42, 7, UtcMs(1_795_382_045_000), What::Begun { key })
    }

    /// Journals outlive versions of the program.
    #[test]
    fn a_line_is_as_it_always_was() {
        let line = r#"{"v":1,"epoch":42,"seq":7,"at":1795382045000,"kind":"begun","key":"7:m:1:2:0","check":"CHECK"}"#;
        let written = record().line();
        let check = &written[written.len() - 11..written.len() - 3];
        assert_eq!(written, line.replace("CHECK", check) + "\n");
        assert_eq!(Record::parse(written.trim_end().as_bytes()), Some(record()));
    }

    #[test]
    fn a_line_that_is_not_whole_does_not_count() {
        let line = record().line();
        let line = line.trim_end().as_bytes();
        for end in 0..line.len() {
            assert_eq!(Record::parse(&line[..end]), None, "cut at {end}");
        }
        for at in 0..line.len() {
            let mut other = line.to_vec();
            other[at] ^= 1;
            assert_eq!(Record::parse(&other), None, "bit of byte {at}");
        }
    }

    #[test]
    fn what_a_later_version_writes_is_passed_over() {
        let body = r#"{"v":1,"epoch":1,"seq":2,"at":3,"kind":"sang","song":{"a":[1]}}"#;
        let line = format!(
            "{},\"check\":\"{}\"}}",
            &body[..body.len() - 1],
            check(body)
        );
        let read = Record::parse(line.as_bytes()).expect("it is whole");
        assert_eq!(read.what, What::Unknown);
    }
}
