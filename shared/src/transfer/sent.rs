//! A batch as it travels: what both sides know is not said twice.
//!
//! The source of a content is mostly the path that it goes to. And of a file that is to be deleted the hash
//! would be most of what is sent: ten thousand of them are ten thousand hashes, which no compression
//! makes shorter. The taker knows the file, or it would not be deleted. So a deletion carries a sample of
//! the hash of what is expected, and the taker fills in what it has seen at the path if that fits, and
//! nothing otherwise, which makes the operation [`Outcome::Stale`] wherever something stands. That another state of the file
//! fits by chance happens once in four thousand million times that somebody writes to a file in the very moment
//! at which it is deleted on the other side; the file is kept then, as all that is displaced.

use serde::{Deserialize, Serialize};

use super::{BATCH_OPS_MAX, Batch, Op, Source};
use crate::hash::{ContentHash, SetHash};
use crate::limit;
use crate::merge::How;
use crate::path::RelPath;
use crate::tree::{Entry, Gen};

#[cfg(doc)]
use super::Outcome;

/// A [`Batch`] on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentBatch {
    number: Gen,
    #[serde(deserialize_with = "limit::list::<_, _, BATCH_OPS_MAX>")]
    ops: Vec<SentOp>,
    settles: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SentOp {
    path: RelPath,
    expect: Expected,
    make: Option<Entry>,
    from: SentSource,
    agrees: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Expected {
    Nothing,
    This(Entry),
    /// A file whose content has a hash that begins so, and its exec bit.
    File(Sample, bool),
}

type Sample = [u8; 4];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum SentSource {
    Nothing,
    /// `None` stands for the path of the operation.
    There(Option<RelPath>),
    Here(RelPath),
    Merge {
        base: Option<Entry>,
        how: How,
    },
    Moved {
        from: RelPath,
        tree: SetHash,
    },
}

impl SentBatch {
    /// Returns the batch, with what is not said from what the taker has seen at each path.
    pub fn resolve(self, seen: impl Fn(&RelPath) -> Option<Entry>) -> Batch {
        let Self {
            number,
            ops,
            settles,
        } = self;
        Batch {
            number,
            ops: ops.into_iter().map(|op| op.resolve(&seen)).collect(),
            settles,
        }
    }
}

impl From<Batch> for SentBatch {
    fn from(batch: Batch) -> Self {
        Self {
            number: batch.number,
            ops: batch.ops.into_iter().map(SentOp::from).collect(),
            settles: batch.settles,
        }
    }
}

impl SentOp {
    fn resolve(self, seen: impl Fn(&RelPath) -> Option<Entry>) -> Op {
        let expect = match self.expect {
            Expected::Nothing => None,
            Expected::This(entry) => Some(entry),
            Expected::File(wanted, bit) => seen(&self.path).filter(|entry| {
                matches!(entry, Entry::File { content, exec, .. }
                    if sample(*content) == wanted && *exec == bit)
            }),
        };
        let from = match self.from {
            SentSource::Nothing => Source::Nothing,
            SentSource::There(from) => Source::There(from.unwrap_or_else(|| self.path.clone())),
            SentSource::Here(from) => Source::Here(from),
            SentSource::Merge { base, how } => Source::Merge { base, how },
            SentSource::Moved { from, tree } => Source::Moved { from, tree },
        };
        Op {
            path: self.path,
            expect,
            make: self.make,
            from,
            agrees: self.agrees,
        }
    }
}

impl From<Op> for SentOp {
    fn from(op: Op) -> Self {
        let expect = match (op.expect, &op.make) {
            (None, _) => Expected::Nothing,
            (Some(Entry::File { content, exec, .. }), None) => {
                Expected::File(sample(content), exec)
            }
            (Some(entry), _) => Expected::This(entry),
        };
        let from = match op.from {
            Source::Nothing => SentSource::Nothing,
            Source::There(from) => SentSource::There((from != op.path).then_some(from)),
            Source::Here(from) => SentSource::Here(from),
            Source::Merge { base, how } => SentSource::Merge { base, how },
            Source::Moved { from, tree } => SentSource::Moved { from, tree },
        };
        Self {
            path: op.path,
            expect,
            make: op.make,
            from,
            agrees: op.agrees,
        }
    }
}

fn sample(content: ContentHash) -> Sample {
    let [a, b, c, d, ..] = *content.as_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a path")
    }

    fn file(text: &str, exec: bool) -> Entry {
        Entry::File {
            content: ContentHash::of_bytes(text.as_bytes()),
            len: text.len() as u64,
            exec,
        }
    }

    fn deletion(expect: Entry) -> Batch {
        Batch {
            number: Gen(7),
            ops: vec![Op {
                path: path("a"),
                expect: Some(expect),
                make: None,
                from: Source::Nothing,
                agrees: true,
            }],
            settles: None,
        }
    }

    #[test]
    fn a_deletion_expects_what_was_seen_if_that_is_what_was_planned() {
        let check = |planned: Entry, seen: Option<Entry>, expected: Option<Entry>| {
            let sent = SentBatch::from(deletion(planned.clone()));
            let resolved = sent.resolve(|at| seen.clone().filter(|_| *at == path("a")));
            assert_eq!(resolved.ops[0].expect, expected, "{planned:?} {seen:?}");
        };
        let (one, two) = (file("1", false), file("2", false));
        check(one.clone(), Some(one.clone()), Some(one.clone()));
        check(one.clone(), Some(two), None);
        check(one.clone(), Some(Entry::Dir), None);
        check(one.clone(), None, None);
        check(one, Some(file("1", true)), None);
        check(Entry::Dir, None, Some(Entry::Dir));
        let link = Entry::Symlink { target: "x".into() };
        check(link.clone(), None, Some(link));
    }

    #[test]
    fn a_deletion_is_short() {
        let bytes = postcard::to_stdvec(&SentBatch::from(deletion(file("1", false))));
        assert_eq!(bytes.expect("encoded").len(), 14);
    }
}
