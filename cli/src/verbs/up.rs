//! `up`: both sides on this machine, in this process.
//!
//! The two sides are asked over their control sockets like any other daemon: a flush until both
//! trees are equal, their status for the progress meanwhile, and then the events of the pusher.

mod meter;
mod signal;

use std::io::{self, IsTerminal};
use std::thread;
use std::time::{Duration, Instant};

use config::Home;
use config::home::shell_word;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use node::Up;
use shared::block::problem_lines;
use shared::control::{Happening, Health, Problem, Request, Response, Status, SyncState, exit};

use super::{Caller, compare, events, make, print};
use crate::args;
use crate::client::{Client, ClientError};
use crate::failure::Failure;
use meter::{Meter, Pace, Progress};
use shared::words::{count, size, span};
use signal::StopSignal;

/// Longest time between two looks at the stop signal.
const TICK: Duration = Duration::from_millis(100);
/// Longest wait for the status of a side; a busy one is asked again at the next tick.
const STATUS_WAIT_MAX: Duration = Duration::from_millis(500);
/// How long the two sides may take to answer at all and to find each other. After it what they
/// refuse is told.
const START_WAIT_MAX: Duration = Duration::from_secs(30);

/// Makes both folders equal, and keeps them so unless `--once`.
pub(super) fn up(caller: &Caller, wish: &args::Up) -> Result<u8, Failure> {
    let started = Instant::now();
    let source = make::absolute(&wish.source)?;
    let replica = make::absolute(&wish.replica)?;
    let signal = StopSignal::listen()
        .map_err(|error| Failure::error(format!("Signals cannot be received: {error}."), ""))?;
    let mirror = wish.mirror.as_deref().map(make::absolute).transpose()?;
    let up = Up::start(
        &caller.home,
        &source,
        &replica,
        wish.mode,
        mirror.as_deref(),
    )?;
    let outcome = work(&up, caller, &signal, started, wish);
    // Why a side ended says more than the conversation with it that broke off.
    up.stop()?;
    outcome
}

fn work(
    up: &Up,
    caller: &Caller,
    signal: &StopSignal,
    started: Instant,
    wish: &args::Up,
) -> Result<u8, Failure> {
    let once = wish.once;
    let mut display = Display::new();
    let settled = settle(up, caller, signal, once, &mut display);
    display.clear();
    let word = match settled? {
        Settled::Stopped if once => {
            return Err(Failure::error(
                "Stopped before both folders were equal. What has arrived stays, and no file is \
                 half written.",
                "run the same command again; it goes on from there",
            ));
        }
        Settled::Stopped => return Ok(exit::DONE),
        Settled::Stuck { problems, exit } => {
            print(&problem_lines(&remedies(problems, up.pusher(), once)))?;
            if once {
                return Ok(exit);
            }
            if exit == exit::HALTED {
                "halted"
            } else {
                "held"
            }
        }
        Settled::Equal => "up to date",
    };
    if once {
        print(&summary(up, caller, word, started.elapsed())?)?;
        return match wish.mirror {
            Some(_) => super::mirror::bring(&caller.of(up.pusher())),
            None => Ok(exit::DONE),
        };
    }
    // From before the line that says so, so that no change after it goes untold.
    let client = events::subscribe(up.pusher()).map_err(|error| failure(up, caller, error))?;
    print(&summary(up, caller, word, started.elapsed())?)?;
    follow(up, caller, signal, client)
}

/// Says how the commands that help reach the two sides in this process, which have homes of their own.
fn remedies(mut problems: Vec<Problem>, home: &Home, once: bool) -> Vec<Problem> {
    let here = format!("`layer-sync --home {} ", shell_word(home.dir()));
    for problem in &mut problems {
        let fix = problem.fix.replace("`layer-sync ", &here);
        problem.fix = if once && fix.contains(&here) {
            format!("run the same command without --once, and beside it: {fix}")
        } else {
            fix
        };
    }
    problems
}

/// How the first part ended.
enum Settled {
    /// Both trees are equal and durable.
    Equal,
    /// What could move has moved; these wait.
    Stuck { problems: Vec<Problem>, exit: u8 },
    /// Somebody stopped the program.
    Stopped,
}

fn settle(
    up: &Up,
    caller: &Caller,
    signal: &StopSignal,
    once: bool,
    display: &mut Display,
) -> Result<Settled, Failure> {
    let started = Instant::now();
    let mut asked = None;
    while !signal.came() {
        match flush(&mut asked, up.pusher()) {
            Ok(None) => {}
            Ok(Some(Response::Compared(compared))) if compared.equal => return Ok(Settled::Equal),
            Ok(Some(Response::Compared(compared))) => {
                let waits = |problem: &Problem| problem.severity >= Health::Held;
                if compared.problems.iter().any(waits) {
                    let exit = compare::verdict(&compared);
                    let problems = compared.problems;
                    return Ok(Settled::Stuck { problems, exit });
                }
                ask_again(&mut asked);
            }
            Ok(Some(Response::Refused(_))) | Err(ClientError::NotRunning)
                if started.elapsed() < START_WAIT_MAX =>
            {
                ask_again(&mut asked);
            }
            Ok(Some(Response::Refused(refused))) => return Err(refused.into()),
            Ok(Some(_)) => return Err(failure(up, caller, ClientError::Unexpected)),
            Err(error) => return Err(failure(up, caller, error)),
        }
        let Some(pusher) = status(up.pusher()) else {
            continue;
        };
        if pusher.state == Health::Halted {
            let problems = pusher.problems;
            return Ok(Settled::Stuck {
                problems,
                exit: exit::HALTED,
            });
        }
        if once && pusher.sync.state == SyncState::Paused {
            return Err(paused(up));
        }
        display.show(started.elapsed(), &pusher, status(up.receiver()).as_ref());
    }
    Ok(Settled::Stopped)
}

/// Asks for a flush, or waits on for the one that was asked for; at most a [`TICK`].
fn flush(asked: &mut Option<Client>, home: &Home) -> Result<Option<Response>, ClientError> {
    let client = match asked {
        Some(client) => client,
        None => {
            let mut client = Client::connect(home)?;
            client.send(&Request::Flush)?;
            asked.insert(client)
        }
    };
    client.next(TICK)
}

fn ask_again(asked: &mut Option<Client>) {
    *asked = None;
    thread::sleep(TICK);
}

fn status(home: &Home) -> Option<Status> {
    match Client::ask(home, &Request::Status, STATUS_WAIT_MAX) {
        Ok(Response::Status(status)) => Some(*status),
        _ => None,
    }
}

fn paused(up: &Up) -> Failure {
    let home = shell_word(up.pusher().dir());
    Failure {
        exit: exit::HALTED,
        text: "The pair is paused: neither folder changes.".to_owned(),
        fix: format!(
            "start it with `layer-sync up` without --once, and run `layer-sync --home {home} resume`"
        ),
    }
}

fn failure(up: &Up, caller: &Caller, error: ClientError) -> Failure {
    error.into_failure(up.pusher(), &caller.command)
}

fn summary(up: &Up, caller: &Caller, word: &str, took: Duration) -> Result<String, Failure> {
    match Client::ask(
        up.pusher(),
        &Request::Status,
        crate::client::ANSWER_WAIT_MAX,
    ) {
        Ok(Response::Status(status)) => Ok(summary_line(word, &status, took)),
        Ok(_) => Err(failure(up, caller, ClientError::Unexpected)),
        Err(error) => Err(failure(up, caller, error)),
    }
}

fn summary_line(word: &str, status: &Status, took: Duration) -> String {
    let counts = &status.sync.counts;
    let held = match counts.held {
        0 => String::new(),
        held => format!(", {} held", shared::words::number(held)),
    };
    format!(
        "{word}: {}, {} in {}{held}\n",
        count(counts.files, "file"),
        size(counts.bytes),
        span(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
    )
}

/// Prints a line per change until somebody stops the program.
fn follow(
    up: &Up,
    caller: &Caller,
    signal: &StopSignal,
    mut client: Client,
) -> Result<u8, Failure> {
    while !signal.came() {
        match client.next(TICK) {
            Ok(None) => {}
            Ok(Some(Response::Event(event))) => {
                if !matches!(event.what, Happening::Settled { .. }) {
                    print(&events::line(&event))?;
                }
            }
            Ok(Some(Response::Refused(refused))) => return Err(refused.into()),
            Ok(Some(_)) => return Err(failure(up, caller, ClientError::Unexpected)),
            Err(error) => return Err(failure(up, caller, error)),
        }
    }
    Ok(exit::DONE)
}

/// Shows progress on stderr: a bar on a terminal, else a line now and then.
struct Display {
    meter: Meter,
    kind: Kind,
}

enum Kind {
    Bar(ProgressBar),
    Lines(Pace),
}

impl Display {
    fn new() -> Self {
        let kind = if io::stderr().is_terminal() {
            let bar =
                ProgressBar::with_draw_target(Some(Progress::WHOLE), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {percent:>3} %  {wide_msg}") {
                bar.set_style(style);
            }
            Kind::Bar(bar)
        } else {
            Kind::Lines(Pace::default())
        };
        Self {
            meter: Meter::default(),
            kind,
        }
    }

    fn show(&mut self, at: Duration, pusher: &Status, receiver: Option<&Status>) {
        let progress = self.meter.observe(at, pusher, receiver);
        match &mut self.kind {
            Kind::Bar(bar) => {
                bar.set_position(progress.permille());
                bar.set_message(progress.text());
            }
            Kind::Lines(pace) => {
                if pace.is_due(at, progress.permille()) {
                    eprintln!("{:>3} %  {}", progress.permille() / 10, progress.text());
                }
            }
        }
    }

    fn clear(&self) {
        if let Kind::Bar(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::status::tests::healthy;

    #[test]
    fn the_last_line() {
        let mut status = healthy();
        status.sync.counts.files = 9363;
        status.sync.counts.bytes = 85_144_371;
        assert_eq!(
            summary_line("up to date", &status, Duration::from_millis(2449)),
            "up to date: 9,363 files, 81.2 MiB in 2.4 s\n"
        );
        status.sync.counts.held = 1;
        assert_eq!(
            summary_line("held", &status, Duration::from_secs(75)),
            "held: 9,363 files, 81.2 MiB in 1 m 15 s, 1 held\n"
        );
    }
}
