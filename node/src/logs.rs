//! Logs: one line a thing, to standard error, where the service manager collects them; or to files, where there
//! is none that does.

mod rotated;

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

use crate::Failure;
use rotated::Rotated;

/// The variable that chooses what is logged, such as `debug` or `link=trace,info`.
const LEVEL_VARIABLE: &str = "LAYER_SYNC_LOG";
/// Name of the file that is written; older ones have a number behind it.
const FILE: &str = "daemon.log";

/// Starts the log. A second call does nothing.
pub(crate) fn start(default_level: &str) {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter(default_level))
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .try_init();
    // Somebody who embeds a node may have a log of their own.
    drop(started);
}

/// Starts the log in files in a directory, which is made if it is missing.
///
/// # Errors
/// When the first file cannot be made.
pub(crate) fn start_in(dir: &Path) -> Result<(), Failure> {
    let file = dir.join(FILE);
    let rotated = Rotated::open(&file).map_err(|error| {
        Failure::other(&format!("the log {} cannot be made", file.display()), error)
    })?;
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter("info"))
        .with_ansi(false)
        .with_writer(Mutex::new(rotated))
        .try_init();
    drop(started);
    Ok(())
}

fn filter(default_level: &str) -> EnvFilter {
    EnvFilter::try_from_env(LEVEL_VARIABLE).unwrap_or_else(|_| EnvFilter::new(default_level))
}
