//! Both sides, in this process, with watchers that never say anything: as if the system lost every
//! single event and told nobody.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carry::Heard;
use config::settings::KeptSettings;
use disk::looks::Looks;
use disk::quiet::Quiet;
use disk::watch::Watcher;
use disk::{KeptLimits, Places, Replica, Report, Stored};
use link::{Dialer, Identity, Listener, Pins};
use shared::control::ProcessStatus;
use shared::ignore::Rules;
use shared::wire::PairId;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, mpsc, watch};

use crate::harness::{SOON, difference, wait_until, write};

const INTERVAL: Duration = Duration::from_secs(1);
const PAIR: PairId = PairId([7; 16]);
/// Longest that a change may take: a sweep that has just begun, the next one, and the way.
const LATEST: Duration = Duration::from_secs(10);

struct Disk {
    replica: Arc<Replica>,
    stored: Stored,
    reports: mpsc::UnboundedReceiver<Report>,
}

fn disk(scratch: &Path, name: &str) -> Disk {
    let places = Places {
        root: scratch.join(name),
        state: scratch.join(format!("{name}-state")),
    };
    [&places.root, &places.state]
        .iter()
        .for_each(|dir| fs::create_dir(dir).unwrap());
    let kept = KeptSettings::default();
    let limits = KeptLimits {
        age: kept.age,
        bytes_min: kept.bytes_min,
        tree_percent: kept.tree_percent,
        age_min: kept.age_min,
    };
    let (reporter, reports) = mpsc::unbounded_channel();
    let sink = Box::new(move |report| drop(reporter.send(report)));
    let (replica, stored) =
        Replica::open(&places, None, Rules::default(), name, limits, sink).unwrap();
    Disk {
        replica: Arc::new(replica),
        stored,
        reports,
    }
}

fn looks() -> Looks {
    Looks::new(Quiet::new(None), INTERVAL, Instant::now())
}

fn nothing_measured() -> ProcessStatus {
    ProcessStatus {
        cpu_pct: 0.0,
        rss_bytes: 0,
        net_bytes_min: 0,
        uptime_ms: 0,
        restarts: 0,
    }
}

/// What the receiver hears besides the files.
struct Beside {
    wakes: watch::Sender<u64>,
    link: mpsc::UnboundedReceiver<Heard>,
}

/// Starts both sides; they stop when `stop` says so.
fn start(scratch: &Path, stop: &watch::Receiver<bool>) -> Beside {
    let (wakes, woken) = watch::channel(0);
    let (lease, hears) = carry::LeaseLink::new();
    let identities = [Identity::generate().unwrap(), Identity::generate().unwrap()];
    let keys = identities.each_ref().map(Identity::fingerprint);
    let (here, there) = (disk(scratch, "pusher"), disk(scratch, "receiver"));
    let listener = Listener::bind(
        "127.0.0.1:0".parse().unwrap(),
        &identities[0],
        Pins::new([keys[1]]),
    )
    .unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let pusher = pusher::event_loop::Parts {
        setup: pusher::state::Setup {
            folds: false,
            limits: shared::safety::Limits::default(),
            conflicts: shared::reconcile::ConflictRules::default(),
            node: "vm".into(),
            root: String::new(),
            version: String::new(),
            pair: Some(PAIR),
            peer: "mac".into(),
            mode: shared::reconcile::Mode::default(),
            interval: INTERVAL,
        },
        replica: here.replica,
        stored: here.stored,
        reports: here.reports,
        looks: looks(),
        watcher: Watcher::deaf(),
        hints: mpsc::unbounded_channel().1,
        listener,
        keep_partner: Arc::new(|_| Ok(())),
        lease: carry::LeaseLink::new().0,
        role: watch::channel(shared::control::LeaseView::default()).1,
        asks: mpsc::channel(1).1,
        told: broadcast::channel(1).0,
        process: Box::new(|_| nothing_measured()),
        stop: stop.clone(),
    };
    let receiver = receiver::event_loop::Parts {
        setup: receiver::state::Setup {
            node: "mac".into(),
            root: String::new(),
            version: String::new(),
            pair: PAIR,
            peer: "vm".into(),
            folds: false,
            peer_address: address.clone(),
            interval: INTERVAL,
        },
        replica: there.replica,
        stored: there.stored,
        reports: there.reports,
        looks: looks(),
        watcher: Watcher::deaf(),
        hints: mpsc::unbounded_channel().1,
        dialer: Dialer::new(&identities[1], Pins::new([keys[0]])),
        address,
        key: keys[0],
        lease,
        role: watch::channel(shared::control::LeaseView::default()).1,
        wakes: woken,
        asks: mpsc::channel(1).1,
        told: broadcast::channel(1).0,
        process: Box::new(|_| nothing_measured()),
        stop: stop.clone(),
    };
    tokio::spawn(pusher::event_loop::run(pusher));
    tokio::spawn(receiver::event_loop::run(receiver));
    Beside { wakes, link: hears }
}

#[test]
fn when_every_event_is_lost_the_trees_become_equal_all_the_same() {
    let scratch = TempDir::with_prefix("ls-e2e-").unwrap();
    let (stop, stopped) = watch::channel(false);
    let runtime = Runtime::new().unwrap();
    let _beside = runtime.block_on(async { start(scratch.path(), &stopped) });
    let [here, there] = ["pusher", "receiver"].map(|name| scratch.path().join(name));
    let mut slowest = Duration::ZERO;
    for round in 0..6 {
        let (from, to) = if round % 2 == 0 {
            (&here, &there)
        } else {
            (&there, &here)
        };
        write(from, "notes/plan.md", format!("round {round}"));
        write(from, &format!("round-{round}/new.md"), "new");
        if round > 0 {
            fs::remove_dir_all(from.join(format!("round-{}", round - 1))).unwrap();
        }
        let written = Instant::now();
        wait_until("the trees are equal", LATEST, || {
            difference(from, to).is_none()
        });
        slowest = slowest.max(written.elapsed());
    }
    println!("without a single event, interval {INTERVAL:?}: the slowest change took {slowest:?}");
    stop.send(true).unwrap();
    runtime.shutdown_timeout(Duration::from_secs(2));
}

#[test]
fn a_receiver_that_slept_dials_anew_at_once() {
    let scratch = TempDir::with_prefix("ls-e2e-").unwrap();
    let (stop, stopped) = watch::channel(false);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut beside = start(scratch.path(), &stopped);
        let mut heard = async || {
            let heard = tokio::time::timeout(SOON, beside.link.recv()).await;
            heard
                .expect("something of the link")
                .expect("the loop runs")
        };
        assert!(matches!(heard().await, Heard::Linked(1, _)));
        for woken in 1..4 {
            beside.wakes.send(woken).unwrap();
            assert!(matches!(heard().await, Heard::Unlinked(old) if old == woken));
            assert!(matches!(heard().await, Heard::Linked(new, _) if new == woken + 1));
        }
    });
    stop.send(true).unwrap();
    runtime.shutdown_timeout(Duration::from_secs(2));
}
