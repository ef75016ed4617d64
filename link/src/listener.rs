//! The listening side: who may come in, and as what.
//!
//! A pinned key with the pair's protocol becomes a [`Connection`]. A stranger passes TLS only while
//! a pairing code is open, and then only to hand in a code. Handshakes run beside each other, and
//! there is a limit to them that silent strangers cannot fill: from half of it on a caller must
//! prove its address, and at the limit the oldest handshake gives way. The partner's takes two
//! round trips and is never the oldest for long.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::VarInt;
use quinn::crypto::rustls::HandshakeData;
use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tracing::debug;

use crate::connection::{CLOSE_BUSY, CLOSE_ORDERLY, CLOSE_UNKNOWN_KEY, Connection};
use crate::desk::PairingDesk;
use crate::error::LinkError;
use crate::fingerprint::Fingerprint;
use crate::identity::Identity;
use crate::pairing::PairingAttempt;
use crate::rate::RateLimit;
use crate::tls::{self, ALPN_PAIR, ALPN_PAIRING, Pins};
use crate::transport::{self, CLOSE_WAIT, Side};

/// Handshakes that may be under way. One more takes the place of the oldest.
pub const HANDSHAKES_MAX: usize = 32;

/// Handshakes under way from which a caller must first prove its address, at a round trip's cost.
const PROVE_ADDRESS_FROM: usize = HANDSHAKES_MAX / 2;

/// Time for one handshake. A caller that takes longer may call again.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Callers that the system may keep waiting for [`Listener::accept`]. Further ones are refused.
const WAITING_MAX: usize = 64;

/// Pairing conversations at once. Further ones are sent away; they may call again.
pub const PAIRING_ATTEMPTS_MAX: usize = 4;

/// Somebody who has come in.
#[derive(Debug)]
pub enum Incoming {
    /// A machine whose key is pinned. One that is connected already may come again, after a
    /// failure that only it has seen: the newer connection is the good one.
    Peer(Connection),
    /// Somebody who says to have a pairing code.
    Pairing(PairingAttempt),
}

/// Listens for the partner.
#[derive(Debug)]
pub struct Listener {
    endpoint: quinn::Endpoint,
    door: Door,
    handshakes: Mutex<Handshakes>,
}

impl Listener {
    /// Starts to listen on `address`; call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError::AddressInUse`], [`LinkError::Socket`] with the address, [`LinkError::Identity`].
    pub fn bind(address: SocketAddr, identity: &Identity, pins: Pins) -> Result<Self, LinkError> {
        let desk = PairingDesk::new(identity.fingerprint());
        let crypto = tls::server(identity, pins.clone(), desk.clone())?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config
            .transport_config(transport::transport(Side::Listener))
            .max_incoming(WAITING_MAX);
        let socket = transport::bind(address).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => LinkError::AddressInUse { address },
            _ => LinkError::Socket { address, source },
        })?;
        let endpoint_config = transport::endpoint_config(identity)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(endpoint_config, Some(config), socket, runtime)
            .map_err(|source| LinkError::Socket { address, source })?;
        let pairing_seats = Arc::new(Semaphore::new(PAIRING_ATTEMPTS_MAX));
        let door = Door {
            pins,
            desk,
            pairing_seats,
            limit: None,
        };
        Ok(Self {
            endpoint,
            door,
            handshakes: Mutex::default(),
        })
    }

    /// Lets all content streams of its connections together send `bytes` a second. Control streams
    /// are not limited, nor is what the other side sends.
    #[must_use]
    pub fn with_rate_limit(mut self, bytes: u64) -> Self {
        self.door.limit = Some(RateLimit::new(bytes, Instant::now()));
        self
    }

    /// Returns the address that is listened on, with the port that the system chose.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the socket is gone.
    pub fn local_addr(&self) -> Result<SocketAddr, LinkError> {
        self.endpoint.local_addr().map_err(LinkError::closed)
    }

    /// Returns the desk where pairing codes for this listener are given out.
    pub fn desk(&self) -> PairingDesk {
        self.door.desk.clone()
    }

    /// Waits for the next one who comes in; `None` after [`Listener::close`].
    ///
    /// May be cancelled and called again. Handshakes begin only while somebody waits here, so call
    /// it in a loop and work elsewhere.
    pub async fn accept(&self) -> Option<Incoming> {
        let mut handshakes = self.handshakes.lock().await;
        loop {
            tokio::select! {
                Some(done) = handshakes.running.join_next() => {
                    // A handshake that failed, or was pushed out, is nobody.
                    if let Ok(Some(incoming)) = done {
                        return Some(incoming);
                    }
                }
                call = self.endpoint.accept() => handshakes.begin(call?, &self.door),
            }
        }
    }

    #[cfg(test)]
    pub(crate) async fn handshakes_under_way(&self) -> usize {
        self.handshakes.lock().await.order.len()
    }

    /// Stops listening, ends all connections and tells the other side, within [`CLOSE_WAIT`]. The
    /// port is free when the listener and its connections are dropped.
    pub async fn close(&self) {
        self.endpoint
            .close(CLOSE_ORDERLY, b"the other machine ended the link");
        // Whoever does not answer in time notices by itself.
        let _ = timeout(CLOSE_WAIT, self.endpoint.wait_idle()).await;
    }
}

/// The handshakes under way. Dropping it ends them.
#[derive(Debug, Default)]
struct Handshakes {
    running: JoinSet<Option<Incoming>>,
    /// Oldest first.
    order: VecDeque<AbortHandle>,
}

impl Handshakes {
    fn begin(&mut self, call: quinn::Incoming, door: &Door) {
        self.order.retain(|handshake| !handshake.is_finished());
        if self.order.len() >= PROVE_ADDRESS_FROM && call.may_retry() {
            // It may be asked, so this cannot fail; a caller that is lost calls again anyway.
            let _ = call.retry();
            return;
        }
        if self.order.len() >= HANDSHAKES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            oldest.abort();
        }
        self.order
            .push_back(self.running.spawn(door.clone().handshake(call)));
    }
}

/// Decides who comes in.
#[derive(Debug, Clone)]
struct Door {
    pins: Pins,
    desk: PairingDesk,
    pairing_seats: Arc<Semaphore>,
    limit: Option<RateLimit>,
}

impl Door {
    async fn handshake(self, call: quinn::Incoming) -> Option<Incoming> {
        let from = call.remote_address();
        let outcome = timeout(HANDSHAKE_TIMEOUT, self.let_in(call)).await;
        match outcome.unwrap_or_else(|_| Err(LinkError::closed("the handshake took too long"))) {
            Ok(incoming) => Some(incoming),
            Err(error) => {
                debug!(%from, %error, "caller refused");
                None
            }
        }
    }

    async fn let_in(&self, call: quinn::Incoming) -> Result<Incoming, LinkError> {
        let connection = call.accept()?.await?;
        let key = key_of(&connection)?;
        let pinned = self.pins.contains(key);
        match protocol_of(&connection).as_deref() {
            Some(ALPN_PAIR) if pinned => {
                transport::trust(&connection);
                welcome(&connection).await?;
                let connection = Connection::over_quic(connection, key);
                Ok(Incoming::Peer(connection.with_limit(self.limit.clone())))
            }
            Some(ALPN_PAIRING) if pinned || self.desk.is_open(Instant::now()) => {
                self.let_stranger_in(connection, key).await
            }
            _ => Err(turn_away(
                &connection,
                CLOSE_UNKNOWN_KEY,
                "this key is not paired",
            )),
        }
    }

    async fn let_stranger_in(
        &self,
        connection: quinn::Connection,
        key: Fingerprint,
    ) -> Result<Incoming, LinkError> {
        let Ok(seat) = Arc::clone(&self.pairing_seats).try_acquire_owned() else {
            return Err(turn_away(
                &connection,
                CLOSE_BUSY,
                "too many are pairing; try again",
            ));
        };
        welcome(&connection).await?;
        let connection = Connection::over_quic(connection, key);
        Ok(Incoming::Pairing(PairingAttempt::new(connection, seat)))
    }
}

/// Tells the dialer that its key was looked at and taken: a stream with nothing on it.
async fn welcome(connection: &quinn::Connection) -> Result<(), LinkError> {
    connection
        .open_uni()
        .await?
        .finish()
        .map_err(LinkError::closed)
}

fn turn_away(connection: &quinn::Connection, code: VarInt, reason: &str) -> LinkError {
    connection.close(code, reason.as_bytes());
    LinkError::closed(reason)
}

fn protocol_of(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection
        .handshake_data()?
        .downcast::<HandshakeData>()
        .ok()?
        .protocol
}

fn key_of(connection: &quinn::Connection) -> Result<Fingerprint, LinkError> {
    let certificates = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'_>>>().ok());
    let certificate = certificates
        .as_deref()
        .and_then(|certificates| certificates.first())
        .ok_or_else(|| LinkError::closed("the caller has no certificate"))?;
    Fingerprint::of_certificate(certificate).map_err(LinkError::closed)
}
