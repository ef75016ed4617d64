//! Restore: a tree from its mirror alone, on a machine that knows nothing.
//!
//! Each file is received beside its place, compared with the sum that the mirror tells and with the hash in its mark, and only then
//! gets its name. What is there already and is the same is not fetched again, so a restore that was cut short goes on; a long file
//! goes on in its middle. What is there and is something else stays, and is told.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use shared::chunk::Chunker;
use shared::hash::{ContentHash, PLAIN_BYTES_MAX};
use shared::path::RelPath;
use shared::tree::Entry;

use crate::patient::read_all;
use crate::store::{Place, Store, StoreError};
use crate::sum::Sum;
use crate::target::{Change, Item, Kind, Target, Wrong};

/// The folder in which files are received.
const RECEIVING: &str = ".layer-sync-restoring";
/// How often in a row a download may bring nothing.
const READ_TRIES: u32 = 6;
/// Most sentences about what was not restored.
const FAILED_MAX: usize = 100;
const BLOCK: usize = 1024 * 1024;

/// How far a restore has come, or what it did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restored {
    /// Files and links in the mirror.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Those that stand where they should, so far.
    pub files_done: u64,
    /// Bytes in them.
    pub bytes_done: u64,
    /// Those of them that stood there before.
    pub unchanged: u64,
    /// What was not restored, a sentence each, the first hundred.
    pub failed: Vec<String>,
    /// How many were not.
    pub failures: u64,
}

impl Restored {
    fn fail(&mut self, text: String) {
        self.failures += 1;
        if self.failed.len() < FAILED_MAX {
            self.failed.push(text);
        }
    }
}

/// Restores the tree that a target holds into a folder, which is made if it is not there.
///
/// # Errors
/// Why it could not go on. What was restored stays, and the next try goes on.
pub async fn restore<T: Target>(
    target: &T,
    into: &Path,
    mut progress: impl FnMut(&Restored),
) -> Result<Restored, Wrong> {
    let store = Store::in_memory("restore")?;
    store.set_root(&target.root().await?)?;
    let mut cursor: Option<String> = None;
    loop {
        let page = target.changes(cursor.as_deref()).await?;
        for change in &page.changes {
            match change {
                Change::Is(item) => drop(store.put(item, 0)?),
                Change::Gone(id) => store.take_out(id)?,
            }
        }
        cursor = Some(page.cursor);
        if !page.more {
            break;
        }
    }
    let mut done = Restored::default();
    let items = places(&store, &mut done)?;
    let files = items.values().filter(|item| item.kind != Kind::Folder);
    for item in files {
        done.files += 1;
        done.bytes += len(item);
    }
    let receiving = into.join(RECEIVING);
    fs::create_dir_all(&receiving)?;
    for (path, item) in &items {
        let at = into.join(path.as_str());
        match put(target, item, &at, &receiving).await {
            Ok(was_there) => {
                if item.kind != Kind::Folder {
                    done.files_done += 1;
                    done.bytes_done += len(item);
                    done.unchanged += u64::from(was_there);
                }
            }
            Err(Wrong::Refused(text)) => done.fail(format!("\"{path}\": {text}")),
            Err(wrong) if wrong.is_local() => done.fail(format!("\"{path}\": {wrong}")),
            Err(wrong) => return Err(wrong),
        }
        progress(&done);
    }
    if done.failures == 0 {
        fs::remove_dir_all(&receiving)?;
    }
    File::open(into)
        .and_then(|dir| disk::sync_volume(&dir))
        .map_err(Wrong::from)?;
    Ok(done)
}

fn len(item: &Item) -> u64 {
    match item.kind {
        Kind::File { len, .. } => len,
        _ => 0,
    }
}

/// Returns what is to stand where; a directory before what lies in it.
fn places(store: &Store, done: &mut Restored) -> Result<BTreeMap<RelPath, Item>, StoreError> {
    let mut items = BTreeMap::new();
    for id in store.ids()? {
        let Some(item) = store.item(&id)? else {
            continue;
        };
        match (&item.kind, store.place(&item)?) {
            (_, Place::Elsewhere) => {}
            (_, Place::NoPath(name)) => {
                done.fail(format!("\"{name}\" has a name that no file can have"));
            }
            (Kind::Other(what), Place::Path(path)) => {
                done.fail(format!("\"{path}\" is {what}, which has no bytes"));
            }
            (_, Place::Path(path)) => {
                let at = store.at(&path)?;
                match at.item {
                    Some(counts) if counts.id == item.id => drop(items.insert(path, item)),
                    Some(counts) if counts.kind == Kind::Folder && item.kind == Kind::Folder => {}
                    _ => done.fail(format!(
                        "there is more than one \"{path}\"; one of them was restored"
                    )),
                }
            }
        }
    }
    Ok(items)
}

/// Puts one item where it should stand; says whether it stood there already.
async fn put<T: Target>(
    target: &T,
    item: &Item,
    at: &Path,
    receiving: &Path,
) -> Result<bool, Wrong> {
    let there = match at.symlink_metadata() {
        Ok(there) => Some(there),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let Kind::File { len, sum } = item.kind else {
        return match there {
            Some(there) if there.is_dir() => Ok(true),
            Some(_) => Err(stands()),
            None => fs::create_dir(at).map(|()| false).map_err(Wrong::from),
        };
    };
    // What a person edited is what it is now; the rest of the mark stays true.
    let mark = item.mark.as_ref();
    let is_as_marked = mark.is_some_and(|mark| sum.is_none() || mark.sum == sum);
    let entry = mark.map(|mark| &mark.entry);
    if let Some(Entry::Symlink { target: to }) = entry.filter(|_| is_as_marked) {
        return match (fs::read_link(at), there) {
            (Ok(found), _) if found == Path::new(&**to) => Ok(true),
            (_, Some(_)) => Err(stands()),
            (_, None) => symlink(&**to, at).map(|()| false).map_err(Wrong::from),
        };
    }
    let exec = matches!(entry, Some(Entry::File { exec: true, .. }));
    let wanted = entry.filter(|_| is_as_marked).map(Entry::identity);
    if let Some(there) = there {
        let is_same = there.is_file() && there.len() == len && is_it(at, sum, wanted)?;
        if !is_same {
            return Err(stands());
        }
        dress(&File::open(at)?, exec, item.mtime_ns)?;
        return Ok(true);
    }
    let part = receiving.join(ContentHash::of_bytes(item.id.as_bytes()).to_string());
    let from = part.metadata().map_or(0, |part| part.len()).min(len);
    let mut file = OpenOptions::new().create(true).append(true).open(&part)?;
    file.set_len(from)?;
    let come = read_all(target, item, from, READ_TRIES, |bytes| {
        Ok(file.write_all(bytes)?)
    })
    .await?;
    if come != len || !is_it(&part, sum, wanted)? {
        // It may have been begun from another version.
        fs::remove_file(&part)?;
        if from > 0 {
            return Box::pin(put(target, item, at, receiving)).await;
        }
        return Err(Wrong::Refused(
            "what came is not what the mirror says that it is".to_owned(),
        ));
    }
    dress(&file, exec, item.mtime_ns)?;
    file.sync_data()?;
    fs::rename(&part, at)?;
    Ok(false)
}

fn stands() -> Wrong {
    Wrong::Refused("something else stands there already; it was left as it is".to_owned())
}

fn dress(file: &File, exec: bool, mtime_ns: i64) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode();
    let bits = if exec { mode | 0o111 } else { mode & !0o111 };
    if bits != mode {
        file.set_permissions(Permissions::from_mode(bits))?;
    }
    // A courtesy, as everywhere.
    let since = Duration::from_nanos(u64::try_from(mtime_ns).unwrap_or(0));
    if mtime_ns > 0 {
        file.set_modified(UNIX_EPOCH + since).ok();
    }
    Ok(())
}

/// Says whether a file is what it should be, by every hash that is known.
fn is_it(path: &Path, sum: Option<[u8; 32]>, content: Option<ContentHash>) -> Result<bool, Wrong> {
    let (found, hash) = hashes(path)?;
    Ok(sum.is_none_or(|sum| sum == found) && content.is_none_or(|content| content == hash))
}

fn hashes(path: &Path) -> io::Result<([u8; 32], ContentHash)> {
    let mut file = File::open(path)?;
    let is_long = file.metadata()?.len() > PLAIN_BYTES_MAX;
    let mut sum = Sum::default();
    let mut chunker = Chunker::default();
    let mut whole = Vec::new();
    let mut buffer = vec![0; BLOCK];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        sum.add(&buffer[..read]);
        match is_long {
            true => chunker.push(&buffer[..read]),
            false => whole.extend_from_slice(&buffer[..read]),
        }
    }
    let content = match is_long {
        true => chunker.finish().content(),
        false => ContentHash::of_bytes(&whole),
    };
    Ok((sum.finish(), content))
}

/// Says where a folder that is restored into keeps what is being received.
pub fn receiving(into: &Path) -> PathBuf {
    into.join(RECEIVING)
}
