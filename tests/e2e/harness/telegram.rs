//! A Bot API server on loopback: one bot, the people who write to it, and a log of effects.
//!
//! It follows the documented protocol, and where that is silent what the public server does: its
//! texts, its 409s, its limits. A test plays the people with [`BotApi::says`] and [`BotApi::presses`],
//! reads what stands in a chat with [`BotApi::chat`], and reads who did what and when with
//! [`BotApi::effects`]. Rules read the server's clock, which [`BotApi::advance`] moves; the log and
//! [`Faults::delay`] read the real one. Never here: media, groups beyond their limits, a real webhook.

mod arguments;
mod chats;
mod html;
mod limits;
mod methods;
mod polls;
mod send;
mod serve;
mod updates;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use chats::{Chats, Message, bot_commands, person};
use limits::Limits;
use polls::Polls;
use updates::{QUERY_LIFE, UPDATE_LIFE, Updates};

const TOKEN: &str = "7001:TEST-token";
const BOT: i64 = 7001;
/// Longest wait for open calls when the server ends.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);

/// A running server; it ends when this is dropped.
pub(crate) struct BotApi {
    addr: SocketAddr,
    server: Arc<Server>,
    runtime: Option<Runtime>,
}

/// One call of the bot.
#[derive(Clone, Debug)]
pub(crate) struct Effect {
    pub(crate) begun: Instant,
    /// When it was answered, or when the connection ended before an answer. `None`: it is open.
    pub(crate) ended: Option<Instant>,
    /// Who called, out of `layer-sync/0.1.0 (vm; epoch 42)`; empty and 0 when the agent is another.
    pub(crate) node: String,
    pub(crate) epoch: u64,
    pub(crate) method: String,
    pub(crate) body: Value,
    /// Status of the answer; 0 when there was none, or not yet.
    pub(crate) answer: u16,
    /// The message that was made or edited, also when nobody heard of it.
    pub(crate) message: Option<i64>,
}

/// A message of the bot as it stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) message: i64,
    pub(crate) text: String,
    pub(crate) reply_to: Option<i64>,
    /// Text and callback data of each button that has any.
    pub(crate) buttons: Vec<(String, String)>,
    pub(crate) edits: u32,
}

/// What goes wrong; counts go down as they are used.
#[derive(Default, Clone, Debug)]
pub(crate) struct Faults {
    /// How many of the next sends and edits are refused with 429, and the seconds each time. Until
    /// they are over, the chat is refused everything, and that is not counted.
    pub(crate) too_many: Option<(u32, u16)>,
    /// How many of the next `sendMessage` take effect and get no answer.
    pub(crate) ambiguous: u32,
    /// Time before each answer, after its effect.
    pub(crate) delay: Duration,
    /// How many of the next calls get a 502 that is not JSON, and have no effect.
    pub(crate) server_errors: u32,
    /// How many of the next texts with a `parse_mode` cannot be parsed.
    pub(crate) parse_errors: u32,
    /// Whether sends and edits have limits.
    pub(crate) enforce_limits: bool,
}

impl BotApi {
    /// Starts a server for one bot that nobody has written to.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("bot-api")
            .enable_all()
            .build()
            .unwrap();
        let server = Arc::new(Server::default());
        runtime.spawn(serve::listen(listener, Arc::clone(&server)));
        Self {
            addr,
            server,
            runtime: Some(runtime),
        }
    }

    /// Returns what stands before `/bot<token>/<method>`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn token(&self) -> String {
        TOKEN.to_owned()
    }

    /// Lets a user write to the bot in their private chat; returns the message.
    pub(crate) fn says(&self, user: i64, text: &str) -> i64 {
        self.change(|state, now| {
            let message = Message {
                by: Some(user),
                text: text.to_owned(),
                entities: bot_commands(text),
                date: now.date,
                ..Message::default()
            };
            let id = state.chats.add(user, message);
            let update = json!({ "message": state.chats.object(user, id) });
            state.updates.push(update, UPDATE_LIFE, now.at);
            id
        })
    }

    /// Lets a user press a button under a message of the bot. The message may be gone by then.
    pub(crate) fn presses(&self, user: i64, message: i64, data: &str) {
        self.change(|state, now| {
            state.query_count += 1;
            let id = format!("{}", (user << 32) + state.query_count);
            let query = json!({
                "id": id,
                "from": person(user),
                "message": state.chats.object(user, message),
                "chat_instance": format!("{}", -user - 1),
                "data": data,
            });
            state.queries.insert(id, now.at);
            let update = json!({ "callback_query": query });
            state.updates.push(update, QUERY_LIFE, now.at);
        });
    }

    /// Lets a user change what they wrote.
    #[track_caller]
    pub(crate) fn edits(&self, user: i64, message: i64, text: &str) {
        let found = self.change(|state, now| {
            let Some(written) = state.chats.find_mut(user, message) else {
                return false;
            };
            if written.by != Some(user) {
                return false;
            }
            text.clone_into(&mut written.text);
            written.entities = bot_commands(text);
            written.edited = Some(now.date);
            let update = json!({ "edited_message": state.chats.object(user, message) });
            state.updates.push(update, UPDATE_LIFE, now.at);
            true
        });
        assert!(found, "user {user} did not write message {message}");
    }

    /// Queues an update of any kind for 24 hours; returns its id, or 0 when the bot does not want
    /// updates of that kind. A kind that is not documented cannot be unwanted.
    ///
    /// A `message` in it makes its chat known, and can be replied to.
    pub(crate) fn queue(&self, update: Value) -> i64 {
        self.change(|state, now| {
            state.chats.learn(&update["message"], now.date);
            state.updates.push(update, UPDATE_LIFE, now.at).unwrap_or(0)
        })
    }

    /// Makes a chat known in which nobody has written yet.
    pub(crate) fn knows(&self, chat: i64) {
        self.change(|state, _| state.chats.know(chat));
    }

    /// Returns when a node first called since then.
    pub(crate) fn first_since(&self, since: Instant, node: &str) -> Option<Instant> {
        let state = self.server.lock();
        let late = state
            .effects
            .iter()
            .rev()
            .take_while(|effect| effect.begun >= since);
        late.filter(|effect| effect.node == node)
            .map(|effect| effect.begun)
            .last()
    }

    /// Returns all calls so far, in the order in which they arrived.
    pub(crate) fn effects(&self) -> Vec<Effect> {
        self.server.lock().effects.clone()
    }

    /// Returns what the bot has said in a chat and has not deleted, in order.
    pub(crate) fn chat(&self, chat: i64) -> Vec<Said> {
        self.server.lock().chats.said(chat)
    }

    /// Returns how many updates are not confirmed and not expired.
    pub(crate) fn pending(&self) -> usize {
        let mut state = self.server.lock();
        let now = state.now();
        state.updates.pending(now.at)
    }

    /// Returns how often the limits have refused a send or an edit.
    pub(crate) fn limit_breaks(&self) -> usize {
        self.server.lock().limits.breaks()
    }

    /// Replaces what goes wrong. A wait that a bot was told before is over.
    pub(crate) fn faults(&self, faults: Faults) {
        self.change(|state, _| {
            state.faults = faults;
            state.limits.open_all();
        });
    }

    /// Moves the server's clock.
    pub(crate) fn advance(&self, by: Duration) {
        self.change(|state, _| state.ahead += by);
    }

    /// Makes the token wrong, also for the poll that is open.
    pub(crate) fn revoke_token(&self) {
        self.change(|state, _| {
            state.revoked = true;
            state.polls.forget_all();
        });
    }

    pub(crate) fn restore_token(&self) {
        self.change(|state, _| state.revoked = false);
    }

    /// Sets a webhook as somebody else with the token would.
    pub(crate) fn set_webhook(&self, url: &str) {
        self.change(|state, now| state.polls.set_webhook(url, now.at));
    }

    /// Changes the state and lets the polls look at it.
    fn change<T>(&self, what: impl FnOnce(&mut State, Moment) -> T) -> T {
        self.server.change(what)
    }
}

impl Drop for BotApi {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(SHUTDOWN_MAX);
        }
    }
}

/// What the calls share.
#[derive(Default)]
struct Server {
    state: Mutex<State>,
    /// Rings after each change.
    bell: Notify,
}

impl Server {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, what: impl FnOnce(&mut State, Moment) -> T) -> T {
        let mut state = self.lock();
        let now = state.now();
        let done = what(&mut state, now);
        drop(state);
        self.bell.notify_waiters();
        done
    }
}

/// All that the server knows.
#[derive(Default)]
struct State {
    effects: Vec<Effect>,
    faults: Faults,
    chats: Chats,
    updates: Updates,
    polls: Polls,
    limits: Limits,
    /// When each button was pressed, by the id of the query.
    queries: HashMap<String, Instant>,
    query_count: i64,
    revoked: bool,
    ahead: Duration,
}

impl State {
    fn now(&self) -> Moment {
        let date = SystemTime::now() + self.ahead;
        Moment {
            at: Instant::now() + self.ahead,
            date: date
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
        }
    }
}

/// The time on the server's clock.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    /// Seconds since 1970.
    date: u64,
}
