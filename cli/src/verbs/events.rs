//! `events`: what happens, one line each.

use std::time::Duration;

use config::Home;
use shared::control::{
    Change, Event, Happening, Health, Problem, Request, Response, Status, SyncState, exit,
};

use super::{Caller, print, print_json};
use crate::args::Shown;
use crate::client::{Client, ClientError};
use crate::failure::Failure;
use shared::words::sync_name;
use shared::words::{clock, count, plain, size};

/// How often it is looked whether anything is still under way.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Prints events until nothing is under way, or for ever.
pub(super) fn events(caller: &Caller, follow: bool, shown: Shown) -> Result<u8, Failure> {
    let mut client = subscribe(&caller.home).map_err(|error| caller.failure(error))?;
    loop {
        match client.next(LOOK_EVERY) {
            Ok(Some(Response::Event(event))) => {
                if shown.json {
                    print_json(&event)?;
                } else {
                    print(&line(&event))?;
                }
                if !follow && ends(&event.what) {
                    return Ok(exit::DONE);
                }
            }
            Ok(Some(Response::Refused(refused))) => return Err(refused.into()),
            Ok(Some(_)) => return Err(caller.unexpected()),
            Ok(None) if !follow && !is_under_way(&caller.status()?) => return Ok(exit::DONE),
            Ok(None) => {}
            Err(error) => return Err(caller.failure(error)),
        }
    }
}

/// Asks the daemon of `home` for its events.
pub(super) fn subscribe(home: &Home) -> Result<Client, ClientError> {
    let mut client = Client::connect(home)?;
    client.send(&Request::Events)?;
    Ok(client)
}

/// Says whether nothing more is to be expected after it without a new change.
fn ends(what: &Happening) -> bool {
    match what {
        Happening::Settled { .. } | Happening::Halted(_) | Happening::Unlinked { .. } => true,
        Happening::Paused(paused) => *paused,
        Happening::Changed { .. }
        | Happening::Conflict { .. }
        | Happening::Held(_)
        | Happening::Primary { .. }
        | Happening::Linked { .. } => false,
    }
}

fn is_under_way(status: &Status) -> bool {
    matches!(status.sync.state, SyncState::Syncing | SyncState::Starting)
}

/// Writes one event as one line.
pub(super) fn line(event: &Event) -> String {
    let what = match &event.what {
        Happening::Changed {
            on,
            change,
            path,
            from,
            len,
        } => {
            let more = match (change, from) {
                (Change::Create | Change::Replace, _) => format!("  {}", size(*len)),
                (Change::Move, Some(from)) => format!("  from {}", plain(from.as_str())),
                (Change::Move, None) | (Change::Mode | Change::Delete, _) => String::new(),
            };
            let arrow = format!("-> {}", on.name());
            format!(
                "{arrow:<11}  {:<7}  {}{more}",
                change.verb(),
                plain(path.as_str())
            )
        }
        Happening::Conflict { path, copy } => format!(
            "conflict     {}  the other version: {}",
            plain(path.as_str()),
            plain(copy.as_str())
        ),
        Happening::Held(problem) | Happening::Halted(problem) => problem_line(problem),
        Happening::Linked { peer } => format!("linked       {}", plain(peer)),
        Happening::Unlinked { reason } => format!("unlinked     {}", plain(reason)),
        Happening::Settled { files, bytes } => {
            let name = sync_name(SyncState::UpToDate);
            format!("{name:<11}  {}, {}", count(*files, "file"), size(*bytes))
        }
        Happening::Primary { side, node, epoch } => format!(
            "primary      {}, the {}, epoch {epoch}",
            plain(node),
            side.name()
        ),
        Happening::Paused(true) => "paused".to_owned(),
        Happening::Paused(false) => "resumed".to_owned(),
    };
    format!("{}  {what}\n", clock(event.at))
}

fn problem_line(problem: &Problem) -> String {
    let word = if problem.severity == Health::Halted {
        "halted"
    } else {
        "held"
    };
    let path = match &problem.path {
        Some(path) => format!("{}  ", plain(path)),
        None => String::new(),
    };
    let fix = match problem.fix.as_str() {
        "" => String::new(),
        fix => format!("  Next: {}", plain(fix)),
    };
    format!("{word:<11}  {path}{}{fix}", plain(&problem.text))
}

#[cfg(test)]
mod tests {
    use shared::control::NodeSide;
    use shared::path::RelPath;
    use shared::utc::UtcMs;

    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    fn problem(severity: Health) -> Problem {
        Problem {
            code: "held.special".to_owned(),
            severity,
            path: Some("run/pipe".to_owned()),
            text: "It is a FIFO.".to_owned(),
            fix: "move it out of the tree".to_owned(),
        }
    }

    #[test]
    fn lines() {
        let check = |what: Happening, shown: &str| {
            let event = Event {
                at: UtcMs(1_795_382_045_000),
                what,
            };
            assert_eq!(line(&event), format!("21:14:05  {shown}\n"));
        };
        let changed = |on, change, len| Happening::Changed {
            on,
            change,
            path: path("notes/plan.md"),
            from: (change == Change::Move).then(|| path("old/plan.md")),
            len,
        };
        check(
            changed(NodeSide::Receiver, Change::Replace, 5018),
            "-> receiver  replace  notes/plan.md  4.9 KiB",
        );
        check(
            changed(NodeSide::Pusher, Change::Delete, 5018),
            "-> pusher    delete   notes/plan.md",
        );
        check(
            changed(NodeSide::Receiver, Change::Move, 5018),
            "-> receiver  move     notes/plan.md  from old/plan.md",
        );
        check(
            Happening::Conflict {
                path: path("a.md"),
                copy: path("a (conflict mac).md"),
            },
            "conflict     a.md  the other version: a (conflict mac).md",
        );
        check(
            Happening::Held(problem(Health::Held)),
            "held         run/pipe  It is a FIFO.  Next: move it out of the tree",
        );
        check(
            Happening::Halted(Problem {
                path: None,
                fix: String::new(),
                ..problem(Health::Halted)
            }),
            "halted       It is a FIFO.",
        );
        check(
            Happening::Linked {
                peer: "mac".to_owned(),
            },
            "linked       mac",
        );
        check(
            Happening::Unlinked {
                reason: "time-out".to_owned(),
            },
            "unlinked     time-out",
        );
        check(
            Happening::Settled {
                files: 9363,
                bytes: 85_144_371,
            },
            "up to date   9,363 files, 81.2 MiB",
        );
        check(
            Happening::Primary {
                side: NodeSide::Receiver,
                node: "mac".to_owned(),
                epoch: 42,
            },
            "primary      mac, the receiver, epoch 42",
        );
        check(Happening::Paused(true), "paused");
        check(Happening::Paused(false), "resumed");
    }

    #[test]
    fn when_it_ends() {
        let check = |what: Happening, over: bool| assert_eq!(ends(&what), over, "{what:?}");
        check(Happening::Settled { files: 0, bytes: 0 }, true);
        check(Happening::Halted(problem(Health::Halted)), true);
        check(
            Happening::Unlinked {
                reason: String::new(),
            },
            true,
        );
        check(Happening::Paused(true), true);
        check(Happening::Paused(false), false);
        check(Happening::Held(problem(Health::Held)), false);
        check(
            Happening::Linked {
                peer: String::new(),
            },
            false,
        );
    }
}
