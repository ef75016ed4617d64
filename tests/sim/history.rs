//! Plays a script: the acts, the rest that follows, and what has to hold there.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use disk::watch::Hint;
use shared::control::Request;
use shared::tree::Side;

use crate::chance::Chance;
use crate::defect::Defect;
use crate::index::Index;
use crate::machine::Happens;
use crate::mirror::{self, Third};
use crate::node::{Input, Job};
use crate::oracle::{BeforeCut, Tree};
use crate::script::{Act, Line, Script};
use crate::user;
use crate::world::{SIDES, World};

/// Most steps until everything has come to rest.
const STEPS_MAX: u64 = 40_000;
/// Longest time until everything has come to rest.
const REST_MAX: Duration = Duration::from_secs(2000);
/// When somebody looks at what the mirror leaves to a person.
const TIDY_AFTER: Duration = Duration::from_secs(400);
/// How long everything has to stay at rest.
const QUIET: Duration = Duration::from_secs(70);

/// Instants count from somewhere; only their differences matter.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What was wrong with a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The number of the line that was being carried out.
    pub(crate) line: usize,
    /// What was wrong.
    pub(crate) what: String,
}

/// Plays a script. Returns the number of steps.
///
/// # Errors
/// The first thing that was wrong.
pub(crate) fn play(script: &Script, defect: Option<Defect>, loud: bool) -> Result<u64, Failure> {
    let mut world = World::new((script.mode, script.guarded), *EPOCH, defect);
    world.loud = loud;
    if let Some(mirrored) = script.mirrored {
        world.third = Some(Third::new(mirrored.fails_one_in, defect));
        // A node that never met the other one is another matter.
        world.act(Act::Settle);
    }
    for (number, Line { act, chance }) in script.lines.iter().enumerate() {
        world.chance = Chance::new(*chance);
        if loud {
            println!("{number}: {act:?}");
        }
        world.act(*act);
        if let Some(what) = world.oracle.violation() {
            return Err(Failure {
                line: number,
                what: what.clone(),
            });
        }
    }
    Ok(world.steps)
}

impl World {
    fn act(&mut self, act: Act) {
        match act {
            Act::Edit(side, edit) => {
                let volume = &mut self.nodes[side as usize].disk.volume;
                self.oracle.ledger.touching.clear();
                user::act(volume, side, edit, &mut self.oracle);
                self.oracle.has_left_on(side, volume);
                self.gather_hints();
                for _ in 0..self.chance.below(4) {
                    self.step_or_wait();
                }
            }
            Act::Run(steps) => {
                for _ in 0..steps {
                    self.step_or_wait();
                }
            }
            Act::Pass(ms) => self.pass_in_peace(Duration::from_millis(u64::from(ms))),
            Act::Kill(side) => self.kill(side),
            Act::CutPower(side) => self.cut_power(side),
            Act::CutLink => {
                for link in &mut self.links {
                    link.cut();
                }
            }
            Act::LoseIndex(side) => {
                self.kill(side);
                let lost = self.chance.next();
                let node = self.node(side);
                let mut id = [side as u8 + 1; 16];
                id[8..].copy_from_slice(&lost.to_le_bytes());
                node.disk.index = Index::new(shared::wire::IndexId(id));
                node.disk.index_is_new = true;
                self.oracle.index_lost = true;
            }
            Act::Deaf(side, deaf) => self.node(side).deaf = deaf,
            Act::Sleep(side, ms) => {
                let ms = u64::from(ms);
                self.node(side).wall_ms += ms;
                self.node(side.other()).wall_ms += ms;
                self.node(side.other()).mono += Duration::from_millis(ms);
            }
            Act::SetClock(side, ms) => {
                let node = self.node(side);
                node.wall_ms = node.wall_ms.saturating_add_signed(ms);
            }
            Act::WriteOut(side) => self.node(side).disk.volume.sync_all(),
            Act::Status(side) => self.ask(side, Request::Status),
            Act::Flush(side) => self.ask(side, Request::Flush),
            Act::Pause(true) => self.ask(Side::Alpha, Request::Pause),
            Act::Pause(false) => self.ask(Side::Alpha, Request::Resume),
            Act::Road(is_open) => self.set_road(is_open),
            Act::AtMirror(deed) => {
                if let Some(third) = &self.third {
                    self.oracle.ledger.touching.clear();
                    mirror::act(&mut third.cloud.borrow_mut(), deed, &mut self.oracle);
                }
                for _ in 0..self.chance.below(4) {
                    self.step_or_wait();
                }
            }
            Act::Settle => self.settle(),
        }
        let [alpha, beta] = &self.nodes;
        let disks = [&alpha.disk, &beta.disk];
        self.oracle.check_nothing_lost(disks, false);
        if let Some(third) = &self.third {
            let cloud = third.cloud.borrow();
            self.oracle.check_nothing_lost_there(disks, &cloud);
        }
    }

    fn set_road(&mut self, is_open: bool) {
        let Some(third) = &mut self.third else { return };
        third.is_open = is_open;
        if !is_open {
            for link in &mut self.links {
                link.cut();
            }
        }
    }

    fn ask(&mut self, side: Side, request: Request) {
        self.asked += 1;
        let asked = self.asked;
        self.input(side, Input::Happens(Happens::Asked(asked, request)));
    }

    /// Takes a step. Now and then somebody is slow, so that time passes first.
    fn step_or_wait(&mut self) {
        if self.chance.one_in(16) || !self.step() {
            self.pass_to_timer();
        }
    }

    fn pass_in_peace(&mut self, time: Duration) {
        let mut left = time;
        let mut steps = 0;
        while !left.is_zero() && steps < STEPS_MAX {
            steps += 1;
            if !self.step() {
                left = left.saturating_sub(self.pass_to_timer());
            }
        }
    }

    fn cut_power(&mut self, side: Side) {
        let before = BeforeCut::of(&self.nodes[side as usize].disk.volume);
        self.kill(side);
        let mut chance = self.chance.clone();
        self.node(side).disk.volume.cut_power(&mut chance);
        let [alpha, beta] = &self.nodes;
        let bases: [Tree; 2] = [alpha.disk.agreed(), beta.disk.agreed()];
        self.oracle.power_cut(
            side,
            &before,
            &self.nodes[side as usize].disk,
            [&bases[0], &bases[1]],
        );
    }

    /// Mends everything, waits until all is at rest, and looks whether it is as it should be.
    fn settle(&mut self) {
        self.mending = true;
        for node in &mut self.nodes {
            node.disk.volume.open_all();
            node.deaf = false;
        }
        while self.nodes.iter().any(|node| !node.is_running()) {
            self.step();
        }
        self.ask(Side::Alpha, Request::Resume);
        if !self.chance.one_in(4) {
            for side in SIDES {
                if let Some(process) = &mut self.node(side).process {
                    process
                        .hints
                        .push_back(Hint::Sweep("everything was mended"));
                }
            }
        }
        let sweeps = SIDES.map(|side| {
            let node = &self.nodes[side as usize];
            let runs = |job: &Job| matches!(job, Job::Look(look) if look.sweep);
            let running = node
                .process
                .as_ref()
                .is_some_and(|it| it.jobs.iter().any(runs));
            node.sweeps + 1 + u64::from(running)
        });
        self.set_road(true);
        self.look_there();
        if self.rest(sweeps) {
            let [alpha, beta] = &self.nodes;
            if let Some(third) = &self.third {
                let tree = alpha.disk.volume.tree();
                self.oracle.check_three(&tree, &third.cloud.borrow());
            }
            self.oracle.check_rest([&alpha.disk, &beta.disk]);
            if let Some(third) = &self.third {
                // When one goes, the other one turns up.
                self.oracle
                    .ledger
                    .unsure
                    .extend(third.cloud.borrow().twins());
            }
            self.stay_quiet();
        }
        self.mending = false;
    }

    /// Waits until everything is at rest; says whether it came to that.
    fn rest(&mut self, sweeps: [u64; 2]) -> bool {
        let (mut waited, mut steps) = (Duration::ZERO, 0);
        self.said = [None; 2];
        loop {
            while self.step() {
                steps += 1;
                if steps > STEPS_MAX || self.oracle.violation().is_some() {
                    break;
                }
            }
            if self.oracle.violation().is_some() {
                return false;
            }
            if steps > STEPS_MAX || waited > REST_MAX {
                let shown = self.describe();
                self.oracle
                    .fail(format!("never at rest: {steps} steps, {waited:?}; {shown}"));
                return false;
            }
            if waited > TIDY_AFTER
                && let Some(third) = &self.third
            {
                mirror::tidy(&mut third.cloud.borrow_mut(), &mut self.oracle);
            }
            let swept = SIDES.map(|side| self.nodes[side as usize].sweeps >= sweeps[side as usize]);
            if swept == [true; 2] {
                if self.said == [Some((true, 0)); 2] && self.mirror_rests() {
                    return true;
                }
                // What is ignored may stand in the way of a deletion: that waits for a person.
                let held = |said: &Option<(bool, u64)>| matches!(said, Some((false, 1..)));
                if self.oracle.rules_changed && self.said.iter().all(held) {
                    return false;
                }
                if let Some(batch) = self.alarm.take() {
                    let undo = self.chance.one_in(2);
                    self.oracle.answered_the_guard();
                    self.ask(Side::Alpha, Request::Confirm { batch, undo });
                    continue;
                }
                if self.said != [None; 2] {
                    waited += self.pass_to_timer();
                }
                self.said = [None; 2];
                self.asked += 1;
                for side in SIDES {
                    let event = Happens::Asked(self.asked, Request::Status);
                    self.input(side, Input::Happens(event));
                }
            } else {
                waited += self.pass_to_timer();
            }
        }
    }

    /// Looks that nobody does anything while nothing changes.
    fn stay_quiet(&mut self) {
        let (work, links) = (self.work, self.links.len());
        self.look_there();
        let before = self.third.as_ref().map(Third::calls);
        self.pass_in_peace(QUIET);
        if let (Some([changes, others]), Some(third)) = (before, &self.third)
            && third.calls() != [changes + 1, others]
        {
            self.oracle.fail(format!(
                "not quiet: {:?} calls became {:?} while nothing changed",
                [changes, others],
                third.calls()
            ));
        }
        if self.work != work || self.links.len() != links {
            self.oracle.fail(format!(
                "not quiet: {} pieces of work while nothing changed",
                self.work - work
            ));
        }
    }

    fn describe(&self) -> String {
        let [alpha, beta] = &self.nodes;
        let (a, b) = (alpha.disk.volume.tree(), beta.disk.volume.tree());
        format!(
            "trees differ at [{}], α and its base at [{}], β and its base at [{}], trails {:?} {:?}",
            crate::oracle::difference(&a, &b),
            crate::oracle::difference(&a, &alpha.disk.agreed()),
            crate::oracle::difference(&b, &beta.disk.agreed()),
            alpha.disk.index.trails,
            beta.disk.index.trails
        )
    }
}
