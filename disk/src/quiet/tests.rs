use proptest::prelude::*;

use super::*;

fn path(name: &str) -> RelPath {
    RelPath::parse(name).expect("a path")
}

/// Runs a script: `12 a` is a hint at 12 ms, `12 a!` one with close, `12 ?` asks what is ready.
fn run(debounce: Option<u64>, script: &str) -> String {
    let start = Instant::now();
    let mut quiet = Quiet::new(debounce.map(Duration::from_millis));
    let mut answers = Vec::new();
    for line in script.split(", ") {
        let (at, what) = line.split_once(' ').expect("a time and a word");
        let now = start + Duration::from_millis(at.parse().expect("a time"));
        match what.strip_suffix('!') {
            _ if what == "?" => {
                let ready: Vec<String> = quiet.ready(now).iter().map(ToString::to_string).collect();
                answers.push(if ready.is_empty() {
                    "-".to_owned()
                } else {
                    ready.join(" ")
                });
            }
            Some(closed) => quiet.hint(path(closed), true, now),
            None => quiet.hint(path(what), false, now),
        }
    }
    answers.join(", ")
}

#[test]
fn when_a_path_is_due() {
    let check = |script, expected: &str| assert_eq!(run(None, script), expected, "{script}");
    check("0 a, 49 ?, 50 ?, 51 ?", "-, a, -");
    check("0 a, 40 a, 60 ?, 90 ?", "-, a");
    check("0 a!, 0 ?", "a");
    check("0 a, 10 a!, 10 ?", "a");
    check("0 a!, 10 a, 20 ?, 60 ?", "-, a");
    check("0 b, 10 a, 55 ?, 60 ?", "b, a");
    check("0 b, 0 a, 50 ?", "a b");
    let restless: String = (1..60).map(|i| format!("{} a, ", i * 40)).collect();
    check(&format!("0 a, {restless}1999 ?, 2000 ?"), "-, a");
}

#[test]
fn debounce_makes_batches() {
    let check =
        |script, expected: &str| assert_eq!(run(Some(30_000), script), expected, "{script}");
    check("0 a!, 0 ?, 29999 ?, 30000 ?", "-, -, a");
    check("0 a, 20000 a, 30000 ?", "a");
}

#[test]
fn too_many_paths_are_a_sweep() {
    let now = Instant::now();
    let mut quiet = Quiet::new(None);
    for number in 0..WAITING_MAX {
        quiet.hint(path(&format!("f{number}")), false, now);
    }
    assert!(!quiet.overflowed());
    quiet.hint(path("f1"), false, now);
    assert!(
        !quiet.overflowed(),
        "a path that waits already takes no room"
    );
    quiet.hint(path("one more"), false, now);
    assert!(quiet.overflowed());
    assert!(!quiet.overflowed(), "it is said once");
    assert!(quiet.is_empty() && quiet.next().is_none());
}

proptest! {
    /// Whatever hints come, each path is handed out, once, and never later than promised.
    #[test]
    fn nothing_is_forgotten(
        hints in prop::collection::vec((0_u64..5000, 0..5_usize, any::<bool>()), 1..100),
    ) {
        let start = Instant::now();
        let mut hints = hints;
        hints.sort();
        let mut quiet = Quiet::new(None);
        let mut first: HashMap<RelPath, Instant> = HashMap::new();
        for (at, name, closed) in hints {
            let now = start + Duration::from_millis(at);
            while let Some(due) = quiet.next().filter(|due| *due <= now) {
                for path in quiet.ready(due) {
                    let since = first.remove(&path).expect("it was hinted at");
                    prop_assert!(due <= since + LATEST);
                }
            }
            let path = path(&format!("f{name}"));
            first.entry(path.clone()).or_insert(now);
            quiet.hint(path, closed, now);
        }
        let rest = quiet.ready(start + Duration::from_secs(60));
        prop_assert_eq!(rest.len(), first.len());
        prop_assert!(quiet.is_empty());
    }
}
