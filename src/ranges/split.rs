//! Where to cut a collection so that its ranges have about the same size.

use bson::{RawBson, RawDocument, RawDocumentBuf, cstr, doc, rawdoc};

use super::{Order, Range, Scanned};
use crate::cluster::Cluster;
use crate::error::Result;

/// Bytes of documents that a range should hold. A few seconds of copying: little to do again after
/// an interruption, yet a TB is only some 16,000 ranges.
pub const RANGE_BYTES_TARGET: u64 = 64 * 1024 * 1024;

/// Up to so many targets a collection is one range: cutting costs more than it brings.
const UNCUT_TARGETS_MAX: f64 = 1.5;

/// Ranges of one collection at most, since they are all held and kept on record; past that they grow.
const RANGES_MAX: u64 = 50_000;

/// What `collStats` says of a collection; an estimate, which an abrupt stop of the server can put off.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Size {
    pub documents: u64,
    pub bytes: u64,
}

impl Size {
    /// Documents in a range; none where the collection is one range.
    fn step(self, range_bytes: u64) -> Option<u64> {
        let ranges = self.bytes as f64 / range_bytes.max(1) as f64;
        if ranges <= UNCUT_TARGETS_MAX || self.documents < 2 {
            return None;
        }
        let ranges = (ranges.ceil() as u64).min(RANGES_MAX);
        Some(self.documents.div_ceil(ranges).max(1))
    }
}

/// Cuts a collection into ranges of about `range_bytes` bytes ([`RANGE_BYTES_TARGET`]).
///
/// Steps through the index of `_id` without touching documents (2.5 million keys a second were
/// measured; a clustered collection has no such index, and its documents are stepped through).
/// `$sample` would be faster on very large collections, but its ranges were uneven up to three
/// times, and past a twentieth of the documents it reads them all. Whatever is written meanwhile,
/// the ranges cover every `_id` there can be.
///
/// # Errors
/// As the server says; code 361 where the collection is not the one with this UUID any more.
pub async fn split(cluster: &Cluster, scanned: &Scanned, range_bytes: u64) -> Result<Vec<Range>> {
    let size = match scanned.order {
        Order::Natural => Size::default(),
        Order::ById => size_of(cluster, scanned).await?,
    };
    split_of_size(cluster, scanned, size, range_bytes).await
}

/// As [`split`], where somebody has asked for the size already.
///
/// # Errors
/// As [`split`].
pub async fn split_of_size(
    cluster: &Cluster,
    scanned: &Scanned,
    size: Size,
    range_bytes: u64,
) -> Result<Vec<Range>> {
    let step = size.step(range_bytes);
    let Some(step) = step.filter(|_| scanned.order == Order::ById) else {
        return Ok(vec![Range::whole()]);
    };
    let mut boundaries: Vec<RawBson> = Vec::new();
    while (boundaries.len() as u64) < RANGES_MAX {
        let command = step_command(scanned, boundaries.last(), step);
        match first_id(cluster, scanned, command).await? {
            // Nothing is above it, and no range may begin there.
            None | Some(RawBson::MaxKey) => break,
            Some(id) => boundaries.push(id),
        }
    }
    Ok(Range::between(boundaries))
}

async fn size_of(cluster: &Cluster, scanned: &Scanned) -> Result<Size> {
    let doing = format!("tell the size of {} on {}", scanned.namespace, cluster.name);
    let command = doc! { "collStats": scanned.namespace.collection() };
    let reply = cluster
        .command(scanned.namespace.database(), command, &doing)
        .await?;
    let number = |name: &str| match reply.get(name) {
        Some(bson::Bson::Int32(value)) => u64::try_from(*value).unwrap_or(0),
        Some(bson::Bson::Int64(value)) => u64::try_from(*value).unwrap_or(0),
        Some(bson::Bson::Double(value)) => *value as u64,
        _ => 0,
    };
    Ok(Size {
        documents: number("count"),
        bytes: number("size"),
    })
}

fn step_command(scanned: &Scanned, from: Option<&RawBson>, step: u64) -> RawDocumentBuf {
    let mut command = RawDocumentBuf::new();
    command.append(cstr!("find"), scanned.namespace.collection());
    command.append(cstr!("collectionUUID"), bson::Binary::from(scanned.uuid));
    command.append(cstr!("projection"), rawdoc! { "_id": 1 });
    command.append(cstr!("hint"), rawdoc! { "_id": 1 });
    if let Some(from) = from {
        let mut min = RawDocumentBuf::new();
        min.append(cstr!("_id"), from.clone());
        command.append(cstr!("min"), min);
    }
    command.append(cstr!("skip"), i64::try_from(step).unwrap_or(i64::MAX));
    command.append(cstr!("limit"), 1_i64);
    command.append(cstr!("readConcern"), rawdoc! { "level": "majority" });
    command
}

async fn first_id(
    cluster: &Cluster,
    scanned: &Scanned,
    command: RawDocumentBuf,
) -> Result<Option<RawBson>> {
    let namespace = &scanned.namespace;
    let doing = format!("cut {namespace} on {} into ranges", cluster.name);
    let mut first = None;
    let take = |found: &RawDocument| {
        let id = found.get("_id").ok().flatten();
        first = first.take().or(id.map(RawBson::from));
    };
    cluster
        .each(namespace.database(), command, &doing, take)
        .await?;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1024 * 1024;

    fn size(documents: u64, bytes: u64) -> Size {
        Size { documents, bytes }
    }

    #[test]
    fn a_small_collection_is_one_range() {
        assert_eq!(size(0, 0).step(64 * MB), None);
        assert_eq!(size(1, 16 * MB).step(MB), None);
        assert_eq!(size(1_000_000, 90 * MB).step(64 * MB), None);
    }

    #[test]
    fn a_large_collection_is_cut_by_its_documents_average_size() {
        assert_eq!(size(1_000_000, 640 * MB).step(64 * MB), Some(100_000));
        assert_eq!(size(10, 160 * MB).step(MB), Some(1));
    }

    #[test]
    fn the_number_of_ranges_is_bounded() {
        let step = size(1_000_000_000, u64::MAX / 2).step(1).unwrap();
        assert_eq!(step, 1_000_000_000 / RANGES_MAX);
    }
}
