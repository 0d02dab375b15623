//! How long a lane waits for more events before it takes what there is.

use std::time::Duration;

use tokio::time::Instant;

/// A batch may wait so many times longer for more where it is known to come: until it is full, even
/// where all lanes share what few cores make of it.
const FILL_TIMES_IN_A_BACKLOG: u32 = 50;

/// And so many times longer for several batches.
const FILL_TIMES_FOR_A_STRETCH: u32 = 200;

/// A lane that had nothing to do for so many times as long takes at once what comes.
const IDLE_TIMES: u32 = 2;

/// What a lane sees that has less than a full batch.
pub struct Outlook {
    /// More events are known to come.
    pub fills_up: bool,
    /// It wants several batches, to take them in the order of keys.
    pub for_stretch: bool,
    pub others: Others,
    pub waits_since: Instant,
    /// What came since then has waited already, while this lane committed.
    pub last_batch_began: Instant,
    /// Since its last transaction, with others or by itself.
    pub idle_since: Instant,
}

/// What the other lanes of the pipeline do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    DoNothing,
    /// The server is busy with them anyway.
    Commit,
    /// One of them does, and in its next transaction takes along the little that waits here.
    AreUnderWay,
}

/// What ends a lane's wait before its time.
#[derive(Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// More events in its queue.
    More,
    /// The end of the others' transaction.
    TheirEnd,
    Time,
}

impl Outlook {
    /// A lane takes at once what comes while nobody else commits. In a backlog events are late in any
    /// case: few large transactions get through it sooner than many small ones. So they do where
    /// little waits, on a machine that is busy: the lanes have one transaction together then.
    pub fn time_left(&self, fill_time_max: Duration) -> Duration {
        let (since, time_max) = match (self.fills_up, self.others) {
            (true, _) if self.for_stretch => {
                (self.waits_since, fill_time_max * FILL_TIMES_FOR_A_STRETCH)
            }
            (true, _) => (self.waits_since, fill_time_max * FILL_TIMES_IN_A_BACKLOG),
            (false, Others::AreUnderWay) if self.was_idle(fill_time_max) => return Duration::ZERO,
            (false, Others::AreUnderWay) => (self.waits_since, fill_time_max),
            (false, Others::Commit) => (self.last_batch_began, fill_time_max),
            (false, Others::DoNothing) => return Duration::ZERO,
        };
        time_max.saturating_sub(since.elapsed())
    }

    /// Writes are rare then, and a transaction more costs nobody anything.
    fn was_idle(&self, fill_time_max: Duration) -> bool {
        self.waits_since.duration_since(self.idle_since) > fill_time_max * IDLE_TIMES
    }

    pub fn waits_for(&self) -> WaitsFor {
        match (self.fills_up, self.others) {
            (true, _) => WaitsFor::More,
            (false, Others::AreUnderWay) => WaitsFor::TheirEnd,
            (false, Others::Commit | Others::DoNothing) => WaitsFor::Time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILL_TIME_MAX: Duration = Duration::from_millis(5);

    /// Of a lane that waits since now, and began its last batch `before`.
    fn left(fills_up: bool, others: Others, before: Duration) -> Duration {
        let now = Instant::now();
        let outlook = Outlook {
            fills_up,
            for_stretch: false,
            others,
            waits_since: now,
            last_batch_began: now - before,
            idle_since: now - FILL_TIME_MAX,
        };
        outlook.time_left(FILL_TIME_MAX)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_waits_for_more_where_others_commit_but_not_longer_than_since_its_last_batch() {
        let [two, five] = [2, 5].map(Duration::from_millis);
        assert_eq!(left(false, Others::Commit, two), FILL_TIME_MAX - two);
        assert_eq!(left(false, Others::Commit, five), Duration::ZERO);
        assert_eq!(left(false, Others::DoNothing, two), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_with_little_waits_for_who_takes_it_along_whenever_its_last_batch_was() {
        for before in [2, 500].map(Duration::from_millis) {
            assert_eq!(left(false, Others::AreUnderWay, before), FILL_TIME_MAX);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_was_idle_takes_at_once_the_little_that_comes() {
        let now = Instant::now();
        let left_after = |idle: Duration| {
            let outlook = Outlook {
                fills_up: false,
                for_stretch: false,
                others: Others::AreUnderWay,
                waits_since: now,
                last_batch_began: now - idle,
                idle_since: now - idle,
            };
            outlook.time_left(FILL_TIME_MAX)
        };
        assert_eq!(left_after(FILL_TIME_MAX * 2), FILL_TIME_MAX);
        assert_eq!(left_after(FILL_TIME_MAX * 3), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_waits_for_several_batches_unless_nothing_more_comes() {
        let now = Instant::now();
        let left = |fills_up| {
            let outlook = Outlook {
                fills_up,
                for_stretch: true,
                others: Others::DoNothing,
                waits_since: now,
                last_batch_began: now,
                idle_since: now,
            };
            outlook.time_left(FILL_TIME_MAX)
        };
        assert_eq!(left(true), Duration::from_secs(1));
        assert_eq!(left(false), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_backlog_a_lane_waits_for_a_full_batch_whatever_it_did_before() {
        for before in [2, 500].map(Duration::from_millis) {
            assert_eq!(left(true, Others::Commit, before), FILL_TIME_MAX * 50);
            assert_eq!(left(true, Others::DoNothing, before), FILL_TIME_MAX * 50);
        }
    }
}
