//! Content on its way, from a giver's disk to a taker's stage.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use disk::{Replica, Staged, Taking};
use link::{Connection, LinkError, Priority, Receiver, Sender};
use shared::transfer::{BATCH_BYTES_MAX, Batch, ChunkRun, Item, Need, Outcome, Part};
use shared::tree::Gen;
use shared::wire::{Frame, PART_FRAME_BYTES_MAX};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use crate::gives::Ticket;
use crate::{Done, Jobs, Lane, Outbox};

/// Most parts between a stream and the disk.
const PARTS_AHEAD: usize = 2;

/// Sends the content of `items` on a stream whose first frame has been sent.
///
/// # Errors
/// When the stream breaks or the disk cannot be read at all.
pub async fn give(
    replica: Arc<Replica>,
    items: Vec<Item>,
    mut stream: Sender,
) -> Result<(), LinkError> {
    let (parts, mut ready) = mpsc::channel::<Vec<u8>>(PARTS_AHEAD);
    let reading = spawn_blocking(move || {
        replica.give(&items, &mut |part| {
            parts
                .blocking_send(Frame::Part(part).encode())
                .map_err(|_| hung_up())
        })
    });
    // A part leaves when it is known whether it is the last one, so that the end leaves with it.
    let mut next = ready.recv().await;
    while let Some(bytes) = next {
        next = ready.recv().await;
        stream.send(&bytes).await?;
        if next.is_none() {
            stream.finish()?;
            note_end(reading.await);
            return Ok(());
        }
    }
    note_end(reading.await);
    stream.flush().await?;
    stream.finish()
}

/// Sends the content that the other side fetches for a batch, on a stream of its own.
///
/// # Errors
/// When the stream breaks or the disk cannot be read at all.
pub async fn give_fetched(
    replica: Arc<Replica>,
    connection: Connection,
    batch: Gen,
    items: Vec<Item>,
    ticket: Ticket,
) -> Result<(), LinkError> {
    let _seat = ticket.seat(Priority::Small).await;
    let mut stream = connection.open_stream(Priority::Small).await?;
    stream
        .send_with_next(&Frame::Contents(batch).encode())
        .await?;
    give(replica, items, stream).await
}

/// Sends the chunks that the other side needs, or all of a file, on a stream of their own.
///
/// # Errors
/// When the stream breaks.
pub async fn give_chunks(
    replica: Arc<Replica>,
    connection: Connection,
    need: Need,
    ticket: Ticket,
) -> Result<(), LinkError> {
    let priority = if need.item.entry.len() > BATCH_BYTES_MAX {
        Priority::Bulk
    } else {
        Priority::Small
    };
    let _seat = ticket.seat(priority).await;
    let mut stream = connection.open_stream(priority).await?;
    stream
        .send(&Frame::Chunks(need.batch, need.item.index).encode())
        .await?;
    let (parts, mut ready) = mpsc::channel::<Vec<u8>>(PARTS_AHEAD);
    let reading = spawn_blocking(move || {
        let send = |frame: Frame| parts.blocking_send(frame.encode()).map_err(|_| hung_up());
        if need.runs.is_empty() {
            return replica.give(&[need.item], &mut |part| send(Frame::Part(part)));
        }
        replica.give_chunks(&need.item, &need.runs, &need.olds, &mut |run| {
            send(run.map_or(Frame::ChunksGone, Frame::ChunkRun))
        })
    });
    while let Some(bytes) = ready.recv().await {
        stream.send(&bytes).await?;
    }
    note_end(reading.await);
    stream.finish()
}

fn hung_up() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

fn note_end(ended: Result<io::Result<()>, tokio::task::JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        // The taker sees a stream without the rest, and asks again after the next plan.
        Ok(Err(error)) => debug!(%error, "content not read to the end"),
        Err(error) => warn!(%error, "reading content failed"),
    }
}

/// What arrives for a batch that is being taken.
enum Arrival {
    Part(Part),
    PartsEnd,
    Run(u32, ChunkRun),
    RunsGone(u32),
    RunsEnd(u32),
}

/// A batch to take.
#[derive(Debug)]
pub struct Order {
    /// The batch.
    pub batch: Batch,
    /// Its place in the lane.
    pub place: Option<u64>,
    /// Rows up to this batch are stored on both sides.
    pub resolved: Gen,
}

/// The batches of one connection that are being taken.
#[derive(Clone, Default)]
pub struct Takes(Arc<Mutex<BTreeMap<Gen, mpsc::Sender<Arrival>>>>);

impl Takes {
    /// Stages a batch from what arrives, waits for its turn and applies it. Ends as [`Done::Applied`]
    /// in any case, or as [`Done::DiskFailed`] before that.
    ///
    /// The parts come on `stream`, or for a batch that was fetched on one that is handed to
    /// [`Takes::parts`] later. Without an outbox nothing can be asked for, and only what needs no
    /// content is done. The batch is known from the moment of this call.
    pub fn take(
        &self,
        jobs: Jobs,
        order: Order,
        stream: Option<Receiver>,
        outbox: Option<Outbox>,
        lane: &Lane,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (arrivals, inbox) = mpsc::channel(PARTS_AHEAD);
        let number = order.batch.number;
        if outbox.is_some() {
            self.lock().insert(number, arrivals.clone());
        }
        let takes = self.clone();
        let mut place = lane.enter(order.place);
        async move {
            if let Some(stream) = stream {
                tokio::spawn(read_parts(stream, arrivals.clone(), outbox.clone()));
            }
            drop(arrivals);
            let replica = Arc::clone(jobs.replica());
            let batch = Arc::new(order.batch);
            let staging = {
                let (batch, replica) = (Arc::clone(&batch), Arc::clone(&replica));
                spawn_blocking(move || stage(replica.take(&batch), inbox, outbox.as_ref()))
            };
            let staged = staging.await;
            takes.lock().remove(&number);
            if !place.turn().await {
                // A batch before it was lost with the connection; the next plan has it again.
                return jobs.done(Done::Applied(number, vec![Outcome::Gone; batch.ops.len()]));
            }
            let applied = match staged {
                Ok(staged) => {
                    let batch = Arc::clone(&batch);
                    let apply = move || {
                        replica
                            .apply(&batch, staged, order.resolved)
                            .map_err(|error| error.to_string())
                    };
                    spawn_blocking(apply).await
                }
                Err(error) => Err(error),
            };
            let failure = match applied {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(error) => format!("applying a batch failed: {error}"),
            };
            jobs.done(Done::DiskFailed(failure));
            jobs.done(Done::Applied(number, vec![Outcome::Gone; batch.ops.len()]));
        }
    }

    /// Takes a stream with the parts of a batch that was fetched.
    pub async fn parts(&self, batch: Gen, stream: Receiver, outbox: Outbox) {
        let arrivals = self.lock().get(&batch).cloned();
        if let Some(arrivals) = arrivals {
            read_parts(stream, arrivals, Some(outbox)).await;
        }
    }

    /// Takes a stream with chunks of one file.
    pub async fn chunks(&self, batch: Gen, index: u32, stream: Receiver, outbox: Outbox) {
        let Some(arrivals) = self.lock().get(&batch).cloned() else {
            return;
        };
        let (mut stream, outbox) = (stream.with_limit(PART_FRAME_BYTES_MAX), Some(outbox));
        loop {
            let arrival = match next_frame(&mut stream, outbox.as_ref()).await {
                Some(Frame::ChunkRun(run)) => Arrival::Run(index, run),
                Some(Frame::Part(part)) => Arrival::Part(part),
                Some(Frame::ChunksGone) => Arrival::RunsGone(index),
                Some(other) => {
                    end(outbox.as_ref(), unexpected(&other));
                    break;
                }
                None => break,
            };
            if arrivals.send(arrival).await.is_err() {
                return;
            }
        }
        let _ = arrivals.send(Arrival::RunsEnd(index)).await;
    }

    /// Ends what still waits for content: the connection is gone. What has arrived is applied.
    pub fn hang_up(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Gen, mpsc::Sender<Arrival>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_parts(stream: Receiver, arrivals: mpsc::Sender<Arrival>, outbox: Option<Outbox>) {
    let mut stream = stream.with_limit(PART_FRAME_BYTES_MAX);
    while let Some(frame) = next_frame(&mut stream, outbox.as_ref()).await {
        let Frame::Part(part) = frame else {
            end(outbox.as_ref(), unexpected(&frame));
            break;
        };
        if arrivals.send(Arrival::Part(part)).await.is_err() {
            return;
        }
    }
    let _ = arrivals.send(Arrival::PartsEnd).await;
}

/// Returns the next frame; `None` at the end. What is no frame ends the connection.
async fn next_frame(stream: &mut Receiver, outbox: Option<&Outbox>) -> Option<Frame> {
    match stream.recv().await {
        Ok(Some(bytes)) => Frame::decode(&bytes)
            .map_err(|refused| end(outbox, refused.to_string()))
            .ok(),
        Ok(None) => None,
        Err(error @ (LinkError::MessageTooLong { .. } | LinkError::NotUnpacked)) => {
            end(outbox, error.to_string());
            None
        }
        Err(error) => {
            debug!(%error, "content stream broke");
            None
        }
    }
}

fn unexpected(frame: &Frame) -> String {
    format!(
        "the other machine sent a {} frame among content",
        frame.name()
    )
}

fn end(outbox: Option<&Outbox>, reason: String) {
    warn!(%reason, "content refused");
    if let Some(outbox) = outbox {
        outbox.end(reason);
    }
}

/// Feeds what arrives to the stage until nothing is missing or nothing more can come.
fn stage(
    mut taking: Taking,
    mut inbox: mpsc::Receiver<Arrival>,
    outbox: Option<&Outbox>,
) -> Staged {
    let mut parts_end = false;
    // How many answers are still to come for an operation.
    let mut needed: BTreeMap<u32, usize> = BTreeMap::new();
    let ask = |needs: Vec<Need>, needed: &mut BTreeMap<u32, usize>| {
        for need in needs {
            if let Some(outbox) = outbox {
                *needed.entry(need.item.index).or_default() += 1;
                outbox.send(&Frame::Need(need));
            }
        }
    };
    while taking.missing() && !(parts_end && needed.is_empty()) {
        let Some(arrival) = inbox.blocking_recv() else {
            break;
        };
        let taken = match arrival {
            Arrival::Part(part) => taking.part(part).map(|needs| ask(needs, &mut needed)),
            Arrival::PartsEnd => {
                parts_end = true;
                Ok(())
            }
            Arrival::Run(index, run) => taking
                .chunks(index, run)
                .map(|need| ask(need.into_iter().collect(), &mut needed)),
            Arrival::RunsGone(index) => {
                taking.gone(index);
                Ok(())
            }
            Arrival::RunsEnd(index) => {
                if let Some(left) = needed.get_mut(&index) {
                    *left -= 1;
                    needed.retain(|_, left| *left > 0);
                }
                Ok(())
            }
        };
        // No honest giver sends such a part, and nothing after it can be trusted to be worth the work.
        if let Err(error) = taken {
            end(outbox, error.to_string());
            break;
        }
    }
    taking.finish()
}
