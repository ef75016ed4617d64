//! The process dies before every step of everything that changes the tree or the index.
//!
//! After it, each path has the old thing or the new one, what was displaced is listed as a version, the
//! base is what it was or what was agreed, never ahead of the tree, and the next plan gets to the end.

use std::collections::BTreeMap;

use crate::durable::Durable;
use shared::control::Pick;

use super::*;

/// What stands at a path before, and what the plan wants there.
type Change = (&'static str, &'static str, &'static str);

/// Every kind of operation in one batch, with directories that hold one another's changes.
const MIXED: [Change; 17] = [
    ("away", "dir", "-"),
    ("away/file", "one", "-"),
    ("away/sub", "dir", "-"),
    ("bit", "one", "one x"),
    ("bit-off", "two x", "two"),
    ("dir-to-file", "dir", "two"),
    ("dir-to-link", "dir", "-> there"),
    ("edit", "one", "two"),
    ("edit-and-bit", "one x", "two"),
    ("file-to-dir", "one", "dir"),
    ("file-to-dir/in", "-", "two"),
    ("gone", "two", "-"),
    ("link", "-", "-> here"),
    ("link-on", "-> here", "-> there"),
    ("link-to-file", "-> here", "one"),
    ("new", "-", "dir"),
    ("new/file", "-", "one"),
];

fn is_content(text: &str) -> bool {
    !matches!(text, "-" | "dir")
}

/// Deletions go from below, everything else from above: the order of a plan.
fn ops(changes: &[Change], before: &dyn Fn(&str) -> String) -> Vec<Op> {
    let op = |(path, _, make): &Change| op(path, entry(&before(path)), entry(make));
    let (gone, made): (Vec<_>, Vec<_>) = changes.iter().partition(|(_, _, make)| *make == "-");
    gone.iter().rev().chain(&made).map(op).collect()
}

/// Puts what is there before, in an order in which nothing stands in the way.
fn put_all(bench: &Bench, changes: &[Change]) {
    for (path, before, _) in changes {
        put_at(bench, path, before);
    }
}

/// Runs a batch and lets the process die after `steps` steps. Says whether there were no more.
fn die_after(changes: &[Change], weak: bool, steps: usize) -> bool {
    let case = format!("{changes:?}, weak {weak}, died after {steps} steps");
    let mut bench = Bench::in_memory();
    put_all(&bench, changes);
    bench.look();
    bench.replica.weaker.store(weak, Ordering::Relaxed);
    let was: BTreeMap<&str, &str> = changes.iter().map(|(path, was, _)| (*path, *was)).collect();
    let planned = ops(changes, &|path| was[path].to_owned());
    let batch = bench.batch(planned.clone());
    let staged = bench.staged(&batch, &CONTENTS);
    bench.stop_after(steps);
    if bench.replica.apply(&batch, staged, Gen(0)).is_ok() {
        return true;
    }
    for (path, before, after) in changes {
        let replaced = *before != "-" && *after != "-";
        // Without exchange a directory and something else cannot change places in one step.
        let may_miss = weak && (*before == "dir" || *after == "dir");
        if replaced && !may_miss {
            assert_ne!(standing_at(&bench, path), "-", "{case}: {path} is absent");
        }
    }

    // Twice: dying again right after the start changes nothing.
    let mut bench = bench.crash().crash();
    bench.replica.weaker.store(weak, Ordering::Relaxed);
    assert_eq!(bench.private("stage"), [""; 0], "{case}");
    let agreed: BTreeMap<String, _> = bench
        .base()
        .into_iter()
        .map(|(path, row)| (path.to_string(), row.entry))
        .collect();
    for (path, before, after) in changes {
        let now = standing_at(&bench, path);
        let may_miss = weak && (*before == "dir" || *after == "dir");
        assert!(
            now == *before || now == *after || (may_miss && now == "-"),
            "{case}: {now} stands at {path}"
        );
        match agreed.get(*path) {
            // What was put in place was agreed, whether or not that could be recorded.
            None => assert!(
                now != *after || before == after,
                "{case}: {path} is in place"
            ),
            Some(row) => assert_eq!(
                (row, &*now),
                (&entry(after), *after),
                "{case}: the base of {path} is ahead of the tree"
            ),
        }
    }
    nothing_is_lost(&bench, changes, &case);

    // The same plan once more does no harm, and the next one gets to the end.
    let again = bench.apply(planned, &CONTENTS);
    let harmless = |outcome: &Outcome| {
        matches!(outcome, Outcome::Done | Outcome::Stale)
            || matches!(outcome, Outcome::Held(trouble) if trouble.kind == TroubleKind::NotEmpty)
    };
    assert!(again.iter().all(harmless), "{case}: {again:?}");
    nothing_is_lost(&bench, changes, &case);
    bench.look();
    // What is as it shall be is agreed without an operation.
    let mut replanned = ops(changes, &|path| standing_at(&bench, path));
    replanned.retain(|op| op.expect != op.make);
    let outcomes = bench.apply(replanned, &CONTENTS);
    assert!(
        outcomes.iter().all(|outcome| *outcome == Outcome::Done),
        "{case}: {outcomes:?}"
    );
    for (path, _, after) in changes {
        assert_eq!(standing_at(&bench, path), *after, "{case}: {path}");
    }
    nothing_is_lost(&bench, changes, &case);
    false
}

/// Checks that what stood at each path stands there or is a version of it, and that nothing is kept that
/// is not listed.
#[track_caller]
fn nothing_is_lost(bench: &Bench, changes: &[Change], case: &str) {
    let mut listed = 0;
    for (path, before, _) in changes {
        let versions = versions(bench, path);
        listed += versions.len();
        let content = before.trim_end_matches(" x");
        let stands = standing_at(bench, path).starts_with(content);
        assert!(
            !is_content(before) || stands || versions.iter().any(|kept| kept == content),
            "{case}: {before} of {path} is lost; {versions:?} are kept"
        );
    }
    assert_eq!(listed, bench.kept().len(), "{case}: kept and not listed");
}

/// Returns the contents of the versions of a path.
fn versions(bench: &Bench, name: &str) -> Vec<String> {
    let mut versions = bench.replica.versions(&path(name)).expect("listed");
    // Those of what lies below it are asked for by their own names.
    versions.retain(|version| version.path.is_none());
    let kept = bench.at(".layer-sync/kept");
    let content = |version: &shared::control::Version| {
        let at = kept.join(&version.version);
        fs::read_link(&at).map_or_else(
            |_| fs::read_to_string(&at).expect("a kept file"),
            |target| format!("-> {}", target.display()),
        )
    };
    versions.iter().map(content).collect()
}

/// Lets a batch die after 0, 1, 2, … steps until there are no more, and returns how many there are.
fn die_everywhere(changes: &[Change], weak: bool) -> usize {
    (0..)
        .find(|steps| die_after(changes, weak, *steps))
        .expect("it ends")
}

#[test]
fn every_transition() {
    for before in KINDS {
        for after in KINDS {
            for weak in [false, true] {
                let steps = die_everywhere(&[("p", before, after)], weak);
                assert!(steps >= 6, "{before} to {after}: {steps} steps");
            }
        }
    }
}

#[test]
fn a_mixed_batch() {
    for weak in [false, true] {
        let steps = die_everywhere(&MIXED, weak);
        assert!(steps > 50, "{steps} steps");
    }
}

/// Somebody saves while a file is replaced or deleted, and saves again while that is being undone.
#[test]
fn in_the_middle_of_an_undo() {
    for (before, after) in [
        ("one", "two"),
        ("one", "-"),
        ("one", "dir"),
        ("-> here", "two"),
    ] {
        for weak in [false, true] {
            for saves in [
                &[Step::Exchange, Step::Withdraw, Step::Link][..],
                &[
                    Step::Exchange,
                    Step::Withdraw,
                    Step::Link,
                    Step::CameOut,
                    Step::Withdrawn,
                    Step::Undo,
                ],
                // The last moment of the weaker mode.
                &[Step::Over],
            ] {
                let mut undone = false;
                for steps in 0.. {
                    match die_undoing(before, after, weak, saves, steps) {
                        Some(was_undone) => undone |= was_undone,
                        None => break,
                    }
                }
                assert!(
                    undone || saves.len() == 1,
                    "{before} to {after}, weak {weak}: nothing was undone"
                );
            }
        }
    }
}

/// As [`die_after`] for one path, with somebody who saves before each step of `saves`. Returns whether
/// an undo was under way, or `None` when there were no more steps.
fn die_undoing(
    before: &str,
    after: &str,
    weak: bool,
    saves: &'static [Step],
    steps: usize,
) -> Option<bool> {
    let case = format!("{before} to {after}, weak {weak}, died after {steps} steps");
    let mut bench = Bench::in_memory();
    put(&bench, before);
    bench.look();
    bench.replica.weaker.store(weak, Ordering::Relaxed);
    let batch = bench.batch(vec![op("p", entry(before), entry(after))]);
    let staged = bench.staged(&batch, &CONTENTS);
    let saved = Arc::new(std::sync::Mutex::new((Vec::new(), false)));
    bench.hook({
        let (at, saved) = (bench.at("p"), saved.clone());
        let mut taken = 0;
        move |step| {
            taken += 1;
            if taken > steps {
                return ControlFlow::Break(());
            }
            let (contents, undone) = &mut *lock(&saved);
            *undone |= step == Step::Undo;
            if saves.contains(&step) {
                // As editors save: a new file, renamed over the old one.
                let (content, new) = (format!("saved {taken}"), at.with_file_name("new"));
                fs::write(&new, &content).expect("written");
                // A directory may stand there by now: then nobody can save.
                if fs::rename(new, &at).is_ok() {
                    contents.push(content);
                }
            }
            ControlFlow::Continue(())
        }
    });
    let ended = bench.replica.apply(&batch, staged, Gen(0)).is_ok();
    bench.unhook();
    let bench = if ended { bench } else { bench.crash() };
    let (contents, undone) = &*lock(&saved);
    let (now, kept) = (standing(&bench), versions(&bench, "p"));
    // Each save replaced the one before at the path, unless that had been taken away by then; the last one
    // at least was nobody's to lose.
    if let Some(last) = contents.last() {
        assert!(
            now == *last || kept.contains(last),
            "{case}: {last} is lost; {now} stands, {kept:?} are kept"
        );
    }
    assert_eq!(
        kept.len(),
        bench.kept().len(),
        "{case}: kept and not listed"
    );
    assert_eq!(bench.private("stage"), [""; 0], "{case}");
    (!ended).then_some(*undone)
}

#[test]
fn in_the_middle_of_a_restore() {
    for weak in [false, true] {
        for (there, name) in [
            ("two", "p"),
            ("-", "p"),
            ("-> here", "p"),
            ("-", "deep/er/p"),
        ] {
            for steps in 0.. {
                let case = format!("{there} at {name}, weak {weak}, died after {steps} steps");
                let mut bench = Bench::in_memory();
                bench.write(name, "one");
                bench.look();
                bench.apply(vec![op(name, entry("one"), None)], &[]);
                if let Some(top) = name.split_once('/') {
                    fs::remove_dir_all(bench.at(top.0)).expect("gone");
                }
                put_at(&bench, name, there);
                bench.look();
                let bench = bench.reopen();
                let agreed = bench.base();
                bench.replica.weaker.store(weak, Ordering::Relaxed);
                bench.stop_after(steps);
                let restored = bench.replica.restore(&path(name), &Pick::Latest);
                let bench = bench.crash();
                let now = standing_at(&bench, name);
                assert!(now == there || now == "one", "{case}: {now}");
                let kept = versions(&bench, name);
                assert!(kept.contains(&"one".to_owned()), "{case}: {kept:?}");
                assert!(
                    there == "-" || now == there || kept.contains(&there.to_owned()),
                    "{case}: {there} is lost; {kept:?}"
                );
                assert_eq!(bench.private("stage"), [""; 0], "{case}");
                assert_eq!(bench.base(), agreed, "{case}: a restore is no agreement");
                if restored.is_ok() {
                    assert_eq!(now, "one", "{case}");
                    break;
                }
            }
        }
    }
}

/// What is agreed without a change here, what is forgotten, and what looks find.
#[test]
fn around_the_other_writes_of_the_index() {
    let row = |name: &str, batch| {
        let entry = Some(Entry::Dir);
        (
            path(name),
            BaseRow {
                entry,
                batch: Gen(batch),
            },
        )
    };
    let names = |bench: &Bench| -> Vec<String> {
        bench
            .base()
            .iter()
            .map(|(path, _)| path.to_string())
            .collect()
    };
    for steps in 0.. {
        let bench = Bench::in_memory();
        let notes = |paused| Notes {
            paused,
            ..Notes::default()
        };
        let committed = bench
            .replica
            .commit(&[row("old", 1)], notes(false), Gen(0), Durable::Tree);
        committed.expect("recorded");
        bench.stop_after(steps);
        let result = bench
            .replica
            .commit(&[row("new", 2)], notes(true), Gen(0), Durable::Tree);
        let bench = bench.crash();
        let found = (names(&bench), bench.stored.notes.paused);
        let (before, after) = (
            vec!["old".to_owned()],
            vec!["new".to_owned(), "old".to_owned()],
        );
        let is_after = found == (after, true);
        assert!(
            is_after || found == (before, false),
            "rows and notes in one: {found:?}"
        );
        if result.is_ok() {
            assert!(is_after && steps == 3, "{steps} steps: {found:?}");
            break;
        }
    }
    for steps in 0.. {
        let bench = Bench::in_memory();
        let notes = Notes::default();
        bench
            .replica
            .commit(&[row("old", 1)], notes.clone(), Gen(0), Durable::Rows)
            .expect("recorded");
        bench.stop_after(steps);
        let result = bench.replica.forget_base(notes);
        let bench = bench.crash();
        let found = names(&bench);
        assert!(found.is_empty() || found == ["old"], "{found:?}");
        if result.is_ok() {
            assert!(found.is_empty() && steps == 2, "{steps} steps: {found:?}");
            break;
        }
    }
    for steps in 0..3 {
        let bench = Bench::in_memory();
        for name in ["same", "edited", "gone"] {
            bench.write(name, "1");
        }
        bench.look();
        let bench = bench.reopen();
        bench.write("edited", "12");
        bench.write("new", "123");
        fs::remove_file(bench.at("gone")).expect("gone");
        bench.stop_after(steps);
        bench.look();
        let bench = bench.crash();
        let mut known: BTreeMap<RelPath, Entry> = bench.stored.seen_known.iter().cloned().collect();
        bench.look();
        for (path, sight) in bench.sights() {
            match sight.entry() {
                Some(entry) => drop(known.insert(path, entry.clone())),
                None => drop(known.remove(&path)),
            }
        }
        let known: Vec<_> = known
            .iter()
            .map(|(path, entry)| (path.as_str(), entry.len()))
            .collect();
        assert_eq!(
            known,
            [("edited", 2), ("new", 3), ("same", 1)],
            "died after {steps} steps"
        );
    }
}

/// The intent is emptied without a barrier: after a power cut it may be there again.
#[test]
fn an_intent_that_comes_back_is_not_believed_once_its_batch_is_settled() {
    let mut bench = Bench::in_memory();
    let intent = bench.root().join(".layer-sync/intent");
    let saved = bench.dir.path().join("saved");
    let (from, to) = (intent.clone(), saved.clone());
    bench.hook(move |step| {
        if step == Step::Index {
            fs::copy(&from, &to).expect("copied");
        }
        ControlFlow::Continue(())
    });
    let made = bench.apply(vec![op("dir", None, Some(Entry::Dir))], &[]);
    assert_eq!(made, [Outcome::Done]);
    bench.hook(|_| ControlFlow::Continue(()));
    let come_back = || {
        fs::copy(&saved, &intent).expect("copied");
    };

    let notes = bench.replica.notes();
    bench.replica.forget_base(notes.clone()).expect("forgotten");
    let bench = bench.reopen_after(come_back);
    let [(_, row)] = &bench.base()[..] else {
        panic!("nothing says that it is settled: {:?}", bench.base());
    };
    bench.replica.forget_base(notes.clone()).expect("forgotten");
    bench
        .replica
        .commit(&[], notes, row.batch, Durable::Nothing)
        .expect("settled");
    let bench = bench.reopen_after(come_back);
    assert!(bench.base().is_empty(), "it is settled");
}
