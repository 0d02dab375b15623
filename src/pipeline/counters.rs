//! What a pipeline has done, counted over the life of the store.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::change::{AppliedThrough, Operation};
use crate::resolve::{Action, Plan};
use crate::store::Totals;

/// Shared by the lanes and the reader of one pipeline.
#[derive(Debug, Default)]
pub struct Counters {
    totals: Mutex<Totals>,
    seen: Mutex<Seen>,
}

/// Where the pipeline stands, for people.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Wall time of the last event read, ms since 1970.
    pub observed_wall_ms: Option<i64>,
    /// Wall time of the last event applied, ms since 1970.
    pub applied_wall_ms: Option<i64>,
    pub applied: Option<AppliedThrough>,
    /// What it waits for; none while it works.
    pub waiting_on: Option<String>,
}

impl Counters {
    pub fn starting_at(totals: Totals) -> Self {
        Self {
            totals: Mutex::new(totals),
            seen: Mutex::default(),
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
        if let Some(event) = plan.batch.last() {
            let mut seen = self.seen();
            seen.applied_wall_ms = seen.applied_wall_ms.max(Some(event.wall_time_ms));
        }
    }

    pub fn waits_on(&self, what: Option<&str>) {
        let mut seen = self.seen();
        if seen.waiting_on.as_deref() != what {
            seen.waiting_on = what.map(str::to_owned);
        }
    }
}
