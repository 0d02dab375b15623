//! Writes a marker where a stream has to pass a moment and nothing else makes it.

use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use tokio_util::sync::CancellationToken;

use super::own::Own;
use crate::change::Side;
use crate::pipeline::Shared;

/// One marker serves everybody who waits; more of them would only load the cluster.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// After a failure: the cluster is away, and the reader says so.
const INTERVAL_AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Writes markers on request until cancelled.
pub async fn write_markers(shared: Arc<Shared>, own: Own, side: Side, stop: CancellationToken) {
    loop {
        tokio::select! {
        biased;
                   () = stop.cancelled() => return,
                   () = shared.exchange.marker_wanted(side) => {}
               }
        let statement = doc! {
            "q": { "_id": format!("{}/reader", shared.facts.link) },
            "u": { "$inc": { "count": 1_i64 } },
            "upsert": true,
        };
        let pause = match own.update("markers", vec![statement]).await {
            Ok(_) => INTERVAL_MIN,
            Err(error) => {
                tracing::debug!(%error, "cannot write a marker");
                INTERVAL_AFTER_FAILURE
            }
        };
        tokio::time::sleep(pause).await;
    }
}
