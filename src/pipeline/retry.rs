//! How long to wait before the next try; the only user of `backoff`.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

use crate::chance;
use crate::error::Result;

/// A wait is at least this part of its mean, and as much longer at most, so that those who were
/// refused together do not come again together.
const SPREAD_MIN: f64 = 0.5;

/// How long a failed attempt waits for a reader to tell what has come of it all the same: what has failed
/// may keep the reader from that, too.
pub const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Growing waits that never give up: whoever retries decides when to stop.
#[derive(Debug)]
pub struct Pause {
    backoff: ExponentialBackoff,
}

impl Pause {
    /// A refused transaction: an application's write is in the way, usually for milliseconds.
    pub fn of_refusals() -> Self {
        Self::between(Duration::from_millis(5), Duration::from_secs(1))
    }

    /// A cluster that is away or electing.
    pub fn of_outages() -> Self {
        Self::between(Duration::from_millis(100), Duration::from_secs(5))
    }

    /// A receiver of alerts that does not take one.
    pub fn of_deliveries() -> Self {
        Self::between(Duration::from_millis(500), Duration::from_secs(60))
    }

    fn between(first: Duration, longest: Duration) -> Self {
        Self {
            backoff: ExponentialBackoff {
                current_interval: first,
                initial_interval: first,
                max_interval: longest,
                randomization_factor: 0.0,
                max_elapsed_time: None,
                ..ExponentialBackoff::default()
            },
        }
    }

    /// The next wait, longer than the last one on average.
    pub fn wait(&mut self) -> Duration {
        let longest = self.backoff.max_interval;
        let wait = self.backoff.next_backoff().unwrap_or(longest);
        wait.mul_f64(SPREAD_MIN + chance::fraction())
    }

    /// It worked: start again with short waits.
    pub fn reset(&mut self) {
        self.backoff.reset();
    }
}

/// Tries again for as long as it may help.
///
/// # Errors
/// What no retry helps against.
pub async fn insist<T, F>(mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut pause = Pause::of_outages();
    loop {
        match attempt().await {
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "trying again");
                tokio::time::sleep(pause.wait()).await;
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_never_end() {
        let mut pause = Pause::of_refusals();
        let waits: Vec<Duration> = (0..50).map(|_| pause.wait()).collect();
        assert!(waits[0] < Duration::from_millis(10));
        assert!(waits[40] >= Duration::from_millis(500));
        assert!(waits.iter().all(|wait| *wait < Duration::from_secs(2)));
        pause.reset();
        assert!(pause.wait() < Duration::from_millis(10));
    }
}
