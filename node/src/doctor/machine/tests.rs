use super::*;

const MIB: u64 = 1 << 20;
const NOW: UtcMs = UtcMs(1_795_382_045_000);

#[test]
fn enough_watches() {
    let check = |max, folders, degraded, state, fix: &str| {
        let found = judge_watches(max, || folders, degraded);
        assert_eq!(found.state, state, "{found:?}");
        assert!(found.fix.contains(fix), "{found:?}");
    };
    check(Some(8192), 8192, None, State::Ok, "");
    check(Some(8192), 8193, None, State::Warning, "watches=32768,");
    // Others of this user have used up what there is.
    check(
        Some(8192),
        100,
        Some("no more"),
        State::Warning,
        "watches=8192,",
    );
    check(
        Some(8192),
        8000,
        Some("no more"),
        State::Warning,
        "watches=16384,",
    );
    // A system without a limit is not asked to count.
    assert_eq!(
        judge_watches(None, || panic!("counted"), None).state,
        State::Ok
    );
    check(None, 0, Some("the stream ended"), State::Warning, "restart");
}

#[test]
fn folders_are_counted_without_the_private_one_and_without_following_links() {
    let dir = tempfile::tempdir().expect("a folder");
    for path in ["a/b/c", "d", ".layer-sync/kept/x"] {
        fs::create_dir_all(dir.path().join(path)).expect("made");
    }
    fs::write(dir.path().join("a/file"), "").expect("written");
    std::os::unix::fs::symlink("/", dir.path().join("d/link")).expect("made");
    assert_eq!(folders(dir.path()), 5);
    assert_eq!(folders(&dir.path().join("gone")), 1);
}

#[test]
fn enough_room() {
    let check = |free_bytes, no_inodes, state, text: &str| {
        let space = Space {
            free_bytes,
            floor_bytes: 100 * MIB,
            no_inodes,
        };
        let found = judge_space("space", Path::new("/r"), space);
        assert_eq!(found.state, state, "{found:?}");
        assert!(found.text.contains(text), "{found:?}");
        assert_eq!(found.fix.is_empty(), state == State::Ok);
    };
    check(100 * MIB, false, State::Ok, "100 MiB are free");
    check(100 * MIB - 1, false, State::Warning, "nearly full");
    check(10 * MIB, false, State::Warning, "nearly full");
    check(10 * MIB - 1, false, State::Wrong, "is full");
    check(100 * MIB, true, State::Wrong, "no more files");
}

#[test]
fn a_clock_that_can_be_right() {
    let check = |now: UtcMs, newest, peer: Option<(UtcMs, UtcMs)>, state, text: &str| {
        let peer = peer.map(|(theirs, ours)| ("vm", theirs, ours));
        let found = judge_clock(now, newest, peer);
        assert_eq!(found.state, state, "{found:?}");
        assert!(found.text.contains(text), "{found:?}");
        assert_eq!(found.fix.is_empty(), state == State::Ok);
    };
    let later = |ms| UtcMs(NOW.0 + ms);
    check(NOW, None, None, State::Ok, "2026-11-22");
    check(UtcMs(0), None, None, State::Wrong, "never set");
    check(
        UtcMs(CLOCK_MIN.0 - 1),
        None,
        None,
        State::Wrong,
        "2025-12-31",
    );
    check(CLOCK_MIN, None, None, State::Ok, "2026-01-01");
    check(NOW, Some(later(60_000)), None, State::Ok, "");
    check(NOW, Some(later(60_001)), None, State::Warning, "gone back");
    check(
        NOW,
        None,
        Some((later(60_000), NOW)),
        State::Ok,
        "60000 ms apart",
    );
    check(
        NOW,
        None,
        Some((later(60_001), NOW)),
        State::Warning,
        "that of vm says",
    );
    check(
        NOW,
        None,
        Some((NOW, later(60_001))),
        State::Warning,
        "that of vm says",
    );
}
