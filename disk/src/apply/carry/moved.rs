//! Moves what stands at a path to another one, by one rename.
//!
//! Nothing is displaced, so nothing is kept, and whatever somebody writes into it meanwhile goes along.
//! For a directory, what lies in it is not touched: only its own name changes.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use shared::path::RelPath;
use shared::transfer::{Op, Outcome, Source, moved_ops};
use shared::tree::Entry;

use super::{End, Work};
use crate::apply::{Carried, Dirs, Job, Step};
use crate::error::DiskError;
use crate::fingerprint::{Fingerprint, SeenRow, now_ns};
use crate::seen::{Seen, Slot};
use crate::sqlite::guard::Guard;
use crate::stage::StagedState;
use crate::volume::{At, rename_new};
use crate::{Replica, handle};

/// A path of a move, with what was seen there.
#[derive(Debug, Clone)]
pub(crate) struct Moved {
    pub(crate) from: RelPath,
    pub(crate) to: RelPath,
    pub(crate) row: SeenRow,
}

/// Returns what a move is about, or `None` when something else was seen than what it wants to move. `before`
/// are the operations before it in its batch, which are not carried out yet.
pub(crate) fn standing(seen: &Seen, before: &[Op], op: &Op) -> Option<Vec<Moved>> {
    let (from, _) = op.moves()?;
    let goes = before.iter().filter(|op| op.make.is_none());
    let goes: BTreeSet<&RelPath> = goes.map(|op| &op.path).collect();
    let mut rows: Vec<(RelPath, SeenRow)> = Vec::new();
    let there = std::iter::once(from.clone()).chain(seen.below(from));
    for path in there.filter(|path| !goes.contains(path)) {
        let Some(Slot::Is(row)) = seen.get(&path) else {
            return None;
        };
        rows.push((path, row.clone()));
    }
    let entries: Vec<(RelPath, Entry)> = rows
        .iter()
        .map(|(path, row)| (path.clone(), row.entry.clone()))
        .collect();
    moved_ops(op, &entries)?;
    let moved = rows.into_iter().map(|(path, row)| {
        let to = path.rebase(from, &op.path).ok()?;
        Some(Moved {
            from: path,
            to,
            row,
        })
    });
    moved.collect()
}

impl Replica {
    /// Carries out a move.
    ///
    /// # Errors
    /// Only when a test stops it.
    pub(in crate::apply) fn carry_move(
        &self,
        job: &Job<'_>,
        dirs: &mut Dirs,
    ) -> Result<Carried, DiskError> {
        let ended = |outcome| Ok(Carried::ended(outcome));
        let (to, Some((from, _))) = (&job.op.path, job.op.moves()) else {
            return ended(Outcome::Gone);
        };
        let open = |path: &RelPath| handle::open_parent(self.root.as_fd(), path);
        let (from_dir, to_dir) = match open(from).and_then(|dir| Ok((dir, open(to)?))) {
            Ok(opened) => opened,
            Err(error) => return ended(Work::ended_by(job.op, error)),
        };
        let leaving = Op {
            path: from.clone(),
            expect: job.op.make.clone(),
            make: None,
            from: Source::Nothing,
            agrees: true,
        };
        let arriving = Some((&from_dir, from.name()));
        let guards = Guard::take(&leaving, &from_dir, None)
            .and_then(|leaves| Ok((leaves, Guard::take(job.op, &to_dir, arriving)?)));
        let guards = match guards {
            Ok(guards) => guards,
            Err(trouble) => return ended(Outcome::Held(trouble)),
        };
        guards.0.clear(&leaving, &from_dir);
        let leaving = Job {
            op: &leaving,
            id: job.id.clone(),
            staged: StagedState::Nothing,
            why: job.why,
            moved: Vec::new(),
        };
        let target = At::new(&to_dir, to.name());
        let mut work = Work::new(self, &leaving, None, &from_dir);
        let outcome = work.move_to(target)?;
        let mut carried = Carried::ended(outcome);
        if carried.outcome == Outcome::Done {
            carried.moved.clone_from(&job.moved);
            if let Some(top) = carried.moved.first_mut() {
                top.row = self.row_there(&top.row, &to_dir, to.name());
            }
        }
        dirs.touched(from.parent(), from_dir);
        dirs.touched(to.parent(), to_dir);
        Ok(carried)
    }

    /// Returns the row of something that was renamed, which changes its fingerprint.
    fn row_there(&self, row: &SeenRow, dir: &OwnedFd, name: &str) -> SeenRow {
        if row.entry.is_dir() {
            return row.clone();
        }
        let stat = handle::stat_at(dir, name).ok().flatten();
        let print = stat
            .filter(|stat| row.print.is_moved(stat))
            .map_or(Fingerprint::UNKNOWN, |stat| {
                Fingerprint::of(&stat, self.root.device)
            });
        SeenRow {
            entry: row.entry.clone(),
            racy: row.racy || print.is_racy(now_ns()),
            print,
        }
    }
}

impl Work<'_> {
    fn move_to(&mut self, to: At<'_>) -> Result<Outcome, DiskError> {
        self.replica.before(Step::StillIs)?;
        if let Err(end) = self.still_is() {
            return Ok(self.ended(end));
        }
        self.replica.before(Step::Move)?;
        if let Err(error) = rename_new(self.target(), to) {
            return Ok(self.ended(End::Error("moved", error)));
        }
        self.replica.before(Step::Moved)?;
        if self.is_what_was_checked(to) {
            return Ok(Outcome::Done);
        }
        // Somebody put another file there in that very moment.
        self.replica.before(Step::Undo)?;
        if let Err(error) = rename_new(to, self.target()) {
            tracing::warn!(path = %self.op.path, %error, "what was moved by mistake stays where it is now");
        }
        Ok(Outcome::Stale)
    }
}
