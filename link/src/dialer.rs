//! The calling side: one socket, many tries, and for each failed one the reason that a person needs.
//!
//! A call counts as answered only when the listener has said welcome. In TLS 1.3 the dialer is done
//! before the listener has looked at its key, so without that word a refusal would come later, as
//! an ending nobody can explain.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use quinn::{ConnectionError, TransportErrorCode};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::connection::{CLOSE_ORDERLY, CLOSE_UNKNOWN_KEY, Connection};
use crate::error::{LinkError, reason_in_words};
use crate::fingerprint::Fingerprint;
use crate::identity::Identity;
use crate::rate::RateLimit;
use crate::tls::{self, Pins};
use crate::transport::{self, CLOSE_WAIT, Side};

/// Time for one call, from looking up the name to the listener's welcome.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of one name that are tried; further ones are not.
pub const ADDRESSES_MAX: usize = 4;

/// Head start of each address of a name over the next, so that a dead one costs little.
const ADDRESS_HEAD_START: Duration = Duration::from_millis(250);

/// Calls the partner. Made once; each call uses its socket, or a new one where that went bad.
#[derive(Debug)]
pub struct Dialer {
    identity: Identity,
    pins: Pins,
    endpoint: Mutex<Option<quinn::Endpoint>>,
    limit: Option<RateLimit>,
}

impl Dialer {
    /// Makes a dialer. It has no socket before the first call.
    pub fn new(identity: &Identity, pins: Pins) -> Self {
        Self {
            identity: identity.clone(),
            pins,
            endpoint: Mutex::new(None),
            limit: None,
        }
    }

    /// Lets all content streams of its connections together send `bytes` a second. Control streams
    /// are not limited, nor is what the other side sends.
    #[must_use]
    pub fn with_rate_limit(self, bytes: u64) -> Self {
        let limit = Some(RateLimit::new(bytes, Instant::now()));
        Self { limit, ..self }
    }

    /// Calls `peer`, given as `host:port`, and takes only `expected` for an answer.
    ///
    /// Returns within [`CONNECT_TIMEOUT`], with a connection on which the other side serves us.
    /// # Errors
    /// [`LinkError::NotPaired`] when `expected` is not pinned here; [`LinkError::Unreachable`],
    /// [`LinkError::WrongKey`], [`LinkError::RefusedByPeer`], [`LinkError::VersionMismatch`].
    pub async fn dial(&self, peer: &str, expected: Fingerprint) -> Result<Connection, LinkError> {
        if !self.pins.contains(expected) {
            return Err(LinkError::NotPaired { expected });
        }
        let connection = self.call(peer, expected, tls::ALPN_PAIR).await?;
        Ok(connection.with_limit(self.limit.clone()))
    }

    /// Moves to a new socket, as after a change of network. Connections that stand move with it.
    ///
    /// # Errors
    /// [`LinkError::Socket`] when the system gives no socket; the old one stays then.
    pub fn rebind(&self) -> Result<(), LinkError> {
        let endpoint = self.lock();
        if let Some(endpoint) = &*endpoint {
            let (socket, address) = any_socket()?;
            endpoint
                .rebind(socket)
                .map_err(|source| LinkError::Socket { address, source })?;
        }
        Ok(())
    }

    /// Ends all connections of this dialer and tells the other side, within [`CLOSE_WAIT`]. A later
    /// call works again.
    pub async fn close(&self) {
        let endpoint = self.lock().take();
        if let Some(endpoint) = endpoint {
            endpoint.close(CLOSE_ORDERLY, b"the other machine ended the link");
            // Whoever does not answer in time notices by itself.
            let _ = timeout(CLOSE_WAIT, endpoint.wait_idle()).await;
        }
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    pub(crate) async fn call(
        &self,
        peer: &str,
        expected: Fingerprint,
        alpn: &'static [u8],
    ) -> Result<Connection, LinkError> {
        let endpoint = self.endpoint()?;
        let late = || LinkError::Unreachable {
            address: peer.to_owned(),
            why: format!("nothing was heard for {} s", CONNECT_TIMEOUT.as_secs()),
        };
        let call = self.race(&endpoint, peer, expected, alpn);
        let answer = timeout(CONNECT_TIMEOUT, call)
            .await
            .unwrap_or_else(|_| Err(late()));
        if let Err(LinkError::Unreachable { why, .. }) = &answer {
            debug!(peer, why, "no answer");
            // The socket may be the reason. The next call has another; what stands on this stays.
            *self.lock() = None;
        }
        answer
    }

    /// Calls the addresses of `peer`, each a little after the one before. The first answer counts.
    async fn race(
        &self,
        endpoint: &quinn::Endpoint,
        peer: &str,
        expected: Fingerprint,
        alpn: &'static [u8],
    ) -> Result<Connection, LinkError> {
        let unreachable = |why: String| LinkError::Unreachable {
            address: peer.to_owned(),
            why,
        };
        let addresses = tokio::net::lookup_host(peer)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let mut calls = JoinSet::new();
        let mut head_start = Duration::ZERO;
        for address in addresses.take(ADDRESSES_MAX) {
            let attempt = Attempt {
                endpoint: endpoint.clone(),
                identity: self.identity.clone(),
                address,
                peer: peer.to_owned(),
                expected,
                alpn,
            };
            let wait = head_start;
            calls.spawn(async move {
                sleep(wait).await;
                attempt.run().await
            });
            head_start += ADDRESS_HEAD_START;
        }
        let mut failure = unreachable("the name has no address".to_owned());
        while let Some(call) = calls.join_next().await {
            match call {
                Ok(Ok(connection)) => return Ok(connection),
                // A machine that answered wrongly says more than one that did not answer.
                Ok(Err(error)) if !failure.needs_a_person() => failure = error,
                Ok(Err(_)) => {}
                Err(stopped) => failure = unreachable(stopped.to_string()),
            }
        }
        Err(failure)
    }

    fn endpoint(&self) -> Result<quinn::Endpoint, LinkError> {
        let mut kept = self.lock();
        if let Some(endpoint) = &*kept {
            return Ok(endpoint.clone());
        }
        let (socket, address) = any_socket()?;
        let config = transport::endpoint_config(&self.identity)?;
        let endpoint = quinn::Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime))
            .map_err(|source| LinkError::Socket { address, source })?;
        Ok(kept.insert(endpoint).clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<quinn::Endpoint>> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket on any port, for both protocols, or for IPv4 where there is no IPv6.
fn any_socket() -> Result<(std::net::UdpSocket, SocketAddr), LinkError> {
    let (both, one) = (
        (Ipv6Addr::UNSPECIFIED, 0).into(),
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
    );
    transport::bind(both)
        .map(|socket| (socket, both))
        .or_else(|_| transport::bind(one).map(|socket| (socket, one)))
        .map_err(|source| LinkError::Socket {
            address: one,
            source,
        })
}

/// One call to one address.
struct Attempt {
    endpoint: quinn::Endpoint,
    identity: Identity,
    address: SocketAddr,
    peer: String,
    expected: Fingerprint,
    alpn: &'static [u8],
}

impl Attempt {
    async fn run(&self) -> Result<Connection, LinkError> {
        let answered = Arc::new(OnceLock::new());
        let crypto = tls::client(
            &self.identity,
            self.expected,
            self.alpn,
            Arc::clone(&answered),
        )?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport::transport(Side::Dialer));
        let connecting = self
            .endpoint
            .connect_with(config, self.address, tls::SERVER_NAME)
            .map_err(|error| self.unreachable(error.to_string()))?;
        let explain = |ended: ConnectionError| self.explain(&ended, answered.get().copied());
        let connection = connecting.await.map_err(explain)?;
        let mut welcome = connection.accept_uni().await.map_err(explain)?;
        welcome
            .read_to_end(0)
            .await
            .map_err(|error| self.unreachable(error.to_string()))?;
        Ok(Connection::over_quic(connection, self.expected))
    }

    fn explain(&self, ended: &ConnectionError, answered: Option<Fingerprint>) -> LinkError {
        let address = self.peer.clone();
        if let Some(found) = answered.filter(|found| *found != self.expected) {
            return LinkError::WrongKey {
                address,
                found,
                expected: self.expected,
            };
        }
        match ended {
            ConnectionError::ConnectionClosed(close)
                if close.error_code == TransportErrorCode::crypto(ALERT_ACCESS_DENIED) =>
            {
                LinkError::RefusedByPeer { address }
            }
            ConnectionError::ApplicationClosed(close) if close.error_code == CLOSE_UNKNOWN_KEY => {
                LinkError::RefusedByPeer { address }
            }
            ConnectionError::ConnectionClosed(close)
                if close.error_code == TransportErrorCode::crypto(ALERT_NO_PROTOCOL) =>
            {
                LinkError::VersionMismatch { address }
            }
            ConnectionError::VersionMismatch => LinkError::VersionMismatch { address },
            other => self.unreachable(reason_in_words(other)),
        }
    }

    fn unreachable(&self, why: String) -> LinkError {
        LinkError::Unreachable {
            address: self.peer.clone(),
            why,
        }
    }
}

/// The TLS alert of a listener that does not know our key.
const ALERT_ACCESS_DENIED: u8 = 49;
/// The TLS alert of a listener that speaks none of our protocols.
const ALERT_NO_PROTOCOL: u8 = 120;
