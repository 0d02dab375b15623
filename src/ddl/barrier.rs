//! Waiting: for what the target has done meanwhile, and for both pipelines to stand still.

use std::time::Duration;

use super::worker::Worker;
use crate::change::{Namespace, Side};
use crate::error::Result;

const LANES_INTERVAL: Duration = Duration::from_millis(5);

impl Worker {
    /// Returns once the reader of `side` has passed everything that has happened there until now,
    /// so that what races with a turn is known to it.
    pub(super) async fn see(&self, side: Side) -> Result<()> {
        let now = self.own[side].operation_time().await?;
        self.shared.exchange.wait_passed(side, now).await;
        Ok(())
    }

    /// A unique index binds the documents of a collection together: from now on they share a lane.
    ///
    /// Both pipelines stop where they are and put that on record first, since a restart counts
    /// every event from the checkpoint of its lane. Neither waits for a turn of the other one: each
    /// stops at the gate that it comes to first.
    pub(super) async fn keep_in_one_lane(&self, collection: &Namespace) -> Result<()> {
        let collections = &self.shared.collections;
        if collections.is_in_one_lane(collection) {
            return Ok(());
        }
        let exchange = &self.shared.exchange;
        let sides = self.ddl.sources();
        let closed: Vec<Side> = {
            let mut ledger = exchange.ledger();
            let sides = sides.iter().copied();
            sides.filter(|side| ledger.settle_at_gate(*side)).collect()
        };
        exchange.wake_all();
        while !sides.iter().all(|side| exchange.ledger().is_settled(*side)) {
            tokio::time::sleep(LANES_INTERVAL).await;
        }
        let kept = self
            .insist(Side::A, || collections.set_one_lane(collection, true))
            .await;
        {
            let mut ledger = exchange.ledger();
            if kept.is_ok() {
                ledger.gather_in_one_lane(collection);
            }
            for side in sides {
                ledger.end_settling(*side);
            }
            for side in closed {
                ledger.open_gate(side);
            }
        }
        exchange.wake_all();
        kept
    }
}
