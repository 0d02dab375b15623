//! Schedules that once ended badly, as short as they can be. Moments are shifted, so that a case is
//! still met when commands take their turns otherwise.

use std::collections::HashSet;
use std::time::Duration;

use tandem::change::{Pair, Side};

use crate::beginnings::{Beginning, Kind};
use crate::play::{Outcome, play};
use crate::random::Random;
use crate::schedule::{Schedule, Step, What};
use crate::world::Weather;

pub fn step(at_ms: u64, what: What) -> Step {
    Step {
        at: Duration::from_millis(at_ms),
        what,
    }
}

pub fn write(side: Side, collection: usize) -> What {
    What::WriteAside {
        side,
        collection,
        key: 0,
    }
}

/// In good weather, but for members that are behind.
pub fn schedule(seed: u64, steps: Vec<Step>) -> Schedule {
    Schedule {
        seed,
        weather: Weather {
            lost_percent: 0,
            lost_commits_percent: 0,
            delay_ms_max: 1,
            late_ms_max: 0,
            members_lag_ms: 5,
            batch_events_max: 100,
            stale_tokens_percent: 0,
            history_seconds: 300,
            elected_percent: 0,
        },
        skew_ms: Pair::new(0, 0),
        lanes: 1,
        batch_operations_max: 100,
        queue_bytes_max: 67_108_864,
        deaths: Vec::new(),
        asleep_after_commands: None,
        beginning: Beginning::of(Kind::Nothing, &mut Random::new(seed)),
        steps,
    }
}

/// Returns what they came to, all of which ended well.
pub fn play_well(schedules: impl Iterator<Item = Schedule>) -> Vec<Outcome> {
    let played = schedules.map(|schedule| {
        let outcome = play(&schedule);
        let problems = &outcome.problems;
        assert!(problems.is_empty(), "{problems:#?} after {schedule:#?}");
        outcome
    });
    played.collect()
}

pub fn drop_of(side: Side, collection: usize) -> What {
    What::Drop { side, collection }
}

pub fn rename(side: Side, collection: usize, to: usize) -> What {
    What::Rename {
        side,
        collection,
        to,
    }
}

/// So many ms apart a change is met amid the turn of the creation, or right behind it.
fn moments() -> impl Iterator<Item = u64> {
    (20..160).step_by(2)
}

/// A collection of a's that b writes into as soon as it has it, and a change `ms` after its creation.
fn changed_after(ms: u64, change: What) -> Schedule {
    let steps = vec![
        step(100, write(Side::A, 0)),
        step(100 + ms, write(Side::B, 0)),
        step(104 + ms, change),
    ];
    schedule(ms, steps)
}

/// A lane once made what was dropped again, since it looked for it by its name.
#[test]
fn what_is_dropped_while_it_gets_its_counterpart_is_gone_from_both_sides() {
    for side in Side::BOTH {
        let dropped = moments().map(|ms| changed_after(ms, drop_of(side, 0)));
        for outcome in play_well(dropped) {
            assert!(outcome.given_up.is_empty(), "{:?}", outcome.given_up);
        }
    }
}

/// Lanes once went on to use the former name, for which every cluster refused them.
#[test]
fn what_is_renamed_while_its_indexes_are_read_is_written_under_its_new_name() {
    for side in Side::BOTH {
        let renamed = moments().map(|ms| changed_after(ms, rename(side, 0, 1)));
        for outcome in play_well(renamed) {
            // B may have made one of its own before it knew of a's.
            let names: Vec<&String> = outcome.given_up.keys().collect();
            assert!(names.len() <= 2, "{:?}", outcome.given_up);
        }
    }
}

/// A collection that a has given another name, which b has for something else.
fn given_up(first: usize, then: usize) -> Vec<Step> {
    vec![
        step(100, write(Side::A, first)),
        step(600, rename(Side::A, first, then)),
        step(601, write(Side::B, then)),
    ]
}

/// Its first name was once passed over for ever, though nobody was told so.
#[test]
fn what_is_given_up_under_another_name_leaves_its_first_one_to_others() {
    let mut steps = given_up(0, 1);
    steps.push(step(1200, rename(Side::B, 0, 2)));
    steps.push(step(1800, write(Side::B, 0)));
    steps.push(step(2400, write(Side::A, 0)));
    let outcome = play_well([schedule(1, steps)].into_iter()).remove(0);
    let names: Vec<&str> = outcome.given_up.keys().map(String::as_str).collect();
    assert_eq!(names, ["shop.aside1", "shop.aside2"]);
}

/// Once it was given up, the next attempt passed it over: a record whose command was lost was nowhere,
/// and one whose reply was lost was not in the local log.
#[test]
fn what_is_given_up_is_on_record_also_where_the_command_for_its_record_is_lost() {
    let lost_after = |side: Side, ms: u64| {
        let mut steps = given_up(0, 1);
        let time = Duration::from_millis(3);
        steps.push(step(601 + ms, What::Cut { side, time }));
        // Until then it is not taken back.
        steps.push(step(1200, What::Write { side, key: 0 }));
        schedule(ms, steps)
    };
    for side in Side::BOTH {
        let lost = (0..120).step_by(2).map(|ms| lost_after(side, ms));
        for outcome in play_well(lost) {
            // The one that was renamed, and the one that has its name.
            assert_eq!(outcome.records, outcome.given_up.len(), "{outcome:#?}");
        }
    }
}

/// The next process passed it over.
#[test]
fn what_is_given_up_is_on_record_also_where_the_process_ends_meanwhile() {
    let killed_after = |ms: u64| {
        let mut steps = given_up(0, 1);
        let down = Duration::from_millis(50);
        steps.push(step(601 + ms, What::Crash { down }));
        schedule(ms, steps)
    };
    for outcome in play_well((10..70).map(killed_after)) {
        // One may have both names.
        let reasons: HashSet<&String> = outcome.given_up.values().collect();
        assert!(outcome.records >= reasons.len(), "{outcome:#?}");
    }
}

/// Nobody was told that it was gone, and what had been written into it was lost.
#[test]
fn what_is_given_up_is_not_dropped_where_the_other_side_puts_another_one_in_its_place() {
    let mut steps = given_up(1, 2);
    steps.push(step(1200, rename(Side::A, 2, 1)));
    steps.push(step(1800, write(Side::A, 0)));
    steps.push(step(2400, rename(Side::A, 0, 1)));
    let outcome = play_well([schedule(1, steps)].into_iter()).remove(0);
    let names: Vec<&str> = outcome.given_up.keys().map(String::as_str).collect();
    assert_eq!(names, ["shop.aside0", "shop.aside1", "shop.aside2"]);
}

/// It stayed on the other side for ever: of what had taken its place nothing was replicated.
#[test]
fn what_is_replaced_by_what_is_not_replicated_is_no_more_on_one_side_alone() {
    let amid_an_outage = |ms: u64| {
        let steps = vec![
            step(
                0,
                What::Crash {
                    down: Duration::from_millis(ms),
                },
            ),
            step(1, write(Side::B, 0)),
            step(2, rename(Side::B, 0, 2)),
            step(3, write(Side::B, 1)),
            step(4, write(Side::B, 0)),
            step(5, rename(Side::B, 0, 1)),
            step(6, rename(Side::B, 1, 2)),
            step(7, write(Side::A, 2)),
            step(8, drop_of(Side::B, 2)),
        ];
        schedule(ms, steps)
    };
    play_well((10..30).map(amid_an_outage));
}

/// It was taken for done, and what was to be replaced stayed where the rename was to be followed.
#[test]
fn what_a_rename_replaces_is_dropped_also_where_the_renamed_one_is_gone_on_the_other_side() {
    let dropped_after = |ms: u64| {
        let steps = vec![
            step(100, write(Side::A, 0)),
            step(150, write(Side::A, 1)),
            step(700, rename(Side::A, 0, 1)),
            step(700 + ms, drop_of(Side::B, 0)),
        ];
        schedule(ms, steps)
    };
    for outcome in play_well((0..40).map(dropped_after)) {
        assert!(outcome.given_up.is_empty(), "{:?}", outcome.given_up);
    }
}

/// Nobody made room: its turn comes once both readers have passed the start, and the reader waited
/// for room before it had.
#[test]
fn a_change_of_a_collection_ahead_of_a_long_backlog_does_not_stop_a_start() {
    let mut steps = vec![step(
        0,
        What::Crash {
            down: Duration::from_millis(50),
        },
    )];
    steps.push(step(1, write(Side::B, 0)));
    let writes = (2..60).map(|at| {
        step(
            at,
            What::Write {
                side: Side::B,
                key: 0,
            },
        )
    });
    steps.extend(writes);
    // Until then batches stay small.
    steps.push(step(5000, write(Side::A, 1)));
    let mut schedule = schedule(1, steps);
    schedule.queue_bytes_max = 16_384;
    schedule.weather.batch_events_max = 3;
    play_well([schedule].into_iter());
}

/// Its lasting name was on record alone, and the next process took it for what it is called: it made
/// a collection of the name `aside1#aa65…` on the other side.
#[test]
fn what_has_the_name_of_a_dropped_one_keeps_it_where_a_merge_is_taken_over() {
    let taken_over = |ms: u64| {
        let steps = vec![
            step(
                2,
                What::Sleep {
                    time: Duration::from_millis(2050),
                },
            ),
            step(24, write(Side::A, 1)),
            step(200 + ms, drop_of(Side::A, 1)),
            step(205 + ms, write(Side::A, 1)),
        ];
        let mut schedule = schedule(ms, steps);
        schedule.beginning = Beginning::of(Kind::Merge, &mut Random::new(ms));
        schedule
    };
    for outcome in play_well((0..120).step_by(6).map(taken_over)) {
        assert!(outcome.given_up.is_empty(), "{:?}", outcome.given_up);
    }
}

/// Killed once a lane is beyond the changes of a name, and others are still before all of them.
fn killed_after(changes: &[Step], ms: u64) -> Schedule {
    let last = changes.last().map_or(Duration::ZERO, |step| step.at);
    let at = last.as_millis() as u64 + 300;
    let mut steps = changes.to_vec();
    let down = Duration::from_millis(40);
    steps.push(step(at + 100 + ms, What::Crash { down }));
    for side in Side::BOTH {
        steps.push(step(at, write(side, 2)));
        steps.push(step(at + 200 + ms, write(side, 2)));
    }
    steps.sort_by_key(|step| step.at);
    let mut schedule = schedule(ms, steps);
    schedule.lanes = 3;
    schedule
}

/// The creation was read again, and its name taken for the one that the collection has by now: lanes
/// went on to use it, for which every cluster refused them.
#[test]
fn what_tandem_has_created_is_written_under_its_new_name_after_a_restart() {
    let changes = [
        step(100, write(Side::B, 1)),
        step(400, rename(Side::A, 1, 2)),
    ];
    for outcome in play_well((0..300).step_by(10).map(|ms| killed_after(&changes, ms))) {
        assert!(outcome.given_up.is_empty(), "{:?}", outcome.given_up);
    }
}

/// As above, where tandem had given it a name before.
#[test]
fn what_tandem_has_renamed_is_written_under_its_last_name_after_a_restart() {
    let changes = [
        step(100, write(Side::A, 0)),
        step(400, rename(Side::A, 0, 1)),
        step(700, rename(Side::B, 1, 2)),
    ];
    for outcome in play_well((0..300).step_by(10).map(|ms| killed_after(&changes, ms))) {
        assert!(outcome.given_up.is_empty(), "{:?}", outcome.given_up);
    }
}

/// The link ended with 1: it was there when its size was told, and gone or elsewhere when it was cut
/// into ranges.
#[test]
fn what_goes_or_gets_another_name_while_it_is_cut_into_ranges_does_not_end_a_merge() {
    let changed_after = |ms: u64, change: What| {
        let write = |key| What::WriteAside {
            side: Side::A,
            collection: 2,
            key,
        };
        let mut steps: Vec<Step> = (0..8).map(|key| step(20, write(key))).collect();
        steps.push(step(100 + ms, change));
        let mut schedule = schedule(ms, steps);
        schedule.beginning = Beginning::of(Kind::Merge, &mut Random::new(ms));
        schedule
    };
    play_well(
        (0..150)
            .step_by(3)
            .map(|ms| changed_after(ms, drop_of(Side::A, 2))),
    );
    play_well(
        (0..150)
            .step_by(3)
            .map(|ms| changed_after(ms, rename(Side::A, 2, 1))),
    );
}

/// A conflict whose loser is on record, and the process killed before the end of a merge is. By the
/// next start the servers no longer keep what documents were before.
fn killed_amid_the_end(seed: u64, at: u64, kill: u64, collection: Option<usize>) -> Schedule {
    let one = |side: Side| match collection {
        Some(collection) => write(side, collection),
        None => What::Write { side, key: 1 },
    };
    let slow = What::Slow {
        side: Side::B,
        time: Duration::from_secs(2),
    };
    let down = Duration::from_millis(2500);
    let created = collection.map(|collection| step(at - 100, write(Side::A, collection)));
    let mut steps: Vec<Step> = created.into_iter().collect();
    steps.extend([
        step(at, one(Side::B)),
        step(at, one(Side::A)),
        step(at, slow),
        step(at + kill, What::Crash { down }),
        // Until then it stays so.
        step(at + kill + 3000, drop_of(Side::A, 2)),
    ]);
    let mut schedule = schedule(seed, steps);
    schedule.beginning = Beginning::of(Kind::Merge, &mut Random::new(seed));
    schedule.beginning.early.clear();
    schedule.skew_ms.a = 1000;
    schedule.weather.history_seconds = 1;
    schedule
}

/// Documents were compared once more that events had met since: what differed went on record as lost,
/// with all that the document held. That ranges were done was forgotten before the end of the merge was
/// on record, and a collection that had come since had none.
#[test]
fn what_a_merge_has_settled_is_not_compared_again_where_its_end_is_not_on_record() {
    let written = [(0, 308, 150), (1, 356, 175), (2, 308, 150), (3, 356, 175)];
    let created = [(0, 324, 175), (2, 316, 175), (2, 324, 150), (3, 332, 175)];
    let cases = written.map(|case| (case, None)).into_iter();
    for ((seed, at, kill), collection) in cases.chain(created.map(|case| (case, Some(0)))) {
        let around = (at - 8..=at + 8).step_by(8);
        play_well(around.map(|at| killed_amid_the_end(seed, at, kill, collection)));
    }
}
