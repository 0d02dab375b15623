//! Which lane a document goes to.

use std::collections::VecDeque;

use super::ledger::{Lane, Ledger};
use super::requests::Request;
use super::tally::SettleRequest;
use crate::change::{DocumentKey, Namespace, SharedEvent, Side};

/// What waits of one namespace in a lane.
struct Waiting {
    events: Vec<SharedEvent>,
    requests: Vec<Request>,
    settles: Vec<SettleRequest>,
}

impl Ledger {
    /// All documents of the namespace share a lane, since a unique index binds them together. To be
    /// said before anything of it waits, and the same after every restart.
    pub fn keep_in_one_lane(&mut self, namespace: Namespace) {
        self.single_lane.insert(namespace);
    }

    /// As [`Ledger::keep_in_one_lane`], for a collection of which something waits already: that
    /// changes lanes. Returns whether it could be: both pipelines must be settled, since a restart
    /// counts each event from the checkpoint of its lane, and nothing may be in flight, which is
    /// taken from the front of its own lane when it lands.
    pub fn gather_in_one_lane(&mut self, namespace: &Namespace) -> bool {
        let mut sides = Side::BOTH.iter().filter(|side| !self.keeps_pending(**side));
        if !sides.all(|side| self.is_settled(*side)) {
            return false;
        }
        self.keep_in_one_lane(namespace.clone());
        self.moved += 1;
        for side in Side::BOTH {
            let lanes = &mut self.clusters[side].lanes;
            let chosen = namespace.lane(lanes.len());
            for lane in lanes.iter_mut() {
                lane.break_off_stretch();
            }
            let taken: Vec<Waiting> = lanes
                .iter_mut()
                .map(|lane| lane.take_out(namespace))
                .collect();
            for waiting in taken {
                lanes[chosen].put_in(waiting);
            }
            let queue = lanes[chosen].queue.make_contiguous();
            queue.sort_by(|one, other| one.position.cmp(&other.position));
        }
        true
    }

    /// The lane of a document in the pipeline from `side`.
    pub fn lane_of(&self, side: Side, key: &DocumentKey) -> usize {
        let lanes = self.clusters[side].lanes.len();
        match self.single_lane.contains(key.namespace()) {
            true => key.namespace().lane(lanes),
            false => key.lane(lanes),
        }
    }
}

impl Lane {
    fn take_out(&mut self, namespace: &Namespace) -> Waiting {
        let events = take_out(&mut self.queue, |event| event.key.namespace() == namespace);
        self.queue_bytes -= bytes_of(&events);
        Waiting {
            events,
            requests: take_out(&mut self.requests, |one| one.key.namespace() == namespace),
            settles: take_out(&mut self.settles, |one| one.key.namespace() == namespace),
        }
    }

    fn put_in(&mut self, waiting: Waiting) {
        self.queue_bytes += bytes_of(&waiting.events);
        self.queue.extend(waiting.events);
        self.requests.extend(waiting.requests);
        self.settles.extend(waiting.settles);
    }
}

fn take_out<T>(all: &mut VecDeque<T>, is_taken: impl Fn(&T) -> bool) -> Vec<T> {
    let (taken, left): (Vec<T>, Vec<T>) = std::mem::take(all).into_iter().partition(is_taken);
    *all = left.into();
    taken
}

fn bytes_of(events: &[SharedEvent]) -> usize {
    events.iter().map(|event| event.memory_bytes()).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bson::{Timestamp, rawdoc};

    use super::*;
    use crate::change::{
        AppliedThrough, ChangeEvent, Mode, Operation, Pair, PipelineId, Policy, Position, Rank,
        RawEvent, Version,
    };
    use crate::resolve::{BatchLimits, Caution, Copied, Next, Plan, Rules, Ticket};

    const LANES: usize = 2;

    fn at(time: u32) -> Timestamp {
        Timestamp { time, increment: 1 }
    }

    fn whole(time: u32) -> Position {
        Position::after_all_of(at(time), "")
    }

    fn stock() -> Namespace {
        Namespace::new("shop", "stock")
    }

    /// The lane that the collection is moved to.
    fn chosen() -> usize {
        stock().lane(LANES)
    }

    /// A document of the collection that goes to `lane` before that.
    fn of_lane(namespace: &Namespace, lane: usize) -> DocumentKey {
        let keys = (0..).filter_map(|id| DocumentKey::of(namespace, &rawdoc! { "_id": id }));
        let mut keys = keys.filter(|key| key.lane(LANES) == lane);
        keys.next().expect("a document")
    }

    fn ledger() -> Ledger {
        let rules = Rules {
            mode: Mode::TwoWay,
            policy: Policy::LastWriteWins,
        };
        let checkpoints = || vec![AppliedThrough(whole(1)); LANES];
        let checkpoints = Pair::new(checkpoints(), checkpoints());
        let mut ledger = Ledger::new(rules, checkpoints, Pair::new(at(1), at(1)));
        for side in Side::BOTH {
            ledger.own_writes_known(side);
            ledger.complete(side, whole(9));
        }
        ledger
    }

    fn write(key: &DocumentKey, time: u32) -> SharedEvent {
        Arc::new(ChangeEvent {
            position: Position::of_event(at(time), format!("{time:04}")),
            key: key.clone(),
            operation: Operation::Insert,
            version: Version {
                wall_time_ms: 1,
                rank: Rank::Wins,
            },
            wall_time_ms: 1,
            raw: RawEvent::of(rawdoc! {}, Operation::Insert),
        })
    }

    fn copy(ledger: &mut Ledger, key: &DocumentKey) -> Ticket {
        let ticket = Ticket::default();
        let copied = Copied {
            key: key.clone(),
            bytes: 1,
            document: None,
            at: at(9),
            ticket: ticket.clone(),
        };
        ledger.request_copy(PipelineId::AToB, copied);
        ticket
    }

    fn planned(ledger: &Ledger, lane: usize) -> Arc<Plan> {
        let limits = BatchLimits {
            operations_max: 10,
            bytes_max: 1000,
        };
        let next = ledger.plan(PipelineId::AToB, lane, limits, &Caution::default());
        match next.unwrap() {
            Next::Apply(plan) => Arc::new(plan),
            other => panic!("nothing to apply: {other:?}"),
        }
    }

    /// As the turn of a change does: both stop, and what is idle puts its progress on record.
    fn settle(ledger: &mut Ledger) {
        for side in Side::BOTH {
            ledger.settle_at_gate(side);
            put_on_record(ledger, side);
        }
    }

    fn put_on_record(ledger: &mut Ledger, side: Side) {
        let pipeline = PipelineId::from_source(side);
        for lane in 0..LANES {
            if let Some(plan) = ledger.plan_idle_progress(pipeline, lane) {
                ledger.begin(Arc::new(plan));
                ledger.landed(pipeline, lane, at(10)).unwrap();
            }
        }
    }

    #[test]
    fn nothing_changes_lanes_while_copies_are_in_flight() {
        let mut ledger = ledger();
        let lane = 1 - chosen();
        let of_stock = copy(&mut ledger, &of_lane(&stock(), lane));
        settle(&mut ledger);
        assert!(ledger.begin(planned(&ledger, lane)));
        let orders = Namespace::new("shop", "orders");
        let behind = copy(&mut ledger, &of_lane(&orders, lane));
        assert!(!ledger.gather_in_one_lane(&stock()));
        ledger.landed(PipelineId::AToB, lane, at(11)).unwrap();
        assert_eq!(Arc::strong_count(&of_stock), 1, "it has been sent");
        assert_eq!(Arc::strong_count(&behind), 2, "it still waits");
        assert!(ledger.gather_in_one_lane(&stock()));
    }

    #[test]
    fn what_was_planned_before_something_changed_lanes_is_planned_again() {
        let mut ledger = ledger();
        let lane = 1 - chosen();
        let moved = copy(&mut ledger, &of_lane(&stock(), lane));
        let stays = copy(
            &mut ledger,
            &of_lane(&Namespace::new("shop", "orders"), lane),
        );
        settle(&mut ledger);
        let plan = planned(&ledger, lane);
        assert_eq!(plan.requests, 2);
        assert!(ledger.gather_in_one_lane(&stock()));
        assert!(!ledger.begin(plan));
        for (lane, ticket) in [(lane, stays), (chosen(), moved)] {
            let plan = planned(&ledger, lane);
            assert_eq!(plan.requests, 1);
            assert!(ledger.begin(plan));
            ledger.landed(PipelineId::AToB, lane, at(11)).unwrap();
            assert_eq!(Arc::strong_count(&ticket), 1);
        }
    }

    #[test]
    fn events_that_are_held_change_lanes_and_none_is_behind_a_checkpoint_then() {
        let mut ledger = ledger();
        ledger.hold(PipelineId::BToA);
        let key = of_lane(&stock(), 1 - chosen());
        ledger.observe(Side::B, write(&key, 12)).unwrap();
        for side in Side::BOTH {
            ledger.complete(side, whole(20));
        }
        // A lane that has nothing to do must not pass what may be its own later.
        put_on_record(&mut ledger, Side::B);
        settle(&mut ledger);
        assert!(ledger.gather_in_one_lane(&stock()));
        assert_eq!(ledger.lane_of(Side::B, &key), chosen());
        for lane in 0..LANES {
            let applied = ledger.applied_through(PipelineId::BToA, lane).0;
            assert_eq!(
                applied.time,
                Timestamp {
                    time: 12,
                    increment: 0
                }
            );
        }
        for side in Side::BOTH {
            ledger.end_settling(side);
            ledger.open_own_gate(side);
        }
        ledger.release(PipelineId::BToA);
        let limits = BatchLimits {
            operations_max: 10,
            bytes_max: 1000,
        };
        let next = ledger.plan(PipelineId::BToA, chosen(), limits, &Caution::default());
        assert!(matches!(next.unwrap(), Next::Apply(plan) if plan.batch.len() == 1));
    }

    #[test]
    fn a_held_pipeline_that_a_lane_has_gone_ahead_in_is_not_settled_before_its_release() {
        let mut ledger = ledger();
        let lane = 1 - chosen();
        for time in [12, 13] {
            let key = of_lane(&stock(), lane);
            ledger.observe(Side::B, write(&key, time)).unwrap();
        }
        ledger.complete(Side::B, whole(20));
        // With its own checkpoint behind them, another lane has come past both.
        put_on_record(&mut ledger, Side::B);
        ledger.hold(PipelineId::BToA);
        settle(&mut ledger);
        assert!(!ledger.gather_in_one_lane(&stock()));
    }
}
