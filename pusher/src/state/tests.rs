//! The pusher's decisions, event by event. The receiver is played by hand.

use std::time::{Duration, Instant};

use disk::quiet::Quiet;
use shared::hash::{ContentHash, SetHash};
use shared::mirror::{Step, Trail};
use shared::transfer::Op;
use shared::wire::Hello;

use super::*;

mod guarded;

const OURS: IndexId = IndexId([1; 16]);
const THEIRS: IndexId = IndexId([2; 16]);
const PAIR: PairId = PairId([3; 16]);

fn path(raw: &str) -> RelPath {
    RelPath::parse(raw).unwrap()
}

fn file(content: &str) -> Entry {
    Entry::File {
        content: ContentHash::of_bytes(content.as_bytes()),
        len: content.len() as u64,
        exec: false,
    }
}

fn is(raw: &str, content: &str) -> (RelPath, Sight) {
    (path(raw), Sight::Is(file(content)))
}

fn row(content: &str, batch: u64) -> BaseRow {
    BaseRow {
        entry: Some(file(content)),
        batch: Gen(batch),
    }
}

fn hash_of(rows: &[(RelPath, Sight)]) -> SetHash {
    let mut hash = SetHash::default();
    rows.iter()
        .filter_map(|(path, sight)| Some((path, sight.entry()?)))
        .for_each(|(path, entry)| hash.add(path, entry));
    hash
}

/// A pusher with its clock.
struct Bench {
    pusher: Pusher,
    now: Instant,
    done: Vec<Action>,
    /// Whether the time that a plan waits for more of the same passes by itself.
    in_a_blink: bool,
}

impl Bench {
    fn new(base: &[(&str, &str, u64)], seen: &[(&str, &str)]) -> Self {
        let now = Instant::now();
        let setup = Setup {
            folds: false,
            limits: Limits::default(),
            conflicts: ConflictRules::default(),
            node: "vm".into(),
            root: "/tree".into(),
            version: "0".into(),
            pair: Some(PAIR),
            peer: "mac".into(),
            mode: Mode::TwoWaySafe,
            interval: Duration::from_secs(30),
        };
        let mut seen_known: Vec<_> = seen
            .iter()
            .map(|(p, content)| (path(p), file(content)))
            .collect();
        seen_known.sort_by(|(a, _), (b, _)| a.cmp(b));
        let stored = Stored {
            base: base
                .iter()
                .map(|(p, content, batch)| (path(p), row(content, *batch)))
                .collect(),
            seen_known,
            index: OURS,
            index_is_new: false,
            trails: Vec::new(),
            notes: Notes {
                base_of: Some(THEIRS),
                ..Notes::default()
            },
        };
        let looks = Looks::new(Quiet::new(None), setup.interval, now);
        Self {
            pusher: Pusher::new(setup, stored, looks, now, UtcMs(0)),
            now,
            done: Vec::new(),
            in_a_blink: true,
        }
    }

    fn on(&mut self, event: Event) -> &mut Self {
        self.done
            .extend(self.pusher.apply(event, self.now, UtcMs(0)));
        if self.in_a_blink
            && let Some(gathering) = self.pusher.gathering
        {
            self.now = self.now.max(gathering.again);
            self.done
                .extend(self.pusher.apply(Event::Tick, self.now, UtcMs(0)));
        }
        self
    }

    /// The first sweep has ended.
    fn swept(&mut self) -> &mut Self {
        self.on(Event::Tick).on(Event::Looked {
            sweep: true,
            result: Ok(Vec::new()),
        })
    }

    /// A receiver greets, whose base rows above the resolved ones and whose tree are these.
    fn greeted(
        &mut self,
        bases: Vec<AgreedRow>,
        apart: Vec<(RelPath, Sight)>,
        hash: SetHash,
    ) -> &mut Self {
        self.on(Event::Linked)
            .hello(Some(OURS))
            .on(Event::Frame(Frame::Bases(bases)));
        self.on(Event::Frame(Frame::Seen(apart)))
            .on(Event::Frame(Frame::Ready(hash)))
    }

    fn hello(&mut self, base_of: Option<IndexId>) -> &mut Self {
        self.on(Event::Frame(Frame::Hello(Hello {
            version: shared::wire::PROTOCOL_VERSION,
            pair: PAIR,
            node: "mac".into(),
            index: THEIRS,
            base_of,
            last_batch: Gen(0),
        })))
    }

    fn pushed(&self) -> Vec<&Batch> {
        self.done
            .iter()
            .filter_map(|action| {
                if let Action::Push(batch, _) = action {
                    Some(batch)
                } else {
                    None
                }
            })
            .collect()
    }

    fn sent(&self) -> Vec<&Frame> {
        self.done
            .iter()
            .filter_map(|action| {
                if let Action::Send(frame) = action {
                    Some(frame)
                } else {
                    None
                }
            })
            .collect()
    }

    fn committed(&mut self) -> &mut Self {
        let batches: Vec<Gen> = self
            .done
            .extract_if(.., |action| matches!(action, Action::Commit { .. }))
            .filter_map(|action| {
                if let Action::Commit { batch, .. } = action {
                    Some(batch)
                } else {
                    None
                }
            })
            .collect();
        for batch in batches {
            self.on(Event::Committed(batch));
        }
        self
    }

    fn in_sync(&mut self) -> bool {
        self.pusher.is_settled()
    }
}

#[test]
fn nothing_is_planned_before_both_sides_are_known() {
    let mut bench = Bench::new(&[], &[]);
    bench.on(Event::Observed(vec![is("a", "1")]));
    assert!(bench.pushed().is_empty(), "no sweep, no link");
    bench.swept();
    assert!(bench.pushed().is_empty(), "no link");
    bench.on(Event::Linked).hello(Some(OURS));
    assert!(
        bench.pushed().is_empty(),
        "the receiver has not told what it has"
    );
    bench.on(Event::Frame(Frame::Ready(SetHash::default())));
    assert_eq!(bench.pushed().len(), 1);
}

#[test]
fn the_base_moves_when_it_is_durable_on_both_sides() {
    let mut bench = Bench::new(&[], &[]);
    bench
        .on(Event::Observed(vec![is("a", "1")]))
        .swept()
        .greeted(vec![], vec![], SetHash::default());
    let batch = bench.pushed()[0].number;
    assert_eq!(bench.pusher.trees.agreed(&path("a")), None);
    bench.on(Event::Frame(Frame::Applied(batch, vec![Outcome::Done])));
    assert_eq!(
        bench.pusher.trees.agreed(&path("a")),
        None,
        "durable there, not yet here"
    );
    assert!(!bench.in_sync());
    bench.committed();
    assert_eq!(bench.pusher.trees.agreed(&path("a")), Some(&file("1")));
    assert!(bench.in_sync());
}

#[test]
fn a_row_that_only_the_receiver_stored_is_adopted() {
    // The batch that brought v2 was applied over there when this process died; then the user saved
    // v3 here. That is one change, not two.
    let mut bench = Bench::new(&[("a", "1", 5)], &[("a", "3")]);
    bench.pusher.notes.resolved = Gen(5);
    let theirs = vec![is("a", "2")];
    bench
        .swept()
        .greeted(vec![(path("a"), row("2", 6))], vec![], hash_of(&theirs))
        .committed();
    let ops: Vec<&Op> = bench.pushed().iter().flat_map(|batch| &batch.ops).collect();
    assert_eq!(ops.len(), 1);
    assert_eq!(
        (ops[0].expect.clone(), ops[0].make.clone()),
        (Some(file("2")), Some(file("3")))
    );
    assert!(bench.pushed()[0].number > Gen(6), "numbers never repeat");
}

#[test]
fn rows_that_the_receiver_may_lack_are_told_first() {
    let mut bench = Bench::new(&[("a", "1", 5), ("b", "1", 9)], &[("a", "1"), ("b", "1")]);
    bench.pusher.notes.resolved = Gen(5);
    bench.swept().on(Event::Linked).hello(Some(OURS));
    let told: Vec<&RelPath> = bench
        .sent()
        .into_iter()
        .filter_map(|frame| {
            if let Frame::Agreed(_, rows) = frame {
                Some(rows)
            } else {
                None
            }
        })
        .flatten()
        .map(|(path, _)| path)
        .collect();
    assert_eq!(told, [&path("b")]);
}

#[test]
fn bases_that_do_not_belong_together_are_forgotten_and_nothing_is_deleted() {
    let mut bench = Bench::new(&[("a", "1", 5), ("b", "1", 5)], &[("a", "1"), ("b", "1")]);
    let theirs = vec![is("a", "1"), is("c", "1")];
    bench
        .swept()
        .on(Event::Linked)
        .hello(Some(IndexId([9; 16])));
    bench
        .on(Event::Frame(Frame::Seen(theirs.clone())))
        .on(Event::Frame(Frame::Ready(hash_of(&theirs))));
    bench.committed();
    let planned: Vec<(&RelPath, bool)> = bench
        .done
        .iter()
        .flat_map(|action| match action {
            Action::Push(batch, _) | Action::Take(batch, _, _) => batch
                .ops
                .iter()
                .map(|op| (&op.path, op.make.is_some()))
                .collect(),
            _ => Vec::new(),
        })
        .collect();
    let planned: BTreeSet<_> = planned.into_iter().collect();
    assert_eq!(
        planned,
        BTreeSet::from([(&path("b"), true), (&path("c"), true)])
    );
}

#[test]
fn a_wrong_set_hash_asks_for_the_whole_tree_and_then_ends_the_link() {
    let mut bench = Bench::new(&[("a", "1", 5)], &[("a", "1")]);
    bench.swept().greeted(vec![], vec![], SetHash::default());
    assert!(bench.sent().contains(&&Frame::TellAll));
    assert!(bench.pushed().is_empty());
    // It has nothing, says so, and now that is believed: the file was deleted there.
    bench.on(Event::Frame(Frame::Ready(SetHash::default())));
    assert!(
        bench.done.iter().any(
            |action| matches!(action, Action::Take(batch, _, _) if batch.ops[0].make.is_none())
        )
    );
    // A receiver that contradicts itself is sent away.
    let mut bench = Bench::new(&[("a", "1", 5)], &[("a", "1")]);
    let wrong = hash_of(&[is("x", "1")]);
    bench
        .swept()
        .greeted(vec![], vec![], wrong)
        .on(Event::Frame(Frame::Ready(wrong)));
    assert!(
        bench
            .done
            .iter()
            .any(|action| matches!(action, Action::Unlink(_)))
    );
}

#[test]
fn what_is_being_stored_goes_with_the_base_that_is_forgotten() {
    let mut bench = Bench::new(&[], &[]);
    bench
        .on(Event::Observed(vec![is("a", "1")]))
        .swept()
        .greeted(vec![], vec![], SetHash::default());
    let batch = bench.pushed()[0].number;
    bench.on(Event::Frame(Frame::Applied(batch, vec![Outcome::Done])));
    // The receiver comes back without its index before the row is stored here.
    bench
        .on(Event::Unlinked("lost".into()))
        .on(Event::Linked)
        .hello(None);
    let stored = bench.done.iter().filter_map(|action| match action {
        Action::Commit { rows, .. } => Some(rows.iter()),
        _ => None,
    });
    let of_a: Vec<_> = stored
        .flatten()
        .filter(|(at, _)| *at == path("a"))
        .collect();
    assert_eq!(of_a.last().expect("it is told").1.entry, None);
    bench.committed();
    assert_eq!(bench.pusher.trees.agreed(&path("a")), None);
    assert!(!bench.pusher.batches.is_busy(&path("a")));
}

#[test]
fn another_version_and_another_pair_are_refused_in_words() {
    for (version, pair, word) in [
        (99, PAIR, "version"),
        (shared::wire::PROTOCOL_VERSION, PairId([9; 16]), "pair"),
    ] {
        let mut bench = Bench::new(&[], &[]);
        let hello = Hello {
            version,
            pair,
            node: "x".into(),
            index: THEIRS,
            base_of: None,
            last_batch: Gen(0),
        };
        bench
            .swept()
            .on(Event::Linked)
            .on(Event::Frame(Frame::Hello(hello)));
        let refused = bench.sent().into_iter().find_map(|frame| {
            if let Frame::Refuse(why) = frame {
                Some(why)
            } else {
                None
            }
        });
        assert!(refused.unwrap().contains(word));
    }
}

#[test]
fn what_went_stale_is_planned_again_later_and_not_in_a_loop() {
    let mut bench = Bench::new(&[], &[]);
    bench
        .on(Event::Observed(vec![is("a", "1")]))
        .swept()
        .greeted(vec![], vec![], SetHash::default());
    let batch = bench.pushed()[0].number;
    bench
        .on(Event::Frame(Frame::Applied(batch, vec![Outcome::Stale])))
        .on(Event::Tick);
    assert_eq!(bench.pushed().len(), 1);
    bench.now += Duration::from_secs(1);
    bench.on(Event::Tick);
    assert_eq!(bench.pushed().len(), 2);
}

#[test]
fn a_path_that_is_on_its_way_is_not_planned_twice() {
    let mut bench = Bench::new(&[], &[]);
    bench
        .on(Event::Observed(vec![is("a", "1")]))
        .swept()
        .greeted(vec![], vec![], SetHash::default());
    bench.on(Event::Observed(vec![is("a", "2")]));
    assert_eq!(bench.pushed().len(), 1);
    let batch = bench.pushed()[0].number;
    bench
        .on(Event::Frame(Frame::Applied(batch, vec![Outcome::Done])))
        .committed();
    let last = bench.pushed()[1];
    assert_eq!(
        (last.ops[0].expect.clone(), last.ops[0].make.clone()),
        (Some(file("1")), Some(file("2")))
    );
}

#[test]
fn a_conflict_copy_comes_before_what_displaces_it() {
    let mut bench = Bench::new(&[("a", "1", 5)], &[("a", "2")]);
    bench.pusher.notes.resolved = Gen(5);
    let theirs = vec![is("a", "3")];
    bench
        .swept()
        .greeted(vec![], theirs.clone(), hash_of(&theirs));
    let here: Vec<&Batch> = bench.pushed();
    assert_eq!(here.len(), 1, "the path waits for its copy");
    assert!(here[0].ops.iter().all(|op| op.path != path("a")));
    let batch = here[0].number;
    bench.on(Event::Frame(Frame::Applied(batch, vec![Outcome::Done])));
    assert_eq!(bench.pushed()[1].ops[0].path, path("a"));
}

#[test]
fn a_tombstone_is_kept_until_both_sides_have_it() {
    let mut bench = Bench::new(&[("a", "1", 5)], &[("a", "1")]);
    bench.pusher.notes.resolved = Gen(5);
    bench
        .swept()
        .greeted(vec![], vec![(path("a"), Sight::Absent)], SetHash::default());
    let batch = bench.done.iter().find_map(|action| {
        if let Action::Take(batch, ..) = action {
            Some(batch.number)
        } else {
            None
        }
    });
    let batch = batch.unwrap();
    bench.on(Event::Applied(batch, vec![Outcome::Done]));
    let tombstone = BaseRow { entry: None, batch };
    assert!(
        bench
            .sent()
            .contains(&&Frame::Agreed(batch, vec![(path("a"), tombstone.clone())]))
    );
    assert_eq!(bench.pusher.trees.base().get(&path("a")), Some(&tombstone));
    bench.on(Event::Frame(Frame::Noted(batch)));
    bench.now += Duration::from_secs(31);
    bench.on(Event::Tick);
    assert_eq!(bench.pusher.trees.base().get(&path("a")), None);
}

#[test]
fn a_pause_plans_nothing_and_a_resume_does() {
    let mut bench = Bench::new(&[], &[]);
    bench.on(Event::Observed(vec![is("a", "1")])).swept();
    bench
        .on(Event::Asked(Client::Local(1), Request::Pause))
        .greeted(vec![], vec![], SetHash::default());
    assert!(bench.pushed().is_empty());
    bench.on(Event::Asked(Client::Local(2), Request::Resume));
    assert_eq!(bench.pushed().len(), 1);
}

#[test]
fn a_lost_root_stops_planning_until_it_is_back() {
    let mut bench = Bench::new(&[("a", "1", 5)], &[("a", "1")]);
    bench.pusher.notes.resolved = Gen(5);
    let theirs = vec![is("a", "1"), is("b", "1")];
    bench.on(Event::Tick).on(Event::Looked {
        sweep: true,
        result: Err("gone".into()),
    });
    bench.greeted(vec![], vec![is("b", "1")], hash_of(&theirs));
    assert!(
        bench
            .done
            .iter()
            .all(|action| !matches!(action, Action::Push(..) | Action::Take(..)))
    );
    assert!(!bench.in_sync());
    bench.now += Duration::from_secs(31);
    bench.swept();
    assert!(bench.done.iter().any(
        |action| matches!(action, Action::Take(batch, _, _) if batch.ops[0].path == path("b"))
    ));
}

#[test]
fn a_flush_waits_for_both_sweeps_and_for_what_they_found() {
    let mut bench = Bench::new(&[], &[]);
    bench.swept().greeted(vec![], vec![], SetHash::default());
    let answered = |bench: &Bench| {
        bench.done.iter().any(|action| {
            matches!(
                action,
                Action::Answer(Client::Local(1), Response::Compared(_))
            )
        })
    };
    bench.on(Event::Asked(Client::Local(1), Request::Flush));
    let id = bench
        .sent()
        .into_iter()
        .find_map(|frame| {
            if let Frame::Sweep(id) = frame {
                Some(*id)
            } else {
                None
            }
        })
        .unwrap();
    bench
        .on(Event::Observed(vec![is("a", "1")]))
        .on(Event::Looked {
            sweep: true,
            result: Ok(vec![]),
        });
    assert!(!answered(&bench));
    bench.on(Event::Frame(Frame::Swept(id, SetHash::default())));
    assert!(!answered(&bench), "its file is not durable there");
    let batch = bench.pushed()[0].number;
    bench.on(Event::Frame(Frame::Applied(batch, vec![Outcome::Done])));
    assert!(!answered(&bench), "its row is not durable here");
    bench.committed();
    assert!(answered(&bench));
}

/// The notes of the last commit that was asked for.
fn last_notes(bench: &Bench) -> Notes {
    let notes = bench.done.iter().rev().find_map(|action| match action {
        Action::Commit { notes, .. } => Some(notes.clone()),
        _ => None,
    });
    notes.unwrap()
}

#[test]
fn a_batch_counts_as_open_while_its_own_rows_are_being_stored() {
    let mut bench = Bench::new(&[], &[]);
    bench
        .on(Event::Observed(vec![is("a", "1")]))
        .swept()
        .greeted(vec![], vec![], SetHash::default());
    let batch = bench.pushed()[0].number;
    bench.on(Event::Frame(Frame::Applied(batch, vec![Outcome::Done])));
    assert!(last_notes(&bench).resolved < batch);
}

#[test]
fn each_frame_of_rows_has_to_be_noted() {
    let mut batches = Batches::default();
    batches.announced(Gen(3));
    batches.announced(Gen(3));
    batches.noted(Gen(3));
    assert_eq!(batches.first_open(), Some(Gen(3)));
    batches.noted(Gen(3));
    assert_eq!(batches.first_open(), None);
    batches.noted(Gen(3));
}

#[test]
fn rows_that_became_durable_during_a_greeting_are_told_after_it() {
    let mut bench = Bench::new(&[], &[]);
    let seen = vec![is("a", "1")];
    bench.swept().greeted(vec![], seen.clone(), hash_of(&seen));
    let batch = bench.pusher.notes.last_batch;
    bench
        .on(Event::Unlinked("cut".into()))
        .on(Event::Linked)
        .hello(Some(OURS))
        .on(Event::Applied(batch, vec![Outcome::Done]));
    let told = |bench: &Bench| {
        let agreed = |frame: &&Frame| matches!(frame, Frame::Agreed(of, _) if *of == batch);
        bench.sent().iter().any(agreed)
    };
    assert!(!told(&bench), "the receiver expects no rows now");
    bench
        .on(Event::Frame(Frame::Seen(seen.clone())))
        .on(Event::Frame(Frame::Ready(hash_of(&seen))));
    assert!(told(&bench));
}

#[test]
fn what_a_conflict_swallowed_is_planned_when_it_is_settled() {
    let mut bench = Bench::new(&[("a/x", "0", 1)], &[("a/x", "0")]);
    bench.on(Event::Observed(vec![(path("a/x"), Sight::Absent)]));
    bench.pusher.peer.link(bench.now);
    bench
        .pusher
        .trees
        .observe(Side::Beta, path("a/x"), Sight::Absent);
    bench.pusher.due.clear();
    let row = BaseRow {
        entry: Some(file("1")),
        batch: Gen(2),
    };
    bench.pusher.settle(&path("a"), row);
    assert!(bench.pusher.due.contains(&path("a/x")));
}

mod liar;

#[test]
fn that_the_last_batch_makes_the_trees_equal_is_told_with_it() {
    let mut bench = Bench::new(&[("a", "1", 1)], &[("a", "1")]);
    let before = [(path("a"), Sight::Is(file("1")))];
    bench.swept().greeted(vec![], vec![], hash_of(&before));
    let proofs = |bench: &Bench| {
        let is_proof = |frame: &&&Frame| matches!(frame, Frame::Proof(_));
        bench.sent().iter().filter(is_proof).count()
    };
    assert_eq!(proofs(&bench), 1, "equal from the start");
    let mut edit = |content: &str, outcome: Outcome| {
        bench.done.clear();
        bench.on(Event::Observed(vec![(path("a"), Sight::Is(file(content)))]));
        let batch = bench.pushed()[0].clone();
        let after = [(path("a"), Sight::Is(file(content)))];
        assert_eq!(batch.settles, Some(hash_of(&after).beginning()));
        bench.on(Event::Frame(Frame::Applied(batch.number, vec![outcome])));
        bench.on(Event::Committed(batch.number));
        (proofs(&bench), bench.pusher.was_settled)
    };
    assert_eq!(edit("2", Outcome::Done), (0, true), "it knows by itself");
    assert_eq!(edit("3", Outcome::Done), (0, true));
    assert_eq!(edit("4", Outcome::Stale), (0, false), "nobody knows");
}

#[test]
fn many_rows_that_the_receiver_has_are_not_told_to_it_again() {
    let (few, many) = (ROWS_TOLD_AGAIN_MAX - 1, ROWS_TOLD_AGAIN_MAX);
    for (count, stored) in [(few, false), (many, true)] {
        let names: Vec<String> = (0..count).map(|number| format!("{number:04}")).collect();
        let base: Vec<_> = names.iter().map(|name| (name.as_str(), "1", 1)).collect();
        let seen: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
        let mut bench = Bench::new(&base, &seen);
        let before: Vec<_> = names
            .iter()
            .map(|name| (path(name), Sight::Is(file("1"))))
            .collect();
        bench.swept().greeted(vec![], vec![], hash_of(&before));
        let mut notes = bench.done.iter().filter_map(|action| match action {
            Action::Commit { rows, notes, .. } if rows.is_empty() => Some(notes),
            _ => None,
        });
        let resolved = notes.next().map(|notes| notes.resolved >= Gen(1));
        assert_eq!(resolved, stored.then_some(true), "{count} rows");
        assert!(notes.next().is_none(), "once");
        assert!(bench.pusher.was_settled, "nothing waits for it");
    }
}

#[test]
fn of_a_batch_that_leaves_something_nothing_is_told_in_advance() {
    let mut bench = Bench::new(&[("a", "1", 1), ("b", "1", 1)], &[("a", "1"), ("b", "1")]);
    let before = [
        (path("a"), Sight::Is(file("1"))),
        (path("b"), Sight::Is(file("1"))),
    ];
    bench.swept().greeted(vec![], vec![], hash_of(&before));
    bench.on(Event::Observed(vec![(path("a"), Sight::Is(file("2")))]));
    bench.done.clear();
    bench.on(Event::Observed(vec![(path("b"), Sight::Is(file("2")))]));
    assert_eq!(bench.pushed()[0].settles, None, "another one is on its way");
}

#[test]
fn what_crossed_by_the_mirror_is_what_both_come_from() {
    let trail = |steps: &[(u64, &str)]| Trail {
        batch: Gen(1),
        steps: steps
            .iter()
            .map(|(writing, content)| Step {
                writing: *writing,
                entry: Some(file(content)),
            })
            .collect(),
    };
    let mut bench = Bench::new(&[("a", "0", 1)], &[("a", "0")]);
    // This side has made 1 of what was agreed on, the receiver has taken that by the mirror, and this side has made 2 of it.
    let told = |content, steps| vec![(path("a"), Sight::Is(file(content)), trail(steps))];
    bench
        .on(Event::Passed(told("1", &[(7, "1")])))
        .on(Event::Observed(vec![is("a", "2")]))
        .swept()
        .on(Event::Linked)
        .hello(Some(OURS));
    let mut hash = SetHash::default();
    hash.add(&path("a"), &file("1"));
    bench
        .on(Event::Frame(Frame::Seen(vec![is("a", "1")])))
        .on(Event::Frame(Frame::Trails(told("1", &[(7, "1")]))))
        .on(Event::Frame(Frame::Ready(hash)));
    let pushed = bench.pushed();
    let ops: Vec<_> = pushed.iter().flat_map(|batch| &batch.ops).collect();
    assert_eq!(ops.len(), 1, "no copy: {ops:?}");
    assert_eq!(ops[0].path, path("a"));
    assert_eq!(ops[0].make, Some(file("2")));
}

#[test]
fn what_the_receiver_may_have_taken_is_known_when_the_link_ends() {
    let mut bench = Bench::new(&[], &[]);
    bench
        .on(Event::Observed(vec![is("a", "1")]))
        .swept()
        .greeted(vec![], vec![], SetHash::default());
    let pushed = bench.pushed()[0].number;
    let commits = |bench: &Bench| -> Vec<Gen> {
        let known = |action: &Action| match action {
            Action::Commit { notes, .. } => Some(notes.last_batch),
            _ => None,
        };
        bench.done.iter().filter_map(known).collect()
    };
    bench.done.clear();
    bench.on(Event::Unlinked("cut".into()));
    assert_eq!(commits(&bench), [pushed.next()]);
    bench.done.clear();
    bench.on(Event::Linked).on(Event::Unlinked("cut".into()));
    assert_eq!(commits(&bench), [], "nothing was on its way");
}
