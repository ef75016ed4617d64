//! `getUpdates`: who waits, and who is told that there is another.
//!
//! One long poll waits at a time. A second one that finds updates takes them and leaves the first
//! waiting; only one that would wait too ends the first with 409. So a 409 tells of another poller, and
//! never keeps it out.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::arguments::Arguments;
use super::updates::Updates;

const TIMEOUT_SECONDS_MAX: i64 = 50;
const LIMIT_MAX: i64 = 100;
/// A poll with the same offset waits at least so long after the one before.
const REPEAT_SECONDS: i64 = 3;
const REPEAT: Duration = Duration::from_secs(3);
/// A poll with the same offset so soon gets one update only.
const REPEAT_AT_ONCE: Duration = Duration::from_millis(500);
/// After a 409, others are held back for so long.
const CONFLICT_HELD: Duration = Duration::from_secs(3);

const OTHER_POLL: &str = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running";
const OTHER_WEBHOOK: &str = "Conflict: terminated by setWebhook request";
const WEBHOOK_ACTIVE: &str = "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first";

/// How it stands with a call.
pub(super) enum Turn {
    Deliver(Vec<Value>),
    Conflict(&'static str),
    /// Look again after any change, and at this time.
    Wait(Instant),
}

struct Poll {
    call: usize,
    offset: i64,
    limit: usize,
    until: Instant,
}

struct Refused {
    text: &'static str,
    at: Instant,
}

#[derive(Default)]
pub(super) struct Polls {
    waiting: Option<Poll>,
    /// Calls that get a 409, some of them later.
    refused: HashMap<usize, Refused>,
    next_conflict: Option<Instant>,
    previous: Option<(i64, Instant)>,
    webhook: String,
}

impl Polls {
    /// Takes a `getUpdates`, which has updates at once or waits for its turn. No two calls have the same
    /// number.
    pub(super) fn begin(
        &mut self,
        call: usize,
        arguments: &Arguments,
        updates: &mut Updates,
        now: Instant,
    ) -> Turn {
        if !self.webhook.is_empty() {
            return Turn::Wait(self.refuse(call, WEBHOOK_ACTIVE, now));
        }
        let number = |name: &str, default: i64, least: i64, most: i64| {
            let given = arguments.integer(name).unwrap_or(default);
            given.clamp(least, most)
        };
        let offset = number("offset", 0, i32::MIN.into(), i32::MAX.into());
        let mut limit = number("limit", LIMIT_MAX, 1, LIMIT_MAX);
        let mut timeout = number("timeout", 0, 0, TIMEOUT_SECONDS_MAX);
        if let Some(kinds) = arguments.structure("allowed_updates") {
            updates.allow(&kinds);
        }

        if let Some((_, at)) = self.previous.filter(|(before, _)| *before == offset) {
            if now < at + REPEAT {
                timeout = timeout.max(REPEAT_SECONDS);
            }
            if now < at + REPEAT_AT_ONCE {
                limit = 1;
            }
        }
        self.previous = Some((offset, now));

        if offset < 0 {
            updates.keep_last(offset.unsigned_abs() as usize, now);
        }
        let offset = if offset > 0 {
            offset
        } else {
            updates.head(now)
        };
        let found = updates.read(offset, limit as usize, now);
        if !found.is_empty() || timeout == 0 {
            return Turn::Deliver(found);
        }
        self.abort(OTHER_POLL, now);
        let until = now + Duration::from_secs(timeout.unsigned_abs());
        self.waiting = Some(Poll {
            call,
            offset,
            limit: limit as usize,
            until,
        });
        Turn::Wait(until)
    }

    /// Looks whether a call that waits is over; `None` when it was forgotten.
    pub(super) fn look(
        &mut self,
        call: usize,
        updates: &mut Updates,
        now: Instant,
    ) -> Option<Turn> {
        if let Some(Refused { text, at }) = self.refused.get(&call) {
            if now < *at {
                return Some(Turn::Wait(*at));
            }
            let text = *text;
            self.refused.remove(&call);
            return Some(Turn::Conflict(text));
        }
        let poll = self.waiting.take_if(|poll| poll.call == call)?;
        let found = updates.read(poll.offset, poll.limit, now);
        if !found.is_empty() || now >= poll.until {
            return Some(Turn::Deliver(found));
        }
        Some(Turn::Wait(self.waiting.insert(poll).until))
    }

    /// Forgets a call whose client is gone.
    pub(super) fn hang_up(&mut self, call: usize) {
        self.waiting.take_if(|poll| poll.call == call);
        self.refused.remove(&call);
    }

    /// Forgets all calls, whose clients still wait.
    pub(super) fn forget_all(&mut self) {
        self.waiting = None;
        self.refused.clear();
    }

    pub(super) fn webhook(&self) -> &str {
        &self.webhook
    }

    /// Sets the webhook, or deletes it when `url` is empty.
    pub(super) fn set_webhook(&mut self, url: &str, now: Instant) {
        if !url.is_empty() {
            self.abort(OTHER_WEBHOOK, now);
        }
        url.clone_into(&mut self.webhook);
    }

    fn abort(&mut self, text: &'static str, now: Instant) {
        if let Some(poll) = self.waiting.take() {
            self.refuse(poll.call, text, now);
        }
    }

    /// Gives a call its 409, and returns when it may hear of it.
    fn refuse(&mut self, call: usize, text: &'static str, now: Instant) -> Instant {
        let at = if self.next_conflict.is_some_and(|next| now < next) {
            now + CONFLICT_HELD
        } else {
            self.next_conflict = Some(now + CONFLICT_HELD);
            now
        };
        self.refused.insert(call, Refused { text, at });
        at
    }
}
