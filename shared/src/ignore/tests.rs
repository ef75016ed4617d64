use super::*;

fn check(rules: &str, path: &str, is_dir: bool, ignored: bool) {
    let rules = Rules::parse(rules).unwrap();
    let path = RelPath::parse(path).unwrap();
    assert_eq!(
        rules.ignores_within(&path, is_dir),
        ignored,
        "{path} under {:?}",
        rules.text()
    );
}

#[test]
fn built_in_rules() {
    check("", ".layer-sync", true, true);
    check("", ".layer-sync/kept/x", false, true);
    check("", "a/.DS_Store", false, true);
    check("", "a/._b", false, true);
    check("", "a/.notes.md.swp", false, true);
    check("", ".env", false, true);
    check("", "app/.env.local", false, true);
    check("", "keys/id_ed25519", false, true);
    check("", "a/server-key.pem", false, true);
    check("", "a/slides.key", false, false);
    check("", "a/certificate.pem", false, false);
    check("", "a/environment.md", false, false);
    check("", ".envrc", false, false);
    check("", ".layerignore", false, false);
    check("", "a/b.md", false, false);
}

#[test]
fn the_file_speaks_gitignore() {
    check("*.log", "a/b/x.log", false, true);
    check("/build", "build", true, true);
    check("/build", "a/build", true, false);
    check("build/", "a/build", false, false);
    check("build/", "a/build/x", false, true);
    check("*.log\n!keep.log", "keep.log", false, false);
    check("# a comment\n\n한글*", "한글 메모.md", false, true);
    check("!.env", ".env", false, true);
}

#[test]
fn a_broken_line_is_named() {
    let error = Rules::parse("*.log\na[z-a]").unwrap_err();
    assert!(
        error.to_string().starts_with("line 2 of .layerignore"),
        "{error}"
    );
}

#[test]
fn only_the_agreed_version_counts() {
    let hash = |text: &str| ContentHash::of_bytes(text.as_bytes());
    let file = |text: &str| Entry::File {
        content: hash(text),
        len: text.len() as u64,
        exec: true,
    };
    let decide = |there: Option<&str>, agreed: Option<&Entry>| {
        let text = Ok(there.unwrap_or_default().to_owned());
        agreed_rules(there.map(hash).as_ref(), &text, agreed)
            .map(|rules| rules.map(|rules| rules.text().to_owned()))
    };
    assert_eq!(
        decide(Some("*.log"), Some(&file("*.log"))),
        Some(Ok("*.log".into()))
    );
    assert_eq!(decide(Some("*.tmp"), Some(&file("*.log"))), None);
    assert_eq!(
        decide(Some("*.log"), None),
        None,
        "the other side does not have it yet"
    );
    assert_eq!(
        decide(None, None),
        Some(Ok(String::new())),
        "both agreed that it is gone"
    );
    assert_eq!(decide(None, Some(&file("*.log"))), None);
    assert_eq!(decide(None, Some(&Entry::Dir)), Some(Ok(String::new())));
    let broken = agreed_rules(
        Some(&hash("x")),
        &Err(RulesRefused::NotUtf8),
        Some(&file("x")),
    );
    assert_eq!(
        broken.map(|rules| rules.map(|_| ())),
        Some(Err(RulesRefused::NotUtf8))
    );
}
