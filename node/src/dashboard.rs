//! The duty `dashboard`: one page on this machine that shows what `status` says.
//!
//! It listens on a loopback address alone, and shows nothing without the key that `layer-sync web` prints; that becomes a cookie. A page of
//! somebody else in the same browser can neither read it nor ask it: the `Host` of each request has to be an address of this machine, and the
//! cookie does not travel from other pages. It changes nothing: to steer there is the command.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, HeaderValue, LOCATION,
    SET_COOKIE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use shared::block::block;
use shared::control::{Request as Ask, Response as Answer, Status, exit, to_json};
use shared::hash::ContentHash;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tracing::{debug, info};

use crate::Failure;
use crate::control::Desk;

/// Its name.
pub(crate) const DASHBOARD: &str = "dashboard";
/// Connections at a time. Others wait in the system's queue.
const CONNECTIONS_MAX: usize = 16;
/// How long a client may take to say what it wants.
const HEADER_WAIT: Duration = Duration::from_secs(10);
/// What a page may load, and from where: nothing but its own script and style.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const PAGE: &str = include_str!("dashboard/page.html");
const STYLE: &str = include_str!("dashboard/page.css");
const SCRIPT: &str = include_str!("dashboard/page.js");

/// Where the dashboard is now, if it is. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Place(Arc<watch::Sender<Option<String>>>);

impl Place {
    /// Answers `layer-sync web`.
    pub(crate) fn answer(&self) -> Answer {
        match self.0.borrow().clone() {
            Some(address) => Answer::Web(address),
            None => crate::control::refused(
                exit::ERROR,
                "the dashboard is not served here",
                "layer-sync duty list; `listen` in [dashboard] says where it should be",
            ),
        }
    }
}

/// Serves the page until the daemon stops.
pub(crate) async fn run(
    listen: SocketAddr,
    desk: Desk,
    place: Place,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let cannot = |error| {
        Failure::other(
            &format!("the dashboard cannot be served at {listen}"),
            error,
        )
    };
    let listener = TcpListener::bind(listen).await.map_err(cannot)?;
    let bound = listener.local_addr().map_err(cannot)?;
    let key = key()?;
    place
        .0
        .send_replace(Some(format!("http://{bound}/?key={key}")));
    info!(address = %bound, "dashboard");
    let _gone = Gone(place);
    let page = Arc::new(Page { desk, bound, key });
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let serve = async {
        loop {
            // It is never closed.
            let Ok(room) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let page = Arc::clone(&page);
            tokio::spawn(async move {
                let _room = room;
                let answer = service_fn(move |request| {
                    let page = Arc::clone(&page);
                    async move { Ok::<_, Infallible>(page.answer(request).await) }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_WAIT)
                    .serve_connection(TokioIo::new(stream), answer);
                if let Err(error) = served.await {
                    debug!(%error, "a browser left");
                }
            });
        }
    };
    tokio::select! {
        () = serve => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    Ok(())
}

/// Says that the page is not served any more.
struct Gone(Place);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.0.send_replace(None);
    }
}

fn key() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::other("the system gives no chance", error))?;
    let mut key = ContentHash::from_bytes(bytes).to_string();
    key.truncate(32);
    Ok(key)
}

struct Page {
    desk: Desk,
    bound: SocketAddr,
    key: String,
}

type Answered = Response<Full<Bytes>>;

impl Page {
    async fn answer(&self, request: Request<hyper::body::Incoming>) -> Answered {
        if !self.is_here(&request) {
            return said(
                StatusCode::MISDIRECTED_REQUEST,
                "This is not the address of the dashboard.\n",
            );
        }
        if request.method() != Method::GET {
            return said(
                StatusCode::METHOD_NOT_ALLOWED,
                "It shows, and changes nothing.\n",
            );
        }
        let path = request.uri().path();
        if path == "/healthz" {
            return said(StatusCode::OK, "ok\n");
        }
        if path == "/"
            && request
                .uri()
                .query()
                .is_some_and(|query| self.is_key(query.strip_prefix("key=")))
        {
            return self.let_in();
        }
        if !self.is_let_in(&request) {
            return said(
                StatusCode::UNAUTHORIZED,
                "`layer-sync web` prints the address that lets you in.\n",
            );
        }
        match path {
            "/" => kind("text/html; charset=utf-8", PAGE),
            "/page.css" => kind("text/css; charset=utf-8", STYLE),
            "/page.js" => kind("text/javascript; charset=utf-8", SCRIPT),
            "/api/status" => self.status().await,
            _ => said(StatusCode::NOT_FOUND, "There is nothing here.\n"),
        }
    }

    /// Says whether a request means this machine. A name that somebody made lead here does not count.
    fn is_here(&self, request: &Request<hyper::body::Incoming>) -> bool {
        let port = self.bound.port();
        let host = request
            .headers()
            .get(HOST)
            .and_then(|host| host.to_str().ok());
        host.is_some_and(|host| {
            host == self.bound.to_string() || host == format!("localhost:{port}")
        })
    }

    fn is_key(&self, given: Option<&str>) -> bool {
        // Of hashes, so that the time it takes tells nothing of the key.
        given.is_some_and(|given| {
            ContentHash::of_bytes(given.as_bytes()) == ContentHash::of_bytes(self.key.as_bytes())
        })
    }

    /// Cookies know no ports, and several nodes may be on one machine.
    fn cookie(&self) -> String {
        format!("layer_sync_{}", self.bound.port())
    }

    fn is_let_in(&self, request: &Request<hyper::body::Incoming>) -> bool {
        let name = self.cookie();
        let cookies = request
            .headers()
            .get_all(COOKIE)
            .iter()
            .filter_map(|cookies| cookies.to_str().ok());
        let mut pairs = cookies
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(given, value)| given == name && self.is_key(Some(value)))
    }

    /// Takes the key out of the address, where others could read it over a shoulder or in a history.
    fn let_in(&self) -> Answered {
        let mut answer = said(StatusCode::SEE_OTHER, "");
        let cookie = format!(
            "{}={}; HttpOnly; SameSite=Strict; Path=/",
            self.cookie(),
            self.key
        );
        if let Ok(cookie) = cookie.parse() {
            answer.headers_mut().insert(SET_COOKIE, cookie);
        }
        answer
            .headers_mut()
            .insert(LOCATION, HeaderValue::from_static("/"));
        answer
    }

    async fn status(&self) -> Answered {
        let Answer::Status(status) = self.desk.answer(Ask::Status).await else {
            return said(
                StatusCode::SERVICE_UNAVAILABLE,
                "The node does not answer now.\n",
            );
        };
        let facts = facts(&status);
        kind(
            "application/json",
            to_json(&json!({ "status": status, "facts": facts })),
        )
    }
}

/// Returns the lines of the block, each with its name: what the command, the chat and the page say is the same.
fn facts(status: &Status) -> Vec<(String, String)> {
    let bare = Status {
        problems: Vec::new(),
        ..status.clone()
    };
    let block = block(&bare, "", "layer-sync");
    let lines = block
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(' '));
    lines
        .map(|(name, text)| (name.to_owned(), text.trim().to_owned()))
        .collect()
}

fn kind(kind: &'static str, body: impl Into<Bytes>) -> Answered {
    let mut answer = Response::new(Full::new(body.into()));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    answer
}

fn said(code: StatusCode, text: &'static str) -> Answered {
    let mut answer = kind("text/plain; charset=utf-8", text);
    *answer.status_mut() = code;
    answer
}
