//! Room: what is kept never fills the disk.
//!
//! A volume has a *floor* of free space. Below it kept versions go, by [`super::retention`]: in the
//! prune that comes by the clock, and at once when something could not be written for want of space,
//! which is then tried once more.

use std::time::{Duration, Instant};

use rustix::fs::fstatvfs;
use rustix::io::Errno;
use shared::utc::UtcMs;

use super::Pruned;
use crate::{Replica, lock, utc_now};

/// The floor: a hundredth of the volume, but at least this much, in bytes ...
const FLOOR_BYTES: u64 = 256 * 1024 * 1024;
/// ... unless that is more than a tenth of the volume.
const FLOOR_SHARE_MAX: u64 = 10;
const FLOOR_SHARE: u64 = 100;
/// How long nothing is tried again after nothing could be freed: reading the catalogue costs more than
/// failing.
const FUTILE: Duration = Duration::from_secs(10);

impl Replica {
    /// Removes kept versions that are too old or too many, or that the volume has no room for.
    ///
    /// # Errors
    /// Those of the file system; then some may be removed already, and the others are intact.
    pub fn prune_kept(&self, now: UtcMs) -> std::io::Result<Pruned> {
        self.prune_for(now, 0)
    }

    /// Does some work, and once more after making room when the disk was full. `bytes` is what it needs.
    pub(crate) fn with_room<T>(
        &self,
        bytes: u64,
        mut work: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match work() {
            Err(error) if is_full(error) && self.make_room(bytes) => work(),
            done => done,
        }
    }

    /// Removes kept versions because something could not be written, and says whether that freed
    /// something.
    pub(crate) fn make_room(&self, bytes: u64) -> bool {
        let mut futile = lock(&self.kept.futile);
        if futile.is_some_and(|at| at.elapsed() < FUTILE) {
            return false;
        }
        let freed = match self.prune_for(utc_now(), bytes.max(1)) {
            Ok(pruned) => {
                let (versions, bytes) = (pruned.versions, pruned.bytes);
                tracing::warn!(
                    versions,
                    bytes,
                    "the disk is full; kept versions were removed"
                );
                versions > 0
            }
            Err(error) => {
                tracing::warn!(%error, "the disk is full, and kept versions could not be removed");
                false
            }
        };
        *futile = (!freed).then(Instant::now);
        freed
    }

    /// `wanted` is what somebody wants to write now, in bytes, above the floor.
    fn prune_for(&self, now: UtcMs, wanted: u64) -> std::io::Result<Pruned> {
        let space = fstatvfs(&*self.root)?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let total = space.f_blocks.saturating_mul(space.f_frsize);
        let lacking = if wanted == 0 {
            floor(total).saturating_sub(free)
        } else {
            // The system refused, so what it calls free is not to be had: a quota, or no more inodes.
            floor(total).saturating_sub(free).max(wanted)
        };
        let tree_bytes = lock(&self.seen).bytes();
        let stands = |path: &_| lock(&self.seen).get(path).is_some();
        self.kept.prune(now, tree_bytes, lacking, &stands)
    }
}

pub(crate) fn is_full(error: Errno) -> bool {
    [Errno::NOSPC, Errno::DQUOT].contains(&error)
}

/// Returns the floor of a volume of `total` bytes.
pub(crate) fn floor(total: u64) -> u64 {
    (total / FLOOR_SHARE).max(FLOOR_BYTES.min(total / FLOOR_SHARE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_of_volumes() {
        const GIB: u64 = 1024 * 1024 * 1024;
        let check = |total, expected| assert_eq!(floor(total), expected, "{total}");
        check(1000 * GIB, 10 * GIB);
        check(100 * GIB, GIB);
        check(10 * GIB, GIB / 4);
        check(GIB, GIB / 10);
        check(0, 0);
    }
}
