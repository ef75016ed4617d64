//! What it costs to read what the other machine sends: never more than a small multiple of its bytes.
//!
//! There is one test in this program, since it counts what the whole process allocates.

use std::fs;
use std::path::PathBuf;

use peak_alloc::PeakAlloc;
use shared::chunk::{Chunk, Manifest};
use shared::control::{Health, PROBLEMS_MAX, Problem};
use shared::delta::Form;
use shared::hash::ContentHash;
use shared::path::RelPath;
use shared::transfer::{
    BATCH_OPS_MAX, Batch, Item, MANIFEST_CHUNKS_MAX, Need, Op, Outcome, PART_BYTES_MAX, PackedFile,
    Part, RUNS_MAX, Source,
};
use shared::tree::{BaseRow, Entry, Gen, Sight};
use shared::wire::{FRAME_BYTES_MAX, Frame, Proof, ROWS_MAX};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Decoding a frame allocates at most this many times its bytes, …
const TIMES_MAX: usize = 8;
/// … and this: the longest list of the least rows, twice while it grows.
const BESIDES_MAX: usize = 1024 * 1024;
/// Staging and applying a batch with any parts allocates at most this.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Returns the most bytes that `work` has allocated at one time.
fn peak<T>(work: impl FnOnce() -> T) -> usize {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    drop(work());
    ALLOCATED.peak_usage().saturating_sub(before)
}

fn path() -> RelPath {
    RelPath::parse("a").expect("a path")
}

/// Frames of the least elements that a list can have, at its limit and far above it: the largest in
/// memory for their bytes.
fn least() -> Vec<Frame> {
    let op = Op {
        path: path(),
        expect: None,
        make: None,
        from: Source::Nothing,
        agrees: false,
    };
    let item = Item {
        index: 0,
        path: path(),
        entry: Entry::Dir,
        base: None,
    };
    let row = BaseRow {
        entry: None,
        batch: Gen(0),
    };
    let row = (path(), row);
    let file = PackedFile {
        index: 0,
        len: 0,
        mtime_ns: 0,
        form: Form::Whole,
    };
    let chunk = Chunk {
        hash: ContentHash::of_bytes(b""),
        len: 0,
    };
    let problem = Problem {
        code: String::new(),
        severity: Health::Healthy,
        path: None,
        text: String::new(),
        fix: String::new(),
    };
    let mut frames = Vec::new();
    for times in [1, 500] {
        let batch = Batch {
            number: Gen(0),
            settles: None,
            ops: vec![op.clone(); BATCH_OPS_MAX * times],
        };
        let pack = Part::Pack {
            files: vec![file; BATCH_OPS_MAX * times],
            zstd: false,
            bytes: Vec::new(),
        };
        frames.extend([
            Frame::Seen(vec![(path(), Sight::Absent); ROWS_MAX * times]),
            Frame::Bases(vec![row.clone(); ROWS_MAX * times]),
            Frame::Agreed(Gen(0), vec![row.clone(); ROWS_MAX * times]),
            Frame::Fetch(Gen(0), vec![item.clone(); BATCH_OPS_MAX * times]),
            Frame::Applied(Gen(0), vec![Outcome::Done; BATCH_OPS_MAX * times]),
            Frame::Batch(batch.into(), None),
            Frame::Part(pack),
            Frame::Proof(Proof {
                problems: vec![problem.clone(); PROBLEMS_MAX * times],
                ..Proof::default()
            }),
        ]);
    }
    for times in [1, 4] {
        let list = Part::Manifest {
            index: 0,
            mtime_ns: 0,
            manifest: Manifest {
                chunks: vec![chunk; MANIFEST_CHUNKS_MAX * times],
            },
            more: false,
        };
        let pack = Part::Pack {
            files: Vec::new(),
            zstd: false,
            bytes: vec![0; PART_BYTES_MAX * times],
        };
        let need = Need {
            batch: Gen(0),
            item: item.clone(),
            runs: vec![(0, 0); RUNS_MAX * times],
            olds: Vec::new(),
        };
        frames.extend([Frame::Part(list), Frame::Part(pack), Frame::Need(need)]);
        frames.push(Frame::Answer(0, "x".repeat((FRAME_BYTES_MAX >> 2) * times)));
    }
    frames
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let files = fs::read_dir(folder).expect("the corpus").flatten();
    files
        .map(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            (name, fs::read(file.path()).expect("a seed"))
        })
        .collect()
}

fn decoding() {
    let mut inputs = seeds("frame");
    let seeds = inputs.len();
    inputs.extend(
        least()
            .iter()
            .map(|frame| (frame.name().to_owned(), frame.encode())),
    );
    // A count that is a lie, in front of each frame's fields.
    for kind in 0..=u8::MAX {
        let lie = [&[kind][..], &[0xff; 4], &[0x0f], &[0; 64]].concat();
        inputs.push((format!("a count in kind {kind}"), lie));
    }
    let mut worst = (0.0, String::new());
    for (name, bytes) in &inputs {
        let cost = peak(|| Frame::decode(bytes));
        let most = TIMES_MAX * bytes.len() + BESIDES_MAX;
        assert!(cost <= most, "{name}: {} bytes cost {cost}", bytes.len());
        let times = cost as f64 / bytes.len().max(1) as f64;
        if bytes.len() > BESIDES_MAX && times > worst.0 {
            worst = (times, name.clone());
        }
    }
    let (times, name) = worst;
    println!(
        "{seeds} seeds, {} frames; of the long ones {name} cost most: {times:.1} times its bytes",
        inputs.len()
    );
}

fn staging() {
    // The first one makes the replica.
    tests::parts(&tests::honest_parts());
    tests::calls(&[]);
    let targets: [(&str, tests::Target); 2] = [("parts", tests::parts), ("calls", tests::calls)];
    let inputs = targets.iter().flat_map(|(name, target)| {
        seeds(name)
            .into_iter()
            .map(move |(seed, bytes)| (seed, bytes, target))
    });
    let mut worst = (0, String::new());
    for (name, bytes, target) in inputs {
        let cost = peak(|| target(&bytes));
        assert!(
            cost <= BATCH_BYTES_MAX,
            "{name}: {} bytes cost {cost}",
            bytes.len()
        );
        worst = worst.max((cost, name));
    }
    println!(
        "a batch with the parts of {} cost most: {} KiB",
        worst.1,
        worst.0 >> 10
    );
}

#[test]
fn what_arrives_costs_little_more_than_its_bytes() {
    decoding();
    staging();
}
