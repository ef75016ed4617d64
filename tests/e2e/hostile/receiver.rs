//! A receiver that was taken over, against a real pusher.

use link::{Dialer, Identity, LinkError, Pins, Priority};
use shared::control::Request;
use shared::hash::SetHash;
use shared::transfer::{Item, Need, Outcome, Part};
use shared::tree::{BaseRow, Entry, Gen};
use shared::wire::{Frame, Hello, PairId};
use tokio::runtime::Runtime;

use super::content::{
    LEN, claimed, endless_list, file, garbage, lies, link, path, seen, stray_runs, wrong_contents,
};
use super::peer::{Peer, hello, soon};
use super::victim::{FILES, Victim};
use crate::harness::{Side, read, wait_until};

fn need() -> Need {
    Need {
        batch: Gen(1),
        item: Item {
            index: 0,
            path: path("notes/plan.md"),
            entry: file("the plan"),
            base: None,
        },
        runs: vec![(0, 1)],
        olds: Vec::new(),
    }
}

fn strangers_hear_nothing(victim: &Victim, runtime: &Runtime) {
    let stranger = Identity::generate().unwrap();
    let dialer = Dialer::new(&stranger, Pins::new([victim.key]));
    let refused = runtime.block_on(soon("an answer", dialer.dial(&victim.address, victim.key)));
    assert!(
        matches!(refused, Err(LinkError::RefusedByPeer { .. })),
        "{refused:?}"
    );
    victim.is_unharmed("a stranger");
}

fn greetings(victim: &Victim, runtime: &Runtime) {
    let wrong = |change: &dyn Fn(&mut Hello)| {
        let mut hello = hello(victim);
        change(&mut hello);
        runtime.block_on(async {
            let mut peer = Peer::dial(victim).await;
            peer.say(&Frame::Hello(hello)).await;
            peer.refused().await
        })
    };
    assert!(wrong(&|hello| hello.pair = PairId([9; 16])).contains("belongs to another pair"));
    assert!(wrong(&|hello| hello.version = 2).contains("install the same layer-sync"));
    assert!(wrong(&|hello| hello.version = u32::MAX).contains("install the same layer-sync"));
    assert!(wrong(&|hello| hello.last_batch = Gen(u64::MAX / 2)).contains("never given"));
    assert!(wrong(&|hello| hello.node = "../../mac".into()).contains("malformed hello"));
    victim.is_unharmed("a greeting with a lie");
    let ask = serde_json::to_string(&Request::Pause).unwrap();
    for early in [
        Frame::Seen(vec![seen("a", Entry::Dir)]),
        Frame::Bases(vec![]),
        Frame::Ready(SetHash::default()),
        Frame::Need(need()),
        Frame::Ask(1, ask),
        Frame::Answer(1, "{}".into()),
        Frame::Applied(Gen(1), vec![Outcome::Done]),
        Frame::Noted(Gen(1)),
        Frame::Swept(1, SetHash::default()),
        Frame::Start,
    ] {
        let name = early.name();
        let reason = runtime.block_on(async {
            let mut peer = Peer::dial(victim).await;
            peer.say(&early).await;
            peer.refused().await
        });
        assert!(
            reason.contains("came when none was expected"),
            "{name}: {reason}"
        );
    }
    assert!(!victim.node().status().to_string().contains("paused"));
    victim.is_unharmed("frames before the greeting");
}

fn frames(victim: &Victim, runtime: &Runtime) {
    for (name, bytes) in garbage() {
        let reason = runtime.block_on(async {
            let mut peer = Peer::greeted(victim).await;
            peer.raw(&bytes).await;
            peer.refused().await
        });
        let said = ["the other machine sent", "over the limit"];
        assert!(
            said.iter().any(|words| reason.contains(words)),
            "{name}: {reason}"
        );
        victim.says(&reason);
        victim.is_unharmed(name);
    }
}

/// Paths that lie inside of the root by their spelling, and must not be touched all the same.
fn paths(victim: &Victim, runtime: &Runtime) {
    let rows = vec![
        seen(".layer-sync/kept/x", file("forged")),
        seen(".layer-sync/marker", file("forged")),
        seen("evil", link(victim.outside())),
        seen("evil/secret", file("forged")),
        seen("evil/new", file("forged")),
        seen("sub/.layer-sync/marker", file("forged")),
    ];
    runtime.block_on(async {
        let mut peer = Peer::ready(victim, rows).await;
        // Whatever of it is fetched is given. When nothing more is on its way, a proof says so.
        let mut proofs = 0;
        while proofs < 2 {
            match peer.next().await {
                Some(Frame::Fetch(batch, items)) => {
                    let mut stream = peer.stream(&Frame::Contents(batch)).await;
                    for item in items {
                        let part = Frame::Part(super::content::pack(item.index, b"forged"));
                        let _ = stream.send(&part.encode()).await;
                    }
                    let _ = stream.finish();
                }
                Some(Frame::Proof(_)) => proofs += 1,
                Some(_) => {}
                None => break,
            }
        }
    });
    let link_is_a_link = victim.node().root.join("evil");
    // The link itself may stand in the tree: it is a link, and nothing was written through it.
    drop(std::fs::remove_file(link_is_a_link));
    drop(std::fs::remove_dir(victim.node().root.join("sub")));
    victim.is_unharmed("links out of the root, and the private folder");
}

/// Answers a fetch of two files that nobody has with parts that are lies.
fn fetched(victim: &Victim, name: &str, parts: &[Part], runtime: &Runtime) -> Option<String> {
    let rows = vec![
        seen(&format!("{name} 1"), claimed(name, LEN)),
        seen(&format!("{name} 2"), claimed(name, 1 << 20)),
    ];
    runtime.block_on(async {
        let mut peer = Peer::ready(victim, rows).await;
        let fetch = peer
            .hears("fetch", |frame| matches!(frame, Frame::Fetch(..)))
            .await;
        let Frame::Fetch(batch, _) = fetch else {
            unreachable!()
        };
        let mut stream = peer.stream(&Frame::Contents(batch)).await;
        for part in parts {
            let _ = stream.send(&Frame::Part(part.clone()).encode()).await;
        }
        let _ = stream.finish();
        loop {
            match peer.next().await {
                // It was not to be had, and is planned again.
                Some(Frame::Fetch(later, _)) if later > batch => return None,
                Some(_) => {}
                None => return Some(soon("an end", peer.connection.closed()).await),
            }
        }
    })
}

fn contents(victim: &Victim, runtime: &Runtime) {
    for (name, parts) in lies() {
        let end = fetched(victim, name, &parts, runtime);
        let reason = end.unwrap_or_else(|| panic!("{name} was taken"));
        victim.says(&reason);
        victim.is_unharmed(name);
    }
    for (name, parts) in wrong_contents() {
        assert_eq!(fetched(victim, name, &parts, runtime), None, "{name}");
        victim.is_unharmed(name);
    }
    // A file of 2^63 bytes is not even fetched in full: it is held, with a sentence.
    runtime.block_on(async {
        let mut peer = Peer::ready(victim, vec![seen("huge", claimed("huge", 1 << 63))]).await;
        let held = |frame: &Frame| {
            matches!(frame, Frame::Proof(proof) if proof.problems.iter().any(|problem| problem.text.contains("128 GiB")))
        };
        peer.hears("a held file", held).await;
    });
    victim.is_unharmed("a file of 2^63 bytes");
    // A list of chunks that does not end.
    runtime.block_on(async {
        let rows = vec![seen("endless", claimed("endless", 100 << 30))];
        let mut peer = Peer::ready(victim, rows).await;
        let fetch = peer
            .hears("fetch", |frame| matches!(frame, Frame::Fetch(..)))
            .await;
        let Frame::Fetch(batch, _) = fetch else {
            unreachable!()
        };
        let mut stream = peer.stream(&Frame::Contents(batch)).await;
        let piece = Frame::Part(endless_list(0)).encode();
        for _ in 0..120 {
            if stream.send(&piece).await.is_err() {
                break;
            }
        }
    });
    victim.is_unharmed("a list of 4,000,000 chunks");
}

/// Answers to what was never asked.
fn lies_about_the_past(victim: &Victim, runtime: &Runtime) {
    runtime.block_on(async {
        let mut peer = Peer::ready(victim, vec![seen("lie", claimed("lie", LEN))]).await;
        let fetch = peer
            .hears("fetch", |frame| matches!(frame, Frame::Fetch(..)))
            .await;
        let Frame::Fetch(batch, _) = fetch else {
            unreachable!()
        };
        // The victim is taking this batch itself: what becomes of it is not for us to say.
        for number in [batch, Gen(batch.0 + 1), Gen(u64::MAX / 2), Gen(0)] {
            peer.say(&Frame::Applied(number, vec![Outcome::Done; 1000]))
                .await;
            peer.say(&Frame::Noted(number)).await;
            peer.say(&Frame::Answer(number.0, "{\"paused\":true}".into()))
                .await;
            peer.say(&Frame::Swept(number.0, SetHash::default())).await;
        }
        let gone = Frame::Part(Part::Gone { index: 0 });
        let mut stream = peer.stream(&Frame::Contents(batch)).await;
        stream.send(&gone.encode()).await.unwrap();
        stream.finish().unwrap();
        // It was not taken for done: it is fetched again.
        let later = |frame: &Frame| matches!(frame, Frame::Fetch(later, _) if *later > batch);
        peer.hears("fetch", later).await;
    });
    victim.is_unharmed("answers to what was never asked");
    runtime.block_on(async {
        let mut peer = Peer::greeted(victim).await;
        let row = BaseRow {
            entry: Some(claimed("a", 1)),
            batch: Gen(u64::MAX / 2),
        };
        peer.say(&Frame::Bases(vec![(path("a"), row)])).await;
        assert!(peer.refused().await.contains("never given"));
        let mut peer = Peer::greeted(victim).await;
        peer.say(&Frame::Ready(SetHash::default())).await;
        peer.say(&Frame::Bases(vec![])).await;
        assert!(peer.refused().await.contains("came when none was expected"));
        let mut peer = Peer::greeted(victim).await;
        let mut wrong = SetHash::default();
        wrong.add(&path("a"), &Entry::Dir);
        peer.say(&Frame::Ready(wrong)).await;
        peer.hears("tell-all", |frame| matches!(frame, Frame::TellAll))
            .await;
        peer.say(&Frame::Ready(wrong)).await;
        assert!(peer.refused().await.contains("set hash"));
    });
    victim.is_unharmed("a base and a tree that are not there");
}

fn floods(victim: &Victim, runtime: &Runtime) {
    // Streams, each with nearly all of a frame that is longer than may begin one.
    runtime.block_on(async {
        let mut peer = Peer::ready(victim, vec![]).await;
        let mut streams = Vec::new();
        for _ in 0..5000 {
            let Ok(opened) = tokio::time::timeout(
                super::peer::PATIENCE,
                peer.connection.open_stream(Priority::Small),
            )
            .await
            else {
                break;
            };
            let Ok(mut stream) = opened else { break };
            let _ = stream.send(&Frame::Refuse("x".repeat(4000)).encode()).await;
            streams.push(stream);
        }
        peer.refused().await;
    });
    victim.is_unharmed("5,000 streams that begin with too much");
    runtime.block_on(async {
        let peer = Peer::ready(victim, vec![]).await;
        let mut streams = Vec::new();
        for n in 0..5000 {
            let begun = async {
                let mut stream = peer.connection.open_stream(Priority::Small).await.ok()?;
                stream.send(&Frame::Chunks(Gen(n), 0).encode()).await.ok()?;
                for run in stray_runs() {
                    stream.send(&Frame::ChunkRun(run).encode()).await.ok()?;
                }
                Some(stream)
            };
            match tokio::time::timeout(super::peer::PATIENCE, begun).await {
                Ok(Some(stream)) => streams.push(stream),
                _ => break,
            }
        }
    });
    victim.is_unharmed("streams of chunks that nobody asked for");
    // Requests for content, and of clients, without waiting for an answer.
    let mut asking = need();
    asking.item.entry = claimed("long", 1 << 40);
    asking.runs = vec![(0, u32::MAX); 10_000];
    for (name, frame, count) in [
        ("20,000 requests for chunks", Frame::Need(asking), 20_000),
        (
            "20,000 requests of clients",
            Frame::Ask(1, serde_json::to_string(&Request::Flush).unwrap()),
            20_000,
        ),
    ] {
        let reason = runtime.block_on(async {
            let mut peer = Peer::ready(victim, vec![]).await;
            let bytes = frame.encode();
            for _ in 0..count {
                if !peer.raw(&bytes).await {
                    break;
                }
            }
            peer.refused().await
        });
        println!("{name}: {reason}");
        victim.is_unharmed(name);
    }
    // Requests whose answers are long, and nobody reads them.
    runtime.block_on(async {
        let mut peer = Peer::ready(victim, vec![]).await;
        let plan = Frame::Ask(1, serde_json::to_string(&Request::Plan).unwrap()).encode();
        for _ in 0..20_000 {
            let sent = tokio::time::timeout(super::peer::PATIENCE, peer.out.send(&plan)).await;
            if !matches!(sent, Ok(Ok(()))) {
                break;
            }
        }
    });
    victim.is_unharmed("a peer that asks and never reads");
}

/// Attacks a pusher, and lets the honest receiver come back.
fn attacked(attack: impl Fn(&Victim, &Runtime)) {
    let victim = Victim::new(Side::Pusher);
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    attack(&victim, &runtime);
    let pair = victim.heals();
    for (path, content) in FILES {
        assert_eq!(read(&pair.pusher.root, path).as_deref(), Some(content));
    }
    wait_until("nothing is held", crate::harness::SOON, || {
        pair.pusher.in_sync()
    });
}

#[test]
fn a_receiver_that_was_taken_over_lies() {
    attacked(|victim, runtime| {
        strangers_hear_nothing(victim, runtime);
        greetings(victim, runtime);
        frames(victim, runtime);
        lies_about_the_past(victim, runtime);
    });
}

#[test]
fn a_receiver_that_was_taken_over_sends_what_is_none() {
    attacked(|victim, runtime| {
        paths(victim, runtime);
        contents(victim, runtime);
    });
}

#[test]
fn a_receiver_that_was_taken_over_floods() {
    attacked(|victim, runtime| {
        floods(victim, runtime);
        super::flood::of_sights(victim, runtime);
        super::flood::of_plans(victim, runtime);
    });
}
