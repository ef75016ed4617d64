//! The numbers under which the kernel knows files, each with a handle on the file itself.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::INodeNo;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

/// The file, and the spelling of its name if that is not the one it was given.
type Key = (u64, Option<PathBuf>);

/// A file that the kernel knows.
pub(super) struct Inode {
    /// Leads to the file wherever it is renamed to.
    pub(super) handle: File,
    /// Where it was when it was looked up last: what faults are about.
    pub(super) path: PathBuf,
    lookups: u64,
    key: Key,
}

impl Inode {
    /// Returns a name under which the file can be opened again, whatever it is called now.
    pub(super) fn by_handle(&self) -> String {
        format!("/proc/self/fd/{}", self.handle.as_raw_fd())
    }
}

/// All of them.
pub(super) struct Inodes {
    known: HashMap<u64, Arc<Inode>>,
    numbers: HashMap<Key, u64>,
    next: u64,
}

impl Inodes {
    pub(super) fn new(root: &Path) -> Result<Self, Errno> {
        let handle = openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let root = Inode {
            handle: handle.into(),
            path: PathBuf::new(),
            lookups: 1,
            key: (0, None),
        };
        Ok(Self {
            known: HashMap::from([(INodeNo::ROOT.0, Arc::new(root))]),
            numbers: HashMap::new(),
            next: INodeNo::ROOT.0 + 1,
        })
    }

    pub(super) fn get(&self, number: INodeNo) -> Result<Arc<Inode>, Errno> {
        self.known.get(&number.0).cloned().ok_or(Errno::STALE)
    }

    /// Counts a lookup. Another spelling of a name has a number of its own, so that the kernel takes a
    /// rename to it for a rename, and not for nothing at all.
    pub(super) fn looked_up(
        &mut self,
        handle: File,
        path: PathBuf,
        is_respelled: bool,
    ) -> std::io::Result<INodeNo> {
        let key = (handle.metadata()?.ino(), is_respelled.then(|| path.clone()));
        let number = *self.numbers.entry(key.clone()).or_insert(self.next);
        self.next = self.next.max(number + 1);
        let lookups = self.known.get(&number).map_or(0, |inode| inode.lookups) + 1;
        let inode = Inode {
            handle,
            path,
            lookups,
            key,
        };
        self.known.insert(number, Arc::new(inode));
        Ok(INodeNo(number))
    }

    pub(super) fn forget(&mut self, number: INodeNo, lookups: u64) {
        if number == INodeNo::ROOT {
            return;
        }
        let Some(inode) = self.known.get_mut(&number.0) else {
            return;
        };
        if inode.lookups <= lookups {
            self.numbers.remove(&inode.key);
            self.known.remove(&number.0);
        } else if let Some(inode) = Arc::get_mut(inode) {
            inode.lookups -= lookups;
        }
    }
}
