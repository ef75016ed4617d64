//! Runs every seed of `tests/fuzz/corpus` through its function, and some thousands of mutations of
//! each, always the same ones.
//!
//! Seeds are real values and hand-made nasty ones. `LAYER_SYNC_WRITE_FIXTURES=1` writes the real ones
//! that are missing. What a fuzzer finds goes into the folder of its target, and is tried from then on.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use tests::{TARGETS, Target};

/// Most mutations of one seed.
const MUTATIONS_MAX: u64 = 4000;
/// After this a target ends, however many mutations are left: a slow machine tries fewer of them.
const TIME_MAX: Duration = Duration::from_secs(4);
/// Seeds are small, so that many mutations of them are tried.
const SEED_BYTES_MAX: u64 = 16 * 1024;
const WRITE: &str = "LAYER_SYNC_WRITE_FIXTURES";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the seeds of a target with their names, sorted.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = folder().join("fuzz/corpus").join(target);
    let files = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut seeds: Vec<(String, Vec<u8>)> = files
        .map(|file| {
            let file = file.expect("an entry");
            let bytes = fs::read(file.path()).expect("a seed");
            (file.file_name().to_string_lossy().into_owned(), bytes)
        })
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{} has no seed", dir.display());
    seeds
}

/// The real values, made from what the tests have anyway.
fn real_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for file in fs::read_dir(folder().join("fixtures/frames"))
        .expect("the fixtures")
        .flatten()
    {
        let text = fs::read_to_string(file.path()).expect("a fixture");
        let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
        let bytes = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex"));
        let name = file
            .path()
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        seeds.push(("frame", name, bytes.collect()));
    }
    for sample in ["pusher", "receiver"] {
        let text = fs::read(folder().join(format!("../config/{sample}.toml"))).expect("a sample");
        seeds.push(("config", sample.to_owned(), text));
    }
    for (name, address) in [
        ("name", "vm.example.org:4747"),
        ("ipv6", "[2001:db8::1]:9797"),
    ] {
        let fingerprint = link::Fingerprint(std::array::from_fn(|at| at as u8));
        let code = link::PairingCode::new(address, fingerprint, [0xf0; 16]).expect("a code");
        seeds.push((
            "pairing_code",
            name.to_owned(),
            code.to_string().into_bytes(),
        ));
    }
    seeds.push(("parts", "honest".to_owned(), tests::honest_parts()));
    seeds
}

#[test]
fn each_target_has_its_real_seeds_and_its_fuzz_target() {
    let targets: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut folders: Vec<String> = fs::read_dir(folder().join("fuzz/corpus"))
        .expect("the corpus")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    folders.sort();
    let mut sorted = targets.clone();
    sorted.sort();
    assert_eq!(
        folders, sorted,
        "tests/fuzz/corpus has one folder for each of `tests::TARGETS`"
    );

    let manifest = fs::read_to_string(folder().join("fuzz/Cargo.toml")).expect("the fuzz crate");
    for target in &targets {
        let program = folder().join(format!("fuzz/fuzz_targets/{target}.rs"));
        let text = fs::read_to_string(&program)
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        assert!(
            text.contains(&format!("tests::{target}(data)")),
            "{} calls tests::{target}",
            program.display()
        );
        assert!(
            manifest.contains(&format!("name = \"{target}\"")),
            "{target} is a [[bin]] of tests/fuzz/Cargo.toml"
        );
    }

    for (target, name, bytes) in real_seeds() {
        let seed = folder().join("fuzz/corpus").join(target).join(&name);
        if !seed.exists() && std::env::var_os(WRITE).is_some() {
            fs::write(&seed, bytes).expect("the seed is written");
        }
        assert!(
            seed.exists(),
            "{target}/{name} is missing; {WRITE}=1 writes it"
        );
    }
    for target in targets {
        for (name, bytes) in corpus(&target) {
            assert!(
                bytes.len() as u64 <= SEED_BYTES_MAX,
                "{target}/{name} is too long for a seed"
            );
        }
    }
}

#[test]
fn what_an_honest_giver_sends_is_taken() {
    use shared::transfer::Outcome::{Done, Gone};
    let check = |name: &str, files: [_; 4]| {
        let seeds = corpus("parts");
        let (_, bytes) = seeds
            .iter()
            .find(|(seed, _)| seed == name)
            .expect("the seed");
        assert_eq!(tests::outcomes_of_parts(bytes)[..4], files, "{name}");
    };
    check("honest", [Done, Done, Done, Done]);
    check("everything-twice", [Done, Done, Done, Done]);
    check("no-runs", [Done, Done, Done, Gone]);
    check("gone-first", [Gone, Done, Done, Gone]);
    check("pack-swapped", [Done, Gone, Done, Gone]);
    check("pack-wrong-then-right", [Gone, Gone, Gone, Gone]);
}

#[test]
fn frame() {
    run("frame");
}

#[test]
fn path() {
    run("path");
}

#[test]
fn config() {
    run("config");
}

#[test]
fn pairing_code() {
    run("pairing_code");
}

#[test]
fn reconcile() {
    run("reconcile");
}

#[test]
fn calls() {
    run("calls");
}

#[test]
fn parts() {
    run("parts");
}

/// Shows the input that a function panics on.
struct Shown<'a> {
    target: &'a str,
    seed: &'a str,
    bytes: &'a [u8],
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let hex: String = self
                .bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            eprintln!(
                "{} does not hold for a mutation of the seed {}; keep it:\n  echo {hex} | xxd -r -p > \
                 tests/fuzz/corpus/{0}/NAME",
                self.target, self.seed
            );
        }
    }
}

fn run(name: &str) {
    let (_, target): (_, Target) = *TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a target");
    let seeds = corpus(name);
    let call = |seed: &str, bytes: &[u8]| {
        let shown = Shown {
            target: name,
            seed,
            bytes,
        };
        target(shown.bytes);
    };
    for (seed, bytes) in &seeds {
        call(seed, bytes);
    }
    let started = Instant::now();
    let mut tried = 0;
    for round in 0..MUTATIONS_MAX {
        for (number, (seed, bytes)) in (0..).zip(&seeds) {
            if started.elapsed() > TIME_MAX {
                println!(
                    "{name}: {} seeds, {tried} mutations, then the time was over",
                    seeds.len()
                );
                return;
            }
            let mut chance = Chance(round << 16 | number);
            call(seed, &mutated(bytes, &seeds, &mut chance));
            tried += 1;
        }
    }
    println!(
        "{name}: {} seeds, {tried} mutations in {:?}",
        seeds.len(),
        started.elapsed()
    );
}

/// Numbers that look like chance and are always the same: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`; 0 when `end` is 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }
}

fn mutated(seed: &[u8], seeds: &[(String, Vec<u8>)], chance: &mut Chance) -> Vec<u8> {
    const TELLING: [u8; 12] = [
        0, 1, 0x7f, 0x80, 0xff, b'/', b'.', b'\n', b'"', b'=', b'[', b'(',
    ];
    let mut bytes = seed.to_vec();
    for _ in 0..=chance.below(3) {
        let at = chance.below(bytes.len());
        let end = at + chance.below((bytes.len() - at).min(64) + 1);
        match chance.below(8) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << chance.below(8),
            2 if !bytes.is_empty() => bytes[at] = TELLING[chance.below(TELLING.len())],
            3 => bytes.insert(at, TELLING[chance.below(TELLING.len())]),
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..end)),
            6 => {
                let piece = bytes[at..end].to_vec();
                let to = chance.below(bytes.len());
                drop(bytes.splice(to..to, piece));
            }
            _ => {
                let (_, other) = &seeds[chance.below(seeds.len())];
                let from = chance.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}
