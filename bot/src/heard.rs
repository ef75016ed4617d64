//! What arrives: updates of Telegram, decoded one by one, so that one that nobody understands holds up no other.

use frankenstein::types::{ChatType, MaybeInaccessibleMessage};
use frankenstein::updates::{Update, UpdateContent};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::text::head;

/// Most characters of a text that are kept. Telegram sends at most 4,096.
const TEXT_CHARS_MAX: usize = 8192;
/// Most characters of a name that are kept.
const NAME_CHARS_MAX: usize = 64;
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

/// Reads an update that was sent to the bot of that number.
pub(crate) fn read(bot: u64, raw: &Value) -> Read {
    let update: Update = match serde_json::from_value(raw.clone()) {
        Ok(update) => update,
        Err(error) => {
            let mut text = raw.to_string();
            let end = (0..=RAW_BYTES_MAX.min(text.len()))
                .rev()
                .find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
            return Read::Strange {
                update: raw.get("update_id").and_then(Value::as_i64),
                why: head(&error.to_string(), 200),
                raw: text,
            };
        }
    };
    let number = i64::from(update.update_id);
    let heard = match update.content {
        UpdateContent::Message(message) => written(bot, number, &message, 0),
        UpdateContent::EditedMessage(message) => {
            let edit = message.edit_date.unwrap_or_default();
            written(bot, number, &message, edit)
        }
        UpdateContent::CallbackQuery(query) => {
            let message = query.message.as_ref().map(|message| match message {
                MaybeInaccessibleMessage::Message(it) => (&*it.chat, it.message_id),
                MaybeInaccessibleMessage::InaccessibleMessage(it) => (&it.chat, it.message_id),
            });
            message.map(|(chat, message)| Heard {
                key: format!("{bot}:p:{}", query.id),
                update: number,
                chat: chat.id,
                private: chat.type_field == ChatType::Private,
                from: query.from.id as i64,
                name: head(&query.from.first_name, NAME_CHARS_MAX),
                message: i64::from(message),
                text: String::new(),
                press: Some(Press {
                    id: query.id.clone(),
                    data: head(&query.data.clone().unwrap_or_default(), 64),
                }),
            })
        }
        _ => None,
    };
    heard.map_or(Read::Other(number), Read::Heard)
}

fn written(
    bot: u64,
    update: i64,
    message: &frankenstein::types::Message,
    edit: u64,
) -> Option<Heard> {
    let from = message.from.as_ref().filter(|from| !from.is_bot)?;
    let (chat, id) = (message.chat.id, message.message_id);
    let text = message.text.as_deref().or(message.caption.as_deref());
    Some(Heard {
        key: format!("{bot}:m:{chat}:{id}:{edit}"),
        update,
        chat,
        private: message.chat.type_field == ChatType::Private,
        from: from.id as i64,
        name: head(&from.first_name, NAME_CHARS_MAX),
        message: i64::from(id),
        text: head(text.unwrap_or_default(), TEXT_CHARS_MAX),
        press: None,
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
    fn bots_and_polls_are_nobody() {
        let mut said = message("/status");
        said["from"]["is_bot"] = json!(true);
        assert_eq!(
            read(7, &json!({"update_id": 6, "message": said})),
            Read::Other(6)
        );
    }
}
