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
use crate::control::{ASKS_MAX, Control};
use crate::lease::Lease;
use crate::measure::Meter;
use crate::open::{Opened, forget_root, open};
use crate::partner::Partner;
use crate::{Failure, logs, manager, memory};

/// Events that a slow listener may lag behind.
const EVENTS_MAX: usize = 4096;
/// How long a stop may take before what still runs is abandoned. Everything on disk is crash-safe.
const STOP_WAIT: Duration = Duration::from_millis(1200);
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

/// What a round needs of the lease, which lasts longer.
struct Keeper {
    lease: Lease,
    link: LeaseLink,
    prefer: Prefer,
}

impl Daemon {
    /// Opens a node and starts its side. When its folder is accepted as it is, it is opened again as a
    /// new one.
    ///
    /// # Errors
    /// Why it cannot start.
    pub(crate) fn open(
        home: &Home,
        side: NodeSide,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, Failure> {
        let opened = open(home, side)?;
        let prefer = opened.settings.prefer;
        let (lease, link) = Lease::start(home, side, opened.partner.is_none(), prefer);
        let keeper = Keeper {
            lease: lease.clone(),
            link,
            prefer,
        };
        let mut round = Round::start(opened, &keeper, stop.clone())?;
        let home = home.clone();
        let keep_running = async move {
            loop {
                match (&mut round.side).await {
                    Ok(Ok(Ended::Stopped)) => return Ok(()),
                    Ok(Ok(Ended::RootAccepted)) => {}
                    Ok(Err(error)) => return Err(Failure::other("the daemon stopped", error)),
                    Err(error) => return Err(Failure::other("the daemon stopped", error)),
                }
                drop(round);
                info!("the folder was accepted as it is; beginning anew");
                forget_root(&home)?;
                round = Round::start(reopen(&home, side).await?, &keeper, stop.clone())?;
            }
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

/// Opens a node again in the same process. What still runs of the round before holds the folder's lock
/// for a moment.
async fn reopen(home: &Home, side: NodeSide) -> Result<Opened, Failure> {
    let mut tries = 0;
    loop {
        match open(home, side) {
            Err(_) if tries < REOPEN_TRIES => tries += 1,
            opened => return opened,
        }
        tokio::time::sleep(REOPEN_WAIT).await;
    }
}

/// One run of a side, from opening its folder to its end.
struct Round {
    side: JoinHandle<std::io::Result<Ended>>,
    /// What runs beside it.
    beside: Vec<JoinHandle<()>>,
}

impl Drop for Round {
    fn drop(&mut self) {
        for task in &self.beside {
            task.abort();
        }
    }
}

impl Round {
    /// Starts the side that the settings of an opened node name.
    fn start(
        opened: Opened,
        keeper: &Keeper,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, Failure> {
        let control = Control::bind(&opened.home, keeper.lease.clone())?;
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
        let watchdog = manager::watchdog(asks.clone(), keeper.lease.clone());
        beside.push(tokio::spawn(watchdog));
        if keeper.prefer != Prefer::None {
            beside.push(tokio::spawn(watch_sync(asks.clone(), keeper.lease.clone())));
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
                let side = pusher_side(opened, keeper, (listener, pins), asked, told, stop)?;
                beside.push(tokio::spawn(control.serve(asks, reachable)));
                Ok(Self { side, beside })
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
                beside.push(tokio::spawn(control.serve(asks, None)));
                let address = peer.as_str().to_owned();
                let side = receiver_side(opened, keeper, (&partner, address), asked, told, stop);
                Ok(Self { side, beside })
            }
        }
    }
}

fn pusher_side(
    opened: Opened,
    keeper: &Keeper,
    (listener, pins): (Listener, Pins),
    asks: mpsc::Receiver<Ask>,
    told: broadcast::Sender<Told>,
    stop: watch::Receiver<bool>,
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
            lease: keeper.link.clone(),
            role: keeper.lease.watch(),
            asks,
            told,
            process: Box::new(move |traffic| meter.measure(traffic)),
            stop,
        };
    Ok(tokio::spawn(holding(
        opened.lock,
        pusher::event_loop::run(parts),
    )))
}

fn receiver_side(
    opened: Opened,
    keeper: &Keeper,
    (partner, address): (&Partner, String),
    asks: mpsc::Receiver<Ask>,
    told: broadcast::Sender<Told>,
    stop: watch::Receiver<bool>,
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
        lease: keeper.link.clone(),
        role: keeper.lease.watch(),
        asks,
        told,
        process: Box::new(move |traffic| meter.measure(traffic)),
        stop,
    };
    tokio::spawn(holding(opened.lock, receiver::event_loop::run(parts)))
}

/// Holds the home's lock for as long as the side runs.
async fn holding<T>(lock: std::fs::File, side: impl Future<Output = T>) -> T {
    let ended = side.await;
    drop(lock);
    ended
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
