//! Many schedules at once, and what they came to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{available_parallelism, scope};
use std::time::{Duration, Instant};

use crate::beginnings::Kind;
use crate::number;
use crate::play::{Outcome, play};
use crate::schedule::Schedule;

/// What schedules came to.
pub struct Tally {
    began: Instant,
    schedules: u64,
    beginnings: BTreeMap<Kind, u32>,
    commands: u64,
    records: usize,
    crashes: u32,
    changes: usize,
    given_up: BTreeMap<String, u32>,
    longest_rest: (Duration, u64),
    /// By seed: two plays of it are the same.
    pub traces: BTreeMap<u64, u64>,
    /// Their seeds.
    pub failed: BTreeSet<u64>,
}

impl Tally {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            schedules: 0,
            beginnings: BTreeMap::new(),
            commands: 0,
            records: 0,
            crashes: 0,
            changes: 0,
            given_up: BTreeMap::new(),
            longest_rest: (Duration::ZERO, 0),
            traces: BTreeMap::new(),
            failed: BTreeSet::new(),
        }
    }

    fn add(&mut self, schedule: &Schedule, outcome: Option<Outcome>) {
        let seed = schedule.seed;
        self.schedules += 1;
        *self.beginnings.entry(schedule.beginning.kind).or_insert(0) += 1;
        let Some(outcome) = outcome else {
            println!("TANDEM_SEED={seed} panics");
            self.failed.insert(seed);
            return;
        };
        self.traces.insert(seed, outcome.trace);
        self.commands += outcome.commands;
        self.records += outcome.records;
        self.crashes += outcome.crashes;
        self.changes += outcome.changes;
        for reason in outcome.given_up.into_values() {
            *self.given_up.entry(reason).or_insert(0) += 1;
        }
        let rest = (outcome.came_to_rest_after, seed);
        self.longest_rest = self.longest_rest.max(rest);
        if !outcome.problems.is_empty() {
            println!("TANDEM_SEED={seed}: {:#?}", outcome.problems);
            self.failed.insert(seed);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} schedules ({:?}) in {:.1} s, {} failed, {} commands, {} records, {} crashes, \
             {} changes of collections, given up: {:?}, at rest after {:.1?} at most (seed {})",
            self.schedules,
            self.beginnings,
            self.began.elapsed().as_secs_f64(),
            self.failed.len(),
            self.commands,
            self.records,
            self.crashes,
            self.changes,
            self.given_up,
            self.longest_rest.0,
            self.longest_rest.1,
        )
    }
}

/// Plays the schedules of so many seeds, some at a time. Where the first failure is enough, none
/// with a higher seed is begun after one.
pub fn play_all(first: u64, count: u64, is_first_enough: bool) -> Tally {
    let tally = Mutex::new(Tally::new());
    let (next, end) = (AtomicU64::new(first), AtomicU64::new(first + count));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= end.load(Ordering::SeqCst) {
                return;
            }
            let schedule = Schedule::of(seed);
            let outcome = catch_unwind(AssertUnwindSafe(|| play(&schedule))).ok();
            let mut tally = tally.lock().expect("no panic");
            tally.add(&schedule, outcome);
            if is_first_enough && tally.failed.contains(&seed) {
                end.fetch_min(seed, Ordering::SeqCst);
            }
        }
    };
    scope(|scope| {
        let workers: Vec<_> = (0..threads()).map(|_| scope.spawn(work)).collect();
        // Their end in earnest: with a thread go its stores.
        for worker in workers {
            worker.join().expect("no panic");
        }
    });
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn threads() -> u64 {
    number("TANDEM_SIMULATION_THREADS").unwrap_or_else(|| {
        let cores = available_parallelism();
        cores.map_or(1, |cores| cores.get() as u64)
    })
}
