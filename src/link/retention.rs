//! Removes conflict records that have been kept for long enough.

use std::sync::Arc;
use std::time::Duration;

use bson::{DateTime, doc};
use tokio_util::sync::CancellationToken;

use super::own::Own;
use crate::change::{ConflictKind, Pair, RecordStatus, Side};
use crate::error::Result;
use crate::pipeline::Shared;
use crate::store::RecordFilter;

/// Records removed in one go.
const RECORDS_MAX: usize = 500;

/// How often it looks: a tenth of the retention, within these.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// Removes records older than the retention, on the clusters and then here, until cancelled.
pub async fn prune(shared: Arc<Shared>, own: Pair<Own>, stop: CancellationToken) {
    let mut adjustments = shared.adjustments();
    loop {
        let retention = adjustments.borrow_and_update().retention;
        let interval = (retention / 10).clamp(INTERVAL_MIN, INTERVAL_MAX);
        if let Err(error) = prune_once(&shared, &own, retention).await {
            tracing::warn!(%error, "cannot remove old conflict records, trying again later");
        }
        tokio::select! {
        biased;
                   () = stop.cancelled() => return,
                   () = tokio::time::sleep(interval) => {}
                   _ = adjustments.changed() => {}
               }
    }
}

async fn prune_once(shared: &Shared, own: &Pair<Own>, retention: Duration) -> Result<()> {
    let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let before = DateTime::now().timestamp_millis();
    let before = DateTime::from_millis(before.saturating_sub(retention_ms));
    let old = RecordFilter {
        until: Some(before),
        ..RecordFilter::default()
    };
    let mut ids = Vec::new();
    for record in shared.store.records(&old) {
        let record = record?;
        let text = |name: &str| record.get_str(name).unwrap_or_default();
        // Its document is still put aside, and whoever settles it needs the record.
        let open = text("kind") == ConflictKind::DeadLetter.as_str()
            && text("status") == RecordStatus::Logged.as_str();
        if !open {
            ids.push(text("_id").to_owned());
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    for part in ids.chunks(RECORDS_MAX) {
        for side in Side::BOTH {
            let chunks = doc! { "q": { "_id.record": { "$in": part } }, "limit": 0 };
            own[side].delete("conflict_chunks", vec![chunks]).await?;
            let records = doc! { "q": { "_id": { "$in": part } }, "limit": 0 };
            own[side].delete("conflicts", vec![records]).await?;
        }
        shared.store.remove_records(part)?;
    }
    if shared.store.complete_since()? < Some(before) {
        shared.store.set_complete_since(before)?;
    }
    tracing::info!(records = ids.len(), "old conflict records removed");
    Ok(())
}
