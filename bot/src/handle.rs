//! Answers what was received: in order in each chat, chats beside each other.
//!
//! Order: what changes something is noted as begun before it begins, so that it is never done twice; then it is done; then the
//! answer is noted, with the message it answers as done, in one line. Another task says it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use frankenstein::methods::{AnswerCallbackQueryParams, SendChatActionParams};
use frankenstein::types::ChatAction;
use shared::control::{Person, Request, Response};
use shared::hash::ContentHash;
use shared::words::plain;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use crate::answer::{self, Reply};
use crate::command::Command;
use crate::heard::{Heard, Press};
use crate::ledger::LedgerError;
use crate::live::Live;
use crate::port::Leave;
use crate::record::What;
use crate::say::Say;
use crate::telegram::TelegramError;
use crate::term::{EFFECT_TIMEOUT, REPLICATE_WAIT, Term};
use crate::text::{Body, Part, head};
use crate::view::Waiting;

/// Chats that are answered at the same time.
const CHATS_MAX: usize = 8;
/// Messages of a chat that are answered in one go.
const EACH_MAX: usize = 50;
/// How long until something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// An answer that takes longer is announced, and announced again: Telegram shows that for 5 s.
const ANNOUNCE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(4));
/// How long the words before a change of the role have to be sent.
const WORDS_WAIT: Duration = Duration::from_secs(10);
/// Characters that are kept of a question.
const ABOUT_CHARS_MAX: usize = 60;

/// Answers until the lease ends. When it is ending, what has begun is brought to its end, and nothing more is begun.
pub(crate) async fn handle(term: Arc<Term>) {
    let mut busy = BTreeSet::new();
    let mut running: JoinSet<i64> = JoinSet::new();
    let mut ending = term.ending.clone();
    loop {
        let is_ending = *ending.borrow_and_update();
        if is_ending && running.is_empty() {
            return;
        }
        let room = if is_ending {
            0
        } else {
            CHATS_MAX - running.len()
        };
        let not = busy.clone();
        let waiting = term
            .books
            .run(move |ledger| Ok(ledger.view().waiting(&not, room, EACH_MAX)?))
            .await;
        for messages in waiting.unwrap_or_default() {
            let Some(chat) = messages.first().map(|first| first.heard.chat) else {
                continue;
            };
            busy.insert(chat);
            let term = Arc::clone(&term);
            running.spawn(async move {
                if let Err(error) = answer_all(&term, messages).await {
                    warn!(%error, "an answer cannot be made durable, and is tried again");
                    sleep(AGAIN).await;
                }
                chat
            });
        }
        tokio::select! {
            Some(done) = running.join_next() => match done {
                Ok(chat) => drop(busy.remove(&chat)),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => return,
            },
            _ = ending.changed() => {}
            () = term.books.heard(), if running.len() < CHATS_MAX && !is_ending => {}
            () = sleep(AGAIN), if running.is_empty() => {}
        }
    }
}

/// Answers the messages of one chat, in their order.
async fn answer_all(term: &Arc<Term>, messages: Vec<Waiting>) -> Result<(), LedgerError> {
    let mut done = Vec::new();
    for Waiting { heard, begun } in messages {
        if *term.ending.borrow() {
            break;
        }
        let user = heard.from;
        let person = term
            .books
            .run(move |ledger| Ok(ledger.view().person(user)?))
            .await?;
        let wish = Wish::read(&heard, &term.name().await);
        let reply = if wish.changes()
            && person.as_ref().is_some_and(|person| person.owner)
            && !begun
        {
            // From here on nobody does it again. What was asked before it is answered before it.
            done.push(What::Begun {
                key: heard.key.clone(),
            });
            term.books.note(std::mem::take(&mut done)).await?;
            announced(term, &heard, &wish).await
        } else if begun {
            Reply::from(
                "This was begun, and it is not known how it ended, because the machine that did it stopped. Look with /status, and say it again if it is needed.",
            )
        } else {
            allowed(term, &heard, &wish, person).await?
        };
        let says = says(term, &heard, &wish, &reply).await?;
        let last = says.last().map(|say| say.id.clone());
        let key = heard.key.clone();
        done.push(What::Answered { key, says });
        if let Some(request) = reply.afterwards {
            term.books.note(std::mem::take(&mut done)).await?;
            afterwards(term, heard.chat, last, request).await;
        }
    }
    term.books.note(done).await
}

/// What somebody wants.
enum Wish {
    Command(Command),
    Press(Press),
    /// Words that are for nobody yet.
    Words,
    /// Words in a group.
    Nothing,
}

impl Wish {
    fn read(heard: &Heard, name: &str) -> Self {
        if let Some(press) = &heard.press {
            return Self::Press(press.clone());
        }
        match Command::parse(&heard.text, name) {
            Some(command) => Self::Command(command),
            None if heard.private => Self::Words,
            None => Self::Nothing,
        }
    }

    fn changes(&self) -> bool {
        match self {
            Self::Command(command) => command.changes(),
            Self::Press(_) => true,
            Self::Words | Self::Nothing => false,
        }
    }
}

/// Answers what changes nothing, or what this person may not do.
async fn allowed(
    term: &Arc<Term>,
    heard: &Heard,
    wish: &Wish,
    person: Option<Person>,
) -> Result<Reply, LedgerError> {
    Ok(match (wish, person) {
        (Wish::Command(Command::Pair(code)), person) => pair(term, heard, code, person).await?,
        // Who was allowed to write, and is not any more; and buttons of others.
        (_, None) | (Wish::Nothing | Wish::Press(_), _) => Reply::default(),
        (wish, Some(_)) if wish.changes() => "Only the owner may do that.".into(),
        (Wish::Words, _) => "I understand commands alone. /help shows them.".into(),
        (wish, _) => announced(term, heard, wish).await,
    })
}

/// Works an answer out, and shows that it is being worked on when that takes a while.
async fn announced(term: &Arc<Term>, heard: &Heard, wish: &Wish) -> Reply {
    let mut live = Live::begin(term, heard.chat, heard.private, heard.update);
    let slow = matches!(wish, Wish::Command(Command::Sync));
    let work = async {
        match wish {
            Wish::Command(command) => answer::answer(&term.port, command, &mut live).await,
            Wish::Press(press) => pressed(term, heard, press).await,
            Wish::Words | Wish::Nothing => Reply::default(),
        }
    };
    let announce = async {
        sleep(ANNOUNCE.0).await;
        loop {
            // A draft says more.
            if !slow && let Some(leave) = Leave::get(&term.port, EFFECT_TIMEOUT) {
                let params = SendChatActionParams::builder()
                    .chat_id(heard.chat)
                    .action(ChatAction::Typing)
                    .build();
                let _: Result<bool, TelegramError> =
                    term.telegram.call(&leave, "sendChatAction", &params).await;
            }
            sleep(ANNOUNCE.1).await;
        }
    };
    let mut reply = tokio::select! {
        reply = work => reply,
        () = announce => Reply::default(),
    };
    reply.instead = live.message;
    reply
}

/// Does what a button says. That it was pressed is told at once; the words below follow.
async fn pressed(term: &Arc<Term>, heard: &Heard, press: &Press) -> Reply {
    if let Some(leave) = Leave::get(&term.port, EFFECT_TIMEOUT) {
        let params = AnswerCallbackQueryParams::builder()
            .callback_query_id(press.id.clone())
            .build();
        // It may be too late for it, which nobody minds.
        let _: Result<bool, TelegramError> = term
            .telegram
            .call(&leave, "answerCallbackQuery", &params)
            .await;
    }
    let (chat, data) = (heard.chat, press.data.clone());
    let act = term
        .books
        .run(move |ledger| Ok(ledger.view().act(chat, &data)?))
        .await;
    match act {
        Ok(Some(act)) => answer::act(&term.port, &act).await.into(),
        _ => "This button is too old. Ask again with a command.".into(),
    }
}

/// Makes somebody the owner who has the code.
async fn pair(
    term: &Arc<Term>,
    heard: &Heard,
    code: &str,
    person: Option<Person>,
) -> Result<Reply, LedgerError> {
    if person.is_some_and(|person| person.owner) {
        return Ok("You are the owner already.".into());
    }
    let tried = offer_hash(term.bot, code);
    let person = Person {
        user: heard.from,
        name: heard.name.clone(),
        owner: true,
    };
    let paired = term.books.run(move |ledger| {
        let now = ledger.now();
        let offers = ledger.open_offers(now)?;
        let fits = offers.contains(&tried);
        ledger.note(match fits {
            // A code is for one person: it ends with this.
            true => vec![
                What::Allowed { person },
                What::Offered {
                    hash: tried,
                    until: shared::utc::UtcMs(0),
                },
            ],
            false => offers
                .into_iter()
                .map(|hash| What::Missed { hash })
                .collect(),
        })?;
        Ok(fits)
    });
    Ok(match paired.await? {
        true => "You are the owner now. /help shows what I can do.".into(),
        false => {
            "That is not the code. `layer-sync bot pair` on one of the machines makes a new one."
                .into()
        }
    })
}

/// Returns what is stored of a pairing code.
pub(crate) fn offer_hash(bot: u64, code: &str) -> String {
    let code = code.trim().to_ascii_uppercase().replace('-', "");
    ContentHash::of_bytes(format!("layer-sync bot {bot} {code}").as_bytes()).to_string()
}

/// Puts a reply into messages. What was decided with a button takes the place of the buttons.
async fn says(
    term: &Arc<Term>,
    heard: &Heard,
    wish: &Wish,
    reply: &Reply,
) -> Result<Vec<Say>, LedgerError> {
    if reply.says.is_empty() {
        return Ok(Vec::new());
    }
    if let Wish::Press(_) = wish {
        let (chat, message) = (heard.chat, heard.message);
        let said = term
            .books
            .run(move |ledger| Ok(ledger.view().said(chat, message)?))
            .await?;
        let mut body = said.map(|said| said.body).unwrap_or_default();
        for (outcome, _) in &reply.says {
            body = body.and(Part::Bold(format!("→ {}", outcome.as_plain())));
        }
        let bodies = body.messages();
        return Ok(bodies
            .into_iter()
            .enumerate()
            .map(|(index, body)| Say {
                edit: (index == 0).then_some(heard.message),
                ..Say::new(format!("{}/{index}", heard.key), heard.chat, body)
            })
            .collect());
    }
    let mut says: Vec<Say> = Vec::new();
    for (body, buttons) in &reply.says {
        let bodies = body.clone().messages();
        let last = bodies.len().saturating_sub(1);
        for (index, body) in bodies.into_iter().enumerate() {
            says.push(Say {
                reply: Some(heard.message),
                edit: reply.instead.filter(|_| says.is_empty()),
                about: Some(head(heard.text.trim(), ABOUT_CHARS_MAX)),
                buttons: if index == last {
                    buttons.clone()
                } else {
                    Vec::new()
                },
                ..Say::new(format!("{}/{}", heard.key, says.len()), heard.chat, body)
            });
        }
    }
    Ok(says)
}

/// Asks for what ends the bot here, when the words before it are sent; not from here, because this ends then.
async fn afterwards(term: &Arc<Term>, chat: i64, words: Option<String>, request: Request) {
    let end = Instant::now() + WORDS_WAIT;
    while let Some(id) = words.clone() {
        let settled = term
            .books
            .run(move |ledger| Ok(ledger.view().is_settled(&id)?))
            .await;
        if settled.unwrap_or(true) || Instant::now() > end {
            break;
        }
        sleep_until(Instant::now() + Duration::from_millis(20)).await;
    }
    term.replicate(REPLICATE_WAIT, REPLICATE_WAIT).await;
    let (asked, books) = (term.port.ask(request), term.books.clone());
    let id = format!("{}/refused", words.unwrap_or_default());
    drop(tokio::spawn(async move {
        if let Response::Refused(refused) = asked.await {
            // Then the bot is still at work here.
            let say = Say::new(id, chat, Body::plain(plain(&refused.text)));
            let about = Vec::new();
            if let Err(error) = books.note(vec![What::Pushed { about, say }]).await {
                warn!(%error, "nobody is told that the role stays");
            }
        }
    }));
}
