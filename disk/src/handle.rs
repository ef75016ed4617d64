//! Directory handles: the way to every file.
//!
//! A path is walked without following a link at any step: in one call where the system has it, else
//! component by component. Every operation is relative
//! to a handle that was reached this way, so a link that somebody swaps in makes the operation fail;
//! nothing outside the root is ever read or written.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::{Errno, Result};
use shared::ignore::PRIVATE_DIR;
use shared::path::RelPath;

use crate::sqlite::locks::TreeFile;
use crate::volume;

pub(crate) const DIR_FLAGS: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::RDONLY);
/// Without `NONBLOCK` a FIFO that was swapped in would hang the open.
const READ_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);
const CREATE_FLAGS: OFlags = OFlags::RDWR
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a directory by its name in another one.
pub(crate) fn open_dir(at: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd> {
    openat(at, name, DIR_FLAGS, Mode::empty())
}

/// Opens a directory of the tree; `None` is the root.
pub(crate) fn open_tree_dir(root: BorrowedFd<'_>, path: Option<&RelPath>) -> Result<OwnedFd> {
    let Some(path) = path else {
        return open_dir(root, ".");
    };
    match volume::open_below(root, path.as_str()) {
        Some(opened) => opened,
        None => open_by_components(root, path),
    }
}

fn open_by_components(root: BorrowedFd<'_>, path: &RelPath) -> Result<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    for component in path.components() {
        let next = match &at {
            Some(dir) => open_dir(dir, component)?,
            None => open_dir(root, component)?,
        };
        at = Some(next);
    }
    match at {
        Some(dir) => Ok(dir),
        None => open_dir(root, "."),
    }
}

/// Opens the directory that holds `path`.
pub(crate) fn open_parent(root: BorrowedFd<'_>, path: &RelPath) -> Result<OwnedFd> {
    // Paths come from the other machine, too. The private folder is no part of the tree, and whoever
    // could write to it could forge the marker.
    if path.components().any(|name| name == PRIVATE_DIR) {
        return Err(Errno::PERM);
    }
    open_tree_dir(root, path.parent().as_ref())
}

/// Opens a regular file for reading, and tells what it is. Anything else is [`Errno::INVAL`].
pub(crate) fn open_file(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<(TreeFile, Stat)> {
    let file = openat(dir, name, READ_FLAGS, Mode::empty())?;
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    Ok((File::from(file).into(), stat))
}

/// Opens a regular file of the tree for reading.
pub(crate) fn open_tree_file(root: BorrowedFd<'_>, path: &RelPath) -> Result<(TreeFile, Stat)> {
    open_file(open_parent(root, path)?, path.name())
}

/// Makes a new file that only its owner may read.
pub(crate) fn create_file(dir: impl AsFd, name: &str) -> Result<File> {
    openat(dir, name, CREATE_FLAGS, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// Tells what stands at a name, without following a link; `None` for nothing.
pub(crate) fn stat_at(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<Option<Stat>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lists the names in a directory, except `.` and `..`, in no order.
///
/// # Errors
/// When the listing fails at any point: half a listing is never returned.
pub(crate) fn list(dir: impl AsFd) -> Result<Vec<Box<[u8]>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.into());
        }
    }
    Ok(names)
}

/// Returns the target of a link as bytes.
pub(crate) fn read_link(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<Vec<u8>> {
    rustix::fs::readlinkat(dir, name, Vec::new()).map(std::ffi::CString::into_bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_is_followed_on_either_way() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(dir.path().join("a/b/c")).expect("made");
        fs::write(dir.path().join("a/file"), "x").expect("written");
        symlink("b", dir.path().join("a/link")).expect("linked");
        let root = File::open(dir.path()).expect("open");
        let check = |path: &str, expected: std::result::Result<(), &[Errno]>| {
            let path = RelPath::parse(path).expect("a path");
            for opened in [
                open_tree_dir(root.as_fd(), Some(&path)),
                open_by_components(root.as_fd(), &path),
            ] {
                match (opened, expected) {
                    (Ok(_), Ok(())) => {}
                    (Err(error), Err(expected)) if expected.contains(&error) => {}
                    (opened, _) => panic!("{path}: {opened:?}"),
                }
            }
        };
        check("a", Ok(()));
        check("a/b/c", Ok(()));
        check("a/none/c", Err(&[Errno::NOENT]));
        check("a/file", Err(&[Errno::NOTDIR]));
        check("a/file/c", Err(&[Errno::NOTDIR]));
        check("a/link", Err(&[Errno::LOOP, Errno::NOTDIR]));
        check("a/link/c", Err(&[Errno::LOOP, Errno::NOTDIR]));
    }
}
