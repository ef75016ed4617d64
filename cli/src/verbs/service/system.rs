//! Which service manager there is, and whose the daemon is to be.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "linux")]
pub(super) use linux::{manager, owner};
#[cfg(target_os = "macos")]
pub(super) use macos::{manager, owner};
