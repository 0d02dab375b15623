//! One direction of a link. The page to read first: the way of a batch from queue to checkpoint.

mod caution;
mod collections;
mod compose;
mod counters;
mod exchange;
mod lane;
mod records;
mod retry;
mod witness;

pub use collections::{Collections, Pairing};
pub use counters::Counters;
pub use exchange::{Exchange, HandedOver};
pub use lane::{Lane, LaneSettings, Shared};
pub use records::LinkFacts;
pub use retry::Pause;
pub use witness::Witness;

use std::time::Duration;

use bson::DateTime;

use crate::config::FenceKind;
use crate::error::Error;
use crate::resolve::Plan;
use crate::source::read_at;
use crate::target::{Refusal, Snapshot, Transaction};
use records::{Records, records};

/// What a committed batch has put on record.
struct Applied {
    records: Records,
    statuses: Vec<(std::sync::Arc<str>, &'static str)>,
}

impl Lane {
    /// Applies one batch: read what the decisions need, write everything in one transaction at the
    /// fence, commit, and wait until the commit has come back on the target's own stream.
    ///
    /// Nothing has happened where this returns a refusal, and the same events are decided again.
    async fn apply(&mut self, mut plan: Plan) -> Result<(), Refusal> {
        let collections = self.pair_collections(&plan).await?;
        let statuses = self.statuses(&plan)?;
        let (source, target) = (plan.pipeline.source(), plan.pipeline.target());

        let wanted = compose::wanted_of_source(&plan);
        let uuid_of = |namespace: &_| collections.get(namespace).map(|pair| pair[source].uuid);
        let of_source = read_at(&self.source, plan.read_at.time, &wanted, uuid_of)
            .await
            .map_err(refused_read)?;

        let into = compose::infos_of(&collections, target);
        let mut transaction = match self.settings.fence {
            FenceKind::Snapshot => {
                Transaction::begin(&mut self.session, Snapshot::At(plan.fence.time))
            }
            FenceKind::Waiting => Transaction::resume(&mut self.session),
        };
        let contested = compose::contested(&plan);
        let of_target = match transaction.read(&contested, &into).await {
            Ok(documents) => documents,
            Err(refusal) => {
                transaction.abort().await;
                return Err(refusal);
            }
        };

        let skew_ms = self.shared.clock_skew_ms();
        let mut records = records(
            &self.shared.facts,
            &plan,
            &of_source,
            &of_target,
            skew_ms,
            DateTime::now(),
        );
        let dead = self
            .trouble
            .dead_letter_records(&self.shared.facts, &plan, &of_source);
        records.raw.extend(dead);
        plan.records = std::mem::take(&mut records.lost);
        plan.collided_with = self.trouble.collisions(&plan);

        let place = compose::Place {
            link: &self.shared.facts.link,
            database: &self.shared.database,
            checkpoint: &self.checkpoint,
        };
        let written = match compose::batch(
            &place,
            &self.trouble,
            &plan,
            &of_source,
            into,
            &records,
            &statuses,
        ) {
            Ok(batch) => {
                in_time(
                    self.settings.transaction_time_max,
                    transaction.write(&batch),
                )
                .await
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = written {
            transaction.abort().await;
            return Err(refusal);
        }

        self.shared.exchange.begin(plan.clone());
        let outcome = transaction.commit().await;
        self.settle(outcome).await?;
        self.shared
            .exchange
            .wait_landed(plan.pipeline, plan.lane)
            .await;
        self.after_commit(&plan, Applied { records, statuses })
            .map_err(Refusal::Failed)
    }
}

/// An open transaction stands in the way of applications, so it must not live long.
async fn in_time(
    limit: Duration,
    writes: impl Future<Output = Result<(), Refusal>>,
) -> Result<(), Refusal> {
    match tokio::time::timeout(limit, writes).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Refusal::Unseen { at: None, code: 0 }),
    }
}

/// A source that has moved on since the decision is no failure: decide again.
fn refused_read(error: Error) -> Refusal {
    match crate::cluster::errors::code_of(&error) {
        Some(code @ (361 | 246 | 239)) => Refusal::Unseen { at: None, code },
        _ => Refusal::Failed(error),
    }
}
