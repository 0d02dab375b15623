//! What is known about every document with writes under way, and the queues they wait in.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bson::Timestamp;

use super::copies::Written;
use super::gate::Gates;
use super::joined::Joined;
use super::notes::NoteToClear;
use super::plan::Plan;
use super::recovery::Room;
use super::requests::Request;
use super::retries::Retries;
use super::rules::Rules;
use super::spool::Tail;
use super::state::KeyState;
use super::stretch::Stretch;
use super::tally::SettleRequest;
use super::{Action, Decision};
use crate::change::{
    Ahead, AppliedThrough, KeyMap, Namespace, Pair, PipelineId, Position, SharedEvent, Side,
};
use crate::error::Result;

/// One lane of a pipeline, as far as deciding goes.
#[derive(Debug)]
pub(super) struct Lane {
    pub queue: VecDeque<SharedEvent>,
    pub queue_bytes: usize,
    pub applied_through: AppliedThrough,
    /// What is applied beyond that.
    pub ahead: Option<Ahead>,
    pub stretch: Option<Stretch>,
    /// No stretch before this: one that was broken off ends here.
    pub by_history: Option<Position>,
    pub requests: VecDeque<Request>,
    pub settles: VecDeque<SettleRequest>,
    /// The last transaction took requests: events are next.
    pub took_requests: bool,
    pub in_flight: Option<Arc<Plan>>,
}

/// Everything that was observed on one cluster, and the pipeline that starts there.
#[derive(Debug)]
pub(super) struct Cluster {
    /// The largest cluster time of which every event is known.
    pub complete: Position,
    /// Nothing is applied here before the reader has passed the moment of the start.
    pub recover_to: Timestamp,
    /// The last write of former processes to each document, by its digest, until the reader has
    /// passed the start.
    pub foreseen: HashMap<[u8; 16], Timestamp>,
    /// Whether all of them up to the start are known.
    pub own_writes_known: bool,
    pub lanes: Vec<Lane>,
    /// Whatever starts here waits, but for documents to be settled.
    pub held: bool,
    /// An operator has paused the pipeline that starts here: nothing of it is applied.
    pub paused: bool,
    pub gates: Gates,
    /// What waits behind the queues of all lanes.
    pub tail: Tail,
    /// While its documents are copied.
    pub written: Option<Written>,
}

/// What a commit settled.
#[derive(Debug, Default)]
pub struct Landed {
    pub applied_through: Option<AppliedThrough>,
    pub notes_to_clear: Vec<NoteToClear>,
    /// Lanes of the same pipeline that got events which had waited behind the queues.
    pub refilled: Vec<usize>,
    /// A lane of the other pipeline, or the same one, is asked to settle something.
    pub asked: bool,
}

/// The ledger of a link. Both readers write into it, all lanes decide from it.
#[derive(Debug)]
pub struct Ledger {
    pub(super) rules: Rules,
    pub(super) room: Room,
    pub(super) keys: KeyMap<KeyState>,
    pub(super) clusters: Pair<Cluster>,
    pub(super) unpaired: HashSet<Namespace>,
    /// Namespaces whose documents share a lane.
    pub(super) single_lane: HashSet<Namespace>,
    /// How often what waits in lanes was moved to others.
    pub(super) moved: u64,
    /// While both sides are merged for the first time.
    pub(super) joined: Option<Joined>,
    pub(super) retries: Retries,
}

impl Ledger {
    /// `checkpoints[x]` are the positions on x that the lanes of the pipeline from x resume from,
    /// `recover_to[x]` the operation time of x at the start.
    pub fn new(
        rules: Rules,
        checkpoints: Pair<Vec<AppliedThrough>>,
        recover_to: Pair<Timestamp>,
    ) -> Self {
        let cluster = |lanes: Vec<AppliedThrough>, recover_to| Cluster {
            complete: lanes.iter().map(|at| at.0.clone()).min().expect("a lane"),
            recover_to,
            foreseen: HashMap::new(),
            own_writes_known: false,
            lanes: lanes.into_iter().map(Lane::starting_at).collect(),
            held: false,
            paused: false,
            gates: Gates::default(),
            tail: Tail::default(),
            written: None,
        };
        Self {
            rules,
            room: Room::UNLIMITED,
            keys: KeyMap::default(),
            clusters: Pair::new(
                cluster(checkpoints.a, recover_to.a),
                cluster(checkpoints.b, recover_to.b),
            ),
            unpaired: HashSet::new(),
            single_lane: HashSet::new(),
            moved: 0,
            joined: None,
            retries: Retries::default(),
        }
    }

    /// A local write of `side`, in the order of its history. Returns whether a lane waits for it.
    ///
    /// # Errors
    /// As the spool says; the history has a hole then.
    pub fn observe(&mut self, side: Side, event: SharedEvent) -> Result<bool> {
        self.note_written(side, &event.key, event.position.time);
        if self.unpaired.contains(event.key.namespace()) {
            return Ok(false);
        }
        let at = self.lane_of(side, &event.key);
        if self.is_applied(side, at, &event) {
            return Ok(false);
        }
        self.retry_collided(&event.key);
        if self.must_spool(side) {
            self.spool(side, &event)?;
            return Ok(false);
        }
        self.enqueue(side, at, event);
        Ok(true)
    }

    pub(super) fn enqueue(&mut self, side: Side, lane: usize, event: SharedEvent) {
        let foreseen = self.foreseen(side, &event.key);
        let state = self.keys.entry(event.key.clone()).or_default();
        state.last_applied[side] = state.last_applied[side].max(foreseen);
        state.pending[side].push_back(event.clone());
        let lane = &mut self.clusters[side].lanes[lane];
        lane.queue_bytes += event.memory_bytes();
        lane.queue.push_back(event);
    }

    /// Every event of `side` up to here has been observed.
    pub fn complete(&mut self, side: Side, through: Position) {
        if self.clusters[side].complete >= through {
            return;
        }
        let was_recovered = self.is_recovered();
        self.clusters[side].complete = through;
        self.after_progress(side, was_recovered);
    }

    pub fn complete_of(&self, side: Side) -> &Position {
        &self.clusters[side].complete
    }

    /// The plan's transaction is about to be committed. Returns whether it may be: not where its
    /// pipeline has been held or paused since the decision, or something has changed lanes.
    ///
    /// From here on nobody knows whether it has been, until [`Ledger::landed`] or
    /// [`Ledger::abandon`] says so.
    pub fn begin(&mut self, plan: Arc<Plan>) -> bool {
        let cluster = &mut self.clusters[plan.pipeline.source()];
        let must_wait = cluster.paused || plan.moved != self.moved;
        if must_wait && plan.size() > 0 || cluster.held && plan.must_wait_while_held() {
            return false;
        }
        for share in &plan.shares {
            cluster.lanes[share.lane].in_flight = Some(plan.clone());
        }
        true
    }

    /// The transaction was not committed and never will be.
    pub fn abandon(&mut self, pipeline: PipelineId, lane: usize) {
        let lanes = &mut self.clusters[pipeline.source()].lanes;
        let plan = lanes[lane].in_flight.take();
        for share in plan.iter().flat_map(|plan| &plan.shares) {
            lanes[share.lane].in_flight = None;
        }
    }

    pub fn is_in_flight(&self, pipeline: PipelineId, lane: usize) -> bool {
        let lane = &self.clusters[pipeline.source()].lanes[lane];
        lane.in_flight.is_some()
    }

    /// The reader has come past the commit, which took place at `at`. Nothing happens if no plan is
    /// in flight.
    ///
    /// # Errors
    /// As the spool says.
    pub fn landed(&mut self, pipeline: PipelineId, lane: usize, at: Timestamp) -> Result<Landed> {
        let source = pipeline.source();
        let Some(plan) = self.clusters[source].lanes[lane].in_flight.take() else {
            return Ok(Landed::default());
        };
        let mut landed = Landed::default();
        if !self.keeps_pending(source) {
            for event in &plan.batch {
                self.take_pending(source, event);
            }
        }
        for decision in &plan.decisions {
            if plan.requests == 0 || !self.leaves_nothing(decision) {
                let notes = self.settle(&plan, decision, at);
                landed.notes_to_clear.extend(notes);
            }
            if decision.action != Action::Skip {
                self.retry_collided(&decision.key);
                self.note_written(pipeline.target(), &decision.key, at);
                self.note_joined(&decision.key);
            }
        }
        self.note_what_stands_in_the_way(&plan);
        for event in &plan.batch {
            self.forget_if_settled(&event.key);
        }
        if plan.requests + plan.settles > 0 {
            for decision in &plan.decisions {
                self.forget_if_settled(&decision.key);
            }
        }
        self.take_off(&plan);
        landed.applied_through = Some(self.clusters[source].lanes[lane].applied_through.clone());
        landed.asked = self.settlements_landed(&plan) | self.retry_postponed(&plan);
        landed.refilled = self.refill(source)?;
        Ok(landed)
    }

    /// What a plan has applied waits no longer.
    fn take_off(&mut self, plan: &Plan) {
        let lanes = &mut self.clusters[plan.pipeline.source()].lanes;
        let mut events = plan.batch.iter();
        for share in &plan.shares {
            let lane = &mut lanes[share.lane];
            lane.in_flight = None;
            for event in events.by_ref().take(share.events) {
                let front = lane.queue.pop_front();
                debug_assert!(front.is_some_and(|front| Arc::ptr_eq(&front, event)));
                lane.queue_bytes -= event.memory_bytes();
            }
            lane.shorten_stretch(share.events);
            lane.requests.drain(..plan.requests);
            lane.settles.drain(..plan.settles);
            lane.took_requests = plan.requests + plan.settles > 0;
            lane.applied_through = AppliedThrough(share.through.clone());
            lane.ahead = share.ahead.clone();
        }
    }

    /// In one-way mode the target's writes stay live until the source wins over them.
    pub(super) fn keeps_pending(&self, side: Side) -> bool {
        !self.rules.mode.sends(side)
    }

    /// The cluster that the pipeline's transactions are on: where nothing is applied, they only keep
    /// its progress, next to what it is about.
    pub fn lands_on(&self, pipeline: PipelineId) -> Side {
        match self.keeps_pending(pipeline.source()) {
            true => pipeline.source(),
            false => pipeline.target(),
        }
    }

    /// The events of a plan over which the other side has not won yet.
    pub fn still_pending(&self, plan: &Plan) -> Vec<SharedEvent> {
        let source = plan.pipeline.source();
        let live = |event: &&SharedEvent| {
            let state = self.keys.get(&event.key);
            state.is_some_and(|state| Some(event.position.time) > state.settled_through(source))
        };
        plan.batch.iter().filter(live).cloned().collect()
    }

    /// A local write of `side`, of which nothing is sent, that a former process has noted.
    pub fn restore_witnessed(&mut self, side: Side, event: SharedEvent) {
        let state = self.keys.entry(event.key.clone()).or_default();
        state.pending[side].push_back(event);
    }

    fn take_pending(&mut self, source: Side, event: &SharedEvent) {
        if let Some(state) = self.keys.get_mut(&event.key) {
            debug_assert!(
                state.pending[source]
                    .front()
                    .is_some_and(|front| Arc::ptr_eq(front, event))
            );
            state.pending[source].pop_front();
        }
    }

    fn settle(&mut self, plan: &Plan, decision: &Decision, at: Timestamp) -> Option<NoteToClear> {
        let (source, target) = (plan.pipeline.source(), plan.pipeline.target());
        let state = self.keys.entry(decision.key.clone()).or_default();
        if let Some(value) = &decision.leave_note {
            let gone = state.last_applied[source];
            let lost = plan.records_of(decision).iter();
            let lost = lost.filter(|write| Some(write.at) > gone).cloned();
            let noted = state.noted_mut();
            noted.owed[target] = Some(value.clone());
            noted.lost[source].extend(lost);
        }
        if decision.includes_source() {
            state.noted_mut().included[target] = Some(plan.read_at.time);
        }
        match decision.action {
            Action::Skip => {
                if plan.dead_letters.contains(&decision.key) {
                    state.noted_mut().dead[source] = true;
                }
                None
            }
            Action::Deltas => {
                state.applied_on(target, at);
                None
            }
            Action::FullState => {
                state.applied_on(target, at);
                if let Some(noted) = state.if_noted() {
                    noted.lost[source].retain(|write| write.at > plan.read_at.time);
                    noted.dead[source] = false;
                }
                decision.replaces_lost().then(|| NoteToClear {
                    side: source,
                    key: decision.key.clone(),
                    value: decision.pays_note.clone(),
                    replaced_through: plan.fence.time,
                })
            }
        }
    }

    /// From now on the namespace's events are passed over, those waiting in queues too.
    pub fn unpair(&mut self, namespace: Namespace) {
        self.unpaired.insert(namespace);
    }

    pub fn is_unpaired(&self, namespace: &Namespace) -> bool {
        self.unpaired.contains(namespace)
    }

    /// Bytes of memory that the queues of the pipeline from `side` hold.
    pub fn queue_bytes(&self, side: Side) -> usize {
        let lanes = self.clusters[side].lanes.iter();
        lanes.map(|lane| lane.queue_bytes).sum()
    }

    /// Keys with anything unsettled.
    pub fn entries(&self) -> usize {
        self.keys.len()
    }
}

impl Lane {
    /// Whether nothing is left to apply from before the next gate.
    pub fn is_idle(&self, gates: &Gates) -> bool {
        let front = self.queue.front();
        self.in_flight.is_none() && front.is_none_or(|event| gates.holds(&event.position))
    }

    fn starting_at(applied_through: AppliedThrough) -> Self {
        Self {
            queue: VecDeque::new(),
            queue_bytes: 0,
            applied_through,
            ahead: None,
            stretch: None,
            by_history: None,
            requests: VecDeque::new(),
            settles: VecDeque::new(),
            took_requests: false,
            in_flight: None,
        }
    }
}
