//! Both sides hold data: compared by key in both directions, and brought to the same documents.
//!
//! While it lasts the events of both pipelines wait, so each of them meets documents that have been
//! compared. What differs is settled by the lanes, under the same ledger and the same fence as any
//! event, with each loser on record; see [`crate::resolve`].

mod anew;
mod desk;
mod job;
mod plan;
mod repair;
mod scan;
mod schema;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use tokio::task::JoinSet;

use super::initial_sync::Progress;
use super::initial_sync::progress::{
    NotDone, StoredRange, SyncState, forget_ranges, save_range, store_ranges, stored_ranges,
};
use super::initial_sync::survey::Surveyed;
use super::lease::Lease;
use super::moved::{has_moved, tell_first};
use super::own::Own;
use crate::change::{Mode, Namespace, Pair, Side};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::ddl::Worker;
use crate::error::{Error, Result};
use crate::pipeline::{Pairing, Pause, Shared, insist};
use crate::ranges::{self, Order, RANGE_BYTES_TARGET, Scanned};
use plan::{is_view, obstacle, survey_both};
use scan::{Both, Scan};

pub use anew::{pair_anew, takes_up_again};
pub use desk::{Desk, MergePlace, resync_from_outside};
pub use job::{Job, must_have_source, no_such_namespace};
pub use plan::MergePlan;
pub use repair::{Repair, RepairKey, Repairs, answer, progress_line, repair_from_outside};

const UNPAIRED: &str =
    "it is not replicated any more: with the link stopped, a resync of it takes it up again";

const GONE: &str = "it is gone or has been replaced";

/// Ranges that are compared at the same time. The lanes do the work.
const RANGES_AT_ONCE: usize = 4;

const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How often a line says how far it has come.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// A merge of what a link includes, or of a part of it.
pub struct Merge {
    pub config: Config,
    pub shared: Arc<Shared>,
    pub clusters: Pair<Cluster>,
    pub own: Pair<Own>,
    pub lease: Lease,
    /// Makes views, and knows what was refused.
    pub worker: Arc<Worker>,
    pub job: Job,
    pub progress: Arc<Progress>,
}

/// What both clusters say of one namespace.
type Sides = Pair<Option<Surveyed>>;

impl Merge {
    /// Holds both pipelines, settles every difference, lets them go on, and makes indexes and
    /// views the same then. Goes on where a killed process was.
    ///
    /// # Errors
    /// What no retry helps against.
    pub async fn run(&self) -> Result<()> {
        tokio::select! {
            outcome = self.merge() => outcome,
            () = self.tell() => Ok(()),
        }
    }

    async fn merge(&self) -> Result<()> {
        self.shared.exchange.hold_both().await;
        while !self.shared.exchange.ledger().is_recovered() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let found = insist(|| self.survey()).await?;
        self.count(&found);
        self.progress.enter(SyncState::Merging);
        let (own, link) = (&self.own.b, &self.shared.facts.link);
        let is_settled = insist(|| Job::is_settled(own, link)).await?;
        let both = self.settle_all(&found, is_settled).await?;
        insist(|| self.job.put_settled(&self.lease)).await?;
        self.shared.exchange.release_both();
        self.progress.enter(SyncState::BuildingIndexes);
        for both in &both {
            self.build_indexes(both).await?;
        }
        self.create_views(&found).await?;
        self.compare_options().await?;
        self.finish().await
    }

    async fn survey(&self) -> Result<BTreeMap<Namespace, Sides>> {
        let mut found = survey_both(&self.config, &self.clusters).await?;
        found.retain(|namespace, _| self.job.includes(namespace));
        Ok(found)
    }

    fn count(&self, found: &BTreeMap<Namespace, Sides>) {
        let mut numbers = self.progress.numbers();
        for sides in found.values() {
            numbers.namespaces_total += 1;
            for one in [&sides.a, &sides.b].into_iter().flatten() {
                numbers.documents_total += one.documents;
                numbers.bytes_total += one.bytes;
            }
        }
    }

    /// Nothing is compared once everything is settled: what differs from then on has its events, and
    /// is perhaps on record already.
    async fn settle_all(
        &self,
        found: &BTreeMap<Namespace, Sides>,
        is_settled: bool,
    ) -> Result<Vec<Both>> {
        let mut all = Vec::new();
        let mut left: Vec<(Both, StoredRange)> = Vec::new();
        let mut ranges_of: HashMap<Namespace, usize> = HashMap::new();
        for (namespace, sides) in found {
            let Some((both, ranges)) = self.cut(namespace, sides).await? else {
                continue;
            };
            let is_open = |range: &StoredRange| !range.is_done && !is_settled;
            let open = ranges.into_iter().filter(is_open);
            let before = left.len();
            left.extend(open.map(|range| (both.clone(), range)));
            // Found once more under the name that it has been given meanwhile.
            *ranges_of.entry(both.lasting.clone()).or_default() += left.len() - before;
            all.push(both);
        }
        self.progress.numbers().namespaces_done =
            ranges_of.values().filter(|left| **left == 0).count() as u64;
        self.progress.start();
        self.settle_ranges(left, &mut ranges_of).await?;
        Ok(all)
    }

    async fn settle_ranges(
        &self,
        left: Vec<(Both, StoredRange)>,
        ranges_of: &mut HashMap<Namespace, usize>,
    ) -> Result<()> {
        let scan = Scan {
            shared: self.shared.clone(),
            clusters: self.clusters.clone(),
            job: self.job.clone(),
            progress: self.progress.clone(),
        };
        let mut left = left.into_iter();
        let mut running: JoinSet<Result<Namespace>> = JoinSet::new();
        loop {
            while running.len() < RANGES_AT_ONCE
                && let Some((both, mut range)) = left.next()
            {
                let (scan, own) = (scan.clone(), self.own.b.clone());
                running.spawn(async move {
                    scan.settle_range(&both, &range.range).await?;
                    range.is_done = true;
                    insist(|| save_range(&own, &range)).await?;
                    Ok(both.lasting)
                });
            }
            let Some(ended) = running.join_next().await else {
                return Ok(());
            };
            let namespace =
                ended.map_err(|error| Error::bug("a merge died").caused_by(error))??;
            if let Some(ranges) = ranges_of.get_mut(&namespace) {
                *ranges -= 1;
                self.progress.numbers().namespaces_done += u64::from(*ranges == 0);
            }
        }
    }

    /// A collection of both sides, and its ranges; none where nothing of it is to be compared. It may
    /// be renamed or dropped since the survey, at any moment.
    async fn cut(
        &self,
        namespace: &Namespace,
        sides: &Sides,
    ) -> Result<Option<(Both, Vec<StoredRange>)>> {
        let Some(mut both) = insist(|| self.pair(namespace, sides)).await? else {
            return Ok(None);
        };
        let mut pause = Pause::of_outages();
        loop {
            match insist(|| self.ranges_of(&both, sides)).await {
                Err(error) if has_moved(&error) => {}
                ranges => return Ok(Some((both, ranges?))),
            }
            let Some(found) = insist(|| both.found_again(&self.clusters)).await? else {
                self.not_merged(namespace, GONE);
                return Ok(None);
            };
            both = found;
            tokio::time::sleep(pause.wait()).await;
        }
    }

    /// Makes sure that the collection is there on both sides, with its options and its lanes. None
    /// for a view, and for what cannot be replicated.
    async fn pair(&self, namespace: &Namespace, sides: &Sides) -> Result<Option<Both>> {
        if is_view(sides) {
            return Ok(None);
        }
        if let Some(reason) = obstacle(self.config.link.mode, sides) {
            self.not_merged(namespace, reason);
            return Ok(None);
        }
        let uuids = sides
            .as_ref()
            .map(|one| one.as_ref().and_then(|one| one.uuid));
        let Some(lasting) = prepare(&self.shared, &self.clusters, namespace, uuids).await? else {
            let is_unpaired = self.shared.collections.unpaired();
            let reason = match is_unpaired.iter().any(|name| name == namespace.as_str()) {
                true => UNPAIRED,
                false => GONE,
            };
            self.not_merged(namespace, reason);
            return Ok(None);
        };
        let known = [&sides.a, &sides.b].into_iter().flatten();
        let order = known.map(|one| Order::of(&one.options)).next();
        let pair = match self.shared.collections.pair(&lasting, Side::A).await? {
            Pairing::Paired(pair) => pair,
            Pairing::Unpaired | Pairing::Unclear => return Ok(None),
        };
        // The source's name: only a one-way link has filters. What its target has beside them is
        // none of the link's business.
        let source = match self.config.link.mode {
            Mode::OneWay { from } => from,
            Mode::TwoWay => Side::A,
        };
        let selection = self.shared.filters.selection(&pair[source].name);
        let scanned = |side: Side| Scanned {
            selection: selection.clone(),
            namespace: pair[side].name.clone(),
            uuid: pair[side].uuid,
            order: order.unwrap_or(Order::ById),
        };
        Ok(Some(Both {
            lasting,
            sides: Pair::new(Some(scanned(Side::A)), Some(scanned(Side::B))),
        }))
    }

    fn not_merged(&self, namespace: &Namespace, reason: &str) {
        tracing::warn!(%namespace, reason, "not merged");
        self.progress.numbers().not_done.push(NotDone {
            namespace: namespace.to_string(),
            index: None,
            reason: reason.to_owned(),
        });
    }

    /// As an earlier process has split it, or split now along the larger side.
    async fn ranges_of(&self, both: &Both, sides: &Sides) -> Result<Vec<StoredRange>> {
        let (link, lasting) = (&self.shared.facts.link, &both.lasting);
        let stored = stored_ranges(&self.own.b, link, lasting).await?;
        if !stored.is_empty() {
            return Ok(stored);
        }
        let bytes = |side: Side| sides[side].as_ref().map_or(0, |one| one.bytes);
        let larger = match bytes(Side::A) >= bytes(Side::B) {
            true => Side::A,
            false => Side::B,
        };
        let Some(scanned) = &both.sides[larger] else {
            return Ok(Vec::new());
        };
        let ranges = ranges::split(&self.clusters[larger], scanned, RANGE_BYTES_TARGET).await?;
        store_ranges(&self.own.b, link, lasting, ranges).await
    }

    async fn finish(&self) -> Result<()> {
        let link = &self.shared.facts.link;
        for side in Side::BOTH {
            let change = doc! { "$set": { "initial_sync": "done" }, "$unset": { "resync": "" } };
            insist(|| self.lease.change_link(side, change.clone())).await?;
        }
        // Not before that: the next process would compare everything once more.
        insist(|| forget_ranges(&self.own.b, doc! { "link": link })).await?;
        self.progress.enter(SyncState::Done);
        let numbers = self.progress.now();
        if numbers.tally.impossible > 0 {
            let documents = numbers.tally.impossible;
            tracing::warn!(
                documents,
                "not every document could be merged, see the dead letters"
            );
        }
        tracing::info!(
            namespaces = numbers.namespaces_done,
            documents = numbers.documents_done,
            copied = numbers.tally.copied.a + numbers.tally.copied.b,
            on_record = numbers.tally.on_record(),
            not_done = numbers.not_done.len(),
            "the merge is done"
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
                on_record = numbers.tally.on_record(),
                "merging"
            );
        }
    }
}

/// Pairs a collection by the UUIDs that it has where it is there, creates it where it is missing,
/// and settles its lanes. None where it cannot be replicated, or is gone.
async fn prepare(
    shared: &Shared,
    clusters: &Pair<Cluster>,
    namespace: &Namespace,
    uuids: Pair<Option<bson::Uuid>>,
) -> Result<Option<Namespace>> {
    let collections = &shared.collections;
    let mut lasting = None;
    for side in Side::BOTH {
        if let Some(uuid) = uuids[side] {
            let there = collections.renames().on(side, namespace);
            let name = collections.identify(side, uuid, &there);
            lasting = lasting.or(Some((side, name)));
        }
    }
    let Some((side, lasting)) = lasting else {
        return Ok(None);
    };
    let pairing = collections.pair(&lasting, side).await;
    match tell_first(shared, clusters, pairing).await? {
        Pairing::Paired(_) => {}
        Pairing::Unpaired | Pairing::Unclear => return Ok(None),
    }
    if !shared.exchange.is_routed(&lasting) {
        let single = collections.needs_one_lane(&lasting).await?;
        shared.exchange.route(lasting.clone(), single);
    }
    Ok(Some(lasting))
}
