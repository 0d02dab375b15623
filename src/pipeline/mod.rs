//! One direction of a link. The page to read first: the way of a batch from queue to checkpoint.

mod caution;
mod collections;
mod commits;
mod compose;
mod counters;
mod exchange;
mod lane;
mod lane_state;
pub mod log_room;
mod outlook;
mod rate;
mod records;
mod refusals;
mod retry;
mod room;
mod saving;
mod settle;
mod shared;
mod stopwatch;
mod together;
mod witness;

pub use collections::{
    Collections, Listed, Pairing, create, indexes, indexes_if_there, is_simple, list, list_all,
    name_of, too_long, unsupported, uuid_in,
};
pub use counters::{Counters, Waiter};
pub use exchange::{Exchange, HandedOver};
pub use lane::{Lane, LaneSettings};
pub use lane_state::LaneStates;
pub use records::LinkFacts;
pub use retry::{Pause, TOLD_WITHIN, insist};
pub use shared::Shared;
pub use witness::Witness;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bson::{DateTime, Timestamp};

use crate::change::{Deletes, DocumentKey, Namespace, Selection, Side};
use crate::config::FenceKind;
use crate::fault::Fault;
use crate::resolve::Plan;
use crate::source::{Place, read_at};
use crate::target::{Refusal, Snapshot, Transaction};
use lane_state::InHand;
use records::{Documents, Records, records};
use stopwatch::{Step, Stopwatch};

const FILTER_FAILS: &str = "where it is the filter that fails on a document, correct the \
                            document on the source or the filter, and start again";

/// What a batch puts on record.
struct Applied {
    records: Records,
    statuses: Vec<(Arc<str>, &'static str)>,
}

/// What the source's side says about a batch.
struct Known {
    collections: compose::Infos,
    of_source: Documents,
    /// What documents to be settled were before their newer writes.
    bases: settle::Bases,
    statuses: Vec<(Arc<str>, &'static str)>,
    /// Collections whose documents stay on the target when they are deleted.
    keeps_deleted: HashSet<Namespace>,
    /// What finds documents of the target that are not in the filter of their collection.
    outside: HashMap<Namespace, Selection>,
}

/// What writing a batch needs of its lanes.
struct Work<'a> {
    shared: &'a Shared,
    in_hand: &'a InHand,
}

impl Lane {
    /// Applies one batch: read what the decisions need, write everything in one transaction at the
    /// fence, commit, and wait until the commit has come back on the target's own stream.
    ///
    /// Nothing has happened where this returns a refusal, and the same events are decided again.
    async fn apply(&mut self, in_hand: &mut InHand, plan: &mut Arc<Plan>) -> Result<(), Refusal> {
        in_hand.belong_to(plan).map_err(Refusal::Failed)?;
        let collections = &self.shared.collections;
        let is_gone = |key: &DocumentKey| {
            let mut sides = Side::BOTH.iter();
            sides.any(|side| collections.is_gone(key.namespace(), *side))
        };
        Arc::make_mut(plan).pass_over_settlements(is_gone);
        Arc::make_mut(plan).forget_documents(is_gone);
        let mut stopwatch = Stopwatch::start();
        let known = self.read_source(plan).await?;
        stopwatch.lap(Step::Read);
        let mut transaction = match self.settings.fence {
            FenceKind::Snapshot if Fault::NoFence.is_on() => {
                Transaction::begin(&mut self.session, Snapshot::Latest)
            }
            FenceKind::Snapshot => {
                Transaction::begin(&mut self.session, Snapshot::At(plan.fence.time))
            }
            FenceKind::Waiting => Transaction::resume(&mut self.session),
        };
        let work = Work {
            shared: &self.shared,
            in_hand,
        };
        let writes = work.write(&mut transaction, Arc::make_mut(plan), known);
        let applied = match tokio::time::timeout(self.transaction_time_max, writes).await {
            Ok(Ok(applied)) => applied,
            Ok(Err(refusal)) => {
                transaction.abort().await;
                return Err(refusal);
            }
            Err(_) => {
                // The session's next transaction ends it too, where this is not answered either.
                let aborted = transaction.abort();
                let _ = tokio::time::timeout(self.transaction_time_max, aborted).await;
                return Err(Refusal::TookTooLong);
            }
        };
        if !self.shared.exchange.begin(plan.clone()) {
            transaction.abort().await;
            return Err(Refusal::Unseen { at: None, code: 0 });
        }
        stopwatch.lap(Step::Write);
        let exchange = &self.shared.exchange;
        let outcome = exchange
            .with_marker_behind(plan.pipeline, transaction.commit())
            .await;
        self.settle(&in_hand.own.checkpoint, plan, outcome).await?;
        stopwatch.lap(Step::Commit);
        self.waits_on(Some("commit echo"));
        let exchange = &self.shared.exchange;
        exchange.wait_landed(plan.pipeline, plan.leader()).await;
        stopwatch.lap(Step::Echo);
        stopwatch.tell(plan);
        let took = stopwatch.took(Step::Write);
        self.after_passing(in_hand, plan, took);
        self.after_commit(in_hand, plan, applied)
            .map_err(Refusal::Failed)
    }

    /// The documents of the source exactly as of the decision.
    async fn read_source(&self, plan: &Plan) -> Result<Known, Refusal> {
        let pairs = self.pair_collections(plan).await?;
        let source = plan.pipeline.source();
        let place_of = |namespace: &_| {
            let pair = pairs.get(namespace)?;
            Some(Place {
                name: pair[source].name.clone(),
                uuid: Some(pair[source].uuid),
                collated: pair[source].collated,
                selection: self.shared.filters.selection(&pair[source].name),
            })
        };
        let filters = &self.shared.filters;
        let parts = compose::parts_of_whole(plan, &pairs, |name| filters.selects(name));
        if !parts.is_empty() {
            return Err(Refusal::FullStateNeeded(parts));
        }
        let mut wanted = compose::wanted_of_source(plan);
        // Nothing is left of what was in a dropped collection.
        let collections = &self.shared.collections;
        wanted.retain(|key| !collections.is_gone(key.namespace(), source));
        let outside: HashMap<_, _> = pairs
            .iter()
            .filter_map(|(namespace, pair)| {
                let outside = filters.selection(&pair[source].name).outside()?;
                Some((namespace.clone(), outside))
            })
            .collect();
        let of_source = match read_at(&self.source, plan.read_at.time, &wanted, &place_of).await {
            Ok(documents) => documents,
            Err(error) if outside.is_empty() || error.is_retryable() => {
                return Err(self.refused_read(&self.source, error).await);
            }
            Err(error) => {
                let error = error.hint(FILTER_FAILS);
                return Err(self.refused_read(&self.source, error).await);
            }
        };
        let ignored = pairs
            .iter()
            .filter(|(_, pair)| filters.deletes(&pair[source].name) == Deletes::Ignored);
        Ok(Known {
            keeps_deleted: ignored.map(|(namespace, _)| namespace.clone()).collect(),
            outside,
            bases: self.read_bases(plan, &pairs, place_of).await?,
            of_source,
            collections: compose::infos_of(&pairs, source.other()),
            statuses: self.statuses(plan)?,
        })
    }
}

impl Work<'_> {
    /// What stays on the target although the source has it no more, or never had it in the filter:
    /// a link with a filter removes nothing that is not in it.
    async fn keep(
        &self,
        transaction: &mut Transaction<'_>,
        plan: &mut Plan,
        known: &Known,
    ) -> Result<(), Refusal> {
        if known.outside.is_empty() && known.keeps_deleted.is_empty() {
            return Ok(());
        }
        let absent: HashSet<DocumentKey> = compose::absent(plan, known).into_iter().collect();
        let is_filtered = |key: &&DocumentKey| known.outside.contains_key(key.namespace());
        let filtered: Vec<DocumentKey> = absent.iter().filter(is_filtered).cloned().collect();
        let outside = transaction
            .read(&filtered, &known.collections, &known.outside)
            .await?;
        plan.keep(|key| {
            let keeps_deleted = known.keeps_deleted.contains(key.namespace());
            (keeps_deleted && absent.contains(key)) || outside.contains_key(key)
        });
        Ok(())
    }

    fn passed(&self, plan: &Plan) -> Vec<(DocumentKey, Timestamp)> {
        let mut passed = Vec::new();
        for (state, share) in self.in_hand.all().zip(&plan.shares) {
            passed.extend(state.passed(share).cloned());
        }
        passed
    }

    /// Reads the target's side of the conflicts, and writes data, records, notes and checkpoint.
    async fn write(
        &self,
        transaction: &mut Transaction<'_>,
        plan: &mut Plan,
        known: Known,
    ) -> Result<Applied, Refusal> {
        let facts = &self.shared.facts;
        let contested = compose::contested(plan);
        let everything = HashMap::new();
        let of_target = transaction
            .read(&contested, &known.collections, &everything)
            .await?;
        plan.agree(|key| known.of_source.get(key) == of_target.get(key));
        plan.settle(&self.shared.document_rules, |key| {
            settle::found(key, &known.of_source, &of_target, &known.bases)
        });
        self.keep(transaction, plan, &known).await?;
        let skew_ms = self.shared.clock_skew_ms();
        let now = DateTime::now();
        let target = plan.pipeline.target();
        let shown = |key: &DocumentKey| self.shared.collections.shown(key, target);
        let of_source = &known.of_source;
        let mut records = records(facts, plan, of_source, &of_target, skew_ms, now, shown);
        let trouble = &self.in_hand.own.trouble;
        let dead_letters = trouble.dead_letter_records(facts, plan, of_source, shown);
        records.raw.extend(dead_letters);
        // Before anything is written: neither cluster nor this host ever holds what is redacted.
        for record in &mut records.raw {
            *record = facts.redaction.record(record);
        }
        plan.records = std::mem::take(&mut records.lost);
        plan.collided_with = trouble.collisions(plan);
        let place = compose::Place {
            link: &facts.link,
            database: &self.shared.database,
            checkpoints: self.in_hand.all().map(|state| &state.checkpoint).collect(),
            one_way: facts.policy == "one-way",
            included: self.passed(plan),
        };
        let batch = compose::batch(&place, trouble, plan, known, &records)?;
        transaction.write(&batch).await?;
        Ok(Applied {
            statuses: batch.statuses,
            records,
        })
    }
}
