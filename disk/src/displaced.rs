//! Displaced files that still grow.
//!
//! A program that had a file open when it was replaced or deleted goes on writing into what is the kept
//! version by now, where nobody would look for it. So each file that was displaced is looked at after
//! 5 s, 60 s and 10 minutes. If it was written to, its content comes back into the tree as a conflict
//! copy beside its path, which is an edit made here and travels like any other. If it still grows at the
//! last check, it is checked on every 10 minutes until it rests; the copy follows it, as long as nobody
//! else changes the copy.
//!
//! After a restart the catalogue says what was displaced within the last 10 minutes.

use std::collections::BTreeMap;
use std::io;
use std::sync::PoisonError;
use std::time::Duration;

use rustix::fs::Stat;
use shared::path::RelPath;
use shared::reconcile::copy_name;
use shared::transfer::Outcome;
use shared::tree::Entry;
use shared::utc::UtcMs;

use crate::edit::Edit;
use crate::kept::{Kept, Line, What, new_id};
use crate::root::Root;
use crate::stage::{StagedState, discard, ready_name};
use crate::{Replica, fingerprint, handle, lock, utc_now};

/// When a displaced file is checked, from when it was displaced.
const CHECKS: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(60), LAST_CHECK];
const LAST_CHECK: Duration = Duration::from_secs(600);
/// A modification time this long before a file was displaced is no sign of a later writer.
const CLOCK_COARSENESS_MS: u64 = 2000;

/// What tells without reading that nobody wrote to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rested {
    len: u64,
    mtime_ns: i64,
}

impl Rested {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            len: fingerprint::len(stat),
            mtime_ns: fingerprint::mtime_ns(stat),
        }
    }
}

/// The displaced files that are watched, by when they are due.
#[derive(Debug, Default)]
pub(crate) struct Watch(BTreeMap<(UtcMs, String), Watched>);

#[derive(Debug)]
struct Watched {
    at: UtcMs,
    /// Which of [`CHECKS`] comes next.
    check: usize,
    /// What it was; `None` when only reading can tell.
    rested: Option<Rested>,
    /// The copy that was made of it.
    copy: Option<(RelPath, Entry)>,
}

impl Watch {
    /// Starts with what was displaced shortly before a restart.
    pub(crate) fn resumed(root: &Root, kept: &Kept, now: UtcMs) -> io::Result<Self> {
        let mut watch = Self::default();
        for line in kept.since(later(now, LAST_CHECK, false))? {
            let What::File { len, .. } = line.what else {
                continue;
            };
            let Some(stat) = handle::stat_at(&root.kept, line.id.as_str())? else {
                continue;
            };
            let rested = Rested::of(&stat);
            let modified_ms = rested.mtime_ns.div_euclid(1_000_000);
            let before = line.at.0.saturating_sub(CLOCK_COARSENESS_MS);
            let is_clear = rested.len == len && i128::from(modified_ms) < i128::from(before);
            let due = |check: &Duration| later(line.at, *check, true) > now;
            let check = CHECKS.iter().position(due).unwrap_or(CHECKS.len() - 1);
            watch.put(
                line.id,
                Watched {
                    at: line.at,
                    check,
                    rested: is_clear.then_some(rested),
                    copy: None,
                },
                now,
            );
        }
        Ok(watch)
    }

    /// Watches what was displaced at `at`.
    pub(crate) fn watch(&mut self, id: String, rested: Rested, at: UtcMs) {
        let watched = Watched {
            at,
            check: 0,
            rested: Some(rested),
            copy: None,
        };
        self.put(id, watched, at);
    }

    fn put(&mut self, id: String, watched: Watched, now: UtcMs) {
        let due = later(watched.at, CHECKS[watched.check], true);
        // Beyond the checks: it grew at the last one.
        let due = if due > now {
            due
        } else {
            later(now, LAST_CHECK, true)
        };
        self.0.insert((due, id), watched);
    }

    fn take_due(&mut self, now: UtcMs) -> Vec<(String, Watched)> {
        let mut due = Vec::new();
        while let Some(entry) = self.0.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, id), watched) = entry.remove_entry();
            due.push((id, watched));
        }
        due
    }
}

fn later(time: UtcMs, span: Duration, forward: bool) -> UtcMs {
    let span = span.as_millis() as u64;
    UtcMs(if forward {
        time.0.saturating_add(span)
    } else {
        time.0.saturating_sub(span)
    })
}

impl Replica {
    /// Returns when [`Replica::check_displaced`] wants to be called next.
    pub fn next_displaced_check(&self) -> Option<UtcMs> {
        lock(&self.displaced)
            .0
            .first_key_value()
            .map(|(key, _)| key.0)
    }

    /// Checks the displaced files that are due at `now`, and brings what was written to them since into
    /// the tree. Returns the paths of the copies; they are reported as observed.
    ///
    /// # Errors
    /// When the kept store cannot be read. What was not checked is checked later.
    pub fn check_displaced(&self, now: UtcMs) -> io::Result<Vec<RelPath>> {
        let due = lock(&self.displaced).take_due(now);
        let mut grown = Vec::new();
        for (id, mut watched) in due {
            let stat = match handle::stat_at(&self.root.kept, id.as_str()) {
                Ok(Some(stat)) => stat,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(id, %error, "a displaced file cannot be looked at");
                    lock(&self.displaced).put(id, watched, now);
                    continue;
                }
            };
            let rested = Rested::of(&stat);
            if watched.rested == Some(rested) {
                self.check_again(id, watched, now);
            } else {
                // From before it is read: what is written meanwhile shows at the next check.
                watched.rested = Some(rested);
                grown.push((id, watched));
            }
        }
        if grown.is_empty() {
            return Ok(Vec::new());
        }
        let mut lines: BTreeMap<String, Line> = match self.kept.lines() {
            Ok(lines) => lines.into_iter().map(|l| (l.id.clone(), l)).collect(),
            Err(error) => {
                for (id, watched) in grown {
                    self.check_unread(id, watched, now);
                }
                return Err(error);
            }
        };
        let mut copies = Vec::new();
        for (id, mut watched) in grown {
            let Some(line) = lines.remove(&id) else {
                continue;
            };
            match self.surface(&line, &mut watched) {
                Ok(Some(copy)) => {
                    copies.push(copy);
                    // It may grow on: the last check is repeated until it rests.
                    lock(&self.displaced).put(id, advanced(watched), now);
                }
                Ok(None) => self.check_again(id, watched, now),
                Err(error) => {
                    tracing::warn!(path = %line.path, %error,
                        "what was written to a displaced file could not be brought back yet");
                    self.check_unread(id, watched, now);
                }
            }
        }
        Ok(copies)
    }

    /// Has a file that rests checked again, unless this was the last time.
    fn check_again(&self, id: String, watched: Watched, now: UtcMs) {
        if watched.check + 1 < CHECKS.len() {
            lock(&self.displaced).put(id, advanced(watched), now);
        }
    }

    /// Has a file checked again of which it is not known what it holds.
    fn check_unread(&self, id: String, watched: Watched, now: UtcMs) {
        let watched = Watched {
            rested: None,
            ..advanced(watched)
        };
        lock(&self.displaced).put(id, watched, now);
    }

    /// Makes, or renews, the copy of what was written to a displaced file; `None` when it holds what it
    /// held when it was displaced.
    fn surface(&self, line: &Line, watched: &mut Watched) -> io::Result<Option<RelPath>> {
        let _alone = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        // Twice: the copy of before may have been changed by somebody. Then it is theirs.
        for before in [watched.copy.take(), None] {
            let id = new_id(utc_now());
            let (make, ready) = self.with_room(line.len(), || self.stage_version(&id, line))?;
            let written = What::from(&make);
            if written == line.what {
                discard(&self.root, &ready_name(&id));
                watched.copy = before;
                return Ok(None);
            }
            let node = &self.kept.node;
            let (path, expect) = match before {
                Some((path, entry)) => (path, Some(entry)),
                None => match copy_name(&line.path, node, utc_now(), &make.identity().short()) {
                    Some(path) => (path, None),
                    None => {
                        discard(&self.root, &ready_name(&id));
                        return Err(io::Error::other(
                            "its path leaves no room for a copy's name",
                        ));
                    }
                },
            };
            let again = expect.is_some();
            let edit = Edit {
                id,
                path: path.clone(),
                expect,
                make: Some(make.clone()),
                staged: StagedState::Ready(ready),
                why: "replaced by a later state of it",
                step: None,
            };
            let outcome = self.make_edits(vec![edit]).map_err(io::Error::other)?.pop();
            match outcome {
                Some(Outcome::Done) => {
                    let found = Line {
                        what: written,
                        why: "written after it was replaced".to_owned(),
                        ..line.clone()
                    };
                    self.kept.append(&[found])?;
                    self.kept.sync()?;
                    tracing::warn!(path = %line.path, copy = %path,
                        "a program wrote to a file after it was replaced; a copy was made");
                    watched.copy = Some((path.clone(), make));
                    return Ok(Some(path));
                }
                Some(Outcome::Held(trouble)) => return Err(io::Error::other(trouble.text)),
                _ if again => {}
                _ => return Err(io::Error::other("something stands at the copy's path")),
            }
        }
        Ok(None)
    }
}

fn advanced(watched: Watched) -> Watched {
    Watched {
        check: (watched.check + 1).min(CHECKS.len() - 1),
        ..watched
    }
}

#[cfg(test)]
mod tests;
