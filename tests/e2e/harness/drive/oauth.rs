//! OAuth: consent, the tokens that come of it, and how they end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::files::value;
use super::json::{Refusal, refuse};
use super::service;

/// The client that a person gives consent to.
pub(crate) const CLIENT_ID: &str = "7001.apps.test";
pub(crate) const CLIENT_SECRET: &str = "client-secret";
const SCOPE_ALL: &str = "https://www.googleapis.com/auth/drive";
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) sees_all: bool,
    pub(super) is_service: bool,
}

/// Consents and tokens.
#[derive(Default)]
pub(super) struct Oauth {
    /// Whether the scope of each is the whole Drive, by refresh token.
    consents: HashMap<String, bool>,
    tokens: HashMap<String, (Instant, Caller)>,
    codes: HashMap<String, bool>,
    /// What waits for a person: the scope, and the answer.
    device: Option<(bool, Option<bool>)>,
    number: u64,
}

impl Oauth {
    fn next(&mut self, kind: &str) -> String {
        self.number += 1;
        format!("{kind}-{}", self.number)
    }

    /// Takes it that a person gives consent.
    pub(super) fn consent(&mut self, sees_all: bool) -> String {
        let token = self.next("refresh");
        self.consents.insert(token.clone(), sees_all);
        token
    }

    pub(super) fn revoke(&mut self) {
        self.consents.clear();
        self.tokens.clear();
    }

    pub(super) fn expire(&mut self) {
        self.tokens.clear();
    }

    pub(super) fn answer(&mut self, yes: bool) {
        if let Some((_, answer)) = &mut self.device {
            *answer = Some(yes);
        }
    }

    /// Returns who calls with a header.
    pub(super) fn caller(&self, header: Option<&str>) -> Result<Caller, Refusal> {
        let token = header.and_then(|header| header.strip_prefix("Bearer "));
        match token.and_then(|token| self.tokens.get(token)) {
            Some((until, caller)) if *until > Instant::now() => Ok(*caller),
            _ => Err(refuse(401, "authError")),
        }
    }

    /// What a browser opens: the person agrees, and is sent back with a code.
    pub(super) fn authorise(&mut self, query: &[(String, String)]) -> Option<String> {
        let back = value(query, "redirect_uri")?;
        if value(query, "client_id")? != CLIENT_ID || value(query, "response_type")? != "code" {
            return None;
        }
        let code = self.next("code");
        let sees_all = value(query, "scope")? == SCOPE_ALL;
        self.codes.insert(code.clone(), sees_all);
        Some(format!("{back}?code={code}"))
    }

    /// Gives a code for another device.
    pub(super) fn device(&mut self, form: &[(String, String)], url: &str) -> (u16, Value) {
        let sees_all = value(form, "scope").as_deref() == Some(SCOPE_ALL);
        if sees_all {
            return (400, json!({ "error": "invalid_scope" }));
        }
        self.device = Some((sees_all, None));
        (
            200,
            json!({
                "device_code": "device-1", "user_code": "ABCD-EFGH",
                "verification_url": format!("{url}/device"), "expires_in": 1800, "interval": 1
            }),
        )
    }

    /// The token endpoint.
    pub(super) fn token(&mut self, form: &[(String, String)], url: &str) -> (u16, Value) {
        let bad = |error: &str| {
            (
                400,
                json!({ "error": error, "error_description": "Bad Request" }),
            )
        };
        let grant = value(form, "grant_type").unwrap_or_default();
        let is_ours = value(form, "client_id").as_deref() == Some(CLIENT_ID)
            && value(form, "client_secret").as_deref() == Some(CLIENT_SECRET);
        let of_service = grant == "urn:ietf:params:oauth:grant-type:jwt-bearer";
        if !is_ours && !of_service {
            return (401, json!({ "error": "invalid_client" }));
        }
        let mut refresh = None;
        let (sees_all, is_service) = match grant.as_str() {
            "refresh_token" => {
                let token = value(form, "refresh_token").unwrap_or_default();
                match self.consents.get(&token) {
                    Some(sees_all) => (*sees_all, false),
                    None => return bad("invalid_grant"),
                }
            }
            "authorization_code" => {
                let code = value(form, "code").unwrap_or_default();
                let Some(sees_all) = self.codes.remove(&code) else {
                    return bad("invalid_grant");
                };
                refresh = Some(self.consent(sees_all));
                (sees_all, false)
            }
            "urn:ietf:params:oauth:grant-type:device_code" => match self.device {
                None => return bad("expired_token"),
                Some((_, None)) => return (428, json!({ "error": "authorization_pending" })),
                Some((_, Some(false))) => return (403, json!({ "error": "access_denied" })),
                Some((sees_all, Some(true))) => {
                    self.device = None;
                    refresh = Some(self.consent(sees_all));
                    (sees_all, false)
                }
            },
            _ if of_service => {
                let assertion = value(form, "assertion").unwrap_or_default();
                match service::scope_of(&assertion, &format!("{url}/token")) {
                    Some(scope) => (scope == SCOPE_ALL, true),
                    None => return bad("invalid_grant"),
                }
            }
            _ => return bad("unsupported_grant_type"),
        };
        let token = self.next("access");
        let caller = Caller {
            sees_all,
            is_service,
        };
        self.tokens
            .insert(token.clone(), (Instant::now() + TOKEN_LIFE, caller));
        let mut body = json!({
            "access_token": token, "expires_in": TOKEN_LIFE.as_secs(), "token_type": "Bearer"
        });
        if let Some(refresh) = refresh {
            body["refresh_token"] = json!(refresh);
        }
        (200, body)
    }
}
