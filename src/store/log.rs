//! The conflict log: every record once, in the order of (logged at, id).

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bson::{DateTime, RawDocument, RawDocumentBuf};
use sled::Transactional;
use sled::transaction::{ConflictableTransactionError, TransactionError};

use super::ids::Ids;
use super::index::{Edit, State};
use super::reading::Reading;
use super::{RecordFilter, Store, generation};
use crate::change::{
    ConflictKind, DocumentKey, RawElement, RecordStatus, document_of, elements, lasting_key,
};
use crate::error::{Error, Result};

/// Of a record's key those that are its time.
pub(super) const TIME_BYTES: usize = 8;
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
        let mut writing = self.0.index.writing();
        let failed = |cause| self.sled_error(cause);
        let (new, edit) = self.new_of(part, &mut writing).map_err(failed)?;
        let put = self.log_trees().transaction(|(records, blocks, facets)| {
            for new in new.values() {
                if let Some(record) = new.record {
                    records.insert(new.key.as_slice(), record.as_bytes())?;
                }
            }
            edit.write(blocks, facets)?;
            Ok::<(), ConflictableTransactionError<()>>(())
        });
        put.map_err(|cause| self.transaction_error(cause))?;
        writing.written(&edit);
        let ids = self.ids(&mut writing).map_err(failed)?;
        new.values().for_each(|new| ids.add(&new.key));
        let records = || new.values().filter_map(|new| new.record);
        let bytes: usize = records().map(|record| record.as_bytes().len()).sum();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.0.records_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.0.bytes_put.fetch_add(bytes, Ordering::Relaxed);
        Ok(records().count())
    }

    /// What of a part is not in the log yet, by id, and its rows in the index.
    fn new_of<'a>(
        &self,
        part: &[(&'a str, Vec<u8>, &'a RawDocumentBuf)],
        writing: &mut State,
    ) -> sled::Result<(BTreeMap<&'a str, New<'a>>, Edit)> {
        let (mut new, mut edit) = (BTreeMap::new(), Edit::default());
        for (id, key, record) in part {
            if new.contains_key(id) {
                continue;
            }
            let known = self.key_of(writing, id)?;
            let is_known = known.is_some();
            let key = known.unwrap_or_else(|| key.clone());
            // sled may have lost a record or its row in an abrupt stop.
            let is_there = self.0.records.contains_key(&key)?;
            if is_known && is_there {
                continue;
            }
            if writing.is_whole() {
                self.0.index.put(writing, &mut edit, &key, record)?;
            }
            let record = (!is_there).then_some(*record);
            new.insert(*id, New { key, record });
        }
        Ok((new, edit))
    }

    /// What is changed together.
    fn log_trees(&self) -> (&sled::Tree, &sled::Tree, &sled::Tree) {
        let (blocks, facets) = self.0.index.trees();
        (&self.0.records, blocks, facets)
    }

    /// Bytes of all records, as of [`Store::check_log`] and what was put and removed since.
    pub fn records_bytes(&self) -> u64 {
        self.0.records_bytes.load(Ordering::Relaxed)
    }

    /// Removes records by `_id`; those that are not there do not matter.
    pub fn remove_records(&self, ids: &[String]) -> Result<()> {
        for part in ids.chunks(RECORDS_PER_TRANSACTION_MAX) {
            let bytes = self.remove_part(part)?;
            let left = self.records_bytes().saturating_sub(bytes);
            self.0.records_bytes.store(left, Ordering::Relaxed);
        }
        Ok(())
    }

    fn remove_part(&self, ids: &[String]) -> Result<u64> {
        let mut writing = self.0.index.writing();
        let failed = |cause| self.sled_error(cause);
        self.forget_former_keys(ids).map_err(failed)?;
        let (mut keys, mut edit) = (Vec::new(), Edit::default());
        for id in ids {
            let Some(key) = self.key_of(&mut writing, id).map_err(failed)? else {
                continue;
            };
            if writing.is_whole() {
                self.0.index.remove(&mut edit, &key).map_err(failed)?;
            }
            keys.push(key);
        }
        let removed = self.log_trees().transaction(|(records, blocks, facets)| {
            let mut bytes = 0;
            for key in &keys {
                let record = records.remove(key.as_slice())?;
                bytes += record.map_or(0, |record| record.len() as u64);
            }
            edit.write(blocks, facets)?;
            Ok::<u64, ConflictableTransactionError<()>>(bytes)
        });
        let bytes = removed.map_err(|cause| self.transaction_error(cause))?;
        let ids = self.ids(&mut writing).map_err(failed)?;
        keys.iter().for_each(|key| ids.remove(key));
        Ok(bytes)
    }

    /// Whether the log is whole, as far as it can tell itself: sled may read less than was written
    /// after its file was damaged. Reads the whole log; meant for a start, after the records of the
    /// clusters were put. Makes the index anew where it lacks rows.
    ///
    /// # Errors
    /// Exit 7 where records are missing.
    pub fn check_log(&self) -> Result<()> {
        let failed = |cause| self.sled_error(cause);
        let mut former = self.former_ids().map_err(failed)?;
        let (records, bytes) = self.counted_records(former.as_mut())?;
        self.0.records_bytes.store(bytes, Ordering::Relaxed);
        let rows = self.0.index.len().map_err(failed)?;
        let missing = match former {
            Some(without_record) => without_record.len(),
            None if self.0.index.is_whole() => rows.saturating_sub(records),
            None => 0,
        };
        if missing > 0 {
            let what = format!("{missing} records of the conflict log are missing: it");
            return Err(self.damaged(&what));
        }
        if rows != records {
            self.make_index()?;
        }
        self.drop_former_keys().map_err(failed)
    }

    /// Makes the index where the log was written without one; meant for a start, before anything
    /// that cannot wait.
    ///
    /// # Errors
    /// As [`Store::records`].
    pub fn complete_index(&self) -> Result<()> {
        match self.0.index.is_whole() {
            true => Ok(()),
            false => self.make_index(),
        }
    }

    /// How many there are, and their bytes. Of ids, those that no record has are left.
    fn counted_records(&self, mut ids: Option<&mut Ids>) -> Result<(usize, u64)> {
        let (mut count, mut bytes) = (0, 0);
        let mut reading = Reading::of(&self.0.records);
        for entry in &self.0.records {
            let (key, record) = entry.map_err(|cause| self.sled_error(cause))?;
            let read = reading.has_read(&key, key.len() + record.len());
            read.map_err(|cause| self.sled_error(cause))?;
            count += 1;
            bytes += record.len() as u64;
            if let Some(ids) = &mut ids {
                ids.remove(&key);
            }
        }
        Ok((count, bytes))
    }

    /// Where this is broken off it is begun anew; until the index is there, reports read every record.
    fn make_index(&self) -> Result<()> {
        const TOLD_EACH: usize = 100_000;
        let index = &self.0.index;
        let mut writing = index.writing();
        let failed = |cause| self.sled_error(cause);
        // On record as missing first: what is begun is not whole.
        generation::forget_index(&self.0.db).map_err(failed)?;
        index.clear(&mut writing).map_err(failed)?;
        let mut edit = Edit::default();
        let mut reading = Reading::of(&self.0.records);
        for (done, entry) in self.0.records.iter().enumerate() {
            let (key, bytes) = entry.map_err(failed)?;
            reading.has_read(&key, bytes.len()).map_err(failed)?;
            let record = self.decoded(&bytes)?;
            index
                .put(&writing, &mut edit, &key, &record)
                .map_err(failed)?;
            if edit.is_full() {
                self.write_index(&mut writing, std::mem::take(&mut edit))?;
            }
            if done > 0 && done.is_multiple_of(TOLD_EACH) {
                tracing::info!(records = done, "the conflict log gets its index");
            }
        }
        self.write_index(&mut writing, edit)?;
        self.index_completed(&mut writing)
    }

    /// From now on each record has its row.
    pub(super) fn index_completed(&self, writing: &mut State) -> Result<()> {
        writing.completed();
        let generation = self.0.generation.load(Ordering::SeqCst);
        let put = generation::put_with_index(&self.0.db, generation);
        put.map_err(|cause| self.sled_error(cause))
    }

    fn write_index(&self, writing: &mut State, edit: Edit) -> Result<()> {
        let written = self.0.index.trees().transaction(|(blocks, facets)| {
            edit.write(blocks, facets)?;
            Ok::<(), ConflictableTransactionError<()>>(())
        });
        written.map_err(|cause| self.transaction_error(cause))?;
        writing.written(&edit);
        Ok(())
    }

    /// Returns whether there is such a record.
    pub fn set_record_status(&self, id: &str, status: RecordStatus) -> Result<bool> {
        self.set_record_fields(id, &bson::rawdoc! { "status": status.as_str() })
    }

    /// Sets fields of a record anew. Returns whether there is such a record.
    pub fn set_record_fields(&self, id: &str, fields: &RawDocument) -> Result<bool> {
        let mut writing = self.0.index.writing();
        let failed = |cause| self.sled_error(cause);
        let Some(key) = self.key_of(&mut writing, id).map_err(failed)? else {
            return Ok(false);
        };
        let Some(record) = self.record_at(&key)? else {
            return Ok(false);
        };
        let Some(changed) = with_fields(&record, fields) else {
            return Err(self.damaged("a record"));
        };
        let mut edit = Edit::default();
        if writing.is_whole() {
            let put = self.0.index.put(&writing, &mut edit, &key, &changed);
            put.map_err(failed)?;
        }
        let set = self.log_trees().transaction(|(records, blocks, facets)| {
            records.insert(key.as_slice(), changed.as_bytes())?;
            edit.write(blocks, facets)?;
            Ok::<(), ConflictableTransactionError<()>>(())
        });
        set.map_err(|cause| self.transaction_error(cause))?;
        writing.written(&edit);
        Ok(true)
    }

    pub(super) fn record_at(&self, key: &[u8]) -> Result<Option<RawDocumentBuf>> {
        let bytes = self.0.records.get(key);
        match bytes.map_err(|cause| self.sled_error(cause))? {
            Some(bytes) => self.decoded(&bytes).map(Some),
            None => Ok(None),
        }
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

    pub(super) fn decoded(&self, bytes: &[u8]) -> Result<RawDocumentBuf> {
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

/// What the log lacks of a record: its row, or both.
struct New<'a> {
    key: Vec<u8>,
    record: Option<&'a RawDocumentBuf>,
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
pub(super) fn time_key(time: DateTime) -> [u8; TIME_BYTES] {
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
