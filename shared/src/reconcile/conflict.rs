//! Conflict copies: both versions live on, the trees converge.
//!
//! The primary's version keeps the path. The other one becomes `stem (conflict <node> <UTC date-time>
//! <hash8>).ext` on both sides. A copy is known by its content, so the same conflict met again makes
//! no second file.

use super::walk::{Walk, content_source, op};
use super::{Conflict, Hold};
use crate::hash::SetHash;
use crate::path::{COMPONENT_BYTES_MAX, RelPath};
use crate::transfer::{Op, Source};
use crate::tree::{Entry, Side, Sight, Trees};
use crate::utc::UtcMs;

const MARK: &str = " (conflict ";
/// How much of a stem every copy of a long name still has, in bytes.
const PREFIX_BYTES: usize = 64;

/// How conflict copies are named.
#[derive(Debug, Clone)]
pub struct Naming {
    /// The pusher's name.
    pub alpha: String,
    /// The receiver's name.
    pub beta: String,
    /// The time of the plan.
    pub now: UtcMs,
}

/// Returns the name of a conflict copy of `path`.
///
/// A copy of a copy does not get a second suffix. A name that would be too long loses the end of
/// its stem. `None` when the directory's path leaves no room.
pub fn copy_name(path: &RelPath, node: &str, now: UtcMs, hash8: &str) -> Option<RelPath> {
    let (stem, ext) = split_name(path.name());
    let stem = stem.split_once(MARK).map_or(stem, |(plain, _)| plain);
    let node: String = node
        .chars()
        .map(|c| if c == '/' || c.is_control() { '-' } else { c })
        .take(32)
        .collect();
    let suffix = format!("{MARK}{node} {} {hash8}){ext}", now.for_name());
    let room = COMPONENT_BYTES_MAX.checked_sub(suffix.len())?;
    beside(
        path,
        &format!("{}{suffix}", &stem[..floor_boundary(stem, room)]),
    )
}

/// What the name of a conflict copy tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOf {
    /// The path that both sides had changed; with a shortened name when it was very long.
    pub path: RelPath,
    /// The node whose version lost.
    pub node: String,
    /// When the conflict was noticed.
    pub at: UtcMs,
}

/// Reads the name of a conflict copy; `None` for any other path.
pub fn copy_of(path: &RelPath) -> Option<CopyOf> {
    let (stem, rest) = path.name().split_once(MARK)?;
    // The first closing parenthesis behind eight digits: the extension may have some of its own.
    let (inner, ext) = rest.match_indices(')').find_map(|(at, _)| {
        let (inner, hash8) = rest[..at].rsplit_once(' ')?;
        let is_hash = hash8.len() == 8 && hash8.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then_some((inner, &rest[at + 1..]))
    })?;
    // `node date time`, where the node's name may have spaces.
    let (rest, time) = inner.rsplit_once(' ')?;
    let (node, date) = rest.rsplit_once(' ')?;
    let at = UtcMs::from_name(&format!("{date} {time}"))?;
    Some(CopyOf {
        path: beside(path, &format!("{stem}{ext}"))?,
        node: node.into(),
        at,
    })
}

/// Returns a name for what was a conflict copy, under which it is an ordinary file. Numbers above 1
/// make it another one.
pub(super) fn version_name(of: &CopyOf, number: u32) -> Option<RelPath> {
    let (stem, ext) = split_name(of.path.name());
    let again = match number {
        1 => String::new(),
        number => format!(" {number}"),
    };
    let suffix = format!(" (from {} {}{again}){ext}", of.node, of.at.for_name());
    let room = COMPONENT_BYTES_MAX.checked_sub(suffix.len())?;
    beside(
        &of.path,
        &format!("{}{suffix}", &stem[..floor_boundary(stem, room)]),
    )
}

fn floor_boundary(text: &str, bytes: usize) -> usize {
    let mut cut = text.len().min(bytes);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    cut
}

/// Splits a name into stem and extension (with its dot). A leading dot belongs to the stem.
fn split_name(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        // An extension that is longer than the stem has room for is none.
        Some(dot) if dot > 0 && name.len() - dot <= 32 => name.split_at(dot),
        _ => (name, ""),
    }
}

fn beside(path: &RelPath, name: &str) -> Option<RelPath> {
    match path.parent() {
        Some(parent) => parent.join(name).ok(),
        None => RelPath::parse(name).ok(),
    }
}

/// Plans a conflict at `path`: the loser's version, with what is `inner` to it, moves to a copy on
/// both sides, and the winner's version takes its place.
pub(super) fn plan(
    walk: &mut Walk<'_>,
    path: &RelPath,
    winner: Side,
    inner: Vec<(RelPath, Entry)>,
) -> Result<(), Hold> {
    let trees = walk.trees;
    let loser = winner.other();
    let (Some(won), Some(lost)) = (
        trees.sight(winner, path).entry().cloned(),
        trees.sight(loser, path).entry().cloned(),
    ) else {
        return Err(Hold::Conflict);
    };
    let naming = &walk.policy.naming;
    let node = if loser == Side::Alpha {
        &naming.alpha
    } else {
        &naming.beta
    };
    let hash8 = identity(path, &lost, &inner)?;
    let copy = match existing_copy(trees, path, &lost, &inner, &hash8) {
        Some(copy) => copy,
        None => free_name(trees, path, node, naming.now, &hash8).ok_or(Hold::NoCopyName)?,
    };
    let mut copies = vec![(path.clone(), lost.clone())];
    copies.extend(inner.iter().cloned());
    for (from, entry) in copies {
        let to = from.rebase(path, &copy).map_err(|_| Hold::NoCopyName)?;
        plan_copy(walk, loser, &from, &to, &entry);
    }
    walk.clear_subtree(loser, inner);
    let from = content_source(path, &won);
    walk.steps
        .make
        .push((loser, op(path, Some(lost), Some(won), from)));
    walk.plan.conflicts.push(Conflict {
        path: path.clone(),
        copy,
        lost: loser,
    });
    Ok(())
}

/// Plans that both sides get `entry`, which the loser has at `from`, at `to`.
fn plan_copy(walk: &mut Walk<'_>, loser: Side, from: &RelPath, to: &RelPath, entry: &Entry) {
    let lacking: Vec<Side> = [Side::Alpha, Side::Beta]
        .into_iter()
        .filter(|side| walk.trees.sight(*side, to).entry() != Some(entry))
        .collect();
    if lacking.is_empty() && walk.trees.agreed(to) != Some(entry) {
        walk.plan.agree.push((to.clone(), Some(entry.clone())));
    }
    let agrees = lacking.len() == 1;
    for side in lacking {
        let source = match entry {
            Entry::File { .. } if side == loser => Source::Here(from.clone()),
            Entry::File { .. } => Source::There(from.clone()),
            Entry::Dir | Entry::Symlink { .. } => Source::Nothing,
        };
        walk.steps.copies.push((
            side,
            Op {
                agrees,
                ..op(to, None, Some(entry.clone()), source)
            },
        ));
    }
}

/// Returns eight digits that stand for the version that lost.
fn identity(path: &RelPath, lost: &Entry, inner: &[(RelPath, Entry)]) -> Result<String, Hold> {
    if !lost.is_dir() {
        return Ok(lost.identity().short());
    }
    // The name of the directory must not matter, so its content is hashed as if it lay in `d`.
    let top = RelPath::parse("d").map_err(|_| Hold::NoCopyName)?;
    let mut set = SetHash::default();
    for (inside, entry) in inner {
        set.add(
            &inside.rebase(path, &top).map_err(|_| Hold::NoCopyName)?,
            entry,
        );
    }
    Ok(set.to_string()[..8].to_owned())
}

/// Finds a copy that an earlier meeting of the same conflict left.
fn existing_copy(
    trees: &Trees,
    path: &RelPath,
    lost: &Entry,
    inner: &[(RelPath, Entry)],
    hash8: &str,
) -> Option<RelPath> {
    let (stem, ext) = split_name(path.name());
    let stem = stem.split_once(MARK).map_or(stem, |(plain, _)| plain);
    let end = format!(" {hash8}){ext}");
    let mut found = None;
    // A short stem alone need not be a name (`.`), with the mark it is one; a long one was shortened.
    let prefix = match floor_boundary(stem, PREFIX_BYTES) {
        cut if cut < stem.len() => stem[..cut].to_owned(),
        _ => format!("{stem}{MARK}"),
    };
    for_each_beside(trees, path, &prefix, |candidate| {
        let holds = |side: Side, at: &RelPath, entry: &Entry| match trees.sight(side, at) {
            Sight::Is(there) => there == *entry,
            Sight::Absent => true,
            Sight::Blocked(_) => false,
        };
        let fits = |at: &RelPath, entry: &Entry| {
            holds(Side::Alpha, at, entry) && holds(Side::Beta, at, entry)
        };
        let somewhere = [Side::Alpha, Side::Beta]
            .iter()
            .any(|side| trees.sight(*side, candidate).entry().is_some());
        // A long stem was shortened in the name of the copy.
        let is_copy = candidate.name().ends_with(&end)
            && candidate
                .name()
                .split_once(MARK)
                .is_some_and(|(shortened, _)| stem.starts_with(shortened));
        if candidate != path
            && is_copy
            && somewhere
            && fits(candidate, lost)
            && inner.iter().all(|(inside, entry)| {
                inside
                    .rebase(path, candidate)
                    .is_ok_and(|at| fits(&at, entry))
            })
        {
            found = Some(candidate.clone());
        }
    });
    found
}

fn for_each_beside(trees: &Trees, path: &RelPath, prefix: &str, mut visit: impl FnMut(&RelPath)) {
    let Some(first) = beside(path, prefix) else {
        return;
    };
    let sibling = |found: &&RelPath| !found.as_str()[first.as_str().len()..].contains('/');
    let starts = |found: &&RelPath| found.as_str().starts_with(first.as_str());
    trees
        .base()
        .range(first.clone()..)
        .map(|(path, _)| path)
        .take_while(starts)
        .filter(sibling)
        .for_each(&mut visit);
    for side in [Side::Alpha, Side::Beta] {
        let apart = trees.view(side).apart();
        apart
            .range(first.clone()..)
            .map(|(path, _)| path)
            .take_while(starts)
            .filter(sibling)
            .for_each(&mut visit);
    }
}

/// Finds a name at which nothing is on either side. Another content under the same name has the
/// same eight digits; that has a chance of 2^-32, and a later second settles it.
fn free_name(
    trees: &Trees,
    path: &RelPath,
    node: &str,
    now: UtcMs,
    hash8: &str,
) -> Option<RelPath> {
    (0..10)
        .filter_map(|later| copy_name(path, node, UtcMs(now.0 + later * 1000), hash8))
        .find(|name| {
            [Side::Alpha, Side::Beta]
                .iter()
                .all(|side| trees.sight(*side, name) == Sight::Absent)
        })
}
