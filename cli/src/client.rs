//! The client's end of the control socket: one JSON object a line, asked and answered.
//!
//! A client that is let down says how: nobody listens, nobody answers in time, the answer breaks
//! off, is too long, or is not understood. Nothing is asked twice on its own.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use config::{Home, HomeRefused, Settings};
use shared::control::{LINE_BYTES_MAX, Refused, Request, Response, exit};

use crate::failure::Failure;
use shared::words::plain;

/// Longest wait for an answer that needs no work. At it the verb fails with [`ClientError::Silent`].
pub(crate) const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest wait for an answer that needs a look at both trees, or content from the other machine.
pub(crate) const WORK_WAIT_MAX: Duration = Duration::from_secs(600);
/// Longest wait for the daemon to take a request.
const SEND_WAIT_MAX: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 64 * 1024;

/// A connection to the daemon of one home.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    /// What arrived after the last whole line.
    buffer: Vec<u8>,
}

impl Client {
    /// Connects to the daemon of `home`.
    pub(crate) fn connect(home: &Home) -> Result<Self, ClientError> {
        home.check_socket_dir().map_err(ClientError::Untrusted)?;
        match UnixStream::connect(home.socket()) {
            Ok(stream) => {
                stream
                    .set_write_timeout(Some(SEND_WAIT_MAX))
                    .map_err(ClientError::Socket)?;
                Ok(Self {
                    stream,
                    buffer: Vec::new(),
                })
            }
            // A daemon that was killed leaves its socket, and nobody behind it.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Err(ClientError::NotRunning)
            }
            Err(error) => Err(ClientError::Socket(error)),
        }
    }

    /// Connects, asks, and returns the one answer. A refusal is an error.
    pub(crate) fn ask(
        home: &Home,
        request: &Request,
        wait: Duration,
    ) -> Result<Response, ClientError> {
        let mut client = Self::connect(home)?;
        client.send(request)?;
        match client.next(wait)? {
            Some(Response::Refused(refused)) => Err(ClientError::Refused(refused)),
            Some(response) => Ok(response),
            None => Err(ClientError::Silent(wait)),
        }
    }

    /// Sends one request.
    pub(crate) fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
        line.push(b'\n');
        match self.stream.write_all(&line) {
            // It has hung up: what it said before that is read next.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(ClientError::Socket),
        }
    }

    /// Returns the next answer, or `None` when none is whole after `wait`. What has arrived of it
    /// is not lost.
    pub(crate) fn next(&mut self, wait: Duration) -> Result<Option<Response>, ClientError> {
        let end = Instant::now() + wait;
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..]
                .iter()
                .position(|&byte| byte == b'\n')
            {
                let rest = self.buffer.split_off(searched + at + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                return match serde_json::from_slice(&line) {
                    Ok(response) => Ok(Some(response)),
                    Err(error) => Err(ClientError::Garbled(error)),
                };
            }
            searched = self.buffer.len();
            if searched > LINE_BYTES_MAX {
                return Err(ClientError::TooLong);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.read_some(left)? {
                return Ok(None);
            }
        }
    }

    /// Reads what is there, waiting `wait` for it at most; returns false when nothing came.
    fn read_some(&mut self, wait: Duration) -> Result<bool, ClientError> {
        // Zero would mean forever.
        let wait = wait.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(wait))?;
        let mut bytes = [0; READ_BYTES];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(ClientError::HungUp {
                midway: !self.buffer.is_empty(),
            }),
            Ok(len) => {
                self.buffer.extend_from_slice(&bytes[..len]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                Err(ClientError::HungUp {
                    midway: !self.buffer.is_empty(),
                })
            }
            Err(error) => Err(ClientError::Socket(error)),
        }
    }
}

/// How a daemon let its client down.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// There is no socket, or nobody behind it.
    NotRunning,
    /// Somebody else could be behind the socket.
    Untrusted(HomeRefused),
    /// The system refuses.
    Socket(io::Error),
    /// The connection ended before the answer did.
    HungUp {
        /// Whether some of the answer had arrived.
        midway: bool,
    },
    /// No answer in this time.
    Silent(Duration),
    /// An answer above [`LINE_BYTES_MAX`].
    TooLong,
    /// An answer that is none.
    Garbled(serde_json::Error),
    /// An answer to another question.
    Unexpected,
    /// It says no.
    Refused(Refused),
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl ClientError {
    /// Returns what a person is told. `command` is how this program is called for `home`.
    pub(crate) fn into_failure(self, home: &Home, command: &str) -> Failure {
        let dir = home.dir().display();
        let restart = "see in its log what happened, and start the daemon again";
        match self {
            Self::NotRunning => Failure {
                exit: exit::NOT_RUNNING,
                text: format!("No daemon is running for {dir}."),
                fix: how_to_start(home, command),
            },
            Self::Untrusted(refused) => Failure::of_home(&refused, false),
            Self::Socket(error) => Failure::error(
                format!(
                    "The daemon of {dir} cannot be asked over {}: {error}.",
                    home.socket().display()
                ),
                "run this as the user who runs the daemon",
            ),
            Self::HungUp { midway: false } => Failure::error(
                format!("The daemon of {dir} hung up without an answer."),
                restart,
            ),
            Self::HungUp { midway: true } => Failure::error(
                format!("The daemon of {dir} hung up in the middle of its answer."),
                restart,
            ),
            Self::Silent(wait) => Failure::error(
                format!(
                    "The daemon of {dir} gave no answer in {}.",
                    humantime::format_duration(wait)
                ),
                restart,
            ),
            Self::TooLong => Failure::error(
                format!("The daemon of {dir} gave an answer above {LINE_BYTES_MAX} bytes."),
                "",
            ),
            Self::Garbled(error) => Failure::error(
                format!(
                    "The answer of the daemon of {dir} cannot be understood: {}.",
                    plain(&error.to_string())
                ),
                "restart the daemon, so that it and this command are of one version",
            ),
            Self::Unexpected => Failure::error(
                format!("The daemon of {dir} answered another question."),
                "restart the daemon, so that it and this command are of one version",
            ),
            Self::Refused(refused) => refused.into(),
        }
    }
}

fn how_to_start(home: &Home, command: &str) -> String {
    match Settings::read(home) {
        Ok(settings) => format!("start it with `{command} {}`", settings.link.side().name()),
        Err(_) => format!(
            "make the node with `{command} init pusher --root DIR` or `{command} join CODE --root \
             DIR`, and start it with `{command} pusher` or `{command} receiver`"
        ),
    }
}

#[cfg(test)]
mod tests;
