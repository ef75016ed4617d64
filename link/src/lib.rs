//! The link between the two machines.
//!
//! It carries *messages*, byte strings with a length limit, between two machines that know each
//! other by key. It owns identity, pairing, the endpoint and the streams, and it is the only crate
//! that names quinn. It does not know what a file is, and it does not know what a message says.
//!
//! Read from top to bottom; each module uses only those above it. The exceptions are [`memory`], the
//! second carrier beside quinn, and `rate`, both below [`stream`] and [`connection`].

// Who we are, what can fail, and how long to wait after it.
pub mod fingerprint;
pub mod identity;

pub mod backoff;
pub mod error;

// What is carried, and by what.
mod congestion;
mod transport;

mod packed;
pub mod stream;

pub mod connection;
pub mod memory;
mod rate;

// Who may come in.
mod base32;
pub mod code;
pub mod desk;
mod tls;

// The two sides, and how they meet for the first time.
pub mod dialer;

pub mod pairing;

pub mod listener;

pub use backoff::Backoff;
pub use code::{CodeError, PairingCode};
pub use connection::{Connection, Priority, Traffic};
pub use desk::{Desk, PairingDesk, Verdict};
pub use dialer::Dialer;
pub use error::LinkError;
pub use fingerprint::Fingerprint;
pub use identity::{Identity, IdentityError};
pub use listener::{Incoming, Listener};
pub use pairing::{Paired, PairingAttempt, PairingError, Refusal, join};
pub use stream::{MESSAGE_BYTES_MAX, Receiver, Sender};
pub use tls::Pins;
pub use transport::CLOSE_WAIT;

#[cfg(test)]
mod tests;
