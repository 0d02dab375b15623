//! What a lane keeps from one batch to the next, and who has it.
//!
//! Each lane applies its own events. Where little waits, one of them takes along what the others
//! have: it has their states in hand meanwhile, and moves their checkpoints in its own transaction.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bson::Timestamp;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::caution::Trouble;
use super::saving::Saving;
use crate::change::DocumentKey;
use crate::error::{Error, Result};
use crate::resolve::{BatchLimits, Decision, Plan, Share};
use crate::target::{Checkpoint, Refusal};

/// Notes of a lane that one transaction removes. The rest goes with the next ones.
const NOTES_MAX: usize = 2000;

/// Whoever has it in hand applies the lane's events.
pub(super) struct LaneState {
    pub index: usize,
    pub checkpoint: Checkpoint,
    pub trouble: Trouble,
    /// `included` notes of this lane that its checkpoint has not passed yet.
    pub included: Vec<(DocumentKey, Timestamp)>,
    pub saving: Saving,
    /// No process has written documents of applications for this lane after this time.
    pub written_until: Timestamp,
    pub idle_since_checkpoint: Instant,
}

impl LaneState {
    fn starting_at(
        index: usize,
        checkpoint: Checkpoint,
        limits: BatchLimits,
        written_until: Timestamp,
    ) -> Self {
        Self {
            index,
            checkpoint,
            trouble: Trouble::none(limits),
            included: Vec::new(),
            saving: Saving::nothing(),
            written_until,
            idle_since_checkpoint: Instant::now(),
        }
    }

    /// The first `included` notes that the checkpoint passes, so many that they take little time.
    pub fn passed(&self, share: &Share) -> impl Iterator<Item = &(DocumentKey, Timestamp)> {
        let passed = self.included.iter();
        let passed = passed.filter(|(_, through)| share.through.covers(*through));
        passed.take(NOTES_MAX)
    }

    /// The lane's share of a transaction is there.
    pub fn committed(&mut self, share: &Share, decisions: &[Decision], read_at: Timestamp) {
        self.checkpoint.sequence += 1;
        let mut passed = self.passed(share).count();
        self.included.retain(|(_, through)| {
            let is_passed = passed > 0 && share.through.covers(*through);
            passed -= usize::from(is_passed);
            !is_passed
        });
        let outlives = decisions.iter().filter(|one| one.leaves_included());
        let notes = outlives.map(|decision| (decision.key.clone(), read_at));
        self.included.extend(notes);
    }
}

/// The states of the lanes that one transaction is about.
pub(super) struct InHand {
    /// That of the lane that applies.
    pub own: LaneState,
    /// Those that it takes along, in the order of its plan's shares.
    pub along: Vec<LaneState>,
}

impl InHand {
    pub fn alone(own: LaneState) -> Self {
        let along = Vec::new();
        Self { own, along }
    }

    /// All of them, in the order of the plan's shares.
    pub fn all(&self) -> impl Iterator<Item = &LaneState> {
        std::iter::once(&self.own).chain(&self.along)
    }

    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut LaneState> {
        std::iter::once(&mut self.own).chain(&mut self.along)
    }

    /// Whether these are the lanes of the plan's shares, in their order: a share without its state
    /// would be applied, and its checkpoint stay where it is.
    ///
    /// # Errors
    /// A bug, where they are not.
    pub fn belong_to(&self, plan: &Plan) -> Result<()> {
        let lanes = plan.shares.iter().map(|share| share.lane);
        match self.all().map(|state| state.index).eq(lanes) {
            true => Ok(()),
            false => Err(Error::bug("a plan about other lanes than those in hand")),
        }
    }

    /// Each lane learns from a refusal: of keys that they are its own, of anything else that it may be
    /// about any of them.
    pub fn learn_from(&mut self, plan: Option<&Plan>, refusal: &Refusal) {
        match refusal {
            Refusal::FullStateNeeded(keys) => self.learn(plan, keys, Trouble::send_full_state),
            Refusal::IdentityNeeded(key) => {
                let keys = std::slice::from_ref(key);
                self.learn(plan, keys, Trouble::send_identity);
            }
            _ if self.along.is_empty() => {}
            _ => self.all_mut().for_each(|one| one.trouble.refused_jointly()),
        }
    }

    fn learn(
        &mut self,
        plan: Option<&Plan>,
        keys: &[DocumentKey],
        learn: impl Fn(&mut Trouble, DocumentKey),
    ) {
        let joint = plan.filter(|plan| plan.is_joint());
        for key in keys {
            let share = joint.and_then(|plan| plan.share_of(key)).unwrap_or(0);
            if let Some(state) = self.all_mut().nth(share) {
                learn(&mut state.trouble, key.clone());
            }
        }
    }
}

struct Slot {
    /// None while some lane has it in hand.
    state: Option<LaneState>,
    /// Its own lane has asked for it since.
    is_wanted: bool,
}

/// The states of all lanes of a pipeline.
pub struct LaneStates {
    slots: Mutex<Vec<Slot>>,
    /// Transactions that are being written, committed or waited for, of lanes that may join others.
    under_way: AtomicUsize,
    put_back: Notify,
}

impl LaneStates {
    pub fn starting_at(
        checkpoints: Vec<Checkpoint>,
        limits: BatchLimits,
        written_until: Timestamp,
    ) -> Self {
        let states = checkpoints.into_iter().enumerate();
        let states = states.map(|(index, checkpoint)| {
            let state = LaneState::starting_at(index, checkpoint, limits, written_until);
            Slot {
                state: Some(state),
                is_wanted: false,
            }
        });
        Self {
            slots: Mutex::new(states.collect()),
            under_way: AtomicUsize::new(0),
            put_back: Notify::new(),
        }
    }

    /// The state of a lane, for that lane; none: another one has it in hand, and will ring. What is
    /// not put back nobody gets any more.
    pub(super) fn take(&self, index: usize) -> Option<LaneState> {
        let slot = &mut self.slots()[index];
        let state = slot.state.take();
        slot.is_wanted = state.is_none();
        state
    }

    /// Those that nobody has in hand, of lanes that may join others.
    pub(super) fn take_free(&self) -> Vec<LaneState> {
        let mut slots = self.slots();
        let slots = slots.iter_mut();
        let taken = slots.filter_map(|slot| slot.state.take_if(|state| state.trouble.may_join()));
        taken.collect()
    }

    /// They are free again. Returns the lanes that have asked for theirs meanwhile.
    pub(super) fn put_back(&self, states: impl IntoIterator<Item = LaneState>) -> Vec<usize> {
        let (mut any, mut wanted) = (false, Vec::new());
        for state in states {
            let lane = state.index;
            let slot = &mut self.slots()[lane];
            slot.state = Some(state);
            any = true;
            if std::mem::take(&mut slot.is_wanted) {
                wanted.push(lane);
            }
        }
        if any {
            self.put_back.notify_waiters();
        }
        wanted
    }

    /// A look at a state that nobody has in hand.
    pub(super) fn look_at<T>(&self, index: usize, look: impl Fn(&LaneState) -> T) -> Option<T> {
        self.slots()[index].state.as_ref().map(look)
    }

    pub(super) fn begin_transaction(&self, is_joinable: bool) {
        self.under_way
            .fetch_add(usize::from(is_joinable), Ordering::Relaxed);
    }

    pub(super) fn end_transaction(&self, is_joinable: bool) {
        self.under_way
            .fetch_sub(usize::from(is_joinable), Ordering::Relaxed);
    }

    /// Whether a transaction is under way of a lane that takes others along in its next one.
    pub(super) fn is_any_under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// Comes when states are put back, from the moment of the call on.
    pub(super) fn next_put_back(&self) -> Notified<'_> {
        self.put_back.notified()
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn states(lanes: usize) -> LaneStates {
        let checkpoint = |lane| Checkpoint {
            id: format!("link/a-to-b/{lane}"),
            epoch: 1,
            sequence: 0,
        };
        let limits = BatchLimits {
            operations_max: 10,
            bytes_max: 10,
        };
        let start = Timestamp {
            time: 1,
            increment: 0,
        };
        LaneStates::starting_at((0..lanes).map(checkpoint).collect(), limits, start)
    }

    /// The lane's own state and all others that are free.
    fn taken(states: &LaneStates, lane: usize) -> Vec<LaneState> {
        let mut taken = vec![states.take(lane).expect("nobody has it in hand")];
        taken.extend(states.take_free());
        taken
    }

    #[test]
    fn who_asks_for_a_state_that_another_lane_has_in_hand_is_rung_when_it_is_free() {
        let states = states(3);
        let first = taken(&states, 0);
        let put_back = states.next_put_back();
        assert!(states.take(2).is_none());
        assert_eq!(states.put_back(first), [2]);
        assert!(put_back.now_or_never().is_some());
        assert!(states.put_back(taken(&states, 2)).is_empty());
    }

    #[test]
    fn a_lane_that_may_not_join_stays_by_itself() {
        let states = states(3);
        let mut first = taken(&states, 1);
        first[1].trouble.refused_jointly();
        states.put_back(first);
        let lanes: Vec<usize> = taken(&states, 2).iter().map(|one| one.index).collect();
        assert_eq!(lanes, [2, 1]);
    }

    #[test]
    fn what_is_never_put_back_no_other_lane_gets() {
        let states = states(2);
        assert!(states.take(1).is_some());
        assert_eq!(taken(&states, 0).len(), 1);
        assert!(states.look_at(1, |_| ()).is_none());
    }
}
