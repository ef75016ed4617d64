use shared::control::{Change, Health, NodeSide, PlanLine, Problem};
use shared::hash::ContentHash;
use shared::path::RelPath;
use shared::utc::UtcMs;

use super::*;

const AT: UtcMs = UtcMs(1_795_382_045_000);

fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

fn version(name: &str, content: Option<ContentHash>) -> Version {
    Version {
        version: name.to_owned(),
        path: None,
        at: AT,
        len: 5018,
        content,
        why: "replaced".to_owned(),
        node: "vm".to_owned(),
    }
}

#[test]
fn a_plan() {
    let line = |on, change, name, len| PlanLine {
        on,
        change,
        path: path(name),
        len,
    };
    let mut plan = PlanView {
        lines: vec![
            line(NodeSide::Receiver, Change::Create, "notes/plan.md", 5018),
            line(NodeSide::Pusher, Change::Delete, "old", 12),
        ],
        total: 3,
        bytes: 5018,
        held: vec![Problem {
            code: "held.special".to_owned(),
            severity: Health::Held,
            path: Some("run/pipe".to_owned()),
            text: "It is a FIFO.".to_owned(),
            fix: String::new(),
        }],
    };
    let expected = "\
Held     \"run/pipe\": It is a FIFO.
ON        CHANGE     SIZE  PATH
receiver  create  4.9 KiB  notes/plan.md
pusher    delete           old
and 1 more change
3 changes, 4.9 KiB to send
";
    assert_eq!(plan_text(&plan), expected);
    plan = PlanView::default();
    assert_eq!(plan_text(&plan), "nothing to do\n");
}

#[test]
fn a_reason() {
    let mut why = Why {
        path: path("notes/plan.md"),
        state: "in sync".to_owned(),
        reason: "Both sides have what they agreed on.".to_owned(),
        fix: String::new(),
        base: Some("file, 5018 bytes, af1349b9".to_owned()),
        pusher: Some("file, 5018 bytes, af1349b9".to_owned()),
        receiver: None,
        history: Vec::new(),
    };
    let expected = "\
notes/plan.md: in sync
Reason   Both sides have what they agreed on.
Base     file, 5018 bytes, af1349b9
Pusher   file, 5018 bytes, af1349b9
";
    assert_eq!(why_text(&why), expected);
    why.fix = "layer-sync restore notes/plan.md".to_owned();
    why.history = vec![version("7f3a", None)];
    let expected = "\
notes/plan.md: in sync
Reason   Both sides have what they agreed on.
Next     layer-sync restore notes/plan.md
Base     file, 5018 bytes, af1349b9
Pusher   file, 5018 bytes, af1349b9

VERSION  DISPLACED (UTC)         SIZE  CONTENT  NODE  WHY
7f3a     2026-11-22 21:14:05  4.9 KiB  -        vm    replaced
";
    assert_eq!(why_text(&why), expected);
}

#[test]
fn kept_versions() {
    let hash = ContentHash::of_bytes(b"");
    let versions = [version("7f3a", Some(hash)), version("7f3a-2", None)];
    let expected = "\
VERSION  DISPLACED (UTC)         SIZE  CONTENT   NODE  WHY
7f3a     2026-11-22 21:14:05  4.9 KiB  af1349b9  vm    replaced
7f3a-2   2026-11-22 21:14:05  4.9 KiB  -         vm    replaced
";
    assert_eq!(versions_table(&versions), expected);
}

#[test]
fn unresolved_conflicts() {
    let conflict = ConflictView {
        path: path("notes/plan.md"),
        copy: path("notes/plan (conflict mac 2026-11-22 211405 af1349b9).md"),
        held: false,
        lost: "mac".to_owned(),
        since: AT,
        fix: "layer-sync resolve notes/plan.md --keep both".to_owned(),
    };
    let expected = "\
notes/plan.md
  copy   notes/plan (conflict mac 2026-11-22 211405 af1349b9).md
  from   mac, noticed 2026-11-22 21:14:05 UTC
  Next:  layer-sync resolve notes/plan.md --keep both
";
    assert_eq!(conflicts_text(std::slice::from_ref(&conflict)), expected);
    let held = ConflictView {
        held: true,
        ..conflict
    };
    let expected = "\
notes/plan.md
  both versions wait since 2026-11-22 21:14:05 UTC
  Next:  layer-sync resolve notes/plan.md --keep both
";
    assert_eq!(conflicts_text(&[held]), expected);
    assert_eq!(conflicts_text(&[]), "no conflicts\n");
}
