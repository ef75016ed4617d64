//! The power is cut at any moment.
//!
//! What was acknowledged (a batch reported as applied, content that was given, rows that were
//! committed) is there in full, with its base row and what it displaced; what was under way is old or
//! new; the base is never ahead of the data. To show that this can fail, the same runs without one of
//! the barriers, which must be caught.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Instant, SystemTime};

use disk::{Places, ReplicaId};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use tempfile::TempDir;

use crate::device::{Devices, Loss};
use crate::dice::Dice;
use crate::history::{History, Side, Writer, check};
use crate::mounts::{Mounted, alone, make_volume};
use crate::wish;

const VOLUME_BYTES: u64 = 24 * 1024 * 1024;
/// What is done in a run, and at how many moments of it the power is cut.
const ACTS: usize = 40;
const CUTS: u64 = 40;

/// Where the index lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Index {
    /// On the volume of the tree: one journal orders both.
    Beside,
    /// On a volume of its own, which knows nothing of the other one.
    Apart,
}

/// One run on devices that remember.
struct Run {
    scratch: TempDir,
    devices: Devices,
    index: Index,
    id: ReplicaId,
    history: History,
}

impl Run {
    /// Runs for some acts. `skipped` is a barrier that the system pretends to have made.
    fn new(index: Index, skipped: Option<i64>, options: &str, seed: u64) -> Self {
        let scratch = TempDir::with_prefix("ls-crash-").unwrap();
        let at = |name: &str| scratch.path().join(name);
        for dir in ["devices", "0", "1"] {
            fs::create_dir(at(dir)).unwrap();
        }
        let count = if index == Index::Apart { 2 } else { 1 };
        make_volume(&at("image"), VOLUME_BYTES);
        let contents = vec![fs::read(at("image")).unwrap(); count];
        let devices = Devices::new(&at("devices"), contents).unwrap();
        let (id, history) = {
            let dirs = [at("0"), at("1")];
            let mount = |device: usize| Mounted::new(&devices.file(device), &dirs[device], options);
            let _mounted: Vec<_> = (0..count).map(|device| mount(device).unwrap()).collect();
            let places = places(scratch.path(), index);
            fs::create_dir(&places.root).unwrap();
            let write = || write(&places, skipped, seed, &|| devices.now());
            thread::scope(|scope| scope.spawn(write).join().unwrap())
        };
        Self {
            scratch,
            devices,
            index,
            id,
            history,
        }
    }

    /// Cuts the power at a moment and says what is wrong then.
    fn cut(&self, moment: usize, loss: Loss, dice: &mut Dice) -> Result<(), String> {
        let at = |name: String| self.scratch.path().join(name);
        let left = self.devices.left(moment, loss, dice);
        let dirs: Vec<PathBuf> = (0..left.len())
            .map(|device| at(device.to_string()))
            .collect();
        let mut mounted = Vec::new();
        for (device, content) in left.into_iter().enumerate() {
            let image = at(format!("left-{device}"));
            fs::write(&image, content).unwrap();
            mounted.push(Mounted::new(&image, &dirs[device], "rw")?);
        }
        let places = places(self.scratch.path(), self.index);
        check(&self.history.expected(moment), &places, self.id)
            .map_err(|wrong| format!("cut at {moment}, {loss:?} lost: {wrong}"))
    }

    /// Cuts the power at some moments, and returns what is wrong at one of them.
    fn cuts(&self, count: u64, dice: &mut Dice) -> Option<String> {
        let (first, last) = (self.history.first_promise(), self.devices.now());
        (0..count).find_map(|number| {
            let moment = match number % 2 {
                0 => self.history.some_promise(dice),
                _ => first + dice.below(last - first + 1),
            };
            let loss = match number % 8 {
                0 | 1 | 2 | 4 => Loss::Everything,
                3 | 5 | 6 => Loss::ByChance,
                _ => Loss::Nothing,
            };
            self.cut(moment, loss, dice).err()
        })
    }
}

fn places(scratch: &Path, index: Index) -> Places {
    let home = if index == Index::Apart { "1" } else { "0" };
    Places {
        root: scratch.join("0/tree"),
        state: scratch.join(home).join("state"),
    }
}

/// Writes for some acts, on a thread whose barriers may be skipped.
fn write(
    places: &Places,
    skipped: Option<i64>,
    seed: u64,
    now: &dyn Fn() -> usize,
) -> (ReplicaId, History) {
    let side = Side::open(places, None).unwrap();
    let id = side.id();
    let mut writer = Writer::new(side, Dice::new(seed), now);
    if let Some(call) = skipped {
        pretend(call);
    }
    for _ in 0..ACTS {
        writer.act();
    }
    (id, writer.history)
}

/// Lets a system call of this thread succeed from now on without doing anything.
fn pretend(call: i64) {
    let filter = SeccompFilter::new(
        BTreeMap::from([(call, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(0),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

fn seed() -> u64 {
    let chance = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let seed = wish("SEED").unwrap_or(u64::from(chance.subsec_nanos()));
    println!("LAYER_SYNC_CRASH_SEED={seed}");
    seed
}

/// `options` of the mount: an ordinary volume, and one that writes nothing by itself for a long time.
fn survives(index: Index, options: &str) {
    let (begun, seed) = (Instant::now(), seed());
    let mut dice = Dice::new(seed);
    let mut rest = wish("CUTS").unwrap_or(CUTS);
    let (all, mut runs) = (rest, 0);
    while rest > 0 {
        let run = Run::new(index, None, options, seed + runs);
        let now = rest.min(100);
        let wrong = run.cuts(now, &mut dice);
        assert_eq!(wrong, None, "seed {seed}, run {runs}");
        (rest, runs) = (rest - now, runs + 1);
    }
    println!(
        "{all} cuts, index {index:?}, {options}: {:?}",
        begun.elapsed()
    );
}

#[test]
fn acknowledged_is_durable() {
    if alone("power_cut::acknowledged_is_durable") {
        survives(Index::Beside, "noatime");
    }
}

#[test]
fn acknowledged_is_durable_with_the_index_elsewhere() {
    if alone("power_cut::acknowledged_is_durable_with_the_index_elsewhere") {
        survives(Index::Apart, "noatime,commit=600");
    }
}

/// Each barrier is needed: without it, some cut shows a broken promise.
#[test]
fn a_missing_barrier_is_caught() {
    if !alone("power_cut::a_missing_barrier_is_caught") {
        return;
    }
    let seed = seed();
    let calls = [
        ("fsync", libc::SYS_fsync),
        ("fdatasync", libc::SYS_fdatasync),
        ("syncfs", libc::SYS_syncfs),
    ];
    for (name, call) in calls {
        let mut dice = Dice::new(seed);
        let run = Run::new(Index::Apart, Some(call), "noatime,commit=600", seed);
        let caught = run.cuts(200, &mut dice);
        println!("without {name}: {caught:?}");
        assert!(caught.is_some(), "nobody misses {name}");
    }
}
