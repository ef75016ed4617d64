//! What must hold of all three places, and of what rounds do. A person at the mirror is a third hand.
//!
//! * *Nothing lost*: what that person saved is in a tree, in a kept store, or in the mirror with its
//!   trash and what was replaced there.
//! * *No false change*: a round changes a tree, or takes something away, only where another hand did
//!   something since all was equal.
//! * At rest: the mirror is equal to both trees; and where one hand alone did something, it is as that
//!   hand left it.
//!
//! Not judged, since what there is does not tell more (`docs/decisions/0017-mirror.md`): where two items have one name; where a person
//! saved what a round was replacing; what comes back after it was taken away at the mirror before the node that looks next had met it,
//! or at a machine when the pair had agreed on it half; and whether there is a conflict where a person put something in the place of
//! something else.

use std::collections::{BTreeMap, BTreeSet};

use mirror::store::Store;
use shared::path::RelPath;
use shared::reconcile::copy_of;
use shared::tree::{Entry, Side};

use super::cloud::{Cloud, Did, Thing};
use super::text::{as_it_stands, content_of};
use crate::disk::Disk;
use crate::oracle::{Oracle, Tree};
use crate::volume::{Volume, content};

/// The hand at the mirror; those at the machines are their sides.
pub(crate) const THERE: usize = 2;

/// What the oracle remembers because there is a mirror.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// What each hand left where it did something since all was equal.
    left: [BTreeMap<RelPath, Option<Entry>>; 3],
    /// Where nobody can say what should be: a power cut took something, or two things have one name.
    pub(crate) unsure: BTreeSet<RelPath>,
    /// Where the pair had agreed half when it went on by the mirror.
    half: BTreeSet<RelPath>,
    /// Where rounds have changed each tree since all was equal.
    by_round: [BTreeSet<RelPath>; 2],
    /// Where the person at the mirror made something new in the place of something else. That has no mark, so it says
    /// nothing of what it comes from to a node that had not met what stood there before.
    pub(crate) anew: BTreeSet<RelPath>,
    /// What the hand that is doing something now touches.
    pub(crate) touching: Vec<RelPath>,
}

pub(crate) fn near(a: &RelPath, b: &RelPath) -> bool {
    a == b || a.is_below(b) || b.is_below(a)
}

/// Returns the path that a conflict copy, or what lies in one, was made of.
fn origin(path: &RelPath) -> RelPath {
    let all = path.ancestors().chain([path.clone()]);
    let found = all
        .filter_map(|above| Some((copy_of(&above)?.path, above)))
        .last();
    match found.and_then(|(of, copy)| path.rebase(&copy, &of).ok()) {
        Some(of) => origin(&of),
        None => path.clone(),
    }
}

impl Oracle {
    /// Notes what a hand has left where it just did something.
    pub(crate) fn has_left(&mut self, hand: usize, find: impl Fn(&RelPath) -> Option<Entry>) {
        let touching = std::mem::take(&mut self.ledger.touching);
        let others: Vec<usize> = (0..3).filter(|other| *other != hand).collect();
        if touching.len() > 1 && touching.iter().any(|path| self.touched_near(&others, path)) {
            // It carries to another path what somebody else is changing.
            self.ledger.unsure.extend(touching.iter().cloned());
        }
        for path in touching {
            let left = find(&path);
            self.ledger.left[hand].insert(path, left);
        }
    }

    /// As [`Oracle::has_left`], for a machine.
    pub(crate) fn has_left_on(&mut self, side: Side, volume: &Volume) {
        self.has_left(side as usize, |path| volume.entry(path).cloned());
    }

    /// Takes it that a round begins for which the mirror is the road. What the pair has agreed on half one of them
    /// does not know: if it takes that away, it comes back.
    pub(super) fn road_begins(&mut self, disks: [&Disk; 2]) {
        let [alpha, beta] = disks.map(Disk::agreed);
        let paths = alpha.keys().chain(beta.keys());
        let half = paths.filter(|path| alpha.get(*path) != beta.get(*path));
        self.ledger.half.extend(half.cloned());
    }

    /// Says whether a hand took away what the pair had agreed on half.
    fn took_half(&self, hand: usize, path: &RelPath) -> bool {
        let is_away = self.ledger.left[hand].get(path) == Some(&None);
        is_away && self.ledger.half.contains(path)
    }

    /// Takes it that a round goes on. What its node has, never met in the mirror, and does not find there, counts
    /// as missing there, also when somebody took it away.
    pub(super) fn round_goes_on(&mut self, disk: &Disk, cloud: &Cloud, store: &Store) {
        if self.touched[THERE].is_empty() {
            return;
        }
        let there = cloud.tree();
        let taken = self.touched[THERE].iter().filter(|path| {
            let agreed = disk.index.base.get(*path).map(|row| row.batch);
            let has_met = || {
                let met = store.met(path).ok().flatten();
                met.is_some_and(|met| agreed <= Some(met.met.batch))
            };
            disk.volume.entry(path).is_some() && !there.contains_key(*path) && !has_met()
        });
        let taken: Vec<RelPath> = taken.cloned().collect();
        self.ledger.unsure.extend(taken);
    }

    fn touched_near(&self, hands: &[usize], path: &RelPath) -> bool {
        let by = |hand: &usize| self.touched[*hand].iter().any(|at| near(at, path));
        hands.iter().any(by) || self.ledger.unsure.iter().any(|at| near(at, path))
    }

    /// Says whether something came to a side by the mirror here, or another person than that of `on` did something.
    pub(crate) fn crossed_near(&self, on: Side, path: &RelPath) -> bool {
        let rounds = self.ledger.by_round.iter().flatten();
        let mut at = rounds.chain(&self.touched[THERE]);
        at.any(|at| near(at, path)) && self.touched_near(&[THERE, on.other() as usize], path)
    }

    /// Takes what a round of a side did.
    pub(super) fn round_did(&mut self, side: Side, did: Did) {
        let others = [side.other() as usize, THERE];
        match did {
            Did::Edited {
                path,
                makes,
                was_there,
            } => {
                let of = origin(&path);
                self.ledger.by_round[side as usize].insert(path.clone());
                if makes && copy_of(&path).is_some() && !was_there {
                    self.conflict(&of);
                }
                // A copy is judged when it is made.
                let is_copy = makes && of != path;
                let is_touched = |at: &RelPath| self.touched_near(&others, at);
                let is_back = makes && self.took_half(side as usize, &path);
                if !is_copy && !is_back && !is_touched(&path) && !is_touched(&of) {
                    let what = if makes { "change" } else { "deletion" };
                    self.fail(format!(
                        "false {what} by a round: {path} on {side:?}, and no other hand touched it"
                    ));
                }
            }
            Did::Raced(paths) => self.ledger.unsure.extend(paths),
            Did::Removed { path, has_twin } => {
                let hands = [Side::Alpha as usize, Side::Beta as usize, THERE];
                let is_touched = |at: &RelPath| self.touched_near(&hands, at);
                if !has_twin && !is_touched(&path) && !is_touched(&origin(&path)) {
                    self.fail(format!(
                        "false deletion by a round: {path} in the mirror by {side:?}, and nobody touched it"
                    ));
                }
            }
        }
    }

    /// Looks at all three places when everything has come to rest.
    pub(crate) fn check_three(&mut self, tree: &Tree, cloud: &Cloud) {
        let there = cloud.tree();
        // What a person put into a folder that has the name of a file stays there, and is told.
        let twins = cloud.twins();
        let is_hidden = |path: &RelPath| twins.iter().any(|twin| path.is_below(twin));
        let paths: BTreeSet<&RelPath> = tree.keys().chain(there.keys()).collect();
        for path in paths.into_iter().filter(|path| !is_hidden(path)) {
            let is_same = match (tree.get(path), there.get(path)) {
                (Some(entry), Some(ids)) => ids.iter().any(|id| cloud.is_one_of(id, entry)),
                _ => false,
            };
            if !is_same {
                let items = there.get(path).into_iter().flatten();
                let items: Vec<_> = items.map(|id| cloud.entry(id)).collect();
                self.fail(format!(
                    "mirror not equal: {path} is {:?} in the trees, and {items:?} there",
                    tree.get(path)
                ));
            }
        }
        // Somebody may have had a whole batch undone.
        let is_judged = !self.guard_answered;
        if let Some(what) = self.not_as_left(tree).filter(|_| is_judged) {
            self.fail(what);
        }
    }

    /// Says where one hand alone did something, and it is not as that hand left it.
    fn not_as_left(&self, tree: &Tree) -> Option<String> {
        let ledger = &self.ledger;
        for (hand, left) in ledger.left.iter().enumerate() {
            let others = (0..3).filter(|other| *other != hand);
            let others: Vec<&RelPath> = others
                .flat_map(|other| &self.touched[other])
                .chain(&ledger.unsure)
                .collect();
            let alone = left.iter().filter(|(path, _)| {
                origin(path) == **path
                    && !self.took_half(hand, path)
                    && !others.iter().any(|other| near(other, path))
            });
            for (path, left) in alone {
                let found = tree.get(path);
                let is_as_left = match (left, found) {
                    (None, None) => true,
                    (Some(left), Some(found)) if hand == THERE => {
                        left.is_dir() == found.is_dir() && content(left) == content(found)
                    }
                    (Some(left), Some(found)) => left == found,
                    _ => false,
                };
                if !is_as_left {
                    return Some(format!(
                        "not as it was left: hand {hand} alone touched {path} and left {left:?}, and it is {found:?}"
                    ));
                }
            }
        }
        None
    }
}

impl Ledger {
    /// Says whether a round has changed a tree here since all was equal.
    pub(super) fn is_by_round(&self, path: &RelPath) -> bool {
        self.by_round.iter().any(|paths| paths.contains(path))
    }
}

impl Cloud {
    /// Says whether a person has made what an item is now.
    pub(super) fn is_by_hand(&self, id: &str) -> bool {
        let is_marked = |thing: &Thing| {
            let mark = thing.mark.as_ref();
            mark.is_some_and(|mark| mark.sum == thing.sum())
        };
        self.thing(id).is_some_and(|thing| !is_marked(thing))
    }

    /// Returns what an item is.
    pub(super) fn entry(&self, id: &str) -> Option<Entry> {
        let thing = self.thing(id)?;
        let Some(bytes) = &thing.bytes else {
            return Some(Entry::Dir);
        };
        match &thing.mark {
            Some(mark) if mark.sum == thing.sum() => Some(as_it_stands(&mark.entry)),
            _ => {
                let (content, len) = content_of(bytes);
                let exec = false;
                Some(Entry::File { content, len, exec })
            }
        }
    }

    /// Says whether an item is this entry. Nothing but a mark says whether it can be executed.
    fn is_one_of(&self, id: &str, entry: &Entry) -> bool {
        let has_mark = self.thing(id).is_some_and(|thing| thing.mark.is_some());
        self.entry(id).is_some_and(|found| match (&found, entry) {
            (Entry::File { content: a, .. }, Entry::File { content: b, .. }) if !has_mark => a == b,
            _ => found == *entry,
        })
    }
}
