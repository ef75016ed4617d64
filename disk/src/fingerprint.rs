//! Fingerprints: what tells without reading that a file is as it was.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, RawMode, Stat, Timespec, Timestamps};
use serde::{Deserialize, Serialize};
use shared::tree::Entry;

/// A file whose modification time is this close to the time it was hashed may change again without a
/// change of that time, since clocks of file systems are coarse. It is *racily clean* (Git's word).
const RACY_NS: i64 = 2_000_000_000;

/// After this time a file that was just written, and is left alone, can be read for good.
pub(crate) const RACY_WAIT: Duration = Duration::from_nanos(RACY_NS as u64 + 100_000_000);

/// What the file system says about a file. While it stays the same, so does the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    len: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    inode: u64,
    mode: u32,
    /// Whether it lies on another device than the root. The device's number itself is worth nothing
    /// here: a volume may get another one each time it is mounted.
    pub(crate) foreign: bool,
}

impl Fingerprint {
    /// A fingerprint that no file has, so that the next look reads the file.
    pub(crate) const UNKNOWN: Self = Self {
        len: u64::MAX,
        mtime_ns: 0,
        ctime_ns: 0,
        inode: 0,
        mode: 0,
        foreign: false,
    };

    pub(crate) fn of(stat: &Stat, root_device: u64) -> Self {
        Self {
            len: len(stat),
            mtime_ns: mtime_ns(stat),
            ctime_ns: ctime_ns(stat),
            inode: inode(stat),
            mode: mode(stat),
            foreign: device(stat) != root_device,
        }
    }

    /// Says whether a file that was read at `now_ns` may change without a trace in here.
    pub(crate) fn is_racy(&self, now_ns: i64) -> bool {
        self.mtime_ns.abs_diff(now_ns) <= RACY_NS as u64
    }

    /// Returns the number of the inode.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Says whether a file was modified shortly before `now_ns`, or has a time of the future.
    pub(crate) fn is_modified_within(&self, span: Duration, now_ns: i64) -> bool {
        let ago = i128::from(now_ns) - i128::from(self.mtime_ns);
        ago <= span.as_nanos() as i128
    }

    /// Says whether a file is the very one with this fingerprint although it was renamed since, which
    /// touches the time of change.
    pub(crate) fn is_moved(&self, stat: &Stat) -> bool {
        let there = Self::of(stat, device(stat));
        self.is_renamed(&Self {
            foreign: self.foreign,
            ..there
        })
    }

    /// As [`Fingerprint::is_moved`]; files of another device than the root are never the same.
    pub(crate) fn is_renamed(&self, other: &Self) -> bool {
        // A change of mode leaves no other trace than the time of change, which a rename touches too.
        self.inode == other.inode
            && self.len == other.len
            && self.mtime_ns == other.mtime_ns
            && self.mode == other.mode
            && self.foreign == other.foreign
    }
}

/// What was seen at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeenRow {
    pub(crate) entry: Entry,
    pub(crate) print: Fingerprint,
    /// Whether the file has to be read again although its fingerprint is the same.
    pub(crate) racy: bool,
}

impl SeenRow {
    /// The row of a directory. What is in it is its children's matter; its own times say nothing.
    pub(crate) fn dir(foreign: bool) -> Self {
        let print = Fingerprint {
            foreign,
            ..Fingerprint::UNKNOWN
        };
        Self {
            entry: Entry::Dir,
            print,
            racy: false,
        }
    }
}

/// Returns the kind of what was found.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode as RawMode)
}

/// Says whether its owner may execute it.
pub(crate) fn is_exec(stat: &Stat) -> bool {
    mode(stat) & 0o100 != 0
}

/// Returns the permission bits of `mode` with those for execution as `exec` says: whoever may read
/// may execute.
pub(crate) fn with_exec(mode: u32, exec: bool) -> u32 {
    let mode = mode & 0o666;
    if exec {
        mode | 0o100 | (mode & 0o444) >> 2
    } else {
        mode
    }
}

/// Returns what gives a file this time of modification, and of access.
pub(crate) fn times(mtime_ns: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime_ns.div_euclid(1_000_000_000),
        tv_nsec: mtime_ns.rem_euclid(1_000_000_000) as _,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Returns the present time in nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        })
}

// The fields of `Stat` differ in width and sign between the platforms; on each of them one or the
// other cast changes nothing.
macro_rules! fields {
    ($( $(#[$doc:meta])* $name:ident($stat:ident) -> $type:ty = $value:expr; )*) => { $(
        $(#[$doc])*
        #[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "widths differ by platform")]
        pub(crate) fn $name($stat: &Stat) -> $type { $value }
    )* };
}

fields! {
    /// Returns the length in bytes.
    len(stat) -> u64 = stat.st_size as u64;
    /// Returns the number of the inode.
    inode(stat) -> u64 = stat.st_ino as u64;
    /// Returns the number of names that it has.
    links(stat) -> u64 = stat.st_nlink as u64;
    /// Returns the bytes that its blocks take.
    allocated(stat) -> u64 = (stat.st_blocks as u64).saturating_mul(512);
    /// Returns the number of the device.
    device(stat) -> u64 = stat.st_dev as u64;
    /// Returns kind and permission bits.
    mode(stat) -> u32 = stat.st_mode as u32;
    /// Returns the time of modification, in nanoseconds since 1970.
    mtime_ns(stat) -> i64 = nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64);
    /// Returns the time of change, in nanoseconds since 1970.
    ctime_ns(stat) -> i64 = nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64);
}

fn nanoseconds(seconds: i64, fraction: i64) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn execution_follows_reading() {
        let check =
            |mode, exec, expected: u32| assert_eq!(with_exec(mode, exec), expected, "{mode:o}");
        check(0o100_644, true, 0o755);
        check(0o100_640, true, 0o750);
        check(0o100_600, true, 0o700);
        check(0o100_755, false, 0o644);
        check(0o100_755, true, 0o755);
        check(0o104_755, false, 0o644);
        check(0o100_044, true, 0o155);
    }

    #[test]
    fn racy_near_the_time_of_reading_on_both_sides() {
        let print = Fingerprint {
            mtime_ns: 10_000_000_000,
            ..Fingerprint::UNKNOWN
        };
        let check = |now, racy| assert_eq!(print.is_racy(now), racy, "{now}");
        check(10_000_000_000, true);
        check(12_000_000_000, true);
        check(8_000_000_000, true);
        check(12_000_000_001, false);
        check(7_999_999_999, false);
    }
}
