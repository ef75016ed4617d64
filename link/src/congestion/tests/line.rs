//! A bottleneck and its senders, as quinn drives them: window, pacing, an answer to every second
//! datagram, loss by three later ones. Pure, and the same for the same seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use crate::congestion::Window;

pub(super) const MTU: u64 = 1452;
/// What IP, UDP and Ethernet add to a datagram.
const AROUND: u64 = 46;
/// How long a single datagram waits for a second one before it is answered.
const ANSWER_DELAY: Duration = Duration::from_millis(25);
/// First guess of the round trip.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// The line between the two.
#[derive(Clone)]
pub(super) struct Line {
    /// Bytes a second.
    pub(super) rate: f64,
    /// From when on the rate is another one.
    pub(super) rate_later: Option<(Duration, f64)>,
    /// One way.
    pub(super) delay: Duration,
    /// From when on the delay is another one.
    pub(super) delay_later: Option<(Duration, Duration)>,
    pub(super) queue_bytes: u64,
    /// Share of the datagrams that is lost by chance.
    pub(super) loss: f64,
    /// Answers may come later than they should by up to this.
    pub(super) jitter: Duration,
    /// In this span the senders have nothing to send.
    pub(super) silent: Option<(Duration, Duration)>,
    /// They have something for the first half of each such time only.
    pub(super) batches: Option<Duration>,
    pub(super) seed: u64,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            rate: 12_500_000.0,
            rate_later: None,
            delay: Duration::from_millis(20),
            delay_later: None,
            queue_bytes: 128 << 10,
            loss: 0.0,
            jitter: Duration::ZERO,
            silent: None,
            batches: None,
            seed: 7,
        }
    }
}

/// What came of it.
pub(super) struct Report {
    pub(super) flows: Vec<FlowReport>,
    pub(super) queue_max: u64,
}

#[derive(Clone, Default)]
pub(super) struct FlowReport {
    pub(super) delivered: u64,
    /// Datagrams; the lost ones count.
    pub(super) sent: u64,
    pub(super) lost_by_chance: u64,
    pub(super) lost_by_overflow: u64,
    /// What was delivered in each tenth of a second.
    pub(super) tenths: Vec<u64>,
    /// The window at the end of each tenth of a second.
    pub(super) windows: Vec<u64>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A datagram has crossed the line.
    Arrive { flow: usize, number: u64 },
    /// The receiver has waited long enough with its answer.
    Answer { flow: usize, number: u64 },
    /// An answer has come back.
    Acked { flow: usize, numbers: Vec<u64> },
    /// The sender may send again.
    Send { flow: usize },
    /// Time to look for what was lost at the end, and to note where things stand.
    Tick,
}

struct Sender {
    window: Window,
    starts: Duration,
    next: u64,
    in_flight: BTreeMap<u64, Instant>,
    largest: Option<u64>,
    srtt: Duration,
    tokens: f64,
    filled: Instant,
    idle: bool,
    wakes: Option<Instant>,
    unanswered: Vec<u64>,
    /// When the last answer comes back.
    answered_at: Instant,
}

struct Run<'a> {
    line: &'a Line,
    start: Instant,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    count: u64,
    /// When the line is done with what waits.
    free: Instant,
    chance: u64,
    senders: Vec<Sender>,
    report: Report,
}

/// Lets flows that start at `starts` (in seconds) send for `time`.
pub(super) fn run(line: &Line, starts: &[u64], time: Duration) -> Report {
    let start = Instant::now();
    let sender = |seconds: &u64| {
        let starts = Duration::from_secs(*seconds);
        Sender {
            window: Window::new(start + starts, MTU as u16),
            starts,
            next: 0,
            in_flight: BTreeMap::new(),
            largest: None,
            srtt: INITIAL_RTT,
            tokens: 10.0 * MTU as f64,
            filled: start,
            idle: false,
            wakes: None,
            unanswered: Vec::new(),
            answered_at: start,
        }
    };
    let mut run = Run {
        line,
        start,
        events: BinaryHeap::new(),
        count: 0,
        free: start,
        chance: line.seed,
        senders: starts.iter().map(sender).collect(),
        report: Report {
            flows: vec![FlowReport::default(); starts.len()],
            queue_max: 0,
        },
    };
    run.all(start + time);
    run.report
}

impl Run<'_> {
    fn all(&mut self, end: Instant) {
        for flow in 0..self.senders.len() {
            let at = self.start + self.senders[flow].starts;
            self.at(at, Event::Send { flow });
        }
        self.at(self.start, Event::Tick);
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            if now > end {
                break;
            }
            self.step(now, event);
        }
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, event)));
    }

    fn step(&mut self, now: Instant, event: Event) {
        match event {
            Event::Send { flow } => {
                self.senders[flow].wakes = None;
                self.send(now, flow);
            }
            Event::Arrive { flow, number } => {
                self.report.flows[flow].delivered += MTU;
                *tenth(&mut self.report.flows[flow].tenths, now - self.start) += MTU;
                self.senders[flow].unanswered.push(number);
                if self.senders[flow].unanswered.len() >= 2 {
                    self.answer(now, flow);
                } else {
                    self.at(now + ANSWER_DELAY, Event::Answer { flow, number });
                }
            }
            Event::Answer { flow, number } => {
                if self.senders[flow].unanswered.contains(&number) {
                    self.answer(now, flow);
                }
            }
            Event::Acked { flow, numbers } => {
                self.acked(now, flow, &numbers);
                self.send(now, flow);
            }
            Event::Tick => self.tick(now),
        }
    }

    fn delay(&self, now: Instant) -> Duration {
        match self.line.delay_later {
            Some((from, delay)) if now - self.start >= from => delay,
            _ => self.line.delay,
        }
    }

    fn answer(&mut self, now: Instant, flow: usize) {
        let numbers = std::mem::take(&mut self.senders[flow].unanswered);
        let late = self.line.jitter.mul_f64(self.random());
        // Late, but never before the one that left earlier.
        let back = self.senders[flow]
            .answered_at
            .max(now + self.delay(now) + late);
        self.senders[flow].answered_at = back;
        self.at(back, Event::Acked { flow, numbers });
    }

    fn acked(&mut self, now: Instant, flow: usize, numbers: &[u64]) {
        let sender = &mut self.senders[flow];
        for number in numbers {
            let Some(sent) = sender.in_flight.remove(number) else {
                continue;
            };
            sender.window.handle_acked(now, sent, MTU, sender.idle);
            sender.largest = sender.largest.max(Some(*number));
            let rtt = now - sent;
            sender.srtt = if sender.srtt == INITIAL_RTT {
                rtt
            } else {
                (7 * sender.srtt + rtt) / 8
            };
        }
        sender.window.handle_acks_end(now);
        let lost = sender.largest.unwrap_or(0).saturating_sub(2);
        sender.lose(now, |number, _| number < lost);
    }

    fn tick(&mut self, now: Instant) {
        for (flow, sender) in self.senders.iter_mut().enumerate() {
            let patience = 2 * sender.srtt + 2 * ANSWER_DELAY;
            sender.lose(now, |_, sent| now - sent > patience);
            let windows = &mut self.report.flows[flow].windows;
            *tenth(windows, now - self.start) = sender.window.bytes();
        }
        for flow in 0..self.senders.len() {
            self.send(now, flow);
        }
        self.at(now + Duration::from_millis(10), Event::Tick);
    }

    fn send(&mut self, now: Instant, flow: usize) {
        let since = now - self.start;
        let sender = &mut self.senders[flow];
        let silent = self
            .line
            .silent
            .is_some_and(|(from, until)| since >= from && since < until);
        let between = self
            .line
            .batches
            .is_some_and(|every| since.as_nanos() % every.as_nanos() >= every.as_nanos() / 2);
        let silent = silent || between;
        sender.idle = silent;
        if since < sender.starts || silent {
            return;
        }
        while let Some(number) = self.senders[flow].may_send(now) {
            self.report.flows[flow].sent += 1;
            self.cross(now, flow, number);
        }
        if let Some(wakes) = self.senders[flow].wakes {
            self.at(wakes, Event::Send { flow });
        }
    }

    /// Puts a datagram on the line, which may have no room for it, or lose it.
    fn cross(&mut self, now: Instant, flow: usize, number: u64) {
        let rate = match self.line.rate_later {
            Some((from, rate)) if now - self.start >= from => rate,
            _ => self.line.rate,
        };
        let free = self.free.max(now);
        let waiting = ((free - now).as_secs_f64() * rate) as u64;
        if waiting > self.line.queue_bytes {
            self.report.flows[flow].lost_by_overflow += 1;
            return;
        }
        self.report.queue_max = self.report.queue_max.max(waiting);
        self.free = free + Duration::from_secs_f64((MTU + AROUND) as f64 / rate);
        if self.random() < self.line.loss {
            self.report.flows[flow].lost_by_chance += 1;
            return;
        }
        let there = self.free + self.delay(now);
        self.at(there, Event::Arrive { flow, number });
    }

    /// SplitMix64, as a share of one.
    fn random(&mut self) -> f64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Sender {
    /// Returns the number of the next datagram, if window and pacing let it go now.
    fn may_send(&mut self, now: Instant) -> Option<u64> {
        let window = self.window.bytes();
        if (self.in_flight.len() as u64 + 1) * MTU >= window {
            return None;
        }
        // As quinn paces: a quarter faster than a window in a round trip, in heaps of 2 ms.
        let speed = 1.25 * window as f64 / self.srtt.as_secs_f64();
        let heap = (window as f64 * 0.002 / self.srtt.as_secs_f64())
            .clamp(10.0 * MTU as f64, 256.0 * MTU as f64);
        self.tokens = (self.tokens + (now - self.filled).as_secs_f64() * speed).min(heap);
        self.filled = now;
        if self.tokens < MTU as f64 {
            if self.wakes.is_none() {
                let wait = (heap - self.tokens) / speed;
                self.wakes = Some(now + Duration::from_secs_f64(wait));
            }
            return None;
        }
        self.tokens -= MTU as f64;
        let number = self.next;
        self.next += 1;
        self.in_flight.insert(number, now);
        self.window.handle_sent(now);
        Some(number)
    }

    fn lose(&mut self, now: Instant, is_lost: impl Fn(u64, Instant) -> bool) {
        let lost: Vec<(u64, Instant)> = self
            .in_flight
            .extract_if(.., |number, sent| is_lost(*number, *sent))
            .collect();
        if let Some((_, sent)) = lost.last() {
            self.window.handle_lost(now, *sent, lost.len() as u64 * MTU);
        }
    }
}

fn tenth(values: &mut Vec<u64>, since: Duration) -> &mut u64 {
    let index = (since.as_millis() / 100) as usize;
    if values.len() <= index {
        values.resize(index + 1, 0);
    }
    &mut values[index]
}
