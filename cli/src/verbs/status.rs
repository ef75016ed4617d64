//! `status`: how the pair is, trouble first.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use shared::control::{
    Health, LeaseStatus, NodeSide, NodeStatus, PeerState, ProcessStatus, Role, Status, SyncState,
    SyncStatus, exit,
};
use shared::utc::UtcMs;

use super::{Caller, paint, print, print_json, problem_lines};
use crate::args;
use crate::failure::Failure;
use crate::human::{Paint, clock, count, health_name, near_moment, number, plain, size, span};

/// What the block begins with.
const TITLE: &str = "97LAYER";
/// Column at which the name of the node stands in the first line.
const NAME_COLUMN: usize = 51;
/// Most problems that the block shows; `--check` and `--json` show all that the daemon lists.
const PROBLEMS_SHOWN_MAX: usize = 10;
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
        _ => block(status, paint(), command),
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

/// Writes the whole block. `command` is how this program is called for this node.
fn block(status: &Status, paint: Paint, command: &str) -> String {
    let state = health_name(status.state);
    let left = format!("{TITLE}  {state}");
    let gap = " ".repeat(NAME_COLUMN.saturating_sub(left.len()).max(2));
    let shown = status.problems.len().min(PROBLEMS_SHOWN_MAX);
    format!(
        "{TITLE}  {}{gap}{}, {} (this)   {}\n{}{}{}{}{}{}",
        paint.health(status.state),
        plain(&status.node.id),
        status.node.side.name(),
        day_and_clock(status.now),
        problem_lines(&status.problems[..shown]),
        more_problems(status.problems.len() - shown, command),
        role_line(&status.node, &status.lease, status.now),
        peer_line(status, command),
        sync_line(&status.sync, &status.node.root, status.now),
        self_line(&status.process),
    )
}

fn more_problems(left: usize, command: &str) -> String {
    match left {
        0 => String::new(),
        left => format!(
            "         and {}: {command} status --check\n",
            count(left as u64, "more problem")
        ),
    }
}

fn role_line(node: &NodeStatus, lease: &LeaseStatus, now: UtcMs) -> String {
    let role = role_name(node.role);
    let mut line = format!("Role     {role:<12} epoch {}", node.epoch);
    if let Some(since) = lease.since
        && lease.holder == Some(node.side)
    {
        line += &format!("   since {}", near_moment(since, now));
    }
    if lease.forced {
        line += "   forced";
    }
    let left = lease.remaining_ms.map(span);
    match (lease.holder == Some(node.side), left, lease.renewed_ago_ms) {
        (true, Some(left), Some(ago)) => {
            line += &format!("   lease {left} left, renewed {} ago", span(ago));
        }
        (false, Some(left), _) => line += &format!("   takes over in {left} without renewal"),
        _ => {}
    }
    line + "\n"
}

/// Returns the word for a role.
fn role_name(role: Role) -> &'static str {
    match role {
        Role::Primary => "PRIMARY",
        Role::Standby => "standby",
        Role::Candidate => "candidate",
        Role::Draining => "draining",
        Role::SafeMode => "SAFE MODE",
    }
}

fn peer_line(status: &Status, command: &str) -> String {
    let peer = &status.peer;
    let (side, pairing) = match status.node.side {
        NodeSide::Pusher => (NodeSide::Receiver, "pair"),
        NodeSide::Receiver => (NodeSide::Pusher, "join CODE --root DIR"),
    };
    if peer.state == PeerState::Unpaired {
        return format!("Peer     none         never paired: {command} {pairing}\n");
    }
    let link = match (peer.state, peer.rtt_ms) {
        (PeerState::Linked, Some(rtt)) => format!("direct QUIC {rtt} ms"),
        (PeerState::Linked, None) => "direct QUIC".to_owned(),
        (PeerState::Greeting, _) => "linking".to_owned(),
        (PeerState::Unlinked | PeerState::Unpaired, _) => "not linked".to_owned(),
    };
    let seen = match peer.last_seen_ago_ms {
        Some(ago) => format!("seen {} ago", span(ago)),
        None => "not seen yet".to_owned(),
    };
    let role = match status.lease.holder {
        Some(holder) if holder == side => "primary",
        _ => "standby",
    };
    format!("Peer     {:<12} {role}, {link}, {seen}\n", plain(&peer.id))
}

fn sync_line(sync: &SyncStatus, root: &str, now: UtcMs) -> String {
    let counts = &sync.counts;
    let mut line = format!(
        "Sync     {:<12} {} {} in {}",
        sync_name(sync.state),
        count(counts.files, "file"),
        size(counts.bytes),
        plain(root)
    );
    for part in waiting(sync) {
        line += &format!("   {part}");
    }
    if let Some(at) = sync.last_change {
        line += &format!("   last change {}", near_moment(at, now));
    }
    line + "\n"
}

/// Returns what is not settled, in a few words each.
pub(super) fn waiting(sync: &SyncStatus) -> Vec<String> {
    let counts = &sync.counts;
    let mut parts = Vec::new();
    if counts.pending_files > 0 {
        let left = match sync.eta_ms {
            Some(eta) => format!(", {} left", span(eta)),
            None => String::new(),
        };
        parts.push(format!(
            "{} waiting, {}{left}",
            number(counts.pending_files),
            size(counts.pending_bytes)
        ));
    }
    if counts.conflicts > 0 {
        parts.push(count(counts.conflicts, "conflict"));
    }
    if counts.held > 0 {
        parts.push(format!("{} held", number(counts.held)));
    }
    parts
}

fn self_line(process: &ProcessStatus) -> String {
    let decimals = usize::from(process.cpu_pct < 9.95);
    format!(
        "Self     cpu {:.decimals$} %  rss {}  net {}/min  up {}  restarts {}\n",
        process.cpu_pct,
        size(process.rss_bytes),
        size(process.net_bytes_min),
        span(process.uptime_ms),
        process.restarts
    )
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

fn short_text(status: &Status) -> String {
    let sync = &status.sync;
    let mut parts = vec![
        sync_name(sync.state).to_owned(),
        count(sync.counts.files, "file"),
        size(sync.counts.bytes),
    ];
    parts.extend(waiting(sync));
    parts.push(match status.peer.state {
        PeerState::Unpaired => "never paired".to_owned(),
        PeerState::Unlinked => format!("{} not linked", plain(&status.peer.id)),
        PeerState::Greeting => format!("{} linking", plain(&status.peer.id)),
        PeerState::Linked => format!("{} linked", plain(&status.peer.id)),
    });
    format!("{}: {}\n", health_name(status.state), parts.join(", "))
}

/// Returns the word for a state of the sync.
pub(super) fn sync_name(state: SyncState) -> &'static str {
    match state {
        SyncState::UpToDate => "up to date",
        SyncState::Syncing => "syncing",
        SyncState::Held => "held",
        SyncState::Paused => "paused",
        SyncState::Offline => "offline",
        SyncState::Halted => "halted",
        SyncState::Starting => "starting",
    }
}

/// Writes `22 Nov 21:14:05 UTC`.
fn day_and_clock(at: UtcMs) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let date = at.to_string();
    let month = date[5..7].parse::<usize>().unwrap_or(1);
    format!(
        "{} {} {} UTC",
        &date[8..10],
        MONTHS[(month - 1) % 12],
        clock(at)
    )
}

#[cfg(test)]
pub(super) mod tests;
