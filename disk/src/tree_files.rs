//! Files of the tree for who is no part of the sync: reads, lists and appends as any program of the user does.
//!
//! Every call opens the root anew and looks at its marker first: where another folder, or none, stands, nothing is read or made. No
//! link is followed. What is private to layer-sync is not there.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, fsync, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use shared::ignore::PRIVATE_DIR;
use shared::path::RelPath;

use crate::handle::{self, DIR_FLAGS};
use crate::root::{ReplicaId, marker};
use crate::volume;

/// Rights of what is made here.
const FILE_MODE: Mode = Mode::RUSR
    .union(Mode::WUSR)
    .union(Mode::RGRP)
    .union(Mode::ROTH);
const DIR_MODE: Mode = FILE_MODE
    .union(Mode::XUSR)
    .union(Mode::XGRP)
    .union(Mode::XOTH);

/// The files of one root.
#[derive(Debug, Clone)]
pub struct TreeFiles {
    root: PathBuf,
    replica: ReplicaId,
}

/// Something in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name. What has no name in UTF-8 is not listed.
    pub name: String,
    /// Whether it is a folder. Links, sockets and the like are not listed.
    pub is_dir: bool,
    /// Length of a file, in bytes.
    pub len: u64,
}

impl TreeFiles {
    /// The files of the root that is this replica.
    pub fn new(root: PathBuf, replica: ReplicaId) -> Self {
        Self { root, replica }
    }

    /// Lists a folder, `None` the root, in no order.
    ///
    /// # Errors
    /// What the system says; [`ErrorKind::NotFound`] for a folder that is not there.
    pub fn list(&self, folder: Option<&RelPath>) -> io::Result<Vec<Listed>> {
        let root = self.open()?;
        let dir = match folder {
            Some(folder) => handle::open_dir(self.parent(&root, folder)?, folder.name())?,
            None => root,
        };
        let mut listed = Vec::new();
        for name in handle::list(&dir)? {
            let Ok(name) = String::from_utf8(name.into()) else {
                continue;
            };
            // It may be gone by now.
            let Some(stat) = handle::stat_at(&dir, name.as_str())? else {
                continue;
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let is_dir = kind == FileType::Directory;
            if (is_dir || kind == FileType::RegularFile) && name != PRIVATE_DIR {
                let len = if is_dir { 0 } else { stat.st_size as u64 };
                listed.push(Listed { name, is_dir, len });
            }
        }
        Ok(listed)
    }

    /// Reads at most `bytes_max` bytes of a file, from `offset` on.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&self, path: &RelPath, offset: u64, bytes_max: u64) -> io::Result<Vec<u8>> {
        let root = self.open()?;
        let (mut file, _) = handle::open_file(self.parent(&root, path)?, path.name())?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Appends to a file, which is made if it is not there, and the folders above it too. Returns its length when all of that is
    /// durable.
    ///
    /// # Errors
    /// What the system says. A part of the bytes may stand at the end of the file then.
    pub fn append(&self, path: &RelPath, bytes: &[u8]) -> io::Result<u64> {
        let root = self.open()?;
        let mut at: Option<OwnedFd> = None;
        let above: Vec<RelPath> = path.ancestors().collect();
        for folder in above.iter().rev() {
            let within = at.as_ref().map_or(root.as_fd(), AsFd::as_fd);
            if folder.name() == PRIVATE_DIR {
                return Err(Errno::PERM.into());
            }
            let opened = match handle::open_dir(within, folder.name()) {
                Err(Errno::NOENT) => {
                    mkdirat(within, folder.name(), DIR_MODE)?;
                    fsync(within)?;
                    handle::open_dir(within, folder.name())?
                }
                opened => opened?,
            };
            at = Some(opened);
        }
        let folder = at.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        let flags = OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let file = openat(folder, path.name(), flags, FILE_MODE)?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL.into());
        }
        let mut file = std::fs::File::from(file);
        let is_new = file.metadata()?.len() == 0;
        file.write_all(bytes)?;
        let len = file.metadata()?.len();
        volume::sync_each(&[file.as_fd()])?;
        if is_new {
            fsync(folder)?;
        }
        Ok(len)
    }

    /// Removes a file. One that is not there is removed.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self, path: &RelPath) -> io::Result<()> {
        let root = self.open()?;
        match unlinkat(self.parent(&root, path)?, path.name(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self) -> io::Result<OwnedFd> {
        let root = rustix::fs::open(&self.root, DIR_FLAGS, Mode::empty())?;
        let private = handle::open_dir(&root, PRIVATE_DIR).map_err(|_| self.is_another())?;
        match marker::read(&private)? {
            Some(found) if found.replica == self.replica.to_string() => Ok(root),
            _ => Err(self.is_another()),
        }
    }

    fn is_another(&self) -> io::Error {
        let text = format!("{} is not the folder that is synced", self.root.display());
        io::Error::new(ErrorKind::PermissionDenied, text)
    }

    fn parent(&self, root: &OwnedFd, path: &RelPath) -> io::Result<OwnedFd> {
        Ok(handle::open_parent(root.as_fd(), path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Bench, path};

    fn files(bench: &Bench) -> TreeFiles {
        TreeFiles::new(bench.replica.root().to_owned(), bench.replica.id())
    }

    #[test]
    fn lines_are_appended_below_folders_that_are_made() {
        let bench = Bench::new();
        let files = files(&bench);
        let file = path("knowledge/.journal/vm/1.jsonl");
        assert_eq!(files.append(&file, b"one\n").expect("it is appended"), 4);
        assert_eq!(files.append(&file, b"two\n").expect("it is appended"), 8);
        assert_eq!(files.read(&file, 4, 100).expect("it is read"), b"two\n");
        let listed = files
            .list(Some(&path("knowledge/.journal/vm")))
            .expect("a listing");
        let one = Listed {
            name: "1.jsonl".to_owned(),
            is_dir: false,
            len: 8,
        };
        assert_eq!(listed, [one]);
        files.remove(&file).expect("it is removed");
        files.remove(&file).expect("and was");
        let gone = files.read(&file, 0, 1).expect_err("it is gone");
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn no_link_is_followed_and_nothing_private_is_there() {
        let bench = Bench::new();
        let files = files(&bench);
        std::os::unix::fs::symlink("/tmp", bench.replica.root().join("knowledge")).expect("a link");
        assert!(files.append(&path("knowledge/a"), b"x").is_err());
        assert!(files.append(&path(".layer-sync/a"), b"x").is_err());
        assert!(files.read(&path(".layer-sync/marker"), 0, 10).is_err());
        let names = files.list(None).expect("a listing");
        assert!(names.is_empty(), "{names:?}");
    }

    #[test]
    fn another_folder_is_left_alone() {
        let bench = Bench::new();
        let files = files(&bench);
        let (root, away) = (
            bench.replica.root().to_owned(),
            bench.replica.root().with_extension("away"),
        );
        std::fs::rename(&root, &away).expect("it is moved");
        assert!(files.append(&path("a"), b"x").is_err());
        assert!(!root.exists(), "nothing was made where it was");
        std::fs::create_dir(&root).expect("another one");
        assert!(files.append(&path("a"), b"x").is_err());
        assert!(files.list(None).is_err());
        std::fs::remove_dir(&root).expect("it is empty");
        std::fs::rename(&away, &root).expect("it is back");
        files.append(&path("a"), b"x").expect("it is appended");
    }
}
