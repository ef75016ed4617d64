//! The queue of updates: what the bot wants, what it has confirmed, what is too old.
//!
//! An update waits until an offset above it is asked for, or until it expires. Delivering it does not
//! remove it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long an update waits for the bot.
pub(super) const UPDATE_LIFE: Duration = Duration::from_secs(86_400);
/// How long a pressed button waits for the bot, and then for an answer.
pub(super) const QUERY_LIFE: Duration = Duration::from_secs(150);
/// After so long without an update, the next one may have any id.
const SEQUENCE_LIFE: Duration = Duration::from_secs(7 * 86_400);
/// An offset may be so far above the next id and still confirm everything.
const OFFSET_AHEAD_MAX: i64 = 10;
const FIRST_ID: i64 = 500_000_001;

/// Kinds that the bot gets when it does not say what it wants.
const KINDS: [&str; 23] = [
    "message",
    "edited_message",
    "channel_post",
    "edited_channel_post",
    "business_connection",
    "business_message",
    "edited_business_message",
    "deleted_business_messages",
    "guest_message",
    "inline_query",
    "chosen_inline_result",
    "callback_query",
    "shipping_query",
    "pre_checkout_query",
    "purchased_paid_media",
    "poll",
    "poll_answer",
    "my_chat_member",
    "chat_join_request",
    "chat_boost",
    "removed_chat_boost",
    "managed_bot",
    "stopped_message_generation",
];
/// Kinds that must be asked for.
const KINDS_ON_REQUEST: [&str; 3] = ["chat_member", "message_reaction", "message_reaction_count"];

struct Update {
    id: i64,
    expires: Instant,
    value: Value,
}

pub(super) struct Updates {
    waiting: VecDeque<Update>,
    /// Id of the next update.
    next: i64,
    last_at: Option<Instant>,
    allowed: Vec<&'static str>,
}

impl Default for Updates {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            next: FIRST_ID,
            last_at: None,
            allowed: KINDS.to_vec(),
        }
    }
}

impl Updates {
    /// Queues an update, unless it is of a kind that the bot does not want.
    pub(super) fn push(&mut self, mut value: Value, life: Duration, now: Instant) -> Option<i64> {
        let object = value.as_object_mut()?;
        let unwanted = object
            .keys()
            .any(|kind| is_documented(kind) && !self.allowed.contains(&&**kind));
        if unwanted {
            return None;
        }
        let idle = self.last_at.is_some_and(|at| now >= at + SEQUENCE_LIFE);
        if idle {
            // As good as random, and the same in each run.
            self.next = self.next * 48_271 % 2_147_483_647;
        }
        self.last_at = Some(now);
        let id = self.next;
        self.next += 1;
        object.insert("update_id".to_owned(), id.into());
        self.waiting.push_back(Update {
            id,
            expires: now + life,
            value,
        });
        Some(id)
    }

    /// Remembers which kinds the bot wants. Kinds that are not documented are skipped; a list without
    /// any other means the default, and no list at all changes nothing.
    pub(super) fn allow(&mut self, kinds: &Value) {
        let Some(kinds) = kinds.as_array() else {
            return;
        };
        let Some(kinds): Option<Vec<&str>> = kinds.iter().map(Value::as_str).collect() else {
            return;
        };
        let wanted = |kind: &&str| kinds.iter().any(|name| name.eq_ignore_ascii_case(kind));
        let all = KINDS.into_iter().chain(KINDS_ON_REQUEST);
        self.allowed = all.filter(wanted).collect();
        if self.allowed.is_empty() {
            self.allowed = KINDS.to_vec();
        }
    }

    /// Returns the id of the oldest update, or of the next one.
    pub(super) fn head(&mut self, now: Instant) -> i64 {
        self.expire(now);
        self.waiting.front().map_or(self.next, |update| update.id)
    }

    /// Forgets all but the newest updates.
    pub(super) fn keep_last(&mut self, count: usize, now: Instant) {
        self.expire(now);
        let forgotten = self.waiting.len().saturating_sub(count);
        self.waiting.drain(..forgotten);
    }

    /// Forgets everything below `offset` and returns the oldest of the rest. An offset far beyond the
    /// queue is one of another time: it confirms nothing.
    pub(super) fn read(&mut self, offset: i64, limit: usize, now: Instant) -> Vec<Value> {
        self.expire(now);
        if offset <= self.next + OFFSET_AHEAD_MAX {
            let known = self.waiting.partition_point(|update| update.id < offset);
            self.waiting.drain(..known);
        }
        let oldest = self.waiting.iter().take(limit);
        oldest.map(|update| update.value.clone()).collect()
    }

    pub(super) fn pending(&mut self, now: Instant) -> usize {
        self.expire(now);
        self.waiting.len()
    }

    fn expire(&mut self, now: Instant) {
        self.waiting.retain(|update| now < update.expires);
    }
}

fn is_documented(kind: &str) -> bool {
    KINDS.contains(&kind) || KINDS_ON_REQUEST.contains(&kind)
}
