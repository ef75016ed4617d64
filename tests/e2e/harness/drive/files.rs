//! Files: what is stored, who sees it, how it changes, and the searches over it.

use std::collections::BTreeMap;

use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use super::json::{Refusal, refuse};
use super::oauth::Caller;
use super::{FOLDER, MY_DRIVE, SHARED_DRIVE, State};

/// Longest key and value of a property together, and most of them on a file.
const PROPERTY_BYTES_MAX: usize = 124;
const PROPERTIES_MAX: usize = 30;
const TIME: &str = "2026-11-22T21:14:05.000Z";

/// One file or folder.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) mime: String,
    pub(super) parent: String,
    /// By itself; what lies in a folder in the trash is there as well.
    pub(super) is_trashed: bool,
    pub(super) is_unshared: bool,
    /// Whether the program made it, so that it is seen with the narrow scope.
    pub(super) is_of_app: bool,
    pub(super) bytes: Option<Bytes>,
    sum: Option<String>,
    pub(super) version: u64,
    pub(super) modified: String,
    pub(super) properties: BTreeMap<String, String>,
}

/// The top folders of both drives.
pub(super) fn roots() -> BTreeMap<String, Stored> {
    let root = |id: &str, name| (id.to_owned(), Stored::new(id, name, FOLDER, ""));
    BTreeMap::from([root(MY_DRIVE, "My Drive"), root(SHARED_DRIVE, "Shared")])
}

impl Stored {
    pub(super) fn new(id: &str, name: &str, mime: &str, parent: &str) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            mime: mime.to_owned(),
            parent: parent.to_owned(),
            is_trashed: false,
            is_unshared: false,
            is_of_app: false,
            bytes: None,
            sum: None,
            version: 0,
            modified: TIME.to_owned(),
            properties: BTreeMap::new(),
        }
    }

    pub(super) fn with_bytes(mut self, bytes: Bytes) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
        self.sum = Some(hex.collect());
        self.bytes = Some(bytes);
        self
    }

    pub(super) fn json(&self, state: &State) -> Value {
        let mut file = json!({
            "kind": "drive#file",
            "id": self.id,
            "name": self.name,
            "mimeType": self.mime,
            "parents": [self.parent],
            "trashed": state.is_trashed(&self.id),
            "explicitlyTrashed": self.is_trashed,
            "version": self.version.to_string(),
            "createdTime": TIME,
            "modifiedTime": self.modified,
            "ownedByMe": true,
        });
        if !self.properties.is_empty() {
            file["appProperties"] = json!(self.properties);
        }
        if let (Some(bytes), Some(sum)) = (&self.bytes, &self.sum) {
            file["size"] = json!(bytes.len().to_string());
            file["sha256Checksum"] = json!(sum);
            file["headRevisionId"] = json!(format!("{}-{}", self.id, self.version));
        }
        file
    }

    /// Takes what a request says of a file.
    pub(super) fn take(&mut self, body: &Value) -> Result<(), Refusal> {
        let text = |key: &str| body[key].as_str().map(ToOwned::to_owned);
        if let Some(name) = text("name") {
            self.name = name;
        }
        if let Some(mime) = text("mimeType") {
            self.mime = mime;
        }
        if let Some(modified) = text("modifiedTime") {
            self.modified = modified;
        }
        if let Some(trashed) = body["trashed"].as_bool() {
            self.is_trashed = trashed;
        }
        for (key, value) in body["appProperties"].as_object().unwrap_or(&Map::new()) {
            let Some(value) = value.as_str() else {
                self.properties.remove(key);
                continue;
            };
            if key.len() + value.len() > PROPERTY_BYTES_MAX {
                return Err(refuse(403, "propertyLengthExceeded"));
            }
            self.properties.insert(key.clone(), value.to_owned());
        }
        if self.properties.len() > PROPERTIES_MAX {
            return Err(refuse(403, "propertiesCountExceeded"));
        }
        Ok(())
    }
}

impl State {
    pub(super) fn new_id(&mut self) -> String {
        self.number += 1;
        // Not in the order in which they are made.
        let mixed = self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("1{mixed:016x}{:x}", self.number)
    }

    /// Stores a file, which counts as a change of it.
    pub(super) fn put(&mut self, mut file: Stored) {
        self.change += 1;
        let (number, id) = (self.change, file.id.clone());
        self.changes.retain(|_, other| *other != id);
        self.changes.insert(number, id.clone());
        file.version += 1;
        self.files.insert(id, file);
    }

    /// Says whether a file, or a folder above it, lies in the trash.
    pub(super) fn is_trashed(&self, id: &str) -> bool {
        let mut at = self.files.get(id);
        while let Some(file) = at {
            if file.is_trashed {
                return true;
            }
            at = self.files.get(&file.parent);
        }
        false
    }

    fn is_unshared(&self, id: &str) -> bool {
        let mut at = self.files.get(id);
        while let Some(file) = at {
            if file.is_unshared {
                return true;
            }
            at = self.files.get(&file.parent);
        }
        false
    }

    pub(super) fn is_in_shared_drive(&self, id: &str) -> bool {
        let mut at = self.files.get(id);
        while let Some(file) = at {
            if file.id == SHARED_DRIVE {
                return true;
            }
            at = self.files.get(&file.parent);
        }
        false
    }

    /// Says whether a caller sees a file.
    pub(super) fn sees(&self, caller: &Caller, id: &str, all_drives: bool) -> bool {
        let Some(file) = self.files.get(id) else {
            return false;
        };
        let is_root = id == MY_DRIVE || id == SHARED_DRIVE;
        let by_scope = caller.sees_all || file.is_of_app || is_root;
        let by_drive = all_drives || !self.is_in_shared_drive(id);
        by_scope && by_drive && !self.is_unshared(id)
    }

    /// Returns a file that a caller sees.
    pub(super) fn file(
        &self,
        caller: &Caller,
        id: &str,
        query: &[(String, String)],
    ) -> Result<Stored, Refusal> {
        let id = if id == "root" { MY_DRIVE } else { id };
        if self.sees(caller, id, flag(query, "supportsAllDrives"))
            && let Some(file) = self.files.get(id)
        {
            return Ok(file.clone());
        }
        Err(refuse(404, "notFound"))
    }

    /// Makes a new file out of what a request says; it is not stored yet.
    pub(super) fn make(
        &mut self,
        caller: &Caller,
        body: &Value,
        query: &[(String, String)],
    ) -> Result<Stored, Refusal> {
        let parent = body["parents"][0].as_str().unwrap_or(MY_DRIVE);
        let parent = self.file(caller, parent, query)?;
        if parent.mime != FOLDER {
            return Err(refuse(403, "parentNotAFolder"));
        }
        if caller.is_service && !self.is_in_shared_drive(&parent.id) {
            return Err(refuse(403, "storageQuotaExceeded"));
        }
        let id = match body["id"].as_str() {
            Some(id) if self.files.contains_key(id) => return Err(refuse(409, "fileIdInUse")),
            Some(id) if !self.issued.contains(id) => return Err(refuse(400, "invalid")),
            Some(id) => id.to_owned(),
            None => self.new_id(),
        };
        let mut file = Stored::new(&id, "Untitled", "application/octet-stream", &parent.id);
        file.is_of_app = true;
        file.take(body)?;
        Ok(file)
    }

    /// Says whether there is room for more bytes.
    pub(super) fn has_room(&self, more: usize) -> Result<(), Refusal> {
        let files = self.files.values();
        let used: usize = files
            .filter_map(|file| file.bytes.as_ref().map(Bytes::len))
            .sum();
        match self.quota {
            Some(quota) if (used + more) as u64 > quota => Err(refuse(403, "storageQuotaExceeded")),
            _ => Ok(()),
        }
    }

    /// Returns the ids that a search finds, in order.
    pub(super) fn search(
        &self,
        caller: &Caller,
        query: &[(String, String)],
    ) -> Result<Vec<String>, Refusal> {
        let terms = value(query, "q").unwrap_or_default();
        let terms = terms_of(&terms);
        let all_drives =
            flag(query, "supportsAllDrives") && flag(query, "includeItemsFromAllDrives");
        let shared = value(query, "driveId");
        if shared.is_some() && value(query, "corpora").as_deref() != Some("drive") {
            return Err(refuse(403, "teamDrivesParentLimit"));
        }
        let mut found = Vec::new();
        for file in self.files.values() {
            let is_root = file.parent.is_empty();
            let is_there = match &shared {
                Some(_) => self.is_in_shared_drive(&file.id),
                None => !self.is_in_shared_drive(&file.id),
            };
            if is_root || !is_there || !self.sees(caller, &file.id, all_drives) {
                continue;
            }
            let mut fits = true;
            for term in &terms {
                fits &= self.fits(file, term)?;
            }
            if fits {
                found.push(file.id.clone());
            }
        }
        Ok(found)
    }

    fn fits(&self, file: &Stored, term: &str) -> Result<bool, Refusal> {
        let quoted = |text: &str| -> Option<String> {
            let inner = text.trim().strip_prefix('\'')?.strip_suffix('\'')?;
            Some(inner.replace("\\'", "'").replace("\\\\", "\\"))
        };
        let bad = || refuse(400, "invalid");
        if let Some(parent) = term.strip_suffix(" in parents") {
            return Ok(quoted(parent).ok_or_else(bad)? == file.parent);
        }
        if let Some(rest) = term.strip_prefix("appProperties has {") {
            let inner = rest.trim().strip_suffix('}').ok_or_else(bad)?;
            let key = inner
                .split("key='")
                .nth(1)
                .and_then(|rest| rest.split('\'').next());
            let value = inner
                .split("value='")
                .nth(1)
                .and_then(|rest| rest.split('\'').next());
            let (key, value) = key.zip(value).ok_or_else(bad)?;
            return Ok(file.properties.get(key).is_some_and(|found| found == value));
        }
        let (key, rest) = term.split_once(['=', '!']).ok_or_else(bad)?;
        let is_not = term[key.len()..].starts_with('!');
        let rest = rest.trim_start_matches('=').trim();
        let is = match key.trim() {
            "trashed" => self.is_trashed(&file.id) == (rest == "true"),
            "name" => quoted(rest).ok_or_else(bad)? == file.name,
            "mimeType" => quoted(rest).ok_or_else(bad)? == file.mime,
            _ => return Err(bad()),
        };
        Ok(is != is_not)
    }
}

/// Splits a search at each `and` that stands in no braces.
fn terms_of(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut depth = 0;
    for word in text.split_whitespace() {
        depth += word.matches('{').count();
        depth -= word.matches('}').count();
        match terms.last_mut() {
            Some(_) if word == "and" && depth == 0 => terms.push(String::new()),
            Some(term) => {
                if !term.is_empty() {
                    term.push(' ');
                }
                term.push_str(word);
            }
            None => {}
        }
    }
    terms.retain(|term| !term.is_empty());
    terms
}

/// Returns a value of a query.
pub(super) fn value(query: &[(String, String)], key: &str) -> Option<String> {
    let found = query.iter().find(|(name, _)| name == key);
    found.map(|(_, value)| value.clone())
}

/// Says whether a value of a query is `true`.
pub(super) fn flag(query: &[(String, String)], key: &str) -> bool {
    value(query, key).as_deref() == Some("true")
}
