//! The view: what the journals of both nodes say, in a SQLite database of this node.
//!
//! It is derived. Every line of a journal is taken into it once, in any order between nodes, and the result is the same; when it is
//! lost, broken or of another version, it is made anew. It never travels.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rusqlite::{Connection, OptionalExtension, Row, params};
use shared::control::Person;
use shared::utc::UtcMs;

use crate::heard::Heard;
use crate::record::{Known, Record, What};
use crate::say::{Act, Say};

/// The version of the tables. Another one is made anew.
const VERSION: i64 = 1;
/// What is settled for so long goes.
const SETTLED_MS: u64 = 30 * 86_400_000;

/// How far a message is.
mod inbox {
    pub(super) const RECEIVED: i64 = 0;
    pub(super) const BEGUN: i64 = 1;
    pub(super) const ANSWERED: i64 = 2;
}

/// How far something to be said is; it only goes on, but for [`What::Returned`].
mod outbox {
    pub(super) const QUEUED: i64 = 0;
    pub(super) const CLAIMED: i64 = 1;
    pub(super) const FAILED: i64 = 2;
    pub(super) const SENT: i64 = 3;
}

const TABLES: &str = "
    CREATE TABLE segment (path TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE inbox (key TEXT PRIMARY KEY, number INTEGER NOT NULL, chat INTEGER NOT NULL, state INTEGER NOT NULL,
        at INTEGER NOT NULL, heard TEXT) WITHOUT ROWID;
    CREATE INDEX waiting ON inbox (chat, number) WHERE state < 2 AND heard IS NOT NULL;
    CREATE TABLE outbox (id TEXT PRIMARY KEY, place INTEGER NOT NULL, chat INTEGER NOT NULL, state INTEGER NOT NULL,
        attempt INTEGER NOT NULL, doubtful INTEGER NOT NULL, at INTEGER NOT NULL, message INTEGER, say TEXT) WITHOUT ROWID;
    CREATE INDEX due ON outbox (chat, place) WHERE state < 2 AND say IS NOT NULL;
    CREATE INDEX place ON outbox (place);
    CREATE INDEX said ON outbox (chat, message);
    CREATE TABLE button (key TEXT PRIMARY KEY, chat INTEGER NOT NULL, act TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE person (user INTEGER PRIMARY KEY, name TEXT NOT NULL, owner INTEGER NOT NULL, allowed INTEGER NOT NULL,
        epoch INTEGER NOT NULL, seq INTEGER NOT NULL);
    CREATE TABLE refusal (user INTEGER PRIMARY KEY, at INTEGER NOT NULL);
    CREATE TABLE offer (hash TEXT PRIMARY KEY, until INTEGER NOT NULL, missed INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE told (about TEXT PRIMARY KEY, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, told INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE began (epoch INTEGER PRIMARY KEY, node TEXT NOT NULL);
    CREATE TABLE total (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
";

/// The view of a node.
pub(crate) struct View {
    db: Connection,
    /// Whether it was made anew.
    pub(crate) is_new: bool,
}

/// A message that waits for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) heard: Heard,
    /// Whether it was begun already, and nobody knows how that ended.
    pub(crate) begun: bool,
}

/// Something that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) say: Say,
    /// How often it was tried.
    pub(crate) attempt: u32,
    /// When it was put here.
    pub(crate) at: UtcMs,
}

/// What a status says of the journals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) inbox: u64,
    pub(crate) outbox: u64,
    pub(crate) last_update: Option<UtcMs>,
    pub(crate) doubtful: u64,
    pub(crate) quarantined: u64,
    pub(crate) owner: bool,
}

impl View {
    /// Opens it, or makes it anew when it is not there, broken or of another version.
    ///
    /// # Errors
    /// What SQLite or the system says of a file that can be neither opened nor made.
    pub(crate) fn open(path: &Path) -> Result<Self, ViewError> {
        if let Ok(db) = Self::open_whole(path) {
            return Ok(Self { db, is_new: false });
        }
        for name in [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")] {
            match fs::remove_file(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let db = Connection::open(path)?;
        prepare(&db)?;
        db.execute_batch(TABLES)?;
        db.pragma_update(None, "user_version", VERSION)?;
        Ok(Self { db, is_new: true })
    }

    fn open_whole(path: &Path) -> Result<Connection, ViewError> {
        fs::metadata(path)?;
        let db = Connection::open(path)?;
        prepare(&db)?;
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let check: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        match (version, check.as_str()) {
            (VERSION, "ok") => Ok(db),
            _ => Err(ViewError::System(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Returns how many bytes of a file of a journal it has.
    pub(crate) fn position(&self, path: &str) -> Result<u64, ViewError> {
        let mut found = self
            .db
            .prepare_cached("SELECT bytes FROM segment WHERE path = ?1")?;
        let bytes: Option<i64> = found.query_row([path], |row| row.get(0)).optional()?;
        Ok(bytes.unwrap_or_default() as u64)
    }

    /// Takes in lines of a file of a journal, and that it has the file up to `bytes`.
    pub(crate) fn take(
        &mut self,
        path: &str,
        bytes: u64,
        records: &[Record],
    ) -> Result<(), ViewError> {
        let all = self.db.transaction()?;
        for record in records {
            apply(&all, record)?;
        }
        if let Some(seq) = records.iter().map(|record| record.seq).max() {
            all.prepare_cached(
                "INSERT INTO total VALUES ('seq', ?1) ON CONFLICT (name) DO UPDATE SET value = max(value, ?1)",
            )?
            .execute([seq as i64])?;
        }
        all.prepare_cached("INSERT OR REPLACE INTO segment VALUES (?1, ?2)")?
            .execute(params![path, bytes as i64])?;
        all.commit()?;
        Ok(())
    }

    /// Forgets a file that is gone.
    pub(crate) fn forget(&self, path: &str) -> Result<(), ViewError> {
        self.db
            .execute("DELETE FROM segment WHERE path = ?1", [path])?;
        Ok(())
    }

    /// Forgets what was settled long before `now`.
    pub(crate) fn prune(&self, now: UtcMs) -> Result<(), ViewError> {
        let before = now.0.saturating_sub(SETTLED_MS) as i64;
        for rows in [
            "DELETE FROM inbox WHERE state = 2 AND at < ?1",
            "DELETE FROM outbox WHERE state >= 2 AND at < ?1",
            "DELETE FROM button WHERE at < ?1",
            "DELETE FROM refusal WHERE at < ?1",
            "DELETE FROM offer WHERE until < ?1",
        ] {
            self.db.execute(rows, [before])?;
        }
        Ok(())
    }

    /// Says whether something that arrived is known.
    pub(crate) fn is_known(&self, key: &str) -> Result<bool, ViewError> {
        let mut found = self
            .db
            .prepare_cached("SELECT 1 FROM inbox WHERE key = ?1 AND heard IS NOT NULL")?;
        Ok(found.exists([key])?)
    }

    /// Lists what waits for an answer in each chat but these, in the order in which it was written: up to `each_max` in a chat.
    pub(crate) fn waiting(
        &self,
        busy: &BTreeSet<i64>,
        chats_max: usize,
        each_max: usize,
    ) -> Result<Vec<Vec<Waiting>>, ViewError> {
        let chats = "SELECT chat, min(number) FROM inbox WHERE state < 2 AND heard IS NOT NULL GROUP BY chat ORDER BY 2";
        let mut first = self.db.prepare_cached(
            "SELECT heard, state FROM inbox WHERE state < 2 AND heard IS NOT NULL AND chat = ?1 ORDER BY number LIMIT ?2",
        )?;
        let mut waiting = Vec::new();
        for chat in self.chats(chats, busy, chats_max)? {
            let rows = first.query_map(params![chat, each_max as i64], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
            })?;
            let mut messages = Vec::new();
            for row in rows {
                let (heard, state) = row?;
                messages.push(Waiting {
                    heard: serde_json::from_str(&heard)?,
                    begun: state == inbox::BEGUN,
                });
            }
            waiting.push(messages);
        }
        Ok(waiting)
    }

    /// Lists the chats in which something is to be said, but these: first the one in which it waits longest.
    pub(crate) fn due_chats(
        &self,
        busy: &BTreeSet<i64>,
        max: usize,
    ) -> Result<Vec<i64>, ViewError> {
        let chats = "SELECT chat, min(place) FROM outbox WHERE state < 2 AND say IS NOT NULL GROUP BY chat ORDER BY 2";
        self.chats(chats, busy, max)
    }

    /// Lists what is to be said next in a chat, in its order.
    pub(crate) fn due(&self, chat: i64, max: usize) -> Result<Vec<Due>, ViewError> {
        let mut first = self.db.prepare_cached(
            "SELECT say, attempt, at FROM outbox WHERE state < 2 AND say IS NOT NULL AND chat = ?1 ORDER BY place LIMIT ?2",
        )?;
        let rows = first.query_map(params![chat, max as i64], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, u32>(1)?,
                row.get::<_, i64>(2)?,
            ))
        })?;
        let mut says = Vec::new();
        for row in rows {
            let (say, attempt, at) = row?;
            says.push(Due {
                say: serde_json::from_str(&say)?,
                attempt,
                at: UtcMs(at as u64),
            });
        }
        Ok(says)
    }

    fn chats(&self, query: &str, busy: &BTreeSet<i64>, max: usize) -> Result<Vec<i64>, ViewError> {
        let mut chats = self.db.prepare_cached(query)?;
        let chats: Vec<i64> = chats
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        Ok(chats
            .into_iter()
            .filter(|chat| !busy.contains(chat))
            .take(max)
            .collect())
    }

    /// Returns the highest number of a line that any node has written.
    pub(crate) fn last_seq(&self) -> Result<u64, ViewError> {
        let last = "SELECT value FROM total WHERE name = 'seq'";
        let last: Option<i64> = self
            .db
            .prepare_cached(last)?
            .query_row([], |row| row.get(0))
            .optional()?;
        Ok(last.unwrap_or_default() as u64)
    }

    /// Says whether something was sent, or never will be.
    pub(crate) fn is_settled(&self, id: &str) -> Result<bool, ViewError> {
        let mut found = self
            .db
            .prepare_cached("SELECT 1 FROM outbox WHERE id = ?1 AND state >= 2")?;
        Ok(found.exists([id])?)
    }

    /// Returns what a message of the bot says.
    pub(crate) fn said(&self, chat: i64, message: i64) -> Result<Option<Say>, ViewError> {
        let mut found = self
            .db
            .prepare_cached("SELECT say FROM outbox WHERE chat = ?1 AND message = ?2 AND say IS NOT NULL ORDER BY place DESC LIMIT 1")?;
        let say: Option<String> = found
            .query_row([chat, message], |row| row.get(0))
            .optional()?;
        Ok(say.map(|say| serde_json::from_str(&say)).transpose()?)
    }

    /// Returns what a button does.
    pub(crate) fn act(&self, chat: i64, key: &str) -> Result<Option<Act>, ViewError> {
        let mut found = self
            .db
            .prepare_cached("SELECT act FROM button WHERE key = ?1 AND chat = ?2")?;
        let act: Option<String> = found
            .query_row(params![key, chat], |row| row.get(0))
            .optional()?;
        Ok(act.map(|act| serde_json::from_str(&act)).transpose()?)
    }

    /// Returns somebody who may speak.
    pub(crate) fn person(&self, user: i64) -> Result<Option<Person>, ViewError> {
        let mut found = self.db.prepare_cached(
            "SELECT user, name, owner, allowed, epoch, seq FROM person WHERE user = ?1 AND allowed",
        )?;
        Ok(found
            .query_row([user], known)
            .optional()?
            .map(|known| known.person))
    }

    /// Lists everybody who may speak, or could once.
    pub(crate) fn people(&self) -> Result<Vec<Known>, ViewError> {
        let mut rows = self.db.prepare_cached(
            "SELECT user, name, owner, allowed, epoch, seq FROM person ORDER BY user",
        )?;
        Ok(rows.query_map([], known)?.collect::<Result<_, _>>()?)
    }

    /// Returns when a stranger was refused last.
    pub(crate) fn refused(&self, user: i64) -> Result<Option<UtcMs>, ViewError> {
        let mut found = self
            .db
            .prepare_cached("SELECT at FROM refusal WHERE user = ?1")?;
        let at: Option<i64> = found.query_row([user], |row| row.get(0)).optional()?;
        Ok(at.map(|at| UtcMs(at as u64)))
    }

    /// Returns how many strangers were refused since then.
    pub(crate) fn refusals_since(&self, at: UtcMs) -> Result<u64, ViewError> {
        let count = "SELECT count(*) FROM refusal WHERE at >= ?1";
        Ok(self
            .db
            .query_row(count, [at.0 as i64], |row| row.get::<_, i64>(0))? as u64)
    }

    /// Lists the pairing codes that are open: hash, end, and how often somebody missed it.
    pub(crate) fn offers(&self, now: UtcMs) -> Result<Vec<(String, UtcMs, u32)>, ViewError> {
        let mut rows = self
            .db
            .prepare_cached("SELECT hash, until, missed FROM offer WHERE until > ?1")?;
        let rows = rows.query_map([now.0 as i64], |row| {
            Ok((
                row.get(0)?,
                UtcMs(row.get::<_, i64>(1)? as u64),
                row.get(2)?,
            ))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Lists what the owner was told of and is not over.
    pub(crate) fn told(&self) -> Result<BTreeSet<String>, ViewError> {
        let mut rows = self
            .db
            .prepare_cached("SELECT about FROM told WHERE told")?;
        Ok(rows
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?)
    }

    /// Returns which node began to act last before that epoch.
    pub(crate) fn began_before(&self, epoch: u64) -> Result<Option<String>, ViewError> {
        let last = "SELECT node FROM began WHERE epoch < ?1 ORDER BY epoch DESC LIMIT 1";
        Ok(self
            .db
            .query_row(last, [epoch as i64], |row| row.get(0))
            .optional()?)
    }

    /// Counts.
    pub(crate) fn totals(&self) -> Result<Totals, ViewError> {
        let count = |what: &str| -> Result<u64, ViewError> {
            let mut count = self.db.prepare_cached(what)?;
            Ok(count.query_row([], |row| row.get::<_, i64>(0))? as u64)
        };
        let total = |name: &str| -> Result<Option<i64>, ViewError> {
            let mut total = self
                .db
                .prepare_cached("SELECT value FROM total WHERE name = ?1")?;
            Ok(total.query_row([name], |row| row.get(0)).optional()?)
        };
        Ok(Totals {
            inbox: count("SELECT count(*) FROM inbox WHERE state < 2 AND heard IS NOT NULL")?,
            outbox: count("SELECT count(*) FROM outbox WHERE state < 2 AND say IS NOT NULL")?,
            last_update: total("last_update")?.map(|at| UtcMs(at as u64)),
            doubtful: total("doubtful")?.unwrap_or_default() as u64,
            quarantined: total("quarantined")?.unwrap_or_default() as u64,
            owner: count("SELECT count(*) FROM person WHERE owner AND allowed")? > 0,
        })
    }
}

fn known(row: &Row<'_>) -> rusqlite::Result<Known> {
    Ok(Known {
        person: Person {
            user: row.get(0)?,
            name: row.get(1)?,
            owner: row.get(2)?,
        },
        allowed: row.get(3)?,
        epoch: row.get::<_, i64>(4)? as u64,
        seq: row.get::<_, i64>(5)? as u64,
    })
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn prepare(db: &Connection) -> rusqlite::Result<()> {
    // After a power cut the last lines may be missing here, and are taken in again; never more than that.
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -512; PRAGMA temp_store = MEMORY;",
    )
}

/// Takes one line in. Each of these may come before or after those of the other node, and again.
fn apply(db: &Connection, record: &Record) -> Result<(), ViewError> {
    let (epoch, at) = (record.epoch as i64, record.at.0 as i64);
    match &record.what {
        What::Began { node, people } => {
            db.prepare_cached("INSERT OR REPLACE INTO began VALUES (?1, ?2)")?
                .execute(params![epoch, node])?;
            for known in people {
                set_person(db, known)?;
            }
        }
        What::Received(heard) => {
            db.prepare_cached(
                "INSERT INTO inbox VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (key) DO UPDATE SET number = excluded.number, chat = excluded.chat, heard = excluded.heard",
            )?
            .execute(params![
                heard.key,
                heard.update,
                heard.chat,
                inbox::RECEIVED,
                at,
                serde_json::to_string(heard)?
            ])?;
            db.prepare_cached(
                "INSERT INTO total VALUES ('last_update', ?1) ON CONFLICT (name) DO UPDATE SET value = max(value, ?1)",
            )?
            .execute([at])?;
        }
        What::Begun { key } => advance_inbox(db, key, inbox::BEGUN, at)?,
        What::Answered { key, says } => {
            advance_inbox(db, key, inbox::ANSWERED, at)?;
            for say in says {
                queue(db, record, say)?;
            }
        }
        What::Pushed { about, say } => {
            for about in about {
                set_told(db, about, record, true)?;
            }
            queue(db, record, say)?;
        }
        What::Cleared { about } => set_told(db, about, record, false)?,
        What::Claimed { ids, attempt } => {
            for id in ids {
                advance_outbox(db, id, outbox::CLAIMED, at, None)?;
                let doubtful = db
                    .prepare_cached("UPDATE outbox SET attempt = max(attempt, ?2), doubtful = 1 WHERE id = ?1 AND doubtful = 0 AND ?2 > 1")?
                    .execute(params![id, attempt])?;
                count(db, "doubtful", doubtful as i64)?;
                db.prepare_cached("UPDATE outbox SET attempt = max(attempt, ?2) WHERE id = ?1")?
                    .execute(params![id, attempt])?;
            }
        }
        What::Returned { ids } => {
            for id in ids {
                db.prepare_cached("UPDATE outbox SET state = ?2, attempt = max(attempt - 1, 0) WHERE id = ?1 AND state = ?3")?
                    .execute(params![id, outbox::QUEUED, outbox::CLAIMED])?;
            }
        }
        What::Sent { ids, message } => {
            for id in ids {
                advance_outbox(db, id, outbox::SENT, at, Some(*message))?;
            }
        }
        What::Failed { ids, .. } => {
            for id in ids {
                advance_outbox(db, id, outbox::FAILED, at, None)?;
            }
        }
        What::Allowed { person } => set_person(
            db,
            &Known {
                person: person.clone(),
                allowed: true,
                epoch: record.epoch,
                seq: record.seq,
            },
        )?,
        What::Denied { user } => set_person(
            db,
            &Known {
                person: Person {
                    user: *user,
                    name: String::new(),
                    owner: false,
                },
                allowed: false,
                epoch: record.epoch,
                seq: record.seq,
            },
        )?,
        What::Offered { hash, until } => {
            db.prepare_cached(
                "INSERT INTO offer VALUES (?1, ?2, 0) ON CONFLICT (hash) DO UPDATE SET until = ?2",
            )?
            .execute(params![hash, until.0 as i64])?;
        }
        What::Missed { hash } => {
            db.prepare_cached("INSERT INTO offer VALUES (?1, 0, 1) ON CONFLICT (hash) DO UPDATE SET missed = missed + 1")?
                .execute([hash])?;
        }
        What::Refused { user } => {
            db.prepare_cached("INSERT INTO refusal VALUES (?1, ?2) ON CONFLICT (user) DO UPDATE SET at = max(at, ?2)")?
                .execute([*user, at])?;
        }
        What::Quarantined { .. } => count(db, "quarantined", 1)?,
        What::Unknown => {}
    }
    Ok(())
}

fn count(db: &Connection, name: &str, by: i64) -> Result<(), ViewError> {
    db.prepare_cached(
        "INSERT INTO total VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = value + ?2",
    )?
    .execute(params![name, by])?;
    Ok(())
}

fn advance_inbox(db: &Connection, key: &str, state: i64, at: i64) -> Result<(), ViewError> {
    db.prepare_cached(
        "INSERT INTO inbox VALUES (?1, 0, 0, ?2, ?3, NULL) ON CONFLICT (key) DO UPDATE SET state = max(state, ?2)",
    )?
    .execute(params![key, state, at])?;
    Ok(())
}

fn advance_outbox(
    db: &Connection,
    id: &str,
    state: i64,
    at: i64,
    message: Option<i64>,
) -> Result<(), ViewError> {
    db.prepare_cached(
        "INSERT INTO outbox VALUES (?1, 0, 0, ?2, 0, 0, ?3, ?4, NULL)
         ON CONFLICT (id) DO UPDATE SET state = max(state, ?2), message = coalesce(?4, message)",
    )?
    .execute(params![id, state, at, message])?;
    Ok(())
}

fn queue(db: &Connection, record: &Record, say: &Say) -> Result<(), ViewError> {
    let place = "SELECT coalesce(max(place), 0) + 1 FROM outbox";
    let place: i64 = db.prepare_cached(place)?.query_row([], |row| row.get(0))?;
    db.prepare_cached(
        "INSERT INTO outbox VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, NULL, ?6)
         ON CONFLICT (id) DO UPDATE SET place = ?2, chat = ?3, say = ?6 WHERE say IS NULL",
    )?
    .execute(params![
        say.id,
        place,
        say.chat,
        outbox::QUEUED,
        record.at.0 as i64,
        serde_json::to_string(say)?
    ])?;
    for (index, button) in say.buttons.iter().enumerate() {
        db.prepare_cached("INSERT OR REPLACE INTO button VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![
                say.key(index),
                say.chat,
                serde_json::to_string(&button.act)?,
                record.at.0 as i64
            ])?;
    }
    Ok(())
}

fn set_person(db: &Connection, known: &Known) -> Result<(), ViewError> {
    db.prepare_cached(
        "INSERT INTO person VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (user) DO UPDATE
         SET name = excluded.name, owner = excluded.owner, allowed = excluded.allowed, epoch = excluded.epoch, seq = excluded.seq
         WHERE (excluded.epoch, excluded.seq) > (epoch, seq)",
    )?
    .execute(params![
        known.person.user,
        known.person.name,
        known.person.owner,
        known.allowed,
        known.epoch as i64,
        known.seq as i64
    ])?;
    Ok(())
}

fn set_told(db: &Connection, about: &str, record: &Record, told: bool) -> Result<(), ViewError> {
    db.prepare_cached(
        "INSERT INTO told VALUES (?1, ?2, ?3, ?4) ON CONFLICT (about) DO UPDATE
         SET epoch = excluded.epoch, seq = excluded.seq, told = excluded.told
         WHERE (excluded.epoch, excluded.seq) > (epoch, seq)",
    )?
    .execute(params![about, record.epoch as i64, record.seq as i64, told])?;
    Ok(())
}

/// Why the view cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ViewError {
    /// SQLite.
    #[error("the view of the journals: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// What stands in it is not what was put there.
    #[error("the view of the journals: {0}")]
    Content(#[from] serde_json::Error),
    /// The system.
    #[error("the view of the journals: {0}")]
    System(#[from] io::Error),
}
