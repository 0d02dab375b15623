//! Schedules that once ended badly where a process was killed, or slept, while another one took the link
//! over; as in `known`.

use std::time::Duration;

use tandem::change::Side;

use crate::known::{play_well, rename, schedule, step, write};
use crate::schedule::{Schedule, Step, What};

fn asleep(at_ms: u64, ms: u64) -> Step {
    let time = Duration::from_millis(ms);
    step(at_ms, What::Sleep { time })
}

/// The sleeper was about to follow the first rename, which the other process has followed by then, as
/// well as the second one.
fn renamed_while_asleep(ms: u64) -> Schedule {
    let steps = vec![
        step(20, write(Side::A, 0)),
        step(500, rename(Side::A, 0, 2)),
        asleep(500 + ms, 3600),
        step(620 + ms, write(Side::A, 0)),
        step(3600 + ms, rename(Side::A, 0, 2)),
    ];
    schedule(ms, steps)
}

/// It found another collection of that name, and said so without a look whether it still held the link:
/// too late for the other one's log.
#[test]
fn what_a_process_finds_of_a_rename_when_it_wakes_is_not_on_record_where_another_one_has_taken_over()
 {
    play_well((6..20).map(renamed_while_asleep));
}
