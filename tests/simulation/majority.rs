//! What a majority of a cluster's members has, and what becomes of the rest in an election.

use std::collections::HashMap;
use std::time::Duration;

use bson::Timestamp;

use crate::collections::is_change;
use crate::replica::{Entry, Replica, SessionState, Standing};

/// A member gets an entry, and learns only later that others have it, too.
const LEARNING_LAGS: u32 = 4;

impl Replica {
    /// Entries of the oplog that a majority has.
    pub fn durable(&self) -> &[Entry] {
        let is_durable = |entry: &Entry| entry.durable_at <= self.elapsed;
        &self.oplog[..self.oplog.partition_point(is_durable)]
    }

    /// A majority has everything up to this time.
    pub fn durable_time(&self) -> Timestamp {
        self.time_of(self.durable())
    }

    /// What reads of what a majority has show. A primary that was just elected may be behind in that
    /// until a majority has something of its own term, up to 7.0 (SERVER-53813).
    pub fn shown_time(&self) -> Timestamp {
        let Some((_, at)) = self.shows.filter(|(until, _)| self.elapsed < *until) else {
            return self.durable_time();
        };
        let is_shown = |entry: &Entry| entry.durable_at <= at;
        self.time_of(&self.oplog[..self.oplog.partition_point(is_shown)])
    }

    /// Whether anything up to this time is not shown yet. A write that changed nothing is answered with a
    /// time that may have no entry.
    pub fn hides(&self, up_to: Timestamp) -> bool {
        let shown = self.shown_time();
        let hidden = self.oplog.iter().rev().map(|entry| entry.time);
        hidden
            .take_while(|time| *time > shown)
            .any(|time| time <= up_to)
    }

    fn time_of(&self, durable: &[Entry]) -> Timestamp {
        match (durable.last(), self.oplog.first()) {
            (Some(last), _) => last.time,
            (None, Some(first)) => before(first.time),
            (None, None) => self.time,
        }
    }

    /// Whether a snapshot at this time has to be waited for.
    pub fn is_not_durable_yet(&self, time: Timestamp) -> bool {
        time <= self.time
            && self.oplog[self.durable().len()..]
                .iter()
                .any(|entry| entry.time <= time)
    }

    /// When the next entry becomes durable.
    pub fn next_durable_at(&self) -> Option<Duration> {
        let next = self.oplog.get(self.durable().len())?;
        Some(next.durable_at)
    }

    /// Another member becomes primary. It knows nothing of open transactions, nor of what only the
    /// last primary had, where that is `rolled_back`: returns the applications' writes in it. It answers
    /// after this time.
    pub fn elect(&mut self, rolled_back: bool, time: Duration) -> Vec<u32> {
        let mut undone = Vec::new();
        // A change of a collection is never undone here.
        let is_change = |entry: &Entry| entry.operations.iter().any(|one| is_change(one.kind));
        if rolled_back && !self.oplog[self.durable().len()..].iter().any(is_change) {
            let durable = self.durable_time();
            let kept = self.durable().len();
            undone.extend(self.oplog.drain(kept..).filter_map(|entry| entry.write));
            for collection in self.collections.values_mut() {
                for versions in collection.versions.values_mut() {
                    versions.retain(|(at, _)| *at <= durable);
                }
                collection.versions.retain(|_, all| !all.is_empty());
            }
        }
        let lag = self.members_lag;
        let known = self.elapsed.saturating_sub(lag * LEARNING_LAGS);
        self.shows = Some((self.elapsed + time + lag, known));
        self.cursors.clear();
        self.sessions = committed_sessions(&self.oplog);
        self.tick();
        undone
    }
}

fn before(time: Timestamp) -> Timestamp {
    Timestamp {
        time: time.time,
        increment: time.increment - 1,
    }
}

/// What `config.transactions` holds.
fn committed_sessions(oplog: &[Entry]) -> HashMap<bson::Uuid, SessionState> {
    let committed = oplog
        .iter()
        .filter_map(|entry| Some((entry.transaction?, entry.time)));
    let state = |number, written| SessionState {
        number,
        standing: Standing::Committed,
        written,
    };
    committed
        .map(|((session, number), at)| (session, state(number, at)))
        .collect()
}
