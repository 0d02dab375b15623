//! Which collection of one cluster belongs to which of the other, by UUID.

mod follow;
mod identity;
mod listing;
mod names;
mod stored;

pub use listing::{
    Listed, create, indexes, is_simple, list, name_of, too_long, unsupported, uuid_in,
};

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bson::{Timestamp, Uuid, doc};

use crate::change::{Mode, Namespace, Pair, Renames, Side};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::Result;
use crate::target::CollectionInfo;
use identity::{Entry, Identities, State};
use listing::{indexes_of, is_collated, unique_fields};

/// What is known about a namespace.
#[derive(Debug, Clone)]
pub enum Pairing {
    Paired(Pair<CollectionInfo>),
    /// Its events are passed over.
    Unpaired,
    /// The collection is gone from its source or has been replaced: the reader will tell.
    Unclear,
}

/// All paired and unpaired collections of a link. Namespaces are lasting names, but where a
/// cluster is named beside them.
pub struct Collections {
    clusters: Pair<Cluster>,
    link: String,
    database: String,
    mode: Mode,
    renames: Renames,
    known: Mutex<Identities>,
    /// Whether a namespace is kept in one lane.
    routed: Mutex<HashMap<Namespace, bool>>,
    /// Held while a namespace is paired or unpaired, so that what is unpaired stays so.
    changing: tokio::sync::Mutex<()>,
}

impl Collections {
    pub fn new(clusters: Pair<Cluster>, config: &Config) -> Self {
        let renames = config.namespaces.renames();
        Self {
            clusters,
            link: config.link.name.clone(),
            database: config.link.database.clone(),
            mode: config.link.mode,
            renames: renames.clone(),
            known: Mutex::new(Identities::new(renames.clone())),
            routed: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// The lasting name of a collection that an event of `side` is about.
    pub fn identify(&self, side: Side, uuid: Uuid, name: &Namespace) -> Namespace {
        self.known().identify(side, uuid, name)
    }

    /// As [`Collections::identify`], of one that is nobody's counterpart.
    pub fn identify_apart(&self, side: Side, uuid: Uuid, name: &Namespace) -> Namespace {
        self.known().identify_apart(side, uuid, name)
    }

    /// The lasting name of a collection that is known by its UUID.
    pub fn of_uuid(&self, side: Side, uuid: Uuid) -> Option<Namespace> {
        self.known().of_uuid(side, uuid).cloned()
    }

    pub fn is_paired(&self, namespace: &Namespace) -> bool {
        let known = self.known();
        let state = known.get(namespace).map(|entry| &entry.state);
        matches!(state, Some(State::Stored(_) | State::Paired(_)))
    }

    pub fn is_dropped(&self, namespace: &Namespace) -> bool {
        let known = self.known();
        let state = known.get(namespace).map(|entry| &entry.state);
        matches!(state, Some(State::Dropped))
    }

    /// Returns once no pair is being made.
    pub async fn wait_for_pairs(&self) {
        drop(self.changing.lock().await);
    }

    /// The pair of a namespace. Where the collection is missing on the other side, it is created
    /// with its options first.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn pair(&self, namespace: &Namespace, source: Side) -> Result<Pairing> {
        if let Some(State::Paired(pair)) = self.known().get(namespace).map(|entry| &entry.state) {
            return Ok(Pairing::Paired(pair.clone()));
        }
        let _changing = self.changing.lock().await;
        let entry = self.known().entry(namespace).clone();
        let uuids = match entry.state {
            State::Paired(pair) => return Ok(Pairing::Paired(pair)),
            State::Unpaired | State::Dropped => return Ok(Pairing::Unpaired),
            State::Stored(uuids) => uuids,
            State::Seen => match self.make_pair(namespace, source, &entry).await? {
                Some(uuids) => uuids,
                None if self.is_unpaired(namespace) => return Ok(Pairing::Unpaired),
                None => return Ok(Pairing::Unclear),
            },
        };
        let info = Pair::new(
            self.info(&entry.names.a, Side::A, uuids.a).await?,
            self.info(&entry.names.b, Side::B, uuids.b).await?,
        );
        self.known().entry(namespace).state = State::Paired(info.clone());
        Ok(Pairing::Paired(info))
    }

    async fn make_pair(
        &self,
        namespace: &Namespace,
        source: Side,
        entry: &Entry,
    ) -> Result<Option<Pair<Uuid>>> {
        let target = source.other();
        let from = self.list(&entry.names[source], source).await?;
        let reason = from.as_ref().and_then(|from| from.unsupported(self.mode));
        let there = from.as_ref().and_then(|from| from.uuid);
        let expected = entry.uuids[source];
        let uuid = match (there, expected, reason) {
            (Some(there), Some(expected), _) if there != expected && !entry.gone[source] => {
                return Ok(None);
            }
            (_, _, Some(reason)) => {
                self.set_unpaired(namespace, reason).await?;
                return Ok(None);
            }
            (Some(there), None, None) => there,
            (_, Some(expected), None) => expected,
            (None, None, None) => return Ok(None),
        };
        let mut to = self.list(&entry.names[target], target).await?;
        if let (None, Some(from)) = (&to, from.filter(|from| from.uuid == Some(uuid))) {
            if entry.names[target].is_too_long() {
                let reason = too_long(&self.clusters[target]);
                self.set_unpaired(namespace, &reason).await?;
                return Ok(None);
            }
            create(&self.clusters[target], &entry.names[target], &from.options).await?;
            to = self.list(&entry.names[target], target).await?;
        }
        let Some(to) = to else {
            if entry.gone[source] {
                self.set_unpaired(namespace, "it was gone before it could be paired")
                    .await?;
            }
            return Ok(None);
        };
        if let Some(reason) = to.unsupported(self.mode) {
            self.set_unpaired(namespace, reason).await?;
            return Ok(None);
        }
        let Some(counterpart) = to.uuid else {
            return Ok(None);
        };
        let holder = self.of_uuid(target, counterpart);
        if holder.is_some_and(|holder| holder != *namespace) {
            let name = &self.clusters[target].name;
            let reason = format!("another collection has its name on {name}");
            self.set_unpaired(namespace, &reason).await?;
            return Ok(None);
        }
        let mut uuids = Pair::new(uuid, uuid);
        uuids[target] = counterpart;
        self.set_paired(namespace, uuids).await?;
        Ok(Some(uuids))
    }

    /// Puts a pair on record; what was known of its indexes is read again.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn put_pair(&self, namespace: &Namespace, uuids: Pair<Uuid>) -> Result<()> {
        let _changing = self.changing.lock().await;
        self.set_paired(namespace, uuids).await?;
        self.known().entry(namespace).settling = false;
        Ok(())
    }

    async fn set_paired(&self, namespace: &Namespace, uuids: Pair<Uuid>) -> Result<()> {
        let Entry {
            names, followed, ..
        } = self.known().entry(namespace).clone();
        let state = doc! {
            "state": "paired", "a": uuids.a, "b": uuids.b,
            "name_a": names.a.as_str(), "name_b": names.b.as_str(),
            "followed_a": followed.a, "followed_b": followed.b,
        };
        self.save(namespace, state).await?;
        let mut known = self.known();
        for side in Side::BOTH {
            known.set_uuid(namespace, side, uuids[side]);
        }
        known.entry(namespace).state = State::Stored(uuids);
        Ok(())
    }

    /// The collection is gone from both sides, and whatever was written into it. Nothing in the
    /// histories after `over_at` is about it.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn set_dropped(&self, namespace: &Namespace, over_at: Pair<Timestamp>) -> Result<()> {
        let _changing = self.changing.lock().await;
        let entry = self.known().entry(namespace).clone();
        let state = doc! {
            "state": "dropped", "a": entry.uuids.a, "b": entry.uuids.b,
            "name_a": entry.names.a.as_str(), "name_b": entry.names.b.as_str(),
            "over_a": over_at.a, "over_b": over_at.b,
        };
        self.save(namespace, state).await?;
        let mut known = self.known();
        let entry = known.entry(namespace);
        entry.state = State::Dropped;
        entry.over_at = Some(over_at);
        Ok(())
    }

    /// Whether all documents of a namespace must share a lane, as a unique index or a collation on
    /// either side asks for. Decided when its first event is read, and the same ever after.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn needs_one_lane(&self, namespace: &Namespace) -> Result<bool> {
        if let Some(known) = self.routed().get(namespace) {
            return Ok(*known);
        }
        let mut single = false;
        for side in Side::BOTH {
            let (name, uuid) = self.place(namespace, side);
            let indexes = match uuid {
                Some(uuid) => indexes_of(&self.clusters[side], &name, uuid).await?,
                None => indexes(&self.clusters[side], &name).await?,
            };
            single |= !unique_fields(&indexes).is_empty() || is_collated(&indexes);
        }
        self.set_one_lane(namespace, single).await?;
        Ok(single)
    }

    /// Puts on record whether a namespace is kept in one lane.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn set_one_lane(&self, namespace: &Namespace, single: bool) -> Result<()> {
        self.save(namespace, doc! { "single_lane": single }).await?;
        self.routed().insert(namespace.clone(), single);
        Ok(())
    }

    pub fn is_in_one_lane(&self, namespace: &Namespace) -> bool {
        self.routed().get(namespace).copied().unwrap_or(false)
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
        let names = self.known().entry(namespace).names.clone();
        let state = doc! {
            "state": "unpaired", "reason": reason,
            "name_a": names.a.as_str(), "name_b": names.b.as_str(),
        };
        self.save(namespace, state).await?;
        self.known().entry(namespace).state = State::Unpaired;
        Ok(())
    }

    /// Indexes have changed: they are read again before the next write.
    pub fn forget_indexes(&self, namespace: &Namespace) {
        let mut known = self.known();
        if let Some(entry) = known.get_mut(namespace)
            && let State::Paired(pair) = &entry.state
        {
            entry.state = State::Stored(Pair::new(pair.a.uuid, pair.b.uuid));
        }
    }

    pub fn is_unpaired(&self, namespace: &Namespace) -> bool {
        let known = self.known();
        let state = known.get(namespace).map(|entry| &entry.state);
        matches!(state, Some(State::Unpaired | State::Dropped))
    }

    /// Names of the namespaces that are passed over, sorted.
    pub fn unpaired(&self) -> Vec<String> {
        let known = self.known();
        let mut names: Vec<String> = known
            .entries()
            .filter(|(_, entry)| matches!(entry.state, State::Unpaired))
            .map(|(_, entry)| entry.names.a.to_string())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Namespaces that anything is known about, of one database of `side`.
    pub fn in_database(&self, side: Side, database: &str) -> Vec<Namespace> {
        let known = self.known();
        let there = known.entries();
        let there = there.filter(|(_, entry)| entry.names[side].database() == database);
        there.map(|(namespace, _)| namespace.clone()).collect()
    }

    async fn list(&self, namespace: &Namespace, side: Side) -> Result<Option<Listed>> {
        list(&self.clusters[side], namespace).await
    }

    async fn info(&self, name: &Namespace, side: Side, uuid: Uuid) -> Result<CollectionInfo> {
        let indexes = indexes_of(&self.clusters[side], name, uuid).await?;
        Ok(CollectionInfo {
            name: name.clone(),
            uuid,
            unique_fields: unique_fields(&indexes),
            collated: is_collated(&indexes),
        })
    }

    fn known(&self) -> MutexGuard<'_, Identities> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
