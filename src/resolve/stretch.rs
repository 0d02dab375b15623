//! Stretches of a lane's queue that are applied in the order of keys.
//!
//! Documents that are neighbours share pages of the target's storage, and collections share commands.
//! Where much waits, what is about the same few pages goes into the same transaction: the target has
//! each of them to write less often. A document's own events keep their order, and no transaction is
//! any larger for it.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::ledger::{Cluster, Lane, Ledger};
use super::plan::BatchLimits;
use crate::change::{
    Ahead, KeyPlace, Namespace, PipelineId, Position, SharedEvent, Side, Within, by_place,
};
use crate::error::{Error, Result};

/// What waits is worth it from so many batches on.
const BATCHES_MIN: usize = 2;

/// And that is what is waited for where more is known to come, within the bytes of one transaction.
const BATCHES_WANTED: usize = 8;

/// So many at once. What is applied of a stretch that is broken off is read once more.
const BATCHES_MAX: usize = 16;

/// The first so many events tell whether it pays.
const SAMPLE_EVENTS: usize = 128;

/// It does where one in so many of them is followed by one from before it, or is about a collection
/// of its own.
const SCATTERED_PART: usize = 8;

/// The events at the front of a lane's queue that are there in the order of their places.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Everything of the lane up to here is applied.
    from: Position,
    /// The last of them in the order of their history.
    end: Position,
    left: usize,
}

impl Ledger {
    /// What a checkpoint says of a stretch that was broken off. To be said before anything is
    /// observed.
    pub fn resume_ahead(&mut self, side: Side, lane: usize, ahead: Ahead) {
        self.clusters[side].lanes[lane].ahead = Some(ahead);
    }

    /// Whether a lane's checkpoint says of an event that it is applied.
    pub(super) fn is_applied(&self, side: Side, lane: usize, event: &SharedEvent) -> bool {
        let lane = &self.clusters[side].lanes[lane];
        let ahead = lane.ahead.as_ref();
        event.position <= lane.applied_through.0
            || ahead.is_some_and(|ahead| ahead.holds(event, within(&self.single_lane, event)))
    }

    /// Whether what waits in a lane is worth a stretch, and a longer one would be worth more.
    pub fn has_short_stretch(
        &self,
        pipeline: PipelineId,
        lane: usize,
        limits: BatchLimits,
    ) -> bool {
        let cluster = &self.clusters[pipeline.source()];
        let state = &cluster.lanes[lane];
        let others_ask = !state.requests.is_empty() || !state.settles.is_empty();
        let stands = others_ask || cluster.held || cluster.paused || cluster.gates.may_stop_lanes();
        // Of large events a few are a batch, and never so many wait.
        let event_bytes = state.queue_bytes / state.queue.len().max(1);
        let least = event_bytes.saturating_mul(limits.operations_max * BATCHES_MIN);
        !stands
            && least < limits.bytes_max
            && state.may_begin_stretch()
            && state.queue.len() < limits.operations_max.saturating_mul(BATCHES_WANTED)
            && state.queue_bytes < limits.bytes_max
            && self.is_scattered(state)
    }

    /// Whether what comes first in a lane is about keys, or collections, far from each other.
    fn is_scattered(&self, lane: &Lane) -> bool {
        let sample = lane.queue.iter().take(SAMPLE_EVENTS);
        let pairs = sample.clone().zip(sample.clone().skip(1));
        let back = pairs.filter(|(one, next)| {
            by_place(one, next, within(&self.single_lane, one)) == Ordering::Greater
        });
        let namespaces: HashSet<_> = sample.clone().map(|event| event.key.namespace()).collect();
        let least = sample.len() / SCATTERED_PART;
        back.count() > least || namespaces.len() > least.max(1)
    }

    /// Puts what waits in a lane in the order of keys, where that is at least two batches of
    /// `operations_max` and nothing of it is in flight.
    pub fn begin_stretch(&mut self, pipeline: PipelineId, lane: usize, operations_max: usize) {
        let cluster = &self.clusters[pipeline.source()];
        let (state, gates) = (&cluster.lanes[lane], &cluster.gates);
        let stands = cluster.held || cluster.paused || !self.may_apply(pipeline);
        let is_short = state.queue.len() / operations_max.max(1) < BATCHES_MIN;
        if stands || is_short || !state.may_begin_stretch() || !self.is_scattered(state) {
            return;
        }
        let waiting = state
            .queue
            .partition_point(|event| !gates.holds(&event.position));
        let batches = (waiting / operations_max.max(1)).min(BATCHES_MAX);
        if batches < BATCHES_MIN {
            return;
        }
        let left = batches * operations_max;
        let from = gates.right_before(&state.queue[0].position);
        let state = &mut self.clusters[pipeline.source()].lanes[lane];
        let events = &mut state.queue.make_contiguous()[..left];
        let end = events[left - 1].position.clone();
        let single = &self.single_lane;
        events.sort_unstable_by(|one, other| by_place(one, other, within(single, one)));
        state.stretch = Some(Stretch { from, end, left });
    }

    /// What is left of a lane's stretch goes by its history again. Tells whether there was one; not
    /// while a transaction of it is in flight.
    pub fn break_off_stretch(&mut self, pipeline: PipelineId, lane: usize) -> bool {
        let state = &mut self.clusters[pipeline.source()].lanes[lane];
        state.in_flight.is_none() && state.break_off_stretch()
    }

    /// Lanes come to one position where nothing of them is amid a stretch. None is at a gate, but where
    /// a restart has found one that was not there when a lane came past it.
    ///
    /// # Errors
    /// Where one of `sides` stands at such a gate: nothing makes it go on.
    pub fn must_not_stand_amid_a_stretch(&self, sides: &[Side]) -> Result<()> {
        match sides.iter().any(|side| self.stands_amid_a_stretch(*side)) {
            true => Err(Error::config(
                "namespaces cannot be new to the link while its lanes have to come to one position, \
                 for a unique index or for another apply.lanes",
            )
            .hint("start once with the namespaces and the number of lanes of before")),
            false => Ok(()),
        }
    }

    pub(super) fn stands_amid_a_stretch(&self, side: Side) -> bool {
        let cluster = &self.clusters[side];
        let mut lanes = cluster.lanes.iter();
        let is_past = |ahead: &Ahead| cluster.gates.holds(&ahead.end);
        self.is_drained(side) && lanes.any(|lane| lane.ahead.as_ref().is_some_and(is_past))
    }

    /// What a lane's checkpoint says once so many events from the front of its queue are applied.
    pub(super) fn reached(
        &self,
        side: Side,
        lane: usize,
        batch: &[SharedEvent],
    ) -> (Position, Option<Ahead>) {
        let cluster = &self.clusters[side];
        let state = &cluster.lanes[lane];
        let before = &state.applied_through.0;
        let Some(last) = batch.last() else {
            return (before.clone(), state.ahead.clone());
        };
        match &state.stretch {
            Some(stretch) if stretch.left > batch.len() => {
                let ahead = Ahead {
                    end: stretch.end.clone(),
                    last: KeyPlace::of(last, within(&self.single_lane, last)),
                };
                (before.max(&stretch.from).clone(), Some(ahead))
            }
            Some(stretch) => (stretch.end.clone(), None),
            None => cluster.with_ahead(state, batch.len(), last.position.clone()),
        }
    }
}

/// Documents that share a lane are bound together by the order of their history.
fn within(single_lane: &HashSet<Namespace>, event: &SharedEvent) -> Within {
    match single_lane.contains(event.key.namespace()) {
        true => Within::History,
        false => Within::Keys,
    }
}

impl Cluster {
    /// Where a lane has come to that goes by its history and has applied everything up to `through`,
    /// and so many events from the front of its queue: to the end of what it was ahead in, once that
    /// has been read and nothing of it is left.
    pub(super) fn with_ahead(
        &self,
        lane: &Lane,
        applied: usize,
        through: Position,
    ) -> (Position, Option<Ahead>) {
        let Some(ahead) = lane.ahead.as_ref().filter(|ahead| ahead.end > through) else {
            return (through, None);
        };
        let queued = lane.queue.get(applied);
        let mut next = queued.into_iter().chain(self.tail.front());
        let is_left = next.any(|event| event.position <= ahead.end);
        let is_unknown = self.complete < ahead.end || self.gates.holds(&ahead.end);
        match is_left || is_unknown {
            true => (through, Some(ahead.clone())),
            false => (ahead.end.clone(), None),
        }
    }
}

impl Lane {
    fn may_begin_stretch(&self) -> bool {
        let first = self.queue.front().map(|event| &event.position);
        let is_free = self.by_history.as_ref().is_none_or(|end| first > Some(end));
        let has_none = self.stretch.is_none() && self.ahead.is_none();
        is_free && has_none && self.in_flight.is_none()
    }

    pub(super) fn break_off_stretch(&mut self) -> bool {
        let Some(stretch) = self.stretch.take() else {
            return false;
        };
        self.by_history = Some(stretch.end);
        let events = &mut self.queue.make_contiguous()[..stretch.left];
        events.sort_unstable_by(|one, other| one.position.cmp(&other.position));
        true
    }

    /// So many events at the front go by their keys; none: all of them by their history.
    pub(super) fn stretch_left(&self) -> Option<usize> {
        self.stretch.as_ref().map(|stretch| stretch.left)
    }

    /// Its first event in the order of the history.
    pub(super) fn earliest(&self) -> Option<&SharedEvent> {
        let left = self.stretch_left().unwrap_or(1);
        let first = self.queue.iter().take(left);
        first.min_by(|one, other| one.position.cmp(&other.position))
    }

    /// So many events from the front of the queue are applied.
    pub(super) fn shorten_stretch(&mut self, events: usize) {
        if let Some(stretch) = &mut self.stretch {
            stretch.left -= events;
            if stretch.left == 0 {
                self.stretch = None;
            }
        }
    }
}
