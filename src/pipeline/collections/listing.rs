//! What a cluster says about a collection: its UUID, options and indexes.

use std::collections::{BTreeMap, HashMap};

use bson::{Document, Uuid, doc};
use futures_util::future::try_join_all;

use crate::change::{Mode, NAMESPACE_BYTES_MAX, Namespace};
use crate::cluster::{Cluster, errors};
use crate::error::{Error, Result};

/// Names in one command.
const NAMES_MAX: usize = 1000;

/// Commands about one collection each that are under way at once.
const AT_ONCE_MAX: usize = 8;

/// A collection or view as it is now.
#[derive(Debug, Clone)]
pub struct Listed {
    /// None for a view.
    pub uuid: Option<Uuid>,
    /// `collection`, `view` or `timeseries`.
    pub kind: String,
    pub options: Document,
}

impl Listed {
    fn of(found: &Document) -> Self {
        let info = found.get_document("info").ok();
        Self {
            uuid: info.and_then(|info| uuid_in(info, "uuid")),
            kind: found.get_str("type").unwrap_or("collection").to_owned(),
            options: found.get_document("options").cloned().unwrap_or_default(),
        }
    }

    pub fn is_view(&self) -> bool {
        self.kind == "view"
    }

    /// Why it cannot be replicated.
    pub fn unsupported(&self, mode: Mode) -> Option<&'static str> {
        unsupported(&self.kind, &self.options, mode)
    }
}

/// # Errors
/// As the cluster says.
pub async fn list(cluster: &Cluster, namespace: &Namespace) -> Result<Option<Listed>> {
    let mut found = list_all(cluster, std::slice::from_ref(namespace)).await?;
    Ok(found.remove(namespace))
}

/// Those of the collections and views that are there.
///
/// # Errors
/// As the cluster says.
pub async fn list_all(
    cluster: &Cluster,
    namespaces: &[Namespace],
) -> Result<HashMap<Namespace, Listed>> {
    let mut by_database: BTreeMap<&str, Vec<&Namespace>> = BTreeMap::new();
    for namespace in namespaces {
        let of_database = by_database.entry(namespace.database());
        of_database.or_default().push(namespace);
    }
    let mut listed = HashMap::new();
    for (database, namespaces) in by_database {
        for some in namespaces.chunks(NAMES_MAX) {
            let names: Vec<&str> = some.iter().map(|one| one.collection()).collect();
            let doing = match some {
                [one] => format!("list {one} on {}", cluster.name),
                _ => format!("list collections of {database} on {}", cluster.name),
            };
            // The server looks up equal names and goes through all collections otherwise.
            let command = doc! { "listCollections": 1, "filter": { "name": { "$in": names } } };
            let found = cluster.all(database, command, &doing).await?;
            listed.extend(found.into_iter().filter_map(|found| {
                let name = Namespace::new(database, found.get_str("name").ok()?);
                Some((name, Listed::of(&found)))
            }));
        }
    }
    Ok(listed)
}

/// All indexes of a collection; none where there is nothing under the name, or a view.
///
/// # Errors
/// As the cluster says.
pub async fn indexes(cluster: &Cluster, namespace: &Namespace) -> Result<Vec<Document>> {
    let found = indexes_if_there(cluster, namespace).await?;
    Ok(found.unwrap_or_default())
}

/// As [`indexes`], but tells a collection that is gone from one without an index.
///
/// # Errors
/// As the cluster says.
pub async fn indexes_if_there(
    cluster: &Cluster,
    namespace: &Namespace,
) -> Result<Option<Vec<Document>>> {
    let doing = format!("list the indexes of {namespace} on {}", cluster.name);
    let command = doc! { "listIndexes": namespace.collection(), "cursor": { "batchSize": 1000 } };
    match cluster.command(namespace.database(), command, &doing).await {
        Ok(reply) => Ok(Some(first_batch(&reply))),
        Err(error) if has_no_indexes(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a collection is called by now; none where its database has it no more.
///
/// # Errors
/// As the cluster says.
pub async fn name_of(cluster: &Cluster, database: &str, uuid: Uuid) -> Result<Option<Namespace>> {
    let doing = format!("list collection {uuid} of {database} on {}", cluster.name);
    let command = doc! { "listCollections": 1, "filter": { "info.uuid": uuid } };
    let reply = cluster.command(database, command, &doing).await?;
    let found = first_batch(&reply).into_iter().next();
    let name = found.and_then(|found| found.get_str("name").ok().map(str::to_owned));
    Ok(name.map(|name| Namespace::new(database, &name)))
}

/// The indexes of each collection, whatever has its name by now; none where it is gone. One whose
/// UUID is not known is what has the name.
///
/// # Errors
/// Retryable where a name changes again and again; as the cluster says.
pub async fn indexes_of_all(
    cluster: &Cluster,
    places: &[(Namespace, Option<Uuid>)],
) -> Result<Vec<Vec<Document>>> {
    let mut found = Vec::with_capacity(places.len());
    for some in places.chunks(AT_ONCE_MAX) {
        let asked: Vec<_> = some
            .iter()
            .map(|(name, _)| indexes(cluster, name))
            .collect();
        found.extend(try_join_all(asked).await?);
    }
    let names: Vec<_> = places.iter().map(|(name, _)| name.clone()).collect();
    let now = list_all(cluster, &names).await?;
    for ((name, uuid), found) in places.iter().zip(&mut found) {
        let is_it = now.get(name).is_some_and(|listed| listed.uuid == *uuid);
        if let Some(uuid) = uuid.filter(|_| !is_it) {
            *found = indexes_of(cluster, name, uuid).await?;
        }
    }
    Ok(found)
}

/// The indexes of one collection, whatever has its name by now; none where it is gone.
async fn indexes_of(cluster: &Cluster, namespace: &Namespace, uuid: Uuid) -> Result<Vec<Document>> {
    const TRIES: usize = 3;
    let mut name = namespace.clone();
    for _ in 0..TRIES {
        let found = indexes(cluster, &name).await?;
        match name_of(cluster, name.database(), uuid).await? {
            None => return Ok(Vec::new()),
            Some(now) if now == name => return Ok(found),
            Some(now) => name = now,
        }
    }
    Err(Error::unreachable(format!(
        "{namespace} is being renamed on {}",
        cluster.name
    )))
}

/// First fields of the unique secondary indexes.
pub fn unique_fields(indexes: &[Document]) -> Vec<String> {
    indexes
        .iter()
        .filter(|index| index.get_bool("unique").unwrap_or(false))
        .filter_map(|index| index.get_document("key").ok()?.keys().next().cloned())
        .collect()
}

/// Whether keys are compared by a collation, as the index of `_id` tells.
pub fn is_collated(indexes: &[Document]) -> bool {
    let of_id = |index: &&Document| {
        let name = index.get_str("name").unwrap_or_default();
        name == "_id_" || index.get_bool("clustered").unwrap_or(false)
    };
    let mut of_id = indexes.iter().filter(of_id);
    of_id.any(|index| index.contains_key("collation"))
}

/// Creates a collection with the options of its counterpart. One that is there is left as it is.
///
/// # Errors
/// As the cluster says.
pub async fn create(cluster: &Cluster, namespace: &Namespace, options: &Document) -> Result<()> {
    let doing = format!("create {namespace} on {}", cluster.name);
    let mut command = doc! { "create": namespace.collection() };
    command.extend(options.clone());
    command.insert("writeConcern", doc! { "w": "majority" });
    match cluster.command(namespace.database(), command, &doing).await {
        Ok(_) => Ok(()),
        Err(error) if errors::code_of(&error) == Some(errors::NAMESPACE_EXISTS) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Creates collections with the options of their counterparts.
///
/// # Errors
/// As the cluster says.
pub async fn create_all(cluster: &Cluster, missing: &[(Namespace, Document)]) -> Result<()> {
    for some in missing.chunks(AT_ONCE_MAX) {
        let each = some.iter();
        let asked: Vec<_> = each
            .map(|(name, options)| create(cluster, name, options))
            .collect();
        try_join_all(asked).await?;
    }
    Ok(())
}

/// Why a collection gets no counterpart of a name that is too long.
pub fn too_long(cluster: &Cluster) -> String {
    let longest = NAMESPACE_BYTES_MAX;
    format!(
        "its name on {} would be longer than {longest} bytes",
        cluster.name
    )
}

/// Whether an entry of `listCollections` is a collection that compares values by the simple
/// collation. That stays so for its UUID.
pub fn is_simple(entry: &Document) -> bool {
    let options = entry.get_document("options").ok();
    entry.get_str("type").is_ok_and(|kind| kind == "collection")
        && options.and_then(locale).is_none()
}

/// Of a default collation that is not the simple one.
fn locale(options: &Document) -> Option<&str> {
    let collation = options.get_document("collation").ok()?;
    let locale = collation.get_str("locale").unwrap_or_default();
    (locale != "simple").then_some(locale)
}

/// Why a collection cannot be kept in step.
pub fn unsupported(kind: &str, options: &Document, mode: Mode) -> Option<&'static str> {
    match kind {
        "view" => return Some("it is a view"),
        "timeseries" => return Some("it is a time series"),
        _ => {}
    }
    if options.get_bool("capped").unwrap_or(false) {
        return Some("capped collections cannot be written in transactions");
    }
    match (locale(options), mode) {
        (None, _) | (Some(_), Mode::OneWay { .. }) => None,
        (Some(_), Mode::TwoWay) => Some("its default collation is not simple"),
    }
}

pub fn uuid_in(document: &Document, name: &str) -> Option<Uuid> {
    match document.get(name)? {
        bson::Bson::Binary(binary) => binary.to_uuid().ok(),
        _ => None,
    }
}

/// There is nothing under the name, or a view.
fn has_no_indexes(error: &Error) -> bool {
    const NOT_SUPPORTED_ON_VIEW: i32 = 166;
    let code = errors::code_of(error);
    matches!(
        code,
        Some(errors::NAMESPACE_NOT_FOUND | NOT_SUPPORTED_ON_VIEW)
    )
}

fn first_batch(reply: &Document) -> Vec<Document> {
    let batch = reply
        .get_document("cursor")
        .and_then(|cursor| cursor.get_array("firstBatch"));
    let batch = batch.map_or(&[][..], |batch| batch);
    let documents = batch.iter().filter_map(|found| found.as_document());
    documents.cloned().collect()
}
