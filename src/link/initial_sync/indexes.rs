//! The source's indexes, built on the target once its documents are there.

use bson::{Document, doc};

use super::progress::{NotDone, Progress};
use super::survey::indexes;
use crate::change::{Namespace, Side};
use crate::cluster::{Cluster, errors};
use crate::ddl::{Ddl, index_to_create};
use crate::error::Result;
use crate::pipeline::Pause;

/// Builds what is missing, one index after the other, so that one that cannot be built stands in
/// nobody's way.
///
/// # Errors
/// As the clusters say. An index that the target refuses is no error: it is listed, and stays so
/// until it is as it should be.
pub(super) async fn build(
    source: &Cluster,
    target: &Cluster,
    namespace: &Namespace,
    progress: &Progress,
    ddl: &Ddl,
) -> Result<()> {
    let wanted = indexes(source, namespace).await?;
    let there = indexes(target, namespace).await?;
    let name_of = |index: &Document| index.get_str("name").unwrap_or_default().to_owned();
    for index in wanted {
        let same = there.iter().any(|other| name_of(other) == name_of(&index));
        if !same {
            let name = name_of(&index);
            tracing::info!(%namespace, index = name, "building an index");
            if let Err(reason) = build_one(target, namespace, &index).await? {
                tracing::warn!(%namespace, index = name, reason, "the index cannot be built");
                ddl.index_refused(Side::B, namespace, &name, &reason)
                    .await?;
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

/// Inside: why the target will not have it.
async fn build_one(
    target: &Cluster,
    namespace: &Namespace,
    index: &Document,
) -> Result<std::result::Result<(), String>> {
    let doing = format!("build an index of {namespace} on {}", target.name);
    let command = doc! {
        "createIndexes": namespace.collection(),
        "indexes": [index_to_create(index)],
        "writeConcern": { "w": "majority" },
    };
    let mut pause = Pause::of_outages();
    loop {
        // A build takes as long as it takes; only a broken connection ends the wait.
        let database = target.client.database(namespace.database());
        let error = match database.run_command(command.clone()).await {
            Ok(_) => return Ok(Ok(())),
            Err(error) => errors::classify(error, &doing),
        };
        if !error.is_retryable() {
            return Ok(Err(error.to_string()));
        }
        tracing::warn!(%error, "trying again");
        tokio::time::sleep(pause.wait()).await;
    }
}
