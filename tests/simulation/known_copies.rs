//! Schedules of copies that once ended badly; as in `known`.

use tandem::change::Side;

use crate::beginnings::{Beginning, Kind};
use crate::known::{play_well, rename, schedule, step, write};
use crate::random::Random;
use crate::schedule::{Schedule, What};

/// Deleted once the copy has read it, and made anew on the other side before its copy has its turn.
fn deleted_amid_a_copy(at: u64, apart: u64) -> Schedule {
    let (key, seed) = (4, 2);
    let made = What::Write { side: Side::B, key };
    let mut schedule = schedule(seed, vec![step(apart, made)]);
    schedule.beginning = Beginning::of(Kind::Copy, &mut Random::new(seed));
    let delete = What::Delete { side: Side::A, key };
    schedule.beginning.early = vec![step(at, delete)];
    schedule.batch_operations_max = 1;
    schedule
}

/// That it had lost was on record, without a document.
#[test]
fn what_is_deleted_before_its_copy_has_its_turn_has_not_lost() {
    for at in (380..430).step_by(10) {
        let aparts = (30..70).step_by(10);
        play_well(aparts.map(|apart| deleted_amid_a_copy(at, apart)));
    }
}

/// Made on `a` amid the copy, and called otherwise on `b` as soon as it is there.
fn renamed_amid_a_copy(seed: u64, at: u64) -> Schedule {
    let steps = vec![
        step(306, write(Side::A, 0)),
        step(at, rename(Side::B, 0, 2)),
    ];
    let mut schedule = schedule(seed, steps);
    schedule.beginning = Beginning::of(Kind::Copy, &mut Random::new(seed));
    schedule.weather.delay_ms_max = 20;
    schedule.weather.batch_events_max = 3;
    schedule.weather.stale_tokens_percent = 30;
    schedule.lanes = 2;
    schedule.batch_operations_max = 1;
    schedule.queue_bytes_max = 16384;
    schedule
}

/// The copy looked for it by its name while a turn had just made it, and made another one.
#[test]
fn a_counterpart_that_is_renamed_at_once_amid_a_copy_stays_the_only_one() {
    for seed in 0..3 {
        let moments = (1100..1260).step_by(10);
        play_well(moments.map(|at| renamed_amid_a_copy(seed, at)));
    }
}
