//! Which collection of one cluster belongs to which of the other, by UUID.

mod follow;
mod identity;
mod listing;
mod names;
mod pairing;
mod routing;
mod stored;

pub use listing::{
    Listed, create, indexes, indexes_if_there, is_simple, list, list_all, name_of, too_long,
    unsupported, uuid_in,
};
pub use pairing::Pairing;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bson::{Timestamp, Uuid, doc};

use crate::change::{Mode, Namespace, Pair, Renames, Side};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::Result;
use identity::{Identities, State};

/// All paired and unpaired collections of a link. Namespaces are lasting names, but where a
/// cluster is named beside them.
pub struct Collections {
    clusters: Pair<Cluster>,
    link: String,
    database: String,
    /// Of this process: what a later one has put on record stays as it is.
    epoch: i64,
    mode: Mode,
    renames: Renames,
    known: Mutex<Identities>,
    /// Whether a namespace is kept in one lane.
    routed: Mutex<HashMap<Namespace, bool>>,
    /// Held while a namespace is paired or unpaired, so that what is unpaired stays so.
    changing: tokio::sync::Mutex<()>,
    /// Held while a counterpart is made and until its UUID is known: by then it may be called
    /// otherwise, and whoever looks for it by name makes another one. Taken before `changing`.
    creating: tokio::sync::Mutex<()>,
}

impl Collections {
    pub fn new(clusters: Pair<Cluster>, config: &Config, epoch: i64) -> Self {
        let renames = config.namespaces.renames();
        Self {
            clusters,
            link: config.link.name.clone(),
            database: config.link.database.clone(),
            epoch,
            mode: config.link.mode,
            renames: renames.clone(),
            known: Mutex::new(Identities::new(renames.clone())),
            routed: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            creating: tokio::sync::Mutex::default(),
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

    /// Nobody else makes a counterpart for as long as this is held.
    pub async fn creates(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.creating.lock().await
    }

    /// Returns once no pair is being made.
    pub async fn wait_for_pairs(&self) {
        drop(self.changing.lock().await);
    }

    /// Puts a pair on record, unless it is not replicated any more; what was known of its indexes is
    /// read again.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn put_pair(&self, namespace: &Namespace, uuids: Pair<Uuid>) -> Result<()> {
        let _changing = self.changing.lock().await;
        // A reader may have passed its end meanwhile.
        if self.is_unpaired(namespace) {
            return Ok(());
        }
        self.set_paired(&[(namespace.clone(), uuids)]).await?;
        self.known().entry(namespace).settling = false;
        Ok(())
    }

    /// The collection is gone from both sides, and whatever was written into it. Nothing in the
    /// histories after `over_at` is about it.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn set_dropped(&self, namespace: &Namespace, over_at: Pair<Timestamp>) -> Result<()> {
        let _changing = self.changing.lock().await;
        let mut state = self.known().entry(namespace).described();
        state.extend(doc! { "state": "dropped", "over_a": over_at.a, "over_b": over_at.b });
        self.save(vec![(namespace.clone(), state)]).await?;
        let mut known = self.known();
        let entry = known.entry(namespace);
        entry.state = State::Dropped;
        entry.over_at = Some(over_at);
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
        let mut state = self.known().entry(namespace).described();
        state.extend(doc! { "state": "unpaired", "reason": reason });
        self.save(vec![(namespace.clone(), state)]).await?;
        self.known().entry(namespace).state = State::Unpaired;
        Ok(())
    }

    /// Puts on record what is passed over by which names now.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn put_names(&self, namespace: &Namespace) -> Result<()> {
        let _changing = self.changing.lock().await;
        let described = self.known().entry(namespace).described();
        self.save(vec![(namespace.clone(), described)]).await
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

    /// Names of the namespaces that are passed over, as a calls them, sorted.
    pub fn unpaired(&self) -> Vec<String> {
        let known = self.known();
        let mut names: Vec<String> = known
            .entries()
            .filter(|(_, entry)| matches!(entry.state, State::Unpaired))
            .flat_map(|(_, entry)| Side::BOTH.map(|side| self.on_a(side, &entry.names[side])))
            .map(|name| name.to_string())
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

    fn known(&self) -> MutexGuard<'_, Identities> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
