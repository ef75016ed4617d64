//! Being one of the pair.
//!
//! Puts the pieces of a node together and runs them: home, lock, identity, partner, disk, link, the
//! side's loop, the control socket, logs, signals. Never here: what is synced, or how.

mod bot;
mod clock;
mod control;
mod daemon;
mod dashboard;
pub mod doctor;
mod failure;
mod lease;
mod logs;
mod manager;
mod measure;
mod memory;
pub mod mirror;
mod open;
mod partner;
mod setup;
mod small_file;
mod supervisor;
mod sync;
mod up;

pub use daemon::run;
pub use failure::Failure;
pub use open::accept_root;
pub use setup::{InitPusher, Join, init_pusher, join};
pub use up::Up;
