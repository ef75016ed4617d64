//! Give: reads content for the other side.
//!
//! Small files travel many in one pack, as deltas where the taker has something to make them from; of a long
//! file first the list of chunks goes, then the chunks that the other side asks for. Everything is checked against what the plan saw: a file that
//! changed since is [`Part::Gone`], and the next plan sees it as it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::Stat;
use rustix::io::Errno;
use shared::chunk::{Chunk, Manifest};
use shared::delta::{DELTA_BYTES_MAX, Form, Known};
use shared::hash::{ContentHash, PLAIN_BYTES_MAX};
use shared::merge::content_of;
use shared::path::RelPath;
use shared::transfer::{
    ChunkRun, DeltaBase, Item, MANIFEST_CHUNKS_MAX, Old, PackedFile, Part, weave,
};
use shared::tree::Entry;

use crate::fingerprint::{self, Fingerprint, now_ns};
use crate::sqlite::beside::wal_of;
use crate::sqlite::locks::TreeFile;
use crate::sqlite::{self, Activity};
use crate::{Replica, delta, handle, lock, read, volume};

/// A pack is sent when it has grown to this many bytes.
const PACK_BYTES: usize = 1024 * 1024;
/// A run of chunks is sent when the next one would make it longer than this.
const RUN_BYTES: usize = 1024 * 1024;
/// Many files in one window: slow enough to find what they share.
const PACK_LEVEL: i32 = 3;
/// Long files: fast enough for a fast link.
const RUN_LEVEL: i32 = 1;
/// A run whose beginning does not shrink is sent as it is.
const PROBE_BYTES: usize = 4096;

impl Replica {
    /// Reads items and hands them over as parts, in the order of the items as far as packing allows.
    /// What a part is about is durable here, under its name, before the part is handed over: as soon as
    /// the other side has all parts, it may record that both agree on them.
    ///
    /// # Errors
    /// Those of `sink`, and those of making the content durable. An item that cannot be read is
    /// [`Part::Gone`].
    pub fn give(
        &self,
        items: &[Item],
        sink: &mut dyn FnMut(Part) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut giving = Giving {
            replica: self,
            sink,
            pack: Pack::default(),
            above: None,
            given: Vec::new(),
            dirs: BTreeMap::new(),
            more: false,
        };
        for item in items {
            giving.item(item)?;
        }
        giving.flush()
    }

    /// Reads runs of chunks of a long file and hands them over, in order. Of a run in the place of which the
    /// taker has something (`olds`), only what it does not have. `None` means that the file is not what it
    /// was; nothing follows then.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn give_chunks(
        &self,
        item: &Item,
        runs: &[(u32, u32)],
        olds: &[Old],
        sink: &mut dyn FnMut(Option<ChunkRun>) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some((file, manifest)) = self.open_chunked(item) else {
            return sink(None);
        };
        let offsets: Vec<(u64, &Chunk)> = manifest.with_offsets().collect();
        for &(first, count) in runs {
            let end = u64::from(first) + u64::from(count);
            let wanted = usize::try_from(end)
                .ok()
                .and_then(|end| offsets.get(first as usize..end));
            let Some(mut wanted) = wanted else {
                return sink(None);
            };
            let old = olds.iter().find(|old| old.first == first);
            let mut next = first;
            while !wanted.is_empty() {
                let (now, later) = wanted.split_at(chunks_in_run(wanted));
                // Blocks are named for short runs, which go in one piece.
                let old = old.filter(|_| later.is_empty() && next == first);
                let Some(run) = read_run(&file, next, now, old) else {
                    return sink(None);
                };
                next += run.count;
                sink(Some(run))?;
                wanted = later;
            }
        }
        Ok(())
    }

    /// Opens a long file with its chunks, if it still is what the item says.
    fn open_chunked(&self, item: &Item) -> Option<(TreeFile, Manifest)> {
        let mut opened = self.open_content(&item.path, &item.entry).ok()?;
        let manifest = self.chunks_of_opened(item, &mut opened)?;
        Some((opened.file, manifest))
    }

    fn chunks_of_opened(&self, item: &Item, opened: &mut Opened) -> Option<Manifest> {
        // A snapshot is named by its content, and never changes.
        let known = opened
            .is_snapshot
            .then(|| self.index.manifest(item.entry.identity()));
        known
            .flatten()
            .or_else(|| self.chunks_of(&item.path, &item.entry, &mut opened.file, &opened.stat))
    }

    /// Opens what stands at a path, or the snapshot of it when it is a database in use. Whether it has
    /// the content of `entry` is still to be seen.
    pub(crate) fn open_content(&self, path: &RelPath, entry: &Entry) -> Result<Opened, Errno> {
        let dir = || handle::open_parent(self.root.as_fd(), path).map(Arc::new);
        self.open_content_in(dir, path, entry)
    }

    /// As [`Replica::open_content`], with the directory that holds `path`.
    fn open_content_in(
        &self,
        dir: impl FnOnce() -> Result<Arc<OwnedFd>, Errno>,
        path: &RelPath,
        entry: &Entry,
    ) -> Result<Opened, Errno> {
        let snapshot = || self.snapshots.open(&self.root, entry.identity());
        let opened = |(file, stat), is_snapshot| Opened {
            file,
            stat,
            is_snapshot,
        };
        if let Some(found) = snapshot() {
            return Ok(opened(found, true));
        }
        let dir = dir()?;
        let (file, stat) = handle::open_file(&dir, path.name())?;
        if let Some(header) = sqlite::header(&file, &stat)
            && sqlite::activity(&dir, path.name(), header, &stat, now_ns())? == Activity::Live
        {
            drop(file);
            self.renew_snapshot(path);
            return snapshot()
                .map(|found| opened(found, true))
                .ok_or(Errno::BUSY);
        }
        Ok(opened((file, stat), false))
    }

    /// Returns the chunks of an open file whose entry must be `entry`: from the index when the file is
    /// as it was seen, else by reading it.
    pub(crate) fn chunks_of(
        &self,
        path: &RelPath,
        entry: &Entry,
        file: &mut File,
        stat: &Stat,
    ) -> Option<Manifest> {
        let Entry::File { content, len, exec } = entry else {
            return None;
        };
        let print = Fingerprint::of(stat, self.root.device);
        let as_seen = lock(&self.seen)
            .row(path)
            .is_some_and(|row| row.entry == *entry && row.print == print && !row.racy);
        if as_seen && let Some(manifest) = self.index.manifest(*content) {
            return Some(manifest);
        }
        let read = read::content_of(file).ok()?;
        let equal =
            read.hash == *content && read.len == *len && fingerprint::is_exec(stat) == *exec;
        if equal { read.manifest } else { None }
    }
}

/// A file that is opened to be given.
pub(crate) struct Opened {
    pub(crate) file: TreeFile,
    pub(crate) stat: Stat,
    is_snapshot: bool,
}

impl Replica {
    /// Returns in which form a content travels, and the bytes that do unless it is the content itself.
    /// `None` when it has to travel as chunks.
    fn delta(&self, base: Option<DeltaBase>, content: &[u8]) -> Option<(Form, Option<Vec<u8>>)> {
        let mut known = Known {
            len: content.len() as u64,
            base_len: base.map(|base| base.len),
            is_append: base.is_some_and(|base| {
                let head = content.get(..base.len as usize);
                head.is_some_and(|head| content_of(head) == base.content)
            }),
            has_base: false,
        };
        let patch = || {
            let base = base.filter(|base| !known.is_append && base.len <= DELTA_BYTES_MAX)?;
            delta::encode(&self.base(base.content)?, content)
        };
        let patch = patch();
        known.has_base = patch.is_some();
        let form = shared::delta::choose(known)?;
        let bytes = match form {
            Form::Whole => None,
            Form::Tail => Some(content[base.map_or(0, |base| base.len as usize)..].to_vec()),
            Form::Patch => patch,
        };
        Some((form, bytes))
    }

    /// Says whether it is worth reading a content of this length for a delta.
    fn may_be_delta(&self, base: DeltaBase, len: u64) -> bool {
        base.len <= DELTA_BYTES_MAX && (base.len < len || self.bases.has(&self.root, base.content))
    }

    /// Keeps contents as they have travelled, as bases of what comes next. What does not compress is no
    /// text, and no delta would be shorter.
    pub(crate) fn remember(&self, whole: &[(ContentHash, u32, u32)], packed: &[u8]) {
        let kept = self.bases.keep(&self.root, whole, packed);
        note_forgotten(kept);
    }

    /// Keeps contents that were made from others.
    pub(crate) fn remember_each(&self, contents: &[Vec<u8>]) {
        note_forgotten(self.bases.keep_each(&self.root, contents));
    }
}

fn note_forgotten(kept: io::Result<()>) {
    if let Err(error) = kept {
        tracing::debug!(%error, "what has travelled was not kept for deltas");
    }
}

/// The state of one [`Replica::give`].
struct Giving<'a> {
    replica: &'a Replica,
    sink: &'a mut dyn FnMut(Part) -> io::Result<()>,
    pack: Pack,
    /// The directory of the last item: neighbours come one after another.
    above: Option<Above>,
    /// Some of the files that are being given, and of their directories, to be made durable.
    given: Vec<TreeFile>,
    dirs: BTreeMap<Option<RelPath>, Arc<OwnedFd>>,
    more: bool,
}

/// A directory that holds what is given.
#[derive(Clone)]
struct Above {
    path: Option<RelPath>,
    dir: Arc<OwnedFd>,
    /// Whether it, and all above it, has a durable name.
    is_durable: bool,
}

#[derive(Default)]
struct Pack {
    files: Vec<PackedFile>,
    bytes: Vec<u8>,
    /// The contents that are whole in `bytes`: hash, offset and length.
    whole: Vec<(ContentHash, u32, u32)>,
    /// The contents of which `bytes` has less.
    others: Vec<Vec<u8>>,
    /// What is moved at the taker's.
    stands: Vec<u32>,
}

impl Giving<'_> {
    fn item(&mut self, item: &Item) -> io::Result<()> {
        if item.is_moved() {
            return self.moved(item);
        }
        let Entry::File { len, .. } = item.entry else {
            return self.gone(item);
        };
        let Ok(above) = self.above(&item.path) else {
            return self.gone(item);
        };
        let dir = || Ok(above.dir.clone());
        let opened = self.replica.open_content_in(dir, &item.path, &item.entry);
        let Ok(opened) = opened else {
            return self.gone(item);
        };
        if opened.is_snapshot {
            self.live_is_given(item);
        }
        let base = item.base.filter(|_| len <= DELTA_BYTES_MAX);
        if len <= PLAIN_BYTES_MAX || base.is_some_and(|base| self.replica.may_be_delta(base, len)) {
            self.small(item, above, opened)
        } else {
            self.long(item, above, opened)
        }
    }

    /// Opens the directory of a path, unless it is that of the path before.
    fn above(&mut self, path: &RelPath) -> Result<Above, Errno> {
        let parent = path.parent();
        if let Some(above) = self.above.as_ref().filter(|above| above.path == parent) {
            return Ok(above.clone());
        }
        let root = self.replica.root.as_fd();
        let dir = Arc::new(handle::open_parent(root, path)?);
        let is_durable = |above: &RelPath| {
            let stat = handle::stat_at(root, above.as_str()).ok().flatten();
            stat.is_some_and(|stat| self.replica.flushed.covers(&stat))
        };
        let above = Above {
            is_durable: path.ancestors().all(|above| is_durable(&above)),
            path: parent,
            dir,
        };
        self.above = Some(above.clone());
        Ok(above)
    }

    /// Gives a file whose content fits into memory, unless it has to travel as chunks: then its turn comes
    /// after this.
    fn small(&mut self, item: &Item, above: Above, mut opened: Opened) -> io::Result<()> {
        let stat = opened.stat;
        let len = fingerprint::len(&stat).min(DELTA_BYTES_MAX + 1) as usize;
        let mut content = vec![0; len];
        let read = read::read_full(&mut *opened.file, &mut content).unwrap_or(0);
        content.truncate(read);
        let entry = Entry::File {
            content: content_of(&content),
            len: read as u64,
            exec: fingerprint::is_exec(&stat),
        };
        if entry != item.entry {
            return self.gone(item);
        }
        let Some((form, bytes)) = self.replica.delta(item.base, &content) else {
            return self.long(item, above, opened);
        };
        self.is_given(above, opened.file, &stat);
        let start = self.pack.bytes.len();
        self.pack
            .bytes
            .extend_from_slice(bytes.as_deref().unwrap_or(&content));
        let len = (self.pack.bytes.len() - start) as u32;
        if form == Form::Whole {
            self.pack
                .whole
                .push((item.entry.identity(), start as u32, len));
        } else {
            self.pack.others.push(content);
        }
        self.pack.files.push(PackedFile {
            index: item.index,
            len,
            mtime_ns: fingerprint::mtime_ns(&stat),
            form,
        });
        if self.pack.bytes.len() >= PACK_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn long(&mut self, item: &Item, above: Above, mut opened: Opened) -> io::Result<()> {
        let Some(manifest) = self.replica.chunks_of_opened(item, &mut opened) else {
            return self.gone(item);
        };
        let mtime_ns = fingerprint::mtime_ns(&opened.stat);
        self.is_given(above, opened.file, &opened.stat);
        self.make_durable()?;
        let base = item.base.filter(|base| base.len > PLAIN_BYTES_MAX);
        if let Some(base) = base.and_then(|base| self.replica.index.manifest(base.content)) {
            let pieces = shared::transfer::pieces(&manifest, &base);
            if pieces.len() < manifest.chunks.len().min(MANIFEST_CHUNKS_MAX) {
                let index = item.index;
                return (self.sink)(Part::Edited {
                    index,
                    mtime_ns,
                    pieces,
                });
            }
        }
        let mut pieces = manifest.chunks.chunks(MANIFEST_CHUNKS_MAX).peekable();
        while let Some(piece) = pieces.next() {
            (self.sink)(Part::Manifest {
                index: item.index,
                mtime_ns,
                manifest: Manifest {
                    chunks: piece.to_vec(),
                },
                more: pieces.peek().is_some(),
            })?;
        }
        Ok(())
    }

    /// Says that something stands here which the taker has, too, and moves to the same place.
    fn moved(&mut self, item: &Item) -> io::Result<()> {
        let is_known = lock(&self.replica.seen)
            .row(&item.path)
            .is_some_and(|row| row.entry == item.entry);
        let Ok(above) = self.above(&item.path) else {
            return self.gone(item);
        };
        let there = handle::stat_at(&above.dir, item.path.name()).ok().flatten();
        let (true, Some(stat)) = (is_known, there) else {
            return self.gone(item);
        };
        match &item.entry {
            Entry::File { .. } => match handle::open_file(&above.dir, item.path.name()) {
                Ok((file, stat)) => self.is_given(above, file, &stat),
                Err(_) => return self.gone(item),
            },
            // Nobody holds open what is in it, or the link.
            Entry::Dir | Entry::Symlink { .. } => {
                self.more |= !(above.is_durable && self.replica.flushed.covers(&stat));
            }
        }
        self.pack.stands.push(item.index);
        Ok(())
    }

    fn gone(&mut self, item: &Item) -> io::Result<()> {
        (self.sink)(Part::Gone { index: item.index })
    }

    /// What both sides are about to agree on are the commits in the live database; a snapshot is only
    /// their copy.
    fn live_is_given(&mut self, item: &Item) {
        let name = item.path.name();
        for name in [name.to_owned(), wal_of(name)] {
            if let Ok(above) = self.above(&item.path)
                && let Ok((file, stat)) = handle::open_file(&above.dir, name)
            {
                self.is_given(above, file, &stat);
            }
        }
    }

    fn is_given(&mut self, above: Above, file: TreeFile, stat: &Stat) {
        if above.is_durable && self.replica.flushed.covers(stat) {
            return;
        }
        if volume::worth_holding(self.given.len() + self.dirs.len() + 1) {
            self.given.push(file);
            self.dirs.entry(above.path).or_insert(above.dir);
        } else {
            self.more = true;
        }
    }

    /// Makes what is being given durable. Both sides are about to agree on it: if a power cut here
    /// emptied a file that was never flushed, or took its name, that would count as an edit and win.
    fn make_durable(&mut self) -> io::Result<()> {
        let more = std::mem::take(&mut self.more);
        let (given, dirs) = (
            std::mem::take(&mut self.given),
            std::mem::take(&mut self.dirs),
        );
        let open: Vec<BorrowedFd<'_>> = given
            .iter()
            .map(AsFd::as_fd)
            .chain(dirs.values().map(AsFd::as_fd))
            .collect();
        if open.is_empty() && !more {
            return Ok(());
        }
        let root = self.replica.root.as_fd();
        self.replica.flushed.all(root, &open, more)
    }

    fn flush(&mut self) -> io::Result<()> {
        let pack = std::mem::take(&mut self.pack);
        if pack.files.is_empty() && pack.stands.is_empty() {
            return Ok(());
        }
        self.make_durable()?;
        for index in pack.stands {
            (self.sink)(Part::Stands { index })?;
        }
        if pack.files.is_empty() {
            return Ok(());
        }
        let (zstd, bytes) = shrink(pack.bytes, PACK_LEVEL);
        if zstd {
            self.replica.remember(&pack.whole, &bytes);
        }
        let files = pack.files;
        (self.sink)(Part::Pack { files, zstd, bytes })?;
        self.replica.remember_each(&pack.others);
        Ok(())
    }
}

/// Returns how many of these chunks go into one run: at least one.
fn chunks_in_run(chunks: &[(u64, &Chunk)]) -> usize {
    let mut bytes = 0;
    let fitting = chunks.iter().take_while(|(_, chunk)| {
        bytes += chunk.len as usize;
        bytes <= RUN_BYTES
    });
    fitting.count().max(1)
}

/// Reads consecutive chunks, each verified; `None` when they are not what they were.
fn read_run(
    file: &File,
    first: u32,
    chunks: &[(u64, &Chunk)],
    old: Option<&Old>,
) -> Option<ChunkRun> {
    let mut bytes = Vec::with_capacity(RUN_BYTES);
    for (offset, chunk) in chunks {
        let start = bytes.len();
        bytes.resize(start + chunk.len as usize, 0);
        file.read_exact_at(&mut bytes[start..], *offset).ok()?;
        if ContentHash::of_bytes(&bytes[start..]) != chunk.hash {
            return None;
        }
    }
    let (copies, bytes) = match old {
        Some(old) => weave(&old.blocks, &bytes),
        None => (Vec::new(), bytes),
    };
    // A run is of one file, so its beginning speaks for the rest of it.
    let probe = &bytes[..bytes.len().min(PROBE_BYTES)];
    let (zstd, bytes) = match shorter(probe, RUN_LEVEL) {
        Some(_) => shrink(bytes, RUN_LEVEL),
        None => (false, bytes),
    };
    Some(ChunkRun {
        first,
        count: chunks.len() as u32,
        copies,
        zstd,
        bytes,
    })
}

/// Compresses bytes when that makes them shorter, and says whether it did.
fn shrink(bytes: Vec<u8>, level: i32) -> (bool, Vec<u8>) {
    match shorter(&bytes, level) {
        Some(packed) => (true, packed),
        None => (false, bytes),
    }
}

fn shorter(bytes: &[u8], level: i32) -> Option<Vec<u8>> {
    zstd::bulk::compress(bytes, level)
        .ok()
        .filter(|packed| packed.len() < bytes.len())
}

#[cfg(test)]
mod tests;
