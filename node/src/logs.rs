//! Logs: one line a thing, to standard error, where the service manager collects them.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The variable that chooses what is logged, such as `debug` or `link=trace,info`.
const LEVEL_VARIABLE: &str = "LAYER_SYNC_LOG";

/// Starts the log. A second call does nothing.
pub(crate) fn start(default_level: &str) {
    let filter =
        EnvFilter::try_from_env(LEVEL_VARIABLE).unwrap_or_else(|_| EnvFilter::new(default_level));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .try_init();
    // Somebody who embeds a node may have a log of their own.
    drop(started);
}
