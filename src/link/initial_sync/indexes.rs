//! The source's indexes, built on the target once its documents are there.

use bson::{Document, Uuid, doc};

use super::progress::{NotDone, Progress};
use super::survey::indexes;
use crate::change::{Namespace, Pair, Side};
use crate::cluster::{Cluster, errors};
use crate::ddl::{Ddl, index_to_create};
use crate::error::{Error, Result};
use crate::pipeline::{Pause, list, name_of};

/// Builds what is missing, one index after the other, so that one that cannot be built stands in
/// nobody's way.
///
/// # Errors
/// As the clusters say. An index that the target refuses is no error: it is listed, and stays so
/// until it is as it should be.
pub async fn build(
    clusters: &Pair<Cluster>,
    side: Side,
    places: &Pair<(Namespace, Option<Uuid>)>,
    progress: &Progress,
    ddl: Option<&Ddl>,
) -> Result<()> {
    let (namespace, uuid) = &places[side];
    let target = &clusters[side];
    let wanted = indexes_of(&clusters[side.other()], &places[side.other()]).await?;
    let there = indexes(target, namespace).await?;
    let name_of = |index: &Document| index.get_str("name").unwrap_or_default().to_owned();
    for index in wanted {
        let same = there.iter().any(|other| name_of(other) == name_of(&index));
        if !same {
            let name = name_of(&index);
            tracing::info!(%namespace, index = name, "building an index");
            if let Err(reason) = build_one(target, namespace, *uuid, &index).await? {
                tracing::warn!(%namespace, index = name, reason, "the index cannot be built");
                if let Some(ddl) = ddl {
                    ddl.index_refused(side, namespace, &name, &reason).await?;
                }
                progress.numbers().not_done.push(NotDone {
                    namespace: namespace.to_string(),
                    index: Some(name),
                    reason,
                });
            }
        }
        progress.numbers().indexes_done += 1;
    }
    Ok(())
}

/// None of a newer collection that has taken the name.
async fn indexes_of(
    source: &Cluster,
    (name, uuid): &(Namespace, Option<Uuid>),
) -> Result<Vec<Document>> {
    let there = list(source, name).await?.and_then(|there| there.uuid);
    match uuid {
        Some(_) if there != *uuid => Ok(Vec::new()),
        _ => indexes(source, name).await,
    }
}

/// Inside: why the target will not have it. Where the collection is gone, nothing is left to do.
pub(super) async fn build_one(
    target: &Cluster,
    namespace: &Namespace,
    uuid: Option<Uuid>,
    index: &Document,
) -> Result<std::result::Result<(), String>> {
    let doing = format!("build an index of {namespace} on {}", target.name);
    let mut command = doc! {
        "createIndexes": namespace.collection(),
        "indexes": [index_to_create(index)],
        "writeConcern": { "w": "majority" },
    };
    // By name alone it would make a collection that is gone, or has moved.
    if let Some(uuid) = uuid {
        command.insert("collectionUUID", uuid);
    }
    let mut pause = Pause::of_outages();
    loop {
        // A build takes as long as it takes; only a broken connection ends the wait.
        let (database, again) = (namespace.database(), command.clone());
        let built = target.command_without_deadline(database, again, &doing);
        let Err(error) = built.await else {
            return Ok(Ok(()));
        };
        if errors::code_of(&error) == Some(errors::COLLECTION_UUID_MISMATCH) {
            let is_gone = match uuid {
                Some(uuid) => name_of(target, database, uuid).await?.is_none(),
                None => true,
            };
            if is_gone {
                return Ok(Ok(()));
            }
            let moved = format!("{namespace} has been renamed on {}", target.name);
            return Err(Error::unreachable(moved).caused_by(error));
        }
        if !error.is_retryable() {
            return Ok(Err(error.to_string()));
        }
        tracing::warn!(%error, "trying again");
        tokio::time::sleep(pause.wait()).await;
    }
}
