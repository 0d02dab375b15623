//! Decisions of the ledger, one race at a time.

mod batches;
mod retries;
mod stretch;

use std::sync::Arc;

use bson::{Timestamp, rawdoc};

use super::*;
use crate::change::{
    AppliedThrough, ChangeEvent, DocumentKey, Mode, Namespace, Operation, Pair, PipelineId, Policy,
    Position, Rank, RawEvent, SharedEvent, Side, Version,
};

fn at(time: u32) -> Timestamp {
    Timestamp { time, increment: 1 }
}

fn whole(time: u32) -> Position {
    Position::after_all_of(at(time), "")
}

fn key() -> DocumentKey {
    DocumentKey::of(&Namespace::new("shop", "orders"), &rawdoc! { "_id": 1 }).unwrap()
}

fn write(side: Side, time: u32, wall_time_ms: i64) -> SharedEvent {
    Arc::new(ChangeEvent {
        position: Position::of_event(at(time), format!("{time:04}")),
        key: key(),
        operation: Operation::Update,
        version: Version {
            wall_time_ms,
            rank: Rank::of(side, Side::A),
        },
        wall_time_ms,
        raw: RawEvent::of(rawdoc! {}, Operation::Update),
    })
}

fn ledger_from(checkpoints: Pair<Position>, recover_to: u32) -> Ledger {
    let rules = Rules {
        mode: Mode::TwoWay,
        policy: Policy::LastWriteWins,
    };
    let recover_to = Pair::new(at(recover_to), at(recover_to));
    let checkpoints = checkpoints.map(|position| vec![AppliedThrough(position)]);
    let mut ledger = Ledger::new(rules, checkpoints, recover_to);
    for side in Side::BOTH {
        ledger.own_writes_known(side);
    }
    ledger
}

/// `a` and `b` are the wall times of the writes on each side, at the times 2, 3 and so on.
fn ledger_of(a: &[i64], b: &[i64]) -> Ledger {
    let mut ledger = ledger_from(Pair::new(whole(1), whole(1)), 1);
    for (side, walls) in [(Side::A, a), (Side::B, b)] {
        for (time, wall) in (2..).zip(walls) {
            ledger.observe(side, write(side, time, *wall)).unwrap();
        }
        ledger.complete(side, whole(9));
    }
    ledger
}

fn planned(ledger: &Ledger, pipeline: PipelineId) -> Plan {
    next(ledger, pipeline, 10)
}

/// The next batch, of so many events at most.
fn next(ledger: &Ledger, pipeline: PipelineId, operations_max: usize) -> Plan {
    let limits = BatchLimits {
        operations_max,
        bytes_max: 1000,
    };
    match ledger
        .plan(pipeline, 0, limits, &Caution::default())
        .unwrap()
    {
        Next::Apply(plan) => plan,
        other => panic!("nothing to apply: {other:?}"),
    }
}

fn only(plan: &Plan) -> &Decision {
    assert_eq!(plan.decisions.len(), 1);
    &plan.decisions[0]
}

fn wins(ledger: &Ledger, pipeline: PipelineId) -> Side {
    let plan = planned(ledger, pipeline);
    only(&plan).conflict.as_ref().expect("a conflict").winner
}

const HISTORIES: [&[i64]; 6] = [&[1], &[2], &[3], &[1, 2], &[3, 1], &[2, 2]];

#[test]
fn both_pipelines_name_the_same_winner() {
    for a in HISTORIES {
        for b in HISTORIES {
            let ledger = ledger_of(a, b);
            let winner = wins(&ledger, PipelineId::AToB);
            assert_eq!(winner, wins(&ledger, PipelineId::BToA), "{a:?} {b:?}");
            for pipeline in PipelineId::BOTH {
                let plan = planned(&ledger, pipeline);
                let decision = only(&plan);
                let sends = decision.action == Action::FullState;
                assert_eq!(sends, winner == pipeline.source());
                assert_eq!(decision.leave_note.is_some(), !sends);
            }
        }
    }
}

#[test]
fn deciding_twice_gives_the_same_decision() {
    let ledger = ledger_of(&[1, 4], &[3]);
    for pipeline in PipelineId::BOTH {
        let (first, second) = (planned(&ledger, pipeline), planned(&ledger, pipeline));
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }
}

#[test]
fn writes_that_did_not_race_are_sent_as_they_are() {
    let ledger = ledger_of(&[1, 2], &[]);
    let plan = planned(&ledger, PipelineId::AToB);
    assert_eq!(only(&plan).action, Action::Deltas);
    assert_eq!(only(&plan).events.len(), 2);
    assert!(only(&plan).conflict.is_none());
}

#[test]
fn the_winner_owes_full_state_once_the_loser_was_skipped() {
    let mut ledger = ledger_of(&[1], &[2]);
    let plan = planned(&ledger, PipelineId::AToB);
    let note = only(&plan).leave_note.clone();
    ledger.begin(Arc::new(plan));
    ledger.landed(PipelineId::AToB, 0, at(10)).unwrap();
    let plan = planned(&ledger, PipelineId::BToA);
    assert_eq!(only(&plan).action, Action::FullState);
    assert_eq!(only(&plan).pays_note, note);
    assert!(only(&plan).conflict.is_none());
}

#[test]
fn an_older_write_is_beaten_once_full_state_has_landed_on_it() {
    let mut ledger = ledger_of(&[1], &[2]);
    ledger.begin(Arc::new(planned(&ledger, PipelineId::BToA)));
    ledger.landed(PipelineId::BToA, 0, at(10)).unwrap();
    let plan = planned(&ledger, PipelineId::AToB);
    assert_eq!(only(&plan).action, Action::Skip);
    assert!(only(&plan).events.is_empty());
    assert!(only(&plan).leave_note.is_none());
}

#[test]
fn a_start_between_the_events_of_a_transaction_is_not_recovered_by_its_time_alone() {
    let inside = Position::of_event(at(5), "0001");
    let mut ledger = ledger_from(Pair::new(inside, whole(5)), 5);
    assert!(!ledger.is_recovered());
    ledger.complete(Side::A, whole(5));
    assert!(ledger.is_recovered());
}

#[test]
fn nothing_is_kept_of_restored_keys_without_a_write_under_way() {
    let mut ledger = ledger_from(Pair::new(whole(1), whole(1)), 5);
    let included = StoredNotes {
        included: Some(at(3)),
        ..StoredNotes::default()
    };
    ledger.restore_notes(Side::A, key(), included);
    for side in Side::BOTH {
        ledger.complete(side, whole(5));
    }
    assert_eq!(ledger.entries(), 0);
}

fn restored_with_lost_write_at(time: u32) -> Ledger {
    let mut ledger = ledger_from(Pair::new(whole(1), whole(1)), 9);
    let notes = StoredNotes {
        owed: Some("0002".into()),
        lost: vec![LostWrite {
            record: "r".into(),
            at: at(time),
        }],
        ..StoredNotes::default()
    };
    ledger.restore_notes(Side::B, key(), notes);
    ledger
}

fn overturned_after_own_write_at(time: u32) -> usize {
    let mut ledger = restored_with_lost_write_at(4);
    ledger.foresee_own_write(Side::A, &key(), at(time));
    ledger.observe(Side::A, write(Side::A, 8, 9)).unwrap();
    ledger.observe(Side::B, write(Side::B, 8, 1)).unwrap();
    for side in Side::BOTH {
        ledger.complete(side, whole(9));
    }
    let plan = planned(&ledger, PipelineId::AToB);
    assert_eq!(only(&plan).action, Action::FullState);
    only(&plan).overturned.len()
}

#[test]
fn a_losing_write_is_brought_back_by_full_state_unless_it_was_replaced_since() {
    assert_eq!(overturned_after_own_write_at(3), 1);
    assert_eq!(overturned_after_own_write_at(5), 0);
}

#[test]
fn a_note_waits_for_the_lane_that_may_still_list_in_it() {
    let mut ledger = ledger_of(&[1], &[2]);
    let skip = planned(&ledger, PipelineId::AToB);
    ledger.begin(Arc::new(planned(&ledger, PipelineId::BToA)));
    let landed = ledger.landed(PipelineId::BToA, 0, at(10)).unwrap();
    ledger.complete(Side::A, whole(10));
    assert_eq!(landed.notes_to_clear.len(), 1);
    assert!(!ledger.may_clear(&landed.notes_to_clear[0]));
    ledger.begin(Arc::new(skip));
    ledger.landed(PipelineId::AToB, 0, at(10)).unwrap();
    assert!(ledger.may_clear(&landed.notes_to_clear[0]));
}

#[test]
fn a_discarded_dead_letter_leaves_nothing_to_send() {
    let mut ledger = ledger_from(Pair::new(whole(1), whole(1)), 1);
    let dead = StoredNotes {
        dead: true,
        ..StoredNotes::default()
    };
    ledger.restore_notes(Side::B, key(), dead);
    ledger.forget_dead_letter(PipelineId::BToA, &key());
    assert_eq!(ledger.entries(), 1);
    ledger.forget_dead_letter(PipelineId::AToB, &key());
    assert_eq!(ledger.entries(), 0);
}

#[test]
fn full_state_from_within_a_history_brings_back_only_what_it_holds() {
    let mut ledger = restored_with_lost_write_at(6);
    ledger.complete(Side::B, whole(9));
    ledger.observe(Side::A, write(Side::A, 5, 9)).unwrap();
    ledger.complete(Side::A, whole(5));
    let plan = planned(&ledger, PipelineId::AToB);
    assert_eq!(only(&plan).action, Action::FullState);
    assert!(only(&plan).overturned.is_empty());
    ledger.begin(Arc::new(plan));
    ledger.landed(PipelineId::AToB, 0, at(10)).unwrap();
    ledger.observe(Side::A, write(Side::A, 6, 9)).unwrap();
    ledger.complete(Side::A, whole(6));
    let plan = planned(&ledger, PipelineId::AToB);
    assert_eq!(only(&plan).action, Action::FullState);
    assert_eq!(only(&plan).overturned.len(), 1);
}

#[test]
fn a_pipeline_applies_while_its_own_source_is_still_being_recovered() {
    let mut ledger = ledger_from(Pair::new(whole(1), whole(1)), 5);
    ledger.observe(Side::A, write(Side::A, 2, 1)).unwrap();
    ledger.complete(Side::A, whole(2));
    assert!(!ledger.may_apply(PipelineId::AToB));
    ledger.complete(Side::B, whole(5));
    assert_eq!(only(&planned(&ledger, PipelineId::AToB)).events.len(), 1);
    assert!(!ledger.may_apply(PipelineId::BToA));
}

#[test]
fn a_foreseen_write_beats_what_comes_before_it_and_nothing_after_it() {
    let mut ledger = ledger_from(Pair::new(whole(1), whole(1)), 9);
    ledger.foresee_own_write(Side::A, &key(), at(3));
    ledger.complete(Side::B, whole(9));
    ledger.observe(Side::A, write(Side::A, 2, 1)).unwrap();
    ledger.observe(Side::A, write(Side::A, 4, 1)).unwrap();
    ledger.complete(Side::A, whole(4));
    let plan = planned(&ledger, PipelineId::AToB);
    assert_eq!(plan.batch.len(), 2);
    assert_eq!(only(&plan).events.len(), 1);
    assert_eq!(only(&plan).events[0].position.time, at(4));
}

fn room(queue_bytes_max: usize, entries_max: usize) -> Room {
    Room {
        queue_bytes_max,
        entries_max,
    }
}

#[test]
fn a_reader_waits_for_room_unless_both_would() {
    let (full, roomy) = (room(1, 100), room(1 << 20, 100));
    for (a, b) in [(true, false), (false, true), (true, true)] {
        let writes: &[i64] = &[1];
        let of = |is_full: bool| if is_full { writes } else { &[] };
        let mut ledger = ledger_of(of(a), of(b));
        ledger.room = full;
        assert_eq!(ledger.has_room(Side::A), !a);
        assert_eq!(ledger.has_room(Side::B), a || !b);
        ledger.room = roomy;
        assert!(Side::BOTH.iter().all(|side| ledger.has_room(*side)));
    }
}

#[test]
fn too_many_entries_hold_up_only_a_reader_with_something_in_its_queue() {
    let mut ledger = ledger_of(&[1], &[]);
    ledger.room = room(1 << 20, 1);
    assert!(!ledger.has_room(Side::A));
    assert!(ledger.has_room(Side::B));
}

#[test]
fn too_many_changes_of_collections_hold_up_their_reader_once_both_have_passed_the_start() {
    let mut ledger = ledger_of(&[], &[]);
    for at in 0..super::gate::CLOSED_MAX as u32 {
        assert!(ledger.has_room(Side::A));
        ledger.close_gate(Side::A, whole(10 + at));
    }
    assert!(!ledger.has_room(Side::A));
    assert!(ledger.has_room(Side::B));
    for at in 0..super::gate::CLOSED_MAX as u32 {
        ledger.close_gate(Side::B, whole(10 + at));
    }
    assert!(ledger.has_room(Side::B), "one of them makes room");
    ledger.open_gate(Side::A);
    assert!(ledger.has_room(Side::A));
}

#[test]
fn nothing_behind_a_gate_is_planned_or_counted_as_applied_before_it_opens() {
    let mut ledger = ledger_from(Pair::new(whole(1), whole(1)), 1);
    ledger.observe(Side::A, write(Side::A, 2, 10)).unwrap();
    ledger.close_gate(Side::A, Position::of_event(at(3), "0003"));
    ledger.observe(Side::A, write(Side::A, 4, 10)).unwrap();
    for side in Side::BOTH {
        ledger.complete(side, whole(9));
    }
    assert!(!ledger.is_drained(Side::A));
    let limits = BatchLimits {
        operations_max: 10,
        bytes_max: 1000,
    };
    let next = |ledger: &Ledger| {
        ledger
            .plan(PipelineId::AToB, 0, limits, &Caution::default())
            .unwrap()
    };
    let Next::Apply(plan) = next(&ledger) else {
        panic!("the event before the gate is not planned");
    };
    assert_eq!(plan.batch.len(), 1);
    ledger.begin(Arc::new(plan));
    ledger.landed(PipelineId::AToB, 0, at(10)).unwrap();

    assert!(ledger.is_drained(Side::A));
    assert!(matches!(next(&ledger), Next::Wait(WaitingOn::Ddl)));
    let gate = Position::of_event(at(3), "0003");
    assert!(ledger.applied_through(PipelineId::AToB, 0).0 < gate);
    assert!(!ledger.is_done(Side::A, &gate));

    ledger.open_gate(Side::A);
    assert!(matches!(next(&ledger), Next::Apply(plan) if plan.batch.len() == 1));
}

#[test]
fn a_lane_without_events_stops_before_a_gate_too() {
    let mut ledger = ledger_from(Pair::new(whole(1), whole(1)), 1);
    let gate = Position::of_event(at(5), "0005");
    ledger.close_gate(Side::A, gate.clone());
    for side in Side::BOTH {
        ledger.complete(side, whole(9));
    }
    let progress = ledger.idle_progress(PipelineId::AToB, 0).expect("progress");
    assert!(progress.0 < gate);
    assert!(!ledger.is_settled(Side::A));
    ledger.open_gate(Side::A);
    assert_eq!(ledger.applied_through(PipelineId::AToB, 0).0, whole(9));
}
