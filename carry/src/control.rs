//! The control stream: frames in both directions.

use link::{LinkError, Receiver, Sender};
use shared::wire::Frame;
use tokio::sync::mpsc;
use tracing::trace;

/// Where frames for the other machine go in.
#[derive(Debug, Clone)]
pub struct Outbox(mpsc::UnboundedSender<Frame>);

impl Outbox {
    /// Sends a frame. On a connection that has ended it is dropped: the next greeting tells anew.
    ///
    /// The queue has no bound of its own. What is sent is bounded by the state machine: a few
    /// batches' answers, and rows that are in memory anyway.
    pub fn send(&self, frame: Frame) {
        let _ = self.0.send(frame);
    }
}

/// Carries the frames of one connection until it ends; returns why it did.
///
/// `arrived` gets every frame, in order. The outbox may be used at once.
pub fn control(
    mut sender: Sender,
    mut receiver: Receiver,
    arrived: impl Fn(Frame) + Send + 'static,
) -> (Outbox, impl Future<Output = String> + Send) {
    let (outbox, mut frames) = mpsc::unbounded_channel::<Frame>();
    let write = async move {
        while let Some(frame) = frames.recv().await {
            trace!(frame = frame.name(), "out");
            sender.send(&frame.encode()).await?;
        }
        sender.finish()?;
        Ok::<_, LinkError>("this side has closed the link".to_owned())
    };
    let read = async move {
        while let Some(bytes) = receiver.recv().await.map_err(|error| error.to_string())? {
            let frame = Frame::decode(&bytes).map_err(|refused| refused.to_string())?;
            trace!(frame = frame.name(), "in");
            arrived(frame);
        }
        Ok::<_, String>("the other side has closed the link".to_owned())
    };
    let both = async move {
        tokio::select! {
            ended = read => ended.unwrap_or_else(|reason| reason),
            ended = write => ended.unwrap_or_else(|error| error.to_string()),
        }
    };
    (Outbox(outbox), both)
}
