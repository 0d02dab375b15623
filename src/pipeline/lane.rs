//! One of the parallel appliers of a pipeline: takes batches until it is told to stop.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bson::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Applied;
use super::caution::Trouble;
use super::collections::{Collections, Pairing};
use super::counters::Counters;
use super::exchange::Exchange;
use super::records::LinkFacts;
use super::retry::Pause;
use crate::change::{AppliedThrough, Namespace, Pair, PipelineId, RecordStatus};
use crate::cluster::Cluster;
use crate::config::FenceKind;
use crate::error::{Error, Result};
use crate::resolve::{BatchLimits, Next, Plan, WaitingOn};
use crate::store::{Store, StoredCheckpoint};
use crate::target::{
    Checkpoint, CollectionInfo, Refusal, Settled, Snapshot, TagSession, Transaction, settle,
};

/// What all lanes of a link share.
pub struct Shared {
    pub exchange: Exchange,
    pub collections: Collections,
    pub counters: Pair<Counters>,
    pub store: Store,
    pub facts: LinkFacts,
    /// The database of tandem's own state.
    pub database: String,
    /// How far b's clock is ahead of a's, ms; `i64::MIN` while unknown.
    clock_skew_ms: AtomicI64,
}

/// How a lane works.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    pub fence: FenceKind,
    pub limits: BatchLimits,
    pub lanes: usize,
    /// Longest time a transaction may stay open.
    pub transaction_time_max: Duration,
    /// None: no limit. Per lane.
    pub operations_per_second_max: Option<u64>,
}

pub struct Lane {
    pub(super) pipeline: PipelineId,
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) source: Cluster,
    pub(super) session: TagSession,
    pub(super) checkpoint: Checkpoint,
    pub(super) settings: LaneSettings,
    pub(super) trouble: Trouble,
    refusals: Pause,
    outages: Pause,
    idle_since_checkpoint: Instant,
}

/// An idle lane puts its progress on record this often.
const IDLE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);

/// How long a lane sleeps at most before it looks around.
const LOOK_AROUND_INTERVAL: Duration = Duration::from_millis(200);

const SKEW_UNKNOWN: i64 = i64::MIN;

impl Shared {
    pub fn new(
        exchange: Exchange,
        collections: Collections,
        counters: Pair<Counters>,
        store: Store,
        facts: LinkFacts,
        database: &str,
    ) -> Self {
        Self {
            exchange,
            collections,
            counters,
            store,
            facts,
            database: database.to_owned(),
            clock_skew_ms: AtomicI64::new(SKEW_UNKNOWN),
        }
    }

    pub fn clock_skew_ms(&self) -> Option<i64> {
        let skew = self.clock_skew_ms.load(Ordering::Relaxed);
        (skew != SKEW_UNKNOWN).then_some(skew)
    }

    pub fn set_clock_skew_ms(&self, skew: i64) {
        self.clock_skew_ms.store(skew, Ordering::Relaxed);
    }
}

impl Lane {
    pub fn new(
        pipeline: PipelineId,
        index: usize,
        shared: Arc<Shared>,
        source: Cluster,
        session: TagSession,
        checkpoint: Checkpoint,
        settings: LaneSettings,
    ) -> Self {
        Self {
            trouble: Trouble::none(settings.limits),
            pipeline,
            index,
            shared,
            source,
            session,
            checkpoint,
            settings,
            refusals: Pause::of_refusals(),
            outages: Pause::of_outages(),
            idle_since_checkpoint: Instant::now(),
        }
    }

    /// Applies batch after batch. Ends with its last batch committed and on record.
    ///
    /// # Errors
    /// What no retry helps against; nothing of the batch in question has been applied then.
    pub async fn run(mut self, stop: CancellationToken) -> Result<()> {
        while !stop.is_cancelled() {
            let exchange = &self.shared.exchange;
            let limits = self.trouble.limits();
            match exchange.plan(self.pipeline, self.index, limits, self.trouble.caution()) {
                Next::Apply(plan) => self.step(plan).await?,
                Next::Wait(WaitingOn::Recovery) => self.rest("recovery").await,
                Next::Wait(WaitingOn::CommitEcho) => self.rest("commit echo").await,
                Next::Idle => self.idle().await?,
            }
        }
        self.put_progress_on_record().await
    }

    async fn rest(&self, reason: &str) {
        self.counters().waits_on(Some(reason));
        let exchange = &self.shared.exchange;
        exchange
            .wait_for_work(self.pipeline, self.index, LOOK_AROUND_INTERVAL)
            .await;
    }

    async fn idle(&mut self) -> Result<()> {
        self.counters().waits_on(None);
        if self.idle_since_checkpoint.elapsed() >= IDLE_CHECKPOINT_INTERVAL {
            return self.put_progress_on_record().await;
        }
        let exchange = &self.shared.exchange;
        exchange
            .wait_for_work(self.pipeline, self.index, LOOK_AROUND_INTERVAL)
            .await;
        Ok(())
    }

    async fn put_progress_on_record(&mut self) -> Result<()> {
        self.idle_since_checkpoint = Instant::now();
        let progress = self
            .shared
            .exchange
            .ledger()
            .plan_idle_progress(self.pipeline, self.index);
        match progress {
            Some(plan) => self.step(plan).await,
            None => Ok(()),
        }
    }

    /// Tries one plan; what a refusal teaches goes into the next one.
    async fn step(&mut self, plan: Plan) -> Result<()> {
        let started = Instant::now();
        let plan = match self.settings.fence {
            FenceKind::Snapshot => plan,
            FenceKind::Waiting => match self.plan_behind_open_snapshot(plan).await {
                Ok(Some(plan)) => plan,
                Ok(None) => return Ok(()),
                Err(refusal) => return self.after_refusal(None, refusal).await,
            },
        };
        let tried = plan.clone();
        match self.apply(plan).await {
            Ok(()) => {
                self.refusals.reset();
                self.outages.reset();
                self.counters().waits_on(None);
                self.trouble.passed(&tried);
                self.keep_rate(tried.batch.len(), started).await;
                Ok(())
            }
            Err(refusal) => self.after_refusal(Some(&tried), refusal).await,
        }
    }

    /// Opens the transaction first, waits until the target's reader has passed its snapshot, and
    /// decides then.
    async fn plan_behind_open_snapshot(&mut self, plan: Plan) -> Result<Option<Plan>, Refusal> {
        let mut transaction = Transaction::begin(&mut self.session, Snapshot::Latest);
        let snapshot = transaction.snapshot_time(&self.shared.database).await?;
        let exchange = &self.shared.exchange;
        exchange.wait_passed(self.pipeline.target(), snapshot).await;
        if plan.batch.is_empty() && plan.decisions.is_empty() {
            return Ok(Some(plan));
        }
        let limits = self.trouble.limits();
        match exchange.plan(self.pipeline, self.index, limits, self.trouble.caution()) {
            Next::Apply(plan) => Ok(Some(plan)),
            Next::Wait(_) | Next::Idle => {
                Transaction::resume(&mut self.session).abort().await;
                Ok(None)
            }
        }
    }

    pub(super) async fn pair_collections(
        &self,
        plan: &Plan,
    ) -> Result<HashMap<Namespace, Pair<CollectionInfo>>, Refusal> {
        let mut pairs = HashMap::new();
        let namespaces: HashSet<&Namespace> = plan
            .decisions
            .iter()
            .map(|decision| decision.key.namespace())
            .collect();
        for namespace in namespaces {
            let pairing = self
                .shared
                .collections
                .pair(namespace, self.pipeline.source());
            match pairing.await.map_err(Refusal::Failed)? {
                Pairing::Paired(pair) => {
                    pairs.insert(namespace.clone(), pair);
                }
                Pairing::Unpaired => {
                    self.shared.exchange.ledger().unpair(namespace.clone());
                    return Err(Refusal::Unseen { at: None, code: 0 });
                }
                Pairing::Unclear => {
                    self.shared.exchange.ask_for_marker(self.pipeline.source());
                    return Err(Refusal::Unseen { at: None, code: 0 });
                }
            }
        }
        Ok(pairs)
    }

    /// Overturned records, and dead letters that this plan brings to life.
    pub(super) fn statuses(&self, plan: &Plan) -> Result<Vec<(Arc<str>, &'static str)>, Refusal> {
        let mut statuses = Vec::new();
        for decision in &plan.decisions {
            for id in &decision.overturned {
                statuses.push((id.clone(), RecordStatus::Overturned.as_str()));
            }
            if decision.revives {
                let dead = self.shared.store.dead_letters_of(&decision.key);
                for id in dead.map_err(Refusal::Failed)? {
                    statuses.push((id.into(), RecordStatus::Resolved.as_str()));
                }
            }
        }
        Ok(statuses)
    }

    /// A commit without a clear answer is asked for until there is one.
    pub(super) async fn settle(&mut self, outcome: Result<()>) -> Result<(), Refusal> {
        let Err(mut unclear) = outcome else {
            return Ok(());
        };
        loop {
            self.counters().waits_on(Some(&unclear.to_string()));
            if !self.shared.exchange.is_in_flight(self.pipeline, self.index) {
                return Ok(());
            }
            match settle(&mut self.session, &self.shared.database, &self.checkpoint).await {
                Ok(Settled::Committed) => return Ok(()),
                Ok(Settled::Fenced) => return Err(Refusal::Fenced),
                Ok(Settled::NotCommitted) => {
                    self.shared.exchange.abandon(self.pipeline, self.index);
                    return Err(Refusal::Unseen { at: None, code: 0 });
                }
                Err(error) if error.is_retryable() => unclear = error,
                Err(error) => return Err(Refusal::Failed(error)),
            }
            tokio::time::sleep(self.outages.next()).await;
        }
    }

    pub(super) fn after_commit(&mut self, plan: &Plan, applied: Applied) -> Result<()> {
        self.checkpoint.sequence += 1;
        let shared = &self.shared;
        if !applied.records.raw.is_empty() {
            shared.store.put_records(&applied.records.raw)?;
        }
        for (id, status) in &applied.statuses {
            if let Some(status) = RecordStatus::parse(status) {
                shared.store.set_record_status(id, status)?;
            }
        }
        shared.store.save_checkpoint(&StoredCheckpoint {
            pipeline: self.pipeline,
            lane: self.index,
            lanes: self.settings.lanes,
            epoch: self.checkpoint.epoch,
            seq: self.checkpoint.sequence,
            applied: AppliedThrough(plan.through.clone()),
        })?;
        if plan.batch.is_empty() {
            return Ok(());
        }
        self.idle_since_checkpoint = Instant::now();
        self.counters()
            .applied(plan, applied.records.conflicts, applied.records.identical);
        Ok(())
    }

    async fn after_refusal(&mut self, plan: Option<&Plan>, refusal: Refusal) -> Result<()> {
        tracing::debug!(pipeline = self.pipeline.as_str(), lane = self.index, %refusal, "transaction refused, deciding again");
        match refusal {
            Refusal::Fenced => Err(Error::fenced(format!(
                "another process has taken over link {}",
                self.shared.facts.link
            ))),
            Refusal::Unseen { at, .. } => {
                self.counters().totals().fence_conflicts += 1;
                if let Some(plan) = plan {
                    self.trouble.refused(plan);
                }
                self.counters()
                    .waits_on(Some("a change that is not read yet"));
                tokio::time::sleep(self.refusals.next()).await;
                self.catch_up(at).await;
                Ok(())
            }
            Refusal::FullStateNeeded(keys) => {
                self.trouble.send_full_state(keys);
                Ok(())
            }
            Refusal::IdentityNeeded(key) => {
                self.trouble.send_identity(key);
                Ok(())
            }
            Refusal::Duplicate { at, error } | Refusal::Impossible { at, error } => {
                self.catch_up(at).await;
                self.after_write_error(plan, error).await
            }
            Refusal::Failed(error) if error.is_retryable() => {
                self.counters().waits_on(Some(&error.to_string()));
                tracing::warn!(pipeline = self.pipeline.as_str(), lane = self.index, %error, "cannot apply, trying again");
                tokio::time::sleep(self.outages.next()).await;
                Ok(())
            }
            Refusal::Failed(error) => Err(error),
        }
    }

    /// Nothing is decided again before the target's reader has passed the refusal.
    async fn catch_up(&self, at: Option<Timestamp>) {
        if let Some(at) = at {
            let exchange = &self.shared.exchange;
            exchange.wait_passed(self.pipeline.target(), at).await;
        }
    }

    /// In several steps: alone, after everything before it, as full state, and put aside at last.
    async fn after_write_error(
        &mut self,
        plan: Option<&Plan>,
        mut error: crate::target::WriteError,
    ) -> Result<()> {
        let Some(plan) = plan else { return Ok(()) };
        if plan.batch.len() > 1 {
            self.trouble.apply_alone(plan);
            return Ok(());
        }
        let key = plan.decisions.first().map(|decision| decision.key.clone());
        let Some(key) = error.key.clone().or(key) else {
            return Err(Error::bug(format!(
                "{} refused to move a checkpoint ({})",
                self.session.cluster().name,
                error.code
            )));
        };
        self.wait_for_other_lanes(plan).await;
        error.other_key = self.holder_of(&key, &error).await;
        self.trouble.failed_alone(&key, error);
        Ok(())
    }

    /// Returns once every other lane of the pipeline has applied what came before this batch.
    async fn wait_for_other_lanes(&self, plan: &Plan) {
        let Some(first) = plan.batch.first() else {
            return;
        };
        loop {
            let behind = (0..self.settings.lanes).any(|lane| {
                lane != self.index
                    && self
                        .shared
                        .exchange
                        .ledger()
                        .is_behind(self.pipeline, lane, &first.position)
            });
            if !behind {
                return;
            }
            self.counters()
                .waits_on(Some("earlier events in other lanes"));
            tokio::time::sleep(OTHER_LANES_INTERVAL).await;
        }
    }

    /// The document that already has the value of a unique index.
    async fn holder_of(
        &self,
        key: &crate::change::DocumentKey,
        error: &crate::target::WriteError,
    ) -> Option<bson::RawDocumentBuf> {
        let value = error.key_value.clone()?;
        let cluster = self.session.cluster();
        let namespace = key.namespace();
        let collection = cluster
            .client
            .database(namespace.database())
            .collection::<bson::RawDocumentBuf>(namespace.collection());
        let find = collection
            .find_one(value)
            .projection(bson::doc! { "_id": 1 });
        cluster
            .within("look up a duplicate", find)
            .await
            .ok()
            .flatten()
    }

    async fn keep_rate(&self, operations: usize, started: Instant) {
        let Some(rate) = self.settings.operations_per_second_max else {
            return;
        };
        let due = Duration::from_secs_f64(operations as f64 / rate.max(1) as f64);
        tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters[self.pipeline.source()]
    }
}

/// How often a lane looks whether the other lanes have come past it.
const OTHER_LANES_INTERVAL: Duration = Duration::from_millis(5);
