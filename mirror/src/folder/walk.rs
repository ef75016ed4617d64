//! Walking the folder: what lies where, and what it is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use shared::hash::ContentHash;
use shared::ignore::is_litter;

use super::PRIVATE;
use super::marks::Marks;
use crate::sum::Sum;
use crate::target::{Item, Kind};

/// What the system says of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) is_dir: bool,
    pub(super) is_file: bool,
    pub(super) len: u64,
    pub(super) mtime_ns: i64,
    ctime_ns: i64,
}

/// What was found.
#[derive(Default)]
pub(super) struct Walked {
    items: BTreeMap<String, Item>,
    paths: HashMap<String, PathBuf>,
    ids: HashMap<PathBuf, String>,
    sums: HashMap<String, (Found, [u8; 32])>,
    /// What was done since by whoever asks: it may not have heard that it was.
    untold: HashSet<String>,
}

impl Walked {
    /// Walks. What was found before saves reading what is still the same.
    pub(super) fn walk(root: &Path, id: &str, marks: &Marks, before: &Self) -> io::Result<Self> {
        let mut walked = Self::default();
        let mut left = vec![PathBuf::new()];
        while let Some(dir) = left.pop() {
            for name in names(&root.join(&dir))? {
                let path = dir.join(name);
                let Some(found) = stat(&root.join(&path))? else {
                    continue;
                };
                let parent = match dir.as_os_str().is_empty() {
                    true => id.to_owned(),
                    false => id_of(&root.join(&dir))?,
                };
                let item = item(root, &path, &found, parent, marks, Some(before))?;
                if let Kind::File { sum: Some(sum), .. } = item.kind {
                    walked.sums.insert(found.id.clone(), (found.clone(), sum));
                }
                if found.is_dir {
                    left.push(path.clone());
                }
                walked.ids.insert(path.clone(), item.id.clone());
                walked.paths.insert(item.id.clone(), path);
                walked.items.insert(item.id.clone(), item);
            }
        }
        Ok(walked)
    }

    pub(super) fn items(&self) -> impl Iterator<Item = (&String, &Item)> {
        self.items.iter()
    }

    pub(super) fn item(&self, id: &str) -> Option<&Item> {
        self.items.get(id)
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.items.contains_key(id)
    }

    pub(super) fn path_of(&self, id: &str) -> Option<PathBuf> {
        self.paths.get(id).cloned()
    }

    /// Returns what was done since the walk, there or gone by now.
    pub(super) fn untold(&self) -> &HashSet<String> {
        &self.untold
    }

    /// Takes note of something that was written just now.
    pub(super) fn note(&mut self, path: &Path, item: &Item) {
        self.untold.insert(item.id.clone());
        if self.ids.get(path) != Some(&item.id) {
            self.forget(path);
        }
        self.ids.insert(path.to_owned(), item.id.clone());
        self.paths.insert(item.id.clone(), path.to_owned());
        self.items.insert(item.id.clone(), item.clone());
    }

    /// Takes note that what stood at a path does not any more.
    pub(super) fn forget(&mut self, path: &Path) {
        if let Some(id) = self.ids.remove(path) {
            self.untold.insert(id.clone());
            self.items.remove(&id);
            self.paths.remove(&id);
            self.sums.remove(&id);
        }
    }

    /// Takes note of a move.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) {
        for (id, path) in &mut self.paths {
            if let Ok(rest) = path.strip_prefix(from) {
                self.ids.remove(path);
                *path = match rest.as_os_str().is_empty() {
                    true => to.to_owned(),
                    false => to.join(rest),
                };
                self.ids.insert(path.clone(), id.clone());
            }
        }
    }
}

/// Lists the names of a folder that can be in a mirror.
pub(super) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        // What is not UTF-8 can be in no tree.
        if let Ok(name) = entry?.file_name().into_string()
            && name != PRIVATE
            && !is_litter(&name)
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Says what stands at a path, without following a link.
pub(super) fn stat(path: &Path) -> io::Result<Option<Found>> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let ns = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    let is_file = metadata.is_file();
    let inode = metadata.ino();
    // Two names of one file are two items.
    let id = match is_file && metadata.nlink() > 1 {
        true => format!(
            "{inode}.{}",
            ContentHash::of_bytes(path.as_os_str().as_bytes()).short()
        ),
        false => inode.to_string(),
    };
    Ok(Some(Found {
        id,
        is_dir: metadata.is_dir(),
        is_file,
        len: metadata.len(),
        mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
        ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
    }))
}

fn id_of(path: &Path) -> io::Result<String> {
    let found = stat(path)?.ok_or(io::ErrorKind::NotFound)?;
    Ok(found.id)
}

/// Opens a file, and nothing that a link leads to.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new()
        .read(true)
        .custom_flags(nofollow)
        .open(path)
}

/// Returns the item at a path.
pub(super) fn item_at(
    root: &Path,
    id: &str,
    path: &Path,
    marks: &Marks,
    before: Option<&Walked>,
) -> io::Result<Option<Item>> {
    let Some(found) = stat(&root.join(path))? else {
        return Ok(None);
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => id_of(&root.join(parent))?,
        _ => id.to_owned(),
    };
    item(root, path, &found, parent, marks, before).map(Some)
}

fn item(
    root: &Path,
    path: &Path,
    found: &Found,
    parent: String,
    marks: &Marks,
    before: Option<&Walked>,
) -> io::Result<Item> {
    let mark = marks.of(path, found);
    let kind = if found.is_dir {
        Kind::Folder
    } else if found.is_file {
        let marked = mark
            .filter(|(_, is_as_written)| *is_as_written)
            .and_then(|(mark, _)| mark.sum);
        let known = || {
            let (then, sum) = before?.sums.get(&found.id)?;
            (then == found).then_some(*sum)
        };
        let sum = match marked.or_else(known) {
            Some(sum) => sum,
            None => sum_of(&root.join(path))?,
        };
        Kind::File {
            len: found.len,
            sum: Some(sum),
        }
    } else {
        Kind::Other("a link or a device".to_owned())
    };
    let writing = mark.map_or(0, |(mark, _)| mark.writing);
    let version = match found.is_dir {
        true => format!("d.{writing:x}"),
        false => format!("{}.{}.{writing:x}", found.len, found.mtime_ns),
    };
    let name = path.file_name().unwrap_or_default();
    Ok(Item {
        id: found.id.clone(),
        parent,
        name: name.to_string_lossy().into_owned(),
        kind,
        mark: mark.map(|(mark, _)| mark.clone()),
        version,
        // That of a folder changes with what lies in it, which is told by itself.
        mtime_ns: if found.is_dir { 0 } else { found.mtime_ns },
    })
}

fn sum_of(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = open(path)?;
    let mut sum = Sum::default();
    let mut buffer = vec![0; super::BLOCK];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(sum.finish()),
            read => sum.add(&buffer[..read]),
        }
    }
}
