//! Work on the disk that a state machine asks for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use disk::{Look, Replica, Report, RulesFile};
use shared::control::{Pick, Refused, Request, Response, exit};
use shared::ignore::RULES_FILE;
use shared::path::RelPath;
use shared::transfer::Outcome;
use shared::tree::{Entry, Gen, Sight};
use shared::wire::TrailRow;
use tokio::task::spawn_blocking;
use tracing::{debug, info_span, warn};

/// What the disk has to tell a state machine.
#[derive(Debug)]
pub enum Done {
    /// This was seen.
    Observed(Vec<(RelPath, Sight)>),
    /// A batch was applied.
    Applied(Gen, Vec<Outcome>),
    /// Something moved here, and a look may not find out by itself.
    Moved(RelPath),
    /// A look ended.
    Looked {
        /// Whether it was a sweep.
        sweep: bool,
        /// Paths to look at again; or why the root cannot be looked at.
        result: Result<Vec<RelPath>, String>,
    },
    /// These were read too soon after they had been written. It comes before the end of the look.
    Racy(Vec<RelPath>),
    /// This stands there, and came through these copies of the mirror.
    Passed(Vec<TrailRow>),
    /// Base rows are durable.
    Committed(Gen),
    /// The disk cannot be used.
    DiskFailed(String),
    /// The rules' file was read; `None` when there is none.
    RulesRead(Option<RulesFile>),
}

impl From<Report> for Done {
    fn from(report: Report) -> Self {
        match report {
            Report::Observed(rows) => Self::Observed(rows),
            Report::Applied { batch, outcomes } => Self::Applied(batch, outcomes),
            Report::Moved(path) => Self::Moved(path),
            Report::Passed(rows) => Self::Passed(rows),
        }
    }
}

/// Why a side's loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// Its folder was accepted as it is now: it is to be opened as a new one.
    RootAccepted,
}

/// Starts work on the disk; each piece ends as a [`Done`].
#[derive(Clone)]
pub struct Jobs {
    replica: Arc<Replica>,
    stop: Arc<AtomicBool>,
    done: Arc<dyn Fn(Done) + Send + Sync>,
}

impl Jobs {
    /// Makes a starter of work on `replica`.
    pub fn new(replica: Arc<Replica>, done: impl Fn(Done) + Send + Sync + 'static) -> Self {
        Self {
            replica,
            stop: Arc::default(),
            done: Arc::new(done),
        }
    }

    /// Returns the disk.
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// Tells running looks to end as soon as they can.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Passes something on to the state machine.
    pub fn done(&self, done: Done) {
        (self.done)(done);
    }

    /// Looks at the tree.
    pub fn look(&self, look: Look) {
        let jobs = self.clone();
        spawn_blocking(move || {
            let sweep = look.is_sweep();
            let _span = info_span!("look", sweep).entered();
            if let Look::Reread { .. } | Look::Racy(_) = look {
                // Nobody waits for it. What it finds is reported as observed, and a root that cannot
                // be looked at is the next sweep's matter.
                if let Err(error) = jobs.replica.look(&look, &jobs.stop) {
                    debug!(%error, "files were not read again");
                }
                return;
            }
            let result = jobs
                .replica
                .look(&look, &jobs.stop)
                .map(|looked| {
                    if !looked.racy.is_empty() {
                        jobs.done(Done::Racy(looked.racy));
                    }
                    looked.again
                })
                .map_err(|error| error.to_string());
            jobs.done(Done::Looked { sweep, result });
        });
    }

    /// Keeps the content of a file for a later merge, if it still is what stands there.
    pub fn keep_base(&self, path: RelPath, entry: Entry) {
        let replica = Arc::clone(&self.replica);
        spawn_blocking(move || {
            if let Err(error) = replica.keep_base(&path, &entry) {
                // A later merge falls back to a conflict copy.
                warn!(%path, %error, "the agreed content was not kept for merges");
            }
        });
    }

    /// Reads the rules' file.
    pub fn read_rules(&self) {
        let jobs = self.clone();
        spawn_blocking(move || match jobs.replica.read_rules() {
            Ok(file) => jobs.done(Done::RulesRead(file)),
            Err(error) => {
                warn!(file = RULES_FILE, %error, "rules not read; the last ones stay in force");
            }
        });
    }

    /// Serves what a client asks of the disk alone: kept versions.
    pub async fn serve(&self, request: Request) -> Response {
        let replica = Arc::clone(&self.replica);
        let served = spawn_blocking(move || match request {
            Request::Versions {
                path,
                below: Some(below),
                ..
            } => match replica.versions_below(&path, &below) {
                Ok(versions) => Response::Versions(versions),
                Err(error) => refused(format!(
                    "the kept versions below \"{path}\" cannot be listed: {error}"
                )),
            },
            Request::Versions { path, .. } => match replica.versions(&path) {
                Ok(versions) => Response::Versions(versions),
                Err(error) => refused(format!(
                    "the kept versions of \"{path}\" cannot be listed: {error}"
                )),
            },
            Request::Restore {
                path,
                pick: Pick::Each(names),
            } => match replica.restore_each(&path, &names) {
                Ok(restored) => Response::RestoredBelow(restored),
                Err(error) => refused(error.to_string()),
            },
            Request::Restore { path, pick } => match replica.restore(&path, &pick) {
                Ok(restored) => Response::Restored(restored),
                Err(error) => refused(error.to_string()),
            },
            other => refused(format!("{other:?} is not a request to the disk")),
        });
        served
            .await
            .unwrap_or_else(|error| refused(format!("the request failed: {error}")))
    }
}

fn refused(text: String) -> Response {
    Response::Refused(Refused {
        exit: exit::ERROR,
        text,
        fix: String::new(),
    })
}
