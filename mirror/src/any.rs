//! Any of the targets: which one it is stands in the settings.

use shared::mirror::Mark;

use crate::drive::{Drive, DriveReading};
use crate::folder::{FileReading, Folder};
use crate::target::{About, At, Item, Page, Reading, Target, Writing, Wrong};

/// One of the targets.
pub enum AnyTarget {
    /// See [`Folder`].
    Folder(Box<Folder>),
    /// See [`Drive`].
    Drive(Box<Drive>),
}

/// What one of them reads from.
pub enum AnyReading {
    /// A file of a folder.
    Folder(FileReading),
    /// A download from Drive.
    Drive(DriveReading),
}

/// Asks whichever it is.
macro_rules! either {
    ($self:ident, $target:ident => $ask:expr) => {
        match $self {
            AnyTarget::Folder($target) => $ask,
            AnyTarget::Drive($target) => $ask,
        }
    };
}

impl Reading for AnyReading {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Wrong> {
        match self {
            Self::Folder(reading) => reading.next().await,
            Self::Drive(reading) => reading.next().await,
        }
    }
}

impl Target for AnyTarget {
    type Reading = AnyReading;

    async fn root(&self) -> Result<String, Wrong> {
        either!(self, target => target.root().await)
    }

    async fn about(&self) -> Result<About, Wrong> {
        either!(self, target => target.about().await)
    }

    async fn changes(&self, since: Option<&str>) -> Result<Page, Wrong> {
        either!(self, target => target.changes(since).await)
    }

    async fn children(&self, folder: &str) -> Result<Vec<Item>, Wrong> {
        either!(self, target => target.children(folder).await)
    }

    async fn look(&self, id: &str) -> Result<Option<Item>, Wrong> {
        either!(self, target => target.look(id).await)
    }

    async fn read(&self, item: &Item, from: u64) -> Result<AnyReading, Wrong> {
        match self {
            Self::Folder(folder) => folder.read(item, from).await.map(AnyReading::Folder),
            Self::Drive(drive) => drive.read(item, from).await.map(AnyReading::Drive),
        }
    }

    async fn sum_now(&self, item: &Item) -> Result<Option<[u8; 32]>, Wrong> {
        either!(self, target => target.sum_now(item).await)
    }

    async fn write(&self, writing: Writing<'_>) -> Result<Item, Wrong> {
        either!(self, target => target.write(writing).await)
    }

    async fn make_folder(&self, at: At<'_>, mark: &Mark) -> Result<Item, Wrong> {
        either!(self, target => target.make_folder(at, mark).await)
    }

    async fn relocate(&self, item: &Item, to: At<'_>, mark: &Mark) -> Result<Item, Wrong> {
        either!(self, target => target.relocate(item, to, mark).await)
    }

    async fn set_mark(&self, item: &Item, mark: &Mark) -> Result<Item, Wrong> {
        either!(self, target => target.set_mark(item, mark).await)
    }

    async fn remove(&self, item: &Item) -> Result<(), Wrong> {
        either!(self, target => target.remove(item).await)
    }

    async fn flush(&self) -> Result<(), Wrong> {
        either!(self, target => target.flush().await)
    }

    fn expect_new(&self, count: usize) {
        either!(self, target => target.expect_new(count));
    }
}
