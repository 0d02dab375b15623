//! Documents of a cluster exactly as of a moment of its history.

use std::collections::HashMap;

use bson::{RawArrayBuf, RawDocumentBuf, Timestamp, Uuid, cstr, rawdoc};
use futures_util::StreamExt;

use crate::change::{DocumentKey, Namespace};
use crate::cluster::Cluster;
use crate::error::Result;

/// Documents asked for in one `find`.
const FIND_KEYS_MAX: usize = 500;

/// Reads documents by key at `time` (`readConcern: { level: "snapshot", atClusterTime }`).
///
/// `place_of` gives what a collection is called there and its UUID: where another one has taken
/// its name, the server refuses instead of showing an empty one. A missing document is not in the
/// result.
///
/// # Errors
/// Retryable where the collection has changed or the snapshot is too old: decide again.
pub async fn read_at(
    cluster: &Cluster,
    time: Timestamp,
    keys: &[DocumentKey],
    place_of: impl Fn(&Namespace) -> Option<(Namespace, Uuid)>,
) -> Result<HashMap<DocumentKey, RawDocumentBuf>> {
    let mut by_namespace: HashMap<&Namespace, Vec<&DocumentKey>> = HashMap::new();
    for key in keys {
        by_namespace.entry(key.namespace()).or_default().push(key);
    }
    let mut found = HashMap::with_capacity(keys.len());
    for (namespace, keys) in by_namespace {
        let (name, uuid) = match place_of(namespace) {
            Some((name, uuid)) => (name, Some(uuid)),
            None => (namespace.clone(), None),
        };
        for some in keys.chunks(FIND_KEYS_MAX) {
            let command = find_command(&name, some, uuid, time);
            read_all(cluster, &name, namespace, command, &mut found).await?;
        }
    }
    Ok(found)
}

fn find_command(
    namespace: &Namespace,
    keys: &[&DocumentKey],
    uuid: Option<Uuid>,
    time: Timestamp,
) -> RawDocumentBuf {
    let mut ids = RawArrayBuf::new();
    for key in keys {
        if let Ok(Some(id)) = key.raw().get("_id") {
            ids.push(id);
        }
    }
    let mut command = RawDocumentBuf::new();
    command.append(cstr!("find"), namespace.collection());
    if let Some(uuid) = uuid {
        command.append(cstr!("collectionUUID"), bson::Binary::from(uuid));
    }
    command.append(cstr!("filter"), rawdoc! { "_id": { "$in": ids } });
    command.append(cstr!("batchSize"), keys.len() as i64);
    command.append(
        cstr!("readConcern"),
        rawdoc! { "level": "snapshot", "atClusterTime": time },
    );
    command
}

async fn read_all(
    cluster: &Cluster,
    name: &Namespace,
    namespace: &Namespace,
    command: RawDocumentBuf,
    found: &mut HashMap<DocumentKey, RawDocumentBuf>,
) -> Result<()> {
    let doing = format!("read {name} on {}", cluster.name);
    let database = cluster.client.database(name.database());
    let call = async {
        let mut cursor = database.run_raw_cursor_command(command).batch().await?;
        while let Some(batch) = cursor.next().await {
            let batch = batch?;
            for document in batch.doc_slices()?.into_iter() {
                let Some(document) = document?.as_document() else {
                    continue;
                };
                if let Some(key) = DocumentKey::of(namespace, document) {
                    found.insert(key, document.to_owned());
                }
            }
        }
        Ok(())
    };
    cluster.within(&doing, call).await
}
