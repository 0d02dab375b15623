//! Waiting for a condition, with a deadline and without fixed sleeps.

use std::future::Future;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Client;

const POLL_FIRST: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(200);
const STEP_POLL: Duration = Duration::from_millis(2);
const STEP_TIME_MAX: Duration = Duration::from_secs(30);

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

/// Waits until a cutover has written that it is at a step; some take milliseconds only.
pub async fn wait_for_step(target: &Client, step: &str) {
    let links = target.database("__tandem").collection::<Document>("links");
    let start = Instant::now();
    loop {
        let look = links.find_one(doc! { "cutover.step": step });
        if look.await.unwrap().is_some() {
            return;
        }
        assert!(start.elapsed() < STEP_TIME_MAX, "no step {step}");
        tokio::time::sleep(STEP_POLL).await;
    }
}
