//! Whether a reader may go on, and what it has yet to read.

use std::time::Duration;

use bson::Timestamp;

use super::exchange::{Exchange, lock};
use crate::change::{Pair, Side};
use crate::source::Behind;

/// A reader without room looks again after this time, even if no bell has rung.
const ROOM_INTERVAL: Duration = Duration::from_millis(20);

impl Exchange {
    /// No lane makes room any more: from here on no reader waits for it, since batches under way
    /// still have to come back.
    pub fn stop_waiting_for_room(&self) {
        let latest = Timestamp {
            time: u32::MAX,
            increment: u32::MAX,
        };
        *lock(&self.needed) = Pair::new(latest, latest);
        for side in Side::BOTH {
            self.room[side].notify_one();
        }
    }

    /// Returns once the reader of `side` may go on.
    pub async fn wait_for_room(&self, side: Side) {
        while !self.has_room(side) {
            let bell = self.room[side].notified();
            let _ = tokio::time::timeout(ROOM_INTERVAL, bell).await;
        }
    }

    pub fn set_behind(&self, side: Side, behind: Behind) {
        *lock(&self.behind[side]) = behind;
    }

    /// Whether what is about to come is late in any case.
    pub fn is_late(&self, side: Side) -> bool {
        *lock(&self.behind[side]) == Behind::Late
    }

    /// Whether more events of `side` are about to come into the queues.
    pub fn fills_up(&self, side: Side) -> bool {
        let is_behind = *lock(&self.behind[side]) != Behind::Nothing;
        is_behind && self.has_room(side) && self.ledger().spooled(side) == 0
    }

    pub(super) fn has_room(&self, side: Side) -> bool {
        let needed = lock(&self.needed)[side];
        let ledger = self.ledger();
        needed > ledger.complete_of(side).time || ledger.has_room(side)
    }
}
