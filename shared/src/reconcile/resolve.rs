//! Resolving a conflict that was answered with a copy: a person says which version counts.

use std::collections::BTreeMap;

use super::conflict::{self, copy_of};
use super::walk::op;
use crate::path::RelPath;
use crate::transfer::{Op, Source};
use crate::tree::{Entry, Side, Sight, Trees};

/// Why a copy cannot be resolved now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveRefused {
    /// Something about it is still on its way.
    #[error("it is not the same on both machines yet")]
    Unsettled,
    /// It is no conflict copy.
    #[error("it is not the copy of a conflict")]
    NoCopy,
    /// The path that both had changed is not there any more.
    #[error("the file beside it is gone; rename the copy to the name that it should have")]
    Gone,
    /// The path would be too long.
    #[error("a name would be too long")]
    TooLong,
}

/// Returns the operations that end a conflict, for both sides: `use_copy` puts the copy in the place of
/// what stands at the path; else the copy goes. What is displaced is kept, as always.
///
/// # Errors
/// [`ResolveRefused`]; nothing is to be done then.
pub fn resolve_copy(
    trees: &Trees,
    copy: &RelPath,
    use_copy: bool,
) -> Result<Vec<(Side, Op)>, ResolveRefused> {
    let path = copy_of(copy).ok_or(ResolveRefused::NoCopy)?.path;
    let copied = settled(trees, copy)?;
    if copied.is_empty() {
        return Err(ResolveRefused::NoCopy);
    }
    let mut ops = Vec::new();
    if use_copy {
        let standing = settled(trees, &path)?;
        if standing.is_empty() {
            return Err(ResolveRefused::Gone);
        }
        let mut wanted: BTreeMap<RelPath, (&RelPath, &Entry)> = BTreeMap::new();
        for (from, entry) in &copied {
            let to = from
                .rebase(copy, &path)
                .map_err(|_| ResolveRefused::TooLong)?;
            wanted.insert(to, (from, entry));
        }
        // The deepest first, so that a directory is empty when its turn comes.
        for (gone, old) in standing
            .iter()
            .rev()
            .filter(|(at, _)| !wanted.contains_key(*at))
        {
            ops.push(op(gone, Some(old.clone()), None, Source::Nothing));
        }
        for (to, (from, entry)) in wanted {
            let old = standing.get(&to);
            if old == Some(entry) {
                continue;
            }
            ops.push(op(
                &to,
                old.cloned(),
                Some(entry.clone()),
                here(from, entry),
            ));
        }
    }
    for (gone, old) in copied.iter().rev() {
        ops.push(op(gone, Some(old.clone()), None, Source::Nothing));
    }
    Ok(on_both(ops))
}

/// Returns a name for a copy under which it is an ordinary file, at which nothing stands.
///
/// # Errors
/// [`ResolveRefused`].
pub fn name_as_version(trees: &Trees, copy: &RelPath) -> Result<RelPath, ResolveRefused> {
    let of = copy_of(copy).ok_or(ResolveRefused::NoCopy)?;
    let is_free = |name: &RelPath| {
        [Side::Alpha, Side::Beta]
            .iter()
            .all(|side| trees.sight(*side, name) == Sight::Absent)
    };
    (1..100)
        .filter_map(|number| conflict::version_name(&of, number))
        .find(is_free)
        .ok_or(ResolveRefused::TooLong)
}

/// Returns the operations that give a copy another name, on both sides.
///
/// # Errors
/// [`ResolveRefused`]; nothing is to be done then.
pub fn rename_copy(
    trees: &Trees,
    copy: &RelPath,
    name: &RelPath,
) -> Result<Vec<(Side, Op)>, ResolveRefused> {
    let copied = settled(trees, copy)?;
    let mut ops = Vec::new();
    for (from, entry) in &copied {
        let to = from
            .rebase(copy, name)
            .map_err(|_| ResolveRefused::TooLong)?;
        ops.push(op(&to, None, Some(entry.clone()), here(from, entry)));
    }
    for (gone, old) in copied.iter().rev() {
        ops.push(op(gone, Some(old.clone()), None, Source::Nothing));
    }
    Ok(on_both(ops))
}

fn here(from: &RelPath, entry: &Entry) -> Source {
    match entry {
        Entry::File { .. } => Source::Here(from.clone()),
        Entry::Dir | Entry::Symlink { .. } => Source::Nothing,
    }
}

fn on_both(ops: Vec<Op>) -> Vec<(Side, Op)> {
    let both = |op: Op| {
        [Side::Alpha, Side::Beta].map(|side| {
            let op = Op {
                agrees: false,
                ..op.clone()
            };
            (side, op)
        })
    };
    ops.into_iter().flat_map(both).collect()
}

/// Returns what both sides agree on at and below `top`.
fn settled(trees: &Trees, top: &RelPath) -> Result<BTreeMap<RelPath, Entry>, ResolveRefused> {
    let apart = |path: &RelPath| {
        [Side::Alpha, Side::Beta]
            .iter()
            .any(|side| trees.view(*side).apart().contains_key(path))
    };
    let unsettled_below = [Side::Alpha, Side::Beta].iter().any(|side| {
        crate::path::below(trees.view(*side).apart(), top)
            .next()
            .is_some()
    });
    if apart(top) || unsettled_below {
        return Err(ResolveRefused::Unsettled);
    }
    let mut entries: BTreeMap<RelPath, Entry> =
        trees.entries_below(Side::Alpha, top).into_iter().collect();
    if let Some(entry) = trees.agreed(top) {
        entries.insert(top.clone(), entry.clone());
    }
    Ok(entries)
}
