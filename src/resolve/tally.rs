//! What requests to settle documents have in common, and what they have come to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::change::{DocumentKey, Pair, Side};

/// What was done with documents that were to be settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Copied to a side that had none.
    pub copied: Pair<u64>,
    /// Replaced on a side; what was there is on record.
    pub replaced: Pair<u64>,
    /// Removed from a side; what was there is on record.
    pub removed: Pair<u64>,
    /// The same after all, or on their way.
    pub same: u64,
    /// On the target alone, and left there in one-way mode.
    pub left_alone: u64,
    /// The target would not take them: dead letters.
    pub impossible: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        for side in Side::BOTH {
            self.copied[side] += other.copied[side];
            self.replaced[side] += other.replaced[side];
            self.removed[side] += other.removed[side];
        }
        self.same += other.same;
        self.left_alone += other.left_alone;
        self.impossible += other.impossible;
    }

    /// Documents that lost.
    pub fn on_record(&self) -> u64 {
        self.replaced.a + self.replaced.b + self.removed.a + self.removed.b
    }
}

/// What requests have in common. They are done once nobody else holds it.
#[derive(Debug)]
pub struct Settlement {
    /// The side whose documents stay whatever the rules say.
    from: Option<Side>,
    tally: Arc<Mutex<Tally>>,
}

impl Settlement {
    pub fn new(from: Option<Side>, tally: Arc<Mutex<Tally>>) -> Self {
        Self { from, tally }
    }

    pub(super) fn from(&self) -> Option<Side> {
        self.from
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A document that a lane is asked to settle.
#[derive(Debug, Clone)]
pub struct SettleRequest {
    pub key: DocumentKey,
    /// About as large as the document.
    pub bytes: usize,
    pub settlement: Arc<Settlement>,
    /// The other pipeline has seen that its source's newer writes were made on another document.
    pub(super) against_writes: bool,
}

impl SettleRequest {
    pub fn new(key: DocumentKey, bytes: usize, settlement: Arc<Settlement>) -> Self {
        Self {
            key,
            bytes,
            settlement,
            against_writes: false,
        }
    }
}
