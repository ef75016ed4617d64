//! What goes wrong when a test wants it to.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::Faults;
use super::{BotApi, Client, SOON, last, wait_until};

const CHAT: i64 = 77;

fn started(faults: Faults) -> (BotApi, Client) {
    let api = BotApi::start();
    api.knows(CHAT);
    api.knows(CHAT + 1);
    api.faults(faults);
    let client = Client::new(&api);
    (api, client)
}

fn text(chat: i64) -> Value {
    json!({ "chat_id": chat, "text": "a" })
}

fn too_many(seconds: u64) -> Value {
    json!({
        "ok": false,
        "error_code": 429,
        "description": format!("Too Many Requests: retry after {seconds}"),
        "parameters": { "retry_after": seconds },
    })
}

#[test]
fn the_next_sends_are_too_many() {
    let (api, mut client) = started(Faults {
        too_many: Some((2, 30)),
        ..Faults::default()
    });
    assert_eq!(client.call("sendMessage", &text(CHAT)), (429, too_many(30)));
    // Until then, the chat is refused everything, and other chats are not.
    api.advance(Duration::from_secs(10));
    let (_, answer) = client.call("sendMessage", &text(CHAT));
    let rest = answer["parameters"]["retry_after"].as_u64().unwrap();
    assert!((1..=20).contains(&rest), "{answer}");
    let other = client.call("sendMessage", &text(CHAT + 1));
    assert_eq!(other, (429, too_many(30)));
    api.advance(Duration::from_secs(20));
    client.does("sendMessage", &text(CHAT));
    assert_eq!(client.call("sendMessage", &text(CHAT + 1)).0, 429);
    // What writes nothing is not meant.
    let action = json!({ "chat_id": CHAT + 1, "action": "typing" });
    client.does("sendChatAction", &action);
    api.faults(Faults::default());
    client.does("sendMessage", &text(CHAT + 1));
    assert_eq!(api.limit_breaks(), 0);
}

#[test]
fn an_edit_can_be_too_many() {
    let (api, mut client) = started(Faults::default());
    let id = client.sends(CHAT, "a");
    api.faults(Faults {
        too_many: Some((1, 5)),
        ..Faults::default()
    });
    let edit = json!({ "chat_id": CHAT, "message_id": id, "text": "b" });
    assert_eq!(client.call("editMessageText", &edit), (429, too_many(5)));
    api.advance(Duration::from_secs(5));
    client.does("editMessageText", &edit);
}

#[test]
fn a_send_can_take_effect_without_an_answer() {
    let (api, mut client) = started(Faults {
        ambiguous: 1,
        ..Faults::default()
    });
    // What is refused does not use it up.
    let unknown = "Bad Request: chat not found";
    client.fails("sendMessage", &text(5), 400, unknown);
    client.begin("sendMessage", &text(CHAT));
    assert_eq!(client.answer(), None);
    let said = api.chat(CHAT);
    assert_eq!(said.len(), 1);
    let effect = last(&api);
    assert_eq!((effect.answer, effect.message), (0, Some(said[0].message)));
    assert!(effect.ended.is_some());
    let mut client = Client::new(&api);
    client.sends(CHAT, "a");
    assert_eq!(api.chat(CHAT).len(), 2);
}

#[test]
fn an_answer_can_be_late() {
    let delay = Duration::from_millis(300);
    let (api, mut client) = started(Faults {
        delay,
        ..Faults::default()
    });
    client.sends(CHAT, "a");
    let effect = last(&api);
    assert!(effect.ended.unwrap() - effect.begun >= delay);
}

#[test]
fn a_client_can_hang_up_before_a_late_answer() {
    let (api, mut client) = started(Faults {
        delay: Duration::from_secs(600),
        ..Faults::default()
    });
    client.begin("sendMessage", &text(CHAT));
    wait_until("it takes effect", SOON, || api.chat(CHAT).len() == 1);
    assert_eq!(last(&api).ended, None);
    drop(client);
    wait_until("it ends", SOON, || last(&api).ended.is_some());
    assert_eq!((last(&api).answer, last(&api).message), (0, Some(1)));
}

#[test]
fn a_proxy_can_be_in_the_way() {
    let (api, mut client) = started(Faults {
        server_errors: 2,
        ..Faults::default()
    });
    for method in ["sendMessage", "getUpdates"] {
        client.begin(method, &text(CHAT));
        let (status, body) = client.answer().unwrap();
        assert_eq!(status, 502);
        assert!(serde_json::from_str::<Value>(&body).is_err());
        assert_eq!(last(&api).answer, 502);
    }
    assert!(api.chat(CHAT).is_empty());
    client.sends(CHAT, "a");
}

#[test]
fn a_text_can_be_refused_for_its_tags() {
    let (api, mut client) = started(Faults {
        parse_errors: 1,
        ..Faults::default()
    });
    // Without tags there is nothing to refuse.
    client.sends(CHAT, "a");
    let tagged = json!({ "chat_id": CHAT, "text": "<b>a</b>", "parse_mode": "HTML" });
    let (status, answer) = client.call("sendMessage", &tagged);
    let description = answer["description"].as_str().unwrap();
    assert_eq!(status, 400);
    assert!(description.starts_with("Bad Request: can't parse entities: "));
    client.does("sendMessage", &tagged);
    assert_eq!(api.chat(CHAT).len(), 2);
}

#[test]
fn the_limits_can_be_kept() {
    let (api, mut client) = started(Faults {
        enforce_limits: true,
        ..Faults::default()
    });
    let id = client.sends(CHAT, "0");
    let mut edit = |number: i32| {
        let edit = json!({ "chat_id": CHAT, "message_id": id, "text": number });
        client.call("editMessageText", &edit)
    };
    // A slow machine gets a few more through.
    let refused = (1..60).map(&mut edit).find(|(status, _)| *status != 200);
    assert_eq!(refused, Some((429, too_many(1))));
    assert_eq!(api.limit_breaks(), 1);
    client.sends(CHAT + 1, "a");
    api.advance(Duration::from_secs(1));
    client.sends(CHAT, "a");
    assert_eq!(api.limit_breaks(), 1);
}
