//! Primaries that were just elected, and do not know yet how far a majority is.

use std::time::Duration;

use tandem::change::Side;

use crate::known::{play_well, schedule, step};
use crate::schedule::{Schedule, What};

fn written_by_both() -> Vec<What> {
    let one = |side: Side, key: i32| What::Write { side, key };
    let keys = (0..4).flat_map(|key| [one(Side::A, key), one(Side::B, key)]);
    keys.collect()
}

/// It took checkpoints that it had just raised the epoch of for another process's, and ended with 8.
#[test]
fn a_start_amid_an_election_reads_what_it_has_written() {
    let elected_after = |ms: u64, side: Side| {
        let down = Duration::from_millis(10);
        let elected = What::Election {
            side,
            time: Duration::from_millis(1),
            rolled_back: false,
        };
        let mut steps: Vec<_> = (100..)
            .zip(written_by_both())
            .map(|(at, one)| step(at, one))
            .collect();
        steps.push(step(300, What::Crash { down }));
        steps.push(step(300 + ms, elected));
        // Until then it stays so.
        steps.push(step(800, What::Write { side, key: 0 }));
        let mut schedule = schedule(ms, steps);
        schedule.weather.members_lag_ms = 30;
        schedule
    };
    let moments = (300..360).step_by(4);
    play_well(moments.flat_map(|ms| Side::BOTH.map(|side| elected_after(ms, side))));
}

/// A commit that had landed was said not to be there. The checkpoint's sequence ended the link with 8
/// then, or the batch would have been applied once more.
#[test]
fn a_commit_that_is_settled_amid_an_election_is_found() {
    let settled = |seed: u64| -> Schedule {
        let times = (100..).step_by(40);
        let twice = written_by_both().into_iter().chain(written_by_both());
        let steps = times.zip(twice).map(|(at, one)| step(at, one)).collect();
        let mut schedule = schedule(seed, steps);
        schedule.weather.members_lag_ms = 30;
        schedule.weather.lost_commits_percent = 30;
        schedule.weather.elected_percent = 100;
        schedule
    };
    play_well((0..10).map(settled));
}
