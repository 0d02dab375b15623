//! Removes conflict records that have been kept for long enough, or that somebody wants removed.

use std::sync::Arc;
use std::time::Duration;

use bson::{DateTime, doc};
use tokio_util::sync::CancellationToken;

use super::own::Own;
use crate::change::{ConflictKind, Pair, RecordStatus, Side};
use crate::error::Result;
use crate::pipeline::Shared;
use crate::store::{RecordFilter, Store};

/// Records removed in one go.
const RECORDS_MAX: usize = 500;
/// Records removed before anybody is told of it.
const ROUND_MAX: usize = 5000;

/// How often it looks: a tenth of the retention, within these.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// What one round has removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    pub removed: u64,
    /// There may be more of them.
    pub more: bool,
}

/// Removes records older than the retention, on the clusters and then here, until cancelled.
pub async fn prune(shared: Arc<Shared>, own: Pair<Own>, stop: CancellationToken) {
    let mut adjustments = shared.adjustments();
    loop {
        let retention = adjustments.borrow_and_update().retention;
        let interval = (retention / 10).clamp(INTERVAL_MIN, INTERVAL_MAX);
        if let Err(error) = remove_old(&shared.store, &own, retention).await {
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

/// Removes records older than `retention`.
///
/// # Errors
/// As the clusters and the store say.
pub async fn remove_old(store: &Store, own: &Pair<Own>, retention: Duration) -> Result<()> {
    let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let before = DateTime::now().timestamp_millis();
    let before = DateTime::from_millis(before.saturating_sub(retention_ms));
    let mut removed = 0;
    loop {
        let round = remove_before(store, own, before).await?;
        removed += round.removed;
        if !round.more {
            break;
        }
    }
    if removed > 0 {
        tracing::info!(records = removed, "old conflict records removed");
    }
    Ok(())
}

/// Removes records logged before a time, a bounded number of them, on the clusters and then here. A
/// dead letter that nobody has settled stays. From when on the log is whole is put on record first.
///
/// # Errors
/// As the clusters and the store say.
pub async fn remove_before(store: &Store, own: &Pair<Own>, before: DateTime) -> Result<Round> {
    let old = RecordFilter {
        until: Some(before),
        ..RecordFilter::default()
    };
    let mut ids = Vec::new();
    for record in store.records(&old) {
        let record = record?;
        if !is_open(&record) {
            ids.push(record.get_str("_id").unwrap_or_default().to_owned());
        }
        if ids.len() == ROUND_MAX {
            break;
        }
    }
    let round = Round {
        removed: ids.len() as u64,
        more: ids.len() == ROUND_MAX,
    };
    if ids.is_empty() {
        return Ok(round);
    }
    if store.complete_since()? < Some(before) {
        store.set_complete_since(before)?;
    }
    for part in ids.chunks(RECORDS_MAX) {
        for side in Side::BOTH {
            let chunks = doc! { "q": { "_id.record": { "$in": part } }, "limit": 0 };
            own[side].delete("conflict_chunks", vec![chunks]).await?;
            let records = doc! { "q": { "_id": { "$in": part } }, "limit": 0 };
            own[side].delete("conflicts", vec![records]).await?;
        }
        store.remove_records(part)?;
    }
    Ok(round)
}

/// Its document is still put aside, and whoever settles it needs the record.
pub fn is_open(record: &bson::RawDocument) -> bool {
    let text = |name: &str| record.get_str(name).unwrap_or_default();
    text("kind") == ConflictKind::DeadLetter.as_str()
        && text("status") == RecordStatus::Logged.as_str()
}
