//! The whole link: real sockets on the loopback address, and the link in memory.

mod connect;
mod memory;
mod messages;
mod pairing;
mod rate;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::{Connection, Dialer, Identity, Incoming, LinkError, Listener, Pins};

/// Far above what anything here needs, also on a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIMEOUT, work)
        .await
        .expect("done in time")
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Two machines, the second of which listens.
struct Machines {
    dialer: Dialer,
    dialer_identity: Identity,
    dialer_pins: Pins,
    listener: Listener,
    listener_identity: Identity,
    listener_pins: Pins,
    address: String,
}

impl Machines {
    /// They know each other.
    fn paired() -> Self {
        let machines = Self::strangers();
        machines
            .dialer_pins
            .insert(machines.listener_identity.fingerprint());
        machines
            .listener_pins
            .insert(machines.dialer_identity.fingerprint());
        machines
    }

    fn strangers() -> Self {
        let dialer_identity = Identity::generate().expect("an identity");
        let listener_identity = Identity::generate().expect("an identity");
        let (dialer_pins, listener_pins) = (Pins::default(), Pins::default());
        let listener =
            Listener::bind(any_port(), &listener_identity, listener_pins.clone()).expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let dialer = Dialer::new(&dialer_identity, dialer_pins.clone());
        Self {
            dialer,
            dialer_identity,
            dialer_pins,
            listener,
            listener_identity,
            listener_pins,
            address,
        }
    }

    /// Calls while the listener listens; whoever is let in is dropped.
    async fn dial(&self) -> Result<Connection, LinkError> {
        let expected = self.listener_identity.fingerprint();
        self.while_listening(self.dialer.dial(&self.address, expected))
            .await
    }

    async fn connect(&self) -> (Connection, Connection) {
        let expected = self.listener_identity.fingerprint();
        let (dialed, incoming) = in_time(async {
            tokio::join!(
                self.dialer.dial(&self.address, expected),
                self.listener.accept()
            )
        })
        .await;
        let Some(Incoming::Peer(accepted)) = incoming else {
            panic!("{incoming:?}")
        };
        (dialed.expect("a connection"), accepted)
    }

    /// Does `call` while the listener answers; nobody who is let in may be a peer.
    async fn while_listening<T>(&self, call: impl Future<Output = T>) -> T {
        let nobody = async {
            while let Some(incoming) = self.listener.accept().await {
                assert!(
                    !matches!(incoming, Incoming::Peer(_)),
                    "{incoming:?} was let in"
                );
            }
        };
        in_time(async {
            tokio::select! {
                answer = call => answer,
                () = nobody => panic!("the listener has stopped"),
            }
        })
        .await
    }
}
