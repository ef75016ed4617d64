//! The status as a block of text: trouble first, each line with the command that helps. The command and the chat show this one.

use crate::control::{
    BotStatus, Health, LeaseStatus, MirrorState, MirrorStatus, NodeSide, NodeStatus, PeerState,
    Problem, ProcessStatus, Status, SyncStatus,
};
use crate::utc::UtcMs;
use crate::words::{
    bot_name, clock, count, health_name, mirror_name, near_moment, number, plain, road_name,
    role_name, size, span, sync_name,
};

/// What the block begins with.
const TITLE: &str = "97LAYER";
/// Column at which the name of the node stands in the first line.
const NAME_COLUMN: usize = 51;
/// Most problems that the block shows; `--check` and `--json` show all that the daemon lists.
const PROBLEMS_SHOWN_MAX: usize = 10;

/// Writes the whole block. `health` is the name of its state, as it is to be shown; `command` is how the program is called for
/// this node.
pub fn block(status: &Status, health: &str, command: &str) -> String {
    let state = health_name(status.state);
    let left = format!("{TITLE}  {state}");
    let gap = " ".repeat(NAME_COLUMN.saturating_sub(left.len()).max(2));
    let shown = status.problems.len().min(PROBLEMS_SHOWN_MAX);
    format!(
        "{TITLE}  {}{gap}{}, {} (this)   {}\n{}{}{}{}{}{}{}{}",
        health,
        plain(&status.node.id),
        status.node.side.name(),
        day_and_clock(status.now),
        problem_lines(&status.problems[..shown]),
        more_problems(status.problems.len() - shown, command),
        role_line(&status.node, &status.lease, status.now),
        peer_line(status, command),
        sync_line(&status.sync, &status.node.root, status.now),
        mirror_line(status.mirror.as_ref(), status.now),
        bot_line(status.bot.as_ref(), status.now),
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
pub fn waiting(sync: &SyncStatus) -> Vec<String> {
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

fn mirror_line(mirror: Option<&MirrorStatus>, now: UtcMs) -> String {
    let Some(mirror) = mirror else {
        return String::new();
    };
    let name = format!("{} {}", mirror.target, mirror_name(mirror.state));
    let mut line = format!("Mirror   {name:<12} {}", road_name(mirror.road));
    if mirror.state != MirrorState::Standby {
        line += &match mirror.last_push {
            Some(at) => format!(", last push {}", near_moment(at, now)),
            None => ", no push yet".to_owned(),
        };
        line += &format!(", {} waiting", number(mirror.waiting));
    }
    if mirror.lag_ms > 60_000 {
        line += &format!(", {} behind", span(mirror.lag_ms));
    }
    if mirror.held > 0 {
        line += &format!(", {} held", number(mirror.held));
    }
    line + "\n"
}

fn bot_line(bot: Option<&BotStatus>, now: UtcMs) -> String {
    let Some(bot) = bot else {
        return String::new();
    };
    let last = match bot.last_update {
        Some(at) => format!("last update {}", near_moment(at, now)),
        None => "no update yet".to_owned(),
    };
    let mut line = format!(
        "Bot      {:<12} {last}, inbox {}, outbox {}",
        bot_name(bot.state),
        number(bot.inbox),
        number(bot.outbox)
    );
    for (count, what) in [
        (bot.rivals, "refused for a rival"),
        (bot.doubtful, "perhaps twice"),
        (bot.quarantined, "put aside"),
    ] {
        if count > 0 {
            line += &format!(", {} {what}", number(count));
        }
    }
    if !bot.owner {
        line += ", no owner yet";
    }
    line + "\n"
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

/// Writes the whole in one line.
pub fn short_text(status: &Status) -> String {
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

/// Writes problems, two lines each: what is wrong, and what helps.
pub fn problem_lines(problems: &[Problem]) -> String {
    let mut lines = String::new();
    for problem in problems {
        let label = match problem.severity {
            Health::Healthy => "Note",
            Health::Degraded => "Degraded",
            Health::Held => "Held",
            Health::Halted => "Halted",
        };
        let path = match &problem.path {
            Some(path) => format!("\"{}\": ", plain(path)),
            None => String::new(),
        };
        lines += &format!("{label:<8} {path}{}\n", plain(&problem.text));
        if !problem.fix.is_empty() {
            lines += &format!("         Next: {}\n", plain(&problem.fix));
        }
    }
    lines
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
