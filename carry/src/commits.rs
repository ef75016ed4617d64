//! Base rows on their way to the index, in order.

use std::sync::Arc;
use std::sync::mpsc;

use disk::Durable;
use disk::{Notes, Replica};
use shared::tree::Gen;
use shared::wire::AgreedRow;

use crate::Done;

struct Commit {
    batch: Gen,
    rows: Vec<AgreedRow>,
    notes: Notes,
    first: Durable,
}

/// Writes base rows one commit after another on a thread of its own. Dropping it ends the thread
/// when what was handed in is written.
pub struct Commits(mpsc::Sender<Commit>);

impl Commits {
    /// Starts the thread; `done` hears of every commit.
    pub fn start(
        replica: Arc<Replica>,
        done: impl Fn(Done) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, commits) = mpsc::channel::<Commit>();
        std::thread::Builder::new()
            .name("commits".into())
            .spawn(move || {
                for commit in commits {
                    let resolved = commit.notes.resolved;
                    match replica.commit(&commit.rows, commit.notes, resolved, commit.first) {
                        Ok(()) => done(Done::Committed(commit.batch)),
                        Err(error) => return done(Done::DiskFailed(error.to_string())),
                    }
                }
            })?;
        Ok(Self(sender))
    }

    /// Hands in rows; ends as [`Done::Committed`], or once as [`Done::DiskFailed`].
    pub fn commit(&self, batch: Gen, rows: Vec<AgreedRow>, notes: Notes, first: Durable) {
        // After a failure the thread is gone, and the failure was told.
        let _ = self.0.send(Commit {
            batch,
            rows,
            notes,
            first,
        });
    }
}
