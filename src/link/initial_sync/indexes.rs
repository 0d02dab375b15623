//! The source's indexes, built on the target once its documents are there.

use bson::{Document, Uuid, doc};

use std::collections::HashSet;

use super::progress::{NotDone, Progress};
use super::survey::indexes;
use crate::change::{Namespace, Pair, Side};
use crate::cluster::{Cluster, errors};
use crate::ddl::{Ddl, index_to_create, is_same_index};
use crate::error::{Error, Result};
use crate::link::own::Own;
use crate::pipeline::{Pause, Shared, insist, list, name_of};

/// Builds what is missing: all of it in one pass over the documents, or, where the target refuses
/// that, one index after the other, so that one that cannot be built stands in nobody's way. The
/// events of the builds are tandem's own, until that side's reader has passed them.
///
/// # Errors
/// Retryable where the collection has just got another name; as the clusters say. An index that the
/// target refuses is no error: it is listed, and stays so until it is as it should be.
pub async fn build(
    shared: &Shared,
    own: &Pair<Own>,
    side: Side,
    lasting: &Namespace,
    progress: &Progress,
    ddl: &Ddl,
) -> Result<()> {
    let places = Pair::new(
        shared.collections.place(lasting, Side::A),
        shared.collections.place(lasting, Side::B),
    );
    let clusters = own.as_ref().map(|own| &own.cluster);
    let missing = missing(&clusters, side, &places, progress, ddl).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let namespace = &places[side].0;
    shared.set_building(side, namespace, missing.iter().map(name).collect());
    let built = build_all(clusters[side], &places[side], missing, progress, ddl).await;
    let now = insist(|| own[side].latest_time()).await?;
    shared.exchange.wait_passed(side, now).await;
    shared.set_building(side, namespace, HashSet::new());
    built
}

/// Whether the other side has any index besides that of `_id`: without one there is nothing to build.
///
/// # Errors
/// As [`build`].
pub async fn are_wanted(
    shared: &Shared,
    own: &Pair<Own>,
    side: Side,
    lasting: &Namespace,
) -> Result<bool> {
    let place = shared.collections.place(lasting, side.other());
    let wanted = indexes_of(&own[side.other()].cluster, &place).await?;
    Ok(!wanted.is_empty())
}

/// What the other side has, and `side` has none of that name. What is the same on both is no problem
/// any more.
async fn missing(
    clusters: &Pair<&Cluster>,
    side: Side,
    places: &Pair<(Namespace, Option<Uuid>)>,
    progress: &Progress,
    ddl: &Ddl,
) -> Result<Vec<Document>> {
    let mut wanted = indexes_of(clusters[side.other()], &places[side.other()]).await?;
    let there = indexes(clusters[side], &places[side].0).await?;
    for index in &wanted {
        if there.iter().any(|other| is_same_index(index, other)) {
            ddl.index_is_there(side, &places[side], &name(index))
                .await?;
        }
    }
    let there: HashSet<String> = there.iter().map(name).collect();
    let all = wanted.len();
    wanted.retain(|index| !there.contains(&name(index)));
    progress.numbers().indexes_done += (all - wanted.len()) as u64;
    Ok(wanted)
}

async fn build_all(
    target: &Cluster,
    place: &(Namespace, Option<Uuid>),
    missing: Vec<Document>,
    progress: &Progress,
    ddl: &Ddl,
) -> Result<()> {
    let (namespace, uuid) = place;
    let side = target.side;
    if missing.len() > 1 {
        let count = missing.len();
        tracing::info!(%namespace, count, "building indexes");
        let built = build_some(target, namespace, *uuid, &missing).await?;
        if built.is_ok() {
            for index in &missing {
                ddl.index_is_there(side, place, &name(index)).await?;
            }
            progress.numbers().indexes_done += count as u64;
            return Ok(());
        }
    }
    for index in missing {
        let name = name(&index);
        tracing::info!(%namespace, index = name, "building an index");
        if let Err(reason) = build_some(target, namespace, *uuid, &[index]).await? {
            tracing::warn!(%namespace, index = name, reason, "the index cannot be built");
            ddl.index_refused(side, place, &name, &reason).await?;
            progress.numbers().not_done.push(NotDone {
                namespace: namespace.to_string(),
                index: Some(name),
                reason,
            });
        } else {
            ddl.index_is_there(side, place, &name).await?;
        }
        progress.numbers().indexes_done += 1;
    }
    Ok(())
}

fn name(index: &Document) -> String {
    index.get_str("name").unwrap_or_default().to_owned()
}

/// None of a newer collection that has taken the name.
///
/// # Errors
/// Retryable where it has just got another name; as the cluster says.
async fn indexes_of(
    source: &Cluster,
    (name, uuid): &(Namespace, Option<Uuid>),
) -> Result<Vec<Document>> {
    let there = list(source, name).await?.and_then(|there| there.uuid);
    let Some(gone) = uuid.filter(|_| there != *uuid) else {
        return indexes(source, name).await;
    };
    match name_of(source, name.database(), gone).await? {
        None => Ok(Vec::new()),
        Some(_) => Err(Error::unreachable(format!(
            "{name} has been renamed on {}",
            source.name
        ))),
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
