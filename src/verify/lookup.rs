//! Documents of both clusters by key, and what is tried again when a cluster is away.

use std::collections::HashMap;

use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, Timestamp, cstr, doc, rawdoc};
use sha2::{Digest as _, Sha256};

use super::join::Digest;
use crate::change::{DocumentKey, Namespace, Pair, Renames, Selection};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::pipeline::Pause;

/// Documents asked for in one `find`.
pub const FIND_KEYS_MAX: usize = 500;

/// Tries before a cluster that is away ends the comparison, over about half a minute.
const TRIES_MAX: u32 = 12;

/// Whose documents are looked up, and which of them.
pub struct Sought<'a> {
    /// The name on a.
    namespace: &'a Namespace,
    renames: &'a Renames,
    selection: Selection,
}

impl<'a> Sought<'a> {
    pub fn of(config: &'a Config, namespace: &'a Namespace) -> Self {
        Self {
            namespace,
            renames: config.namespaces.renames(),
            selection: config.filters.selection(namespace),
        }
    }
}

/// Tries a read again until it succeeds, fails for good, or has failed too often.
///
/// # Errors
/// The last one.
pub async fn with_tries<T, W: Future<Output = Result<T>>>(work: impl Fn() -> W) -> Result<T> {
    let mut pause = Pause::of_outages();
    let mut tries = 1;
    loop {
        match work().await {
            Err(error) if error.is_retryable() && tries < TRIES_MAX => {
                tracing::warn!(%error, "reading again");
                tries += 1;
                tokio::time::sleep(pause.wait()).await;
            }
            outcome => return outcome,
        }
    }
}

pub fn digest(document: &RawDocument) -> Digest {
    Sha256::digest(document.as_bytes()).into()
}

/// The digests of the documents of `keys`, without those not there.
///
/// # Errors
/// As the cluster says.
pub async fn digests(
    cluster: &Cluster,
    sought: &Sought<'_>,
    keys: &[DocumentKey],
) -> Result<HashMap<DocumentKey, Digest>> {
    let mut found = HashMap::with_capacity(keys.len());
    find(cluster, sought, keys, |document| {
        if let Some(key) = DocumentKey::of(sought.namespace, document) {
            found.insert(key, digest(document));
        }
    })
    .await?;
    Ok(found)
}

/// The document of a key on both sides, byte for byte.
///
/// # Errors
/// As the clusters say.
pub async fn documents(
    clusters: &Pair<Cluster>,
    sought: &Sought<'_>,
    key: &DocumentKey,
) -> Result<Pair<Option<RawDocumentBuf>>> {
    let read = async |cluster: &Cluster| {
        let mut found = None;
        let key_alone = std::slice::from_ref(key);
        find(cluster, sought, key_alone, |document| {
            if DocumentKey::of(sought.namespace, document).as_ref() == Some(key) {
                found = Some(document.to_owned());
            }
        })
        .await?;
        Ok::<_, Error>(found)
    };
    let (a, b) = tokio::try_join!(read(&clusters.a), read(&clusters.b))?;
    Ok(Pair::new(a, b))
}

/// The clusters' own times now: whatever was read before was written no later.
///
/// # Errors
/// As the clusters say.
pub async fn operation_times(clusters: &Pair<Cluster>) -> Result<Pair<Timestamp>> {
    let ask = async |cluster: &Cluster| {
        let doing = format!("ask {} for its time", cluster.name);
        let reply = cluster.command("admin", doc! { "ping": 1 }, &doing).await?;
        reply.get_timestamp("operationTime").map_err(|cause| {
            Error::cluster(format!("cannot {doing}: it is no replica set")).caused_by(cause)
        })
    };
    let (a, b) = tokio::try_join!(ask(&clusters.a), ask(&clusters.b))?;
    Ok(Pair::new(a, b))
}

async fn find(
    cluster: &Cluster,
    sought: &Sought<'_>,
    keys: &[DocumentKey],
    each: impl FnMut(&RawDocument),
) -> Result<()> {
    let mut ids = RawArrayBuf::new();
    for key in keys {
        if let Ok(Some(id)) = key.raw().get("_id") {
            ids.push(id);
        }
    }
    let namespace = sought.renames.on(cluster.side, sought.namespace);
    let mut command = RawDocumentBuf::new();
    command.append(cstr!("find"), namespace.collection());
    sought
        .selection
        .put_into(&mut command, Some(rawdoc! { "_id": { "$in": ids } }));
    command.append(cstr!("batchSize"), keys.len() as i64);
    command.append(cstr!("readConcern"), rawdoc! { "level": "majority" });
    let doing = format!("read {namespace} on {}", cluster.name);
    cluster
        .each(namespace.database(), command, &doing, each)
        .await
}
