//! What arrives: updates of Telegram, decoded one by one, so that one that nobody understands holds up no other.
//!
//! Only what is needed is read. Telegram adds kinds and fields every month, and a new sort of mark in a text is no reason not to hear
//! the text; `frankenstein`'s types, which are complete, would refuse it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::text::head;

/// Most characters of a text that are kept. Telegram sends at most 4,096.
const TEXT_CHARS_MAX: usize = 8192;
/// Most characters of a name that are kept.
const NAME_CHARS_MAX: usize = 64;
/// Most characters that stand behind a button.
const DATA_CHARS_MAX: usize = 64;
/// Most characters of a reason.
const WHY_CHARS_MAX: usize = 200;
/// Most bytes that are kept of an update that cannot be read.
const RAW_BYTES_MAX: usize = 1024;

/// Something that somebody wrote or pressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heard {
    /// What it is known by: bot, kind, chat, message and edit, or the press. Numbers of updates begin anew after a quiet week,
    /// so they are not enough.
    pub(crate) key: String,
    /// Number of the update.
    pub(crate) update: i64,
    pub(crate) chat: i64,
    /// Whether nobody else is in that chat.
    pub(crate) private: bool,
    /// Number of the person.
    pub(crate) from: i64,
    /// The name that they give themselves.
    pub(crate) name: String,
    /// The message that was written, or below which a button was pressed.
    pub(crate) message: i64,
    pub(crate) text: String,
    /// The press of a button: its number, and what stood behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) press: Option<Press>,
}

/// The press of a button.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Press {
    pub(crate) id: String,
    pub(crate) data: String,
}

/// An update, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    /// Somebody wrote or pressed something.
    Heard(Heard),
    /// Nothing that the bot has to do with.
    Other(i64),
    /// It cannot be read. Its number is there when even that could be.
    Strange {
        update: Option<i64>,
        why: String,
        raw: String,
    },
}

#[derive(Deserialize)]
struct Update {
    update_id: i64,
    message: Option<Message>,
    edited_message: Option<Message>,
    callback_query: Option<Query>,
}

#[derive(Deserialize)]
struct Message {
    message_id: i64,
    chat: Chat,
    from: Option<User>,
    text: Option<String>,
    caption: Option<String>,
    edit_date: Option<u64>,
}

#[derive(Deserialize)]
struct Chat {
    id: i64,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct User {
    id: i64,
    #[serde(default)]
    is_bot: bool,
    #[serde(default)]
    first_name: String,
}

#[derive(Deserialize)]
struct Query {
    id: String,
    from: User,
    message: Option<Message>,
    data: Option<String>,
}

impl Chat {
    fn is_private(&self) -> bool {
        self.kind == "private"
    }
}

/// Reads an update that was sent to the bot of that number.
pub(crate) fn read(bot: u64, raw: &Value) -> Read {
    match Update::deserialize(raw) {
        Ok(Update {
            update_id,
            message: Some(message),
            ..
        }) => written(bot, update_id, message, 0),
        Ok(Update {
            update_id,
            edited_message: Some(message),
            ..
        }) => {
            let edit = message.edit_date.unwrap_or_default();
            written(bot, update_id, message, edit)
        }
        Ok(Update {
            update_id,
            callback_query: Some(query),
            ..
        }) => pressed(bot, update_id, query),
        Ok(Update { update_id, .. }) => {
            strange(Some(update_id), "a kind that was not asked for", raw)
        }
        Err(error) => strange(
            raw.get("update_id").and_then(Value::as_i64),
            &error.to_string(),
            raw,
        ),
    }
}

fn strange(update: Option<i64>, why: &str, raw: &Value) -> Read {
    let mut raw = raw.to_string();
    raw.truncate(raw.floor_char_boundary(RAW_BYTES_MAX));
    let why = head(why, WHY_CHARS_MAX);
    Read::Strange { update, why, raw }
}

fn written(bot: u64, update: i64, message: Message, edit: u64) -> Read {
    let Some(from) = message.from.filter(|from| !from.is_bot) else {
        return Read::Other(update);
    };
    let (chat, id) = (message.chat.id, message.message_id);
    let text = message.text.or(message.caption).unwrap_or_default();
    Read::Heard(Heard {
        key: format!("{bot}:m:{chat}:{id}:{edit}"),
        update,
        chat,
        private: message.chat.is_private(),
        from: from.id,
        name: head(&from.first_name, NAME_CHARS_MAX),
        message: id,
        text: head(&text, TEXT_CHARS_MAX),
        press: None,
    })
}

fn pressed(bot: u64, update: i64, query: Query) -> Read {
    let Some(message) = query.message else {
        return Read::Other(update);
    };
    Read::Heard(Heard {
        key: format!("{bot}:p:{}", query.id),
        update,
        chat: message.chat.id,
        private: message.chat.is_private(),
        from: query.from.id,
        name: head(&query.from.first_name, NAME_CHARS_MAX),
        message: message.message_id,
        text: String::new(),
        press: Some(Press {
            id: query.id,
            data: head(&query.data.unwrap_or_default(), DATA_CHARS_MAX),
        }),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(text: &str) -> Value {
        json!({
            "message_id": 5, "date": 1_795_382_045, "text": text,
            "chat": {"id": 11, "type": "private", "first_name": "Ada"},
            "from": {"id": 11, "is_bot": false, "first_name": "Ada"},
        })
    }

    #[test]
    fn a_message() {
        let Read::Heard(heard) = read(7, &json!({"update_id": 1, "message": message("/status")}))
        else {
            panic!("it is heard");
        };
        assert_eq!(
            (heard.key.as_str(), heard.from, heard.private),
            ("7:m:11:5:0", 11, true)
        );
        assert_eq!(
            (heard.text.as_str(), heard.name.as_str()),
            ("/status", "Ada")
        );
    }

    #[test]
    fn an_edit_is_another_thing_each_time() {
        let mut edited = message("/sync");
        edited["edit_date"] = json!(1_795_382_099);
        let Read::Heard(heard) = read(7, &json!({"update_id": 2, "edited_message": edited})) else {
            panic!("it is heard");
        };
        assert_eq!(heard.key, "7:m:11:5:1795382099");
    }

    #[test]
    fn a_press() {
        let query = json!({
            "id": "99", "chat_instance": "1", "data": "abcd",
            "from": {"id": 11, "is_bot": false, "first_name": "Ada"},
            "message": message("which?"),
        });
        let Read::Heard(heard) = read(7, &json!({"update_id": 3, "callback_query": query})) else {
            panic!("it is heard");
        };
        assert_eq!(heard.key, "7:p:99");
        assert_eq!(heard.press.map(|press| press.data).as_deref(), Some("abcd"));
    }

    #[test]
    fn what_nobody_knows_is_put_aside_with_its_number() {
        for raw in [
            json!({"update_id": 4, "thought": {"about": "tea"}}),
            json!({"update_id": 4, "message": {"message_id": "five"}}),
        ] {
            let Read::Strange { update, why, raw } = read(7, &raw) else {
                panic!("it is strange");
            };
            assert_eq!(update, Some(4));
            assert!(!why.is_empty() && raw.contains("update_id"));
        }
    }

    #[test]
    fn five_megabytes_are_cut() {
        let long = message(&"글".repeat(5 << 20));
        let Read::Heard(heard) = read(7, &json!({"update_id": 5, "message": long})) else {
            panic!("it is heard");
        };
        assert_eq!(heard.text.chars().count(), TEXT_CHARS_MAX + 1);
        let strange = json!({"update_id": 6, "message": 1, "text": "글".repeat(5 << 20)});
        let Read::Strange { raw, .. } = read(7, &strange) else {
            panic!("it is strange");
        };
        assert!(raw.len() <= RAW_BYTES_MAX);
    }

    #[test]
    fn what_telegram_adds_is_no_reason_not_to_hear() {
        let mut said = message("/status");
        said["entities"] = json!([{"type": "hologram", "offset": 0, "length": 7}]);
        said["mood"] = json!({"of": ["the", "day"]});
        said["chat"]["type"] = json!("parlour");
        let Read::Heard(heard) = read(7, &json!({"update_id": 7, "message": said})) else {
            panic!("it is heard");
        };
        assert_eq!((heard.text.as_str(), heard.private), ("/status", false));
    }

    #[test]
    fn bots_and_polls_are_nobody() {
        let mut said = message("/status");
        said["from"]["is_bot"] = json!(true);
        assert_eq!(
            read(7, &json!({"update_id": 6, "message": said})),
            Read::Other(6)
        );
    }
}
