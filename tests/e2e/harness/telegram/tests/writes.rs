//! What the bot writes: texts, keyboards, replies, edits, drafts.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::{Said, html};
use super::{BotApi, Client, last};

const CHAT: i64 = 77;
const NOT_MODIFIED: &str = "Bad Request: message is not modified: specified new message content and reply markup are exactly the same as a current content and reply markup of the message";

fn started() -> (BotApi, Client) {
    let api = BotApi::start();
    api.knows(CHAT);
    let client = Client::new(&api);
    (api, client)
}

fn keyboard(data: &str) -> Value {
    json!({ "inline_keyboard": [[{ "text": "Yes", "callback_data": data }]] })
}

#[test]
fn a_sent_message_is_told_complete() {
    let (api, mut client) = started();
    let asked = api.says(CHAT, "what?");
    let sent = client.does(
        "sendMessage",
        &json!({
            "chat_id": CHAT,
            "text": "<b>that</b>",
            "parse_mode": "HTML",
            "reply_parameters": { "message_id": asked },
            "reply_markup": keyboard("y"),
        }),
    );
    assert_eq!(sent["text"], "that");
    assert_eq!(
        sent["entities"],
        json!([{ "type": "bold", "offset": 0, "length": 4 }])
    );
    assert_eq!(sent["reply_to_message"]["message_id"], asked);
    assert_eq!(sent["reply_markup"], keyboard("y"));
    assert_eq!(
        (&sent["chat"]["id"], &sent["from"]["id"]),
        (&CHAT.into(), &7001.into())
    );
    assert!(sent["date"].is_u64());
    let said = Said {
        message: sent["message_id"].as_i64().unwrap(),
        text: "that".to_owned(),
        reply_to: Some(asked),
        buttons: vec![("Yes".to_owned(), "y".to_owned())],
        edits: 0,
    };
    assert_eq!(api.chat(CHAT), [said]);
}

#[test]
fn a_text_has_limits() {
    let (api, mut client) = started();
    let text = |text: &str| json!({ "chat_id": CHAT, "text": text });
    let empty = "Bad Request: message text is empty";
    client.fails("sendMessage", &text(""), 400, empty);
    client.fails("sendMessage", &json!({ "chat_id": CHAT }), 400, empty);
    let blank = "Bad Request: text must be non-empty";
    client.fails("sendMessage", &text(" \n"), 400, blank);
    let long = "Bad Request: message is too long";
    client.does("sendMessage", &text(&"a".repeat(4096)));
    client.fails("sendMessage", &text(&"a".repeat(4097)), 400, long);
    // Korean counts 1 each, what is outside the basic plane 2.
    client.does("sendMessage", &text(&"가".repeat(4096)));
    client.does("sendMessage", &text(&"🦀".repeat(2048)));
    client.fails("sendMessage", &text(&"🦀".repeat(2049)), 400, long);
    let huge = "Bad Request: text is too long";
    client.fails("sendMessage", &text(&"a".repeat(32_769)), 400, huge);
    // Tags do not count, and space at the ends is taken off.
    let tagged = format!("<b>{}</b>\n", "a".repeat(4096));
    let tagged = json!({ "chat_id": CHAT, "text": tagged, "parse_mode": "html" });
    client.does("sendMessage", &tagged);
    client.does("sendMessage", &text("\n a \n"));
    assert_eq!(api.chat(CHAT).last().unwrap().text, "a");
    let other = json!({ "chat_id": CHAT, "text": "a", "parse_mode": "troff" });
    let unsupported = "Bad Request: unsupported parse_mode";
    client.fails("sendMessage", &other, 400, unsupported);
}

#[test]
fn a_chat_is_known_when_its_user_has_written() {
    let (api, mut client) = started();
    let body = json!({ "chat_id": 5, "text": "a" });
    let unknown = "Bad Request: chat not found";
    client.fails("sendMessage", &body, 400, unknown);
    api.says(5, "hello");
    client.does("sendMessage", &body);
    let named = json!({ "chat_id": "@someone", "text": "a" });
    client.fails("sendMessage", &named, 400, unknown);
    let empty = "Bad Request: chat_id is empty";
    client.fails("sendMessage", &json!({ "text": "a" }), 400, empty);
    let action = json!({ "chat_id": 6, "action": "typing" });
    client.fails("sendChatAction", &action, 400, unknown);
}

#[test]
fn html_loses_its_tags() {
    // html, text, entities as kind@offset+length
    check(
        "a &lt;&gt;&amp;&quot; &#39;&#x2764; &apos; &",
        "a <>&\" '❤ &apos; &",
        "",
    );
    check("<b>a</b><strong>b</strong>", "ab", "bold@0+1 bold@1+1");
    check(
        "<i>a</i><em>b</em><u>c</u><s>d</s>",
        "abcd",
        "italic@0+1 italic@1+1 underline@2+1 strikethrough@3+1",
    );
    check("🦀<B>🦀</b >", "🦀🦀", "bold@2+2");
    check("<b>a<i>b</i></b>", "ab", "bold@0+2 italic@1+1");
    check("<tg-spoiler>a</tg-spoiler>", "a", "spoiler@0+1");
    check("<code>&lt;b&gt;</code>", "<b>", "code@0+3");
    check("<pre>a\n</pre>", "a\n", "pre@0+2");
    check(
        "<pre><code class=\"language-rust\">a</code></pre>",
        "a",
        "pre@0+1 rust",
    );
    check(
        "<a href='https://x.org/?A=1&amp;b=2'>a</a>",
        "a",
        "text_link@0+1 https://x.org/?A=1&b=2",
    );
    check(
        "<a href=https://X.org>a</a>",
        "a",
        "text_link@0+1 https://X.org",
    );
    check("<a>a</a><b></b>", "a", "");
    check("<blockquote>a</blockquote>", "a", "blockquote@0+1");
    check(
        "<blockquote expandable>a</blockquote>",
        "a",
        "expandable_blockquote@0+1",
    );
}

#[track_caller]
fn check(html: &str, text: &str, entities: &str) {
    let (found, objects) = html::parse(html).unwrap();
    let shown: Vec<String> = objects
        .iter()
        .map(html::Entity::object)
        .map(|entity| {
            let more = [&entity["url"], &entity["language"]];
            let more = more.iter().find_map(|more| more.as_str());
            let kind = entity["type"].as_str().unwrap();
            let place = format!("{kind}@{}+{}", entity["offset"], entity["length"]);
            [place, more.unwrap_or_default().to_owned()].join(" ")
        })
        .map(|shown| shown.trim_end().to_owned())
        .collect();
    assert_eq!((&*found, &*shown.join(" ")), (text, entities), "{html}");
}

#[test]
fn html_that_is_wrong_is_refused() {
    refused("a < b", "Unsupported start tag \"\" at byte offset 2");
    refused(
        "가<div>a</div>",
        "Unsupported start tag \"div\" at byte offset 3",
    );
    refused("<b", "Unclosed start tag at byte offset 0");
    refused("<a href=\"x", "Unclosed start tag at byte offset 0");
    refused("<a href", "Unclosed start tag at byte offset 0");
    refused("a</b>", "Unexpected end tag at byte offset 1");
    refused("<b>a</b", "Unclosed end tag at byte offset 4");
    refused(
        "<b>a",
        "Can't find end tag corresponding to start tag \"b\"",
    );
    refused(
        "<b><i>a</b></i>",
        "Unmatched end tag at byte offset 7, expected \"</i>\", found \"</b>\"",
    );

    let (_api, mut client) = started();
    let body = json!({ "chat_id": CHAT, "text": "<b>", "parse_mode": "HTML" });
    let description =
        "Bad Request: can't parse entities: Can't find end tag corresponding to start tag \"b\"";
    client.fails("sendMessage", &body, 400, description);
}

#[track_caller]
fn refused(html: &str, what: &str) {
    assert_eq!(html::parse(html).unwrap_err(), what, "{html}");
}

#[test]
fn a_keyboard_is_checked() {
    let (api, mut client) = started();
    let with = |markup: Value| json!({ "chat_id": CHAT, "text": "a", "reply_markup": markup });
    let invalid = "Bad Request: BUTTON_DATA_INVALID";
    client.does("sendMessage", &with(keyboard(&"a".repeat(64))));
    for data in [&"a".repeat(65), &"가".repeat(22), ""] {
        client.fails("sendMessage", &with(keyboard(data)), 400, invalid);
    }
    let wrong = |what: &str| format!("Bad Request: can't parse inline keyboard button: {what}");
    let flat = with(json!({ "inline_keyboard": [{ "text": "a", "callback_data": "b" }] }));
    client.fails(
        "sendMessage",
        &flat,
        400,
        &wrong("Expected an Array of Arrays"),
    );
    let mute = with(json!({ "inline_keyboard": [[{ "callback_data": "b" }]] }));
    client.fails(
        "sendMessage",
        &mute,
        400,
        &wrong("Field \"text\" must be non-empty"),
    );
    let text = with(json!({ "inline_keyboard": [[{ "text": "b" }]] }));
    let unallowed = wrong("Text buttons are unallowed in the inline keyboard");
    client.fails("sendMessage", &text, 400, &unallowed);
    assert_eq!(api.chat(CHAT).len(), 1);

    // A link has no data; other markups are not the message's.
    let link = json!({ "inline_keyboard": [[{ "text": "a", "url": "https://example.org" }], []] });
    client.does("sendMessage", &with(link));
    client.does("sendMessage", &with(json!({ "force_reply": true })));
    client.does("sendMessage", &with(json!({ "inline_keyboard": [] })));
    assert!(
        api.chat(CHAT)[1..]
            .iter()
            .all(|said| said.buttons.is_empty())
    );
}

#[test]
fn a_reply_needs_its_message() {
    let (api, mut client) = started();
    let to = |id: i64, anyway: bool| {
        let parameters = json!({ "message_id": id, "allow_sending_without_reply": anyway });
        json!({ "chat_id": CHAT, "text": "a", "reply_parameters": parameters })
    };
    let missing = "Bad Request: message to be replied not found";
    client.fails("sendMessage", &to(9, false), 400, missing);
    client.does("sendMessage", &to(9, true));
    let first = api.chat(CHAT)[0].message;
    client.does("sendMessage", &to(first, false));
    let replies: Vec<_> = api.chat(CHAT).iter().map(|said| said.reply_to).collect();
    assert_eq!(replies, [None, Some(first)]);
}

#[test]
fn an_edit_changes_what_stands() {
    let (api, mut client) = started();
    let id = client.sends(CHAT, "one");
    let edit = |text: &str| json!({ "chat_id": CHAT, "message_id": id, "text": text });
    client.fails("editMessageText", &edit("one"), 400, NOT_MODIFIED);
    assert_eq!(last(&api).message, None);
    let edited = client.does("editMessageText", &edit("two"));
    assert_eq!(
        (&edited["message_id"], &edited["text"]),
        (&id.into(), &"two".into())
    );
    assert!(edited["edit_date"].is_u64());
    assert_eq!(last(&api).message, Some(id));

    let mut with_keyboard = edit("two");
    with_keyboard["reply_markup"] = keyboard("y");
    client.does("editMessageText", &with_keyboard);
    client.fails("editMessageText", &with_keyboard, 400, NOT_MODIFIED);
    let markup = json!({ "chat_id": CHAT, "message_id": id, "reply_markup": keyboard("y") });
    client.fails("editMessageReplyMarkup", &markup, 400, NOT_MODIFIED);
    let markup = json!({ "chat_id": CHAT, "message_id": id, "reply_markup": keyboard("n") });
    client.does("editMessageReplyMarkup", &markup);
    assert_eq!(api.chat(CHAT)[0].buttons[0].1, "n");
    // An edit that does not name the keyboard takes it away.
    client.does("editMessageText", &edit("two"));
    let said = &api.chat(CHAT)[0];
    assert_eq!((&*said.text, said.edits), ("two", 4));
    assert!(said.buttons.is_empty());
}

#[test]
fn an_edit_needs_a_message_of_the_bot() {
    let (api, mut client) = started();
    let theirs = api.says(CHAT, "mine");
    let edit = |id: i64| json!({ "chat_id": CHAT, "message_id": id, "text": "a" });
    let missing = "Bad Request: message to edit not found";
    client.fails("editMessageText", &edit(99), 400, missing);
    client.fails("editMessageReplyMarkup", &edit(99), 400, missing);
    let unnamed = json!({ "chat_id": CHAT, "text": "a" });
    let unspecified = "Bad Request: message identifier is not specified";
    client.fails("editMessageText", &unnamed, 400, unspecified);
    let not_yours = "Bad Request: message can't be edited";
    client.fails("editMessageText", &edit(theirs), 400, not_yours);
    let id = client.sends(CHAT, "b");
    let long = json!({ "chat_id": CHAT, "message_id": id, "text": "a".repeat(4097) });
    let too_long = "Bad Request: message is too long";
    client.fails("editMessageText", &long, 400, too_long);
}

#[test]
fn a_message_can_be_deleted_for_two_days() {
    let (api, mut client) = started();
    let [first, second] = [client.sends(CHAT, "a"), client.sends(CHAT, "b")];
    let delete = |id: i64| json!({ "chat_id": CHAT, "message_id": id });
    client.does("deleteMessage", &delete(first));
    assert_eq!(last(&api).message, Some(first));
    let left: Vec<i64> = api.chat(CHAT).iter().map(|said| said.message).collect();
    assert_eq!(left, [second]);
    let missing = "Bad Request: message to delete not found";
    client.fails("deleteMessage", &delete(first), 400, missing);
    api.advance(Duration::from_secs(48 * 3600));
    let old = "Bad Request: message can't be deleted";
    client.fails("deleteMessage", &delete(second), 400, old);
}

#[test]
fn a_draft_leaves_nothing() {
    let (api, mut client) = started();
    api.knows(-5);
    let draft =
        |chat: i64, id: i64, text: &str| json!({ "chat_id": chat, "draft_id": id, "text": text });
    for text in ["", "thinking", &"a".repeat(4096)] {
        assert_eq!(client.does("sendMessageDraft", &draft(CHAT, 1, text)), true);
    }
    assert!(api.chat(CHAT).is_empty());
    let zero = "Bad Request: draft identifier must be non-zero";
    client.fails("sendMessageDraft", &draft(CHAT, 0, "a"), 400, zero);
    let group = "Bad Request: TEXTDRAFT_PEER_INVALID";
    client.fails("sendMessageDraft", &draft(-5, 1, "a"), 400, group);
    let long = "Bad Request: message is too long";
    client.fails(
        "sendMessageDraft",
        &draft(CHAT, 1, &"a".repeat(4097)),
        400,
        long,
    );
    let unknown = "Bad Request: chat not found";
    client.fails("sendMessageDraft", &draft(5, 1, "a"), 400, unknown);
}

#[test]
fn actions_and_commands_are_checked() {
    let (_api, mut client) = started();
    let action = |action: &str| json!({ "chat_id": CHAT, "action": action });
    assert_eq!(client.does("sendChatAction", &action("typing")), true);
    let wrong = "Bad Request: wrong parameter action in request";
    client.fails("sendChatAction", &action("dancing"), 400, wrong);

    let command = |name: &str, about: &str| json!({ "command": name, "description": about });
    let commands = |commands: Vec<Value>| json!({ "commands": commands });
    client.does(
        "setMyCommands",
        &commands(vec![command("status_2", "Says it")]),
    );
    for name in ["", "Status", "a-b", &"a".repeat(33)] {
        let wrong = commands(vec![command(name, "about")]);
        client.fails(
            "setMyCommands",
            &wrong,
            400,
            "Bad Request: BOT_COMMAND_INVALID",
        );
    }
    for about in [String::new(), "a".repeat(257)] {
        let wrong = commands(vec![command("a", &about)]);
        let invalid = "Bad Request: BOT_COMMAND_DESCRIPTION_INVALID";
        client.fails("setMyCommands", &wrong, 400, invalid);
    }
    let many = commands(vec![command("a", "b"); 101]);
    client.fails(
        "setMyCommands",
        &many,
        400,
        "Bad Request: BOT_COMMANDS_TOO_MUCH",
    );
    let none = "Bad Request: can't parse BotCommand: Expected an Array of BotCommand";
    client.fails("setMyCommands", &json!({}), 400, none);
}
