//! The control stream: frames in both directions.
//!
//! Neither direction grows without end. What has arrived and is not handled yet counts against
//! [`ARRIVED_BYTES_MAX`], beyond which nothing more is read, so that QUIC's flow control holds the other
//! machine back. What waits to be sent is bounded by [`OUTBOX_BYTES_MAX`] and [`WRITE_STALL_MAX`]: a
//! partner that does not read loses the connection, and is greeted anew when it comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use link::{LinkError, Receiver, Sender};
use shared::wire::{FRAME_BYTES_MAX, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tracing::trace;

/// Bytes of frames that may wait to be handled. In memory a frame of minimal rows is 40 times its
/// bytes.
pub(crate) const ARRIVED_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of frames that may wait to be sent: the rows of the largest tree. One more ends the connection.
pub(crate) const OUTBOX_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Longest time in which the other machine takes nothing of a frame's rest. It has 8 MiB of room for
/// what it has not read, so this is no slow link but one that does not read.
pub(crate) const WRITE_STALL_MAX: Duration = Duration::from_secs(60);
/// What a frame weighs besides its bytes while it waits.
const FRAME_BYTES: usize = size_of::<Frame>();

/// Where frames for the other machine go in.
#[derive(Debug, Clone)]
pub struct Outbox {
    frames: mpsc::UnboundedSender<Vec<u8>>,
    waiting_bytes: Arc<AtomicUsize>,
    end: watch::Sender<Option<String>>,
}

impl Outbox {
    /// Sends a frame. On a connection that has ended it is dropped: the next greeting tells anew.
    pub fn send(&self, frame: &Frame) {
        let bytes = frame.encode();
        trace!(frame = frame.name(), bytes = bytes.len(), "out");
        let weight = bytes.len();
        let waiting = self.waiting_bytes.fetch_add(weight, Ordering::Relaxed) + weight;
        if waiting > OUTBOX_BYTES_MAX {
            return self.end("the other machine does not read what it is sent".to_owned());
        }
        let _ = self.frames.send(bytes);
    }

    /// Ends the connection: the other machine has done what no honest one does.
    pub fn end(&self, reason: String) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(reason);
            first
        });
    }
}

/// The room that a frame takes until it has been handled; drop it then.
#[derive(Debug)]
pub struct Room {
    _permit: Option<OwnedSemaphorePermit>,
}

/// Carries the frames of one connection until it ends; returns why it did.
///
/// `arrived` gets every frame, in order. The outbox may be used at once.
pub fn control(
    mut sender: Sender,
    receiver: Receiver,
    arrived: impl Fn(Frame, Room) + Send + 'static,
) -> (Outbox, impl Future<Output = String> + Send) {
    let (frames, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
    let (end, mut ended) = watch::channel(None);
    let waiting_bytes = Arc::<AtomicUsize>::default();
    let outbox = Outbox {
        frames,
        waiting_bytes: Arc::clone(&waiting_bytes),
        end,
    };
    let write = async move {
        while let Some(frame) = queue.recv().await {
            timeout(WRITE_STALL_MAX, sender.send_packed(&frame))
                .await
                .map_err(|_| "the other machine does not read what it is sent".to_owned())?
                .map_err(|error| error.to_string())?;
            waiting_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        }
        sender
            .finish()
            .map_err(|error: LinkError| error.to_string())?;
        Ok::<_, String>("this side has closed the link".to_owned())
    };
    let mut receiver = receiver.with_limit(FRAME_BYTES_MAX);
    let read = async move {
        let room = Arc::new(Semaphore::new(ARRIVED_BYTES_MAX));
        while let Some(bytes) = receiver.recv().await.map_err(|error| error.to_string())? {
            let weight = (bytes.len() + FRAME_BYTES).min(ARRIVED_BYTES_MAX) as u32;
            // It is never closed, so the room comes.
            let permit = Arc::clone(&room).acquire_many_owned(weight).await.ok();
            let frame = Frame::decode(&bytes).map_err(|refused| refused.to_string())?;
            trace!(frame = frame.name(), "in");
            arrived(frame, Room { _permit: permit });
        }
        Ok::<_, String>("the other side has closed the link".to_owned())
    };
    let told = async move {
        let reason = ended
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|end| end.clone());
        match reason {
            Some(reason) => reason,
            // Nobody is left who could end it.
            None => std::future::pending().await,
        }
    };
    let both = async move {
        tokio::select! {
            ended = read => ended.unwrap_or_else(|reason| reason),
            ended = write => ended.unwrap_or_else(|reason| reason),
            reason = told => reason,
        }
    };
    (outbox, both)
}

#[cfg(test)]
mod tests;
