//! Somebody reads all the time what is replaced all the time.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::harness::{Pair, SOON, wait_until};

const REPLACEMENTS: u64 = 1000;
/// How far the writer may be ahead of the reader.
const AHEAD: u64 = 4;

/// A content that tells its number and its length everywhere: a short or a mixed one shows.
fn content(number: u64) -> String {
    let records = 1 + number * 7919 % 2500;
    format!("{number:08} of {records:06}\n").repeat(records as usize)
}

/// Reads a content and returns its number.
fn check(file: &Path) -> u64 {
    let found = fs::read_to_string(file).expect("the file is there at every moment");
    let number = found.get(..8).and_then(|digits| digits.parse().ok());
    let number =
        number.unwrap_or_else(|| panic!("{} bytes that begin {:?}", found.len(), found.get(..40)));
    assert!(
        found == content(number),
        "number {number} is not whole: {} bytes",
        found.len()
    );
    number
}

#[test]
fn a_reader_sees_whole_files_only() {
    let pair = Pair::running();
    let [source, replica] = pair.roots();
    let fresh = pair.scratch().join("fresh");
    let replace = |number| {
        fs::write(&fresh, content(number)).unwrap();
        fs::rename(&fresh, source.join("watched")).unwrap();
    };
    replace(0);
    pair.flush();
    let file = replica.join("watched");
    let (seen, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0_u64;
            let mut steps = 0_u64;
            while !done.load(Ordering::Relaxed) {
                let number = check(&file);
                let before = seen.swap(number, Ordering::Relaxed);
                assert!(before <= number, "after {before} came {number}");
                steps += u64::from(before < number);
                reads += 1;
            }
            (reads, steps)
        });
        let written = (1..=REPLACEMENTS).try_for_each(|number| {
            replace(number);
            let end = Instant::now() + SOON;
            while seen.load(Ordering::Relaxed) + AHEAD < number {
                if reader.is_finished() || Instant::now() > end {
                    return Err(number);
                }
                thread::sleep(std::time::Duration::from_millis(1));
            }
            Ok(())
        });
        if written.is_ok() {
            wait_until("the last one arrives", SOON, || {
                reader.is_finished() || seen.load(Ordering::Relaxed) == REPLACEMENTS
            });
        }
        done.store(true, Ordering::Relaxed);
        let (reads, steps) = reader.join().unwrap();
        assert_eq!(written, Ok(()), "it did not arrive");
        println!(
            "{REPLACEMENTS} replacements, {steps} of them seen in {reads} reads, in {:?}",
            begun.elapsed()
        );
    });
    pair.flush();
}
