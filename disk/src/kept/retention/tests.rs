use super::*;
use crate::tests::path;

/// A day at whose beginning a week begins, long after 1970.
const NOW_HOURS: u64 = 24 * 7 * 2000;

const AMPLE: Room = Room {
    bytes_max: u64::MAX,
    lacking: 0,
};

/// Returns the ages of the versions that stay. Each version is `path age`, in hours, with `h`, or in
/// minutes, with `m`; all have 10 bytes. Nothing stands at a path whose name begins with `gone`.
fn stays(versions: &str, room: Room) -> String {
    let mut parsed: Vec<(RelPath, u64, &str)> = versions
        .split(", ")
        .map(|version| {
            let (name, age) = version.split_once(' ').expect("a path and an age");
            let minutes = match age.split_at(age.len() - 1) {
                (hours, "h") => 60 * hours.parse::<u64>().expect("hours"),
                (minutes, _) => minutes.parse().expect("minutes"),
            };
            (path(name), minutes, version)
        })
        .collect();
    parsed.sort_by_key(|(_, minutes, _)| std::cmp::Reverse(*minutes));
    let now = UtcMs(NOW_HOURS * 3_600_000);
    let candidates: Vec<Candidate<'_>> = parsed
        .iter()
        .map(|(path, minutes, _)| Candidate {
            path,
            at: UtcMs(now.0 - minutes * 60_000),
            len: 10,
            frees: 10,
            stands: !path.as_str().starts_with("gone"),
        })
        .collect();
    let goes = going(&candidates, &KeptLimits::default(), room, now);
    let staying = parsed.iter().zip(goes).filter(|(_, goes)| !goes);
    let shown: Vec<&str> = staying.map(|((_, _, version), _)| *version).collect();
    shown.join(", ")
}

#[test]
fn fewer_stay_with_age() {
    let check = |versions, expected| assert_eq!(stays(versions, AMPLE), expected);
    // All of a day.
    check("a 23h, a 90m, a 80m, a 1m", "a 23h, a 90m, a 80m, a 1m");
    // The last of each hour: 30 h ago is the beginning of an hour, and belongs to it.
    check(
        "a 1860m, a 1830m, a 1801m, a 1800m, a 1770m",
        "a 1801m, a 1770m",
    );
    // The last of each day, and the days of two paths are two.
    check("a 96h, a 90h, a 73h, a 72h, b 80h", "b 80h, a 73h, a 72h");
    // The last of each week: a week began 336 h ago, and one 504 h ago.
    check(
        "a 510h, a 504h, a 400h, a 337h, a 20h",
        "a 510h, a 337h, a 20h",
    );
    // 30 days are 720 h.
    check("a 721h, a 720h", "a 720h");
    check("gone 721h", "");
}

#[test]
fn a_crowd_of_versions_of_one_path_thins_out_within_the_day() {
    // One every ten seconds for four hours, and two of another path in one minute.
    let written: Vec<String> = (0..1440).map(|ago| format!("a {}m", ago / 6)).collect();
    let all = format!("{}, b 100m, b 100m", written.join(", "));
    let staying = stays(&all, AMPLE);
    let of = |name: &str| {
        staying
            .split(", ")
            .filter(|version| version.starts_with(name))
            .count()
    };
    assert_eq!(of("b"), 2);
    // The last hour whole, and one of each ten minutes of the three hours before.
    assert!((360 + 17..=360 + 20).contains(&of("a")), "{}", of("a"));
}

#[test]
fn what_stays_today_is_not_what_tomorrow_lacks() {
    // One version each 20 minutes for 40 days, pruned each 6 hours: in every tier one of each span is
    // there at all times.
    let name = path("a");
    let limits = KeptLimits::default();
    let minute = 60_000;
    let mut kept: Vec<UtcMs> = Vec::new();
    let start = NOW_HOURS * 60 * minute;
    for step in 0..40 * 72 {
        let now = UtcMs(start + step * 20 * minute);
        kept.push(now);
        if step % 18 != 0 {
            continue;
        }
        let candidates: Vec<Candidate<'_>> = kept
            .iter()
            .map(|at| Candidate {
                path: &name,
                at: *at,
                len: 10,
                frees: 10,
                stands: true,
            })
            .collect();
        let goes = going(&candidates, &limits, AMPLE, now);
        let mut goes = goes.into_iter();
        kept.retain(|_| goes.next() == Some(false));
        for (days, span) in [(1, 20), (2, 60), (14, 24 * 60), (29, 7 * 24 * 60)] {
            let from = now.0.saturating_sub(days * 24 * 60 * minute).max(start);
            let mut next = from;
            for at in kept.iter().filter(|at| at.0 >= from) {
                assert!(at.0 - next <= 2 * span * minute, "{days} days: a gap");
                next = at.0;
            }
        }
    }
    // 73 of a day, 17 since the last time, 24 hours, 12 days, 2 weeks and the ends of tiers.
    assert!((125..=135).contains(&kept.len()), "{}", kept.len());
}

#[test]
fn too_much_goes_from_the_oldest_and_what_was_deleted_last() {
    let check = |bytes_max, expected| {
        let room = Room {
            bytes_max,
            lacking: 0,
        };
        let versions = "gone1 700h, gone1 600h, a 500h, b 100h, gone2 90h, b 30h, c 2h, gone3 2h";
        assert_eq!(stays(versions, room), expected);
    };
    check(
        70,
        "gone1 600h, a 500h, b 100h, gone2 90h, b 30h, c 2h, gone3 2h",
    );
    check(60, "gone1 600h, b 100h, gone2 90h, b 30h, c 2h, gone3 2h");
    check(40, "gone1 600h, gone2 90h, c 2h, gone3 2h");
    check(30, "gone2 90h, c 2h, gone3 2h");
    // The young stay, however much it is.
    check(0, "c 2h, gone3 2h");
}

#[test]
fn a_full_disk_takes_the_young_too_but_not_the_last_hour() {
    let check = |lacking, expected| {
        let room = Room {
            bytes_max: u64::MAX,
            lacking,
        };
        let versions = "a 800h, gone 90h, b 30h, b 20h, c 60m, d 59m, e 1m";
        assert_eq!(stays(versions, room), expected);
    };
    // What goes by age counts.
    check(0, "gone 90h, b 30h, b 20h, c 60m, d 59m, e 1m");
    check(10, "gone 90h, b 30h, b 20h, c 60m, d 59m, e 1m");
    check(11, "gone 90h, b 20h, c 60m, d 59m, e 1m");
    check(40, "gone 90h, d 59m, e 1m");
    check(41, "d 59m, e 1m");
    check(1000, "d 59m, e 1m");
}
