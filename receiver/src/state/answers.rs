//! What clients are told. What only the planner knows is asked of the pusher.

use std::time::{Duration, Instant};

use shared::control::{
    self, Happening, Health, NodeSide, NodeStatus, PROBLEMS_MAX, PeerState, PeerStatus, Problem,
    ProcessStatus, Refused, Request, Response, SCHEMA, Status, SyncCounts, SyncState, SyncStatus,
    exit,
};
use shared::tree::{Entry, Side};
use shared::wire::{Frame, Proof};

use super::{Action, Client, Phase, Receiver};

/// What accepts a folder as it is, in the place of a batch.
const ROOT: &str = "root";
/// How long a status waits for fresh hints to be looked at.
const ECHO_WAIT: Duration = Duration::from_millis(250);

impl Receiver {
    pub(super) fn asked(&mut self, client: Client, request: Request) {
        match (&request, client) {
            (Request::Status, _) => self.asked_status.push((client, self.now + ECHO_WAIT)),
            (Request::Agreed(path), _) => {
                let agreed = self.trees.agreed(path).map(Entry::len);
                let response = Response::Agreed(agreed);
                self.actions.push(Action::Answer(client, response));
            }
            (Request::Versions { .. } | Request::Restore { .. } | Request::Events, _) => {
                self.actions.push(Action::Serve(client, request));
            }
            (Request::Confirm { batch, .. }, Client::Local(_)) if batch == ROOT => {
                self.accept_root(client);
            }
            (Request::Pair(_), _) => self.refuse(
                client,
                "a pairing code is made on the pusher",
                "run `layer-sync pair` there",
            ),
            (_, Client::Remote(_)) => self.refuse(
                client,
                "only the pusher can answer this",
                "ask on the pusher's machine",
            ),
            (Request::Peer(inner), Client::Local(id)) if self.phase == Phase::Ready => {
                self.pass_on(id, inner);
            }
            (_, Client::Local(id)) if self.phase == Phase::Ready => self.pass_on(id, &request),
            // It waits for the link by its nature.
            (Request::Flush, Client::Local(id)) => {
                self.unsent.push((id, request));
            }
            (_, Client::Local(_)) => {
                let text = format!(
                    "the pusher is not connected ({}), and only it can answer this",
                    self.unlinked_reason
                );
                self.refuse(
                    client,
                    &text,
                    "start `layer-sync pusher` on the other machine",
                );
            }
        }
    }

    /// Accepts this node's folder as it is, when it has halted because it is not the one that it was.
    fn accept_root(&mut self, client: Client) {
        let is_wrong = |problem: &Problem| problem.code.starts_with("halted.root");
        if !self.halted.as_ref().is_some_and(is_wrong) {
            let refused = Refused {
                exit: exit::ERROR,
                text: "this node has no folder that waits to be accepted".into(),
                fix: String::new(),
            };
            self.actions
                .push(Action::Answer(client, Response::Refused(refused)));
            return;
        }
        self.actions.push(Action::AcceptRoot);
        let text =
            "the folder is accepted as it is; the two trees are united, and nothing is deleted";
        self.actions
            .push(Action::Answer(client, Response::Decided(text.into())));
    }

    fn refuse(&mut self, client: Client, text: &str, fix: &str) {
        let refused = Refused {
            exit: exit::HALTED,
            text: text.into(),
            fix: fix.into(),
        };
        self.actions
            .push(Action::Answer(client, Response::Refused(refused)));
    }

    /// Passes a request of a client of this machine on to the pusher.
    pub(super) fn pass_on(&mut self, id: u64, request: &Request) {
        self.passed_on.insert(id, request.clone());
        self.actions
            .push(Action::Send(Frame::Ask(id, control::to_json(request))));
    }

    pub(super) fn asked_by_peer(&mut self, id: u64, request: &str) {
        match serde_json::from_str(request) {
            Ok(request) => self.asked(Client::Remote(id), request),
            Err(error) => {
                let text = format!("the receiver does not understand this request: {error}");
                self.refuse(
                    Client::Remote(id),
                    &text,
                    "install the same layer-sync on both machines",
                );
            }
        }
    }

    pub(super) fn answered_by_peer(&mut self, id: u64, response: &str) {
        // Only what was asked may be answered: the number may be that of a client who asked this side.
        if self.passed_on.remove(&id).is_none() {
            return;
        }
        match serde_json::from_str(response) {
            Ok(response) => self
                .actions
                .push(Action::Answer(Client::Local(id), response)),
            Err(error) => self.refuse(
                Client::Local(id),
                &format!("the pusher's answer is not understood: {error}"),
                "",
            ),
        }
    }

    /// Keeps what can wait for the next link, and answers the rest.
    pub(super) fn lose_waiting(&mut self) {
        for (id, request) in std::mem::take(&mut self.passed_on) {
            self.asked(Client::Local(id), request);
        }
    }

    // Status

    /// Answers those who asked for the status. While the echo of our own writes is being looked at,
    /// it would say that something is on its way, so it waits a moment for that.
    pub(super) fn answer_status(&mut self) {
        let fresh = !self.looks.is_idle();
        for (client, until) in std::mem::take(&mut self.asked_status) {
            if fresh && self.now < until {
                self.asked_status.push((client, until));
            } else {
                let status = Response::Status(Box::new(self.status()));
                self.actions.push(Action::Answer(client, status));
            }
        }
    }

    pub(super) fn proved(&mut self, proof: Proof) {
        if self.is_far(proof.resolved) {
            return self.refuse_pusher(super::FAR_BEYOND.into());
        }
        self.resolved = self.resolved.max(proof.resolved);
        // The next batch of any pusher is above what is resolved.
        self.notes.last_batch = self.notes.last_batch.max(self.resolved);
        self.proof = Some(proof);
    }

    /// Takes it that the trees are equal now if this one has the hash that the pusher told in advance.
    pub(super) fn settled_by(&mut self, settles: Option<u64>) {
        let alpha = self.hash();
        let view = self.trees.view(Side::Beta);
        let (files, bytes) = (view.files(), view.bytes());
        if let Some(proof) = &mut self.proof
            && settles == Some(alpha.beginning())
        {
            proof.alpha = alpha;
            proof.beta = None;
            proof.settled = true;
            proof.sync = SyncCounts {
                files,
                bytes,
                pending_files: 0,
                pending_bytes: 0,
                ..proof.sync
            };
        }
    }

    /// Says whether the trees are equal, as far as is known here.
    fn is_settled(&self) -> bool {
        let proved = self
            .proof
            .as_ref()
            .is_some_and(|proof| proof.settled && proof.beta() == self.hash());
        proved
            && self.phase == Phase::Ready
            && self.looks.is_idle()
            && self.halted.is_none()
            && self.committing.is_empty()
    }

    pub(super) fn note_settled(&mut self) {
        let settled = self.is_settled();
        if settled && !self.was_settled {
            let view = self.trees.view(Side::Beta);
            let (files, bytes) = (view.files(), view.bytes());
            self.tell(Happening::Settled { files, bytes });
            self.trees.pack();
        }
        self.was_settled = settled;
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.halted.iter().cloned().collect();
        match &self.proof {
            Some(proof) => problems.extend(proof.problems.iter().cloned()),
            None => problems.push(Problem {
                code: "degraded.unlinked".into(),
                severity: Health::Degraded,
                path: None,
                text: format!(
                    "the pusher at {} is not connected: {}",
                    self.setup.peer_address, self.unlinked_reason
                ),
                fix: "start `layer-sync pusher` on the other machine, and let UDP through to it"
                    .into(),
            }),
        }
        problems.extend(self.degraded.iter().cloned());
        problems
    }

    fn sync_state(&self) -> SyncState {
        let proof = self.proof.as_ref();
        match () {
            () if self.halted.is_some() => SyncState::Halted,
            () if proof.is_some_and(|proof| proof.paused) => SyncState::Paused,
            () if !self.looks.has_swept() => SyncState::Starting,
            () if proof.is_none() => SyncState::Offline,
            () if self.is_settled() => SyncState::UpToDate,
            () if proof
                .is_some_and(|proof| proof.sync.held > 0 && proof.sync.pending_files == 0) =>
            {
                SyncState::Held
            }
            () => SyncState::Syncing,
        }
    }

    fn status(&self) -> Status {
        let mut problems = self.problems();
        problems.extend(self.lease.problems.iter().cloned());
        let state = problems
            .iter()
            .map(|problem| problem.severity)
            .max()
            .unwrap_or(Health::Healthy);
        problems.truncate(PROBLEMS_MAX);
        let ago = |at: Instant| self.now.saturating_duration_since(at).as_millis() as u64;
        let own = self.trees.view(Side::Beta);
        let counts = self.proof.as_ref().map_or_else(
            || SyncCounts {
                files: own.files(),
                bytes: own.bytes(),
                pending_files: own.apart().len() as u64,
                ..SyncCounts::default()
            },
            |proof| proof.sync,
        );
        Status {
            schema: SCHEMA,
            state,
            now: self.utc,
            problems,
            node: NodeStatus {
                id: self.setup.node.clone(),
                side: NodeSide::Receiver,
                role: self.lease.role,
                epoch: self.lease.epoch,
                version: self.setup.version.clone(),
                root: self.setup.root.clone(),
            },
            lease: self.lease.lease.clone(),
            peer: PeerStatus {
                id: self.setup.peer.clone(),
                state: match self.phase {
                    Phase::Away => PeerState::Unlinked,
                    Phase::Ready => PeerState::Linked,
                    _ => PeerState::Greeting,
                },
                rtt_ms: None,
                last_seen_ago_ms: self.last_heard.map(ago),
            },
            sync: SyncStatus {
                state: self.sync_state(),
                counts,
                eta_ms: None,
                lag_ms: 0,
                in_sync: self.is_settled(),
                set_hash: self.hash(),
                last_change: self.last_change,
            },
            duties: Vec::new(),
            mirror: None,
            bot: None,
            process: ProcessStatus {
                cpu_pct: 0.0,
                rss_bytes: 0,
                net_bytes_min: 0,
                uptime_ms: 0,
                restarts: 0,
            },
        }
    }
}
