//! Schedules of copies that once ended badly; as in `known`.

use tandem::change::Side;

use crate::beginnings::{Beginning, Kind};
use crate::known::{play_well, schedule, step};
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
