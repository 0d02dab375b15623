//! Which collection is meant: by UUID, under one lasting name, whatever it is called on a cluster.
//!
//! The lasting name is what keys, queues and notes know a collection by. It is the collection's
//! first name, as a calls it, and never changes; a later collection of the same name gets its UUID
//! behind it. So a rename moves no key, and what was written into a dropped collection never mixes
//! with its successor's.

use std::collections::{BTreeMap, HashMap};

use bson::{Timestamp, Uuid};

use crate::change::{Namespace, Pair, Renames, Side};
use crate::target::CollectionInfo;

/// How far a collection and its counterpart are known.
#[derive(Debug, Clone)]
pub enum State {
    /// Events of it were read.
    Seen,
    /// Paired; the indexes have not been read yet, or not since they changed.
    Stored(Pair<Uuid>),
    Paired(Pair<CollectionInfo>),
    /// Not replicated any more, whatever comes under the name that it has now.
    Unpaired,
    /// Dropped on both sides.
    Dropped,
}

/// A collection and its counterpart.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is called on each cluster.
    pub names: Pair<Namespace>,
    pub uuids: Pair<Option<Uuid>>,
    /// Dropped there, as far as that cluster's reader has come.
    pub gone: Pair<bool>,
    /// Nothing after these times is about it any more.
    pub over_at: Option<Pair<Timestamp>>,
    /// The last rename of each cluster that the other one has followed.
    pub followed: Pair<Option<Timestamp>>,
    /// Its creation has its turn.
    pub settling: bool,
    pub state: State,
}

/// All collections of a link, by lasting name.
#[derive(Debug, Default)]
pub struct Identities {
    renames: Renames,
    /// In order: of several that would do, it is no chance which one is taken.
    entries: BTreeMap<Namespace, Entry>,
    by_uuid: Pair<HashMap<Uuid, Namespace>>,
}

impl Entry {
    fn named(names: Pair<Namespace>) -> Self {
        Self {
            names,
            uuids: Pair::new(None, None),
            gone: Pair::new(false, false),
            over_at: None,
            followed: Pair::new(None, None),
            settling: false,
            state: State::Seen,
        }
    }

    fn is_live(&self) -> bool {
        !matches!(self.state, State::Unpaired | State::Dropped)
    }

    /// Whether this may be the counterpart of a collection of that name on `side`.
    fn lacks(&self, side: Side, name: &Namespace) -> bool {
        self.is_live() && self.uuids[side].is_none() && self.names[side] == *name
    }
}

impl Identities {
    pub fn new(renames: Renames) -> Self {
        Self {
            renames,
            ..Self::default()
        }
    }

    pub fn get(&self, lasting: &Namespace) -> Option<&Entry> {
        self.entries.get(lasting)
    }

    pub fn get_mut(&mut self, lasting: &Namespace) -> Option<&mut Entry> {
        self.entries.get_mut(lasting)
    }

    pub fn entries(&self) -> impl Iterator<Item = (&Namespace, &Entry)> {
        self.entries.iter()
    }

    /// The entry, made if there is none.
    pub fn entry(&mut self, lasting: &Namespace) -> &mut Entry {
        let entry = self.entries.entry(lasting.clone());
        entry.or_insert_with(|| {
            let on = |side| self.renames.on(side, lasting);
            Entry::named(Pair::new(on(Side::A), on(Side::B)))
        })
    }

    pub fn insert(&mut self, lasting: Namespace, entry: Entry) {
        for side in Side::BOTH {
            if let Some(uuid) = entry.uuids[side] {
                self.by_uuid[side].insert(uuid, lasting.clone());
            }
        }
        self.entries.insert(lasting, entry);
    }

    pub fn remove(&mut self, lasting: &Namespace) {
        self.entries.remove(lasting);
        for side in Side::BOTH {
            self.by_uuid[side].retain(|_, known| known != lasting);
        }
    }

    pub fn rename(&mut self, lasting: &Namespace, side: Side, name: &Namespace) {
        let entry = self.entry(lasting);
        entry.names[side] = name.clone();
        if let State::Paired(pair) = &mut entry.state {
            pair[side].name = name.clone();
        }
    }

    /// A pair's indexes have been read. It may have got another name meanwhile.
    pub fn set_indexes(&mut self, lasting: &Namespace, mut pair: Pair<CollectionInfo>) {
        let entry = self.entry(lasting);
        for side in Side::BOTH {
            pair[side].name = entry.names[side].clone();
        }
        entry.state = State::Paired(pair);
    }

    pub fn of_uuid(&self, side: Side, uuid: Uuid) -> Option<&Namespace> {
        self.by_uuid[side].get(&uuid)
    }

    pub fn set_uuid(&mut self, lasting: &Namespace, side: Side, uuid: Uuid) {
        self.entry(lasting).uuids[side] = Some(uuid);
        self.by_uuid[side].insert(uuid, lasting.clone());
    }

    /// Takes these two for a pair, unless another counterpart of either is known by now.
    pub fn claim(&mut self, lasting: &Namespace, uuids: Pair<Uuid>) -> bool {
        let known = self.entry(lasting).uuids;
        let is_free = |side: &Side| {
            let holder = self.of_uuid(*side, uuids[*side]);
            known[*side].is_none_or(|known| known == uuids[*side])
                && holder.is_none_or(|holder| holder == lasting)
        };
        let is_free = Side::BOTH.iter().all(is_free);
        if is_free {
            for side in Side::BOTH {
                self.set_uuid(lasting, side, uuids[side]);
            }
        }
        is_free
    }

    /// The lasting name of a collection that events of `side` are about.
    pub fn identify(&mut self, side: Side, uuid: Uuid, name: &Namespace) -> Namespace {
        if let Some(known) = self.by_uuid[side].get(&uuid) {
            return known.clone();
        }
        let Some(on_a) = self.renames.on_a(side, name) else {
            return self.identify_apart(side, uuid, name);
        };
        if let Some(passed_over) = self.passed_over(side, name) {
            self.set_uuid(&passed_over, side, uuid);
            return passed_over;
        }
        let lasting = match self.entries.get(&on_a) {
            None => on_a,
            Some(entry) if entry.lacks(side, name) && !entry.gone[side.other()] => on_a,
            Some(_) => {
                let counterpart = self.counterpart(side, name);
                counterpart.unwrap_or_else(|| successor(&on_a, uuid))
            }
        };
        self.set_counterpart(&lasting, side, uuid, name);
        lasting
    }

    /// As [`Identities::identify`], of one that is nobody's counterpart.
    pub fn identify_apart(&mut self, side: Side, uuid: Uuid, name: &Namespace) -> Namespace {
        let on_a = self.renames.on_a(side, name);
        let lasting = successor(on_a.as_ref().unwrap_or(name), uuid);
        self.set_counterpart(&lasting, side, uuid, name);
        lasting
    }

    /// The collection of this UUID and name on `side` is the one of the lasting name.
    pub fn set_counterpart(
        &mut self,
        lasting: &Namespace,
        side: Side,
        uuid: Uuid,
        name: &Namespace,
    ) {
        if !self.entries.contains_key(lasting) {
            let there = self.renames.on_other(side, name);
            let mut names = Pair::new(name.clone(), name.clone());
            names[side.other()] = there.unwrap_or_else(|| name.clone());
            self.entries.insert(lasting.clone(), Entry::named(names));
        }
        self.set_uuid(lasting, side, uuid);
        self.entry(lasting).names[side] = name.clone();
    }

    /// As [`Identities::set_counterpart`], unless another one is known. Returns which one it is.
    pub fn take_counterpart(
        &mut self,
        lasting: &Namespace,
        side: Side,
        uuid: Uuid,
        name: &Namespace,
    ) -> Uuid {
        if let Some(known) = self.get(lasting).and_then(|entry| entry.uuids[side]) {
            return known;
        }
        self.set_counterpart(lasting, side, uuid, name);
        uuid
    }

    /// What is not replicated any more under this name.
    fn passed_over(&self, side: Side, name: &Namespace) -> Option<Namespace> {
        let unpaired = |entry: &Entry| matches!(entry.state, State::Unpaired);
        let found = self
            .entries
            .iter()
            .filter(|(_, entry)| unpaired(entry) && entry.names[side] == *name);
        found.map(|(lasting, _)| lasting).min().cloned()
    }

    /// A collection of the other side that waits for one of this name on `side`, one that is still
    /// there rather than one that is gone.
    fn counterpart(&self, side: Side, name: &Namespace) -> Option<Namespace> {
        let lacking = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.lacks(side, name));
        lacking
            .min_by_key(|(_, entry)| entry.gone[side.other()])
            .map(|(lasting, _)| lasting.clone())
    }

    /// The lasting name of whatever is called so on `side` now.
    pub fn called(&self, side: Side, name: &Namespace) -> Option<&Namespace> {
        let live = |entry: &Entry| entry.is_live() && !entry.gone[side];
        let mut found = self
            .entries
            .iter()
            .filter(|(_, entry)| live(entry) && entry.names[side] == *name);
        found.next().map(|(lasting, _)| lasting)
    }
}

/// The lasting name of a collection whose name has been another one's lasting name.
fn successor(name: &Namespace, uuid: Uuid) -> Namespace {
    let successor = format!("{}#{}", name.collection(), hex(uuid));
    Namespace::new(name.database(), &successor)
}

fn hex(uuid: Uuid) -> String {
    uuid.bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests;
