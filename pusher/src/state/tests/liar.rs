//! A receiver that says what no honest one says. The same over a real link is in `tests/e2e/hostile`.

use shared::transfer::{Trouble, TroubleKind};
use shared::tree::{GEN_LEAD_MAX, PATHS_MAX};
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
fn nothing_is_heard_before_the_greeting() {
    for early in [
        Frame::Seen(vec![is("a", "1")]),
        Frame::Bases(vec![(path("a"), row("1", 1))]),
        Frame::Applied(Gen(1), vec![Outcome::Done]),
        Frame::Noted(Gen(1)),
        Frame::Ask(1, "\"pause\"".into()),
        Frame::Answer(1, "{}".into()),
        Frame::Swept(1, SetHash::default()),
        Frame::Ready(SetHash::default()),
    ] {
        let mut bench = Bench::new(&[], &[]);
        bench.swept().on(Event::Linked).on(Event::Frame(early));
        assert!(refused(&bench).contains("when none was expected"));
        assert!(!bench.pusher.notes.paused);
        // What comes after it is not looked at.
        bench.done.clear();
        bench
            .hello(Some(OURS))
            .on(Event::Frame(Frame::Noted(Gen(1))));
        assert_eq!(bench.sent(), [&Frame::Start; 0]);
    }
}

#[test]
fn what_became_of_our_own_batch_is_not_for_the_receiver_to_say() {
    let mut bench = Bench::new(&[], &[]);
    let theirs = vec![is("a", "1")];
    let hash = hash_of(&theirs);
    bench.swept().greeted(vec![], theirs, hash);
    let taken = bench.done.iter().find_map(|action| match action {
        Action::Take(batch, ..) => Some(batch.number),
        _ => None,
    });
    let batch = taken.expect("the file is fetched");
    bench.on(Event::Frame(Frame::Applied(batch, vec![Outcome::Done])));
    bench.committed();
    assert_eq!(
        bench.pusher.trees.agreed(&path("a")),
        None,
        "it is not here"
    );
    assert!(!bench.in_sync());
    bench
        .on(Event::Applied(batch, vec![Outcome::Done]))
        .committed();
    assert_eq!(bench.pusher.trees.agreed(&path("a")), Some(&file("1")));
}

#[test]
fn a_tree_without_end_is_refused_and_forgotten() {
    let mut bench = Bench::new(&[("mine", "1", 1)], &[("mine", "1")]);
    bench.swept().on(Event::Linked).hello(Some(OURS));
    for page in 0..=PATHS_MAX / ROWS_MAX + 1 {
        let rows = (0..ROWS_MAX).map(|n| is(&format!("{page}/{n}"), ""));
        bench.on(Event::Frame(Frame::Seen(rows.collect())));
    }
    assert!(refused(&bench).contains("which is the limit"));
    assert_eq!(bench.pusher.trees.view(Side::Beta).apart().len(), 0);
    assert_eq!(bench.pusher.trees.agreed(&path("mine")), Some(&file("1")));
}

#[test]
fn batch_numbers_that_nobody_gave_are_refused() {
    let mut bench = Bench::new(&[], &[]);
    let far = Gen(GEN_LEAD_MAX + 1);
    bench.swept().on(Event::Linked);
    bench.on(Event::Frame(Frame::Hello(Hello {
        version: shared::wire::PROTOCOL_VERSION,
        pair: PAIR,
        node: "mac".into(),
        index: THEIRS,
        base_of: Some(OURS),
        last_batch: far,
    })));
    assert!(refused(&bench).contains("never given"));
    assert!(bench.pusher.notes.last_batch < far);

    let mut bench = Bench::new(&[], &[]);
    let rows = vec![(path("a"), row("1", far.0))];
    bench.swept().greeted(rows, vec![], SetHash::default());
    assert!(refused(&bench).contains("never given"));
    assert!(bench.pusher.notes.last_batch < far);
}

#[test]
fn what_is_held_and_gone_with_the_liar_is_held_no_more() {
    let mut bench = Bench::new(&[], &[]);
    let theirs = vec![is("huge", "1")];
    let hash = hash_of(&theirs);
    bench.swept().greeted(vec![], theirs, hash);
    let trouble = Trouble {
        kind: TroubleKind::Io,
        text: "it is too long".into(),
    };
    bench
        .on(Event::Applied(Gen(1), vec![Outcome::Held(trouble)]))
        .committed();
    assert_eq!(bench.pusher.holds.len(), 1);
    bench.on(Event::Unlinked("it left".into()));
    bench
        .greeted(vec![], vec![], SetHash::default())
        .committed();
    assert_eq!(bench.pusher.holds.len(), 0, "nobody has it");
    assert!(bench.in_sync());
}
