//! What counts as agreed is durable first.
//!
//! Content that was given is durable already ([`Replica::give`]). The rest of what somebody does to a tree
//! has no content that is given: a directory, a link, an exec bit, a deletion, a name. If the power took
//! one of them after its row was recorded, the next look would find that it was undone here, and undo it
//! on the other side as well.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use shared::path::RelPath;
use shared::tree::Entry;
use shared::wire::AgreedRow;

use crate::{Replica, handle, volume};

/// What a commit makes durable before it records its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// Everything that was written on the root's volume before: for rows that were found equal on both
    /// sides, which are many at a first sync.
    Tree,
    /// What the rows speak of.
    Rows,
    /// Nothing: it is durable.
    Nothing,
}

impl Replica {
    /// Makes durable what stands, or no longer stands, at these paths.
    pub(crate) fn sync_rows(&self, rows: &[AgreedRow]) -> io::Result<()> {
        let (mut files, mut open_dirs) = (Vec::new(), Vec::new());
        let mut dirs: BTreeSet<Option<RelPath>> = BTreeSet::new();
        for (path, row) in rows {
            if !volume::worth_holding(files.len() + open_dirs.len()) {
                return volume::sync_volume(self.root.as_fd());
            }
            if let Some(Entry::File { .. }) = row.entry
                && let Ok((file, _)) = handle::open_tree_file(self.root.as_fd(), path)
            {
                files.push(file);
            }
            // Where the directory is gone as well, its own name has to be durably gone.
            let mut dir = path.parent();
            while dirs.insert(dir.clone()) {
                match handle::open_tree_dir(self.root.as_fd(), dir.as_ref()) {
                    Ok(handle) => {
                        open_dirs.push(handle);
                        break;
                    }
                    Err(_) => dir = dir.and_then(|dir| dir.parent()),
                }
            }
        }
        let mut open: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        open.extend(open_dirs.iter().map(AsFd::as_fd));
        volume::sync_all(self.root.as_fd(), &open, false)
    }
}
