//! Store: what this machine remembers of one target, in one SQLite file in the node's home.
//!
//! | Table | Holds | When it is lost |
//! | --- | --- | --- |
//! | `items` | what the target was heard to hold | everything is listed again |
//! | `met` | path → what stood at both, and as which item: the base of this target | what is equal is found equal; the rest by its marks |
//! | `gone` | path → the batch in which the pair agreed that nothing is there | a deletion may have to be made again |
//! | `uploads` | how to go on with long files that were cut short | they begin anew |
//! | `facts` | where the target's changes go on, and whose file this is | as `items` |
//!
//! It is a cache of two truths, the target's and the tree's, so it is written without waiting for the disk: a power cut may take
//! the last changes, together with the cursor that says they were heard.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::mirror::Met;
use shared::path::RelPath;
use shared::tree::{Entry, Gen};

use crate::target::{Item, Kind};

/// The version of the tables. Another one is begun anew.
const FORM: i64 = 3;
/// Deletions that are remembered; of more, the latest.
const GONE_MAX: i64 = 200_000;
/// Deepest folder that is followed up to the root: a path has no more parts.
const DEPTH_MAX: usize = 2048;

/// What cannot be read or written.
pub type StoreError = rusqlite::Error;
type Result<T> = std::result::Result<T, StoreError>;

/// What this machine remembers of one target.
pub struct Store {
    sql: Connection,
    root: RefCell<String>,
}

/// What stood at both, and as which item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetItem {
    /// What, and since when.
    pub met: Met,
    /// The item.
    pub id: String,
    /// Its version then.
    pub version: String,
}

/// What the target has at a path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AtPath {
    /// The one that counts, and what it was found to be if its mark does not say.
    pub item: Option<Item>,
    /// Others of the same name. Folders of one name count as one, so they are not among them.
    pub others: Vec<Item>,
    /// The folders of this name.
    pub folders: Vec<String>,
}

/// Where an item lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At this path.
    Path(RelPath),
    /// Not below the root.
    Elsewhere,
    /// At a path that no tree can have: this is what it is called.
    NoPath(String),
}

/// How an upload goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// What is uploaded.
    pub entry: Entry,
    /// The number of the writing.
    pub writing: u64,
    /// What the target gave.
    pub begun: String,
}

impl Store {
    /// Opens the file, or begins one. `owner` says whose it is; one of another owner is begun anew.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn open(file: &Path, owner: &str) -> Result<Self> {
        Self::with(Connection::open(file)?, owner)
    }

    /// One that is forgotten with the process.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn in_memory(owner: &str) -> Result<Self> {
        Self::with(Connection::open_in_memory()?, owner)
    }

    fn with(sql: Connection, owner: &str) -> Result<Self> {
        sql.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
        let form: i64 = sql.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let store = Self {
            sql,
            root: RefCell::default(),
        };
        if form != FORM || store.fact("owner")?.as_deref() != Some(owner) {
            store.begin(owner)?;
        }
        Ok(store)
    }

    fn begin(&self, owner: &str) -> Result<()> {
        self.sql.execute_batch(
            "BEGIN;
             DROP TABLE IF EXISTS items; DROP TABLE IF EXISTS met; DROP TABLE IF EXISTS gone;
             DROP TABLE IF EXISTS uploads; DROP TABLE IF EXISTS sent; DROP TABLE IF EXISTS facts;
             CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
             CREATE TABLE items (
                 id TEXT PRIMARY KEY, parent TEXT NOT NULL, name TEXT NOT NULL, folder INTEGER NOT NULL,
                 item BLOB NOT NULL, entry BLOB, listing INTEGER NOT NULL
             ) WITHOUT ROWID;
             CREATE INDEX items_place ON items (parent, name);
             CREATE TABLE met (
                 path TEXT PRIMARY KEY, entry BLOB NOT NULL, batch INTEGER NOT NULL, writing INTEGER NOT NULL,
                 id TEXT NOT NULL, version TEXT NOT NULL, going INTEGER NOT NULL
             ) WITHOUT ROWID;
             CREATE TABLE gone (path TEXT PRIMARY KEY, batch INTEGER NOT NULL) WITHOUT ROWID;
             CREATE TABLE sent (path TEXT NOT NULL, writing INTEGER NOT NULL, PRIMARY KEY (path, writing)) WITHOUT ROWID;
             CREATE TABLE uploads (
                 path TEXT PRIMARY KEY, entry BLOB NOT NULL, writing INTEGER NOT NULL, begun TEXT NOT NULL
             ) WITHOUT ROWID;",
        )?;
        self.sql.pragma_update(None, "user_version", FORM)?;
        self.sql.execute_batch("COMMIT")?;
        self.set_fact("owner", owner)
    }

    /// Makes what `work` writes one transaction.
    ///
    /// # Errors
    /// What SQLite says, and what `work` says; nothing is written then.
    pub fn together<T>(&self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        self.sql.execute_batch("BEGIN")?;
        match work(self) {
            Ok(done) => self.sql.execute_batch("COMMIT").map(|()| done),
            Err(error) => {
                self.sql.execute_batch("ROLLBACK")?;
                Err(error)
            }
        }
    }

    /// Says which folder is the root. When it is another one than before, nothing of what was known counts.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_root(&self, root: &str) -> Result<()> {
        if self.fact("root")?.is_some_and(|before| before != root) {
            self.together(|this| {
                for table in ["items", "met", "uploads"] {
                    this.sql.execute(&format!("DELETE FROM {table}"), [])?;
                }
                this.clear_fact("cursor")
            })?;
        }
        root.clone_into(&mut self.root.borrow_mut());
        self.set_fact("root", root)
    }

    /// Returns the root.
    pub fn root(&self) -> String {
        self.root.borrow().clone()
    }

    /// Returns a fact.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn fact(&self, key: &str) -> Result<Option<String>> {
        let there: bool = self.sql.query_row(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'facts')",
            [],
            |row| row.get(0),
        )?;
        if !there {
            return Ok(None);
        }
        self.one("SELECT value FROM facts WHERE key = ?1", [key], |row| {
            row.get(0)
        })
    }

    /// Notes a fact.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_fact(&self, key: &str, value: &str) -> Result<()> {
        self.run(
            "INSERT INTO facts VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
            params![key, value],
        )
    }

    /// Forgets a fact.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn clear_fact(&self, key: &str) -> Result<()> {
        self.run("DELETE FROM facts WHERE key = ?1", [key])
    }

    /// Takes what was heard of an item, in the listing of a number. Returns what was known before.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn put(&self, item: &Item, listing: i64) -> Result<Option<Item>> {
        let before = self.item(&item.id)?;
        if before.as_ref() == Some(item) {
            self.run(
                "UPDATE items SET listing = ?2 WHERE id = ?1",
                params![item.id, listing],
            )?;
            return Ok(before);
        }
        // What its bytes were found to be stays true as long as they are the same.
        let is_same_file = before.as_ref().is_some_and(|before| {
            before.kind == item.kind && matches!(item.kind, Kind::File { sum: Some(_), .. })
        });
        let kept = if is_same_file { "items.entry" } else { "NULL" };
        self.run(
            &format!(
                "INSERT INTO items (id, parent, name, folder, item, listing) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (id) DO UPDATE SET parent = ?2, name = ?3, folder = ?4, item = ?5, entry = {kept},
                 listing = ?6"
            ),
            params![
                item.id,
                item.parent,
                item.name,
                item.kind == Kind::Folder,
                packed(item),
                listing
            ],
        )?;
        Ok(before)
    }

    /// Returns an item.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn item(&self, id: &str) -> Result<Option<Item>> {
        let found = self.one("SELECT item FROM items WHERE id = ?1", [id], blob)?;
        Ok(found.and_then(|bytes| unpacked(&bytes)))
    }

    /// Notes what the bytes of an item were found to be.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_entry(&self, id: &str, entry: &Entry) -> Result<()> {
        self.run(
            "UPDATE items SET entry = ?2 WHERE id = ?1",
            params![id, packed(entry)],
        )
    }

    /// Returns what the bytes of an item were found to be.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn entry(&self, id: &str) -> Result<Option<Entry>> {
        let found = self.one("SELECT entry FROM items WHERE id = ?1", [id], |row| {
            row.get::<_, Option<Vec<u8>>>(0)
        })?;
        Ok(found.flatten().and_then(|bytes| unpacked(&bytes)))
    }

    /// Forgets an item and all that lies in it. Returns the ids.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn take_out(&self, id: &str) -> Result<()> {
        let mut left = vec![id.to_owned()];
        while let Some(id) = left.pop() {
            left.extend(self.in_folder(&id)?.into_iter().map(|item| item.id));
            self.run("DELETE FROM items WHERE id = ?1", [&id])?;
        }
        Ok(())
    }

    /// Returns the items in a folder.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn in_folder(&self, id: &str) -> Result<Vec<Item>> {
        self.all("SELECT item FROM items WHERE parent = ?1", [id])
    }

    /// Returns the number of files.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn file_count(&self) -> Result<u64> {
        self.count("SELECT count(*) FROM items WHERE folder = 0")
    }

    fn count(&self, text: &str) -> Result<u64> {
        let count = self.sql.query_row(text, [], |row| row.get::<_, i64>(0))?;
        Ok(count.unsigned_abs())
    }

    /// Returns the ids of what a listing did not name.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn not_in_listing(&self, listing: i64) -> Result<Vec<String>> {
        let mut statement = self
            .sql
            .prepare_cached("SELECT id FROM items WHERE listing <> ?1")?;
        let rows = statement.query_map([listing], |row| row.get(0))?;
        rows.collect()
    }

    /// Returns all ids.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn ids(&self) -> Result<Vec<String>> {
        let mut statement = self.sql.prepare_cached("SELECT id FROM items")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        rows.collect()
    }

    /// Says where an item lies.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn place(&self, item: &Item) -> Result<Place> {
        let mut names = vec![item.name.clone()];
        let mut parent = item.parent.clone();
        let root = self.root();
        while parent != root {
            match self.item(&parent)? {
                Some(above) if names.len() < DEPTH_MAX => {
                    names.push(above.name);
                    parent = above.parent;
                }
                _ => return Ok(Place::Elsewhere),
            }
        }
        names.reverse();
        // Each name by itself: a `/` in one of them must not make two of it.
        let mut path: Option<RelPath> = None;
        for name in &names {
            let next = match &path {
                _ if name.contains('/') => None,
                Some(above) => above.join(name).ok(),
                None => RelPath::parse(name).ok(),
            };
            match next {
                Some(next) => path = Some(next),
                None => return Ok(Place::NoPath(names.join("/"))),
            }
        }
        Ok(path.map_or(Place::Elsewhere, Place::Path))
    }

    /// Returns what the target has in the place of a folder that a path would lie in.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn leaf_above(&self, path: &RelPath) -> Result<Option<Item>> {
        let above: Vec<RelPath> = path.ancestors().collect();
        for above in above.iter().rev() {
            match self.at(above)?.item {
                Some(item) if item.kind == Kind::Folder => {}
                leaf => return Ok(leaf),
            }
        }
        Ok(None)
    }

    /// Returns what the target has at a path.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn at(&self, path: &RelPath) -> Result<AtPath> {
        let mut folders = vec![self.root()];
        let mut found = Vec::new();
        for name in path.components() {
            found.clear();
            for folder in &folders {
                let here: Vec<Item> = self.all(
                    "SELECT item FROM items WHERE parent = ?1 AND name = ?2",
                    [folder.as_str(), name],
                )?;
                found.extend(here);
            }
            folders = found
                .iter()
                .filter(|item| item.kind == Kind::Folder)
                .map(|item| item.id.clone())
                .collect();
        }
        // The same one on every machine: what one of us has written before what a person has made, then by id.
        found.sort_by(|a, b| {
            let rank = |item: &Item| {
                (
                    matches!(item.kind, Kind::Other(_)),
                    item.mark.is_none(),
                    item.id.clone(),
                )
            };
            rank(a).cmp(&rank(b))
        });
        folders.sort();
        let mut all = found.into_iter();
        let item = all.next();
        let is_folder = item.as_ref().is_some_and(|item| item.kind == Kind::Folder);
        let others = all
            .filter(|other| !(is_folder && other.kind == Kind::Folder))
            .collect();
        if let (true, Some(item)) = (is_folder, &item) {
            // New things go into the one that counts.
            folders.sort_by_key(|id| *id != item.id);
        }
        Ok(AtPath {
            item,
            others,
            folders,
        })
    }

    /// Returns the paths below one at which the target has something, or this machine met it.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn below(&self, top: &RelPath) -> Result<BTreeSet<RelPath>> {
        let mut found = self.met_below(top)?;
        let mut left: Vec<(RelPath, String)> = self
            .at(top)?
            .folders
            .into_iter()
            .map(|id| (top.clone(), id))
            .collect();
        while let Some((above, id)) = left.pop() {
            for item in self.in_folder(&id)? {
                if item.name.contains('/') {
                    continue;
                }
                let Ok(path) = above.join(&item.name) else {
                    continue;
                };
                if item.kind == Kind::Folder {
                    left.push((path.clone(), item.id));
                }
                found.insert(path);
            }
        }
        Ok(found)
    }

    fn met_below(&self, top: &RelPath) -> Result<BTreeSet<RelPath>> {
        let mut statement = self
            .sql
            .prepare_cached("SELECT path FROM met WHERE path > ?1 AND path < ?2")?;
        let rows = statement.query_map([format!("{top}/"), format!("{top}0")], |row| {
            row.get::<_, String>(0)
        })?;
        rows.filter_map(|path| match path {
            Ok(path) => RelPath::parse(&path).ok().map(Ok),
            Err(error) => Some(Err(error)),
        })
        .collect()
    }

    /// Returns what this machine and the target agreed on last.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn met(&self, path: &RelPath) -> Result<Option<MetItem>> {
        self.one(
            "SELECT entry, batch, writing, id, version, going FROM met WHERE path = ?1",
            [path.as_str()],
            met_item,
        )
        .map(Option::flatten)
    }

    /// Visits all that this machine and the target agreed on.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn each_met(&self, visit: &mut dyn FnMut(RelPath, MetItem)) -> Result<()> {
        let mut statement = self
            .sql
            .prepare_cached("SELECT entry, batch, writing, id, version, going, path FROM met")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let path = RelPath::parse(&row.get::<_, String>(6)?).ok();
            if let (Some(path), Some(met)) = (path, met_item(row)?) {
                visit(path, met);
            }
        }
        Ok(())
    }

    /// Notes what stands at both.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_met(&self, path: &RelPath, met: &MetItem) -> Result<()> {
        let MetItem { met, id, version } = met;
        self.run(
            "INSERT INTO met VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (path) DO UPDATE SET
             entry = ?2, batch = ?3, writing = ?4, id = ?5, version = ?6,
             going = ?7",
            params![
                path.as_str(),
                packed(&met.entry),
                met.batch.0.cast_signed(),
                met.writing.cast_signed(),
                id,
                version,
                met.going
            ],
        )
    }

    /// Notes that what stood at both is about to be taken away at the target.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_going(&self, path: &RelPath) -> Result<()> {
        self.run("UPDATE met SET going = 1 WHERE path = ?1", [path.as_str()])
    }

    /// Notes that nothing stands at either.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn clear_met(&self, path: &RelPath) -> Result<()> {
        self.run("DELETE FROM met WHERE path = ?1", [path.as_str()])
    }

    /// Returns the number of paths at which both have the same.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn met_count(&self) -> Result<u64> {
        self.count("SELECT count(*) FROM met")
    }

    /// Notes in which batch the pair agreed that nothing is at a path.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_gone(&self, path: &RelPath, batch: Gen) -> Result<()> {
        self.run(
            "INSERT INTO gone VALUES (?1, ?2) ON CONFLICT (path) DO UPDATE SET batch = max(batch, ?2)",
            params![path.as_str(), batch.0.cast_signed()],
        )
    }

    /// Returns that batch.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn gone(&self, path: &RelPath) -> Result<Option<Gen>> {
        let found = self.one(
            "SELECT batch FROM gone WHERE path = ?1",
            [path.as_str()],
            |row| row.get::<_, i64>(0),
        )?;
        Ok(found.map(|batch| Gen(batch.cast_unsigned())))
    }

    /// Forgets all such batches: those of another pair, or of a time that does not count any more.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn clear_gone(&self) -> Result<()> {
        self.run("DELETE FROM gone", [])
    }

    /// Forgets the oldest of them when there are too many.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn trim_gone(&self) -> Result<()> {
        self.run(
            "DELETE FROM gone WHERE batch < (SELECT batch FROM gone ORDER BY batch DESC LIMIT 1 OFFSET ?1)",
            [GONE_MAX],
        )
    }

    /// Notes that a writing is begun at a path.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn add_sent(&self, path: &RelPath, writing: u64) -> Result<()> {
        self.run(
            "INSERT OR IGNORE INTO sent VALUES (?1, ?2)",
            params![path.as_str(), writing.cast_signed()],
        )
    }

    /// Returns the writings that were begun at a path since both had the same there.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn sent(&self, path: &RelPath) -> Result<Vec<u64>> {
        let mut statement = self
            .sql
            .prepare_cached("SELECT writing FROM sent WHERE path = ?1")?;
        let rows = statement.query_map([path.as_str()], |row| row.get::<_, i64>(0))?;
        rows.map(|writing| writing.map(i64::cast_unsigned))
            .collect()
    }

    /// Forgets them: both have the same.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn clear_sent(&self, path: &RelPath) -> Result<()> {
        self.run("DELETE FROM sent WHERE path = ?1", [path.as_str()])
    }

    /// Notes how an upload goes on.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_upload(&self, path: &RelPath, upload: &Upload) -> Result<()> {
        self.run(
            "INSERT INTO uploads VALUES (?1, ?2, ?3, ?4) ON CONFLICT (path) DO UPDATE SET
             entry = ?2, writing = ?3, begun = ?4",
            params![
                path.as_str(),
                packed(&upload.entry),
                upload.writing.cast_signed(),
                upload.begun
            ],
        )
    }

    /// Returns how an upload goes on.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn upload(&self, path: &RelPath) -> Result<Option<Upload>> {
        let found = self.one(
            "SELECT entry, writing, begun FROM uploads WHERE path = ?1",
            [path.as_str()],
            |row| {
                let entry = unpacked(&row.get::<_, Vec<u8>>(0)?);
                let writing: i64 = row.get(1)?;
                Ok((entry, writing, row.get(2)?))
            },
        )?;
        Ok(found.and_then(|(entry, writing, begun)| {
            Some(Upload {
                entry: entry?,
                writing: writing.cast_unsigned(),
                begun,
            })
        }))
    }

    /// Forgets an upload.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn clear_upload(&self, path: &RelPath) -> Result<()> {
        self.run("DELETE FROM uploads WHERE path = ?1", [path.as_str()])
    }

    fn run(&self, text: &str, with: impl rusqlite::Params) -> Result<()> {
        self.sql.prepare_cached(text)?.execute(with).map(|_| ())
    }

    fn one<T>(
        &self,
        text: &str,
        with: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        self.sql
            .prepare_cached(text)?
            .query_row(with, read)
            .optional()
    }

    fn all(&self, text: &str, with: impl rusqlite::Params) -> Result<Vec<Item>> {
        let mut statement = self.sql.prepare_cached(text)?;
        let rows = statement.query_map(with, |row| row.get::<_, Vec<u8>>(0))?;
        rows.filter_map(|bytes| match bytes {
            Ok(bytes) => unpacked(&bytes).map(Ok),
            Err(error) => Some(Err(error)),
        })
        .collect()
    }
}

fn met_item(row: &Row<'_>) -> Result<Option<MetItem>> {
    let (batch, writing): (i64, i64) = (row.get(1)?, row.get(2)?);
    let entry: Option<Entry> = unpacked(&row.get::<_, Vec<u8>>(0)?);
    let Some(entry) = entry else { return Ok(None) };
    Ok(Some(MetItem {
        met: Met {
            entry,
            batch: Gen(batch.cast_unsigned()),
            writing: writing.cast_unsigned(),
            going: row.get(5)?,
        },
        id: row.get(3)?,
        version: row.get(4)?,
    }))
}

fn blob(row: &Row<'_>) -> Result<Vec<u8>> {
    row.get(0)
}

/// Plain data of ours always has a form.
fn packed(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}

/// What does not read, as a version that knows more has written it, counts as not there.
fn unpacked<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests;
