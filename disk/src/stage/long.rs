//! Long files: assembled from chunks, most of which this disk often has already.
//!
//! Chunks are looked for, in this order, in what an earlier attempt left, in the file that is about to
//! be replaced, and in a file of the tree that has the very content. Only the rest has to travel.
//! Whatever the origin, a chunk counts as held when its bytes were read or written here and had the
//! right hash.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::fs::{Mode, OFlags, fstat, fstatvfs, openat};
use rustix::io::Errno;
use shared::chunk::{Chunk, Manifest};
use shared::hash::{ContentHash, PLAIN_BYTES_MAX};
use shared::path::RelPath;
use shared::transfer::{
    BlockCopy, ChunkRun, EDITED_CHUNKS_MAX, OLDS_MAX, Old, Op, PART_BYTES_MAX, REGION_BYTES_MAX,
    blocks, missing_runs, name_of, unweave,
};
use shared::tree::Entry;

use super::{Ready, discard, ready_name};
use crate::root::Root;
use crate::sqlite::locks::TreeFile;
use crate::volume::At;
use crate::{Replica, fingerprint, handle, lock, read, volume};

/// So many bytes of a long file are written out together, beside those that come meanwhile. A small batch makes
/// its files durable, and on ext4 that can mean waiting for all data that was written before.
const UNSYNCED_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Most blocks that are named for one file, save for a last run that goes beyond: 128 KiB of names. A file of
/// which more has changed is no small edit.
const NAMES_MAX: usize = 16 * 1024;
/// Ending of a file that is not whole yet.
pub(crate) const PART: &str = ".part";

/// A long file on its way.
pub(super) struct Long {
    content: ContentHash,
    manifest: Manifest,
    offsets: Vec<u64>,
    held: Vec<bool>,
    left: usize,
    mtime_ns: i64,
    name: String,
    claim: Option<Claim>,
    unsynced_bytes: u64,
    /// The bytes before those are being written out.
    syncing: Option<JoinHandle<io::Result<()>>>,
    /// What stands at the target in the place of runs of chunks: offsets and lengths of its blocks.
    olds: BTreeMap<u32, Vec<(u64, u32)>>,
}

/// Returns the chunks of what stands at the target of an operation, if that is what the plan saw.
pub(super) fn chunks_at(replica: &Replica, op: &Op) -> Option<Manifest> {
    let entry = op.expect.as_ref()?;
    let (mut file, stat) = handle::open_tree_file(replica.root.as_fd(), &op.path).ok()?;
    replica.chunks_of(&op.path, entry, &mut file, &stat)
}

/// Says what is wrong with a list of chunks, or with its beginning.
pub(super) fn check_list(chunks: &[Chunk], len: u64, more: bool) -> Result<(), &'static str> {
    if len <= PLAIN_BYTES_MAX {
        return Err("a small file was sent in chunks");
    }
    let total: u64 = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
    if total > len || (!more && total != len) {
        return Err("the chunks do not add up to the length that was asked for");
    }
    // Even the last part of a list may end it early only where the length says so.
    if Manifest::is_plausible(chunks, total != len) {
        Ok(())
    } else {
        Err("a chunk is too short or too long")
    }
}

impl Long {
    /// Begins with a checked list; `None` when it does not make up the wanted content.
    pub(super) fn new(
        replica: &Replica,
        entry: &Entry,
        chunks: Vec<Chunk>,
        mtime_ns: i64,
    ) -> Option<Self> {
        let content = entry.identity();
        let manifest = Manifest { chunks };
        if manifest.content() != content {
            return None;
        }
        let offsets = manifest.with_offsets().map(|(offset, _)| offset).collect();
        let left = manifest.chunks.len();
        Some(Self {
            content,
            offsets,
            held: vec![false; left],
            left,
            mtime_ns,
            name: String::new(),
            manifest,
            claim: Claim::take(&replica.staging, content),
            unsynced_bytes: 0,
            syncing: None,
            olds: BTreeMap::new(),
        })
    }

    /// Gathers what this disk has, and returns the runs that it lacks.
    pub(super) fn begin(
        &mut self,
        replica: &Replica,
        target: &RelPath,
        id: &str,
    ) -> Result<Vec<(u32, u32)>, Errno> {
        // Another batch that is staging the same content right now has the name that is found again.
        self.name = match self.claim {
            Some(_) => format!("{}{PART}", self.content),
            None => format!("{id}{PART}"),
        };
        let mut donors = self.donors(replica, target);
        let file = self.open_part(&replica.root, donors.first())?;
        self.verify_part(&file);
        for (donor, manifest) in &mut donors {
            if self.left == 0 {
                break;
            }
            self.copy_from(donor, manifest, &file)
                .map_err(|error| read::errno(&error))?;
        }
        let runs = missing_runs(&self.manifest.chunks, |index, _| self.held[index]);
        let free = fstatvfs(&file)?;
        if self.missing_bytes() > free.f_bavail.saturating_mul(free.f_frsize) {
            return Err(Errno::NOSPC);
        }
        Ok(runs)
    }

    /// Returns how many bytes a run of chunks has, or `None` when there is no such run.
    pub(super) fn run_len(&self, run: &ChunkRun) -> Option<usize> {
        let end = run.first.checked_add(run.count)?;
        let chunks = self.manifest.chunks.get(run.first as usize..end as usize)?;
        let len: usize = chunks.iter().map(|chunk| chunk.len as usize).sum();
        (len <= PART_BYTES_MAX).then_some(len)
    }

    /// Takes the bytes of a run. Says false when a chunk is not what it should be.
    pub(super) fn add(&mut self, root: &Root, first: u32, bytes: &[u8]) -> Result<bool, Errno> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&root.stage, &self.name, flags, Mode::empty()).map(File::from)?;
        let mut rest = bytes;
        let mut index = first as usize;
        while !rest.is_empty() {
            let chunk = self.manifest.chunks[index];
            let (now, later) = rest.split_at(chunk.len as usize);
            if ContentHash::of_bytes(now) != chunk.hash {
                return Ok(false);
            }
            self.put(&file, index, now)
                .map_err(|error| read::errno(&error))?;
            rest = later;
            index += 1;
        }
        Ok(true)
    }

    /// Names the blocks of what stands at the target in the place of runs that are missing.
    pub(super) fn olds(
        &mut self,
        replica: &Replica,
        target: &RelPath,
        runs: &[(u32, u32)],
    ) -> Vec<Old> {
        let few = |(_, count): &&(u32, u32)| *count <= EDITED_CHUNKS_MAX;
        let short: Vec<(u32, u32)> = runs.iter().filter(few).take(OLDS_MAX).copied().collect();
        let entry = lock(&replica.seen).row(target).map(|row| row.entry.clone());
        let opened = handle::open_tree_file(replica.root.as_fd(), target).ok();
        let (Some(entry), Some((mut file, stat)), false) = (entry, opened, short.is_empty()) else {
            return Vec::new();
        };
        let Some(base) = replica.chunks_of(target, &entry, &mut file, &stat) else {
            return Vec::new();
        };
        let places: HashMap<ContentHash, usize> = (0..)
            .zip(&base.chunks)
            .map(|(number, chunk)| (chunk.hash, number))
            .collect();
        let offsets: Vec<u64> = base
            .with_offsets()
            .map(|(offset, _)| offset)
            .chain([base.len()])
            .collect();
        let mut olds: Vec<Old> = Vec::new();
        for (first, count) in short {
            if olds.iter().map(|old| old.blocks.len()).sum::<usize>() > NAMES_MAX {
                break;
            }
            let (from, to) = (first as usize, (first + count) as usize);
            // What lies between the neighbours, which both versions have.
            let before = match from.checked_sub(1) {
                Some(before) => places
                    .get(&self.manifest.chunks[before].hash)
                    .map(|at| at + 1),
                None => Some(0),
            };
            let after = match self.manifest.chunks.get(to) {
                Some(after) => places.get(&after.hash).copied(),
                None => Some(base.chunks.len()),
            };
            let (Some(before), Some(after)) = (before, after) else {
                continue;
            };
            if before >= after || offsets[after] - offsets[before] > REGION_BYTES_MAX {
                continue;
            }
            let mut region = vec![0; (offsets[after] - offsets[before]) as usize];
            if file.read_exact_at(&mut region, offsets[before]).is_err() {
                continue;
            }
            let mut at = offsets[before];
            let mut cuts = Vec::new();
            let mut names = Vec::new();
            for block in blocks(&region) {
                cuts.push((at, block.len() as u32));
                names.push(name_of(block));
                at += block.len() as u64;
            }
            self.olds.insert(first, cuts);
            olds.push(Old {
                first,
                blocks: names,
            });
        }
        olds
    }

    /// Returns how many bytes of a run are blocks that are here; `None` when they do not exist.
    pub(super) fn copied_len(&self, run: &ChunkRun) -> Option<usize> {
        let cuts = self.olds.get(&run.first).map_or(&[][..], Vec::as_slice);
        let mut len = 0;
        for copy in &run.copies {
            let end = copy.first.checked_add(copy.count)?;
            let cuts = cuts.get(copy.first as usize..end as usize)?;
            len += cuts.iter().map(|(_, len)| *len as usize).sum::<usize>();
            if len > PART_BYTES_MAX {
                return None;
            }
        }
        Some(len)
    }

    /// Puts a run together from what was sent and blocks of what stands at the target. Whether that is what
    /// it was, the hashes of the chunks say.
    pub(super) fn unwoven(
        &self,
        replica: &Replica,
        target: &RelPath,
        first: u32,
        copies: &[BlockCopy],
        sent: &[u8],
        len: usize,
    ) -> Option<Vec<u8>> {
        let cuts = self.olds.get(&first)?;
        let (start, _) = cuts.first()?;
        let (last, last_len) = cuts.last()?;
        let mut region = vec![0; (last + u64::from(*last_len) - start) as usize];
        let (file, _) = handle::open_tree_file(replica.root.as_fd(), target).ok()?;
        file.read_exact_at(&mut region, *start).ok()?;
        let block = |number: u32| {
            let (at, len) = cuts.get(number as usize)?;
            let at = (at - start) as usize;
            region.get(at..at + *len as usize)
        };
        unweave(copies, sent, len, block)
    }

    /// Forgets what stands in the place of a run, and says whether there was anything.
    pub(super) fn forget_old(&mut self, first: u32) -> bool {
        self.olds.remove(&first).is_some()
    }

    pub(super) fn is_whole(&self) -> bool {
        self.left == 0
    }

    /// Turns the whole file into a ready one.
    pub(super) fn end(&mut self, root: &Root, id: &str) -> Result<Ready, Errno> {
        // Only whoever asked for it hears of an error.
        self.await_written().map_err(|error| read::errno(&error))?;
        let ready = ready_name(id);
        volume::rename_new(
            At::new(&root.stage, &self.name),
            At::new(&root.stage, &ready),
        )?;
        let stat = handle::stat_at(&root.stage, ready.as_str())?.ok_or(Errno::NOENT)?;
        Ok(Ready {
            inode: fingerprint::inode(&stat),
            mtime_ns: Some(self.mtime_ns),
            dressed: None,
        })
    }

    /// Takes the chunks of a file that is whole.
    pub(super) fn take_manifest(&mut self) -> Manifest {
        std::mem::take(&mut self.manifest)
    }

    /// Removes what cannot be resumed: it has no name of its own, or holds nothing.
    pub(super) fn abandon(&self, root: &Root) {
        if self.claim.is_none() || self.left == self.held.len() {
            discard(root, &self.name);
        }
    }

    fn missing_bytes(&self) -> u64 {
        let chunks = self.held.iter().zip(&self.manifest.chunks);
        chunks
            .filter(|(held, _)| !**held)
            .map(|(_, chunk)| u64::from(chunk.len))
            .sum()
    }

    /// Opens the files of this disk that may have chunks of the content.
    fn donors(&self, replica: &Replica, target: &RelPath) -> Vec<(TreeFile, Manifest)> {
        let paths: HashSet<RelPath> = {
            let seen = lock(&replica.seen);
            seen.with_content(self.content)
                .into_iter()
                .chain([target.clone()])
                .collect()
        };
        let open = |path: &RelPath| {
            let entry = lock(&replica.seen).row(path)?.entry.clone();
            let (mut file, stat) = handle::open_tree_file(replica.root.as_fd(), path).ok()?;
            let manifest = replica.chunks_of(path, &entry, &mut file, &stat)?;
            Some((file, manifest))
        };
        let mut donors: Vec<_> = paths.iter().filter_map(open).collect();
        // The one with the very content first: on some volumes all of it is had for nothing.
        donors.sort_by_key(|(_, manifest)| manifest.content() != self.content);
        donors
    }

    /// Opens what an earlier attempt left, or begins anew, as a clone of a donor where the volume can.
    fn open_part(&self, root: &Root, donor: Option<&(TreeFile, Manifest)>) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&root.stage, &self.name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => {
                let clone =
                    donor.map(|(file, _)| volume::clone_file(&**file, &root.stage, &self.name));
                match clone {
                    Some(Ok(clone)) => File::from(clone),
                    _ => handle::create_file(&root.stage, &self.name)?,
                }
            }
            Err(error) => return Err(error),
        };
        file.set_len(self.manifest.len())
            .map_err(|error| read::errno(&error))?;
        Ok(file)
    }

    /// Finds the chunks that are in their place already.
    fn verify_part(&mut self, file: &File) {
        if fstat(file).is_ok_and(|stat| stat.st_blocks == 0) {
            return;
        }
        let mut buffer = Vec::new();
        for index in 0..self.held.len() {
            if read_chunk(
                file,
                self.offsets[index],
                &self.manifest.chunks[index],
                &mut buffer,
            ) {
                self.hold(index);
            }
        }
    }

    fn copy_from(&mut self, donor: &File, has: &Manifest, file: &File) -> io::Result<()> {
        let mut wanted: HashMap<ContentHash, Vec<usize>> = HashMap::new();
        for (index, chunk) in self.manifest.chunks.iter().enumerate() {
            if !self.held[index] {
                wanted.entry(chunk.hash).or_default().push(index);
            }
        }
        let mut buffer = Vec::new();
        for (offset, chunk) in has.with_offsets() {
            let Some(places) = wanted.remove(&chunk.hash) else {
                continue;
            };
            if read_chunk(donor, offset, chunk, &mut buffer) {
                for index in places {
                    self.put(file, index, &buffer)?;
                }
            }
        }
        Ok(())
    }

    /// Writes a verified chunk to its place.
    fn put(&mut self, file: &File, index: usize, bytes: &[u8]) -> io::Result<()> {
        if !self.held[index] {
            file.write_all_at(bytes, self.offsets[index])?;
            self.hold(index);
            self.unsynced_bytes += bytes.len() as u64;
            if self.unsynced_bytes > UNSYNCED_BYTES_MAX {
                self.write_out(file)?;
            }
        }
        Ok(())
    }

    /// Begins to write out what was written last, when what was written before that is on the disk.
    fn write_out(&mut self, file: &File) -> io::Result<()> {
        self.await_written()?;
        let file = file.try_clone()?;
        self.syncing = Some(thread::spawn(move || file.sync_data()));
        self.unsynced_bytes = 0;
        Ok(())
    }

    fn await_written(&mut self) -> io::Result<()> {
        match self.syncing.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(written)) => written,
            Some(Err(_)) => Err(io::Error::other("writing out ended in the middle")),
        }
    }

    fn hold(&mut self, index: usize) {
        self.held[index] = true;
        self.left -= 1;
    }
}

/// Reads a chunk and says whether it is the right one.
fn read_chunk(file: &File, offset: u64, chunk: &Chunk, buffer: &mut Vec<u8>) -> bool {
    buffer.resize(chunk.len as usize, 0);
    file.read_exact_at(buffer, offset).is_ok() && ContentHash::of_bytes(buffer) == chunk.hash
}

/// While one exists, nobody else stages this content under its own name.
struct Claim {
    claimed: Arc<Mutex<HashSet<ContentHash>>>,
    content: ContentHash,
}

impl Claim {
    fn take(claimed: &Arc<Mutex<HashSet<ContentHash>>>, content: ContentHash) -> Option<Self> {
        lock(claimed).insert(content).then(|| Self {
            claimed: claimed.clone(),
            content,
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.claimed).remove(&self.content);
    }
}
