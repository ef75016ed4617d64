//! The pairing code: what one machine prints and the other is given, as one line without spaces.
//!
//! `LS1-` and then base 32, in groups, of: version (1 byte), length of the address (1), address,
//! key fingerprint (32), secret (16), checksum (4). Dashes, spaces and case do not matter. The
//! checksum finds a mistyped character; it proves nothing.

use std::fmt;
use std::str::FromStr;

use crate::base32;
use crate::fingerprint::Fingerprint;

/// Version of the code. It stands in front, for people, and inside.
const VERSION: u8 = 1;
const PREFIX: &str = "LS";
/// Characters between two dashes.
const GROUP: usize = 8;
/// Longest address in a code, in bytes: its length is one byte.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// Length of the secret: nobody guesses it, in five tries or in 2^64.
pub const SECRET_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
/// Longest text that is looked at, in bytes; the longest real code is half of it.
const TEXT_BYTES_MAX: usize = 1024;

/// Where the pusher is, which key it has, and the secret that proves the right to pair.
#[derive(Clone, PartialEq, Eq)]
pub struct PairingCode {
    address: String,
    fingerprint: Fingerprint,
    secret: [u8; SECRET_BYTES],
}

impl PairingCode {
    /// Makes a code. `address` is `host:port` as the receiver is to call it.
    ///
    /// # Errors
    /// [`CodeError::Address`] when `address` is not `host:port` or is over [`ADDRESS_BYTES_MAX`].
    pub fn new(
        address: &str,
        fingerprint: Fingerprint,
        secret: [u8; SECRET_BYTES],
    ) -> Result<Self, CodeError> {
        if !is_address(address) {
            return Err(CodeError::Address {
                address: address.to_owned(),
            });
        }
        Ok(Self {
            address: address.to_owned(),
            fingerprint,
            secret,
        })
    }

    /// Returns where to call, as `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the key that must answer.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn secret(&self) -> &[u8; SECRET_BYTES] {
        &self.secret
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, self.address.len() as u8];
        bytes.extend_from_slice(self.address.as_bytes());
        bytes.extend_from_slice(self.fingerprint.as_bytes());
        bytes.extend_from_slice(&self.secret);
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, CodeError> {
        let (body, sum) = bytes.split_last_chunk().ok_or(CodeError::Damaged)?;
        if checksum(body) != *sum {
            return Err(CodeError::Damaged);
        }
        let (version, body) = body.split_first().ok_or(CodeError::Damaged)?;
        if *version != VERSION {
            return Err(CodeError::Newer);
        }
        let (address_bytes, body) = body.split_first().ok_or(CodeError::Damaged)?;
        let (address, body) = body
            .split_at_checked(usize::from(*address_bytes))
            .ok_or(CodeError::Damaged)?;
        let (fingerprint, body) = body.split_first_chunk().ok_or(CodeError::Damaged)?;
        let secret = body.try_into().map_err(|_| CodeError::Damaged)?;
        let address = str::from_utf8(address).map_err(|_| CodeError::Damaged)?;
        Self::new(address, Fingerprint(*fingerprint), secret)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_BYTES]);
    sum
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let printable = host.chars().all(|character| character.is_ascii_graphic());
    let port = port.parse::<u16>().is_ok_and(|port| port != 0);
    text.len() <= ADDRESS_BYTES_MAX && !host.is_empty() && printable && port
}

impl fmt::Display for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{VERSION}")?;
        let digits = base32::encode(&self.to_bytes());
        for (at, digit) in digits.chars().enumerate() {
            let dash = if at % GROUP == 0 { "-" } else { "" };
            write!(f, "{dash}{digit}")?;
        }
        Ok(())
    }
}

/// Shows all but the secret.
impl fmt::Debug for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairingCode")
            .field("address", &self.address)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl FromStr for PairingCode {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(CodeError::NotACode);
        }
        let plain: String = text
            .chars()
            .filter(|character| *character != '-' && !character.is_whitespace())
            .map(|character| character.to_ascii_uppercase())
            .collect();
        let mut rest = plain
            .strip_prefix(PREFIX)
            .ok_or(CodeError::NotACode)?
            .chars();
        match rest.next() {
            Some('1' | 'I' | 'L') => {}
            Some('2'..='9') => return Err(CodeError::Newer),
            _ => return Err(CodeError::NotACode),
        }
        Self::from_bytes(&base32::decode(rest.as_str()).ok_or(CodeError::Damaged)?)
    }
}

/// Why a text is not taken as a pairing code, or a code not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// The text is something else.
    #[error("this is not a pairing code; one begins with LS1- and is printed by `layer-sync pair`")]
    NotACode,

    /// The text was a code once.
    #[error("the pairing code is damaged: a character is wrong or missing; copy it again, whole")]
    Damaged,

    /// The other machine is ahead of this one.
    #[error("the pairing code was made by a newer version of layer-sync; update this machine")]
    Newer,

    /// The address cannot be called.
    #[error("{address:?} is not an address of the form host:port")]
    Address {
        /// What was given.
        address: String,
    },
}

#[cfg(test)]
mod tests;
