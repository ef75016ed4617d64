//! Retention: which kept versions go. Pure.
//!
//! The older versions of one path are, the fewer of them stay:
//!
//! | Age | Of one path stay |
//! | --- | --- |
//! | up to 24 hours | all; beyond the latest 100, the last of each ten minutes |
//! | up to 2 days | the last of each hour |
//! | up to 14 days | the last of each day |
//! | up to `age` (30 days) | the last of each week |
//! | more | none |
//!
//! Hours, days and weeks are those of UTC, so what stays today stays tomorrow, and an hour lies in one
//! day, a day in one week. Then, if there is still too much, the oldest go, but the last version of a
//! path at which nothing stands any more goes last: it is the only one there is. Nothing younger than
//! `age_min` (24 hours) goes by any of this, save for the crowd of versions of one path: a database that
//! is written all day would fill the disk.
//!
//! A full disk is worse than a lost undo: when the volume has less than its floor left, the oldest go
//! even below `age_min`, in the same order, but never what was displaced within the last hour.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use shared::path::RelPath;
use shared::utc::UtcMs;

use super::KeptLimits;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// What is younger stays, whatever the disk says.
const UNTOUCHABLE: Duration = HOUR;
/// So many versions of one path stay, however close to each other they are.
const CROWD: usize = 100;
/// Of those before them one of each such span stays.
const CROWD_SPAN: Duration = Duration::from_secs(600);
/// Up to this age, each with the length of the span of which one version stays.
const TIERS: [(Duration, Duration); 2] = [
    (Duration::from_secs(2 * 24 * 3600), HOUR),
    (Duration::from_secs(14 * 24 * 3600), DAY),
];
const LAST_TIER: Duration = Duration::from_secs(7 * 24 * 3600);

/// A version that is kept.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) path: &'a RelPath,
    /// When it was displaced.
    pub(super) at: UtcMs,
    /// Its length, in bytes.
    pub(super) len: u64,
    /// What removing it gives back to the volume, in bytes.
    pub(super) frees: u64,
    /// Whether something stands at its path.
    pub(super) stands: bool,
}

/// How much may stay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Most bytes in all versions together.
    pub(super) bytes_max: u64,
    /// What the volume lacks, in bytes.
    pub(super) lacking: u64,
}

/// Says of each version whether it goes. The versions come in the order in which they were displaced.
pub(super) fn going(
    versions: &[Candidate<'_>],
    limits: &KeptLimits,
    room: Room,
    now: UtcMs,
) -> Vec<bool> {
    let age = |index: usize| Duration::from_millis(now.0.saturating_sub(versions[index].at.0));
    let mut goes = vec![false; versions.len()];
    let mut last_spans: HashMap<&RelPath, (Duration, u64)> = HashMap::new();
    let mut counts: HashMap<&RelPath, usize> = HashMap::new();
    let mut last_of_gone = vec![false; versions.len()];
    let mut paths: HashSet<&RelPath> = HashSet::new();
    for (index, version) in versions.iter().enumerate().rev() {
        let age = age(index);
        last_of_gone[index] = paths.insert(version.path) && !version.stands;
        let count = counts.entry(version.path).or_default();
        *count += 1;
        if age < DAY && age >= UNTOUCHABLE && *count > CROWD {
            let span = (CROWD_SPAN, version.at.0 / CROWD_SPAN.as_millis() as u64);
            goes[index] = last_spans.insert(version.path, span) == Some(span);
        }
        if age < limits.age_min {
            continue;
        }
        if age > limits.age {
            goes[index] = true;
        } else if age >= DAY {
            let span = span(age, version.at);
            // From the latest on: the first one of its span is the last one in time.
            goes[index] = last_spans.insert(version.path, span) == Some(span);
        }
    }
    let mut order: Vec<usize> = (0..versions.len()).collect();
    order.sort_by_key(|&index| last_of_gone[index]);
    let sum = |of: fn(&Candidate<'_>) -> u64, goes: &[bool], gone: bool| -> u64 {
        let chosen = versions.iter().zip(goes).filter(|(_, goes)| **goes == gone);
        chosen.map(|(version, _)| of(version)).sum()
    };
    let mut total = sum(|version| version.len, &goes, false);
    for &index in &order {
        if total <= room.bytes_max {
            break;
        }
        if !goes[index] && age(index) >= limits.age_min {
            goes[index] = true;
            total -= versions[index].len;
        }
    }
    let mut freed = sum(|version| version.frees, &goes, true);
    for &index in &order {
        if freed >= room.lacking {
            break;
        }
        if !goes[index] && age(index) >= UNTOUCHABLE && versions[index].frees > 0 {
            goes[index] = true;
            freed += versions[index].frees;
        }
    }
    goes
}

/// Returns the span of which one version stays, as its length and number.
fn span(age: Duration, at: UtcMs) -> (Duration, u64) {
    let tier = TIERS.iter().find(|(up_to, _)| age <= *up_to);
    let len = tier.map_or(LAST_TIER, |(_, len)| *len);
    (len, at.0 / len.as_millis() as u64)
}

#[cfg(test)]
mod tests;
