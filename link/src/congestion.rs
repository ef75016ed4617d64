//! How much may be in flight: congestion control for a line that loses datagrams by chance.
//!
//! The window is steered by the *queue* and not by loss alone. A datagram that is lost while the
//! round trip is as short as ever was lost by chance, and the window stays. When the queue shows in
//! the round trip, or when too large a part of a round is lost, the line is full: the window becomes
//! what the line has carried without the queue, `delivery rate × floor of the round trip`.
//!
//! Where it comes from:
//! * the cut to the bandwidth-delay product: TCP Westwood+ (Grieco and Mascolo, ACM CCR 34(2), 2004);
//! * the rate as what was acknowledged over one round trip, and the bound on loss by share: BBR
//!   (Cardwell et al., ACM Queue 14(5), 2016; draft-ietf-ccwg-bbr);
//! * the end of slow start by delay, with its thresholds: HyStart++ (RFC 9406);
//! * the pause that finds the floor again: BBR's ProbeRTT, shorter, and after each cut as well.
//!
//! Pure: time is an argument. [`Window`] decides, [`QueueAware`] is what quinn holds of it.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

/// First window. 1 MB from cold takes 0.21 s with it and 0.36 s with the default.
const INITIAL_BYTES: u64 = 128 << 10;
/// Largest window: no more than this may wait for an acknowledgement anyway.
pub(crate) const WINDOW_BYTES_MAX: u64 = 16 << 20;
/// Smallest window, in datagrams.
const WINDOW_DATAGRAMS_MIN: u64 = 4;
/// Window after persistent congestion, in datagrams (RFC 9002, section 7.6).
const COLLAPSED_DATAGRAMS: u64 = 2;

/// Slow start doubles the window each round up to here, and from here on adds half of it. The
/// queue is seen a round trip late: doubling puts a whole window too much into it, this a half.
const DOUBLING_BYTES_MAX: u64 = 256 << 10;
/// Outside of slow start a round adds at most this part of the window.
const STEP_PART: u64 = 16;

/// A queue is one that is seen in this part of the floor, within the bounds below (RFC 9406).
const QUEUE_PART: u32 = 8;
const QUEUE_MIN: Duration = Duration::from_millis(4);
const QUEUE_MAX: Duration = Duration::from_millis(16);
/// So much of it is the beginning of one: the window grows carefully, and the floor is not seen.
const QUEUE_SOME_PERCENT: u32 = 50;
/// So many round trips say what the line does: the least of them what the queue is, the middle one
/// what the floor is. One late answer is no queue, and one early one no floor.
const SAMPLES: usize = 8;

/// Loss of more than this share of a window in a round is no chance.
const LOST_PERCENT_MAX: u64 = 3;
/// And more than so many datagrams, so that a small window is not cut for one or two of them.
const LOST_DATAGRAMS_MIN: u64 = 4;
/// What a cut leaves at most, in percent.
const CUT_PERCENT: u64 = 85;

/// A floor that was not seen for so long is looked for again.
const FLOOR_AGE_MAX: Duration = Duration::from_secs(10);
/// What one look may find it to be, at most, in times of what it was: a stall is no longer way.
const FLOOR_RISE_MAX: u32 = 2;
/// Part of the bandwidth-delay product that may be in flight while the floor is looked for, in percent.
const DRAIN_PERCENT: u64 = 75;
/// A window that was not filled for so long says nothing about the line any more.
const UNUSED_MAX: Duration = Duration::from_secs(60);

/// What was delivered is noted this often in a round trip, at least.
const MARKS_IN_ROUND: u32 = 8;
const MARK_GAP_MIN: Duration = Duration::from_micros(500);
/// Notes kept. A round trip that takes longer than all of them is measured by the oldest.
const MARKS_MAX: usize = 64;

/// Decides how many bytes may be in flight.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    bytes: u64,
    datagram_bytes: u64,
    phase: Phase,
    round: Round,
    path: Path,
    delivery: Delivery,
    /// Losses of what was sent up to here have been answered.
    answered_until: Option<Instant>,
    /// When the window was last the limit of what was sent.
    filled_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is known of the line.
    SlowStart,
    /// The line is full, or nearly: the window grows by `step` a round.
    Steady { step: u64 },
    /// Less than the line carries is in flight, so that the queue empties and the floor shows.
    Drain {
        stage: Draining,
        /// What the line was seen to carry without a queue, in bytes.
        product: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Draining {
    /// What was sent before is still on its way.
    Emptying,
    /// What answers now met no queue of ours.
    Looking,
}

/// One round trip's worth of acknowledgements.
#[derive(Debug, Clone)]
struct Round {
    began: Instant,
    over: bool,
    acked: u64,
    /// Of `acked`, what was sent while the window was the limit.
    acked_at_limit: u64,
    lost: u64,
    /// The least round trip that was usual in it.
    least: Option<Duration>,
    /// The least round trip of the answer that is being taken.
    least_of_answer: Option<Duration>,
}

impl Round {
    fn new(began: Instant) -> Self {
        Self {
            began,
            over: false,
            acked: 0,
            acked_at_limit: 0,
            lost: 0,
            least: None,
            least_of_answer: None,
        }
    }

    fn is_at_limit(&self) -> bool {
        2 * self.acked_at_limit > self.acked
    }
}

/// What the round trip says.
#[derive(Debug, Clone)]
struct Path {
    /// The least that was usual since it was last looked for.
    floor: Option<Duration>,
    floor_seen: Instant,
    latest: VecDeque<Duration>,
}

impl Path {
    /// Notes the round trip of one answer; returns the usual one of late, which is the middle one.
    fn note(&mut self, now: Instant, rtt: Duration) -> Duration {
        if self.latest.len() == SAMPLES {
            self.latest.pop_front();
        }
        self.latest.push_back(rtt);
        let mut sorted: Vec<Duration> = self.latest.iter().copied().collect();
        sorted.sort_unstable();
        let usual = sorted[sorted.len() / 2];
        let floor = self.floor.map_or(usual, |floor| floor.min(usual));
        self.floor = Some(floor);
        if usual <= floor + queue_from(floor) * QUEUE_SOME_PERCENT / 100 {
            self.floor_seen = now;
        }
        usual
    }

    /// Returns whether our datagrams wait somewhere, for at least this part of what is a queue.
    fn has_queue(&self, percent: u32) -> bool {
        let full = self.latest.len() == SAMPLES;
        let (Some(floor), Some(least), true) = (self.floor, self.latest.iter().min(), full) else {
            return false;
        };
        *least >= floor + queue_from(floor) * percent / 100
    }
}

fn queue_from(floor: Duration) -> Duration {
    (floor / QUEUE_PART).clamp(QUEUE_MIN, QUEUE_MAX)
}

/// What has arrived, and how fast.
#[derive(Debug, Clone, Default)]
struct Delivery {
    bytes: u64,
    /// What had been delivered when; oldest first.
    marks: VecDeque<(Instant, u64)>,
    /// When something arrived and there was nothing more to send. The delivery since before then says
    /// what was sent, and not what the line carries.
    idle_at: Option<Instant>,
}

impl Delivery {
    fn mark(&mut self, now: Instant, floor: Duration) {
        let gap = (floor / MARKS_IN_ROUND).max(MARK_GAP_MIN);
        let due = |(at, _): &(Instant, u64)| now.saturating_duration_since(*at) >= gap;
        if self.marks.back().is_none_or(due) {
            if self.marks.len() == MARKS_MAX {
                self.marks.pop_front();
            }
            self.marks.push_back((now, self.bytes));
        }
    }

    /// Returns what a path of `floor` carries without a queue, in bytes, as the last `rtt` showed it.
    ///
    /// Over a whole round trip, so that answers that arrive in a heap do not look like speed.
    fn product(&self, now: Instant, rtt: Duration, floor: Duration) -> Option<u64> {
        let before = |(at, _): &&(Instant, u64)| now.saturating_duration_since(*at) >= rtt;
        let oldest = self.marks.front();
        let (at, delivered) = self.marks.iter().rev().find(before).or(oldest)?;
        if self.idle_at.is_some_and(|idle_at| idle_at >= *at) {
            return None;
        }
        let seconds = now.saturating_duration_since(*at).as_secs_f64();
        let bytes = (self.bytes - delivered) as f64;
        (seconds > 0.0).then(|| (bytes / seconds * floor.as_secs_f64()) as u64)
    }
}

impl Window {
    pub(crate) fn new(now: Instant, datagram_bytes: u16) -> Self {
        Self {
            bytes: INITIAL_BYTES,
            datagram_bytes: u64::from(datagram_bytes),
            phase: Phase::SlowStart,
            round: Round::new(now),
            path: Path {
                floor: None,
                floor_seen: now,
                latest: VecDeque::with_capacity(SAMPLES),
            },
            delivery: Delivery::default(),
            answered_until: None,
            filled_at: now,
        }
    }

    /// Returns how many bytes may be in flight.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes that something is sent at `now`.
    pub(crate) fn handle_sent(&mut self, now: Instant) {
        if now.saturating_duration_since(self.filled_at) > UNUSED_MAX {
            self.filled_at = now;
            self.bytes = self.bytes.min(INITIAL_BYTES);
            self.phase = Phase::SlowStart;
        }
    }

    /// Takes that `bytes`, sent at `sent`, have arrived. `idle`: there was nothing more to send.
    pub(crate) fn handle_acked(&mut self, now: Instant, sent: Instant, bytes: u64, idle: bool) {
        let rtt = now.saturating_duration_since(sent);
        self.delivery.bytes += bytes;
        self.round.acked += bytes;
        // Datagrams wait for each other to be answered; only the last one's time is the line's.
        let least = self.round.least_of_answer.map_or(rtt, |it| it.min(rtt));
        self.round.least_of_answer = Some(least);
        self.round.over |= sent >= self.round.began;
        if idle {
            self.delivery.idle_at = Some(now);
            return;
        }
        self.filled_at = now;
        self.round.acked_at_limit += bytes;
        if self.phase == Phase::SlowStart {
            let part = if self.bytes < DOUBLING_BYTES_MAX {
                1
            } else {
                2
            };
            self.bytes = (self.bytes + bytes / part).min(WINDOW_BYTES_MAX);
        }
    }

    /// Takes that this was all that one answer acknowledged.
    pub(crate) fn handle_acks_end(&mut self, now: Instant) {
        let Some(rtt) = self.round.least_of_answer.take() else {
            return;
        };
        let usual = self.path.note(now, rtt);
        self.round.least = Some(self.round.least.map_or(usual, |least| least.min(usual)));
        if self.phase == Phase::SlowStart && self.round.is_at_limit() && self.path.has_queue(100) {
            self.cut(now);
        }
        self.delivery.mark(now, self.path.floor.unwrap_or(rtt));
        if self.round.over {
            self.end_round(now);
            self.round = Round::new(now);
        }
    }

    fn end_round(&mut self, now: Instant) {
        match self.phase {
            Phase::SlowStart => {}
            Phase::Drain { stage, product } => self.end_drain(now, stage, product),
            // Whoever has little to say makes no queue, so there is nothing to look behind.
            Phase::Steady { .. } if !self.round.is_at_limit() => self.path.floor_seen = now,
            Phase::Steady { step } => {
                if now.saturating_duration_since(self.path.floor_seen) > FLOOR_AGE_MAX {
                    let product = self.product(now).min(self.bytes);
                    self.drain(product, product * DRAIN_PERCENT / 100);
                } else {
                    self.grow(step);
                }
            }
        }
    }

    fn end_drain(&mut self, now: Instant, stage: Draining, product: u64) {
        if stage == Draining::Emptying {
            let stage = Draining::Looking;
            self.phase = Phase::Drain { stage, product };
            return;
        }
        // What is left above the old floor is not our queue: a longer way, or somebody else's.
        if let (Some(old), Some(least)) = (self.path.floor, self.round.least) {
            let new = least.min(old * FLOOR_RISE_MAX);
            let longer = new.as_secs_f64() / old.as_secs_f64().max(f64::MIN_POSITIVE);
            let product = (product as f64 * longer) as u64;
            self.bytes = self.bytes.max(product).min(WINDOW_BYTES_MAX);
            self.path.floor = Some(new);
        }
        self.path.floor_seen = now;
        self.phase = Phase::Steady {
            step: self.datagram_bytes,
        };
    }

    fn grow(&mut self, step: u64) {
        self.bytes = (self.bytes + step).min(WINDOW_BYTES_MAX);
        let step = if self.path.has_queue(QUEUE_SOME_PERCENT) {
            self.datagram_bytes
        } else {
            (2 * step).min(self.bytes / STEP_PART)
        };
        self.phase = Phase::Steady {
            step: step.max(self.datagram_bytes),
        };
    }

    /// Takes that `bytes` were lost, the last of them sent at `sent`; 0 for a mark of a router.
    pub(crate) fn handle_lost(&mut self, now: Instant, sent: Instant, bytes: u64) {
        self.round.lost += bytes;
        if self.answered_until.is_some_and(|until| sent <= until) {
            return;
        }
        let share = self.bytes * LOST_PERCENT_MAX / 100;
        let heavy = self.round.lost > share.max(LOST_DATAGRAMS_MIN * self.datagram_bytes);
        // While the window is smaller than the line, a queue is not ours to shorten.
        let queue = !self.is_draining() && self.round.is_at_limit() && self.path.has_queue(100);
        if bytes == 0 || heavy || queue {
            self.cut(now);
        }
    }

    /// Takes that all that was sent for a long time was lost.
    pub(crate) fn handle_silence(&mut self, now: Instant) {
        self.bytes = COLLAPSED_DATAGRAMS * self.datagram_bytes;
        self.phase = Phase::SlowStart;
        self.answered_until = Some(now);
        self.round = Round::new(now);
        self.path.latest.clear();
        self.delivery.marks.clear();
    }

    pub(crate) fn handle_datagram_bytes(&mut self, bytes: u16) {
        self.datagram_bytes = u64::from(bytes);
        self.bytes = self.bytes.max(COLLAPSED_DATAGRAMS * self.datagram_bytes);
    }

    fn cut(&mut self, now: Instant) {
        self.answered_until = Some(now);
        let mut bytes = self.bytes * CUT_PERCENT / 100;
        // Of what was not tried, the delivery says nothing.
        if self.round.is_at_limit() && !self.is_draining() {
            bytes = bytes.min(self.product(now));
        }
        self.drain(bytes, bytes);
        self.round = Round::new(now);
    }

    fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Drain { .. })
    }

    fn drain(&mut self, product: u64, bytes: u64) {
        self.bytes = bytes.max(WINDOW_DATAGRAMS_MIN * self.datagram_bytes);
        self.phase = Phase::Drain {
            stage: Draining::Emptying,
            product,
        };
    }

    /// Returns what the line carries without a queue, in bytes; the window if nothing is known.
    fn product(&self, now: Instant) -> u64 {
        let (Some(floor), Some(rtt)) = (self.path.floor, self.path.latest.back()) else {
            return self.bytes;
        };
        self.delivery
            .product(now, *rtt, floor)
            .unwrap_or(self.bytes)
    }
}

/// The window as quinn calls it.
#[derive(Debug, Clone)]
struct QueueAware(Window);

impl Controller for QueueAware {
    fn on_sent(&mut self, now: Instant, _bytes: u64, _last_packet_number: u64) {
        self.0.handle_sent(now);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        _rtt: &RttEstimator,
    ) {
        self.0.handle_acked(now, sent, bytes, app_limited);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        _in_flight: u64,
        _app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        self.0.handle_acks_end(now);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        if is_persistent_congestion {
            self.0.handle_silence(now);
        } else {
            self.0.handle_lost(now, sent, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.0.handle_datagram_bytes(new_mtu);
    }

    fn window(&self) -> u64 {
        self.0.bytes()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_BYTES
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Makes the control of a new path.
#[derive(Debug)]
pub(crate) struct QueueAwareFactory;

impl ControllerFactory for QueueAwareFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(QueueAware(Window::new(now, current_mtu)))
    }
}

#[cfg(test)]
mod tests;
