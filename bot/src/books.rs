//! The ledger for tasks: its work is done on threads that may wait for a disk, and what changed is told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::board::Board;
use crate::ledger::{Ledger, LedgerError};
use crate::record::What;
use crate::view::Totals;

/// The ledger. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Books(Arc<Shared>);

struct Shared {
    ledger: Mutex<Ledger>,
    board: Board,
    /// Something may be to be answered, or to be sent.
    heard: Notify,
    said: Notify,
}

impl Books {
    pub(crate) fn new(ledger: Ledger, board: Board) -> Self {
        Self(Arc::new(Shared {
            ledger: Mutex::new(ledger),
            board,
            heard: Notify::new(),
            said: Notify::new(),
        }))
    }

    /// Does something with the ledger.
    ///
    /// # Errors
    /// What that says.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&mut this.lock())).await;
        match done {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime ends, and with it whoever asked.
            Err(_) => std::future::pending().await,
        }
    }

    /// Makes something durable.
    ///
    /// # Errors
    /// When it is not; then it did not happen.
    pub(crate) async fn note(&self, whats: Vec<What>) -> Result<(), LedgerError> {
        let totals = self.run(|ledger| {
            ledger.note(whats)?;
            Ok(ledger.view().totals()?)
        });
        self.stir(totals.await?);
        Ok(())
    }

    /// Says that there may be something to do.
    pub(crate) fn stir(&self, totals: Totals) {
        self.0.board.set_totals(totals);
        self.0.heard.notify_one();
        self.0.said.notify_one();
    }

    /// Waits until something may be to be answered.
    pub(crate) async fn heard(&self) {
        self.0.heard.notified().await;
    }

    /// Waits until something may be to be sent.
    pub(crate) async fn said(&self) {
        self.0.said.notified().await;
    }

    /// Takes in what the other node wrote.
    ///
    /// # Errors
    /// What the ledger says.
    pub(crate) async fn refresh(&self) -> Result<(), LedgerError> {
        let totals = self.run(|ledger| match ledger.refresh()? {
            true => Ok(Some(ledger.view().totals()?)),
            false => Ok(None),
        });
        if let Some(totals) = totals.await? {
            self.stir(totals);
        }
        Ok(())
    }

    /// Says how much there is.
    ///
    /// # Errors
    /// What the ledger says.
    pub(crate) async fn totals(&self) -> Result<Totals, LedgerError> {
        self.run(|ledger| Ok(ledger.view().totals()?)).await
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // A view that was left in the middle of something has rolled back; the journal is appended to in one call.
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
