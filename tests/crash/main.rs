//! What a power cut leaves: the real disk code on real file systems, on devices that remember the order
//! of what was written to them.
//!
//! | Variable | Does |
//! | --- | --- |
//! | `LAYER_SYNC_CRASH_CUTS=5000` | tries that many moments instead of a few dozen |
//! | `LAYER_SYNC_CRASH_SEED=N` | its seed, which every run prints |
//!
//! `cargo test -p tests --test crash -- --nocapture` shows what is measured and what is skipped.

// FUSE, loop devices, mount namespaces, seccomp.
#![cfg(target_os = "linux")]

mod device;
mod dice;
mod history;
mod mounts;
mod power_cut;

/// Returns what a variable asks for.
fn wish(variable: &str) -> Option<u64> {
    std::env::var(format!("LAYER_SYNC_CRASH_{variable}"))
        .ok()?
        .parse()
        .ok()
}
