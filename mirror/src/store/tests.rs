use shared::hash::ContentHash;
use shared::mirror::Met;

use super::*;

fn store() -> Store {
    let store = Store::in_memory("me").expect("a store");
    store.set_root("root").expect("noted");
    store
}

fn item(id: &str, parent: &str, name: &str, kind: Kind) -> Item {
    Item {
        id: id.to_owned(),
        parent: parent.to_owned(),
        name: name.to_owned(),
        kind,
        mark: None,
        version: "1".to_owned(),
        mtime_ns: 0,
    }
}

fn file(sum: u8) -> Kind {
    Kind::File {
        len: 1,
        sum: Some([sum; 32]),
    }
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text).expect("a path")
}

fn entry(text: &str) -> Entry {
    Entry::File {
        content: ContentHash::of_bytes(text.as_bytes()),
        len: text.len() as u64,
        exec: true,
    }
}

#[test]
fn items_have_places() {
    let store = store();
    store
        .put(&item("a", "root", "notes", Kind::Folder), 0)
        .expect("noted");
    store
        .put(&item("b", "a", "x.md", file(1)), 0)
        .expect("noted");
    let b = store.item("b").expect("read").expect("it is there");
    assert_eq!(
        store.place(&b).expect("read"),
        Place::Path(path("notes/x.md"))
    );
    assert_eq!(store.at(&path("notes/x.md")).expect("read").item, Some(b));
    assert_eq!(
        store.at(&path("notes/y.md")).expect("read"),
        AtPath::default()
    );
    let elsewhere = item("c", "nobody", "c", file(1));
    assert_eq!(store.place(&elsewhere).expect("read"), Place::Elsewhere);
    for name in ["a/b", "..", "", "x\0y"] {
        let odd = item("d", "a", name, file(1));
        assert!(
            matches!(store.place(&odd).expect("read"), Place::NoPath(_)),
            "{name:?}"
        );
    }
    assert_eq!(
        store.below(&path("notes")).expect("read"),
        BTreeSet::from([path("notes/x.md")])
    );
    store.take_out("a").expect("noted");
    assert_eq!(store.item("b").expect("read"), None);
}

#[test]
fn folders_of_one_name_count_as_one_and_files_do_not() {
    let store = store();
    for id in ["f2", "f1"] {
        store
            .put(&item(id, "root", "notes", Kind::Folder), 0)
            .expect("noted");
    }
    store.put(&item("x", "f2", "x", file(1)), 0).expect("noted");
    store.put(&item("y", "f1", "y", file(1)), 0).expect("noted");
    let notes = store.at(&path("notes")).expect("read");
    assert_eq!(notes.folders, ["f1", "f2"]);
    assert!(notes.others.is_empty());
    assert!(store.at(&path("notes/x")).expect("read").item.is_some());
    assert!(store.at(&path("notes/y")).expect("read").item.is_some());
    for id in ["z2", "z1"] {
        store
            .put(&item(id, "root", "z", file(1)), 0)
            .expect("noted");
    }
    let twins = store.at(&path("z")).expect("read");
    assert_eq!(twins.item.map(|item| item.id).as_deref(), Some("z1"));
    assert_eq!(twins.others.len(), 1);
}

#[test]
fn what_bytes_were_found_to_be_is_forgotten_with_the_bytes() {
    let store = store();
    store
        .put(&item("a", "root", "a", file(1)), 0)
        .expect("noted");
    store.set_entry("a", &entry("x")).expect("noted");
    store
        .put(&item("a", "root", "renamed", file(1)), 0)
        .expect("noted");
    assert_eq!(store.entry("a").expect("read"), Some(entry("x")));
    store
        .put(&item("a", "root", "renamed", file(2)), 0)
        .expect("noted");
    assert_eq!(store.entry("a").expect("read"), None);
}

#[test]
fn what_was_met_survives_and_another_root_begins_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let file_ = dir.path().join("m.sqlite");
    let met = MetItem {
        met: Met {
            entry: entry("x"),
            batch: Gen(u64::MAX / 2),
            writing: u64::MAX,
            going: false,
        },
        id: "a".to_owned(),
        version: "7".to_owned(),
    };
    {
        let store = Store::open(&file_, "me").expect("a store");
        store.set_root("root").expect("noted");
        store.set_met(&path("d/a"), &met).expect("noted");
        store.set_gone(&path("old"), Gen(9)).expect("noted");
        store.set_gone(&path("old"), Gen(3)).expect("noted");
    }
    let store = Store::open(&file_, "me").expect("a store");
    store.set_root("root").expect("noted");
    assert_eq!(store.met(&path("d/a")).expect("read"), Some(met));
    store.set_going(&path("d/a")).expect("noted");
    let going = store.met(&path("d/a")).expect("read");
    assert!(going.is_some_and(|met| met.met.going));
    assert_eq!(store.met_count().expect("read"), 1);
    assert_eq!(store.gone(&path("old")).expect("read"), Some(Gen(9)));
    assert_eq!(
        store.below(&path("d")).expect("read"),
        BTreeSet::from([path("d/a")])
    );
    store.set_root("another").expect("noted");
    assert_eq!(store.met(&path("d/a")).expect("read"), None);
    drop(store);
    let store = Store::open(&file_, "somebody else").expect("a store");
    assert_eq!(store.gone(&path("old")).expect("read"), None);
}

#[test]
fn a_listing_says_what_is_not_there() {
    let store = store();
    store
        .put(&item("a", "root", "a", file(1)), 1)
        .expect("noted");
    store
        .put(&item("b", "root", "b", file(1)), 1)
        .expect("noted");
    store
        .put(&item("a", "root", "a", file(1)), 2)
        .expect("noted");
    assert_eq!(store.not_in_listing(2).expect("read"), ["b"]);
}
