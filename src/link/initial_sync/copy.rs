//! Copies one range: reads its keys in order and asks the lanes for the documents.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::progress::{Progress, StoredRange, save_range};
use crate::change::{DocumentKey, Namespace, PipelineId};
use crate::cluster::{Cluster, errors};
use crate::error::{Error, Result};
use crate::link::own::Own;
use crate::pipeline::{Pause, Shared, insist};
use crate::ranges::{self, ReadAt, Scanned};
use crate::resolve::Ticket;

/// Documents asked for at once, and of how many such parts the lanes may be behind.
const PART_DOCUMENTS_MAX: u32 = 2000;
const PARTS_MAX: usize = 3;

/// How often a waiting copy looks whether its oldest part is done.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// How often the progress of a range is put on record.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// Another collection has taken the name, or it is gone.
const COLLECTION_UUID_MISMATCH: i32 = 361;
const NAMESPACE_NOT_FOUND: i32 = 26;

/// What copying a range needs.
#[derive(Clone)]
pub(super) struct Copier {
    pub shared: Arc<Shared>,
    pub source: Cluster,
    /// Where ranges are on record.
    pub own: Own,
    pub pipeline: PipelineId,
    pub progress: Arc<Progress>,
}

/// Documents that the lanes were asked for.
struct Part {
    ticket: Ticket,
    last: bson::RawBson,
    documents: u64,
    bytes: u64,
}

impl Copier {
    /// Copies a range to its end, through outages.
    ///
    /// # Errors
    /// What no retry helps against.
    pub async fn copy_range(&self, scanned: &Scanned, mut range: StoredRange) -> Result<()> {
        let mut scanned = scanned.clone();
        let mut pause = Pause::of_outages();
        while !range.is_done {
            match self.copy(&scanned, &mut range).await {
                Ok(()) => {}
                Err(error) if is_gone(&error) => match insist(|| self.renamed(&scanned)).await? {
                    Some(name) => scanned.namespace = name,
                    None => {
                        tracing::warn!(namespace = %scanned.namespace, "the collection is gone while it was copied");
                        range.is_done = true;
                    }
                },
                Err(error) if error.is_retryable() => {
                    tracing::warn!(namespace = %scanned.namespace, %error, "copying breaks off, going on soon");
                    tokio::time::sleep(pause.wait()).await;
                }
                Err(error) => return Err(error),
            }
        }
        self.save(&range).await
    }

    /// What the collection is called by now; none where it has no other name, and is gone.
    async fn renamed(&self, scanned: &Scanned) -> Result<Option<Namespace>> {
        let source = self.pipeline.source();
        let own = Own::new(&self.source, &self.own.database);
        let now = own.operation_time().await?;
        self.shared.exchange.wait_passed(source, now).await;
        let collections = &self.shared.collections;
        let lasting = collections.of_uuid(source, scanned.uuid);
        let name = lasting.map(|lasting| collections.place(&lasting, source).0);
        Ok(name.filter(|name| *name != scanned.namespace))
    }

    async fn copy(&self, scanned: &Scanned, range: &mut StoredRange) -> Result<()> {
        let doing = format!("copy {}", scanned.namespace);
        let collections = &self.shared.collections;
        let source = self.pipeline.source();
        let lasting = collections.identify(source, scanned.uuid, &scanned.namespace);
        let mut reader = ranges::read(
            &self.source,
            scanned,
            &range.range,
            ReadAt::Majority,
            PART_DOCUMENTS_MAX,
        )
        .await?;
        let mut parts: VecDeque<Part> = VecDeque::new();
        let mut saved = Instant::now();
        while let Some(batch) = reader.next().await? {
            let mut wanted = Vec::new();
            for document in ranges::documents(&batch, &doing)? {
                let document = document?;
                if range.documents > 0 && range.starts_with(document) {
                    continue;
                }
                let key = DocumentKey::of(&lasting, document)
                    .ok_or_else(|| Error::bug("a document without _id"))?;
                wanted.push((key, document.as_bytes().len()));
            }
            parts.extend(self.ask_for(wanted));
            while parts.len() >= PARTS_MAX {
                self.finish_first(&mut parts, range).await;
            }
            if saved.elapsed() >= SAVE_INTERVAL {
                saved = Instant::now();
                self.save(range).await?;
            }
        }
        while !parts.is_empty() {
            self.finish_first(&mut parts, range).await;
        }
        range.is_done = true;
        Ok(())
    }

    fn ask_for(&self, wanted: Vec<(DocumentKey, usize)>) -> Option<Part> {
        let (last, _) = wanted.last()?;
        let last = last.raw().get("_id").ok()??.into();
        let (documents, bytes) = (wanted.len(), wanted.iter().map(|(_, size)| *size).sum());
        let ticket = self.shared.exchange.request_copies(self.pipeline, wanted);
        let bytes: usize = bytes;
        Some(Part {
            ticket,
            last,
            documents: documents as u64,
            bytes: bytes as u64,
        })
    }

    /// Waits for the oldest part; from here on the range goes on behind it.
    async fn finish_first(&self, parts: &mut VecDeque<Part>, range: &mut StoredRange) {
        let Some(part) = parts.pop_front() else {
            return;
        };
        while Arc::strong_count(&part.ticket) > 1 {
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

pub(super) fn is_gone(error: &Error) -> bool {
    matches!(
        errors::code_of(error),
        Some(COLLECTION_UUID_MISMATCH | NAMESPACE_NOT_FOUND)
    )
}
