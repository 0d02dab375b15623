//! Where in a cluster's history something stands.

use std::cmp::Ordering;
use std::sync::Arc;

use bson::{Document, Timestamp};

/// A resume token with its cluster time.
///
/// Events of one transaction share a cluster time, so events are ordered by the whole token.
/// A `whole` position stands behind every event of its cluster time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub time: Timestamp,
    pub token: Arc<str>,
    pub whole: bool,
}

impl Position {
    pub fn of_event(time: Timestamp, token: impl Into<Arc<str>>) -> Self {
        Self {
            time,
            token: token.into(),
            whole: false,
        }
    }

    /// As a checkpoint has it; none where it is not whole.
    pub fn of_document(found: &Document) -> Option<Self> {
        Some(Self {
            time: found.get_timestamp("time").ok()?,
            token: found.get_str("token").ok()?.into(),
            whole: found.get_bool("whole").ok()?,
        })
    }

    /// Behind everything that happened at `time`.
    pub fn after_all_of(time: Timestamp, token: impl Into<Arc<str>>) -> Self {
        Self {
            time,
            token: token.into(),
            whole: true,
        }
    }

    /// Behind everything that happened before `time`; none where nothing can have.
    pub fn before(time: Timestamp, token: impl Into<Arc<str>>) -> Option<Self> {
        let before = match time.increment.checked_sub(1) {
            Some(increment) => Timestamp {
                time: time.time,
                increment,
            },
            None => Timestamp {
                time: time.time.checked_sub(1)?,
                increment: u32::MAX,
            },
        };
        Some(Self::after_all_of(before, token))
    }

    /// Whether nothing that happened at `time` or before is behind it.
    pub fn covers(&self, time: Timestamp) -> bool {
        self.time > time || (self.time == time && self.whole)
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> Ordering {
        self.time
            .cmp(&other.time)
            .then_with(|| self.whole.cmp(&other.whole))
            .then_with(|| self.token.cmp(&other.token))
    }
}

/// Read from the stream; nothing is known yet about the target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObservedThrough(pub Position);

/// Committed on the target with majority: safe to resume from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppliedThrough(pub Position);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u32, token: &str) -> Position {
        Position::of_event(Timestamp { time, increment: 1 }, token)
    }

    #[test]
    fn events_of_one_transaction_are_ordered_by_token() {
        assert!(at(5, "82a") < at(5, "82b"));
        assert!(at(4, "82z") < at(5, "82a"));
    }

    #[test]
    fn a_whole_position_is_behind_every_event_of_its_time() {
        let whole = Position::after_all_of(
            Timestamp {
                time: 5,
                increment: 1,
            },
            "",
        );
        assert!(at(5, "ffff") < whole);
        assert!(whole < at(6, ""));
        assert!(whole.covers(whole.time));
        assert!(!at(5, "ffff").covers(whole.time));
    }
}
