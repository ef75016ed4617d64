//! The start of a connection: both sides find out what the other one has.
//!
//! | From | Frame | Says |
//! | --- | --- | --- |
//! | receiver | `Hello` | who it is, which bases belong together |
//! | pusher | `Welcome`, `Agreed`…, `Start` | base rows that the receiver may lack |
//! | receiver | `Bases`… | base rows that the pusher may lack: a batch that was applied when the link or this process died |
//! | receiver | `Seen`…, `Trails`…, `Ready` | where its tree is apart from its base, what it came through by the mirror since, and the set hash of its tree |
//!
//! For each path the row of the higher batch number is the true one: it was written after the change
//! had become durable on both sides. When the set hash does not agree at the end, the receiver is
//! asked for its whole tree. If the bases do not belong together (an index was lost), both are
//! forgotten, and the trees are united without a single deletion.

use std::collections::BTreeSet;
use std::time::Instant;

use disk::Durable;
use shared::control::{Happening, PeerState};
use shared::hash::SetHash;
use shared::path::RelPath;
use shared::tree::{BaseRow, GEN_GROWTH_MAX, GEN_LEAD_MAX, PATHS_MAX, Side, Sight};
use shared::wire::{AgreedRow, Frame, Hello, PROTOCOL_VERSION, SeenRow, TrailRow, Welcome, pages};

use super::batches::Committing;
use super::{Action, Pusher, rules_path};

/// Said to a receiver whose batch numbers nobody can have given it.
const FAR_AHEAD: &str = "the receiver's base has batch numbers that this pusher has never given; \
                         pair the two again with `layer-sync pair`";

/// The receiver, as seen from here.
#[derive(Debug, Default)]
pub(super) struct Peer {
    phase: Phase,
    /// Base rows that it told of in this greeting.
    bases: usize,
    pub(super) last_heard: Option<Instant>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Away,
    Connected,
    /// It is telling what it has; `whole` says that it was asked for every entry.
    Greeting {
        whole: bool,
    },
    Ready,
    /// It has done what no honest receiver does. What still arrives is not looked at.
    Refused,
}

impl Peer {
    pub(super) fn link(&mut self, now: Instant) {
        self.phase = Phase::Connected;
        self.bases = 0;
        self.last_heard = Some(now);
    }

    pub(super) fn is_linked(&self) -> bool {
        self.phase != Phase::Away
    }

    /// Says whether it was told the base, and has not told its tree yet.
    pub(super) fn is_greeting(&self) -> bool {
        matches!(self.phase, Phase::Greeting { .. })
    }

    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub(super) fn state(&self, paired: bool) -> PeerState {
        match self.phase {
            Phase::Away if !paired => PeerState::Unpaired,
            Phase::Away => PeerState::Unlinked,
            Phase::Connected | Phase::Greeting { .. } | Phase::Refused => PeerState::Greeting,
            Phase::Ready => PeerState::Linked,
        }
    }
}

impl Pusher {
    pub(super) fn frame(&mut self, frame: Frame) {
        self.peer.last_heard = Some(self.now);
        let greeting = self.peer.is_greeting();
        let greeted = greeting || self.peer.is_ready();
        match frame {
            _ if self.peer.phase == Phase::Refused => {}
            Frame::Hello(hello) if self.peer.phase == Phase::Connected => self.hello(hello),
            Frame::Bases(rows) if greeting => self.bases(rows),
            Frame::Seen(rows) if greeted => self.told(rows),
            Frame::Trails(rows) if greeted => self.told_trails(rows),
            Frame::Ready(hash) if greeting => self.ready(hash),
            Frame::Moving(moves) if greeted => self.beta_moves = moves,
            Frame::Together(pages) if greeted => self.pages_left = pages,
            Frame::Folds(folds) if greeting => self.mind_twins(folds),
            Frame::Noted(batch) if greeted => self.noted(batch),
            Frame::Swept(id, hash) if self.peer.is_ready() => {
                self.swept(Side::Beta, &[id]);
                self.check_hash(hash);
            }
            Frame::Applied(batch, outcomes) if greeted => {
                self.applied(Side::Beta, batch, outcomes);
            }
            Frame::Need(need) if greeted => self.actions.push(Action::GiveChunks(need)),
            Frame::Ask(id, request) if greeted => self.asked_by_peer(id, &request),
            Frame::Answer(id, response) if greeted => self.answered_by_peer(id, &response),
            Frame::Refuse(reason) => self.actions.push(Action::Unlink(reason)),
            Frame::Unknown(_) => {}
            other => {
                let reason = format!("a {} frame came when none was expected", other.name());
                self.refuse(reason);
            }
        }
    }

    fn refuse(&mut self, reason: String) {
        self.actions
            .push(Action::Send(Frame::Refuse(reason.clone())));
        self.actions.push(Action::Unlink(reason));
        self.peer.phase = Phase::Refused;
        // What it told is not needed any more, and may be large.
        self.trees.forget_side(Side::Beta);
        self.due.clear();
    }

    /// Takes what the receiver saw, unless it is more than can be held in memory.
    fn told(&mut self, rows: Vec<SeenRow>) {
        if self.trees.view(Side::Beta).apart().len() > PATHS_MAX {
            return self.refuse(format!(
                "the receiver's tree is apart at more than {PATHS_MAX} paths, which is the limit; \
                 ignore some of them in .layerignore"
            ));
        }
        self.pages_left = self.pages_left.saturating_sub(1);
        self.observed(Side::Beta, rows);
    }

    /// Takes what the receiver's tree came through by the mirror, within the same limit.
    fn told_trails(&mut self, rows: Vec<TrailRow>) {
        if self.trees.view(Side::Beta).trails().len() > PATHS_MAX {
            return self.refuse(format!(
                "the receiver tells of more than {PATHS_MAX} trails, which is the limit"
            ));
        }
        self.passed(Side::Beta, rows);
    }

    fn hello(&mut self, hello: Hello) {
        if hello.version != PROTOCOL_VERSION {
            return self.refuse(format!(
                "the receiver speaks version {} of the protocol and the pusher version {PROTOCOL_VERSION}; \
                 install the same layer-sync on both machines",
                hello.version
            ));
        }
        if self.setup.pair != Some(hello.pair) {
            return self.refuse(
                "the receiver belongs to another pair; pair the two again with `layer-sync pair`"
                    .into(),
            );
        }
        if self
            .notes
            .last_batch
            .is_behind(hello.last_batch, GEN_LEAD_MAX)
        {
            return self.refuse(FAR_AHEAD.into());
        }
        self.setup.peer = hello.node;
        self.notes.last_batch = self.notes.last_batch.max(hello.last_batch);
        let base_kept =
            hello.base_of == Some(self.index) && self.notes.base_of == Some(hello.index);
        self.notes.base_of = Some(hello.index);
        if !base_kept {
            self.forget_base();
        }
        self.trees.forget_side(Side::Beta);
        self.peer.phase = Phase::Greeting { whole: false };
        self.actions.push(Action::Send(Frame::Welcome(Welcome {
            version: PROTOCOL_VERSION,
            node: self.setup.node.clone(),
            index: self.index,
            base_kept,
            resolved: self.notes.resolved,
            ignore: self.notes.ignore.clone(),
        })));
        let rows: Vec<AgreedRow> = self
            .trees
            .base()
            .iter()
            .filter(|(_, row)| row.batch > self.notes.resolved)
            .map(|(path, row)| (path.clone(), row.clone()))
            .collect();
        for rows in pages(&rows) {
            self.actions.push(Action::Send(Frame::Agreed(
                self.notes.last_batch,
                rows.to_vec(),
            )));
        }
        self.actions.push(Action::Send(Frame::Start));
    }

    fn forget_base(&mut self) {
        let batch = self.next_batch();
        // What is being stored belongs to the old base, too, and is stored before this is.
        let mut paths: BTreeSet<RelPath> = self.batches.forget_committing();
        paths.extend(self.trees.base().keys().cloned());
        let row = |path| (path, BaseRow { entry: None, batch });
        let rows: Vec<AgreedRow> = paths.into_iter().map(row).collect();
        self.trees.forget_base();
        self.copies.clear();
        self.notes.resolved = batch;
        // Whose base it is has to be durable before anything is agreed on.
        self.greeting_commit = Some(batch);
        self.commit(
            batch,
            Committing {
                rows,
                ..Committing::default()
            },
            Durable::Rows,
        );
    }

    /// Takes base rows of the receiver that may be newer than ours.
    fn bases(&mut self, rows: Vec<AgreedRow>) {
        self.peer.bases += rows.len();
        if self.peer.bases > PATHS_MAX {
            return self.refuse(format!(
                "the receiver tells of more than {PATHS_MAX} base rows, which is the limit"
            ));
        }
        let last = self.notes.last_batch;
        let far = |row: &BaseRow| last.is_behind(row.batch, GEN_GROWTH_MAX);
        if rows.iter().any(|(_, row)| far(row)) {
            return self.refuse(FAR_AHEAD.into());
        }
        let newer: Vec<AgreedRow> = rows
            .into_iter()
            .filter(|(path, row)| {
                self.trees
                    .base()
                    .get(path)
                    .is_none_or(|ours| row.batch > ours.batch)
            })
            .collect();
        for (path, row) in &newer {
            // Until it says otherwise, the receiver's tree is its base.
            self.trees
                .observe(Side::Beta, path.clone(), row.entry.clone().into());
            self.agree(path.clone(), row.clone());
            self.due.insert(path.clone());
            if *path == rules_path() {
                self.actions.push(Action::ReadRules);
            }
        }
        if let Some(batch) = newer.iter().map(|(_, row)| row.batch).max() {
            self.notes.last_batch = self.notes.last_batch.max(batch);
            let batch = self.next_batch();
            self.commit(
                batch,
                Committing {
                    rows: newer,
                    ..Committing::default()
                },
                Durable::Rows,
            );
        }
    }

    fn ready(&mut self, hash: SetHash) {
        let agrees = self.trees.view(Side::Beta).hash() == hash;
        match self.peer.phase {
            Phase::Greeting { whole: false } if !agrees => self.ask_whole(),
            Phase::Greeting { whole: true } if !agrees => {
                self.refuse(
                    "the receiver's tree does not have the set hash that it announced".into(),
                );
            }
            _ => {
                self.peer.phase = Phase::Ready;
                self.last_proof = None;
                for (batch, rows) in std::mem::take(&mut self.unannounced) {
                    self.announce(batch, &rows);
                }
                self.due.extend(self.unsettled());
                // What was held may not be there any more.
                self.due.extend(self.holds.paths());
                self.tell(Happening::Linked {
                    peer: self.setup.peer.clone(),
                });
            }
        }
    }

    /// Asks for every entry of the receiver's tree.
    fn ask_whole(&mut self) {
        let known: Vec<_> = self
            .trees
            .base()
            .keys()
            .chain(self.trees.view(Side::Beta).apart().keys())
            .cloned()
            .collect();
        for path in known {
            self.trees.observe(Side::Beta, path, Sight::Absent);
        }
        self.peer.phase = Phase::Greeting { whole: true };
        self.actions.push(Action::Send(Frame::TellAll));
    }

    fn mind_twins(&mut self, beta_folds: bool) {
        self.beta_folds = beta_folds;
        if self.beta_folds || self.setup.folds {
            self.trees.mind_twins();
        }
    }

    /// Compares the receiver's set hash after a sweep with what is known here. While changes are on
    /// their way they may differ; at rest they must not.
    fn check_hash(&mut self, hash: SetHash) {
        if self.batches.is_empty()
            && self.due.is_empty()
            && self.trees.view(Side::Beta).hash() != hash
        {
            self.ask_whole();
        }
    }

    pub(super) fn unlinked(&mut self, reason: String) {
        if !self.peer.is_linked() {
            return;
        }
        self.resolve();
        self.peer.phase = Phase::Away;
        self.beta_moves = false;
        self.pages_left = 0;
        self.gathering = None;
        if self.batches.unlink() {
            // The receiver may have carried out what was on its way, and what is edited here from now on comes after that.
            let batch = self.next_batch();
            self.commit(batch, Committing::default(), Durable::Nothing);
        }
        self.unannounced.clear();
        self.due.clear();
        self.undecided.clear();
        self.last_proof = None;
        self.lose_passed_on();
        self.tell(Happening::Unlinked { reason });
    }
}
