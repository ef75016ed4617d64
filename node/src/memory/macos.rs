//! macOS: its allocator has places of its own, and gives memory back when the system asks for it.

pub(crate) fn few_arenas() {}

/// Gives the system what is free; the system asks for it by itself.
pub(super) fn give_back() {}
