//! The streams that the other machine opens: each begins with a frame that says what it is for.

use link::{Connection, LinkError, Receiver};
use shared::transfer::SentBatch;
use shared::wire::{BATCH_FRAME_BYTES_MAX, Frame};

use crate::lease::LEASE_FRAME_BYTES_MAX;
use crate::{LeaseLink, Outbox, Takes};

/// Longest first frame of a stream that brings content or the lease, in bytes.
const BEGINNING_BYTES_MAX: usize = LEASE_FRAME_BYTES_MAX;

/// Who takes the batches that arrive with a stream.
pub type Begun = dyn Fn(SentBatch, Option<u64>, Receiver) + Send + Sync;

/// Hands the other machine's streams on, until the connection ends: content to the batches that wait
/// for it, batches to `begun`, the lease to whoever keeps it. Without `begun` this is the pusher, and no batch
/// may come. A stream that begins otherwise ends the connection.
pub async fn accept_streams(
    connection: Connection,
    takes: Takes,
    outbox: Outbox,
    begun: Option<std::sync::Arc<Begun>>,
    (lease, number): (LeaseLink, u64),
) {
    let limit = if begun.is_some() {
        BATCH_FRAME_BYTES_MAX
    } else {
        BEGINNING_BYTES_MAX
    };
    while let Ok(stream) = connection.accept_stream().await {
        let mut stream = stream.with_limit(limit);
        let (takes, outbox, begun) = (takes.clone(), outbox.clone(), begun.clone());
        let lease = lease.clone();
        // It ends with its stream, and that with the connection.
        tokio::spawn(async move {
            let first = match stream.recv().await {
                Ok(Some(first)) => Frame::decode(&first).map_err(|refused| refused.to_string()),
                Err(error @ (LinkError::MessageTooLong { .. } | LinkError::NotUnpacked)) => {
                    Err(error.to_string())
                }
                // Given up before it began.
                Ok(None) | Err(_) => return,
            };
            match (first, begun) {
                (Ok(Frame::Batch(batch, place)), Some(begun)) => begun(batch, place, stream),
                (Ok(Frame::Contents(batch)), None) => takes.parts(batch, stream, outbox).await,
                (Ok(Frame::Chunks(batch, index)), _) => {
                    takes.chunks(batch, index, stream, outbox).await;
                }
                (Ok(first @ Frame::Renew(_)), None) | (Ok(first @ Frame::Lease(_)), Some(_)) => {
                    lease.read(number, first, stream, outbox).await;
                }
                (Ok(other), _) => outbox.end(format!(
                    "the other machine began a stream with a {} frame",
                    other.name()
                )),
                (Err(reason), _) => outbox.end(reason),
            }
        });
    }
}
