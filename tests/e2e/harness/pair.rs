//! Two nodes that are paired as two people would pair them.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

use super::{Answer, Node, SOON, Side, assert_equal, wait, wait_until};

/// A pusher, a receiver, and the folder that all their files are in.
pub(crate) struct Pair {
    pub(crate) pusher: Node,
    pub(crate) receiver: Node,
    // Last, so that it outlives the daemons.
    scratch: TempDir,
}

impl Pair {
    /// Makes two nodes and pairs them; the pusher runs, the receiver does not.
    #[track_caller]
    pub(crate) fn joined() -> Self {
        let mut pair = Self::strangers();
        pair.introduce();
        pair
    }

    /// Pairs two strangers, whose roots may have been chosen by the test, runs both and waits until they
    /// have met.
    #[track_caller]
    pub(crate) fn pair(&mut self) {
        self.introduce();
        self.receiver.start();
        self.meet();
    }

    #[track_caller]
    fn introduce(&mut self) {
        self.init();
        self.pusher.start();
        let code = self.code();
        self.join(&self.receiver, &code).exits(0);
    }

    /// Makes two nodes and pairs them through something that stands between them, whose address `between` makes out of the
    /// pusher's; the pusher runs, the receiver does not.
    #[track_caller]
    pub(crate) fn joined_through(between: impl FnOnce(SocketAddr) -> SocketAddr) -> Self {
        let mut pair = Self::strangers();
        let port = pair.init();
        pair.pusher.start();
        let address = between(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).to_string();
        let code = pair
            .pusher
            .ask(["pair", "--address", &address])
            .exits(0)
            .stdout;
        pair.join(&pair.receiver, code.trim()).exits(0);
        pair
    }

    /// Makes two nodes, pairs them, runs both and waits until they have met.
    #[track_caller]
    pub(crate) fn running() -> Self {
        let mut pair = Self::joined();
        pair.receiver.start();
        pair.meet();
        pair
    }

    /// Makes two empty folders and no node.
    pub(crate) fn strangers() -> Self {
        let scratch = TempDir::with_prefix("ls-e2e-").unwrap();
        let node = |side: Side| {
            let root = scratch.path().join(format!("{}-tree", side.name()));
            fs::create_dir(&root).unwrap();
            Node::new(side, scratch.path().join(side.name()), root)
        };
        Self {
            pusher: node(Side::Pusher),
            receiver: node(Side::Receiver),
            scratch,
        }
    }

    /// Returns a folder for what is no part of a tree, on the same volume as both trees.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Makes the pusher's home; returns its port.
    #[track_caller]
    pub(crate) fn init(&self) -> u16 {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let root = self.pusher.root.to_str().unwrap();
        self.pusher
            .ask([
                "init", "pusher", "--name", "vm", "--listen", &listen, "--root", root,
            ])
            .exits(0);
        port
    }

    /// Asks the pusher for a pairing code.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        let answer = self.pusher.ask(["pair"]).exits(0);
        assert_eq!(
            answer.stdout.lines().count(),
            1,
            "the code alone: {answer:#?}"
        );
        answer.stdout.trim().to_owned()
    }

    /// Joins a node with a code.
    pub(crate) fn join(&self, node: &Node, code: &str) -> Answer {
        node.ask([
            "join",
            "--name",
            "mac",
            "--root",
            node.root.to_str().unwrap(),
            code,
        ])
    }

    /// Makes another node, which is not in the pair.
    pub(crate) fn third(&self) -> Node {
        let root = self.scratch().join("third-tree");
        fs::create_dir(&root).unwrap();
        Node::new(Side::Receiver, self.scratch().join("third"), root)
    }

    /// Waits until both nodes have met.
    #[track_caller]
    pub(crate) fn meet(&self) {
        for node in self.nodes() {
            wait_until("the nodes meet", SOON, || {
                node.status()["peer"]["state"] == "linked"
            });
        }
    }

    pub(crate) fn nodes(&self) -> [&Node; 2] {
        [&self.pusher, &self.receiver]
    }

    pub(crate) fn node(&self, side: Side) -> &Node {
        match side {
            Side::Pusher => &self.pusher,
            Side::Receiver => &self.receiver,
        }
    }

    pub(crate) fn node_mut(&mut self, side: Side) -> &mut Node {
        match side {
            Side::Pusher => &mut self.pusher,
            Side::Receiver => &mut self.receiver,
        }
    }

    pub(crate) fn roots(&self) -> [PathBuf; 2] {
        [self.pusher.root.clone(), self.receiver.root.clone()]
    }

    /// Waits until a flush says that both trees are equal, and checks that they are.
    #[track_caller]
    pub(crate) fn flush(&self) {
        self.flush_from(Side::Pusher);
    }

    #[track_caller]
    pub(crate) fn flush_from(&self, side: Side) {
        self.node(side).ask(["flush"]).exits(0);
        assert_equal(&self.pusher.root, &self.receiver.root);
    }

    /// Waits until a path on one side has a content.
    #[track_caller]
    pub(crate) fn arrives(&self, side: Side, path: &str, content: &str) {
        let file = self.node(side).root.join(path);
        wait(path, SOON, || {
            fs::read_to_string(&file)
                .ok()
                .filter(|found| found == content)
        });
    }
}

/// Finds a free UDP port below those that the system hands out by itself, so that it stays free while
/// its daemon is restarted, and gives no port to two tests.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_default();
    // Another run at the same time begins elsewhere.
    let first = std::process::id() as u16 % 10_000;
    let ports = (0..10_000).map(|step| 20_000 + (first + step) % 10_000);
    let free =
        |port: &u16| !given.contains(port) && UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let port = ports.into_iter().find(free).unwrap();
    given.insert(port);
    port
}
