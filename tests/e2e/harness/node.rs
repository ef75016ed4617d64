//! One node: a home, a root, and sometimes a daemon.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::program::{clean, program};
use super::{Answer, SOON, layer_sync, wait, wait_until};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Pusher,
    Receiver,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pusher => "pusher",
            Self::Receiver => "receiver",
        }
    }
}

/// A node. Its daemon dies with it.
pub(crate) struct Node {
    pub(crate) side: Side,
    pub(crate) home: PathBuf,
    pub(crate) root: PathBuf,
    log: PathBuf,
    daemon: Option<Child>,
}

impl Node {
    pub(crate) fn new(side: Side, home: PathBuf, root: PathBuf) -> Self {
        let log = home.with_extension("log");
        Self {
            side,
            home,
            root,
            log,
            daemon: None,
        }
    }

    /// Asks `layer-sync` something.
    pub(crate) fn ask<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Answer {
        layer_sync(&self.home, args)
    }

    /// Starts the daemon and waits until it answers.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        self.start_under(&[]);
    }

    /// Starts the daemon by way of another program, which must become it.
    #[track_caller]
    pub(crate) fn start_under(&mut self, words: &[&str]) {
        self.launch(words);
        let log = self.log.clone();
        wait_until("the daemon answers", SOON, || {
            let ended = self
                .daemon
                .as_mut()
                .and_then(|daemon| daemon.try_wait().unwrap());
            assert!(
                ended.is_none(),
                "{ended:?}: {}",
                fs::read_to_string(&log).unwrap_or_default()
            );
            self.ask(["status", "--short"]).code == 0
        });
    }

    /// Starts the daemon and waits for nothing.
    pub(crate) fn launch(&mut self, words: &[&str]) {
        assert!(self.daemon.is_none(), "it runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        let mut command = match words {
            [] => Command::new(program()),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program());
                command
            }
        };
        clean(&mut command)
            .arg("--home")
            .arg(&self.home)
            .arg(self.side.name());
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.daemon = Some(command.spawn().unwrap());
    }

    /// Returns the process of the daemon.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.daemon.as_ref().unwrap())
    }

    /// Kills the daemon in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    /// Tells the daemon to stop; returns how it ended and how long that took.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> (ExitStatus, Duration) {
        let mut daemon = self.daemon.take().unwrap();
        let asked = Instant::now();
        kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
        let status = wait("the daemon ends", SOON, || daemon.try_wait().unwrap());
        (status, asked.elapsed())
    }

    /// Stops the daemon as a service manager does.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        let (status, _) = self.terminate();
        assert_eq!(
            (status.code(), status.signal()),
            (Some(0), None),
            "{}",
            self.log()
        );
    }

    /// Waits until the daemon has ended by itself; returns its exit code and what it said.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> Answer {
        let mut daemon = self.daemon.take().unwrap();
        let status = wait("the daemon ends", SOON, || daemon.try_wait().unwrap());
        Answer {
            code: status.code().unwrap_or(-1),
            stdout: String::new(),
            stderr: self.log(),
        }
    }

    /// Returns the status as JSON.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.ask(["status", "--json"]).exits(0).json()
    }

    /// Says whether the node says that the trees are equal.
    #[track_caller]
    pub(crate) fn in_sync(&self) -> bool {
        self.status()["sync"]["in_sync"].as_bool().unwrap()
    }

    /// Returns the codes of the problems that the status lists.
    #[track_caller]
    pub(crate) fn problems(&self) -> Vec<String> {
        let status = self.status();
        let codes = status["problems"]
            .as_array()
            .unwrap()
            .iter()
            .map(|problem| &problem["code"]);
        codes
            .map(|code| code.as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits until the status lists a problem, and returns it.
    #[track_caller]
    pub(crate) fn problem(&self, code: &str) -> Value {
        wait(code, SOON, || {
            let status = self.status();
            status["problems"]
                .as_array()
                .unwrap()
                .iter()
                .find(|problem| problem["code"] == code)
                .cloned()
        })
    }

    /// Returns what the node says of one of its duties.
    #[track_caller]
    pub(crate) fn duty(&self, name: &str) -> Value {
        let status = self.status();
        let duties = status["duties"].as_array().unwrap();
        let found = duties.iter().find(|duty| duty["name"] == name);
        found
            .unwrap_or_else(|| panic!("no {name} in {status}"))
            .clone()
    }

    /// Replaces text in the settings, as a person with an editor does.
    #[track_caller]
    pub(crate) fn set(&self, from: &str, to: &str) {
        let file = self.home.join("config.toml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(file, text.replace(from, to)).unwrap();
    }

    /// Returns what the daemons of this node said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().rev().take(60).collect();
            eprintln!("--- log of the {}", self.side.name());
            lines.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        self.kill();
    }
}
