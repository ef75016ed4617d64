//! Where the journals of the bot lie in the tree: files that layer-sync itself writes, each by one node alone and only at its end.

use crate::path::RelPath;

/// The folder; below it, one for each node.
pub const FOLDER: &str = "knowledge/.journal";

/// Says whether a path is a part of a journal.
pub fn has(path: &RelPath) -> bool {
    let below = path.as_str().strip_prefix(FOLDER);
    below.is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_journal() {
        let check =
            |path: &str, is: bool| assert_eq!(has(&RelPath::parse(path).unwrap()), is, "{path}");
        check("knowledge/.journal/vm/1-1.jsonl", true);
        check("knowledge/.journal", false);
        check("knowledge/.journals/a", false);
        check("a/knowledge/.journal/b", false);
    }
}
