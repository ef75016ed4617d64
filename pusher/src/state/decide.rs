//! What people and merges decide about single paths.

use std::collections::{BTreeMap, BTreeSet};

use shared::control::Keep as Word;
use shared::merge::How;
use shared::path::RelPath;
use shared::reconcile::{
    Answer, Decision, Keep, ResolveRefused, copy_of, name_as_version, resolve_copy,
};
use shared::transfer::{Op, Source};
use shared::tree::{Entry, Side};

use super::{Action, Pusher};

/// Longest file of which the base is kept for a later merge, in bytes.
const BASE_BYTES_MAX: u64 = 4 * 1024 * 1024;

impl Pusher {
    /// Decides a conflict; returns what is going to happen.
    pub(super) fn resolve_conflict(
        &mut self,
        path: &RelPath,
        keep: Word,
    ) -> Result<String, String> {
        if self.is_open_conflict(path) {
            return Ok(self.decide(path, keep));
        }
        let copies: Vec<RelPath> = self.copies_of(path);
        let (side, name) = match keep {
            Word::Mine => (Side::Alpha, &self.setup.node),
            Word::Theirs => (Side::Beta, &self.setup.peer),
            Word::Both => return self.keep_both(path, &copies),
        };
        let [copy] = &copies[..] else {
            return Err(if copies.is_empty() {
                format!("there is no conflict at \"{path}\"; `layer-sync conflicts` lists them")
            } else {
                let names: Vec<String> = copies.iter().map(|copy| format!("\"{copy}\"")).collect();
                format!("there are several: name one of {}", names.join(", "))
            });
        };
        let lost = copy_of(copy).map(|of| of.node).unwrap_or_default();
        let use_copy = if self.setup.node == self.setup.peer {
            // Equal names tell nothing. A copy is what the primary did not have.
            side != self.primary()
        } else {
            lost == *name
        };
        let ops = resolve_copy(&self.trees, copy, use_copy).map_err(|why| refused(copy, why))?;
        self.carry(copy, ops)?;
        Ok(if use_copy {
            format!("\"{copy}\" takes the place of the other version, which is kept")
        } else {
            format!("\"{copy}\" goes; it is kept")
        })
    }

    /// Says whether both versions stand at the path itself and wait.
    fn is_open_conflict(&self, path: &RelPath) -> bool {
        let codes = ["held.conflict", "held.undecided", "held.rotten"];
        self.holds
            .get(path)
            .is_some_and(|held| codes.contains(&held.problem.code.as_str()))
    }

    fn decide(&mut self, path: &RelPath, keep: Word) -> String {
        let (keep, text) = match keep {
            Word::Mine => (Keep::Side(Side::Alpha), "the pusher's version counts"),
            Word::Theirs => (Keep::Side(Side::Beta), "the receiver's version counts"),
            Word::Both => (Keep::Both, "both stay, one of them as a copy"),
        };
        let decision = Decision {
            alpha: self.trees.sight(Side::Alpha, path),
            beta: self.trees.sight(Side::Beta, path),
            keep,
        };
        self.decisions.decide(path.clone(), decision);
        self.due.insert(path.clone());
        text.into()
    }

    fn copies_of(&self, path: &RelPath) -> Vec<RelPath> {
        if self.copies.contains(path) {
            return vec![path.clone()];
        }
        let of = |copy: &&RelPath| copy_of(copy).is_some_and(|of| of.path == *path);
        self.copies.iter().filter(of).cloned().collect()
    }

    /// Gives copies names that are no conflicts.
    fn keep_both(&mut self, path: &RelPath, copies: &[RelPath]) -> Result<String, String> {
        if copies.is_empty() {
            return Err(format!(
                "there is no conflict at \"{path}\"; `layer-sync conflicts` lists them"
            ));
        }
        let mut names = Vec::new();
        for copy in copies {
            let name = name_as_version(&self.trees, copy).map_err(|why| refused(copy, why))?;
            let ops = shared::reconcile::rename_copy(&self.trees, copy, &name)
                .map_err(|why| refused(copy, why))?;
            self.carry(copy, ops)?;
            names.push(format!("\"{name}\""));
        }
        Ok(format!("both stay: {}", names.join(", ")))
    }

    fn carry(&mut self, copy: &RelPath, ops: Vec<(Side, Op)>) -> Result<(), String> {
        if !self.may_plan() {
            return Err(
                "the machines are not connected, or the sync has stopped; see `layer-sync status`"
                    .into(),
            );
        }
        let busy: BTreeSet<&RelPath> = ops.iter().map(|(_, op)| &op.path).collect();
        if busy.into_iter().any(|path| self.batches.is_busy(path)) {
            return Err(refused(copy, ResolveRefused::Unsettled));
        }
        self.batches.enqueue(ops, BTreeMap::new());
        Ok(())
    }

    /// Takes it that what stands on the pusher's side now has all that the receiver wrote.
    pub(super) fn merged(&mut self, op: &Op, entry: Entry) {
        self.trees
            .observe(Side::Alpha, op.path.clone(), Some(entry).into());
        self.decide_merge(op, Keep::Side(Side::Alpha));
    }

    /// Takes it that two versions cannot be merged: the primary's keeps the path.
    pub(super) fn unmerged(&mut self, op: &Op) {
        self.decide_merge(op, Keep::Both);
    }

    fn decide_merge(&mut self, op: &Op, keep: Keep) {
        let decision = Decision {
            alpha: self.trees.sight(Side::Alpha, &op.path),
            beta: op.make.clone().into(),
            keep,
        };
        self.decisions.decide(op.path.clone(), decision);
        self.due.insert(op.path.clone());
    }

    /// Has the content that both sides agree on now kept for a later merge, where one may be wanted.
    pub(super) fn keep_base(&mut self, path: &RelPath, entry: Option<&Entry>) {
        let Some(entry @ Entry::File { len, .. }) = entry else {
            return;
        };
        let is_text = How::of(path) == How::Text && *len <= BASE_BYTES_MAX;
        if is_text && self.setup.conflicts.answer(path) == Answer::Merge {
            self.actions
                .push(Action::KeepBase(path.clone(), entry.clone()));
        }
    }

    pub(super) fn is_merge(op: &Op) -> bool {
        matches!(op.from, Source::Merge { .. })
    }
}

fn refused(copy: &RelPath, why: ResolveRefused) -> String {
    format!("\"{copy}\" cannot be resolved: {why}")
}
