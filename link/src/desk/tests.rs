use std::time::{Duration, Instant};

use super::{CODE_LIFE, CODE_TRIES, Desk, Verdict};

const SECRET: [u8; 16] = [3; 16];

/// Opens a desk at zero and hands in each `(seconds, right or wrong)`; returns the verdicts.
fn check(proofs: &[(u64, bool)], expected: &[Verdict]) {
    let begin = Instant::now();
    let mut desk = Desk::default();
    desk.open(begin, SECRET);
    let verdicts: Vec<Verdict> = proofs
        .iter()
        .map(|(seconds, right)| {
            desk.check(begin + Duration::from_secs(*seconds), |secret| {
                *right && *secret == SECRET
            })
        })
        .collect();
    assert_eq!(verdicts, expected, "{proofs:?}");
}

#[test]
fn one_use_five_tries_ten_minutes() {
    use Verdict::{Accepted, Exhausted, Expired, Used, Wrong};
    let (right, wrong) = (true, false);
    let left = |tries_left| Wrong { tries_left };
    check(&[(0, right)], &[Accepted]);
    check(
        &[(0, right), (1, right), (1, wrong)],
        &[Accepted, Used, Used],
    );
    check(&[(1, wrong), (2, right)], &[left(4), Accepted]);
    check(
        &[(1, wrong), (2, wrong), (3, wrong), (4, wrong), (5, right)],
        &[left(4), left(3), left(2), left(1), Accepted],
    );
    check(
        &[
            (1, wrong),
            (2, wrong),
            (3, wrong),
            (4, wrong),
            (5, wrong),
            (6, right),
        ],
        &[left(4), left(3), left(2), left(1), left(0), Exhausted],
    );
    check(&[(599, right)], &[Accepted]);
    check(&[(600, right)], &[Expired]);
    check(&[(600, wrong), (601, right)], &[Expired, Expired]);
    check(&[(599, wrong), (600, right)], &[left(4), Expired]);
    check(&[(1, right), (700, right)], &[Accepted, Used]);
    assert_eq!((CODE_LIFE.as_secs(), CODE_TRIES), (600, 5));
}

#[test]
fn strangers_are_let_in_only_while_a_code_counts() {
    let begin = Instant::now();
    let mut desk = Desk::default();
    assert!(!desk.is_open(begin));
    assert_eq!(desk.check(begin, |_| true), Verdict::Closed);
    desk.open(begin, SECRET);
    assert!(desk.is_open(begin));
    assert!(!desk.is_open(begin + CODE_LIFE));
    desk.check(begin, |_| true);
    assert!(!desk.is_open(begin));

    desk.open(begin, SECRET);
    desk.close();
    assert!(!desk.is_open(begin));
    assert_eq!(desk.check(begin, |_| true), Verdict::Closed);
}

#[test]
fn a_new_code_replaces_the_old_one() {
    let begin = Instant::now();
    let mut desk = Desk::default();
    desk.open(begin, SECRET);
    desk.check(begin, |_| false);
    desk.open(begin + CODE_LIFE, [4; 16]);
    let verdict = desk.check(begin + CODE_LIFE, |secret| *secret == SECRET);
    assert_eq!(verdict, Verdict::Wrong { tries_left: 4 });
    let verdict = desk.check(begin + CODE_LIFE, |secret| *secret == [4; 16]);
    assert_eq!(verdict, Verdict::Accepted);
}

#[test]
fn the_secret_is_not_shown_by_accident() {
    let mut desk = Desk::default();
    desk.open(Instant::now(), SECRET);
    assert_eq!(format!("{desk:?}"), "Open(5 tries left)");
}
