//! `init` and `join`: make a node.

use std::path::{self, Path, PathBuf};

use shared::control::exit;

use super::{Caller, print};
use crate::args::Init;
use crate::failure::Failure;
use shared::words::plain;

/// Makes a pusher.
pub(super) fn init(caller: &Caller, side: Init) -> Result<u8, Failure> {
    let Init::Pusher { root, listen, name } = side;
    let root = absolute(&root)?;
    let wish = node::InitPusher {
        root: root.clone(),
        listen: listen.clone(),
        name,
    };
    node::init_pusher(&caller.home, &wish)?;
    print(&format!(
        "made a pusher in {}: it keeps {} and listens on {listen}\n\
         Next: start it with `{command} pusher`, then make a code for the other machine with \
         `{command} pair`\n",
        caller.home.dir().display(),
        root.display(),
        command = caller.command,
    ))?;
    Ok(exit::DONE)
}

/// Makes a receiver, and pins it and the pusher to each other.
pub(super) fn join(
    caller: &Caller,
    code: String,
    root: &Path,
    name: Option<String>,
) -> Result<u8, Failure> {
    let root = absolute(root)?;
    let wish = node::Join {
        code,
        root: root.clone(),
        name,
    };
    let pusher = node::join(&caller.home, &wish)?;
    print(&format!(
        "joined {}: made a receiver in {}, it keeps {}\n\
         Next: start it with `{} receiver`\n",
        plain(&pusher),
        caller.home.dir().display(),
        root.display(),
        caller.command,
    ))?;
    Ok(exit::DONE)
}

/// Takes a path from the current directory; it need not exist.
pub(super) fn absolute(typed: &Path) -> Result<PathBuf, Failure> {
    path::absolute(typed).map_err(|error| {
        Failure::usage(
            format!("\"{}\" is no folder: {error}.", typed.display()),
            "",
        )
    })
}
