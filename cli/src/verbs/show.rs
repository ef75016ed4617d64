//! `plan`, `why`, `conflicts`, `versions`: look, and change nothing.

use shared::block::problem_lines;
use shared::control::{ConflictView, PlanView, Request, Response, Version, Why, exit};

use super::{Caller, print, print_json};
use crate::args::{OnPath, Shown};
use crate::client::{ANSWER_WAIT_MAX, WORK_WAIT_MAX};
use crate::failure::Failure;
use crate::human::table;
use shared::words::{count, moment, plain, size};

/// Shows what the next cycle would do.
pub(super) fn plan(caller: &Caller, shown: Shown) -> Result<u8, Failure> {
    match caller.ask(&Request::Plan, WORK_WAIT_MAX)? {
        Response::Plan(plan) if shown.json => print_json(&plan)?,
        Response::Plan(plan) => print(&plan_text(&plan))?,
        _ => return Err(caller.unexpected()),
    }
    Ok(exit::DONE)
}

/// Shows all about one path.
pub(super) fn why(caller: &Caller, on: &OnPath) -> Result<u8, Failure> {
    let path = caller.path_in_root(&on.path)?;
    match caller.ask(&Request::Why(path), WORK_WAIT_MAX)? {
        Response::Why(why) if on.shown.json => print_json(&why)?,
        Response::Why(why) => print(&why_text(&why))?,
        _ => return Err(caller.unexpected()),
    }
    Ok(exit::DONE)
}

/// Shows the conflicts that nobody resolved.
pub(super) fn conflicts(caller: &Caller, shown: Shown) -> Result<u8, Failure> {
    match caller.ask(&Request::Conflicts, ANSWER_WAIT_MAX)? {
        Response::Conflicts(conflicts) if shown.json => print_json(&conflicts)?,
        Response::Conflicts(conflicts) => print(&conflicts_text(&conflicts))?,
        _ => return Err(caller.unexpected()),
    }
    Ok(exit::DONE)
}

/// Shows the kept versions of a path, those of the other machine too.
pub(super) fn versions(caller: &Caller, on: &OnPath) -> Result<u8, Failure> {
    let path = caller.path_in_root(&on.path)?;
    let request = Request::Versions {
        path: path.clone(),
        both: true,
        below: None,
    };
    match caller.ask(&request, WORK_WAIT_MAX)? {
        Response::Versions(versions) if on.shown.json => print_json(&versions)?,
        Response::Versions(versions) if versions.is_empty() => {
            print(&format!(
                "no earlier version of {} is kept\n",
                plain(path.as_str())
            ))?;
        }
        Response::Versions(versions) => print(&versions_table(&versions))?,
        _ => return Err(caller.unexpected()),
    }
    Ok(exit::DONE)
}

fn plan_text(plan: &PlanView) -> String {
    let rows: Vec<_> = plan
        .lines
        .iter()
        .map(|line| {
            let len = match line.change {
                shared::control::Change::Create | shared::control::Change::Replace => {
                    size(line.len)
                }
                shared::control::Change::Mode
                | shared::control::Change::Delete
                | shared::control::Change::Move => String::new(),
            };
            [
                line.on.name().to_owned(),
                line.change.verb().to_owned(),
                len,
                plain(line.path.as_str()),
            ]
        })
        .collect();
    let mut text = problem_lines(&plan.held);
    if !rows.is_empty() {
        text += &table(["ON", "CHANGE", ">SIZE", "PATH"], &rows);
    }
    let left = plan.total.saturating_sub(plan.lines.len() as u64);
    if left > 0 {
        text += &format!("and {}\n", count(left, "more change"));
    }
    text + &match plan.total {
        0 => "nothing to do\n".to_owned(),
        total => format!("{}, {} to send\n", count(total, "change"), size(plan.bytes)),
    }
}

fn why_text(why: &Why) -> String {
    let mut text = format!("{}: {}\n", plain(why.path.as_str()), plain(&why.state));
    let lines = [
        ("Reason", Some(&why.reason)),
        ("Next", Some(&why.fix)),
        ("Base", why.base.as_ref()),
        ("Pusher", why.pusher.as_ref()),
        ("Receiver", why.receiver.as_ref()),
    ];
    for (label, value) in lines {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            text += &format!("{label:<9}{}\n", plain(value));
        }
    }
    if !why.history.is_empty() {
        text += "\n";
        text += &versions_table(&why.history);
    }
    text
}

fn versions_table(versions: &[Version]) -> String {
    if versions.iter().any(|version| version.path.is_some()) {
        return versions_below_table(versions);
    }
    let rows: Vec<_> = versions
        .iter()
        .map(|version| {
            [
                plain(&version.version),
                moment(version.at),
                size(version.len),
                version.content.map_or("-".to_owned(), |hash| hash.short()),
                plain(&version.node),
                plain(&version.why),
            ]
        })
        .collect();
    let head = [
        "VERSION",
        "DISPLACED (UTC)",
        ">SIZE",
        "CONTENT",
        "NODE",
        "WHY",
    ];
    table(head, &rows)
}

/// As [`versions_table`], for a folder.
fn versions_below_table(versions: &[Version]) -> String {
    let rows: Vec<_> = versions
        .iter()
        .map(|version| {
            [
                plain(&version.version),
                moment(version.at),
                size(version.len),
                plain(&version.node),
                plain(&version.why),
                version
                    .path
                    .as_ref()
                    .map_or_else(String::new, |path| plain(path.as_str())),
            ]
        })
        .collect();
    let head = ["VERSION", "DISPLACED (UTC)", ">SIZE", "NODE", "WHY", "PATH"];
    table(head, &rows)
}

fn conflicts_text(conflicts: &[ConflictView]) -> String {
    if conflicts.is_empty() {
        return "no conflicts\n".to_owned();
    }
    let mut text = String::new();
    for conflict in conflicts {
        let (path, since) = (plain(conflict.path.as_str()), moment(conflict.since));
        text += &if conflict.held {
            format!("{path}\n  both versions wait since {since} UTC\n")
        } else {
            format!(
                "{path}\n  copy   {}\n  from   {}, noticed {since} UTC\n",
                plain(conflict.copy.as_str()),
                plain(&conflict.lost),
            )
        };
        if !conflict.fix.is_empty() {
            text += &format!("  Next:  {}\n", plain(&conflict.fix));
        }
    }
    text
}

#[cfg(test)]
mod tests;
