//! Pairing from the code to the pins, and every way in which it must not work.

use std::io;
use std::time::{Duration, Instant};

use super::{Machines, in_time};
use crate::code::SECRET_BYTES;
use crate::desk::{CODE_LIFE, CODE_TRIES};
use crate::{
    Incoming, LinkError, Paired, PairingAttempt, PairingCode, PairingError, Refusal, join,
};

const PAIR_ID: [u8; 16] = [42; 16];
const SECRET: [u8; SECRET_BYTES] = [5; SECRET_BYTES];

fn code(machines: &Machines, secret: [u8; SECRET_BYTES]) -> PairingCode {
    let key = machines.listener_identity.fingerprint();
    PairingCode::new(&machines.address, key, secret).expect("a code")
}

fn open(machines: &Machines) -> PairingCode {
    let desk = machines.listener.desk();
    desk.open(&machines.address, Instant::now(), SECRET)
        .expect("a code")
}

/// Joins with `code` while the listener answers with its desk.
async fn try_to_join(
    machines: &Machines,
    code: &PairingCode,
    keep: impl FnOnce(&Paired) -> io::Result<()>,
) -> (Result<Paired, PairingError>, Result<Paired, PairingError>) {
    let desk = machines.listener.desk();
    let answer = async {
        let Some(Incoming::Pairing(attempt)) = machines.listener.accept().await else {
            panic!("nobody wants to pair");
        };
        assert_eq!(attempt.peer(), machines.dialer_identity.fingerprint());
        attempt.answer(&desk, "vm", PAIR_ID, keep).await
    };
    in_time(async { tokio::join!(join(&machines.dialer, code, "mac"), answer) }).await
}

async fn assert_refused(machines: &Machines, code: &PairingCode, expected: Refusal) {
    let (joined, answered) = try_to_join(machines, code, |_| panic!("kept a stranger")).await;
    for outcome in [joined, answered] {
        match outcome {
            Err(PairingError::Refused(refusal)) => assert_eq!(refusal, expected),
            other => panic!("{other:?}, expected {expected:?}"),
        }
    }
}

/// The listener ends the handshake; nobody comes in.
async fn assert_no_code_open(machines: &Machines, code: &PairingCode) {
    let joined = machines
        .while_listening(join(&machines.dialer, code, "mac"))
        .await;
    let error = joined.expect_err("no code is open");
    assert!(matches!(error, PairingError::NoCodeOpen { .. }), "{error}");
}

#[tokio::test]
async fn the_right_code_pairs_and_then_they_connect() {
    let machines = Machines::strangers();
    let code = open(&machines).to_string().parse().expect("the code");
    let keep = |paired: &Paired| {
        machines.listener_pins.insert(paired.peer);
        Ok(())
    };
    let (joined, answered) = try_to_join(&machines, &code, keep).await;
    let (joined, answered) = (joined.expect("joined"), answered.expect("answered"));
    let expected = Paired {
        pair_id: PAIR_ID,
        peer: machines.listener_identity.fingerprint(),
        peer_name: "vm".to_owned(),
    };
    assert_eq!(joined, expected);
    let peer = machines.dialer_identity.fingerprint();
    assert_eq!(
        answered,
        Paired {
            pair_id: PAIR_ID,
            peer,
            peer_name: "mac".to_owned()
        }
    );

    machines.dialer_pins.insert(joined.peer);
    machines.connect().await;
}

#[tokio::test]
async fn a_machine_that_is_paired_can_pair_again() {
    let machines = Machines::paired();
    let code = open(&machines);
    let (joined, answered) = try_to_join(&machines, &code, |_| Ok(())).await;
    joined.expect("joined");
    answered.expect("answered");
    // It passes TLS by its pin, and so it is told precisely.
    assert_refused(&machines, &code, Refusal::Used).await;
}

#[tokio::test]
async fn a_wrong_secret_has_five_tries() {
    let machines = Machines::strangers();
    let right = open(&machines);
    let wrong = code(&machines, [6; SECRET_BYTES]);
    for tries_left in (1..CODE_TRIES).rev() {
        assert_refused(&machines, &wrong, Refusal::WrongCode { tries_left }).await;
    }
    assert_refused(&machines, &wrong, Refusal::TooManyTries).await;
    assert_no_code_open(&machines, &wrong).await;
    assert_no_code_open(&machines, &right).await;
}

#[tokio::test]
async fn a_wrong_try_does_not_spoil_the_code() {
    let machines = Machines::strangers();
    let right = open(&machines);
    let wrong = code(&machines, [6; SECRET_BYTES]);
    assert_refused(&machines, &wrong, Refusal::WrongCode { tries_left: 4 }).await;
    let (joined, _) = try_to_join(&machines, &right, |_| Ok(())).await;
    joined.expect("joined");
}

#[tokio::test]
async fn a_code_is_for_one_use() {
    let machines = Machines::strangers();
    let code = open(&machines);
    let (joined, _) = try_to_join(&machines, &code, |_| Ok(())).await;
    joined.expect("joined");
    assert_no_code_open(&machines, &code).await;
}

#[tokio::test]
async fn an_old_code_is_refused() {
    for known in [false, true] {
        let machines = if known {
            Machines::paired()
        } else {
            Machines::strangers()
        };
        let long_ago = Instant::now()
            .checked_sub(CODE_LIFE)
            .expect("a clock that goes back");
        let desk = machines.listener.desk();
        let code = desk
            .open(&machines.address, long_ago, SECRET)
            .expect("a code");
        if known {
            assert_refused(&machines, &code, Refusal::Expired).await;
        } else {
            assert_no_code_open(&machines, &code).await;
        }
    }
}

#[tokio::test]
async fn a_withdrawn_code_is_refused() {
    let machines = Machines::strangers();
    let code = open(&machines);
    machines.listener.desk().close();
    assert_no_code_open(&machines, &code).await;
}

#[tokio::test]
async fn another_machine_at_the_address_is_refused() {
    let (machines, other) = (Machines::strangers(), Machines::strangers());
    open(&other);
    let key = machines.listener_identity.fingerprint();
    let code = PairingCode::new(&other.address, key, SECRET).expect("a code");
    let error = other
        .while_listening(join(&machines.dialer, &code, "mac"))
        .await
        .expect_err("key");
    assert!(
        matches!(error, PairingError::Link(LinkError::WrongKey { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_paired() {
    let machines = Machines::strangers();
    let code = open(&machines);
    let full = |_: &Paired| Err(io::ErrorKind::StorageFull.into());
    let (joined, answered) = try_to_join(&machines, &code, full).await;
    assert!(
        matches!(joined, Err(PairingError::NotKeptThere)),
        "{joined:?}"
    );
    assert!(
        matches!(answered, Err(PairingError::NotKept(_))),
        "{answered:?}"
    );
}

#[tokio::test]
async fn a_joiner_that_hangs_up_before_it_confirms_is_not_kept() {
    let machines = Machines::strangers();
    let code = open(&machines);
    let desk = machines.listener.desk();
    let alpn = crate::tls::ALPN_PAIRING;
    let key = machines.listener_identity.fingerprint();
    let hang_up = async {
        let connection = machines
            .dialer
            .call(code.address(), key, alpn)
            .await
            .expect("let in");
        let (mut sender, _receiver) = connection.open_control().await.expect("control");
        sender.send(b"no request").await.expect("sent");
        connection.closed().await
    };
    let answer = async {
        let Some(Incoming::Pairing(attempt)) = machines.listener.accept().await else {
            panic!("nobody wants to pair");
        };
        attempt
            .answer(&desk, "vm", PAIR_ID, |_| panic!("kept a stranger"))
            .await
    };
    let (_, answered) = in_time(async { tokio::join!(hang_up, answer) }).await;
    assert!(
        matches!(answered, Err(PairingError::Malformed)),
        "{answered:?}"
    );
    assert!(
        desk.is_open(Instant::now()),
        "what is no proof costs no try"
    );
}

#[tokio::test]
async fn a_stranger_with_a_huge_message_is_cut_off() {
    let machines = Machines::strangers();
    let code = open(&machines);
    let desk = machines.listener.desk();
    let key = machines.listener_identity.fingerprint();
    let flood = async {
        let alpn = crate::tls::ALPN_PAIRING;
        let connection = machines
            .dialer
            .call(code.address(), key, alpn)
            .await
            .expect("let in");
        let (mut sender, _receiver) = connection.open_control().await.expect("control");
        sender
            .send(&vec![0; 1 << 20])
            .await
            .expect_err("nobody takes it");
    };
    let answer = async {
        let Some(Incoming::Pairing(attempt)) = machines.listener.accept().await else {
            panic!("nobody wants to pair");
        };
        attempt
            .answer(&desk, "vm", PAIR_ID, |_| panic!("kept a stranger"))
            .await
    };
    let ((), answered) = in_time(async { tokio::join!(flood, answer) }).await;
    let Err(PairingError::Link(LinkError::MessageTooLong { .. })) = answered else {
        panic!("{answered:?}");
    };
}

#[tokio::test]
async fn too_many_at_once_are_sent_away() {
    let machines = Machines::strangers();
    let code = open(&machines);
    let key = machines.listener_identity.fingerprint();
    let alpn = crate::tls::ALPN_PAIRING;
    let mut attempts = Vec::new();
    for _ in 0..crate::listener::PAIRING_ATTEMPTS_MAX {
        let (called, incoming) = in_time(async {
            let call = machines.dialer.call(code.address(), key, alpn);
            tokio::join!(call, machines.listener.accept())
        })
        .await;
        attempts.push((called.expect("let in"), incoming));
    }
    let call = machines.dialer.call(code.address(), key, alpn);
    let error = machines.while_listening(call).await.expect_err("full");
    assert!(error.to_string().contains("too many"), "{error}");
    attempts.pop();
    let again = async {
        while machines
            .dialer
            .call(code.address(), key, alpn)
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    machines.while_listening(again).await;
}

#[tokio::test]
async fn a_name_that_cannot_be_shown_is_refused() {
    let machines = Machines::strangers();
    let code = open(&machines);
    for name in ["", "two\nlines", "\u{1b}[2J", &"n".repeat(65)] {
        let error = in_time(join(&machines.dialer, &code, name))
            .await
            .expect_err("a bad name");
        assert!(matches!(error, PairingError::Name { .. }), "{error}");
    }
}

#[tokio::test]
async fn what_the_programs_spawn_can_be_spawned() {
    fn assert_spawnable<T: Send>(_: T) {}
    let machines = Machines::strangers();
    let code = open(&machines);
    assert_spawnable(join(&machines.dialer, &code, "mac"));
    assert_spawnable(machines.dialer.dial(&machines.address, code.fingerprint()));
    assert_spawnable(machines.listener.accept());
    let _answer = async |attempt: PairingAttempt| {
        let desk = machines.listener.desk();
        assert_spawnable(attempt.answer(&desk, "vm", PAIR_ID, |_| Ok(())));
    };
}
