//! Rows without end: honest in form, and more than any memory holds.

use std::time::Instant;

use shared::hash::SetHash;
use shared::tree::{BaseRow, Gen, PATHS_MAX};
use shared::wire::{AgreedRow, Frame, ROWS_MAX, SeenRow};
use tokio::runtime::Runtime;

use super::content::{claimed, path, seen};
use super::peer::{Peer, Trap};
use super::victim::Victim;
use crate::harness::wish;

/// Rows that an ordinary run sends. The limit itself is tested beside the state machines.
const ROWS: usize = 100_000;
/// Most memory that a flood may make a daemon take: rows up to the limit, on their way through.
const FLOOD_BYTES_MAX: u64 = 768 << 20;

fn rows() -> usize {
    wish("FLOOD").map_or(ROWS, |rows| rows as usize)
}

fn name(number: usize) -> String {
    format!("folder-{}/a file with a name {number}.md", number / 1000)
}

fn sights(page: usize) -> Vec<SeenRow> {
    let numbers = page * ROWS_MAX..(page + 1) * ROWS_MAX;
    numbers
        .map(|number| seen(&name(number), claimed("x", number as u64)))
        .collect()
}

fn agreed(page: usize) -> Vec<AgreedRow> {
    let numbers = page * ROWS_MAX..(page + 1) * ROWS_MAX;
    let row = |number| {
        let entry = Some(claimed("x", number as u64));
        (
            path(&name(number)),
            BaseRow {
                entry,
                batch: Gen(1),
            },
        )
    };
    numbers.map(row).collect()
}

/// Sends pages until the victim has enough, and then what it answers when it has handled them all.
/// Returns how many rows went out, and what it said.
async fn pour(peer: &mut Peer, page: impl Fn(usize) -> Frame, last: Frame) -> (usize, String) {
    let pages = rows().div_ceil(ROWS_MAX);
    let mut sent = 0;
    for number in 0..pages {
        if !peer.say(&page(number)).await {
            break;
        }
        sent += ROWS_MAX;
    }
    peer.say(&last).await;
    loop {
        match peer.next().await {
            Some(Frame::TellAll | Frame::Swept(..)) => return (sent, "all were taken".into()),
            Some(Frame::Refuse(reason)) => return (sent, reason),
            Some(_) => {}
            None => return (sent, peer.connection.closed().await),
        }
    }
}

fn report(victim: &Victim, what: &str, started: Instant, (sent, reason): (usize, String)) {
    println!(
        "{what}: {sent} rows went out in {:.1?}, then: {reason}",
        started.elapsed()
    );
    let refused = reason.contains("which is the limit");
    assert_eq!(refused, sent > PATHS_MAX, "{reason}");
    victim.took_at_most(what, FLOOD_BYTES_MAX);
    victim.is_as_before(what);
    victim.took_at_most(&format!("after {what}"), FLOOD_BYTES_MAX);
}

/// A receiver tells of a tree without end.
pub(super) fn of_sights(victim: &Victim, runtime: &Runtime) {
    let mut wrong = SetHash::default();
    wrong.add(&path("a"), &claimed("x", 1));
    let started = Instant::now();
    let poured = runtime.block_on(async {
        let mut peer = Peer::greeted(victim).await;
        pour(
            &mut peer,
            |number| Frame::Seen(sights(number)),
            Frame::Ready(wrong),
        )
        .await
    });
    report(victim, "a flood of sights", started, poured);
    let started = Instant::now();
    let poured = runtime.block_on(async {
        let mut peer = Peer::greeted(victim).await;
        pour(
            &mut peer,
            |number| Frame::Bases(agreed(number % 10)),
            Frame::Ready(wrong),
        )
        .await
    });
    report(victim, "a flood of base rows", started, poured);
}

/// A receiver tells of a tree just below the limit, with the right hash: all of it is planned.
pub(super) fn of_plans(victim: &Victim, runtime: &Runtime) {
    let pages = rows().min(PATHS_MAX - ROWS_MAX) / ROWS_MAX;
    let started = Instant::now();
    runtime.block_on(async {
        let mut peer = Peer::greeted(victim).await;
        let mut hash = SetHash::default();
        for page in 0..pages {
            // In the root: nothing is planned below folders that are not there.
            let mut rows = sights(page);
            for (at, row) in rows.iter_mut().enumerate() {
                row.0 = path(&format!("{page} {at}.md"));
            }
            for (path, sight) in &rows {
                hash.add(path, sight.entry().unwrap());
            }
            peer.say(&Frame::Seen(rows)).await;
        }
        peer.say(&Frame::Ready(hash)).await;
        peer.hears("fetch", |frame| matches!(frame, Frame::Fetch(..)))
            .await;
    });
    let what = "a tree that is not there, planned";
    println!(
        "{what}: {} paths in {:.1?}",
        pages * ROWS_MAX,
        started.elapsed()
    );
    victim.took_at_most(what, FLOOD_BYTES_MAX);
}

/// A pusher announces rows without end.
pub(super) fn of_rows(victim: &Victim, trap: &Trap, runtime: &Runtime) {
    let started = Instant::now();
    let poured = runtime.block_on(async {
        let (mut peer, _, _) = trap.greeted().await;
        pour(
            &mut peer,
            |number| Frame::Agreed(Gen(1), agreed(number)),
            Frame::Sweep(1),
        )
        .await
    });
    report(victim, "a flood of agreed rows", started, poured);
}
