//! What can go wrong, each with the path, what was kept, and what to do next.

use std::io;
use std::path::{Path, PathBuf};

use shared::path::RelPath;
use shared::transfer::Trouble;

/// Why a root cannot be opened. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub enum OpenRefused {
    /// The path is not a directory, or not there.
    #[error("{} is not a directory that can be opened ({source}); create it, or correct `root` in the settings", root.display())]
    NotADirectory {
        /// The root.
        root: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The private folder cannot be made or written.
    #[error("{} cannot be written ({source}); correct its rights, or the volume's, and start again", path.display())]
    NotWritable {
        /// What could not be written.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Another process has it.
    #[error("another layer-sync already runs on {}; stop that one first, or use its control socket", path.display())]
    InUse {
        /// The root or the index.
        path: PathBuf,
    },
    /// The marker of this replica is gone: the root was emptied or replaced.
    #[error("{} no longer carries its marker .layer-sync/marker: the folder was emptied, replaced or is not mounted; nothing was synced. Put the right folder back, or join it anew", root.display())]
    MarkerMissing {
        /// The root.
        root: PathBuf,
    },
    /// The marker is another replica's.
    #[error("{} carries the marker of another replica ({found}): it is another folder or a copy of one; nothing was synced. Put the right folder back, or join it anew", root.display())]
    ForeignMarker {
        /// The root.
        root: PathBuf,
        /// What the marker says.
        found: String,
    },
    /// The root was put back from a backup: its stamp is older than the index.
    #[error("{} is an older copy of itself (a restored backup): its marker has the stamp {found}, and {last} was recorded here; nothing was synced. Put the present folder back, or join it anew: then the two trees are united and nothing is deleted", root.display())]
    Older {
        /// The root.
        root: PathBuf,
        /// The stamp in its marker.
        found: u64,
        /// The stamp that was recorded last.
        last: u64,
    },
    /// A directory above is a root itself.
    #[error("{} lies inside another synced folder, {}; choose a folder outside of it", root.display(), outer.display())]
    InsideAnotherRoot {
        /// The root.
        root: PathBuf,
        /// The root around it.
        outer: PathBuf,
    },
    /// The index cannot be opened for a reason other than damage.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl OpenRefused {
    /// Returns a word that names the refusal and never changes, for problem codes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotADirectory { source, .. } if source.kind() != io::ErrorKind::NotFound => {
                "unreadable"
            }
            Self::NotADirectory { .. } | Self::MarkerMissing { .. } => "missing",
            Self::NotWritable { .. } => "not_writable",
            Self::InUse { .. } => "in_use",
            Self::ForeignMarker { .. } => "foreign",
            Self::Older { .. } => "older",
            Self::InsideAnotherRoot { .. } => "nested",
            Self::Index(_) => "index",
        }
    }
}

/// The index cannot be read or written. The tree is not affected.
#[derive(Debug, thiserror::Error)]
#[error("the index {} cannot be used: {reason}; free some space or correct its rights, then start again", path.display())]
pub struct IndexError {
    /// The file.
    pub path: PathBuf,
    /// What the store says.
    pub reason: String,
}

/// Why the tree could not be looked at. No observation follows from it, least of all a deletion.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The root, its private folder or its marker is not there.
    #[error("{} is no longer the folder that was opened: {what}. Nothing was taken for deleted. Put the folder back; the sync goes on by itself", root.display())]
    Missing {
        /// The root.
        root: PathBuf,
        /// What is missing.
        what: String,
    },
    /// Something else stands in its place.
    #[error("{} is no longer the folder that was opened: {what}. Nothing was taken for deleted. Put the folder back, or start again to take this one", root.display())]
    Replaced {
        /// The root.
        root: PathBuf,
        /// What is different.
        what: String,
    },
    /// It carries the marker of another replica.
    #[error("{} is no longer the folder that was opened: it carries the marker of another replica ({found}). Nothing was taken for deleted. Put the folder back", root.display())]
    Foreign {
        /// The root.
        root: PathBuf,
        /// What the marker says.
        found: String,
    },
    /// It carries its own marker of the past: a backup was put back over it.
    #[error("{} is an older copy of itself by now (a restored backup): its marker has the stamp {found} instead of {last}. Nothing was taken for changed or deleted. Put the present folder back, or join it anew: then the two trees are united and nothing is deleted", root.display())]
    Older {
        /// The root.
        root: PathBuf,
        /// The stamp in its marker.
        found: u64,
        /// The stamp that was recorded last.
        last: u64,
    },
    /// The root itself cannot be listed.
    #[error("{} cannot be listed ({source}); nothing was taken for deleted. Correct its rights or check the disk", root.display())]
    RootUnreadable {
        /// The root.
        root: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl LookError {
    /// Returns a word that names the trouble and never changes, for problem codes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Replaced { .. } => "replaced",
            Self::Foreign { .. } => "foreign",
            Self::Older { .. } => "older",
            Self::RootUnreadable { .. } => "unreadable",
        }
    }
}

/// Why a batch could not be carried out or recorded as a whole. Each file is the old or the new one,
/// and what was displaced is kept.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The root is not the directory that was opened.
    #[error(transparent)]
    Root(#[from] LookError),
    /// The index could not be written.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The other side sent something that no honest one sends.
    #[error(
        "the other machine sent content that does not fit what was asked for (operation {index}: {what}); it was not used"
    )]
    BadPart {
        /// The operation.
        index: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An operation on the private folder or on the volume failed.
    #[error("{what} failed in {} ({source}); the files are as they were or kept. Check the disk", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A test stopped the work before one of its steps.
    #[cfg(test)]
    #[error("stopped by a test")]
    Stopped,
}

impl DiskError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// Why a version was not put back. What stands at the path is untouched.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// No such version.
    #[error("\"{path}\" has no such version; {there}")]
    NoVersion {
        /// The path.
        path: RelPath,
        /// A sentence that lists what there is.
        there: String,
    },
    /// A directory is in the way.
    #[error(
        "\"{path}\" is a directory now, which a file cannot replace; move it away, then restore again"
    )]
    IsDirectory {
        /// The path.
        path: RelPath,
    },
    /// Something that is not a directory stands above the path.
    #[error(
        "\"{path}\" cannot be restored because \"{above}\" is not a directory; move it away, then restore again"
    )]
    NotUnderDirectory {
        /// The path.
        path: RelPath,
        /// What stands above it.
        above: RelPath,
    },
    /// It was being written each time.
    #[error(
        "\"{path}\" is being written all the time; close the program that writes it, then restore again"
    )]
    Busy {
        /// The path.
        path: RelPath,
    },
    /// The file system refuses.
    #[error("{}", .0.text)]
    Held(Trouble),
    /// The disk as a whole refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The store of kept versions cannot be read.
    #[error("the kept version of \"{path}\" cannot be read ({source}); check the disk")]
    Kept {
        /// The path.
        path: RelPath,
        /// The error of the system.
        source: io::Error,
    },
}
