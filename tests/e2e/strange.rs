//! Volumes that lie: listings that leave things out, with an error and without one; files that cannot be
//! read; names that fold. Whatever the volume says, no deletion reaches the other side that nobody made.

use std::fs;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::harness::{Fault, Folding, Pair, SOON, Side, Strange, names, read, wait_until, write};

/// What the tree of the tests holds.
const FILES: [&str; 6] = [
    "top.md",
    "notes/a.md",
    "notes/b.md",
    "notes/c.md",
    "notes/deep/d.md",
    "other/e.md",
];

/// Makes a pair whose pusher works on a strange volume.
fn pair_on_strange() -> Option<(Pair, crate::harness::Mount)> {
    let mut pair = Pair::strangers();
    let mount = Strange::mount(pair.scratch())?;
    pair.pusher.root = mount.root().to_owned();
    pair.pair();
    for path in FILES {
        write(&pair.pusher.root, path, path);
    }
    pair.flush();
    Some((pair, mount))
}

/// Lets the pusher look at everything, while both go on, and checks that the receiver has all files.
#[track_caller]
fn nothing_is_deleted(pair: &Pair, case: &str) {
    // A verify looks at both trees from top to bottom.
    pair.pusher.ask(["verify"]);
    everything_is_there(pair, case);
}

#[track_caller]
fn everything_is_there(pair: &Pair, case: &str) {
    let missing: Vec<_> = FILES
        .iter()
        .filter(|path| read(&pair.receiver.root, path).as_deref() != Some(**path))
        .collect();
    assert!(missing.is_empty(), "{case}: {missing:?} are gone");
}

#[test]
fn a_listing_that_leaves_things_out_deletes_nothing() {
    let Some((pair, mount)) = pair_on_strange() else {
        return;
    };
    let dirs = ["", "notes", "notes/deep", "other"];
    for show in [0, 1, 2] {
        for dir in dirs {
            mount.set(Fault::Forgetful {
                dir: dir.into(),
                show,
            });
        }
        assert!(names(&pair.pusher.root.join("notes")).len() <= show);
        nothing_is_deleted(&pair, &format!("{show} shown and no error"));
        mount.heal();
    }
    for error in [Errno::IO, Errno::ACCESS] {
        // The root itself would halt the side: see below.
        for dir in &dirs[1..] {
            mount.set(Fault::Breaks {
                dir: dir.into(),
                show: 1,
                error: error.raw_os_error(),
            });
        }
        assert!(
            fs::read_dir(pair.pusher.root.join("notes"))
                .unwrap()
                .any(|entry| entry.is_err())
        );
        nothing_is_deleted(&pair, &format!("one shown, then {error}"));
        mount.heal();
    }
    // What is really deleted meanwhile is deleted, also where it is not listed.
    mount.set(Fault::Forgetful {
        dir: "notes".into(),
        show: 1,
    });
    fs::remove_file(pair.pusher.root.join("notes/c.md")).unwrap();
    wait_until("a deletion arrives", SOON, || {
        !pair.receiver.root.join("notes/c.md").exists()
    });
    mount.heal();
    wait_until("both agree again", SOON, || {
        pair.pusher.ask(["flush"]).code == 0
    });
    pair.flush();
}

#[test]
fn a_root_whose_listing_breaks_off_halts() {
    let Some((mut pair, mount)) = pair_on_strange() else {
        return;
    };
    mount.set(Fault::Breaks {
        dir: PathBuf::new(),
        show: 1,
        error: Errno::IO.raw_os_error(),
    });
    // The first thing that a daemon does is to look at everything.
    pair.pusher.stop();
    pair.pusher.launch(&[]);
    wait_until("the pusher is halted", SOON, || {
        pair.pusher
            .ask(["status", "--short"])
            .stdout
            .contains("halted")
    });
    everything_is_there(&pair, "halted");
    mount.heal();
    wait_until("it goes on by itself", SOON, || {
        pair.pusher.ask(["flush"]).code == 0
    });
    pair.flush();
}

#[test]
fn what_cannot_be_looked_at_or_read_deletes_nothing() {
    let Some((pair, mount)) = pair_on_strange() else {
        return;
    };
    let path = |text: &str| PathBuf::from(text);
    for error in [Errno::IO, Errno::ACCESS].map(Errno::raw_os_error) {
        let cases = [
            Fault::Refuses {
                path: path("notes"),
                error,
            },
            Fault::Refuses {
                path: path("notes/a.md"),
                error,
            },
            Fault::Refuses {
                path: path("notes/deep"),
                error,
            },
            Fault::Unreadable {
                path: path("notes"),
                error,
            },
        ];
        for fault in cases {
            let case = format!("{fault:?}");
            mount.set(fault);
            // Something changes beside it, so that there is something to plan.
            write(&pair.pusher.root, "other/beside.md", &case);
            pair.arrives(Side::Receiver, "other/beside.md", &case);
            nothing_is_deleted(&pair, &case);
            mount.heal();
            wait_until("both agree again", SOON, || {
                pair.pusher.ask(["flush"]).code == 0
            });
        }
    }
    pair.flush();
}

#[test]
fn a_folding_volume_folds() {
    let pair = Pair::strangers();
    let Some(mount) = Folding::mount(pair.scratch()) else {
        return;
    };
    let root = mount.root();
    write(root, "Note.md", "1");
    assert_eq!(read(root, "nOTE.MD").as_deref(), Some("1"));
    assert_eq!(names(mount.behind()), ["Note.md"]);
    fs::rename(root.join("Note.md"), root.join("note.md")).unwrap();
    assert_eq!(
        names(root),
        ["note.md"],
        "a rename to another spelling is one"
    );
    let [composed, decomposed] = ["caf\u{e9}", "cafe\u{301}"];
    write(root, decomposed, "2");
    assert_eq!(read(root, composed).as_deref(), Some("2"));
    assert_eq!(names(root), [decomposed, "note.md"], "the spelling is kept");
    assert!(fs::create_dir(root.join("NOTE.md")).is_err());
}
