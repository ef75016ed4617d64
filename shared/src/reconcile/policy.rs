//! What decides besides the trees: the mode, who is primary, what a person said.

use std::collections::BTreeMap;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::{Mode, Naming};
use crate::path::RelPath;
use crate::tree::{Entry, Side, Sight};

/// What decides besides the trees.
#[derive(Debug, Clone)]
pub struct Policy<'a> {
    /// Which changes travel, and who wins.
    pub mode: Mode,
    /// The side whose version keeps the path in a conflict: the current primary's.
    pub primary: Side,
    /// How conflict copies are named.
    pub naming: Naming,
    /// What becomes of a conflict, by name.
    pub conflicts: &'a ConflictRules,
    /// What a person, or a merge, decided.
    pub decisions: &'a Decisions,
    /// Whether the volumes of the pusher and of the receiver fold case or normalization. Needs
    /// [`crate::tree::Trees::mind_twins`].
    pub folds: [bool; 2],
}

/// What becomes of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The primary's version keeps the path, the other one becomes a copy beside it.
    Copy,
    /// Both stay as they are, until a person decides.
    Hold,
    /// Both are merged where that can be done without a guess; else as [`Answer::Copy`].
    Merge,
}

/// Names of files that a program opens by name and that no copy beside them can help.
const HOLD_BUILT_IN: &[&str] = &["*.db", "*.db3", "*.sqlite", "*.sqlite3"];

/// Which answer a conflict gets, by the name of the file.
#[derive(Debug, Clone)]
pub struct ConflictRules {
    copy: Gitignore,
    hold: Gitignore,
    merge: Gitignore,
    hold_built_in: Gitignore,
}

/// A pattern that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a pattern: {reason}")]
pub struct PatternRefused {
    /// As it was written.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

impl ConflictRules {
    /// Compiles patterns in gitignore syntax. `copy` counts before `hold`, and that before `merge`;
    /// databases are held if none of them says otherwise.
    ///
    /// # Errors
    /// The first pattern that does not parse.
    pub fn new<S: AsRef<str>>(copy: &[S], hold: &[S], merge: &[S]) -> Result<Self, PatternRefused> {
        Ok(Self {
            copy: compile(copy)?,
            hold: compile(hold)?,
            merge: compile(merge)?,
            hold_built_in: compile(HOLD_BUILT_IN)?,
        })
    }

    /// Returns what becomes of a conflict at `path`.
    pub fn answer(&self, path: &RelPath) -> Answer {
        let fits = |patterns: &Gitignore| {
            let matched = patterns.matched_path_or_any_parents(path.as_str(), false);
            matched.is_ignore()
        };
        if fits(&self.copy) {
            Answer::Copy
        } else if fits(&self.hold) {
            Answer::Hold
        } else if fits(&self.merge) {
            Answer::Merge
        } else if fits(&self.hold_built_in) {
            Answer::Hold
        } else {
            Answer::Copy
        }
    }
}

impl Default for ConflictRules {
    fn default() -> Self {
        Self::new::<&str>(&[], &[], &[]).unwrap_or_else(|_| unreachable!())
    }
}

fn compile(patterns: &[impl AsRef<str>]) -> Result<Gitignore, PatternRefused> {
    let mut builder = GitignoreBuilder::new("");
    for pattern in patterns {
        let pattern = pattern.as_ref();
        builder
            .add_line(None, pattern)
            .map_err(|error| PatternRefused {
                pattern: pattern.into(),
                reason: error.to_string(),
            })?;
    }
    builder.build().map_err(|error| PatternRefused {
        pattern: String::new(),
        reason: error.to_string(),
    })
}

/// Whose version counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// This side's; the other one gets it, and its own goes to the kept store.
    Side(Side),
    /// Both: the one that is not the primary's becomes a copy.
    Both,
}

/// What was decided about one path, for just what stood there then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What the pusher had.
    pub alpha: Sight,
    /// What the receiver had.
    pub beta: Sight,
    /// Whose version counts.
    pub keep: Keep,
}

/// Decisions by path. They count only while both sides are as they were.
#[derive(Debug, Clone, Default)]
pub struct Decisions(BTreeMap<RelPath, Decision>);

impl Decisions {
    /// Takes a decision; it replaces an earlier one.
    pub fn decide(&mut self, path: RelPath, decision: Decision) {
        self.0.insert(path, decision);
    }

    /// Forgets what was decided about a path.
    pub fn forget(&mut self, path: &RelPath) {
        self.0.remove(path);
    }

    /// Returns what was decided for just these two.
    pub fn keep(
        &self,
        path: &RelPath,
        alpha: Option<&Entry>,
        beta: Option<&Entry>,
    ) -> Option<Keep> {
        let decision = self.0.get(path)?;
        let fits = |then: &Sight, now: Option<&Entry>| match then {
            Sight::Blocked(_) => false,
            then => then.entry() == now,
        };
        (fits(&decision.alpha, alpha) && fits(&decision.beta, beta)).then_some(decision.keep)
    }
}
