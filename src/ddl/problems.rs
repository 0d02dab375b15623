//! Indexes and options that a cluster refuses: listed until they are as they should be.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bson::{DateTime, Document, doc};

use crate::change::{Namespace, Pair, Side};
use crate::error::Result;
use crate::link::own::Own;
use crate::telemetry::status::IndexProblem;

type Key = (Side, String, String);

pub struct Problems {
    link: String,
    own: Pair<Own>,
    known: Mutex<BTreeMap<Key, String>>,
}

const COLLECTION: &str = "ddl";

impl Problems {
    pub fn new(link: &str, own: Pair<Own>) -> Self {
        Self {
            link: link.to_owned(),
            own,
            known: Mutex::default(),
        }
    }

    /// # Errors
    /// As the clusters say.
    pub async fn load(&self) -> Result<()> {
        for side in Side::BOTH {
            let filter = doc! { "link": &self.link, "kind": "problem" };
            for found in self.own[side].find(COLLECTION, filter).await? {
                let text = |field| found.get_str(field).unwrap_or_default().to_owned();
                let key = (side, text("namespace"), text("name"));
                self.known().insert(key, text("reason"));
            }
        }
        Ok(())
    }

    pub fn all(&self) -> Vec<IndexProblem> {
        let known = self.known();
        let listed = known
            .iter()
            .map(|((cluster, namespace, name), reason)| IndexProblem {
                cluster: *cluster,
                namespace: namespace.clone(),
                name: name.clone(),
                reason: reason.clone(),
            });
        listed.collect()
    }

    /// # Errors
    /// As the cluster says.
    pub async fn add(
        &self,
        side: Side,
        namespace: &Namespace,
        name: &str,
        reason: &str,
    ) -> Result<()> {
        let document = doc! {
            "link": &self.link,
            "kind": "problem",
            "namespace": namespace.as_str(),
            "name": name,
            "reason": reason,
            "written_at": DateTime::now(),
        };
        let id = self.id(namespace, name);
        let statement = doc! { "q": { "_id": id }, "u": { "$set": document }, "upsert": true };
        self.own[side].update(COLLECTION, vec![statement]).await?;
        let key = (side, namespace.to_string(), name.to_owned());
        self.known().insert(key, reason.to_owned());
        Ok(())
    }

    /// It is as it should be now.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn clear(&self, side: Side, namespace: &Namespace, name: &str) -> Result<()> {
        let key = (side, namespace.to_string(), name.to_owned());
        if !self.known().contains_key(&key) {
            return Ok(());
        }
        self.forget(side, doc! { "_id": self.id(namespace, name) })
            .await?;
        self.known().remove(&key);
        Ok(())
    }

    /// The collection is gone, and its problems with it.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn clear_all(&self, side: Side, namespace: &Namespace) -> Result<()> {
        let of_it = |key: &Key| key.0 == side && key.1 == namespace.as_str();
        if !self.known().keys().any(of_it) {
            return Ok(());
        }
        let filter = doc! {
            "link": &self.link, "kind": "problem", "namespace": namespace.as_str(),
        };
        self.forget(side, filter).await?;
        self.known().retain(|key, _| !of_it(key));
        Ok(())
    }

    async fn forget(&self, side: Side, filter: Document) -> Result<()> {
        let statement = doc! { "q": filter, "limit": 0 };
        self.own[side].delete(COLLECTION, vec![statement]).await?;
        Ok(())
    }

    fn id(&self, namespace: &Namespace, name: &str) -> String {
        format!("{}/{namespace}/{name}", self.link)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Key, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
