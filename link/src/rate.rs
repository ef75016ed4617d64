//! The rate limit of a node: what all its content streams together may send in a second.
//!
//! [`Bucket`] decides, with time as an argument. [`RateLimit`] waits for it on behalf of the streams,
//! piece by piece, and lets small batches go first: while one waits, no large file takes a piece.
//! The control stream is never here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::connection::Priority;

/// What may be sent at once: what was left unsent for so long. A wait that ends late by less costs
/// nothing, and a second never has more than this above the limit.
const BURST: Duration = Duration::from_millis(50);
/// A piece is what the limit lets through in this time, within the bounds below. So long at most
/// does a small batch wait for a large file.
const PIECE: Duration = Duration::from_millis(20);
const PIECE_BYTES_MIN: u64 = 1 << 10;
const PIECE_BYTES_MAX: u64 = 64 << 10;
/// How long a large file stands back at least when a small batch is waiting.
const STAND_BACK: Duration = Duration::from_millis(1);

/// A bucket of tokens, kept as the time at which it would be full (the generic cell rate algorithm,
/// ITU-T I.371).
#[derive(Debug)]
struct Bucket {
    bytes_per_second: u64,
    /// When all that was taken will have been earned.
    earned_at: Instant,
}

impl Bucket {
    /// Takes `bytes`, or says when to ask again.
    fn take(&mut self, now: Instant, bytes: usize) -> Result<(), Instant> {
        if let Some(early) = self.earned_at.checked_sub(BURST)
            && early > now
        {
            return Err(early);
        }
        let cost = bytes as f64 / self.bytes_per_second as f64;
        self.earned_at = self.earned_at.max(now) + Duration::from_secs_f64(cost);
        Ok(())
    }
}

/// What the streams of a node share. Clones are the same limit.
#[derive(Debug, Clone)]
pub(crate) struct RateLimit {
    piece_bytes: usize,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    bucket: Bucket,
    /// Small batches that wait for a piece.
    small_waiting: usize,
}

impl Shared {
    fn take(&mut self, now: Instant, priority: Priority, bytes: usize) -> Result<(), Instant> {
        if priority == Priority::Bulk && self.small_waiting > 0 {
            return Err(self.bucket.earned_at.max(now + STAND_BACK));
        }
        self.bucket.take(now, bytes)
    }
}

impl RateLimit {
    /// Lets `bytes_per_second` through, but at least one.
    pub(crate) fn new(bytes_per_second: u64, now: Instant) -> Self {
        let bytes_per_second = bytes_per_second.max(1);
        let piece = bytes_per_second as f64 * PIECE.as_secs_f64();
        Self {
            piece_bytes: (piece as u64).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX) as usize,
            shared: Arc::new(Mutex::new(Shared {
                bucket: Bucket {
                    bytes_per_second,
                    earned_at: now,
                },
                small_waiting: 0,
            })),
        }
    }

    /// Returns how many bytes to pass at a time.
    pub(crate) fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }

    /// Waits until `bytes` of a stream of this priority may be sent. May be cancelled.
    pub(crate) async fn pass(&self, priority: Priority, bytes: usize) {
        let _waiting = (priority != Priority::Bulk).then(|| SmallWaiting::new(self));
        loop {
            let taken = self.lock().take(Instant::now(), priority, bytes);
            match taken {
                Ok(()) => return,
                Err(later) => tokio::time::sleep_until(later.into()).await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a small batch for as long as it waits.
struct SmallWaiting<'a>(&'a RateLimit);

impl<'a> SmallWaiting<'a> {
    fn new(limit: &'a RateLimit) -> Self {
        limit.lock().small_waiting += 1;
        Self(limit)
    }
}

impl Drop for SmallWaiting<'_> {
    fn drop(&mut self) {
        self.0.lock().small_waiting -= 1;
    }
}

#[cfg(test)]
mod tests;
