//! A clock that jumps: the time of day is for people, so nothing depends on it that must not.
//!
//! Debian's package `faketime` gives a program another time of day while it runs; without it there is nothing to test with.

use std::fs;
use std::path::Path;

use crate::harness::{OWNER, SOON, Side, Talk, wait_until, write};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

#[test]
fn a_day_on_and_a_day_back_change_nothing() {
    if !Path::new(LIBRARY).exists() {
        println!("skipped: {LIBRARY} is not there");
        return;
    }
    let mut talk = Talk::begin();
    let clock = talk.pair.scratch().join("clock");
    fs::write(&clock, "+0").unwrap();
    let words = [
        "env".to_owned(),
        format!("LD_PRELOAD={LIBRARY}"),
        format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    talk.pair.pusher.stop();
    talk.pair.pusher.start_under(&words);
    talk.pair.meet();
    talk.is_at_work(&talk.pair.pusher);
    let day = || talk.pair.pusher.status()["now"].as_u64().unwrap() / 86_400_000;
    let (today, epoch) = (day(), talk.pair.pusher.status()["node"]["epoch"].clone());
    let code = talk.pair.pusher.ask(["bot", "pair"]).exits(0).stdout;
    for (number, jump, days) in [
        (1, "+86400", 1),
        (2, "+0", 0),
        (3, "-86400", -1),
        (4, "+0", 0),
    ] {
        fs::write(&clock, jump).unwrap();
        wait_until("the clock jumps", SOON, || {
            day() == today.saturating_add_signed(days)
        });
        assert!(talk.ask("/status").text.contains("PRIMARY"));
        let name = format!("notes/{number}.md");
        write(&talk.pair.pusher.root, &name, jump);
        talk.pair.arrives(Side::Receiver, &name, jump);
        let status = talk.pair.pusher.status();
        assert_eq!(
            (&status["node"]["role"], &status["node"]["epoch"]),
            (&"primary".into(), &epoch),
            "{jump}"
        );
        assert_eq!(status["lease"]["holder"], "pusher");
        if days != 0 {
            talk.api.says(8001, &format!("/pair {}", code.trim()));
            talk.ask("/status");
            let people = talk.pair.pusher.ask(["bot", "allow"]).exits(0).stdout;
            assert!(
                !people.contains("8001"),
                "the code is too old, or too young: {people}"
            );
        }
    }
    let sent = talk.api.chat(OWNER).len();
    talk.ask("/status");
    assert_eq!(
        talk.api.chat(OWNER).len(),
        sent + 1,
        "nothing is said again"
    );
}
