//! Gives back what was displaced and was not expected.

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use shared::tree::Entry;

use super::Work;
use crate::apply::Step;
use crate::error::DiskError;
use crate::kept::{Line, what_is};
use crate::volume::{exchange, rename_new};
use crate::{handle, utc_now};

/// How often a swap is undone against somebody who keeps replacing the file.
const UNDO_TRIES: usize = 3;

impl Work<'_> {
    /// Swaps back what came out. If the target is no longer ours, somebody replaced it after us: then
    /// theirs stays there, and what came out is kept.
    ///
    /// # Errors
    /// Only when a test stops it.
    pub(super) fn undo(&mut self) -> Result<(), DiskError> {
        for _ in 0..UNDO_TRIES {
            self.replica.before(Step::Undo)?;
            if !self.is_ours(self.target()) || exchange(self.staged(), self.target()).is_err() {
                break;
            }
            if self.is_ours(self.staged()) {
                return self.keep_ours();
            }
            self.replica.before(Step::Undo)?;
            // Between the two lines above the target was replaced; what came out now is the newest.
            // Give it back, and look again.
            if exchange(self.staged(), self.target()).is_err() {
                break;
            }
        }
        self.replica.before(Step::Undo)?;
        if rename_new(self.staged(), self.kept()).is_ok() {
            self.correct_line();
        }
        Ok(())
    }

    /// Keeps the staged file that stood at the path for a moment: somebody may have written into it, or
    /// may still hold it open to write.
    fn keep_ours(&mut self) -> Result<(), DiskError> {
        self.replica.before(Step::Undo)?;
        match &self.op.make {
            Some(Entry::File { .. }) if rename_new(self.staged(), self.kept()).is_ok() => {
                self.correct_line();
            }
            Some(Entry::Dir) => {
                let at = self.staged();
                let removed = unlinkat(at.dir, at.name, AtFlags::REMOVEDIR);
                // Somebody put something into it in that moment.
                if removed.is_err() && rename_new(at, self.kept()).is_ok() {
                    self.correct_line();
                }
            }
            _ => self.staged_is_ours = true,
        }
        Ok(())
    }

    /// Says in the catalogue what really was displaced.
    fn correct_line(&self) {
        let Ok(Some(stat)) = handle::stat_at(self.kept().dir, self.kept().name) else {
            return;
        };
        let Some(what) = what_is(self.kept(), &stat) else {
            return;
        };
        let line = Line {
            id: self.id.to_owned(),
            at: utc_now(),
            path: self.op.path.clone(),
            what,
            why: format!("{} while it was being written", self.why),
            node: self.replica.kept.node.clone(),
            staged: None,
        };
        if let Err(error) = self
            .replica
            .kept
            .append(&[line])
            .and_then(|()| self.replica.kept.sync())
        {
            tracing::warn!(path = %self.op.path, %error, "a kept version could not be described");
        }
    }

    /// Moves back what was withdrawn, unless something stands there by now.
    pub(super) fn put_back(&self) {
        match rename_new(self.kept(), self.target()) {
            Ok(()) => {}
            // It was linked: the path still has it, and the kept store need not.
            Err(Errno::EXIST) if self.same_file(self.kept(), self.target()) => {
                unlinkat(self.kept().dir, self.kept().name, AtFlags::empty()).ok();
            }
            // Something new stands at the path, or nothing can: both are there to be found.
            Err(_) => self.correct_line(),
        }
    }
}
