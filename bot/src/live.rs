//! Words that change while they are worked out: a draft in a private chat, which leaves nothing behind when a node dies; elsewhere a
//! message that is edited.

use std::time::Duration;

use frankenstein::methods::{EditMessageTextParams, SendMessageDraftParams, SendMessageParams};
use frankenstein::types::ChatId;
use shared::lease::Moment;

use crate::port::Leave;
use crate::telegram::{Sent, TelegramError};
use crate::term::{EFFECT_TIMEOUT, Term};

/// How often a draft changes. It is gone after 30 s without.
const DRAFT_EVERY: Duration = Duration::from_millis(500);
/// How often a message is edited. More often, and Telegram asks for a pause of minutes.
const EDIT_EVERY: Duration = Duration::from_millis(3500);

/// Words in one chat that are not final. What is shown may be left out, and nobody waits for it.
pub(crate) struct Live<'a> {
    term: &'a Term,
    chat: i64,
    draft: Option<i32>,
    /// The message that is edited, once it is there.
    pub(crate) message: Option<i64>,
    shown: Option<(Moment, String)>,
}

impl<'a> Live<'a> {
    /// Begins; nothing is shown yet. `number` is another one for each of the words of a chat.
    pub(crate) fn begin(term: &'a Term, chat: i64, private: bool, number: i64) -> Self {
        Self {
            term,
            chat,
            draft: private.then_some((number & 0x3fff_ffff) as i32 | 1),
            message: None,
            shown: None,
        }
    }

    /// Shows this, if it is time for it and Telegram takes it.
    pub(crate) async fn show(&mut self, text: &str) {
        let now = self.term.port.now();
        let every = if self.draft.is_some() {
            DRAFT_EVERY
        } else {
            EDIT_EVERY
        };
        if let Some((at, shown)) = &self.shown
            && (shown == text || now < at.after(every))
        {
            return;
        }
        // It is worth no wait.
        let Some(leave) = Leave::get(&self.term.port, EFFECT_TIMEOUT) else {
            return;
        };
        self.shown = Some((now, text.to_owned()));
        if let Some(draft) = self.draft {
            let params = SendMessageDraftParams::builder()
                .chat_id(self.chat)
                .draft_id(draft)
                .text(text)
                .build();
            let _: Result<bool, TelegramError> = self
                .term
                .telegram
                .call(&leave, "sendMessageDraft", &params)
                .await;
            return;
        }
        if self.term.pace().next(self.chat, now) > now {
            return;
        }
        self.term.pace().take(self.chat, now);
        match self.message.and_then(|message| i32::try_from(message).ok()) {
            Some(message) => {
                let params = EditMessageTextParams::builder()
                    .chat_id(ChatId::Integer(self.chat))
                    .message_id(message)
                    .text(text)
                    .build();
                let _: Result<Sent, TelegramError> = self
                    .term
                    .telegram
                    .call(&leave, "editMessageText", &params)
                    .await;
            }
            None => {
                let params = SendMessageParams::builder()
                    .chat_id(self.chat)
                    .text(text)
                    .build();
                let sent: Result<Sent, TelegramError> = self
                    .term
                    .telegram
                    .call(&leave, "sendMessage", &params)
                    .await;
                self.message = sent.ok().map(|sent| sent.message_id);
            }
        }
    }
}
