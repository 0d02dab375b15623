//! The real link between two clusters in memory, under random schedules.
//!
//! Everything of tandem runs, the local store included; only what is behind the seam of
//! `src/cluster` is made up, and behaves as a server was seen to.

mod applications;
mod beginnings;
mod checks;
mod collections;
mod commands;
mod deaths;
mod elections;
mod known;
mod known_copies;
mod known_merges;
mod known_renames;
mod known_takeovers;
mod majority;
mod network;
mod play;
mod process;
mod query;
mod random;
mod reads;
mod records;
mod replica;
mod schedule;
mod shrink;
mod stores;
mod stream;
mod tally;
mod transactions;
mod update;
mod watch;
mod world;
mod writes;

use std::time::Duration;

/// A schedule is hundreds of thousands of small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use beginnings::{Beginning, Kind};
use play::play;
use random::Random;
use schedule::Schedule;
use shrink::shrink;
use tally::play_all;
use tandem::change::Side;

/// Schedules of a run of the tests.
const SCHEDULES: u64 = 80;

/// Set where a check is missing and the first failure is enough.
const FIRST_ONLY: &str = "TANDEM_SIMULATION_FIRST";
const NOTICED: &str = "noticed by schedule";

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} takes a number, not {value}")),
    )
}

/// Fresh seeds for every run, but where one is given.
fn first_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let fresh = || std::hash::RandomState::new().build_hasher().finish() >> 16;
    number("TANDEM_SEED_BASE").unwrap_or_else(fresh)
}

/// Plays one schedule, and the shortest one that still fails.
fn replay(seed: u64) {
    let schedule = Schedule::of(seed);
    println!("{schedule:#?}");
    let outcome = play(&schedule);
    println!("{outcome:#?}");
    if !outcome.problems.is_empty() {
        let short = shrink(&schedule);
        println!("fails with fewer steps too: {:#?}", short.steps);
        println!("and with these deaths: {:#?}", short.deaths);
        eprintln!("the short one:");
        println!("{:#?}", play(&short).problems);
        panic!("seed {seed} fails");
    }
}

#[test]
fn both_sides_come_to_the_same_and_no_write_is_lost_without_a_record() {
    if let Some(seed) = number("TANDEM_SEED") {
        replay(seed);
        return;
    }
    let (first, count) = (
        first_seed(),
        number("TANDEM_SIMULATIONS").unwrap_or(SCHEDULES),
    );
    println!("{count} schedules from seed {first}");
    let tally = play_all(first, count, std::env::var_os(FIRST_ONLY).is_some());
    if let Some(seed) = tally.failed.first() {
        println!("{NOTICED} {}", seed - first + 1);
    }
    println!("simulation: {tally}, first seed {first}");
    assert!(tally.failed.is_empty(), "failing seeds: {:?}", tally.failed);
}

/// Commands of a first start, and some more.
const COMMANDS_OF_A_START: u64 = 70;

/// It once took the epoch of the process that had taken over for its own, and both went on. It once
/// put its checkpoints in the place of those of the other one, whose positions were earlier.
#[test]
fn a_first_start_that_sleeps_after_any_command_while_another_process_starts_gives_way() {
    let first = first_seed();
    for commands in 0..COMMANDS_OF_A_START {
        let kind = Kind::ALL[(first + commands) as usize % Kind::ALL.len()];
        let mut schedule = Schedule::of(first + commands);
        schedule.beginning = Beginning::of(kind, &mut Random::new(schedule.seed));
        schedule.asleep_after_commands = Some(commands);
        schedule.deaths.clear();
        schedule.steps.truncate(5);
        let problems = play(&schedule).problems;
        let seed = schedule.seed;
        assert!(
            problems.is_empty(),
            "after {commands} commands, {kind:?}, seed {seed}: {problems:#?}"
        );
    }
}

/// Of the time in which a start looks at both clusters and puts the link on record.
const START_MS_MAX: u64 = 250;
const START_MS_APART: usize = 3;

/// What was written between the look at the target and the position that it is read from was no event,
/// and the copy wrote over it unseen.
#[test]
fn what_is_written_into_the_target_of_a_copy_while_it_starts_refuses_it_or_is_never_lost() {
    let first = first_seed();
    for ms in (first % START_MS_APART as u64..START_MS_MAX).step_by(START_MS_APART) {
        let seed = first + ms;
        let mut schedule = Schedule::of(seed);
        schedule.beginning = Beginning::of(Kind::Copy, &mut Random::new(seed));
        schedule.beginning.early = beginnings::one_of_each_kept_key(Side::B, ms);
        schedule.steps.truncate(5);
        let problems = play(&schedule).problems;
        let is_refused = problems.iter().any(|one| one.contains("ended with 3"));
        assert!(
            is_refused || problems.is_empty(),
            "after {ms} ms, seed {seed}: {problems:#?}"
        );
    }
}

const CHANGES: usize = 400;
const CHANGES_APART: Duration = Duration::from_millis(4);
const RESTLESS_SCHEDULES: u64 = 6;

/// A merge once ended with 1 where a collection was dropped between two of its looks at it, and both
/// counted ranges of collections that had changed their names below nothing.
#[test]
fn collections_that_come_and_go_amid_a_copy_or_a_merge_do_not_end_the_link() {
    let first = first_seed();
    for seed in first..first + RESTLESS_SCHEDULES {
        for kind in [Kind::Copy, Kind::Merge] {
            let mut schedule = Schedule::of(seed);
            let mut dice = Random::new(seed);
            schedule.beginning = Beginning::of(kind, &mut dice);
            schedule.steps = schedule::restless(&mut dice, CHANGES, CHANGES_APART);
            let mut problems = play(&schedule).problems;
            problems.retain(|one| one.contains("the link"));
            assert!(problems.is_empty(), "{kind:?}, seed {seed}: {problems:#?}");
        }
    }
}

/// Seeds that are played twice.
const TWICE: u64 = 20;

#[test]
fn a_seed_is_the_whole_run() {
    let first = first_seed();
    let [one, other] = [(); 2].map(|()| play_all(first, TWICE, false).traces);
    assert_eq!(one, other, "two runs of a seed differ");
}

/// So many schedules are played with a check missing; one of them notices it, most often soon.
#[cfg(debug_assertions)]
const NOTICED_WITHIN: u64 = 1000;

/// Plays schedules with a check of tandem missing, in a process of its own, since the switch is in
/// the environment. Gives the number of schedules until it was noticed.
#[cfg(debug_assertions)]
fn schedules_until_noticed(fault: &str, emphasis: Option<&str>) -> Option<u64> {
    let program = std::env::current_exe().expect("this program");
    let played = std::process::Command::new(program)
        .args(["--exact", "--nocapture"])
        .arg("both_sides_come_to_the_same_and_no_write_is_lost_without_a_record")
        .env("TANDEM_FAULT", fault)
        .env("TANDEM_SIMULATIONS", NOTICED_WITHIN.to_string())
        .envs(emphasis.map(|emphasis| (schedule::Emphasis::VARIABLE, emphasis)))
        .env(FIRST_ONLY, "1")
        .output()
        .expect("this program can be run");
    let said = String::from_utf8_lossy(&played.stdout);
    println!("{fault}: {said}");
    let line = said.lines().find_map(|line| line.strip_prefix(NOTICED))?;
    line.trim().parse().ok()
}

#[cfg(debug_assertions)]
#[test]
fn without_the_fence_it_is_noticed() {
    assert!(schedules_until_noticed("no_fence", None).is_some());
}

#[cfg(debug_assertions)]
#[test]
fn what_comes_back_is_noticed_where_a_reader_takes_it_for_an_applications() {
    assert!(schedules_until_noticed("no_origin", None).is_some());
}

#[cfg(debug_assertions)]
#[test]
fn an_overwritten_write_whose_record_comes_later_is_noticed() {
    assert!(schedules_until_noticed("late_records", None).is_some());
}

#[cfg(debug_assertions)]
#[test]
#[ignore = "it may take some 200 schedules"]
fn without_what_a_document_has_included_it_is_noticed() {
    assert!(schedules_until_noticed("no_included", None).is_some());
}

#[cfg(debug_assertions)]
#[test]
#[ignore = "it may take some 100 schedules"]
fn without_the_note_of_what_is_owed_it_is_noticed() {
    assert!(schedules_until_noticed("no_owed", None).is_some());
}

#[cfg(debug_assertions)]
#[test]
#[ignore = "it may take some 500 schedules"]
fn a_cluster_time_that_counts_as_complete_too_early_is_noticed() {
    assert!(schedules_until_noticed("early_complete", None).is_some());
}

#[cfg(debug_assertions)]
#[test]
#[ignore = "it may take some 500 schedules"]
fn a_write_that_changes_nothing_and_meets_no_conflict_is_noticed() {
    assert!(schedules_until_noticed("no_touch", None).is_some());
}

#[cfg(debug_assertions)]
#[test]
fn where_the_sessions_of_a_dead_process_are_ended_once_only_it_is_noticed() {
    assert!(schedules_until_noticed("ended_once", None).is_some());
}

#[cfg(debug_assertions)]
#[test]
#[ignore = "it may take some 200 schedules"]
fn a_lane_that_does_not_wait_for_what_settling_a_commit_has_written_is_noticed() {
    assert!(schedules_until_noticed("early_retry", Some("lost_replies")).is_some());
}

#[cfg(debug_assertions)]
#[test]
#[ignore = "it may take some 200 schedules"]
fn a_write_that_names_no_collection_uuid_is_noticed() {
    assert!(schedules_until_noticed("no_uuid", Some("collections")).is_some());
}

#[cfg(debug_assertions)]
#[test]
#[ignore = "it may take some 200 schedules"]
fn without_the_epoch_it_is_noticed() {
    assert!(schedules_until_noticed("no_epoch", None).is_some());
}

#[cfg(debug_assertions)]
#[test]
#[ignore = "it may take some 100 schedules"]
fn a_copy_that_sends_what_it_has_read_whatever_was_written_since_is_noticed() {
    assert!(schedules_until_noticed("stale_copy", Some("copies")).is_some());
}

#[cfg(debug_assertions)]
#[test]
fn a_range_that_is_done_before_its_documents_are_there_is_noticed() {
    assert!(schedules_until_noticed("early_range", Some("copies")).is_some());
    assert!(schedules_until_noticed("early_range", Some("merges")).is_some());
}

#[cfg(debug_assertions)]
#[test]
fn events_that_meet_what_was_not_copied_or_merged_yet_are_noticed() {
    assert!(schedules_until_noticed("no_hold", Some("copies")).is_some());
    assert!(schedules_until_noticed("no_hold", Some("merges")).is_some());
}

#[cfg(debug_assertions)]
#[test]
#[ignore = "it may take some 400 schedules"]
fn a_reader_that_does_not_wait_for_the_times_of_commits_is_noticed() {
    assert!(schedules_until_noticed("hasty_reader", None).is_some());
}
