//! What writes into a chat: messages, edits, drafts, deletions.
//!
//! Checks come in the order of the public server: the text by itself, the chat, the limits, and then
//! what depends on the chat.

use std::time::Duration;

use serde_json::Value;

use super::arguments::{Arguments, flag, integer};
use super::chats::Message;
use super::html::{self, utf16_units};
use super::methods::{Done, Failure, Outcome};
use super::{Moment, State};

/// Longest text, in UTF-16 units without tags.
const TEXT_MAX: usize = 4096;
/// Longest text with tags.
const TEXT_BYTES_MAX: usize = 1 << 15;
const CALLBACK_DATA_BYTES_MAX: usize = 64;
/// How long a message can be deleted.
const DELETABLE: Duration = Duration::from_secs(48 * 3600);
const NOT_MODIFIED: &str = "message is not modified: specified new message content and reply markup are exactly the same as a current content and reply markup of the message";

/// A text without tags, and its `MessageEntity`s.
#[derive(Default)]
struct Text {
    text: String,
    entities: Vec<Value>,
}

impl State {
    pub(super) fn send_message(&mut self, arguments: &Arguments, now: Moment) -> Outcome {
        let Text { text, entities } = self.formatted(arguments)?;
        let chat = self.known_chat(arguments)?;
        self.admit(chat, now)?;
        not_too_long(&text)?;
        let keyboard = keyboard(arguments)?;
        let reply_to = self.reply_to(chat, arguments)?;
        let message = Message {
            by: None,
            text,
            entities,
            keyboard,
            reply_to,
            date: now.date,
            ..Message::default()
        };
        let id = self.chats.add(chat, message);
        Ok(self.written(chat, id))
    }

    pub(super) fn edit_message_text(&mut self, arguments: &Arguments, now: Moment) -> Outcome {
        let Text { text, entities } = self.formatted(arguments)?;
        let (chat, id) = self.editable(arguments)?;
        self.admit(chat, now)?;
        not_too_long(&text)?;
        // An edit without a keyboard takes the keyboard away.
        let keyboard = keyboard(arguments)?;
        self.edit(chat, id, now, |message| {
            let same = message.text == text
                && message.entities == entities
                && message.keyboard == keyboard;
            message.text = text;
            message.entities = entities;
            message.keyboard = keyboard;
            !same
        })
    }

    pub(super) fn edit_message_reply_markup(
        &mut self,
        arguments: &Arguments,
        now: Moment,
    ) -> Outcome {
        let (chat, id) = self.editable(arguments)?;
        self.admit(chat, now)?;
        let keyboard = keyboard(arguments)?;
        self.edit(chat, id, now, |message| {
            let same = message.keyboard == keyboard;
            message.keyboard = keyboard;
            !same
        })
    }

    /// Shows a draft for a moment; it leaves nothing in the chat.
    pub(super) fn send_message_draft(&mut self, arguments: &Arguments, _: Moment) -> Outcome {
        let empty = arguments.text("text").is_none_or(|text| text.is_empty());
        let text = if empty {
            Text::default()
        } else {
            self.formatted(arguments)?
        };
        let chat = self.known_chat(arguments)?;
        if chat < 0 {
            return Err(Failure::bad_request("TEXTDRAFT_PEER_INVALID"));
        }
        if arguments.integer("draft_id").unwrap_or_default() == 0 {
            return Err(Failure::bad_request("draft identifier must be non-zero"));
        }
        not_too_long(&text.text)?;
        Ok(Value::Bool(true).into())
    }

    pub(super) fn delete_message(&mut self, arguments: &Arguments, now: Moment) -> Outcome {
        let chat = self.known_chat(arguments)?;
        let id = message_id(arguments)?;
        let Some(message) = self.chats.find(chat, id) else {
            return Err(Failure::bad_request("message to delete not found"));
        };
        if now.date >= message.date + DELETABLE.as_secs() {
            return Err(Failure::bad_request("message can't be deleted"));
        }
        self.chats.remove(chat, id);
        Ok(Done {
            message: Some(id),
            ..Value::Bool(true).into()
        })
    }

    /// Counts a send or an edit, or refuses it with 429.
    fn admit(&mut self, chat: i64, now: Moment) -> Result<(), Failure> {
        let told = self.limits.closed(chat, now.at);
        if !told.is_zero() {
            return Err(too_many(told));
        }
        if let Some((left @ 1.., seconds)) = &mut self.faults.too_many {
            *left -= 1;
            let wait = Duration::from_secs((*seconds).into());
            self.limits.close(chat, now.at + wait);
            return Err(too_many(wait));
        }
        if self.faults.enforce_limits {
            self.limits.admit(chat, now.at).map_err(too_many)?;
        }
        Ok(())
    }

    /// Reads the text of a call.
    fn formatted(&mut self, arguments: &Arguments) -> Result<Text, Failure> {
        let text = arguments.text("text").unwrap_or_default();
        if text.is_empty() {
            return Err(Failure::bad_request("message text is empty"));
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(Failure::bad_request("text is too long"));
        }
        let mode = arguments.text("parse_mode").unwrap_or_default();
        let (text, mut entities) = if mode.is_empty() {
            (text, Vec::new())
        } else if self.faults.parse_errors > 0 {
            self.faults.parse_errors -= 1;
            return Err(unparsable("Unsupported start tag \"\" at byte offset 0"));
        } else if mode.eq_ignore_ascii_case("HTML") {
            html::parse(&text).map_err(|what| unparsable(&what))?
        } else {
            return Err(Failure::bad_request("unsupported parse_mode"));
        };
        // The public server takes space off both ends, but none from within an entity at the start.
        let mut kept = text.trim_end();
        if entities.is_empty() {
            kept = kept.trim_start();
        }
        if kept.is_empty() {
            return Err(Failure::bad_request("text must be non-empty"));
        }
        let end = utf16_units(kept);
        entities.retain_mut(|entity| entity.clip(end));
        Ok(Text {
            text: kept.to_owned(),
            entities: entities.iter().map(html::Entity::object).collect(),
        })
    }

    fn reply_to(&self, chat: i64, arguments: &Arguments) -> Result<Option<i64>, Failure> {
        let parameters = arguments.structure("reply_parameters").unwrap_or_default();
        let Some(id) = integer(&parameters["message_id"]) else {
            return Ok(None);
        };
        if self.chats.find(chat, id).is_some() {
            return Ok(Some(id));
        }
        if flag(&parameters["allow_sending_without_reply"]) {
            return Ok(None);
        }
        Err(Failure::bad_request("message to be replied not found"))
    }

    /// Returns the message of the bot that an edit names.
    fn editable(&self, arguments: &Arguments) -> Result<(i64, i64), Failure> {
        let chat = self.known_chat(arguments)?;
        let id = message_id(arguments)?;
        match self.chats.find(chat, id) {
            None => Err(Failure::bad_request("message to edit not found")),
            Some(message) if message.by.is_some() => {
                Err(Failure::bad_request("message can't be edited"))
            }
            Some(_) => Ok((chat, id)),
        }
    }

    /// Edits a message; `change` returns whether anything is different now.
    fn edit(
        &mut self,
        chat: i64,
        id: i64,
        now: Moment,
        change: impl FnOnce(&mut Message) -> bool,
    ) -> Outcome {
        let message = self.chats.find_mut(chat, id);
        let Some(message) = message else {
            return Err(Failure::bad_request("message to edit not found"));
        };
        if !change(message) {
            return Err(Failure::bad_request(NOT_MODIFIED));
        }
        message.edits += 1;
        message.edited = Some(now.date);
        Ok(self.written(chat, id))
    }

    fn written(&self, chat: i64, id: i64) -> Done {
        Done {
            message: Some(id),
            ..self.chats.object(chat, id).into()
        }
    }
}

fn message_id(arguments: &Arguments) -> Result<i64, Failure> {
    let id = arguments.integer("message_id");
    id.ok_or_else(|| Failure::bad_request("message identifier is not specified"))
}

fn not_too_long(text: &str) -> Result<(), Failure> {
    if utf16_units(text) > TEXT_MAX {
        return Err(Failure::bad_request("message is too long"));
    }
    Ok(())
}

/// Returns the inline keyboard of a call, if it has buttons.
fn keyboard(arguments: &Arguments) -> Result<Option<Value>, Failure> {
    let Some(markup) = arguments.structure("reply_markup") else {
        return Ok(None);
    };
    // Other markups change what the user types with, not the message.
    let Some(rows) = markup.get("inline_keyboard") else {
        return Ok(None);
    };
    let rows: Option<Vec<&Vec<Value>>> = rows
        .as_array()
        .and_then(|rows| rows.iter().map(Value::as_array).collect());
    let Some(rows) = rows else {
        return Err(bad_button("Expected an Array of Arrays"));
    };
    for button in rows.iter().copied().flatten() {
        let has = |name: &str| button[name].as_str();
        if has("text").is_none_or(str::is_empty) {
            return Err(bad_button("Field \"text\" must be non-empty"));
        }
        match has("callback_data") {
            Some(data) if (1..=CALLBACK_DATA_BYTES_MAX).contains(&data.len()) => {}
            Some(_) => return Err(Failure::bad_request("BUTTON_DATA_INVALID")),
            None if has("url").is_some() => {}
            None => {
                return Err(bad_button(
                    "Text buttons are unallowed in the inline keyboard",
                ));
            }
        }
    }
    let is_empty = rows.iter().all(|row| row.is_empty());
    Ok((!is_empty).then_some(markup))
}

fn bad_button(what: &str) -> Failure {
    Failure::bad_request(&format!("can't parse inline keyboard button: {what}"))
}

fn unparsable(what: &str) -> Failure {
    Failure::bad_request(&format!("can't parse entities: {what}"))
}

/// Returns the 429, with a wait in whole seconds.
fn too_many(wait: Duration) -> Failure {
    let seconds = wait.as_nanos().div_ceil(1_000_000_000).max(1) as u64;
    Failure {
        retry_after: Some(seconds),
        ..Failure::new(429, format!("Too Many Requests: retry after {seconds}"))
    }
}
