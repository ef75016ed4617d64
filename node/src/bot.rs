//! The duty `bot`: hands the bot what it has of this node, and the people at the machine a way to it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bot::{Ask, Asked, Listed, Port, Setup, Token};
use config::{Home, Secrets, Settings};
use disk::tree_files::TreeFiles;
use shared::control::{
    BotAct, BotState, BotStatus, Health, LeaseView, NodeSide, Problem, Request, Response, exit,
};
use shared::lease::{Epoch, Moment, Permit};
use shared::path::RelPath;
use shared::utc::UtcMs;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use crate::control::{Desk, refused};
use crate::lease::Lease;
use crate::open::Opened;
use crate::partner::Partner;
use crate::{Failure, clock};

/// Its name.
pub(crate) const BOT: &str = "bot";
/// The secret that there is a bot with.
const TOKEN: &str = "TELEGRAM_BOT_TOKEN";
/// Questions that wait for the bot.
const ASKS_MAX: usize = 16;
/// The file in the state folder in which the bot has its view of the journals.
const VIEW: &str = "bot.sqlite";

/// The way to the bot. Clones are the same one.
#[derive(Clone)]
pub(crate) struct BotDesk(Arc<Shared>);

struct Shared {
    status: watch::Sender<BotStatus>,
    /// To the run that runs now.
    asks: Mutex<Option<mpsc::Sender<Ask>>>,
}

impl BotDesk {
    /// Makes one if a token is set.
    ///
    /// # Errors
    /// When the secrets cannot be read.
    pub(crate) fn of(home: &Home) -> Result<Option<Self>, Failure> {
        let secrets = Secrets::read(home, std::env::vars_os())?;
        let desk = secrets.get(TOKEN).map(|_| {
            let status = watch::Sender::new(BotStatus::default());
            let asks = Mutex::new(None);
            Self(Arc::new(Shared { status, asks }))
        });
        Ok(desk)
    }

    /// Says how the bot is.
    pub(crate) fn status(&self) -> BotStatus {
        self.0.status.borrow().clone()
    }

    /// Is told when that changes.
    pub(crate) fn changes(&self) -> watch::Receiver<BotStatus> {
        self.0.status.subscribe()
    }

    /// Asks the bot something for a person at the machine.
    pub(crate) async fn ask(&self, act: BotAct) -> Response {
        let asks = self
            .0
            .asks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(asks) = asks {
            let (answer, answered) = oneshot::channel();
            if asks.send(Ask { act, answer }).await.is_ok()
                && let Ok(response) = answered.await
            {
                return response;
            }
        }
        refused(exit::ERROR, "the bot does not run", "layer-sync duty list")
    }

    /// Runs the bot. What the secrets and the settings say is read anew each time.
    pub(crate) async fn run(
        self,
        home: Home,
        port: Arc<NodePort>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let settings = Settings::read(&home)?;
        let secrets = Secrets::read(&home, std::env::vars_os())?;
        let Some(token) = secrets.get(TOKEN).and_then(Token::parse) else {
            // It would be refused each time. The rest of the node has nothing to do with it.
            warn!("{TOKEN} is no token of a bot");
            self.0
                .status
                .send_modify(|status| status.state = BotState::Unauthorised);
            let _ = stop.wait_for(|stop| *stop).await;
            return Ok(());
        };
        self.0
            .status
            .send_modify(|status| status.state = BotState::NotPrimary);
        let (sender, asks) = mpsc::channel(ASKS_MAX);
        *self.0.asks.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        let partner = Partner::read(&home)?.map(|partner| partner.name);
        let side = settings.link.side();
        let setup = Setup {
            node: told_apart(settings.node.name, partner.as_deref(), side),
            api: settings.bot_api,
            token,
            view: home.state_dir().join(VIEW),
        };
        let status = self.0.status.clone();
        let ended = bot::run(setup, port, asks, status, stop).await;
        ended.map_err(|error| Failure::other("the bot stopped", error))
    }
}

/// Returns the name of a node where it must not be that of its partner, as for its journal: two nodes must not write into one folder.
pub(crate) fn told_apart(name: String, partner: Option<&str>, side: NodeSide) -> String {
    match partner {
        Some(partner) if partner == name => format!("{name}.{}", side.name()),
        _ => name,
    }
}

/// What is wrong with the bot of a node, and what helps.
pub(crate) fn problem(bot: &BotStatus) -> Option<Problem> {
    let (code, text, fix) = match bot.state {
        BotState::NotPrimary | BotState::Starting | BotState::Polling | BotState::Throttled => {
            return None;
        }
        BotState::Unauthorised => (
            "degraded.bot_token",
            "Telegram does not take the token of the bot, so it neither hears nor speaks",
            "write the token that BotFather shows into `.env` of the home on both machines, then `layer-sync duty restart bot`",
        ),
        BotState::Conflict => (
            "degraded.bot_conflict",
            "another program polls with the token of the bot, and takes messages from it",
            "stop the other program, or make a new token with BotFather",
        ),
        BotState::Webhook => (
            "degraded.bot_webhook",
            "another program has set a webhook for the bot, so nothing can be polled",
            "stop the other program, then `layer-sync duty restart bot`",
        ),
        BotState::Unreachable => (
            "degraded.bot_unreachable",
            "Telegram cannot be reached; messages wait there for a day, and answers here",
            "look at the network of this machine, or `layer-sync promote --to` the other one",
        ),
        BotState::Unwritable => (
            "degraded.bot_journal",
            "the journal in the tree cannot be written, so nothing is taken from Telegram",
            "bring the folder back, or free some space",
        ),
    };
    Some(Problem {
        code: code.to_owned(),
        severity: Health::Degraded,
        path: None,
        text: text.to_owned(),
        fix: fix.to_owned(),
    })
}

/// What the bot has of this node.
pub(crate) struct NodePort {
    desk: Desk,
    lease: Lease,
    files: TreeFiles,
}

impl NodePort {
    pub(crate) fn new(opened: &Opened, desk: Desk, lease: Lease) -> Self {
        let root = opened.replica.root().to_owned();
        Self {
            desk,
            lease,
            files: TreeFiles::new(root, opened.replica.id()),
        }
    }
}

impl Port for NodePort {
    fn permit(&self, timeout: Duration) -> Option<Permit> {
        self.lease.permit(timeout)
    }

    fn take_back(&self, permit: Permit) {
        self.lease.take_back(permit);
    }

    fn holds(&self, epoch: Epoch) -> bool {
        self.lease.holds(epoch)
    }

    fn role(&self) -> watch::Receiver<LeaseView> {
        self.lease.watch()
    }

    fn ask(&self, request: Request) -> Asked {
        let desk = self.desk.clone();
        Box::pin(async move { desk.answer(request).await })
    }

    fn list(&self, folder: Option<&RelPath>) -> io::Result<Vec<Listed>> {
        let listed = self.files.list(folder)?.into_iter();
        let listed = listed.map(|one| Listed {
            name: one.name,
            is_dir: one.is_dir,
            len: one.len,
        });
        Ok(listed.collect())
    }

    fn read(&self, path: &RelPath, offset: u64, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.files.read(path, offset, bytes_max)
    }

    fn append(&self, path: &RelPath, bytes: &[u8]) -> io::Result<u64> {
        self.files.append(path, bytes)
    }

    fn remove(&self, path: &RelPath) -> io::Result<()> {
        self.files.remove(path)
    }

    fn now(&self) -> Moment {
        clock::now()
    }

    fn utc(&self) -> UtcMs {
        clock::utc_now()
    }

    fn chance(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        // A system without chance gives the time: less than nobody can guess, and more than always the same.
        if getrandom::fill(&mut bytes).is_err() {
            bytes = clock::utc_now().0.to_le_bytes();
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes_of_one_name_have_two_journals() {
        let name = |partner, side| told_apart("studio".to_owned(), partner, side);
        assert_eq!(name(None, NodeSide::Pusher), "studio");
        assert_eq!(name(Some("mac"), NodeSide::Pusher), "studio");
        assert_eq!(name(Some("studio"), NodeSide::Pusher), "studio.pusher");
        assert_eq!(name(Some("studio"), NodeSide::Receiver), "studio.receiver");
    }
}
