//! The poll loop: what Telegram has is durable here before it is confirmed there.
//!
//! Order: poll, append, give the other node a moment to have it too, then poll with the next offset, which is the confirmation.
//! An offset is never kept beyond a lease: a new primary begins with what Telegram says is unconfirmed, and knows what it has
//! seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use frankenstein::methods::{DeleteWebhookParams, GetUpdatesParams, SetMyCommandsParams};
use frankenstein::types::{AllowedUpdate, BotCommand};
use serde_json::Value;
use shared::control::{BotState, Request, Response};
use shared::utc::UtcMs;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::command::{Command, LIST};
use crate::heard::{Heard, Read, read};
use crate::ledger::{Ledger, LedgerError, a_day_before};
use crate::port::Leave;
use crate::record::What;
use crate::say::Say;
use crate::telegram::{Me, TelegramError};
use crate::term::{EFFECT_TIMEOUT, REPLICATE_WAIT, Term};
use crate::text::Body;

/// How long Telegram may keep a poll waiting, where the lease has no end, and how long the request may take.
const LONG: (u32, Duration) = (25, Duration::from_secs(35));
/// The same where the lease has to be renewed: less than what is left of it.
const SHORT: (u32, Duration) = (4, EFFECT_TIMEOUT);
/// Updates in one answer.
const UPDATES_MAX: u32 = 100;
/// While more than this waits for an answer, no more is taken in: Telegram keeps it for a day.
const WAITING_MAX: u64 = 1000;
/// How long until it is looked again whether there is room.
const ROOM_AGAIN: Duration = Duration::from_millis(200);
/// From so many failures in a row on, Telegram counts as out of reach.
const FAILURES_MIN: u32 = 3;
/// How long after a failure it is tried again, the first time and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// The same after a token that is not taken.
const UNAUTHORISED_AGAIN: Duration = Duration::from_secs(30);
/// The same after a webhook that is there again.
const WEBHOOK_AGAIN: Duration = Duration::from_secs(60);
/// After meeting a rival: so long, and up to 30 s more by chance, so that two do not keep meeting.
const RIVAL_AGAIN: Duration = Duration::from_secs(5);
/// After what cannot be made durable.
const UNWRITABLE_AGAIN: Duration = Duration::from_secs(2);
/// Most strangers that are answered in an hour.
const REFUSALS_AN_HOUR: u64 = 20;

/// Polls until the lease ends.
pub(crate) async fn poll(term: Arc<Term>) {
    let mut polling = Polling {
        term,
        offset: None,
        quiet: false,
        limit: UPDATES_MAX,
        webhook_removed: false,
        failures: 0,
    };
    polling.introduce().await;
    loop {
        polling.once().await;
    }
}

struct Polling {
    term: Arc<Term>,
    offset: Option<i64>,
    /// Whether there was nothing the last time, so that waiting is worth it.
    quiet: bool,
    limit: u32,
    webhook_removed: bool,
    failures: u32,
}

impl Polling {
    /// Learns the name of the bot, and tells Telegram what it can do.
    async fn introduce(&mut self) {
        loop {
            let leave = self.term.leave().await;
            let me: Result<Me, TelegramError> = self
                .term
                .telegram
                .call(&leave, "getMe", &BTreeMap::<(), ()>::new())
                .await;
            drop(leave);
            match me {
                Ok(me) => {
                    self.term
                        .name
                        .send_replace(Some(me.username.unwrap_or_default()));
                    break;
                }
                Err(error) => self.failed(&error).await,
            }
        }
        let commands = LIST.map(|(name, does)| {
            BotCommand::builder()
                .command(name)
                .description(does)
                .build()
        });
        let params = SetMyCommandsParams::builder()
            .commands(commands.to_vec())
            .build();
        let leave = self.term.leave().await;
        let set: Result<bool, TelegramError> = self
            .term
            .telegram
            .call(&leave, "setMyCommands", &params)
            .await;
        if let Err(error) = set {
            warn!(%error, "the menu of the bot is not set");
        }
    }

    async fn once(&mut self) {
        self.room().await;
        let (leave, seconds) = self.leave().await;
        let params = GetUpdatesParams::builder()
            .maybe_offset(self.offset)
            .limit(self.limit)
            .timeout(seconds)
            .allowed_updates(vec![
                AllowedUpdate::Message,
                AllowedUpdate::EditedMessage,
                AllowedUpdate::CallbackQuery,
            ])
            .build();
        // Each by itself: one that cannot be read must not hold up the others.
        let updates: Result<Vec<Value>, TelegramError> =
            self.term.telegram.call(&leave, "getUpdates", &params).await;
        drop(leave);
        match updates {
            Ok(updates) => {
                self.failures = 0;
                self.quiet = updates.is_empty();
                self.took(updates).await;
            }
            Err(error) => self.failed(&error).await,
        }
    }

    async fn leave(&self) -> (Leave, u32) {
        if !self.quiet {
            return (self.term.leave().await, 0);
        }
        let (seconds, timeout) = LONG;
        match Leave::get(&self.term.port, timeout) {
            Some(leave) => (leave, seconds),
            None => (self.term.leave().await, SHORT.0),
        }
    }

    async fn took(&mut self, updates: Vec<Value>) {
        if updates.is_empty() {
            return self.term.board.set(BotState::Polling);
        }
        let (bot, name) = (self.term.bot, self.term.name().await);
        let taken = self.term.books.run(move |ledger| {
            let taken = take(ledger, bot, &name, &updates)?;
            Ok((taken, ledger.view().totals()?))
        });
        match taken.await {
            Ok((Taken { next, any }, totals)) => {
                self.term.board.set(BotState::Polling);
                self.limit = UPDATES_MAX;
                if any {
                    self.term.books.stir(totals);
                    self.term.replicate(REPLICATE_WAIT, REPLICATE_WAIT).await;
                }
                if next.is_none() {
                    // Nothing of it has a number, so nothing can be confirmed, and it comes again.
                    sleep(UNWRITABLE_AGAIN).await;
                }
                self.offset = next.or(self.offset);
            }
            Err(error) => {
                warn!(%error, "what arrived cannot be made durable, so it stays at Telegram");
                self.term.board.set(BotState::Unwritable);
                sleep(UNWRITABLE_AGAIN).await;
            }
        }
    }

    /// Waits while much waits.
    async fn room(&self) {
        loop {
            match self.term.books.totals().await {
                Ok(totals) if totals.inbox > WAITING_MAX => sleep(ROOM_AGAIN).await,
                _ => return,
            }
        }
    }

    /// Says how it is, and waits until it is worth another try.
    async fn failed(&mut self, error: &TelegramError) {
        self.failures += 1;
        self.quiet = false;
        if error.says("webhook") && !self.webhook_removed {
            return self.remove_webhook().await;
        }
        let again = (AGAIN.0 * (1 << self.failures.min(8))).min(AGAIN.1);
        let (state, again) = match error {
            error if error.says("webhook") => (BotState::Webhook, WEBHOOK_AGAIN),
            TelegramError::Refused { code: 409, .. } => {
                self.term.board.met_rival();
                let chance = u64::from_le_bytes(self.term.port.chance()) % 30_000;
                (
                    BotState::Conflict,
                    RIVAL_AGAIN + Duration::from_millis(chance),
                )
            }
            error if error.is_unauthorised() => (BotState::Unauthorised, UNAUTHORISED_AGAIN),
            TelegramError::Refused {
                retry_after: Some(after),
                ..
            } => (BotState::Throttled, *after),
            TelegramError::TooLong => {
                self.limit = 1;
                (BotState::Polling, Duration::ZERO)
            }
            // Once is nothing that a person has to know of.
            _ if self.failures < FAILURES_MIN => (self.term.board.state(), again),
            _ => (BotState::Unreachable, again),
        };
        if self.term.board.state() != state {
            warn!(%error, ?state, "the bot does not hear");
        }
        self.term.board.set(state);
        sleep(again).await;
    }

    /// Takes a webhook away, once a lease: it is a rest of another program, or that program sets it again.
    async fn remove_webhook(&mut self) {
        self.webhook_removed = true;
        let leave = self.term.leave().await;
        let params = DeleteWebhookParams::builder()
            .drop_pending_updates(false)
            .build();
        let removed: Result<bool, TelegramError> = self
            .term
            .telegram
            .call(&leave, "deleteWebhook", &params)
            .await;
        match removed {
            Ok(_) => info!("a webhook was set, and is taken away"),
            Err(error) => warn!(%error, "a webhook is set and cannot be taken away"),
        }
    }
}

/// What was made of some updates.
struct Taken {
    /// The offset that confirms them.
    next: Option<i64>,
    /// Whether anything is to be done.
    any: bool,
}

/// Makes updates durable. Those of strangers leave nothing but one refusal a day.
fn take(
    ledger: &mut Ledger,
    bot: u64,
    name: &str,
    updates: &[Value],
) -> Result<Taken, LedgerError> {
    let mut whats = Vec::new();
    let mut keys = BTreeSet::new();
    let mut next = None;
    let now = ledger.now();
    let reads: Vec<Read> = updates.iter().map(|raw| read(bot, raw)).collect();
    if reads
        .iter()
        .any(|read| matches!(read, Read::Heard(heard) if tries_to_pair(heard, name)))
    {
        // The code may have been made on the other node a moment ago.
        ledger.refresh()?;
    }
    let mut refusals = ledger
        .view()
        .refusals_since(UtcMs(now.0.saturating_sub(3_600_000)))?;
    for read in reads {
        let number = match read {
            Read::Heard(heard) => {
                let number = heard.update;
                if !ledger.view().is_known(&heard.key)? && keys.insert(heard.key.clone()) {
                    if may_speak(ledger, &heard, name, now)? {
                        whats.push(What::Received(heard));
                    } else if refusals < REFUSALS_AN_HOUR
                        && is_refused(ledger, &heard, now)?
                        && keys.insert(format!("{}", heard.from))
                    {
                        refusals += 1;
                        whats.extend(refusal(&heard));
                    }
                }
                Some(number)
            }
            Read::Other(number) => Some(number),
            Read::Strange { update, why, raw } => {
                let update = update.filter(|update| keys.insert(format!("u{update}")));
                if let Some(update) = update {
                    warn!(update, why, "an update cannot be read and is put aside");
                    whats.push(What::Quarantined { update, why, raw });
                }
                update
            }
        };
        next = next.max(number.map(|number| number + 1));
    }
    let any = !whats.is_empty();
    ledger.note(whats)?;
    Ok(Taken { next, any })
}

/// Says whether somebody is listened to. A stranger is while a pairing code is open, and then only to try it.
fn may_speak(ledger: &Ledger, heard: &Heard, name: &str, now: UtcMs) -> Result<bool, LedgerError> {
    if ledger.view().person(heard.from)?.is_some() {
        return Ok(true);
    }
    Ok(tries_to_pair(heard, name) && !ledger.open_offers(now)?.is_empty())
}

fn tries_to_pair(heard: &Heard, name: &str) -> bool {
    heard.private && matches!(Command::parse(&heard.text, name), Some(Command::Pair(_)))
}

/// Says whether a stranger is told so: in a chat of their own, once a day.
fn is_refused(ledger: &Ledger, heard: &Heard, now: UtcMs) -> Result<bool, LedgerError> {
    if !heard.private || heard.press.is_some() {
        return Ok(false);
    }
    let last = ledger.view().refused(heard.from)?;
    Ok(last.is_none_or(|at| at <= a_day_before(now)))
}

fn refusal(heard: &Heard) -> [What; 2] {
    let text = format!(
        "This bot answers its owner alone. If that is you: `layer-sync bot pair` makes a code. Your number here is {}.",
        heard.from
    );
    let say = Say {
        reply: Some(heard.message),
        ..Say::new(
            format!("{}/refusal", heard.key),
            heard.chat,
            Body::plain(text),
        )
    };
    let about = Vec::new();
    [
        What::Refused { user: heard.from },
        What::Pushed { about, say },
    ]
}

/// Asks the node for its status, for whoever needs it beside a chat.
pub(crate) async fn status_of(term: &Term, peer: bool) -> Option<Box<shared::control::Status>> {
    let request = match peer {
        true => Request::Peer(Box::new(Request::Status)),
        false => Request::Status,
    };
    match term.port.ask(request).await {
        Response::Status(status) => Some(status),
        _ => None,
    }
}
