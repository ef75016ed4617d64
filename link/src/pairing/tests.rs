use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{
    Answer, Confirmed, PairingAttempt, PairingError, Refusal, Request, Settled, Talk, ask, channel,
    recv, send,
};
use crate::code::PairingCode;
use crate::connection::Connection;
use crate::desk::PairingDesk;
use crate::error::LinkError;
use crate::fingerprint::Fingerprint;
use crate::memory::{MemoryLink, pair};

const SECRET: [u8; 16] = [4; 16];
const PAIR_ID: [u8; 16] = [6; 16];

/// The messages as they travel: a change of these bytes is a new version of the protocol.
#[test]
fn the_messages_are_stable() {
    let hex = |bytes: Vec<u8>| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let of = |message: &Answer| hex(postcard::to_stdvec(message).expect("bytes"));
    let request = Request {
        name: "mac".to_owned(),
        proof: [0xab; 32],
    };
    let request = hex(postcard::to_stdvec(&request).expect("bytes"));
    assert_eq!(request, format!("036d6163{}", "ab".repeat(32)));

    let name = "vm".to_owned();
    let accepted = Answer::Accepted {
        name,
        pair_id: [0xcd; 16],
        proof: [0xef; 32],
    };
    assert_eq!(
        of(&accepted),
        format!("0002766d{}{}", "cd".repeat(16), "ef".repeat(32))
    );
    assert_eq!(
        of(&Answer::Refused(Refusal::WrongCode { tries_left: 3 })),
        "010003"
    );
    assert_eq!(of(&Answer::Refused(Refusal::Expired)), "0101");
    assert_eq!(of(&Answer::Refused(Refusal::Used)), "0102");
    assert_eq!(of(&Answer::Refused(Refusal::TooManyTries)), "0103");
    assert_eq!(of(&Answer::Refused(Refusal::Closed)), "0104");

    assert_eq!(hex(postcard::to_stdvec(&Confirmed).expect("bytes")), "");
    assert_eq!(
        hex(postcard::to_stdvec(&Settled::Kept).expect("bytes")),
        "00"
    );
    assert_eq!(
        hex(postcard::to_stdvec(&Settled::NotKept).expect("bytes")),
        "01"
    );
}

/// A proof is good for one role, one channel, one pair of keys, one secret and one set of names.
#[test]
fn a_proof_is_bound_to_everything() {
    let talk = |channel, joiner, listener| Talk {
        channel: [channel; 32],
        joiner: Fingerprint([joiner; 32]),
        listener: Fingerprint([listener; 32]),
    };
    let same = || talk(1, 2, 3);
    let secret = [4; 16];
    let proofs = [
        same().joiner_proof(&secret, "mac"),
        same().joiner_proof(&secret, "ma"),
        same().joiner_proof(&[5; 16], "mac"),
        talk(9, 2, 3).joiner_proof(&secret, "mac"),
        talk(1, 9, 3).joiner_proof(&secret, "mac"),
        talk(1, 2, 9).joiner_proof(&secret, "mac"),
        talk(1, 3, 2).joiner_proof(&secret, "mac"),
        same().listener_proof(&secret, "mac", "vm", [6; 16]),
        same().listener_proof(&secret, "macv", "m", [6; 16]),
        same().listener_proof(&secret, "vm", "mac", [6; 16]),
        same().listener_proof(&secret, "mac", "vm", [7; 16]),
        talk(9, 2, 3).listener_proof(&secret, "mac", "vm", [6; 16]),
    ];
    for (at, proof) in proofs.iter().enumerate() {
        assert!(
            !proofs[..at].contains(proof),
            "proof {at} is also good elsewhere"
        );
    }
    assert_eq!(proofs[0], same().joiner_proof(&secret, "mac"));
}

/// Far above what anything here needs. Time is paused, so a hang costs nothing.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), work)
        .await
        .expect("done in time")
}

fn linked() -> (Connection, Connection) {
    let (joiner, listener, _) = pair(MemoryLink::default());
    (joiner, listener)
}

/// A listener that has the key in the code, but does not know the secret, can only guess a proof or
/// send the joiner's own back.
#[tokio::test(start_paused = true)]
async fn a_listener_must_prove_the_secret_too() {
    for echo in [false, true] {
        let (joiner, listener) = linked();
        let code = PairingCode::new("vm:1", joiner.peer(), SECRET).expect("a code");
        let impostor = async {
            let (mut sender, mut receiver) = listener.accept_control().await.expect("control");
            let request: Request = recv(&mut receiver).await.expect("a request");
            let proof = if echo { request.proof } else { [0; 32] };
            let answer = Answer::Accepted {
                name: "vm".to_owned(),
                pair_id: PAIR_ID,
                proof,
            };
            send(&mut sender, &answer).await.expect("sent");
            (sender, receiver)
        };
        let (asked, _held) =
            in_time(async { tokio::join!(ask(&joiner, listener.peer(), &code, "mac"), impostor) })
                .await;
        assert!(matches!(asked, Err(PairingError::WrongProof)), "{asked:?}");
    }
}

fn attempt(listener: &Connection) -> PairingAttempt {
    let seat = Arc::new(Semaphore::new(1))
        .try_acquire_owned()
        .expect("a seat");
    PairingAttempt::new(listener.clone(), seat)
}

fn open_desk(joiner: &Connection) -> PairingDesk {
    let desk = PairingDesk::new(joiner.peer());
    desk.open("vm:1", Instant::now(), SECRET).expect("a code");
    desk
}

#[tokio::test(start_paused = true)]
async fn a_silent_joiner_is_sent_away() {
    let (joiner, listener) = linked();
    let desk = open_desk(&joiner);
    let answered = attempt(&listener)
        .answer(&desk, "vm", PAIR_ID, |_| panic!("kept"))
        .await;
    assert!(
        matches!(answered, Err(PairingError::TooSlow)),
        "{answered:?}"
    );
    assert!(desk.is_open(Instant::now()), "silence costs no try");
}

#[tokio::test(start_paused = true)]
async fn a_joiner_that_vanishes_before_it_confirms_is_not_kept() {
    let (joiner, listener) = linked();
    let desk = open_desk(&joiner);
    let talk = Talk {
        channel: channel(&joiner).expect("a channel"),
        joiner: listener.peer(),
        listener: joiner.peer(),
    };
    let vanish = async {
        let (mut sender, mut receiver) = joiner.open_control().await.expect("control");
        let proof = talk.joiner_proof(&SECRET, "mac").into();
        send(
            &mut sender,
            &Request {
                name: "mac".to_owned(),
                proof,
            },
        )
        .await
        .expect("sent");
        let answer: Answer = recv(&mut receiver).await.expect("an answer");
        assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
        joiner.close("gone");
    };
    let answer = attempt(&listener).answer(&desk, "vm", PAIR_ID, |_| panic!("kept"));
    let (answered, ()) = in_time(async { tokio::join!(answer, vanish) }).await;
    let Err(PairingError::Link(LinkError::Closed { .. })) = answered else {
        panic!("{answered:?}");
    };
    assert!(!desk.is_open(Instant::now()), "the code is used up");
}
