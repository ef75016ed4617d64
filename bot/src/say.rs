//! Something that is to be said in a chat: it waits, is sent, and is known by its name on both nodes.

use serde::{Deserialize, Serialize};
use shared::control::NodeSide;
use shared::hash::ContentHash;
use shared::path::RelPath;

use crate::text::Body;

/// Digits of the key that stands behind a button; Telegram takes 64 bytes there.
const KEY_DIGITS: usize = 16;

/// One message that is to be sent, or to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Say {
    /// Its name, the same on both nodes.
    pub(crate) id: String,
    /// Where.
    pub(crate) chat: i64,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reply: Option<i64>,
    /// What was asked, for an answer that travels in one message with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) about: Option<String>,
    /// The message that it takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) edit: Option<i64>,
    /// The words.
    pub(crate) body: Body,
    /// What can be pressed below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) buttons: Vec<Button>,
}

impl Say {
    pub(crate) fn new(id: String, chat: i64, body: Body) -> Self {
        Self {
            id,
            chat,
            reply: None,
            about: None,
            edit: None,
            body,
            buttons: Vec::new(),
        }
    }

    /// Returns what stands behind a button of it.
    pub(crate) fn key(&self, button: usize) -> String {
        let mut key = ContentHash::of_bytes(format!("{}/{button}", self.id).as_bytes()).to_string();
        key.truncate(KEY_DIGITS);
        key
    }
}

/// Something that the owner can press.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Button {
    pub(crate) text: String,
    pub(crate) act: Act,
}

/// What a button does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Act {
    /// Decide a conflict: this side's version counts, or both.
    Resolve {
        path: RelPath,
        keep: Option<NodeSide>,
    },
    /// Let a batch pass, or bring back what it would displace.
    Confirm { batch: String, undo: bool },
    /// Start a duty again on the node of that name.
    Restart { node: String, duty: String },
}
