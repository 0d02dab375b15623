//! The next batch of a lane, decided.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use smallvec::smallvec;

use super::decide::{Action, Decision, Events, decide};
use super::gate::Gates;
use super::ledger::{Lane, Ledger};
use super::notes::LostWrite;
use super::state::{KeyState, Known};
use super::{requests, settle};
use crate::change::{Ahead, DocumentKey, KeyMap, PipelineId, Position, SharedEvent};
use crate::error::Result;

/// How much one transaction may take.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    pub operations_max: usize,
    pub bytes_max: usize,
}

/// What earlier tries at the same events have taught.
#[derive(Debug, Clone, Default)]
pub struct Caution {
    /// Their deltas cannot be applied.
    pub full_state: HashSet<DocumentKey>,
    /// They cannot be applied at all.
    pub dead_letters: HashSet<DocumentKey>,
}

/// A batch with its decisions, ready to become one transaction.
#[derive(Debug, Clone)]
pub struct Plan {
    pub pipeline: PipelineId,
    /// What it takes of which lanes; the first one is the lane whose transaction it becomes.
    pub shares: Vec<Share>,
    /// The events it takes from the front of the lanes' queues, share by share.
    pub batch: Vec<SharedEvent>,
    /// One for each key, share by share in the order of their first event; they stay where they are.
    pub decisions: Vec<Decision>,
    /// Requests for full state it takes from the front of the lane's list.
    pub requests: usize,
    /// Documents to be settled that it takes from the front of the lane's list.
    pub settles: usize,
    /// How often something had changed lanes by then: after that the front may be another one.
    pub(super) moved: u64,
    /// The target snapshot to run at: the complete time of the target's reader.
    pub fence: Position,
    /// The complete time of the source's reader: where full state is read.
    pub read_at: Position,
    /// Keys whose events are put aside.
    pub dead_letters: HashSet<DocumentKey>,
    /// The losing writes that the transaction puts on record; filled in before it begins.
    pub records: HashMap<DocumentKey, Vec<LostWrite>>,
    /// Of dead letters on a unique index: the document that has the value.
    pub collided_with: HashMap<DocumentKey, DocumentKey>,
    /// Events of namespaces that are no longer paired.
    pub passed_over: usize,
}

/// What a plan takes of one lane.
#[derive(Debug, Clone)]
pub struct Share {
    pub lane: usize,
    /// So many events of the batch.
    pub events: usize,
    /// So many of the decisions.
    pub decisions: usize,
    /// What the lane's checkpoint becomes.
    pub through: Position,
    /// What that says of a stretch that is not at its end.
    pub ahead: Option<Ahead>,
}

impl Plan {
    /// The lane whose transaction it becomes.
    pub fn leader(&self) -> usize {
        self.shares[0].lane
    }

    /// Whether it takes something of more than one lane.
    pub fn is_joint(&self) -> bool {
        self.shares.len() > 1
    }

    /// The decisions about each share.
    pub fn decisions_by_share(&self) -> impl Iterator<Item = (&Share, &[Decision])> {
        let mut left = self.decisions.as_slice();
        self.shares.iter().map(move |share| {
            let (decisions, behind) = left.split_at(share.decisions);
            left = behind;
            (share, decisions)
        })
    }

    /// The last event of each share that has any.
    pub fn last_events(&self) -> impl Iterator<Item = &SharedEvent> {
        let mut end = 0;
        self.shares.iter().filter_map(move |share| {
            end += share.events;
            let last = (share.events > 0).then(|| end - 1)?;
            self.batch.get(last)
        })
    }

    /// Which of its shares is about a document.
    pub fn share_of(&self, key: &DocumentKey) -> Option<usize> {
        let mut shares = self.decisions_by_share();
        shares.position(|(_, decisions)| decisions.iter().any(|one| one.key == *key))
    }

    /// Events or requests that it takes.
    pub fn size(&self) -> usize {
        self.batch.len().max(self.requests).max(self.settles)
    }

    /// One that takes too long takes as long with fewer of its events.
    pub fn is_of_one_document(&self) -> bool {
        self.decisions.len() <= 1
    }

    /// Whether nothing but a checkpoint moves.
    pub fn is_progress_alone(&self) -> bool {
        self.batch.is_empty() && self.decisions.is_empty()
    }

    /// Whether it is about events, or about documents that nobody has compared.
    pub(super) fn must_wait_while_held(&self) -> bool {
        !self.batch.is_empty() || self.requests > 0
    }

    /// Copies that are inserted, not put in the place of something.
    pub fn fresh(&self) -> impl Iterator<Item = &DocumentKey> {
        let fresh = self.decisions.iter().filter(|decision| decision.fresh);
        fresh.map(|decision| &decision.key)
    }

    /// Learns which documents in conflict turned out the same on both sides: nobody has lost there.
    pub fn agree(&mut self, same: impl Fn(&DocumentKey) -> bool) {
        for decision in &mut self.decisions {
            let same = decision.conflict.is_some() && same(&decision.key);
            decision.same |= same;
        }
    }

    pub(super) fn records_of(&self, decision: &Decision) -> &[LostWrite] {
        self.records
            .get(&decision.key)
            .map_or(&[], |lost| lost.as_slice())
    }
}

/// Why a lane has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitingOn {
    /// The target's reader has not passed the moment of the start.
    Recovery,
    /// Its own commit has not come back on the target's stream.
    CommitEcho,
    /// What its events meet has not been copied yet.
    InitialSync,
    /// The next events come after a change of a collection, which comes first.
    Ddl,
    /// An operator has paused the pipeline.
    Resume,
}

/// What a lane does next.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one of them is alive at a time, for a moment"
)]
pub enum Next {
    Apply(Plan),
    Wait(WaitingOn),
    /// Its queue is empty.
    Idle,
}

impl Ledger {
    /// Takes the next batch of a lane and decides every key of it. Changes nothing.
    ///
    /// # Errors
    /// As the spools say.
    pub fn plan(
        &self,
        pipeline: PipelineId,
        lane: usize,
        limits: BatchLimits,
        caution: &Caution,
    ) -> Result<Next> {
        let (source, target) = (pipeline.source(), pipeline.target());
        let state = &self.clusters[source].lanes[lane];
        let gates = &self.clusters[source].gates;
        if !self.may_apply(pipeline) {
            return Ok(Next::Wait(WaitingOn::Recovery));
        }
        if state.in_flight.is_some() {
            return Ok(Next::Wait(WaitingOn::CommitEcho));
        }
        // Somebody waits for that, and requests may never end.
        if gates.settling && self.idle_progress(pipeline, lane).is_some() {
            return Ok(nothing_to_do(state));
        }
        let has_requests = self.has_requests(state);
        let has_settles = self.is_recovered() && !state.settles.is_empty();
        let has_events = !state.is_idle(gates);
        if !has_requests && !has_settles && !has_events {
            return Ok(nothing_to_do(state));
        }
        if self.clusters[source].paused {
            return Ok(Next::Wait(WaitingOn::Resume));
        }
        let held = self.clusters[source].held;
        if held && !has_settles {
            return Ok(Next::Wait(WaitingOn::InitialSync));
        }
        let events_are_next = has_events && state.took_requests && !held;
        let (mut batch, mut requests, mut settles) = (Vec::new(), 0, 0);
        if self.takes_requests(pipeline, lane) {
            requests = requests::take(state, limits);
        } else if has_settles && !events_are_next {
            settles = settle::take(state, limits);
        } else {
            batch = take(state, gates, limits);
        }
        let mut plan = Plan {
            pipeline,
            shares: Vec::new(),
            decisions: Vec::new(),
            requests,
            settles,
            moved: self.moved,
            fence: self.clusters[target].complete.clone(),
            read_at: self.clusters[source].complete.clone(),
            dead_letters: HashSet::new(),
            records: HashMap::new(),
            collided_with: HashMap::new(),
            passed_over: 0,
            batch: Vec::new(),
        };
        self.add_share(&mut plan, lane, batch, caution)?;
        if self.rules.mode.sends(source) {
            self.decide_requests(&mut plan, caution)?;
            self.decide_settlements(&mut plan, caution)?;
            plan.shares[0].decisions = plan.decisions.len();
        }
        Ok(Next::Apply(plan))
    }

    /// Takes a batch of a lane into a plan and decides every key of it.
    pub(super) fn add_share(
        &self,
        plan: &mut Plan,
        lane: usize,
        batch: Vec<SharedEvent>,
        caution: &Caution,
    ) -> Result<()> {
        let source = plan.pipeline.source();
        let before = plan.decisions.len();
        if self.rules.mode.sends(source) {
            self.decide_each_key(plan, &batch, caution)?;
        }
        let (through, ahead) = self.reached(source, lane, &batch);
        plan.shares.push(Share {
            lane,
            events: batch.len(),
            decisions: plan.decisions.len() - before,
            through,
            ahead,
        });
        match plan.batch.is_empty() {
            true => plan.batch = batch,
            false => plan.batch.extend(batch),
        }
        Ok(())
    }

    /// Full state that no write asks for must not be read before a former process's write.
    fn has_requests(&self, lane: &Lane) -> bool {
        self.is_recovered() && !lane.requests.is_empty()
    }

    /// Whether a lane that may apply takes requests next. They and events have their turns.
    pub(super) fn takes_requests(&self, pipeline: PipelineId, lane: usize) -> bool {
        let cluster = &self.clusters[pipeline.source()];
        let state = &cluster.lanes[lane];
        let events_are_next = state.took_requests && !state.is_idle(&cluster.gates);
        self.has_requests(state) && !events_are_next && !cluster.held
    }

    fn decide_each_key(
        &self,
        plan: &mut Plan,
        batch: &[SharedEvent],
        caution: &Caution,
    ) -> Result<()> {
        let (by_key, passed_over) = self.by_key(batch);
        plan.passed_over += passed_over;
        plan.decisions.reserve(by_key.len());
        for events in by_key {
            let key = events[0].key.clone();
            let dead = caution.dead_letters.contains(&key);
            let full_state = caution.full_state.contains(&key);
            let mut decision = self.decide_key(plan, &key, events, full_state)?;
            if dead && decision.action != Action::Skip {
                decision.action = Action::Skip;
                decision.conflict = None;
                plan.dead_letters.insert(key);
            }
            plan.decisions.push(decision);
        }
        Ok(())
    }

    /// The events of each key, in the order of the first one of each, and how many have no
    /// counterpart any more.
    fn by_key(&self, batch: &[SharedEvent]) -> (Vec<Events>, usize) {
        let mut by_key: Vec<Events> = Vec::with_capacity(batch.len());
        let mut places: KeyMap<usize> =
            KeyMap::with_capacity_and_hasher(batch.len(), Default::default());
        let mut passed_over = 0;
        for event in batch {
            if self.unpaired.contains(event.key.namespace()) {
                passed_over += 1;
                continue;
            }
            match places.entry(event.key.clone()) {
                Entry::Occupied(place) => by_key[*place.get()].push(event.clone()),
                Entry::Vacant(place) => {
                    place.insert(by_key.len());
                    by_key.push(smallvec![event.clone()]);
                }
            }
        }
        (by_key, passed_over)
    }

    /// Everything that is known of a document.
    pub(super) fn known<'a>(&'a self, key: &'a DocumentKey, unknown: &'a KeyState) -> Known<'a> {
        Known {
            key,
            state: self.keys.get(key).unwrap_or(unknown),
            tails: self.clusters.as_ref().map(|cluster| &cluster.tail),
        }
    }

    pub(super) fn decide_key(
        &self,
        plan: &Plan,
        key: &DocumentKey,
        batch: Events,
        full_state: bool,
    ) -> Result<Decision> {
        let unknown = KeyState::default();
        decide(
            &self.rules,
            plan.pipeline.source(),
            self.known(key, &unknown),
            batch,
            full_state,
            plan.read_at.time,
        )
    }
}

/// Of a lane that has nothing from before the next gate.
fn nothing_to_do(lane: &Lane) -> Next {
    match lane.queue.is_empty() {
        true => Next::Idle,
        false => Next::Wait(WaitingOn::Ddl),
    }
}

pub(super) fn take(lane: &Lane, gates: &Gates, limits: BatchLimits) -> Vec<SharedEvent> {
    let mut bytes = 0;
    lane.queue
        .iter()
        .take(lane.stretch_left().unwrap_or(usize::MAX))
        .take_while(|event| !gates.holds(&event.position))
        .take(limits.operations_max.max(1))
        .enumerate()
        .take_while(|(index, event)| {
            bytes += event.bytes();
            *index == 0 || bytes <= limits.bytes_max
        })
        .map(|(_, event)| event.clone())
        .collect()
}
