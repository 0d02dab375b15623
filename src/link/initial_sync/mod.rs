//! The initial sync: what was there before the start is copied while writes go on.
//!
//! Streaming runs from the first moment. A copy is nothing but the request that a lane send a
//! document's full state: it is decided under the same ledger, applied under the same fence and put
//! on record like everything else, so it may meet writes of any kind, on either side, at any time.

mod copy;
pub(super) mod indexes;
mod missing;
mod once;
mod plan;
pub(super) mod progress;
pub(super) mod survey;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use futures_util::future::try_join_all;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::lease::Lease;
use super::moved::{has_moved, name_now, tell_first};
use super::own::Own;
use crate::change::{Namespace, Pair, PipelineId, Side};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::ddl::Worker;
use crate::error::{Error, Result};
use crate::pipeline::{Listed, Pairing, Pause, Shared, insist, list_all};
use crate::ranges::{self, Order, RANGE_BYTES_TARGET, Scanned};
use copy::{Copier, Kept};
use progress::{NotDone, StoredRange, forget_ranges, store_ranges, stored_ranges};
use survey::{Surveyed, survey};

pub use missing::make_missing;
pub use plan::{drop_included, dry_run, must_be_empty};
pub use progress::{Progress, SyncState};

/// Ranges that are read at the same time. The lanes do the work, so a few keep all of them busy.
const RANGES_READ_AT_ONCE: usize = 4;

/// Ranges that are under way: most of small ones are read, and wait for their lanes.
const RANGES_AT_ONCE: usize = 16;

/// Collections that are cut into ranges, or whose indexes are looked at, together.
const LOOKED_AT_ONCE: usize = 16;

/// Collections that are paired together.
const PAIRED_AT_ONCE: usize = 200;

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

    /// Copies every collection that can be copied; gives their lasting names.
    async fn copy_all(&self, found: &[Surveyed]) -> Result<Vec<Namespace>> {
        let mut lasting = Vec::new();
        let mut left: Vec<(Scanned, StoredRange)> = Vec::new();
        let mut ranges_of: HashMap<Namespace, usize> = HashMap::new();
        let mode = self.config.link.mode;
        let followed = |one: &&Surveyed| !one.is_view() && !one.is_copied_once(mode);
        let followed: Vec<&Surveyed> = found.iter().filter(followed).collect();
        self.let_views_go(&followed).await?;
        for some in followed.chunks(PAIRED_AT_ONCE) {
            insist(|| self.pair_all(some)).await?;
        }
        let mut split = Vec::with_capacity(followed.len());
        for some in followed.chunks(LOOKED_AT_ONCE) {
            let some = some.iter().map(|one| self.split(one));
            split.extend(try_join_all(some).await?.into_iter().flatten());
        }
        for (name, scanned, ranges) in split {
            lasting.push(name);
            for range in &ranges {
                let mut numbers = self.progress.numbers();
                numbers.documents_done += range.documents;
                numbers.bytes_done += range.bytes;
            }
            // Another collection may have had the name before.
            ranges_of.entry(scanned.namespace.clone()).or_default();
            for range in ranges.into_iter().filter(|range| !range.is_done) {
                *ranges_of.entry(scanned.namespace.clone()).or_default() += 1;
                left.push((scanned.clone(), range));
            }
        }
        self.progress.numbers().namespaces_done =
            ranges_of.values().filter(|left| **left == 0).count() as u64;
        self.progress.start();
        self.copy_ranges(left, &mut ranges_of).await?;
        lasting.sort();
        Ok(lasting)
    }

    async fn copy_ranges(
        &self,
        left: Vec<(Scanned, StoredRange)>,
        ranges_of: &mut HashMap<Namespace, usize>,
    ) -> Result<()> {
        let copier = Copier {
            shared: self.shared.clone(),
            source: self.clusters.a.clone(),
            own: self.own.b.clone(),
            pipeline: PipelineId::AToB,
            progress: self.progress.clone(),
            reading: Arc::new(Semaphore::new(RANGES_READ_AT_ONCE)),
            kept: Kept::default(),
        };
        let mut left = left.into_iter();
        let mut running: JoinSet<Result<Namespace>> = JoinSet::new();
        loop {
            while running.len() < RANGES_AT_ONCE
                && let Some((scanned, range)) = left.next()
            {
                let copier = copier.clone();
                running.spawn(async move {
                    copier.copy_range(&scanned, range).await?;
                    Ok(scanned.namespace)
                });
            }
            let Some(ended) = running.join_next().await else {
                return Ok(());
            };
            let namespace = ended.map_err(|error| Error::bug("a copy died").caused_by(error))??;
            if let Some(ranges) = ranges_of.get_mut(&namespace) {
                *ranges -= 1;
                self.progress.numbers().namespaces_done += u64::from(*ranges == 0);
            }
        }
    }

    /// A collection under its lasting name, and its ranges. It may be renamed or dropped since the
    /// survey, at any moment: the reader tells, so it is tried again once that has come up.
    async fn split(
        &self,
        one: &Surveyed,
    ) -> Result<Option<(Namespace, Scanned, Vec<StoredRange>)>> {
        let Some(uuid) = one.uuid else {
            return Ok(None);
        };
        let mut pause = Pause::of_outages();
        let mut came_up = false;
        let collections = &self.shared.collections;
        let lasting = collections.identify(Side::A, uuid, &one.namespace);
        loop {
            match insist(|| self.pair(one, &lasting)).await? {
                Pairing::Paired(pair) => {
                    let scanned = Scanned {
                        selection: self.config.filters.selection(&pair.a.name),
                        namespace: pair.a.name,
                        uuid,
                        order: Order::of(&one.options),
                    };
                    match insist(|| self.ranges_of(&lasting, &scanned)).await {
                        Err(error) if has_moved(&error) => {
                            let now = insist(|| name_now(&self.clusters.a, &scanned)).await?;
                            if now.is_none() {
                                self.not_copied(one);
                                return Ok(None);
                            }
                        }
                        ranges => return Ok(Some((lasting, scanned, ranges?))),
                    }
                }
                Pairing::Unclear if !came_up => {}
                Pairing::Unpaired | Pairing::Unclear => {
                    self.not_copied(one);
                    return Ok(None);
                }
            }
            let now = insist(|| self.own.a.operation_time()).await?;
            self.shared.exchange.wait_passed(Side::A, now).await;
            came_up = true;
            tokio::time::sleep(pause.wait()).await;
        }
    }

    /// A view that the target still has, and whose name is a collection's by now, goes in a turn of its
    /// own: the collection is paired after that.
    async fn let_views_go(&self, followed: &[&Surveyed]) -> Result<()> {
        let target = &self.clusters.b;
        let names: Vec<_> = followed.iter().map(|one| one.counterpart.clone()).collect();
        let there = insist(|| list_all(target, &names)).await?;
        for one in followed {
            if there.get(&one.counterpart).is_some_and(Listed::is_view) {
                insist(|| self.worker.let_view_go(Side::B, &one.namespace)).await?;
            }
        }
        Ok(())
    }

    /// Makes and routes pairs together, before each is looked at: what does not become one is told
    /// then.
    async fn pair_all(&self, some: &[&Surveyed]) -> Result<()> {
        let collections = &self.shared.collections;
        let names: HashSet<Namespace> = some
            .iter()
            .filter_map(|one| Some(collections.identify(Side::A, one.uuid?, &one.namespace)))
            .collect();
        let names = names.iter().collect();
        let pairings = collections.pair_all(&names, Side::A).await;
        let pairings = tell_first(&self.shared, &self.clusters, pairings).await?;
        let paired = pairings.into_iter();
        let paired = paired.filter(|(_, pairing)| matches!(pairing, Pairing::Paired(_)));
        let mut paired: Vec<Namespace> = paired.map(|(lasting, _)| lasting).collect();
        paired.sort();
        collections.route(&paired).await
    }

    /// Makes sure that the collection is there on the target, with its options and its lanes.
    async fn pair(&self, one: &Surveyed, lasting: &Namespace) -> Result<Pairing> {
        let collections = &self.shared.collections;
        let pairing = collections.pair(lasting, Side::A).await;
        let pairing = tell_first(&self.shared, &self.clusters, pairing).await?;
        if let Pairing::Paired(pair) = &pairing {
            if Some(pair.a.uuid) != one.uuid {
                return Ok(Pairing::Unpaired);
            }
            let single = collections.needs_one_lane(lasting).await?;
            self.shared.exchange.route(lasting.clone(), single);
        }
        Ok(pairing)
    }

    fn not_copied(&self, one: &Surveyed) {
        let reason = one.unsupported.unwrap_or("it is gone or has been replaced");
        tracing::warn!(namespace = %one.namespace, reason, "not copied");
        self.progress.numbers().not_done.push(NotDone {
            namespace: one.namespace.to_string(),
            index: None,
            reason: reason.to_owned(),
        });
    }

    /// As an earlier process has split it, or split now.
    async fn ranges_of(&self, lasting: &Namespace, scanned: &Scanned) -> Result<Vec<StoredRange>> {
        let link = &self.shared.facts.link;
        let stored = stored_ranges(&self.own.b, link, lasting).await?;
        if !stored.is_empty() {
            return Ok(stored);
        }
        let ranges = ranges::split(&self.clusters.a, scanned, RANGE_BYTES_TARGET).await?;
        store_ranges(&self.own.b, link, lasting, ranges).await
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
