//! Chance, rolled in one place: whoever knows the seed knows what follows.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish());
}

/// From 0 up to 1, without it (SplitMix64).
pub fn fraction() -> f64 {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let state = STATE.get().wrapping_add(STEP);
    STATE.set(state);
    let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Makes everything that follows on this thread foreseeable, for a simulation.
pub fn seed(seed: u64) {
    STATE.set(seed);
}
