//! `Trees` against a plain model: three maps in full, and everything recomputed from them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 10] = [
    "a", "a/b", "a/b/c", "a/b-c", "a-b", "a.md", "a0", "b", "b/a", "c",
];
const SIDES: [Side; 2] = [Side::Alpha, Side::Beta];

fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

fn file(text: &str) -> Entry {
    Entry::File {
        content: ContentHash::of_bytes(text.as_bytes()),
        len: text.len() as u64,
        exec: false,
    }
}

fn row(entry: Option<Entry>, batch: u64) -> BaseRow {
    BaseRow {
        entry,
        batch: Gen(batch),
    }
}

fn base(rows: &[(&str, Option<Entry>)]) -> Base {
    rows.iter()
        .map(|(name, entry)| (path(name), row(entry.clone(), 1)))
        .collect()
}

fn apart(trees: &Trees, side: Side) -> Vec<String> {
    let show = |(path, sight): (&RelPath, &Sight)| match sight {
        Sight::Absent => format!("{path} -"),
        Sight::Is(Entry::Dir) => format!("{path}/"),
        Sight::Is(Entry::File { len, .. }) => format!("{path}:{len}"),
        Sight::Is(Entry::Symlink { target }) => format!("{path}>{target}"),
        Sight::Blocked(obstacle) => format!("{path} {obstacle:?}"),
    };
    trees.view(side).apart().iter().map(show).collect()
}

fn hash_of(entries: &[(&str, Entry)]) -> SetHash {
    let mut hash = SetHash::default();
    entries
        .iter()
        .for_each(|(name, entry)| hash.add(&path(name), entry));
    hash
}

#[test]
fn both_sides_begin_as_the_base() {
    let trees = Trees::new(base(&[
        ("a", Some(Entry::Dir)),
        ("a/b", Some(file("xyz"))),
        ("c", None),
    ]));
    for side in SIDES {
        let view = trees.view(side);
        assert!(view.apart().is_empty());
        assert_eq!((view.files(), view.bytes()), (1, 3));
        assert_eq!(
            view.hash(),
            hash_of(&[("a", Entry::Dir), ("a/b", file("xyz"))])
        );
        assert_eq!(trees.sight(side, &path("a/b")), Sight::Is(file("xyz")));
        assert_eq!(trees.sight(side, &path("c")), Sight::Absent);
        assert_eq!(trees.sight(side, &path("never")), Sight::Absent);
    }
    assert_eq!(trees.agreed(&path("a")), Some(&Entry::Dir));
    assert_eq!(
        trees.agreed(&path("c")),
        None,
        "a tombstone is agreement on nothing"
    );
}

#[test]
fn a_sight_is_kept_only_while_it_is_apart_from_the_base() {
    let mut trees = Trees::new(base(&[("a", Some(file("1")))]));
    let mut see = |side, name, sight: Sight, alpha: &[&str], beta: &[&str]| {
        trees.observe(side, path(name), sight);
        assert_eq!(apart(&trees, Side::Alpha), alpha);
        assert_eq!(apart(&trees, Side::Beta), beta);
    };
    see(Side::Alpha, "a", Sight::Is(file("1")), &[], &[]);
    see(Side::Alpha, "a", Sight::Is(file("22")), &["a:2"], &[]);
    see(Side::Beta, "a", Sight::Absent, &["a:2"], &["a -"]);
    see(Side::Beta, "b", Sight::Absent, &["a:2"], &["a -"]);
    see(
        Side::Beta,
        "a",
        Sight::Blocked(Obstacle::Unreadable),
        &["a:2"],
        &["a Unreadable"],
    );
    see(Side::Beta, "a", Sight::Is(file("1")), &["a:2"], &[]);
    see(Side::Alpha, "a", Sight::Is(file("1")), &[], &[]);
    see(
        Side::Alpha,
        "l",
        Sight::Is(Entry::Symlink { target: "a".into() }),
        &["l>a"],
        &[],
    );
}

#[test]
fn agreement_moves_the_base_and_no_side() {
    let mut trees = Trees::new(base(&[("a", Some(file("1")))]));
    trees.observe(Side::Alpha, path("a"), Sight::Is(file("22")));
    let before = SIDES.map(|side| (trees.view(side).hash(), trees.sight(side, &path("a"))));

    trees.agree(path("a"), row(Some(file("22")), 2));
    assert_eq!(apart(&trees, Side::Alpha), [""; 0]);
    assert_eq!(
        apart(&trees, Side::Beta),
        ["a:1"],
        "beta still has the old one, and that is apart now"
    );
    assert_eq!(
        SIDES.map(|side| (trees.view(side).hash(), trees.sight(side, &path("a")))),
        before
    );
    assert_eq!(trees.base()[&path("a")].batch, Gen(2));

    trees.agree(path("a"), row(None, 3));
    assert_eq!(apart(&trees, Side::Alpha), ["a:2"]);
    assert_eq!(apart(&trees, Side::Beta), ["a:1"]);
    assert_eq!(
        SIDES.map(|side| (trees.view(side).hash(), trees.sight(side, &path("a")))),
        before
    );
}

#[test]
fn a_tombstone_is_forgotten_and_a_row_is_not() {
    let mut trees = Trees::new(base(&[("a", Some(file("1"))), ("b", None)]));
    trees.agree(path("c"), row(None, 5));
    trees.agree(path("again"), row(None, 2));
    trees.agree(path("again"), row(Some(file("1")), 3));
    trees.agree(path("later"), row(None, 1));
    trees.agree(path("later"), row(None, 6));
    trees.observe(Side::Beta, path("b"), Sight::Is(file("new")));
    let mut forget = |resolved, left: &[&str]| {
        trees.forget_tombstones(Gen(resolved));
        let names: Vec<&str> = trees.base().keys().map(RelPath::as_str).collect();
        assert_eq!(names, left, "up to {resolved}");
    };
    forget(0, &["a", "again", "b", "c", "later"]);
    forget(1, &["a", "again", "c", "later"]);
    forget(4, &["a", "again", "c", "later"]);
    forget(5, &["a", "again", "later"]);
    forget(u64::MAX, &["a", "again"]);
    assert_eq!(apart(&trees, Side::Beta), ["again -", "b:3"]);
}

#[test]
fn without_a_base_everything_is_apart_and_nothing_was_deleted() {
    let mut trees = Trees::new(base(&[
        ("a", Some(file("1"))),
        ("b", Some(file("22"))),
        ("c", None),
    ]));
    trees.observe(Side::Alpha, path("b"), Sight::Absent);
    trees.observe(Side::Beta, path("b"), Sight::Is(file("333")));
    trees.observe(Side::Beta, path("x"), Sight::Blocked(Obstacle::Special));
    let before = SIDES.map(|side| trees.view(side).hash());
    trees.forget_base();
    assert!(trees.base().is_empty());
    assert_eq!(
        apart(&trees, Side::Alpha),
        ["a:1"],
        "what alpha deleted is merely absent"
    );
    assert_eq!(apart(&trees, Side::Beta), ["a:1", "b:3", "x Special"]);
    assert_eq!(SIDES.map(|side| trees.view(side).hash()), before);
}

#[test]
fn below_is_what_lies_inside_and_nothing_that_only_begins_alike() {
    let map: BTreeMap<RelPath, ()> = NAMES.map(|name| (path(name), ())).into();
    let check = |top: &str, expected: &[&str]| {
        let top = path(top);
        let found: Vec<&str> = below(&map, &top).map(|(path, ())| path.as_str()).collect();
        assert_eq!(found, expected, "below {top}");
    };
    check("a", &["a/b", "a/b/c", "a/b-c"]);
    check("a/b", &["a/b/c"]);
    check("a/b/c", &[]);
    check("b", &["b/a"]);
    check("0", &[]);
    check("zz", &[]);
}

#[test]
fn entries_below_are_those_of_the_side() {
    let mut trees = Trees::new(base(&[
        ("a", Some(Entry::Dir)),
        ("a/b", Some(file("1"))),
        ("a/c", Some(file("1"))),
        ("a/d", Some(file("1"))),
        ("a-b", Some(file("1"))),
    ]));
    trees.observe(Side::Beta, path("a/b"), Sight::Absent);
    trees.observe(Side::Beta, path("a/c"), Sight::Blocked(Obstacle::Unstable));
    trees.observe(Side::Beta, path("a/d"), Sight::Is(file("22")));
    trees.observe(Side::Beta, path("a/e"), Sight::Is(file("333")));
    let names = |side| -> Vec<(String, u64)> {
        let entries = trees.entries_below(side, &path("a"));
        entries
            .into_iter()
            .map(|(path, entry)| (path.to_string(), entry.len()))
            .collect()
    };
    assert_eq!(
        names(Side::Alpha),
        [("a/b".into(), 1), ("a/c".into(), 1), ("a/d".into(), 1)]
    );
    assert_eq!(names(Side::Beta), [("a/d".into(), 2), ("a/e".into(), 3)]);
}

/// One call of `Trees`.
#[derive(Debug, Clone)]
enum Call {
    Observe(Side, RelPath, Sight),
    Agree(RelPath, BaseRow),
    ForgetTombstones(Gen),
    ForgetSide(Side),
    ForgetBase,
}

/// The three trees in full.
#[derive(Default)]
struct Model {
    base: Base,
    sides: BTreeMap<Side, BTreeMap<RelPath, Sight>>,
}

impl Model {
    fn sight(&self, side: Side, path: &RelPath) -> Sight {
        let seen = self.sides.get(&side).and_then(|seen| seen.get(path));
        seen.cloned().unwrap_or(Sight::Absent)
    }

    fn call(&mut self, call: &Call) {
        match call {
            Call::Observe(side, path, sight) => {
                let seen = self.sides.entry(*side).or_default();
                seen.insert(path.clone(), sight.clone());
            }
            Call::Agree(path, row) => drop(self.base.insert(path.clone(), row.clone())),
            Call::ForgetTombstones(resolved) => {
                self.base
                    .retain(|_, row| row.entry.is_some() || row.batch > *resolved);
            }
            Call::ForgetSide(side) => {
                let rows = self.base.iter();
                let as_base = rows.map(|(path, row)| (path.clone(), row.entry.clone().into()));
                self.sides.insert(*side, as_base.collect());
            }
            Call::ForgetBase => self.base.clear(),
        }
    }

    fn entries(&self, side: Side) -> BTreeMap<RelPath, Entry> {
        let seen = self.sides.get(&side).into_iter().flatten();
        seen.filter_map(|(path, sight)| Some((path.clone(), sight.entry()?.clone())))
            .collect()
    }

    fn check(&self, trees: &Trees) -> Result<(), TestCaseError> {
        prop_assert_eq!(trees.base(), &self.base);
        for side in SIDES {
            let (view, entries) = (trees.view(side), self.entries(side));
            let mut hash = SetHash::default();
            entries
                .iter()
                .for_each(|(path, entry)| hash.add(path, entry));
            prop_assert_eq!(view.hash(), hash);
            let files = entries
                .values()
                .filter(|entry| matches!(entry, Entry::File { .. }));
            prop_assert_eq!(view.files(), files.count() as u64);
            prop_assert_eq!(view.bytes(), entries.values().map(Entry::len).sum::<u64>());
            let mut differ = BTreeSet::new();
            for path in NAMES.map(path) {
                let sight = self.sight(side, &path);
                prop_assert_eq!(trees.sight(side, &path), sight.clone(), "{}", &path);
                let agreed = self.base.get(&path).and_then(|row| row.entry.clone());
                prop_assert_eq!(trees.agreed(&path), agreed.as_ref());
                if sight != agreed.into() {
                    differ.insert(path.clone());
                }
                let inside = entries.clone().into_iter();
                let inside: Vec<_> = inside.filter(|(inner, _)| inner.is_below(&path)).collect();
                prop_assert_eq!(trees.entries_below(side, &path), inside, "below {}", &path);
            }
            let apart: BTreeSet<_> = view.apart().keys().cloned().collect();
            prop_assert_eq!(
                apart,
                differ,
                "apart is where the side differs, and nowhere else"
            );
        }
        Ok(())
    }
}

fn name() -> impl Strategy<Value = RelPath> {
    prop::sample::select(NAMES.to_vec()).prop_map(path)
}

fn entry() -> impl Strategy<Value = Entry> {
    let some_file = |(text, exec): (String, bool)| Entry::File {
        content: ContentHash::of_bytes(text.as_bytes()),
        len: text.len() as u64,
        exec,
    };
    prop_oneof![
        3 => ("[xyz]{0,3}", any::<bool>()).prop_map(some_file),
        1 => Just(Entry::Dir),
        1 => "[ab]".prop_map(|target| Entry::Symlink { target: target.into() }),
    ]
}

fn some_row() -> impl Strategy<Value = BaseRow> {
    (prop::option::of(entry()), 1u64..6).prop_map(|(entry, batch)| row(entry, batch))
}

fn sight() -> impl Strategy<Value = Sight> {
    let obstacle = prop::sample::select(vec![Obstacle::Unreadable, Obstacle::Ignored]);
    prop_oneof![
        4 => entry().prop_map(Sight::Is),
        2 => Just(Sight::Absent),
        1 => obstacle.prop_map(Sight::Blocked),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let side = || prop::sample::select(SIDES.to_vec());
    let observe = (side(), name(), sight());
    prop_oneof![
        8 => observe.prop_map(|(side, path, sight)| Call::Observe(side, path, sight)),
        5 => (name(), some_row()).prop_map(|(path, row)| Call::Agree(path, row)),
        2 => (0u64..6).prop_map(|resolved| Call::ForgetTombstones(Gen(resolved))),
        1 => side().prop_map(Call::ForgetSide),
        1 => Just(Call::ForgetBase),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// In whatever order it is called: what the sides saw, the hashes and the counts are those of the
    /// three trees in full, and a side's differences are exactly where it differs.
    #[test]
    fn trees_are_three_maps(
        base in prop::collection::btree_map(name(), some_row(), 0..8),
        calls in prop::collection::vec(call(), 0..24),
    ) {
        let mut model = Model { base: base.clone(), ..Model::default() };
        SIDES.iter().for_each(|side| model.call(&Call::ForgetSide(*side)));
        let mut trees = Trees::new(base);
        model.check(&trees)?;
        for call in calls {
            model.call(&call);
            match call {
                Call::Observe(side, path, sight) => trees.observe(side, path, sight),
                Call::Agree(path, row) => trees.agree(path, row),
                Call::ForgetTombstones(resolved) => trees.forget_tombstones(resolved),
                Call::ForgetSide(side) => trees.forget_side(side),
                Call::ForgetBase => trees.forget_base(),
            }
            model.check(&trees)?;
        }
    }

    /// Two sides that saw the same have the same hash, in whatever order they saw it.
    #[test]
    fn equal_trees_have_equal_hashes(seen in prop::collection::vec((name(), sight()), 0..20)) {
        let mut trees = Trees::default();
        let last: BTreeMap<_, _> = seen.iter().cloned().collect();
        for (path, sight) in seen {
            trees.observe(Side::Alpha, path, sight);
        }
        for (path, sight) in last.into_iter().rev() {
            trees.observe(Side::Beta, path, sight);
        }
        let (alpha, beta) = (trees.view(Side::Alpha), trees.view(Side::Beta));
        prop_assert_eq!(alpha.hash(), beta.hash());
        prop_assert_eq!(alpha.apart(), beta.apart());
    }

    #[test]
    fn what_was_seen_last_is_seen_again(
        base in prop::collection::btree_map(name(), some_row(), 0..10),
        seen in prop::collection::btree_map(name(), entry(), 0..10),
        side in prop::sample::select(&SIDES[..]),
    ) {
        let mut observed = Trees::new(base.clone());
        for path in base.keys().chain(seen.keys()) {
            let sight = Sight::from(seen.get(path).cloned());
            observed.observe(side, path.clone(), sight);
        }
        let resumed = Trees::resume(base, side, seen.into_iter().collect());
        for side in SIDES {
            prop_assert_eq!(apart(&resumed, side), apart(&observed, side));
            prop_assert_eq!(resumed.view(side).hash(), observed.view(side).hash());
        }
    }
}

#[test]
fn packing_changes_nothing() {
    let name = |n: usize| path(&format!("f{:06}", n * 7919 % PACK_MIN));
    let mut trees = Trees::default();
    for n in 0..PACK_MIN {
        let row = BaseRow {
            entry: Some(Entry::Dir),
            batch: Gen(1),
        };
        trees.agree(name(n), row);
    }
    trees.observe(Side::Beta, name(3), Sight::Absent);
    let before = trees.clone();
    trees.pack();
    assert_eq!(trees.unpacked, 0);
    assert_eq!(trees.base(), before.base());
    assert_eq!(trees.sight(Side::Beta, &name(3)), Sight::Absent);
    assert_eq!(
        trees.view(Side::Alpha).hash(),
        before.view(Side::Alpha).hash()
    );
}
