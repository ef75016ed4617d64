//! HTTP: the path of a call, what goes wrong with it, the answer, the log.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderName, LOCATION, RANGE};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::files::{flag, value};
use super::json::{Refusal, only, refuse};
use super::uploads::Put;
use super::{Call, KEPT_BYTES_MAX, Server, State, Stored};

const BODY_BYTES_MAX: usize = 64 << 20;
/// What a client gets that does not say which fields it wants.
const FILE_DEFAULT: &str = "kind,id,name,mimeType";
/// Faults in a row of one kind of call: whoever asks again gets through.
const IN_A_ROW_MAX: u32 = 3;

type Answer = Response<Sent>;

/// The body of an answer, which may end before its end.
struct Sent {
    bytes: Option<Bytes>,
    len: u64,
    is_short: bool,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match self.bytes.take().filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None if self.is_short => Poll::Ready(Some(Err(CutOff))),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len)
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && !self.is_short
    }
}

/// Serves until the runtime ends.
pub(super) async fn listen(
    listener: std::net::TcpListener,
    addr: SocketAddr,
    server: Arc<Server>,
) -> Infallible {
    let listener = TcpListener::from_std(listener).expect("a listener that does not block");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let service = service_fn(|request| handle(Arc::clone(&server), addr, request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
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

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Refused(u16, &'static str),
    Expired,
    CutBefore,
    CutAfter,
    /// A download ends in its middle, or a part of a piece is stored.
    CutShort,
    /// The session is gone.
    Lost,
}

async fn handle(
    server: Arc<Server>,
    addr: SocketAddr,
    request: Request<Incoming>,
) -> Result<Answer, CutOff> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|_| CutOff)?.to_bytes();
    let kind = kind_of(&parts);
    let throttle = server.lock().throttle;
    if let Some(rate) = throttle.filter(|_| kind.starts_with("upload")) {
        sleep(Duration::from_secs_f64(body.len() as f64 / rate as f64)).await;
    }
    let (answer, is_cut) = {
        let mut state = server.lock();
        state.keep(&parts, &body);
        let fault = state.fault(kind);
        let sent = body.len() as u64;
        let mut call = Call {
            kind,
            sent,
            answer: 0,
        };
        if state.is_cut || fault == Some(Fault::CutBefore) {
            state.calls.push(call);
            return Err(CutOff);
        }
        let answered = match fault {
            Some(Fault::Refused(code, reason)) => Err(refuse(code, reason)),
            Some(Fault::Expired) => {
                state.oauth.expire();
                Err(refuse(401, "authError"))
            }
            Some(Fault::Lost) => {
                state.sessions.clear();
                Err(refuse(404, "notFound"))
            }
            _ => state.answer(kind, &parts, &body, addr, fault == Some(Fault::CutShort)),
        };
        let answer = answered.unwrap_or_else(|refusal| plain(refusal.code, &refusal.body));
        call.answer = answer.status().as_u16();
        let is_cut = fault == Some(Fault::CutAfter);
        if is_cut {
            call.answer = 0;
        }
        state.calls.push(call);
        (answer, is_cut)
    };
    if is_cut { Err(CutOff) } else { Ok(answer) }
}

/// Says what a call is.
fn kind_of(parts: &Parts) -> &'static str {
    let path = parts.uri.path();
    let method = &parts.method;
    let query = parts.uri.query().unwrap_or_default();
    match path {
        "/token" => return "token",
        "/device/code" => return "device",
        "/o/oauth2/auth" => return "auth",
        "/drive/v3/about" => return "about",
        "/drive/v3/files/generateIds" => return "files.generateIds",
        "/drive/v3/changes/startPageToken" => return "changes.start",
        "/drive/v3/changes" => return "changes.list",
        "/drive/v3/files" if *method == Method::GET => return "files.list",
        "/drive/v3/files" => return "files.create",
        _ => {}
    }
    if path.starts_with("/session/") {
        return if *method == Method::DELETE {
            "upload.forget"
        } else {
            "upload.put"
        };
    }
    if path.starts_with("/upload/drive/v3/files") {
        return match query.contains("uploadType=resumable") {
            true => "upload.begin",
            false => "upload.whole",
        };
    }
    if path.starts_with("/drive/v3/files/") {
        return match *method {
            Method::GET if query.contains("alt=media") => "files.download",
            Method::GET => "files.get",
            Method::PATCH => "files.update",
            Method::DELETE => "files.delete",
            _ => "unknown",
        };
    }
    "unknown"
}

impl State {
    /// Keeps what came, to be searched.
    fn keep(&mut self, parts: &Parts, body: &Bytes) {
        let mut head = parts.uri.to_string().into_bytes();
        for value in parts.headers.values() {
            head.extend_from_slice(value.as_bytes());
        }
        for bytes in [Bytes::from(head), body.clone()] {
            if self.kept_bytes + bytes.len() < KEPT_BYTES_MAX {
                self.kept_bytes += bytes.len();
                self.kept.push(bytes);
            } else {
                self.kept_bytes = KEPT_BYTES_MAX;
            }
        }
    }

    /// Says what goes wrong with a call of a kind.
    fn fault(&mut self, kind: &'static str) -> Option<Fault> {
        if let Some((of, code, reason, times)) = self.faults.next
            && of == kind
            && times > 0
        {
            self.faults.next = Some((of, code, reason, times - 1));
            return Some(Fault::Refused(code, reason));
        }
        if let Some(rate) = self.rate {
            if self.window.0.elapsed() >= Duration::from_secs(1) {
                self.window = (Instant::now(), 0);
            }
            self.window.1 += 1;
            if self.window.1 > rate {
                return Some(Fault::Refused(403, "userRateLimitExceeded"));
            }
        }
        if self.faults.share == 0 {
            return None;
        }
        // Xorshift64 (Marsaglia, 2003).
        let mut x = self.faults.chance;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.faults.chance = x;
        let in_a_row = self.faults.in_a_row.entry(kind.to_owned()).or_default();
        if x % 1000 >= u64::from(self.faults.share) || *in_a_row >= IN_A_ROW_MAX {
            *in_a_row = 0;
            return None;
        }
        *in_a_row += 1;
        let common = [
            Fault::Refused(403, "rateLimitExceeded"),
            Fault::Refused(403, "userRateLimitExceeded"),
            Fault::Refused(429, "rateLimitExceeded"),
            Fault::Refused(500, "backendError"),
            Fault::Refused(502, "badGateway"),
            Fault::Refused(503, "backendError"),
            Fault::Refused(504, "gatewayTimeout"),
            Fault::CutBefore,
            Fault::CutAfter,
            Fault::Expired,
        ];
        let more: &[Fault] = match kind {
            "files.download" => &[Fault::CutShort, Fault::CutShort],
            "upload.put" => &[Fault::CutShort, Fault::CutShort, Fault::Lost],
            _ => &[],
        };
        let all: Vec<Fault> = common.iter().chain(more).copied().collect();
        let fault = all[(x >> 20) as usize % all.len()];
        // The token endpoint has errors of its own kind.
        match (kind, fault) {
            ("token" | "device" | "auth", Fault::Expired) => None,
            ("token" | "device" | "auth", Fault::Refused(403 | 429, _)) => {
                Some(Fault::Refused(503, "backendError"))
            }
            (_, fault) => Some(fault),
        }
    }

    fn answer(
        &mut self,
        kind: &str,
        parts: &Parts,
        body: &Bytes,
        addr: SocketAddr,
        short: bool,
    ) -> Result<Answer, Refusal> {
        let url = format!("http://{addr}");
        let query = pairs(parts.uri.query().unwrap_or_default());
        let header = |name: HeaderName| parts.headers.get(name).and_then(|v| v.to_str().ok());
        let form = || pairs(&String::from_utf8_lossy(body));
        match kind {
            "token" => {
                let (code, body) = self.oauth.token(&form(), &url);
                return Ok(plain(code, &body));
            }
            "device" => {
                let (code, body) = self.oauth.device(&form(), &url);
                return Ok(plain(code, &body));
            }
            "auth" => {
                let back = self.oauth.authorise(&query);
                let back = back.ok_or_else(|| refuse(400, "invalid_request"))?;
                let mut answer = plain(302, &Value::Null);
                answer
                    .headers_mut()
                    .insert(LOCATION, back.parse().expect("a header"));
                return Ok(answer);
            }
            _ => {}
        }
        // Whoever has a session needs nothing else.
        let caller = self.oauth.caller(header(AUTHORIZATION))?;
        let path = parts.uri.path();
        let last = path.rsplit('/').next().unwrap_or_default();
        let fields = value(&query, "fields");
        let json_body = || -> Result<Value, Refusal> {
            serde_json::from_slice(body).map_err(|_| refuse(400, "parseError"))
        };
        let file_answer = |state: &Self, file: &Stored| {
            let fields = fields.as_deref().unwrap_or(FILE_DEFAULT);
            plain(200, &only(&file.json(state), fields))
        };
        match kind {
            "about" => {
                let fields = fields.ok_or_else(|| refuse(400, "required"))?;
                let files = self.files.values();
                let used: usize = files
                    .filter_map(|file| file.bytes.as_ref().map(Bytes::len))
                    .sum();
                let mut quota = json!({ "usage": used.to_string() });
                if let Some(limit) = self.quota {
                    quota["limit"] = json!(limit.to_string());
                }
                let user = json!({ "emailAddress": "studio@example.org" });
                let about = json!({ "user": user, "storageQuota": quota });
                Ok(plain(200, &only(&about, &fields)))
            }
            "files.generateIds" => {
                let count = value(&query, "count").and_then(|text| text.parse::<usize>().ok());
                let count = count.unwrap_or(10);
                if count > 1000 {
                    return Err(refuse(400, "invalidParameter"));
                }
                let ids: Vec<String> = (0..count).map(|_| self.new_id()).collect();
                self.issued.extend(ids.iter().cloned());
                Ok(plain(200, &json!({ "ids": ids, "space": "drive" })))
            }
            "files.list" => {
                let found = self.search(&caller, &query)?;
                let size = page_size(&query, 100)?;
                let from: usize = match value(&query, "pageToken") {
                    Some(token) => token.parse().map_err(|_| refuse(400, "invalid"))?,
                    None => 0,
                };
                let page = found.iter().skip(from).take(size);
                let files: Vec<Value> = page.map(|id| self.files[id].json(self)).collect();
                let mut list = json!({ "kind": "drive#fileList", "files": files });
                if from + size < found.len() {
                    list["nextPageToken"] = json!((from + size).to_string());
                }
                let default = format!("kind,nextPageToken,files({FILE_DEFAULT})");
                Ok(plain(
                    200,
                    &only(&list, fields.as_deref().unwrap_or(&default)),
                ))
            }
            "files.create" => {
                let file = self.make(&caller, &json_body()?, &query)?;
                let id = file.id.clone();
                self.put(file);
                Ok(file_answer(self, &self.files[&id]))
            }
            "files.get" => Ok(file_answer(self, &self.file(&caller, last, &query)?)),
            "files.download" => {
                let file = self.file(&caller, last, &query)?;
                let bytes = file
                    .bytes
                    .ok_or_else(|| refuse(403, "fileNotDownloadable"))?;
                download(&bytes, header(RANGE), short)
            }
            "files.update" => {
                let mut file = self.file(&caller, last, &query)?;
                if file.parent.is_empty() {
                    return Err(refuse(403, "insufficientFilePermissions"));
                }
                file.take(&json_body()?)?;
                if let Some(parent) = value(&query, "addParents") {
                    let parent = self.file(&caller, &parent, &query)?;
                    if value(&query, "removeParents").as_ref() != Some(&file.parent) {
                        return Err(refuse(403, "cannotAddParent"));
                    }
                    file.parent = parent.id;
                }
                let id = file.id.clone();
                self.put(file);
                Ok(file_answer(self, &self.files[&id]))
            }
            "files.delete" => {
                let file = self.file(&caller, last, &query)?;
                self.files.remove(&file.id);
                self.change += 1;
                self.changes.retain(|_, id| *id != file.id);
                self.changes.insert(self.change, file.id);
                Ok(plain(204, &Value::Null))
            }
            "upload.whole" => {
                let id = (last != "files").then_some(last);
                let content = header(CONTENT_TYPE).unwrap_or_default().to_owned();
                let file = self.upload_whole(&caller, id, &query, &content, body)?;
                Ok(file_answer(self, &file))
            }
            "upload.begin" => {
                let id = (last != "files").then_some(last);
                let len = parts.headers.get("x-upload-content-length");
                let len = len
                    .and_then(|len| len.to_str().ok()?.parse().ok())
                    .unwrap_or(0);
                let number = self.upload_begin(&caller, id, &query, &json_body()?, len)?;
                let fields = fields.unwrap_or(FILE_DEFAULT.to_owned());
                let session = format!("{url}/session/{number}?fields={fields}");
                let mut answer = plain(200, &Value::Null);
                answer
                    .headers_mut()
                    .insert(LOCATION, session.parse().expect("a header"));
                Ok(answer)
            }
            "upload.put" => {
                let range = header(CONTENT_RANGE).unwrap_or_default();
                let most = if short { body.len() / 2 } else { usize::MAX };
                match self.upload_put(last, range, body, most)? {
                    Put::Done(file) => Ok(file_answer(self, &file)),
                    Put::More(len) => {
                        let mut answer = plain(308, &Value::Null);
                        if len > 0 {
                            let range = format!("bytes=0-{}", len - 1);
                            answer
                                .headers_mut()
                                .insert(RANGE, range.parse().expect("a header"));
                        }
                        Ok(answer)
                    }
                }
            }
            "upload.forget" => {
                self.sessions.remove(last);
                Ok(plain(499, &Value::Null))
            }
            "changes.start" => {
                let token = (self.change + 1).to_string();
                Ok(plain(200, &json!({ "startPageToken": token })))
            }
            "changes.list" => {
                let token = value(&query, "pageToken").and_then(|text| text.parse::<u64>().ok());
                let token = token.filter(|token| *token >= self.oldest);
                let token = token.ok_or_else(|| refuse(400, "invalid"))?;
                let size = page_size(&query, 100)?;
                let all_drives =
                    flag(&query, "supportsAllDrives") && flag(&query, "includeItemsFromAllDrives");
                let mut left = self.changes.range(token..);
                let mut listed = Vec::new();
                for (_, id) in left.by_ref().take(size) {
                    let is_seen = self.sees(&caller, id, all_drives);
                    let mut change = json!({
                        "kind": "drive#change", "changeType": "file", "fileId": id,
                        "removed": !is_seen, "time": "2026-11-22T21:14:05.000Z"
                    });
                    let is_known = self
                        .files
                        .get(id)
                        .is_none_or(|file| file.is_of_app || caller.sees_all);
                    if !is_known {
                        continue;
                    }
                    if is_seen {
                        change["file"] = self.files[id].json(self);
                    }
                    listed.push(change);
                }
                let mut list = json!({ "kind": "drive#changeList", "changes": listed });
                match left.next() {
                    Some((next, _)) => list["nextPageToken"] = json!(next.to_string()),
                    None => list["newStartPageToken"] = json!((self.change + 1).to_string()),
                }
                let fields = fields.as_deref().unwrap_or("*");
                Ok(plain(200, &only(&list, fields)))
            }
            _ => Err(refuse(404, "notFound")),
        }
    }
}

fn page_size(query: &[(String, String)], default: usize) -> Result<usize, Refusal> {
    match value(query, "pageSize") {
        None => Ok(default),
        Some(text) => match text.parse() {
            Ok(size @ 1..=1000) => Ok(size),
            _ => Err(refuse(400, "invalidParameter")),
        },
    }
}

fn download(bytes: &Bytes, range: Option<&str>, short: bool) -> Result<Answer, Refusal> {
    let from = range
        .and_then(|range| range.strip_prefix("bytes="))
        .and_then(|range| range.strip_suffix('-'));
    let (code, from) = match from {
        None => (200, 0),
        Some(from) => {
            let from: usize = from.parse().map_err(|_| refuse(416, "badRange"))?;
            if from >= bytes.len() {
                return Err(refuse(416, "requestedRangeNotSatisfiable"));
            }
            (206, from)
        }
    };
    let whole = bytes.slice(from..);
    let sent = match short {
        true => whole.slice(..whole.len() / 2),
        false => whole.clone(),
    };
    let mut answer = Response::new(Sent {
        len: whole.len() as u64,
        is_short: sent.len() < whole.len(),
        bytes: Some(sent),
    });
    *answer.status_mut() = code.try_into().expect("a code");
    Ok(answer)
}

fn plain(code: u16, body: &Value) -> Answer {
    let text = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let mut answer = Response::new(Sent {
        len: text.len() as u64,
        is_short: false,
        bytes: Some(text.into()),
    });
    *answer.status_mut() = code.try_into().expect("a code");
    let kind = "application/json; charset=UTF-8".parse().expect("a header");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// Splits a query or a form into pairs.
fn pairs(text: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'+' => bytes.push(b' '),
                b'%' => {
                    let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                    let digits = String::from_utf8_lossy(&digits).into_owned();
                    bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
                }
                other => bytes.push(other),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (decoded(key), decoded(value)))
        .collect()
}
