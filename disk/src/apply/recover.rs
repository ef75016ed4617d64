//! Recovery: what a crash left in the stage.
//!
//! A `.ready` file is either what was staged, which a new plan stages again, or what was displaced by
//! an exchange and not yet moved to the kept store. The catalogue knows the inode of what was staged:
//! anything else under that name is a user's file, and is kept.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use rustix::fs::{FileType, Stat};

use crate::fingerprint::{self, now_ns};
use crate::kept::{Kept, Line, new_id, what_is};
use crate::root::Root;
use crate::stage::{PART, discard};
use crate::volume::{At, rename_new};
use crate::{handle, utc_now};

/// How long a long file that was interrupted waits to be resumed.
const PART_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Length of a content hash in its name.
const HASH_DIGITS: usize = 64;

/// Clears the stage. What was displaced and not yet kept is kept now.
pub(crate) fn recover(root: &Root, kept: &Kept) -> io::Result<()> {
    let names = handle::list(&root.stage)?;
    if names.is_empty() {
        return Ok(());
    }
    let lines: HashMap<String, Line> = kept
        .lines()?
        .into_iter()
        .map(|line| (line.id.clone(), line))
        .collect();
    for raw in names {
        let name = String::from_utf8_lossy(&raw).into_owned();
        let Some(stat) = handle::stat_at(&root.stage, &name)? else {
            continue;
        };
        if let Some(content) = name.strip_suffix(PART) {
            let age = now_ns().saturating_sub(fingerprint::mtime_ns(&stat));
            // A name that is no content hash is never looked for again.
            if content.len() != HASH_DIGITS || age > PART_AGE_MAX.as_nanos() as i64 {
                discard(root, &name);
            }
            continue;
        }
        let line = name.strip_suffix(".ready").and_then(|id| lines.get(id));
        match line {
            Some(line) if line.staged != Some(fingerprint::inode(&stat)) => {
                keep_displaced(root, kept, line, &name, &stat)?;
            }
            _ => discard(root, &name),
        }
    }
    Ok(())
}

fn keep_displaced(
    root: &Root,
    kept: &Kept,
    line: &Line,
    name: &str,
    stat: &Stat,
) -> io::Result<()> {
    if fingerprint::kind(stat) == FileType::Directory {
        // An exchanged directory was empty; if somebody put something in it since, it stays.
        discard(root, name);
        if handle::stat_at(&root.stage, name)?.is_none() {
            return Ok(());
        }
    }
    let at = At::new(&root.stage, name);
    let what = what_is(at, stat).unwrap_or_else(|| line.what.clone());
    let id = match handle::stat_at(&root.kept, line.id.as_str())? {
        None => line.id.clone(),
        Some(_) => new_id(utc_now()),
    };
    let found = Line {
        id,
        what,
        why: "recovered".to_owned(),
        staged: None,
        ..line.clone()
    };
    kept.append(std::slice::from_ref(&found))?;
    kept.sync()?;
    rename_new(at, At::new(&root.kept, &found.id))?;
    tracing::info!(path = %found.path, id = found.id, "kept what a crash had left in the stage");
    Ok(rustix::fs::fsync(&root.kept)?)
}
