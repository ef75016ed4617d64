use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;

use super::{ALPN_PAIR, PinnedClients, PinnedServer, Pins, SERVER_NAME, provider};
use crate::desk::PairingDesk;
use crate::{Dialer, Identity, Listener};

fn identity() -> Identity {
    Identity::generate().expect("an identity")
}

fn clients(pins: Pins, desk: PairingDesk) -> PinnedClients {
    PinnedClients {
        pins,
        desk,
        provider: provider(),
    }
}

fn server(expected: &Identity) -> PinnedServer {
    let answered = Arc::new(OnceLock::new());
    PinnedServer {
        expected: expected.fingerprint(),
        answered,
        provider: provider(),
    }
}

#[test]
fn a_stranger_passes_the_handshake_only_while_a_code_is_open() {
    let (here, partner, stranger) = (identity(), identity(), identity());
    let pins = Pins::new([partner.fingerprint()]);
    let desk = PairingDesk::new(here.fingerprint());
    let verifier = clients(pins.clone(), desk.clone());
    let passes = |certificate: CertificateDer<'_>| {
        verifier
            .verify_client_cert(&certificate, &[], UnixTime::now())
            .is_ok()
    };
    assert!(passes(partner.certificate()) && !passes(stranger.certificate()));
    assert!(!passes(CertificateDer::from_slice(b"no certificate")));

    desk.open("vm:1", Instant::now(), [1; 16]).expect("a code");
    assert!(passes(stranger.certificate()));
    desk.close();
    assert!(!passes(stranger.certificate()));

    pins.remove(partner.fingerprint());
    assert!(!passes(partner.certificate()));
    assert!(
        verifier.client_auth_mandatory(),
        "without a certificate nobody comes in"
    );
}

#[test]
fn only_the_expected_server_passes_and_the_other_is_remembered() {
    let (expected, other) = (identity(), identity());
    let name = ServerName::try_from(SERVER_NAME).expect("a name");
    let verify = |verifier: &PinnedServer, certificate: CertificateDer<'_>| {
        verifier
            .verify_server_cert(&certificate, &[], &name, &[], UnixTime::now())
            .is_ok()
    };
    assert!(verify(&server(&expected), expected.certificate()));
    let verifier = server(&expected);
    assert!(!verify(&verifier, other.certificate()));
    assert_eq!(verifier.answered.get(), Some(&other.fingerprint()));
}

/// Shows the certificate of `victim` and signs with the key of `thief`.
fn stolen(victim: &Identity, thief: &Identity) -> Arc<SingleCertAndKey> {
    let key = any_supported_type(&thief.key()).expect("a key");
    Arc::new(CertifiedKey::new(vec![victim.certificate()], key).into())
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

#[tokio::test]
async fn a_caller_with_a_stolen_certificate_is_refused() {
    let (here, partner, thief) = (identity(), identity(), identity());
    let pins = Pins::new([partner.fingerprint()]);
    let listener = Listener::bind(any_port(), &here, pins).expect("a port");

    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(server(&here)))
        .with_client_cert_resolver(stolen(&partner, &thief));
    config.alpn_protocols = vec![ALPN_PAIR.to_vec()];
    let config = QuicClientConfig::try_from(config).expect("a configuration");
    let endpoint = quinn::Endpoint::client(any_port()).expect("a port");
    let address = listener.local_addr().expect("an address");
    let config = quinn::ClientConfig::new(Arc::new(config));
    let call = async {
        let call = endpoint
            .connect_with(config, address, SERVER_NAME)
            .expect("a call");
        // The dialer's half of the handshake ends first; the refusal follows.
        match call.await {
            Ok(connection) => connection.closed().await,
            Err(ended) => ended,
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::select! {
            ended = call => ended,
            incoming = listener.accept() => panic!("{incoming:?} was let in"),
        }
    });
    let ended = ended.await.expect("in time").to_string();
    assert!(ended.contains("cryptographic handshake failed"), "{ended}");
}

#[tokio::test]
async fn a_listener_with_a_stolen_certificate_is_refused() {
    let (here, partner, thief) = (identity(), identity(), identity());
    let desk = PairingDesk::new(partner.fingerprint());
    let verifier = clients(Pins::new([here.fingerprint()]), desk);
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(stolen(&partner, &thief));
    config.alpn_protocols = vec![ALPN_PAIR.to_vec()];
    let config = QuicServerConfig::try_from(config).expect("a configuration");
    let config = quinn::ServerConfig::with_crypto(Arc::new(config));
    let endpoint = quinn::Endpoint::server(config, any_port()).expect("a port");
    let address = endpoint.local_addr().expect("an address").to_string();

    let dialer = Dialer::new(&here, Pins::new([partner.fingerprint()]));
    let serve = async {
        while let Some(call) = endpoint.accept().await {
            if let Ok(connection) = call.await {
                let _ = connection
                    .open_uni()
                    .await
                    .map(|mut welcome| welcome.finish());
                connection.closed().await;
            }
        }
    };
    let dialed = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::select! {
            dialed = dialer.dial(&address, partner.fingerprint()) => dialed,
            () = serve => panic!("the thief has stopped"),
        }
    });
    let error = dialed
        .await
        .expect("in time")
        .expect_err("a thief")
        .to_string();
    assert!(error.contains("BadSignature"), "{error}");
}
