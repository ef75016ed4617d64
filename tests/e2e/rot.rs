//! A disk that loses bits: what reads differently although nothing wrote to it is found, and never sent.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::harness::{Pair, Volume, read, write};

const GOOD: &str = "these very words are found again in the image of the volume 7f3a9c";
const SPOILT: &str = "these very words are found again in the image of the volume 7f3a9d";

#[test]
fn a_deep_verify_finds_what_a_disk_has_spoilt() {
    let mut pair = Pair::strangers();
    let (image, at) = (pair.scratch().join("image"), pair.scratch().join("volume"));
    fs::create_dir(&at).unwrap();
    let Some(volume) = Volume::mount(&image, 16 * 1024 * 1024, &at) else {
        return;
    };
    pair.pusher.root = at.join("tree");
    fs::create_dir(&pair.pusher.root).unwrap();
    let root = pair.pusher.root.clone();
    for name in ["spoilt.md", "fine.md"] {
        write(&root, name, GOOD);
        // What was modified a moment ago may still be written through a mapping.
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        let file = fs::File::options()
            .write(true)
            .open(root.join(name))
            .unwrap();
        file.set_modified(hour_ago).unwrap();
    }
    write(&root, "fine.md", "another text");
    pair.pair();
    pair.flush();
    pair.pusher.ask(["verify", "--deep"]).exits(0);

    // One byte changes on the disk itself.
    pair.pusher.stop();
    volume.unmount_lazily();
    let mut bytes = fs::read(&image).unwrap();
    let places: Vec<usize> = bytes
        .windows(GOOD.len())
        .enumerate()
        .filter(|(_, window)| *window == GOOD.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty());
    for place in places {
        bytes[place..place + SPOILT.len()].copy_from_slice(SPOILT.as_bytes());
    }
    fs::write(&image, bytes).unwrap();
    volume.mount_again(&image);
    pair.pusher.start();
    pair.meet();
    assert_eq!(read(&root, "spoilt.md").as_deref(), Some(SPOILT));
    // Nobody has read it yet, so all is well as far as anybody knows.
    pair.pusher.ask(["verify"]).exits(0);

    pair.receiver.ask(["verify", "--deep"]).exits(4);
    let problem = pair.pusher.problem("held.rotten");
    assert_eq!(problem["path"], "spoilt.md");
    assert_eq!(
        read(&pair.receiver.root, "spoilt.md").as_deref(),
        Some(GOOD)
    );
    assert!(!pair.pusher.in_sync());
    // What helps: the good copy is written over it.
    write(&root, "spoilt.md", GOOD);
    pair.flush();
    pair.pusher.ask(["verify", "--deep"]).exits(0);
}
