//! What a pipeline has done, counted over the life of the store.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::change::{AppliedThrough, Operation};
use crate::resolve::{Action, Plan};
use crate::store::Totals;

/// Shared by the lanes and the reader of one pipeline.
#[derive(Debug, Default)]
pub struct Counters {
    totals: Mutex<Totals>,
    seen: Mutex<Seen>,
    waiting: Mutex<BTreeMap<Waiter, Waiting>>,
}

/// Who waits for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waiter {
    Lane(usize),
    /// Whoever brings changes of collections over.
    Ddl,
}

#[derive(Debug)]
struct Waiting {
    reason: String,
    since: Instant,
}

/// Who waits longer than this is named, and how long.
const LONG_WAIT: Duration = Duration::from_secs(5);

/// Where the pipeline stands, for people.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Wall time of the last event read, ms since 1970.
    pub observed_wall_ms: Option<i64>,
    /// Wall time of the last event applied, ms since 1970.
    pub applied_wall_ms: Option<i64>,
    pub applied: Option<AppliedThrough>,
}

impl Counters {
    pub fn starting_at(totals: Totals) -> Self {
        Self {
            totals: Mutex::new(totals),
            seen: Mutex::default(),
            waiting: Mutex::default(),
        }
    }

    pub fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A plan has been committed.
    pub fn applied(&self, plan: &Plan, identical: u64) {
        let mut totals = self.totals();
        totals.identical += identical;
        totals.dead_letters += plan.dead_letters.len() as u64;
        totals.events_passed_over += plan.passed_over as u64;
        for decision in &plan.decisions {
            if decision.action == Action::Skip {
                continue;
            }
            for event in &decision.events {
                let counter = match event.operation {
                    Operation::Insert => &mut totals.inserts_applied,
                    Operation::Update => &mut totals.updates_applied,
                    Operation::Replace => &mut totals.replaces_applied,
                    Operation::Delete => &mut totals.deletes_applied,
                };
                *counter += 1;
            }
        }
        drop(totals);
        let newest = plan.last_events().map(|event| event.wall_time_ms).max();
        let mut seen = self.seen();
        seen.applied_wall_ms = seen.applied_wall_ms.max(newest);
    }

    /// Says what a part of the pipeline waits for; none: it works, or has nothing to do.
    pub fn waits_on(&self, waiter: Waiter, reason: Option<&str>) {
        let mut waiting = self.waiting();
        match reason {
            None => {
                waiting.remove(&waiter);
            }
            Some(reason) => {
                let known = waiting.entry(waiter);
                let known = known.or_insert_with(|| Waiting::on(reason));
                if known.reason != reason {
                    *known = Waiting::on(reason);
                }
            }
        }
    }

    /// What the pipeline waits for: the reason of whoever has waited for the longest time.
    pub fn waiting_on(&self) -> Option<String> {
        let waiting = self.waiting();
        let (waiter, longest) = waiting.iter().min_by_key(|(_, waiting)| waiting.since)?;
        let elapsed = longest.since.elapsed();
        let Waiting { reason, .. } = longest;
        Some(match waiter {
            Waiter::Lane(lane) if elapsed >= LONG_WAIT => {
                format!("{reason} (lane {lane}, for {} s)", elapsed.as_secs())
            }
            _ => reason.clone(),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Waiter, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn on(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            since: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_without_work_does_not_hide_what_another_one_waits_for() {
        let counters = Counters::default();
        counters.waits_on(Waiter::Lane(1), Some("commit echo"));
        counters.waits_on(Waiter::Lane(0), Some("recovery"));
        counters.waits_on(Waiter::Lane(0), None);
        assert_eq!(counters.waiting_on().as_deref(), Some("commit echo"));
        counters.waits_on(Waiter::Lane(1), None);
        assert_eq!(counters.waiting_on(), None);
    }
}
