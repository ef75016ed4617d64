//! The doctor: looks at everything that a node stands on, and says how to mend what is wrong.
//!
//! It works beside a running daemon and without one, and it changes nothing. What only the daemon knows
//! (the link, the trees) is asked by the caller and handed in as [`Asked`]; everything else is looked at
//! here, from the outside. [`mend()`] carries out what is safe: rights and parts of what is our own. It
//! never touches a file of the tree, and no file that a person wrote.
//!
//! Read from top to bottom: the checks stand in the order in which one rests on the other.

mod daemon;
mod folder;
mod machine;
mod mend;
mod own;
mod partner;

use std::path::Path;

use config::Home;
use config::home::shell_word;
use serde::Serialize;
use shared::control::{Status, exit};
use shared::utc::UtcMs;

use mend::Mend;
pub use mend::mend;

/// The version of what a [`Diagnosis`] looks like.
pub const SCHEMA: u32 = 1;

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// The sync works, or will once it is started, and something is weaker than it could be.
    Warning,
    /// It stops the sync, or makes it unsafe.
    Wrong,
}

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The thing, in one word that never changes.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// One sentence.
    pub text: String,
    /// The command or the act that mends it; empty when nothing has to be done.
    pub fix: String,
    /// What [`mend()`] would do about it.
    #[serde(skip)]
    mend: Option<Mend>,
}

impl Check {
    fn new(
        name: &'static str,
        state: State,
        text: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            name,
            state,
            text: text.into(),
            fix: fix.into(),
            mend: None,
        }
    }

    fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, State::Ok, text, "")
    }

    fn warning(name: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(name, State::Warning, text, fix)
    }

    fn wrong(name: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(name, State::Wrong, text, fix)
    }

    fn mended_by(self, mend: Mend) -> Self {
        Self {
            mend: Some(mend),
            ..self
        }
    }

    /// Says whether [`mend()`] can do something about it.
    pub fn can_be_mended(&self) -> bool {
        self.mend.is_some()
    }
}

/// All that was found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// [`SCHEMA`].
    pub schema: u32,
    /// One for each thing.
    pub checks: Vec<Check>,
    /// What was mended before the checks, a sentence each.
    pub mended: Vec<String>,
}

impl Diagnosis {
    /// Returns the exit code of the command: the worst of what was found.
    pub fn exit(&self) -> u8 {
        match self.checks.iter().map(|check| check.state).max() {
            None | Some(State::Ok) => exit::DONE,
            Some(State::Warning) => exit::DEGRADED,
            Some(State::Wrong) => exit::HALTED,
        }
    }
}

/// What the daemon said when it was asked.
#[derive(Debug)]
pub enum Asked {
    /// Nobody listens.
    NotRunning,
    /// Somebody should, and gives no answer: why.
    Deaf(String),
    /// It is well.
    Running {
        /// Its status.
        status: Box<Status>,
        /// That of the other node, if it could be asked.
        peer: Option<PeerSaid>,
    },
}

/// What the other node said when it was asked.
#[derive(Debug)]
pub struct PeerSaid {
    /// Its status.
    pub status: Box<Status>,
    /// The time of this machine in the middle between question and answer.
    pub at: UtcMs,
}

/// Looks at everything.
///
/// `command` is how this program is called for `home`: the commands that mend something begin with it.
/// `now` is the time of this machine.
pub fn examine(home: &Home, command: &str, asked: &Asked, now: UtcMs) -> Vec<Check> {
    let case = Case {
        home,
        command,
        asked,
        now,
    };
    let home_check = own::home(&case);
    let is_there = home.dir().is_dir();
    let mut checks = vec![home_check];
    if !is_there {
        return checks;
    }
    let (settings, found) = own::settings(&case);
    checks.push(found);
    checks.push(own::secrets(&case));
    let (partner, partner_check) = partner::partner(&case, settings.as_ref());
    checks.push(own::identity(&case, partner.is_some()));
    checks.push(daemon::daemon(&case, settings.as_ref()));
    if let Some(settings) = &settings {
        checks.extend(folder::all(&case, &settings.node.root));
        checks.push(machine::watches(&case, &settings.node.root));
        checks.extend(machine::spaces(home.dir(), &settings.node.root));
    }
    let root = settings.as_ref().map(|settings| &*settings.node.root);
    checks.push(machine::clock(&case, root));
    checks.push(partner_check);
    if let Some(settings) = &settings {
        checks.extend(partner::link(&case, settings, partner.as_ref()));
    }
    checks.extend(daemon::peer(&case));
    checks.extend(daemon::lease(&case));
    checks.extend(daemon::bot(&case));
    checks.extend(daemon::sync(&case));
    checks
}

/// Whom it is about.
struct Case<'a> {
    home: &'a Home,
    command: &'a str,
    asked: &'a Asked,
    now: UtcMs,
}

impl Case<'_> {
    fn status(&self) -> Option<&Status> {
        match self.asked {
            Asked::Running { status, .. } => Some(status),
            _ => None,
        }
    }
}

fn chmod(mode: u32, path: &Path) -> String {
    format!("chmod {mode:o} {}", shell_word(path))
}

#[cfg(test)]
mod tests;
