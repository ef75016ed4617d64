//! `status`: how the pair is, trouble first.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use shared::block::{block, problem_lines, short_text};
use shared::control::{Health, Status, SyncState, exit};
use shared::words::count;

use super::{Caller, paint, print, print_json};
use crate::args;
use crate::failure::Failure;

/// Time between two pictures of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Puts the cursor into the corner and clears what is below it.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows the status once, or every second.
pub(super) fn status(caller: &Caller, wish: &args::Status) -> Result<u8, Failure> {
    // The first question must be answered; a watcher stays when the daemon goes away later.
    let mut answer = Ok(caller.status()?);
    let clear = wish.watch && !wish.shown.json && io::stdout().is_terminal();
    loop {
        if clear {
            print(CLEAR)?;
        }
        let code = match &answer {
            Ok(status) => {
                show(status, wish, &caller.command)?;
                if wish.check {
                    verdict(status)
                } else {
                    exit::DONE
                }
            }
            Err(failure) => Failure::report(failure),
        };
        if !wish.watch {
            return Ok(code);
        }
        thread::sleep(WATCH_EVERY);
        answer = caller.status();
    }
}

fn show(status: &Status, wish: &args::Status, command: &str) -> Result<(), Failure> {
    if wish.shown.json {
        return print_json(status);
    }
    print(&match (wish.check, wish.short) {
        (true, _) => check_text(status, command),
        (_, true) => short_text(status),
        _ => block(status, &paint().health(status.state), command),
    })
}

/// Returns the exit code of `--check`.
fn verdict(status: &Status) -> u8 {
    let sync = &status.sync;
    if status.state == Health::Halted || sync.state == SyncState::Halted {
        exit::HALTED
    } else if status.state > Health::Healthy || sync.counts.conflicts > 0 || sync.counts.held > 0 {
        exit::DEGRADED
    } else {
        exit::DONE
    }
}

fn check_text(status: &Status, command: &str) -> String {
    let mut text = problem_lines(&status.problems);
    let conflicts = status.sync.counts.conflicts;
    if conflicts > 0 {
        text += &format!(
            "Conflict {} not resolved yet\n         Next: {command} conflicts\n",
            count(conflicts, "conflict")
        );
    }
    if text.is_empty() {
        text = short_text(status);
    }
    text
}

#[cfg(test)]
pub(super) mod tests;
