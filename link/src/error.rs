//! What can go wrong on the link, said for people.

use std::net::SocketAddr;
use std::{fmt, io};

use crate::fingerprint::Fingerprint;

/// Why a link was not made, or ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody answered at the address in time, or it does not resolve. Worth another try.
    #[error("no answer from {address}: {why}")]
    Unreachable {
        /// Where the call went.
        address: String,
        /// What was seen instead of an answer.
        why: String,
    },

    /// Another machine answers at the address. Another try does not help.
    #[error("the machine at {address} has key {found}, expected {expected}")]
    WrongKey {
        /// Where the call went.
        address: String,
        /// The key that answered.
        found: Fingerprint,
        /// The key of the partner.
        expected: Fingerprint,
    },

    /// The other machine does not know our key. Another try helps only after pairing.
    #[error(
        "the pusher at {address} does not know this machine's key; pair again with `layer-sync pair`"
    )]
    RefusedByPeer {
        /// Where the call went.
        address: String,
    },

    /// We were asked to call a key that we hold no pin for.
    #[error("this machine is not paired with key {expected}; pair with `layer-sync pair`")]
    NotPaired {
        /// The key that should have been called.
        expected: Fingerprint,
    },

    /// Both sides speak, but not the same version. Another try helps after an update.
    #[error(
        "the machine at {address} speaks another version of the link; update both to the same \
         version of layer-sync"
    )]
    VersionMismatch {
        /// Where the call went.
        address: String,
    },

    /// Another program listens there already.
    #[error("{address} is in use by another program; stop it or listen elsewhere")]
    AddressInUse {
        /// Where we wanted to listen.
        address: SocketAddr,
    },

    /// The socket could not be made.
    #[error("cannot open a socket on {address}: {source}")]
    Socket {
        /// The local address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },

    /// The identity cannot be used for TLS, or the system gives no random bytes.
    #[error("this machine's identity cannot be used: {why}")]
    Identity {
        /// What was wrong with it.
        why: String,
    },

    /// The connection has ended.
    #[error("the connection ended: {reason}")]
    Closed {
        /// Why, in words.
        reason: String,
    },

    /// The sender gave the stream up before it finished it.
    #[error("the other side gave up the stream before its end")]
    StreamAbandoned,

    /// The receiver does not want the rest of the stream.
    #[error("the other side does not take the rest of the stream")]
    StreamRefused,

    /// The stream ended in the middle of a message.
    #[error("the stream ended in the middle of a message")]
    Truncated,

    /// A message over the limit. Nothing was allocated for it.
    #[error("a message of {announced} bytes is over the limit of {limit}")]
    MessageTooLong {
        /// Length in bytes that the message has or claims.
        announced: u64,
        /// Longest message in bytes that is taken.
        limit: usize,
    },

    /// A packed message that is none.
    #[error("a packed message could not be unpacked")]
    NotUnpacked,

    /// An earlier send was cancelled half-way, so nothing more can follow on this stream.
    #[error("an earlier message on this stream was only sent in part")]
    Torn,
}

impl LinkError {
    /// Returns whether another try is useless until a person has done something.
    pub fn needs_a_person(&self) -> bool {
        matches!(
            self,
            Self::WrongKey { .. }
                | Self::RefusedByPeer { .. }
                | Self::NotPaired { .. }
                | Self::VersionMismatch { .. }
                | Self::AddressInUse { .. }
                | Self::Identity { .. }
        )
    }

    pub(crate) fn closed(reason: impl fmt::Display) -> Self {
        Self::Closed {
            reason: reason.to_string(),
        }
    }
}

/// Says in words why a connection ended.
pub(crate) fn reason_in_words(ended: &quinn::ConnectionError) -> String {
    use quinn::ConnectionError as Ended;
    match ended {
        Ended::ApplicationClosed(close) if !close.reason.is_empty() => {
            String::from_utf8_lossy(&close.reason).into_owned()
        }
        Ended::ApplicationClosed(_) => "closed by the other machine".to_owned(),
        Ended::LocallyClosed => CLOSED_HERE.to_owned(),
        Ended::TimedOut => "the other machine has not been heard of for too long".to_owned(),
        Ended::Reset => "the other machine has restarted".to_owned(),
        other => other.to_string(),
    }
}

/// The reason that [`crate::Connection::closed`] gives on the side that closed.
pub(crate) const CLOSED_HERE: &str = "closed by this machine";

impl From<quinn::ConnectionError> for LinkError {
    fn from(ended: quinn::ConnectionError) -> Self {
        Self::closed(reason_in_words(&ended))
    }
}

impl From<quinn::WriteError> for LinkError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::ConnectionLost(ended) => ended.into(),
            quinn::WriteError::Stopped(_) => Self::StreamRefused,
            other => Self::closed(other),
        }
    }
}

impl From<quinn::ReadError> for LinkError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::ConnectionLost(ended) => ended.into(),
            quinn::ReadError::Reset(_) => Self::StreamAbandoned,
            other => Self::closed(other),
        }
    }
}
