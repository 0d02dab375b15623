//! Dead letters that are tried again, and what they wait for.

use std::collections::{HashMap, HashSet};

use super::ledger::Ledger;
use super::plan::Plan;
use super::requests::{Purpose, Request};
use super::state::KeyState;
use crate::change::{DocumentKey, PipelineId};

/// Dead letters that something stands in the way of.
#[derive(Debug, Default)]
pub(super) struct Retries {
    /// By the document they collided with: those that wait for it to change.
    collided: HashMap<DocumentKey, Vec<(PipelineId, DocumentKey)>>,
    /// Those that wait for the other side's writes to their document to arrive.
    postponed: HashSet<(PipelineId, DocumentKey)>,
}

impl Ledger {
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
            if let Some(noted) = state.if_noted() {
                noted.dead[pipeline.source()] = false;
            }
            self.forget_if_settled(key);
        }
    }

    /// What the dead letters of a plan, which has landed, wait for.
    pub(super) fn note_what_stands_in_the_way(&mut self, plan: &Plan) {
        let collided = &mut self.retries.collided;
        for (key, other) in &plan.collided_with {
            let waiting = collided.entry(other.clone()).or_default();
            if !waiting.contains(&(plan.pipeline, key.clone())) {
                waiting.push((plan.pipeline, key.clone()));
            }
        }
        let postponed = plan.decisions.iter().filter(|one| one.postponed);
        let postponed = postponed.map(|one| (plan.pipeline, one.key.clone()));
        self.retries.postponed.extend(postponed);
    }

    /// A document has changed: whatever collided with it may be possible now.
    pub(super) fn retry_collided(&mut self, changed: &DocumentKey) {
        if self.retries.collided.is_empty() {
            return;
        }
        let waiting = self.retries.collided.remove(changed);
        for (pipeline, key) in waiting.unwrap_or_default() {
            if self.is_dead(pipeline, &key) {
                self.request_full_state(pipeline, key);
            }
        }
    }

    /// A plan has landed: its documents' dead letters are tried again that waited for the last write
    /// of the other side. Returns whether any is.
    pub(super) fn retry_postponed(&mut self, plan: &Plan) -> bool {
        let mut asked = false;
        if self.retries.postponed.is_empty() {
            return asked;
        }
        let unknown = KeyState::default();
        for key in plan.decisions.iter().map(|decision| &decision.key) {
            for pipeline in PipelineId::BOTH {
                let letter = (pipeline, key.clone());
                let known = self.known(key, &unknown);
                if known.may_be_live(pipeline.target()) || !self.retries.postponed.remove(&letter) {
                    continue;
                }
                if self.is_dead(pipeline, key) {
                    self.request_full_state(pipeline, letter.1);
                    asked = true;
                }
            }
        }
        asked
    }

    /// It has not been sent as full state since, nor been discarded.
    fn is_dead(&self, pipeline: PipelineId, key: &DocumentKey) -> bool {
        let state = self.keys.get(key);
        state.is_some_and(|state| state.noted().dead[pipeline.source()])
    }
}
