//! Documents that differ though no event tells why: a lane is asked to settle which one stays.
//!
//! The lane of either pipeline may be asked. It acts only where its source's document stays, and
//! hands the request to the other pipeline's lane where the target's does, so each of them writes
//! under its own fence with the loser's record in the same transaction. Both judge by one rule, and
//! never while either side has writes on their way that the other one's document could hold.

use std::collections::HashSet;
use std::sync::Arc;

use bson::{RawDocument, Timestamp, rawdoc};
use sha2::{Digest, Sha256};
use smallvec::smallvec;

use super::Ledger;
use super::decide::{Action, Conflict, Decision, full_state, undecided};
use super::documents::{Base, DocumentRules, Found, Verdict};
use super::ledger::Lane;
use super::plan::{BatchLimits, Caution, Plan};
use super::requests::{DOCUMENT, unread_write};
use super::state::KeyState;
use super::tally::{SettleRequest, Tally};
use crate::change::{
    ChangeEvent, DocumentKey, Mode, Operation, PipelineId, Position, Rank, RawEvent, Reason,
    SharedEvent, Side, Version,
};
use crate::error::Result;

/// What a request has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Both documents have to be read first.
    Open,
    Same,
    LeftAlone,
    Copied,
    Replaced,
    Removed,
    Impossible,
    /// The other pipeline's lane is asked.
    AskOther {
        against_writes: bool,
    },
    /// Asked again once the other pipeline has done with the document.
    AskAgain,
}

/// A decision that settles two documents.
#[derive(Debug, Clone)]
pub struct Settle {
    request: SettleRequest,
    outcome: Outcome,
    /// Of the source's oldest write that has not arrived.
    newer_since: Option<Timestamp>,
    /// Of the target's oldest write that is on record as lost and still in its document.
    lost_since: Option<Timestamp>,
    /// The source's writes that have not arrived.
    mine: Vec<SharedEvent>,
    /// The target's writes that lose if the source's document stays.
    theirs: Vec<SharedEvent>,
    may_insert: bool,
}

impl Settle {
    /// Whether both documents are needed.
    pub fn is_open(&self) -> bool {
        self.outcome == Outcome::Open
    }

    /// The last moment before the source's writes that have not arrived.
    pub fn base_at(&self) -> Option<Timestamp> {
        self.newer_since.filter(|_| self.is_open()).map(just_before)
    }

    /// The last moment before the target's writes that have lost and are still there, where that
    /// is of interest.
    pub fn target_base_at(&self) -> Option<Timestamp> {
        self.base_at().and(self.lost_since).map(just_before)
    }
}

fn just_before(at: Timestamp) -> Timestamp {
    let Timestamp { time, increment } = at;
    match increment.checked_sub(1) {
        Some(increment) => Timestamp { time, increment },
        None => Timestamp {
            time: time.saturating_sub(1),
            increment: u32::MAX,
        },
    }
}

/// How many requests the next transaction takes.
pub(super) fn take(lane: &Lane, limits: BatchLimits) -> usize {
    let mut bytes_taken = 0;
    let requests = lane.settles.iter().take(limits.operations_max.max(1));
    let fitting = requests.take_while(|request| {
        let is_first = bytes_taken == 0;
        bytes_taken += request.bytes.max(1);
        is_first || bytes_taken <= limits.bytes_max
    });
    fitting.count()
}

impl Ledger {
    /// Asks for a document to be settled, beginning with the pipeline `first`; its namespace has
    /// its lane already.
    pub fn request_settlement(&mut self, first: PipelineId, request: SettleRequest) {
        let side = match self.rules.mode {
            Mode::TwoWay => first.source(),
            Mode::OneWay { from } => from,
        };
        let lane = self.lane_of(side, &request.key);
        self.clusters[side].lanes[lane].settles.push_back(request);
    }

    pub(super) fn decide_settlements(&self, plan: &mut Plan, caution: &Caution) -> Result<()> {
        let requests = &self.clusters[plan.pipeline.source()].lanes[plan.leader()].settles;
        let mut decided: HashSet<&DocumentKey> = HashSet::new();
        for request in requests.iter().take(plan.settles) {
            let key = &request.key;
            if self.unpaired.contains(key.namespace()) || !decided.insert(key) {
                continue;
            }
            let mut decision = self.open(plan, request)?;
            if let Some(settle) = &mut decision.settle {
                settle.may_insert = !caution.full_state.contains(key);
                if caution.dead_letters.contains(key) && settle.is_open() {
                    settle.outcome = Outcome::Impossible;
                    plan.dead_letters.insert(key.clone());
                }
            }
            plan.decisions.push(decision);
        }
        Ok(())
    }

    fn open(&self, plan: &Plan, request: &SettleRequest) -> Result<Decision> {
        let (source, target) = (plan.pipeline.source(), plan.pipeline.target());
        let unknown = KeyState::default();
        let known = self.known(&request.key, &unknown);
        let (mine, theirs) = (known.live(source)?, known.live(target)?);
        // Else one of them may be on its way to the source already.
        let goes_before = request.settlement.from() == Some(source) && self.clusters[target].held;
        let outcome = match (mine.is_empty(), theirs.is_empty()) {
            _ if self.is_retried(plan.pipeline.target(), &request.key) => Outcome::AskAgain,
            // Writes on both sides are a conflict, which decides in its turn.
            (false, false) => Outcome::Same,
            // They arrive, too.
            (false, true) if self.is_joined(&request.key) => Outcome::Same,
            (true, false) if self.rules.mode.is_one_way() => Outcome::Open,
            (true, false) if goes_before && request.against_writes => Outcome::Open,
            (true, false) => Outcome::AskOther {
                against_writes: false,
            },
            (_, true) => Outcome::Open,
        };
        let unread = unread_write(&request.key, plan.read_at.time);
        let mut decision = undecided(&request.key, smallvec![unread]);
        let pending = known.pending_since(source, 0);
        decision.outlives_batch = pending.is_some_and(|since| since <= plan.read_at.time);
        if outcome == Outcome::Open {
            full_state(&mut decision, known.state, source, plan.read_at.time);
            decision.action = Action::Skip;
        }
        decision.settle = Some(Box::new(Settle {
            request: request.clone(),
            outcome,
            newer_since: mine.first().map(|event| event.position.time),
            lost_since: known.state.lost_since(target),
            mine,
            theirs,
            may_insert: true,
        }));
        Ok(decision)
    }

    /// Whether the pipeline from `side` may send full state of the document unasked by any event:
    /// neither of two such transactions would see the other one.
    fn is_retried(&self, side: Side, key: &DocumentKey) -> bool {
        let cluster = &self.clusters[side];
        let lane = &cluster.lanes[self.lane_of(side, key)];
        let in_flight = lane.in_flight.as_ref();
        let on_its_way = in_flight.is_some_and(|plan| {
            plan.requests > 0 && plan.decisions.iter().any(|other| other.key == *key)
        });
        let waits = || lane.requests.iter().any(|request| request.key == *key);
        on_its_way || (!cluster.held && waits())
    }

    /// Whether the pipeline from `side` is asked to settle the document.
    pub(super) fn is_being_settled(&self, side: Side, key: &DocumentKey) -> bool {
        let lane = &self.clusters[side].lanes[self.lane_of(side, key)];
        lane.settles.iter().any(|request| request.key == *key)
    }

    /// The transaction of a plan has been committed: counts what it did, and asks on. Returns
    /// whether anybody was asked.
    pub(super) fn settlements_landed(&mut self, plan: &Plan) -> bool {
        let mut asked = false;
        let target = plan.pipeline.target();
        for settle in plan.decisions.iter().filter_map(|d| d.settle.as_deref()) {
            let mut request = settle.request.clone();
            let next = match settle.outcome {
                Outcome::AskOther { against_writes } => {
                    request.against_writes = against_writes;
                    PipelineId::from_source(target)
                }
                Outcome::AskAgain => plan.pipeline,
                outcome => {
                    outcome.count(&mut settle.request.settlement.tally(), target);
                    continue;
                }
            };
            asked = true;
            self.request_settlement(next, request);
        }
        asked
    }
}

impl Outcome {
    fn count(self, tally: &mut Tally, target: Side) {
        match self {
            Outcome::Copied => tally.copied[target] += 1,
            Outcome::Replaced => tally.replaced[target] += 1,
            Outcome::Removed => tally.removed[target] += 1,
            Outcome::LeftAlone => tally.left_alone += 1,
            Outcome::Impossible => tally.impossible += 1,
            Outcome::Same | Outcome::Open => tally.same += 1,
            Outcome::AskOther { .. } | Outcome::AskAgain => {}
        }
    }
}

impl Plan {
    /// Documents of these namespaces are gone with their collections: nothing is to be settled.
    pub fn pass_over_settlements(&mut self, is_gone: impl Fn(&DocumentKey) -> bool) {
        for decision in &mut self.decisions {
            if let Some(settle) = &mut decision.settle
                && settle.is_open()
                && is_gone(&decision.key)
            {
                settle.outcome = Outcome::Same;
                send_nothing(decision);
            }
        }
    }

    /// Documents that stay on the target although the source's are gone, or not in the filter:
    /// nothing is sent, so nobody loses.
    pub fn keep(&mut self, is_kept: impl Fn(&DocumentKey) -> bool) {
        for decision in &mut self.decisions {
            if decision.action == Action::FullState && is_kept(&decision.key) {
                decision.conflict = None;
                if let Some(settle) = &mut decision.settle {
                    settle.outcome = Outcome::LeftAlone;
                }
                send_nothing(decision);
            }
        }
    }

    /// Decides what is open, now that the documents of both sides are known.
    pub fn settle<'a>(&mut self, rules: &DocumentRules, found: impl Fn(&DocumentKey) -> Found<'a>) {
        let moments = Moments {
            source: self.read_at.time,
            target: self.fence.time,
        };
        let source = self.pipeline.source();
        for decision in &mut self.decisions {
            let Some(settle) = decision.settle.take_if(|settle| settle.is_open()) else {
                continue;
            };
            let found = found(&decision.key);
            decision.settle = Some(settled(rules, source, moments, decision, settle, found));
        }
    }
}

/// When each side's document was read.
#[derive(Clone, Copy)]
struct Moments {
    source: Timestamp,
    target: Timestamp,
}

fn settled(
    rules: &DocumentRules,
    source: Side,
    moments: Moments,
    decision: &mut Decision,
    mut settle: Box<Settle>,
    found: Found<'_>,
) -> Box<Settle> {
    let found = &match settle.lost_since {
        Some(_) => found,
        None => Found {
            target_base: Base::Known(found.target),
            ..found
        },
    };
    let from = settle.request.settlement.from();
    let is_newer = settle.newer_since.is_some();
    let verdict = rules.judge(source, from, is_newer, found);
    let against_writes = verdict == Verdict::TargetStaysAgainstWrites;
    settle.outcome = match verdict {
        Verdict::Same | Verdict::OnItsWay => Outcome::Same,
        Verdict::LeftAlone => Outcome::LeftAlone,
        Verdict::TargetStays | Verdict::TargetStaysAgainstWrites => {
            Outcome::AskOther { against_writes }
        }
        Verdict::SourceStays(_) if found.target.is_none() => Outcome::Copied,
        Verdict::SourceStays(_) if found.source.is_none() => Outcome::Removed,
        Verdict::SourceStays(_) => Outcome::Replaced,
    };
    let Verdict::SourceStays(reason) = verdict else {
        // Even where both are the same nothing counts as included: without a write no fence keeps
        // the other pipeline from deciding otherwise meanwhile.
        send_nothing(decision);
        return settle;
    };
    decision.action = Action::FullState;
    decision.fresh = found.target.is_none() && settle.may_insert;
    if found.target.is_some() || !settle.theirs.is_empty() {
        decision.conflict = Some(conflict(rules, source, moments, reason, &mut settle, found));
    }
    settle
}

fn conflict(
    rules: &DocumentRules,
    source: Side,
    moments: Moments,
    reason: Reason,
    settle: &mut Settle,
    found: &Found<'_>,
) -> Conflict {
    let key = &settle.request.key;
    let mut mine = std::mem::take(&mut settle.mine);
    let mut theirs = std::mem::take(&mut settle.theirs);
    if mine.is_empty() {
        mine.push(unread_document(rules, key, moments.source, found.source));
    }
    if theirs.is_empty() {
        theirs.push(unread_document(rules, key, moments.target, found.target));
    }
    Conflict {
        winner: source,
        reason,
        mine,
        theirs,
    }
}

fn send_nothing(decision: &mut Decision) {
    decision.action = Action::Skip;
    decision.revives = false;
    decision.overturned.clear();
    decision.pays_note = None;
    decision.note_stays = false;
}

/// Stands for the write, whenever it was, that made a document what it is, or that there is none.
/// Its token depends on nothing but the document, so a document that lost has one record however
/// often it is settled.
fn unread_document(
    rules: &DocumentRules,
    key: &DocumentKey,
    at: Timestamp,
    document: Option<&RawDocument>,
) -> SharedEvent {
    let version_ms = document.and_then(|document| rules.version_of(document));
    let bytes = document.map_or(&[][..], |document| document.as_bytes());
    let mut hash = Sha256::new();
    hash.update(key.digest());
    hash.update(bytes);
    let hash: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let operation = match document {
        Some(_) => Operation::Insert,
        None => Operation::Delete,
    };
    let mut raw = rawdoc! { "operationType": "unread" };
    raw.append(bson::cstr!("documentKey"), key.raw());
    Arc::new(ChangeEvent {
        position: Position::of_event(at, format!("{DOCUMENT}/{}/{hash}", key.namespace())),
        key: key.clone(),
        operation,
        version: Version {
            wall_time_ms: version_ms.unwrap_or(0),
            rank: Rank::Loses,
        },
        wall_time_ms: version_ms.unwrap_or(0),
        raw: RawEvent::of(raw, operation),
    })
}
