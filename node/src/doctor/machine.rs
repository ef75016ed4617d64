//! The machine: watches, room on the volumes, the clock.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "linux")]
use linux as platform;
#[cfg(target_os = "macos")]
use macos as platform;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use disk::examine::{self, Space};
use shared::ignore::PRIVATE_DIR;
use shared::utc::UtcMs;

use super::{Asked, Case, Check, State};

/// A clock before this moment was never set: 2026-01-01.
const CLOCK_MIN: UtcMs = UtcMs(1_767_225_600_000);
/// How far a clock may be behind what was written by it, or apart from the other machine's.
const CLOCK_APART_MS_MAX: u64 = 60_000;
/// Below this share of the floor a volume counts as full.
const FULL_SHARE: u64 = 10;

/// The system can watch as many folders as the tree has.
pub(super) fn watches(case: &Case<'_>, root: &Path) -> Check {
    let problem = case.status().and_then(|status| {
        let mut problems = status.problems.iter();
        problems.find(|problem| problem.code == "degraded.watch")
    });
    judge_watches(
        platform::watches_max(),
        || folders(root),
        problem.map(|problem| &*problem.text),
    )
}

fn judge_watches(max: Option<u64>, folders: impl FnOnce() -> u64, degraded: Option<&str>) -> Check {
    const NAME: &str = "watches";
    let Some(max) = max else {
        return match degraded {
            Some(text) => Check::warning(NAME, text, "restart the daemon"),
            None => Check::ok(
                NAME,
                "Not needed: one stream of events covers the whole tree.",
            ),
        };
    };
    let folders = folders();
    let enough = (folders * 2).next_power_of_two().max(max);
    let raise =
        format!("sudo sysctl fs.inotify.max_user_watches={enough}, then restart the daemon");
    match degraded {
        Some(text) => Check::warning(NAME, text, raise),
        None if folders > max => Check::warning(
            NAME,
            format!(
                "The tree has {folders} folders, and the system watches at most {max}; changes in the others are found by the sweep."
            ),
            raise,
        ),
        None => Check::ok(
            NAME,
            format!("The tree has {folders} folders, and the system watches up to {max}."),
        ),
    }
}

/// Counts the folders of a tree, itself included. What cannot be listed counts as one.
fn folders(root: &Path) -> u64 {
    let (mut count, mut open) = (0, vec![root.to_owned()]);
    while let Some(dir) = open.pop() {
        count += 1;
        let Ok(entries) = fs::read_dir(dir) else {
            continue;
        };
        let inner = entries.flatten().filter(|entry| {
            entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.file_name() != PRIVATE_DIR
        });
        open.extend(inner.map(|entry| entry.path()));
    }
    count
}

/// There is room on the volumes of the root and of the home.
pub(super) fn spaces(home: &Path, root: &Path) -> Vec<Check> {
    let device = |path: &Path| fs::metadata(path).map(|there| there.dev()).ok();
    let mut places = vec![("space", root)];
    if device(home) != device(root) {
        places.push(("space.home", home));
    }
    let there = places.into_iter().filter(|(_, path)| path.is_dir());
    there
        .map(|(name, path)| match examine::space(path) {
            Ok(space) => judge_space(name, path, space),
            Err(error) => Check::warning(
                name,
                format!("The volume of {} cannot be asked: {error}.", path.display()),
                "",
            ),
        })
        .collect()
}

fn judge_space(name: &'static str, path: &Path, space: Space) -> Check {
    let shown = path.display();
    let (free, floor) = (mib(space.free_bytes), mib(space.floor_bytes));
    let fix = format!("free some space on the volume of {shown}");
    if space.no_inodes {
        let text = format!("The volume of {shown} can hold no more files, whatever their size.");
        return Check::wrong(name, text, fix);
    }
    let (state, what) = match space.free_bytes {
        free if free < space.floor_bytes / FULL_SHARE => (State::Wrong, "is full"),
        free if free < space.floor_bytes => (
            State::Warning,
            "is nearly full, so that kept versions go early",
        ),
        _ => return Check::ok(name, format!("{free} are free on the volume of {shown}.")),
    };
    let text = format!("The volume of {shown} {what}: {free} are free, and {floor} should be.");
    Check::new(name, state, text, fix)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// The clock is set, and has not gone back.
pub(super) fn clock(case: &Case<'_>, root: Option<&Path>) -> Check {
    let apart = match case.asked {
        Asked::Running {
            peer: Some(peer), ..
        } => Some((peer.status.node.id.as_str(), peer.status.now, peer.at)),
        _ => None,
    };
    judge_clock(case.now, newest(case, root), apart)
}

/// Returns when something of ours was written last, by the clock of its volume.
fn newest(case: &Case<'_>, root: Option<&Path>) -> Option<UtcMs> {
    let home = case.home;
    let mut files: Vec<PathBuf> = vec![home.settings_file(), home.state_dir().join("index.redb")];
    files.extend(root.map(|root| root.join(PRIVATE_DIR).join("marker")));
    let times = files.iter().filter_map(|file| {
        let seconds = u64::try_from(fs::metadata(file).ok()?.mtime()).ok()?;
        Some(UtcMs(seconds.saturating_mul(1000)))
    });
    times.max()
}

fn judge_clock(now: UtcMs, newest: Option<UtcMs>, peer: Option<(&str, UtcMs, UtcMs)>) -> Check {
    const NAME: &str = "clock";
    let fix = platform::CLOCK_FIX;
    if now < CLOCK_MIN {
        return Check::wrong(NAME, format!("It says {now}, so it was never set."), fix);
    }
    if let Some(written) = newest.filter(|written| written.0 > now.0 + CLOCK_APART_MS_MAX) {
        let text = format!(
            "It says {now}, and something was written here at {written}: it has gone back."
        );
        return Check::warning(NAME, text, fix);
    }
    match peer {
        Some((name, theirs, ours)) if theirs.0.abs_diff(ours.0) > CLOCK_APART_MS_MAX => {
            Check::warning(
                NAME,
                format!(
                    "It says {ours}, and that of {name} says {theirs}. Nothing is decided by a clock, but times of versions mislead."
                ),
                format!("{fix}, here or on {name}"),
            )
        }
        Some((name, theirs, ours)) => {
            let apart = theirs.0.abs_diff(ours.0);
            Check::ok(
                NAME,
                format!("It says {now}, {apart} ms apart from that of {name}."),
            )
        }
        None => Check::ok(NAME, format!("It says {now}.")),
    }
}

#[cfg(test)]
mod tests;
