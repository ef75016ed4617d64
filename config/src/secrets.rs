//! Secrets: from `<home>/.env`, or from the environment, which wins.
//!
//! The file has one `KEY=VALUE` a line; `#` begins a comment line, `export ` before the key is
//! allowed, and a value may stand in single or double quotes, which are taken off. Nothing is
//! expanded. A file that anybody else could read is refused, because then it is no secret.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use shared::control::exit;

use crate::home::{Home, shell_word};
use crate::rights::{self, Wrong};

/// Largest file of secrets, in bytes. A larger one is refused: it is something else.
pub const SECRETS_BYTES_MAX: u64 = 64 * 1024;
/// Bits that the file must not have: anything beyond reading and writing by the owner.
const FORBIDDEN: u32 = 0o177;

/// Values that are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    values: BTreeMap<String, String>,
}

impl Secrets {
    /// Reads the file of the home, if there is one, and lays the environment over it.
    ///
    /// Variables that are not UTF-8 are left out: no secret has such a value.
    ///
    /// # Errors
    /// A file with wrong rights, or with a line that is not `KEY=VALUE`.
    pub fn read(
        home: &Home,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SecretsRefused> {
        let mut values = read_file(home.secrets_file())?;
        for (key, value) in env {
            if let (Ok(key), Ok(value)) = (key.into_string(), value.into_string()) {
                values.insert(key, value);
            }
        }
        Ok(Self { values })
    }

    /// Returns the secret of that name; an empty one counts as absent.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} values)", self.values.len())
    }
}

/// Why the secrets cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretsRefused {
    /// It is there and cannot be read.
    #[error("The secrets in {} cannot be read: {source}.", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to the user with the number {uid}, not to you.", file.display())]
    Owner {
        /// The file.
        file: PathBuf,
        /// Number of the owner.
        uid: u32,
    },
    /// Its mode is not 0600.
    #[error("{} has mode {mode:04o}; secrets need mode 0600.", file.display())]
    Mode {
        /// The file.
        file: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// It is larger than [`SECRETS_BYTES_MAX`].
    #[error("{} is larger than {SECRETS_BYTES_MAX} bytes.", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// A line is not `KEY=VALUE`. The line itself is not shown: it may hold a secret.
    #[error("{}:{line}: this line is not KEY=VALUE.", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// Number of the line, from 1.
        line: usize,
    },
}

impl SecretsRefused {
    /// Returns the exit code of a daemon that cannot start because of this.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Unreadable { .. } | Self::Owner { .. } | Self::Mode { .. } => {
                exit::DAEMON_PERMISSION
            }
            Self::TooLarge { .. } | Self::Line { .. } => exit::DAEMON_CONFIG,
        }
    }

    /// Returns what helps.
    pub fn fix(&self) -> String {
        match self {
            Self::Unreadable { file, .. } | Self::Mode { file, .. } => {
                format!("run `chmod 600 {}`", shell_word(file))
            }
            Self::Owner { file, .. } => {
                format!(
                    "take it over with `sudo chown \"$(id -un)\" {}`",
                    shell_word(file)
                )
            }
            Self::TooLarge { .. } => "keep one KEY=VALUE a line in it, and nothing else".to_owned(),
            Self::Line { .. } => "correct the line, or put a # before it".to_owned(),
        }
    }
}

fn read_file(file: PathBuf) -> Result<BTreeMap<String, String>, SecretsRefused> {
    let opened = match File::open(&file) {
        Ok(opened) => opened,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(SecretsRefused::Unreadable { file, source }),
    };
    // The rights of what was opened, not of what stands at the path by now.
    let metadata = match opened.metadata() {
        Ok(metadata) => metadata,
        Err(source) => return Err(SecretsRefused::Unreadable { file, source }),
    };
    match rights::check(&metadata, FORBIDDEN) {
        Ok(()) => {}
        Err(Wrong::Owner(uid)) => return Err(SecretsRefused::Owner { file, uid }),
        Err(Wrong::Mode(mode)) => return Err(SecretsRefused::Mode { file, mode }),
    }
    let mut text = String::new();
    match opened.take(SECRETS_BYTES_MAX + 1).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 > SECRETS_BYTES_MAX => Err(SecretsRefused::TooLarge { file }),
        Ok(_) => parse(&text).map_err(|line| SecretsRefused::Line { file, line }),
        Err(source) => Err(SecretsRefused::Unreadable { file, source }),
    }
}

/// Parses the lines, or returns the number of the first wrong one.
fn parse(text: &str) -> Result<BTreeMap<String, String>, usize> {
    let mut values = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').ok_or(index + 1)?;
        let key = key.strip_prefix("export ").unwrap_or(key).trim();
        if !is_key(key) {
            return Err(index + 1);
        }
        let value = unquoted(value.trim()).ok_or(index + 1)?;
        values.insert(key.to_owned(), value.to_owned());
    }
    Ok(values)
}

fn is_key(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Takes the quotes off; `None` when one is opened and never closed.
fn unquoted(value: &str) -> Option<&str> {
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            return rest.strip_suffix(quote);
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests;
