//! Before an initial sync: what it would copy, and whether the target may be written to.

use std::sync::Arc;

use bson::doc;
use comfy_table::{Table, presets};
use serde_json::json;

use super::survey::{Surveyed, holding_data, survey};
use crate::change::Mode;
use crate::cluster::{Cluster, Driver};
use crate::config::{Config, InitialSync};
use crate::error::{Error, Result};
use crate::link::merge::MergePlan;
use crate::link::start::{Connected, connect_both};

/// Names shown of a long list.
const NAMES_SHOWN: usize = 10;

/// What an initial sync would do; reads only.
pub enum DryRun {
    /// What it would copy from a.
    Copy(Mode, Vec<Surveyed>),
    Merge(MergePlan),
}

/// Looks at both clusters and writes nothing.
///
/// # Errors
/// Where a cluster cannot be connected (4); a target that holds data (3), unless it is to be dropped.
pub async fn dry_run(config: &Config, drop_target: bool) -> Result<DryRun> {
    let connected = connect_both(config, Arc::new(Driver)).await?;
    let plan = plan(config, &connected, drop_target).await;
    for cluster in [connected.clusters.a, connected.clusters.b] {
        cluster.shutdown().await;
    }
    plan
}

async fn plan(config: &Config, connected: &Connected, drop_target: bool) -> Result<DryRun> {
    match config.initial_sync {
        InitialSync::Merge => {
            let plan = MergePlan::of(config, &connected.clusters).await?;
            Ok(DryRun::Merge(plan))
        }
        InitialSync::Copy | InitialSync::None { .. } => {
            let found = look(config, connected, drop_target).await?;
            Ok(DryRun::Copy(config.link.mode, found))
        }
    }
}

async fn look(config: &Config, connected: &Connected, drop_target: bool) -> Result<Vec<Surveyed>> {
    if !drop_target {
        must_be_empty(config, &connected.clusters.b).await?;
    }
    survey(&connected.clusters.a, &config.namespaces, config.link.mode).await
}

impl DryRun {
    pub fn as_table(&self) -> String {
        match self {
            DryRun::Copy(mode, found) => copy_table(*mode, found),
            DryRun::Merge(plan) => plan.as_table(),
        }
    }

    pub fn as_json(&self) -> String {
        match self {
            DryRun::Copy(mode, found) => copy_json(*mode, found),
            DryRun::Merge(plan) => plan.as_json(),
        }
    }
}

fn copy_table(mode: Mode, found: &[Surveyed]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["namespace", "documents", "bytes", "indexes", "copied"]);
    for one in found {
        table.add_row([
            one.shown(),
            one.documents.to_string(),
            one.bytes.to_string(),
            one.indexes.len().to_string(),
            one.fate(mode),
        ]);
    }
    let copied = found.iter().filter(|one| one.is_copied(mode));
    let (mut documents, mut bytes) = (0, 0);
    for one in copied {
        documents += one.documents;
        bytes += one.bytes;
    }
    format!(
        "{table}\n{} namespaces, {documents} documents, {bytes} bytes (estimated); nothing was written\n",
        found.len()
    )
}

fn copy_json(mode: Mode, found: &[Surveyed]) -> String {
    let namespaces: Vec<_> = found
        .iter()
        .map(|one| {
            let names = one
                .indexes
                .iter()
                .filter_map(|index| index.get_str("name").ok());
            json!({
                "namespace": one.namespace.as_str(),
                "namespace_on_b": one.counterpart.as_str(),
                "documents": one.documents,
                "bytes": one.bytes,
                "indexes": names.collect::<Vec<_>>(),
                "copied": one.is_view() || one.is_copied(mode),
                "reason": if one.is_view() { None } else { one.unsupported },
            })
        })
        .collect();
    format!("{}\n", json!({ "format": 1, "namespaces": namespaces }))
}

impl Surveyed {
    pub fn is_copied(&self, mode: Mode) -> bool {
        self.unsupported.is_none() || self.is_copied_once(mode)
    }

    fn fate(&self, mode: Mode) -> String {
        match self.unsupported {
            _ if self.is_view() => "as a view".to_owned(),
            Some(reason) if self.is_copied_once(mode) => {
                format!("once, later changes are not replicated: {reason}")
            }
            None => "yes".to_owned(),
            Some(reason) => format!("no: {reason}"),
        }
    }
}

/// # Errors
/// A config error (3) that names the included collections of the target which hold data.
pub async fn must_be_empty(config: &Config, target: &Cluster) -> Result<()> {
    let holding = holding_data(target, &config.namespaces).await?;
    if holding.is_empty() {
        return Ok(());
    }
    let mut names: Vec<&str> = holding.iter().map(|name| name.as_str()).collect();
    let more = names.len().saturating_sub(NAMES_SHOWN);
    names.truncate(NAMES_SHOWN);
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(Error::config(format!(
        "initial_sync.mode = \"copy\": {} holds data in {}{more}",
        target.name,
        names.join(", ")
    ))
    .hint("--drop-target drops these collections first"))
}

/// Drops the included collections and views of the target.
///
/// # Errors
/// As the cluster says.
pub async fn drop_included(config: &Config, target: &Cluster) -> Result<()> {
    for found in survey(target, &config.namespaces, config.link.mode).await? {
        let namespace = &found.namespace;
        tracing::warn!(%namespace, cluster = %target.name, "dropping it for the initial sync");
        let command = doc! { "drop": namespace.collection(), "writeConcern": { "w": "majority" } };
        let doing = format!("drop {namespace} on {}", target.name);
        target
            .command(namespace.database(), command, &doing)
            .await?;
    }
    Ok(())
}
