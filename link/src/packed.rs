//! Packed messages: the length of the message (u32, little-endian), and the message as a zstd frame.
//!
//! Lists of paths shrink to a tenth. Each message is packed by itself, so nothing is kept between them; and
//! the length in front is checked before anything is allocated for what comes out.

use crate::error::LinkError;
use crate::stream::check_length;

/// Shorter messages are not packed: they fit into a datagram.
pub(crate) const PACK_BYTES_MIN: usize = 1024;

const HEADER_BYTES: usize = 4;
/// The level of zstd. Longer messages than [`LONG_BYTES`] would keep others waiting for milliseconds.
const LEVEL: i32 = 9;
const LONG_BYTES: usize = 256 * 1024;
const LONG_LEVEL: i32 = 3;

/// Packs a message; `None` when that makes it no shorter.
pub(crate) fn pack(message: &[u8]) -> Option<Vec<u8>> {
    let level = if message.len() > LONG_BYTES {
        LONG_LEVEL
    } else {
        LEVEL
    };
    let frame = zstd::bulk::compress(message, level).ok()?;
    let bytes = HEADER_BYTES + frame.len();
    (bytes < message.len()).then(|| {
        let mut packed = Vec::with_capacity(bytes);
        packed.extend_from_slice(&(message.len() as u32).to_le_bytes());
        packed.extend_from_slice(&frame);
        packed
    })
}

/// Unpacks a message of at most `limit` bytes.
///
/// # Errors
/// [`LinkError::MessageTooLong`], [`LinkError::NotUnpacked`].
pub(crate) fn unpack(packed: &[u8], limit: usize) -> Result<Vec<u8>, LinkError> {
    let (header, frame) = packed
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(LinkError::NotUnpacked)?;
    let bytes = check_length(u32::from_le_bytes(*header), limit)?;
    match zstd::bulk::decompress(frame, bytes) {
        Ok(message) if message.len() == bytes => Ok(message),
        _ => Err(LinkError::NotUnpacked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        let list: String = (0..1000)
            .map(|n| format!("area/topic/page-{n}.md\n"))
            .collect();
        let packed = pack(list.as_bytes()).expect("it is shorter");
        assert!(packed.len() * 5 < list.len(), "{}", packed.len());
        let unpacked = unpack(&packed, list.len()).expect("unpacked");
        assert_eq!(unpacked, list.as_bytes());
        let long = list.repeat(50);
        let packed = pack(long.as_bytes()).expect("it is shorter");
        assert_eq!(unpack(&packed, 1 << 30).expect("unpacked"), long.as_bytes());
    }

    #[test]
    fn what_does_not_shrink_is_not_packed() {
        let noise = zstd::bulk::compress(&pack(&[7; 5000]).expect("packed"), 3).expect("packed");
        assert_eq!(pack(&noise), None);
    }

    #[test]
    fn what_was_not_packed_so_is_refused() {
        let packed = pack(&[7; 5000]).expect("packed");
        let check = |packed: &[u8], limit: usize, too_long: bool| match unpack(packed, limit) {
            Err(LinkError::MessageTooLong { announced, .. }) if too_long => {
                assert!(announced > limit as u64);
            }
            Err(LinkError::NotUnpacked) if !too_long => {}
            other => panic!("{other:?}"),
        };
        check(&packed, 4999, true);
        check(&[0xff; 4], 1 << 20, true);
        check(&packed[..packed.len() - 1], 1 << 20, false);
        check(&packed[..3], 1 << 20, false);
        check(&[], 1 << 20, false);
        for claimed in [4999_u32, 5001, 0] {
            let mut lie = packed.clone();
            lie[..4].copy_from_slice(&claimed.to_le_bytes());
            check(&lie, 1 << 20, false);
        }
    }
}
