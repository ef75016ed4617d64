//! The table that a person can read (`table.txt`), and properties of random histories.

mod decided;
mod moves;
mod properties;
mod trails;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::*;
use crate::hash::ContentHash;
use crate::transfer::Source;
use crate::tree::{BaseRow, Gen, Sight, Trees};
use crate::utc::UtcMs;

/// One line a row: modes | base | α | β | plan.
///
/// Modes: `S` two-way-safe, `R` two-way-resolved, `s` one-way-safe, `r` one-way-replica.
///
/// A tree is a list of `name:content` (`*` behind it: may be executed), `name/` for a directory,
/// `name>target` for a link, `?name` unreadable, `~name` ignored, `%name` a FIFO; directories above
/// a name are implied. `.` is the empty tree.
///
/// A plan lists, in order, what the receiver gets (`>`) and what the pusher gets (`<`), with `-` for
/// a deletion; then `=` where only the base moves (`=-` to nothing), `!` conflicts, `?` held paths
/// and `.` untracked ones. `name~` is the conflict copy of `name`.
const TABLE: &str = include_str!("tests/table.txt");

pub(super) fn path(raw: &str) -> RelPath {
    RelPath::parse(raw).unwrap()
}

pub(super) fn file(content: &str, exec: bool) -> Entry {
    Entry::File {
        content: ContentHash::of_bytes(content.as_bytes()),
        len: content.len() as u64,
        exec,
    }
}

pub(super) static RULES: LazyLock<ConflictRules> = LazyLock::new(ConflictRules::default);
pub(super) static NOTHING_DECIDED: LazyLock<Decisions> = LazyLock::new(Decisions::default);

pub(super) fn policy(mode: Mode, primary: Side) -> Policy<'static> {
    Policy {
        mode,
        primary,
        naming: Naming {
            alpha: "vm".into(),
            beta: "mac".into(),
            now: UtcMs(0),
        },
        conflicts: &RULES,
        decisions: &NOTHING_DECIDED,
        folds: [false; 2],
    }
}

fn parse_tree(text: &str) -> Vec<(RelPath, Sight)> {
    let mut rows = BTreeMap::new();
    for token in text.split_whitespace().filter(|token| *token != ".") {
        let (name, sight) = if let Some(name) = token.strip_prefix('?') {
            (name, Sight::Blocked(Obstacle::Unreadable))
        } else if let Some(name) = token.strip_prefix('~') {
            (name, Sight::Blocked(Obstacle::Ignored))
        } else if let Some(name) = token.strip_prefix('%') {
            (name, Sight::Blocked(Obstacle::Special))
        } else if let Some(name) = token.strip_suffix('/') {
            (name, Sight::Is(Entry::Dir))
        } else if let Some((name, target)) = token.split_once('>') {
            (
                name,
                Sight::Is(Entry::Symlink {
                    target: target.into(),
                }),
            )
        } else {
            let (name, content) = token.split_once(':').unwrap();
            let plain = content.strip_suffix('*');
            (
                name,
                Sight::Is(file(plain.unwrap_or(content), plain.is_some())),
            )
        };
        path(name)
            .ancestors()
            .for_each(|above| drop(rows.insert(above, Sight::Is(Entry::Dir))));
        rows.insert(path(name), sight);
    }
    rows.into_iter().collect()
}

fn trees(base: &str, alpha: &str, beta: &str) -> Trees {
    let rows = parse_tree(base).into_iter();
    let mut trees = Trees::new(
        rows.map(|(path, sight)| {
            (
                path,
                BaseRow {
                    entry: sight.entry().cloned(),
                    batch: Gen(1),
                },
            )
        })
        .collect(),
    );
    for (side, text) in [(Side::Alpha, alpha), (Side::Beta, beta)] {
        for path in trees.base().keys().cloned().collect::<Vec<_>>() {
            trees.observe(side, path, Sight::Absent);
        }
        for (path, sight) in parse_tree(text) {
            trees.observe(side, path, sight);
        }
    }
    trees
}

pub(super) fn unsettled(trees: &Trees) -> BTreeSet<RelPath> {
    [Side::Alpha, Side::Beta]
        .iter()
        .flat_map(|side| trees.view(*side).apart().keys().cloned())
        .collect()
}

/// Writes a path with the suffixes of conflict copies shortened to `~`.
fn short(path: &RelPath) -> String {
    let mut text = path.to_string();
    while let Some(start) = text.find(" (conflict ") {
        let end = text[start..].find(')').unwrap() + start + 1;
        text.replace_range(start..end, "~");
    }
    text
}

fn show_entry(entry: &Entry) -> String {
    let contents = ["1", "2", "3", "4", "5", ""];
    match entry {
        Entry::Dir => "/".into(),
        Entry::Symlink { target } => format!(">{target}"),
        Entry::File { content, exec, .. } => {
            let name = contents
                .iter()
                .find(|c| ContentHash::of_bytes(c.as_bytes()) == *content)
                .unwrap();
            format!(":{name}{}", if *exec { "*" } else { "" })
        }
    }
}

fn show(plan: &Plan) -> String {
    let mut words = Vec::new();
    for (side, op) in &plan.ops {
        let arrow = if *side == Side::Beta { ">" } else { "<" };
        words.push(match &op.make {
            Some(entry) => format!("{arrow}{}{}", short(&op.path), show_entry(entry)),
            None => format!("{arrow}-{}", short(&op.path)),
        });
    }
    for (path, entry) in &plan.agree {
        words.push(match entry {
            Some(entry) => format!("={}{}", short(path), show_entry(entry)),
            None => format!("=-{}", short(path)),
        });
    }
    words.extend(
        plan.conflicts
            .iter()
            .map(|conflict| format!("!{}", short(&conflict.path))),
    );
    words.extend(
        plan.held
            .iter()
            .map(|(path, _)| format!("?{}", short(path))),
    );
    words.extend(
        plan.untracked
            .iter()
            .map(|path| format!(".{}", short(path))),
    );
    if words.is_empty() {
        "nothing".into()
    } else {
        words.join(" ")
    }
}

#[test]
fn the_table() {
    let mut rows = 0;
    let mut wrong = Vec::new();
    for line in TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        rows += 1;
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [modes, base, alpha, beta, expected] = columns[..] else {
            panic!("five columns: {line}")
        };
        for mode in modes.chars() {
            let mode = match mode {
                'S' => Mode::TwoWaySafe,
                'R' => Mode::TwoWayResolved,
                's' => Mode::OneWaySafe,
                'r' => Mode::OneWayReplica,
                other => panic!("mode {other}: {line}"),
            };
            let trees = trees(base, alpha, beta);
            let plan = reconcile(
                &trees,
                &unsettled(&trees),
                &|_| false,
                &policy(mode, Side::Alpha),
            );
            let shown = show(&plan);
            if shown != expected {
                wrong.push(format!("{line}\n    {}: {shown}", mode.name()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(rows >= 120, "only {rows} rows");
}

fn plan_of(trees: &Trees, primary: Side) -> Plan {
    reconcile(
        trees,
        &unsettled(trees),
        &|_| false,
        &policy(Mode::TwoWaySafe, primary),
    )
}

#[test]
fn the_primary_keeps_the_path() {
    let trees = trees("a:1", "a:2", "a:3");
    assert_eq!(show(&plan_of(&trees, Side::Alpha)), "<a~:3 >a~:3 >a:2 !a");
    assert_eq!(show(&plan_of(&trees, Side::Beta)), "<a~:2 >a~:2 <a:3 !a");
}

#[test]
fn a_copy_is_named_after_node_time_and_content() {
    let trees = trees("notes/a.md:1", "notes/a.md:2", "notes/a.md:3");
    let plan = plan_of(&trees, Side::Alpha);
    let hash8 = file("3", false).identity().short();
    assert_eq!(
        plan.conflicts[0].copy.as_str(),
        format!("notes/a (conflict mac 1970-01-01 000000 {hash8}).md")
    );
}

#[test]
fn the_same_conflict_met_later_makes_no_second_copy() {
    let hash8 = file("3", false).identity().short();
    let copy = format!("a (conflict mac 2020-05-05 101010 {hash8})");
    let mut trees = trees("a:1", "a:2", "a:3");
    let row = BaseRow {
        entry: Some(file("3", false)),
        batch: Gen(1),
    };
    trees.agree(path(&copy), row);
    for side in [Side::Alpha, Side::Beta] {
        trees.observe(side, path(&copy), Sight::Is(file("3", false)));
    }
    let plan = plan_of(&trees, Side::Alpha);
    assert_eq!(show(&plan), ">a:2 !a");
    assert_eq!(plan.conflicts[0].copy.as_str(), copy);
}

#[test]
fn a_copy_of_a_copy_has_one_suffix() {
    let name = copy_name(
        &path("a (conflict vm 2020-01-01 000000 00000000).md"),
        "mac",
        UtcMs(0),
        "12345678",
    );
    assert_eq!(
        name.unwrap().as_str(),
        "a (conflict mac 1970-01-01 000000 12345678).md"
    );
}

#[test]
fn the_name_of_a_copy_tells_what_it_is() {
    let name = copy_name(
        &path("notes/a b.md"),
        "my mac",
        UtcMs(1_795_382_045_000),
        "12345678",
    )
    .unwrap();
    let told = copy_of(&name).unwrap();
    assert_eq!(
        (told.path.as_str(), told.node.as_str(), told.at),
        ("notes/a b.md", "my mac", UtcMs(1_795_382_045_000))
    );
    let name = copy_name(&path("report (v1.2)"), "vm", UtcMs(0), "0123abcd").unwrap();
    assert_eq!(copy_of(&name).unwrap().path.as_str(), "report (v1.2)");
    for other in [
        "a (conflict of interest).md",
        "a.md",
        "a (conflict mac 2026-11-22 211405 xyz).md",
        "a (conflict ",
    ] {
        assert_eq!(copy_of(&path(other)), None, "{other}");
    }
}

#[test]
fn the_name_of_a_copy_fits_into_a_component() {
    for raw in [
        "가".repeat(85),
        "x".repeat(255),
        format!("{}.md", "é".repeat(126)),
    ] {
        let name = copy_name(
            &path(&raw),
            "a-very-long-node-name-that-goes-on-and-on",
            UtcMs(0),
            "12345678",
        )
        .unwrap();
        assert!(
            name.name().len() <= crate::path::COMPONENT_BYTES_MAX,
            "{name}"
        );
    }
}

#[test]
fn a_long_name_finds_its_copy_again() {
    let long = "가".repeat(85);
    let mut trees = trees(".", ".", ".");
    trees.agree(
        path(&long),
        BaseRow {
            entry: Some(file("1", false)),
            batch: Gen(1),
        },
    );
    trees.observe(Side::Alpha, path(&long), Sight::Is(file("2", false)));
    trees.observe(Side::Beta, path(&long), Sight::Is(file("3", false)));
    let copy = plan_of(&trees, Side::Alpha).conflicts[0].copy.clone();
    trees.observe(Side::Beta, copy.clone(), Sight::Is(file("3", false)));
    let again = reconcile(
        &trees,
        &unsettled(&trees),
        &|_| false,
        &Policy {
            naming: Naming {
                now: UtcMs(9_999_000),
                ..policy(Mode::TwoWaySafe, Side::Alpha).naming
            },
            ..policy(Mode::TwoWaySafe, Side::Alpha)
        },
    );
    assert_eq!(again.conflicts[0].copy, copy);
}

#[test]
fn odd_names_find_their_copies_again() {
    for raw in ["..x", "...md", ".x", "a", "a.tar.gz"] {
        let mut trees = trees(".", ".", ".");
        trees.observe(Side::Alpha, path(raw), Sight::Is(file("2", false)));
        trees.observe(Side::Beta, path(raw), Sight::Is(file("3", false)));
        let copy = plan_of(&trees, Side::Alpha).conflicts[0].copy.clone();
        trees.observe(Side::Alpha, copy.clone(), Sight::Is(file("3", false)));
        let mut later = policy(Mode::TwoWaySafe, Side::Alpha);
        later.naming.now = UtcMs(100_000);
        let again = reconcile(&trees, &unsettled(&trees), &|_| false, &later);
        assert_eq!(again.conflicts[0].copy, copy, "{raw}");
    }
}

#[test]
fn a_busy_path_is_left_out_and_keeps_its_directory() {
    let trees = trees("d/x:1 d/y:1", ".", "d/x:1 d/y:1");
    let busy = |p: &RelPath| p.as_str() == "d/x";
    let plan = reconcile(
        &trees,
        &unsettled(&trees),
        &busy,
        &policy(Mode::TwoWaySafe, Side::Alpha),
    );
    assert_eq!(show(&plan), ">-d/y");
}

#[test]
fn one_due_path_brings_what_it_depends_on() {
    let trees = trees("d/x:1 d/y:1 e:1", "e:2", "d/x:1 d/y:1 e:1");
    let scope = BTreeSet::from([path("d/x")]);
    let plan = reconcile(
        &trees,
        &scope,
        &|_| false,
        &policy(Mode::TwoWaySafe, Side::Alpha),
    );
    assert_eq!(show(&plan), ">-d/y >-d/x >-d");
}

#[test]
fn content_is_taken_from_where_it_is() {
    let trees = trees("a:1", "a:2 b:3", "a:4");
    let plan = plan_of(&trees, Side::Alpha);
    let from: Vec<_> = plan
        .ops
        .iter()
        .map(|(side, op)| (*side, short(&op.path), op.from.clone(), op.agrees))
        .collect();
    assert_eq!(
        from,
        [
            (
                Side::Alpha,
                "a~".to_owned(),
                Source::There(path("a")),
                false
            ),
            (Side::Beta, "a~".to_owned(), Source::Here(path("a")), false),
            (Side::Beta, "a".to_owned(), Source::There(path("a")), true),
            (Side::Beta, "b".to_owned(), Source::There(path("b")), true),
        ]
    );
}

#[test]
fn a_bit_that_is_turned_settles_only_a_content_that_was_agreed_on() {
    let check = |base: &str, alpha: &str, beta: &str, agrees: bool| {
        let plan = plan_of(&trees(base, alpha, beta), Side::Alpha);
        let ops: Vec<(bool, bool)> = plan
            .ops
            .iter()
            .map(|(_, op)| (op.only_turns_bit(), op.agrees))
            .collect();
        assert_eq!(ops, [(true, agrees)], "{base} | {alpha} | {beta}");
    };
    check("a:1", "a:1*", "a:1", true);
    check("a:1*", "a:1*", "a:1", true);
    // Both made it at the same time, or changed it to the same, and one of them to be executed.
    check(".", "a:1*", "a:1", false);
    check("a:1", "a:2*", "a:2", false);
}
