//! The machine that was taken over, as far as it speaks.

use std::net::SocketAddr;
use std::time::Duration;

use link::{Connection, Dialer, Incoming, Listener, Pins, Priority, Receiver, Sender};
use shared::hash::SetHash;
use shared::tree::Gen;
use shared::wire::{AgreedRow, Frame, Hello, IndexId, PROTOCOL_VERSION, SeenRow, Welcome};
use tokio::time::timeout;

use super::victim::Victim;
use crate::harness::SOON;

pub(super) const INDEX: IndexId = IndexId([0xee; 16]);

/// One connection to the victim.
pub(super) struct Peer {
    pub(super) connection: Connection,
    pub(super) out: Sender,
    back: Receiver,
}

pub(super) fn hello(victim: &Victim) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        pair: victim.id,
        node: "mac".into(),
        index: INDEX,
        base_of: None,
        last_batch: Gen(0),
    }
}

pub(super) fn welcome() -> Welcome {
    Welcome {
        version: PROTOCOL_VERSION,
        node: "vm".into(),
        index: INDEX,
        base_kept: true,
        resolved: Gen(0),
        ignore: String::new(),
    }
}

/// Waits for what must come soon.
pub(super) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(SOON, work)
        .await
        .unwrap_or_else(|_| panic!("not in {SOON:?}: {what}"))
}

impl Peer {
    /// Dials a real pusher with the key of its receiver.
    pub(super) async fn dial(victim: &Victim) -> Self {
        let dialer = Dialer::new(&victim.identity, Pins::new([victim.key]));
        let connection = soon("a dial", dialer.dial(&victim.address, victim.key))
            .await
            .unwrap();
        let (out, back) = connection.open_control().await.unwrap();
        Self {
            connection,
            out,
            back,
        }
    }

    /// Dials a real pusher and is greeted, with an empty tree and no base.
    pub(super) async fn greeted(victim: &Victim) -> Self {
        let mut peer = Self::dial(victim).await;
        peer.say(&Frame::Hello(hello(victim))).await;
        peer.hears("the start", |frame| matches!(frame, Frame::Start))
            .await;
        peer
    }

    /// Is greeted, tells of these paths, and is ready.
    pub(super) async fn ready(victim: &Victim, rows: Vec<SeenRow>) -> Self {
        let mut peer = Self::greeted(victim).await;
        let mut hash = SetHash::default();
        for (path, sight) in &rows {
            hash.add(path, sight.entry().unwrap());
        }
        peer.say(&Frame::Seen(rows)).await;
        peer.say(&Frame::Ready(hash)).await;
        peer
    }

    /// Sends a frame; the victim may have ended the connection already.
    pub(super) async fn say(&mut self, frame: &Frame) -> bool {
        self.raw(&frame.encode()).await
    }

    pub(super) async fn raw(&mut self, bytes: &[u8]) -> bool {
        soon("a frame is taken", self.out.send(bytes)).await.is_ok()
    }

    /// Returns the next frame; `None` when the victim has ended the connection.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        let bytes = soon("a frame", self.back.recv()).await.ok()??;
        Some(Frame::decode(&bytes).unwrap())
    }

    /// Waits for a frame.
    pub(super) async fn hears(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            match self.next().await {
                Some(frame) if wanted(&frame) => return frame,
                Some(Frame::Refuse(reason)) => panic!("no {what}, but: {reason}"),
                Some(_) => {}
                None => panic!("no {what}, but: {}", self.connection.closed().await),
            }
        }
    }

    /// Waits until the victim has ended the connection; returns why.
    pub(super) async fn refused(&mut self) -> String {
        let mut refused = None;
        while let Some(frame) = self.next().await {
            if let Frame::Refuse(reason) = frame {
                refused = Some(reason);
            }
        }
        let closed = soon("the connection ends", self.connection.closed()).await;
        refused.unwrap_or(closed)
    }

    /// Opens a stream that begins with a frame.
    pub(super) async fn stream(&self, first: &Frame) -> Sender {
        self.try_stream(first).await.unwrap()
    }

    /// Opens a stream that begins with a frame, unless the victim has ended the connection.
    pub(super) async fn try_stream(&self, first: &Frame) -> Option<Sender> {
        let opening = self.connection.open_stream(Priority::Small);
        let mut stream = soon("a stream", opening).await.ok()?;
        stream.send(&first.encode()).await.ok()?;
        Some(stream)
    }
}

/// Listens in the place of a pusher.
pub(super) struct Trap(Listener);

impl Trap {
    pub(super) fn new(victim: &Victim) -> Self {
        let address: SocketAddr = victim.address.parse().unwrap();
        Self(Listener::bind(address, &victim.identity, Pins::new([victim.key])).unwrap())
    }

    /// Waits until the receiver dials; returns what it says first.
    pub(super) async fn caught(&self) -> (Peer, Hello) {
        let incoming = soon("the receiver dials", self.0.accept()).await.unwrap();
        let Incoming::Peer(connection) = incoming else {
            panic!("somebody pairs");
        };
        let (out, back) = soon("the control stream", connection.accept_control())
            .await
            .unwrap();
        let mut peer = Peer {
            connection,
            out,
            back,
        };
        match peer.next().await {
            Some(Frame::Hello(hello)) => (peer, hello),
            other => panic!("{other:?} is no hello"),
        }
    }

    /// Greets the receiver; returns what it tells of its base and its tree.
    pub(super) async fn greeted(&self) -> (Peer, Hello, Vec<AgreedRow>) {
        let (mut peer, hello) = self.caught().await;
        peer.say(&Frame::Welcome(welcome())).await;
        peer.say(&Frame::Start).await;
        let mut bases = Vec::new();
        loop {
            match peer.next().await {
                Some(Frame::Bases(rows)) => bases.extend(rows),
                Some(Frame::Seen(_) | Frame::Folds(_) | Frame::Moving(_)) => {}
                Some(Frame::Ready(_)) => return (peer, hello, bases),
                other => panic!("{other:?} in a greeting"),
            }
        }
    }

    pub(super) async fn close(self) {
        self.0.close().await;
    }
}

/// Time for something that must not happen.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
