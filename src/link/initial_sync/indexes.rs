//! The source's indexes, built on the target once its documents are there.

use bson::{Document, Uuid, doc};

use super::progress::{NotDone, Progress};
use super::survey::indexes;
use crate::change::{Namespace, Pair, Side};
use crate::cluster::{Cluster, errors};
use crate::ddl::{Ddl, index_to_create};
use crate::error::{Error, Result};
use crate::pipeline::{Pause, list, name_of as name_of_collection};

/// Builds what is missing: all of it in one pass over the documents, or, where the target refuses
/// that, one index after the other, so that one that cannot be built stands in nobody's way.
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
    let is_there = |index: &Document| there.iter().any(|other| name_of(other) == name_of(index));
    let (same, missing): (Vec<_>, Vec<_>) = wanted.into_iter().partition(is_there);
    progress.numbers().indexes_done += same.len() as u64;
    if missing.len() > 1 {
        let count = missing.len();
        tracing::info!(%namespace, count, "building indexes");
        if build_some(target, namespace, *uuid, &missing)
            .await?
            .is_ok()
        {
            progress.numbers().indexes_done += count as u64;
            return Ok(());
        }
    }
    for index in missing {
        let name = name_of(&index).to_owned();
        tracing::info!(%namespace, index = name, "building an index");
        if let Err(reason) = build_some(target, namespace, *uuid, &[index]).await? {
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
        progress.numbers().indexes_done += 1;
    }
    Ok(())
}

fn name_of(index: &Document) -> &str {
    index.get_str("name").unwrap_or_default()
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

/// All of them or none. Inside: why the target will not have them. Where the collection is gone,
/// nothing is left to do.
pub(super) async fn build_some(
    target: &Cluster,
    namespace: &Namespace,
    uuid: Option<Uuid>,
    indexes: &[Document],
) -> Result<std::result::Result<(), String>> {
    let doing = format!("build an index of {namespace} on {}", target.name);
    let to_create: Vec<Document> = indexes.iter().map(index_to_create).collect();
    let mut command = doc! {
        "createIndexes": namespace.collection(),
        "indexes": to_create,
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
                Some(uuid) => name_of_collection(target, database, uuid).await?.is_none(),
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
