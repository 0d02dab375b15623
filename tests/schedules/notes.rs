//! The notes beside the documents: restored at a start, removed once they are out of date.

use tandem::change::Side;
use tandem::resolve::{NoteToClear, StoredNotes};

use crate::cluster::timestamp;
use crate::link::Link;
use crate::random::Random;
use crate::transaction::key_index;

impl Link {
    pub fn restore_notes(&mut self, side: Side) {
        for (index, key) in self.keys.iter().enumerate() {
            let paid = self.clusters[side.other()].notes[index].paid.take();
            let notes = &mut self.clusters[side].notes[index];
            if let (Some(paid), Some((value, lost))) = (paid, &mut notes.owed) {
                lost.retain(|write| write.at > paid.replaced_through);
                if paid.value.as_ref() == Some(value) {
                    notes.owed = None;
                }
            }
            let (owed, lost) = notes.owed.clone().unzip();
            if owed.is_some() || notes.included.is_some() {
                let stored = StoredNotes {
                    owed,
                    lost: lost.unwrap_or_default(),
                    included: notes.included.map(timestamp),
                    dead: false,
                };
                self.ledger.restore_notes(side, key.clone(), stored);
            }
        }
    }

    /// Removes a note that is out of date; after it, what tells that it is.
    pub fn sweep(&mut self, random: &mut Random) {
        if random.one_in(2) {
            if let Some(note) = self.paid_to_forget.pop_front() {
                self.forget_paid(&note);
            }
        } else if let Some(note) = self.notes_to_clear.pop_front() {
            if self.ledger.may_clear(&note) {
                self.clear_note(note);
            } else {
                self.notes_to_clear.push_back(note);
            }
        }
    }

    fn clear_note(&mut self, note: NoteToClear) {
        let key = key_index(&self.keys, &note.key);
        let owed = &mut self.clusters[note.side].notes[key].owed;
        if let Some((value, lost)) = owed {
            lost.retain(|write| write.at > note.replaced_through);
            if note.value.as_ref() == Some(value) {
                *owed = None;
            }
        }
        self.trace.step(|| {
            let (side, value) = (note.side.as_str(), &note.value);
            format!("clears the note {value:?} of key {key} on {side}")
        });
        self.ledger.note_cleared(&note);
        self.paid_to_forget.push_back(note);
    }

    fn forget_paid(&mut self, note: &NoteToClear) {
        let key = key_index(&self.keys, &note.key);
        let paid = &mut self.clusters[note.side.other()].notes[key].paid;
        let paid_through = paid.as_ref().map(|paid| paid.replaced_through);
        if paid_through == Some(note.replaced_through) {
            *paid = None;
        }
    }
}
