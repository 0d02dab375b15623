//! Which lanes one transaction is about, and what of it each of them keeps.

use std::time::Duration;

use tokio::time::Instant;

use super::Applied;
use super::caution::Trouble;
use super::lane::Lane;
use super::lane_state::{InHand, LaneState};
use crate::change::{AppliedThrough, RecordStatus};
use crate::config::FenceKind;
use crate::error::Result;
use crate::resolve::{BatchLimits, Caution, Next, Plan};
use crate::store::StoredCheckpoint;

/// What waits in several lanes goes into one transaction up to this part of a full batch.
const JOINT_PART: usize = 4;

/// Other lanes whose events a lane may take along, with what each of them avoids, within limits for
/// all together.
#[derive(Debug, Clone, Copy)]
pub struct Along<'a> {
    pub lanes: &'a [(usize, &'a Caution)],
    pub limits: BatchLimits,
}

impl Along<'_> {
    pub fn nobody() -> Self {
        let limits = BatchLimits {
            operations_max: 0,
            bytes_max: 0,
        };
        Self { lanes: &[], limits }
    }
}

impl Lane {
    /// Its next batch, with what other lanes have where all of it is little.
    pub(super) fn next(&self, in_hand: &mut InHand) -> Result<Next> {
        debug_assert!(in_hand.along.is_empty());
        let trouble = &in_hand.own.trouble;
        let operations_max = self.settings.limits.operations_max;
        let mut ledger = self.shared.exchange.ledger();
        match self.goes_by_keys(trouble) {
            true => ledger.begin_stretch(self.pipeline, self.index, operations_max),
            false => _ = ledger.break_off_stretch(self.pipeline, self.index),
        }
        drop(ledger);
        let free = match trouble.may_join() && self.joining_pays() && self.has_little() {
            true => self.states.take_free(),
            false => Vec::new(),
        };
        let lanes = free.iter().map(|one| (one.index, one.trouble.caution()));
        let next = self.shared.exchange.plan(
            self.pipeline,
            self.index,
            self.limits(trouble.limits()),
            self.within_rate(trouble.spread_operations_max()),
            trouble.caution(),
            Along {
                lanes: &lanes.collect::<Vec<_>>(),
                limits: self.joint_limits(),
            },
        );
        let has_share = |state: &LaneState| match &next {
            Ok(Next::Apply(plan)) => plan.shares.iter().any(|share| share.lane == state.index),
            _ => false,
        };
        let (along, left) = free.into_iter().partition::<Vec<_>, _>(has_share);
        in_hand.along = along;
        self.put_back(left);
        next
    }

    /// Whether it may take a backlog in the order of keys: a lane of its own keeps to the order of the
    /// source, and so does one that knows of trouble.
    pub(super) fn goes_by_keys(&self, trouble: &Trouble) -> bool {
        self.settings.lanes > 1 && trouble.may_join()
    }

    /// Whether lanes may have one transaction together: not where more is known to come for each of
    /// them, or where operations are counted by lanes.
    pub(super) fn joining_pays(&self) -> bool {
        self.settings.fence == FenceKind::Snapshot
            && !self.stop.is_cancelled()
            && self.operations_per_second_max().is_none()
            && !self.shared.exchange.fills_up(self.pipeline.source())
    }

    fn has_little(&self) -> bool {
        let ledger = self.shared.exchange.ledger();
        ledger.has_short_batch(self.pipeline, self.index, self.joint_limits())
    }

    /// What lanes have in one transaction, all together.
    pub(super) fn joint_limits(&self) -> BatchLimits {
        let usual = self.settings.limits;
        BatchLimits {
            operations_max: usual.operations_max / JOINT_PART,
            bytes_max: usual.bytes_max / JOINT_PART,
        }
    }

    /// What a plan has become, for each of its lanes and for all of them.
    pub(super) fn after_commit(
        &mut self,
        in_hand: &mut InHand,
        plan: &Plan,
        applied: Applied,
    ) -> Result<()> {
        // Its reader has passed the commit.
        let ledger = self.shared.exchange.ledger();
        let now = ledger.complete_of(self.pipeline.target()).time;
        drop(ledger);
        for (state, (share, decisions)) in in_hand.all_mut().zip(plan.decisions_by_share()) {
            state.committed(share, decisions, plan.read_at.time);
            if !plan.is_progress_alone() {
                state.written_until = now;
            }
        }
        let shared = &self.shared;
        shared.put_on_record(&applied.records)?;
        for (id, status) in &applied.statuses {
            if let Some(status) = RecordStatus::parse(status) {
                shared.store.set_record_status(id, status)?;
            }
        }
        if !plan.batch.is_empty() {
            self.counters().applied(plan, applied.records.identical);
        }
        for (state, share) in in_hand.all_mut().zip(&plan.shares) {
            if !plan.batch.is_empty() {
                state.idle_since_checkpoint = Instant::now();
            }
            state.saving.put(StoredCheckpoint {
                pipeline: self.pipeline,
                lane: state.index,
                lanes: self.settings.lanes,
                epoch: state.checkpoint.epoch,
                seq: state.checkpoint.sequence,
                applied: AppliedThrough(share.through.clone()),
                written_until: Some(state.written_until),
            });
        }
        let mut states = in_hand.all_mut();
        states.try_for_each(|state| state.save_in_time(&self.shared))
    }

    /// Each lane forgets what it had learnt about the keys of a plan that was committed.
    pub(super) fn after_passing(&self, in_hand: &mut InHand, plan: &Plan, took: Duration) {
        let is_joint = plan.is_joint();
        for (state, (share, decisions)) in in_hand.all_mut().zip(plan.decisions_by_share()) {
            let size = match is_joint {
                true => share.events,
                false => plan.size(),
            };
            let trouble = &mut state.trouble;
            trouble.passed(decisions, size, took, self.transaction_time_max);
            if is_joint {
                trouble.passed_jointly();
            }
        }
    }

    /// States that others may have from here on.
    pub(super) fn put_back(&self, states: impl IntoIterator<Item = LaneState>) {
        let exchange = &self.shared.exchange;
        for lane in self.states.put_back(states) {
            exchange.ring_lane(self.pipeline, lane);
        }
    }
}
