//! A failing schedule made short: deaths and steps are left out as long as it still fails.

use crate::play::play;
use crate::schedule::Schedule;

/// Schedules played to make one short.
const TRIES_MAX: usize = 300;

/// The same schedule with as few steps as can be found greedily.
pub fn shrink(schedule: &Schedule) -> Schedule {
    let mut shortest = schedule.clone();
    for death in (0..schedule.deaths.len()).rev() {
        let mut shorter = shortest.clone();
        shorter.deaths.remove(death);
        if !play(&shorter).problems.is_empty() {
            shortest = shorter;
        }
    }
    let mut tries = 0;
    let mut part = shortest.steps.len().div_ceil(2);
    while part > 0 {
        let mut at = 0;
        while at < shortest.steps.len() && tries < TRIES_MAX {
            let mut shorter = shortest.clone();
            let end = (at + part).min(shorter.steps.len());
            shorter.steps.drain(at..end);
            tries += 1;
            match play(&shorter).problems.is_empty() {
                true => at = end,
                false => shortest = shorter,
            }
        }
        part /= 2;
    }
    shortest
}
