//! The duty `sync`: one run of a side after the other, each from opening its folder to its end.

use std::sync::Arc;
use std::time::Duration;

use carry::{Ask, Ended, LeaseLink};
use config::settings::Link;
use config::{Home, Settings};
use disk::Replica;
use link::{Dialer, Fingerprint, Identity, Listener, Paired, Pins};
use shared::control::{Event as Told, Happening, LeaseView, NodeSide, Request, Response, exit};
use shared::lease::Prefer;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::clock::utc_now;
use crate::control::{ASKS_MAX, Served};
use crate::lease::Lease;
use crate::measure::Meter;
use crate::mirror::{Linkage, OpenTree};
use crate::open::{Opened, forget_root, open};
use crate::partner::Partner;
use crate::{Failure, memory};

/// Events that a slow listener may lag behind.
const EVENTS_MAX: usize = 4096;
/// Its name.
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

/// What outlives a round.
pub(crate) struct Standing {
    pub(crate) home: Home,
    pub(crate) lease: Lease,
    pub(crate) link: LeaseLink,
    pub(crate) prefer: Prefer,
    /// Tells the control socket which loop runs.
    pub(crate) served: watch::Sender<Option<Served>>,
    pub(crate) stop: watch::Receiver<bool>,
    /// Tells the mirror which tree is open.
    pub(crate) tree: watch::Sender<Option<OpenTree>>,
    /// Tells it whether there is a link.
    pub(crate) linkage: watch::Sender<Linkage>,
}

impl Standing {
    /// The duty `sync`, from an opened node on. When its folder is accepted as it is, it is opened again as a new one.
    pub(crate) async fn sync(self: Arc<Self>, mut round: Round) -> Result<(), Failure> {
        // Whoever asks while there is no loop is told so, however this ends; and nobody goes on with its tree.
        let _gone = (Gone(&self.served), Closed(&self.tree));
        loop {
            match (&mut round.side.0).await {
                Ok(Ok(Ended::Stopped)) => return Ok(()),
                Ok(Ok(Ended::RootAccepted)) => {}
                Ok(Err(error)) => return Err(Failure::other("the sync stopped", error)),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(error) => return Err(Failure::other("the sync stopped", error)),
            }
            drop(round);
            self.tree.send_replace(None);
            info!("the folder was accepted as it is; beginning anew");
            forget_root(&self.home)?;
            round = self.begin_again().await?;
        }
    }

    /// The duty `sync` after a crash.
    pub(crate) async fn sync_again(self: Arc<Self>) -> Result<(), Failure> {
        let round = self.begin_again().await?;
        self.sync(round).await
    }

    /// Tells the pusher that this receiver lets go of the role, although its sync does not run any more.
    pub(crate) async fn say_farewell(self: Arc<Self>) {
        let done = async {
            let mut views = self.lease.watch();
            let gone = |view: &LeaseView| view.lease.holder != Some(NodeSide::Receiver);
            let _ = views.wait_for(gone).await;
        };
        if let Err(failure) = self.farewell(done).await {
            warn!(
                why = failure.text,
                "the pusher does not hear that this node lets go of the role"
            );
        }
    }

    async fn farewell(&self, done: impl Future<Output = ()>) -> Result<(), Failure> {
        let settings = Settings::read(&self.home)?;
        let (Link::Dial { peer }, Some(partner)) = (settings.link, Partner::read(&self.home)?)
        else {
            return Ok(());
        };
        let identity = Identity::load_or_create(&self.home.identity_dir())?;
        let dialer = Dialer::new(&identity, Pins::new([partner.key]));
        let at = (peer.as_str(), partner.key);
        let said = receiver::farewell(&dialer, at, &self.link, done).await;
        dialer.close().await;
        said.map_err(|error| Failure::other("the pusher was not reached", error))
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

/// Tells the mirror that the tree is not open any more.
struct Closed<'a>(&'a watch::Sender<Option<OpenTree>>);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

/// A task that ends when nobody wants it any more.
pub(crate) struct Aborted<T = ()>(pub(crate) JoinHandle<T>);

impl<T> Drop for Aborted<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One run of a side, from opening its folder to its end.
pub(crate) struct Round {
    side: Aborted<std::io::Result<Ended>>,
    /// What runs beside it.
    _beside: Vec<Aborted>,
}

impl Round {
    /// Starts the side that the settings of an opened node name.
    pub(crate) fn start(opened: Opened, standing: &Standing) -> Result<Self, Failure> {
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
        beside.push(tokio::spawn(tell_linkage(
            standing.home.clone(),
            told.subscribe(),
            standing.linkage.clone(),
        )));
        standing.tree.send_replace(Some(OpenTree {
            replica: Arc::clone(&opened.replica),
            index: opened.stored.index,
        }));
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

/// Tells the mirror whether there is a link, and to whom.
async fn tell_linkage(
    home: Home,
    mut told: broadcast::Receiver<Told>,
    linkage: watch::Sender<Linkage>,
) {
    let set = |is_linked| {
        let pair = Partner::read(&home).ok().flatten();
        let pair = pair.map(|partner| partner.pair);
        let fresh = Linkage { pair, is_linked };
        linkage.send_if_modified(|linkage| std::mem::replace(linkage, fresh) != fresh);
    };
    set(false);
    loop {
        match told.recv().await {
            Ok(event) => match event.what {
                Happening::Linked { .. } => set(true),
                Happening::Unlinked { .. } => set(false),
                _ => {}
            },
            // What was missed is seen at the next change of it.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
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
