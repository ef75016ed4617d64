//! Linux: `syncfs`, `fsync`, `FICLONE`, `openat2`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::handle::DIR_FLAGS;

/// inotify watches each directory by itself, so one can be left out.
pub(crate) const WATCHES_EACH_DIRECTORY: bool = true;

pub(crate) fn sync_volume(root: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::syncfs(root)?)
}

/// Has the next reading of a file come from the medium, where the system lets it.
pub(crate) fn read_from_medium(file: impl AsFd) {
    // Advice: pages that are in use stay, and the reading is right all the same.
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).ok();
}

/// How nice a thread is that gives way: beside another program it gets a tenth of a core.
const NICE: i32 = 10;

pub(crate) fn give_way() {
    // Here each thread has a priority of its own. Without the right to be nicer it stays as it is.
    rustix::process::setpriority_process(None, NICE).ok();
}

/// Opens a directory below another one in one call, without following a link anywhere on the way. `None`
/// where the kernel (before 5.6) or a sandbox does not have the call.
pub(crate) fn open_below(at: BorrowedFd<'_>, path: &str) -> Option<rustix::io::Result<OwnedFd>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(at, path, DIR_FLAGS, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => None,
        opened => Some(opened),
    }
}

pub(crate) fn sync_each(open: &[BorrowedFd<'_>]) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn a_thread_gives_way_by_itself() {
        let here = getpriority_process(None).expect("asked");
        let aside = crate::background::run(|| getpriority_process(None).expect("asked"));
        assert_eq!((aside, getpriority_process(None)), (NICE, Ok(here)));
    }
}
