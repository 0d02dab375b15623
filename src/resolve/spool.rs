//! Events that memory has no room for: kept by somebody else, and known here by key and time.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bson::Timestamp;

use super::Ledger;
use super::recovery::Room;
use crate::change::{ChangeEvent, DocumentKey, Pair, SharedEvent, Side};
use crate::error::Result;

/// Keeps the events of one cluster that wait behind its queues, in the order of its history.
pub trait Spool: Debug + Send {
    /// Keeps an event behind all others. Returns where it is; a later one is further on.
    ///
    /// # Errors
    /// Where it cannot be kept. The link must end then, since the history has a hole.
    fn append(&mut self, event: &ChangeEvent) -> Result<u64>;

    /// The event at a place, and the place of the next one.
    ///
    /// # Errors
    /// Where it is not to be had.
    fn read(&self, place: u64) -> Result<(SharedEvent, u64)>;

    /// Nothing from before `place` is asked for any more.
    fn release(&mut self, place: u64);
}

/// The events of one cluster that a spool keeps: all of them come after those in the queues.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// None: everything is held in memory.
    spool: Option<Box<dyn Spool>>,
    /// By the hash of the document's key and the place: when it was written. All that memory
    /// holds of an event.
    times: BTreeMap<(u64, u64), Timestamp>,
    /// The first one, with its place.
    front: Option<(u64, SharedEvent)>,
}

impl Tail {
    pub fn kept_by(spool: Box<dyn Spool>) -> Self {
        Self {
            spool: Some(spool),
            ..Self::default()
        }
    }

    /// Whether events can be kept here at all.
    pub fn has_spool(&self) -> bool {
        self.spool.is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.front.is_none()
    }

    pub fn len(&self) -> usize {
        self.times.len()
    }

    pub fn front(&self) -> Option<&SharedEvent> {
        self.front.as_ref().map(|(_, event)| event)
    }

    pub fn push(&mut self, event: &SharedEvent) -> Result<()> {
        let spool = self.spool.as_mut().expect("asked for with has_spool");
        let place = spool.append(event)?;
        let hash = event.key.stable_hash();
        self.times.insert((hash, place), event.position.time);
        if self.front.is_none() {
            self.front = Some((place, event.clone()));
        }
        Ok(())
    }

    pub fn pop(&mut self) -> Result<Option<SharedEvent>> {
        let (Some((place, event)), Some(spool)) = (self.front.take(), &mut self.spool) else {
            return Ok(None);
        };
        let (_, next) = spool.read(place)?;
        self.times.remove(&(event.key.stable_hash(), place));
        spool.release(next);
        if !self.times.is_empty() {
            self.front = Some((next, spool.read(next)?.0));
        }
        Ok(Some(event))
    }

    /// When the writes to a document were made, in order. Another document's may be among them, if
    /// both have one hash.
    fn times_of(&self, key: &DocumentKey) -> impl DoubleEndedIterator<Item = (u64, Timestamp)> {
        let hash = key.stable_hash();
        let found = self.times.range((hash, 0)..=(hash, u64::MAX));
        found.map(|((_, place), time)| (*place, *time))
    }

    /// When the first write to a document was made, at the latest.
    pub fn first_time(&self, key: &DocumentKey) -> Option<Timestamp> {
        self.times_of(key).next().map(|(_, time)| time)
    }

    /// When the last write to a document was made, at the earliest.
    pub fn last_time(&self, key: &DocumentKey) -> Option<Timestamp> {
        self.times_of(key).next_back().map(|(_, time)| time)
    }

    /// The writes to a document that were made after `past`.
    pub fn later_than(
        &self,
        past: Option<Timestamp>,
        key: &DocumentKey,
    ) -> Result<Vec<SharedEvent>> {
        let Some(spool) = &self.spool else {
            return Ok(Vec::new());
        };
        let mut events = Vec::new();
        for (place, _) in self.times_of(key).filter(|(_, time)| Some(*time) > past) {
            let (event, _) = spool.read(place)?;
            if event.key == *key {
                events.push(event);
            }
        }
        Ok(events)
    }
}

impl Ledger {
    /// Bounds what is held in memory. What comes beyond it is kept by the spools.
    pub fn bound(&mut self, room: Room, spools: Pair<Box<dyn Spool>>) {
        self.room = room;
        self.clusters.a.tail = Tail::kept_by(spools.a);
        self.clusters.b.tail = Tail::kept_by(spools.b);
    }

    /// Events of `side` that wait behind its queues.
    pub fn spooled(&self, side: Side) -> usize {
        self.clusters[side].tail.len()
    }

    pub(super) fn is_queue_full(&self, side: Side) -> bool {
        let waits_behind = !self.clusters[side].tail.is_empty();
        waits_behind || self.queue_bytes(side) >= self.room.queue_bytes_max
    }

    /// Whether the next event of `side` has to wait behind the queues. In one-way mode b's writes
    /// stay in memory anyhow.
    pub(super) fn must_spool(&self, side: Side) -> bool {
        let may = self.clusters[side].tail.has_spool() && !self.keeps_pending(side);
        may && self.is_queue_full(side)
    }

    pub(super) fn is_spooled(&self, key: &DocumentKey) -> bool {
        let mut sides = Side::BOTH.iter();
        sides.any(|side| self.clusters[*side].tail.first_time(key).is_some())
    }

    /// Whether the event is beaten is known now, and may no longer be when it gets into a queue.
    pub(super) fn spool(&mut self, side: Side, event: &SharedEvent) -> Result<()> {
        let foreseen = self.foreseen(side, &event.key);
        if foreseen >= Some(event.position.time) {
            let state = self.keys.entry(event.key.clone()).or_default();
            state.last_applied[side] = state.last_applied[side].max(foreseen);
        }
        self.clusters[side].tail.push(event)
    }

    /// Moves events into the queues, as far as there is room. Returns the lanes that got some.
    pub(super) fn refill(&mut self, side: Side) -> Result<Vec<usize>> {
        let mut lanes = Vec::new();
        while self.queue_bytes(side) < self.room.queue_bytes_max
            && let Some(event) = self.clusters[side].tail.pop()?
        {
            let lane = self.lane_of(side, &event.key);
            self.enqueue(side, lane, event);
            if !lanes.contains(&lane) {
                lanes.push(lane);
            }
        }
        Ok(lanes)
    }
}
