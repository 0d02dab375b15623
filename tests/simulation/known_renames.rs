//! Schedules of renames on both sides that once ended badly; as in `known`.

use tandem::change::Side;

use crate::known::{play_well, rename, schedule, step, write};
use crate::schedule::Schedule;

/// One side renames it twice, the other one once, and later.
fn renamed_there_and_back(ms: u64, gap: u64) -> Schedule {
    let steps = vec![
        step(100, write(Side::A, 0)),
        step(600, rename(Side::B, 0, 2)),
        step(600 + ms, rename(Side::A, 0, 1)),
        step(600 + ms + gap, rename(Side::A, 1, 0)),
    ];
    let mut schedule = schedule(ms, steps);
    schedule.skew_ms.b = 3_600_000;
    schedule
}

/// The first of the two was followed, though both had lost.
#[test]
fn of_several_names_that_have_lost_none_is_followed() {
    for gap in [10, 40] {
        play_well((0..60).step_by(2).map(|ms| renamed_there_and_back(ms, gap)));
    }
}
