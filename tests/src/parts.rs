//! Content from the other machine, on its way to the disk.
//!
//! Bytes are frames, each with its length in front (two bytes, the lower one first): parts of a batch
//! that asks for four files, and runs of chunks.

use std::cell::RefCell;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use disk::{KeptLimits, Places, Replica, Report, Taking};
use shared::chunk::Chunker;
use shared::hash::{ContentHash, PLAIN_BYTES_MAX};
use shared::ignore::Rules;
use shared::path::RelPath;
use shared::transfer::{Batch, Item, Op, Outcome, Source};
use shared::tree::{Entry, Gen};
use shared::wire::Frame;

const LONG_BYTES: usize = 200_000;
const FRAMES_MAX: usize = 64;

/// Stages and applies a batch with these parts: what is in the tree afterwards is whole, and has the
/// hash that was asked for; an operation that is not done left nothing.
pub fn parts(data: &[u8]) {
    outcomes_of_parts(data);
}

/// Does the same, and returns what became of the operations.
pub fn outcomes_of_parts(data: &[u8]) -> Vec<Outcome> {
    BENCH.with_borrow_mut(|bench| bench.get_or_insert_with(Bench::new).play(data))
}

/// Returns what an honest giver sends for that batch.
pub fn honest_parts() -> Vec<u8> {
    let bench = Bench::new();
    let batch = bench.batch();
    let mut items = Vec::new();
    for (index, op) in (0..).zip(&batch.ops) {
        let Some((path, entry)) = op.wants() else {
            continue;
        };
        fs::write(bench.at(path), &contents()[index as usize].0).expect("a file");
        // The exec bit is one of the things that a giver compares.
        let mode = if matches!(entry, Entry::File { exec: true, .. }) {
            0o755
        } else {
            0o644
        };
        fs::set_permissions(
            bench.at(path),
            std::os::unix::fs::PermissionsExt::from_mode(mode),
        )
        .expect("its mode");
        items.push(Item {
            index,
            path: path.clone(),
            entry: entry.clone(),
            base: None,
        });
    }
    let mut frames = Vec::new();
    let mut take = |frame: Frame| {
        let frame = frame.encode();
        frames.extend((frame.len() as u16).to_le_bytes());
        frames.extend(frame);
    };
    let given = bench.replica.give(&items, &mut |part| {
        take(Frame::Part(part));
        Ok(())
    });
    given.expect("it is given");
    for item in items
        .iter()
        .filter(|item| item.entry.len() > PLAIN_BYTES_MAX)
    {
        take(Frame::Chunks(batch.number, item.index));
        let (_, manifest) = &contents()[item.index as usize];
        let all = [(0, *manifest)];
        let given = bench.replica.give_chunks(item, &all, &[], &mut |run| {
            take(Frame::ChunkRun(run.expect("the file is there")));
            Ok(())
        });
        given.expect("they are given");
    }
    frames
}

/// Returns the contents of the batch's files, each with its number of chunks.
pub(crate) fn contents() -> [(Vec<u8>, u32); 4] {
    let long: Vec<u8> = (0..LONG_BYTES).map(|at| (at / 1000 % 251) as u8).collect();
    let mut chunker = Chunker::default();
    chunker.push(&long);
    let chunks = chunker.finish().chunks.len() as u32;
    [
        (b"hello, layer-sync\n".to_vec(), 0),
        (Vec::new(), 0),
        (b"#!/bin/sh\n".to_vec(), 0),
        (long, chunks),
    ]
}

fn entry(bytes: &[u8], exec: bool) -> Entry {
    let len = bytes.len() as u64;
    let content = if len <= PLAIN_BYTES_MAX {
        ContentHash::of_bytes(bytes)
    } else {
        let mut chunker = Chunker::default();
        chunker.push(bytes);
        chunker.finish().content()
    };
    Entry::File { content, len, exec }
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

/// A replica in a temporary folder.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    pub(crate) replica: Arc<Replica>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    round: u64,
}

impl Bench {
    pub(crate) fn new() -> Self {
        // In memory where that can be had: nothing here is about durability.
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("a folder");
        let places = Places {
            root: dir.path().join("root"),
            state: dir.path().join("state"),
        };
        fs::create_dir(&places.root).expect("the root");
        let outcomes: Arc<Mutex<Vec<Outcome>>> = Arc::default();
        let told = outcomes.clone();
        let sink = Box::new(move |report| {
            if let Report::Applied { outcomes, .. } = report {
                *told.lock().expect("no holder panics") = outcomes;
            }
        });
        let opened = Replica::open(
            &places,
            None,
            Rules::default(),
            "here",
            KeptLimits::default(),
            sink,
        );
        let (replica, _) = opened.expect("it opens");
        Self {
            dir,
            replica: Arc::new(replica),
            outcomes,
            round: 0,
        }
    }

    fn at(&self, path: &RelPath) -> PathBuf {
        self.dir.path().join("root").join(path.as_str())
    }

    fn batch(&self) -> Batch {
        let name = |what: &str| RelPath::parse(&format!("{what}-{}", self.round)).expect("a path");
        let op = |what: &str, make: Entry, from: Source| Op {
            path: name(what),
            expect: None,
            make: Some(make),
            from,
            agrees: true,
        };
        let [(note, _), (empty, _), (script, _), (long, _)] = contents();
        let there = |what: &str| Source::There(name(what));
        Batch {
            number: Gen(self.round + 1),
            settles: None,
            ops: vec![
                op("note", entry(&note, false), there("note")),
                op("empty", entry(&empty, false), there("empty")),
                op("script", entry(&script, true), there("script")),
                op("long", entry(&long, false), there("long")),
                op("folder", Entry::Dir, Source::Nothing),
                op(
                    "link",
                    Entry::Symlink {
                        target: "note".into(),
                    },
                    Source::Nothing,
                ),
            ],
        }
    }

    fn play(&mut self, data: &[u8]) -> Vec<Outcome> {
        let batch = self.next_batch();
        let mut taking = self.replica.take(&batch);
        feed(&mut taking, data);
        let outcomes = self.apply(&batch, taking);
        self.check(&batch, &outcomes);
        self.clear(&[batch]);
        outcomes
    }

    /// Makes a batch of the same operations under other names.
    pub(crate) fn next_batch(&mut self) -> Batch {
        self.round += 1;
        self.batch()
    }

    /// Ends a taking, applies the batch, and returns what became of it.
    pub(crate) fn apply(&self, batch: &Batch, taking: Taking) -> Vec<Outcome> {
        let staged = taking.finish();
        self.replica
            .apply(batch, staged, Gen(0))
            .expect("the batch is recorded");
        std::mem::take(&mut *self.outcomes.lock().expect("no holder panics"))
    }

    /// Checks that what is in the tree is whole, and that what is not done left nothing.
    pub(crate) fn check(&self, batch: &Batch, outcomes: &[Outcome]) {
        assert_eq!(outcomes.len(), batch.ops.len());
        for ((op, outcome), (content, _)) in batch.ops.iter().zip(outcomes).zip(contents()) {
            match fs::read(self.at(&op.path)) {
                Ok(found) => {
                    assert_eq!(outcome, &Outcome::Done, "{} is there", op.path);
                    assert!(found == content, "{} has another content", op.path);
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NotFound);
                    assert_eq!(outcome, &Outcome::Gone, "{} is not there", op.path);
                }
            }
        }
        assert_eq!(
            outcomes[4..],
            [Outcome::Done, Outcome::Done],
            "these need nothing from the other side"
        );
    }

    /// Takes everything away that the next round could find.
    pub(crate) fn clear(&self, batches: &[Batch]) {
        for op in batches.iter().flat_map(|batch| &batch.ops) {
            let at = self.at(&op.path);
            fs::remove_file(&at).or_else(|_| fs::remove_dir(&at)).ok();
        }
        let stage = self.dir.path().join("root/.layer-sync/stage");
        for left in fs::read_dir(stage).expect("the stage").flatten() {
            let name = left.file_name().to_string_lossy().into_owned();
            assert!(name.ends_with(".part"), "{name} was left in the stage");
            fs::remove_file(left.path()).expect("it goes");
        }
    }
}

fn feed(taking: &mut Taking, data: &[u8]) {
    let (mut rest, mut index) = (data, 0);
    for _ in 0..FRAMES_MAX {
        let Some((len, later)) = rest.split_first_chunk() else {
            return;
        };
        let (frame, later) = later.split_at(later.len().min(u16::from_le_bytes(*len).into()));
        rest = later;
        // A part that no honest giver sends ends a connection; here the next one is tried as well.
        match Frame::decode(frame) {
            Ok(Frame::Part(part)) => drop(taking.part(part)),
            Ok(Frame::Chunks(_, of)) => index = of,
            Ok(Frame::ChunkRun(run)) => drop(taking.chunks(index, run)),
            Ok(Frame::ChunksGone) => taking.gone(index),
            _ => {}
        }
    }
}
