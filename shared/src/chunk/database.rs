//! SQLite databases: how one is known, and where its content is cut.
//!
//! A database is written in whole pages at fixed places, so fixed cuts at multiples of the page keep a
//! changed row inside the chunk of its page. A cut that depends on the content would move when the
//! content around it changes, and chunks would be several times as long.
//!
//! Only the header decides (<https://www.sqlite.org/fileformat.html>, section 1.3), so both machines
//! decide alike.

/// What every database begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Length of the header, in bytes.
pub const HEADER_BYTES: usize = 100;
/// Length of a chunk of a database whose pages are not longer than this, in bytes.
pub const DATABASE_CHUNK_BYTES: usize = 16 * 1024;
/// Length of a chunk of a database with longer pages, in bytes. SQLite's longest page fills it.
pub const DATABASE_LONG_CHUNK_BYTES: usize = 64 * 1024;

/// What the header of a database says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseHeader {
    /// Length of a page in bytes: a power of two, 512 to 65,536.
    pub page_bytes: usize,
    /// Whether changes go to a write-ahead log (`-wal`) instead of being rolled back from a journal.
    pub has_wal: bool,
}

impl DatabaseHeader {
    /// Reads the first [`HEADER_BYTES`] of a content; `None` when they are not those of a database.
    pub fn parse(start: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = start.first_chunk()?;
        // Three bytes have one legal value each: text that merely begins as a database does not pass.
        if !header.starts_with(MAGIC) || header[21..24] != [64, 32, 32] {
            return None;
        }
        let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65_536,
            bytes => usize::from(bytes),
        };
        let is_legal = page_bytes.is_power_of_two() && page_bytes >= 512;
        is_legal.then_some(Self {
            page_bytes,
            has_wal: header[19] == 2,
        })
    }

    /// Returns the length of the chunks of this database, in bytes: a multiple of the page's.
    pub fn chunk_bytes(self) -> usize {
        if self.page_bytes <= DATABASE_CHUNK_BYTES {
            DATABASE_CHUNK_BYTES
        } else {
            DATABASE_LONG_CHUNK_BYTES
        }
    }
}
