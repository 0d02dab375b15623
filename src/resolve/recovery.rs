//! What former processes wrote, foreseen before the history is read, and who may go on meanwhile.

use bson::Timestamp;

use super::Ledger;
use crate::change::{DocumentKey, Pair, PipelineId, Side};

/// How much of what was read may wait in memory.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Of one side's queues.
    pub queue_bytes_max: usize,
    /// Documents of which anything is kept.
    pub entries_max: usize,
}

impl Room {
    pub(super) const UNLIMITED: Room = Room {
        queue_bytes_max: usize::MAX,
        entries_max: usize::MAX,
    };
}

impl Ledger {
    /// A write of a former process. To be told of after the notes are restored and before the
    /// history of `side` is observed, which may be too long to be held at once.
    pub fn foresee_own_write(&mut self, side: Side, key: &DocumentKey, at: Timestamp) {
        if let Some(state) = self.keys.get_mut(key) {
            state.applied_on(side, at);
        }
        self.note_joined(key);
        let foreseen = self.clusters[side].foreseen.entry(key.digest());
        let last = foreseen.or_insert(at);
        *last = at.max(*last);
    }

    /// All writes of former processes on `side` have been foreseen.
    pub fn own_writes_known(&mut self, side: Side) {
        let was_recovered = self.is_recovered();
        self.clusters[side].own_writes_known = true;
        self.after_progress(side, was_recovered);
    }

    /// The last write of a former process to a document, as far as one may still come.
    pub(super) fn foreseen(&self, side: Side, key: &DocumentKey) -> Option<Timestamp> {
        let foreseen = &self.clusters[side].foreseen;
        match foreseen.is_empty() {
            true => None,
            false => foreseen.get(&key.digest()).copied(),
        }
    }

    /// Whether the pipeline may apply what it has: everything on the target up to the moment of
    /// the start is known, and no write of a former process on the source is unknown.
    pub fn may_apply(&self, pipeline: PipelineId) -> bool {
        self.has_passed_start(pipeline.target())
            && self.clusters[pipeline.source()].own_writes_known
    }

    /// Whether everything on `side` up to the moment of the start is known. A checkpoint may stand
    /// between the events of that very moment.
    pub fn has_passed_start(&self, side: Side) -> bool {
        let cluster = &self.clusters[side];
        cluster.own_writes_known && cluster.complete.covers(cluster.recover_to)
    }

    /// Whether both readers have passed the moment of the start.
    pub fn is_recovered(&self) -> bool {
        Side::BOTH.iter().all(|side| self.has_passed_start(*side))
    }

    /// To be called where a side may have passed its start.
    pub(super) fn after_progress(&mut self, side: Side, was_recovered: bool) {
        if !self.clusters[side].foreseen.is_empty() && self.has_passed_start(side) {
            self.clusters[side].foreseen = Default::default();
        }
        if self.is_recovered() && !was_recovered {
            self.forget_all_settled();
        }
    }

    /// How far each history is known while it may hold surprises; none once it may not.
    pub(super) fn known_through(&self) -> Pair<Option<Timestamp>> {
        let known = |side| (!self.has_passed_start(side)).then_some(self.complete_of(side).time);
        Pair::new(known(Side::A), known(Side::B))
    }

    /// Whether the reader of `side` may go on.
    ///
    /// A pipeline needs its target's reader: to pass the start, to see its commits come back, to
    /// pass a refusal. So no reader waits while the other one does, or nobody would make room:
    /// where both are full, b's goes on, the pipeline from a works, and then that from b does.
    ///
    /// Nobody waits for what no queue can make go away: entries of documents whose writes have left
    /// the queues, in one-way mode b's writes, which stay in the ledger anyhow, and events that are
    /// held until the end of the initial copy, or until a paused pipeline is resumed. A change of a
    /// collection has its turn once both readers have passed the start, so before that nobody waits
    /// for what is behind it either. What a reader reads beyond its bound goes to its spool.
    pub fn has_room(&self, side: Side) -> bool {
        let is_full = |side| {
            let is_crowded = self.entries() >= self.room.entries_max;
            self.is_queue_full(side)
                || (self.is_recovered() && self.clusters[side].gates.are_many())
                || (self.queue_bytes(side) > 0 && is_crowded)
        };
        let goes_on = side == Side::B && is_full(Side::A);
        let cluster = &self.clusters[side];
        let stands_at_gate = !self.is_recovered() && !cluster.gates.are_open();
        let held = cluster.held || cluster.paused || stands_at_gate;
        goes_on || held || self.keeps_pending(side) || !is_full(side)
    }
}
