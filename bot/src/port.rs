//! What the bot has of its node: leave to act, questions, and files of the tree. It has nothing else.

#[cfg(test)]
pub(crate) mod fake;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use shared::control::{LeaseView, Request, Response};
use shared::lease::{Epoch, Moment, Permit};
use shared::path::RelPath;
use shared::utc::UtcMs;
use tokio::sync::watch;

/// An answer that is on its way.
pub type Asked = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Something in a folder of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// Length of a file, in bytes.
    pub len: u64,
}

/// What a node hands to its bot. Clocks and chance are here too, so that nothing else asks the system for them.
pub trait Port: Send + Sync + 'static {
    /// Gives leave for one effect that is over after `timeout`; `None` while this node may not act for so long.
    fn permit(&self, timeout: Duration) -> Option<Permit>;
    /// Takes a permit back whose effect is over.
    fn take_back(&self, permit: Permit);
    /// Says whether this node has the lease of that epoch at this very moment.
    fn holds(&self, epoch: Epoch) -> bool;
    /// Tells who is primary, and when that changes.
    fn role(&self) -> watch::Receiver<LeaseView>;

    /// Asks the node something, as a client on its control socket would.
    fn ask(&self, request: Request) -> Asked;

    /// Lists a folder of the tree, `None` the root, without what is private to layer-sync.
    ///
    /// # Errors
    /// What the system says, [`io::ErrorKind::NotFound`] among others.
    fn list(&self, folder: Option<&RelPath>) -> io::Result<Vec<Listed>>;
    /// Reads at most `bytes_max` bytes of a file of the tree, from `offset` on.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, path: &RelPath, offset: u64, bytes_max: u64) -> io::Result<Vec<u8>>;
    /// Appends to a file of the tree, and returns when that is durable: its length then. The file and the folders above it
    /// are made if there are none.
    ///
    /// # Errors
    /// What the system says; also when the root is not the one that is synced. Then nothing was made.
    fn append(&self, path: &RelPath, bytes: &[u8]) -> io::Result<u64>;
    /// Removes a file of the tree.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &RelPath) -> io::Result<()>;

    /// Returns now, on the clock that counts sleep.
    fn now(&self) -> Moment;
    /// Returns the time of day, for people.
    fn utc(&self) -> UtcMs;
    /// Returns bytes that nobody can guess.
    fn chance(&self) -> [u8; 8];
}

/// Leave for one effect, which goes back when it is dropped.
pub(crate) struct Leave {
    permit: Option<Permit>,
    until: Moment,
    port: Arc<dyn Port>,
}

impl Leave {
    /// Asks for it.
    pub(crate) fn get(port: &Arc<dyn Port>, timeout: Duration) -> Option<Self> {
        let permit = port.permit(timeout)?;
        Some(Self {
            until: permit.until(),
            permit: Some(permit),
            port: Arc::clone(port),
        })
    }

    /// Returns how long the effect may still take.
    pub(crate) fn left(&self) -> Duration {
        self.until.left(self.port.now())
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.port.take_back(permit);
        }
    }
}
