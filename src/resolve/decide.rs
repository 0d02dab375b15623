//! One decision for all events of a key in a batch.

use std::sync::Arc;

use bson::Timestamp;
use smallvec::SmallVec;

use super::requests::{is_unread, unread_write};
use super::rules::Rules;
use super::settle::Settle;
use super::state::{KeyState, Known};
use crate::change::{DocumentKey, HeldDocument, Mode, Operation, Reason, SharedEvent, Side};
use crate::error::Result;
use crate::fault::Fault;

/// Those of one document in a batch, mostly one.
pub type Events = SmallVec<[SharedEvent; 1]>;

/// What is written to the target's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the events are beaten, already there, or lose.
    Skip,
    /// The events themselves, in order.
    Deltas,
    /// The source's whole document as of `Plan::read_at`.
    FullState,
}

/// Two concurrent sets of writes to one document.
#[derive(Debug, Clone)]
pub struct Conflict {
    pub winner: Side,
    pub reason: Reason,
    /// Live writes of the pipeline's source.
    pub mine: Vec<SharedEvent>,
    /// Live writes of the pipeline's target.
    pub theirs: Vec<SharedEvent>,
}

/// What a pipeline does about one key.
#[derive(Debug, Clone)]
pub struct Decision {
    pub key: DocumentKey,
    /// The events of the batch that still count, in source order.
    pub events: Events,
    pub action: Action,
    pub conflict: Option<Conflict>,
    /// Leave a note on the target, with this value: the other pipeline must send full state next.
    pub leave_note: Option<Arc<str>>,
    /// The note on the source that this full state settles.
    pub pays_note: Option<Arc<str>>,
    /// The note on the source is not settled yet: losing writes come later in the source's history,
    /// as may be while it is being recovered, and have to be overturned with full state of then.
    pub note_stays: bool,
    /// This full state settles a dead letter.
    pub revives: bool,
    /// A dead letter is not tried again before the other side's writes have arrived.
    pub postponed: bool,
    /// Records of this key that this full state overturns.
    pub overturned: Vec<Arc<str>>,
    /// More of the source's history is in its document at `Plan::read_at` than the batch takes from
    /// the queue.
    pub outlives_batch: bool,
    /// The source's document at `Plan::read_at` and the target's at the fence turned out the same.
    pub same: bool,
    /// A copy of a document that the target most probably does not have.
    pub fresh: bool,
    /// The source's document at `Plan::read_at`, where it is known already.
    pub document: Option<HeldDocument>,
    /// What is known of two documents that are to be settled.
    pub settle: Option<Box<Settle>>,
}

impl Decision {
    /// Whether it takes losing writes out of the target's document, of which a note on the source
    /// may tell, now or soon. Then its transaction leaves word of that on the target: the note it
    /// pays, and the fence as the time through which the document was replaced.
    pub fn replaces_lost(&self) -> bool {
        let answers_note = self.pays_note.is_some() || self.note_stays;
        // No note tells of a document that no event told of.
        let beats = |conflict: &Conflict| !conflict.theirs.iter().all(is_unread);
        let is_conflict = self.conflict.as_ref().is_some_and(beats);
        self.action == Action::FullState && (is_conflict || answers_note)
    }

    /// The writes that go on record where both documents are not the same. Of a source that loses
    /// these are its batch's own: later ones lose with a batch of theirs, since no transaction takes
    /// all of a long backlog.
    pub fn losers(&self, source: Side) -> Vec<&SharedEvent> {
        let Some(conflict) = &self.conflict else {
            return Vec::new();
        };
        if conflict.winner == source {
            return conflict.theirs.iter().collect();
        }
        let read = self.events.iter().filter(|event| !is_unread(event));
        let last = read.map(|event| &event.position).max();
        let is_of_batch = |lost: &&SharedEvent| last.is_none_or(|last| lost.position <= *last);
        conflict.mine.iter().filter(is_of_batch).collect()
    }

    /// Whether the target's document holds the source's history through `Plan::read_at` once this
    /// is committed: after full state, and where both documents are the same although the source
    /// loses. All that led there is settled at once, or a later batch of the same history might go
    /// on record as lost when its beginning did not.
    pub fn includes_source(&self) -> bool {
        self.action == Action::FullState || self.same
    }

    /// Whether the target has to remember that beyond this commit.
    pub fn leaves_included(&self) -> bool {
        self.includes_source() && self.outlives_batch
    }
}

/// Decides, with everything known about the key. `read_at` is the source reader's complete time.
///
/// # Errors
/// As the spools say.
pub(super) fn decide(
    rules: &Rules,
    source: Side,
    known: Known<'_>,
    batch: Events,
    full_state_wanted: bool,
    read_at: Timestamp,
) -> Result<Decision> {
    let target = source.other();
    let state = known.state;
    let past = state.settled_through(source);
    let retried = batch.is_empty() && full_state_wanted;
    let copied = batch.first().is_some_and(is_unread);
    let taken = if copied { 0 } else { batch.len() };
    let mut events = batch;
    events.retain(|event| Some(event.position.time) > past);
    let mut decision = undecided(known.key, events);
    if decision.events.is_empty() && !retried {
        return Ok(decision);
    }
    let theirs = match known.may_be_live(target) {
        true => known.live(target)?,
        false => Vec::new(),
    };
    // In one direction what is there never goes over, and nothing else would settle it.
    decision.postponed = retried && !theirs.is_empty() && rules.mode == Mode::TwoWay;
    if decision.postponed {
        return Ok(decision);
    }
    if copied && (state.noted().owed[target].is_some() || is_on_top(source, known, &theirs)?) {
        return Ok(decision);
    }
    let unread = known.pending_since(source, taken);
    decision.outlives_batch = unread.is_some_and(|since| since <= read_at);
    if !theirs.is_empty() {
        let mut mine = known.live(source)?;
        if mine.is_empty() {
            mine = decision.events.to_vec();
        }
        let conflict = match retried {
            true => retried_over(known.key, source, read_at, mine, theirs),
            false => contest(rules, source, mine, theirs),
        };
        if conflict.winner == target {
            let last = decision.events.last();
            decision.leave_note = last.map(|event| note_of(event, read_at));
            decision.conflict = Some(conflict);
            return Ok(decision);
        }
        decision.conflict = Some(conflict);
    }
    let noted = state.noted();
    let is_owed =
        (noted.owed[source].is_some() || !noted.lost[source].is_empty()) && !Fault::NoOwed.is_on();
    let nothing_is_left = !is_owed && !noted.dead[source];
    if decision.conflict.is_none() && nothing_is_left && !full_state_wanted {
        decision.action = Action::Deltas;
        return Ok(decision);
    }
    full_state(&mut decision, state, source, read_at);
    Ok(decision)
}

/// Whether the target's writes were made on top of the very document that is to be copied, which has
/// come with a write of the source before, or with a copy before a restart. A copy's target is empty
/// where its history begins: what the first of these writes has found there is the source's.
fn is_on_top(source: Side, known: Known<'_>, theirs: &[SharedEvent]) -> Result<bool> {
    let is_found = |first: &SharedEvent| first.operation != Operation::Insert;
    Ok(theirs.first().is_some_and(is_found) && known.live(source)?.is_empty())
}

/// The source's whole document is sent, with everything that settles.
pub(super) fn full_state(
    decision: &mut Decision,
    state: &KeyState,
    source: Side,
    read_at: Timestamp,
) {
    let noted = state.noted();
    let note = noted.owed[source].as_ref();
    let lost = &noted.lost[source];
    decision.action = Action::FullState;
    decision.revives = noted.dead[source];
    let held = lost.iter().filter(|write| write.at <= read_at);
    decision.overturned = held.map(|write| write.record.clone()).collect();
    match decision.overturned.len() == lost.len() {
        true => decision.pays_note = note.cloned(),
        false => decision.note_stays = note.is_some(),
    }
}

/// The value of a note: never the same twice.
fn note_of(event: &SharedEvent, read_at: Timestamp) -> Arc<str> {
    let token = &event.position.token;
    match is_unread(event) {
        true => format!("{token}/{}.{}", read_at.time, read_at.increment).into(),
        false => token.clone(),
    }
}

pub(super) fn undecided(key: &DocumentKey, events: Events) -> Decision {
    Decision {
        key: key.clone(),
        events,
        action: Action::Skip,
        conflict: None,
        leave_note: None,
        pays_note: None,
        note_stays: false,
        revives: false,
        postponed: false,
        overturned: Vec::new(),
        outlives_batch: false,
        same: false,
        fresh: false,
        document: None,
        settle: None,
    }
}

/// The write of a dead letter, which is settled by now, wins in the only direction there is.
fn retried_over(
    key: &DocumentKey,
    source: Side,
    read_at: Timestamp,
    mut mine: Vec<SharedEvent>,
    theirs: Vec<SharedEvent>,
) -> Conflict {
    if mine.is_empty() {
        mine.push(unread_write(key, read_at));
    }
    Conflict {
        winner: source,
        reason: Reason::Preferred,
        mine,
        theirs,
    }
}

fn contest(
    rules: &Rules,
    source: Side,
    mine: Vec<SharedEvent>,
    theirs: Vec<SharedEvent>,
) -> Conflict {
    let (winner, reason) = match source {
        // What no event has told of is older than any write, whichever side is preferred: after a
        // restart a write may have been made on top of the very copy.
        _ if mine.iter().all(is_unread) => (source.other(), Reason::Later),
        Side::A => rules.winner(&mine, &theirs),
        Side::B => rules.winner(&theirs, &mine),
    };
    Conflict {
        winner,
        reason,
        mine,
        theirs,
    }
}
