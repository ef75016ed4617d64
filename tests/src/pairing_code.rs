//! The pairing code, as a person types it.

use link::{Fingerprint, PairingCode};

/// Reads a pairing code, and makes one with the same text as its address: what is accepted is shown in
/// a way that reads the same, and keeps its secret from logs.
pub fn pairing_code(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(code) = text.parse() {
        shown(&code);
    }
    // A mutation of a code hardly ever has the right checksum; this one always does.
    let at = |index: usize| data.get(index).copied().unwrap_or_default();
    let made = PairingCode::new(
        &text,
        Fingerprint(std::array::from_fn(at)),
        std::array::from_fn(at),
    );
    if let Ok(code) = made {
        assert_eq!(code.address(), text);
        shown(&code);
    }
}

fn shown(code: &PairingCode) {
    let shown = code.to_string();
    assert_eq!(shown.parse().as_ref(), Ok(code));
    assert!(shown.starts_with("LS1-") && shown.is_ascii() && !shown.contains(char::is_whitespace));
    let (host, port) = code.address().rsplit_once(':').expect("host:port");
    assert!(!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0));
    let digits: String = shown.chars().filter(|digit| *digit != '-').collect();
    assert!(!format!("{code:?}").contains(&digits[digits.len() - 24..]));
}
