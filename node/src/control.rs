//! The control socket: one JSON object a line, requests in, responses out.
//!
//! It lies in the home, which only its owner can enter, so whoever can connect may ask everything.

mod idle;

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use carry::Ask;
use config::Home;
use shared::control::{
    Below, DutyAct, DutyState, EACH_MAX, Health, LINE_BYTES_MAX, Pick, Refused, Request, Response,
    RestoredBelow, VERSIONS_MAX, Version, exit, to_json,
};
use shared::history::{displaced_together, one_each};
use shared::path::RelPath;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tracing::debug;

use crate::Failure;
use crate::bot::BotDesk;
use crate::dashboard::Place;
use crate::lease::Lease;
use crate::mirror::MirrorDesk;
use crate::supervisor::Duties;
pub(crate) use idle::{Idle, problem};

/// Requests that wait for the loop.
pub(crate) const ASKS_MAX: usize = 64;
/// Responses that wait for a slow client.
const RESPONSES_MAX: usize = 256;

/// A control socket that clients can reach.
pub(crate) struct Control {
    listener: UnixListener,
    desk: Desk,
}

/// The loop that runs now.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    /// Where its requests go.
    pub(crate) asks: mpsc::Sender<Ask>,
    /// The address for pairing codes.
    pub(crate) advertise: Option<String>,
}

impl Control {
    /// Binds the socket of a home whose lock is held: a socket that is there already is a dead one.
    pub(crate) fn bind(home: &Home, desk: Desk) -> Result<Self, Failure> {
        home.create_socket_dir()?;
        let path = home.socket();
        let bind = || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let bound = bind().map(|listener| Self { listener, desk });
        bound.map_err(|error| {
            Failure::other(
                &format!("the control socket {} cannot be made", path.display()),
                error,
            )
        })
    }

    /// Serves clients.
    pub(crate) async fn serve(self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let client = self.desk.clone();
                    tokio::spawn(async move {
                        drop(
                            client
                                .serve(stream)
                                .await
                                .inspect_err(|error| debug!(%error, "client left")),
                        );
                    });
                }
                // Out of descriptors: those that are open go on, and end some time.
                Err(error) => {
                    debug!(%error, "no client accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Serves one client.
#[derive(Clone)]
pub(crate) struct Desk {
    /// Changes when the loop is started again; `None` while there is none.
    pub(crate) served: watch::Receiver<Option<Served>>,
    pub(crate) lease: Lease,
    pub(crate) duties: Duties,
    /// What is said while no loop runs.
    pub(crate) idle: Arc<Idle>,
    /// The bot, if there is one.
    pub(crate) bot: Option<BotDesk>,
    /// The mirror, if there is one.
    pub(crate) mirror: Option<MirrorDesk>,
    /// Where the dashboard is.
    pub(crate) dashboard: Place,
}

impl Desk {
    async fn serve(self, mut stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.split();
        let mut read = BufReader::new(read);
        loop {
            let mut line = Vec::new();
            (&mut read)
                .take(LINE_BYTES_MAX as u64)
                .read_until(b'\n', &mut line)
                .await?;
            if line.is_empty() {
                return Ok(());
            }
            match serde_json::from_slice(&line) {
                Ok(Request::Events) => {
                    let mut responses = self.ask(Request::Events).await;
                    while let Some(response) = responses.recv().await {
                        respond(&mut write, &response).await?;
                    }
                    return Ok(());
                }
                Ok(request) => respond(&mut write, &self.answer(request).await).await?,
                Err(error) => {
                    let fix = "use the layer-sync command of the same version as the daemon";
                    respond(
                        &mut write,
                        &refused(
                            exit::USAGE,
                            &format!("the request is not understood: {error}"),
                            fix,
                        ),
                    )
                    .await?;
                }
            }
        }
    }

    /// Answers what needs more than one of the loop's answers, and passes on the rest.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        match request {
            Request::Web => self.dashboard.answer(),
            Request::Bot(act) => match &self.bot {
                Some(bot) => bot.ask(act).await,
                None => refused(
                    exit::ERROR,
                    "there is no bot here: no token is set",
                    "write TELEGRAM_BOT_TOKEN=... into `.env` of the home (mode 0600), then start the daemon again",
                ),
            },
            Request::Mirror(act) => match &self.mirror {
                Some(mirror) => mirror.ask(act).await,
                None => refused(
                    exit::ERROR,
                    "there is no mirror here",
                    "set `target` in [mirror] of the settings, on both nodes, then start the daemons again",
                ),
            },
            Request::Confirm { batch, undo: false } if self.is_of_mirror(&batch).await => {
                Response::Decided(format!("the mirror carries out batch {batch}"))
            }
            Request::Pair(address) if address.is_empty() => match self.advertise() {
                Some(address) => self.one(Request::Pair(address)).await,
                None => refused(
                    exit::ERROR,
                    "the pusher listens on all addresses, so it cannot tell which one the receiver can reach",
                    "layer-sync pair --address HOST:PORT, or set `advertise` in [link]",
                ),
            },
            Request::Versions {
                path, both: true, ..
            } => match self.versions(&path).await {
                Ok(versions) => Response::Versions(versions),
                Err(response) => response,
            },
            Request::Status => self.status().await,
            Request::Duty { name, act } => self.act_on(&name, act),
            Request::Promote { to, force } => match self.lease.promote(to, force).await {
                Ok(view) => Response::Promoted(view.epoch),
                Err(refused) => Response::Refused(refused),
            },
            Request::Restore { path, pick } => self.restore(path, pick).await,
            Request::Why(path) => {
                let mut response = self.one(Request::Why(path.clone())).await;
                if let Response::Why(why) = &mut response {
                    why.history = self.versions(&path).await.unwrap_or_default();
                }
                response
            }
            request => self.one(request).await,
        }
    }

    /// Says how the node is: the loop knows most of it, the rest is the node's own, and without a loop all of it is.
    async fn status(&self) -> Response {
        let view = self.lease.view();
        let mut status = match self.one(Request::Status).await {
            Response::Status(status) => status,
            other if self.served.borrow().is_some() => return other,
            _ => {
                let mut status = Box::new(self.idle.status());
                status.problems.clone_from(&view.problems);
                status
            }
        };
        (status.node.role, status.node.epoch) = (view.role, view.epoch);
        status.lease = view.lease;
        status.duties = self.duties.status();
        status.process.restarts = status.duties.iter().map(|duty| duty.restarts).sum();
        status.mirror = self.mirror.as_ref().map(MirrorDesk::status);
        status.bot = self.bot.as_ref().map(BotDesk::status);
        status
            .problems
            .sort_by_key(|problem| Reverse(problem.severity));
        let worst = status.problems.first().map(|problem| problem.severity);
        status.state = worst.unwrap_or(Health::Healthy);
        Response::Status(status)
    }

    /// Lets the mirror carry out a batch, if it is one of its own.
    async fn is_of_mirror(&self, batch: &str) -> bool {
        match &self.mirror {
            Some(mirror) => mirror.confirm(batch).await,
            None => false,
        }
    }

    fn act_on(&self, name: &str, act: DutyAct) -> Response {
        let duties = self.duties.status();
        let Some(duty) = duties.iter().find(|duty| duty.name == name) else {
            let names: Vec<&str> = duties.iter().map(|duty| duty.name.as_str()).collect();
            let text = format!(
                "there is no duty \"{name}\" here; there is {}",
                names.join(", ")
            );
            return refused(exit::USAGE, &text, "layer-sync duty list");
        };
        if duty.state == DutyState::Parked && act == DutyAct::Crash {
            let fix = format!("layer-sync duty restart {name}");
            return refused(exit::ERROR, &format!("\"{name}\" does not run"), &fix);
        }
        if !self.duties.act(name, act) {
            return refused(exit::NOT_RUNNING, "the daemon is stopping", "");
        }
        Response::Decided(match act {
            DutyAct::Restart => format!("\"{name}\" is started again"),
            DutyAct::Crash => format!("\"{name}\" crashes"),
        })
    }

    /// Lists the versions that either node keeps, the latest first; without a link, this node's.
    async fn versions(&self, path: &RelPath) -> Result<Vec<Version>, Response> {
        let ask = Request::Versions {
            path: path.clone(),
            both: false,
            below: None,
        };
        let mut versions = match self.one(ask.clone()).await {
            Response::Versions(versions) => versions,
            other => return Err(other),
        };
        if let Response::Versions(theirs) = self.one(Request::Peer(Box::new(ask))).await {
            versions.extend(theirs);
        }
        versions.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.version.cmp(&b.version)));
        Ok(versions)
    }

    /// Restores from the node that keeps the version; it comes here from there as any change does.
    async fn restore(&self, path: RelPath, pick: Pick) -> Response {
        let versions = match self.versions(&path).await {
            Ok(versions) => versions,
            Err(response) => return response,
        };
        if !versions.is_empty() && versions.iter().all(|version| version.path.is_some()) {
            return self.restore_below(path, pick).await;
        }
        let versions: Vec<Version> = versions
            .into_iter()
            .filter(|version| version.path.is_none())
            .collect();
        let own = match self
            .one(Request::Versions {
                path: path.clone(),
                both: false,
                below: None,
            })
            .await
        {
            Response::Versions(own) => own,
            other => return other,
        };
        let picked = match &pick {
            Pick::Latest => versions.first(),
            // What stood there at a time is what was displaced first after it.
            Pick::At(at) => versions.iter().rev().find(|version| version.at > *at),
            Pick::Version(name) => versions.iter().find(|version| version.version == *name),
            Pick::Each(_) => None,
        };
        // When nothing fits, the disk says so with all that there is.
        let request = match picked {
            Some(version) => Request::Restore {
                path,
                pick: Pick::Version(version.version.clone()),
            },
            None => Request::Restore { path, pick },
        };
        match picked {
            Some(version) if !own.iter().any(|ours| ours.version == version.version) => {
                self.one(Request::Peer(Box::new(request))).await
            }
            _ => self.one(request).await,
        }
    }

    /// Restores a folder: each file from the node that keeps the version that is meant.
    async fn restore_below(&self, folder: RelPath, pick: Pick) -> Response {
        let ours = match self.meant_below(&folder, &pick, |request| request).await {
            Ok(versions) => versions,
            Err(response) => return response,
        };
        let to_peer = |request| Request::Peer(Box::new(request));
        let mut done = RestoredBelow::default();
        let theirs = match self.meant_below(&folder, &pick, to_peer).await {
            Ok(versions) => versions,
            Err(_) => {
                done.incomplete = true;
                Vec::new()
            }
        };
        // A name alone may be given on both nodes.
        let name = |version: &Version| (version.node.clone(), version.version.clone());
        let our_names: HashSet<(String, String)> = ours.iter().map(name).collect();
        let mut meant = one_each(ours.into_iter().chain(theirs).collect(), &pick);
        if pick == Pick::Latest {
            meant = displaced_together(meant);
        }
        if meant.is_empty() {
            return refused(
                exit::ERROR,
                &format!("nothing that is kept of \"{folder}\" is meant by that"),
                &format!(
                    "see `layer-sync versions \"{folder}\"`, then restore it with --at or --version"
                ),
            );
        }
        let (ours, theirs): (Vec<Version>, Vec<Version>) = meant
            .into_iter()
            .partition(|version| our_names.contains(&name(version)));
        for (versions, is_ours) in [(ours, true), (theirs, false)] {
            for group in versions.chunks(EACH_MAX) {
                let names = group.iter().map(|version| version.version.clone());
                let request = Request::Restore {
                    path: folder.clone(),
                    pick: Pick::Each(names.collect()),
                };
                let request = if is_ours { request } else { to_peer(request) };
                match self.one(request).await {
                    Response::RestoredBelow(more) => done.add(more),
                    Response::Refused(refused) => done.fail(refused.text),
                    _ => done.fail("the other node gave an answer that does not fit".to_owned()),
                }
            }
        }
        Response::RestoredBelow(done)
    }

    /// Lists what a restore of a folder means, as one node knows it.
    async fn meant_below(
        &self,
        folder: &RelPath,
        pick: &Pick,
        to: impl Fn(Request) -> Request,
    ) -> Result<Vec<Version>, Response> {
        let mut meant: Vec<Version> = Vec::new();
        loop {
            let below = Below {
                pick: pick.clone(),
                after: meant.last().and_then(|version| version.path.clone()),
            };
            let request = Request::Versions {
                path: folder.clone(),
                both: false,
                below: Some(below),
            };
            match self.one(to(request)).await {
                Response::Versions(page) => {
                    let is_last = page.len() < VERSIONS_MAX;
                    meant.extend(page);
                    if is_last {
                        return Ok(meant);
                    }
                }
                other => return Err(other),
            }
        }
    }

    async fn one(&self, request: Request) -> Response {
        let mut responses = self.ask(request).await;
        let stopped = || {
            if self.served.borrow().is_none() {
                let text = "the sync does not run, so nobody can answer that";
                return refused(exit::HALTED, text, "layer-sync status");
            }
            refused(
                exit::NOT_RUNNING,
                "the daemon stopped before it answered",
                "",
            )
        };
        responses.recv().await.unwrap_or_else(stopped)
    }

    async fn ask(&self, request: Request) -> mpsc::Receiver<Response> {
        let (answer, responses) = mpsc::channel(RESPONSES_MAX);
        let served = self.served.borrow().clone();
        // When the loop has ended, the receiver's end says so.
        if let Some(served) = served {
            let _ = served.asks.send(Ask { request, answer }).await;
        }
        responses
    }

    fn advertise(&self) -> Option<String> {
        self.served.borrow().as_ref()?.advertise.clone()
    }
}

async fn respond(write: &mut (impl AsyncWriteExt + Unpin), response: &Response) -> io::Result<()> {
    let mut line = to_json(response).into_bytes();
    line.push(b'\n');
    write.write_all(&line).await
}

pub(crate) fn refused(exit: u8, text: &str, fix: &str) -> Response {
    Response::Refused(Refused {
        exit,
        text: text.into(),
        fix: fix.into(),
    })
}
