use std::fs;

use shared::wire::IndexId;

use super::*;
use crate::tests::{Bench, file, op};

fn found(bench: &Bench) -> IndexFound {
    index(&bench.dir.path().join("state"), bench.replica.id())
}

#[test]
fn an_index_is_examined_and_left_alone() {
    let mut bench = Bench::new();
    bench.apply(vec![op("a", None, file("1"))], &[b"1"]);
    let path = bench.dir.path().join("state/index.redb");
    let before: IndexId = bench.stored.index;
    let bench = bench.reopen_after(|| {
        let bytes = fs::read(&path).expect("there");
        let state = path.parent().expect("a folder");
        let id = marker(&state.with_file_name("root"))
            .expect("readable")
            .expect("there");
        let replica = id.replica.parse().expect("an id");
        let sound = index(state, replica);
        assert!(
            matches!(sound, IndexFound::Sound { stamp: 1, rows: 1 }),
            "{sound:?}"
        );
        let other = index(state, ReplicaId([9; 16]));
        assert!(matches!(other, IndexFound::Foreign), "{other:?}");
        assert_eq!(fs::read(&path).expect("there"), bytes, "it was only read");
    });
    assert_eq!(bench.stored.index, before);
    assert!(matches!(found(&bench), IndexFound::Sound { .. }));
}

#[test]
fn an_index_that_is_absent_or_none_is_said_so() {
    let mut bench = Bench::new();
    bench.apply(vec![op("a", None, file("1"))], &[b"1"]);
    let dir = tempfile::tempdir().expect("a folder");
    let check = |bytes: &[u8]| {
        fs::write(dir.path().join("index.redb"), bytes).expect("written");
        index(dir.path(), ReplicaId([1; 16]))
    };
    assert!(matches!(
        index(dir.path(), ReplicaId([1; 16])),
        IndexFound::Absent
    ));
    assert!(matches!(check(b""), IndexFound::Absent));
    assert!(matches!(check(b"no index"), IndexFound::Damaged(_)));
    assert!(matches!(check(&[0; 100_000]), IndexFound::Damaged(_)));
}

/// A byte that matters to what is stored is never flipped unnoticed: either it is found, or what
/// is read is what was written.
#[test]
fn a_flipped_byte_is_found_or_does_not_matter() {
    let mut bench = Bench::new();
    let names: Vec<String> = (0..200).map(|number| format!("file-{number:03}")).collect();
    for name in &names {
        bench.write(name, "1");
    }
    bench.look();
    bench.apply(vec![op("a", None, file("1"))], &[b"1"]);
    let (state, replica) = (bench.dir.path().join("state"), bench.replica.id());
    let copy = tempfile::tempdir().expect("a folder");
    let mut damaged = 0;
    let _bench = bench.reopen_after(|| {
        let bytes = fs::read(state.join("index.redb")).expect("there");
        let held = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        // Where content stands, so that the test does not flip what is only room.
        let texts = (0..held - 8).filter(|&at| bytes[at..].starts_with(b"file-1"));
        for at in texts.step_by(37) {
            let mut flipped = bytes.clone();
            flipped[at + 5] ^= 0x02;
            fs::write(copy.path().join("index.redb"), flipped).expect("written");
            match index(copy.path(), replica) {
                IndexFound::Damaged(_) => damaged += 1,
                IndexFound::Sound { rows, .. } => assert_eq!(rows, 1),
                other => panic!("{other:?}"),
            }
        }
    });
    assert!(damaged > 0, "not one flipped byte was found");
}

#[test]
fn private_parts_are_made_again_and_the_marker_is_not() {
    let bench = Bench::new();
    let root = bench.root();
    assert_eq!(missing_private_parts(&root).expect("read"), [""; 0]);
    fs::remove_dir(root.join(".layer-sync/stage")).expect("removed");
    assert_eq!(missing_private_parts(&root).expect("read"), ["stage"]);
    make_private_parts(&root).expect("made");
    assert_eq!(missing_private_parts(&root).expect("read"), [""; 0]);
    let bare = tempfile::tempdir().expect("a folder");
    assert!(marker(bare.path()).expect("read").is_none());
    assert!(make_private_parts(bare.path()).is_err());
    assert!(!bare.path().join(".layer-sync").exists());
    assert_eq!(outer_root(&root), None);
    assert_eq!(
        outer_root(&root.join("sub")),
        Some(root.canonicalize().expect("there"))
    );
}
