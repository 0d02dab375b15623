//! What one cluster holds of the included namespaces, as far as a copy has to know.

use std::collections::BTreeMap;

use bson::{Bson, Document, RawDocument, Uuid, doc, rawdoc};
use futures_util::future::try_join_all;

use crate::change::{Mode, Namespace, NamespaceFilter, Side};
use crate::cluster::Cluster;
use crate::error::Result;
use crate::pipeline::{self, unsupported, uuid_in};

/// Collections that are looked at at once.
const AT_ONCE_MAX: usize = 8;

/// One included collection or view.
#[derive(Debug, Clone)]
pub struct Surveyed {
    /// What its cluster calls it.
    pub namespace: Namespace,
    /// What the other one does.
    pub counterpart: Namespace,
    /// `collection`, `view` or `timeseries`.
    pub kind: String,
    /// None for a view or a time series.
    pub uuid: Option<Uuid>,
    /// As `listCollections` tells them.
    pub options: Document,
    /// Estimated from the server's own counters.
    pub documents: u64,
    pub bytes: u64,
    /// As `listIndexes` tells them, without the one of `_id`.
    pub indexes: Vec<Document>,
    /// Why it is not kept in step.
    pub unsupported: Option<&'static str>,
}

impl Surveyed {
    /// Its name, with the one on the other cluster where that is another.
    pub fn shown(&self) -> String {
        match self.namespace == self.counterpart {
            true => self.namespace.to_string(),
            false => format!("{} -> {}", self.namespace, self.counterpart),
        }
    }

    pub fn is_view(&self) -> bool {
        self.kind == "view"
    }

    /// Whether it takes no transactions, so that it is copied without being followed.
    pub fn is_copied_once(&self, mode: Mode) -> bool {
        let is_capped = self.options.get_bool("capped").unwrap_or(false);
        self.kind == "timeseries" || (is_capped && mode.is_one_way())
    }
}

/// Everything included, ordered by name.
///
/// # Errors
/// As the cluster says.
pub async fn survey(
    cluster: &Cluster,
    filter: &NamespaceFilter,
    mode: Mode,
) -> Result<Vec<Surveyed>> {
    let included: Vec<_> = included(cluster, filter).await?.into_iter().collect();
    let mut found = Vec::with_capacity(included.len());
    for some in included.chunks(AT_ONCE_MAX) {
        let looks = some
            .iter()
            .map(|(namespace, entry)| look_at(cluster, filter, namespace, entry, mode));
        found.extend(try_join_all(looks).await?);
    }
    Ok(found)
}

/// What `listCollections` tells of everything included, by the cluster's own names.
///
/// # Errors
/// As the cluster says.
pub async fn included(
    cluster: &Cluster,
    filter: &NamespaceFilter,
) -> Result<BTreeMap<Namespace, Document>> {
    let mut found = everything(cluster, filter).await?;
    found.retain(|namespace, _| filter.includes(cluster.side, namespace));
    Ok(found)
}

/// As [`included`], with all else that the same databases hold.
///
/// # Errors
/// As the cluster says.
pub async fn everything(
    cluster: &Cluster,
    filter: &NamespaceFilter,
) -> Result<BTreeMap<Namespace, Document>> {
    let doing = format!("list the collections of {}", cluster.name);
    let mut found = BTreeMap::new();
    for name in cluster.database_names(&doing).await? {
        if !filter.may_include_from(cluster.side, &name) {
            continue;
        }
        let command = doc! { "listCollections": 1 };
        for entry in cluster.all(&name, command, &doing).await? {
            let namespace = Namespace::new(&name, entry.get_str("name").unwrap_or_default());
            found.insert(namespace, entry);
        }
    }
    Ok(found)
}

async fn look_at(
    cluster: &Cluster,
    filter: &NamespaceFilter,
    namespace: &Namespace,
    entry: &Document,
    mode: Mode,
) -> Result<Surveyed> {
    const TOO_LONG: &str = "its name would be too long on the other cluster";
    let counterpart = filter.renames().on_other(cluster.side, namespace);
    let counterpart = counterpart.unwrap_or_else(|| namespace.clone());
    let too_long = counterpart.is_too_long().then_some(TOO_LONG);
    let kind = entry.get_str("type").unwrap_or("collection");
    let options = entry.get_document("options").cloned().unwrap_or_default();
    let info = entry.get_document("info").ok();
    let uuid = info.and_then(|info| uuid_in(info, "uuid"));
    let mut found = Surveyed {
        unsupported: unsupported(kind, &options, mode).or(too_long),
        namespace: namespace.clone(),
        counterpart,
        kind: kind.to_owned(),
        uuid,
        options,
        documents: 0,
        bytes: 0,
        indexes: Vec::new(),
    };
    if kind != "view" {
        (found.documents, found.bytes) = size(cluster, &found.namespace).await?;
        found.indexes = indexes(cluster, &found.namespace).await?;
    }
    Ok(found)
}

async fn size(cluster: &Cluster, namespace: &Namespace) -> Result<(u64, u64)> {
    let doing = format!("measure {namespace} on {}", cluster.name);
    let command = doc! { "collStats": namespace.collection() };
    let stats = cluster
        .command(namespace.database(), command, &doing)
        .await?;
    let number = |name: &str| match stats.get(name) {
        Some(Bson::Int32(number)) => (*number).max(0) as u64,
        Some(Bson::Int64(number)) => (*number).max(0) as u64,
        Some(Bson::Double(number)) => number.max(0.0) as u64,
        _ => 0,
    };
    Ok((number("count"), number("size")))
}

/// The indexes of a collection without the one of `_id`; none where there is no collection.
///
/// # Errors
/// As the cluster says.
pub async fn indexes(cluster: &Cluster, namespace: &Namespace) -> Result<Vec<Document>> {
    let is_of_id = |index: &Document| {
        index.get_bool("clustered").unwrap_or(false) || matches!(index.get_str("name"), Ok("_id_"))
    };
    let mut found = pipeline::indexes(cluster, namespace).await?;
    found.retain(|index| !is_of_id(index));
    Ok(found)
}

/// The included collections of a cluster that hold a document, ordered by name.
///
/// # Errors
/// As the cluster says.
pub async fn holding_data(cluster: &Cluster, filter: &NamespaceFilter) -> Result<Vec<Namespace>> {
    let mut holding = Vec::new();
    for found in survey(cluster, filter, Mode::OneWay { from: Side::A }).await? {
        if found.is_view() {
            continue;
        }
        let doing = format!("look into {} on {}", found.namespace, cluster.name);
        let command = rawdoc! {
            "find": found.namespace.collection(),
            "projection": { "_id": 1 },
            "limit": 1,
            "singleBatch": true,
            "readConcern": cluster.of_majority_raw(),
        };
        let mut holds_data = false;
        let take = |_: &RawDocument| holds_data = true;
        let database = found.namespace.database();
        cluster.each(database, command, &doing, take).await?;
        if holds_data {
            holding.push(found.namespace);
        }
    }
    Ok(holding)
}
