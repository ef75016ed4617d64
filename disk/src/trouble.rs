//! Trouble: what an error of the file system means for one path.

use rustix::io::Errno;
use shared::path::RelPath;
use shared::transfer::{Trouble, TroubleKind};

/// Tells a person that something could not be done at `path`.
pub(crate) fn trouble(path: &RelPath, what: &str, error: Errno) -> Trouble {
    let kind = kind(error);
    let text = format!(
        "\"{path}\" could not be {what} ({}); what was there is untouched. To do: {}",
        std::io::Error::from(error),
        kind.remedy()
    );
    Trouble { kind, text }
}

/// Says whether the error means that the path's surroundings are not as the plan saw them.
pub(crate) fn is_stale(error: Errno) -> bool {
    [
        Errno::NOENT,
        Errno::NOTDIR,
        Errno::LOOP,
        Errno::EXIST,
        Errno::ISDIR,
    ]
    .contains(&error)
}

fn kind(error: Errno) -> TroubleKind {
    match error {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => TroubleKind::DiskFull,
        Errno::ROFS => TroubleKind::ReadOnly,
        Errno::ACCESS | Errno::PERM => TroubleKind::Permission,
        Errno::NAMETOOLONG | Errno::ILSEQ => TroubleKind::Name,
        Errno::NOTEMPTY => TroubleKind::NotEmpty,
        _ => TroubleKind::Io,
    }
}
