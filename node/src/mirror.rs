//! The duty `mirror`: gives the mirror this node's tree and its place, and the people at the machine a way to it.

mod apart;
mod place;

use std::sync::{Arc, Mutex, PoisonError};

use config::settings::MirrorSettings;
use config::{Home, Settings};
use disk::Replica;
use mirror::duty::{Ask, Parts, Standing, Times, Told};
use mirror::patient::{Patience, Patient};
use mirror::round::{Mirror, Setup};
use mirror::target::Wrong;
use shared::control::{MirrorAct, MirrorStatus, Problem, Response, Role, exit};
use shared::wire::{IndexId, PairId};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::info;

use crate::bot::told_apart;
use crate::control::refused;
use crate::lease::Lease;
use crate::partner::Partner;
use crate::{Failure, clock};

pub use apart::{Pushed, push_apart, restore_apart};
pub use place::{Grant, authorise};

/// Its name.
pub(crate) const MIRROR: &str = "mirror";
/// Questions that wait for it.
const ASKS_MAX: usize = 8;

/// The tree that a round of the sync has open, for as long as it has.
#[derive(Clone)]
pub(crate) struct OpenTree {
    pub(crate) replica: Arc<Replica>,
    pub(crate) index: IndexId,
}

/// The way to the other node, as the sync finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Linkage {
    pub(crate) pair: Option<PairId>,
    pub(crate) is_linked: bool,
}

/// What a mirror follows.
#[derive(Clone)]
pub(crate) struct Follows {
    pub(crate) tree: watch::Receiver<Option<OpenTree>>,
    pub(crate) linkage: watch::Receiver<Linkage>,
    pub(crate) lease: Lease,
}

/// The way to the mirror. Clones are the same one.
#[derive(Clone)]
pub(crate) struct MirrorDesk(Arc<Shared>);

struct Shared {
    told: watch::Sender<Told>,
    /// To the run that runs now.
    asks: Mutex<Option<mpsc::Sender<Ask>>>,
    is_alone: bool,
}

impl MirrorDesk {
    /// Makes one if the settings have a mirror. `is_alone` says that no other node sees to it, whoever is primary.
    pub(crate) fn of(settings: &MirrorSettings, is_alone: bool) -> Option<Self> {
        let target = settings.target.as_ref()?;
        let status = MirrorStatus {
            target: place::kind(target).to_owned(),
            place: place::shown(target),
            ..MirrorStatus::default()
        };
        let told = Told {
            status,
            problems: Vec::new(),
        };
        Some(Self(Arc::new(Shared {
            told: watch::Sender::new(told),
            asks: Mutex::new(None),
            is_alone,
        })))
    }

    /// Says how the mirror is.
    pub(crate) fn status(&self) -> MirrorStatus {
        self.0.told.borrow().status.clone()
    }

    /// Says what is wrong with it.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        self.0.told.borrow().problems.clone()
    }

    /// Is told when that changes.
    pub(crate) fn changes(&self) -> watch::Receiver<Told> {
        self.0.told.subscribe()
    }

    /// Does something for a person at the machine.
    pub(crate) async fn ask(&self, act: MirrorAct) -> Response {
        let answered = match act {
            MirrorAct::Push => self
                .answer(Ask::Push)
                .await
                .map(|a| a.map(Response::Mirrored)),
            MirrorAct::Verify => self
                .answer(Ask::Verify)
                .await
                .map(|a| a.map(Response::MirrorVerified)),
        };
        match answered {
            Some(Ok(response)) => response,
            Some(Err(wrong)) => {
                let fix = match wrong {
                    Wrong::NoConsent(_) => "layer-sync mirror auth",
                    Wrong::Refused(_) => "ask there: `layer-sync status` says which node that is",
                    _ => "layer-sync mirror status",
                };
                refused(exit::ERROR, &format!("the mirror: {wrong}"), fix)
            }
            None => refused(
                exit::ERROR,
                "the mirror does not run",
                "layer-sync duty list",
            ),
        }
    }

    /// Lets a batch pass that waits for a person; says whether there is one of that name.
    pub(crate) async fn confirm(&self, batch: &str) -> bool {
        let ask = |answer| Ask::Confirm(batch.to_owned(), answer);
        self.answer(ask).await.unwrap_or(false)
    }

    async fn answer<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let asks = {
            let asks = self.0.asks.lock().unwrap_or_else(PoisonError::into_inner);
            asks.clone()?
        };
        let (answer, answered) = oneshot::channel();
        asks.send(ask(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Runs the mirror, for one open tree and one pair after the other.
    pub(crate) async fn run(
        self,
        home: Home,
        mut follows: Follows,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        loop {
            let tree = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                tree = follows.tree.wait_for(Option::is_some) => match tree {
                    Ok(tree) => tree.clone(),
                    Err(_) => return Ok(()),
                },
            };
            let Some(tree) = tree else { continue };
            follows.tree.mark_unchanged();
            let pair = follows.linkage.borrow().pair;
            let (end, ended) = watch::channel(false);
            let (asker, asks) = mpsc::channel(ASKS_MAX);
            *self.0.asks.lock().unwrap_or_else(PoisonError::into_inner) = Some(asker);
            let (standing, stands) = watch::channel(Standing::default());
            let job = Job {
                home: home.clone(),
                tree,
                pair,
                stands,
                asks,
                told: self.0.told.clone(),
                stop: ended,
            };
            let mut work = tokio::task::spawn_blocking(move || job.run());
            // However this ends, the thread is told to.
            let _end = End(end);
            let mut role = follows.lease.watch();
            let mut linkage = follows.linkage.clone();
            loop {
                let now_ = *linkage.borrow_and_update();
                let is_primary = role.borrow_and_update().role == Role::Primary || self.0.is_alone;
                standing.send_replace(Standing {
                    is_paired: now_.pair.is_some(),
                    is_linked: now_.is_linked,
                    is_primary,
                });
                if now_.pair != pair {
                    break;
                }
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return Ok(()),
                    _ = follows.tree.changed() => break,
                    Ok(()) = linkage.changed() => {}
                    Ok(()) = role.changed() => {}
                    ended = &mut work => match ended {
                        Ok(Ok(())) => break,
                        Ok(Err(failure)) => return Err(failure),
                        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                        Err(error) => return Err(Failure::other("the mirror stopped", error)),
                    },
                }
            }
            info!("the mirror begins anew: another tree, or another partner");
        }
    }
}

/// Tells a thread to end.
struct End(watch::Sender<bool>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// One run, on a thread of its own.
struct Job {
    home: Home,
    tree: OpenTree,
    pair: Option<PairId>,
    stands: watch::Receiver<Standing>,
    asks: mpsc::Receiver<Ask>,
    told: watch::Sender<Told>,
    stop: watch::Receiver<bool>,
}

impl Job {
    fn run(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::other("the mirror cannot be started", error))?;
        runtime.block_on(self.mirror())
    }

    async fn mirror(mut self) -> Result<(), Failure> {
        // What the settings say is read anew each time.
        let settings = Settings::read(&self.home)?;
        let Some(target) = settings.mirror.target.clone() else {
            return Ok(());
        };
        let pair = self.pair.map_or(0, pair_number);
        let owner = format!("{pair:x} {}", hex(&self.tree.index.0));
        let store = place::store(&self.home, &target, &owner)?;
        let seed = place::seed()?;
        // Marks say who wrote; two nodes of one name would take each other's copies for their own.
        let side = settings.link.side();
        let partner = Partner::read(&self.home)?.map(|partner| partner.name);
        let node = told_apart(settings.node.name.clone(), partner.as_deref(), side);
        let place = place::Place {
            settings: &settings.mirror,
            home: &self.home,
            node: &node,
            makes: true,
        };
        // Without consent there is nothing to do but to say so, until it is given.
        let target = loop {
            match place.open(&target, &store).await {
                Ok(target) => break target,
                Err(wrong) => {
                    self.say(&wrong);
                    tokio::select! {
                        _ = self.stop.wait_for(|stop| *stop) => return Ok(()),
                        () = tokio::time::sleep(settings.mirror.poll) => {}
                    }
                }
            }
        };
        let target = Patient::new(target, Patience::default(), seed);
        let moved = Arc::new(Notify::new());
        let wake = Arc::clone(&moved);
        self.tree
            .replica
            .follow(Box::new(move || wake.notify_one()));
        let setup =
            Setup {
                node,
                side: settings.link.side(),
                pair,
                mode: settings.sync.mode,
                conflicts: settings.sync.conflicts.rules().map_err(|refused| {
                    Failure::new(exit::DAEMON_CONFIG, refused.to_string(), "")
                })?,
                limits: settings.sync.guard,
            };
        let mirror = Mirror::new(target, self.tree.replica, store, setup, seed);
        let parts = Parts {
            times: Times {
                after: settings.mirror.after,
                poll: settings.mirror.poll,
            },
            standing: self.stands,
            moved,
            asks: self.asks,
            told: self.told,
            stop: self.stop,
        };
        mirror::duty::run(mirror, parts).await;
        Ok(())
    }

    fn say(&self, wrong: &Wrong) {
        self.told.send_if_modified(|told| {
            let before = told.clone();
            told.say(wrong);
            *told != before
        });
    }
}

/// Returns the pair as marks name it.
fn pair_number(pair: PairId) -> u64 {
    let bytes = pair.0;
    u64::from_le_bytes(std::array::from_fn(|index| bytes[index]))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the time for what is shown.
pub(crate) fn utc_now() -> shared::utc::UtcMs {
    clock::utc_now()
}
