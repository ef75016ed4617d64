//! Planning: what makes both trees equal.
//!
//! [`reconcile`] is a pure function of the three trees. It looks at the paths it is asked about, at
//! the unsettled ones above and below them, and at nothing else, so its cost follows the change and
//! not the tree. The rules are those of the design, section 4: R0 to R4 in `walk.rs`, the table of
//! the four modes in `table.rs`, conflict copies in `conflict.rs`, what settings and people say in
//! `policy.rs` and `resolve.rs`. [`with_moves`] finds the renames in a plan.

mod conflict;
mod moves;
mod policy;
mod resolve;
mod table;
mod walk;

pub use conflict::{CopyOf, Naming, copy_name, copy_of};
pub use moves::with_moves;
pub use policy::{Answer, ConflictRules, Decision, Decisions, Keep, PatternRefused, Policy};
pub use resolve::{ResolveRefused, name_as_version, rename_copy, resolve_copy};
pub use table::{Mode, Verdict, leaf_verdict};
pub use walk::reconcile;

use std::collections::BTreeMap;

use crate::path::RelPath;
use crate::transfer::Op;
use crate::tree::{Entry, Obstacle, Side};

/// The changes that make both sides equal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The changes for each side, in the order in which they take effect.
    pub ops: Vec<(Side, Op)>,
    /// What the moves among them change, by their targets.
    pub moved: BTreeMap<RelPath, Vec<Op>>,
    /// Paths at which both sides are equal already: only the base moves.
    pub agree: Vec<(RelPath, Option<Entry>)>,
    /// Paths that have to wait.
    pub held: Vec<(RelPath, Hold)>,
    /// Paths that the mode leaves as they are, on the receiver's side only.
    pub untracked: Vec<RelPath>,
    /// Conflicts that are answered with a copy.
    pub conflicts: Vec<Conflict>,
    /// Paths that could not be decided because they depend on a busy one.
    pub undecided: Vec<RelPath>,
}

impl Plan {
    /// Says whether there is nothing to do.
    pub fn is_quiet(&self) -> bool {
        self.ops.is_empty() && self.agree.is_empty()
    }

    /// Returns the bytes of content that have to travel.
    pub fn bytes(&self) -> u64 {
        let lens = self
            .ops
            .iter()
            .filter_map(|(_, op)| op.wants())
            .map(|(_, entry)| entry.len());
        lens.fold(0, u64::saturating_add)
    }
}

/// Why a path has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// Something on this side cannot be synced.
    Obstacle(Side, Obstacle),
    /// The change would remove this, which cannot be synced or was not seen yet.
    InTheWay(Side, RelPath, Obstacle),
    /// The receiver changed what only the pusher may change; the mode does not decide.
    Conflict,
    /// Both sides changed it, and the settings leave it to a person.
    Undecided,
    /// No name could be found for a conflict copy: the path is too long.
    NoCopyName,
    /// This side's volume does not tell the name from that of this path, which stands there.
    Twin(Side, RelPath),
}

/// A conflict that is answered with a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The path that both sides changed.
    pub path: RelPath,
    /// Where the version that lost will lie, on both sides.
    pub copy: RelPath,
    /// The side whose version lost.
    pub lost: Side,
}

#[cfg(test)]
mod tests;
