//! Measures the process for its status.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use link::Traffic;
use rustix::time::{ClockId, clock_gettime};
use shared::control::ProcessStatus;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "linux")]
use linux::resident_bytes;
#[cfg(target_os = "macos")]
use macos::resident_bytes;

/// How far back rates look.
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    cpu: Duration,
    bytes: u64,
}

/// Remembers what was measured over the last minute, as far as somebody asked.
#[derive(Debug)]
pub(crate) struct Meter {
    started: Instant,
    samples: VecDeque<Sample>,
}

impl Meter {
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        let first = Sample {
            at: now,
            cpu: cpu_time(),
            bytes: 0,
        };
        Self {
            started: now,
            samples: VecDeque::from([first]),
        }
    }

    pub(crate) fn measure(&mut self, traffic: Traffic) -> ProcessStatus {
        let now = Sample {
            at: Instant::now(),
            cpu: cpu_time(),
            bytes: traffic.sent + traffic.received,
        };
        // One sample older than the window stays, so that there is always something to compare with.
        while self
            .samples
            .get(1)
            .is_some_and(|next| now.at - next.at >= WINDOW)
        {
            self.samples.pop_front();
        }
        let since = self.samples.front().copied().unwrap_or(now);
        if self
            .samples
            .back()
            .is_none_or(|last| now.at - last.at >= Duration::from_secs(1))
        {
            self.samples.push_back(now);
        }
        let seconds = (now.at - since.at).as_secs_f64().max(0.001);
        let busy = now.cpu.saturating_sub(since.cpu).as_secs_f64();
        let bytes = now.bytes.saturating_sub(since.bytes) as f64;
        ProcessStatus {
            cpu_pct: (busy / seconds * 1000.0).round() / 10.0,
            rss_bytes: resident_bytes(),
            net_bytes_min: (bytes / seconds.max(1.0) * 60.0) as u64,
            uptime_ms: self.started.elapsed().as_millis() as u64,
            restarts: 0,
        }
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
