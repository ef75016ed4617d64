//! Failures for people: what happened, what to do next, and the exit code that says so to programs.

use config::settings::{SettingsRefused, WriteRefused};
use config::{HomeRefused, SecretsRefused};
use disk::OpenRefused;
use link::IdentityError;
use shared::control::exit;

/// Why a node does not run, or could not be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code of the command.
    pub exit: u8,
    /// What happened, to which file, and what was kept.
    pub text: String,
    /// What to do next; empty when there is nothing.
    pub fix: String,
}

impl Failure {
    pub(crate) fn new(exit: u8, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            exit,
            text: text.into(),
            fix: fix.into(),
        }
    }

    /// A failure without a code of its own.
    pub(crate) fn other(what: &str, error: impl std::fmt::Display) -> Self {
        Self::new(exit::ERROR, format!("{what}: {error}"), "")
    }
}

impl From<HomeRefused> for Failure {
    fn from(refused: HomeRefused) -> Self {
        Self::new(refused.exit(), refused.to_string(), refused.fix())
    }
}

impl From<SettingsRefused> for Failure {
    fn from(refused: SettingsRefused) -> Self {
        Self::new(refused.exit(), refused.to_string(), refused.fix())
    }
}

impl From<SecretsRefused> for Failure {
    fn from(refused: SecretsRefused) -> Self {
        Self::new(refused.exit(), refused.to_string(), refused.fix())
    }
}

impl From<WriteRefused> for Failure {
    fn from(refused: WriteRefused) -> Self {
        Self::new(exit::ERROR, refused.to_string(), "")
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        Self::new(exit::DAEMON_PERMISSION, error.to_string(), "")
    }
}

impl From<OpenRefused> for Failure {
    fn from(refused: OpenRefused) -> Self {
        let fix = match &refused {
            OpenRefused::MarkerMissing { .. }
            | OpenRefused::ForeignMarker { .. }
            | OpenRefused::Older { .. } => {
                "bring the folder back that was there; or accept it as it is: `layer-sync confirm root`"
            }
            _ => "",
        };
        let exit = match refused {
            OpenRefused::NotWritable { .. } => exit::DAEMON_PERMISSION,
            OpenRefused::Index(_) => exit::ERROR,
            // Another start would end the same way: a person has to look at the folder.
            _ => exit::DAEMON_USAGE,
        };
        Self::new(exit, refused.to_string(), fix)
    }
}
