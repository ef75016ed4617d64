//! A service account: its key, and what it signs to be given a token (RFC 7523).

use std::time::{SystemTime, UNIX_EPOCH};

use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde_json::{Value, json};

/// Who it is.
pub(crate) const EMAIL: &str = "mirror@studio.iam.test";
/// Longest life of what it signs, in seconds.
const LIFE_MAX: u64 = 3600;
const KEY: &str = include_str!("../../../fixtures/service-account.key");

/// Returns the file that the console gives for a key.
pub(crate) fn key_file(url: &str) -> Value {
    let base64: Vec<&str> = KEY.lines().filter(|line| !line.starts_with('#')).collect();
    let kind = "PRIVATE KEY";
    json!({
        "type": "service_account", "project_id": "studio", "private_key_id": "1", "client_email": EMAIL, "client_id": "1",
        "private_key": format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", base64.join("\n")),
        "auth_uri": format!("{url}/o/oauth2/auth"), "token_uri": format!("{url}/token"),
        "auth_provider_x509_cert_url": url, "client_x509_cert_url": url,
    })
}

/// Returns the scope that is asked for; `None` when it was not signed by the account, for this address, lately.
pub(super) fn scope_of(assertion: &str, token_uri: &str) -> Option<String> {
    let (signed, signature) = assertion.rsplit_once('.')?;
    let (head, claims) = signed.split_once('.')?;
    let pkcs8: String = KEY.lines().filter(|line| !line.starts_with('#')).collect();
    let pair = RsaKeyPair::from_pkcs8(&decoded(&pkcs8)?).ok()?;
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref());
    public
        .verify(signed.as_bytes(), &decoded(signature)?)
        .ok()?;
    let json = |text| -> Option<Value> { serde_json::from_slice(&decoded(text)?).ok() };
    let (head, claims) = (json(head)?, json(claims)?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    let (from, until) = (claims["iat"].as_u64()?, claims["exp"].as_u64()?);
    let is_now = from <= now + 60 && now < until && until - from <= LIFE_MAX;
    let is_it = head["alg"] == "RS256" && claims["iss"] == EMAIL && claims["aud"] == token_uri;
    (is_now && is_it).then(|| claims["scope"].as_str().unwrap_or_default().to_owned())
}

/// Reads base64, of either alphabet, with or without padding.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}
