//! Mass changes, and what people decide.

use super::*;
use shared::control::Keep as Word;
use shared::control::{Status, SyncState};

/// A pair that is in sync with this many files.
fn settled(count: u64) -> Bench {
    let names: Vec<String> = (0..count).map(|number| format!("f{number}")).collect();
    let base: Vec<(&str, &str, u64)> = names.iter().map(|name| (name.as_str(), "1", 1)).collect();
    let seen: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let mut bench = Bench::new(&base, &seen);
    bench.pusher.notes.resolved = Gen(1);
    let theirs: Vec<_> = names.iter().map(|name| is(name, "1")).collect();
    bench
        .swept()
        .greeted(vec![], vec![], hash_of(&theirs))
        .committed();
    assert!(bench.in_sync());
    bench
}

fn gone(range: std::ops::Range<u64>) -> Event {
    Event::Observed(
        range
            .map(|number| (path(&format!("f{number}")), Sight::Absent))
            .collect(),
    )
}

impl Bench {
    fn ask(&mut self, request: Request) -> Response {
        self.on(Event::Asked(Client::Local(1), request));
        let answers = self
            .done
            .extract_if(.., |action| matches!(action, Action::Answer(..)));
        match answers.last() {
            Some(Action::Answer(_, response)) => response,
            _ => panic!("no answer"),
        }
    }

    fn status(&mut self) -> Status {
        match self.ask(Request::Status) {
            Response::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    fn batch_of_fix(&mut self) -> String {
        let fix = self.status().problems[0].fix.clone();
        fix.split("confirm ").nth(1).unwrap()[..8].to_owned()
    }

    fn confirm(&mut self, batch: &str, undo: bool) -> Response {
        let batch = batch.to_owned();
        self.ask(Request::Confirm { batch, undo })
    }

    fn ops(&self) -> Vec<&Op> {
        self.pushed().iter().flat_map(|batch| &batch.ops).collect()
    }
}

#[test]
fn too_many_deletions_wait_for_a_person() {
    let mut bench = settled(100);
    bench.on(gone(0..60));
    assert!(bench.ops().is_empty());
    let status = bench.status();
    assert_eq!(
        (status.sync.state, status.sync.in_sync),
        (SyncState::Halted, false)
    );
    assert_eq!(status.problems[0].code, "halted.mass_delete");
    assert!(status.problems[0].text.contains("60 of 100 files"));
    // Nothing else moves either, and it does not go away by itself.
    bench.on(Event::Observed(vec![is("new", "2")]));
    assert!(bench.ops().is_empty());
    assert!(matches!(
        bench.confirm("00000000", false),
        Response::Refused(_)
    ));
    let batch = bench.batch_of_fix();
    assert!(matches!(bench.confirm(&batch, false), Response::Decided(_)));
    assert_eq!(bench.ops().len(), 61);
}

#[test]
fn a_halted_batch_can_be_undone() {
    let mut bench = settled(100);
    bench.on(gone(0..60));
    let batch = bench.batch_of_fix();
    bench.confirm(&batch, true);
    assert!(bench.ops().is_empty(), "nothing is deleted there");
    let taken: usize = bench
        .done
        .iter()
        .filter_map(|action| match action {
            Action::Take(batch, ..) => Some(batch.ops.len()),
            _ => None,
        })
        .sum();
    assert_eq!(taken, 60, "they come back");
}

#[test]
fn files_that_are_back_lift_the_halt() {
    let mut bench = settled(100);
    bench.on(gone(0..60));
    assert_eq!(bench.status().sync.state, SyncState::Halted);
    let back = (0..60)
        .map(|number| is(&format!("f{number}"), "1"))
        .collect();
    bench.on(Event::Observed(back));
    assert!(bench.in_sync());
    assert!(bench.status().problems.is_empty());
    assert!(bench.ops().is_empty());
}

#[test]
fn the_halt_is_there_again_after_a_restart_of_the_link() {
    let mut bench = settled(100);
    bench.on(gone(0..60));
    let batch = bench.batch_of_fix();
    bench.on(Event::Unlinked("cut".into()));
    let theirs: Vec<_> = (0..100)
        .map(|number| is(&format!("f{number}"), "1"))
        .collect();
    bench.greeted(vec![], vec![], hash_of(&theirs)).committed();
    assert!(bench.ops().is_empty());
    assert_eq!(bench.batch_of_fix(), batch);
}

#[test]
fn a_burst_is_judged_as_a_whole() {
    let mut bench = settled(100);
    // The receiver says that it is still looking.
    bench.on(Event::Frame(Frame::Moving(true)));
    for number in 0..60 {
        let rows = vec![(path(&format!("f{number}")), Sight::Absent)];
        bench.on(Event::Frame(Frame::Seen(rows)));
        bench.now += Duration::from_millis(5);
        bench.on(Event::Tick);
    }
    bench.on(Event::Frame(Frame::Moving(false)));
    assert_eq!(bench.status().problems[0].code, "halted.mass_delete");
    let taken = bench
        .done
        .iter()
        .any(|action| matches!(action, Action::Take(..)));
    assert!(!taken, "none of the sixty was deleted here");
}

#[test]
fn a_single_edit_does_not_wait() {
    let mut bench = settled(100);
    bench.on(Event::Frame(Frame::Seen(vec![is("f1", "2")])));
    assert!(
        bench
            .done
            .iter()
            .any(|action| matches!(action, Action::Take(..)))
    );
}

#[test]
fn an_edit_beside_a_restless_file_waits_a_moment_and_no_longer() {
    let mut bench = settled(100);
    bench.on(Event::Frame(Frame::Moving(true)));
    bench.on(Event::Frame(Frame::Seen(vec![is("f1", "2")])));
    let taken = |bench: &Bench| {
        bench
            .done
            .iter()
            .any(|action| matches!(action, Action::Take(..)))
    };
    assert!(!taken(&bench));
    let mut waited = Duration::ZERO;
    while !taken(&bench) {
        let next = bench.pusher.next_tick().unwrap();
        waited += next - bench.now;
        bench.now = next;
        bench.on(Event::Tick);
        assert!(waited <= Duration::from_millis(100), "{waited:?}");
    }
}

#[test]
fn an_emptied_folder_is_not_believed() {
    let mut bench = settled(5);
    bench.on(gone(0..5));
    assert!(bench.ops().is_empty());
    assert_eq!(bench.status().problems[0].code, "halted.emptied");
}

#[test]
fn a_held_conflict_is_decided() {
    let mut bench = Bench::new(&[("a.db", "1", 1)], &[("a.db", "2")]);
    bench.pusher.notes.resolved = Gen(1);
    let theirs = vec![is("a.db", "3")];
    bench
        .swept()
        .greeted(vec![], theirs.clone(), hash_of(&theirs))
        .committed();
    assert!(bench.ops().is_empty());
    assert_eq!(bench.status().problems[0].code, "held.undecided");
    let Response::Conflicts(conflicts) = bench.ask(Request::Conflicts) else {
        panic!("no conflicts")
    };
    assert!(conflicts[0].held);
    let resolve = Request::Resolve {
        path: path("a.db"),
        keep: Word::Mine,
    };
    assert!(matches!(bench.ask(resolve), Response::Decided(_)));
    assert_eq!(bench.ops().len(), 1);
    assert_eq!(bench.ops()[0].make, Some(file("2")));
}

#[test]
fn what_the_receiver_calls_its_own_is_the_receivers() {
    let mut bench = Bench::new(&[("a.db", "1", 1)], &[("a.db", "2")]);
    bench.pusher.notes.resolved = Gen(1);
    let theirs = vec![is("a.db", "3")];
    bench
        .swept()
        .greeted(vec![], theirs.clone(), hash_of(&theirs))
        .committed();
    let resolve = Request::Resolve {
        path: path("a.db"),
        keep: Word::Mine,
    };
    bench.on(Event::Asked(Client::Remote(7), resolve));
    assert!(bench.ops().is_empty());
    assert!(bench.done.iter().any(|action| matches!(
        action,
        Action::Take(batch, ..) if batch.ops[0].make == Some(file("3"))
    )));
}
