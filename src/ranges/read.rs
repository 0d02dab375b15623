//! Reading one range, in raw batches.

use bson::{RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, cstr, rawdoc};

use super::{Order, Range, Scanned};
use crate::cluster::errors::classify;
use crate::cluster::{Batch, Cluster, Cursor, CursorKind};
use crate::error::Result;

/// Which state of the cluster is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAt {
    /// `readConcern: { level: "majority" }`: each batch may see newer writes than the one before.
    Majority,
    /// `readConcern: { level: "snapshot", atClusterTime }`; not for capped collections.
    Snapshot(Timestamp),
}

/// The batches of one range, in the order of the index.
pub struct RangeReader {
    cluster: Cluster,
    scanned: Scanned,
    at: ReadAt,
    batch_documents_max: u32,
    cursor: Box<dyn Cursor>,
    /// The range ends with the largest `_id` there is, which `min` alone leaves out.
    largest: Largest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Largest {
    ToCome,
    Done,
}

/// Begins to read a range. A batch has up to `batch_documents_max` documents and 16 MB.
///
/// `min` and `max` on the index, instead of a filter: comparisons in a filter see only values of
/// the same type, and never NaN. The collection's own collation applies.
///
/// # Errors
/// As the server says. Code 361 where the collection is not the one with this UUID any more;
/// retryable where a snapshot is too old.
pub async fn read(
    cluster: &Cluster,
    scanned: &Scanned,
    range: &Range,
    at: ReadAt,
    batch_documents_max: u32,
) -> Result<RangeReader> {
    let command = range_command(scanned, range, at, batch_documents_max);
    let largest = match (&range.min, &range.max, scanned.order) {
        (Some(_), None, Order::ById) => Largest::ToCome,
        (None, _, _) | (_, Some(_), _) | (_, _, Order::Natural) => Largest::Done,
    };
    Ok(RangeReader {
        cursor: open(cluster, scanned, command, batch_documents_max).await?,
        cluster: cluster.clone(),
        scanned: scanned.clone(),
        at,
        batch_documents_max,
        largest,
    })
}

impl RangeReader {
    /// The next batch; none after the last. See [`documents`].
    ///
    /// # Errors
    /// As [`read`]. The range has to be read anew from its start, or from the last `_id` seen.
    pub async fn next(&mut self) -> Result<Option<Batch>> {
        loop {
            let doing = doing(&self.cluster, &self.scanned);
            let call = self.cursor.next();
            if let Some(batch) = self.cluster.within(&doing, call).await? {
                if self.largest == Largest::ToCome && ends_with_largest(&batch) {
                    self.largest = Largest::Done;
                }
                return Ok(Some(batch));
            }
            if self.largest == Largest::Done {
                return Ok(None);
            }
            self.largest = Largest::Done;
            let command = largest_command(&self.scanned, self.at);
            let (cluster, scanned) = (&self.cluster, &self.scanned);
            self.cursor = open(cluster, scanned, command, self.batch_documents_max).await?;
        }
    }
}

/// The documents of a batch, without decoding them.
///
/// # Errors
/// Where the server's answer is broken.
pub fn documents<'a>(
    batch: &'a Batch,
    doing: &str,
) -> Result<impl Iterator<Item = Result<&'a RawDocument>>> {
    let doing = doing.to_owned();
    let found = batch
        .doc_slices()
        .map_err(|cause| classify(cause, &doing))?;
    Ok(found.into_iter().filter_map(move |value| match value {
        Ok(value) => value.as_document().map(Ok),
        Err(cause) => Some(Err(classify(cause.into(), &doing))),
    }))
}

fn doing(cluster: &Cluster, scanned: &Scanned) -> String {
    format!("read {} on {}", scanned.namespace, cluster.name)
}

async fn open(
    cluster: &Cluster,
    scanned: &Scanned,
    command: RawDocumentBuf,
    batch_documents_max: u32,
) -> Result<Box<dyn Cursor>> {
    let kind = CursorKind::Ending {
        batch_documents_max: Some(batch_documents_max),
    };
    let doing = doing(cluster, scanned);
    let database = scanned.namespace.database();
    cluster.open(database, command, kind, &doing).await
}

fn range_command(
    scanned: &Scanned,
    range: &Range,
    at: ReadAt,
    batch_documents_max: u32,
) -> RawDocumentBuf {
    let mut command = find(scanned, at);
    scanned.selection.put_into(&mut command, None);
    match scanned.order {
        Order::ById => command.append(cstr!("hint"), rawdoc! { "_id": 1 }),
        Order::Natural => command.append(cstr!("hint"), rawdoc! { "$natural": 1 }),
    }
    for (name, end) in [(cstr!("min"), &range.min), (cstr!("max"), &range.max)] {
        if let Some(end) = end {
            let mut bound = RawDocumentBuf::new();
            bound.append(cstr!("_id"), end.clone());
            command.append(name, bound);
        }
    }
    command.append(cstr!("batchSize"), i64::from(batch_documents_max));
    command
}

fn largest_command(scanned: &Scanned, at: ReadAt) -> RawDocumentBuf {
    let mut command = find(scanned, at);
    let equal = rawdoc! { "_id": { "$eq": bson::RawBson::MaxKey } };
    scanned.selection.put_into(&mut command, Some(equal));
    command
}

fn find(scanned: &Scanned, at: ReadAt) -> RawDocumentBuf {
    let mut command = RawDocumentBuf::new();
    command.append(cstr!("find"), scanned.namespace.collection());
    command.append(cstr!("collectionUUID"), bson::Binary::from(scanned.uuid));
    let concern = match at {
        ReadAt::Majority => rawdoc! { "level": "majority" },
        ReadAt::Snapshot(time) => rawdoc! { "level": "snapshot", "atClusterTime": time },
    };
    command.append(cstr!("readConcern"), concern);
    command
}

/// A clustered collection does not leave the largest `_id` out.
fn ends_with_largest(batch: &Batch) -> bool {
    let Ok(found) = batch.doc_slices() else {
        return false;
    };
    let last = found.into_iter().flatten().last();
    let id = last.and_then(|last| last.as_document()?.get("_id").ok()?);
    matches!(id, Some(RawBsonRef::MaxKey))
}
