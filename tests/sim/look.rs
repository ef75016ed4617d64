//! A look under way: `disk::look` and `disk::scan` on simulated files. Each step lists one directory
//! or reads one file, so that anything may happen in between.

use std::collections::BTreeSet;

use disk::Look;
use shared::ignore::Rules;
use shared::path::RelPath;
use shared::tree::{Entry, Obstacle, Sight};

use crate::chance::Chance;
use crate::defect::Defect;
use crate::disk::Disk;
use crate::index::{SeenChange, SeenRow};
use crate::seen::{Began, Seen, Slot};
use crate::volume::Place;

/// A look.
#[derive(Debug)]
pub(crate) struct LookJob {
    pub(crate) sweep: bool,
    recheck: bool,
    /// The rules when it began: it keeps to them to its end.
    rules: Rules,
    rules_set: u64,
    began: Began,
    phase: Phase,
    waiting: Vec<Visit>,
    found: Vec<Finding>,
    absent: Vec<Finding>,
    unblocked: Vec<Finding>,
    /// Whether what is new waits for what is gone, so that a rename is told as a whole
    /// (`disk::scan::renamed`).
    expects_renames: bool,
    held: Vec<Finding>,
    /// The paths that it is for, if they are some.
    asked: Vec<RelPath>,
    again: BTreeSet<RelPath>,
    unknown: BTreeSet<RelPath>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Begin,
    Walk,
    Absent,
    Unblocked,
    Unseen,
}

#[derive(Debug)]
enum Visit {
    /// One path of a look at some.
    One(RelPath),
    /// A directory; `None` is the root.
    List {
        path: Option<RelPath>,
        before: Option<Slot>,
        whole: bool,
    },
    Read {
        path: RelPath,
        before: Option<Slot>,
    },
}

#[derive(Debug)]
struct Finding {
    path: RelPath,
    before: Option<Slot>,
    found: Found,
}

#[derive(Debug)]
enum Found {
    Row(SeenRow),
    Absent,
    Blocked(Obstacle),
    Unstable,
}

impl LookJob {
    /// Makes a look that has not begun.
    pub(crate) fn new(look: &Look) -> Self {
        let waiting = match look {
            Look::All | Look::Deep | Look::Reread { .. } => vec![Visit::List {
                path: None,
                before: None,
                whole: true,
            }],
            Look::Paths(paths) | Look::Racy(paths) => {
                paths.iter().cloned().map(Visit::One).collect()
            }
        };
        let asked = match look {
            Look::Paths(paths) => paths.clone(),
            _ => Vec::new(),
        };
        Self {
            sweep: look.is_sweep(),
            asked,
            recheck: false,
            rules: Rules::default(),
            rules_set: 0,
            began: Began::default(),
            phase: Phase::Begin,
            waiting,
            found: Vec::new(),
            absent: Vec::new(),
            unblocked: Vec::new(),
            expects_renames: false,
            held: Vec::new(),
            again: BTreeSet::new(),
            unknown: BTreeSet::new(),
        }
    }

    /// Notes what this look was to tell and could not.
    fn leave_open(&self, disk: &mut Disk) {
        let again = self.again.iter().cloned();
        if self.sweep {
            disk.left_open = Some(again.collect());
        } else if let Some(open) = &mut disk.left_open {
            for path in &self.asked {
                open.remove(path);
            }
            open.extend(again);
        }
    }

    /// Takes one step; returns the paths to look at again when it was the last one.
    pub(crate) fn step(&mut self, disk: &mut Disk, chance: &mut Chance) -> Option<Vec<RelPath>> {
        match self.phase {
            Phase::Begin => self.begin(disk),
            Phase::Walk => self.walk(disk, chance),
            Phase::Absent => {
                let mut last = std::mem::take(&mut self.held);
                last.append(&mut self.absent);
                self.observe(disk, last);
                self.phase = Phase::Unblocked;
            }
            Phase::Unblocked => {
                self.tell_unblocked(disk);
                self.phase = Phase::Unseen;
            }
            Phase::Unseen => {
                if self.sweep {
                    self.tell_unseen(disk);
                    for path in disk.seen.doubtful() {
                        self.unknown(path);
                    }
                    if disk.rules_set == self.rules_set && self.unknown.is_empty() {
                        disk.rules_are_new = false;
                    }
                }
                self.leave_open(disk);
                disk.seen.end_look();
                return Some(std::mem::take(&mut self.again).into_iter().collect());
            }
        }
        None
    }

    fn begin(&mut self, disk: &mut Disk) {
        self.recheck = disk.rules_are_new;
        self.rules.clone_from(&disk.rules);
        self.rules_set = disk.rules_set;
        self.began = disk.seen.begin_look();
        self.expects_renames = match &self.waiting[..] {
            [Visit::List { .. }] => disk.seen.entries().next().is_some(),
            visits => visits
                .iter()
                .any(|visit| matches!(visit, Visit::One(path) if disk.seen.row(path).is_some())),
        };
        self.waiting.retain_mut(|visit| {
            let Visit::One(path) = visit else {
                return true;
            };
            let ignored = path
                .ancestors()
                .filter(|above| disk.rules.ignores(above, true))
                .last();
            let target = ignored.or_else(|| disk.seen.topmost_unknown(path));
            let target = target.unwrap_or_else(|| path.clone());
            let defers = disk.seen.defers(path, &target);
            *path = target;
            !defers
        });
        self.phase = Phase::Walk;
    }

    fn walk(&mut self, disk: &mut Disk, chance: &mut Chance) {
        if self.waiting.is_empty() || chance.one_in(16) {
            let found = std::mem::take(&mut self.found);
            let waits = |finding: &Finding| self.expects_renames && finding.before.is_none();
            let (held, now): (Vec<_>, Vec<_>) = found.into_iter().partition(waits);
            self.held.extend(held);
            self.observe(disk, now);
        }
        if self.waiting.is_empty() {
            self.phase = Phase::Absent;
            return;
        }
        let next = chance.below(self.waiting.len());
        match self.waiting.swap_remove(next) {
            Visit::One(path) => {
                let whole = disk.seen.looks_whole(&path);
                self.one(disk, path, whole);
            }
            Visit::List {
                path,
                before,
                whole,
            } => self.list(disk, path.as_ref(), before, whole),
            // Now and then somebody is writing it just then.
            Visit::Read { path, before } if chance.one_in(64) => self.found.push(Finding {
                path,
                before,
                found: Found::Unstable,
            }),
            Visit::Read { path, before } => self.read(disk, path, before),
        }
    }

    /// Looks at one path, or, when the directory that held it is gone, at what is left above.
    fn one(&mut self, disk: &Disk, path: RelPath, whole: bool) {
        let mut path = path;
        while let Some(parent) = path.parent() {
            let is_dir = disk.volume.entry(&parent).is_some_and(Entry::is_dir);
            if is_dir && !disk.volume.is_shut_above(&path) {
                break;
            }
            path = parent;
        }
        let before = disk.seen.get(&path).cloned();
        let known_dir = before.as_ref().is_some_and(Slot::is_dir);
        if !known_dir && disk.volume.entry(&path).is_some() {
            let direct = disk.seen.children(Some(&path));
            self.strays(
                disk,
                direct.into_iter().chain(disk.seen.strays(Some(&path))),
            );
        }
        match disk.volume.entry(&path) {
            None => self.gone(disk, path, before),
            Some(Entry::Dir) if known_dir => self.list(disk, Some(&path), before, whole),
            Some(_) => self.child(disk, path, before, true),
        }
    }

    fn list(&mut self, disk: &Disk, path: Option<&RelPath>, before: Option<Slot>, whole: bool) {
        let mut hidden = false;
        if let Some(path) = path {
            let Some((_, inode)) = disk.volume.node(path) else {
                return self.gone(disk, path.clone(), before);
            };
            if !inode.entry.is_dir() {
                return self.unknown(path.clone());
            }
            if inode.shut || disk.volume.is_shut_above(path) {
                if !disk.has(Defect::AbsenceFromUnreadable) {
                    return self.blocked(path.clone(), before, Obstacle::Unreadable);
                }
                hidden = true;
            }
            self.directory_is(path, before);
        }
        let names = if hidden {
            Vec::new()
        } else {
            disk.volume.children(path)
        };
        self.strays(disk, disk.seen.strays(path));
        for (known, slot) in disk.seen.children(path) {
            if !names.contains(&known) {
                self.gone(disk, known, Some(slot));
            }
        }
        for name in names {
            let before = disk.seen.get(&name).cloned();
            self.child(disk, name, before, whole);
        }
    }

    fn child(&mut self, disk: &Disk, path: RelPath, before: Option<Slot>, whole: bool) {
        let Some(entry) = disk.volume.entry(&path) else {
            return self.gone(disk, path, before);
        };
        let row = before.as_ref().and_then(Slot::row);
        let same_kind = row.is_some_and(|row| row.entry.same_kind(entry));
        if (self.recheck || !same_kind) && self.rules.ignores(&path, entry.is_dir()) {
            return self.blocked(path, before, Obstacle::Ignored);
        }
        let as_seen = same_kind
            && row.is_some_and(|row| {
                row.print.is_some() && row.print == disk.volume.print(&Place::Tree(path.clone()))
            });
        match entry {
            Entry::Dir if same_kind && !whole => {}
            Entry::Dir => self.waiting.push(Visit::List {
                path: Some(path),
                before,
                whole: true,
            }),
            Entry::File { .. } if !as_seen => self.waiting.push(Visit::Read { path, before }),
            Entry::Symlink { .. } if !as_seen => self.read_row(disk, path, before),
            Entry::File { .. } | Entry::Symlink { .. } => {}
        }
    }

    fn read(&mut self, disk: &Disk, path: RelPath, before: Option<Slot>) {
        match disk.volume.node(&path) {
            None => self.gone(disk, path, before),
            Some((_, inode)) if !matches!(inode.entry, Entry::File { .. }) => self.unknown(path),
            Some((_, inode)) if inode.shut || disk.volume.is_shut_above(&path) => {
                self.blocked(path, before, Obstacle::Unreadable);
            }
            Some(_) => self.read_row(disk, path, before),
        }
    }

    fn read_row(&mut self, disk: &Disk, path: RelPath, before: Option<Slot>) {
        let place = Place::Tree(path.clone());
        if let Some((_, inode)) = disk.volume.at(&place) {
            let row = SeenRow {
                entry: inode.entry.clone(),
                print: disk.volume.print(&place),
            };
            self.found.push(Finding {
                path,
                before,
                found: Found::Row(row),
            });
        }
    }

    fn directory_is(&mut self, path: &RelPath, before: Option<Slot>) {
        if before.as_ref().is_some_and(Slot::is_dir) {
            return;
        }
        let was_blocked = matches!(before, Some(Slot::Blocked(_)));
        let finding = Finding {
            path: path.clone(),
            before,
            found: Found::Row(SeenRow {
                entry: Entry::Dir,
                print: None,
            }),
        };
        if was_blocked {
            self.unblocked.push(finding);
        } else {
            self.found.push(finding);
        }
    }

    fn gone(&mut self, disk: &Disk, path: RelPath, before: Option<Slot>) {
        if before.is_some() || !disk.seen.below(&path).is_empty() {
            self.absent.push(Finding {
                path,
                before,
                found: Found::Absent,
            });
        } else if disk.seen.is_doubtful(&path) {
            self.unknown(path);
        }
    }

    fn strays(&mut self, disk: &Disk, strays: impl IntoIterator<Item = (RelPath, Slot)>) {
        for (path, slot) in strays {
            let parent = path.parent().and_then(|parent| disk.volume.entry(&parent));
            if !parent.is_some_and(Entry::is_dir) && !disk.volume.is_shut_above(&path) {
                self.gone(disk, path, Some(slot));
            }
        }
    }

    fn blocked(&mut self, path: RelPath, before: Option<Slot>, obstacle: Obstacle) {
        self.found.push(Finding {
            path,
            before,
            found: Found::Blocked(obstacle),
        });
    }

    fn unknown(&mut self, path: RelPath) {
        self.again.insert(path.clone());
        self.unknown.insert(path);
    }

    // What follows from findings

    fn observe(&mut self, disk: &mut Disk, mut findings: Vec<Finding>) {
        findings.sort_by(|a, b| a.path.cmp(&b.path));
        let mut told = Told::default();
        for finding in findings {
            let path = &finding.path;
            let changed = !disk.has(Defect::LookBelievesAll)
                && disk.seen.get(path) != finding.before.as_ref();
            if disk.seen.is_doubtful(path) || changed {
                self.unknown(finding.path);
                continue;
            }
            if disk.rules_set != self.rules_set && !is_judged_so(&disk.rules, path, &finding.found)
            {
                self.unknown(finding.path);
                continue;
            }
            let believes = disk.has(Defect::LookBelievesAll);
            let overlaps = !believes && disk.seen.overlaps(self.began);
            let seen = &mut disk.seen;
            match finding.found {
                Found::Row(row) => {
                    if overlaps && finding.before.is_none() {
                        self.again.insert(path.clone());
                    }
                    told.row(seen, finding.path, row);
                }
                Found::Absent => {
                    for gone in std::iter::once(path.clone()).chain(seen.below(path)) {
                        if seen.is_doubtful(&gone) {
                            self.unknown(gone);
                        } else {
                            told.forget(seen, gone);
                        }
                    }
                }
                Found::Blocked(obstacle) => told.blocked(seen, path, obstacle),
                Found::Unstable => {
                    self.again.insert(path.clone());
                    if seen.get(path).is_none() && must_speak(seen, path) {
                        told.blocked(seen, path, Obstacle::Unstable);
                    }
                }
            }
        }
        disk.tell(told.rows, told.sights);
    }

    fn tell_unblocked(&mut self, disk: &mut Disk) {
        let dirs = std::mem::take(&mut self.unblocked);
        let unclear_within = |dir: &RelPath, unknown: &BTreeSet<RelPath>| {
            unknown.iter().any(|path| path == dir || path.is_below(dir))
        };
        let (unclear, clear): (Vec<_>, Vec<_>) = dirs
            .into_iter()
            .partition(|finding| unclear_within(&finding.path, &self.unknown));
        self.again
            .extend(unclear.into_iter().map(|finding| finding.path));
        self.observe(disk, clear);
    }

    fn tell_unseen(&mut self, disk: &mut Disk) {
        let mut sights = Vec::new();
        for path in disk.seen.take_unseen() {
            let unclear = std::iter::once(path.clone())
                .chain(path.ancestors())
                .any(|above| self.unknown.contains(&above) || disk.seen.is_doubtful(&above));
            if unclear {
                disk.seen.put_back_unseen(path);
            } else {
                sights.push((path, Sight::Absent));
            }
        }
        disk.tell(Vec::new(), sights);
    }
}

/// Says whether these rules say about a path what a look by others has found.
fn is_judged_so(rules: &Rules, path: &RelPath, found: &Found) -> bool {
    let is_ignored = |is_dir| rules.ignores_within(path, is_dir);
    match found {
        Found::Row(row) => !is_ignored(row.entry.is_dir()),
        Found::Blocked(Obstacle::Ignored) => is_ignored(true) && is_ignored(false),
        _ => true,
    }
}

fn must_speak(seen: &Seen, path: &RelPath) -> bool {
    seen.is_unseen(path)
        || path
            .ancestors()
            .any(|above| matches!(seen.get(&above), Some(Slot::Blocked(_))))
}

/// What follows from what was seen: what to report, and what to store.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) sights: Vec<(RelPath, Sight)>,
    pub(crate) rows: Vec<SeenChange>,
}

impl Told {
    pub(crate) fn row(&mut self, seen: &mut Seen, path: RelPath, row: SeenRow) {
        if !row.entry.is_dir() {
            self.drop_below(seen, &path);
        }
        if seen.row(&path).map(|before| &before.entry) != Some(&row.entry) {
            self.sights
                .push((path.clone(), Sight::Is(row.entry.clone())));
        }
        self.rows.push((path.clone(), Some(row.clone())));
        seen.insert(path, Slot::Is(row));
    }

    fn blocked(&mut self, seen: &mut Seen, path: &RelPath, obstacle: Obstacle) {
        let slot = Slot::Blocked(obstacle);
        if seen.get(path) != Some(&slot) {
            self.sights.push((path.clone(), Sight::Blocked(obstacle)));
            self.rows.push((path.clone(), None));
            seen.insert(path.clone(), slot);
        }
        self.drop_below(seen, path);
    }

    fn drop_below(&mut self, seen: &mut Seen, path: &RelPath) {
        for gone in seen.below(path) {
            self.forget(seen, gone);
        }
    }

    pub(crate) fn forget(&mut self, seen: &mut Seen, path: RelPath) {
        if seen.remove(&path).is_some() {
            self.rows.push((path.clone(), None));
            self.sights.push((path, Sight::Absent));
        }
    }
}
