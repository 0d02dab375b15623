//! A small seeded generator (splitmix64), so that a printed seed replays a run.

use std::hash::{BuildHasher, RandomState};

#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator of its own for one writer, still a function of the seed alone.
    pub fn fork(&mut self, label: u64) -> Self {
        Self(self.next() ^ label.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// `TANDEM_TEST_SEED`, else a fresh seed; printed either way, so that a failure can be replayed.
pub fn seed(test: &str) -> u64 {
    let seed = match std::env::var("TANDEM_TEST_SEED") {
        Ok(text) => text.parse().expect("TANDEM_TEST_SEED is a number"),
        Err(_) => RandomState::new().hash_one(test),
    };
    println!("{test}: TANDEM_TEST_SEED={seed}");
    seed
}

/// `whole` writes times `TANDEM_TEST_SCALE`; a small part of them where it is not set.
pub fn scaled(whole: usize) -> usize {
    const SCALE_DEFAULT: f64 = 0.1;
    let scale = std::env::var("TANDEM_TEST_SCALE").map_or(SCALE_DEFAULT, |text| {
        text.parse().expect("TANDEM_TEST_SCALE is a number")
    });
    ((whole as f64 * scale) as usize).max(1)
}
