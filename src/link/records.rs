//! Fills the local conflict log up from the clusters: after a crash, or where the store was lost.

use bson::{RawDocumentBuf, doc};

use super::own::Own;
use crate::change::{Pair, RecordStatus, Side};
use crate::error::Result;
use crate::store::Store;

/// Records taken over in one go.
const BATCH: usize = 500;

/// Puts every record of the clusters into the local conflict log.
///
/// # Errors
/// As the clusters and the store say.
pub async fn fill_up_store(store: &Store, own: &Pair<Own>) -> Result<()> {
    for side in Side::BOTH {
        fill_up_from(store, &own[side]).await?;
    }
    store.check_log()
}

async fn fill_up_from(store: &Store, own: &Own) -> Result<()> {
    let doing = format!("read {}.conflicts on {}", own.database, own.cluster.name);
    let collection = own
        .cluster
        .client
        .database(&own.database)
        .collection::<RawDocumentBuf>("conflicts");
    let mut cursor = own.cluster.within(&doing, collection.find(doc! {})).await?;
    let mut batch: Vec<RawDocumentBuf> = Vec::new();
    while own.cluster.within(&doing, cursor.advance()).await? {
        batch.push(cursor.current().to_owned());
        if batch.len() >= BATCH {
            take(store, &batch)?;
            batch.clear();
        }
    }
    take(store, &batch)
}

fn take(store: &Store, batch: &[RawDocumentBuf]) -> Result<()> {
    store.put_records(batch)?;
    for record in batch {
        let status = record.get_str("status").ok().and_then(RecordStatus::parse);
        if let (Ok(id), Some(status)) = (record.get_str("_id"), status)
            && status != RecordStatus::Logged
        {
            store.set_record_status(id, status)?;
        }
    }
    Ok(())
}
