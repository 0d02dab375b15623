//! The running link as the control socket sees it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::control::{Handler, Reply, ReplyFuture, Request, Response};
use super::dead_letters::{DeadLetter, discard, told_discarded, told_retried};
use super::merge::{self, Desk, Repair, RepairKey, Repairs};
use super::monitor::Monitor;
use super::own::Own;
use super::record_status::{Place, mark_restored};
use super::retention::{Round, remove_before};
use super::steering::Steering;
use crate::change::{Pair, Side};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::pipeline::Shared;

/// Answers for a link that runs.
pub struct LinkHandler {
    shared: Arc<Shared>,
    monitor: Monitor,
    clusters: Pair<Cluster>,
    desk: Desk,
    steering: Steering,
    /// Cancelled where a cutover has decided something.
    turned: CancellationToken,
}

impl LinkHandler {
    pub fn new(
        shared: Arc<Shared>,
        monitor: Monitor,
        clusters: Pair<Cluster>,
        desk: Desk,
        steering: Steering,
        turned: CancellationToken,
    ) -> Self {
        Self {
            shared,
            monitor,
            clusters,
            desk,
            steering,
            turned,
        }
    }

    async fn answer(&self, request: Request) -> Result<Reply> {
        match request {
            Request::Status => {
                let status = Box::new(self.monitor.now());
                Ok(Reply::Line(Response::Status { status }))
            }
            Request::Runs => {
                let runs = self.shared.store.runs()?;
                Ok(Reply::Line(Response::Runs { runs }))
            }
            Request::Records { filter, page } => Ok(Reply::Records {
                link: self.shared.facts.link.clone(),
                complete_since: self.shared.store.complete_since()?,
                records: self.shared.store.page(&filter, page),
            }),
            Request::Pause {
                pipeline,
                wanted,
                by,
            } => Ok(done(
                self.steering.pausing.change(pipeline, wanted, &by).await?,
            )),
            Request::Reload => self.steering.reloading.reload().map(done),
            Request::Resync { job } => {
                self.steering
                    .pausing
                    .must_go_on("a resync needs both directions")?;
                self.desk.accept(job)?;
                Ok(done("the resync has begun".to_owned()))
            }
            Request::SyncProgress => {
                let current = self.desk.current();
                let numbers = current.map(|progress| serde_json::to_value(progress.now()));
                let numbers = numbers.and_then(|numbers| numbers.ok());
                let numbers = numbers.unwrap_or_default();
                Ok(Reply::Line(Response::SyncProgress { numbers }))
            }
            Request::Repair { keys, from } => self.repair(keys, from).await,
            Request::DeadLetterRetry { id } => self.retry(&id).map(done),
            Request::DeadLetterDiscard { id } => self.discard(&id).await.map(done),
            Request::PutRun { run } => {
                self.shared.store.put_run(&run)?;
                Ok(done("it is on record".to_owned()))
            }
            Request::Turn => {
                self.turned.cancel();
                Ok(done("the link begins again".to_owned()))
            }
            Request::Prune { before } => {
                let own = self.clusters.as_ref();
                let own = own.map(|cluster| Own::new(cluster, &self.shared.database));
                let round = remove_before(&self.shared.store, &own, before).await?;
                tracing::info!(
                    records = round.removed,
                    "conflict records removed when asked"
                );
                let Round { removed, more } = round;
                Ok(Reply::Line(Response::Pruned { removed, more }))
            }
            Request::ConflictRestored { id, by } => {
                mark_restored(&self.shared.store, &self.place(), &id, &by).await?;
                Ok(done(format!("record {id} is marked as restored")))
            }
        }
    }

    async fn repair(&self, keys: Vec<RepairKey>, from: Option<Side>) -> Result<Reply> {
        self.steering
            .pausing
            .must_go_on("a repair needs both directions")?;
        let repair = Repair {
            shared: &self.shared,
            clusters: &self.clusters,
        };
        let repairs = Repairs {
            keys,
            from,
            ..Repairs::default()
        };
        let tally = merge::answer(&repair, &repairs).await?;
        Ok(Reply::Line(Response::Repaired { tally }))
    }

    fn retry(&self, id: &str) -> Result<String> {
        let letter = DeadLetter::find(&self.shared.store, id)?;
        let exchange = &self.shared.exchange;
        {
            let mut ledger = exchange.ledger();
            let namespace = letter.key.namespace();
            if ledger.is_unpaired(namespace) {
                return Err(Error::usage(format!(
                    "{namespace} is not replicated any more, so {id} cannot be tried again"
                ))
                .hint("`tandem status` names such namespaces"));
            }
            ledger.request_full_state(letter.pipeline, letter.key.clone());
        }
        exchange.wake_all();
        Ok(told_retried(&letter))
    }

    async fn discard(&self, id: &str) -> Result<String> {
        let discarded = discard(&self.shared.store, &self.place(), id).await?;
        if discarded.unmarked {
            let letter = &discarded.letter;
            let mut ledger = self.shared.exchange.ledger();
            ledger.forget_dead_letter(letter.pipeline, &letter.key);
        }
        Ok(told_discarded(id))
    }

    fn place(&self) -> Place<'_> {
        Place {
            clusters: &self.clusters,
            database: &self.shared.database,
            link: &self.shared.facts.link,
        }
    }
}

fn done(message: String) -> Reply {
    Reply::Line(Response::Done { message })
}

impl Handler for LinkHandler {
    fn handle(&self, request: Request) -> ReplyFuture<'_> {
        Box::pin(self.answer(request))
    }
}
