//! How far a cluster's wall clock is from this host's.

use std::time::{Duration, Instant};

use bson::{DateTime, doc};

use crate::cluster::Cluster;

/// A clock is not known better than to half of this.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// The cluster's wall clock less ours, ms. None where it does not answer, or not soon.
pub async fn clock_offset_ms(cluster: &Cluster) -> Option<i64> {
    let asked = Instant::now();
    let reply = cluster
        .command("admin", doc! { "hello": 1 }, "read the clock")
        .await
        .ok()?;
    let took = asked.elapsed();
    let there = reply.get_datetime("localTime").ok()?.timestamp_millis();
    offset_ms(there, DateTime::now().timestamp_millis(), took)
}

/// The time of the answer is halved. None where that took so long, to find a primary say, that the
/// half of it would be taken for a wrong clock.
fn offset_ms(there: i64, here: i64, took: Duration) -> Option<i64> {
    let half = took.as_millis() as i64 / 2;
    (took <= ANSWER_TIME_MAX).then_some(there + half - here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_no_wrong_clock() {
        let answered_in = |ms| offset_ms(10_000, 10_050, Duration::from_millis(ms));
        assert_eq!(answered_in(100), Some(0));
        assert_eq!(answered_in(1_000), Some(450));
        assert_eq!(answered_in(14_000), None);
    }
}
