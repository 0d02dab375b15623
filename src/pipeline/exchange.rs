//! Where the readers hand over what they read and the lanes pick up what to do.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bson::Timestamp;
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::commits::{Commits, LaneId};
use super::together::Along;
use crate::change::{DocumentKey, Namespace, Pair, PipelineId, Position, SharedEvent, Side};
use crate::error::Result;
use crate::resolve::{BatchLimits, Caution, Copied, Ledger, Next, NoteToClear, SettleRequest};
use crate::source::Behind;

/// The ledger with its bells: every change that somebody may wait for rings one.
pub struct Exchange {
    ledger: Mutex<Ledger>,
    routed: Mutex<HashSet<Namespace>>,
    /// Rung for all who wait, in the order in which they came: the same in every run of a simulation.
    complete: Pair<Notify>,
    /// What the reader has beyond what it has handed over.
    pub(super) behind: Pair<Mutex<Behind>>,
    /// Somebody waits for a time that only a written marker makes the stream pass.
    marker_wanted: Pair<Notify>,
    /// How far each reader must come whatever it has to hold for that.
    pub(super) needed: Mutex<Pair<Timestamp>>,
    pub(super) room: Pair<Notify>,
    work: Pair<Vec<Notify>>,
    pub(super) landed: Pair<Vec<Notify>>,
    /// By the cluster that they are on.
    pub(super) commits: Pair<Commits>,
    notes_to_clear: Mutex<Vec<NoteToClear>>,
    notes: Notify,
}

/// One whole cluster time, as the ledger takes it.
#[derive(Debug)]
pub struct HandedOver {
    pub local: SmallVec<[SharedEvent; 1]>,
    pub through: Position,
}

/// What to ring once the ledger is free again.
#[derive(Default)]
struct Bells {
    complete: bool,
    work: Vec<usize>,
    landed: Vec<(PipelineId, usize)>,
    refilled: Vec<(PipelineId, usize)>,
    notes: Vec<NoteToClear>,
    everybody: bool,
}

/// How long a waiter relies on the stream alone before it asks for a marker.
pub(super) const PATIENCE: Duration = Duration::from_millis(2);

const NEVER: Timestamp = Timestamp {
    time: 0,
    increment: 0,
};

impl Exchange {
    pub fn new(ledger: Ledger, lanes: Pair<usize>) -> Self {
        let bells = || lanes.map(|lanes| (0..lanes).map(|_| Notify::new()).collect::<Vec<_>>());
        Self {
            complete: Pair::default(),
            ledger: Mutex::new(ledger),
            routed: Mutex::default(),
            behind: Pair::new(Behind::Nothing, Behind::Nothing).map(Mutex::new),
            marker_wanted: Pair::default(),
            needed: Mutex::new(Pair::new(NEVER, NEVER)),
            room: Pair::default(),
            work: bells(),
            landed: bells(),
            commits: Pair::default(),
            notes_to_clear: Mutex::default(),
            notes: Notify::new(),
        }
    }

    /// Documents that former processes wrote, each with its time.
    pub fn foresee(&self, side: Side, written: &[(DocumentKey, Timestamp)]) {
        let mut ledger = self.ledger();
        for (key, at) in written {
            ledger.foresee_own_write(side, key, *at);
        }
    }

    /// Everything that former processes wrote on `side` has been foreseen.
    pub fn own_writes_known(&self, side: Side) {
        self.ledger().own_writes_known(side);
        self.wake_all();
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Whether the lanes of a namespace have been settled.
    pub fn is_routed(&self, namespace: &Namespace) -> bool {
        lock(&self.routed).contains(namespace)
    }

    /// Settles the lanes of a namespace, before its first event.
    pub fn route(&self, namespace: Namespace, single_lane: bool) {
        if single_lane {
            self.ledger().keep_in_one_lane(namespace.clone());
        }
        lock(&self.routed).insert(namespace);
    }

    /// No event of the namespace can come any more.
    pub fn forget(&self, namespace: &Namespace) {
        self.ledger().forget_unpaired(namespace);
        lock(&self.routed).remove(namespace);
    }

    /// Takes cluster times of `side` in order, each of them whole.
    ///
    /// # Errors
    /// As the spools say.
    pub fn hand_over(&self, side: Side, moments: Vec<HandedOver>) -> Result<()> {
        let mut bells = Bells::default();
        if moments.iter().any(|moment| !moment.local.is_empty()) {
            self.commits[side].stream_moved();
        }
        {
            let mut ledger = self.ledger();
            let spooled = ledger.spooled(side);
            for moment in moments {
                let commits = self.commits[side].take_through(moment.through.time);
                take(&mut ledger, side, commits, moment, &mut bells)?;
            }
            if spooled == 0 && ledger.spooled(side) > 0 {
                tracing::info!(
                    cluster = side.as_str(),
                    "queues are full: further events wait on disk"
                );
            }
        }
        self.ring(side, bells);
        Ok(())
    }

    fn ring(&self, side: Side, bells: Bells) {
        if bells.complete {
            self.complete[side].notify_waiters();
        }
        if !bells.notes.is_empty() {
            lock(&self.notes_to_clear).extend(bells.notes);
            self.notes.notify_one();
        }
        for (pipeline, lane) in bells.landed {
            self.room[pipeline.source()].notify_one();
            self.landed[pipeline.source()][lane].notify_one();
        }
        for lane in bells.work {
            self.work[side][lane].notify_one();
        }
        for (pipeline, lane) in bells.refilled {
            self.work[pipeline.source()][lane].notify_one();
        }
        if bells.everybody {
            self.wake_all();
        }
    }

    /// The lane's next batch, decided, with what may go along; `spread_max` is how many operations it
    /// may take where they are about many collections.
    ///
    /// # Errors
    /// As the spools say.
    pub fn plan(
        &self,
        pipeline: PipelineId,
        lane: usize,
        limits: BatchLimits,
        spread_max: usize,
        caution: &Caution,
        along: Along<'_>,
    ) -> Result<Next> {
        let ledger = self.ledger();
        let limits = ledger.limits_of_next(pipeline, lane, limits, spread_max);
        let mut next = ledger.plan(pipeline, lane, limits, caution)?;
        if let Next::Apply(plan) = &mut next {
            ledger.take_along(plan, along.lanes, along.limits)?;
        }
        Ok(next)
    }

    /// There may be something to do for a lane.
    pub fn ring_lane(&self, pipeline: PipelineId, lane: usize) {
        self.work[pipeline.source()][lane].notify_one();
    }

    /// Asks the lanes for copies of documents.
    pub fn request_copies(&self, pipeline: PipelineId, wanted: Vec<Copied>) {
        {
            let mut ledger = self.ledger();
            for copied in wanted {
                ledger.request_copy(pipeline, copied);
            }
        }
        self.wake_all();
    }

    /// Asks the lanes to settle documents, beginning with the pipeline `first` of each. They are
    /// done once nobody else holds the settlement.
    pub fn request_settlements(&self, wanted: Vec<(PipelineId, SettleRequest)>) {
        {
            let mut ledger = self.ledger();
            for (first, request) in wanted {
                ledger.request_settlement(first, request);
            }
        }
        self.wake_all();
    }

    /// The events of both pipelines wait until they are released. Returns once those under way
    /// have landed.
    pub async fn hold_both(&self) {
        const INTERVAL: Duration = Duration::from_millis(2);
        self.ledger().hold_both();
        while !self.ledger().is_quiet() {
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// The events of both pipelines wait no longer.
    pub fn release_both(&self) {
        {
            let mut ledger = self.ledger();
            for pipeline in PipelineId::BOTH {
                ledger.release(pipeline);
            }
        }
        self.wake_all();
    }

    /// The events of the pipeline wait no longer.
    pub fn release(&self, pipeline: PipelineId) {
        self.ledger().release(pipeline);
        self.wake_all();
    }

    /// From here on no transaction of the pipeline is committed, but for those under way already.
    pub fn pause(&self, pipeline: PipelineId) {
        self.ledger().pause(pipeline);
        // Its reader goes on whatever has to wait.
        self.room[pipeline.source()].notify_one();
    }

    pub fn resume(&self, pipeline: PipelineId) {
        self.ledger().resume(pipeline);
        self.wake_all();
    }

    /// Returns when there may be something for the lane to do.
    pub async fn wait_for_work(&self, pipeline: PipelineId, lane: usize, at_most: Duration) {
        let bell = self.work[pipeline.source()][lane].notified();
        let _ = tokio::time::timeout(at_most, bell).await;
    }

    /// Returns once the reader of `side` has passed `time`. A reader without room gets there when
    /// the other pipeline has made some.
    pub async fn wait_passed(&self, side: Side, time: Timestamp) {
        loop {
            // Before the look, so that nothing rings in between.
            let bell = self.complete[side].notified();
            if self.ledger().complete_of(side).time >= time {
                return;
            }
            if tokio::time::timeout(PATIENCE, bell).await.is_err() && self.has_room(side) {
                self.ask_for_marker(side);
            }
        }
    }

    /// Lets the reader of `side` come to `time` however much it has to hold for that, since its own
    /// pipeline cannot make room before.
    pub async fn let_come_up(&self, side: Side, time: Timestamp) {
        {
            let mut needed = lock(&self.needed);
            needed[side] = needed[side].max(time);
        }
        self.room[side].notify_one();
        self.wait_passed(side, time).await;
    }

    pub fn ask_for_marker(&self, side: Side) {
        self.marker_wanted[side].notify_one();
    }

    pub async fn marker_wanted(&self, side: Side) {
        self.marker_wanted[side].notified().await;
    }

    /// Notes whose full state has been committed since the last call.
    pub fn take_notes_to_clear(&self) -> Vec<NoteToClear> {
        std::mem::take(&mut *lock(&self.notes_to_clear))
    }

    pub fn put_back_notes_to_clear(&self, notes: Vec<NoteToClear>) {
        lock(&self.notes_to_clear).extend(notes);
    }

    pub async fn notes_wanted(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.notes.notified()).await;
    }

    pub fn wake_all(&self) {
        for bell in self.work.a.iter().chain(&self.work.b) {
            bell.notify_one();
        }
    }
}

/// Commits come first: none has the time of an event, and those that are later come with a later
/// moment.
fn take(
    ledger: &mut Ledger,
    side: Side,
    commits: Vec<(Timestamp, LaneId)>,
    moment: HandedOver,
    bells: &mut Bells,
) -> Result<()> {
    let could_apply = who_may_apply(ledger);
    for (time, (pipeline, lane)) in commits {
        let landed = ledger.landed(pipeline, lane, time)?;
        let refilled = landed.refilled.into_iter();
        bells.refilled.extend(refilled.map(|lane| (pipeline, lane)));
        bells.notes.extend(landed.notes_to_clear);
        bells.everybody |= landed.asked;
        bells.landed.push((pipeline, lane));
    }
    for event in moment.local {
        let lane = ledger.lane_of(side, &event.key);
        if ledger.observe(side, event)? && !bells.work.contains(&lane) {
            bells.work.push(lane);
        }
    }
    ledger.complete(side, moment.through);
    bells.complete = true;
    bells.everybody |= who_may_apply(ledger) != could_apply;
    Ok(())
}

fn who_may_apply(ledger: &Ledger) -> [bool; 2] {
    PipelineId::BOTH.map(|pipeline| ledger.may_apply(pipeline))
}

/// A panic ends the process, so a poisoned lock is never met by a living one.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
