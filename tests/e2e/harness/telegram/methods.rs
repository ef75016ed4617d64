//! The methods of the bot, all but `getUpdates` and what writes: what each checks, does and answers.

use serde_json::{Value, json};

use super::arguments::Arguments;
use super::chats::bot;
use super::updates::QUERY_LIFE;
use super::{Moment, State};

const COMMANDS_MAX: usize = 100;
const COMMAND_MAX: usize = 32;
const COMMAND_DESCRIPTION_MAX: usize = 256;
const NOTICE_MAX: usize = 200;
const ACTIONS: [&str; 11] = [
    "typing",
    "upload_photo",
    "record_video",
    "upload_video",
    "record_voice",
    "upload_voice",
    "upload_document",
    "choose_sticker",
    "find_location",
    "record_video_note",
    "upload_video_note",
];

/// What a method has done.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) result: Value,
    /// Said beside the result by a few methods.
    pub(super) description: Option<&'static str>,
    /// The message that was made or changed.
    pub(super) message: Option<i64>,
}

impl From<Value> for Done {
    fn from(result: Value) -> Self {
        Self {
            result,
            description: None,
            message: None,
        }
    }
}

/// Why a method has done nothing.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u16,
    pub(super) description: String,
    /// Seconds.
    pub(super) retry_after: Option<u64>,
}

impl Failure {
    pub(super) fn new(code: u16, description: impl Into<String>) -> Self {
        Self {
            code,
            description: description.into(),
            retry_after: None,
        }
    }

    pub(super) fn bad_request(what: &str) -> Self {
        Self::new(400, format!("Bad Request: {what}"))
    }
}

pub(super) type Outcome = Result<Done, Failure>;
type Handler = fn(&mut State, &Arguments, Moment) -> Outcome;

pub(super) const GET_UPDATES: &str = "getUpdates";
pub(super) const SEND_MESSAGE: &str = "sendMessage";

const METHODS: [(&str, Handler); 13] = [
    ("getMe", State::get_me),
    ("getWebhookInfo", State::get_webhook_info),
    ("setWebhook", State::set_webhook),
    ("deleteWebhook", State::delete_webhook),
    (SEND_MESSAGE, State::send_message),
    ("editMessageText", State::edit_message_text),
    ("editMessageReplyMarkup", State::edit_message_reply_markup),
    ("sendMessageDraft", State::send_message_draft),
    ("deleteMessage", State::delete_message),
    ("sendChatAction", State::send_chat_action),
    ("answerCallbackQuery", State::answer_callback_query),
    ("setMyCommands", State::set_my_commands),
    ("getFile", State::get_file),
];

/// Returns the name of a method as the documentation writes it.
pub(super) fn documented(method: &str) -> Option<&'static str> {
    let names = METHODS.iter().map(|(name, _)| *name).chain([GET_UPDATES]);
    names
        .into_iter()
        .find(|name| name.eq_ignore_ascii_case(method))
}

impl State {
    /// Calls a method by its documented name.
    pub(super) fn call(&mut self, method: &str, arguments: &Arguments, now: Moment) -> Outcome {
        match METHODS.iter().find(|(name, _)| *name == method) {
            Some((_, handler)) => handler(self, arguments, now),
            None => Err(Failure::new(404, "Not Found")),
        }
    }

    /// Returns the chat that a call names.
    pub(super) fn known_chat(&self, arguments: &Arguments) -> Result<i64, Failure> {
        if arguments.text("chat_id").is_none_or(|id| id.is_empty()) {
            return Err(Failure::bad_request("chat_id is empty"));
        }
        let chat = arguments.integer("chat_id");
        chat.filter(|chat| self.chats.is_known(*chat))
            .ok_or_else(|| Failure::bad_request("chat not found"))
    }

    fn get_me(&mut self, _: &Arguments, _: Moment) -> Outcome {
        let mut me = bot();
        for (name, can) in [
            ("can_join_groups", true),
            ("can_read_all_group_messages", false),
            ("supports_inline_queries", false),
            ("can_connect_to_business", false),
            ("has_main_web_app", false),
        ] {
            me[name] = can.into();
        }
        Ok(me.into())
    }

    fn get_webhook_info(&mut self, _: &Arguments, now: Moment) -> Outcome {
        let info = json!({
            "url": self.polls.webhook(),
            "has_custom_certificate": false,
            "pending_update_count": self.updates.pending(now.at),
        });
        Ok(info.into())
    }

    fn set_webhook(&mut self, arguments: &Arguments, now: Moment) -> Outcome {
        let url = arguments.text("url").unwrap_or_default();
        if !url.is_empty() && !url.starts_with("https://") {
            return Err(Failure::bad_request(
                "bad webhook: An HTTPS URL must be provided for webhook",
            ));
        }
        if let Some(kinds) = arguments.structure("allowed_updates") {
            self.updates.allow(&kinds);
        }
        Ok(self.replace_webhook(&url, arguments, now))
    }

    fn delete_webhook(&mut self, arguments: &Arguments, now: Moment) -> Outcome {
        Ok(self.replace_webhook("", arguments, now))
    }

    fn replace_webhook(&mut self, url: &str, arguments: &Arguments, now: Moment) -> Done {
        let drops = arguments.flag("drop_pending_updates");
        if drops {
            self.updates.keep_last(0, now.at);
        }
        let is_same = self.polls.webhook() == url && !drops;
        self.polls.set_webhook(url, now.at);
        let description = match (is_same, url.is_empty()) {
            (true, true) => "Webhook is already deleted",
            (true, false) => "Webhook is already set",
            (false, true) => "Webhook was deleted",
            (false, false) => "Webhook was set",
        };
        Done {
            description: Some(description),
            ..Value::Bool(true).into()
        }
    }

    fn send_chat_action(&mut self, arguments: &Arguments, _: Moment) -> Outcome {
        let action = arguments.text("action").unwrap_or_default();
        if !ACTIONS.contains(&&*action) {
            return Err(Failure::bad_request("wrong parameter action in request"));
        }
        self.known_chat(arguments)?;
        Ok(Value::Bool(true).into())
    }

    fn answer_callback_query(&mut self, arguments: &Arguments, now: Moment) -> Outcome {
        let id = arguments.text("callback_query_id").unwrap_or_default();
        let pressed = self.queries.get(&id);
        if pressed.is_none_or(|pressed| now.at >= *pressed + QUERY_LIFE) {
            return Err(Failure::bad_request(
                "query is too old and response timeout expired or query ID is invalid",
            ));
        }
        let notice = arguments.text("text").unwrap_or_default();
        if notice.chars().count() > NOTICE_MAX {
            return Err(Failure::bad_request("MESSAGE_TOO_LONG"));
        }
        Ok(Value::Bool(true).into())
    }

    fn set_my_commands(&mut self, arguments: &Arguments, _: Moment) -> Outcome {
        let Some(Value::Array(commands)) = arguments.structure("commands") else {
            return Err(Failure::bad_request(
                "can't parse BotCommand: Expected an Array of BotCommand",
            ));
        };
        if commands.len() > COMMANDS_MAX {
            return Err(Failure::bad_request("BOT_COMMANDS_TOO_MUCH"));
        }
        for command in &commands {
            let name = command["command"].as_str().unwrap_or_default();
            let is_name = |next: char| next.is_ascii_lowercase() || next.is_ascii_digit();
            let fits = (1..=COMMAND_MAX).contains(&name.len());
            if !fits || !name.chars().all(|next| is_name(next) || next == '_') {
                return Err(Failure::bad_request("BOT_COMMAND_INVALID"));
            }
            let description = command["description"].as_str().unwrap_or_default();
            if !(1..=COMMAND_DESCRIPTION_MAX).contains(&description.chars().count()) {
                return Err(Failure::bad_request("BOT_COMMAND_DESCRIPTION_INVALID"));
            }
        }
        Ok(Value::Bool(true).into())
    }

    fn get_file(&mut self, _: &Arguments, _: Moment) -> Outcome {
        // Nobody sends files here.
        Err(Failure::bad_request(
            "wrong file_id or the file is temporarily unavailable",
        ))
    }
}
