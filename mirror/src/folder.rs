//! The target `folder`: any mounted disk, also one that both machines mount.
//!
//! The copies are plain files. What is said beside them stands in a private folder in it:
//!
//! | Place | Holds |
//! | --- | --- |
//! | `.layer-sync-mirror/id` | what the folder is known by: a disk that is not mounted has none |
//! | `.layer-sync-mirror/marks/NODE.jsonl` | the marks that a node wrote: one writer for each file, the last line for a path counts |
//! | `.layer-sync-mirror/stage/` | what is being written |
//! | `.layer-sync-mirror/trash/DAY/` | what was replaced or removed, for 30 days |
//!
//! A mark counts for a file as long as length and time are those it was written for. Ids are inode numbers: they follow a rename.

mod marks;
mod walk;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shared::mirror::Mark;
use shared::utc::UtcMs;

use crate::target::{About, At, Change, Item, Kind, Page, Reading, Target, Writing, Wrong};
use marks::Marks;
use walk::Walked;

/// The private folder.
pub const PRIVATE: &str = ".layer-sync-mirror";
/// Bytes that are read or written at a time.
const BLOCK: usize = 1024 * 1024;
/// How long what was replaced or removed stays.
const TRASH_DAYS: u64 = 30;
const DAY: Duration = Duration::from_secs(86_400);

/// A folder that is the mirror.
pub struct Folder {
    root: PathBuf,
    expected: Option<String>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    marks: Marks,
    walked: Walked,
    /// Counts the answers: a cursor of another process is none.
    answers: u64,
    /// What the folder is known by.
    id: String,
    swept: Option<SystemTime>,
}

impl Folder {
    /// Takes a folder as the target. `node` is who writes; `expected` is what the folder was known by before, if it was.
    pub fn new(root: PathBuf, node: &str, expected: Option<String>) -> Self {
        let state = State {
            marks: Marks::new(root.join(PRIVATE).join("marks"), node),
            ..State::default()
        };
        Self {
            root,
            expected,
            state: RefCell::new(state),
        }
    }

    fn private(&self, part: &str) -> PathBuf {
        self.root.join(PRIVATE).join(part)
    }

    /// Makes sure that the folder is the one, and returns what it is known by.
    fn check(&self) -> Result<String, Wrong> {
        let file = self.private("id");
        let known = self.state.try_borrow().map(|state| state.id.clone());
        let known = known.ok().filter(|id| !id.is_empty());
        let expected = known.or_else(|| self.expected.clone());
        match fs::read_to_string(&file) {
            Ok(id) if expected.as_deref().is_none_or(|expected| expected == id) => Ok(id),
            Ok(_) => Err(Wrong::NoRoot(format!(
                "{} is another mirror than before",
                self.root.display()
            ))),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unreachable(&error)),
            Err(_) if expected.is_some() => Err(Wrong::NoRoot(format!(
                "{} does not hold the mirror; is the disk mounted?",
                self.root.display()
            ))),
            Err(_) => self.begin(&file).map_err(|error| unreachable(&error)),
        }
    }

    fn begin(&self, file: &Path) -> io::Result<String> {
        for part in ["marks", "stage", "trash"] {
            fs::create_dir_all(self.private(part))?;
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let fresh = self.private("stage").join(&id);
        let mut out = File::create_new(&fresh)?;
        out.write_all(id.as_bytes())?;
        out.sync_all()?;
        // Whoever of two was first counts.
        match fs::hard_link(&fresh, file).or_else(|error| match file.exists() {
            true => Err(error),
            false => fs::rename(&fresh, file),
        }) {
            Ok(()) => {
                let _ = fs::remove_file(&fresh);
                File::open(self.root.join(PRIVATE))?.sync_all()?;
                Ok(id)
            }
            Err(_) => fs::read_to_string(file),
        }
    }

    /// Returns where an item lies now, if it is still there.
    fn find(&self, id: &str) -> Result<Option<(PathBuf, Item)>, Wrong> {
        let state = self.state.borrow();
        let Some(path) = state.walked.path_of(id) else {
            return Ok(None);
        };
        let item = walk::item_at(
            &self.root,
            &state.id,
            &path,
            &state.marks,
            Some(&state.walked),
        );
        let item = item.map_err(|error| unreachable(&error))?;
        Ok(item.filter(|item| item.id == id).map(|item| (path, item)))
    }

    /// Returns the path of a folder by its id.
    fn folder(&self, id: &str) -> Result<PathBuf, Wrong> {
        if id == self.state.borrow().id {
            return Ok(PathBuf::new());
        }
        match self.find(id)? {
            Some((path, item)) if item.kind == Kind::Folder => Ok(path),
            _ => Err(Wrong::Gone),
        }
    }

    fn place(&self, at: At<'_>) -> Result<PathBuf, Wrong> {
        if at.name == PRIVATE || at.name.contains('/') {
            return Err(Wrong::Refused(
                "the mirror needs the name itself".to_owned(),
            ));
        }
        Ok(self.folder(at.parent)?.join(at.name))
    }

    /// Moves what stands at a path to the trash.
    fn discard(&self, path: &Path) -> io::Result<()> {
        let day = now().0 / DAY.as_millis() as u64;
        let trash = self.private("trash").join(day.to_string());
        fs::create_dir_all(&trash)?;
        let flat = path.to_string_lossy().replace('/', "~");
        let mut kept = flat.as_str();
        while kept.len() > 180 {
            let next = kept.char_indices().nth(1).map_or(kept.len(), |(at, _)| at);
            kept = &kept[next..];
        }
        let mut number = now().0;
        loop {
            let to = trash.join(format!("{number}~{kept}"));
            if !to.exists() {
                return fs::rename(self.root.join(path), to);
            }
            number += 1;
        }
    }

    /// Removes what lay in the trash for long enough.
    fn sweep(&self) {
        let mut state = self.state.borrow_mut();
        let now_ = SystemTime::now();
        let is_due = state
            .swept
            .is_none_or(|at| now_.duration_since(at).is_ok_and(|since| since > DAY));
        if !is_due {
            return;
        }
        state.swept = Some(now_);
        let today = now().0 / DAY.as_millis() as u64;
        let Ok(days) = fs::read_dir(self.private("trash")) else {
            return;
        };
        for day in days.flatten() {
            let number = day.file_name().to_string_lossy().parse::<u64>();
            if number.is_ok_and(|number| number + TRASH_DAYS < today) {
                let _ = fs::remove_dir_all(day.path());
            }
        }
    }

    /// Notes a mark for what stands at a path now, and returns the item.
    fn marked(&self, path: &Path, mark: &Mark) -> Result<Item, Wrong> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let found = walk::stat(&self.root.join(path)).map_err(|error| failed(&error))?;
        let found = found.ok_or(Wrong::Gone)?;
        state
            .marks
            .write(path, &found, mark)
            .map_err(|error| failed(&error))?;
        let item = walk::item_at(
            &self.root,
            &state.id,
            path,
            &state.marks,
            Some(&state.walked),
        );
        let item = item.map_err(|error| failed(&error))?.ok_or(Wrong::Gone)?;
        state.walked.note(path, &item);
        Ok(item)
    }
}

impl Target for Folder {
    type Reading = FileReading;

    async fn root(&self) -> Result<String, Wrong> {
        let id = self.check()?;
        self.sweep();
        self.state.borrow_mut().id.clone_from(&id);
        Ok(id)
    }

    async fn about(&self) -> Result<About, Wrong> {
        self.check()?;
        let stat = rustix::fs::statvfs(&self.root).map_err(|error| unreachable(&error.into()))?;
        let block = stat.f_frsize;
        Ok(About {
            name: self.root.display().to_string(),
            used: stat.f_blocks.saturating_sub(stat.f_bfree) * block,
            limit: Some(stat.f_blocks * block),
        })
    }

    async fn changes(&self, since: Option<&str>) -> Result<Page, Wrong> {
        self.check()?;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let own = |answers: u64| format!("{}.{answers}", std::process::id());
        let listing = since.is_none();
        if !listing && (state.answers == 0 || since != Some(&own(state.answers))) {
            return Err(Wrong::CursorLost);
        }
        state.marks.read().map_err(|error| unreachable(&error))?;
        let now_ = Walked::walk(&self.root, &state.id, &state.marks, &state.walked)
            .map_err(|error| unreachable(&error))?;
        // What goes comes first: its inode may be in use again.
        let mut changes: Vec<Change> = Vec::new();
        if !listing {
            let known = state.walked.items().map(|(id, _)| id);
            let known: BTreeSet<&String> = known.chain(state.walked.untold()).collect();
            let gone = known.into_iter().filter(|id| !now_.has(id));
            changes.extend(gone.map(|id| Change::Gone(id.clone())));
        }
        for (id, item) in now_.items() {
            let is_untold = state.walked.untold().contains(id);
            if listing || is_untold || state.walked.item(id) != Some(item) {
                changes.push(Change::Is(item.clone()));
            }
        }
        state.walked = now_;
        state.answers += 1;
        Ok(Page {
            changes,
            cursor: own(state.answers),
            more: false,
            listing,
        })
    }

    async fn children(&self, folder: &str) -> Result<Vec<Item>, Wrong> {
        let path = self.folder(folder)?;
        let state = self.state.borrow();
        let names = walk::names(&self.root.join(&path)).map_err(|error| failed(&error))?;
        let mut items = Vec::new();
        for name in names {
            let at = path.join(name);
            let item = walk::item_at(
                &self.root,
                &state.id,
                &at,
                &state.marks,
                Some(&state.walked),
            );
            items.extend(item.map_err(|error| failed(&error))?);
        }
        Ok(items)
    }

    async fn look(&self, id: &str) -> Result<Option<Item>, Wrong> {
        self.check()?;
        Ok(self.find(id)?.map(|(_, item)| item))
    }

    async fn read(&self, item: &Item, from: u64) -> Result<FileReading, Wrong> {
        let (path, _) = self.find(&item.id)?.ok_or(Wrong::Gone)?;
        let mut file = walk::open(&self.root.join(path)).map_err(|error| failed(&error))?;
        file.seek(SeekFrom::Start(from))
            .map_err(|error| failed(&error))?;
        Ok(FileReading(file))
    }

    /// The marks say what was written; a disk that rots is found by reading.
    async fn sum_now(&self, _: &Item) -> Result<Option<[u8; 32]>, Wrong> {
        Ok(None)
    }

    async fn write(&self, writing: Writing<'_>) -> Result<Item, Wrong> {
        self.check()?;
        let path = match writing.over {
            Some(item) => self.find(&item.id)?.ok_or(Wrong::Gone)?.0,
            None => self.place(writing.at)?,
        };
        let staged = self
            .private("stage")
            .join(format!("{:x}", writing.mark.writing));
        let stage = || -> Result<(), Wrong> {
            let mut file = File::create(&staged)?;
            let mut buffer = vec![0; BLOCK];
            let mut at = 0;
            while at < writing.bytes.len() {
                let read = writing.bytes.read_at(at, &mut buffer)?;
                if read == 0 {
                    return Err(Wrong::Changed);
                }
                file.write_all(&buffer[..read])
                    .map_err(|error| failed(&error))?;
                at += read as u64;
            }
            if !writing.bytes.rests()? {
                return Err(Wrong::Changed);
            }
            if writing.mtime_ns != 0 {
                // A courtesy, as everywhere.
                let since = Duration::from_nanos(writing.mtime_ns.unsigned_abs());
                let _ = file.set_modified(UNIX_EPOCH + since);
            }
            Ok(())
        };
        let put = || -> Result<(), Wrong> {
            let to = self.root.join(&path);
            if let Some(over) = writing.over {
                // Somebody may have written it while this was staged.
                let now = self.find(&over.id)?.ok_or(Wrong::Gone)?.1;
                if now.version != over.version {
                    return Err(Wrong::Changed);
                }
                let aside = self
                    .private("stage")
                    .join(format!("{:x}.old", writing.mark.writing));
                // With a second name the path is never absent.
                match fs::hard_link(&to, &aside) {
                    Ok(()) => {
                        fs::rename(&staged, &to).map_err(|error| failed(&error))?;
                        let old = Path::new(PRIVATE)
                            .join("stage")
                            .join(format!("{:x}.old", writing.mark.writing));
                        self.discard(&old).map_err(|error| failed(&error))?;
                    }
                    Err(_) => {
                        self.discard(&path).map_err(|error| failed(&error))?;
                        fs::rename(&staged, &to).map_err(|error| failed(&error))?;
                    }
                }
            } else {
                place_new(&staged, &to)?;
            }
            Ok(())
        };
        let written = stage().and_then(|()| put());
        if written.is_err() {
            let _ = fs::remove_file(&staged);
        }
        written?;
        self.marked(&path, writing.mark)
    }

    async fn make_folder(&self, at: At<'_>, mark: &Mark) -> Result<Item, Wrong> {
        self.check()?;
        let path = self.place(at)?;
        match fs::create_dir(self.root.join(&path)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let there = walk::stat(&self.root.join(&path)).map_err(|error| failed(&error))?;
                if !there.is_some_and(|there| there.is_dir) {
                    return Err(Wrong::Changed);
                }
            }
            Err(error) => return Err(failed(&error)),
        }
        self.marked(&path, mark)
    }

    async fn relocate(&self, item: &Item, to: At<'_>, mark: &Mark) -> Result<Item, Wrong> {
        self.check()?;
        let (from, _) = self.find(&item.id)?.ok_or(Wrong::Gone)?;
        let to = self.place(to)?;
        if from != to {
            let there = self.root.join(&to);
            if there.symlink_metadata().is_ok() {
                return Err(Wrong::Changed);
            }
            fs::rename(self.root.join(&from), &there).map_err(|error| failed(&error))?;
            self.state.borrow_mut().walked.rename(&from, &to);
        }
        self.marked(&to, mark)
    }

    async fn set_mark(&self, item: &Item, mark: &Mark) -> Result<Item, Wrong> {
        self.check()?;
        let (path, now) = self.find(&item.id)?.ok_or(Wrong::Gone)?;
        if now.version != item.version {
            return Err(Wrong::Changed);
        }
        self.marked(&path, mark)
    }

    /// Once for all of a round: a power cut before it leaves files that do not look as their marks say, and they are written again.
    async fn flush(&self) -> Result<(), Wrong> {
        let root = File::open(&self.root).map_err(|error| unreachable(&error))?;
        disk::sync_volume(&root).map_err(|error| unreachable(&error))
    }

    async fn remove(&self, item: &Item) -> Result<(), Wrong> {
        self.check()?;
        let (path, _) = self.find(&item.id)?.ok_or(Wrong::Gone)?;
        self.discard(&path).map_err(|error| failed(&error))?;
        self.state.borrow_mut().walked.forget(&path);
        Ok(())
    }
}

/// Puts a staged file where nothing stands.
fn place_new(staged: &Path, to: &Path) -> Result<(), Wrong> {
    match fs::hard_link(staged, to) {
        Ok(()) => fs::remove_file(staged).map_err(|error| failed(&error)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Wrong::Changed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Wrong::Gone),
        // Without hard links there is a moment in which somebody may be faster.
        Err(_) if to.symlink_metadata().is_ok() => Err(Wrong::Changed),
        Err(_) => fs::rename(staged, to).map_err(|error| failed(&error)),
    }
}

/// Reads a file.
pub struct FileReading(File);

impl Reading for FileReading {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Wrong> {
        let mut part = vec![0; BLOCK];
        let read = self.0.read(&mut part).map_err(|error| failed(&error))?;
        part.truncate(read);
        Ok((read > 0).then_some(part))
    }
}

/// What an error about one file means.
fn failed(error: &io::Error) -> Wrong {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Wrong::Full(error.to_string()),
        ErrorKind::NotFound => Wrong::Gone,
        ErrorKind::InvalidInput
        | ErrorKind::InvalidFilename
        | ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::FileTooLarge => Wrong::Refused(error.to_string()),
        _ => Wrong::Unreachable(error.to_string()),
    }
}

fn unreachable(error: &io::Error) -> Wrong {
    Wrong::Unreachable(error.to_string())
}

fn now() -> UtcMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UtcMs(since.as_millis() as u64)
}
