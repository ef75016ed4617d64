//! Stage: content on its way into the tree, beside it on the same volume.
//!
//! [`Taking`] collects what arrives for one batch, [`Staged`] is what came of it. A verified content
//! is `stage/<id>.ready`, where `id` is also the name under which what it displaces will be kept. A
//! long file grows in `stage/<content hash>.part`, so that it goes on where it stopped, even after the
//! process was killed.
//!
//! What arrives is not trusted: lengths are checked before anything is allocated, and no content is
//! used before its hash is checked.

mod long;

pub(crate) use long::PART;

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, Mode, RawMode, fchmod, fstat, futimens, mkdirat, symlinkat, unlinkat};
use rustix::io::Errno;
use shared::chunk::{Chunk, Manifest};
use shared::delta::{DELTA_BYTES_MAX, Form};
use shared::hash::{ContentHash, PLAIN_BYTES_MAX};
use shared::merge::content_of;
use shared::path::RelPath;
use shared::transfer::{
    Batch, CHUNKS_LISTED_MAX, ChunkRun, DeltaBase, FILE_BYTES_MAX, Item, Need, Op, PART_BYTES_MAX,
    PackedFile, Part, Piece, RUNS_MAX, SentBatch, Source, Trouble, TroubleKind, list_of,
};
use shared::tree::{Entry, Gen};

use crate::error::DiskError;
use crate::fingerprint::Fingerprint;
use crate::give::Opened;
use crate::kept::new_id;
use crate::root::Root;
use crate::sqlite::guard;
use crate::trouble::trouble;
use crate::{Replica, delta, fingerprint, handle, lock, read, utc_now, volume};
use long::Long;

/// Returns the name of a verified staged file.
pub(crate) fn ready_name(id: &str) -> String {
    format!("{id}.ready")
}

/// What came of a small file.
enum Small {
    /// It is staged, and all of it was in the pack.
    Whole(ContentHash),
    /// It is staged, and this was made for it.
    Made(Vec<u8>),
    /// It has to be sent whole.
    Needed(Need),
    Not,
}

/// Makes a content of its base and what was sent; `None` when that cannot be.
fn make(form: Form, mut base: Vec<u8>, sent: &[u8], len: u64) -> Option<Vec<u8>> {
    match form {
        Form::Whole => Some(sent.to_vec()),
        Form::Tail => {
            base.extend_from_slice(sent);
            Some(base)
        }
        Form::Patch => delta::decode(&base, sent, usize::try_from(len).ok()?),
    }
}

/// The staging of one batch: takes parts until nothing is missing.
pub struct Taking {
    replica: Arc<Replica>,
    batch: Gen,
    places: Vec<Place>,
    manifests: Vec<Manifest>,
    listed: Listed,
}

/// One operation of the batch.
struct Place {
    op: Op,
    id: String,
    state: State,
}

enum State {
    /// Nothing is expected from the other side.
    Own,
    /// Content is expected.
    Wanted,
    /// All of it is expected: a delta was of no use.
    WantedWhole,
    /// The list of chunks is arriving.
    Listed(Vec<Chunk>),
    /// Chunks are arriving.
    Growing(Long),
    Ready(Ready),
    /// What a delta starts from does not stand at the path any more.
    Stale,
    Gone,
    Held(Trouble),
}

/// A staged file, link or directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) inode: u64,
    pub(crate) mtime_ns: Option<i64>,
    /// What it is, if it has the rights and the time already that it will have at a path where nothing stands.
    pub(crate) dressed: Option<Fingerprint>,
}

/// What is staged for one operation.
#[derive(Debug)]
pub(crate) enum StagedState {
    /// Nothing is needed.
    Nothing,
    Ready(Ready),
    /// The path is not as the plan saw it.
    Stale,
    /// The content is not to be had.
    Gone,
    Held(Trouble),
}

/// What was staged for a batch. Dropped without being applied, it removes its files.
pub struct Staged {
    root: Arc<Root>,
    pub(crate) batch: Gen,
    pub(crate) places: Vec<(String, StagedState)>,
    manifests: Vec<Manifest>,
    /// The lists are in memory for as long as this is.
    _listed: Listed,
}

impl Replica {
    /// Fills in what a batch does not say because this side has seen it.
    pub fn resolve(&self, batch: SentBatch) -> Batch {
        let seen = lock(&self.seen);
        batch.resolve(|path| seen.row(path).map(|row| row.entry.clone()))
    }

    /// Begins to stage a batch.
    pub fn take(self: &Arc<Self>, batch: &Batch) -> Taking {
        let now = utc_now();
        let state = |op: &Op| match op.wants() {
            None if op.moves().is_some() => State::Wanted,
            None => State::Own,
            Some((_, entry)) if entry.len() > FILE_BYTES_MAX => State::Held(too_long(&op.path)),
            // Not even its content has to travel.
            Some(_) => guard::hindrance(&*self.root, op).map_or(State::Wanted, State::Held),
        };
        let place = |op: &Op| Place {
            op: op.clone(),
            id: new_id(now),
            state: state(op),
        };
        Taking {
            replica: self.clone(),
            batch: batch.number,
            places: batch.ops.iter().map(place).collect(),
            manifests: Vec::new(),
            listed: Listed::new(&self.listed),
        }
    }
}

impl Replica {
    /// Returns what a delta for an operation starts from; `None` when that does not stand there any more.
    fn base_of(&self, op: &Op) -> io::Result<Option<Vec<u8>>> {
        match DeltaBase::of(op) {
            Some(base) => self.read_expected(&op.path, base.content, base.len),
            None => Ok(None),
        }
    }
}

impl Taking {
    /// Takes a part, and returns what is to be asked for because of it: when it completes the list of a long
    /// file's chunks, those that are found nowhere on this disk; the whole of a file of which a delta could
    /// not be used.
    ///
    /// # Errors
    /// [`DiskError::BadPart`] when no honest giver sends such a part. What cannot be stored or has a
    /// wrong hash is no error here, but the outcome of its operation.
    pub fn part(&mut self, part: Part) -> Result<Vec<Need>, DiskError> {
        match part {
            Part::Pack { files, zstd, bytes } => self.pack(&files, zstd, bytes),
            Part::Manifest {
                index,
                mtime_ns,
                manifest,
                more,
            } => {
                let need = self.manifest(index, mtime_ns, manifest.chunks, more)?;
                Ok(need.into_iter().collect())
            }
            Part::Edited {
                index,
                mtime_ns,
                pieces,
            } => {
                let need = self.edited(index, mtime_ns, &pieces)?;
                Ok(need.into_iter().collect())
            }
            Part::Stands { index } => {
                let place = self.place(index)?;
                if place.op.moves().is_none() {
                    return Err(bad(index, "it moves nothing"));
                }
                if matches!(place.state, State::Wanted) {
                    place.state = State::Own;
                }
                Ok(Vec::new())
            }
            Part::Gone { index } => {
                self.place(index)?;
                self.gone(index);
                Ok(Vec::new())
            }
        }
    }

    /// Takes chunks of a long file. When they could not be made of what is here, all of them are asked for.
    ///
    /// # Errors
    /// As [`Taking::part`].
    pub fn chunks(&mut self, index: u32, run: ChunkRun) -> Result<Option<Need>, DiskError> {
        let (replica, batch) = (self.replica.clone(), self.batch);
        let place = self.place(index)?;
        let State::Growing(long) = &mut place.state else {
            return Ok(None);
        };
        let len = long
            .run_len(&run)
            .ok_or(bad(index, "it names chunks that do not exist"))?;
        let copied = long
            .copied_len(&run)
            .filter(|copied| *copied <= len)
            .ok_or(bad(index, "it names blocks that do not exist"))?;
        let bytes =
            unpack(run.zstd, run.bytes, len - copied).ok_or(bad(index, "its length is wrong"))?;
        let bytes = if run.copies.is_empty() {
            Some(bytes)
        } else {
            long.unwoven(
                &replica,
                &place.op.path,
                run.first,
                &run.copies,
                &bytes,
                len,
            )
        };
        let add = || match &bytes {
            Some(bytes) => long.add(&replica.root, run.first, bytes),
            None => Ok(false),
        };
        match replica.with_room(len as u64, add) {
            Ok(true) => self.complete(index),
            Ok(false) if long.forget_old(run.first) => {
                tracing::warn!(
                    index,
                    batch = batch.0,
                    "blocks did not make a chunk; all of it is asked for"
                );
                replica.mismatches.fetch_add(1, Ordering::Relaxed);
                let Some(item) = Item::of(index, &place.op) else {
                    return Ok(None);
                };
                return Ok(Some(Need {
                    batch,
                    item: Item { base: None, ..item },
                    runs: vec![(run.first, run.count)],
                    olds: Vec::new(),
                }));
            }
            Ok(false) => self.mismatch(index),
            Err(error) => self.fail(index, error),
        }
        Ok(None)
    }

    /// Takes it that the rest of this content does not come.
    pub fn gone(&mut self, index: u32) {
        if let Ok(place) = self.place(index)
            && matches!(
                place.state,
                State::Wanted | State::WantedWhole | State::Listed(_) | State::Growing(_)
            )
        {
            place.state = State::Gone;
        }
    }

    /// Says whether something is still to arrive.
    pub fn missing(&self) -> bool {
        let waits = |place: &Place| {
            matches!(
                place.state,
                State::Wanted | State::WantedWhole | State::Listed(_) | State::Growing(_)
            )
        };
        self.places.iter().any(waits)
    }

    /// Ends the staging. What did not arrive is gone; what this side has itself is staged now.
    pub fn finish(mut self) -> Staged {
        for index in 0..self.places.len() {
            if matches!(self.places[index].state, State::Own) {
                self.stage_own(index);
            }
        }
        let replica = &self.replica;
        let staged = |place: Place| {
            let state = match place.state {
                State::Own => StagedState::Nothing,
                State::Ready(ready) => StagedState::Ready(ready),
                State::Held(trouble) => StagedState::Held(trouble),
                State::Growing(long) => {
                    long.abandon(&replica.root);
                    StagedState::Gone
                }
                State::Stale => StagedState::Stale,
                State::Wanted | State::WantedWhole | State::Listed(_) | State::Gone => {
                    StagedState::Gone
                }
            };
            (place.id, state)
        };
        Staged {
            root: replica.root.clone(),
            batch: self.batch,
            places: self.places.drain(..).map(staged).collect(),
            manifests: std::mem::take(&mut self.manifests),
            _listed: self.listed.take(),
        }
    }

    fn place(&mut self, index: u32) -> Result<&mut Place, DiskError> {
        self.places
            .get_mut(index as usize)
            .ok_or(bad(index, "there is no such operation"))
    }

    fn pack(
        &mut self,
        files: &[PackedFile],
        zstd: bool,
        bytes: Vec<u8>,
    ) -> Result<Vec<Need>, DiskError> {
        let mut total = 0;
        for file in files {
            self.check_packed(file)?;
            total += file.len as usize;
        }
        let first = files.first().map_or(0, |file| file.index);
        if total > PART_BYTES_MAX {
            return Err(bad(first, "the pack is too long"));
        }
        let packed = if zstd { bytes.clone() } else { Vec::new() };
        let bytes = unpack(zstd, bytes, total).ok_or(bad(first, "the pack's length is wrong"))?;
        let (mut needs, mut whole, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let mut at = 0;
        for file in files {
            let next = at + file.len as usize;
            let sent = &bytes[at..next];
            match self.small(file, sent)? {
                Small::Whole(content) => whole.push((content, at as u32, file.len)),
                Small::Made(content) => others.push(content),
                Small::Needed(need) => needs.push(need),
                Small::Not => {}
            }
            at = next;
        }
        if zstd {
            self.replica.remember(&whole, &packed);
        }
        self.replica.remember_each(&others);
        Ok(needs)
    }

    /// Checks that somebody asked for a file of this length.
    fn check_packed(&mut self, file: &PackedFile) -> Result<(), DiskError> {
        let op = &self.place(file.index)?.op;
        let base = DeltaBase::of(op);
        let wanted = op.wants().map(|(_, entry)| entry.len());
        let len = u64::from(file.len);
        let fits = wanted.is_some_and(|wanted| match (file.form, base) {
            (Form::Whole, _) => len == wanted && wanted <= PLAIN_BYTES_MAX,
            (Form::Tail, Some(base)) => {
                wanted <= DELTA_BYTES_MAX && base.len.checked_add(len) == Some(wanted)
            }
            (Form::Patch, Some(_)) => wanted <= DELTA_BYTES_MAX && len <= wanted,
            (Form::Tail | Form::Patch, None) => false,
        });
        if fits {
            Ok(())
        } else {
            Err(bad(
                file.index,
                "it is not of the length that was asked for",
            ))
        }
    }

    fn small(&mut self, file: &PackedFile, sent: &[u8]) -> Result<Small, DiskError> {
        let (replica, batch) = (self.replica.clone(), self.batch);
        let index = file.index;
        let place = self.place(index)?;
        if !matches!(place.state, State::Wanted | State::WantedWhole) {
            return Ok(Small::Not);
        }
        let Some((source, entry)) = place.op.wants() else {
            return Ok(Small::Not);
        };
        let made = match file.form {
            Form::Whole => None,
            form => match replica.base_of(&place.op) {
                Ok(Some(base)) => Some(make(form, base, sent, entry.len())),
                Ok(None) => {
                    place.state = State::Stale;
                    return Ok(Small::Not);
                }
                Err(error) => {
                    self.fail(index, read::errno(&error));
                    return Ok(Small::Not);
                }
            },
        };
        let content = match &made {
            None => Some(sent),
            Some(made) => made.as_deref(),
        };
        let content = content.filter(|bytes| content_of(bytes) == entry.identity());
        let Some(content) = content else {
            if file.form == Form::Whole || matches!(place.state, State::WantedWhole) {
                self.mismatch(index);
                return Ok(Small::Not);
            }
            tracing::warn!(path = %place.op.path, "a delta did not make the content; all of it is asked for");
            replica.mismatches.fetch_add(1, Ordering::Relaxed);
            let item = Item {
                index,
                path: source.clone(),
                entry: entry.clone(),
                base: None,
            };
            place.state = State::WantedWhole;
            return Ok(Small::Needed(Need {
                batch,
                item,
                runs: Vec::new(),
                olds: Vec::new(),
            }));
        };
        let dress = Dress {
            exec: matches!(entry, Entry::File { exec: true, .. }),
            mtime_ns: file.mtime_ns,
        };
        let is_new = place.op.expect.is_none();
        let dress = is_new.then_some(dress);
        let stage = || stage_bytes(&replica.root, &place.id, content, dress.as_ref());
        match replica.with_room(content.len() as u64, stage) {
            Ok(staged) => {
                let hash = entry.identity();
                place.state = State::Ready(Ready {
                    inode: staged.inode(),
                    mtime_ns: Some(file.mtime_ns),
                    dressed: is_new.then_some(staged),
                });
                Ok(match made.flatten() {
                    Some(made) => Small::Made(made),
                    None => Small::Whole(hash),
                })
            }
            Err(error) => {
                self.fail(index, error);
                Ok(Small::Not)
            }
        }
    }

    /// Takes the list of a long file's chunks as the difference to that of what stands at the path.
    fn edited(
        &mut self,
        index: u32,
        mtime_ns: i64,
        pieces: &[Piece],
    ) -> Result<Option<Need>, DiskError> {
        let replica = self.replica.clone();
        let place = self.place(index)?;
        if !matches!(place.state, State::Wanted | State::WantedWhole) {
            return Ok(None);
        }
        if DeltaBase::of(&place.op).is_none() {
            return Err(bad(index, "it is the edit of nothing"));
        }
        let Some(base) = long::chunks_at(&replica, &place.op) else {
            place.state = State::Stale;
            return Ok(None);
        };
        let chunks = list_of(pieces, &base, CHUNKS_LISTED_MAX)
            .ok_or(bad(index, "it names chunks that do not exist"))?;
        self.manifest(index, mtime_ns, chunks, false)
    }

    fn manifest(
        &mut self,
        index: u32,
        mtime_ns: i64,
        chunks: Vec<Chunk>,
        more: bool,
    ) -> Result<Option<Need>, DiskError> {
        let (replica, batch) = (self.replica.clone(), self.batch);
        let place = self.place(index)?;
        if !matches!(
            place.state,
            State::Wanted | State::WantedWhole | State::Listed(_)
        ) {
            return match place.op.wants() {
                Some(_) => Ok(None),
                None => Err(bad(index, "no content was asked for")),
            };
        }
        if !self.listed.add(chunks.len()) {
            tracing::warn!(
                index,
                batch = batch.0,
                "too many long files at one time; this one is put off"
            );
            self.gone(index);
            return Ok(None);
        }
        let place = self.place(index)?;
        let Some((source, entry)) = place.op.wants() else {
            return Err(bad(index, "no content was asked for"));
        };
        let item = Item {
            index,
            path: source.clone(),
            entry: entry.clone(),
            base: None,
        };
        let mut list = match &mut place.state {
            State::Wanted | State::WantedWhole => Vec::new(),
            State::Listed(list) => std::mem::take(list),
            _ => return Ok(None),
        };
        list.extend(chunks);
        long::check_list(&list, item.entry.len(), more).map_err(|what| bad(index, what))?;
        if more {
            place.state = State::Listed(list);
            return Ok(None);
        }
        let Some(mut long) = Long::new(&replica, &item.entry, list, mtime_ns) else {
            self.mismatch(index);
            return Ok(None);
        };
        let begin = || long.begin(&replica, &place.op.path, &place.id);
        match replica.with_room(item.entry.len(), begin) {
            Ok(runs) if runs.is_empty() => {
                place.state = State::Growing(long);
                self.complete(index);
                Ok(None)
            }
            Ok(mut runs) => {
                // What is not asked for now is missing at the end, and asked for by the next try.
                runs.truncate(RUNS_MAX);
                let olds = long.olds(&replica, &place.op.path, &runs);
                place.state = State::Growing(long);
                Ok(Some(Need {
                    batch,
                    item,
                    runs,
                    olds,
                }))
            }
            Err(error) => {
                self.fail(index, error);
                Ok(None)
            }
        }
    }

    /// Ends a long file, if all its chunks are there.
    fn complete(&mut self, index: u32) {
        let replica = self.replica.clone();
        let Ok(place) = self.place(index) else { return };
        let State::Growing(long) = &mut place.state else {
            return;
        };
        if !long.is_whole() {
            return;
        }
        match long.end(&replica.root, &place.id) {
            Ok(ready) => {
                let manifest = long.take_manifest();
                place.state = State::Ready(ready);
                self.manifests.push(manifest);
            }
            Err(error) => self.fail(index, error),
        }
    }

    fn mismatch(&mut self, index: u32) {
        tracing::warn!(
            index,
            batch = self.batch.0,
            "content arrived with a wrong hash"
        );
        self.replica.mismatches.fetch_add(1, Ordering::Relaxed);
        self.gone(index);
    }

    fn fail(&mut self, index: u32, error: Errno) {
        if let Ok(place) = self.place(index) {
            place.state = State::Held(trouble(&place.op.path, "staged", error));
        }
    }

    /// Stages what needs nothing from the other side.
    fn stage_own(&mut self, index: usize) {
        let Place { op, id, .. } = &self.places[index];
        let root = &self.replica.root;
        let stage = || match (&op.make, &op.expect, &op.from) {
            (Some(Entry::Symlink { target }), _, _) => {
                stage_link(root, id, target).map(StagedState::Ready)
            }
            (Some(Entry::Dir), Some(expect), _) if !expect.is_dir() => {
                stage_dir(root, id).map(StagedState::Ready)
            }
            (Some(entry @ Entry::File { .. }), _, Source::Here(from)) => {
                let copied = copy_here(&self.replica, id, from, entry)?;
                Ok(copied.map_or(StagedState::Gone, StagedState::Ready))
            }
            _ => Ok(StagedState::Nothing),
        };
        let len = op.make.as_ref().map_or(0, Entry::len);
        self.places[index].state = match self.replica.with_room(len, stage) {
            Ok(StagedState::Ready(ready)) => State::Ready(ready),
            Ok(StagedState::Gone) => State::Gone,
            Ok(_) => State::Own,
            Err(error) => State::Held(trouble(&op.path, "staged", error)),
        };
    }
}

/// Dropped without an end, it removes what it has staged. What can be resumed stays.
impl Drop for Taking {
    fn drop(&mut self) {
        let root = &self.replica.root;
        for place in &self.places {
            match &place.state {
                State::Ready(_) => discard(root, &ready_name(&place.id)),
                State::Growing(long) => long.abandon(root),
                _ => {}
            }
        }
    }
}

impl Staged {
    /// Hands the staged files, and the chunks of the long ones, over to whoever applies them.
    pub(crate) fn into_parts(mut self) -> (Vec<(String, StagedState)>, Vec<Manifest>) {
        (
            std::mem::take(&mut self.places),
            std::mem::take(&mut self.manifests),
        )
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for (id, state) in &self.places {
            if let StagedState::Ready(_) = state {
                discard(&self.root, &ready_name(id));
            }
        }
    }
}

/// Removes something staged that is not needed. What remains is removed at the next start.
pub(crate) fn discard(root: &Root, name: &str) {
    if unlinkat(&root.stage, name, AtFlags::empty()).is_err() {
        // It may be a directory; if it is neither, it is gone already.
        unlinkat(&root.stage, name, AtFlags::REMOVEDIR).ok();
    }
}

/// The rights and the time of a new file.
pub(crate) struct Dress {
    pub(crate) exec: bool,
    pub(crate) mtime_ns: i64,
}

impl Dress {
    /// Gives them to a file that has the rights of one that only its owner may read.
    fn put_on(&self, root: &Root, file: &File) -> Result<(), Errno> {
        let mode = fingerprint::with_exec(root.file_mode, self.exec);
        fchmod(file, Mode::from_raw_mode(mode as RawMode))?;
        // The time is a courtesy and never compared: a volume that cannot store it is no obstacle.
        futimens(file, &fingerprint::times(self.mtime_ns)).ok();
        Ok(())
    }
}

/// Stages a whole small content, and returns what it is. Where something stands that it will replace, that
/// decides on its rights, and it is dressed later.
pub(crate) fn stage_bytes(
    root: &Root,
    id: &str,
    bytes: &[u8],
    dress: Option<&Dress>,
) -> Result<Fingerprint, Errno> {
    let name = ready_name(id);
    let mut file = handle::create_file(&root.stage, &name)?;
    let staged = file.write_all(bytes).map_err(|error| read::errno(&error));
    let staged = staged.and_then(|()| {
        if let Some(dress) = dress {
            dress.put_on(root, &file)?;
        }
        Ok(Fingerprint::of(&fstat(&file)?, root.device))
    });
    staged.inspect_err(|_| discard(root, &name))
}

/// Stages a link.
pub(crate) fn stage_link(root: &Root, id: &str, target: &str) -> Result<Ready, Errno> {
    let name = ready_name(id);
    symlinkat(target, &root.stage, &name)?;
    ready_at(root, &name)
}

/// Stages a directory.
pub(crate) fn stage_dir(root: &Root, id: &str) -> Result<Ready, Errno> {
    let name = ready_name(id);
    mkdirat(&root.stage, &name, Mode::from_raw_mode(0o777))?;
    ready_at(root, &name)
}

fn ready_at(root: &Root, name: &str) -> Result<Ready, Errno> {
    let stat = handle::stat_at(&root.stage, name)?.ok_or(Errno::NOENT)?;
    Ok(Ready {
        inode: fingerprint::inode(&stat),
        mtime_ns: None,
        dressed: None,
    })
}

/// Stages a copy of a file of this tree; `None` when it is not what it should be.
pub(crate) fn copy_here(
    replica: &Replica,
    id: &str,
    from: &RelPath,
    entry: &Entry,
) -> Result<Option<Ready>, Errno> {
    let root = &*replica.root;
    let Ok(Opened {
        file: mut source,
        stat,
        ..
    }) = replica.open_content(from, entry)
    else {
        return Ok(None);
    };
    if fingerprint::len(&stat) != entry.len() {
        return Ok(None);
    }
    let name = ready_name(id);
    let copied = stage_copy(root, &name, &mut source).and_then(|mut copy| {
        let content = read::content_of(&mut copy)?;
        Ok((fingerprint::inode(&fstat(&copy)?), content))
    });
    match copied {
        Ok((inode, content)) if content.hash == entry.identity() => Ok(Some(Ready {
            inode,
            mtime_ns: Some(fingerprint::mtime_ns(&stat)),
            dressed: None,
        })),
        Ok(_) => {
            discard(root, &name);
            Ok(None)
        }
        Err(error) => {
            discard(root, &name);
            Err(read::errno(&error))
        }
    }
}

/// Copies a file into the stage, sharing its blocks where the volume can.
pub(crate) fn stage_copy(root: &Root, name: &str, source: &mut File) -> io::Result<File> {
    if let Ok(clone) = volume::clone_file(&*source, &root.stage, name) {
        return Ok(File::from(clone));
    }
    let mut copy = handle::create_file(&root.stage, name)?;
    io::Seek::rewind(source)?;
    io::copy(source, &mut copy)?;
    Ok(copy)
}

/// Returns content of exactly `len` bytes, or `None` if it is not that. Never allocates more.
fn unpack(zstd: bool, bytes: Vec<u8>, len: usize) -> Option<Vec<u8>> {
    let bytes = if zstd {
        zstd::bulk::decompress(&bytes, len).ok()?
    } else {
        bytes
    };
    (bytes.len() == len).then_some(bytes)
}

/// The chunks that one batch has in its lists, counted against [`CHUNKS_LISTED_MAX`].
struct Listed {
    all: Arc<AtomicUsize>,
    own: usize,
}

impl Listed {
    fn new(all: &Arc<AtomicUsize>) -> Self {
        Self {
            all: all.clone(),
            own: 0,
        }
    }

    /// Hands what is counted over to another owner.
    fn take(&mut self) -> Self {
        let none = Self::new(&self.all);
        std::mem::replace(self, none)
    }

    /// Counts more chunks; says false, and counts none, when there is no room for them.
    fn add(&mut self, chunks: usize) -> bool {
        let room = |all: usize| Some(all + chunks).filter(|all| *all <= CHUNKS_LISTED_MAX);
        let fits = self
            .all
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .is_ok();
        if fits {
            self.own += chunks;
        }
        fits
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own, Ordering::Relaxed);
    }
}

fn too_long(path: &RelPath) -> Trouble {
    Trouble {
        kind: TroubleKind::Io,
        text: format!(
            "\"{path}\" is longer than the {} GiB that can be synced; what was there is untouched. \
             To do: split it, or name it in .layerignore",
            FILE_BYTES_MAX >> 30
        ),
    }
}

fn bad(index: u32, what: &'static str) -> DiskError {
    DiskError::BadPart { index, what }
}

#[cfg(test)]
mod tests;
