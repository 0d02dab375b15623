//! What the lanes, the readers and the helpers of a link share.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bson::RawDocumentBuf;
use tokio::sync::watch;

use super::collections::Collections;
use super::counters::Counters;
use super::exchange::Exchange;
use super::log_room;
use super::records::{LinkFacts, Records};
use crate::change::{Filters, Mode, Namespace, Pair, PipelineId, Side};
use crate::config::{Adjustable, Config};
use crate::error::Result;
use crate::resolve::DocumentRules;
use crate::store::{Store, StoredCheckpoint};

/// What all lanes of a link share.
pub struct Shared {
    pub exchange: Exchange,
    pub collections: Collections,
    pub counters: Pair<Counters>,
    pub store: Store,
    pub facts: LinkFacts,
    /// Which document stays where no event tells why two differ.
    pub document_rules: DocumentRules,
    /// The database of tandem's own state.
    pub database: String,
    /// By the names that collections have on the source.
    pub filters: Filters,
    /// What of the configuration may change meanwhile.
    adjustable: watch::Sender<Adjustable>,
    /// How far b's clock is ahead of a's, ms; `i64::MIN` while unknown.
    clock_skew_ms: AtomicI64,
    /// Indexes that tandem builds, by collection: their events are its own.
    building: Pair<Mutex<HashMap<Namespace, HashSet<String>>>>,
}

const SKEW_UNKNOWN: i64 = i64::MIN;

/// By the names that the source's collections have there.
fn filters_of_source(config: &Config) -> Filters {
    match config.link.mode {
        Mode::OneWay { from } => config.filters.on(from, config.namespaces.renames()),
        Mode::TwoWay => config.filters.clone(),
    }
}

impl Shared {
    pub fn new(
        exchange: Exchange,
        collections: Collections,
        counters: Pair<Counters>,
        store: Store,
        facts: LinkFacts,
        document_rules: DocumentRules,
        config: &Config,
    ) -> Self {
        Self {
            exchange,
            collections,
            counters,
            store,
            facts,
            document_rules,
            database: config.link.database.clone(),
            filters: filters_of_source(config),
            adjustable: watch::Sender::new(config.adjustable()),
            clock_skew_ms: AtomicI64::new(SKEW_UNKNOWN),
            building: Pair::default(),
        }
    }

    pub fn adjustable(&self) -> Adjustable {
        self.adjustable.borrow().clone()
    }

    pub fn adjust(&self, adjustable: Adjustable) {
        self.adjustable.send_replace(adjustable);
    }

    /// Returns once it has been adjusted since the receiver was made or asked last.
    pub fn adjustments(&self) -> watch::Receiver<Adjustable> {
        self.adjustable.subscribe()
    }

    /// From here on tandem builds these indexes of a collection of `side`, and no others.
    pub fn set_building(&self, side: Side, namespace: &Namespace, indexes: HashSet<String>) {
        match indexes.is_empty() {
            true => self.building(side).remove(namespace),
            false => self.building(side).insert(namespace.clone(), indexes),
        };
    }

    /// Whether all of these indexes are among them.
    pub fn is_building(&self, side: Side, namespace: &Namespace, indexes: &[String]) -> bool {
        let building = self.building(side);
        let building = building.get(namespace);
        building.is_some_and(|building| indexes.iter().all(|index| building.contains(index)))
    }

    fn building(&self, side: Side) -> MutexGuard<'_, HashMap<Namespace, HashSet<String>>> {
        let building = &self.building[side];
        building.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn clock_skew_ms(&self) -> Option<i64> {
        let skew = self.clock_skew_ms.load(Ordering::Relaxed);
        (skew != SKEW_UNKNOWN).then_some(skew)
    }

    /// Copies records to the local log. A loser counts once, for the pipeline that it came from,
    /// whichever pipeline settled its conflict first.
    pub(super) fn put_on_record(&self, records: &Records) -> Result<()> {
        let before = self.store.records_bytes();
        for pipeline in PipelineId::BOTH {
            let of_pipeline =
                |raw: &&RawDocumentBuf| raw.get_str("pipeline").ok() == Some(pipeline.as_str());
            let (letters, conflicts): (Vec<_>, Vec<_>) = records
                .raw
                .iter()
                .filter(of_pipeline)
                .cloned()
                .partition(|raw| matches!(raw.get_str("kind"), Ok("dead_letter")));
            self.store.put_records(&letters)?;
            let new = self.store.put_records(&conflicts)? as u64;
            self.counters[pipeline.source()].totals().conflicts += new;
        }
        // Everything is on record, so stopping here loses nothing.
        log_room::check(before, self.store.records_bytes(), self.facts.log_bytes_max)
    }

    /// Keeps the totals locked meanwhile: an older count must not be saved over a newer one.
    pub(super) fn save_checkpoint(&self, checkpoint: &StoredCheckpoint) -> Result<()> {
        let counted = self.counters.as_ref().map(Counters::totals);
        let totals = Pair::new(*counted.a, *counted.b);
        self.store.save_checkpoint(checkpoint, &totals)
    }

    pub fn set_clock_skew_ms(&self, skew: i64) {
        self.clock_skew_ms.store(skew, Ordering::Relaxed);
    }
}
