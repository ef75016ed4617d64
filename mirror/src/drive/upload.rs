//! Long files: the resumable protocol, which the generated client gets wrong (it goes on after an incomplete answer as if all had
//! arrived, and panics on an empty file).
//!
//! One request begins a session, which Drive keeps for a week; the pieces follow, each a multiple of 256 KiB but the last. After each
//! Drive says how far it has come, and after any failure it is asked. The session is noted, so that an upload goes on after the
//! end of the process as well.

use google_drive3::api::File;
use google_drive3::common::Response;
use google_drive3::hyper::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION, RANGE};
use google_drive3::hyper::{HeaderMap, Method, StatusCode};
use hyper::body::Bytes as Chunk;
use serde::{Deserialize, Serialize};

use super::{Drive, FIELDS, mime_of};
use crate::target::{Writing, Wrong};

/// Bytes of a piece: a multiple of 256 KiB. One is in memory for each upload.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;
/// Sessions that are begun for one file before the next try.
const SESSIONS_MAX: usize = 3;

/// What was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) id: String,
    session: String,
}

impl Begun {
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// How far a session has come.
enum Come {
    Bytes(u64),
    Done(Box<File>),
    /// It does not exist any more.
    Lost,
}

impl Drive {
    /// Writes a file in pieces.
    pub(super) async fn write_long(
        &self,
        writing: &Writing<'_>,
        id: &str,
        begun: Option<Begun>,
    ) -> Result<File, Wrong> {
        let mut begun = begun.filter(|begun| begun.id == id);
        for _ in 0..SESSIONS_MAX {
            let (session, mut come) = match begun.take() {
                Some(begun) => {
                    let come = self.how_far(&begun.session, writing).await?;
                    (begun.session, come)
                }
                None => {
                    let session = self.begin(writing, id).await?;
                    let begun = Begun {
                        id: id.to_owned(),
                        session,
                    };
                    (writing.note)(&serde_json::to_string(&begun).unwrap_or_default());
                    (begun.session, Come::Bytes(0))
                }
            };
            loop {
                match come {
                    Come::Done(file) => return Ok(*file),
                    Come::Lost => break,
                    Come::Bytes(at) => come = self.piece(&session, writing, at).await?,
                }
            }
        }
        Err(Wrong::Busy {
            text: "it loses what was uploaded".to_owned(),
            after: None,
        })
    }

    async fn begin(&self, writing: &Writing<'_>, id: &str) -> Result<String, Wrong> {
        let query = [("uploadType", "resumable"), ("fields", FIELDS)];
        let (method, path) = match writing.over {
            Some(_) => (Method::PATCH, format!("upload/drive/v3/files/{id}")),
            None => (Method::POST, "upload/drive/v3/files".to_owned()),
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, value("application/json; charset=UTF-8"));
        let kind = mime_of(writing.at.name).to_string();
        headers.insert("x-upload-content-type", value(&kind));
        let len = writing.bytes.len().to_string();
        headers.insert("x-upload-content-length", value(&len));
        let mut body = serde_json::to_value(self.metadata(writing, id)).unwrap_or_default();
        if let Some(fields) = body.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        let url = self.url(&path, &query);
        let answer = self
            .send(method, &url, headers, body.to_string().into())
            .await?;
        if !answer.status().is_success() {
            return Err(self.refusal(answer).await);
        }
        let session = answer.headers().get(LOCATION);
        let session = session.and_then(|session| session.to_str().ok());
        let session = session.map(ToOwned::to_owned);
        session
            .ok_or_else(|| Wrong::Nonsense("it began an upload and did not say where".to_owned()))
    }

    /// Asks how far a session has come.
    async fn how_far(&self, session: &str, writing: &Writing<'_>) -> Result<Come, Wrong> {
        let mut headers = HeaderMap::new();
        let range = format!("bytes */{}", writing.bytes.len());
        headers.insert(CONTENT_RANGE, value(&range));
        let answer = self
            .send(Method::PUT, session, headers, Chunk::new())
            .await?;
        self.come(answer).await
    }

    /// Sends the piece at an offset.
    async fn piece(&self, session: &str, writing: &Writing<'_>, at: u64) -> Result<Come, Wrong> {
        let len = writing.bytes.len();
        let end = len.min(at + PIECE_BYTES);
        let mut piece = vec![0; usize::try_from(end - at).unwrap_or(0)];
        let read = writing.bytes.read_at(at, &mut piece)?;
        // Nothing of a file that was written to meanwhile becomes a copy.
        if read < piece.len() || end == len && !writing.bytes.rests()? {
            self.forget(session).await;
            return Err(Wrong::Changed);
        }
        let mut headers = HeaderMap::new();
        let range = format!("bytes {at}-{}/{len}", end.saturating_sub(1));
        headers.insert(CONTENT_RANGE, value(&range));
        let answer = self
            .send(Method::PUT, session, headers, piece.into())
            .await?;
        self.come(answer).await
    }

    async fn come(&self, answer: Response) -> Result<Come, Wrong> {
        match answer.status() {
            StatusCode::PERMANENT_REDIRECT => {
                // No range: nothing has come.
                let Some(range) = answer.headers().get(RANGE) else {
                    return Ok(Come::Bytes(0));
                };
                let last = range
                    .to_str()
                    .ok()
                    .and_then(|range| range.rsplit_once('-')?.1.parse::<u64>().ok());
                last.map(|last| Come::Bytes(last + 1)).ok_or_else(|| {
                    Wrong::Nonsense("it does not say how far it has come".to_owned())
                })
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(Come::Lost),
            status if status.is_success() => Ok(Come::Done(Box::new(self.file_of(answer).await?))),
            _ => Err(self.refusal(answer).await),
        }
    }

    /// Ends a session that nobody needs. It would end by itself in a week.
    async fn forget(&self, session: &str) {
        let ended = self
            .send(Method::DELETE, session, HeaderMap::new(), Chunk::new())
            .await;
        drop(ended);
    }
}

/// Makes the value of a header. Those here have nothing in them that a header cannot.
pub(super) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
