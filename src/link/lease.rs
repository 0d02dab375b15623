//! Who may write: the lease in the link's document, and the epoch in its checkpoints.
//!
//! The lease tells other processes to keep away, judged by the cluster's own clock. What really
//! fences is the epoch: every batch moves a checkpoint that must still carry it.

use std::time::Duration;

use bson::{Document, Uuid, doc};
use tokio_util::sync::CancellationToken;

use super::own::Own;
use crate::change::{Pair, Side};
use crate::error::{Error, Result};

/// So often a dead process's commands may come in between.
const TAKES_MAX: usize = 3;

/// The lease of one process.
#[derive(Debug, Clone)]
pub struct Lease {
    own: Pair<Own>,
    link: String,
    /// The holder's local store: whoever holds its lock knows that a former holder is dead.
    store_id: String,
    /// This process.
    run_id: String,
    duration: Duration,
}

impl Lease {
    pub fn new(own: Pair<Own>, link: &str, store_id: &str, duration: Duration) -> Self {
        Self {
            own,
            link: link.to_owned(),
            store_id: store_id.to_owned(),
            run_id: Uuid::new().to_string(),
            duration,
        }
    }

    /// Takes the lease on both clusters, a first.
    ///
    /// # Errors
    /// Fenced (8) where another process holds it.
    pub async fn take(&self) -> Result<()> {
        for side in Side::BOTH {
            self.take_on(side).await?;
        }
        Ok(())
    }

    /// From the dead process that is seen to hold it: what that one has sent to take it, and what
    /// arrives after this, must not take it back.
    async fn take_on(&self, side: Side) -> Result<()> {
        for _ in 0..TAKES_MAX {
            let dead = self.dead_holder(side).await?;
            let free = doc! { "$or": [
                { "holder": { "$exists": false } },
                { "holder.store_id": &self.store_id, "holder.run_id": &dead },
                { "$expr": { "$lt": ["$lease_until", "$$NOW"] } },
            ] };
            if self.write(side, free).await? {
                return Ok(());
            }
            if dead.is_none() {
                break;
            }
        }
        Err(self.held_by_another(side).await)
    }

    /// A holder that had this process's store.
    async fn dead_holder(&self, side: Side) -> Result<Option<String>> {
        let query = doc! { "_id": &self.link, "holder.store_id": &self.store_id };
        let found = self.own[side].find("links", query).await?;
        let holder = found
            .first()
            .and_then(|link| link.get_document("holder").ok());
        let run_id = holder.and_then(|holder| holder.get_str("run_id").ok());
        Ok(run_id.map(str::to_owned))
    }

    /// Renews it.
    ///
    /// # Errors
    /// Fenced (8) where another process has taken it.
    pub async fn must_be_held(&self) -> Result<()> {
        for side in Side::BOTH {
            if !self.renew(side).await? {
                return Err(self.held_by_another(side).await);
            }
        }
        Ok(())
    }

    async fn renew(&self, side: Side) -> Result<bool> {
        self.write(side, doc! { "holder.run_id": &self.run_id })
            .await
    }

    /// Changes the link's document on `side` for as long as no other process has taken the lease.
    ///
    /// # Errors
    /// Fenced (8) where one has.
    pub async fn change_link(&self, side: Side, change: Document) -> Result<()> {
        let query = doc! { "_id": &self.link, "holder.run_id": &self.run_id };
        let statement = doc! { "q": query, "u": change };
        match self.own[side].update("links", vec![statement]).await? {
            0 => Err(self.held_by_another(side).await),
            _ => Ok(()),
        }
    }

    /// Renews until cancelled, each side by itself: one that does not answer costs the other one
    /// nothing. An unreachable cluster is no loss of the lease: the epoch fences.
    ///
    /// # Errors
    /// Fenced (8) once another process has taken it.
    pub async fn keep(&self, stop: CancellationToken) -> Result<()> {
        let (a, b) = (self.keep_on(Side::A, &stop), self.keep_on(Side::B, &stop));
        tokio::try_join!(a, b).map(|_| ())
    }

    async fn keep_on(&self, side: Side, stop: &CancellationToken) -> Result<()> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.duration / 3) => {}
            }
            match self.renew(side).await {
                Ok(true) => {}
                Ok(false) => return Err(self.held_by_another(side).await),
                Err(error) => tracing::warn!(%error, "cannot renew the lease, trying again"),
            }
        }
    }

    /// Gives it back, so that the next process need not wait.
    pub async fn give_back(&self) {
        for side in Side::BOTH {
            let statement = doc! {
                "q": { "_id": &self.link, "holder.run_id": &self.run_id },
                "u": { "$unset": { "holder": "", "lease_until": "" } },
            };
            if let Err(error) = self.own[side].update("links", vec![statement]).await {
                tracing::debug!(%error, "cannot give the lease back");
            }
        }
    }

    async fn write(&self, side: Side, condition: Document) -> Result<bool> {
        let mut query = doc! { "_id": &self.link };
        query.extend(condition);
        let until = doc! { "$add": ["$$NOW", self.duration.as_millis() as i64] };
        let holder = doc! {
            "store_id": { "$literal": &self.store_id },
            "run_id": { "$literal": &self.run_id },
            "pid": std::process::id() as i64,
        };
        let statement = doc! {
            "q": query,
            "u": [{ "$set": { "lease_until": until, "holder": holder } }],
        };
        Ok(self.own[side].update("links", vec![statement]).await? == 1)
    }

    async fn held_by_another(&self, side: Side) -> Error {
        let found = self.own[side]
            .find("links", doc! { "_id": &self.link })
            .await;
        let pid = found
            .ok()
            .and_then(|found| {
                found
                    .first()?
                    .get_document("holder")
                    .ok()?
                    .get_i64("pid")
                    .ok()
            })
            .map_or(String::new(), |pid| format!(" (pid {pid} on its host)"));
        let name = &self.own[side].cluster.name;
        Error::fenced(format!(
            "another process{pid} holds link {} on {name}",
            self.link
        ))
        .hint("stop it, or wait until its lease runs out")
    }
}
