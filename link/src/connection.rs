//! A connection to the partner: one control stream, many streams of messages, and a reason when it
//! ends. It works the same over QUIC and in memory; who holds it cannot tell.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use crate::error::{LinkError, reason_in_words};
use crate::fingerprint::Fingerprint;
use crate::memory;
use crate::rate::RateLimit;
use crate::stream::{ReceiveCarrier, Receiver, SendCarrier, Sender};

/// A standing connection. Clones are cheap and name the same connection, which ends when all of
/// them and all of its streams are dropped.
///
/// A stream reaches the other side with its first message, not when it is opened.
#[derive(Debug, Clone)]
pub struct Connection {
    carrier: Carrier,
    peer: Fingerprint,
    limit: Option<RateLimit>,
}

#[derive(Debug, Clone)]
enum Carrier {
    Quic(Arc<Quic>),
    Memory(memory::End),
}

/// What the clones of a connection share; it goes with the last of them.
#[derive(Debug)]
struct Quic {
    connection: quinn::Connection,
}

impl Drop for Quic {
    fn drop(&mut self) {
        let stats = self.connection.stats();
        debug!(
            remote = %self.connection.remote_address(),
            sent_bytes = stats.udp_tx.bytes,
            received_bytes = stats.udp_rx.bytes,
            sent = stats.path.sent_packets,
            lost = stats.path.lost_packets,
            window = stats.path.cwnd,
            rtt = ?stats.path.rtt,
            "connection ended"
        );
    }
}

/// What goes first when the link is narrow. Within one priority, streams share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Large files.
    Bulk,
    /// Small batches: a note overtakes a video.
    Small,
    /// What steers the others. The control stream has it by itself.
    Control,
}

impl Priority {
    fn for_quic(self) -> i32 {
        match self {
            Self::Bulk => 0,
            Self::Small => 1,
            Self::Control => 2,
        }
    }
}

/// Bytes that a connection has moved so far, as UDP payload: with acknowledgements and repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

/// Longest reason that [`Connection::close`] sends; the rest is cut off.
pub const REASON_BYTES_MAX: usize = 512;

/// Close code of an end that both sides understand. The reason says the rest.
pub(crate) const CLOSE_ORDERLY: quinn::VarInt = quinn::VarInt::from_u32(0);
/// Close code of a listener that does not serve the dialer's key.
pub(crate) const CLOSE_UNKNOWN_KEY: quinn::VarInt = quinn::VarInt::from_u32(1);
/// Close code of a listener that has too many conversations with strangers.
pub(crate) const CLOSE_BUSY: quinn::VarInt = quinn::VarInt::from_u32(2);

impl Connection {
    pub(crate) fn over_quic(connection: quinn::Connection, peer: Fingerprint) -> Self {
        Self {
            carrier: Carrier::Quic(Arc::new(Quic { connection })),
            peer,
            limit: None,
        }
    }

    pub(crate) fn in_memory(end: memory::End, peer: Fingerprint) -> Self {
        Self {
            carrier: Carrier::Memory(end),
            peer,
            limit: None,
        }
    }

    /// Sends on the streams that it opens no faster than `limit`; the control stream is free.
    pub(crate) fn with_limit(self, limit: Option<RateLimit>) -> Self {
        Self { limit, ..self }
    }

    /// Opens the control stream. The dialer does it, once, and sends first.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub async fn open_control(&self) -> Result<(Sender, Receiver), LinkError> {
        match &self.carrier {
            Carrier::Quic(quic) => control_over_quic(quic.connection.open_bi().await?),
            Carrier::Memory(end) => Ok(control_in_memory(end.open_control().await?)),
        }
    }

    /// Waits for the control stream that the dialer opens.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub async fn accept_control(&self) -> Result<(Sender, Receiver), LinkError> {
        match &self.carrier {
            Carrier::Quic(quic) => control_over_quic(quic.connection.accept_bi().await?),
            Carrier::Memory(end) => Ok(control_in_memory(end.accept_control().await?)),
        }
    }

    /// Opens a stream to the other side. Waits while too many are open.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub async fn open_stream(&self, priority: Priority) -> Result<Sender, LinkError> {
        let carrier = match &self.carrier {
            Carrier::Quic(quic) => {
                let stream = quic.connection.open_uni().await?;
                stream
                    .set_priority(priority.for_quic())
                    .map_err(LinkError::closed)?;
                SendCarrier::Quic(stream)
            }
            Carrier::Memory(end) => SendCarrier::Memory(end.open_stream().await?),
        };
        Ok(Sender::new(carrier).with_limit(self.limit.clone(), priority))
    }

    /// Waits for the next stream that the other side opened. May be cancelled and called again.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub async fn accept_stream(&self) -> Result<Receiver, LinkError> {
        let carrier = match &self.carrier {
            Carrier::Quic(quic) => ReceiveCarrier::Quic(quic.connection.accept_uni().await?),
            Carrier::Memory(end) => ReceiveCarrier::Memory(end.accept_stream().await?),
        };
        Ok(Receiver::new(carrier))
    }

    /// Returns the key that the other side has proved to hold.
    pub fn peer(&self) -> Fingerprint {
        self.peer
    }

    /// Returns where the other side is now; `None` in memory.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        match &self.carrier {
            Carrier::Quic(quic) => {
                let address = quic.connection.remote_address();
                Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
            }
            Carrier::Memory(_) => None,
        }
    }

    /// Returns the current estimate of the round trip time.
    pub fn rtt(&self) -> Duration {
        match &self.carrier {
            Carrier::Quic(quic) => quic.connection.rtt(),
            Carrier::Memory(end) => end.rtt(),
        }
    }

    /// Returns what the connection has moved so far.
    pub fn bytes(&self) -> Traffic {
        match &self.carrier {
            Carrier::Quic(quic) => {
                let stats = quic.connection.stats();
                Traffic {
                    sent: stats.udp_tx.bytes,
                    received: stats.udp_rx.bytes,
                }
            }
            Carrier::Memory(end) => end.bytes(),
        }
    }

    /// Ends the connection at once, on all its streams. What has not arrived yet is lost. The other
    /// side is told `reason`, cut to [`REASON_BYTES_MAX`].
    pub fn close(&self, reason: &str) {
        let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
        match &self.carrier {
            Carrier::Quic(quic) => quic.connection.close(CLOSE_ORDERLY, reason.as_bytes()),
            Carrier::Memory(end) => end.close(reason),
        }
    }

    /// Waits for the end of the connection and returns the reason in words.
    pub async fn closed(&self) -> String {
        match &self.carrier {
            Carrier::Quic(quic) => reason_in_words(&quic.connection.closed().await),
            Carrier::Memory(end) => end.closed().await,
        }
    }

    /// Returns 32 secret bytes that both sides of this very connection share and nobody else has.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when TLS gives none.
    pub fn export_keying_material(
        &self,
        label: &[u8],
        context: &[u8],
    ) -> Result<[u8; 32], LinkError> {
        match &self.carrier {
            Carrier::Quic(quic) => {
                let mut material = [0; 32];
                quic.connection
                    .export_keying_material(&mut material, label, context)
                    .map_err(|_| LinkError::closed("TLS exports no keying material"))?;
                Ok(material)
            }
            Carrier::Memory(end) => Ok(end.export_keying_material(label, context)),
        }
    }
}

fn control_over_quic(
    (sender, receiver): (quinn::SendStream, quinn::RecvStream),
) -> Result<(Sender, Receiver), LinkError> {
    sender
        .set_priority(Priority::Control.for_quic())
        .map_err(LinkError::closed)?;
    Ok((
        Sender::new(SendCarrier::Quic(sender)),
        Receiver::new(ReceiveCarrier::Quic(receiver)),
    ))
}

fn control_in_memory(
    (sender, receiver): (memory::SendHalf, memory::ReceiveHalf),
) -> (Sender, Receiver) {
    (
        Sender::new(SendCarrier::Memory(sender)),
        Receiver::new(ReceiveCarrier::Memory(receiver)),
    )
}
