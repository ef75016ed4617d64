//! How QUIC is set up: every number with its reason, and the sockets below.
//!
//! The figures were measured on loopback and on an emulated link of 40 ms and 100 Mbit/s, where
//! they are ample up to 1 Gbit/s; the windows are also the bound of the memory a connection takes.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::congestion::QueueAwareFactory;
use crate::error::LinkError;
use crate::identity::Identity;

/// What one stream may have in flight: 8 MiB fill 1 Gbit/s at 64 ms.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// What all streams together may have in flight towards us. Without it there is no bound at all.
const RECEIVE_WINDOW_BYTES: u32 = 16 << 20;
/// What may wait for an acknowledgement on our side.
const SEND_WINDOW_BYTES: u64 = 16 << 20;
/// A sign of life this often keeps the path open: NAT forgets a quiet UDP flow from 30 s on.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Silence after which the connection counts as dead: three signs of life missed.
const IDLE_MAX_MS: u32 = 30_000;
/// First guess of the round trip, which says when an unanswered call is repeated: after three
/// times as long. The usual guess (333 ms) costs a second at a wake-up whose first packet is lost.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Message streams open at once in one direction. Far more than the bulk streams and small batches
/// in flight; opening one more waits.
pub(crate) const STREAMS_MAX: u32 = 64;
/// Streams in both directions: one is the control stream, the rest is slack.
const CONTROL_STREAMS_MAX: u32 = 4;
/// Socket buffers. With the system's default, loopback loses thousands of datagrams in a gigabyte.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Longest wait for the other side to take note of an end. The word itself leaves at once; the wait
/// is for repeating it, about a tenth of a second here and this long at 40 ms.
pub const CLOSE_WAIT: Duration = Duration::from_millis(300);

/// What a caller may have in flight towards a listener that does not know it yet, or knows it for a
/// stranger with a pairing code. It may open no message streams either.
const STRANGER_WINDOW_BYTES: u32 = 64 << 10;

/// Which side of the connection settings are for.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Dialer,
    Listener,
}

/// Segmentation offload stays on: without it throughput halves.
pub(crate) fn transport(side: Side) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(QueueAwareFactory))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_bidi_streams(VarInt::from_u32(CONTROL_STREAMS_MAX))
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_MAX_MS).into()))
        .initial_rtt(INITIAL_RTT)
        .datagram_receive_buffer_size(None);
    match side {
        // The dialer sits behind the NAT, and its sign of life proves both sides alive.
        Side::Dialer => transport.keep_alive_interval(Some(KEEP_ALIVE)),
        Side::Listener => transport
            .receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES))
            .max_concurrent_uni_streams(VarInt::from_u32(0)),
    };
    Arc::new(transport)
}

/// Gives the partner the room that a stranger does not have.
pub(crate) fn trust(connection: &quinn::Connection) {
    connection.set_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES));
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX));
}

/// Settings of an endpoint that is recognised after a restart: its old connections are answered
/// with a stateless reset at once, so the partner need not wait for its idle time to run out.
pub(crate) fn endpoint_config(identity: &Identity) -> Result<EndpointConfig, LinkError> {
    let reset_key = ResetKey(identity.derive("layer-sync link 2026 stateless reset key"));
    let id_key = random_key()?;
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(move || {
        Box::new(ConnectionIds {
            key: id_key,
            count: 0,
        })
    });
    Ok(config)
}

/// Binds a UDP socket for both protocols where the address allows it, with large buffers.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        // A system without it serves IPv6 alone.
        let _ = socket.set_only_v6(false);
    }
    // A system that allows less gives what it allows, and the link is a little slower.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn random_key() -> Result<[u8; 32], LinkError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| LinkError::Identity {
        why: error.to_string(),
    })?;
    Ok(key)
}

/// Signs stateless resets and retry tokens with BLAKE3.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let signature = blake3::keyed_hash(&self.0, data);
        signature_out.copy_from_slice(&signature.as_bytes()[..signature_out.len()]);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = blake3::keyed_hash(&self.0, data);
        if blake3::Hash::from_slice(signature).is_ok_and(|signature| signature == expected) {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}

/// Random-looking connection ids. Quinn's own recognise only the ids of this run, and would drop
/// in silence what the run before is owed a reset for.
struct ConnectionIds {
    key: [u8; 32],
    count: u64,
}

/// Length of a connection id, as in quinn.
const CONNECTION_ID_BYTES: usize = 8;

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.count += 1;
        let id = blake3::keyed_hash(&self.key, &self.count.to_le_bytes());
        ConnectionId::new(&id.as_bytes()[..CONNECTION_ID_BYTES])
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
