//! Linux: systemd, of the system for root, and a person's own otherwise.

use std::path::Path;
use std::process::Command;

use super::super::{Manager, Owner, Scope, not_run, user_number};
use crate::failure::Failure;

pub(in super::super) fn manager() -> Result<Manager, Failure> {
    let scope = match &*user_number()? {
        "0" => Scope::System,
        _ => Scope::User,
    };
    Ok(Manager::Systemd(scope))
}

/// Returns whose a home is: that user is the daemon.
pub(in super::super) fn owner(home: &Path) -> Result<Owner, Failure> {
    let asked = Command::new("stat")
        .arg("--format=%U:%G")
        .arg(home)
        .output();
    let said = asked.map_err(|error| not_run("stat", &error))?;
    let said = String::from_utf8_lossy(&said.stdout);
    match said.trim().split_once(':') {
        Some((user, group)) => Ok(Owner {
            user: user.to_owned(),
            group: group.to_owned(),
        }),
        None => Err(Failure::error(
            format!("Nobody can say whose {} is.", home.display()),
            "",
        )),
    }
}
