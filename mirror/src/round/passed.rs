//! What a round tells the tree of the copies that it was equal to ([`shared::mirror::Trail`]).
//!
//! What is sent is told before: its answer may be lost, and the other node may have it all the same. What is taken is told with the edit.
//! What was found equal is told when that is noted.

use std::collections::BTreeMap;
use std::slice;

use disk::trails::Passed;
use shared::mirror::{Step, There};
use shared::path::RelPath;
use shared::transfer::Op;
use shared::tree::{Entry, Sight};

use super::Mirror;
use super::known::Facts;
use crate::target::{Target, Wrong};
use crate::tree::Tree;

impl<T: Target, L: Tree> Mirror<T, L> {
    /// Tells the tree what is about to be sent, and chooses the numbers of these writings.
    pub(super) fn leave(
        &self,
        ops: &[Op],
        moved: &BTreeMap<RelPath, Vec<Op>>,
    ) -> Result<(), Wrong> {
        let (mut rows, mut gone) = (Vec::new(), Vec::new());
        for op in ops {
            let changes = match (op.moves(), moved.get(&op.path)) {
                (Some(_), Some(changes)) => changes.as_slice(),
                _ => slice::from_ref(op),
            };
            let goes = changes.iter().filter(|change| change.make.is_none());
            gone.extend(goes.map(|change| &change.path));
            for change in changes {
                rows.extend(self.leaving(change, op)?);
            }
        }
        self.tree.passed(&rows)?;
        // Its answer may be lost, too.
        self.store.together(|store| {
            for Passed { path, step, .. } in &rows {
                if step.entry.is_some() {
                    store.add_sent(path, step.writing)?;
                }
            }
            for path in gone {
                store.set_going(path)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn leaving(&self, change: &Op, op: &Op) -> Result<Option<Passed>, Wrong> {
        let path = change.path.clone();
        let facts = self.facts(&path)?;
        let there = facts.known.there.as_ref();
        let over = there.and_then(before);
        let step = match &change.make {
            None => there.and_then(copy).or_else(|| met(&facts)).map(taken),
            Some(entry) if path == op.path => Some(Step {
                writing: self.choose_writing(&path, entry)?,
                entry: Some(entry.clone()),
            }),
            // What lies in a folder that is moved keeps its mark.
            Some(_) => {
                let from = op
                    .moves()
                    .and_then(|(from, _)| path.rebase(&op.path, from).ok());
                let from = from.map(|from| self.facts(&from)).transpose()?;
                from.and_then(|from| from.known.there.as_ref().and_then(copy))
            }
        };
        Ok(step.map(|step| Passed { path, step, over }))
    }

    /// Chooses the number of a writing; one that goes on has its own already.
    fn choose_writing(&self, path: &RelPath, entry: &Entry) -> Result<u64, Wrong> {
        let begun = self.store.upload(path)?;
        let writing = match begun.filter(|upload| upload.entry == *entry) {
            Some(upload) => upload.writing,
            None => self.next_writing(),
        };
        let mut state = self.state.borrow_mut();
        state.writings.insert(path.clone(), writing);
        Ok(writing)
    }

    /// Returns the number that was chosen for a path, or another one.
    pub(super) fn writing_for(&self, path: &RelPath) -> u64 {
        let chosen = self.state.borrow_mut().writings.remove(path);
        chosen.unwrap_or_else(|| self.next_writing())
    }

    /// Returns the copy that the tree is equal to, once this is what stands at a path.
    pub(super) fn taking(
        &self,
        path: &RelPath,
        make: Option<&Entry>,
    ) -> Result<Option<Step>, Wrong> {
        let facts = self.facts(path)?;
        Ok(match (make, &facts.known.there) {
            (Some(make), Some(there)) if *make == there.entry => copy_of(&facts, there),
            (None, None) => met(&facts).map(taken),
            _ => None,
        })
    }

    /// Tells the tree that it is equal to what is there.
    pub(super) fn pass(&self, path: &RelPath, facts: &Facts) -> Result<(), Wrong> {
        let step = match (&facts.known.here, &facts.known.there) {
            (Sight::Is(_), Some(there)) => copy_of(facts, there),
            (Sight::Absent, None) => met(facts).map(taken),
            _ => None,
        };
        let (path, over) = (path.clone(), None);
        let row = step.map(|step| Passed { path, step, over });
        match row {
            Some(row) => self.tree.passed(&[row]),
            None => Ok(()),
        }
    }
}

/// Returns the copy that is there, if it is one that a node has written.
fn copy(there: &There) -> Option<Step> {
    let mark = there.mark.as_ref().filter(|_| !there.is_by_hand())?;
    Some(Step {
        writing: mark.writing,
        entry: Some(there.entry.clone()),
    })
}

/// Returns the copy that is there, also one that a person has made. Both nodes may take that before one of them has marked it.
fn copy_of(facts: &Facts, there: &There) -> Option<Step> {
    let by_hand = || {
        let item = facts.at.item.as_ref()?;
        Some(Step::by_hand(&item.id, there.entry.clone()))
    };
    copy(there).or_else(by_hand)
}

/// Returns the last copy that a node has written there. A person may have replaced it since, and had it before them then.
pub(super) fn before(there: &There) -> Option<Step> {
    let mark = there.mark.as_ref()?;
    Some(Step {
        writing: mark.writing,
        entry: Some(mark.entry.clone()),
    })
}

/// Returns the copy that both had last.
fn met(facts: &Facts) -> Option<Step> {
    let met = facts.known.met.as_ref().filter(|met| met.writing != 0)?;
    Some(Step {
        writing: met.writing,
        entry: Some(met.entry.clone()),
    })
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is mapped over what was found"
)]
fn taken(copy: Step) -> Step {
    Step::gone(copy.writing)
}
