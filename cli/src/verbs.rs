//! The verbs, one function each.

mod bot;
mod compare;
pub(crate) mod decide;
mod doctor;
mod duty;
mod events;
mod make;
mod mirror;
mod promote;
mod service;
mod show;
mod status;
mod steer;
mod up;

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use config::home::shell_word;
use config::{Home, HomeRefused};
use serde::Serialize;
use shared::control::{NodeSide, Request, Response, Status};
use shared::path::RelPath;
use shared::utc::UtcMs;

use crate::args::{Log, Verb};
use crate::client::{ANSWER_WAIT_MAX, Client, ClientError};
use crate::failure::Failure;
use crate::human::Paint;
use crate::paths;

/// Does what was typed and returns the exit code.
pub(crate) fn run(caller: &Caller, verb: Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Up(wish) => up::up(caller, &wish),
        Verb::Init { side } => make::init(caller, side),
        Verb::Join { code, root, name } => make::join(caller, code, &root, name),
        Verb::Pair { address, shown } => steer::pair(caller, address, shown),
        Verb::Pusher(log) => daemon(caller, NodeSide::Pusher, &log),
        Verb::Receiver(log) => daemon(caller, NodeSide::Receiver, &log),
        Verb::Status(wish) => status::status(caller, &wish),
        Verb::Flush { timeout, shown } => compare::flush(caller, timeout, shown),
        Verb::Doctor(wish) => doctor::doctor(caller, &wish),
        Verb::Verify { deep, shown } => compare::verify(caller, deep, shown),
        Verb::Plan(shown) => show::plan(caller, shown),
        Verb::Why(on) => show::why(caller, &on),
        Verb::Conflicts(shown) => show::conflicts(caller, shown),
        Verb::Resolve(wish) => decide::resolve(caller, &wish),
        Verb::Confirm(wish) => decide::confirm(caller, &wish),
        Verb::Versions(on) => show::versions(caller, &on),
        Verb::Restore { on, at, version } => steer::restore(caller, &on, at.as_deref(), version),
        Verb::Pause(shown) => steer::pause(caller, true, shown),
        Verb::Resume(shown) => steer::pause(caller, false, shown),
        Verb::Promote(wish) => promote::promote(caller, &wish),
        Verb::Duty { wish } => duty::duty(caller, wish),
        Verb::Web(shown) => steer::web(caller, shown),
        Verb::Mirror { wish } => mirror::mirror(caller, wish),
        Verb::Bot { wish } => bot::bot(caller, wish),
        Verb::Service { act } => service::service(caller, &act),
        Verb::Events { follow, shown } => events::events(caller, follow, shown),
    }
}

fn daemon(caller: &Caller, side: NodeSide, log: &Log) -> Result<u8, Failure> {
    node::run(side, &caller.home, log.log_to_file)?;
    Ok(shared::control::exit::DONE)
}

/// Who asks: for which home, called how.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The home of the node that is meant.
    pub(crate) home: Home,
    /// How this program is called for that home: what a person is told to type begins with it.
    pub(crate) command: String,
}

impl Caller {
    /// Finds the home, as [`Home::resolve`] does.
    pub(crate) fn new(
        flag: Option<PathBuf>,
        env: Option<OsString>,
        user_home: Option<OsString>,
    ) -> Result<Self, HomeRefused> {
        let command = match &flag {
            Some(dir) => format!("layer-sync --home {}", shell_word(dir)),
            None => "layer-sync".to_owned(),
        };
        Ok(Self {
            home: Home::resolve(flag, env, user_home)?,
            command,
        })
    }

    /// Returns who asks another home.
    fn of(&self, home: &Home) -> Self {
        Self {
            home: home.clone(),
            command: format!("layer-sync --home {}", shell_word(home.dir())),
        }
    }

    /// Asks the daemon and waits for its one answer.
    fn ask(&self, request: &Request, wait: Duration) -> Result<Response, Failure> {
        Client::ask(&self.home, request, wait).map_err(|error| self.failure(error))
    }

    fn failure(&self, error: ClientError) -> Failure {
        error.into_failure(&self.home, &self.command)
    }

    fn unexpected(&self) -> Failure {
        self.failure(ClientError::Unexpected)
    }

    fn status(&self) -> Result<Status, Failure> {
        match self.ask(&Request::Status, ANSWER_WAIT_MAX)? {
            Response::Status(status) => Ok(*status),
            _ => Err(self.unexpected()),
        }
    }

    /// Finds the path of the tree that `typed` means.
    fn path_in_root(&self, typed: &Path) -> Result<RelPath, Failure> {
        let status = self.status()?;
        let cwd = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        paths::in_root(Path::new(&status.node.root), &cwd, typed)
    }
}

/// Prints text on stdout at once.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Prints one value as one line of JSON.
fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let line = serde_json::to_string(value).map_err(io::Error::from)?;
    print(&format!("{line}\n"))
}

/// Says whether words on stdout are coloured: on a terminal, unless `NO_COLOR` is set.
fn paint() -> Paint {
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || env::var_os("TERM").is_some_and(|term| term == "dumb");
    Paint {
        on: io::stdout().is_terminal() && !refused,
    }
}

/// Returns the time of this machine.
fn now() -> UtcMs {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    UtcMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
