//! What must hold whatever happens. The oracle watches people and disks, and never the rules of the
//! sync itself; so it cannot share a mistake with them.
//!
//! * *Nothing lost*: each content that somebody saved, and did not overwrite or delete on that same
//!   side, is in a tree or in a kept store.
//! * *Base sound*: no power cut takes a file's content that a base row of either side speaks of.
//! * *No false deletion*: nothing is deleted that is still there on the other side, readable or not.
//! * *No false conflict*: a conflict copy only where both sides were changed since all was equal.
//! * *No false "in sync"*: whoever says so is right, as far as both disks were looked at.
//! * At rest: both trees are equal, both sides say so, and nobody does anything.

use std::collections::{BTreeMap, BTreeSet};

use shared::hash::ContentHash;
use shared::path::RelPath;
use shared::transfer::{Batch, Op};
use shared::tree::{Entry, Side};

use crate::disk::Disk;
use crate::machine::GUARDED;
use crate::mirror::{Cloud, Ledger, THERE};
use crate::volume::{Volume, content};

/// A tree.
pub(crate) type Tree = BTreeMap<RelPath, Entry>;

/// A volume just before a power cut.
#[derive(Debug)]
pub(crate) struct BeforeCut {
    tree: Tree,
    everything: BTreeSet<ContentHash>,
    kept: BTreeSet<ContentHash>,
}

impl BeforeCut {
    /// Looks at a volume.
    pub(crate) fn of(volume: &Volume) -> Self {
        Self {
            tree: volume.tree(),
            everything: volume.all_contents(),
            kept: volume.kept_contents(),
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// What people saved and did not give up, where.
    pub(crate) owed: [BTreeSet<(RelPath, ContentHash)>; 3],
    /// Where each side was changed by people, or by a power cut, since all was equal.
    pub(crate) touched: [BTreeSet<RelPath>; 3],
    /// Where somebody made anew what was there once, and may be agreed on already. Nobody makes that
    /// durable: it looks like what it was.
    redone: [BTreeSet<RelPath>; 2],
    /// Where a conflict was answered with a copy since all was equal. What it displaces is in the copy,
    /// and somebody may have deleted that already.
    answered: BTreeSet<RelPath>,
    /// Every content that people ever had at a path of their side.
    known: [BTreeSet<(RelPath, ContentHash)>; 2],
    /// Whether there is a guard, and whether a person has answered it since all was equal.
    guarded: bool,
    pub(crate) guard_answered: bool,
    /// Whether an index was lost since all was equal: then nobody knows who changed what.
    pub(crate) index_lost: bool,
    /// Whether anything was ever ignored: what both sides have of it is not remembered.
    pub(crate) rules_changed: bool,
    /// The first thing that was wrong.
    violation: Option<String>,
    /// What there is to remember because of a mirror.
    pub(crate) ledger: Ledger,
}

impl Oracle {
    /// Makes one that has seen nothing.
    pub(crate) fn new(guarded: bool) -> Self {
        Self {
            guarded,
            ..Self::default()
        }
    }

    /// Notes that something is wrong, if nothing was before.
    pub(crate) fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// Returns what was wrong.
    pub(crate) fn violation(&self) -> Option<&String> {
        self.violation.as_ref()
    }

    // What people do

    pub(crate) fn saves(&mut self, side: Side, path: &RelPath, content: ContentHash) {
        self.owed[side as usize].insert((path.clone(), content));
        self.makes(side, path, content);
    }

    fn makes(&mut self, side: Side, path: &RelPath, content: ContentHash) {
        if !self.known[side as usize].insert((path.clone(), content)) {
            self.redone[side as usize].insert(path.clone());
        }
    }

    /// Takes it that somebody overwrites or deletes what is there now. What was there before, and was
    /// displaced by the sync, is still owed.
    pub(crate) fn gives_up(&mut self, side: Side, path: &RelPath, content: ContentHash) {
        self.owed[side as usize].remove(&(path.clone(), content));
        self.known[side as usize].insert((path.clone(), content));
    }

    pub(crate) fn moves(&mut self, side: Side, from: &RelPath, to: &RelPath, content: ContentHash) {
        self.known[side as usize].insert((from.clone(), content));
        self.makes(side, to, content);
        let owed = &mut self.owed[side as usize];
        if owed.remove(&(from.clone(), content)) {
            owed.insert((to.clone(), content));
        }
    }

    /// Takes it that the sync renamed what was there: its owner may delete it at its new place.
    pub(crate) fn renamed(
        &mut self,
        side: Side,
        from: &RelPath,
        to: &RelPath,
        content: ContentHash,
    ) {
        let owed = &mut self.owed[side as usize];
        if owed.remove(&(from.clone(), content)) {
            owed.insert((to.clone(), content));
        }
        // What they wrote before it was renamed is a change of what is there now.
        let touched = &mut self.touched[side as usize];
        if touched.contains(from) {
            touched.insert(to.clone());
        }
    }

    pub(crate) fn touches(&mut self, side: Side, path: &RelPath) {
        self.touched[side as usize].insert(path.clone());
        self.ledger.touching.push(path.clone());
    }

    // Power

    /// Compares a disk before and after a power cut with what the indexes of both sides say.
    pub(crate) fn power_cut(
        &mut self,
        side: Side,
        before: &BeforeCut,
        after: &Disk,
        bases: [&Tree; 2],
    ) {
        let tree = after.volume.tree();
        for (whose, base) in [Side::Alpha, Side::Beta].into_iter().zip(bases) {
            for (path, agreed) in base {
                let had = before.tree.get(path).and_then(content);
                let Some(content_agreed) = content(agreed).filter(|agreed| Some(*agreed) == had)
                else {
                    continue;
                };
                let has = tree.get(path).and_then(content);
                // Somebody may have made anew what a batch had put there.
                let redone = self.redone[side as usize].contains(path)
                    || self.touched[side as usize].contains(path)
                        && after.placed.contains(&(path.clone(), content_agreed));
                if has != Some(content_agreed) && !redone {
                    self.fail(format!(
                        "base not sound: the base of {whose:?} has {path} = {agreed:?}, and a power cut \
                         on {side:?} left {:?} of it",
                        tree.get(path)
                    ));
                }
            }
        }
        self.redone[side as usize].clear();
        for path in before.tree.keys().chain(tree.keys()) {
            if before.tree.get(path) != tree.get(path) {
                self.touched[side as usize].insert(path.clone());
                self.ledger.unsure.insert(path.clone());
            }
        }
        self.forgive(side, before, after);
    }

    /// Takes back what a power cut took from its owner: what was never durable is nobody's fault, and
    /// what the bases speak of was looked at before.
    fn forgive(&mut self, side: Side, before: &BeforeCut, after: &Disk) {
        let BeforeCut {
            tree: before,
            everything,
            kept,
        } = before;
        let tree = after.volume.tree();
        let left = after.volume.contents(false);
        let still_kept = after.volume.kept_contents();
        let was_kept = |wanted: &ContentHash| kept.contains(wanted) && !still_kept.contains(wanted);
        let has = |tree: &Tree, path: &RelPath, wanted: ContentHash| {
            tree.get(path).and_then(content) == Some(wanted)
        };
        let owed = std::mem::take(&mut self.owed[side as usize]);
        for (path, wanted) in owed {
            if has(before, &path, wanted) && !has(&tree, &path, wanted) {
                // Its owner may have moved it here, and finds it where it was before that.
                let back = tree
                    .keys()
                    .filter(|at| has(&tree, at, wanted) && !has(before, at, wanted));
                let back: Vec<RelPath> = back.cloned().collect();
                self.owed[side as usize].extend(back.into_iter().map(|at| (at, wanted)));
            } else if was_kept(&wanted) && !has(&tree, &path, wanted) {
                // It was displaced before its owner had made it durable.
            } else if left.contains(&wanted) || !everything.contains(&wanted) {
                self.owed[side as usize].insert((path, wanted));
            }
        }
    }

    // What the sync does

    /// Takes it that a conflict copy is made.
    pub(crate) fn conflict(&mut self, path: &RelPath) {
        self.answered.insert(path.clone());
        let near = |other: &RelPath| other == path || other.is_below(path) || path.is_below(other);
        let mut unsure = self.ledger.anew.iter().chain(&self.ledger.unsure);
        if unsure.any(near) {
            self.ledger.unsure.insert(path.clone());
            return;
        }
        let hands = self.touched.iter().filter(|it| it.iter().any(near));
        let both = hands.count() >= 2;
        // The sync itself has made a copy on both sides, before it was agreed on.
        let made = shared::reconcile::copy_of(path).is_some();
        if !both && !made && !self.index_lost && !self.rules_changed {
            self.fail(format!(
                "false conflict: {path} gets a copy, and only one side was changed there: {:?}",
                self.touched
            ));
        }
    }

    /// Looks whether what a side is about to delete is gone on the other side, as far as nobody touched
    /// it there. What cannot be read, or was not seen, is not gone.
    pub(crate) fn check_deletions(&mut self, on: Side, batch: &Batch, other: &Disk) {
        let deleted = batch.ops.iter().filter(|op| op.make.is_none());
        for path in deleted.map(|op| &op.path) {
            let near = |at: &RelPath| at == path || at.is_below(path) || path.is_below(at);
            let touched = self.touched[on.other() as usize].iter().any(near);
            let stands = other.volume.entry(path).is_some();
            if stands && !touched && !self.rules_changed && !self.crossed_near(on, path) {
                self.fail(format!(
                    "false deletion: {path} goes on {on:?}, and nobody touched it on the other side"
                ));
            }
        }
    }

    /// Takes it that a person has answered the guard: what it waited for may pass.
    pub(crate) fn answered_the_guard(&mut self) {
        self.guard_answered = true;
    }

    /// Looks whether the guard was asked. A batch may be a part of what it judged, and it does not count
    /// what turned up elsewhere, if only for a moment, or has a conflict copy: so only what is too much by itself is wrong.
    pub(crate) fn check_guard(&mut self, on: Side, batch: &Batch, disks: [&Disk; 2]) {
        if !self.guarded || self.guard_answered {
            return;
        }
        let here = disks[on as usize].volume.tree();
        let elsewhere = |path: &RelPath, wanted: ContentHash| {
            let of = |tree: &Tree| {
                tree.iter()
                    .any(|(at, entry)| at != path && content(entry) == Some(wanted))
            };
            let mut known = self.known.iter().flatten();
            of(&here)
                || of(&disks[on.other() as usize].volume.tree())
                || known.any(|(at, content)| at != path && *content == wanted)
        };
        let answered = |path: &RelPath| {
            let near = |top: &RelPath| path == top || path.is_below(top);
            self.answered.iter().any(near)
        };
        let counts = |op: &&Op| {
            let lost = op.expect.as_ref().and_then(content);
            lost.is_some_and(|lost| !answered(&op.path) && !elsewhere(&op.path, lost))
        };
        let (deletes, rewrites): (Vec<&Op>, Vec<&Op>) = batch
            .ops
            .iter()
            .filter(counts)
            .partition(|op| op.make.is_none());
        let is_new =
            |op: &&&Op| op.make.as_ref().and_then(content) != op.expect.as_ref().and_then(content);
        let (deletes, rewrites) = (
            deletes.len() as u64,
            rewrites.iter().filter(is_new).count() as u64,
        );
        // What the pusher has seen may be older than the tree: more files there would let more pass.
        let seen = disks[on as usize].seen_tree();
        let agreed = disks[on as usize].agreed();
        let files = [&here, &seen, &agreed].map(|tree| {
            tree.values()
                .filter(|entry| content(entry).is_some())
                .count() as u64
        });
        let files = files.into_iter().max().unwrap_or_default() + deletes;
        let exceeds = |count: u64, min: u64, percent: u8| {
            count >= min && count * 100 > files * u64::from(percent)
        };
        if exceeds(deletes, GUARDED.delete_min, GUARDED.delete_percent)
            || exceeds(rewrites, GUARDED.rewrite_min, GUARDED.rewrite_percent)
        {
            self.fail(format!(
                "guard not respected: {deletes} deletions and {rewrites} rewrites of {files} files on {on:?}"
            ));
        }
    }

    /// Looks whether what a side is about to delete was agreed on: what somebody changed there since must
    /// live on in a tree, if only as a conflict copy.
    pub(crate) fn check_agreed_deletions(&mut self, on: Side, batch: &Batch, disks: [&Disk; 2]) {
        if self.guard_answered {
            // Somebody may have had a whole batch undone.
            return;
        }
        let trees = [disks[0].volume.tree(), disks[1].volume.tree()];
        let bases = disks.map(Disk::agreed);
        for op in batch.ops.iter().filter(|op| op.make.is_none()) {
            let Some(wanted) = op.expect.as_ref().and_then(content) else {
                continue;
            };
            // A deletion overrules a change of the exec bit.
            let agreed = bases
                .iter()
                .any(|base| base.get(&op.path).and_then(content) == Some(wanted));
            let elsewhere = trees
                .iter()
                .flatten()
                .any(|(path, entry)| *path != op.path && content(entry) == Some(wanted));
            let owned = self.owed[on as usize].contains(&(op.path.clone(), wanted));
            let answered = |top: &RelPath| op.path == *top || op.path.is_below(top);
            let in_copy = self.answered.iter().any(answered);
            let crossed = self.crossed_near(on, &op.path);
            if owned && !agreed && !elsewhere && !in_copy && !crossed && !self.index_lost {
                self.fail(format!(
                    "false deletion: {} goes on {on:?}, and nobody agreed on it",
                    op.path
                ));
            }
        }
    }

    /// Looks whether everything that is owed is there.
    pub(crate) fn check_nothing_lost(&mut self, disks: [&Disk; 2], at_rest: bool) {
        let there = disks.map(|disk| disk.volume.contents(at_rest));
        let lost = [Side::Alpha, Side::Beta].into_iter().find_map(|side| {
            let missing = |(_, content): &&(RelPath, ContentHash)| {
                !there.iter().any(|there| there.contains(content))
            };
            let found = self.owed[side as usize].iter().find(missing)?;
            Some((side, found.clone()))
        });
        if let Some((side, (path, content))) = lost {
            self.fail(format!(
                "lost: {content:?}, which was saved on {side:?} as {path}, is nowhere"
            ));
        }
    }

    /// As [`Oracle::check_nothing_lost`], for what the person at the mirror saved.
    pub(crate) fn check_nothing_lost_there(&mut self, disks: [&Disk; 2], cloud: &Cloud) {
        let there = disks.map(|disk| disk.volume.contents(false));
        let here = cloud.contents();
        let missing = |(_, content): &&(RelPath, ContentHash)| {
            !here.contains(content) && !there.iter().any(|there| there.contains(content))
        };
        if let Some((path, content)) = self.owed[THERE].iter().find(missing).cloned() {
            self.fail(format!(
                "lost: {content:?}, which was saved at the mirror as {path}, is nowhere"
            ));
        }
    }

    /// Looks at both sides when everything has come to rest.
    pub(crate) fn check_rest(&mut self, disks: [&Disk; 2]) {
        let trees = disks.map(synced);
        if trees[0] != trees[1] {
            self.fail(format!(
                "not converged: {}",
                difference(&trees[0], &trees[1])
            ));
        }
        for (side, disk) in [Side::Alpha, Side::Beta].into_iter().zip(disks) {
            let mut agreed = disk.agreed();
            keep_synced(disk, &mut agreed);
            let tree = &trees[side as usize];
            if agreed != *tree {
                self.fail(format!(
                    "base of {side:?} is not its tree: {}",
                    difference(&agreed, tree)
                ));
            }
        }
        self.check_nothing_lost(disks, true);
        self.touched = Default::default();
        self.ledger = Ledger::default();
        self.answered.clear();
        self.guard_answered = false;
        self.index_lost = false;
    }

    /// Takes it that a side says "in sync" while nothing is on its way.
    pub(crate) fn check_in_sync(&mut self, who: Side, disks: [&Disk; 2]) {
        let [alpha, beta] = disks.map(|disk| {
            let mut tree = disk.seen_tree();
            // One side may have heard of new rules before the other.
            disks.iter().for_each(|disk| keep_synced(disk, &mut tree));
            tree
        });
        if alpha != beta {
            self.fail(format!(
                "false \"in sync\" on {who:?}: {}",
                difference(&alpha, &beta)
            ));
        }
    }
}

/// Returns the part of a disk's tree that is synced under its rules.
fn synced(disk: &Disk) -> Tree {
    let mut tree = disk.volume.tree();
    keep_synced(disk, &mut tree);
    tree
}

fn keep_synced(disk: &Disk, tree: &mut Tree) {
    // To ask costs much, and most histories have no rules.
    if !disk.rules.text().is_empty() {
        tree.retain(|path, entry| !disk.rules.ignores_within(path, entry.is_dir()));
    }
}

/// Describes where two trees differ.
pub(crate) fn difference(a: &Tree, b: &Tree) -> String {
    let paths: BTreeSet<&RelPath> = a.keys().chain(b.keys()).collect();
    let lines: Vec<String> = paths
        .into_iter()
        .filter(|path| a.get(*path) != b.get(*path))
        .map(|path| format!("{path}: {:?} / {:?}", a.get(path), b.get(path)))
        .collect();
    lines.join(", ")
}
