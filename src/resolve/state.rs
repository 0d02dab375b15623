//! What is known about one document with writes under way.

use std::collections::VecDeque;
use std::sync::Arc;

use bson::Timestamp;

use super::notes::LostWrite;
use super::spool::Tail;
use crate::change::{DocumentKey, Pair, SharedEvent, Side};
use crate::error::Result;
use crate::fault::Fault;

/// What one document's two histories have in common, as far as it is not settled.
#[derive(Debug, Default)]
pub(super) struct KeyState {
    /// Local writes observed on a cluster and not yet applied on the other one.
    /// Those behind the queues are not among them: a spool keeps them.
    pub pending: Pair<VecDeque<SharedEvent>>,
    /// The time of tandem's last commit on a cluster, while an older write is still pending there.
    pub last_applied: Pair<Option<Timestamp>>,
    /// On Y: the time through which Y's document already holds X's history.
    pub included: Pair<Option<Timestamp>>,
    /// On X: the pipeline from X must send full state next.
    pub owed: Pair<Option<Arc<str>>>,
    /// On X: X's losing writes that X's own document still holds.
    pub lost: Pair<Vec<LostWrite>>,
    /// On X: the last event from X could not be applied.
    pub dead: Pair<bool>,
}

impl KeyState {
    /// Writes of `side` up to here are beaten, or already on the other cluster.
    pub fn settled_through(&self, side: Side) -> Option<Timestamp> {
        let included = self.included[side.other()].filter(|_| !Fault::NoIncluded.is_on());
        self.last_applied[side].max(included)
    }

    /// `known_through` tells of a side whose history is still being recovered how far it is known:
    /// an `included` that lies behind that concerns writes that are still to come. `spooled` are the
    /// times of the first pending writes that memory does not hold.
    pub fn drop_what_is_settled(
        &mut self,
        known_through: Pair<Option<Timestamp>>,
        spooled: Pair<Option<Timestamp>>,
    ) {
        for side in Side::BOTH {
            let first = self.pending[side].front().map(|event| event.position.time);
            let first = first.or(spooled[side]);
            if first.is_none() || first > self.last_applied[side] {
                self.last_applied[side] = None;
            }
            let included = self.included[side.other()];
            let is_known = known_through[side].is_none_or(|known| included <= Some(known));
            if is_known && (first.is_none() || first > included) {
                self.included[side.other()] = None;
            }
        }
    }

    /// Drops pending writes of `side` that nothing but a win over them can settle.
    pub fn drop_beaten(&mut self, side: Side) {
        let past = self.last_applied[side];
        while let Some(event) = self.pending[side].front()
            && Some(event.position.time) <= past
        {
            self.pending[side].pop_front();
        }
    }

    pub fn is_settled(&self) -> bool {
        Side::BOTH.iter().all(|side| {
            self.pending[*side].is_empty()
                && self.last_applied[*side].is_none()
                && self.included[*side].is_none()
                && self.owed[*side].is_none()
                && self.lost[*side].is_empty()
                && !self.dead[*side]
        })
    }

    /// tandem committed on `side` at `at`. Older writes pending there have lost; the records of
    /// older losing writes stand for good.
    pub fn applied_on(&mut self, side: Side, at: Timestamp) {
        self.last_applied[side] = self.last_applied[side].max(Some(at));
        self.lost[side].retain(|write| write.at > at);
    }
}

/// Everything that is known of one document: its entry in the ledger, and the writes to it that
/// wait behind the queues.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub key: &'a DocumentKey,
    pub state: &'a KeyState,
    pub tails: Pair<&'a Tail>,
}

impl Known<'_> {
    /// Whether a write of `side` may be pending that is neither beaten nor already on the other
    /// cluster. Where this says no there is none.
    pub fn may_be_live(&self, side: Side) -> bool {
        let past = self.state.settled_through(side);
        let last = self.state.pending[side].back();
        let last = last.map(|event| event.position.time);
        last.max(self.tails[side].last_time(self.key)) > past
    }

    /// These writes themselves.
    ///
    /// # Errors
    /// As the spool says.
    pub fn live(&self, side: Side) -> Result<Vec<SharedEvent>> {
        let past = self.state.settled_through(side);
        let pending = self.state.pending[side].iter();
        let live = pending.filter(|event| Some(event.position.time) > past);
        let mut live: Vec<SharedEvent> = live.cloned().collect();
        live.extend(self.tails[side].later_than(past, self.key)?);
        Ok(live)
    }

    /// When the first pending write of `side` behind so many others was made.
    pub fn pending_since(&self, side: Side, behind: usize) -> Option<Timestamp> {
        let pending = self.state.pending[side].get(behind);
        let pending = pending.map(|event| event.position.time);
        pending.or_else(|| self.tails[side].first_time(self.key))
    }
}
