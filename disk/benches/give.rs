//! Content for the other side, in files per second.
//!
//! What is given has just been saved, as on a day of work, so a give reads it, checks its hash, makes it
//! durable and packs it. The limit is a program that makes the same fresh files durable with one
//! barrier and reads them. What counts for one edit is the time against the 0.5 s in which it has to be on
//! the other machine, and the bytes of its part against 300; that is checked here.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use disk::{Look, Replica};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use shared::transfer::{DeltaBase, Item, Part};
use shared::tree::Entry;
use shared::wire::Frame;

use crate::tree::{Folder, entry, look, name, note, path, sync_volume, write_notes};

const FILES: usize = 1000;
const NOTE_BYTES: usize = 5 * 1024;
/// What an edit to a note may cost on the wire.
const EDIT_BYTES_MAX: usize = 300;

/// Gives items, and returns the bytes of their frames.
fn give(replica: &Replica, items: &[Item]) -> usize {
    let mut bytes = 0;
    let given = replica.give(items, &mut |part| {
        assert!(matches!(part, Part::Pack { .. }), "a small file is packed");
        bytes += Frame::Part(part).encode().len();
        Ok(())
    });
    given.expect("it is given");
    bytes
}

fn items(version: usize) -> Vec<Item> {
    let item = |number| Item {
        index: number as u32,
        path: path(&name(number)),
        entry: entry(&note(number, version)),
        base: None,
    };
    (0..FILES).map(item).collect()
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn saved_1_000_files(bencher: Bencher<'_, '_>) {
    let mut folder = Folder::new();
    let root = folder.root();
    let (replica, version) = (folder.open(), Cell::new(0));
    bencher
        .counter(ItemsCount::new(FILES))
        .with_inputs(|| {
            version.set(version.get() + 1);
            write_notes(&root, FILES, version.get());
            look(&replica);
            items(version.get())
        })
        .bench_local_values(|items| give(&replica, &items));
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn limit_one_barrier_and_read(bencher: Bencher<'_, '_>) {
    let folder = Folder::new();
    let (root, version) = (folder.root(), Cell::new(0));
    bencher
        .counter(ItemsCount::new(FILES))
        .with_inputs(|| {
            version.set(version.get() + 1);
            write_notes(&root, FILES, version.get());
        })
        .bench_local_values(|()| {
            sync_volume(&root);
            for number in 0..FILES {
                black_box(fs::read(root.join(name(number))).expect("a file"));
            }
        });
}

/// Returns a note of 5 KB in which one line has been edited, of which no two lines are the same.
fn edited_note(version: usize) -> Vec<u8> {
    let mut text = String::new();
    let mut number = 0;
    while text.len() < NOTE_BYTES {
        number += 1;
        let word = if number == 30 { version } else { 0 };
        let hash = entry(number.to_string().as_bytes()).identity().short();
        text += &format!("{number}. {hash}: as it was in version {word}\n");
    }
    text.into_bytes()
}

fn save(root: &Path, replica: &Replica, content: &[u8]) {
    fs::write(root.join("note.md"), content).expect("a file");
    let hint = Look::Paths(vec![path("note.md")]);
    let looked = replica.look(&hint, &AtomicBool::new(false));
    assert!(looked.expect("a look").complete);
}

/// The base is at hand on both sides, as after any first travel.
#[divan::bench(sample_count = 50, sample_size = 1)]
fn one_edit_of_a_5_kb_note(bencher: Bencher<'_, '_>) {
    let mut folder = Folder::new();
    let root = folder.root();
    let (replica, version) = (folder.open(), Cell::new(0));
    save(&root, &replica, &edited_note(0));
    bencher
        .counter(ItemsCount::new(1_usize))
        .with_inputs(|| {
            let before = entry(&edited_note(version.get()));
            replica
                .keep_base(&path("note.md"), &before)
                .expect("it is kept");
            version.set(version.get() + 1);
            let after = edited_note(version.get());
            save(&root, &replica, &after);
            let Entry::File { content, len, .. } = before else {
                unreachable!("a note is a file");
            };
            let base = Some(DeltaBase { content, len });
            Item {
                index: 0,
                path: path("note.md"),
                entry: entry(&after),
                base,
            }
        })
        .bench_local_values(|item| {
            let bytes = give(&replica, &[item]);
            assert!(bytes <= EDIT_BYTES_MAX, "an edit costs {bytes} bytes");
        });
}
