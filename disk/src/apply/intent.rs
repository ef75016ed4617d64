//! Intent: what a batch is about to agree on, written down before the first change.
//!
//! Between *in place* and *recorded* a process can die. The other side's content stands here then, and
//! no index says that it came from there: an edit over there would meet it as a second, different
//! creation, and a deletion over there would be undone. So the rows of a batch are durable before its
//! first change, with the inode of what was staged for each. After a crash, a path at which that very
//! inode stands was placed by us, and its row belongs into the base, whatever was written into the file
//! since.
//!
//! It lies in the private folder, under the lock of whoever applies, and is emptied when the rows are recorded.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use shared::path::RelPath;
use shared::transfer::Op;
use shared::tree::{Base, BaseRow, Entry, Gen};
use shared::wire::AgreedRow;

use super::Job;
use super::steps::{Step, steps};
use crate::root::Root;
use crate::{fingerprint, handle};

/// Name of the file in the private folder.
const INTENT: &str = "intent";
/// Version of what it looks like; another one is not read.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Intent {
    version: u8,
    batch: Gen,
    rows: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    path: RelPath,
    make: Option<Entry>,
    /// Inode of what was staged.
    staged: Option<u64>,
    /// Inode and modification time of the file of which only the exec bit changes.
    changes_bit: Option<(u64, i64)>,
}

/// Writes down what a batch is about to agree on. The barrier makes it durable.
pub(super) fn write(root: &Root, batch: Gen, jobs: &[Job<'_>]) -> io::Result<File> {
    let row = |job: &Job<'_>| Row {
        path: job.op.path.clone(),
        make: job.op.make.clone(),
        staged: job.ready().map(|ready| ready.inode),
        changes_bit: changes_bit(root, job.op),
    };
    let plain = |row: (&RelPath, Option<Entry>, Option<u64>)| Row {
        path: row.0.clone(),
        make: row.1,
        staged: row.2,
        changes_bit: None,
    };
    let rows = jobs
        .iter()
        .filter(|job| job.op.agrees)
        .flat_map(|job| {
            // What is moved has its inode already.
            let moved = job.moved.iter().flat_map(|moved| {
                let (entry, inode) = (moved.row.entry.clone(), moved.row.print.inode());
                [
                    (&moved.to, Some(entry), Some(inode)),
                    (&moved.from, None, None),
                ]
            });
            let one = job.op.moves().is_none().then(|| row(job));
            moved.map(plain).chain(one)
        })
        .collect();
    let intent = Intent {
        version: VERSION,
        batch,
        rows,
    };
    let bytes = postcard::to_stdvec(&intent).map_err(io::Error::other)?;
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(
        &root.private,
        INTENT,
        flags,
        Mode::RUSR | Mode::WUSR,
    )?);
    file.write_all(&bytes)?;
    Ok(file)
}

fn changes_bit(root: &Root, op: &Op) -> Option<(u64, i64)> {
    if !steps(op, false).contains(&Step::SetExec) {
        return None;
    }
    let parent = handle::open_parent(root.as_fd(), &op.path).ok()?;
    let stat = handle::stat_at(&parent, op.path.name()).ok()??;
    Some((fingerprint::inode(&stat), fingerprint::mtime_ns(&stat)))
}

/// Empties it: the rows are recorded. If that is lost with the power, the rows are found in the base.
pub(super) fn clear(root: &Root) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(openat(&root.private, INTENT, flags, Mode::empty())?);
    Ok(())
}

/// Returns the rows that the last batch before a crash agreed on and did not record. Rows up to batch
/// `resolved` were stored on both sides: an intent of such a batch is one that was emptied, and that a
/// power cut has brought back after its rows, or the whole base, were forgotten.
///
/// # Errors
/// When the tree cannot be looked at. An intent that cannot be read was not durable, so nothing was
/// changed under it.
pub(crate) fn recover(root: &Root, base: &Base, resolved: Gen) -> io::Result<Vec<AgreedRow>> {
    let mut bytes = Vec::new();
    match handle::open_file(&root.private, INTENT) {
        Ok((mut file, _)) => drop(io::Read::read_to_end(&mut file, &mut bytes)?),
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let Ok(Intent {
        version: VERSION,
        batch,
        rows,
    }) = postcard::from_bytes(&bytes)
    else {
        return Ok(Vec::new());
    };
    let mut unrecorded = Vec::new();
    if batch <= resolved {
        return Ok(unrecorded);
    }
    for row in rows {
        let is_recorded = base
            .get(&row.path)
            .is_some_and(|known| known.batch >= batch);
        if !is_recorded && is_in_place(root, &row)? {
            let agreed = BaseRow {
                entry: row.make,
                batch,
            };
            unrecorded.push((row.path, agreed));
        }
    }
    Ok(unrecorded)
}

/// Says whether what the batch wanted at a path was put there.
fn is_in_place(root: &Root, row: &Row) -> io::Result<bool> {
    let there = match handle::open_parent(root.as_fd(), &row.path) {
        Ok(parent) => handle::stat_at(&parent, row.path.name())?,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(match (&row.make, there) {
        (None, None) => true,
        (Some(Entry::Dir), Some(stat)) => fingerprint::kind(&stat) == FileType::Directory,
        (Some(Entry::File { exec, .. }), Some(stat)) if row.changes_bit.is_some() => {
            let file = (fingerprint::inode(&stat), fingerprint::mtime_ns(&stat));
            row.changes_bit == Some(file) && fingerprint::is_exec(&stat) == *exec
        }
        (Some(_), Some(stat)) => row.staged == Some(fingerprint::inode(&stat)),
        _ => false,
    })
}
