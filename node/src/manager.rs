//! What the service manager is told: that the daemon is ready, that it lives, that it stops.
//!
//! It lives when its loops do, not when its process does: the loop of the side has to answer for its
//! status, and the lease has to look at its clock. Without a service manager that listens nothing is said.
//! The messages are those of `sd_notify(3)`; launchd has nothing like them.

use std::time::Duration;

use carry::Ask;
use sd_notify::NotifyState;
use shared::control::Request;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::control::Served;
use crate::lease::Lease;

/// How often a service manager is told, as a share of the time after which it gives the daemon up.
const TOLD_EACH: u32 = 4;
/// How long the lease may not have looked at its clock. It does so each second.
const LEASE_STILL_MAX: Duration = Duration::from_secs(10);

/// The daemon serves clients.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The daemon was told to stop.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells a service manager that waits for it that the daemon lives, for as long as it does.
pub(crate) async fn watchdog(served: watch::Receiver<Option<Served>>, lease: Lease) {
    let Some(given_up_after) = sd_notify::watchdog_enabled() else {
        return;
    };
    let each = given_up_after / TOLD_EACH;
    loop {
        sleep(each).await;
        let loop_now = served.borrow().clone();
        let answered = match loop_now {
            Some(served) => timeout(given_up_after, answers(&served.asks)).await.is_ok(),
            // It has crashed; the supervisor knows.
            None => true,
        };
        match () {
            () if !answered => warn!("the loop does not answer"),
            () if !lease.is_looked_after(LEASE_STILL_MAX) => warn!("the lease is not looked after"),
            () => tell(&[NotifyState::Watchdog]),
        }
    }
}

/// Asks the side's loop for something that it has to do itself. Returns when it has, or has ended.
async fn answers(asks: &mpsc::Sender<Ask>) {
    let (answer, mut answers) = mpsc::channel(1);
    let request = Request::Status;
    if asks.send(Ask { request, answer }).await.is_ok() {
        answers.recv().await;
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "the service manager was not told");
    }
}
