//! DDL events that have been read and not yet brought over.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::change::Change;
use crate::change::{Namespace, Pair, Side};
use crate::source::DdlEvent;

/// A DDL event in its place.
#[derive(Debug)]
pub struct Pending {
    pub event: DdlEvent,
    pub change: Change,
    /// What a calls that which the event is about.
    pub on_a: Namespace,
    /// The lasting name of the collection; none for a view or a database.
    pub collection: Option<Namespace>,
}

/// The waiting events of both clusters, each in the order of its history. Each stands before a
/// closed gate, and the reader waits for room once those are many
/// ([`crate::resolve::Ledger::has_room`]).
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Pair<VecDeque<Arc<Pending>>>>,
    bell: Notify,
}

impl Queue {
    pub fn push(&self, side: Side, pending: Pending) {
        self.waiting()[side].push_back(Arc::new(pending));
        self.bell.notify_one();
    }

    pub fn front(&self, side: Side) -> Option<Arc<Pending>> {
        self.waiting()[side].front().cloned()
    }

    pub fn pop(&self, side: Side) {
        self.waiting()[side].pop_front();
    }

    /// The events of `side` that match, in order.
    pub fn matching(&self, side: Side, matches: impl Fn(&Pending) -> bool) -> Vec<Arc<Pending>> {
        let waiting = self.waiting();
        let found = waiting[side].iter().filter(|pending| matches(pending));
        found.cloned().collect()
    }

    /// Returns once another event is there; after `at_most` where some wait already.
    pub async fn wanted(&self, at_most: Duration) {
        let bell = self.bell.notified();
        if Side::BOTH.iter().all(|side| self.front(*side).is_none()) {
            return bell.await;
        }
        let _ = tokio::time::timeout(at_most, bell).await;
    }

    fn waiting(&self) -> MutexGuard<'_, Pair<VecDeque<Arc<Pending>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
