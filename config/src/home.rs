//! The home of a node: one directory with everything that is its own and not the tree's.
//!
//! `config.toml`, `.env`, `control.sock`, `lock`, `keys/`, `state/`, `logs/`. Several nodes can live
//! on one machine, each with a home of its own. Whoever can write the home can become the node, so
//! nobody but its owner may.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use shared::control::exit;
use shared::hash::ContentHash;

use crate::rights::{self, Wrong};

/// Longest path of a Unix socket, in bytes. Linux takes 107, macOS 103; this leaves some room.
pub const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Name of the home below the user's own home directory.
const DEFAULT_NAME: &str = ".layer-sync";
const SOCKET_NAME: &str = "control.sock";
/// Hexadecimal digits of the hash that stands for a home whose path is too long.
const SOCKET_HASH_DIGITS: usize = 16;
/// Bits that no group and no other user may have on the home.
const FORBIDDEN_ON_HOME: u32 = 0o022;
/// Bits that no group and no other user may have on a directory that only holds the socket.
const FORBIDDEN_ON_SOCKET_DIR: u32 = 0o077;
const PRIVATE_DIR: u32 = 0o700;

/// The home of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    dir: PathBuf,
    temp_dir: PathBuf,
}

impl Home {
    /// Takes `dir` as it is.
    ///
    /// The system's directory for temporary files is asked for here, once: [`Home::socket`] falls
    /// back to it.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            temp_dir: env::temp_dir(),
        }
    }

    /// Chooses the home: the flag, else `env` (what `LAYER_SYNC_HOME` says), else `.layer-sync` in
    /// `user_home` (what `HOME` says). An empty variable counts as unset. A relative path is taken
    /// from the current directory.
    ///
    /// # Errors
    /// [`HomeRefused::Unknown`] when nothing says where it is, or the path has no absolute form.
    pub fn resolve(
        flag: Option<PathBuf>,
        env: Option<OsString>,
        user_home: Option<OsString>,
    ) -> Result<Self, HomeRefused> {
        let is_set = |value: &OsString| !value.is_empty();
        let chosen = flag
            .or_else(|| env.filter(is_set).map(PathBuf::from))
            .or_else(|| {
                user_home
                    .filter(is_set)
                    .map(|dir| Path::new(&dir).join(DEFAULT_NAME))
            })
            .ok_or(HomeRefused::Unknown)?;
        // Fails for an empty path, and when the current directory is gone.
        let dir = std::path::absolute(chosen).map_err(|_| HomeRefused::Unknown)?;
        Ok(Self::new(dir))
    }

    /// Returns the directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns where the settings stand.
    pub fn settings_file(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// Returns where the secrets stand.
    pub fn secrets_file(&self) -> PathBuf {
        self.dir.join(".env")
    }

    /// Returns the directory of what the node remembers and could find out again: the index.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Returns the directory of the node's key and of the key of its partner.
    pub fn identity_dir(&self) -> PathBuf {
        self.dir.join("keys")
    }

    /// Returns the file that a running daemon holds locked.
    pub fn lock_file(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Returns the directory for logs that are kept in files.
    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Returns where the control socket is.
    ///
    /// It is `control.sock` in the home. When that path is longer than [`SOCKET_PATH_BYTES_MAX`],
    /// it is `layer-sync-<hash>/control.sock` in the directory for temporary files, with the first
    /// digits of the BLAKE3 hash of the home's path. Links in the path are resolved first, so that
    /// daemon and client find the same place however they spell the home. A daemon makes the
    /// directory with [`Home::create_socket_dir`], a client trusts it after
    /// [`Home::check_socket_dir`].
    pub fn socket(&self) -> PathBuf {
        self.far_socket_dir()
            .unwrap_or_else(|| self.real_dir())
            .join(SOCKET_NAME)
    }

    /// Checks that the home is a directory of the current user and that nobody else can write it.
    ///
    /// # Errors
    /// What is wrong with it, with the command that helps.
    pub fn check(&self) -> Result<(), HomeRefused> {
        check_dir(&self.dir, FORBIDDEN_ON_HOME)
    }

    /// Makes the home, with the directories above it, if it does not exist, and checks it.
    ///
    /// # Errors
    /// As [`Home::check`]; [`HomeRefused::Unreadable`] when it cannot be made.
    pub fn create(&self) -> Result<(), HomeRefused> {
        create_dir(&self.dir)?;
        self.check()
    }

    /// Makes the directory that [`Home::socket`] lies in, if that is not the home, and checks it.
    ///
    /// # Errors
    /// As [`Home::check`]; [`HomeRefused::Unreadable`] when it cannot be made.
    pub fn create_socket_dir(&self) -> Result<(), HomeRefused> {
        match self.far_socket_dir() {
            Some(dir) => create_dir(&dir).and_then(|()| check_dir(&dir, FORBIDDEN_ON_SOCKET_DIR)),
            None => Ok(()),
        }
    }

    /// Checks the directory that [`Home::socket`] lies in, if that is not the home and it exists.
    ///
    /// Anybody can make a directory of that name where temporary files lie, and answer there.
    ///
    /// # Errors
    /// As [`Home::check`].
    pub fn check_socket_dir(&self) -> Result<(), HomeRefused> {
        match self.far_socket_dir() {
            Some(dir) => match check_dir(&dir, FORBIDDEN_ON_SOCKET_DIR) {
                Err(HomeRefused::Missing { .. }) => Ok(()),
                checked => checked,
            },
            None => Ok(()),
        }
    }

    /// Returns the directory of the socket when a socket in the home would have too long a path.
    fn far_socket_dir(&self) -> Option<PathBuf> {
        let dir = self.real_dir();
        if dir.join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return None;
        }
        let hash = ContentHash::of_bytes(dir.as_os_str().as_bytes()).to_string();
        let name = format!("layer-sync-{}", &hash[..SOCKET_HASH_DIGITS]);
        Some(self.temp_dir.join(name))
    }

    fn real_dir(&self) -> PathBuf {
        fs::canonicalize(&self.dir).unwrap_or_else(|_| self.dir.clone())
    }
}

fn create_dir(dir: &Path) -> Result<(), HomeRefused> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(dir)
        .map_err(|source| HomeRefused::Unreadable {
            dir: dir.to_owned(),
            source,
        })
}

fn check_dir(dir: &Path, forbidden: u32) -> Result<(), HomeRefused> {
    let dir = dir.to_owned();
    let metadata = match fs::metadata(&dir) {
        Ok(metadata) => metadata,
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            return Err(HomeRefused::Missing { dir });
        }
        Err(source) => return Err(HomeRefused::Unreadable { dir, source }),
    };
    if !metadata.is_dir() {
        return Err(HomeRefused::NotADirectory { dir });
    }
    rights::check(&metadata, forbidden).map_err(|wrong| match wrong {
        Wrong::Owner(uid) => HomeRefused::Owner { dir, uid },
        Wrong::Mode(mode) => HomeRefused::Mode { dir, mode },
    })
}

/// Why a directory cannot be a home.
#[derive(Debug, thiserror::Error)]
pub enum HomeRefused {
    /// Nothing says where it is.
    #[error("Nobody says where the home of this node is.")]
    Unknown,
    /// It does not exist.
    #[error("There is no home at {}.", dir.display())]
    Missing {
        /// Where it should be.
        dir: PathBuf,
    },
    /// Something else stands there.
    #[error("{} is not a directory, so it cannot be a home.", dir.display())]
    NotADirectory {
        /// Where it should be.
        dir: PathBuf,
    },
    /// It cannot be looked at, or cannot be made.
    #[error("The home {} cannot be used: {source}.", dir.display())]
    Unreadable {
        /// Where it is.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to the user with the number {uid}, not to you.", dir.display())]
    Owner {
        /// Where it is.
        dir: PathBuf,
        /// Number of the owner.
        uid: u32,
    },
    /// Others have rights on it that they must not have.
    #[error("{} is open to other users (mode {mode:03o}).", dir.display())]
    Mode {
        /// Where it is.
        dir: PathBuf,
        /// Permission bits.
        mode: u32,
    },
}

impl HomeRefused {
    /// Returns the exit code of a daemon that cannot start because of this.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Unknown | Self::NotADirectory { .. } => exit::DAEMON_USAGE,
            Self::Missing { .. } => exit::DAEMON_CONFIG,
            Self::Unreadable { .. } | Self::Owner { .. } | Self::Mode { .. } => {
                exit::DAEMON_PERMISSION
            }
        }
    }

    /// Returns what helps.
    pub fn fix(&self) -> String {
        match self {
            Self::Unknown => "name it with --home DIR or LAYER_SYNC_HOME".to_owned(),
            Self::Missing { .. } => "make the node with `layer-sync init pusher --root DIR`, or \
                                     on the other machine with `layer-sync join CODE --root DIR`"
                .to_owned(),
            Self::NotADirectory { .. } => "name another one with --home DIR".to_owned(),
            Self::Unreadable { dir, .. } => {
                format!("look at the rights with `ls -ld {}`", shell_word(dir))
            }
            Self::Owner { dir, .. } => format!(
                "run this as its owner, or take it over with `sudo chown -R \"$(id -un)\" {}`",
                shell_word(dir)
            ),
            Self::Mode { dir, .. } => format!("run `chmod 700 {}`", shell_word(dir)),
        }
    }
}

/// Writes a path so that a shell takes it as one word.
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests;
