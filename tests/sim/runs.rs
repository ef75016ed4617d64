//! Runs of many seeds, replays of one, and the seeds that found something once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::defect::Defect;
use crate::history::{Failure, play};
use crate::script::Script;
use crate::shrink::shrink;

/// Seeds that an ordinary test run plays.
const SEEDS: u64 = 4000;
/// Those with a mirror, which cost more.
const MIRRORED_SEEDS: u64 = 2500;
/// Within so many seeds a defect has to be found.
const DEFECT_SEEDS: u64 = 20_000;
/// Seeds of histories that failed once, one a line.
const FOUND: &str = include_str!("../fixtures/sim-seeds.txt");

/// Says everything about a failing seed that helps to find out why.
fn report(seed: u64, script: &Script, failure: &Failure, defect: Option<Defect>) -> String {
    let (short, failure) = shrink(script, failure.clone(), defect);
    let guard = match script {
        Script { guarded: true, .. } => "g",
        Script {
            mirrored: Some(_), ..
        } => "m",
        _ => "",
    };
    let lines: Vec<String> = short
        .lines
        .iter()
        .map(|line| format!("  {:?}", line.act))
        .collect();
    format!(
        "seed {guard}{seed} ({:?}): {}\nshrunk from {} lines to {}:\n{}\nreplay it with\n  \
         LAYER_SYNC_SIM_SEED={guard}{seed} cargo test -p tests --test sim replay -- --nocapture\n",
        short.mode,
        failure.what,
        script.lines.len(),
        short.lines.len(),
        lines.join("\n")
    )
}

/// Plays seeds on some threads; returns the lowest one that fails.
fn play_all(
    script: fn(u64) -> Script,
    seeds: std::ops::Range<u64>,
    threads: usize,
    defect: Option<Defect>,
) -> Option<(u64, Failure)> {
    let next = AtomicU64::new(seeds.start);
    let end = AtomicU64::new(seeds.end);
    let work = || {
        let mut found: Option<(u64, Failure)> = None;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end.load(Ordering::Relaxed) {
                return found;
            }
            if let Err(failure) = play(&script(seed), defect, false) {
                end.fetch_min(seed, Ordering::Relaxed);
                if found.as_ref().is_none_or(|(lowest, _)| seed < *lowest) {
                    found = Some((seed, failure));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running
            .into_iter()
            .filter_map(|thread| thread.join().expect("no panic in a history"))
            .min_by_key(|(seed, _)| *seed)
    })
}

fn asked_seeds(usual: u64) -> (std::ops::Range<u64>, usize) {
    let Ok(asked) = std::env::var("LAYER_SYNC_SIM_SEEDS") else {
        return (0..usual, 1);
    };
    let number = |text: &str| {
        text.parse()
            .expect("LAYER_SYNC_SIM_SEEDS is a count or START..END")
    };
    let seeds = match asked.split_once("..") {
        Some((start, end)) => number(start)..number(end),
        None => 0..number(&asked),
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (seeds, threads)
}

#[test]
fn seeds() {
    play_asked(Script::of_seed, SEEDS);
}

#[test]
fn guarded_seeds() {
    play_asked(Script::guarded, SEEDS);
}

#[test]
fn mirrored_seeds() {
    play_asked(Script::mirrored, MIRRORED_SEEDS);
}

fn play_asked(script: fn(u64) -> Script, usual: u64) {
    let (seeds, threads) = asked_seeds(usual);
    let (count, began) = (seeds.end - seeds.start, Instant::now());
    let found = play_all(script, seeds, threads, None);
    if let Some((seed, failure)) = found {
        panic!("{}", report(seed, &script(seed), &failure, None));
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "{count} histories in {took:.1} s: {:.0} a second on {threads} threads",
        count as f64 / took
    );
}

#[test]
fn seeds_that_failed_once() {
    for line in FOUND.lines() {
        let text = line.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let (script, seed) = kind_of(text);
        let seed = seed.parse().expect("a seed, then a comment");
        let script = script(seed);
        if let Err(failure) = play(&script, None, false) {
            panic!("{}", report(seed, &script, &failure, None));
        }
    }
}

/// Says what kind of history a seed is of: a `g` before the number is one with a guard, an `m` one with a mirror.
fn kind_of(text: &str) -> (fn(u64) -> Script, &str) {
    match text.split_at_checked(1) {
        Some(("g", seed)) => (Script::guarded, seed),
        Some(("m", seed)) => (Script::mirrored, seed),
        _ => (Script::of_seed, text),
    }
}

#[test]
fn replay() {
    let Ok(seed) = std::env::var("LAYER_SYNC_SIM_SEED") else {
        return;
    };
    let (script, seed) = kind_of(&seed);
    let seed = seed.parse().expect("LAYER_SYNC_SIM_SEED is a number");
    let script = script(seed);
    if let Err(failure) = play(&script, None, false) {
        let (short, _) = shrink(&script, failure.clone(), None);
        drop(play(&short, None, true));
        panic!("{}", report(seed, &script, &failure, None));
    }
}

#[test]
fn a_seed_is_one_history() {
    let of = |seed| [Script::of_seed(seed), Script::mirrored(seed)];
    for (seed, script) in (0..50).flat_map(|seed| of(seed).map(|script| (seed, script))) {
        assert_eq!(
            play(&script, None, false),
            play(&script, None, false),
            "{seed}"
        );
    }
}

macro_rules! caught {
    ($script:path; $($name:ident: $defect:ident),* $(,)?) => { $(
        #[test]
        fn $name() {
            let found = play_all($script, 0..DEFECT_SEEDS, 1, Some(Defect::$defect));
            let (seed, failure) = found.expect("the defect is found");
            assert_eq!(play(&$script(seed), None, false).err(), None, "without it");
            println!("found by seed {seed}: {}", failure.what);
        }
    )* };
}

caught! {
    Script::guarded;
    batches_that_the_guard_never_saw: GuardAsleep,
}

caught! {
    Script::of_seed;
    base_recorded_before_the_data_is_durable: BaseBeforeData,
    rename_instead_of_exchange: RenameInsteadOfExchange,
    absence_inferred_from_an_unreadable_folder: AbsenceFromUnreadable,
    acknowledged_before_durable: AckBeforeDurable,
    intent_not_written: NoIntent,
    tombstones_forgotten_early: TombstonesEarly,
    content_not_verified: UnverifiedContent,
    nothing_synced_before_agreeing: NoSyncBeforeAgreeing,
    displaced_files_not_kept: NotKept,
    looks_that_believe_everything: LookBelievesAll,
    stage_emptied_after_a_crash: StageEmptied,
    content_given_before_it_is_durable: GivenBeforeDurable,
    directories_not_synced: DirectoriesNotSynced,
}

caught! {
    Script::mirrored;
    marks_that_forget_what_was_before: MarksWithoutPast,
    marks_that_take_an_edit_for_agreed: MarksWithoutEdits,
    what_the_mirror_loses_has_no_trash: RemovedForGood,
    absence_inferred_by_a_mirror_before_a_sweep: AbsenceBeforeSweep,
    what_crossed_by_the_mirror_is_not_noted: TrailsNotNoted,
}
