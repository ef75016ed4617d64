//! Names as directories list them: bytes, of which some have no place in the tree.

use shared::hash::ContentHash;
use shared::ignore::{PRIVATE_DIR, is_litter};
use shared::path::{COMPONENT_BYTES_MAX, PATH_BYTES_MAX, RelPath};
use shared::tree::Obstacle;

/// A name in a directory, as it is told.
pub(super) struct Name {
    pub(super) shown: String,
    /// Why the name has no place in the tree; then `shown` is a stand-in, used for telling alone.
    pub(super) obstacle: Option<Obstacle>,
}

impl Name {
    pub(super) fn of(dir: Option<&RelPath>, raw: Box<[u8]>) -> Self {
        match String::from_utf8(raw.into_vec()) {
            Ok(shown) if fits(dir, &shown) => Self {
                shown,
                obstacle: None,
            },
            Ok(long) => {
                let hash = ContentHash::of_bytes(long.as_bytes()).short();
                Self {
                    shown: format!("(too long {hash})"),
                    obstacle: Some(Obstacle::BadName),
                }
            }
            Err(error) => {
                let raw = error.as_bytes();
                let hash = ContentHash::of_bytes(raw).short();
                // Lossy text can be three times as long as what it stands for.
                let lossy: String = String::from_utf8_lossy(raw).chars().take(60).collect();
                let full = format!("{lossy} (not UTF-8 {hash})");
                let shown = if fits(dir, &full) {
                    full
                } else {
                    format!("(not UTF-8 {hash})")
                };
                Self {
                    shown,
                    obstacle: Some(Obstacle::NotUtf8),
                }
            }
        }
    }

    pub(super) fn is_ours(&self) -> bool {
        self.shown != PRIVATE_DIR && !is_litter(&self.shown)
    }
}

fn fits(dir: Option<&RelPath>, name: &str) -> bool {
    name.len() <= COMPONENT_BYTES_MAX
        && dir.map_or(0, |dir| dir.as_str().len() + 1) + name.len() <= PATH_BYTES_MAX
}
