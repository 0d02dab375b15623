//! How far lanes have come, and what an idle one may put on record.

use std::collections::{HashMap, HashSet};

use super::Ledger;
use super::gate::before;
use super::plan::{BatchLimits, Plan, Share};
use super::requests;
use crate::change::{AppliedThrough, PipelineId, Position};

/// What a command costs beside its operations is a small part of it with so many of them.
const COLLECTION_OPERATIONS_MIN: usize = 32;

/// A batch of no more collections than that is as large as usual.
const FEW_COLLECTIONS: usize = 4;

impl Ledger {
    /// How far a lane has applied; an empty lane has applied whatever its reader has passed. While
    /// the pipeline is held none is past an event of another one, which may change lanes.
    pub fn applied_through(&self, pipeline: PipelineId, lane: usize) -> AppliedThrough {
        let cluster = &self.clusters[pipeline.source()];
        let state = &cluster.lanes[lane];
        if state.is_idle(&cluster.gates) && self.may_apply(pipeline) {
            let reached = cluster.gates.reached(&cluster.complete);
            let next = match cluster.held {
                true => self.first_waiting(pipeline.source()),
                false => cluster.tail.front(),
            };
            let reached = match next {
                Some(event) => before(&event.position).min(reached),
                None => reached,
            };
            let reached = reached.max(state.applied_through.0.clone());
            AppliedThrough(cluster.with_ahead(state, 0, reached).0)
        } else {
            state.applied_through.clone()
        }
    }

    /// Whether the lane has still to apply something from before `position`.
    pub fn is_behind(&self, pipeline: PipelineId, lane: usize, position: &Position) -> bool {
        let cluster = &self.clusters[pipeline.source()];
        let queued = cluster.lanes[lane].earliest();
        let mut fronts = queued.into_iter().chain(cluster.tail.front());
        fronts.any(|event| event.position < *position)
    }

    /// The position that every lane of the pipeline has reached.
    pub fn pipeline_applied_through(&self, pipeline: PipelineId) -> AppliedThrough {
        let lanes = self.clusters[pipeline.source()].lanes.len();
        (0..lanes)
            .map(|lane| self.applied_through(pipeline, lane))
            .min()
            .expect("a pipeline has a lane")
    }

    /// The position an idle lane may put on record, if it is past its checkpoint.
    pub fn idle_progress(&self, pipeline: PipelineId, lane: usize) -> Option<AppliedThrough> {
        let at = self.applied_through(pipeline, lane);
        let cluster = &self.clusters[pipeline.source()];
        let state = &cluster.lanes[lane];
        let is_idle = state.is_idle(&cluster.gates);
        (is_idle && self.may_apply(pipeline) && at > state.applied_through).then_some(at)
    }

    /// An empty plan that only moves an idle lane's checkpoint.
    pub fn plan_idle_progress(&self, pipeline: PipelineId, lane: usize) -> Option<Plan> {
        let at = self.idle_progress(pipeline, lane)?;
        let cluster = &self.clusters[pipeline.source()];
        let (through, ahead) = cluster.with_ahead(&cluster.lanes[lane], 0, at.0);
        let share = Share {
            lane,
            events: 0,
            decisions: 0,
            through,
            ahead,
        };
        Some(Plan {
            pipeline,
            shares: vec![share],
            batch: Vec::new(),
            decisions: Vec::new(),
            requests: 0,
            settles: 0,
            moved: self.moved,
            fence: self.clusters[pipeline.target()].complete.clone(),
            read_at: self.clusters[pipeline.source()].complete.clone(),
            dead_letters: HashSet::new(),
            records: HashMap::new(),
            collided_with: HashMap::new(),
            passed_over: 0,
        })
    }

    /// Whether the lane's next batch takes events and has room for more of them.
    pub fn has_short_batch(&self, pipeline: PipelineId, lane: usize, limits: BatchLimits) -> bool {
        let cluster = &self.clusters[pipeline.source()];
        let state = &cluster.lanes[lane];
        let others_ask = !state.requests.is_empty() || !state.settles.is_empty();
        let no_room = others_ask || state.stretch.is_some();
        if no_room || cluster.held || cluster.paused || state.is_idle(&cluster.gates) {
            return false;
        }
        let events = state.queue.iter().take(limits.operations_max);
        let bytes: usize = events.map(|event| event.bytes()).sum();
        state.queue.len() < limits.operations_max && bytes < limits.bytes_max
    }

    /// What the lane's next batch may take: as usual, or more where that pays, up to `spread_max`
    /// operations. Events do for as long as they are about so many collections that a command, which
    /// is about one of them, would carry few. There are never more collections in it than a usual one
    /// may have. Copies do since nobody else has anything to do with most of them yet.
    pub fn limits_of_next(
        &self,
        pipeline: PipelineId,
        lane: usize,
        usual: BatchLimits,
        spread_max: usize,
    ) -> BatchLimits {
        let state = &self.clusters[pipeline.source()].lanes[lane];
        if self.takes_requests(pipeline, lane) {
            return requests::limits(usual, spread_max);
        }
        if !state.requests.is_empty() || !state.settles.is_empty() {
            return usual;
        }
        // Whoever wants small batches gets them.
        let of_each = COLLECTION_OPERATIONS_MIN.min(usual.operations_max / FEW_COLLECTIONS);
        let (mut collections, mut before) = (HashSet::new(), None);
        let events = state.queue.iter().take(spread_max).enumerate();
        let wanted = events.take_while(|(at, event)| {
            let namespace = Some(event.key.namespace());
            if before != namespace {
                collections.extend(namespace);
                before = namespace;
            }
            let few_of_each = *at < collections.len() * of_each;
            *at < usual.operations_max || few_of_each && collections.len() <= usual.operations_max
        });
        BatchLimits {
            operations_max: wanted.count().max(usual.operations_max),
            ..usual
        }
    }
}
