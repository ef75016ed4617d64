//! Watches the pair, and tells the owner what is not as it should be.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shared::control::{Request, Response, Status};
use shared::words::plain;
use tokio::time::sleep;
use tracing::warn;

use crate::alarm::{News, is_over, news};
use crate::ledger::LedgerError;
use crate::poll::status_of;
use crate::record::What;
use crate::say::{Button, Say};
use crate::send;
use crate::term::Term;
use crate::text::Body;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// At every so manieth look the other node is asked, which costs bytes on the wire.
const PEER_EVERY: u32 = 12;

/// Tells who is primary when it is another node than before, then watches until the lease ends.
pub(crate) async fn watch(term: Arc<Term>, epoch: u64) {
    let mut announced = false;
    let mut peer = None;
    let mut unnoted = BTreeSet::new();
    for number in 0_u32.. {
        if !announced {
            announced = announce(&term, epoch).await.is_ok();
        }
        if number.is_multiple_of(PEER_EVERY) || peer.is_none() {
            peer = status_of(&term, true).await;
        }
        if let Err(error) = look(&term, epoch, peer.as_deref(), &mut unnoted).await {
            warn!(%error, "news for the owner cannot be made durable");
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn announce(term: &Term, epoch: u64) -> Result<(), LedgerError> {
    let before = term
        .books
        .run(move |ledger| Ok(ledger.view().began_before(epoch)?))
        .await?;
    let Some(before) = before.filter(|before| *before != term.node) else {
        return Ok(());
    };
    let status = status_of(term, false).await;
    let forced = status.is_some_and(|status| status.lease.forced);
    let how = if forced {
        ", because a person forced it"
    } else {
        ""
    };
    let text = format!(
        "{} is primary now, epoch {epoch}{how}. Before it was {}.",
        plain(&term.node),
        plain(&before)
    );
    let says = says(term, &format!("primary/{epoch}"), &Body::plain(text), &[]).await?;
    push(term, Vec::new(), &says).await
}

/// Looks how the pair is, and tells what is new. `unnoted` is what was told under this lease while the journal could not be written.
async fn look(
    term: &Term,
    epoch: u64,
    peer: Option<&Status>,
    unnoted: &mut BTreeSet<String>,
) -> Result<(), LedgerError> {
    let told = term.books.run(|ledger| Ok(ledger.view().told()?)).await?;
    let Some(own) = status_of(term, false).await else {
        return Ok(());
    };
    let conflicts = match own.sync.counts.conflicts {
        0 => Vec::new(),
        _ => match term.port.ask(Request::Conflicts).await {
            Response::Conflicts(conflicts) => conflicts,
            _ => return Ok(()),
        },
    };
    let is_told = |about: &str| told.contains(about) || unnoted.contains(about);
    let news = news(&own, peer, &conflicts, is_told);
    let now: BTreeSet<&String> = news.iter().flat_map(|news| &news.about).collect();
    let over = told
        .iter()
        .filter(|about| !now.contains(about) && is_over(about, &own, peer));
    let over = over.cloned().map(|about| What::Cleared { about }).collect();
    let cleared = term.books.note(over).await;
    let new = |news: &&News| news.about.iter().any(|about| !is_told(about));
    let mut lately = Vec::new();
    for News {
        about,
        body,
        buttons,
    } in news.iter().filter(new)
    {
        let first = about.first().map(String::as_str).unwrap_or_default();
        let says = says(term, &format!("news/{epoch}/{first}"), body, buttons).await?;
        if let Err(error) = push(term, about.clone(), &says).await {
            // The folder is not there, or full: what it is about, perhaps. It is told all the same.
            warn!(%error, "news for the owner cannot be made durable");
            if say_unnoted(term, &says).await {
                lately.extend(about.iter().cloned());
            }
        }
    }
    unnoted.retain(|about| now.contains(about));
    unnoted.extend(lately);
    cleared
}

/// Returns a message for each owner.
async fn says(
    term: &Term,
    name: &str,
    body: &Body,
    buttons: &[Button],
) -> Result<Vec<Say>, LedgerError> {
    let people = term.books.run(|ledger| Ok(ledger.view().people()?)).await?;
    let at = term.port.utc().0;
    let owners = people
        .into_iter()
        .filter(|known| known.allowed && known.person.owner);
    let says = owners.map(|owner| {
        let user = owner.person.user;
        Say {
            buttons: buttons.to_vec(),
            ..Say::new(format!("{name}/{at}/{user}"), user, body.clone())
        }
    });
    Ok(says.collect())
}

/// Puts messages into the outbox.
async fn push(term: &Term, mut about: Vec<String>, says: &[Say]) -> Result<(), LedgerError> {
    let pushed = says.iter().cloned().map(|say| What::Pushed {
        // Once is enough.
        about: std::mem::take(&mut about),
        say,
    });
    let pushed = pushed.collect();
    term.books.note(pushed).await
}

/// Sends messages of which no journal will know; returns whether anybody was told.
async fn say_unnoted(term: &Term, says: &[Say]) -> bool {
    let mut any = false;
    for say in says {
        let leave = term.leave().await;
        match send::request(term, &leave, say).await {
            Ok(_) => any = true,
            Err(error) => warn!(%error, "the owner is not told"),
        }
    }
    any
}
