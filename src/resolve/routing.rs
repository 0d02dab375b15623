//! Which lane a document goes to, and which documents wait for another one to change.

use super::Ledger;
use super::requests::{Purpose, Request};
use crate::change::{DocumentKey, Namespace, PipelineId, Side};

impl Ledger {
    /// All documents of the namespace share a lane, since a unique index binds them together. To be
    /// said before its first event is observed, and the same after every restart.
    pub fn keep_in_one_lane(&mut self, namespace: Namespace) {
        let (mut waiting, mut settles) = (Vec::new(), Vec::new());
        self.single_lane.insert(namespace);
        for pipeline in PipelineId::BOTH {
            for lane in &mut self.clusters[pipeline.source()].lanes {
                waiting.extend(lane.requests.drain(..).map(|request| (pipeline, request)));
                settles.extend(lane.settles.drain(..).map(|request| (pipeline, request)));
            }
        }
        for (pipeline, request) in settles {
            self.request_settlement(pipeline, request);
        }
        for (pipeline, request) in waiting {
            let lane = self.lane_of(pipeline.source(), &request.key);
            let lane = &mut self.clusters[pipeline.source()].lanes[lane];
            lane.requests.push_back(request);
        }
    }

    /// The lane of a document in the pipeline from `side`.
    pub fn lane_of(&self, side: Side, key: &DocumentKey) -> usize {
        let lanes = self.clusters[side].lanes.len();
        match self.single_lane.contains(key.namespace()) {
            true => key.namespace().lane(lanes),
            false => key.lane(lanes),
        }
    }

    /// Asks for the full state of a document of `pipeline`, as for a dead letter to be tried again.
    pub fn request_full_state(&mut self, pipeline: PipelineId, key: DocumentKey) {
        let lane = self.lane_of(pipeline.source(), &key);
        let requests = &mut self.clusters[pipeline.source()].lanes[lane].requests;
        if !requests.iter().any(|request| request.key == key) {
            requests.push_back(Request {
                key,
                purpose: Purpose::Retry,
            });
        }
    }

    /// The dead letter of a document has been discarded: it is no longer tried again.
    pub fn forget_dead_letter(&mut self, pipeline: PipelineId, key: &DocumentKey) {
        if let Some(state) = self.keys.get_mut(key) {
            state.dead[pipeline.source()] = false;
            self.forget_if_settled(key);
        }
    }

    /// The dead letter of `key` is tried again once `other`, which it collided with, changes.
    pub(super) fn wait_for(&mut self, other: DocumentKey, pipeline: PipelineId, key: DocumentKey) {
        let waiting = self.collided.entry(other).or_default();
        if !waiting.contains(&(pipeline, key.clone())) {
            waiting.push((pipeline, key));
        }
    }

    /// A document has changed: whatever collided with it may be possible now.
    pub(super) fn retry_collided(&mut self, changed: &DocumentKey) {
        if self.collided.is_empty() {
            return;
        }
        for (pipeline, key) in self.collided.remove(changed).unwrap_or_default() {
            self.request_full_state(pipeline, key);
        }
    }
}
