//! Indexes and options that a cluster refuses: listed until they are as they should be.
//!
//! A collection is known by its UUID here: its problems stay its own whatever it is called, and none
//! of them becomes one of the next collection of its former name.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bson::{DateTime, Uuid, doc};

use crate::change::{Namespace, Pair, Side};
use crate::error::Result;
use crate::link::own::Own;
use crate::pipeline::{Collections, uuid_in};
use crate::telemetry::status::IndexProblem;

pub struct Problems {
    link: String,
    own: Pair<Own>,
    /// By their ids on record.
    known: Mutex<BTreeMap<(Side, String), Problem>>,
}

struct Problem {
    about: About,
    /// The index or the option.
    name: String,
    reason: String,
}

/// What a problem is about: a collection by its UUID, or a view by its name.
pub(super) struct About {
    /// What it was called when it was refused.
    namespace: Namespace,
    uuid: Option<Uuid>,
}

const COLLECTION: &str = "ddl";

impl From<&Namespace> for About {
    fn from(view: &Namespace) -> Self {
        Self {
            namespace: view.clone(),
            uuid: None,
        }
    }
}

impl From<&(Namespace, Option<Uuid>)> for About {
    fn from((namespace, uuid): &(Namespace, Option<Uuid>)) -> Self {
        Self {
            namespace: namespace.clone(),
            uuid: *uuid,
        }
    }
}

impl About {
    /// A problem without a UUID is about whatever has the name.
    fn is(&self, other: &About) -> bool {
        match self.uuid {
            Some(uuid) => other.uuid == Some(uuid),
            None => self.namespace == other.namespace,
        }
    }
}

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
    pub async fn load(&self, collections: &Collections) -> Result<()> {
        for side in Side::BOTH {
            let filter = doc! { "link": &self.link, "kind": "problem" };
            for found in self.own[side].find(COLLECTION, filter).await? {
                let text = |field| found.get_str(field).unwrap_or_default().to_owned();
                let Some(namespace) = Namespace::parse(&text("namespace")) else {
                    continue;
                };
                let uuid = match found.contains_key("uuid") {
                    true => uuid_in(&found, "uuid"),
                    // An older tandem has put it on record, by the name alone.
                    false => collections
                        .called(side, &namespace)
                        .and_then(|collection| collections.place(&collection, side).1),
                };
                let problem = Problem {
                    about: About { namespace, uuid },
                    name: text("name"),
                    reason: text("reason"),
                };
                self.known().insert((side, text("_id")), problem);
            }
        }
        Ok(())
    }

    /// All of them, by the names that the collections have now.
    pub fn all(&self, collections: &Collections) -> Vec<IndexProblem> {
        let known = self.known();
        let listed = known.iter().map(|((side, _), problem)| {
            let About { namespace, uuid } = &problem.about;
            let now = uuid.and_then(|uuid| collections.of_uuid(*side, uuid));
            let now = now.map(|collection| collections.place(&collection, *side).0);
            IndexProblem {
                cluster: *side,
                namespace: now.as_ref().unwrap_or(namespace).to_string(),
                name: problem.name.clone(),
                reason: problem.reason.clone(),
            }
        });
        let mut all: Vec<_> = listed.collect();
        let order = |one: &IndexProblem| (one.cluster, one.namespace.clone(), one.name.clone());
        all.sort_by_key(order);
        all
    }

    /// # Errors
    /// As the cluster says.
    pub async fn add(
        &self,
        side: Side,
        about: impl Into<About>,
        name: &str,
        reason: &str,
    ) -> Result<()> {
        let about = about.into();
        let document = doc! {
            "link": &self.link,
            "kind": "problem",
            "namespace": about.namespace.as_str(),
            "uuid": about.uuid,
            "name": name,
            "reason": reason,
            "written_at": DateTime::now(),
        };
        let id = self.id(side, &about, name);
        let statement = doc! { "q": { "_id": &id }, "u": { "$set": document }, "upsert": true };
        self.own[side].update(COLLECTION, vec![statement]).await?;
        let problem = Problem {
            about,
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        self.known().insert((side, id), problem);
        Ok(())
    }

    /// It is as it should be now.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn clear(&self, side: Side, about: impl Into<About>, name: &str) -> Result<()> {
        let about = about.into();
        self.forget(side, |one| one.about.is(&about) && one.name == name)
            .await
    }

    /// The collection is gone, and its problems with it.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn clear_all(&self, side: Side, about: impl Into<About>) -> Result<()> {
        let about = about.into();
        self.forget(side, |one| one.about.is(&about)).await
    }

    async fn forget(&self, side: Side, is_over: impl Fn(&Problem) -> bool) -> Result<()> {
        let over = |at: &(Side, String), one: &Problem| at.0 == side && is_over(one);
        let ids: Vec<String> = {
            let known = self.known();
            let ids = known.iter().filter(|(at, one)| over(at, one));
            ids.map(|(at, _)| at.1.clone()).collect()
        };
        if ids.is_empty() {
            return Ok(());
        }
        let statement = doc! { "q": { "_id": { "$in": &ids } }, "limit": 0 };
        self.own[side].delete(COLLECTION, vec![statement]).await?;
        self.known().retain(|at, one| !over(at, one));
        Ok(())
    }

    /// That of the problem that is listed already, if one is.
    fn id(&self, side: Side, about: &About, name: &str) -> String {
        let same = |one: &Problem| one.about.is(about) && one.name == name;
        let known = self.known();
        let listed = known
            .iter()
            .find(|(at, one)| at.0 == side && same(one))
            .map(|(at, _)| at.1.clone());
        listed.unwrap_or_else(|| match about.uuid {
            Some(uuid) => format!("{}/{uuid}/{name}", self.link),
            None => format!("{}/{}/{name}", self.link, about.namespace),
        })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<(Side, String), Problem>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
