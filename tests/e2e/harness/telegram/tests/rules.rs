//! The rules of polls, updates and limits, with times that are made up.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::arguments::Arguments;
use super::super::limits::Limits;
use super::super::polls::{Polls, Turn};
use super::super::updates::{QUERY_LIFE, UPDATE_LIFE, Updates};
use super::ids;

struct Queue {
    polls: Polls,
    updates: Updates,
    now: Instant,
    calls: usize,
}

/// How it stands with a call, in numbers.
#[derive(Debug, PartialEq, Eq)]
enum Stands {
    Delivered(Vec<i64>),
    Conflict,
    Waits(u128),
}

impl Queue {
    fn new() -> Self {
        Self {
            polls: Polls::default(),
            updates: Updates::default(),
            now: Instant::now(),
            calls: 0,
        }
    }

    /// Queues updates; returns their ids.
    fn push(&mut self, count: usize) -> Vec<i64> {
        let mut push = || {
            let message = json!({ "message": {} });
            self.updates.push(message, UPDATE_LIFE, self.now)
        };
        (0..count).map(|_| push().unwrap()).collect()
    }

    fn later(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// Polls as call 1, 2 and so on.
    fn poll(&mut self, arguments: &Value) -> Stands {
        self.calls += 1;
        let arguments = Arguments::from_body(arguments.to_string().as_bytes()).unwrap();
        let turn = self
            .polls
            .begin(self.calls, &arguments, &mut self.updates, self.now);
        self.stands(turn)
    }

    fn look(&mut self, call: usize) -> Stands {
        let turn = self.polls.look(call, &mut self.updates, self.now);
        self.stands(turn.unwrap())
    }

    fn stands(&self, turn: Turn) -> Stands {
        match turn {
            Turn::Deliver(updates) => Stands::Delivered(ids(&updates)),
            Turn::Conflict(_) => Stands::Conflict,
            Turn::Wait(until) => Stands::Waits((until - self.now).as_millis()),
        }
    }
}

#[test]
fn a_poll_that_finds_updates_leaves_the_other_waiting() {
    let mut queue = Queue::new();
    assert_eq!(queue.poll(&json!({ "timeout": 25 })), Stands::Waits(25_000));
    let new = queue.push(1);
    queue.later(600);
    let found = queue.poll(&json!({ "timeout": 25, "offset": 1 }));
    assert_eq!(found, Stands::Delivered(new.clone()));
    // Both get the same update.
    assert_eq!(queue.look(1), Stands::Delivered(new));
}

#[test]
fn conflicts_come_every_three_seconds() {
    let mut queue = Queue::new();
    let long = json!({ "timeout": 50 });
    queue.poll(&long);
    queue.later(10_000);
    queue.poll(&long);
    assert_eq!(queue.look(1), Stands::Conflict);
    queue.later(1_000);
    queue.poll(&long);
    assert_eq!(queue.look(2), Stands::Waits(3_000));
    queue.later(1_999);
    queue.poll(&long);
    assert_eq!(queue.look(3), Stands::Waits(3_000));
    assert_eq!(queue.look(2), Stands::Waits(1_001));
    queue.later(1);
    // Three seconds after the first.
    queue.poll(&long);
    assert_eq!(queue.look(4), Stands::Conflict);
    queue.later(1_000);
    assert_eq!(queue.look(2), Stands::Conflict);
}

#[test]
fn a_webhook_refuses_like_a_conflict() {
    let mut queue = Queue::new();
    queue.polls.set_webhook("https://example.org", queue.now);
    assert_eq!(queue.poll(&json!({})), Stands::Waits(0));
    assert_eq!(queue.look(1), Stands::Conflict);
    assert_eq!(queue.poll(&json!({})), Stands::Waits(3_000));
    queue.polls.hang_up(2);
    assert!(queue.polls.look(2, &mut queue.updates, queue.now).is_none());
    queue.polls.set_webhook("", queue.now);
    assert_eq!(queue.poll(&json!({})), Stands::Delivered(vec![]));
}

#[test]
fn the_same_offset_again_is_slowed_down() {
    let mut queue = Queue::new();
    let new = queue.push(3);
    assert_eq!(queue.poll(&json!({})), Stands::Delivered(new.clone()));
    queue.later(499);
    assert_eq!(queue.poll(&json!({})), Stands::Delivered(new[..1].to_vec()));
    queue.later(500);
    assert_eq!(queue.poll(&json!({})), Stands::Delivered(new.clone()));
    // Another offset is another thing.
    let confirms = json!({ "offset": new[2] + 1 });
    assert_eq!(queue.poll(&confirms), Stands::Delivered(vec![]));
    queue.later(2_999);
    assert_eq!(queue.poll(&confirms), Stands::Waits(3_000));
    queue.later(3_000);
    assert_eq!(queue.look(5), Stands::Delivered(vec![]));
    assert_eq!(queue.poll(&confirms), Stands::Delivered(vec![]));
}

#[test]
fn limits_and_timeouts_are_cut() {
    let mut queue = Queue::new();
    let new = queue.push(150);
    let mut count = |limit: i64| {
        queue.later(1_000);
        match queue.poll(&json!({ "limit": limit })) {
            Stands::Delivered(found) => found.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        [count(0), count(7), count(100), count(101)],
        [1, 7, 100, 100]
    );
    queue.later(1_000);
    let all = Stands::Delivered(new[..100].to_vec());
    assert_eq!(queue.poll(&json!({})), all);
    let end = new[149] + 1;
    let long = json!({ "offset": end, "timeout": 90 });
    assert_eq!(queue.poll(&long), Stands::Waits(50_000));
    let negative = json!({ "offset": end + 1, "timeout": -1 });
    assert_eq!(queue.poll(&negative), Stands::Delivered(vec![]));
}

#[test]
fn a_negative_offset_keeps_the_last() {
    let mut queue = Queue::new();
    let new = queue.push(5);
    let last = queue.poll(&json!({ "offset": -2 }));
    assert_eq!(last, Stands::Delivered(new[3..].to_vec()));
    assert_eq!(queue.updates.pending(queue.now), 2);
    let last = queue.poll(&json!({ "offset": -9 }));
    assert_eq!(last, Stands::Delivered(new[3..].to_vec()));
}

#[test]
fn an_offset_far_beyond_confirms_nothing() {
    let mut queue = Queue::new();
    let new = queue.push(2);
    let next = new[1] + 1;
    let beyond = queue.poll(&json!({ "offset": next + 11 }));
    assert_eq!(beyond, Stands::Delivered(new));
    let near = queue.poll(&json!({ "offset": next + 10 }));
    assert_eq!(near, Stands::Delivered(vec![]));
    assert_eq!(queue.updates.pending(queue.now), 0);
}

#[test]
fn an_update_expires() {
    let mut queue = Queue::new();
    let new = queue.push(1);
    let query = json!({ "callback_query": {} });
    queue.updates.push(query, QUERY_LIFE, queue.now);
    queue.later(149_999);
    assert_eq!(queue.updates.pending(queue.now), 2);
    queue.later(1);
    assert_eq!(queue.updates.pending(queue.now), 1);
    queue.later(86_400_000 - 150_001);
    assert_eq!(queue.poll(&json!({})), Stands::Delivered(new));
    queue.later(1);
    assert_eq!(
        queue.poll(&json!({ "offset": 1 })),
        Stands::Delivered(vec![])
    );
}

#[test]
fn ids_jump_after_a_week() {
    let mut queue = Queue::new();
    let first = queue.push(2);
    assert_eq!(first[0] + 1, first[1]);
    queue.later(7 * 86_400_000 - 1);
    assert_eq!(queue.push(1), [first[1] + 1]);
    queue.later(7 * 86_400_000);
    let jumped = queue.push(1)[0];
    assert!((jumped - first[1]).abs() > 1_000, "{jumped}");
    // Whoever goes on from the old ids still hears of it.
    let after = queue.poll(&json!({ "offset": first[1] + 2 }));
    assert_eq!(after, Stands::Delivered(vec![jumped]));
}

#[test]
fn a_kind_is_wanted_or_not() {
    let mut updates = Updates::default();
    let now = Instant::now();
    let mut wants = |kinds: Value, kind: &str| {
        updates.allow(&kinds);
        let update = json!({ kind: {} });
        updates.push(update, UPDATE_LIFE, now).is_some()
    };
    let cases = [
        // No list, no change.
        (json!(null), "message", true),
        (json!(null), "chat_member", false),
        (json!(["chat_member"]), "chat_member", true),
        (json!("message"), "message", false),
        (json!([1]), "message", false),
        (json!(["Message", "news"]), "message", true),
        (json!(["message"]), "chat_member", false),
        // A kind that nobody has written about cannot be unwanted.
        (json!(["message"]), "brand_new_kind", true),
        // An empty list is the default, and so is one of unknown kinds.
        (json!([]), "poll", true),
        (json!(["news"]), "message_reaction", false),
        (json!(["news"]), "edited_message", true),
    ];
    for (kinds, kind, wanted) in cases {
        assert_eq!(wants(kinds.clone(), kind), wanted, "{kind} of {kinds}");
    }
    assert_eq!(updates.push(json!(1), UPDATE_LIFE, now), None);
}

#[test]
fn a_chat_takes_a_burst_and_then_one_a_second() {
    let mut limits = Limits::default();
    let begun = Instant::now();
    let at = |millis: u64| begun + Duration::from_millis(millis);
    for _ in 0..5 {
        assert_eq!(limits.admit(1, at(0)), Ok(()));
    }
    assert_eq!(limits.admit(1, at(0)), Err(Duration::from_secs(1)));
    assert_eq!(limits.admit(2, at(0)), Ok(()));
    assert_eq!(limits.admit(1, at(999)), Err(Duration::from_millis(1)));
    // What was refused does not count.
    assert_eq!(limits.admit(1, at(1_000)), Ok(()));
    assert_eq!(limits.admit(1, at(1_000)), Err(Duration::from_secs(1)));
    for _ in 0..5 {
        assert_eq!(limits.admit(1, at(6_000)), Ok(()));
    }
    assert_eq!(limits.breaks(), 3);
}

#[test]
fn all_chats_take_thirty_a_second() {
    let mut limits = Limits::default();
    let begun = Instant::now();
    for chat in 0..30 {
        let at = begun + Duration::from_millis(10 * chat);
        assert_eq!(limits.admit(chat as i64, at), Ok(()));
    }
    let at = begun + Duration::from_millis(400);
    assert_eq!(limits.admit(99, at), Err(Duration::from_millis(600)));
    let at = begun + Duration::from_millis(1_000);
    assert_eq!(limits.admit(99, at), Ok(()));
    assert_eq!(limits.admit(98, at), Err(Duration::from_millis(10)));
}

#[test]
fn a_group_takes_twenty_a_minute() {
    let mut limits = Limits::default();
    let begun = Instant::now();
    for second in 0..20 {
        let at = begun + Duration::from_secs(second);
        assert_eq!(limits.admit(-5, at), Ok(()));
    }
    let at = begun + Duration::from_secs(30);
    assert_eq!(limits.admit(-5, at), Err(Duration::from_secs(30)));
    assert_eq!(limits.admit(-6, at), Ok(()));
    let at = begun + Duration::from_secs(60);
    assert_eq!(limits.admit(-5, at), Ok(()));
}
