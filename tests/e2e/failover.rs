//! A talking bot on two machines, and everything that can happen to the one that is primary. The server's log of effects judges.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::harness::{Effect, Node, Pair, Relay, SOON, Side, Talk, Way, wait, wait_until, wish};

/// An unplanned change takes at most so long, and a planned one.
const UNPLANNED_MAX: Duration = Duration::from_secs(35);
const PLANNED_MAX: Duration = Duration::from_secs(2);

/// Chance, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Planned,
    Suspended,
    Cut,
    Killed,
}

/// A pair with a relay between its nodes, and those who write to its bot.
struct Stage {
    talk: Talk,
    relay: Relay,
    dice: Dice,
    /// What was asked, and what is to be answered.
    asked: Vec<(i64, String)>,
    /// When nobody had planned what happened.
    disturbed: Vec<(Kind, Instant, Instant)>,
}

/// Beside the owner.
const GUESTS: [i64; 2] = [8001, 8002];

impl Stage {
    fn set(seed: u64) -> Self {
        let mut relay = None;
        let pair = Pair::joined_through(|pusher: SocketAddr| {
            let started = Relay::start(pusher);
            let address = started.addr();
            relay = Some(started);
            address
        });
        let talk = Talk::with(pair);
        for guest in GUESTS {
            talk.pair
                .pusher
                .ask(["bot", "allow", &guest.to_string()])
                .exits(0);
        }
        Self {
            talk,
            relay: relay.unwrap(),
            dice: Dice(seed | 1),
            asked: Vec::new(),
            disturbed: Vec::new(),
        }
    }

    /// Lets somebody write something that nobody wrote before.
    fn says(&mut self) {
        let who = [crate::harness::OWNER, GUESTS[0], GUESTS[1]];
        let user = who[self.dice.below(3) as usize];
        let word = format!("word{}", self.asked.len());
        self.talk.api.says(user, &format!("/{word}"));
        self.asked.push((user, format!("There is no /{word}.")));
    }

    fn primary(&self) -> Side {
        wait("there is one primary", Duration::from_secs(90), || {
            let is = |side| {
                let answer = self.talk.pair.node(side).ask(["status", "--json"]);
                (answer.code == 0).then(|| answer.json()["node"]["role"] == "primary")
            };
            match (is(Side::Pusher)?, is(Side::Receiver)?) {
                (true, false) => Some(Side::Pusher),
                (false, true) => Some(Side::Receiver),
                _ => None,
            }
        })
    }

    fn name(side: Side) -> &'static str {
        match side {
            Side::Pusher => "vm",
            Side::Receiver => "mac",
        }
    }

    /// Waits until the link carries: one that was cut for seconds says that it is there before it does.
    fn are_linked(&self) {
        wait_until("they are linked", SOON, || {
            let linked = |node: &Node| node.status()["peer"]["state"] == "linked";
            self.talk.pair.nodes().into_iter().all(linked)
        });
        self.talk.pair.pusher.ask(["flush"]).exits(0);
    }

    fn hand_over(&mut self, to: Side) -> Duration {
        self.are_linked();
        let begun = Instant::now();
        self.talk
            .pair
            .pusher
            .ask(["promote", "--to", to.name()])
            .exits(0);
        self.acts_since(to, begun)
    }

    /// Waits until a side acts, and returns how long after `begun` that was.
    fn acts_since(&self, side: Side, begun: Instant) -> Duration {
        let name = Self::name(side);
        wait(&format!("{name} acts"), Duration::from_secs(120), || {
            self.talk.api.first_since(begun, name)
        }) - begun
    }

    /// One thing that happens.
    fn round(&mut self, kind: Kind) {
        let primary = self.primary();
        self.are_linked();
        self.says();
        let before = self.dice.millis(0, 400);
        std::thread::sleep(before);
        match kind {
            Kind::Planned => {
                let to = match primary {
                    Side::Pusher => Side::Receiver,
                    Side::Receiver => Side::Pusher,
                };
                self.says();
                let took = self.hand_over(to);
                println!("  planned, to {}: {took:?}", Self::name(to));
                assert!(took < PLANNED_MAX, "{took:?}");
                self.says();
            }
            // Only the pusher takes over by itself, so it is worth waiting for when the receiver is primary.
            Kind::Suspended | Kind::Cut | Kind::Killed => {
                let long = self.dice.below(3) == 0;
                let pause = match (primary, long) {
                    (Side::Receiver, true) => None,
                    _ => Some(self.dice.millis(200, 6000)),
                };
                self.disturb(kind, primary, pause);
            }
        }
    }

    /// Disturbs the primary for so long, or until the other side has taken over.
    fn disturb(&mut self, kind: Kind, primary: Side, pause: Option<Duration>) {
        let begun = Instant::now();
        match kind {
            Kind::Suspended => {
                kill_process(self.talk.pair.node(primary).pid(), Signal::STOP).unwrap();
            }
            Kind::Cut => self.relay.cut(),
            _ => self.talk.pair.node_mut(primary).kill(),
        }
        self.says();
        match pause {
            Some(pause) => std::thread::sleep(pause),
            None => {
                let took = self.acts_since(Side::Pusher, begun);
                println!("  {kind:?}: taken over after {took:?}");
                assert!(took < UNPLANNED_MAX, "{took:?}");
            }
        }
        match kind {
            Kind::Suspended => {
                kill_process(self.talk.pair.node(primary).pid(), Signal::CONT).unwrap();
            }
            Kind::Cut => self.relay.mend(),
            _ => self.talk.pair.node_mut(primary).start(),
        }
        self.says();
        self.disturbed.push((kind, begun, Instant::now()));
    }

    /// Checks that everything that was asked is answered, and that what is answered twice has its reason.
    fn judge(&self) {
        for (user, answer) in &self.asked {
            wait_until(&format!("{answer:?} is said to {user}"), SOON, || {
                let chat = self.talk.api.chat(*user);
                chat.iter().any(|said| said.text.contains(answer.as_str()))
            });
        }
        let effects = self.talk.api.effects();
        let epochs = no_two_act_at_once(&effects);
        let mut twice: BTreeMap<Kind, u32> = BTreeMap::new();
        for (user, answer) in &self.asked {
            let is_it = |effect: &&Effect| {
                effect.message.is_some()
                    && effect.body["chat_id"] == *user
                    && effect.body["text"]
                        .as_str()
                        .is_some_and(|text| text.contains(answer.as_str()))
            };
            let said: Vec<&Effect> = effects.iter().filter(is_it).collect();
            for pair in said.windows(2) {
                let (first, second) = (pair[0], pair[1]);
                let reason = self
                    .disturbed
                    .iter()
                    .find(|(_, begun, ended)| *begun <= second.begun && *ended >= first.begun);
                let Some((kind, ..)) = reason else {
                    panic!(
                        "{answer:?} is said twice for no reason: by {} under {}, and {:?} later by {} under {}",
                        first.node,
                        first.epoch,
                        second.begun - first.begun,
                        second.node,
                        second.epoch
                    );
                };
                *twice.entry(*kind).or_default() += 1;
            }
        }
        println!(
            "{} questions, {epochs} leases, said twice: {twice:?}",
            self.asked.len()
        );
        assert_eq!(
            self.talk.api.limit_breaks(),
            0,
            "the limits of Telegram are kept"
        );
    }
}

/// Checks the log: who acts under a lease does so before whoever has the next one begins, and a lease has one node. Returns
/// how many leases there were.
fn no_two_act_at_once(effects: &[Effect]) -> usize {
    let mut leases: BTreeMap<u64, (&str, Instant, Instant)> = BTreeMap::new();
    for effect in effects {
        assert!(!effect.node.is_empty() && effect.epoch > 0, "{effect:?}");
        let lease =
            leases
                .entry(effect.epoch)
                .or_insert((&effect.node, effect.begun, effect.begun));
        assert_eq!(lease.0, effect.node, "epoch {} has two nodes", effect.epoch);
        lease.1 = lease.1.min(effect.begun);
        lease.2 = lease.2.max(effect.begun);
    }
    let list: Vec<_> = leases.iter().collect();
    for pair in list.windows(2) {
        let ((earlier, (_, _, last)), (later, (_, first, _))) = (pair[0], pair[1]);
        assert!(
            last <= first,
            "under epoch {earlier} something was done {:?} after epoch {later} began",
            *last - *first
        );
    }
    leases.len()
}

#[test]
fn whatever_happens_one_acts_and_everything_is_answered() {
    let rounds = wish("ROUNDS").unwrap_or(6);
    let seed = wish("SEED").unwrap_or(20_261_130);
    println!("LAYER_SYNC_E2E_ROUNDS={rounds} LAYER_SYNC_E2E_SEED={seed}");
    let mut stage = Stage::set(seed);
    stage.hand_over(Side::Receiver);
    for number in 0..rounds {
        let kinds = [Kind::Planned, Kind::Suspended, Kind::Cut, Kind::Killed];
        // The first rounds are one of each kind.
        let kind = match number {
            _ if wish("PLANNED").is_some() => Kind::Planned,
            0..4 => kinds[number as usize],
            _ => kinds[stage.dice.below(4) as usize],
        };
        if kind != Kind::Planned && stage.primary() == Side::Pusher && stage.dice.below(4) > 0 {
            stage.hand_over(Side::Receiver);
        }
        // A line that is not at its best.
        stage.relay.set(match stage.dice.below(3) {
            0 => Way::default(),
            1 => Way {
                delay: Duration::from_millis(20),
                jitter: Duration::from_millis(20),
                ..Way::default()
            },
            _ => Way {
                loss_percent: 2,
                reorder_percent: 5,
                ..Way::default()
            },
        });
        println!("round {number}: {kind:?}, {:?} is primary", stage.primary());
        stage.round(kind);
    }
    stage.primary();
    stage.judge();
}

#[test]
fn a_primary_that_slept_through_its_lease_is_standby_when_it_wakes() {
    let sleep = Duration::from_secs(wish("SLEEP_SECONDS").unwrap_or(32));
    let mut stage = Stage::set(7);
    stage.hand_over(Side::Receiver);
    stage.talk.is_at_work(&stage.talk.pair.receiver);
    let slept = Instant::now();
    kill_process(stage.talk.pair.receiver.pid(), Signal::STOP).unwrap();
    // Something is there to be taken by whoever wakes.
    for _ in 0..3 {
        stage.says();
    }
    stage.acts_since(Side::Pusher, slept);
    std::thread::sleep(sleep.saturating_sub(slept.elapsed()));
    stage.relay.cut();
    let woken = Instant::now();
    kill_process(stage.talk.pair.receiver.pid(), Signal::CONT).unwrap();
    let status = stage.talk.pair.receiver.status();
    assert_ne!(status["node"]["role"], "primary", "{status}");
    assert_eq!(status["bot"]["state"], "not_primary", "{status}");
    // It hears of the other one only now, and has not acted meanwhile.
    stage.relay.mend();
    stage.talk.pair.meet();
    let acted = stage.talk.api.first_since(woken, "mac");
    assert_eq!(
        acted,
        None,
        "it acted {:?} after it woke",
        acted.map(|at| at - woken)
    );
    stage.judge();
}
