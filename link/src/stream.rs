//! One stream of messages, in one direction.
//!
//! On the stream a message is its length (u32, little-endian) and then its bytes. A length over the
//! limit is refused before anything is allocated, and the buffer grows only with the bytes that
//! arrive. The highest bit of the length says that the message is packed ([`packed`]). A stream has three ends, and the receiver can tell them apart: finished (`None`),
//! abandoned by a [`Sender`] that was dropped, and cut off in the middle of a message.

use bytes::Bytes;

use crate::connection::Priority;
use crate::error::LinkError;
use crate::memory;
use crate::packed::{self, PACK_BYTES_MIN};
use crate::rate::RateLimit;

/// Longest message in bytes: 8 MiB of content and room for what stands around it. Either side
/// answers a longer one with [`LinkError::MessageTooLong`].
pub const MESSAGE_BYTES_MAX: usize = (8 << 20) + (64 << 10);

/// The length in front of a message.
const HEADER_BYTES: usize = 4;

/// Stands in the length of a message that is packed.
const PACKED: u32 = 1 << 31;

/// A short message goes out in one piece with its header, so that it needs no second datagram.
const ONE_PIECE_BYTES_MAX: usize = 16 << 10;

/// Most bytes taken from the carrier at once.
const READ_BYTES_MAX: usize = 256 << 10;

/// Reset code of a stream whose sender was dropped. The number has no meaning; the reset has.
const RESET_ABANDONED: quinn::VarInt = quinn::VarInt::from_u32(1);

/// The sending half. Call [`Sender::finish`] at the end: dropping it instead abandons the stream,
/// and what the other side has not read by then may be lost.
#[derive(Debug)]
pub struct Sender {
    carrier: SendCarrier,
    state: Sending,
    /// Short messages that leave with the next one.
    held: Vec<u8>,
    /// What it shares with the other content streams of the node.
    limit: Option<(RateLimit, Priority)>,
}

#[derive(Debug)]
pub(crate) enum SendCarrier {
    Quic(quinn::SendStream),
    Memory(memory::SendHalf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    BetweenMessages,
    InMessage,
    Finished,
}

impl Sender {
    pub(crate) fn new(carrier: SendCarrier) -> Self {
        Self {
            carrier,
            state: Sending::BetweenMessages,
            held: Vec::new(),
            limit: None,
        }
    }

    /// Sends no faster than `limit` lets a stream of `priority`. What steers the others is not limited.
    pub(crate) fn with_limit(mut self, limit: Option<RateLimit>, priority: Priority) -> Self {
        self.limit = limit
            .filter(|_| priority != Priority::Control)
            .map(|limit| (limit, priority));
        self
    }

    /// Takes a short message that leaves together with the next one, in one datagram where both fit. A longer
    /// one leaves at once, packed where that is shorter.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send_with_next(&mut self, message: &[u8]) -> Result<(), LinkError> {
        if message.len() >= PACK_BYTES_MIN || self.held.len() + message.len() > ONE_PIECE_BYTES_MAX
        {
            return self.send_packed(message).await;
        }
        if self.state != Sending::BetweenMessages {
            return Err(LinkError::Torn);
        }
        self.held
            .extend_from_slice(&(message.len() as u32).to_le_bytes());
        self.held.extend_from_slice(message);
        Ok(())
    }

    /// Sends what waits for a next message.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        if self.held.is_empty() {
            return Ok(());
        }
        if self.state != Sending::BetweenMessages {
            return Err(LinkError::Torn);
        }
        self.state = Sending::InMessage;
        let held = std::mem::take(&mut self.held);
        self.write(&held).await?;
        self.state = Sending::BetweenMessages;
        Ok(())
    }

    /// Hands `message` to the link; returns when the link has taken it, not when it has arrived.
    ///
    /// Waits while the window is full, and for the rate limit of the node. When the wait is cancelled the
    /// message is sent in part, and nothing more can follow it.
    ///
    /// # Errors
    /// [`LinkError::MessageTooLong`] above [`MESSAGE_BYTES_MAX`], before anything is sent;
    /// [`LinkError::StreamRefused`] when the other side dropped its receiver;
    /// [`LinkError::Torn`] after a cancelled send; [`LinkError::Closed`].
    pub async fn send(&mut self, message: &[u8]) -> Result<(), LinkError> {
        if message.len() > MESSAGE_BYTES_MAX {
            let announced = message.len() as u64;
            return Err(LinkError::MessageTooLong {
                announced,
                limit: MESSAGE_BYTES_MAX,
            });
        }
        self.send_as(message.len() as u32, message).await
    }

    /// As [`Sender::send`], packed where that is shorter: for what is not compressed already.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send_packed(&mut self, message: &[u8]) -> Result<(), LinkError> {
        if !(PACK_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&message.len()) {
            return self.send(message).await;
        }
        match packed::pack(message) {
            Some(packed) => self.send_as(PACKED | packed.len() as u32, &packed).await,
            None => self.send(message).await,
        }
    }

    async fn send_as(&mut self, header: u32, body: &[u8]) -> Result<(), LinkError> {
        if self.state != Sending::BetweenMessages {
            return Err(LinkError::Torn);
        }
        self.state = Sending::InMessage;
        let (beside_header, rest) = body.split_at(body.len().min(ONE_PIECE_BYTES_MAX));
        let mut first = std::mem::take(&mut self.held);
        first.reserve(HEADER_BYTES + beside_header.len());
        first.extend_from_slice(&header.to_le_bytes());
        first.extend_from_slice(beside_header);
        self.write(&first).await?;
        if !rest.is_empty() {
            self.write(rest).await?;
        }
        self.state = Sending::BetweenMessages;
        Ok(())
    }

    /// Ends the stream cleanly. Everything sent still arrives, as long as the connection stands; what waits
    /// for a next message needs [`Sender::flush`] before.
    ///
    /// # Errors
    /// [`LinkError::Torn`] after a cancelled or failed send; the stream is abandoned then.
    pub fn finish(mut self) -> Result<(), LinkError> {
        if self.state != Sending::BetweenMessages || !self.held.is_empty() {
            return Err(LinkError::Torn);
        }
        self.state = Sending::Finished;
        match &mut self.carrier {
            SendCarrier::Quic(stream) => stream.finish().map_err(LinkError::closed),
            SendCarrier::Memory(half) => half.finish(),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let Some((limit, priority)) = self.limit.clone() else {
            return self.write_now(bytes).await;
        };
        for piece in bytes.chunks(limit.piece_bytes()) {
            limit.pass(priority, piece.len()).await;
            self.write_now(piece).await?;
        }
        Ok(())
    }

    async fn write_now(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        match &mut self.carrier {
            SendCarrier::Quic(stream) => Ok(stream.write_all(bytes).await?),
            SendCarrier::Memory(half) => half.write_all(bytes).await,
        }
    }

    /// Writes bytes that are no message, to play a faulty machine.
    #[cfg(test)]
    pub(crate) async fn write_raw(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.write(bytes).await
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // Quinn would finish the stream here, and half a batch would look like a whole one.
        // Memory abandons by itself. An error says that the stream is gone already.
        if let (SendCarrier::Quic(stream), true) =
            (&mut self.carrier, self.state != Sending::Finished)
        {
            let _ = stream.reset(RESET_ABANDONED);
        }
    }
}

/// The receiving half. Dropping it tells the sender to stop.
#[derive(Debug)]
pub struct Receiver {
    carrier: ReceiveCarrier,
    limit: usize,
    /// What has arrived of the length of the next message.
    header: Vec<u8>,
    /// What has arrived of the message itself.
    body: Vec<u8>,
}

#[derive(Debug)]
pub(crate) enum ReceiveCarrier {
    Quic(quinn::RecvStream),
    Memory(memory::ReceiveHalf),
}

#[derive(Clone, Copy)]
enum Part {
    Header,
    Body,
}

impl Receiver {
    pub(crate) fn new(carrier: ReceiveCarrier) -> Self {
        Self {
            carrier,
            limit: MESSAGE_BYTES_MAX,
            header: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Takes no message longer than `bytes`, nor than [`MESSAGE_BYTES_MAX`].
    #[must_use]
    pub fn with_limit(mut self, bytes: usize) -> Self {
        self.limit = bytes.min(MESSAGE_BYTES_MAX);
        self
    }

    /// Returns the next message, or `None` when the sender finished the stream.
    ///
    /// May be cancelled and called again: nothing that arrived is lost.
    ///
    /// # Errors
    /// [`LinkError::MessageTooLong`] before anything is allocated for the message;
    /// [`LinkError::Truncated`] when the stream ends inside a message;
    /// [`LinkError::NotUnpacked`] when one was not packed as it should be;
    /// [`LinkError::StreamAbandoned`] when the sender was dropped; [`LinkError::Closed`].
    pub async fn recv(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        loop {
            let (part, part_bytes) = match self.announced()? {
                None => (Part::Header, HEADER_BYTES - self.header.len()),
                Some((bytes, is_packed)) if bytes == self.body.len() => {
                    self.header.clear();
                    let body = std::mem::take(&mut self.body);
                    return if is_packed {
                        packed::unpack(&body, self.limit).map(Some)
                    } else {
                        Ok(Some(body))
                    };
                }
                Some((bytes, _)) => (Part::Body, bytes - self.body.len()),
            };
            match (self.read(part_bytes.min(READ_BYTES_MAX)).await?, part) {
                (Some(bytes), Part::Header) => self.header.extend_from_slice(&bytes),
                (Some(bytes), Part::Body) => self.body.extend_from_slice(&bytes),
                (None, Part::Header) if self.header.is_empty() => return Ok(None),
                (None, _) => return Err(LinkError::Truncated),
            }
        }
    }

    /// Returns the length of the message that is arriving, and whether it is packed; `None` while the header
    /// arrives.
    fn announced(&self) -> Result<Option<(usize, bool)>, LinkError> {
        let Ok(header) = <[u8; HEADER_BYTES]>::try_from(self.header.as_slice()) else {
            return Ok(None);
        };
        let header = u32::from_le_bytes(header);
        let bytes = check_length(header & !PACKED, self.limit)?;
        Ok(Some((bytes, header & PACKED != 0)))
    }

    async fn read(&mut self, bytes_max: usize) -> Result<Option<Bytes>, LinkError> {
        match &mut self.carrier {
            ReceiveCarrier::Quic(stream) => Ok(stream
                .read_chunk(bytes_max, true)
                .await?
                .map(|chunk| chunk.bytes)),
            ReceiveCarrier::Memory(half) => half.read(bytes_max).await,
        }
    }
}

/// Returns the length of a message that the other side announces, if it may be so long.
pub(crate) fn check_length(announced: u32, limit: usize) -> Result<usize, LinkError> {
    match usize::try_from(announced) {
        Ok(bytes) if bytes <= limit => Ok(bytes),
        _ => Err(LinkError::MessageTooLong {
            announced: u64::from(announced),
            limit,
        }),
    }
}
