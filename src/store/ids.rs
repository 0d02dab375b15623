//! Where a record of the conflict log stands, by its id: in memory, made of the log itself.
//!
//! Ids are digests. In a tree of their own each new one is written at another place, the further
//! from what is in memory the longer the log is. A record's key is the time it was logged at and its
//! id, so that the time is all that has to be remembered, and the ends of the trees are all that is
//! written.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};

use bson::RawDocumentBuf;

use super::Store;
use super::index::State;
use super::log::TIME_BYTES;
use super::reading::Reading;
use crate::error::Result;

#[cfg(test)]
mod tests;

/// Where an older tandem kept the keys by id.
const FORMER_KEYS: &str = "record_keys";

/// The time of each record by a digest of its id, which others may share; some 25 bytes each.
#[derive(Default)]
pub(super) struct Ids(BTreeSet<(u64, [u8; TIME_BYTES])>);

impl Ids {
    pub fn add(&mut self, key: &[u8]) {
        self.0.extend(entry(key));
    }

    pub fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = entry(key) {
            self.0.remove(&entry);
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Where a record of this id may stand.
    fn keys(&self, id: &str) -> impl Iterator<Item = Vec<u8>> {
        let digest = digest(id.as_bytes());
        let found = self.0.range((digest, [0; _])..=(digest, [u8::MAX; _]));
        found.map(move |(_, time)| [time, id.as_bytes()].concat())
    }
}

/// None for what is no key.
fn entry(key: &[u8]) -> Option<(u64, [u8; TIME_BYTES])> {
    let (time, id) = key.split_first_chunk()?;
    Some((digest(id), *time))
}

fn digest(id: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(id);
    hasher.finish()
}

impl Store {
    /// The key of the record with this id, also where sled has lost the record.
    pub(super) fn key_of(&self, state: &mut State, id: &str) -> sled::Result<Option<Vec<u8>>> {
        let mut lost = None;
        for key in self.ids(state)?.keys(id) {
            if self.0.records.contains_key(&key)? {
                return Ok(Some(key));
            }
            lost = Some(key);
        }
        Ok(lost)
    }

    /// Read of the log when they are first asked for: of the index, or of all records without one.
    pub(super) fn ids<'a>(&self, state: &'a mut State) -> sled::Result<&'a mut Ids> {
        let read = match state.ids.take() {
            Some(ids) => ids,
            None => self.ids_of_log(state)?,
        };
        Ok(state.ids.insert(read))
    }

    fn ids_of_log(&self, state: &State) -> sled::Result<Ids> {
        let mut ids = Ids::default();
        if state.is_whole() {
            self.0.index.each_key(|key| ids.add(key))?;
            return Ok(ids);
        }
        let mut reading = Reading::of(&self.0.records);
        for entry in &self.0.records {
            let (key, record) = entry?;
            reading.has_read(&key, record.len())?;
            ids.add(&key);
        }
        Ok(ids)
    }

    pub fn record(&self, id: &str) -> Result<Option<RawDocumentBuf>> {
        let key = self.key_of(&mut self.0.index.writing(), id);
        match key.map_err(|cause| self.sled_error(cause))? {
            Some(key) => self.record_at(&key),
            None => Ok(None),
        }
    }

    /// What an older tandem knew by its own keys, where it was the last that wrote.
    pub(super) fn former_ids(&self) -> sled::Result<Option<Ids>> {
        let Some(keys) = self.former_keys()? else {
            return Ok(None);
        };
        let (mut ids, mut reading) = (Ids::default(), Reading::of(&keys));
        for entry in &keys {
            let (id, key) = entry?;
            reading.has_read(&id, id.len() + key.len())?;
            ids.add(&key);
        }
        Ok(Some(ids))
    }

    /// What is removed is not missing.
    pub(super) fn forget_former_keys(&self, ids: &[String]) -> sled::Result<()> {
        if let Some(keys) = self.former_keys()? {
            for id in ids {
                keys.remove(id)?;
            }
        }
        Ok(())
    }

    /// They say nothing of what was put since. Not dropped at once: sled holds all of a tree in memory
    /// meanwhile.
    pub(super) fn drop_former_keys(&self) -> sled::Result<()> {
        const AT_ONCE: usize = 1000;
        let Some(keys) = self.former_keys()? else {
            return Ok(());
        };
        while !keys.is_empty() {
            let mut batch = sled::Batch::default();
            for id in keys.iter().keys().take(AT_ONCE) {
                batch.remove(id?);
            }
            keys.apply_batch(batch)?;
        }
        self.0.db.drop_tree(FORMER_KEYS)?;
        Ok(())
    }

    fn former_keys(&self) -> sled::Result<Option<sled::Tree>> {
        let names = self.0.db.tree_names();
        let is_there = names.iter().any(|name| name == FORMER_KEYS.as_bytes());
        is_there
            .then(|| self.0.db.open_tree(FORMER_KEYS))
            .transpose()
    }
}
