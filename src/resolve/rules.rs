//! Who wins a conflict.

use crate::change::{Mode, Policy, Reason, SharedEvent, Side};

/// The rules of a link, the same for both of its pipelines.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub mode: Mode,
    pub policy: Policy,
}

impl Rules {
    /// The name of the rule as records show it.
    pub fn name(&self) -> &'static str {
        match self.mode {
            Mode::OneWay => "one-way",
            Mode::TwoWay => self.policy.as_str(),
        }
    }

    /// The winner of two sets of concurrent writes, one per side, and why. Neither may be empty.
    pub fn winner(&self, a: &[SharedEvent], b: &[SharedEvent]) -> (Side, Reason) {
        match (self.mode, self.policy) {
            (Mode::OneWay, _) => (Side::A, Reason::Preferred),
            (Mode::TwoWay, Policy::Prefer(side)) => (side, Reason::Preferred),
            (Mode::TwoWay, Policy::LastWriteWins) => last_write(a, b),
        }
    }
}

fn last_write(a: &[SharedEvent], b: &[SharedEvent]) -> (Side, Reason) {
    let newest = |events: &[SharedEvent]| events.iter().map(|event| event.version).max();
    let (newest_a, newest_b) = (newest(a), newest(b));
    let winner = if newest_a > newest_b {
        Side::A
    } else {
        Side::B
    };
    let wall = |version: Option<crate::change::Version>| version.map(|v| v.wall_time_ms);
    let reason = if wall(newest_a) == wall(newest_b) {
        Reason::Tie
    } else {
        Reason::Later
    };
    (winner, reason)
}
