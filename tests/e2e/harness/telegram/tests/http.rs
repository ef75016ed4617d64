//! Paths, tokens, bodies, the log.

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};

use super::{APART, BotApi, Client, last, open_poll};

#[test]
fn it_says_who_the_bot_is() {
    let api = BotApi::start();
    let mut client = Client::new(&api);
    let me = client.does("getMe", &json!({}));
    assert_eq!((&me["id"], &me["is_bot"]), (&7001.into(), &true.into()));
    for name in [
        "first_name",
        "username",
        "can_join_groups",
        "supports_inline_queries",
    ] {
        assert!(!me[name].is_null(), "{name} in {me}");
    }
}

#[test]
fn a_connection_is_kept_and_names_have_no_case() {
    let api = BotApi::start();
    let mut client = Client::new(&api);
    for method in ["getMe", "GETME", "getme"] {
        client.does(method, &json!({}));
        assert_eq!(last(&api).method, "getMe");
    }
}

#[test]
fn arguments_may_stand_in_the_path() {
    let api = BotApi::start();
    api.knows(5);
    let mut client = Client::new(&api);
    let path = format!(
        "/bot{}/sendMessage?chat_id=5&text=a%20b%26c+d%zz&reply_markup=%7B%22inline_keyboard%22%3A%5B%5B%7B%22text%22%3A%22t%22%2C%22callback_data%22%3A%22d%22%7D%5D%5D%7D",
        api.token()
    );
    client.request("GET", &path, "");
    assert_eq!(client.finish().0, 200);
    let said = api.chat(5);
    assert_eq!(said[0].text, "a b&c d%zz");
    assert_eq!(said[0].buttons, [("t".to_owned(), "d".to_owned())]);
    assert_eq!(last(&api).body["chat_id"], "5");
}

#[test]
fn what_is_not_there_is_refused() {
    let api = BotApi::start();
    let mut client = Client::new(&api);
    client.fails("makeCoffee", &json!({}), 404, "Not Found");
    assert_eq!(
        (&*last(&api).method, last(&api).answer),
        ("makeCoffee", 404)
    );
    client.fails(
        "getFile",
        &json!({ "file_id": "x" }),
        400,
        "Bad Request: wrong file_id or the file is temporarily unavailable",
    );
    let wrong = "Bad Request: JSON object expected";
    client.fails("getMe", &json!(["a"]), 400, wrong);
    assert_eq!(last(&api).body, Value::Null);

    client.prefix = "/bot7001:other/".to_owned();
    client.fails("getMe", &json!({}), 401, "Unauthorized");
    client.prefix = "/elsewhere/".to_owned();
    client.fails("getMe", &json!({}), 401, "Unauthorized");
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let api = BotApi::start();
    let mut client = Client::new(&api);
    let text = "a".repeat(5 << 20);
    client.request("POST", "/bot7001:TEST-token/sendMessage", &text[..4 << 20]);
    assert_eq!(client.finish().0, 400);
    let head = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        text.len()
    );
    // The server may answer, or end the connection, before it has read all of it.
    drop(client.stream.get_mut().write_all((head + &text).as_bytes()));
    let answer = client.answer();
    assert!(answer.is_none_or(|(status, _)| status == 413));
    assert_eq!(api.effects().len(), 1);
}

#[test]
fn the_log_says_who_did_what_when() {
    let api = BotApi::start();
    api.knows(5);
    let mut client = Client::new(&api);
    let before = Instant::now();
    let message = client.sends(5, "hello");
    let after = Instant::now();
    let effect = last(&api);
    assert_eq!((&*effect.node, effect.epoch), ("vm", 42));
    assert_eq!((&*effect.method, effect.answer), ("sendMessage", 200));
    assert_eq!(effect.body, json!({ "chat_id": 5, "text": "hello" }));
    assert_eq!(effect.message, Some(message));
    assert!(before <= effect.begun && Some(effect.begun) <= effect.ended);
    assert!(effect.ended <= Some(after));

    client.does("getMe", &json!({}));
    assert_eq!(api.effects().len(), 2);
    assert_eq!(last(&api).message, None);
}

#[test]
fn a_token_can_be_revoked() {
    let api = BotApi::start();
    let mut poll = open_poll(&api, &json!({ "timeout": 50 }));
    api.revoke_token();
    api.restore_token();
    let (status, answer) = poll.finish();
    assert_eq!(status, 401, "{answer}");
    api.revoke_token();
    poll.fails("getMe", &json!({}), 401, "Unauthorized");
    api.restore_token();
    poll.does("getMe", &json!({}));
    // The poll is gone, so there is no conflict.
    let mut poll = open_poll(&api, &json!({ "timeout": 50, "offset": 7 }));
    api.advance(APART);
    api.says(5, "a");
    assert_eq!(poll.finish().0, 200);
}

#[test]
fn it_is_gone_when_it_is_dropped() {
    let api = BotApi::start();
    let mut poll = open_poll(&api, &json!({ "timeout": 50 }));
    let addr = api.url();
    drop(api);
    assert_eq!(poll.answer(), None);
    assert!(TcpStream::connect(addr.strip_prefix("http://").unwrap()).is_err());
}
