//! A Google Drive server on loopback: one person's Drive, a shared drive, the token endpoint, and a log of calls.
//!
//! It follows the documented v3 protocol as far as a mirror uses it: metadata, `fields`, searches, pages, generated ids, multipart and
//! resumable uploads with 308 and ranges, downloads with ranges, trash, changes, quotas and the JSON of errors; OAuth with
//! refresh, loopback, device and service accounts. Two things are as bad as Drive may be: when a folder goes to the trash the
//! changes name the folder alone, and two files of one folder may have one name. A test plays the person with the methods that begin
//! with `person_`, breaks things with [`DriveApi::faults`] and the like, and reads who called what with [`DriveApi::calls`].
//! Never here: sharing, revisions, labels, content restrictions, batches.

mod files;
mod json;
pub(crate) mod oauth;
mod serve;
pub(crate) mod service;
mod uploads;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::runtime::{Builder, Runtime};

use files::Stored;
use oauth::Oauth;
use uploads::Session;

/// The id of a person's Drive.
pub(crate) const MY_DRIVE: &str = "0AMyDriveRoot";
/// The id of the shared drive.
pub(crate) const SHARED_DRIVE: &str = "0ASharedDrive";
const FOLDER: &str = "application/vnd.google-apps.folder";
/// Bodies that are kept to be searched, in bytes.
const KEPT_BYTES_MAX: usize = 256 << 20;
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);

/// A running server; it ends when this is dropped.
pub(crate) struct DriveApi {
    addr: SocketAddr,
    server: Arc<Server>,
    runtime: Option<Runtime>,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// What it is: `files.list`, `upload.put`, and so on.
    pub(crate) kind: &'static str,
    /// Bytes of the request's body.
    pub(crate) sent: u64,
    /// Code of the answer; 0 for none.
    pub(crate) answer: u16,
}

/// What somebody sees in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) id: String,
    pub(crate) bytes: Option<Bytes>,
}

struct Server {
    state: Mutex<State>,
}

struct State {
    files: BTreeMap<String, Stored>,
    /// Ids that were given out and not used yet.
    issued: HashSet<String>,
    /// The latest change of each file, by its number.
    changes: BTreeMap<u64, String>,
    change: u64,
    /// Tokens of changes before this are not known any more.
    oldest: u64,
    sessions: HashMap<String, Session>,
    oauth: Oauth,
    quota: Option<u64>,
    /// Requests in a second that are served.
    rate: Option<u32>,
    window: (Instant, u32),
    faults: Faults,
    is_cut: bool,
    /// Bytes in a second that uploads may bring.
    throttle: Option<u64>,
    calls: Vec<Call>,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    number: u64,
}

/// How much goes wrong.
#[derive(Default)]
struct Faults {
    /// Of a thousand requests.
    share: u32,
    chance: u64,
    /// In a row, by kind of call.
    in_a_row: HashMap<String, u32>,
    next: Option<(&'static str, u16, &'static str, u32)>,
}

impl Server {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DriveApi {
    /// Starts one, empty.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
        listener.set_nonblocking(true).expect("set");
        let addr = listener.local_addr().expect("an address");
        let state = State {
            files: files::roots(),
            issued: HashSet::new(),
            changes: BTreeMap::new(),
            change: 1,
            oldest: 0,
            sessions: HashMap::new(),
            oauth: Oauth::default(),
            quota: None,
            rate: None,
            window: (Instant::now(), 0),
            faults: Faults::default(),
            is_cut: false,
            throttle: None,
            calls: Vec::new(),
            kept: Vec::new(),
            kept_bytes: 0,
            number: 0,
        };
        let server = Arc::new(Server {
            state: Mutex::new(state),
        });
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let serving = Arc::clone(&server);
        runtime.spawn(async move {
            serve::listen(listener, addr, serving).await;
        });
        Self {
            addr,
            server,
            runtime: Some(runtime),
        }
    }

    /// Returns its address.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns what stands for a person's consent, as a node stores it: to the whole Drive, or to what the program makes there.
    pub(crate) fn refresh_token(&self, all: bool) -> String {
        self.server.lock().oauth.consent(all)
    }

    /// Has a share of all requests fail, in thousandths, in every documented way.
    pub(crate) fn faults(&self, share: u32, seed: u64) {
        let mut state = self.server.lock();
        state.faults.share = share;
        // Seeds beside each other begin far apart.
        state.faults.chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    }

    /// Has the next calls of a kind be refused with a code and a reason.
    pub(crate) fn refuse_next(
        &self,
        kind: &'static str,
        code: u16,
        reason: &'static str,
        times: u32,
    ) {
        self.server.lock().faults.next = Some((kind, code, reason, times));
    }

    /// Makes it unreachable, or reachable again.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.server.lock().is_cut = is_cut;
    }

    /// Says how many bytes there is room for.
    pub(crate) fn quota(&self, bytes: Option<u64>) {
        self.server.lock().quota = bytes;
    }

    /// Says how many requests are served in a second.
    pub(crate) fn rate(&self, requests: Option<u32>) {
        self.server.lock().rate = requests;
    }

    /// Says how many bytes of uploads are taken in a second.
    pub(crate) fn throttle(&self, bytes: Option<u64>) {
        self.server.lock().throttle = bytes;
    }

    /// Withdraws the consent, as a person does in the settings of the account.
    pub(crate) fn revoke(&self) {
        self.server.lock().oauth.revoke();
    }

    /// Has all tokens for calls be good no more.
    pub(crate) fn expire_tokens(&self) {
        self.server.lock().oauth.expire();
    }

    /// Answers the question that a device code stands for.
    pub(crate) fn person_consents(&self, yes: bool) {
        self.server.lock().oauth.answer(yes);
    }

    /// Forgets where the changes went on before now.
    pub(crate) fn forget_changes(&self) {
        let mut state = self.server.lock();
        state.oldest = state.change + 1;
        state.change += 1;
    }

    /// Has all begun uploads be gone.
    pub(crate) fn forget_sessions(&self) {
        self.server.lock().sessions.clear();
    }

    /// Returns the calls so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.server.lock().calls.clone()
    }

    /// Forgets the calls so far, and returns them.
    pub(crate) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.server.lock().calls)
    }

    /// Says whether these bytes ever came, in a request line, a header or a body.
    pub(crate) fn saw(&self, needle: &str) -> bool {
        let state = self.server.lock();
        assert!(state.kept_bytes < KEPT_BYTES_MAX, "more came than is kept");
        let needle = needle.as_bytes();
        // Pieces of one file come one after another.
        let mut before: Vec<u8> = Vec::new();
        for body in &state.kept {
            before.extend_from_slice(body);
            if before.windows(needle.len()).any(|found| found == needle) {
                return true;
            }
            let rest = before.len().saturating_sub(needle.len());
            before.drain(..rest);
        }
        false
    }

    /// Returns how many bytes the uploads have that are not over.
    pub(crate) fn uploading(&self) -> u64 {
        let state = self.server.lock();
        let sessions = state.sessions.values();
        sessions.map(|session| session.bytes.len() as u64).sum()
    }

    /// Returns the folder of a name in the person's Drive.
    pub(crate) fn folder(&self, name: &str) -> Option<String> {
        let state = self.server.lock();
        let found = state.files.values().find(|file| {
            file.name == name && file.parent == MY_DRIVE && !state.is_trashed(&file.id)
        });
        found.map(|file| file.id.clone())
    }

    /// Returns what a person sees below a folder, in order.
    pub(crate) fn seen(&self, folder: &str) -> Vec<Seen> {
        let state = self.server.lock();
        let mut seen = Vec::new();
        let mut left = vec![(String::new(), folder.to_owned())];
        while let Some((above, id)) = left.pop() {
            for file in state.files.values() {
                if file.parent != id || state.is_trashed(&file.id) {
                    continue;
                }
                let path = match above.as_str() {
                    "" => file.name.clone(),
                    above => format!("{above}/{}", file.name),
                };
                if file.mime == FOLDER {
                    left.push((path.clone(), file.id.clone()));
                }
                seen.push(Seen {
                    path,
                    id: file.id.clone(),
                    bytes: file.bytes.clone(),
                });
            }
        }
        seen.sort_by(|a, b| a.path.cmp(&b.path).then_with(|| a.id.cmp(&b.id)));
        seen
    }

    /// Returns the id of what a person sees at a path below a folder.
    #[track_caller]
    pub(crate) fn id(&self, folder: &str, path: &str) -> String {
        let seen = self.seen(folder);
        let found = seen.iter().find(|seen| seen.path == path);
        found
            .unwrap_or_else(|| panic!("no {path} in {seen:?}"))
            .id
            .clone()
    }

    /// Returns the bytes at a path below a folder.
    pub(crate) fn bytes(&self, folder: &str, path: &str) -> Option<Bytes> {
        let seen = self.seen(folder);
        seen.into_iter().find(|seen| seen.path == path)?.bytes
    }

    /// Returns the properties of a file.
    pub(crate) fn properties(&self, id: &str) -> BTreeMap<String, String> {
        let state = self.server.lock();
        state
            .files
            .get(id)
            .map(|file| file.properties.clone())
            .unwrap_or_default()
    }

    /// Returns how many files lie in the trash by themselves.
    pub(crate) fn trashed(&self) -> usize {
        let state = self.server.lock();
        state.files.values().filter(|file| file.is_trashed).count()
    }

    /// Makes a file, as a person does.
    pub(crate) fn person_makes(&self, folder: &str, name: &str, bytes: &[u8]) -> String {
        let mut state = self.server.lock();
        let id = state.new_id();
        let bytes = Bytes::copy_from_slice(bytes);
        let file = Stored::new(&id, name, "text/plain", folder).with_bytes(bytes);
        state.put(file);
        id
    }

    /// Makes a folder, or a document without bytes, as a person does.
    pub(crate) fn person_makes_kind(&self, folder: &str, name: &str, kind: &str) -> String {
        let mut state = self.server.lock();
        let id = state.new_id();
        let mime = format!("application/vnd.google-apps.{kind}");
        state.put(Stored::new(&id, name, &mime, folder));
        id
    }

    /// Uploads a new version; what the program noted beside the file stays.
    #[track_caller]
    pub(crate) fn person_edits(&self, id: &str, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.change(id, |file| *file = file.clone().with_bytes(bytes));
    }

    /// Gives a file another name.
    #[track_caller]
    pub(crate) fn person_renames(&self, id: &str, name: &str) {
        self.change(id, |file| name.clone_into(&mut file.name));
    }

    /// Moves a file to another folder.
    #[track_caller]
    pub(crate) fn person_moves(&self, id: &str, folder: &str) {
        self.change(id, |file| folder.clone_into(&mut file.parent));
    }

    /// Moves a file, or a folder, to the trash, or brings it back.
    #[track_caller]
    pub(crate) fn person_trashes(&self, id: &str, is_trashed: bool) {
        self.change(id, |file| file.is_trashed = is_trashed);
    }

    /// Takes access away.
    #[track_caller]
    pub(crate) fn person_unshares(&self, id: &str) {
        self.change(id, |file| file.is_unshared = true);
    }

    #[track_caller]
    fn change(&self, id: &str, change: impl FnOnce(&mut Stored)) {
        let mut state = self.server.lock();
        let mut file = state.files.get(id).expect("a file of that id").clone();
        change(&mut file);
        state.put(file);
    }
}

impl Drop for DriveApi {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(SHUTDOWN_MAX);
        }
    }
}
