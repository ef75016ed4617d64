//! glibc: `mallopt`, `malloc_trim`. With another C library there is nothing to do.

#![allow(
    unsafe_code,
    reason = "two calls that no safe crate wraps, each with its reason"
)]

/// Places to allocate from. Two threads compute at one time; each place more keeps what it once held.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

pub(crate) fn few_arenas() {
    // SAFETY: it takes two numbers, and is called before other threads allocate.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
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
