//! The daemon, and what it says: about itself, the other node, the trees.

use config::Settings;
use shared::control::{BotState, Health, NodeSide, PeerState, Problem, Role, Status};
use shared::words::bot_name;

use super::mend::Mend;
use super::own::sentence;
use super::{Asked, Case, Check};

/// Problems that another check speaks of.
const TOLD_ELSEWHERE: [&str; 3] = ["degraded.watch", "degraded.unlinked", "degraded.unpaired"];

/// A daemon runs and answers.
pub(super) fn daemon(case: &Case<'_>, settings: Option<&Settings>) -> Check {
    const NAME: &str = "daemon";
    match case.asked {
        Asked::Running { status, .. } => Check::ok(
            NAME,
            format!(
                "The {} {} runs, version {}.",
                status.node.side.name(),
                status.node.id,
                status.node.version
            ),
        ),
        Asked::Deaf(why) => Check::wrong(NAME, sentence(why), "restart the daemon"),
        Asked::NotRunning => {
            let start = match settings {
                Some(settings) => format!("{} {}", case.command, settings.link.side().name()),
                None => "correct the settings first".to_owned(),
            };
            if case.home.socket().symlink_metadata().is_ok() {
                let text = "No daemon is running; the last one left its socket.";
                Check::warning(NAME, text, start).mended_by(Mend::DeadSocket)
            } else {
                Check::warning(NAME, "No daemon is running.", start)
            }
        }
    }
}

/// The other node runs the same version, and is not halted itself.
pub(super) fn peer(case: &Case<'_>) -> Option<Check> {
    const NAME: &str = "peer";
    let Asked::Running { status, peer } = case.asked else {
        return None;
    };
    if !matches!(status.peer.state, PeerState::Linked) {
        return None;
    }
    let Some(peer) = peer else {
        return Some(Check::warning(
            NAME,
            format!(
                "{} is connected, and does not say how it is.",
                status.peer.id
            ),
            format!("{} doctor", case.command),
        ));
    };
    let (ours, theirs) = (&status.node, &peer.status.node);
    let halted = first(&peer.status.problems, Health::Halted);
    Some(match halted {
        _ if ours.version != theirs.version => Check::warning(
            NAME,
            format!(
                "{} runs version {}, and this node {}.",
                theirs.id, theirs.version, ours.version
            ),
            "install the same version on both machines",
        ),
        // What halts the pair stands in the status of both, and so in the last check.
        Some(problem) if first(&status.problems, Health::Halted).is_none() => Check::wrong(
            NAME,
            format!("{} is halted: {}", theirs.id, sentence(&problem.text)),
            format!("on {}: {}", theirs.id, problem.fix),
        ),
        _ => Check::ok(
            NAME,
            format!("{} runs version {} as well.", theirs.id, theirs.version),
        ),
    })
}

/// One node is primary, and both say the same one.
pub(super) fn lease(case: &Case<'_>) -> Option<Check> {
    const NAME: &str = "lease";
    let Asked::Running { status, peer } = case.asked else {
        return None;
    };
    let Some(holder) = status.lease.holder else {
        let text = "No node has been primary yet; the pusher is, half a minute after its start.";
        return Some(Check::ok(NAME, text));
    };
    let theirs = peer.as_ref().map(|peer| &peer.status);
    let both = status.node.role == Role::Primary
        && theirs.is_some_and(|theirs| theirs.node.role == Role::Primary);
    let differs = theirs.filter(|theirs| {
        (theirs.lease.holder, theirs.node.epoch) != (Some(holder), status.node.epoch)
    });
    let says = |status: &Status| {
        let holder = status.lease.holder.map_or("nobody", NodeSide::name);
        format!(
            "{} says that the {holder} has epoch {}",
            status.node.id, status.node.epoch
        )
    };
    let look = format!("{} status, on both", case.command);
    Some(match differs {
        _ if both => Check::wrong(
            NAME,
            "Both nodes say that they are primary.",
            "stop one of the daemons, and start it again",
        ),
        Some(theirs) => {
            let text = format!("{}, and {}.", says(status), says(theirs));
            Check::warning(NAME, text, look)
        }
        None if status.lease.forced => Check::warning(
            NAME,
            "The receiver is primary because a person forced it; the pusher has not agreed yet.",
            "make sure that the pusher does not act, or link the two",
        ),
        None => Check::ok(
            NAME,
            format!(
                "The {} is primary, epoch {}.",
                holder.name(),
                status.node.epoch
            ),
        ),
    })
}

/// The bot hears and speaks, and somebody owns it.
pub(super) fn bot(case: &Case<'_>) -> Option<Check> {
    const NAME: &str = "bot";
    let status = case.status()?;
    let bot = status.bot.as_ref()?;
    let wrong = status.problems.iter().find(|problem| is_of_bot(problem));
    Some(match wrong {
        Some(problem) => Check::warning(NAME, sentence(&problem.text), problem.fix.clone()),
        None if !bot.owner => Check::warning(
            NAME,
            "The bot has no owner yet, so it answers nobody.",
            format!("{} bot pair", case.command),
        ),
        None if bot.state == BotState::NotPrimary => {
            Check::ok(NAME, "The bot is ready, and at work where the primary is.")
        }
        None => Check::ok(
            NAME,
            format!("The bot is at work here: {}.", bot_name(bot.state)),
        ),
    })
}

fn is_of_bot(problem: &Problem) -> bool {
    let name = problem.code.split('.').nth(1);
    name.is_some_and(|name| name.starts_with("bot_"))
}

/// Nothing waits for a person.
pub(super) fn sync(case: &Case<'_>) -> Option<Check> {
    const NAME: &str = "sync";
    let status = case.status()?;
    let counts = &status.sync.counts;
    if let Some(problem) = first(&status.problems, Health::Halted) {
        return Some(Check::wrong(
            NAME,
            sentence(&problem.text),
            problem.fix.clone(),
        ));
    }
    if counts.held + counts.conflicts > 0 {
        return Some(Check::warning(
            NAME,
            format!(
                "{} paths are held, and {} conflicts are open.",
                counts.held, counts.conflicts
            ),
            format!("{0} status, {0} conflicts", case.command),
        ));
    }
    let other = status
        .problems
        .iter()
        .find(|problem| !TOLD_ELSEWHERE.contains(&&*problem.code) && !is_of_bot(problem));
    Some(match other {
        Some(problem) => Check::warning(NAME, sentence(&problem.text), problem.fix.clone()),
        None if status.sync.in_sync => Check::ok(
            NAME,
            format!("The two trees are equal, {} files.", counts.files),
        ),
        None => Check::ok(
            NAME,
            format!("{} paths wait for their turn.", counts.pending_files),
        ),
    })
}

fn first(problems: &[Problem], severity: Health) -> Option<&Problem> {
    problems.iter().find(|problem| problem.severity == severity)
}
