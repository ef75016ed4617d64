//! Uploads: in one request, or in pieces.

use hyper::body::Bytes;
use serde_json::Value;

use super::State;
use super::files::Stored;
use super::json::{Refusal, refuse};
use super::oauth::Caller;

/// Longest upload in one request.
const WHOLE_BYTES_MAX: usize = 5 << 20;
/// What the pieces but the last are a multiple of.
const STEP: usize = 256 << 10;

/// A file that comes in pieces.
pub(super) struct Session {
    /// The file as it will be, and the one that it replaces if there is one.
    file: Stored,
    replaces: bool,
    pub(super) bytes: Vec<u8>,
    /// The file when it is over.
    done: Option<String>,
}

/// How a session stands after a request.
pub(super) enum Put {
    /// It has so many bytes.
    More(usize),
    Done(Stored),
}

impl State {
    /// Takes a file in one request: `multipart/related` with metadata first.
    pub(super) fn upload_whole(
        &mut self,
        caller: &Caller,
        id: Option<&str>,
        query: &[(String, String)],
        kind: &str,
        body: &Bytes,
    ) -> Result<Stored, Refusal> {
        if body.len() > WHOLE_BYTES_MAX + 16_384 {
            return Err(refuse(413, "uploadTooLarge"));
        }
        let (metadata, bytes) = parts(kind, body).ok_or_else(|| refuse(400, "badContent"))?;
        self.has_room(bytes.len())?;
        let mut file = self.begin(caller, id, query, &metadata)?;
        // Whoever says no kind gets the one of the bytes.
        if metadata["mimeType"].is_null() && id.is_none() {
            "text/plain".clone_into(&mut file.mime);
        }
        let file = file.with_bytes(bytes);
        self.put(file.clone());
        Ok(self.files[&file.id].clone())
    }

    fn begin(
        &mut self,
        caller: &Caller,
        id: Option<&str>,
        query: &[(String, String)],
        metadata: &Value,
    ) -> Result<Stored, Refusal> {
        match id {
            None => self.make(caller, metadata, query),
            Some(id) => {
                let mut file = self.file(caller, id, query)?;
                file.take(metadata)?;
                Ok(file)
            }
        }
    }

    /// Begins a session; returns its number.
    pub(super) fn upload_begin(
        &mut self,
        caller: &Caller,
        id: Option<&str>,
        query: &[(String, String)],
        metadata: &Value,
        len: usize,
    ) -> Result<String, Refusal> {
        self.has_room(len)?;
        let file = self.begin(caller, id, query, metadata)?;
        let number = self.new_id();
        let session = Session {
            file,
            replaces: id.is_some(),
            bytes: Vec::new(),
            done: None,
        };
        self.sessions.insert(number.clone(), session);
        Ok(number)
    }

    /// Takes a piece, or answers how far a session has come. `range` is that of the request; at most `most` bytes are stored.
    pub(super) fn upload_put(
        &mut self,
        number: &str,
        range: &str,
        body: &Bytes,
        most: usize,
    ) -> Result<Put, Refusal> {
        let gone = || refuse(404, "notFound");
        let session = self.sessions.get_mut(number).ok_or_else(gone)?;
        if let Some(id) = session.done.clone() {
            return self.files.get(&id).cloned().map(Put::Done).ok_or_else(gone);
        }
        let bad = || refuse(400, "badRequest");
        let range = range.strip_prefix("bytes ").ok_or_else(bad)?;
        let (part, total) = range.split_once('/').ok_or_else(bad)?;
        let total: usize = total.parse().map_err(|_| bad())?;
        if part != "*" {
            let (first, last) = part.split_once('-').ok_or_else(bad)?;
            let first: usize = first.parse().map_err(|_| bad())?;
            let last: usize = last.parse().map_err(|_| bad())?;
            let is_last = last + 1 == total;
            if last + 1 - first != body.len() || !is_last && !body.len().is_multiple_of(STEP) {
                return Err(bad());
            }
            if first != session.bytes.len() {
                return Err(refuse(503, "backendError"));
            }
            let len = match body.len() <= most {
                true => body.len(),
                // Only whole steps are kept of a piece that was cut short.
                false => most - most % STEP,
            };
            session.bytes.extend_from_slice(&body[..len]);
        }
        if session.bytes.len() < total {
            return Ok(Put::More(session.bytes.len()));
        }
        let bytes = Bytes::from(std::mem::take(&mut session.bytes));
        let mut file = session.file.clone().with_bytes(bytes);
        session.done = Some(file.id.clone());
        if session.replaces {
            // What changed meanwhile stays, but for what was uploaded.
            let now = self.files.get(&file.id).ok_or_else(gone)?;
            file.version = now.version;
            file.parent.clone_from(&now.parent);
        }
        let id = file.id.clone();
        self.put(file);
        self.files.get(&id).cloned().map(Put::Done).ok_or_else(gone)
    }
}

/// Splits a body of `multipart/related` into metadata and bytes.
fn parts(kind: &str, body: &Bytes) -> Option<(Value, Bytes)> {
    let boundary = kind.split("boundary=").nth(1)?.trim_matches('"');
    let mark = format!("--{boundary}").into_bytes();
    let find = |from: usize, what: &[u8]| {
        let found = body[from..].windows(what.len()).position(|at| at == what);
        found.map(|at| from + at)
    };
    let mut found = Vec::new();
    let mut at = find(0, &mark)?;
    while found.len() < 2 {
        let head = find(at, b"\r\n\r\n")? + 4;
        let next = find(head, &mark)?;
        // The line end before a boundary belongs to it.
        found.push(head..next - 2);
        at = next;
    }
    let metadata = serde_json::from_slice(&body[found[0].clone()]).ok()?;
    Some((metadata, body.slice(found[1].clone())))
}
