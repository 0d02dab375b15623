//! What `__tandem.collections` holds of the pairs, on both clusters.

use bson::{Document, doc};

use super::Collections;
use super::identity::{Entry, State};
use super::listing::uuid_in;
use crate::change::{Namespace, Pair, Position, Renames, Side};
use crate::cluster::errors;
use crate::error::{Error, Result};

/// In one command.
const STATEMENTS_MAX: usize = 1000;

impl Collections {
    /// Reads what a former process has paired, unpaired and dropped, once that one can change none of
    /// it any more. Returns what is passed over.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn load(&self) -> Result<Vec<Namespace>> {
        let mut passed_over = Vec::new();
        for side in Side::BOTH {
            self.raise_epoch(side).await?;
            for found in self.stored(side).await? {
                let Some(namespace) = found.get_str("namespace").ok().and_then(Namespace::parse)
                else {
                    continue;
                };
                if let Ok(single) = found.get_bool("single_lane") {
                    self.routed().insert(namespace.clone(), single);
                }
                // A lasting name alone does not tell what a collection is called.
                if !["name_a", "state"]
                    .iter()
                    .any(|told| found.contains_key(told))
                {
                    continue;
                }
                let entry = entry(&namespace, &found, &self.renames);
                let mut known = self.known();
                if matches!(entry.state, State::Unpaired | State::Dropped) {
                    passed_over.push(namespace.clone());
                    known.insert(namespace, entry);
                } else if known.get(&namespace).is_none() {
                    known.insert(namespace, entry);
                }
            }
        }
        Ok(passed_over)
    }

    /// Forgets dropped collections that no checkpoint can lead back to. `recorded` is what the
    /// checkpoints of each cluster's pipeline have passed. Whoever passes over their events has to
    /// end that first, with `before`: the next collection may get the name at once.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn forget_dropped(
        &self,
        recorded: &Pair<Position>,
        before: impl Fn(&Namespace),
    ) -> Result<()> {
        let over: Vec<Namespace> = {
            let known = self.known();
            let passed = |entry: &Entry| {
                entry
                    .over_at
                    .is_some_and(|at| recorded.a.covers(at.a) && recorded.b.covers(at.b))
            };
            let over = known.entries().filter(|(_, entry)| passed(entry));
            over.map(|(namespace, _)| namespace.clone()).collect()
        };
        if over.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = over.iter().map(|name| self.id(name)).collect();
        for side in Side::BOTH {
            let command = doc! {
                "delete": "collections",
                "deletes": [{ "q": self.held(doc! { "_id": { "$in": &ids } }), "limit": 0 }],
                "writeConcern": { "w": "majority" },
            };
            self.write(side, command).await?;
        }
        for namespace in &over {
            before(namespace);
            self.known().remove(namespace);
            self.routed().remove(namespace);
        }
        Ok(())
    }

    fn id(&self, namespace: &Namespace) -> String {
        format!("{}/{namespace}", self.link)
    }

    /// From here on no older process changes what is on record.
    async fn raise_epoch(&self, side: Side) -> Result<()> {
        let change = doc! { "$max": { "epoch": self.epoch } };
        let statement = doc! { "q": { "link": &self.link }, "u": change, "multi": true };
        let command = doc! {
            "update": "collections",
            "updates": [statement],
            "writeConcern": { "w": "majority" },
        };
        self.write(side, command).await
    }

    /// Only what no later process has put on record.
    fn held(&self, mut query: Document) -> Document {
        query.insert("epoch", doc! { "$lte": self.epoch });
        query
    }

    async fn write(&self, side: Side, command: Document) -> Result<()> {
        let cluster = &self.clusters[side];
        let doing = format!("write {}.collections on {}", self.database, cluster.name);
        let reply = cluster.command(&self.database, command, &doing).await?;
        match errors::check_reply(&reply, &doing) {
            Err(error) if errors::code_of(&error) == Some(errors::WRITES_BLOCKED) => Err(error),
            Err(error) if errors::code_of(&error) == Some(errors::DUPLICATE_KEY) => {
                self.must_be_latest(side).await?;
                Err(Error::unreachable(format!("cannot {doing}")))
            }
            Err(_) => Err(Error::unreachable(format!("cannot {doing}"))),
            Ok(()) => Ok(()),
        }
    }

    /// What is there already and cannot be changed is of a later process, unless two tasks have made
    /// it at once.
    async fn must_be_latest(&self, side: Side) -> Result<()> {
        let stored = self.stored(side).await?;
        let epochs = stored.iter().filter_map(|one| one.get_i64("epoch").ok());
        match epochs.max() > Some(self.epoch) {
            true => Err(Error::fenced(format!(
                "another process has taken over link {}",
                self.link
            ))),
            false => Ok(()),
        }
    }

    async fn stored(&self, side: Side) -> Result<Vec<Document>> {
        let cluster = &self.clusters[side];
        let doing = format!("read {}.collections on {}", self.database, cluster.name);
        let command = doc! {
            "find": "collections",
            "filter": { "link": &self.link },
            "readConcern": cluster.of_majority(),
        };
        cluster.all(&self.database, command, &doing).await
    }

    /// Puts on record what is known of namespaces, on both clusters.
    pub(super) async fn save(&self, states: Vec<(Namespace, Document)>) -> Result<()> {
        let states = states.into_iter();
        let updates = states.map(|(namespace, state)| (namespace, doc! { "$set": state }));
        self.save_updates(updates.collect()).await
    }

    /// As [`Collections::save`]; each of them has a `$set`.
    pub(super) async fn save_updates(&self, updates: Vec<(Namespace, Document)>) -> Result<()> {
        for some in updates.chunks(STATEMENTS_MAX) {
            self.save_some(some).await?;
        }
        Ok(())
    }

    async fn save_some(&self, updates: &[(Namespace, Document)]) -> Result<()> {
        let statement = |(namespace, update): &(Namespace, Document)| {
            let mut update = update.clone();
            if let Ok(set) = update.get_document_mut("$set") {
                let name = namespace.as_str();
                set.extend(doc! { "link": &self.link, "namespace": name, "epoch": self.epoch });
            }
            let query = self.held(doc! { "_id": self.id(namespace) });
            doc! { "q": query, "u": update, "upsert": true }
        };
        let statements: Vec<Document> = updates.iter().map(statement).collect();
        let mut refused = None;
        for side in Side::BOTH {
            let command = doc! {
                "update": "collections",
                "updates": &statements,
                "writeConcern": { "w": "majority" },
            };
            match self.write(side, command).await {
                // What one cluster knows is enough, and a cutover waits for this very change.
                Err(error)
                    if refused.is_none()
                        && errors::code_of(&error) == Some(errors::WRITES_BLOCKED) =>
                {
                    refused = Some(error);
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }
}

impl Entry {
    /// Which collections it is about, as they are put on record.
    pub(super) fn described(&self) -> Document {
        doc! {
            "a": self.uuids.a, "b": self.uuids.b,
            "name_a": self.names.a.as_str(), "name_b": self.names.b.as_str(),
        }
    }
}

fn entry(namespace: &Namespace, found: &Document, renames: &Renames) -> Entry {
    let name = |field, side| {
        let name = found.get_str(field).ok().and_then(Namespace::parse);
        name.unwrap_or_else(|| renames.on(side, namespace))
    };
    let uuids = Pair::new(uuid_in(found, "a"), uuid_in(found, "b"));
    let state = match (found.get_str("state"), uuids.a, uuids.b) {
        (Ok("unpaired"), _, _) => State::Unpaired,
        (Ok("dropped"), _, _) => State::Dropped,
        (Ok("paired"), Some(a), Some(b)) => State::Stored(Pair::new(a, b)),
        _ => State::Seen,
    };
    Entry {
        names: Pair::new(name("name_a", Side::A), name("name_b", Side::B)),
        uuids,
        gone: Pair::new(false, false),
        followed: Pair::new(
            found.get_timestamp("followed_a").ok(),
            found.get_timestamp("followed_b").ok(),
        ),
        settling: false,
        over_at: match (found.get_timestamp("over_a"), found.get_timestamp("over_b")) {
            (Ok(a), Ok(b)) => Some(Pair::new(a, b)),
            _ => None,
        },
        state,
    }
}
