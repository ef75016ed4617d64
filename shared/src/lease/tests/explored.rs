//! Every order of events up to a bound: the two state machines themselves, in steps of 5 s, with all that
//! can happen in a step, for as many disturbances as the bound allows.
//!
//! Bounding the disturbances rather than the length is what makes that possible (Musuvathi and Qadeer,
//! "Iterative Context Bounding", PLDI 2007): few of them are enough for most faults, whenever they come.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::world::{Broken, Way, World};
use crate::control::NodeSide::{Pusher, Receiver};
use crate::lease::Prefer;

/// How long a step is, in milliseconds.
const STEP: u64 = 5000;
/// Long enough for a grant, its end, a take-over, and what follows.
const STEPS: usize = 14;
const DISTURBANCES_MAX: u8 = 3;
/// How long what is sent takes while its way is slow: renewals longer than the authority waits, answers
/// longer than a lease.
const SLOW_RENEWALS: u64 = 40_000;
const SLOW_ANSWERS: u64 = 20_000;
const EFFECT: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    CrashOrStart(Side),
    StopOrGoOn(Side),
    CutOrLink,
    SlowOrQuick(Side),
    Promote(Side),
}

type Side = crate::control::NodeSide;

const MOVES: [Move; 9] = [
    Move::CrashOrStart(Pusher),
    Move::CrashOrStart(Receiver),
    Move::StopOrGoOn(Pusher),
    Move::StopOrGoOn(Receiver),
    Move::CutOrLink,
    Move::SlowOrQuick(Pusher),
    Move::SlowOrQuick(Receiver),
    Move::Promote(Pusher),
    Move::Promote(Receiver),
];

#[derive(Debug, Clone)]
struct Path {
    world: World,
    /// Whether the way to the pusher is slow, and that to the receiver.
    slow: [bool; 2],
    disturbances: u8,
    moves: Vec<Move>,
}

impl Path {
    fn begin(rates: [u64; 2], broken: Broken) -> Self {
        let mut this = Self {
            world: World::new(rates, Prefer::None, broken),
            slow: [false; 2],
            disturbances: 0,
            moves: Vec::new(),
        };
        // From the pusher in the role, and linked.
        this.world.link();
        this.step(None, false);
        this
    }

    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.world.key(), self.slow, self.disturbances).hash(&mut hasher);
        hasher.finish()
    }

    fn step(&mut self, next: Option<Move>, ends: bool) {
        if let Some(next) = next {
            self.disturb(next);
            self.moves.push(next);
            self.disturbances += 1;
        }
        let [renewals, answers] = self.slow;
        let mut delay = |way| match way {
            Way::ToPusher if renewals => SLOW_RENEWALS,
            Way::ToReceiver if answers => SLOW_ANSWERS,
            _ => 0,
        };
        for _ in 0..STEP / 1000 {
            self.world.pass(1000, &mut delay);
            for side in [Pusher, Receiver] {
                if ends {
                    self.world.end_effect(side);
                }
                self.world.act(side, EFFECT);
            }
        }
    }

    fn disturb(&mut self, next: Move) {
        let world = &mut self.world;
        match next {
            Move::CrashOrStart(side) if world.runs(side) => world.crash(side),
            Move::CrashOrStart(side) => world.start(side),
            Move::StopOrGoOn(side) if world.is_stopped(side) => world.go_on(side, true),
            Move::StopOrGoOn(side) => world.stop(side),
            Move::CutOrLink if world.is_dialled() => {
                world.cut(Receiver);
                world.cut(Pusher);
            }
            Move::CutOrLink => world.link(),
            Move::SlowOrQuick(Pusher) => self.slow[0] ^= true,
            Move::SlowOrQuick(Receiver) => self.slow[1] ^= true,
            Move::Promote(to) => world.promote(Pusher, to),
        }
    }
}

/// Returns how many states were met and the first way to a violation.
fn explore(rates: [u64; 2], broken: Broken, ends: bool) -> (usize, Option<String>) {
    let mut met = BTreeSet::new();
    let mut front = vec![Path::begin(rates, broken)];
    for _ in 0..STEPS {
        let mut next_front = Vec::new();
        for path in front {
            let moves = MOVES
                .into_iter()
                .map(Some)
                .filter(|_| path.disturbances < DISTURBANCES_MAX)
                .chain([None]);
            for next in moves {
                let mut path = path.clone();
                path.step(next, ends);
                if let Some(violation) = &path.world.seen.violation {
                    return (met.len(), Some(format!("{violation}: {:?}", path.moves)));
                }
                if met.insert(path.key()) {
                    next_front.push(path);
                }
            }
        }
        front = next_front;
    }
    (met.len(), None)
}

#[test]
fn no_order_of_three_disturbances_lets_two_sides_act() {
    for rates in [[1000, 1000], [1100, 900], [900, 1100]] {
        for ends in [false, true] {
            let (states, violation) = explore(rates, Broken::Nothing, ends);
            assert_eq!(violation, None, "rates {rates:?}");
            assert!(states > 10_000, "only {states} states");
        }
    }
}

#[test]
fn a_broken_rule_is_found() {
    for broken in [
        Broken::CountsFromReceipt,
        Broken::ClockStopsInSleep,
        Broken::NoBootHold,
        Broken::NoDrain,
    ] {
        let (states, violation) = explore([1000, 1000], broken, false);
        assert!(
            violation.is_some(),
            "{broken:?} was not found in {states} states"
        );
    }
}
