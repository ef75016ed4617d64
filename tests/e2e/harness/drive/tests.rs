//! The server itself: what its errors and pages look like is what the real one documents.

use super::json::only;
use super::*;
use serde_json::json;

#[test]
fn fields_choose() {
    let value = json!({ "a": 1, "b": [{ "c": 2, "d": { "e": 3, "f": 4 } }], "g": 5 });
    assert_eq!(only(&value, "a"), json!({ "a": 1 }));
    assert_eq!(only(&value, "b(c),g"), json!({ "b": [{ "c": 2 }], "g": 5 }));
    assert_eq!(
        only(&value, "b(d(f))"),
        json!({ "b": [{ "d": { "f": 4 } }] })
    );
    assert_eq!(only(&value, "b/d/e"), json!({ "b": [{ "d": { "e": 3 } }] }));
    assert_eq!(only(&value, "*"), value);
}

#[test]
fn what_lies_in_a_folder_goes_to_the_trash_with_it() {
    let api = DriveApi::start();
    let folder = api.person_makes_kind(MY_DRIVE, "d", "folder");
    let inside = api.person_makes(&folder, "x", b"1");
    api.person_trashes(&folder, true);
    assert_eq!(api.seen(MY_DRIVE), []);
    let state = api.server.lock();
    assert!(state.is_trashed(&inside));
    assert_eq!(state.changes.values().next_back(), Some(&folder));
    let of_inside = state.changes.values().filter(|id| **id == inside).count();
    assert_eq!(of_inside, 1, "its own change is the older one");
}

#[test]
fn bytes_are_found_also_across_two_pieces() {
    let api = DriveApi::start();
    let keep = |text: &'static str| {
        let mut state = api.server.lock();
        state.kept.push(Bytes::from_static(text.as_bytes()));
    };
    keep("some SEC");
    keep("RET text");
    assert!(api.saw("SECRET"));
    assert!(!api.saw("PUBLIC"));
}
