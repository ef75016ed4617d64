use super::*;

fn entry(text: &str) -> Entry {
    Entry::File {
        content: content_of(text.as_bytes()),
        len: text.len() as u64,
        exec: false,
    }
}

#[test]
fn appended_lines() {
    let check = |base: &str, alpha: &str, beta: &str, expected: Option<&str>| {
        let merged = append(Some(&entry(base)), alpha.as_bytes(), beta.as_bytes());
        let merged = merged.map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(merged.as_deref(), expected, "{base:?} {alpha:?} {beta:?}");
    };
    check("0\n", "0\na\n", "0\nb\n", Some("0\na\nb\n"));
    check("", "a\n", "b\n", Some("a\nb\n"));
    check("0\n", "0\n", "0\nb\n", Some("0\nb\n"));
    // The same line on both sides, and a line that the base has too: only the tails count.
    check("0\n", "0\nx\n", "0\nx\ny\n", Some("0\nx\ny\n"));
    check("0\n", "0\na\n", "0\n0\n", Some("0\na\n0\n"));
    // Merged before: nothing more comes.
    check("0\n", "0\na\nb\n", "0\nb\n", Some("0\na\nb\n"));
    // The last line is not ended.
    check("0\n", "0\na", "0\nb", Some("0\na\nb\n"));
    check("0", "0a\n", "0b\n", None);
    // More than appended.
    check("0\n1\n", "0\n", "0\n1\n2\n", None);
    check("0\n", "X\na\n", "0\nb\n", None);
}

#[test]
fn without_a_base_both_files_are_tails() {
    let merged = append(None, b"a\n", b"b\na\n");
    assert_eq!(merged.as_deref(), Some(&b"a\nb\n"[..]));
}

#[test]
fn a_long_base_is_known_by_its_chunks() {
    let base: String = (0..30_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    assert!(base.len() as u64 > 4 * PLAIN_BYTES_MAX);
    let (alpha, beta) = (format!("{base}a\n"), format!("{base}b\n"));
    let merged = append(Some(&entry(&base)), alpha.as_bytes(), beta.as_bytes()).unwrap();
    assert_eq!(merged, format!("{base}a\nb\n").into_bytes());
}

#[test]
fn text_by_line() {
    let check = |base: &str, alpha: &str, beta: &str, expected: Option<&str>| {
        let merged = text(base.as_bytes(), alpha.as_bytes(), beta.as_bytes());
        let merged = merged.map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(merged.as_deref(), expected, "{base:?} {alpha:?} {beta:?}");
    };
    let base = "1\n2\n3\n4\n5\n6\n7\n";
    let (first, last) = ("X\n2\n3\n4\n5\n6\n7\n", "1\n2\n3\n4\n5\n6\nY\n");
    let both = "X\n2\n3\n4\n5\n6\nY\n";
    check(base, first, last, Some(both));
    // Merged before.
    check(base, both, last, Some(both));
    check(base, first, first, Some(first));
    check(base, first, "Z\n2\n3\n4\n5\n6\n7\n", None);
    assert_eq!(text(b"\xff", b"a", b"b"), None);
}
