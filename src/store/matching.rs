//! The records that a filter asks for, one after the other.

use bson::{DateTime, RawDocument, RawDocumentBuf};

use super::log::time_key;
use super::page::{Direction, Records};
use super::reading::Reading;
use super::{RecordFilter, Store};
use crate::error::Result;

type Entry = sled::Result<(sled::IVec, sled::IVec)>;

impl Store {
    /// The matching records, ordered by `logged_at`, then `id`; one at a time is in memory.
    ///
    /// Records that are added meanwhile may or may not be among them.
    pub fn records(&self, filter: &RecordFilter) -> Records {
        self.matching(filter, Direction::Ascending)
    }

    /// Looked up by id, or found by the index; where neither can tell, every record of the time is
    /// read.
    pub(super) fn matching(&self, filter: &RecordFilter, direction: Direction) -> Records {
        let (from, to) = range(filter);
        // sled panics on a range that ends before it begins.
        if from > to {
            return Box::new(std::iter::empty());
        }
        if !filter.ids.is_empty() {
            let keys = self.keys_of(&filter.ids, direction);
            return self.read(filter, keys);
        }
        if self.0.index.serves(filter) {
            let keys = match self.0.index.keys(filter, &from, &to, direction) {
                Ok(keys) => keys,
                Err(cause) => return Box::new(std::iter::once(Err(self.sled_error(cause)))),
            };
            return self.read(filter, keys);
        }
        let entries = self.0.records.range(from..to);
        match direction {
            Direction::Ascending => self.read_all(filter, entries),
            Direction::Descending => self.read_all(filter, entries.rev()),
        }
    }

    fn keys_of(
        &self,
        ids: &[String],
        direction: Direction,
    ) -> impl Iterator<Item = sled::Result<Vec<u8>>> + Send + use<> {
        let mut writing = self.0.index.writing();
        let found = |id: &String| self.key_of(&mut writing, id).transpose();
        let keys: sled::Result<Vec<Vec<u8>>> = ids.iter().filter_map(found).collect();
        let (mut keys, failed) = match keys {
            Ok(keys) => (keys, None),
            Err(cause) => (Vec::new(), Some(Err(cause))),
        };
        keys.sort();
        keys.dedup();
        if direction == Direction::Descending {
            keys.reverse();
        }
        keys.into_iter().map(Ok).chain(failed)
    }

    /// A record that was removed meanwhile is passed over.
    fn read(
        &self,
        filter: &RecordFilter,
        keys: impl Iterator<Item = sled::Result<Vec<u8>>> + Send + 'static,
    ) -> Records {
        let records = self.0.records.clone();
        let entries = keys.filter_map(move |key| {
            let entry = key.and_then(|key| Ok(records.get(&key)?.map(|record| (key, record))));
            entry
                .transpose()
                .map(|entry| entry.map(|(key, record)| (sled::IVec::from(key), record)))
        });
        self.read_all(filter, entries)
    }

    fn read_all(
        &self,
        filter: &RecordFilter,
        entries: impl Iterator<Item = Entry> + Send + 'static,
    ) -> Records {
        let (store, filter) = (self.clone(), filter.clone());
        let mut reading = Reading::of(&self.0.records);
        Box::new(entries.filter_map(move |entry| {
            let read = entry.and_then(|(key, record)| {
                reading.has_read(&key, record.len())?;
                Ok(record)
            });
            match read {
                Ok(record) => store.if_it_matches(&filter, &record),
                Err(cause) => Some(Err(store.sled_error(cause))),
            }
        }))
    }

    fn if_it_matches(
        &self,
        filter: &RecordFilter,
        record: &[u8],
    ) -> Option<Result<RawDocumentBuf>> {
        match RawDocument::from_bytes(record) {
            Ok(record) => filter.matches(record).then(|| Ok(record.to_owned())),
            Err(cause) => Some(Err(self.damaged("a record").caused_by(cause))),
        }
    }
}

/// From which key on and before which one records of a filter's time stand.
fn range(filter: &RecordFilter) -> (Vec<u8>, Vec<u8>) {
    let bound = |time: Option<DateTime>, otherwise: [u8; 9]| {
        time.map_or(otherwise.to_vec(), |time| time_key(time).to_vec())
    };
    (
        bound(filter.since, [0; 9]),
        bound(filter.until, [u8::MAX; 9]),
    )
}
