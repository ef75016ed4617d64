//! A pusher that was taken over, against a real receiver.

use std::fs;

use link::Priority;
use shared::control::Request;
use shared::hash::SetHash;
use shared::transfer::{Batch, Item, Need, Op, Outcome, Part};
use shared::tree::{BaseRow, Entry, Gen};
use shared::wire::{Frame, Proof, Welcome};
use tokio::runtime::Runtime;

use super::content::{
    LEN, claimed, endless_list, file, garbage, lies, link, op, pack, path, stray_runs,
    wrong_contents,
};
use super::peer::{PATIENCE, Peer, Trap, soon, welcome};
use super::victim::{FILES, Victim};
use crate::harness::{Side, read};

/// Sends a batch with its parts, and returns what became of it; `None` when the link was ended.
async fn pushed(
    peer: &mut Peer,
    number: Gen,
    ops: Vec<Op>,
    parts: &[Part],
) -> Option<Vec<Outcome>> {
    let batch = Batch {
        number,
        ops,
        settles: None,
    };
    let mut stream = peer.stream(&Frame::Batch(batch.into(), None)).await;
    for part in parts {
        let _ = stream.send(&Frame::Part(part.clone()).encode()).await;
    }
    let _ = stream.finish();
    loop {
        match peer.next().await {
            Some(Frame::Applied(applied, outcomes)) if applied == number => return Some(outcomes),
            Some(_) => {}
            None => return None,
        }
    }
}

fn greetings(victim: &Victim, trap: &Trap, runtime: &Runtime) {
    let wrong = |change: &dyn Fn(&mut Welcome)| {
        let mut welcome = welcome();
        change(&mut welcome);
        runtime.block_on(async {
            let (mut peer, _) = trap.caught().await;
            peer.say(&Frame::Welcome(welcome)).await;
            peer.refused().await
        })
    };
    assert!(wrong(&|welcome| welcome.version = 7).contains("install the same layer-sync"));
    assert!(wrong(&|welcome| welcome.resolved = Gen(u64::MAX / 2)).contains("far beyond"));
    assert!(wrong(&|welcome| welcome.node = "a\u{1b}[2Jb".into()).contains("malformed welcome"));
    assert!(wrong(&|welcome| welcome.ignore = "x".repeat(300_000)).contains("malformed welcome"));
    victim.is_unharmed("a welcome with a lie");
    let row = BaseRow {
        entry: Some(Entry::Dir),
        batch: Gen(1),
    };
    for early in [
        Frame::Start,
        Frame::Agreed(Gen(1), vec![(path("a"), row)]),
        Frame::TellAll,
        Frame::Sweep(1),
        Frame::Fetch(Gen(1), vec![]),
        Frame::Proof(Proof::default()),
        Frame::Answer(1, "{}".into()),
        Frame::Ready(SetHash::default()),
        Frame::Ask(1, serde_json::to_string(&Request::Status).unwrap()),
    ] {
        let name = early.name();
        let reason = runtime.block_on(async {
            let (mut peer, _) = trap.caught().await;
            peer.say(&early).await;
            peer.refused().await
        });
        assert!(
            reason.contains("came when none was expected"),
            "{name}: {reason}"
        );
    }
    let reason = runtime.block_on(async {
        let (mut peer, _) = trap.caught().await;
        let ops = vec![op("notes/plan.md", Some(file("the plan")), None)];
        let batch = Batch {
            number: Gen(1000),
            settles: None,
            ops,
        };
        drop(
            peer.stream(&Frame::Batch(batch.into(), None))
                .await
                .finish(),
        );
        peer.refused().await
    });
    assert!(reason.contains("before the greeting"), "{reason}");
    victim.is_unharmed("frames before the greeting");
}

fn frames(victim: &Victim, trap: &Trap, runtime: &Runtime) {
    for (name, bytes) in garbage() {
        // On the control stream, and in the place of a batch.
        for on_stream in [false, true] {
            let reason = runtime.block_on(async {
                let (mut peer, _, _) = trap.greeted().await;
                if on_stream {
                    let mut stream = peer.connection.open_stream(Priority::Small).await.unwrap();
                    let _ = stream.send(&bytes).await;
                    drop(stream.finish());
                } else {
                    peer.raw(&bytes).await;
                }
                peer.refused().await
            });
            let said = ["the other machine", "over the limit"];
            assert!(
                said.iter().any(|words| reason.contains(words)),
                "{name}: {reason}"
            );
            victim.says(&reason);
        }
        victim.is_unharmed(name);
    }
}

/// Paths that lie inside of the root by their spelling, and must not be touched all the same.
fn paths(victim: &Victim, trap: &Trap, runtime: &Runtime) {
    let root = &victim.node().root;
    let forged = Some(file("forged"));
    let kept = fs::read_dir(root.join(".layer-sync/kept")).unwrap().count();
    let outcomes = runtime.block_on(async {
        let (mut peer, hello, _) = trap.greeted().await;
        let ops = vec![
            op(".layer-sync/marker", None, forged.clone()),
            op(".layer-sync/kept/x", None, forged.clone()),
            op(".layer-sync/kept", Some(Entry::Dir), None),
            op(".layer-sync", Some(Entry::Dir), None),
            op(".layer-sync", None, Some(link(victim.outside()))),
            op("evil", None, Some(link(victim.outside()))),
            op("evil/secret", Some(file("not for you")), None),
            op("evil/secret", Some(file("not for you")), forged.clone()),
            op("evil/new", None, forged.clone()),
            op("evil/folder", None, Some(Entry::Dir)),
            op("missing/new", None, forged.clone()),
            op("notes/plan.md/new", None, forged.clone()),
        ];
        let wants: Vec<u32> = (0..)
            .zip(&ops)
            .filter(|(_, op)| op.wants().is_some())
            .map(|(index, _)| index)
            .collect();
        let parts: Vec<Part> = wants
            .into_iter()
            .map(|index| pack(index, b"forged"))
            .collect();
        let outcomes = pushed(&mut peer, Gen(hello.last_batch.0 + 10), ops, &parts)
            .await
            .unwrap();
        // The content of what is outside, and of the private folder, is not given either.
        let items = [
            ("evil/secret", "not for you"),
            (".layer-sync/marker", "forged"),
        ];
        let items = (0..).zip(items).map(|(index, (name, content))| Item {
            index,
            path: path(name),
            entry: file(content),
            base: None,
        });
        peer.say(&Frame::Fetch(Gen(99), items.collect())).await;
        // The stream of the lease is not the one that is meant.
        let (mut stream, mut frame) = loop {
            let stream = soon("an answer", peer.connection.accept_stream()).await;
            let mut stream = stream.unwrap();
            let first = soon("its first frame", stream.recv()).await.unwrap();
            let frame = Frame::decode(&first.unwrap()).unwrap();
            if !matches!(frame, Frame::Renew(_)) {
                break (stream, Some(frame));
            }
        };
        while let Some(sent) = frame.take() {
            let frame_of = |bytes: Vec<u8>| Frame::decode(&bytes).unwrap();
            assert!(
                matches!(sent, Frame::Contents(_) | Frame::Part(Part::Gone { .. })),
                "{sent:?}"
            );
            frame = soon("a part", stream.recv()).await.unwrap().map(frame_of);
        }
        outcomes
    });
    for (index, outcome) in outcomes.iter().enumerate() {
        let is_link = index == 5;
        assert_eq!(*outcome == Outcome::Done, is_link, "{index}: {outcome:?}");
    }
    assert_eq!(
        fs::read_dir(root.join(".layer-sync/kept")).unwrap().count(),
        kept
    );
    fs::remove_file(root.join("evil")).unwrap();
    victim.is_unharmed("links out of the root, and the private folder");
}

fn contents(victim: &Victim, trap: &Trap, runtime: &Runtime) {
    let attack = |name: &str, parts: &[Part]| {
        runtime.block_on(async {
            let (mut peer, hello, _) = trap.greeted().await;
            let ops = vec![
                op("lie-1", None, Some(claimed(name, LEN))),
                op("lie-2", None, Some(claimed(name, 1 << 20))),
            ];
            pushed(&mut peer, hello.last_batch.next(), ops, parts).await
        })
    };
    for (name, parts) in lies() {
        // The link is ended; the receiver may still say what became of the batch.
        let outcomes = attack(name, &parts).unwrap_or_default();
        assert!(
            outcomes.iter().all(|outcome| *outcome == Outcome::Gone),
            "{name}: {outcomes:?}"
        );
        victim.is_unharmed(name);
    }
    for (name, parts) in wrong_contents() {
        assert_eq!(attack(name, &parts), Some(vec![Outcome::Gone; 2]), "{name}");
        victim.is_unharmed(name);
    }
    runtime.block_on(async {
        let (mut peer, hello, _) = trap.greeted().await;
        let ops = vec![op("huge", None, Some(claimed("huge", 1 << 63)))];
        let outcomes = pushed(&mut peer, hello.last_batch.next(), ops, &[])
            .await
            .unwrap();
        assert!(
            matches!(&outcomes[..], [Outcome::Held(trouble)] if trouble.text.contains("128 GiB"))
        );
    });
    victim.is_unharmed("a file of 2^63 bytes");
    runtime.block_on(async {
        let (mut peer, hello, _) = trap.greeted().await;
        let ops = (0..8).map(|n| {
            op(
                &format!("endless-{n}"),
                None,
                Some(claimed("endless", 100 << 30)),
            )
        });
        let parts: Vec<Part> = (0..120).map(|n| endless_list(n % 8)).collect();
        let outcomes = pushed(&mut peer, hello.last_batch.next(), ops.collect(), &parts)
            .await
            .unwrap();
        assert_eq!(outcomes, vec![Outcome::Gone; 8]);
    });
    victim.is_unharmed("lists of 4,000,000 chunks");
}

/// Batches that come again, come late, or wait for others that never come.
fn replays(victim: &Victim, trap: &Trap, runtime: &Runtime) {
    let make = |name: &str| vec![op(name, None, Some(Entry::Dir))];
    runtime.block_on(async {
        let (mut peer, hello, _) = trap.greeted().await;
        let number = hello.last_batch.next();
        assert_eq!(
            pushed(&mut peer, number, make("folder"), &[]).await,
            Some(vec![Outcome::Done])
        );
        // The same again is done already.
        assert_eq!(
            pushed(&mut peer, number.next(), make("folder"), &[]).await,
            Some(vec![Outcome::Done])
        );
        let replay = Batch {
            number,
            settles: None,
            ops: vec![op("folder", Some(Entry::Dir), None)],
        };
        drop(
            peer.stream(&Frame::Batch(replay.into(), None))
                .await
                .finish(),
        );
        let reason = peer.refused().await;
        assert!(reason.contains("older than what was agreed"), "{reason}");
        // Later, after another greeting, too.
        let (mut peer, _, _) = trap.greeted().await;
        let replay = Batch {
            number,
            settles: None,
            ops: vec![op("folder", Some(Entry::Dir), None)],
        };
        drop(
            peer.stream(&Frame::Batch(replay.into(), None))
                .await
                .finish(),
        );
        let reason = peer.refused().await;
        assert!(reason.contains("older than what was agreed"), "{reason}");
        let (mut peer, hello, _) = trap.greeted().await;
        let undo = vec![op("folder", Some(Entry::Dir), None)];
        assert_eq!(
            pushed(&mut peer, hello.last_batch.next(), undo, &[]).await,
            Some(vec![Outcome::Done])
        );
    });
    victim.is_unharmed("batches that come again");
    // Places in the lane whose turn never comes. Afterwards the receiver must greet again, which it does
    // only when it takes nothing any more.
    let reason = runtime.block_on(async {
        let (mut peer, hello, _) = trap.greeted().await;
        for n in 1..40 {
            let batch = Batch {
                number: Gen(hello.last_batch.0 + n),
                settles: None,
                ops: make("never/there"),
            };
            let Some(stream) = peer
                .try_stream(&Frame::Batch(batch.into(), Some(n * 1000)))
                .await
            else {
                break;
            };
            drop(stream.finish());
        }
        peer.refused().await
    });
    assert!(reason.contains("at one time"), "{reason}");
    runtime.block_on(trap.greeted());
    victim.is_unharmed("batches that wait for ever");
    runtime.block_on(async {
        let (mut peer, hello, _) = trap.greeted().await;
        let far = Batch {
            number: Gen(u64::MAX / 2),
            settles: None,
            ops: make("far"),
        };
        drop(peer.stream(&Frame::Batch(far.into(), None)).await.finish());
        assert!(peer.refused().await.contains("far beyond"));
        let (mut peer, _, _) = trap.greeted().await;
        let row = BaseRow {
            entry: Some(claimed("a", 1)),
            batch: Gen(u64::MAX / 2),
        };
        peer.say(&Frame::Agreed(Gen(1), vec![(path("a"), row)]))
            .await;
        assert!(peer.refused().await.contains("far beyond"));
        // Rows for what was never applied: they are noted, and nothing follows from them.
        let (mut peer, _, _) = trap.greeted().await;
        let batch = hello.last_batch.next();
        let row = |entry| BaseRow { entry, batch };
        let rows = vec![
            (path("notes/plan.md"), row(None)),
            (path("notes/idea.md"), row(Some(file("another idea")))),
            (path("never"), row(Some(file("never")))),
        ];
        peer.say(&Frame::Agreed(batch, rows)).await;
        peer.hears("noted", |frame| *frame == Frame::Noted(batch))
            .await;
    });
    victim.is_unharmed("rows for what was never applied");
}

fn floods(victim: &Victim, trap: &Trap, runtime: &Runtime) {
    // Streams, each with nearly all of a batch.
    runtime.block_on(async {
        let (peer, _, _) = trap.greeted().await;
        let mut streams = Vec::new();
        let almost = vec![0; (1 << 20) - 1];
        for _ in 0..5000 {
            let begun = async {
                let mut stream = peer.connection.open_stream(Priority::Small).await.ok()?;
                stream.send(&almost).await.ok()?;
                Some(stream)
            };
            match tokio::time::timeout(PATIENCE, begun).await {
                Ok(Some(stream)) => streams.push(stream),
                _ => break,
            }
        }
    });
    victim.is_unharmed("5,000 streams of garbage");
    // As many batches as are taken, with parts that wait because others are not there.
    runtime.block_on(async {
        let (peer, hello, _) = trap.greeted().await;
        let mut streams = Vec::new();
        for n in 1..16 {
            let ops = vec![op(&format!("slow-{n}"), None, Some(claimed("slow", LEN)))];
            let batch = Batch {
                number: Gen(hello.last_batch.0 + n),
                settles: None,
                ops,
            };
            let Some(mut stream) = peer.try_stream(&Frame::Batch(batch.into(), None)).await else {
                break;
            };
            let part = Part::Pack {
                files: vec![],
                zstd: true,
                bytes: vec![0; 1 << 20],
            };
            for _ in 0..20 {
                let bytes = Frame::Part(part.clone()).encode();
                if !matches!(
                    tokio::time::timeout(PATIENCE, stream.send(&bytes)).await,
                    Ok(Ok(()))
                ) {
                    break;
                }
            }
            streams.push(stream);
        }
    });
    victim.is_unharmed("15 batches with parts that are none");
    runtime.block_on(async {
        let (peer, _, _) = trap.greeted().await;
        let mut stream = peer.stream(&Frame::Chunks(Gen(1), 0)).await;
        for run in stray_runs() {
            let _ = stream.send(&Frame::ChunkRun(run).encode()).await;
        }
        let _ = stream.finish();
    });
    victim.is_unharmed("chunks that nobody asked for");
    let item = Item {
        index: 0,
        path: path("notes/plan.md"),
        entry: file("the plan"),
        base: None,
    };
    let need = Need {
        batch: Gen(1),
        item: Item {
            entry: claimed("long", 1 << 40),
            ..item.clone()
        },
        runs: vec![(0, u32::MAX); 10_000],
        olds: Vec::new(),
    };
    for (name, frame) in [
        ("20,000 fetches", Frame::Fetch(Gen(1), vec![item; 1000])),
        ("20,000 requests for chunks", Frame::Need(need)),
        (
            "20,000 requests of clients",
            Frame::Ask(1, serde_json::to_string(&Request::Status).unwrap()),
        ),
        ("20,000 sweeps", Frame::Sweep(1)),
        ("20,000 demands for the whole tree", Frame::TellAll),
    ] {
        let reason = runtime.block_on(async {
            let (mut peer, _, _) = trap.greeted().await;
            let bytes = frame.encode();
            for _ in 0..20_000 {
                let sent = tokio::time::timeout(PATIENCE, peer.out.send(&bytes)).await;
                if !matches!(sent, Ok(Ok(()))) {
                    break;
                }
            }
            let ended = tokio::time::timeout(PATIENCE, peer.connection.closed()).await;
            ended.unwrap_or_else(|_| "it was served".into())
        });
        println!("{name}: {reason}");
        victim.is_unharmed(name);
    }
}

/// Everything is deleted: all of it is kept, and comes back.
fn mass_deletion(victim: &Victim, trap: &Trap, runtime: &Runtime) {
    runtime.block_on(async {
        let (mut peer, hello, _) = trap.greeted().await;
        let exec = |entry: Entry| match entry {
            Entry::File { content, len, .. } => Entry::File {
                content,
                len,
                exec: false,
            },
            other => other,
        };
        let mut ops: Vec<Op> = FILES
            .iter()
            .map(|(name, content)| op(name, Some(exec(file(content))), None))
            .collect();
        ops.push(op("notes", Some(Entry::Dir), None));
        let _ = pushed(&mut peer, hello.last_batch.next(), ops, &[]).await;
    });
    victim.took("a mass deletion");
    let node = victim.node();
    for (name, content) in FILES {
        if read(&node.root, name).is_none() {
            node.ask(["restore", name]).exits(0);
        }
        assert_eq!(read(&node.root, name).as_deref(), Some(content), "{name}");
    }
    victim.is_unharmed("a mass deletion and its undoing");
}

/// Attacks a receiver, and lets the honest pusher come back.
fn attacked(attack: impl Fn(&Victim, &Trap, &Runtime)) {
    let victim = Victim::new(Side::Receiver);
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let trap = Trap::new(&victim);
    attack(&victim, &trap, &runtime);
    runtime.block_on(trap.close());
    let pair = victim.heals();
    for (path, content) in FILES {
        let found = read(&pair.receiver.root, path);
        assert_eq!(found.as_deref(), Some(content), "{path}");
    }
}

#[test]
fn a_pusher_that_was_taken_over_lies() {
    attacked(|victim, trap, runtime| {
        greetings(victim, trap, runtime);
        frames(victim, trap, runtime);
    });
}

#[test]
fn a_pusher_that_was_taken_over_sends_what_is_none() {
    attacked(|victim, trap, runtime| {
        paths(victim, trap, runtime);
        contents(victim, trap, runtime);
        replays(victim, trap, runtime);
        mass_deletion(victim, trap, runtime);
    });
}

#[test]
fn a_pusher_that_was_taken_over_floods() {
    attacked(|victim, trap, runtime| {
        floods(victim, trap, runtime);
        super::flood::of_rows(victim, trap, runtime);
    });
}
