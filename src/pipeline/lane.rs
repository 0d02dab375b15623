//! One of the parallel appliers of a pipeline: takes batches until it is told to stop.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bson::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Applied;
use super::caution::Trouble;
use super::collections::Pairing;
use super::counters::{Counters, Waiter};
use super::outlook::Outlook;
use super::retry::{Pause, TOLD_WITHIN};
use super::saving::Saving;
use super::shared::Shared;
use crate::change::{AppliedThrough, DocumentKey, Namespace, Pair, PipelineId, RecordStatus};
use crate::cluster::Cluster;
use crate::config::FenceKind;
use crate::error::Result;
use crate::resolve::{BatchLimits, Next, Plan, WaitingOn};
use crate::store::StoredCheckpoint;
use crate::target::{Checkpoint, CollectionInfo, Refusal, Snapshot, TagSession, Transaction};

/// How a lane works.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    pub fence: FenceKind,
    pub limits: BatchLimits,
    pub lanes: usize,
    /// How long a batch waits for more while other lanes commit, in a backlog fifty times as long.
    pub batch_fill_time_max: Duration,
    /// Longest time a transaction may stay open.
    pub transaction_time_max: Duration,
    /// No former process has written documents of applications on the target after this time.
    pub written_until: Timestamp,
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
    pub(super) refusals: Pause,
    pub(super) outages: Pause,
    /// An open transaction stands in the way of applications, so it must not live long.
    pub(super) transaction_time_max: Duration,
    idle_since_checkpoint: Instant,
    pub(super) saving: Saving,
    last_batch_began: Instant,
    /// Nor has this lane.
    written_until: Timestamp,
    /// `included` notes of this lane that its checkpoint has not passed yet.
    pub(super) included: Vec<(DocumentKey, Timestamp)>,
    /// Told by whoever ends the lane.
    stop: CancellationToken,
}

/// An idle lane puts its progress on record this often.
const IDLE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);

/// Round trips to a distant target, and thousands of records of its losers, can take a transaction of
/// one document longer than it may take. Its time is doubled then, up to this many times what is
/// configured.
const TIME_FACTOR_MAX: u32 = 8;

/// The server ends a transaction after 60 s.
const TIME_MAX: Duration = Duration::from_secs(50);

/// How long a lane sleeps at most before it looks around.
const LOOK_AROUND_INTERVAL: Duration = Duration::from_millis(200);

/// How often a lane that waits for more looks around.
const FILL_STEP: Duration = Duration::from_millis(1);
const FILL_STEP_IN_A_BACKLOG: Duration = Duration::from_millis(10);

impl Lane {
    pub fn new(
        pipeline: PipelineId,
        index: usize,
        shared: Arc<Shared>,
        source: Cluster,
        (session, checkpoint): (TagSession, Checkpoint),
        settings: LaneSettings,
        stop: CancellationToken,
    ) -> Self {
        Self {
            trouble: Trouble::none(settings.limits),
            transaction_time_max: settings.transaction_time_max,
            written_until: settings.written_until,
            saving: Saving::nothing(),
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
            last_batch_began: Instant::now(),
            included: Vec::new(),
            stop,
        }
    }

    /// Applies batch after batch. Ends with its last batch committed and on record.
    ///
    /// # Errors
    /// What no retry helps against; nothing of the batch in question has been applied then.
    pub async fn run(mut self) -> Result<()> {
        let outcome = self.apply_batches().await;
        outcome.and(self.save_last())
    }

    async fn apply_batches(&mut self) -> Result<()> {
        while !self.stop.is_cancelled() {
            self.save_in_time()?;
            self.fill().await;
            match self.next()? {
                Next::Apply(plan) => self.step(plan).await?,
                Next::Wait(WaitingOn::Recovery) => self.rest("recovery").await,
                Next::Wait(WaitingOn::CommitEcho) => self.rest("commit echo").await,
                Next::Wait(WaitingOn::InitialSync) => self.rest("initial sync").await,
                Next::Wait(WaitingOn::Ddl) => self.wait_at_gate().await?,
                Next::Wait(WaitingOn::Resume) => self.rest("tandem resume").await,
                Next::Idle => self.idle().await?,
            }
        }
        self.put_progress_on_record().await
    }

    /// Waits for more events where that pays.
    async fn fill(&self) {
        let exchange = &self.shared.exchange;
        let waits_since = Instant::now();
        let others_commit = || {
            (0..self.settings.lanes)
                .any(|lane| lane != self.index && exchange.is_in_flight(self.pipeline, lane))
        };
        let is_short = || {
            let limits = self.limits();
            let ledger = exchange.ledger();
            ledger.has_short_batch(self.pipeline, self.index, limits)
        };
        while is_short() {
            let outlook = Outlook {
                fills_up: exchange.fills_up(self.pipeline.source()),
                others_commit: others_commit(),
                waits_since,
                last_batch_began: self.last_batch_began,
            };
            let left = outlook.time_left(self.settings.batch_fill_time_max);
            if left.is_zero() {
                break;
            }
            match outlook.fills_up {
                // Whoever hands over more rings.
                true => {
                    let at_most = left.min(FILL_STEP_IN_A_BACKLOG);
                    exchange
                        .wait_for_work(self.pipeline, self.index, at_most)
                        .await;
                }
                false => tokio::time::sleep(left.min(FILL_STEP)).await,
            }
        }
    }

    fn next(&self) -> Result<Next> {
        let exchange = &self.shared.exchange;
        let spread_max = self.within_rate(self.trouble.spread_operations_max());
        exchange.plan(
            self.pipeline,
            self.index,
            self.limits(),
            spread_max,
            self.trouble.caution(),
        )
    }

    async fn rest(&self, reason: &str) {
        self.waits_on(Some(reason));
        self.look_around().await;
    }

    /// Returns when there may be something to do, or nothing any more.
    async fn look_around(&self) {
        let exchange = &self.shared.exchange;
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = exchange.wait_for_work(self.pipeline, self.index, LOOK_AROUND_INTERVAL) => {}
        }
    }

    async fn wait_at_gate(&mut self) -> Result<()> {
        self.put_progress_in_time().await?;
        self.rest("a change of a collection").await;
        Ok(())
    }

    async fn idle(&mut self) -> Result<()> {
        self.waits_on(None);
        self.put_progress_in_time().await?;
        self.look_around().await;
        Ok(())
    }

    /// Now and then, and at once where somebody waits for it.
    async fn put_progress_in_time(&mut self) -> Result<()> {
        let source = self.pipeline.source();
        let settling = self.shared.exchange.ledger().is_settling(source);
        if settling || self.idle_since_checkpoint.elapsed() >= IDLE_CHECKPOINT_INTERVAL {
            self.put_progress_on_record().await?;
        }
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
        self.last_batch_began = started;
        let plan = match self.settings.fence {
            FenceKind::Snapshot => plan,
            FenceKind::Waiting => match self.plan_behind_open_snapshot(plan).await {
                Ok(Some(plan)) => plan,
                Ok(None) => return Ok(()),
                Err(refusal) => return self.after_refusal(None, refusal).await,
            },
        };
        let mut plan = Arc::new(plan);
        match self.apply(&mut plan).await {
            Ok(()) => {
                self.refusals.reset();
                self.outages.reset();
                self.waits_on(None);
                self.keep_rate(plan.size(), started).await;
                Ok(())
            }
            Err(refusal) => self.after_refusal(Some(&plan), refusal).await,
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
        match self.next().map_err(Refusal::Failed)? {
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
        let decisions = plan.decisions.iter();
        let namespaces: HashSet<&Namespace> = decisions.map(|one| one.key.namespace()).collect();
        let collections = &self.shared.collections;
        let pairings = collections
            .pair_all(&namespaces, self.pipeline.source())
            .await;
        // What it was about to make may be there all the same, and be called otherwise soon.
        if let Err(error) = &pairings
            && error.is_retryable()
        {
            self.waits_on(Some(&error.to_string()));
            let _ = tokio::time::timeout(TOLD_WITHIN, self.let_readers_come_up()).await;
        }
        let mut pairs = HashMap::new();
        for (namespace, pairing) in pairings.map_err(Refusal::Failed)? {
            match pairing {
                Pairing::Paired(pair) => {
                    pairs.insert(namespace, pair);
                }
                Pairing::Unpaired => {
                    self.shared.exchange.ledger().unpair(namespace);
                    return Err(Refusal::Unseen { at: None, code: 0 });
                }
                Pairing::Unclear => {
                    self.let_readers_come_up().await.map_err(Refusal::Failed)?;
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

    pub(super) fn after_commit(&mut self, plan: &Plan, applied: Applied) -> Result<()> {
        self.checkpoint.sequence += 1;
        self.remember_included(plan);
        if !plan.is_progress_alone() {
            // Its reader has passed the commit.
            let ledger = self.shared.exchange.ledger();
            self.written_until = ledger.complete_of(self.pipeline.target()).time;
        }
        let shared = &self.shared;
        shared.put_on_record(&applied.records)?;
        for (id, status) in &applied.statuses {
            if let Some(status) = RecordStatus::parse(status) {
                shared.store.set_record_status(id, status)?;
            }
        }
        if !plan.batch.is_empty() {
            self.idle_since_checkpoint = Instant::now();
            self.counters().applied(plan, applied.records.identical);
        }
        self.saving.put(StoredCheckpoint {
            pipeline: self.pipeline,
            lane: self.index,
            lanes: self.settings.lanes,
            epoch: self.checkpoint.epoch,
            seq: self.checkpoint.sequence,
            applied: AppliedThrough(plan.through.clone()),
            written_until: Some(self.written_until),
        });
        self.save_in_time()
    }

    fn remember_included(&mut self, plan: &Plan) {
        self.included
            .retain(|(_, through)| !plan.through.covers(*through));
        let outlives = plan.decisions.iter().filter(|d| d.leaves_included());
        let notes = outlives.map(|decision| (decision.key.clone(), plan.read_at.time));
        self.included.extend(notes);
    }

    /// A smaller batch takes less time; where there is no smaller one, it gets more.
    pub(super) fn took_too_long(&mut self, plan: &Plan) {
        let longest = TIME_MAX.min(self.settings.transaction_time_max * TIME_FACTOR_MAX);
        if plan.is_of_one_document() && self.transaction_time_max < longest {
            self.transaction_time_max = longest.min(self.transaction_time_max * 2);
            tracing::warn!(
                pipeline = self.pipeline.as_str(),
                lane = self.index,
                may_take_ms = self.transaction_time_max.as_millis() as u64,
                "a transaction of one document took longer than apply.transaction_time_max"
            );
        }
    }

    pub(super) fn waits_on(&self, reason: Option<&str>) {
        self.counters().waits_on(Waiter::Lane(self.index), reason);
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.shared.counters[self.pipeline.source()]
    }
}
