//! The target `drive`: a folder in Google Drive, through the documented v3 interface.
//!
//! The facts behind it: names are not unique, so everything goes by id, and new items get ids that were asked for before, so that a
//! creation that is asked for twice makes one item. There are no conditions on a write, so an item is looked at before it is replaced;
//! Drive keeps what was replaced as a revision. What is removed goes to the trash. What we say of a copy are its
//! `appProperties`, which nobody but this program sees; they stay when a person uploads a new version, and then the SHA-256 in
//! them is not that of the bytes any more.

mod call;
pub mod consent;
mod upload;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::Cursor;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use google_drive3::DriveHub;
use google_drive3::api::File;
use google_drive3::common::{self, Body, Response};
use google_drive3::hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RANGE};
use google_drive3::hyper::{HeaderMap, Method, Request, StatusCode};
use google_drive3::hyper_util::client::legacy::Client;
use http_body_util::BodyExt;
use hyper::body::Bytes as Chunk;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use shared::mirror::{Mark, unhex};

use crate::target::{About, At, Change, Item, Kind, Page, Reading, Target, Writing, Wrong};
use call::{Ear, chain};
use consent::{Connector, Credentials, Tokens, connector};

/// What is asked for of each item.
const FIELDS: &str =
    "id,name,mimeType,parents,trashed,size,sha256Checksum,version,modifiedTime,appProperties";
/// The kind of a folder.
const FOLDER: &str = "application/vnd.google-apps.folder";
/// Kinds of this beginning have no bytes.
const NATIVE: &str = "application/vnd.google-apps.";
/// Items in one page of a listing: Drive's limit.
const PAGE_ITEMS: i32 = 1000;
/// Longest file that goes in one request; Drive takes 5 MB.
const WHOLE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most ids that are asked for at a time: Drive's limit.
const IDS_MAX: i32 = 1000;
/// What says that a folder is a mirror, among its properties.
const ROOT_KEY: &str = "layersync";
/// How long one request may take. A long file goes in several.
const CALL_WAIT: Duration = Duration::from_secs(120);
/// How long a download may bring nothing.
const READ_WAIT: Duration = Duration::from_secs(60);

/// Where the mirror is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Where {
    /// The name of its folder.
    pub folder: String,
    /// The shared drive that the folder lies in; `None` for that of the person.
    pub drive: Option<String>,
    /// Where Drive is: [`consent::GOOGLE`].
    pub api: String,
    /// Requests in a minute.
    pub budget: u32,
    /// What the folder was known by before, if it was.
    pub expected: Option<String>,
    /// Whether it is made when there is none.
    pub makes: bool,
}

/// A folder in Drive that is the mirror.
pub struct Drive {
    hub: DriveHub<Connector>,
    tokens: Tokens,
    place: Where,
    root: RefCell<Option<String>>,
    /// Ids for new items.
    ids: RefCell<Vec<String>>,
    /// The ids that were taken for writings that are not over, by their numbers.
    taken: RefCell<HashMap<u64, String>>,
    expected: Cell<usize>,
    budget: RefCell<Budget>,
}

/// Requests that may go at once.
struct Budget {
    left: f64,
    at: Instant,
}

impl Drive {
    /// Takes a folder in Drive as the target.
    ///
    /// # Errors
    /// [`Wrong::NoConsent`] when the credentials are none.
    pub async fn new(place: Where, credentials: Credentials) -> Result<Self, Wrong> {
        let tokens = Tokens::new(credentials).await?;
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(90))
            .build(connector());
        let mut hub = DriveHub::new(client, tokens.clone());
        hub.user_agent(format!("layer-sync/{}", env!("CARGO_PKG_VERSION")));
        hub.base_url(format!("{}/drive/v3/", place.api));
        hub.root_url(format!("{}/", place.api));
        let budget = Budget {
            left: f64::from(place.budget) / 6.0,
            at: Instant::now(),
        };
        Ok(Self {
            hub,
            tokens,
            place,
            root: RefCell::default(),
            ids: RefCell::default(),
            taken: RefCell::default(),
            expected: Cell::new(0),
            budget: RefCell::new(budget),
        })
    }

    /// Waits until one more request is within the budget.
    async fn spend(&self) {
        let wait = {
            let mut budget = self.budget.borrow_mut();
            let a_second = f64::from(self.place.budget) / 60.0;
            let now = Instant::now();
            let more = now.duration_since(budget.at).as_secs_f64() * a_second;
            // What ten seconds allow may go at once.
            budget.left = (budget.left + more).min(a_second * 10.0) - 1.0;
            budget.at = now;
            Duration::from_secs_f64((-budget.left / a_second).max(0.0))
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Waits for a call of the generated client, and says what its failure means.
    async fn call<T>(
        &self,
        mut ear: Ear,
        call: impl AsyncFnOnce(&mut Ear) -> common::Result<(Response, T)>,
    ) -> Result<T, Wrong> {
        self.spend().await;
        let called = tokio::time::timeout(CALL_WAIT, call(&mut ear)).await;
        match called {
            Ok(Ok((_, answer))) => Ok(answer),
            Ok(Err(error)) => {
                if ear.status == Some(StatusCode::UNAUTHORIZED) {
                    self.tokens.spent();
                }
                Err(ear.wrong(error))
            }
            Err(_) => Err(Wrong::Unreachable("no answer came in time".to_owned())),
        }
    }

    /// Sends a request of our own: what the generated client has no way for.
    async fn send(
        &self,
        method: Method,
        uri: &str,
        headers: HeaderMap,
        body: Chunk,
    ) -> Result<Response, Wrong> {
        self.spend().await;
        let token = self.tokens.token().await?;
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header(CONTENT_LENGTH, body.len());
        if let Some(all) = request.headers_mut() {
            all.extend(headers);
        }
        let request = request
            .body(common::to_body(Some(body)))
            .map_err(|error| Wrong::Nonsense(error.to_string()))?;
        let sent = tokio::time::timeout(CALL_WAIT, self.hub.client.request(request)).await;
        let answer = sent
            .map_err(|_| Wrong::Unreachable("no answer came in time".to_owned()))?
            .map_err(|error| Wrong::Unreachable(chain(&error)))?;
        Ok(answer.map(Body::new))
    }

    /// Says what an answer of [`Drive::send`] that is no success means.
    async fn refusal(&self, answer: Response) -> Wrong {
        let mut ear = Ear::default();
        ear.hear(&answer);
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.tokens.spent();
        }
        let body = common::to_bytes(answer.into_body()).await;
        let body = body.and_then(|body| serde_json::from_slice(&body).ok());
        ear.refusal(&body.unwrap_or(Value::Null))
    }

    async fn file_of(&self, answer: Response) -> Result<File, Wrong> {
        if !answer.status().is_success() {
            return Err(self.refusal(answer).await);
        }
        let body = answer.into_body().collect().await;
        let body = body.map_err(|error| Wrong::Unreachable(error.to_string()))?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| Wrong::Nonsense(error.to_string()))
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> String {
        let mut url = format!("{}/{path}?supportsAllDrives=true", self.place.api);
        for (key, value) in query {
            url += &format!("&{key}={value}");
        }
        url
    }

    async fn get(&self, id: &str) -> Result<File, Wrong> {
        self.call(Ear::default(), async |ear| {
            let call = self.hub.files().get(id).supports_all_drives(true);
            call.param("fields", FIELDS).delegate(ear).doit().await
        })
        .await
    }

    /// Returns one page of a listing.
    async fn list(
        &self,
        query: &str,
        page: Option<&str>,
    ) -> Result<(Vec<File>, Option<String>), Wrong> {
        let list = self
            .call(Ear::default(), async |ear| {
                let mut call = self
                    .hub
                    .files()
                    .list()
                    .q(query)
                    .page_size(PAGE_ITEMS)
                    .supports_all_drives(true)
                    .include_items_from_all_drives(true);
                call = match &self.place.drive {
                    Some(drive) => call.corpora("drive").drive_id(drive),
                    None => call.corpora("user"),
                };
                if let Some(page) = page {
                    call = call.page_token(page);
                }
                let fields = format!("nextPageToken,files({FIELDS})");
                call.param("fields", &fields).delegate(ear).doit().await
            })
            .await?;
        Ok((list.files.unwrap_or_default(), list.next_page_token))
    }

    /// Returns an id for a new item. The same for one writing, however often it is asked.
    async fn id_for(&self, writing: u64) -> Result<String, Wrong> {
        if let Some(id) = self.taken.borrow().get(&writing) {
            return Ok(id.clone());
        }
        if self.ids.borrow().is_empty() {
            let wanted = i32::try_from(self.expected.get()).unwrap_or(IDS_MAX);
            let made = self
                .call(Ear::default(), async |ear| {
                    let call = self.hub.files().generate_ids();
                    let call = call.count(wanted.clamp(1, IDS_MAX)).space("drive");
                    call.delegate(ear).doit().await
                })
                .await?;
            *self.ids.borrow_mut() = made.ids.unwrap_or_default();
        }
        let id = self.ids.borrow_mut().pop();
        let id = id.ok_or_else(|| Wrong::Nonsense("no ids came".to_owned()))?;
        self.expected.set(self.expected.get().saturating_sub(1));
        self.taken.borrow_mut().insert(writing, id.clone());
        Ok(id)
    }

    /// Takes it that an item of an id is there already: an earlier try has made it, or it is somebody else's.
    async fn made_before(&self, id: &str, mark: &Mark) -> Result<Item, Wrong> {
        let item = self.look(id).await?.ok_or(Wrong::Changed)?;
        if is_written(&item, mark) {
            Ok(item)
        } else {
            Err(Wrong::Changed)
        }
    }

    async fn make_root(&self) -> Result<String, Wrong> {
        let id = self.id_for(0).await?;
        let parent = self.place.drive.clone().unwrap_or("root".to_owned());
        let body = json!({
            "id": id,
            "name": self.place.folder,
            "mimeType": FOLDER,
            "parents": [parent],
            "appProperties": { ROOT_KEY: "root" },
        });
        match self.post(&body).await {
            Ok(_) => {}
            // An earlier try has made it.
            Err(Wrong::Changed) => drop(self.get(&id).await?),
            Err(wrong) => return Err(wrong),
        }
        self.taken.borrow_mut().remove(&0);
        Ok(id)
    }

    /// Makes an item that has no bytes.
    async fn post(&self, body: &Value) -> Result<File, Wrong> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, upload::value("application/json"));
        let url = self.url("drive/v3/files", &[("fields", FIELDS)]);
        let answer = self
            .send(Method::POST, &url, headers, body.to_string().into())
            .await?;
        self.file_of(answer).await
    }

    async fn patch(
        &self,
        id: &str,
        file: File,
        parents: Option<(&str, &str)>,
    ) -> Result<File, Wrong> {
        self.call(Ear::default(), async |ear| {
            let mut call = self.hub.files().update(file, id).supports_all_drives(true);
            if let Some((add, remove)) = parents {
                call = call.add_parents(add).remove_parents(remove);
            }
            let call = call.param("fields", FIELDS).delegate(ear);
            call.doit_without_upload().await
        })
        .await
    }

    /// Writes a file in one request.
    async fn write_whole(&self, writing: &Writing<'_>, id: &str) -> Result<File, Wrong> {
        let len = usize::try_from(writing.bytes.len()).unwrap_or(0);
        let mut bytes = vec![0; len];
        if writing.bytes.read_at(0, &mut bytes)? < len || !writing.bytes.rests()? {
            return Err(Wrong::Changed);
        }
        let kind = mime_of(writing.at.name);
        let file = self.metadata(writing, id);
        self.call(Ear::default(), async |ear| {
            let bytes = Cursor::new(bytes);
            if writing.over.is_some() {
                let call = self.hub.files().update(file, id).supports_all_drives(true);
                let call = call.param("fields", FIELDS).delegate(ear);
                call.upload(bytes, kind).await
            } else {
                let call = self.hub.files().create(file).supports_all_drives(true);
                let call = call.param("fields", FIELDS).delegate(ear);
                call.upload(bytes, kind).await
            }
        })
        .await
    }

    /// Returns what is said of a file that is written.
    fn metadata(&self, writing: &Writing<'_>, id: &str) -> File {
        let modified = (writing.mtime_ns != 0)
            .then(|| DateTime::<Utc>::from_timestamp_nanos(writing.mtime_ns));
        let mut file = File {
            app_properties: Some(writing.mark.properties().into_iter().collect()),
            modified_time: modified,
            ..File::default()
        };
        if writing.over.is_none() {
            file.id = Some(id.to_owned());
            file.name = Some(writing.at.name.to_owned());
            file.parents = Some(vec![writing.at.parent.to_owned()]);
        }
        file
    }

    /// Returns the token of the changes from now on.
    async fn start(&self) -> Result<String, Wrong> {
        let start = self
            .call(Ear::default(), async |ear| {
                let mut call = self
                    .hub
                    .changes()
                    .get_start_page_token()
                    .supports_all_drives(true);
                if let Some(drive) = &self.place.drive {
                    call = call.drive_id(drive);
                }
                call.delegate(ear).doit().await
            })
            .await?;
        let token = start.start_page_token;
        token.ok_or_else(|| Wrong::Nonsense("no token of the changes came".to_owned()))
    }

    async fn listing(&self, start: &str, page: Option<&str>) -> Result<Page, Wrong> {
        let (files, next) = match self.list("trashed = false", page).await {
            // The listing has to begin anew.
            Err(Wrong::Refused(_) | Wrong::Gone) if page.is_some() => {
                return Err(Wrong::CursorLost);
            }
            listed => listed?,
        };
        let changes = files.into_iter().filter_map(item).map(Change::Is);
        Ok(Page {
            changes: changes.collect(),
            more: next.is_some(),
            cursor: match next {
                Some(next) => format!("list {start} {next}"),
                None => format!("from {start}"),
            },
            listing: true,
        })
    }

    async fn changes_from(&self, token: &str) -> Result<Page, Wrong> {
        let asked = self
            .call(Ear::default(), async |ear| {
                let mut call = self
                    .hub
                    .changes()
                    .list(token)
                    .page_size(PAGE_ITEMS)
                    .include_removed(true)
                    .supports_all_drives(true)
                    .include_items_from_all_drives(true);
                if let Some(drive) = &self.place.drive {
                    call = call.drive_id(drive);
                }
                let fields = format!(
                    "nextPageToken,newStartPageToken,changes(fileId,removed,file({FIELDS}))"
                );
                call.param("fields", &fields).delegate(ear).doit().await
            })
            .await;
        let list = match asked {
            // A token that is too old, or of another account.
            Err(Wrong::Refused(_) | Wrong::Gone) => return Err(Wrong::CursorLost),
            list => list?,
        };
        let change = |change: google_drive3::api::Change| {
            let id = change.file_id?;
            let is_there = change.removed != Some(true);
            let file = change
                .file
                .filter(|file| is_there && file.trashed != Some(true));
            Some(match file.and_then(item) {
                Some(item) => Change::Is(item),
                None => Change::Gone(id),
            })
        };
        let changes = list.changes.unwrap_or_default().into_iter();
        let more = list.next_page_token.is_some();
        let next = list.next_page_token.or(list.new_start_page_token);
        let next = next.ok_or_else(|| Wrong::Nonsense("no next token came".to_owned()))?;
        Ok(Page {
            changes: changes.filter_map(change).collect(),
            cursor: format!("from {next}"),
            more,
            listing: false,
        })
    }

    /// Finds the folder, or makes it.
    async fn find_root(&self) -> Result<String, Wrong> {
        let gone = |text: &str| {
            let text = format!("\"{}\" {text}", self.place.folder);
            Err(Wrong::NoRoot(text))
        };
        if let Some(expected) = &self.place.expected {
            return match self.get(expected).await {
                Ok(file) if file.trashed == Some(true) => gone("lies in the trash"),
                Ok(_) => Ok(expected.clone()),
                Err(Wrong::Gone) => {
                    gone("was deleted, or is not shared with this account any more")
                }
                Err(wrong) => Err(wrong),
            };
        }
        let name = self.place.folder.replace('\\', "\\\\").replace('\'', "\\'");
        let query = format!(
            "name = '{name}' and trashed = false and appProperties has {{ key='{ROOT_KEY}' and value='root' }}"
        );
        let (found, _) = self.list(&query, None).await?;
        // Two nodes may have made one each at the same time: both take the same one.
        match found.into_iter().filter_map(|file| file.id).min() {
            Some(id) => Ok(id),
            None if self.place.makes => self.make_root().await,
            None => gone("is not there: there is no mirror of that name"),
        }
    }
}

impl Target for Drive {
    type Reading = DriveReading;

    async fn root(&self) -> Result<String, Wrong> {
        if let Some(root) = self.root.borrow().clone() {
            return Ok(root);
        }
        let root = self.find_root().await?;
        *self.root.borrow_mut() = Some(root.clone());
        Ok(root)
    }

    async fn about(&self) -> Result<About, Wrong> {
        let about = self
            .call(Ear::default(), async |ear| {
                let call = self.hub.about().get();
                let fields = "user(emailAddress),storageQuota(limit,usage)";
                call.param("fields", fields).delegate(ear).doit().await
            })
            .await?;
        let whose = about.user.and_then(|user| user.email_address);
        let (folder, whose) = (&self.place.folder, whose.unwrap_or_default());
        if let Some(drive) = &self.place.drive {
            // The quota is that of the person, which does not count there.
            let name = format!("\"{folder}\" in the shared drive {drive}, as {whose}");
            return Ok(About {
                name,
                ..About::default()
            });
        }
        let quota = about.storage_quota.unwrap_or_default();
        let bytes = |count: Option<i64>| count.map(i64::unsigned_abs);
        Ok(About {
            name: format!("\"{folder}\" in the Drive of {whose}"),
            used: bytes(quota.usage).unwrap_or(0),
            limit: bytes(quota.limit),
        })
    }

    async fn changes(&self, since: Option<&str>) -> Result<Page, Wrong> {
        let mut words = since.unwrap_or_default().splitn(3, ' ');
        let page = match (words.next(), words.next(), words.next()) {
            (Some("from"), Some(token), None) => self.changes_from(token).await?,
            (Some("list"), Some(start), Some(page)) => self.listing(start, Some(page)).await?,
            // What changes while it is listed is heard afterwards.
            _ => self.listing(&self.start().await?, None).await?,
        };
        let root = self.root.borrow().clone();
        let is_root = |change: &Change| match change {
            Change::Gone(id) => Some(id) == root.as_ref(),
            Change::Is(_) => false,
        };
        if page.changes.iter().any(is_root) {
            *self.root.borrow_mut() = None;
            return Err(Wrong::NoRoot(format!(
                "\"{}\" was deleted, or is not shared with this account any more",
                self.place.folder
            )));
        }
        Ok(page)
    }

    async fn children(&self, folder: &str) -> Result<Vec<Item>, Wrong> {
        let query = format!("'{folder}' in parents and trashed = false");
        let mut items = Vec::new();
        let mut page: Option<String> = None;
        loop {
            let (files, next) = self.list(&query, page.as_deref()).await?;
            items.extend(files.into_iter().filter_map(item));
            match next {
                Some(next) => page = Some(next),
                None => return Ok(items),
            }
        }
    }

    async fn look(&self, id: &str) -> Result<Option<Item>, Wrong> {
        match self.get(id).await {
            Ok(file) if file.trashed == Some(true) => Ok(None),
            Ok(file) => Ok(item(file)),
            Err(Wrong::Gone) => Ok(None),
            Err(wrong) => Err(wrong),
        }
    }

    async fn read(&self, item: &Item, from: u64) -> Result<DriveReading, Wrong> {
        let Kind::File { len, .. } = item.kind else {
            return Err(Wrong::Gone);
        };
        let mut headers = HeaderMap::new();
        if from > 0 {
            headers.insert(RANGE, upload::value(&format!("bytes={from}-")));
        }
        let left = len.saturating_sub(from);
        if left == 0 && from > 0 {
            return Ok(DriveReading { body: None, left });
        }
        let url = self.url(&format!("drive/v3/files/{}", item.id), &[("alt", "media")]);
        let answer = self.send(Method::GET, &url, headers, Chunk::new()).await?;
        let is_whole = answer.status() == StatusCode::OK;
        let is_part = answer.status() == StatusCode::PARTIAL_CONTENT;
        if !(is_part && from > 0 || is_whole && from == 0) {
            return Err(match answer.status().is_success() {
                true => Wrong::Nonsense("it did not send the part that was asked for".to_owned()),
                false => self.refusal(answer).await,
            });
        }
        Ok(DriveReading {
            body: Some(answer.into_body()),
            left,
        })
    }

    /// Drive hashes what it has stored, and tells it with the item.
    async fn sum_now(&self, item: &Item) -> Result<Option<[u8; 32]>, Wrong> {
        match item.kind {
            Kind::File { sum, .. } => Ok(sum),
            _ => Ok(None),
        }
    }

    async fn write(&self, writing: Writing<'_>) -> Result<Item, Wrong> {
        let begun = writing.begun.as_deref().and_then(upload::Begun::parse);
        let number = writing.mark.writing;
        let id = match (&writing.over, &begun) {
            (Some(item), _) => item.id.clone(),
            (None, Some(begun)) => begun.id.clone(),
            (None, None) => self.id_for(number).await?,
        };
        let written = if writing.bytes.len() <= WHOLE_BYTES_MAX {
            self.write_whole(&writing, &id).await
        } else {
            self.write_long(&writing, &id, begun).await
        };
        let item = match written {
            Ok(file) => item(file).ok_or(Wrong::Changed)?,
            Err(Wrong::Changed) if writing.over.is_none() => {
                self.made_before(&id, writing.mark).await?
            }
            Err(wrong) => return Err(wrong),
        };
        let sum = match item.kind {
            Kind::File { sum, .. } => sum,
            _ => None,
        };
        if sum.is_some() && sum != writing.mark.sum {
            return Err(Wrong::Nonsense(
                "what arrived there is not what was sent".to_owned(),
            ));
        }
        self.taken.borrow_mut().remove(&number);
        Ok(item)
    }

    async fn make_folder(&self, at: At<'_>, mark: &Mark) -> Result<Item, Wrong> {
        let id = self.id_for(mark.writing).await?;
        let properties: HashMap<String, String> = mark.properties().into_iter().collect();
        let body = json!({
            "id": id,
            "name": at.name,
            "mimeType": FOLDER,
            "parents": [at.parent],
            "appProperties": properties,
        });
        let made = match self.post(&body).await {
            Ok(file) => item(file).ok_or(Wrong::Changed)?,
            Err(Wrong::Changed) => self.made_before(&id, mark).await?,
            Err(wrong) => return Err(wrong),
        };
        self.taken.borrow_mut().remove(&mark.writing);
        Ok(made)
    }

    async fn relocate(&self, item_: &Item, to: At<'_>, mark: &Mark) -> Result<Item, Wrong> {
        let file = File {
            name: Some(to.name.to_owned()),
            app_properties: Some(mark.properties().into_iter().collect()),
            ..File::default()
        };
        let parents = (to.parent != item_.parent).then_some((to.parent, item_.parent.as_str()));
        match self.patch(&item_.id, file, parents).await {
            Ok(file) => item(file).ok_or(Wrong::Changed),
            // An earlier try may have moved it, and then it does not lie where it is to be taken from.
            Err(wrong @ (Wrong::Refused(_) | Wrong::Changed)) => {
                match self.look(&item_.id).await? {
                    Some(now) if is_written(&now, mark) => Ok(now),
                    _ => Err(wrong),
                }
            }
            Err(wrong) => Err(wrong),
        }
    }

    async fn set_mark(&self, item_: &Item, mark: &Mark) -> Result<Item, Wrong> {
        let file = File {
            app_properties: Some(mark.properties().into_iter().collect()),
            ..File::default()
        };
        item(self.patch(&item_.id, file, None).await?).ok_or(Wrong::Changed)
    }

    async fn remove(&self, item: &Item) -> Result<(), Wrong> {
        let file = File {
            trashed: Some(true),
            ..File::default()
        };
        self.patch(&item.id, file, None).await.map(drop)
    }

    fn expect_new(&self, count: usize) {
        self.expected.set(count);
    }
}

/// Says whether an item is as a writing of this mark has left it.
fn is_written(item: &Item, mark: &Mark) -> bool {
    item.mark
        .as_ref()
        .is_some_and(|found| found.writing == mark.writing)
}

/// Reads a download.
pub struct DriveReading {
    body: Option<Body>,
    left: u64,
}

impl Reading for DriveReading {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Wrong> {
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        loop {
            let frame = tokio::time::timeout(READ_WAIT, body.frame()).await;
            let frame =
                frame.map_err(|_| Wrong::Unreachable("the download stands still".to_owned()))?;
            match frame {
                None if self.left > 0 => {
                    return Err(Wrong::Unreachable("the download was cut short".to_owned()));
                }
                None => return Ok(None),
                Some(Err(error)) => return Err(Wrong::Unreachable(chain(&error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.left = self.left.saturating_sub(data.len() as u64);
                        return Ok(Some(data.to_vec()));
                    }
                }
            }
        }
    }
}

/// Returns what a file of Drive is; `None` when it says too little.
fn item(file: File) -> Option<Item> {
    let properties = file.app_properties.unwrap_or_default();
    let mark = Mark::parse(|key| properties.get(key).cloned());
    let mime = file.mime_type.unwrap_or_default();
    let kind = match (mime.as_str(), file.size) {
        (FOLDER, _) => Kind::Folder,
        (mime, None) if mime.starts_with(NATIVE) => {
            let what = mime[NATIVE.len()..].split('.').next().unwrap_or_default();
            Kind::Other(match what {
                "shortcut" => "a shortcut of Drive".to_owned(),
                what => format!("a {what} of Google"),
            })
        }
        (_, len) => Kind::File {
            len: len.unwrap_or(0).unsigned_abs(),
            sum: file.sha256_checksum.as_deref().and_then(unhex),
        },
    };
    let name = file.name.unwrap_or_default();
    // The name as the tree has it, where Drive has another spelling of the same.
    let exact = mark.as_ref().map(|mark| mark.name.clone());
    let name = exact
        .filter(|exact| is_same_text(exact, &name))
        .unwrap_or(name);
    Some(Item {
        id: file.id?,
        parent: file.parents.and_then(|mut parents| parents.pop())?,
        name,
        kind,
        mark,
        version: file.version.unwrap_or(0).to_string(),
        mtime_ns: file
            .modified_time
            .and_then(|time| time.timestamp_nanos_opt())
            .unwrap_or(0),
    })
}

/// Says whether two names differ in normalization at most. A change of case alone keeps the length, and is a person's.
fn is_same_text(a: &str, b: &str) -> bool {
    let key = |name: &str| {
        shared::path::RelPath::parse(name)
            .ok()
            .map(|path| path.folded_key())
    };
    a == b || key(a).is_some_and(|key_a| Some(key_a) == key(b)) && a.len() != b.len()
}

/// Returns what Drive is told of the kind of a file, so that a person can open it there.
fn mime_of(name: &str) -> mime::Mime {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let kind = match ending.to_ascii_lowercase().as_str() {
        "md" | "markdown" => "text/markdown",
        "txt" | "log" | "jsonl" => "text/plain",
        "json" => "application/json",
        "csv" => "text/csv",
        "html" | "htm" => "text/html",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "mov" => "video/quicktime",
        _ => "application/octet-stream",
    };
    kind.parse().unwrap_or(mime::APPLICATION_OCTET_STREAM)
}
