//! Copies one range: reads its documents in order and asks the lanes to send them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bson::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::cut::Open;
use super::progress::{Progress, StoredRange, save_range};
use crate::change::{DocumentKey, HeldDocument, Namespace, PipelineId, Whole};
use crate::cluster::{Batch, Cluster};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::link::moved::{has_moved, name_now};
use crate::link::own::Own;
use crate::pipeline::{Pause, Shared, insist};
use crate::ranges::{self, ReadAt, Scanned};
use crate::resolve::{Copied, Ticket};

/// Documents asked for at once, and of how many such parts the lanes may be behind.
const PART_DOCUMENTS_MAX: u32 = 2000;
const PARTS_MAX: usize = 6;

/// Bytes of documents that all ranges keep in memory until their lanes have sent them. Where there is
/// no room for a batch more, it is read later. One that is larger than the one before it may go past
/// that.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What the first batch of a range may have: the server's limit.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a range is read at one moment of the source's history: servers keep the last 300 s
/// (`minSnapshotHistoryWindowInSeconds`), and what was written to since is read again.
const MOMENT_TIME_MAX: Duration = Duration::from_secs(30);

/// How often a waiting copy looks whether its oldest part is done.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// How often the progress of a range is put on record.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// What copying a range needs.
#[derive(Clone)]
pub(super) struct Copier {
    pub shared: Arc<Shared>,
    pub source: Cluster,
    /// Where ranges are on record.
    pub own: Own,
    pub pipeline: PipelineId,
    pub progress: Arc<Progress>,
    /// Has a permit for each range that may be read at the same time.
    pub reading: Arc<Semaphore>,
    pub kept: Kept,
}

/// How many bytes of documents are kept in memory.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<AtomicUsize>);

/// Some of them, until it is dropped.
struct KeptBytes {
    of: Kept,
    bytes: usize,
}

impl Kept {
    /// Room for so many bytes, if there is.
    fn room(&self, bytes: usize) -> Option<KeptBytes> {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let room = KeptBytes {
            of: self.clone(),
            bytes,
        };
        (before == 0 || before + bytes <= KEPT_BYTES_MAX).then_some(room)
    }
}

impl KeptBytes {
    /// So many it has become.
    fn hold(&mut self, bytes: usize) {
        self.of.0.fetch_add(bytes, Ordering::Relaxed);
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for KeptBytes {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Documents that the lanes were asked for.
struct Part {
    ticket: Ticket,
    last: bson::RawBson,
    documents: u64,
    bytes: u64,
    _kept: KeptBytes,
}

impl Copier {
    /// Copies a range to its end, through outages. That it has come to it is not on record yet.
    ///
    /// # Errors
    /// What no retry helps against.
    pub async fn copy_range(&self, mut open: Open) -> Result<Open> {
        let (scanned, range) = (&mut open.scanned, &mut open.range);
        let mut pause = Pause::of_outages();
        while !range.is_done {
            match self.copy(scanned, range).await {
                Ok(()) => {}
                Err(error) if has_moved(&error) => {
                    match insist(|| name_now(&self.source, scanned)).await? {
                        Some(name) => {
                            scanned.namespace = name;
                            tokio::time::sleep(pause.wait()).await;
                        }
                        None => {
                            tracing::warn!(namespace = %scanned.namespace, "the collection is gone while it was copied");
                            range.is_done = true;
                        }
                    }
                }
                Err(error) if error.is_retryable() => {
                    tracing::warn!(namespace = %scanned.namespace, %error, "copying breaks off, going on soon");
                    tokio::time::sleep(pause.wait()).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(open)
    }

    /// Copies what is left of a range, or a part of that which takes about as long as the server
    /// keeps a moment for certain.
    async fn copy(&self, scanned: &Scanned, range: &mut StoredRange) -> Result<()> {
        let source = self.pipeline.source();
        let collections = &self.shared.collections;
        let lasting = collections.identify(source, scanned.uuid, &scanned.namespace);
        let reading = self.reading.acquire().await;
        let at = self.shared.exchange.ledger().begin_copying(source);
        let mut reader = ranges::read(
            &self.source,
            scanned,
            &range.range,
            ReadAt::Snapshot(at),
            PART_DOCUMENTS_MAX,
        )
        .await?;
        let mut parts: VecDeque<Part> = VecDeque::new();
        let began = Instant::now();
        let mut saved = began;
        let mut is_at_end = false;
        let mut batch_bytes = BATCH_BYTES_MAX;
        while began.elapsed() < MOMENT_TIME_MAX {
            let mut kept = self.make_room(batch_bytes, &mut parts, range).await;
            let Some(batch) = reader.next().await? else {
                is_at_end = true;
                break;
            };
            let wanted = found(&lasting, range, batch, at)?;
            batch_bytes = wanted.iter().map(|copied| copied.bytes).sum();
            kept.hold(batch_bytes);
            parts.extend(self.ask_for(wanted, kept));
            while parts.len() >= PARTS_MAX {
                self.finish_first(&mut parts, range).await;
            }
            if saved.elapsed() >= SAVE_INTERVAL {
                saved = Instant::now();
                self.save(range).await?;
            }
        }
        drop((reader, reading));
        while !parts.is_empty() {
            self.finish_first(&mut parts, range).await;
        }
        range.is_done = is_at_end;
        Ok(())
    }

    /// Returns once so many bytes more can be kept. Whoever keeps some gives them back when his lanes
    /// have sent them, whatever others wait for.
    async fn make_room(
        &self,
        bytes: usize,
        parts: &mut VecDeque<Part>,
        range: &mut StoredRange,
    ) -> KeptBytes {
        loop {
            if let Some(room) = self.kept.room(bytes) {
                return room;
            }
            match parts.is_empty() {
                false => self.finish_first(parts, range).await,
                true => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    fn ask_for(&self, wanted: Vec<Copied>, kept: KeptBytes) -> Option<Part> {
        let last = wanted.last()?;
        let part = Part {
            ticket: last.ticket.clone(),
            last: last.key.raw().get("_id").ok()??.into(),
            documents: wanted.len() as u64,
            bytes: wanted.iter().map(|copied| copied.bytes as u64).sum(),
            _kept: kept,
        };
        self.shared.exchange.request_copies(self.pipeline, wanted);
        Some(part)
    }

    /// Waits for the oldest part; from here on the range goes on behind it.
    async fn finish_first(&self, parts: &mut VecDeque<Part>, range: &mut StoredRange) {
        let Some(part) = parts.pop_front() else {
            return;
        };
        while Arc::strong_count(&part.ticket) > 1 && !Fault::EarlyRange.is_on() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        range.range.min = Some(part.last);
        range.documents += part.documents;
        range.bytes += part.bytes;
        let mut numbers = self.progress.numbers();
        numbers.documents_done += part.documents;
        numbers.bytes_done += part.bytes;
    }

    async fn save(&self, range: &StoredRange) -> Result<()> {
        let mut pause = Pause::of_outages();
        loop {
            match save_range(&self.own, range).await {
                Err(error) if error.is_retryable() => tokio::time::sleep(pause.wait()).await,
                other => return other,
            }
        }
    }
}

/// The documents of a batch, but for the one that an earlier reading has ended with.
fn found(
    lasting: &Namespace,
    range: &StoredRange,
    batch: Batch,
    at: Timestamp,
) -> Result<Vec<Copied>> {
    let ticket = Ticket::default();
    // As it came: a copy of each would cost as much as all else that is done with it here.
    let batch = Arc::new(batch);
    let whole: Arc<Whole> = batch.clone();
    let mut found = Vec::new();
    for document in ranges::documents(&batch, &format!("copy {lasting}"))? {
        let document = document?;
        let may_be_it = found.is_empty() && range.documents > 0;
        if may_be_it && range.starts_with(document) {
            continue;
        }
        found.push(Copied {
            key: DocumentKey::of(lasting, document)
                .ok_or_else(|| Error::bug("a document without _id"))?,
            bytes: document.as_bytes().len(),
            document: HeldDocument::within(&whole, document),
            at,
            ticket: ticket.clone(),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_what_fits_and_for_anything_where_nothing_is_kept() {
        let kept = Kept::default();
        let mut large = kept.room(KEPT_BYTES_MAX + 1).expect("nothing is kept");
        assert!(kept.room(1).is_none());
        large.hold(KEPT_BYTES_MAX - 10);
        let small = kept.room(10).expect("as much as is left");
        assert!(kept.room(1).is_none());
        drop(large);
        assert!(kept.room(KEPT_BYTES_MAX - 10).is_some());
        drop(small);
        assert_eq!(kept.0.load(Ordering::Relaxed), 0);
    }
}
