//! What is durable of the lease: `lease.json` among the node's state.

use std::io;

use config::Home;
use serde::{Deserialize, Serialize};
use shared::lease::Record;
use shared::utc::UtcMs;
use tracing::warn;

use crate::small_file;

const NAME: &str = "lease.json";

/// The record, and since when that side has the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    #[serde(flatten)]
    pub(crate) record: Record,
    /// For people; nothing is decided by it.
    pub(crate) since: UtcMs,
}

impl Kept {
    /// Adds the time to a record that follows another one.
    pub(crate) fn new(record: Record, before: Option<Self>, now: UtcMs) -> Self {
        let same = before.filter(|before| before.record.holder == record.holder);
        Self {
            record,
            since: same.map_or(now, |before| before.since),
        }
    }
}

/// Reads what was stored. One that cannot be read counts as none, which is safe: the pusher waits, and goes
/// beyond the epoch that its partner knows.
pub(crate) fn read(home: &Home) -> Option<Kept> {
    let file = home.state_dir().join(NAME);
    small_file::read(&file)
        .inspect_err(
            |error| warn!(%error, file = %file.display(), "what is stored of the lease is lost"),
        )
        .ok()
        .flatten()
}

pub(crate) fn write(home: &Home, kept: &Kept) -> io::Result<()> {
    small_file::write(&home.state_dir().join(NAME), kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::control::NodeSide;
    use shared::lease::Epoch;

    fn record(epoch: u64, holder: NodeSide) -> Record {
        Record {
            epoch: Epoch(epoch),
            holder,
            forced: false,
        }
    }

    #[test]
    fn since_is_when_the_side_got_the_role() {
        let first = Kept::new(record(1, NodeSide::Pusher), None, UtcMs(10));
        let again = Kept::new(record(2, NodeSide::Pusher), Some(first), UtcMs(20));
        assert_eq!(again.since, UtcMs(10));
        let other = Kept::new(record(3, NodeSide::Receiver), Some(again), UtcMs(30));
        assert_eq!(other.since, UtcMs(30));
    }

    #[test]
    fn a_record_that_cannot_be_read_counts_as_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let home = Home::new(dir.path().to_owned());
        std::fs::create_dir(home.state_dir()).expect("a folder");
        assert_eq!(read(&home), None);
        let kept = Kept::new(record(7, NodeSide::Receiver), None, UtcMs(10));
        write(&home, &kept).expect("it is written");
        assert_eq!(read(&home), Some(kept));
        std::fs::write(home.state_dir().join(NAME), "{\"epoch\":7").expect("it is written");
        assert_eq!(read(&home), None);
    }
}
