//! Schedules that once ended badly where a process was killed, or slept, while another one took the link
//! over; as in `known`.

use std::time::Duration;

use tandem::change::Side;

use crate::known::{play_well, rename, schedule, step, write};
use crate::schedule::{Schedule, Step, What};

fn written(at_ms: u64, side: Side, key: i32) -> Step {
    step(at_ms, What::Write { side, key })
}

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

/// It wakes once the other process has read which sessions are on record, and adds its own.
fn asleep_amid_its_start(ms: u64, sleep_ms: u64) -> Schedule {
    let wakes = ms + sleep_ms;
    let mut steps = vec![asleep(ms, sleep_ms)];
    for key in 0..6 {
        steps.push(written(wakes - 1000, Side::B, key));
        steps.push(written(wakes - 1000, Side::A, key));
        let again = (0..12).map(|again| written(wakes + 25 * again, Side::B, key));
        steps.extend(again);
    }
    steps.sort_by_key(|step| step.at);
    let mut schedule = schedule(wakes, steps);
    schedule.weather.delay_ms_max = 20;
    schedule.lanes = 3;
    schedule
}

/// One of its lanes noticed that, and the transactions of the others held their documents for as long as
/// the server lets them: nobody knew of their sessions.
#[test]
fn what_a_process_has_under_way_that_slept_amid_its_start_holds_up_nobody() {
    for ms in [220, 250, 280] {
        let times = (2700..3200).step_by(100);
        play_well(times.map(|sleep_ms| asleep_amid_its_start(ms, sleep_ms)));
    }
}

/// Its successor overtakes what it had sent to a slow cluster.
fn killed_amid_its_claim(ms: u64) -> Schedule {
    let slow = |time| What::Slow {
        side: Side::B,
        time,
    };
    let crash = || What::Crash {
        down: Duration::from_millis(1),
    };
    let steps = vec![
        step(500, slow(Duration::from_secs(3))),
        step(501, crash()),
        step(501 + ms, crash()),
        step(502 + ms, slow(Duration::ZERO)),
        written(3500, Side::B, 0),
    ];
    let mut schedule = schedule(0, steps);
    schedule.weather.delay_ms_max = 4;
    schedule
}

/// It had the same store, so it got the lease back, and its successor ended with 8.
#[test]
fn a_dead_process_does_not_take_the_lease_from_its_successor() {
    play_well((1400..1520).step_by(4).map(killed_amid_its_claim));
}

/// One side's rename has been followed, but no checkpoint has passed it when the process is killed: the
/// next one meets it again, beside what the other side has renamed since.
fn renamed_after_a_kill(ms: u64) -> Schedule {
    let down = Duration::from_millis(3);
    let steps = vec![
        step(100, write(Side::B, 1)),
        step(400, rename(Side::A, 1, 0)),
        step(400 + ms, What::Crash { down }),
        step(460 + ms, rename(Side::B, 0, 2)),
    ];
    let mut schedule = schedule(ms, steps);
    // The other side's turn comes first.
    schedule.skew_ms.a = 3_600_000;
    schedule
}

/// It counted as the loser's, and was followed by nobody.
#[test]
fn a_rename_competes_with_none_that_was_followed_before_a_kill() {
    play_well((100..500).step_by(20).map(renamed_after_a_kill));
}
