//! When a run that is to catch up has done so.

use std::time::Duration;

use bson::Timestamp;

use super::merge::Desk;
use super::monitor::pipelines_of;
use super::pausing::Pausing;
use crate::change::Pair;
use crate::config::Config;
use crate::error::Result;
use crate::pipeline::Shared;

const INTERVAL: Duration = Duration::from_millis(20);

const CANNOT: &str = "the link cannot catch up";

/// Returns once everything that was written before the start has been applied, and no copy or merge
/// goes on.
///
/// # Errors
/// A usage error (2) where a pipeline is paused: nobody knows for how long.
pub(super) async fn wait_until_caught_up(
    config: &Config,
    shared: &Shared,
    started_at: Pair<Timestamp>,
    desk: &Desk,
    pausing: &Pausing,
) -> Result<()> {
    while desk.is_busy() {
        pausing.must_go_on(CANNOT)?;
        tokio::time::sleep(INTERVAL).await;
    }
    for pipeline in pipelines_of(config.link.mode) {
        let source = pipeline.source();
        let time = started_at[source];
        loop {
            pausing.must_go_on(CANNOT)?;
            let (applied, waiting) = {
                let ledger = shared.exchange.ledger();
                let applied = ledger.pipeline_applied_through(*pipeline);
                (applied, ledger.queue_bytes(source))
            };
            if applied.0.covers(time) {
                break;
            }
            if waiting == 0 {
                shared.exchange.ask_for_marker(source);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
    Ok(())
}
