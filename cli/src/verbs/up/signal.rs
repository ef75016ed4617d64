//! SIGINT and SIGTERM, as something that can be looked at.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shared::control::exit;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// How long a stop may take before a second signal is taken for impatience. One wish can arrive as
/// two signals: a terminal's and a parent's.
const STOP_TIME: Duration = Duration::from_secs(2);

/// Whether somebody wants the program to stop.
#[derive(Debug, Clone)]
pub(super) struct StopSignal(Arc<AtomicBool>);

impl StopSignal {
    /// Listens from now on, in a thread that ends with the program. A second signal, when the first has
    /// had its time, ends the program at once: nothing on disk depends on how it ends.
    pub(super) fn listen() -> io::Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let (mut interrupt, mut terminate) = {
            let _in_runtime = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            )
        };
        let note = Arc::clone(&came);
        thread::Builder::new()
            .name("stop signal".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let mut first: Option<Instant> = None;
                    loop {
                        tokio::select! {
                            _ = interrupt.recv() => {}
                            _ = terminate.recv() => {}
                        }
                        note.store(true, Ordering::Relaxed);
                        let since = first.get_or_insert_with(Instant::now);
                        if since.elapsed() > STOP_TIME {
                            process::exit(i32::from(exit::ERROR));
                        }
                    }
                });
            })?;
        Ok(Self(came))
    }

    /// Says whether one came.
    pub(super) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
