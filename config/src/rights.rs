//! Who owns a file, and who else may do something with it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// What is wrong with the rights of a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It belongs to this user and not to the one who runs the program.
    Owner(u32),
    /// Its mode, permission bits only, has one of the bits that it must not have.
    Mode(u32),
}

/// Checks that the user who runs the program owns it and that no bit of `forbidden` is set.
pub(crate) fn check(metadata: &Metadata, forbidden: u32) -> Result<(), Wrong> {
    let mode = metadata.mode() & 0o7777;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        Err(Wrong::Owner(metadata.uid()))
    } else if mode & forbidden != 0 {
        Err(Wrong::Mode(mode))
    } else {
        Ok(())
    }
}
