//! Gates: positions that no lane of a pipeline passes before somebody opens them.

use std::collections::VecDeque;

use bson::Timestamp;

use super::Ledger;
use super::ledger::Lane;
use crate::change::{Namespace, PipelineId, Position, SharedEvent, Side};

/// The closed gates of one pipeline, in the order of its source's history.
#[derive(Debug, Default)]
pub(super) struct Gates {
    closed: VecDeque<Position>,
    /// The last one that was opened.
    opened: Option<Position>,
    /// Lanes that have come to the next gate put their progress on record at once.
    pub settling: bool,
}

/// Changes of collections that wait at once. Each costs its event and a place in the queue, some
/// kilobytes, and each takes a turn of its own, so that more of them would only lie there.
pub(super) const CLOSED_MAX: usize = 1000;

impl Gates {
    /// Whether the reader rather waits until some were opened.
    pub fn are_many(&self) -> bool {
        self.closed.len() >= CLOSED_MAX
    }

    pub fn are_open(&self) -> bool {
        self.closed.is_empty()
    }

    /// Whether an event at this position is behind a closed gate.
    pub fn holds(&self, position: &Position) -> bool {
        self.closed.front().is_some_and(|gate| position >= gate)
    }

    /// Just before an event, or at the last gate before it.
    pub fn right_before(&self, event: &Position) -> Position {
        let gate = self.opened.clone().filter(|gate| gate < event);
        gate.max(Some(before(event))).expect("a time before it")
    }

    /// Whether nothing can come to the front of a queue before somebody opens one.
    pub fn may_stop_lanes(&self) -> bool {
        self.settling || !self.are_open()
    }

    /// How far a lane without work has come where the reader has passed `complete`.
    pub fn reached(&self, complete: &Position) -> Position {
        match self.closed.front().map(before) {
            Some(gate) => gate.min(complete.clone()),
            None => complete.clone(),
        }
    }
}

/// The last whole cluster time before a position.
pub(super) fn before(position: &Position) -> Position {
    let Timestamp { time, increment } = position.time;
    let time = match increment.checked_sub(1) {
        Some(increment) => Timestamp { time, increment },
        None => Timestamp {
            time: time.saturating_sub(1),
            increment: u32::MAX,
        },
    };
    Position::after_all_of(time, position.token.clone())
}

impl Ledger {
    /// Closes a gate at an event of `side`, behind those that are closed already. To be said
    /// before an event behind it is observed.
    pub fn close_gate(&mut self, side: Side, at: Position) {
        self.clusters[side].gates.closed.push_back(at);
    }

    /// Opens the first closed gate of the pipeline from `side`.
    pub fn open_gate(&mut self, side: Side) {
        let gates = &mut self.clusters[side].gates;
        gates.opened = gates.closed.pop_front().or(gates.opened.take());
    }

    /// Opens the gate of [`Ledger::settle_at_gate`], where nothing was changed.
    pub fn open_own_gate(&mut self, side: Side) {
        self.clusters[side].gates.closed.pop_front();
    }

    /// Stops the pipeline from `side` at its next gate, or where its reader is now, and has its
    /// lanes put their progress on record. One that is held stops before the first of its events:
    /// whoever has to release it may wait for this. Returns whether that took a gate of its own,
    /// which [`Ledger::open_own_gate`] opens.
    pub fn settle_at_gate(&mut self, side: Side) -> bool {
        let held_at = self.held_at(side);
        let cluster = &mut self.clusters[side];
        let closed = &mut cluster.gates.closed;
        cluster.gates.settling = true;
        let own = match held_at {
            Some(first) => Some(first),
            None if closed.is_empty() => Some(cluster.complete.clone()),
            None => None,
        };
        let is_own = own.is_some();
        if let Some(own) = own {
            closed.push_front(own);
        }
        is_own
    }

    /// Of a pipeline that is held: its first event, where that is the next thing to come, and no
    /// lane is past it. One may be that had events before the pipeline was held.
    fn held_at(&self, side: Side) -> Option<Position> {
        let cluster = &self.clusters[side];
        let first = &self.first_waiting(side).filter(|_| cluster.held)?.position;
        let is_before = |lane: &Lane| {
            let plan = lane.in_flight.as_ref();
            lane.ahead.is_none()
                && lane.applied_through.0 < *first
                && plan.is_none_or(|plan| plan.batch.is_empty())
        };
        let stands = cluster.lanes.iter().all(is_before) && !cluster.gates.holds(first);
        stands.then(|| first.clone())
    }

    /// The first event of `side` that has not arrived on the other one.
    pub(super) fn first_waiting(&self, side: Side) -> Option<&SharedEvent> {
        let cluster = &self.clusters[side];
        let queued = cluster.lanes.iter().filter_map(|lane| lane.earliest());
        let waiting = queued.chain(cluster.tail.front());
        waiting.min_by(|one, other| one.position.cmp(&other.position))
    }

    /// The lanes go on as ever.
    pub fn end_settling(&mut self, side: Side) {
        self.clusters[side].gates.settling = false;
    }

    pub fn is_settling(&self, side: Side) -> bool {
        self.clusters[side].gates.settling
    }

    /// Whether every event before the first closed gate of `side` has arrived on the other side,
    /// and what is behind it may follow: not while the pipeline is paused.
    pub fn is_drained(&self, side: Side) -> bool {
        let cluster = &self.clusters[side];
        let mut lanes = cluster.lanes.iter();
        let spooled = cluster.tail.front();
        self.is_recovered()
            && !cluster.paused
            && lanes.all(|lane| lane.is_idle(&cluster.gates))
            && spooled.is_none_or(|event| cluster.gates.holds(&event.position))
    }

    /// Whether that is on record in the checkpoint of every lane, too, and no lane is ahead.
    pub fn is_settled(&self, side: Side) -> bool {
        let pipeline = PipelineId::from_source(side);
        let mut lanes = self.clusters[side].lanes.iter().enumerate();
        let is_settled = |(lane, state): (usize, &Lane)| {
            state.ahead.is_none() && self.idle_progress(pipeline, lane).is_none()
        };
        self.is_drained(side) && lanes.all(is_settled)
    }

    /// Whether a checkpoint says that everything up to this event of `side` is done.
    pub fn is_done(&self, side: Side, position: &Position) -> bool {
        let mut lanes = self.clusters[side].lanes.iter();
        lanes.any(|lane| lane.applied_through.0 >= *position)
    }

    /// No event of a namespace that was passed over can come any more.
    pub fn forget_unpaired(&mut self, namespace: &Namespace) {
        self.unpaired.remove(namespace);
        self.single_lane.remove(namespace);
    }

    /// What the checkpoints of all lanes of the pipeline from `side` have passed.
    pub fn recorded_through(&self, side: Side) -> Position {
        let lanes = self.clusters[side].lanes.iter();
        let recorded = lanes.map(|lane| lane.applied_through.0.clone());
        recorded.min().expect("a pipeline has a lane")
    }

    /// Of a pipeline that is settled: where all of its lanes have come to.
    pub fn settled_at(&self, side: Side) -> Position {
        let lanes = self.clusters[side].lanes.iter();
        // One that has passed the gate's own time had nothing to do there, like the others.
        let furthest = lanes.map(|lane| lane.applied_through.0.clone()).max();
        furthest.expect("a pipeline has a lane")
    }
}
