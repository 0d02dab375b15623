//! What is settled leaves the ledger.

use std::collections::hash_map::Entry;

use super::ledger::Ledger;
use crate::change::{DocumentKey, Side};

impl Ledger {
    /// Restored notes may name keys that nothing waits for any more.
    pub(super) fn forget_all_settled(&mut self) {
        let known = self.known_through();
        let tails = self.clusters.as_ref().map(|cluster| &cluster.tail);
        self.keys.retain(|key, state| {
            let spooled = tails.as_ref().map(|tail| tail.first_time(key));
            state.drop_what_is_settled(known, spooled);
            !state.is_settled()
        });
    }

    /// Whatever has changed about this document, nothing may be left to remember of it.
    pub(super) fn forget_if_settled(&mut self, key: &DocumentKey) {
        let known = self.known_through();
        let kept = Side::BOTH.map(|side| self.keeps_pending(side).then_some(side));
        let Entry::Occupied(mut entry) = self.keys.entry(key.clone()) else {
            return;
        };
        let tails = self.clusters.as_ref();
        let spooled = tails.map(|cluster| cluster.tail.first_time(key));
        let state = entry.get_mut();
        for side in kept.into_iter().flatten() {
            state.drop_beaten(side);
        }
        state.drop_what_is_settled(known, spooled);
        if state.is_settled() {
            entry.remove();
        }
    }
}
