mod deltas;

use std::fs;
use std::sync::Arc;

use proptest::prelude::*;
use shared::chunk::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, Chunker, Manifest};
use shared::delta::Form;
use shared::transfer::{MANIFEST_CHUNKS_MAX, Outcome, Source};

use super::*;
use crate::tests::{Bench, carry, file, noise, op, pack, path};

fn manifest(content: &[u8]) -> Manifest {
    let mut chunker = Chunker::default();
    chunker.push(content);
    chunker.finish()
}

fn long_entry(content: &[u8]) -> Option<Entry> {
    let manifest = manifest(content);
    Some(Entry::File {
        content: manifest.content(),
        len: manifest.len(),
        exec: false,
    })
}

fn list(index: u32, manifest: Manifest) -> Part {
    Part::Manifest {
        index,
        mtime_ns: 0,
        manifest,
        more: false,
    }
}

fn needed(needs: &[Need]) -> u32 {
    needs
        .iter()
        .flat_map(|need| &need.runs)
        .map(|(_, count)| count)
        .sum()
}

#[test]
fn long_and_small_files_travel_between_two_disks() {
    let (giver, mut taker) = (Bench::new(), Bench::new());
    let long = noise(3_000_000, 1);
    giver.write("long", &long);
    giver.write("text", "note ".repeat(5000));
    giver.write("empty", "");
    giver.look();
    let ops = vec![
        op("long", None, long_entry(&long)),
        op("text", None, file("note ".repeat(5000))),
        op("empty", None, file("")),
        op("lost", None, file("never there")),
    ];
    let batch = taker.batch(ops);
    let mut taking = taker.replica.take(&batch);
    let needs = carry(&giver.replica, &mut taking, &batch);
    assert_eq!(needed(&needs) as usize, manifest(&long).chunks.len());
    assert!(!taking.missing());
    taker
        .replica
        .apply(&batch, taking.finish(), Gen(0))
        .expect("applied");
    let done = Outcome::Done;
    assert_eq!(
        taker.outcomes(),
        [done.clone(), done.clone(), done, Outcome::Gone]
    );
    assert_eq!(fs::read(taker.at("long")).expect("there"), long);
    assert_eq!(taker.read("text"), "note ".repeat(5000));
    assert_eq!(taker.read("empty"), "");
    taker.look();
    assert_eq!(taker.observed(), [""; 0]);

    // One changed byte in the middle costs one chunk; the rest is taken from the file itself.
    let mut edited = long.clone();
    edited[1_500_000] ^= 1;
    giver.write("long", &edited);
    giver.look();
    let batch = taker.batch(vec![op("long", long_entry(&long), long_entry(&edited))]);
    let mut taking = taker.replica.take(&batch);
    let needs = carry(&giver.replica, &mut taking, &batch);
    assert!(needed(&needs) <= 3, "{needs:?}");
    taker
        .replica
        .apply(&batch, taking.finish(), Gen(0))
        .expect("applied");
    assert_eq!(taker.outcomes(), [Outcome::Done]);
    assert_eq!(fs::read(taker.at("long")).expect("there"), edited);

    // The same content elsewhere costs nothing.
    giver.write("copy", &edited);
    giver.look();
    let batch = taker.batch(vec![op("copy", None, long_entry(&edited))]);
    let mut taking = taker.replica.take(&batch);
    assert_eq!(carry(&giver.replica, &mut taking, &batch), []);
    taker
        .replica
        .apply(&batch, taking.finish(), Gen(0))
        .expect("applied");
    assert_eq!(fs::read(taker.at("copy")).expect("there"), edited);
}

#[test]
fn an_interrupted_long_file_goes_on_where_it_stopped() {
    let (giver, mut taker) = (Bench::new(), Bench::new());
    let long = noise(2_000_000, 2);
    giver.write("long", &long);
    giver.look();
    let whole = manifest(&long);
    let batch = taker.batch(vec![op("long", None, long_entry(&long))]);
    let mut taking = taker.replica.take(&batch);
    let need = taking
        .part(list(0, whole.clone()))
        .expect("honest")
        .pop()
        .expect("all is needed");
    giver
        .replica
        .give_chunks(&need.item, &[(0, 7)], &[], &mut |run| {
            taking.chunks(0, run.expect("it is there")).expect("honest");
            Ok(())
        })
        .expect("given");
    // The process ends here.
    drop(taking);
    let mut taker = taker.reopen();
    let batch = taker.batch(batch.ops);
    let mut taking = taker.replica.take(&batch);
    let needs = carry(&giver.replica, &mut taking, &batch);
    assert_eq!(needs[0].runs, [(7, whole.chunks.len() as u32 - 7)]);
    taker
        .replica
        .apply(&batch, taking.finish(), Gen(0))
        .expect("applied");
    assert_eq!(fs::read(taker.at("long")).expect("there"), long);
    assert_eq!(taker.private("stage"), [""; 0]);
}

#[test]
fn two_batches_may_stage_the_same_content() {
    let (giver, mut taker) = (Bench::new(), Bench::new());
    let long = noise(500_000, 3);
    giver.write("a", &long);
    giver.write("b", &long);
    giver.look();
    let batches = ["a", "b"].map(|name| taker.batch(vec![op(name, None, long_entry(&long))]));
    let mut takings = batches.each_ref().map(|batch| taker.replica.take(batch));
    for (taking, batch) in takings.iter_mut().zip(&batches) {
        taking
            .part(list(0, manifest(&long)))
            .expect("honest")
            .pop()
            .expect("all is needed");
        assert_eq!(batch.ops.len(), 1);
    }
    assert_eq!(taker.private("stage").len(), 2);
    let whole = manifest(&long).chunks.len() as u32;
    for (taking, batch) in takings.iter_mut().zip(&batches) {
        let entry = long_entry(&long).expect("a file");
        let item = Item {
            index: 0,
            path: batch.ops[0].path.clone(),
            entry,
            base: None,
        };
        giver
            .replica
            .give_chunks(&item, &[(0, whole)], &[], &mut |run| {
                taking.chunks(0, run.expect("there")).expect("honest");
                Ok(())
            })
            .expect("given");
    }
    for (taking, batch) in takings.into_iter().zip(&batches) {
        taker
            .replica
            .apply(batch, taking.finish(), Gen(0))
            .expect("applied");
        assert_eq!(taker.outcomes(), [Outcome::Done]);
    }
}

#[test]
fn a_copy_of_what_is_here_needs_nothing_from_there() {
    let mut bench = Bench::new();
    bench.write("from", "content");
    bench.look();
    let here = |name: &str, content| Op {
        from: Source::Here(path("from")),
        ..op(name, None, file(content))
    };
    let gone = op("from", file("content"), None);
    let ops = vec![here("to", "content"), here("other", "something else"), gone];
    assert_eq!(
        bench.apply(ops, &[]),
        [Outcome::Done, Outcome::Gone, Outcome::Done]
    );
    assert_eq!(
        (bench.read("to"), bench.kept()),
        ("content".into(), vec!["content".into()])
    );
}

#[test]
fn what_no_honest_giver_sends_is_refused() {
    let mut bench = Bench::new();
    let long = noise(200_000, 4);
    let ops = vec![
        op("small", None, file("12345")),
        op("long", None, long_entry(&long)),
        op("dir", None, Some(Entry::Dir)),
    ];
    let batch = bench.batch(ops);
    let refused = |part: Part| {
        let mut taking = bench.replica.take(&batch);
        let shown = format!("{part:?}");
        let error = taking.part(part).expect_err(&shown[..shown.len().min(80)]);
        assert!(matches!(error, DiskError::BadPart { .. }), "{error}");
        drop(taking.finish());
        assert_eq!(bench.private("stage"), [""; 0]);
    };
    let packed = |index, len| PackedFile {
        index,
        len,
        mtime_ns: 0,
        form: Form::Whole,
    };
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).expect("packed");
    let whole = manifest(&long).chunks;
    refused(pack(7, b"12345"));
    refused(pack(2, b""));
    refused(pack(0, b"1234"));
    refused(pack(1, &long));
    refused(Part::Gone { index: 99 });
    refused(Part::Pack {
        files: vec![packed(0, 5)],
        zstd: false,
        bytes: b"123456".to_vec(),
    });
    refused(Part::Pack {
        files: vec![packed(0, 5)],
        zstd: true,
        bytes: b"junk!".to_vec(),
    });
    // A bomb: a few bytes that claim to be many.
    refused(Part::Pack {
        files: vec![packed(0, 5)],
        zstd: true,
        bytes: zstd(&vec![0; 64 << 20]),
    });
    refused(Part::Pack {
        files: vec![packed(0, 5); 1_000_000],
        zstd: true,
        bytes: zstd(b"12345"),
    });
    refused(list(0, manifest(&long)));
    refused(list(2, manifest(&long)));
    refused(list(1, Manifest::default()));
    refused(list(
        1,
        Manifest {
            chunks: whole[1..].to_vec(),
        },
    ));
    refused(list(
        1,
        Manifest {
            chunks: [&whole[..], &whole[..]].concat(),
        },
    ));
    let one = |len| Manifest {
        chunks: vec![Chunk { len, ..whole[0] }],
    };
    refused(list(1, one(200_000)));
    refused(list(1, one(0)));
    refused(list(1, one(u32::MAX)));

    let mut taking = bench.replica.take(&batch);
    taking
        .part(list(1, manifest(&long)))
        .expect("honest")
        .pop()
        .expect("all is needed");
    let run = |first, count, bytes: &[u8]| ChunkRun {
        first,
        count,
        copies: Vec::new(),
        zstd: false,
        bytes: bytes.to_vec(),
    };
    for bad in [
        run(u32::MAX, 2, b""),
        run(0, u32::MAX, b""),
        run(0, 1, b"short"),
        run(99, 1, b""),
    ] {
        assert!(matches!(
            taking.chunks(1, bad),
            Err(DiskError::BadPart { .. })
        ));
    }
    assert!(taking.chunks(9, run(0, 1, b"")).is_err());
}

#[test]
fn content_with_a_wrong_hash_is_not_used() {
    let mut bench = Bench::new();
    let long = noise(200_000, 5);
    let ops = vec![
        op("small", None, file("12345")),
        op("long", None, long_entry(&long)),
        op("b", None, long_entry(&long)),
    ];
    let batch = bench.batch(ops);
    let mut taking = bench.replica.take(&batch);
    taking.part(pack(0, b"54321")).expect("an honest mistake");
    taking.part(pack(0, b"12345")).expect("too late, ignored");
    let other = noise(200_000, 6);
    let same_lens = Manifest {
        chunks: manifest(&long)
            .chunks
            .iter()
            .map(|chunk| Chunk {
                hash: ContentHash::of_bytes(b"x"),
                ..*chunk
            })
            .collect(),
    };
    assert_eq!(
        taking.part(list(1, same_lens)).expect("an honest mistake"),
        []
    );
    taking
        .part(list(2, manifest(&long)))
        .expect("honest")
        .pop()
        .expect("all is needed");
    let len = manifest(&long).chunks[0].len as usize;
    let run = ChunkRun {
        first: 0,
        count: 1,
        copies: Vec::new(),
        zstd: false,
        bytes: other[..len].to_vec(),
    };
    taking.chunks(2, run).expect("an honest mistake");
    bench
        .replica
        .apply(&batch, taking.finish(), Gen(0))
        .expect("applied");
    assert_eq!(
        bench.outcomes(),
        [Outcome::Gone, Outcome::Gone, Outcome::Gone]
    );
    assert_eq!(bench.replica.mismatches(), 3);
    assert!(!bench.at("small").exists() && !bench.at("long").exists());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever arrives, nothing but the wanted content is ever staged.
    #[test]
    fn any_pack(
        files in prop::collection::vec((0_u32..4, 0_u32..8, any_form()), 0..4),
        bytes in prop::collection::vec(any::<u8>(), 0..32),
        zstd in any::<bool>(),
    ) {
        let mut bench = Bench::new();
        let batch = bench.batch(vec![op("a", None, file("\0")), op("b", None, file(""))]);
        let mut taking = bench.replica.take(&batch);
        let files = files.into_iter().map(|(index, len, form)| PackedFile { index, len, mtime_ns: i64::MIN, form });
        let _ = taking.part(Part::Pack { files: files.collect(), zstd, bytes });
        bench.replica.apply(&batch, taking.finish(), Gen(0)).expect("applied");
        for (outcome, (name, content)) in bench.outcomes().iter().zip([("a", "\0"), ("b", "")]) {
            prop_assert_eq!(*outcome == Outcome::Done, bench.read(name) == content);
        }
    }
}

#[test]
fn dropping_what_is_staged_cleans_up() {
    let mut bench = Bench::new();
    let batch = bench.batch(vec![
        op("a", None, file("1")),
        op("l", None, crate::tests::link("x")),
    ]);
    let staged = bench.staged(&batch, &[b"1"]);
    assert_eq!(bench.private("stage").len(), 2);
    drop(staged);
    assert_eq!(bench.private("stage"), [""; 0]);
    assert_eq!(Arc::strong_count(&bench.replica), 1);
}

#[test]
fn a_file_beyond_the_limit_is_held_before_anything_is_sent() {
    let mut taker = Bench::new();
    let entry = |len| {
        Some(Entry::File {
            content: ContentHash::of_bytes(b""),
            len,
            exec: false,
        })
    };
    let ops = vec![
        op("video", None, entry(FILE_BYTES_MAX + 1)),
        op("huge", None, entry(u64::MAX)),
        op("note", None, file("note")),
    ];
    let batch = taker.batch(ops);
    let mut taking = taker.replica.take(&batch);
    taking.part(pack(2, b"note")).expect("an honest pack");
    assert!(!taking.missing(), "nothing else is waited for");
    // Whoever sends its list all the same is not listened to.
    let chunk = Chunk {
        hash: ContentHash::of_bytes(b""),
        len: CHUNK_BYTES_MAX as u32,
    };
    let chunks = vec![chunk; 1000];
    assert!(matches!(
        taking.part(list(0, Manifest { chunks })),
        Ok(needs) if needs.is_empty()
    ));
    let staged = taking.finish();
    taker.replica.apply(&batch, staged, Gen(0)).unwrap();
    let outcomes = taker.outcomes();
    for (outcome, name) in outcomes.iter().zip(["video", "huge"]) {
        match outcome {
            Outcome::Held(trouble) => {
                assert!(trouble.text.contains(name) && trouble.text.contains("128 GiB"));
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(outcomes[2], Outcome::Done);
}

#[test]
fn lists_of_chunks_without_end_have_one_limit_for_all_batches() {
    let mut taker = Bench::new();
    let chunk = Chunk {
        hash: ContentHash::of_bytes(b""),
        len: CHUNK_BYTES_MIN as u32,
    };
    let entry = Entry::File {
        content: ContentHash::of_bytes(b""),
        len: FILE_BYTES_MAX,
        exec: false,
    };
    let piece = |index| Part::Manifest {
        index,
        mtime_ns: 0,
        manifest: Manifest {
            chunks: vec![chunk; MANIFEST_CHUNKS_MAX],
        },
        more: true,
    };
    let files = 4;
    let ops = (0..files).map(|n| op(&format!("video-{n}"), None, Some(entry.clone())));
    let batch = taker.batch(ops.collect());
    let pieces = CHUNKS_LISTED_MAX / MANIFEST_CHUNKS_MAX;
    let mut first = taker.replica.take(&batch);
    for n in 0..pieces {
        let index = (n % files) as u32;
        assert!(matches!(first.part(piece(index)), Ok(needs) if needs.is_empty()));
    }
    assert!(first.missing());
    // There is no room left, for another batch neither.
    let mut second = taker.replica.take(&batch);
    for index in 0..files as u32 {
        assert!(matches!(second.part(piece(index)), Ok(needs) if needs.is_empty()));
    }
    assert!(!second.missing(), "its files are put off");
    drop(first);
    let mut third = taker.replica.take(&batch);
    assert!(matches!(third.part(piece(0)), Ok(needs) if needs.is_empty()));
    assert!(third.missing(), "the room is there again");
}

fn any_form() -> impl Strategy<Value = Form> {
    prop_oneof![Just(Form::Whole), Just(Form::Tail), Just(Form::Patch)]
}
