//! What the doctor asks macOS.

/// The command that lets the system set the clock.
pub(super) const CLOCK_FIX: &str = "sudo sntp -sS time.apple.com";

/// Returns nothing: one stream of events covers a whole tree here, so there is no limit to reach.
pub(super) fn watches_max() -> Option<u64> {
    None
}
