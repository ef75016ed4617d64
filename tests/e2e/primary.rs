//! Who is primary: promotions, a primary that dies, sleeps or is stopped, and a pusher that is out of reach.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::harness::{
    Answer, Node, Pair, SOON, Side, command, layer_sync_told, names, read, wait_until, write,
};

/// A lease that nobody renews ends after 15 s.
const LEASE: Duration = Duration::from_secs(15);

fn role(node: &Node) -> String {
    let role = node.status()["node"]["role"].clone();
    role.as_str().expect("a role").to_owned()
}

fn epoch(node: &Node) -> u64 {
    node.status()["node"]["epoch"].as_u64().expect("an epoch")
}

/// Waits until one side is the primary, the other one is not, and both say so.
#[track_caller]
fn is_primary(pair: &Pair, side: Side) -> u64 {
    let (first, second) = match side {
        Side::Pusher => (&pair.pusher, &pair.receiver),
        Side::Receiver => (&pair.receiver, &pair.pusher),
    };
    wait_until("the role is there", SOON, || {
        role(first) == "primary" && role(second) == "standby" && epoch(first) == epoch(second)
    });
    for status in [first.status(), second.status()] {
        assert_eq!(status["lease"]["holder"], side.name(), "{status}");
    }
    epoch(first)
}

fn promoted(answer: Answer) -> Value {
    answer.exits(0).json()["primary"].clone()
}

#[test]
fn the_role_is_handed_over_and_back() {
    let pair = Pair::running();
    let mut last = is_primary(&pair, Side::Pusher);
    for (asked, args, side, id) in [
        (
            &pair.receiver,
            &["promote", "--json"][..],
            Side::Receiver,
            "mac",
        ),
        (
            &pair.receiver,
            &["promote", "--json", "--to", "vm"],
            Side::Pusher,
            "vm",
        ),
        (
            &pair.pusher,
            &["promote", "--json", "--to", "receiver"],
            Side::Receiver,
            "mac",
        ),
        (&pair.pusher, &["promote", "--json"], Side::Pusher, "vm"),
    ] {
        let begun = Instant::now();
        let primary = promoted(asked.ask(args));
        println!("{args:?} took {:?}", begun.elapsed());
        assert_eq!(
            (&primary["id"], &primary["side"]),
            (&id.into(), &side.name().into())
        );
        let now = is_primary(&pair, side);
        assert_eq!(primary["epoch"], now);
        assert!(
            now > last,
            "each holder has an epoch of its own: {last}, {now}"
        );
        // It is there already.
        assert_eq!(promoted(asked.ask(args))["epoch"], now);
        last = now;
    }
    pair.pusher
        .ask(["promote", "--to", "nas"])
        .exits(2)
        .says(&["no node \"nas\"", "mac"]);
    pair.pusher.ask(["promote", "--force"]).exits(2);
}

#[test]
fn who_follows_the_events_hears_of_a_change_on_both_sides() {
    let pair = Pair::running();
    is_primary(&pair, Side::Pusher);
    let followed = pair.nodes().map(|node| {
        let mut command = command(&node.home);
        command.args(["events", "--follow"]).stdout(Stdio::piped());
        let mut events = command.spawn().unwrap();
        let lines = BufReader::new(events.stdout.take().unwrap()).lines();
        (events, lines)
    });
    // Whoever follows is there when it sees a change.
    let begun = std::thread::scope(|scope| {
        let readers = followed.map(|(mut events, lines)| {
            scope.spawn(move || {
                let line = lines
                    .map(Result::unwrap)
                    // The time of day stands before it.
                    .find_map(|line| Some(line.split_once("  primary      ")?.1.to_owned()));
                events.kill().unwrap();
                events.wait().unwrap();
                line
            })
        });
        let mut to = ["receiver", "pusher"].iter().cycle();
        while readers.iter().any(|reader| !reader.is_finished()) {
            pair.pusher
                .ask(["promote", "--to", to.next().unwrap()])
                .exits(0);
        }
        readers.map(|reader| reader.join().unwrap().unwrap())
    });
    for line in begun {
        assert!(
            line.starts_with("mac, the receiver, epoch ")
                || line.starts_with("vm, the pusher, epoch "),
            "{line}"
        );
    }
}

#[test]
fn the_primarys_version_keeps_the_path() {
    let mut pair = Pair::running();
    write(&pair.pusher.root, "plan.md", "agreed");
    pair.flush();
    pair.receiver.ask(["promote"]).exits(0);
    is_primary(&pair, Side::Receiver);
    pair.pusher.stop();
    write(&pair.pusher.root, "plan.md", "the pusher's");
    write(&pair.receiver.root, "plan.md", "the receiver's");
    pair.pusher.start();
    pair.flush();
    for root in pair.roots() {
        assert_eq!(read(&root, "plan.md").as_deref(), Some("the receiver's"));
        let copies = names(&root);
        assert_eq!(copies.len(), 2, "{copies:?}");
        assert!(copies[0].starts_with("plan (conflict vm "), "{copies:?}");
    }
}

#[test]
fn a_receiver_that_is_stopped_lets_go_at_once() {
    let mut pair = Pair::running();
    pair.receiver.ask(["promote"]).exits(0);
    let before = is_primary(&pair, Side::Receiver);
    let begun = Instant::now();
    pair.receiver.stop();
    wait_until("the pusher is primary", SOON, || {
        role(&pair.pusher) == "primary"
    });
    assert!(
        begun.elapsed() < LEASE,
        "it did not wait for the end of the lease"
    );
    assert!(epoch(&pair.pusher) > before);
    pair.receiver.start();
    is_primary(&pair, Side::Pusher);
}

#[test]
fn a_node_that_starts_again_goes_on() {
    let mut pair = Pair::running();
    let first = is_primary(&pair, Side::Pusher);
    pair.pusher.kill();
    pair.pusher.start();
    assert!(is_primary(&pair, Side::Pusher) > first);
    pair.receiver.ask(["promote"]).exits(0);
    let second = is_primary(&pair, Side::Receiver);
    pair.receiver.kill();
    pair.receiver.start();
    assert!(is_primary(&pair, Side::Receiver) > second);
}

#[test]
fn a_primary_that_dies_is_replaced_when_its_lease_is_over() {
    let mut pair = Pair::running();
    pair.receiver.ask(["promote"]).exits(0);
    is_primary(&pair, Side::Receiver);
    let begun = Instant::now();
    pair.receiver.kill();
    wait_until("the pusher is primary", SOON, || {
        let took = begun.elapsed();
        let primary = role(&pair.pusher) == "primary";
        assert!(
            !primary || took > LEASE,
            "after {took:?} the dead one's lease may still be valid"
        );
        primary
    });
    println!("taken over after {:?}", begun.elapsed());
}

#[test]
fn a_primary_that_slept_is_none_when_it_wakes() {
    let mut pair = Pair::running();
    pair.receiver.ask(["promote"]).exits(0);
    is_primary(&pair, Side::Receiver);
    kill_process(pair.receiver.pid(), Signal::STOP).expect("it is stopped");
    std::thread::sleep(LEASE);
    // Nobody tells it anything any more.
    pair.pusher.kill();
    kill_process(pair.receiver.pid(), Signal::CONT).expect("it goes on");
    let status = pair.receiver.status();
    assert_ne!(status["node"]["role"], "primary", "{status}");
    assert_eq!(status["lease"]["remaining_ms"], Value::Null, "{status}");
}

#[test]
fn a_role_is_forced_by_who_types_the_name_of_the_other_node() {
    let mut pair = Pair::running();
    let before = is_primary(&pair, Side::Pusher);
    // The pusher is there and decides.
    layer_sync_told(&pair.receiver.home, "vm\n", ["promote", "--force"])
        .exits(1)
        .says(&["can be reached"]);
    pair.pusher.kill();
    wait_until("the receiver notices", SOON, || {
        pair.receiver.status()["peer"]["state"] == "unlinked"
    });
    pair.receiver
        .ask(["promote"])
        .exits(1)
        .says(&["cannot be reached"]);
    let refused = layer_sync_told(&pair.receiver.home, "yes\n", ["promote", "--force"]).exits(2);
    assert!(
        refused.stderr.contains("nothing was changed"),
        "{refused:#?}"
    );
    assert_eq!(role(&pair.receiver), "standby");
    layer_sync_told(&pair.receiver.home, "vm\n", ["promote", "--force"]).exits(0);
    let status = pair.receiver.status();
    assert_eq!(status["node"]["role"], "primary", "{status}");
    assert_eq!(status["lease"]["forced"], true, "{status}");
    assert_eq!(epoch(&pair.receiver), before + 1000);

    // It lasts, and the pusher takes it as it is.
    pair.receiver.kill();
    pair.receiver.start();
    assert_eq!(role(&pair.receiver), "primary");
    pair.pusher.start();
    assert!(is_primary(&pair, Side::Receiver) >= before + 1000);
    assert_eq!(pair.receiver.status()["lease"]["forced"], false);
}

#[test]
fn a_node_whose_sync_crashes_again_and_again_is_in_safe_mode() {
    let pair = Pair::running();
    pair.receiver.ask(["promote"]).exits(0);
    is_primary(&pair, Side::Receiver);
    let duty = |node: &Node| node.duty("sync");
    for crash in 1..=4 {
        pair.receiver.ask(["duty", "crash", "sync"]).exits(0);
        wait_until("it runs again", SOON, || {
            let duty = duty(&pair.receiver);
            (&duty["state"], &duty["restarts"]) == (&"running".into(), &crash.into())
        });
        // It is a restart and no change: nothing was lost, and the role stays.
        let name = format!("after-{crash}.md");
        write(&pair.pusher.root, &name, "1");
        pair.arrives(Side::Receiver, &name, "1");
    }
    is_primary(&pair, Side::Receiver);
    let begun = Instant::now();
    pair.receiver.ask(["duty", "crash", "sync"]).exits(0);
    let problem = pair.receiver.problem("halted.safe_mode");
    assert_eq!(problem["fix"], "layer-sync duty restart sync", "{problem}");
    assert_eq!(role(&pair.receiver), "safe_mode");
    // It connects once more, for the lease alone.
    wait_until("the pusher is primary", SOON, || {
        role(&pair.pusher) == "primary"
    });
    println!("taken over after {:?}", begun.elapsed());
    assert!(
        begun.elapsed() < LEASE,
        "it did not wait for the end of the lease"
    );
    pair.receiver.ask(["status", "--check"]).exits(5);
    pair.receiver
        .ask(["plan"])
        .exits(5)
        .says(&["does not run", "layer-sync status"]);
    pair.receiver
        .ask(["duty", "crash", "sync"])
        .exits(1)
        .says(&["does not run"]);
    pair.receiver
        .ask(["duty", "crash", "tea"])
        .exits(2)
        .says(&["no duty \"tea\"", "sync"]);

    // A person starts it again; the role stays where it is.
    write(&pair.pusher.root, "meanwhile.md", "1");
    pair.receiver.ask(["duty", "restart", "sync"]).exits(0);
    pair.arrives(Side::Receiver, "meanwhile.md", "1");
    is_primary(&pair, Side::Pusher);
    let listed = pair.receiver.ask(["duty", "list"]).exits(0).stdout;
    let line = listed.lines().find(|line| line.starts_with("sync"));
    assert!(line.is_some_and(|line| line.contains("runs")), "{listed}");
}

#[test]
fn a_pusher_whose_sync_is_parked_keeps_the_role() {
    let pair = Pair::running();
    let before = is_primary(&pair, Side::Pusher);
    for crash in 1..=5 {
        pair.pusher.ask(["duty", "crash", "sync"]).exits(0);
        wait_until("it crashed", SOON, || {
            let duty = pair.pusher.duty("sync");
            duty["state"] == "parked" || duty["restarts"] == crash
        });
    }
    pair.pusher.problem("halted.safe_mode");
    // Nobody else could ask for it.
    assert_eq!(
        (role(&pair.pusher), epoch(&pair.pusher)),
        ("primary".to_owned(), before)
    );
    pair.pusher.ask(["duty", "restart", "sync"]).exits(0);
    write(&pair.pusher.root, "a.md", "1");
    pair.arrives(Side::Receiver, "a.md", "1");
    assert_eq!(is_primary(&pair, Side::Pusher), before);
}
