//! Names inside a root, from a disk or from the wire.

use std::cmp::Ordering;
use std::sync::LazyLock;

use shared::ignore::Rules;
use shared::path::{COMPONENT_BYTES_MAX, PATH_BYTES_MAX, RelPath};
use shared::reconcile::{copy_name, copy_of};
use shared::tree::Sight;
use shared::utc::UtcMs;
use shared::wire::Frame;

static RULES: LazyLock<Rules> = LazyLock::new(Rules::default);
/// Stands between two names; no UTF-8 text has it.
const BETWEEN: u8 = 0xff;

/// Parses one name, or two with the byte 0xff between them: what is a path stays inside the root, and
/// the relations between two paths fit together.
pub fn path(data: &[u8]) {
    let mut names = data.splitn(2, |byte| *byte == BETWEEN);
    let first = names.next().and_then(parsed);
    let second = names.next().and_then(parsed);
    if let (Some(a), Some(b)) = (&first, &second) {
        related(a, b);
        related(b, a);
    }
}

fn parsed(raw: &[u8]) -> Option<RelPath> {
    let path = RelPath::parse_bytes(raw);
    if let Ok(text) = std::str::from_utf8(raw) {
        assert_eq!(RelPath::parse(text), path);
    }
    let path = path.ok()?;
    assert_eq!(path.as_str().as_bytes(), raw, "the spelling is kept");
    assert!(raw.len() <= PATH_BYTES_MAX && !raw.contains(&0));
    for component in path.components() {
        assert!((1..=COMPONENT_BYTES_MAX).contains(&component.len()));
        assert!(component != "." && component != ".." && !component.contains('/'));
    }

    let rejoined = match path.parent() {
        Some(parent) => parent.join(path.name()),
        None => RelPath::parse(path.name()),
    };
    assert_eq!(rejoined.as_ref(), Ok(&path));
    assert_eq!(path.ancestors().next(), path.parent());
    assert_eq!(path.ancestors().count(), path.components().count() - 1);
    assert!(
        path.ancestors()
            .all(|above| path.is_below(&above) && above < path)
    );

    let frame = Frame::Seen(vec![(path.clone(), Sight::Absent)]);
    assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    assert!(RULES.ignores_within(&path, false) || !RULES.ignores(&path, false));
    assert!(!path.folded_key().is_empty());
    copied(&path);
    Some(path)
}

fn copied(path: &RelPath) {
    let at = UtcMs(1_795_382_045_000);
    let Some(copy) = copy_name(path, "my vm", at, "0123abcd") else {
        return;
    };
    assert_eq!(copy.parent(), path.parent(), "a copy lies beside");
    let own_marks = path.name().contains(" (conflict");
    if !own_marks {
        let of = copy_of(&copy).expect("the name of a copy says so");
        assert_eq!((of.node.as_str(), of.at), ("my vm", at));
        if copy.name().len() < COMPONENT_BYTES_MAX - 4 {
            assert_eq!(of.path, *path);
        }
    }
    let twice = copy_name(&copy, "my vm", at, "0123abcd");
    assert!(
        own_marks || twice.as_ref() == Some(&copy),
        "a copy of a copy gets no second suffix"
    );
}

fn related(a: &RelPath, b: &RelPath) {
    assert_eq!(a.cmp(b), b.cmp(a).reverse());
    assert_eq!(a.cmp(b) == Ordering::Equal, a == b);
    let below = a.ancestors().any(|above| above == *b);
    assert_eq!(a.is_below(b), below);
    if below {
        assert!(b < a, "a directory stands before its content");
    }
    if let Ok(inner) = RelPath::parse(&format!("{b}/x")) {
        // All that lies below a path is one range: nothing else fits between.
        let between = *b < *a && *a < inner;
        assert!(
            !between || a.is_below(b),
            "{a:?} lies between {b:?} and its content"
        );
        let moved = inner.rebase(b, a);
        assert_eq!(moved.ok(), RelPath::parse(&format!("{a}/x")).ok());
    }
}
