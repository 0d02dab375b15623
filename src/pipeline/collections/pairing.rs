//! From collections that were seen on one cluster to pairs, many of them at once.

use std::collections::{BTreeMap, HashSet};

use bson::{Document, Uuid, doc};

use super::Collections;
use super::identity::{Entry, State};
use super::listing::{
    Listed, create_all, indexes_of_all, is_collated, list_all, too_long, unique_fields,
};
use crate::change::{Mode, Namespace, Pair, Side};
use crate::error::Result;
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

/// A collection of the source that has no counterpart yet.
struct Single {
    namespace: Namespace,
    entry: Entry,
    uuid: Uuid,
    /// What has its name on the source now.
    from: Option<Listed>,
}

/// Why a collection gets no counterpart.
enum Miss {
    /// Never, for this reason.
    Unsupported(String),
    /// Not now.
    Unclear,
}

/// In the order of their names, so that it is no chance which one is met first.
type Pairings = BTreeMap<Namespace, Pairing>;

impl Collections {
    /// The pair of a namespace. Where the collection is missing on the other side, it is created
    /// with its options first.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn pair(&self, namespace: &Namespace, source: Side) -> Result<Pairing> {
        let mut pairings = self.pair_all(&HashSet::from([namespace]), source).await?;
        Ok(pairings.remove(namespace).unwrap_or(Pairing::Unclear))
    }

    /// As [`Collections::pair`], of all these namespaces at once.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn pair_all(
        &self,
        namespaces: &HashSet<&Namespace>,
        source: Side,
    ) -> Result<Pairings> {
        if let Some(paired) = self.all_paired(namespaces) {
            return Ok(paired);
        }
        // Whose indexes alone are to be read does not wait for a creation.
        let _creating = match namespaces.iter().all(|one| self.is_paired(one)) {
            true => None,
            false => Some(self.creating.lock().await),
        };
        let _changing = self.changing.lock().await;
        let mut in_order: Vec<&Namespace> = namespaces.iter().copied().collect();
        in_order.sort();
        self.match_seen(&in_order, source).await?;
        self.read_indexes(&in_order).await?;
        let mut known = self.known();
        let pairings = in_order.into_iter().map(|namespace| {
            let pairing = match &known.entry(namespace).state {
                State::Paired(pair) => Pairing::Paired(pair.clone()),
                State::Unpaired | State::Dropped => Pairing::Unpaired,
                State::Seen | State::Stored(_) => Pairing::Unclear,
            };
            (namespace.clone(), pairing)
        });
        Ok(pairings.collect())
    }

    fn all_paired(&self, namespaces: &HashSet<&Namespace>) -> Option<Pairings> {
        let known = self.known();
        let paired = namespaces
            .iter()
            .map(|namespace| match &known.get(namespace)?.state {
                State::Paired(pair) => Some(((*namespace).clone(), Pairing::Paired(pair.clone()))),
                State::Seen | State::Stored(_) | State::Unpaired | State::Dropped => None,
            });
        paired.collect()
    }

    /// Finds the counterparts of those that were only seen yet.
    async fn match_seen(&self, namespaces: &[&Namespace], source: Side) -> Result<()> {
        let singles = self.singles(namespaces, source).await?;
        if singles.is_empty() {
            return Ok(());
        }
        let target = source.other();
        let cluster = &self.clusters[target];
        let name = |single: &Single| single.entry.names[target].clone();
        let mut there = list_all(cluster, &singles.iter().map(name).collect::<Vec<_>>()).await?;
        let missing: Vec<_> = singles
            .iter()
            .filter(|single| single.entry.uuids[target].is_none())
            .filter(|single| !there.contains_key(&name(single)) && !name(single).is_too_long())
            .filter_map(|single| Some((name(single), single.options()?)))
            .collect();
        create_all(cluster, &missing).await?;
        let created: Vec<_> = missing.into_iter().map(|(name, _)| name).collect();
        there.extend(list_all(cluster, &created).await?);
        let mut pairs = Vec::new();
        for single in &singles {
            match self.matched(single, there.get(&name(single)), source, &pairs) {
                Ok(uuids) => pairs.push((single.namespace.clone(), uuids)),
                Err(miss) => self.leave(&single.namespace, miss).await?,
            }
        }
        {
            // The readers may have learned of others meanwhile.
            let mut known = self.known();
            pairs.retain(|(namespace, uuids)| known.claim(namespace, *uuids));
        }
        self.set_paired(&pairs).await
    }

    async fn singles(&self, namespaces: &[&Namespace], source: Side) -> Result<Vec<Single>> {
        let seen: Vec<(Namespace, Entry)> = {
            let mut known = self.known();
            let entries = namespaces
                .iter()
                .map(|namespace| ((*namespace).clone(), known.entry(namespace).clone()));
            entries
                .filter(|(_, entry)| matches!(entry.state, State::Seen))
                .collect()
        };
        let names: Vec<_> = seen
            .iter()
            .map(|(_, entry)| entry.names[source].clone())
            .collect();
        let there = list_all(&self.clusters[source], &names).await?;
        let mut singles = Vec::new();
        for (namespace, entry) in seen {
            let from = there.get(&entry.names[source]).cloned();
            match uuid_of(&entry, source, from.as_ref(), self.mode) {
                Ok(uuid) => singles.push(Single {
                    namespace,
                    entry,
                    uuid,
                    from,
                }),
                Err(miss) => self.leave(&namespace, miss).await?,
            }
        }
        Ok(singles)
    }

    /// The UUIDs of a pair. `there` has its name on the target; `pairs` are about to be made.
    fn matched(
        &self,
        single: &Single,
        there: Option<&Listed>,
        source: Side,
        pairs: &[(Namespace, Pair<Uuid>)],
    ) -> Result<Pair<Uuid>, Miss> {
        let target = source.other();
        let cluster = &self.clusters[target];
        // Whatever has its name now: its own reader tells what became of it.
        let known = single.entry.uuids[target];
        if known.is_some() && there.and_then(|there| there.uuid) != known {
            return Err(Miss::Unclear);
        }
        let Some(there) = there else {
            let is_too_long = single.entry.names[target].is_too_long();
            return Err(match single.options() {
                Some(_) if is_too_long => Miss::Unsupported(too_long(cluster)),
                Some(_) | None if single.entry.gone[source] => {
                    Miss::Unsupported("it was gone before it could be paired".to_owned())
                }
                Some(_) | None => Miss::Unclear,
            });
        };
        if let Some(reason) = there.unsupported(self.mode) {
            return Err(Miss::Unsupported(reason.to_owned()));
        }
        let counterpart = there.uuid.ok_or(Miss::Unclear)?;
        if pairs.iter().any(|(_, uuids)| uuids[target] == counterpart) {
            return Err(Miss::Unclear);
        }
        let holder = self.of_uuid(target, counterpart);
        if let Some(holder) = holder.filter(|holder| *holder != single.namespace) {
            return Err(match self.is_about_to_lose(&holder, single, source) {
                true => Miss::Unclear,
                false => Miss::Unsupported(format!(
                    "another collection has its name on {}",
                    cluster.name
                )),
            });
        }
        let mut uuids = Pair::new(single.uuid, single.uuid);
        uuids[target] = counterpart;
        Ok(uuids)
    }

    /// Whether the name that `holder` has on the target goes to `single` soon: it has been dropped or
    /// renamed on the source, which has its turn yet or was not read.
    fn is_about_to_lose(&self, holder: &Namespace, single: &Single, source: Side) -> bool {
        let known = self.known();
        let Some(holder) = known.get(holder) else {
            return true;
        };
        let names = &holder.names;
        // A name that only a one-way link's target has given stays.
        let is_renamed = self.mode == Mode::TwoWay
            && self.renames.on_other(source, &names[source]).as_ref()
                != Some(&names[source.other()]);
        match holder.state {
            State::Unpaired => false,
            State::Dropped => true,
            State::Seen | State::Stored(_) | State::Paired(_) => {
                holder.gone[source] || is_renamed || names[source] == single.entry.names[source]
            }
        }
    }

    async fn leave(&self, namespace: &Namespace, miss: Miss) -> Result<()> {
        match miss {
            Miss::Unsupported(reason) => self.set_unpaired(namespace, &reason).await,
            Miss::Unclear => Ok(()),
        }
    }

    pub(super) async fn set_paired(&self, pairs: &[(Namespace, Pair<Uuid>)]) -> Result<()> {
        let states = pairs.iter().map(|(namespace, uuids)| {
            let entry = self.known().entry(namespace).clone();
            let mut state = entry.described();
            state.extend(doc! {
                "state": "paired", "a": uuids.a, "b": uuids.b,
                "followed_a": entry.followed.a, "followed_b": entry.followed.b,
            });
            (namespace.clone(), state)
        });
        self.save(states.collect()).await?;
        let mut known = self.known();
        for (namespace, uuids) in pairs {
            for side in Side::BOTH {
                known.set_uuid(namespace, side, uuids[side]);
            }
            known.entry(namespace).state = State::Stored(*uuids);
        }
        Ok(())
    }

    /// Reads the indexes of pairs that were not read, or not since they changed.
    async fn read_indexes(&self, namespaces: &[&Namespace]) -> Result<()> {
        let mut stored = Vec::new();
        for namespace in namespaces {
            let entry = self.known().entry(namespace).clone();
            if let State::Stored(uuids) = entry.state {
                stored.push(((*namespace).clone(), entry, uuids));
            }
        }
        if stored.is_empty() {
            return Ok(());
        }
        let infos = Pair::new(
            self.infos(&stored, Side::A).await?,
            self.infos(&stored, Side::B).await?,
        );
        let mut known = self.known();
        let infos = infos.a.into_iter().zip(infos.b);
        for ((namespace, ..), (a, b)) in stored.iter().zip(infos) {
            known.set_indexes(namespace, Pair::new(a, b));
        }
        Ok(())
    }

    async fn infos(
        &self,
        stored: &[(Namespace, Entry, Pair<Uuid>)],
        side: Side,
    ) -> Result<Vec<CollectionInfo>> {
        let places = stored
            .iter()
            .map(|(_, entry, uuids)| (entry.names[side].clone(), Some(uuids[side])));
        let places: Vec<_> = places.collect();
        let indexes = indexes_of_all(&self.clusters[side], &places).await?;
        let infos = stored.iter().zip(indexes);
        let infos = infos.map(|((_, entry, uuids), indexes)| CollectionInfo {
            name: entry.names[side].clone(),
            uuid: uuids[side],
            unique_fields: unique_fields(&indexes),
            collated: is_collated(&indexes),
        });
        Ok(infos.collect())
    }
}

impl Single {
    /// What its counterpart is created with; none where something else has its name by now.
    fn options(&self) -> Option<Document> {
        let from = self.from.as_ref();
        let from = from.filter(|from| from.uuid == Some(self.uuid))?;
        Some(from.options.clone())
    }
}

/// The UUID of a collection on its source, where `there` has its name.
fn uuid_of(entry: &Entry, source: Side, there: Option<&Listed>, mode: Mode) -> Result<Uuid, Miss> {
    let expected = entry.uuids[source];
    let named_so = there.and_then(|there| there.uuid);
    // A view has no UUID.
    let is_replaced = there.is_some() && expected.is_some() && named_so != expected;
    if is_replaced && !entry.gone[source] {
        return Err(Miss::Unclear);
    }
    let unsupported = there.and_then(|there| there.unsupported(mode));
    if let Some(reason) = unsupported.filter(|_| !is_replaced) {
        return Err(Miss::Unsupported(reason.to_owned()));
    }
    expected.or(named_so).ok_or(Miss::Unclear)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::collections::identity::Identities;

    #[test]
    fn a_view_that_has_the_name_of_a_known_collection_is_another_thing() {
        let name = Namespace::new("shop", "orders");
        let uuid = Uuid::from_bytes([1; 16]);
        let mut known = Identities::default();
        known.identify(Side::A, uuid, &name);
        let mut entry = known.entry(&name).clone();
        let view = Listed {
            uuid: None,
            kind: "view".to_owned(),
            options: Document::new(),
        };
        let of = |entry: &Entry| uuid_of(entry, Side::A, Some(&view), Mode::TwoWay);
        assert!(matches!(of(&entry), Err(Miss::Unclear)));
        entry.gone.a = true;
        assert!(matches!(of(&entry), Ok(found) if found == uuid));
        entry.uuids.a = None;
        assert!(matches!(of(&entry), Err(Miss::Unsupported(_))));
    }
}
