//! The manual: it has every problem code, and names no test that is not there.

use std::collections::BTreeSet;

use crate::repository::{Written, expect_none, read, root, written};

/// Where names of states are put together with words from a list, and which function has the list.
const COMPOSED: [(&str, &str); 2] = [
    ("pusher/src/state/holds.rs", "fn code_of("),
    ("shared/src/transfer.rs", "pub fn code("),
];
const STATES: [&str; 3] = ["halted.", "held.", "degraded."];

/// Returns the text before the unit tests of a file.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text)
}

/// Returns what stands in quotes, as far as it is on one line each.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('"').skip(1).step_by(2))
}

fn codes_in(text: &str) -> impl Iterator<Item = &str> {
    quoted(text).filter(|word| {
        let rest = STATES.iter().find_map(|state| word.strip_prefix(state));
        rest.is_some_and(|rest| {
            !rest.is_empty() && rest.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        })
    })
}

fn codes() -> BTreeSet<String> {
    let sources: Vec<Written> = written()
        .into_iter()
        .filter(|file| file.is_rust() && !file.is_test())
        .collect();
    let mut found: BTreeSet<String> = sources
        .iter()
        .flat_map(|file| codes_in(without_tests(&file.text)))
        .map(str::to_owned)
        .collect();
    let composed = sources
        .iter()
        .map(|file| file.text.matches("\"held.{").count())
        .sum::<usize>();
    assert_eq!(
        composed,
        COMPOSED.len(),
        "codes are put together in {composed} places; COMPOSED has to name the list of words of each"
    );
    for (file, function) in COMPOSED {
        let text = read(file);
        let (_, body) = text
            .split_once(function)
            .unwrap_or_else(|| panic!("{file}: `{function}` is gone; correct COMPOSED"));
        let words = body
            .lines()
            .take_while(|line| !line.contains("fn "))
            .filter_map(|line| line.split_once("=> \"")?.1.strip_suffix("\","));
        let before = found.len();
        found.extend(words.map(|word| format!("held.{word}")));
        assert!(found.len() > before, "{file}: `{function}` has no words");
    }
    found
}

#[test]
fn the_manual_has_every_problem_code() {
    let manual = read("docs/operate.md");
    let rows = |code: &str| {
        let begins = format!("| `{code}` |");
        manual
            .lines()
            .filter(|line| line.starts_with(&begins))
            .count()
    };
    let codes = codes();
    assert!(codes.len() > 25, "only {codes:?} were found");
    let missing = codes.iter().filter(|code| rows(code) != 1).cloned();
    expect_none(
        &missing.collect::<Vec<_>>(),
        "Give each of these codes one row in docs/operate.md, with its remedy:",
    );
    let gone = manual.lines().filter_map(|line| {
        let code = line.strip_prefix("| `")?.split_once('`')?.0;
        let is_code = STATES.iter().any(|state| code.starts_with(state));
        (is_code && !codes.contains(code)).then(|| code.to_owned())
    });
    expect_none(
        &gone.collect::<Vec<_>>(),
        "docs/operate.md explains codes that no source has:",
    );
}

#[test]
fn each_complaint_has_an_answer_and_what_shows_it_exists() {
    let page = read("docs/complaints.md");
    let rows: Vec<(u32, Vec<&str>)> = page
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
            Some((cells[0].parse().ok()?, cells))
        })
        .collect();
    let numbers: Vec<u32> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>(), "one row a complaint");
    let mut found = Vec::new();
    for (number, cells) in &rows {
        let [_, complaint, answer, shown] = cells[..] else {
            panic!("docs/complaints.md: row {number} has four cells");
        };
        assert!(!complaint.is_empty() && answer.len() > 20, "row {number}");
        let names: Vec<(&str, &str)> = shown
            .split('`')
            .filter_map(|name| name.split_once(".rs::"))
            .collect();
        if names.is_empty() {
            found.push(format!("row {number} names no test"));
        }
        for (file, test) in names {
            let file = format!("{file}.rs");
            if !root().join(&file).exists() {
                found.push(format!("row {number}: {file} is gone"));
            } else if !has_test(&read(&file), test) {
                found.push(format!("row {number}: {file} has no test {test}"));
            }
        }
    }
    expect_none(&found, "Correct docs/complaints.md:");
}

/// Says whether a file has a test of that name: a function, or a line of a macro that makes one.
fn has_test(text: &str, name: &str) -> bool {
    text.contains(&format!("fn {name}("))
        || text
            .lines()
            .any(|line| line.trim().starts_with(&format!("{name}: ")))
}

#[test]
fn codes_are_found() {
    let text =
        "let a = \"held.twin\"; let b = \"held.\"; \"halted.a b\"; \"degraded.no\"\n\"Held.x\"";
    let found: Vec<&str> = codes_in(text).collect();
    assert_eq!(found, ["held.twin", "degraded.no"]);
    assert!(has_test("fn a_name() {", "a_name") && has_test("  a_name: Defect,", "a_name"));
    assert!(!has_test("fn a_names() {", "a_name"));
}
