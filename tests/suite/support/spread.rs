//! Which of the keys a load writes.

use super::random::Random;

/// How uneven: that of the YCSB benchmarks.
const ZIPF_EXPONENT: f64 = 0.99;

#[derive(Debug, Clone, Copy)]
pub enum Spread {
    Even,
    /// As in most applications: the second key half as often as the first one, and so on.
    Zipf,
}

impl Spread {
    pub fn key(self, random: &mut Random, keys: u32) -> u32 {
        match self {
            Spread::Even => random.below(u64::from(keys)) as u32,
            Spread::Zipf => zipf(random, keys),
        }
    }
}

/// By the inverse of the continuous distribution.
fn zipf(random: &mut Random, keys: u32) -> u32 {
    const DICE: u64 = 1 << 32;
    let dice = random.below(DICE) as f64 / DICE as f64;
    let power = 1.0 - ZIPF_EXPONENT;
    let last = f64::from(keys + 1).powf(power);
    let rank = (1.0 + dice * (last - 1.0)).powf(1.0 / power);
    (rank as u32).clamp(1, keys) - 1
}
