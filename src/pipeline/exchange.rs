//! Where the readers hand over what they read and the lanes pick up what to do.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bson::Timestamp;
use tokio::sync::{Notify, watch};

use crate::change::{DocumentKey, Namespace, Pair, PipelineId, Position, SharedEvent, Side};
use crate::resolve::{BatchLimits, Caution, Ledger, Next, NoteToClear, Plan};

/// The ledger with its bells: every change that somebody may wait for rings one.
pub struct Exchange {
    ledger: Mutex<Ledger>,
    routed: Mutex<HashSet<Namespace>>,
    complete: Pair<watch::Sender<Timestamp>>,
    /// Somebody waits for a time that only a written marker makes the stream pass.
    marker_wanted: Pair<Notify>,
    /// The largest time of each cluster that somebody waits for: its reader must not stop before.
    needed: Mutex<Pair<Timestamp>>,
    room: Pair<Notify>,
    work: Pair<Vec<Notify>>,
    landed: Pair<Vec<Notify>>,
    notes_to_clear: Mutex<Vec<NoteToClear>>,
    notes: Notify,
    queue_bytes_max: usize,
}

/// One whole cluster time, as the ledger takes it.
#[derive(Debug)]
pub struct HandedOver {
    pub local: Vec<SharedEvent>,
    /// Documents that tandem itself wrote; only while recovering.
    pub own: Vec<DocumentKey>,
    /// Lanes of this link whose commit has come back.
    pub echoes: Vec<(PipelineId, usize)>,
    pub through: Position,
}

/// What to ring once the ledger is free again.
#[derive(Default)]
struct Bells {
    complete: Option<Timestamp>,
    work: Vec<usize>,
    landed: Vec<(PipelineId, usize)>,
    notes: Vec<NoteToClear>,
    recovered: bool,
}

/// How long a waiter relies on the stream alone before it asks for a marker.
const PATIENCE: Duration = Duration::from_millis(2);

const NEVER: Timestamp = Timestamp {
    time: 0,
    increment: 0,
};

impl Exchange {
    pub fn new(ledger: Ledger, lanes: Pair<usize>, queue_bytes_max: usize) -> Self {
        let bells = || lanes.map(|lanes| (0..lanes).map(|_| Notify::new()).collect::<Vec<_>>());
        let complete = |side| watch::Sender::new(ledger.complete_of(side).time);
        Self {
            complete: Pair::new(complete(Side::A), complete(Side::B)),
            ledger: Mutex::new(ledger),
            routed: Mutex::default(),
            marker_wanted: Pair::default(),
            needed: Mutex::new(Pair::new(NEVER, NEVER)),
            room: Pair::default(),
            work: bells(),
            landed: bells(),
            notes_to_clear: Mutex::default(),
            notes: Notify::new(),
            queue_bytes_max,
        }
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
    pub fn hand_over(&self, side: Side, moments: Vec<HandedOver>) {
        let mut bells = Bells::default();
        {
            let mut ledger = self.ledger();
            for moment in moments {
                self.take(&mut ledger, side, moment, &mut bells);
            }
        }
        self.ring(side, bells);
    }

    fn take(&self, ledger: &mut Ledger, side: Side, moment: HandedOver, bells: &mut Bells) {
        let was_recovered = ledger.is_recovered();
        let time = moment.through.time;
        for event in moment.local {
            let lane = ledger.lane_of(side, &event.key);
            if ledger.observe(side, event) && !bells.work.contains(&lane) {
                bells.work.push(lane);
            }
        }
        for key in &moment.own {
            ledger.observe_own_write(side, key, time);
        }
        for (pipeline, lane) in moment.echoes {
            let landed = ledger.landed(pipeline, lane, time);
            bells.notes.extend(landed.notes_to_clear);
            bells.landed.push((pipeline, lane));
        }
        ledger.complete(side, moment.through);
        bells.complete = Some(time);
        bells.recovered |= ledger.is_recovered() && !was_recovered;
    }

    fn ring(&self, side: Side, bells: Bells) {
        if let Some(complete) = bells.complete {
            self.complete[side].send_if_modified(|time| {
                let later = complete > *time;
                *time = complete.max(*time);
                later
            });
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
        if bells.recovered {
            self.wake_all();
        }
    }

    /// The lane's next batch, decided.
    pub fn plan(
        &self,
        pipeline: PipelineId,
        lane: usize,
        limits: BatchLimits,
        caution: &Caution,
    ) -> Next {
        self.ledger().plan(pipeline, lane, limits, caution)
    }

    /// A plan is about to be committed.
    pub fn begin(&self, plan: Plan) {
        self.ledger().begin(plan);
    }

    /// The plan's transaction will never be committed.
    pub fn abandon(&self, pipeline: PipelineId, lane: usize) {
        self.ledger().abandon(pipeline, lane);
    }

    pub fn is_in_flight(&self, pipeline: PipelineId, lane: usize) -> bool {
        self.ledger().is_in_flight(pipeline, lane)
    }

    /// Returns once the lane's commit has come back on the target's stream.
    pub async fn wait_landed(&self, pipeline: PipelineId, lane: usize) {
        while self.is_in_flight(pipeline, lane) {
            let bell = self.landed[pipeline.source()][lane].notified();
            if tokio::time::timeout(PATIENCE, bell).await.is_err() {
                self.demand(pipeline.target(), LATEST);
            }
        }
        self.withdraw(pipeline.target());
    }

    /// Returns when there may be something for the lane to do.
    pub async fn wait_for_work(&self, pipeline: PipelineId, lane: usize, at_most: Duration) {
        let bell = self.work[pipeline.source()][lane].notified();
        let _ = tokio::time::timeout(at_most, bell).await;
    }

    /// Returns once the reader of `side` has passed `time`.
    pub async fn wait_passed(&self, side: Side, time: Timestamp) {
        let mut complete = self.complete[side].subscribe();
        loop {
            if *complete.borrow_and_update() >= time {
                return;
            }
            self.demand(side, time);
            let changed = complete.changed();
            if tokio::time::timeout(PATIENCE, changed).await.is_err() {
                self.ask_for_marker(side);
            }
        }
    }

    pub fn ask_for_marker(&self, side: Side) {
        self.marker_wanted[side].notify_one();
    }

    pub async fn marker_wanted(&self, side: Side) {
        self.marker_wanted[side].notified().await;
    }

    /// Returns once the reader of `side` may go on: its queue has room, or somebody needs it to
    /// come further. While recovering everybody does, since nothing is applied before its end.
    pub async fn wait_for_room(&self, side: Side) {
        loop {
            let (bytes, complete, recovered) = {
                let ledger = self.ledger();
                let complete = ledger.complete_of(side).time;
                (ledger.queue_bytes(side), complete, ledger.is_recovered())
            };
            if bytes < self.queue_bytes_max || !recovered || lock(&self.needed)[side] > complete {
                return;
            }
            self.room[side].notified().await;
        }
    }

    fn demand(&self, side: Side, time: Timestamp) {
        let mut needed = lock(&self.needed);
        needed[side] = needed[side].max(time);
        self.room[side].notify_one();
    }

    fn withdraw(&self, side: Side) {
        let mut needed = lock(&self.needed);
        if needed[side] == LATEST {
            needed[side] = NEVER;
        }
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

/// Later than anything: wait for whatever is there.
const LATEST: Timestamp = Timestamp {
    time: u32::MAX,
    increment: u32::MAX,
};

/// A panic ends the process, so a poisoned lock is never met by a living one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
