//! Kept: what was displaced from the tree.
//!
//! `kept/<id>` is the very file that stood at a path; nothing is copied. `catalogue.jsonl` has a line
//! for each, written and durable *before* the file is displaced, so a crash never leaves one that
//! nobody can find. A line whose file is not there says that the displacement did not happen, or not
//! yet. A later line with the same id corrects an earlier one; a torn last line is none.

mod retention;
pub(crate) mod room;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use shared::control::{Below, Pick, VERSIONS_MAX, Version};
use shared::hash::ContentHash;
use shared::path::RelPath;
use shared::tree::Entry;
use shared::utc::UtcMs;

use retention::{Candidate, Room};

use crate::root::{Root, replace_private};
use crate::volume::At;
use crate::{Replica, fingerprint, handle, lock, read};

const CATALOGUE: &str = "catalogue.jsonl";
/// A line without its file may still be about to have one while it is younger.
const ANNOUNCED: Duration = Duration::from_secs(3600);

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptLimits {
    /// What is older goes.
    pub age: Duration,
    /// This much may be kept in any case, in bytes.
    pub bytes_min: u64,
    /// And this much of the size of the tree, in percent.
    pub tree_percent: u8,
    /// What is younger stays, however much it is.
    pub age_min: Duration,
}

impl Default for KeptLimits {
    /// 30 days; 1 GiB or 10 % of the tree, whichever is more; nothing younger than 24 hours goes.
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            age: 30 * DAY,
            bytes_min: 1024 * 1024 * 1024,
            tree_percent: 10,
            age_min: DAY,
        }
    }
}

/// What pruning removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// How many versions.
    pub versions: u64,
    /// The bytes in them.
    pub bytes: u64,
}

/// A line of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) id: String,
    pub(crate) at: UtcMs,
    pub(crate) path: RelPath,
    #[serde(flatten)]
    pub(crate) what: What,
    pub(crate) why: String,
    pub(crate) node: String,
    /// The inode of the staged file that was to take the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) staged: Option<u64>,
}

/// What was displaced, in words that a person who reads the catalogue understands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum What {
    File {
        content: String,
        len: u64,
        exec: bool,
    },
    Link {
        target: Box<str>,
    },
    Dir,
}

impl From<&Entry> for What {
    fn from(entry: &Entry) -> Self {
        match entry {
            Entry::File { content, len, exec } => Self::File {
                content: content.to_string(),
                len: *len,
                exec: *exec,
            },
            Entry::Symlink { target } => Self::Link {
                target: target.clone(),
            },
            Entry::Dir => Self::Dir,
        }
    }
}

/// Describes what lies at a name; `None` when it cannot be read.
pub(crate) fn what_is(at: At<'_>, stat: &Stat) -> Option<What> {
    match fingerprint::kind(stat) {
        FileType::RegularFile => {
            let (mut file, _) = handle::open_file(at.dir, at.name).ok()?;
            let content = read::content_of(&mut file).ok()?;
            let exec = fingerprint::is_exec(stat);
            Some(What::File {
                content: content.hash.to_string(),
                len: content.len,
                exec,
            })
        }
        FileType::Symlink => {
            let target = handle::read_link(at.dir, at.name).ok()?;
            Some(What::Link {
                target: String::from_utf8_lossy(&target).into(),
            })
        }
        FileType::Directory => Some(What::Dir),
        _ => None,
    }
}

impl Line {
    /// Returns the length of the content, in bytes.
    pub(crate) fn len(&self) -> u64 {
        match self.what {
            What::File { len, .. } => len,
            What::Link { .. } | What::Dir => 0,
        }
    }

    /// Returns what a person is shown who asked for `path`.
    pub(crate) fn version(&self, path: &RelPath) -> Version {
        let (content, len) = match &self.what {
            What::File { content, len, .. } => (content.parse::<ContentHash>().ok(), *len),
            What::Link { .. } | What::Dir => (None, 0),
        };
        Version {
            version: self.id.clone(),
            path: (self.path != *path).then(|| self.path.clone()),
            at: self.at,
            len,
            content,
            why: self.why.clone(),
            node: self.node.clone(),
        }
    }
}

/// The store.
pub(crate) struct Kept {
    root: Arc<Root>,
    pub(crate) node: String,
    limits: KeptLimits,
    /// The catalogue, open for appending.
    catalogue: Mutex<File>,
    /// When removing versions freed nothing, last time that the disk was full.
    futile: Mutex<Option<Instant>>,
}

impl Kept {
    pub(crate) fn open(root: &Arc<Root>, node: &str, limits: KeptLimits) -> io::Result<Self> {
        let catalogue = Mutex::new(open_catalogue(root)?);
        Ok(Self {
            root: root.clone(),
            node: node.to_owned(),
            limits,
            catalogue,
            futile: Mutex::default(),
        })
    }

    /// Appends lines. They are durable only after [`Kept::sync`].
    pub(crate) fn append(&self, lines: &[Line]) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        let mut file = lock(&self.catalogue);
        let whole = file.metadata()?.len();
        file.write_all(&text).inspect_err(|_| {
            // Half a line would swallow the next one.
            file.set_len(whole).ok();
        })
    }

    /// Makes appended lines durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        lock(&self.catalogue).sync_data()
    }

    /// Returns all lines, oldest first, each id once.
    pub(crate) fn lines(&self) -> io::Result<Vec<Line>> {
        let mut file = lock(&self.catalogue);
        read_lines(&mut file)
    }

    /// Returns the lines about a path whose file is there, the latest first.
    pub(crate) fn of_path(&self, path: &RelPath) -> io::Result<Vec<Line>> {
        let mut found = self.lines()?;
        found.retain(|line| line.path == *path && line.what != What::Dir && self.holds(&line.id));
        found.sort_by_key(|line| std::cmp::Reverse(line.at));
        Ok(found)
    }

    /// Returns the lines about what lies below a folder whose file is there, oldest first.
    fn below(&self, folder: &RelPath) -> io::Result<Vec<Line>> {
        let mut found = self.lines()?;
        found.retain(|line| {
            line.path.is_below(folder) && line.what != What::Dir && self.holds(&line.id)
        });
        Ok(found)
    }

    /// Returns the lines of these names below a folder, in the order of their paths.
    pub(crate) fn named(&self, folder: &RelPath, names: &[String]) -> io::Result<Vec<Line>> {
        let names: HashSet<&str> = names.iter().map(String::as_str).collect();
        let mut found = self.lines()?;
        found.retain(|line| {
            names.contains(line.id.as_str()) && line.path.is_below(folder) && line.what != What::Dir
        });
        found.sort_by(|a, b| a.path.cmp(&b.path).then(a.at.cmp(&b.at)));
        Ok(found)
    }

    /// Returns the lines of what was displaced since a time.
    pub(crate) fn since(&self, time: UtcMs) -> io::Result<Vec<Line>> {
        let mut file = lock(&self.catalogue);
        // Most lines are older, and need not be parsed to know it.
        let is_late = |line: &[u8]| announced_at(line).is_none_or(|at| at >= time.0);
        let mut found = parse_lines(&mut file, is_late)?;
        found.retain(|line| line.at >= time);
        Ok(found)
    }

    fn holds(&self, id: &str) -> bool {
        matches!(handle::stat_at(&self.root.kept, id), Ok(Some(_)))
    }

    /// Removes what is too old or too much, and what the volume lacks, in bytes. `stands` says whether
    /// something stands at a path.
    fn prune(
        &self,
        now: UtcMs,
        tree_bytes: u64,
        lacking: u64,
        stands: &dyn Fn(&RelPath) -> bool,
    ) -> io::Result<Pruned> {
        let mut catalogue = lock(&self.catalogue);
        let lines = read_lines(&mut catalogue)?;
        let before = lines.len();
        let mut announced = Vec::new();
        let mut there = Vec::new();
        for line in lines {
            match handle::stat_at(&self.root.kept, line.id.as_str())? {
                Some(stat) => there.push((line, stat)),
                None if now.0.saturating_sub(line.at.0) < ANNOUNCED.as_millis() as u64 => {
                    announced.push(line);
                }
                None => {}
            }
        }
        there.sort_by_key(|(line, _)| line.at);
        let percent = u128::from(tree_bytes) * u128::from(self.limits.tree_percent) / 100;
        let bytes_max = u64::try_from(percent)
            .unwrap_or(u64::MAX)
            .max(self.limits.bytes_min);
        let room = Room { bytes_max, lacking };
        let candidates: Vec<Candidate<'_>> = there
            .iter()
            .map(|(line, stat)| Candidate {
                path: &line.path,
                at: line.at,
                len: fingerprint::len(stat),
                frees: frees(stat),
                stands: stands(&line.path),
            })
            .collect();
        let going = retention::going(&candidates, &self.limits, room, now);
        drop(candidates);
        let mut pruned = Pruned::default();
        let mut staying = announced;
        for ((line, stat), goes) in there.into_iter().zip(going) {
            if goes {
                self.remove(&line)?;
                pruned.versions += 1;
                pruned.bytes += fingerprint::len(&stat);
            } else {
                staying.push(line);
            }
        }
        if staying.len() == before {
            return Ok(pruned);
        }
        staying.sort_by_key(|line| line.at);
        let mut text = Vec::new();
        for line in &staying {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        match replace_private(&self.root.kept, CATALOGUE, &text) {
            Ok(_) => *catalogue = open_catalogue(&self.root)?,
            // The old one has lines too many, which say nothing.
            Err(error) if pruned.versions > 0 => {
                tracing::warn!(%error, "the catalogue of kept versions was not shortened");
            }
            Err(error) => return Err(error),
        }
        Ok(pruned)
    }

    fn remove(&self, line: &Line) -> io::Result<()> {
        let flags = if line.what == What::Dir {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        match unlinkat(&self.root.kept, line.id.as_str(), flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Replica {
    /// Returns the kept versions of a path and of what lies below it, the latest first; of many below
    /// it the latest [`VERSIONS_MAX`].
    ///
    /// # Errors
    /// When the catalogue cannot be read.
    pub fn versions(&self, path: &RelPath) -> io::Result<Vec<Version>> {
        let mut lines = self.kept.below(path)?;
        let first = lines.len().saturating_sub(VERSIONS_MAX);
        lines.drain(..first);
        lines.extend(self.kept.of_path(path)?);
        lines.sort_by_key(|line| std::cmp::Reverse(line.at));
        Ok(lines.iter().map(|line| line.version(path)).collect())
    }

    /// Returns the versions kept here that a restore of a folder means, one of each path, in the order
    /// of the paths: a page of [`VERSIONS_MAX`].
    ///
    /// # Errors
    /// When the catalogue cannot be read.
    pub fn versions_below(&self, folder: &RelPath, below: &Below) -> io::Result<Vec<Version>> {
        let mut lines = self.kept.below(folder)?;
        if below.pick == Pick::Latest {
            let seen = lock(&self.seen);
            lines.retain(|line| seen.get(&line.path).is_none());
        }
        let versions = lines.iter().map(|line| line.version(folder)).collect();
        let mut meant = shared::history::one_each(versions, &below.pick);
        if let Some(after) = &below.after {
            meant.retain(|version| version.path.as_ref().is_some_and(|path| path > after));
        }
        meant.truncate(VERSIONS_MAX);
        Ok(meant)
    }
}

/// Returns what removing a file gives back to the volume, in bytes.
fn frees(stat: &Stat) -> u64 {
    if fingerprint::links(stat) > 1 {
        return 0;
    }
    // Of a short file the blocks may lie in the inode, which is given back as well.
    fingerprint::allocated(stat).max(1)
}

fn open_catalogue(root: &Root) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(
        &root.kept,
        CATALOGUE,
        flags,
        Mode::RUSR | Mode::WUSR,
    )?);
    // A torn last line must not swallow the first one that is appended now.
    if file.seek(SeekFrom::End(0))? > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

fn read_lines(file: &mut File) -> io::Result<Vec<Line>> {
    parse_lines(file, |_| true)
}

fn parse_lines(file: &mut File, is_wanted: impl Fn(&[u8]) -> bool) -> io::Result<Vec<Line>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    let mut lines: Vec<Line> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for line in text
        .split(|byte| *byte == b'\n')
        .filter(|line| is_wanted(line))
    {
        let Ok(line) = serde_json::from_slice::<Line>(line) else {
            continue;
        };
        match places.get(&line.id) {
            Some(&place) => lines[place] = line,
            None => {
                places.insert(line.id.clone(), lines.len());
                lines.push(line);
            }
        }
    }
    Ok(lines)
}

/// Returns the time in a line as [`Kept::append`] writes it: an id, then the time.
fn announced_at(line: &[u8]) -> Option<u64> {
    let line = line.strip_prefix(b"{\"id\":\"")?;
    let id_len = line.iter().position(|byte| *byte == b'"')?;
    let digits = line[id_len..].strip_prefix(b"\",\"at\":")?;
    let len = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..len]).ok()?.parse().ok()
}

/// Returns a new name for something staged or kept: the time, so that names sort by age, and a number
/// that no other one in this process has.
pub(crate) fn new_id(now: UtcMs) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) & 0xf_ffff;
    format!("{:011x}{count:05x}", now.0)
}

#[cfg(test)]
mod tests;
