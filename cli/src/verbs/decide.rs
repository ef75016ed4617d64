//! `resolve`, `confirm`: a person decides.

use shared::control::{Keep, Request, Response, exit};

use super::{Caller, print, print_json};
use crate::args::{Confirm, Resolve};
use crate::client::{ANSWER_WAIT_MAX, ClientError};
use crate::failure::Failure;
use shared::words::plain;

/// What accepts the folder of a node as it is, in the place of a batch.
const ROOT: &str = "root";

/// Says whose version counts in a conflict.
pub(super) fn resolve(caller: &Caller, wish: &Resolve) -> Result<u8, Failure> {
    let request = Request::Resolve {
        path: caller.path_in_root(&wish.on.path)?,
        keep: wish.keep,
    };
    tell(caller, &request, wish.on.shown.json)
}

/// Lets a halted batch pass, or undoes it.
pub(super) fn confirm(caller: &Caller, wish: &Confirm) -> Result<u8, Failure> {
    let request = Request::Confirm {
        batch: wish.batch.clone(),
        undo: wish.undo,
    };
    if wish.batch != ROOT {
        return tell(caller, &request, wish.shown.json);
    }
    match crate::client::Client::ask(&caller.home, &request, ANSWER_WAIT_MAX) {
        // The daemon does not start on such a folder, so it is accepted for the next start.
        Err(ClientError::NotRunning) => {
            node::accept_root(&caller.home)?;
            let text = "the folder is accepted as it is; at the next start the two trees are united, \
                        and nothing is deleted";
            show(text, wish.shown.json)
        }
        Ok(Response::Decided(text)) => show(&text, wish.shown.json),
        Ok(_) => Err(caller.unexpected()),
        Err(error) => Err(caller.failure(error)),
    }
}

fn tell(caller: &Caller, request: &Request, json: bool) -> Result<u8, Failure> {
    match caller.ask(request, ANSWER_WAIT_MAX)? {
        Response::Decided(text) => show(&text, json),
        _ => Err(caller.unexpected()),
    }
}

fn show(text: &str, json: bool) -> Result<u8, Failure> {
    if json {
        print_json(&serde_json::json!({ "decided": text }))?;
    } else {
        print(&format!("{}\n", plain(text)))?;
    }
    Ok(exit::DONE)
}

/// Parses the word behind `--keep`.
pub(crate) fn keep(word: &str) -> Result<Keep, &'static str> {
    match word {
        "mine" => Ok(Keep::Mine),
        "theirs" => Ok(Keep::Theirs),
        "both" => Ok(Keep::Both),
        _ => Err("say mine, theirs or both"),
    }
}
