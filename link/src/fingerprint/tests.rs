use super::{Fingerprint, NotAFingerprint};

#[test]
fn it_is_written_in_hexadecimal() {
    let fingerprint = Fingerprint(std::array::from_fn(|at| at as u8 * 8));
    let text = "0008101820283038404850586068707880889098a0a8b0b8c0c8d0d8e0e8f0f8";
    assert_eq!(fingerprint.to_string(), text);
    assert_eq!(fingerprint.short(), "00081018");
    assert_eq!(text.parse(), Ok(fingerprint));
    assert_eq!(text.to_uppercase().parse(), Ok(fingerprint));
    assert_eq!(
        serde_json::to_string(&fingerprint).expect("json"),
        format!("\"{text}\"")
    );
    let read: Fingerprint = serde_json::from_str(&format!("\"{text}\"")).expect("json");
    assert_eq!(read, fingerprint);

    for wrong in [
        "",
        "00",
        &text[1..],
        &format!("{text}0"),
        &text.replace('f', "g"),
    ] {
        assert_eq!(
            wrong.parse::<Fingerprint>(),
            Err(NotAFingerprint),
            "{wrong}"
        );
    }
}
