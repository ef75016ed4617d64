//! `duty`: what the node keeps running.

use shared::control::{DutyAct, DutyState, DutyStatus, Request, Response, exit};

use super::{Caller, print, print_json};
use crate::args::Duty;
use crate::client::ANSWER_WAIT_MAX;
use crate::failure::Failure;
use shared::words::{count, plain};

/// Lists the duties of the node, or does something to one.
pub(super) fn duty(caller: &Caller, wish: Duty) -> Result<u8, Failure> {
    let (name, act) = match wish {
        Duty::List(shown) => {
            let duties = caller.status()?.duties;
            if shown.json {
                print_json(&duties)?;
            } else {
                print(&duties.iter().map(line).collect::<String>())?;
            }
            return Ok(exit::DONE);
        }
        Duty::Restart { name } => (name, DutyAct::Restart),
        Duty::Crash { name } => (name, DutyAct::Crash),
    };
    match caller.ask(&Request::Duty { name, act }, ANSWER_WAIT_MAX)? {
        Response::Decided(text) => print(&format!("{text}\n"))?,
        _ => return Err(caller.unexpected()),
    }
    Ok(exit::DONE)
}

fn line(duty: &DutyStatus) -> String {
    let state = match duty.state {
        DutyState::Running => "runs",
        DutyState::Waiting => "starts",
        DutyState::Parked => "parked",
    };
    let mut line = format!(
        "{:<10} {state:<8} {}",
        plain(&duty.name),
        count(duty.restarts, "restart")
    );
    if let Some(why) = &duty.why {
        line += &format!("   {}", plain(why));
    }
    line + "\n"
}
