//! One suite for every target of a mirror: what a target promises, asked of each, also of a Drive of which a fifth of all requests
//! fails in every documented way.

use std::path::Path;
use std::time::Duration;

use mirror::drive::consent::{Credentials, OauthClient, SCOPE_ALL};
use mirror::drive::{Drive, Where};
use mirror::folder::Folder;
use mirror::patient::{Patience, Patient, read_all};
use mirror::sum::{InMemory, of_slice};
use mirror::target::{At, Change, Item, Kind, Target, Writing, Wrong};
use shared::hash::{ContentHash, PLAIN_BYTES_MAX};
use shared::mirror::Mark;
use shared::tree::{Entry, Gen};

use crate::harness::{DriveApi, oauth, write};

/// What a person does in the place that a target is.
trait Hand {
    fn makes(&self, name: &str, text: &str);
    fn edits(&self, name: &str, text: &str);
    fn renames(&self, name: &str, to: &str);
    fn removes(&self, name: &str);
}

struct OnDisk<'a>(&'a Path);

impl Hand for OnDisk<'_> {
    fn makes(&self, name: &str, text: &str) {
        write(self.0, name, text);
    }

    fn edits(&self, name: &str, text: &str) {
        write(self.0, name, text);
    }

    fn renames(&self, name: &str, to: &str) {
        std::fs::rename(self.0.join(name), self.0.join(to)).unwrap();
    }

    fn removes(&self, name: &str) {
        std::fs::remove_file(self.0.join(name)).unwrap();
    }
}

struct InDrive<'a>(&'a DriveApi);

impl InDrive<'_> {
    fn root(&self) -> String {
        self.0.folder("mirror").unwrap()
    }
}

impl Hand for InDrive<'_> {
    fn makes(&self, name: &str, text: &str) {
        self.0.person_makes(&self.root(), name, text.as_bytes());
    }

    fn edits(&self, name: &str, text: &str) {
        self.0
            .person_edits(&self.0.id(&self.root(), name), text.as_bytes());
    }

    fn renames(&self, name: &str, to: &str) {
        self.0.person_renames(&self.0.id(&self.root(), name), to);
    }

    fn removes(&self, name: &str) {
        self.0.person_trashes(&self.0.id(&self.root(), name), true);
    }
}

fn mark(name: &str, bytes: &[u8], writing: u64) -> Mark {
    let content = match bytes.len() as u64 > PLAIN_BYTES_MAX {
        true => ContentHash::of_chunks(bytes.len() as u64, &[]),
        false => ContentHash::of_bytes(bytes),
    };
    Mark {
        entry: Entry::File {
            content,
            len: bytes.len() as u64,
            exec: writing % 2 == 1,
        },
        sum: Some(of_slice(bytes)),
        pair: 7,
        batch: Gen(writing),
        edit: false,
        node: "vm".to_owned(),
        writing,
        past: Vec::new(),
        name: name.to_owned(),
        place: writing,
        tag: writing,
    }
}

fn folder_mark(name: &str, writing: u64) -> Mark {
    Mark {
        entry: Entry::Dir,
        sum: None,
        ..mark(name, b"", writing)
    }
}

async fn put<T: Target>(
    target: &T,
    (parent, name): (&str, &str),
    over: Option<&Item>,
    bytes: &[u8],
    writing: u64,
) -> Result<Item, Wrong> {
    let mark = mark(name, bytes, writing);
    let bytes = InMemory(bytes.to_vec());
    let writing = Writing {
        at: At { parent, name },
        over,
        mark: &mark,
        mtime_ns: 1_700_000_000_123_000_000,
        bytes: &bytes,
        begun: None,
        note: &|_| {},
    };
    target.write(writing).await
}

async fn bytes_of<T: Target>(target: &T, item: &Item, from: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    read_all(target, item, from, 8, |part| {
        bytes.extend_from_slice(part);
        Ok(())
    })
    .await
    .unwrap();
    bytes
}

/// Hears all changes since a cursor, but for those of the root itself.
async fn heard<T: Target>(target: &T, cursor: &mut Option<String>) -> Vec<Change> {
    let root = target.root().await.unwrap();
    let is_root = |change: &Change| matches!(change, Change::Is(item) if item.id == root);
    let mut changes = Vec::new();
    loop {
        let page = target.changes(cursor.as_deref()).await.unwrap();
        changes.extend(page.changes);
        *cursor = Some(page.cursor);
        if !page.more {
            changes.retain(|change| !is_root(change));
            return changes;
        }
    }
}

/// Returns the latest that was heard of a name.
#[track_caller]
fn of<'a>(changes: &'a [Change], name: &str) -> &'a Item {
    let found = changes.iter().rev().find_map(|change| match change {
        Change::Is(item) if item.name == name => Some(item),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no {name} in {changes:?}"))
}

async fn conforms<T: Target>(target: &T, hand: &dyn Hand) {
    let root = target.root().await.unwrap();
    assert_eq!(target.root().await.unwrap(), root, "it stays the same");
    assert!(!target.about().await.unwrap().name.is_empty());
    let mut cursor = None;
    assert_eq!(heard(target, &mut cursor).await, []);

    // What is written can be read, and is told with its mark, sum and time.
    let long: Vec<u8> = (0..9_000_000u32).map(|n| (n % 251) as u8).collect();
    let small: [(&str, &[u8]); 5] = [
        ("a.md", b"one"),
        ("empty", b""),
        ("it's a \"quote\" \\ & %41", b"two"),
        ("한글 é 🎉", b"three"),
        ("long.bin", &long),
    ];
    target.expect_new(small.len() + 1);
    for (number, (name, bytes)) in small.iter().enumerate() {
        let item = put(target, (&root, name), None, bytes, 10 + number as u64)
            .await
            .unwrap();
        assert_eq!(item.name, *name);
        assert_eq!(item.parent, root);
        assert_eq!(
            item.mark.as_ref(),
            Some(&mark(name, bytes, 10 + number as u64))
        );
        let len = bytes.len() as u64;
        let sum = Some(of_slice(bytes));
        assert_eq!(item.kind, Kind::File { len, sum });
        assert_eq!(item.mtime_ns / 1_000_000, 1_700_000_000_123);
        assert!(bytes_of(target, &item, 0).await == **bytes, "{name}");
        assert_eq!(target.look(&item.id).await.unwrap().as_ref(), Some(&item));
    }
    let folder = target
        .make_folder(
            At {
                parent: &root,
                name: "d",
            },
            &folder_mark("d", 20),
        )
        .await
        .unwrap();
    assert_eq!(folder.kind, Kind::Folder);
    let inside = put(target, (&folder.id, "inside"), None, b"in", 21)
        .await
        .unwrap();
    // What this client wrote need not be told to it; what is told is as it was written.
    for change in heard(target, &mut cursor).await {
        let Change::Is(item) = change else {
            panic!("{change:?}");
        };
        let now = target.look(&item.id).await.unwrap();
        assert_eq!(now, Some(item));
    }
    assert_eq!(
        heard(target, &mut cursor).await,
        [],
        "each change is told once"
    );
    // A listing names all that is there.
    cursor = None;
    let changes = heard(target, &mut cursor).await;
    assert_eq!(changes.len(), 7, "{changes:?}");
    for (name, _) in small {
        of(&changes, name);
    }
    assert_eq!(of(&changes, "inside"), &inside);
    let long_item = of(&changes, "long.bin").clone();
    assert!(bytes_of(target, &long_item, 8_999_990).await == long[8_999_990..]);
    assert!(bytes_of(target, &long_item, 9_000_000).await.is_empty());
    let children = target.children(&folder.id).await.unwrap();
    assert_eq!(children, std::slice::from_ref(&inside));

    // What is replaced is another version.
    let a = of(&changes, "a.md").clone();
    let newer = put(target, (&root, "a.md"), Some(&a), b"newer", 30)
        .await
        .unwrap();
    assert_ne!(newer.version, a.version);
    assert_eq!(bytes_of(target, &newer, 0).await, b"newer");
    let again = put(
        target,
        (&root, "long.bin"),
        Some(&long_item),
        &long[1..],
        31,
    )
    .await
    .unwrap();
    assert!(bytes_of(target, &again, 0).await == long[1..]);
    // Also by nothing.
    let none = put(target, (&root, "a.md"), Some(&newer), b"", 32)
        .await
        .unwrap();
    assert_eq!(bytes_of(target, &none, 0).await, b"");

    // A mark alone leaves the bytes.
    let bit = Mark {
        entry: Entry::File {
            content: ContentHash::of_bytes(b"in"),
            len: 2,
            exec: true,
        },
        ..mark("inside", b"in", 40)
    };
    let marked = target.set_mark(&inside, &bit).await.unwrap();
    assert_eq!(marked.mark, Some(bit));
    assert_eq!(bytes_of(target, &marked, 0).await, b"in");

    // A move keeps the item, and what lies in it.
    let to = At {
        parent: &root,
        name: "e",
    };
    let moved = target
        .relocate(&folder, to, &folder_mark("e", 41))
        .await
        .unwrap();
    assert_eq!(
        (moved.id.as_str(), moved.name.as_str()),
        (folder.id.as_str(), "e")
    );
    assert_eq!(target.children(&moved.id).await.unwrap().len(), 1);
    let to = At {
        parent: &moved.id,
        name: "b.md",
    };
    let b = target
        .relocate(&none, to, &mark("b.md", b"", 42))
        .await
        .unwrap();
    assert_eq!(
        (b.id.as_str(), b.parent.as_str()),
        (none.id.as_str(), moved.id.as_str())
    );
    heard(target, &mut cursor).await;

    // What is taken away is gone, and told to be.
    target.remove(&b).await.unwrap();
    assert_eq!(target.look(&b.id).await.unwrap(), None);
    let changes = heard(target, &mut cursor).await;
    let of_b = |change: &Change| *change == Change::Gone(b.id.clone());
    assert!(changes.iter().all(of_b), "{changes:?}");
    assert!(
        matches!(target.read(&b, 0).await, Err(Wrong::Gone))
            || target.look(&b.id).await.unwrap().is_none()
    );

    // A person's hands.
    hand.makes("by hand", "hello");
    hand.edits("empty", "not any more");
    hand.renames("한글 é 🎉", "other name");
    hand.removes("long.bin");
    let changes = heard(target, &mut cursor).await;
    let made = of(&changes, "by hand");
    assert_eq!(made.mark, None);
    assert_eq!(bytes_of(target, made, 0).await, b"hello");
    let edited = of(&changes, "empty");
    let sum = Some(of_slice(b"not any more"));
    assert_eq!(edited.kind, Kind::File { len: 12, sum });
    let noted = edited.mark.as_ref().expect("what was noted stays");
    assert_ne!(noted.sum, sum, "so that the edit shows");
    let renamed = of(&changes, "other name");
    assert_eq!(
        renamed.mark.as_ref().and_then(|mark| mark.sum),
        Some(of_slice(b"three"))
    );
    assert!(changes.contains(&Change::Gone(again.id.clone())));

    // What has no place is refused; a cursor of nobody means to list anew.
    let nowhere = put(target, ("nobody", "x"), None, b"x", 50).await;
    assert!(matches!(nowhere, Err(Wrong::Gone)), "{nowhere:?}");
    let lost = target.changes(Some("from nowhere")).await;
    assert!(matches!(lost, Err(Wrong::CursorLost)), "{lost:?}");
    target.flush().await.unwrap();
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

fn place(api: &DriveApi) -> Where {
    Where {
        folder: "mirror".to_owned(),
        drive: None,
        api: api.url(),
        budget: 60_000,
        expected: None,
        makes: true,
    }
}

fn consent(api: &DriveApi) -> Credentials {
    Credentials::Person {
        client: OauthClient::new(oauth::CLIENT_ID, oauth::CLIENT_SECRET, &api.url()),
        refresh_token: api.refresh_token(true),
        scope: SCOPE_ALL.to_owned(),
    }
}

async fn drive(api: &DriveApi, seed: u64) -> Patient<Drive> {
    let patience = Patience {
        first: Duration::from_millis(2),
        most: Duration::from_millis(20),
        tries: 12,
    };
    let drive = Drive::new(place(api), consent(api)).await.unwrap();
    Patient::new(drive, patience, seed)
}

#[test]
fn a_folder_is_a_target() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path().to_owned(), "vm", None);
    run(conforms(&folder, &OnDisk(dir.path())));
}

#[test]
fn drive_is_a_target() {
    let api = DriveApi::start();
    run(async { conforms(&drive(&api, 1).await, &InDrive(&api)).await });
}

#[test]
fn drive_is_a_target_also_when_a_fifth_of_all_requests_fails() {
    let (mut all, mut failures) = (0, 0);
    for seed in 1..=8 {
        let api = DriveApi::start();
        api.faults(200, seed);
        let again = run(async {
            let target = drive(&api, seed).await;
            conforms(&target, &InDrive(&api)).await;
            target.again()
        });
        let calls = api.calls();
        let failed = calls
            .iter()
            .filter(|call| !(200..400).contains(&call.answer))
            .count();
        println!(
            "seed {seed}: {} calls, {failed} failed, {again} asked again",
            calls.len()
        );
        all += calls.len();
        failures += failed;
        // A creation that was asked for twice made one file.
        let seen = api.seen(&api.folder("mirror").unwrap());
        let mut names: Vec<&str> = seen.iter().map(|seen| seen.path.as_str()).collect();
        names.dedup();
        assert_eq!(names.len(), seen.len(), "{names:?}");
    }
    assert!(failures * 7 > all, "so few failed: {failures} of {all}");
}

#[test]
fn what_drive_alone_does() {
    let api = DriveApi::start();
    run(async {
        let target = drive(&api, 1).await;
        let root = target.root().await.unwrap();
        let mut cursor = None;
        heard(&target, &mut cursor).await;
        let a = put(&target, (&root, "a.md"), None, b"one", 1)
            .await
            .unwrap();
        // Two of one name are two items, and a person may move one of them.
        let other = put(&target, (&root, "a.md"), None, b"two", 2)
            .await
            .unwrap();
        assert_ne!(a.id, other.id);
        let folder = api.person_makes_kind(&root, "d", "folder");
        api.person_moves(&other.id, &folder);
        let changes = heard(&target, &mut cursor).await;
        assert!(changes.iter().any(|change| {
            matches!(change, Change::Is(item) if item.id == other.id && item.parent == folder)
        }));
        // What is said of a copy can be read by whoever looks for it: its hash, its exec bit, its name, its origin.
        let said = api.properties(&a.id);
        let is =
            |key: &str, value: &str| assert_eq!(said.get(key).map(String::as_str), Some(value));
        is("h", &ContentHash::of_bytes(b"one").to_string());
        is("k", "x");
        is("n0", "a.md");
        is("o", "vm");
        // A document has no bytes.
        api.person_makes_kind(&root, "Plan", "document");
        let changes = heard(&target, &mut cursor).await;
        assert_eq!(
            of(&changes, "Plan").kind,
            Kind::Other("a document of Google".to_owned())
        );
        // What is taken away lies in the trash.
        target.remove(&a).await.unwrap();
        assert_eq!(api.trashed(), 1);
        // A limit is kept to by waiting, and a session that is gone is begun anew.
        api.rate(Some(40));
        let long = vec![5; 9_000_000];
        put(&target, (&root, "long"), None, &long, 3).await.unwrap();
        api.rate(None);
        api.forget_sessions();
        put(&target, (&root, "long 2"), None, &long, 4)
            .await
            .unwrap();
        // The folder is not shared with this account any more.
        api.person_unshares(&root);
        let lost = target.changes(cursor.as_deref()).await;
        assert!(matches!(lost, Err(Wrong::NoRoot(_))), "{lost:?}");
    });
}
