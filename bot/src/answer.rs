//! What the bot answers: asks its node, and puts the answer into words.

use std::sync::Arc;
use std::time::Duration;

use shared::block::{block, problem_lines, waiting};
use shared::control::{
    ConflictView, DutyAct, DutyState, DutyStatus, Keep, NodeSide, Pick, Refused, Request, Response,
    Status,
};
use shared::path::RelPath;
use shared::utc::UtcMs;
use shared::words::{count, health_name, near_moment, plain, size};
use tokio::time::timeout;

use crate::command::{Command, LIST};
use crate::files;
use crate::live::Live;
use crate::port::Port;
use crate::say::{Act, Button};
use crate::text::{Body, Part, head};

/// How long `/sync` waits.
const SYNC_WAIT: Duration = Duration::from_secs(30);
/// How often `/sync` shows how far it is.
const SHOW_EVERY: Duration = Duration::from_secs(1);
/// Most conflicts that are shown at once, each with its buttons.
const CONFLICTS_MAX: usize = 8;
/// How the command is called in what the bot says.
const COMMAND: &str = "layer-sync";

/// What is to be said, and done when it was said.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// Each may become several messages.
    pub(crate) says: Vec<(Body, Vec<Button>)>,
    /// A change of the role ends the bot here, so it waits for the words.
    pub(crate) afterwards: Option<Request>,
    /// The message that showed how far it is, which the first of these takes the place of.
    pub(crate) instead: Option<i64>,
}

impl From<Body> for Reply {
    fn from(body: Body) -> Self {
        Self {
            says: vec![(body, Vec::new())],
            ..Self::default()
        }
    }
}

impl From<String> for Reply {
    fn from(text: String) -> Self {
        Body::plain(text).into()
    }
}

impl From<&str> for Reply {
    fn from(text: &str) -> Self {
        Body::plain(text).into()
    }
}

/// Answers a command. `/pair` is none for here: who may speak is not the node's business.
pub(crate) async fn answer(port: &Arc<dyn Port>, command: &Command, live: &mut Live<'_>) -> Reply {
    match command {
        Command::Help | Command::Pair(_) => help(),
        Command::Status => status(port).await,
        Command::Sync => sync(port, live).await,
        Command::Conflicts => conflicts(port).await,
        Command::Files(folder) => files::list(port, folder).await.into(),
        Command::Find(words) => files::find(port, words).await.into(),
        Command::Restore(path, ago) => restore(port, path, *ago).await,
        Command::Promote(node) => promote(port, node).await,
        Command::Restarts => restarts(port).await,
        Command::Unknown(name) => format!(
            "There is no /{}. /help shows what there is.",
            head(&plain(name), 32)
        )
        .into(),
    }
}

fn help() -> Reply {
    let lines: Vec<String> = LIST
        .iter()
        .map(|(name, does)| format!("/{name}: {does}"))
        .collect();
    lines.join("\n").into()
}

/// Asks for the status of this node.
pub(crate) async fn node_status(port: &Arc<dyn Port>) -> Result<Box<Status>, Reply> {
    match port.ask(Request::Status).await {
        Response::Status(status) => Ok(status),
        other => Err(unexpected(other)),
    }
}

async fn status(port: &Arc<dyn Port>) -> Reply {
    match node_status(port).await {
        Ok(status) => Body(vec![Part::Mono(block(
            &status,
            health_name(status.state),
            COMMAND,
        ))])
        .into(),
        Err(reply) => reply,
    }
}

async fn sync(port: &Arc<dyn Port>, live: &mut Live<'_>) -> Reply {
    let mut flush = port.ask(Request::Flush);
    let shows = async {
        loop {
            if let Ok(status) = node_status(port).await {
                let parts = waiting(&status.sync);
                let text = match parts.is_empty() {
                    true => "Syncing …".to_owned(),
                    false => format!("Syncing: {} …", parts.join(", ")),
                };
                live.show(&text).await;
            }
            tokio::time::sleep(SHOW_EVERY).await;
        }
    };
    let flushed = tokio::select! {
        flushed = timeout(SYNC_WAIT, &mut flush) => flushed,
        () = shows => return Reply::default(),
    };
    match flushed {
        Ok(Response::Compared(compared)) if compared.equal => format!(
            "In sync: {}, durable on both machines.",
            count(compared.files, "file")
        )
        .into(),
        Ok(Response::Compared(compared)) => {
            Body::plain("Everything that can move is on both machines. What waits:")
                .and(Part::Plain(problem_lines(&compared.problems)))
                .into()
        }
        Ok(other) => unexpected(other),
        Err(_) => {
            let waits = match node_status(port).await {
                Ok(status) => waiting(&status.sync).join(", "),
                Err(reply) => return reply,
            };
            format!("Not yet in sync after {} s: {waits}. It goes on by itself; /status shows how far it is.", SYNC_WAIT.as_secs()).into()
        }
    }
}

async fn conflicts(port: &Arc<dyn Port>) -> Reply {
    let status = match node_status(port).await {
        Ok(status) => status,
        Err(reply) => return reply,
    };
    let list = match port.ask(Request::Conflicts).await {
        Response::Conflicts(list) => list,
        other => return unexpected(other),
    };
    if list.is_empty() {
        return "No conflicts.".into();
    }
    let mut says: Vec<_> = list
        .iter()
        .take(CONFLICTS_MAX)
        .map(|conflict| conflict_words(conflict, &status))
        .collect();
    if list.len() > CONFLICTS_MAX {
        let more = count((list.len() - CONFLICTS_MAX) as u64, "more conflict");
        says.push((
            Body::plain(format!("And {more}; decide these first.")),
            Vec::new(),
        ));
    }
    Reply {
        says,
        ..Reply::default()
    }
}

/// Puts a conflict into words, with what can be decided.
pub(crate) fn conflict_words(conflict: &ConflictView, status: &Status) -> (Body, Vec<Button>) {
    let path = plain(conflict.path.as_str());
    let text = match conflict.held {
        true => format!("Both machines changed \"{path}\", and both versions wait."),
        false => format!(
            "Both machines changed \"{path}\". The version of {} is now \"{}\".",
            plain(&conflict.lost),
            plain(conflict.copy.as_str())
        ),
    };
    let button = |text: String, keep| Button {
        text,
        act: Act::Resolve {
            path: conflict.path.clone(),
            keep,
        },
    };
    let (own, peer) = (&status.node, &status.peer);
    let other = other(own.side);
    let buttons = vec![
        button(format!("keep {}'s", plain(&own.id)), Some(own.side)),
        button(format!("keep {}'s", plain(&peer.id)), Some(other)),
        button("keep both".to_owned(), None),
    ];
    (Body::plain(text), buttons)
}

fn other(side: NodeSide) -> NodeSide {
    match side {
        NodeSide::Pusher => NodeSide::Receiver,
        NodeSide::Receiver => NodeSide::Pusher,
    }
}

async fn restore(port: &Arc<dyn Port>, path: &str, ago: Option<Duration>) -> Reply {
    let Ok(path) = RelPath::parse(path.trim_matches('/')) else {
        return "Say which: /restore notes/a.md, or as it was: /restore notes/a.md 2h".into();
    };
    let now = port.utc();
    let pick = match ago {
        Some(ago) => Pick::At(UtcMs(now.0.saturating_sub(ago.as_millis() as u64))),
        None => Pick::Latest,
    };
    match port.ask(Request::Restore { path, pick }).await {
        Response::Restored(restored) => {
            let mut text = format!(
                "\"{}\" is back as it was until {}: {}.",
                plain(restored.path.as_str()),
                near_moment(restored.version.at, now),
                size(restored.version.len)
            );
            if let Some(displaced) = restored.displaced {
                text += &format!(" What stood there is kept as version {displaced}.");
            }
            text.into()
        }
        Response::RestoredBelow(done) => {
            let mut text = format!(
                "{} restored, {} stood there already.",
                count(done.restored, "file"),
                done.unchanged
            );
            for why in &done.failed {
                text += &format!("\nNot restored: {}", plain(why));
            }
            if done.incomplete {
                text += "\nThe other machine could not be asked for what it keeps.";
            }
            text.into()
        }
        other => unexpected(other),
    }
}

async fn promote(port: &Arc<dyn Port>, node: &str) -> Reply {
    let status = match node_status(port).await {
        Ok(status) => status,
        Err(reply) => return reply,
    };
    let (own, peer) = (&status.node, &status.peer);
    let is = |id: &str, side: NodeSide| {
        node.eq_ignore_ascii_case(id) || node.eq_ignore_ascii_case(side.name())
    };
    let there = other(own.side);
    if is(&own.id, own.side) {
        return format!(
            "{} is primary already, epoch {}.",
            plain(&own.id),
            own.epoch
        )
        .into();
    }
    if !node.is_empty() && !is(&peer.id, there) {
        return format!(
            "There is no node \"{}\": there is {} and {}.",
            head(&plain(node), 64),
            plain(&own.id),
            plain(&peer.id)
        )
        .into();
    }
    Reply {
        afterwards: Some(Request::Promote {
            to: there,
            force: false,
        }),
        ..Reply::from(format!(
            "The role goes to {}. It says so when it has it.",
            plain(&peer.id)
        ))
    }
}

async fn restarts(port: &Arc<dyn Port>) -> Reply {
    let status = match node_status(port).await {
        Ok(status) => status,
        Err(reply) => return reply,
    };
    let mut text = format!(
        "On {}, up {}:\n",
        plain(&status.node.id),
        shared::words::span(status.process.uptime_ms)
    );
    for duty in &status.duties {
        text += &duty_line(duty);
    }
    let buttons = status
        .duties
        .iter()
        .filter(|duty| duty.state == DutyState::Parked)
        .map(|duty| Button {
            text: format!("start {} again", duty.name),
            act: Act::Restart {
                node: status.node.id.clone(),
                duty: duty.name.clone(),
            },
        });
    let buttons = buttons.collect();
    if let Response::Status(peer) = port.ask(Request::Peer(Box::new(Request::Status))).await {
        text += &format!(
            "On {}, up {}:\n",
            plain(&peer.node.id),
            shared::words::span(peer.process.uptime_ms)
        );
        let parked = peer
            .problems
            .iter()
            .filter(|problem| is_safe_mode(&problem.code));
        let lines: Vec<String> = parked
            .map(|problem| format!("{}\n", plain(&problem.text)))
            .collect();
        text += &match lines.is_empty() {
            true => "nothing is parked\n".to_owned(),
            false => lines.concat(),
        };
    }
    Reply {
        says: vec![(Body::plain(text), buttons)],
        ..Reply::default()
    }
}

fn duty_line(duty: &DutyStatus) -> String {
    let state = match duty.state {
        DutyState::Running => "runs",
        DutyState::Waiting => "is started again",
        DutyState::Parked => "is parked",
    };
    let why = duty
        .why
        .as_deref()
        .map(|why| format!(": {}", plain(why)))
        .unwrap_or_default();
    format!(
        "{} {state}, {}{why}\n",
        duty.name,
        count(duty.restarts, "restart")
    )
}

/// Says whether a problem is that a duty is parked.
pub(crate) fn is_safe_mode(code: &str) -> bool {
    code.ends_with(".safe_mode")
}

/// Does what a button says, and tells how that went.
pub(crate) async fn act(port: &Arc<dyn Port>, act: &Act) -> String {
    let request = match act {
        Act::Resolve { path, keep } => {
            let status = match node_status(port).await {
                Ok(status) => status,
                Err(reply) => return reply_text(&reply),
            };
            Request::Resolve {
                path: path.clone(),
                keep: match keep {
                    None => Keep::Both,
                    Some(side) if *side == status.node.side => Keep::Mine,
                    Some(_) => Keep::Theirs,
                },
            }
        }
        Act::Confirm { batch, undo } => Request::Confirm {
            batch: batch.clone(),
            undo: *undo,
        },
        Act::Restart { node, duty } => match node_status(port).await {
            Ok(status) if status.node.id == *node => Request::Duty {
                name: duty.clone(),
                act: DutyAct::Restart,
            },
            Ok(_) => return format!("on {} type: {COMMAND} duty restart {duty}", plain(node)),
            Err(reply) => return reply_text(&reply),
        },
    };
    match port.ask(request).await {
        Response::Decided(text) => plain(&text),
        other => reply_text(&unexpected(other)),
    }
}

fn reply_text(reply: &Reply) -> String {
    let texts: Vec<String> = reply.says.iter().map(|(body, _)| body.as_plain()).collect();
    texts.join("\n")
}

fn unexpected(response: Response) -> Reply {
    match response {
        Response::Refused(Refused { text, fix, .. }) if fix.is_empty() => plain(&text).into(),
        Response::Refused(Refused { text, fix, .. }) => format!("{}\nNext: {}", plain(&text), plain(&fix)).into(),
        _ => "The daemon gave an answer that does not fit; both machines need the same version of layer-sync.".into(),
    }
}
