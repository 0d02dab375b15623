//! Waiting for a condition, with a deadline and without fixed sleeps.

use std::future::Future;
use std::time::{Duration, Instant};

const POLL_FIRST: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(200);

/// Asks `probe` again and again until it says something; panics with `what` after `deadline`.
pub async fn wait_for<T, F, P>(what: &str, deadline: Duration, mut probe: P) -> T
where
    P: FnMut() -> F,
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    let mut pause = POLL_FIRST;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(
            start.elapsed() < deadline,
            "waited {deadline:?} in vain: {what}"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
    }
}
