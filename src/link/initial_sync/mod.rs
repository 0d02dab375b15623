//! The initial sync: what was there before the start is copied while writes go on.
//!
//! Streaming runs from the first moment. A copy is nothing but the request that a lane send a
//! document's full state: it is decided under the same ledger, applied under the same fence and put
//! on record like everything else, so it may meet writes of any kind, on either side, at any time.

mod copy;
mod cut;
pub(super) mod indexes;
mod missing;
mod once;
mod plan;
pub(super) mod progress;
pub(super) mod survey;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bson::doc;
use futures_util::future::{try_join, try_join_all};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};

use super::lease::Lease;
use super::own::Own;
use crate::change::{Namespace, Pair, PipelineId, Side};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::ddl::Worker;
use crate::error::{Error, Result};
use crate::pipeline::{Shared, insist};
use copy::{Copier, Kept};
use cut::Open;
use progress::{NotDone, forget_ranges, save_ranges};
use survey::{Surveyed, survey};

pub use missing::make_missing;
pub use plan::{drop_included, dry_run, must_be_empty};
pub use progress::{Progress, SyncState};

/// Ranges that are read at the same time. The lanes do the work, so a few keep all of them busy.
const RANGES_READ_AT_ONCE: usize = 4;

/// Ranges that are under way: most of small ones are read, and wait for their lanes.
const RANGES_AT_ONCE: usize = 32;

/// Ranges that wait to be copied: what else is to be cut has its turn when there are fewer.
const RANGES_WAITING_MAX: usize = 256;

/// Collections whose indexes are looked at together.
const LOOKED_AT_ONCE: usize = 16;

const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How often a line says how far it has come.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// What an initial sync from a to b needs.
pub struct InitialSync {
    pub config: Config,
    pub shared: Arc<Shared>,
    pub clusters: Pair<Cluster>,
    pub own: Pair<Own>,
    pub lease: Lease,
    pub progress: Arc<Progress>,
    /// Makes views.
    pub worker: Arc<Worker>,
}

impl InitialSync {
    /// Copies what is left to copy, catches up, builds the indexes, and says so on both clusters.
    ///
    /// # Errors
    /// What no retry helps against.
    pub async fn run(self) -> Result<()> {
        tokio::select! {
            outcome = self.sync() => outcome,
            () = self.tell() => Ok(()),
        }
    }

    async fn sync(&self) -> Result<()> {
        while !self.shared.exchange.ledger().is_recovered() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let mode = self.config.link.mode;
        let found = insist(|| survey(&self.clusters.a, &self.config.namespaces, mode)).await?;
        self.count(&found);
        self.progress.enter(SyncState::Copying);
        let mut collections = self.copy_all(&found).await?;
        for one in found.iter().filter(|one| one.is_copied_once(mode)) {
            collections.push(self.copy_once(one).await?);
        }
        self.progress.enter(SyncState::CatchingUp);
        self.catch_up().await?;
        self.progress.enter(SyncState::BuildingIndexes);
        self.build_all_indexes(&collections).await?;
        self.create_views(&found).await?;
        self.finish().await
    }

    fn count(&self, found: &[Surveyed]) {
        let mut numbers = self.progress.numbers();
        for one in found {
            numbers.namespaces_total += 1;
            if one.is_copied(self.config.link.mode) {
                numbers.documents_total += one.documents;
                numbers.bytes_total += one.bytes;
                numbers.indexes_total += one.indexes.len() as u64;
            }
        }
    }

    /// Copies every collection that can be copied; gives their lasting names. What is cut is copied
    /// while others are paired and cut.
    async fn copy_all(&self, found: &[Surveyed]) -> Result<Vec<Namespace>> {
        let mode = self.config.link.mode;
        let followed = |one: &&Surveyed| !one.is_view() && !one.is_copied_once(mode);
        let followed: Vec<&Surveyed> = found.iter().filter(followed).collect();
        self.let_views_go(&followed).await?;
        self.progress.start();
        let (cut, left) = mpsc::channel(RANGES_WAITING_MAX);
        let (mut lasting, ()) =
            try_join(self.cut_all(&followed, cut), self.copy_ranges(left)).await?;
        lasting.sort();
        Ok(lasting)
    }

    async fn copy_ranges(&self, mut left: mpsc::Receiver<Open>) -> Result<()> {
        let copier = Copier {
            shared: self.shared.clone(),
            source: self.clusters.a.clone(),
            own: self.own.b.clone(),
            pipeline: PipelineId::AToB,
            progress: self.progress.clone(),
            reading: Arc::new(Semaphore::new(RANGES_READ_AT_ONCE)),
            kept: Kept::default(),
        };
        let mut running: JoinSet<Result<Open>> = JoinSet::new();
        let mut is_cutting = true;
        loop {
            tokio::select! {
                biased;
                open = left.recv(), if is_cutting && running.len() < RANGES_AT_ONCE => match open {
                    Some(open) => {
                        let copier = copier.clone();
                        running.spawn(async move { copier.copy_range(open).await });
                    }
                    None => is_cutting = false,
                },
                Some(ended) = running.join_next() => {
                    let mut all = vec![ended];
                    all.extend(std::iter::from_fn(|| running.try_join_next()));
                    self.end_ranges(all).await?;
                }
                else => return Ok(()),
            }
        }
    }

    /// Puts on record together which ranges have been copied.
    async fn end_ranges(
        &self,
        ended: Vec<std::result::Result<Result<Open>, JoinError>>,
    ) -> Result<()> {
        let died = |error| Error::bug("a copy died").caused_by(error);
        let ended = ended.into_iter().map(|one| one.map_err(died)?);
        let ended = ended.collect::<Result<Vec<Open>>>()?;
        insist(|| save_ranges(&self.own.b, ended.iter().map(|open| &open.range))).await?;
        for open in &ended {
            if open.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.progress.numbers().namespaces_done += 1;
            }
        }
        Ok(())
    }

    /// Returns once everything written on a up to now has arrived on b.
    async fn catch_up(&self) -> Result<()> {
        let now = insist(|| self.own.a.operation_time()).await?;
        let exchange = &self.shared.exchange;
        exchange.wait_passed(Side::A, now).await;
        loop {
            let applied = exchange.ledger().pipeline_applied_through(PipelineId::AToB);
            if applied.0.covers(now) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// One collection after the other, but for those that have none besides that of `_id`.
    async fn build_all_indexes(&self, collections: &[Namespace]) -> Result<()> {
        let (shared, own) = (&self.shared, &self.own);
        for some in collections.chunks(LOOKED_AT_ONCE) {
            let looks = some
                .iter()
                .map(|lasting| insist(|| indexes::are_wanted(shared, own, Side::B, lasting)));
            let wanted = try_join_all(looks).await?;
            for (lasting, _) in some.iter().zip(wanted).filter(|(_, wanted)| *wanted) {
                self.build_indexes(lasting).await?;
            }
        }
        Ok(())
    }

    async fn build_indexes(&self, lasting: &Namespace) -> Result<()> {
        let (shared, own, progress) = (&self.shared, &self.own, &self.progress);
        let ddl = self.worker.ddl();
        insist(|| indexes::build(shared, own, Side::B, lasting, progress, ddl)).await
    }

    async fn create_views(&self, found: &[Surveyed]) -> Result<()> {
        for view in found.iter().filter(|one| one.is_view()) {
            let namespace = &view.namespace;
            let copy = || self.worker.copy_view(Side::B, namespace);
            if let Some(reason) = insist(copy).await? {
                self.progress.numbers().not_done.push(NotDone {
                    namespace: namespace.to_string(),
                    index: None,
                    reason,
                });
            }
            self.progress.numbers().namespaces_done += 1;
        }
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        let link = &self.shared.facts.link;
        for side in Side::BOTH {
            let done = doc! { "$set": { "initial_sync": "done" } };
            insist(|| self.lease.change_link(side, done.clone())).await?;
        }
        insist(|| forget_ranges(&self.own.b, doc! { "link": link })).await?;
        self.shared.exchange.release(PipelineId::BToA);
        self.shared.exchange.ledger().end_copying(Side::A);
        self.progress.enter(SyncState::Done);
        let numbers = self.progress.now();
        tracing::info!(
            namespaces = numbers.namespaces_done,
            documents = numbers.documents_done,
            bytes = numbers.bytes_done,
            not_done = numbers.not_done.len(),
            "initial sync is done"
        );
        Ok(())
    }

    /// A line now and then, for whoever reads the log.
    async fn tell(&self) {
        loop {
            tokio::time::sleep(TELL_INTERVAL).await;
            let numbers = self.progress.now();
            tracing::info!(
                state = ?numbers.state,
                documents = numbers.documents_done,
                of = numbers.documents_total,
                documents_per_second = numbers.documents_per_second,
                indexes = numbers.indexes_done,
                of_indexes = numbers.indexes_total,
                seconds_left = numbers.seconds_left,
                "initial sync"
            );
        }
    }
}
