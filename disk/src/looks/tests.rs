use super::*;

const INTERVAL: Duration = Duration::from_secs(30);

fn start() -> (Looks, Instant) {
    let now = Instant::now();
    (Looks::new(Quiet::new(None), INTERVAL, now), now)
}

fn path(raw: &str) -> RelPath {
    RelPath::parse(raw).unwrap()
}

fn is_sweep(look: &Option<Look>) -> bool {
    matches!(look, Some(Look::All))
}

fn paths(look: Option<Look>) -> Vec<String> {
    match look {
        Some(Look::Paths(paths)) => paths.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_look_is_a_sweep_and_then_one_each_interval() {
    let (mut looks, now) = start();
    assert!(!looks.has_swept());
    assert!(is_sweep(&looks.poll(now)));
    assert!(looks.poll(now).is_none(), "one at a time");
    looks.swept(vec![], now);
    assert!(looks.has_swept());
    assert!(looks.poll(now + INTERVAL / 2).is_none());
    assert!(is_sweep(&looks.poll(now + INTERVAL)));
}

#[test]
fn a_slow_sweep_stretches_the_interval_unless_events_may_be_missing() {
    let (mut looks, now) = start();
    assert!(is_sweep(&looks.poll(now)));
    let slow = now + Duration::from_secs(1);
    looks.swept(vec![], slow);
    assert!(looks.poll(slow + INTERVAL).is_none());
    assert!(is_sweep(&looks.poll(slow + Duration::from_secs(330))));
    looks.swept(vec![], slow + Duration::from_secs(331));
    looks.degrade(slow + Duration::from_secs(332));
    let later = slow + Duration::from_secs(332);
    assert!(is_sweep(&looks.poll(later)));
    looks.swept(vec![], later + Duration::from_secs(1));
    assert!(is_sweep(
        &looks.poll(later + Duration::from_secs(1) + INTERVAL)
    ));
}

#[test]
fn a_hint_is_looked_at_beside_a_running_sweep() {
    let (mut looks, now) = start();
    assert!(is_sweep(&looks.poll(now)));
    looks.hint(path("a"), true, now);
    assert_eq!(paths(looks.poll(now)), ["a"]);
    assert!(!looks.is_idle());
    looks.looked(vec![], now);
    assert!(
        looks.is_idle(),
        "a sweep that is merely due by the clock keeps nobody waiting"
    );
}

#[test]
fn a_sweep_that_was_asked_for_starts_after_the_question() {
    let (mut looks, now) = start();
    assert!(is_sweep(&looks.poll(now)));
    let asked = looks.ask_sweep();
    assert!(looks.swept(vec![], now).is_empty(), "this one began before");
    assert!(is_sweep(&looks.poll(now)));
    assert!(!looks.is_idle());
    assert_eq!(looks.swept(vec![], now), [asked]);
    assert!(looks.is_idle());
}

#[test]
fn a_sweep_that_failed_is_owed() {
    let (mut looks, now) = start();
    looks.poll(now);
    looks.swept(vec![], now);
    let asked = looks.ask_sweep();
    assert!(is_sweep(&looks.poll(now)));
    looks.sweep_failed(now);
    assert!(
        looks.poll(now).is_none(),
        "not at once: it would fail again"
    );
    let later = looks.next().unwrap();
    assert!(later <= now + Duration::from_secs(1));
    assert!(is_sweep(&looks.poll(later)));
    assert_eq!(looks.swept(vec![], later), [asked]);
}

#[test]
fn what_moved_while_it_was_read_is_read_again() {
    let (mut looks, now) = start();
    looks.poll(now);
    looks.swept(vec![path("a")], now);
    assert!(!looks.is_idle());
    assert!(looks.poll(now).is_none());
    assert_eq!(looks.next(), Some(now + AGAIN_FIRST));
    let mut now = now + AGAIN_FIRST;
    // Whoever goes on writing to it is not disturbed that soon again.
    for _ in 0..3 {
        assert_eq!(paths(looks.poll(now)), ["a"]);
        looks.looked(vec![path("a")], now);
        assert_eq!(looks.next(), Some(now + AGAIN_AFTER));
        now += AGAIN_AFTER;
    }
    assert_eq!(paths(looks.poll(now)), ["a"]);
    looks.looked(vec![], now);
    looks.hint(path("a"), true, now);
    assert_eq!(paths(looks.poll(now)), ["a"]);
    looks.looked(vec![path("a")], now);
    assert_eq!(looks.next(), Some(now + AGAIN_FIRST), "it had come to rest");
}

#[test]
fn what_did_not_change_is_read_again_beside_the_sweeps_and_only_when_nothing_else_is_to_do() {
    let (mut looks, now) = start();
    assert!(is_sweep(&looks.poll(now)));
    looks.swept(vec![], now);
    assert!(looks.poll(now).is_none(), "not before an interval is over");
    let later = now + INTERVAL;
    assert!(is_sweep(&looks.poll(later)));
    looks.hint(path("a"), true, later);
    looks.swept(vec![], later);
    assert_eq!(paths(looks.poll(later)), ["a"]);
    assert!(looks.poll(later).is_none(), "a look is under way");
    assert_eq!(looks.next(), Some(later + INTERVAL), "it wakes nothing");
    let done = later + Duration::from_secs(1);
    looks.looked(vec![], done);
    let span = INTERVAL + Duration::from_secs(1);
    assert_eq!(looks.poll(done), Some(Look::Reread { span }));
    assert!(looks.is_idle(), "nobody waits for it");
    assert!(looks.poll(done).is_none());
}

#[test]
fn a_deep_sweep_is_one_that_was_asked_for() {
    let (mut looks, now) = start();
    assert!(is_sweep(&looks.poll(now)));
    let deep = looks.ask_deep();
    assert!(looks.poll(now).is_none(), "one at a time");
    assert_eq!(looks.swept(vec![], now), [] as [LookId; 0]);
    assert_eq!(looks.poll(now), Some(Look::Deep));
    looks.sweep_failed(now);
    let now = looks.next().unwrap();
    assert_eq!(looks.poll(now), Some(Look::Deep), "it is still wanted");
    assert_eq!(looks.swept(vec![], now), [deep]);
    looks.ask_sweep();
    assert_eq!(looks.poll(now), Some(Look::All));
}

#[test]
fn a_sweep_that_is_asked_for_during_a_sweep_comes_after_it() {
    let (mut looks, now) = start();
    assert!(is_sweep(&looks.poll(now)));
    looks.sweep();
    assert!(looks.poll(now).is_none(), "one at a time");
    looks.swept(vec![], now);
    assert!(!looks.is_idle(), "something may have been missed");
    assert!(is_sweep(&looks.poll(now)));
    looks.swept(vec![], now);
    assert!(looks.is_idle());
}

#[test]
fn what_was_read_too_soon_is_read_once_more_and_nothing_waits_for_it() {
    let (mut looks, now) = start();
    looks.poll(now);
    looks.swept(vec![], now);
    looks.racy(vec![path("a"), path("b")], now);
    assert!(looks.is_idle());
    assert_eq!(looks.next(), Some(now + RACY_WAIT));
    // Written to again meanwhile.
    let later = now + RACY_WAIT / 2;
    looks.racy(vec![path("b")], later);
    assert_eq!(
        looks.poll(now + RACY_WAIT),
        Some(Look::Racy(vec![path("a")]))
    );
    assert!(looks.is_idle());
    let second = looks.next().expect("b");
    assert_eq!(
        second,
        (later + RACY_WAIT).max(now + RACY_WAIT + RACY_PAUSE)
    );
    assert_eq!(looks.poll(second), Some(Look::Racy(vec![path("b")])));
    assert_eq!(looks.poll(second), None);
    assert!(
        looks.next() > Some(second + RACY_WAIT),
        "only sweeps are left"
    );
    let many = (0..2 * RACY_MAX).map(|number| path(&number.to_string()));
    looks.racy(many.collect(), now);
    assert_eq!(looks.racy.len(), RACY_MAX);
}
