//! A stream of batches and edits on a real [`Replica`], with what was acknowledged when; and the check
//! of what a power cut left of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use disk::Durable;
use disk::{KeptLimits, Look, Places, Replica, ReplicaId, Report, Stored};
use shared::delta::Form;
use shared::hash::ContentHash;
use shared::ignore::Rules;
use shared::path::RelPath;
use shared::transfer::{Batch, Item, Op, Outcome, PackedFile, Part, Source};
use shared::tree::{BaseRow, Entry, Gen};

use crate::dice::Dice;

/// Names that batches change; as many in a folder.
const NAMES: usize = 24;
/// Names that somebody here changes.
const OWN_NAMES: usize = 6;

/// What can stand at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Thing {
    Dir,
    Link(String),
    File { content: Vec<u8>, exec: bool },
}

impl Thing {
    /// Reads what stands at a path; `None` if nothing does.
    pub(crate) fn read(at: &Path) -> Option<Self> {
        let metadata = at.symlink_metadata().ok()?;
        if metadata.is_dir() {
            return Some(Self::Dir);
        }
        if metadata.is_symlink() {
            return Some(Self::Link(fs::read_link(at).ok()?.to_str()?.to_owned()));
        }
        let exec = metadata.permissions().mode() & 0o100 != 0;
        fs::read(at)
            .ok()
            .map(|content| Self::File { content, exec })
    }

    pub(crate) fn entry(&self) -> Entry {
        match self {
            Self::Dir => Entry::Dir,
            Self::Link(target) => Entry::Symlink {
                target: target.as_str().into(),
            },
            Self::File { content, exec } => Entry::File {
                content: ContentHash::of_bytes(content),
                len: content.len() as u64,
                exec: *exec,
            },
        }
    }

    fn shown(thing: Option<&Self>) -> String {
        match thing {
            Some(Self::File { content, exec }) => {
                let head = String::from_utf8_lossy(&content[..content.len().min(16)]);
                format!("{} bytes {head:?} exec {exec}", content.len())
            }
            other => format!("{other:?}"),
        }
    }
}

type Tree = BTreeMap<String, Option<Thing>>;

/// Something that was done.
#[derive(Default)]
struct Act {
    /// How much the devices had seen when it began, and when it was acknowledged.
    begun: usize,
    acknowledged: usize,
    /// What it puts where.
    makes: Tree,
    /// Whether both sides agree on that when it is acknowledged.
    agrees: bool,
    /// What it displaces, to be kept.
    displaces: Vec<(String, Vec<u8>)>,
    /// Whether it is all or nothing for each path.
    is_atomic: bool,
}

/// Everything that was done, in order.
#[derive(Default)]
pub(crate) struct History {
    acts: Vec<Act>,
}

/// What must be there after a cut at a moment.
#[derive(Default)]
pub(crate) struct Expected {
    tree: Tree,
    base: Tree,
    kept: Vec<(String, Vec<u8>)>,
    /// What was under way.
    open: Tree,
    /// Paths at which somebody was writing without waiting for the disk.
    loose: BTreeSet<String>,
}

impl History {
    /// Returns the first moment at which something is promised.
    pub(crate) fn first_promise(&self) -> usize {
        self.acts[0].acknowledged
    }

    /// Returns the very moment at which something was acknowledged: the sharpest one.
    pub(crate) fn some_promise(&self, dice: &mut Dice) -> usize {
        self.acts[dice.below(self.acts.len())].acknowledged
    }

    pub(crate) fn expected(&self, moment: usize) -> Expected {
        let mut expected = Expected::default();
        for act in &self.acts {
            if act.acknowledged <= moment {
                expected.kept.extend(act.displaces.iter().cloned());
                for (path, thing) in &act.makes {
                    expected.tree.insert(path.clone(), thing.clone());
                    expected.loose.remove(path);
                    if act.agrees {
                        expected.base.insert(path.clone(), thing.clone());
                    }
                }
            } else if act.begun < moment {
                expected.open.extend(act.makes.clone());
                if !act.is_atomic {
                    expected.loose.extend(act.makes.keys().cloned());
                }
            }
        }
        expected
    }
}

/// A replica, opened as a daemon does.
pub(crate) struct Side {
    replica: Arc<Replica>,
    stored: Stored,
    reports: Arc<Mutex<Vec<Report>>>,
    root: PathBuf,
}

impl Side {
    pub(crate) fn open(places: &Places, expected: Option<ReplicaId>) -> Result<Self, String> {
        let reports: Arc<Mutex<Vec<Report>>> = Arc::default();
        let sink = {
            let reports = reports.clone();
            Box::new(move |report| reports.lock().unwrap().push(report))
        };
        let limits = KeptLimits::default();
        let opened = Replica::open(places, expected, Rules::default(), "vm", limits, sink);
        let (replica, stored) = opened.map_err(|error| error.to_string())?;
        Ok(Self {
            replica: Arc::new(replica),
            stored,
            reports,
            root: places.root.clone(),
        })
    }

    pub(crate) fn id(&self) -> ReplicaId {
        self.replica.id()
    }

    fn look(&self) {
        let never = AtomicBool::new(false);
        self.replica.look(&Look::All, &never).expect("a look");
    }

    /// Takes what was reported since the last call.
    fn reports(&self) -> Vec<Report> {
        std::mem::take(&mut *self.reports.lock().unwrap())
    }

    /// Stages and applies a batch of changes from one tree to another, and returns the outcomes.
    fn apply(&self, number: u64, from: &Tree, makes: &Tree) -> Result<Vec<Outcome>, String> {
        let op = |(path, make): (&String, &Option<Thing>)| {
            let expect = from.get(path).cloned().flatten();
            let content = |thing: &Option<Thing>| match thing {
                Some(Thing::File { content, .. }) => Some(content.clone()),
                _ => None,
            };
            let is_new = content(make).is_some() && content(make) != content(&expect);
            let path = RelPath::parse(path).expect("a path");
            Op {
                from: if is_new {
                    Source::There(path.clone())
                } else {
                    Source::Nothing
                },
                expect: expect.map(|thing| thing.entry()),
                make: make.as_ref().map(Thing::entry),
                agrees: true,
                path,
            }
        };
        let batch = Batch {
            number: Gen(number),
            settles: None,
            ops: makes.iter().map(op).collect(),
        };
        let mut taking = self.replica.take(&batch);
        for (index, op) in batch.ops.iter().enumerate() {
            let Some(Some(Thing::File { content, .. })) = makes.get(op.path.as_str()) else {
                continue;
            };
            if op.wants().is_some() {
                let file = PackedFile {
                    index: index as u32,
                    len: content.len() as u32,
                    mtime_ns: 1_700_000_000_000_000_000,
                    form: Form::Whole,
                };
                let pack = Part::Pack {
                    files: vec![file],
                    zstd: false,
                    bytes: content.clone(),
                };
                taking.part(pack).map_err(|error| error.to_string())?;
            }
        }
        self.reports();
        self.replica
            .apply(&batch, taking.finish(), Gen(0))
            .map_err(|error| error.to_string())?;
        let applied = self.reports().into_iter().find_map(|report| match report {
            Report::Applied { outcomes, .. } => Some(outcomes),
            Report::Observed(_) | Report::Moved(_) | Report::Passed(_) => None,
        });
        applied.ok_or_else(|| "nothing was reported".to_owned())
    }
}

/// Somebody who makes the other side's changes arrive here, and edits here as well.
pub(crate) struct Writer<'a> {
    pub(crate) side: Side,
    pub(crate) dice: Dice,
    /// Tells how much the devices have seen.
    pub(crate) now: &'a dyn Fn() -> usize,
    pub(crate) history: History,
    tree: Tree,
    number: u64,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(side: Side, dice: Dice, now: &'a dyn Fn() -> usize) -> Self {
        let mut writer = Self {
            side,
            dice,
            now,
            history: History::default(),
            tree: Tree::new(),
            number: 0,
        };
        // The opening itself is a promise: the marker and an empty index.
        let nothing = Act {
            acknowledged: now(),
            ..Act::default()
        };
        writer.history.acts.push(nothing);
        let folder = |name: &str| (name.to_owned(), Some(Thing::Dir));
        writer.apply([folder("d"), folder("e")].into());
        writer
    }

    /// Does one thing, and waits until it is acknowledged.
    pub(crate) fn act(&mut self) {
        match self.dice.below(6) {
            3 => {
                let makes = self.flipped_bits();
                self.apply(makes);
            }
            0 => self.edit_and_give(),
            1 => self.edit_and_sync(),
            2 => self.change_names(),
            _ => {
                let makes = self.changes();
                self.apply(makes);
            }
        }
    }

    fn content(&mut self) -> Vec<u8> {
        self.number += 1;
        let most = [3, 300, 3000][self.dice.below(3)];
        let times = 1 + self.dice.below(most);
        format!("content {:06}\n", self.number)
            .repeat(times)
            .into_bytes()
    }

    /// Returns some changes of the other side.
    fn changes(&mut self) -> Tree {
        let most = [3, 8, 20][self.dice.below(3)];
        let count = 1 + self.dice.below(most);
        let mut makes = Tree::new();
        for _ in 0..count {
            let name = self.dice.below(NAMES);
            let path = match self.dice.below(4) {
                0 => format!("d/{name}"),
                1 => format!("e/{name}"),
                _ => format!("n{name}"),
            };
            let was = self.tree.get(&path).cloned().flatten();
            let make = match (self.dice.below(10), was) {
                (0, Some(_)) => None,
                (1 | 2, Some(Thing::File { content, exec })) => Some(Thing::File {
                    content,
                    exec: !exec,
                }),
                (3, _) => {
                    self.number += 1;
                    Some(Thing::Link(format!("target {}", self.number)))
                }
                (4, _) => Some(Thing::Dir),
                _ => Some(Thing::File {
                    content: self.content(),
                    exec: self.dice.below(5) == 0,
                }),
            };
            makes.insert(path, make);
        }
        makes.retain(|path, make| self.tree.get(path).cloned().flatten() != *make);
        makes
    }

    /// Returns a change of the other side that touches no content and no name.
    fn flipped_bits(&mut self) -> Tree {
        let mut makes = Tree::new();
        for (path, thing) in &self.tree {
            if let Some(Thing::File { content, exec }) = thing
                && !path.starts_with("own")
                && self.dice.below(4) == 0
            {
                let flipped = Thing::File {
                    content: content.clone(),
                    exec: !exec,
                };
                makes.insert(path.clone(), Some(flipped));
            }
        }
        makes
    }

    /// Applies a batch.
    fn apply(&mut self, makes: Tree) {
        if makes.is_empty() {
            return;
        }
        self.number += 1;
        let begun = (self.now)();
        let applied = self.side.apply(self.number, &self.tree, &makes);
        let outcomes = applied.expect("it is applied");
        let acknowledged = (self.now)();
        assert!(
            outcomes.iter().all(|outcome| *outcome == Outcome::Done),
            "{outcomes:?}"
        );
        let displaced = |path: &String| match self.tree.get(path) {
            Some(Some(Thing::File { content, .. })) => Some((path.clone(), content.clone())),
            _ => None,
        };
        let same_content = |(path, content): &(String, Vec<u8>)| matches!(&makes[path], Some(Thing::File { content: new, .. }) if new == content);
        let displaces = makes.keys().filter_map(displaced);
        let displaces = displaces
            .filter(|displaced| !same_content(displaced))
            .collect();
        self.did(Act {
            begun,
            acknowledged,
            makes,
            agrees: true,
            displaces,
            is_atomic: true,
        });
    }

    /// Somebody here saves files, which are given to the other side; then both agree.
    fn edit_and_give(&mut self) {
        let begun = (self.now)();
        let makes = self.save_files();
        let item = |(index, (path, thing)): (usize, (&String, &Option<Thing>))| Item {
            index: index as u32,
            path: RelPath::parse(path).expect("a path"),
            entry: thing.as_ref().expect("a file").entry(),
            base: None,
        };
        let items: Vec<Item> = makes.iter().enumerate().map(item).collect();
        let given = self.side.replica.give(&items, &mut |_| Ok(()));
        given.expect("it is given");
        // The content is durable from here on, and agreed on later.
        let acknowledged = (self.now)();
        self.did(Act {
            begun,
            acknowledged,
            makes: makes.clone(),
            ..Act::default()
        });
        self.agree(makes, acknowledged, Durable::Rows);
    }

    /// Somebody here saves files that turn out to be what the other side has as well.
    fn edit_and_sync(&mut self) {
        let begun = (self.now)();
        let makes = self.save_files();
        self.agree(makes, begun, Durable::Tree);
    }

    /// Somebody here changes what has no content to be given: folders, links, exec bits, deletions.
    fn change_names(&mut self) {
        let begun = (self.now)();
        let path = format!("own{}", self.dice.below(OWN_NAMES));
        let at = self.side.root.join(&path);
        let make = match (self.dice.below(3), Thing::read(&at)) {
            (0 | 1, Some(Thing::File { content, exec })) => {
                let mode = if exec { 0o644 } else { 0o755 };
                fs::set_permissions(&at, Permissions::from_mode(mode)).expect("changed");
                Some(Thing::File {
                    content,
                    exec: !exec,
                })
            }
            (_, Some(Thing::Dir)) => {
                fs::remove_dir(&at).expect("gone");
                None
            }
            (_, Some(_)) => {
                fs::remove_file(&at).expect("gone");
                None
            }
            (0, None) => {
                fs::create_dir(&at).expect("made");
                Some(Thing::Dir)
            }
            (_, None) => {
                self.number += 1;
                let target = format!("target {}", self.number);
                symlink(&target, &at).expect("linked");
                Some(Thing::Link(target))
            }
        };
        self.side.look();
        self.agree([(path, make)].into(), begun, Durable::Rows);
    }

    /// Saves some files as simple programs do: in place, without waiting for the disk.
    fn save_files(&mut self) -> Tree {
        let mut makes = Tree::new();
        for _ in 0..1 + self.dice.below(3) {
            let path = format!("own{}", self.dice.below(OWN_NAMES));
            let at = self.side.root.join(&path);
            let exec = match Thing::read(&at) {
                Some(Thing::File { exec, .. }) => exec,
                None => false,
                Some(_) => continue,
            };
            let content = self.content();
            fs::write(&at, &content).expect("written");
            makes.insert(path, Some(Thing::File { content, exec }));
        }
        self.side.look();
        makes
    }

    /// Records that both sides agree on what is here.
    fn agree(&mut self, makes: Tree, begun: usize, first: Durable) {
        self.number += 1;
        let batch = Gen(self.number);
        let row = |(path, thing): (&String, &Option<Thing>)| {
            let entry = thing.as_ref().map(Thing::entry);
            (
                RelPath::parse(path).expect("a path"),
                BaseRow { entry, batch },
            )
        };
        let rows: Vec<_> = makes.iter().map(row).collect();
        let notes = self.side.replica.notes();
        let recorded = self.side.replica.commit(&rows, notes, Gen(0), first);
        recorded.expect("it is recorded");
        self.did(Act {
            begun,
            acknowledged: (self.now)(),
            makes,
            agrees: true,
            ..Act::default()
        });
    }

    fn did(&mut self, act: Act) {
        self.tree.extend(act.makes.clone());
        self.history.acts.push(act);
    }
}

/// Opens what a power cut left, and says what is wrong with it.
pub(crate) fn check(expected: &Expected, places: &Places, id: ReplicaId) -> Result<(), String> {
    let side = Side::open(places, Some(id))?;
    if side.stored.index_is_new {
        return Err("the index was lost".to_owned());
    }
    let there = |path: &str| Thing::read(&places.root.join(path));
    let mut known: BTreeMap<String, Entry> = BTreeMap::new();
    for (path, entry) in &side.stored.seen_known {
        known.insert(path.to_string(), entry.clone());
    }
    let base: BTreeMap<&str, &BaseRow> = side
        .stored
        .base
        .iter()
        .map(|(path, row)| (path.as_str(), row))
        .collect();

    let paths: BTreeSet<&String> = expected.tree.keys().chain(expected.open.keys()).collect();
    for path in &paths {
        let (now, acknowledged) = (there(path), expected.tree.get(*path).cloned().flatten());
        let coming = expected.open.get(*path);
        let is_coming = coming == Some(&now);
        if now != acknowledged && !is_coming && !expected.loose.contains(*path) {
            return Err(format!(
                "{path} is {}, and was acknowledged as {}",
                Thing::shown(now.as_ref()),
                Thing::shown(acknowledged.as_ref())
            ));
        }
        let agreed = expected
            .base
            .get(*path)
            .map(|thing| thing.as_ref().map(Thing::entry));
        let row = base.get(path.as_str()).map(|row| row.entry.clone());
        let is_ahead = is_coming && row == Some(now.as_ref().map(Thing::entry));
        if row != agreed && !is_ahead {
            return Err(format!(
                "the base of {path} is {row:?} instead of {agreed:?}; there is {}",
                Thing::shown(now.as_ref())
            ));
        }
    }
    for (path, content) in &expected.kept {
        let versions = side
            .replica
            .versions(&RelPath::parse(path).expect("a path"));
        let versions = versions.map_err(|error| error.to_string())?;
        let kept = places.root.join(".layer-sync/kept");
        let is_kept = versions.iter().any(|version| {
            fs::read(kept.join(&version.version)).is_ok_and(|found| found == *content)
        });
        if !is_kept {
            let was = String::from_utf8_lossy(&content[..content.len().min(16)]);
            return Err(format!("a version of {path} is not kept: {was:?}"));
        }
    }

    // What the side believes after a look is what is there.
    side.look();
    for report in side.reports() {
        let Report::Observed(sights) = report else {
            continue;
        };
        for (path, sight) in sights {
            match sight.entry() {
                Some(entry) => known.insert(path.to_string(), entry.clone()),
                None => known.remove(path.as_str()),
            };
        }
    }
    for path in &paths {
        let now = there(path).map(|thing| thing.entry());
        if known.get(*path) != now.as_ref() {
            let believed = known.get(*path);
            return Err(format!(
                "{path} is believed to be {believed:?}, and is {now:?}"
            ));
        }
    }

    // And what was under way gets to its end.
    let own = |path: &str| path.starts_with("own");
    let now: Tree = paths
        .iter()
        .map(|path| ((*path).clone(), there(path)))
        .collect();
    let mut rest = expected.open.clone();
    rest.retain(|path, thing| !own(path) && now[path] != *thing);
    let outcomes = side.apply(1_000_000, &now, &rest)?;
    if outcomes.iter().any(|outcome| *outcome != Outcome::Done) {
        return Err(format!("it does not get to the end: {outcomes:?}"));
    }
    Ok(())
}
