//! A target: a place that holds the third copy. Whoever writes another one implements [`Target`] and passes its suite (`tests/e2e/targets.rs`).
//!
//! A target is a heap of items with numbers of its own: what an item is called and where it lies can change, its id does not. It
//! has no locks and no transactions, and other people write to it.

use std::future::Future;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::mirror::Mark;

/// Something that a target holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What it is known by, for ever.
    pub id: String,
    /// The folder that it lies in.
    pub parent: String,
    /// Its name: any text; two items of one folder may have the same.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What was written beside it, if something was.
    pub mark: Option<Mark>,
    /// Another one after each change of it.
    pub version: String,
    /// When it was modified, in nanoseconds since 1970, as whoever wrote it says. Never compared.
    pub mtime_ns: i64,
}

/// The kinds of items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file with bytes.
    File {
        /// Their number.
        len: u64,
        /// SHA-256 of them, if the target knows.
        sum: Option<[u8; 32]>,
    },
    /// Something that has no bytes and is no folder: what it is, in a few words.
    Other(String),
}

/// A change that a target tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This is there now.
    Is(Item),
    /// The item of this id is not there any more, or out of reach.
    Gone(String),
}

/// A part of what changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The changes.
    pub changes: Vec<Change>,
    /// Where to go on, after the changes have been noted.
    pub cursor: String,
    /// Whether more has to be asked for at once.
    pub more: bool,
    /// Whether this belongs to a listing of everything: what it does not name is not there.
    pub listing: bool,
}

/// What a target says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// For people: whose it is, and where.
    pub name: String,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that there is room for in all, if that is limited.
    pub limit: Option<u64>,
}

/// Where an item is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At<'a> {
    /// The folder.
    pub parent: &'a str,
    /// The name.
    pub name: &'a str,
}

/// Bytes that are to be written.
pub trait Bytes {
    /// Returns their number.
    fn len(&self) -> u64;

    /// Says whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads at an offset until the buffer is full or they end; returns how much that was.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Says whether they still are what they were when they were hashed. Asked before the last of them is sent.
    ///
    /// # Errors
    /// What the system says.
    fn rests(&self) -> io::Result<bool>;
}

/// A file that is to be written.
pub struct Writing<'a> {
    /// Where a new one is to be; `None` replaces the bytes of `over`.
    pub at: At<'a>,
    /// The item whose bytes are replaced.
    pub over: Option<&'a Item>,
    /// What is written beside it, in the same step. It has the sum.
    pub mark: &'a Mark,
    /// When it was modified, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// The bytes.
    pub bytes: &'a dyn Bytes,
    /// What an earlier try of just this has left, to go on from there.
    pub begun: Option<String>,
    /// Is told what to give as `begun` if this try is cut short.
    pub note: &'a dyn Fn(&str),
}

/// Bytes that are read, part by part.
pub trait Reading {
    /// Returns the next part; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Vec<u8>>, Wrong>>;
}

/// Why a target did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It asks to slow down.
    #[error("it asks to slow down: {text}")]
    Busy {
        /// What it says.
        text: String,
        /// How long to wait at least.
        after: Option<Duration>,
    },
    /// It could not be reached, or broke down in the middle.
    #[error("it could not be reached: {0}")]
    Unreachable(String),
    /// It does not let us in any more.
    #[error("it does not let us in: {0}")]
    NoConsent(String),
    /// It has no room left.
    #[error("it has no room left: {0}")]
    Full(String),
    /// The folder of the mirror is not there, or not ours any more.
    #[error("its folder is gone: {0}")]
    NoRoot(String),
    /// The item is not there.
    #[error("it is not there any more")]
    Gone,
    /// The item, or what was to be written, is not what it was.
    #[error("it changed meanwhile")]
    Changed,
    /// It does not take this one.
    #[error("it does not take that: {0}")]
    Refused(String),
    /// Where to go on is not known there any more: everything has to be listed.
    #[error("it has forgotten where we were")]
    CursorLost,
    /// It says what it should not.
    #[error("it gave an answer that does not fit: {0}")]
    Nonsense(String),
    /// Our own disk.
    #[error("{0}")]
    Disk(String),
}

impl Wrong {
    /// Says whether the same may work in a moment.
    pub fn passes(&self) -> bool {
        matches!(
            self,
            Self::Busy { .. } | Self::Unreachable(_) | Self::Nonsense(_)
        )
    }

    /// Says whether it is about one item alone, so that the others can go on.
    pub fn is_local(&self) -> bool {
        matches!(
            self,
            Self::Gone | Self::Changed | Self::Refused(_) | Self::Disk(_)
        )
    }
}

impl From<rusqlite::Error> for Wrong {
    fn from(error: rusqlite::Error) -> Self {
        Self::Disk(format!(
            "what is known of the mirror cannot be kept: {error}"
        ))
    }
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

/// A place that holds the third copy.
///
/// Whatever it is asked to do may have been done although it says that it was not, and may be asked for again.
pub trait Target {
    /// What it reads from.
    type Reading: Reading;

    /// Returns the id of the folder that is the mirror. It is made if there was none.
    fn root(&self) -> impl Future<Output = Result<String, Wrong>>;

    /// Says what it is.
    fn about(&self) -> impl Future<Output = Result<About, Wrong>>;

    /// Returns what changed since a page; everything since `None`. What does not lie below the root may be among it.
    fn changes(&self, since: Option<&str>) -> impl Future<Output = Result<Page, Wrong>>;

    /// Lists a folder that is new to us, which the changes name alone.
    fn children(&self, folder: &str) -> impl Future<Output = Result<Vec<Item>, Wrong>>;

    /// Looks at one item; `None` when it is not there.
    fn look(&self, id: &str) -> impl Future<Output = Result<Option<Item>, Wrong>>;

    /// Reads the bytes of an item, from an offset on.
    fn read(&self, item: &Item, from: u64) -> impl Future<Output = Result<Self::Reading, Wrong>>;

    /// Returns the SHA-256 of the bytes of an item, if the target can tell it without sending them. It must be that of what it has now,
    /// and not what was noted once.
    fn sum_now(&self, item: &Item) -> impl Future<Output = Result<Option<[u8; 32]>, Wrong>>;

    /// Writes a file, whole or not at all. One that replaces another may be another item.
    fn write(&self, writing: Writing<'_>) -> impl Future<Output = Result<Item, Wrong>>;

    /// Makes a folder.
    fn make_folder(&self, at: At<'_>, mark: &Mark) -> impl Future<Output = Result<Item, Wrong>>;

    /// Moves an item, with all that lies in it.
    fn relocate(
        &self,
        item: &Item,
        to: At<'_>,
        mark: &Mark,
    ) -> impl Future<Output = Result<Item, Wrong>>;

    /// Writes another mark beside an item, and leaves its bytes.
    fn set_mark(&self, item: &Item, mark: &Mark) -> impl Future<Output = Result<Item, Wrong>>;

    /// Takes an item away, to where a person can bring it back from.
    fn remove(&self, item: &Item) -> impl Future<Output = Result<(), Wrong>>;

    /// Makes durable what was written since the last time, if it is not already.
    fn flush(&self) -> impl Future<Output = Result<(), Wrong>> {
        async { Ok(()) }
    }

    /// Is told how many new items are going to be made.
    fn expect_new(&self, _count: usize) {}
}
