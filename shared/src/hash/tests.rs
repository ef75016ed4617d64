use proptest::prelude::*;

use super::*;

fn path(raw: &str) -> RelPath {
    RelPath::parse(raw).unwrap()
}

#[test]
fn short_content_is_hashed_as_b3sum_does() {
    // The empty input's hash, from the BLAKE3 paper's test vectors.
    assert_eq!(
        ContentHash::of_bytes(b"").to_string(),
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    );
}

#[test]
fn the_chunked_hash_depends_on_length_order_and_domain() {
    let (a, b) = (ContentHash::of_bytes(b"a"), ContentHash::of_bytes(b"b"));
    let all = [
        ContentHash::of_chunks(2, [&a, &b]),
        ContentHash::of_chunks(2, [&b, &a]),
        ContentHash::of_chunks(3, [&a, &b]),
        ContentHash::of_chunks(2, [&a]),
        a,
    ];
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}

#[test]
fn the_set_hash_has_golden_bytes() {
    let mut set = SetHash::default();
    set.add(&path("notes"), &Entry::Dir);
    set.add(
        &path("notes/a.md"),
        &Entry::File {
            content: ContentHash::of_bytes(b"hello"),
            len: 5,
            exec: false,
        },
    );
    set.add(
        &path("link"),
        &Entry::Symlink {
            target: "notes/a.md".into(),
        },
    );
    assert_eq!(set.to_string(), GOLDEN);
}

#[test]
fn people_read_digits_and_the_wire_holds_bytes() {
    let content = ContentHash::of_bytes(b"hello");
    let mut set = SetHash::default();
    set.add(&path("a"), &Entry::Dir);
    for (json, hex) in [
        (
            serde_json::to_string(&content).unwrap(),
            content.to_string(),
        ),
        (serde_json::to_string(&set).unwrap(), set.to_string()),
    ] {
        assert_eq!(json, format!("\"{hex}\""));
    }
    assert_eq!(content.to_string().parse().ok(), Some(content));
    assert_eq!(set.to_string().parse().ok(), Some(set));
    assert_eq!(postcard::to_stdvec(&content).unwrap(), content.as_bytes());
    assert_eq!(
        postcard::from_bytes::<SetHash>(&postcard::to_stdvec(&set).unwrap()),
        Ok(set)
    );
}

const GOLDEN: &str = "1254dbd25f0ffd16a88e5bab6de2aa2de77970972291b5e1535f9503e4bc377a";

proptest! {
    #[test]
    fn order_does_not_matter_and_removal_undoes(
        names in prop::collection::btree_set("[a-z]{1,4}", 1..20),
        seed in any::<u64>(),
    ) {
        let members: Vec<_> = names
            .iter()
            .map(|n| (path(n), Entry::File { content: ContentHash::of_bytes(n.as_bytes()), len: seed, exec: seed % 2 == 0 }))
            .collect();
        let sum = |it: &mut dyn Iterator<Item = &(RelPath, Entry)>| {
            let mut set = SetHash::default();
            it.for_each(|(p, e)| set.add(p, e));
            set
        };
        let all = sum(&mut members.iter());
        prop_assert_eq!(all, sum(&mut members.iter().rev()));
        let mut without_first = all;
        without_first.remove(&members[0].0, &members[0].1);
        prop_assert_eq!(without_first, sum(&mut members[1..].iter()));
        prop_assert_ne!(without_first, all);
    }
}
