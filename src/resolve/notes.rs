//! What outlives the process: notes beside the documents, restored and cleared.

use std::sync::Arc;

use bson::Timestamp;

use super::Ledger;
use crate::change::{DocumentKey, PipelineId, Side};

/// The other side's document was replaced by full state of `side`: what the note there says of
/// it is out of date.
///
/// To be done once [`Ledger::may_clear`] says so: remove the note if it still has this value,
/// else what it lists up to `replaced_through`; then what was left on the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteToClear {
    pub side: Side,
    pub key: DocumentKey,
    /// The note that was paid; none where the full state was sent for winning a conflict.
    pub value: Option<Arc<str>>,
    /// Local writes of the other side up to here are gone from its document.
    pub replaced_through: Timestamp,
}

/// A write that lost and is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostWrite {
    /// The record's id.
    pub record: Arc<str>,
    /// The time of the write on its own cluster.
    pub at: Timestamp,
}

/// Notes of one key as they were found on `side` at a start.
#[derive(Debug, Clone, Default)]
pub struct StoredNotes {
    pub owed: Option<Arc<str>>,
    /// Writes of the other side, as the note lists them.
    pub lost: Vec<LostWrite>,
    pub included: Option<Timestamp>,
    /// A dead letter of the pipeline into `side`.
    pub dead: bool,
}

impl Ledger {
    /// What a former process left on the clusters.
    pub fn restore_notes(&mut self, side: Side, key: DocumentKey, notes: StoredNotes) {
        let state = self.keys.entry(key.clone()).or_default();
        let noted = state.noted_mut();
        noted.owed[side] = notes.owed;
        noted.lost[side.other()] = notes.lost;
        noted.included[side] = notes.included;
        noted.dead[side.other()] = notes.dead;
        if notes.dead {
            let pipeline = PipelineId::from_source(side.other());
            self.request_full_state(pipeline, key);
        }
    }

    /// Whether no transaction under way can still list a replaced write in the note.
    pub fn may_clear(&self, note: &NoteToClear) -> bool {
        let pipeline = PipelineId::from_source(note.side.other());
        let lane = self.lane_of(pipeline.source(), &note.key);
        self.applied_through(pipeline, lane)
            .0
            .covers(note.replaced_through)
    }

    /// The note is gone from the cluster.
    pub fn note_cleared(&mut self, note: &NoteToClear) {
        if let Some(state) = self.keys.get_mut(&note.key) {
            if let Some(noted) = state.if_noted()
                && note.value.is_some()
                && noted.owed[note.side] == note.value
            {
                noted.owed[note.side] = None;
            }
            self.forget_if_settled(&note.key);
        }
    }
}
