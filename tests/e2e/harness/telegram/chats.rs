//! Chats and their messages, as the bot and the people see them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{BOT, Said};

/// One message. All chats number their messages together.
#[derive(Default)]
pub(super) struct Message {
    /// The user who wrote it; `None` is the bot.
    pub(super) by: Option<i64>,
    pub(super) text: String,
    pub(super) entities: Vec<Value>,
    pub(super) keyboard: Option<Value>,
    pub(super) reply_to: Option<i64>,
    /// Seconds since 1970, and so is `edited`.
    pub(super) date: u64,
    pub(super) edited: Option<u64>,
    pub(super) edits: u32,
}

#[derive(Default)]
pub(super) struct Chats {
    known: BTreeMap<i64, BTreeMap<i64, Message>>,
    last: i64,
}

impl Chats {
    pub(super) fn know(&mut self, chat: i64) {
        self.known.entry(chat).or_default();
    }

    pub(super) fn is_known(&self, chat: i64) -> bool {
        self.known.contains_key(&chat)
    }

    /// Adds a message and returns its id.
    pub(super) fn add(&mut self, chat: i64, message: Message) -> i64 {
        self.last += 1;
        self.known
            .entry(chat)
            .or_default()
            .insert(self.last, message);
        self.last
    }

    /// Adds a message that a test made by hand, as far as it is one.
    pub(super) fn learn(&mut self, object: &Value, date: u64) {
        let Some(chat) = object["chat"]["id"].as_i64() else {
            return;
        };
        self.know(chat);
        let Some(id) = object["message_id"].as_i64() else {
            return;
        };
        let message = Message {
            by: Some(object["from"]["id"].as_i64().unwrap_or(chat)),
            text: object["text"].as_str().unwrap_or_default().to_owned(),
            date: object["date"].as_u64().unwrap_or(date),
            ..Message::default()
        };
        self.known.entry(chat).or_default().insert(id, message);
        self.last = self.last.max(id);
    }

    pub(super) fn find(&self, chat: i64, id: i64) -> Option<&Message> {
        self.known.get(&chat)?.get(&id)
    }

    pub(super) fn find_mut(&mut self, chat: i64, id: i64) -> Option<&mut Message> {
        self.known.get_mut(&chat)?.get_mut(&id)
    }

    pub(super) fn remove(&mut self, chat: i64, id: i64) {
        if let Some(messages) = self.known.get_mut(&chat) {
            messages.remove(&id);
        }
    }

    /// Returns what the bot has said, as it stands now.
    pub(super) fn said(&self, chat: i64) -> Vec<Said> {
        let messages = self.known.get(&chat).into_iter().flatten();
        let of_bot = messages.filter(|(_, message)| message.by.is_none());
        of_bot
            .map(|(id, message)| Said {
                message: *id,
                text: message.text.clone(),
                reply_to: message.reply_to,
                buttons: message.keyboard.as_ref().map(buttons).unwrap_or_default(),
                edits: message.edits,
            })
            .collect()
    }

    /// Returns a message as the documentation has it: `Message`, or `InaccessibleMessage` when it is
    /// gone.
    pub(super) fn object(&self, chat: i64, id: i64) -> Value {
        let mut object = self.object_without_reply(chat, id);
        let reply_to = self.find(chat, id).and_then(|message| message.reply_to);
        // A reply inside a reply is never told.
        if let Some(reply_to) = reply_to.filter(|id| self.find(chat, *id).is_some()) {
            object["reply_to_message"] = self.object_without_reply(chat, reply_to);
        }
        object
    }

    fn object_without_reply(&self, chat: i64, id: i64) -> Value {
        let Some(message) = self.find(chat, id) else {
            return json!({ "message_id": id, "date": 0, "chat": place(chat) });
        };
        let mut object = json!({
            "message_id": id,
            "date": message.date,
            "chat": place(chat),
            "from": message.by.map_or_else(bot, person),
            "text": message.text,
        });
        if let Some(date) = message.edited {
            object["edit_date"] = date.into();
        }
        if !message.entities.is_empty() {
            object["entities"] = Value::Array(message.entities.clone());
        }
        if let Some(keyboard) = &message.keyboard {
            object["reply_markup"] = keyboard.clone();
        }
        object
    }
}

/// Returns the `Chat` with an id: a private one has that of its user, a group one below zero.
fn place(chat: i64) -> Value {
    if chat < 0 {
        json!({ "id": chat, "title": format!("Group {}", -chat), "type": "supergroup" })
    } else {
        json!({ "id": chat, "first_name": format!("User {chat}"), "type": "private" })
    }
}

/// Returns the `User` with an id.
pub(super) fn person(id: i64) -> Value {
    json!({
        "id": id,
        "is_bot": false,
        "first_name": format!("User {id}"),
        "language_code": "en",
    })
}

/// Returns the `User` that the bot is.
pub(super) fn bot() -> Value {
    json!({
        "id": BOT,
        "is_bot": true,
        "first_name": "Layer Sync",
        "username": "layer_sync_test_bot",
    })
}

/// Returns the entity of the command that a text begins with.
pub(super) fn bot_commands(text: &str) -> Vec<Value> {
    let command = text.split_whitespace().next().unwrap_or_default();
    let is_command = command.len() > 1 && text.starts_with('/') && command.is_ascii();
    let entity = json!({ "type": "bot_command", "offset": 0, "length": command.len() });
    is_command.then_some(entity).into_iter().collect()
}

fn buttons(keyboard: &Value) -> Vec<(String, String)> {
    let rows = keyboard["inline_keyboard"].as_array().into_iter().flatten();
    rows.filter_map(Value::as_array)
        .flatten()
        .filter_map(|button| {
            let text = button["text"].as_str()?;
            Some((
                text.to_owned(),
                button["callback_data"].as_str()?.to_owned(),
            ))
        })
        .collect()
}
