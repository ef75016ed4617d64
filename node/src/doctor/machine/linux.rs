//! What the doctor asks Linux.

/// The command that lets the system set the clock.
pub(super) const CLOCK_FIX: &str = "sudo timedatectl set-ntp true";

/// Returns how many folders all programs of this user may watch; `None` when it cannot be told.
pub(super) fn watches_max() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches")
        .ok()?
        .trim()
        .parse()
        .ok()
}
