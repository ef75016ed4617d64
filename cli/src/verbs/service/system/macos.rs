//! macOS: launchd, and an agent of whoever has logged in.

use std::path::Path;

use super::super::{Manager, Owner};
use crate::failure::Failure;

pub(in super::super) fn manager() -> Result<Manager, Failure> {
    Ok(Manager::Launchd)
}

/// An agent runs as the person whose session it is in, and nobody has to say so.
pub(in super::super) fn owner(_home: &Path) -> Result<Owner, Failure> {
    Ok(Owner {
        user: String::new(),
        group: String::new(),
    })
}
