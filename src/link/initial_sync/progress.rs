//! How far the initial sync has come: in numbers for people, and in ranges on the target.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bson::{Bson, Document, RawBson, RawDocument, RawDocumentBuf, Uuid, doc};
use serde::Serialize;

use crate::change::Namespace;
use crate::error::{Error, Result};
use crate::link::own::Own;
use crate::ranges::Range;
use crate::resolve::Tally;

/// In one command.
const STATEMENTS_MAX: usize = 1000;

/// What an initial sync is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    Waiting,
    Copying,
    /// Both sides are compared, and what differs is settled.
    Merging,
    /// Everything is copied; what was written meanwhile is applied.
    CatchingUp,
    BuildingIndexes,
    Done,
}

/// An index or a namespace that could not be made the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NotDone {
    pub namespace: String,
    /// None where it is the whole namespace.
    pub index: Option<String>,
    pub reason: String,
}

/// `initial_sync` of the status.
#[derive(Debug, Clone, Serialize)]
pub struct Numbers {
    pub mode: &'static str,
    pub state: SyncState,
    pub namespaces_total: u64,
    pub namespaces_done: u64,
    pub documents_total: u64,
    pub documents_done: u64,
    pub bytes_total: u64,
    pub bytes_done: u64,
    pub indexes_total: u64,
    pub indexes_done: u64,
    pub documents_per_second: u64,
    /// Null until there is something to reckon with.
    pub seconds_left: Option<u64>,
    pub not_done: Vec<NotDone>,
    /// What a merge has done so far.
    pub tally: Tally,
}

/// Shared between the initial sync and whoever tells of it.
#[derive(Debug)]
pub struct Progress {
    numbers: Mutex<Numbers>,
    tally: Arc<Mutex<Tally>>,
    /// Since when, and what had been done by then.
    started: Mutex<(Instant, u64, u64)>,
}

impl Progress {
    pub fn new(mode: &'static str) -> Self {
        Self {
            numbers: Mutex::new(Numbers {
                mode,
                state: SyncState::Waiting,
                namespaces_total: 0,
                namespaces_done: 0,
                documents_total: 0,
                documents_done: 0,
                bytes_total: 0,
                bytes_done: 0,
                indexes_total: 0,
                indexes_done: 0,
                documents_per_second: 0,
                seconds_left: None,
                not_done: Vec::new(),
                tally: Tally::default(),
            }),
            tally: Arc::default(),
            started: Mutex::new((Instant::now(), 0, 0)),
        }
    }

    pub fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What requests to settle documents count in.
    pub fn tally(&self) -> Arc<Mutex<Tally>> {
        self.tally.clone()
    }

    /// From here on the rate is measured.
    pub fn start(&self) {
        let numbers = self.numbers();
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        *started = (Instant::now(), numbers.documents_done, numbers.bytes_done);
    }

    /// What an earlier process has copied says nothing of how fast this one is.
    pub fn add_earlier(&self, ranges: &[StoredRange]) {
        let documents: u64 = ranges.iter().map(|range| range.documents).sum();
        let bytes: u64 = ranges.iter().map(|range| range.bytes).sum();
        let mut numbers = self.numbers();
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.documents_done += documents;
        numbers.bytes_done += bytes;
        started.1 += documents;
        started.2 += bytes;
    }

    /// The numbers of this moment, with rate and time left.
    pub fn now(&self) -> Numbers {
        let mut numbers = self.numbers().clone();
        numbers.tally = *self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, documents, bytes) =
            *self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = since.elapsed().as_secs_f64();
        let is_reading = matches!(numbers.state, SyncState::Copying | SyncState::Merging);
        if is_reading && seconds > 0.0 {
            let rate = |done: u64, before: u64| done.saturating_sub(before) as f64 / seconds;
            numbers.documents_per_second = rate(numbers.documents_done, documents) as u64;
            let of_bytes = rate(numbers.bytes_done, bytes);
            let left = numbers.bytes_total.saturating_sub(numbers.bytes_done);
            numbers.seconds_left = (of_bytes >= 1.0).then(|| (left as f64 / of_bytes) as u64);
        }
        if numbers.state == SyncState::BuildingIndexes && numbers.indexes_done > 0 {
            let left = numbers.indexes_total.saturating_sub(numbers.indexes_done);
            let each = seconds / numbers.indexes_done as f64;
            numbers.seconds_left = Some((each * left as f64) as u64);
        }
        numbers
    }

    pub fn enter(&self, state: SyncState) {
        self.numbers().state = state;
        if state == SyncState::BuildingIndexes {
            self.start();
        }
    }

    pub fn is_done(&self) -> bool {
        self.numbers().state == SyncState::Done
    }
}

/// A range of a collection, as `ranges` on the target remembers it.
#[derive(Debug, Clone)]
pub struct StoredRange {
    pub id: String,
    pub range: Range,
    /// Everything before this `_id` is copied, and perhaps it as well.
    pub is_done: bool,
    pub documents: u64,
    pub bytes: u64,
}

impl StoredRange {
    /// Whether a document is the first one that the range can hold.
    pub fn starts_with(&self, document: &RawDocument) -> bool {
        let id = document.get("_id").ok().flatten().map(RawBson::from);
        id.is_some() && id == self.range.min
    }
}

/// The ranges of a namespace, where an earlier process has split it. One that did not come to the end
/// of that leaves nothing behind.
///
/// # Errors
/// As the cluster says.
pub async fn stored_ranges(
    own: &Own,
    link: &str,
    namespace: &Namespace,
) -> Result<Vec<StoredRange>> {
    let filter = doc! { "link": link, "namespace": namespace.as_str() };
    let mut found = stored_by_namespace(own, link, filter).await?;
    Ok(found.remove(namespace).unwrap_or_default())
}

/// As [`stored_ranges`], of every namespace that has some.
///
/// # Errors
/// As the cluster says.
pub async fn stored_ranges_of_all(
    own: &Own,
    link: &str,
) -> Result<HashMap<Namespace, Vec<StoredRange>>> {
    stored_by_namespace(own, link, doc! { "link": link }).await
}

async fn stored_by_namespace(
    own: &Own,
    link: &str,
    filter: Document,
) -> Result<HashMap<Namespace, Vec<StoredRange>>> {
    let mut by_namespace: BTreeMap<Namespace, Vec<Document>> = BTreeMap::new();
    for found in own.find("ranges", filter).await? {
        let namespace = found.get_str("namespace").ok().and_then(Namespace::parse);
        let namespace = namespace.ok_or_else(unreadable)?;
        by_namespace.entry(namespace).or_default().push(found);
    }
    let mut stored = HashMap::with_capacity(by_namespace.len());
    for (namespace, found) in by_namespace {
        let whole = found
            .iter()
            .all(|range| range.get_i64("of").is_ok_and(|of| of == found.len() as i64));
        if whole {
            let ranges: Result<_> = found.iter().map(stored_range).collect();
            stored.insert(namespace, ranges?);
        } else {
            forget_ranges(own, doc! { "link": link, "namespace": namespace.as_str() }).await?;
        }
    }
    Ok(stored)
}

fn unreadable() -> Error {
    Error::history("a range of the initial sync on record cannot be read")
}

fn stored_range(found: &Document) -> Result<StoredRange> {
    let raw = |value: &Document| RawDocumentBuf::try_from(value).map_err(|_| unreadable());
    let range = found.get_document("range").map_err(|_| unreadable())?;
    let mut range = Range::from_document(&raw(range)?)?;
    if let Ok(next) = found.get_document("next") {
        range.min = Range::from_document(&raw(next)?)?.min;
    }
    let number = |name: &str| found.get_i64(name).unwrap_or(0).max(0) as u64;
    Ok(StoredRange {
        id: found.get_str("_id").map_err(|_| unreadable())?.to_owned(),
        range,
        is_done: found.get_bool("done").unwrap_or(false),
        documents: number("documents"),
        bytes: number("bytes"),
    })
}

/// Puts the ranges of a namespace on record before its first document is copied. Their ids are new, so
/// that nobody takes what a former process says of its own ranges for these.
///
/// # Errors
/// As the cluster says.
pub async fn store_ranges(
    own: &Own,
    link: &str,
    namespace: &Namespace,
    ranges: Vec<Range>,
) -> Result<Vec<StoredRange>> {
    let ranges = new_ranges(link, namespace, ranges);
    store_new_ranges(own, link, &[(namespace, &ranges)]).await?;
    Ok(ranges)
}

/// Ranges of a namespace that are not on record yet, under ids of their own.
pub fn new_ranges(link: &str, namespace: &Namespace, ranges: Vec<Range>) -> Vec<StoredRange> {
    let made = Uuid::new();
    let ranges = ranges.into_iter().enumerate();
    let new = ranges.map(|(number, range)| StoredRange {
        id: format!("{link}/{namespace}/{made}/{number}"),
        range,
        is_done: false,
        documents: 0,
        bytes: 0,
    });
    new.collect()
}

/// Puts all [`new_ranges`] of some namespaces on record. May be done again.
///
/// # Errors
/// As the cluster says.
pub async fn store_new_ranges(
    own: &Own,
    link: &str,
    new: &[(&Namespace, &[StoredRange])],
) -> Result<()> {
    let mut statements = Vec::new();
    for (namespace, ranges) in new {
        for range in *ranges {
            statements.push(statement_of_new(link, namespace, range, ranges.len())?);
        }
    }
    for some in statements.chunks(STATEMENTS_MAX) {
        own.update("ranges", some.to_vec()).await?;
    }
    Ok(())
}

fn statement_of_new(
    link: &str,
    namespace: &Namespace,
    range: &StoredRange,
    of: usize,
) -> Result<Document> {
    Ok(doc! {
        "q": { "_id": &range.id },
        "u": { "$set": {
            "link": link,
            "namespace": namespace.as_str(),
            "range": as_document(&range.range)?,
            "of": of as i64,
            "done": false,
            "documents": 0_i64,
            "bytes": 0_i64,
        } },
        "upsert": true,
    })
}

/// What is on record of the matching ranges is over.
///
/// # Errors
/// As the cluster says.
pub async fn forget_ranges(own: &Own, which: Document) -> Result<()> {
    let statement = doc! { "q": which, "limit": 0 };
    own.delete("ranges", vec![statement]).await.map(|_| ())
}

/// Everything of the range before `range.min` is on the target.
///
/// # Errors
/// As the cluster says.
pub async fn save_range(own: &Own, range: &StoredRange) -> Result<()> {
    save_ranges(own, std::iter::once(range)).await
}

/// As [`save_range`], of some.
///
/// # Errors
/// As the cluster says.
pub async fn save_ranges(
    own: &Own,
    ranges: impl Iterator<Item = &StoredRange> + Send,
) -> Result<()> {
    let statements = ranges.map(statement_of_progress).collect::<Result<_>>()?;
    own.update("ranges", statements).await.map(|_| ())
}

fn statement_of_progress(range: &StoredRange) -> Result<Document> {
    let next = Range {
        min: range.range.min.clone(),
        max: None,
    };
    let set = doc! {
        "next": as_document(&next)?,
        "done": range.is_done,
        "documents": Bson::Int64(range.documents as i64),
        "bytes": Bson::Int64(range.bytes as i64),
    };
    Ok(doc! { "q": { "_id": &range.id }, "u": { "$set": set } })
}

fn as_document(range: &Range) -> Result<Document> {
    Document::try_from(range.to_document())
        .map_err(|error| Error::bug("a range that cannot be written").caused_by(error))
}
