use proptest::prelude::*;

use super::*;

/// Bytes that look random and are the same everywhere: BLAKE3 as a stream.
fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&[seed])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

fn cut(content: &[u8], piece: usize) -> Manifest {
    let mut chunker = Chunker::default();
    content
        .chunks(piece.max(1))
        .for_each(|piece| chunker.push(piece));
    chunker.finish()
}

#[test]
fn the_cut_points_are_golden() {
    let lens: Vec<u32> = cut(&noise(700_000, 1), 1 << 20)
        .chunks
        .iter()
        .map(|c| c.len)
        .collect();
    assert_eq!(lens, GOLDEN_NOISE);
    let text: Vec<u8> = (0..20_000)
        .flat_map(|n: u32| format!("line {n} of a log\n").into_bytes())
        .collect();
    let lens: Vec<u32> = cut(&text, 1 << 20).chunks.iter().map(|c| c.len).collect();
    assert_eq!(lens, GOLDEN_TEXT);
}

const GOLDEN_NOISE: &[u32] = &[
    80057, 63290, 84196, 42575, 91133, 73462, 69624, 36326, 95898, 63231, 208,
];
const GOLDEN_TEXT: &[u32] = &[79364, 57266, 32835, 93855, 39420, 32903, 32800, 20447];

#[test]
fn a_byte_in_the_middle_changes_few_chunks() {
    let old = noise(4 << 20, 2);
    let mut new = old.clone();
    new[2 << 20] ^= 1;
    let known: std::collections::BTreeSet<_> =
        cut(&old, 1 << 20).chunks.iter().map(|c| c.hash).collect();
    let fresh = cut(&new, 1 << 20)
        .chunks
        .iter()
        .filter(|c| !known.contains(&c.hash))
        .count();
    assert!((1..=3).contains(&fresh), "{fresh} chunks are new");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn cuts_do_not_depend_on_how_it_was_read(len in 0usize..600_000, seed in any::<u8>(), piece in 1usize..200_000) {
        let content = noise(len, seed);
        let manifest = cut(&content, piece);
        prop_assert_eq!(&manifest, &cut(&content, usize::MAX));
        prop_assert_eq!(manifest.len(), len as u64);
        let count = manifest.chunks.len();
        for (index, (start, chunk)) in manifest.with_offsets().enumerate() {
            let bytes = &content[start as usize..start as usize + chunk.len as usize];
            prop_assert_eq!(ContentHash::of_bytes(bytes), chunk.hash);
            prop_assert!(chunk.len as usize <= CHUNK_BYTES_MAX);
            prop_assert!(chunk.len as usize >= CHUNK_BYTES_MIN || index + 1 == count);
        }
    }
}
