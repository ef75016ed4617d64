//! Bases: contents that both sides agreed on, kept for a later merge.
//!
//! A three-way merge needs what both started from, and by then both have overwritten it. So where a merge
//! is wanted, the content is kept, compressed, from the moment at which it is agreed on:
//! `.layer-sync/bases/<content hash>`. The store is bounded; what was not used for longest goes first.
//! Losing any of it costs a merge, never data: without a base, both versions stay.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, Timespec, Timestamps, mkdirat, unlinkat, utimensat};
use rustix::io::Errno;
use shared::hash::ContentHash;
use shared::merge::{MERGE_BYTES_MAX, content_of};
use shared::path::RelPath;
use shared::tree::Entry;

use crate::root::Root;
use crate::{Replica, fingerprint, handle, now_ns};

/// Name of the folder in the private folder.
const BASES: &str = "bases";
/// Most bytes that the store takes on disk.
const STORE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Good compression at a speed that a small text does not notice.
const ZSTD_LEVEL: i32 = 3;

impl Replica {
    /// Keeps the content of a file for a later merge, if it still is `entry`.
    ///
    /// # Errors
    /// Those of the file system; then it is not kept, and nothing else is touched.
    pub fn keep_base(&self, path: &RelPath, entry: &Entry) -> io::Result<()> {
        let Entry::File { content, len, .. } = entry else {
            return Ok(());
        };
        let dir = open_store(&self.root)?;
        let name = content.to_string();
        if handle::stat_at(&dir, name.as_str())?.is_some() {
            return Ok(touch(&dir, &name)?);
        }
        let Some(bytes) = self.read_expected(path, *content, *len)? else {
            return Ok(());
        };
        let packed = zstd::bulk::compress(&bytes, ZSTD_LEVEL)?;
        make_room(&dir, packed.len() as u64)?;
        let fresh = format!("{name}.new");
        match unlinkat(&dir, fresh.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let mut file = handle::create_file(&dir, &fresh)?;
        file.write_all(&packed)?;
        // Not made durable: what a power cut damages is found by its hash, and no base is lost data.
        Ok(rustix::fs::renameat(
            &dir,
            fresh.as_str(),
            &dir,
            name.as_str(),
        )?)
    }

    /// Returns a kept content; `None` when it is not there, or is damaged.
    pub(crate) fn base(&self, content: ContentHash) -> Option<Vec<u8>> {
        let dir = open_store(&self.root).ok()?;
        let name = content.to_string();
        let (file, _) = handle::open_file(&dir, name.as_str()).ok()?;
        let mut packed = Vec::new();
        file.take(MERGE_BYTES_MAX).read_to_end(&mut packed).ok()?;
        let bytes = zstd::bulk::decompress(&packed, MERGE_BYTES_MAX as usize).ok()?;
        if content_of(&bytes) != content {
            unlinkat(&dir, name.as_str(), AtFlags::empty()).ok();
            return None;
        }
        touch(&dir, &name).ok();
        Some(bytes)
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

fn open_store(root: &Root) -> Result<OwnedFd, Errno> {
    match mkdirat(&root.private, BASES, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => handle::open_dir(&root.private, BASES),
        Err(error) => Err(error),
    }
}

/// Says that a content was of use just now.
fn touch(dir: impl AsFd, name: &str) -> Result<(), Errno> {
    let now = now_ns();
    let time = Timespec {
        tv_sec: now.div_euclid(1_000_000_000),
        tv_nsec: now.rem_euclid(1_000_000_000) as _,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// Removes what was not used for longest until `bytes` more fit.
fn make_room(dir: impl AsFd, bytes: u64) -> io::Result<()> {
    let mut held = Vec::new();
    for name in handle::list(&dir)? {
        let Ok(name) = String::from_utf8(name.into()) else {
            continue;
        };
        if let Some(stat) = handle::stat_at(&dir, name.as_str())? {
            held.push((fingerprint::mtime_ns(&stat), fingerprint::len(&stat), name));
        }
    }
    let mut total = bytes + held.iter().map(|(_, len, _)| len).sum::<u64>();
    held.sort();
    for (_, len, name) in held {
        if total <= STORE_BYTES_MAX {
            break;
        }
        unlinkat(&dir, name.as_str(), AtFlags::empty())?;
        total -= len;
    }
    Ok(())
}
