//! A rename on one side is a rename on the other: nothing is read, sent or written again.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::harness::{Pair, Side, assert_equal, write};

const FILES: usize = 3000;

fn inode(root: &Path, path: &str) -> u64 {
    fs::symlink_metadata(root.join(path))
        .expect("it is there")
        .ino()
}

/// A tree that has rested for long: what was just written is read again to be sure.
fn fill(root: &Path) {
    for number in 0..FILES {
        write(
            root,
            &format!("many/{}/{number}.md", number % 7),
            format!("note {number}\n"),
        );
    }
    write(root, "video", vec![7; 3_000_000]);
    let long_ago = SystemTime::now() - Duration::from_secs(60);
    let rest = |path: &Path| {
        let file = File::options().write(true).open(path).expect("open");
        file.set_modified(long_ago).expect("set");
    };
    rest(&root.join("video"));
    for number in 0..FILES {
        rest(&root.join(format!("many/{}/{number}.md", number % 7)));
    }
}

fn renamed_on(side: Side) {
    let mut pair = Pair::strangers();
    let here = pair.node(side).root.clone();
    fill(&here);
    pair.pair();
    pair.flush();
    let there = pair.roots().into_iter().find(|root| *root != here);
    let there = there.expect("there are two");
    let inodes = |dir: &str| {
        let paths = ["0/0.md", "3/3.md", "5/2994.md"];
        let paths = paths
            .iter()
            .filter(|name| there.join(dir).join(name).exists());
        paths
            .map(|name| inode(&there, &format!("{dir}/{name}")))
            .collect::<Vec<_>>()
    };
    let (before, video) = (inodes("many"), inode(&there, "video"));
    assert!(before.len() >= 2);

    fs::rename(here.join("many"), here.join("lots")).expect("renamed");
    fs::rename(here.join("video"), here.join("lots/film")).expect("renamed");
    // Edited, added and deleted in the same moment.
    write(&here, "lots/0/0.md", "edited\n");
    write(&here, "lots/new.md", "new\n");
    fs::remove_file(here.join("lots/1/1.md")).expect("removed");
    pair.flush();
    assert_equal(&here, &there);
    // The edited one is another file, as after any edit.
    assert_eq!(inodes("lots")[1..], before[1..]);
    assert_eq!(inode(&there, "lots/film"), video);

    // And back, while nothing else happens.
    let before = inodes("lots");
    fs::rename(here.join("lots"), here.join("many")).expect("renamed");
    pair.flush();
    assert_eq!(inodes("many"), before);
    assert_equal(&here, &there);
}

#[test]
fn on_the_pusher() {
    renamed_on(Side::Pusher);
}

#[test]
fn on_the_receiver() {
    renamed_on(Side::Receiver);
}
