//! The trail of a path: what both trees came through while the mirror was the road between them.
//!
//! What the pair agreed on last may be older than what the two trees have in common: an edit that went from one to the other by the
//! mirror is known to both, and agreed on by nobody. So each node notes, path by path, which copies of the mirror its tree has been
//! equal to since. Where the two trails meet is what both come from, and the pair plans with that as if it had agreed on it
//! ([`crate::tree::Trees::ancestor`]): an edit of an edit is no conflict, and what was made, crossed, and was removed again stays away.
//!
//! Copies are told apart by the number of their writing, not by their content: the same content may come back.

use serde::{Deserialize, Serialize};

use crate::hash::ContentHash;
use crate::limit;
use crate::tree::{Entry, Gen};

/// Most steps that a trail remembers. With more of them between two looks of the other node, what both come from is not found, and an
/// edit that was no conflict counts as one; that costs a copy, and loses nothing.
pub const STEPS_MAX: usize = 64;

/// A copy of the mirror that a tree was equal to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which writing it was; never 0.
    pub writing: u64,
    /// What it was; `None` when it was taken away there.
    pub entry: Option<Entry>,
}

impl Step {
    /// Returns the step of a copy having been taken away. Whoever finds it gone calls that by the same number.
    pub fn gone(writing: u64) -> Self {
        Self {
            writing: number(&writing.to_le_bytes()),
            entry: None,
        }
    }

    /// Returns the step of a copy that a person made, of which no writing has a number. Whoever finds it calls it by the same one.
    pub fn by_hand(item: &str, entry: Entry) -> Self {
        Self {
            writing: number(format!("{item} {}", entry.identity()).as_bytes()),
            entry: Some(entry),
        }
    }
}

fn number(of: &[u8]) -> u64 {
    let hash = ContentHash::of_bytes(of);
    u64::from_le_bytes(std::array::from_fn(|index| hash.as_bytes()[index])).max(1)
}

/// The copies of the mirror that a tree was equal to at a path, the latest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trail {
    /// The last batch that was known at the latest step: when the pair agrees on something after that, the trail is over.
    pub batch: Gen,
    /// The steps.
    #[serde(deserialize_with = "limit::list::<_, _, STEPS_MAX>")]
    pub steps: Vec<Step>,
}

impl Trail {
    /// Notes that the tree is equal to a copy now. `over` is what that copy replaced, which whoever wrote it had looked at. Says whether
    /// that was news.
    pub fn step(&mut self, step: Step, over: Option<Step>) -> bool {
        let is_there = self.steps.first() == Some(&step);
        if !is_there {
            self.steps.retain(|old| old.writing != step.writing);
            self.steps.insert(0, step);
        }
        let over = over.filter(|over| self.steps.iter().all(|old| old.writing != over.writing));
        let has_over = over.is_some();
        if let Some(over) = over {
            self.steps.insert(1, over);
        }
        self.steps.truncate(STEPS_MAX);
        !is_there || has_over
    }

    /// Returns what both trails came through last, if they have met.
    pub fn met<'a>(&'a self, other: &Self) -> Option<&'a Step> {
        self.steps.iter().find(|step| {
            let is_it = |theirs: &Step| theirs.writing == step.writing;
            other.steps.iter().any(is_it)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(writing: u64, text: &str) -> Step {
        let entry = Entry::File {
            content: ContentHash::of_bytes(text.as_bytes()),
            len: 1,
            exec: false,
        };
        Step {
            writing,
            entry: Some(entry),
        }
    }

    fn trail(steps: &[(u64, &str)]) -> Trail {
        let mut trail = Trail::default();
        for (writing, text) in steps.iter().rev() {
            trail.step(step(*writing, text), None);
        }
        trail
    }

    #[test]
    fn they_meet_at_the_latest_copy_that_both_had() {
        let check = |alpha: &[(u64, &str)], beta: &[(u64, &str)], expected: Option<u64>| {
            let (alpha, beta) = (trail(alpha), trail(beta));
            let met = |one: &Trail, other: &Trail| one.met(other).map(|step| step.writing);
            assert_eq!(met(&alpha, &beta), expected);
            assert_eq!(met(&beta, &alpha), expected);
        };
        check(&[(1, "a")], &[(1, "a")], Some(1));
        check(&[(3, "c"), (2, "b"), (1, "a")], &[(2, "b")], Some(2));
        check(&[(2, "b")], &[(3, "b")], None);
        check(&[], &[(3, "b")], None);
        // The same content came back: the later copy of it counts.
        check(
            &[(4, "b"), (3, "a"), (2, "b"), (1, "a")],
            &[(3, "a"), (2, "b"), (1, "a")],
            Some(3),
        );
    }

    #[test]
    fn what_was_replaced_unseen_is_on_the_trail() {
        let mut mine = trail(&[(1, "a")]);
        mine.step(step(5, "mine"), Some(step(4, "theirs")));
        let theirs = trail(&[(4, "theirs"), (1, "a")]);
        assert_eq!(mine.met(&theirs), Some(&step(4, "theirs")));
    }

    #[test]
    fn who_takes_it_away_and_who_finds_it_gone_mean_the_same() {
        let (mut one, mut other) = (trail(&[(1, "a")]), trail(&[(1, "a")]));
        one.step(Step::gone(1), Some(step(1, "a")));
        other.step(Step::gone(1), None);
        assert_eq!(one.met(&other), Some(&Step::gone(1)));
        assert_ne!(Step::gone(1), Step::gone(2));
    }

    #[test]
    fn what_a_person_made_is_the_same_for_whoever_finds_it() {
        let entry = |text| step(1, text).entry.expect("a file");
        let number = |item, text| Step::by_hand(item, entry(text)).writing;
        assert_eq!(number("i", "a"), number("i", "a"));
        assert_ne!(number("i", "a"), number("i", "b"));
        assert_ne!(number("i", "a"), number("j", "a"));
    }

    #[test]
    fn a_trail_is_bounded() {
        let mut long = Trail::default();
        for writing in 1..200 {
            long.step(step(writing, "x"), None);
        }
        assert_eq!(long.steps.len(), STEPS_MAX);
        assert_eq!(long.steps[0].writing, 199);
        long.step(step(199, "x"), Some(step(3, "x")));
        assert_eq!(long.steps.len(), STEPS_MAX, "it is there already");
    }
}
