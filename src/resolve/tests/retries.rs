//! Dead letters that are tried again once nothing stands in the way.

use super::*;

fn write_of_b(time: u32) -> SharedEvent {
    Arc::new(ChangeEvent {
        position: Position::of_event(at(time), format!("{time:04}")),
        key: key(),
        operation: Operation::Update,
        version: Version {
            wall_time_ms: 1,
            rank: Rank::Loses,
        },
        wall_time_ms: 1,
        raw: RawEvent::of(rawdoc! {}, Operation::Update),
    })
}

/// With a dead letter of a on record, and writes of b that have not arrived.
fn ledger(writes: &[u32]) -> Ledger {
    let rules = Rules {
        mode: Mode::TwoWay,
        policy: Policy::LastWriteWins,
    };
    let checkpoints = || vec![AppliedThrough(whole(1))];
    let checkpoints = Pair::new(checkpoints(), checkpoints());
    let mut ledger = Ledger::new(rules, checkpoints, Pair::new(at(1), at(1)));
    let dead = StoredNotes {
        dead: true,
        ..StoredNotes::default()
    };
    ledger.restore_notes(Side::B, key(), dead);
    for time in writes {
        ledger.observe(Side::B, write_of_b(*time)).unwrap();
    }
    for side in Side::BOTH {
        ledger.own_writes_known(side);
        ledger.complete(side, whole(9));
    }
    ledger
}

/// The next plan of a pipeline, of one operation; none where it has nothing to do.
fn next(ledger: &Ledger, pipeline: PipelineId) -> Option<Arc<Plan>> {
    let limits = BatchLimits {
        operations_max: 1,
        bytes_max: 1000,
    };
    let next = ledger.plan(pipeline, 0, limits, &Caution::default());
    match next.unwrap() {
        Next::Apply(plan) => Some(Arc::new(plan)),
        Next::Idle => None,
        Next::Wait(on) => panic!("waits on {on:?}"),
    }
}

/// Commits the next plan of a pipeline. Returns what it did to the document, and whether a lane is
/// asked for more.
fn land(ledger: &mut Ledger, pipeline: PipelineId, time: u32) -> (Action, bool) {
    let plan = next(ledger, pipeline).expect("something to do");
    assert!(ledger.begin(plan.clone()));
    let landed = ledger.landed(pipeline, 0, at(time)).unwrap();
    (plan.decisions[0].action, landed.asked)
}

#[test]
fn a_retry_that_meets_writes_under_way_comes_again_once_all_have_arrived() {
    let mut ledger = ledger(&[2, 3]);
    assert_eq!(land(&mut ledger, PipelineId::AToB, 10).0, Action::Skip);
    assert!(next(&ledger, PipelineId::AToB).is_none(), "nothing is done");
    let (action, asked) = land(&mut ledger, PipelineId::BToA, 11);
    assert_eq!((action, asked), (Action::Deltas, false));
    assert!(next(&ledger, PipelineId::AToB).is_none(), "one is left");
    let (action, asked) = land(&mut ledger, PipelineId::BToA, 12);
    assert_eq!((action, asked), (Action::Deltas, true));
    let plan = next(&ledger, PipelineId::AToB).expect("it is tried again");
    assert!(plan.decisions[0].revives);
    assert_eq!(land(&mut ledger, PipelineId::AToB, 13).0, Action::FullState);
    assert!(next(&ledger, PipelineId::AToB).is_none());
}

#[test]
fn a_retry_lands_after_the_write_it_has_met_and_comes_again_at_once() {
    let mut ledger = ledger(&[2]);
    let retry = next(&ledger, PipelineId::AToB).unwrap();
    assert!(ledger.begin(retry));
    land(&mut ledger, PipelineId::BToA, 10);
    let landed = ledger.landed(PipelineId::AToB, 0, at(11)).unwrap();
    assert!(landed.asked);
    assert_eq!(land(&mut ledger, PipelineId::AToB, 12).0, Action::FullState);
}

#[test]
fn what_is_discarded_meanwhile_does_not_come_again() {
    let mut ledger = ledger(&[2]);
    land(&mut ledger, PipelineId::AToB, 10);
    ledger.forget_dead_letter(PipelineId::AToB, &key());
    assert!(!land(&mut ledger, PipelineId::BToA, 11).1);
    assert!(next(&ledger, PipelineId::AToB).is_none());
}

#[test]
fn the_document_it_collided_with_changes_and_only_what_is_not_discarded_comes_again() {
    for is_discarded in [false, true] {
        let mut ledger = ledger(&[2]);
        let mut plan = next(&ledger, PipelineId::AToB).unwrap();
        let other = DocumentKey::of(key().namespace(), &rawdoc! { "_id": 2 }).unwrap();
        let collided = &mut Arc::make_mut(&mut plan).collided_with;
        collided.insert(key(), other.clone());
        assert!(ledger.begin(plan));
        ledger.landed(PipelineId::AToB, 0, at(10)).unwrap();
        if is_discarded {
            ledger.forget_dead_letter(PipelineId::AToB, &key());
        }
        ledger.retry_collided(&other);
        let retry = next(&ledger, PipelineId::AToB);
        assert_eq!(retry.is_none(), is_discarded);
    }
}
