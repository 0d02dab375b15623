//! What waits in several lanes as one plan: where it is little, a commit costs more than what is in it.

use super::ledger::Ledger;
use super::plan::{BatchLimits, Caution, Plan, take};
use crate::error::Result;

impl Ledger {
    /// Takes everything along that waits in these lanes, as far as the whole plan stays within
    /// `most`. A lane that has more, or anything but events to do, is left to itself, and so is the
    /// plan where it takes anything but events.
    ///
    /// # Errors
    /// As the spools say.
    pub fn take_along(
        &self,
        plan: &mut Plan,
        lanes: &[(usize, &Caution)],
        most: BatchLimits,
    ) -> Result<()> {
        if plan.batch.is_empty() || plan.batch.len() >= most.operations_max {
            return Ok(());
        }
        let cluster = &self.clusters[plan.pipeline.source()];
        let mut bytes: usize = plan.batch.iter().map(|event| event.bytes()).sum();
        for (lane, caution) in lanes {
            let state = &cluster.lanes[*lane];
            let others_ask = !state.requests.is_empty() || !state.settles.is_empty();
            let is_busy = others_ask || state.in_flight.is_some();
            if is_busy || state.is_idle(&cluster.gates) {
                continue;
            }
            let operations = plan.batch.len() + state.queue.len();
            let all = state.queue.iter().map(|event| event.bytes());
            if operations > most.operations_max || bytes + all.sum::<usize>() > most.bytes_max {
                continue;
            }
            let batch = take(state, &cluster.gates, most);
            bytes += batch.iter().map(|event| event.bytes()).sum::<usize>();
            self.add_share(plan, *lane, batch, caution)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bson::{Timestamp, rawdoc};

    use super::*;
    use crate::change::{
        AppliedThrough, ChangeEvent, DocumentKey, Mode, Namespace, Operation, Pair, PipelineId,
        Policy, Position, Rank, RawEvent, SharedEvent, Side, Version,
    };
    use crate::resolve::{Copied, Next, Rules, Ticket};

    const LANES: usize = 3;

    fn at(time: u32) -> Timestamp {
        Timestamp { time, increment: 1 }
    }

    fn key(lane: usize) -> DocumentKey {
        let orders = Namespace::new("shop", "orders");
        let keys = (0..).filter_map(|id| DocumentKey::of(&orders, &rawdoc! { "_id": id }));
        let mut keys = keys.filter(|key| key.lane(LANES) == lane);
        keys.next().expect("a document")
    }

    fn insert(lane: usize, time: u32) -> SharedEvent {
        let document = rawdoc! { "_id": 1 };
        Arc::new(ChangeEvent {
            position: Position::of_event(at(time), format!("{time:04}")),
            key: key(lane),
            operation: Operation::Insert,
            version: Version {
                wall_time_ms: 1,
                rank: Rank::Wins,
            },
            wall_time_ms: 1,
            raw: RawEvent::of(document, Operation::Insert),
        })
    }

    /// Of which `a` has written once in the lane of each, at its time.
    fn ledger(writes: &[(usize, u32)]) -> Ledger {
        let rules = Rules {
            mode: Mode::TwoWay,
            policy: Policy::LastWriteWins,
        };
        let start = || vec![AppliedThrough(Position::after_all_of(at(1), "")); LANES];
        let mut ledger = Ledger::new(rules, Pair::new(start(), start()), Pair::new(at(1), at(1)));
        for (lane, time) in writes {
            ledger.observe(Side::A, insert(*lane, *time)).unwrap();
        }
        for side in Side::BOTH {
            ledger.own_writes_known(side);
            ledger.complete(side, Position::after_all_of(at(20), ""));
        }
        ledger
    }

    fn within(operations_max: usize) -> BatchLimits {
        BatchLimits {
            operations_max,
            bytes_max: 1 << 20,
        }
    }

    /// Of the first lane, with what the others have within so many operations.
    fn planned(ledger: &Ledger, operations_max: usize) -> Plan {
        let next = ledger.plan(PipelineId::AToB, 0, within(100), &Caution::default());
        let Ok(Next::Apply(mut plan)) = next else {
            panic!("nothing to apply: {next:?}");
        };
        let most = within(operations_max);
        let caution = Caution::default();
        let others = [(1, &caution), (2, &caution)];
        ledger.take_along(&mut plan, &others, most).unwrap();
        plan
    }

    fn lanes(plan: &Plan) -> Vec<(usize, usize)> {
        let shares = plan.shares.iter();
        shares.map(|share| (share.lane, share.events)).collect()
    }

    #[test]
    fn what_little_waits_in_other_lanes_goes_along_and_each_lane_moves_as_far_as_its_own() {
        let mut ledger = ledger(&[(0, 5), (2, 6), (2, 7)]);
        let plan = planned(&ledger, 3);
        assert_eq!(lanes(&plan), [(0, 1), (2, 2)]);
        assert!(plan.is_joint());
        assert_eq!(plan.share_of(&key(2)), Some(1));
        assert!(ledger.begin(Arc::new(plan)));
        for lane in [0, 2] {
            assert!(ledger.is_in_flight(PipelineId::AToB, lane));
        }
        ledger.landed(PipelineId::AToB, 0, at(30)).unwrap();
        let applied = |lane: usize| ledger.clusters.a.lanes[lane].applied_through.0.time;
        assert_eq!([0, 1, 2].map(applied), [at(5), at(1), at(7)]);
        assert_eq!(ledger.queue_bytes(Side::A), 0);
        assert_eq!(ledger.entries(), 0);
        assert!(!ledger.is_in_flight(PipelineId::AToB, 2));
    }

    #[test]
    fn what_is_not_committed_waits_in_each_of_its_lanes() {
        let mut ledger = ledger(&[(0, 5), (1, 6)]);
        assert!(ledger.begin(Arc::new(planned(&ledger, 10))));
        ledger.abandon(PipelineId::AToB, 0);
        assert_eq!(lanes(&planned(&ledger, 10)), [(0, 1), (1, 1)]);
    }

    #[test]
    fn a_lane_with_more_than_little_or_with_anything_else_to_do_is_left_to_itself() {
        let mut ledger = ledger(&[(0, 5), (1, 6), (1, 7), (2, 8)]);
        assert_eq!(lanes(&planned(&ledger, 2)), [(0, 1), (2, 1)]);
        assert_eq!(lanes(&planned(&ledger, 1)), [(0, 1)]);
        let copied = Copied {
            key: key(2),
            bytes: 1,
            document: None,
            at: at(9),
            ticket: Ticket::default(),
        };
        ledger.request_copy(PipelineId::AToB, copied);
        assert_eq!(lanes(&planned(&ledger, 10)), [(0, 1), (1, 2)]);
    }

    #[test]
    fn a_lane_that_commits_by_itself_is_left_alone() {
        let mut ledger = ledger(&[(0, 5), (1, 6)]);
        let next = ledger.plan(PipelineId::AToB, 1, within(9), &Caution::default());
        let Ok(Next::Apply(plan)) = next else {
            panic!("nothing to apply: {next:?}");
        };
        assert!(ledger.begin(Arc::new(plan)));
        assert_eq!(lanes(&planned(&ledger, 10)), [(0, 1)]);
    }
}
