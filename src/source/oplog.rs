//! What a cluster's oplog tells by itself, at a fraction of what a stream over it costs the server.

use bson::{Document, Timestamp, Uuid, doc};

use crate::cluster::Cluster;
use crate::error::Result;

/// The time of the oldest entry in a cluster's oplog.
///
/// # Errors
/// As the server says.
pub async fn oldest_entry(cluster: &Cluster) -> Result<Option<Timestamp>> {
    let command = doc! { "find": "oplog.rs", "sort": { "$natural": 1 }, "limit": 1, "projection": { "ts": 1 } };
    first_time(cluster, command).await
}

/// Whether a cluster's oplog has an entry between two times, both included.
///
/// # Errors
/// As the server says.
pub async fn has_entries(cluster: &Cluster, from: Timestamp, to: Timestamp) -> Result<bool> {
    let command = doc! {
        "find": "oplog.rs",
        "filter": { "ts": { "$gte": from, "$lte": to } },
        "projection": { "ts": 1 },
        "limit": 1,
        "singleBatch": true,
    };
    Ok(first_time(cluster, command).await?.is_some())
}

/// The time of the first entry between two times, both included, by which one of these tag sessions
/// wrote into anything but `own_database`. A majority has everything up to `to` when this is answered,
/// so nothing is added to it later.
///
/// # Errors
/// As the server says.
pub async fn first_data_written(
    cluster: &Cluster,
    sessions: &[Uuid],
    own_database: &str,
    (from, to): (Timestamp, Timestamp),
) -> Result<Option<Timestamp>> {
    let sessions: Vec<bson::Binary> = sessions.iter().map(|id| (*id).into()).collect();
    let own = format!("^{}\\.", regex::escape(own_database));
    let is_data = doc! { "ns": { "$not": { "$regex": own } } };
    let writes_data = vec![
        doc! { "o.applyOps": { "$elemMatch": is_data } },
        doc! { "op": { "$ne": "c" } },
    ];
    let command = doc! {
        "find": "oplog.rs",
        "filter": {
            "ts": { "$gte": from, "$lte": to },
            "lsid.id": { "$in": sessions },
            "$or": writes_data,
        },
        "projection": { "ts": 1 },
        "sort": { "$natural": 1 },
        "limit": 1,
        "singleBatch": true,
        "readConcern": { "level": "majority", "afterClusterTime": to },
    };
    first_time(cluster, command).await
}

async fn first_time(cluster: &Cluster, command: Document) -> Result<Option<Timestamp>> {
    let doing = format!("read the oplog of {}", cluster.name);
    let reply = cluster.command("local", command, &doing).await?;
    let first = reply
        .get_document("cursor")
        .and_then(|cursor| cursor.get_array("firstBatch"))
        .ok()
        .and_then(|batch| batch.first()?.as_document()?.get_timestamp("ts").ok());
    Ok(first)
}
