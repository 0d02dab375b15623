//! One of the parallel appliers of a pipeline: takes batches until it is told to stop.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::collections::Pairing;
use super::counters::{Counters, Waiter};
use super::lane_state::{InHand, LaneState, LaneStates};
use super::outlook::{Others, Outlook, WaitsFor};
use super::retry::{Pause, TOLD_WITHIN};
use super::shared::Shared;
use crate::change::{Namespace, Pair, PipelineId, RecordStatus};
use crate::cluster::Cluster;
use crate::config::FenceKind;
use crate::error::Result;
use crate::resolve::{BatchLimits, Next, Plan, WaitingOn};
use crate::target::{CollectionInfo, Refusal, Snapshot, TagSession, Transaction};

/// How a lane works.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    pub fence: FenceKind,
    pub limits: BatchLimits,
    pub lanes: usize,
    /// How long a batch waits for more while other lanes commit, in a backlog fifty times as long,
    /// and two hundred times for several batches.
    pub batch_fill_time_max: Duration,
    /// Longest time a transaction may stay open.
    pub transaction_time_max: Duration,
}

pub struct Lane {
    pub(super) pipeline: PipelineId,
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) source: Cluster,
    pub(super) session: TagSession,
    pub(super) states: Arc<LaneStates>,
    pub(super) settings: LaneSettings,
    pub(super) refusals: Pause,
    pub(super) outages: Pause,
    /// An open transaction stands in the way of applications, so it must not live long.
    pub(super) transaction_time_max: Duration,
    last_batch_began: Instant,
    /// Told by whoever ends the lane.
    pub(super) stop: CancellationToken,
}

/// An idle lane puts its progress on record this often.
const IDLE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);

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
        (session, states): (TagSession, Arc<LaneStates>),
        settings: LaneSettings,
        stop: CancellationToken,
    ) -> Self {
        Self {
            transaction_time_max: settings.transaction_time_max,
            pipeline,
            index,
            shared,
            source,
            session,
            states,
            settings,
            refusals: Pause::of_refusals(),
            outages: Pause::of_outages(),
            last_batch_began: Instant::now(),
            stop,
        }
    }

    /// Applies batch after batch. Ends with its last batch committed and on record.
    ///
    /// # Errors
    /// What no retry helps against; nothing of the batch in question has been applied then.
    pub async fn run(mut self) -> Result<()> {
        self.apply_batches().await?;
        self.end().await
    }

    /// Puts on record how far it has come, here too. Its state is not put back, so from then on no
    /// other lane applies for it.
    async fn end(&mut self) -> Result<()> {
        let mut in_hand = InHand::alone(self.wait_for_own_state().await);
        let last = self.put_progress_on_record(&mut in_hand).await;
        let saved = in_hand.own.save_last(&self.shared);
        last.and(saved)
    }

    /// Another lane may still apply for it, and rings when it has.
    async fn wait_for_own_state(&self) -> LaneState {
        loop {
            if let Some(own) = self.states.take(self.index) {
                return own;
            }
            let exchange = &self.shared.exchange;
            exchange
                .wait_for_work(self.pipeline, self.index, LOOK_AROUND_INTERVAL)
                .await;
        }
    }

    async fn apply_batches(&mut self) -> Result<()> {
        while !self.stop.is_cancelled() {
            self.fill().await;
            let Some(own) = self.states.take(self.index) else {
                // Another lane applies for it, and rings.
                self.look_around().await;
                continue;
            };
            let mut in_hand = InHand::alone(own);
            let turn = self.turn(&mut in_hand).await;
            let InHand { mut own, along } = in_hand;
            self.put_back(along);
            match turn {
                Ok(applied) => {
                    self.put_back([own]);
                    if !applied {
                        self.look_around().await;
                    }
                }
                Err(error) => {
                    // The first error is told. Nobody else applies for the lane any more.
                    let _ = own.save_last(&self.shared);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The next batch, if there is one. Returns whether there was.
    async fn turn(&mut self, in_hand: &mut InHand) -> Result<bool> {
        in_hand.own.save_in_time(&self.shared)?;
        let reason = match self.next(in_hand)? {
            Next::Apply(plan) => {
                self.step(in_hand, plan).await?;
                return Ok(true);
            }
            Next::Wait(WaitingOn::Recovery) => Some("recovery"),
            Next::Wait(WaitingOn::CommitEcho) => Some("commit echo"),
            Next::Wait(WaitingOn::InitialSync) => Some("initial sync"),
            Next::Wait(WaitingOn::Resume) => Some("tandem resume"),
            Next::Wait(WaitingOn::Ddl) => {
                self.put_progress_in_time(in_hand).await?;
                Some("a change of a collection")
            }
            Next::Idle => {
                self.waits_on(None);
                self.put_progress_in_time(in_hand).await?;
                None
            }
        };
        self.waits_on(reason);
        Ok(false)
    }

    /// Waits for more events where that pays.
    async fn fill(&self) {
        let exchange = &self.shared.exchange;
        let waits_since = Instant::now();
        while !self.stop.is_cancelled() {
            // Before the look, so that nothing ends in between.
            let put_back = self.states.next_put_back();
            let Some(outlook) = self.outlook(waits_since) else {
                break;
            };
            let left = outlook.time_left(self.settings.batch_fill_time_max);
            if left.is_zero() {
                break;
            }
            match outlook.waits_for() {
                // Whoever hands over more rings.
                WaitsFor::More => {
                    let at_most = left.min(FILL_STEP_IN_A_BACKLOG);
                    exchange
                        .wait_for_work(self.pipeline, self.index, at_most)
                        .await;
                }
                WaitsFor::TheirEnd => {
                    let at_most = left.min(FILL_STEP_IN_A_BACKLOG);
                    let _ = tokio::time::timeout(at_most, put_back).await;
                }
                WaitsFor::Time => tokio::time::sleep(left.min(FILL_STEP)).await,
            }
        }
    }

    /// What its next batch may wait for; none: it is full, there is nothing in it, or another lane
    /// has taken it along.
    fn outlook(&self, waits_since: Instant) -> Option<Outlook> {
        let exchange = &self.shared.exchange;
        let (limits, may_join, by_keys, idle_since) = self.states.look_at(self.index, |state| {
            let trouble = &state.trouble;
            let (may_join, by_keys) = (trouble.may_join(), self.goes_by_keys(trouble));
            let idle_since = state.idle_since_checkpoint;
            (trouble.limits(), may_join, by_keys, idle_since)
        })?;
        let is_within = |limits| {
            let ledger = exchange.ledger();
            ledger.has_short_batch(self.pipeline, self.index, limits)
        };
        let source = self.pipeline.source();
        let fills_up = exchange.fills_up(source);
        let for_stretch = by_keys && fills_up && exchange.is_late(source) && {
            let ledger = exchange.ledger();
            ledger.has_short_stretch(self.pipeline, self.index, self.settings.limits)
        };
        if !for_stretch && !is_within(self.limits(limits)) {
            return None;
        }
        let is_little = may_join && self.joining_pays() && is_within(self.joint_limits());
        let mut others = (0..self.settings.lanes).filter(|lane| *lane != self.index);
        Some(Outlook {
            fills_up,
            for_stretch,
            others: match is_little {
                true if self.states.is_any_under_way() => Others::AreUnderWay,
                false if others.any(|lane| exchange.is_in_flight(self.pipeline, lane)) => {
                    Others::Commit
                }
                _ => Others::DoNothing,
            },
            waits_since,
            last_batch_began: self.last_batch_began,
            idle_since,
        })
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

    /// Now and then, and at once where somebody waits for it.
    async fn put_progress_in_time(&mut self, in_hand: &mut InHand) -> Result<()> {
        let source = self.pipeline.source();
        let settling = self.shared.exchange.ledger().is_settling(source);
        let since = in_hand.own.idle_since_checkpoint;
        if settling || since.elapsed() >= IDLE_CHECKPOINT_INTERVAL {
            self.put_progress_on_record(in_hand).await?;
        }
        Ok(())
    }

    async fn put_progress_on_record(&mut self, in_hand: &mut InHand) -> Result<()> {
        in_hand.own.idle_since_checkpoint = Instant::now();
        let progress = self
            .shared
            .exchange
            .ledger()
            .plan_idle_progress(self.pipeline, self.index);
        match progress {
            Some(plan) => self.step(in_hand, plan).await,
            None => Ok(()),
        }
    }

    /// Tries one plan; what a refusal teaches goes into the next one.
    async fn step(&mut self, in_hand: &mut InHand, plan: Plan) -> Result<()> {
        let started = Instant::now();
        self.last_batch_began = started;
        let plan = match self.settings.fence {
            FenceKind::Snapshot => plan,
            FenceKind::Waiting => match self.plan_behind_open_snapshot(in_hand, plan).await {
                Ok(Some(plan)) => plan,
                Ok(None) => return Ok(()),
                Err(refusal) => return self.after_refusal(in_hand, None, refusal).await,
            },
        };
        let mut plan = Arc::new(plan);
        // Of any other one the little that waits elsewhere does not wait for the end.
        let is_joinable = in_hand.own.trouble.may_join() && !plan.is_progress_alone();
        self.states.begin_transaction(is_joinable);
        let outcome = self.apply(in_hand, &mut plan).await;
        self.states.end_transaction(is_joinable);
        match outcome {
            Ok(()) => {
                self.refusals.reset();
                self.outages.reset();
                let lanes = in_hand.all().map(|state| Waiter::Lane(state.index));
                lanes.for_each(|lane| self.counters().waits_on(lane, None));
                self.put_back(std::mem::take(&mut in_hand.along));
                self.keep_rate(plan.size(), started).await;
                Ok(())
            }
            Err(refusal) => self.after_refusal(in_hand, Some(&plan), refusal).await,
        }
    }

    /// Opens the transaction first, waits until the target's reader has passed its snapshot, and
    /// decides then.
    async fn plan_behind_open_snapshot(
        &mut self,
        in_hand: &mut InHand,
        plan: Plan,
    ) -> Result<Option<Plan>, Refusal> {
        let mut transaction = Transaction::begin(&mut self.session, Snapshot::Latest);
        let snapshot = transaction.snapshot_time(&self.shared.database).await?;
        let exchange = &self.shared.exchange;
        exchange.wait_passed(self.pipeline.target(), snapshot).await;
        if plan.batch.is_empty() && plan.decisions.is_empty() {
            return Ok(Some(plan));
        }
        match self.next(in_hand).map_err(Refusal::Failed)? {
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

    pub(super) fn waits_on(&self, reason: Option<&str>) {
        self.counters().waits_on(Waiter::Lane(self.index), reason);
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.shared.counters[self.pipeline.source()]
    }
}
