//! Carries out what a side wants done: the `start` of both event loops.

use shared::control::{Happening, Problem, Response};
use shared::transfer::Batch;
use shared::tree::{Gen, Side};
use shared::wire::Frame;

use crate::give::{ChunksJob, GiveJob};
use crate::link::{Head, Piece, Stream};
use crate::look::LookJob;
use crate::machine::Does;
use crate::node::{Commit, Job};
use crate::take::TakeJob;
use crate::world::World;

impl World {
    pub(crate) fn start(&mut self, side: Side, does: Does) {
        let linked = self.linked(side);
        match does {
            Does::Look(look) => self.job(side, Job::Look(LookJob::new(&look))),
            Does::Send(frame) => {
                self.notice_frame(side, &frame);
                self.send(side, linked, frame);
            }
            Does::Push(batch, place) => {
                self.work += 1;
                self.check_deletions(side.other(), &batch);
                if let Some(link) = linked {
                    let items = wanted(&batch);
                    let stream = self.open_stream(side, link, Head::Batch(batch, place));
                    self.job(side, Job::Give(GiveJob::new(link, stream, items)));
                }
            }
            Does::Take(batch, place, resolved) => {
                self.work += 1;
                self.check_deletions(side, &batch);
                self.take(side, batch, (place, 0), resolved, linked);
            }
            Does::Give(batch, items) => {
                if let Some(link) = linked {
                    let stream = self.open_stream(side, link, Head::Contents(batch));
                    self.job(side, Job::Give(GiveJob::new(link, stream, items)));
                }
            }
            Does::GiveChunks(need) => {
                if let Some(link) = linked {
                    let stream = self.open_stream(side, link, Head::Chunks(need.batch));
                    self.job(side, Job::Chunks(ChunksJob { link, stream, need }));
                }
            }
            Does::Commit {
                batch,
                rows,
                notes,
                first,
            } => {
                self.work += u64::from(!rows.is_empty());
                if let Some(process) = &mut self.node(side).process {
                    process.commits.push_back(Commit {
                        batch,
                        rows,
                        notes,
                        first,
                    });
                }
            }
            Does::SetRules(rules) => {
                let disk = &mut self.node(side).disk;
                (disk.rules, disk.rules_are_new) = (rules, true);
                disk.rules_set += 1;
            }
            Does::ReadRules => self.job(side, Job::ReadRules),
            Does::Answer(id, response) => self.answered(side, id, &response),
            Does::AnswerFar(id, response) => {
                let text = shared::control::to_json(&response);
                self.send(side, linked, Frame::Answer(id, text));
            }
            Does::Tell(told) => match told.what {
                Happening::Conflict { path, .. } => self.oracle.conflict(&path),
                Happening::Halted(problem) if batch_of(&problem).is_some() => {}
                Happening::Halted(problem) => self.oracle.fail(format!(
                    "{side:?} has halted: {} {}",
                    problem.code, problem.text
                )),
                _ => {}
            },
            Does::Unlink => {
                if let Some(link) = self
                    .links
                    .iter_mut()
                    .find(|link| Some(link.number) == linked)
                {
                    link.closing = true;
                }
            }
        }
    }

    /// Returns the connection over which a side can send.
    fn linked(&self, side: Side) -> Option<u64> {
        let process = self.nodes[side as usize].process.as_ref()?;
        process.linked.filter(|_| process.opened)
    }

    fn check_deletions(&mut self, on: Side, batch: &Batch) {
        let other = &self.nodes[on.other() as usize].disk;
        self.oracle.check_deletions(on, batch, other);
        let [alpha, beta] = &self.nodes;
        let disks = [&alpha.disk, &beta.disk];
        self.oracle.check_guard(on, batch, disks);
        if self.mode == shared::reconcile::Mode::TwoWaySafe {
            let [alpha, beta] = &self.nodes;
            let disks = [&alpha.disk, &beta.disk];
            self.oracle.check_agreed_deletions(on, batch, disks);
        }
    }

    fn job(&mut self, side: Side, job: Job) {
        if let Some(process) = &mut self.node(side).process {
            process.jobs.push(job);
        }
    }

    pub(crate) fn take(
        &mut self,
        side: Side,
        batch: Batch,
        place: (Option<u64>, u64),
        resolved: Gen,
        link: Option<u64>,
    ) {
        let node = self.node(side);
        let take = TakeJob::new(&mut node.disk, batch, place, resolved, link);
        self.job(side, Job::Take(Box::new(take)));
    }

    pub(crate) fn send(&mut self, from: Side, link: Option<u64>, frame: Frame) {
        let alive = |open: &&mut crate::link::Link| Some(open.number) == link && open.alive;
        if let Some(link) = self.links.iter_mut().find(alive) {
            link.frames[from.other() as usize].push_back(frame);
        }
    }

    fn open_stream(&mut self, from: Side, link: u64, head: Head) -> u64 {
        self.last_stream += 1;
        let id = self.last_stream;
        let alive = |open: &&mut crate::link::Link| open.number == link && open.alive;
        if let Some(link) = self.links.iter_mut().find(alive) {
            link.streams.push(Stream {
                id,
                to: from.other(),
                head: Some(head),
                taker: None,
                pieces: std::collections::VecDeque::new(),
            });
        }
        id
    }

    pub(crate) fn stream_out(&mut self, link: u64, stream: u64, pieces: Vec<Piece>) {
        let link = self.links.iter_mut().find(|open| open.number == link);
        let open = link.and_then(|link| link.streams.iter_mut().find(|open| open.id == stream));
        if let Some(open) = open {
            open.pieces.extend(pieces);
        }
    }

    /// Looks at what one side tells the other.
    fn notice_frame(&mut self, side: Side, frame: &Frame) {
        match frame {
            Frame::Refuse(reason) => self
                .oracle
                .fail(format!("{side:?} refuses the other side: {reason}")),
            Frame::Proof(proof) if proof.settled => self.check_claim(side),
            Frame::Proof(_)
            | Frame::Ask(..)
            | Frame::Answer(..)
            | Frame::Sweep(_)
            | Frame::Swept(..) => {}
            _ => self.work += 1,
        }
    }

    fn answered(&mut self, side: Side, id: u64, response: &Response) {
        if let Response::Status(status) = response {
            let held = status.sync.counts.held;
            if side == Side::Alpha {
                self.alarm = status.problems.iter().find_map(batch_of);
            }
            if id == self.asked {
                self.said[side as usize] = Some((status.sync.in_sync, held));
            }
            if status.sync.in_sync {
                self.check_claim(side);
            }
        }
    }

    /// Looks whether a pusher that says "in sync" is right, when it can know. The receiver repeats what
    /// it was told last, which may be a second old; it is asked at rest.
    fn check_claim(&mut self, side: Side) {
        if side == Side::Alpha && self.wires_are_empty() {
            let [alpha, beta] = &self.nodes;
            self.oracle.check_in_sync(side, [&alpha.disk, &beta.disk]);
        }
    }
}

/// Returns the batch for which the guard asks.
fn batch_of(problem: &Problem) -> Option<String> {
    let codes = [
        "halted.emptied",
        "halted.mass_delete",
        "halted.mass_rewrite",
    ];
    let (_, after) = problem.fix.split_once("layer-sync confirm ")?;
    let batch = after.split('`').next().filter(|batch| batch.len() == 8)?;
    codes
        .contains(&problem.code.as_str())
        .then(|| batch.to_owned())
}

/// Returns what a giver has to send for a batch.
fn wanted(batch: &Batch) -> Vec<shared::transfer::Item> {
    let ops = (0..).zip(&batch.ops);
    ops.filter_map(|(index, op)| shared::transfer::Item::of(index, op))
        .collect()
}
