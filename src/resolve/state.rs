//! What is known about one document with writes under way.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

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
    pub pending: Pair<Pending>,
    /// The time of tandem's last commit on a cluster, while an older write is still pending there.
    pub last_applied: Pair<Option<Timestamp>>,
    /// There for few documents.
    noted: Option<Box<Noted>>,
}

/// What transactions under way and those to come have to know of a document, mostly from notes.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// On Y: the time through which Y's document already holds X's history.
    pub included: Pair<Option<Timestamp>>,
    /// On X: the pipeline from X must send full state next.
    pub owed: Pair<Option<Arc<str>>>,
    /// On X: X's losing writes that X's own document still holds.
    pub lost: Pair<Vec<LostWrite>>,
    /// On X: the last event from X could not be applied.
    pub dead: Pair<bool>,
}

impl Noted {
    fn is_nothing(&self) -> bool {
        Side::BOTH.iter().all(|side| {
            self.included[*side].is_none()
                && self.owed[*side].is_none()
                && self.lost[*side].is_empty()
                && !self.dead[*side]
        })
    }
}

/// Events in the order of their history, mostly one.
#[derive(Debug, Default)]
pub(super) struct Pending {
    first: Option<SharedEvent>,
    others: VecDeque<SharedEvent>,
}

impl Pending {
    pub fn push_back(&mut self, event: SharedEvent) {
        match self.first {
            None => self.first = Some(event),
            Some(_) => self.others.push_back(event),
        }
    }

    pub fn pop_front(&mut self) {
        self.first = self.others.pop_front();
    }

    pub fn front(&self) -> Option<&SharedEvent> {
        self.first.as_ref()
    }

    pub fn back(&self) -> Option<&SharedEvent> {
        self.others.back().or(self.first.as_ref())
    }

    pub fn iter(&self) -> impl Iterator<Item = &SharedEvent> {
        self.first.iter().chain(&self.others)
    }

    pub fn get(&self, index: usize) -> Option<&SharedEvent> {
        match index.checked_sub(1) {
            None => self.first.as_ref(),
            Some(index) => self.others.get(index),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

impl KeyState {
    pub fn noted(&self) -> &Noted {
        static NOTHING: LazyLock<Noted> = LazyLock::new(Noted::default);
        self.noted.as_deref().unwrap_or(&NOTHING)
    }

    pub fn noted_mut(&mut self) -> &mut Noted {
        self.noted.get_or_insert_default()
    }

    /// Where anything is noted at all.
    pub fn if_noted(&mut self) -> Option<&mut Noted> {
        self.noted.as_deref_mut()
    }

    /// The first losing write of `side` that its own document still holds.
    pub fn lost_since(&self, side: Side) -> Option<Timestamp> {
        self.noted().lost[side].iter().map(|write| write.at).min()
    }

    /// Writes of `side` up to here are beaten, or already on the other cluster.
    pub fn settled_through(&self, side: Side) -> Option<Timestamp> {
        let included = self.noted().included[side.other()].filter(|_| !Fault::NoIncluded.is_on());
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
            let Some(noted) = self.noted.as_deref_mut() else {
                continue;
            };
            let included = noted.included[side.other()];
            let is_known = known_through[side].is_none_or(|known| included <= Some(known));
            if is_known && (first.is_none() || first > included) {
                noted.included[side.other()] = None;
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
        let is_noted = self.noted.as_ref().is_some_and(|noted| !noted.is_nothing());
        let is_open =
            |side: &Side| !self.pending[*side].is_empty() || self.last_applied[*side].is_some();
        !is_noted && !Side::BOTH.iter().any(is_open)
    }

    /// tandem committed on `side` at `at`. Older writes pending there have lost; the records of
    /// older losing writes stand for good.
    pub fn applied_on(&mut self, side: Side, at: Timestamp) {
        self.last_applied[side] = self.last_applied[side].max(Some(at));
        if let Some(noted) = self.if_noted() {
            noted.lost[side].retain(|write| write.at > at);
        }
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
