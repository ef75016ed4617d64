mod explored;
mod simulated;
mod world;

use std::time::Duration;

use super::*;
use crate::control::NodeSide::{Pusher, Receiver};

const SEND: Duration = Duration::from_secs(8);

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(1000 + seconds))
}

fn record(epoch: u64, holder: NodeSide) -> Record {
    Record {
        epoch: Epoch(epoch),
        holder,
        forced: false,
    }
}

fn renewal(number: u64, stance: Stance) -> Renewal {
    Renewal {
        number,
        seen: Epoch(0),
        stance,
    }
}

fn granted(renewal: u64, epoch: u64) -> Answer {
    Answer::Granted {
        renewal,
        epoch: Epoch(epoch),
    }
}

/// Makes durable whatever is to be, and returns what is said.
fn run(authority: &mut Authority, now: Moment) -> Vec<Answer> {
    let mut said = Vec::new();
    while let Some(order) = authority.poll() {
        match order {
            Order::Store(record) => authority.stored(record, now),
            Order::Send(answer) => said.push(answer),
        }
    }
    said
}

fn run_holder(holder: &mut Holder, now: Moment) -> Vec<Renewal> {
    let mut said = Vec::new();
    while let Some(report) = holder.poll() {
        match report {
            Report::Store(record) => holder.stored(record, now),
            Report::Send(renewal) => said.push(renewal),
        }
    }
    said
}

/// An authority that has the role since second 0, linked to a receiver that could have it.
fn acting() -> Authority {
    let mut authority = Authority::start(None, true, Prefer::None, at(0));
    run(&mut authority, at(0));
    authority.renewed(renewal(1, Stance::Able), at(0));
    run(&mut authority, at(0));
    authority
}

/// A holder that was granted epoch 2 with a renewal of second 0, and the number of that renewal.
fn holding() -> Holder {
    let mut holder = Holder::start(None);
    holder.linked(at(0));
    holder.promote(Receiver, at(0)).expect("is linked");
    let said = run_holder(&mut holder, at(0));
    let number = said.last().expect("it asks").number;
    holder.answered(granted(number, 2), at(1));
    run_holder(&mut holder, at(1));
    holder
}

#[test]
fn a_pusher_alone_acts_once_that_is_durable() {
    let mut authority = Authority::start(None, true, Prefer::None, at(0));
    assert_eq!(authority.permit(SEND, at(0)), None);
    let Some(Order::Store(stored)) = authority.poll() else {
        panic!("nothing is stored");
    };
    assert_eq!(stored, record(1, Pusher));
    assert_eq!(authority.permit(SEND, at(0)), None);
    authority.stored(stored, at(0));
    let permit = authority.permit(SEND, at(0)).expect("it has the role");
    assert_eq!((permit.epoch(), permit.until()), (Epoch(1), at(8)));
}

#[test]
fn an_authority_that_starts_waits_for_what_it_may_have_granted() {
    // (what is durable, seconds until it acts)
    for (before, wait) in [
        (None, 30),
        (Some(record(7, Receiver)), 30),
        (Some(record(7, Pusher)), 6),
    ] {
        let mut authority = Authority::start(before, false, Prefer::None, at(0));
        assert_eq!(authority.next_tick(), Some(at(wait)), "{before:?}");
        authority.tick(at(wait - 1));
        run(&mut authority, at(wait - 1));
        assert_eq!(authority.acts(), None, "{before:?}");
        authority.tick(at(wait));
        run(&mut authority, at(wait));
        let epoch = before.map_or(1, |record| record.epoch.0 + 1);
        assert_eq!(authority.acts(), Some(Epoch(epoch)), "{before:?}");
    }
}

#[test]
fn a_receiver_that_holds_nothing_ends_the_wait() {
    for stance in [Stance::Able, Stance::Fit, Stance::Unable] {
        let mut authority = Authority::start(Some(record(7, Receiver)), false, Prefer::None, at(0));
        authority.renewed(renewal(1, stance), at(1));
        let said = run(&mut authority, at(1));
        assert_eq!(authority.acts(), Some(Epoch(8)), "{stance:?}");
        assert_eq!(said, [Answer::Stands(record(8, Pusher))], "{stance:?}");
    }
}

#[test]
fn a_holder_is_renewed_and_taken_over_from_30_s_after_its_last_renewal() {
    let mut authority = Authority::start(Some(record(7, Receiver)), false, Prefer::None, at(0));
    for second in [1, 6, 11] {
        authority.renewed(renewal(second, Stance::Holds(Epoch(7))), at(second));
        let said = run(&mut authority, at(second));
        assert_eq!(said, [granted(second, 7)]);
    }
    authority.tick(at(40));
    run(&mut authority, at(40));
    assert_eq!(
        (authority.acts(), authority.next_tick()),
        (None, Some(at(41)))
    );
    authority.tick(at(41));
    run(&mut authority, at(41));
    assert_eq!(authority.acts(), Some(Epoch(8)));
    // The old holder hears that it is none.
    authority.renewed(renewal(12, Stance::Holds(Epoch(7))), at(50));
    assert_eq!(
        run(&mut authority, at(50)),
        [Answer::Stands(record(8, Pusher))]
    );
}

#[test]
fn a_holder_that_missed_a_grant_is_given_it_again() {
    let mut authority = Authority::start(Some(record(7, Receiver)), false, Prefer::None, at(0));
    authority.renewed(renewal(1, Stance::Holds(Epoch(6))), at(1));
    assert_eq!(run(&mut authority, at(1)), [granted(1, 7)]);
    assert_eq!(authority.free_at(), Some(at(31)));
}

#[test]
fn a_planned_change_waits_for_what_was_begun_and_for_nothing_else() {
    let mut authority = acting();
    let permit = authority.permit(SEND, at(1)).expect("it has the role");
    assert_eq!(authority.promote(Receiver, at(1)), Ok(()));
    assert_eq!(run(&mut authority, at(1)), [Answer::Change(Receiver)]);
    authority.renewed(renewal(2, Stance::Asks), at(1));
    assert_eq!(run(&mut authority, at(1)), []);
    assert!(authority.is_draining());
    assert_eq!(authority.permit(SEND, at(1)), None);
    authority.take_back(permit, at(2));
    assert_eq!(run(&mut authority, at(2)), [granted(2, 2)]);
    assert_eq!(authority.record(), Some(record(2, Receiver)));
    // Counted from receipt, not from the grant.
    assert_eq!(authority.free_at(), Some(at(31)));
}

#[test]
fn a_permit_that_never_comes_back_holds_a_change_up_until_it_is_over() {
    let mut authority = acting();
    let _lost = authority.permit(SEND, at(1)).expect("it has the role");
    authority.renewed(renewal(2, Stance::Asks), at(1));
    assert_eq!(authority.next_tick(), Some(at(10)));
    authority.tick(at(9));
    assert_eq!(run(&mut authority, at(9)), []);
    authority.tick(at(10));
    assert_eq!(run(&mut authority, at(10)), [granted(2, 2)]);
}

#[test]
fn a_receiver_that_goes_away_while_it_is_waited_for_gets_nothing() {
    let mut authority = acting();
    let _permit = authority.permit(SEND, at(1)).expect("it has the role");
    authority.renewed(renewal(2, Stance::Asks), at(1));
    authority.unlinked(at(2));
    assert_eq!(authority.acts(), Some(Epoch(1)));
    // One that changes its mind is told how it stands.
    authority.renewed(renewal(3, Stance::Asks), at(2));
    authority.renewed(renewal(4, Stance::Able), at(2));
    let said = run(&mut authority, at(2));
    assert_eq!(said, [Answer::Stands(record(1, Pusher))]);
    assert_eq!(authority.acts(), Some(Epoch(1)));
    // One that changes its mind while the grant is made durable gets nothing either.
    let mut authority = acting();
    authority.renewed(renewal(2, Stance::Asks), at(1));
    let Some(Order::Store(stored)) = authority.poll() else {
        panic!("nothing is stored");
    };
    authority.renewed(renewal(3, Stance::Able), at(1));
    authority.stored(stored, at(1));
    let said = run(&mut authority, at(1));
    assert_eq!(said, [Answer::Stands(record(3, Pusher))]);
}

#[test]
fn a_grant_goes_to_the_connection_that_asked_for_it_or_nowhere() {
    let mut authority = acting();
    authority.renewed(renewal(2, Stance::Asks), at(1));
    let Some(Order::Store(stored)) = authority.poll() else {
        panic!("nothing is stored");
    };
    authority.unlinked(at(1));
    authority.renewed(renewal(2, Stance::Resumes), at(2));
    authority.stored(stored, at(2));
    assert_eq!(run(&mut authority, at(2)), []);
    // Somebody may have been granted it all the same, as far as the next run could tell.
    assert_eq!(authority.free_at(), Some(at(31)));
}

#[test]
fn a_pusher_that_cannot_act_gives_the_role_away_or_leaves_it_vacant() {
    let mut authority = acting();
    authority.set_fitness(false, false, at(1));
    assert_eq!(run(&mut authority, at(1)), [Answer::Change(Receiver)]);
    assert_eq!(authority.acts(), None);
    authority.renewed(renewal(2, Stance::Asks), at(1));
    assert_eq!(run(&mut authority, at(1)), [granted(2, 2)]);
    // Nobody there: vacant, until it can again.
    authority.unlinked(at(2));
    authority.tick(at(31));
    assert_eq!(
        (run(&mut authority, at(31)), authority.acts()),
        (vec![], None)
    );
    authority.set_fitness(true, false, at(40));
    run(&mut authority, at(40));
    assert_eq!(authority.acts(), Some(Epoch(3)));
}

#[test]
fn what_is_durable_was_lost_and_the_receiver_knows_better() {
    let mut authority = acting();
    let unknown = Renewal {
        number: 2,
        seen: Epoch(41),
        stance: Stance::Able,
    };
    authority.renewed(unknown, at(1));
    let said = authority.poll();
    assert_eq!(said, Some(Order::Send(Answer::Stands(record(1, Pusher)))));
    let Some(Order::Store(stored)) = authority.poll() else {
        panic!("nothing is stored");
    };
    assert_eq!(authority.permit(SEND, at(1)), None);
    authority.stored(stored, at(1));
    assert_eq!(authority.acts(), Some(Epoch(42)));
}

#[test]
fn a_forced_role_is_adopted() {
    let mut authority = acting();
    authority.renewed(renewal(2, Stance::Holds(Epoch(1001))), at(1));
    assert_eq!(authority.permit(SEND, at(1)), None);
    assert_eq!(run(&mut authority, at(1)), [granted(2, 1001)]);
    assert_eq!(authority.record(), Some(record(1001, Receiver)));
}

#[test]
fn the_role_goes_to_the_preferred_side_after_a_minute_unless_a_person_said_otherwise() {
    let mut authority = Authority::start(None, true, Prefer::Side(Receiver), at(0));
    run(&mut authority, at(0));
    authority.set_fitness(true, true, at(0));
    authority.renewed(renewal(1, Stance::Fit), at(0));
    run(&mut authority, at(0));
    authority.tick(at(59));
    assert_eq!(run(&mut authority, at(59)), []);
    assert_eq!(authority.next_tick(), Some(at(60)));
    authority.tick(at(60));
    assert_eq!(run(&mut authority, at(60)), [Answer::Change(Receiver)]);
    authority.renewed(renewal(2, Stance::Asks), at(60));
    run(&mut authority, at(60));
    assert_eq!(authority.promote(Pusher, at(61)), Ok(()));
    authority.renewed(renewal(3, Stance::Fit), at(61));
    run(&mut authority, at(61));
    authority.tick(at(200));
    assert_eq!(
        (run(&mut authority, at(200)), authority.acts()),
        (vec![], Some(Epoch(3)))
    );
    // It was away; from then on the preference counts again.
    authority.unlinked(at(200));
    authority.renewed(renewal(4, Stance::Fit), at(201));
    authority.tick(at(261));
    assert!(run(&mut authority, at(261)).contains(&Answer::Change(Receiver)));
}

#[test]
fn a_lease_is_counted_from_sending() {
    let mut holder = holding();
    assert_eq!(holder.until(), Some(at(15)));
    // 8 s and a margin of one fit until second 6.
    assert!(holder.permit(SEND, at(6)).is_some());
    assert_eq!(holder.permit(SEND, at(7)), None);
    assert_eq!(holder.acts(at(14)), Some(Epoch(2)));
    assert_eq!(holder.acts(at(15)), None);
}

#[test]
fn a_holder_renews_every_5_s_and_a_late_answer_counts_from_its_own_renewal() {
    let mut holder = holding();
    assert_eq!(holder.next_tick(), Some(at(6)));
    holder.tick(at(6));
    holder.tick(at(11));
    let said = run_holder(&mut holder, at(11));
    let [first, second] = said[..] else {
        panic!("two renewals, not {said:?}");
    };
    assert_eq!(first.stance, Stance::Holds(Epoch(2)));
    holder.answered(granted(first.number, 2), at(12));
    assert_eq!(holder.until(), Some(at(21)));
    holder.answered(granted(second.number, 2), at(13));
    assert_eq!(holder.until(), Some(at(26)));
    // An answer never counts twice, and an older one not after a newer one.
    holder.answered(granted(first.number, 2), at(14));
    assert_eq!(holder.until(), Some(at(26)));
}

#[test]
fn nothing_starts_before_the_epoch_is_durable_here_too() {
    let mut holder = Holder::start(None);
    holder.linked(at(0));
    holder.promote(Receiver, at(0)).expect("is linked");
    while holder.poll().is_some() {}
    holder.answered(granted(2, 2), at(1));
    assert_eq!(holder.permit(SEND, at(1)), None);
    holder.stored(record(2, Receiver), at(1));
    assert!(holder.permit(SEND, at(1)).is_some());
}

#[test]
fn a_lease_that_ran_out_is_asked_for_again_and_only_if_nobody_else_has_it() {
    let mut holder = holding();
    holder.unlinked();
    holder.tick(at(15));
    assert_eq!(holder.acts(at(15)), None);
    holder.linked(at(20));
    let said = run_holder(&mut holder, at(20));
    assert_eq!(said.last().map(|said| said.stance), Some(Stance::Resumes));
    holder.answered(Answer::Stands(record(3, Pusher)), at(21));
    let said = run_holder(&mut holder, at(21));
    assert_eq!(said.last().map(|said| said.stance), Some(Stance::Able));
    assert_eq!(holder.record(), Some(record(3, Pusher)));
}

#[test]
fn a_machine_that_slept_starts_nothing_and_takes_no_old_grant() {
    let mut holder = holding();
    let permit = holder.permit(SEND, at(5)).expect("it has the role");
    holder.tick(at(6));
    let renewal = run_holder(&mut holder, at(6)).pop().expect("it renews");
    holder.slept(at(9));
    assert_eq!(holder.permit(Duration::ZERO, at(9)), None);
    holder.answered(granted(renewal.number, 2), at(9));
    assert_eq!(holder.permit(Duration::ZERO, at(9)), None);
    // What it had begun is abandoned, and now it says so.
    assert_eq!(run_holder(&mut holder, at(9)), []);
    holder.take_back(permit, at(9));
    let said = run_holder(&mut holder, at(9));
    assert_eq!(said.last().map(|said| said.stance), Some(Stance::Able));
}

#[test]
fn a_holder_that_is_told_of_another_one_waits_for_what_it_has_begun() {
    let mut holder = holding();
    let permit = holder.permit(SEND, at(2)).expect("it has the role");
    holder.answered(Answer::Stands(record(3, Pusher)), at(3));
    assert_eq!(holder.acts(at(3)), None);
    assert_eq!(run_holder(&mut holder, at(3)), []);
    holder.take_back(permit, at(4));
    let said = run_holder(&mut holder, at(4));
    assert_eq!(said.last().map(|said| said.stance), Some(Stance::Able));
}

#[test]
fn a_grant_that_crosses_a_refusal_is_void() {
    let mut holder = Holder::start(None);
    holder.linked(at(0));
    holder.promote(Receiver, at(0)).expect("is linked");
    let asked = run_holder(&mut holder, at(0)).pop().expect("it asks");
    assert_eq!(asked.stance, Stance::Asks);
    holder.set_fitness(false, false, at(1));
    holder.answered(granted(asked.number, 2), at(1));
    assert_eq!(holder.acts(at(1)), None);
    assert_eq!(holder.until(), None);
}

#[test]
fn a_planned_change_on_the_receiver_drains_before_it_is_said() {
    let mut holder = holding();
    let permit = holder.permit(SEND, at(2)).expect("it has the role");
    holder.answered(Answer::Change(Pusher), at(2));
    assert!(holder.is_draining());
    assert_eq!(run_holder(&mut holder, at(2)), []);
    holder.take_back(permit, at(3));
    let said = run_holder(&mut holder, at(3));
    assert_eq!(said.last().map(|said| said.stance), Some(Stance::Able));
}

#[test]
fn a_forced_role_lasts_over_a_restart_until_the_authority_is_met() {
    let mut holder = Holder::start(Some(record(5, Pusher)));
    assert_eq!(holder.force(), Ok(()));
    run_holder(&mut holder, at(0));
    let forced = Record {
        forced: true,
        ..record(1005, Receiver)
    };
    assert_eq!(holder.record(), Some(forced));
    assert_eq!(holder.acts(at(100_000)), Some(Epoch(1005)));

    let mut holder = Holder::start(holder.record());
    assert_eq!(holder.acts(at(5)), Some(Epoch(1005)));
    holder.linked(at(6));
    let said = run_holder(&mut holder, at(6)).pop().expect("it tells");
    assert_eq!(said.stance, Stance::Holds(Epoch(1005)));
    assert_eq!(said.seen, Epoch(1005));
    // What the authority wrote before it knew does not end it.
    holder.answered(Answer::Stands(record(6, Pusher)), at(6));
    assert_eq!(holder.acts(at(6)), Some(Epoch(1005)));
    holder.answered(granted(said.number, 1005), at(7));
    run_holder(&mut holder, at(7));
    assert_eq!(holder.record(), Some(record(1005, Receiver)));
    assert_eq!(holder.until(), Some(at(21)));
}

#[test]
fn a_role_is_not_forced_while_the_authority_can_be_asked() {
    let mut holder = Holder::start(None);
    holder.linked(at(0));
    assert!(holder.force().is_err());
    assert!(Holder::start(None).promote(Receiver, at(0)).is_err());
}
