//! glibc: `mallopt`, `malloc_trim`. With another C library there is nothing to do.

#![allow(
    unsafe_code,
    reason = "three calls that no safe crate wraps, each with its reason"
)]

/// Places to allocate from. Two threads compute at one time; each place more keeps what it once held.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;
/// What is larger, in bytes, comes from the system and goes back to it at once. Without a fixed limit the
/// allocator raises its own with the first of these, and keeps the room of all that follow.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 4 << 20;

pub(crate) fn few_arenas() {
    // SAFETY: both take two numbers, and are called before other threads allocate.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Gives the system what is free.
pub(super) fn give_back() {
    // SAFETY: it takes a number, and locks what it works on.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
