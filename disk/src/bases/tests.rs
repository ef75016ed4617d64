use std::fs;

use super::*;
use crate::tests::{Bench, noise};

fn note(number: u32) -> Vec<u8> {
    format!("note {number}\n").repeat(50).into_bytes()
}

#[test]
fn what_is_kept_is_found_again_also_after_a_restart() {
    let bench = Bench::new();
    let root = &bench.replica.root;
    let bases = Bases::default();
    let contents: Vec<Vec<u8>> = (0..5).map(note).collect();
    bases.keep_each(root, &contents).expect("kept");
    bases.keep_each(root, &[noise(300_000, 1)]).expect("kept");
    bases.keep(root, &[], b"").expect("nothing to keep");
    for bases in [bases, Bases::default()] {
        for content in contents.iter().cloned().chain([noise(300_000, 1)]) {
            let found = bases.get(root, content_of(&content));
            assert_eq!(found, Some(content));
        }
        assert_eq!(bases.get(root, content_of(b"other")), None);
    }
}

#[test]
fn contents_among_deltas_are_found() {
    let bench = Bench::new();
    let root = &bench.replica.root;
    let bases = Bases::default();
    let pack = [b"delta".as_slice(), b"whole", b"another delta"].concat();
    let packed = zstd::bulk::compress(&pack, 3).expect("packed");
    let content = content_of(b"whole");
    bases.keep(root, &[(content, 5, 5)], &packed).expect("kept");
    assert_eq!(bases.get(root, content), Some(b"whole".to_vec()));
}

#[test]
fn the_oldest_goes_when_the_store_is_full() {
    let bench = Bench::new();
    let root = &bench.replica.root;
    let bases = Bases::with_room(10 * 1024 * 1024);
    let contents: Vec<Vec<u8>> = (0..12).map(|seed| noise(2 * 1024 * 1024, seed)).collect();
    for content in &contents {
        bases
            .keep_each(root, std::slice::from_ref(content))
            .expect("kept");
    }
    let found = |content: &Vec<u8>| bases.get(root, content_of(content)).is_some();
    assert!(!found(&contents[0]) && found(&contents[11]));
    let on_disk: u64 = fs::read_dir(bench.root().join(".layer-sync/bases"))
        .expect("listed")
        .map(|entry| {
            entry
                .expect("an entry")
                .metadata()
                .expect("its length")
                .len()
        })
        .sum();
    assert!(on_disk <= 10 * 1024 * 1024, "{on_disk}");
}

#[test]
fn damage_is_a_content_less_and_no_more() {
    let bench = Bench::new();
    let root = &bench.replica.root;
    Bases::default().keep_each(root, &[note(1)]).expect("kept");
    Bases::default().keep_each(root, &[note(2)]).expect("kept");
    let file = bench.root().join(".layer-sync/bases").join(name_of(0));
    let whole = fs::read(&file).expect("read");
    for cut in 0..whole.len() {
        fs::write(&file, &whole[..cut]).expect("cut");
        let bases = Bases::default();
        for number in 1..=2 {
            let found = bases.get(root, content_of(&note(number)));
            assert!(found.is_none() || found == Some(note(number)), "{cut}");
        }
        bases.keep_each(root, &[note(3)]).expect("kept");
        assert_eq!(
            bases.get(root, content_of(&note(3))),
            Some(note(3)),
            "{cut}"
        );
        fs::remove_file(bench.root().join(".layer-sync/bases").join(name_of(1))).ok();
    }
    for place in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x55;
        fs::write(&file, damaged).expect("damaged");
        let bases = Bases::default();
        for number in 1..=2 {
            let found = bases.get(root, content_of(&note(number)));
            assert!(found.is_none() || found == Some(note(number)), "{place}");
        }
    }
}
