//! The other node, and the way to it.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use config::Settings;
use config::settings::Link;
use link::{Dialer, Identity, LinkError, Pins};
use shared::control::{NodeSide, PeerState, Status};

use super::own::sentence;
use super::{Asked, Case, Check};
use crate::daemon::runtime;
use crate::partner::Partner;

const LET_THROUGH: &str =
    "start `layer-sync pusher` on the other machine, and let UDP through to it";

/// This node knows another one.
pub(super) fn partner(case: &Case<'_>, settings: Option<&Settings>) -> (Option<Partner>, Check) {
    const NAME: &str = "partner";
    match Partner::read(case.home) {
        Ok(Some(partner)) => {
            let text = format!(
                "It is {}, with the key {}.",
                partner.name,
                partner.key.short()
            );
            (Some(partner), Check::ok(NAME, text))
        }
        Ok(None) => {
            let text = "This node was never paired, so nothing is synced.";
            let check = match settings.map(|settings| settings.link.side()) {
                Some(NodeSide::Receiver) => Check::wrong(
                    NAME,
                    text,
                    format!(
                        "`layer-sync pair` on the pusher, then `{} join CODE --root DIR`",
                        case.command
                    ),
                ),
                _ => Check::warning(NAME, text, format!("{} pair", case.command)),
            };
            (None, check)
        }
        Err(failure) => (None, Check::wrong(NAME, failure.text + ".", failure.fix)),
    }
}

/// The other node can be reached. A running daemon knows; else it is tried.
pub(super) fn link(
    case: &Case<'_>,
    settings: &Settings,
    partner: Option<&Partner>,
) -> Option<Check> {
    match case.asked {
        Asked::Running { status, .. } => of_status(status),
        // What a daemon holds cannot be tried beside it.
        Asked::Deaf(_) => None,
        Asked::NotRunning => match (&settings.link, partner) {
            (Link::Listen { listen, .. }, _) => Some(bind(*listen)),
            (Link::Dial { peer }, Some(partner)) => Some(dial(case, peer.as_str(), partner)),
            (Link::Dial { .. }, None) => None,
        },
    }
}

fn of_status(status: &Status) -> Option<Check> {
    const NAME: &str = "link";
    let (peer, side) = (&status.peer, status.node.side);
    let why = status
        .problems
        .iter()
        .find(|problem| problem.code == "degraded.unlinked");
    match peer.state {
        PeerState::Unpaired => None,
        PeerState::Linked => {
            let rtt = peer
                .rtt_ms
                .map_or_else(String::new, |rtt| format!(", {rtt} ms away"));
            Some(Check::ok(NAME, format!("{} is connected{rtt}.", peer.id)))
        }
        PeerState::Greeting => Some(Check::ok(
            NAME,
            format!(
                "{} is connected, and the two tell each other what they have.",
                peer.id
            ),
        )),
        PeerState::Unlinked => {
            let (text, fix) = match why {
                Some(problem) => (sentence(&problem.text), problem.fix.clone()),
                None => (format!("{} is not connected.", peer.id), String::new()),
            };
            // The pusher never sleeps; a receiver may.
            Some(match side {
                NodeSide::Pusher => Check::warning(NAME, text, fix),
                NodeSide::Receiver => Check::wrong(NAME, text, fix),
            })
        }
    }
}

fn bind(listen: SocketAddr) -> Check {
    const NAME: &str = "link";
    match UdpSocket::bind(listen) {
        Ok(_) => Check::ok(
            NAME,
            format!("UDP {listen} is free for the pusher to listen on."),
        ),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Check::wrong(
            NAME,
            format!("Another program uses UDP {listen}."),
            "end that program, or choose another `listen` in [link]",
        ),
        Err(error) => Check::wrong(
            NAME,
            format!("The pusher cannot listen on {listen}: {error}."),
            "choose another `listen` in [link]",
        ),
    }
}

/// Calls the pusher as the daemon would, and hangs up before a word is said.
fn dial(case: &Case<'_>, address: &str, partner: &Partner) -> Check {
    const NAME: &str = "link";
    let dir = case.home.identity_dir();
    if !dir.join(link::identity::KEY_FILE).exists() {
        return Check::wrong(
            NAME,
            "Without a key nobody can be called.",
            "see `identity`",
        );
    }
    let called = Identity::load_or_create(&dir)
        .map_err(|error| error.to_string())
        .and_then(|identity| Ok((identity, runtime().map_err(|failure| failure.text)?)))
        .map(|(identity, runtime)| {
            runtime.block_on(async {
                let dialer = Dialer::new(&identity, Pins::new([partner.key]));
                let called = dialer
                    .dial(address, partner.key)
                    .await
                    .map(|link| link.rtt());
                dialer.close().await;
                called
            })
        });
    match called {
        Ok(Ok(rtt)) => Check::ok(
            NAME,
            format!(
                "{} answers at {address}, {} ms away.",
                partner.name,
                rtt.as_millis()
            ),
        ),
        Ok(Err(error)) => {
            let fix = match &error {
                LinkError::WrongKey { .. } | LinkError::RefusedByPeer { .. } => {
                    "pair anew: `layer-sync pair` on the pusher, then `layer-sync join CODE --root DIR` here"
                }
                _ => LET_THROUGH,
            };
            Check::wrong(NAME, sentence(&error), fix)
        }
        Err(text) => Check::wrong(NAME, sentence(&text), "see `identity`"),
    }
}
