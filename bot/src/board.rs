//! What a node says of its bot.

use std::sync::Arc;

use shared::control::{BotState, BotStatus};
use tokio::sync::watch;

use crate::view::Totals;

/// The status of the bot. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Board(Arc<watch::Sender<BotStatus>>);

impl Board {
    pub(crate) fn new(status: watch::Sender<BotStatus>) -> Self {
        Self(Arc::new(status))
    }

    pub(crate) fn set(&self, state: BotState) {
        self.0
            .send_if_modified(|status| std::mem::replace(&mut status.state, state) != state);
    }

    pub(crate) fn state(&self) -> BotState {
        self.0.borrow().state
    }

    pub(crate) fn met_rival(&self) {
        self.0.send_modify(|status| status.rivals += 1);
    }

    pub(crate) fn set_totals(&self, totals: Totals) {
        self.0.send_modify(|status| {
            status.inbox = totals.inbox;
            status.outbox = totals.outbox;
            status.last_update = totals.last_update;
            status.doubtful = totals.doubtful;
            status.quarantined = totals.quarantined;
            status.owner = totals.owner;
        });
    }
}
