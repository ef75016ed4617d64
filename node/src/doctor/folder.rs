//! The folder that is kept equal, and what says which one it is: private folder, marker, index.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use config::home::shell_word;
use disk::ReplicaId;
use disk::examine::{self, IndexFound, MarkerFound};
use rustix::fs::Access;
use shared::ignore::PRIVATE_DIR;

use super::mend::Mend;
use super::{Asked, Case, Check, chmod};
use crate::open::expected_replica;

/// Looks at the root and at all that belongs to it. What rests on something that is missing is left out.
pub(super) fn all(case: &Case<'_>, root: &Path) -> Vec<Check> {
    let found = root_itself(root);
    let usable = root.is_dir();
    let mut checks = vec![found];
    if !usable {
        return checks;
    }
    let expected = match expected_replica(case.home) {
        Ok(Some(expected)) => expected,
        Ok(None) => {
            let text = "The first start takes the folder into use; nothing is deleted by that.";
            checks.push(Check::ok("marker", text));
            return checks;
        }
        Err(failure) => {
            checks.push(Check::wrong("marker", failure.text + ".", failure.fix));
            return checks;
        }
    };
    let index = match case.asked {
        Asked::NotRunning => Some(examine::index(&case.home.state_dir(), expected)),
        _ => None,
    };
    let (found, marker_check) = marker(case, root, expected, index.as_ref());
    if found.is_some() {
        checks.push(private(case, root));
    }
    checks.push(marker_check);
    checks.push(index_check(case, index, found.as_ref()));
    checks
}

fn root_itself(root: &Path) -> Check {
    const NAME: &str = "root";
    let shown = root.display();
    let look = format!("ls -ld {}", shell_word(root));
    match fs::metadata(root) {
        Err(error) => {
            return Check::wrong(
                NAME,
                format!("The folder {shown} cannot be opened: {error}."),
                "bring the folder back or mount its volume; or correct `root` in the settings",
            );
        }
        Ok(there) if !there.is_dir() => {
            return Check::wrong(
                NAME,
                format!("{shown} is not a folder."),
                "correct `root` in the settings",
            );
        }
        Ok(_) => {}
    }
    if let Some(outer) = root
        .canonicalize()
        .ok()
        .and_then(|root| examine::outer_root(&root))
    {
        return Check::wrong(
            NAME,
            format!(
                "{shown} lies inside another synced folder, {}.",
                outer.display()
            ),
            "correct `root` in the settings",
        );
    }
    let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::access(root, all) {
        Ok(()) => Check::ok(NAME, format!("{shown} can be read and written.")),
        Err(error) => Check::wrong(NAME, format!("{shown} cannot be used: {error}."), look),
    }
}

fn private(case: &Case<'_>, root: &Path) -> Check {
    const NAME: &str = "private";
    let dir = root.join(PRIVATE_DIR);
    let shown = dir.display();
    let mode = fs::symlink_metadata(&dir).map_or(0o700, |there| there.permissions().mode() & 0o777);
    if mode != 0o700 {
        let text = format!("{shown} has mode {mode:03o}; it holds old versions of every file.");
        let check = match mode & 0o700 {
            0o700 => Check::warning(NAME, text, chmod(0o700, &dir)),
            _ => Check::wrong(NAME, text, chmod(0o700, &dir)),
        };
        return check.mended_by(Mend::Rights {
            path: dir,
            mode: 0o700,
        });
    }
    let fix = format!("{} doctor --fix", case.command);
    match examine::missing_private_parts(root) {
        Ok(missing) if missing.is_empty() => {
            Check::ok(NAME, format!("{shown} is whole, and for you alone."))
        }
        Ok(missing) => {
            let text = format!("{shown} lacks {}.", missing.join(" and "));
            let mend = Mend::PrivateParts {
                root: root.to_owned(),
            };
            // A running daemon holds the folders that were there when it started.
            let check = match case.asked {
                Asked::NotRunning => Check::warning(NAME, text, fix),
                _ => Check::wrong(NAME, text, format!("{fix}, then restart the daemon")),
            };
            check.mended_by(mend)
        }
        Err(error) => Check::wrong(
            NAME,
            format!("{shown} cannot be read: {error}."),
            chmod(0o700, &dir),
        ),
    }
}

fn marker(
    case: &Case<'_>,
    root: &Path,
    expected: ReplicaId,
    index: Option<&IndexFound>,
) -> (Option<MarkerFound>, Check) {
    const NAME: &str = "marker";
    let shown = root.display();
    let accept = format!(
        "bring the folder back that was there; or accept it as it is: `{} confirm root`",
        case.command
    );
    let found = match examine::marker(root) {
        Ok(Some(found)) => found,
        Ok(None) => {
            let text =
                format!("{shown} has no marker: it was emptied, replaced or is not mounted.");
            return (None, Check::wrong(NAME, text, accept));
        }
        Err(error) => {
            let text = format!("The marker of {shown} cannot be read: {error}.");
            return (None, Check::wrong(NAME, text, accept));
        }
    };
    let check = match index {
        _ if found.replica != expected.to_string() => Check::wrong(
            NAME,
            format!(
                "{shown} has the marker of another replica: it is another folder, or a copy of one."
            ),
            accept,
        ),
        Some(IndexFound::Sound { stamp, .. }) if found.stamp < *stamp => Check::wrong(
            NAME,
            format!(
                "{shown} is an older copy of itself: its stamp is {}, and {stamp} was recorded.",
                found.stamp
            ),
            accept,
        ),
        _ => Check::ok(
            NAME,
            format!(
                "{shown} is the folder of this node, at stamp {}.",
                found.stamp
            ),
        ),
    };
    (Some(found), check)
}

fn index_check(case: &Case<'_>, index: Option<IndexFound>, marker: Option<&MarkerFound>) -> Check {
    const NAME: &str = "index";
    let file = case.home.state_dir().join("index.redb");
    let united = "The two trees are united then, and nothing is deleted.";
    match index {
        None => Check::ok(NAME, "The daemon has it open, so it was not read."),
        Some(IndexFound::Sound { stamp, .. })
            if marker.is_some_and(|marker| marker.stamp > stamp + 1) =>
        {
            Check::warning(
                NAME,
                format!(
                    "It is older than the folder (a restored home); the next start makes a new one. {united}"
                ),
                "",
            )
        }
        Some(IndexFound::Sound { rows, .. }) => {
            Check::ok(NAME, format!("It is whole, with {rows} agreed paths."))
        }
        Some(IndexFound::Absent) => Check::warning(
            NAME,
            format!("There is none; the next start makes one. {united}"),
            "",
        ),
        Some(IndexFound::Foreign) => Check::warning(
            NAME,
            format!("It belongs to another folder; the next start makes a new one. {united}"),
            "",
        ),
        Some(IndexFound::Changing) => Check::warning(
            NAME,
            "Somebody wrote to it while it was read.",
            format!("{} doctor", case.command),
        ),
        // The next start would do the same; but a disk that flips bits is worth a look before.
        Some(IndexFound::Damaged(damage)) => Check::wrong(
            NAME,
            format!(
                "It is damaged: {}. The next start sets it aside and makes a new one. {united}",
                damage.trim_end_matches('.')
            ),
            format!("mv {0} {0}.damaged", shell_word(&file)),
        ),
        Some(IndexFound::Unreadable(error)) => Check::wrong(
            NAME,
            format!("{} cannot be read: {error}.", file.display()),
            chmod(0o600, &file),
        )
        .mended_by(Mend::Rights {
            path: file,
            mode: 0o600,
        }),
    }
}
