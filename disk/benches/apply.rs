//! Batches from the other side, in files per second, until they are durable here.
//!
//! The limit is a program that writes the same files under other names, makes the volume durable with one
//! barrier, renames them and makes the volume durable once more: less is not safe against a power cut.
//! An apply also checks each hash, looks at each target, records the batch in the index, and keeps what it
//! displaces. On a volume that waits for its medium, most of the time is the barriers.

use std::cell::Cell;
use std::fs;
use std::sync::Arc;

use disk::Replica;
use divan::Bencher;
use divan::counter::ItemsCount;
use shared::delta::Form;
use shared::transfer::{Batch, Op, PackedFile, Part, Source};
use shared::tree::{Entry, Gen};

use crate::tree::{FILES_PER_DIR, Folder, dir_name, entry, look, name, note, path, sync_volume};

const FILES: usize = 1000;
/// Their notes are less than 1 MiB.
const NOTES_PER_PACK: usize = 250;

/// Returns the operation that makes an entry, whose content comes from the other side.
fn op(name: &str, expect: Option<Entry>, make: Entry) -> Op {
    let path = path(name);
    let from = match make {
        Entry::File { .. } => Source::There(path.clone()),
        _ => Source::Nothing,
    };
    Op {
        path,
        expect,
        make: Some(make),
        from,
        agrees: true,
    }
}

/// Returns a pack with these notes, each with the number of its operation.
fn pack(notes: &[(u32, Vec<u8>)]) -> Part {
    let packed = |(index, note): &(u32, Vec<u8>)| PackedFile {
        index: *index,
        len: note.len() as u32,
        mtime_ns: 1_795_382_045_000_000_000,
        form: Form::Whole,
    };
    Part::Pack {
        files: notes.iter().map(packed).collect(),
        zstd: false,
        bytes: notes.iter().flat_map(|(_, note)| note).copied().collect(),
    }
}

/// Returns what a giver sends for a batch of notes.
fn packs(version: usize) -> Vec<Part> {
    let note = |number| (number as u32, note(number, version));
    let notes: Vec<_> = (0..FILES).map(note).collect();
    notes.chunks(NOTES_PER_PACK).map(pack).collect()
}

/// A replica whose batches have numbers.
struct Taker {
    replica: Arc<Replica>,
    number: Cell<u64>,
    _folder: Folder,
}

impl Taker {
    fn new() -> Self {
        let mut folder = Folder::new();
        let replica = folder.open();
        look(&replica);
        Self {
            replica,
            number: Cell::new(0),
            _folder: folder,
        }
    }

    fn batch(&self, ops: Vec<Op>) -> Batch {
        self.number.set(self.number.get() + 1);
        Batch {
            number: Gen(self.number.get()),
            ops,
            settles: None,
        }
    }

    /// Makes the directories `top/dNNNNN` of a batch of notes.
    fn make_dirs(&self, top: &str) {
        let dirs = (0..FILES).step_by(FILES_PER_DIR);
        let names = dirs.map(|number| format!("{top}/{}", dir_name(number)));
        let ops = [top.to_owned()].into_iter().chain(names);
        let batch = self.batch(ops.map(|name| op(&name, None, Entry::Dir)).collect());
        self.apply(&batch, Vec::new());
    }

    /// Returns a batch that makes one version of the notes below `top` out of another.
    fn notes(&self, top: &str, from: Option<usize>, to: usize) -> Batch {
        let of = |number| {
            let expect = from.map(|version| entry(&note(number, version)));
            let name = format!("{top}/{}", name(number));
            op(&name, expect, entry(&note(number, to)))
        };
        self.batch((0..FILES).map(of).collect())
    }

    fn apply(&self, batch: &Batch, parts: Vec<Part>) {
        let mut taking = self.replica.take(batch);
        for part in parts {
            assert_eq!(taking.part(part).expect("an honest part"), []);
        }
        let resolved = Gen(batch.number.0 - 1);
        self.replica
            .apply(batch, taking.finish(), resolved)
            .expect("the batch is recorded");
    }
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn create_1_000_files(bencher: Bencher<'_, '_>) {
    let taker = Taker::new();
    bencher
        .counter(ItemsCount::new(FILES))
        .with_inputs(|| {
            let top = format!("top-{}", taker.number.get());
            taker.make_dirs(&top);
            (taker.notes(&top, None, 0), packs(0))
        })
        .bench_local_values(|(batch, parts)| taker.apply(&batch, parts));
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn replace_1_000_files(bencher: Bencher<'_, '_>) {
    let taker = Taker::new();
    taker.make_dirs("top");
    taker.apply(&taker.notes("top", None, 0), packs(0));
    let version = Cell::new(0);
    bencher
        .counter(ItemsCount::new(FILES))
        .with_inputs(|| {
            let from = version.replace(version.get() + 1);
            (taker.notes("top", Some(from), from + 1), packs(from + 1))
        })
        .bench_local_values(|(batch, parts)| taker.apply(&batch, parts));
}

/// One saved note on its way: what the barriers cost when there is nothing to share them with.
#[divan::bench(sample_count = 50, sample_size = 1)]
fn create_1_file(bencher: Bencher<'_, '_>) {
    let taker = Taker::new();
    bencher
        .counter(ItemsCount::new(1_usize))
        .with_inputs(|| {
            let (number, content) = (taker.number.get() as usize, note(0, 0));
            let batch = taker.batch(vec![op(
                &format!("note-{number}.md"),
                None,
                entry(&content),
            )]);
            (batch, vec![pack(&[(0, content)])])
        })
        .bench_local_values(|(batch, parts)| taker.apply(&batch, parts));
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn limit_write_1_000_and_two_barriers(bencher: Bencher<'_, '_>) {
    let folder = Folder::new();
    let round = Cell::new(0);
    let notes: Vec<Vec<u8>> = (0..FILES).map(|number| note(number, 0)).collect();
    bencher
        .counter(ItemsCount::new(FILES))
        .with_inputs(|| {
            let top = folder
                .root()
                .join(round.replace(round.get() + 1).to_string());
            for number in (0..FILES).step_by(FILES_PER_DIR) {
                fs::create_dir_all(top.join(dir_name(number))).expect("a directory");
            }
            top
        })
        .bench_local_values(|top| {
            let staged = |number| top.join(format!("staged-{number}"));
            for (number, note) in notes.iter().enumerate() {
                fs::write(staged(number), note).expect("a file");
            }
            sync_volume(&top);
            for number in 0..FILES {
                fs::rename(staged(number), top.join(name(number))).expect("renamed");
            }
            sync_volume(&top);
        });
}
