//! Carries out the steps of one operation.

pub(crate) mod moved;
mod undo;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, RawMode, Stat, Uid, fchmod, fstat, linkat, mkdirat, renameat,
    unlinkat,
};
use rustix::io::Errno;
use shared::ignore::is_litter;
use shared::transfer::{Op, Outcome, Trouble, TroubleKind};
use shared::tree::Entry;

use super::steps::displaces;
use super::{Job, Step, steps};
use crate::displaced::Rested;
use crate::error::DiskError;
use crate::fingerprint::{self, Fingerprint, SeenRow, now_ns};
use crate::kept::room::is_full;
use crate::kept::{Line, new_id, what_is};
use crate::read::{Reader, Reading};
use crate::sqlite::locks::TreeFile;
use crate::stage::{Ready, discard, ready_name};
use crate::trouble::{is_stale, trouble};
use crate::volume::{At, exchange, is_unsupported, rename_new};
use crate::{Replica, handle, lock, utc_now};

/// One operation under way.
pub(crate) struct Work<'a> {
    replica: &'a Replica,
    op: &'a Op,
    id: &'a str,
    why: &'static str,
    staged_name: String,
    ready: Option<Ready>,
    parent: &'a OwnedFd,
    /// What stood at the target when it was checked.
    checked: Option<Stat>,
    /// The staged file as it was dressed.
    dressed: Option<Fingerprint>,
    /// Whether what lies in the stage under our name is what we staged.
    staged_is_ours: bool,
    /// The file of which the exec bit was changed: no directory's durability covers that.
    pub(super) changed: Option<TreeFile>,
}

/// Why the steps end early.
enum End {
    /// The path is not as the plan saw it.
    Stale,
    Error(&'static str, Errno),
    Held(Trouble),
    /// The volume cannot exchange; start again without.
    Weak,
    /// What came out of an exchange has to go back; then it ends so.
    Undo(Box<Self>),
    /// What was moved or linked away was not what was expected, and has to go back.
    PutBack,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        replica: &'a Replica,
        job: &'a Job<'a>,
        ready: Option<Ready>,
        parent: &'a OwnedFd,
    ) -> Self {
        Self {
            replica,
            op: job.op,
            id: &job.id,
            why: job.why,
            staged_name: ready_name(&job.id),
            ready,
            parent,
            checked: None,
            dressed: None,
            staged_is_ours: ready.is_some(),
            changed: None,
        }
    }

    /// Returns what an operation ends with when the directory of its path cannot be opened.
    pub(super) fn ended_by(op: &Op, error: Errno) -> Outcome {
        if is_stale(error) {
            Outcome::Stale
        } else {
            Outcome::Held(trouble(&op.path, "reached", error))
        }
    }

    /// Takes the steps.
    ///
    /// # Errors
    /// Only when a test stops it.
    pub(super) fn run(&mut self) -> Result<Outcome, DiskError> {
        let weak = self.replica.weaker();
        let ended = match self.take_steps(weak)? {
            Err(End::Weak) => {
                tracing::warn!("the volume cannot exchange two names; replacing in weaker mode");
                self.replica.weaker.store(true, Ordering::Relaxed);
                self.take_steps(true)?
            }
            ended => ended,
        };
        if self.staged_is_ours {
            discard(&self.replica.root, &self.staged_name);
        }
        Ok(ended.map_or_else(|end| self.ended(end), |()| Outcome::Done))
    }

    fn ended(&self, end: End) -> Outcome {
        match end {
            End::Stale | End::Weak | End::Undo(_) | End::PutBack => Outcome::Stale,
            End::Error(_, error) if is_stale(error) => Outcome::Stale,
            End::Error(what, error) => Outcome::Held(trouble(&self.op.path, what, error)),
            End::Held(trouble) => Outcome::Held(trouble),
        }
    }

    fn take_steps(&mut self, weak: bool) -> Result<Result<(), End>, DiskError> {
        for step in steps::steps(self.op, weak) {
            self.replica.before(*step)?;
            let ended = match self.step(*step) {
                Err(End::Error(_, error)) if is_full(error) && self.replica.make_room(0) => {
                    self.step(*step)
                }
                ended => ended,
            };
            match ended {
                Ok(()) => {}
                Err(End::Undo(end)) => {
                    self.undo()?;
                    return Ok(Err(*end));
                }
                Err(End::PutBack) => {
                    self.replica.before(Step::Undo)?;
                    self.put_back();
                    return Ok(Err(End::Stale));
                }
                Err(end) => return Ok(Err(end)),
            }
        }
        Ok(Ok(()))
    }

    fn step(&mut self, step: Step) -> Result<(), End> {
        match step {
            Step::StillIs => self.still_is(),
            Step::MakeDir => self.make_dir(),
            Step::Dress => self.dress().map_err(|error| End::Error("prepared", error)),
            Step::Create => self.create(),
            Step::Exchange => self.exchange(),
            Step::CameOut => self.came_out(),
            Step::Keep => self.keep(),
            Step::DropDir => self.drop_dir(),
            Step::Link => self.link(),
            Step::Over => self.over(),
            Step::Withdraw => self.withdraw(),
            Step::Withdrawn => self.withdrawn(),
            Step::ClearLitter => self.clear_litter(),
            Step::RemoveDir => self.remove_dir(),
            Step::SetExec => self.set_exec(),
            // Those of the whole batch.
            Step::Announce | Step::Barrier | Step::SyncDirs | Step::Index | Step::Indexed => Ok(()),
            // What others take.
            Step::Undo | Step::SyncTree | Step::Move | Step::Moved => Ok(()),
        }
    }

    fn still_is(&mut self) -> Result<(), End> {
        let there =
            handle::stat_at(self.parent, self.name()).map_err(|e| End::Error("looked at", e))?;
        self.checked = match (&self.op.expect, there) {
            (None, None) => None,
            (Some(expect), Some(stat)) if self.as_seen(expect, &stat) => Some(stat),
            (Some(expect), Some(stat)) if self.is(expect, self.target(), &stat) => Some(stat),
            _ => return Err(End::Stale),
        };
        Ok(())
    }

    fn make_dir(&self) -> Result<(), End> {
        match mkdirat(self.parent, self.name(), Mode::from_raw_mode(0o777)) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => match handle::stat_at(self.parent, self.name()) {
                Ok(Some(stat))
                    if fingerprint::kind(&stat) == FileType::Directory && self.is_spelled_so() =>
                {
                    Ok(())
                }
                _ => Err(End::Stale),
            },
            Err(error) => Err(End::Error("created", error)),
        }
    }

    /// Says whether what answers to the name has just this name. A volume that folds answers for another
    /// spelling as well.
    fn is_spelled_so(&self) -> bool {
        !self.replica.root.folds
            || handle::list(self.parent)
                .is_ok_and(|names| names.iter().any(|raw| **raw == *self.name().as_bytes()))
    }

    /// Gives the staged file the rights of the one that it replaces, and the time that came with it.
    fn dress(&mut self) -> Result<(), Errno> {
        let Some(Entry::File { exec, .. }) = self.op.make else {
            return Ok(());
        };
        if let (None, Some(dressed)) = (self.checked, self.ready.and_then(|ready| ready.dressed)) {
            self.dressed = Some(dressed);
            return Ok(());
        }
        let stage = &self.replica.root.stage;
        let name = self.staged_name.as_str();
        let staged = handle::stat_at(stage, name)?.ok_or(Errno::NOENT)?;
        let replaced = self
            .checked
            .filter(|stat| fingerprint::kind(stat) == FileType::RegularFile);
        let mode = replaced.map_or(self.replica.root.file_mode, |stat| fingerprint::mode(&stat));
        if let Some(old) = replaced
            && (old.st_uid, old.st_gid) != (staged.st_uid, staged.st_gid)
        {
            let (owner, group) = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
            // Only a privileged process may; for any other the new file is its own, as after a copy.
            rustix::fs::chownat(
                stage,
                name,
                Some(owner),
                Some(group),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .ok();
        }
        let mode = Mode::from_raw_mode(fingerprint::with_exec(mode, exec) as RawMode);
        rustix::fs::chmodat(stage, name, mode, AtFlags::empty())?;
        if let Some(Ready {
            mtime_ns: Some(mtime_ns),
            ..
        }) = self.ready
        {
            let times = fingerprint::times(mtime_ns);
            // The time is a courtesy and never compared: a volume that cannot store it is no obstacle.
            rustix::fs::utimensat(stage, name, &times, AtFlags::SYMLINK_NOFOLLOW).ok();
        }
        let stat = handle::stat_at(stage, name)?.ok_or(Errno::NOENT)?;
        self.dressed = Some(Fingerprint::of(&stat, self.replica.root.device));
        Ok(())
    }

    fn create(&mut self) -> Result<(), End> {
        rename_new(self.staged(), self.target()).map_err(|error| End::Error("created", error))?;
        self.staged_is_ours = false;
        Ok(())
    }

    fn exchange(&mut self) -> Result<(), End> {
        match exchange(self.staged(), self.target()) {
            Ok(()) => {
                self.staged_is_ours = false;
                Ok(())
            }
            Err(error) if is_unsupported(error) => Err(End::Weak),
            Err(error) => Err(End::Error("replaced", error)),
        }
    }

    fn came_out(&mut self) -> Result<(), End> {
        if self.is_what_was_checked(self.staged()) {
            return Ok(());
        }
        Err(End::Undo(Box::new(End::Stale)))
    }

    fn keep(&mut self) -> Result<(), End> {
        if let Err(error) = rename_new(self.staged(), self.kept()) {
            // It is done all the same; the displaced file lies in the stage, where the next start
            // finds it and moves it to the kept store.
            tracing::warn!(path = %self.op.path, %error, "a displaced file could not be moved yet");
        }
        Ok(())
    }

    fn drop_dir(&mut self) -> Result<(), End> {
        match unlinkat(self.staged().dir, self.staged().name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(()),
            Err(error) => Err(End::Undo(Box::new(self.directory_stays(error)))),
        }
    }

    fn link(&mut self) -> Result<(), End> {
        let (from, to) = (self.target(), self.kept());
        match linkat(from.dir, from.name, to.dir, to.name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            // Without hard links the path is absent until the next step.
            Err(error) if is_unsupported(error) || error == Errno::PERM => {
                renameat(from.dir, from.name, to.dir, to.name)
                    .map_err(|error| End::Error("replaced", error))
            }
            Err(error) => Err(End::Error("replaced", error)),
        }
    }

    /// Whoever saves between the last look and the rename is lost to both the path and the kept store: the
    /// one moment that the weaker mode cannot close while the path is never absent.
    fn over(&mut self) -> Result<(), End> {
        let (from, to) = (self.staged(), self.target());
        let replaced = match handle::stat_at(to.dir, to.name) {
            Ok(Some(_)) if self.same_file(self.kept(), to) => {
                renameat(from.dir, from.name, to.dir, to.name)
            }
            Ok(Some(_)) => return Err(End::PutBack),
            Ok(None) => rename_new(from, to),
            Err(error) => Err(error),
        };
        replaced.map_err(|error| match error {
            Errno::EXIST => End::PutBack,
            error => End::Error("replaced", error),
        })?;
        self.staged_is_ours = false;
        Ok(())
    }

    fn withdraw(&mut self) -> Result<(), End> {
        rename_new(self.target(), self.kept()).map_err(|error| End::Error("deleted", error))
    }

    fn withdrawn(&mut self) -> Result<(), End> {
        if self.is_what_was_checked(self.kept()) {
            Ok(())
        } else {
            Err(End::PutBack)
        }
    }

    fn clear_litter(&mut self) -> Result<(), End> {
        let failed = |error| End::Error("emptied", error);
        let dir = handle::open_dir(self.parent, self.name()).map_err(failed)?;
        let names = handle::list(&dir).map_err(failed)?;
        let name = |raw: &[u8]| String::from_utf8_lossy(raw).into_owned();
        if let Some(other) = names
            .iter()
            .map(|raw| name(raw))
            .find(|name| !is_litter(name))
        {
            return Err(self.not_empty(&format!(": \"{other}\" is in it")));
        }
        for litter in names.iter().map(|raw| name(raw)) {
            let at = At::new(&dir, &litter);
            let stat = handle::stat_at(at.dir, at.name).map_err(failed)?;
            let (Ok(path), Some(stat)) = (self.op.path.join(&litter), stat) else {
                continue;
            };
            let Some(what) = what_is(at, &stat) else {
                continue;
            };
            let now = utc_now();
            let line = Line {
                id: new_id(now),
                at: now,
                path,
                what,
                why: "litter".to_owned(),
                node: self.replica.kept.node.clone(),
                staged: None,
            };
            self.replica
                .kept
                .append(std::slice::from_ref(&line))
                .map_err(|_| failed(Errno::IO))?;
            rename_new(at, At::new(&self.replica.root.kept, &line.id)).map_err(failed)?;
        }
        Ok(())
    }

    fn remove_dir(&mut self) -> Result<(), End> {
        unlinkat(self.parent, self.name(), AtFlags::REMOVEDIR)
            .map_err(|error| self.directory_stays(error))
    }

    fn set_exec(&mut self) -> Result<(), End> {
        let failed = |error| End::Error("changed", error);
        let Some(Entry::File { exec, .. }) = self.op.make else {
            return Err(End::Stale);
        };
        let (file, stat) = handle::open_file(self.parent, self.name()).map_err(failed)?;
        let checked = self.checked.as_ref().map(fingerprint::inode);
        if checked != Some(fingerprint::inode(&stat)) {
            return Err(End::Stale);
        }
        let mode = fingerprint::with_exec(fingerprint::mode(&stat), exec);
        fchmod(&file, Mode::from_raw_mode(mode as RawMode)).map_err(failed)?;
        // The mode is the file's own: making its directory durable does not cover it.
        rustix::fs::fsync(&file).map_err(failed)?;
        let changed = fstat(&file).map_err(failed)?;
        // A file that was swapped in meanwhile has the name, and does not have the bit.
        let there = handle::stat_at(self.parent, self.name()).map_err(failed)?;
        if there.as_ref().map(fingerprint::inode) != Some(fingerprint::inode(&changed)) {
            return Err(End::Stale);
        }
        // Whoever wrote into it since it was checked has made another content of it.
        let written = |stat: &Stat| (stat.st_size, fingerprint::mtime_ns(stat));
        if self.checked.as_ref().map(written) == Some(written(&changed)) {
            self.dressed = Some(Fingerprint::of(&changed, self.replica.root.device));
        }
        self.changed = Some(file);
        Ok(())
    }

    /// Returns what was displaced, as it was then, if that is a file.
    pub(super) fn displaced(&self) -> Option<Rested> {
        let is_file = |stat: &&Stat| fingerprint::kind(stat) == FileType::RegularFile;
        let displaced = self.checked.as_ref().filter(is_file);
        displaced.filter(|_| displaces(self.op)).map(Rested::of)
    }

    /// Returns what stands at the path after all steps, and whether somebody changed it again already.
    pub(super) fn row(&self) -> Option<(SeenRow, bool)> {
        let entry = self.op.make.clone()?;
        let stat = handle::stat_at(self.parent, self.name()).ok().flatten();
        let Some(stat) = stat else {
            let row = SeenRow {
                entry,
                print: Fingerprint::UNKNOWN,
                racy: false,
            };
            return Some((row, true));
        };
        let print = Fingerprint::of(&stat, self.replica.root.device);
        if entry.is_dir() {
            let is_dir = fingerprint::kind(&stat) == FileType::Directory;
            return Some((SeenRow::dir(print.foreign), !is_dir));
        }
        let ours = match (&entry, self.dressed) {
            (Entry::File { .. }, Some(dressed)) => dressed.is_moved(&stat),
            (Entry::File { .. }, None) => self.checked.is_some_and(|checked| {
                Fingerprint::of(&checked, self.replica.root.device) == print
            }),
            _ => self
                .ready
                .is_none_or(|ready| ready.inode == fingerprint::inode(&stat)),
        };
        let print = if ours { print } else { Fingerprint::UNKNOWN };
        let row = SeenRow {
            entry,
            racy: print.is_racy(now_ns()),
            print,
        };
        Some((row, !ours))
    }

    /// Says whether the thing at a name is the one that was checked at the target, or another one with
    /// the expected content.
    fn is_what_was_checked(&self, at: At<'_>) -> bool {
        let Some(expect) = &self.op.expect else {
            return false;
        };
        let Ok(Some(stat)) = handle::stat_at(at.dir, at.name) else {
            return false;
        };
        let same = self.checked.is_some_and(|checked| {
            let print = Fingerprint::of(&checked, self.replica.root.device);
            print.is_moved(&stat) && !print.is_racy(now_ns())
        });
        match expect {
            Entry::File { .. } if same => fingerprint::kind(&stat) == FileType::RegularFile,
            _ => self.is(expect, at, &stat),
        }
    }

    /// Says whether the target is as it was seen, and was seen as expected.
    fn as_seen(&self, expect: &Entry, stat: &Stat) -> bool {
        let print = Fingerprint::of(stat, self.replica.root.device);
        lock(&self.replica.seen)
            .row(&self.op.path)
            .is_some_and(|row| row.entry == *expect && row.print == print && !row.racy)
    }

    /// Looks at the thing at a name, and reads it if it is a file.
    fn is(&self, expect: &Entry, at: At<'_>, stat: &Stat) -> bool {
        let kind = fingerprint::kind(stat);
        match expect {
            Entry::Dir => kind == FileType::Directory,
            Entry::Symlink { target } => {
                kind == FileType::Symlink
                    && handle::read_link(at.dir, at.name)
                        .is_ok_and(|found| found == target.as_bytes())
            }
            Entry::File { len, .. } => {
                kind == FileType::RegularFile
                    && fingerprint::len(stat) == *len
                    && self.read(at).is_some_and(|row| row.entry == *expect)
            }
        }
    }

    fn read(&self, at: At<'_>) -> Option<SeenRow> {
        let never = AtomicBool::new(false);
        let device = self.replica.root.device;
        match Reader::default().see(at.dir, at.name, device, &never) {
            Ok(Reading::Read(row, _)) => Some(row),
            _ => None,
        }
    }

    fn is_ours(&self, at: At<'_>) -> bool {
        let there = handle::stat_at(at.dir, at.name).ok().flatten();
        self.ready
            .is_some_and(|ready| there.is_some_and(|stat| fingerprint::inode(&stat) == ready.inode))
    }

    fn same_file(&self, a: At<'_>, b: At<'_>) -> bool {
        let inode = |at: At<'_>| {
            handle::stat_at(at.dir, at.name)
                .ok()
                .flatten()
                .map(|stat| fingerprint::inode(&stat))
        };
        inode(a).is_some() && inode(a) == inode(b)
    }

    fn directory_stays(&self, error: Errno) -> End {
        match error {
            Errno::NOTEMPTY | Errno::EXIST => self.not_empty(" by now"),
            other => End::Error("deleted", other),
        }
    }

    fn not_empty(&self, more: &str) -> End {
        let kind = TroubleKind::NotEmpty;
        let text = format!(
            "the directory \"{}\" could not be removed because it is not empty{more}; it is \
             untouched. To do: {}",
            self.op.path,
            kind.remedy()
        );
        End::Held(Trouble { kind, text })
    }

    fn name(&self) -> &str {
        self.op.path.name()
    }

    fn target(&self) -> At<'_> {
        At::new(self.parent, self.op.path.name())
    }

    fn staged(&self) -> At<'_> {
        At {
            dir: self.replica.root.stage.as_fd(),
            name: &self.staged_name,
        }
    }

    fn kept(&self) -> At<'_> {
        At {
            dir: self.replica.root.kept.as_fd(),
            name: self.id,
        }
    }
}
