//! One-way mode: local writes on the target are never sent, but the source must know of them to win
//! over them loudly.
//!
//! The target's reader keeps its checkpoint on the target. Writes that the source has not touched yet
//! are noted there in the same transaction, so that they outlive this process and the oplog.

use std::sync::Arc;
use std::time::Duration;

use bson::Timestamp;
use tokio_util::sync::CancellationToken;

use super::retry::Pause;
use super::shared::Shared;
use super::together::Along;
use crate::change::{AppliedThrough, PipelineId};
use crate::error::{Error, Result};
use crate::resolve::{BatchLimits, Caution, Next, Plan};
use crate::store::StoredCheckpoint;
use crate::target::{
    Batch, Checkpoint, CheckpointMove, Note, Refusal, Settled, Snapshot, TagSession, Transaction,
    WriteSet, settle,
};

/// How often new writes are noted.
const INTERVAL: Duration = Duration::from_millis(500);

/// How often the checkpoint moves while nothing is written.
const IDLE_ROUNDS: u32 = 20;

const LIMITS: BatchLimits = BatchLimits {
    operations_max: 1000,
    bytes_max: 4 * 1024 * 1024,
};

/// Keeps the target's history on record while nothing of it is applied.
pub struct Witness {
    /// Of which nothing is applied.
    pipeline: PipelineId,
    shared: Arc<Shared>,
    session: TagSession,
    checkpoint: Checkpoint,
    /// Of documents of applications, and by two-way runs of before.
    written_until: Timestamp,
}

impl Witness {
    pub fn new(
        pipeline: PipelineId,
        shared: Arc<Shared>,
        session: TagSession,
        checkpoint: Checkpoint,
        written_until: Timestamp,
    ) -> Self {
        Self {
            pipeline,
            shared,
            session,
            checkpoint,
            written_until,
        }
    }

    /// Notes batch after batch until told to stop.
    ///
    /// # Errors
    /// Fenced (8), or what no retry helps against.
    pub async fn run(mut self, stop: CancellationToken) -> Result<()> {
        let mut outages = Pause::of_outages();
        let mut quiet_rounds = 0;
        loop {
            let last = stop.is_cancelled();
            let plan = self.next(last || quiet_rounds >= IDLE_ROUNDS)?;
            match plan {
                None if last => return Ok(()),
                None => {
                    quiet_rounds += 1;
                    let _ = tokio::time::timeout(INTERVAL, stop.cancelled()).await;
                }
                Some(plan) => {
                    quiet_rounds = 0;
                    match self.note(plan).await {
                        Ok(()) => outages.reset(),
                        Err(Refusal::Fenced) => {
                            return Err(Error::fenced("another process has taken over this link"));
                        }
                        Err(Refusal::Failed(error)) if !error.is_retryable() => return Err(error),
                        Err(refusal) => {
                            tracing::debug!(%refusal, "cannot note local writes, trying again");
                            tokio::time::sleep(outages.wait()).await;
                        }
                    }
                    if last {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn next(&self, idle_too: bool) -> Result<Option<Plan>> {
        let exchange = &self.shared.exchange;
        let next = exchange.plan(
            self.pipeline,
            0,
            LIMITS,
            LIMITS.operations_max,
            &Caution::default(),
            Along::nobody(),
        )?;
        Ok(match next {
            Next::Apply(plan) => Some(plan),
            Next::Idle if idle_too => exchange.ledger().plan_idle_progress(self.pipeline, 0),
            Next::Idle | Next::Wait(_) => None,
        })
    }

    async fn note(&mut self, plan: Plan) -> Result<(), Refusal> {
        let live = self.shared.exchange.ledger().still_pending(&plan);
        let note = |event: &crate::change::SharedEvent| {
            let note = Note::Witnessed {
                event: event.clone(),
            };
            (event.key.clone(), note)
        };
        let batch = Batch {
            link: &self.shared.facts.link,
            database: &self.shared.database,
            writes: WriteSet::default(),
            collections: Default::default(),
            records: Vec::new(),
            statuses: Vec::new(),
            notes: live.iter().map(note).collect(),
            checkpoints: vec![CheckpointMove {
                from: &self.checkpoint,
                to: &plan.shares[0].through,
                ahead: plan.shares[0].ahead.as_ref(),
            }],
        };
        let mut transaction = Transaction::begin(&mut self.session, Snapshot::Latest);
        if let Err(refusal) = transaction.write(&batch).await {
            transaction.abort().await;
            return Err(refusal);
        }
        let plan = Arc::new(plan);
        if !self.shared.exchange.begin(plan.clone()) {
            transaction.abort().await;
            return Err(Refusal::Unseen { at: None, code: 0 });
        }
        let at = match transaction.commit().await {
            Ok(at) => at,
            Err(error) => self.settle(&plan, error).await?,
        };
        let exchange = &self.shared.exchange;
        exchange.committed(self.pipeline, 0, at);
        exchange.wait_landed(self.pipeline, 0).await;
        self.checkpoint.sequence += 1;
        let stored = StoredCheckpoint {
            pipeline: self.pipeline,
            lane: 0,
            lanes: 1,
            epoch: self.checkpoint.epoch,
            seq: self.checkpoint.sequence,
            applied: AppliedThrough(plan.shares[0].through.clone()),
            written_until: Some(self.written_until),
        };
        self.shared
            .save_checkpoint(&stored)
            .map_err(Refusal::Failed)
    }

    async fn settle(&mut self, plan: &Plan, mut unclear: Error) -> Result<Timestamp, Refusal> {
        let mut outages = Pause::of_outages();
        loop {
            tracing::debug!(%unclear, "a commit of unknown outcome");
            self.shared.exchange.unclear(self.pipeline, 0, &unclear);
            // It is on the cluster that the plan has read.
            let (database, after) = (&self.shared.database, plan.read_at.time);
            match settle(&mut self.session, database, &self.checkpoint, after).await {
                Ok(Settled::Committed { at, .. }) => return Ok(at),
                Ok(Settled::Fenced) => return Err(Refusal::Fenced),
                Ok(Settled::NotCommitted { .. }) => {
                    self.shared.exchange.abandon(self.pipeline, 0);
                    return Err(Refusal::Unseen { at: None, code: 0 });
                }
                Err(error) if error.is_retryable() => unclear = error,
                Err(error) => return Err(Refusal::Failed(error)),
            }
            tokio::time::sleep(outages.wait()).await;
        }
    }
}
