//! Rows without end: honest in form, and more than any memory holds.

use std::time::Instant;

use shared::tree::{BaseRow, Gen, PATHS_MAX};
use shared::wire::{AgreedRow, Frame, ROWS_MAX, SeenRow};
use tokio::runtime::Runtime;

use super::content::{claimed, path, seen};
use super::peer::{Peer, Trap};
use super::victim::Victim;
use crate::harness::wish;

/// Rows that are sent: a few more than are taken, or as many as are wished for.
fn rows() -> usize {
    wish("FLOOD").map_or(PATHS_MAX + 50_000, |rows| rows as usize)
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

/// Sends pages until the victim has enough; returns how many rows went out, and what it said.
async fn pour(peer: &mut Peer, page: impl Fn(usize) -> Frame) -> (usize, String) {
    let pages = rows().div_ceil(ROWS_MAX);
    let mut sent = 0;
    for number in 0..pages {
        if !peer.say(&page(number)).await {
            break;
        }
        sent += ROWS_MAX;
    }
    (sent, peer.refused().await)
}

fn report(what: &str, started: Instant, sent: usize, reason: &str) {
    println!(
        "{what}: {sent} rows went out in {:.1?}, then: {reason}",
        started.elapsed()
    );
    assert!(reason.contains("which is the limit"), "{reason}");
}

/// A receiver tells of a tree without end.
pub(super) fn of_sights(victim: &Victim, runtime: &Runtime) {
    let started = Instant::now();
    let (sent, reason) = runtime.block_on(async {
        let mut peer = Peer::greeted(victim).await;
        pour(&mut peer, |number| Frame::Seen(sights(number))).await
    });
    report("sights", started, sent, &reason);
    victim.is_unharmed("a flood of sights");
    let started = Instant::now();
    let (sent, reason) = runtime.block_on(async {
        let mut peer = Peer::greeted(victim).await;
        pour(&mut peer, |number| Frame::Bases(agreed(number % 10))).await
    });
    report("base rows", started, sent, &reason);
    victim.is_unharmed("a flood of base rows");
}

/// A pusher announces rows without end.
pub(super) fn of_rows(victim: &Victim, trap: &Trap, runtime: &Runtime) {
    let started = Instant::now();
    let (sent, reason) = runtime.block_on(async {
        let (mut peer, _, _) = trap.greeted().await;
        pour(&mut peer, |number| Frame::Agreed(Gen(1), agreed(number))).await
    });
    report("agreed rows", started, sent, &reason);
    victim.is_unharmed("a flood of agreed rows");
}
