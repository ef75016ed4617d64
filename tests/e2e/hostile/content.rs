//! Contents and frames that no honest machine makes.

use shared::chunk::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, Chunk, Manifest};
use shared::delta::Form;
use shared::hash::ContentHash;
use shared::path::RelPath;
use shared::transfer::{ChunkRun, MANIFEST_CHUNKS_MAX, Op, PackedFile, Part, Source};
use shared::tree::{Entry, Gen, Sight};
use shared::wire::{Frame, SeenRow};

pub(super) fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

pub(super) fn file(content: &str) -> Entry {
    Entry::File {
        content: ContentHash::of_bytes(content.as_bytes()),
        len: content.len() as u64,
        exec: false,
    }
}

/// A file whose content nobody has.
pub(super) fn claimed(name: &str, len: u64) -> Entry {
    Entry::File {
        content: ContentHash::of_bytes(name.as_bytes()),
        len,
        exec: false,
    }
}

pub(super) fn link(target: &str) -> Entry {
    Entry::Symlink {
        target: target.into(),
    }
}

pub(super) fn seen(name: &str, entry: Entry) -> SeenRow {
    (path(name), Sight::Is(entry))
}

pub(super) fn op(name: &str, expect: Option<Entry>, make: Option<Entry>) -> Op {
    let from = match &make {
        Some(Entry::File { .. }) => Source::There(path(name)),
        _ => Source::Nothing,
    };
    Op {
        path: path(name),
        expect,
        make,
        from,
        agrees: true,
    }
}

/// The whole content of one small file.
pub(super) fn pack(index: u32, content: &[u8]) -> Part {
    Part::Pack {
        files: vec![PackedFile {
            index,
            len: content.len() as u32,
            mtime_ns: 0,
            form: Form::Whole,
        }],
        zstd: false,
        bytes: content.to_vec(),
    }
}

/// A zstd frame of 32 KB that becomes 1 GiB: blocks of one byte, repeated 131,072 times each (RFC 8878,
/// 3.1.1.2). `claims` stands as content size in its header, if it is given.
pub(super) fn bomb(claims: Option<u64>) -> Vec<u8> {
    const BLOCK_BYTES: u32 = 128 << 10;
    const BLOCKS: u32 = 8192;
    let (descriptor, window) = (if claims.is_some() { 0xc0 } else { 0 }, 0x38);
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, descriptor, window];
    bytes.extend(claims.into_iter().flat_map(u64::to_le_bytes));
    for block in 1..=BLOCKS {
        let header = BLOCK_BYTES << 3 | 1 << 1 | u32::from(block == BLOCKS);
        bytes.extend(&header.to_le_bytes()[..3]);
        bytes.push(b'x');
    }
    bytes
}

fn chunk(len: usize) -> Chunk {
    Chunk {
        hash: ContentHash::of_bytes(b"x"),
        len: len as u32,
    }
}

fn list(index: u32, chunks: Vec<Chunk>, more: bool) -> Part {
    Part::Manifest {
        index,
        mtime_ns: 0,
        manifest: Manifest { chunks },
        more,
    }
}

/// The length that [`lies`] are about.
pub(super) const LEN: u64 = 10;

/// Returns parts that no honest giver sends for a first file of [`LEN`] bytes and a second of 1 MiB,
/// each with a name.
pub(super) fn lies() -> Vec<(&'static str, Vec<Part>)> {
    let packed = |index, len| PackedFile {
        index,
        len,
        mtime_ns: 0,
        form: Form::Whole,
    };
    let zipped = |bytes| Part::Pack {
        files: vec![packed(0, LEN as u32)],
        zstd: true,
        bytes,
    };
    let longest = chunk(CHUNK_BYTES_MAX);
    vec![
        ("a bomb of 1 GiB", vec![zipped(bomb(None))]),
        ("a bomb that says so", vec![zipped(bomb(Some(1 << 30)))]),
        ("a bomb that says 2^62", vec![zipped(bomb(Some(1 << 62)))]),
        ("bytes that are no zstd", vec![zipped(vec![0x28; 1000])]),
        ("a length that is another", vec![pack(0, b"12345678901")]),
        ("a length that is missing", vec![pack(0, b"1234567")]),
        (
            "an operation that is not there",
            vec![pack(9, b"1234567890")],
        ),
        (
            "a pack of the same file a thousand times",
            vec![Part::Pack {
                files: vec![packed(0, LEN as u32); 1000],
                zstd: false,
                bytes: vec![b'x'; 999],
            }],
        ),
        (
            "chunks for a small file",
            vec![list(0, vec![longest], false)],
        ),
        (
            "a list that is too short",
            vec![list(1, vec![longest], false)],
        ),
        (
            "a list that is too long",
            vec![list(1, vec![longest; 100], true)],
        ),
        (
            "chunks that are too short",
            vec![list(1, vec![chunk(CHUNK_BYTES_MIN - 1), longest], true)],
        ),
        (
            "chunks of nothing",
            vec![list(1, vec![chunk(0); 1000], true)],
        ),
        (
            "a list of nothing, for ever",
            vec![list(1, Vec::new(), true)],
        ),
    ]
}

/// Returns parts that an honest giver of a changed file could send, and that are not what was asked
/// for: the operation fails, the connection stands.
pub(super) fn wrong_contents() -> Vec<(&'static str, Vec<Part>)> {
    let whole = vec![chunk(1 << 15); 32];
    vec![
        ("another content", vec![pack(0, b"1234567890")]),
        ("a list of another content", vec![list(1, whole, false)]),
        ("nothing at all", vec![]),
        (
            "gone",
            vec![Part::Gone { index: 0 }, Part::Gone { index: 1 }],
        ),
    ]
}

/// Returns the parts of a list of chunks that never ends.
pub(super) fn endless_list(index: u32) -> Part {
    list(
        index,
        vec![chunk(CHUNK_BYTES_MIN); MANIFEST_CHUNKS_MAX],
        true,
    )
}

/// Returns runs of chunks that nobody asked for.
pub(super) fn stray_runs() -> Vec<ChunkRun> {
    let run = |first, count, zstd, bytes| ChunkRun {
        first,
        count,
        copies: Vec::new(),
        zstd,
        bytes,
    };
    vec![
        run(0, 1, false, vec![0; 10]),
        run(u32::MAX, u32::MAX, false, vec![0; 10]),
        run(0, u32::MAX, true, bomb(None)),
    ]
}

/// Frames that are no frames: each with a name.
pub(super) fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    // The path is the only text of these bytes.
    let with_path = |name: &str| {
        let good = "x".repeat(name.len());
        let bytes = Frame::Seen(vec![(path(&good), Sight::Is(Entry::Dir))]).encode();
        let at = bytes
            .windows(good.len())
            .position(|window| window == good.as_bytes());
        let mut bytes = bytes;
        bytes[at.unwrap()..][..name.len()].copy_from_slice(name.as_bytes());
        bytes
    };
    // A component that is too long: made of two by taking the slash out.
    let two = format!("{}/{}", "x".repeat(150), "x".repeat(150));
    let mut long = Frame::Seen(vec![(path(&two), Sight::Is(Entry::Dir))]).encode();
    let slash = long.iter().position(|byte| *byte == b'/').unwrap();
    long[slash] = b'x';
    // Rows that cost three bytes here and a hundred there.
    let minimal = Frame::Seen(vec![(path("a"), Sight::Absent); 1_500_000]).encode();
    let outcomes =
        Frame::Applied(Gen(1), vec![shared::transfer::Outcome::Done; 5_000_000]).encode();
    vec![
        ("an empty frame", Vec::new()),
        ("a frame of kind 0", vec![0]),
        ("a frame of kind 99", vec![99, 1, 2, 3]),
        ("half a frame", with_path("notes")[..4].to_vec()),
        ("more than a frame", [with_path("notes"), vec![7]].concat()),
        ("the path ..", with_path("..")),
        ("the path ../outside", with_path("../outside")),
        ("the path a/../../b", with_path("a/../../b")),
        ("the path /etc/passwd", with_path("/etc/passwd")),
        ("the path a//b", with_path("a//b")),
        ("the path a/", with_path("a/")),
        ("the path .", with_path(".")),
        ("a path with NUL", with_path("a\0b")),
        ("a name of 301 bytes", long),
        (
            "a link with NUL",
            Frame::Seen(vec![seen("a", link("b\0c"))]).encode(),
        ),
        (
            "a link of 5,000 bytes",
            Frame::Seen(vec![seen("a", link(&"x".repeat(5000)))]).encode(),
        ),
        ("1,500,000 minimal rows", minimal),
        ("5,000,000 outcomes", outcomes),
        ("a message of 6 MiB", vec![200; 6 << 20]),
        (
            "a name of 100,000 bytes",
            Frame::Refuse("x".repeat(100_000)).encode(),
        ),
        (
            "a count of four billion",
            vec![6, 0xff, 0xff, 0xff, 0xff, 0x0f],
        ),
    ]
}
