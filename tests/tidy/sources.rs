//! The source files: what they are called, how they begin, what is not in them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::repository::{Written, expect_none, members, read, read_toml, root, written};

const LINES_MAX: usize = 900;
/// Names that say nothing about what is inside.
const CUPBOARDS: [&str; 7] = [
    "util", "utils", "helper", "helpers", "common", "misc", "stuff",
];
/// The only sources that ask which system they are built for.
const SYSTEM_SWITCHES: [&str; 6] = [
    "cli/src/verbs/service/system.rs",
    "disk/src/volume.rs",
    "node/src/clock.rs",
    "node/src/doctor/machine.rs",
    "node/src/measure.rs",
    "node/src/memory.rs",
];
/// The people in examples.
const PEOPLE: [&str; 3] = ["", "me", "my"];

fn rust() -> Vec<Written> {
    written().into_iter().filter(Written::is_rust).collect()
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Returns each line that has `word`, not as a part of a longer name, as `file:line`.
fn lines_with(files: &[Written], word: &str) -> Vec<String> {
    let whole = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + word.len()..].chars().next();
            let begins = !word.starts_with(is_name) || !before.is_some_and(is_name);
            let ends = !word.ends_with(is_name) || !after.is_some_and(is_name);
            begins && ends
        })
    };
    let in_file = |file: &Written| -> Vec<String> {
        let lines = (1..).zip(file.text.lines()).filter(|(_, line)| whole(line));
        lines
            .map(|(number, line)| format!("{}:{number}: {}", file.name, line.trim()))
            .collect()
    };
    files.iter().flat_map(in_file).collect()
}

#[test]
fn a_file_begins_by_saying_what_it_is() {
    let silent = rust()
        .into_iter()
        .filter(|file| !file.is_test() && !file.text.starts_with("//! "));
    let found: Vec<String> = silent.map(|file| file.name).collect();
    expect_none(
        &found,
        "Begin with `//!`: what the module owns, the order of effects, what is never here:",
    );
}

#[test]
fn a_file_is_one_thought() {
    let long = |file: &Written| !file.is_test() && file.text.lines().count() > LINES_MAX;
    let found: Vec<String> = rust()
        .into_iter()
        .filter(long)
        .map(|file| file.name)
        .collect();
    expect_none(
        &found,
        &format!(
            "Take a second thought out into a file of its own; {LINES_MAX} lines are the limit:"
        ),
    );
}

#[test]
fn a_name_says_what_is_inside() {
    let says_nothing = |file: &Written| {
        let mut parts = file
            .name
            .split('/')
            .map(|part| part.split_once('.').map_or(part, |(stem, _)| stem));
        parts.any(|part| CUPBOARDS.contains(&part))
    };
    let files = rust();
    let mut found: Vec<String> = files
        .iter()
        .filter(|file| says_nothing(file))
        .map(|file| file.name.clone())
        .collect();
    for name in CUPBOARDS {
        found.extend(lines_with(&files, &format!("mod {name}")));
    }
    expect_none(
        &found,
        "Name it after what it does, and put it where that belongs:",
    );
}

#[test]
fn nothing_is_left_for_later() {
    // In two pieces each, so that this file does not have them itself.
    let words = [
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
        concat!("db", "g!"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("HA", "CK"),
        concat!("allow(dead", "_code)"),
        concat!("expect(dead", "_code)"),
    ];
    let files = rust();
    let found: Vec<String> = words
        .iter()
        .flat_map(|word| lines_with(&files, word))
        .collect();
    expect_none(
        &found,
        "Do it now, delete it, or write it down as an issue:",
    );
}

#[test]
fn a_test_that_is_left_out_says_how_to_run_it() {
    let ignored = lines_with(&rust(), concat!("#[ig", "nore"));
    let silent = |line: &String| !(line.contains(" = \"") && line.contains("run"));
    let found: Vec<String> = ignored.into_iter().filter(silent).collect();
    expect_none(
        &found,
        "Every test runs. Only a measurement or a long variant may wait; say why and how to run it:",
    );
}

#[test]
fn unsafe_code_is_only_where_the_system_asks_for_it() {
    let elsewhere: Vec<Written> = rust()
        .into_iter()
        .filter(|file| file.file_name() != "macos.rs" && file.name != "node/src/memory/linux.rs")
        .collect();
    let found = lines_with(&elsewhere, concat!("unsafe", "_code"));
    expect_none(
        &found,
        "Find a safe crate for the call; only a `macos.rs`, and what the allocator of Linux asks for, may allow unsafe code, each time with a reason:",
    );
}

#[test]
fn systems_differ_in_small_modules_only() {
    let switch = concat!("target", "_os");
    let sources: Vec<Written> = rust().into_iter().filter(|file| !file.is_test()).collect();
    let (allowed, others): (Vec<Written>, Vec<Written>) = sources
        .into_iter()
        .partition(|file| SYSTEM_SWITCHES.contains(&&*file.name));
    let found = lines_with(&others, switch);
    expect_none(
        &found,
        "Put what differs into `linux.rs` and `macos.rs` below a small module, and list it here:",
    );

    assert_eq!(
        allowed.len(),
        SYSTEM_SWITCHES.len(),
        "take the file that is gone out of SYSTEM_SWITCHES"
    );
    for file in allowed {
        let lines: Vec<&str> = file.text.lines().collect();
        for (number, line) in lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.contains(switch))
        {
            let next = lines.get(number + 1).copied().unwrap_or_default();
            let item = next
                .trim_start_matches("pub(super) ")
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub ");
            let fits = line.starts_with("#[cfg(")
                && (item.starts_with("mod ") || item.starts_with("use "));
            assert!(
                fits,
                "{}:{}: only `mod` and `use` may depend on the system",
                file.name,
                number + 1
            );
        }
    }
}

#[test]
fn no_path_of_one_persons_machine() {
    let mut found = Vec::new();
    for file in written() {
        for (number, line) in (1..).zip(file.text.lines()) {
            for home in [concat!("/ho", "me/"), concat!("/Us", "ers/")] {
                let persons = line.match_indices(home).map(|(at, _)| {
                    let rest = &line[at + home.len()..];
                    &rest[..rest.find(|c: char| !is_name(c)).unwrap_or(rest.len())]
                });
                found.extend(
                    persons
                        .filter(|person| !PEOPLE.contains(person))
                        .map(|person| format!("{}:{number}: {home}{person}", file.name)),
                );
            }
            for quote in ['"', '\'', '`', ' ', '='] {
                let machine = [concat!("/ro", "ot/"), concat!("/wo", "rk/")]
                    .map(|top| format!("{quote}{top}"));
                found.extend(
                    machine
                        .iter()
                        .filter(|top| line.contains(*top))
                        .map(|top| format!("{}:{number}:{top}", file.name)),
                );
            }
        }
    }
    expect_none(
        &found,
        "Take the path from a setting, from the environment, or from a temporary folder; an example's person is `me`:",
    );
}

/// Returns the files in which the crate's programs, tests and library begin.
fn beginnings(member: &str) -> Vec<String> {
    let manifest = read_toml(&format!("{member}/Cargo.toml"));
    let sections = ["bin", "test", "bench", "example"].map(|section| manifest.get(section));
    let named = sections
        .into_iter()
        .flatten()
        .filter_map(toml::Value::as_array)
        .flatten();
    let mut files: Vec<String> = named
        .filter_map(|target| Some(format!("{member}/{}", target.get("path")?.as_str()?)))
        .collect();
    files.extend(["src/lib.rs", "src/main.rs"].map(|usual| format!("{member}/{usual}")));
    files.sort();
    files.dedup();
    files.retain(|file| root().join(file).exists());
    files
}

/// Returns the names of the modules that a file declares without a body.
fn declared(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let line = line.trim_start();
        let rest = match line
            .strip_prefix("pub(")
            .and_then(|rest| rest.split_once(") "))
        {
            Some((_, rest)) => rest,
            None => line.strip_prefix("pub ").unwrap_or(line),
        };
        let name = rest.strip_prefix("mod ")?.split_once(';')?.0;
        name.chars().all(is_name).then(|| name.to_owned())
    };
    text.lines().filter_map(name).collect()
}

#[test]
fn every_file_is_part_of_a_program() {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<(String, bool)> = Vec::new();
    for member in members() {
        waiting.extend(beginnings(&member).into_iter().map(|file| (file, true)));
    }
    while let Some((file, begins)) = waiting.pop() {
        let path = PathBuf::from(&file);
        let folder = path.parent().expect("a folder");
        let inside = match path.file_stem().expect("a name").to_str() {
            Some("mod") => folder.to_owned(),
            Some(stem) if !begins => folder.join(stem),
            _ => folder.to_owned(),
        };
        for module in declared(&read(&file)) {
            let places = [
                inside.join(format!("{module}.rs")),
                inside.join(&module).join("mod.rs"),
            ];
            let there = places.iter().find(|place| root().join(place).exists());
            // One that is missing does not compile, or has its body in another place: `#[path]`.
            let place = there.unwrap_or_else(|| {
                panic!("{file} declares `{module}`, which is not at {places:?}")
            });
            waiting.push((place.to_string_lossy().into_owned(), false));
        }
        reached.insert(file);
    }
    let fuzz = "tests/fuzz/fuzz_targets/";
    let dead = |file: &Written| !reached.contains(&file.name) && !file.name.starts_with(fuzz);
    let found: Vec<String> = rust()
        .into_iter()
        .filter(dead)
        .map(|file| file.name)
        .collect();
    expect_none(
        &found,
        "Nobody compiles these: declare them with `mod`, or in Cargo.toml, or delete them:",
    );
}

#[test]
fn declarations_are_found() {
    let text = "mod a;\npub mod b;\n    pub(crate) mod c;\npub(in crate::x) mod d;\n// mod e;\nmod f {\nuse g;\n";
    assert_eq!(declared(text), ["a", "b", "c", "d"]);
}

#[test]
fn words_are_found_whole() {
    let file = |text: &str| {
        [Written {
            name: "x".to_owned(),
            text: text.to_owned(),
        }]
    };
    let check = |text: &str, word: &str, count: usize| {
        assert_eq!(
            lines_with(&file(text), word).len(),
            count,
            "{word} in {text}"
        );
    };
    check("mod sea;", "mod sea", 1);
    check("mod season;", "mod sea", 0);
    check("a // NOTE: b", "NOTE", 1);
    check("FOOTNOTE", "NOTE", 0);
    check("x!(1)\ny\nx!(2)", "x!", 2);
    check("max!(1)", "x!", 0);
}
