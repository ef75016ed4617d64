//! What the pusher knows, and what it does about it.
//!
//! The state is three trees ([`Trees`]) and what is on its way. Every event ends in
//! [`Pusher::advance`], which plans what is due and hands out work, so there is no list of pending
//! work that could be lost: after a restart the same trees give the same plan.
//!
//! Invariants:
//! * A path is *busy* from the moment it is planned until its base row is durable here. Busy paths
//!   are never planned again.
//! * The base moves when a change is durable on both sides, and never before.
//! * Batch numbers only grow. Every row of the base carries the number of its batch, so that after a
//!   crash on either side the newer row of the two is the true one (`greeting.rs`).

mod answers;
mod batches;
mod decide;
mod greeting;
mod guarded;
mod holds;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use disk::Durable;
use disk::looks::Looks;
use disk::{Look, Notes, RulesFile, Stored};
use shared::control::{
    self, Event as Told, Happening, LeaseView, NodeSide, Problem, Request, Response,
};
use shared::ignore::{RULES_FILE, Rules};
use shared::path::{RelPath, below};
use shared::reconcile::{
    ConflictRules, Decisions, Hold, Mode, Naming, Plan, Policy, copy_of, reconcile, with_moves,
};
use shared::safety::{Guard, Limits};
use shared::transfer::{Batch, Item, Need, Outcome};
use shared::tree::{BaseRow, Entry, Gen, Side, Sight, Trees};
use shared::utc::UtcMs;
use shared::wire::{AgreedRow, Frame, IndexId, PairId, Proof, TrailRow, pages};

use batches::{Batches, Committing};
use greeting::Peer;
use holds::Holds;

/// How long the trees may be apart before the receiver is told so: most edits are over by then, and telling
/// would cost as much as they do.
const UNSETTLED_WAIT: Duration = Duration::from_millis(250);

/// Most rows that a restart sends to a receiver that has them: 20 KB, for one commit more in so many edits.
const ROWS_TOLD_AGAIN_MAX: usize = 500;

/// What the pusher is told at its start. The pair and the peer's name may change later.
#[derive(Debug, Clone)]
pub struct Setup {
    /// This node's name.
    pub node: String,
    /// The root of its tree, for people.
    pub root: String,
    /// The program's version, for people.
    pub version: String,
    /// The pair, once there is one.
    pub pair: Option<PairId>,
    /// The receiver's name, as far as known.
    pub peer: String,
    /// Which changes travel.
    pub mode: Mode,
    /// The cycle.
    pub interval: Duration,
    /// From where on a plan waits for a person.
    pub limits: Limits,
    /// What becomes of conflicts, by name.
    pub conflicts: ConflictRules,
    /// Whether this side's volume folds case or normalization.
    pub folds: bool,
}

/// A client that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// On this machine.
    Local(u64),
    /// On the receiver's machine.
    Remote(u64),
}

/// What happens to the pusher.
#[derive(Debug)]
pub enum Event {
    /// The disk saw this.
    Observed(Vec<(RelPath, Sight)>),
    /// This stands there, and came through these copies of the mirror.
    Passed(Vec<TrailRow>),
    /// A batch was applied to this side's tree; its agreed rows are durable.
    Applied(Gen, Vec<Outcome>),
    /// These files were read too soon after they had been written.
    Racy(Vec<RelPath>),
    /// A sweep or a look at paths ended.
    Looked {
        /// Whether it was a sweep.
        sweep: bool,
        /// Paths to look at again; or why the root cannot be looked at.
        result: Result<Vec<RelPath>, String>,
    },
    /// Base rows are durable here.
    Committed(Gen),
    /// The disk cannot be used.
    DiskFailed(String),
    /// The watcher says that something moved.
    Hint(disk::watch::Hint),
    /// A receiver has connected.
    Linked,
    /// A frame of the control stream.
    Frame(Frame),
    /// The connection has ended.
    Unlinked(String),
    /// This node was paired.
    Paired(PairId, String),
    /// The rules' file of this side was read; `None` when there is none.
    RulesRead(Option<RulesFile>),
    /// A client asks.
    Asked(Client, Request),
    /// Who is primary has changed, or is told for the first time.
    Role(LeaseView),
    /// Time has passed.
    Tick,
}

/// What the pusher wants done.
#[derive(Debug)]
pub enum Action {
    /// Look at the tree; ends as [`Event::Looked`].
    Look(Look),
    /// Send a frame on the control stream.
    Send(Frame),
    /// Send a batch with its content to the receiver, with its place in the lane.
    Push(Batch, Option<u64>),
    /// Apply a batch to this side's tree, with its place in the lane; ends as [`Event::Applied`].
    Take(Batch, Option<u64>, Gen),
    /// Send chunks that the receiver asks for.
    GiveChunks(Need),
    /// Make base rows durable; ends as [`Event::Committed`].
    Commit {
        /// Their batch.
        batch: Gen,
        /// The rows.
        rows: Vec<AgreedRow>,
        /// What is stored with them.
        notes: Notes,
        /// Whether this side's files have to be made durable first.
        first: Durable,
    },
    /// Keep the content of this file for a later merge, if that is still what stands there.
    KeepBase(RelPath, Entry),
    /// Accept the folder as it is now: end, and begin anew with an empty index.
    AcceptRoot,
    /// Apply these rules from now on.
    SetRules(Rules),
    /// Read the rules' file of this side; ends as [`Event::RulesRead`].
    ReadRules,
    /// Answer a client.
    Answer(Client, Response),
    /// Serve a request of a client that needs the disk or the link.
    Serve(Client, Request),
    /// Tell those who listen.
    Tell(Told),
    /// End the connection, with a sentence for the other side.
    Unlink(String),
}

/// The pusher's state machine.
pub struct Pusher {
    setup: Setup,
    trees: Trees,
    looks: Looks,
    notes: Notes,
    index: IndexId,
    peer: Peer,
    /// The commit that says whose base it is, until it is durable. Nothing is planned before.
    greeting_commit: Option<Gen>,
    /// Paths to plan.
    due: BTreeSet<RelPath>,
    /// Paths to plan as soon as something that is on its way has arrived.
    undecided: Vec<RelPath>,
    batches: Batches,
    /// Rows that were stored since the notes were, which say that the receiver has them, too.
    rows_unresolved: usize,
    /// Rows that became durable here while the receiver was greeting: it was told the base before, and
    /// is told of these when it is ready.
    unannounced: Vec<(Gen, Vec<AgreedRow>)>,
    holds: Holds,
    lease: LeaseView,
    /// Paths that the mode leaves alone.
    untracked: BTreeSet<RelPath>,
    /// Conflict copies in the base. They are known by their names, so that they are found again
    /// after any restart, and are resolved when somebody renames or deletes them.
    copies: BTreeSet<RelPath>,
    /// The number of the last sweep that the receiver was asked for.
    beta_sweeps: u64,
    waiting: Vec<answers::Waiting>,
    /// Clients that asked for the status, and when they are answered at the latest.
    asked_status: Vec<(Client, Instant)>,
    /// Clients of this machine whose request the receiver is serving.
    passed_on: BTreeSet<u64>,
    halted: Option<Problem>,
    guard: Guard,
    /// A plan that the guard has halted.
    alarm: Option<guarded::Halted>,
    gathering: Option<guarded::Gathering>,
    /// Whether the receiver is looking at more changes than it has told.
    beta_moves: bool,
    /// How many frames are still to come of what the receiver saw together.
    pages_left: u32,
    /// Whether the receiver's volume folds case or normalization.
    beta_folds: bool,
    decisions: Decisions,
    /// Paths that are held because of these, whose names the other volume does not tell from theirs.
    twins: BTreeMap<RelPath, RelPath>,
    degraded: Vec<Problem>,
    /// Whether the rules' file was not the agreed one when it was read. It may become that again without
    /// a look that notices.
    rules_differ: bool,
    last_proof: Option<(Proof, Instant)>,
    /// The beginning of the set hash of which the receiver knows by itself that both trees have it now.
    foretold: Option<u64>,
    last_change: Option<UtcMs>,
    pending_since: Option<Instant>,
    was_settled: bool,
    /// The time of the event that is being handled.
    now: Instant,
    utc: UtcMs,
    actions: Vec<Action>,
}

impl Pusher {
    /// Starts from what the disk has stored.
    pub fn new(setup: Setup, stored: Stored, looks: Looks, now: Instant, utc: UtcMs) -> Self {
        // What the disk knew last is taken for true until the first sweep corrects it.
        let mut trees = Trees::resume(stored.base, Side::Alpha, stored.seen_known);
        for (path, trail) in stored.trails {
            trees.came_through(Side::Alpha, path, trail);
        }
        let last_batch = trees
            .base()
            .values()
            .map(|row| row.batch)
            .max()
            .unwrap_or_default();
        let mut notes = stored.notes;
        notes.last_batch = notes.last_batch.max(last_batch);
        let resolved = notes.resolved;
        let rows_unresolved = trees.base().values().filter(|row| row.batch > resolved);
        let rows_unresolved = rows_unresolved.count();
        let guard = Guard::new(setup.limits);
        let mut pusher = Self {
            setup,
            trees,
            looks,
            notes,
            index: stored.index,
            peer: Peer::default(),
            greeting_commit: None,
            due: BTreeSet::new(),
            undecided: Vec::new(),
            batches: Batches::default(),
            rows_unresolved,
            unannounced: Vec::new(),
            holds: Holds::default(),
            lease: LeaseView::default(),
            untracked: BTreeSet::new(),
            copies: BTreeSet::new(),
            beta_sweeps: 0,
            waiting: Vec::new(),
            asked_status: Vec::new(),
            passed_on: BTreeSet::new(),
            halted: None,
            guard,
            alarm: None,
            gathering: None,
            beta_moves: false,
            pages_left: 0,
            beta_folds: false,
            decisions: Decisions::default(),
            twins: BTreeMap::new(),
            degraded: Vec::new(),
            rules_differ: false,
            last_proof: None,
            foretold: None,
            last_change: None,
            pending_since: None,
            was_settled: false,
            now,
            utc,
            actions: Vec::new(),
        };
        pusher.find_copies();
        // As long as nothing was agreed, the rules of this side hold from the start; and a process may
        // have ended after it had agreed on rules and before it had read them.
        pusher.actions.push(Action::ReadRules);
        pusher
    }

    /// Takes an event and returns what has to be done.
    pub fn apply(&mut self, event: Event, now: Instant, utc: UtcMs) -> Vec<Action> {
        (self.now, self.utc) = (now, utc);
        match event {
            Event::Observed(rows) => self.observed(Side::Alpha, rows),
            Event::Passed(rows) => self.passed(Side::Alpha, rows),
            Event::Applied(batch, outcomes) => self.applied(Side::Alpha, batch, outcomes),
            Event::Racy(paths) => self.looks.racy(paths, self.now),
            Event::Looked { sweep, result } => self.looked(sweep, result),
            Event::Committed(batch) => self.committed(batch),
            Event::DiskFailed(text) => self.halt(
                "halted.disk",
                text,
                "check the disk, then start the daemon again",
            ),
            Event::Hint(hint) => self.hint(hint),
            Event::Linked => self.peer.link(self.now),
            Event::Frame(frame) => self.frame(frame),
            Event::Unlinked(reason) => self.unlinked(reason),
            Event::Paired(pair, peer) => {
                self.setup.pair = Some(pair);
                self.setup.peer = peer;
            }
            Event::RulesRead(file) => self.rules_read(file),
            Event::Asked(client, request) => self.asked(client, request),
            Event::Role(role) => self.role_changed(role),
            Event::Tick => {}
        }
        self.advance();
        std::mem::take(&mut self.actions)
    }

    /// Returns when [`Event::Tick`] has to come at the latest.
    pub fn next_tick(&self) -> Option<Instant> {
        let proof = self
            .last_proof
            .as_ref()
            .map(|(_, at)| *at + self.proof_interval());
        [
            self.looks.next(),
            self.holds.next_retry(),
            self.next_answer(),
            proof,
            self.unsettled_at().filter(|at| *at > self.now),
            // Without a plan that waits, its time means nothing.
            self.gathering
                .filter(|_| !self.due.is_empty() && self.may_plan())
                .map(|gathering| gathering.again),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Plans what is due and hands out work.
    fn advance(&mut self) {
        while let Some(look) = self.looks.poll(self.now) {
            self.actions.push(Action::Look(look));
        }
        self.due.extend(self.holds.take_due(self.now));
        if self.may_reconsider() {
            self.reconsider();
        }
        if self.may_plan() {
            self.plan();
            self.dispatch();
        }
        self.prove();
    }

    fn may_plan(&self) -> bool {
        self.may_reconsider() && self.alarm.is_none()
    }

    /// Says whether a plan means anything now, also one that is halted.
    fn may_reconsider(&self) -> bool {
        self.peer.is_ready()
            && self.greeting_commit.is_none()
            && self.looks.has_swept()
            && !self.notes.paused
            && self.halted.is_none()
    }

    /// Returns the side whose version keeps the path in a conflict: the primary's, or that of the last
    /// one. Before there was any, the pusher's.
    fn primary(&self) -> Side {
        self.lease.lease.holder.map_or(Side::Alpha, NodeSide::tree)
    }

    fn policy(&self) -> Policy<'_> {
        let naming = Naming {
            alpha: self.setup.node.clone(),
            beta: self.setup.peer.clone(),
            now: self.utc,
        };
        Policy {
            mode: self.setup.mode,
            primary: self.primary(),
            naming,
            conflicts: &self.setup.conflicts,
            decisions: &self.decisions,
            folds: [self.setup.folds, self.beta_folds],
        }
    }

    /// Returns what would make everything equal now.
    fn whole_plan(&self) -> Plan {
        reconcile(
            &self.trees,
            &self.unsettled(),
            &|path| self.batches.is_busy(path),
            &self.policy(),
        )
    }

    fn plan(&mut self) {
        if self.due.is_empty() || self.batches.is_full() || self.gathers() || self.pages_left > 0 {
            return;
        }
        let mut plan = reconcile(
            &self.trees,
            &self.due,
            &|path| self.batches.is_busy(path),
            &self.policy(),
        );
        if !self.pass(&plan) {
            return;
        }
        with_moves(&self.trees, &mut plan, &|path| {
            self.batches.has_failed_to_move(path)
        });
        for path in std::mem::take(&mut self.due) {
            self.holds.release(&path);
            self.untracked.remove(&path);
        }
        for conflict in plan.conflicts {
            self.tell(Happening::Conflict {
                path: conflict.path,
                copy: conflict.copy,
            });
        }
        for (path, hold) in plan.held {
            if let Hold::Twin(_, twin) = &hold {
                self.twins.insert(twin.clone(), path.clone());
            }
            let problem = holds::problem_of(&path, &hold);
            if self
                .holds
                .hold(path.clone(), problem.clone(), self.now, self.utc)
            {
                self.tell(Happening::Held(problem));
            }
            self.waited_for(&path);
        }
        self.undecided.extend(plan.undecided);
        for path in plan.untracked {
            self.waited_for(&path);
            self.untracked.insert(path);
        }
        for (_, op) in &plan.ops {
            self.holds.release(&op.path);
        }
        self.agree_on(plan.agree);
        self.batches.enqueue(plan.ops, plan.moved);
    }

    /// Moves the base at paths that are equal on both sides already. Nobody wrote these through us, so
    /// nobody has made them durable yet: first this side does, then the receiver, and only when both
    /// have is the base of this side moved. A power cut on either side before that would else pass for
    /// a deletion.
    fn agree_on(&mut self, rows: Vec<(RelPath, Option<Entry>)>) {
        if rows.is_empty() {
            return;
        }
        let batch = self.next_batch();
        let found = rows
            .into_iter()
            .map(|(path, entry)| (path, BaseRow { entry, batch }))
            .collect();
        let committing = Committing {
            found,
            ..Committing::default()
        };
        self.commit(batch, committing, Durable::Tree);
    }

    fn next_batch(&mut self) -> Gen {
        self.notes.last_batch = self.notes.last_batch.next();
        self.notes.last_batch
    }

    /// Makes rows durable here.
    fn commit(&mut self, batch: Gen, rows: Committing, first: Durable) {
        let stored = rows.rows.clone();
        self.rows_unresolved += stored.len();
        // Before the notes say up to where all is stored: these rows are not, least of all over there.
        self.batches.committing(batch, rows);
        self.resolve();
        self.actions.push(Action::Commit {
            batch,
            rows: stored,
            notes: self.notes.clone(),
            first,
        });
    }

    /// Stores that the receiver has all rows, too, when there are many that a restart would send again. It is
    /// no change, so nothing waits for it.
    fn note_resolved(&mut self) {
        if self.rows_unresolved < ROWS_TOLD_AGAIN_MAX || self.batches.first_open().is_some() {
            return;
        }
        self.rows_unresolved = 0;
        let batch = self.next_batch();
        self.resolve();
        self.actions.push(Action::Commit {
            batch,
            rows: Vec::new(),
            notes: self.notes.clone(),
            first: Durable::Nothing,
        });
    }

    fn committed(&mut self, batch: Gen) {
        self.greeting_commit.take_if(|awaited| *awaited == batch);
        let Some(committed) = self.batches.committed(batch) else {
            return;
        };
        for (path, row) in committed.rows {
            self.settle(&path, row);
        }
        self.announce(batch, &committed.announce);
        if self.peer.is_ready() {
            self.announce(batch, &committed.found);
            self.batches.await_noted(batch, committed.found);
        } else {
            self.batches.abandon(&committed.found);
        }
    }

    /// Takes it that the receiver has stored rows of a batch that it was told of in one frame.
    fn noted(&mut self, batch: Gen) {
        let rows = self.batches.noted(batch);
        if !rows.is_empty() {
            let committing = Committing {
                rows,
                ..Committing::default()
            };
            self.commit(batch, committing, Durable::Nothing);
        }
    }

    /// Tells the receiver about rows that are durable here. Without a link it learns of them when it
    /// comes back, because their batch stays unresolved.
    fn announce(&mut self, batch: Gen, rows: &[AgreedRow]) {
        if rows.is_empty() {
            return;
        }
        if !self.peer.is_ready() {
            if self.peer.is_greeting() {
                self.unannounced.push((batch, rows.to_vec()));
            }
            return;
        }
        for rows in pages(rows) {
            self.batches.announced(batch);
            self.actions
                .push(Action::Send(Frame::Agreed(batch, rows.to_vec())));
        }
    }

    /// Moves the base in memory, where it is durable already.
    fn settle(&mut self, path: &RelPath, row: BaseRow) {
        let before = self.trees.agreed(path).cloned();
        let entry = row.entry.clone();
        self.agree(path.clone(), row);
        self.due.extend(self.twins.remove(path));
        self.last_change = Some(self.utc);
        self.agreed_at(path, entry.as_ref());
        if before != entry {
            self.keep_base(path, entry.as_ref());
        }
        if *path == rules_path() && before != entry {
            self.actions.push(Action::ReadRules);
        }
        if self.is_apart(path) || self.trees.has_trail(path) {
            self.due.insert(path.clone());
        }
        if !entry.as_ref().is_some_and(Entry::is_dir) {
            self.plan_below(path);
        }
        self.due.extend(self.undecided.drain(..));
    }

    /// Has everything below a path planned: while something stood there that is no directory, or was to,
    /// nothing below was planned by itself.
    fn plan_below(&mut self, path: &RelPath) {
        for side in [Side::Alpha, Side::Beta] {
            let view = self.trees.view(side);
            let left = below(view.apart(), path).map(|(path, _)| path);
            let left = left.chain(below(view.trails(), path).map(|(path, _)| path));
            self.due.extend(left.cloned());
        }
    }

    fn agree(&mut self, path: RelPath, row: BaseRow) {
        if copy_of(&path).is_some() {
            match row.entry {
                Some(_) => self.copies.insert(path.clone()),
                None => self.copies.remove(&path),
            };
        }
        self.trees.agree(path, row);
    }

    fn find_copies(&mut self) {
        let there = self
            .trees
            .base()
            .iter()
            .filter(|(_, row)| row.entry.is_some());
        self.copies = there
            .map(|(path, _)| path)
            .filter(|path| copy_of(path).is_some())
            .cloned()
            .collect();
    }

    fn is_apart(&self, path: &RelPath) -> bool {
        [Side::Alpha, Side::Beta]
            .iter()
            .any(|side| self.trees.view(*side).apart().contains_key(path))
    }

    fn observed(&mut self, side: Side, rows: Vec<(RelPath, Sight)>) {
        for (path, sight) in rows {
            if side == Side::Alpha && path.as_str() == RULES_FILE {
                // It may be the agreed one again, which was another one when it was read.
                self.actions.push(Action::ReadRules);
            }
            self.trees.observe(side, path.clone(), sight);
            self.due.extend(self.twins.remove(&path));
            self.due.insert(path);
        }
    }

    /// Takes what a side's tree came through by the mirror, with what stands there.
    fn passed(&mut self, side: Side, rows: Vec<TrailRow>) {
        let mut seen = Vec::with_capacity(rows.len());
        for (path, sight, trail) in rows {
            self.trees.came_through(side, path.clone(), trail);
            seen.push((path, sight));
        }
        self.observed(side, seen);
    }

    fn looked(&mut self, sweep: bool, result: Result<Vec<RelPath>, String>) {
        if std::mem::take(&mut self.rules_differ) {
            self.actions.push(Action::ReadRules);
        }
        match (sweep, result) {
            (true, Ok(again)) => {
                let first = !self.looks.has_swept();
                let answered = self.looks.swept(again, self.now);
                self.swept(Side::Alpha, &answered);
                if self
                    .halted
                    .as_ref()
                    .is_some_and(|problem| problem.code == "halted.root")
                {
                    self.halted = None;
                }
                if first {
                    self.due.extend(self.unsettled());
                }
            }
            (false, Ok(again)) => self.looks.looked(again, self.now),
            (sweep, Err(text)) => {
                if sweep {
                    self.looks.sweep_failed(self.now);
                } else {
                    self.looks.looked(Vec::new(), self.now);
                }
                self.halt(
                    "halted.root",
                    text,
                    "bring the folder back, and the sync goes on by itself; or accept what is there now: `layer-sync confirm root`",
                );
            }
        }
    }

    /// Returns where there is something to agree on: the sides are apart, or came by the mirror to what they are.
    fn unsettled(&self) -> BTreeSet<RelPath> {
        let views = [Side::Alpha, Side::Beta].map(|side| self.trees.view(side));
        let paths = views.map(|view| view.apart().keys().chain(view.trails().keys()));
        paths.into_iter().flatten().cloned().collect()
    }

    fn hint(&mut self, hint: disk::watch::Hint) {
        match hint {
            disk::watch::Hint::Path(path) => self.looks.hint(path, false, self.now),
            disk::watch::Hint::Closed(path) => {
                // A directory that is not known may just have been renamed, and its old name has to be looked at
                // with it.
                let above = path.parent().map(|dir| self.trees.sight(Side::Alpha, &dir));
                let is_known = above.is_none_or(|above| above == Sight::Is(Entry::Dir));
                self.looks.hint(path, is_known, self.now);
            }
            disk::watch::Hint::Sweep(_) => self.looks.sweep(),
            disk::watch::Hint::Degraded(text) => {
                self.looks.degrade(self.now);
                self.degraded.push(Problem {
                    code: "degraded.watch".into(),
                    severity: control::Health::Degraded,
                    path: None,
                    text,
                    fix: "raise fs.inotify.max_user_watches; until then every change is found by the sweep".into(),
                });
            }
        }
    }

    fn halt(&mut self, code: &str, text: String, fix: &str) {
        let problem = Problem {
            code: code.into(),
            severity: control::Health::Halted,
            path: None,
            text,
            fix: fix.into(),
        };
        if self.halted.as_ref() != Some(&problem) {
            self.halted = Some(problem.clone());
            self.tell(Happening::Halted(problem));
        }
    }

    /// Sends what is known about the equality of the trees, when it has changed or is due.
    fn prove(&mut self) {
        let settled = self.is_settled();
        if settled && !self.was_settled {
            let view = self.trees.view(Side::Alpha);
            let (files, bytes) = (view.files(), view.bytes());
            self.tell(Happening::Settled { files, bytes });
            self.trees.pack();
        }
        self.was_settled = settled;
        if settled {
            self.note_resolved();
            self.pending_since = None;
        } else {
            self.pending_since.get_or_insert(self.now);
        }
        self.send_proof(settled);
        // After the proof, so that the receiver knows it when the answer is out.
        self.answer_waiting();
        self.answer_status();
    }

    fn send_proof(&mut self, settled: bool) {
        if !self.peer.is_ready() {
            return;
        }
        let due = match &self.last_proof {
            None => true,
            Some((last, at)) => {
                let at = self.pending_since.map_or(*at, |since| since.max(*at));
                let waited = self.now.saturating_duration_since(at);
                let changed = last.settled != settled
                    || settled && (last.alpha, last.beta()) != self.hashes()
                    || last.sync.held != self.holds.len();
                changed && (settled || waited >= UNSETTLED_WAIT) || waited >= self.proof_interval()
            }
        };
        if due {
            let proof = self.proof(settled);
            let foretold = self.foretold.take() == Some(proof.alpha.beginning());
            let same_else = self.last_proof.as_ref().is_some_and(|(last, _)| {
                (&last.problems, last.paused) == (&proof.problems, proof.paused)
            });
            let is_known = settled && foretold && proof.beta.is_none() && same_else;
            if !is_known {
                self.actions.push(Action::Send(Frame::Proof(proof.clone())));
            }
            self.last_proof = Some((proof, self.now));
        }
    }

    /// While something waits, the receiver hears ever more rarely of it.
    fn proof_interval(&self) -> Duration {
        match self.pending_since {
            None => self.setup.interval,
            Some(since) => self
                .now
                .saturating_duration_since(since)
                .max(Duration::from_secs(1))
                .min(self.setup.interval),
        }
    }

    /// Returns when the receiver has to be told that the trees are not equal any more.
    fn unsettled_at(&self) -> Option<Instant> {
        let told = self
            .last_proof
            .as_ref()
            .is_some_and(|(last, _)| !last.settled);
        self.pending_since
            .filter(|_| !told && self.peer.is_ready())
            .map(|since| since + UNSETTLED_WAIT)
    }

    fn hashes(&self) -> (shared::hash::SetHash, shared::hash::SetHash) {
        (
            self.trees.view(Side::Alpha).hash(),
            self.trees.view(Side::Beta).hash(),
        )
    }

    fn role_changed(&mut self, role: LeaseView) {
        let own = (NodeSide::Pusher, self.setup.node.as_str());
        if let Some(what) = role.news_since(&self.lease, own, &self.setup.peer) {
            self.tell(what);
        }
        self.lease = role;
    }

    fn tell(&mut self, what: Happening) {
        self.actions.push(Action::Tell(Told { at: self.utc, what }));
    }
}

/// Returns the path of the rules' file.
pub(crate) fn rules_path() -> RelPath {
    // The constant is a plain name.
    RelPath::parse(RULES_FILE).unwrap_or_else(|_| unreachable!())
}

fn side_name(side: Side) -> NodeSide {
    match side {
        Side::Alpha => NodeSide::Pusher,
        Side::Beta => NodeSide::Receiver,
    }
}

/// Returns what a giver has to send for a batch.
pub(crate) fn items(batch: &Batch) -> Vec<Item> {
    let ops = (0..).zip(&batch.ops);
    ops.filter_map(|(index, op)| Item::of(index, op)).collect()
}

#[cfg(test)]
mod tests;
