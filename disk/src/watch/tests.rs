use std::fs;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn watch(rules: &str) -> (tempfile::TempDir, Watcher, Receiver<Hint>) {
    let dir = tempfile::tempdir().expect("a folder");
    let (hear, hints) = channel();
    let rules = Rules::parse(rules).expect("rules");
    let watcher = Watcher::start(dir.path(), rules, move |hint| {
        hear.send(hint).ok();
    });
    (dir, watcher, hints)
}

/// Waits for a hint, and returns those that came before it.
fn until(hints: &Receiver<Hint>, wanted: &Hint) -> Vec<Hint> {
    let mut before = Vec::new();
    loop {
        match hints.recv_timeout(PATIENCE) {
            Ok(hint) if hint == *wanted => return before,
            Ok(hint) => before.push(hint),
            Err(error) => panic!("{wanted:?} did not come ({error}), but {before:?}"),
        }
    }
}

fn at(name: &str) -> Hint {
    Hint::Path(RelPath::parse(name).expect("a path"))
}

#[test]
fn real_events() {
    let (dir, _watcher, hints) = watch("*.tmp\n");
    let write = |name: &str| fs::write(dir.path().join(name), "x").expect("written");
    write("a");
    until(&hints, &at("a"));
    fs::create_dir_all(dir.path().join("new/deep")).expect("made");
    until(&hints, &at("new"));
    fs::create_dir(dir.path().join(".layer-sync")).expect("made");
    write(".layer-sync/x");
    write(".DS_Store");
    write("b.tmp");
    fs::rename(dir.path().join("a"), dir.path().join("c")).expect("renamed");
    let before = until(&hints, &at("c"));
    let unwanted = |hint: &Hint| {
        let shown = format!("{hint:?}");
        [".layer-sync", ".DS_Store", "b.tmp"]
            .iter()
            .any(|name| shown.contains(name))
    };
    assert!(!before.iter().any(unwanted), "{before:?}");
    assert!(
        before.contains(&at("a")),
        "the old name is a hint as well: {before:?}"
    );
    fs::remove_file(dir.path().join("c")).expect("gone");
    until(&hints, &at("c"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_close_after_writing_is_told_and_reading_is_not() {
    let (dir, _watcher, hints) = watch("");
    fs::write(dir.path().join("a"), "x").expect("written");
    until(&hints, &Hint::Closed(RelPath::parse("a").expect("a path")));
    fs::read(dir.path().join("a")).expect("read");
    fs::write(dir.path().join("b"), "x").expect("written");
    assert!(
        !until(&hints, &at("b")).contains(&at("a")),
        "reading makes no hint"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_not_utf8_is_a_hint_for_its_directory() {
    use std::os::unix::ffi::OsStrExt;
    let (dir, _watcher, hints) = watch("");
    fs::create_dir(dir.path().join("d")).expect("made");
    until(&hints, &at("d"));
    let name = std::ffi::OsStr::from_bytes(b"bad\xff");
    // The watch on the new directory comes a moment after the hint for it.
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        fs::write(dir.path().join("d").join(name), "x").expect("written");
        match hints.recv_timeout(Duration::from_millis(50)) {
            Ok(hint) => break assert_eq!(hint, at("d")),
            Err(_) => assert!(std::time::Instant::now() < end, "no hint came"),
        }
    }
}

#[test]
fn trouble_is_told_and_never_the_end() {
    let (hear, hints) = channel();
    let missing = Path::new("/nowhere/at/all");
    let _watcher = Watcher::start(missing, Rules::default(), {
        let hear = hear.clone();
        move |hint| {
            hear.send(hint).ok();
        }
    });
    assert!(matches!(hints.try_recv(), Ok(Hint::Degraded(text)) if text.contains("regularly")));

    let hearing = Hearing {
        root: PathBuf::from("/root"),
        rules: Arc::default(),
        hints: Arc::new(move |hint| {
            hear.send(hint).ok();
        }),
    };
    let rescan = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
    hearing.take(Ok(rescan));
    assert!(matches!(hints.try_recv(), Ok(Hint::Sweep(_))));
    hearing.take(Err(notify::Error::new(ErrorKind::MaxFilesWatch)));
    assert!(
        matches!(hints.try_recv(), Ok(Hint::Degraded(text)) if text.contains("max_user_watches"))
    );
    hearing.take(Err(notify::Error::generic("anything")));
    assert!(matches!(hints.try_recv(), Ok(Hint::Sweep(_))));
    let outside = Event::new(EventKind::Any).add_path(PathBuf::from("/elsewhere/x"));
    hearing.take(Ok(outside));
    assert!(hints.try_recv().is_err());
}

#[test]
fn a_deaf_one_says_nothing() {
    Watcher::deaf().set_rules(Rules::default());
}
