//! Collections that only one side has, made on the other one before a link begins to read.

use bson::Document;

use super::indexes::build_some;
use super::survey::{included, indexes};
use crate::change::{Mode, Namespace, Pair, Side};
use crate::cluster::Cluster;
use crate::config::{Config, InitialSync};
use crate::error::Result;
use crate::link::own::Own;
use crate::pipeline::{create, too_long, unsupported};

/// Makes what one side sends from and the other one lacks, empty, with its options and indexes.
/// This side's history is read from later on, so it is nobody's change. Where it is read from an
/// earlier time, what is missing is made once it is written to.
///
/// # Errors
/// As the clusters say. An index that cannot be built is a warning.
pub async fn make_missing(config: &Config, own: &Pair<Own>) -> Result<()> {
    let InitialSync::None { start_at } = config.initial_sync else {
        return Ok(());
    };
    if start_at != Pair::default() {
        return Ok(());
    }
    let there = Pair::new(
        included(&own.a.cluster, &config.namespaces).await?,
        included(&own.b.cluster, &config.namespaces).await?,
    );
    let mode = config.link.mode;
    for source in Side::BOTH.into_iter().filter(|side| mode.sends(*side)) {
        let (from, to) = (&own[source].cluster, &own[source.other()].cluster);
        for (namespace, entry) in &there[source] {
            let counterpart = config.namespaces.renames().on_other(source, namespace);
            let missing = |name: &Namespace| !there[source.other()].contains_key(name);
            if let Some(counterpart) = counterpart.filter(missing) {
                let mut names = Pair::new(counterpart.clone(), counterpart);
                names[source] = namespace.clone();
                make(from, to, &names, entry, mode).await?;
            }
        }
    }
    Ok(())
}

async fn make(
    source: &Cluster,
    target: &Cluster,
    names: &Pair<Namespace>,
    entry: &Document,
    mode: Mode,
) -> Result<()> {
    let namespace = &names[target.side];
    let options = entry.get_document("options").cloned().unwrap_or_default();
    let kind = entry.get_str("type").unwrap_or("collection");
    if unsupported(kind, &options, mode).is_some() {
        return Ok(());
    }
    if namespace.is_too_long() {
        let reason = too_long(target);
        tracing::warn!(%namespace, reason, "a collection that is missing cannot be made");
        return Ok(());
    }
    tracing::info!(cluster = %target.name, %namespace, "making a collection that is missing");
    create(target, namespace, &options).await?;
    for index in indexes(source, &names[source.side]).await? {
        if let Err(reason) =
            build_some(target, namespace, None, std::slice::from_ref(&index)).await?
        {
            let index = index.get_str("name").unwrap_or_default();
            tracing::warn!(cluster = %target.name, %namespace, index, reason, "an index cannot be built");
        }
    }
    Ok(())
}
