//! Bases: contents that both sides had lately, kept as prefixes of deltas and as ancestors of merges.
//!
//! By the time a delta or a merge is wanted, what it starts from has been overwritten. So what is given or
//! taken is kept, compressed, in `.layer-sync/bases`: many contents in one *record*, as they travelled
//! together, and many records in one *segment*, a file that only grows. When the store is full, the oldest
//! segment goes.
//!
//! Nothing here is made durable, and a content counts only when it has its hash. Losing any of it costs
//! bytes on the wire, or a merge, never data.

mod segment;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use rustix::fs::{AtFlags, Mode, mkdirat, unlinkat};
use rustix::io::Errno;
use shared::hash::ContentHash;
use shared::merge::{MERGE_BYTES_MAX, content_of};
use shared::path::RelPath;
use shared::tree::Entry;

use crate::root::Root;
use crate::{Replica, fingerprint, handle, lock};
use segment::{Record, name_of, number_of};

/// Name of the folder in the private folder.
const BASES: &str = "bases";
/// Most bytes that the store takes on disk.
const STORE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A segment that has grown to this is followed by the next one.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// Fast: what travels was compressed better already, and is kept as it travelled.
const LEVEL: i32 = 1;

/// The store; it is read when it is needed for the first time.
#[derive(Debug)]
pub(crate) struct Bases {
    bytes_max: u64,
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    dir: OwnedFd,
    /// The contents, by the beginning of their hash; the rest is checked when they are read.
    places: HashMap<u64, Place>,
    /// The length of each segment.
    segments: BTreeMap<u32, u64>,
}

/// Where a content is.
#[derive(Debug, Clone, Copy)]
struct Place {
    segment: u32,
    /// Where its record begins.
    at: u32,
    /// The number of the content in its record.
    index: u32,
}

impl Default for Bases {
    fn default() -> Self {
        Self::with_room(STORE_BYTES_MAX)
    }
}

impl Bases {
    fn with_room(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            state: Mutex::new(None),
        }
    }

    /// Runs `work` on the opened store.
    fn with<T>(
        &self,
        root: &Root,
        work: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = lock(&self.state);
        if state.is_none() {
            *state = Some(State::load(root)?);
        }
        match state.as_mut() {
            Some(state) => work(state),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Says whether a content was kept. It may be damaged.
    pub(crate) fn has(&self, root: &Root, content: ContentHash) -> bool {
        self.with(root, |state| Ok(state.places.contains_key(&key(content))))
            .unwrap_or(false)
    }

    /// Keeps contents: `list` says where each lies in what `packed` is the zstd frame of.
    pub(crate) fn keep(
        &self,
        root: &Root,
        list: &[(ContentHash, u32, u32)],
        packed: &[u8],
    ) -> io::Result<()> {
        if list.is_empty() {
            return Ok(());
        }
        self.with(root, |state| {
            state.append(list, packed)?;
            state.make_room(self.bytes_max)
        })
    }

    /// Keeps contents that did not travel together.
    pub(crate) fn keep_each<B: AsRef<[u8]>>(&self, root: &Root, contents: &[B]) -> io::Result<()> {
        let mut list = Vec::with_capacity(contents.len());
        let mut bytes = Vec::new();
        for content in contents.iter().map(AsRef::as_ref) {
            list.push((
                content_of(content),
                bytes.len() as u32,
                content.len() as u32,
            ));
            bytes.extend_from_slice(content);
        }
        self.keep(root, &list, &zstd::bulk::compress(&bytes, LEVEL)?)
    }

    /// Returns a kept content; `None` when it is not there, or is damaged.
    pub(crate) fn get(&self, root: &Root, content: ContentHash) -> Option<Vec<u8>> {
        self.with(root, |state| Ok(state.read(content))).ok()?
    }
}

impl State {
    fn load(root: &Root) -> io::Result<Self> {
        match mkdirat(&root.private, BASES, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let mut state = Self {
            dir: handle::open_dir(&root.private, BASES)?,
            places: HashMap::new(),
            segments: BTreeMap::new(),
        };
        let names = handle::list(&state.dir)?;
        let numbers = names.iter().filter_map(|name| number_of(name));
        let mut numbers: Vec<u32> = numbers.collect();
        numbers.sort_unstable();
        for number in numbers {
            let (file, stat) = handle::open_file(&state.dir, name_of(number))?;
            let mut at = 0;
            while let Some((record, next)) = segment::head(&file, at) {
                state.put(number, at, &record);
                at = next;
            }
            // After what a crash left half written nothing is appended.
            let whole = u64::from(at) == fingerprint::len(&stat);
            let len = if whole { u64::from(at) } else { SEGMENT_BYTES };
            state.segments.insert(number, len);
        }
        Ok(state)
    }

    fn put(&mut self, segment: u32, at: u32, record: &Record) {
        for (index, (content, ..)) in (0..).zip(&record.list) {
            let place = Place { segment, at, index };
            self.places.insert(key(*content), place);
        }
    }

    fn append(&mut self, list: &[(ContentHash, u32, u32)], packed: &[u8]) -> io::Result<()> {
        let record = Record {
            list: list.to_vec(),
        };
        let bytes = record.with(packed);
        let (number, at) = match self.segments.last_key_value() {
            Some((number, len)) if *len < SEGMENT_BYTES => (*number, *len),
            last => (last.map_or(0, |(number, _)| number + 1), 0),
        };
        // Whatever happens now, nothing is appended to a half-written record.
        self.segments.insert(number, SEGMENT_BYTES);
        segment::write(&self.dir, number, at, &bytes)?;
        self.segments.insert(number, at + bytes.len() as u64);
        self.put(number, at as u32, &record);
        Ok(())
    }

    fn read(&mut self, content: ContentHash) -> Option<Vec<u8>> {
        let place = *self.places.get(&key(content))?;
        let file = handle::open_file(&self.dir, name_of(place.segment)).ok();
        let found = file.and_then(|(file, _)| segment::read(&file, place.at, place.index));
        let found = found.filter(|bytes| content_of(bytes) == content);
        if found.is_none() {
            self.places.remove(&key(content));
        }
        found
    }

    /// Removes the oldest segments until the store is within its bound.
    fn make_room(&mut self, bytes_max: u64) -> io::Result<()> {
        while self.segments.len() > 1 && self.segments.values().sum::<u64>() > bytes_max {
            let Some((oldest, _)) = self.segments.pop_first() else {
                break;
            };
            self.places.retain(|_, place| place.segment != oldest);
            unlinkat(&self.dir, name_of(oldest), AtFlags::empty())?;
        }
        Ok(())
    }
}

fn key(content: ContentHash) -> u64 {
    let mut start = [0; 8];
    start.copy_from_slice(&content.as_bytes()[..8]);
    u64::from_le_bytes(start)
}

impl Replica {
    /// Keeps the content of a file for a later merge, if it still is `entry`.
    ///
    /// # Errors
    /// Those of the file system; then it is not kept, and nothing else is touched.
    pub fn keep_base(&self, path: &RelPath, entry: &Entry) -> io::Result<()> {
        let Entry::File { content, len, .. } = entry else {
            return Ok(());
        };
        if self.bases.has(&self.root, *content) {
            return Ok(());
        }
        match self.read_expected(path, *content, *len)? {
            Some(bytes) => self.bases.keep_each(&self.root, &[bytes]),
            None => Ok(()),
        }
    }

    /// Returns a kept content; `None` when it is not there, or is damaged.
    pub(crate) fn base(&self, content: ContentHash) -> Option<Vec<u8>> {
        self.bases.get(&self.root, content)
    }

    /// Reads a file of the tree that has to have this content; `None` when it has another one.
    pub(crate) fn read_expected(
        &self,
        path: &RelPath,
        content: ContentHash,
        len: u64,
    ) -> io::Result<Option<Vec<u8>>> {
        let (mut file, stat) = match handle::open_tree_file(self.root.as_fd(), path) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if fingerprint::len(&stat) != len || len > MERGE_BYTES_MAX {
            return Ok(None);
        }
        let bytes = read_bounded(&mut file)?;
        Ok((content_of(&bytes) == content).then_some(bytes))
    }
}

/// Reads at most one byte more than can be merged.
pub(crate) fn read_bounded(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MERGE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
