//! Daemons that are killed at any moment, while people go on working.
//!
//! Each side works in a folder of its own, so that nothing is a conflict, and every content is
//! written once only, so that each one can be told from all others.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::harness::{Node, Pair, SOON, Side, wait_until, wish};

const OPERATIONS: u64 = 400;
const KILLS: u64 = 12;
/// Longest wait before a kill, in milliseconds: the time in which what was done is carried over.
const KILL_AFTER_MS: u64 = 250;
/// Directories, each with this many names.
const DIRS: u64 = 6;
const NAMES: u64 = 12;

/// What can stand at a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Thing {
    Dir,
    Link(String),
    /// With its content, which begins with a number that no other content has.
    File(Vec<u8>),
}

impl Thing {
    /// Reads what stands at a path; `None` if nothing does.
    fn read(path: &Path) -> Option<Self> {
        let metadata = path.symlink_metadata().ok()?;
        if metadata.is_dir() {
            Some(Self::Dir)
        } else if metadata.is_symlink() {
            Some(Self::Link(fs::read_link(path).ok()?.to_str()?.to_owned()))
        } else {
            fs::read(path).ok().map(Self::File)
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::File(content) => format!(
                "{} bytes: {:?}",
                content.len(),
                String::from_utf8_lossy(&content[..content.len().min(24)])
            ),
            other => format!("{other:?}"),
        }
    }
}

/// Chance from a seed (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// Somebody who works in a folder of a tree, and everything that ever stood there.
struct Worker {
    side: Side,
    now: BTreeMap<String, Thing>,
    ever: HashMap<String, HashSet<Thing>>,
    contents: u64,
}

impl Worker {
    fn new(side: Side) -> Self {
        Self {
            side,
            now: BTreeMap::new(),
            ever: HashMap::new(),
            contents: 0,
        }
    }

    fn put(&mut self, path: &str, thing: Thing) {
        self.ever
            .entry(path.to_owned())
            .or_default()
            .insert(thing.clone());
        self.now.insert(path.to_owned(), thing);
    }

    fn dir(&self, dice: &mut Dice) -> String {
        let side = self.side.name();
        match dice.below(3) {
            0 => format!("{side}/{}/inner", dice.below(DIRS)),
            _ => format!("{side}/{}", dice.below(DIRS)),
        }
    }

    fn make_dir(&mut self, root: &Path, dir: &str) {
        fs::create_dir_all(root.join(dir)).unwrap();
        for (at, _) in dir.match_indices('/').chain([(dir.len(), "")]) {
            self.put(&dir[..at], Thing::Dir);
        }
    }

    fn content(&mut self, dice: &mut Dice) -> Vec<u8> {
        self.contents += 1;
        let lines = match dice.below(20) {
            0 => 20_000,
            1..4 => 900,
            _ => 30,
        };
        format!("{} {}\n", self.side.name(), self.contents)
            .repeat(1 + dice.below(lines) as usize)
            .into_bytes()
    }

    fn write(&mut self, root: &Path, path: &str, content: Vec<u8>, beside: &Path) {
        // A program that saves safely: nobody ever sees half of it, and so half is never a content.
        let fresh = beside.join(format!("{}.new", self.side.name()));
        fs::write(&fresh, &content).unwrap();
        fs::rename(&fresh, root.join(path)).unwrap();
        self.put(path, Thing::File(content));
    }

    /// Does something, and says what.
    fn work(&mut self, root: &Path, beside: &Path, dice: &mut Dice) -> String {
        let dir = self.dir(dice);
        let path = format!("{dir}/{}.md", dice.below(NAMES));
        let there = self.now.get(&path).cloned();
        match (dice.below(12), there) {
            (0, _) => {
                let to = format!("{}/moved-{}", self.side.name(), dice.below(DIRS));
                if !self.now.contains_key(&dir)
                    || self.now.contains_key(&to)
                    || dir.ends_with("inner")
                {
                    return "nothing".into();
                }
                fs::rename(root.join(&dir), root.join(&to)).unwrap();
                self.rename(&dir, &to);
                format!("move {dir} to {to}")
            }
            (1, _) => {
                let doomed = format!("{}/moved-{}", self.side.name(), dice.below(DIRS));
                if self.now.contains_key(&doomed) {
                    fs::remove_dir_all(root.join(&doomed)).unwrap();
                }
                self.now
                    .retain(|path, _| *path != doomed && !path.starts_with(&format!("{doomed}/")));
                format!("delete {doomed}")
            }
            (2 | 3, Some(_)) => {
                fs::remove_file(root.join(&path)).unwrap();
                self.now.remove(&path);
                format!("delete {path}")
            }
            (4, Some(_)) => {
                let to = format!("{dir}/renamed-{}.md", dice.below(NAMES));
                fs::rename(root.join(&path), root.join(&to)).unwrap();
                self.rename(&path, &to);
                format!("rename {path} to {to}")
            }
            (5, Some(Thing::File(mut content))) => {
                use std::io::Write;
                self.contents += 1;
                let line = format!("{} appended {}\n", self.side.name(), self.contents);
                // One write: the file has it, or it has not.
                fs::OpenOptions::new()
                    .append(true)
                    .open(root.join(&path))
                    .unwrap()
                    .write_all(line.as_bytes())
                    .unwrap();
                content.extend_from_slice(line.as_bytes());
                self.put(&path, Thing::File(content));
                format!("append to {path}")
            }
            (6, Some(Thing::File(_))) => {
                let mode = if dice.below(2) == 0 { 0o755 } else { 0o644 };
                set_mode(&root.join(&path), mode);
                format!("chmod {mode:o} {path}")
            }
            (7, None) => {
                self.make_dir(root, &dir);
                self.contents += 1;
                let target = format!("to-{}-{}", self.side.name(), self.contents);
                symlink(&target, root.join(&path)).unwrap();
                self.put(&path, Thing::Link(target));
                format!("link {path}")
            }
            _ => {
                self.make_dir(root, &dir);
                let content = self.content(dice);
                self.write(root, &path, content, beside);
                format!("write {path}")
            }
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        let inside = format!("{from}/");
        let moved: Vec<_> = self
            .now
            .keys()
            .filter(|path| *path == from || path.starts_with(&inside))
            .cloned()
            .collect();
        for path in moved {
            let thing = self.now.remove(&path).unwrap();
            self.put(&format!("{to}{}", &path[from.len()..]), thing);
        }
    }
}

/// Returns everything in a tree, its path first.
fn walk(root: &Path) -> BTreeMap<String, Thing> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        // A directory can be gone by now.
        for entry in fs::read_dir(root.join(&dir))
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = format!("{dir}{}", entry.file_name().to_str().unwrap());
            if path == ".layer-sync" {
                continue;
            }
            let Some(thing) = Thing::read(&entry.path()) else {
                continue;
            };
            if thing == Thing::Dir {
                dirs.push(format!("{path}/"));
            }
            found.insert(path, thing);
        }
    }
    found
}

/// What happened so far, for whoever has to find out why it went wrong.
struct Story {
    seed: u64,
    begun: Instant,
    lines: Vec<String>,
}

impl Story {
    fn add(&mut self, line: &str) {
        let at = self.begun.elapsed().as_millis();
        self.lines.push(format!("{at:>6} ms  {line}"));
    }

    /// Returns what happened at a path or above it, and to the daemons.
    fn of(&self, path: &str) -> String {
        let path = path.split(" (conflict ").next().unwrap();
        let above = Path::new(path)
            .ancestors()
            .filter_map(Path::to_str)
            .filter(|above| above.contains('/'));
        let words: Vec<_> = above.chain(["killed", "started"]).collect();
        let concerns = |line: &&String| {
            words
                .iter()
                .any(|word| line.contains(path) || line.split(' ').any(|part| part == *word))
        };
        let lines: Vec<_> = self.lines.iter().filter(concerns).cloned().collect();
        format!("seed {}: {path:?}\n{}\n", self.seed, lines.join("\n"))
    }
}

/// Checks that both trees hold nothing that was not once there, and that nobody touched what its
/// owner does.
fn check(workers: &[Worker; 2], nodes: [&Node; 2], story: &Story) {
    for node in nodes {
        let found = walk(&node.root);
        for (path, thing) in &found {
            let ever = workers.iter().filter_map(|worker| worker.ever.get(path));
            assert!(
                ever.into_iter().any(|things| things.contains(thing)),
                "{}on the {} it never was {}",
                story.of(path),
                node.side.name(),
                thing.shown()
            );
        }
        let own = workers.iter().find(|worker| worker.side == node.side);
        let left = &own.unwrap().now;
        let folder = format!("{}/", node.side.name());
        let own = found.keys().filter(|path| path.starts_with(&folder));
        for path in own.chain(left.keys()) {
            let [found, left] = [&found, left]
                .map(|things| things.get(path).map_or("nothing".to_owned(), Thing::shown));
            assert_eq!(
                found,
                left,
                "{}on the {} it is not as its owner left it",
                story.of(path),
                node.side.name()
            );
        }
    }
}

#[test]
fn killed_at_any_moment() {
    let operations = wish("OPERATIONS").unwrap_or(OPERATIONS);
    let kills = wish("KILLS").unwrap_or(KILLS);
    let chance = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_micros() as u64;
    let seed = wish("SEED").unwrap_or(chance);
    println!("LAYER_SYNC_E2E_SEED={seed}: {operations} operations, {kills} kills");
    let mut dice = Dice(seed | 1);
    let mut pair = Pair::running();
    let mut workers = [Worker::new(Side::Pusher), Worker::new(Side::Receiver)];
    let beside = pair.scratch().to_owned();
    let begun = Instant::now();
    let mut story = Story {
        seed,
        begun,
        lines: Vec::new(),
    };
    for round in 0..=kills {
        let count = operations * (round + 1) / (kills + 1) - operations * round / (kills + 1);
        let victims: &[Side] = match dice.below(5) {
            _ if round == kills => &[],
            0 | 1 => &[Side::Pusher],
            2 | 3 => &[Side::Receiver],
            _ => &[Side::Pusher, Side::Receiver],
        };
        let kill_at = dice.below(count.max(1));
        for step in 0..count {
            let worker = &mut workers[dice.below(2) as usize];
            let root = &pair.node(worker.side).root;
            story.add(&worker.work(root, &beside, &mut dice));
            if step == kill_at && !victims.is_empty() {
                thread::sleep(Duration::from_millis(dice.below(KILL_AFTER_MS)));
                victims.iter().for_each(|side| pair.node_mut(*side).kill());
                story.add(&format!("killed {victims:?}"));
            }
            if dice.below(4) == 0 {
                thread::sleep(Duration::from_millis(dice.below(20)));
            }
        }
        victims.iter().for_each(|side| pair.node_mut(*side).start());
        story.add("started again");
        check(&workers, pair.nodes(), &story);
    }
    pair.meet();
    pair.flush();
    check(&workers, pair.nodes(), &story);
    let [a, b] = pair.nodes().map(|node| walk(&node.root));
    for (path, thing) in workers.iter().flat_map(|worker| &worker.now) {
        let both = a.get(path) == Some(thing) && b.get(path) == Some(thing);
        assert!(both, "{}it did not arrive", story.of(path));
    }
    for path in a.keys().chain(b.keys()) {
        let left = workers.iter().any(|worker| worker.now.contains_key(path));
        assert!(left, "{}it should be gone", story.of(path));
    }
    for node in pair.nodes() {
        wait_until("the node says in sync", SOON, || node.in_sync());
        assert_eq!(node.status()["sync"]["conflicts"], 0, "seed {seed}");
        let stage = node.root.join(".layer-sync/stage");
        let left: Vec<_> = fs::read_dir(stage)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert!(
            left.len() < 64,
            "seed {seed}: {} things are left in the stage: {left:?}",
            left.len()
        );
    }
    println!(
        "{operations} operations and {kills} kills in {:?}",
        begun.elapsed()
    );
}

#[test]
fn killed_in_the_moment_of_arrival() {
    type Act = fn(&Path);
    // First both have it; then it changes, and as soon as that stands on the other side, the other
    // side dies; then it changes again.
    let check = |name: &str, from: Side, first: Option<Act>, change: Act, then: Act| {
        let to = if from == Side::Pusher {
            Side::Receiver
        } else {
            Side::Pusher
        };
        let mut pair = Pair::running();
        let [here, there] = [from, to].map(|side| pair.node(side).root.clone());
        if let Some(first) = first {
            first(&here);
            pair.flush();
        }
        change(&here);
        let end = Instant::now() + SOON;
        // As fast as can be: from here until it is recorded are a few milliseconds.
        while state(&here) != state(&there) {
            assert!(Instant::now() < end, "{name}: it does not arrive");
        }
        pair.node_mut(to).kill();
        then(&here);
        let meant = walk(&here);
        pair.node_mut(to).start();
        pair.flush();
        for node in pair.nodes() {
            let (from, to) = (from.name(), to.name());
            assert_eq!(
                walk(&node.root),
                meant,
                "{name}, from the {from} to the {to}"
            );
        }
    };
    let one = |root: &Path| fs::write(root.join("note.md"), "one").unwrap();
    let two = |root: &Path| fs::write(root.join("note.md"), "two two").unwrap();
    let three = |root: &Path| fs::write(root.join("note.md"), "three three three").unwrap();
    let runs = |root: &Path| set_mode(&root.join("note.md"), 0o755);
    let gone = |root: &Path| fs::remove_file(root.join("note.md")).unwrap();
    let moved = |root: &Path| fs::rename(root.join("note.md"), root.join("moved.md")).unwrap();
    let linked = |root: &Path| symlink("target", root.join("note.md")).unwrap();
    let folder = |root: &Path| fs::create_dir(root.join("note.md")).unwrap();
    let no_folder = |root: &Path| fs::remove_dir(root.join("note.md")).unwrap();
    for from in [Side::Pusher, Side::Receiver] {
        check("created, edited", from, None, one, two);
        check("created, deleted", from, None, one, gone);
        check("created, moved", from, None, one, moved);
        check("replaced, edited", from, Some(one), two, three);
        check("replaced, deleted", from, Some(one), two, gone);
        check("replaced, moved", from, Some(one), two, moved);
        check("made to run, edited", from, Some(one), runs, two);
        check("made to run, deleted", from, Some(one), runs, gone);
        check("deleted, created", from, Some(one), gone, two);
        check("deleted, created alike", from, Some(one), gone, one);
        check("linked, unlinked", from, None, linked, gone);
        check("folder, no folder", from, None, folder, no_folder);
    }
}

/// Returns what stands at the one path of the test, and whether it runs.
fn state(root: &Path) -> (Option<Thing>, bool) {
    let path = root.join("note.md");
    let runs = path
        .metadata()
        .is_ok_and(|metadata| metadata.permissions().mode() & 0o100 != 0);
    (Thing::read(&path), runs)
}

fn set_mode(file: &Path, mode: u32) {
    fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
}
