//! Everything that a person does to files, on either side, one after the other.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::harness::{Pair, Side, assert_equal, listing, run, wish, write};

/// A name of 255 bytes, the longest that there is.
const LONGEST: usize = 255;
/// 한국어 in one code point a syllable, and in several.
const NFC: &str = "\u{d55c}\u{ad6d}\u{c5b4}.md";
const NFD: &str = "\u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8}\u{110b}\u{1165}.md";

type Operation = (&'static str, fn(&Path));

/// Each begins where the one before it has ended.
const OPERATIONS: &[Operation] = &[
    ("create", |at| write(at, "notes/plan.md", "one\n")),
    ("edit in place", |at| {
        write(at, "notes/plan.md", "two and more\n");
    }),
    ("same length", |at| {
        write(at, "notes/plan.md", "too and more\n");
    }),
    ("append", |at| append(&at.join("notes/plan.md"), "three\n")),
    ("truncate", |at| cut(&at.join("notes/plan.md"), 4)),
    ("truncate to nothing", |at| {
        cut(&at.join("notes/plan.md"), 0);
    }),
    ("replace by rename", |at| {
        write(at, "notes/plan.md.tmp", "four\n");
        rename(at, "notes/plan.md.tmp", "notes/plan.md");
    }),
    ("empty file", |at| write(at, "notes/empty", "")),
    ("chmod +x", |at| mode(&at.join("notes/plan.md"), 0o755)),
    ("chmod +x with an edit", |at| {
        write(at, "notes/run.sh", "#!/bin/sh\n");
        mode(&at.join("notes/run.sh"), 0o755);
    }),
    ("chmod -x", |at| mode(&at.join("notes/plan.md"), 0o644)),
    ("chmod that no other machine has to know", |at| {
        mode(&at.join("notes/plan.md"), 0o600);
    }),
    ("rename a file", |at| {
        rename(at, "notes/plan.md", "notes/moved.md");
    }),
    ("rename and edit", |at| {
        rename(at, "notes/moved.md", "notes/again.md");
        append(&at.join("notes/again.md"), "five\n");
    }),
    ("copy", |at| {
        assert!(fs::copy(at.join("notes/again.md"), at.join("notes/copy.md")).is_ok());
    }),
    ("swap two files", |at| {
        rename(at, "notes/again.md", "notes/spare");
        rename(at, "notes/run.sh", "notes/again.md");
        rename(at, "notes/spare", "notes/run.sh");
    }),
    ("300 files in one directory", |at| {
        (0..300).for_each(|i| write(at, &format!("many/{i:03}.md"), format!("file {i}\n")));
    }),
    ("move a directory", |at| rename(at, "many", "notes/many")),
    ("move a directory and edit inside", |at| {
        rename(at, "notes/many", "lots");
        write(at, "lots/007.md", "changed\n");
        fs::remove_file(at.join("lots/008.md")).unwrap();
        write(at, "lots/new.md", "new\n");
    }),
    ("nest a directory into another and back", |at| {
        fs::create_dir(at.join("above")).unwrap();
        rename(at, "lots", "above/lots");
        rename(at, "above/lots", "lots2");
    }),
    ("change 300 files", |at| {
        (0..300).for_each(|i| write(at, &format!("lots2/{i:03}.md"), format!("file {i} again\n")));
    }),
    ("change only the case of a name", |at| {
        rename(at, "notes/copy.md", "notes/Copy.md");
    }),
    ("delete a file", |at| {
        fs::remove_file(at.join("notes/Copy.md")).unwrap();
    }),
    ("delete a directory", |at| {
        fs::remove_dir_all(at.join("lots2")).unwrap();
    }),
    ("file becomes directory", |at| {
        fs::remove_file(at.join("notes/empty")).unwrap();
        write(at, "notes/empty/inside/file", "1");
    }),
    ("directory becomes file", |at| {
        fs::remove_dir_all(at.join("notes/empty")).unwrap();
        write(at, "notes/empty", "a file again");
    }),
    ("empty directories", |at| {
        fs::create_dir_all(at.join("empty/inside/empty")).unwrap();
    }),
    ("delete an empty directory", |at| {
        fs::remove_dir(at.join("empty/inside/empty")).unwrap();
    }),
    ("links", |at| {
        fs::create_dir(at.join("links")).unwrap();
        link(at, "links/file", "../notes/run.sh");
        link(at, "links/dangling", "nowhere");
        link(at, "links/absolute", "/usr/share");
        link(at, "links/directory", "../notes");
        link(at, "links/itself", "itself");
        link(at, "links/up", "../..");
    }),
    ("change a link's target", |at| {
        link(at, "links/file", "../notes/again.md");
    }),
    ("link becomes file", |at| {
        fs::remove_file(at.join("links/dangling")).unwrap();
        write(at, "links/dangling", "real");
    }),
    ("link becomes directory", |at| {
        fs::remove_file(at.join("links/directory")).unwrap();
        write(at, "links/directory/file", "real");
    }),
    ("file becomes link", |at| {
        link(at, "notes/empty", "again.md");
    }),
    ("directory becomes link", |at| {
        fs::remove_dir_all(at.join("links/directory")).unwrap();
        link(at, "links/directory", "../notes");
    }),
    ("longest names", |at| {
        write(at, &format!("names/{}", "n".repeat(LONGEST)), "1");
        write(at, &format!("names/{}", "한".repeat(LONGEST / 3)), "1");
        write(at, &format!("names/{}/file", "d".repeat(LONGEST)), "1");
    }),
    ("edit at longest names", |at| {
        write(at, &format!("names/{}", "n".repeat(LONGEST)), "2");
        rename(
            at,
            &format!("names/{}", "d".repeat(LONGEST)),
            &format!("names/{}", "e".repeat(LONGEST)),
        );
    }),
    ("Korean names, both normal forms beside each other", |at| {
        write(at, &format!("names/{NFC}"), "composed");
        write(at, &format!("names/{NFD}"), "decomposed");
        write(at, &format!("names/폴더/{NFD}/안녕.md"), "안녕하세요\n");
    }),
    ("edit one of two normal forms", |at| {
        write(at, &format!("names/{NFD}"), "decomposed, changed");
    }),
    ("strange names", |at| {
        for name in [
            "line\nbreak",
            "-rf",
            "--help",
            " blank ",
            "tab\there",
            "back\\slash",
            "\"quote\"",
            "'",
            "*",
            "?",
            "#",
            "!x",
            "~",
            "a.",
            "CON",
            "\u{1b}[31m",
            "%s",
            "😀",
            "...",
            ".hidden",
        ] {
            write(at, &format!("strange/{name}"), name);
        }
    }),
    ("rename strange names", |at| {
        rename(at, "strange/line\nbreak", "strange/line\n\nbreak");
        rename(at, "strange/-rf", "strange/-fr");
        fs::remove_file(at.join("strange/*")).unwrap();
    }),
    ("deep", |at| write(at, &deep(), "bottom")),
    ("edit deep", |at| write(at, &deep(), "still the bottom")),
    ("move deep", |at| {
        rename(at, deep().split_once('/').unwrap().0, "shaft");
    }),
    ("a large file", |at| large(&at.join("large.bin"))),
    ("one byte in a large file", |at| {
        poke(&at.join("large.bin"), large_len() / 2, b"!");
    }),
    ("insert into a large file", |at| {
        let mut file = OpenOptions::new()
            .append(true)
            .open(at.join("large.bin"))
            .unwrap();
        file.write_all(&[3; 100_000]).unwrap();
    }),
    ("rename a large file", |at| {
        rename(at, "large.bin", "notes/large.bin");
    }),
    ("truncate a large file", |at| {
        cut(&at.join("notes/large.bin"), large_len() / 3);
    }),
    ("delete a large file", |at| {
        fs::remove_file(at.join("notes/large.bin")).unwrap();
    }),
    ("old and odd times", |at| {
        for (name, age) in [("yesterday", 86_400), ("1979", 1_500_000_000)] {
            // Made outside, so that the file never stands here with another time: a time alone is no
            // change that travels.
            let outside = at.with_extension(name);
            fs::write(&outside, name).unwrap();
            let then =
                SystemTime::now() - Duration::from_secs(age) + Duration::from_nanos(123_456_789);
            File::open(&outside).unwrap().set_modified(then).unwrap();
            fs::create_dir_all(at.join("times")).unwrap();
            fs::rename(&outside, at.join("times").join(name)).unwrap();
        }
    }),
    ("delete everything but a little", |at| {
        for name in ["names", "strange", "links", "shaft", "empty", "above"] {
            fs::remove_dir_all(at.join(name)).unwrap();
        }
    }),
];

#[test]
fn on_the_pusher() {
    all_on(Side::Pusher);
}

#[test]
fn on_the_receiver() {
    all_on(Side::Receiver);
}

fn all_on(side: Side) {
    let mut pair = Pair::joined();
    // Here most of a small tree changes at once, and that is meant.
    pair.pusher.stop();
    pair.pusher
        .set("rewrite_percent = 50", "rewrite_percent = 100");
    pair.pusher
        .set("delete_percent = 30", "delete_percent = 100");
    pair.pusher.start();
    pair.receiver.start();
    pair.meet();
    let [here, there] = match side {
        Side::Pusher => pair.roots(),
        Side::Receiver => {
            let [pusher, receiver] = pair.roots();
            [receiver, pusher]
        }
    };
    let mut slowest = (Duration::ZERO, "");
    for (index, (name, operate)) in OPERATIONS.iter().enumerate() {
        operate(&here);
        let meant = listing(&here);
        let begun = Instant::now();
        // Flushed from both sides in turn.
        let from = if index % 2 == 0 {
            Side::Pusher
        } else {
            Side::Receiver
        };
        let flushed = pair.node(from).ask(["flush"]);
        assert_eq!(flushed.code, 0, "{name}: {flushed:#?}");
        slowest = slowest.max((begun.elapsed(), name));
        assert_eq!(
            listing(&here),
            meant,
            "{name}: the side where it was done is as it was left"
        );
        let found = std::panic::catch_unwind(|| assert_equal(&here, &there));
        assert!(found.is_ok(), "after: {name}");
        assert_eq!(times(&here), times(&there), "{name}: mtimes");
    }
    assert_eq!(pair.pusher.status()["sync"]["conflicts"], 0);
    println!(
        "{} operations on the {}; the slowest, {}, took {:?}",
        OPERATIONS.len(),
        side.name(),
        slowest.1,
        slowest.0
    );
}

/// Returns path and modification time of every file.
fn times(root: &Path) -> Vec<String> {
    let root = root.to_str().unwrap();
    let found = run(
        "find",
        [
            root,
            "-path",
            &format!("{root}/.layer-sync"),
            "-prune",
            "-o",
            "-type",
            "f",
            "-printf",
            "%P %T@\\0",
        ],
    );
    let mut lines: Vec<_> = found
        .exits(0)
        .stdout
        .split('\0')
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

fn append(file: &Path, text: &str) {
    OpenOptions::new()
        .append(true)
        .open(file)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
}

fn cut(file: &Path, len: u64) {
    OpenOptions::new()
        .write(true)
        .open(file)
        .unwrap()
        .set_len(len)
        .unwrap();
}

fn poke(file: &Path, at: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

fn rename(root: &Path, from: &str, to: &str) {
    fs::rename(root.join(from), root.join(to)).unwrap();
}

fn mode(file: &Path, mode: u32) {
    fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
}

fn link(root: &Path, path: &str, target: &str) {
    drop(fs::remove_file(root.join(path)));
    symlink(target, root.join(path)).unwrap();
}

/// A path of 3,600 bytes; with the root it stays below what the system takes.
fn deep() -> String {
    let mut path = "deep-in-the-tree-there-is-a-file".to_owned();
    while path.len() < 3_600 {
        path += &format!("/level-{:022}", path.len());
    }
    path
}

fn large_len() -> u64 {
    if wish("HUGE").is_some() {
        2 << 30
    } else {
        64 << 20
    }
}

/// Mostly holes, with a stretch of noise now and then.
fn large(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(large_len()).unwrap();
    drop(file);
    for at in (0..large_len()).step_by(8 << 20) {
        let noise: Vec<u8> = (0..20_000_u64)
            .map(|i| ((i + at).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
            .collect();
        poke(path, at, &noise);
    }
}
