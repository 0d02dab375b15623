//! Fills the local conflict log up from the clusters: after a crash, or where the store was lost.

use std::collections::HashMap;

use bson::{RawDocument, RawDocumentBuf, rawdoc};

use super::own::Own;
use super::retention::remove_old;
use crate::change::{Pair, RecordStatus, Side, chunk_ids, joined_record};
use crate::cluster::CursorKind;
use crate::config::ConflictsConfig;
use crate::error::Result;
use crate::pipeline::log_room;
use crate::ranges::documents;
use crate::store::Store;

/// Records taken over in one go.
const BATCH: usize = 500;
/// The same in bytes.
const BATCH_BYTES: usize = 32 * 1024 * 1024;

/// Puts every record of the clusters into the local conflict log.
///
/// # Errors
/// As the clusters and the store say; exit 7 where the log is larger than it may be, with what has
/// been kept for long enough removed.
pub async fn fill_up_store(
    store: &Store,
    own: &Pair<Own>,
    conflicts: &ConflictsConfig,
) -> Result<()> {
    for side in Side::BOTH {
        fill_up_from(store, &own[side]).await?;
    }
    store.check_log()?;
    if conflicts
        .bytes_max
        .is_some_and(|max| store.records_bytes() > max)
    {
        remove_old(store, own, conflicts.retention).await?;
    }
    log_room::check(0, store.records_bytes(), conflicts.bytes_max)
}

async fn fill_up_from(store: &Store, own: &Own) -> Result<()> {
    let doing = format!("read {}.conflicts on {}", own.database, own.cluster.name);
    let concern = own.cluster.of_majority_raw();
    let command = rawdoc! { "find": "conflicts", "readConcern": concern };
    let (cluster, kind) = (&own.cluster, CursorKind::PLAIN);
    let mut cursor = cluster.open(&own.database, command, kind, &doing).await?;
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some(found) = cluster.within(&doing, cursor.next()).await? {
        for record in documents(&found, &doing)? {
            let record = whole(store, own, record?).await?;
            bytes += record.as_bytes().len();
            batch.push(record);
            if batch.len() >= BATCH || bytes >= BATCH_BYTES {
                take(store, &batch)?;
                batch.clear();
                bytes = 0;
            }
        }
    }
    take(store, &batch)
}

/// A record with what was split off for being too large; as it is where the store has it already.
async fn whole(store: &Store, own: &Own, record: &RawDocument) -> Result<RawDocumentBuf> {
    let ids = chunk_ids(record);
    let id = record.get_str("_id").unwrap_or_default();
    if ids.is_empty() || store.record(id)?.is_some() {
        return Ok(record.to_owned());
    }
    let name = &own.cluster.name;
    let doing = format!("read {}.conflict_chunks on {name}", own.database);
    let mut found = HashMap::new();
    // One at a time: together they may be more than a reply holds.
    for id in ids {
        let command = rawdoc! {
            "find": "conflict_chunks",
            "filter": { "_id": id.clone() },
            "readConcern": own.cluster.of_majority_raw(),
        };
        let take = |chunk: &RawDocument| {
            let data = chunk.get_binary("data").map(|data| data.bytes.to_vec());
            found.extend(data.ok().map(|data| (id.clone().into_bytes(), data)));
        };
        own.cluster
            .each(&own.database, command, &doing, take)
            .await?;
    }
    let joined = joined_record(record, |id| found.remove(id.as_bytes()));
    Ok(joined.unwrap_or_else(|| {
        tracing::warn!(cluster = %name, record = id, "a part of a conflict record is missing");
        record.to_owned()
    }))
}

fn take(store: &Store, batch: &[RawDocumentBuf]) -> Result<()> {
    store.put_records(batch)?;
    for record in batch {
        let status = record.get_str("status").ok().and_then(RecordStatus::parse);
        if let (Ok(id), Some(status)) = (record.get_str("_id"), status)
            && status != RecordStatus::Logged
        {
            store.set_record_status(id, status)?;
            if let Ok(by) = record.get_document("restored") {
                store.set_record_fields(id, &rawdoc! { "restored": by.to_owned() })?;
            }
        }
    }
    Ok(())
}
