//! Guard: an apply changes a database only when nobody uses it.
//!
//! A program that has the file open would go on with the old one, and a log or a journal that lies beside
//! the path would be applied to the new one. So an operation on a database is held while
//!
//! * a log or a journal with changes lies beside it, whoever left it;
//! * a program holds a lock on it. With a write-ahead log every open connection does, all the time.
//!   Without one only a transaction does; a connection that is idle then cannot be told, and SQLite
//!   itself keeps it from writing to a file that was replaced (`SQLITE_READONLY_DBMOVED`).
//!
//! While the operation is carried out, we hold the lock that keeps programs from starting to use the
//! file. When the database goes, what SQLite left beside it goes as well: it holds nothing then.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FlockOperation, Mode, OFlags, Stat, fcntl_lock, openat};
use rustix::io::Errno;
use shared::path::RelPath;
use shared::transfer::{Op, Trouble, TroubleKind};
use shared::tree::Entry;

use super::beside::{Beside, belongs, owner, remove_spent};
use super::header;
use super::locks::{InUse, TreeFile};
use crate::handle;

/// While one exists, no program begins to use the database that an operation is about.
#[derive(Default)]
pub(crate) struct Guard {
    // Dropped in this order: the claim parks handles, and the last handle drops the lock.
    _in_use: Option<InUse>,
    _locked: Option<TreeFile>,
    /// Whether no database stands at the path afterwards.
    ends: bool,
}

impl Guard {
    /// Makes sure that an operation finds no database in use. `staged` is what it puts there, if that is a
    /// file.
    ///
    /// # Errors
    /// What is in the way, for a person.
    pub(crate) fn take(
        op: &Op,
        parent: &OwnedFd,
        staged: Option<(&OwnedFd, &str)>,
    ) -> Result<Self, Trouble> {
        let (path, name) = (&op.path, op.path.name());
        if let Some(owner) = owner(name)
            && belongs(parent, name)
        {
            return Err(in_the_way(
                path,
                &format!("it belongs to the database \"{owner}\""),
            ));
        }
        let there = if may_be_database(op.expect.as_ref()) {
            handle::open_file(parent, name).ok()
        } else {
            None
        };
        let database = there.filter(|(file, stat)| header(file, stat).is_some());
        let makes_database = may_be_database(op.make.as_ref())
            && staged
                .and_then(|(dir, name)| handle::open_file(dir, name).ok())
                .is_some_and(|(file, stat)| header(&file, &stat).is_some());
        if database.is_none() && !makes_database {
            return Ok(Self::default());
        }
        has_no_changes(path, parent)?;
        let Some((file, stat)) = database else {
            return Ok(Self::default());
        };
        let guard = Self::lock(path, parent, &stat)?;
        drop(file);
        // A commit may have come before the lock did.
        has_no_changes(path, parent)?;
        let stays =
            op.make.as_ref().map(Entry::identity) == op.expect.as_ref().map(Entry::identity);
        Ok(Self {
            ends: !makes_database && !stays,
            ..guard
        })
    }

    /// Removes what SQLite left beside a database that is about to go: nobody uses it, and it holds no
    /// changes. Without the database it would count as ordinary files.
    pub(crate) fn clear(&self, op: &Op, parent: &OwnedFd) {
        if self.ends {
            remove_spent(parent, op.path.name());
        }
    }

    /// Locks a database that stands at a path, as SQLite would to change it.
    fn lock(path: &RelPath, parent: &OwnedFd, stat: &Stat) -> Result<Self, Trouble> {
        let used = || in_the_way(path, "a program has this database open");
        let in_use = InUse::claim(stat).ok_or_else(used)?;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |access: OFlags| {
            openat(parent, path.name(), access | flags, Mode::empty())
                .map(|fd| TreeFile::from(std::fs::File::from(fd)))
        };
        // Who may not write to it cannot ask for the lock that excludes readers.
        let (opened, lock) = match open(OFlags::RDWR) {
            Ok(file) => (Ok(file), FlockOperation::NonBlockingLockExclusive),
            Err(_) => (open(OFlags::RDONLY), FlockOperation::NonBlockingLockShared),
        };
        let locked = opened.and_then(|file| fcntl_lock(&file, lock).map(|()| file));
        match locked {
            Ok(file) => Ok(Self {
                _in_use: Some(in_use),
                _locked: Some(file),
                ends: false,
            }),
            Err(Errno::AGAIN | Errno::ACCESS) => Err(used()),
            // Where nobody can lock, or nothing is there any more, the steps find out what there is.
            Err(error) => {
                tracing::debug!(%path, %error, "a database cannot be locked");
                Ok(Self::default())
            }
        }
    }
}

/// Says why content for a path would be of no use now: the database that it would replace is in use.
pub(crate) fn hindrance(root: impl AsFd, op: &Op) -> Option<Trouble> {
    if !may_be_database(op.expect.as_ref()) {
        return None;
    }
    let parent = handle::open_parent(root.as_fd(), &op.path).ok()?;
    Guard::take(op, &parent, None).err()
}

/// Says whether something has the length of a database. Anything else is not opened to find out.
fn may_be_database(entry: Option<&Entry>) -> bool {
    matches!(entry, Some(Entry::File { len, .. }) if len.is_multiple_of(super::PAGE_BYTES_MIN))
}

fn has_no_changes(path: &RelPath, parent: &OwnedFd) -> Result<(), Trouble> {
    match Beside::of(parent, path.name()) {
        Ok(beside) if beside.has_changes() => {
            let file = format!("{}{}", path.name(), beside.of_changes());
            let what = format!("changes to this database are waiting in \"{file}\"");
            Err(in_the_way(path, &what))
        }
        // What cannot be looked at here cannot be changed here either: the steps say why.
        _ => Ok(()),
    }
}

fn in_the_way(path: &RelPath, what: &str) -> Trouble {
    let kind = TroubleKind::DatabaseOpen;
    let text = format!(
        "\"{path}\" could not be changed because {what}; it is untouched. If no program uses it, one \
         ended without closing it: open and close it once. To do: {}",
        kind.remedy()
    );
    Trouble { kind, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::transfer::Source;

    #[test]
    fn only_whole_pages_are_asked_about() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("x"), "text").expect("written");
        let root = handle::open_dir(rustix::fs::CWD, dir.path()).expect("open");
        let file = |len| Entry::File {
            content: shared::hash::ContentHash::of_bytes(b"text"),
            len,
            exec: false,
        };
        let op = |expect| Op {
            path: RelPath::parse("x").expect("a path"),
            expect,
            make: Some(file(1024)),
            from: Source::Nothing,
            agrees: true,
        };
        for expect in [None, Some(Entry::Dir), Some(file(4)), Some(file(512))] {
            assert_eq!(hindrance(&root, &op(expect.clone())), None, "{expect:?}");
        }
    }
}
