//! Planning: the part of the two trees that is affected, and what makes them equal there.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};

use shared::control::NodeSide;
use shared::mirror::{LINK_TOLD_BYTES_MAX, ancestor};
use shared::path::RelPath;
use shared::reconcile::{
    Conflict, ConflictRules, Hold, Mode, Naming, Plan, Policy, copy_of, reconcile, with_moves,
};
use shared::transfer::Source;
use shared::tree::{Base, BaseRow, Entry, Gen, Obstacle, Side, Sight, Trees};
use shared::utc::UtcMs;

use super::known::Facts;
use super::{Mirror, Purpose, Setup, Waits};
use crate::target::{Kind, Target, Wrong};
use crate::tree::Tree;

/// What stands in for the name of whoever wrote what is there, until it is known which path it is about.
const SOMEBODY: &str = "mirror";
/// What the name of a conflict copy has in it.
const COPY_MARK: &str = " (conflict ";

impl<T: Target, L: Tree> Mirror<T, L> {
    /// Says which side the tree of this node is in plans. In modes in which the sides are not alike it has to be its own.
    pub(super) fn own_side(&self, purpose: Purpose) -> Side {
        let is_alike = !purpose.is_road || self.setup.mode == Mode::TwoWaySafe;
        if self.setup.side == NodeSide::Receiver && !is_alike {
            Side::Beta
        } else {
            Side::Alpha
        }
    }

    /// Plans some paths.
    pub(super) fn plan(
        &self,
        due: &BTreeSet<RelPath>,
        purpose: Purpose,
        now: UtcMs,
    ) -> Result<Plan, Wrong> {
        let own = self.own_side(purpose);
        let mut region: BTreeMap<RelPath, Facts> = BTreeMap::new();
        let mut planned = BTreeSet::new();
        let mut scope = due.clone();
        for path in due {
            if self.state.borrow_mut().blocked.remove(path) {
                // What was heard of it meanwhile could not be planned.
                scope.extend(self.store.below(path)?);
            }
        }
        for path in &scope {
            self.state.borrow_mut().waits.remove(path.as_str());
            self.add(path, &mut region)?;
            if let Some(facts) = region.get(path)
                && self.may_go(path, facts)?
            {
                planned.insert(path.clone());
            }
        }
        let trees = trees(&self.setup, &region, own, self.tree.folds());
        let busy = |path: &RelPath| !purpose.is_road && !is_settled(region.get(path));
        let flat = ConflictRules::default();
        let naming = match own {
            Side::Alpha => (self.setup.node.clone(), SOMEBODY.to_owned()),
            Side::Beta => (SOMEBODY.to_owned(), self.setup.node.clone()),
        };
        let mut folds = [false; 2];
        folds[own as usize] = self.tree.folds();
        let plan = {
            let state = self.state.borrow();
            let policy = Policy {
                mode: self.setup.mode,
                primary: if purpose.is_primary { own } else { own.other() },
                naming: Naming {
                    alpha: naming.0,
                    beta: naming.1,
                    now,
                },
                // A merge is made here, so here has to be the side that reconcile takes for it.
                conflicts: match own {
                    Side::Alpha => &self.setup.conflicts,
                    Side::Beta => &flat,
                },
                decisions: &state.decisions,
                folds,
            };
            reconcile(&trees, &planned, &busy, &policy)
        };
        let mut plan = self.with_names(plan, own, &region);
        with_moves(&trees, &mut plan, &|_| false);
        for (path, hold) in &plan.held {
            if let Hold::Obstacle(side, _) | Hold::InTheWay(side, ..) = hold
                && *side == own
            {
                self.state.borrow_mut().blocked.insert(path.clone());
                if matches!(hold, Hold::Obstacle(_, Obstacle::Unstable)) {
                    // It may turn out that nothing is there, which nobody tells.
                    self.due_again(path.clone());
                }
            }
            if let Some(waits) = held(path, hold, own) {
                self.wait(path.as_str(), waits);
            }
        }
        let undecided = plan.undecided.iter().cloned();
        self.state.borrow_mut().due.extend(undecided);
        // What is equal already is noted, since what it was noted to be may be older.
        let is_equal = |path: &&RelPath| {
            region.get(*path).is_some_and(|facts| {
                let there = facts.known.there.as_ref().map(|there| &there.entry);
                !matches!(facts.known.here, Sight::Blocked(_)) && facts.known.here.entry() == there
            })
        };
        plan.agree = planned
            .iter()
            .filter(is_equal)
            .map(|path| (path.clone(), None))
            .collect();
        Ok(plan)
    }

    /// Adds a path to what is planned with, and what may depend on it.
    fn add(&self, path: &RelPath, region: &mut BTreeMap<RelPath, Facts>) -> Result<(), Wrong> {
        for above in path.ancestors() {
            if region.contains_key(&above) {
                break;
            }
            let facts = self.facts(&above)?;
            region.insert(above, facts);
        }
        if !region.contains_key(path) {
            let facts = self.facts(path)?;
            region.insert(path.clone(), facts);
        }
        let Some(facts) = region.get(path) else {
            return Ok(());
        };
        let here = facts.known.here.entry();
        let there = facts.known.there.as_ref().map(|there| &there.entry);
        let met = facts.met.as_ref().map(|met| &met.met.entry);
        let is_dir = |entry: Option<&Entry>| entry.is_some_and(Entry::is_dir);
        let dirs = [is_dir(here), is_dir(there)];
        let mut more = BTreeSet::new();
        if dirs != [true, true] && (dirs != [false, false] || is_dir(met)) {
            more.extend(self.tree.below(path)?);
            more.extend(self.store.below(path)?);
        }
        if here.is_some() && there.is_some() && here != there {
            let copies = self.tree.beside(path).into_iter();
            more.extend(copies.filter(|beside| beside.name().contains(COPY_MARK)));
        }
        if self.tree.folds() && here.is_none() && there.is_some() {
            more.extend(self.tree.beside(path));
        }
        for path in more {
            if let Slot::Vacant(place) = region.entry(path) {
                let facts = self.facts(place.key())?;
                place.insert(facts);
            }
        }
        Ok(())
    }

    /// Says whether a path may be planned at all, and why not if a person should know.
    fn may_go(&self, path: &RelPath, facts: &Facts) -> Result<bool, Wrong> {
        let here = facts.known.here.entry();
        let is_dir = here.is_some_and(Entry::is_dir)
            || facts
                .at
                .item
                .as_ref()
                .is_some_and(|item| item.kind == Kind::Folder);
        // What the rules leave alone has no part in the mirror, on either side.
        if self.tree.ignores(path, is_dir) {
            return Ok(false);
        }
        if let Some(Entry::Symlink { target }) = here
            && target.len() > LINK_TOLD_BYTES_MAX
        {
            let waits = Waits {
                code: "held.mirror_link",
                text: format!(
                    "the link \"{path}\" leads to more than {LINK_TOLD_BYTES_MAX} bytes of path, which the mirror cannot hold; it \
                     is not mirrored"
                ),
                fix: "make it lead somewhere nearer".to_owned(),
            };
            self.wait(path.as_str(), waits);
            return Ok(false);
        }
        if facts.is_foreign {
            let what = facts.at.item.as_ref().map(|item| match &item.kind {
                Kind::Other(what) => what.clone(),
                _ => "something else".to_owned(),
            });
            let waits = Waits {
                code: "held.mirror_foreign",
                text: format!(
                    "\"{path}\" in the mirror is {}, which has no bytes that a file could have; it stays there and is not taken",
                    what.unwrap_or_default()
                ),
                fix: "export it as a file beside it, or move it out of the mirror's folder"
                    .to_owned(),
            };
            self.wait(path.as_str(), waits);
            return Ok(false);
        }
        for other in &facts.at.others {
            if !self.is_left_over(other)? {
                let waits = Waits {
                    code: "held.mirror_same_name",
                    text: format!(
                        "the mirror has more than one \"{path}\"; one of them counts, and the other stays as it is"
                    ),
                    fix: "rename the others in the mirror, or delete them there".to_owned(),
                };
                self.wait(path.as_str(), waits);
            }
        }
        Ok(!facts.is_unread)
    }

    /// Says whether an item of a name that another one has is one that this node made, when the other node made one as well. What a
    /// person moved there is none.
    pub(super) fn is_left_over(&self, item: &crate::target::Item) -> Result<bool, Wrong> {
        let mark = item.mark.as_ref();
        let is_as_written = mark.is_some_and(|mark| {
            let is_ours = mark.pair == self.setup.pair && mark.node == self.setup.node;
            let is_as_written = match &item.kind {
                Kind::File { sum, .. } => sum.is_some() && *sum == mark.sum,
                _ => false,
            };
            is_ours && is_as_written
        });
        Ok(is_as_written && self.is_in_place(item)?)
    }

    /// Names the copies of what lost there after whoever wrote it.
    fn with_names(&self, mut plan: Plan, own: Side, region: &BTreeMap<RelPath, Facts>) -> Plan {
        let mut renamed: Vec<(RelPath, RelPath)> = Vec::new();
        for Conflict { path, copy, lost } in &mut plan.conflicts {
            let Some(facts) = region.get(path).filter(|_| *lost != own) else {
                continue;
            };
            let stands = |at: &RelPath| {
                region.get(at).is_some_and(|facts| {
                    facts.known.here != Sight::Absent || facts.known.there.is_some()
                })
            };
            let by = facts
                .known
                .there
                .as_ref()
                .filter(|there| !there.is_by_hand())
                .and_then(|there| there.mark.as_ref())
                .map(|mark| mark.node.clone());
            let (Some(by), false) = (by, stands(copy)) else {
                continue;
            };
            let Some(of) = copy_of(copy).filter(|of| of.node == SOMEBODY) else {
                continue;
            };
            let hash8 = copy.name().rsplit(' ').next().unwrap_or_default();
            let hash8 = hash8.split(')').next().unwrap_or_default();
            let named = shared::reconcile::copy_name(path, &by, of.at, hash8);
            if let Some(named) = named.filter(|named| !stands(named)) {
                renamed.push((copy.clone(), named.clone()));
                *copy = named;
            }
        }
        for (_, op) in &mut plan.ops {
            for (from, to) in &renamed {
                if (op.path == *from || op.path.is_below(from))
                    && let Ok(path) = op.path.rebase(from, to)
                {
                    op.path = path;
                }
                if let Source::There(at) | Source::Here(at) = &mut op.from
                    && (at == from || at.is_below(from))
                    && let Ok(path) = at.rebase(from, to)
                {
                    *at = path;
                }
            }
        }
        plan
    }
}

/// Says whether the pair has agreed on what stands at a path: then the mirror may have it although it is no road.
fn is_settled(facts: Option<&Facts>) -> bool {
    let Some(facts) = facts else { return true };
    match &facts.known.here {
        Sight::Blocked(_) => true,
        here => {
            let agreed = facts.known.base.as_ref();
            here.entry() == agreed.and_then(|row| row.entry.as_ref())
        }
    }
}

fn trees(setup: &Setup, region: &BTreeMap<RelPath, Facts>, own: Side, folds: bool) -> Trees {
    let row = |(path, facts): (&RelPath, &Facts)| {
        let entry = ancestor(setup.pair, &facts.known)?;
        let row = BaseRow {
            entry: Some(entry),
            batch: Gen(1),
        };
        Some((path.clone(), row))
    };
    let base: Base = region.iter().filter_map(row).collect();
    let mut trees = Trees::new(base);
    for (path, facts) in region {
        trees.observe(own, path.clone(), facts.known.here.clone());
        trees.observe(own.other(), path.clone(), facts.sight());
    }
    if folds {
        trees.mind_twins();
    }
    trees
}

/// Says why a path is held. What cannot be synced here is told by the sync itself.
fn held(path: &RelPath, hold: &Hold, own: Side) -> Option<Waits> {
    let (text, fix) = match hold {
        Hold::Obstacle(side, _) | Hold::InTheWay(side, ..) if *side == own => return None,
        Hold::Obstacle(..) => return None,
        Hold::InTheWay(_, inside, _) => (
            format!(
                "the folder \"{path}\" stays in the mirror: \"{inside}\" in it is not one of the tree's files"
            ),
            format!("move \"{inside}\" out of the folder, in the mirror"),
        ),
        Hold::Conflict => (
            format!(
                "\"{path}\" was changed in the mirror, from where nothing is taken in this mode"
            ),
            "change it on the pusher, or delete the change in the mirror".to_owned(),
        ),
        Hold::Undecided => (
            format!(
                "\"{path}\" was changed here and in the mirror, and the settings leave it to you"
            ),
            "rename or delete one of the two versions: the one here, or the one in the mirror"
                .to_owned(),
        ),
        Hold::NoCopyName => (
            format!(
                "\"{path}\" was changed here and in the mirror, and its path leaves no room for the name of a copy"
            ),
            "rename it on one of the two".to_owned(),
        ),
        Hold::Twin(_, twin) => (
            format!(
                "\"{path}\" of the mirror is not told from \"{twin}\" by this machine's volume"
            ),
            "rename one of the two".to_owned(),
        ),
    };
    Some(Waits {
        code: "held.mirror_held",
        text,
        fix,
    })
}
