//! Background: what keeps a core busy for long gives way to other programs.

use std::sync::Mutex;
use std::thread;

use crate::{lock, volume};

/// Does some work on a thread of its own, which gives way to other programs, and waits for the end of it.
/// Where the system has no thread left, it is done here.
///
/// # Panics
/// When the work does.
pub(crate) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let work = Mutex::new(Some(work));
    let take = || lock(&work).take();
    thread::scope(|scope| {
        // A thread that has stepped back cannot step forward again everywhere, so it is not one of a pool.
        let aside = thread::Builder::new()
            .name("background".to_owned())
            .spawn_scoped(scope, || {
                volume::give_way();
                take().map(|work| work())
            });
        let done = match aside {
            Ok(aside) => aside.join(),
            Err(_) => Ok(take().map(|work| work())),
        };
        match done {
            Ok(Some(done)) => done,
            Ok(None) => unreachable!("it is taken once"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
