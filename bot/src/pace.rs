//! How fast the bot may speak: the limits of Telegram, kept before it has to say so.
//!
//! Token buckets, with the time as an argument. Two nodes share the limits of one bot, so a node that begins has little in its buckets.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::lease::Moment;

/// Messages in a second over all chats; Telegram takes 30.
const ALL: Rate = Rate {
    every: Duration::from_millis(40),
    burst: 25,
};
/// Messages in a second in one chat; changes of a message count.
const CHAT: Rate = Rate {
    every: Duration::from_secs(1),
    burst: 3,
};
/// Messages in a group or channel: 18 a minute; Telegram takes 20.
const GROUP: Rate = Rate {
    every: Duration::from_millis(3334),
    burst: 2,
};
/// Chats that are remembered. One that is forgotten was silent for long.
const CHATS_MAX: usize = 1024;

struct Rate {
    every: Duration,
    burst: u32,
}

/// One bucket, as the moment at which it is full again.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    full_at: Moment,
}

impl Bucket {
    /// A bucket with room for one.
    fn low(rate: &Rate, now: Moment) -> Self {
        Self {
            full_at: now.after(rate.every * (rate.burst - 1)),
        }
    }

    /// Returns when the next one may go.
    fn next(&self, rate: &Rate, now: Moment) -> Moment {
        let owed = self.full_at.left(now);
        let room = rate.every * (rate.burst - 1);
        now.after(owed.saturating_sub(room))
    }

    fn take(&mut self, rate: &Rate, now: Moment) {
        self.full_at = self.full_at.max(now).after(rate.every);
    }
}

/// The pace of one bot.
#[derive(Debug)]
pub(crate) struct Pace {
    all: Bucket,
    chats: BTreeMap<i64, Bucket>,
    /// Until when Telegram wants nothing in a chat.
    held: BTreeMap<i64, Moment>,
}

impl Pace {
    pub(crate) fn start(now: Moment) -> Self {
        Self {
            all: Bucket::low(&ALL, now),
            chats: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// Returns when the next message may go to a chat.
    pub(crate) fn next(&self, chat: i64, now: Moment) -> Moment {
        let rate = rate(chat);
        let bucket = self.chats.get(&chat).copied();
        let own = bucket
            .unwrap_or_else(|| Bucket::low(rate, now))
            .next(rate, now);
        let held = self.held.get(&chat).copied().unwrap_or_default();
        own.max(held).max(self.all.next(&ALL, now))
    }

    /// Notes that one goes.
    pub(crate) fn take(&mut self, chat: i64, now: Moment) {
        self.all.take(&ALL, now);
        let rate = rate(chat);
        let bucket = self.chats.entry(chat);
        bucket
            .or_insert_with(|| Bucket::low(rate, now))
            .take(rate, now);
        self.held.retain(|_, until| *until > now);
        if self.chats.len() > CHATS_MAX {
            self.chats.retain(|_, bucket| bucket.full_at > now);
        }
    }

    /// Telegram wants nothing in that chat until then.
    pub(crate) fn hold(&mut self, chat: i64, until: Moment) {
        self.held.insert(chat, until);
    }
}

/// Groups and channels have numbers below zero.
fn rate(chat: i64) -> &'static Rate {
    if chat < 0 { &GROUP } else { &CHAT }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment(Duration::from_millis(millis))
    }

    /// Returns when each of `count` messages goes, one after the other, to the chats in turn.
    fn goes(chats: &[i64], count: usize) -> Vec<u64> {
        let mut pace = Pace::start(at(0));
        let mut now = at(0);
        let each = (0..count).map(|index| {
            let chat = chats[index % chats.len()];
            now = now.max(pace.next(chat, now));
            pace.take(chat, now);
            now.0.as_millis() as u64
        });
        each.collect()
    }

    #[test]
    fn a_chat_hears_one_a_second() {
        assert_eq!(goes(&[7], 4), [0, 1000, 2000, 3000]);
    }

    #[test]
    fn a_chat_that_was_silent_may_hear_three_at_once() {
        let mut pace = Pace::start(at(0));
        pace.take(7, at(0));
        for _ in 0..3 {
            assert_eq!(pace.next(7, at(10_000)), at(10_000));
            pace.take(7, at(10_000));
        }
        assert_eq!(pace.next(7, at(10_000)), at(11_000));
    }

    #[test]
    fn a_group_hears_fewer_than_twenty_a_minute() {
        let minute = goes(&[-7], 40).iter().filter(|at| **at < 60_000).count();
        assert!((17..20).contains(&minute), "{minute}");
    }

    #[test]
    fn all_chats_together_hear_fewer_than_thirty_a_second() {
        let chats: Vec<i64> = (1..=1000).collect();
        let times = goes(&chats, 300);
        for begin in 0..10 {
            let in_second = |at: &&u64| (begin * 1000..begin * 1000 + 1000).contains(*at);
            assert!(times.iter().filter(in_second).count() < 30);
        }
        assert!(times[299] < 12_500, "and not much fewer: {}", times[299]);
    }

    #[test]
    fn what_telegram_holds_waits() {
        let mut pace = Pace::start(at(0));
        pace.hold(7, at(5000));
        assert_eq!(
            (pace.next(7, at(0)), pace.next(8, at(0))),
            (at(5000), at(0))
        );
    }
}
