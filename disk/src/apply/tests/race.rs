//! Somebody works on the very files that are being replaced.
//!
//! He always knows what he himself overwrote or deleted, because he takes it out in one step and looks at
//! it. All other contents that ever stood somewhere must be at a path or in the kept store in the end.
//!
//! `LAYER_SYNC_RACES=20000` asks for that many operations instead of a few thousand.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;

const PATHS: usize = 8;

fn races(ordinary: usize) -> usize {
    let wish = std::env::var("LAYER_SYNC_RACES").ok();
    wish.and_then(|wish| wish.parse().ok()).unwrap_or(ordinary)
}

/// Chance from a seed (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize) % sides
    }
}

/// Somebody with an editor.
struct User {
    root: PathBuf,
    beside: PathBuf,
    dice: Dice,
    saved: Vec<String>,
    /// What he overwrote or deleted himself.
    ended: BTreeSet<String>,
}

impl User {
    fn new(bench: &Bench, seed: u64) -> Self {
        let beside = bench.dir.path().join("beside");
        fs::create_dir(&beside).expect("made");
        Self {
            root: bench.root(),
            beside,
            dice: Dice(seed | 1),
            saved: Vec::new(),
            ended: BTreeSet::new(),
        }
    }

    fn content(&mut self) -> String {
        let content = format!("saved {}", self.saved.len());
        self.saved.push(content.clone());
        content
    }

    /// Does something to a path.
    fn act(&mut self) {
        let at = self.root.join(format!("p{}", self.dice.below(PATHS)));
        match self.dice.below(8) {
            0 => self.delete(&at),
            1 => {
                self.delete(&at);
                self.save(&at);
            }
            2 | 3 => self.write_in_place(&at),
            _ => self.save(&at),
        }
    }

    /// As editors save: a new file takes the place in one step. If nothing is there, it is made.
    fn save(&mut self, at: &Path) {
        let (content, new) = (self.content(), self.beside.join("new"));
        fs::write(&new, content).expect("written");
        loop {
            if renameat_with(CWD, &new, CWD, at, RenameFlags::EXCHANGE).is_ok() {
                self.ended
                    .insert(fs::read_to_string(&new).expect("what was there"));
                return fs::remove_file(&new).expect("gone");
            }
            if renameat_with(CWD, &new, CWD, at, RenameFlags::NOREPLACE).is_ok() {
                return;
            }
        }
    }

    fn delete(&mut self, at: &Path) {
        let gone = self.beside.join("gone");
        if fs::rename(at, &gone).is_ok() {
            self.ended
                .insert(fs::read_to_string(&gone).expect("what was there"));
            fs::remove_file(gone).expect("gone");
        }
    }

    /// As simple programs save: through a handle that stays open while the name may go elsewhere.
    fn write_in_place(&mut self, at: &Path) {
        let Ok(mut file) = File::options().read(true).write(true).open(at) else {
            return;
        };
        let mut was = String::new();
        file.read_to_string(&mut was).expect("read");
        let content = self.content();
        // In one step and of one length, so that no mixture of both is ever there.
        let content = format!("{content:width$}", width = was.len());
        *self.saved.last_mut().expect("just saved") = content.clone();
        if content.len() > was.len() {
            file.rewind().expect("at the start");
            file.write_all(content.as_bytes()).expect("written");
        } else {
            file.write_all_at(content.as_bytes(), 0).expect("written");
        }
        self.ended.insert(was);
    }
}

/// Plans against what is there now, applies, and counts what came of it.
struct Planner {
    applied: BTreeSet<String>,
    next: usize,
    dice: Dice,
    done: usize,
    stale: usize,
}

impl Planner {
    fn new(seed: u64) -> Self {
        Self {
            applied: BTreeSet::new(),
            next: 0,
            dice: Dice(seed | 1),
            done: 0,
            stale: 0,
        }
    }

    fn batch(&mut self, bench: &mut Bench, dir: &str) {
        bench.look();
        let seen: BTreeMap<RelPath, Option<Entry>> = {
            let seen = lock(&bench.replica.seen);
            let entry = |path: &RelPath| seen.row(path).map(|row| row.entry.clone());
            let paths = (0..PATHS).map(|number| path(&format!("{dir}p{number}")));
            paths.map(|path| (path.clone(), entry(&path))).collect()
        };
        let mut contents = Vec::new();
        let ops: Vec<Op> = seen
            .into_iter()
            .map(|(path, expect)| {
                self.next += 1;
                let content = format!("applied {:09}", self.next);
                let deletes = expect.is_some() && self.dice.below(4) == 0;
                let make = if deletes { None } else { file(&content) };
                contents.push((make.is_some().then_some(content.clone()), content));
                op(path.as_str(), expect, make)
            })
            .collect();
        let bytes: Vec<&[u8]> = contents
            .iter()
            .map(|(_, content)| content.as_bytes())
            .collect();
        let outcomes = bench.apply(ops, &bytes);
        for (outcome, (made, _)) in outcomes.iter().zip(contents) {
            match outcome {
                Outcome::Done => {
                    self.done += 1;
                    self.applied.extend(made);
                }
                _ => self.stale += 1,
            }
        }
    }
}

/// Checks that every content is somewhere, or was ended by the user himself.
fn nothing_is_lost(bench: Bench, user: &User, planner: &Planner, case: &str) {
    let bench = bench.reopen();
    assert_eq!(bench.private("stage"), [""; 0], "{case}");
    let mut there: BTreeSet<String> = bench.kept().into_iter().collect();
    for number in 0..PATHS {
        there.extend(fs::read_to_string(bench.at(&format!("p{number}"))));
    }
    let all = user.saved.iter().chain(&planner.applied);
    let lost: Vec<&String> = all
        .filter(|content| !there.contains(*content) && !user.ended.contains(*content))
        .collect();
    assert!(lost.is_empty(), "{case}: lost {lost:?}");
    println!(
        "{case}: {} operations done, {} stale, {} saves, nothing lost",
        planner.done,
        planner.stale,
        user.saved.len()
    );
    assert!(
        planner.done > 0 && planner.stale > 0,
        "{case}: there was no race"
    );
}

#[test]
fn somebody_acts_before_any_step() {
    for weak in [false, true] {
        let mut bench = Bench::in_memory();
        bench.replica.weaker.store(weak, Ordering::Relaxed);
        let user = Arc::new(Mutex::new(User::new(&bench, 7)));
        let mut planner = Planner::new(9);
        bench.hook({
            let user = user.clone();
            move |_| {
                let mut user = lock(&user);
                while user.dice.below(4) == 0 {
                    user.act();
                }
                ControlFlow::Continue(())
            }
        });
        let races = races(4000);
        while planner.done + planner.stale < races {
            planner.batch(&mut bench, "");
        }
        bench.unhook();
        let case = format!("before any step, weak {weak}");
        nothing_is_lost(bench, &lock(&user), &planner, &case);
    }
}

#[test]
fn somebody_acts_at_the_same_time() {
    let mut bench = Bench::new();
    let mut user = User::new(&bench, 11);
    let mut planner = Planner::new(13);
    let ended = AtomicBool::new(false);
    let user = std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                user.act();
                // Long enough for some files to be as they were looked at.
                let pause = user.dice.below(400) as u64;
                std::thread::sleep(std::time::Duration::from_micros(pause));
            }
            user
        });
        let races = races(1500);
        while planner.done + planner.stale < races {
            planner.batch(&mut bench, "");
        }
        ended.store(true, Ordering::Relaxed);
        working.join().expect("nothing failed for the user")
    });
    nothing_is_lost(bench, &user, &planner, "at the same time");
}

/// What a look at a folder shows without touching it: names, contents' lengths and all times.
fn shape(dir: &Path) -> Vec<String> {
    let line = |at: &Path| {
        let found = fs::symlink_metadata(at).expect("there");
        format!(
            "{} {} {}.{} {}.{} {}.{}",
            at.display(),
            found.len(),
            found.atime(),
            found.atime_nsec(),
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec()
        )
    };
    let names = (0..PATHS).map(|number| dir.join(format!("p{number}")));
    names.map(|at| line(&at)).chain([line(dir)]).collect()
}

/// The directory above the files becomes a link to outside of the root, again and again.
#[test]
fn a_parent_that_becomes_a_link_leads_nowhere() {
    let mut bench = Bench::new();
    let outside = bench.dir.path().join("outside");
    fs::create_dir(&outside).expect("made");
    // So old that reading a file would be noted in its time of access.
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let times = fs::FileTimes::new().set_accessed(old).set_modified(old);
    for number in 0..PATHS {
        let at = outside.join(format!("p{number}"));
        fs::write(&at, format!("outside {number}")).expect("written");
        let file = File::options().write(true).open(at).expect("open");
        file.set_times(times).expect("set");
    }
    File::open(&outside)
        .expect("open")
        .set_times(times)
        .expect("set");
    let before = shape(&outside);
    fs::create_dir(bench.at("dir")).expect("made");
    symlink(&outside, bench.at("trap")).expect("linked");
    let (dir, trap) = (bench.at("dir"), bench.at("trap"));
    let ended = AtomicBool::new(false);
    let mut planner = Planner::new(17);
    let swaps = std::thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            let (mut swaps, mut dice) = (0_u64, Dice(19));
            while !ended.load(Ordering::Relaxed) || swaps % 2 == 1 {
                renameat_with(CWD, &dir, CWD, &trap, RenameFlags::EXCHANGE).expect("swapped");
                swaps += 1;
                let pause = dice.below(300) as u64;
                std::thread::sleep(std::time::Duration::from_micros(pause));
            }
            swaps
        });
        let applies = races(2400) / 2;
        for _ in 0..applies.div_ceil(PATHS) {
            planner.batch(&mut bench, "dir/");
        }
        ended.store(true, Ordering::Relaxed);
        swapping.join().expect("nothing failed")
    });
    assert_eq!(shape(&outside), before, "something outside was touched");
    for number in 0..PATHS {
        let content = fs::read_to_string(outside.join(format!("p{number}"))).expect("there");
        assert_eq!(content, format!("outside {number}"));
    }
    println!(
        "{} operations done, {} stale, {swaps} swaps, nothing outside touched",
        planner.done, planner.stale
    );
    assert!(planner.done > 0 && planner.stale > 0, "there was no race");
    assert!(!bench.kept().iter().any(|kept| kept.starts_with("outside")));
}
