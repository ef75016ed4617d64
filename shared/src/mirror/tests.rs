use super::*;
use crate::path::RelPath;
use crate::reconcile::{
    ConflictRules, Decisions, Mode, Naming, Policy, Verdict, leaf_verdict, reconcile,
};
use crate::tree::{Base, Side, Trees};
use crate::utc::UtcMs;

const PAIR: u64 = 7;

fn file(text: &str) -> Entry {
    Entry::File {
        content: ContentHash::of_bytes(text.as_bytes()),
        len: text.len() as u64,
        exec: false,
    }
}

/// Reads one place: `-` for nothing, else a content, with `@N` for the batch, `+` for an edit, `#N` for the writing, `<x,y` for the
/// past, `!x` for what a person made of it, `~` for another pair, `=` for what this machine has had, `/` for what was moved here, `^N` for the
/// batch of the folder above, `^N+` if that was an edit; without a mark `?`.
fn there(text: &str) -> Option<There> {
    if text == "-" {
        return None;
    }
    let mut words = text.split(' ');
    let content = words.next().expect("a content");
    if content == "?" {
        let entry = file(words.next().expect("a content"));
        return Some(There {
            entry,
            mark: None,
            is_here: true,
            as_of: None,
        });
    }
    let mut mark = Mark {
        entry: file(content),
        sum: None,
        pair: PAIR,
        batch: Gen(0),
        edit: false,
        node: "vm".to_owned(),
        writing: 1,
        past: Vec::new(),
        name: "a".to_owned(),
        place: place_in(0, "a"),
        tag: 0,
    };
    let mut entry = mark.entry.clone();
    let (mut is_here, mut above) = (true, None);
    for word in words {
        let (sign, rest) = word.split_at(1);
        match sign {
            "@" => mark.batch = Gen(rest.parse().expect("a number")),
            "+" => mark.edit = true,
            "#" => mark.writing = rest.parse().expect("a number"),
            "<" => {
                mark.past = rest
                    .split(',')
                    .map(|one| VersionId::of(&file(one)))
                    .collect();
            }
            "!" => entry = file(rest),
            "~" => mark.pair = 8,
            "/" => is_here = false,
            "^" => {
                let (batch, edit) = match rest.strip_suffix('+') {
                    Some(batch) => (batch, true),
                    None => (rest, false),
                };
                let batch = Gen(batch.parse().expect("a number"));
                above = Some(AsOf { batch, edit });
            }
            "=" => {}
            other => panic!("{other}"),
        }
    }
    let own = Some(mark.as_of()).filter(|_| mark.pair == PAIR);
    let as_of = own.map(|own| above.map_or(own, |above| own.within(above)));
    Some(There {
        entry,
        mark: Some(mark),
        is_here,
        as_of,
    })
}

fn row(text: &str) -> Option<BaseRow> {
    let (entry, batch) = text.split_once('@')?;
    Some(BaseRow {
        entry: (entry != "-").then(|| file(entry)),
        batch: Gen(batch.parse().expect("a number")),
    })
}

fn met(text: &str) -> Option<Met> {
    let (entry, rest) = text.split_once('@')?;
    let (batch, writing) = rest.split_once('#').unwrap_or((rest, "1"));
    Some(Met {
        entry: file(entry),
        batch: Gen(batch.parse().expect("a number")),
        writing: writing.trim_end_matches('!').parse().expect("a number"),
        going: writing.ends_with('!'),
    })
}

/// Says what happens: `push` what is here, `take` what is there, `both` for a conflict, `same`.
fn check(here: &str, base: &str, met_: &str, there_: &str, expected: &str) {
    let known = Known {
        here: (here != "-").then(|| file(here)).into(),
        base: row(base),
        met: met(met_),
        there: there(there_),
        instead: None,
        last_batch: row(base).map(|row| row.batch).unwrap_or_default(),
        had: match there_.contains(" =") {
            true => vec![1],
            false => Vec::new(),
        },
        crossed: false,
    };
    let here_entry = known.here.entry();
    let there_entry = known.there.as_ref().map(|there| &there.entry);
    let found = if here_entry == there_entry {
        "same"
    } else {
        let was = ancestor(PAIR, &known);
        match leaf_verdict(Mode::TwoWaySafe, was.as_ref(), here_entry, there_entry) {
            Verdict::Copy { to: Side::Beta } => "push",
            Verdict::Copy { to: Side::Alpha } => "take",
            Verdict::Conflict => "both",
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        found, expected,
        "here {here}, base {base}, met {met_}, there {there_}"
    );
}

fn path() -> RelPath {
    RelPath::parse("a").expect("a path")
}

fn author(node: &str, writing: u64) -> Author<'_> {
    Author {
        pair: PAIR,
        node,
        writing,
        folder: 0,
    }
}

#[test]
fn what_is_here_and_there_is_told_apart() {
    //     here base    met     there         expected
    // Nothing was ever there.
    check("1", "1@5", "-", "-", "push");
    check("1", "-", "-", "-", "push");
    // Equal is equal, whatever is known.
    check("1", "0@5", "-", "1 @9 ~", "same");
    // The mirror is behind: its copy was agreed on before what is here, or is what was agreed on.
    check("4", "4@9", "-", "1 @3", "push");
    check("4", "4@9", "1@3", "1 @3", "push");
    check("5", "4@9", "-", "1 @3", "push");
    check("5", "4@9", "-", "4 @9", "push");
    // An edit that went by the mirror has been agreed on, and more since.
    check("4", "4@9", "-", "2 @3 +", "push");
    // A deletion that the mirror has not heard of.
    check("-", "-@9", "-", "1 @3", "push");
    check("-", "-@9", "-", "1 @3 +", "push");
    check("-", "1@3", "-", "1 @3", "push");
    check("-", "-", "1@3", "1 @3", "push");
    // The mirror is ahead.
    check("1", "1@3", "-", "2 @9", "take");
    check("1", "1@3", "-", "2 @3 +", "take");
    check("2", "1@3", "2@3#4", "3 @3 + #5 <2,1", "take");
    check("2", "1@3", "-", "4 @3 + #5 <3,2,1", "take");
    check("2", "1@3", "2@3#4", "9 @3 + #5 <8,7,6,5,4,3,x", "take");
    check("-", "-", "-", "1 @3 +", "take");
    check("-", "-@3", "-", "1 @3 +", "take");
    check("-", "-@3", "-", "1 @9", "take");
    check("1", "1@3", "1@3", "-", "take");
    // It was removed there, and the pair has agreed on something since.
    check("1", "1@9", "1@3", "-", "push");
    check("2", "2@9", "1@3", "-", "push");
    // This machine was about to take it away, and never heard that it was done; and here it is again.
    check("1", "1@3", "1@3#1!", "-", "push");
    check("-", "-", "1@3#1!", "1 @3", "push");
    // The pair agreed on it, and the link ended before this machine heard of that; but it had it.
    check("2", "1@3", "-", "3 @9", "push");
    check("2", "-", "-", "3 @9", "push");
    check("1", "1@3", "-", "3 @9", "take");
    check("2", "1@3", "-", "3 @9 /", "both");
    check("2", "1@3", "-", "3 @9 !4", "both");
    check("-", "-@9", "-", "1 @9", "push");
    check("-", "-@9", "-", "1 @10", "take");
    // Removed there, changed here.
    check("2", "1@3", "1@3", "-", "push");
    // Removed here, changed there.
    check("-", "1@3", "1@3", "2 @3 + #2 <1", "take");
    check("-", "1@3", "1@3", "1 @3 !2", "take");
    // This machine wrote it, and never heard that it was written.
    check("2", "-", "-", "1 @0 + =", "push");
    check("-", "-", "-", "1 @0 + =", "push");
    check("2", "1@3", "-", "3 @3 + = !4", "both");
    // A person moved there what was written for another path.
    check("-", "-@9", "-", "1 @3 /", "take");
    check("1", "1@3", "1@3", "2 @3 /", "take");
    check("-", "-@9", "-", "1 @9 /", "take");
    // Or it lies in a folder that was moved, with what it holds.
    check("-", "-@9", "-", "1 @3 ^9+", "take");
    check("-", "-@9", "-", "1 @3 ^8+", "push");
    check("-", "-@9", "-", "1 @3 ^9", "push");
    // An edit in a folder that the pair has agreed on since, and an agreed file in one that was an edit before.
    check("-", "-@9", "-", "1 @3 + ^9", "take");
    check("-", "-@9", "-", "1 @9 ^3+", "push");
    // Both were changed.
    check("2", "1@3", "-", "3 @3 + <1", "both");
    check("2", "1@3", "2@3#4", "3 @3 + #5 <1", "both");
    check("2", "1@3", "-", "3 @99", "both");
    check("1", "1@3", "-", "2 @3 ~", "both");
    check("1", "-", "-", "? 2", "both");
    // What is there is as it was when both were equal, by content; but it was written again.
    check("2", "2@4", "1@3#1", "1 @7 #2", "take");
    // A person's hand: on what is here, on something older, and on what is gone here.
    check("1", "1@3", "1@3", "1 @3 !2", "take");
    check("1", "1@3", "-", "1 @3 !2", "take");
    check("4", "4@9", "-", "1 @3 !2", "both");
    check("3", "1@3", "3@3", "1 @3 !2", "take");
    check("4", "1@3", "3@3", "1 @3 !2", "both");
    check("1", "1@3", "1@3", "? 2", "take");
    check("-", "-", "-", "? 2", "take");
    check("-", "-@9", "-", "? 2", "take");
}

#[test]
fn going_back_before_the_agreement_was_heard_is_an_edit() {
    let was = |last| {
        let known = Known {
            here: Sight::Is(file("1")),
            base: row("1@3"),
            met: None,
            there: there("2 @9 <1"),
            instead: None,
            last_batch: Gen(last),
            had: Vec::new(),
            crossed: false,
        };
        ancestor(PAIR, &known)
    };
    assert_eq!(was(9), Some(file("2")), "this machine made it so in 9");
    assert_eq!(was(8), Some(file("1")), "it knows nothing of 9");
}

#[test]
fn what_made_way_with_its_folder_was_had() {
    let was = |base: &str, batch| {
        let known = Known {
            here: Sight::Is(file("1")),
            base: row(base),
            met: None,
            there: None,
            instead: Some(AsOf {
                batch: Gen(batch),
                edit: true,
            }),
            last_batch: Gen(9),
            had: Vec::new(),
            crossed: false,
        };
        ancestor(PAIR, &known)
    };
    assert_eq!(was("1@4", 4), Some(file("1")));
    assert_eq!(was("1@5", 4), None, "it came later");
    assert_eq!(was("-@4", 4), None, "it was not agreed on");
}

#[test]
fn a_change_back_on_a_mirror_is_a_change() {
    // Both had 1, then the pair agreed on 2 here; the other node has gone back to 1 since, and said so there.
    check("2", "2@5", "1@3#1", "1 @5 + #9 <2,1", "take");
}

#[test]
fn a_mark_travels_as_properties_within_the_limits() {
    let known = Known {
        here: Sight::Absent,
        base: row("1@5"),
        met: None,
        there: there("2 @4 + <1,0"),
        instead: None,
        last_batch: Gen(6),
        had: Vec::new(),
        crossed: false,
    };
    for name in ["a.md".to_owned(), "ä".repeat(127), "x".repeat(255)] {
        let path = RelPath::parse(&name).expect("a path");
        let mut mark = mark_for(
            &known,
            &file("3"),
            path.name(),
            author(&"n".repeat(64), u64::MAX),
        );
        mark.sum = Some([0xab; 32]);
        mark.past = (0..20).map(|n| VersionId(u64::MAX - n)).collect();
        let properties = mark.properties();
        assert!(properties.len() <= 30);
        for (key, value) in &properties {
            assert!(
                !value.is_empty() && key.len() + value.len() <= PROPERTY_BYTES_MAX,
                "{key}={value}"
            );
        }
        let get = |wanted: &str| {
            let found = properties.iter().find(|(key, _)| key == wanted);
            found.map(|(_, value)| value.clone())
        };
        let read = Mark::parse(get).expect("a mark");
        assert_eq!(read.past, mark.past[..PAST_MAX]);
        assert_eq!(
            Mark {
                past: Vec::new(),
                ..read
            },
            Mark {
                past: Vec::new(),
                ..mark
            }
        );
    }
    let link = Entry::Symlink {
        target: "../x".into(),
    };
    let mark = mark_for(&known, &link, "a", author("vm", 1));
    let properties = mark.properties();
    let get = |wanted: &str| {
        let found = properties.iter().find(|(key, _)| key == wanted);
        found.map(|(_, value)| value.clone())
    };
    assert_eq!(Mark::parse(get), Some(mark));
    let long = Entry::Symlink {
        target: "../x/".repeat(LINK_TOLD_BYTES_MAX / 5).into(),
    };
    let long = mark_for(&known, &long, "a", author("vm", 1)).properties();
    assert!(long.len() <= 30, "{}", long.len());
    assert_eq!(Mark::parse(|_| None), None);
}

#[test]
fn a_mark_says_what_it_was_made_from() {
    let known = Known {
        here: Sight::Absent,
        base: row("1@5"),
        met: None,
        there: there("2 @4 + <1,0"),
        instead: None,
        last_batch: Gen(6),
        had: Vec::new(),
        crossed: false,
    };
    let agreed = mark_for(&known, &file("1"), "a", author("vm", 1));
    assert_eq!((agreed.batch, agreed.edit), (Gen(5), false));
    let edit = mark_for(&known, &file("3"), "a", author("vm", 1));
    assert_eq!((edit.batch, edit.edit), (Gen(6), true), "it knew of all");
    let crossed = Known {
        crossed: true,
        ..known.clone()
    };
    let back = mark_for(&crossed, &file("1"), "a", author("vm", 1));
    assert_eq!((back.batch, back.edit), (Gen(6), true), "back is an edit");
    let unheard = Known {
        there: there("2 @6 <1"),
        ..known.clone()
    };
    let back = mark_for(&unheard, &file("1"), "a", author("vm", 1));
    assert!(back.edit, "back from what was agreed on since");
    let past: Vec<VersionId> = ["2", "1", "0"]
        .map(|text| VersionId::of(&file(text)))
        .into();
    assert_eq!(edit.past, past);
}

#[test]
fn a_folder_is_known_by_its_first_mark() {
    let known = |there| Known {
        here: Sight::Is(Entry::Dir),
        base: None,
        met: None,
        there,
        instead: None,
        last_batch: Gen(6),
        had: Vec::new(),
        crossed: false,
    };
    let first = mark_for(&known(None), &Entry::Dir, "d", author("vm", 7));
    assert_eq!((first.tag, first.place), (7, place_in(0, "d")));
    let there = There {
        entry: Entry::Dir,
        mark: Some(first),
        is_here: true,
        as_of: None,
    };
    let again = mark_for(&known(Some(there)), &Entry::Dir, "d", author("mac", 9));
    assert_eq!((again.tag, again.writing), (7, 9));
    assert_ne!(place_in(7, "x"), place_in(9, "x"));
    assert_ne!(
        place_in(0x7, "1/x"),
        place_in(0x71, "x"),
        "names have no slash"
    );
}

#[test]
fn a_conflict_with_a_mirror_ends_in_a_copy() {
    let rules = ConflictRules::default();
    let decisions = Decisions::default();
    let policy = Policy {
        mode: Mode::TwoWaySafe,
        primary: Side::Alpha,
        naming: Naming {
            alpha: "here".to_owned(),
            beta: "there".to_owned(),
            now: UtcMs(0),
        },
        conflicts: &rules,
        decisions: &decisions,
        folds: [false; 2],
    };
    let known = Known {
        here: Sight::Is(file("2")),
        base: row("1@3"),
        met: None,
        there: there("3 @3 + <1"),
        instead: None,
        last_batch: Gen(3),
        had: Vec::new(),
        crossed: false,
    };
    let mut base = Base::new();
    if let Some(entry) = ancestor(PAIR, &known) {
        let row = BaseRow {
            entry: Some(entry),
            batch: Gen(1),
        };
        base.insert(path(), row);
    }
    let mut trees = Trees::new(base);
    trees.observe(Side::Alpha, path(), known.here.clone());
    trees.observe(Side::Beta, path(), Sight::Is(file("3")));
    let plan = reconcile(&trees, &[path()].into(), &|_| false, &policy);
    assert_eq!(plan.conflicts.len(), 1);
    assert_eq!(plan.conflicts[0].lost, Side::Beta);
}
