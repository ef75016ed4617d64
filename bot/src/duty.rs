//! The duty `bot`: at work while this node is primary, and ready all the while.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shared::control::{BotState, BotStatus, LeaseView, Role};
use shared::lease::Epoch;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::board::Board;
use crate::books::Books;
use crate::desk::{self, Ask};
use crate::ledger::{Ledger, LedgerError};
use crate::port::{Leave, Port};
use crate::record::What;
use crate::telegram::Telegram;
use crate::term::{EFFECT_TIMEOUT, Term};
use crate::{handle, poll, send, watch as watching};

/// How often it is looked for what the other node wrote.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How often what is old is dropped.
const PRUNE_EVERY: Duration = Duration::from_secs(6 * 3600);
/// How often the leave that stands for being at work is taken anew.
const PRESENT_EVERY: Duration = Duration::from_secs(3);
/// How long what was said last may take to the other node before the role goes there all the same.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(1200);
/// The same on a link that has stalled: rather a slow change than an answer twice. Less than the last permit lasts.
const STALLED_WAIT: Duration = Duration::from_secs(4);
/// How long an answer that is being worked out may take when the lease is ending.
const ANSWERS_WAIT: Duration = Duration::from_millis(400);
/// How long what has begun may take when the daemon stops.
const STOP_WAIT: Duration = Duration::from_millis(700);
/// How long until something that cannot be noted is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What the bot is told once.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The name of the node.
    pub node: String,
    /// The address of the Bot API.
    pub api: String,
    /// The token. It never stands in a log or an error.
    pub token: Token,
    /// Where the view of the journals is kept. It can be lost.
    pub view: PathBuf,
}

/// The token of a bot.
#[derive(Clone)]
pub struct Token {
    text: String,
    bot: u64,
}

impl Token {
    /// Reads a token, as BotFather gives it: the number of the bot, a colon, and the secret. `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (bot, secret) = text.split_once(':')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        (!secret.is_empty() && secret.chars().all(plain)).then_some(())?;
        Some(Self {
            text: text.to_owned(),
            bot: bot.parse().ok()?,
        })
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}:…)", self.bot)
    }
}

/// Why the bot cannot run.
#[derive(Debug, thiserror::Error)]
#[error("the bot cannot begin: {0}")]
pub struct BotError(String);

/// Runs the bot until `stop` says so. `asks` are taken while it runs; `status` says how it is.
///
/// # Errors
/// When what it knows can be neither opened nor made.
///
/// # Panics
/// When one of its tasks does.
pub async fn run(
    setup: Setup,
    port: Arc<dyn Port>,
    asks: mpsc::Receiver<Ask>,
    status: watch::Sender<BotStatus>,
    stop: watch::Receiver<bool>,
) -> Result<(), BotError> {
    let (opened_port, node, view) = (Arc::clone(&port), setup.node.clone(), setup.view.clone());
    let opened = tokio::task::spawn_blocking(move || Ledger::open(opened_port, &node, &view)).await;
    let ledger = match opened {
        Ok(Ok(ledger)) => ledger,
        Ok(Err(error)) => return Err(BotError(error.to_string())),
        Err(error) => return Err(BotError(error.to_string())),
    };
    let board = Board::new(status);
    let books = Books::new(ledger, board.clone());
    let mut beside = JoinSet::new();
    beside.spawn(refresh(books.clone()));
    beside.spawn(prune(books.clone()));
    beside.spawn(desk::serve(
        Arc::clone(&port),
        books.clone(),
        setup.token.bot,
        asks,
    ));
    let mut duty = Duty {
        setup,
        port,
        books,
        board,
        stop,
    };
    tokio::select! {
        () = duty.keep() => Ok(()),
        Some(ended) = beside.join_next() => Err(unexpected_end(ended)),
    }
}

struct Duty {
    setup: Setup,
    port: Arc<dyn Port>,
    books: Books,
    board: Board,
    stop: watch::Receiver<bool>,
}

/// How a lease ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The role goes to the other node when this one is done.
    Planned,
    /// It is over.
    Lost,
    /// The daemon stops; the role may stay.
    Stopped,
}

impl Duty {
    async fn keep(&mut self) {
        let mut role = self.port.role();
        loop {
            let view = role.borrow_and_update().clone();
            if *self.stop.borrow() {
                return;
            }
            if view.role == Role::Primary {
                self.act(view.epoch, &mut role).await;
                self.board.set(BotState::NotPrimary);
                continue;
            }
            tokio::select! {
                Ok(()) = role.changed() => {}
                _ = self.stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Is at work for one lease.
    async fn act(&mut self, epoch: u64, role: &mut watch::Receiver<LeaseView>) {
        info!(epoch, "the bot is at work here");
        self.board.set(BotState::Starting);
        let (end, ending) = watch::channel(false);
        let telegram = Telegram::new(
            &self.setup.api,
            &self.setup.token.text,
            &self.setup.node,
            Arc::clone(&self.port),
            Epoch(epoch),
        );
        let term = Arc::new(Term::new(
            Arc::clone(&self.port),
            telegram,
            self.books.clone(),
            self.board.clone(),
            (self.setup.node.clone(), self.setup.token.bot),
            ending,
        ));
        let mut present = JoinSet::new();
        present.spawn(presence(Arc::clone(&self.port)));
        let mut speaking = JoinSet::new();
        let mut hearing = JoinSet::new();
        let mut answering = JoinSet::new();
        // Also while nothing can be noted: that may be what the owner has to hear of.
        hearing.spawn(watching::watch(Arc::clone(&term), epoch));
        let begun = async {
            self.begin(epoch).await;
            hearing.spawn(poll::poll(Arc::clone(&term)));
            answering.spawn(handle::handle(Arc::clone(&term)));
            speaking.spawn(send::send(Arc::clone(&term)));
        };
        let mut stop = self.stop.clone();
        let mut watched = role.clone();
        let over = over(epoch, &mut watched, &mut stop);
        tokio::pin!(over);
        let how = tokio::select! {
            () = begun => tokio::select! {
                how = &mut over => how,
                Some(ended) = hearing.join_next() => panicked(ended),
                Some(ended) = answering.join_next() => panicked(ended),
                Some(ended) = speaking.join_next() => panicked(ended),
            },
            how = &mut over => how,
        };
        info!(epoch, ?how, "the bot is not at work here any more");
        if how == End::Lost {
            // Dropping them ends each of them, with what it was about to send.
            return;
        }
        end.send_replace(true);
        hearing.shutdown().await;
        // What changes something is short; a long wait for everything to be in sync is asked for anew by the next one.
        let answered = async { while answering.join_next().await.is_some() {} };
        let _ = timeout(ANSWERS_WAIT, answered).await;
        answering.shutdown().await;
        // Every request has a time-out, so this ends; and the fence holds when the lease does not.
        let finish = async { while speaking.join_next().await.is_some() {} };
        let wait = if how == End::Stopped {
            STOP_WAIT
        } else {
            EFFECT_TIMEOUT
        };
        if timeout(wait, finish).await.is_err() {
            warn!(epoch, "what was being said is not known to be said");
        }
        if how == End::Planned && !term.replicate(LAST_WORDS_WAIT, STALLED_WAIT).await {
            warn!(
                epoch,
                "the other node may not know yet what was said last, and say it again"
            );
        }
        // With this the role may go.
        present.shutdown().await;
        if how == End::Planned {
            let gone = role.wait_for(|view| view.epoch != epoch || view.role != Role::Draining);
            let _ = gone.await;
        }
    }

    /// Notes that this node is at work, with what it knows, so that older files of the journals can go.
    async fn begin(&self, epoch: u64) {
        loop {
            let node = self.setup.node.clone();
            let begun = self.books.run(move |ledger| {
                ledger.refresh()?;
                ledger.set_epoch(epoch);
                let people = ledger.view().people()?;
                ledger.note(vec![What::Began { node, people }])?;
                Ok(ledger.view().totals()?)
            });
            match begun.await {
                Ok(totals) => return self.books.stir(totals),
                Err(error) => {
                    warn!(%error, "the bot cannot begin");
                    self.board.set(BotState::Unwritable);
                    sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Waits for the end of a lease.
async fn over(
    epoch: u64,
    role: &mut watch::Receiver<LeaseView>,
    stop: &mut watch::Receiver<bool>,
) -> End {
    loop {
        let how = {
            let view = role.borrow_and_update();
            match view.role {
                Role::Primary if view.epoch == epoch => None,
                Role::Draining if view.epoch == epoch => Some(End::Planned),
                _ => Some(End::Lost),
            }
        };
        if let Some(how) = how {
            return how;
        }
        tokio::select! {
            Ok(()) = role.changed() => {}
            _ = stop.wait_for(|stop| *stop) => return End::Stopped,
        }
    }
}

/// Holds leave without a pause: a planned change of the role waits for it, and so for what was said last.
async fn presence(port: Arc<dyn Port>) {
    let mut held = None;
    loop {
        if let Some(leave) = Leave::get(&port, EFFECT_TIMEOUT) {
            held = Some(leave);
        }
        sleep(PRESENT_EVERY).await;
        if held.as_ref().is_some_and(|leave| leave.left().is_zero()) {
            held = None;
        }
    }
}

/// Takes in what the other node writes.
async fn refresh(books: Books) {
    if let Ok(totals) = books.totals().await {
        books.stir(totals);
    }
    let mut failed = false;
    loop {
        match books.refresh().await {
            Ok(()) => failed = false,
            Err(error) => {
                // Once is enough: it may stay so for long.
                if !std::mem::replace(&mut failed, true) {
                    warn!(%error, "the journals cannot be read");
                }
            }
        }
        sleep(REFRESH_EVERY).await;
    }
}

async fn prune(books: Books) {
    loop {
        let pruned: Result<(), LedgerError> = books.run(Ledger::prune).await;
        if let Err(error) = pruned {
            warn!(%error, "old journals are not dropped");
        }
        sleep(PRUNE_EVERY).await;
    }
}

fn unexpected_end(ended: Result<(), JoinError>) -> BotError {
    match ended {
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        _ => BotError("one of its tasks ended".to_owned()),
    }
}

fn panicked(ended: Result<(), JoinError>) -> End {
    match ended {
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        _ => End::Lost,
    }
}
