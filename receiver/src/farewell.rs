//! The last connection of a receiver whose sync does not run any more.
//!
//! It is for the lease alone: the pusher hears that this side lets go of the role, and need not wait until it would have ended. On the
//! control stream nothing is said but that there is one, in a frame that may be skipped.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use carry::{LeaseLink, Takes};
use link::{Dialer, Fingerprint, LinkError};
use shared::wire::Frame;
use tokio::time::timeout;
use tracing::debug;

/// How long it may take. The lease ends by itself not long after.
const FAREWELL_WAIT: Duration = Duration::from_secs(4);

/// Connects once more, and lets whoever keeps the lease speak until `done`.
///
/// # Errors
/// When the pusher is not reached. Then the lease ends by itself.
pub async fn farewell(
    dialer: &Dialer,
    (address, key): (&str, Fingerprint),
    lease: &LeaseLink,
    done: impl Future<Output = ()>,
) -> Result<(), LinkError> {
    let connection = dialer.dial(address, key).await?;
    let (mut sender, receiver) = connection.open_control().await?;
    sender.send(&Frame::Unknown(u8::MAX).encode()).await?;
    let (outbox, control) = carry::control(sender, receiver, |frame, _room| {
        debug!(frame = frame.name(), "not heard any more");
    });
    let number = lease.linked(&connection);
    let begun: Arc<carry::Begun> = Arc::new(|_, _, _| {});
    let streams = carry::accept_streams(
        connection.clone(),
        Takes::default(),
        outbox,
        Some(begun),
        (lease.clone(), number),
    );
    let spoken = async {
        tokio::select! {
            () = done => {}
            _ = control => {}
            () = streams => {}
        }
    };
    let _ = timeout(FAREWELL_WAIT, spoken).await;
    lease.unlinked(number);
    connection.close("the sync of the receiver is parked");
    Ok(())
}
