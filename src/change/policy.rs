//! How a link decides: its mode and its conflict policy.

use super::Side;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    TwoWay,
    /// From a to b only.
    OneWay,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::TwoWay => "two-way",
            Mode::OneWay => "one-way",
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
