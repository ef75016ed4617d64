//! SHA-256: what Drive tells of the bytes that it has.

use std::io;

use ring::digest::{Context, SHA256};

use crate::target::Bytes;

/// Bytes that are read at a time.
const BLOCK: usize = 256 * 1024;

/// Adds up bytes.
pub struct Sum(Context);

impl Default for Sum {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Sum {
    /// Takes more.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the sum.
    pub fn finish(self) -> [u8; 32] {
        let digest = self.0.finish();
        std::array::from_fn(|index| digest.as_ref()[index])
    }
}

/// Returns the sum of bytes in memory.
pub fn of_slice(bytes: &[u8]) -> [u8; 32] {
    let mut sum = Sum::default();
    sum.add(bytes);
    sum.finish()
}

/// Returns the sum of all bytes.
///
/// # Errors
/// What the system says; [`io::ErrorKind::UnexpectedEof`] when there are fewer than there should be.
pub fn of(bytes: &dyn Bytes) -> io::Result<[u8; 32]> {
    let mut sum = Sum::default();
    let mut buffer = vec![0; BLOCK];
    let mut at = 0;
    while at < bytes.len() {
        let read = bytes.read_at(at, &mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sum.add(&buffer[..read]);
        at += read as u64;
    }
    Ok(sum.finish())
}

/// Bytes in memory: the target of a link.
pub struct InMemory(pub Vec<u8>);

impl Bytes for InMemory {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.0.get(from..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn rests(&self) -> io::Result<bool> {
        Ok(true)
    }
}
