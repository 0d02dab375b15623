//! The deciding code under random schedules, against two clusters in memory.
//!
//! `TANDEM_SCHEDULES=n` says how many schedules, `TANDEM_SEED_BASE=n` from which seed on, and
//! `TANDEM_SEED=n` replays one with all its steps.

mod before;
mod checks;
mod cluster;
mod link;
mod notes;
mod options;
mod random;
mod restart;
mod schedule;
mod spool;
mod trace;
mod transaction;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tandem::change::{Policy, Side};

use checks::Failure;
use options::Broken;
use schedule::run;
use trace::Trace;

const SCHEDULES: u64 = 20_000;
/// Within so many schedules a broken rule shows.
const BROKEN_SCHEDULES_MAX: u64 = 40_000;

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
    )
}

/// Fresh seeds for every run, but where one is given.
fn first_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let fresh = || RandomState::new().hash_one("schedules") >> 16;
    number_from("TANDEM_SEED_BASE").unwrap_or_else(fresh)
}

/// Runs schedules on every core until one fails as in `enough`; the seeds of each failure.
fn failures(
    seeds: std::ops::Range<u64>,
    policy: Policy,
    broken: Broken,
    enough: &[Failure],
) -> BTreeMap<Failure, Vec<u64>> {
    let next = AtomicU64::new(seeds.start);
    let found: Mutex<BTreeMap<Failure, Vec<u64>>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let (outcome, _) = run(seed, policy, broken, Trace::default());
                    if let Err(failure) = outcome {
                        let mut found = found.lock().expect("no thread panics here");
                        found.entry(failure).or_default().push(seed);
                        if enough.contains(&failure) {
                            next.store(seeds.end, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    found.into_inner().expect("no thread panics here")
}

fn replay(seed: u64, policy: Policy, broken: Broken) -> Result<(), Failure> {
    let (outcome, trace) = run(seed, policy, broken, Trace::on());
    for line in trace.lines() {
        println!("{line}");
    }
    println!("seed {seed}: {outcome:?}");
    outcome
}

fn assert_no_failure(policy: Policy, share: u64) {
    if let Some(seed) = number_from("TANDEM_SEED") {
        assert_eq!(replay(seed, policy, Broken::Nothing), Ok(()));
        return;
    }
    let schedules = number_from("TANDEM_SCHEDULES").unwrap_or(SCHEDULES) / share;
    let base = first_seed();
    println!(
        "{schedules} schedules from seed {base}, {}",
        policy.as_str()
    );
    let found = failures(base..base + schedules, policy, Broken::Nothing, &[]);
    for (failure, seeds) in &found {
        println!(
            "{failure:?}: {} of {schedules}, first {:?}",
            seeds.len(),
            &seeds[..seeds.len().min(5)]
        );
    }
    let steps = |seed: &&u64| {
        run(**seed, policy, Broken::Nothing, Trace::on())
            .1
            .lines()
            .len()
    };
    for seeds in found.values() {
        let seed = seeds.iter().min_by_key(steps).expect("a seed");
        let _ = replay(*seed, policy, Broken::Nothing);
    }
    if let Some(seed) = found.values().flatten().min() {
        panic!("seed {seed} fails: replay it with TANDEM_SEED={seed}");
    }
}

#[test]
fn both_sides_come_to_the_same_and_every_loser_is_on_record() {
    assert_no_failure(Policy::LastWriteWins, 1);
}

#[test]
fn a_preferred_side_keeps_the_same_promises() {
    for side in Side::BOTH {
        assert_no_failure(Policy::Prefer(side), 10);
    }
}

fn assert_noticed(broken: Broken, by: &[Failure]) {
    let found = failures(0..BROKEN_SCHEDULES_MAX, Policy::LastWriteWins, broken, by);
    println!("{broken:?}: {found:?}");
    assert!(
        found.keys().any(|failure| by.contains(failure)),
        "{broken:?} went unnoticed: {found:?}"
    );
}

#[test]
fn a_missing_owed_note_is_noticed() {
    assert_noticed(Broken::Owed, &[Failure::Diverged, Failure::CausalityBroken]);
}

#[test]
fn a_missing_included_position_is_noticed() {
    assert_noticed(
        Broken::Included,
        &[Failure::Diverged, Failure::CausalityBroken],
    );
}

#[test]
fn a_write_that_changes_nothing_and_is_not_checked_is_noticed() {
    let by = [
        Failure::Diverged,
        Failure::CausalityBroken,
        Failure::LoserNotLogged,
    ];
    assert_noticed(Broken::ForcedCheck, &by);
}

#[test]
fn a_fence_inside_a_transaction_is_noticed() {
    let by = [
        Failure::Diverged,
        Failure::CausalityBroken,
        Failure::LoserNotLogged,
    ];
    assert_noticed(Broken::CompleteTimes, &by);
}

#[test]
fn full_state_of_another_moment_is_noticed() {
    let by = [
        Failure::Diverged,
        Failure::CausalityBroken,
        Failure::LoserNotLogged,
    ];
    assert_noticed(Broken::ExactRead, &by);
}

#[test]
fn a_commit_without_a_fence_is_noticed() {
    let by = [
        Failure::Diverged,
        Failure::CausalityBroken,
        Failure::LoserNotLogged,
    ];
    assert_noticed(Broken::Fence, &by);
}

#[test]
fn writes_that_meet_what_was_not_copied_yet_are_noticed() {
    assert_noticed(
        Broken::Hold,
        &[Failure::LoserNotLogged, Failure::CausalityBroken],
    );
}

#[test]
fn what_a_copy_has_read_and_somebody_has_changed_since_is_noticed() {
    assert_noticed(
        Broken::StaleCopy,
        &[Failure::Diverged, Failure::CausalityBroken],
    );
}

#[test]
fn writes_that_meet_what_was_not_merged_yet_are_noticed() {
    assert_noticed(
        Broken::MergeHold,
        &[Failure::LoserNotLogged, Failure::CausalityBroken],
    );
}

#[test]
fn a_merge_that_takes_lag_for_a_difference_is_noticed() {
    assert_noticed(Broken::Base, &[Failure::WinnerLogged]);
}

#[test]
fn an_agreement_that_settles_half_of_what_led_to_it_is_noticed() {
    assert_noticed(Broken::Agreement, &[Failure::LoserNotLogged]);
}

#[test]
fn a_restart_that_does_not_foresee_its_own_writes_is_noticed() {
    let by = [
        Failure::Diverged,
        Failure::CausalityBroken,
        Failure::LoserNotLogged,
    ];
    assert_noticed(Broken::Recovery, &by);
}

#[test]
fn a_restart_that_forgets_what_lanes_were_ahead_in_is_noticed() {
    assert_noticed(Broken::Ahead, &[Failure::OnTheWay(link::NOT_APPLIED)]);
}

#[test]
fn readers_that_wait_for_each_other_are_noticed() {
    assert_noticed(Broken::Room, &[Failure::Stuck]);
}
