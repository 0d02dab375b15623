//! Namespaces that are no longer replicated, taken up again by a resync.

use bson::{Document, doc};

use super::Job;
use crate::change::{Namespace, Pair, Side};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::Result;
use crate::link::own::Own;

/// What the clusters have on record as no longer replicated, by its name on a.
///
/// # Errors
/// As the clusters say.
pub async fn unpaired(own: &Pair<Own>, link: &str) -> Result<Vec<Namespace>> {
    let mut names = Vec::new();
    for side in Side::BOTH {
        let found = records(&own[side], link).await?;
        names.extend(found.iter().filter_map(name_of));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Whether `job` is about something that is no longer replicated. Then the link has to catch up before
/// it: the events of what had the name before would be read again, and take it.
///
/// # Errors
/// As the clusters say.
pub async fn takes_up_again(config: &Config, clusters: &Pair<Cluster>, job: &Job) -> Result<bool> {
    let own = clusters.as_ref();
    let own = own.map(|cluster| Own::new(cluster, &config.link.database));
    let unpaired = unpaired(&own, &config.link.name).await?;
    Ok(unpaired.iter().any(|name| job.includes(name)))
}

/// Forgets that what `job` is about is no longer replicated: it is paired as at first sight, and the
/// job, on record already, brings both sides together before anything of it is applied. Whatever
/// breaks this off leaves it unpaired: one cluster's word is enough for that.
///
/// # Errors
/// As the clusters say.
pub async fn pair_anew(own: &Pair<Own>, link: &str, job: &Job) -> Result<()> {
    for side in Side::BOTH {
        let found = records(&own[side], link).await?;
        let named = found
            .iter()
            .filter(|one| name_of(one).is_some_and(|name| job.includes(&name)));
        let mut ids = Vec::new();
        for one in named {
            if let (Some(id), Side::A) = (one.get("namespace"), side) {
                tracing::info!(namespace = %id, "replicated again from here on");
            }
            ids.extend(one.get("_id").cloned());
        }
        if !ids.is_empty() {
            let forget = doc! { "q": { "_id": { "$in": ids } }, "limit": 0 };
            own[side].delete("collections", vec![forget]).await?;
        }
    }
    Ok(())
}

async fn records(own: &Own, link: &str) -> Result<Vec<Document>> {
    own.find("collections", doc! { "link": link, "state": "unpaired" })
        .await
}

fn name_of(found: &Document) -> Option<Namespace> {
    let name = found.get_str("name_a").or(found.get_str("namespace"));
    name.ok().and_then(Namespace::parse)
}
