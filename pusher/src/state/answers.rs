//! What clients are told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shared::control::{
    self, Change, Compared, ConflictView, Happening, Health, NodeStatus, PLAN_LINES_MAX,
    PROBLEMS_MAX, PeerStatus, PlanLine, PlanView, Problem, ProcessStatus, Refused, Request,
    Response, SCHEMA, Status, SyncCounts, SyncState, SyncStatus, Why, exit,
};
use shared::path::RelPath;
use shared::reconcile::{Mode, copy_of};
use shared::tree::{Entry, Side, Sight};
use shared::wire::{Frame, Proof};

use super::{Action, Client, Pusher, holds, side_name};
use shared::control::NodeSide;

/// A client that waits until both sides have been looked at and everything is durable.
#[derive(Debug)]
pub(super) struct Waiting {
    client: Client,
    /// Whether the two trees are to be compared when everything is at rest.
    verify: bool,
    /// Whether both are to be read from beginning to end.
    deep: bool,
    alpha: Swept,
    beta: Swept,
    /// What was unsettled when both sides had been looked at.
    open: Option<BTreeMap<RelPath, [Sight; 2]>>,
    /// When the last of that was durable.
    done_at: Option<Instant>,
}

/// How long an answered flush waits for everything else to come to rest as well.
const SETTLE_WAIT: Duration = Duration::from_secs(1);
/// How long a status waits for fresh hints to be looked at.
const ECHO_WAIT: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Swept {
    /// There was no link yet to ask over.
    NotAsked,
    Asked(u64),
    Done,
}

impl Pusher {
    pub(super) fn asked(&mut self, client: Client, request: Request) {
        let response = match request {
            Request::Status => {
                self.asked_status.push((client, self.now + ECHO_WAIT));
                return;
            }
            Request::Plan => Response::Plan(self.plan_view()),
            Request::Conflicts => Response::Conflicts(self.conflicts()),
            Request::Why(path) => Response::Why(self.why(path)),
            Request::Pause | Request::Resume => {
                let paused = request == Request::Pause;
                self.pause(paused);
                Response::Paused(paused)
            }
            Request::Verify | Request::VerifyDeep if !self.peer.is_ready() => {
                return self.refuse_client(
                    client,
                    "the receiver is not connected, so the trees cannot be compared",
                );
            }
            Request::Flush | Request::Verify | Request::VerifyDeep => {
                let deep = request == Request::VerifyDeep;
                let alpha = Swept::Asked(if deep {
                    self.looks.ask_deep()
                } else {
                    self.looks.ask_sweep()
                });
                let verify = request != Request::Flush;
                self.waiting.push(Waiting {
                    client,
                    verify,
                    deep,
                    alpha,
                    beta: Swept::NotAsked,
                    open: None,
                    done_at: None,
                });
                return;
            }
            Request::Agreed(path) => Response::Agreed(self.trees.agreed(&path).map(Entry::len)),
            Request::Peer(inner) => return self.pass_on(client, &inner),
            Request::Resolve { path, keep } => {
                let keep = match client {
                    Client::Local(_) => keep,
                    Client::Remote(_) => keep.from_there(),
                };
                decided(self.resolve_conflict(&path, keep))
            }
            Request::Confirm { batch, .. } if batch == ROOT => return self.accept_root(client),
            Request::Confirm { batch, undo } => decided(self.confirm(&batch, undo)),
            Request::Versions { .. }
            | Request::Restore { .. }
            | Request::Pair(_)
            | Request::Promote { .. }
            | Request::Duty { .. }
            | Request::Bot(_)
            | Request::Mirror(_)
            | Request::Web
            | Request::Events => {
                self.actions.push(Action::Serve(client, request));
                return;
            }
        };
        self.actions.push(Action::Answer(client, response));
    }

    pub(super) fn asked_by_peer(&mut self, id: u64, request: &str) {
        match serde_json::from_str(request) {
            Ok(request) => self.asked(Client::Remote(id), request),
            Err(error) => {
                let text = format!("the pusher does not understand this request: {error}");
                let refused = Refused {
                    exit: exit::ERROR,
                    text,
                    fix: "install the same layer-sync on both machines".into(),
                };
                self.actions.push(Action::Answer(
                    Client::Remote(id),
                    Response::Refused(refused),
                ));
            }
        }
    }

    /// Passes a request of a client of this machine on to the receiver.
    fn pass_on(&mut self, client: Client, request: &Request) {
        match client {
            Client::Local(id) if self.peer.is_ready() => {
                self.passed_on.insert(id);
                self.actions
                    .push(Action::Send(Frame::Ask(id, control::to_json(request))));
            }
            _ => self.refuse_client(
                client,
                "the receiver is not connected, and only it can answer this",
            ),
        }
    }

    /// Takes the receiver's answer to a request that was passed on.
    pub(super) fn answered_by_peer(&mut self, id: u64, response: &str) {
        if !self.passed_on.remove(&id) {
            return;
        }
        match serde_json::from_str(response) {
            Ok(response) => self
                .actions
                .push(Action::Answer(Client::Local(id), response)),
            Err(error) => self.refuse_client(
                Client::Local(id),
                &format!("the receiver's answer is not understood: {error}"),
            ),
        }
    }

    /// Refuses what the receiver was asked and will not answer any more.
    pub(super) fn lose_passed_on(&mut self) {
        for id in std::mem::take(&mut self.passed_on) {
            self.refuse_client(
                Client::Local(id),
                "the link went down before the receiver answered",
            );
        }
    }

    fn refuse_client(&mut self, client: Client, text: &str) {
        let fix = "start `layer-sync receiver` on the other machine".into();
        let refused = Refused {
            exit: exit::HALTED,
            text: text.into(),
            fix,
        };
        self.actions
            .push(Action::Answer(client, Response::Refused(refused)));
    }

    /// Accepts this node's folder as it is, when it has halted because it is not the one that it was.
    fn accept_root(&mut self, client: Client) {
        let is_wrong = |problem: &Problem| problem.code.starts_with("halted.root");
        let here = matches!(client, Client::Local(_));
        let response = if here && self.halted.as_ref().is_some_and(is_wrong) {
            self.actions.push(Action::AcceptRoot);
            Ok(
                "the folder is accepted as it is; the two trees are united, and nothing is deleted"
                    .into(),
            )
        } else {
            Err("this node has no folder that waits to be accepted".into())
        };
        self.actions.push(Action::Answer(client, decided(response)));
    }

    fn pause(&mut self, paused: bool) {
        if self.notes.paused != paused {
            self.notes.paused = paused;
            let batch = self.next_batch();
            self.commit(batch, super::Committing::default(), disk::Durable::Rows);
            self.tell(Happening::Paused(paused));
        }
    }

    // Flush and verify

    /// Takes the end of sweeps that were asked for.
    pub(super) fn swept(&mut self, side: Side, ids: &[u64]) {
        for waiting in &mut self.waiting {
            let swept = if side == Side::Alpha {
                &mut waiting.alpha
            } else {
                &mut waiting.beta
            };
            if matches!(swept, Swept::Asked(id) if ids.contains(id)) {
                *swept = Swept::Done;
            }
        }
    }

    /// Takes a path at which both sides agree now.
    pub(super) fn agreed_at(&mut self, path: &RelPath, entry: Option<&Entry>) {
        let settled = !self.is_apart(path);
        if settled {
            self.holds.settled(path);
            self.decisions.forget(path);
        }
        let agreed = Sight::from(entry.cloned());
        for waiting in &mut self.waiting {
            if let Some(open) = &mut waiting.open
                && open
                    .get(path)
                    .is_some_and(|then| settled || then.contains(&agreed))
            {
                open.remove(path);
            }
        }
    }

    /// Takes a path that will not settle by itself.
    pub(super) fn waited_for(&mut self, path: &RelPath) {
        for open in self
            .waiting
            .iter_mut()
            .filter_map(|waiting| waiting.open.as_mut())
        {
            open.retain(|other, _| other != path && !other.is_below(path));
        }
    }

    /// Moves waiting clients on, and answers those that have waited for everything.
    pub(super) fn answer_waiting(&mut self) {
        for mut waiting in std::mem::take(&mut self.waiting) {
            if self.halted.is_some() {
                // Nothing moves, and nothing can be looked at.
                let compared = self.compared(false);
                self.actions
                    .push(Action::Answer(waiting.client, Response::Compared(compared)));
                continue;
            }
            if !self.peer.is_ready() {
                if waiting.verify {
                    self.refuse_client(
                        waiting.client,
                        "the receiver is not connected, so the trees cannot be compared",
                    );
                    continue;
                }
                // The sweep of the other side has to be asked for again over the next link.
                waiting.beta = Swept::NotAsked;
                waiting.open = None;
                waiting.done_at = None;
            } else if let Some(equal) = self.waited(&mut waiting) {
                let compared = self.compared(equal);
                self.actions
                    .push(Action::Answer(waiting.client, Response::Compared(compared)));
                continue;
            }
            self.waiting.push(waiting);
        }
    }

    /// Moves a client on while the receiver is there; returns whether the trees are equal when it
    /// has waited for everything.
    fn waited(&mut self, waiting: &mut Waiting) -> Option<bool> {
        if waiting.beta == Swept::NotAsked {
            self.beta_sweeps += 1;
            waiting.beta = Swept::Asked(self.beta_sweeps);
            let id = self.beta_sweeps;
            self.actions.push(Action::Send(if waiting.deep {
                Frame::SweepDeep(id)
            } else {
                Frame::Sweep(id)
            }));
        }
        if waiting.alpha != Swept::Done || waiting.beta != Swept::Done {
            return None;
        }
        let settled = self.is_settled();
        let halted = self.alarm.is_some() && self.due.is_empty();
        if halted || waiting.verify && !self.may_plan() {
            // Halted or paused: nothing is going to move.
            return Some(settled);
        }
        let open = waiting.open.get_or_insert_with(|| {
            let moving = self
                .unsettled()
                .into_iter()
                .filter(|path| self.is_apart(path) && !self.waits(path));
            let both =
                |path: &RelPath| [Side::Alpha, Side::Beta].map(|side| self.trees.sight(side, path));
            moving.map(|path| (path.clone(), both(&path))).collect()
        });
        if !open.is_empty() {
            return None;
        }
        // All that was asked for is durable. What is still moving is newer, or the echo of our own
        // writes: a flush gives it a moment, so that a status asked for next says in sync.
        let since = *waiting.done_at.get_or_insert(self.now);
        let at_rest = self.due.is_empty() && self.batches.is_empty() && self.looks.is_idle();
        let patience = self.now.saturating_duration_since(since) < SETTLE_WAIT;
        if !settled && !at_rest && (waiting.verify || patience) {
            return None;
        }
        Some(if waiting.verify {
            settled
        } else {
            self.holds.len() == 0
        })
    }

    fn compared(&self, equal: bool) -> Compared {
        let (alpha, beta) = self.hashes();
        let problems = self
            .problems()
            .into_iter()
            .filter(|problem| problem.severity > Health::Degraded);
        Compared {
            equal,
            alpha,
            beta,
            problems: problems.take(PROBLEMS_MAX).collect(),
            files: self.trees.view(Side::Alpha).files(),
        }
    }

    // Status

    /// Says whether the trees are equal and nothing waits, as far as is known here.
    pub(super) fn is_settled(&self) -> bool {
        let equal = self.trees.view(Side::Alpha).hash() == self.trees.view(Side::Beta).hash();
        self.may_plan()
            && self.due.is_empty()
            && self.undecided.is_empty()
            && self.batches.is_empty()
            && self.looks.is_idle()
            && self.holds.len() == 0
            && (equal || self.setup.mode == Mode::OneWaySafe)
            && self.pending().0 == 0
    }

    fn is_ignored(&self, path: &RelPath) -> bool {
        let ignored = |side| {
            matches!(
                self.trees.sight(side, path),
                Sight::Blocked(shared::tree::Obstacle::Ignored)
            )
        };
        ignored(Side::Alpha) || ignored(Side::Beta)
    }

    /// Says whether a path will not move by itself: it, or a directory above it, waits for something
    /// or is left alone.
    fn waits(&self, path: &RelPath) -> bool {
        self.waits_itself(path) || path.ancestors().any(|above| self.waits_itself(&above))
    }

    fn waits_itself(&self, path: &RelPath) -> bool {
        self.untracked.contains(path) || self.holds.get(path).is_some() || self.is_ignored(path)
    }

    /// Counts paths that still have to move, and the bytes of content that still have to travel.
    fn pending(&self) -> (u64, u64) {
        let [alpha, beta] = [Side::Alpha, Side::Beta].map(|side| self.trees.view(side).apart());
        let only_beta = beta.keys().filter(|path| !alpha.contains_key(*path));
        let (mut paths, mut bytes) = (0, 0_u64);
        // Neighbours have the same directories above them.
        let mut above: Option<(RelPath, bool)> = None;
        for path in alpha.keys().chain(only_beta) {
            let parent_waits = path.parent().is_some_and(|parent| match &above {
                Some((known, waits)) if *known == parent => *waits,
                _ => {
                    let waits = self.waits(&parent);
                    above = Some((parent, waits));
                    waits
                }
            });
            if parent_waits || self.waits_itself(path) {
                continue;
            }
            let sides = [Side::Alpha, Side::Beta].map(|side| self.trees.sight(side, path));
            paths += 1;
            if sides[0] != sides[1] {
                let len = sides.iter().filter_map(Sight::entry).map(Entry::len).max();
                bytes = bytes.saturating_add(len.unwrap_or(0));
            }
        }
        (paths, bytes)
    }

    fn counts(&self) -> SyncCounts {
        let view = self.trees.view(Side::Alpha);
        let (pending_files, pending_bytes) = self.pending();
        let conflicts = self.copies.len() as u64;
        SyncCounts {
            files: view.files(),
            bytes: view.bytes(),
            pending_files,
            pending_bytes,
            conflicts,
            held: self.holds.len(),
        }
    }

    pub(super) fn proof(&mut self, settled: bool) -> Proof {
        self.resolve();
        let (alpha, beta) = self.hashes();
        let problems = self.problems().into_iter().take(PROBLEMS_MAX).collect();
        Proof {
            alpha,
            beta: (beta != alpha).then_some(beta),
            settled,
            resolved: self.notes.resolved,
            paused: self.notes.paused,
            sync: self.counts(),
            problems,
        }
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.halted.iter().cloned().collect();
        problems.extend(self.alarm.iter().map(|halted| halted.problem.clone()));
        problems.extend(self.holds.problems().cloned());
        problems.extend(self.degraded.iter().cloned());
        if self.notes.paused {
            problems.push(Problem {
                code: "degraded.paused".into(),
                severity: Health::Degraded,
                path: None,
                text: "the pair is paused; changes wait".into(),
                fix: "layer-sync resume".into(),
            });
        }
        problems
    }

    fn sync_state(&self) -> SyncState {
        match () {
            () if self.halted.is_some() || self.alarm.is_some() => SyncState::Halted,
            () if self.notes.paused => SyncState::Paused,
            () if !self.looks.has_swept() => SyncState::Starting,
            () if !self.peer.is_ready() => SyncState::Offline,
            () if self.is_settled() => SyncState::UpToDate,
            () if self.holds.len() > 0 && self.pending().0 == 0 => SyncState::Held,
            () => SyncState::Syncing,
        }
    }

    fn status(&self) -> Status {
        let mut problems = self.problems();
        problems.extend(self.lease.problems.iter().cloned());
        let peer_state = self.peer.state(self.setup.pair.is_some());
        if self.setup.pair.is_none() {
            problems.push(Problem {
                code: "degraded.unpaired".into(),
                severity: Health::Degraded,
                path: None,
                text: "this node has no partner yet; nothing is synced".into(),
                fix: "layer-sync pair, then `layer-sync join CODE --root DIR` on the other machine"
                    .into(),
            });
        } else if !self.peer.is_linked() {
            problems.push(Problem {
                code: "degraded.unlinked".into(),
                severity: Health::Degraded,
                path: None,
                text: "the receiver is not connected; changes wait until it is".into(),
                fix: "start `layer-sync receiver` on the other machine".into(),
            });
        }
        let state = problems
            .iter()
            .map(|problem| problem.severity)
            .max()
            .unwrap_or(Health::Healthy);
        let ago = |at: Instant| self.now.saturating_duration_since(at).as_millis() as u64;
        let counts = self.counts();
        let waited = self.pending_since.map(ago);
        problems.truncate(PROBLEMS_MAX);
        Status {
            schema: SCHEMA,
            state,
            now: self.utc,
            problems,
            node: NodeStatus {
                id: self.setup.node.clone(),
                side: NodeSide::Pusher,
                role: self.lease.role,
                epoch: self.lease.epoch,
                version: self.setup.version.clone(),
                root: self.setup.root.clone(),
            },
            lease: self.lease.lease.clone(),
            peer: PeerStatus {
                id: self.setup.peer.clone(),
                state: peer_state,
                rtt_ms: None,
                last_seen_ago_ms: self.peer.last_heard.map(ago),
            },
            sync: SyncStatus {
                state: self.sync_state(),
                counts,
                eta_ms: eta(&counts, waited),
                lag_ms: if counts.pending_files > 0 {
                    waited.unwrap_or(0)
                } else {
                    0
                },
                in_sync: self.is_settled(),
                set_hash: self.trees.view(Side::Alpha).hash(),
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

    /// Returns when somebody who waits has to be answered at the latest.
    pub(super) fn next_answer(&self) -> Option<Instant> {
        let flushed = self
            .waiting
            .iter()
            .filter_map(|waiting| waiting.done_at)
            .map(|at| at + SETTLE_WAIT);
        self.asked_status
            .iter()
            .map(|(_, until)| *until)
            .chain(flushed)
            .min()
    }

    // Plan, why, conflicts

    fn plan_view(&self) -> PlanView {
        let plan = self.whole_plan();
        let lines = plan.ops.iter().map(|(side, op)| PlanLine {
            on: side_name(*side),
            change: Change::of(op),
            path: op.path.clone(),
            len: op.make.as_ref().map_or(0, Entry::len),
        });
        PlanView {
            lines: lines.take(PLAN_LINES_MAX).collect(),
            total: plan.ops.len() as u64,
            bytes: plan.bytes(),
            held: plan
                .held
                .iter()
                .take(PROBLEMS_MAX)
                .map(|(path, hold)| holds::problem_of(path, hold))
                .collect(),
        }
    }

    fn conflicts(&self) -> Vec<ConflictView> {
        let copied = self
            .copies
            .iter()
            .filter_map(|copy| Some((copy, copy_of(copy)?)))
            .map(|(copy, of)| ConflictView {
                fix: format!(
                    "compare the two, then `layer-sync resolve \"{copy}\" --keep mine|theirs|both`"
                ),
                path: of.path,
                copy: copy.clone(),
                held: false,
                lost: of.node,
                since: of.at,
            });
        let held = self.holds.undecided().map(|(path, held)| ConflictView {
            fix: held.problem.fix.clone(),
            path: path.clone(),
            copy: path.clone(),
            held: true,
            lost: String::new(),
            since: held.since,
        });
        copied.chain(held).collect()
    }

    fn why(&self, path: RelPath) -> Why {
        let show = |sight: &Sight| match sight {
            Sight::Absent => None,
            Sight::Is(entry) => Some(describe(entry)),
            Sight::Blocked(obstacle) => Some(format!("not synced: {}", obstacle.reason())),
        };
        let (alpha, beta) = (
            self.trees.sight(Side::Alpha, &path),
            self.trees.sight(Side::Beta, &path),
        );
        let blocked_above = path.ancestors().find(|above| self.is_ignored(above));
        let held_above = path
            .ancestors()
            .find_map(|above| Some((self.holds.get(&above)?, above)));
        let (state, reason, fix) = if let Some(held) = self.holds.get(&path) {
            (
                "held",
                format!("{} (since {})", held.problem.text, held.since),
                held.problem.fix.clone(),
            )
        } else if let Some((held, above)) = held_above.filter(|_| self.is_apart(&path)) {
            (
                "held",
                format!(
                    "\"{above}\" is held: {} (since {})",
                    held.problem.text, held.since
                ),
                held.problem.fix.clone(),
            )
        } else if let Some(above) = blocked_above {
            (
                "ignored",
                format!("\"{above}\" is ignored by .layerignore or a built-in rule"),
                String::new(),
            )
        } else if self.is_ignored(&path) {
            (
                "ignored",
                "it is ignored by .layerignore or a built-in rule".into(),
                String::new(),
            )
        } else if self.untracked.contains(&path) {
            (
                "untracked",
                format!(
                    "mode {} leaves what the receiver made itself",
                    self.setup.mode.name()
                ),
                String::new(),
            )
        } else if self.batches.is_busy(&path) {
            ("syncing", "its change is on its way".into(), String::new())
        } else if self.is_apart(&path) {
            let reason = if self.notes.paused {
                "the pair is paused"
            } else if !self.peer.is_ready() {
                "the two machines are not connected"
            } else {
                "its change is about to be planned"
            };
            let fix = if self.notes.paused {
                "layer-sync resume"
            } else {
                ""
            };
            ("pending", reason.to_owned(), fix.to_owned())
        } else if alpha == Sight::Absent {
            ("absent", "neither side has it".into(), String::new())
        } else if !self.peer.is_ready() {
            (
                "unknown",
                "equal when the two machines were last connected".into(),
                String::new(),
            )
        } else {
            ("in sync", "both sides have the same".into(), String::new())
        };
        Why {
            state: state.into(),
            reason,
            fix,
            base: self.trees.agreed(&path).map(describe),
            pusher: show(&alpha),
            receiver: show(&beta),
            history: Vec::new(),
            path,
        }
    }
}

/// What accepts a folder as it is, in the place of a batch.
const ROOT: &str = "root";

fn decided(result: Result<String, String>) -> Response {
    match result {
        Ok(text) => Response::Decided(text),
        Err(text) => Response::Refused(Refused {
            exit: exit::ERROR,
            text,
            fix: String::new(),
        }),
    }
}

/// Estimates the time left from what has been done since changes began to wait.
fn eta(counts: &SyncCounts, waited_ms: Option<u64>) -> Option<u64> {
    let waited = waited_ms.filter(|waited| *waited > 0)?;
    let done = counts.bytes.saturating_sub(counts.pending_bytes);
    (done > 0 && counts.pending_bytes > 0)
        .then(|| (u128::from(waited) * u128::from(counts.pending_bytes) / u128::from(done)) as u64)
}

/// Describes an entry for a person.
fn describe(entry: &Entry) -> String {
    match entry {
        Entry::Dir => "directory".into(),
        Entry::Symlink { target } => format!("link to {target}"),
        Entry::File { content, len, exec } => {
            format!(
                "file of {len} bytes, {}{}",
                content.short(),
                if *exec { ", executable" } else { "" }
            )
        }
    }
}
