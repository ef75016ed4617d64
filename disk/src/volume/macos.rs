//! macOS: `F_BARRIERFSYNC`, `F_FULLFSYNC`, `fsync_volume_np`, `fclonefileat`.

#![allow(
    unsafe_code,
    reason = "three calls that no safe crate wraps, each with its reason"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CloneFlags, Mode, OFlags};

/// From `<unistd.h>`, since macOS 10.8; the `libc` crate does not name them.
mod sys {
    pub(super) const SYNC_VOLUME_FULLSYNC: libc::c_int = 0x01;
    pub(super) const SYNC_VOLUME_WAIT: libc::c_int = 0x02;

    unsafe extern "C" {
        pub(super) fn fsync_volume_np(fd: libc::c_int, flags: libc::c_int) -> libc::c_int;
    }
}

/// A stream of file events is about everything below a folder.
pub(crate) const WATCHES_EACH_DIRECTORY: bool = false;

pub(crate) fn sync_volume(root: BorrowedFd<'_>) -> io::Result<()> {
    let flags = sys::SYNC_VOLUME_FULLSYNC | sys::SYNC_VOLUME_WAIT;
    // SAFETY: the descriptor is open for as long as it is borrowed; no memory is passed.
    match unsafe { sys::fsync_volume_np(root.as_raw_fd(), flags) } {
        0 => Ok(()),
        // Not every file system has it. Then the drive's cache is emptied through the directory.
        _ => Ok(rustix::fs::fcntl_fullfsync(root)?),
    }
}

/// Has the next reading of a file come from the medium, where the system lets it.
pub(crate) fn read_from_medium(file: impl AsFd) {
    // Advice: what is in memory is used, and the reading is right all the same.
    rustix::fs::fcntl_nocache(file, true).ok();
}

pub(crate) fn give_way() {
    // SAFETY: it changes the calling thread only; no memory is passed. Refused, the thread stays as it is.
    unsafe { libc::pthread_set_qos_class_self_np(libc::qos_class_t::QOS_CLASS_UTILITY, 0) };
}

/// Opens a directory below another one in one call; there is no such call here.
pub(crate) fn open_below(_at: BorrowedFd<'_>, _path: &str) -> Option<rustix::io::Result<OwnedFd>> {
    None
}

pub(crate) fn sync_each(open: &[BorrowedFd<'_>]) -> io::Result<()> {
    // A barrier orders the writes; the full sync of the last one promises for all before it.
    for fd in open {
        // SAFETY: the descriptor is open for as long as it is borrowed; no memory is passed.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_BARRIERFSYNC) } == -1 {
            rustix::fs::fsync(fd)?;
        }
    }
    match open.last() {
        Some(last) => Ok(rustix::fs::fcntl_fullfsync(last).or_else(|_| rustix::fs::fsync(last))?),
        None => Ok(()),
    }
}

pub(crate) fn clone_file(
    source: impl AsFd,
    dir: impl AsFd,
    name: &str,
) -> rustix::io::Result<OwnedFd> {
    rustix::fs::fclonefileat(
        source,
        &dir,
        name,
        CloneFlags::NOFOLLOW | CloneFlags::NOOWNERCOPY,
    )?;
    // The clone carries the rights of its source, which may not even be writable.
    let private = Mode::RUSR | Mode::WUSR;
    rustix::fs::chmodat(&dir, name, private, rustix::fs::AtFlags::empty())?;
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&dir, name, flags, Mode::empty())
}
