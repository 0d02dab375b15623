//! Waiting: for what the target has done meanwhile, and for both pipelines to stand still.

use std::convert::Infallible;
use std::time::Duration;

use bson::{Document, Timestamp, doc};

use super::worker::Worker;
use crate::change::{Namespace, Pair, Side};
use crate::error::{Error, Result};

const ERROR_INTERVAL: Duration = Duration::from_secs(1);

const LANES_INTERVAL: Duration = Duration::from_millis(5);

impl Worker {
    /// Returns once the reader of `side` has passed everything that has happened there until now,
    /// so that what races with a turn is known to it. No room is made before the turn is over, so
    /// the reader does not wait for any.
    pub(super) async fn see(&self, side: Side) -> Result<()> {
        let now = self.own[side].operation_time().await?;
        self.shared.exchange.let_come_up(side, now).await;
        Ok(())
    }

    /// Nothing is changed on `side` while the pipeline into it is paused, though a turn of the other
    /// one has found that its own side loses. It is taken again until the pipeline is resumed.
    pub(super) fn must_go_on(&self, side: Side) -> Result<()> {
        let pipeline = super::pipeline_of(side.other());
        match self.shared.exchange.ledger().is_paused(pipeline) {
            true => Err(Error::unreachable(format!(
                "{} is paused",
                pipeline.as_str()
            ))),
            false => Ok(()),
        }
    }

    /// Lets both readers go on for as long as this is polled: they have to see the commits that
    /// lanes make meanwhile, and the lanes that stand at a gate make no room for them.
    async fn keep_readers_going(&self) -> Infallible {
        loop {
            for side in Side::BOTH {
                let seen = self.insist(side, || self.see(side)).await;
                if let Err(error) = seen {
                    tracing::warn!(%error, "cannot ask a cluster for its time");
                    tokio::time::sleep(ERROR_INTERVAL).await;
                }
            }
            tokio::time::sleep(LANES_INTERVAL).await;
        }
    }

    /// The operation times of both clusters.
    pub(super) async fn now(&self) -> Result<Pair<Timestamp>> {
        Ok(Pair::new(
            self.own.a.operation_time().await?,
            self.own.b.operation_time().await?,
        ))
    }

    /// Another process may have taken over the link. Between this look and a command it still may:
    /// no command on a collection's definition can be fenced.
    pub(super) async fn must_hold(&self, side: Side) -> Result<()> {
        let link = &self.shared.facts.link;
        let pipeline = super::pipeline_of(side.other()).as_str();
        let filter = doc! { "link": link, "pipeline": pipeline };
        let checkpoints = self.own[side].find("checkpoints", filter).await?;
        let epoch = |found: &Document| found.get_i64("epoch").ok() == Some(self.epoch);
        match checkpoints.iter().all(epoch) {
            true => Ok(()),
            false => Err(Error::fenced(format!(
                "another process has taken over link {link}"
            ))),
        }
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
        let kept = tokio::select! {
            kept = self.gather(collection, sides) => kept,
            never = self.keep_readers_going() => match never {},
        };
        {
            let mut ledger = exchange.ledger();
            for side in sides {
                ledger.end_settling(*side);
            }
            for side in closed {
                ledger.open_own_gate(side);
            }
        }
        exchange.wake_all();
        kept
    }

    /// Copies and settlements go on until this has its moment, also while it is put on record.
    async fn gather(&self, collection: &Namespace, sides: &[Side]) -> Result<()> {
        let exchange = &self.shared.exchange;
        while !sides.iter().all(|side| exchange.ledger().is_settled(*side)) {
            exchange.ledger().must_not_stand_amid_a_stretch(sides)?;
            tokio::time::sleep(LANES_INTERVAL).await;
        }
        let collections = &self.shared.collections;
        self.insist(Side::A, || {
            collections.set_one_lane(vec![(collection.clone(), true)])
        })
        .await?;
        while !exchange.ledger().gather_in_one_lane(collection) {
            tokio::time::sleep(LANES_INTERVAL).await;
        }
        Ok(())
    }
}
