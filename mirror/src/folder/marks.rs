//! The marks of a folder: what each node wrote of its copies, in a file of its own.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::hash::ContentHash;
use shared::mirror::Mark;

use super::walk::Found;

/// So many more lines than files make it worth to write the file anew.
const SPARE_LINES: usize = 1000;

/// One line: what was written at a path, and how it looked then.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    path: String,
    id: String,
    len: u64,
    mtime: i64,
    mark: BTreeMap<String, String>,
}

/// A mark, and what it was written for.
#[derive(Debug, Clone)]
struct Written {
    id: String,
    is_dir: bool,
    len: u64,
    mtime_ns: i64,
    mark: Mark,
}

/// All marks of the folder.
#[derive(Default)]
pub(super) struct Marks {
    dir: PathBuf,
    own: String,
    /// By the name of the file, how far it was read.
    read: HashMap<String, u64>,
    /// By path and writer.
    by_path: HashMap<PathBuf, HashMap<String, Written>>,
    /// Where something of an id was written last.
    by_id: HashMap<String, PathBuf>,
    /// Lines in the own file.
    lines: usize,
}

impl Marks {
    pub(super) fn new(dir: PathBuf, node: &str) -> Self {
        // Names of nodes are for people; this one is a file's.
        let short = ContentHash::of_bytes(node.as_bytes()).short();
        let plain: String = node
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .take(40)
            .collect();
        Self {
            dir,
            own: format!("{plain}.{short}.jsonl"),
            ..Self::default()
        }
    }

    /// Reads what was written since the last time.
    pub(super) fn read(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if !name.ends_with(".jsonl") {
                continue;
            }
            let mut from = self.read.get(&name).copied().unwrap_or(0);
            let len = entry.metadata()?.len();
            if len < from {
                // Its writer has written it anew.
                self.forget(&name);
                from = 0;
            }
            if len > from {
                let read = self.read_from(&name, from)?;
                self.read.insert(name, read);
            }
        }
        if self.lines > 2 * self.own_count() + SPARE_LINES {
            self.write_anew()?;
        }
        Ok(())
    }

    fn read_from(&mut self, name: &str, from: u64) -> io::Result<u64> {
        let mut file = File::open(self.dir.join(name))?;
        file.seek(SeekFrom::Start(from))?;
        let mut reader = BufReader::new(file);
        let mut at = from;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            // A line without an end is still being written.
            if read == 0 || line.last() != Some(&b'\n') {
                return Ok(at);
            }
            at += read as u64;
            if let Ok(line) = serde_json::from_slice::<Line>(&line) {
                self.take(name, &line);
            }
            self.lines += usize::from(name == self.own);
        }
    }

    fn take(&mut self, name: &str, line: &Line) {
        let Some(mark) = Mark::parse(|key| line.mark.get(key).cloned()) else {
            return;
        };
        let path = PathBuf::from(&line.path);
        let written = Written {
            id: line.id.clone(),
            is_dir: mark.entry.is_dir(),
            len: line.len,
            mtime_ns: line.mtime,
            mark,
        };
        self.by_id.insert(line.id.clone(), path.clone());
        self.by_path
            .entry(path)
            .or_default()
            .insert(name.to_owned(), written);
    }

    fn forget(&mut self, name: &str) {
        for writers in self.by_path.values_mut() {
            writers.remove(name);
        }
        if name == self.own {
            self.lines = 0;
        }
    }

    fn own_count(&self) -> usize {
        let own = |writers: &&HashMap<String, Written>| writers.contains_key(&self.own);
        self.by_path.values().filter(own).count()
    }

    /// Returns the mark of what stands at a path, and whether it is still what the mark was written for.
    pub(super) fn of(&self, path: &Path, found: &Found) -> Option<(&Mark, bool)> {
        let fits = |written: &&Written| {
            written.is_dir == found.is_dir
                && (found.is_dir || written.len == found.len && written.mtime_ns == found.mtime_ns)
        };
        let here = self.by_path.get(path).into_iter().flat_map(HashMap::values);
        // Somebody renamed it: the file is the same one.
        let moved = self
            .by_id
            .get(&found.id)
            .and_then(|at| self.by_path.get(at))
            .into_iter()
            .flat_map(HashMap::values)
            .filter(|written| written.id == found.id && !written.is_dir);
        let latest = |written: &&Written| (written.mark.batch, written.mark.writing);
        let as_written = here.clone().filter(fits).max_by_key(latest);
        let as_written = as_written.or_else(|| moved.filter(fits).max_by_key(latest));
        if let Some(written) = as_written {
            return Some((&written.mark, true));
        }
        // A person has edited what was written here.
        let edited = here
            .filter(|written| !written.is_dir && found.is_file)
            .max_by_key(latest)?;
        Some((&edited.mark, false))
    }

    /// Writes a mark for what stands at a path.
    pub(super) fn write(&mut self, path: &Path, found: &Found, mark: &Mark) -> io::Result<()> {
        let line = Line {
            path: path.to_string_lossy().into_owned(),
            id: found.id.clone(),
            len: found.len,
            mtime: found.mtime_ns,
            mark: mark.properties().into_iter().collect(),
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join(&self.own))?;
        // After a crash the last line may have no end.
        let len = file.metadata()?.len();
        if len > 0 && !ends_with_a_line(&self.dir.join(&self.own), len)? {
            file.write_all(b"\n")?;
        }
        file.write_all(&text)?;
        let own = self.own.clone();
        self.take(&own, &line);
        self.lines += 1;
        let len = file.metadata()?.len();
        self.read.insert(own, len);
        Ok(())
    }

    /// Writes the own file with what counts alone.
    fn write_anew(&mut self) -> io::Result<()> {
        let fresh = self.dir.join(format!("{}.new", self.own));
        let mut file = File::create(&fresh)?;
        let mut text = Vec::new();
        let mut lines = 0;
        for (path, writers) in &self.by_path {
            let Some(written) = writers.get(&self.own) else {
                continue;
            };
            let line = Line {
                path: path.to_string_lossy().into_owned(),
                id: written.id.clone(),
                len: written.len,
                mtime: written.mtime_ns,
                mark: written.mark.properties().into_iter().collect(),
            };
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
            lines += 1;
        }
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&fresh, self.dir.join(&self.own))?;
        self.read.insert(self.own.clone(), text.len() as u64);
        self.lines = lines;
        Ok(())
    }
}

fn ends_with_a_line(path: &Path, len: u64) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(len - 1))?;
    let mut last = [0];
    io::Read::read_exact(&mut file, &mut last)?;
    Ok(last == *b"\n")
}
