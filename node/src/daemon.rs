//! A daemon in the foreground: opens its node, runs its side's loop, stops when it is told to.

use std::sync::Arc;
use std::time::Duration;

use carry::{Ask, Ended, LeaseLink};
use config::Home;
use config::settings::Link;
use disk::Replica;
use link::{Dialer, Fingerprint, Listener, Paired, Pins};
use shared::control::{Event as Told, NodeSide, Request, Response, exit};
use shared::lease::Prefer;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::clock::utc_now;
use crate::control::{ASKS_MAX, Control, Desk, Idle, Served};
use crate::lease::Lease;
use crate::measure::Meter;
use crate::open::{Opened, enter, forget_root, open};
use crate::partner::Partner;
use crate::supervisor::{Duties, supervise};
use crate::{Failure, logs, manager, memory};

/// Events that a slow listener may lag behind.
const EVENTS_MAX: usize = 4096;
/// How long a stop may take before what still runs is abandoned. Everything on disk is crash-safe.
const STOP_WAIT: Duration = Duration::from_millis(1200);
/// The duty that keeps the tree equal.
pub(crate) const SYNC: &str = "sync";
/// How often kept versions are pruned.
const PRUNE_INTERVAL: Duration = Duration::from_secs(6 * 3600);
/// How often the lease is told whether the trees are equal, if that decides anything.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is asked whether displaced files are to be checked; that is in memory.
const DISPLACED_INTERVAL: Duration = Duration::from_secs(1);
/// How often, and after which wait each, a folder that was accepted is opened again.
const REOPEN_TRIES: u32 = 100;
const REOPEN_WAIT: Duration = Duration::from_millis(100);
/// Threads on which tasks run; the disk has threads of its own.
const WORKERS: usize = 2;
/// Most threads that wait for the disk.
const BLOCKING_THREADS_MAX: usize = 48;

/// Runs one side as a daemon until SIGTERM or SIGINT. It logs to standard error, or to files in its home.
///
/// # Errors
/// Why it cannot start, or why it had to stop.
pub fn run(side: NodeSide, home: &Home, log_to_file: bool) -> Result<(), Failure> {
    if log_to_file {
        logs::start_in(&home.log_dir())?;
    } else {
        logs::start("info");
    }
    let runtime = runtime()?;
    let (stop, stopped) = watch::channel(false);
    let ended = runtime.block_on(async {
        // First of all: from here on a signal is a wish, and not the end.
        let mut signals = Signals::listen()?;
        let mut daemon = Daemon::open(home, side, stopped)?;
        manager::ready();
        tokio::select! {
            () = signals.next() => {
                info!("stopping");
                manager::stopping();
                daemon.leave().await;
                let _ = stop.send(true);
                daemon.wait().await
            }
            ended = &mut daemon.task => ended_early(ended),
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}

pub(crate) fn runtime() -> Result<Runtime, Failure> {
    memory::few_arenas();
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .map_err(|error| Failure::other("the runtime cannot be started", error))
}

fn ended_early(ended: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
    match ended {
        Ok(ended) => ended,
        Err(error) => Err(Failure::other("the daemon stopped", error)),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::other("signals cannot be received", error))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A side that runs.
pub(crate) struct Daemon {
    pub(crate) task: JoinHandle<Result<(), Failure>>,
    lease: Lease,
}

/// What outlives a round.
struct Standing {
    lease: Lease,
    link: LeaseLink,
    prefer: Prefer,
    /// Tells the control socket which loop runs.
    served: watch::Sender<Option<Served>>,
    home: Home,
    stop: watch::Receiver<bool>,
}

impl Standing {
    /// The duty `sync`, from an opened node on. When its folder is accepted as it is, it is opened again as a new one.
    async fn sync(self: Arc<Self>, mut round: Round) -> Result<(), Failure> {
        // Whoever asks while there is no loop is told so, however this ends.
        let _gone = Gone(&self.served);
        loop {
            match (&mut round.side.0).await {
                Ok(Ok(Ended::Stopped)) => return Ok(()),
                Ok(Ok(Ended::RootAccepted)) => {}
                Ok(Err(error)) => return Err(Failure::other("the sync stopped", error)),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(error) => return Err(Failure::other("the sync stopped", error)),
            }
            drop(round);
            info!("the folder was accepted as it is; beginning anew");
            forget_root(&self.home)?;
            round = self.begin_again().await?;
        }
    }

    /// The duty `sync` after a crash.
    async fn sync_again(self: Arc<Self>) -> Result<(), Failure> {
        let round = self.begin_again().await?;
        self.sync(round).await
    }

    /// Opens the node again in the same process. What still runs of the round before holds the folder's lock and
    /// the port for a moment.
    async fn begin_again(&self) -> Result<Round, Failure> {
        let mut tries = 0;
        loop {
            match open(&self.home).and_then(|opened| Round::start(opened, self)) {
                Err(_) if tries < REOPEN_TRIES => tries += 1,
                begun => return begun,
            }
            tokio::time::sleep(REOPEN_WAIT).await;
        }
    }
}

/// Tells the control socket that no loop runs any more.
struct Gone<'a>(&'a watch::Sender<Option<Served>>);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

impl Daemon {
    /// Opens a node and starts its duties. From then on a duty that fails is started again.
    ///
    /// # Errors
    /// Why it cannot start.
    pub(crate) fn open(
        home: &Home,
        side: NodeSide,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, Failure> {
        let lock = enter(home, side)?;
        let opened = open(home)?;
        let prefer = opened.settings.prefer;
        let (lease, link) = Lease::start(home, side, opened.partner.is_none(), prefer);
        let (served, serves) = watch::channel(None);
        let duties = Duties::default();
        let desk = Desk {
            served: serves.clone(),
            lease: lease.clone(),
            duties: duties.clone(),
            idle: Arc::new(Idle::of(&opened)),
        };
        let control = Control::bind(home, desk)?;
        let standing = Arc::new(Standing {
            home: home.clone(),
            lease: lease.clone(),
            link,
            prefer,
            served,
            stop: stop.clone(),
        });
        let round = Round::start(opened, &standing)?;
        let first = tokio::spawn(Arc::clone(&standing).sync(round));
        let watchdog = tokio::spawn(manager::watchdog(serves, lease.clone()));
        let clients = tokio::spawn(control.serve());
        let again = move || tokio::spawn(Arc::clone(&standing).sync_again());
        let keeper = lease.clone();
        let parked = move |parked| {
            // Without its sync a receiver cannot renew. A pusher cannot be asked for the role then, so it keeps it.
            if side == NodeSide::Receiver {
                keeper.set_safe_mode(parked);
            }
        };
        let sync = supervise(SYNC, duties, parked, stop, first, again);
        let keep_running = async move {
            // For as long as the process is a daemon: nobody else uses its home, and whoever asks is answered.
            let _held = (lock, Aborted(clients), Aborted(watchdog));
            sync.await
        };
        Ok(Self {
            task: tokio::spawn(keep_running),
            lease,
        })
    }

    /// Lets the partner have the role, if this node has it, and waits a moment for that.
    pub(crate) async fn leave(&self) {
        self.lease.leave().await;
    }

    /// Waits for the end of a side that was told to stop.
    pub(crate) async fn wait(&mut self) -> Result<(), Failure> {
        match tokio::time::timeout(STOP_WAIT, &mut self.task).await {
            Ok(ended) => ended_early(ended),
            Err(_) => {
                warn!("some work did not end in time and is abandoned; the next start picks it up");
                Ok(())
            }
        }
    }
}

/// A task that ends when nobody wants it any more.
struct Aborted<T = ()>(JoinHandle<T>);

impl<T> Drop for Aborted<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One run of a side, from opening its folder to its end.
struct Round {
    side: Aborted<std::io::Result<Ended>>,
    /// What runs beside it.
    _beside: Vec<Aborted>,
}

impl Round {
    /// Starts the side that the settings of an opened node name.
    fn start(opened: Opened, standing: &Standing) -> Result<Self, Failure> {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let (told, _) = broadcast::channel(EVENTS_MAX);
        let mut beside = vec![
            tokio::spawn(prune(Arc::clone(&opened.replica))),
            tokio::spawn(check_displaced(Arc::clone(&opened.replica))),
            tokio::spawn(memory::give_back(
                Arc::clone(&opened.replica),
                told.subscribe(),
            )),
        ];
        if standing.prefer != Prefer::None {
            beside.push(tokio::spawn(watch_sync(
                asks.clone(),
                standing.lease.clone(),
            )));
        }
        let root = opened.replica.root().display().to_string();
        info!(
            side = opened.settings.link.side().name(),
            name = opened.settings.node.name,
            root,
            "started"
        );
        match opened.settings.link.clone() {
            Link::Listen { listen, advertise } => {
                let partner = opened.partner.as_ref().map(|partner| partner.key);
                let pins = Pins::new(partner);
                let mut listener =
                    Listener::bind(listen, &opened.identity, pins.clone()).map_err(|error| {
                        Failure::new(
                            exit::ERROR,
                            error.to_string(),
                            "choose another `listen` in [link]",
                        )
                    })?;
                if let Some(bytes) = opened.settings.rate_limit {
                    listener = listener.with_rate_limit(bytes);
                }
                let bound = listener
                    .local_addr()
                    .map_err(|error| Failure::other("the listener is gone", error))?;
                info!(address = %bound, paired = partner.is_some(), "listening");
                let advertise = advertise.map(|address| address.as_str().to_owned());
                let reachable =
                    advertise.or_else(|| (!bound.ip().is_unspecified()).then(|| bound.to_string()));
                let side = pusher_side(opened, standing, (listener, pins), asked, told)?;
                Ok(Self::served(side, beside, standing, asks, reachable))
            }
            Link::Dial { peer } => {
                let Some(partner) = opened.partner.clone() else {
                    // `open` has looked for it.
                    return Err(Failure::new(
                        exit::DAEMON_USAGE,
                        "this receiver has no partner",
                        "",
                    ));
                };
                let address = peer.as_str().to_owned();
                let side = receiver_side(opened, standing, (&partner, address), asked, told);
                Ok(Self::served(side, beside, standing, asks, None))
            }
        }
    }

    /// Lets clients in.
    fn served(
        side: JoinHandle<std::io::Result<Ended>>,
        beside: Vec<JoinHandle<()>>,
        standing: &Standing,
        asks: mpsc::Sender<Ask>,
        advertise: Option<String>,
    ) -> Self {
        standing
            .served
            .send_replace(Some(Served { asks, advertise }));
        Self {
            side: Aborted(side),
            _beside: beside.into_iter().map(Aborted).collect(),
        }
    }
}

fn pusher_side(
    opened: Opened,
    standing: &Standing,
    (listener, pins): (Listener, Pins),
    asks: mpsc::Receiver<Ask>,
    told: broadcast::Sender<Told>,
) -> Result<JoinHandle<std::io::Result<Ended>>, Failure> {
    let mut meter = Meter::start();
    let keep_partner = keep_partner(
        opened.home.clone(),
        pins,
        opened.partner.as_ref().map(|partner| partner.key),
    );
    let parts =
        pusher::event_loop::Parts {
            setup: pusher::state::Setup {
                node: opened.settings.node.name,
                root: opened.replica.root().display().to_string(),
                version: env!("CARGO_PKG_VERSION").into(),
                pair: opened.partner.as_ref().map(|partner| partner.pair),
                peer: opened
                    .partner
                    .map(|partner| partner.name)
                    .unwrap_or_default(),
                mode: opened.settings.sync.mode,
                interval: opened.settings.sync.interval,
                folds: opened.replica.folds(),
                limits: opened.settings.sync.guard,
                conflicts: opened.settings.sync.conflicts.rules().map_err(|refused| {
                    Failure::new(exit::DAEMON_CONFIG, refused.to_string(), "")
                })?,
            },
            replica: opened.replica,
            stored: opened.stored,
            reports: opened.reports,
            looks: opened.looks,
            watcher: opened.watcher,
            hints: opened.hints,
            listener,
            keep_partner,
            lease: standing.link.clone(),
            role: standing.lease.watch(),
            asks,
            told,
            process: Box::new(move |traffic| meter.measure(traffic)),
            stop: standing.stop.clone(),
        };
    Ok(tokio::spawn(pusher::event_loop::run(parts)))
}

fn receiver_side(
    opened: Opened,
    standing: &Standing,
    (partner, address): (&Partner, String),
    asks: mpsc::Receiver<Ask>,
    told: broadcast::Sender<Told>,
) -> JoinHandle<std::io::Result<Ended>> {
    let mut meter = Meter::start();
    let mut dialer = Dialer::new(&opened.identity, Pins::new([partner.key]));
    if let Some(bytes) = opened.settings.rate_limit {
        dialer = dialer.with_rate_limit(bytes);
    }
    let parts = receiver::event_loop::Parts {
        setup: receiver::state::Setup {
            node: opened.settings.node.name,
            root: opened.replica.root().display().to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            pair: partner.pair,
            peer: partner.name.clone(),
            peer_address: address.clone(),
            interval: opened.settings.sync.interval,
            folds: opened.replica.folds(),
        },
        replica: opened.replica,
        stored: opened.stored,
        reports: opened.reports,
        looks: opened.looks,
        watcher: opened.watcher,
        hints: opened.hints,
        dialer,
        address,
        key: partner.key,
        lease: standing.link.clone(),
        role: standing.lease.watch(),
        wakes: standing.lease.wakes(),
        asks,
        told,
        process: Box::new(move |traffic| meter.measure(traffic)),
        stop: standing.stop.clone(),
    };
    tokio::spawn(receiver::event_loop::run(parts))
}

fn keep_partner(
    home: Home,
    pins: Pins,
    partner: Option<Fingerprint>,
) -> pusher::event_loop::KeepPartner {
    let pinned = std::sync::Mutex::new(partner);
    Arc::new(move |paired: &Paired| {
        Partner::from(paired).write(&home)?;
        let mut pinned = pinned
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(before) = pinned
            .replace(paired.peer)
            .filter(|before| *before != paired.peer)
        {
            pins.remove(before);
        }
        pins.insert(paired.peer);
        Ok(())
    })
}

/// Tells the lease whether the trees are equal: a preference waits for that.
async fn watch_sync(asks: mpsc::Sender<Ask>, lease: Lease) {
    loop {
        let (answer, mut answers) = mpsc::channel(1);
        let request = Request::Status;
        if asks.send(Ask { request, answer }).await.is_err() {
            return;
        }
        if let Some(Response::Status(status)) = answers.recv().await {
            lease.set_in_sync(status.sync.in_sync);
        }
        tokio::time::sleep(SYNC_INTERVAL).await;
    }
}

async fn prune(replica: Arc<Replica>) {
    loop {
        tokio::time::sleep(PRUNE_INTERVAL).await;
        let replica = Arc::clone(&replica);
        let pruned = tokio::task::spawn_blocking(move || replica.prune_kept(utc_now())).await;
        match pruned {
            Ok(Ok(pruned)) => info!(
                versions = pruned.versions,
                bytes = pruned.bytes,
                "kept versions pruned"
            ),
            Ok(Err(error)) => warn!(%error, "kept versions not pruned"),
            Err(_) => return,
        }
    }
}

/// Brings into the tree what programs write to files that were replaced under them.
async fn check_displaced(replica: Arc<Replica>) {
    loop {
        tokio::time::sleep(DISPLACED_INTERVAL).await;
        if replica
            .next_displaced_check()
            .is_none_or(|due| due > utc_now())
        {
            continue;
        }
        let replica = Arc::clone(&replica);
        let checked = tokio::task::spawn_blocking(move || replica.check_displaced(utc_now())).await;
        match checked {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(%error, "displaced files not checked"),
            Err(_) => return,
        }
    }
}
