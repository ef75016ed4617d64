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

/// Content that begins as a database with pages of this length, as the header writes it.
fn database(len: usize, page: u16) -> Vec<u8> {
    let mut content = noise(len, 3);
    content[..16].copy_from_slice(b"SQLite format 3\0");
    content[16..18].copy_from_slice(&page.to_be_bytes());
    content[18..24].copy_from_slice(&[2, 2, 0, 64, 32, 32]);
    content
}

#[test]
fn a_database_is_cut_at_multiples_of_its_page() {
    let check = |page, len: usize, expected: &[u32]| {
        let content = database(len, page);
        for piece in [1, 99, 4096, 1 << 20] {
            let lens: Vec<u32> = cut(&content, piece).chunks.iter().map(|c| c.len).collect();
            assert_eq!(lens, expected, "pages of {page}, read by {piece}");
        }
    };
    check(512, 40_960, &[16_384, 16_384, 8192]);
    check(4096, 65_536, &[16_384; 4]);
    check(16_384, 81_920, &[16_384; 5]);
    check(32_768, 163_840, &[65_536, 65_536, 32_768]);
    // 65,536 does not fit into the two bytes of the header; 1 stands for it.
    check(1, 131_072, &[65_536, 65_536]);
}

#[test]
fn the_hash_of_a_database_is_golden() {
    let manifest = cut(&database(200_000, 4096), 1 << 20);
    assert_eq!(manifest.content().to_string(), GOLDEN_DATABASE);
}

const GOLDEN_DATABASE: &str = "319d34f1997f33aa93230feff2369e2bdc6562db5c331c9516581dc3909d6448";

#[test]
fn a_changed_page_changes_one_chunk() {
    let old = database(4 << 20, 4096);
    let mut new = old.clone();
    new[100 * 4096..101 * 4096].copy_from_slice(&noise(4096, 9));
    let pairs = |content: &[u8]| cut(content, 1 << 20).chunks;
    let changed = pairs(&old)
        .iter()
        .zip(pairs(&new))
        .filter(|(a, b)| **a != *b)
        .count();
    assert_eq!(changed, 1);
}

#[test]
fn only_a_whole_header_makes_a_database() {
    let good = database(100, 4096);
    let header = DatabaseHeader::parse(&good).expect("a database");
    assert_eq!((header.page_bytes, header.has_wal), (4096, true));
    assert_eq!(DatabaseHeader::parse(&good[..99]), None, "too short");
    let check = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        assert_eq!(DatabaseHeader::parse(&bytes), None, "byte {at} is {byte}");
    };
    check(0, b's');
    check(15, b' ');
    check(16, 0x11);
    check(16, 0);
    check(21, 63);
    check(23, 0);
}

#[test]
fn a_list_of_chunks_is_cut_in_one_way() {
    let check = |is_begun: bool, lens: &[u32], expected: bool| {
        let hash = ContentHash::of_bytes(b"");
        let chunks: Vec<Chunk> = lens.iter().map(|len| Chunk { hash, len: *len }).collect();
        assert_eq!(
            Manifest::is_plausible(&chunks, is_begun),
            expected,
            "{is_begun} {lens:?}"
        );
    };
    let (short, long, min, max) = (16_384, 65_536, 32_768, 98_304);
    for is_begun in [true, false] {
        check(is_begun, &[], false);
        check(is_begun, &[min, max, long, min + 1], true);
        check(is_begun, &[short, short, short], true);
        check(is_begun, &[long, long], true);
        check(is_begun, &[short, min, short], false);
        check(is_begun, &[min, short, min], false);
        check(is_begun, &[short, 4096, short], false);
        check(is_begun, &[short, short + 1], false);
        check(is_begun, &[min, max + 1], false);
        check(is_begun, &[min, 0], false);
        check(is_begun, &[short, short, 512], !is_begun);
        check(is_begun, &[min, 1], !is_begun);
    }
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
