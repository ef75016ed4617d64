//! Bytes from the other machine, as a frame.

use shared::wire::{FRAME_BYTES_MAX, Frame, FrameRefused, OPTIONAL_FROM};

/// Decodes a frame: what decodes is the same after another trip, and is not longer then; what does
/// not is refused with one sentence.
pub fn frame(data: &[u8]) {
    match Frame::decode(data) {
        Ok(Frame::Unknown(kind)) => {
            assert!(kind >= OPTIONAL_FROM);
            assert_eq!(data[0], kind);
        }
        Ok(frame) => {
            let again = frame.encode();
            assert_eq!(again[0], data[0], "{} became another kind", frame.name());
            assert!(again.len() <= data.len(), "{} grew", frame.name());
            assert_eq!(Frame::decode(&again).as_ref(), Ok(&frame));
            assert_eq!(frame.encode(), again, "the same frame has the same bytes");
        }
        Err(refused) => {
            match refused {
                FrameRefused::Empty => assert!(data.is_empty()),
                FrameRefused::TooLong(len) => assert!(len == data.len() && len > FRAME_BYTES_MAX),
                FrameRefused::UnknownKind(kind) => assert!(kind == data[0] && kind < OPTIONAL_FROM),
                FrameRefused::Malformed(..) => assert!(data[0] < OPTIONAL_FROM),
            }
            assert!(refused.to_string().starts_with("the other machine sent "));
        }
    }
}
