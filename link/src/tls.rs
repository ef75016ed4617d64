//! TLS 1.3 with both sides pinned by key. There is no authority, no name and no expiry: a key is
//! pinned or it is a stranger's.
//!
//! A verifier looks at the key first and then really checks the handshake signature, which proves
//! that the other side holds the private half. Sessions are never resumed, because a resumed one
//! would skip that look, and a pin that was removed would live on.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme, version,
};

use crate::desk::PairingDesk;
use crate::error::LinkError;
use crate::fingerprint::Fingerprint;
use crate::identity::Identity;

/// The protocol of a pair. Its number grows when two versions would misunderstand each other.
pub(crate) const ALPN_PAIR: &[u8] = b"layer-sync/1";
/// The protocol of pairing, the only one that a stranger may speak.
pub(crate) const ALPN_PAIRING: &[u8] = b"layer-sync-pair/1";

/// The server name of every handshake. Nobody looks at it; TLS wants one.
pub(crate) const SERVER_NAME: &str = "layer-sync";

/// The keys that this machine takes as its partner's. Clones share one set, which may change while
/// connections stand: a removed key is refused from the next handshake on.
#[derive(Debug, Clone, Default)]
pub struct Pins(Arc<RwLock<BTreeSet<Fingerprint>>>);

impl Pins {
    /// Makes a set of `keys`.
    pub fn new(keys: impl IntoIterator<Item = Fingerprint>) -> Self {
        Self(Arc::new(RwLock::new(keys.into_iter().collect())))
    }

    /// Pins `key`.
    pub fn insert(&self, key: Fingerprint) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key);
    }

    /// Forgets `key`. Connections that stand are the caller's to close.
    pub fn remove(&self, key: Fingerprint) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
    }

    /// Returns whether `key` is pinned.
    pub fn contains(&self, key: Fingerprint) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&key)
    }
}

/// TLS of a listener: pinned keys, and strangers only while `desk` has a code open.
pub(crate) fn server(
    identity: &Identity,
    pins: Pins,
    desk: PairingDesk,
) -> Result<QuicServerConfig, LinkError> {
    let provider = provider();
    let verifier = PinnedClients {
        pins,
        desk,
        provider: Arc::clone(&provider),
    };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(vec![identity.certificate()], identity.key())
        .map_err(unusable)?;
    config.alpn_protocols = vec![ALPN_PAIR.to_vec(), ALPN_PAIRING.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
        .try_into()
        .map_err(|error: NoInitialCipherSuite| unusable(error))
}

/// TLS of one call to `expected`. The key that really answered is left in `answered`.
pub(crate) fn client(
    identity: &Identity,
    expected: Fingerprint,
    alpn: &[u8],
    answered: Arc<OnceLock<Fingerprint>>,
) -> Result<QuicClientConfig, LinkError> {
    let provider = provider();
    let verifier = PinnedServer {
        expected,
        answered,
        provider: Arc::clone(&provider),
    };
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![identity.certificate()], identity.key())
        .map_err(unusable)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config
        .try_into()
        .map_err(|error: NoInitialCipherSuite| unusable(error))
}

/// Named in full, so that no other crate of the program can put its own in its place.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unusable(error: impl std::fmt::Display) -> LinkError {
    LinkError::Identity {
        why: error.to_string(),
    }
}

/// Ends a handshake with the alert `access_denied`, which the dialer reads as "not paired".
fn refused() -> rustls::Error {
    CertificateError::ApplicationVerificationFailure.into()
}

#[derive(Debug)]
struct PinnedServer {
    expected: Fingerprint,
    answered: Arc<OnceLock<Fingerprint>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let key = Fingerprint::of_certificate(end_entity)?;
        // Each call has its own cell, so it is empty here.
        let _ = self.answered.set(key);
        if key == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(refused())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[derive(Debug)]
struct PinnedClients {
    pins: Pins,
    desk: PairingDesk,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for PinnedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let key = Fingerprint::of_certificate(end_entity)?;
        // The protocol is not known here. The listener looks at both before it serves anything.
        if self.pins.contains(key) || self.desk.is_open(Instant::now()) {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(refused())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests;
