//! Each list and text of a frame at its limit, and one above it.

use super::*;
use crate::control::{CODE_BYTES_MAX, PROBLEMS_MAX};
use crate::delta::Form;
use crate::transfer::{
    BLOCKS_MAX, Batch, MANIFEST_CHUNKS_MAX, OLDS_MAX, Old, RUNS_MAX, TEXT_BYTES_MAX, name_of,
};
use crate::tree::LINK_BYTES_MAX;

/// Checks that the frame with `limit` elements decodes, and the one with one more does not.
#[track_caller]
fn limited(limit: usize, frame: impl Fn(usize) -> Frame) {
    let whole = frame(limit);
    assert!(Frame::decode(&whole.encode()) == Ok(whole), "at the limit");
    let above = frame(limit + 1);
    assert!(
        matches!(
            Frame::decode(&above.encode()),
            Err(FrameRefused::Malformed(..))
        ),
        "a {} frame of {} elements",
        above.name(),
        limit + 1
    );
}

fn x(len: usize) -> String {
    "x".repeat(len)
}

fn op() -> Op {
    Op {
        path: path("a"),
        expect: None,
        make: None,
        from: Source::Nothing,
        agrees: true,
    }
}

fn chunks(count: usize) -> Manifest {
    let chunk = Chunk {
        hash: content(""),
        len: crate::chunk::CHUNK_BYTES_MAX as u32,
    };
    Manifest {
        chunks: vec![chunk; count],
    }
}

fn list_of(count: usize) -> Frame {
    Frame::Part(Part::Manifest {
        index: u32::MAX,
        mtime_ns: i64::MIN,
        manifest: chunks(count),
        more: true,
    })
}

fn pack(files: usize, bytes: usize) -> Frame {
    let file = PackedFile {
        index: u32::MAX,
        len: u32::MAX,
        mtime_ns: i64::MIN,
        form: Form::Whole,
    };
    Frame::Part(Part::Pack {
        files: vec![file; files],
        zstd: true,
        bytes: vec![0xff; bytes],
    })
}

fn run(bytes: usize) -> Frame {
    Frame::ChunkRun(ChunkRun {
        first: u32::MAX,
        count: u32::MAX,
        copies: vec![],
        zstd: true,
        bytes: vec![0xff; bytes],
    })
}

#[test]
fn lists() {
    let row = BaseRow {
        entry: None,
        batch: Gen(1),
    };
    let row = (path("a"), row);
    limited(ROWS_MAX, |n| Frame::Bases(vec![row.clone(); n]));
    limited(ROWS_MAX, |n| Frame::Agreed(Gen(1), vec![row.clone(); n]));
    limited(ROWS_MAX, |n| {
        Frame::Seen(vec![(path("a"), Sight::Absent); n])
    });
    limited(BATCH_OPS_MAX, |n| Frame::Fetch(Gen(1), vec![item(); n]));
    limited(BATCH_OPS_MAX, |n| {
        Frame::Applied(Gen(1), vec![Outcome::Done; n])
    });
    limited(BATCH_OPS_MAX, |n| {
        let batch = Batch {
            number: Gen(1),
            settles: None,
            ops: vec![op(); n],
        };
        Frame::Batch(batch.into(), None)
    });
    limited(RUNS_MAX, |n| {
        Frame::Need(Need {
            batch: Gen(1),
            item: item(),
            runs: vec![(1, 1); n],
            olds: vec![],
        })
    });
    let old = |n| Old {
        first: 0,
        blocks: vec![name_of(b""); n],
    };
    let needs = |olds| {
        Frame::Need(Need {
            batch: Gen(1),
            item: item(),
            runs: vec![],
            olds,
        })
    };
    limited(BLOCKS_MAX, |n| needs(vec![old(n)]));
    limited(OLDS_MAX, |n| needs(vec![old(0); n]));
    limited(BATCH_OPS_MAX, |n| pack(n, 0));
    limited(MANIFEST_CHUNKS_MAX, list_of);
    let problem = proof().problems[0].clone();
    limited(PROBLEMS_MAX, |n| {
        let problems = vec![problem.clone(); n];
        Frame::Proof(Proof {
            problems,
            ..proof()
        })
    });
}

#[test]
fn contents() {
    limited(PART_BYTES_MAX, |n| pack(0, n));
    limited(PART_BYTES_MAX, run);
}

#[test]
fn texts() {
    limited(REASON_BYTES_MAX, |n| Frame::Refuse(x(n)));
    limited(ASK_BYTES_MAX, |n| Frame::Ask(1, x(n)));
    limited(ANSWER_BYTES_MAX, |n| Frame::Answer(1, x(n)));
    let problem = |code: usize, text: usize, fix: usize| {
        let mut proof = proof();
        let problem = &mut proof.problems[0];
        (problem.code, problem.text, problem.fix) = (x(code), x(text), x(fix));
        Frame::Proof(proof)
    };
    limited(CODE_BYTES_MAX, |n| problem(n, 0, 0));
    limited(TEXT_BYTES_MAX, |n| problem(0, n, 0));
    limited(TEXT_BYTES_MAX, |n| problem(0, 0, n));
    limited(TEXT_BYTES_MAX, |n| {
        let trouble = Trouble {
            kind: TroubleKind::Io,
            text: x(n),
        };
        Frame::Applied(Gen(1), vec![Outcome::Held(trouble)])
    });
    limited(LINK_BYTES_MAX, |n| {
        Frame::Seen(vec![(path("a"), Sight::Is(link(&x(n))))])
    });
}

fn hello(node: &str) -> Frame {
    Frame::Hello(Hello {
        version: PROTOCOL_VERSION,
        pair: PairId([1; 16]),
        node: node.into(),
        index: IndexId([2; 16]),
        base_of: None,
        last_batch: Gen(0),
    })
}

fn welcome(node: &str, ignore: String) -> Frame {
    Frame::Welcome(Welcome {
        version: PROTOCOL_VERSION,
        node: node.into(),
        index: IndexId([2; 16]),
        base_kept: false,
        resolved: Gen(0),
        ignore,
    })
}

#[test]
fn greetings() {
    limited(NODE_BYTES_MAX, |n| hello(&x(n)));
    limited(NODE_BYTES_MAX, |n| welcome(&x(n), String::new()));
    limited(RULES_BYTES_MAX, |n| welcome("vm", x(n)));
    for name in ["../mac", "mac\n", "\u{1b}[31mmac", "a\0"] {
        for frame in [hello(name), welcome(name, String::new())] {
            assert!(Frame::decode(&frame.encode()).is_err(), "{name:?}");
        }
    }
    assert!(Frame::decode(&hello("Büro-맥").encode()).is_ok());
}

#[test]
fn a_link_target_with_a_nul_byte_is_refused() {
    let seen = Frame::Seen(vec![(path("a"), Sight::Is(link("out\0side")))]);
    assert!(Frame::decode(&seen.encode()).is_err());
}

/// What an honest side makes at most fits into what its partner takes.
#[test]
fn the_frames_of_a_stream_have_their_own_limits() {
    for frame in [
        pack(BATCH_OPS_MAX, PART_BYTES_MAX),
        list_of(MANIFEST_CHUNKS_MAX),
        run(PART_BYTES_MAX),
    ] {
        let bytes = frame.encode().len();
        assert!(bytes <= PART_FRAME_BYTES_MAX, "{}: {bytes}", frame.name());
    }
    // A batch is full when its operations have grown beyond a page.
    let deep = RelPath::parse(&vec![x(COMPONENT_BYTES_MAX); 16].join("/")).unwrap();
    let op = Op {
        path: deep.clone(),
        expect: Some(link(&x(LINK_BYTES_MAX))),
        make: Some(link(&x(LINK_BYTES_MAX))),
        from: Source::There(deep),
        agrees: true,
    };
    let beyond = PAGE_BYTES_MAX / op.bytes_max() + 1;
    let batch = Batch {
        number: Gen(u64::MAX / 2),
        settles: None,
        ops: vec![op; beyond],
    };
    let bytes = Frame::Batch(batch.into(), Some(u64::MAX)).encode().len();
    assert!((PAGE_BYTES_MAX / 2..=BATCH_FRAME_BYTES_MAX).contains(&bytes));
}
