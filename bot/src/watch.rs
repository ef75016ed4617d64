//! Watches the pair, and tells the owner what is not as it should be.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shared::control::{Request, Response, Status};
use shared::words::plain;
use tokio::time::sleep;
use tracing::warn;

use crate::alarm::{News, news};
use crate::ledger::LedgerError;
use crate::poll::status_of;
use crate::record::What;
use crate::say::Say;
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
    for number in 0_u32.. {
        if !announced {
            announced = announce(&term, epoch).await.is_ok();
        }
        if number.is_multiple_of(PEER_EVERY) || peer.is_none() {
            peer = status_of(&term, true).await;
        }
        if let Err(error) = look(&term, epoch, peer.as_deref()).await {
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
    push(
        term,
        &format!("primary/{epoch}"),
        Vec::new(),
        &Body::plain(text),
        &[],
    )
    .await
}

async fn look(term: &Term, epoch: u64, peer: Option<&Status>) -> Result<(), LedgerError> {
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
    let news = news(&own, peer, &conflicts, |about| told.contains(about));
    let now: BTreeSet<&String> = news.iter().flat_map(|news| &news.about).collect();
    // What the other node says of itself is not over because it cannot be asked.
    let over = told.iter().filter(|about| {
        !now.contains(about) && (peer.is_some() || !about.starts_with("safe_mode/"))
    });
    let over = over
        .map(|about| What::Cleared {
            about: about.clone(),
        })
        .collect();
    term.books.note(over).await?;
    for News {
        about,
        body,
        buttons,
    } in news
    {
        if about.iter().any(|about| !told.contains(about)) {
            let name = format!(
                "news/{epoch}/{}",
                about.first().map(String::as_str).unwrap_or_default()
            );
            push(term, &name, about, &body, &buttons).await?;
        }
    }
    Ok(())
}

/// Puts something for each owner into the outbox.
async fn push(
    term: &Term,
    name: &str,
    about: Vec<String>,
    body: &Body,
    buttons: &[crate::say::Button],
) -> Result<(), LedgerError> {
    let people = term.books.run(|ledger| Ok(ledger.view().people()?)).await?;
    let at = term.port.utc().0;
    let mut about = about;
    let owners = people
        .into_iter()
        .filter(|known| known.allowed && known.person.owner);
    let whats = owners.map(|owner| {
        let mut say = Say::new(
            format!("{name}/{at}/{}", owner.person.user),
            owner.person.user,
            body.clone(),
        );
        say.buttons = buttons.to_vec();
        What::Pushed {
            about: std::mem::take(&mut about),
            say,
        }
    });
    let whats = whats.collect();
    term.books.note(whats).await
}
