//! The node that is attacked, and what must be so afterwards.

use std::fs;
use std::path::PathBuf;

use config::Home;
use link::{Fingerprint, Identity};
use shared::wire::PairId;

use crate::harness::{Node, Pair, Side, listing, wait_until, write};

/// Most memory that any attack but a flood of rows may make a daemon take. The largest were lists of
/// chunks and requests that nobody waits for, 170 MiB when this was written.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// A pair of which one node is stopped and its key is ours.
pub(super) struct Victim {
    pub(super) pair: Pair,
    /// The side that is attacked.
    pub(super) side: Side,
    pub(super) identity: Identity,
    /// The key of the victim.
    pub(super) key: Fingerprint,
    pub(super) id: PairId,
    /// Where the pusher listens, or would.
    pub(super) address: String,
    outside: PathBuf,
    before: State,
}

/// What an attack must not change.
#[derive(Debug, PartialEq, Eq)]
struct State {
    tree: Vec<String>,
    contents: Vec<Vec<u8>>,
    outside: Vec<String>,
    secret: Vec<u8>,
    marker: Vec<u8>,
}

pub(super) const FILES: [(&str, &str); 4] = [
    ("notes/plan.md", "the plan"),
    ("notes/idea.md", "the idea"),
    ("tool.sh", "#!/bin/sh\n"),
    ("empty", ""),
];

impl Victim {
    /// Pairs two nodes, lets them become equal, and stops the one that is taken over.
    pub(super) fn new(side: Side) -> Self {
        let mut pair = Pair::running();
        for (path, content) in FILES {
            write(&pair.pusher.root, path, content);
        }
        pair.flush();
        let outside = pair.scratch().join("outside");
        write(&outside, "secret", "not for you");
        let taken = match side {
            Side::Pusher => Side::Receiver,
            Side::Receiver => Side::Pusher,
        };
        pair.node_mut(taken).stop();
        let home = Home::new(pair.node(taken).home.clone());
        let identity = Identity::load_or_create(&home.identity_dir()).unwrap();
        let partner = fs::read_to_string(home.state_dir().join("partner.json")).unwrap();
        let partner: serde_json::Value = serde_json::from_str(&partner).unwrap();
        let settings = fs::read_to_string(pair.pusher.home.join("config.toml")).unwrap();
        let listen = settings.lines().find(|line| line.starts_with("listen = "));
        let victim_home = Home::new(pair.node(side).home.clone());
        let key = Identity::load_or_create(&victim_home.identity_dir())
            .unwrap()
            .fingerprint();
        let mut victim = Self {
            identity,
            key,
            id: serde_json::from_value(partner["pair"].clone()).unwrap(),
            address: listen.unwrap().split('"').nth(1).unwrap().to_owned(),
            outside,
            side,
            before: State {
                tree: Vec::new(),
                contents: Vec::new(),
                outside: Vec::new(),
                secret: Vec::new(),
                marker: Vec::new(),
            },
            pair,
        };
        victim.before = victim.state();
        victim.forget_peak();
        victim
    }

    pub(super) fn node(&self) -> &Node {
        self.pair.node(self.side)
    }

    pub(super) fn outside(&self) -> &str {
        self.outside.to_str().unwrap()
    }

    fn state(&self) -> State {
        let root = &self.node().root;
        let read = |(path, _): &(&str, &str)| fs::read(root.join(path)).unwrap_or_default();
        State {
            tree: listing(root),
            contents: FILES.iter().map(read).collect(),
            outside: listing(&self.outside),
            secret: fs::read(self.outside.join("secret")).unwrap(),
            marker: fs::read(root.join(".layer-sync/marker")).unwrap(),
        }
    }

    /// Checks that the victim runs and answers, and that nothing was changed.
    #[track_caller]
    pub(super) fn is_unharmed(&self, attack: &str) {
        self.is_as_before(attack);
        self.took(attack);
    }

    /// Checks that nothing was changed.
    #[track_caller]
    pub(super) fn is_as_before(&self, attack: &str) {
        assert_eq!(self.state(), self.before, "after {attack}");
    }

    /// Checks that the victim runs and answers; prints what memory it took at most, which has a bound.
    #[track_caller]
    pub(super) fn took(&self, attack: &str) {
        self.took_at_most(attack, MEMORY_BYTES_MAX);
    }

    #[track_caller]
    pub(super) fn took_at_most(&self, attack: &str, bytes: u64) {
        self.node().ask(["status", "--json"]).exits(0);
        let peak = self.peak();
        let (mib, side) = (peak as f64 / f64::from(1 << 20), self.side.name());
        println!("{mib:>6.1} MiB  {side}: {attack}");
        assert!(peak <= bytes, "{attack} took {peak} bytes");
        self.forget_peak();
    }

    /// Returns the most memory that the victim had, in bytes.
    fn peak(&self) -> u64 {
        let status = format!("/proc/{}/status", self.node().pid().as_raw_nonzero());
        let status = fs::read_to_string(status).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib << 10
    }

    fn forget_peak(&self) {
        let refs = format!("/proc/{}/clear_refs", self.node().pid().as_raw_nonzero());
        fs::write(refs, "5").unwrap();
    }

    /// Waits until the victim's log has said something.
    #[track_caller]
    pub(super) fn says(&self, words: &str) {
        wait_until(words, crate::harness::SOON, || {
            self.node().log().contains(words)
        });
    }

    /// Lets the honest machine come back.
    #[track_caller]
    pub(super) fn heals(mut self) -> Pair {
        let taken = match self.side {
            Side::Pusher => Side::Receiver,
            Side::Receiver => Side::Pusher,
        };
        self.pair.node_mut(taken).start();
        self.pair.meet();
        self.pair.flush();
        self.pair
    }
}
