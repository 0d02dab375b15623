//! What the last hour was like: one sample every few seconds, in a ring.

use std::collections::VecDeque;
use std::time::Duration;

use bson::DateTime;
use serde::Serialize;

use super::status::{LinkState, LinkStatus, OperationsApplied, PipelineStatus};
use crate::change::{Pair, PipelineId};

/// Close enough for a curve of an hour on a screen.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// An hour: what people ask for when they open the page after being called.
const SAMPLES_MAX: usize = 721;

/// The link at one moment. Totals count over the life of the store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    pub state: LinkState,
    pub pipelines: Vec<PipelineSample>,
    pub clock_skew_ms: Option<i64>,
    pub oplog_seconds_left: Pair<Option<u64>>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PipelineSample {
    pub id: PipelineId,
    pub lag_seconds: Option<f64>,
    /// Insert, update, replace, delete, ddl: operations a second since the sample before.
    pub rates: [f64; 5],
    pub conflicts_total: u64,
    pub dead_letters_total: u64,
    #[serde(skip)]
    applied: OperationsApplied,
}

/// The samples of the last hour, oldest first.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
}

impl History {
    pub fn push(&mut self, status: &LinkStatus, now: DateTime) {
        let at_ms = now.timestamp_millis();
        // A link that starts does not know its totals yet.
        let last = self.samples.back().filter(|last| last.knows_totals());
        let pipelines = status.pipelines.iter().map(|pipeline| {
            let before = last.and_then(|last| {
                let found = last.pipelines.iter().find(|one| one.id == pipeline.id)?;
                Some((found.applied, at_ms - last.at_ms))
            });
            sample_of(pipeline, before)
        });
        let sample = Sample {
            at_ms,
            state: status.state,
            pipelines: pipelines.collect(),
            clock_skew_ms: status.clusters.a.clock_skew_ms,
            oplog_seconds_left: status.clusters.as_ref().map(|one| one.oplog_seconds_left),
        };
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Sample> {
        self.samples.iter()
    }

    /// Conflicts of both directions within the last `window`.
    pub fn conflicts_within(&self, window: Duration, now_ms: i64) -> Counted {
        self.counted(window, now_ms, |pipeline| pipeline.conflicts_total)
    }

    pub fn dead_letters_within(&self, window: Duration, now_ms: i64) -> Counted {
        self.counted(window, now_ms, |pipeline| pipeline.dead_letters_total)
    }

    fn counted(&self, window: Duration, now_ms: i64, total: fn(&PipelineSample) -> u64) -> Counted {
        let from_ms = now_ms.saturating_sub(i64::try_from(window.as_millis()).unwrap_or(i64::MAX));
        let known = self.samples.iter().filter(|sample| sample.knows_totals());
        let sum = |sample: &Sample| sample.pipelines.iter().map(total).sum::<u64>();
        let before = known.clone().rev().find(|sample| sample.at_ms <= from_ms);
        let first = before.or_else(|| known.clone().next());
        let count = first
            .zip(known.clone().next_back())
            .map_or(0, |(first, last)| sum(last).saturating_sub(sum(first)));
        Counted {
            count,
            whole: before.is_some(),
        }
    }

    pub fn after(&self, at_ms: i64) -> Vec<Sample> {
        let newer = self.samples.iter().rev();
        let newer = newer.take_while(|sample| sample.at_ms > at_ms).cloned();
        let mut newer: Vec<Sample> = newer.collect();
        newer.reverse();
        newer
    }
}

impl Sample {
    fn knows_totals(&self) -> bool {
        !matches!(self.state, LinkState::Starting | LinkState::NeverRun)
    }
}

/// How much a total has grown within a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    pub count: u64,
    /// The samples reach back to the window's beginning.
    pub whole: bool,
}

/// `before`: the totals of the sample before, and how many milliseconds ago it was.
fn sample_of(
    pipeline: &PipelineStatus,
    before: Option<(OperationsApplied, i64)>,
) -> PipelineSample {
    let now = by_type(&pipeline.operations_applied_by_type);
    let rates = match before {
        Some((before, elapsed_ms)) if elapsed_ms > 0 => {
            let before = by_type(&before);
            std::array::from_fn(|at| {
                let more = now[at].saturating_sub(before[at]);
                more as f64 * 1000.0 / elapsed_ms as f64
            })
        }
        Some(_) | None => [0.0; 5],
    };
    PipelineSample {
        id: pipeline.id,
        lag_seconds: pipeline.lag_seconds,
        rates,
        conflicts_total: pipeline.conflicts_total,
        dead_letters_total: pipeline.dead_letters_total,
        applied: pipeline.operations_applied_by_type,
    }
}

fn by_type(applied: &OperationsApplied) -> [u64; 5] {
    let OperationsApplied {
        insert,
        update,
        replace,
        delete,
        ddl,
    } = *applied;
    [insert, update, replace, delete, ddl]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(inserted: u64) -> LinkStatus {
        let names = Pair::new("eu", "us");
        let mut status = LinkStatus::new("l", LinkState::Running, names, &PipelineId::BOTH);
        status.pipelines[0].operations_applied_by_type.insert = inserted;
        status
    }

    fn at(ms: i64) -> DateTime {
        DateTime::from_millis(ms)
    }

    #[test]
    fn a_rate_is_what_was_applied_since_the_sample_before() {
        let mut history = History::default();
        history.push(&status(100), at(0));
        history.push(&status(150), at(5000));
        history.push(&status(150), at(10_000));
        let rates: Vec<f64> = history.all().map(|one| one.pipelines[0].rates[0]).collect();
        assert_eq!(rates, [0.0, 10.0, 0.0]);
    }

    #[test]
    fn a_lost_store_and_a_clock_that_is_set_back_give_no_strange_rate() {
        let mut history = History::default();
        history.push(&status(100), at(5000));
        history.push(&status(0), at(10_000));
        history.push(&status(50), at(9000));
        let rates: Vec<f64> = history.all().map(|one| one.pipelines[0].rates[0]).collect();
        assert_eq!(rates, [0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_link_that_starts_with_the_totals_of_its_store_has_counted_nothing() {
        let mut history = History::default();
        let mut starting = status(0);
        starting.state = LinkState::Starting;
        history.push(&starting, at(0));
        let mut running = status(5000);
        running.pipelines[0].conflicts_total = 100;
        history.push(&running, at(5000));
        assert_eq!(history.all().last().unwrap().pipelines[0].rates[0], 0.0);
        running.pipelines[1].conflicts_total = 7;
        history.push(&running, at(10_000));
        let minute = Duration::from_secs(60);
        let counted = |now_ms| {
            let counted = history.conflicts_within(minute, now_ms);
            (counted.count, counted.whole)
        };
        assert_eq!(counted(10_000), (7, false));
        assert_eq!(counted(65_000), (7, true));
        assert_eq!(counted(70_000), (0, true));
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut history = History::default();
        for second in 0..4000 {
            history.push(&status(0), at(second * 5000));
        }
        assert_eq!(history.all().count(), SAMPLES_MAX);
        let newest = history.after(3998 * 5000);
        assert_eq!(newest.len(), 1);
        assert_eq!(newest[0].at_ms, 3999 * 5000);
    }
}
