//! One bot at the Bot API, under one lease: requests out, answers in. Each needs a [`Leave`].
//!
//! The types are `frankenstein`'s, the HTTP client is hyper's. Every byte goes through the [fence](crate::fence). The token is part of
//! the address, so no address ever stands in an error or a log.

use std::sync::Arc;
use std::time::Duration;

use frankenstein::response::{ErrorResponse, MethodResponse};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Method, Request};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::lease::Epoch;
use tokio::time::timeout;

use crate::fence::Connector;
use crate::port::{Leave, Port};

/// How long it may take to reach the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection that nobody uses stays open: less than servers do, so that none is used that has just been closed there.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest answer, in bytes: a hundred updates of the longest kind, and more.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Longest wait that Telegram can ask for. It has asked for hours after abuse.
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// The bot of one lease.
pub(crate) struct Telegram {
    client: Client<HttpsConnector<Connector>, Full<Bytes>>,
    /// Ends with a slash. It has the token in it.
    address: String,
    agent: String,
}

/// What is read of a message that was sent or changed. No more: it is there, whatever else Telegram says about it.
#[derive(Debug, Deserialize)]
pub(crate) struct Sent {
    /// Its number in the chat.
    pub(crate) message_id: i64,
}

/// What is read of the bot itself.
#[derive(Debug, Deserialize)]
pub(crate) struct Me {
    /// Its name, without the `@`.
    pub(crate) username: Option<String>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelegramError {
    /// Telegram said no: nothing was done.
    #[error("Telegram says: {text} ({code})")]
    Refused {
        code: u64,
        text: String,
        retry_after: Option<Duration>,
    },
    /// The server was not reached: nothing was done.
    #[error("Telegram cannot be reached: {0}")]
    Unreachable(String),
    /// It may have been done.
    #[error("Telegram did not answer: {0}")]
    Unknown(String),
    /// The answer is longer than can be read.
    #[error("the answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
}

impl TelegramError {
    /// Says whether this is the end of the token.
    pub(crate) fn is_unauthorised(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                code: 401 | 404,
                ..
            }
        )
    }

    /// Says whether the request was refused with words that have this in them.
    pub(crate) fn says(&self, words: &str) -> bool {
        matches!(self, Self::Refused { text, .. } if text.contains(words))
    }
}

impl Telegram {
    /// Makes a client for the lease of `epoch`. `api` is the address of the server; its end is not reached before the first request.
    pub(crate) fn new(
        api: &str,
        token: &str,
        node: &str,
        port: Arc<dyn Port>,
        epoch: Epoch,
    ) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(Connector::new(tcp, port, epoch));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            // Whether to try again is decided by who knows what a second time does.
            .retry_canceled_requests(false)
            .build(connector);
        Self {
            client,
            address: format!("{}/bot{token}/", api.trim_end_matches('/')),
            agent: format!(
                "layer-sync/{} ({node}; epoch {epoch})",
                env!("CARGO_PKG_VERSION")
            ),
        }
    }

    /// Calls a method, for as long as the leave lasts.
    ///
    /// # Errors
    /// What it says about whether anything was done.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        leave: &Leave,
        method: &str,
        params: &impl Serialize,
    ) -> Result<T, TelegramError> {
        let body = serde_json::to_vec(params)
            .map_err(|error| TelegramError::Unreachable(error.to_string()))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{method}", self.address))
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, &self.agent)
            .body(Full::from(body))
            // The address is none; it must not be shown.
            .map_err(|_| {
                TelegramError::Unreachable(
                    "`api` in [bot], or the token, makes no address".to_owned(),
                )
            })?;
        match timeout(leave.left(), self.exchange(request)).await {
            Ok(answer) => read(&answer?.1),
            Err(_) => Err(TelegramError::Unknown("it took too long".to_owned())),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), TelegramError> {
        let answer = self.client.request(request).await.map_err(|error| {
            let text = deepest(&error);
            match error.is_connect() || was_never_sent(&error) {
                true => TelegramError::Unreachable(text),
                false => TelegramError::Unknown(text),
            }
        })?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => TelegramError::TooLong,
            None => TelegramError::Unknown(deepest(&*error)),
        })?;
        Ok((status, body.to_bytes()))
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, TelegramError> {
    if let Ok(answer) = serde_json::from_slice::<ErrorResponse>(body)
        && !answer.ok
    {
        let seconds = answer
            .parameters
            .and_then(|parameters| parameters.retry_after);
        return Err(TelegramError::Refused {
            code: answer.error_code,
            text: answer.description,
            retry_after: seconds.map(|seconds| Duration::from_secs(seconds.into()).min(RETRY_MAX)),
        });
    }
    match serde_json::from_slice::<MethodResponse<T>>(body) {
        Ok(answer) => Ok(answer.result),
        // A page of a proxy on the way, or another shape than the documented one: it may have been done.
        Err(error) => Err(TelegramError::Unknown(format!(
            "its answer cannot be read: {error}"
        ))),
    }
}

/// Says whether the connection had ended before anything of the request was written.
fn was_never_sent(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        cause
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_canceled)
    })
}

/// Returns what the innermost cause says: hyper's own words are only "connection error" and the like.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}
