//! The tables of the index, and how their rows are written.
//!
//! Each value is one byte with the version of its form, then postcard. A value of another version, or
//! one that does not decode, makes the whole index damaged.

use std::collections::HashSet;

use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::chunk::Manifest;
use shared::hash::ContentHash;
use shared::mirror::Trail;
use shared::path::RelPath;
use shared::tree::{Base, BaseRow, Entry};
use shared::wire::IndexId;

use super::{Changes, Loaded, Tombstones};
use crate::fingerprint::SeenRow;
use crate::root::ReplicaId;

const SEEN: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("seen");
const BASE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("base");
const MANIFESTS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("manifests");
const ROTTEN: TableDefinition<'_, &str, ()> = TableDefinition::new("rotten");
const TRAILS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("trails");
const NOTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("notes");

const INDEX_ID: &str = "index";
const REPLICA_ID: &str = "replica";
const SIDES: &str = "sides";
const STAMP: &str = "stamp";

const ROW_VERSION: u8 = 1;

/// Reads everything; `None` when the index was never begun for this replica.
pub(super) fn load(store: &Database, replica: ReplicaId) -> Result<Option<Loaded>, String> {
    let txn = store.begin_read().map_err(text)?;
    let notes = match txn.open_table(NOTES) {
        Ok(notes) => notes,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(text(error)),
    };
    let owner: [u8; 16] = get(&notes, REPLICA_ID)?.ok_or("it has no owner")?;
    if owner != replica.0 {
        return Ok(None);
    }
    let id = IndexId(get(&notes, INDEX_ID)?.ok_or("it has no identity")?);
    // An index of the time before stamps has none.
    let stamp = get(&notes, STAMP)?.unwrap_or(0);
    let notes = get(&notes, SIDES)?.ok_or("it has no notes")?;
    let mut base: Vec<(RelPath, BaseRow)> = Vec::new();
    for row in txn.open_table(BASE).map_err(text)?.iter().map_err(text)? {
        let (path, row) = row.map_err(text)?;
        base.push((parse(path.value())?, decode(row.value())?));
    }
    let mut seen = Vec::new();
    // Both tables are in one order, and a path has one text in memory for both its rows.
    let mut known = base.iter().map(|(path, _)| path).peekable();
    for row in txn.open_table(SEEN).map_err(text)?.iter().map_err(text)? {
        let (path, row) = row.map_err(text)?;
        while known
            .next_if(|other| other.as_str() < path.value())
            .is_some()
        {}
        let path = match known.next_if(|other| other.as_str() == path.value()) {
            Some(known) => known.clone(),
            None => parse(path.value())?,
        };
        seen.push((path, decode::<SeenRow>(row.value())?));
    }
    let base: Base = base.into_iter().collect();
    seen.sort_unstable_by(|(a, _): &(RelPath, SeenRow), (b, _)| a.cmp(b));
    let mut rotten = HashSet::new();
    match txn.open_table(ROTTEN) {
        Ok(marks) => {
            for mark in marks.iter().map_err(text)? {
                rotten.insert(parse(mark.map_err(text)?.0.value())?);
            }
        }
        // An index of the time before rot was looked for.
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(text(error)),
    }
    rotten.retain(|path| seen.binary_search_by(|(known, _)| known.cmp(path)).is_ok());
    let trails = load_trails(&txn, &base)?;
    drop(txn);
    drop_unused_manifests(store, &seen)?;
    Ok(Some(Loaded {
        id,
        is_new: false,
        base,
        seen,
        rotten,
        trails,
        notes,
        stamp,
    }))
}

/// Reads the trails that are not over.
fn load_trails(txn: &ReadTransaction, base: &Base) -> Result<Vec<(RelPath, Trail)>, String> {
    let rows = match txn.open_table(TRAILS) {
        Ok(rows) => rows,
        // An index of the time before there was a mirror.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(text(error)),
    };
    let mut trails = Vec::new();
    for row in rows.iter().map_err(text)? {
        let (path, trail) = row.map_err(text)?;
        let (path, trail) = (parse(path.value())?, decode::<Trail>(trail.value())?);
        if base.get(&path).is_none_or(|row| row.batch <= trail.batch) {
            trails.push((path, trail));
        }
    }
    Ok(trails)
}

/// Empties the index and gives it an identity.
pub(super) fn begin(
    store: &Database,
    id: IndexId,
    replica: ReplicaId,
    stamp: u64,
) -> Result<(), String> {
    let txn = begin_write(store, Durability::Immediate)?;
    for table in [SEEN, BASE, NOTES] {
        txn.delete_table(table).map_err(text)?;
        txn.open_table(table).map_err(text)?;
    }
    txn.delete_table(MANIFESTS).map_err(text)?;
    txn.open_table(MANIFESTS).map_err(text)?;
    txn.delete_table(ROTTEN).map_err(text)?;
    txn.delete_table(TRAILS).map_err(text)?;
    {
        let mut notes = txn.open_table(NOTES).map_err(text)?;
        put(&mut notes, INDEX_ID, &id.0)?;
        put(&mut notes, REPLICA_ID, &replica.0)?;
        put(&mut notes, SIDES, &super::Notes::default())?;
        put(&mut notes, STAMP, &stamp)?;
    }
    txn.commit().map_err(text)
}

/// Writes changes and takes out tombstones that nobody needs any more, and the trails that are `over`.
pub(super) fn write(
    store: &Database,
    changes: &Changes<'_>,
    purged: &Tombstones,
    over: &[RelPath],
    durability: Durability,
) -> Result<(), String> {
    let txn = begin_write(store, durability)?;
    write_seen(&txn, changes)?;
    if changes.forget_base {
        txn.delete_table(BASE).map_err(text)?;
    }
    {
        let mut base = txn.open_table(BASE).map_err(text)?;
        for (path, row) in changes.base {
            // The base never goes back: a row that was on its way for longer is the older one.
            let stored = get::<BaseRow>(&base, path.as_str())?;
            if stored.is_none_or(|stored| stored.batch <= row.batch) {
                put(&mut base, path.as_str(), row)?;
            }
        }
        purge(&mut base, purged)?;
    }
    if !over.is_empty() || !changes.trails.is_empty() {
        let mut trails = txn.open_table(TRAILS).map_err(text)?;
        for path in over {
            trails.remove(path.as_str()).map_err(text)?;
        }
        for (path, trail) in changes.trails {
            put(&mut trails, path.as_str(), trail)?;
        }
    }
    if let Some(notes) = &changes.notes {
        put(&mut txn.open_table(NOTES).map_err(text)?, SIDES, notes)?;
    }
    if let Some(stamp) = &changes.stamp {
        put(&mut txn.open_table(NOTES).map_err(text)?, STAMP, stamp)?;
    }
    txn.commit().map_err(text)
}

fn write_seen(txn: &WriteTransaction, changes: &Changes<'_>) -> Result<(), String> {
    let mut seen = txn.open_table(SEEN).map_err(text)?;
    for (path, row) in changes.seen {
        match row {
            Some(row) => put(&mut seen, path.as_str(), row)?,
            None => {
                seen.remove(path.as_str()).map_err(text)?;
            }
        }
    }
    let mut rotten = txn.open_table(ROTTEN).map_err(text)?;
    if !rotten.is_empty().map_err(text)? {
        for (path, _) in changes.seen {
            rotten.remove(path.as_str()).map_err(text)?;
        }
    }
    for path in changes.rotten {
        rotten.insert(path.as_str(), ()).map_err(text)?;
    }
    let mut manifests = txn.open_table(MANIFESTS).map_err(text)?;
    for manifest in changes.manifests {
        let value = encode(manifest)?;
        manifests
            .insert(manifest.content().as_bytes(), value.as_slice())
            .map_err(text)?;
    }
    Ok(())
}

fn purge(base: &mut redb::Table<'_, &str, &[u8]>, purged: &Tombstones) -> Result<(), String> {
    for (batch, paths) in purged {
        for path in paths {
            // The path may have come back since.
            let stands = get::<BaseRow>(base, path.as_str())?;
            if stands.is_some_and(|row| row.entry.is_none() && row.batch == *batch) {
                base.remove(path.as_str()).map_err(text)?;
            }
        }
    }
    Ok(())
}

/// Returns the row of the base at a path.
pub(super) fn base_row(store: &Database, path: &RelPath) -> Result<Option<BaseRow>, String> {
    let txn = store.begin_read().map_err(text)?;
    match txn.open_table(BASE) {
        Ok(base) => get(&base, path.as_str()),
        // Just forgotten.
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(text(error)),
    }
}

/// Returns the paths of the base below a path.
pub(super) fn base_below(store: &Database, top: &RelPath) -> Result<Vec<RelPath>, String> {
    let (first, end) = (format!("{top}/"), format!("{top}0"));
    let txn = store.begin_read().map_err(text)?;
    let base = match txn.open_table(BASE) {
        Ok(base) => base,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(text(error)),
    };
    let rows = base.range(first.as_str()..end.as_str()).map_err(text)?;
    rows.map(|row| parse(row.map_err(text)?.0.value()))
        .collect()
}

/// Returns some rows of the base after a text.
pub(super) fn base_after(
    store: &Database,
    after: Option<&str>,
    most: usize,
) -> Result<Vec<(RelPath, BaseRow)>, String> {
    use std::ops::Bound::{Excluded, Unbounded};
    let txn = store.begin_read().map_err(text)?;
    let base = match txn.open_table(BASE) {
        Ok(base) => base,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(text(error)),
    };
    let from = after.map_or(Unbounded, Excluded);
    let rows = base.range::<&str>((from, Unbounded)).map_err(text)?;
    rows.take(most)
        .map(|row| {
            let (path, row) = row.map_err(text)?;
            Ok((parse(path.value())?, decode(row.value())?))
        })
        .collect()
}

/// Returns the chunks of a content.
pub(super) fn manifest(store: &Database, content: ContentHash) -> Result<Option<Manifest>, String> {
    let txn = store.begin_read().map_err(text)?;
    let manifests = txn.open_table(MANIFESTS).map_err(text)?;
    let value = manifests.get(content.as_bytes()).map_err(text)?;
    value.map(|value| decode(value.value())).transpose()
}

fn drop_unused_manifests(store: &Database, seen: &[(RelPath, SeenRow)]) -> Result<(), String> {
    let mut unused: HashSet<ContentHash> = HashSet::new();
    let txn = store.begin_read().map_err(text)?;
    for row in txn
        .open_table(MANIFESTS)
        .map_err(text)?
        .iter()
        .map_err(text)?
    {
        unused.insert(ContentHash::from_bytes(*row.map_err(text)?.0.value()));
    }
    for (_, row) in seen {
        if let Entry::File { content, .. } = &row.entry {
            unused.remove(content);
        }
    }
    if unused.is_empty() {
        return Ok(());
    }
    let txn = begin_write(store, Durability::None)?;
    {
        let mut manifests = txn.open_table(MANIFESTS).map_err(text)?;
        for content in &unused {
            manifests.remove(content.as_bytes()).map_err(text)?;
        }
    }
    txn.commit().map_err(text)
}

fn begin_write(store: &Database, durability: Durability) -> Result<WriteTransaction, String> {
    let mut txn = store.begin_write().map_err(text)?;
    txn.set_durability(durability).map_err(text)?;
    // After a crash the file opens in a millisecond instead of being walked as a whole.
    txn.set_quick_repair(matches!(durability, Durability::Immediate));
    Ok(txn)
}

fn get<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<T>, String> {
    table
        .get(key)
        .map_err(text)?
        .map(|value| decode(value.value()))
        .transpose()
}

fn put(
    table: &mut redb::Table<'_, &str, &[u8]>,
    key: &str,
    value: &impl Serialize,
) -> Result<(), String> {
    table.insert(key, encode(value)?.as_slice()).map_err(text)?;
    Ok(())
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, String> {
    postcard::to_extend(value, vec![ROW_VERSION]).map_err(text)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&ROW_VERSION, rest)) => postcard::from_bytes(rest).map_err(text),
        Some((version, _)) => Err(format!("a row of version {version}")),
        None => Err("an empty row".to_owned()),
    }
}

fn parse(path: &str) -> Result<RelPath, String> {
    RelPath::parse(path).map_err(text)
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn text(error: impl ToString) -> String {
    error.to_string()
}
