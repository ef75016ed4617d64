//! The same link without a network, for tests of whoever speaks over it.
//!
//! It behaves as the real one where a caller can notice: a stream is announced by its first bytes,
//! a window bounds what is in flight, a close reaches the other side after the delay, a dropped
//! connection closes. All waiting is on tokio's clock, so a test with paused time runs at once.
//!
//! *Loss*: QUIC repeats what is lost, so a caller never misses a byte of a stream that stands. What
//! a loss looks like from above is a wait for the repeat, during which the rest of that stream
//! waits too and other streams do not. It is modelled so, and counted, so that a run can be
//! repeated: every n-th packet of a direction comes late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::connection::{Connection, Traffic};
use crate::error::{CLOSED_HERE, LinkError};
use crate::fingerprint::Fingerprint;

/// What the link in memory is like.
#[derive(Debug, Clone, Copy)]
pub struct MemoryLink {
    /// One-way delay, the same in both directions. The round trip takes twice as long.
    pub delay: Duration,
    /// Every how many packets of a direction one is lost and repeated; `None` for no loss.
    pub loss_every: Option<u64>,
    /// The key that the listener sees.
    pub dialer: Fingerprint,
    /// The key that the dialer sees.
    pub listener: Fingerprint,
}

impl Default for MemoryLink {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            loss_every: None,
            dialer: Fingerprint([1; 32]),
            listener: Fingerprint([2; 32]),
        }
    }
}

/// Makes a standing link and returns the dialer's end, the listener's end and what cuts it.
pub fn pair(link: MemoryLink) -> (Connection, Connection, Cut) {
    let (dialer, listener) = (Arc::new(Side::new()), Arc::new(Side::new()));
    let end = |mine: &Arc<Side>, theirs: &Arc<Side>| {
        End(Arc::new(Ends {
            link,
            mine: Arc::clone(mine),
            theirs: Arc::clone(theirs),
        }))
    };
    (
        Connection::in_memory(end(&dialer, &listener), link.listener),
        Connection::in_memory(end(&listener, &dialer), link.dialer),
        Cut {
            sides: [dialer, listener],
        },
    )
}

/// Cuts the link as a network does that goes away.
#[derive(Debug, Clone)]
pub struct Cut {
    sides: [Arc<Side>; 2],
}

impl Cut {
    /// Ends the connection on both sides at once. What is in flight is lost.
    pub fn cut(&self) {
        let now = Instant::now();
        for side in &self.sides {
            side.end(now, REASON_CUT);
        }
    }
}

/// The reason that both sides see after [`Cut::cut`].
const REASON_CUT: &str = "the link was cut";

/// The reason that is seen when the other end was dropped.
const REASON_DROPPED: &str = "closed by the other machine";

/// What travels as one piece, in bytes, and is lost as one.
const PACKET_BYTES: usize = 16 << 10;

/// Bytes of one stream that may be in flight or unread, as the stream window of QUIC.
const WINDOW_BYTES: usize = 8 << 20;

/// Streams that one side may have open, as over QUIC.
const STREAMS_MAX: usize = crate::transport::STREAMS_MAX as usize;

/// What passes before a loss is noticed, on top of a round trip: the delay of acknowledgements.
const ACKNOWLEDGEMENT_DELAY: Duration = Duration::from_millis(25);

/// One side's view of a link.
#[derive(Debug, Clone)]
pub(crate) struct End(Arc<Ends>);

#[derive(Debug)]
struct Ends {
    link: MemoryLink,
    mine: Arc<Side>,
    theirs: Arc<Side>,
}

/// What belongs to one side and is reached from both. It holds no [`End`], or an unread stream
/// would keep its own connection alive.
#[derive(Debug)]
struct Side {
    ending: watch::Sender<Option<Ending>>,
    streams: Inbox<PipeReader>,
    controls: Inbox<(PipeWriter, PipeReader)>,
    /// Streams that this side may still open.
    credit: Arc<Semaphore>,
    packets_sent: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
}

/// From `at` on this side knows that the connection has ended; what arrives later is lost.
#[derive(Debug, Clone)]
struct Ending {
    at: Instant,
    reason: String,
}

impl Side {
    fn new() -> Self {
        Self {
            ending: watch::Sender::new(None),
            streams: Inbox::new(),
            controls: Inbox::new(),
            credit: Arc::new(Semaphore::new(STREAMS_MAX)),
            packets_sent: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
        }
    }

    /// Ends the connection for this side at `at`, unless it has ended before.
    fn end(&self, at: Instant, reason: &str) {
        self.ending.send_if_modified(|ending| {
            let earlier = ending.as_ref().is_none_or(|known| at < known.at);
            if earlier {
                *ending = Some(Ending {
                    at,
                    reason: reason.to_owned(),
                });
            }
            earlier
        });
    }

    /// Returns whether what arrives at `at` is lost, because this side has ended before.
    fn has_ended_before(&self, at: Instant) -> bool {
        self.ending
            .borrow()
            .as_ref()
            .is_some_and(|ending| ending.at < at)
    }

    async fn ended(&self) -> String {
        let mut endings = self.ending.subscribe();
        loop {
            let ending = endings.borrow_and_update().clone();
            match ending {
                Some(ending) if ending.at <= Instant::now() => return ending.reason,
                Some(ending) => {
                    tokio::select! {
                        () = sleep_until(ending.at) => {}
                        // A cut can come before a close arrives. The sender lives in `self`.
                        _ = endings.changed() => {}
                    }
                }
                None => {
                    let _ = endings.changed().await;
                }
            }
        }
    }
}

/// What the other side has announced and this side has not accepted yet.
#[derive(Debug)]
struct Inbox<T> {
    sender: mpsc::UnboundedSender<(Instant, T)>,
    receiver: Mutex<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    queue: mpsc::UnboundedReceiver<(Instant, T)>,
    /// On its way: kept here, so that a cancelled wait does not lose it.
    next: Option<(Instant, T)>,
}

impl<T> Inbox<T> {
    fn new() -> Self {
        let (sender, queue) = mpsc::unbounded_channel();
        Self {
            sender,
            receiver: Mutex::new(Waiting { queue, next: None }),
        }
    }

    fn announce(&self, at: Instant, item: T) {
        // The receiver stands beside the sender, so it is there.
        let _ = self.sender.send((at, item));
    }

    async fn accept(&self, side: &Side) -> Result<T, LinkError> {
        let mut waiting = self.receiver.lock().await;
        let at = match &waiting.next {
            Some((at, _)) => *at,
            None => tokio::select! {
                biased;
                announced = waiting.queue.recv() => match announced {
                    Some((at, item)) => waiting.next.insert((at, item)).0,
                    None => return Err(LinkError::closed(REASON_DROPPED)),
                },
                reason = side.ended() => return Err(LinkError::closed(reason)),
            },
        };
        arrival(side, at).await?;
        waiting
            .next
            .take()
            .map(|(_, item)| item)
            .ok_or_else(|| LinkError::closed(REASON_DROPPED))
    }
}

/// Waits until `at`, when something arrives at `side`; fails when the side ends before.
async fn arrival(side: &Side, at: Instant) -> Result<(), LinkError> {
    if at > Instant::now() {
        tokio::select! {
            () = sleep_until(at) => {}
            reason = side.ended() => return Err(LinkError::closed(reason)),
        }
    }
    if side.has_ended_before(at) {
        return Err(LinkError::closed(side.ended().await));
    }
    Ok(())
}

impl End {
    pub(crate) async fn open_control(&self) -> Result<(SendHalf, ReceiveHalf), LinkError> {
        self.refuse_when_ended()?;
        let (writer, their_reader) = pipe(None);
        let (their_writer, reader) = pipe(None);
        let announcement = Announcement::Control(their_writer, their_reader);
        Ok((
            self.sender(writer, Some(announcement)),
            self.receiver(reader),
        ))
    }

    pub(crate) async fn accept_control(&self) -> Result<(SendHalf, ReceiveHalf), LinkError> {
        let (writer, reader) = self.0.mine.controls.accept(&self.0.mine).await?;
        Ok((self.sender(writer, None), self.receiver(reader)))
    }

    pub(crate) async fn open_stream(&self) -> Result<SendHalf, LinkError> {
        self.refuse_when_ended()?;
        let credit = tokio::select! {
            credit = Arc::clone(&self.0.mine.credit).acquire_owned() => credit.ok(),
            reason = self.0.mine.ended() => return Err(LinkError::closed(reason)),
        };
        let (writer, reader) = pipe(credit);
        Ok(self.sender(writer, Some(Announcement::Stream(reader))))
    }

    pub(crate) async fn accept_stream(&self) -> Result<ReceiveHalf, LinkError> {
        Ok(self.receiver(self.0.mine.streams.accept(&self.0.mine).await?))
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.0.link.delay * 2
    }

    pub(crate) fn bytes(&self) -> Traffic {
        Traffic {
            sent: self.0.mine.bytes_sent.load(Ordering::Relaxed),
            received: self.0.mine.bytes_received.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn close(&self, reason: &str) {
        self.0.close(reason);
    }

    pub(crate) async fn closed(&self) -> String {
        self.0.mine.ended().await
    }

    /// The same on both sides, as over TLS, but no secret.
    pub(crate) fn export_keying_material(&self, label: &[u8], context: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for part in [label, context] {
            hasher
                .update(&(part.len() as u64).to_le_bytes())
                .update(part);
        }
        *hasher.finalize().as_bytes()
    }

    fn sender(&self, writer: PipeWriter, announcement: Option<Announcement>) -> SendHalf {
        SendHalf {
            end: self.clone(),
            writer,
            announcement,
        }
    }

    fn receiver(&self, reader: PipeReader) -> ReceiveHalf {
        ReceiveHalf {
            end: self.clone(),
            reader,
            next: None,
        }
    }

    fn refuse_when_ended(&self) -> Result<(), LinkError> {
        match &*self.0.mine.ending.borrow() {
            Some(ending) if ending.at <= Instant::now() => Err(LinkError::closed(&ending.reason)),
            _ => Ok(()),
        }
    }

    /// Counts one packet as sent and returns when it arrives.
    fn depart(&self) -> Instant {
        let number = self.0.mine.packets_sent.fetch_add(1, Ordering::Relaxed) + 1;
        let lost = self
            .0
            .link
            .loss_every
            .is_some_and(|every| number.is_multiple_of(every.max(1)));
        let repeat = if lost {
            self.rtt() + ACKNOWLEDGEMENT_DELAY
        } else {
            Duration::ZERO
        };
        Instant::now() + self.0.link.delay + repeat
    }
}

impl Ends {
    fn close(&self, reason: &str) {
        let now = Instant::now();
        self.mine.end(now, CLOSED_HERE);
        self.theirs.end(now + self.link.delay, reason);
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.close(REASON_DROPPED);
    }
}

/// One direction of a stream.
fn pipe(credit: Option<OwnedSemaphorePermit>) -> (PipeWriter, PipeReader) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let window = Arc::new(Semaphore::new(WINDOW_BYTES));
    (
        PipeWriter {
            packets: sender,
            window,
        },
        PipeReader {
            packets: receiver,
            _credit: credit,
        },
    )
}

#[derive(Debug)]
struct PipeWriter {
    packets: mpsc::UnboundedSender<Packet>,
    window: Arc<Semaphore>,
}

#[derive(Debug)]
struct PipeReader {
    packets: mpsc::UnboundedReceiver<Packet>,
    /// Returned to the opener when the stream is gone.
    _credit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
struct Packet {
    at: Instant,
    load: Load,
}

#[derive(Debug)]
enum Load {
    Data {
        bytes: Bytes,
        room: OwnedSemaphorePermit,
    },
    Finish,
}

/// What the other side gets with the first packet of a stream.
#[derive(Debug)]
enum Announcement {
    Stream(PipeReader),
    Control(PipeWriter, PipeReader),
}

#[derive(Debug)]
pub(crate) struct SendHalf {
    end: End,
    writer: PipeWriter,
    announcement: Option<Announcement>,
}

impl SendHalf {
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        for piece in bytes.chunks(PACKET_BYTES) {
            let room = tokio::select! {
                biased;
                reason = self.end.0.mine.ended() => return Err(LinkError::closed(reason)),
                () = self.writer.packets.closed() => return Err(LinkError::StreamRefused),
                room = Arc::clone(&self.writer.window).acquire_many_owned(piece.len() as u32) => {
                    room.map_err(|_| LinkError::StreamRefused)?
                }
            };
            self.end
                .0
                .mine
                .bytes_sent
                .fetch_add(piece.len() as u64, Ordering::Relaxed);
            self.depart(Load::Data {
                bytes: Bytes::copy_from_slice(piece),
                room,
            })?;
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> Result<(), LinkError> {
        self.end.refuse_when_ended()?;
        // A receiver that is gone needs no end, as over QUIC.
        match self.depart(Load::Finish) {
            Ok(()) | Err(LinkError::StreamRefused) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn depart(&mut self, load: Load) -> Result<(), LinkError> {
        let at = self.end.depart();
        self.writer
            .packets
            .send(Packet { at, load })
            .map_err(|_| LinkError::StreamRefused)?;
        let theirs = &self.end.0.theirs;
        match self.announcement.take() {
            Some(Announcement::Stream(reader)) => theirs.streams.announce(at, reader),
            Some(Announcement::Control(writer, reader)) => {
                theirs.controls.announce(at, (writer, reader));
            }
            None => {}
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct ReceiveHalf {
    end: End,
    reader: PipeReader,
    /// Arrived or on its way, and not read to its end.
    next: Option<Packet>,
}

impl ReceiveHalf {
    pub(crate) async fn read(&mut self, bytes_max: usize) -> Result<Option<Bytes>, LinkError> {
        let side = &self.end.0.mine;
        if self.next.is_none() {
            self.next = tokio::select! {
                biased;
                packet = self.reader.packets.recv() => packet,
                reason = side.ended() => return Err(LinkError::closed(reason)),
            };
        }
        let Some(packet) = &mut self.next else {
            // The sender is gone without a finish: abandoned, or the whole other end is.
            return match &*side.ending.borrow() {
                Some(ending) => Err(LinkError::closed(&ending.reason)),
                None => Err(LinkError::StreamAbandoned),
            };
        };
        arrival(side, packet.at).await?;
        let Load::Data { bytes, room } = &mut packet.load else {
            return Ok(None);
        };
        let taken = bytes.split_to(bytes.len().min(bytes_max));
        drop(room.split(taken.len()));
        side.bytes_received
            .fetch_add(taken.len() as u64, Ordering::Relaxed);
        if bytes.is_empty() {
            self.next = None;
        }
        Ok(Some(taken))
    }
}
