//! Paths that wait: for a person, or for another try.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shared::control::{Health, NodeSide, Problem};
use shared::path::RelPath;
use shared::reconcile::Hold;
use shared::transfer::Trouble;
use shared::tree::{Obstacle, Side};
use shared::utc::UtcMs;

use super::side_name;

/// First and longest wait before a path is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// Wait before a held path is planned again.
const HELD_AGAIN: Duration = Duration::from_secs(5);

/// Held paths, and paths that are tried again later.
#[derive(Debug, Default)]
pub(super) struct Holds {
    held: BTreeMap<RelPath, Held>,
    retries: BTreeMap<RelPath, Retry>,
}

/// A path that is held.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) problem: Problem,
    pub(super) since: UtcMs,
    again: Instant,
}

#[derive(Debug)]
struct Retry {
    at: Option<Instant>,
    wait: Duration,
}

impl Holds {
    /// Holds a path; returns whether that is news.
    pub(super) fn hold(
        &mut self,
        path: RelPath,
        problem: Problem,
        now: Instant,
        utc: UtcMs,
    ) -> bool {
        // Released paths are remembered until they settle, so `since` is the time of the first hold.
        let before = self.held.get(&path);
        let news = before.is_none_or(|held| held.problem != problem);
        let since = before.filter(|_| !news).map_or(utc, |held| held.since);
        self.held.insert(
            path,
            Held {
                problem,
                since,
                again: now + HELD_AGAIN,
            },
        );
        news
    }

    pub(super) fn release(&mut self, path: &RelPath) {
        self.held.remove(path);
    }

    /// Has a path planned again after a while that doubles with every try.
    pub(super) fn retry(&mut self, path: RelPath, now: Instant) {
        let retry = self.retries.entry(path).or_insert(Retry {
            at: None,
            wait: RETRY_FIRST,
        });
        retry.at = Some(now + retry.wait);
        retry.wait = (retry.wait * 2).min(RETRY_LONGEST);
    }

    /// Returns the paths that are held.
    pub(super) fn paths(&self) -> impl Iterator<Item = RelPath> + '_ {
        self.held.keys().cloned()
    }

    /// Forgets how often a path was tried: it has settled.
    pub(super) fn settled(&mut self, path: &RelPath) {
        self.held.remove(path);
        self.retries.remove(path);
    }

    /// Returns the paths whose time has come. Held ones stay held until they are planned.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<RelPath> {
        let mut due = Vec::new();
        for (path, retry) in &mut self.retries {
            if retry.at.is_some_and(|at| at <= now) {
                retry.at = None;
                due.push(path.clone());
            }
        }
        for (path, held) in &mut self.held {
            if held.again <= now {
                held.again = now + HELD_AGAIN;
                due.push(path.clone());
            }
        }
        due
    }

    pub(super) fn next_retry(&self) -> Option<Instant> {
        let retries = self.retries.values().filter_map(|retry| retry.at);
        retries
            .chain(self.held.values().map(|held| held.again))
            .min()
    }

    pub(super) fn get(&self, path: &RelPath) -> Option<&Held> {
        self.held.get(path)
    }

    pub(super) fn len(&self) -> u64 {
        self.held.len() as u64
    }

    /// Returns the paths whose two versions wait for a decision.
    pub(super) fn undecided(&self) -> impl Iterator<Item = (&RelPath, &Held)> {
        let codes = ["held.conflict", "held.undecided"];
        self.held
            .iter()
            .filter(move |(_, held)| codes.contains(&held.problem.code.as_str()))
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.held.values().map(|held| &held.problem)
    }
}

/// Says what a hold of the planner means for a person.
pub(super) fn problem_of(path: &RelPath, hold: &Hold) -> Problem {
    let (code, text, fix) = match hold {
        Hold::Obstacle(side, obstacle) => (
            format!("held.{}", code_of(*obstacle)),
            format!("not synced: on the {}, {}", side_name(*side).name(), obstacle.reason()),
            remedy_of(*obstacle, *side),
        ),
        Hold::InTheWay(side, found, obstacle) => (
            "held.in_the_way".into(),
            format!(
                "not removed on the {}: \"{found}\" is inside, and {}",
                side_name(*side).name(),
                obstacle.reason()
            ),
            format!("move or delete \"{found}\" on the {}", side_name(*side).name()),
        ),
        Hold::Conflict => (
            "held.conflict".into(),
            "changed on the receiver, where this mode changes nothing; both versions stay as they are".into(),
            decide(path),
        ),
        Hold::Undecided => (
            "held.undecided".into(),
            "changed on both sides, and the settings leave such a conflict to you; both versions stay as they are".into(),
            decide(path),
        ),
        Hold::Twin(side, twin) => (
            "held.twin".into(),
            format!(
                "not brought to the {}, whose volume does not tell it from \"{twin}\", which is there",
                side_name(*side).name()
            ),
            "rename one of the two".into(),
        ),
        Hold::NoCopyName => (
            "held.name".into(),
            "changed on both sides, and the path is too long for a conflict copy; both versions stay".into(),
            "shorten the path on one side".into(),
        ),
    };
    Problem {
        code,
        severity: Health::Held,
        path: Some(path.to_string()),
        text,
        fix,
    }
}

fn decide(path: &RelPath) -> String {
    format!("layer-sync resolve \"{path}\" --keep mine|theirs|both")
}

/// Says what a disk's trouble means for a person.
pub(super) fn problem_of_trouble(side: NodeSide, path: &RelPath, trouble: &Trouble) -> Problem {
    Problem {
        code: format!("held.{}", trouble.kind.code()),
        severity: Health::Held,
        path: Some(path.to_string()),
        text: format!("on the {}: {}", side.name(), trouble.text),
        fix: trouble.kind.remedy().into(),
    }
}

fn code_of(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::Unreadable => "unreadable",
        Obstacle::Ignored => "ignored",
        Obstacle::Special => "special",
        Obstacle::NotUtf8 => "not_utf8",
        Obstacle::BadName => "bad_name",
        Obstacle::OtherRoot => "other_root",
        Obstacle::Unstable => "unstable",
        Obstacle::Rotten => "rotten",
        Obstacle::Database => "database",
    }
}

fn remedy_of(obstacle: Obstacle, side: Side) -> String {
    let side = side_name(side).name();
    match obstacle {
        Obstacle::Unreadable => format!("make it readable for layer-sync on the {side}"),
        Obstacle::Special | Obstacle::Ignored => "add it to .layerignore, or remove it".into(),
        Obstacle::NotUtf8 | Obstacle::BadName => format!("rename it on the {side}"),
        Obstacle::OtherRoot => {
            "add it to .layerignore, or sync it as part of one of the two trees".into()
        }
        Obstacle::Unstable => "nothing: it is tried again all the time".into(),
        Obstacle::Rotten => format!(
            "check the disk of the {side}, and copy the other side's file over it; if it is right as it is, `touch` it"
        ),
        Obstacle::Database => format!(
            "on the {side}, close the program that uses it, or open and close it once more; it is tried again by itself"
        ),
    }
}
