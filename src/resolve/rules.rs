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
            Mode::OneWay { .. } => "one-way",
            Mode::TwoWay => self.policy.as_str(),
        }
    }

    /// The winner of two sets of concurrent writes, one per side, and why. Neither may be empty.
    pub fn winner(&self, a: &[SharedEvent], b: &[SharedEvent]) -> (Side, Reason) {
        match (self.mode, self.policy) {
            (Mode::OneWay { from }, _) => (from, Reason::Preferred),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bson::{Timestamp, rawdoc};

    use super::*;
    use crate::change::{
        ChangeEvent, DocumentKey, Namespace, Operation, Position, Rank, RawEvent, Version,
    };

    fn write(side: Side, tie: Side, wall_time_ms: i64) -> SharedEvent {
        let namespace = Namespace::new("shop", "orders");
        let time = Timestamp {
            time: 7,
            increment: 1,
        };
        Arc::new(ChangeEvent {
            position: Position::of_event(time, "82a"),
            key: DocumentKey::of(&namespace, &rawdoc! { "_id": 1 }).unwrap(),
            operation: Operation::Update,
            version: Version {
                wall_time_ms,
                rank: Rank::of(side, tie),
            },
            wall_time_ms,
            raw: RawEvent::of(rawdoc! {}, Operation::Update),
        })
    }

    fn writes(side: Side, tie: Side, times: &[i64]) -> Vec<SharedEvent> {
        times.iter().map(|at| write(side, tie, *at)).collect()
    }

    const HISTORIES: [&[i64]; 8] = [
        &[1],
        &[2],
        &[3],
        &[1, 2],
        &[2, 1],
        &[3, 1],
        &[1, 3, 2],
        &[2, 2],
    ];

    fn last_write_wins(tie: Side, a: &[i64], b: &[i64]) -> (Side, Reason) {
        let rules = Rules {
            mode: Mode::TwoWay,
            policy: Policy::LastWriteWins,
        };
        rules.winner(&writes(Side::A, tie, a), &writes(Side::B, tie, b))
    }

    #[test]
    fn swapping_the_clusters_swaps_the_winner() {
        for tie in Side::BOTH {
            for a in HISTORIES {
                for b in HISTORIES {
                    let (winner, reason) = last_write_wins(tie, a, b);
                    let (mirrored, same_reason) = last_write_wins(tie.other(), b, a);
                    assert_eq!(winner, mirrored.other(), "{a:?} {b:?}");
                    assert_eq!(reason, same_reason);
                }
            }
        }
    }

    #[test]
    fn the_newest_write_of_either_side_wins_whatever_came_before_it() {
        for a in HISTORIES {
            for b in HISTORIES {
                let (newest_a, newest_b) = (a.iter().max(), b.iter().max());
                let (winner, reason) = last_write_wins(Side::B, a, b);
                assert_eq!(winner == Side::A, newest_a > newest_b, "{a:?} {b:?}");
                assert_eq!(reason == Reason::Tie, newest_a == newest_b);
            }
        }
    }

    #[test]
    fn no_three_histories_beat_each_other_in_a_ring() {
        let beats = |a: &[i64], b: &[i64]| last_write_wins(Side::B, a, b).0 == Side::A;
        for first in HISTORIES {
            for second in HISTORIES {
                for third in HISTORIES {
                    let chain = beats(first, second) && beats(second, third);
                    assert!(!chain || beats(first, third));
                    assert!(!(chain && beats(third, first)));
                }
            }
        }
    }

    #[test]
    fn a_preferred_cluster_wins_against_any_version() {
        let (old, new) = (
            writes(Side::A, Side::A, &[1]),
            writes(Side::B, Side::A, &[9]),
        );
        for side in Side::BOTH {
            let rules = Rules {
                mode: Mode::TwoWay,
                policy: Policy::Prefer(side),
            };
            assert_eq!(rules.winner(&old, &new), (side, Reason::Preferred));
            assert_eq!(rules.winner(&new, &old), (side, Reason::Preferred));
        }
    }

    #[test]
    fn one_way_the_source_wins_under_every_policy() {
        let policies = [
            Policy::LastWriteWins,
            Policy::Prefer(Side::A),
            Policy::Prefer(Side::B),
        ];
        let (old, new) = (
            writes(Side::A, Side::B, &[1]),
            writes(Side::B, Side::B, &[9]),
        );
        for policy in policies {
            for from in Side::BOTH {
                let rules = Rules {
                    mode: Mode::OneWay { from },
                    policy,
                };
                assert_eq!(rules.winner(&old, &new), (from, Reason::Preferred));
            }
        }
    }
}
