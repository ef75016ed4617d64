//! Content from the other machine as calls: two batches with the same contents, in any order.
//!
//! Bytes are acts of four: which batch and which call, which file, and two details. So every input means
//! something, and a mutation changes one call.

use std::cell::RefCell;

use disk::Taking;
use shared::chunk::{Chunker, Manifest};
use shared::delta::Form;
use shared::transfer::{Batch, ChunkRun, Outcome, PackedFile, Part};

use crate::parts::{Bench, contents};

const ACTS_MAX: usize = 64;
/// The file that travels in chunks.
const LONG: usize = 3;

/// Takes two batches by any calls: what is in the tree afterwards is whole, and has the hash that was
/// asked for; an operation that is not done left nothing.
pub fn calls(data: &[u8]) {
    BENCH.with_borrow_mut(|bench| play(bench.get_or_insert_with(Bench::new), data));
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

struct Turn {
    batch: Batch,
    /// `None` when it has been applied.
    taking: Option<Taking>,
}

fn play(bench: &mut Bench, data: &[u8]) {
    let mut turns = [bench.next_batch(), bench.next_batch()].map(|batch| Turn {
        taking: Some(bench.replica.take(&batch)),
        batch,
    });
    for act in data.chunks_exact(4).take(ACTS_MAX) {
        let &[what, file, from, to] = act else {
            continue;
        };
        let turn = &mut turns[usize::from(what & 1)];
        match what >> 1 & 7 {
            // The link was lost: what was staged is dropped, and asked for again.
            0 if turn.taking.is_some() => turn.taking = Some(bench.replica.take(&turn.batch)),
            0 => {}
            1 => finish(bench, turn),
            call => {
                if let Some(taking) = &mut turn.taking {
                    one_call(taking, call, usize::from(file), from, to);
                }
            }
        }
    }
    for turn in &mut turns {
        finish(bench, turn);
    }
    bench.clear(&turns.map(|turn| turn.batch));
}

fn finish(bench: &Bench, turn: &mut Turn) {
    if let Some(taking) = turn.taking.take() {
        let outcomes: Vec<Outcome> = bench.apply(&turn.batch, taking);
        bench.check(&turn.batch, &outcomes);
    }
}

/// Makes one call. What is refused ends a connection; here the next one is tried as well.
fn one_call(taking: &mut Taking, call: u8, file: usize, from: u8, to: u8) {
    let contents = contents();
    let (from, to) = (usize::from(from), usize::from(to));
    let index = file as u32;
    let (content, _) = &contents[file % contents.len()];
    match call {
        2 => drop(taking.part(pack(index, content.clone(), false))),
        // Another content of the same length, one that is cut off, bytes that are no zstd.
        3 => {
            let mut bytes = content.clone();
            bytes.truncate(if to & 1 == 0 { bytes.len() } else { from });
            if let Some(byte) = bytes.get_mut(from) {
                *byte ^= 1 << (to & 7);
            }
            drop(taking.part(pack(index, bytes, to & 2 != 0)));
        }
        4 => {
            let Manifest { mut chunks } = manifest(&contents[LONG].0);
            let end = to.clamp(0, chunks.len());
            let more = from & 0x80 != 0;
            chunks.truncate(end);
            chunks.drain(..(from & 0x7f).min(end));
            drop(taking.part(Part::Manifest {
                index,
                mtime_ns: 0,
                manifest: Manifest { chunks },
                more,
            }));
        }
        5 | 6 => {
            let manifest = manifest(&contents[LONG].0);
            let places: Vec<_> = manifest.with_offsets().collect();
            let (first, count) = (from % places.len(), 1 + to % places.len());
            let run = &places[first..(first + count).min(places.len())];
            let start = run[0].0 as usize;
            let len: usize = run.iter().map(|(_, chunk)| chunk.len as usize).sum();
            let mut bytes = contents[LONG].0[start..start + len].to_vec();
            if call == 6 {
                bytes[to] ^= 1;
            }
            // It may say that it is another run than it is.
            drop(taking.chunks(
                index,
                ChunkRun {
                    first: first as u32,
                    count: if from & 0x80 == 0 {
                        run.len() as u32
                    } else {
                        to as u32
                    },
                    copies: Vec::new(),
                    zstd: false,
                    bytes,
                },
            ));
        }
        _ => taking.gone(index),
    }
}

fn pack(index: u32, bytes: Vec<u8>, zstd: bool) -> Part {
    let len = bytes.len() as u32;
    Part::Pack {
        files: vec![PackedFile {
            index,
            len,
            mtime_ns: 0,
            form: Form::Whole,
        }],
        zstd,
        bytes,
    }
}

fn manifest(content: &[u8]) -> Manifest {
    let mut chunker = Chunker::default();
    chunker.push(content);
    chunker.finish()
}
