use std::fs;

use super::*;
use crate::tests::{Bench, file, op, path};
use crate::utc_now;
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
        path: path(id),
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
    kept.append(&[line("never happened", 99), line("about to happen", 100)])
        .expect("appended");
    let now = UtcMs(100 * DAY_MS + 1000);
    let stands = |_: &RelPath| true;
    let prune = |now, tree_bytes| kept.prune(now, tree_bytes, 0, &stands).expect("pruned");
    let pruned = prune(now, 0);
    // 60 days is too old; then the oldest go until 25 bytes are left.
    assert_eq!(
        pruned,
        Pruned {
            versions: 4,
            bytes: 40
        }
    );
    assert_eq!(bench.private("kept"), ["d", "e"]);
    let lines = kept.lines().expect("read");
    let ids: Vec<_> = lines.iter().map(|line| line.id.as_str()).collect();
    assert_eq!(ids, ["about to happen", "d", "e"]);
    for id in ["f", "g", "h"] {
        put(id, 100);
    }
    assert_eq!(prune(now, 0), Pruned::default(), "the young stay");
    let later = UtcMs(102 * DAY_MS);
    assert_eq!(prune(later, 1000), Pruned::default(), "10 % of the tree");
    assert_eq!(prune(later, 0).versions, 3);
}

/// Puts a version into the store, with its line.
fn put(bench: &Bench, id: &str, name: &str, at: UtcMs, content: &[u8]) {
    fs::write(bench.at(".layer-sync/kept").join(id), content).expect("written");
    let line = Line {
        id: id.to_owned(),
        at,
        path: path(name),
        what: What::from(&file(content).expect("an entry")),
        why: "replaced".to_owned(),
        node: "here".to_owned(),
        staged: None,
    };
    bench.replica.kept.append(&[line]).expect("appended");
}

#[test]
#[ignore = "a measurement: cargo nextest run -p disk a_long_catalogue --run-ignored only --no-capture"]
fn a_long_catalogue_is_pruned_in_little_time() {
    let bench = Bench::new();
    let now = utc_now();
    for number in 0..100_000_u64 {
        let at = UtcMs(now.0 - (100_000 - number) * 25_000);
        let name = format!("notes/{}/{}.md", number % 100, number % 5_000);
        put(
            &bench,
            &format!("{:011x}{number:05x}", at.0),
            &name,
            at,
            b"x",
        );
    }
    for _ in 0..2 {
        let start = Instant::now();
        let pruned = bench.replica.prune_kept(now).expect("pruned");
        let took = start.elapsed();
        println!("{pruned:?} of 100,000 lines in {took:?}");
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_no_reason_to_hold_what_old_versions_make_room_for() {
    let Some(volume) = crate::tests::SmallVolume::mount("8m") else {
        eprintln!("skipped: this user may not mount a volume");
        return;
    };
    let mut bench = Bench::on(volume.0.path());
    bench.look();
    let hours_ago = |hours: u64| UtcMs(utc_now().0 - hours * 3_600_000);
    // The last hour is never touched, and what was deleted goes last.
    put(&bench, "fresh", "a", hours_ago(0), b"fresh");
    bench.write("stands", "x");
    bench.look();
    put(&bench, "deleted", "gone", hours_ago(12), b"gone");
    for number in 0..3 {
        let content = crate::tests::noise(500_000, number);
        put(
            &bench,
            &format!("old{number}"),
            "stands",
            hours_ago(4 - number),
            &content,
        );
    }
    // Nothing is left on the volume.
    let mut ballast = File::create(bench.at("ballast")).expect("made");
    let mut fill = || while ballast.write_all(&[1; 4096]).is_ok() {};
    fill();
    let small = crate::tests::noise(50_000, 10);
    let batch = bench.batch(vec![
        op("b", None, file(&small)),
        op("c", None, file("tiny")),
    ]);
    let staged = bench.staged(&batch, &[&small, b"tiny"]);
    bench
        .replica
        .apply(&batch, staged, shared::tree::Gen(0))
        .expect("recorded");
    assert_eq!(bench.outcomes(), [Outcome::Done, Outcome::Done]);
    // As many as bring the volume back to its floor, a tenth.
    assert_eq!(bench.private("kept"), ["deleted", "fresh", "old2"]);
    let prune = || bench.replica.prune_kept(utc_now()).expect("pruned");
    assert_eq!(prune(), Pruned::default());
    // By the clock, too.
    fill();
    assert_eq!(prune().versions, 2);
    assert_eq!(bench.private("kept"), ["fresh"]);
    assert_eq!(bench.replica.kept.lines().expect("read").len(), 1);
}
