//! How much the other machine may ask for at one time.
//!
//! Whoever gives holds a thread and some parts in memory until they are read. So few give at one time,
//! the others wait with nothing but what they were asked, and there is a limit to those as well.

use std::sync::Arc;

use link::Priority;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most requests for content that may be unanswered. An honest partner has a few hundred: one for each
/// file of some chunks in the batches that it is taking.
pub const ASKED_MAX: usize = 1024;
/// Most requests of the other machine's clients that may be unanswered.
pub const CLIENTS_MAX: usize = 64;
/// Why a connection ends on which one of these limits is passed.
pub const ASKS_TOO_MUCH: &str = "the other machine asks for more at one time than any honest one";
/// Most that give at one time, for small batches and for long files each, so that a note does not wait
/// for a video.
const GIVING_MAX: usize = 8;

/// The requests for content of one connection.
#[derive(Debug, Clone)]
pub struct Gives {
    asked: Arc<Semaphore>,
    small: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
}

impl Default for Gives {
    fn default() -> Self {
        Self {
            asked: Arc::new(Semaphore::new(ASKED_MAX)),
            small: Arc::new(Semaphore::new(GIVING_MAX)),
            bulk: Arc::new(Semaphore::new(GIVING_MAX)),
        }
    }
}

impl Gives {
    /// Takes a request; `None` when [`ASKED_MAX`] are unanswered.
    pub fn ask(&self) -> Option<Ticket> {
        let asked = Arc::clone(&self.asked).try_acquire_owned().ok()?;
        Some(Ticket {
            gives: self.clone(),
            _asked: asked,
        })
    }
}

/// A request that was taken; keep it until it is answered.
#[derive(Debug)]
pub struct Ticket {
    gives: Gives,
    _asked: OwnedSemaphorePermit,
}

impl Ticket {
    /// Waits for the right to give; keep it until the last part is out.
    pub async fn seat(&self, priority: Priority) -> Option<OwnedSemaphorePermit> {
        let seats = if priority == Priority::Bulk {
            &self.gives.bulk
        } else {
            &self.gives.small
        };
        // They are never closed.
        Arc::clone(seats).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn few_give_and_a_limit_waits() {
        let gives = Gives::default();
        let tickets: Vec<_> = (0..ASKED_MAX).map(|_| gives.ask().unwrap()).collect();
        assert!(gives.ask().is_none(), "one more than the limit");
        let mut seats = Vec::new();
        for ticket in &tickets[..GIVING_MAX] {
            seats.push(ticket.seat(Priority::Small).await);
        }
        let more = at_once(tickets[GIVING_MAX].seat(Priority::Small)).await;
        assert!(more.is_none(), "the small seats are taken");
        let bulk = at_once(tickets[GIVING_MAX].seat(Priority::Bulk)).await;
        assert!(bulk.is_some(), "long files have seats of their own");
        seats.pop();
        assert!(
            at_once(tickets[GIVING_MAX].seat(Priority::Small))
                .await
                .is_some()
        );
        drop(tickets);
        assert!(gives.ask().is_some());
    }

    /// Returns what is ready at once.
    async fn at_once<T>(work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = std::future::ready(()) => None,
        }
    }
}
