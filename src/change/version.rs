//! What last-write-wins compares.

use super::Side;

/// Which cluster wins a tie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    Loses,
    Wins,
}

impl Rank {
    pub fn of(side: Side, tie: Side) -> Rank {
        if side == tie { Rank::Wins } else { Rank::Loses }
    }
}

/// The version of a write: its wall time in ms since 1970, then the rank of its cluster.
///
/// Total, and never equal for two clusters of one link. Compared only between concurrent writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub wall_time_ms: i64,
    pub rank: Rank,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_cluster_wins_a_tie_whichever_side_asks() {
        let version = |side| Version {
            wall_time_ms: 7,
            rank: Rank::of(side, Side::B),
        };
        assert!(version(Side::B) > version(Side::A));
        assert_ne!(version(Side::A), version(Side::B));
    }

    #[test]
    fn a_later_wall_time_beats_the_tie_cluster() {
        let older = Version {
            wall_time_ms: 7,
            rank: Rank::Wins,
        };
        let newer = Version {
            wall_time_ms: 8,
            rank: Rank::Loses,
        };
        assert!(newer > older);
    }
}
