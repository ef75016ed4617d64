//! How much the bot may send: over all chats, in one chat, in one group. Edits count as sends.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

const ALL_MAX: usize = 30;
const ALL_WINDOW: Duration = Duration::from_secs(1);
/// In one chat, one each so long.
const CHAT_EVERY: Duration = Duration::from_secs(1);
const CHAT_BURST: u32 = 5;
const GROUP_MAX: usize = 20;
const GROUP_WINDOW: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Limits {
    /// Sends within the window.
    all: VecDeque<Instant>,
    groups: HashMap<i64, VecDeque<Instant>>,
    /// When each chat may have a whole burst again.
    rested: HashMap<i64, Instant>,
    /// Chats in which the bot was told to wait.
    closed: HashMap<i64, Instant>,
    breaks: usize,
}

impl Limits {
    /// Counts a send.
    /// # Errors
    /// The time to wait, when it is one too many; it is then not counted as a send.
    pub(super) fn admit(&mut self, chat: i64, now: Instant) -> Result<(), Duration> {
        let rested = self
            .rested
            .get(&chat)
            .map_or(now, |rested| (*rested).max(now))
            + CHAT_EVERY;
        let tired = rested
            .duration_since(now)
            .saturating_sub(CHAT_EVERY * CHAT_BURST);
        let mut wait = tired.max(crowded(&mut self.all, ALL_MAX, ALL_WINDOW, now));
        if chat < 0 {
            let group = self.groups.entry(chat).or_default();
            wait = wait.max(crowded(group, GROUP_MAX, GROUP_WINDOW, now));
        }
        if !wait.is_zero() {
            self.breaks += 1;
            return Err(wait);
        }
        self.rested.insert(chat, rested);
        self.all.push_back(now);
        if let Some(group) = self.groups.get_mut(&chat) {
            group.push_back(now);
        }
        Ok(())
    }

    /// Tells the bot to wait in a chat.
    pub(super) fn close(&mut self, chat: i64, until: Instant) {
        self.closed.insert(chat, until);
    }

    /// Returns the rest of the wait that the bot was told; zero when it is over.
    pub(super) fn closed(&self, chat: i64, now: Instant) -> Duration {
        let until = self.closed.get(&chat).copied().unwrap_or(now);
        until.saturating_duration_since(now)
    }

    pub(super) fn open_all(&mut self) {
        self.closed.clear();
    }

    pub(super) fn breaks(&self) -> usize {
        self.breaks
    }
}

/// Returns how long a window with room for `most` is full.
fn crowded(sends: &mut VecDeque<Instant>, most: usize, window: Duration, now: Instant) -> Duration {
    while sends.pop_front_if(|at| *at + window <= now).is_some() {}
    match sends.front() {
        Some(first) if sends.len() >= most => (*first + window).duration_since(now),
        _ => Duration::ZERO,
    }
}
