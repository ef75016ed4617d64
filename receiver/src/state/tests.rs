//! The receiver's answers, event by event. The pusher is played by hand.

use std::time::Duration;

use disk::quiet::Quiet;
use shared::hash::ContentHash;
use shared::mirror::{Step, Trail};
use shared::transfer::{Op, Source};

use super::*;

const OURS: IndexId = IndexId([1; 16]);
const THEIRS: IndexId = IndexId([2; 16]);

fn path(raw: &str) -> RelPath {
    RelPath::parse(raw).unwrap()
}

fn file(content: &str) -> Entry {
    Entry::File {
        content: ContentHash::of_bytes(content.as_bytes()),
        len: content.len() as u64,
        exec: false,
    }
}

fn row(content: &str, batch: u64) -> BaseRow {
    BaseRow {
        entry: Some(file(content)),
        batch: Gen(batch),
    }
}

struct Bench {
    receiver: Receiver,
    now: Instant,
    done: Vec<Action>,
}

impl Bench {
    fn new(base: &[(&str, &str, u64)], seen: &[(&str, &str)]) -> Self {
        let now = Instant::now();
        let setup = Setup {
            node: "mac".into(),
            root: "/tree".into(),
            version: "0".into(),
            pair: PairId([3; 16]),
            peer: "vm".into(),
            folds: false,
            peer_address: "127.0.0.1:1".into(),
            interval: Duration::from_secs(30),
        };
        let mut seen_known: Vec<_> = seen
            .iter()
            .map(|(p, content)| (path(p), file(content)))
            .collect();
        seen_known.sort_by(|(a, _), (b, _)| a.cmp(b));
        let stored = Stored {
            base: base
                .iter()
                .map(|(p, content, batch)| (path(p), row(content, *batch)))
                .collect(),
            seen_known,
            index: OURS,
            index_is_new: false,
            trails: Vec::new(),
            notes: Notes {
                base_of: Some(THEIRS),
                ..Notes::default()
            },
        };
        let looks = Looks::new(Quiet::new(None), setup.interval, now);
        Self {
            receiver: Receiver::new(setup, stored, looks, now, UtcMs(0)),
            now,
            done: Vec::new(),
        }
    }

    fn on(&mut self, event: Event) -> &mut Self {
        self.done
            .extend(self.receiver.apply(event, self.now, UtcMs(0)));
        self
    }

    fn swept(&mut self) -> &mut Self {
        self.on(Event::Tick).on(Event::Looked {
            sweep: true,
            result: Ok(Vec::new()),
        })
    }

    fn welcomed(&mut self, base_kept: bool, resolved: u64, ignore: &str) -> &mut Self {
        let version = PROTOCOL_VERSION;
        let welcome = Welcome {
            version,
            node: "vm".into(),
            index: THEIRS,
            base_kept,
            resolved: Gen(resolved),
            ignore: ignore.into(),
        };
        self.on(Event::Linked)
            .on(Event::Frame(Frame::Welcome(welcome)))
    }

    fn committed(&mut self) -> &mut Self {
        let batches: Vec<Gen> = self
            .done
            .extract_if(.., |action| matches!(action, Action::Commit { .. }))
            .filter_map(|action| {
                if let Action::Commit { batch, .. } = action {
                    Some(batch)
                } else {
                    None
                }
            })
            .collect();
        for batch in batches {
            self.on(Event::Committed(batch));
        }
        self
    }

    fn ready(&mut self) -> &mut Self {
        self.swept()
            .welcomed(true, 0, "")
            .on(Event::Frame(Frame::Start))
            .committed()
    }

    fn sent(&self) -> Vec<&Frame> {
        self.done
            .iter()
            .filter_map(|action| {
                if let Action::Send(frame) = action {
                    Some(frame)
                } else {
                    None
                }
            })
            .collect()
    }

    fn has_told(&self) -> bool {
        self.sent()
            .iter()
            .any(|frame| matches!(frame, Frame::Ready(_)))
    }
}

fn batch(number: u64, ops: Vec<Op>) -> Batch {
    Batch {
        number: Gen(number),
        settles: None,
        ops,
    }
}

fn create(raw: &str, content: &str) -> Op {
    Op {
        path: path(raw),
        expect: None,
        make: Some(file(content)),
        from: Source::There(path(raw)),
        agrees: true,
    }
}

#[test]
fn nothing_is_told_before_everything_is_known() {
    let mut bench = Bench::new(&[], &[]);
    bench
        .welcomed(true, 0, "")
        .on(Event::Frame(Frame::Start))
        .committed();
    assert!(!bench.has_told(), "the tree was not looked at");
    bench.swept();
    assert!(bench.has_told());
}

#[test]
fn new_rules_are_swept_with_before_anything_is_told() {
    let mut bench = Bench::new(&[], &[]);
    bench
        .swept()
        .welcomed(true, 0, "*.log")
        .on(Event::Frame(Frame::Start))
        .committed();
    assert!(!bench.has_told());
    assert!(
        bench
            .done
            .iter()
            .any(|action| matches!(action, Action::SetRules(_)))
    );
    bench.on(Event::Looked {
        sweep: true,
        result: Ok(Vec::new()),
    });
    assert!(bench.has_told());
}

#[test]
fn it_tells_the_rows_above_the_resolved_ones_and_where_it_is_apart() {
    let mut bench = Bench::new(
        &[("a", "1", 3), ("b", "1", 7), ("c", "1", 3)],
        &[("a", "1"), ("b", "1")],
    );
    bench
        .swept()
        .welcomed(true, 5, "")
        .on(Event::Frame(Frame::Start))
        .committed();
    assert!(
        bench
            .sent()
            .contains(&&Frame::Bases(vec![(path("b"), row("1", 7))]))
    );
    assert!(
        bench
            .sent()
            .contains(&&Frame::Seen(vec![(path("c"), Sight::Absent)]))
    );
}

#[test]
fn a_base_of_another_pusher_is_forgotten_and_everything_is_told() {
    let mut bench = Bench::new(&[("a", "1", 3)], &[("a", "1")]);
    bench
        .swept()
        .welcomed(false, 9, "")
        .on(Event::Frame(Frame::Start))
        .committed();
    assert!(
        bench
            .sent()
            .contains(&&Frame::Seen(vec![(path("a"), Sight::Is(file("1")))]))
    );
}

#[test]
fn an_older_row_never_replaces_a_newer_one() {
    let mut bench = Bench::new(&[("a", "2", 7)], &[("a", "2")]);
    bench.swept().welcomed(true, 5, "");
    bench
        .on(Event::Frame(Frame::Agreed(
            Gen(6),
            vec![(path("a"), row("1", 6))],
        )))
        .on(Event::Frame(Frame::Start))
        .committed();
    assert_eq!(bench.receiver.trees.agreed(&path("a")), Some(&file("2")));
}

#[test]
fn an_announced_row_is_noted_when_it_is_durable() {
    let mut bench = Bench::new(&[], &[("a", "1")]);
    bench.ready().on(Event::Frame(Frame::Agreed(
        Gen(4),
        vec![(path("a"), row("1", 4))],
    )));
    assert!(!bench.sent().contains(&&Frame::Noted(Gen(4))));
    bench.committed();
    assert!(bench.sent().contains(&&Frame::Noted(Gen(4))));
    assert!(bench.receiver.trees.view(Side::Beta).apart().is_empty());
}

#[test]
fn what_was_applied_is_acknowledged_after_its_rows_are_stored() {
    let mut bench = Bench::new(&[], &[]);
    bench.ready().on(Event::Batch(batch(
        4,
        vec![create("a", "1"), create("b", "1")],
    )));
    bench.on(Event::Applied(Gen(4), vec![Outcome::Done, Outcome::Stale]));
    assert!(bench.sent().contains(&&Frame::Applied(
        Gen(4),
        vec![Outcome::Done, Outcome::Stale]
    )));
    assert_eq!(bench.receiver.trees.agreed(&path("a")), Some(&file("1")));
    assert_eq!(bench.receiver.trees.agreed(&path("b")), None);
}

#[test]
fn a_batch_of_a_dead_link_ends_before_the_next_greeting() {
    let mut bench = Bench::new(&[], &[]);
    bench
        .ready()
        .on(Event::Batch(batch(4, vec![create("a", "1")])))
        .on(Event::Unlinked("cut".into()))
        .committed()
        .done
        .clear();
    bench
        .welcomed(true, 0, "")
        .on(Event::Frame(Frame::Start))
        .committed();
    assert!(!bench.has_told(), "a batch is still being applied");
    bench.on(Event::Applied(Gen(4), vec![Outcome::Done]));
    assert!(bench.has_told());
    assert!(
        bench
            .sent()
            .contains(&&Frame::Bases(vec![(path("a"), row("1", 4))]))
    );
    assert!(
        !bench
            .sent()
            .iter()
            .any(|frame| matches!(frame, Frame::Applied(..))),
        "that was another connection"
    );
}

#[test]
fn an_operation_of_two_sides_is_no_base_yet() {
    let mut bench = Bench::new(&[], &[]);
    let op = Op {
        agrees: false,
        ..create("copy", "1")
    };
    bench
        .ready()
        .on(Event::Batch(batch(4, vec![op])))
        .on(Event::Applied(Gen(4), vec![Outcome::Done]));
    assert_eq!(bench.receiver.trees.agreed(&path("copy")), None);
    assert_eq!(
        bench.receiver.trees.sight(Side::Beta, &path("copy")),
        Sight::Is(file("1"))
    );
}

#[test]
fn in_sync_needs_a_link_a_proof_and_the_very_tree_that_was_proved() {
    let mut bench = Bench::new(&[], &[]);
    let in_sync = |bench: &mut Bench| {
        bench.on(Event::Asked(Client::Local(1), Request::Status));
        let status = bench.done.iter().rev().find_map(|action| match action {
            Action::Answer(_, Response::Status(status)) => Some(status.sync.in_sync),
            _ => None,
        });
        status.unwrap()
    };
    bench.ready();
    assert!(!in_sync(&mut bench), "no proof");
    let beta = bench.receiver.hash();
    bench.on(Event::Frame(Frame::Proof(Proof {
        settled: true,
        beta: Some(beta),
        ..Proof::default()
    })));
    assert!(in_sync(&mut bench));
    bench.on(Event::Observed(vec![(path("a"), Sight::Is(file("1")))]));
    assert!(!in_sync(&mut bench), "something has changed since");
    bench.on(Event::Observed(vec![(path("a"), Sight::Absent)]));
    assert!(in_sync(&mut bench));
    bench.on(Event::Unlinked("cut".into()));
    assert!(!in_sync(&mut bench), "nobody knows");
}

#[test]
fn a_lost_root_ends_the_link_and_is_not_told_as_deletions() {
    let mut bench = Bench::new(&[("a", "1", 1)], &[("a", "1")]);
    bench.ready();
    bench.done.clear();
    bench.now += Duration::from_secs(31);
    bench.on(Event::Tick).on(Event::Looked {
        sweep: true,
        result: Err("the root is gone".into()),
    });
    assert!(
        bench
            .done
            .iter()
            .any(|action| matches!(action, Action::Unlink(_)))
    );
    assert!(
        !bench
            .sent()
            .iter()
            .any(|frame| matches!(frame, Frame::Seen(_)))
    );
    assert!(!bench.receiver.wants_link());
    bench.now += Duration::from_secs(31);
    bench.swept();
    assert!(bench.receiver.wants_link());
}

#[test]
fn another_version_is_refused_in_words() {
    let mut bench = Bench::new(&[], &[]);
    let welcome = Welcome {
        version: 99,
        node: "vm".into(),
        index: THEIRS,
        base_kept: true,
        resolved: Gen(0),
        ignore: String::new(),
    };
    bench
        .on(Event::Linked)
        .on(Event::Frame(Frame::Welcome(welcome)));
    assert!(
        bench
            .sent()
            .iter()
            .any(|frame| matches!(frame, Frame::Refuse(why) if why.contains("version 99")))
    );
}

mod liar;

#[test]
fn a_row_that_took_longer_does_not_turn_the_base_back() {
    // Told again in a greeting, while a batch of the connection before was still being applied.
    let mut bench = Bench::new(&[], &[]);
    bench.receiver.settle(path("a"), row("new", 4));
    bench.receiver.settle(path("a"), row("old", 2));
    assert_eq!(bench.receiver.trees.agreed(&path("a")), Some(&file("new")));
}

#[test]
fn a_batch_that_makes_the_trees_equal_is_its_own_proof() {
    let in_sync = |settles: fn(u64) -> u64, outcome: Outcome| {
        let mut bench = Bench::new(&[], &[]);
        bench.ready();
        let mut after = bench.receiver.hash();
        let proof = Proof {
            alpha: after,
            settled: true,
            ..Proof::default()
        };
        bench.on(Event::Frame(Frame::Proof(proof)));
        after.add(&path("a"), &file("1"));
        let batch = Batch {
            settles: Some(settles(after.beginning())),
            ..batch(4, vec![create("a", "1")])
        };
        bench.on(Event::Batch(batch));
        bench.on(Event::Applied(Gen(4), vec![outcome]));
        bench.on(Event::Asked(Client::Local(1), Request::Status));
        let status = bench.done.iter().rev().find_map(|action| match action {
            Action::Answer(_, Response::Status(status)) => Some(status.sync.in_sync),
            _ => None,
        });
        status.unwrap()
    };
    assert!(in_sync(|told| told, Outcome::Done));
    assert!(!in_sync(|told| told ^ 1, Outcome::Done), "another tree");
    // Nothing has changed here, and the proof before still holds.
    assert!(in_sync(|told| told, Outcome::Gone));
}

#[test]
fn the_greeting_tells_what_came_by_the_mirror() {
    let mut bench = Bench::new(&[("a", "0", 1)], &[("a", "0")]);
    let trail = |batch| Trail {
        batch: Gen(batch),
        steps: vec![Step::gone(7)],
    };
    let row = |batch| (path("a"), Sight::Absent, trail(batch));
    bench.on(Event::Passed(vec![row(1)]));
    assert_eq!(
        bench.receiver.trees.sight(Side::Beta, &path("a")),
        Sight::Absent
    );
    bench.ready();
    let tells = |bench: &Bench, batch| {
        let frame = Frame::Trails(vec![row(batch)]);
        bench.sent().iter().filter(|sent| ***sent == frame).count()
    };
    let order: Vec<&str> = bench.sent().iter().map(|frame| frame.name()).collect();
    let at = |name| order.iter().position(|sent| *sent == name);
    assert!(
        at("seen") < at("trails") && at("trails") < at("ready"),
        "{order:?}"
    );
    assert_eq!(tells(&bench, 1), 1);
    bench.on(Event::Passed(vec![row(2)]));
    assert_eq!(tells(&bench, 2), 1, "and what comes later, at once");
}

#[test]
fn what_the_pusher_may_have_agreed_on_is_known_when_the_link_ends() {
    let mut bench = Bench::new(&[("a", "1", 5)], &[("a", "1")]);
    let commits = |bench: &mut Bench| -> Vec<Gen> {
        let known = |action: &Action| match action {
            Action::Commit { notes, .. } => Some(notes.last_batch),
            _ => None,
        };
        let known = bench.done.iter().filter_map(known).collect();
        bench.done.clear();
        known
    };
    bench.ready().done.clear();
    bench.on(Event::Unlinked("cut".into()));
    assert_eq!(commits(&mut bench), [Gen(5 + UNHEARD_MAX)]);
    bench.on(Event::Linked);
    commits(&mut bench);
    bench.on(Event::Unlinked("cut".into()));
    assert_eq!(commits(&mut bench), [], "it was told nothing");
}
