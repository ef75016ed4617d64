//! Looks at an index without opening it: is every page what was written?
//!
//! The store can check itself, but only a store that may be written, because it mends what it finds.
//! So it is given the file with an *overlay*: reads come from the file, writes stay in memory and
//! are dropped. The file is neither locked nor changed, whatever is wrong with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;

use redb::{Database, StorageBackend};

use super::{CACHE_BYTES, FILE, table};
use crate::examine::IndexFound;
use crate::root::ReplicaId;

/// The grain of the overlay: the store writes whole pages of this size or multiples of it.
const BLOCK_BYTES: u64 = 4096;

/// Examines the index in `state`.
pub(crate) fn examine(state: &Path, replica: ReplicaId) -> IndexFound {
    let path = state.join(FILE);
    let before = match print(&path) {
        Ok(before) => before,
        Err(error) if error.kind() == ErrorKind::NotFound => return IndexFound::Absent,
        Err(error) => return IndexFound::Unreadable(error),
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) => return IndexFound::Unreadable(error),
    };
    // A store that runs into pages of garbage may do worse than fail; it is given up then.
    let found = catch_unwind(AssertUnwindSafe(|| check(file, before.0, replica)))
        .unwrap_or_else(|_| IndexFound::Damaged("its pages make no sense".to_owned()));
    match (found, print(&path)) {
        // Read while somebody wrote: what looks like damage may be none.
        (IndexFound::Damaged(_), Ok(after)) if after != before => IndexFound::Changing,
        (found, _) => found,
    }
}

fn check(file: File, len: u64, replica: ReplicaId) -> IndexFound {
    if len == 0 {
        return IndexFound::Absent;
    }
    let overlay = Overlay {
        file,
        state: Mutex::new(State {
            file_len: len,
            len,
            blocks: BTreeMap::new(),
        }),
    };
    let opened = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(overlay);
    let mut store = match opened {
        Ok(store) => store,
        Err(error) => return IndexFound::Damaged(error.to_string()),
    };
    match store.check_integrity() {
        Ok(true) => {}
        Ok(false) => return IndexFound::Damaged("a checksum does not fit".to_owned()),
        Err(error) => return IndexFound::Damaged(error.to_string()),
    }
    match table::load(&store, replica) {
        Ok(Some(loaded)) => IndexFound::Sound {
            stamp: loaded.stamp,
            rows: loaded.base.len(),
        },
        Ok(None) => IndexFound::Foreign,
        Err(damage) => IndexFound::Damaged(damage),
    }
}

/// What tells that a file was not written meanwhile.
fn print(path: &Path) -> io::Result<(u64, i64, i64, u64)> {
    let stat = std::fs::metadata(path)?;
    Ok((stat.len(), stat.mtime(), stat.mtime_nsec(), stat.ino()))
}

/// A file that can be written without being changed.
#[derive(Debug)]
struct Overlay {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How much of the file still shows through: what was cut off does not come back.
    file_len: u64,
    len: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    fn block(&self, state: &State, number: u64) -> io::Result<Box<[u8]>> {
        if let Some(block) = state.blocks.get(&number) {
            return Ok(block.clone());
        }
        let mut block = vec![0; BLOCK_BYTES as usize].into_boxed_slice();
        let begin = number * BLOCK_BYTES;
        let there = state.file_len.saturating_sub(begin).min(BLOCK_BYTES) as usize;
        self.file.read_exact_at(&mut block[..there], begin)?;
        Ok(block)
    }
}

/// Cuts a range into pieces of one block each: the block, the place in it, the place in the range.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let inside = (at % BLOCK_BYTES) as usize;
        let most = (BLOCK_BYTES as usize - inside).min(len - done);
        let range = done..done + most;
        done += most;
        Some((at / BLOCK_BYTES, inside, range))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(crate::lock(&self.state).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = crate::lock(&self.state);
        if offset.saturating_add(out.len() as u64) > state.len {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        for (number, inside, range) in pieces(offset, out.len()) {
            let block = self.block(&state, number)?;
            let len = range.len();
            out[range].copy_from_slice(&block[inside..inside + len]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = crate::lock(&self.state);
        if len < state.len {
            // The block that is cut in two keeps its first part; zeros follow.
            let last = len / BLOCK_BYTES;
            let mut block = self.block(&state, last)?;
            block[(len % BLOCK_BYTES) as usize..].fill(0);
            state.blocks.split_off(&last);
            state.blocks.insert(last, block);
            state.file_len = state.file_len.min(len);
        }
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = crate::lock(&self.state);
        for (number, inside, range) in pieces(offset, data.len()) {
            let mut block = self.block(&state, number)?;
            let len = range.len();
            block[inside..inside + len].copy_from_slice(&data[range]);
            state.blocks.insert(number, block);
        }
        state.len = state.len.max(offset + data.len() as u64);
        Ok(())
    }
}
