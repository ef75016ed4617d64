//! What the tests stand on: the program, nodes, pairs, waiting, comparing.

mod compare;
mod drive;
mod node;
mod pair;
mod program;
mod relay;
mod strange;
mod talk;
mod telegram;
mod volume;

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

pub(crate) use compare::{assert_equal, difference, listing, snapshot};
pub(crate) use drive::{Call, DriveApi, SHARED_DRIVE, oauth, service};
pub(crate) use node::{Node, Side};
pub(crate) use pair::Pair;
pub(crate) use program::{Answer, command, layer_sync, layer_sync_told, run};
pub(crate) use relay::{Relay, Way};
pub(crate) use strange::{Fault, Folding, Mount, Strange};
pub(crate) use talk::{OWNER, Talk, give_bot, set_token};
pub(crate) use telegram::{BotApi, Effect, Faults, Said};
pub(crate) use volume::Volume;

/// Longest wait for anything that should happen soon. Generous: it bounds failures, not successes.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Waits until `condition` gives something.
#[track_caller]
pub(crate) fn wait<T>(what: &str, most: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + most;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "not in {most:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, most: Duration, mut condition: impl FnMut() -> bool) {
    wait(what, most, || condition().then_some(()));
}

/// Writes a file, with the directories above it.
#[track_caller]
pub(crate) fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let file = root.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
}

/// Reads a file; `None` when there is none.
pub(crate) fn read(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok()
}

/// Returns the names in a directory that the program did not make for itself.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.retain(|name| name != ".layer-sync");
    names.sort();
    names
}

/// Returns what a variable asks for.
pub(crate) fn wish(variable: &str) -> Option<u64> {
    std::env::var(format!("LAYER_SYNC_E2E_{variable}"))
        .ok()?
        .parse()
        .ok()
}
