//! What waits is applied in the order of keys, and nothing of it twice.

use super::*;
use crate::change::Ahead;
use crate::resolve::gate::before;

const PIPELINE: PipelineId = PipelineId::AToB;

/// Documents that a writes to, at the times 2, 3 and so on.
const WRITES: [i32; 8] = [3, 1, 4, 1, 5, 2, 6, 0];

fn write_to(id: i32, time: u32) -> SharedEvent {
    let mut event = (*write(Side::A, time, 1)).clone();
    let id = rawdoc! { "_id": id };
    event.key = DocumentKey::of(&Namespace::new("shop", "orders"), &id).unwrap();
    Arc::new(event)
}

fn observe(ledger: &mut Ledger, writes: &[i32]) {
    for (time, id) in (2..).zip(writes) {
        ledger.observe(Side::A, write_to(*id, time)).unwrap();
    }
}

fn ledger_with(writes: &[i32]) -> Ledger {
    let mut ledger = ledger_from(Pair::new(whole(1), whole(1)), 1);
    observe(&mut ledger, writes);
    for side in Side::BOTH {
        ledger.complete(side, whole(20));
    }
    ledger
}

fn times(plan: &Plan) -> Vec<u32> {
    let batch = plan.batch.iter();
    batch.map(|event| event.position.time.time).collect()
}

/// Takes a batch of two, and says when its writes were made.
fn apply_two(ledger: &mut Ledger) -> (Vec<u32>, Share) {
    let plan = next(ledger, PIPELINE, 2);
    let (times, share) = (times(&plan), plan.shares[0].clone());
    assert!(ledger.begin(Arc::new(plan)));
    ledger.landed(PIPELINE, 0, at(30)).unwrap();
    (times, share)
}

/// Where a lane stands that has applied so many batches of the writes by their keys.
fn ahead_after(batches: usize) -> Ahead {
    let mut ledger = ledger_with(&WRITES);
    ledger.begin_stretch(PIPELINE, 0, 2);
    let shares = (0..batches).map(|_| apply_two(&mut ledger).1);
    shares.last().unwrap().ahead.expect("it is not at its end")
}

/// As a restart finds it, once both readers have passed the start.
fn restarted(ahead: Ahead) -> Ledger {
    let mut ledger = ledger_from(Pair::new(whole(1), whole(1)), 1);
    ledger.resume_ahead(Side::A, 0, ahead);
    observe(&mut ledger, &WRITES);
    for side in Side::BOTH {
        ledger.complete(side, whole(20));
    }
    ledger
}

#[test]
fn what_waits_goes_by_keys_and_the_checkpoint_moves_at_the_end_of_it() {
    let mut ledger = ledger_with(&WRITES);
    ledger.begin_stretch(PIPELINE, 0, 2);
    let from = before(&write_to(3, 2).position);
    for expected in [[9, 3], [5, 7], [2, 4]] {
        let (times, share) = apply_two(&mut ledger);
        assert_eq!((times, &share.through), (expected.into(), &from));
        assert!(share.ahead.is_some());
        assert_eq!(ledger.applied_through(PIPELINE, 0).0, from);
    }
    let (times, share) = apply_two(&mut ledger);
    assert_eq!(times, [6, 8]);
    assert_eq!(share.through, write_to(0, 9).position);
    assert_eq!(share.ahead, None);
}

#[test]
fn a_restart_applies_what_is_left_and_nothing_twice() {
    for batches in 1..4 {
        let mut ledger = restarted(ahead_after(batches));
        ledger.begin_stretch(PIPELINE, 0, 2);
        let mut rest = Vec::new();
        while rest.len() < 2 * (4 - batches) {
            rest.extend(apply_two(&mut ledger).0);
        }
        let mut by_keys = vec![9, 3, 5, 7, 2, 4, 6, 8].split_off(2 * batches);
        by_keys.sort_unstable();
        assert_eq!(rest, by_keys, "by their history");
        assert_eq!(ledger.applied_through(PIPELINE, 0).0, whole(20));
        assert!(ledger.clusters.a.lanes[0].ahead.is_none());
    }
}

#[test]
fn a_lane_is_not_past_what_it_was_ahead_in_before_that_is_read_again() {
    let mut ledger = ledger_from(Pair::new(whole(1), whole(1)), 1);
    ledger.resume_ahead(Side::A, 0, ahead_after(1));
    ledger.observe(Side::A, write_to(WRITES[0], 2)).unwrap();
    ledger.complete(Side::A, whole(2));
    ledger.complete(Side::B, whole(20));
    let plan = next(&ledger, PIPELINE, 2);
    assert_eq!(times(&plan), [2]);
    let share = &plan.shares[0];
    assert_eq!(share.through, write_to(3, 2).position);
    assert_eq!(share.ahead, Some(ahead_after(1)));
}

#[test]
fn what_an_idle_lane_puts_on_record_is_past_what_it_was_ahead_in() {
    let mut ledger = restarted(ahead_after(3));
    let (times, share) = apply_two(&mut ledger);
    assert_eq!(times, [6, 8]);
    assert_eq!(share.through, write_to(0, 9).position);
    assert_eq!(share.ahead, None);
    let idle = ledger.plan_idle_progress(PIPELINE, 0).expect("progress");
    assert_eq!(idle.shares[0].through, whole(20));
}

#[test]
fn a_stretch_that_is_broken_off_goes_by_its_history() {
    let mut ledger = ledger_with(&WRITES);
    ledger.begin_stretch(PIPELINE, 0, 2);
    let (_, share) = apply_two(&mut ledger);
    let first = &write_to(3, 2).position;
    assert!(ledger.is_behind(PIPELINE, 0, &write_to(4, 4).position));
    assert!(ledger.break_off_stretch(PIPELINE, 0));
    ledger.begin_stretch(PIPELINE, 0, 2);
    let (times, next) = apply_two(&mut ledger);
    assert_eq!(times, [2, 4]);
    assert!(*first < next.through && next.ahead == share.ahead);
}

/// What is refused would be refused again and again, if it came first each time.
#[test]
fn a_stretch_that_is_broken_off_at_once_is_not_begun_again_before_its_end() {
    let mut ledger = ledger_with(&WRITES);
    ledger.begin_stretch(PIPELINE, 0, 2);
    assert!(ledger.break_off_stretch(PIPELINE, 0));
    let limits = BatchLimits {
        operations_max: 2,
        bytes_max: 1 << 20,
    };
    for expected in [[2, 3], [4, 5], [6, 7], [8, 9]] {
        ledger.begin_stretch(PIPELINE, 0, 2);
        assert!(!ledger.has_short_stretch(PIPELINE, 0, limits));
        let (times, share) = apply_two(&mut ledger);
        assert_eq!((times, share.ahead), (expected.into(), None));
    }
    let later = (10..).zip(WRITES);
    later.for_each(|(time, id)| assert!(ledger.observe(Side::A, write_to(id, time)).unwrap()));
    ledger.complete(Side::A, whole(30));
    assert!(ledger.has_short_stretch(PIPELINE, 0, limits));
    ledger.begin_stretch(PIPELINE, 0, 2);
    assert_eq!(times(&next(&ledger, PIPELINE, 2)), [17, 11]);
}

#[test]
fn nothing_behind_a_gate_is_taken_before_it_opens() {
    let mut ledger = ledger_from(Pair::new(whole(1), whole(1)), 1);
    observe(&mut ledger, &WRITES[..5]);
    ledger.close_gate(Side::A, write_to(2, 7).position.clone());
    let behind = (7..).zip(&WRITES[5..]);
    behind.for_each(|(time, id)| assert!(ledger.observe(Side::A, write_to(*id, time)).unwrap()));
    for side in Side::BOTH {
        ledger.complete(side, whole(20));
    }
    ledger.begin_stretch(PIPELINE, 0, 2);
    let first: Vec<u32> = (0..2).flat_map(|_| apply_two(&mut ledger).0).collect();
    assert_eq!(first, [3, 5, 2, 4]);
    assert_eq!(times(&next(&ledger, PIPELINE, 10)), [6]);
}

/// The transaction that makes a collection may write to it, all at one time.
#[test]
fn a_checkpoint_is_past_the_change_of_a_collection_before_anything_behind_it_is_applied() {
    let mut ledger = ledger_from(Pair::new(whole(1), whole(1)), 1);
    let made = Position::of_event(at(2), "0001");
    ledger.close_gate(Side::A, made.clone());
    observe(&mut ledger, &WRITES);
    for side in Side::BOTH {
        ledger.complete(side, whole(20));
    }
    ledger.open_gate(Side::A);
    ledger.begin_stretch(PIPELINE, 0, 2);
    let (_, share) = apply_two(&mut ledger);
    assert_eq!(share.through, made);
    assert!(share.ahead.is_some());
    assert!(ledger.is_done(Side::A, &made));
}

/// Namespaces that are new to the link may bring a change of a collection that lanes are past.
#[test]
fn what_is_ahead_of_a_gate_is_told_and_no_checkpoint_passes_the_gate() {
    let mut ledger = ledger_from(Pair::new(whole(1), whole(1)), 1);
    ledger.resume_ahead(Side::A, 0, ahead_after(3));
    ledger.close_gate(Side::A, Position::of_event(at(2), "0000"));
    observe(&mut ledger, &WRITES);
    for side in Side::BOTH {
        ledger.complete(side, whole(20));
    }
    assert!(ledger.is_drained(Side::A) && !ledger.is_settled(Side::A));
    assert!(ledger.stands_amid_a_stretch(Side::A));
    assert!(ledger.applied_through(PIPELINE, 0).0 < whole(2));
    ledger.open_gate(Side::A);
    assert!(!ledger.stands_amid_a_stretch(Side::A));
    let (times, share) = apply_two(&mut ledger);
    assert_eq!((times, share.ahead), (vec![6, 8], None));
}

#[test]
fn what_is_held_stays_in_its_order_and_what_changes_lanes_is_put_back_into_it() {
    let mut held = ledger_with(&WRITES);
    held.hold_both();
    held.begin_stretch(PIPELINE, 0, 2);
    assert!(!held.break_off_stretch(PIPELINE, 0));
    let mut moved = ledger_with(&WRITES);
    moved.begin_stretch(PIPELINE, 0, 2);
    moved.hold_both();
    moved.settle_at_gate(Side::A);
    for lane in PipelineId::BOTH {
        if let Some(idle) = moved.plan_idle_progress(lane, 0) {
            assert!(moved.begin(Arc::new(idle)));
            moved.landed(lane, 0, at(30)).unwrap();
        }
    }
    assert!(moved.gather_in_one_lane(&Namespace::new("shop", "orders")));
    let queue = moved.clusters.a.lanes[0].queue.iter();
    let times: Vec<u32> = queue.map(|event| event.position.time.time).collect();
    assert_eq!(times, [2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(!moved.break_off_stretch(PIPELINE, 0));
}

#[test]
fn what_is_in_order_or_bound_together_is_left_so() {
    let mut in_order = ledger_with(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let mut bound = ledger_with(&WRITES);
    bound.keep_in_one_lane(Namespace::new("shop", "orders"));
    for ledger in [&mut in_order, &mut bound] {
        ledger.begin_stretch(PIPELINE, 0, 2);
        let (times, share) = apply_two(ledger);
        assert_eq!(times, [2, 3]);
        assert_eq!(share.through, write_to(0, 3).position);
    }
}
