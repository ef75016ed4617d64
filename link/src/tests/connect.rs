//! Who is let in, who is not, and what the one who is not is told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;

use super::{Machines, any_port, in_time};
use crate::listener::HANDSHAKES_MAX;
use crate::{
    CLOSE_WAIT, Connection, Dialer, Fingerprint, Identity, Incoming, LinkError, Listener, Pins,
    Priority,
};

/// Sends one message from the dialer and sees it arrive.
async fn assert_stands(dialer: &Connection, listener: &Connection) {
    let mut sender = dialer.open_stream(Priority::Small).await.expect("a stream");
    sender.send(b"message").await.expect("sent");
    let mut receiver = in_time(listener.accept_stream()).await.expect("a stream");
    let message = in_time(receiver.recv()).await.expect("received");
    assert_eq!(message.as_deref(), Some(&b"message"[..]));
}

#[tokio::test]
async fn a_pair_connects_and_each_knows_the_other() {
    let machines = Machines::paired();
    let (dialer, listener) = machines.connect().await;
    assert_eq!(dialer.peer(), machines.listener_identity.fingerprint());
    assert_eq!(listener.peer(), machines.dialer_identity.fingerprint());
    assert_eq!(
        dialer.remote_addr().map(|at| at.to_string()),
        Some(machines.address.clone())
    );
    assert!(dialer.rtt() < Duration::from_secs(1));
    assert_stands(&dialer, &listener).await;
}

#[tokio::test]
async fn a_name_is_tried_at_all_its_addresses() {
    let machines = Machines::paired();
    let port = machines.listener.local_addr().expect("an address").port();
    let expected = machines.listener_identity.fingerprint();
    // It may stand for ::1 first, where nobody listens.
    let peer = format!("localhost:{port}");
    let (dialed, _) = in_time(async {
        tokio::join!(
            machines.dialer.dial(&peer, expected),
            machines.listener.accept()
        )
    })
    .await;
    dialed.expect("a connection");
}

#[tokio::test]
async fn another_key_is_refused_and_named() {
    let machines = Machines::paired();
    let expected = Fingerprint([9; 32]);
    machines.dialer_pins.insert(expected);
    let call = machines.dialer.dial(&machines.address, expected);
    let error = machines
        .while_listening(call)
        .await
        .expect_err("another key");
    let LinkError::WrongKey {
        address,
        found,
        expected: asked,
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(*address, machines.address);
    assert_eq!(
        (*found, *asked),
        (machines.listener_identity.fingerprint(), expected)
    );
    assert!(error.needs_a_person());
}

#[tokio::test]
async fn an_unknown_key_is_refused_until_it_is_pinned() {
    let machines = Machines::paired();
    let key = machines.dialer_identity.fingerprint();
    machines.listener_pins.remove(key);
    let error = machines.dial().await.expect_err("unknown");
    assert!(matches!(error, LinkError::RefusedByPeer { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("pair again with `layer-sync pair`"),
        "{error}"
    );

    machines.listener_pins.insert(key);
    machines.connect().await;

    machines.listener_pins.remove(key);
    let error = machines.dial().await.expect_err("forgotten");
    assert!(matches!(error, LinkError::RefusedByPeer { .. }), "{error}");
}

#[tokio::test]
async fn an_unknown_key_gets_no_further_while_a_code_is_open() {
    let machines = Machines::paired();
    machines
        .listener_pins
        .remove(machines.dialer_identity.fingerprint());
    let desk = machines.listener.desk();
    desk.open(&machines.address, Instant::now(), [1; 16])
        .expect("a code");
    let error = machines.dial().await.expect_err("unknown");
    assert!(matches!(error, LinkError::RefusedByPeer { .. }), "{error}");
}

#[tokio::test]
async fn a_key_that_is_not_pinned_here_is_not_called() {
    let machines = Machines::strangers();
    let error = machines.dial().await.expect_err("not paired");
    assert!(matches!(error, LinkError::NotPaired { .. }), "{error}");
}

#[tokio::test]
async fn another_protocol_is_a_version_mismatch() {
    let machines = Machines::paired();
    let expected = machines.listener_identity.fingerprint();
    let call = machines
        .dialer
        .call(&machines.address, expected, b"layer-sync/99");
    let error = machines
        .while_listening(call)
        .await
        .expect_err("another version");
    assert!(
        matches!(error, LinkError::VersionMismatch { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn silence_is_unreachable() {
    let silent = UdpSocket::bind(any_port()).await.expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let key = Fingerprint([1; 32]);
    let dialer = Dialer::new(
        &Identity::generate().expect("an identity"),
        Pins::new([key]),
    );
    let begin = Instant::now();
    let error = in_time(dialer.dial(&address, key))
        .await
        .expect_err("silence");
    assert!(matches!(error, LinkError::Unreachable { .. }), "{error}");
    assert!(
        begin.elapsed() < 2 * crate::dialer::CONNECT_TIMEOUT,
        "{:?}",
        begin.elapsed()
    );

    let error = in_time(dialer.dial("no port", key))
        .await
        .expect_err("no address");
    assert!(matches!(error, LinkError::Unreachable { .. }), "{error}");
    assert!(!error.needs_a_person());
}

#[tokio::test]
async fn a_used_address_is_named() {
    let machines = Machines::paired();
    let address = machines.listener.local_addr().expect("an address");
    let again = Listener::bind(address, &machines.listener_identity, Pins::default());
    let error = again.expect_err("in use");
    assert!(matches!(error, LinkError::AddressInUse { address: named } if named == address));
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn closing_is_quick_and_said() {
    let machines = Machines::paired();
    let (dialer, _listener) = machines.connect().await;
    let begin = Instant::now();
    in_time(machines.listener.close()).await;
    assert!(
        begin.elapsed() < Duration::from_millis(500),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(
        in_time(dialer.closed()).await,
        "the other machine ended the link"
    );
    assert!(in_time(machines.listener.accept()).await.is_none());
}

#[tokio::test]
async fn closing_is_quick_when_nobody_answers() {
    let machines = Machines::paired();
    let relay = Relay::start(machines.listener.local_addr().expect("an address")).await;
    relay.let_through(Through::Everything);
    let expected = machines.listener_identity.fingerprint();
    let (dialed, accepted) = in_time(async {
        let address = relay.address.to_string();
        tokio::join!(
            machines.dialer.dial(&address, expected),
            machines.listener.accept()
        )
    })
    .await;
    dialed.as_ref().expect("a connection");
    assert!(accepted.is_some());
    relay.let_through(Through::Nothing);
    let begin = Instant::now();
    in_time(machines.dialer.close()).await;
    assert!(
        begin.elapsed() < CLOSE_WAIT + Duration::from_millis(100),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn the_dialer_ends_and_calls_again() {
    let machines = Machines::paired();
    let (_dialer, listener) = machines.connect().await;
    in_time(machines.dialer.close()).await;
    assert_eq!(
        in_time(listener.closed()).await,
        "the other machine ended the link"
    );
    let (dialer, listener) = machines.connect().await;
    assert_stands(&dialer, &listener).await;
}

#[tokio::test]
async fn a_connection_survives_a_new_socket() {
    let machines = Machines::paired();
    let (dialer, listener) = machines.connect().await;
    let before = listener.remote_addr();
    machines.dialer.rebind().expect("a new socket");
    assert_stands(&dialer, &listener).await;
    assert_ne!(listener.remote_addr(), before);
}

#[tokio::test]
async fn the_partner_is_found_again_after_a_restart_on_the_same_port() {
    let machines = Machines::paired();
    let (dialer, listener) = machines.connect().await;
    let address = machines.listener.local_addr().expect("an address");
    in_time(machines.listener.close()).await;
    drop(listener);
    drop(dialer);
    let Machines {
        dialer,
        listener,
        listener_identity,
        listener_pins,
        ..
    } = machines;
    drop(listener);

    let listener = bind_when_free(address, &listener_identity, &listener_pins).await;
    let key = listener_identity.fingerprint();
    let address = address.to_string();
    let (dialed, _) =
        in_time(async { tokio::join!(dialer.dial(&address, key), listener.accept()) }).await;
    dialed.expect("a connection");
}

#[tokio::test]
async fn a_listener_that_died_is_noticed_when_it_is_back() {
    let listener_identity = Identity::generate().expect("an identity");
    let dialer_identity = Identity::generate().expect("an identity");
    let pins = Pins::new([dialer_identity.fingerprint()]);
    let key = listener_identity.fingerprint();
    let dialer = Dialer::new(&dialer_identity, Pins::new([key]));

    // Its own runtime: shutting that down is a death without a word.
    let life = tokio::runtime::Runtime::new().expect("a runtime");
    let entered = life.enter();
    let listener = Listener::bind(any_port(), &listener_identity, pins.clone()).expect("a port");
    drop(entered);
    let address = listener.local_addr().expect("an address");
    let (said, accepted) = tokio::sync::oneshot::channel();
    life.spawn(async move {
        let incoming = listener.accept().await;
        let _ = said.send(incoming.is_some());
        std::future::pending::<()>().await;
        drop((listener, incoming));
    });
    let connection = in_time(dialer.dial(&address.to_string(), key))
        .await
        .expect("a connection");
    assert!(in_time(accepted).await.expect("said"));
    life.shutdown_background();

    let _listener = bind_when_free(address, &listener_identity, &pins).await;
    let mut sender = connection
        .open_stream(Priority::Small)
        .await
        .expect("a stream");
    sender.send(b"is anybody there?").await.expect("sent");
    let begin = Instant::now();
    assert_eq!(
        in_time(connection.closed()).await,
        "the other machine has restarted"
    );
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
}

/// The system takes a moment to give a port back.
async fn bind_when_free(address: SocketAddr, identity: &Identity, pins: &Pins) -> Listener {
    in_time(async {
        loop {
            match Listener::bind(address, identity, pins.clone()) {
                Ok(listener) => return listener,
                Err(LinkError::AddressInUse { .. }) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn silent_strangers_do_not_keep_the_partner_out() {
    let machines = Machines::paired();
    let expected = machines.listener_identity.fingerprint();
    let relay = Relay::start(machines.listener.local_addr().expect("an address")).await;
    let stranger = Machines::strangers();
    stranger.dialer_pins.insert(expected);
    // Each proves its address and says no more. They do not know that the answers never arrive.
    relay.let_through(Through::ProofsOfAddress);
    let strangers = (0..2 * HANDSHAKES_MAX).map(|_| {
        let dialer = Dialer::new(&stranger.dialer_identity, Pins::new([expected]));
        let address = relay.address.to_string();
        tokio::spawn(async move { dialer.dial(&address, expected).await.err() })
    });
    let strangers: Vec<_> = strangers.collect();
    in_time(async {
        while machines.listener.handshakes_under_way().await < HANDSHAKES_MAX {
            // Nobody comes in, but the handshakes begin.
            let wait = Duration::from_millis(20);
            let nobody = tokio::time::timeout(wait, machines.listener.accept()).await;
            nobody.expect_err("a silent stranger came in");
        }
    })
    .await;

    let begin = Instant::now();
    let (dialer, listener) = machines.connect().await;
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    assert_stands(&dialer, &listener).await;
    for stranger in strangers {
        stranger.abort();
    }
}

#[tokio::test]
async fn a_cancelled_accept_loses_nobody() {
    let machines = Machines::paired();
    let expected = machines.listener_identity.fingerprint();
    let impatient = async {
        loop {
            let wait = Duration::from_millis(1);
            if let Ok(incoming) = tokio::time::timeout(wait, machines.listener.accept()).await {
                return incoming;
            }
        }
    };
    let (dialed, incoming) = in_time(async {
        tokio::join!(machines.dialer.dial(&machines.address, expected), impatient)
    })
    .await;
    dialed.expect("a connection");
    assert!(matches!(incoming, Some(Incoming::Peer(_))));
}

/// A network between the machines that loses what the test says.
struct Relay {
    address: SocketAddr,
    through: tokio::sync::watch::Sender<Through>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Through {
    Everything,
    Nothing,
    /// What callers say, and of the answers only the request to prove the address.
    ProofsOfAddress,
}

impl Relay {
    async fn start(server: SocketAddr) -> Self {
        let outside = UdpSocket::bind(any_port()).await.expect("a port");
        let address = outside.local_addr().expect("an address");
        let (through, rule) = tokio::sync::watch::channel(Through::Nothing);
        let task = tokio::spawn(relay(outside, server, rule));
        Self {
            address,
            through,
            task,
        }
    }

    fn let_through(&self, through: Through) {
        self.through.send_replace(through);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries datagrams, with one socket towards the server for each caller.
async fn relay(
    outside: UdpSocket,
    server: SocketAddr,
    rule: tokio::sync::watch::Receiver<Through>,
) {
    let mut callers: Vec<(SocketAddr, UdpSocket)> = Vec::new();
    let (mut from_outside, mut from_inside) = ([0; 2048], [0; 2048]);
    loop {
        tokio::select! {
            said = outside.recv_from(&mut from_outside) => {
                let (bytes, caller) = said.expect("a datagram");
                let known = callers.iter().position(|(address, _)| *address == caller);
                let at = match known {
                    Some(at) => at,
                    None => {
                        let inside = UdpSocket::bind(any_port()).await.expect("a port");
                        inside.connect(server).await.expect("a way");
                        callers.push((caller, inside));
                        callers.len() - 1
                    }
                };
                if *rule.borrow() != Through::Nothing {
                    callers[at].1.send(&from_outside[..bytes]).await.expect("sent");
                }
            }
            (bytes, at) = answer(&callers, &mut from_inside) => {
                let through = match *rule.borrow() {
                    Through::Everything => true,
                    Through::Nothing => false,
                    Through::ProofsOfAddress => is_retry(from_inside[0]),
                };
                if through {
                    let answer = &from_inside[..bytes];
                    outside.send_to(answer, callers[at].0).await.expect("sent");
                }
            }
        }
    }
}

/// A long header of the type Retry (RFC 9000, section 17.2.5).
fn is_retry(first_byte: u8) -> bool {
    first_byte & 0xb0 == 0xb0
}

/// Waits for what the server says to any of the callers.
async fn answer(callers: &[(SocketAddr, UdpSocket)], buffer: &mut [u8]) -> (usize, usize) {
    std::future::poll_fn(|context| {
        for (at, (_, inside)) in callers.iter().enumerate() {
            let mut into = tokio::io::ReadBuf::new(buffer);
            if inside.poll_recv(context, &mut into).is_ready() && !into.filled().is_empty() {
                return std::task::Poll::Ready((into.filled().len(), at));
            }
        }
        std::task::Poll::Pending
    })
    .await
}
