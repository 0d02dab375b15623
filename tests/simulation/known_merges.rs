//! Schedules of merges that once ended badly; as in `known`.

use std::time::Duration;

use tandem::change::Side;

use crate::beginnings::{Beginning, Kind};
use crate::known::{drop_of, play_well, schedule, step};
use crate::random::Random;
use crate::schedule::{Schedule, Step, What};

/// Some documents are settled, applications write on top of them, and the process is killed. By the next
/// start the servers no longer keep what was there before.
fn killed_amid_settling(seed: u64, at: u64) -> Schedule {
    let written = |key| step(at, What::Write { side: Side::A, key });
    let mut steps: Vec<Step> = (0..4).map(written).collect();
    let down = Duration::from_millis(2500);
    steps.push(step(at + 20, What::Crash { down }));
    // Until then it stays so.
    steps.push(step(at + 3500, drop_of(Side::A, 2)));
    let mut schedule = schedule(seed, steps);
    schedule.beginning = Beginning::of(Kind::Merge, &mut Random::new(seed));
    schedule.beginning.early.clear();
    schedule.weather.history_seconds = 1;
    schedule.batch_operations_max = 1;
    schedule
}

/// They were taken for two that differ: one of them went on record as lost, though its fields were there.
#[test]
fn what_was_written_on_top_of_a_settled_document_wins_over_nothing_when_a_merge_goes_on() {
    for seed in 0..4 {
        let moments = (40..340).step_by(30);
        play_well(moments.map(|at| killed_amid_settling(seed, at)));
    }
}
