//! Merging on the way into the tree: the other side's version is staged, and what goes in is both.
//!
//! The operation says what stands at the path and what the other side has. When the two can be merged it
//! becomes an ordinary one that makes the result, with every check and every step of those.

use rustix::io::Errno;
use shared::merge::{How, append, content_of, text};
use shared::transfer::{Op, Source};
use shared::tree::Entry;

use crate::bases::read_bounded;
use crate::stage::{Ready, StagedState, discard, ready_name, stage_bytes};
use crate::trouble::trouble;
use crate::{Replica, handle};

/// What became of a merge.
pub(super) enum Merged {
    /// It is to be carried out like this.
    As(Op, StagedState),
    /// It cannot be done without a guess.
    Not,
}

/// What an edit that merges does.
pub(crate) enum Prepared {
    /// It makes this.
    Makes(Entry, StagedState),
    /// Nothing: the two cannot be merged.
    Not,
}

impl Replica {
    /// As [`Replica::merge`], for an edit.
    pub(crate) fn prepare_merge(&self, op: &Op, id: &str, ready: Ready) -> Prepared {
        match self.merge(op, id, ready) {
            Merged::As(
                Op {
                    make: Some(make), ..
                },
                staged,
            ) => Prepared::Makes(make, staged),
            Merged::As(..) | Merged::Not => Prepared::Not,
        }
    }

    /// Prepares a merge for which the other side's version is staged as `ready`.
    pub(super) fn merge(&self, op: &Op, id: &str, ready: Ready) -> Merged {
        let staged_name = ready_name(id);
        match self.try_merge(op, &staged_name) {
            Ok(Some((make, bytes))) => {
                let plain = |make| Op {
                    make: Some(make),
                    from: Source::Nothing,
                    ..op.clone()
                };
                if Some(&make) == op.make.as_ref() {
                    // All that this side wrote is in the other version.
                    return Merged::As(plain(make), StagedState::Ready(ready));
                }
                discard(&self.root, &staged_name);
                if Some(&make) == op.expect.as_ref() {
                    return Merged::As(plain(make), StagedState::Nothing);
                }
                let staged = stage_bytes(&self.root, id, &bytes, None);
                let state = match staged {
                    Ok(staged) => StagedState::Ready(Ready {
                        inode: staged.inode(),
                        ..ready
                    }),
                    Err(error) => StagedState::Held(trouble(&op.path, "merged", error)),
                };
                Merged::As(plain(make), state)
            }
            Ok(None) => {
                discard(&self.root, &staged_name);
                Merged::Not
            }
            // Somebody saved it again; the plan is made anew.
            Err(Errno::AGAIN) => {
                discard(&self.root, &staged_name);
                Merged::As(op.clone(), StagedState::Gone)
            }
            Err(error) => {
                discard(&self.root, &staged_name);
                let held = StagedState::Held(trouble(&op.path, "merged", error));
                Merged::As(op.clone(), held)
            }
        }
    }

    /// Returns what the merge makes, with its bytes. `None` when there is nothing that it could make.
    fn try_merge(&self, op: &Op, staged_name: &str) -> Result<Option<(Entry, Vec<u8>)>, Errno> {
        let errno = |error: std::io::Error| crate::read::errno(&error);
        let Source::Merge { base, how } = &op.from else {
            return Ok(None);
        };
        let (
            Some(Entry::File { content, len, exec }),
            Some(Entry::File {
                exec: their_exec, ..
            }),
        ) = (&op.expect, &op.make)
        else {
            return Ok(None);
        };
        let Some(ours) = self
            .read_expected(&op.path, *content, *len)
            .map_err(errno)?
        else {
            return Err(Errno::AGAIN);
        };
        let (mut staged, _) = handle::open_file(&self.root.stage, staged_name)?;
        let theirs = read_bounded(&mut staged).map_err(errno)?;
        let merged = match how {
            How::Lines => append(base.as_ref(), &ours, &theirs),
            How::Text => match base {
                Some(Entry::File { content, .. }) => self
                    .base(*content)
                    .and_then(|base| text(&base, &ours, &theirs)),
                _ => None,
            },
        };
        let base_exec = match base {
            Some(Entry::File { exec, .. }) => *exec,
            _ => false,
        };
        Ok(merged.map(|bytes| {
            let entry = Entry::File {
                content: content_of(&bytes),
                len: bytes.len() as u64,
                // Whichever side changed the bit counts.
                exec: if *exec == base_exec {
                    *their_exec
                } else {
                    *exec
                },
            };
            (entry, bytes)
        }))
    }
}
