//! `getUpdates` over HTTP: what waits, what ends, what is lost.

use std::time::{Duration, Instant};

use serde_json::json;

use super::super::Faults;
use super::{APART, BotApi, Client, SOON, ids, last, open_poll, updates, wait_until};

const OTHER_POLL: &str = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running";
const WEBHOOK: &str = "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first";

#[test]
fn an_update_waits_until_it_is_confirmed() {
    let api = BotApi::start();
    let mut client = Client::new(&api);
    for text in ["a", "b", "c"] {
        api.says(77, text);
    }
    let all = ids(&updates(&api, &mut client, &json!({})));
    assert_eq!(all.len(), 3);
    assert!(all.is_sorted());
    assert_eq!(ids(&updates(&api, &mut client, &json!({}))), all);
    assert_eq!(api.pending(), 3);
    let two = json!({ "offset": all[1], "limit": 1 });
    assert_eq!(ids(&updates(&api, &mut client, &two)), all[1..2]);
    assert_eq!(api.pending(), 2);
    // What is forgotten does not come back.
    assert_eq!(ids(&updates(&api, &mut client, &json!({}))), all[1..]);
    let beyond = json!({ "offset": all[2] + 1 });
    assert!(updates(&api, &mut client, &beyond).is_empty());
    assert_eq!(api.pending(), 0);
}

#[test]
fn a_poll_hears_what_comes_while_it_waits() {
    let api = BotApi::start();
    let mut poll = open_poll(&api, &json!({ "timeout": 50 }));
    assert_eq!(last(&api).ended, None);
    api.says(77, "a");
    let (status, answer) = poll.finish();
    assert_eq!(status, 200);
    assert_eq!(answer["result"][0]["message"]["text"], "a");
    let effect = last(&api);
    assert_eq!(
        (effect.answer, effect.body),
        (200, json!({ "timeout": 50 }))
    );
}

#[test]
fn a_poll_waits_as_long_as_it_says_and_never_longer_than_50_seconds() {
    let api = BotApi::start();
    for (offset, given, seconds) in [(1, 5, 5), (2, 1000, 50)] {
        let mut poll = open_poll(&api, &json!({ "timeout": given, "offset": offset }));
        api.advance(Duration::from_secs(seconds));
        let begun = Instant::now();
        assert_eq!(poll.finish().1["result"], json!([]));
        assert!(begun.elapsed() < SOON / 2);
    }
    // This one ends by the real clock.
    let mut poll = open_poll(&api, &json!({ "timeout": 1 }));
    assert_eq!(poll.finish().1["result"], json!([]));
    let effect = last(&api);
    assert!(effect.ended.unwrap() - effect.begun >= Duration::from_secs(1));
}

#[test]
fn the_second_poll_ends_the_first() {
    let api = BotApi::start();
    let mut first = open_poll(&api, &json!({ "timeout": 50 }));
    let mut second = open_poll(&api, &json!({ "timeout": 50 }));
    let (status, answer) = first.finish();
    let expected = json!({ "ok": false, "error_code": 409, "description": OTHER_POLL });
    assert_eq!((status, answer), (409, expected));
    assert_eq!(api.effects()[0].answer, 409);

    // The next conflict is held back, and the one who is ended next hears it 3 s later.
    let mut third = open_poll(&api, &json!({ "timeout": 50 }));
    api.says(77, "a");
    assert_eq!(third.finish().0, 200);
    api.advance(Duration::from_secs(3));
    assert_eq!(second.finish().0, 409);
}

#[test]
fn a_short_poll_ends_nothing() {
    let api = BotApi::start();
    let mut first = open_poll(&api, &json!({ "timeout": 50 }));
    let mut client = Client::new(&api);
    assert_eq!(
        client.does("getUpdates", &json!({ "offset": 1 })),
        json!([])
    );
    assert_eq!(api.effects()[0].ended, None);
    api.says(77, "a");
    assert_eq!(first.finish().0, 200);
}

#[test]
fn a_client_that_hangs_up_loses_nothing() {
    let api = BotApi::start();
    let poll = open_poll(&api, &json!({ "timeout": 50 }));
    drop(poll);
    wait_until("the poll ends", SOON, || last(&api).ended.is_some());
    assert_eq!(last(&api).answer, 0);
    api.says(77, "a");
    let mut client = Client::new(&api);
    assert_eq!(updates(&api, &mut client, &json!({})).len(), 1);
    // Nor does anybody get a 409 for it.
    let codes: Vec<u16> = api.effects().iter().map(|effect| effect.answer).collect();
    assert_eq!(codes, [0, 200]);
}

#[test]
fn a_client_that_hangs_up_before_the_answer_loses_nothing() {
    let api = BotApi::start();
    api.says(77, "a");
    let delay = Duration::from_secs(600);
    api.faults(Faults {
        delay,
        ..Faults::default()
    });
    drop(open_poll(&api, &json!({ "timeout": 50 })));
    wait_until("the poll ends", SOON, || last(&api).ended.is_some());
    api.faults(Faults::default());
    let mut client = Client::new(&api);
    assert_eq!(updates(&api, &mut client, &json!({})).len(), 1);
}

#[test]
fn a_webhook_of_somebody_else_must_be_deleted() {
    let api = BotApi::start();
    let mut poll = open_poll(&api, &json!({ "timeout": 50 }));
    api.set_webhook("https://example.org/hook");
    let (status, answer) = poll.finish();
    assert_eq!(status, 409);
    assert_eq!(
        answer["description"],
        "Conflict: terminated by setWebhook request"
    );
    api.says(77, "a");
    api.advance(APART);
    let mut client = Client::new(&api);
    client.fails("getUpdates", &json!({}), 409, WEBHOOK);
    let info = client.does("getWebhookInfo", &json!({}));
    let expected = json!({
        "url": "https://example.org/hook",
        "has_custom_certificate": false,
        "pending_update_count": 1,
    });
    assert_eq!(info, expected);

    let (_, answer) = client.call("deleteWebhook", &json!({}));
    let expected = json!({ "ok": true, "result": true, "description": "Webhook was deleted" });
    assert_eq!(answer, expected);
    let (_, answer) = client.call("deleteWebhook", &json!({}));
    assert_eq!(answer["description"], "Webhook is already deleted");
    assert_eq!(updates(&api, &mut client, &json!({})).len(), 1);
    client.does("deleteWebhook", &json!({ "drop_pending_updates": true }));
    assert_eq!(api.pending(), 0);
}

#[test]
fn the_bot_can_set_a_webhook() {
    let api = BotApi::start();
    let mut client = Client::new(&api);
    let hook = json!({ "url": "https://example.org/hook", "allowed_updates": ["poll"] });
    let (_, answer) = client.call("setWebhook", &hook);
    assert_eq!(answer["description"], "Webhook was set");
    let (_, answer) = client.call("setWebhook", &hook);
    assert_eq!(answer["description"], "Webhook is already set");
    assert_eq!(api.queue(json!({ "message": {} })), 0);
    client.fails(
        "setWebhook",
        &json!({ "url": "http://example.org" }),
        400,
        "Bad Request: bad webhook: An HTTPS URL must be provided for webhook",
    );
    client.does("setWebhook", &json!({ "url": "" }));
    assert!(updates(&api, &mut client, &json!({})).is_empty());
}

#[test]
fn the_kinds_that_are_wanted_are_remembered() {
    let api = BotApi::start();
    let mut client = Client::new(&api);
    let before = api.says(77, "before");
    let only = json!({ "allowed_updates": ["callback_query"] });
    // It has no effect on what is queued already.
    assert_eq!(updates(&api, &mut client, &only).len(), 1);
    api.says(77, "unwanted");
    api.edits(77, before, "unwanted");
    api.presses(77, before, "wanted");
    assert_eq!(api.pending(), 2);
    let found = updates(&api, &mut client, &json!({}));
    assert_eq!(found[1]["callback_query"]["data"], "wanted");
    // A dropped update is dropped for good.
    let all = json!({ "allowed_updates": [] });
    assert_eq!(updates(&api, &mut client, &all).len(), 2);
    api.says(77, "wanted again");
    assert_eq!(api.pending(), 3);
}

#[test]
fn it_copes_with_ten_thousand_updates() {
    let api = BotApi::start();
    for _ in 0..10_000 {
        api.says(77, "a");
    }
    let mut client = Client::new(&api);
    let (mut offset, mut count) = (0, 0);
    loop {
        let found = ids(&updates(&api, &mut client, &json!({ "offset": offset })));
        let Some(last) = found.last() else {
            break;
        };
        offset = last + 1;
        count += found.len();
    }
    assert_eq!((count, api.pending()), (10_000, 0));
}
