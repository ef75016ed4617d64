use proptest::prelude::*;

use super::{CodeError, PairingCode, VERSION, checksum};
use crate::base32;
use crate::fingerprint::Fingerprint;

fn sample() -> PairingCode {
    let fingerprint = Fingerprint(std::array::from_fn(|at| at as u8));
    let secret = std::array::from_fn(|at| 0xf0 | at as u8);
    PairingCode::new("vm.example.org:4747", fingerprint, secret).expect("a code")
}

const GOLDEN: &str = "LS1-049QCV9E-CNW62VBG-DHJJWVVJ-CWX38DSM-6W0020G3-0G2GC1R8-1450P30D-1R7H048J-\
                      2CA1A5GQ-30CHM6RW-3MF1ZW7H-YBSZ9XFP-YZWFKYQV-ZKYZXZS0-A2RQ0";

#[test]
fn the_code_is_stable() {
    assert_eq!(sample().to_string(), GOLDEN);
    assert_eq!(GOLDEN.parse(), Ok(sample()));
}

#[test]
fn dashes_spaces_and_case_do_not_matter() {
    let code = Ok(sample());
    assert_eq!(GOLDEN.to_lowercase().parse(), code);
    assert_eq!(GOLDEN.replace('-', "").parse(), code);
    assert_eq!(GOLDEN.replace('-', "\n ").parse(), code);
    assert_eq!(GOLDEN.replace('1', "l").replace('0', "o").parse(), code);
    assert_eq!(format!("  {GOLDEN}\n").parse(), code);
}

#[test]
fn any_wrong_character_is_found() {
    for (at, right) in GOLDEN
        .char_indices()
        .filter(|(_, character)| *character != '-')
    {
        for wrong in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ!ä".chars() {
            let same = match wrong {
                'I' | 'L' => right == '1' || right == wrong,
                'O' => right == '0',
                _ => right == wrong,
            };
            let text = format!("{}{wrong}{}", &GOLDEN[..at], &GOLDEN[at + 1..]);
            match text.parse::<PairingCode>() {
                Ok(code) => assert!(same && code == sample(), "{wrong} at {at} was taken"),
                Err(_) => assert!(!same, "{wrong} at {at} was refused"),
            }
        }
    }
}

#[test]
fn any_missing_or_doubled_character_is_found() {
    for (at, character) in GOLDEN
        .char_indices()
        .filter(|(_, character)| *character != '-')
    {
        let missing = format!("{}{}", &GOLDEN[..at], &GOLDEN[at + 1..]);
        missing
            .parse::<PairingCode>()
            .expect_err("a character is missing");
        let doubled = format!("{}{character}{}", &GOLDEN[..at], &GOLDEN[at..]);
        doubled
            .parse::<PairingCode>()
            .expect_err("a character is doubled");
        GOLDEN[..at]
            .parse::<PairingCode>()
            .expect_err("the end is missing");
    }
}

#[test]
fn the_reason_is_told() {
    let newer = {
        let mut bytes = vec![VERSION + 1, 9, 9, 9];
        bytes.extend_from_slice(&checksum(&bytes));
        format!("LS1-{}", base32::encode(&bytes))
    };
    let damaged = GOLDEN.replace('Y', "Z");
    assert_ne!(damaged, GOLDEN);
    let cases = [
        ("", CodeError::NotACode),
        ("hello", CodeError::NotACode),
        ("LS", CodeError::NotACode),
        ("LSX-00", CodeError::NotACode),
        (&*"LS1-".repeat(1000), CodeError::NotACode),
        ("LS1-", CodeError::Damaged),
        ("LS1-UUUU", CodeError::Damaged),
        (&damaged, CodeError::Damaged),
        ("LS2-0000", CodeError::Newer),
        (&newer, CodeError::Newer),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse::<PairingCode>(), Err(expected), "{text}");
    }
}

#[test]
fn an_address_has_a_host_and_a_port() {
    let make = |address: &str| PairingCode::new(address, Fingerprint([0; 32]), [0; 16]);
    for address in ["a:1", "[::1]:4747", "vm.example.org:65535"] {
        make(address).expect(address);
    }
    let long = format!("{}:1", "a".repeat(254));
    for address in [
        "", "a", "a:", ":1", "a:0", "a:65536", "a b:1", "a\n:1", "ä:1", &long,
    ] {
        make(address).expect_err(address);
    }
}

#[test]
fn the_secret_is_not_shown_by_accident() {
    let shown = format!("{:?}", sample());
    assert!(
        shown.contains("vm.example.org") && !shown.contains("secret"),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn any_code_comes_back(
        host in "[a-zA-Z0-9.:-]{1,249}",
        port in 1..=u16::MAX,
        fingerprint: [u8; 32],
        secret: [u8; 16],
    ) {
        let address = format!("{host}:{port}");
        let code = PairingCode::new(&address, Fingerprint(fingerprint), secret).expect("a code");
        prop_assert_eq!(code.to_string().parse(), Ok(code));
    }

    #[test]
    fn any_text_is_answered(text: String) {
        let _ = text.parse::<PairingCode>();
        let _ = format!("LS1{text}").parse::<PairingCode>();
    }

    #[test]
    fn any_bytes_come_back_from_base_32(bytes: Vec<u8>) {
        prop_assert_eq!(base32::decode(&base32::encode(&bytes)), Some(bytes));
    }
}
