//! `flush` and `verify`: are both trees equal?

use std::time::Duration;

use shared::block::problem_lines;
use shared::control::{Compared, Health, PeerState, Request, Response, exit};

use super::{Caller, print, print_json};
use crate::args::Shown;
use crate::client::{Client, ClientError, WORK_WAIT_MAX};
use crate::failure::Failure;
use shared::block::waiting;
use shared::words::count;
use shared::words::sync_name;

/// Waits until everything that changed before now is durable on both sides.
pub(super) fn flush(caller: &Caller, timeout: Duration, shown: Shown) -> Result<u8, Failure> {
    match Client::ask(&caller.home, &Request::Flush, timeout) {
        Ok(Response::Compared(compared)) => answer(&compared, shown),
        Ok(_) => Err(caller.unexpected()),
        Err(ClientError::Silent(_)) => Err(not_in_time(caller, timeout)),
        Err(error) => Err(caller.failure(error)),
    }
}

/// Has both trees looked at and compared.
pub(super) fn verify(caller: &Caller, deep: bool, shown: Shown) -> Result<u8, Failure> {
    // The daemon would wait for the other node, for as long as that takes.
    let peer = caller.status()?.peer;
    if matches!(peer.state, PeerState::Unpaired | PeerState::Unlinked) {
        return Err(Failure {
            exit: exit::DEGRADED,
            text: "The two trees cannot be compared: there is no link to the other node."
                .to_owned(),
            fix: format!("see `{} status`", caller.command),
        });
    }
    let request = if deep {
        Request::VerifyDeep
    } else {
        Request::Verify
    };
    match caller.ask(&request, WORK_WAIT_MAX)? {
        Response::Compared(compared) => answer(&compared, shown),
        _ => Err(caller.unexpected()),
    }
}

fn answer(compared: &Compared, shown: Shown) -> Result<u8, Failure> {
    if shown.json {
        print_json(compared)?;
    } else {
        print(&text(compared))?;
    }
    Ok(verdict(compared))
}

/// Returns the exit code that a comparison stands for.
pub(super) fn verdict(compared: &Compared) -> u8 {
    let worst = compared
        .problems
        .iter()
        .map(|problem| problem.severity)
        .max();
    match (compared.equal, worst) {
        (true, _) => exit::DONE,
        (false, Some(Health::Halted)) => exit::HALTED,
        (false, _) => exit::DEGRADED,
    }
}

fn text(compared: &Compared) -> String {
    let files = count(compared.files, "file");
    if compared.equal {
        return format!("equal: {files}, set hash {}\n", compared.alpha);
    }
    let verdict = if compared.alpha == compared.beta {
        format!(
            "equal as far as they can be: {files}, set hash {}\n",
            compared.alpha
        )
    } else {
        format!(
            "not equal: {files} compared\n  pusher   {}\n  receiver {}\n",
            compared.alpha, compared.beta
        )
    };
    problem_lines(&compared.problems) + &verdict
}

fn not_in_time(caller: &Caller, timeout: Duration) -> Failure {
    let waited = humantime::format_duration(timeout);
    let pending = match caller.status() {
        Ok(status) => match waiting(&status.sync).join(", ") {
            parts if parts.is_empty() => format!("the sync is {}", sync_name(status.sync.state)),
            parts => format!("the sync is {}, with {parts}", sync_name(status.sync.state)),
        },
        Err(_) => "the daemon does not say what is pending".to_owned(),
    };
    Failure::error(
        format!(
            "Not everything was durable on both sides after {waited}: {pending}. Nothing is lost, \
             the sync goes on."
        ),
        format!(
            "see `{0} status`, or wait longer with `{0} flush --timeout 10m`",
            caller.command
        ),
    )
}

#[cfg(test)]
mod tests {
    use shared::control::Problem;
    use shared::hash::SetHash;
    use shared::path::RelPath;
    use shared::tree::Entry;

    use super::*;

    fn compared(equal: bool, severity: Option<Health>) -> Compared {
        Compared {
            equal,
            alpha: SetHash::default(),
            beta: SetHash::default(),
            problems: severity
                .map(|severity| Problem {
                    code: "held.busy".to_owned(),
                    severity,
                    path: Some("notes/a.db".to_owned()),
                    text: "It is open in another program.".to_owned(),
                    fix: "close it".to_owned(),
                })
                .into_iter()
                .collect(),
            files: 1234,
        }
    }

    #[test]
    fn exit_codes() {
        let check = |equal, severity, code| {
            assert_eq!(verdict(&compared(equal, severity)), code);
        };
        check(true, None, 0);
        check(true, Some(Health::Degraded), 0);
        check(false, None, 4);
        check(false, Some(Health::Held), 4);
        check(false, Some(Health::Halted), 5);
    }

    #[test]
    fn what_is_shown() {
        let zero = "0".repeat(64);
        assert_eq!(
            text(&compared(true, None)),
            format!("equal: 1,234 files, set hash {zero}\n")
        );
        assert_eq!(
            text(&compared(false, Some(Health::Held))),
            format!(
                "Held     \"notes/a.db\": It is open in another program.\n\
                 \x20        Next: close it\n\
                 equal as far as they can be: 1,234 files, set hash {zero}\n"
            )
        );
        let mut differs = compared(false, None);
        differs.beta.add(&RelPath::parse("a").unwrap(), &Entry::Dir);
        assert_eq!(
            text(&differs),
            format!(
                "not equal: 1,234 files compared\n  pusher   {zero}\n  receiver {}\n",
                differs.beta
            )
        );
    }
}
