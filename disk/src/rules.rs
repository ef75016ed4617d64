//! `.layerignore` as it stands in the tree. What it means is `shared::ignore`'s.

use std::io::{self, Read, Seek};

use rustix::io::Errno;
use shared::hash::ContentHash;
use shared::ignore::{RULES_BYTES_MAX, RULES_FILE, RulesRefused};

use crate::{Replica, handle, read};

/// The rules' file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesFile {
    /// Hash of its content, as in the entry of its path.
    pub content: ContentHash,
    /// Its text, or why it cannot be one: [`RulesRefused::TooLong`] or [`RulesRefused::NotUtf8`].
    pub text: Result<String, RulesRefused>,
}

impl Replica {
    /// Reads `.layerignore`; `None` when no regular file of that name is there.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn read_rules(&self) -> io::Result<Option<RulesFile>> {
        let mut file = match handle::open_file(&*self.root, RULES_FILE) {
            Ok((file, _)) => file,
            Err(Errno::NOENT | Errno::INVAL | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let content = read::content_of(&mut file)?;
        let mut bytes = Vec::new();
        file.rewind()?;
        (&mut file)
            .take(RULES_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)?;
        let text = if bytes.len() > RULES_BYTES_MAX {
            Err(RulesRefused::TooLong)
        } else {
            String::from_utf8(bytes).map_err(|_| RulesRefused::NotUtf8)
        };
        Ok(Some(RulesFile {
            content: content.hash,
            text,
        }))
    }
}
