//! Consent: what lets this node into Drive, and how it gets the tokens for its calls.
//!
//! A person gives it once, in a browser ([`ask_loopback`]) or with a code on another device ([`ask_device`]); from then on a refresh token
//! stands for it. A service account has a key instead. Either is in one file of the node's home, which only its owner may read.
//!
//! yup-oauth2 asks the person and signs for the service account. A refresh is our own request: when one fails for any reason,
//! the library begins to ask the person anew, which a daemon must not, and it does not say whether consent was withdrawn or the
//! network is down.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use google_drive3::common::GetToken;
use google_drive3::hyper::header::CONTENT_TYPE;
use google_drive3::hyper::{Method, Request};
use google_drive3::hyper_util::client::legacy::Client;
use google_drive3::hyper_util::client::legacy::connect::HttpConnector;
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use yup_oauth2::authenticator::Authenticator;
use yup_oauth2::authenticator_delegate::{
    DeviceAuthResponse, DeviceFlowDelegate, InstalledFlowDelegate,
};
use yup_oauth2::storage::{TokenInfo, TokenStorage, TokenStorageError};
use yup_oauth2::{
    ApplicationSecret, CustomHyperClientBuilder, DeviceFlowAuthenticator, HyperClientBuilder,
    InstalledFlowAuthenticator, InstalledFlowReturnMethod, ServiceAccountAuthenticator,
    ServiceAccountKey,
};

use super::call::chain;
use crate::target::Wrong;

/// Sees and changes only what this program made. Enough for a mirror; what a person adds in Drive is not seen with it.
pub const SCOPE_OWN: &str = "https://www.googleapis.com/auth/drive.file";
/// Sees and changes everything in the Drive: needed to take what a person adds there.
pub const SCOPE_ALL: &str = "https://www.googleapis.com/auth/drive";
/// Google's own addresses.
pub const GOOGLE: &str = "https://www.googleapis.com";
/// A token is renewed when it is good for less than this.
const MARGIN: Duration = Duration::from_secs(60);
/// How long a request for a token may take.
const TOKEN_WAIT: Duration = Duration::from_secs(30);
/// The grant of the device flow (RFC 8628).
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// How to connect.
pub(super) type Connector = HttpsConnector<HttpConnector>;

/// Makes a connector. The roots of the certificates are built in.
pub(super) fn connector() -> Connector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(Duration::from_secs(10)));
    tcp.set_nodelay(true);
    HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp)
}

/// What is stored: one of the two ways to be let in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credentials {
    /// A person has given consent.
    Person {
        /// The client that consent was given to.
        client: OauthClient,
        /// What stands for the consent.
        refresh_token: String,
        /// What it is good for.
        scope: String,
    },
    /// A service account.
    Service {
        /// The key, as Google gives it.
        key: Box<Value>,
        /// What is asked for.
        scope: String,
    },
}

impl Credentials {
    /// Returns what they are good for.
    pub fn scope(&self) -> &str {
        match self {
            Self::Person { scope, .. } | Self::Service { scope, .. } => scope,
        }
    }
}

/// Secrets are not shown.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Person { .. } => "Person",
            Self::Service { .. } => "Service",
        };
        write!(f, "{kind} {{ scope: {:?}, .. }}", self.scope())
    }
}

/// The client that a person gives consent to: made in the Google Cloud console, as a desktop app or a device.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OauthClient {
    /// Its id.
    pub id: String,
    /// Its secret, which is none in a program that everybody has.
    pub secret: String,
    /// Where tokens are got.
    pub token_uri: String,
    /// Where a person gives consent.
    pub auth_uri: String,
    /// Where codes for another device are got.
    pub device_uri: String,
}

impl OauthClient {
    /// A client, with Google's addresses, or those of a server that stands in for it.
    pub fn new(id: &str, secret: &str, api: &str) -> Self {
        let own = |google: &str, path: &str| match api == GOOGLE {
            true => google.to_owned(),
            false => format!("{api}{path}"),
        };
        Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
            token_uri: own("https://oauth2.googleapis.com/token", "/token"),
            auth_uri: own(
                "https://accounts.google.com/o/oauth2/auth",
                "/o/oauth2/auth",
            ),
            device_uri: own("https://oauth2.googleapis.com/device/code", "/device/code"),
        }
    }

    fn secret(&self) -> ApplicationSecret {
        ApplicationSecret {
            client_id: self.id.clone(),
            client_secret: self.secret.clone(),
            token_uri: self.token_uri.clone(),
            auth_uri: self.auth_uri.clone(),
            ..ApplicationSecret::default()
        }
    }
}

/// Shows a person where to give consent: an address to open, and a code to type there if one is needed.
pub type Show = Arc<dyn Fn(&str, Option<&str>) + Send + Sync>;

struct Shows(Show);

impl InstalledFlowDelegate for Shows {
    fn present_user_url<'a>(
        &'a self,
        url: &'a str,
        _need_code: bool,
    ) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>> {
        (self.0)(url, None);
        Box::pin(async { Ok(String::new()) })
    }
}

impl DeviceFlowDelegate for Shows {
    fn present_user_code<'a>(
        &'a self,
        answer: &'a DeviceAuthResponse,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        (self.0)(&answer.verification_uri, Some(&answer.user_code));
        Box::pin(async {})
    }
}

fn client_of() -> CustomHyperClientBuilder<Connector> {
    let client = Client::builder(TokioExecutor::new()).build(connector());
    CustomHyperClientBuilder::from(client).with_timeout(TOKEN_WAIT)
}

/// Asks a person in the browser of this machine.
///
/// # Errors
/// What went wrong, for the person.
pub async fn ask_loopback(
    client: &OauthClient,
    scope: &str,
    show: Show,
) -> Result<Credentials, Wrong> {
    let asking = InstalledFlowAuthenticator::with_client(
        client.secret(),
        InstalledFlowReturnMethod::HTTPRedirect,
        client_of(),
    );
    let kept = Kept::default();
    let asking = asking
        .flow_delegate(Box::new(Shows(show)))
        .with_storage(Box::new(kept.clone()))
        .build()
        .await?;
    given(client, scope, asking, &kept).await
}

/// Asks a person on any device. Only for [`SCOPE_OWN`]: Google gives no other one this way.
///
/// # Errors
/// What went wrong, for the person.
pub async fn ask_device(
    client: &OauthClient,
    scope: &str,
    show: Show,
) -> Result<Credentials, Wrong> {
    let kept = Kept::default();
    let asking = DeviceFlowAuthenticator::with_client(client.secret(), client_of())
        .device_code_url(client.device_uri.clone())
        .grant_type(DEVICE_GRANT)
        .flow_delegate(Box::new(Shows(show)))
        .with_storage(Box::new(kept.clone()))
        .build()
        .await?;
    given(client, scope, asking, &kept).await
}

async fn given(
    client: &OauthClient,
    scope: &str,
    asking: Authenticator<Connector>,
    kept: &Kept,
) -> Result<Credentials, Wrong> {
    asking
        .token(&[scope])
        .await
        .map_err(|error| denied(&error))?;
    let refresh_token = kept
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
        .ok_or_else(|| {
            Wrong::NoConsent(
                "Google gave a token for an hour, and none to renew it with".to_owned(),
            )
        })?;
    Ok(Credentials::Person {
        client: client.clone(),
        refresh_token,
        scope: scope.to_owned(),
    })
}

/// Hears the refresh token that the library got: it hands it to whoever stores it, and to nobody else.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Option<String>>>);

#[async_trait::async_trait]
impl TokenStorage for Kept {
    async fn set(&self, _: &[&str], token: TokenInfo) -> Result<(), TokenStorageError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = token.refresh_token;
        Ok(())
    }

    async fn get(&self, _: &[&str]) -> Option<TokenInfo> {
        None
    }
}

fn denied(error: &yup_oauth2::Error) -> Wrong {
    match error {
        yup_oauth2::Error::AuthError(error) => Wrong::NoConsent(format!(
            "{}{}",
            error.error.as_str(),
            error
                .error_description
                .as_ref()
                .map(|text| format!(": {text}"))
                .unwrap_or_default()
        )),
        yup_oauth2::Error::HttpError(_) | yup_oauth2::Error::HttpClientError(_) => {
            Wrong::Unreachable(chain(error))
        }
        other => Wrong::NoConsent(chain(other)),
    }
}

/// Why there is no token.
#[derive(Debug)]
pub(super) struct Denied(pub(super) Wrong);

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Denied {}

/// Gets tokens for calls, and keeps each for as long as it is good. Clones are the same one.
#[derive(Clone)]
pub(super) struct Tokens(Arc<Inner>);

struct Inner {
    scope: String,
    from: Origin,
    held: tokio::sync::Mutex<Option<(String, Instant)>>,
    /// Whether Drive has refused the one that is held.
    is_spent: AtomicBool,
}

/// Where tokens come from.
enum Origin {
    Person {
        http: Client<Connector, Full<hyper::body::Bytes>>,
        client: OauthClient,
        refresh_token: String,
    },
    Service(Authenticator<Connector>),
}

impl Tokens {
    /// # Errors
    /// [`Wrong::NoConsent`] when the key is none.
    pub(super) async fn new(credentials: Credentials) -> Result<Self, Wrong> {
        let scope = credentials.scope().to_owned();
        let from = match credentials {
            Credentials::Person {
                client,
                refresh_token,
                ..
            } => Origin::Person {
                http: Client::builder(TokioExecutor::new()).build(connector()),
                client,
                refresh_token,
            },
            Credentials::Service { key, .. } => {
                let key: ServiceAccountKey = serde_json::from_value(*key).map_err(|error| {
                    Wrong::NoConsent(format!("the key of the service account is none: {error}"))
                })?;
                let signs = ServiceAccountAuthenticator::with_client(key, client_of());
                Origin::Service(signs.build().await.map_err(|error| {
                    Wrong::NoConsent(format!("the key of the service account is none: {error}"))
                })?)
            }
        };
        Ok(Self(Arc::new(Inner {
            scope,
            from,
            held: tokio::sync::Mutex::default(),
            is_spent: AtomicBool::new(false),
        })))
    }

    /// Takes it that Drive does not take the token any more.
    pub(super) fn spent(&self) {
        self.0.is_spent.store(true, Ordering::Relaxed);
    }

    /// Returns a token that is good for a while.
    pub(super) async fn token(&self) -> Result<String, Wrong> {
        let mut held = self.0.held.lock().await;
        let is_spent = self.0.is_spent.swap(false, Ordering::Relaxed);
        if let Some((token, until)) = &*held
            && !is_spent
            && *until > Instant::now() + MARGIN
        {
            return Ok(token.clone());
        }
        let fresh = match &self.0.from {
            Origin::Person {
                http,
                client,
                refresh_token,
            } => refreshed(http, client, refresh_token).await?,
            Origin::Service(signs) => {
                let scopes = [self.0.scope.as_str()];
                let token = match is_spent {
                    true => signs.force_refreshed_token(&scopes).await,
                    false => signs.token(&scopes).await,
                };
                let token = token.map_err(|error| denied(&error))?;
                let text = token
                    .token()
                    .ok_or_else(|| Wrong::Nonsense("an answer without a token".to_owned()))?;
                // The library renews it when that is due.
                (text.to_owned(), Instant::now() + 2 * MARGIN)
            }
        };
        *held = Some(fresh.clone());
        Ok(fresh.0)
    }
}

impl GetToken for Tokens {
    fn get_token<'a>(
        &'a self,
        _scopes: &'a [&str],
    ) -> Pin<
        Box<
            dyn Future<Output = Result<Option<String>, Box<dyn std::error::Error + Send + Sync>>>
                + Send
                + 'a,
        >,
    > {
        Box::pin(async move {
            match self.token().await {
                Ok(token) => Ok(Some(token)),
                Err(wrong) => Err(Denied(wrong).into()),
            }
        })
    }
}

/// Renews a token (RFC 6749, section 6).
async fn refreshed(
    http: &Client<Connector, Full<hyper::body::Bytes>>,
    client: &OauthClient,
    refresh_token: &str,
) -> Result<(String, Instant), Wrong> {
    let form = [
        ("client_id", client.id.as_str()),
        ("client_secret", client.secret.as_str()),
        ("refresh_token", refresh_token),
        ("grant_type", "refresh_token"),
    ];
    let body: Vec<String> = form
        .iter()
        .map(|(key, value)| format!("{key}={}", encoded(value)))
        .collect();
    let request = Request::builder()
        .method(Method::POST)
        .uri(&client.token_uri)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::from(body.join("&")))
        .map_err(|error| Wrong::NoConsent(format!("the address of the tokens is none: {error}")))?;
    let asked = Instant::now();
    let answer = tokio::time::timeout(TOKEN_WAIT, http.request(request)).await;
    let answer = answer
        .map_err(|_| Wrong::Unreachable("no token came in time".to_owned()))?
        .map_err(|error| Wrong::Unreachable(chain(&error)))?;
    let status = answer.status();
    let body = answer.into_body().collect().await;
    let body = body.map_err(|error| Wrong::Unreachable(error.to_string()))?;
    let body: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    if status.is_success()
        && let Some(token) = body["access_token"].as_str()
    {
        let seconds = body["expires_in"].as_u64().unwrap_or(3600);
        return Ok((token.to_owned(), asked + Duration::from_secs(seconds)));
    }
    let code = body["error"].as_str().unwrap_or_default();
    let text = body["error_description"].as_str().unwrap_or_default();
    let shown = [code, text].join(" ").trim().to_owned();
    Err(match status.as_u16() {
        // `invalid_grant`: consent was withdrawn, or has run out.
        400 | 401 | 403 => Wrong::NoConsent(shown),
        _ => Wrong::Busy {
            text: format!("no token: code {status} {shown}"),
            after: None,
        },
    })
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte as char);
            }
            other => out += &format!("%{other:02X}"),
        }
    }
    out
}
