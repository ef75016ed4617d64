//! What people do, as the bot hears of it.

use serde_json::json;

use super::{BotApi, Client, ids, updates};

#[test]
fn a_message_comes_complete() {
    let api = BotApi::start();
    let mut client = Client::new(&api);
    let message = api.says(77, "/pair ABC");
    let found = updates(&api, &mut client, &json!({}));
    let heard = &found[0]["message"];
    let date = heard["date"].as_u64().unwrap();
    assert!(date > 1_700_000_000, "{heard}");
    let expected = json!({
        "message_id": message,
        "date": date,
        "chat": { "id": 77, "first_name": "User 77", "type": "private" },
        "from": { "id": 77, "is_bot": false, "first_name": "User 77", "language_code": "en" },
        "text": "/pair ABC",
        "entities": [{ "type": "bot_command", "offset": 0, "length": 5 }],
    });
    assert_eq!(heard, &expected);
    assert!(api.chat(77).is_empty());
}

#[test]
fn an_edited_message_keeps_its_number() {
    let api = BotApi::start();
    let mut client = Client::new(&api);
    let message = api.says(77, "one");
    api.edits(77, message, "two");
    let found = updates(&api, &mut client, &json!({}));
    assert_eq!(found[0]["message"]["text"], "one");
    let edited = &found[1]["edited_message"];
    assert_eq!(
        (&edited["message_id"], &edited["text"]),
        (&message.into(), &"two".into())
    );
    assert!(edited["edit_date"].is_u64());
}

#[test]
#[should_panic(expected = "user 77 did not write message 9")]
fn nobody_edits_what_they_have_not_written() {
    BotApi::start().edits(77, 9, "text");
}

#[test]
fn a_pressed_button_comes_with_its_message_and_is_answered() {
    let api = BotApi::start();
    let mut client = Client::new(&api);
    api.knows(77);
    let message = client.sends(77, "yes?");
    api.presses(77, message, "yes");
    let found = updates(&api, &mut client, &json!({}));
    let query = &found[0]["callback_query"];
    assert_eq!(
        (&query["data"], &query["from"]["id"]),
        (&"yes".into(), &77.into())
    );
    assert_eq!(query["message"]["text"], "yes?");
    assert_eq!(query["message"]["from"]["is_bot"], true);
    assert!(query["chat_instance"].is_string());

    let id = &query["id"];
    assert!(id.is_string());
    client.does("answerCallbackQuery", &json!({ "callback_query_id": id }));
    let long = json!({ "callback_query_id": id, "text": "a".repeat(201) });
    client.fails(
        "answerCallbackQuery",
        &long,
        400,
        "Bad Request: MESSAGE_TOO_LONG",
    );
}

#[test]
fn an_unknown_or_old_query_cannot_be_answered() {
    let api = BotApi::start();
    let mut client = Client::new(&api);
    api.presses(77, 1, "yes");
    let found = updates(&api, &mut client, &json!({}));
    // The message is not there, and the bot is told so.
    assert_eq!(found[0]["callback_query"]["message"]["date"], 0);

    let too_old =
        "Bad Request: query is too old and response timeout expired or query ID is invalid";
    let other = json!({ "callback_query_id": "1" });
    client.fails("answerCallbackQuery", &other, 400, too_old);
    api.advance(std::time::Duration::from_secs(150));
    let old = json!({ "callback_query_id": found[0]["callback_query"]["id"] });
    client.fails("answerCallbackQuery", &old, 400, too_old);
}

#[test]
fn any_update_can_be_queued() {
    let api = BotApi::start();
    let mut client = Client::new(&api);
    let strange = api.queue(json!({ "brand_new_kind": { "a": 1 } }));
    let group = api.queue(json!({ "message": {
        "message_id": 40,
        "date": 1,
        "chat": { "id": -9, "title": "G", "type": "supergroup" },
        "from": { "id": 77, "is_bot": false, "first_name": "U" },
        "text": "hi",
    } }));
    let found = updates(&api, &mut client, &json!({}));
    assert_eq!(ids(&found), [strange, group]);
    assert_eq!(found[0]["brand_new_kind"], json!({ "a": 1 }));
    // Its chat is known, and it can be replied to.
    let reply = json!({ "chat_id": -9, "text": "a", "reply_parameters": { "message_id": 40 } });
    let sent = client.does("sendMessage", &reply);
    assert_eq!(sent["message_id"], 41);
    assert_eq!(sent["reply_to_message"]["text"], "hi");
    assert_eq!(sent["chat"]["type"], "supergroup");
}
