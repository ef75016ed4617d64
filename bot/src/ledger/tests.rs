use std::collections::BTreeSet;

use shared::control::Person;

use super::*;
use crate::heard::Heard;
use crate::port::fake::Fake;
use crate::say::Say;
use crate::text::Body;

/// A node with its view on a real disk.
struct Bench {
    port: Arc<Fake>,
    dir: tempfile::TempDir,
    name: &'static str,
}

impl Bench {
    fn new(name: &'static str) -> Self {
        Self {
            port: Arc::new(Fake::new()),
            dir: tempfile::tempdir().expect("a folder"),
            name,
        }
    }

    fn open(&self) -> Ledger {
        let port: Arc<dyn Port> = Arc::clone(&self.port) as _;
        Ledger::open(port, self.name, &self.view()).expect("it opens")
    }

    fn view(&self) -> std::path::PathBuf {
        self.dir.path().join("bot.sqlite")
    }
}

fn heard(number: i64) -> Heard {
    Heard {
        key: format!("7:m:1:{number}:0"),
        update: number,
        chat: 1,
        private: true,
        from: 1,
        name: "Ada".to_owned(),
        message: number,
        text: format!("/n{number}"),
        press: None,
    }
}

fn received(number: i64) -> What {
    What::Received(heard(number))
}

fn say(number: i64) -> Say {
    Say::new(
        format!("7:m:1:{number}:0/0"),
        1,
        Body::plain(format!("answer {number}")),
    )
}

fn answered(number: i64) -> What {
    What::Answered {
        key: heard(number).key,
        says: vec![say(number)],
    }
}

fn claimed(number: i64, attempt: u32) -> What {
    What::Claimed {
        ids: vec![say(number).id],
        attempt,
    }
}

fn sent(number: i64) -> What {
    What::Sent {
        ids: vec![say(number).id],
        message: 100 + number,
    }
}

fn waiting(ledger: &Ledger) -> Vec<i64> {
    let waiting = ledger
        .view()
        .waiting(&BTreeSet::new(), 8, 100)
        .expect("a list");
    waiting
        .into_iter()
        .flatten()
        .map(|waiting| waiting.heard.update)
        .collect()
}

fn due(ledger: &Ledger) -> Vec<(String, u32)> {
    let chats = ledger
        .view()
        .due_chats(&BTreeSet::new(), 8)
        .expect("a list");
    let due = chats
        .into_iter()
        .flat_map(|chat| ledger.view().due(chat, 100).expect("a list"));
    due.map(|due| (due.say.body.as_plain(), due.attempt))
        .collect()
}

#[test]
fn what_is_noted_is_known_and_goes_its_way() {
    let bench = Bench::new("vm");
    let mut ledger = bench.open();
    ledger.set_epoch(3);
    ledger
        .note(vec![received(1), received(2)])
        .expect("it is noted");
    assert_eq!(waiting(&ledger), [1, 2]);
    assert!(ledger.view().is_known(&heard(1).key).expect("an answer"));
    ledger.note(vec![answered(1)]).expect("it is noted");
    assert_eq!(
        (waiting(&ledger), due(&ledger)),
        (vec![2], vec![("answer 1".to_owned(), 0)])
    );
    // A claim without a result is due again, and its next attempt is not the first.
    ledger.note(vec![claimed(1, 1)]).expect("it is noted");
    assert_eq!(due(&ledger), [("answer 1".to_owned(), 1)]);
    ledger
        .note(vec![claimed(1, 2), sent(1)])
        .expect("it is noted");
    assert!(due(&ledger).is_empty());
    let totals = ledger.view().totals().expect("totals");
    assert_eq!((totals.inbox, totals.outbox, totals.doubtful), (1, 0, 1));
    assert_eq!(ledger.view().said(1, 101).expect("an answer"), Some(say(1)));
}

#[test]
fn what_was_refused_counts_as_not_tried() {
    let bench = Bench::new("vm");
    let mut ledger = bench.open();
    let ids = vec![say(1).id];
    let noted = vec![
        answered(1),
        claimed(1, 1),
        What::Returned { ids },
        claimed(1, 1),
    ];
    ledger.note(noted).expect("it is noted");
    assert_eq!(due(&ledger), [("answer 1".to_owned(), 1)]);
    assert_eq!(ledger.view().totals().expect("totals").doubtful, 0);
}

#[test]
fn a_view_that_is_lost_or_broken_is_made_anew() {
    let bench = Bench::new("vm");
    let mut ledger = bench.open();
    ledger.set_epoch(1);
    ledger
        .note(vec![received(1), received(2), answered(2), sent(2)])
        .expect("it is noted");
    let totals = ledger.view().totals().expect("totals");
    drop(ledger);
    for broken in [None, Some(b"not a database".to_vec()), Some(Vec::new())] {
        for ending in ["-wal", "-shm"] {
            drop(std::fs::remove_file(
                bench.dir.path().join(format!("bot.sqlite{ending}")),
            ));
        }
        match broken {
            None => std::fs::remove_file(bench.view()).expect("it is removed"),
            Some(bytes) => std::fs::write(bench.view(), bytes).expect("it is written"),
        }
        let ledger = bench.open();
        assert!(ledger.view().is_new);
        assert_eq!(waiting(&ledger), [1]);
        assert_eq!(ledger.view().totals().expect("totals"), totals);
    }
    assert!(!bench.open().view().is_new);
}

#[test]
fn the_other_node_goes_on_where_this_one_was() {
    let (vm, mac) = (Bench::new("vm"), Bench::new("mac"));
    let mut there = vm.open();
    there.set_epoch(1);
    there
        .note(vec![
            received(1),
            received(2),
            received(3),
            answered(1),
            claimed(1, 1),
            sent(1),
        ])
        .expect("it is noted");
    there
        .note(vec![What::Begun { key: heard(2).key }])
        .expect("it is noted");

    let mut here = mac.open();
    mac.port.receive(&vm.port, 0);
    assert!(here.refresh().expect("it is read"));
    assert!(!here.refresh().expect("and once is enough"));
    let left = here
        .view()
        .waiting(&BTreeSet::new(), 8, 100)
        .expect("a list");
    let left: Vec<(i64, bool)> = left
        .into_iter()
        .flatten()
        .map(|left| (left.heard.update, left.begun))
        .collect();
    assert_eq!(left, [(2, true), (3, false)]);
    here.set_epoch(2);
    here.note(vec![answered(2), answered(3), claimed(3, 1), sent(3)])
        .expect("it is noted");

    // What the old primary did meanwhile, and nobody heard of: its answer to 3 is no second one.
    there.note(vec![answered(3)]).expect("it is noted");
    mac.port.receive(&vm.port, 0);
    here.refresh().expect("it is read");
    assert!(waiting(&here).is_empty());
    assert_eq!(due(&here), [("answer 2".to_owned(), 0)]);
    vm.port.receive(&mac.port, 0);
    there.refresh().expect("it is read");
    assert_eq!((waiting(&there), due(&there)), (waiting(&here), due(&here)));
}

#[test]
fn half_a_line_waits_for_its_end_and_never_counts_without() {
    let (vm, mac) = (Bench::new("vm"), Bench::new("mac"));
    let mut there = vm.open();
    there
        .note(vec![received(1), received(2)])
        .expect("it is noted");
    let mut here = mac.open();
    mac.port.receive(&vm.port, 5);
    here.refresh().expect("it is read");
    assert_eq!(waiting(&here), [1]);
    mac.port.receive(&vm.port, 0);
    here.refresh().expect("it is read");
    assert_eq!(waiting(&here), [1, 2]);

    // The power went in the middle of a line, and whoever wrote it goes on.
    vm.port.with(|files| {
        files
            .values_mut()
            .for_each(|file| file.truncate(file.len() - 5));
    });
    drop(there);
    std::fs::remove_file(vm.view()).expect("it is removed");
    let mut there = vm.open();
    assert_eq!(waiting(&there), [1]);
    there.note(vec![received(3)]).expect("it is noted");
    drop(there);
    std::fs::remove_file(vm.view()).expect("it is removed");
    assert_eq!(waiting(&vm.open()), [1, 3]);
}

#[test]
fn a_line_that_is_not_durable_did_not_happen() {
    let bench = Bench::new("vm");
    let mut ledger = bench.open();
    *bench.port.read_only.lock().expect("a lock") = true;
    ledger
        .note(vec![received(1)])
        .expect_err("it cannot be noted");
    assert!(waiting(&ledger).is_empty());
    *bench.port.read_only.lock().expect("a lock") = false;
    ledger.note(vec![received(1)]).expect("it is noted");
    assert_eq!(waiting(&ledger), [1]);
}

#[test]
fn each_lease_and_each_megabyte_has_a_file_of_its_own() {
    let bench = Bench::new("vm");
    let mut ledger = bench.open();
    for epoch in [1, 2] {
        ledger.set_epoch(epoch);
        ledger.note(vec![received(1)]).expect("it is noted");
    }
    let mut long = heard(3);
    long.text = "x".repeat(8000);
    for _ in 0..140 {
        ledger
            .note(vec![What::Received(long.clone())])
            .expect("it is noted");
    }
    let files = bench
        .port
        .with(|files| files.keys().cloned().collect::<Vec<_>>());
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(
        files[0].ends_with("/00000001-0000000001.jsonl"),
        "{files:?}"
    );
    assert!(
        files[1].ends_with("/00000002-0000000002.jsonl"),
        "{files:?}"
    );
}

#[test]
fn what_is_old_goes_and_people_stay() {
    let bench = Bench::new("vm");
    let mut ledger = bench.open();
    let ada = Person {
        user: 1,
        name: "Ada".to_owned(),
        owner: true,
    };
    ledger.set_epoch(1);
    ledger
        .note(vec![
            What::Allowed {
                person: ada.clone(),
            },
            received(1),
            answered(1),
            sent(1),
        ])
        .expect("it is noted");
    let later = UtcMs(ledger.now().0 + KEPT_MS + 1000);
    *bench.port.utc.lock().expect("a lock") = later;
    ledger.set_epoch(2);
    let people = ledger.view().people().expect("people");
    let node = "vm".to_owned();
    ledger
        .note(vec![What::Began { node, people }])
        .expect("it is noted");
    ledger.prune().expect("it is pruned");
    assert_eq!(bench.port.with(|files| files.len()), 1);
    drop(ledger);
    std::fs::remove_file(bench.view()).expect("it is removed");
    let ledger = bench.open();
    assert_eq!(ledger.view().person(1).expect("an answer"), Some(ada));
    assert!(!ledger.view().is_known(&heard(1).key).expect("an answer"));
}

#[test]
fn the_later_word_about_a_person_counts() {
    let (vm, mac) = (Bench::new("vm"), Bench::new("mac"));
    let (mut there, mut here) = (vm.open(), mac.open());
    let ada = |owner| What::Allowed {
        person: Person {
            user: 1,
            name: "Ada".to_owned(),
            owner,
        },
    };
    there.set_epoch(4);
    for _ in 0..20 {
        there.note(vec![received(1)]).expect("it is noted");
    }
    there.note(vec![ada(true)]).expect("it is noted");
    // The standby has read that, so what it says next is later, under the same epoch.
    mac.port.receive(&vm.port, 0);
    here.refresh().expect("it is read");
    here.set_epoch(4);
    here.note(vec![What::Denied { user: 1 }])
        .expect("it is noted");
    vm.port.receive(&mac.port, 0);
    there.refresh().expect("it is read");
    for ledger in [&there, &here] {
        assert_eq!(ledger.view().person(1).expect("an answer"), None);
    }
}

#[test]
fn a_code_is_open_for_ten_minutes_and_five_tries_whatever_the_clock_does() {
    let bench = Bench::new("vm");
    let mut ledger = bench.open();
    let now = ledger.now();
    let hash = "h".to_owned();
    let until = UtcMs(now.0 + OFFER_MS);
    ledger
        .note(vec![What::Offered {
            hash: hash.clone(),
            until,
        }])
        .expect("it is noted");
    let open =
        |ledger: &Ledger, at: u64| !ledger.open_offers(UtcMs(at)).expect("an answer").is_empty();
    assert!(open(&ledger, now.0) && open(&ledger, until.0 - 1));
    assert!(!open(&ledger, until.0));
    // A day back, or on.
    assert!(!open(&ledger, now.0 - 86_400_000) && !open(&ledger, now.0 + 86_400_000));
    for _ in 0..5 {
        assert!(open(&ledger, now.0));
        ledger
            .note(vec![What::Missed { hash: hash.clone() }])
            .expect("it is noted");
    }
    assert!(!open(&ledger, now.0));
}

#[test]
fn what_else_lies_there_is_no_journal() {
    let bench = Bench::new("vm");
    bench.port.with(|files| {
        for name in [
            "vm/1-1 (conflict mac 2026-11-30 120000 abcd).jsonl",
            "vm/notes.md",
            "1-1.jsonl",
            "vm/1-2.jsonl",
        ] {
            files.insert(
                format!("{FOLDER}/{name}"),
                b"{\"v\":1}\nnothing\n\n\xff\xfe\n".to_vec(),
            );
        }
    });
    let ledger = bench.open();
    assert!(waiting(&ledger).is_empty());
    assert_eq!(ledger.view().last_seq().expect("a number"), 0);
}

#[test]
fn an_older_copy_of_a_journal_hides_nothing() {
    let (vm, mac) = (Bench::new("vm"), Bench::new("mac"));
    let mut there = vm.open();
    there.note(vec![received(1)]).expect("it is noted");
    let old = vm.port.with(|files| files.clone());
    there.note(vec![received(2)]).expect("it is noted");
    let mut here = mac.open();
    mac.port.receive(&vm.port, 0);
    here.refresh().expect("it is read");
    assert_eq!(waiting(&here), [1, 2]);
    mac.port.with(|files| *files = old);
    here.refresh().expect("it is read");
    let line = Record::new(1, 9, here.now(), received(3)).line();
    mac.port.with(|files| {
        files
            .values_mut()
            .for_each(|file| file.extend_from_slice(line.as_bytes()));
    });
    here.refresh().expect("it is read");
    assert_eq!(waiting(&here), [1, 2, 3]);
}
