//! Looks at the whole tree, in files per second.
//!
//! A tree in which nothing changed costs one `stat` for each file: the limit is a walk that does this and
//! nothing else. The first look reads and hashes all of it and writes the index: the limit is a walk that
//! reads and hashes each file. Both limits run on one thread and a look on two, so a look may be faster.

use std::fs::{self, DirEntry};
use std::path::Path;
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

use crate::tree::{Folder, look, write_notes};

const FILES: usize = 100_000;
const FIRST_FILES: usize = 10_000;
/// What was written within two seconds before a look is read again at the next one.
const RACY: Duration = Duration::from_millis(2100);

/// Calls `visit` with all files below a folder, and returns how many there are.
fn walk(folder: &Path, visit: &mut dyn FnMut(&DirEntry)) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("its kind").is_dir() {
            files += walk(&entry.path(), visit);
        } else {
            visit(&entry);
            files += 1;
        }
    }
    files
}

/// Makes a folder with so many notes, none of which was written just now.
fn written(files: usize) -> Folder {
    let folder = Folder::new();
    write_notes(&folder.root(), files, 0);
    std::thread::sleep(RACY);
    folder
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn unchanged_100_000_files(bencher: Bencher<'_, '_>) {
    let mut folder = written(FILES);
    let replica = folder.open();
    look(&replica);
    bencher.counter(ItemsCount::new(FILES)).bench_local(|| {
        let looked = look(&replica);
        assert_eq!((looked.files, looked.bytes_hashed), (FILES as u64, 0));
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn limit_unchanged_walk_and_stat(bencher: Bencher<'_, '_>) {
    let folder = written(FILES);
    bencher.counter(ItemsCount::new(FILES)).bench_local(|| {
        let files = walk(&folder.root(), &mut |file| {
            black_box(file.metadata().expect("a file"));
        });
        assert_eq!(files, FILES);
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn first_10_000_files(bencher: Bencher<'_, '_>) {
    let mut folder = written(FIRST_FILES);
    bencher
        .counter(ItemsCount::new(FIRST_FILES))
        .with_inputs(|| folder.open())
        .bench_local_values(|replica| {
            let looked = look(&replica);
            assert_eq!(looked.files, FIRST_FILES as u64);
            // It is closed outside of the time.
            replica
        });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn limit_first_read_and_hash(bencher: Bencher<'_, '_>) {
    let folder = written(FIRST_FILES);
    bencher
        .counter(ItemsCount::new(FIRST_FILES))
        .bench_local(|| {
            walk(&folder.root(), &mut |file| {
                black_box(blake3::hash(&fs::read(file.path()).expect("a file")));
            })
        });
}
