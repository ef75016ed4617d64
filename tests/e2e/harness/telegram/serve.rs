//! HTTP: connections, the path of a call, the answer or its absence, the log.
//!
//! Order: the call is logged when all of it is here, then it takes effect, then the delay, then the
//! answer. A client that hangs up at any time after that leaves a log entry that has ended unanswered.

use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::arguments::Arguments;
use super::methods::{Failure, GET_UPDATES, Outcome, SEND_MESSAGE, documented};
use super::polls::Turn;
use super::{Effect, Moment, Server, State, TOKEN};

const BODY_BYTES_MAX: usize = 4 << 20;
/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Answer = Response<Full<Bytes>>;

/// Serves until the runtime ends.
pub(super) async fn listen(listener: std::net::TcpListener, server: Arc<Server>) -> Infallible {
    let listener = TcpListener::from_std(listener).expect("a listener that does not block");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let service = service_fn(|request| handle(Arc::clone(&server), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // How a connection ends is in the log of its calls.
            drop(connection.await);
        });
    }
}

/// Ends the connection without an answer.
#[derive(Debug)]
struct CutOff;

impl fmt::Display for CutOff {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("no answer is given")
    }
}

impl std::error::Error for CutOff {}

async fn handle(server: Arc<Server>, request: Request<Incoming>) -> Result<Answer, CutOff> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Ok(json_answer(&Err(Failure::new(
                413,
                "Request Entity Too Large",
            ))));
        }
        Err(_) => return Err(CutOff),
    };
    let arguments = Arguments::from_body(&body).map(|mut arguments| {
        arguments.add_query(parts.uri.query().unwrap_or_default());
        arguments
    });
    let (call, first) = Call::begin(server, &parts, arguments.as_ref());

    let reply = match first {
        Some(reply) => reply,
        None => Reply::Outcome(call.poll().await),
    };
    let delay = call.server.lock().faults.delay;
    if !delay.is_zero() {
        sleep(delay).await;
    }
    let answer = match reply {
        Reply::Outcome(outcome) => json_answer(&outcome),
        Reply::Broken => broken(),
        Reply::Nothing => return Err(CutOff),
    };
    call.end(answer.status().as_u16());
    Ok(answer)
}

enum Reply {
    Outcome(Outcome),
    Broken,
    Nothing,
}

/// A call that is in the log. When it is dropped before its end, the client is gone.
struct Call {
    server: Arc<Server>,
    number: usize,
}

impl Call {
    /// Logs a call and lets it take effect, in one step. Returns no reply when it has to wait.
    fn begin(
        server: Arc<Server>,
        parts: &Parts,
        arguments: Option<&Arguments>,
    ) -> (Self, Option<Reply>) {
        let path = parts.uri.path();
        let (token, method) = path
            .strip_prefix("/bot")
            .and_then(|path| path.split_once('/'))
            .unwrap_or(("", path));
        let method = documented(method).unwrap_or(method);
        let agent = parts.headers.get(USER_AGENT);
        let (node, epoch) = agent
            .and_then(|agent| caller(agent.to_str().ok()?))
            .unwrap_or_default();
        let effect = Effect {
            begun: Instant::now(),
            ended: None,
            node,
            epoch,
            method: method.to_owned(),
            body: arguments.map_or(Value::Null, Arguments::to_value),
            answer: 0,
            message: None,
        };
        let (number, reply) = server.change(|state, now| {
            let number = state.effects.len();
            state.effects.push(effect);
            let reply = state.take(number, token, method, arguments, now);
            (number, reply)
        });
        (Self { server, number }, reply)
    }

    /// Waits for updates, a 409, or the end of the poll's time.
    async fn poll(&self) -> Outcome {
        loop {
            let mut bell = pin!(self.server.bell.notified());
            // Who rang before is seen by the look, and whoever rings from here on is heard.
            bell.as_mut().enable();
            let wait = {
                let mut state = self.server.lock();
                let now = state.now();
                match state.look(self.number, now)? {
                    Turn::Deliver(updates) => return Ok(Value::Array(updates).into()),
                    Turn::Conflict(text) => return Err(Failure::new(409, text)),
                    Turn::Wait(until) => until.saturating_duration_since(now.at),
                }
            };
            // Rung or late, it is looked at again.
            drop(timeout(wait, bell).await);
        }
    }

    fn end(self, answer: u16) {
        let mut state = self.server.lock();
        let effect = &mut state.effects[self.number];
        effect.ended = Some(Instant::now());
        effect.answer = answer;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.server.lock();
        let effect = &mut state.effects[self.number];
        if effect.ended.is_none() {
            effect.ended = Some(Instant::now());
            state.polls.hang_up(self.number);
        }
    }
}

impl State {
    /// Lets a call take effect. Returns no reply when it is a poll that waits.
    fn take(
        &mut self,
        number: usize,
        token: &str,
        method: &str,
        arguments: Option<&Arguments>,
        now: Moment,
    ) -> Option<Reply> {
        if self.faults.server_errors > 0 {
            self.faults.server_errors -= 1;
            return Some(Reply::Broken);
        }
        if token != TOKEN || self.revoked {
            return Some(Reply::Outcome(Err(unauthorized())));
        }
        let Some(arguments) = arguments else {
            let failure = Failure::bad_request("JSON object expected");
            return Some(Reply::Outcome(Err(failure)));
        };
        if method == GET_UPDATES {
            let turn = self
                .polls
                .begin(number, arguments, &mut self.updates, now.at);
            return match turn {
                Turn::Deliver(updates) => Some(Reply::Outcome(Ok(Value::Array(updates).into()))),
                Turn::Conflict(_) | Turn::Wait(_) => None,
            };
        }
        let outcome = self.call(method, arguments, now);
        if let Ok(done) = &outcome {
            self.effects[number].message = done.message;
            if method == SEND_MESSAGE && self.faults.ambiguous > 0 {
                self.faults.ambiguous -= 1;
                return Some(Reply::Nothing);
            }
        }
        Some(Reply::Outcome(outcome))
    }

    /// Looks whether a poll that waits is over.
    fn look(&mut self, number: usize, now: Moment) -> Result<Turn, Failure> {
        // Only a token that was revoked makes a poll forgotten.
        let turn = self.polls.look(number, &mut self.updates, now.at);
        turn.ok_or_else(unauthorized)
    }
}

fn unauthorized() -> Failure {
    Failure::new(401, "Unauthorized")
}

/// Reads `layer-sync/0.1.0 (vm; epoch 42)`.
fn caller(agent: &str) -> Option<(String, u64)> {
    let (_, rest) = agent.split_once(" (")?;
    let (node, epoch) = rest.strip_suffix(')')?.split_once("; epoch ")?;
    Some((node.to_owned(), epoch.parse().ok()?))
}

fn json_answer(outcome: &Outcome) -> Answer {
    let (status, body) = match outcome {
        Ok(done) => {
            let mut body = json!({ "ok": true, "result": done.result });
            if let Some(description) = done.description {
                body["description"] = description.into();
            }
            (200, body)
        }
        Err(failure) => {
            let mut body = json!({
                "ok": false,
                "error_code": failure.code,
                "description": failure.description,
            });
            if let Some(seconds) = failure.retry_after {
                body["parameters"] = json!({ "retry_after": seconds });
            }
            (failure.code, body)
        }
    };
    answer(status, "application/json", body.to_string())
}

/// Returns what a proxy says whose server is away.
fn broken() -> Answer {
    let page = "<html><head><title>502 Bad Gateway</title></head></html>\r\n";
    answer(502, "text/html", page.to_owned())
}

fn answer(status: u16, kind: &str, body: String) -> Answer {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .body(Full::new(body.into()))
        .expect("a status and a header that are fine")
}
