//! The control vocabulary: what a client may ask a running daemon, and what it answers.
//!
//! The control socket carries one JSON object a line. The same requests travel to the other machine
//! when only that one can answer. Fields are only ever added ([`SCHEMA`]).

mod bot;
mod event;
mod mirror;

use serde::{Deserialize, Serialize};

use crate::hash::{ContentHash, SetHash};
use crate::ignore::{RULES_FILE, RulesRefused};
use crate::limit;
use crate::path::RelPath;
use crate::transfer::{Op, Source, TEXT_BYTES_MAX};
use crate::tree::{Entry, Side};
use crate::utc::UtcMs;

pub use bot::{BotAct, BotState, BotStatus, Person};
pub use event::{Event, Happening};
pub use mirror::{MirrorAct, MirrorState, MirrorStatus, MirrorVerified, Mirrored, Road};

/// The version of what [`Status`] looks like.
pub const SCHEMA: u32 = 1;
/// Most problems that a status lists; the counts are always complete.
pub const PROBLEMS_MAX: usize = 100;
/// Longest [`Problem::code`], in bytes.
pub const CODE_BYTES_MAX: usize = 64;
/// Longest line on the control socket, in bytes.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// How are you?
    Status,
    /// Answer when everything changed before now is durable on both sides.
    Flush,
    /// How much of a file is durable on both sides? Answered at once, from memory: for who waits for one file, and not for all.
    Agreed(RelPath),
    /// What would the next cycle do?
    Plan,
    /// State, reason, remedy and history of one path.
    Why(RelPath),
    /// The conflicts that nobody resolved yet.
    Conflicts,
    /// Earlier versions of a path and of what is below it.
    Versions {
        /// The path, also one that was deleted.
        path: RelPath,
        /// Whether to ask the other machine as well.
        both: bool,
        /// Instead of all: what a restore of the folder means, in pages.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        below: Option<Below>,
    },
    /// Put an earlier version back, or a whole folder.
    Restore {
        /// The path of a file or of a folder.
        path: RelPath,
        /// Which version.
        pick: Pick,
    },
    /// Stop changing either tree until [`Request::Resume`].
    Pause,
    /// Go on.
    Resume,
    /// Look at both trees and compare.
    Verify,
    /// Read both trees from beginning to end and compare.
    VerifyDeep,
    /// Decide a conflict.
    Resolve {
        /// The path that both sides changed, or the copy of it.
        path: RelPath,
        /// Whose version counts.
        keep: Keep,
    },
    /// Let a batch that the guard halted pass.
    Confirm {
        /// The batch, as the problem names it; `root` accepts this node's folder as it is now.
        batch: String,
        /// Whether to bring back instead what the batch would displace.
        undo: bool,
    },
    /// Let a side have the role.
    Promote {
        /// Which.
        to: NodeSide,
        /// Whether without asking the other side, which is out of reach and does not act.
        force: bool,
    },
    /// Do something to a duty of this node.
    Duty {
        /// Which, as [`DutyStatus::name`] says it.
        name: String,
        /// What.
        act: DutyAct,
    },
    /// Do something about the bot of this node.
    Bot(BotAct),
    /// Do something about the mirror.
    Mirror(MirrorAct),
    /// Where is the dashboard?
    Web,
    /// Send every [`Event`] from now on, one a line, until the client hangs up.
    Events,
    /// Make a one-time pairing code for an address that the receiver can reach; empty for the one
    /// in the settings.
    Pair(String),
    /// Have the other node answer this.
    Peer(Box<Request>),
}

/// Writes what travels on the control socket and between the two machines as JSON.
///
/// Everything in this module is plain data with text keys, which JSON can always express.
pub fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Whose version counts in a conflict, seen from the node that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// That of this node.
    Mine,
    /// That of the other node.
    Theirs,
    /// Both.
    Both,
}

impl Keep {
    /// Returns the same wish, seen from the other node.
    #[must_use]
    pub fn from_there(self) -> Self {
        match self {
            Self::Mine => Self::Theirs,
            Self::Theirs => Self::Mine,
            Self::Both => Self::Both,
        }
    }
}

/// Which version to restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// The one that was displaced last.
    Latest,
    /// What stood there at this time.
    At(UtcMs),
    /// The one of this name, as `versions` lists it.
    Version(String),
    /// Those of these names, each at its own path below a folder; [`EACH_MAX`] at most.
    Each(Vec<String>),
}

/// Most versions that one [`Pick::Each`] names.
pub const EACH_MAX: usize = 1000;
/// Most versions that an answer lists; of more, the latest.
pub const VERSIONS_MAX: usize = 5000;

/// Asks for what a restore of a folder means: one version of each path below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Below {
    /// Which versions. With [`Pick::Latest`] only those of paths at which nothing stands.
    pub pick: Pick,
    /// The last path of the page before; `None` for the first of up to [`VERSIONS_MAX`].
    pub after: Option<RelPath>,
}

/// What a daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Flush`] and [`Request::Verify`].
    Compared(Compared),
    /// To [`Request::Agreed`]: the length of the file that both sides agreed on last, in bytes; `None` for none.
    Agreed(Option<u64>),
    /// To [`Request::Plan`].
    Plan(PlanView),
    /// To [`Request::Why`].
    Why(Why),
    /// To [`Request::Conflicts`].
    Conflicts(Vec<ConflictView>),
    /// To [`Request::Versions`].
    Versions(Vec<Version>),
    /// To [`Request::Restore`].
    Restored(Restored),
    /// To [`Request::Restore`] of a folder.
    RestoredBelow(RestoredBelow),
    /// To [`Request::Pause`] and [`Request::Resume`]: whether the pair is paused now.
    Paused(bool),
    /// To [`Request::Events`], many.
    Event(Event),
    /// To [`Request::Resolve`], [`Request::Confirm`] and [`Request::Duty`]: what is going to happen now, one sentence.
    Decided(String),
    /// To [`Request::Promote`], when that side has it: its epoch.
    Promoted(u64),
    /// To [`Request::Pair`] and [`BotAct::Pair`]: the code.
    Code(String),
    /// To [`BotAct::People`].
    People(Vec<Person>),
    /// To [`MirrorAct::Push`].
    Mirrored(Mirrored),
    /// To [`MirrorAct::Verify`].
    MirrorVerified(MirrorVerified),
    /// To [`Request::Web`]: its address, with the key that lets somebody in.
    Web(String),
    /// The request cannot be served.
    Refused(Refused),
}

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The exit code of the command.
    pub exit: u8,
    /// What happened.
    pub text: String,
    /// What to do next; empty when there is nothing.
    pub fix: String,
}

/// The exit codes of the command.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// Any error that has no code of its own.
    pub const ERROR: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// No daemon is running.
    pub const NOT_RUNNING: u8 = 3;
    /// Conflicts or held paths.
    pub const DEGRADED: u8 = 4;
    /// Down or halted: a person is needed.
    pub const HALTED: u8 = 5;
    /// At daemon start: the command line or the home is not usable so.
    pub const DAEMON_USAGE: u8 = 64;
    /// At daemon start: rights.
    pub const DAEMON_PERMISSION: u8 = 77;
    /// At daemon start: the configuration.
    pub const DAEMON_CONFIG: u8 = 78;
}

/// How a node is. `state` is the worst of what `problems` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The whole in one word.
    pub state: Health,
    /// When this was written, on the clock of the node.
    pub now: UtcMs,
    /// What is wrong, the worst first.
    pub problems: Vec<Problem>,
    /// This node.
    pub node: NodeStatus,
    /// Who is primary.
    pub lease: LeaseStatus,
    /// The other one.
    pub peer: PeerStatus,
    /// The trees.
    pub sync: SyncStatus,
    /// What the node keeps running.
    #[serde(default)]
    pub duties: Vec<DutyStatus>,
    /// The third copy; `None` when there is none.
    #[serde(default)]
    pub mirror: Option<MirrorStatus>,
    /// The bot; `None` when no token is set.
    #[serde(default)]
    pub bot: Option<BotStatus>,
    /// The process.
    #[serde(rename = "self")]
    pub process: ProcessStatus,
}

/// The whole in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Everything is as promised.
    Healthy,
    /// It works, and something is weaker than promised.
    Degraded,
    /// Some paths wait for something.
    Held,
    /// The whole sync waits for a person.
    Halted,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Starts with its state: `halted.`, `held.` or `degraded.`.
    #[serde(deserialize_with = "limit::text::<_, CODE_BYTES_MAX>")]
    pub code: String,
    /// How bad it is.
    pub severity: Health,
    /// The path, if it is about one.
    pub path: Option<String>,
    /// What is wrong, one sentence.
    #[serde(deserialize_with = "limit::text::<_, TEXT_BYTES_MAX>")]
    pub text: String,
    /// The command or the act that helps.
    #[serde(deserialize_with = "limit::text::<_, TEXT_BYTES_MAX>")]
    pub fix: String,
}

impl Problem {
    /// Says that a rules' file is refused, and that the rules before it stay in force.
    pub fn of_rules(refused: &RulesRefused) -> Self {
        Self {
            code: "degraded.ignore".into(),
            severity: Health::Degraded,
            path: Some(RULES_FILE.into()),
            text: format!("{refused}; the rules before it stay in force"),
            fix: format!("correct {RULES_FILE}"),
        }
    }
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub id: String,
    /// Its side of the pair.
    pub side: NodeSide,
    /// Whether the bot runs here.
    pub role: Role,
    /// Number of the last lease that this node knows of.
    pub epoch: u64,
    /// Version of the program.
    pub version: String,
    /// The root of its tree.
    pub root: String,
}

/// A side of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeSide {
    /// The one that listens and plans.
    Pusher,
    /// The one that dials and reports.
    Receiver,
}

impl NodeSide {
    /// Returns the name of the side.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pusher => "pusher",
            Self::Receiver => "receiver",
        }
    }

    /// Returns which of the two trees this side has.
    pub fn tree(self) -> Side {
        match self {
            Self::Pusher => Side::Alpha,
            Self::Receiver => Side::Beta,
        }
    }
}

/// Who runs the bot now, seen from a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// This node.
    Primary,
    /// The other one, or nobody.
    #[default]
    Standby,
    /// This node, as soon as it may.
    Candidate,
    /// This node, until what it has begun is over.
    Draining,
    /// Not this node: something in it fails again and again.
    SafeMode,
}

/// The lease, as a node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// The side that has it or had it last; `None` before there was one.
    pub holder: Option<NodeSide>,
    /// Since when that side has it, on the clock of the node that tells.
    pub since: Option<UtcMs>,
    /// Whether a person gave it to the receiver without asking the pusher.
    pub forced: bool,
    /// On the receiver while it is primary: how long it is valid without another renewal. On the pusher while the
    /// receiver is: how long until it would take over. `None`: without end.
    pub remaining_ms: Option<u64>,
    /// Time since the last renewal.
    pub renewed_ago_ms: Option<u64>,
}

/// What a node knows of itself beside its sync.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseView {
    /// Its role.
    pub role: Role,
    /// Number of the last lease that it knows of.
    pub epoch: u64,
    /// The lease.
    pub lease: LeaseStatus,
    /// What is wrong with its duties.
    pub problems: Vec<Problem>,
}

impl LeaseView {
    /// Returns what to tell when another side is primary now than in `before`; the first one that is heard of is no change.
    /// `own` is the side that tells, and the name of its node; `peer` the name of the other one.
    pub fn news_since(
        &self,
        before: &Self,
        own: (NodeSide, &str),
        peer: &str,
    ) -> Option<Happening> {
        let before = before.lease.holder?;
        let side = self.lease.holder.filter(|holder| *holder != before)?;
        let node = if side == own.0 { own.1 } else { peer };
        Some(Happening::Primary {
            side,
            node: node.to_owned(),
            epoch: self.epoch,
        })
    }

    /// Returns whether the role, the epoch and the holder are the same; time passes all the while.
    pub fn is_as(&self, other: &Self) -> bool {
        let facts = |view: &Self| {
            let lease = &view.lease;
            (
                view.role,
                view.epoch,
                lease.holder,
                lease.since,
                lease.forced,
            )
        };
        facts(self) == facts(other)
    }
}

/// The other node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name; empty when it was never met.
    pub id: String,
    /// The link to it.
    pub state: PeerState,
    /// Round-trip time, while linked.
    pub rtt_ms: Option<u64>,
    /// Time since something was heard from it; `None` when never since the start.
    pub last_seen_ago_ms: Option<u64>,
}

/// The link to the other node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// This node was never paired.
    Unpaired,
    /// There is no connection.
    Unlinked,
    /// Connected; the two sides tell each other what they have.
    Greeting,
    /// Connected.
    Linked,
}

/// What the trees hold, and what waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// In one word.
    pub state: SyncState,
    /// The counts that both sides show.
    #[serde(flatten)]
    pub counts: SyncCounts,
    /// Time until nothing is pending at the present rate; `None` when it cannot be told.
    pub eta_ms: Option<u64>,
    /// How long the oldest pending change has been waiting.
    pub lag_ms: u64,
    /// True if and only if the two set hashes are equal and nothing is held or pending, as far as
    /// this side knows, and it is linked so that it can know.
    pub in_sync: bool,
    /// Set hash of this side's tree.
    pub set_hash: SetHash,
    /// Last change that became durable on both sides.
    pub last_change: Option<UtcMs>,
}

/// The state of the sync in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// Equal, nothing waits.
    UpToDate,
    /// Changes are on their way.
    Syncing,
    /// All that can move has moved; some paths are held.
    Held,
    /// A person stopped it.
    Paused,
    /// There is no link.
    Offline,
    /// It stopped itself and waits for a person.
    Halted,
    /// The first look at the tree is not finished.
    Starting,
}

/// Counts over both trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SyncCounts {
    /// Files of the pusher's tree.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Paths that are not settled yet.
    pub pending_files: u64,
    /// Content bytes that still have to travel.
    pub pending_bytes: u64,
    /// Conflicts that nobody resolved.
    pub conflicts: u64,
    /// Paths that are held.
    pub held: u64,
}

/// The process.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Processor time over the last minute, in percent of one core.
    pub cpu_pct: f64,
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
    /// Bytes on the wire, both ways, over the last minute.
    pub net_bytes_min: u64,
    /// Time since the start.
    pub uptime_ms: u64,
    /// How often duties were started again in this process.
    pub restarts: u64,
}

/// Something that a node keeps running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DutyStatus {
    /// Its name.
    pub name: String,
    /// In one word.
    pub state: DutyState,
    /// How often it was started again in this process.
    pub restarts: u64,
    /// Why it does not run, if it does not.
    pub why: Option<String>,
}

/// The state of a duty in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DutyState {
    /// It runs.
    Running,
    /// It has crashed, and is started again in some seconds at the most.
    Waiting,
    /// It has crashed again and again, and waits for a person.
    Parked,
}

/// What can be done to a duty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DutyAct {
    /// End it and start it again, also when it is parked.
    Restart,
    /// End it as a crash would: a rehearsal.
    Crash,
}

/// The answer to flush and verify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Whether the trees are equal and nothing is held.
    pub equal: bool,
    /// Set hash of the pusher's tree.
    pub alpha: SetHash,
    /// Set hash of the receiver's tree.
    pub beta: SetHash,
    /// Paths that are not equal, with the reason, the first [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
    /// How many files were compared.
    pub files: u64,
}

/// What the next cycle would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlanView {
    /// The changes, in order, the first [`PLAN_LINES_MAX`].
    pub lines: Vec<PlanLine>,
    /// How many there are in all.
    pub total: u64,
    /// Content bytes that would travel.
    pub bytes: u64,
    /// Paths that would wait.
    pub held: Vec<Problem>,
}

/// Most lines of a [`PlanView`].
pub const PLAN_LINES_MAX: usize = 10_000;

/// One planned change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanLine {
    /// The tree that would change.
    pub on: NodeSide,
    /// How.
    pub change: Change,
    /// The path.
    pub path: RelPath,
    /// Content length after the change, in bytes.
    pub len: u64,
}

/// How a path changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It appears.
    Create,
    /// Its content or kind changes.
    Replace,
    /// Only its exec bit changes.
    Mode,
    /// It goes to the kept store.
    Delete,
    /// It appears, with all that is in it, and is gone from where it was.
    Move,
}

impl Change {
    /// Tells the change from what stands there before and after.
    pub fn between(before: Option<&Entry>, after: Option<&Entry>) -> Self {
        match (before, after) {
            (_, None) => Self::Delete,
            (None, Some(_)) => Self::Create,
            (Some(Entry::File { content: old, .. }), Some(Entry::File { content: new, .. }))
                if old == new =>
            {
                Self::Mode
            }
            _ => Self::Replace,
        }
    }

    /// Tells the change that an operation is.
    pub fn of(op: &Op) -> Self {
        match op.from {
            Source::Moved { .. } => Self::Move,
            _ => Self::between(op.expect.as_ref(), op.make.as_ref()),
        }
    }

    /// Returns the verb.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Mode => "mode",
            Self::Delete => "delete",
            Self::Move => "move",
        }
    }
}

/// All about one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The path.
    pub path: RelPath,
    /// In one word or two.
    pub state: String,
    /// Why it is in that state.
    pub reason: String,
    /// What helps; empty when nothing has to be done.
    pub fix: String,
    /// What both sides agreed on last.
    pub base: Option<String>,
    /// What the pusher has.
    pub pusher: Option<String>,
    /// What the receiver has.
    pub receiver: Option<String>,
    /// Kept versions, the latest first.
    pub history: Vec<Version>,
}

/// A conflict that was answered with a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictView {
    /// The path both sides changed.
    pub path: RelPath,
    /// Where the version that lost lies now; the path itself when nobody lost yet.
    pub copy: RelPath,
    /// Whether both versions stand at the path and wait for a decision.
    #[serde(default)]
    pub held: bool,
    /// The node whose version lost; empty when nobody lost yet.
    pub lost: String,
    /// When it was noticed.
    pub since: UtcMs,
    /// What helps.
    pub fix: String,
}

/// A kept version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its name, for `restore --version`.
    pub version: String,
    /// The path, when it lies below the one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RelPath>,
    /// When it was displaced.
    pub at: UtcMs,
    /// Content length, in bytes.
    pub len: u64,
    /// Content hash; `None` for a link.
    pub content: Option<ContentHash>,
    /// Why it was displaced.
    pub why: String,
    /// The node that keeps it.
    pub node: String,
}

/// The answer to [`Request::Restore`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The path.
    pub path: RelPath,
    /// The version that stands there now.
    pub version: Version,
    /// The version under which what stood there before is kept, if something did.
    pub displaced: Option<String>,
}

/// The answer to [`Request::Restore`] of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RestoredBelow {
    /// How many files and links were put back.
    pub restored: u64,
    /// How many stood there already as they are restored.
    pub unchanged: u64,
    /// How many versions are kept of what stood there before.
    pub displaced: u64,
    /// What could not be put back, a sentence each, the first [`PROBLEMS_MAX`].
    pub failed: Vec<String>,
    /// How many could not be put back.
    pub failures: u64,
    /// Whether the other machine could not be asked for what it keeps.
    pub incomplete: bool,
}

impl RestoredBelow {
    /// Adds what another part of the same restore did.
    pub fn add(&mut self, more: Self) {
        self.restored += more.restored;
        self.unchanged += more.unchanged;
        self.displaced += more.displaced;
        self.failures += more.failures;
        self.incomplete |= more.incomplete;
        self.failed.extend(more.failed);
        self.failed.truncate(PROBLEMS_MAX);
    }

    /// Notes what could not be put back.
    pub fn fail(&mut self, text: String) {
        self.failures += 1;
        if self.failed.len() < PROBLEMS_MAX {
            self.failed.push(text);
        }
    }
}
