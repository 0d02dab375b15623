//! Gives each DDL event its turn once everything before it has arrived on the other side.
//!
//! One worker for both pipelines: a turn waits for lanes and readers, never for another turn.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Ddl;
use super::queue::Pending;
use crate::change::{Namespace, Pair, Side};
use crate::cluster::Cluster;
use crate::error::Result;
use crate::link::own::Own;
use crate::pipeline::{Pause, Shared, Waiter};

/// How often the worker looks whether the lanes have come to a gate.
const INTERVAL: Duration = Duration::from_millis(10);

/// Turns after which intents are looked through.
const PRUNE_TURNS: u32 = 64;

/// Whoever brings DDL over.
pub struct Worker {
    pub(super) ddl: Arc<Ddl>,
    pub(super) shared: Arc<Shared>,
    pub(super) own: Pair<Own>,
    /// The epoch of this process.
    pub(super) epoch: i64,
}

impl Worker {
    pub fn new(ddl: Arc<Ddl>, shared: Arc<Shared>, own: Pair<Own>, epoch: i64) -> Self {
        Self {
            ddl,
            shared,
            own,
            epoch,
        }
    }

    pub fn ddl(&self) -> &Ddl {
        &self.ddl
    }

    /// Works until told to stop; a turn that is broken off is taken again after the next start.
    ///
    /// # Errors
    /// What no retry helps against.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = self.work() => ended,
        }
    }

    async fn work(&self) -> Result<()> {
        let mut turns: u32 = 0;
        self.prune().await?;
        loop {
            let Some((side, pending)) = self.next() else {
                self.ddl.queue.wanted(INTERVAL).await;
                continue;
            };
            self.insist(side, || self.turn(side, &pending)).await?;
            for side in Side::BOTH {
                self.insist(side, || self.ddl.intents.say(side)).await?;
            }
            self.shared.counters[side].waits_on(Waiter::Ddl, None);
            self.ddl.queue.pop(side);
            self.shared.exchange.ledger().open_gate(side);
            self.shared.exchange.wake_all();
            turns += 1;
            if turns.is_multiple_of(PRUNE_TURNS) {
                self.prune().await?;
            }
        }
    }

    async fn prune(&self) -> Result<()> {
        let recorded = {
            let ledger = self.shared.exchange.ledger();
            Pair::new(
                ledger.recorded_through(Side::A),
                ledger.recorded_through(Side::B),
            )
        };
        self.insist(Side::A, || self.ddl.intents.prune(&recorded))
            .await?;
        let collections = &self.shared.collections;
        let forget = |namespace: &Namespace| self.shared.exchange.forget(namespace);
        self.insist(Side::A, || collections.forget_dropped(&recorded, forget))
            .await
    }

    /// The first waiting event that everything before it has arrived for, the older one of two.
    fn next(&self) -> Option<(Side, Arc<Pending>)> {
        let ready = |side: &Side| {
            let pending = self.ddl.queue.front(*side)?;
            let drained = self.shared.exchange.ledger().is_drained(*side);
            drained.then_some((*side, pending))
        };
        let ready = Side::BOTH.iter().filter_map(ready);
        ready.min_by_key(|(_, pending)| pending.event.wall_time_ms)
    }

    /// Tries again for as long as it may help.
    pub(super) async fn insist<T, F>(&self, side: Side, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut pause = Pause::of_outages();
        loop {
            match attempt().await {
                Err(error) if error.is_retryable() => {
                    let pipeline = super::pipeline_of(side).as_str();
                    tracing::warn!(pipeline, %error, "cannot bring a change of a collection over, trying again");
                    self.shared.counters[side].waits_on(Waiter::Ddl, Some(&error.to_string()));
                    tokio::time::sleep(pause.wait()).await;
                }
                outcome => return outcome,
            }
        }
    }

    pub(super) fn cluster(&self, side: Side) -> &Cluster {
        &self.own[side].cluster
    }
}
