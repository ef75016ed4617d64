use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::transfer::{Outcome, Source, TroubleKind};
use shared::tree::Entry;

use super::*;
use crate::tests::{Bench, file, link, op, path};

mod crash;
mod moved;
mod race;

/// What a case of the tables below puts at a path, or wants there.
pub(super) fn entry(text: &str) -> Option<Entry> {
    match text {
        "-" => None,
        "dir" => Some(Entry::Dir),
        _ => match (text.strip_prefix("-> "), text.strip_suffix(" x")) {
            (Some(target), _) => link(target),
            (None, Some(content)) => match file(content) {
                Some(Entry::File { content, len, .. }) => Some(Entry::File {
                    content,
                    len,
                    exec: true,
                }),
                other => other,
            },
            (None, None) => file(text),
        },
    }
}

fn put(bench: &Bench, text: &str) {
    put_at(bench, "p", text);
}

fn put_at(bench: &Bench, name: &str, text: &str) {
    let at = bench.at(name);
    match entry(text) {
        None => {}
        Some(Entry::Dir) => fs::create_dir(at).expect("made"),
        Some(Entry::Symlink { target }) => symlink(&*target, at).expect("linked"),
        Some(Entry::File { exec, .. }) => {
            bench.write(name, text.trim_end_matches(" x"));
            let mode = if exec { 0o755 } else { 0o644 };
            fs::set_permissions(at, fs::Permissions::from_mode(mode)).expect("set");
        }
    }
}

fn standing(bench: &Bench) -> String {
    standing_at(bench, "p")
}

fn standing_at(bench: &Bench, name: &str) -> String {
    let at = bench.at(name);
    match fs::symlink_metadata(&at) {
        Err(_) => "-".to_owned(),
        Ok(found) if found.is_dir() => "dir".to_owned(),
        Ok(found) if found.is_symlink() => {
            format!("-> {}", fs::read_link(at).expect("a link").display())
        }
        Ok(found) => {
            let exec = if found.mode() & 0o100 != 0 { " x" } else { "" };
            format!("{}{exec}", fs::read_to_string(at).expect("a file"))
        }
    }
}

const KINDS: [&str; 8] = [
    "-", "one", "two", "one x", "two x", "dir", "-> here", "-> there",
];
const CONTENTS: [&[u8]; 2] = [b"one", b"two"];

#[test]
fn every_transition_by_exchange_and_without() {
    for weak in [false, true] {
        for before in KINDS {
            for after in KINDS {
                let mut bench = Bench::in_memory();
                bench.replica.weaker.store(weak, Ordering::Relaxed);
                put(&bench, before);
                bench.look();
                let op = op("p", entry(before), entry(after));
                let is_file = matches!(op.make, Some(Entry::File { .. }));
                let only_exec = is_file && op.from == Source::Nothing;
                let outcomes = bench.apply(vec![op], &CONTENTS);
                let case = format!("{before} to {after}, weak {weak}");
                assert_eq!(outcomes, [Outcome::Done], "{case}");
                assert_eq!(standing(&bench), after, "{case}");
                assert_eq!(bench.private("stage"), [""; 0], "{case}");
                let kept = match before {
                    "-" | "dir" => vec![],
                    _ if before == after || only_exec => vec![],
                    other => vec![other.trim_end_matches(" x").to_owned()],
                };
                assert_eq!(bench.kept(), kept, "{case}");
                bench.look();
                assert_eq!(
                    bench.observed(),
                    [""; 0],
                    "{case}: nothing is news to the next look"
                );
                let bench = bench.reopen();
                let agreed: Vec<_> = bench.base().into_iter().map(|(_, row)| row.entry).collect();
                assert_eq!(agreed, [entry(after)], "{case}");
            }
        }
    }
}

#[test]
fn what_the_plan_did_not_see_is_never_touched() {
    for expect in KINDS {
        for there in KINDS {
            for make in KINDS {
                // A directory that shall be made and is there is as it shall be.
                if expect == there || (expect, there, make) == ("-", "dir", "dir") {
                    continue;
                }
                let mut bench = Bench::in_memory();
                put(&bench, there);
                bench.look();
                let outcomes = bench.apply(vec![op("p", entry(expect), entry(make))], &CONTENTS);
                let case = format!("{expect} expected, {there} there, {make} to make");
                assert_eq!(outcomes, [Outcome::Stale], "{case}");
                assert_eq!(standing(&bench), there, "{case}");
                assert_eq!(
                    (bench.kept(), bench.private("stage")),
                    (vec![], vec![]),
                    "{case}"
                );
                assert!(bench.reopen().base().is_empty(), "{case}");
            }
        }
    }
}

#[test]
fn a_save_in_the_window_wins() {
    for before in ["one", "one x", "-> here"] {
        for after in ["two", "dir", "-> there", "-"] {
            for moment in [Step::Dress, Step::Exchange, Step::Withdraw] {
                let operation = op("p", entry(before), entry(after));
                if !steps::steps(&operation, false).contains(&moment) {
                    continue;
                }
                let mut bench = Bench::in_memory();
                put(&bench, before);
                bench.look();
                let at = bench.at("p");
                // As editors save: a new file, renamed over the old one.
                bench.hook(move |step| {
                    if step == moment {
                        let new = at.with_file_name("new");
                        fs::write(&new, "saved").expect("written");
                        fs::rename(new, &at).expect("renamed");
                    }
                    ControlFlow::Continue(())
                });
                let outcomes = bench.apply(vec![operation], &CONTENTS);
                bench.unhook();
                let case = format!("{before} to {after}, saved before {moment:?}");
                assert_eq!(outcomes, [Outcome::Stale], "{case}");
                assert_eq!(standing(&bench), "saved", "{case}");
                assert_eq!(bench.private("stage"), [""; 0], "{case}");
                bench.look();
                assert_eq!(bench.observed(), ["p file 5"], "{case}");
            }
        }
    }
}

#[test]
fn a_save_after_the_exchange_keeps_both() {
    let mut bench = Bench::new();
    put(&bench, "one");
    bench.look();
    let at = bench.at("p");
    bench.hook(move |step| {
        let save = |content: &str| {
            let new = at.with_file_name("new");
            fs::write(&new, content).expect("written");
            fs::rename(new, &at).expect("renamed");
        };
        match step {
            Step::Exchange => save("saved first"),
            Step::CameOut => save("saved later"),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    assert_eq!(
        bench.apply(vec![op("p", file("one"), file("two"))], &CONTENTS),
        [Outcome::Stale]
    );
    assert_eq!(standing(&bench), "saved later");
    assert_eq!(bench.kept(), ["saved first"]);
    let versions = bench.replica.versions(&path("p")).expect("listed");
    assert_eq!(versions.len(), 1);
    assert_eq!(
        versions[0].len, 11,
        "the catalogue says what really was displaced"
    );
}

#[test]
fn a_write_in_place_in_the_window_is_noticed() {
    let mut bench = Bench::new();
    put(&bench, "one");
    bench.look();
    let at = bench.at("p");
    bench.hook(move |step| {
        if step == Step::Exchange {
            fs::write(&at, "eno").expect("written");
        }
        ControlFlow::Continue(())
    });
    assert_eq!(
        bench.apply(vec![op("p", file("one"), file("two"))], &CONTENTS),
        [Outcome::Stale]
    );
    assert_eq!(standing(&bench), "eno");
}

#[test]
fn an_observer_always_sees_a_whole_file() {
    const REPLACES: usize = 1000;
    let contents: Vec<Vec<u8>> = (0..2_u8)
        .map(|n| vec![b'a' + n; 20_000 + 10_000 * usize::from(n)])
        .collect();
    let mut bench = Bench::in_memory();
    bench.write("p", &contents[0]);
    bench.look();
    let (at, done) = (bench.at("p"), Arc::new(AtomicBool::new(false)));
    let observer = std::thread::spawn({
        let (contents, done) = (contents.clone(), done.clone());
        move || {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                let found = fs::read(&at).expect("the path is never absent");
                assert!(
                    contents.contains(&found),
                    "{} bytes, neither old nor new",
                    found.len()
                );
                reads += 1;
            }
            reads
        }
    });
    let slices: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    for round in 0..REPLACES {
        let (old, new) = (&contents[round % 2], &contents[(round + 1) % 2]);
        let outcomes = bench.apply(vec![op("p", file(old), file(new))], &slices);
        assert_eq!(outcomes, [Outcome::Done], "{round}");
    }
    done.store(true, Ordering::Relaxed);
    assert!(observer.join().expect("it saw whole files only") > 0);
    assert_eq!(bench.private("kept").len(), REPLACES);
}

#[test]
fn directories_and_what_is_in_them() {
    let mut bench = Bench::new();
    bench.write("p/.DS_Store", "litter");
    bench.look();
    assert_eq!(
        bench.apply(vec![op("p", entry("dir"), None)], &[]),
        [Outcome::Done]
    );
    assert_eq!(bench.kept(), ["litter"]);

    bench.write("p/mine", "content");
    for make in ["-", "one", "-> here"] {
        bench.look();
        let outcomes = bench.apply(vec![op("p", entry("dir"), entry(make))], &CONTENTS);
        let Outcome::Held(trouble) = &outcomes[0] else {
            panic!("{make}: {outcomes:?}")
        };
        assert_eq!(trouble.kind, TroubleKind::NotEmpty, "{make}");
        assert!(trouble.text.contains("\"mine\""), "{}", trouble.text);
        assert_eq!(bench.read("p/mine"), "content");
    }
    // Something appears in the directory after it was found empty.
    fs::remove_file(bench.at("p/mine")).expect("gone");
    bench.look();
    for moment in [Step::Exchange, Step::CameOut] {
        let at = bench.at("p");
        bench.hook(move |step| {
            if step == moment && at.is_dir() {
                fs::write(at.join("late"), "late").expect("written");
            }
            ControlFlow::Continue(())
        });
        let outcomes = bench.apply(vec![op("p", entry("dir"), entry("one"))], &CONTENTS);
        bench.unhook();
        if moment == Step::Exchange {
            assert!(matches!(outcomes[0], Outcome::Held(_)), "{outcomes:?}");
            assert_eq!(bench.read("p/late"), "late");
            fs::remove_file(bench.at("p/late")).expect("gone");
        } else {
            assert_eq!(outcomes, [Outcome::Done]);
        }
    }
}

#[test]
fn a_batch_goes_on_past_what_cannot_be_done() {
    let mut bench = Bench::new();
    bench.write("stale", "changed");
    symlink("/tmp", bench.at("trap")).expect("linked");
    bench.write("file", "x");
    bench.look();
    let ops = vec![
        op("new", None, Some(Entry::Dir)),
        op("new/a", None, file("one")),
        op("stale", file("one"), file("two")),
        op("trap/b", None, file("one")),
        op("file/c", None, file("one")),
        op("missing/d", None, file("one")),
        op("e", None, file("two")),
    ];
    let outcomes = bench.apply(ops, &CONTENTS);
    let stale = Outcome::Stale;
    let done = Outcome::Done;
    assert_eq!(
        outcomes,
        [
            done.clone(),
            done.clone(),
            stale.clone(),
            stale.clone(),
            stale.clone(),
            stale,
            done
        ]
    );
    assert!(
        !std::path::Path::new("/tmp/b").exists(),
        "no link is followed"
    );
    assert_eq!(
        (bench.read("new/a"), bench.read("e")),
        ("one".into(), "two".into())
    );
    let agreed: Vec<String> = bench
        .reopen()
        .base()
        .iter()
        .map(|(path, _)| path.to_string())
        .collect();
    assert_eq!(agreed, ["e", "new", "new/a"]);
}

#[test]
fn mode_and_time_are_carried() {
    let mut bench = Bench::new();
    bench.write("p", "one");
    fs::set_permissions(bench.at("p"), fs::Permissions::from_mode(0o640)).expect("set");
    bench.look();
    let make = entry("two x");
    bench.apply(
        vec![op("p", entry("one"), make), op("new", None, file("one"))],
        &CONTENTS,
    );
    let found = fs::metadata(bench.at("p")).expect("there");
    assert_eq!(found.mode() & 0o777, 0o750);
    assert_eq!(
        (found.mtime(), found.mtime_nsec()),
        (1_700_000_000, 123_456_789)
    );
    let ordinary = File::create(bench.at("ordinary")).expect("made");
    let expected = ordinary.metadata().expect("there").mode();
    assert_eq!(
        fs::metadata(bench.at("new")).expect("there").mode(),
        expected
    );
}

#[test]
fn what_only_one_side_did_is_seen_and_not_agreed() {
    let mut bench = Bench::new();
    let op = Op {
        agrees: false,
        ..op("p", None, file("one"))
    };
    assert_eq!(bench.apply(vec![op], &CONTENTS), [Outcome::Done]);
    bench.look();
    assert_eq!(bench.observed(), [""; 0]);
    let bench = bench.reopen();
    assert!(bench.base().is_empty());
    assert_eq!(bench.stored.seen_known.len(), 1);
}

#[test]
fn the_longest_names_fit_and_longer_ones_would_be_held() {
    let mut bench = Bench::new();
    let long = "한".repeat(85);
    assert_eq!(long.len(), 255);
    assert_eq!(
        bench.apply(vec![op(&long, None, file("one"))], &CONTENTS),
        [Outcome::Done]
    );
    let refused = trouble(&path("a"), "created", Errno::NAMETOOLONG);
    assert_eq!(refused.kind, TroubleKind::Name);
    assert!(
        refused.text.contains("\"a\" could not be created"),
        "{}",
        refused.text
    );
}

#[test]
fn recovery_keeps_what_it_does_not_know() {
    let mut bench = Bench::new();
    put(&bench, "one");
    bench.look();
    // Stopped right after the exchange, and then a stranger's file and an old part beside it.
    bench.hook(|step| match step {
        Step::CameOut => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let batch = bench.batch(vec![op("p", file("one"), file("two"))]);
    let staged = bench.staged(&batch, &CONTENTS);
    assert!(matches!(
        bench.replica.apply(&batch, staged, Gen(0)),
        Err(DiskError::Stopped)
    ));
    let stage = bench.at(".layer-sync/stage");
    fs::write(stage.join(format!("{}.part", "a".repeat(64))), "resumable").expect("written");
    fs::write(stage.join("7.part"), "not resumable").expect("written");
    let bench = bench.reopen();
    assert_eq!(standing(&bench), "two");
    assert_eq!(bench.kept(), ["one"]);
    let versions = bench.replica.versions(&path("p")).expect("listed");
    assert_eq!(versions[0].why, "recovered");
    assert_eq!(bench.private("stage"), [format!("{}.part", "a".repeat(64))]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_holds_what_does_not_fit_and_truncates_nothing() {
    let Some(volume) = crate::tests::SmallVolume::mount("3m") else {
        eprintln!("skipped: this user may not mount a volume");
        return;
    };
    let mut bench = Bench::on(volume.0.path());
    bench.write("p", "one");
    bench.look();
    // The index lies on the same volume here; what is left is for the tree.
    let contents: Vec<Vec<u8>> = (1..80)
        .map(|seed| crate::tests::noise(60_000, seed))
        .collect();
    let ops = contents
        .iter()
        .enumerate()
        .map(|(i, c)| op(&format!("f{i}"), None, file(c)));
    let batch = bench.batch(ops.chain([op("p", file("one"), file("two"))]).collect());
    let slices: Vec<&[u8]> = contents
        .iter()
        .map(Vec::as_slice)
        .chain([&b"two"[..]])
        .collect();
    let staged = bench.staged(&batch, &slices);
    fs::remove_file(bench.at("ballast")).expect("gone");
    bench
        .replica
        .apply(&batch, staged, Gen(0))
        .expect("recorded");
    let outcomes = bench.outcomes();
    let held = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Held(_)))
        .count();
    assert!(held > 0 && held < outcomes.len(), "{held} held");
    for (op, outcome) in batch.ops.iter().zip(&outcomes) {
        let there = fs::metadata(bench.at(op.path.as_str()))
            .map(|found| found.len())
            .ok();
        match outcome {
            Outcome::Held(trouble) => {
                assert_eq!(trouble.kind, TroubleKind::DiskFull);
                assert_eq!(there, op.expect.as_ref().map(Entry::len), "{}", op.path);
            }
            _ => assert_eq!(there, op.make.as_ref().map(Entry::len), "{}", op.path),
        }
    }
    assert_eq!(bench.private("stage"), [""; 0]);
}

/// The other machine is known, and still may not touch what is not the tree.
#[test]
fn the_private_folder_is_out_of_reach() {
    let mut bench = Bench::new();
    bench.apply(vec![op("first", None, file("1"))], &[b"1"]);
    let marker = fs::read(bench.at(".layer-sync/marker")).expect("a marker");
    let outcomes = bench.apply(
        vec![
            op(".layer-sync/marker", None, file("forged")),
            op(".layer-sync/kept/x", None, file("forged")),
            op("nice", None, file("nice")),
        ],
        &[b"forged", b"forged", b"nice"],
    );
    let held = |outcome: &Outcome| matches!(outcome, Outcome::Held(trouble) if trouble.kind == TroubleKind::Permission);
    assert!(held(&outcomes[0]) && held(&outcomes[1]), "{outcomes:?}");
    assert_eq!(outcomes[2], Outcome::Done);
    assert_eq!(
        fs::read(bench.at(".layer-sync/marker")).expect("a marker"),
        marker
    );
    assert_eq!(bench.private("kept"), [""; 0]);
}
