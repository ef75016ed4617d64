//! Locks: SQLite's belong to the process, not to a handle.
//!
//! SQLite locks through `fcntl`, and closing *any* handle of a file drops all such locks that the process has
//! on it (<https://www.sqlite.org/howtocorrupt.html>, section 2.2). Looks and givers read files through
//! handles of their own; if one of them closed its handle while a snapshot is being made, a writer could
//! change pages under it. So as long as somebody in this process works under locks of a file, handles of
//! that file are parked instead of closed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{self, Read};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError, RwLock};

use rustix::fs::{Stat, fstat};

use crate::fingerprint;

/// Device and inode.
type Identity = (u64, u64);

/// The files under whose locks this process works, with the handles that wait to be closed. It is one for
/// the process because the locks are.
static IN_USE: RwLock<BTreeMap<Identity, Mutex<Vec<File>>>> = RwLock::new(BTreeMap::new());

fn identity(stat: &Stat) -> Identity {
    (fingerprint::device(stat), fingerprint::inode(stat))
}

/// While one exists, this process works under locks of a file, and nobody else in it does.
pub(crate) struct InUse(Vec<Identity>);

impl InUse {
    /// Claims a file; `None` when somebody in this process has it.
    pub(crate) fn claim(stat: &Stat) -> Option<Self> {
        let identity = identity(stat);
        let mut in_use = IN_USE.write().unwrap_or_else(PoisonError::into_inner);
        if in_use.contains_key(&identity) {
            return None;
        }
        in_use.insert(identity, Mutex::default());
        Some(Self(vec![identity]))
    }

    /// Claims another file as well, which is locked only by those who have the first.
    pub(crate) fn claim_also(&mut self, stat: &Stat) {
        let identity = identity(stat);
        let mut in_use = IN_USE.write().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Vacant(place) = in_use.entry(identity) {
            place.insert(Mutex::default());
            self.0.push(identity);
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut in_use = IN_USE.write().unwrap_or_else(PoisonError::into_inner);
        // Closes what was parked. The next one who claims the file waits for that at the lock of the map.
        for identity in &self.0 {
            drop(in_use.remove(identity));
        }
    }
}

/// A handle of a file that may be a database. Closed only when that drops no lock.
#[derive(Debug)]
pub(crate) struct TreeFile(Option<File>);

impl From<File> for TreeFile {
    fn from(file: File) -> Self {
        Self(Some(file))
    }
}

const OPEN: &str = "a handle is there until it is dropped";

impl Deref for TreeFile {
    type Target = File;

    fn deref(&self) -> &File {
        self.0.as_ref().expect(OPEN)
    }
}

impl DerefMut for TreeFile {
    fn deref_mut(&mut self) -> &mut File {
        self.0.as_mut().expect(OPEN)
    }
}

impl Read for TreeFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).read(buffer)
    }
}

impl AsFd for TreeFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}

impl Drop for TreeFile {
    fn drop(&mut self) {
        let Some(file) = self.0.take() else { return };
        let in_use = IN_USE.read().unwrap_or_else(PoisonError::into_inner);
        if in_use.is_empty() {
            return drop(file);
        }
        let parked = fstat(&file)
            .ok()
            .and_then(|stat| in_use.get(&identity(&stat)));
        match parked {
            Some(parked) => parked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(file),
            None => drop(file),
        }
    }
}
