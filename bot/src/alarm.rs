//! What the owner is told without asking: derived from how the pair *is*, so that no event has to be caught, and nothing is told twice.

use shared::control::{BotState, ConflictView, Health, PeerState, Status, SyncState};
use shared::words::{plain, span};

use crate::answer::{conflict_words, is_safe_mode};
use crate::say::{Act, Button};
use crate::text::Body;

/// So long the other machine may be away before the owner hears of it, in milliseconds.
const AWAY_MS: u64 = 600_000;
/// More new conflicts than this are told in one message.
const CONFLICTS_EACH: usize = 3;
/// So many refusals for a rival are an alarm.
const RIVALS: u64 = 3;

/// Something that the owner has to know, while it is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct News {
    /// What it is about: told once, until it is over.
    pub(crate) about: Vec<String>,
    pub(crate) body: Body,
    pub(crate) buttons: Vec<Button>,
}

/// Lists what is not as it should be. `peer` is what the other node says of itself, when it can be asked; `is_told` says what was
/// told already.
pub(crate) fn news(
    own: &Status,
    peer: Option<&Status>,
    conflicts: &[ConflictView],
    is_told: impl Fn(&str) -> bool,
) -> Vec<News> {
    let mut news = Vec::new();
    for problem in &own.problems {
        if problem.severity == Health::Halted && !is_safe_mode(&problem.code) {
            let (about, buttons) = halted(&problem.code, &problem.fix);
            let text = format!(
                "Halted: {}\nNext: {}",
                plain(&problem.text),
                plain(&problem.fix)
            );
            news.push(one(about, text, buttons));
        }
    }
    for node in [Some(own), peer].into_iter().flatten() {
        for problem in node
            .problems
            .iter()
            .filter(|problem| is_safe_mode(&problem.code))
        {
            let text = format!(
                "{} is in safe mode: {}\nNext, there: {}",
                plain(&node.node.id),
                plain(&problem.text),
                plain(&problem.fix)
            );
            news.push(one(
                format!("safe_mode/{}/{}", node.node.id, problem.fix),
                text,
                Vec::new(),
            ));
        }
    }
    let away = match own.peer.state {
        PeerState::Unlinked => own.peer.last_seen_ago_ms.unwrap_or(own.process.uptime_ms),
        _ => 0,
    };
    if away >= AWAY_MS {
        let text = format!(
            "{} has not been heard of for {}. Changes wait, and nobody takes over if this machine stops too.",
            plain(&own.peer.id),
            span(away)
        );
        news.push(one("peer".to_owned(), text, Vec::new()));
    }
    if own
        .bot
        .as_ref()
        .is_some_and(|bot| bot.rivals >= RIVALS && bot.state == BotState::Conflict)
    {
        let text = "Another program polls with the token of this bot, and takes messages from it. Stop that one, or make a new \
                    token with BotFather.";
        news.push(one("rivals".to_owned(), text.to_owned(), Vec::new()));
    }
    let about = |conflict: &ConflictView| format!("conflict/{}", conflict.copy.as_str());
    let (known, new): (Vec<_>, Vec<_>) = conflicts
        .iter()
        .partition(|conflict| is_told(&about(conflict)));
    if new.len() > CONFLICTS_EACH {
        news.push(News {
            about: new.iter().map(|conflict| about(conflict)).collect(),
            body: Body::plain(format!(
                "{} new conflicts. /conflicts shows them, to decide.",
                new.len()
            )),
            buttons: Vec::new(),
        });
    } else {
        news.extend(new.into_iter().map(|conflict| {
            let (body, buttons) = conflict_words(conflict, own);
            News {
                about: vec![about(conflict)],
                body,
                buttons,
            }
        }));
    }
    // They go on, and are not over.
    news.extend(
        known
            .into_iter()
            .map(|conflict| one(about(conflict), String::new(), Vec::new())),
    );
    news
}

/// Says whether what was told can be known to be over, now that it is not among the news. Without a link, or before a look at the tree, a
/// side knows of no conflict and of no halt of the pair; and what the other node says of itself is not over because it cannot be asked.
pub(crate) fn is_over(about: &str, own: &Status, peer: Option<&Status>) -> bool {
    let kind = about.split('/').next().unwrap_or_default();
    match kind {
        "conflict" | "halted" => {
            let knows = matches!(own.peer.state, PeerState::Linked | PeerState::Unpaired);
            knows && own.sync.state != SyncState::Starting
        }
        "safe_mode" => peer.is_some(),
        _ => true,
    }
}

fn one(about: String, text: String, buttons: Vec<Button>) -> News {
    News {
        about: vec![about],
        body: Body::plain(text),
        buttons,
    }
}

/// Returns what a halt is known by, and what the owner can do about it from afar. A folder that is not the right one is looked at by
/// somebody who sits at that machine.
fn halted(code: &str, fix: &str) -> (String, Vec<Button>) {
    let mut words = fix.split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_'));
    let batch = words
        .by_ref()
        .find(|word| *word == "confirm")
        .and_then(|_| words.next());
    let Some(batch) = batch.filter(|batch| *batch != "root") else {
        return (format!("halted/{code}"), Vec::new());
    };
    let button = |text: &str, undo| Button {
        text: text.to_owned(),
        act: Act::Confirm {
            batch: batch.to_owned(),
            undo,
        },
    };
    let buttons = vec![button("let it pass", false), button("undo it", true)];
    (format!("halted/{code}/{batch}"), buttons)
}

#[cfg(test)]
mod tests;
