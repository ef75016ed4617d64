//! What the receiver knows, and what it does about it.
//!
//! It keeps its base and what its disk saw, reports where the two are apart, carries out the batches
//! that the pusher plans, and stores the base rows that the pusher announces. It never decides what
//! to change, and never promotes itself to anything.
//!
//! Invariants:
//! * Nothing is reported before the whole tree has been looked at under the agreed rules.
//! * What is reported and what became of a batch leave in the order in which they became true.

mod answers;
mod rules;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use disk::looks::Looks;
use disk::watch::Hint;
use disk::{Look, Notes, RulesFile, Stored};
use shared::control::{
    self, Change, Event as Told, Happening, LeaseView, NodeSide, Problem, Request, Response,
};
use shared::ignore::{RULES_FILE, Rules};
use shared::path::RelPath;
use shared::transfer::{Batch, Item, Need, Op, Outcome, TAKING_MAX, moved_ops};
use shared::tree::{BaseRow, Entry, GEN_GROWTH_MAX, Gen, PATHS_MAX, Side, Sight, Trees};
use shared::utc::UtcMs;
use shared::wire::{
    AgreedRow, Frame, Hello, IndexId, PROTOCOL_VERSION, PairId, Proof, SeenRow, TrailRow, Welcome,
    pages,
};

/// Said to a pusher whose batch numbers would use up those that are left.
const FAR_BEYOND: &str = "the pusher's batch numbers are far beyond all before";
/// So many numbers may the pusher have used for batches, at most, of which this side has not heard when the link ends: those of what it
/// was taking, and of what it noted for itself meanwhile. It goes on after them.
const UNHEARD_MAX: u64 = 64;
/// Sweeps that the pusher may wait for at one time: one for each of its clients that flushes.
const SWEEPS_MAX: usize = 1024;

/// What does not change while the receiver runs.
#[derive(Debug, Clone)]
pub struct Setup {
    /// This node's name.
    pub node: String,
    /// The root of its tree, for people.
    pub root: String,
    /// The program's version, for people.
    pub version: String,
    /// The pair.
    pub pair: PairId,
    /// The pusher's name, as far as known.
    pub peer: String,
    /// Where the pusher is, for people.
    pub peer_address: String,
    /// The cycle.
    pub interval: Duration,
    /// Whether this side's volume folds case or normalization.
    pub folds: bool,
}

/// A client that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// On this machine.
    Local(u64),
    /// On the pusher's machine.
    Remote(u64),
}

/// What happens to the receiver.
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
    /// Base rows of a batch are durable here.
    Committed(Gen),
    /// The disk cannot be used.
    DiskFailed(String),
    /// The watcher says that something moved.
    Hint(Hint),
    /// The pusher was reached.
    Linked,
    /// A frame of the control stream.
    Frame(Frame),
    /// A batch has begun to arrive on a stream of its own.
    Batch(Batch),
    /// The pusher has sent what no honest one sends.
    Violation(String),
    /// The connection has ended, or could not be made.
    Unlinked(String),
    /// The rules' file of this side was read; `None` when there is none.
    RulesRead(Option<RulesFile>),
    /// A client asks.
    Asked(Client, Request),
    /// Who is primary has changed, or is told for the first time.
    Role(LeaseView),
    /// Time has passed.
    Tick,
}

/// What the receiver wants done.
#[derive(Debug)]
pub enum Action {
    /// Look at the tree; ends as [`Event::Looked`].
    Look(Look),
    /// Send a frame on the control stream.
    Send(Frame),
    /// Send the content of these files on a stream of its own.
    Give(Gen, Vec<Item>),
    /// Send chunks that the pusher asks for.
    GiveChunks(Need),
    /// Make base rows durable; ends as [`Event::Committed`].
    Commit {
        /// Their batch.
        batch: Gen,
        /// The rows.
        rows: Vec<AgreedRow>,
        /// What is stored with them.
        notes: Notes,
    },
    /// Accept the folder as it is now: end, and begin anew with an empty index.
    AcceptRoot,
    /// Apply these rules from now on.
    SetRules(Rules),
    /// Read the rules' file of this side; ends as [`Event::RulesRead`].
    ReadRules,
    /// Answer a client.
    Answer(Client, Response),
    /// Serve a request of a client that needs the disk.
    Serve(Client, Request),
    /// Tell those who listen.
    Tell(Told),
    /// End the connection, with a sentence for the other side.
    Unlink(String),
}

/// How far the greeting has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Away,
    /// Hello is sent.
    Connected,
    /// The pusher is sending base rows.
    Welcomed,
    /// The pusher waits to hear what is here, as soon as the tree has been looked at and the rows
    /// are durable.
    Telling,
    Ready,
    /// The pusher has done what no honest one does. What still arrives is not looked at.
    Refused,
}

/// The receiver's state machine.
pub struct Receiver {
    setup: Setup,
    /// The pusher's side of it is always taken to be the base: planning needs it, telling does not.
    trees: Trees,
    looks: Looks,
    notes: Notes,
    index: IndexId,
    lease: LeaseView,
    phase: Phase,
    /// The last batch known when this connection began.
    greeted_at: Gen,
    /// Rows up to this batch are stored on both sides.
    resolved: Gen,
    /// Commits that are not durable yet, with what has to be said when they are.
    committing: BTreeMap<Gen, Vec<Committing>>,
    /// Batches that are being taken, also those of a connection that has ended.
    taking: BTreeMap<Gen, Batch>,
    /// Sweeps that the pusher waits for: our number and its number.
    sweeps: BTreeMap<u64, u64>,
    /// Whether the tree still has to be swept under new rules.
    rules_sweep: Option<u64>,
    /// Clients of this machine whose request the pusher is serving.
    passed_on: BTreeMap<u64, Request>,
    /// Clients that asked for the status, and when they are answered at the latest.
    asked_status: Vec<(Client, Instant)>,
    /// Requests to pass on when the link is up.
    unsent: Vec<(u64, Request)>,
    proof: Option<Proof>,
    halted: Option<Problem>,
    degraded: Vec<Problem>,
    /// Whether the rules' file was not the agreed one when it was read. It may become that again without
    /// a look that notices.
    rules_differ: bool,
    /// Whether the pusher was told that more is being looked at.
    told_moving: bool,
    last_heard: Option<Instant>,
    last_change: Option<UtcMs>,
    unlinked_reason: String,
    was_settled: bool,
    now: Instant,
    utc: UtcMs,
    actions: Vec<Action>,
}

#[derive(Debug)]
struct Committing {
    rows: Vec<AgreedRow>,
    /// How many of their paths were not in the base when they came.
    unknown: usize,
    note: bool,
}

impl Receiver {
    /// Starts from what the disk has stored.
    pub fn new(setup: Setup, stored: Stored, looks: Looks, now: Instant, utc: UtcMs) -> Self {
        // What the disk knew last is taken for true until the first sweep corrects it.
        let mut trees = Trees::resume(stored.base, Side::Beta, stored.seen_known);
        for (path, trail) in stored.trails {
            trees.came_through(Side::Beta, path, trail);
        }
        let last_batch = trees
            .base()
            .values()
            .map(|row| row.batch)
            .max()
            .unwrap_or_default();
        let mut notes = stored.notes;
        notes.last_batch = notes.last_batch.max(last_batch);
        Self {
            setup,
            trees,
            looks,
            greeted_at: notes.last_batch,
            resolved: notes.resolved,
            notes,
            index: stored.index,
            lease: LeaseView::default(),
            phase: Phase::Away,
            committing: BTreeMap::new(),
            taking: BTreeMap::new(),
            sweeps: BTreeMap::new(),
            rules_sweep: None,
            passed_on: BTreeMap::new(),
            asked_status: Vec::new(),
            unsent: Vec::new(),
            proof: None,
            halted: None,
            degraded: Vec::new(),
            rules_differ: false,
            told_moving: false,
            last_heard: None,
            last_change: None,
            unlinked_reason: "it was not reached yet".into(),
            was_settled: false,
            now,
            utc,
            actions: Vec::new(),
        }
    }

    /// Takes an event and returns what has to be done.
    pub fn apply(&mut self, event: Event, now: Instant, utc: UtcMs) -> Vec<Action> {
        (self.now, self.utc) = (now, utc);
        match event {
            Event::Observed(rows) => self.observed(&rows),
            Event::Passed(rows) => self.passed(&rows),
            Event::Applied(batch, outcomes) => self.applied(batch, outcomes),
            Event::Racy(paths) => self.looks.racy(paths, self.now),
            Event::Looked { sweep, result } => self.looked(sweep, result),
            Event::Committed(batch) => self.committed(batch),
            Event::DiskFailed(text) => self.halt(
                "halted.disk",
                text,
                "check the disk, then start the daemon again",
            ),
            Event::Hint(hint) => self.hint(hint),
            Event::Linked => self.linked(),
            Event::Frame(frame) => self.frame(frame),
            Event::Batch(batch) => drop(self.taking.insert(batch.number, batch)),
            Event::Violation(reason) => self.refuse_pusher(reason),
            Event::Unlinked(reason) => self.unlinked(reason),
            Event::RulesRead(file) => self.rules_read(file),
            Event::Asked(client, request) => self.asked(client, request),
            Event::Role(role) => self.role_changed(role),
            Event::Tick => {}
        }
        while let Some(look) = self.looks.poll(self.now) {
            self.actions.push(Action::Look(look));
        }
        self.tell_if_asked();
        if self.told_moving && self.looks.is_idle() {
            self.told_moving = false;
            self.actions.push(Action::Send(Frame::Moving(false)));
        }
        self.note_settled();
        self.answer_status();
        std::mem::take(&mut self.actions)
    }

    /// Returns when [`Event::Tick`] has to come at the latest.
    pub fn next_tick(&self) -> Option<Instant> {
        let status = self.asked_status.iter().map(|(_, until)| *until);
        status.chain(self.looks.next()).min()
    }

    /// Says whether the pusher should be dialled: not while this side waits for a person.
    pub fn wants_link(&self) -> bool {
        self.halted.is_none()
    }

    /// Returns the batch up to which all rows are stored on both sides.
    pub fn resolved(&self) -> Gen {
        self.resolved
    }

    // The tree

    fn observed(&mut self, rows: &[SeenRow]) {
        for (path, sight) in rows {
            self.saw(path, sight);
        }
        if self.phase == Phase::Ready {
            self.send_seen(rows);
        }
    }

    fn saw(&mut self, path: &RelPath, sight: &Sight) {
        if path.as_str() == RULES_FILE {
            // It may be the agreed one again, which was another one when it was read.
            self.actions.push(Action::ReadRules);
        }
        self.trees.observe(Side::Beta, path.clone(), sight.clone());
    }

    /// Takes what this tree came through by the mirror, with what stands there.
    fn passed(&mut self, rows: &[TrailRow]) {
        for (path, sight, trail) in rows {
            self.saw(path, sight);
            self.trees
                .came_through(Side::Beta, path.clone(), trail.clone());
        }
        if self.phase == Phase::Ready {
            self.send_trails(rows);
        }
    }

    fn send_trails(&mut self, rows: &[TrailRow]) {
        for rows in pages(rows) {
            self.actions
                .push(Action::Send(Frame::Trails(rows.to_vec())));
        }
    }

    fn send_seen(&mut self, rows: &[SeenRow]) {
        if !self.told_moving && !self.looks.is_idle() {
            self.told_moving = true;
            self.actions.push(Action::Send(Frame::Moving(true)));
        }
        let is_gone = |(_, sight): &SeenRow| *sight == Sight::Absent;
        let count = pages(rows).count();
        if count > 1 && rows.iter().any(is_gone) && !rows.iter().all(is_gone) {
            self.actions
                .push(Action::Send(Frame::Together(count as u32)));
        }
        for rows in pages(rows) {
            self.actions.push(Action::Send(Frame::Seen(rows.to_vec())));
        }
    }

    fn looked(&mut self, sweep: bool, result: Result<Vec<RelPath>, String>) {
        if std::mem::take(&mut self.rules_differ) {
            self.actions.push(Action::ReadRules);
        }
        match (sweep, result) {
            (true, Ok(again)) => {
                if self
                    .halted
                    .as_ref()
                    .is_some_and(|problem| problem.code == "halted.root")
                {
                    self.halted = None;
                }
                for ours in self.looks.swept(again, self.now) {
                    if self.rules_sweep == Some(ours) {
                        self.rules_sweep = None;
                    }
                    if let Some(theirs) = self.sweeps.remove(&ours) {
                        self.actions
                            .push(Action::Send(Frame::Swept(theirs, self.hash())));
                    }
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

    fn hint(&mut self, hint: Hint) {
        match hint {
            Hint::Path(path) => self.looks.hint(path, false, self.now),
            Hint::Closed(path) => {
                // A directory that is not known may just have been renamed, and its old name has to be looked at
                // with it.
                let above = path.parent().map(|dir| self.trees.sight(Side::Beta, &dir));
                let is_known = above.is_none_or(|above| above == Sight::Is(Entry::Dir));
                self.looks.hint(path, is_known, self.now);
            }
            Hint::Sweep(_) => self.looks.sweep(),
            Hint::Degraded(text) => {
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
            self.tell(Happening::Halted(problem.clone()));
            // Without a link nothing is planned, so nothing can be inferred from an empty root.
            self.actions.push(Action::Unlink(format!(
                "the receiver has halted: {}",
                problem.text
            )));
        }
    }

    fn hash(&self) -> shared::hash::SetHash {
        self.trees.view(Side::Beta).hash()
    }

    // The greeting (the order of frames is in `pusher::state::greeting`)

    fn linked(&mut self) {
        self.phase = Phase::Connected;
        self.told_moving = false;
        self.greeted_at = self.notes.last_batch;
        self.last_heard = Some(self.now);
        self.actions.push(Action::Send(Frame::Hello(Hello {
            version: PROTOCOL_VERSION,
            pair: self.setup.pair,
            node: self.setup.node.clone(),
            index: self.index,
            base_of: self.notes.base_of,
            last_batch: self.notes.last_batch,
        })));
    }

    fn frame(&mut self, frame: Frame) {
        self.last_heard = Some(self.now);
        match (self.phase, frame) {
            (Phase::Connected, Frame::Welcome(welcome)) => self.welcome(welcome),
            (Phase::Welcomed, Frame::Start) => self.phase = Phase::Telling,
            (Phase::Welcomed | Phase::Ready, Frame::Agreed(batch, rows)) => {
                self.agreed(batch, rows);
            }
            (Phase::Ready, Frame::TellAll) => self.tell_all(),
            (Phase::Ready, Frame::Sweep(id)) => self.sweep_for_pusher(id, false),
            (Phase::Ready, Frame::SweepDeep(id)) => self.sweep_for_pusher(id, true),
            (Phase::Ready, Frame::Fetch(batch, items)) => {
                self.actions.push(Action::Give(batch, items));
            }
            (Phase::Ready, Frame::Need(need)) => self.actions.push(Action::GiveChunks(need)),
            (Phase::Ready, Frame::Proof(proof)) => self.proved(proof),
            (Phase::Ready, Frame::Ask(id, request)) => self.asked_by_peer(id, &request),
            (Phase::Refused, _) => {}
            (Phase::Ready, Frame::Answer(id, response)) => self.answered_by_peer(id, &response),
            (_, Frame::Refuse(reason)) => self.actions.push(Action::Unlink(reason)),
            (_, Frame::Unknown(_)) => {}
            (_, other) => {
                self.refuse_pusher(format!(
                    "a {} frame came when none was expected",
                    other.name()
                ));
            }
        }
    }

    /// Says whether no honest pusher can have come so far in this connection.
    fn is_far(&self, batch: Gen) -> bool {
        self.greeted_at.is_behind(batch, GEN_GROWTH_MAX)
    }

    /// Ends the link, with the first reason; what else was on its way is refused in silence.
    fn refuse_pusher(&mut self, reason: String) {
        if self.phase == Phase::Refused {
            return;
        }
        self.actions
            .push(Action::Send(Frame::Refuse(reason.clone())));
        self.actions.push(Action::Unlink(reason));
        self.phase = Phase::Refused;
    }

    /// Says why a batch is not to be taken; `None` for any that an honest pusher sends.
    pub fn refuses(&self, batch: &Batch) -> Option<String> {
        let number = batch.number.0;
        if self.phase != Phase::Ready {
            return Some(format!(
                "batch {number} came before the greeting was complete"
            ));
        }
        if self.taking.len() >= TAKING_MAX {
            return Some(format!(
                "batch {number} is one more than {TAKING_MAX} at one time"
            ));
        }
        if self.taking.contains_key(&batch.number) || batch.number <= self.resolved {
            return Some(format!("batch {number} has come before"));
        }
        if self.is_far(batch.number) {
            return Some(FAR_BEYOND.into());
        }
        // A later batch has settled the path, so this one is old.
        let newer = batch.ops.iter().find(|op| {
            let from = op.moves().map(|(from, _)| from);
            let rows = [Some(&op.path), from].map(|path| self.trees.base().get(path?));
            rows.into_iter()
                .flatten()
                .any(|row| row.batch >= batch.number)
        });
        newer.map(|op| {
            format!(
                "batch {number} is older than what was agreed on \"{}\"",
                op.path
            )
        })
    }

    fn welcome(&mut self, welcome: Welcome) {
        if welcome.version != PROTOCOL_VERSION {
            let reason = format!(
                "the pusher speaks version {} of the protocol and the receiver version {PROTOCOL_VERSION}; \
                 install the same layer-sync on both machines",
                welcome.version
            );
            return self.refuse_pusher(reason);
        }
        if self.is_far(welcome.resolved) {
            return self.refuse_pusher(FAR_BEYOND.into());
        }
        self.phase = Phase::Welcomed;
        self.setup.peer = welcome.node;
        self.notes.base_of = Some(welcome.index);
        let mut rows = Vec::new();
        if welcome.base_kept {
            self.resolved = self.resolved.max(welcome.resolved);
        } else {
            self.resolved = welcome.resolved;
            let batch = welcome.resolved;
            rows = self
                .trees
                .base()
                .keys()
                .map(|path| (path.clone(), BaseRow { entry: None, batch }))
                .collect();
            self.trees.forget_base();
        }
        match Rules::parse(&welcome.ignore) {
            Ok(rules) => self.set_rules(rules),
            Err(refused) => self.rules_refused(&refused),
        }
        let rules_file = RelPath::parse(RULES_FILE).ok();
        if rules_file.is_some_and(|path| self.trees.agreed(&path).is_some()) {
            // This side may have stored the agreement on newer ones, of which the pusher learns only now.
            self.actions.push(Action::ReadRules);
        }
        self.commit(welcome.resolved, rows, false);
    }

    /// Tells the pusher where this tree is apart from the base, when it waits for that and all is
    /// known.
    fn tell_if_asked(&mut self) {
        // Batches of an earlier connection may still be being applied: they end as base rows.
        let at_rest = self.committing.is_empty() && self.taking.is_empty();
        let known = self.looks.has_swept() && self.rules_sweep.is_none() && at_rest;
        if self.phase != Phase::Telling || !known || self.halted.is_some() {
            return;
        }
        let base = self
            .trees
            .base()
            .iter()
            .filter(|(_, row)| row.batch > self.resolved);
        let bases: Vec<AgreedRow> = base
            .map(|(path, row)| (path.clone(), row.clone()))
            .collect();
        self.actions
            .push(Action::Send(Frame::Folds(self.setup.folds)));
        for rows in pages(&bases) {
            self.actions.push(Action::Send(Frame::Bases(rows.to_vec())));
        }
        let apart = self.trees.view(Side::Beta).apart();
        let seen: Vec<SeenRow> = apart
            .iter()
            .map(|(path, sight)| (path.clone(), sight.clone()))
            .collect();
        self.send_seen(&seen);
        let view = self.trees.view(Side::Beta);
        let trails: Vec<TrailRow> = view
            .trails()
            .iter()
            .map(|(path, trail)| {
                let sight = self.trees.sight(Side::Beta, path);
                (path.clone(), sight, trail.clone())
            })
            .collect();
        self.send_trails(&trails);
        self.actions.push(Action::Send(Frame::Ready(self.hash())));
        self.phase = Phase::Ready;
        let peer = self.setup.peer.clone();
        self.tell(Happening::Linked { peer });
        for (id, request) in std::mem::take(&mut self.unsent) {
            self.pass_on(id, &request);
        }
    }

    fn sweep_for_pusher(&mut self, id: u64, deep: bool) {
        if self.sweeps.len() >= SWEEPS_MAX {
            return self.refuse_pusher(format!(
                "the pusher waits for more than {SWEEPS_MAX} sweeps at one time"
            ));
        }
        let ours = if deep {
            self.looks.ask_deep()
        } else {
            self.looks.ask_sweep()
        };
        self.sweeps.insert(ours, id);
    }

    fn tell_all(&mut self) {
        let mut all: BTreeMap<RelPath, Sight> = self
            .trees
            .base()
            .iter()
            .map(|(path, row)| (path.clone(), row.entry.clone().into()))
            .collect();
        all.extend(
            self.trees
                .view(Side::Beta)
                .apart()
                .iter()
                .map(|(path, sight)| (path.clone(), sight.clone())),
        );
        all.retain(|_, sight| *sight != Sight::Absent);
        self.send_seen(&all.into_iter().collect::<Vec<_>>());
        self.actions.push(Action::Send(Frame::Ready(self.hash())));
    }

    fn unlinked(&mut self, reason: String) {
        let was_linked = self.phase != Phase::Away;
        if self.phase == Phase::Ready {
            // The pusher may have agreed on what this side has told, and what is edited here from now on comes after that.
            let known = self.notes.last_batch.0;
            self.commit(Gen(known.saturating_add(UNHEARD_MAX)), Vec::new(), false);
        }
        self.phase = Phase::Away;
        self.unlinked_reason.clone_from(&reason);
        self.proof = None;
        self.sweeps.clear();
        self.lose_waiting();
        if was_linked {
            self.tell(Happening::Unlinked { reason });
        }
    }

    // The base

    fn agreed(&mut self, batch: Gen, rows: Vec<AgreedRow>) {
        let unknown = rows
            .iter()
            .filter(|(path, _)| self.is_unknown(path))
            .count();
        let (mut waiting, mut known) = (rows.len(), self.trees.base().len() + unknown);
        for commit in self.committing.values().flatten() {
            waiting += commit.rows.len();
            known += commit.unknown;
        }
        if waiting.max(known) > PATHS_MAX {
            return self.refuse_pusher(format!(
                "the pusher tells of more than {PATHS_MAX} base rows, which is the limit"
            ));
        }
        if self.is_far(batch) || rows.iter().any(|(_, row)| self.is_far(row.batch)) {
            return self
                .refuse_pusher("the pusher's batch numbers are far beyond all before".into());
        }
        let newer: Vec<AgreedRow> = rows
            .into_iter()
            .filter(|(path, row)| {
                self.trees
                    .base()
                    .get(path)
                    .is_none_or(|ours| row.batch >= ours.batch)
            })
            .collect();
        self.commit(batch, newer, true);
    }

    fn commit(&mut self, batch: Gen, rows: Vec<AgreedRow>, note: bool) {
        self.notes.last_batch = self.notes.last_batch.max(batch);
        self.notes.resolved = self.resolved;
        self.trees.forget_tombstones(self.resolved);
        self.actions.push(Action::Commit {
            batch,
            rows: rows.clone(),
            notes: self.notes.clone(),
        });
        let unknown = rows
            .iter()
            .filter(|(path, _)| self.is_unknown(path))
            .count();
        self.committing.entry(batch).or_default().push(Committing {
            rows,
            unknown,
            note,
        });
    }

    fn is_unknown(&self, path: &RelPath) -> bool {
        !self.trees.base().contains_key(path)
    }

    fn committed(&mut self, batch: Gen) {
        let Some(mut waiting) = self.committing.remove(&batch) else {
            return;
        };
        // Commits of one batch become durable in the order in which they were asked for.
        let first = waiting.remove(0);
        if !waiting.is_empty() {
            self.committing.insert(batch, waiting);
        }
        for (path, row) in first.rows {
            self.settle(path, row);
        }
        if first.note && self.phase == Phase::Ready {
            self.actions.push(Action::Send(Frame::Noted(batch)));
        }
    }

    /// Moves the base in memory, where it is durable already.
    fn settle(&mut self, path: RelPath, row: BaseRow) {
        // A batch of the connection before may have been recorded while this row was on its way.
        let is_older = |ours: &BaseRow| ours.batch > row.batch;
        if self.trees.base().get(&path).is_some_and(is_older) {
            return;
        }
        let is_rules =
            path.as_str() == RULES_FILE && self.trees.agreed(&path) != row.entry.as_ref();
        let entry = row.entry.clone();
        self.trees.agree(path.clone(), row);
        self.trees.observe(Side::Alpha, path, entry.into());
        self.last_change = Some(self.utc);
        if is_rules {
            self.actions.push(Action::ReadRules);
        }
    }

    /// Takes what became of a batch on this side.
    fn applied(&mut self, batch: Gen, outcomes: Vec<Outcome>) {
        self.notes.last_batch = self.notes.last_batch.max(batch);
        let Some(taken) = self.taking.remove(&batch) else {
            return;
        };
        for (op, outcome) in taken.ops.iter().zip(&outcomes) {
            match outcome {
                Outcome::Done => {
                    for op in self.single_ops(op) {
                        self.done(batch, op);
                    }
                    self.tell(Happening::Changed {
                        on: NodeSide::Receiver,
                        change: Change::of(op),
                        path: op.path.clone(),
                        from: op.moves().map(|(from, _)| from.clone()),
                        len: op.make.as_ref().map_or(0, Entry::len),
                    });
                }
                Outcome::Stale => self.looks.hint(op.path.clone(), true, self.now),
                Outcome::Merged(entry) => {
                    let sight = Sight::Is(entry.clone());
                    self.trees.observe(Side::Beta, op.path.clone(), sight);
                }
                Outcome::Gone | Outcome::Held(_) | Outcome::Unmerged => {}
            }
        }
        if outcomes.iter().all(|outcome| *outcome == Outcome::Done) {
            self.settled_by(taken.settles);
        }
        if self.phase == Phase::Ready {
            self.actions
                .push(Action::Send(Frame::Applied(batch, outcomes)));
        }
    }

    /// Breaks a move into the changes of single paths that it was.
    fn single_ops(&mut self, op: &Op) -> Vec<Op> {
        let Some((from, _)) = op.moves() else {
            return vec![op.clone()];
        };
        let standing = self.trees.entries_from(Side::Beta, from);
        moved_ops(op, &standing).unwrap_or_else(|| {
            // The disk knew something else than it had told: only a look tells what is there now.
            tracing::error!(%from, to = %op.path, "what was moved is not what was known to stand there");
            self.looks.sweep();
            Vec::new()
        })
    }

    fn done(&mut self, batch: Gen, op: Op) {
        let sight = Sight::from(op.make.clone());
        self.trees.observe(Side::Beta, op.path.clone(), sight);
        if op.agrees {
            let row = BaseRow {
                entry: op.make,
                batch,
            };
            self.settle(op.path, row);
        }
    }

    fn role_changed(&mut self, role: LeaseView) {
        let own = (NodeSide::Receiver, self.setup.node.as_str());
        if let Some(what) = role.news_since(&self.lease, own, &self.setup.peer) {
            self.tell(what);
        }
        self.lease = role;
    }

    fn tell(&mut self, what: Happening) {
        self.actions.push(Action::Tell(Told { at: self.utc, what }));
    }
}

#[cfg(test)]
mod tests;
