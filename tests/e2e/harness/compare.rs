//! Are two trees equal? Asked of programs that are not ours.

use std::collections::BTreeMap;
use std::path::Path;

use super::run;

/// What a line of [`listing`] says: path, type, `x` for a file that its owner may run, link target.
const SHAPES: [&str; 2] = ["%P %y x %l\\0", "%P %y - %l\\0"];

/// Lists a tree that is at rest with `find`, one line an entry.
#[track_caller]
pub(crate) fn listing(root: &Path) -> Vec<String> {
    try_listing(root).unwrap_or_else(|error| panic!("{}: {error}", root.display()))
}

/// Lists a tree; what vanishes under `find`, which it complains about, is no listing.
fn try_listing(root: &Path) -> Result<Vec<String>, String> {
    let [runs, plain] = SHAPES;
    let root = root.to_str().unwrap();
    let without_private = [
        root,
        "-path",
        &format!("{root}/.layer-sync"),
        "-prune",
        "-o",
    ]
    .map(str::to_owned);
    let shown = [
        "(", "-type", "f", "-perm", "-u+x", "-printf", runs, "-o", "-printf", plain, ")",
    ]
    .map(str::to_owned);
    let found = run("find", without_private.iter().chain(&shown));
    if found.code != 0 {
        return Err(found.stderr);
    }
    let mut lines: Vec<_> = found.stdout.split('\0').map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

/// Returns all that a tree holds: its listing and the content of each file.
#[track_caller]
pub(crate) fn snapshot(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let line = |line: String| {
        let path = line.rsplitn(4, ' ').nth(3).unwrap_or_default().to_owned();
        let content = std::fs::read(root.join(path)).unwrap_or_default();
        (line, content)
    };
    listing(root).into_iter().map(line).collect()
}

/// Says how two trees differ, or nothing. A tree that changes meanwhile differs.
pub(crate) fn difference(a: &Path, b: &Path) -> Option<String> {
    let (a_lines, b_lines) = match (try_listing(a), try_listing(b)) {
        (Ok(a_lines), Ok(b_lines)) => (a_lines, b_lines),
        (Err(error), _) | (_, Err(error)) => return Some(error),
    };
    let only = |these: &[String], those: &[String]| {
        these
            .iter()
            .filter(|line| !those.contains(line))
            .cloned()
            .collect()
    };
    if a_lines != b_lines {
        let (first, second): (Vec<_>, Vec<_>) =
            (only(&a_lines, &b_lines), only(&b_lines, &a_lines));
        return Some(format!(
            "only in {}: {first:#?}\nonly in {}: {second:#?}",
            a.display(),
            b.display()
        ));
    }
    let [a, b] = [a, b].map(|root| root.to_str().unwrap());
    let diff = run(
        "diff",
        ["-r", "-q", "--no-dereference", "-x", ".layer-sync", a, b],
    );
    (diff.code != 0).then(|| diff.stdout + &diff.stderr)
}

#[track_caller]
pub(crate) fn assert_equal(a: &Path, b: &Path) {
    if let Some(difference) = difference(a, b) {
        panic!("the trees differ\n{difference}");
    }
}
