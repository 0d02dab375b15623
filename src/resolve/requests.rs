//! Documents whose full state somebody asked for: dead letters to be tried again, and copies.

use std::sync::Arc;

use bson::{Timestamp, rawdoc};

use super::copies::Copied;
use super::decide::{Action, Events};
use super::ledger::{Lane, Ledger};
use super::plan::{BatchLimits, Caution, Plan};
use crate::change::{
    ChangeEvent, DocumentKey, KeySet, Operation, PipelineId, Position, Rank, RawEvent, SharedEvent,
    Version,
};
use crate::error::Result;
use crate::fault::Fault;

/// Tokens of the server are hex digits, so none begins like this.
const UNREAD: &str = "initial-sync";

/// What the token of a document begins with that is settled.
pub(super) const DOCUMENT: &str = "document";

/// Held by every request of a part of the initial sync: they are done once nobody else holds it.
pub type Ticket = Arc<()>;

/// Why full state was asked for.
#[derive(Debug, Clone)]
pub enum Purpose {
    /// A dead letter is tried again, in a transaction of its own.
    Retry,
    /// A document from before the start of the link is copied.
    Copy(Copied),
}

/// A document whose full state a lane is asked to send.
#[derive(Debug, Clone)]
pub struct Request {
    pub key: DocumentKey,
    pub purpose: Purpose,
}

/// How many times as many copies a transaction takes at most.
const COPIES_FACTOR: usize = 4;

/// What a transaction of requests may take. Its bytes are as usual: more of them take the target longer
/// for each.
pub(super) fn limits(usual: BatchLimits, spread_max: usize) -> BatchLimits {
    BatchLimits {
        operations_max: spread_max.min(usual.operations_max.saturating_mul(COPIES_FACTOR)),
        ..usual
    }
}

/// How many requests the next transaction takes.
pub(super) fn take(lane: &Lane, limits: BatchLimits) -> usize {
    let mut bytes_taken = 0;
    let copies = lane.requests.iter().take(limits.operations_max.max(1));
    let copies = copies.take_while(|request| match request.purpose {
        Purpose::Retry => false,
        Purpose::Copy(ref copied) => {
            let is_first = bytes_taken == 0;
            bytes_taken += copied.bytes.max(1);
            is_first || bytes_taken <= limits.bytes_max
        }
    });
    let copies = copies.count();
    copies.max(usize::from(!lane.requests.is_empty()))
}

/// What is there of a document that no event has told of: older than any write.
pub(super) fn unread_write(key: &DocumentKey, at: Timestamp) -> SharedEvent {
    let token = format!("{UNREAD}/{}/{:016x}", key.namespace(), key.stable_hash());
    let mut raw = rawdoc! { "operationType": "initialSync" };
    raw.append(bson::cstr!("documentKey"), key.raw());
    Arc::new(ChangeEvent {
        position: Position::of_event(at, token),
        key: key.clone(),
        operation: Operation::Insert,
        version: Version {
            wall_time_ms: 0,
            rank: Rank::Loses,
        },
        wall_time_ms: 0,
        raw: RawEvent::of(raw, Operation::Insert),
    })
}

/// Whether an event stands for a document that no event has told of.
pub fn is_unread(event: &SharedEvent) -> bool {
    let token = &event.position.token;
    token.starts_with(UNREAD) || token.starts_with(DOCUMENT)
}

impl Ledger {
    /// Asks for a copy of a document of `pipeline`'s source; its namespace has its lane already.
    pub fn request_copy(&mut self, pipeline: PipelineId, copied: Copied) {
        let lane = self.lane_of(pipeline.source(), &copied.key);
        let requests = &mut self.clusters[pipeline.source()].lanes[lane].requests;
        requests.push_back(Request {
            key: copied.key.clone(),
            purpose: Purpose::Copy(copied),
        });
    }

    /// Everything of a pipeline waits until it is released: nobody knows yet what it would meet.
    pub fn hold(&mut self, pipeline: PipelineId) {
        self.clusters[pipeline.source()].held = !Fault::NoHold.is_on();
    }

    pub fn hold_both(&mut self) {
        for pipeline in PipelineId::BOTH {
            self.hold(pipeline);
        }
    }

    pub fn release(&mut self, pipeline: PipelineId) {
        self.clusters[pipeline.source()].held = false;
        self.joined = None;
    }

    pub fn is_held(&self, pipeline: PipelineId) -> bool {
        self.clusters[pipeline.source()].held
    }

    /// Nothing of a pipeline is applied until it is resumed, whatever else it waits for.
    pub fn pause(&mut self, pipeline: PipelineId) {
        self.clusters[pipeline.source()].paused = true;
    }

    pub fn resume(&mut self, pipeline: PipelineId) {
        self.clusters[pipeline.source()].paused = false;
    }

    pub fn is_paused(&self, pipeline: PipelineId) -> bool {
        self.clusters[pipeline.source()].paused
    }

    /// Whether a transaction of the pipeline is under way that is about documents.
    pub fn is_applying(&self, pipeline: PipelineId) -> bool {
        let mut lanes = self.clusters[pipeline.source()].lanes.iter();
        lanes.any(|lane| lane.in_flight.as_ref().is_some_and(|plan| plan.size() > 0))
    }

    /// Whether no transaction is under way but those that settle documents.
    pub fn is_quiet(&self) -> bool {
        let mut lanes = [&self.clusters.a, &self.clusters.b]
            .into_iter()
            .flat_map(|cluster| &cluster.lanes);
        lanes.all(|lane| {
            let in_flight = lane.in_flight.as_ref();
            in_flight.is_none_or(|plan| !plan.must_wait_while_held())
        })
    }

    pub(super) fn decide_requests(&self, plan: &mut Plan, caution: &Caution) -> Result<()> {
        let requests = &self.clusters[plan.pipeline.source()].lanes[plan.leader()].requests;
        let mut decided = KeySet::with_capacity_and_hasher(plan.requests, Default::default());
        plan.decisions.reserve(plan.requests);
        for request in requests.iter().take(plan.requests) {
            let key = &request.key;
            if self.unpaired.contains(key.namespace()) || !decided.insert(key.clone()) {
                continue;
            }
            let dead = caution.dead_letters.contains(key);
            let target = plan.pipeline.target();
            let mut decision = match &request.purpose {
                Purpose::Retry if self.is_being_settled(target, key) => continue,
                Purpose::Retry => self.decide_key(plan, key, Events::new(), true)?,
                Purpose::Copy(copied) => {
                    let decision = self.decide_copy(plan, copied, caution)?;
                    if dead && decision.action != Action::Skip {
                        plan.dead_letters.insert(key.clone());
                    }
                    decision
                }
            };
            if dead {
                decision.action = Action::Skip;
                decision.conflict = None;
            }
            plan.decisions.push(decision);
        }
        Ok(())
    }
}
