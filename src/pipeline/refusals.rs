//! What a lane does when the target refuses a transaction, or does not say what became of it.

use std::time::Duration;

use bson::{RawDocument, RawDocumentBuf, Timestamp, doc, rawdoc};

use super::caution::Trouble;
use super::lane::Lane;
use super::lane_state::InHand;
use crate::change::DocumentKey;
use crate::cluster::{Cluster, errors};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::resolve::Plan;
use crate::target::{Checkpoint, Refusal, Settled, WriteError, settle};

/// Round trips to a distant target, and thousands of records of its losers, can take a transaction of
/// one document longer than it may take. Its time is doubled then, up to this many times what is
/// configured.
const TIME_FACTOR_MAX: u32 = 8;

/// The server ends a transaction after 60 s.
const TIME_MAX: Duration = Duration::from_secs(50);

/// How often a lane looks whether the other lanes have come past it.
const OTHER_LANES_INTERVAL: Duration = Duration::from_millis(5);

impl Lane {
    /// A commit without a clear answer is asked for until there is one. Its time is known then.
    pub(super) async fn settle(
        &mut self,
        checkpoint: &Checkpoint,
        plan: &Plan,
        outcome: Result<Timestamp>,
    ) -> Result<(), Refusal> {
        let exchange = &self.shared.exchange;
        let mut unclear = match outcome {
            Ok(at) => {
                exchange.committed(self.pipeline, self.index, at);
                return Ok(());
            }
            Err(unclear) => unclear,
        };
        loop {
            self.waits_on(Some(&unclear.to_string()));
            exchange.unclear(self.pipeline, self.index, &unclear);
            let after = plan.fence.time;
            let database = &self.shared.database;
            match settle(&mut self.session, database, checkpoint, after).await {
                Ok(Settled::Committed { at, asked_at }) => {
                    exchange.committed(self.pipeline, self.index, at);
                    if !Fault::EarlyRetry.is_on() {
                        self.catch_up(Some(asked_at)).await;
                    }
                    return Ok(());
                }
                Ok(Settled::Fenced) => return Err(Refusal::Fenced),
                Ok(Settled::NotCommitted { asked_at }) => {
                    exchange.abandon(self.pipeline, self.index);
                    return Err(Refusal::Unseen {
                        at: Some(asked_at).filter(|_| !Fault::EarlyRetry.is_on()),
                        code: 0,
                    });
                }
                Err(error) if error.is_retryable() => unclear = error,
                Err(error) => return Err(Refusal::Failed(error)),
            }
            tokio::time::sleep(self.outages.wait()).await;
        }
    }

    pub(super) async fn after_refusal(
        &mut self,
        in_hand: &mut InHand,
        plan: Option<&Plan>,
        refusal: Refusal,
    ) -> Result<()> {
        tracing::debug!(pipeline = self.pipeline.as_str(), lane = self.index, %refusal, "transaction refused, deciding again");
        in_hand.learn_from(plan, &refusal);
        let by_history = !self.break_off_stretches(plan, &refusal);
        let alone = plan.filter(|plan| !plan.is_joint());
        // The others need not wait for what this lane waits for.
        self.put_back(std::mem::take(&mut in_hand.along));
        match refusal {
            Refusal::Fenced => Err(Error::fenced(format!(
                "another process has taken over link {}",
                self.shared.facts.link
            ))),
            Refusal::Unseen { at, .. } => {
                self.counters().totals().fence_conflicts += 1;
                if let Some(plan) = alone {
                    in_hand.own.trouble.refused(plan);
                }
                self.waits_on(Some("a change that is not read yet"));
                tokio::time::sleep(self.refusals.wait()).await;
                self.catch_up(at).await;
                Ok(())
            }
            Refusal::TookTooLong => {
                if !self.target_answers().await {
                    return Ok(());
                }
                if let Some(plan) = alone {
                    self.took_too_long(&mut in_hand.own.trouble, plan);
                    in_hand.own.trouble.refused(plan);
                }
                self.waits_on(Some(
                    "a batch that takes longer than apply.transaction_time_max",
                ));
                Ok(())
            }
            Refusal::FullStateNeeded(_) | Refusal::IdentityNeeded(_) => Ok(()),
            Refusal::Duplicate { at, error } | Refusal::Impossible { at, error } => {
                self.catch_up(at).await;
                // Else what comes before it in the history may be behind it in the queue.
                match by_history {
                    true => {
                        self.after_write_error(&mut in_hand.own.trouble, alone, *error)
                            .await
                    }
                    false => Ok(()),
                }
            }
            Refusal::Failed(error) if error.is_retryable() => {
                self.waits_on(Some(&error.to_string()));
                tracing::warn!(pipeline = self.pipeline.as_str(), lane = self.index, %error, "cannot apply, trying again");
                tokio::time::sleep(self.outages.wait()).await;
                Ok(())
            }
            Refusal::Failed(error) => Err(error),
        }
    }

    /// What the target refuses for good may need what is earlier in the history. Tells whether any lane
    /// of the plan went by its keys until now.
    fn break_off_stretches(&self, plan: Option<&Plan>, refusal: &Refusal) -> bool {
        let (Some(plan), Refusal::Duplicate { .. } | Refusal::Impossible { .. }) = (plan, refusal)
        else {
            return false;
        };
        let mut ledger = self.shared.exchange.ledger();
        let mut any = false;
        for share in plan.shares.iter().filter(|share| share.events > 0) {
            any |= ledger.break_off_stretch(self.pipeline, share.lane);
        }
        any
    }

    /// A smaller batch takes less time; where there is no smaller one, it gets more.
    fn took_too_long(&mut self, trouble: &mut Trouble, plan: &Plan) {
        let longest = TIME_MAX.min(self.settings.transaction_time_max * TIME_FACTOR_MAX);
        if plan.is_of_one_document() && self.transaction_time_max < longest {
            self.transaction_time_max = longest.min(self.transaction_time_max * 2);
            trouble.takes_long();
            tracing::warn!(
                pipeline = self.pipeline.as_str(),
                lane = self.index,
                may_take_ms = self.transaction_time_max.as_millis() as u64,
                "a transaction of one document took longer than apply.transaction_time_max"
            );
        }
    }

    /// A cluster that is away says nothing about how long a transaction takes.
    async fn target_answers(&self) -> bool {
        let target = self.session.cluster();
        let answers = tokio::time::timeout(self.transaction_time_max, target.answers()).await;
        let answers = answers.unwrap_or(false);
        if !answers {
            self.waits_on(Some(&format!("{} does not answer", target.name)));
        }
        answers
    }

    /// A cluster that has moved on since the decision is no failure: decide again, once its reader
    /// knows why.
    ///
    /// The reader comes to the present, with all it has to hold for that: a long backlog is read from
    /// so far back that documents cannot be read as of then, and a collection may be gone whose end
    /// comes later in it.
    pub(super) async fn refused_read(&self, cluster: &Cluster, error: Error) -> Refusal {
        let Some(code @ (361 | 246 | 239)) = errors::code_of(&error) else {
            return Refusal::Failed(error);
        };
        match self.let_come_up(cluster).await {
            Ok(()) => Refusal::Unseen { at: None, code },
            Err(error) => Refusal::Failed(error),
        }
    }

    /// A collection that is not where it was known to be has been dropped or renamed: the readers of
    /// both sides come to where they know of it.
    pub(super) async fn let_readers_come_up(&self) -> Result<()> {
        self.let_come_up(&self.source).await?;
        self.let_come_up(self.session.cluster()).await
    }

    async fn let_come_up(&self, cluster: &Cluster) -> Result<()> {
        let doing = format!("ask {} for its time", cluster.name);
        let ping = doc! { "ping": 1 };
        let reply = cluster.command("admin", ping, &doing).await?;
        if let Ok(now) = reply.get_timestamp("operationTime") {
            let exchange = &self.shared.exchange;
            exchange.let_come_up(cluster.side, now).await;
        }
        Ok(())
    }

    /// Nothing is decided again before the target's reader has passed the refusal.
    async fn catch_up(&self, at: Option<Timestamp>) {
        if let Some(at) = at {
            let exchange = &self.shared.exchange;
            exchange.wait_passed(self.pipeline.target(), at).await;
        }
    }

    /// In several steps: in order, alone, after everything before it, as full state, and put aside at
    /// last.
    async fn after_write_error(
        &mut self,
        trouble: &mut Trouble,
        plan: Option<&Plan>,
        mut error: WriteError,
    ) -> Result<()> {
        let Some(plan) = plan else { return Ok(()) };
        let fresh: Vec<DocumentKey> = plan.fresh().cloned().collect();
        if !fresh.is_empty() {
            // Some of them are there already: what is there has to be replaced.
            for key in fresh {
                trouble.send_full_state(key);
            }
            return Ok(());
        }
        if plan.size() > 1 {
            trouble.take_apart(plan, error.key.as_ref());
            return Ok(());
        }
        let key = plan.decisions.first().map(|decision| decision.key.clone());
        let Some(key) = error.key.clone().or(key) else {
            return Err(Error::bug(format!(
                "{} refused to move a checkpoint ({})",
                self.session.cluster().name,
                error.code
            )));
        };
        self.wait_for_other_lanes(plan).await;
        error.other_key = self.holder_of(&key, &error).await;
        trouble.failed_alone(&key, error);
        Ok(())
    }

    /// Returns once every other lane of the pipeline has applied what came before this batch.
    async fn wait_for_other_lanes(&self, plan: &Plan) {
        let Some(first) = plan.batch.first() else {
            return;
        };
        loop {
            let behind = (0..self.settings.lanes).any(|lane| {
                lane != self.index
                    && self
                        .shared
                        .exchange
                        .ledger()
                        .is_behind(self.pipeline, lane, &first.position)
            });
            if !behind {
                return;
            }
            self.waits_on(Some("earlier events in other lanes"));
            tokio::time::sleep(OTHER_LANES_INTERVAL).await;
        }
    }

    /// The document that already has the value of a unique index.
    async fn holder_of(&self, key: &DocumentKey, error: &WriteError) -> Option<RawDocumentBuf> {
        let value = error.key_value.clone()?;
        let cluster = self.session.cluster();
        let target = self.pipeline.target();
        let (namespace, _) = self.shared.collections.place(key.namespace(), target);
        let value = RawDocumentBuf::try_from(value).ok()?;
        let command = rawdoc! {
            "find": namespace.collection(),
            "filter": value,
            "projection": { "_id": 1 },
            "limit": 1,
            "singleBatch": true,
            "readConcern": { "level": "majority" },
        };
        let mut found = None;
        let take = |document: &RawDocument| found = Some(document.to_owned());
        let doing = "look up a duplicate";
        cluster
            .each(namespace.database(), command, doing, take)
            .await
            .ok()?;
        found
    }
}
