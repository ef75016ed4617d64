//! One operation of a batch, step by step: `disk::apply::steps` and `disk::apply::carry` for simulated
//! files. A step is atomic, as the call of the system behind it is; between two of them anybody may do
//! anything to the tree.

use shared::path::RelPath;
use shared::transfer::{Op, Outcome, Source, Trouble, TroubleKind};
use shared::tree::Entry;

use crate::defect::Defect;
use crate::disk::Disk;
use crate::index::SeenRow;
use crate::take::{Staged, State, dir_of};
use crate::volume::{Dir, Ino, Inode, Line, Place, Print};

/// How often a swap is undone against somebody who keeps replacing the file.
const UNDO_TRIES: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    StillIs,
    MakeDir,
    Dress,
    Create,
    Exchange,
    CameOut,
    Keep,
    DropDir,
    Withdraw,
    Withdrawn,
    ClearLitter,
    RemoveDir,
    SetExec,
    Move,
    Moved,
}

/// An operation under way.
#[derive(Debug)]
pub(crate) struct Operation {
    steps: &'static [Step],
    next: usize,
    id: u64,
    staged: Option<Ino>,
    /// The directory of the path, as it was opened: it may be renamed meanwhile. `None` is the root.
    parent: Option<Ino>,
    name: String,
    /// What stood at the target when it was checked.
    checked: Option<Mark>,
    /// The staged file when it was dressed, or the one whose bit was changed.
    dressed: Option<Mark>,
    staged_is_ours: bool,
    /// What a move takes away, and the directory and the name to which it goes.
    leaving: Option<(Op, Option<Ino>, String)>,
    dirs: Vec<Dir>,
}

/// What a step led to.
#[derive(Debug)]
pub(crate) enum Progress {
    Going,
    Ended(Outcome),
}

/// What a rename leaves as it is.
type Mark = (Ino, u64, bool);

fn mark((ino, inode): (Ino, &Inode)) -> Mark {
    let exec = matches!(inode.entry, Entry::File { exec: true, .. });
    (ino, inode.mtime, exec)
}

enum End {
    Stale,
    Held(TroubleKind),
}

impl Operation {
    /// Opens the directory of the path.
    pub(crate) fn begin(disk: &mut Disk, op: &Op, staged: &Staged) -> Result<Self, Outcome> {
        let ready = match staged.state {
            State::Ready(ino) => Some(ino),
            State::Own if !needs_staged(op) => None,
            _ => return Err(Outcome::Gone),
        };
        if let Some((from, _)) = op.moves() {
            if staged.state != State::Own {
                return Err(Outcome::Gone);
            }
            let leaving = Op {
                path: from.clone(),
                expect: op.make.clone(),
                make: None,
                from: Source::Nothing,
                agrees: true,
            };
            return Ok(Self {
                steps: steps(op),
                next: 0,
                id: staged.id,
                staged: None,
                parent: parent_of(disk, from)?,
                name: from.name().to_owned(),
                checked: None,
                dressed: None,
                staged_is_ours: false,
                dirs: vec![dir_of(from), dir_of(&op.path)],
                leaving: Some((
                    leaving,
                    parent_of(disk, &op.path)?,
                    op.path.name().to_owned(),
                )),
            });
        }
        let parent = parent_of(disk, &op.path).inspect_err(|_| discard(disk, staged.id))?;
        Ok(Self {
            steps: steps(op),
            next: 0,
            id: staged.id,
            staged: ready,
            parent,
            name: op.path.name().to_owned(),
            checked: None,
            dressed: None,
            staged_is_ours: ready.is_some(),
            leaving: None,
            dirs: vec![dir_of(&op.path)],
        })
    }

    /// Returns what has to be made durable for it.
    pub(crate) fn touches(&self) -> Vec<Dir> {
        self.dirs.clone()
    }

    /// Takes a step.
    pub(crate) fn step(&mut self, disk: &mut Disk, op: &Op) -> Progress {
        let Some(step) = self.steps.get(self.next) else {
            return self.end(disk, Outcome::Done);
        };
        self.next += 1;
        let leaving = self.leaving.as_ref().map(|(leaving, ..)| leaving.clone());
        match self.take(disk, leaving.as_ref().unwrap_or(op), *step) {
            Ok(()) if self.next == self.steps.len() => self.end(disk, Outcome::Done),
            Ok(()) => Progress::Going,
            Err(End::Stale) => self.end(disk, Outcome::Stale),
            Err(End::Held(kind)) => self.end(disk, held(kind)),
        }
    }

    fn end(&self, disk: &mut Disk, outcome: Outcome) -> Progress {
        if self.staged_is_ours {
            discard(disk, self.id);
        }
        Progress::Ended(outcome)
    }

    /// Returns the place of the target: in the directory that was opened, wherever that is now.
    fn target(&self, disk: &Disk) -> Option<Place> {
        place_in(disk, self.parent, &self.name)
    }

    /// Renames what a move takes away.
    fn rename(&self, disk: &mut Disk, from: &Place) -> Result<(), End> {
        let (_, parent, name) = self.leaving.as_ref().ok_or(End::Stale)?;
        let to = place_in(disk, *parent, name).ok_or(End::Stale)?;
        let (Place::Tree(from_path), Place::Tree(to_path)) = (from, &to) else {
            return Err(End::Stale);
        };
        if disk.volume.is_shut_above(to_path) {
            return Err(End::Held(TroubleKind::Permission));
        }
        let is_inside = to_path == from_path || to_path.is_below(from_path);
        if disk.volume.at(from).is_none() || disk.volume.at(&to).is_some() || is_inside {
            return Err(End::Stale);
        }
        disk.rename(from_path, to_path);
        Ok(())
    }

    /// Looks at what was renamed, and renames it back if that is something else.
    fn renamed(&self, disk: &mut Disk, leaving: &Op, from: &Place) -> Result<(), End> {
        let (_, parent, name) = self.leaving.as_ref().ok_or(End::Stale)?;
        let Some(to) = place_in(disk, *parent, name) else {
            return Err(End::Stale);
        };
        if self.is_what_was_checked(disk, leaving, &to) {
            return Ok(());
        }
        if let (Place::Tree(to), Place::Tree(from)) = (&to, from)
            && disk.volume.node(to).is_some()
            && disk.volume.node(from).is_none()
        {
            disk.rename(to, from);
        }
        Err(End::Stale)
    }

    fn staged(&self) -> Place {
        Place::Stage(self.id)
    }

    fn kept(&self) -> Place {
        Place::Kept(self.id)
    }

    fn take(&mut self, disk: &mut Disk, op: &Op, step: Step) -> Result<(), End> {
        match step {
            Step::CameOut => self.came_out(disk, op),
            Step::Keep => {
                if disk.has(Defect::NotKept) {
                    disk.volume.remove(self.staged());
                } else {
                    disk.volume.rename(&self.staged(), &self.kept());
                }
                Ok(())
            }
            Step::DropDir => self.drop_dir(disk, op),
            Step::Withdrawn => self.withdrawn(disk, op),
            Step::Dress => {
                self.dress(disk, op);
                Ok(())
            }
            _ => self.take_at(disk, op, step),
        }
    }

    /// Takes a step that begins at the path.
    fn take_at(&mut self, disk: &mut Disk, op: &Op, step: Step) -> Result<(), End> {
        let target = self.target(disk).ok_or(End::Stale)?;
        if let Place::Tree(path) = &target
            && disk.volume.is_shut_above(path)
        {
            return Err(End::Held(TroubleKind::Permission));
        }
        match step {
            Step::StillIs => {
                self.checked = match (&op.expect, disk.volume.at(&target)) {
                    (None, None) => None,
                    (Some(expect), Some((ino, inode)))
                        if as_seen(disk, op, expect, &target) || is(expect, inode) =>
                    {
                        Some(mark((ino, inode)))
                    }
                    _ => return Err(End::Stale),
                };
                Ok(())
            }
            Step::MakeDir => match disk.volume.at(&target) {
                None => {
                    disk.volume.create(target, Entry::Dir);
                    Ok(())
                }
                Some((_, inode)) if inode.entry.is_dir() => Ok(()),
                Some(_) => Err(End::Stale),
            },
            Step::Create => {
                if disk.volume.at(&target).is_some() {
                    return Err(End::Stale);
                }
                disk.volume.rename(&self.staged(), &target);
                self.staged_is_ours = false;
                Ok(())
            }
            Step::Exchange => self.exchange(disk, &target),
            Step::Withdraw => {
                if disk.volume.at(&target).is_none() {
                    return Err(End::Stale);
                }
                disk.volume.rename(&target, &self.kept());
                Ok(())
            }
            Step::ClearLitter => match &target {
                Place::Tree(path) => match disk.volume.node(path) {
                    Some((_, inode)) if inode.shut => Err(End::Held(TroubleKind::Permission)),
                    Some(_) if !disk.volume.children(Some(path)).is_empty() => {
                        Err(End::Held(TroubleKind::NotEmpty))
                    }
                    Some((_, inode)) if inode.entry.is_dir() => Ok(()),
                    _ => Err(End::Stale),
                },
                _ => Err(End::Stale),
            },
            Step::RemoveDir => match &target {
                Place::Tree(path) => match disk.volume.node(path) {
                    Some((_, inode)) if !inode.entry.is_dir() => Err(End::Stale),
                    None => Err(End::Stale),
                    Some(_) if !disk.volume.children(Some(path)).is_empty() => {
                        Err(End::Held(TroubleKind::NotEmpty))
                    }
                    Some(_) => {
                        disk.volume.remove(target);
                        Ok(())
                    }
                },
                _ => Err(End::Stale),
            },
            Step::SetExec => self.set_exec(disk, op, &target),
            Step::Move => self.rename(disk, &target),
            Step::Moved => self.renamed(disk, op, &target),
            Step::CameOut | Step::Keep | Step::DropDir | Step::Withdrawn | Step::Dress => Ok(()),
        }
    }

    /// Gives the staged file its mode.
    fn dress(&mut self, disk: &mut Disk, op: &Op) {
        if let (Some(Entry::File { exec, .. }), Some(ino)) = (&op.make, self.staged) {
            disk.volume.set_exec(ino, *exec);
            self.dressed = disk.volume.at(&self.staged()).map(mark);
        }
    }

    fn exchange(&mut self, disk: &mut Disk, target: &Place) -> Result<(), End> {
        if disk.volume.at(target).is_none() {
            return Err(End::Stale);
        }
        if disk.has(Defect::RenameInsteadOfExchange) {
            disk.volume.rename(&self.staged(), target);
            // Nothing came out that could be looked at.
            self.next = self.steps.len();
        } else {
            disk.volume.exchange(&self.staged(), target);
        }
        self.staged_is_ours = false;
        Ok(())
    }

    fn came_out(&mut self, disk: &mut Disk, op: &Op) -> Result<(), End> {
        if self.is_what_was_checked(disk, op, &self.staged()) {
            return Ok(());
        }
        self.undo(disk, op);
        Err(End::Stale)
    }

    fn drop_dir(&mut self, disk: &mut Disk, op: &Op) -> Result<(), End> {
        let Some((ino, _)) = disk.volume.at(&self.staged()) else {
            return Ok(());
        };
        if disk.volume.is_empty_outside(ino) {
            disk.volume.remove(self.staged());
            return Ok(());
        }
        self.undo(disk, op);
        Err(End::Held(TroubleKind::NotEmpty))
    }

    fn withdrawn(&mut self, disk: &mut Disk, op: &Op) -> Result<(), End> {
        if disk.has(Defect::NotKept) {
            disk.volume.remove(self.kept());
            return Ok(());
        }
        if self.is_what_was_checked(disk, op, &self.kept()) {
            return Ok(());
        }
        match self.target(disk) {
            Some(target) if disk.volume.at(&target).is_none() => {
                disk.volume.rename(&self.kept(), &target);
            }
            _ => self.correct_line(disk),
        }
        Err(End::Stale)
    }

    fn set_exec(&mut self, disk: &mut Disk, op: &Op, target: &Place) -> Result<(), End> {
        let Some(Entry::File { exec, .. }) = op.make else {
            return Err(End::Stale);
        };
        let Some((ino, _)) = disk.volume.at(target) else {
            return Err(End::Stale);
        };
        if self.checked.map(|(ino, ..)| ino) != Some(ino) {
            return Err(End::Stale);
        }
        disk.volume.set_exec(ino, exec);
        disk.volume.sync_file(ino);
        disk.volume.sync_dirs(&[Dir::Inode(ino)]);
        let changed = disk.volume.at(target).map(mark);
        let written = |mark: Option<Mark>| mark.map(|(ino, mtime, _)| (ino, mtime));
        if written(self.checked) == written(changed) {
            self.dressed = changed;
        }
        Ok(())
    }

    /// Swaps back what came out. If the target is no longer ours, somebody replaced it after us: then
    /// theirs stays there, and what came out is kept.
    fn undo(&mut self, disk: &mut Disk, op: &Op) {
        let is_ours = |disk: &Disk, place: &Place| {
            self.staged.is_some() && disk.volume.ino(place) == self.staged
        };
        for _ in 0..UNDO_TRIES {
            let Some(target) = self.target(disk).filter(|target| is_ours(disk, target)) else {
                break;
            };
            disk.volume.exchange(&self.staged(), &target);
            if is_ours(disk, &self.staged()) {
                return self.keep_ours(disk, op);
            }
            disk.volume.exchange(&self.staged(), &target);
        }
        if disk.volume.at(&self.staged()).is_some() {
            disk.volume.rename(&self.staged(), &self.kept());
            self.correct_line(disk);
        }
    }

    /// Keeps the staged file that stood at the path for a moment: somebody may have written into it.
    fn keep_ours(&mut self, disk: &mut Disk, op: &Op) {
        let empty = disk
            .volume
            .ino(&self.staged())
            .is_some_and(|ino| disk.volume.is_empty_outside(ino));
        match &op.make {
            Some(Entry::Dir) if empty => disk.volume.remove(self.staged()),
            Some(Entry::File { .. } | Entry::Dir) => {
                disk.volume.rename(&self.staged(), &self.kept());
                self.correct_line(disk);
            }
            _ => self.staged_is_ours = true,
        }
    }

    fn correct_line(&self, disk: &mut Disk) {
        disk.volume.append([Line {
            id: self.id,
            staged: None,
        }]);
        disk.volume.sync_lines();
    }

    fn is_what_was_checked(&self, disk: &Disk, op: &Op, place: &Place) -> bool {
        let (Some(expect), Some((ino, inode))) = (&op.expect, disk.volume.at(place)) else {
            return false;
        };
        let same = self.checked == Some(mark((ino, inode)));
        match expect {
            Entry::File { .. } if same => true,
            _ => is(expect, inode),
        }
    }

    /// Returns what stands at the path after all steps.
    pub(crate) fn row(&self, disk: &Disk, op: &Op) -> Option<SeenRow> {
        let entry = op.make.clone()?;
        let there = self
            .target(disk)
            .and_then(|place| Some((disk.volume.print(&place)?, mark(disk.volume.at(&place)?))));
        let Some((print, found)) = there.filter(|_| !entry.is_dir()) else {
            return Some(SeenRow { entry, print: None });
        };
        let same = |of: Option<Mark>| of == Some(found);
        let ours = match (&entry, self.dressed) {
            (Entry::File { .. }, Some(dressed)) => same(Some(dressed)),
            (Entry::File { .. }, None) => same(self.checked),
            _ => self.staged.is_none_or(|staged| staged == found.0),
        };
        // Somebody changed it again already: the next look has to read it.
        let print: Option<Print> = ours.then_some(print);
        Some(SeenRow { entry, print })
    }
}

/// Opens the directory of a path; `None` is the root.
fn parent_of(disk: &Disk, path: &RelPath) -> Result<Option<Ino>, Outcome> {
    match path.parent() {
        None => Ok(None),
        Some(_) if disk.volume.is_shut_above(path) => Err(held(TroubleKind::Permission)),
        Some(parent) => match disk.volume.node(&parent) {
            Some((ino, inode)) if inode.entry.is_dir() => Ok(Some(ino)),
            _ => Err(Outcome::Stale),
        },
    }
}

fn place_in(disk: &Disk, parent: Option<Ino>, name: &str) -> Option<Place> {
    let path = match parent {
        None => RelPath::parse(name),
        Some(parent) => disk.volume.path_of(parent)?.join(name),
    };
    path.ok().map(Place::Tree)
}

fn steps(op: &Op) -> &'static [Step] {
    use Step::{
        CameOut, ClearLitter, Create, Dress, DropDir, Exchange, Keep, MakeDir, Move, Moved,
        RemoveDir, SetExec, StillIs, Withdraw, Withdrawn,
    };
    if op.moves().is_some() {
        return &[StillIs, Move, Moved];
    }
    match (&op.expect, &op.make) {
        (None, None) => &[StillIs],
        (before, after) if before == after => &[StillIs],
        (None, Some(Entry::Dir)) => &[MakeDir],
        (None, Some(_)) => &[Dress, Create],
        (Some(Entry::Dir), None) => &[StillIs, ClearLitter, RemoveDir],
        (Some(_), None) => &[StillIs, Withdraw, Withdrawn],
        _ if only_exec(op) => &[StillIs, SetExec],
        (Some(Entry::Dir), Some(_)) => &[StillIs, ClearLitter, Dress, Exchange, CameOut, DropDir],
        (Some(_), Some(_)) => &[StillIs, Dress, Exchange, CameOut, Keep],
    }
}

fn needs_staged(op: &Op) -> bool {
    steps(op)
        .iter()
        .any(|step| matches!(step, Step::Create | Step::Exchange))
}

/// Says whether the operation may displace something.
pub(crate) fn displaces(op: &Op) -> bool {
    steps(op)
        .iter()
        .any(|step| matches!(step, Step::Exchange | Step::Withdraw))
}

/// Says whether the operation changes nothing but the exec bit.
pub(crate) fn only_exec(op: &Op) -> bool {
    op.expect != op.make
        && matches!(
            (&op.expect, &op.make),
            (Some(Entry::File { content: old, .. }), Some(Entry::File { content: new, .. }))
                if old == new
        )
}

fn is(expect: &Entry, inode: &Inode) -> bool {
    let readable = !inode.shut || !matches!(expect, Entry::File { .. });
    readable && inode.entry == *expect
}

/// Says whether the target is as it was seen, and was seen as expected.
fn as_seen(disk: &Disk, op: &Op, expect: &Entry, target: &Place) -> bool {
    disk.seen.row(&op.path).is_some_and(|row| {
        row.entry == *expect && row.print.is_some() && row.print == disk.volume.print(target)
    })
}

/// Removes what is staged, unless somebody has put something into it.
pub(crate) fn discard(disk: &mut Disk, id: u64) {
    let place = Place::Stage(id);
    if let Some((ino, _)) = disk.volume.at(&place)
        && disk.volume.is_empty_outside(ino)
    {
        disk.volume.remove(place);
    }
}

fn held(kind: TroubleKind) -> Outcome {
    Outcome::Held(Trouble {
        kind,
        text: kind.remedy().to_owned(),
    })
}
