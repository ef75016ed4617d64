//! The receiving volume runs full in the middle of a batch, or refuses every write.

use std::fs;

use rustix::io::Errno;

use crate::harness::{Fault, Pair, SOON, Side, Strange, Volume, read, wait_until, write};

/// Returns content that does not compress, the same for the same seed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Makes a pair whose receiver works on a small volume of its own.
fn pair_on_small(bytes: u64) -> Option<(Pair, Volume)> {
    let mut pair = Pair::strangers();
    let (image, at) = (pair.scratch().join("image"), pair.scratch().join("small"));
    fs::create_dir(&at).unwrap();
    let volume = Volume::mount(&image, bytes, &at)?;
    pair.receiver.root = at.join("tree");
    fs::create_dir(&pair.receiver.root).unwrap();
    pair.pair();
    Some((pair, volume))
}

#[track_caller]
fn heals(pair: &Pair) {
    wait_until("it heals by itself", SOON, || {
        pair.pusher.ask(["flush"]).code == 0 && pair.nodes().iter().all(|node| node.in_sync())
    });
    pair.flush();
    for node in pair.nodes() {
        wait_until("nothing is held any more", SOON, || {
            node.problems().is_empty()
        });
    }
}

#[test]
fn a_volume_that_runs_full_in_a_batch_truncates_nothing() {
    let Some((pair, _volume)) = pair_on_small(8 * 1024 * 1024) else {
        return;
    };
    let [from, to] = pair.roots();
    // Beside the tree, on the same volume: it only takes the space away.
    let ballast = to.with_file_name("ballast");
    fs::write(&ballast, noise(2 * 1024 * 1024, 1)).unwrap();
    write(&from, "replaced.bin", noise(60_000, 2));
    write(&from, "small.md", "1");
    pair.flush();
    // One batch that is larger than the volume: short files, long files, and a file that is replaced.
    let staging = pair.scratch().join("coming");
    for number in 0..120 {
        write(
            &staging,
            &format!("short-{number}.bin"),
            noise(40_000, 100 + number),
        );
    }
    write(&staging, "long.bin", noise(6 * 1024 * 1024, 3));
    fs::rename(&staging, from.join("coming")).unwrap();
    write(&from, "replaced.bin", noise(61_000, 4));
    let held = pair.pusher.problem("held.disk_full");
    let text = held["text"].as_str().unwrap();
    assert!(text.contains("space") || text.contains("full"), "{held}");
    // What is small still arrives, and again.
    for content in ["2", "3"] {
        write(&from, "small.md", content);
        wait_until("a small file arrives", SOON, || {
            read(&to, "small.md").as_deref() == Some(content)
        });
    }
    let mut missing = 0;
    for entry in fs::read_dir(from.join("coming")).unwrap() {
        let entry = entry.unwrap();
        match fs::read(to.join("coming").join(entry.file_name())) {
            Ok(there) => assert!(
                there == fs::read(entry.path()).unwrap(),
                "{:?} is not whole",
                entry.file_name()
            ),
            Err(_) => missing += 1,
        }
    }
    assert!(
        missing > 0,
        "everything fitted: the volume did not run full"
    );
    let replaced = fs::read(to.join("replaced.bin")).unwrap();
    assert!(replaced == noise(60_000, 2) || replaced == noise(61_000, 4));
    assert!(!pair.pusher.in_sync(), "it says that something is missing");

    // Space returns, as far as it can: the long file goes, and so does the ballast.
    fs::remove_file(from.join("coming/long.bin")).unwrap();
    fs::remove_file(ballast).unwrap();
    heals(&pair);
}

#[test]
fn a_volume_that_refuses_every_write_holds_and_heals() {
    let check = |error: Errno, code: &str| {
        let mut pair = Pair::strangers();
        let Some(mount) = Strange::mount(pair.scratch()) else {
            return;
        };
        pair.receiver.root = mount.root().to_owned();
        pair.pair();
        let [from, to] = pair.roots();
        write(&from, "a.md", "1");
        pair.flush();
        let error = error.raw_os_error();
        mount.set(Fault::NoWrites { error });
        write(&from, "a.md", "2");
        write(&from, "b.md", "1");
        pair.pusher.problem(code);
        assert_eq!(read(&to, "a.md").as_deref(), Some("1"));
        assert_eq!(read(&from, "a.md").as_deref(), Some("2"));
        assert!(!to.join("b.md").exists());
        mount.heal();
        pair.arrives(Side::Receiver, "a.md", "2");
        heals(&pair);
    };
    check(Errno::ROFS, "held.read_only");
    check(Errno::NOSPC, "held.disk_full");
    check(Errno::PERM, "held.permission");
}
