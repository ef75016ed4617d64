//! Scan: walks the tree, or parts of it, and finds what is not as it was seen.
//!
//! A directory is listed and each name in it is looked at once (`getdents`, then `stat` relative to
//! the directory's handle). Names are merged with what is known about that directory, so a walk over
//! an unchanged tree allocates next to nothing. Files whose fingerprint changed are read in groups.
//! Two threads share the work.
//!
//! A listing is not believed about what it leaves out: file systems in user space and on networks are
//! known to answer with half of a directory and no error. A known name that was not listed is asked
//! for by name, and is absent only if the system says so.

mod name;
mod renamed;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rayon::Scope;
use rustix::fs::{FileType, Stat, fstat};
use rustix::io::Errno;
use shared::ignore::{PRIVATE_DIR, Rules};
use shared::path::RelPath;
use shared::tree::{Entry, Obstacle};

use crate::error::LookError;
use crate::fingerprint::{self, Fingerprint, SeenRow};
use crate::look::{Finding, Found, Open};
use crate::read::{Reader, Reading};
use crate::reread::{is_unchanged, known};
use crate::seen::{Began, Slot};
use crate::sqlite::beside::{self, Beside, Listed};
use crate::{Replica, handle, lock, root};
use name::{Name, join};
use renamed::Held;

/// Findings that are written down together.
const BATCH: usize = 500;
/// Files that one task reads.
const READ_GROUP: usize = 64;
/// A file of this length is not worth making others wait for.
const LONG_BYTES: u64 = 8 * 1024 * 1024;
/// Deeper directories are opened from the root again instead of keeping all handles above them open.
const HELD_DEPTH_MAX: usize = 32;

/// One walk.
pub(crate) struct Pass<'a> {
    replica: &'a Replica,
    rules: Arc<Rules>,
    /// Whether paths that were seen before have to be checked against the rules.
    recheck: bool,
    /// Whether files are read although their fingerprint says that nothing wrote to them.
    deep: bool,
    began: Began,
    stop: &'a AtomicBool,
    found: Mutex<Vec<Finding>>,
    absent: Mutex<Vec<Finding>>,
    unblocked: Mutex<Vec<Finding>>,
    /// What is new and waits for the end of the walk, if anything does.
    held: Mutex<Option<Held>>,
    /// What is told with what is gone, from when that is known.
    together: Mutex<Option<Vec<Finding>>>,
    open: Mutex<Open>,
    failure: Mutex<Option<LookError>>,
    files: AtomicU64,
    bytes: AtomicU64,
    reread_files: AtomicU64,
    reread_bytes: AtomicU64,
}

/// What a walk leaves to be told at its end.
pub(crate) struct Outcome {
    /// Directories that were blocked before. Everything in them has been told.
    pub(crate) unblocked: Vec<Finding>,
    pub(crate) open: Open,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) reread_files: u64,
    pub(crate) reread_bytes: u64,
}

/// A directory to visit.
struct Visit {
    /// `None` is the root.
    path: Option<RelPath>,
    /// The directory above it; `None` when it has to be opened from the root.
    above: Option<Arc<OwnedFd>>,
    before: Option<Slot>,
    /// Whether directories in it are visited although they are known.
    whole: bool,
    depth: usize,
}

/// A name in a directory.
struct Child {
    path: RelPath,
    before: Option<Slot>,
    stat: Stat,
    /// Whether something lies beside it that makes it a database in use, perhaps.
    beside: bool,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(
        replica: &'a Replica,
        rules: Arc<Rules>,
        recheck: bool,
        began: Began,
        stop: &'a AtomicBool,
    ) -> Self {
        Self {
            replica,
            rules,
            recheck,
            deep: false,
            began,
            stop,
            found: Mutex::default(),
            absent: Mutex::default(),
            unblocked: Mutex::default(),
            held: Mutex::default(),
            together: Mutex::default(),
            open: Mutex::default(),
            failure: Mutex::default(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            reread_files: AtomicU64::new(0),
            reread_bytes: AtomicU64::new(0),
        }
    }

    /// Reads files also when their fingerprint says that nothing wrote to them.
    pub(crate) fn deep(self, deep: bool) -> Self {
        Self { deep, ..self }
    }

    /// Walks the whole tree.
    pub(crate) fn whole<'s>(&'s self, scope: &Scope<'s>) {
        let root = Visit {
            path: None,
            above: None,
            before: None,
            whole: true,
            depth: 0,
        };
        self.visit(scope, root);
    }

    /// Looks at some paths. Nothing above them is unknown.
    pub(crate) fn some<'s>(&'s self, scope: &Scope<'s>, paths: BTreeSet<RelPath>) {
        for path in paths {
            if self.ended() {
                return;
            }
            self.one(scope, path);
        }
    }

    /// Tells the rest. Absences come last, with what was renamed.
    pub(crate) fn finish(self) -> Result<Outcome, LookError> {
        self.flush();
        let mut last = std::mem::take(&mut *lock(&self.absent));
        last.extend(lock(&self.together).take().into_iter().flatten());
        let stopped = self.stop.load(Ordering::Relaxed);
        if !last.is_empty() && !stopped && lock(&self.failure).is_none() {
            self.write_down(last);
        }
        if let Some(failure) = lock(&self.failure).take() {
            return Err(failure);
        }
        let unblocked = std::mem::take(&mut *lock(&self.unblocked));
        let open = std::mem::take(&mut *lock(&self.open));
        let files = self.files.load(Ordering::Relaxed);
        Ok(Outcome {
            unblocked,
            open,
            files,
            bytes: self.bytes.load(Ordering::Relaxed),
            reread_files: self.reread_files.load(Ordering::Relaxed),
            reread_bytes: self.reread_bytes.load(Ordering::Relaxed),
        })
    }

    fn ended(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || lock(&self.failure).is_some()
    }

    /// Looks at one path, or, when the directory that held it is gone, at what is left above.
    fn one<'s>(&'s self, scope: &Scope<'s>, path: RelPath) {
        let parent = match handle::open_parent(self.replica.root.as_fd(), &path) {
            Ok(parent) => parent,
            Err(error) if is_passing(error) => return self.unknown(path),
            // Whatever is the matter, it is above.
            Err(error) => {
                return match path.parent() {
                    Some(parent) => self.one(scope, parent),
                    None => {
                        let root = self.replica.root.path.clone();
                        self.fail(LookError::RootUnreadable {
                            root,
                            source: error.into(),
                        });
                    }
                };
            }
        };
        let before = lock(&self.replica.seen).get(&path).cloned();
        // Hints come for what lies beside a database as well.
        let belongs = beside::belongs(&parent, path.name());
        let stat = match handle::stat_at(&parent, path.name()) {
            Ok(Some(stat)) => stat,
            Ok(None) => return self.gone(path, before),
            Err(error) => return self.refused(path, before, error),
        };
        // A volume that folds answers to other spellings of a name as well.
        if self.replica.root.folds {
            match self.replica.list(&parent) {
                Ok(names) if names.iter().any(|raw| **raw == *path.name().as_bytes()) => {}
                Ok(_) => return self.gone(path, before),
                Err(error) => return self.refused(path, before, error),
            }
        }
        if belongs {
            return self.belongs(path, before);
        }
        let beside = Beside::of(&parent, path.name()).is_ok_and(|beside| beside.has_changes());
        let parent = Arc::new(parent);
        let mut unread = Vec::new();
        let known_dir = before.as_ref().is_some_and(Slot::is_dir);
        if !known_dir {
            let below = lock(&self.replica.seen).children(Some(&path));
            self.strays(below.direct.into_iter().chain(below.strays));
        }
        let depth = path.components().count();
        if known_dir && fingerprint::kind(&stat) == FileType::Directory {
            let above = Some(parent);
            let whole = lock(&self.replica.seen).looks_whole(&path);
            self.visit(
                scope,
                Visit {
                    path: Some(path),
                    above,
                    before,
                    whole,
                    depth,
                },
            );
        } else {
            self.child(
                scope,
                &parent,
                Child {
                    path,
                    before,
                    stat,
                    beside,
                },
                true,
                depth,
                &mut unread,
            );
            self.spawn_reads(scope, &parent, unread);
        }
    }

    /// Lists a directory and looks at everything directly in it.
    fn visit<'s>(&'s self, scope: &Scope<'s>, visit: Visit) {
        if self.ended() {
            return;
        }
        let opened = match (&visit.above, &visit.path) {
            (Some(above), Some(path)) => handle::open_dir(above, path.name()),
            (_, path) => handle::open_tree_dir(self.replica.root.as_fd(), path.as_ref()),
        };
        let listed = opened.and_then(|dir| {
            let mut names = self.replica.list(&dir)?;
            let is_empty = names.is_empty();
            let beside = Listed::take_from(&dir, &mut names);
            let foreign = fingerprint::device(&fstat(&dir)?) != self.replica.root.device;
            Ok((Arc::new(dir), names, is_empty, beside, foreign))
        });
        let (dir, names, is_empty, beside, foreign) = match (listed, &visit.path) {
            (Ok(listed), _) => listed,
            (Err(error), Some(path)) => return self.refused(path.clone(), visit.before, error),
            (Err(error), None) => {
                let root = self.replica.root.path.clone();
                return self.fail(LookError::RootUnreadable {
                    root,
                    source: error.into(),
                });
            }
        };
        if let Some(path) = &visit.path {
            if names.iter().any(|name| **name == *PRIVATE_DIR.as_bytes()) && root::is_root(&dir) {
                return self.blocked(path.clone(), visit.before, Obstacle::OtherRoot);
            }
            if is_empty && !foreign && was_mount(visit.before.as_ref()) {
                let found = Found::Blocked {
                    obstacle: Obstacle::Unreadable,
                    lost_mount: true,
                };
                return self.push(Finding {
                    path: path.clone(),
                    before: visit.before,
                    found,
                });
            }
            self.directory_is(path, visit.before, foreign);
        }
        let mut unread = Vec::new();
        let mut left_out = Vec::new();
        let known = lock(&self.replica.seen).children(visit.path.as_ref());
        self.strays(known.strays);
        for (path, name, before) in Self::merge(visit.path.as_ref(), names, known.direct) {
            let is_listed = name.is_some();
            if !is_listed && beside.has(path.name()) {
                self.belongs(path, before);
                continue;
            }
            if let Some(obstacle) = name.and_then(|name| name.obstacle) {
                self.blocked(path, before, obstacle);
                continue;
            }
            match handle::stat_at(&dir, path.name()) {
                Ok(Some(stat)) if !is_listed => {
                    left_out.push(Child {
                        beside: beside.is_database(path.name()),
                        path,
                        before,
                        stat,
                    });
                }
                Ok(Some(stat)) => {
                    let beside = beside.is_database(path.name());
                    let child = Child {
                        path,
                        before,
                        stat,
                        beside,
                    };
                    self.child(
                        scope,
                        &dir,
                        child,
                        visit.whole,
                        visit.depth + 1,
                        &mut unread,
                    );
                }
                Ok(None) => self.gone(path, before),
                Err(error) => self.refused(path, before, error),
            }
        }
        for child in self.not_respelled(&dir, left_out) {
            tracing::debug!(path = %child.path, "a listing left out what is there");
            self.child(
                scope,
                &dir,
                child,
                visit.whole,
                visit.depth + 1,
                &mut unread,
            );
        }
        self.spawn_reads(scope, &dir, unread);
    }

    /// Returns those of the names that answered although they were not listed which are not just other
    /// spellings of what was: a volume that folds answers to the old spelling of a renamed file, too.
    fn not_respelled(&self, dir: &OwnedFd, left_out: Vec<Child>) -> Vec<Child> {
        if left_out.is_empty() {
            return left_out;
        }
        let Ok(names) = self.replica.list(dir) else {
            for child in left_out {
                self.unknown(child.path);
            }
            return Vec::new();
        };
        let spellings: BTreeMap<String, String> = names
            .into_iter()
            .filter_map(|raw| String::from_utf8(raw.into_vec()).ok())
            .filter_map(|name| Some((RelPath::parse(&name).ok()?.folded_key(), name)))
            .collect();
        let is_respelled = |child: &Child| {
            let key = RelPath::parse(child.path.name()).map(|name| name.folded_key());
            let spelled = key.ok().and_then(|key| spellings.get(&key));
            spelled.is_some_and(|name| {
                name != child.path.name()
                    && handle::stat_at(dir, name.as_str())
                        .ok()
                        .flatten()
                        .is_some_and(|there| {
                            fingerprint::inode(&there) == fingerprint::inode(&child.stat)
                        })
            })
        };
        let (respelled, left_out): (Vec<_>, Vec<_>) = left_out.into_iter().partition(is_respelled);
        for child in respelled {
            self.gone(child.path, child.before);
        }
        left_out
    }

    /// Merges the names in a directory with what is known there. A path without a name was not listed.
    fn merge(
        dir: Option<&RelPath>,
        names: Vec<Box<[u8]>>,
        known: Vec<(RelPath, Slot)>,
    ) -> Vec<(RelPath, Option<Name>, Option<Slot>)> {
        let mut there: Vec<Name> = names
            .into_iter()
            .map(|raw| Name::of(dir, raw))
            .filter(Name::is_ours)
            .collect();
        there.sort_unstable_by(|a, b| a.shown.cmp(&b.shown));
        let mut merged = Vec::with_capacity(there.len());
        let mut known = known.into_iter().peekable();
        for name in there {
            while let Some((path, slot)) = known.next_if(|(path, _)| path.name() < &*name.shown) {
                merged.push((path, None, Some(slot)));
            }
            match known.next_if(|(path, _)| path.name() == name.shown) {
                Some((path, slot)) => merged.push((path, Some(name), Some(slot))),
                None => match join(dir, &name.shown) {
                    Some(path) => merged.push((path, Some(name), None)),
                    None => tracing::warn!(name = name.shown, "a name has no place in the tree"),
                },
            }
        }
        merged.extend(known.map(|(path, slot)| (path, None, Some(slot))));
        merged
    }

    fn child<'s>(
        &'s self,
        scope: &Scope<'s>,
        dir: &Arc<OwnedFd>,
        child: Child,
        whole: bool,
        depth: usize,
        unread: &mut Vec<(RelPath, Option<Slot>)>,
    ) {
        let Child {
            path,
            before,
            stat,
            beside,
        } = child;
        let kind = fingerprint::kind(&stat);
        let row = before.as_ref().and_then(Slot::row);
        let same_kind = row.is_some_and(|row| kind_of(&row.entry) == kind);
        if (self.recheck || !same_kind) && self.rules.ignores(&path, kind == FileType::Directory) {
            return self.blocked(path, before, Obstacle::Ignored);
        }
        let print = Fingerprint::of(&stat, self.replica.root.device);
        match kind {
            FileType::Directory if same_kind && !whole => {}
            FileType::Directory => {
                let above = (depth <= HELD_DEPTH_MAX).then(|| dir.clone());
                let visit = Visit {
                    path: Some(path),
                    above,
                    before,
                    whole: true,
                    depth,
                };
                scope.spawn(move |scope| self.visit(scope, visit));
            }
            FileType::RegularFile => {
                self.files.fetch_add(1, Ordering::Relaxed);
                let unchanged = known(before.as_ref()).is_some_and(|row| is_unchanged(row, &print));
                let is_new = before.is_none() && !beside && !print.foreign;
                if unchanged && !beside && !self.deep {
                    return;
                }
                if self.is_doubtful(&path) {
                    self.unknown(path);
                } else if !(is_new && self.hold_file(&path, print)) {
                    unread.push((path, before));
                }
            }
            FileType::Symlink => {
                if !row.is_some_and(|row| same_kind && row.print == print) {
                    self.symlink(dir, path, before, print);
                }
            }
            _ => self.blocked(path, before, Obstacle::Special),
        }
    }

    fn symlink(&self, dir: &OwnedFd, path: RelPath, before: Option<Slot>, print: Fingerprint) {
        match handle::read_link(dir, path.name()).map(String::from_utf8) {
            Ok(Ok(target)) => {
                let entry = Entry::Symlink {
                    target: target.into(),
                };
                let found = Found::Row(
                    SeenRow {
                        entry,
                        print,
                        racy: false,
                    },
                    None,
                );
                self.push(Finding {
                    path,
                    before,
                    found,
                });
            }
            Ok(Err(_)) => self.blocked(path, before, Obstacle::NotUtf8),
            Err(error) => self.refused(path, before, error),
        }
    }

    fn spawn_reads<'s>(
        &'s self,
        scope: &Scope<'s>,
        dir: &Arc<OwnedFd>,
        mut unread: Vec<(RelPath, Option<Slot>)>,
    ) {
        while !unread.is_empty() {
            let rest = unread.split_off(unread.len().min(READ_GROUP));
            let group = std::mem::replace(&mut unread, rest);
            let dir = dir.clone();
            scope.spawn(move |_| self.read(&dir, group));
        }
    }

    fn read(&self, dir: &OwnedFd, group: Vec<(RelPath, Option<Slot>)>) {
        let mut reader = Reader::from_medium(self.deep);
        for (path, before) in group {
            if self.ended() {
                break;
            }
            if self.is_doubtful(&path) {
                self.unknown(path);
                continue;
            }
            let len = known(before.as_ref()).map_or(0, |row| row.entry.len());
            if len > LONG_BYTES {
                self.flush();
            }
            let mut seen = reader.see(dir, path.name(), self.replica.root.device, self.stop);
            let is_live = matches!(seen, Ok(Reading::Live));
            if is_live {
                seen = self.replica.see_database(dir, &path, self.stop);
            } else {
                self.replica.snapshots.rests(&path);
            }
            if let Ok(Reading::Read(row, _)) = &seen
                && known(before.as_ref()).is_some_and(|known| is_unchanged(known, &row.print))
            {
                self.reread_files.fetch_add(1, Ordering::Relaxed);
                self.reread_bytes
                    .fetch_add(row.entry.len(), Ordering::Relaxed);
            }
            match seen {
                // A live database is looked at each time, and most times nothing was committed.
                Ok(Reading::Read(row, _))
                    if (is_live || !row.racy)
                        && before.as_ref().and_then(Slot::row) == Some(&row) => {}
                Ok(Reading::Read(row, manifest)) => {
                    let found = Found::Row(row, manifest);
                    self.push(Finding {
                        path,
                        before,
                        found,
                    });
                }
                Ok(Reading::Refused) => self.blocked(path, before, Obstacle::Database),
                Ok(Reading::Unstable | Reading::Live) => {
                    self.push(Finding {
                        path,
                        before,
                        found: Found::Unstable,
                    });
                }
                Ok(Reading::Stopped) => break,
                Err(error) => self.refused(path, before, error),
            }
        }
        self.bytes.fetch_add(reader.bytes, Ordering::Relaxed);
    }

    /// A directory is there, and was listed.
    fn directory_is(&self, path: &RelPath, before: Option<Slot>, foreign: bool) {
        let row = SeenRow::dir(foreign);
        if before.as_ref().and_then(Slot::row) == Some(&row) {
            return;
        }
        let was_blocked = matches!(before, Some(Slot::Blocked { .. }));
        let finding = Finding {
            path: path.clone(),
            before,
            found: Found::Row(row, None),
        };
        if was_blocked {
            lock(&self.unblocked).push(finding);
        } else {
            self.push(finding);
        }
    }

    /// An operation on a path failed. What that means depends on the error.
    fn refused(&self, path: RelPath, before: Option<Slot>, error: Errno) {
        match error {
            Errno::NOENT => self.gone(path, before),
            // Something of another kind stands there now.
            Errno::NOTDIR | Errno::LOOP | Errno::INVAL | Errno::STALE => self.unknown(path),
            error if is_passing(error) => self.unknown(path),
            _ => self.blocked(path, before, Obstacle::Unreadable),
        }
    }

    /// A file belongs to a database beside it. Unless it was taken for an ordinary one before there was a
    /// database, nothing is known about it and nothing is told.
    fn belongs(&self, path: RelPath, before: Option<Slot>) {
        if before.is_some() {
            self.blocked(path, before, Obstacle::Ignored);
        }
    }

    fn gone(&self, path: RelPath, before: Option<Slot>) {
        // When a directory was told absent, something in it may have been left open.
        if before.is_some() || lock(&self.replica.seen).has_below(&path) {
            self.replica.snapshots.rests(&path);
            lock(&self.absent).push(Finding {
                path,
                before,
                found: Found::Absent,
            });
        } else if self.is_doubtful(&path) {
            // An apply is about to say that something is there.
            self.unknown(path);
        }
    }

    /// Asks for what is known in no known directory, where no walk comes by.
    fn strays(&self, strays: impl IntoIterator<Item = (RelPath, Slot)>) {
        for (path, slot) in strays {
            match handle::open_parent(self.replica.root.as_fd(), &path) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.gone(path, Some(slot)),
                Err(error) if is_passing(error) => self.unknown(path),
                // Its directory is there, new to this walk, or refuses to be read: either is told.
                _ => {}
            }
        }
    }

    fn blocked(&self, path: RelPath, before: Option<Slot>, obstacle: Obstacle) {
        let found = Found::Blocked {
            obstacle,
            lost_mount: false,
        };
        self.push(Finding {
            path,
            before,
            found,
        });
    }

    /// Says whether an apply works on a path, so that whatever is found there is not believed: reading it would
    /// be for nothing.
    fn is_doubtful(&self, path: &RelPath) -> bool {
        lock(&self.replica.seen).is_doubtful(path)
    }

    fn unknown(&self, path: RelPath) {
        lock(&self.open).unknown(path);
    }

    fn push(&self, finding: Finding) {
        if let Some(together) = &mut *lock(&self.together) {
            together.push(finding);
            return;
        }
        let now = self.hold(finding);
        let mut found = lock(&self.found);
        found.extend(now);
        if found.len() >= BATCH {
            let batch = std::mem::take(&mut *found);
            drop(found);
            self.write_down(batch);
        }
    }

    fn flush(&self) {
        let batch = std::mem::take(&mut *lock(&self.found));
        if !batch.is_empty() {
            self.write_down(batch);
        }
    }

    fn write_down(&self, mut batch: Vec<Finding>) {
        batch.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let mut open = Open::default();
        if let Err(failure) = self
            .replica
            .observe(batch, &self.rules, self.began, &mut open)
        {
            self.fail(failure);
        }
        let mut all = lock(&self.open);
        all.again.extend(open.again);
        all.unknown.extend(open.unknown);
        all.racy.extend(open.racy);
        all.rotten.extend(open.rotten);
    }

    fn fail(&self, failure: LookError) {
        *lock(&self.failure) = Some(failure);
    }
}

/// Says whether the process merely lacks means at the moment.
fn is_passing(error: Errno) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR].contains(&error)
}

fn was_mount(before: Option<&Slot>) -> bool {
    match before {
        Some(Slot::Is(row)) => row.entry.is_dir() && row.print.foreign,
        Some(Slot::Blocked { lost_mount, .. }) => *lost_mount,
        Some(Slot::Rotten(_)) | None => false,
    }
}

fn kind_of(entry: &Entry) -> FileType {
    match entry {
        Entry::File { .. } => FileType::RegularFile,
        Entry::Dir => FileType::Directory,
        Entry::Symlink { .. } => FileType::Symlink,
    }
}
