//! What the tasks of one lease share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::control::{Request, Response};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::board::Board;
use crate::books::Books;
use crate::pace::Pace;
use crate::port::{Leave, Port};
use crate::telegram::Telegram;

/// How long one request that changes something at Telegram may take.
pub(crate) const EFFECT_TIMEOUT: Duration = Duration::from_secs(8);
/// How long until leave is asked for again.
const LEAVE_AGAIN: Duration = Duration::from_millis(200);
/// How often it is looked whether the other node has what was noted.
const AGREED_AGAIN: Duration = Duration::from_millis(10);
/// How long what arrived may take to the other node before it is confirmed to Telegram all the same.
pub(crate) const REPLICATE_WAIT: Duration = Duration::from_millis(500);

/// One lease of this node, while it lasts.
pub(crate) struct Term {
    pub(crate) port: Arc<dyn Port>,
    pub(crate) telegram: Telegram,
    pub(crate) books: Books,
    pub(crate) board: Board,
    /// The name of this node.
    pub(crate) node: String,
    /// The number of the bot.
    pub(crate) bot: u64,
    /// The name of the bot, once Telegram has said it.
    pub(crate) name: watch::Sender<Option<String>>,
    /// Whether nothing more is to be begun.
    pub(crate) ending: watch::Receiver<bool>,
    pace: Mutex<Pace>,
}

impl Term {
    pub(crate) fn new(
        port: Arc<dyn Port>,
        telegram: Telegram,
        books: Books,
        board: Board,
        (node, bot): (String, u64),
        ending: watch::Receiver<bool>,
    ) -> Self {
        let pace = Mutex::new(Pace::start(port.now()));
        Self {
            port,
            telegram,
            books,
            board,
            node,
            bot,
            name: watch::Sender::new(None),
            ending,
            pace,
        }
    }

    pub(crate) fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for leave for one effect of the usual length. It may be long until the lease is renewed, or never.
    pub(crate) async fn leave(&self) -> Leave {
        loop {
            if let Some(leave) = Leave::get(&self.port, EFFECT_TIMEOUT) {
                return leave;
            }
            sleep(LEAVE_AGAIN).await;
        }
    }

    /// Gives what was noted a moment to be durable on the other node, too; returns whether it is. `longer` counts while the journal
    /// is known to travel and only its end is missing; where it does not travel at all, nothing is won by waiting.
    pub(crate) async fn replicate(&self, wait: Duration, longer: Duration) -> bool {
        let Ok(Some((path, len))) = self.books.run(|ledger| Ok(ledger.end())).await else {
            return true;
        };
        let begun = Instant::now();
        loop {
            let limit = match self.port.ask(Request::Agreed(path.clone())).await {
                Response::Agreed(Some(agreed)) if agreed >= len => return true,
                Response::Agreed(Some(_)) => longer,
                // The sync does not run, and nothing arrives anywhere.
                Response::Refused(_) => return false,
                _ => wait,
            };
            if begun.elapsed() >= limit {
                return false;
            }
            sleep(AGREED_AGAIN).await;
        }
    }

    /// Waits until Telegram has said the name of the bot.
    pub(crate) async fn name(&self) -> String {
        let mut names = self.name.subscribe();
        loop {
            if let Some(name) = &*names.borrow_and_update() {
                return name.clone();
            }
            // The sender lives as long as the term.
            let _ = names.changed().await;
        }
    }
}
