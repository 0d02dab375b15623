//! Which collection of one cluster belongs to which of the other, by UUID.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bson::{Document, Uuid, doc};

use crate::change::{Namespace, Pair, Side};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::target::CollectionInfo;

/// What is known about a namespace.
#[derive(Debug, Clone)]
pub enum Pairing {
    Paired(Pair<CollectionInfo>),
    /// Its events are passed over.
    Unpaired,
    /// The collection is gone from its source or has been replaced: the reader will tell.
    Unclear,
}

/// All paired and unpaired collections of a link.
pub struct Collections {
    clusters: Pair<Cluster>,
    link: String,
    database: String,
    known: Mutex<HashMap<Namespace, Known>>,
    /// Whether a namespace is kept in one lane.
    routed: Mutex<HashMap<Namespace, bool>>,
    /// Held while a namespace is paired or unpaired, so that what is unpaired stays so.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
enum Known {
    Paired(Pair<CollectionInfo>),
    /// Found in `__tandem.collections`; its indexes have not been read yet.
    Stored(Pair<Uuid>),
    Unpaired,
}

struct Listed {
    uuid: Uuid,
    options: Document,
    /// Why it cannot be replicated.
    unsupported: Option<&'static str>,
}

const NAMESPACE_EXISTS: i32 = 48;

impl Collections {
    pub fn new(clusters: Pair<Cluster>, link: &str, database: &str) -> Self {
        Self {
            clusters,
            link: link.to_owned(),
            database: database.to_owned(),
            known: Mutex::default(),
            routed: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Reads what a former process has paired and unpaired. Returns the unpaired ones.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn load(&self) -> Result<Vec<Namespace>> {
        let mut unpaired = Vec::new();
        for side in Side::BOTH {
            for found in self.stored(side).await? {
                let Some(namespace) = found.get_str("namespace").ok().and_then(Namespace::parse)
                else {
                    continue;
                };
                if let Ok(single) = found.get_bool("single_lane") {
                    self.routed().insert(namespace.clone(), single);
                }
                if matches!(found.get_str("state"), Ok("unpaired")) {
                    self.known().insert(namespace.clone(), Known::Unpaired);
                    unpaired.push(namespace);
                } else if let (Some(a), Some(b)) = (uuid_in(&found, "a"), uuid_in(&found, "b")) {
                    self.known()
                        .entry(namespace)
                        .or_insert(Known::Stored(Pair::new(a, b)));
                }
            }
        }
        Ok(unpaired)
    }

    async fn stored(&self, side: Side) -> Result<Vec<Document>> {
        let cluster = &self.clusters[side];
        let doing = format!("read {}.collections on {}", self.database, cluster.name);
        let collection = cluster
            .client
            .database(&self.database)
            .collection::<Document>("collections");
        let call = async {
            let mut found = Vec::new();
            let mut cursor = collection.find(doc! { "link": &self.link }).await?;
            while cursor.advance().await? {
                found.push(cursor.deserialize_current()?);
            }
            Ok(found)
        };
        cluster.within(&doing, call).await
    }

    /// The pair of a namespace. Where the collection is missing on the other side, it is created
    /// with its options first.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn pair(&self, namespace: &Namespace, source: Side) -> Result<Pairing> {
        if let Some(Known::Paired(pair)) = self.known().get(namespace) {
            return Ok(Pairing::Paired(pair.clone()));
        }
        let _changing = self.changing.lock().await;
        let stored = match self.known().get(namespace) {
            Some(Known::Paired(pair)) => return Ok(Pairing::Paired(pair.clone())),
            Some(Known::Unpaired) => return Ok(Pairing::Unpaired),
            Some(Known::Stored(uuids)) => Some(*uuids),
            None => None,
        };
        let uuids = match stored {
            Some(uuids) => uuids,
            None => match self.make_pair(namespace, source).await? {
                Some(uuids) => uuids,
                None if self.is_unpaired(namespace) => return Ok(Pairing::Unpaired),
                None => return Ok(Pairing::Unclear),
            },
        };
        let info = Pair::new(
            self.info(namespace, Side::A, uuids.a).await?,
            self.info(namespace, Side::B, uuids.b).await?,
        );
        self.known()
            .insert(namespace.clone(), Known::Paired(info.clone()));
        Ok(Pairing::Paired(info))
    }

    async fn make_pair(&self, namespace: &Namespace, source: Side) -> Result<Option<Pair<Uuid>>> {
        let Some(from) = self.list(namespace, source).await? else {
            return Ok(None);
        };
        if let Some(reason) = from.unsupported {
            self.set_unpaired(namespace, reason).await?;
            return Ok(None);
        }
        let target = source.other();
        let to = match self.list(namespace, target).await? {
            Some(found) => found,
            None => {
                self.create(namespace, target, &from.options).await?;
                match self.list(namespace, target).await? {
                    Some(created) => created,
                    None => return Ok(None),
                }
            }
        };
        if let Some(reason) = to.unsupported {
            self.set_unpaired(namespace, reason).await?;
            return Ok(None);
        }
        let mut uuids = Pair::new(from.uuid, from.uuid);
        uuids[target] = to.uuid;
        let state = doc! { "state": "paired", "a": uuids.a, "b": uuids.b };
        self.save(namespace, state).await?;
        Ok(Some(uuids))
    }

    /// Whether all documents of a namespace must share a lane, as a unique index on either side
    /// asks for. Decided when its first event is read, and the same ever after.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn needs_one_lane(&self, namespace: &Namespace) -> Result<bool> {
        if let Some(known) = self.routed().get(namespace) {
            return Ok(*known);
        }
        let nobody = Uuid::from_bytes([0; 16]);
        let mut single = false;
        for side in Side::BOTH {
            single |= !self
                .info(namespace, side, nobody)
                .await?
                .unique_fields
                .is_empty();
        }
        self.save(namespace, doc! { "single_lane": single }).await?;
        self.routed().insert(namespace.clone(), single);
        Ok(single)
    }

    /// Namespaces that a former process has kept in one lane.
    pub fn in_one_lane(&self) -> Vec<Namespace> {
        let routed = self.routed();
        let single = routed.iter().filter(|(_, single)| **single);
        single.map(|(namespace, _)| namespace.clone()).collect()
    }

    fn routed(&self) -> MutexGuard<'_, HashMap<Namespace, bool>> {
        self.routed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the namespace is passed over, over restarts too.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn unpair(&self, namespace: &Namespace, reason: &str) -> Result<()> {
        let _changing = self.changing.lock().await;
        self.set_unpaired(namespace, reason).await
    }

    async fn set_unpaired(&self, namespace: &Namespace, reason: &str) -> Result<()> {
        tracing::warn!(%namespace, reason, "namespace is not replicated any more");
        self.save(namespace, doc! { "state": "unpaired", "reason": reason })
            .await?;
        self.known().insert(namespace.clone(), Known::Unpaired);
        Ok(())
    }

    /// Indexes have changed: they are read again before the next write.
    pub fn forget_indexes(&self, namespace: &Namespace) {
        let mut known = self.known();
        if let Some(Known::Paired(pair)) = known.get(namespace) {
            let uuids = Pair::new(pair.a.uuid, pair.b.uuid);
            known.insert(namespace.clone(), Known::Stored(uuids));
        }
    }

    pub fn is_unpaired(&self, namespace: &Namespace) -> bool {
        matches!(self.known().get(namespace), Some(Known::Unpaired))
    }

    /// Names of the namespaces that are passed over, sorted.
    pub fn unpaired(&self) -> Vec<String> {
        let known = self.known();
        let mut names: Vec<String> = known
            .iter()
            .filter(|(_, state)| matches!(state, Known::Unpaired))
            .map(|(name, _)| name.to_string())
            .collect();
        names.sort();
        names
    }

    /// Namespaces of one database that anything is known about.
    pub fn in_database(&self, database: &str) -> Vec<Namespace> {
        let known = self.known();
        let names = known.keys().filter(|name| name.database() == database);
        names.cloned().collect()
    }

    async fn list(&self, namespace: &Namespace, side: Side) -> Result<Option<Listed>> {
        let cluster = &self.clusters[side];
        let doing = format!("list {namespace} on {}", cluster.name);
        let command = doc! { "listCollections": 1, "filter": { "name": namespace.collection() } };
        let reply = cluster
            .command(namespace.database(), command, &doing)
            .await?;
        let found = first_of(&reply);
        Ok(found.and_then(|found| {
            let options = found.get_document("options").cloned().unwrap_or_default();
            let kind = found.get_str("type").unwrap_or("collection").to_owned();
            let uuid = found
                .get_document("info")
                .ok()
                .and_then(|info| uuid_in(info, "uuid"));
            Some(Listed {
                uuid: uuid.or((kind != "collection").then(|| Uuid::from_bytes([0; 16])))?,
                unsupported: unsupported(&kind, &options),
                options,
            })
        }))
    }

    async fn create(&self, namespace: &Namespace, side: Side, options: &Document) -> Result<()> {
        let cluster = &self.clusters[side];
        let doing = format!("create {namespace} on {}", cluster.name);
        let mut command = doc! { "create": namespace.collection() };
        command.extend(options.clone());
        command.insert("writeConcern", doc! { "w": "majority" });
        match cluster.command(namespace.database(), command, &doing).await {
            Ok(_) => Ok(()),
            Err(error) if crate::cluster::errors::code_of(&error) == Some(NAMESPACE_EXISTS) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn info(&self, namespace: &Namespace, side: Side, uuid: Uuid) -> Result<CollectionInfo> {
        let cluster = &self.clusters[side];
        let doing = format!("list the indexes of {namespace} on {}", cluster.name);
        let command =
            doc! { "listIndexes": namespace.collection(), "cursor": { "batchSize": 1000 } };
        let reply = match cluster.command(namespace.database(), command, &doing).await {
            Err(error) if has_no_indexes(&error) => doc! {},
            other => other?,
        };
        Ok(CollectionInfo {
            uuid,
            unique_fields: unique_fields(&reply),
        })
    }

    async fn save(&self, namespace: &Namespace, state: Document) -> Result<()> {
        let mut set = doc! { "link": &self.link, "namespace": namespace.as_str() };
        set.extend(state);
        for side in Side::BOTH {
            let cluster = &self.clusters[side];
            let doing = format!("write {}.collections on {}", self.database, cluster.name);
            let command = doc! {
                "update": "collections",
                "updates": [{
                    "q": { "_id": format!("{}/{namespace}", self.link) },
                    "u": { "$set": set.clone() },
                    "upsert": true,
                }],
                "writeConcern": { "w": "majority" },
            };
            let reply = cluster.command(&self.database, command, &doing).await?;
            if reply.contains_key("writeErrors") || reply.contains_key("writeConcernError") {
                return Err(Error::unreachable(format!("cannot {doing}")));
            }
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Namespace, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// There is nothing under the name, or a view.
fn has_no_indexes(error: &Error) -> bool {
    const NAMESPACE_NOT_FOUND: i32 = 26;
    const NOT_SUPPORTED_ON_VIEW: i32 = 166;
    let code = crate::cluster::errors::code_of(error);
    matches!(code, Some(NAMESPACE_NOT_FOUND | NOT_SUPPORTED_ON_VIEW))
}

/// Why a collection or view cannot be replicated, by `type` and `options` of `listCollections`.
pub fn unsupported(kind: &str, options: &Document) -> Option<&'static str> {
    match kind {
        "view" => return Some("it is a view"),
        "timeseries" => return Some("it is a time series"),
        _ => {}
    }
    if options.get_bool("capped").unwrap_or(false) {
        return Some("capped collections cannot be written in transactions");
    }
    let locale = options
        .get_document("collation")
        .and_then(|collation| collation.get_str("locale"));
    match locale {
        Ok("simple") | Err(_) => None,
        Ok(_) => Some("its default collation is not simple"),
    }
}

fn unique_fields(reply: &Document) -> Vec<String> {
    let batch = reply
        .get_document("cursor")
        .and_then(|cursor| cursor.get_array("firstBatch"));
    let indexes = batch.map_or(&[][..], |batch| batch);
    indexes
        .iter()
        .filter_map(|index| index.as_document())
        .filter(|index| index.get_bool("unique").unwrap_or(false))
        .filter_map(|index| index.get_document("key").ok()?.keys().next().cloned())
        .collect()
}

fn first_of(reply: &Document) -> Option<&Document> {
    let cursor = reply.get_document("cursor").ok()?;
    cursor.get_array("firstBatch").ok()?.first()?.as_document()
}

fn uuid_in(document: &Document, name: &str) -> Option<Uuid> {
    match document.get(name)? {
        bson::Bson::Binary(binary) => binary.to_uuid().ok(),
        _ => None,
    }
}
