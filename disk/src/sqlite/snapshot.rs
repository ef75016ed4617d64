//! Snapshot: one committed state of a database, copied through SQLite's backup API.
//!
//! The copy is made inside one read transaction, so all its pages are of one state, whatever is committed
//! meanwhile. With a write-ahead log that keeps nobody from writing. Without one, writers wait for the
//! copy, so its time is bounded.
//!
//! The same state gives the same bytes: those that the file itself will have when it is at rest. The
//! backup API writes counters of its own into the header of the copy; the header of the state that was
//! read is put in their place.
//!
//! The database is opened for reading, through a path without links: such a connection can neither change
//! the file nor take its log away, also when it is the last. With one exception nothing is ever put from
//! the log into the file here: when its program closes it *while* it is copied, the program is not the
//! last to close it, and leaves its log; then [`finish_close`] does for it what it would have done.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use shared::chunk::{DatabaseHeader, HEADER_BYTES};

/// Wait for a lock that a program holds on the database.
const BUSY: Duration = Duration::from_millis(250);
/// Longest time that programs without a write-ahead log are kept from writing.
const BLOCKING_MAX: Duration = Duration::from_secs(1);
/// Pages that are copied between two looks at the time.
const PAGES: i32 = 512;
/// Through one connection at a time, and never through a link.
const READ_ONLY: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY
    .union(OpenFlags::SQLITE_OPEN_NOFOLLOW)
    .union(OpenFlags::SQLITE_OPEN_NO_MUTEX);
const WRITABLE: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE
    .union(OpenFlags::SQLITE_OPEN_NOFOLLOW)
    .union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// Why there is no snapshot now.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSnapshot {
    #[error("the caller asked to stop")]
    Stopped,
    #[error("its program locks it")]
    Locked,
    #[error("it is too large to be copied while its writers wait")]
    TooLong,
    #[error(transparent)]
    Sqlite(rusqlite::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rusqlite::Error> for NoSnapshot {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            _ => Self::Sqlite(error),
        }
    }
}

/// Copies a committed state of the database at `from` into the empty file `into`, which is at `to`.
///
/// The caller has claimed the database ([`super::locks::InUse`]). `copied` is called while it still is
/// being read.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    into: &File,
    stop: &AtomicBool,
    copied: impl FnOnce(),
) -> Result<(), NoSnapshot> {
    let source = Connection::open_with_flags(from, READ_ONLY)?;
    source.busy_timeout(BUSY)?;
    source.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    source.execute_batch("BEGIN")?;
    // The first read takes the lock; this one needs nothing but the header.
    source.pragma_query_value(None, "schema_version", |_| Ok(()))?;
    let begun = Instant::now();
    let mode: String = source.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    let header = committed_header(&source);
    {
        let mut target = Connection::open_with_flags(to, WRITABLE)?;
        // A copy that is not finished is thrown away, so nothing has to protect it.
        target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
        let backup = Backup::new(&source, &mut target)?;
        loop {
            match backup.step(PAGES)? {
                StepResult::Done => break,
                StepResult::More => {}
                _ => return Err(NoSnapshot::Locked),
            }
            if stop.load(Ordering::Relaxed) {
                return Err(NoSnapshot::Stopped);
            }
            if mode != "wal" && begun.elapsed() > BLOCKING_MAX {
                return Err(NoSnapshot::TooLong);
            }
        }
    }
    copied();
    if let Some(header) = header {
        into.write_all_at(&header, 0)?;
    }
    Ok(())
}

/// Ends the use of a database for a program that closed it while it was being read: its log goes into the
/// file, and then away. If another program has it open by now, nothing happens.
pub(super) fn finish_close(at: &Path) -> Result<(), NoSnapshot> {
    let database = Connection::open_with_flags(at, WRITABLE)?;
    database.pragma_query_value(None, "schema_version", |_| Ok(()))?;
    database.close().map_err(|(_, error)| error.into())
}

/// Reads the header of the state that the open transaction sees. `None` when SQLite was built without
/// `SQLITE_ENABLE_DBPAGE_VTAB`: then the copy keeps the backup's counters, which are the same for every
/// copy of a state as well.
fn committed_header(source: &Connection) -> Option<[u8; HEADER_BYTES]> {
    let first_page: Vec<u8> = source
        .query_row("SELECT data FROM sqlite_dbpage WHERE pgno = 1", [], |row| {
            row.get(0)
        })
        .inspect_err(|error| tracing::debug!(%error, "the header of a database cannot be read"))
        .ok()?;
    let header = *first_page.first_chunk()?;
    DatabaseHeader::parse(&header).map(|_| header)
}
