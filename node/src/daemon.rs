//! A daemon in the foreground: opens its node, keeps its duties running, stops when it is told to.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use config::Home;
use shared::control::{NodeSide, Problem};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::bot::{self, BOT, BotDesk, NodePort};
use crate::control::{self, Control, Desk, Idle};
use crate::dashboard::{self, DASHBOARD, Place};
use crate::lease::Lease;
use crate::mirror::{Follows, Linkage, MIRROR, MirrorDesk};
use crate::open::{enter, open};
use crate::supervisor::{Duties, supervise};
use crate::sync::{Aborted, Round, SYNC, Standing};
use crate::{Failure, logs, manager, memory};

/// How long a stop may take before what still runs is abandoned. Everything on disk is crash-safe.
const STOP_WAIT: Duration = Duration::from_millis(1200);
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
        let mut daemon = Daemon::open(home, side, Duty::All, stopped)?;
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

/// What a daemon does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// The sync, and the mirror, if there is one.
    Sync,
    /// The bot, too, if a token is set, and the dashboard, if it has a place.
    All,
}

/// A side that runs.
pub(crate) struct Daemon {
    pub(crate) task: JoinHandle<Result<(), Failure>>,
    lease: Lease,
}

impl Daemon {
    /// Opens a node and starts its duties. From then on a duty that fails is started again.
    ///
    /// # Errors
    /// Why it cannot start.
    pub(crate) fn open(
        home: &Home,
        side: NodeSide,
        duty: Duty,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, Failure> {
        let lock = enter(home, side)?;
        let opened = open(home)?;
        let prefer = opened.settings.prefer;
        let (lease, link) = Lease::start(home, side, opened.partner.is_none(), prefer);
        let (served, serves) = watch::channel(None);
        let duties = Duties::default();
        let (bot, dashboard) = match duty {
            Duty::Sync => (None, None),
            Duty::All => (BotDesk::of(home)?, opened.settings.dashboard),
        };
        // Of two sides in one process one has the mirror, whoever is primary.
        let mirror = MirrorDesk::of(&opened.settings.mirror, duty == Duty::Sync);
        let place = Place::default();
        let desk = Desk {
            served: serves.clone(),
            lease: lease.clone(),
            duties: duties.clone(),
            idle: Arc::new(Idle::of(&opened)),
            bot: bot.clone(),
            mirror: mirror.clone(),
            dashboard: place.clone(),
        };
        let page = desk.clone();
        let port = Arc::new(NodePort::new(&opened, desk.clone(), lease.clone()));
        let control = Control::bind(home, desk)?;
        let (tree, trees) = watch::channel(None);
        let pair = opened.partner.as_ref().map(|partner| partner.pair);
        let (linkage, linkages) = watch::channel(Linkage {
            pair,
            is_linked: false,
        });
        let follows = Follows {
            tree: trees,
            linkage: linkages,
            lease: lease.clone(),
        };
        let standing = Arc::new(Standing {
            home: home.clone(),
            lease: lease.clone(),
            link,
            prefer,
            served,
            stop: stop.clone(),
            tree,
            linkage,
        });
        let round = Round::start(opened, &standing)?;
        let first = tokio::spawn(Arc::clone(&standing).sync(round));
        let watchdog = tokio::spawn(manager::watchdog(serves, lease.clone()));
        let clients = tokio::spawn(control.serve());
        let problems = tokio::spawn(tell_problems(
            duties.clone(),
            (bot.clone(), mirror.clone()),
            lease.clone(),
        ));
        let safe_mode = SafeMode {
            lease: lease.clone(),
            side,
            parked: Mutex::default(),
        };
        let home = home.clone();
        let keep_running = async move {
            // For as long as the process is a daemon: nobody else uses its home, and whoever asks is answered.
            let _held = (lock, Aborted(clients), Aborted(watchdog), Aborted(problems));
            let last = Arc::clone(&standing);
            let parked = |parked| {
                safe_mode.set(SYNC, parked);
                if parked && side == NodeSide::Receiver {
                    tokio::spawn(Arc::clone(&last).say_farewell());
                }
            };
            let again = move || tokio::spawn(Arc::clone(&standing).sync_again());
            let sync = supervise(SYNC, duties.clone(), parked, stop.clone(), first, again);
            let mirror = {
                let (all, stopped, home) = (duties.clone(), stop.clone(), home.clone());
                async move {
                    let Some(mirror) = mirror else { return Ok(()) };
                    let until = stopped.clone();
                    let again = move || {
                        let follows = follows.clone();
                        tokio::spawn(mirror.clone().run(home.clone(), follows, until.clone()))
                    };
                    supervise(MIRROR, all, |_| {}, stopped, again(), again).await
                }
            };
            let (safe, all, stopped) = (&safe_mode, duties.clone(), stop.clone());
            let bot = async move {
                let Some(bot) = bot else { return Ok(()) };
                let until = stopped.clone();
                let again = move || {
                    let port = Arc::clone(&port);
                    tokio::spawn(bot.clone().run(home.clone(), port, until.clone()))
                };
                let parked = |parked| safe.set(BOT, parked);
                supervise(BOT, all, parked, stopped, again(), again).await
            };
            let dashboard = async move {
                let Some(listen) = dashboard else {
                    return Ok(());
                };
                let until = stop.clone();
                let again = move || {
                    let (page, place) = (page.clone(), place.clone());
                    tokio::spawn(dashboard::run(listen, page, place, until.clone()))
                };
                supervise(DASHBOARD, duties, |_| {}, stop, again(), again).await
            };
            // The sync ends when the daemon is told to stop, or when it cannot go on at all; the others only with the daemon.
            tokio::try_join!(sync, bot, mirror, dashboard).map(|_| ())
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

/// Whether this node is in safe mode: one of its duties is parked that a primary does, or that keeps the lease.
struct SafeMode {
    lease: Lease,
    side: NodeSide,
    parked: Mutex<BTreeSet<&'static str>>,
}

impl SafeMode {
    fn set(&self, duty: &'static str, is_parked: bool) {
        // Without its sync a receiver cannot renew. A pusher cannot be asked for the role then, so it keeps it.
        if duty == SYNC && self.side == NodeSide::Pusher {
            return;
        }
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        match is_parked {
            true => parked.insert(duty),
            false => parked.remove(duty),
        };
        self.lease.set_safe_mode(!parked.is_empty());
    }
}

/// Says what is wrong with the duties whenever that changes, so that the other node hears of it, too.
async fn tell_problems(
    duties: Duties,
    (bot, mirror): (Option<BotDesk>, Option<MirrorDesk>),
    lease: Lease,
) {
    let mut changes = duties.changes();
    let mut bot_changes = bot.as_ref().map(BotDesk::changes);
    let mut mirror_changes = mirror.as_ref().map(MirrorDesk::changes);
    loop {
        changes.mark_unchanged();
        let status = duties.status();
        let mut problems: Vec<Problem> = status.iter().filter_map(control::problem).collect();
        if let Some(bot) = &mut bot_changes {
            problems.extend(bot::problem(&bot.borrow_and_update()));
        }
        if let (Some(mirror), Some(changes)) = (&mirror, &mut mirror_changes) {
            changes.mark_unchanged();
            problems.extend(mirror.problems());
        }
        lease.set_problems(problems);
        let bot_changed = async {
            match &mut bot_changes {
                Some(bot) => drop(bot.changed().await),
                None => std::future::pending().await,
            }
        };
        let mirror_changed = async {
            match &mut mirror_changes {
                Some(mirror) => drop(mirror.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok(()) = changes.changed() => {}
            () = bot_changed => {}
            () = mirror_changed => {}
        }
    }
}
