//! What is asked of a bot and said about it.

use serde::{Deserialize, Serialize};

use crate::utc::UtcMs;

/// The bot, as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BotStatus {
    /// In one word.
    pub state: BotState,
    /// Messages that were received and are not answered yet, by either node.
    pub inbox: u64,
    /// Messages that are to be sent.
    pub outbox: u64,
    /// When something was received last, on the clock of the node that received it.
    pub last_update: Option<UtcMs>,
    /// How often somebody else was found to poll with the same token, since the start.
    pub rivals: u64,
    /// Messages that may have been sent twice, because nobody knows whether the first try arrived.
    pub doubtful: u64,
    /// Updates that could not be read, and were put aside.
    pub quarantined: u64,
    /// Whether an owner is paired.
    pub owner: bool,
}

/// The state of the bot in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BotState {
    /// The other node's bot is at work, or nobody's.
    #[default]
    NotPrimary,
    /// It begins.
    Starting,
    /// It hears and speaks.
    Polling,
    /// Somebody else polls with the same token.
    Conflict,
    /// Somebody has set a webhook, so nothing can be polled.
    Webhook,
    /// Telegram asks for less.
    Throttled,
    /// The token is wrong or revoked.
    Unauthorised,
    /// Telegram cannot be reached.
    Unreachable,
    /// What arrives cannot be made durable, so nothing is taken.
    Unwritable,
}

/// What can be done about the bot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BotAct {
    /// Make a one-time code; whoever sends it to the bot is its owner.
    Pair,
    /// Let this person ask, and change nothing.
    Allow(i64),
    /// Do not listen to this person any more.
    Deny(i64),
    /// Who may speak with it?
    People,
    /// Send a text to the owner.
    Send(String),
}

/// Somebody who may speak with the bot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Their number at Telegram. Names can change hands; numbers do not.
    pub user: i64,
    /// The name that they had there.
    pub name: String,
    /// Whether they may also change something.
    pub owner: bool,
}
