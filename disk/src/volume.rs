//! What a volume can do beyond plain files: swap two names, refuse to overwrite, make things
//! durable, clone. The two platforms differ only in `linux.rs` and `macos.rs`, behind the same
//! functions.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as platform;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
use macos as platform;

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, RenameFlags, linkat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::handle;

pub(crate) use platform::WATCHES_EACH_DIRECTORY;
/// Clones `source` into a new file `name` in `dir`, sharing the blocks. Refused where the volume
/// cannot.
pub(crate) use platform::clone_file;
/// Lets other programs go before the calling thread from now on.
pub(crate) use platform::give_way;
pub(crate) use platform::open_below;
pub(crate) use platform::read_from_medium;
/// Makes everything that was written on the volume of `root` durable.
pub(crate) use platform::sync_volume;

/// A name in a directory.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    /// The directory.
    pub(crate) dir: BorrowedFd<'a>,
    /// The name.
    pub(crate) name: &'a str,
}

impl<'a> At<'a> {
    pub(crate) fn new(dir: &'a impl AsFd, name: &'a str) -> Self {
        Self {
            dir: dir.as_fd(),
            name,
        }
    }
}

/// From this many files or directories on, one barrier over the volume is cheaper than one each.
const SYNC_EACH_MAX: usize = 8;

/// Makes the content of these files, or the entries of these directories, durable, one after another.
pub(crate) use platform::sync_each;

/// Says whether so many are cheaper to make durable one by one than with the whole volume.
pub(crate) fn is_few(open: usize) -> bool {
    open <= SYNC_EACH_MAX
}

/// Returns how many of them are worth holding open to be made durable.
pub(crate) fn worth_holding(held: usize) -> bool {
    held < SYNC_EACH_MAX
}

/// Swaps two names in one step: both exist at every moment.
pub(crate) fn exchange(a: At<'_>, b: At<'_>) -> Result<(), Errno> {
    renameat_with(a.dir, a.name, b.dir, b.name, RenameFlags::EXCHANGE)
}

/// Renames, unless the new name exists: then [`Errno::EXIST`].
pub(crate) fn rename_new(from: At<'_>, to: At<'_>) -> Result<(), Errno> {
    match renameat_with(from.dir, from.name, to.dir, to.name, RenameFlags::NOREPLACE) {
        Err(error) if is_unsupported(error) => rename_new_by_link(from, to),
        done => done,
    }
}

/// As [`rename_new`]: a hard link refuses to overwrite on every volume that has hard links. A
/// directory, or anything where there are none, is only as safe as looking first.
fn rename_new_by_link(from: At<'_>, to: At<'_>) -> Result<(), Errno> {
    match linkat(from.dir, from.name, to.dir, to.name, AtFlags::empty()) {
        Ok(()) => unlinkat(from.dir, from.name, AtFlags::empty()),
        Err(error) if is_unsupported(error) || error == Errno::PERM => {
            match handle::stat_at(to.dir, to.name)? {
                Some(_) => Err(Errno::EXIST),
                None => renameat(from.dir, from.name, to.dir, to.name),
            }
        }
        Err(error) => Err(error),
    }
}

/// Says whether the error means that the volume does not have the operation at all.
pub(crate) fn is_unsupported(error: Errno) -> bool {
    [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP].contains(&error)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_new_name_never_takes_anothers_place() {
        for rename in [rename_new, rename_new_by_link] {
            let dir = tempfile::tempdir().expect("a folder");
            let at = |name: &str| dir.path().join(name);
            fs::write(at("a"), "a").expect("written");
            fs::write(at("b"), "b").expect("written");
            fs::create_dir(at("d")).expect("made");
            let handle = fs::File::open(dir.path()).expect("open");
            let name = |name| At::new(&handle, name);
            assert_eq!(rename(name("a"), name("b")), Err(Errno::EXIST));
            assert_eq!(rename(name("d"), name("b")), Err(Errno::EXIST));
            assert_eq!(rename(name("a"), name("c")), Ok(()));
            assert_eq!(rename(name("d"), name("e")), Ok(()));
            assert_eq!(fs::read_to_string(at("c")).expect("there"), "a");
            assert!(!at("a").exists() && at("e").is_dir());
        }
    }
}
