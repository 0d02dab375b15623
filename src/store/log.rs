//! The conflict log: every record once, in the order of (logged at, id).

use std::sync::atomic::Ordering;

use bson::{DateTime, RawDocument, RawDocumentBuf};
use sled::Transactional;
use sled::transaction::{ConflictableTransactionError, TransactionError};

use super::{RecordFilter, Store};
use crate::change::{
    ConflictKind, DocumentKey, RawElement, RecordStatus, document_of, elements, lasting_key,
};
use crate::error::{Error, Result};

/// Bounds what one sled transaction holds in memory.
const RECORDS_PER_TRANSACTION_MAX: usize = 128;
/// Bounds what the newest records hold in memory, but for a single large one.
const NEWEST_BYTES_MAX: usize = 8 * 1024 * 1024;

impl Store {
    /// Adds records to the conflict log, by `_id`: the first record wins.
    ///
    /// Returns how many were new. On disk within 500 ms, see [`Store::flush`].
    pub fn put_records(&self, records: &[RawDocumentBuf]) -> Result<usize> {
        let mut keyed = Vec::with_capacity(records.len());
        for record in records {
            keyed.push((record_id(record)?, record_key(record)?, record));
        }
        let mut new = 0;
        for part in keyed.chunks(RECORDS_PER_TRANSACTION_MAX) {
            new += self.put_part(part)?;
        }
        Ok(new)
    }

    fn put_part(&self, part: &[(&str, Vec<u8>, &RawDocumentBuf)]) -> Result<usize> {
        let put = (&self.0.records, &self.0.record_keys).transaction(|(records, keys)| {
            let (mut new, mut bytes) = (0, 0);
            for (id, key, record) in part {
                let known = keys.get(id.as_bytes())?;
                let key = known.as_deref().unwrap_or(key);
                if known.is_none() {
                    keys.insert(id.as_bytes(), key)?;
                }
                // sled may have lost one of the two in an abrupt stop.
                if records.get(key)?.is_none() {
                    records.insert(key, record.as_bytes())?;
                    new += 1;
                    bytes += record.as_bytes().len() as u64;
                }
            }
            Ok::<(usize, u64), ConflictableTransactionError<()>>((new, bytes))
        });
        let (new, bytes) = put.map_err(|cause| self.transaction_error(cause))?;
        self.0.records_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(new)
    }

    /// Bytes of all records, as of [`Store::check_log`] and what was put and removed since.
    pub fn records_bytes(&self) -> u64 {
        self.0.records_bytes.load(Ordering::Relaxed)
    }

    /// Removes records by `_id`; those that are not there do not matter.
    pub fn remove_records(&self, ids: &[String]) -> Result<()> {
        for part in ids.chunks(RECORDS_PER_TRANSACTION_MAX) {
            let removed = (&self.0.records, &self.0.record_keys).transaction(|(records, keys)| {
                let mut bytes = 0;
                for id in part {
                    if let Some(key) = keys.remove(id.as_bytes())? {
                        let record = records.remove(key)?;
                        bytes += record.map_or(0, |record| record.len() as u64);
                    }
                }
                Ok::<u64, ConflictableTransactionError<()>>(bytes)
            });
            let bytes = removed.map_err(|cause| self.transaction_error(cause))?;
            let left = self.records_bytes().saturating_sub(bytes);
            self.0.records_bytes.store(left, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether the log is whole, as far as it can tell itself: sled may read less than was written
    /// after its file was damaged. Reads the whole log; meant for a start, after the records of the
    /// clusters were put.
    ///
    /// # Errors
    /// Exit 7 where records are missing.
    pub fn check_log(&self) -> Result<()> {
        let (mut records, mut bytes) = (0, 0);
        for record in &self.0.records {
            let (_, record) = record.map_err(|cause| self.sled_error(cause))?;
            records += 1;
            bytes += record.len() as u64;
        }
        self.0.records_bytes.store(bytes, Ordering::Relaxed);
        let keys = self.0.record_keys.len();
        if records == keys {
            return Ok(());
        }
        let what = format!("the conflict log has {records} records and {keys} keys: it");
        Err(self.damaged(&what))
    }

    /// Returns whether there is such a record.
    pub fn set_record_status(&self, id: &str, status: RecordStatus) -> Result<bool> {
        self.set_record_fields(id, &bson::rawdoc! { "status": status.as_str() })
    }

    /// Sets fields of a record anew. Returns whether there is such a record.
    pub fn set_record_fields(&self, id: &str, fields: &RawDocument) -> Result<bool> {
        let set = (&self.0.records, &self.0.record_keys).transaction(|(records, keys)| {
            let Some(key) = keys.get(id.as_bytes())? else {
                return Ok(false);
            };
            let Some(bytes) = records.get(&key)? else {
                return Ok(false);
            };
            let record = RawDocument::from_bytes(&bytes);
            let Some(changed) = record.ok().and_then(|record| with_fields(record, fields)) else {
                return Err(ConflictableTransactionError::Abort(()));
            };
            records.insert(key, changed.as_bytes())?;
            Ok(true)
        });
        set.map_err(|cause| self.transaction_error(cause))
    }

    pub fn record(&self, id: &str) -> Result<Option<RawDocumentBuf>> {
        let key = self.0.record_keys.get(id);
        match key.map_err(|cause| self.sled_error(cause))? {
            Some(key) => self.record_at(&key),
            None => Ok(None),
        }
    }

    pub(super) fn record_at(&self, key: &[u8]) -> Result<Option<RawDocumentBuf>> {
        let bytes = self.0.records.get(key);
        match bytes.map_err(|cause| self.sled_error(cause))? {
            Some(bytes) => self.decoded(&bytes).map(Some),
            None => Ok(None),
        }
    }

    /// The matching records, ordered by `logged_at`, then `id`; one at a time is in memory.
    ///
    /// Records that are added meanwhile may or may not be among them.
    pub fn records(
        &self,
        filter: &RecordFilter,
    ) -> impl Iterator<Item = Result<RawDocumentBuf>> + Send + use<> {
        self.matching(self.range(filter), filter)
    }

    /// The same, the newest first.
    pub(super) fn records_backwards(
        &self,
        filter: &RecordFilter,
    ) -> impl Iterator<Item = Result<RawDocumentBuf>> + Send + use<> {
        self.matching(self.range(filter).map(Iterator::rev), filter)
    }

    /// None where it ends before it begins: sled panics on such a range.
    fn range(&self, filter: &RecordFilter) -> Option<sled::Iter> {
        let bound = |time: Option<DateTime>, otherwise: [u8; 9]| {
            time.map_or(otherwise.to_vec(), |time| time_key(time).to_vec())
        };
        let from = bound(filter.since, [0; 9]);
        let to = bound(filter.until, [u8::MAX; 9]);
        (from <= to).then(|| self.0.records.range(from..to))
    }

    fn matching<E>(
        &self,
        entries: Option<E>,
        filter: &RecordFilter,
    ) -> impl Iterator<Item = Result<RawDocumentBuf>> + Send + use<E>
    where
        E: Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>> + Send,
    {
        let (store, filter) = (self.clone(), filter.clone());
        entries.into_iter().flatten().filter_map(move |entry| {
            let (_, bytes) = match entry {
                Ok(entry) => entry,
                Err(cause) => return Some(Err(store.sled_error(cause))),
            };
            match RawDocument::from_bytes(&bytes) {
                Ok(record) => filter.matches(record).then(|| Ok(record.to_owned())),
                Err(cause) => Some(Err(store.damaged("a record").caused_by(cause))),
            }
        })
    }

    /// The newest records, newest first: `count_max` at most, and fewer where they are large.
    ///
    /// # Errors
    /// As [`Store::records`].
    pub fn newest_records(&self, count_max: usize) -> Result<Vec<RawDocumentBuf>> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for entry in self.0.records.iter().rev().take(count_max) {
            let (_, record) = entry.map_err(|cause| self.sled_error(cause))?;
            bytes += record.len();
            if bytes > NEWEST_BYTES_MAX && !found.is_empty() {
                break;
            }
            found.push(self.decoded(&record)?);
        }
        Ok(found)
    }

    /// Ids of the dead letters of one document that nobody has settled.
    ///
    /// # Errors
    /// As [`Store::records`].
    pub fn dead_letters_of(&self, key: &DocumentKey) -> Result<Vec<String>> {
        let filter = RecordFilter {
            kinds: vec![ConflictKind::DeadLetter],
            statuses: vec![RecordStatus::Logged],
            ..RecordFilter::default()
        };
        let mut ids = Vec::new();
        for record in self.records(&filter) {
            let record = record?;
            if lasting_key(&record).as_ref() == Some(key) {
                ids.extend(record.get_str("_id").map(str::to_owned));
            }
        }
        Ok(ids)
    }

    fn decoded(&self, bytes: &[u8]) -> Result<RawDocumentBuf> {
        RawDocumentBuf::from_bytes(bytes.to_vec())
            .map_err(|cause| self.damaged("a record").caused_by(cause))
    }

    pub(super) fn transaction_error(&self, cause: TransactionError<()>) -> Error {
        match cause {
            TransactionError::Abort(()) => self.damaged("a record"),
            TransactionError::Storage(cause) => self.sled_error(cause),
        }
    }
}

fn record_id(record: &RawDocument) -> Result<&str> {
    record
        .get_str("_id")
        .map_err(|cause| Error::bug("a conflict record has no id").caused_by(cause))
}

/// Sorts as (logged at, id).
pub(super) fn record_key(record: &RawDocument) -> Result<Vec<u8>> {
    let logged_at = record
        .get_datetime("logged_at")
        .map_err(|cause| Error::bug("a conflict record has no time").caused_by(cause))?;
    let mut key = time_key(logged_at).to_vec();
    key.extend_from_slice(record_id(record)?.as_bytes());
    Ok(key)
}

/// Sorts as the time does, negative ones included.
pub(super) fn time_key(time: DateTime) -> [u8; 8] {
    let sortable = (time.timestamp_millis() as u64) ^ (1 << 63);
    sortable.to_be_bytes()
}

fn with_fields(record: &RawDocument, fields: &RawDocument) -> Option<RawDocumentBuf> {
    let new = elements(fields).ok()?;
    let old = elements(record).ok()?;
    let kept = |element: &RawElement<'_>| new.iter().all(|new| new.name != element.name);
    let parts = old.into_iter().filter(kept).chain(new.iter().copied());
    Some(document_of(parts.map(|element| element.bytes)))
}
