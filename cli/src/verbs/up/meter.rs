//! How far it is, how fast it goes, and how long it still takes.

use std::collections::VecDeque;
use std::time::Duration;

use shared::control::{PeerState, Status, SyncState};

use shared::words::{number, size, span};

/// The rate is that of this much of the past.
const RATE_OVER: Duration = Duration::from_secs(5);
/// A rate over less time than this is chance.
const RATE_OVER_MIN: Duration = Duration::from_millis(500);
/// Longest silence between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What both sides said, over time.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// When how many bytes had travelled, the latest last.
    samples: VecDeque<(Duration, u64)>,
}

impl Meter {
    /// Takes what both sides say at `at`. Nothing counts as done while either side waits for it.
    pub(super) fn observe(
        &mut self,
        at: Duration,
        pusher: &Status,
        receiver: Option<&Status>,
    ) -> Progress {
        let mut pending_files = pusher.sync.counts.pending_files;
        let mut pending_bytes = pusher.sync.counts.pending_bytes;
        if let Some(receiver) = receiver {
            pending_files = pending_files.max(receiver.sync.counts.pending_files);
            pending_bytes = pending_bytes.max(receiver.sync.counts.pending_bytes);
        }
        let files = pusher.sync.counts.files.max(pending_files);
        let bytes = pusher.sync.counts.bytes.max(pending_bytes);
        let is_looking = |status: &Status| {
            status.sync.state == SyncState::Starting || status.peer.state != PeerState::Linked
        };
        let rate = self.rate(at, bytes - pending_bytes);
        let estimate = || {
            let rate = rate.filter(|rate| *rate > 0)?;
            Some(pending_bytes.saturating_mul(1000) / rate)
        };
        let left_ms = match (pending_files, pending_bytes) {
            (0, 0) => None,
            _ => pusher.sync.eta_ms.or_else(estimate),
        };
        Progress {
            is_looking: is_looking(pusher) || receiver.is_some_and(is_looking),
            files,
            files_done: files - pending_files,
            bytes,
            bytes_done: bytes - pending_bytes,
            rate,
            left_ms,
        }
    }

    /// Returns bytes a second, when it can be told.
    fn rate(&mut self, at: Duration, done: u64) -> Option<u64> {
        // More was found to do: what was measured before was against another total.
        if self
            .samples
            .back()
            .is_some_and(|(_, before)| *before > done)
        {
            self.samples.clear();
        }
        self.samples.push_back((at, done));
        while self
            .samples
            .front()
            .is_some_and(|(then, _)| at.saturating_sub(*then) > RATE_OVER)
        {
            self.samples.pop_front();
        }
        let (then, before) = self.samples.front()?;
        let over = at.saturating_sub(*then);
        let millis = u64::try_from(over.as_millis()).ok()?;
        (over >= RATE_OVER_MIN).then(|| (done - before).saturating_mul(1000) / millis)
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// Whether a side still looks at its tree, so that the rest is not the whole yet.
    is_looking: bool,
    files: u64,
    files_done: u64,
    bytes: u64,
    bytes_done: u64,
    /// Bytes a second.
    rate: Option<u64>,
    left_ms: Option<u64>,
}

impl Progress {
    /// What [`Progress::permille`] counts to.
    pub(super) const WHOLE: u64 = 1000;

    /// Returns how much is done. The part that is behind counts: many small files are few bytes,
    /// and one large file is one file.
    pub(super) fn permille(&self) -> u64 {
        if self.is_looking {
            return 0;
        }
        let part = |done: u64, all: u64| {
            let permille = u128::from(done) * u128::from(Self::WHOLE);
            permille
                .checked_div(u128::from(all))
                .map_or(Self::WHOLE, |part| part as u64)
        };
        part(self.files_done, self.files).min(part(self.bytes_done, self.bytes))
    }

    /// Writes it for a person.
    pub(super) fn text(&self) -> String {
        if self.is_looking {
            return format!(
                "looking at both folders, {} files so far",
                number(self.files)
            );
        }
        let mut text = format!(
            "{} of {} files, {} of {}",
            number(self.files_done),
            number(self.files),
            size(self.bytes_done),
            size(self.bytes)
        );
        if let Some(rate) = self.rate {
            text += &format!(", {}/s", size(rate));
        }
        if let Some(left) = self.left_ms {
            text += &format!(", {} left", span(left));
        }
        text
    }
}

/// When the next plain line is due: at every tenth, and after some silence.
#[derive(Debug, Default)]
pub(super) struct Pace {
    told_at: Duration,
    told_tenth: u64,
}

impl Pace {
    /// Says whether a line is due, and counts it as told.
    pub(super) fn is_due(&mut self, at: Duration, permille: u64) -> bool {
        let tenth = permille * 10 / Progress::WHOLE;
        let is_due = tenth > self.told_tenth || at.saturating_sub(self.told_at) >= LINE_EVERY;
        if is_due {
            self.told_at = at;
            self.told_tenth = tenth;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::status::tests::healthy;

    const MIB: u64 = 1 << 20;

    fn pending(files: u64, bytes: u64) -> Status {
        let mut status = healthy();
        status.sync.state = SyncState::Syncing;
        status.sync.counts.files = 1000;
        status.sync.counts.bytes = 100 * MIB;
        status.sync.counts.pending_files = files;
        status.sync.counts.pending_bytes = bytes;
        status
    }

    fn observe(status: &Status, receiver: Option<&Status>) -> Progress {
        Meter::default().observe(Duration::ZERO, status, receiver)
    }

    #[test]
    fn how_much_is_done() {
        let check = |files, bytes, permille| {
            assert_eq!(observe(&pending(files, bytes), None).permille(), permille);
        };
        check(0, 0, 1000);
        check(1000, 100 * MIB, 0);
        check(500, 25 * MIB, 500);
        check(1, 75 * MIB, 250);
        // More is pending than the tree holds: deletes, or a tree that is still being looked at.
        check(4000, 0, 0);
        check(0, 200 * MIB, 0);

        let empty = {
            let mut status = pending(0, 0);
            status.sync.counts = Default::default();
            status
        };
        assert_eq!(observe(&empty, None).permille(), 1000);
        // The side that waits for more counts.
        let behind = observe(&pending(0, 0), Some(&pending(900, 10 * MIB)));
        assert_eq!(behind.permille(), 100);
    }

    #[test]
    fn before_there_is_a_whole() {
        let mut starting = pending(0, 0);
        starting.sync.state = SyncState::Starting;
        let mut alone = pending(0, 0);
        alone.peer.state = PeerState::Unlinked;
        for status in [starting, alone] {
            assert_eq!(observe(&status, None).permille(), 0);
            let progress = observe(&pending(0, 0), Some(&status));
            assert_eq!(
                progress.text(),
                "looking at both folders, 1,000 files so far"
            );
        }
    }

    #[test]
    fn how_fast() {
        let mut meter = Meter::default();
        let mut check = |millis, left: u64, text: &str| {
            let at = Duration::from_millis(millis);
            let progress = meter.observe(at, &pending(10, left * MIB), None);
            assert_eq!(progress.text(), format!("990 of 1,000 files, {text}"));
        };
        check(0, 90, "10.0 MiB of 100 MiB");
        check(100, 89, "11.0 MiB of 100 MiB");
        check(1000, 80, "20.0 MiB of 100 MiB, 10.0 MiB/s, 8.0 s left");
        // Only the last five seconds count.
        check(6000, 70, "30.0 MiB of 100 MiB, 2.0 MiB/s, 35 s left");
        // More was found.
        check(6100, 95, "5.0 MiB of 100 MiB");
        check(7100, 95, "5.0 MiB of 100 MiB, 0 B/s");
    }

    #[test]
    fn the_daemon_knows_better_how_long() {
        let mut status = pending(10, MIB);
        status.sync.eta_ms = Some(4200);
        assert!(observe(&status, None).text().ends_with(", 4.2 s left"));
        status.sync.counts.pending_files = 0;
        status.sync.counts.pending_bytes = 0;
        assert_eq!(
            observe(&status, None).text(),
            "1,000 of 1,000 files, 100 MiB of 100 MiB"
        );
    }

    #[test]
    fn when_a_line_is_due() {
        let mut pace = Pace::default();
        let mut check = |millis, permille, due| {
            let at = Duration::from_millis(millis);
            assert_eq!(pace.is_due(at, permille), due, "{millis} ms, {permille}");
        };
        check(100, 0, false);
        check(200, 99, false);
        check(300, 100, true);
        check(400, 150, false);
        check(500, 420, true);
        check(5499, 420, false);
        check(5500, 420, true);
        check(5600, 300, false);
        check(5700, 1000, true);
    }
}
