//! Where a node can be called.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Longest address, in bytes: what fits into a pairing code.
pub const ADDRESS_BYTES_MAX: usize = 255;

/// A host and a port. The host is a name, an IPv4 address, or an IPv6 address in brackets; it is
/// looked up when it is called, never here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    text: Box<str>,
}

/// Why a text is not an [`Address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefused {
    /// No colon, nothing after it, or something other than 1 to 65535.
    #[error("it has no port from 1 to 65535")]
    Port,
    /// Nothing before the port, or characters that no host has.
    #[error("its host is neither a name nor an IP address")]
    Host,
    /// Longer than [`ADDRESS_BYTES_MAX`].
    #[error("it is longer than {ADDRESS_BYTES_MAX} bytes")]
    TooLong,
}

impl Address {
    /// Returns the address as `host:port`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Address {
    type Err = AddressRefused;

    fn from_str(text: &str) -> Result<Self, AddressRefused> {
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(AddressRefused::TooLong);
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressRefused::Port)?;
        // `parse` would take a leading plus sign.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || port.parse::<u16>().map_or(true, |port| port == 0) {
            return Err(AddressRefused::Port);
        }
        if is_host(host) {
            Ok(Self { text: text.into() })
        } else if host.parse::<Ipv6Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok() {
            // Which colon begins the port cannot be told.
            Err(AddressRefused::Port)
        } else {
            Err(AddressRefused::Host)
        }
    }
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        return inner
            .strip_suffix(']')
            .is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
    }
    !host.is_empty()
        && host.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, refused: Option<AddressRefused>| {
            let parsed = text.parse::<Address>();
            assert_eq!(parsed.as_ref().err(), refused.as_ref(), "{text}");
            assert!(parsed.is_err() || parsed.is_ok_and(|it| it.as_str() == text));
        };
        check("vm.example.org:9797", None);
        check("vm:1", None);
        check("192.0.2.7:65535", None);
        check("[2001:db8::7]:9797", None);
        check("vm", Some(AddressRefused::Port));
        check("vm:", Some(AddressRefused::Port));
        check("vm:0", Some(AddressRefused::Port));
        check("vm:+80", Some(AddressRefused::Port));
        check("vm:65536", Some(AddressRefused::Port));
        check("2001:db8::7", Some(AddressRefused::Port));
        check(":9797", Some(AddressRefused::Host));
        check("a b:9797", Some(AddressRefused::Host));
        check("a..b:9797", Some(AddressRefused::Host));
        check("[vm]:9797", Some(AddressRefused::Host));
        check(
            &format!("{}:1", "a".repeat(ADDRESS_BYTES_MAX)),
            Some(AddressRefused::TooLong),
        );
    }
}
