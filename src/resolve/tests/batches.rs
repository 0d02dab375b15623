//! A batch that ends in the middle of a history: what it is about, and what it puts on record.

use super::*;

/// When the writes were made that go on record.
fn losers(plan: &Plan) -> Vec<u32> {
    let losers = only(plan).losers(plan.pipeline.source()).into_iter();
    losers.map(|event| event.position.time.time).collect()
}

#[test]
fn a_batch_is_of_one_document_however_many_of_its_writes_it_takes() {
    let mut ledger = ledger_of(&[1, 2, 3], &[]);
    let plan = next(&ledger, PipelineId::AToB, 10);
    assert_eq!(plan.size(), 3);
    assert!(plan.is_of_one_document());
    let mut of_another = (*write(Side::A, 10, 4)).clone();
    let id = rawdoc! { "_id": 2 };
    of_another.key = DocumentKey::of(&Namespace::new("shop", "orders"), &id).unwrap();
    ledger.observe(Side::A, Arc::new(of_another)).unwrap();
    assert!(next(&ledger, PipelineId::AToB, 3).is_of_one_document());
    assert!(!next(&ledger, PipelineId::AToB, 4).is_of_one_document());
}

#[test]
fn a_loser_with_the_same_document_is_settled_as_a_whole() {
    let mut ledger = ledger_of(&[1, 2], &[3]);
    let mut plan = next(&ledger, PipelineId::AToB, 1);
    plan.agree(|_| true);
    assert!(only(&plan).leaves_included());
    ledger.begin(Arc::new(plan));
    ledger.landed(PipelineId::AToB, 0, at(10)).unwrap();
    let rest = next(&ledger, PipelineId::AToB, 1);
    assert!(only(&rest).events.is_empty());
    assert!(only(&rest).conflict.is_none());
    let plan = planned(&ledger, PipelineId::BToA);
    assert_eq!(only(&plan).action, Action::FullState);
}

/// All that waits, with each batch again, once made transactions that took too long.
#[test]
fn batches_that_lose_put_each_write_on_record_once_and_each_of_them_its_own() {
    let mut ledger = ledger_of(&[1, 2, 3, 4, 5], &[9]);
    for (operations_max, own) in [(1, vec![2]), (3, vec![3, 4, 5]), (10, vec![6])] {
        let plan = next(&ledger, PipelineId::AToB, operations_max);
        assert_eq!(losers(&plan), own);
        ledger.begin(Arc::new(plan));
        ledger.landed(PipelineId::AToB, 0, at(10)).unwrap();
    }
}

#[test]
fn a_batch_that_wins_puts_all_that_waits_on_the_other_side_on_record() {
    let ledger = ledger_of(&[8, 9], &[1, 2, 3]);
    assert_eq!(losers(&next(&ledger, PipelineId::AToB, 1)), [2, 3, 4]);
}

#[test]
fn nothing_goes_on_record_of_writes_that_did_not_race() {
    let ledger = ledger_of(&[1, 2], &[]);
    assert!(losers(&next(&ledger, PipelineId::AToB, 1)).is_empty());
}

#[test]
fn a_batch_of_many_collections_takes_more_operations_than_one_of_few() {
    const SPREAD_MAX: usize = 100;
    let usual = BatchLimits {
        operations_max: 40,
        bytes_max: usize::MAX,
    };
    for (collections, expected) in [(1, 40), (4, 40), (6, 60), (20, SPREAD_MAX), (200, 40)] {
        let mut ledger = ledger_of(&[], &[]);
        for number in 0..200_i32 {
            let mut event = (*write(Side::A, 2 + number as u32, 1)).clone();
            let namespace = Namespace::new("shop", &format!("orders{}", number % collections));
            event.key = DocumentKey::of(&namespace, &rawdoc! { "_id": number }).unwrap();
            ledger.observe(Side::A, Arc::new(event)).unwrap();
        }
        let limits = |spread_max| ledger.limits_of_next(PipelineId::AToB, 0, usual, spread_max);
        assert_eq!(limits(SPREAD_MAX).operations_max, expected);
        assert_eq!(limits(1).operations_max, usual.operations_max);
    }
}

/// How many requests and events a lane takes next, where so many may be worth while.
fn taken(ledger: &Ledger, spread_max: usize) -> (usize, usize) {
    let usual = BatchLimits {
        operations_max: 10,
        bytes_max: usize::MAX,
    };
    let limits = ledger.limits_of_next(PipelineId::AToB, 0, usual, spread_max);
    match ledger.plan(PipelineId::AToB, 0, limits, &Caution::default()) {
        Ok(Next::Apply(plan)) => (plan.requests, plan.batch.len()),
        other => panic!("nothing to apply: {other:?}"),
    }
}

#[test]
fn copies_go_in_larger_batches_than_events_and_in_small_ones_after_a_refusal() {
    let mut ledger = ledger_of(&[1; 5], &[]);
    for id in 0..100 {
        let namespace = Namespace::new("shop", "copied");
        let copied = Copied {
            key: DocumentKey::of(&namespace, &rawdoc! { "_id": id }).unwrap(),
            bytes: 1,
            document: None,
            at: ledger.begin_copying(Side::A),
            ticket: Default::default(),
        };
        ledger.request_copy(PipelineId::AToB, copied);
    }
    let with = |spread_max| taken(&ledger, spread_max);
    assert_eq!(
        [1, 10, 25, 80].map(with),
        [(1, 0), (10, 0), (25, 0), (40, 0)]
    );
    ledger.begin(Arc::new(next(&ledger, PipelineId::AToB, 10)));
    ledger.landed(PipelineId::AToB, 0, at(10)).unwrap();
    assert_eq!(taken(&ledger, 80), (0, 5), "events have their turn");
}
