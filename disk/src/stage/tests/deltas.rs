//! Deltas, from a giver to a taker.

use std::fs;

use shared::transfer::{Item, PackedFile};
use shared::wire::Frame;

use super::*;
use crate::lock;

/// Gives `content` to a taker that has what it displaces, and returns the forms in which it travelled, the
/// bytes of all parts, and what became of it.
fn give_edit(
    giver: &Bench,
    taker: &mut Bench,
    name: &str,
    content: &[u8],
) -> (Vec<Form>, usize, Outcome) {
    giver.write(name, content);
    giver.look();
    let entry = |bench: &Bench| {
        let seen = lock(&bench.replica.seen);
        seen.row(&path(name)).map(|row| row.entry.clone())
    };
    let batch = taker.batch(vec![op(name, entry(taker), entry(giver))]);
    let items: Vec<Item> = Item::of(0, &batch.ops[0]).into_iter().collect();
    let (mut forms, mut bytes) = (Vec::new(), 0);
    let mut taking = taker.replica.take(&batch);
    let mut take = |part: Part| {
        if let Part::Pack {
            files,
            bytes: packed,
            ..
        } = &part
        {
            forms.extend(files.iter().map(|file| file.form));
            bytes += packed.len();
        }
        assert_eq!(taking.part(part).expect("an honest part"), []);
        Ok(())
    };
    giver.replica.give(&items, &mut take).expect("given");
    taker
        .replica
        .apply(&batch, taking.finish(), Gen(0))
        .expect("applied");
    let outcome = taker.outcomes().pop().expect("an outcome");
    if outcome == Outcome::Done {
        assert_eq!(fs::read(taker.at(name)).expect("read"), content);
    }
    (forms, bytes, outcome)
}

#[test]
fn edits_travel_as_deltas() {
    let (giver, mut taker) = (Bench::new(), Bench::new());
    let text: Vec<u8> = (0..400_u32)
        .flat_map(|line| format!("{line}: {}\n", line.wrapping_mul(2_654_435_761)).into_bytes())
        .collect();
    let mut give = |content: &[u8]| give_edit(&giver, &mut taker, "note.md", content);
    let done = |(forms, bytes, outcome): (Vec<Form>, usize, Outcome)| {
        assert_eq!(outcome, Outcome::Done);
        (forms, bytes)
    };
    assert_eq!(done(give(&text)).0, [Form::Whole], "nothing to start from");
    let mut edited = text.clone();
    edited[3000] ^= 1;
    let (forms, bytes) = done(give(&edited));
    assert_eq!(forms, [Form::Patch]);
    assert!(bytes <= 40, "{bytes}");
    edited.extend_from_slice(b"one more line\n");
    let (forms, bytes) = done(give(&edited));
    assert_eq!(forms, [Form::Tail]);
    assert!(bytes <= 40, "{bytes}");
    let grown = text.repeat(16);
    assert!(grown.len() > 64 * 1024);
    let (forms, bytes) = done(give(&grown));
    assert_eq!(
        forms,
        [Form::Patch],
        "also where it is longer than one chunk"
    );
    assert!(bytes <= 200, "{bytes}");
    assert_eq!(done(give(b"")).0, [Form::Whole]);
    assert_eq!(done(give(b"x")).0, [Form::Whole]);
}

#[test]
fn what_the_taker_sent_is_a_base_for_what_it_gets() {
    let (mut one, mut other) = (Bench::new(), Bench::new());
    let text = "a line of a note\n".repeat(300);
    give_edit(&one, &mut other, "note.md", text.as_bytes());
    let edited = text.replacen("line", "word", 1);
    let (forms, bytes, outcome) = give_edit(&other, &mut one, "note.md", edited.as_bytes());
    assert_eq!((forms, outcome), (vec![Form::Patch], Outcome::Done));
    assert!(bytes <= 40, "{bytes}");
}

#[test]
fn a_delta_of_what_is_not_there_any_more_is_stale() {
    let (giver, mut taker) = (Bench::new(), Bench::new());
    let text = "a line of a note\n".repeat(300);
    give_edit(&giver, &mut taker, "note.md", text.as_bytes());
    taker.write("note.md", "saved meanwhile");
    let edited = text.replacen("line", "word", 1);
    let (_, _, outcome) = give_edit(&giver, &mut taker, "note.md", edited.as_bytes());
    assert_eq!(outcome, Outcome::Stale);
    assert_eq!(taker.read("note.md"), "saved meanwhile");
}

#[test]
fn a_delta_that_does_not_fit_is_asked_for_whole_once() {
    let (giver, mut taker) = (Bench::new(), Bench::new());
    let text = "a line of a note\n".repeat(300);
    give_edit(&giver, &mut taker, "note.md", text.as_bytes());
    let edited = text.replacen("line", "word", 1);
    let batch = taker.batch(vec![op("note.md", file(&text), file(&edited))]);
    let patch = |form, bytes: &[u8]| Part::Pack {
        files: vec![PackedFile {
            index: 0,
            len: bytes.len() as u32,
            mtime_ns: 0,
            form,
        }],
        zstd: false,
        bytes: bytes.to_vec(),
    };
    let before = taker.replica.mismatches();
    let mut taking = taker.replica.take(&batch);
    let needs = taking.part(patch(Form::Patch, b"nonsense")).expect("taken");
    assert_eq!(needs.len(), 1);
    assert_eq!((needs[0].item.base, needs[0].runs.len()), (None, 0));
    let again = taking.part(patch(Form::Patch, b"nonsense")).expect("taken");
    assert_eq!(
        again,
        [],
        "a giver that goes on with it is not asked for ever"
    );
    assert!(!taking.missing());
    assert_eq!(taker.replica.mismatches(), before + 2);

    let mut taking = taker.replica.take(&batch);
    taking.part(patch(Form::Patch, b"nonsense")).expect("taken");
    taking
        .part(patch(Form::Whole, edited.as_bytes()))
        .expect("taken");
    taker
        .replica
        .apply(&batch, taking.finish(), Gen(0))
        .expect("applied");
    assert_eq!(taker.read("note.md"), edited);
    let wrong_tail = patch(Form::Tail, b"x");
    let mut taking = taker.replica.take(&batch);
    assert!(taking.part(wrong_tail).is_err(), "lengths do not add up");
}

/// Gives a long edit, and returns the bytes of all frames both ways.
fn give_long(giver: &Bench, taker: &mut Bench, content: &[u8]) -> usize {
    giver.write("film", content);
    giver.look();
    let entry = |bench: &Bench| {
        let seen = lock(&bench.replica.seen);
        seen.row(&path("film")).map(|row| row.entry.clone())
    };
    let batch = taker.batch(vec![op("film", entry(taker), entry(giver))]);
    let items: Vec<Item> = Item::of(0, &batch.ops[0]).into_iter().collect();
    let mut taking = taker.replica.take(&batch);
    let (mut bytes, mut needs) = (0, Vec::new());
    let mut take = |part: Part| {
        bytes += Frame::Part(part.clone()).encode().len();
        needs.extend(taking.part(part).expect("an honest part"));
        Ok(())
    };
    giver.replica.give(&items, &mut take).expect("given");
    for need in needs {
        bytes += Frame::Need(need.clone()).encode().len();
        let mut take = |run: Option<ChunkRun>| {
            let run = run.expect("it is there");
            bytes += Frame::ChunkRun(run.clone()).encode().len();
            assert_eq!(taking.chunks(0, run).expect("an honest run"), None);
            Ok(())
        };
        giver
            .replica
            .give_chunks(&need.item, &need.runs, &need.olds, &mut take)
            .expect("given");
    }
    taker
        .replica
        .apply(&batch, taking.finish(), Gen(0))
        .expect("applied");
    assert_eq!(taker.outcomes(), [Outcome::Done]);
    assert!(fs::read(taker.at("film")).expect("read") == content);
    bytes
}

#[test]
fn one_byte_of_a_long_file_costs_a_block() {
    let (giver, mut taker) = (Bench::new(), Bench::new());
    let film = noise(20_000_000, 1);
    assert!(give_long(&giver, &mut taker, &film) > 20_000_000);
    let mut edited = film.clone();
    edited[9_000_000] ^= 1;
    let bytes = give_long(&giver, &mut taker, &edited);
    assert!(bytes < 2500, "one byte: {bytes}");
    let edited = [&noise(100, 2)[..], &edited].concat();
    let bytes = give_long(&giver, &mut taker, &edited);
    assert!(bytes < 3000, "100 bytes in front: {bytes}");
    let edited = [&edited[..], &noise(100, 3)].concat();
    let bytes = give_long(&giver, &mut taker, &edited);
    assert!(bytes < 3000, "100 bytes at the end: {bytes}");
    let without = [&edited[..5_000_000], &edited[5_010_000..]].concat();
    let bytes = give_long(&giver, &mut taker, &without);
    assert!(bytes < 3500, "10,000 bytes less: {bytes}");
    give_long(&giver, &mut taker, &noise(3_000_000, 4));
}

#[test]
fn blocks_that_do_not_make_a_chunk_are_no_obstacle() {
    let (giver, mut taker) = (Bench::new(), Bench::new());
    let film = noise(1_000_000, 1);
    give_long(&giver, &mut taker, &film);
    let mut edited = film.clone();
    edited[500_000] ^= 1;
    giver.write("film", &edited);
    giver.look();
    let entry = |bench: &Bench| {
        let seen = lock(&bench.replica.seen);
        seen.row(&path("film")).map(|row| row.entry.clone())
    };
    let batch = taker.batch(vec![op("film", entry(&taker), entry(&giver))]);
    let items: Vec<Item> = Item::of(0, &batch.ops[0]).into_iter().collect();
    let mut taking = taker.replica.take(&batch);
    let mut needs = Vec::new();
    let mut take = |part: Part| {
        needs.extend(taking.part(part).expect("an honest part"));
        Ok(())
    };
    giver.replica.give(&items, &mut take).expect("given");
    let need = needs.pop().expect("one chunk");
    let mut runs = Vec::new();
    let mut collect = |run: Option<ChunkRun>| {
        runs.extend(run);
        Ok(())
    };
    giver
        .replica
        .give_chunks(&need.item, &need.runs, &need.olds, &mut collect)
        .expect("given");
    let mut wrong = runs.pop().expect("a run");
    // Blocks in another order: the lengths may fit, the hash does not.
    wrong.copies.swap(0, 1);
    let again = taking.chunks(0, wrong).expect("nothing that ends the link");
    let again = again.expect("all of it is asked for");
    assert_eq!((again.runs.clone(), again.olds.len()), (need.runs, 0));
    let mut give = |run: Option<ChunkRun>| {
        let taken = taking.chunks(0, run.expect("there")).expect("honest");
        assert_eq!(taken, None);
        Ok(())
    };
    giver
        .replica
        .give_chunks(&again.item, &again.runs, &[], &mut give)
        .expect("given");
    assert!(!taking.missing());
}
