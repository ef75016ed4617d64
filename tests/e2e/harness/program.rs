//! The program under test.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::{env, fs};

/// Longest time that any command may take, in seconds. `timeout` ends it then with exit code 124.
const COMMAND_SECONDS: &str = "180";

/// Returns the program.
///
/// Cargo offers no way for one package to depend on the program of another, so it is built here, once
/// a run, into the folder that this test lies in: when it is fresh already, that takes a moment. The
/// tests use a link to it, so that a build during the run does not change what they test.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(given) = env::var_os("LAYER_SYNC_E2E_BIN") {
            return given.into();
        }
        // target/<profile>/deps/e2e-<hash>
        let this = env::current_exe().unwrap();
        let folder = this.ancestors().nth(2).unwrap();
        let profile = match folder.file_name().and_then(OsStr::to_str) {
            Some("debug") => "dev",
            Some(name) => name,
            None => unreachable!("a test lies in the folder of its profile"),
        };
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--quiet",
            "--package",
            "cli",
            "--bin",
            "layer-sync",
            "--profile",
            profile,
        ]);
        build
            .arg("--target-dir")
            .arg(folder.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        let built = build.output().unwrap();
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        let link = this.with_extension("program");
        drop(fs::remove_file(&link));
        fs::hard_link(folder.join("layer-sync"), &link).unwrap();
        link
    })
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Checks that stderr is one error: a sentence that has all `words`, and nothing but a hint after
    /// it.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        let lines: Vec<_> = self.stderr.lines().collect();
        assert!(matches!(lines.len(), 1 | 2), "{self:#?}");
        assert!(
            lines[0].starts_with("Error: ")
                && lines[1..].iter().all(|line| line.starts_with("Next: ")),
            "{self:#?}"
        );
        let missing: Vec<_> = words
            .iter()
            .filter(|word| !self.stderr.contains(**word))
            .collect();
        assert!(missing.is_empty(), "{missing:?} not in {self:#?}");
        self
    }

    /// Returns stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Returns the command for a home, without the variables that a developer may have set.
pub(crate) fn command(home: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg(COMMAND_SECONDS).arg(program());
    clean(&mut command).arg("--home").arg(home);
    command
}

pub(crate) fn clean(command: &mut Command) -> &mut Command {
    command
        .env_remove("LAYER_SYNC_HOME")
        .env("NO_COLOR", "1")
        .env("LC_ALL", "C")
}

/// Runs `layer-sync` for a home.
pub(crate) fn layer_sync<S: AsRef<OsStr>>(
    home: &Path,
    args: impl IntoIterator<Item = S>,
) -> Answer {
    command(home).args(args).output().unwrap().into()
}

/// Runs `layer-sync` for a home, and types something.
pub(crate) fn layer_sync_told<S: AsRef<OsStr>>(
    home: &Path,
    typed: &str,
    args: impl IntoIterator<Item = S>,
) -> Answer {
    let mut command = command(home);
    command.args(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Whoever does not ask does not read.
    drop(child.stdin.take().unwrap().write_all(typed.as_bytes()));
    child.wait_with_output().unwrap().into()
}

/// Runs a program of the system.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Answer {
    let mut command = Command::new(program);
    clean(&mut command).args(args).output().unwrap().into()
}
