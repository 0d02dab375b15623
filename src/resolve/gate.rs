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
    /// Lanes that have come to the next gate put their progress on record at once.
    settling: bool,
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
        self.clusters[side].gates.closed.pop_front();
    }

    /// Stops the pipeline from `side` at its next gate, or where its reader is now, and has its
    /// lanes put their progress on record. Returns whether that took a gate of its own, which
    /// [`Ledger::open_gate`] opens.
    pub fn settle_at_gate(&mut self, side: Side) -> bool {
        let cluster = &mut self.clusters[side];
        cluster.gates.settling = true;
        let own = cluster.gates.closed.is_empty();
        if own {
            cluster.gates.closed.push_back(cluster.complete.clone());
        }
        own
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

    /// Whether that is on record in the checkpoint of every lane, too.
    pub fn is_settled(&self, side: Side) -> bool {
        let pipeline = PipelineId::from_source(side);
        let mut lanes = 0..self.clusters[side].lanes.len();
        self.is_drained(side) && lanes.all(|lane| self.idle_progress(pipeline, lane).is_none())
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

    /// As [`Ledger::keep_in_one_lane`], for a collection whose events are already waiting. Both
    /// pipelines must be settled: a restart counts each event from the checkpoint of its lane.
    pub fn gather_in_one_lane(&mut self, namespace: &Namespace) {
        self.keep_in_one_lane(namespace.clone());
        for side in Side::BOTH {
            let lanes = &mut self.clusters[side].lanes;
            let chosen = namespace.lane(lanes.len());
            let mut moved: Vec<SharedEvent> = Vec::new();
            for lane in lanes.iter_mut() {
                moved.extend(lane.take_out(namespace));
            }
            let lane = &mut lanes[chosen];
            lane.queue_bytes += moved
                .iter()
                .map(|event| event.memory_bytes())
                .sum::<usize>();
            lane.queue.extend(moved);
            let queue = lane.queue.make_contiguous();
            queue.sort_by(|one, other| one.position.cmp(&other.position));
        }
    }
}

impl Lane {
    fn take_out(&mut self, namespace: &Namespace) -> Vec<SharedEvent> {
        let all = std::mem::take(&mut self.queue);
        let (taken, left): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|event| event.key.namespace() == namespace);
        self.queue = left.into();
        self.queue_bytes -= taken
            .iter()
            .map(|event| event.memory_bytes())
            .sum::<usize>();
        taken
    }
}
