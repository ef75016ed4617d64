//! The bot as its owner meets it, as strangers do, and as a server that is not at its best does.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::harness::{
    Faults, Node, OWNER, Pair, SOON, Side, Talk, give_bot, read, set_token, wait, wait_until, wish,
    write,
};

const STRANGER: i64 = 666;

/// What one line of a block says, without the times in it.
fn line(block: &str, begins: &str) -> String {
    let line = block.lines().find(|line| line.starts_with(begins));
    let line = line.unwrap_or_else(|| panic!("no line {begins} in {block}"));
    let line = line.split(", seen ").next().unwrap();
    line.split("lease ").next().unwrap().trim().to_owned()
}

#[test]
fn the_chat_and_both_commands_tell_the_same_facts() {
    let talk = Talk::begin();
    write(&talk.pair.pusher.root, "notes/a.md", "one");
    talk.ask("/sync");
    // What the journals hold of a question is there a moment after its answer.
    wait_until("nothing is on its way", SOON, || {
        talk.pair.nodes().iter().all(|node| {
            let status = node.status();
            status["sync"]["in_sync"] == true
                && status["bot"]["inbox"] == 0
                && status["bot"]["outbox"] == 0
        })
    });
    let here = talk.pair.pusher.ask(["status"]).exits(0).stdout;
    let chat = talk.ask("/status").text;
    for begins in ["97LAYER", "Role", "Peer"] {
        let cut = |block: &str| {
            line(block, begins)
                .split("   ")
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(cut(&chat), cut(&here), "{begins}");
    }
    assert!(line(&chat, "Bot").starts_with("Bot      polling"), "{chat}");
    assert!(line(&here, "Bot").ends_with("inbox 0, outbox 0"), "{here}");

    let (pusher, receiver) = (talk.pair.pusher.status(), talk.pair.receiver.status());
    assert_eq!(pusher["node"]["epoch"], receiver["node"]["epoch"]);
    assert_eq!(pusher["lease"]["holder"], receiver["lease"]["holder"]);
    wait_until("the standby has read the journals", SOON, || {
        let (pusher, receiver) = (talk.pair.pusher.status(), talk.pair.receiver.status());
        let facts = [
            "last_update",
            "inbox",
            "outbox",
            "doubtful",
            "quarantined",
            "owner",
        ];
        facts
            .iter()
            .all(|fact| pusher["bot"][fact] == receiver["bot"][fact])
    });
    assert_eq!(receiver["bot"]["state"], "not_primary");
    let there = talk.pair.receiver.ask(["status"]).exits(0).stdout;
    assert_eq!(
        line(&there, "Peer").split("  ").next(),
        Some("Peer"),
        "{there}"
    );
    assert!(there.contains("vm           primary"), "{there}");
}

#[test]
fn commands() {
    let talk = Talk::begin();
    let root = &talk.pair.pusher.root;
    write(
        root,
        "notes/offer 2026.md",
        "The first line\nPrice <b>&amp; terms of the OFFER\n",
    );
    write(root, "메모/제안.md", "가격 & 조건");
    talk.pair.flush();
    // It is never synced.
    write(root, "notes/secret/.env", "OFFER=price");

    assert!(talk.ask("/start").text.contains("/restore"));
    assert!(
        talk.ask("/help@TestBot").text.contains("/status") || !talk.ask("/help").text.is_empty()
    );
    let synced = talk.ask("/sync").text;
    assert!(synced.starts_with("In sync: "), "{synced}");
    assert_eq!(talk.ask("/conflicts").text, "No conflicts.");
    let listed = talk.ask("/files").text;
    assert!(
        listed.contains("notes/") && listed.contains("메모/") && !listed.contains(".layer-sync"),
        "{listed}"
    );
    let listed = talk.ask("/files notes").text;
    assert!(
        listed.contains("offer 2026.md") && !listed.contains(".env"),
        "{listed}"
    );
    assert!(
        talk.ask("/files ../..")
            .text
            .contains("no path in the tree")
    );
    assert!(talk.ask("/files nowhere").text.contains("cannot be listed"));
    let found = talk.ask("/find offer price").text;
    assert!(
        found.contains("notes/offer 2026.md:2: Price <b>&amp; terms"),
        "{found}"
    );
    assert!(
        !found.contains(".env"),
        "what is never synced is never shown: {found}"
    );
    assert!(talk.ask("/find 조건").text.contains("메모/제안.md:1"));
    assert!(talk.ask("/find zebra").text.starts_with("Nothing found"));
    assert!(talk.ask("/find").text.starts_with("Say what"));
    let restarts = talk.ask("/restarts").text;
    assert!(
        restarts.contains("sync runs, 0 restarts") && restarts.contains("On mac"),
        "{restarts}"
    );
    assert!(talk.ask("/dance").text.contains("no /dance"));
    assert!(talk.ask("hello").text.contains("/help"));
    assert!(talk.ask("/promote nas").text.contains("no node \"nas\""));
    assert!(talk.ask("/promote vm").text.contains("primary already"));
    assert!(talk.ask("/pair ABCDEFGH").text.contains("owner already"));

    // What was replaced comes back.
    write(root, "notes/a.md", "one");
    talk.pair.arrives(Side::Receiver, "notes/a.md", "one");
    write(&talk.pair.receiver.root, "notes/a.md", "two");
    talk.pair.arrives(Side::Pusher, "notes/a.md", "two");
    let restored = talk.ask("/restore notes/a.md").text;
    assert!(restored.contains("\"notes/a.md\" is back"), "{restored}");
    talk.pair.arrives(Side::Receiver, "notes/a.md", "one");
    assert!(talk.ask("/restore notes/none.md").text.contains("none.md"));
    assert!(talk.ask("/restore").text.starts_with("Say which"));

    // An edit of a question is another question.
    let asked = talk.api.says(OWNER, "/conflict");
    assert!(talk.answer(asked).text.contains("no /conflict"));
    talk.api.edits(OWNER, asked, "/conflicts");
    wait_until("the edit is answered", SOON, || {
        talk.answer(asked).text == "No conflicts."
    });
}

#[test]
fn the_role_is_handed_over_from_the_chat_and_told_there() {
    let talk = Talk::begin();
    let said = talk.ask("/promote").text;
    assert!(said.contains("The role goes to mac"), "{said}");
    talk.hears(&["mac is primary now", "Before it was vm"]);
    talk.is_at_work(&talk.pair.receiver);
    assert!(talk.ask("/status").text.contains("mac, receiver (this)"));
    talk.ask("/promote vm");
    talk.hears(&["vm is primary now", "Before it was mac"]);
    // It is told once.
    talk.ask("/status");
    let told = talk
        .api
        .chat(OWNER)
        .iter()
        .filter(|said| said.text.contains("is primary now"))
        .count();
    assert_eq!(told, 2);
}

#[test]
fn a_conflict_is_told_and_decided_with_a_button() {
    let mut talk = Talk::begin();
    write(&talk.pair.pusher.root, "plan.md", "agreed");
    talk.pair.flush();
    talk.pair.receiver.stop();
    write(&talk.pair.pusher.root, "plan.md", "vm's");
    write(&talk.pair.receiver.root, "plan.md", "mac's");
    talk.pair.receiver.start();
    let told = talk.hears(&["Both machines changed \"plan.md\""]);
    let names: Vec<&str> = told.buttons.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(names, ["keep vm's", "keep mac's", "keep both"]);
    // Who is not the owner can press, and nothing happens.
    talk.pair.pusher.ask(["bot", "allow", "8001"]).exits(0);
    talk.api.says(8001, "/status");
    talk.api.presses(STRANGER, told.message, &told.buttons[1].1);
    talk.api.presses(OWNER, told.message, &told.buttons[1].1);
    let changed = talk.hears(&["Both machines changed \"plan.md\"", "→"]);
    assert_eq!((changed.message, changed.buttons.len()), (told.message, 0));
    for root in talk.pair.roots() {
        wait_until("the decision is there", SOON, || {
            read(&root, "plan.md").as_deref() == Some("mac's")
        });
    }
    assert_eq!(talk.ask("/conflicts").text, "No conflicts.");
}

#[test]
fn a_halt_is_told_and_undone_with_a_button() {
    let talk = Talk::begin();
    for number in 0..60 {
        write(
            &talk.pair.pusher.root,
            &format!("notes/{number}.md"),
            number.to_string(),
        );
    }
    talk.pair.flush();
    fs::remove_dir_all(talk.pair.receiver.root.join("notes")).unwrap();
    let undone = || read(&talk.pair.receiver.root, "notes/59.md").as_deref() == Some("59");
    // While the files go one by one, so does the batch; each is told, and only the last one can be undone.
    let mut pressed = BTreeSet::new();
    wait_until("it is undone", SOON, || {
        for told in talk.api.chat(OWNER) {
            let undo = told.buttons.iter().find(|(text, _)| text == "undo it");
            if let Some((_, data)) = undo
                && pressed.insert(data.clone())
            {
                talk.api.presses(OWNER, told.message, data);
            }
        }
        undone()
    });
    let told = talk.hears(&["Halted:", "→"]);
    assert!(told.buttons.is_empty(), "{told:?}");
    // The next one is told, too.
    talk.pair.flush();
    for number in 0..60 {
        write(&talk.pair.pusher.root, &format!("more/{number}.md"), "more");
    }
    talk.pair.flush();
    fs::remove_dir_all(talk.pair.receiver.root.join("more")).unwrap();
    wait("it is told", SOON, || {
        let chat = talk.api.chat(OWNER);
        let later = |said: &crate::harness::Said| said.message > told.message;
        chat.into_iter()
            .find(|said| later(said) && said.text.starts_with("Halted:"))
    });
}

#[test]
fn a_folder_that_is_gone_is_told_although_nothing_can_be_noted() {
    let mut talk = Talk::begin();
    // The sweep is what notices.
    talk.pair
        .pusher
        .set("interval = \"30s\"", "interval = \"1s\"");
    talk.pair.pusher.stop();
    talk.pair.pusher.start();
    talk.ask("/status");
    let root = &talk.pair.pusher.root;
    let away = root.with_extension("away");
    fs::rename(root, &away).unwrap();
    let told = talk.hears(&["Halted:"]);
    // What to do about a folder is decided by who can look at it.
    assert!(told.buttons.is_empty(), "{told:?}");
    let asked = talk.api.says(OWNER, "/status");
    talk.pair.pusher.problem("degraded.bot_journal");
    assert!(!root.exists(), "nothing was made where it was");
    fs::rename(&away, root).unwrap();
    // The question waited at Telegram.
    assert!(talk.answer(asked).text.contains("PRIMARY"));
    let count = talk
        .api
        .chat(OWNER)
        .iter()
        .filter(|said| said.text.starts_with("Halted:"))
        .count();
    assert_eq!(count, 1, "told once");
}

#[test]
fn strangers_are_told_so_once_and_cause_no_work() {
    let talk = Talk::begin();
    let before = talk.pair.pusher.status()["bot"].clone();
    for _ in 0..5 {
        talk.api.says(STRANGER, "/status");
        talk.api.says(STRANGER, "/pair AAAAAAAA");
    }
    for stranger in 10_000..10_300 {
        talk.api.says(stranger, "hello");
    }
    wait_until("all of it is taken", SOON, || talk.api.pending() == 0);
    let said = talk.ask("/status");
    assert!(
        said.text.contains("inbox 1") || said.text.contains("inbox 0"),
        "{said:?}"
    );
    wait_until("what is said is said", SOON, || {
        talk.pair.pusher.status()["bot"]["outbox"] == 0
    });
    let refused = talk.api.chat(STRANGER);
    let own: Vec<_> = refused
        .iter()
        .filter(|said| said.text.contains("answers its owner alone"))
        .collect();
    assert_eq!(own.len(), 1, "{refused:?}");
    assert!(own[0].text.contains(&STRANGER.to_string()));
    let all = (10_000..10_300).filter(|stranger| {
        talk.api
            .chat(*stranger)
            .iter()
            .any(|said| said.text.contains("owner alone"))
    });
    assert!(all.count() < 20, "not every one of many is answered");
    assert_eq!(
        talk.pair.pusher.status()["bot"]["quarantined"],
        before["quarantined"]
    );
    // A person at the machine lets one in, who may ask and change nothing.
    talk.pair
        .receiver
        .ask(["bot", "allow", &STRANGER.to_string()])
        .exits(0);
    wait_until("it is answered", SOON, || {
        talk.api.says(STRANGER, "/sync");
        thread::sleep(Duration::from_millis(500));
        talk.api
            .chat(STRANGER)
            .iter()
            .any(|said| said.text.starts_with("In sync"))
    });
    talk.api.says(STRANGER, "/promote");
    wait_until("it is refused", SOON, || {
        talk.api
            .chat(STRANGER)
            .iter()
            .any(|said| said.text == "Only the owner may do that.")
    });
    let people = talk.pair.pusher.ask(["bot", "allow"]).exits(0).stdout;
    assert!(
        people.contains("4711") && people.contains("ask and change") && people.contains("666"),
        "{people}"
    );
    talk.pair
        .pusher
        .ask(["bot", "deny", &STRANGER.to_string()])
        .exits(0);
    let people = talk.pair.pusher.ask(["bot", "allow"]).exits(0).stdout;
    assert!(!people.contains("666"), "{people}");
}

#[test]
fn a_pairing_code_is_good_once_and_for_five_tries() {
    let talk = Talk::begin();
    let code = || {
        talk.pair
            .pusher
            .ask(["bot", "pair"])
            .exits(0)
            .stdout
            .trim()
            .to_owned()
    };
    let paired = |user: i64, code: &str| {
        talk.api.says(user, &format!("/pair {code}"));
        wait("it is answered", SOON, || {
            talk.api
                .chat(user)
                .into_iter()
                .rfind(|said| said.reply_to.is_some())
        })
    };
    let first = code();
    assert!(paired(21, &first).text.contains("owner now"));
    talk.pair.pusher.ask(["bot", "deny", "21"]).exits(0);
    // It is used up, so whoever has it is a stranger.
    assert!(paired(22, &first).text.contains("owner alone"));
    let second = code();
    for user in 31..=35 {
        assert!(paired(user, "AAAAAAAA").text.contains("not the code"));
    }
    assert!(paired(36, &second).text.contains("owner alone"));
}

#[test]
fn a_text_is_sent_to_the_owner_from_either_machine() {
    let talk = Talk::begin();
    for (node, text) in [
        (&talk.pair.pusher, "from vm"),
        (&talk.pair.receiver, "from <mac> & co"),
    ] {
        node.ask(["bot", "send", text]).exits(0);
        talk.hears(&[text]);
    }
    let long = "줄 하나 📎\n".repeat(1500);
    talk.pair.pusher.ask(["bot", "send", &long]).exits(0);
    wait_until("all of it is there", SOON, || {
        let chat = talk.api.chat(OWNER);
        let lines: usize = chat
            .iter()
            .map(|said| said.text.matches("줄 하나 📎").count())
            .sum();
        lines == 1500
    });
}

#[test]
fn a_token_that_is_wrong_or_revoked_is_said_so() {
    let mut talk = Talk::begin();
    talk.api.revoke_token();
    let problem = talk.pair.pusher.problem("degraded.bot_token");
    assert!(
        problem["fix"].as_str().unwrap().contains("BotFather"),
        "{problem}"
    );
    assert_eq!(talk.pair.pusher.status()["bot"]["state"], "unauthorised");
    // The rest goes on.
    write(&talk.pair.pusher.root, "a.md", "1");
    talk.pair.arrives(Side::Receiver, "a.md", "1");
    talk.api.restore_token();
    talk.pair.pusher.ask(["duty", "restart", "bot"]).exits(0);
    talk.is_at_work(&talk.pair.pusher);

    set_token(&talk.pair.pusher, "no token");
    talk.pair.pusher.stop();
    talk.pair.pusher.start();
    talk.pair.pusher.problem("degraded.bot_token");
    talk.pair
        .pusher
        .ask(["bot", "pair"])
        .exits(1)
        .says(&["does not run"]);
    set_token(&talk.pair.pusher, &talk.api.token());
    talk.pair.pusher.ask(["duty", "restart", "bot"]).exits(0);
    talk.is_at_work(&talk.pair.pusher);
    assert!(
        !talk.pair.pusher.log().contains("TEST-token"),
        "the token is in no log"
    );
}

#[test]
fn a_node_without_a_token_says_so() {
    let pair = Pair::running();
    assert!(pair.pusher.status()["bot"].is_null());
    pair.pusher
        .ask(["bot", "pair"])
        .exits(1)
        .says(&["no token", "TELEGRAM_BOT_TOKEN"]);
}

#[test]
fn a_webhook_is_taken_away_once() {
    let talk = Talk::begin();
    talk.is_at_work(&talk.pair.pusher);
    talk.api.set_webhook("https://elsewhere.example.org/");
    talk.ask("/status");
    talk.api.set_webhook("https://elsewhere.example.org/");
    let problem = talk.pair.pusher.problem("degraded.bot_webhook");
    assert!(
        problem["text"].as_str().unwrap().contains("webhook"),
        "{problem}"
    );
}

#[test]
fn another_poller_is_an_alarm_and_stops_nothing() {
    let talk = Talk::begin();
    talk.is_at_work(&talk.pair.pusher);
    let address = talk.api.url().strip_prefix("http://").unwrap().to_owned();
    let token = talk.api.token();
    let noticed = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&noticed);
    let rival = thread::spawn(move || {
        let request = format!(
            "GET /bot{token}/getUpdates?timeout=2 HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
        );
        // It is a rival for as long as nobody has noticed.
        while !seen.load(Ordering::Relaxed) {
            let mut stream = TcpStream::connect(&address).unwrap();
            let (limit, mut answer) = (Some(Duration::from_secs(5)), String::new());
            stream.set_read_timeout(limit).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            drop(stream.read_to_string(&mut answer));
        }
    });
    let problem = talk.pair.pusher.problem("degraded.bot_conflict");
    noticed.store(true, Ordering::Relaxed);
    rival.join().unwrap();
    assert!(
        problem["fix"].as_str().unwrap().contains("BotFather"),
        "{problem}"
    );
    assert!(talk.pair.pusher.status()["bot"]["rivals"].as_u64() > Some(0));
    talk.ask("/status");
}

#[test]
fn what_cannot_be_read_is_put_aside() {
    let talk = Talk::begin();
    talk.api.queue(json!({ "thought": { "about": "tea" } }));
    talk.api
        .queue(json!({ "message": { "message_id": "five" } }));
    talk.api.queue(json!({ "message": {
        "message_id": 900, "date": 1, "text": "/find ".to_owned() + &"가".repeat(5 << 20 >> 1),
        "chat": { "id": OWNER, "type": "private", "first_name": "Ada" },
        "from": { "id": OWNER, "is_bot": false, "first_name": "Ada" },
    } }));
    assert!(talk.ask("/status").text.contains("PRIMARY"));
    wait_until("it is counted", SOON, || {
        talk.pair.pusher.status()["bot"]["quarantined"] == 2
    });
    wait_until("the long one is answered", SOON, || {
        talk.api
            .chat(OWNER)
            .iter()
            .any(|said| said.text.starts_with("Nothing found"))
    });
    let journals = talk.pair.pusher.root.join("knowledge/.journal/vm");
    let bytes: u64 = fs::read_dir(journals)
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes < 200_000, "five megabytes are not kept: {bytes}");
}

#[test]
fn a_server_that_is_not_at_its_best() {
    let talk = Talk::begin();
    // Refused for a while, and then said, once.
    talk.api.faults(Faults {
        too_many: Some((1, 2)),
        ..Faults::default()
    });
    let asked = talk.api.says(OWNER, "/conflicts");
    talk.answer(asked);
    // Marks that the server cannot read.
    talk.api.faults(Faults {
        parse_errors: 1,
        ..Faults::default()
    });
    assert!(talk.ask("/status").text.contains("PRIMARY"));
    talk.api.faults(Faults {
        server_errors: 4,
        ..Faults::default()
    });
    let after_errors = talk.api.says(OWNER, "/conflicts");
    talk.answer(after_errors);
    let doubtful = talk.pair.pusher.status()["bot"]["doubtful"]
        .as_u64()
        .unwrap();
    // It is sent, and nobody hears of it: then it is sent again, and counted.
    talk.api.faults(Faults {
        ambiguous: 1,
        ..Faults::default()
    });
    let twice = talk.api.says(OWNER, "/conflicts");
    wait_until("it is said twice", SOON, || {
        talk.api
            .chat(OWNER)
            .iter()
            .filter(|said| said.reply_to == Some(twice))
            .count()
            == 2
    });
    wait_until("it is counted", SOON, || {
        talk.pair.pusher.status()["bot"]["doubtful"].as_u64() > Some(doubtful)
    });
    let once = talk
        .api
        .chat(OWNER)
        .iter()
        .filter(|said| said.reply_to == Some(asked))
        .count();
    assert_eq!(once, 1);
    // Away altogether.
    talk.api.faults(Faults::default());
    assert!(talk.ask("/status").text.contains("PRIMARY"));
}

#[test]
fn a_bot_that_crashes_again_and_again_gives_the_role_away() {
    let talk = Talk::begin();
    talk.is_at_work(&talk.pair.pusher);
    let duty = |node: &Node| node.duty("bot");
    for crash in 1..=4 {
        talk.pair.pusher.ask(["duty", "crash", "bot"]).exits(0);
        wait_until("it runs again", SOON, || {
            let duty = duty(&talk.pair.pusher);
            (&duty["state"], &duty["restarts"]) == (&"running".into(), &crash.into())
        });
        talk.ask("/status");
    }
    let begun = std::time::Instant::now();
    talk.pair.pusher.ask(["duty", "crash", "bot"]).exits(0);
    let acts = wait("the other one acts", SOON, || {
        talk.api.first_since(begun, "mac")
    });
    println!("taken over after {:?}", acts - begun);
    assert!(acts - begun < Duration::from_secs(2), "{:?}", acts - begun);
    // A sixth time there is nothing left to crash.
    talk.pair
        .pusher
        .ask(["duty", "crash", "bot"])
        .exits(1)
        .says(&["does not run"]);
    let status = talk.pair.pusher.status();
    assert_eq!(status["node"]["role"], "safe_mode", "{status}");
    let problem = talk.pair.pusher.problem("degraded.safe_mode");
    assert_eq!(problem["fix"], "layer-sync duty restart bot", "{problem}");
    let told = talk.hears(&["vm is in safe mode", "crashed again and again"]);
    assert!(
        told.text.contains("layer-sync duty restart bot"),
        "{told:?}"
    );
    assert!(
        talk.ask("/restarts")
            .text
            .contains("crashed again and again")
    );
    // The tree is as safe as ever.
    write(&talk.pair.receiver.root, "a.md", "1");
    talk.pair.arrives(Side::Pusher, "a.md", "1");
    talk.pair.pusher.ask(["duty", "restart", "bot"]).exits(0);
    wait_until("it is well again", SOON, || {
        talk.pair.pusher.status()["node"]["role"] == "standby"
    });
}

#[test]
fn what_the_bot_knows_is_in_the_tree() {
    let mut talk = Talk::begin();
    talk.ask("/status");
    talk.pair.flush();
    let before = talk.api.chat(OWNER).len();
    for side in [Side::Pusher, Side::Receiver] {
        talk.pair.node_mut(side).stop();
        let state = talk.pair.node(side).home.join("state");
        for file in fs::read_dir(&state)
            .unwrap()
            .map(|file| file.unwrap().path())
        {
            if file
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("bot.sqlite")
            {
                fs::write(file, "not a database").unwrap();
            }
        }
        talk.pair.node_mut(side).start();
    }
    talk.pair.meet();
    // The owner is still the owner, and nothing is answered again.
    talk.ask("/status");
    talk.is_at_work(&talk.pair.pusher);
    assert_eq!(
        talk.api.chat(OWNER).len(),
        before + 1,
        "{:?}",
        talk.api.chat(OWNER)
    );
    // No journal was ever in conflict.
    let names = fs::read_dir(talk.pair.pusher.root.join("knowledge/.journal/vm")).unwrap();
    for name in names.map(|name| name.unwrap().file_name().into_string().unwrap()) {
        assert!(
            name.ends_with(".jsonl") && !name.contains("conflict"),
            "{name}"
        );
    }
}

#[test]
fn a_backlog_is_handled_once_and_in_order() {
    let count = wish("BACKLOG").unwrap_or(500) as usize;
    let mut talk = Talk::begin();
    let users: Vec<i64> = (0..20).map(|user| 9000 + user).collect();
    for user in &users {
        talk.pair
            .pusher
            .ask(["bot", "allow", &user.to_string()])
            .exits(0);
    }
    talk.pair.flush();
    talk.pair.pusher.stop();
    talk.api.faults(Faults {
        enforce_limits: true,
        ..Faults::default()
    });
    for number in 0..count {
        talk.api
            .says(users[number % users.len()], &format!("/n{number:05}"));
    }
    let begun = std::time::Instant::now();
    talk.pair.pusher.start();
    let most = Duration::from_secs(60 + count as u64 / 20);
    let mut rss = 0;
    wait_until("all of it is answered", most, || {
        let status = talk.pair.pusher.status();
        rss = rss.max(status["self"]["rss_bytes"].as_u64().unwrap());
        talk.api.pending() == 0 && status["bot"]["inbox"] == 0 && status["bot"]["outbox"] == 0
    });
    println!(
        "{count} in {:?}, at most {} MiB",
        begun.elapsed(),
        rss >> 20
    );
    for (index, user) in users.iter().enumerate() {
        let chat = talk.api.chat(*user);
        let text: String = chat.iter().map(|said| format!("{}\n", said.text)).collect();
        let answered: Vec<usize> = text
            .lines()
            .filter_map(|line| line.strip_prefix("There is no /n")?.get(..5)?.parse().ok())
            .collect();
        let expected: Vec<usize> = (0..count)
            .filter(|number| number % users.len() == index)
            .collect();
        assert_eq!(answered, expected, "of {user}, once and in order");
    }
    assert_eq!(talk.api.limit_breaks(), 0);
    assert_eq!(talk.pair.pusher.status()["bot"]["doubtful"], 0);
}

#[test]
fn a_bot_that_is_given_later_begins_with_its_restart() {
    let pair = Pair::running();
    let api = crate::harness::BotApi::start();
    give_bot(&pair.pusher, &api.url(), &api.token());
    let mut pair = pair;
    pair.pusher.stop();
    pair.pusher.start();
    wait_until("it is at work", SOON, || {
        pair.pusher.status()["bot"]["state"] == "polling"
    });
    // The other one has none, and is well all the same.
    assert!(pair.receiver.status()["bot"].is_null());
}
