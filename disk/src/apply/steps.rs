//! The steps of one operation, as data: a pure function of what is expected and what shall be.
//!
//! A test can stop before any of them. Whatever the step, what stands at the path is the old thing or
//! the new one, and what was displaced can be found.

use shared::transfer::Op;
use shared::tree::Entry;

/// One step. The first that finds something unexpected ends the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Write into the catalogue what the batch may displace.
    Announce,
    /// Make that, and all that is staged, durable.
    Barrier,
    /// Is the target still what the plan saw?
    StillIs,
    /// Make a directory; one that is there already will do.
    MakeDir,
    /// Give the staged file its mode and time.
    Dress,
    /// Rename the staged thing to the path, unless something is there.
    Create,
    /// Swap the staged thing and the target in one step.
    Exchange,
    /// Is what came out what was expected? If not, swap back.
    CameOut,
    /// Move what came out to the kept store.
    Keep,
    /// Remove the empty directory that came out.
    DropDir,
    /// Link the target into the kept store; what stands at the path stays.
    Link,
    /// Rename the staged thing over the path.
    Over,
    /// Move the target to the kept store.
    Withdraw,
    /// Is what was moved or linked what was expected? If not, move it back.
    Withdrawn,
    /// Move the litter in a directory to the kept store.
    ClearLitter,
    /// Remove an empty directory.
    RemoveDir,
    /// Change the exec bit of the file.
    SetExec,
    /// Rename the target to another path.
    Move,
    /// Is what was moved what was expected? If not, move it back.
    Moved,
    /// Give back what came out and was not expected.
    Undo,
    /// Make the directories that were touched durable.
    SyncDirs,
    /// Make what was written in the tree durable, for rows that were found equal.
    SyncTree,
    /// Write to the index: what was carried out, agreed or seen.
    Index,
    /// It is written; nobody was told yet.
    Indexed,
}

/// Returns the steps of an operation, without those of its whole batch. `weak` avoids
/// [`Step::Exchange`], for volumes without it.
pub(crate) fn steps(op: &Op, weak: bool) -> &'static [Step] {
    use Step::{
        CameOut, ClearLitter, Create, Dress, DropDir, Exchange, Keep, Link, MakeDir, Move, Moved,
        Over, RemoveDir, SetExec, StillIs, Withdraw, Withdrawn,
    };
    if op.moves().is_some() {
        return &[StillIs, Move, Moved];
    }
    match (&op.expect, &op.make) {
        (None, None) => &[StillIs],
        (before, after) if before == after => &[StillIs],
        (None, Some(Entry::Dir)) => &[MakeDir],
        (None, Some(_)) => &[Dress, Create],
        (Some(Entry::Dir), None) => &[StillIs, ClearLitter, RemoveDir],
        (Some(_), None) => &[StillIs, Withdraw, Withdrawn],
        (Some(before), Some(after)) if differ_in_exec(before, after) => &[StillIs, SetExec],
        (Some(Entry::Dir), Some(_)) if weak => &[StillIs, Dress, ClearLitter, RemoveDir, Create],
        (Some(Entry::Dir), Some(_)) => &[StillIs, ClearLitter, Dress, Exchange, CameOut, DropDir],
        (Some(_), Some(Entry::Dir)) if weak => &[StillIs, Withdraw, Withdrawn, Create],
        (Some(_), Some(_)) if weak => &[StillIs, Dress, Link, Withdrawn, Over],
        (Some(_), Some(_)) => &[StillIs, Dress, Exchange, CameOut, Keep],
    }
}

/// Says whether the operation needs something staged.
pub(crate) fn needs_staged(op: &Op) -> bool {
    steps(op, false)
        .iter()
        .any(|step| matches!(step, Step::Create | Step::Exchange))
}

/// Says whether the operation may displace something, so that the catalogue has to name it first.
pub(crate) fn displaces(op: &Op) -> bool {
    steps(op, false)
        .iter()
        .any(|step| matches!(step, Step::Exchange | Step::Withdraw))
}

fn differ_in_exec(before: &Entry, after: &Entry) -> bool {
    matches!(
        (before, after),
        (Entry::File { content: old, .. }, Entry::File { content: new, .. }) if old == new
    )
}

#[cfg(test)]
mod tests {
    use shared::hash::ContentHash;
    use shared::path::RelPath;
    use shared::transfer::Source;

    use super::*;

    fn entry(text: &str) -> Option<Entry> {
        match text {
            "-" => None,
            "dir" => Some(Entry::Dir),
            "link" => Some(Entry::Symlink { target: "x".into() }),
            file => {
                let content = ContentHash::of_bytes(&file.as_bytes()[..1]);
                Some(Entry::File {
                    content,
                    len: 1,
                    exec: file.ends_with('x'),
                })
            }
        }
    }

    fn op(expect: &str, make: &str) -> Op {
        Op {
            path: RelPath::parse("p").expect("a path"),
            expect: entry(expect),
            make: entry(make),
            from: Source::Nothing,
            agrees: true,
        }
    }

    fn check_steps(weak: bool, expect: &str, make: &str, shown: &str) {
        let found = format!("{:?}", steps(&op(expect, make), weak));
        assert_eq!(found, format!("[{shown}]"), "{expect} {make}");
    }

    #[test]
    fn every_transition() {
        let check = |expect, make, shown| check_steps(false, expect, make, shown);
        check("-", "-", "StillIs");
        check("1", "1", "StillIs");
        check("dir", "dir", "StillIs");
        check("-", "dir", "MakeDir");
        check("-", "1", "Dress, Create");
        check("-", "link", "Dress, Create");
        check("1", "-", "StillIs, Withdraw, Withdrawn");
        check("link", "-", "StillIs, Withdraw, Withdrawn");
        check("dir", "-", "StillIs, ClearLitter, RemoveDir");
        check("1", "1x", "StillIs, SetExec");
        check("1", "2", "StillIs, Dress, Exchange, CameOut, Keep");
        check("1x", "2", "StillIs, Dress, Exchange, CameOut, Keep");
        check("1", "link", "StillIs, Dress, Exchange, CameOut, Keep");
        check("link", "dir", "StillIs, Dress, Exchange, CameOut, Keep");
        check(
            "dir",
            "1",
            "StillIs, ClearLitter, Dress, Exchange, CameOut, DropDir",
        );
    }

    #[test]
    fn without_exchange_the_old_one_is_kept_first() {
        let check = |expect, make, shown| check_steps(true, expect, make, shown);
        check("1", "2", "StillIs, Dress, Link, Withdrawn, Over");
        check("1", "dir", "StillIs, Withdraw, Withdrawn, Create");
        check("dir", "1", "StillIs, Dress, ClearLitter, RemoveDir, Create");
        check("-", "1", "Dress, Create");
    }
}
