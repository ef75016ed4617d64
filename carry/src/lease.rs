//! The streams of the lease: one each way on every connection, for frames that wait neither for a page of
//! rows nor for a busy loop.
//!
//! Who keeps the lease is told of each connection with its number. Frames of an older one may still be on
//! their way when the next is there; the number tells them apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use link::{Connection, Priority, Receiver};
use shared::wire::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::Outbox;

/// Longest frame on these streams, in bytes.
pub(crate) const LEASE_FRAME_BYTES_MAX: usize = 64;
/// Frames of one connection that may wait to be handled.
const WAITING_MAX: usize = 8;

/// What whoever keeps the lease hears of the link.
#[derive(Debug)]
pub enum Heard {
    /// There is a connection, in place of the one before it; what is said goes in there.
    Linked(u64, mpsc::UnboundedSender<Frame>),
    /// [`Frame::Renew`] on the pusher, [`Frame::Lease`] on the receiver.
    Said(u64, Frame, Waiting),
    /// It has ended.
    Unlinked(u64),
}

/// The place of a frame among those that wait; drop it when the frame has been handled.
#[derive(Debug)]
pub struct Waiting {
    _permit: Option<OwnedSemaphorePermit>,
}

/// Tells whoever keeps the lease of the link.
#[derive(Debug, Clone)]
pub struct LeaseLink {
    heard: mpsc::UnboundedSender<Heard>,
    connections: Arc<AtomicU64>,
}

impl LeaseLink {
    /// Returns the two ends.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Heard>) {
        let (heard, hears) = mpsc::unbounded_channel();
        let connections = Arc::default();
        (Self { heard, connections }, hears)
    }

    /// There is a connection; returns its number.
    pub fn linked(&self, connection: &Connection) -> u64 {
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let (say, mut said) = mpsc::unbounded_channel::<Frame>();
        let connection = connection.clone();
        tokio::spawn(async move {
            // The stream exists for the other side from its first message on. A failure ends the connection.
            let Ok(mut stream) = connection.open_stream(Priority::Control).await else {
                return;
            };
            while let Some(frame) = said.recv().await {
                if stream.send(&frame.encode()).await.is_err() {
                    return;
                }
            }
        });
        let _ = self.heard.send(Heard::Linked(number, say));
        number
    }

    /// A connection has ended.
    pub fn unlinked(&self, number: u64) {
        let _ = self.heard.send(Heard::Unlinked(number));
    }

    /// Takes the other side's stream, which began with `first`.
    pub(crate) async fn read(&self, number: u64, first: Frame, stream: Receiver, outbox: Outbox) {
        let mut stream = stream.with_limit(LEASE_FRAME_BYTES_MAX);
        let waiting = Arc::new(Semaphore::new(WAITING_MAX));
        let kind = std::mem::discriminant(&first);
        let mut frame = first;
        loop {
            let permit = Arc::clone(&waiting).acquire_owned().await.ok();
            let place = Waiting { _permit: permit };
            if self.heard.send(Heard::Said(number, frame, place)).is_err() {
                return;
            }
            frame = match stream.recv().await {
                Ok(Some(bytes)) => match Frame::decode(&bytes) {
                    Ok(next) if std::mem::discriminant(&next) == kind => next,
                    Ok(other) => {
                        let name = other.name();
                        return outbox
                            .end(format!("a {name} frame came on the stream of the lease"));
                    }
                    Err(refused) => return outbox.end(refused.to_string()),
                },
                Ok(None) | Err(link::LinkError::Closed { .. }) => return,
                Err(error) => return outbox.end(error.to_string()),
            };
        }
    }
}
