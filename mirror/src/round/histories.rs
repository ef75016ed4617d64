//! Histories by chance: two machines, a link that comes and goes, a mirror that both use, people on all three, rounds that are cut
//! short. Trees, folder and rounds are real; the pair is an ideal one that makes both trees equal in one step while it is linked.
//!
//! What must hold: what somebody saved and did not overwrite or delete on that same side is in a tree or kept; when all has come to
//! rest the three are equal; a round makes a copy of a conflict only where more than one of the three was changed since; what one
//! deleted, and nobody else touched since all was equal, is gone.
//!
//! The link comes back at any time, also when what goes by the mirror has not come to rest.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use disk::mirrored::{Content, TreeEdit};
use disk::{Durable, Notes, Replica};
use shared::mirror::Mark;
use shared::path::RelPath;
use shared::reconcile::{ConflictRules, Decisions, Mode, Naming, Policy, reconcile};
use shared::transfer::{Op, Source};
use shared::tree::{Base, BaseRow, Entry, Gen, Side, Sight, Trees};
use shared::utc::UtcMs;
use shared::wire::IndexId;

use super::tests::{Node, listed, run, unguarded, write};
use super::{Mirror, Purpose};
use crate::folder::{FileReading, Folder};
use crate::target::{About, At, Item, Page, Target, Writing, Wrong};

const NAMES: [&str; 7] = ["a", "b", "d/a", "d/b", "d/e/a", "f/a", "c.md"];
/// Histories of an ordinary run.
const SEEDS: u64 = 25;

/// A folder that is out of reach after some calls.
pub(super) struct Fails {
    folder: Folder,
    left: Cell<u32>,
}

impl Fails {
    fn spend(&self) -> Result<(), Wrong> {
        match self.left.get() {
            0 => Err(Wrong::Unreachable("it is cut off".to_owned())),
            left => {
                self.left.set(left - 1);
                Ok(())
            }
        }
    }
}

impl Target for Fails {
    type Reading = FileReading;

    async fn root(&self) -> Result<String, Wrong> {
        self.spend()?;
        self.folder.root().await
    }

    async fn about(&self) -> Result<About, Wrong> {
        self.folder.about().await
    }

    async fn changes(&self, since: Option<&str>) -> Result<Page, Wrong> {
        self.spend()?;
        self.folder.changes(since).await
    }

    async fn children(&self, folder: &str) -> Result<Vec<Item>, Wrong> {
        self.spend()?;
        self.folder.children(folder).await
    }

    async fn look(&self, id: &str) -> Result<Option<Item>, Wrong> {
        self.spend()?;
        self.folder.look(id).await
    }

    async fn read(&self, item: &Item, from: u64) -> Result<FileReading, Wrong> {
        self.spend()?;
        self.folder.read(item, from).await
    }

    async fn sum_now(&self, item: &Item) -> Result<Option<[u8; 32]>, Wrong> {
        self.folder.sum_now(item).await
    }

    async fn write(&self, writing: Writing<'_>) -> Result<Item, Wrong> {
        self.spend()?;
        let written = self.folder.write(writing).await;
        // It may have been done although nobody hears of it.
        self.spend()?;
        written
    }

    async fn make_folder(&self, at: At<'_>, mark: &Mark) -> Result<Item, Wrong> {
        self.spend()?;
        let made = self.folder.make_folder(at, mark).await;
        self.spend()?;
        made
    }

    async fn relocate(&self, item: &Item, to: At<'_>, mark: &Mark) -> Result<Item, Wrong> {
        self.spend()?;
        let moved = self.folder.relocate(item, to, mark).await;
        self.spend()?;
        moved
    }

    async fn set_mark(&self, item: &Item, mark: &Mark) -> Result<Item, Wrong> {
        self.spend()?;
        self.folder.set_mark(item, mark).await
    }

    async fn remove(&self, item: &Item) -> Result<(), Wrong> {
        self.spend()?;
        let removed = self.folder.remove(item).await;
        self.spend()?;
        removed
    }
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Who does something: either machine's person, or a person at the mirror.
const HANDS: [usize; 3] = [0, 1, 2];

struct World {
    at: tempfile::TempDir,
    nodes: [Node<Fails>; 2],
    base: Base,
    batch: u64,
    chance: Chance,
    texts: u64,
    /// What each hand saved and has not given up.
    owed: BTreeSet<(usize, String, String)>,
    /// Where each hand did something since all was equal.
    touched: [BTreeSet<String>; 3],
    roads: [Option<bool>; 2],
    log: Vec<String>,
}

fn node(name: &str, at: &Path) -> Node<Fails> {
    let target = Fails {
        folder: Folder::new(at.to_owned(), name, None),
        left: Cell::new(u32::MAX),
    };
    Node::made(name, target, unguarded())
}

impl World {
    fn new(seed: u64) -> Self {
        let at = tempfile::tempdir().expect("a folder");
        let nodes = [node("vm", at.path()), node("mac", at.path())];
        // They have met before.
        for node in &nodes {
            let notes = Notes {
                base_of: Some(IndexId([1; 16])),
                ..node.replica.notes()
            };
            let (rows, batch) = (&[], Gen::default());
            node.replica
                .commit(rows, notes, batch, Durable::Nothing)
                .expect("recorded");
        }
        Self {
            nodes,
            at,
            base: Base::new(),
            batch: 0,
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            texts: 0,
            owed: BTreeSet::new(),
            touched: Default::default(),
            roads: [None; 2],
            log: Vec::new(),
        }
    }

    fn root(&self, hand: usize) -> std::path::PathBuf {
        match hand {
            2 => self.at.path().to_owned(),
            node => self.nodes[node].root(),
        }
    }

    /// Somebody does something at one of the three places.
    fn edit(&mut self, hand: usize) {
        let name = NAMES[self.chance.below(NAMES.len() as u64) as usize];
        let root = self.root(hand);
        let at = root.join(name);
        let act = self.chance.below(10);
        let before = fs::read_to_string(&at).ok();
        let is_reached = at
            .ancestors()
            .skip(1)
            .take_while(|above| *above != root)
            .all(|above| above.is_dir() || above.symlink_metadata().is_err());
        if !is_reached || at.is_dir() {
            return;
        }
        match act {
            0..7 => {
                self.texts += 1;
                let text = format!("text {} by {hand}", self.texts);
                write(&at, &text);
                self.give_up(hand, name, before);
                self.owed.insert((hand, name.to_owned(), text));
                self.log
                    .push(format!("{hand} saves {name}: {}", self.texts));
            }
            _ if before.is_some() => {
                fs::remove_file(&at).expect("removed");
                self.give_up(hand, name, before);
                self.log.push(format!("{hand} removes {name}"));
            }
            _ => return,
        }
        self.touched[hand].insert(name.to_owned());
    }

    /// What a person overwrites or deletes is not owed to anybody any more: they saw it.
    fn give_up(&mut self, _hand: usize, name: &str, before: Option<String>) {
        if let Some(before) = before {
            self.owed
                .retain(|(_, at, text)| !(at == name && *text == before));
        }
    }

    /// The ideal pair: both trees become equal.
    fn link(&mut self) {
        for _ in 0..4 {
            let mut trees = Trees::new(self.base.clone());
            let mut scope = BTreeSet::new();
            let mut seen: [BTreeMap<RelPath, Entry>; 2] = Default::default();
            for (index, side) in [Side::Alpha, Side::Beta].into_iter().enumerate() {
                self.nodes[index].look();
                let visit = &mut |path: RelPath, here: disk::mirrored::Here| {
                    if let Some(entry) = here.sight.entry() {
                        seen[index].insert(path, entry.clone());
                    }
                };
                self.nodes[index].replica.each_here(visit).expect("visited");
                let trails = self.nodes[index].trails.lock().expect("nobody panicked");
                for (path, trail) in &*trails {
                    trees.came_through(side, path.clone(), trail.clone());
                }
                for path in self.base.keys().chain(seen[index].keys()) {
                    let sight = Sight::from(seen[index].get(path).cloned());
                    trees.observe(side, path.clone(), sight);
                    scope.insert(path.clone());
                }
            }
            let rules = ConflictRules::default();
            let decisions = Decisions::default();
            let policy = Policy {
                mode: Mode::TwoWaySafe,
                primary: Side::Alpha,
                naming: Naming {
                    alpha: "vm".to_owned(),
                    beta: "mac".to_owned(),
                    now: UtcMs(1_000_000),
                },
                conflicts: &rules,
                decisions: &decisions,
                folds: [false; 2],
            };
            let plan = reconcile(&trees, &scope, &|_| false, &policy);
            let is_done = plan.ops.is_empty();
            for (side, op) in &plan.ops {
                self.carry(*side, op);
            }
            if is_done {
                break;
            }
        }
        self.agree();
        self.log.push("the pair is equal".to_owned());
    }

    fn carry(&self, side: Side, op: &Op) {
        let replica = &self.nodes[side as usize].replica;
        let other = &self.nodes[side.other() as usize].replica;
        let from = match &op.from {
            Source::There(from) => Some((other, from)),
            Source::Here(from) => Some((replica, from)),
            _ => None,
        };
        let content = match (&op.make, from) {
            (Some(Entry::File { exec, .. }), Some((of, from))) => {
                let bytes = fs::read(of.root().join(from.as_str())).expect("it is there");
                let mut arriving = replica.arriving().expect("a place");
                arriving.write(&bytes).expect("written");
                Content::Arrived(arriving.finish(*exec, 1).expect("all of it"))
            }
            _ => Content::Nothing,
        };
        let edit = TreeEdit {
            path: op.path.clone(),
            expect: op.expect.clone(),
            make: op.make.clone(),
            content,
            step: None,
        };
        replica.edit(vec![edit]).expect("durable");
    }

    /// Both record that they agree on what stands at both.
    fn agree(&mut self) {
        self.batch += 1;
        let batch = Gen(self.batch);
        let mut now: BTreeMap<RelPath, Entry> = BTreeMap::new();
        let visit = &mut |path: RelPath, here: disk::mirrored::Here| {
            if let Some(entry) = here.sight.entry() {
                now.insert(path, entry.clone());
            }
        };
        self.nodes[0].replica.each_here(visit).expect("visited");
        let mut rows = Vec::new();
        for path in self.base.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
            let entry = now.get(path).cloned();
            let before = self.base.get(path).and_then(|row| row.entry.clone());
            if entry != before {
                rows.push((path.clone(), BaseRow { entry, batch }));
            }
        }
        for node in &self.nodes {
            let notes = Notes {
                last_batch: batch,
                ..node.replica.notes()
            };
            node.replica
                .commit(&rows, notes, batch, Durable::Nothing)
                .expect("recorded");
            node.mirror.note_moved().expect("noted");
        }
        self.base = now
            .into_iter()
            .map(|(path, entry)| {
                let batch = rows
                    .iter()
                    .find(|(at, _)| *at == path)
                    .map(|(_, row)| row.batch)
                    .or(self.base.get(&path).map(|row| row.batch));
                let row = BaseRow {
                    entry: Some(entry),
                    batch: batch.unwrap_or(Gen(self.batch)),
                };
                (path, row)
            })
            .collect();
    }

    fn round(&mut self, who: usize, is_road: bool, calls: u32) -> bool {
        self.nodes[who].look();
        let mirror: &Mirror<Fails, Arc<Replica>> = &self.nodes[who].mirror;
        // As the duty does.
        if self.roads[who] != Some(is_road) {
            self.roads[who] = Some(is_road);
            mirror.compare_all();
        }
        mirror.target().left.set(calls);
        let purpose = Purpose {
            is_road,
            is_primary: who == 0,
        };
        let done = run(mirror.round(purpose, UtcMs(2_000_000), Instant::now()));
        mirror.target().left.set(u32::MAX);
        self.log.push(format!(
            "round of {who}, road {is_road}, {calls} calls: {done:?}"
        ));
        matches!(done, Ok(done) if done.pushed + done.changed + done.taken == 0)
    }

    /// Lets all three come to rest, and compares them.
    fn settle(&mut self) {
        for _ in 0..12 {
            self.link();
            for node in &self.nodes {
                node.mirror.compare_all();
            }
            let quiet = [
                self.round(0, false, u32::MAX),
                self.round(1, true, u32::MAX),
            ];
            self.link();
            if quiet == [true; 2] {
                break;
            }
        }
        let trees = [0, 1, 2].map(|at| listed(&self.root(at)));
        assert_eq!(trees[0], trees[1], "{}", self.story());
        assert_eq!(trees[0], trees[2], "the mirror; {}", self.story());
        self.nothing_lost();
        let standing: BTreeSet<String> = trees[0].iter().map(|(name, _)| name.clone()).collect();
        for name in standing.iter().filter(|name| name.contains(" (conflict ")) {
            let (stem, rest) = name.split_once(" (conflict ").expect("a copy");
            let ending = rest.rsplit_once(')').map_or("", |(_, ending)| ending);
            let of = format!("{stem}{ending}");
            let hands = HANDS
                .iter()
                .filter(|hand| self.touched[**hand].contains(&of));
            assert!(hands.count() > 1, "{name} is no conflict; {}", self.story());
        }
        // One alone removed it, or wrote it.
        for name in NAMES {
            let hands: Vec<usize> = HANDS
                .into_iter()
                .filter(|hand| self.touched[*hand].contains(name))
                .collect();
            let [hand] = hands[..] else { continue };
            let last = self.log.iter().rev().find(|line| {
                line.starts_with(&format!("{hand} ")) && line.contains(&format!(" {name}"))
            });
            let removed = last.is_some_and(|line| line.contains("removes"));
            assert_eq!(
                !removed,
                standing.contains(name),
                "{name}; {}",
                self.story()
            );
        }
        // Copies are looked at and removed, so that the next part begins clean.
        for name in standing.iter().filter(|name| name.contains(" (conflict ")) {
            let text = fs::read_to_string(self.root(0).join(name)).unwrap_or_default();
            fs::remove_file(self.root(0).join(name)).expect("removed");
            self.owed.retain(|(_, _, owed)| *owed != text);
        }
        self.touched = Default::default();
        self.log.push("all three are equal".to_owned());
    }

    fn nothing_lost(&self) {
        let mut there: BTreeSet<String> = BTreeSet::new();
        let mut left: Vec<std::path::PathBuf> = vec![self.at.path().to_owned()];
        left.extend(self.nodes.iter().map(Node::root));
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(dir).expect("a listing") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    left.push(path);
                } else if let Ok(text) = fs::read_to_string(&path) {
                    there.insert(text);
                }
            }
        }
        for (hand, name, text) in &self.owed {
            assert!(
                there.contains(text),
                "\"{text}\", saved by {hand} as {name}, is lost; {}",
                self.story()
            );
        }
    }

    fn story(&self) -> String {
        format!("the story:\n{}", self.log.join("\n"))
    }

    fn act(&mut self) {
        match self.chance.below(12) {
            0..6 => {
                let hand = [0, 0, 1, 1, 2][self.chance.below(5) as usize];
                self.edit(hand);
            }
            6 => self.link(),
            7 | 8 => {
                let (who, calls) = (self.chance.below(2) as usize, self.chance.below(12) as u32);
                self.round(who, true, calls);
            }
            9 => {
                self.round(0, false, u32::MAX);
            }
            10 => {
                let who = self.chance.below(2) as usize;
                self.round(who, true, u32::MAX);
            }
            _ => self.settle(),
        }
    }
}

#[test]
fn histories() {
    let seeds = std::env::var("LAYER_SYNC_MIRROR_SEEDS").ok();
    let seeds = seeds.and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    for seed in 0..seeds {
        let mut world = World::new(seed + 1);
        for _ in 0..25 {
            world.act();
        }
        world.settle();
    }
}

#[test]
fn a_writing_that_was_never_heard_of_is_no_rival() {
    let mut world = World::new(1);
    let save = |world: &World, hand: usize, text: &str| write(&world.root(hand).join("a"), text);
    save(&world, 0, "one");
    // The third call writes, and its answer is lost.
    world.round(0, true, 3);
    assert_eq!(
        listed(world.at.path()),
        [("a".to_owned(), "one".to_owned())]
    );
    save(&world, 0, "two");
    for _ in 0..3 {
        for who in [1, 0] {
            world.round(who, true, u32::MAX);
            let all = [0, 1, 2].map(|at| listed(&world.root(at)));
            world.log.push(format!("{all:?}"));
        }
    }
    let expected = [("a".to_owned(), "two".to_owned())];
    assert_eq!(listed(&world.root(0)), expected, "{}", world.story());
    assert_eq!(listed(&world.root(1)), expected, "{}", world.story());
}
