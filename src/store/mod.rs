//! What a link remembers on its own machine: identity, resume tokens, conflict log, status, totals.
//!
//! Nothing lies here alone: everything but the totals can be rebuilt from the clusters. Writes reach
//! the disk within 500 ms, or at [`Store::flush`].

mod checkpoint;
mod disk;
mod filter;
mod generation;
mod ids;
mod index;
mod log;
mod matching;
mod open;
mod page;
mod pauses;
mod reading;
mod runs;
mod spool;
mod threads;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bson::{DateTime, Uuid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::change::{Pair, PipelineId, Side};
use crate::error::{Error, Result};

pub use checkpoint::StoredCheckpoint;
use disk::waiting_for_disk;
pub use filter::RecordFilter;
use index::Index;
use open::Lasting;
pub use open::{Locked, failure_of, is_locked};
pub use page::{Direction, Page, Records, SortBy};
pub use pauses::{Paused, Pauses};
pub use runs::{Moved, Run, RunKind, RunOutcome, RunStep, with_killed};
pub use spool::SpoolFiles;

/// Which link this store belongs to, and what of it may not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkIdentity {
    pub link: String,
    pub mode: String,
    pub tie: Side,
    pub database: String,
    /// The replica sets' own ids.
    pub replica_set_ids: Pair<String>,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    /// Each as it was typed.
    #[serde(default)]
    pub filters: Vec<String>,
    /// Each as `name on a -> name on b`, sorted.
    #[serde(default)]
    pub renames: Vec<String>,
}

/// What a pipeline did over the life of the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    pub events_read: u64,
    pub inserts_applied: u64,
    pub updates_applied: u64,
    pub replaces_applied: u64,
    pub deletes_applied: u64,
    pub ddl_applied: u64,
    pub conflicts: u64,
    pub identical: u64,
    pub dead_letters: u64,
    pub fence_conflicts: u64,
    pub events_passed_over: u64,
}

const IDENTITY: &str = "identity";
const COMPLETE_SINCE: &str = "complete_since";
const STATUS: &str = "status";
const EPOCH: &str = "epoch";

/// Read in less than a tenth of a second.
const NOTED_DOWN_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// The local store of one link. Cheap to clone; all clones share one lock on the directory.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Store({})", self.0.dir.display())
    }
}

struct Inner {
    dir: PathBuf,
    store_id: String,
    lasting: Lasting,
    db: sled::Db,
    /// Counts the seals, see [`Store::seal`].
    generation: AtomicU64,
    /// What is known of the link: JSON by name.
    link: sled::Tree,
    checkpoints: sled::Tree,
    sessions: sled::Tree,
    /// Raw records by (logged at, id).
    records: sled::Tree,
    /// Where a filter's records stand in `records`.
    index: Index,
    /// Bytes of `records`, once they have been counted.
    records_bytes: AtomicU64,
    /// Bytes of the records that were put since it was opened.
    bytes_put: AtomicU64,
    /// Runs as JSON by their start.
    runs: sled::Tree,
}

impl Store {
    /// Opens the store of a state directory; both are created where they are missing.
    ///
    /// # Errors
    /// Exit 7 where another process holds it ([`is_locked`]), where it is damaged, of a newer
    /// format, or its disk is full or not writable.
    pub fn open(dir: &Path) -> Result<Store> {
        threads::watched(dir, || {
            open::guarded(dir, || Self::open_here(dir, Lasting::OnDisk))
        })
    }

    /// The same for a trial that throws the store away: nothing waits for the disk.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_for_a_trial(dir: &Path) -> Result<Store> {
        open::guarded(dir, || Self::open_here(dir, Lasting::WhileOpen))
    }

    fn open_here(dir: &Path, lasting: Lasting) -> Result<Store> {
        let opened = open::open(dir, lasting)?;
        let tree = |name: &str| {
            let tree = opened.db.open_tree(name);
            tree.map_err(|cause| open::sled_error(dir, cause))
        };
        let records = tree("records")?;
        let whole = opened.index_generation == Some(opened.generation) || records.is_empty();
        let index = Index::open(&opened.db, whole);
        let inner = Inner {
            dir: dir.to_owned(),
            store_id: opened.store_id,
            lasting,
            generation: AtomicU64::new(opened.generation),
            link: tree("link")?,
            checkpoints: tree("checkpoints")?,
            sessions: tree("sessions")?,
            records,
            index: index.map_err(|cause| open::sled_error(dir, cause))?,
            records_bytes: AtomicU64::new(0),
            bytes_put: AtomicU64::new(0),
            runs: tree("runs")?,
            db: opened.db,
        };
        Ok(Store(Arc::new(inner)))
    }

    /// The same for a reader: nothing is created, and none where there is no store yet.
    pub fn open_existing(dir: &Path) -> Result<Option<Store>> {
        if open::exists(dir) {
            Store::open(dir).map(Some)
        } else {
            Ok(None)
        }
    }

    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Whether so many records were put since it was opened that opening it anew takes long, once.
    pub fn has_much_to_note_down(&self) -> bool {
        self.0.bytes_put.load(Ordering::Relaxed) >= NOTED_DOWN_BYTES_MIN
    }

    /// A random UUID made when the store was created.
    pub fn store_id(&self) -> &str {
        &self.0.store_id
    }

    pub fn identity(&self) -> Result<Option<LinkIdentity>> {
        self.read_json(&self.0.link, IDENTITY)
    }

    /// On disk when it returns.
    pub fn set_identity(&self, identity: &LinkIdentity) -> Result<()> {
        self.write_json(&self.0.link, IDENTITY, identity)?;
        self.flush()
    }

    /// The sessions whose writes on `side` are tandem's own.
    pub fn tag_sessions(&self, side: Side) -> Result<Vec<Uuid>> {
        let mut found = Vec::new();
        for entry in self.0.sessions.scan_prefix(side.as_str()) {
            let (key, _) = entry.map_err(|cause| self.sled_error(cause))?;
            let bytes = key[side.as_str().len()..].try_into();
            found.push(Uuid::from_bytes(
                bytes.map_err(|_| self.damaged("a session id"))?,
            ));
        }
        Ok(found)
    }

    /// On disk when it returns: an id is stored before its first use.
    pub fn add_tag_sessions(&self, side: Side, ids: &[Uuid]) -> Result<()> {
        for id in ids {
            let key = [side.as_str().as_bytes(), &id.bytes()].concat();
            let added = self.0.sessions.insert(key, b"");
            added.map_err(|cause| self.sled_error(cause))?;
        }
        self.flush()
    }

    /// From when on the conflict log holds every record.
    pub fn complete_since(&self) -> Result<Option<DateTime>> {
        let ms: Option<i64> = self.read_json(&self.0.link, COMPLETE_SINCE)?;
        Ok(ms.map(DateTime::from_millis))
    }

    pub fn set_complete_since(&self, time: DateTime) -> Result<()> {
        self.write_json(&self.0.link, COMPLETE_SINCE, &time.timestamp_millis())
    }

    /// Puts the epoch of a run that begins on record and gives that of the last run that this store
    /// knows. On disk when it returns.
    pub fn begin_epoch(&self, epoch: i64) -> Result<Option<i64>> {
        let before = self.read_json(&self.0.link, EPOCH)?;
        self.write_json(&self.0.link, EPOCH, &epoch)?;
        self.flush()?;
        Ok(before)
    }

    pub fn status(&self) -> Result<Option<serde_json::Value>> {
        self.read_json(&self.0.link, STATUS)
    }

    pub fn save_status(&self, status: &serde_json::Value) -> Result<()> {
        self.write_json(&self.0.link, STATUS, status)
    }

    /// Zeros where nothing was saved yet.
    pub fn totals(&self, pipeline: PipelineId) -> Result<Totals> {
        let found = self.read_json(&self.0.link, &totals_name(pipeline))?;
        Ok(found.unwrap_or_default())
    }

    pub fn save_totals(&self, pipeline: PipelineId, totals: &Totals) -> Result<()> {
        self.write_json(&self.0.link, &totals_name(pipeline), totals)
    }

    /// Forgets the link: everything but the store's id. On disk when it returns.
    pub fn clear_link(&self) -> Result<()> {
        let inner = &self.0;
        let failed = |cause| self.sled_error(cause);
        let mut writing = inner.index.writing();
        // What is broken off must not have rows of records that are gone.
        generation::forget_index(&inner.db).map_err(failed)?;
        inner.index.clear(&mut writing).map_err(failed)?;
        self.drop_former_keys().map_err(failed)?;
        for tree in [
            &inner.checkpoints,
            &inner.sessions,
            &inner.records,
            &inner.runs,
            &inner.link,
        ] {
            tree.clear().map_err(failed)?;
        }
        self.index_completed(&mut writing)?;
        self.flush()
    }

    /// Brings everything written so far to the disk, and leaves word of it outside of sled, so that
    /// a later opening notices where some of it is gone.
    pub fn seal(&self) -> Result<()> {
        let inner = &self.0;
        let next = inner.generation.fetch_add(1, Ordering::SeqCst) + 1;
        let put = match inner.index.is_whole() {
            true => generation::put_with_index(&inner.db, next),
            false => generation::put(&inner.db, next),
        };
        put.map_err(|cause| self.sled_error(cause))?;
        self.flush()?;
        match inner.lasting {
            Lasting::OnDisk => {
                waiting_for_disk(|| open::remember_generation(&inner.dir, &inner.store_id, next))
            }
            Lasting::WhileOpen => Ok(()),
        }
    }

    /// Brings everything written so far to the disk. sled does so each 500 ms by itself.
    pub fn flush(&self) -> Result<()> {
        if self.0.lasting == Lasting::WhileOpen {
            return Ok(());
        }
        let flushed = waiting_for_disk(|| self.0.db.flush());
        flushed.map_err(|cause| self.sled_error(cause))?;
        Ok(())
    }

    fn read_json<T: DeserializeOwned>(&self, tree: &sled::Tree, name: &str) -> Result<Option<T>> {
        let found = tree.get(name).map_err(|cause| self.sled_error(cause))?;
        let Some(bytes) = found else {
            return Ok(None);
        };
        let value = serde_json::from_slice(&bytes);
        value
            .map(Some)
            .map_err(|cause| self.damaged(name).caused_by(cause))
    }

    fn write_json<T: Serialize>(&self, tree: &sled::Tree, name: &str, value: &T) -> Result<()> {
        let bytes = serde_json::to_vec(value)
            .map_err(|cause| Error::bug(format!("cannot write {name} as JSON")).caused_by(cause))?;
        let written = tree.insert(name, bytes);
        written.map_err(|cause| self.sled_error(cause))?;
        Ok(())
    }

    fn damaged(&self, what: &str) -> Error {
        open::damaged(&self.0.dir, format!("{what} cannot be read"))
    }

    fn sled_error(&self, cause: sled::Error) -> Error {
        open::sled_error(&self.0.dir, cause)
    }
}

fn totals_name(pipeline: PipelineId) -> String {
    format!("totals {}", pipeline.as_str())
}

#[cfg(test)]
mod let_go;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use let_go::once_let_go;
