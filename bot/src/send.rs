//! Says what is to be said: in order in each chat, no faster than Telegram allows.
//!
//! Order: leave, then the claim is durable, then the request, then the result is durable. A claim without a result is a message that
//! may have been sent. It is sent again, as an answer to the same message, and counted: Telegram knows no way to do that once
//! for certain. What was refused is known not to be sent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use frankenstein::ParseMode;
use frankenstein::methods::{EditMessageTextParams, SendMessageParams};
use frankenstein::types::{
    ChatId, InlineKeyboardButton, InlineKeyboardMarkup, LinkPreviewOptions, ReplyMarkup,
    ReplyParameters,
};
use shared::control::BotState;
use shared::lease::Moment;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::ledger::LedgerError;
use crate::port::Leave;
use crate::record::What;
use crate::say::Say;
use crate::telegram::{Sent, TelegramError};
use crate::term::Term;
use crate::text::{Body, MESSAGE_UNITS_MAX, Part};
use crate::view::Due;

/// Chats that are spoken to at the same time.
const CHATS_MAX: usize = 8;
/// Chats that are looked at: those whose turn has not come are passed over.
const CHATS_LOOKED_AT: usize = 64;
/// Messages of a chat that may become one.
const EACH_MAX: usize = 60;
/// From so many on they do.
const TOGETHER_MIN: usize = 4;
/// How long until something that failed is tried again, the first time and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// News about who is primary that is older than this is none, in milliseconds.
const NEWS_MS: u64 = 600_000;

/// Speaks until the lease ends. When it is ending, what has begun is brought to its end, and nothing more is begun.
pub(crate) async fn send(term: Arc<Term>) {
    let mut busy = BTreeSet::new();
    let mut running: JoinSet<i64> = JoinSet::new();
    let mut ending = term.ending.clone();
    loop {
        let mut next: Option<Moment> = None;
        if *ending.borrow() {
            if running.is_empty() {
                return;
            }
        } else {
            let not = busy.clone();
            let chats = term
                .books
                .run(move |ledger| Ok(ledger.view().due_chats(&not, CHATS_LOOKED_AT)?));
            for chat in chats.await.unwrap_or_default() {
                if running.len() == CHATS_MAX {
                    // The first one that ends makes room.
                    break;
                }
                let now = term.port.now();
                let at = term.pace().next(chat, now);
                if at > now {
                    next = Some(next.map_or(at, |next| next.min(at)));
                    continue;
                }
                term.pace().take(chat, now);
                busy.insert(chat);
                let term = Arc::clone(&term);
                running.spawn(async move {
                    if let Err(error) = say_next(&term, chat).await {
                        warn!(%error, "what is said cannot be made durable, so it waits");
                        let until = term.port.now().after(AGAIN.1);
                        term.pace().hold(chat, until);
                    }
                    chat
                });
            }
        }
        let wait = next.map_or(AGAIN.1, |at| {
            at.left(term.port.now()).max(Duration::from_millis(5))
        });
        tokio::select! {
            Some(done) = running.join_next() => match done {
                Ok(chat) => drop(busy.remove(&chat)),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => return,
            },
            () = term.books.said() => {}
            _ = ending.changed() => {}
            () = sleep(wait) => {}
        }
    }
}

async fn say_next(term: &Term, chat: i64) -> Result<(), LedgerError> {
    let due = term
        .books
        .run(move |ledger| Ok(ledger.view().due(chat, EACH_MAX)?));
    match together(due.await?) {
        Some(parcel) => say(term, parcel).await,
        None => Ok(()),
    }
}

/// Several messages that go as one, or one.
struct Parcel {
    ids: Vec<String>,
    say: Say,
    attempt: u32,
    /// The oldest of them was put here then.
    at: shared::utc::UtcMs,
}

/// Takes the first messages that are due in a chat; when many wait, they go together, each under what it answers.
fn together(due: Vec<Due>) -> Option<Parcel> {
    let many = due.len() >= TOGETHER_MIN;
    let mut due = due.into_iter();
    let first = due.next()?;
    let mut parcel = Parcel {
        ids: vec![first.say.id.clone()],
        attempt: first.attempt + 1,
        at: first.at,
        say: first.say,
    };
    if !many || !is_simple(&parcel.say) {
        return Some(parcel);
    }
    let mut body = titled(&parcel.say);
    for next in due {
        let more = titled(&next.say);
        // Those that may have been sent stay with those that may have been.
        if !is_simple(&next.say)
            || next.attempt + 1 != parcel.attempt
            || body.units() + 2 + more.units() > MESSAGE_UNITS_MAX
        {
            break;
        }
        parcel.ids.push(next.say.id);
        body.0.extend(more.0);
    }
    if parcel.ids.len() > 1 {
        parcel.say.body = body;
        parcel.say.reply = None;
    }
    Some(parcel)
}

fn is_simple(say: &Say) -> bool {
    say.buttons.is_empty() && say.edit.is_none()
}

fn titled(say: &Say) -> Body {
    let title = say.about.clone().map(Part::Bold);
    Body(
        title
            .into_iter()
            .chain(say.body.0.iter().cloned())
            .collect(),
    )
}

async fn say(term: &Term, parcel: Parcel) -> Result<(), LedgerError> {
    let Parcel {
        ids,
        say,
        attempt,
        at,
    } = parcel;
    if say.id.starts_with("primary/") && term.port.utc().0 > at.0 + NEWS_MS {
        let why = "it is no news any more".to_owned();
        return term.books.note(vec![What::Failed { ids, why }]).await;
    }
    let leave = term.leave().await;
    term.books
        .note(vec![What::Claimed {
            ids: ids.clone(),
            attempt,
        }])
        .await?;
    let sent = request(term, &leave, &say).await;
    let now = term.port.now();
    let (result, hold) = match &sent {
        Ok(message) => {
            debug!(chat = say.chat, message, messages = ids.len(), "said");
            (
                Some(What::Sent {
                    ids,
                    message: *message,
                }),
                None,
            )
        }
        Err(TelegramError::Refused {
            retry_after: Some(after),
            ..
        }) => {
            info!(chat = say.chat, ?after, "Telegram asks for a pause");
            (Some(What::Returned { ids }), Some(*after))
        }
        Err(error) if error.is_unauthorised() => {
            term.board.set(BotState::Unauthorised);
            (Some(What::Returned { ids }), Some(AGAIN.1))
        }
        // It would be refused each time.
        Err(TelegramError::Refused { code, text, .. }) if *code < 500 => {
            warn!(chat = say.chat, code, text, "a message is refused");
            let why = text.clone();
            (Some(What::Failed { ids, why }), None)
        }
        Err(TelegramError::Unreachable(_)) => (Some(What::Returned { ids }), Some(AGAIN.0 * 2)),
        Err(error) => {
            warn!(chat = say.chat, %error, attempt, "it is not known whether a message was sent");
            (None, Some((AGAIN.0 * (1 << attempt.min(6))).min(AGAIN.1)))
        }
    };
    if let Some(hold) = hold {
        term.pace().hold(say.chat, now.after(hold));
    }
    if let Some(result) = result {
        term.books.note(vec![result]).await?;
    }
    drop(leave);
    Ok(())
}

/// Sends a message, or changes one; returns its number. No answer is lost for its form: what cannot be read as HTML is sent without marks.
pub(crate) async fn request(term: &Term, leave: &Leave, say: &Say) -> Result<i64, TelegramError> {
    match attempt(term, leave, say, true).await {
        Err(error) if error.says("can't parse entities") => attempt(term, leave, say, false).await,
        other => other,
    }
}

async fn attempt(term: &Term, leave: &Leave, say: &Say, html: bool) -> Result<i64, TelegramError> {
    let text = if html {
        say.body.as_html()
    } else {
        say.body.as_plain()
    };
    let mode = html.then_some(ParseMode::Html);
    let no_preview = LinkPreviewOptions::builder().is_disabled(true).build();
    let keyboard = keyboard(say);
    let number = |message: i64| i32::try_from(message).ok();
    if let Some(edit) = say.edit
        && let Some(message) = number(edit)
    {
        let params = EditMessageTextParams::builder()
            .chat_id(ChatId::Integer(say.chat))
            .message_id(message)
            .text(text.clone())
            .maybe_parse_mode(mode)
            .link_preview_options(no_preview.clone())
            .maybe_reply_markup(keyboard.clone())
            .build();
        let edited: Result<serde_json::Value, TelegramError> =
            term.telegram.call(leave, "editMessageText", &params).await;
        match edited {
            Ok(_) => return Ok(edit),
            Err(error) if error.says("message is not modified") => return Ok(edit),
            // Somebody deleted it: then it is said anew.
            Err(error)
                if error.says("message to edit not found") || error.says("can't be edited") => {}
            Err(error) => return Err(error),
        }
    }
    let reply = say.reply.and_then(number).map(|message| {
        ReplyParameters::builder()
            .message_id(message)
            .allow_sending_without_reply(true)
            .build()
    });
    let params = SendMessageParams::builder()
        .chat_id(say.chat)
        .text(text)
        .maybe_parse_mode(mode)
        .link_preview_options(no_preview)
        .maybe_reply_parameters(reply)
        .maybe_reply_markup(keyboard.map(ReplyMarkup::InlineKeyboardMarkup))
        .build();
    let sent: Sent = term.telegram.call(leave, "sendMessage", &params).await?;
    Ok(sent.message_id)
}

fn keyboard(say: &Say) -> Option<InlineKeyboardMarkup> {
    let row = |(index, button): (usize, &crate::say::Button)| {
        vec![
            InlineKeyboardButton::builder()
                .text(button.text.clone())
                .callback_data(say.key(index))
                .build(),
        ]
    };
    let rows: Vec<_> = say.buttons.iter().enumerate().map(row).collect();
    (!rows.is_empty()).then(|| {
        InlineKeyboardMarkup::builder()
            .inline_keyboard(rows)
            .build()
    })
}

#[cfg(test)]
mod tests {
    use shared::utc::UtcMs;

    use super::*;

    fn parcel(due: Vec<Due>) -> Parcel {
        together(due).expect("something is due")
    }

    use crate::say::{Act, Button};

    fn due(number: usize, text: &str) -> Due {
        let mut say = Say::new(format!("id{number}"), 1, Body::plain(text));
        say.reply = Some(number as i64);
        say.about = Some(format!("/n{number}"));
        Due {
            say,
            attempt: 0,
            at: UtcMs(number as u64),
        }
    }

    fn many(count: usize, text: &str) -> Vec<Due> {
        (0..count).map(|number| due(number, text)).collect()
    }

    #[test]
    fn a_few_go_one_by_one_as_answers() {
        let parcel = parcel(many(TOGETHER_MIN - 1, "x"));
        assert_eq!((parcel.ids.len(), parcel.say.reply), (1, Some(0)));
        assert_eq!(parcel.say.body.as_plain(), "x");
    }

    #[test]
    fn many_go_together_each_under_its_question() {
        let parcel = parcel(many(TOGETHER_MIN, "x"));
        assert_eq!((parcel.ids.len(), parcel.say.reply), (4, None));
        assert_eq!(parcel.say.body.as_plain(), "/n0\nx\n/n1\nx\n/n2\nx\n/n3\nx");
    }

    #[test]
    fn together_they_fit_into_one_message() {
        let parcel = parcel(many(60, &"글".repeat(400)));
        assert!(parcel.ids.len() > 8 && parcel.say.body.units() <= MESSAGE_UNITS_MAX);
        assert_eq!(parcel.say.body.clone().messages().len(), 1);
    }

    #[test]
    fn what_has_buttons_or_may_have_been_sent_stays_apart() {
        let mut list = many(6, "x");
        list[2].say.buttons.push(Button {
            text: "undo it".to_owned(),
            act: Act::Confirm {
                batch: "1".to_owned(),
                undo: true,
            },
        });
        assert_eq!(parcel(list.clone()).ids, ["id0", "id1"]);
        list.drain(..2);
        assert_eq!(parcel(list.clone()).ids, ["id2"]);
        let mut list = many(6, "x");
        list[0].attempt = 1;
        let parcel = parcel(list);
        assert_eq!((parcel.ids.len(), parcel.attempt), (1, 2));
    }
}
