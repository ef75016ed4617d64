//! Deltas: content as zstd with what it replaces as prefix.
//!
//! An edit of a note costs tens of bytes this way. Who decodes checks the hash of what comes out; bytes
//! from a network can make it fail, and never make it larger than was asked for.

use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound};

/// Slow enough to find the shortest way; contents are short.
const LEVEL: i32 = 9;
/// From this length of both together on, speed counts.
const LONG_BYTES: usize = 256 * 1024;
const LONG_LEVEL: i32 = 6;
/// What every frame begins with. It does not travel.
const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// Returns what makes `content` of `base`, unless that is nearly as long as the content.
pub(crate) fn encode(base: &[u8], content: &[u8]) -> Option<Vec<u8>> {
    let both = base.len() + content.len();
    let level = if both > LONG_BYTES { LONG_LEVEL } else { LEVEL };
    let window = both.next_power_of_two().trailing_zeros().max(10);
    let mut context = CCtx::create();
    context
        .set_parameter(CParameter::CompressionLevel(level))
        .ok()?;
    context.set_parameter(CParameter::WindowLog(window)).ok()?;
    context.ref_prefix(base).ok()?;
    let mut frame = Vec::with_capacity(compress_bound(content.len()));
    context.compress2(&mut frame, content).ok()?;
    let patch = frame.strip_prefix(&MAGIC)?;
    (patch.len() < content.len() / 4 * 3).then(|| patch.to_vec())
}

/// Returns the content of just `len` bytes that a patch makes of `base`; `None` when it does not.
pub(crate) fn decode(base: &[u8], patch: &[u8], len: usize) -> Option<Vec<u8>> {
    let frame = [&MAGIC, patch].concat();
    let mut context = DCtx::create();
    context.ref_prefix(base).ok()?;
    let mut content = Vec::with_capacity(len);
    context.decompress(&mut content, &frame).ok()?;
    (content.len() == len).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::noise;

    #[test]
    fn an_edit_of_a_note_is_tens_of_bytes() {
        let base = noise(5000, 1);
        let mut content = base.clone();
        content[2500] ^= 1;
        let patch = encode(&base, &content).expect("shorter");
        assert!(patch.len() <= 30, "{}", patch.len());
        assert_eq!(decode(&base, &patch, content.len()), Some(content));
    }

    #[test]
    fn moved_blocks_and_long_contents() {
        let base = noise(900_000, 2);
        let content = [&base[400_000..], b"between".as_slice(), &base[..400_000]].concat();
        let patch = encode(&base, &content).expect("shorter");
        assert!(patch.len() < 1000, "{}", patch.len());
        assert_eq!(decode(&base, &patch, content.len()), Some(content));
    }

    #[test]
    fn what_shares_nothing_is_no_delta() {
        assert_eq!(encode(&noise(5000, 3), &noise(5000, 4)), None);
        assert_eq!(encode(b"x", b""), None);
    }

    #[test]
    fn a_wrong_base_length_or_patch_never_gives_more_than_was_asked_for() {
        let base = noise(5000, 1);
        let content = [base.as_slice(), b"!"].concat();
        let patch = encode(&base, &content).expect("shorter");
        assert_eq!(decode(&base, &patch, content.len() - 1), None);
        assert_eq!(decode(&base, &patch, content.len() + 1), None);
        assert_ne!(
            decode(&noise(5000, 9), &patch, content.len()),
            Some(content)
        );
        for cut in 0..patch.len() {
            assert_eq!(decode(&base, &patch[..cut], 5001), None, "{cut}");
        }
    }
}
