//! Keeps this node's part of the lease: the state machine of its side, the clock, the record on disk and the
//! streams to the partner.
//!
//! One task does what the state machine wants, under a lock that nobody holds for long. It makes a record
//! durable before the machine hears of it, so that nothing is answered and nobody acts before that. After a
//! sleep the machine is told of it before anything else.

mod record;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carry::{Heard, LeaseLink};
use config::Home;
use shared::control::{LeaseStatus, LeaseView, NodeSide, Problem, Refused, Role, exit};
use shared::lease::{Authority, Epoch, Holder, Moment, Order, Permit, Prefer, Record, Report};
use shared::wire::Frame;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{info, warn};

use crate::clock::{self, Wakes};
use crate::lease::record::Kept;

/// How often it is looked whether the machine has slept.
const WAKE_CHECK: Duration = Duration::from_secs(1);
/// How long a machine that slept does not take the role by itself: one that wakes for a moment with its lid
/// shut does not take it.
const AWAKE_MIN: Duration = Duration::from_secs(120);
/// How long until a record that could not be stored is stored again.
const STORE_AGAIN: Duration = Duration::from_secs(1);
/// How long a node that stops waits for its partner to take the role.
const LEAVE_WAIT: Duration = Duration::from_millis(800);
/// How long a person who changes the role waits for it. What has begun may take nine seconds to its end.
const PROMOTE_WAIT: Duration = Duration::from_secs(15);
/// How often it is asked for again meanwhile.
const PROMOTE_AGAIN: Duration = Duration::from_secs(1);

/// This node's part of the lease. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Lease(Arc<Shared>);

struct Shared {
    keeper: Mutex<Keeper>,
    /// Something has happened that the task has to look at.
    stir: Notify,
    view: watch::Sender<LeaseView>,
    wakes: watch::Sender<u64>,
    home: Home,
    /// When the task has looked last.
    looked: Mutex<Moment>,
}

enum Machine {
    Authority(Authority),
    Holder(Holder),
}

struct Keeper {
    machine: Machine,
    kept: Option<Kept>,
    link: Option<(u64, mpsc::UnboundedSender<Frame>)>,
    /// Whether this node can do what a primary does: it does not stop.
    able: bool,
    /// Whether one of its duties is parked.
    safe_mode: bool,
    /// What is wrong with its duties.
    problems: Vec<Problem>,
    in_sync: bool,
    /// Since when it has been awake, if it has slept since its start.
    awake_since: Option<Moment>,
}

/// What one round leaves to do without the lock.
enum Work {
    Store(Record),
    Send(Frame),
}

impl Lease {
    /// Starts keeping it. `alone` says that this node has no partner. The task ends with the process.
    pub(crate) fn start(
        home: &Home,
        side: NodeSide,
        alone: bool,
        prefer: Prefer,
    ) -> (Self, LeaseLink) {
        let kept = record::read(home);
        let record = kept.map(|kept| kept.record);
        let now = clock::now();
        let machine = match side {
            NodeSide::Pusher => Machine::Authority(Authority::start(record, alone, prefer, now)),
            NodeSide::Receiver => Machine::Holder(Holder::start(record)),
        };
        let mut keeper = Keeper {
            machine,
            kept,
            link: None,
            able: true,
            safe_mode: false,
            problems: Vec::new(),
            in_sync: false,
            awake_since: None,
        };
        keeper.set_fitness(now);
        let view = watch::Sender::new(keeper.view(now));
        let this = Self(Arc::new(Shared {
            keeper: Mutex::new(keeper),
            stir: Notify::new(),
            view,
            wakes: watch::Sender::new(0),
            home: home.clone(),
            looked: Mutex::new(now),
        }));
        let (link, hears) = LeaseLink::new();
        tokio::spawn(this.clone().keep(hears));
        (this, link)
    }

    /// Returns who is primary, and is told when that changes.
    pub(crate) fn watch(&self) -> watch::Receiver<LeaseView> {
        self.0.view.subscribe()
    }

    /// Counts how often the machine has slept. It is told after the lease, so that nobody acts before that knows.
    pub(crate) fn wakes(&self) -> watch::Receiver<u64> {
        self.0.wakes.subscribe()
    }

    /// Returns how it stands now.
    pub(crate) fn view(&self) -> LeaseView {
        self.lock().view(clock::now())
    }

    /// Says whether nothing waits between the two trees.
    pub(crate) fn set_in_sync(&self, in_sync: bool) {
        self.lock().in_sync = in_sync;
        self.0.stir.notify_one();
    }

    /// Says whether one of this node's duties is parked. Then the role goes to the partner, and stays there.
    pub(crate) fn set_safe_mode(&self, safe_mode: bool) {
        self.lock().safe_mode = safe_mode;
        self.0.stir.notify_one();
    }

    /// Says what is wrong with this node's duties; the other node hears of it, too.
    pub(crate) fn set_problems(&self, problems: Vec<Problem>) {
        self.lock().problems = problems;
        self.0.stir.notify_one();
    }

    /// Gives leave for one effect that is over after `timeout`.
    pub(crate) fn permit(&self, timeout: Duration) -> Option<Permit> {
        let mut keeper = self.lock();
        let now = clock::now();
        match &mut keeper.machine {
            Machine::Authority(authority) => authority.permit(timeout, now),
            Machine::Holder(holder) => holder.permit(timeout, now),
        }
    }

    /// Takes a permit back whose effect is over.
    pub(crate) fn take_back(&self, permit: Permit) {
        let now = clock::now();
        let mut keeper = self.lock();
        // A change of the role may have waited for it.
        let waited = match &mut keeper.machine {
            Machine::Authority(authority) => {
                let waited = authority.is_draining();
                authority.take_back(permit, now);
                waited
            }
            Machine::Holder(holder) => {
                let waited = holder.is_draining();
                holder.take_back(permit, now);
                waited
            }
        };
        if waited {
            self.0.stir.notify_one();
        }
    }

    /// Says whether this node has the lease of that epoch at this very moment.
    pub(crate) fn holds(&self, epoch: Epoch) -> bool {
        let keeper = self.lock();
        // The clock last: a pause before it counts.
        let held = match &keeper.machine {
            Machine::Authority(authority) => authority.holds(),
            Machine::Holder(holder) => holder.holds(clock::now()),
        };
        held == Some(epoch)
    }

    /// Says that this node stops.
    fn set_unable(&self) {
        self.lock().able = false;
        self.0.stir.notify_one();
    }

    /// Lets go of the role before the daemon stops, and waits a moment for the pusher to have it, which would
    /// otherwise wait for the end of the lease. A pusher that stops keeps the role: nobody else may take it, and
    /// a restart is no change.
    pub(crate) async fn leave(&self) {
        let mut views = self.watch();
        {
            let keeper = self.lock();
            let holds = views.borrow().lease.holder == Some(NodeSide::Receiver);
            if keeper.side() == NodeSide::Pusher || keeper.link.is_none() || !holds {
                return;
            }
        }
        self.set_unable();
        let gone = views.wait_for(|view| view.lease.holder != Some(NodeSide::Receiver));
        let _ = tokio::time::timeout(LEAVE_WAIT, gone).await;
    }

    /// Hands the role to `to`, and waits until that side has it.
    ///
    /// # Errors
    /// Why it does not go there.
    pub(crate) async fn promote(&self, to: NodeSide, force: bool) -> Result<LeaseView, Refused> {
        let mut views = self.watch();
        let asked = {
            let mut keeper = self.lock();
            // A person knows better than the time since the lid was opened.
            if to == keeper.side() {
                keeper.awake_since = None;
                keeper.set_fitness(clock::now());
            }
            keeper.promote(to, force)
        };
        self.0.stir.notify_one();
        let refused = |text: &str, fix: &str| Refused {
            exit: exit::ERROR,
            text: text.to_owned(),
            fix: fix.to_owned(),
        };
        asked.map_err(|why| {
            refused(
                &format!("the role stays where it is: {why}"),
                "layer-sync status",
            )
        })?;
        let here = to == self.side();
        let there = views.wait_for(|view| match here {
            true => view.role == Role::Primary,
            false => view.lease.holder == Some(to),
        });
        // A connection that was dead already took the wish with it; the next one is there in some seconds.
        let again = async {
            loop {
                tokio::time::sleep(PROMOTE_AGAIN).await;
                let _ = self.lock().promote(to, false);
                self.0.stir.notify_one();
            }
        };
        let there = tokio::time::timeout(PROMOTE_WAIT, there);
        let ended = tokio::select! {
            ended = there => ended.ok().and_then(Result::ok).map(|view| view.clone()),
            () = again => None,
        };
        match ended {
            Some(view) => Ok(view),
            None => Err(refused(
                "the role has not changed yet; what was begun is still being finished, or the link is slow",
                "layer-sync status",
            )),
        }
    }

    /// Returns whether the task has looked at the clock in this span.
    pub(crate) fn is_looked_after(&self, span: Duration) -> bool {
        let looked = *self.0.looked.lock().unwrap_or_else(PoisonError::into_inner);
        clock::now() < looked.after(span)
    }

    fn looks(&self) {
        *self.0.looked.lock().unwrap_or_else(PoisonError::into_inner) = clock::now();
    }

    fn side(&self) -> NodeSide {
        self.lock().side()
    }

    fn lock(&self) -> MutexGuard<'_, Keeper> {
        // What a panicking caller left behind is a state that the machine was in.
        self.0.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep(self, mut hears: mpsc::UnboundedReceiver<Heard>) {
        let mut wakes = Wakes::start();
        loop {
            let next = self.round(&mut wakes).await;
            tokio::select! {
                heard = hears.recv() => match heard {
                    Some(heard) => self.lock().heard(heard),
                    None => return,
                },
                () = self.0.stir.notified() => {}
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    /// Does what is to be done now; returns how long until there may be more.
    async fn round(&self, wakes: &mut Wakes) -> Duration {
        self.looks();
        let slept = wakes.slept();
        if slept {
            info!("the machine has slept");
        }
        self.lock().tick(slept);
        if slept {
            self.0.wakes.send_modify(|wakes| *wakes += 1);
        }
        while let Some(work) = self.next_work() {
            match work {
                Work::Store(record) => self.store(record).await,
                Work::Send(frame) => {
                    if let Some((_, say)) = &self.lock().link {
                        let _ = say.send(frame);
                    }
                }
            }
        }
        let now = clock::now();
        let keeper = self.lock();
        let view = keeper.view(now);
        self.0.view.send_if_modified(|told| {
            let differs = !view.is_as(told);
            if differs {
                info!(role = ?view.role, epoch = view.epoch, holder = ?view.lease.holder, "lease");
            }
            let news = differs || view.problems != told.problems;
            *told = view;
            news
        });
        let next = keeper.next_tick().map(|at| at.left(now));
        next.unwrap_or(WAKE_CHECK).min(WAKE_CHECK)
    }

    fn next_work(&self) -> Option<Work> {
        match &mut self.lock().machine {
            Machine::Authority(authority) => authority.poll().map(|order| match order {
                Order::Store(record) => Work::Store(record),
                Order::Send(answer) => Work::Send(Frame::Lease(answer)),
            }),
            Machine::Holder(holder) => holder.poll().map(|report| match report {
                Report::Store(record) => Work::Store(record),
                Report::Send(renewal) => Work::Send(Frame::Renew(renewal)),
            }),
        }
    }

    /// Makes a record durable. Until it is, nobody acts under it, however long that takes.
    async fn store(&self, record: Record) {
        let kept = Kept::new(record, self.lock().kept, clock::utc_now());
        loop {
            let home = self.0.home.clone();
            let written = tokio::task::spawn_blocking(move || record::write(&home, &kept)).await;
            match written {
                Ok(Ok(())) => break,
                Ok(Err(error)) => {
                    warn!(%error, "the lease cannot be stored; nobody acts until it can");
                }
                // The runtime ends.
                Err(_) => return,
            }
            tokio::time::sleep(STORE_AGAIN).await;
            self.looks();
        }
        let mut keeper = self.lock();
        keeper.kept = Some(kept);
        match &mut keeper.machine {
            Machine::Authority(authority) => authority.stored(record, clock::now()),
            Machine::Holder(holder) => holder.stored(record, clock::now()),
        }
    }
}

impl Keeper {
    fn side(&self) -> NodeSide {
        match &self.machine {
            Machine::Authority(_) => NodeSide::Pusher,
            Machine::Holder(_) => NodeSide::Receiver,
        }
    }

    fn heard(&mut self, heard: Heard) {
        let now = clock::now();
        let current = |this: &Self, number| this.link.as_ref().is_some_and(|(it, _)| *it == number);
        match heard {
            Heard::Linked(number, say) => {
                self.unlinked(now);
                self.link = Some((number, say));
                if let Machine::Holder(holder) = &mut self.machine {
                    holder.linked(now);
                }
            }
            Heard::Unlinked(number) if current(self, number) => self.unlinked(now),
            Heard::Said(number, frame, _place) if current(self, number) => {
                match (&mut self.machine, frame) {
                    (Machine::Authority(authority), Frame::Renew(renewal)) => {
                        authority.renewed(renewal, now);
                    }
                    (Machine::Holder(holder), Frame::Lease(answer)) => {
                        holder.answered(answer, now);
                    }
                    // `carry` lets no other frame through.
                    _ => {}
                }
            }
            Heard::Unlinked(_) | Heard::Said(..) => {}
        }
    }

    fn unlinked(&mut self, now: Moment) {
        if self.link.take().is_none() {
            return;
        }
        match &mut self.machine {
            Machine::Authority(authority) => authority.unlinked(now),
            Machine::Holder(holder) => holder.unlinked(),
        }
    }

    fn tick(&mut self, slept: bool) {
        let now = clock::now();
        if slept {
            self.awake_since = Some(now);
            if let Machine::Holder(holder) = &mut self.machine {
                holder.slept(now);
            }
        }
        self.set_fitness(now);
    }

    fn set_fitness(&mut self, now: Moment) {
        let awake = self
            .awake_since
            .is_none_or(|since| now >= since.after(AWAKE_MIN));
        let able = self.able && !self.safe_mode;
        match &mut self.machine {
            // Whoever decides does not need to rest after a sleep: nobody else could have taken the role.
            Machine::Authority(authority) => {
                authority.set_fitness(able, self.in_sync, now);
            }
            Machine::Holder(holder) => holder.set_fitness(able && awake, awake, now),
        }
    }

    fn promote(&mut self, to: NodeSide, force: bool) -> Result<(), &'static str> {
        let now = clock::now();
        match &mut self.machine {
            Machine::Holder(holder) if force && to == NodeSide::Receiver => holder.force(),
            _ if force => Err("only the receiver is promoted without the other side"),
            Machine::Authority(authority) => authority.promote(to, now),
            Machine::Holder(holder) => holder.promote(to, now),
        }
    }

    fn next_tick(&self) -> Option<Moment> {
        match &self.machine {
            Machine::Authority(authority) => authority.next_tick(),
            Machine::Holder(holder) => holder.next_tick(),
        }
    }

    fn view(&self, now: Moment) -> LeaseView {
        let millis = |span: Duration| span.as_millis() as u64;
        let known = self.kept;
        let mut lease = LeaseStatus {
            holder: known.map(|kept| kept.record.holder),
            since: known.map(|kept| kept.since),
            forced: known.is_some_and(|kept| kept.record.forced),
            ..LeaseStatus::default()
        };
        let role = match &self.machine {
            Machine::Authority(authority) => {
                let free_at = authority.free_at();
                if known.is_some_and(|kept| kept.record.holder == NodeSide::Receiver) {
                    lease.remaining_ms = free_at.map(|at| millis(at.left(now)));
                }
                match () {
                    () if authority.acts().is_some() => Role::Primary,
                    () if authority.is_draining() => Role::Draining,
                    () if self.safe_mode => Role::SafeMode,
                    () if free_at.is_some() && self.link.is_none() => Role::Candidate,
                    () => Role::Standby,
                }
            }
            Machine::Holder(holder) => {
                lease.remaining_ms = holder.until().map(|until| millis(until.left(now)));
                lease.renewed_ago_ms = holder
                    .renewed()
                    .filter(|_| holder.until().is_some())
                    .map(|at| millis(now.left(at)));
                match () {
                    () if holder.acts(now).is_some() => Role::Primary,
                    () if holder.is_draining() => Role::Draining,
                    () if self.safe_mode => Role::SafeMode,
                    () if holder.wants() => Role::Candidate,
                    () => Role::Standby,
                }
            }
        };
        LeaseView {
            role,
            epoch: known.map_or(Epoch::default(), |kept| kept.record.epoch).0,
            lease,
            problems: self.problems.clone(),
        }
    }
}
