//! What a person reads when a verb fails, and the exit code that goes with it.

use std::io;

use config::HomeRefused;
use shared::control::{Refused, exit};

/// A verb that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: u8,
    /// What happened, to which file, and what was kept. Empty: there is nobody to tell.
    pub(crate) text: String,
    /// What to do next; empty when there is nothing.
    pub(crate) fix: String,
}

impl Failure {
    /// Makes a failure of the command line.
    pub(crate) fn usage(text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            exit: exit::USAGE,
            text: text.into(),
            fix: fix.into(),
        }
    }

    /// Makes a failure that has no exit code of its own.
    pub(crate) fn error(text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            exit: exit::ERROR,
            text: text.into(),
            fix: fix.into(),
        }
    }

    /// Makes the failure of a home. Daemons have exit codes for it that service managers know.
    pub(crate) fn of_home(refused: &HomeRefused, is_daemon: bool) -> Self {
        let exit = match refused {
            _ if is_daemon => refused.exit(),
            HomeRefused::Unknown => exit::USAGE,
            _ => exit::ERROR,
        };
        Self {
            exit,
            text: refused.to_string(),
            fix: refused.fix(),
        }
    }

    /// Tells the person, on stderr, and returns the exit code.
    pub(crate) fn report(&self) -> u8 {
        if !self.text.is_empty() {
            eprint!("{}", self.lines());
        }
        self.exit
    }

    fn lines(&self) -> String {
        let next = match self.fix.as_str() {
            "" => String::new(),
            fix => format!("Next: {fix}\n"),
        };
        format!("Error: {}\n{next}", self.text)
    }
}

impl From<node::Failure> for Failure {
    fn from(failure: node::Failure) -> Self {
        Self {
            exit: failure.exit,
            text: failure.text,
            fix: failure.fix,
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self {
            exit: refused.exit,
            text: refused.text,
            fix: refused.fix,
        }
    }
}

/// Writing to stdout failed. A reader that has had enough, as in `events | head`, is no failure.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self {
                exit: exit::DONE,
                text: String::new(),
                fix: String::new(),
            },
            _ => Self::error(format!("The answer cannot be written: {error}."), ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn two_lines() {
        let check = |fix: &str, lines: &str| {
            assert_eq!(Failure::error("It broke.", fix).lines(), lines);
        };
        check("", "Error: It broke.\n");
        check("mend it", "Error: It broke.\nNext: mend it\n");
    }

    #[test]
    fn exit_codes() {
        let missing = || HomeRefused::Missing {
            dir: PathBuf::from("/h"),
        };
        let mode = || HomeRefused::Mode {
            dir: PathBuf::from("/h"),
            mode: 0o777,
        };
        let check = |refused: HomeRefused, daemon: u8, client: u8| {
            assert_eq!(Failure::of_home(&refused, true).exit, daemon);
            assert_eq!(Failure::of_home(&refused, false).exit, client);
        };
        check(HomeRefused::Unknown, 64, 2);
        check(missing(), 78, 1);
        check(mode(), 77, 1);

        let refused = Refused {
            exit: 5,
            text: "no".to_owned(),
            fix: String::new(),
        };
        assert_eq!(Failure::from(refused).exit, 5);
        assert_eq!(
            Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).report(),
            0
        );
        assert_eq!(
            Failure::from(io::Error::from(io::ErrorKind::StorageFull)).exit,
            1
        );
    }
}
