//! Memory of the process: little of it stays when work is over.
//!
//! A first sync allocates on many threads, and what they free stays with the allocator, scattered. So
//! there are few places to allocate from, and when the trees have become equal the rest is given back.

use std::sync::Arc;
use std::time::Duration;

use disk::Replica;
use shared::control::{Event as Told, Happening};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "linux")]
use linux as platform;
#[cfg(target_os = "macos")]
use macos as platform;

/// Has all threads allocate from few places. Call it before they start.
pub(crate) use platform::few_arenas;

/// Wait before memory is given back, and between two times: a burst of small edits needs it again.
const REST: Duration = Duration::from_secs(2);

/// Gives memory back whenever the trees have become equal, until the events end.
pub(crate) async fn give_back(replica: Arc<Replica>, mut told: Receiver<Told>) {
    loop {
        match told.recv().await {
            Ok(event) if matches!(event.what, Happening::Settled { .. }) => {
                sleep(REST).await;
                let replica = Arc::clone(&replica);
                let give_back = move || {
                    replica.pack();
                    platform::give_back();
                };
                // It ends by itself; a failure to start it costs memory alone.
                let _ = spawn_blocking(give_back).await;
                // What came meanwhile is covered.
                told = told.resubscribe();
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
