//! Compares a range of both sides, and asks the lanes to settle what differs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::job::Job;
use crate::change::{DocumentKey, Namespace, Pair, PipelineId, Side};
use crate::cluster::{Batch, Cluster};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::link::initial_sync::Progress;
use crate::link::moved::{has_moved, name_now, pass_present};
use crate::pipeline::{Pause, Shared, insist};
use crate::ranges::{self, Range, RangeReader, ReadAt, Scanned};
use crate::resolve::{SettleRequest, Settlement};
use crate::verify::{Join, PENDING_KEYS_MAX, Suspect, digest};

/// Documents of a batch of one side.
const BATCH_DOCUMENTS_MAX: u32 = 1000;

/// Documents asked for at once, and of how many such parts the lanes may be behind.
const PART_DOCUMENTS_MAX: usize = 2000;
const PARTS_MAX: usize = 3;

/// How often it looks whether the lanes have come further.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// A namespace with its collection on each side; none on the target alone in one-way mode.
#[derive(Debug, Clone)]
pub(super) struct Both {
    pub lasting: Namespace,
    pub sides: Pair<Option<Scanned>>,
}

impl Both {
    /// The same under the names that it has by now; none where one of the two is gone.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn found_again(&self, clusters: &Pair<Cluster>) -> Result<Option<Self>> {
        let mut found = self.clone();
        for side in Side::BOTH {
            if let Some(scanned) = &mut found.sides[side] {
                let Some(name) = name_now(&clusters[side], scanned).await? else {
                    return Ok(None);
                };
                scanned.namespace = name;
            }
        }
        Ok(Some(found))
    }
}

/// What comparing a range needs.
#[derive(Clone)]
pub(super) struct Scan {
    pub shared: Arc<Shared>,
    pub clusters: Pair<Cluster>,
    pub job: Job,
    pub progress: Arc<Progress>,
}

impl Scan {
    /// Goes through a range until everything in it is settled, through outages.
    ///
    /// # Errors
    /// What no retry helps against.
    pub async fn settle_range(&self, both: &Both, range: &Range) -> Result<()> {
        let mut both = both.clone();
        let mut pause = Pause::of_outages();
        loop {
            match self.settle_once(&both, range).await {
                Ok(()) => return Ok(()),
                Err(error) if has_moved(&error) => {
                    let Some(found) = insist(|| both.found_again(&self.clusters)).await? else {
                        tracing::warn!(namespace = %both.lasting, "the collection is gone while it was merged");
                        return Ok(());
                    };
                    both = found;
                    tokio::time::sleep(pause.wait()).await;
                }
                Err(error) if error.is_retryable() => {
                    tracing::warn!(namespace = %both.lasting, %error, "merging breaks off, going on soon");
                    tokio::time::sleep(pause.wait()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn settle_once(&self, both: &Both, range: &Range) -> Result<()> {
        let mut join = Join::new(PENDING_KEYS_MAX);
        let mut readers = Pair::new(
            self.open(both, range, Side::A).await?,
            self.open(both, range, Side::B).await?,
        );
        let mut asked: VecDeque<Arc<Settlement>> = VecDeque::new();
        let mut differing: Vec<Suspect> = Vec::new();
        loop {
            let wanted = join.wanted();
            if wanted == Pair::new(false, false) {
                break;
            }
            let (a, b) = tokio::try_join!(
                next(&mut readers.a, wanted.a),
                next(&mut readers.b, wanted.b)
            )?;
            for (side, batch) in [(Side::A, a), (Side::B, b)] {
                match batch {
                    Some(batch) => self.push(&mut join, side, both, &batch)?,
                    None if wanted[side] => join.end(side),
                    None => {}
                }
            }
            differing.extend(join.take_suspects());
            while differing.len() >= PART_DOCUMENTS_MAX {
                let rest = differing.split_off(PART_DOCUMENTS_MAX);
                let some = std::mem::replace(&mut differing, rest);
                asked.push_back(self.ask(some).await?);
                while asked.len() >= PARTS_MAX {
                    wait_for(asked.pop_front()).await;
                }
            }
        }
        asked.push_back(self.ask(differing).await?);
        while !asked.is_empty() {
            wait_for(asked.pop_front()).await;
        }
        Ok(())
    }

    async fn open(&self, both: &Both, range: &Range, side: Side) -> Result<Option<RangeReader>> {
        let Some(scanned) = &both.sides[side] else {
            return Ok(None);
        };
        let cluster = &self.clusters[side];
        let opened = ranges::read(
            cluster,
            scanned,
            range,
            ReadAt::Majority,
            BATCH_DOCUMENTS_MAX,
        );
        opened.await.map(Some)
    }

    fn push(&self, join: &mut Join, side: Side, both: &Both, batch: &Batch) -> Result<()> {
        let (mut documents, mut bytes) = (0, 0);
        for document in ranges::documents(batch, &format!("merge {}", both.lasting))? {
            let document = document?;
            let key = DocumentKey::of(&both.lasting, document)
                .ok_or_else(|| Error::bug("a document without _id"))?;
            let size = document.as_bytes().len();
            join.push(side, key, digest(document), size);
            documents += 1;
            bytes += size as u64;
        }
        let mut numbers = self.progress.numbers();
        numbers.documents_done += documents;
        numbers.bytes_done += bytes;
        Ok(())
    }

    /// Begins with the side that a document was seen on; else with the one that wins a tie.
    async fn ask(&self, differing: Vec<Suspect>) -> Result<Arc<Settlement>> {
        pass_present(&self.shared, &self.clusters).await?;
        let settlement = Arc::new(Settlement::new(self.job.from, self.progress.tally()));
        let side = self.shared.document_rules.tie;
        let wanted = differing.into_iter().map(|suspect| {
            let first = self.job.from.or(suspect.only_on).unwrap_or(side);
            let request = SettleRequest::new(suspect.key, suspect.bytes, settlement.clone());
            (PipelineId::from_source(first), request)
        });
        let wanted = wanted.collect();
        self.shared.exchange.request_settlements(wanted);
        Ok(settlement)
    }
}

/// Returns once the lanes have done with all documents of a settlement.
pub(super) async fn wait_for(settlement: Option<Arc<Settlement>>) {
    let is_open = |s: &Arc<Settlement>| Arc::strong_count(s) > 1 && !Fault::EarlyRange.is_on();
    while settlement.as_ref().is_some_and(is_open) {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn next(reader: &mut Option<RangeReader>, wanted: bool) -> Result<Option<Batch>> {
    match reader {
        Some(reader) if wanted => reader.next().await,
        Some(_) | None => Ok(None),
    }
}
