//! Paths that cannot travel: they wait with a reason, and everything else goes on.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::harness::{Pair, SOON, Side, assert_equal, names, read, run, wait, wait_until, write};

/// Waits until both nodes say that a path is held, and returns the code.
#[track_caller]
fn held(pair: &Pair, path: &str) -> String {
    let mut codes = pair.nodes().map(|node| {
        wait(&format!("{path} is held"), SOON, || {
            let status = node.status();
            let problem = status["problems"]
                .as_array()
                .unwrap()
                .iter()
                .find(|problem| problem["path"] == path)
                .cloned()?;
            let told = ["code", "text", "fix"]
                .iter()
                .all(|key| problem[key].as_str().is_some_and(|text| !text.is_empty()));
            assert!(told && problem["severity"] == "held", "{problem}");
            assert_eq!(
                (&status["state"], &status["sync"]["in_sync"]),
                (&"held".into(), &false.into()),
                "{status}"
            );
            Some(problem["code"].as_str().unwrap().to_owned())
        })
    });
    assert_eq!(codes[0], codes[1]);
    std::mem::take(&mut codes[0])
}

#[track_caller]
fn nothing_is_held(pair: &Pair) {
    for node in pair.nodes() {
        wait_until("nothing is held any more", SOON, || {
            node.in_sync() && node.problems().is_empty()
        });
    }
}

#[test]
fn what_is_no_file_is_reported_and_others_go_on() {
    for side in [Side::Pusher, Side::Receiver] {
        let pair = Pair::running();
        let root = &pair.node(side).root;
        write(root, "dir/before.md", "1");
        pair.flush();
        mkfifoat(CWD, root.join("dir/pipe"), Mode::RWXU).unwrap();
        let _socket = UnixListener::bind(root.join("dir/socket")).unwrap();
        write(root, "dir/after.md", "1");
        write(root, "dir/before.md", "2");
        // Beside it, so that nobody takes the tree for emptied.
        write(root, "beside.md", "3");
        let answer = pair.pusher.ask(["flush"]).exits(4);
        assert!(
            answer.stdout.contains("dir/pipe") && answer.stdout.contains("dir/socket"),
            "{answer:#?}"
        );
        assert_eq!(held(&pair, "dir/pipe"), "held.special");
        assert_eq!(held(&pair, "dir/socket"), "held.special");
        for root in pair.roots() {
            assert_eq!(
                (
                    read(&root, "dir/after.md").as_deref(),
                    read(&root, "dir/before.md").as_deref()
                ),
                (Some("1"), Some("2"))
            );
        }
        pair.pusher.ask(["status", "--check"]).exits(4);
        // The other side deletes their directory: nothing in it moves, because that would not travel.
        let other = pair.node(if side == Side::Pusher {
            Side::Receiver
        } else {
            Side::Pusher
        });
        fs::remove_dir_all(other.root.join("dir")).unwrap();
        pair.pusher.ask(["flush"]).exits(4);
        assert_eq!(
            names(&root.join("dir")),
            ["after.md", "before.md", "pipe", "socket"]
        );
        fs::remove_file(root.join("dir/pipe")).unwrap();
        fs::remove_file(root.join("dir/socket")).unwrap();
        wait_until("both agree again", SOON, || {
            pair.pusher.ask(["flush"]).code == 0
        });
        assert_equal(&pair.pusher.root, &pair.receiver.root);
        nothing_is_held(&pair);
    }
}

#[test]
fn names_that_cannot_travel() {
    let pair = Pair::running();
    let name = pair.receiver.root.join(OsStr::from_bytes(b"not-utf8-\xff"));
    write(&pair.receiver.root, "good", "1");
    fs::write(&name, "1").unwrap();
    let answer = pair.receiver.ask(["flush"]).exits(4);
    assert!(answer.stdout.contains("not-utf8"), "{answer:#?}");
    assert_eq!(names(&pair.pusher.root), ["good"]);
    assert!(
        pair.pusher
            .problems()
            .iter()
            .any(|code| code == "held.not_utf8"),
        "{:?}",
        pair.pusher.problems()
    );
    fs::rename(&name, pair.receiver.root.join("utf8")).unwrap();
    wait_until("both agree again", SOON, || {
        pair.pusher.ask(["flush"]).code == 0
    });
    nothing_is_held(&pair);
}

#[test]
fn a_full_disk_holds_what_does_not_fit() {
    let mut pair = Pair::joined();
    let root = pair.receiver.root.to_str().unwrap().to_owned();
    // A small volume that only the daemon sees, and that is gone with it: in namespaces of its own.
    let mount = [
        "sh",
        "-c",
        "root=$1; shift; mount -t tmpfs -o size=2m layer-sync-test \"$root\" && exec \"$@\"",
        "sh",
        &root,
    ];
    let spaces = ["unshare", "--user", "--map-root-user", "--mount"];
    let words: Vec<_> = spaces.into_iter().chain(mount).collect();
    let tried = run(words[0], words[1..].iter().chain(&["true"]));
    if tried.code != 0 {
        println!("skipped: no volume can be mounted here: {}", tried.stderr);
        return;
    }
    pair.receiver.start_under(&words);
    pair.meet();
    let inside = format!("/proc/{}/root{root}", pair.receiver.pid().as_raw_nonzero());
    let outside = std::mem::replace(&mut pair.receiver.root, inside.into());
    write(&pair.pusher.root, "first", "1");
    pair.flush();
    assert_eq!(names(&outside), [""; 0], "it is on the small volume");
    // `.env` never travels, so it only takes space away.
    write(&pair.receiver.root, ".env", vec![1; 1_500_000]);
    let noise: Vec<u8> = (0..1_000_000_u64)
        .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect();
    fs::write(pair.pusher.root.join("large"), &noise).unwrap();
    write(&pair.pusher.root, "small", "1");
    assert_eq!(held(&pair, "large"), "held.disk_full");
    pair.arrives(Side::Receiver, "small", "1");
    assert!(
        !pair.receiver.root.join("large").exists(),
        "nothing is truncated"
    );
    write(&pair.pusher.root, "small", "2");
    pair.arrives(Side::Receiver, "small", "2");
    write(&pair.receiver.root, "back", "1");
    pair.arrives(Side::Pusher, "back", "1");
    fs::remove_file(pair.receiver.root.join(".env")).unwrap();
    wait_until("it heals by itself", SOON, || {
        fs::read(pair.receiver.root.join("large")).is_ok_and(|there| there == noise)
    });
    pair.flush();
    nothing_is_held(&pair);
}

#[test]
fn a_path_that_must_not_change_is_held() {
    let pair = Pair::running();
    write(&pair.pusher.root, "locked/file", "1");
    write(&pair.pusher.root, "free", "1");
    pair.flush();
    let locked = pair.receiver.root.join("locked/file");
    let guard = Immutable(locked.to_str().unwrap().to_owned());
    if let Err(reason) = guard.set("+i") {
        println!("skipped: no file can be made immutable here: {reason}");
        return;
    }
    write(&pair.pusher.root, "locked/file", "2");
    write(&pair.pusher.root, "free", "2");
    pair.arrives(Side::Receiver, "free", "2");
    let code = held(&pair, "locked/file");
    assert!(
        matches!(&*code, "held.permission" | "held.read_only"),
        "{code}"
    );
    assert_eq!(
        read(&pair.receiver.root, "locked/file").as_deref(),
        Some("1")
    );
    guard.set("-i").unwrap();
    pair.arrives(Side::Receiver, "locked/file", "2");
    pair.flush();
    nothing_is_held(&pair);
}

/// A file that is made changeable again whatever happens, so that it can be cleared away.
struct Immutable(String);

impl Immutable {
    fn set(&self, flag: &str) -> Result<(), String> {
        let answer = run("chattr", [flag, &self.0]);
        (answer.code == 0).then_some(()).ok_or(answer.stderr)
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        drop(self.set("-i"));
    }
}

#[test]
fn what_cannot_be_read_is_held_and_never_taken_for_deleted() {
    let mut pair = Pair::running();
    write(&pair.pusher.root, "closed/file", "1");
    write(&pair.pusher.root, "open", "1");
    pair.flush();
    let closed = pair.pusher.root.join("closed");
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&closed).is_ok() {
        // This is root, who may read everything: its daemon gives that right away.
        pair.pusher.stop();
        pair.pusher
            .start_under(&["setpriv", "--bounding-set=-all", "--inh-caps=-all"]);
        pair.meet();
    }
    write(&pair.pusher.root, "open", "2");
    pair.arrives(Side::Receiver, "open", "2");
    pair.pusher.ask(["flush"]).exits(4);
    assert_eq!(held(&pair, "closed"), "held.unreadable");
    assert_eq!(
        read(&pair.receiver.root, "closed/file").as_deref(),
        Some("1")
    );
    fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
    wait_until("both agree again", SOON, || {
        pair.pusher.ask(["flush"]).code == 0
    });
    nothing_is_held(&pair);
}
