use std::fs;

use super::*;
use crate::tests::{Bench, file, op, path};
use shared::transfer::Outcome;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[test]
fn a_torn_line_is_none_and_spoils_no_other() {
    let mut bench = Bench::new();
    bench.write("a", "1");
    bench.look();
    assert_eq!(
        bench.apply(vec![op("a", file("1"), file("2"))], &[b"2"]),
        [Outcome::Done]
    );
    let catalogue = bench.at(".layer-sync/kept/catalogue.jsonl");
    let mut text = fs::read(&catalogue).expect("there");
    text.extend_from_slice(b"{\"id\":\"torn");
    fs::write(&catalogue, text).expect("written");
    let mut bench = bench.reopen();
    assert_eq!(
        bench.apply(vec![op("a", file("2"), None)], &[]),
        [Outcome::Done]
    );
    let versions = bench.replica.versions(&path("a")).expect("listed");
    let shown: Vec<_> = versions
        .iter()
        .map(|v| (v.why.as_str(), v.len, v.node.as_str()))
        .collect();
    assert_eq!(shown, [("deleted", 1, "here"), ("replaced", 1, "here")]);
    assert_eq!(versions[1].content, Some(ContentHash::of_bytes(b"1")));
}

#[test]
fn pruning_takes_the_oldest_and_never_the_young() {
    let bench = Bench::new();
    let limits = KeptLimits {
        bytes_min: 25,
        ..KeptLimits::default()
    };
    let kept = Kept::open(&bench.replica.root, "here", limits).expect("opened");
    let line = |id: &str, days: u64| Line {
        id: id.to_owned(),
        at: UtcMs(days * DAY_MS),
        path: path("p"),
        what: What::File {
            content: String::new(),
            len: 10,
            exec: false,
        },
        why: "replaced".to_owned(),
        node: "here".to_owned(),
        staged: None,
    };
    let put = |id: &str, days| {
        fs::write(bench.at(".layer-sync/kept").join(id), "0123456789").expect("written");
        kept.append(&[line(id, days)]).expect("appended");
    };
    for (id, days) in [
        ("old", 60),
        ("a", 80),
        ("b", 90),
        ("c", 95),
        ("d", 100),
        ("e", 100),
    ] {
        put(id, days);
    }
    kept.append(&[line("never happened", 100)])
        .expect("appended");
    let now = UtcMs(100 * DAY_MS + 1000);
    let pruned = kept.prune(now, 0).expect("pruned");
    // 60 days is too old; then the oldest go until 25 bytes are left.
    assert_eq!(
        pruned,
        Pruned {
            versions: 4,
            bytes: 40
        }
    );
    assert_eq!(bench.private("kept"), ["d", "e"]);
    assert_eq!(kept.lines().expect("read").len(), 2);
    for id in ["f", "g", "h"] {
        put(id, 100);
    }
    assert_eq!(
        kept.prune(now, 0).expect("pruned"),
        Pruned::default(),
        "the young stay"
    );
    let later = UtcMs(102 * DAY_MS);
    assert_eq!(
        kept.prune(later, 1000).expect("pruned"),
        Pruned::default(),
        "10 % of the tree"
    );
    assert_eq!(kept.prune(later, 0).expect("pruned").versions, 3);
}
