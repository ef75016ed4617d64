//! Segments of the base store: files of records, each a list of contents and the zstd frame that has them.
//!
//! A record is: its mark, the length of the frame, the number of contents, for each of them its hash, offset
//! and length in what the frame unpacks to, then the frame. Numbers are 32 bits, the lowest byte first.
//! What does not fit together is the end of the segment.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, openat};
use shared::hash::ContentHash;
use shared::merge::MERGE_BYTES_MAX;

const MARK: [u8; 4] = *b"LSb1";
const HEAD_BYTES: usize = 12;
const ROW_BYTES: usize = 40;
/// Most contents in a record: those of one part that travelled.
const ROWS_MAX: u32 = 4096;
/// Longest frame: that of the longest content that is merged.
const FRAME_BYTES_MAX: u32 = MERGE_BYTES_MAX as u32 + 64 * 1024;
const ENDING: &str = ".segment";

/// The contents of a record: hash, offset and length.
pub(super) struct Record {
    pub(super) list: Vec<(ContentHash, u32, u32)>,
}

impl Record {
    /// Returns the bytes of this record with its frame.
    pub(super) fn with(&self, frame: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.list.len() * ROW_BYTES + frame.len());
        bytes.extend_from_slice(&MARK);
        bytes.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.list.len() as u32).to_le_bytes());
        for (content, at, len) in &self.list {
            bytes.extend_from_slice(content.as_bytes());
            bytes.extend_from_slice(&at.to_le_bytes());
            bytes.extend_from_slice(&len.to_le_bytes());
        }
        bytes.extend_from_slice(frame);
        bytes
    }
}

/// Returns the name of a segment.
pub(super) fn name_of(number: u32) -> String {
    format!("{number:08x}{ENDING}")
}

/// Returns the number of the segment with this name.
pub(super) fn number_of(name: &[u8]) -> Option<u32> {
    let name = std::str::from_utf8(name).ok()?;
    u32::from_str_radix(name.strip_suffix(ENDING)?, 16).ok()
}

/// Reads the list of the record at an offset, and returns where the next one begins.
pub(super) fn head(file: &File, at: u32) -> Option<(Record, u32)> {
    let mut head = [0; HEAD_BYTES];
    file.read_exact_at(&mut head, u64::from(at)).ok()?;
    let (frame, rows) = (number(&head[4..8]), number(&head[8..12]));
    if head[..4] != MARK || rows > ROWS_MAX || frame > FRAME_BYTES_MAX {
        return None;
    }
    let mut bytes = vec![0; rows as usize * ROW_BYTES];
    let start = u64::from(at) + HEAD_BYTES as u64;
    file.read_exact_at(&mut bytes, start).ok()?;
    let row = |row: &[u8]| {
        let mut hash = [0; 32];
        hash.copy_from_slice(&row[..32]);
        let content = ContentHash::from_bytes(hash);
        (content, number(&row[32..36]), number(&row[36..40]))
    };
    let list = bytes.chunks_exact(ROW_BYTES).map(row).collect();
    let end = start + bytes.len() as u64 + u64::from(frame);
    let is_there = file.metadata().is_ok_and(|meta| end <= meta.len());
    let end = u32::try_from(end).ok().filter(|_| is_there)?;
    Some((Record { list }, end))
}

/// Reads one content of the record at an offset. Whether it is the right one is for its hash to say.
pub(super) fn read(file: &File, at: u32, index: u32) -> Option<Vec<u8>> {
    let (record, end) = head(file, at)?;
    let (_, start, len) = *record.list.get(index as usize)?;
    let frame_at = at as usize + HEAD_BYTES + record.list.len() * ROW_BYTES;
    let mut frame = vec![0; end as usize - frame_at];
    file.read_exact_at(&mut frame, frame_at as u64).ok()?;
    let until = record
        .list
        .iter()
        .map(|(_, at, len)| u64::from(*at) + u64::from(*len));
    let longest = until.max()?.min(2 * MERGE_BYTES_MAX) as usize;
    // Deltas may lie between the contents, and after the last of them.
    let bound = longest + shared::transfer::PART_BYTES_MAX;
    let mut bytes = zstd::bulk::decompress(&frame, bound).ok()?;
    bytes.truncate((start as usize).checked_add(len as usize)?);
    Some(bytes.split_off((start as usize).min(bytes.len())))
}

/// Writes a record at the end of a segment.
pub(super) fn write(dir: impl AsFd, number: u32, at: u64, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, name_of(number), flags, Mode::RUSR | Mode::WUSR)?;
    File::from(file).write_all_at(bytes, at)
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}
