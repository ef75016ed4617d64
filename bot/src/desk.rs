//! Serves the people at the machine: `bot pair`, `bot allow` and `bot send`. On either node: what they say goes into the journal, and the
//! primary has it from there.

use std::sync::Arc;

use shared::control::{BotAct, Person, Refused, Response, exit};
use shared::utc::UtcMs;
use tokio::sync::{mpsc, oneshot};

use crate::books::Books;
use crate::handle::offer_hash;
use crate::ledger::{LedgerError, OFFER_MS};
use crate::port::Port;
use crate::record::What;
use crate::say::Say;
use crate::text::Body;

/// Letters and digits of a pairing code: none that is taken for another.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// A question of a person at the machine.
#[derive(Debug)]
pub struct Ask {
    /// What is wanted.
    pub act: BotAct,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Response>,
}

/// Serves for as long as the bot runs.
pub(crate) async fn serve(
    port: Arc<dyn Port>,
    books: Books,
    bot: u64,
    mut asks: mpsc::Receiver<Ask>,
) {
    while let Some(Ask { act, answer }) = asks.recv().await {
        let response = match one(&port, &books, bot, act).await {
            Ok(response) => response,
            Err(error) => Response::Refused(Refused {
                exit: exit::ERROR,
                text: format!("nothing was changed: {error}"),
                fix: "layer-sync status".to_owned(),
            }),
        };
        // Whoever asked may be gone.
        let _ = answer.send(response);
    }
    // Nobody can ask any more, which is no reason to end the bot.
    std::future::pending::<()>().await;
}

async fn one(
    port: &Arc<dyn Port>,
    books: &Books,
    bot: u64,
    act: BotAct,
) -> Result<Response, LedgerError> {
    let epoch = port.role().borrow().epoch;
    books
        .run(move |ledger| {
            ledger.refresh()?;
            ledger.set_epoch(epoch);
            Ok(())
        })
        .await?;
    match act {
        BotAct::Pair => {
            let code = code(port.chance());
            let hash = offer_hash(bot, &code);
            let until = UtcMs(port.utc().0 + OFFER_MS);
            books.note(vec![What::Offered { hash, until }]).await?;
            Ok(Response::Code(code))
        }
        BotAct::Allow(user) => {
            let known = books
                .run(move |ledger| Ok(ledger.view().person(user)?))
                .await?;
            if known.is_some() {
                return Ok(Response::Decided(format!(
                    "{user} may speak with the bot already"
                )));
            }
            let person = Person {
                user,
                name: String::new(),
                owner: false,
            };
            books.note(vec![What::Allowed { person }]).await?;
            Ok(Response::Decided(format!(
                "{user} may ask the bot, and change nothing"
            )))
        }
        BotAct::Deny(user) => {
            books.note(vec![What::Denied { user }]).await?;
            Ok(Response::Decided(format!(
                "the bot does not listen to {user}"
            )))
        }
        BotAct::People => {
            let people = books.run(|ledger| Ok(ledger.view().people()?)).await?;
            let may = people
                .into_iter()
                .filter(|known| known.allowed)
                .map(|known| known.person);
            Ok(Response::People(may.collect()))
        }
        BotAct::Send(text) => {
            let people = books.run(|ledger| Ok(ledger.view().people()?)).await?;
            let name = u64::from_le_bytes(port.chance());
            let owners = people
                .into_iter()
                .filter(|known| known.allowed && known.person.owner);
            let mut whats = Vec::new();
            for owner in owners {
                for (index, body) in Body::plain(text.clone()).messages().into_iter().enumerate() {
                    let id = format!("send/{name:016x}/{}/{index}", owner.person.user);
                    let (about, say) = (Vec::new(), Say::new(id, owner.person.user, body));
                    whats.push(What::Pushed { about, say });
                }
            }
            if whats.is_empty() {
                return Ok(Response::Refused(Refused {
                    exit: exit::ERROR,
                    text: "there is no owner to send it to, or nothing to send".to_owned(),
                    fix: "layer-sync bot pair".to_owned(),
                }));
            }
            books.note(whats).await?;
            Ok(Response::Decided("it is sent by the primary".to_owned()))
        }
    }
}

fn code(chance: [u8; 8]) -> String {
    let letters: Vec<u8> = chance
        .iter()
        .map(|byte| ALPHABET[usize::from(*byte) % ALPHABET.len()])
        .collect();
    String::from_utf8_lossy(&letters).into_owned()
}
