//! The command `layer-sync`: what a person or a service manager types, and nothing that decides.
//!
//! `pusher` and `receiver` hand over to `node` and stay; `up` runs both sides in this process; every
//! other verb asks a running daemon over its control socket, prints the answer and ends with the
//! exit code that the answer stands for. Never here: the index, the trees, the network.
//!
//! Read from top to bottom; each module uses only those above it.

mod args;
mod failure;
mod human;

mod client;
mod paths;

mod verbs;

use std::env;
use std::process::ExitCode;

use clap::Parser;

use args::Args;
use failure::Failure;
use verbs::Caller;

fn main() -> ExitCode {
    let args = Args::parse();
    let done = Caller::new(
        args.home,
        env::var_os("LAYER_SYNC_HOME"),
        env::var_os("HOME"),
    )
    .map_err(|refused| Failure::of_home(&refused, args.verb.is_daemon()))
    .and_then(|caller| verbs::run(&caller, args.verb));
    ExitCode::from(done.unwrap_or_else(|failure| failure.report()))
}
