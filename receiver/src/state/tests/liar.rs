//! A pusher that says what no honest one says. The same over a real link is in `tests/e2e/hostile`.

use shared::tree::{GEN_GROWTH_MAX, PATHS_MAX};
use shared::wire::ROWS_MAX;

use super::*;

/// Returns why the link was ended, and checks that the other side was told.
#[track_caller]
fn refused(bench: &Bench) -> String {
    let unlink = bench.done.iter().find_map(|action| match action {
        Action::Unlink(reason) => Some(reason.clone()),
        _ => None,
    });
    let reason = unlink.expect("the link is ended");
    assert!(bench.sent().contains(&&Frame::Refuse(reason.clone())));
    reason
}

#[test]
fn an_answer_to_what_was_not_asked_reaches_nobody() {
    let mut bench = Bench::new(&[], &[]);
    bench
        .ready()
        .on(Event::Asked(Client::Local(1), Request::Status));
    bench.on(Event::Frame(Frame::Answer(2, "{\"paused\":true}".into())));
    let forged = |action: &Action| matches!(action, Action::Answer(_, Response::Paused(_)));
    assert!(!bench.done.iter().any(forged));
    // One that was passed on is answered, once.
    bench.on(Event::Asked(Client::Local(3), Request::Pause));
    for _ in 0..2 {
        bench.on(Event::Frame(Frame::Answer(3, "{\"paused\":true}".into())));
    }
    assert_eq!(bench.done.iter().filter(|action| forged(action)).count(), 1);
}

#[test]
fn batches_that_no_honest_pusher_sends() {
    let mut bench = Bench::new(&[("a", "1", 7)], &[("a", "1")]);
    let any = |number| batch(number, vec![create("b", "2")]);
    let on_a = |number| batch(number, vec![create("a", "2")]);
    let early = bench.receiver.refuses(&any(8));
    assert!(early.unwrap().contains("before the greeting"));
    bench
        .swept()
        .welcomed(true, 5, "")
        .on(Event::Frame(Frame::Start))
        .committed();
    let why = |bench: &Bench, batch: &Batch| bench.receiver.refuses(batch).unwrap_or_default();
    assert!(why(&bench, &any(5)).contains("has come before"));
    assert!(why(&bench, &on_a(7)).contains("older than what was agreed on \"a\""));
    assert!(why(&bench, &any(GEN_GROWTH_MAX * 2)).contains("far beyond"));
    assert_eq!(why(&bench, &on_a(8)), "");
    for number in 8..8 + TAKING_MAX as u64 {
        assert_eq!(why(&bench, &any(number)), "", "{number}");
        bench.on(Event::Batch(any(number)));
        assert_ne!(why(&bench, &any(number)), "", "it is being taken");
    }
    assert!(why(&bench, &any(100)).contains("at one time"));
    bench.on(Event::Applied(Gen(8), vec![Outcome::Gone]));
    assert_eq!(why(&bench, &any(100)), "");
}

#[test]
fn the_first_lie_is_the_one_that_is_told() {
    let mut bench = Bench::new(&[], &[]);
    bench.ready().on(Event::Violation("a lie".into()));
    bench.on(Event::Violation("another lie".into()));
    assert_eq!(refused(&bench), "a lie");
    let unlinks = bench
        .done
        .iter()
        .filter(|action| matches!(action, Action::Unlink(_)));
    assert_eq!(unlinks.count(), 1);
    // What comes after it is not looked at.
    bench.done.clear();
    bench.on(Event::Frame(Frame::TellAll));
    assert_eq!(bench.sent(), [&Frame::Start; 0]);
}

#[test]
fn rows_without_end_are_refused() {
    let mut bench = Bench::new(&[], &[]);
    bench.ready();
    for page in 0..=PATHS_MAX / ROWS_MAX {
        let rows = (0..ROWS_MAX).map(|n| (path(&format!("{page}/{n}")), row("", 9)));
        bench.on(Event::Frame(Frame::Agreed(Gen(9), rows.collect())));
    }
    assert!(refused(&bench).contains("which is the limit"));
}

#[test]
fn sweeps_without_end_are_refused() {
    let mut bench = Bench::new(&[], &[]);
    bench.ready();
    for id in 0..SWEEPS_MAX as u64 {
        bench.on(Event::Frame(Frame::Sweep(id)));
    }
    assert!(
        !bench
            .done
            .iter()
            .any(|action| matches!(action, Action::Unlink(_)))
    );
    bench.on(Event::Frame(Frame::Sweep(0)));
    assert!(refused(&bench).contains("sweeps"));
}

#[test]
fn batch_numbers_that_would_use_up_all_are_refused() {
    let far = Gen(GEN_GROWTH_MAX + 1);
    let mut bench = Bench::new(&[], &[]);
    bench.swept().welcomed(true, far.0, "");
    assert!(refused(&bench).contains("far beyond"));
    for frame in [
        Frame::Agreed(far, vec![]),
        Frame::Agreed(Gen(1), vec![(path("a"), row("1", far.0))]),
        Frame::Proof(Proof {
            resolved: far,
            ..Proof::default()
        }),
    ] {
        let mut bench = Bench::new(&[], &[]);
        bench.ready().on(Event::Frame(frame));
        assert!(refused(&bench).contains("far beyond"));
        assert!(bench.receiver.notes.last_batch < far && bench.receiver.resolved < far);
    }
}
