//! Frames, in bytes per second of what stands on the wire; in rows per second where a frame has rows.
//!
//! The limit is a copy of the same bytes. A part should come near it. A list of rows cannot: each row has
//! texts that are allocated and a path that is checked. A link of 1 Gbit/s carries 125 MB/s, so whatever
//! is above that does not slow the sync down.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use shared::delta::Form;
use shared::hash::ContentHash;
use shared::path::RelPath;
use shared::transfer::{BATCH_OPS_MAX, Batch, Op, PackedFile, Part, Source};
use shared::tree::{Entry, Gen, Sight};
use shared::wire::{Frame, ROWS_MAX};

const PART_BYTES: usize = 1024 * 1024;
const FRAMES: [&str; 3] = ["batch_of_4_000", "page_of_2_000_seen", "part_of_1_mib"];

fn path(number: usize) -> RelPath {
    let name = format!("knowledge/{:05}/note-{number:06}.md", number / 40);
    RelPath::parse(&name).expect("a path")
}

fn entry(text: &str) -> Entry {
    Entry::File {
        content: ContentHash::of_bytes(text.as_bytes()),
        len: text.len() as u64,
        exec: false,
    }
}

/// An edit of a file that both had.
fn edit(number: usize) -> Op {
    let path = path(number);
    Op {
        expect: Some(entry(&format!("before {number}"))),
        make: Some(entry(&format!("after {number}"))),
        from: Source::There(path.clone()),
        agrees: true,
        path,
    }
}

/// Returns a frame, and how many rows it has.
fn frame(name: &str) -> (Frame, usize) {
    match name {
        "batch_of_4_000" => {
            let batch = Batch {
                number: Gen(7),
                ops: (0..BATCH_OPS_MAX).map(edit).collect(),
                settles: None,
            };
            (Frame::Batch(batch.into(), Some(1)), BATCH_OPS_MAX)
        }
        "page_of_2_000_seen" => {
            let row = |number| (path(number), Sight::Is(entry(&number.to_string())));
            (Frame::Seen((0..ROWS_MAX).map(row).collect()), ROWS_MAX)
        }
        _ => {
            let file = PackedFile {
                index: 0,
                len: PART_BYTES as u32,
                mtime_ns: 1_795_382_045_000_000_000,
                form: Form::Whole,
            };
            let part = Part::Pack {
                files: vec![file],
                zstd: false,
                bytes: vec![7; PART_BYTES],
            };
            (Frame::Part(part), 1)
        }
    }
}

#[divan::bench(args = FRAMES)]
fn encode(bencher: Bencher<'_, '_>, name: &str) {
    let (frame, rows) = frame(name);
    let bytes = frame.encode();
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .counter(ItemsCount::new(rows))
        .bench_local(|| black_box(&frame).encode());
}

#[divan::bench(args = FRAMES)]
fn decode(bencher: Bencher<'_, '_>, name: &str) {
    let (frame, rows) = frame(name);
    let bytes = frame.encode();
    assert_eq!(Frame::decode(&bytes), Ok(frame));
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .counter(ItemsCount::new(rows))
        .bench_local(|| Frame::decode(black_box(&bytes)));
}

#[divan::bench(args = FRAMES)]
fn limit_copy(bencher: Bencher<'_, '_>, name: &str) {
    let bytes = frame(name).0.encode();
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .bench_local(|| black_box(&bytes).clone());
}
