//! Deltas, from a giver to a taker.

use std::fs;

use shared::transfer::{Item, PackedFile};

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
