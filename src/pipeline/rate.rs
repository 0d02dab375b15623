//! How much a lane takes at once, and how long it rests afterwards, under a limit for a second.

use std::time::Duration;

use tokio::time::Instant;

use super::lane::Lane;
use crate::resolve::BatchLimits;

impl Lane {
    /// What one transaction may take of these.
    pub(super) fn limits(&self, limits: BatchLimits) -> BatchLimits {
        BatchLimits {
            operations_max: self.within_rate(limits.operations_max),
            ..limits
        }
    }

    /// Under a limit for a second, no more than that second's, so that a lane never rests for much
    /// longer, and a new limit is soon kept.
    pub(super) fn within_rate(&self, operations: usize) -> usize {
        let rate = self.operations_per_second_max();
        let rate = rate.and_then(|rate| usize::try_from(rate).ok());
        operations.min(rate.unwrap_or(usize::MAX))
    }

    /// This lane's part of what the pipeline may do; none: no limit.
    pub(super) fn operations_per_second_max(&self) -> Option<u64> {
        let rate = self.shared.adjustable().operations_per_second_max;
        rate.map(|rate| (rate / self.settings.lanes as u64).max(1))
    }

    pub(super) async fn keep_rate(&self, operations: usize, started: Instant) {
        let Some(rate) = self.operations_per_second_max() else {
            return;
        };
        let due = Duration::from_secs_f64(operations as f64 / rate as f64);
        tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
    }
}
