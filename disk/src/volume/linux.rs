//! Linux: `syncfs`, `fsync`, `FICLONE`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

pub(crate) fn sync_volume(root: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::syncfs(root)?)
}

/// Has the next reading of a file come from the medium, where the system lets it.
pub(crate) fn read_from_medium(file: impl AsFd) {
    // Advice: pages that are in use stay, and the reading is right all the same.
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).ok();
}

pub(super) fn sync_each(open: &[BorrowedFd<'_>]) -> io::Result<()> {
    for fd in open {
        // Not `fdatasync`: an exec bit is no data.
        rustix::fs::fsync(fd)?;
    }
    Ok(())
}

pub(crate) fn clone_file(
    source: impl AsFd,
    dir: impl AsFd,
    name: &str,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let new = rustix::fs::openat(&dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    match rustix::fs::ioctl_ficlone(&new, source) {
        Ok(()) => Ok(new),
        Err(refused) => {
            rustix::fs::unlinkat(&dir, name, rustix::fs::AtFlags::empty())?;
            Err(refused)
        }
    }
}
