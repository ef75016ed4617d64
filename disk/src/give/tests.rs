use std::fs;

use super::*;
use crate::tests::{Bench, file, noise, path};

fn item(index: u32, name: &str, entry: Option<Entry>) -> Item {
    Item {
        index,
        path: path(name),
        entry: entry.expect("an entry"),
        base: None,
    }
}

fn parts(bench: &Bench, items: &[Item]) -> Vec<String> {
    let mut shown = Vec::new();
    let mut sink = |part: Part| {
        shown.push(match part {
            Part::Pack { files, zstd, .. } => {
                let files: Vec<String> = files.iter().map(|file| file.index.to_string()).collect();
                format!(
                    "pack {}{}",
                    files.join(" "),
                    if zstd { " zstd" } else { "" }
                )
            }
            Part::Manifest {
                index,
                manifest,
                more,
                ..
            } => {
                format!("manifest {index} {} {more}", manifest.len())
            }
            Part::Edited { index, pieces, .. } => format!("edited {index} {}", pieces.len()),
            Part::Gone { index } => format!("gone {index}"),
            Part::Stands { index } => format!("stands {index}"),
        });
        Ok(())
    };
    bench.replica.give(items, &mut sink).expect("given");
    shown
}

#[test]
fn what_changed_since_the_plan_is_gone() {
    let bench = Bench::new();
    bench.write("same", "1");
    bench.write("changed", "2");
    bench.write("dir/x", "3");
    std::os::unix::fs::symlink("same", bench.at("link")).expect("linked");
    let long = noise(200_000, 1);
    bench.write("long", &long);
    bench.look();
    let seen = lock(&bench.replica.seen)
        .row(&path("long"))
        .cloned()
        .expect("seen")
        .entry;
    let items = [
        item(0, "same", file("1")),
        item(1, "changed", file("1")),
        item(2, "missing", file("1")),
        item(3, "dir", file("1")),
        item(4, "link", file("1")),
        item(5, "long", Some(seen.clone())),
        item(6, "same", Some(Entry::Dir)),
    ];
    assert_eq!(
        parts(&bench, &items),
        [
            "gone 1",
            "gone 2",
            "gone 3",
            "gone 4",
            "manifest 5 200000 false",
            "gone 6",
            "pack 0"
        ]
    );
    let mut edited = long.clone();
    edited[0] ^= 1;
    bench.write("long", edited);
    assert_eq!(
        parts(&bench, &[item(5, "long", Some(seen.clone()))]),
        ["gone 5"]
    );
    let mut runs = Vec::new();
    let mut sink = |run: Option<ChunkRun>| {
        runs.push(run);
        Ok(())
    };
    bench
        .replica
        .give_chunks(&item(5, "long", Some(seen)), &[(0, 1)], &[], &mut sink)
        .expect("given");
    assert_eq!(runs, [None]);
}

#[test]
fn many_small_files_are_few_packs() {
    let bench = Bench::new();
    let mut items = Vec::new();
    for number in 0..300_u32 {
        let content = format!("note {number} ").repeat(1000);
        bench.write(&format!("n{number}"), &content);
        items.push(item(number, &format!("n{number}"), file(&content)));
    }
    let parts = parts(&bench, &items);
    assert!((2..=5).contains(&parts.len()), "{}", parts.len());
    assert!(parts.iter().all(|part| part.ends_with("zstd")));
}

#[test]
fn a_missing_run_is_gone_and_never_a_panic() {
    let bench = Bench::new();
    bench.write("long", noise(200_000, 2));
    bench.look();
    let entry = lock(&bench.replica.seen)
        .row(&path("long"))
        .cloned()
        .expect("seen")
        .entry;
    let long = item(0, "long", Some(entry));
    for runs in [[(0, 99)], [(99, 1)], [(u32::MAX, u32::MAX)]] {
        let mut last = None;
        let mut sink = |run: Option<ChunkRun>| {
            last = Some(run);
            Ok(())
        };
        bench
            .replica
            .give_chunks(&long, &runs, &[], &mut sink)
            .expect("given");
        assert_eq!(last, Some(None), "{runs:?}");
    }
    fs::remove_file(bench.at("long")).expect("gone");
    assert_eq!(parts(&bench, &[long]), ["gone 0"]);
}
