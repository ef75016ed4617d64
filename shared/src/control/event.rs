//! What happens, as it is told to whoever follows.

use serde::{Deserialize, Serialize};

use super::{Change, NodeSide, Problem};
use crate::path::RelPath;
use crate::utc::UtcMs;

/// Something that a person might want to see happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, on the clock of the node that tells it.
    pub at: UtcMs,
    /// What.
    pub what: Happening,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// A change became durable on both sides.
    Changed {
        /// The tree that changed.
        on: NodeSide,
        /// How.
        change: Change,
        /// The path.
        path: RelPath,
        /// Where it was before, when it was moved.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<RelPath>,
        /// Content length, in bytes.
        len: u64,
    },
    /// Both sides had changed a path.
    Conflict {
        /// The path.
        path: RelPath,
        /// Where the version that lost lies now.
        copy: RelPath,
    },
    /// A path has to wait.
    Held(Problem),
    /// The link is up.
    Linked {
        /// The other node.
        peer: String,
    },
    /// The link is down.
    Unlinked {
        /// Why.
        reason: String,
    },
    /// Everything is equal.
    Settled {
        /// Files in the tree.
        files: u64,
        /// Bytes in them.
        bytes: u64,
    },
    /// The whole sync stopped for a person.
    Halted(Problem),
    /// Somebody paused or resumed the pair.
    Paused(bool),
    /// Another side is primary than before.
    Primary {
        /// Which.
        side: NodeSide,
        /// The name of its node.
        node: String,
        /// The number of its lease.
        epoch: u64,
    },
}
