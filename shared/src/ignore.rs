//! Which paths are left alone: `.layerignore` and the built-in rules.
//!
//! Both sides apply the same agreed text, so that neither takes for a deletion what the other one
//! merely ignores. A new rule never deletes anything: an ignored path is unknown, not absent.

use std::sync::OnceLock;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::hash::ContentHash;
use crate::path::RelPath;
use crate::tree::Entry;

/// Name of the rules' file, in the root.
pub const RULES_FILE: &str = ".layerignore";
/// Name of the private folder, in the root: marker, stage and kept store.
pub const PRIVATE_DIR: &str = ".layer-sync";
/// Longest text of rules, in bytes.
pub const RULES_BYTES_MAX: usize = 256 * 1024;

/// Never synced, whatever the rules' file says: our own folder, litter of file managers and editors,
/// and secrets. Not `*.key`, which is a Keynote document, and not `*.pem`, which is mostly public.
const BUILT_IN: &[&str] = &[
    ".layer-sync/",
    ".DS_Store",
    "._*",
    ".*.sw[a-p]",
    ".#*",
    "\\#*\\#",
    ".env",
    ".env.*",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ecdsa_sk",
    "id_ed25519",
    "id_ed25519_sk",
    "*-key.pem",
    "*.key.pem",
    "*.p12",
    "*.pfx",
    "*.ppk",
];

/// They are the same for everybody, and to compile them takes longer than most texts of a user.
static COMPILED: OnceLock<Gitignore> = OnceLock::new();

/// A compiled set of rules.
#[derive(Clone)]
pub struct Rules {
    own: Gitignore,
    built_in: Gitignore,
    text: String,
}

/// Why a text is not a set of rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesRefused {
    /// A line that does not parse.
    #[error("line {line} of .layerignore is not a valid pattern: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// More than [`RULES_BYTES_MAX`].
    #[error(".layerignore is longer than {RULES_BYTES_MAX} bytes")]
    TooLong,
    /// Not UTF-8.
    #[error(".layerignore is not UTF-8")]
    NotUtf8,
}

impl Rules {
    /// Compiles a text in gitignore syntax.
    ///
    /// # Errors
    /// The first line that does not parse.
    pub fn parse(text: &str) -> Result<Self, RulesRefused> {
        if text.len() > RULES_BYTES_MAX {
            return Err(RulesRefused::TooLong);
        }
        let own = compile(text.lines())?;
        let built_in = match COMPILED.get() {
            Some(compiled) => compiled.clone(),
            None => {
                let compiled = compile(BUILT_IN.iter().copied())?;
                COMPILED.get_or_init(|| compiled).clone()
            }
        };
        Ok(Self {
            own,
            built_in,
            text: text.to_owned(),
        })
    }

    /// Returns the text that these rules were compiled from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Says whether the path itself is left alone. A path inside an ignored directory is not asked
    /// about, because nobody enters that directory.
    pub fn ignores(&self, path: &RelPath, is_dir: bool) -> bool {
        self.built_in.matched(path.as_str(), is_dir).is_ignore()
            || self.own.matched(path.as_str(), is_dir).is_ignore()
    }

    /// Says whether the path or a directory above it is left alone.
    pub fn ignores_within(&self, path: &RelPath, is_dir: bool) -> bool {
        self.ignores(path, is_dir) || path.ancestors().any(|above| self.ignores(&above, true))
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Rules").field(&self.text).finish()
    }
}

impl Default for Rules {
    /// The built-in rules alone.
    fn default() -> Self {
        Self::parse("").unwrap_or_else(|_| Self {
            own: Gitignore::empty(),
            built_in: Gitignore::empty(),
            text: String::new(),
        })
    }
}

/// Decides what a side does about the rules' file that it read: `content` and `text` of the file, or
/// `None` and an empty text when there is none; `agreed` is what stands in the base.
///
/// Only the agreed version counts. `None` says that the file is another one: it will be read again
/// when both sides have it.
pub fn agreed_rules(
    content: Option<&ContentHash>,
    text: &Result<String, RulesRefused>,
    agreed: Option<&Entry>,
) -> Option<Result<Rules, RulesRefused>> {
    let agreed = match agreed {
        Some(Entry::File { content, .. }) => Some(content),
        // A directory or a link of that name is no file of rules.
        _ => None,
    };
    (agreed == content).then(|| Rules::parse(text.as_ref().map_err(Clone::clone)?))
}

/// Says whether a name is litter that a file manager leaves in every directory. It is never synced,
/// and does not keep a directory from being deleted.
pub fn is_litter(name: &str) -> bool {
    name == ".DS_Store" || name.starts_with("._")
}

fn compile<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Gitignore, RulesRefused> {
    let mut builder = GitignoreBuilder::new("");
    for (index, line) in lines.enumerate() {
        builder
            .add_line(None, line)
            .map_err(|error| RulesRefused::Line {
                line: index + 1,
                reason: error.to_string(),
            })?;
    }
    builder.build().map_err(|error| RulesRefused::Line {
        line: 0,
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
