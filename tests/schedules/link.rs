//! Drives the real ledger: readers, lanes, notes, crashes.

use std::collections::VecDeque;
use std::sync::Arc;

use tandem::change::{DocumentKey, Pair, PipelineId, Position, Side};
use tandem::resolve::{Caution, Ledger, Next, NoteToClear, Plan, Settlement, Ticket};

use crate::before::fill;
use crate::cluster::{Checkpoint, Cluster, Entry, keys, timestamp};
use crate::options::{Before, Broken, Options};
use crate::random::Random;
use crate::restart::new_ledger;
use crate::trace::{Trace, describe};
use crate::transaction::{Refused, agree, commit, fill_in_records, limits, passed_by, settle};

/// What a checkpoint says and what was applied are not the same.
pub const NOT_APPLIED: &str = "a checkpoint passes events that were not applied";

/// How far a lane's next transaction has come.
#[derive(Default)]
enum Stage {
    #[default]
    Ready,
    Planned(Box<Plan>),
    Begun(Arc<Plan>),
    /// Another lane's transaction takes its events along.
    TakenAlong,
}

#[derive(Default)]
struct Lane {
    stage: Stage,
    caution: Caution,
}

pub struct Link {
    pub clusters: Pair<Cluster>,
    pub ledger: Ledger,
    pub keys: Arc<[DocumentKey]>,
    pub options: Options,
    pub trace: Trace,
    /// A rule of the process that was seen broken on the way.
    pub broken_on_the_way: Option<&'static str>,
    /// Applications have ended: from now on nothing is done but what is left to do.
    pub is_draining: bool,
    /// The next log entry that each reader reads.
    cursor: Pair<usize>,
    recover_to: Pair<u32>,
    /// Whether the writes of former processes have been foreseen, before anything is read.
    foreseen: Pair<bool>,
    lanes: Pair<Vec<Lane>>,
    /// Copies that have been asked for; none once all have been made.
    pub copies: Option<Ticket>,
    pub copied: bool,
    /// Documents that are to be settled; none once all have been.
    pub settlement: Option<Arc<Settlement>>,
    pub settled: bool,
    pub notes_to_clear: VecDeque<NoteToClear>,
    pub paid_to_forget: VecDeque<NoteToClear>,
}

impl Link {
    pub fn new(options: Options, trace: Trace) -> Self {
        let keys = keys(options.keys);
        let cluster = |side| Cluster::new(side, keys.clone(), options.lanes);
        let mut clusters = Pair::new(cluster(Side::A), cluster(Side::B));
        fill(&mut clusters, &options);
        let mut link = Self {
            ledger: new_ledger(&options, &clusters),
            clusters,
            keys,
            options,
            trace,
            broken_on_the_way: None,
            is_draining: false,
            cursor: Pair::default(),
            recover_to: Pair::default(),
            foreseen: Pair::default(),
            lanes: Pair::new(Vec::new(), Vec::new()),
            copies: None,
            copied: options.before != Before::Copied,
            settlement: None,
            settled: !matches!(options.before, Before::Merged | Before::Settled),
            notes_to_clear: VecDeque::new(),
            paid_to_forget: VecDeque::new(),
        };
        link.start();
        link
    }

    /// Start or restart: everything but the clusters is forgotten.
    pub fn start(&mut self) {
        self.trace.step(|| "start".to_owned());
        self.ledger = new_ledger(&self.options, &self.clusters);
        self.notes_to_clear.clear();
        self.paid_to_forget.clear();
        for side in Side::BOTH {
            let lanes = 0..self.options.lanes;
            self.lanes[side] = lanes.map(|_| Lane::default()).collect();
            self.recover_to[side] = self.clusters[side].time;
            self.foreseen[side] = false;
            let checkpoints = self.clusters[side.other()].checkpoints.iter();
            let from = checkpoints.map(|checkpoint| &checkpoint.through).min();
            let from = from.expect("a lane");
            self.cursor[side] = self.clusters[side]
                .log
                .iter()
                .position(|logged| match &logged.entry {
                    Entry::Local(write) => write.event.position > *from,
                    Entry::Own { .. } => timestamp(logged.time) > from.time,
                })
                .unwrap_or(self.clusters[side].log.len());
            self.restore_notes(side);
        }
        if !self.copied {
            self.ask_for_copies();
        }
        if !self.settled {
            self.ask_for_settlement();
        }
    }

    pub fn reader_is_at_head(&self, side: Side) -> bool {
        self.cursor[side] == self.clusters[side].log.len()
            && self.ledger.complete_of(side).time >= timestamp(self.clusters[side].time)
    }

    /// The reader of `side` foresees, or hands over the next cluster time, whole, if there is room.
    pub fn read(&mut self, side: Side) {
        if !self.foreseen[side] {
            return self.foresee(side);
        }
        if !self.has_room(side) {
            return;
        }
        let Some(first) = self.clusters[side].log.get(self.cursor[side]) else {
            return self.complete(side, self.clusters[side].time);
        };
        let time = first.time;
        loop {
            self.hand_over(side);
            let next = self.clusters[side].log.get(self.cursor[side]);
            let split = self.options.broken == Broken::CompleteTimes;
            if split || next.is_none_or(|next| next.time != time) {
                break;
            }
        }
        self.complete(side, time);
    }

    fn has_room(&self, side: Side) -> bool {
        let room = &self.options.room;
        let is_full = self.ledger.queue_bytes(side) >= room.queue_bytes_max;
        let waits = self.options.broken == Broken::Room && is_full;
        !waits && self.ledger.has_room(side)
    }

    fn foresee(&mut self, side: Side) {
        self.foreseen[side] = true;
        let log = self.clusters[side].log[self.cursor[side]..].iter();
        let former = log.filter(|logged| logged.time <= self.recover_to[side]);
        for logged in former.filter(|_| self.options.broken != Broken::Recovery) {
            if let Entry::Own { keys, .. } = &logged.entry {
                let at = timestamp(logged.time);
                for key in keys {
                    self.ledger.foresee_own_write(side, &self.keys[*key], at);
                }
            }
        }
        self.ledger.own_writes_known(side);
    }

    fn complete(&mut self, side: Side, time: u32) {
        let through = Position::after_all_of(timestamp(time), "");
        if self.ledger.complete_of(side) < &through {
            self.trace
                .step(|| format!("{} is read through {time}", side.as_str()));
        }
        self.ledger.complete(side, through);
    }

    fn hand_over(&mut self, side: Side) {
        let logged = &self.clusters[side].log[self.cursor[side]];
        self.cursor[side] += 1;
        match &logged.entry {
            Entry::Local(write) => {
                let waits = self.ledger.observe(side, write.event.clone());
                let waits = waits.expect("a spool in memory");
                let id = write.id;
                self.trace
                    .step(|| format!("{} tells of write {id}, waits: {waits}", side.as_str()));
            }
            Entry::Own { pipeline, lane, .. } => {
                let at = timestamp(logged.time);
                let landed = self.ledger.landed(*pipeline, *lane, at);
                let landed = landed.expect("a spool in memory");
                self.trace.step(|| {
                    let through = landed.applied_through.as_ref();
                    let through = through.map(|at| (at.0.time.time, &at.0.token));
                    let id = pipeline.as_str();
                    format!("{id} lane {lane} has landed, applied through {through:?}")
                });
                self.notes_to_clear.extend(landed.notes_to_clear);
            }
        }
    }

    /// Takes a lane one step on: plan, begin, commit.
    pub fn advance(&mut self, pipeline: PipelineId, lane: usize, random: &mut Random) {
        self.finish_copies();
        self.finish_settlement();
        let stage = &mut self.lanes[pipeline.source()][lane].stage;
        let next = match std::mem::take(stage) {
            Stage::Ready => self.plan(pipeline, lane, random),
            Stage::TakenAlong => Stage::TakenAlong,
            Stage::Planned(plan) if random.one_in(20) => self.let_go(&plan),
            Stage::Planned(mut plan) => {
                self.break_plan(&mut plan);
                if self.options.broken != Broken::Agreement {
                    agree(&self.clusters, &self.keys, &mut plan);
                }
                settle(&self.clusters, &self.keys, &mut plan, &self.options);
                fill_in_records(&self.clusters, &self.keys, &mut plan);
                let plan = Arc::<Plan>::from(plan);
                match self.ledger.begin(plan.clone()) {
                    true => Stage::Begun(plan),
                    false => self.let_go(&plan),
                }
            }
            Stage::Begun(plan) => {
                if random.one_in(20) {
                    self.trace.step(|| "the commit fails".to_owned());
                    self.ledger.abandon(pipeline, lane);
                } else {
                    self.commit(&plan);
                }
                self.let_go(&plan)
            }
        };
        self.lanes[pipeline.source()][lane].stage = next;
    }

    fn plan(&mut self, pipeline: PipelineId, lane: usize, random: &mut Random) -> Stage {
        if !self.is_draining && random.one_in(10) {
            let idle = self.ledger.plan_idle_progress(pipeline, lane);
            return idle.map_or(Stage::Ready, |plan| Stage::Planned(Box::new(plan)));
        }
        if random.one_in(2) {
            let operations_max = 1 + random.below(self.options.batch_operations_max);
            self.ledger.begin_stretch(pipeline, lane, operations_max);
        }
        if random.one_in(20) {
            self.ledger.break_off_stretch(pipeline, lane);
        }
        let limits = limits(1 + random.below(self.options.batch_operations_max));
        let caution = &self.lanes[pipeline.source()][lane].caution;
        let next = self.ledger.plan(pipeline, lane, limits, caution);
        match next.expect("a spool in memory") {
            Next::Apply(mut plan) => {
                if random.one_in(2) {
                    self.take_along(&mut plan, random);
                }
                self.trace
                    .step(|| describe(&plan, &self.clusters, &self.keys));
                Stage::Planned(Box::new(plan))
            }
            Next::Wait(_) | Next::Idle => Stage::Ready,
        }
    }

    /// What other lanes have that do nothing and know of no refusal.
    fn take_along(&mut self, plan: &mut Plan, random: &mut Random) {
        let lanes = &mut self.lanes[plan.pipeline.source()];
        let is_free = |at: &usize| matches!(lanes[*at].stage, Stage::Ready) && *at != plan.leader();
        let others = (0..lanes.len()).filter(is_free);
        let others: Vec<_> = others.map(|at| (at, &lanes[at].caution)).collect();
        let most = limits(1 + random.below(2 * self.options.batch_operations_max));
        let taken = self.ledger.take_along(plan, &others, most);
        taken.expect("a spool in memory");
        for share in &plan.shares[1..] {
            lanes[share.lane].stage = Stage::TakenAlong;
        }
    }

    /// The lanes that a plan takes along are free again.
    fn let_go(&mut self, plan: &Plan) -> Stage {
        for share in &plan.shares[1..] {
            self.lanes[plan.pipeline.source()][share.lane].stage = Stage::Ready;
        }
        Stage::Ready
    }

    fn break_plan(&self, plan: &mut Plan) {
        if self.options.broken == Broken::Owed {
            for decision in &mut plan.decisions {
                decision.leave_note = None;
            }
        }
    }

    fn commit(&mut self, plan: &Plan) {
        let (pipeline, lane) = (plan.pipeline, plan.leader());
        self.check_checkpoints(plan);
        let outcome = commit(&mut self.clusters, &self.keys, plan, self.options.broken);
        self.trace.step(|| {
            let time = self.clusters[pipeline.target()].time;
            format!(
                "{} lane {lane} commits at {time}: {outcome:?}",
                pipeline.as_str()
            )
        });
        match outcome {
            Ok(()) => {
                let lanes = &mut self.lanes[pipeline.source()];
                let shares = plan.shares.iter();
                shares.for_each(|share| lanes[share.lane].caution = Caution::default());
                if self.options.broken == Broken::Included {
                    self.forget_included(plan);
                }
            }
            Err(refused) => {
                if let Refused::Missing(key) = refused {
                    let share = plan.share_of(&key).expect("a key of the plan");
                    let lane = plan.shares[share].lane;
                    let state = &mut self.lanes[pipeline.source()][lane];
                    state.caution.full_state.insert(key);
                }
                self.ledger.abandon(pipeline, lane);
            }
        }
    }

    /// The ledger is made to believe that the full states were read before all time.
    fn forget_included(&mut self, plan: &Plan) {
        let mut plan = plan.clone();
        plan.read_at.time = timestamp(0);
        self.ledger.begin(Arc::new(plan));
    }

    /// A checkpoint goes past the events of its share of the batch, and past no others.
    fn check_checkpoints(&mut self, plan: &Plan) {
        let (source, target) = (plan.pipeline.source(), plan.pipeline.target());
        let batch = plan.batch.iter();
        let mut batch = batch.map(|event| self.clusters[source].local(event).id);
        for share in &plan.shares {
            let mut events: Vec<_> = batch.by_ref().take(share.events).collect();
            events.sort_unstable();
            let to = Checkpoint::of(share);
            let mut passed: Vec<_> = passed_by(
                &self.clusters[source],
                &self.keys,
                share.lane,
                self.options.lanes,
                &self.clusters[target].checkpoints[share.lane],
                &to,
            )
            .collect();
            passed.sort_unstable();
            if events != passed {
                self.broken_on_the_way = Some(NOT_APPLIED);
            }
        }
    }

    pub fn request_full_state(&mut self, pipeline: PipelineId, key: usize) {
        self.trace
            .step(|| format!("full state of {key} is asked of {}", pipeline.as_str()));
        self.ledger
            .request_full_state(pipeline, self.keys[key].clone());
    }

    pub fn is_idle(&self) -> bool {
        Side::BOTH.iter().all(|side| self.reader_is_at_head(*side))
            && self.copied
            && self.settled
            && self.notes_to_clear.is_empty()
            && self.paid_to_forget.is_empty()
            && PipelineId::BOTH.iter().all(|pipeline| {
                let lanes = &self.lanes[pipeline.source()];
                lanes.iter().enumerate().all(|(at, lane)| {
                    matches!(lane.stage, Stage::Ready) && self.lane_is_idle(*pipeline, at)
                })
            })
    }

    fn lane_is_idle(&self, pipeline: PipelineId, lane: usize) -> bool {
        let next = self
            .ledger
            .plan(pipeline, lane, limits(1), &Caution::default());
        matches!(next, Ok(Next::Idle))
    }
}
