//! How two machines that do not know each other become a pair.
//!
//! The joiner calls the address in the code and takes only the key in the code for an answer. Then,
//! on the control stream:
//!
//! 1. joiner → listener: its name and its proof of the secret
//! 2. listener → joiner: its name, the pair's id and its own proof; or a refusal
//! 3. joiner → listener: confirmed
//! 4. listener, once it has kept the pairing → joiner: kept
//!
//! A proof is a keyed hash over the role, this very TLS channel, both keys and the names. It cannot
//! be replayed on another connection, nor sent back as the other side's. The order makes the joiner
//! a partner only after the listener is one: the joiner may have to try again, but it is never left
//! calling a machine that does not know it.

use std::time::{Duration, Instant};
use std::{fmt, io};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::code::{PairingCode, SECRET_BYTES};
use crate::connection::Connection;
use crate::desk::{PairingDesk, Verdict};
use crate::dialer::Dialer;
use crate::error::LinkError;
use crate::fingerprint::Fingerprint;
use crate::stream::{Receiver, Sender};
use crate::tls::ALPN_PAIRING;

/// Time for the whole conversation, after the handshake.
pub const PAIRING_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest pairing message in bytes. A longer one ends the conversation.
pub const PAIRING_MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Longest name of a node, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// How long the listener waits for the joiner to hang up, so that its last word arrives.
const LAST_WORD_WAIT: Duration = Duration::from_secs(1);

/// What both sides know after pairing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paired {
    /// Names the pair; the listener chose it.
    pub pair_id: [u8; 16],
    /// The key of the other machine, to be pinned.
    pub peer: Fingerprint,
    /// What the other machine calls itself.
    pub peer_name: String,
}

/// Hands in `code` at the machine that printed it. Nothing is pinned here: the caller does that
/// with what is returned.
///
/// # Errors
/// [`PairingError`]; after any of them this machine is not paired, and another try is harmless.
pub async fn join(
    dialer: &Dialer,
    code: &PairingCode,
    my_name: &str,
) -> Result<Paired, PairingError> {
    check_name(my_name)?;
    let call = dialer
        .call(code.address(), code.fingerprint(), ALPN_PAIRING)
        .await;
    let connection = call.map_err(|error| match error {
        LinkError::RefusedByPeer { address } => PairingError::NoCodeOpen { address },
        other => PairingError::Link(other),
    })?;
    let outcome = timeout(
        PAIRING_TIMEOUT,
        ask(&connection, dialer.fingerprint(), code, my_name),
    );
    let outcome = outcome.await.unwrap_or(Err(PairingError::TooSlow));
    connection.close("pairing is over");
    outcome
}

async fn ask(
    connection: &Connection,
    joiner: Fingerprint,
    code: &PairingCode,
    my_name: &str,
) -> Result<Paired, PairingError> {
    let talk = Talk {
        channel: channel(connection)?,
        joiner,
        listener: connection.peer(),
    };
    let (mut sender, receiver) = connection.open_control().await?;
    let mut receiver = receiver.with_limit(PAIRING_MESSAGE_BYTES_MAX);
    let proof = talk.joiner_proof(code.secret(), my_name);
    send(
        &mut sender,
        &Request {
            name: my_name.to_owned(),
            proof: proof.into(),
        },
    )
    .await?;

    let (peer_name, pair_id, proof) = match recv(&mut receiver).await? {
        Answer::Accepted {
            name,
            pair_id,
            proof,
        } => (name, pair_id, proof),
        Answer::Refused(refusal) => return Err(PairingError::Refused(refusal)),
    };
    check_name(&peer_name)?;
    let expected = talk.listener_proof(code.secret(), my_name, &peer_name, pair_id);
    if expected != blake3::Hash::from_bytes(proof) {
        return Err(PairingError::WrongProof);
    }

    send(&mut sender, &Confirmed).await?;
    match recv(&mut receiver).await? {
        Settled::Kept => Ok(Paired {
            pair_id,
            peer: connection.peer(),
            peer_name,
        }),
        Settled::NotKept => Err(PairingError::NotKeptThere),
    }
}

/// Somebody who says to have a pairing code. Dropping it sends them away.
#[derive(Debug)]
pub struct PairingAttempt {
    connection: Connection,
    _seat: OwnedSemaphorePermit,
}

impl PairingAttempt {
    pub(crate) fn new(connection: Connection, seat: OwnedSemaphorePermit) -> Self {
        Self {
            connection,
            _seat: seat,
        }
    }

    /// Returns the key of the other machine. It is proved; that it may pair is not.
    pub fn peer(&self) -> Fingerprint {
        self.connection.peer()
    }

    /// Lets `desk` judge the other machine's proof, and pairs with it when it is right.
    ///
    /// `keep` pins the new partner and stores the pairing, before the other side is told. It is
    /// called at most once, and only when the other side has proved the secret and confirmed ours.
    /// It may block as long as a small file takes to write.
    ///
    /// # Errors
    /// [`PairingError::Refused`] when the desk says no; [`PairingError::NotKept`] when `keep`
    /// fails. After any error this machine is not paired with the other.
    pub async fn answer(
        self,
        desk: &PairingDesk,
        my_name: &str,
        pair_id: [u8; 16],
        keep: impl FnOnce(&Paired) -> io::Result<()>,
    ) -> Result<Paired, PairingError> {
        check_name(my_name)?;
        let judged = timeout(PAIRING_TIMEOUT, self.judge(desk, my_name, pair_id)).await;
        let outcome = match judged.unwrap_or(Err(PairingError::TooSlow)) {
            Ok((paired, mut sender)) => {
                let kept = keep(&paired);
                let settled = if kept.is_ok() {
                    Settled::Kept
                } else {
                    Settled::NotKept
                };
                // From here on it is settled on this side. A joiner that misses the word joins again.
                let _ = timeout(LAST_WORD_WAIT, send(&mut sender, &settled)).await;
                let _ = sender.finish();
                kept.map(|()| paired).map_err(PairingError::NotKept)
            }
            Err(error) => Err(error),
        };
        // The joiner hangs up when it has our last word; hanging up first could lose it.
        let _ = timeout(LAST_WORD_WAIT, self.connection.closed()).await;
        self.connection.close("pairing is over");
        outcome
    }

    async fn judge(
        &self,
        desk: &PairingDesk,
        my_name: &str,
        pair_id: [u8; 16],
    ) -> Result<(Paired, Sender), PairingError> {
        let peer = self.connection.peer();
        let channel = channel(&self.connection)?;
        let talk = Talk {
            channel,
            joiner: peer,
            listener: desk.fingerprint(),
        };
        let (mut sender, receiver) = self.connection.accept_control().await?;
        let mut receiver = receiver.with_limit(PAIRING_MESSAGE_BYTES_MAX);
        let request: Request = recv(&mut receiver).await?;
        check_name(&request.name)?;

        let mut answer = None;
        let verdict = desk.check(Instant::now(), |secret| {
            answer = Some(talk.listener_proof(secret, &request.name, my_name, pair_id));
            // Equality of blake3 hashes takes the same time wherever they differ.
            talk.joiner_proof(secret, &request.name) == blake3::Hash::from_bytes(request.proof)
        });
        let (Ok(()), Some(proof)) = (refusal(verdict), answer) else {
            let refusal = refusal(verdict).err().unwrap_or(Refusal::Closed);
            send(&mut sender, &Answer::Refused(refusal)).await?;
            sender.finish()?;
            return Err(PairingError::Refused(refusal));
        };
        let name = my_name.to_owned();
        send(
            &mut sender,
            &Answer::Accepted {
                name,
                pair_id,
                proof: proof.into(),
            },
        )
        .await?;
        let Confirmed = recv(&mut receiver).await?;
        Ok((
            Paired {
                pair_id,
                peer,
                peer_name: request.name,
            },
            sender,
        ))
    }
}

/// First message of the joiner.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    name: String,
    proof: [u8; 32],
}

/// The listener's answer to it.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Accepted {
        name: String,
        pair_id: [u8; 16],
        proof: [u8; 32],
    },
    Refused(Refusal),
}

/// Second message of the joiner: the listener's proof is right.
#[derive(Debug, Serialize, Deserialize)]
struct Confirmed;

/// Last message of the listener.
#[derive(Debug, Serialize, Deserialize)]
enum Settled {
    Kept,
    NotKept,
}

/// Why a code was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The secret is wrong.
    WrongCode {
        /// Wrong codes that may still be given.
        tries_left: u8,
    },
    /// The code is too old.
    Expired,
    /// The code has made a pair before.
    Used,
    /// The code was tried too often.
    TooManyTries,
    /// No code is open.
    Closed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self {
            Self::WrongCode { tries_left: 1 } => "the code is wrong; one try is left",
            Self::WrongCode { tries_left } => {
                return write!(f, "the code is wrong; {tries_left} tries are left");
            }
            Self::Expired => "the code has expired; make a new one with `layer-sync pair`",
            Self::Used => "the code is already used; make a new one with `layer-sync pair`",
            Self::TooManyTries => {
                "the code is wrong and was tried too often; make a new one with `layer-sync pair`"
            }
            Self::Closed => "no pairing code is open; make one with `layer-sync pair`",
        };
        f.write_str(reason)
    }
}

fn refusal(verdict: Verdict) -> Result<(), Refusal> {
    match verdict {
        Verdict::Accepted => Ok(()),
        Verdict::Wrong { tries_left: 0 } | Verdict::Exhausted => Err(Refusal::TooManyTries),
        Verdict::Wrong { tries_left } => Err(Refusal::WrongCode { tries_left }),
        Verdict::Expired => Err(Refusal::Expired),
        Verdict::Used => Err(Refusal::Used),
        Verdict::Closed => Err(Refusal::Closed),
    }
}

/// What both proofs of one conversation are about.
struct Talk {
    channel: [u8; 32],
    joiner: Fingerprint,
    listener: Fingerprint,
}

const PROOF_KEY: &str = "layer-sync pairing 2026 proof key";
const JOINER_PROOF: &[u8] = b"layer-sync pairing proof of the joiner";
const LISTENER_PROOF: &[u8] = b"layer-sync pairing proof of the listener";
const CHANNEL_LABEL: &[u8] = b"EXPORTER-layer-sync-pairing";

impl Talk {
    fn joiner_proof(&self, secret: &[u8; SECRET_BYTES], name: &str) -> blake3::Hash {
        self.proof(secret, &[JOINER_PROOF, name.as_bytes()])
    }

    fn listener_proof(
        &self,
        secret: &[u8; SECRET_BYTES],
        joiner_name: &str,
        name: &str,
        pair_id: [u8; 16],
    ) -> blake3::Hash {
        let said = [
            LISTENER_PROOF,
            joiner_name.as_bytes(),
            name.as_bytes(),
            &pair_id,
        ];
        self.proof(secret, &said)
    }

    fn proof(&self, secret: &[u8; SECRET_BYTES], said: &[&[u8]]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&blake3::derive_key(PROOF_KEY, secret));
        let known: [&[u8]; 3] = [
            &self.channel,
            self.joiner.as_bytes(),
            self.listener.as_bytes(),
        ];
        // With its length in front, no part can pass for the beginning of the next.
        for part in known.iter().chain(said) {
            hasher
                .update(&(part.len() as u64).to_le_bytes())
                .update(part);
        }
        hasher.finalize()
    }
}

fn channel(connection: &Connection) -> Result<[u8; 32], LinkError> {
    connection.export_keying_material(CHANNEL_LABEL, b"")
}

async fn send(sender: &mut Sender, message: &impl Serialize) -> Result<(), PairingError> {
    let bytes = postcard::to_stdvec(message).map_err(|_| PairingError::Malformed)?;
    Ok(sender.send(&bytes).await?)
}

async fn recv<T: DeserializeOwned>(receiver: &mut Receiver) -> Result<T, PairingError> {
    let message = receiver.recv().await?.ok_or(PairingError::Malformed)?;
    match postcard::take_from_bytes(&message) {
        Ok((message, [])) => Ok(message),
        _ => Err(PairingError::Malformed),
    }
}

fn check_name(name: &str) -> Result<(), PairingError> {
    let printable = !name.chars().any(char::is_control);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !printable {
        return Err(PairingError::Name {
            name: name.escape_debug().take(NAME_BYTES_MAX).collect(),
        });
    }
    Ok(())
}

/// Why two machines did not become a pair.
#[derive(Debug, thiserror::Error)]
pub enum PairingError {
    /// The connection was not made, or ended too early.
    #[error(transparent)]
    Link(#[from] LinkError),

    /// The other machine takes no codes now.
    #[error(
        "the machine at {address} has no pairing code open: it expired, was used, was tried too \
         often or was withdrawn; make a new one there with `layer-sync pair`"
    )]
    NoCodeOpen {
        /// Where the call went.
        address: String,
    },

    /// The desk said no. The same on both sides.
    #[error("{0}")]
    Refused(Refusal),

    /// The other machine has the right key but does not know the secret.
    #[error("the other machine does not know the pairing code; nothing was paired")]
    WrongProof,

    /// A name that cannot be shown or stored.
    #[error("\"{name}\" is no name for a node: 1 to {NAME_BYTES_MAX} bytes, all printable")]
    Name {
        /// The name, escaped.
        name: String,
    },

    /// The other side said something else than was due.
    #[error("the other machine does not follow the pairing protocol")]
    Malformed,

    /// The conversation took longer than [`PAIRING_TIMEOUT`].
    #[error("the other machine took too long; try again")]
    TooSlow,

    /// The listener could not store the pairing.
    #[error("the pairing could not be stored: {0}")]
    NotKept(io::Error),

    /// The joiner was told that the listener could not store the pairing.
    #[error("the other machine could not store the pairing; look at its log and pair again")]
    NotKeptThere,
}

#[cfg(test)]
mod tests;
