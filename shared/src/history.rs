//! History: which kept versions a restore of a folder means.
//!
//! A version is kept on the machine that displaced it, so what a folder was like is known by both
//! together: each tells its part ([`one_each`]), and whoever asks for the restore unites them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::control::{Pick, Version};
use crate::path::RelPath;

/// Deletions that follow one another within this time are one: a large folder is deleted file by
/// file, and in several batches.
const TOGETHER: Duration = Duration::from_secs(120);

/// Returns the version that is meant for each path below a folder, in the order of the paths:
///
/// * [`Pick::Latest`]: the one that was displaced last;
/// * [`Pick::At`]: what stood there at that time, which is the first one that was displaced after it;
/// * [`Pick::Version`] and [`Pick::Each`]: those of these names.
pub fn one_each(versions: Vec<Version>, pick: &Pick) -> Vec<Version> {
    let mut meant: BTreeMap<Option<RelPath>, Version> = BTreeMap::new();
    for version in versions {
        let is_candidate = match pick {
            Pick::Latest => true,
            Pick::At(time) => version.at > *time,
            Pick::Version(name) => version.version == *name,
            Pick::Each(names) => names.contains(&version.version),
        };
        if !is_candidate {
            continue;
        }
        let before = meant.get(&version.path);
        let is_better = before.is_none_or(|before| match pick {
            Pick::At(_) => version.at < before.at,
            _ => version.at > before.at,
        });
        if is_better {
            meant.insert(version.path.clone(), version);
        }
    }
    meant.into_values().collect()
}

/// Returns those of some versions that were displaced together with the latest one, in the order of
/// their paths.
pub fn displaced_together(mut versions: Vec<Version>) -> Vec<Version> {
    versions.sort_by_key(|version| std::cmp::Reverse(version.at));
    let gap = TOGETHER.as_millis() as u64;
    let end = versions
        .windows(2)
        .position(|pair| pair[0].at.0 - pair[1].at.0 > gap);
    versions.truncate(end.map_or(versions.len(), |last| last + 1));
    versions.sort_by(|a, b| a.path.cmp(&b.path));
    versions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::utc::UtcMs;

    /// Versions from `path@seconds`, each with that as its name.
    fn versions(text: &str) -> Vec<Version> {
        let version = |word: &str| {
            let (path, at) = word.split_once('@')?;
            Some(Version {
                version: word.to_owned(),
                path: RelPath::parse(path).ok(),
                at: UtcMs(at.parse::<u64>().ok()? * 1000),
                len: 0,
                content: None,
                why: "deleted".to_owned(),
                node: "vm".to_owned(),
            })
        };
        text.split(' ').filter_map(version).collect()
    }

    fn names(versions: &[Version]) -> String {
        let names: Vec<&str> = versions.iter().map(|v| v.version.as_str()).collect();
        names.join(" ")
    }

    #[test]
    fn one_of_each_path() {
        let all = "d/b@10 d/a@5 d/a@20 d/b@30 d/c@15";
        let check = |pick: Pick, expected: &str| {
            assert_eq!(names(&one_each(versions(all), &pick)), expected, "{pick:?}");
        };
        check(Pick::Latest, "d/a@20 d/b@30 d/c@15");
        check(Pick::At(UtcMs(0)), "d/a@5 d/b@10 d/c@15");
        // What was displaced at that very time did not stand there after it.
        check(Pick::At(UtcMs(5_000)), "d/a@20 d/b@10 d/c@15");
        check(Pick::At(UtcMs(15_000)), "d/a@20 d/b@30");
        check(Pick::At(UtcMs(30_000)), "");
        check(Pick::Version("d/a@5".into()), "d/a@5");
        check(Pick::Each(vec!["d/c@15".into(), "x".into()]), "d/c@15");
    }

    #[test]
    fn what_went_together() {
        let check = |all: &str, expected: &str| {
            assert_eq!(names(&displaced_together(versions(all))), expected, "{all}");
        };
        check("", "");
        check("d/a@5", "d/a@5");
        check(
            "d/a@1000 d/b@1100 d/c@1220 d/d@879",
            "d/a@1000 d/b@1100 d/c@1220",
        );
        check("d/a@1000 d/b@1100 d/c@1221", "d/c@1221");
        check(
            "d/a@1000 d/b@1000 d/c@880 d/d@1",
            "d/a@1000 d/b@1000 d/c@880",
        );
    }
}
