//! Two nodes and a link, one small step at a time. Which step comes next is chance: every order of
//! things that could happen on two machines can happen here.

use std::time::{Duration, Instant};

use disk::Durable;
use shared::path::RelPath;
use shared::reconcile::Mode;
use shared::safety::Limits;
use shared::transfer::SentBatch;
use shared::tree::Side;
use shared::utc::UtcMs;

use crate::chance::Chance;
use crate::defect::Defect;
use crate::link::{Head, Link};
use crate::machine::{GUARDED, Happens, UNGUARDED};
use crate::mirror::{Third, Turn};
use crate::node::{Input, Job, Next, Node};
use crate::oracle::Oracle;
use crate::take::Taken;

pub(crate) const SIDES: [Side; 2] = [Side::Alpha, Side::Beta];
/// First wait after a link was lost, and the wait after a dial that found nobody.
const REDIAL: Duration = Duration::from_millis(200);
const REDIAL_LATER: Duration = Duration::from_secs(2);

/// The simulated world.
pub(crate) struct World {
    pub(crate) epoch: Instant,
    pub(crate) mode: Mode,
    /// What the pusher's guard lets pass.
    pub(crate) limits: Limits,
    /// The batch that waits for a person.
    pub(crate) alarm: Option<String>,
    pub(crate) nodes: [Node; 2],
    pub(crate) links: Vec<Link>,
    last_link: u64,
    pub(crate) last_stream: u64,
    pub(crate) chance: Chance,
    pub(crate) oracle: Oracle,
    /// The mirror, if there is one.
    pub(crate) third: Option<Third>,
    /// Whether what is broken gets mended at once.
    pub(crate) mending: bool,
    /// How much the machines have done besides looking and saying that all is well.
    pub(crate) work: u64,
    /// What each side last said when it was asked whether all is in sync, and what it held.
    pub(crate) said: [Option<(bool, u64)>; 2],
    /// The number of the last question.
    pub(crate) asked: u64,
    pub(crate) steps: u64,
    /// Whether what happens is printed.
    pub(crate) loud: bool,
    choices: Vec<Step>,
}

/// What can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The loop of a side handles one thing.
    Loop(Side),
    Tick(Side),
    Job(Side, usize),
    Commit(Side),
    /// The first frame on its way to a side arrives.
    Frame(usize, Side),
    /// Something of a stream arrives.
    Stream(usize, usize),
    /// A watcher tells something.
    Hear(Side),
    Dial,
    /// A side notices that a link has ended.
    Notice(usize, Side),
    Close(usize),
    Start(Side),
    /// The rounds of a side do something.
    Round(Side, Turn),
}

impl World {
    /// Makes a world in which nothing runs.
    pub(crate) fn new(
        (mode, guarded): (Mode, bool),
        epoch: Instant,
        defect: Option<Defect>,
    ) -> Self {
        let limits = match defect {
            Some(Defect::GuardAsleep) => UNGUARDED,
            _ if guarded => GUARDED,
            _ => UNGUARDED,
        };
        Self {
            epoch,
            mode,
            limits,
            alarm: None,
            nodes: SIDES.map(|side| Node::new(side, defect)),
            links: Vec::new(),
            last_link: 0,
            last_stream: 0,
            chance: Chance::new(0),
            oracle: Oracle::new(guarded),
            third: None,
            mending: false,
            work: 0,
            said: [None; 2],
            asked: 0,
            steps: 0,
            loud: false,
            choices: Vec::new(),
        }
    }

    pub(crate) fn node(&mut self, side: Side) -> &mut Node {
        &mut self.nodes[side as usize]
    }

    // Time

    /// Lets time pass on both machines.
    pub(crate) fn pass(&mut self, time: Duration) {
        for node in &mut self.nodes {
            node.mono += time;
            node.wall_ms += time.as_millis() as u64;
        }
    }

    /// Lets time pass until somebody waits no longer; returns how much it was.
    pub(crate) fn pass_to_timer(&mut self) -> Duration {
        let epoch = self.epoch;
        let timers = self.nodes.iter().flat_map(|node| {
            let redial = (node.side == Side::Beta
                && node
                    .process
                    .as_ref()
                    .is_some_and(|it| it.linked.is_none() && !it.dialling))
            .then_some(node.redial_at);
            let rounds = self.rounds_wait(node.side);
            let waits = [node.next_tick(epoch), redial, rounds];
            waits
                .into_iter()
                .flatten()
                .map(|at| at.saturating_sub(node.mono))
        });
        let wait = timers.min().unwrap_or(Duration::from_secs(1));
        let wait = wait.max(Duration::from_millis(1));
        self.pass(wait);
        wait
    }

    // Steps

    fn choose(&mut self) -> Option<Step> {
        let mut choices = std::mem::take(&mut self.choices);
        choices.clear();
        let starts = self.mending || self.chance.one_in(12);
        for node in &self.nodes {
            let side = node.side;
            let Some(process) = &node.process else {
                if starts {
                    choices.push(Step::Start(side));
                }
                continue;
            };
            if node.has_input() {
                choices.push(Step::Loop(side));
            } else if node.next_tick(self.epoch).is_some_and(|at| at <= node.mono) {
                choices.push(Step::Tick(side));
            }
            for (index, job) in process.jobs.iter().enumerate() {
                if process.is_ready(job, node.disk.applying) {
                    choices.push(Step::Job(side, index));
                }
            }
            if !process.commits.is_empty() {
                choices.push(Step::Commit(side));
            }
            if !node.unheard.is_empty() {
                choices.push(Step::Hear(side));
            }
            let dials = side == Side::Beta
                && process.linked.is_none()
                && !process.dialling
                && process.machine.wants_link()
                && node.redial_at <= node.mono;
            if dials {
                choices.push(Step::Dial);
            }
            if let Some(turn) = self.turn_of(side) {
                choices.push(Step::Round(side, turn));
            }
        }
        for (index, link) in self.links.iter().enumerate() {
            self.choose_of_link(index, link, &mut choices);
        }
        let chosen = (!choices.is_empty()).then(|| *self.chance.pick(&choices));
        self.choices = choices;
        chosen
    }

    fn choose_of_link(&self, index: usize, link: &Link, choices: &mut Vec<Step>) {
        let linked = |side: Side| {
            let process = self.nodes[side as usize].process.as_ref();
            process.is_some_and(|process| process.linked == Some(link.number))
        };
        for side in SIDES {
            if !linked(side) {
                continue;
            }
            if !link.alive && !link.given_up[side as usize] {
                choices.push(Step::Notice(index, side));
            }
            if link.alive && !link.frames[side as usize].is_empty() {
                choices.push(Step::Frame(index, side));
            }
        }
        if link.alive && link.closing {
            choices.push(Step::Close(index));
        }
        for (at, stream) in link.streams.iter().enumerate() {
            let has = stream.head.is_some() || stream.taker.is_some() && !stream.pieces.is_empty();
            if has && linked(stream.to) {
                choices.push(Step::Stream(index, at));
            }
        }
    }

    /// Takes one step; returns whether there was one to take.
    pub(crate) fn step(&mut self) -> bool {
        if self.third.is_some() {
            self.rounds_stand();
        }
        let Some(step) = self.choose() else {
            return false;
        };
        self.steps += 1;
        let took = Duration::from_millis(self.chance.next() % 3);
        self.pass(took);
        if self.loud {
            println!("    {step:?}");
        }
        match step {
            Step::Loop(side) => self.turn_loop(side),
            Step::Tick(side) => {
                self.node(side).ticked();
                self.happens(side, Happens::Tick);
            }
            Step::Job(side, index) => self.work_on(side, index),
            Step::Commit(side) => self.commit(side),
            Step::Frame(link, side) => {
                let number = self.links[link].number;
                if let Some(frame) = self.links[link].frames[side as usize].pop_front() {
                    self.input(side, Input::Frame(number, frame));
                }
            }
            Step::Stream(link, at) => self.stream_arrives(link, at),
            Step::Hear(side) => self.hear(side),
            Step::Dial => self.dial(),
            Step::Notice(link, side) => {
                let link = &mut self.links[link];
                link.given_up[side as usize] = true;
                let number = link.number;
                self.input(side, Input::Ended(number));
            }
            Step::Close(link) => self.links[link].cut(),
            Step::Start(side) => {
                let (epoch, policy) = (self.epoch, (self.mode, self.limits));
                self.node(side).start(epoch, policy);
                self.start_rounds(side);
            }
            Step::Round(side, turn) => self.take_turn(side, turn),
        }
        self.gather_hints();
        true
    }

    pub(crate) fn input(&mut self, side: Side, input: Input) {
        if let Some(process) = &mut self.node(side).process {
            process.inputs.push_back(input);
        }
    }

    fn turn_loop(&mut self, side: Side) {
        match self.node(side).next() {
            Some(Next::Happens(event)) => self.happens(side, event),
            Some(Next::Input(input)) => self.handle(side, input),
            None => {}
        }
    }

    fn handle(&mut self, side: Side, input: Input) {
        let Some(process) = &mut self.node(side).process else {
            return;
        };
        match input {
            Input::Happens(event) => self.happens(side, event),
            Input::Connected(number) => {
                process.dialling = false;
                let old = process.linked.replace(number);
                process.opened = side == Side::Beta;
                if let Some(old) = old {
                    process.hang_up(old);
                    self.end_link(side, old);
                    let reason = "the receiver has connected again".to_owned();
                    self.happens(side, Happens::Unlinked(reason));
                }
                if side == Side::Alpha {
                    self.input(side, Input::Opened(number));
                } else {
                    self.happens(side, Happens::Linked);
                }
            }
            Input::Opened(number) if process.linked == Some(number) => {
                process.opened = true;
                self.happens(side, Happens::Linked);
            }
            Input::Frame(number, frame) if process.linked == Some(number) => {
                self.happens(side, Happens::Frame(frame));
            }
            Input::Batch(number, batch, place, stream) if process.linked == Some(number) => {
                let resolved = process.machine.resolved();
                let seen = &self.node(side).disk.seen;
                let seen = |path: &RelPath| seen.row(path).map(|row| row.entry.clone());
                let batch = SentBatch::from(batch).resolve(seen);
                self.take(side, batch.clone(), (place, number), resolved, Some(number));
                for link in &mut self.links {
                    for open in link.streams.iter_mut().filter(|open| open.id == stream) {
                        open.taker = Some(batch.number);
                    }
                }
                self.happens(side, Happens::Batch(batch));
            }
            Input::Ended(number) if process.linked == Some(number) => {
                process.linked = None;
                process.hang_up(number);
                let node = self.node(side);
                node.redial_at = node.mono + REDIAL;
                self.end_link(side, number);
                self.happens(side, Happens::Unlinked("the link is down".into()));
            }
            Input::Opened(_) | Input::Frame(..) | Input::Batch(..) | Input::Ended(_) => {}
        }
    }

    /// Ends a link for one side; the other one notices later.
    fn end_link(&mut self, side: Side, number: u64) {
        for link in self.links.iter_mut().filter(|link| link.number == number) {
            link.cut();
            link.given_up[side as usize] = true;
        }
        self.links.retain(|link| link.given_up != [true; 2]);
    }

    /// Lets a side decide, and starts what it asks for.
    pub(crate) fn happens(&mut self, side: Side, event: Happens) {
        let epoch = self.epoch;
        let node = self.node(side);
        let (now, utc) = (epoch + node.mono, UtcMs(node.wall_ms));
        let shown = self.loud.then(|| format!("{event:?}"));
        let does = match &mut self.nodes[side as usize].process {
            Some(process) => process.machine.apply(event, now, utc),
            None => return,
        };
        if let Some(shown) = shown {
            println!("      {side:?} {shown}");
            for action in &does {
                println!("        {action:?}");
            }
        }
        for action in does {
            self.start(side, action);
        }
    }

    fn work_on(&mut self, side: Side, index: usize) {
        let (node, chance) = (&mut self.nodes[side as usize], &mut self.chance);
        let Some(process) = &mut node.process else {
            return;
        };
        let mut done = None;
        let mut out = None;
        let over = match &mut process.jobs[index] {
            Job::Look(look) => match look.step(&mut node.disk, chance) {
                Some(again) => {
                    node.sweeps += u64::from(look.sweep);
                    done = Some(Happens::Looked(look.sweep, again));
                    true
                }
                None => false,
            },
            Job::Take(take) => match take.step(
                &mut node.disk,
                process.lanes.get(&take.lane).copied().unwrap_or_default(),
            ) {
                Taken::Going => false,
                Taken::Need(need) => {
                    let link = take.link;
                    self.send(side, link, shared::wire::Frame::Need(need));
                    return;
                }
                Taken::Done => {
                    if let Some(place) = take.place {
                        let lane = process.lanes.entry(take.lane).or_default();
                        lane.next = lane.next.max(place + 1);
                    }
                    true
                }
                Taken::GivenUp(outcomes) => {
                    done = Some(Happens::Applied(take.batch.number, outcomes));
                    true
                }
            },
            Job::Give(give) => {
                let (pieces, last) = give.step(&mut node.disk);
                out = Some((give.link, give.stream, pieces));
                last
            }
            Job::Chunks(chunks) => {
                let pieces = chunks.step(&node.disk);
                out = Some((chunks.link, chunks.stream, pieces));
                true
            }
            Job::ReadRules => {
                let file = node.disk.rules_file(&crate::user::RULES);
                done = Some(Happens::RulesRead(file));
                true
            }
        };
        for (from, to, content) in node.disk.renamed.drain(..) {
            self.oracle.renamed(side, &from, &to, content);
        }
        if over {
            process.jobs.swap_remove(index);
        }
        if let Some(event) = done {
            process.inputs.push_back(Input::Happens(event));
        }
        if let Some((link, stream, pieces)) = out {
            self.stream_out(link, stream, pieces);
        }
    }

    fn commit(&mut self, side: Side) {
        let node = self.node(side);
        let Some(process) = &mut node.process else {
            return;
        };
        let Some(commit) = process.commits.front_mut() else {
            return;
        };
        match std::mem::replace(&mut commit.first, Durable::Nothing) {
            Durable::Nothing => {}
            _ if node.disk.has(Defect::NoSyncBeforeAgreeing) => return,
            Durable::Tree => return node.disk.volume.sync_all(),
            Durable::Rows => return node.disk.sync_rows(&commit.rows),
        }
        if let Some(commit) = process.commits.pop_front() {
            node.disk.commit(&commit.rows, commit.notes);
            let committed = Happens::Committed(commit.batch);
            process.inputs.push_back(Input::Happens(committed));
        }
    }

    fn stream_arrives(&mut self, link: usize, at: usize) {
        let number = self.links[link].number;
        let stream = &mut self.links[link].streams[at];
        let (to, id) = (stream.to, stream.id);
        match stream.head.take() {
            Some(Head::Batch(batch, place)) => {
                return self.input(to, Input::Batch(number, batch, place, id));
            }
            Some(Head::Contents(batch) | Head::Chunks(batch)) => {
                stream.taker = Some(batch);
                return;
            }
            None => {}
        }
        let (taker, piece) = (stream.taker, stream.pieces.pop_front());
        let ends = matches!(
            piece,
            Some(crate::link::Piece::End | crate::link::Piece::ChunksEnd(_))
        );
        let process = self.nodes[to as usize].process.as_mut();
        let taken = match (process, taker, piece) {
            (Some(process), Some(batch), Some(piece)) => match process.taker(batch) {
                Some(take) => {
                    take.arrive(piece);
                    true
                }
                None => false,
            },
            _ => false,
        };
        if ends || !taken {
            self.links[link].streams.retain(|stream| stream.id != id);
        }
    }

    fn hear(&mut self, side: Side) {
        let closed = self.chance.one_in(3);
        let fate = self.chance.below(10);
        let at = if self.chance.one_in(4) {
            // Out of order.
            self.chance.below(self.nodes[side as usize].unheard.len())
        } else {
            0
        };
        let lossy = !self.mending;
        let node = self.node(side);
        let path = if fate == 0 {
            // Twice.
            node.unheard[at].clone()
        } else {
            node.unheard.remove(at)
        };
        if node.deaf || lossy && fate == 1 {
            return;
        }
        let hint = if closed {
            disk::watch::Hint::Closed(path)
        } else {
            disk::watch::Hint::Path(path)
        };
        if let Some(process) = &mut node.process {
            process.hints.push_back(hint);
        }
    }

    /// Hands what moved to the watchers.
    pub(crate) fn gather_hints(&mut self) {
        for node in &mut self.nodes {
            let moved = node.disk.volume.take_moved();
            if node.process.is_some() && !node.deaf {
                node.unheard.extend(moved);
            }
        }
    }

    fn dial(&mut self) {
        let reached = self.nodes[Side::Alpha as usize].is_running() && self.road_is_open();
        let node = self.node(Side::Beta);
        if !reached {
            node.redial_at = node.mono + REDIAL_LATER;
            let reason = "nobody answers".to_owned();
            return self.input(Side::Beta, Input::Happens(Happens::Unlinked(reason)));
        }
        if let Some(process) = &mut node.process {
            process.dialling = true;
        }
        self.last_link += 1;
        let number = self.last_link;
        self.links.push(Link::new(number));
        for side in SIDES {
            self.input(side, Input::Connected(number));
        }
    }

    /// Takes it that the process of a side is gone.
    pub(crate) fn kill(&mut self, side: Side) {
        self.node(side).kill();
        let numbers: Vec<u64> = self.links.iter().map(|link| link.number).collect();
        for number in numbers {
            self.end_link(side, number);
        }
    }

    /// Returns whether nothing is on its way or waits to be handled.
    pub(crate) fn wires_are_empty(&self) -> bool {
        let idle = self.nodes.iter().all(|node| {
            node.disk.reports.is_empty()
                && node
                    .process
                    .as_ref()
                    .is_some_and(|process| process.inputs.is_empty())
        });
        idle && self
            .links
            .iter()
            .all(|link| link.alive && link.frames.iter().all(std::collections::VecDeque::is_empty))
    }
}
