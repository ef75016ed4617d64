//! `promote`: have a side be primary.

use std::io::{self, BufRead, Write};

use shared::control::{NodeSide, PeerState, Request, Response, Status, exit};

use super::{Caller, print, print_json};
use crate::args::Promote;
use crate::client::WORK_WAIT_MAX;
use crate::failure::Failure;
use shared::words::plain;

/// Hands the role over, and returns when that side has it.
pub(super) fn promote(caller: &Caller, wish: &Promote) -> Result<u8, Failure> {
    let status = caller.status()?;
    let to = match &wish.to {
        Some(name) => named(&status, name)?,
        None => status.node.side,
    };
    if wish.force {
        confirmed(&status, to)?;
    }
    let request = Request::Promote {
        to,
        force: wish.force,
    };
    let Response::Promoted(epoch) = caller.ask(&request, WORK_WAIT_MAX)? else {
        return Err(caller.unexpected());
    };
    let name = name_of(&status, to);
    if wish.shown.json {
        let primary = serde_json::json!({ "id": name, "side": to, "epoch": epoch });
        print_json(&serde_json::json!({ "primary": primary }))?;
    } else {
        print(&format!(
            "primary: {}, the {}, epoch {epoch}\n",
            plain(name),
            to.name()
        ))?;
    }
    Ok(exit::DONE)
}

/// Finds the side of a name: `pusher`, `receiver`, or that of a node.
fn named(status: &Status, name: &str) -> Result<NodeSide, Failure> {
    let sides = [NodeSide::Pusher, NodeSide::Receiver];
    let by_name = sides.iter().find(|side| name_of(status, **side) == name);
    let by_side = sides.iter().find(|side| side.name() == name);
    by_name.or(by_side).copied().ok_or_else(|| {
        let names = sides.map(|side| plain(name_of(status, side)));
        Failure::usage(
            format!("There is no node \"{}\" in this pair.", plain(name)),
            format!(
                "name \"pusher\", \"receiver\", or one of: {}",
                names.join(", ")
            ),
        )
    })
}

fn name_of(status: &Status, side: NodeSide) -> &str {
    if side == status.node.side {
        &status.node.id
    } else {
        &status.peer.id
    }
}

/// Has a person type the name of the other node: while that one acts, a forced promotion makes two
/// primaries, and nothing here can know.
fn confirmed(status: &Status, to: NodeSide) -> Result<(), Failure> {
    if to != NodeSide::Receiver || status.node.side != to {
        return Err(Failure::usage(
            "Only the receiver is promoted without the other side, and on its own machine.",
            "run `layer-sync promote --force` on the receiver",
        ));
    }
    if status.peer.state != PeerState::Unlinked {
        return Err(Failure::error(
            "The pusher can be reached, so it decides who is primary.",
            "layer-sync promote",
        ));
    }
    let pusher = &status.peer.id;
    eprint!(
        "The pusher \"{name}\" decides who is primary, and it cannot be asked. If it still runs, both machines will \
         act and answer messages twice, until the two are linked again.\n\
         Stop it, or make sure that it is off. Then type its name, \"{name}\", to go on: ",
        name = plain(pusher)
    );
    let _ = io::stderr().flush();
    let mut typed = String::new();
    let read = io::stdin().lock().read_line(&mut typed);
    if read.is_ok() && !pusher.is_empty() && typed.trim_end() == pusher {
        return Ok(());
    }
    Err(Failure::usage(
        "That is not its name; nothing was changed.",
        "layer-sync status",
    ))
}
