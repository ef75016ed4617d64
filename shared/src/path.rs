//! Names inside a root.
//!
//! [`RelPath::parse`] is the only way in, for names found on the local disk and for names that
//! arrive from the other machine alike. A value of this type cannot leave the root: whoever joins
//! it to a directory handle component by component stays below that directory.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use unicode_normalization::UnicodeNormalization;

/// Longest component of a path, in bytes. What ext4, XFS, btrfs and APFS can store.
pub const COMPONENT_BYTES_MAX: usize = 255;
/// Longest path, in bytes: `PATH_MAX` of Linux.
pub const PATH_BYTES_MAX: usize = 4096;

/// A path inside a root: relative, `/`-separated, UTF-8, spelled exactly as it was found.
///
/// It has no empty, `.` or `..` component and no NUL byte. The root itself is not a `RelPath`.
/// Cloning is cheap. The order is that of a tree walk: a directory comes directly before everything
/// inside it, so all that lies below a path is one range of a sorted map.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelPath(Arc<str>);

/// Why a name cannot be a [`RelPath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathRefused {
    /// Nothing at all, or an empty component (`a//b`, a leading or a trailing slash).
    #[error("it has an empty component")]
    Empty,
    /// A `.` or `..` component.
    #[error("it has a `.` or `..` component and could leave the root")]
    Dots,
    /// A NUL byte.
    #[error("it has a NUL byte")]
    Nul,
    /// A component above [`COMPONENT_BYTES_MAX`].
    #[error("a component is longer than {COMPONENT_BYTES_MAX} bytes")]
    ComponentTooLong,
    /// A path above [`PATH_BYTES_MAX`].
    #[error("it is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// Bytes that are not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
}

impl RelPath {
    /// Checks `raw` and keeps it as it is spelled.
    ///
    /// # Errors
    /// The first rule that `raw` breaks.
    pub fn parse(raw: &str) -> Result<Self, PathRefused> {
        if raw.len() > PATH_BYTES_MAX {
            return Err(PathRefused::TooLong);
        }
        for component in raw.split('/') {
            check_component(component)?;
        }
        Ok(Self(raw.into()))
    }

    /// Checks bytes as a file system reports them.
    ///
    /// # Errors
    /// [`PathRefused::NotUtf8`], or the first rule that the text breaks.
    pub fn parse_bytes(raw: &[u8]) -> Result<Self, PathRefused> {
        Self::parse(std::str::from_utf8(raw).map_err(|_| PathRefused::NotUtf8)?)
    }

    /// Returns this path with one more component.
    ///
    /// # Errors
    /// As [`RelPath::parse`]; a `name` with a slash counts as [`PathRefused::Empty`].
    pub fn join(&self, name: &str) -> Result<Self, PathRefused> {
        check_component(name)?;
        if name.contains('/') {
            return Err(PathRefused::Empty);
        }
        Self::parse(&format!("{}/{name}", self.0))
    }

    /// Returns the path as text, components separated by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the directory that this path lies in, or `None` directly under the root.
    pub fn parent(&self) -> Option<Self> {
        self.0
            .rsplit_once('/')
            .map(|(parent, _)| Self(parent.into()))
    }

    /// Returns the last component.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// Returns the directories above this path, the nearest first.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        let mut rest: &str = &self.0;
        std::iter::from_fn(move || {
            rest = rest.rsplit_once('/')?.0;
            Some(Self(rest.into()))
        })
    }

    /// Returns the components from the top.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Says whether this path lies below `other` (and is not `other` itself).
    pub fn is_below(&self, other: &Self) -> bool {
        self.0.len() > other.0.len()
            && self.0.starts_with(&*other.0)
            && self.0.as_bytes()[other.0.len()] == b'/'
    }

    /// Returns where this path lands when `from`, which it equals or lies below, becomes `to`.
    ///
    /// # Errors
    /// The rule that the longer path breaks.
    pub fn rebase(&self, from: &Self, to: &Self) -> Result<Self, PathRefused> {
        debug_assert!(self == from || self.is_below(from));
        Self::parse(&format!("{}{}", to.0, &self.0[from.0.len()..]))
    }

    /// Returns the key under which volumes that fold case and normalization would file this name:
    /// canonical decomposition after case folding.
    pub fn folded_key(&self) -> String {
        self.0.nfd().flat_map(char::to_lowercase).nfd().collect()
    }
}

fn check_component(component: &str) -> Result<(), PathRefused> {
    match component {
        "" => Err(PathRefused::Empty),
        "." | ".." => Err(PathRefused::Dots),
        _ if component.len() > COMPONENT_BYTES_MAX => Err(PathRefused::ComponentTooLong),
        _ if component.contains('\0') => Err(PathRefused::Nul),
        _ => Ok(()),
    }
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // The slash sorts before every other byte, so that `a/b` comes before `a-b`: NUL, the only
        // smaller byte, cannot occur.
        let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
        let (ours, theirs) = (self.0.as_bytes(), other.0.as_bytes());
        let same = common_prefix(ours, theirs);
        match (ours.get(same), theirs.get(same)) {
            (Some(a), Some(b)) => rank(*a).cmp(&rank(*b)),
            _ => ours.len().cmp(&theirs.len()),
        }
    }
}

/// Returns how many bytes two texts begin with in common. Paths that are compared mostly share their
/// directories, so eight bytes are looked at in one step.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let (words_a, _) = a.as_chunks::<8>();
    let (words_b, _) = b.as_chunks::<8>();
    for (index, (x, y)) in words_a.iter().zip(words_b).enumerate() {
        let differ = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differ != 0 {
            return index * 8 + differ.trailing_zeros() as usize / 8;
        }
    }
    let words = words_a.len().min(words_b.len()) * 8;
    let rest = a[words..].iter().zip(&b[words..]);
    words + rest.take_while(|(x, y)| x == y).count()
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl AsRef<str> for RelPath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for RelPath {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        Self::parse(&raw).map_err(|refused| de::Error::custom(format!("path {raw:?}: {refused}")))
    }
}

/// Iterates over what lies below `top` in a map whose keys are paths.
pub fn below<'a, V>(
    map: &'a std::collections::BTreeMap<RelPath, V>,
    top: &'a RelPath,
) -> impl Iterator<Item = (&'a RelPath, &'a V)> {
    use std::ops::Bound::{Excluded, Unbounded};
    map.range::<RelPath, _>((Excluded(top), Unbounded))
        .take_while(move |(path, _)| path.is_below(top))
}

#[cfg(test)]
mod tests;
