use proptest::prelude::*;

use super::*;

fn check(raw: &str, expected: Result<(), PathRefused>) {
    assert_eq!(RelPath::parse(raw).map(|_| ()), expected, "{raw:?}");
}

#[test]
fn what_is_a_path() {
    check("a", Ok(()));
    check("a/b/c.md", Ok(()));
    check("지식/메모.md", Ok(()));
    check("-rf", Ok(()));
    check("line\nbreak", Ok(()));
    check("...", Ok(()));
    check("a b/ c", Ok(()));
    check(&"x".repeat(COMPONENT_BYTES_MAX), Ok(()));
    check(&["x".repeat(255), "y".repeat(255)].join("/"), Ok(()));

    check("", Err(PathRefused::Empty));
    check("/", Err(PathRefused::Empty));
    check("/etc/passwd", Err(PathRefused::Empty));
    check("a//b", Err(PathRefused::Empty));
    check("a/", Err(PathRefused::Empty));
    check(".", Err(PathRefused::Dots));
    check("..", Err(PathRefused::Dots));
    check("a/../b", Err(PathRefused::Dots));
    check("a/./b", Err(PathRefused::Dots));
    check("a\0b", Err(PathRefused::Nul));
    check(
        &"x".repeat(COMPONENT_BYTES_MAX + 1),
        Err(PathRefused::ComponentTooLong),
    );
    check(&"x/".repeat(PATH_BYTES_MAX), Err(PathRefused::TooLong));
}

#[test]
fn bytes_that_are_not_utf8_are_refused() {
    assert_eq!(RelPath::parse_bytes(b"caf\xe9"), Err(PathRefused::NotUtf8));
}

#[test]
fn a_directory_stands_directly_before_its_content() {
    let sorted: Vec<_> = ["a", "a/b", "a/b/c", "a/b-c", "a-b", "a.b", "b"]
        .map(|raw| RelPath::parse(raw).unwrap())
        .into();
    let mut shuffled = sorted.clone();
    shuffled.reverse();
    shuffled.sort();
    assert_eq!(shuffled, sorted);
}

#[test]
fn folding_joins_case_and_normalization() {
    let key = |raw| RelPath::parse(raw).unwrap().folded_key();
    assert_eq!(key("Caf\u{e9}"), key("cafe\u{301}"));
    assert_eq!(key("README"), key("readme"));
    assert_ne!(key("a"), key("b"));
}

#[test]
fn a_path_from_the_wire_is_parsed_again() {
    let evil = postcard::to_stdvec("../../etc/passwd").unwrap();
    assert!(postcard::from_bytes::<RelPath>(&evil).is_err());
}

proptest! {
    #[test]
    fn parsing_any_text_gives_a_path_that_stays_inside(raw in any::<String>()) {
        if let Ok(path) = RelPath::parse(&raw) {
            prop_assert_eq!(path.as_str(), raw.as_str());
            prop_assert!(path.components().all(|c| !c.is_empty() && c != "." && c != ".."));
        }
    }

    #[test]
    fn what_lies_below_is_one_range(mut raw in prop::collection::vec("[a-c/.-]{1,6}", 0..40), top in "[a-c]{1,2}") {
        raw.sort();
        let map: std::collections::BTreeMap<_, _> =
            raw.iter().filter_map(|r| RelPath::parse(r).ok()).map(|p| (p, ())).collect();
        let top = RelPath::parse(&top).unwrap();
        let found: Vec<_> = below(&map, &top).map(|(p, ())| p.clone()).collect();
        let expected: Vec<_> = map.keys().filter(|p| p.as_str().starts_with(&format!("{top}/"))).cloned().collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn the_order_is_that_of_the_components_wherever_the_first_difference_is() {
    let mut paths = Vec::new();
    for len in 1..20 {
        for at in 0..len {
            for other in ["", "/x", "-", "0", "z", "한"] {
                let mut text = "a".repeat(at);
                text.push('b');
                text.push_str(other);
                text.push_str(&"a".repeat(len - at));
                paths.push(RelPath::parse(&text).unwrap());
            }
        }
    }
    for a in &paths {
        for b in &paths {
            let ours = a.as_str().split('/').map(str::as_bytes);
            let theirs = b.as_str().split('/').map(str::as_bytes);
            assert_eq!(a.cmp(b), ours.cmp(theirs), "{a} {b}");
        }
    }
}
