//! How a link decides: its mode and its conflict policy.

use super::Side;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    TwoWay,
    /// From one cluster to the other only: from a, or from b once the link was turned round.
    OneWay {
        from: Side,
    },
}

impl Mode {
    pub fn is_one_way(self) -> bool {
        matches!(self, Mode::OneWay { .. })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Mode::TwoWay => "two-way",
            Mode::OneWay { .. } => "one-way",
        }
    }

    /// Whether what applications write on `side` is brought to the other cluster.
    pub fn sends(self, side: Side) -> bool {
        match self {
            Mode::TwoWay => true,
            Mode::OneWay { from } => from == side,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    LastWriteWins,
    Prefer(Side),
}

impl Policy {
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::LastWriteWins => "last-write-wins",
            Policy::Prefer(Side::A) => "prefer-a",
            Policy::Prefer(Side::B) => "prefer-b",
        }
    }
}
