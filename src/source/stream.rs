//! One cursor over a cluster's change stream, and what it proves to be complete.

use std::time::Duration;

use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, Timestamp, Uuid, cstr, rawdoc};

use super::reader::{Origin, StreamFilter};
use crate::change::{Position, fixed_database};
use crate::cluster::{Batch, Cluster, Cursor, CursorKind, Failure};
use crate::error::{Error, Result};
use crate::fault::Fault;

/// How long the server holds a getMore without events. Its post-batch token then tells how far the
/// cursor has come, so this bounds how stale an idle cluster's complete time gets.
const AWAIT_TIME_MAX: Duration = Duration::from_millis(500);

/// Events in a batch. More would make fewer round trips, but what is read at once is held beside
/// what waits in the queues: at 16 MB, small events would take some 100 MB until they are decoded.
pub const BATCH_EVENTS_MAX: u32 = 1000;

/// An open change stream of a whole cluster.
pub struct Stream {
    cursor: Box<dyn Cursor>,
    cluster: Cluster,
    batches: u64,
}

impl Stream {
    /// Opens at the time of `from`. The caller drops what is not past it: a resume token must not
    /// be used once the filter has changed (280).
    ///
    /// The first answer comes within `time_max`, without events: where they are too large together
    /// with the rest of it, a server says so in answers to getMore alone, and else hangs up.
    ///
    /// # Errors
    /// A lost resume point (286) is a history error.
    pub async fn open(
        cluster: &Cluster,
        from: Timestamp,
        filter: &StreamFilter,
        batch_events_max: u32,
        time_max: Duration,
    ) -> Result<Self> {
        let stage = rawdoc! { "$changeStream": {
            "allChangesForCluster": true,
            "showExpandedEvents": true,
            "showRawUpdateDescription": true,
            "startAtOperationTime": from,
        } };
        let mut pipeline = RawArrayBuf::new();
        pipeline.push(stage);
        pipeline.push(filter.stage());
        let mut command = RawDocumentBuf::new();
        command.append(cstr!("aggregate"), 1);
        command.append(cstr!("pipeline"), pipeline);
        command.append(cstr!("cursor"), rawdoc! { "batchSize": 0 });
        command.append(cstr!("readConcern"), rawdoc! { "level": "majority" });
        let doing = format!("open the change stream of {}", cluster.name);
        let kind = CursorKind::Awaiting {
            await_time_max: AWAIT_TIME_MAX,
            batch_documents_max: batch_events_max,
        };
        let patient = cluster.waiting(time_max);
        let cursor = patient.open("admin", command, kind, &doing).await?;
        Ok(Self {
            cursor,
            cluster: cluster.clone(),
            batches: 0,
        })
    }

    /// The next batch, which may be empty, within `time_max`.
    ///
    /// # Errors
    /// As the server says; the stream has to be opened again.
    pub async fn next(&mut self, time_max: Duration) -> Result<Batch> {
        let doing = format!("read the change stream of {}", self.cluster.name);
        let patient = self.cluster.waiting(time_max);
        let batch = patient.within(&doing, self.cursor.next()).await?;
        self.batches += 1;
        batch.ok_or_else(|| Error::unreachable(format!("cannot {doing}: the cursor was closed")))
    }

    /// Whether a post-batch token of the last batch proves anything: on a fresh cursor the first
    /// one may precede the events at the start time.
    pub fn token_is_proof(&self) -> bool {
        self.batches > 1
    }
}

/// The post-batch resume token of a batch.
pub fn post_batch_token(batch: &Batch) -> Option<&str> {
    batch
        .as_raw_document()
        .get_document("cursor")
        .ok()?
        .get_document("postBatchResumeToken")
        .ok()?
        .get_str("_data")
        .ok()
}

/// The cluster time in a resume token: hex digits 2–10 are the seconds, 10–18 the increment.
pub fn token_time(token: &str) -> Option<Timestamp> {
    let part = |range: std::ops::Range<usize>| u32::from_str_radix(token.get(range)?, 16).ok();
    Some(Timestamp {
        time: part(2..10)?,
        increment: part(10..18)?,
    })
}

/// Everything before the time of a post-batch token is known; at that time itself more events of
/// one transaction may follow.
pub fn proven_by(token: &str) -> Option<Position> {
    Position::before(token_time(token)?, token)
}

impl StreamFilter {
    /// Drops writes of another origin, databases that no pattern can name and what the filters leave
    /// out, on the server. Markers always pass.
    fn stage(&self) -> RawDocumentBuf {
        let own = self.namespaces.own_database();
        let markers = rawdoc! { "ns.db": own, "ns.coll": "markers" };
        let mut wanted = match self.databases() {
            Some(names) => rawdoc! { "ns.db": { "$in": names } },
            None => rawdoc! { "ns.db": { "$nin": ["admin", "config", "local", own] } },
        };
        if !self.left_out.is_nothing() {
            wanted.append(cstr!("$and"), self.left_out.conditions());
        }
        let filter = match &self.origin {
            // The origin stands alone beside everything else: only so does the server drop a
            // transaction as a whole, before it makes events of its operations.
            Origin::Applications { hidden } => {
                let hidden = match Fault::NoOrigin.is_on() {
                    true => &[],
                    false => hidden.as_slice(),
                };
                let mut filter = rawdoc! { "lsid.id": { "$nin": ids(hidden) } };
                filter.append(cstr!("$or"), either(markers, wanted));
                filter
            }
            Origin::Tandem { sessions } => {
                wanted.append(cstr!("lsid.id"), rawdoc! { "$in": ids(sessions) });
                rawdoc! { "$or": either(markers, wanted) }
            }
        };
        rawdoc! { "$match": filter }
    }

    /// The databases that the include patterns name on this side, where none leaves that part open.
    fn databases(&self) -> Option<RawArrayBuf> {
        let mut names = RawArrayBuf::new();
        for pattern in self.namespaces.patterns(self.side) {
            names.push(fixed_database(pattern)?.as_str());
        }
        Some(names)
    }
}

fn ids(sessions: &[Uuid]) -> RawArrayBuf {
    let mut ids = RawArrayBuf::new();
    for id in sessions {
        ids.push(bson::Binary::from(*id));
    }
    ids
}

fn either(one: RawDocumentBuf, other: RawDocumentBuf) -> RawArrayBuf {
    let mut either = RawArrayBuf::new();
    either.push(one);
    either.push(other);
    either
}

/// An event's body, for the reader.
pub fn documents(batch: &Batch) -> Result<Vec<&RawDocument>> {
    let broken = |error: Failure| Error::bug("a batch that cannot be read").caused_by(error);
    let mut documents = Vec::new();
    for document in batch.doc_slices().map_err(broken)? {
        match document.map(|document| document.as_document()) {
            Ok(Some(document)) => documents.push(document),
            _ => return Err(Error::bug("a batch with something that is no event")),
        }
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_its_cluster_time() {
        let token = "826B0316ED0000000A2B022C01002B026E5A";
        let time = token_time(token).unwrap();
        assert_eq!((time.time, time.increment), (0x6B03_16ED, 10));
        assert_eq!(token_time("82"), None);
    }

    #[test]
    fn a_post_batch_token_proves_only_what_is_before_its_time() {
        let proven = proven_by("826B0316ED0000000A2B").unwrap();
        assert_eq!((proven.time.increment, proven.whole), (9, true));
        let first = proven_by("826B0316ED000000002B").unwrap();
        assert_eq!(
            (first.time.time, first.time.increment),
            (0x6B03_16EC, u32::MAX)
        );
    }
}
