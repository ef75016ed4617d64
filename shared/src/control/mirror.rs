//! What is asked of a mirror and said about it.

use serde::{Deserialize, Serialize};

use crate::utc::UtcMs;

/// The third copy, as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// The kind of place: `folder` or `drive`.
    pub target: String,
    /// Where it is, for people.
    pub place: String,
    /// In one word.
    pub state: MirrorState,
    /// How changes reach the other node now.
    pub road: Road,
    /// When it had all that it should have, on the clock of this node.
    pub last_push: Option<UtcMs>,
    /// When it was looked at last.
    pub last_look: Option<UtcMs>,
    /// Paths that are to be compared, written or taken, as far as known.
    pub waiting: u64,
    /// How long the oldest change has been waiting.
    pub lag_ms: u64,
    /// Paths that cannot be mirrored, each with its problem.
    pub held: u64,
    /// Files that were written there since the start.
    pub pushed: u64,
    /// Bytes in them.
    pub pushed_bytes: u64,
    /// Changes that came from there since the start.
    pub taken: u64,
    /// What it said when it refused, while it does.
    pub why: Option<String>,
}

/// The state of a mirror in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorState {
    /// The other node sees to it.
    #[default]
    Standby,
    /// It has not been looked at yet.
    Starting,
    /// It has what it should have, or is being brought there.
    Ok,
    /// It asks for less, or cannot be reached. It is tried again.
    Unreachable,
    /// Nobody has given consent, or it was withdrawn.
    NoConsent,
    /// It has no room.
    Full,
    /// Its folder is gone.
    NoFolder,
    /// It waits for a person, because much would be displaced.
    Halted,
    /// What this node knows of it cannot be kept.
    Broken,
}

/// How changes reach the other node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Road {
    /// By the link.
    Direct,
    /// By the mirror.
    Mirror,
    /// Not now.
    #[default]
    None,
}

/// What can be done about a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorAct {
    /// Bring it up to date, and answer when it is.
    Push,
    /// Compare the hash of every file.
    Verify,
}

/// The answer to [`MirrorAct::Push`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mirrored {
    /// Files and links that were written there.
    pub pushed: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Moves, folders, removals and marks there.
    pub changed: u64,
    /// Changes that were made here.
    pub taken: u64,
    /// Paths that are left, each with a problem in the status or on its way in the sync.
    pub left: u64,
}

/// The answer to [`MirrorAct::Verify`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MirrorVerified {
    /// Files that are the same in both.
    pub equal: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// What is not the same, a sentence each, the first [`super::PROBLEMS_MAX`].
    pub different: Vec<String>,
    /// How many are not the same.
    pub differences: u64,
}
