//! Golden bytes of every frame, and everything that is not a frame.
//!
//! A fixture is `tests/fixtures/frames/<name>.hex`: a line `# <name>`, then the bytes in hexadecimal.
//! A frame that is already out in the world never changes its fixture. For a new kind of frame, add a
//! line to [`golden`], make its fixture as an empty file, and run once
//! `LAYER_SYNC_WRITE_FIXTURES=1 cargo test -p shared wire`, which fills the empty ones and only those.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::chunk::{Chunk, Manifest};
use crate::control::{Health, NodeSide, Problem, SyncCounts};
use crate::delta::Form;
use crate::hash::ContentHash;
use crate::lease::{Answer, Epoch, Record, Renewal, Stance};
use crate::mirror::Step;
use crate::path::{COMPONENT_BYTES_MAX, PATH_BYTES_MAX};
use crate::transfer::{
    Batch, BlockCopy, DeltaBase, Old, Op, PackedFile, Piece, Source, Trouble, TroubleKind, name_of,
};
use crate::tree::{Entry, Obstacle};

const WRITE: &str = "LAYER_SYNC_WRITE_FIXTURES";
const BYTES_PER_LINE: usize = 32;

struct Golden {
    name: &'static str,
    text: &'static str,
    frame: Frame,
}

macro_rules! golden {
    ($( $name:literal => $frame:expr ),* $(,)?) => {
        vec![$( Golden {
            name: $name,
            text: include_str!(concat!("../../../tests/fixtures/frames/", $name, ".hex")),
            frame: $frame,
        } ),*]
    };
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

fn content(text: &str) -> ContentHash {
    ContentHash::of_bytes(text.as_bytes())
}

fn file(text: &str, exec: bool) -> Entry {
    Entry::File {
        content: content(text),
        len: text.len() as u64,
        exec,
    }
}

fn link(target: &str) -> Entry {
    Entry::Symlink {
        target: target.into(),
    }
}

fn set(entries: &[(&str, Entry)]) -> SetHash {
    let mut hash = SetHash::default();
    entries
        .iter()
        .for_each(|(name, entry)| hash.add(&path(name), entry));
    hash
}

fn rows() -> Vec<AgreedRow> {
    vec![
        (
            path("notes"),
            BaseRow {
                entry: Some(Entry::Dir),
                batch: Gen(7),
            },
        ),
        (
            path("notes/오늘.md"),
            BaseRow {
                entry: Some(file("hello", false)),
                batch: Gen(300),
            },
        ),
        (
            path("notes/latest"),
            BaseRow {
                entry: Some(link("오늘.md")),
                batch: Gen(8),
            },
        ),
        (
            path("notes/run.sh"),
            BaseRow {
                entry: Some(file("#!/bin/sh\n", true)),
                batch: Gen(8),
            },
        ),
        (
            path("old.md"),
            BaseRow {
                entry: None,
                batch: Gen(u64::MAX / 2),
            },
        ),
    ]
}

fn sights() -> Vec<SeenRow> {
    let obstacles = [
        Obstacle::Unreadable,
        Obstacle::Ignored,
        Obstacle::Special,
        Obstacle::NotUtf8,
        Obstacle::BadName,
        Obstacle::OtherRoot,
        Obstacle::Unstable,
        Obstacle::Database,
    ];
    let mut rows = vec![
        (path("gone.md"), Sight::Absent),
        (path("notes"), Sight::Is(Entry::Dir)),
        (path("notes/a.md"), Sight::Is(file("hello", false))),
        (path("notes/link"), Sight::Is(link("../elsewhere"))),
    ];
    rows.extend(
        obstacles.map(|obstacle| (path(&format!("x/{obstacle:?}")), Sight::Blocked(obstacle))),
    );
    rows
}

fn outcomes() -> Vec<Outcome> {
    let kinds = [
        TroubleKind::DiskFull,
        TroubleKind::ReadOnly,
        TroubleKind::Permission,
        TroubleKind::Name,
        TroubleKind::NotEmpty,
        TroubleKind::Corrupt,
        TroubleKind::Io,
        TroubleKind::DatabaseOpen,
    ];
    let held = |kind: TroubleKind| {
        Outcome::Held(Trouble {
            kind,
            text: kind.code().into(),
        })
    };
    let mut outcomes = vec![Outcome::Done, Outcome::Stale, Outcome::Gone];
    outcomes.extend(kinds.map(held));
    outcomes
}

fn base() -> DeltaBase {
    DeltaBase {
        content: content("before"),
        len: 6,
    }
}

fn item() -> Item {
    Item {
        index: 3,
        path: path("films/a.mov"),
        entry: Entry::File {
            content: content("film"),
            len: 10 << 30,
            exec: false,
        },
        base: None,
    }
}

fn proof() -> Proof {
    let severities = [
        Health::Healthy,
        Health::Degraded,
        Health::Held,
        Health::Halted,
    ];
    let problem = |severity: Health| Problem {
        code: "held.permission".into(),
        severity,
        path: (severity == Health::Held).then(|| "notes/a.md".into()),
        text: "\"notes/a.md\" cannot be read.".into(),
        fix: "correct the rights of the path".into(),
    };
    Proof {
        alpha: set(&[("a", file("1", false))]),
        beta: Some(set(&[("a", file("2", false))])),
        settled: false,
        resolved: Gen(41),
        paused: true,
        sync: SyncCounts {
            files: 50_000,
            bytes: 1 << 40,
            pending_files: 3,
            pending_bytes: 4096,
            conflicts: 1,
            held: 2,
        },
        problems: severities.map(problem).into(),
    }
}

fn batch() -> Batch {
    let op =
        |name: &str, expect: Option<Entry>, make: Option<Entry>, from: Source, agrees: bool| Op {
            path: path(name),
            expect,
            make,
            from,
            agrees,
        };
    Batch {
        number: Gen(42),
        settles: None,
        ops: vec![
            op("notes", None, Some(Entry::Dir), Source::Nothing, true),
            op(
                "notes/a.md",
                Some(file("1", false)),
                Some(file("22", false)),
                Source::There(path("notes/a.md")),
                true,
            ),
            op(
                "copy",
                None,
                Some(file("1", true)),
                Source::Here(path("notes/a.md")),
                false,
            ),
            op(
                "link",
                Some(link("a")),
                Some(link("b")),
                Source::Nothing,
                true,
            ),
            op("gone", Some(file("1", false)), None, Source::Nothing, true),
            op(
                "new/place",
                None,
                Some(Entry::Dir),
                Source::Moved {
                    from: path("old/place"),
                    tree: set(&[("new/place", Entry::Dir)]),
                },
                true,
            ),
        ],
    }
}

fn manifest() -> Manifest {
    Manifest {
        chunks: vec![
            Chunk {
                hash: content("first"),
                len: 65_536,
            },
            Chunk {
                hash: content("second"),
                len: 98_304,
            },
            Chunk {
                hash: content("last"),
                len: 1,
            },
        ],
    }
}

fn renew(stance: Stance) -> Frame {
    Frame::Renew(Renewal {
        number: 300,
        seen: Epoch(1042),
        stance,
    })
}

/// Every kind of frame in the order of its number, with each variant inside it at least once.
fn golden() -> Vec<Golden> {
    golden! {
        "hello" => Frame::Hello(Hello {
            version: 1,
            pair: PairId([0xa5; 16]),
            node: "mac".into(),
            index: IndexId(*b"receiver's index"),
            base_of: Some(IndexId(*b"the pusher's one")),
            last_batch: Gen(41),
        }),
        "hello-first" => Frame::Hello(Hello {
            version: 1,
            pair: PairId([0xa5; 16]),
            node: "맥".into(),
            index: IndexId([0; 16]),
            base_of: None,
            last_batch: Gen(0),
        }),
        "welcome" => Frame::Welcome(Welcome {
            version: 1,
            node: "vm".into(),
            index: IndexId(*b"the pusher's one"),
            base_kept: true,
            resolved: Gen(40),
            ignore: "*.tmp\n!keep.tmp\n".into(),
        }),
        "refuse" => Frame::Refuse("this machine is paired with another one".into()),
        "start" => Frame::Start,
        "bases" => Frame::Bases(rows()),
        "seen" => Frame::Seen(sights()),
        "ready" => Frame::Ready(set(&[("notes", Entry::Dir), ("notes/a.md", file("hello", false))])),
        "tell-all" => Frame::TellAll,
        "agreed" => Frame::Agreed(Gen(300), rows()),
        "noted" => Frame::Noted(Gen(301)),
        "sweep" => Frame::Sweep(128),
        "swept" => Frame::Swept(u64::MAX, set(&[("link", link("notes"))])),
        "fetch" => Frame::Fetch(
            Gen(42),
            vec![item(), Item { index: 0, path: path("run.sh"), entry: file("#!/bin/sh\n", true), base: Some(base()) }],
        ),
        "applied" => Frame::Applied(Gen(42), outcomes()),
        "need" => Frame::Need(Need {
            batch: Gen(42),
            item: item(),
            runs: vec![(0, 1), (17, 300), (100_000, 1)],
            olds: vec![Old { first: 0, blocks: vec![name_of(b"a block"), name_of(b"another")] }],
        }),
        "proof" => Frame::Proof(proof()),
        "ask" => Frame::Ask(1, "{\"why\":\"notes/a.md\"}".into()),
        "answer" => Frame::Answer(1, "{\"paused\":true}".into()),
        "batch" => Frame::Batch(batch().into(), Some(9)),
        "batch-unordered" => Frame::Batch(Batch { number: Gen(43), ops: vec![], settles: Some(u64::MAX) }.into(), None),
        "contents" => Frame::Contents(Gen(42)),
        "part" => Frame::Part(Part::Pack {
            files: vec![
                PackedFile { index: 1, len: 2, mtime_ns: 1_795_382_045_123_456_789, form: Form::Whole },
                PackedFile { index: 2, len: 0, mtime_ns: -1, form: Form::Tail },
                PackedFile { index: 3, len: 0, mtime_ns: 0, form: Form::Patch },
            ],
            zstd: false,
            bytes: b"22".into(),
        }),
        "part-manifest" => Frame::Part(Part::Manifest {
            index: 3,
            mtime_ns: i64::MIN,
            manifest: manifest(),
            more: true,
        }),
        "part-edited" => Frame::Part(Part::Edited {
            index: 3,
            mtime_ns: 1,
            pieces: vec![
                Piece::Kept { first: 0, count: 16_000 },
                Piece::New(manifest().chunks[0]),
            ],
        }),
        "part-stands" => Frame::Part(Part::Stands { index: 2 }),
        "part-gone" => Frame::Part(Part::Gone { index: 300 }),
        "chunks" => Frame::Chunks(Gen(42), 3),
        "chunk-run" => Frame::ChunkRun(ChunkRun {
            first: 17,
            count: 2,
            copies: vec![BlockCopy { sent: 3, first: 0, count: 64 }],
            zstd: true,
            bytes: vec![0x28, 0xb5, 0x2f, 0xfd, 0xff],
        }),
        "chunks-gone" => Frame::ChunksGone,
        "moving" => Frame::Moving(true),
        "folds" => Frame::Folds(true),
        "sweep-deep" => Frame::SweepDeep(7),
        "together" => Frame::Together(3),
        "trails" => Frame::Trails(vec![
            (path("notes/a.md"), Sight::Is(file("hello", false)), Trail {
                batch: Gen(300),
                steps: vec![
                    Step { writing: 7, entry: Some(file("hello", false)) },
                    Step { writing: 1, entry: Some(link("notes")) },
                ],
            }),
            (path("gone"), Sight::Absent, Trail { batch: Gen(0), steps: vec![Step::gone(1)] }),
        ]),
        "renew" => renew(Stance::Holds(Epoch(42))),
        "renew-resumes" => renew(Stance::Resumes),
        "renew-asks" => renew(Stance::Asks),
        "renew-fit" => renew(Stance::Fit),
        "renew-able" => renew(Stance::Able),
        "renew-unable" => renew(Stance::Unable),
        "lease" => Frame::Lease(Answer::Granted { renewal: 300, epoch: Epoch(42) }),
        "lease-stands" => Frame::Lease(Answer::Stands(Record {
            epoch: Epoch(1042),
            holder: NodeSide::Pusher,
            forced: false,
        })),
        "lease-change" => Frame::Lease(Answer::Change(NodeSide::Receiver)),
    }
}

fn parse_hex(golden: &Golden) -> Vec<u8> {
    let digits: String = golden
        .text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.chars().filter(|digit| !digit.is_whitespace()))
        .collect();
    assert!(
        digits.len().is_multiple_of(2),
        "{}.hex has half a byte",
        golden.name
    );
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}

fn show_hex(name: &str, bytes: &[u8]) -> String {
    let mut text = format!("# {name}\n");
    for line in bytes.chunks(BYTES_PER_LINE) {
        line.iter()
            .for_each(|byte| text.push_str(&format!("{byte:02x}")));
        text.push('\n');
    }
    text
}

#[allow(
    clippy::disallowed_methods,
    reason = "only a person who asks for it writes a fixture"
)]
fn write_if_asked(golden: &Golden) -> bool {
    if !golden.text.is_empty() || std::env::var_os(WRITE).is_none() {
        return false;
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/frames");
    let bytes = show_hex(golden.name, &golden.frame.encode());
    std::fs::write(format!("{folder}/{}.hex", golden.name), bytes).expect("the fixture is written");
    true
}

#[test]
fn every_frame_has_its_golden_bytes() {
    for golden in golden() {
        if write_if_asked(&golden) {
            continue;
        }
        let (name, frame) = (golden.name, &golden.frame);
        let bytes = parse_hex(&golden);
        assert_eq!(
            show_hex(name, &frame.encode()),
            show_hex(name, &bytes),
            "the bytes of {name} changed: two versions of layer-sync would misunderstand each other"
        );
        assert_eq!(Frame::decode(&bytes).as_ref(), Ok(frame), "{name}");
    }
}

#[test]
fn every_kind_has_a_fixture_under_its_name() {
    let malformed_or_whole =
        |kind: &u8| !matches!(Frame::decode(&[*kind]), Err(FrameRefused::UnknownKind(_)));
    let known: BTreeSet<u8> = (0..OPTIONAL_FROM).filter(malformed_or_whole).collect();
    let covered: BTreeSet<u8> = golden()
        .iter()
        .map(|golden| golden.frame.encode()[0])
        .collect();
    assert_eq!(
        covered, known,
        "each kind needs a line in `golden` and a file in tests/fixtures/frames"
    );
    assert_eq!(
        known,
        (1..=31).collect(),
        "a kind's number is never used again"
    );
    for golden in golden() {
        let name = golden.frame.name();
        assert!(
            golden.name.starts_with(name),
            "{} holds a {name} frame",
            golden.name
        );
    }
}

#[test]
fn optional_kinds_are_skipped_and_others_are_refused() {
    for kind in 0..=u8::MAX {
        for fields in [&[][..], b"fields of another version"] {
            let bytes = [&[kind], fields].concat();
            match Frame::decode(&bytes) {
                Ok(frame) if kind >= OPTIONAL_FROM => {
                    assert_eq!(frame, Frame::Unknown(kind));
                    assert_eq!((frame.name(), frame.encode()), ("unknown", vec![kind]));
                }
                Err(refused @ FrameRefused::UnknownKind(_)) => {
                    assert!(
                        kind == 0 || (32..OPTIONAL_FROM).contains(&kind),
                        "{kind} is known"
                    );
                    let sentence = format!(
                        "the other machine sent a frame of kind {kind}, which this version does not know; \
                         update layer-sync on this machine"
                    );
                    assert_eq!(refused.to_string(), sentence);
                }
                other => assert!((1..=31).contains(&kind), "kind {kind}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_frame_is_whole_and_nothing_but_the_frame() {
    assert_eq!(Frame::decode(&[]), Err(FrameRefused::Empty));
    assert_eq!(
        FrameRefused::Empty.to_string(),
        "the other machine sent an empty frame"
    );
    for golden in golden() {
        let (name, bytes) = (golden.frame.name(), golden.frame.encode());
        let longer = [&bytes[..], &[0, 0]].concat();
        let refused = Frame::decode(&longer).unwrap_err();
        assert_eq!(
            refused,
            FrameRefused::Malformed(name, "2 bytes too many".into())
        );
        assert_eq!(
            refused.to_string(),
            format!("the other machine sent a malformed {name} frame: 2 bytes too many")
        );
        for len in 1..bytes.len() {
            let refused = Frame::decode(&bytes[..len]);
            assert!(
                matches!(refused, Err(FrameRefused::Malformed(of, _)) if of == name),
                "{name}: {refused:?}"
            );
        }
    }
}

#[test]
fn a_frame_that_is_too_long_is_refused_before_it_is_read() {
    let refuse = |len: usize| {
        let mut bytes = vec![b'x'; len];
        bytes[0] = OPTIONAL_FROM;
        Frame::decode(&bytes)
    };
    assert_eq!(refuse(FRAME_BYTES_MAX), Ok(Frame::Unknown(OPTIONAL_FROM)));
    let refused = refuse(FRAME_BYTES_MAX + 1).unwrap_err();
    assert_eq!(refused, FrameRefused::TooLong(FRAME_BYTES_MAX + 1));
    assert_eq!(
        refused.to_string(),
        "the other machine sent a frame of 5242881 bytes; the limit is 5242880"
    );
}

#[test]
fn a_path_in_a_frame_cannot_leave_the_root() {
    // The same frame with a name of the same length, so that only the name differs.
    let check = |text: &str, said: &str| {
        let frame = |name: &str| Frame::Seen(vec![(path(name), Sight::Absent)]).encode();
        let stand_in = "-".repeat(text.len());
        let mut bytes = frame(&stand_in);
        let at = bytes
            .windows(text.len())
            .position(|part| part == stand_in.as_bytes())
            .unwrap();
        bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
        let refused = Frame::decode(&bytes);
        assert!(
            matches!(&refused, Err(FrameRefused::Malformed("seen", _))),
            "{text:?} was not refused ({said}): {refused:?}"
        );
    };
    check("../x", "a `..` component");
    check("a/../../x", "a `..` component");
    check("a/./b", "a `.` component");
    check("/etc/passwd", "absolute");
    check("a//b", "an empty component");
    check("a/", "a trailing slash");
    check("a\0b", "NUL");

    // Names that are too long have no stand-in: their bytes are put together by hand.
    for text in [
        "x".repeat(COMPONENT_BYTES_MAX + 1),
        "x/".repeat(PATH_BYTES_MAX),
        String::new(),
    ] {
        let fields = postcard::to_stdvec(&(vec![(text.clone(), Sight::Absent)],)).unwrap();
        let refused = Frame::decode(&[&[6], &fields[..]].concat());
        assert!(
            matches!(refused, Err(FrameRefused::Malformed("seen", _))),
            "{} bytes",
            text.len()
        );
    }

    // And so it is wherever else a path stands.
    let evil = |golden: &Golden| {
        let bytes = golden.frame.encode();
        let at = bytes.windows(5).position(|part| part == b"notes")?;
        let mut evil = bytes;
        evil[at..at + 5].copy_from_slice(b"../ab");
        Some(evil)
    };
    for golden in golden() {
        if matches!(
            golden.frame,
            Frame::Bases(_) | Frame::Agreed(..) | Frame::Batch(..)
        ) && golden.name != "batch-unordered"
        {
            let refused = Frame::decode(&evil(&golden).expect("a path in it"));
            assert!(
                matches!(refused, Err(FrameRefused::Malformed(..))),
                "{}: {refused:?}",
                golden.name
            );
        }
    }
}

#[test]
fn a_batch_number_beyond_all_that_are_used_is_refused() {
    let highest = Frame::Noted(Gen(u64::MAX / 2));
    assert_eq!(Frame::decode(&highest.encode()), Ok(highest));
    for number in [u64::MAX / 2 + 1, u64::MAX] {
        let refused = Frame::decode(&Frame::Noted(Gen(number)).encode());
        assert!(
            matches!(refused, Err(FrameRefused::Malformed("noted", _))),
            "{refused:?}"
        );
    }
}

#[test]
fn text_in_a_frame_is_utf8() {
    let mut bytes = Frame::Refuse("abc".into()).encode();
    bytes[2] = 0xff;
    assert!(matches!(
        Frame::decode(&bytes),
        Err(FrameRefused::Malformed("refuse", _))
    ));
}

#[test]
fn a_count_that_is_not_there_costs_nothing() {
    // Four billion rows are announced and none follows: refused without making room for them.
    for kind in [5, 6] {
        let refused = Frame::decode(&[kind, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert!(
            matches!(refused, Err(FrameRefused::Malformed(..))),
            "{refused:?}"
        );
    }
    let mut huge = vec![23, 0, 0, 0];
    huge.extend([0xff; 9]);
    huge.push(1);
    assert!(matches!(
        Frame::decode(&huge),
        Err(FrameRefused::Malformed("chunk-run", _))
    ));
}

#[test]
fn the_version_stands_first_in_both_greetings() {
    assert_eq!(
        PROTOCOL_VERSION, 1,
        "say in the module's doc what the new version changed, and why"
    );
    for golden in golden() {
        if !matches!(golden.frame, Frame::Hello(_) | Frame::Welcome(_)) {
            continue;
        }
        let mut bytes = golden.frame.encode();
        assert_eq!(u32::from(bytes[1]), PROTOCOL_VERSION, "{}", golden.name);
        // A version of tomorrow is read, so that it can be refused with a sentence.
        bytes[1] = 2;
        match Frame::decode(&bytes) {
            Ok(Frame::Hello(Hello { version, .. }) | Frame::Welcome(Welcome { version, .. })) => {
                assert_eq!(version, 2);
            }
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever arrives: a frame, which is the same after another trip, or a refusal.
    #[test]
    fn any_bytes_are_a_frame_or_refused(kind in 0u8..30, fields in prop::collection::vec(any::<u8>(), 0..64)) {
        let bytes = [&[kind], &fields[..]].concat();
        if let Ok(frame) = Frame::decode(&bytes) {
            let again = frame.encode();
            prop_assert!(again.len() <= bytes.len());
            prop_assert_eq!(Frame::decode(&again), Ok(frame));
        }
    }

    /// A damaged frame never panics, and never decodes into something that does not encode again.
    #[test]
    fn a_damaged_frame_is_another_one_or_refused(pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let golden = golden();
        let mut bytes = pick.get(&golden).frame.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }
    }
}

#[test]
fn long_lists_are_cut_into_pieces_that_fit_into_frames() {
    let deep = vec!["x".repeat(255); 15].join("/");
    let row = |name: String| {
        (
            RelPath::parse(&name).unwrap(),
            Sight::Is(Entry::Symlink {
                target: deep.clone().into(),
            }),
        )
    };
    let long: Vec<SeenRow> = (0..5000).map(|n| row(format!("{deep}/{n}"))).collect();
    let short: Vec<SeenRow> = (0..5000)
        .map(|n| (RelPath::parse(&n.to_string()).unwrap(), Sight::Absent))
        .collect();
    for rows in [long, short, Vec::new()] {
        let cut: Vec<&[SeenRow]> = pages(&rows).collect();
        assert_eq!(cut.concat(), rows);
        for page in cut {
            assert!(!page.is_empty() && page.len() <= ROWS_MAX);
            assert!(Frame::Seen(page.to_vec()).encode().len() <= FRAME_BYTES_MAX);
        }
    }
}

mod limits;
